"""Handles that leave their client: pickled, they say how to get one again; copied, they share it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest
from pydantic import TypeAdapter, ValidationError

from musicapi_async import Clips, MusicAPI, RequestValidationError, Task
from musicapi_async.sandbox import Sandbox


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox, None]:
    """A service in the time of the tests."""
    async with Sandbox(seed=1) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncGenerator[MusicAPI, None]:
    """A client of it."""
    async with sandbox.client() as client:
        yield client


SONG = {"mv": "sonic-v6", "gpt_description_prompt": "calm"}


async def test_a_task_is_plain_data_and_is_read_back_without_a_client(
    client: MusicAPI, sandbox: Sandbox
) -> None:
    """Its ids, token, key and what is known of it; a back end may return it, and a worker take it."""
    task = await client.with_options(job_key="order-1").sonic.create_music(**SONG)
    begin = task.to_dict()
    assert begin == {
        "token": task.token,
        "family": "sonic",
        "task_id": task.task_id,
        "kind": "create_music",
        "job_key": "order-1",
        "state": None,
        "last": None,
    }
    await task
    assert task.last is not None
    assert task.to_dict() == begin | {"state": "succeeded", "last": task.last.to_dict()}
    assert msgspec.json.encode(task) == task.to_json().encode()
    adapter: TypeAdapter[Task[Clips]] = TypeAdapter(Task[Clips])
    again = adapter.validate_json(task.to_json())
    assert again == task == Task(task.token)
    assert (again.job_key, again.last) == ("order-1", task.last)
    assert await again == await task
    sent = len(sandbox.journal.requests())
    await ways_to_wait(Task(task.token))
    assert len(sandbox.journal.requests()) == sent
    broken = "musicapi:sonic:create_music:1:\ud800"  # no URL can hold it
    for wrong in ({"token": "order-1"}, {"token": broken}, {"task_id": task.task_id}):
        with pytest.raises(ValidationError, match="token"):
            adapter.validate_python(wrong)


async def ways_to_wait(task: Task[Any]) -> list[RequestValidationError]:
    """The errors of all of them."""
    caught: list[RequestValidationError] = []
    for way in (task.wait, task.refresh, task.is_known, task.updates().__anext__):
        with pytest.raises(RequestValidationError) as error:
            await way()
        caught.append(error.value)
    with pytest.raises(RequestValidationError):
        await task
    return caught


async def test_a_pickled_task_says_how_to_wait_for_it(client: MusicAPI) -> None:
    """Ids, token, reply, job key and last update are there, and the token gives a handle that waits."""
    task = await client.sonic.create_music(**SONG)
    await task.refresh()
    again: Task[Clips] = pickle.loads(pickle.dumps(task))
    assert again == task
    assert (again.task_id, again.family, again.kind, again.token) == (
        task.task_id,
        task.family,
        task.kind,
        task.token,
    )
    assert (again.raw, again.job_key) == (task.raw, task.job_key)
    assert again.last is not None
    assert task.last is not None
    assert again.last.to_dict() == task.last.to_dict()
    for error in await ways_to_wait(again):
        assert f"client.task({task.token!r})" in str(error)
        assert "Nothing was sent" in str(error)
    clips = await client.task(again.token).wait()
    assert len(clips) == 2
    assert await client.wait_all([again]) == [clips]


async def test_a_pickled_task_that_has_ended_has_its_result(client: MusicAPI) -> None:
    """As before it was pickled, waiting returns at once, without a request."""
    task = await client.sonic.create_music(**SONG)
    clips = await task
    again: Task[Clips] = pickle.loads(pickle.dumps(task))
    assert await again == clips


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
async def test_a_copied_task_waits_with_the_same_client(
    copied: Any, client: MusicAPI, sandbox: Sandbox
) -> None:
    """The copy of a handle is a handle; its last update is its own."""
    task = await client.sonic.create_music(**SONG)
    again = copied({"task": task})["task"] if copied is copy.deepcopy else copied(task)
    assert again is not task
    assert again.raw == task.raw
    assert len(await again.wait()) == 2
    assert task.last is None
    assert len(sandbox.journal.creates) == 1


OTHER_PROCESS = """
import asyncio, pickle, sys

task = pickle.loads(sys.stdin.buffer.read())
print(task.token)
try:
    asyncio.run(task.wait())
except ValueError as error:
    print(error)
"""


def test_a_task_is_loaded_in_another_process() -> None:
    """One that has imported nothing of the package yet."""
    task = MusicAPI("a-key-of-a-test").task("sonic", "some-id", kind="create_music")
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS], input=pickle.dumps(task), capture_output=True, check=True
    )
    token, text = done.stdout.decode().splitlines()
    assert token == task.token
    assert "client.task(" in text


def test_no_library_of_the_users_is_imported_for_plain_data() -> None:
    """pydantic and FastAPI find the schema in our classes; those who do not use them do not pay for them."""
    code = (
        "import sys, musicapi_async as m; import musicapi_async.webhooks, musicapi_async.jobs;"
        "m.Clips([m.Clip(clip_id='c')]).to_json(); m.Clip.__get_pydantic_core_schema__(m.Clip, None);"
        "print(sorted({'pydantic', 'pydantic_core', 'fastapi'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"
