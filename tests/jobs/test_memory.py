"""The store of a client that was given none: it does not grow for ever, and forgets nothing that matters."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from musicapi_async import Clock, JobKeyConflictError, Webhooks
from musicapi_async._wire.prepare import PreparedRequest
from musicapi_async.api.results import TaskUpdate
from musicapi_async.api.task import TaskRef
from musicapi_async.jobs import MemoryStore
from musicapi_async.jobs.job import new_key
from musicapi_async.jobs.memory import REMEMBERED_JOBS
from musicapi_async.jobs.recorder import JobRecorder
from musicapi_async.sandbox import Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

CREATE = PreparedRequest(
    method="POST",
    path="/sonic/create",
    call="POST /sonic/create",
    kind="create",
    lane="submit",
    body=json.dumps({"mv": "sonic-v6", "prompt": "la " * 500}).encode(),
    family="sonic",
    operation="create_music",
)
SECRET = "secret-of-the-webhooks"
FAILED = TaskUpdate("failed", task_id="", family="sonic")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


async def create(recorder: JobRecorder, key: str | None, task_id: str) -> str:
    """Record a create as the client does, up to its task; return its key."""
    entry = recorder.record(key or new_key(), CREATE)
    assert entry is not None
    assert await entry.reserve() is None
    await entry.sending()
    await entry.accepted(TaskRef("sonic", task_id), {"task_id": task_id})
    return entry.key


async def test_made_up_keys_are_forgotten_and_no_others() -> None:
    """Five hours of creates: named keys and unknown outcomes stay, of the rest the latest do."""
    store = MemoryStore()
    recorder = JobRecorder(store, Clock(), "http://host")
    await create(recorder, "named", "named")
    lost = recorder.record(new_key(), CREATE)
    assert lost is not None
    await lost.reserve()
    await lost.sending()
    await lost.unknown("no answer", None)
    count = REMEMBERED_JOBS + 1000
    keys: list[str] = []
    for number in range(count):
        keys.append(await create(recorder, None, f"t{number}"))
        await asyncio.sleep(3)
        if number % 2:  # the end of every other task is never known
            await recorder.record_end(TaskRef("sonic", f"t{number}"), FAILED)
    jobs = await store.jobs()
    assert len(jobs) == REMEMBERED_JOBS + 2
    assert [job.key for job in jobs[:3]] == ["named", lost.key, keys[count - REMEMBERED_JOBS]]
    assert (jobs[0].state, jobs[1].state) == ("accepted", "ambiguous")
    assert not await store.find("sonic", "t0")
    assert await store.find("sonic", f"t{count - 1}")


async def test_job_that_becomes_open_is_remembered_until_it_is_settled() -> None:
    """One that a dispute made ambiguous is listed for a person to decide on, however many come after it."""
    store = MemoryStore()
    recorder = JobRecorder(store, Clock(), "http://host")
    key = await create(recorder, None, "t")
    await store.change(key, lambda job: job and _with_state(job, "ambiguous"))
    for number in range(REMEMBERED_JOBS + 1):
        await create(recorder, None, f"t{number}")
    assert [job.key for job in await store.jobs("ambiguous")] == [key]
    await store.change(key, lambda job: job and _with_state(job, "finished"))
    assert await store.get(key) is not None
    for number in range(REMEMBERED_JOBS):
        await create(recorder, None, f"u{number}")
    assert await store.get(key) is None


def _with_state(job: Any, state: Any) -> Any:
    return type(job)(**{name: getattr(job, name) for name in job.__struct_fields__} | {"state": state})


async def test_key_for_a_webhook_is_one_that_no_caller_named() -> None:
    """A client with webhooks and no store makes a key for each call, which the store knows as made up."""
    hooks = Webhooks("http://127.0.0.1:9/hooks", SECRET)
    async with Sandbox() as sandbox, sandbox.client(webhooks=hooks, rate_limit=None) as client:
        tasks = [await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla") for _ in range(2)]
        named = await client.with_options(job_key="named").sonic.create_music(
            mv="sonic-v6", prompt="[Verse]\nla"
        )
        assert all(task.job_key is not None and task.job_key.startswith("auto-") for task in tasks)
        assert [job.key for job in await client.jobs()] == [*(task.job_key for task in tasks), named.job_key]


async def test_forgotten_made_up_key_is_not_paid_for_again() -> None:
    """It gives its task while it is remembered; after 5,000 others, naming it is refused and sends nothing."""
    hooks = Webhooks("http://127.0.0.1:9/hooks", SECRET)
    song: dict[str, Any] = {"mv": "sonic-v6", "prompt": "[Verse]\nla"}
    store = MemoryStore()
    async with Sandbox() as sandbox, sandbox.client(webhooks=hooks, rate_limit=None, store=store) as client:
        task = await client.sonic.create_music(**song)
        named = client.with_options(job_key=task.job_key)
        assert await named.sonic.create_music(**song) == task
        recorder = JobRecorder(store, Clock(), sandbox.base_url)
        for number in range(REMEMBERED_JOBS):
            await create(recorder, None, f"t{number}")
        for call in (
            lambda: named.sonic.create_music(**song),
            lambda: named.sonic.wav(clip_id="c"),
            lambda: named.request("POST", "/sonic/create", json=song),
        ):
            with pytest.raises(JobKeyConflictError, match="auto-") as caught:
                await call()
            assert caught.value.job_key == task.job_key
        assert [entry.method for entry in sandbox.journal] == ["POST"]
