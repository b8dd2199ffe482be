"""Jobs in one SQLite file: they outlive crashes, and several processes of one machine may share them.

How nothing is lost
-------------------
Write-ahead logging; one transaction per change, begun as a writer, so that two processes never decide on the
same old row. A change that is `durable` is synced to the disk before it returns (`synchronous=FULL`): the one
before a request leaves, and the one that keeps a task id. All others only have to outlive the process, which
they do once they are written (`NORMAL`).

SQLite works in one thread of its own, so the event loop never waits for the disk, and any loop may ask.

A file is born whole: the schema is made under another name and linked into place. So an empty or malformed
file is never taken for a new one: it is reported, and left as it is. Keep the file on a local disk: the
locks of network file systems are not dependable, and then no promise about money would hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from ..errors import JobStoreError
from ..files import expand, sync_folder
from .store import Job, JobState, Step

R = TypeVar("R")

BUSY_TIMEOUT: Final = 30.0
"""Seconds to wait for another process's transaction, each of which takes milliseconds."""

MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE job (
        key TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        family TEXT,
        task_id TEXT,
        created_at REAL NOT NULL,
        record TEXT NOT NULL
    );
    CREATE INDEX job_state ON job (state, created_at);
    CREATE INDEX job_task ON job (task_id, family) WHERE task_id IS NOT NULL;
    """,
)
"""Script number n leads from schema n to n + 1; the file's `user_version` tells which it has."""

APPLICATION_ID: Final = 0x4D41504A
"""'MAPJ': marks the file as ours, so that no other program's database is written to."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Job)


class SQLiteStore:
    """A `JobStore` in the file `path`, which is made when it is first used.

    ```python
    async with MusicAPI(store=SQLiteStore("jobs.sqlite")) as client: ...
    ```

    Safe for many tasks, loops, threads and processes of one machine. Opened on first use; `aclose` (or the
    client that it is given to) closes it, and later use opens it again. Raises `JobStoreError`, which names
    the file, when it cannot be made, read or written, when it is damaged, or was made by a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Final = expand(path)
        self._lock: Final = threading.Lock()
        self._file: _File | None = None

    async def change(self, key: str, step: Step, *, durable: bool = False) -> Job | None:
        """Apply `step` to the row of `key` in one transaction; see `JobStore.change`."""
        return await self._run(lambda file: file.change(key, step, durable))

    async def get(self, key: str) -> Job | None:
        """The job with this key."""
        found = await self._run(lambda file: file.select("WHERE key = ?", (key,)))
        return found[0] if found else None

    async def find(self, family: str, task_id: str) -> list[Job]:
        """The jobs with this task."""
        return await self._run(
            lambda file: file.select("WHERE task_id = ? AND family = ? ORDER BY key", (task_id, family))
        )

    async def jobs(self, *states: JobState) -> list[Job]:
        """The jobs in these states (none given: all), oldest first."""
        among = f"WHERE state IN ({', '.join('?' * len(states))}) " if states else ""
        return await self._run(lambda file: file.select(f"{among}ORDER BY created_at, rowid", states))

    async def aclose(self) -> None:
        """Close the file. Opens again by itself when it is used again."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None and file.process == os.getpid():
            await file.aclose()

    async def _run(self, work: Callable[[_File], R]) -> R:
        with self._lock:
            # After a fork neither thread nor connection are ours (sqlite.org/howtocorrupt.html, 2.6).
            if self._file is None or self._file.process != os.getpid():
                self._file = _File(self.path)
            job = self._file.begin(work)
        # What has begun is finished, whoever is cancelled: a row is never left half decided.
        return await asyncio.shield(job)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r})"


class _File:
    """The open file and the one thread that works on it."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.process: Final = os.getpid()
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="musicapi-store")
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] = (0, 0)
        self._full = False

    def begin(self, work: Callable[[_File], R]) -> asyncio.Future[R]:
        """Have `work` done in the thread, after all that was begun before."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    async def aclose(self) -> None:
        """Finish what was begun, then close; the thread ends."""
        closing = self.begin(_File.close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(closing)

    def _guarded(self, work: Callable[[_File], R]) -> R:
        try:
            return work(self)
        except sqlite3.Error as error:
            self.close()
            raise _failed(self.path, error) from error
        except OSError as error:
            self.close()
            raise JobStoreError(
                f"the job store {self.path} cannot be used: {error.strerror or error}", path=str(self.path)
            ) from error

    def change(self, key: str, step: Step, durable: bool) -> Job | None:
        """Apply `step` in one transaction."""
        connection = self._open()
        if durable != self._full:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._full = durable
        connection.execute("BEGIN IMMEDIATE")
        try:
            row = connection.execute("SELECT record FROM job WHERE key = ?", (key,)).fetchone()
            before = None if row is None else self._read(row[0])
            after = step(before)
            if after is not before:
                self._write(connection, key, after)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        return after

    def _write(self, connection: sqlite3.Connection, key: str, job: Job | None) -> None:
        if job is None:
            connection.execute("DELETE FROM job WHERE key = ?", (key,))
            return
        family, task_id = (job.task.family, job.task.task_id) if job.task is not None else (None, None)
        connection.execute(
            "INSERT INTO job (key, state, family, task_id, created_at, record) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET state = excluded.state, family = excluded.family, "
            "task_id = excluded.task_id, record = excluded.record",
            (key, job.state, family, task_id, job.created_at, _encoder.encode(job).decode()),
        )

    def select(self, where: str, values: Sequence[str]) -> list[Job]:
        """The jobs that match."""
        rows = self._open().execute(f"SELECT record FROM job {where}", tuple(values))  # noqa: S608 - fixed text
        return [self._read(record) for (record,) in rows]

    def _read(self, record: str | bytes) -> Job:
        try:
            return _decoder.decode(record)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise _damaged(self.path, f"a row cannot be read ({error})") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            self._check_identity()
            return self._connection
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            make(self.path)
        if self.path.stat().st_size == 0:
            raise _damaged(self.path, "the file is empty")
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            _check(connection, self.path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            migrate(connection, self.path)
        except BaseException:
            connection.close()
            raise
        found = self.path.stat()
        self._identity, self._full = (found.st_dev, found.st_ino), False
        self._connection = connection
        return connection

    def _check_identity(self) -> None:
        """A file that was moved, removed or replaced still takes writes, and nobody would ever read them."""
        try:
            found = self.path.stat()
            same = (found.st_dev, found.st_ino) == self._identity
        except FileNotFoundError:
            same = False
        if not same:
            self.close()
            raise JobStoreError(
                f"the job store {self.path} was removed or replaced while it was in use", path=str(self.path)
            )

    def close(self) -> None:
        """Close the connection; the next work opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def make(path: Path) -> None:
    """Make a whole empty store and give it its name at once; another process may do so at the same time.

    It has its write-ahead log before it has its name: turning that on needs the file for oneself, and SQLite
    refuses at once, without waiting, if two that have just opened the file try it.
    """
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        connection = sqlite3.connect(fresh, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            migrate(connection, path)
        finally:
            connection.close()
        try:
            os.link(fresh, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            with contextlib.suppress(FileExistsError), open(path, "xb") as file:
                with open(fresh, "rb") as whole:
                    shutil.copyfileobj(whole, file)
                file.flush()
                os.fsync(file.fileno())
    finally:
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                fresh.with_name(fresh.name + ending).unlink()
    sync_folder(path.parent)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (identity,) = connection.execute("PRAGMA application_id").fetchone()
    if identity != APPLICATION_ID:
        raise JobStoreError(
            f"{path} is a database of another program, not a job store; it was left as it is", path=str(path)
        )
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, str(verdict))


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the schema up to date, all steps or none; refuse a file of a newer version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise JobStoreError(
            f"the job store {path} has schema {version}, this version of the package knows {len(migrations)}",
            path=str(path),
            hint="Upgrade musicapi-async, or use another file.",
        )
    if version == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for script in migrations[version:]:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _damaged(path: Path, what: str) -> JobStoreError:
    return JobStoreError(
        f"the job store {path} is damaged or no job store: {what}; it was left as it is",
        path=str(path),
        hint="Restore it from a copy. It says which tasks were paid for, so do not just start a new one.",
    )


def _failed(path: Path, error: sqlite3.Error) -> JobStoreError:
    # The primary code is the low byte of the extended one (sqlite.org/rescode.html).
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    match code:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _damaged(path, str(error))
        case sqlite3.SQLITE_FULL:
            what, hint = "cannot be written: the disk is full", "Make room on the disk and call again."
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            what = f"cannot be opened for writing ({error})"
            hint = "Check the permissions of the file and of its folder, which must be writable, too."
        case sqlite3.SQLITE_BUSY:
            what, hint = f"was locked by another program for {BUSY_TIMEOUT:g} s", "Close the other program."
        case sqlite3.SQLITE_IOERR:
            what = f"cannot be read or written ({error}, {getattr(error, 'sqlite_errorname', '')})"
            hint = "Check the disk: is it full, is there a limit to file sizes?"
        case _ if isinstance(error, sqlite3.OperationalError) and "no such table" in str(error):
            return _damaged(path, str(error))
        case _:
            what, hint = f"failed: {error}", ""
    return JobStoreError(f"the job store {path} {what}", path=str(path), hint=hint)
