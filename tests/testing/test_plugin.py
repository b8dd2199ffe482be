"""The pytest plugin, as a user's test suite would use it."""

from __future__ import annotations

import pytest

from musicapi_async import MusicAPI
from musicapi_async.sandbox import Sandbox


async def test_client_calls_the_sandbox(musicapi_client: MusicAPI, musicapi_sandbox: Sandbox) -> None:
    """Both fixtures belong together."""
    task = await musicapi_client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla")
    assert (await task.wait()).status == "succeeded"
    assert len(musicapi_sandbox.journal.creates) == 1


@pytest.mark.musicapi(credits=5, speed=100)
async def test_the_marker_sets_the_sandbox(musicapi_client: MusicAPI) -> None:
    """Arguments of the marker reach the sandbox."""
    assert (await musicapi_client.credits()).total == 5
    assert musicapi_client.clock.speed == 100
