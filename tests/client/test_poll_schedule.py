"""The schedule of a client: saved for the next one, and adapted to its limiter."""

from __future__ import annotations

import asyncio
import json
import random

from musicapi_async._transport.rate_limiter import LaneLimits, MemoryLimiter
from musicapi_async._transport.rate_window import Rate
from musicapi_async._wire.retry import drawing
from musicapi_async.polling.schedule import LearnedSchedule
from musicapi_async.sandbox import Durations, Sandbox
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
