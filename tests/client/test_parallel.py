"""Many generations and personas at once, on virtual time: every interval at the server is exact."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from musicapi_async import Task
from musicapi_async.sandbox import Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

LYRICS = "[Verse]\nRain on the window\n[Chorus]\nStay for the evening"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Client and sandbox share one loop whose time jumps."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


async def test_a_hundred_songs_and_fifty_personas_in_parallel_keep_the_pace() -> None:
    """Everything finishes, no create is seen twice, the documented pace holds at the server, nothing leaks."""
    async with Sandbox(seed=1, credits=5000, create_limit=(1, 3.0), jitter=0) as sandbox:
        async with sandbox.client() as client:
            source = (await (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)).wait())[0].clip_id
            songs = client.create_many(
                client.sonic.create_music,
                [{"mv": "sonic-v6", "prompt": LYRICS, "title": f"Song {n}"} for n in range(100)],
            )
            personas = [client.sonic.create_persona(f"Voice {n}", source) for n in range(50)]
            tasks, *made = await asyncio.gather(songs, *personas)
            handles = [task for task in tasks if isinstance(task, Task)]
            assert len(handles) == 100
            results = await client.wait_all(handles)
            assert all(clips.status == "succeeded" for clips in results)
            assert len({persona.persona_id for persona in made}) == 50
        creates = sandbox.journal.creates
        titles = Counter(entry.body["title"] for entry in creates[1:] if isinstance(entry.body, dict))
        assert titles == Counter(f"Song {n}" for n in range(100))
        assert all(entry.status == 200 for entry in creates)
        assert not sandbox.journal.charged_twice()
        assert sandbox.journal.charges == 101 * 20 + 50
        assert sandbox.journal.peak(3.0) == 1
        taken = creates[-1].at - creates[1].at
        assert 99 * 3 <= taken <= 99 * 3 * 1.02
