"""Running the command as users do: a process of its own against a sandbox in this one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import Piped
from patience import PATIENCE

from musicapi_async.sandbox import Durations, Sandbox

SPEED = 40.0
"""For commands of few songs: the limits in API seconds, such as the 120 s for which a call is repeated, are
seconds in real time, which a busy machine does not use up."""
QUICK = Durations(song=(4.0, 0.0), midi=1.0, files=1.0)
"""Songs that are there after a tenth of a second all the same."""


def environment(sandbox: Sandbox | None = None) -> dict[str, str]:
    """The environment of a user, with or without an account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MUSICAPI")}
    kept["PYTHONPATH"] = str(Path(__file__).parents[2])
    kept["PYTHONWARNINGS"] = "error"
    if sandbox is not None:
        kept["MUSICAPI_BASE_URL"] = sandbox.base_url
        kept["MUSICAPI_KEY"] = sandbox.api_key
        kept["MUSICAPI_CLOCK_SPEED"] = f"{sandbox.clock.speed:g}"
    return kept


@dataclass
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str


def lines_of(text: str) -> list[dict[str, Any]]:
    """JSON lines as objects."""
    return [json.loads(line) for line in text.splitlines()]


class Shell:
    """Starts `musicapi` with arguments."""

    def __init__(self, sandbox: Sandbox | None = None, folder: Path | None = None) -> None:
        self.environment = environment(sandbox)
        self.folder = folder

    async def start(self, *args: str) -> Piped:
        """A running process."""
        return await Piped.started(
            "musicapi_async.cli:main", *args, environment=self.environment, folder=self.folder
        )

    async def run(self, *args: str, given: bytes = b"") -> Ended:
        """Run to the end; standard output is no terminal, so it speaks JSON lines."""
        process = await self.start(*args)
        return await ended(process, given)

    async def interrupt_after(self, word: str, *args: str) -> Ended:
        """Press Ctrl-C once a line of the output holds `word`."""
        process = await self.start(*args)
        seen = b""
        while word.encode() not in seen:
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
            assert line, f"{word!r} never came"
            seen += line
        process.send_signal(signal.SIGINT)
        return await ended(process, b"", seen)


async def ended(process: Piped, given: bytes = b"", seen: bytes = b"") -> Ended:
    """Wait for the end of a process."""
    out, err = await asyncio.wait_for(process.communicate(given), PATIENCE)
    assert process.returncode is not None
    return Ended(process.returncode, (seen + out).decode(), err.decode())
