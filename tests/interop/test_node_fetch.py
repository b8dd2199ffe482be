"""Node on plain `fetch`: a program of another language, against a sandbox that it sets up over HTTP itself.

`plain_fetch.mjs` beside this file is the program. It checks each reply and the signature of each webhook, and
prints what it found.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from musicapi_async.sandbox import Sandbox


@pytest.fixture
def anyio_backend() -> str:
    """Real time: Node lives in it."""
    return "asyncio"


async def test_node_on_plain_fetch() -> None:
    """Create, poll, persona, stems, wav, midi, webhooks, credits, with a preset and faults set over HTTP."""
    async with Sandbox(speed=1000, longest=10) as box:
        script = Path(__file__).with_name("plain_fetch.mjs")
        command = ["node", str(script), box.base_url, box.api_key, box.control_url, box.control_token]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["events"] == [
        ["song.streaming", False, True],
        ["song.completed", False, True],
        ["song.streaming", True, True],
        ["song.failed", True, True],
    ]
    assert found["statuses"] == [429, 429, 200, 200, 200, 200]
    assert sorted(found["stems"]) == ["instrumental", "vocals"]
    assert found["instruments"]
    assert found["charges"] == 20 + 1 + 20 + 30 + 2 + 1
