"""The option `deadline` holds whatever the job store does, for calls and for questions about jobs."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from musicapi_async import JobStoreError, MusicAPI, RequestTimeoutError
from musicapi_async.jobs import Job, JobState, MemoryStore, SQLiteStore, Transition
from musicapi_async.jobs.job import new_key
from musicapi_async.sandbox import Sandbox

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


class LockedStore(MemoryStore):
    """A store that does not answer while it is locked."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        await self.open.wait()
        return await super().change(key, transition, account=account, durable=durable)

    async def get(self, key: str, *, account: str = "") -> Job | None:
        await self.open.wait()
        return await super().get(key, account=account)

    async def find(self, family: str, task_id: str) -> list[Job]:
        await self.open.wait()
        return await super().find(family, task_id)

    async def jobs(self, *states: JobState) -> list[Job]:
        await self.open.wait()
        return await super().jobs(*states)


ASKED: dict[str, Callable[[MusicAPI], Awaitable[object]]] = {
    "jobs": lambda client: client.jobs(),
    "job": lambda client: client.job("k"),
    "resolve": lambda client: client.resolve("k", task_id="T"),
    "resubmit": lambda client: client.resubmit("k"),
    "is_known": lambda client: client.task("sonic", "T").is_known(),
    "made-up key": lambda client: client.with_options(job_key=new_key()).sonic.create_music(**SONG),
}


@pytest.mark.parametrize("asked", ASKED)
async def test_question_about_jobs_ends_at_the_deadline(asked: str) -> None:
    """Also behind writes that are under way, and nothing is sent; without the lock it is answered."""
    store = LockedStore()
    async with Sandbox() as sandbox, sandbox.client(rate_limit=None, store=store) as client:
        view = client.with_options(deadline=5)
        store.open.clear()
        with pytest.raises(RequestTimeoutError):
            await client.with_options(job_key="k", deadline=1).sonic.create_music(**SONG)
        began = client.clock.now()
        with pytest.raises(JobStoreError, match="within the deadline of 5 s"):
            await ASKED[asked](view)
        assert client.clock.now() - began == pytest.approx(5, abs=0.1)
        store.open.set()
        assert await view.jobs() == []
        assert len(sandbox.journal) == 0


async def test_error_of_a_deadline_does_not_wait_for_a_locked_store() -> None:
    """It comes with the deadline, in real seconds; the key is free once the lock is gone."""
    store = LockedStore()
    async with Sandbox() as sandbox, sandbox.client(rate_limit=None, store=store) as client:
        store.open.clear()
        began = client.clock.now()
        with pytest.raises(RequestTimeoutError) as caught:
            await client.with_options(job_key="k", deadline=1).sonic.create_music(**SONG)
        assert client.clock.now() - began < 1.2
        assert caught.value.not_charged
        store.open.set()
        await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert len(sandbox.journal.creates) == 1


class ImpatientStore(SQLiteStore):
    """A store that gives up soon."""

    busy_timeout: ClassVar[float] = 0.2


async def test_store_that_fails_after_its_caller_left_is_reported_by_no_one_else(tmp_path: Path) -> None:
    """asyncio prints no "Future exception was never retrieved" when a cancelled caller's store fails later."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    path = tmp_path / "jobs.sqlite"
    store = ImpatientStore(path)
    assert await store.jobs() == []
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        asked: Sequence[asyncio.Task[int]] = [asyncio.create_task(store.purge(0.0)) for _ in range(3)]
        await asyncio.sleep(0)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        with pytest.raises(JobStoreError, match="locked"):
            await store.purge(0.0)
    finally:
        other.execute("ROLLBACK")
        other.close()
    await store.aclose()
    del asked, one
    gc.collect()
    assert reports == []
