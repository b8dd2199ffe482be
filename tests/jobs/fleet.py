"""Workers of one account in processes of their own, which share a PostgreSQL store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from forked import Forked
from patience import until
from postgres_server import PostgresServer

from musicapi_async import Clock, MusicAPI, OutcomeUnknownError
from musicapi_async.jobs import Job, PostgresStore
from musicapi_async.sandbox import Sandbox

ACCOUNT: Final = "studio"
PERIOD: Final = 3.0
"""Seconds of the documented rate: one create in each."""
LEASE: Final = 1.5
"""Real seconds after which the permits of a killed worker are free; it is 15 where no test waits for it."""


@dataclass(frozen=True)
class Work:
    """What one worker does: a song for each name, under the name as its job key; without an address in memory."""

    base_url: str
    key: str
    address: str
    speed: float
    names: tuple[str, ...]
    max_in_flight: int | None = None
    waits: bool = False
    """True to wait for the songs as well."""


class Hasty(PostgresStore):
    """A store whose lease is short."""

    lease = LEASE


def main() -> None:
    """The program of a worker."""
    asyncio.run(carry_out(Work(**json.loads(sys.argv[1]))))


async def carry_out(work: Work) -> None:
    """Make the songs, all at once; a name whose outcome is unknown is passed over."""
    async with MusicAPI(
        work.key,
        base_url=work.base_url,
        clock=Clock(work.speed),
        store=Hasty(work.address) if work.address else None,
        account=ACCOUNT,
        max_in_flight=work.max_in_flight,
    ) as client:

        async def make(name: str) -> None:
            view = client.with_options(job_key=name)
            try:
                task = await view.sonic.create_music(
                    mv="sonic-v6", gpt_description_prompt="calm rain", title=name
                )
            except OutcomeUnknownError:
                return
            if work.waits:
                await task.wait()

        await asyncio.gather(*map(make, work.names))


def named(body: bytes) -> str:
    """The name of the song that a request is for."""
    fields: dict[str, str] = json.loads(body)
    return fields["title"]


@dataclass
class Outcome:
    """What the sandbox and the store say in the end."""

    times: list[float] = field(default_factory=list[float])
    """When the creates arrived, in seconds of the sandbox."""
    refused: int = 0
    """Creates that came too soon for the limit of the sandbox."""
    charged: Counter[str] = field(default_factory=Counter[str])
    tasks: dict[str, str] = field(default_factory=dict[str, str])
    jobs: list[Job] = field(default_factory=list[Job])
    permits: int = 0
    tickets: int = 0

    @property
    def ambiguous(self) -> list[str]:
        """The names of unknown outcome."""
        return [job.key for job in self.jobs if job.state == "ambiguous"]

    @property
    def gaps(self) -> list[float]:
        """The times between two creates, the shortest first."""
        return sorted(later - one for one, later in zip(self.times, self.times[1:], strict=False))

    @property
    def used(self) -> float:
        """The share of the allowed rate that was used, from the first create to the last."""
        return (len(self.times) - 1) * PERIOD / (self.times[-1] - self.times[0])


def arrived(sandbox: Sandbox) -> Outcome:
    """What the sandbox says."""
    found = Outcome()
    for entry in sandbox.journal.creates:
        if entry.raw:  # else a kill cut it off before its body had arrived
            name = named(entry.raw)
            found.times.append(entry.at)
            found.refused += entry.status == 429
            found.charged[name] += entry.charge > 0
            found.tasks[name] = entry.task_id
    return found


class Fleet:
    """Workers that share an account, and what becomes of them.

    Args:
        sandbox: the service.
        server: where their store is.
        address: its address.
        folder: where the workers write what they have to say.
        workers: how many.
        songs: how many they make together.
        options: of `Work`.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        server: PostgresServer,
        address: str,
        folder: Path,
        *,
        workers: int,
        songs: int,
        **options: Any,
    ) -> None:
        self.sandbox = sandbox
        self.server = server
        self.address = address
        self.folder = folder
        self.names = tuple(f"song-{number}" for number in range(songs))
        self.killed: list[set[str]] = []
        """The names that were sent and not answered at each kill, of the worker that was killed."""
        self._works = [
            Work(
                sandbox.base_url,
                sandbox.api_key,
                address,
                sandbox.clock.speed,
                self.names[number::workers],
                **options,
            )
            for number in range(workers)
        ]
        self._running: list[Forked | None] = [None] * workers

    def start(self) -> None:
        """Start all workers."""
        for number in range(len(self._works)):
            self._start(number)

    def _start(self, number: int) -> None:
        with (self.folder / f"worker-{number}.log").open("ab") as log:
            self._running[number] = Forked(
                "fleet:main",
                json.dumps(asdict(self._works[number])),
                streams=(0, log.fileno(), log.fileno()),
            )

    async def end(self) -> Outcome:
        """Wait until all workers have done their work; return what there is then.

        Fails if nothing reaches the sandbox for `PATIENCE` real seconds.
        """
        for number, worker in enumerate(self._running):
            assert worker is not None
            while worker.returncode is None:
                seen = len(self.sandbox.journal)
                with contextlib.suppress(TimeoutError):
                    await worker.ended()
                assert len(self.sandbox.journal) > seen or worker.returncode is not None, (
                    "they do not continue"
                )
            code = await worker.ended()
            assert code == 0, (self.folder / f"worker-{number}.log").read_text(encoding="utf-8")[-4000:]
        return await self.outcome()

    async def kill(self, number: int) -> None:
        """SIGKILL for a worker, and start it again."""
        worker = self._running[number]
        assert worker is not None
        worker.kill()
        assert await worker.ended() == -signal.SIGKILL, "it had ended before"
        sent = self.server.execute("SELECT key FROM musicapi.jobs WHERE state = 'sent'")
        self.killed.append({key for (key,) in sent} & set(self._works[number].names))
        self._start(number)

    async def kill_and_restart(self, kills: int, seed: int) -> None:
        """Kill workers one after the other, at instants that are spread over all songs: when a random number of
        creates more has arrived and a random moment has gone by, in turn a random worker and the one whose create
        was the last to arrive."""
        draw = Random(seed)
        slot = PERIOD / self.sandbox.clock.speed
        journal = self.sandbox.journal
        marks = sorted(draw.uniform(1, 0.8 * len(self.names)) for _ in range(kills))
        for kill, mark in enumerate(marks):
            await until(lambda: len(journal.creates) >= mark)  # noqa: B023
            await asyncio.sleep(draw.uniform(0, slot / (1 + kill % 2)))
            busy = [
                number for number, worker in enumerate(self._running) if worker and worker.returncode is None
            ]
            if kill % 2 and journal.creates[-1].raw:
                sender = self.names.index(named(journal.creates[-1].raw)) % len(self._works)
                busy = [sender] if sender in busy else busy
            await self.kill(draw.choice(busy))

    async def outcome(self) -> Outcome:
        """What the sandbox and the store say now."""
        found = arrived(self.sandbox)
        store = PostgresStore(self.address)
        async with self.sandbox.client(store=store, account=ACCOUNT) as client:
            found.jobs = await client.jobs()  # settles those of processes that are dead
        found.permits = self._count("permits")
        found.tickets = self._count("queue")
        return found

    def _count(self, table: str) -> int:
        return self.server.execute(f"SELECT count(*) FROM musicapi.{table}")[0][0]

    def check(self, found: Outcome) -> None:
        """Nothing came too soon, was paid twice or is lost; nothing is unknown without a kill; all is given back."""
        assert found.refused == 0, "above the rate"
        assert max(found.charged.values()) == 1, "a job was charged twice"
        assert self.sandbox.journal.charged_twice() == []
        jobs = {job.key: job for job in found.jobs}
        assert set(jobs) == set(self.names)
        unknown = set(found.ambiguous)
        assert unknown <= set[str]().union(*self.killed), "unknown, and no kill can be the reason"
        for name, job in jobs.items():
            if name not in unknown:
                assert job.state in ("accepted", "finished")
                assert found.charged[name] == 1
                assert job.task_id == found.tasks[name]
        assert (found.permits, found.tickets) == (0, 0)
