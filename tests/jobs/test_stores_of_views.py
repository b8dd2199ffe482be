"""Stores that views of one client have of their own: each costs once, and is let go when nothing has it."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
from open_files import open_files
from patience import until

from musicapi_async import MusicAPI, OutcomeUnknownError, Webhooks
from musicapi_async.errors import JobStoreError
from musicapi_async.jobs import Job, MemoryStore, SQLiteStore
from musicapi_async.polling import LearnedSchedule
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.webhooks import sign
from musicapi_async.workflows import run_batch

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
SECRET = "a secret of a test"
LONELY = "http://127.0.0.1:9/hooks"
"""Where nothing listens, so that only what a test delivers comes in."""


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A fast sandbox."""
    async with Sandbox(speed=400, longest=3) as sandbox:
        yield sandbox


def opened(sandbox: Sandbox, **options: Any) -> MusicAPI:
    """A client whose webhooks a test delivers."""
    return sandbox.client(rate_limit=None, webhooks=Webhooks(LONELY, SECRET), **options)


def completed(task_id: str) -> tuple[Mapping[str, str], bytes]:
    """Headers and body of a webhook about the end of a song."""
    clip = {"clip_id": "c", "state": "succeeded", "audio_url": "https://cdn.example/c.mp3"}
    raw = json.dumps(
        {"task_id": task_id, "event": "song.completed", "platform": "suno", "data": [clip]}
    ).encode()
    stamp = str(int(time.time()))
    return {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": sign(SECRET, stamp, raw)}, raw


def url_of(create: Any) -> str:
    """The URL that the create ordered its webhook to."""
    return create.body["webhook_url"]


class Counting(MemoryStore):
    """Counts the searches for the jobs of a task."""

    searches = 0

    async def find(self, family: str, task_id: str) -> list[Job]:
        self.searches += 1
        return await super().find(family, task_id)


class Failing(MemoryStore):
    """A store that cannot be read any more, as one whose folder was deleted."""

    fails = False

    async def get(self, key: str, *, account: str = "") -> Job | None:
        if self.fails:
            raise JobStoreError("the file is gone", path="jobs.sqlite")
        return await super().get(key, account=account)


class Slotted:
    """A store of the caller's own that takes no weak reference."""

    __slots__ = ("_rows", "closed")

    def __init__(self) -> None:
        self._rows = MemoryStore()
        self.closed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)

    async def aclose(self) -> None:
        self.closed += 1


async def test_store_may_take_no_weak_reference(sandbox: Sandbox) -> None:
    """It is used like any other, as the store of a client and of a view, and is closed with the client."""
    stores: tuple[Any, Any] = Slotted(), Slotted()
    async with opened(sandbox, store=stores[0]) as client:
        await (await client.sonic.create_music(**SONG)).wait()
        await (await client.with_options(store=stores[1], job_key="1").sonic.create_music(**SONG)).wait()
    for store in stores:
        assert [job.state for job in await store.jobs()] == ["finished"]
        assert store.closed == 1


async def test_views_of_one_store_cost_as_much_as_one(sandbox: Sandbox) -> None:
    """The end of a task searches each store once for each word of its family, however many views there were."""
    store = Counting()
    async with opened(sandbox) as client:
        tasks = [
            await client.with_options(store=store, job_key=f"{number}").sonic.create_music(**SONG)
            for number in range(20)
        ]
        await tasks[-1].wait()
        await client.jobs()  # when it returns, all ends are stored
        assert store.searches == 2
        job = await client.with_options(store=store).job("19")
    assert job is not None
    assert job.state == "finished"


async def test_store_that_fails_stops_no_webhook_of_another_one(sandbox: Sandbox) -> None:
    """The job of the key is in the client's own store: it is settled, and the wait ends."""
    store = Failing()
    async with opened(sandbox) as client:
        await client.with_options(store=store, job_key="other").sonic.create_music(**SONG)
        store.fails = True
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="lost").sonic.create_music(**SONG)
        lost = sandbox.journal.creates[-1]
        headers, raw = completed(lost.task_id)
        await client.webhooks.handle(headers, raw, url=url_of(lost))
        job = await client.job("lost")
        assert job is not None
        assert (job.state, job.task_id) == ("finished", lost.task_id)


async def test_webhook_of_a_job_that_a_failing_store_may_have_is_repeated(sandbox: Sandbox) -> None:
    """It is an error, so that the service repeats it; the job is settled once the store can be read."""
    store = Failing()
    async with opened(sandbox) as client:
        view = client.with_options(store=store, job_key="lost")
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError):
            await view.sonic.create_music(**SONG)
        (lost,) = sandbox.journal.creates
        headers, raw = completed(lost.task_id)
        store.fails = True
        with pytest.raises(JobStoreError):
            await client.webhooks.handle(headers, raw, url=url_of(lost))
        store.fails = False
        assert not (await client.webhooks.handle(headers, raw, url=url_of(lost))).is_duplicate
        job = await view.job("lost")
        assert job is not None
        assert (job.state, job.task_id) == ("finished", lost.task_id)


async def test_webhook_settles_a_job_whose_view_is_gone(sandbox: Sandbox) -> None:
    """The caller has the store, and no view of it any more."""
    store = MemoryStore()
    async with opened(sandbox) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(store=store, job_key="lost").sonic.create_music(**SONG)
        (lost,) = sandbox.journal.creates
        gc.collect()
        headers, raw = completed(lost.task_id)
        await client.webhooks.handle(headers, raw, url=url_of(lost))
        assert [job.task_id for job in await store.jobs()] == [lost.task_id]


async def test_store_that_nothing_has_is_closed_and_forgotten(sandbox: Sandbox, tmp_path: Path) -> None:
    """Later tasks open no file of it, and its folder may be deleted."""
    before = set(threading.enumerate())
    async with opened(sandbox) as client:
        path = tmp_path / "one" / "jobs.sqlite"
        task = await client.with_options(store=SQLiteStore(path), job_key="k").sonic.create_music(**SONG)
        await task.wait()
        await client.jobs()  # when it returns, all ends are stored
        del task
        gc.collect()
        await until(lambda: not stores(before))
        await until(lambda: [file.name for file in path.parent.iterdir()] == ["jobs.sqlite"])
        shutil.rmtree(path.parent)
        await (await client.sonic.create_music(**SONG)).wait()
        await client.jobs()
        assert not stores(before)


async def test_client_that_is_entered_later_keeps_the_store_open(sandbox: Sandbox, tmp_path: Path) -> None:
    """Until that client is closed, be it another one or the same: its idle uses do not open the file again."""
    path = tmp_path / "jobs.sqlite"
    store = SQLiteStore(path)
    one, other = opened(sandbox, store=store), opened(sandbox, store=store)
    for client in (one, other, one):
        async with client:
            await client.jobs()
            assert str(path) in open_files()
        assert str(path) not in open_files()
        await store.jobs()
        assert str(path) not in open_files()


@pytest.mark.parametrize("how", ["learning", "own polling", "view"])
async def test_store_that_was_closed_before_is_opened_once(
    sandbox: Sandbox, tmp_path: Path, how: str
) -> None:
    """Whoever uses it then: opening checks the whole file, and a create has four uses of it."""
    path = tmp_path / "jobs.sqlite"
    store = SQLiteStore(path)
    await store.jobs()
    await store.aclose()
    polling = LearnedSchedule() if how == "own polling" else None
    async with opened(sandbox, store=None if how == "view" else store, polling=polling) as client:
        view = client.with_options(store=store) if how == "view" else client
        for _ in range(3):
            await view.sonic.create_music(**SONG)
            assert str(path) in open_files()
    assert str(path) not in open_files()


async def test_last_client_that_has_a_store_closes_it(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whichever was entered first: the other one uses it on, and does not open the file for each use."""
    path = tmp_path / "jobs.sqlite"
    store = SQLiteStore(path)
    one, other = opened(sandbox, store=store), opened(sandbox)
    view = other.with_options(store=store)
    for first, last in ((one, other), (other, one)):
        async with one, other:
            await view.sonic.create_music(**SONG)
            await first.aclose()
            assert str(path) in open_files()
            await last.aclose()
            assert str(path) not in open_files()


async def test_client_that_comes_while_another_one_closes_has_the_store_open(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """It came before the store was closed, so it is the last one; of two that close at once, one closes it."""
    path = tmp_path / "jobs.sqlite"
    store = SQLiteStore(path)
    leaving, coming = opened(sandbox, store=store), opened(sandbox, store=store)
    async with leaving:
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(200))
        create = asyncio.ensure_future(leaving.sonic.create_music(**SONG))
        await until(lambda: sandbox.journal.creates)
        closing = asyncio.ensure_future(leaving.aclose())
        await asyncio.sleep(0)
        async with coming:
            await closing
            assert str(path) in open_files()
            await coming.sonic.create_music(**SONG)
            assert str(path) in open_files()
            assert (await create).task_id
            async with leaving:
                await asyncio.gather(leaving.aclose(), coming.aclose())
                assert str(path) not in open_files()


async def test_last_loop_of_a_client_closes_its_store(sandbox: Sandbox, tmp_path: Path) -> None:
    """A loop of another thread that ends before leaves it open, as it is in use."""
    path = tmp_path / "jobs.sqlite"

    async def elsewhere() -> None:
        await client.jobs()
        await client.aclose()

    async with opened(sandbox, store=SQLiteStore(path)) as client:
        await client.jobs()
        await asyncio.to_thread(asyncio.run, elsewhere())
        assert str(path) in open_files()
    assert str(path) not in open_files()


async def test_store_that_only_one_loop_has_used_is_closed_with_it(sandbox: Sandbox, tmp_path: Path) -> None:
    """No other loop knows it, so none closes it later."""
    path = tmp_path / "jobs.sqlite"
    store = SQLiteStore(path)

    async def elsewhere() -> None:
        await client.with_options(store=store).sonic.create_music(**SONG)
        assert str(path) in open_files()
        await client.aclose()

    async with opened(sandbox) as client:
        await client.credits()
        await asyncio.to_thread(asyncio.run, elsewhere())
        assert str(path) not in open_files()


async def test_webhooks_arrive_after_the_folder_of_a_batch_was_deleted(
    sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The client that ran it remembers nothing of the folder: webhooks and tasks are handled without a word."""
    manifest = tmp_path / "songs.jsonl"
    manifest.write_text(json.dumps({"id": "s", **SONG, "webhook_url": ""}))
    before = set(threading.enumerate())
    async with opened(sandbox) as client:
        result = await run_batch(client, manifest, out=tmp_path / "out", waveforms=False)
        assert result.done == 1
        gc.collect()
        shutil.rmtree(tmp_path / "out")
        task = await client.sonic.create_music(**SONG)
        headers, raw = completed(task.task_id)
        event = await client.webhooks.handle(headers, raw, url=url_of(sandbox.journal.creates[-1]))
        assert event.job_key
        assert await task.wait() is event.result
        await client.jobs()  # when it returns, all ends are stored
        assert not stores(before)
    assert "could not be stored" not in caplog.text


def stores(before: set[threading.Thread]) -> list[threading.Thread]:
    """The threads of stores that were not there before."""
    new = set(threading.enumerate()) - before
    return [thread for thread in new if thread.name.startswith("musicapi-store")]
