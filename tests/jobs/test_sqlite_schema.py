"""The file of a SQLite store: made whole, checked, brought up to date, and never guessed at."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from musicapi_async.errors import JobKeyConflictError, JobStoreError, OutcomeUnknownError
from musicapi_async.jobs import JobRequest, Owner, SQLiteStore, Transition, reservation
from musicapi_async.jobs.owner import this_process
from musicapi_async.jobs.sqlite_schema import APPLICATION_ID, MIGRATIONS, make, migrate
from musicapi_async.sandbox import Sandbox

REQUEST = JobRequest("POST /sonic/create", "http://host", '{"title":"a"}', "sonic", "create_music")


def reserve(key: str = "a") -> Transition:
    return reservation.reserve(key, REQUEST, Owner("host", "boot", 1, "1"), lambda _owner: True, 1.0)


# --- files that are no whole store ------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "scrambled"])
async def test_damaged_file_is_reported_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    """A file that is no whole store raises an error that names it, and is not touched."""
    path = tmp_path / "jobs.sqlite"
    store = SQLiteStore(path)
    for index in range(300):
        await store.change(f"key-{index}", reserve(f"key-{index}"))
    await store.aclose()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "text": b"this is no database at all, whatever its name says\n" * 100,
            "cut": whole[: len(whole) // 2 - 100],
            "scrambled": whole[:4096] + bytes(len(whole) - 4096),
        }[damage]
    )
    before = path.read_bytes()
    with pytest.raises(JobStoreError, match="damaged") as caught:
        await store.jobs()
    assert str(path) in str(caught.value)
    assert caught.value.path == str(path)
    with pytest.raises(JobStoreError):
        await store.change("new", reserve("new"), durable=True)
    assert path.read_bytes() == before
    await store.aclose()


async def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """A valid SQLite file that is not ours is neither read nor written."""
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    before = path.read_bytes()
    store = SQLiteStore(path)
    with pytest.raises(JobStoreError, match="another program"):
        await store.get("a")
    assert path.read_bytes() == before
    await store.aclose()


async def test_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file that a newer version made is not guessed at."""
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    store = SQLiteStore(path)
    with pytest.raises(JobStoreError, match="schema 99"):
        await store.jobs()
    await store.aclose()


async def test_new_file_opens_beside_a_process_that_reads_it(tmp_path: Path) -> None:
    """Two processes may begin at the same instant: neither needs the file for itself to open it."""
    path = tmp_path / "jobs.sqlite"
    make(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM jobs").fetchall()
    store = SQLiteStore(path)
    try:
        assert await store.jobs() == []
    finally:
        other.close()
        await store.aclose()
    assert os.listdir(tmp_path) == ["jobs.sqlite"]


# --- migrations -------------------------------------------------------------------------------------------


def add_note(connection: sqlite3.Connection) -> None:
    """A schema after ours."""
    connection.execute("ALTER TABLE jobs ADD COLUMN note TEXT")
    connection.execute("UPDATE jobs SET note = 'stored'")


def fail(connection: sqlite3.Connection) -> None:
    """A migration that breaks in the middle."""
    connection.execute("CREATE TABLE extra (x)")
    connection.execute("THIS IS NOT SQL")


async def test_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """The next step of the schema is applied once, and every row stays."""
    path = tmp_path / "jobs.sqlite"
    store = SQLiteStore(path)
    await store.change("a", reserve())
    await store.aclose()
    later = (*MIGRATIONS, add_note)
    with sqlite3.connect(path, isolation_level=None) as connection:
        migrate(connection, path, later)
        migrate(connection, path, later)
        assert connection.execute("SELECT key, note FROM jobs").fetchall() == [("a", "stored")]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(later),)
    connection.close()


def test_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """All steps of a migration or none."""
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path, isolation_level=None) as connection:
        with pytest.raises(sqlite3.Error):
            migrate(connection, path, (*MIGRATIONS, fail))
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()


# --- the first schema, as the version before wrote it -----------------------------------------------------

FIRST_SCHEMA = """
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
"""
SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
SENT_BODY = (
    '{"custom_mode":false,"gpt_description_prompt":"calm rain","mv":"sonic-v6",'
    '"task_type":"create_music","use_suno_cdn":false}'
)


def record(key: str, base_url: str, task_id: str = "", **changes: Any) -> dict[str, Any]:
    """A record with all fields of the first schema."""
    ref = {"family": "sonic", "task_id": task_id, "kind": "create_music", "submitted_at": 5.5}
    return {
        "key": key,
        "state": "accepted",
        "request": {
            "call": "POST /sonic/create",
            "base_url": base_url,
            "body": SENT_BODY,
            "family": "sonic",
            "kind": "create_music",
            "hidden": [],
        },
        "created_at": 5.0,
        "updated_at": 6.0,
        "holder": None,
        "task": {**ref, "model": "sonic-v6", "own": False, "format": ""} if task_id else None,
        "reply": f'{{"task_id":"{task_id}"}}' if task_id else "",
        "outcome": "",
        "refunded": None,
        "why": "",
        "balance_before": None,
        "balance_after": None,
        "attempts": 1,
        "earlier": None,
        "others": [],
        "by_webhook": False,
        "disputed": [],
        **changes,
    }


def write_first_schema(path: Path, *records: dict[str, Any]) -> None:
    """A file of the version before, with a row that is damaged, readable for everybody."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.executescript(FIRST_SCHEMA)
    connection.execute("PRAGMA user_version = 1")
    for one in records:
        task = one["task"] or {"family": None, "task_id": None}
        connection.execute(
            "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?)",
            (
                one["key"],
                one["state"],
                task["family"],
                task["task_id"],
                one["created_at"],
                msgspec.json.encode(one).decode(),
            ),
        )
    connection.execute("INSERT INTO job VALUES ('cut', 'accepted', 'sonic', 'task-cut', 9.0, '{\"key\":')")
    connection.commit()
    connection.close()
    path.chmod(0o644)


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A fast sandbox."""
    async with Sandbox(speed=400) as sandbox:
        yield sandbox


async def test_file_of_the_version_before_is_read(sandbox: Sandbox, tmp_path: Path) -> None:
    """Every row comes along: states, tasks, outcomes, previous sends; its keys hold, for any account."""
    path, url = tmp_path / "jobs.sqlite", sandbox.base_url
    ended = {"host": "h", "boot": "b", "pid": 1, "started": "1", "nonce": "n"}
    here = this_process("")
    dead = {"host": here.host, "boot": here.boot, "pid": 2**22 + 1, "started": "1", "nonce": "n"}
    write_first_schema(
        path,
        record("accepted", url, "task-1", by_webhook=True),
        record("finished", url, "task-2", state="finished", outcome="succeeded"),
        record("failed", url, "task-3", state="failed", outcome="failed", refunded=True, why="no voice"),
        record("ambiguous", url, state="ambiguous", why="the connection dropped"),
        record("sent", url, state="sent", holder=dead),
        record("elsewhere", url, state="reserved", holder=ended),
        record("twice", url, "task-5", attempts=2, earlier=record("twice", url, "task-4", state="failed")),
    )
    async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
        jobs = {job.key: job for job in await client.jobs()}
        assert {key: (job.state, job.task_id) for key, job in jobs.items()} == {
            "accepted": ("accepted", "task-1"),
            "finished": ("finished", "task-2"),
            "failed": ("failed", "task-3"),
            "ambiguous": ("ambiguous", None),
            "sent": ("ambiguous", None),
            "elsewhere": ("reserved", None),
            "twice": ("accepted", "task-5"),
            "cut": ("accepted", "task-cut"),
        }
        assert jobs["accepted"].tasks[0].by_webhook
        (item,) = jobs["failed"].tasks
        assert (item.outcome, item.refunded, item.error) == ("failed", True, "no voice")
        assert jobs["elsewhere"].owner == Owner("h", "b", 1, "1", "n")
        previous = jobs["twice"].previous
        assert previous is not None
        assert (previous.state, previous.task_id) == ("failed", "task-4")
        assert [key for key, job in jobs.items() if not job.is_readable] == ["cut"]
        for key in ("accepted", "finished", "failed", "twice"):
            task = await client.with_options(job_key=key).sonic.create_music(**SONG)
            assert task.task_id == jobs[key].task_id
            assert task.raw == {"task_id": task.task_id}
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="ambiguous").sonic.create_music(**SONG)
        with pytest.raises(JobKeyConflictError, match="title: nothing before"):
            await client.with_options(job_key="finished").sonic.create_music(**SONG, title="Other")
    assert not sandbox.journal.creates
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_migration_removes_the_table_that_the_version_before_writes(tmp_path: Path) -> None:
    """A process of the version before that has the file open fails, rather than write what nobody reads."""
    path = tmp_path / "jobs.sqlite"
    write_first_schema(path)
    before = sqlite3.connect(path)
    assert before.execute("SELECT count(*) FROM job").fetchone() == (1,)
    store = SQLiteStore(path)
    await store.jobs()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        before.execute("SELECT count(*) FROM job")
    before.close()
    await store.aclose()
