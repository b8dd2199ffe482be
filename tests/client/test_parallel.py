"""Many generations and personas at once, on virtual time: every interval at the server is exact."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import aiohttp
import pytest

from musicapi_async import MusicAPI, OutcomeUnknownError, Task
from musicapi_async.sandbox import Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

LYRICS = "[Verse]\nRain on the window\n[Chorus]\nStay for the evening"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Client and sandbox share one loop whose time jumps."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


async def test_a_hundred_songs_and_fifty_personas_in_parallel_keep_the_pace() -> None:
    """Everything finishes, no create is seen twice, the documented rate holds at the server, nothing leaks."""
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


class SlowConnector(aiohttp.TCPConnector):
    """Connections of which every second one takes 3.05 s, as a slow TLS handshake does."""

    _seconds = itertools.cycle([0.0, 3.05])

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(next(self._seconds))
        return await super()._create_connection(*args, **kwargs)


async def test_slow_handshakes_break_no_rate() -> None:
    """The rate counts what leaves, not what was queued, through a session of the user's own as well."""
    async with (
        Sandbox(create_limit=(1, 3.0), jitter=0) as sandbox,
        aiohttp.ClientSession(connector=SlowConnector(force_close=True)) as session,
        MusicAPI(sandbox.api_key, base_url=sandbox.base_url, session=session) as client,
    ):
        songs = [{"mv": "sonic-v6", "prompt": LYRICS, "title": f"Song {n}"} for n in range(8)]
        tasks = await client.create_many(client.sonic.create_music, songs)
        assert all(isinstance(task, Task) for task in tasks)
        assert all(entry.status == 200 for entry in sandbox.journal.creates)
        assert sandbox.journal.peak(3.0) == 1
        assert sandbox.journal.charges == 8 * 20


async def test_middleware_cannot_send_a_paid_call_twice() -> None:
    """A middleware of the user's session that repeats a create is stopped: the server sees one request."""

    async def repeat(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> Any:
        (await handler(request)).release()
        return await handler(request)

    async with (
        Sandbox(jitter=0) as sandbox,
        aiohttp.ClientSession(middlewares=[repeat]) as session,
        MusicAPI(sandbox.api_key, base_url=sandbox.base_url, session=session) as client,
    ):
        with pytest.raises(OutcomeUnknownError):
            await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        assert len(sandbox.journal.creates) == 1
