"""Features whose extra is not installed: the text says what is missing and how to install it from a clone."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from musicapi_async.extras import LIBRARIES

ROOT: Final = Path(__file__).parents[2]
COMMAND: Final = "from musicapi_async.cli import main; main()"
DATABASE: Final = (
    "import os; os.environ |= {'MUSICAPI_KEY': 'key', 'MUSICAPI_STORE': 'postgresql://db.example/music'}"
)
FILES: Final = """
import asyncio
from musicapi_async.sandbox import Sandbox
from musicapi_async.workflows import run_batch

async def work():
    async with Sandbox(speed=1000.0) as sandbox, sandbox.client() as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt="la")
        {call}

try:
    asyncio.run(work())
except Exception as error:
    raise SystemExit(f"{{error}} {{error.hint}}")
"""

PLACES: Final[dict[str, tuple[str, str, str]]] = {
    "the command": ("cli", "click", f"import sys; sys.argv = ['musicapi', 'demo']\n{COMMAND}"),
    "the command's bars": ("cli", "rich", f"import sys; sys.argv = ['musicapi', 'credits']\n{COMMAND}"),
    "the demo": ("sandbox", "numpy", f"import sys; sys.argv = ['musicapi', '--text', 'demo']\n{COMMAND}"),
    "a download from a sandbox": (
        "sandbox",
        "soundfile",
        FILES.format(call="await client.download(await task.wait(), 'songs')"),
    ),
    "tags of a batch": (
        "tags",
        "mutagen",
        FILES.format(call="await run_batch(client, [], out='never', tags=True)"),
    ),
    "the page of a batch": (
        "cli",
        "jinja2",
        "import asyncio\nfrom musicapi_async.workflows import write_report\nasyncio.run(write_report('songs'))",
    ),
    "the command for a page": (
        "cli",
        "jinja2",
        f"import sys; sys.argv = ['musicapi', '--text', 'batch', 'report', 'songs']\n{COMMAND}",
    ),
    "the bridge to FastAPI": ("fastapi", "fastapi", "import musicapi_async.contrib.fastapi"),
    "the bridge to FastAPI, in part": ("fastapi", "starlette", "import musicapi_async.contrib.fastapi"),
    "the bridge to OpenTelemetry": (
        "opentelemetry",
        "opentelemetry",
        "import musicapi_async.contrib.opentelemetry",
    ),
    "the store that machines share": (
        "postgres",
        "psycopg",
        "from musicapi_async import PostgresStore",
    ),
    "the workers of a batch": ("workers", "procrastinate", "import musicapi_async.workflows.workers"),
    "the driver of the workers": ("workers", "psycopg", "import musicapi_async.workflows.workers"),
    "the command of a worker": (
        "workers",
        "procrastinate",
        f"import sys; sys.argv = ['musicapi', '--text', 'worker', '--store', 'postgresql://db/x']\n{COMMAND}",
    ),
    "a database as an option": (
        "postgres",
        "psycopg",
        f"import sys; sys.argv = ['musicapi', '--text', 'jobs', 'list', 'postgresql://db/x']\n{COMMAND}",
    ),
    "a database in the environment": (
        "postgres",
        "psycopg",
        f"import sys; sys.argv = ['musicapi', '--text', 'credits']\n{DATABASE}\n{COMMAND}",
    ),
    "the certificate of a sandbox": (
        "tls",
        "trustme",
        f"import sys; sys.argv = ['musicapi', '--text', 'sandbox', '--port', '0', '--tls']\n{COMMAND}",
    ),
    "the MCP server": ("mcp", "mcp", "import musicapi_async.mcp.tool_server"),
    "the MCP command": ("mcp", "mcp", f"import sys; sys.argv = ['musicapi', '--text', 'mcp']\n{COMMAND}"),
    "the example service": ("fastapi,sandbox", "uvicorn", "import musicapi_async.examples.service"),
}
"""Per place: the extra that it names, a library to hide, and a program that needs it."""


@pytest.mark.parametrize("place", PLACES)
def test_missing_extra_is_explained(place: str, tmp_path: Path) -> None:
    """Every place names its extra, the missing library, a command for a clone, and one for anywhere else."""
    extra, library, program = PLACES[place]
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{library!r}] = None\n{program}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert ran.returncode == (2 if COMMAND in program else 1)
    assert COMMAND not in program or "Traceback" not in ran.stderr
    text = " ".join(ran.stderr.split())
    needed = " ".join(name for one in extra.split(",") for name in LIBRARIES[one])
    assert (
        f"the extra [{extra}] ({library} is not installed): `pip install -e '.[{extra}]'` in a clone" in text
    )
    assert f"elsewhere `pip install {needed}`" in text


@pytest.mark.parametrize("package", ["musicapi_async", "musicapi_async.jobs", "musicapi_async.mcp"])
def test_guides_are_displayed_without_extras(package: str) -> None:
    """By `help`, which looks at each name that `dir` lists, as do completions of editors."""
    hidden = (
        "import sys; from importlib.machinery import PathFinder; find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *place: None if name in ('mcp', 'psycopg') else find(name, *place)\n"
    )
    program = f"import pydoc, {package}; print(pydoc.render_doc({package}))"
    ran = subprocess.run(
        [sys.executable, "-c", hidden + program], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"package {package}" in ran.stdout


@pytest.mark.parametrize("package", ["musicapi_async", "musicapi_async.jobs"])
def test_all_names_are_imported_without_an_extra(package: str) -> None:
    """As in a notebook; the store that needs PostgreSQL's driver is among them only where that is installed."""
    hidden = (
        "import sys; from importlib.machinery import PathFinder; find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *place: None if name == 'psycopg' else find(name, *place)\n"
    )
    program = f"from {package} import *; print(SQLiteStore.__name__, 'PostgresStore' in globals())"
    for first, found in (("", "True"), (hidden, "False")):
        ran = subprocess.run(
            [sys.executable, "-c", first + program], capture_output=True, text=True, check=True, timeout=60
        )
        assert ran.stdout.split() == ["SQLiteStore", found]


def test_library_table_matches_the_package() -> None:
    """The extras of `pyproject.toml` that bring libraries are those of the table, with the same libraries."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for extra, libraries in LIBRARIES.items():
        assert [re.split(r"[<>=!~; \[]", one)[0] for one in extras[extra]] == list(libraries)
    of_libraries = {name for one in extras["all"] for name in re.findall(r"\[(.*)\]", one)[0].split(",")}
    assert of_libraries == set(LIBRARIES)


def test_no_text_installs_the_package_by_its_name() -> None:
    """Whatever an index has under the name of this package is another's, so hints name a clone."""
    named = re.compile(r"pip install\s+(?:-\S+\s+)*['\"]?musicapi[-_]async")
    for path in (ROOT / "README.md", *sorted((ROOT / "musicapi_async").rglob("*.py"))):
        assert not named.search(path.read_text(encoding="utf-8")), path


def test_the_extra_mcp_is_enough_for_its_command() -> None:
    """The command `musicapi` needs only what the extra of the MCP server brings, too."""
    absent = sorted(set(LIBRARIES["cli"]) - set(LIBRARIES["mcp"]))
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\nsys.argv = ['musicapi', 'mcp', '--help']"
    )
    ran = subprocess.run(
        [sys.executable, "-c", f"{program}\n{COMMAND}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
