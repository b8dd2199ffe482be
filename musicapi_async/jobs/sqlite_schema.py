"""The file of a SQLite store: how it is made, checked, and brought up to date, and what its errors say."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from ..errors import JobStoreError
from ..files import sync_folder

APPLICATION_ID: Final = 0x4D41504A
"""'MAPJ': marks the file as ours, so that no other program's database is written to."""

OWNER_ONLY: Final = 0o600
"""Mode of the file. SQLite gives its log and its shared memory the mode of the file."""

READ_ONLY: Final = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)

ENDINGS: Final = ("", "-wal", "-shm")
"""Endings of the names of the file, its log, and its shared memory."""

Migration = Callable[[sqlite3.Connection], None]


def _make_first_tables(connection: sqlite3.Connection) -> None:
    _execute(
        connection,
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


def _add_accounts_and_tasks(connection: sqlite3.Connection) -> None:
    """Jobs get an account and several tasks. The old table goes, so that no old process writes into it."""
    _execute(
        connection,
        """
        CREATE TABLE jobs (
            key TEXT NOT NULL,
            account TEXT NOT NULL,
            state TEXT NOT NULL,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            record TEXT NOT NULL,
            PRIMARY KEY (key, account)
        );
        CREATE INDEX jobs_by_state ON jobs (state, created_at);
        CREATE TABLE tasks (
            task_id TEXT NOT NULL,
            family TEXT NOT NULL,
            key TEXT NOT NULL,
            account TEXT NOT NULL,
            PRIMARY KEY (task_id, family, key, account)
        ) WITHOUT ROWID;
        CREATE INDEX tasks_by_job ON tasks (key, account);
        CREATE TABLE claims (mark TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
        CREATE INDEX claims_by_end ON claims (expires_at);
        CREATE TABLE durations (kind TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
        CREATE TABLE identity (id TEXT NOT NULL);
        """,
    )
    connection.execute("INSERT INTO identity (id) VALUES (?)", (uuid.uuid4().hex,))
    rows = connection.execute(
        "SELECT key, state, family, task_id, created_at, record FROM job ORDER BY created_at, rowid"
    )
    for key, state, family, task_id, created_at, record in rows.fetchall():
        stored, updated_at = record, created_at
        with contextlib.suppress(
            msgspec.MsgspecError, ValueError, TypeError, KeyError
        ):  # damaged: it stays so
            fields = _with_accounts_and_tasks(msgspec.json.decode(record))
            stored, updated_at = msgspec.json.encode(fields).decode(), float(fields["updated_at"])
        connection.execute(
            "INSERT INTO jobs (key, account, state, created_at, updated_at, record) "
            "VALUES (?, '', ?, ?, ?, ?)",
            (key, state, created_at, updated_at, stored),
        )
        if task_id is not None:
            connection.execute(
                "INSERT INTO tasks (task_id, family, key, account) VALUES (?, ?, ?, '')",
                (task_id, family, key),
            )
    connection.execute("DROP TABLE job")


def _with_accounts_and_tasks(record: Any) -> dict[str, Any]:
    """The record of a job of the first schema in the form of the second."""
    fields = dict(cast("dict[str, Any]", record))
    fields["owner"] = fields.pop("holder", None)
    previous = fields.pop("earlier", None)
    fields["previous"] = None if previous is None else _with_accounts_and_tasks(previous)
    ref, by_webhook = fields.pop("task", None), fields.pop("by_webhook", False)
    if ref is not None:
        has_failed = fields["outcome"] == "failed"
        fields["tasks"] = [
            {
                "ref": ref,
                "outcome": fields["outcome"],
                "refunded": fields["refunded"],
                "error": fields["why"] if has_failed else "",
                "by_webhook": by_webhook,
            }
        ]
    return fields


MIGRATIONS: Final[tuple[Migration, ...]] = (_make_first_tables, _add_accounts_and_tasks)
"""Number n leads from schema n to n + 1; the file's `user_version` says which it has."""


def make(path: Path) -> None:
    """Create a complete, empty store under its final name; another process may do so at the same time.

    It has its write-ahead log before it has its name: turning that on needs the file for oneself, and SQLite
    refuses at once, without waiting, if two that have just opened the file try it.
    """
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWNER_ONLY))
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
            with contextlib.suppress(FileExistsError), open(path, "xb", opener=_open_owner_only) as file:
                with open(fresh, "rb") as whole:
                    shutil.copyfileobj(whole, file)
                file.flush()
                os.fsync(file.fileno())
    finally:
        for ending in ENDINGS:
            with contextlib.suppress(OSError):
                fresh.with_name(fresh.name + ending).unlink()
    sync_folder(path.parent)


def _open_owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, OWNER_ONLY)


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `JobStoreError` for a database of another program and for a damaged one; write nothing."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise JobStoreError(
            f"{path} is a database of another program, not a job store; it was left as it is", path=str(path)
        )
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, str(verdict))


def schema_of(connection: sqlite3.Connection, path: Path, known: int = len(MIGRATIONS)) -> int:
    """Return the schema that the file has now; raise `JobStoreError` for one of a newer version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > known:
        raise JobStoreError(
            f"the job store {path} has schema {version}, and this version of the package knows {known}",
            path=str(path),
            hint="Upgrade musicapi-async, or use another file.",
        )
    return int(version)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the schema up to date, all steps or none; refuse a file of a newer version.

    A file of the first schema was made readable for others, so its mode is set, too.
    """
    version = schema_of(connection, path, len(migrations))
    if version == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = schema_of(connection, path, len(migrations))
        for migration in migrations[version:]:
            migration(connection)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if version == 1:
        for ending in ENDINGS:
            with contextlib.suppress(OSError):  # there is no log, or the file is another user's
                path.with_name(path.name + ending).chmod(OWNER_ONLY)


def _execute(connection: sqlite3.Connection, script: str) -> None:
    """Execute statements within the transaction, which `executescript` would commit."""
    for statement in filter(str.strip, script.split(";")):
        connection.execute(statement)


def damaged(path: Path, what: str) -> JobStoreError:
    """The error of a file that is no whole store."""
    return JobStoreError(
        f"the job store {path} is damaged or no job store: {what}; it was left as it is",
        path=str(path),
        hint="Restore it from a copy. It says which tasks were paid for, so do not just start a new one.",
    )


def replaced(path: Path) -> JobStoreError:
    """The error of a file that is not the one that this store has opened before."""
    return JobStoreError(
        f"the job store {path} was removed or replaced while it was in use",
        path=str(path),
        hint=(
            "Put the file back. A new SQLiteStore(path) uses the file that is there now, or makes a new one, "
            "and pays again for job keys that the lost one held."
        ),
    )


def log_removed(path: Path, log: Path) -> JobStoreError:
    """The error of a store whose log was removed; what it held is in the file."""
    return JobStoreError(
        f"the log {log} of the job store was removed while it was in use; what it held was saved in {path}",
        path=str(path),
        hint="Call again, and leave the files beside the store where they are.",
    )


def is_busy(error: sqlite3.Error) -> bool:
    """Return True if another connection holds a lock, so that waiting may help."""
    return _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_read_only(error: sqlite3.Error) -> bool:
    """Return True if the file, or the log beside it, cannot be opened for writing."""
    return _primary_code(error) in READ_ONLY


def failed(path: Path, error: sqlite3.Error, waited: float) -> JobStoreError:
    """The error of the package for one of SQLite, after `waited` seconds."""
    match _primary_code(error):
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, str(error))
        case sqlite3.SQLITE_FULL:
            what, hint = "cannot be written: the disk is full", "Make room on the disk and call again."
        case code if code in READ_ONLY:
            what = f"cannot be opened for writing ({error})"
            hint = "Check the permissions of the file and of its folder, which must be writable, too."
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            what, hint = f"was locked by another program for {waited:.3g} s", "Close the other program."
        case sqlite3.SQLITE_IOERR:
            what = f"cannot be read or written ({error}, {error.sqlite_errorname})"
            hint = "Check the disk: is it full, is there a limit to file sizes?"
        case _ if isinstance(error, sqlite3.OperationalError) and "no such table" in str(error):
            return damaged(path, str(error))
        case _:
            what, hint = f"failed: {error}", ""
    return JobStoreError(f"the job store {path} {what}", path=str(path), hint=hint)


def _primary_code(error: sqlite3.Error) -> int:
    """The low byte of the extended code (sqlite.org/rescode.html); 0 for errors of the `sqlite3` module."""
    return error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else 0
