"""The public names of the package, one a line, with their arguments and types.

`python tests/docs/public_api.py --write` writes them to `public_api.txt`, which the test compares with the code:
a name that changes by mistake fails there, and one that changes on purpose is seen in the review.

A module is public if it defines `__all__` and no part of its name begins with an underscore.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

from musicapi_async import MusicAPI
from musicapi_async.api.families import FAMILIES
from musicapi_async.api.operation import Family

ROOT = Path(__file__).parents[2]
SNAPSHOT = Path(__file__).with_name("public_api.txt")
_EXPORTS = re.compile(r"^__all__\b", re.MULTILINE)
SHOWN_DUNDERS = {"__init__", "__call__", "__await__", "__getitem__", "__iter__", "__len__", "__aenter__"}
"""Methods with double underscores that belong to what a caller writes; the others follow from the type."""


def load() -> griffe.Module:
    """Read the package, without running it."""
    package = griffe.load("musicapi_async", search_paths=[ROOT], resolve_aliases=True)
    assert isinstance(package, griffe.Module)
    return package


def public_names() -> list[str]:
    """List the names of the public modules: parents first, else in alphabetical order."""
    files = [
        path for path in (ROOT / "musicapi_async").rglob("*.py") if _EXPORTS.search(path.read_text("utf-8"))
    ]
    places = (path.relative_to(ROOT).with_suffix("").parts for path in files)
    names = sorted(tuple(part for part in place if part != "__init__") for place in places)
    return [".".join(name) for name in names if not any(part.startswith("_") for part in name)]


def snapshot() -> str:
    """Return all public names as text, a section for each module."""
    package = load()
    modules = [_module(package, name) for name in public_names()]
    exports = {module.path: [str(name) for name in module.exports or ()] for module in modules}
    listed = {_resolved(module[name]).path for module in modules for name in exports[module.path]}
    shown: set[str] = set()
    lines: list[str] = []
    for module in modules:
        if not exports[module.path]:
            continue
        lines += ["", f"# {module.path}"]
        for name in sorted(exports[module.path]):
            found = _resolved(module[name])
            if found.path in shown:
                lines.append(f"{name} (above)")
                continue
            shown.add(found.path)
            lines += _lines(found, name, listed)
    return "\n".join(lines[1:]) + "\n"


def _module(package: griffe.Module, name: str) -> griffe.Module:
    _, _, place = name.partition(".")
    found = package[place] if place else package
    assert isinstance(found, griffe.Module)
    return found


def _resolved(found: griffe.Object | griffe.Alias) -> griffe.Object:
    return found.final_target if isinstance(found, griffe.Alias) else found


def _lines(found: griffe.Object, name: str, listed: set[str]) -> Iterator[str]:
    if isinstance(found, griffe.Class):
        yield f"class {name}({', '.join(map(str, found.bases))})"
        for member, about in sorted(_members(found, listed).items()):
            for line in _lines(about, member, listed):
                yield f"    {line}"
    elif isinstance(found, griffe.Function):
        for one in found.overloads or [found]:
            yield f"{'async ' if 'async' in found.labels else ''}{one.signature(name=name)}"
    elif isinstance(found, griffe.Attribute):
        yield f"{name}{_operation(found) or _annotation(found)}"


def _annotation(found: griffe.Attribute) -> str:
    """Return the value of a type alias, type and default of a field, or the type of another attribute."""
    is_alias = found.annotation is None and isinstance(found.parent, griffe.Module)
    if (is_alias and not found.name.startswith("__")) or str(found.annotation) == "TypeAlias":
        return f" = {found.value}"
    if found.annotation is None:
        return ""
    is_field = "class-attribute" in found.labels and "instance-attribute" in found.labels
    default = f" = {found.value}" if is_field and found.value is not None else ""
    return f": {found.annotation}{default}"


def _members(found: griffe.Class, listed: set[str]) -> dict[str, griffe.Object]:
    """Return the public members of a class, with those of its bases that are not listed themselves."""
    members: dict[str, griffe.Object] = {}
    for base in [found, *(base for base in found.mro() if base.path not in listed)]:
        for name, member in base.members.items():
            if name in SHOWN_DUNDERS or not name.startswith("_"):
                members.setdefault(name, _resolved(member))
    return members


def _operation(found: griffe.Attribute) -> str:
    """Return the signature of an operation of a family, or nothing."""
    word = {family.__name__: word for word, family in FAMILIES.items()}.get(found.path.split(".")[-2], "")
    family = getattr(MusicAPI("not-a-real-key"), word, None) if word else None
    if not isinstance(family, Family) or found.name not in type(family).operations():
        return ""
    return str(inspect.signature(getattr(family, found.name)))


if __name__ == "__main__":
    if "--write" in sys.argv:
        SNAPSHOT.write_text(snapshot(), encoding="utf-8")
    else:
        sys.stdout.write(snapshot())
