"""A sandbox in a process of its own, so that restarting the example service does not restart it as well.

The file that it writes names it to the next process, and it ends by itself some time after the last request.
`python -m musicapi_async.examples.own_sandbox <folder> <speed>` runs it; `find_or_start` does so.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import anyio
import msgspec

from ..client import MusicAPI
from ..clock import Clock
from ..errors import MusicAPIError
from ..files import write_whole
from ..sandbox import Sandbox

IDLE: Final = 600.0
"""Real seconds without a request after which it ends."""
START: Final = 20.0
"""Real seconds that it may take to start."""
START_CHECK: Final = 0.1
"""Real seconds between checks that it has started."""
LONGEST_EXAMPLE: Final = 75.0
"""Seconds of the longest song: long enough to listen to, quick to make."""


class Address(msgspec.Struct, frozen=True):
    """Address of a service: its URL and key, how much faster than real time it runs, and its process id."""

    base_url: str
    api_key: str
    speed: float
    pid: int = 0


async def find_or_start(folder: Path, speed: float) -> Address:
    """Return the sandbox of this folder: the one that runs, else a new one."""
    path = folder / "sandbox.json"
    found = await _running(path)
    if found is not None:
        return found
    path.unlink(missing_ok=True)
    _start(folder, speed)
    for _ in range(round(START / START_CHECK)):
        await asyncio.sleep(START_CHECK)
        if (found := await _running(path)) is not None:
            return found
    raise RuntimeError(f"the sandbox did not start within {START:g} s: see {folder / 'sandbox.log'}")


def _start(folder: Path, speed: float) -> None:
    with open(folder / "sandbox.log", "ab") as log:
        subprocess.Popen(  # noqa: S603 - it outlives this process
            [sys.executable, "-m", "musicapi_async.examples.own_sandbox", str(folder), str(speed)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def _running(path: Path) -> Address | None:
    try:
        address = msgspec.json.decode(await anyio.Path(path).read_bytes(), type=Address)
    except (OSError, msgspec.MsgspecError):
        return None
    return address if await is_running(address) else None


async def is_running(address: Address) -> bool:
    """Return True if the sandbox gives its balance; the request also prevents it from ending."""
    async with MusicAPI(
        address.api_key, base_url=address.base_url, max_retries=0, attempt_timeout=2.0
    ) as client:
        try:
            await client.credits()
        except MusicAPIError:
            return False
    return True


async def run(folder: Path, speed: float, *, idle: float = IDLE, longest: float = LONGEST_EXAMPLE) -> None:
    """Serve until no request has come for `idle` seconds."""
    async with Sandbox(speed=speed, credits=10_000, longest=longest, seed=os.getpid()) as sandbox:
        address = Address(sandbox.base_url, sandbox.api_key, speed, os.getpid())
        write_whole(folder / "sandbox.json", msgspec.json.encode(address))
        clock = Clock()
        journal = sandbox.journal
        served, since = 0, clock.now()
        while clock.now() - since < idle:
            await clock.sleep(min(idle, 5.0))
            total = len(journal) + journal.dropped
            if total != served:
                served, since = total, clock.now()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), float(sys.argv[2])))
