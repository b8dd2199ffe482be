"""Folders that the version before wrote are continued: nothing in them is paid for again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from musicapi_async import Clip, MusicAPI, RequestValidationError, workflows
from musicapi_async.sandbox import Sandbox
from musicapi_async.workflows import Manifest, run_batch


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A sandbox whose songs take half a second and are short."""
    async with Sandbox(speed=300, credits=1e6, longest=1) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncGenerator[MusicAPI]:
    """A client without a rate limit."""
    async with sandbox.client(rate_limit=None) as client:
        yield client


async def song(client: MusicAPI) -> Clip:
    """A finished clip."""
    return (await (await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nRain")).wait())[0]


async def test_checkpoint_of_clip_has_its_new_name(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The link and the task in `reached.json` are used, and the file becomes `checkpoint.json`."""
    clip = await song(client)
    wav = (await client.sonic.wav(clip.clip_id)).wav_url
    task = await client.sonic.stems_basic(clip_id=clip.clip_id)
    former = tmp_path / "reached.json"
    former.write_bytes(
        msgspec.json.encode(
            {"clip_ids": {"clip": clip.clip_id}, "tasks": {"stems_basic": task.token}, "links": {"wav": wav}}
        )
    )
    charges = sandbox.journal.charges
    files = await workflows.everything(client, clip, tmp_path, midi=False, lyrics=False)
    assert files.wav is not None
    assert len(files.stems) == 2
    assert sandbox.journal.charges == charges
    assert not former.exists()
    assert (tmp_path / workflows.CHECKPOINT_FILE).is_file()


async def test_unreadable_checkpoint_is_refused(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """It is left as it is, and nothing is paid for."""
    clip = await song(client)
    charges = sandbox.journal.charges
    former = tmp_path / "reached.json"
    former.write_text("damaged")
    with pytest.raises(RequestValidationError, match="checkpoint"):
        await workflows.everything(client, clip, tmp_path)
    assert former.read_text() == "damaged"
    assert sandbox.journal.charges == charges


async def test_record_without_new_fields_is_read(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A settled song is not taken up, and its failed step counts, with the reason in its whole text."""
    row: dict[str, Any] = {"id": "s0", "mv": "sonic-v6", "prompt": "[Verse]\nRain", "clips": "first"}
    manifest = Manifest.of([{**row, "steps": ["wav"]}])
    await run_batch(client, manifest, out=tmp_path, waveforms=False)
    (path,) = await asyncio.to_thread(lambda: list((tmp_path / ".musicapi" / "songs").iterdir()))
    record = msgspec.json.decode(path.read_bytes())
    (step,) = record["clips"][0]["steps"]
    del step["reason"]
    step |= {"state": "failed", "error": "Task 1 failed: why", "files": []}
    path.write_bytes(msgspec.json.encode(record))
    path.chmod(0o644)
    requests = len(sandbox.journal)
    result = await run_batch(client, manifest, out=tmp_path, waveforms=False)
    assert (result.done, result.failed_steps, len(sandbox.journal)) == (1, 1, requests)
    assert result.step_failures[0].reason == "Task 1 failed: why"
