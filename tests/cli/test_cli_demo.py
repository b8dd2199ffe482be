"""The demo, as a newcomer sees it: on a terminal of 80 columns, and as JSON lines."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from command_shell import Shell, lines_of
from mutagen.mp3 import MP3
from terminal import ESCAPES, on_terminal, screen_of

from musicapi_async.cli.demo_command import PROGRAM
from musicapi_async.sandbox import Sandbox


async def test_texts_appear_above_bars(sandbox: Sandbox, tmp_path: Path) -> None:
    """A log line, or the command that resumes, has lines of its own while bars move."""
    song = ("create", "--mv", "sonic-v6", "--prompt", "la", "--title", "Lanterns", "-v", "--download", "d")
    code, written = await anyio.to_thread.run_sync(partial(on_terminal, tmp_path, *song, box=sandbox))
    lines = re.split(r"[\r\n]+", ESCAPES.sub("", written))
    assert code == 0, written
    at = lines.index("Accepted. To resume:")
    assert lines[at + 1 : at + 3] == ["  musicapi download \\", "  --out d \\"]
    assert any(line.startswith("info: POST /sonic/create accepted:") for line in lines)
    assert any(line.startswith("  musicapi:sonic:create_music:") for line in lines)
    assert any(re.match("Lanterns .* succeeded", line) for line in lines)


def test_demo_on_terminal_of_80_columns(tmp_path: Path) -> None:
    """Bars while it runs, then the songs, the cost and a program to copy; no line is wider than the screen."""
    code, written = on_terminal(tmp_path, "demo", "--speed", "60")
    shown = ESCAPES.sub("", written)
    assert code == 0, shown
    assert max(len(line) for line in re.split(r"[\r\n]+", shown)) <= 80
    assert re.search(
        r"(?s)pending.*stream.*succeeded.*2 saved.*from a description.*Cost.*import asyncio", shown
    )
    screen = shown[shown.rindex("Small Tonight, from a description") :].splitlines()
    assert len(screen) < 24, "the songs scroll away on a terminal of 24 lines"
    assert "Harbour, sung by Rainy voice, the persona of Small Tonight" in screen
    names = sorted(path.name for path in (tmp_path / "musicapi-demo").iterdir())
    assert len(names) == 6
    for name in names:
        assert any(name in line for line in screen)


async def test_demo_as_json_lines(tmp_path: Path) -> None:
    """A program gets events, and the sum of them at the end; the files are songs with a title."""
    done = await Shell(folder=tmp_path).run("demo", "--speed", "200", "--out", "o", "--seed", "3")
    assert (done.code, done.err) == (0, "")
    last = lines_of(done.out)[-1]
    assert last["event"] == "demo"
    assert last["cost"] > 0
    persona = next(one for one in lines_of(done.out) if one.get("operation") == "sonic.create_persona")
    assert persona["name"] == last["persona"] == "Rainy voice"
    for path in last["files"]:
        song = MP3(tmp_path / path)
        assert str(song.tags["TIT2"]) in path
        assert 50 <= song.info.length <= 90


async def test_ctrl_c_in_demo(tmp_path: Path) -> None:
    """It ends at once, and names no tasks to wait for, since they have ended with it."""
    done = await Shell(folder=tmp_path).interrupt_after('"running"', "demo", "--speed", "20")
    assert done.code == 130
    assert lines_of(done.err)[-1]["tasks"] == []


def test_ctrl_c_in_demo_names_files(tmp_path: Path) -> None:
    """The bars are gone, and each song that is there is named with what it was made from."""
    code, written = on_terminal(tmp_path, "demo", "--speed", "20", interrupt_at="2 saved")
    screen = screen_of(written)
    assert code == 130
    assert "Files that are there:" in screen
    for path in (tmp_path / "musicapi-demo").glob("*.mp3"):
        assert any(line.endswith(path.name) for line in screen)
    assert screen[-1] == "Interrupted. The sandbox and its tasks have ended; nothing real was charged."
    assert "\u2501" not in "".join(screen)


async def test_printed_program_runs(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ten lines that the demo prints do the same as the demo; only the clock is faster here."""
    assert len(PROGRAM.splitlines()) == 10
    assert max(map(len, PROGRAM.splitlines())) <= 80
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSICAPI_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("MUSICAPI_KEY", sandbox.api_key)
    program = PROGRAM.replace("asyncio.run(main())", "").replace("MusicAPI()", "MusicAPI(clock=clock)")
    scope: dict[str, Any] = {"clock": sandbox.clock}
    exec(program, scope)
    await scope["main"]()
    assert len(list((tmp_path / "songs").iterdir())) == 6
