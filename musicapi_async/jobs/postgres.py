"""Jobs in a PostgreSQL database, for any number of processes on any number of machines.

How nothing is lost
-------------------
One transaction for each change, under a lock of its job key, so that two workers never decide on the same old
row. A change that is `durable` is on the server's disk before it returns (`synchronous_commit`): the one
before a request leaves, and the one that stores a task id. All others may be lost only if the server's
machine fails within the same second, and then the call is refused, or its outcome is listed as unknown.

A process uses three connections, each with a thread of its own: one for jobs, in the order of the calls; one
for the rate; and one that listens for what other workers have received. A connection that is lost is opened
again by itself, and the work done once more for `patience` seconds; then it is a `JobStoreError`.

A process remembers which database it has used, by an id inside. If it is replaced by another one, such as an
empty one after a failed restore, it refuses, because every job key would be paid for again. A new process
cannot know: it takes the database that is there.
"""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Final, LiteralString, TypeVar

import msgspec
from msgspec import UnsetType

from .._transport.rate_limiter import DEFAULT_LANES
from .job import Job, JobState
from .reservation import apply, choose
from .store import SETTLED, Knows, Merge, Notice, Subscriber, Transition, damaged_job

try:
    import psycopg
except ImportError as missing:
    from ..extras import missing_extra

    raise missing_extra("PostgresStore", "postgres", "psycopg") from missing
from .postgres_connection import Database, Worker
from .postgres_notices import LONGEST_ID, WEBHOOK_MEMORY, NoticeReader, Subscribers, forget, notify
from .postgres_queue import rate_of, read_rate, write_rate
from .postgres_rate import PostgresLimiter
from .postgres_schema import SILENCE, Connection, display, parsed, row

if TYPE_CHECKING:
    from .._transport.rate_limiter import RateLimiter
    from .._transport.rate_window import Rate
    from ..clock import Clock

R = TypeVar("R")

PATIENCE: Final = 10.0
"""Seconds from a call to its error while the server does not answer; a restart takes about two."""

LEASE: Final = 15.0
"""Seconds after which a process without a sign of life is taken for dead."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Job)


class PostgresStore:
    """A `JobStore` in a PostgreSQL database (15 or later), which many machines may share; extra `[postgres]`.

    ```python
    async with MusicAPI(store=PostgresStore("postgresql://music@db.example/music")) as client: ...
    ```

    The clients that share it keep one rate limit together, and a webhook that any of them receives ends waits
    in all of them. Its tables are in the schema `musicapi`, made when it is first used. Opened on first use;
    `aclose` (or the client that it is given to) closes it, and later use opens it again.

    Args:
        address: where the database is, as libpq has it: 'postgresql://user@host:5432/database'. Give the
            password by the variable PGPASSWORD or the file of PGPASSFILE; it is never displayed. The
            connection must be direct, or through a pooler in session mode.

    Raises:
        RequestValidationError: it is no address.
    """

    patience: ClassVar[float] = PATIENCE
    """Seconds from a call to its error while the server does not answer; a subclass may have less."""
    silence: ClassVar[float] = SILENCE
    """Seconds without an answer after which a connection is lost; a subclass may have less."""
    lease: float = LEASE
    """Seconds after which the permits of a process that was killed are free; a subclass may have less."""

    def __init__(self, address: str) -> None:
        parts = parsed(address)
        self.name: Final = display(parts)
        """The address for texts, without a password."""
        self._database: Final = Database(parts, self.name, self.silence)
        self._lock: Final = threading.Lock()
        self._workers: Final[dict[str, Worker]] = {}
        self._notices: NoticeReader | None = None
        self._subscribers: Final[Subscribers] = {}
        self._process = os.getpid()
        self.owner: str = uuid.uuid4().hex
        """The id of this process among those that share the database."""

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        """Apply `transition` to the row of a job in one transaction; see `JobStore.change`."""

        def work(connection: Connection) -> Job | None:
            with self._database.transaction(connection, lock=_number(key), durable=durable):
                rows = _select(connection, "WHERE key = %s", (key,))
                before, after = apply(rows, key, transition, account)
                if after is not before:
                    _write(connection, before, after)
            return after

        return await self._run(work)

    async def get(self, key: str, *, account: str = "") -> Job | None:
        """Return the job with this key. Raises `JobStoreError` if its row is damaged."""
        return choose(await self._find("WHERE key = %s", (key,)), account)

    async def find(self, family: str, task_id: str) -> list[Job]:
        """Return the jobs that made this task, oldest first."""
        where = "JOIN musicapi.tasks USING (key, account) WHERE tasks.task_id = %s AND tasks.family = %s"
        return await self._find(where, (task_id, family))

    async def jobs(self, *states: JobState) -> list[Job]:
        """Return the jobs in these states (none given: all), oldest first."""
        return await self._find("WHERE state = ANY(%s)" if states else "", (list(states),) if states else ())

    async def _find(self, where: LiteralString, values: Sequence[object]) -> list[Job]:
        def work(connection: Connection) -> list[Job]:
            with self._database.transaction(connection):
                return _select(connection, where, values)

        return await self._run(work)

    async def purge(self, before: float) -> int:
        """Remove the finished and failed jobs that were last changed before a Unix time; return how many."""

        def work(connection: Connection) -> int:
            with self._database.transaction(connection, durable=True):
                removed = connection.execute(
                    "WITH removed AS (DELETE FROM musicapi.jobs WHERE state = ANY(%s) AND updated_at < %s "
                    "RETURNING key, account), forgotten AS (DELETE FROM musicapi.tasks USING removed "
                    "WHERE (tasks.key, tasks.account) = (removed.key, removed.account)) "
                    "SELECT count(*) FROM removed",
                    (list(SETTLED), before),
                )
                return int(row(removed)[0])

        return await self._run(work)

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim marks for a time, all or none; return False if one of them is claimed already."""
        wanted = sorted(set(marks))  # in one order, so that two claims never wait for each other

        def work(connection: Connection) -> bool:
            with self._database.transaction(connection):
                connection.execute("DELETE FROM musicapi.claims WHERE expires_at <= %s", (now,))
                made = connection.execute(
                    "INSERT INTO musicapi.claims SELECT mark, %s FROM unnest(%s::text[]) AS mark "
                    "ON CONFLICT DO NOTHING",
                    (now + seconds, wanted),
                )
                if made.rowcount == len(wanted):
                    return True
                raise psycopg.Rollback
            return False

        return await self._run(work)

    async def unclaim(self, marks: Collection[str]) -> None:
        """Let marks be claimed again."""

        def work(connection: Connection) -> None:
            with self._database.transaction(connection):
                connection.execute("DELETE FROM musicapi.claims WHERE mark = ANY(%s)", (sorted(set(marks)),))

        await self._run(work)

    async def durations(self) -> Mapping[str, bytes]:
        """Return what was learned about durations: an opaque state for each kind of task."""

        def work(connection: Connection) -> dict[str, bytes]:
            with self._database.transaction(connection):
                return dict(connection.execute("SELECT kind, state FROM musicapi.durations").fetchall())

        return await self._run(work)

    async def merge_durations(self, kind: str, merge: Merge) -> bytes:
        """Apply `merge` to the state of one kind in one transaction; return the state after it."""

        def work(connection: Connection) -> bytes:
            with self._database.transaction(connection, lock=_number(f"durations {kind}")):
                found = connection.execute("SELECT state FROM musicapi.durations WHERE kind = %s", (kind,))
                before = found.fetchone()
                state = merge(None if before is None else before[0])
                connection.execute(
                    "INSERT INTO musicapi.durations VALUES (%s, %s) "
                    "ON CONFLICT (kind) DO UPDATE SET state = excluded.state",
                    (kind, state),
                )
            return state

        return await self._run(work)

    # --- what workers share ----------------------------------------------------------------------------

    def limiter(
        self, account: str, rate: Rate | UnsetType | None, clock: Clock, max_in_flight: int | None
    ) -> RateLimiter:
        """Return a limiter that keeps one rate with all clients of the account that share the database.

        Args:
            account: the account.
            rate: the rate; UNSET to take that of the database, which is 1 per 3 s if none was set. Another
                one than that of the database is refused when a create is to be sent.
            clock: the clock of the client.
            max_in_flight: tasks in flight of all clients together; None: no cap.
        """
        return PostgresLimiter(self, account, rate, clock, max_in_flight)

    async def rate(self, account: str) -> Rate | None:
        """Return the rate of an account; None for no limit. 1 per 3 s is written if there is none."""
        default = DEFAULT_LANES["submit"].rate
        work = self.begin(lambda connection: read_rate(connection, account, default), lock=f"rate {account}")
        return rate_of((await asyncio.shield(work))[0])

    async def set_rate(self, account: str, rate: Rate | None) -> None:
        """Set the rate of an account for all clients, also those that are at work; None for no limit."""

        def work(connection: Connection) -> None:
            write_rate(connection, account, rate)
            notify(connection, Notice("freed", self.owner, account))

        await asyncio.shield(self.begin(work, lock=f"rate {account}", durable=True))

    async def publish(self, body: bytes, task_id: str) -> None:
        """Hand the body of a webhook to the clients that know its task, by its table and a notice to all."""
        said = task_id if len(task_id) <= LONGEST_ID else ""

        def work(connection: Connection) -> None:
            with self._database.transaction(connection):
                connection.execute(
                    "DELETE FROM musicapi.webhooks "
                    "WHERE received_at < clock_timestamp() - make_interval(secs => %s)",
                    (WEBHOOK_MEMORY,),
                )
                made = connection.execute(
                    "INSERT INTO musicapi.webhooks (sender, body) VALUES (%s, %s) RETURNING number",
                    (self.owner, body),
                )
                notify(connection, Notice("webhook", self.owner, number=row(made)[0], task_id=said))

        await self._run(work)

    def subscribe(self, subscriber: Subscriber, knows: Knows) -> Callable[[], None]:
        """Have notices handed to the running loop while the store is open; returns what ends that.

        Args:
            subscriber: called with each, and with the body of a webhook about a task that it knows.
            knows: says of which tasks webhooks are read; called in another thread.
        """
        mark = object()
        self._subscribers[mark] = asyncio.get_running_loop(), subscriber, knows
        self._read_notices()

        def end() -> None:
            self._subscribers.pop(mark, None)

        return end

    def _read_notices(self) -> None:
        with self._lock:
            if self._notices is None or self._process != os.getpid():
                if self._process != os.getpid():
                    self._process = os.getpid()
                    self.owner = uuid.uuid4().hex
                self._notices = NoticeReader(self._database, self.owner, self.lease, self._subscribers)

    def begin(
        self, work: Callable[[Connection], R], *, lock: str, durable: bool = False
    ) -> asyncio.Future[R]:
        """Begin a transaction of the rate, under the lock of a name; see `Worker.begin`."""

        def locked(connection: Connection) -> R:
            with self._database.transaction(connection, lock=_number(lock), durable=durable):
                return work(connection)

        self._read_notices()  # the sign that this process lives, as long as it has tickets or permits
        return self._begin(locked, "rate")

    # --- an engine on the same database ----------------------------------------------------------------

    @property
    def parts(self) -> Mapping[str, Any]:
        """The parts of the address for another connection, the password included if it was in it."""
        return self._database.parts

    @property
    def identity(self) -> str:
        """The id inside the database, which one that replaced it has not; '' before it was used."""
        return self._database.identity

    async def work(self, work: Callable[[Connection], R], *, lock: str | None = None) -> R:
        """Carry out `work` in a transaction on the database that is known, under the lock of a name."""

        def locked(connection: Connection) -> R:
            number = None if lock is None else _number(lock)
            with self._database.transaction(connection, lock=number, durable=True):
                return work(connection)

        return await self._run(locked)

    # --- lifetime --------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Finish what was begun, within seconds, and close; opens again when it is used again.

        Permits and places in queues end with it.
        """
        with self._lock:
            workers = [worker for worker in self._workers.values() if worker.process == os.getpid()]
            notices = self._notices if self._process == os.getpid() else None
            rate = self._workers.get("rate")
            self._workers.clear()
            self._notices = None
        if notices is not None:
            await notices.aclose()
        if rate is not None and rate in workers:
            owner = self.owner
            rate.begin(lambda connection: forget(connection, owner))
        for worker in workers:
            await worker.aclose()

    def _begin(self, work: Callable[[Connection], R], what: str) -> asyncio.Future[R]:
        with self._lock:
            worker = self._workers.get(what)
            if worker is None or worker.process != os.getpid():  # a connection does not outlive a fork
                worker = self._workers[what] = Worker(self._database, self.patience, what)
            return worker.begin(work)

    async def _run(self, work: Callable[[Connection], R]) -> R:
        return await asyncio.shield(self._begin(work, "jobs"))  # carried out, even if its caller is cancelled

    def __repr__(self) -> str:
        return f"PostgresStore({self.name!r})"


# --- rows -------------------------------------------------------------------------------------------------


def _number(key: str) -> int:
    """Return the number of the lock of a job key."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8, person=b"musicapi").digest(), signed=True)


def _select(connection: Connection, where: LiteralString, values: Sequence[object]) -> list[Job]:
    text = (
        "SELECT jobs.record, jobs.key, jobs.account, jobs.state, jobs.created_at FROM musicapi.jobs "  # noqa: S608
        f"{where} ORDER BY jobs.created_at, jobs.number"
    )
    rows = connection.execute(text, values).fetchall()
    return [_read(connection, record, columns) for record, *columns in rows]


def _write(connection: Connection, before: Job | None, after: Job | None) -> None:
    job = after or before
    assert job is not None  # a change has one side at least
    name = (job.key, job.account)
    if before is not None and (after is None or after.refs != before.refs):
        connection.execute("DELETE FROM musicapi.tasks WHERE key = %s AND account = %s", name)
    if after is None:
        connection.execute("DELETE FROM musicapi.jobs WHERE key = %s AND account = %s", name)
        return
    connection.execute(
        "INSERT INTO musicapi.jobs (key, account, state, created_at, updated_at, record) "
        "VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (key, account) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at, "
        "created_at = excluded.created_at, record = excluded.record",
        (*name, job.state, job.created_at, job.updated_at, _encoder.encode(job).decode()),
    )
    if after.refs and (before is None or after.refs != before.refs):
        connection.execute(
            "INSERT INTO musicapi.tasks (task_id, family, key, account) "
            "SELECT task_id, family, %s, %s FROM unnest(%s::text[], %s::text[]) AS made (task_id, family) "
            "ON CONFLICT DO NOTHING",
            (*name, [ref.task_id for ref in after.refs], [ref.family for ref in after.refs]),
        )


def _read(connection: Connection, record: str, columns: Sequence[object]) -> Job:
    """The job of a row; if its record is damaged, what the columns know of it."""
    try:
        return _decoder.decode(record)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        refs = connection.execute(
            "SELECT family, task_id FROM musicapi.tasks WHERE key = %s AND account = %s", columns[:2]
        )
        return damaged_job(columns, refs.fetchall(), error)
