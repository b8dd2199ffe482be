"""Jobs in a PostgreSQL database, for any number of processes on any number of machines.

How nothing is lost
-------------------
One transaction for each change, under a lock of its job key, so that two workers never decide on the same old
row. A change that is `durable` is on the server's disk before it returns (`synchronous_commit`): the one
before a request leaves, and the one that stores a task id. All others may be lost only if the server's
machine fails within the same second, and then the call is refused, or its outcome is listed as unknown.

A process uses three connections, each with a thread of its own: one for jobs, in the order of the calls; one
for the rate; and one that listens for what other workers have received. The queue of rows has a fourth. A
connection that is lost is opened again by itself, and the work done once more for `patience` seconds; then it
is a `JobStoreError`.

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
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Final, LiteralString, TypeVar

import msgspec
from msgspec import UnsetType

from .._transport.rate_limiter import DEFAULT_LANES
from ..errors import JobStoreError
from .job import Job, JobState
from .reservation import apply, choose
from .store import SETTLED, Knows, Merge, Notice, Subscriber, Transition, close_with_owner, damaged_job

try:
    import psycopg
except ImportError as missing:
    from ..extras import missing_extra

    raise missing_extra("PostgresStore", "postgres", "psycopg") from missing
from .postgres_connection import Database, Worker
from .postgres_notices import LONGEST_ID, WEBHOOK_MEMORY, NoticeReader, Subscribers, forget, notify
from .postgres_rate import PostgresLimiter
from .postgres_schema import SILENCE, Connection, display, parsed, row
from .postgres_tickets import rate_of, read_rate, write_rate

if TYPE_CHECKING:
    from .._transport.rate_limiter import RateLimiter
    from .._transport.rate_window import Rate
    from ..clock import Clock

R = TypeVar("R")

PATIENCE: Final = 10.0
"""Seconds from a call to its error while the server does not answer; a restart takes about two."""

LEASE: Final = 15.0
"""Seconds without a heartbeat after which a process is considered dead."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Job)


class PostgresStore:
    """A `JobStore` in a PostgreSQL database (15 or later), which many machines may share; extra `[postgres]`.

    ```python
    async with MusicAPI(store=PostgresStore("postgresql://music@db.example/music")) as client: ...
    ```

    The clients that share it have one rate limit, and a webhook that any of them receives ends the waits in
    all of them. Its tables are in the schema `musicapi`, which is created on first use. The last client of
    this process that has the store closes its connections, and so does `aclose`; a client opens them again,
    and other later use does so for as long as it is under way. Its methods raise `JobStoreError` if the
    database cannot be used.

    Args:
        address: the address of the database, as libpq reads it: 'postgresql://user@host:5432/database'. Put
            the password into the variable PGPASSWORD or the file of PGPASSFILE; it is never displayed. The
            connection must be direct, or through a pooler in session mode.

    Raises:
        RequestValidationError: `address` is no address of a database.
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
        self._readers: Final[list[NoticeReader]] = []  # at most one
        close_with_owner(self, self._readers)
        self._was_closed = False
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
                before, after = apply(rows, transition, account)
                if after is not before:
                    _write(connection, before, after)
            return after

        return await self._run(work)

    async def get(self, key: str, *, account: str = "") -> Job | None:
        """Return the job with this key, or None. Raises `JobStoreError` if its row is damaged."""
        return choose(await self._find("WHERE key = %s", (key,)), account)

    async def find(self, family: str, task_id: str) -> list[Job]:
        """Return the jobs that made this task, oldest first."""
        where = "JOIN musicapi.tasks USING (key, account) WHERE tasks.task_id = %s AND tasks.family = %s"
        return await self._find(where, (task_id, family))

    async def jobs(self, *states: JobState) -> list[Job]:
        """Return the jobs in these states, or all jobs if none is given, oldest first."""
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
        """Claim all marks for a time; return False, and claim none, if one of them is claimed already."""
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
        """Release marks, so that they can be claimed again."""

        def work(connection: Connection) -> None:
            with self._database.transaction(connection):
                connection.execute("DELETE FROM musicapi.claims WHERE mark = ANY(%s)", (sorted(set(marks)),))

        await self._run(work)

    async def durations(self) -> Mapping[str, bytes]:
        """Return the learned durations: an opaque state for each kind of task."""

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
        """Return a limiter with one rate for all clients of the account that share the database.

        Args:
            account: the account.
            rate: the rate; UNSET to use that of the database, which is 1 per 3 s if none was set. A rate that
                differs from the database's is refused when a create is about to be sent.
            clock: the clock of the client.
            max_in_flight: the largest number of tasks in flight of all clients together; None: no cap.
        """
        return PostgresLimiter(self, account, rate, clock, max_in_flight)

    async def rate(self, account: str) -> Rate | None:
        """Return the rate of an account; None for no limit. If none is stored, store and return 1 per 3 s."""
        default = DEFAULT_LANES["submit"].rate
        work = self.begin(lambda connection: read_rate(connection, account, default), lock=f"rate {account}")
        return rate_of((await asyncio.shield(work))[0])

    async def set_rate(self, account: str, rate: Rate | None) -> None:
        """Set the rate of an account for all its clients, also running ones; None for no limit."""

        def work(connection: Connection) -> None:
            write_rate(connection, account, rate)
            notify(connection, Notice("freed", self.owner, account))

        await asyncio.shield(self.begin(work, lock=f"rate {account}", durable=True))

    async def publish(self, body: bytes, task_id: str) -> None:
        """Deliver the body of a webhook to the clients that know its task: store it, and notify all."""
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

    def reopen(self) -> None:
        """Keep connections open from the next use on, until `aclose`, because a client has this store."""
        with self._lock:
            self._was_closed = False

    def subscribe(self, subscriber: Subscriber, knows: Knows | None) -> Callable[[], None]:
        """Deliver notices to the running event loop while the store is open.

        Args:
            subscriber: the function that is called with each notice, and with the body of a webhook.
            knows: returns True for the tasks whose webhooks are wanted; called in another thread. A client
                has one, and has the store; a limiter has None.

        Returns:
            A function that ends the subscription.
        """
        mark, here = object(), asyncio.get_running_loop()
        with self._lock:
            self._read_notices()
            for other, (loop, _, _) in list(self._subscribers.items()):
                if loop.is_closed():
                    self._subscribers.pop(other, None)
            self._subscribers[mark] = here, subscriber, knows

        def end() -> None:
            self._subscribers.pop(mark, None)

        return end

    def _read_notices(self) -> None:
        """Listen from now on, unless the store is closed. Called under the lock."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._readers.clear()
            self.owner = uuid.uuid4().hex
            self._subscribers.clear()
        if not self._readers and not self._was_closed:
            self._readers.append(NoticeReader(self._database, self.owner, self.lease, self._subscribers))

    def begin(
        self, work: Callable[[Connection], R], *, lock: str, durable: bool = False, repeats: bool = False
    ) -> asyncio.Future[R]:
        """Begin a transaction of the rate limiter under a named lock; see `Worker.begin`.

        With `repeats` it is begun again if the database was away for too long, until the store is closed.
        """

        def locked(connection: Connection) -> R:
            with self._database.transaction(connection, lock=_number(lock), durable=durable):
                return work(connection)

        def repeat(done: asyncio.Future[R]) -> None:
            if not self._was_closed and not done.cancelled() and isinstance(done.exception(), JobStoreError):
                begin = partial(self.begin, work, lock=lock, durable=durable, repeats=True)
                done.get_loop().call_later(self.lease / 3, begin)

        with self._lock:
            self._read_notices()  # which writes the heartbeat, as long as this process has tickets or permits
        begun = self._begin(locked, "rate")
        if repeats:
            begun.add_done_callback(repeat)
        return begun

    # --- an engine on the same database ----------------------------------------------------------------

    @property
    def parts(self) -> Mapping[str, Any]:
        """The parts of the address for another connection, with the password if it was in it."""
        return self._database.parts

    @property
    def identity(self) -> str:
        """The id that is stored in the database, which a replaced database does not have; '' before use."""
        return self._database.identity

    async def work(self, work: Callable[[Connection], R], *, lock: str | None = None) -> R:
        """Carry out `work` in a transaction, under a named lock; refuse if the database was replaced.

        It has a connection of its own: behind a thousand jobs, a heartbeat would be late.
        """

        def locked(connection: Connection) -> R:
            number = None if lock is None else _number(lock)
            with self._database.transaction(connection, lock=number, durable=True):
                return work(connection)

        return await asyncio.shield(self._begin(locked, "rows"))

    # --- lifetime --------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Finish the changes that were begun, within seconds, and close. May be repeated.

        The permits and the places in queues of this process end. Later use, as by a paid call whose caller is
        gone, opens a connection and closes it when nothing more is under way, unless a client has the store
        again. While a client has it, this does nothing.
        """
        with self._lock:
            subscribers = list(self._subscribers.values()) if self._process == os.getpid() else []
            if any(knows is not None and not loop.is_closed() for loop, _, knows in subscribers):
                return
            workers = [worker for worker in self._workers.values() if worker.process == os.getpid()]
            readers = list(self._readers) if self._process == os.getpid() else []
            rate = self._workers.get("rate")
            self._workers.clear()
            self._readers.clear()
            self._was_closed = True
            # A client that has the store from now on keeps its permits: they are those of a new owner.
            owner, self.owner = self.owner, uuid.uuid4().hex
        for reader in readers:
            await reader.aclose()
        if rate is not None and rate in workers:
            rate.begin(lambda connection: forget(connection, owner))
        for worker in workers:
            await worker.aclose()

    def _begin(self, work: Callable[[Connection], R], what: str) -> asyncio.Future[R]:
        with self._lock:
            worker = self._workers.get(what)
            if worker is None or worker.process != os.getpid():  # a connection does not outlive a fork
                worker = self._workers[what] = Worker(self._database, self.patience, what)
            return worker.begin(work, stays_open=not self._was_closed)

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
