"""The command on a terminal of its own: all that it writes, and the screen that a person sees in the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from pathlib import Path

import pyte
from command_shell import environment
from patience import PATIENCE

from musicapi_async.sandbox import Sandbox

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]")
LINES = 24


def on_terminal(
    folder: Path,
    *args: str,
    columns: int = 80,
    box: Sandbox | None = None,
    interrupt_at: str = "",
    again_at: str = "",
    stopping: Callable[[], object] = lambda: None,
    variables: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run the command on a terminal, with Ctrl-C as soon as a text is there, and once more at another text; its
    exit code and what was written.

    `stopping` is called once the command says that it stops, and waits for songs.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    settings = {**environment(box), "TERM": "xterm-256color", **(variables or {})}
    settings.pop("COLUMNS", None)
    code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from musicapi_async.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=settings,
        cwd=folder,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        written = b""
        interrupts = [(at, lambda: os.write(ours, b"\x03")) for at in (interrupt_at, again_at) if at]
        steps = [*interrupts, ("Stopping:", stopping)] if interrupts else []
        try:
            while select.select([ours], [], [], PATIENCE)[0] and (chunk := os.read(ours, 65536)):
                written += chunk
                while steps and steps[0][0] in ESCAPES.sub("", written.decode(errors="replace")):
                    steps.pop(0)[1]()
        except OSError:  # Linux says so when the last writer has gone
            pass
        try:
            exit_code = process.wait(PATIENCE if written else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"it neither writes nor ends: {written.decode(errors='replace')}") from None
    os.close(ours)
    return exit_code, written.decode()


def screen_of(written: str, columns: int = 80) -> list[str]:
    """The lines that are on the screen in the end, with those that have scrolled away, but no empty ones."""
    screen = pyte.HistoryScreen(columns, LINES, history=1000)
    pyte.Stream(screen).feed(written)
    above = ["".join(row[column].data for column in range(columns)) for row in screen.history.top]
    return [line.rstrip() for line in (*above, *screen.display) if line.strip()]
