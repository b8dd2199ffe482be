"""Jobs in one SQLite file: they outlive crashes, and several processes of one machine may share them.

How nothing is lost
-------------------
Write-ahead logging; one transaction per change, begun as a writer, so that two processes never decide on the
same old row. A change that is `durable` is synced to the disk before it returns (`synchronous=FULL`): the one
before a request is sent, and the one that stores a task id. All others only have to survive the end of the
process, which they do once they are written (`NORMAL`).

SQLite runs in its own thread, in the order of the calls, so the event loop never waits for the disk, and any
loop may use the store. A caller may be cancelled at any time; the change that it began is still carried out.

A file is created complete: the schema is made under another name, and linked to the final one. So an empty or
malformed file is never mistaken for a new one: it is reported and not changed. A store remembers the file
that it opened, by device, inode and an id inside. If this file is gone, the store refuses all calls, because
with an empty file every key would be paid for again. The log beside it (`-wal`) has the latest changes: if it
is removed, the store saves them into the file, and refuses only the call that noticed it. Keep the file on a
local disk: the locks of network file systems are not reliable, and without them a call may be paid for twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar, Concatenate, Final, NoReturn, ParamSpec, TypeVar

import msgspec

from ..errors import JobStoreError
from ..files import expand
from .job import Job, JobState
from .reservation import apply, choose
from .sqlite_schema import (
    check,
    damaged,
    failed,
    is_busy,
    is_read_only,
    log_removed,
    make,
    migrate,
    replaced,
    schema_of,
)
from .store import SETTLED, Merge, Transition, close_with_owner, damaged_job, take_error

P = ParamSpec("P")
R = TypeVar("R")

log: Final = logging.getLogger("musicapi_async")

BUSY_TIMEOUT: Final = 30.0
"""Seconds from a call to its error while another program locks the file; a transaction takes milliseconds."""
BUSY_SLICE: Final = 0.1
"""Seconds that SQLite itself waits for a lock, after which the thread sees whether the store is closing."""
BUSY_PAUSE: Final = 0.01
"""Seconds between tries where SQLite refuses at once."""
CLOSING_LOCK_PATIENCE: Final = 2.0
"""Seconds that closing waits for a lock, for all that was begun before."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Job)


class SQLiteStore:
    """A `JobStore` in the file `path`, which is created on first use and can be read by its owner only.

    ```python
    async with MusicAPI(store=SQLiteStore("jobs.sqlite")) as client: ...
    ```

    Tasks, event loops, threads and processes of one machine may share it. It is opened on first use. `aclose`
    closes it, and so does the last client of this process that has it; later use opens it for as long as it
    is in use, and a client that is entered later until it is closed.

    Its methods raise `JobStoreError`, which names the file, if the file cannot be created, read or written,
    if it is damaged, or if a newer version made it. Jobs can be listed where nothing can be written. If the
    file is removed or replaced, all calls are refused until a new `SQLiteStore` is made.

    Args:
        path: the file; a leading `~` is the home folder.
    """

    busy_timeout: ClassVar[float] = BUSY_TIMEOUT
    """Seconds from a call to its error while another program locks the file; a subclass may have less."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Final = expand(path)
        self._lock: Final = threading.Lock()
        self._identity: Final = _Identity()
        self._file: _OpenFile | None = None
        self._was_closed = False

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        """Apply `transition` to the row of a job in one transaction; see `JobStore.change`."""
        return await self._run(_OpenFile.change, key, transition, account, durable)

    async def get(self, key: str, *, account: str = "") -> Job | None:
        """Return the job with this key, or None."""
        rows = await self._run(_OpenFile.select, "WHERE key = ?", (key,))
        return choose(rows, account)

    async def find(self, family: str, task_id: str) -> list[Job]:
        """Return the jobs that made this task, oldest first."""
        where = "JOIN tasks USING (key, account) WHERE tasks.task_id = ? AND tasks.family = ?"
        return await self._run(_OpenFile.select, where, (task_id, family))

    async def jobs(self, *states: JobState) -> list[Job]:
        """Return the jobs in these states, or all jobs if none is given, oldest first."""
        among = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        return await self._run(_OpenFile.select, among, states)

    async def purge(self, before: float) -> int:
        """Remove the finished and failed jobs that were last changed before a Unix time; return how many."""
        return await self._run(_OpenFile.purge, before)

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim all marks for a time; return False, and claim none, if one of them is claimed already."""
        return await self._run(_OpenFile.claim, marks, now, now + seconds)

    async def unclaim(self, marks: Collection[str]) -> None:
        """Release marks, so that they can be claimed again."""
        await self._run(_OpenFile.unclaim, marks)

    async def durations(self) -> Mapping[str, bytes]:
        """Return the learned durations: an opaque state for each kind of task."""
        return await self._run(_OpenFile.durations)

    async def merge_durations(self, kind: str, merge: Merge) -> bytes:
        """Apply `merge` to the state of one kind in one transaction; return the state after it."""
        return await self._run(_OpenFile.merge_durations, kind, merge)

    def reopen(self) -> None:
        """Keep the file open from the next use on, until `aclose`, because a client has this store."""
        with self._lock:
            self._was_closed = False

    async def aclose(self) -> None:
        """Finish the changes that were begun, and close the file. May be repeated.

        If another program locks the file, this takes 2 s at most; a change that could not be written then
        raises an error in its own call. Later use, as by a paid call whose caller is gone, opens the file
        and closes it when nothing more is under way, which takes some milliseconds each time.
        """
        with self._lock:
            file, self._file = self._file, None
            self._was_closed = True
        if file is not None and file.process == os.getpid():
            await file.aclose()
        elif file is not None:
            file.forked()

    async def _run(
        self, work: Callable[Concatenate[_OpenFile, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        with self._lock:
            if self._file is None or self._file.process != os.getpid():
                if self._file is not None:
                    self._file.forked()
                self._file = _OpenFile(self.path, self._identity, self.busy_timeout)
            work_on_it = partial(work, self._file, *args, **kwargs)
            begun = self._file.begin(work_on_it, stays_open=not self._was_closed)
        # What was begun is carried out, even if its caller is cancelled: a row is never left half decided.
        # Its error is then for no one, and with `shield` alone asyncio would report it.
        begun.add_done_callback(take_error)
        return await asyncio.shield(begun)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r})"


def _place(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, which no other has while one of the process has it open."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class _Identity:
    """The file that a store has opened; remembered as long as the store exists, also while it is closed."""

    def __init__(self) -> None:
        self._device = self._inode = 0
        self._id = ""

    @property
    def is_known(self) -> bool:
        return bool(self._id)

    def is_at(self, path: Path) -> bool:
        """Return True if the file of this name is the one that was opened."""
        return _place(path) == (self._device, self._inode)

    def lose(self) -> None:
        """Accept no file any more: what the file holds is not all that was written."""
        self._device = self._inode = -1

    def accepts(self, path: Path, connection: sqlite3.Connection) -> bool:
        """Return True for the file that was opened before, or for any if none was, which is remembered."""
        (number,) = connection.execute("SELECT id FROM identity").fetchone()
        if self.is_known:  # an inode number is used again by later files, so the id decides
            return number == self._id and self.is_at(path)
        found = path.stat()
        self._device, self._inode, self._id = found.st_dev, found.st_ino, number
        return True


class _OpenFile:
    """The file, and the one thread that works on it."""

    def __init__(self, path: Path, identity: _Identity, busy_timeout: float) -> None:
        self.path: Final = path
        self.process: Final = os.getpid()
        self._identity: Final = identity
        self._busy_timeout: Final = busy_timeout
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="musicapi-store")
        self._opened: Final[list[sqlite3.Connection]] = []  # at most one
        close_with_owner(self, self._opened)
        self._working: Final = threading.Lock()
        self._begun = 0
        self._log_path = path
        self._log: tuple[int, int] | None = None
        self._is_full = False
        self._is_snapshot = False
        self._closing_at = float("inf")

    # --- the thread -----------------------------------------------------------------------------------

    def begin(self, work: Callable[[], R], *, stays_open: bool = True) -> asyncio.Future[R]:
        """Have `work` done in the thread, after all that was begun before.

        The file then stays open, or is closed unless more work was begun.
        """
        self._begun += 1
        number = None if stays_open else self._begun
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, self._guarded, work, number, time.monotonic())

    async def aclose(self) -> None:
        """Finish what was begun, then close; the thread ends."""
        self._closing_at = time.monotonic() + CLOSING_LOCK_PATIENCE
        closing = self.begin(self.close)
        self._thread.shutdown(wait=False)
        _, pending = await asyncio.wait({closing}, timeout=2 * CLOSING_LOCK_PATIENCE)
        if pending:
            log.warning("the job store %s does not close: its disk does not answer", self.path)

    def forked(self) -> None:
        """Close the parent's connection in a child, in which neither thread nor connection can be used.

        SQLite takes the locks of that connection, which belong to the parent, for those of the child, and
        would take none for its new one. A connection that was at work during the fork is left as it is:
        SQLite would wait for the thread that has it, which the child has not.
        """
        if self._working.acquire(blocking=False):
            self.close()

    def _guarded(self, work: Callable[[], R], number: int | None, begun_at: float) -> R:
        with self._working:
            try:
                return self._tried(work, begun_at)
            finally:
                if number == self._begun or self._is_snapshot:
                    self.close()

    def _tried(self, work: Callable[[], R], begun_at: float) -> R:
        while True:
            try:
                return work()
            except sqlite3.Error as error:
                now = time.monotonic()
                if is_busy(error) and now < min(begun_at + self._busy_timeout, self._closing_at):
                    time.sleep(BUSY_PAUSE)
                    continue
                self.close()
                raise failed(self.path, error, now - begun_at) from error
            except OSError as error:
                self.close()
                raise JobStoreError(
                    f"the job store {self.path} cannot be used: {error.strerror or error}",
                    path=str(self.path),
                ) from error

    # --- work in the thread ---------------------------------------------------------------------------

    def change(self, key: str, transition: Transition, account: str, durable: bool) -> Job | None:
        """Apply `transition` in one transaction."""
        connection = self._open()
        if durable != self._is_full:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_full = durable
        with self._transaction(connection):
            rows = self._select(connection, "WHERE key = ?", (key,))
            before, after = apply(rows, transition, account)
            if after is not before:
                _write(connection, before, after)
        self._check_identity()  # written into a file that has lost its name, it would never be read
        return after

    def select(self, where: str, values: Sequence[str]) -> list[Job]:
        """Return the jobs that match, oldest first."""
        connection = self._open()
        schema_of(connection, self.path)
        return self._select(connection, where, values)

    def purge(self, before: float) -> int:
        """Remove settled jobs."""
        settled = f"state IN ({', '.join('?' * len(SETTLED))}) AND updated_at < ?"
        values = (*SETTLED, before)
        with self._transaction(self._open()) as connection:
            connection.execute(
                f"DELETE FROM tasks WHERE (key, account) IN (SELECT key, account FROM jobs WHERE {settled})",  # noqa: S608
                values,
            )
            return connection.execute(f"DELETE FROM jobs WHERE {settled}", values).rowcount  # noqa: S608

    def claim(self, marks: Collection[str], now: float, expires_at: float) -> bool:
        """Claim marks, all or none."""
        with self._transaction(self._open()) as connection:
            connection.execute("DELETE FROM claims WHERE expires_at <= ?", (now,))
            if any(
                connection.execute("SELECT 1 FROM claims WHERE mark = ?", (mark,)).fetchone()
                for mark in marks
            ):
                return False
            connection.executemany(
                "INSERT INTO claims (mark, expires_at) VALUES (?, ?)", ((mark, expires_at) for mark in marks)
            )
            return True

    def unclaim(self, marks: Collection[str]) -> None:
        """Release marks, so that they can be claimed again."""
        with self._transaction(self._open()) as connection:
            connection.executemany("DELETE FROM claims WHERE mark = ?", ((mark,) for mark in marks))

    def durations(self) -> dict[str, bytes]:
        """Return the learned states by kind."""
        connection = self._open()
        schema_of(connection, self.path)
        # As bytes: if another program wrote text that is not UTF-8, no row at all could be read.
        found = connection.execute("SELECT CAST(kind AS BLOB), CAST(state AS BLOB) FROM durations")
        return {kind.decode(errors="replace"): state for kind, state in found}

    def merge_durations(self, kind: str, merge: Merge) -> bytes:
        """Apply `merge` in one transaction."""
        with self._transaction(self._open()) as connection:
            found = connection.execute("SELECT CAST(state AS BLOB) FROM durations WHERE kind = ?", (kind,))
            row = found.fetchone()
            state = merge(None if row is None else row[0])
            connection.execute("INSERT OR REPLACE INTO durations (kind, state) VALUES (?, ?)", (kind, state))
            return state

    def close(self) -> None:
        """Close the connection; the next work opens another."""
        while self._opened:
            with contextlib.suppress(sqlite3.Error):
                self._opened.pop().close()

    # --- rows -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Generator[sqlite3.Connection]:
        """A transaction of the one writer; the schema is still the one that we know."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            schema_of(connection, self.path)
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def _select(self, connection: sqlite3.Connection, where: str, values: Sequence[str]) -> list[Job]:
        text = (
            "SELECT jobs.record, jobs.key, jobs.account, jobs.state, jobs.created_at FROM jobs "  # noqa: S608
            f"{where} ORDER BY jobs.created_at, jobs.rowid"
        )
        rows = connection.execute(text, tuple(values)).fetchall()
        return [_read(connection, record, columns) for record, *columns in rows]

    def _open(self) -> sqlite3.Connection:
        if self._opened:
            self._check_identity()
            return self._opened[0]
        if self._identity.is_known:
            self._check_identity()
        elif not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            make(self.path)
        if self.path.stat().st_size == 0:
            raise damaged(self.path, "the file is empty")
        connection = self._connected()
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            migrate(connection, self.path)
            if not self._identity.accepts(self.path, connection):
                raise replaced(self.path)
        except BaseException:
            connection.close()
            raise
        self._log_path = Path(f"{os.path.realpath(self.path)}-wal")
        self._log = _place(self._log_path)  # SQLite has made it for the first read
        self._is_full = False
        self._opened.append(connection)
        return connection

    def _connected(self) -> sqlite3.Connection:
        """Return a connection to the file, which is a store.

        Where SQLite may not make the log, not even for reading, and no one else has made it, the file has all
        that was written. It is read as it is then, for this one piece of work; SQLite refuses changes.
        """
        self._is_snapshot = False
        try:
            return self._checked(str(self.path))
        except sqlite3.OperationalError as error:
            if not is_read_only(error) or Path(f"{os.path.realpath(self.path)}-wal").exists():
                raise
        self._is_snapshot = True
        return self._checked(f"{self.path.absolute().as_uri()}?immutable=1", uri=True)

    def _checked(self, name: str, *, uri: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            name, timeout=BUSY_SLICE, isolation_level=None, check_same_thread=False, uri=uri
        )
        try:
            check(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_identity(self) -> None:
        """Raise `JobStoreError` if the file was moved, removed or replaced: writes to it would be lost."""
        if not self._identity.is_at(self.path):
            self.close()
            raise replaced(self.path)
        if self._opened and self._log is not None:
            now = _place(self._log_path)
            if now != self._log:
                self._give_up_log(self._opened[0], is_gone=now is None)

    def _give_up_log(self, connection: sqlite3.Connection, *, is_gone: bool) -> NoReturn:
        """Save what only this process can read any more. If another one has begun a new log, that is lost."""
        busy = 1
        if is_gone:
            with contextlib.suppress(sqlite3.Error):
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        self.close()
        if busy:
            self._identity.lose()
            raise replaced(self.path)
        raise log_removed(self.path, self._log_path)


def _write(connection: sqlite3.Connection, before: Job | None, after: Job | None) -> None:
    job = after or before
    assert job is not None  # a change has one side at least
    name = (job.key, job.account)
    if before is not None and (after is None or after.refs != before.refs):
        connection.execute("DELETE FROM tasks WHERE key = ? AND account = ?", name)
    if after is None:
        connection.execute("DELETE FROM jobs WHERE key = ? AND account = ?", name)
        return
    connection.execute(
        "INSERT INTO jobs (key, account, state, created_at, updated_at, record) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (key, account) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at, "
        "created_at = excluded.created_at, record = excluded.record",
        (*name, job.state, job.created_at, job.updated_at, _encoder.encode(job).decode()),
    )
    if before is None or after.refs != before.refs:
        connection.executemany(
            "INSERT OR IGNORE INTO tasks (task_id, family, key, account) VALUES (?, ?, ?, ?)",
            ((ref.task_id, ref.family, *name) for ref in after.refs),
        )


def _read(connection: sqlite3.Connection, record: str, columns: Sequence[object]) -> Job:
    """The job of a row; if its record is damaged, what the columns (key, account, ...) know of it."""
    try:
        return _decoder.decode(record)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        refs = connection.execute(
            "SELECT family, task_id FROM tasks WHERE key = ? AND account = ?", tuple(columns[:2])
        )
        return damaged_job(columns, refs.fetchall(), error)
