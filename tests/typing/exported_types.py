"""Check that every exported name has a known type: `python tests/typing/exported_types.py`.

`pyright --verifytypes` reads the installed package as the type checker of a user does; an editable installation
has no `py.typed` for it, so install the package itself (`pip install .`). A name fails if its type is unknown, or
written nowhere and so left to the inference of each type checker.

Operations are the one exception. `create_music = submits("/sonic/create", CreateMusic, Clips)` takes its arguments
from the request class, which no annotation can say, so pyright counts it, and what refers to it, as ambiguous.
That pyright and mypy infer the same for them is checked in `api.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

DECLARATION: Final = re.compile(r"^\s+\w+ = (submits|calls|polls)\(")
CAUGHT: Final = re.compile(r"^except .* as \w+:")
"""A name that is gone after its block, which pyright counts as one of the module."""
CONSEQUENCE: Final = "is partially unknown"
"""The text about a name that is not at fault itself, but refers to one that is."""


def report() -> dict[str, Any]:
    """Return pyright's report on the package that is installed beside this Python."""
    scripts = str(Path(sys.executable).parent)
    with tempfile.TemporaryDirectory() as elsewhere:  # where no folder has the name of the package
        ran = subprocess.run(
            [Path(scripts, "pyright"), "--verifytypes", "musicapi_async", "--ignoreexternal", "--outputjson"],
            env=os.environ | {"PATH": os.pathsep.join([scripts, os.environ["PATH"]])},
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
    return json.loads(ran.stdout)


def faults(completeness: dict[str, Any]) -> list[str]:
    """Return what is at fault, a line for each place."""
    found: set[str] = set()
    for symbol in completeness["symbols"]:
        for diagnostic in symbol["diagnostics"]:
            message = diagnostic["message"].partition("\n")[0]
            if CONSEQUENCE in message or "docstring" in message:
                continue
            path = Path(diagnostic["file"])
            line = int(diagnostic["range"]["start"]["line"])
            source = path.read_text(encoding="utf-8").splitlines()[line]
            if not DECLARATION.match(source) and not CAUGHT.match(source):
                found.add(f"{path}:{line + 1}: {source.strip()}: {message}")
    return sorted(found)


def main() -> int:
    """Print the names at fault, and how many are known; return the exit code."""
    completeness = report()["typeCompleteness"]
    if "pyTypedPath" not in completeness:
        sys.stderr.write("musicapi_async is not installed here, or is editable: pip install .\n")
        return 1
    wrong = faults(completeness)
    counts = completeness["exportedSymbolCounts"]
    sys.stdout.writelines(f"{fault}\n" for fault in wrong)
    sys.stdout.write(
        f"exported names: {counts['withKnownType']:,} of known type, {counts['withAmbiguousType']:,} with the type "
        f"of an operation in them, {len(wrong)} places at fault\n"
    )
    return 1 if wrong or counts["withUnknownType"] > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
