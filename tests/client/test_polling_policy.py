"""What one client learned about when to look serves the next one."""

from __future__ import annotations

import json
import random

from musicapi_async.sandbox import Durations, Sandbox
from musicapi_async.tasks.schedule import Learned

KIND = "sonic/create_music sonic-v6"


async def test_what_was_learned_is_saved_and_given_to_the_next_client() -> None:
    """A service that takes 30 s instead of the documented minutes is looked at sooner in the next process."""
    async with Sandbox(speed=120, durations=Durations(song=(30.0, 0.0)), create_limit=None) as sandbox:
        policy = Learned(rng=random.Random(1))
        before = Learned().first(KIND)
        async with sandbox.client(polling=policy, pace=None) as client:
            rows = [{"mv": "sonic-v6", "gpt_description_prompt": f"song {n}"} for n in range(40)]
            created = await client.create_many(client.sonic.create_music, rows)
            await client.wait_all([task for task in created if not isinstance(task, Exception)])
        saved = json.dumps(policy.save())
        following = Learned()
        following.load(json.loads(saved))
        assert following.first(KIND) < before
        async with sandbox.client(polling=following, pace=None) as client:
            task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="one more")
            await task.wait()
        learned = json.dumps(following.save())
        assert learned != saved, "and it goes on learning"
