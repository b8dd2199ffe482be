"""Runs of a batch as processes of their own, forked from one that has imported the package already.

Run as a program this file is the fork server: it imports, starts no thread and no loop, and for each line on
standard input forks a child that runs a batch. A child is a real process: what kills it kills it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn


@dataclass(frozen=True)
class BatchRun:
    """What one run is told. No file of it may become longer than `limit` bytes (0: any length)."""

    base_url: str
    key: str
    speed: float
    manifest: str
    out: str
    limit: int = 0
    max_in_flight: int = 64

    @property
    def told(self) -> Path:
        """Where the run writes how it ended."""
        return Path(f"{self.out}.result.json")

    @property
    def log(self) -> Path:
        """Its standard error."""
        return Path(f"{self.out}.log")


class Running:
    """A run under way."""

    def __init__(self, pid: int, run: BatchRun, code: asyncio.Future[int]) -> None:
        self._pid = pid
        self._run = run
        self._code = code

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended."""
        return self._code.done()

    async def ended(self) -> int:
        """Wait for its end: its exit code, or less than 0 for the signal that ended it."""
        return await asyncio.shield(self._code)

    async def kill(self) -> bool:
        """SIGKILL; whether that is what ended it."""
        os.kill(self._pid, signal.SIGKILL)  # until the next fork it is a zombie, so nobody else has its id
        return await self.ended() == -signal.SIGKILL

    async def result(self) -> dict[str, Any]:
        """How it ended, once it has: a `BatchResult`, or the name and the text of an error."""
        code = await self.ended()
        assert code == 0, f"exit code {code}: {self._run.log.read_text()[-4000:]}"
        found: dict[str, Any] = json.loads(self._run.told.read_text())
        return found


class ForkServer:
    """The other end of the pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def start(self, run: BatchRun) -> Running:
        """A run in a process of its own; one at a time."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(run)).encode() + b"\n")
        return Running(await self._number(), run, asyncio.ensure_future(self._number()))

    async def _number(self) -> int:
        assert self._process.stdout is not None
        return int(await self._process.stdout.readline())


@asynccontextmanager
async def fork_server() -> AsyncGenerator[ForkServer]:
    """A process that has imported what a batch needs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    try:
        yield ForkServer(process)
    finally:
        process.stdin.close()
        await process.wait()


# --- the program --------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a child for each line; tell its process id, and then how it ended."""
    import anyio._backends._asyncio  # noqa: F401  # pyright: ignore - loaded by name in the first run

    import musicapi_async.batch
    import musicapi_async.runtime  # noqa: F401

    last = 0
    for line in sys.stdin.buffer:
        if last:
            os.waitpid(last, 0)
        last = os.fork()
        if last == 0:
            child(BatchRun(**json.loads(line)))
        print(last, flush=True)
        end = os.waitid(os.P_PID, last, os.WEXITED | os.WNOWAIT)  # its id is not free yet
        assert end is not None
        print(end.si_status if end.si_code == os.CLD_EXITED else -end.si_status, flush=True)


def child(run: BatchRun) -> NoReturn:
    """One run, in the forked process."""
    code = 1
    try:
        os.dup2(os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
        os.dup2(2, 1)
        asyncio.run(carry_out(run))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


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
    import msgspec

    from musicapi_async import Clock, MusicAPI, MusicAPIError
    from musicapi_async.batch import run_batch

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
    run.told.write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    serve()
