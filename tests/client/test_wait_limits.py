"""Each handle waits as long as its own kind or `timeout` says, also beside another wait for the same task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from musicapi_async import Clips, MusicAPI, RequestValidationError, Task, TaskTimeoutError, TaskUpdate
from musicapi_async.polling import PolledStage, Stage
from musicapi_async.sandbox import Durations, Fault, Sandbox

SONGS_END, STEMS_END = 900, 1800
"""Seconds that a wait takes by default (vendor's guide: minutes for songs, longer for stems)."""


class HalfHourly:
    """A schedule whose first poll comes after half an hour."""

    def first(self, kind: str) -> float:
        """Return the age of the first poll."""
        return 1800

    def next(self, kind: str, age: float, stage: Stage | None) -> float:
        """Return the age of the next poll."""
        return age + 1800

    def observed(
        self, kind: str, finished: bool, last_age: float | None, age: float, latest: PolledStage | None
    ) -> None:
        """Learn nothing."""


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A sandbox whose tasks never end."""
    async with Sandbox() as sandbox:
        sandbox.faults.on("POST", "/sonic/create", Fault.stuck(), times=None)
        yield sandbox


async def stuck(client: MusicAPI) -> str:
    """Return the id of a task that never ends."""
    task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm")
    return task.task_id


def stems(client: MusicAPI, task_id: str) -> Task[Clips]:
    """Return a handle that waits as long as one of stems."""
    return client.task("sonic", task_id, kind="stems_full")


async def test_a_longer_wait_for_the_task_does_not_keep_wait_all_waiting(sandbox: Sandbox) -> None:
    """The plain handle is given up after its own 900 s, and the other wait continues."""
    async with sandbox.client(rate_limit=None) as client:
        task_id = await stuck(client)
        longer = asyncio.create_task(stems(client, task_id).wait(timeout=6000))
        await asyncio.sleep(1)
        began = client.clock.now()
        with pytest.raises(TaskTimeoutError, match="after 900 s"):
            await client.wait_all([client.task("sonic", task_id)])
        assert client.clock.now() - began == pytest.approx(SONGS_END, abs=0.1)
        with pytest.raises(TaskTimeoutError, match="after 6000 s"):
            await longer


@pytest.mark.parametrize("first", ["plain", "stems"])
async def test_handles_of_one_task_end_each_at_its_time(sandbox: Sandbox, first: str) -> None:
    """In one `as_completed`, whichever comes first; then no poll is made any more."""
    async with sandbox.client(rate_limit=None) as client:
        task_id = await stuck(client)
        plain, long = client.task("sonic", task_id), stems(client, task_id)
        tasks = [plain, plain, long] if first == "plain" else [long, plain, plain]
        began = client.clock.now()
        came: list[tuple[bool, int]] = []
        async for task in client.as_completed(tasks):
            came.append((task is long, round(client.clock.now() - began)))
            with pytest.raises(TaskTimeoutError):
                await task.wait()
        assert came == [(False, SONGS_END), (False, SONGS_END), (True, STEMS_END)]
        polls = len(sandbox.journal.polls)
        await asyncio.sleep(3600)
        assert len(sandbox.journal.polls) == polls


@pytest.mark.parametrize("by", ["wait", "updates", "wait_all", "as_completed"])
async def test_every_way_to_wait_has_the_same_limit(sandbox: Sandbox, by: str) -> None:
    """Beside a wait of stems for the same task: that of the handle."""

    async def waited(task: Task[Clips]) -> None:
        match by:
            case "wait":
                await task.wait()
            case "updates":
                async for _ in task.updates():
                    pass
            case "wait_all":
                await client.wait_all([task])
            case _:
                async for ended in client.as_completed([task]):
                    await ended.wait()

    async with sandbox.client(rate_limit=None) as client:
        task_id = await stuck(client)
        handles = (client.task("sonic", task_id), SONGS_END), (stems(client, task_id), STEMS_END)
        for ordered in (handles, handles[::-1]):
            began = client.clock.now()

            async def ends(task: Task[Clips], began: float = began) -> float:
                with pytest.raises(TaskTimeoutError):
                    await waited(task)
                return client.clock.now() - began

            took = await asyncio.gather(*(ends(task) for task, _ in ordered))
            assert took == [pytest.approx(limit, abs=0.1) for _, limit in ordered]


@pytest.mark.parametrize("by", ["refresh", "get_music"])
async def test_poll_that_finds_the_end_ends_the_waits(by: str) -> None:
    """A caller who polls a task by hand tells those who wait for it, long before their next poll."""
    async with (
        Sandbox(durations=Durations(song=(50.0, 0.0))) as sandbox,
        sandbox.client(polling=HalfHourly()) as client,
    ):
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm")
        stems = client.task("sonic", task.task_id, kind="stems_full")
        waits = [asyncio.create_task(task.wait()), asyncio.create_task(stems.wait())]
        await asyncio.sleep(49)
        for seconds in (0.0, 9.0):
            await asyncio.sleep(seconds)
            if by == "refresh":
                await client.task(task.token).refresh()
            else:
                await client.sonic.get_music(task.task_id)
        done, _ = await asyncio.wait(waits, timeout=1)
        assert len(done) == 2
        polls = [entry for entry in sandbox.journal if entry.task_id == task.task_id]
        assert len(polls) == 1 + 2 + 1, "the create, both polls by hand, and one for all who wait"


async def test_others_run_while_many_tasks_are_taken_in() -> None:
    """Of 2,000 tasks that have ended, as of any others, some hundred are taken in at once."""
    async with MusicAPI("key") as client:
        tasks = [client.task("sonic", f"t{n}") for n in range(2000)]
        for task in tasks:
            task.last = TaskUpdate("succeeded", result=Clips())
        waiting = asyncio.create_task(client.wait_all(tasks))
        turns = 0
        while not waiting.done():
            await asyncio.sleep(0)
            turns += 1
        assert await waiting == [Clips()] * 2000
        assert turns >= 4


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 10**400, True, "5"])
async def test_impossible_timeouts_are_refused_by_every_way_to_wait(sandbox: Sandbox, timeout: Any) -> None:
    """An error of ours says it before anything is polled, also with no task to wait for."""
    async with sandbox.client() as client:
        task = client.task("sonic", "t")
        none: list[Task[Clips]] = []
        for wait in (
            lambda: task.wait(timeout=timeout),
            lambda: anext(task.updates(timeout=timeout)),
            lambda: client.wait_all([task], timeout=timeout),
            lambda: client.wait_all(none, timeout=timeout),
            lambda: anext(client.as_completed([task], timeout=timeout)),
        ):
            with pytest.raises(RequestValidationError, match="timeout: a positive number of seconds"):
                await wait()
    assert not list(sandbox.journal)
