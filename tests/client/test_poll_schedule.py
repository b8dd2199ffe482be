"""The schedule of a client: saved for the next one, and adapted to its limiter."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import aclosing

import pytest

from musicapi_async._transport.rate_limiter import LaneLimits, MemoryLimiter
from musicapi_async._transport.rate_window import Rate
from musicapi_async._wire.retry import drawing
from musicapi_async.polling.schedule import LearnedSchedule
from musicapi_async.sandbox import Durations, Fault, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

KIND = "sonic/create_music sonic-v6"


async def test_learned_durations_serve_the_next_client() -> None:
    """A service that takes 30 s instead of the documented minutes is polled sooner in the next process."""
    async with Sandbox(speed=120, durations=Durations(song=(30.0, 0.0)), create_limit=None) as sandbox:
        schedule = LearnedSchedule(draw=drawing(random.Random(1)))
        before = LearnedSchedule().first(KIND)
        async with sandbox.client(polling=schedule, rate_limit=None) as client:
            rows = [{"mv": "sonic-v6", "gpt_description_prompt": f"song {n}"} for n in range(40)]
            created = await client.create_many(client.sonic.create_music, rows)
            await client.wait_all([task for task in created if not isinstance(task, Exception)])
        saved = json.dumps(schedule.save())
        following = LearnedSchedule()
        following.load(json.loads(saved))
        assert following.first(KIND) < before
        async with sandbox.client(polling=following, rate_limit=None) as client:
            task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="one more")
            await task.wait()
        learned = json.dumps(following.save())
        assert learned != saved, "and it continues to learn"


async def age_of_first_poll(limiter: MemoryLimiter | None) -> float:
    """Return the age of a song, in seconds, at the first poll of a client with this limiter."""
    async with (
        Sandbox(durations=Durations(song=(70.0, 0.0))) as sandbox,
        sandbox.client(limiter=limiter) as client,
    ):
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="one song")
        await task.wait()
        times = [entry.at for entry in sandbox.journal if entry.task_id == task.task_id]
        return times[1] - times[0]


def test_client_uses_the_polls_that_its_limiter_allows() -> None:
    """With a rate for polls that remains unused, the first poll comes sooner than at the usual cost."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        usual = runner.run(age_of_first_poll(None))
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        limited = runner.run(age_of_first_poll(MemoryLimiter({"poll": LaneLimits(64, Rate.parse("5/s"))})))
    assert 14 < limited < usual


@pytest.mark.parametrize(
    ("fault", "most"),
    [(Fault.status(503), 5), (Fault.status(503, retry_after=60), 2), (Fault.status(404), 4)],
    ids=["outage", "Retry-After", "not known yet"],
)
def test_viewers_that_come_and_go_poll_no_sooner_after_a_failure(fault: Fault, most: int) -> None:
    """Browsers that reconnect to the updates of a song do not end the pause after a poll that failed."""

    async def view() -> int:
        async with Sandbox(create_limit=None) as sandbox, sandbox.client(rate_limit=None) as client:
            task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="one song")
            waiting = asyncio.ensure_future(task.wait())
            await asyncio.sleep(12)
            sandbox.faults.on("GET", "/sonic/task/*", fault, times=None)
            before = len(sandbox.journal)
            for _ in range(40):
                async with aclosing(task.updates()) as updates:
                    await anext(updates)
                await asyncio.sleep(1)
            assert not waiting.done()
            waiting.cancel()
            return len(sandbox.journal) - before

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert 1 <= runner.run(view()) <= most


@pytest.mark.parametrize("ahead", [None, 0.0, 3600.0])
def test_resumed_task_of_unknown_age_teaches_nothing(ahead: float | None) -> None:
    """A task that was done long ago did not take the no time for which this process has known it."""

    async def resume() -> None:
        schedule = LearnedSchedule()
        async with Sandbox(create_limit=None) as sandbox:
            async with sandbox.client(rate_limit=None) as client:
                rows = [{"mv": "sonic-v6", "gpt_description_prompt": f"song {n}"} for n in range(20)]
                made = await client.create_many(client.sonic.create_music, rows)
                ids = [task.task_id for task in made if not isinstance(task, Exception)]
                await client.wait_all([client.task("sonic", task_id) for task_id in ids])
            async with sandbox.client(polling=schedule) as client:
                submitted = 0.0 if ahead is None else time.time() + ahead
                await client.wait_all(
                    [
                        client.task("sonic", task_id, kind="create_music", submitted_at=submitted)
                        for task_id in ids
                    ]
                )
        fresh = LearnedSchedule()
        kind = "sonic/create_music"
        assert schedule.first(kind) == fresh.first(kind)
        assert schedule.next(kind, 0.1, None) == fresh.next(kind, 0.1, None)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(resume())


async def polls_of_new_songs(old: int, *, passed: float, submitted: float) -> int:
    """Return the polls of ten songs, one after another, after a wait for old ones of another process.

    That begins when `passed` seconds have passed since their creates; the Unix time of those is `submitted`.
    """
    song = {"mv": "sonic-v6", "gpt_description_prompt": "a song"}
    async with (
        Sandbox(durations=Durations(song=(150.0, 0.0)), create_limit=None, credits=1e6) as sandbox,
        sandbox.client(rate_limit=None) as other,
        sandbox.client(polling=LearnedSchedule()) as client,
    ):

        async def submit() -> str:
            return (await other.sonic.create_music(**song)).task_id

        async def wait(ids: list[str], submitted_at: float) -> None:
            await client.wait_all(
                [client.task("sonic", one, kind="create_music", submitted_at=submitted_at) for one in ids]
            )

        ids = [await submit() for _ in range(old)]
        await asyncio.sleep(passed)
        await wait(ids, submitted)
        before = len(sandbox.journal)
        for _ in range(10):
            await wait([await submit()], time.time())
        return len(sandbox.journal) - before - 10


@pytest.mark.parametrize(("passed", "ago"), [(200.0, 7200.0), (100.0, None)])
def test_songs_of_unknown_durations_teach_nothing(passed: float, ago: float | None) -> None:
    """Songs that ended hours ago, or whose submit is unknown, change nothing in the polls of new ones."""
    polls: list[int] = []
    for old in (0, 200):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            submitted = 0.0 if ago is None else time.time() - ago
            polls.append(runner.run(polls_of_new_songs(old, passed=passed, submitted=submitted)))
    assert polls[1] == pytest.approx(polls[0], abs=2)
