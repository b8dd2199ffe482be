"""The engine of the queue of rows: procrastinate, so that it outlives what a database does in its life.

Traps of procrastinate 3.10, each read in its source, and what is done about them:

- A lost connection ends its worker: an error while it fetches a job or writes its heartbeat stops it. Here a
  fetch that fails finds nothing, and the end of a row is written when the database is back.
- Its pool of connections waits longer after each try to connect, and hands out the lost ones first. So
  heartbeats do not use it, but one of the job store, which is back as soon as the database is.
- A worker whose heartbeat was late is removed by the next one that starts, and can then fetch nothing any
  more (its id is a foreign key). Here a heartbeat registers it again.
- Each worker that starts removes the workers without a heartbeat, also if the database was away for all of
  them. Here no worker is removed before all had the time to write one.
- The end of a job is written without a check of its worker: a worker that was considered dead would end, or
  requeue, the row of another one. Here only the worker that has the row may do that.
- The names of its channels are cut at 63 bytes, and NOTIFY refuses longer ones: names of queues are short.
- `jsonb` refuses texts with a null character: a row is JSON within a text.
- It does not know which version of its schema a database has: the last migration is noted on its table.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any, Final

import procrastinate
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from procrastinate.schema import SchemaManager

from ..errors import JobStoreError
from ..jobs.postgres_schema import Connection, row

log: Final = logging.getLogger("musicapi_async")
for _noisy in ("procrastinate", "psycopg.pool"):  # what they report is logged here, or is of no consequence
    logging.getLogger(_noisy).addHandler(logging.NullHandler())

DATABASE_PAUSE: Final = 1.0
"""Seconds between tries while the database does not answer."""
PAUSES: Final = (5.0, 15.0, 45.0, 135.0, 405.0)
"""Seconds until a row that could not be settled is tried again, after each try: ten minutes in all."""

Fetch = Callable[[], Awaitable[Job | None]]


class TryLater(Exception):
    """A row goes back into the queue. At once, if `is_given_back`; else after a pause."""

    def __init__(self, *, is_given_back: bool) -> None:
        super().__init__()
        self.is_given_back: Final = is_given_back


class Requeued(BaseRetryStrategy):
    """Rows are never retried, but those that ask for it: the job keys make that free."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Return when a row is tried again, and with the priority of any other; None for never."""
        if not isinstance(exception, TryLater):
            return None
        if exception.is_given_back:
            return RetryDecision(priority=0)
        pause = PAUSES[min(job.attempts, len(PAUSES) - 1)]
        return RetryDecision(retry_in={"seconds": int(pause)}, priority=0)


class Manager(JobManager):
    """The writes of a worker into the queue, which wait while the database is away.

    Args:
        connector: the connections.
        next_job: decides when a row is fetched.
    """

    def __init__(
        self,
        connector: procrastinate.PsycopgConnector,
        next_job: Callable[[Fetch], Awaitable[Job | None]],
    ) -> None:
        super().__init__(connector)
        self.is_stopping = False
        self.worker: int | None = None
        """The number of the worker, once it has started."""
        self._next_job: Final = next_job
        self._is_lost = False

    async def fetch_job(self, queues: Any, worker_id: int) -> Job | None:
        """Return a row for the worker, or None; also while the database does not answer."""

        async def fetch() -> Job | None:
            with self._patient():
                return await super(Manager, self).fetch_job(queues, worker_id)
            return None

        return await self._next_job(fetch)

    async def register_worker(self) -> int:
        """Register the worker that starts; return its number."""
        self.worker = await super().register_worker()
        return self.worker

    async def update_heartbeat(self, worker_id: int) -> None:
        """Write nothing: `RowQueue` does, with a connection that comes back at once."""

    async def prune_stalled_workers(self, seconds_since_heartbeat: float) -> list[int]:
        """Remove no worker: `RowQueue` does, and knows when none of them could write a heartbeat."""
        return []

    async def unregister_worker(self, worker_id: int) -> None:
        """Write nothing: `RowQueue` does, after the last heartbeat."""

    async def finish_job(self, job: Job, status: Any, delete_job: bool) -> None:
        """Note that a row has ended."""
        await self._at_last(job, lambda: super(Manager, self).finish_job(job, status, delete_job))

    async def retry_job(self, job: Job, *args: Any, **options: Any) -> None:
        """Queue a row again."""
        await self._at_last(job, lambda: super(Manager, self).retry_job(job, *args, **options))

    async def _at_last(self, job: Job, write: Callable[[], Awaitable[None]]) -> None:
        """Write the end of a row, as soon as the database answers, if this worker still has it."""
        while True:
            with self._patient():
                found = await self.connector.execute_query_all_async(
                    "SELECT id FROM procrastinate_jobs "
                    "WHERE id = %(id)s AND status = 'doing' AND worker_id = %(worker)s",
                    id=job.id,
                    worker=job.worker_id,
                )
                if found:
                    await write()
                return
            if self.is_stopping:
                log.warning("row %s could not be given back; another worker takes it over", job.lock)
                return
            await asyncio.sleep(DATABASE_PAUSE)

    @contextlib.contextmanager
    def _patient(self) -> Generator[None]:
        """Log an error of the database once, until it answers again, and continue after the block."""
        try:
            yield
        except ConnectorException as error:
            if not self._is_lost:
                log.warning("the queue of rows does not answer: %s", error.__cause__ or error)
            self._is_lost = True
        else:
            self._is_lost = False


def make_tables(connection: Connection) -> bool:
    """Make the tables of procrastinate, or apply one migration; return True if there may be more to do.

    One in a transaction: a word that is added to a type can be used in the next one only. Raises
    `JobStoreError` for tables of a newer version.
    """
    folder = Path(SchemaManager.get_migrations_path())
    migrations = {path.name: path for path in folder.glob("*.sql")}  # names sort by age
    newest = max(migrations)
    connection.execute("SET LOCAL search_path TO musicapi")
    (there,) = row(connection.execute("SELECT to_regclass('musicapi.procrastinate_jobs') IS NOT NULL"))
    if there:
        (made,) = row(
            connection.execute("SELECT obj_description('procrastinate_jobs'::regclass, 'pg_class')")
        )
        if made == newest:
            return False
        if made is None or made > newest:
            raise JobStoreError(
                f"the queue of rows was made by procrastinate with the migration {made}, and this one has "
                f"{newest}",
                hint="Let all workers run one version of procrastinate: upgrade the older ones.",
            )
        name = min(name for name in migrations if name > made)
        text = migrations[name].read_text(encoding="utf-8")
    else:
        name, text = newest, str(SchemaManager.get_schema())
    connection.execute(text.encode())
    connection.execute(f"COMMENT ON TABLE procrastinate_jobs IS '{name}'".encode())
    return True
