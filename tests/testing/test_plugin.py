"""The pytest plugin, as a user's test suite would use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from musicapi_async import MusicAPI
from musicapi_async.sandbox import Sandbox


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the sandbox of the plugin lives in it, in a thread of its own."""
    return "asyncio"


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


def test_plugin_imports_nothing_before_a_fixture_is_used() -> None:
    """Every run of pytest where the package is installed loads the plugin."""
    program = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import musicapi_async.testing.plugin\n"
        "own = {name for name in sys.modules if name.startswith('musicapi_async')}\n"
        "assert set(sys.modules) - before == own, set(sys.modules) - before - own\n"
        "assert len(own) == 5, own\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
