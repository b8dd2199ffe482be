"""The example service in a process of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
from forked import Forked


class StudioProcess:
    """Starts, kills and stops `python -m musicapi_async.examples.service`."""

    def __init__(self, folder: Path, speed: float = 12.0, **environment: str) -> None:
        self.folder = folder
        self.speed = speed
        self.environment = environment
        self.port = 0
        self.process: Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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
