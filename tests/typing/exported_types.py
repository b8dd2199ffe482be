"""Check that every exported name has a known type: `python tests/typing/exported_types.py`.

`pyright --verifytypes` reads the installed package as the type checker of a user does; an editable installation
has no `py.typed` for it, so install the package itself (`pip install .`). A name fails if its type is unknown, or
written nowhere and so left to the inference of each type checker.

Operations are the one exception. `create_music = submits("/sonic/create", CreateMusic, Clips)` takes its arguments
from the request class, which no annotation can say, so pyright counts it, and what refers to it, as ambiguous.
That pyright and mypy infer the same for them is checked in `api.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

DECLARATION: Final = re.compile(r"^\s+\w+ = (submits|submits_batch|calls|polls)\(")
CAUGHT: Final = re.compile(r"^except .* as \w+:")
"""A name that is gone after its block, which pyright counts as one of the module."""
CONSEQUENCE: Final = "is partially unknown"
"""The text about a name that is not at fault itself, but refers to one that is."""


class Place(msgspec.Struct):
    """Where something is, with lines from 0."""

    line: int


class Range(msgspec.Struct):
    """Where a finding begins."""

    start: Place


class Finding(msgspec.Struct):
    """A remark on a symbol; one on another module's symbol has no range."""

    message: str
    file: str = ""
    range: Range | None = None


class Symbol(msgspec.Struct):
    """A public name, with what is to be said of its type."""

    name: str
    diagnostics: list[Finding]


class Counts(msgspec.Struct, rename="camel"):
    """How many exported names have a type that is known, ambiguous, unknown."""

    with_known_type: int
    with_ambiguous_type: int
    with_unknown_type: int


class Completeness(msgspec.Struct, rename="camel"):
    """The part of pyright's report that is about types."""

    symbols: list[Symbol]
    exported_symbol_counts: Counts
    py_typed_path: str = ""


class Report(msgspec.Struct, rename="camel"):
    """Pyright's report."""

    type_completeness: Completeness


def report() -> Completeness:
    """Return pyright's report on the package that is installed beside this Python."""
    scripts = str(Path(sys.executable).parent)
    with tempfile.TemporaryDirectory() as elsewhere:  # where no folder has the name of the package
        ran = subprocess.run(
            [Path(scripts, "pyright"), "--verifytypes", "musicapi_async", "--ignoreexternal", "--outputjson"],
            env=os.environ | {"PATH": os.pathsep.join([scripts, os.environ["PATH"]])},
            cwd=elsewhere,
            capture_output=True,
            check=False,
        )
    return msgspec.json.decode(ran.stdout, type=Report).type_completeness


def faults(completeness: Completeness) -> list[str]:
    """Return what is at fault, a line for each place."""
    found: set[str] = set()
    for finding in (finding for symbol in completeness.symbols for finding in symbol.diagnostics):
        message = finding.message.partition("\n")[0]
        if CONSEQUENCE in message or "docstring" in message or finding.range is None:
            continue
        line = finding.range.start.line
        source = Path(finding.file).read_text(encoding="utf-8").splitlines()[line]
        if not DECLARATION.match(source) and not CAUGHT.match(source):
            found.add(f"{finding.file}:{line + 1}: {source.strip()}: {message}")
    return sorted(found)


def main() -> int:
    """Print the names at fault, and how many are known; return the exit code."""
    completeness = report()
    if not completeness.py_typed_path:
        sys.stderr.write("musicapi_async is not installed here, or not with its types: pip install .\n")
        return 1
    wrong = faults(completeness)
    counts = completeness.exported_symbol_counts
    sys.stdout.writelines(f"{fault}\n" for fault in wrong)
    sys.stdout.write(
        f"exported names: {counts.with_known_type:,} of known type, {counts.with_ambiguous_type:,} with the type "
        f"of an operation in them, {len(wrong)} places at fault\n"
    )
    return 1 if wrong or counts.with_unknown_type > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
