"""A worker as a process of its own, on a machine of its own as far as anyone can see."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any

import anyio
import msgspec
from forked import Forked

from musicapi_async import Clock, MusicAPI, PostgresStore
from musicapi_async.workflows import workers

ACCOUNT = "studio"


class Hasty(PostgresStore):
    """A store whose lease is short, so that the rows of a killed worker are soon taken over."""

    lease = 1.5


@dataclass(frozen=True)
class WorkerSettings:
    """What one worker is given."""

    base_url: str
    key: str
    speed: float
    address: str
    machine: str
    log: str


class RunningWorker(Forked):
    """A worker under way; SIGTERM ends it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        with open(settings.log, "wb") as log:
            streams = (0, log.fileno(), log.fileno())
            super().__init__("worker_process:main", json.dumps(asdict(settings)), streams=streams)

    async def stopped(self) -> dict[str, Any]:
        """SIGTERM; its `WorkerResult`."""
        self.send_signal(signal.SIGTERM)
        code = await self.ended()
        text = await anyio.Path(self.settings.log).read_text()
        assert code == 0, f"exit code {code}: {text[-4000:]}"
        result: dict[str, Any] = json.loads(text.splitlines()[-1])
        return result


# --- the program --------------------------------------------------------------------------------------------


def main() -> None:
    """One worker, as its argument says."""
    settings = WorkerSettings(**json.loads(sys.argv[1]))
    socket.gethostname = lambda: settings.machine  # no one knows if processes of other machines live
    print(msgspec.json.encode(asyncio.run(work(settings))).decode(), flush=True)


async def work(settings: WorkerSettings) -> workers.WorkerResult:
    """Carry out rows until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with MusicAPI(
        settings.key,
        base_url=settings.base_url,
        clock=Clock(settings.speed),
        store=Hasty(settings.address),
        account=ACCOUNT,
    ) as client:
        return await workers.run_worker(client, stop=stop)
