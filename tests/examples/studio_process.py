"""The example service in a process of its own, and its sandbox in another."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from forked import Forked
from patience import PATIENCE

from musicapi_async.examples import own_sandbox

SHORT = 4.0
"""Seconds of the longest song where it does not matter: making one takes a hundredth of its length."""


class StudioProcess:
    """Starts, kills and stops `musicapi_async.examples.service`."""

    def __init__(self, folder: Path, speed: float = 12.0, **environment: str) -> None:
        self.folder = folder
        self.speed = speed
        self.environment = environment
        self.port = 0
        self.process: Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start_sandbox(self, longest: float = SHORT) -> None:
        """Start the sandbox that the service would start itself, for shorter songs."""
        Forked("studio_process:sandbox", str(self.folder), str(self.speed), str(longest))
        end = time.monotonic() + PATIENCE
        while not (self.folder / "sandbox.json").exists():
            assert time.monotonic() < end, "the sandbox did not start"
            time.sleep(0.01)

    def start(self) -> None:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("MUSICAPI_")}
        told, to_tell = os.pipe()
        self.process = Forked(
            "musicapi_async.examples.service:main",
            *("--port", str(self.port), "--folder", str(self.folder), "--speed", str(self.speed)),
            environment={**plain, **self.environment},
            streams=(0, to_tell, 2),
        )
        os.close(to_tell)
        with open(told) as out:
            line = out.readline()
        assert line.startswith("Song studio: http://127.0.0.1:"), line
        self.port = int(line.rpartition(":")[2])

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(how)
        return process.wait()

    def end_sandbox(self) -> None:
        """End the sandbox that outlives the service."""
        path = self.folder / "sandbox.json"
        if path.exists():
            told: dict[str, Any] = msgspec.json.decode(path.read_bytes())
            os.kill(told["pid"], signal.SIGTERM)


def sandbox() -> None:
    """The sandbox as a program."""
    folder, speed, longest = sys.argv[1:]
    asyncio.run(own_sandbox.run(Path(folder), float(speed), longest=float(longest)))
