"""The README as a user would take it: every block of Python compiles and does what it says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from musicapi_async.sandbox import Sandbox

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Run in an empty folder, with the environment of a user of the sandbox."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(block: str) -> dict[str, Any]:
    """Run a block's definitions without its last line, `asyncio.run(main())`."""
    tree = ast.parse(block)
    tree.body = [node for node in tree.body if not isinstance(node, ast.Expr)]
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(tree, "README.md", "exec"), names)
    return names


def test_every_block_compiles_and_its_imports_exist() -> None:
    """No block is stale."""
    assert len(BLOCKS) == TEXT.count("```python")
    for block in BLOCKS:
        load(block)


def test_the_main_job_runs_as_printed(away: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The first program works from MUSICAPI_KEY and MUSICAPI_BASE_URL alone, against a sandbox."""

    async def job() -> None:
        async with Sandbox(speed=60, seed=1, longest=8) as sandbox:
            monkeypatch.setenv("MUSICAPI_KEY", sandbox.api_key)
            monkeypatch.setenv("MUSICAPI_BASE_URL", sandbox.base_url)
            names = load(BLOCKS[0])
            # The program waits on a real clock, so it is given the sandbox's; nothing else is changed.
            client = names["MusicAPI"]
            names["MusicAPI"] = lambda: client(clock=sandbox.clock)
            await names["main"]()

    asyncio.run(job())
    assert len(list((away / "out").glob("*.mp3"))) == 2
    assert "succeeded" in capsys.readouterr().out


def test_the_sandbox_program_runs_as_printed(capsys: Any) -> None:
    """The second program needs nothing at all."""
    asyncio.run(load(BLOCKS[1])["main"]())
    title, duration, charges = capsys.readouterr().out.rsplit(maxsplit=2)
    assert title == "Hello"
    assert float(duration) > 5
    assert float(charges) > 0


def test_the_album_program_downloads_every_song(away: Path) -> None:
    """Many at once, with the rate of the account."""

    async def job() -> None:
        async with Sandbox(speed=300, longest=8) as sandbox, sandbox.client() as client:
            await load(BLOCKS[2])["album"](client, ["One", "Two", "Three"])

    asyncio.run(job())
    assert len(list((away / "out").glob("*.mp3"))) == 6


def test_the_options_named_in_the_readme_exist() -> None:
    """The signature in the text is the signature in the code."""
    from musicapi_async import MusicAPI

    shown = re.search(r"`MusicAPI\((api_key=None.*?)\)`", TEXT, re.DOTALL)
    assert shown
    names = set(re.findall(r"(\w+)=", shown[1]))
    assert names <= set(inspect.signature(MusicAPI).parameters)


def test_every_error_in_the_money_table_exists() -> None:
    """Names in backquotes that end in Error are exported."""
    import musicapi_async

    for name in set(re.findall(r"`(\w+Error)`", TEXT)):
        assert hasattr(musicapi_async, name), name


def test_every_call_in_the_readme_exists() -> None:
    """Methods of families, of the client and of workflows, wherever they stand in backquotes."""
    from musicapi_async import MusicAPI, workflows
    from musicapi_async.api.families import FAMILIES

    prose = TEXT.partition("<!-- coverage -->")[0]
    named = re.findall(r"\b(sonic|producer|suno|workflows|client)\.(\w+)", prose)
    assert len(named) > 40
    for owner, name in named:
        if owner in FAMILIES:
            assert name in FAMILIES[owner].operations(), name
        elif owner == "workflows" or name not in FAMILIES:
            assert hasattr(workflows if owner == "workflows" else MusicAPI, name), name


def test_every_link_within_the_readme_leads_somewhere() -> None:
    """The list of sections at the top follows the headings."""
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("## ")
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= headings
