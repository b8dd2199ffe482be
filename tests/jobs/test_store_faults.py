"""Faults of a job store under a running client: nothing is paid twice, and the error says what happened."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from patience import until

from musicapi_async import Clock, MusicAPI, Task, TaskRef
from musicapi_async._wire.prepare import PreparedRequest
from musicapi_async.errors import JobStoreError, OutcomeUnknownError, RequestValidationError
from musicapi_async.jobs import (
    Job,
    JobRequest,
    MemoryStore,
    Owner,
    SQLiteStore,
    Transition,
    reservation,
    transitions,
)
from musicapi_async.jobs.owner import this_process
from musicapi_async.jobs.recorder import JobRecorder
from musicapi_async.sandbox import Fault, Sandbox

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
REQUEST = JobRequest("POST /sonic/create", "http://host", '{"title":"a"}', "sonic", "create_music")


@pytest.fixture
def anyio_backend() -> str:
    """Real time: SQLite waits in it for a lock."""
    return "asyncio"


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A fast sandbox."""
    async with Sandbox(speed=400) as sandbox:
        yield sandbox


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a store."""
    return tmp_path / "jobs.sqlite"


LOST = "removed or replaced|the file is empty"  # a new empty file may get the old one's inode number


# --- a file that is gone ----------------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def remove_with_log(path: Path) -> None:
    for file in path.parent.glob("jobs.sqlite*"):
        file.unlink()


def replace_by_new_store(path: Path) -> None:
    remove_with_log(path)
    thread = threading.Thread(target=asyncio.run, args=(make(path),))
    thread.start()
    thread.join()


async def make(path: Path) -> None:
    """An empty store."""
    store = SQLiteStore(path)
    await store.jobs()
    await store.aclose()


def replace_by_copy(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    remove_with_log(path)
    path.with_name("copy").rename(path)


def replace_by_nothing(path: Path) -> None:
    remove_with_log(path)
    path.touch()


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize(
    "harm", [remove, remove_with_log, replace_by_new_store, replace_by_copy, replace_by_nothing]
)
async def test_lost_file_refuses_until_a_new_store_is_made(
    sandbox: Sandbox, path: Path, harm: Callable[[Path], None], is_closed: bool
) -> None:
    """A store whose file was removed or replaced sends nothing for any key, however often it is asked."""
    store = SQLiteStore(path)
    async with sandbox.client(store=store, rate_limit=None) as client:
        await client.with_options(job_key="0").sonic.create_music(**SONG)
        if is_closed:
            await store.aclose()
        harm(path)
        for key in map(str, range(10)):
            with pytest.raises(JobStoreError, match=LOST):
                await client.with_options(job_key=key).sonic.create_music(**SONG)
        with pytest.raises(JobStoreError, match=LOST):
            await client.jobs()
    assert len(sandbox.journal.creates) == 1


async def test_new_store_takes_what_is_there_on_purpose(sandbox: Sandbox, path: Path) -> None:
    """After the file was lost, a new `SQLiteStore` makes a new one."""
    async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
        await client.with_options(job_key="a").sonic.create_music(**SONG)
        remove_with_log(path)
        fresh = client.with_options(job_key="a", store=SQLiteStore(path))
        await fresh.sonic.create_music(**SONG)
        assert [job.key for job in await fresh.jobs()] == ["a"]
    assert len(sandbox.journal.creates) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is open")
@pytest.mark.parametrize("endings", [["-wal"], ["-wal", "-shm"]])
async def test_removed_log_is_saved_before_anything_is_sent(
    sandbox: Sandbox, path: Path, endings: list[str]
) -> None:
    """What was written last is in the log alone. One call is refused, and every process knows the jobs."""
    async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
        await client.with_options(job_key="a").sonic.create_music(**SONG)
        for ending in endings:
            path.with_name(path.name + ending).unlink()
        with pytest.raises(JobStoreError, match="was removed while it was in use"):
            await client.with_options(job_key="b").sonic.create_music(**SONG)
        assert len(sandbox.journal.creates) == 1
        for store in (client.store, SQLiteStore(path)):
            view = client.with_options(store=store)
            for key in "ab":
                await view.with_options(job_key=key).sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is open")
async def test_log_that_another_process_has_begun_ends_the_store(sandbox: Sandbox, path: Path) -> None:
    """What was in the old one cannot be saved any more, so nothing is sent until a new store is made."""
    async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
        await client.with_options(job_key="a").sonic.create_music(**SONG)
        log = path.with_name(f"{path.name}-wal")
        log.unlink()
        log.touch()
        for key in "abc":
            with pytest.raises(JobStoreError, match=LOST):
                await client.with_options(job_key=key).sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 1


# --- one damaged row --------------------------------------------------------------------------------------


async def test_damaged_row_is_listed_and_hides_no_other(sandbox: Sandbox, path: Path) -> None:
    """It is reported with its key and its task; the rest is read, and its own key sends nothing."""
    async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
        tasks = [await client.with_options(job_key=key).sonic.create_music(**SONG) for key in "abc"]
        damage(path, "b")
        jobs = {job.key: job for job in await client.jobs()}
        assert {key: job.is_readable for key, job in jobs.items()} == {"a": True, "b": False, "c": True}
        assert (jobs["b"].state, jobs["b"].task_id) == ("accepted", tasks[1].task_id)
        assert "cannot be read" in jobs["b"].why
        assert len(await client.jobs("accepted")) == 3
        assert await client.jobs("ambiguous") == []
        for call in (
            client.with_options(job_key="b").sonic.create_music(**SONG),
            client.job("b"),
            client.resubmit("b"),
        ):
            with pytest.raises(JobStoreError, match=f"job 'b', which made task {tasks[1].task_id}"):
                await call
        await client.with_options(job_key="d").sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 4


async def test_damaged_row_holds_up_no_other_call(sandbox: Sandbox, path: Path) -> None:
    """The end of a task whose row was damaged meanwhile cannot be noted; every other call goes its way."""
    async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
        task = await client.with_options(job_key="a").sonic.create_music(**SONG)
        damage(path, "a")
        await task.wait()
        other = await client.with_options(job_key="b").sonic.create_music(**SONG)
        await other.wait()
        assert {job.key: job.state for job in await client.jobs()} == {"a": "accepted", "b": "finished"}


def damage(path: Path, key: str) -> None:
    """Cut the record of a job."""
    with sqlite3.connect(path) as connection:
        changed = connection.execute("UPDATE jobs SET record = substr(record, 1, 40) WHERE key = ?", (key,))
        assert changed.rowcount == 1
    connection.close()


# --- another version, another user ------------------------------------------------------------------------


async def test_newer_schema_under_an_open_store_is_refused(sandbox: Sandbox, path: Path) -> None:
    """Another process with a newer version has changed the file: nothing is read, written or sent."""
    async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
        await client.with_options(job_key="a").sonic.create_music(**SONG)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        for call in (
            client.jobs(),
            client.job("a"),
            client.with_options(job_key="b").sonic.create_music(**SONG),
        ):
            with pytest.raises(JobStoreError, match=r"schema 99.*Upgrade musicapi-async"):
                await call
    assert len(sandbox.journal.creates) == 1


async def test_files_are_readable_by_their_owner_only(path: Path) -> None:
    """The file, its log and its shared memory, whatever the umask is."""
    before = os.umask(0)
    try:
        store = SQLiteStore(path)
        await store.jobs()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await store.aclose()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"), 0o600)


# --- a sender that cannot be seen -------------------------------------------------------------------------


def sent_by(owner: Owner) -> Transition:
    """A job as it is while its owner sends it."""

    def step(job: Job | None) -> Job | None:
        assert job is not None
        return msgspec.structs.replace(job, state="sent", owner=owner, tasks=(), reply="")

    return step


async def test_sender_in_another_namespace_is_not_taken_for_dead(sandbox: Sandbox, path: Path) -> None:
    """A container of the same name may live: its job is not ambiguous, `resubmit` refuses, nothing is sent."""
    here, store = this_process(""), SQLiteStore(path)
    elsewhere = msgspec.structs.replace(here, pid=2**22 + 1, started="1", namespace="pid:[1]")
    async with sandbox.client(store=store, rate_limit=None) as client:
        keyed = client.with_options(job_key="k")
        await keyed.sonic.create_music(**SONG)
        await store.change("k", sent_by(elsewhere))
        assert [job.state for job in await client.jobs()] == ["sent"]
        with pytest.raises(JobStoreError, match=r"in another container.*client\.resolve\('k'"):
            await keyed.sonic.create_music(**SONG)
        with pytest.raises(RequestValidationError, match="only an ambiguous or failed job"):
            await client.resubmit("k")
        await store.change("k", sent_by(msgspec.structs.replace(elsewhere, namespace=here.namespace)))
        assert [job.state for job in await client.jobs()] == ["ambiguous"]
    assert len(sandbox.journal.creates) == 1


# --- a file that another program locks --------------------------------------------------------------------


class Impatient(SQLiteStore):
    """A store that waits for a lock for half a second only."""

    busy_timeout = 0.5


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Lock the file as another program may."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


async def test_abandoned_changes_are_carried_out_in_order(path: Path) -> None:
    """Callers give up while the file is locked: what they began happens afterwards, one after the other."""
    store = SQLiteStore(path)
    owner = this_process("me")
    steps = (
        reservation.reserve("k", REQUEST, owner, lambda _owner: True, 1.0),
        transitions.sending(owner, 2.0),
        transitions.unknown(owner, "lost", None, 3.0),
    )
    await store.jobs()
    with locked(path):
        for step in steps:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await store.change("k", step, durable=True)
    job = await store.get("k")
    assert job is not None
    assert (job.state, job.why) == ("ambiguous", "lost")
    await store.aclose()


async def test_locked_file_blocks_no_loop_and_all_waits_end_together(path: Path) -> None:
    """While changes wait for the lock, the loop runs, and the time of one is the time of all."""
    store = Impatient(path)
    await store.jobs()
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.005)
            beats += 1

    beating = asyncio.ensure_future(beat())
    with locked(path):
        begun = time.monotonic()
        errors = await asyncio.gather(
            *(store.change(str(n), lambda job: job, durable=True) for n in range(8)), return_exceptions=True
        )
        waited = time.monotonic() - begun
    beating.cancel()
    assert all(
        isinstance(error, JobStoreError) and "locked by another program" in str(error) for error in errors
    )
    assert waited < 4 * Impatient.busy_timeout  # and not eight times
    assert beats > 20
    await store.aclose()


async def test_locked_file_holds_up_closing_for_seconds_only(path: Path) -> None:
    """Whatever was begun, closing ends soon, and later use opens the file again."""
    store = SQLiteStore(path)
    await store.jobs()
    with locked(path):
        begun = [asyncio.ensure_future(store.change(str(n), lambda job: job)) for n in range(8)]
        await asyncio.sleep(0)
        started = time.monotonic()
        await store.aclose()
        assert time.monotonic() - started < 5
        assert {type(error) for error in await asyncio.gather(*begun, return_exceptions=True)} == {
            JobStoreError
        }
    assert await store.jobs() == []
    await store.aclose()


class Failing(MemoryStore):
    """A store that can be out of order, for all keys or for one."""

    is_broken = False
    broken_key = ""
    failures = 0

    async def change(
        self, key: str, step: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        if self.is_broken or key == self.broken_key:
            self.failures += 1
            raise JobStoreError("the disk is full")
        return await super().change(key, step, account=account, durable=durable)


async def unstored(sandbox: Sandbox, client: MusicAPI, store: Failing, key: str) -> Task[Any]:
    """A task that could not be stored, as the store is out of order since the request was sent."""
    before = len(sandbox.journal.creates)
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(5))
    create = asyncio.ensure_future(client.with_options(job_key=key).sonic.create_music(**SONG))
    await until(lambda: len(sandbox.journal.creates) > before)
    store.is_broken = True
    task = await create
    job = await store.get(key)
    assert job is not None
    assert job.state == "sent"
    return task


async def test_note_that_failed_is_written_in_the_background(sandbox: Sandbox) -> None:
    """A task that could not be stored is stored as soon as the store works again, without another call."""
    store = Failing()
    async with sandbox.client(store=store, rate_limit=None) as client:
        for key in "kl":
            task = await unstored(sandbox, client, store, key)
            failures = store.failures
            await until(lambda failures=failures: store.failures >= failures + 2)  # tries that fail, too
            store.is_broken = False

            async def is_stored(key: str = key, task: Task[Any] = task) -> bool:
                job = await store.get(key)
                return job is not None and job.task_id == task.task_id

            await until(is_stored)


async def test_note_that_failed_is_written_before_another_call_with_its_key(sandbox: Sandbox) -> None:
    """It gets the task."""
    store = Failing()
    async with sandbox.client(store=store, rate_limit=None) as client:
        task = await unstored(sandbox, client, store, "k")
        store.is_broken = False
        assert await client.with_options(job_key="k").sonic.create_music(**SONG) == task
    assert len(sandbox.journal.creates) == 1


async def test_note_that_failed_is_written_when_its_client_closes(sandbox: Sandbox) -> None:
    """The next process finds the task."""
    store = Failing()
    async with sandbox.client(store=store, rate_limit=None) as client:
        task = await unstored(sandbox, client, store, "k")
        store.is_broken = False
    assert [job.task_id for job in await store.jobs()] == [task.task_id]


async def test_note_that_failed_holds_up_no_other_key(sandbox: Sandbox) -> None:
    """Only the row of one key cannot be written."""
    store = Failing()
    async with sandbox.client(store=store, rate_limit=None) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(5))
        create = asyncio.ensure_future(client.with_options(job_key="k").sonic.create_music(**SONG))
        await until(lambda: sandbox.journal.creates)
        store.broken_key = "k"
        await create
        other = await client.with_options(job_key="other").sonic.create_music(**SONG)
        assert await client.with_options(job_key="other").sonic.create_music(**SONG) == other
        with pytest.raises(JobStoreError):
            await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert {job.key: job.state for job in await client.jobs()} == {"k": "sent", "other": "accepted"}
    assert len(sandbox.journal.creates) == 2


class HeldNotes(MemoryStore):
    """A store whose notes about calls that were sent wait until the test lets each of them go on."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, list[asyncio.Future[bool]]] = {"unknown": [], "accepted": []}
        self.changes: Counter[str] = Counter()

    async def change(
        self, key: str, step: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        name = step.__qualname__.partition(".")[0]
        self.changes[name] += 1
        if (held := self.held.get(name)) is not None:
            held.append(asyncio.get_running_loop().create_future())
            if not await held[-1]:
                raise JobStoreError("the disk is full")
        return await super().change(key, step, account=account, durable=durable)


async def test_note_that_two_calls_wrote_at_once_displaces_no_later_one(sandbox: Sandbox) -> None:
    """A task that could not be stored is stored later, though an earlier note of its job ended only now."""
    store = HeldNotes()
    unknown, accepted = store.held["unknown"], store.held["accepted"]
    async with sandbox.client(store=store, rate_limit=None) as client:
        view = client.with_options(job_key="k")
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError):
            await view.sonic.create_music(**SONG)
        second = asyncio.ensure_future(view.sonic.create_music(**SONG))
        await until(lambda: len(unknown) == 2)  # both calls write the note
        unknown[0].set_result(True)
        resubmitted = asyncio.ensure_future(client.resubmit("k"))
        await until(lambda: accepted)
        unknown[1].set_result(True)
        await until(lambda: store.changes["reserve"] >= 2)  # the second call is behind it
        store.held.clear()
        accepted[0].set_result(False)
        task = await resubmitted
        await asyncio.wait({second})
    job = await store.get("k")
    assert job is not None
    assert (job.state, job.task_id) == ("accepted", task.task_id)
    # The second call found the job before or after its task was stored, which differs between Pythons.
    assert isinstance(second.exception(), OutcomeUnknownError) or second.result().task_id == task.task_id
    assert len(sandbox.journal.creates) == 2


async def test_free_call_with_a_key_has_its_answer_stored(sandbox: Sandbox) -> None:
    """Its attempts are not noted, as it may be repeated; the same key gives its answer."""
    store = MemoryStore()
    async with sandbox.client(store=store, rate_limit=None) as client:
        clips = await (await client.sonic.create_music(**SONG)).wait()
        keyed = client.with_options(job_key="k")
        first = await keyed.sonic.aligned_lyrics(clips[0].clip_id)
        assert (await keyed.sonic.aligned_lyrics(clips[0].clip_id)).raw == first.raw
        job = await client.job("k")
        assert job is not None
        assert job.state == "finished"
    assert len(sandbox.journal.requests("/sonic/aligned-lyrics", "POST")) == 1


class FailsOnce(MemoryStore):
    """A store that fails to note the second attempt of a call."""

    attempts = 0

    async def change(
        self, key: str, step: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        self.attempts += durable
        if durable and self.attempts == 2:
            raise JobStoreError("the disk is full")
        return await super().change(key, step, account=account, durable=durable)


async def test_attempt_that_cannot_be_noted_is_not_sent(sandbox: Sandbox) -> None:
    """The first one was refused for the rate, so nothing was charged; the error is that of the store."""
    store = FailsOnce()
    sandbox.faults.on("POST", "/sonic/create", Fault.status(429))
    async with sandbox.client(store=store, rate_limit=None) as client:
        with pytest.raises(JobStoreError, match="Nothing was charged"):
            await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert await client.jobs() == []
    assert [entry.status for entry in sandbox.journal.creates] == [429]


async def test_end_that_could_not_be_stored_is_stored_by_a_later_poll(sandbox: Sandbox) -> None:
    """Until then the job counts as one whose task still runs."""
    store = Failing()
    async with sandbox.client(store=store, rate_limit=None) as client:
        task = await client.with_options(job_key="k").sonic.create_music(**SONG)
        store.is_broken = True
        await task.wait()
        await until(lambda: store.failures)
        store.is_broken = False
        assert [job.state for job in await client.jobs()] == ["accepted"]
        await client.task(task.token).wait()
        assert [job.state for job in await client.jobs()] == ["finished"]


async def test_later_note_of_the_same_key_does_not_displace_an_earlier_one() -> None:
    """The task of the call that was sent is stored although another call with its key gave up meanwhile."""
    failing = Failing()
    recorder = JobRecorder(failing, Clock(), "http://host")
    create = PreparedRequest(
        method="POST", path="/sonic/create", call=REQUEST.call, kind="create", lane="submit", body=b"{}"
    )
    first, second = (recorder.record("k", create) for _ in range(2))
    assert first is not None
    assert second is not None
    await first.reserve()
    await first.sending()
    waiting = asyncio.ensure_future(second.reserve())
    await asyncio.sleep(0)
    waiting.cancel()
    failing.is_broken = True
    await first.accepted(TaskRef("sonic", "task", "create_music"), {})
    await second.released()
    failing.is_broken = False
    (job,) = await recorder.jobs()
    assert (job.state, job.task_id) == ("accepted", "task")
    await recorder.aclose()
