"""Runs of a batch as processes of their own."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from forked import Forked

from musicapi_async import Clock, MusicAPI, MusicAPIError
from musicapi_async.workflows import run_batch


@dataclass(frozen=True)
class BatchRun:
    """The settings of one run. No file of it may become longer than `limit` bytes (0: any length)."""

    base_url: str
    key: str
    speed: float
    manifest: str
    out: str
    limit: int = 0
    max_in_flight: int = 64
    name: str = ""
    """Tells runs on one folder apart."""

    @property
    def result_file(self) -> Path:
        """Where the run writes how it ended."""
        return Path(f"{self.out}{self.name}.result.json")

    @property
    def log(self) -> Path:
        """Its standard output and error."""
        return Path(f"{self.out}{self.name}.log")


class Running(Forked):
    """A run under way."""

    def __init__(self, run: BatchRun) -> None:
        self.run = run
        with open(run.log, "wb") as log:
            streams = (0, log.fileno(), log.fileno())
            super().__init__("batch_processes:main", json.dumps(asdict(run)), streams=streams)

    @property
    def has_ended(self) -> bool:
        """True once its process has ended."""
        return self.returncode is not None

    async def killed(self) -> bool:
        """SIGKILL; whether that is what ended it."""
        self.kill()
        return await self.ended() == -signal.SIGKILL

    async def result(self) -> dict[str, Any]:
        """How it ended, once it has: a `BatchResult`, or the name and the text of an error."""
        code = await self.ended()
        assert code == 0, f"exit code {code}: {self.run.log.read_text()[-4000:]}"
        found: dict[str, Any] = json.loads(self.run.result_file.read_text())
        return found


# --- the program --------------------------------------------------------------------------------------------


def main() -> None:
    """One run, as its argument says."""
    asyncio.run(carry_out(BatchRun(**json.loads(sys.argv[1]))))


def obey_permissions() -> None:
    """Give up root's right to pass over permissions (capabilities(7)); others have none."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the lower bits, then the higher
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


async def carry_out(run: BatchRun) -> None:
    """The batch, and a word on how it ended. Like everybody else, root must not write where none may."""
    obey_permissions()
    if run.limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (run.limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    async with MusicAPI(run.key, base_url=run.base_url, clock=Clock(run.speed)) as client:
        try:
            found = msgspec.to_builtins(
                await run_batch(
                    client, run.manifest, out=run.out, waveforms=False, max_in_flight=run.max_in_flight
                ),
                enc_hook=str,
            )
        except MusicAPIError as error:
            found = {"error": type(error).__name__, "text": str(error)}
    run.result_file.write_bytes(msgspec.json.encode(found))
