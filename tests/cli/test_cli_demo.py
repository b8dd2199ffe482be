"""The demo, as a newcomer sees it: on a terminal of 80 columns, and as JSON lines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from command_shell import Shell, environment, lines_of
from mutagen.mp3 import MP3

from musicapi_async.cli.demo import PROGRAM
from musicapi_async.sandbox import Sandbox

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]")


def on_terminal(folder: Path, *args: str, columns: int = 80, box: Sandbox | None = None) -> tuple[int, str]:
    """Run the command on a terminal of its own; returns its exit code and all that was written."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    settings = {**environment(box), "TERM": "xterm-256color"}
    settings.pop("COLUMNS", None)
    command = [sys.executable, "-c", "from musicapi_async.cli import main; main()", *args]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=settings, cwd=folder
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 65536):
                written += chunk
        except OSError:  # Linux says so when the last writer has gone
            pass
        code = process.wait(60)
    os.close(ours)
    return code, written.decode()


async def test_texts_appear_above_bars(sandbox: Sandbox, tmp_path: Path) -> None:
    """A log line, or the command that resumes, has lines of its own while bars move."""
    song = ("create", "--mv", "sonic-v6", "--prompt", "la", "--title", "Lanterns", "-v", "--download", "d")
    code, written = await anyio.to_thread.run_sync(partial(on_terminal, tmp_path, *song, box=sandbox))
    lines = re.split(r"[\r\n]+", ESCAPES.sub("", written))
    assert code == 0, written
    at = lines.index("Accepted. To resume:")
    assert lines[at + 1 : at + 3] == ["  musicapi download \\", "    --out d \\"]
    assert any(line.startswith("info: POST /sonic/create accepted: ") for line in lines)
    assert any(line.startswith("    musicapi:sonic:create_music:") for line in lines)
    assert any(re.match("Lanterns .* succeeded", line) for line in lines)


def test_demo_on_terminal_of_80_columns(tmp_path: Path) -> None:
    """Bars while it runs, then a table, the cost and a program to copy; no line is wider than the screen."""
    code, written = on_terminal(tmp_path, "demo", "--speed", "60")
    shown = ESCAPES.sub("", written)
    assert code == 0, shown
    assert max(len(line) for line in re.split(r"[\r\n]+", shown)) <= 80
    assert re.search(r"(?s)pending.*stream.*succeeded.*2 saved.*Title.*Cost.*import asyncio", shown)
    screen = shown[shown.rindex("Title  ") :].splitlines()
    assert len(screen) < 24, "the table scrolls away on a terminal of 24 lines"
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
