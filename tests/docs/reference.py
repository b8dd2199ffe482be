"""Build the API reference as HTML pages: `python -W error tests/docs/reference.py FOLDER`.

Every public module has a page (see `public_api`). An operation is declared in one line of its family; in the
reference it is the method that a client has, with its arguments, cost and errors.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pdoc.doc
import pdoc.render
import procrastinate  # noqa: F401 - runs `file` when it is imported, which pdoc would suppress with a warning
from public_api import public_names

from musicapi_async import MusicAPI
from musicapi_async.api.families import FAMILIES


def build(folder: Path) -> None:
    """Write a page for each public module, and an index, into `folder`."""
    names = public_names()
    for name in names:
        module = pdoc.doc.Module.from_name(name)
        for export in module.obj.__all__:
            if hasattr(module.obj, export):  # loads what is imported when it is first named
                setattr(module.obj, export, getattr(module.obj, export))
        document_operations(module)
    pdoc.render.configure(docformat="google", show_source=False)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):  # pdoc warns of a folder with the name of an installed module
        pdoc.pdoc(*names, output_directory=Path())


def document_operations(module: pdoc.doc.Module) -> None:
    """Replace the declarations of operations in `module` by the methods that follow from them."""
    client = MusicAPI("not-a-real-key")
    for member in module.members.values():
        if not isinstance(member, pdoc.doc.Class) or member.obj not in FAMILIES.values():
            continue
        family = member.obj(client.sonic.caller)
        for name in member.obj.operations():
            place = (member.modulename, f"{member.qualname}.{name}")
            member.members[name] = pdoc.doc.Function(*place, getattr(family, name), place)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
