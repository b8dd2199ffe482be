"""The README as a user would take it: short, true, and every block of Python runs as printed."""

from __future__ import annotations

import ast
import inspect
import json
import re
import time
import types
from pathlib import Path
from typing import Any

import pytest

import musicapi_async
from musicapi_async import Clips, MusicAPI, Webhooks
from musicapi_async.api.families import FAMILIES
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Sandbox
from musicapi_async.webhooks import sign
from musicapi_async.workflows import run_batch

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FACE = TEXT.partition("<!-- coverage -->")[0]
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LYRICS = "[Verse]\nRain on the window\n[Chorus]\nStay for the evening"
SECRET = "a-webhook-secret-of-length"


def block(word: str) -> str:
    """The one block that has `word` in it."""
    (found,) = [text for text in BLOCKS if word in text]
    return found


async def run(text: str, **names: Any) -> dict[str, Any]:
    """Run a block as a notebook does, with `await` at its top, and return its names."""
    code = compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = types.FunctionType(code, {"__name__": "readme"} | names)
    result = running()
    if inspect.isawaitable(result):
        await result
    return running.__globals__


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A sandbox that a user has exported the variables of, and an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    async with Sandbox(speed=300, seed=1, longest=2) as sandbox:
        monkeypatch.setenv("MUSICAPI_KEY", sandbox.api_key)
        monkeypatch.setenv("MUSICAPI_BASE_URL", sandbox.base_url)
        monkeypatch.setenv("MUSICAPI_CLOCK_SPEED", "300")
        yield sandbox


def test_face_is_short() -> None:
    """The part before the table of coverage fits on a few screens."""
    assert FACE.count("\n") <= 150
    assert len(BLOCKS) == TEXT.count("```python") == 7


async def test_ten_lines_download_a_song(
    sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first program works from the environment alone."""
    program = block("asyncio.run")
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    await run(program.replace("asyncio.run(main())", "await main()"))
    assert len(list((tmp_path / "out").glob("*.mp3"))) == 2
    assert "succeeded" in capsys.readouterr().out


async def test_batch_makes_every_song(sandbox: Sandbox, tmp_path: Path) -> None:
    """The line of the manifest that the text shows, and the recipe."""
    (line,) = re.findall(r'`(\{"mv".*?\})`', FACE)
    (tmp_path / "songs.jsonl").write_text(json.dumps(json.loads(line)), encoding="utf-8")
    async with MusicAPI() as client:
        result = (await run(block("run_batch"), client=client, run_batch=run_batch))["result"]
    assert (result.done, result.failed, result.complete) == (1, 0, True)
    assert (tmp_path / "album" / "report.html").exists()


async def test_back_end_has_the_routes() -> None:
    """The app of the recipe, as it is."""
    app = (await run(block("FastAPI")))["app"]
    paths = app.openapi()["paths"]
    assert {"/songs", "/tasks/{token}/events", "/webhooks/musicapi"} <= set(paths)


async def test_persona_sings_the_next_song(sandbox: Sandbox) -> None:
    """From a token alone."""
    async with MusicAPI() as client:
        made = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        names = await run(block("create_persona"), client=client, token=made.token, lyrics=LYRICS)
        assert isinstance(await names["sequel"], Clips)


async def test_webhook_recipe_takes_a_signed_delivery(sandbox: Sandbox) -> None:
    """Headers and body as the service sends them."""
    raw = json.dumps({"task_id": "t-1", "event": "song.failed", "type": "failed"}).encode()
    stamp = str(int(time.time()))
    headers = {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": sign(SECRET, stamp, raw)}
    headers |= {"X-Webhook-Event": "song.failed", "X-Webhook-Id": "1"}
    names = await run(
        block("Webhooks("),
        MusicAPI=MusicAPI,
        Webhooks=Webhooks,
        headers=headers,
        raw=raw,
        secret=SECRET,
        url="https://example.com/webhooks/musicapi",
    )
    assert names["event"].task_id == "t-1"


async def test_job_key_pays_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """The recipe, run twice, as after a crash."""
    first, second = [
        (await run(block("job_key"), MusicAPI=MusicAPI, SQLiteStore=SQLiteStore))["task"] for _ in range(2)
    ]
    assert first.task_id == second.task_id
    assert len(sandbox.journal.creates) == 1
    store = SQLiteStore(tmp_path / "jobs.sqlite")
    assert len(await store.jobs()) == 1
    await store.aclose()


async def test_testing_recipe_passes(sandbox: Sandbox) -> None:
    """The test that a user would copy."""
    names = await run(block("test_my_service"))
    async with sandbox.client() as client:
        await names["test_my_service"](client, sandbox)


def test_errors_in_the_money_table_exist() -> None:
    """Names in backquotes that end in Error are exported."""
    named = set(re.findall(r"`(\w+Error)`", TEXT))
    assert len(named) > 8
    assert [name for name in named if not hasattr(musicapi_async, name)] == []


def test_calls_in_the_text_exist() -> None:
    """Methods of families and of the client, wherever they are named."""
    for owner, name in re.findall(r"\b(sonic|producer|suno|client)\.(\w+)", FACE):
        if owner in FAMILIES:
            assert name in FAMILIES[owner].operations(), name
        elif name not in FAMILIES:
            assert hasattr(MusicAPI, name), name


def test_links_lead_somewhere() -> None:
    """Files that the text links to exist, and so do the commands of `benchmarks/` and `tests/` that it names."""
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if not link.startswith("https://")]
    assert len(linked) >= 4
    named = re.findall(r"`(?:python )?((?:tests/)?[\w/]+\.py)", FACE)
    for path in [*linked, *named]:
        assert (ROOT / path).exists() or (ROOT / "benchmarks" / path).exists(), path


def test_changelog_has_each_heading_once() -> None:
    """Merged changes are in one list of each kind."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased = text.partition("## [Unreleased]")[2].partition("\n## [")[0]
    assert re.findall(r"^### (\w+)", unreleased, re.MULTILINE) == ["Added", "Changed", "Fixed"]
