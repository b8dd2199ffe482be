"""The queue of rows that workers carry out: procrastinate, in the database of the job store.

A row of a batch is a job of procrastinate, from when it is queued until its files are there. It holds the row
and the folder, and no result: what was paid for is in the job store, what was made is in the folder. Tables
and functions of procrastinate are in the schema `musicapi`, beside those of the store, so that they are apart
from those of an application that has a queue of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Self, TypeVar

import msgspec
import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.types import JSONDict
from psycopg.conninfo import make_conninfo

from ..arguments import refused
from ..client import MusicAPI
from ..errors import JobStoreError
from ..jobs import JobStore, PostgresStore
from ..jobs.postgres_schema import SETTINGS, Connection, row
from .manifest import Song
from .queue_engine import DATABASE_PAUSE, Fetch, Manager, Requeued, make_tables

log: Final = logging.getLogger("musicapi_async")

TASK: Final = "musicapi.row"
ROWS_AT_ONCE: Final = 2000
"""Rows that a worker has under way: a row that waits for its song is a coroutine and a timer."""
SUBMITTING: Final = 4
"""Rows of a worker that wait for the rate at once: enough to use it, and others find rows, too."""
IDLE_PAUSE: Final = 2.0
"""Seconds between queries for a row while there is none, at most; less with a short lease."""
CHUNK: Final = 200
"""Rows that are queued in one transaction."""
TAKEN_OVER: Final = 1
"""The priority of a row whose worker died: it goes first, and its next worker knows."""
SEARCH_PATH: Final = ("search_path", "musicapi")

R = TypeVar("R")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a batch: its song, the folder, and the settings of the batch.

    `number` is that of the row in the manifest, from 1, and `count` how many it has. With `retry_failed` the
    jobs of `failed` are sent again, by their keys: those that had failed when the row was queued, and how
    often each was sent until then.
    """

    batch: str
    out: str
    song: Song
    number: int
    count: int
    retry_failed: bool = False
    failed: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    tags: bool | None = None
    waveforms: bool = True

    @property
    def lock(self) -> str:
        """The name under which one worker at a time has the row."""
        return f"{self.batch}/{self.song.stored_id}"


class TakenRow(msgspec.Struct, frozen=True):
    """A row that a worker has: how often it was tried before, and whether its last worker died."""

    row: Row
    attempts: int
    is_taken_over: bool
    submitted: Callable[[], None]
    """Called when the row no longer waits for the rate, so that another one is fetched."""


class WorkerSign(msgspec.Struct, frozen=True):
    """A worker: its number, the number of its rows, and the seconds since its last heartbeat."""

    number: int
    rows: int
    seconds: float


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of an account by where they are, and the workers of the database.

    `queued` rows can be taken now, `later` rows are tried again after a pause, `running` rows are with a
    worker, and `orphaned` rows are those of a dead worker, which another one takes over within seconds.
    """

    queued: int
    later: int
    running: int
    orphaned: int
    workers: list[WorkerSign]


Work = Callable[[TakenRow], Awaitable[None]]

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Row)


def shared_store(store: JobStore) -> PostgresStore:
    """Return the store if it is one that workers can share, or raise `RequestValidationError`."""
    if isinstance(store, PostgresStore):
        return store
    raise refused("store", "a PostgresStore, postgresql://..., for workers", type(store).__name__)


class Presence:
    """The time since which all workers could write heartbeats: the database was up, and its clock not set.

    Args:
        pause: seconds between two queries.
        now: when the process began to query, in seconds.
    """

    def __init__(self, pause: float, now: float) -> None:
        self._pause: Final = pause
        self._last = now
        self._ahead = math.nan
        self._since = -math.inf

    def answered(self, now: float, server: float) -> None:
        """Note that the database has answered: now, and with its own time, in seconds."""
        ahead = server - now
        if now - self._last > 1.5 * self._pause or abs(ahead - self._ahead) > self._pause:
            self._since = now
        self._last, self._ahead = now, ahead

    def was_away(self, now: float) -> None:
        """Note that the database did not answer."""
        self._since = now

    def seconds(self, now: float) -> float:
        """Return for how long it was there; at first, for ever."""
        return now - self._since


class RowQueue:
    """The rows of one account on one host; `of` makes it.

    Args:
        store: the job store, in whose database the queue is.
        account: the account that pays.
        base_url: the host that it pays at.
    """

    def __init__(self, store: PostgresStore, account: str, base_url: str) -> None:
        digest = hashlib.sha256(msgspec.json.encode([account, base_url])).hexdigest()
        self.name: Final = f"musicapi-{digest[:16]}"
        self._store: Final = store
        self._slots: Final = asyncio.Semaphore(SUBMITTING)
        self._is_stopping = False
        self._working: asyncio.Future[None] | None = None
        connector = procrastinate.PsycopgConnector(
            conninfo=make_conninfo(**store.parts),
            kwargs={"autocommit": True},
            configure=self._configure,
            min_size=1,
            max_size=4,
            timeout=10.0,
        )
        self._app: Final = procrastinate.App(connector=connector)
        self._app.job_manager = self._manager = Manager(connector, self._next_job)

    @classmethod
    async def of(cls, client: MusicAPI) -> Self:
        """Return the rows of a client's account; the tables are made if they are missing.

        Raises `RequestValidationError` for a store that workers cannot share, and `JobStoreError`.
        """
        store = shared_store(client.store)
        while await store.work(make_tables, lock="procrastinate"):
            pass
        return cls(store, client.account, client.base_url)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncGenerator[None]:
        """Connections of procrastinate within the block."""
        try:
            await self._app.open_async()
        except (ConnectorException, psycopg.Error) as error:
            raise JobStoreError(f"the job store {self._store.name} cannot be reached: {error}") from error
        try:
            yield
        finally:
            await self._app.close_async()

    async def _work(self, work: Callable[[Connection], R]) -> R:
        """Carry out `work` on the tables of procrastinate, in a transaction."""

        def among_tables(connection: Connection) -> R:
            connection.execute("SET LOCAL search_path TO musicapi")
            return work(connection)

        return await self._store.work(among_tables)

    async def _configure(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Prepare a connection of the pool; refuse it if another database is there now."""
        for name, value in (*SETTINGS.items(), SEARCH_PATH):
            await connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        found = await connection.execute("SELECT identity FROM musicapi.store")
        if await found.fetchone() != (self._store.identity,):
            raise psycopg.OperationalError("the database was replaced by another one")

    async def put(self, rows: Sequence[Row]) -> int:
        """Queue rows, but those that are queued or under way already; return how many were queued."""
        known: dict[str, Mapping[str, str]] = {}
        for batch in {one.batch for one in rows}:
            known[batch] = await self.places(batch)
        new = [one for one in rows if one.song.stored_id not in known[one.batch]]
        async with self._connected():
            for start in range(0, len(new), CHUNK):
                jobs = [self._job(one) for one in new[start : start + CHUNK]]
                try:
                    await self._manager.batch_defer_jobs_async(jobs)
                except ConnectorException as error:
                    raise JobStoreError(
                        f"the rows could not be queued in {self._store.name}: {error.__cause__ or error}",
                        hint="Nothing was sent. Queue the batch again: rows that are queued stay so.",
                    ) from error
        return len(new)

    def _job(self, one: Row) -> Job:
        arguments: JSONDict = {"row": _encoder.encode(one).decode(), "out": one.out}
        return Job(queue=self.name, lock=one.lock, queueing_lock=None, task_name=TASK, task_kwargs=arguments)

    async def places(self, batch: str) -> dict[str, str]:
        """Return where the rows of a batch are, 'todo' or 'doing', by the ids of their songs."""

        def work(connection: Connection) -> dict[str, str]:
            found = connection.execute(
                "SELECT lock, status::text FROM procrastinate_jobs WHERE queue_name = %s "
                "AND starts_with(lock, %s) AND status IN ('todo', 'doing') ORDER BY status = 'doing'",
                (self.name, f"{batch}/"),
            )
            return {lock.partition("/")[2]: status for lock, status in found.fetchall()}

        return await self._work(work)

    async def remove(self, out: str) -> int:
        """Remove the rows of a folder that no worker has; return how many."""

        def work(connection: Connection) -> int:
            removed = connection.execute(
                "DELETE FROM procrastinate_jobs WHERE queue_name = %s AND status = 'todo' "
                "AND args->>'out' = %s",
                (self.name, out),
            )
            return removed.rowcount

        return await self._work(work)

    async def state(self) -> QueueState:
        """Return how many rows are where, and which workers there are."""

        def work(connection: Connection) -> QueueState:
            counts = row(
                connection.execute(
                    "SELECT "
                    "count(*) FILTER (WHERE status = 'todo' AND coalesce(scheduled_at <= now(), true)), "
                    "count(*) FILTER (WHERE status = 'todo' AND scheduled_at > now()), "
                    "count(*) FILTER (WHERE status = 'doing' AND worker_id IS NOT NULL), "
                    "count(*) FILTER (WHERE status = 'doing' AND worker_id IS NULL) "
                    "FROM procrastinate_jobs WHERE queue_name = %s",
                    (self.name,),
                )
            )
            workers = connection.execute(
                "SELECT w.id, count(j.id), extract(epoch FROM now() - w.last_heartbeat)::float8 "
                "FROM procrastinate_workers w LEFT JOIN procrastinate_jobs j "
                "ON j.worker_id = w.id AND j.status = 'doing' GROUP BY w.id ORDER BY w.id"
            )
            queued, later, running, orphaned = counts
            return QueueState(
                queued=queued,
                later=later,
                running=running,
                orphaned=orphaned,
                workers=[WorkerSign(*found) for found in workers.fetchall()],
            )

        return await self._work(work)

    async def carry_out(self, work: Work) -> None:
        """Carry out rows until `stop`, and take over those of workers that are gone.

        Returns when all rows of this worker have ended. `work` gets each row, and raises `TryLater` to have
        it queued again.
        """

        async def carry_out(context: procrastinate.JobContext, row: str, out: str) -> None:
            is_submitted = False

            def submitted() -> None:
                nonlocal is_submitted
                if not is_submitted:
                    is_submitted = True
                    self._slots.release()

            job = context.job
            try:
                taken = TakenRow(_decoder.decode(row), job.attempts, job.priority == TAKEN_OVER, submitted)
                await work(taken)
            finally:
                submitted()

        self._app.task(name=TASK, pass_context=True, retry=Requeued())(carry_out)
        async with self._connected():
            if self._is_stopping:
                return
            lease = self._store.lease
            self._working = working = asyncio.ensure_future(
                self._app.run_worker_async(
                    queues=[self.name],
                    concurrency=ROWS_AT_ONCE,
                    fetch_job_polling_interval=min(IDLE_PAUSE, lease / 10),
                    abort_job_polling_interval=3600.0,
                    listen_notify=False,  # a lost connection would end the worker
                    delete_jobs="always",  # with an unexpected error: it is logged, and the row is reported
                    install_signal_handlers=False,
                    update_heartbeat_interval=3600.0,
                )
            )
            living = asyncio.ensure_future(self._stay_alive())
            try:
                await asyncio.wait({working})
                if not working.cancelled():
                    working.result()
            finally:
                living.cancel()
                self.stop()
                if working.done():
                    await self._unregister()

    def stop(self) -> None:
        """Take no more rows; `carry_out` then ends with the rows that are under way."""
        if not self._is_stopping:
            self._is_stopping = self._manager.is_stopping = True
            self._slots.release()
            if self._working is not None:
                self._working.cancel()  # which it takes as a request to stop, and waits for its rows

    async def _next_job(self, fetch: Fetch) -> Job | None:
        """Fetch a row once few rows of this worker wait for the rate."""
        await self._slots.acquire()
        job = None
        try:
            job = None if self._is_stopping else await fetch()
        finally:
            if job is None:
                self._slots.release()
        return job

    async def _stay_alive(self) -> None:
        """Write the heartbeats of this worker, and queue the rows again of workers that have written none.

        After the database or its tables were away, its clock was set, or this process has slept, all workers
        have the time of a lease to write one; otherwise all their rows would be taken at once. The
        transaction that takes rows over decides this, as it may have waited for the database.
        """
        lease = self._store.lease
        pause = lease / 3
        presence = Presence(pause, time.monotonic())

        def heartbeat(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO procrastinate_workers (id, last_heartbeat) OVERRIDING SYSTEM VALUE "
                "VALUES (%s, now()) ON CONFLICT (id) DO UPDATE SET last_heartbeat = now()",
                (self._manager.worker,),
            )

        def take_over(connection: Connection) -> int:
            connection.execute("SELECT FROM procrastinate_workers, procrastinate_jobs LIMIT 0")
            (seconds,) = row(connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8"))
            presence.answered(time.monotonic(), float(seconds))
            if presence.seconds(time.monotonic()) < lease:
                return 0
            connection.execute(
                "DELETE FROM procrastinate_workers WHERE last_heartbeat < now() - make_interval(secs => %s)",
                (lease,),
            )  # which makes its rows those of none
            return connection.execute(
                "UPDATE procrastinate_jobs SET status = 'todo', attempts = attempts + 1, "
                "priority = %s, scheduled_at = NULL, abort_requested = false "
                "WHERE status = 'doing' AND worker_id IS NULL AND queue_name = %s",
                (TAKEN_OVER, self.name),
            ).rowcount

        while True:
            await asyncio.sleep(pause)
            if self._manager.worker is None:
                continue
            try:
                await self._work(heartbeat)  # by itself: two workers that remove each other must not lock
                count = await self._work(take_over)
            except JobStoreError as error:
                log.debug("a worker could not write its heartbeat, or take rows over: %s", error)
                presence.was_away(time.monotonic())
                pause = min(DATABASE_PAUSE, lease / 3)
                continue
            pause = lease / 3
            if count:
                log.warning("%d rows of workers that are gone were queued again", count)

    async def _unregister(self) -> None:
        """Remove this worker; one that cannot be removed counts as gone after a lease."""

        def work(connection: Connection) -> None:
            connection.execute("DELETE FROM procrastinate_workers WHERE id = %s", (self._manager.worker,))

        with contextlib.suppress(JobStoreError):
            await self._work(work)
