"""The coverage table: every endpoint of the API, and where each is declared, offered, answered and tried.

Nothing in it is written by hand but the list of endpoints and the reasons for what is missing: methods come
from the declarations, commands from the command line, routes from the sandbox, bodies from the contract's
examples, and the clients that nobody here wrote from the interop tests.

    python tests/contract/coverage_table.py            # print the table
    python tests/contract/coverage_table.py --write    # bring README.md up to date
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import click
import musicapi as vendor
from examples_index import EXAMPLES

from musicapi_async.api.families import FAMILIES
from musicapi_async.api.operation import Operation
from musicapi_async.cli.commands import musicapi
from musicapi_async.cli.operation_commands import OperationCommand
from musicapi_async.sandbox.routes import POLLS, POSTS

ROOT: Final = Path(__file__).parents[2]
MARKS: Final = ("<!-- coverage -->", "<!-- /coverage -->")

ENDPOINTS: Final = """
POST /sonic/create
GET /sonic/task/{task_id}
POST /sonic/persona
POST /sonic/create-voice
POST /sonic/upload
POST /sonic/upload-extend
POST /sonic/upload-cover
POST /sonic/sample
POST /sonic/mashup
POST /sonic/replace-section
POST /sonic/stems/basic
POST /sonic/stems/full
POST /sonic/wav
POST /sonic/midi
POST /sonic/bpm
POST /sonic/vox
POST /sonic/aligned-lyrics
POST /sonic/upsample-tags
POST /sonic/lyrics
POST /sonic/download
POST /sonic/batch
GET /sonic/batch
POST /suno/create
GET /suno/clip/{task_id}
POST /suno/make-lyrics
GET /suno/get-lyrics/{task_id}
POST /suno/get-song
POST /producer/create
POST /producer/upload
POST /producer/download
GET /producer/task/{task_id}
POST /producer/lyrics-create
POST /producer/video-clip
POST /nuro/create
GET /nuro/task/{task_id}
POST /riffusion/create
POST /riffusion/upload
GET /riffusion/task/{task_id}
POST /studio/create
GET /studio/task/{task_id}
GET /get-credits
""".strip().splitlines()
"""All 41 endpoints, in the order of the contract."""

SUBMITTED: Final = frozenset(one.name for one in EXAMPLES if one.name.endswith("-create-res-submit"))
"""Submit replies that stand for all creates of a family."""

SERVED_OTHERWISE: Final = frozenset({"GET /get-credits", "GET /sonic/batch"})
"""Routes that the sandbox's server answers without a table."""

UNKNOWN: Final = "bodies unknown"
SISTER: Final = "on another host only, bodies unknown"
MISSING: Final[dict[tuple[str, str], str]] = {
    ("GET /sonic/batch", "bodies"): UNKNOWN,
    ("POST /producer/lyrics-create", "method"): "`client.request`: " + SISTER,
    ("POST /producer/lyrics-create", "command"): "`musicapi request`: " + SISTER,
    ("POST /producer/lyrics-create", "route"): "404: " + SISTER,
    ("POST /producer/lyrics-create", "bodies"): UNKNOWN,
    ("POST /producer/lyrics-create", "interop"): UNKNOWN,
    ("POST /producer/video-clip", "method"): "`client.request`: " + SISTER,
    ("POST /producer/video-clip", "command"): "`musicapi request`: " + SISTER,
    ("POST /producer/video-clip", "route"): "404: " + SISTER,
    ("POST /producer/video-clip", "bodies"): UNKNOWN,
    ("POST /producer/video-clip", "interop"): UNKNOWN,
}
"""Cells that are empty for a reason, which stands in their place."""


class Row(NamedTuple):
    """One endpoint. An empty cell is missing."""

    endpoint: str
    method: str
    command: str
    route: str
    bodies: str
    interop: str


def _named(names: list[str]) -> str:
    """The first of several, and how many more there are."""
    shown = f"`{names[0]}`" if names else ""
    return shown + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _methods(endpoint: str) -> list[str]:
    return [
        "credits" if word == "account" else f"{word}.{name}"
        for word, family in FAMILIES.items()
        for name, operation in family.operations().items()
        if operation.call_name == endpoint
    ]


def commands() -> dict[str, Operation[..., Any]]:
    """Every command that is an operation, as it is typed, families before shorter names."""
    found: dict[str, Operation[..., Any]] = {}
    for name, group in musicapi.commands.items():
        if isinstance(group, click.Group):
            context = click.Context(group, info_name=name)
            for inner in group.list_commands(context):
                command = group.get_command(context, inner)
                if isinstance(command, OperationCommand):
                    found[f"musicapi {name} {inner}"] = command.operation
    return found


def _route(endpoint: str) -> str:
    method, _, path = endpoint.partition(" ")
    known = path in POSTS if method == "POST" else path.removesuffix("/{task_id}") in POLLS
    return "yes" if known or endpoint in SERVED_OTHERWISE else ""


def _bodies(endpoint: str) -> str:
    method, _, path = endpoint.partition(" ")
    path = path.replace("{task_id}", "{id}")
    found = {
        (one.name, one.kind)
        for one in EXAMPLES
        if one.method == method and one.path.replace("{task_id}", "{id}") == path
    }
    requests = sum(kind == "request" for _, kind in found)
    responses = sum(kind == "response" for _, kind in found)
    if method == "GET":
        return str(responses or "")
    if not requests:
        return ""
    family = path.split("/")[1]
    if not responses and f"{family}-create-res-submit" in SUBMITTED:
        return f"{requests} + the reply of create"
    return f"{requests} + {responses}" if responses else ""


def interop_module(name: str) -> ModuleType:
    """A module of the interop tests, which are in a folder of their own."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "interop" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tried_by_hand() -> set[str]:
    module = interop_module("test_contract_by_hand")
    posts = {f"POST {path}" for path in (*module.CREATES, *module.DIRECT)}
    gets = {f"GET {path.removesuffix('/x')}/{{task_id}}" for path in module.POLLS}
    return posts | gets | {"GET /get-credits", f"GET {module.BATCH}"}


def _tried_by_vendor() -> dict[str, str]:
    """The vendor's method for each endpoint, as its own documentation names them, if it is run here."""
    rows = interop_module("test_vendor_sdk").ROWS
    found: dict[str, str] = {}
    with vendor.MusicAPI("key") as client:
        for name in rows:
            resource, _, method = name.partition(".")
            text = inspect.getdoc(getattr(getattr(client, resource), method)) or ""
            for verb, path in re.findall(r"^(GET|POST) ``(/[^`]+)``", text, re.MULTILINE):
                found.setdefault(f"{verb} {path.replace('{id}', '{task_id}')}", name)
    return found


def rows() -> Iterator[Row]:
    """The table."""
    typed = commands()
    by_hand, by_vendor = _tried_by_hand(), _tried_by_vendor()
    for endpoint in ENDPOINTS:
        tried = [f"`{by_vendor[endpoint]}`"] if endpoint in by_vendor else []
        tried += ["by hand"] if endpoint in by_hand else []
        yield Row(
            endpoint,
            _named(_methods(endpoint)),
            _named([name for name, operation in typed.items() if operation.call_name == endpoint]),
            _route(endpoint),
            _bodies(endpoint),
            ", ".join(tried),
        )


def filled(row: Row) -> Row:
    """The row with the reasons for what is missing."""
    cells = {name: value or MISSING.get((row.endpoint, name), "") for name, value in row._asdict().items()}
    return Row(**cells)


def table() -> str:
    """The table as Markdown, between its marks."""
    lines = [
        MARKS[0],
        "",
        "| endpoint | method of the client | command | sandbox | example bodies | clients of others |",
        "|---|---|---|---|---|---|",
    ]
    for row in map(filled, rows()):
        lines.append(f"| `{row.endpoint}` | " + " | ".join(row[1:]) + " |")
    return "\n".join([*lines, "", MARKS[1]])


def readme_with_table(text: str) -> str:
    """A README with the table between its marks, or at the end if there are none."""
    if MARKS[0] in text and MARKS[1] in text:
        head, _, rest = text.partition(MARKS[0])
        return head + table() + rest.partition(MARKS[1])[2]
    intro = (
        "## Coverage\n\nEvery endpoint of the API. Example bodies are requests + responses; clients of others are the "
        "vendor's own SDK\nand plain HTTP by hand. Made by `python tests/contract/coverage_table.py --write`.\n\n"
    )
    return text.rstrip("\n") + "\n\n" + intro + table() + "\n"


def main() -> None:
    """Print the table, or write it into README.md."""
    if "--write" in sys.argv:
        readme = ROOT / "README.md"
        readme.write_text(readme_with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
