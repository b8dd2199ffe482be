"""The public names change on purpose only."""

from __future__ import annotations

import ast
import difflib
import importlib
import subprocess
import sys
from pathlib import Path

import public_api
import pytest

import musicapi_async


def test_public_names_are_those_of_the_snapshot() -> None:
    """A name, an argument, a default or a type that changed is announced by rewriting the snapshot."""
    announced = public_api.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    change = list(difflib.unified_diff(announced, public_api.snapshot().splitlines(), lineterm="", n=0))
    listed = "\n".join(change)
    assert not change, f"announce it: python tests/docs/public_api.py --write\n{listed}"


ROOT = Path(musicapi_async.__file__).parent


def relative_imports(body: list[ast.stmt]) -> dict[str, set[str]]:
    """Return the names that these statements import from this package, by module."""
    found: dict[str, set[str]] = {}
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.level:
            module = "." * node.level + (node.module or "")
            found.setdefault(module, set()).update(name.name for name in node.names)
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_packages_import_none_of_their_modules(path: Path) -> None:
    """Threads that import a package and a module of it at once would each wait for the other. A name resolves
    from the module from which type checkers see it."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert not relative_imports(body).keys() - {"._lazy_names", "._version", ".._lazy_names"}
    static = {
        module: names
        for node in body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for module, names in relative_imports(node.body).items()
    }
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT.parent).parts))
    assert static.pop(".", set()) == set(getattr(package, "_PACKAGES", ()))
    assert static == {module: set(names) for module, names in getattr(package, "_MODULES", {}).items()}
    if static:
        assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in getattr(package, "__all__", ()))


def test_a_name_is_imported_when_it_is_first_used() -> None:
    """Importing the package costs little, and every name resolves."""
    program = (
        "import sys, musicapi_async\n"
        "assert not {'asyncio', 'msgspec', 'musicapi_async.client'} & set(sys.modules)\n"
        "named = {name for name in dir(musicapi_async) if not name.startswith('_')}\n"
        "assert named | {'__version__'} == {*musicapi_async.__all__, *musicapi_async._PACKAGES}\n"
        "assert all(getattr(musicapi_async, name) is not None for name in musicapi_async.__all__)\n"
        "assert musicapi_async.webhooks.verify and musicapi_async.workflows.run_batch\n"
        "assert all(getattr(musicapi_async, name).__name__ for name in musicapi_async._PACKAGES)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("seed", range(3))
def test_names_can_be_used_first_in_several_threads(seed: int) -> None:
    """Each thread gets what it asks for, although all of them import at once, by name or by statement."""
    program = (
        "import random, sys, threading\n"
        "import musicapi_async\n"
        "names, packages = musicapi_async.__all__, musicapi_async._PACKAGES\n"
        "uses = [f'musicapi_async.{name}' for name in (*names, *packages)]\n"
        "uses = [f'import musicapi_async; {use}' for use in uses]\n"
        "uses += [f'from musicapi_async import {name}' for name in names]\n"
        "uses += [f'import musicapi_async.{name}' for name in packages]\n"
        "uses += ['from musicapi_async.jobs import SQLiteStore, Job'] * 5\n"
        "uses += ['from musicapi_async.webhooks import verify, Webhooks'] * 5\n"
        "uses += ['from musicapi_async.workflows import run_batch'] * 5\n"
        f"random.Random({seed}).shuffle(uses)\n"
        "uses = [compile(use, use, 'exec') for use in uses]\n"
        f"sys.setswitchinterval(10 ** (-6 + {seed}))\n"
        "at_once, failed = threading.Barrier(len(uses)), []\n"
        "def run(use):\n"
        "    at_once.wait()\n"
        "    try:\n"
        "        exec(use, {})\n"
        "    except BaseException as error:\n"
        "        failed.append((use, error))\n"
        "threads = [threading.Thread(target=run, args=(use,)) for use in uses]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "assert not failed, failed\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
