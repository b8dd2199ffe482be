"""The public names change on purpose only."""

from __future__ import annotations

import ast
import difflib
import subprocess
import sys
from pathlib import Path

import public_api

import musicapi_async


def test_public_names_are_those_of_the_snapshot() -> None:
    """A name, an argument, a default or a type that changed is announced by rewriting the snapshot."""
    announced = public_api.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    change = list(difflib.unified_diff(announced, public_api.snapshot().splitlines(), lineterm="", n=0))
    listed = "\n".join(change)
    assert not change, f"announce it: python tests/docs/public_api.py --write\n{listed}"


def test_a_name_is_imported_when_it_is_first_used() -> None:
    """The exported names are those that type checkers see, each from the same module; importing costs little."""
    source = Path(musicapi_async.__file__).read_text(encoding="utf-8")
    static: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level and node.module != "_version":
            static.setdefault(f".{node.module or ''}", set()).update(name.name for name in node.names)
    assert static.pop(".") == set(musicapi_async._PACKAGES)
    assert static == {module: set(names) for module, names in musicapi_async._MODULES.items()}
    program = (
        "import sys, musicapi_async\n"
        "assert not {'asyncio', 'msgspec', 'musicapi_async.client'} & set(sys.modules)\n"
        "assert all(getattr(musicapi_async, name) is not None for name in musicapi_async.__all__)\n"
        "assert musicapi_async.webhooks.verify and musicapi_async.workflows.run_batch\n"
        "assert all(getattr(musicapi_async, name).__name__ for name in musicapi_async._PACKAGES)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
