"""A workflow whose process is killed between a paid call and the note of it. The sandbox's journal is the judge."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from forked import Forked
from patience import until

from musicapi_async import Clip, OutcomeUnknownError, workflows
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox

WAV: dict[str, Any] = {"stems": "none", "wav": True, "midi": False, "lyrics": False}
STEMS: dict[str, Any] = {"stems": "basic", "wav": False, "midi": False, "lyrics": False}
HANGING = 600.0
"""API seconds without an answer: until the process is killed."""


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    """A sandbox with short songs."""
    async with Sandbox(speed=100, longest=1) as sandbox:
        yield sandbox


@pytest.fixture
async def clip(box: Sandbox) -> Clip:
    """A finished clip."""
    async with box.client() as client:
        made = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm rain")
        return (await made.wait())[0]


def started(
    box: Sandbox, clip: Clip, folder: Path, parts: dict[str, Any], store: Path | None, rate_limit: str = ""
) -> Forked:
    """`everything` in a process of its own; with a rate, after another create."""
    given = (msgspec.json.encode(clip).decode(), str(folder), str(store or ""), json.dumps(parts), rate_limit)
    return Forked("everything_process:main", box.base_url, box.api_key, *given)


async def killed(
    box: Sandbox, clip: Clip, folder: Path, path: str, parts: dict[str, Any], store: Path | None
) -> None:
    """Run `everything`, and kill it when its paid call has arrived and before it is answered."""
    box.faults.on("POST", path, Fault.slow(HANGING))
    process = started(box, clip, folder, parts, store)
    await until(lambda: any(entry.charge for entry in box.journal.requests(path)))
    process.kill()
    await process.ended()


@pytest.mark.parametrize(("path", "parts"), [("/sonic/wav", WAV), ("/sonic/stems/basic", STEMS)])
async def test_chain_killed_while_it_paid_does_not_pay_again(
    box: Sandbox, clip: Clip, tmp_path: Path, path: str, parts: dict[str, Any]
) -> None:
    """Without a store the next call refuses that step, with the way out, until the caller decides."""
    await killed(box, clip, tmp_path, path, parts, None)
    async with box.client(rate_limit=None) as client:
        for _ in range(2):
            with pytest.raises(OutcomeUnknownError, match=r"begun before.*dashboard") as caught:
                await workflows.everything(client, clip, tmp_path, **parts)
        assert len(box.journal.requests(path)) == 1
        checkpoint = caught.value.checkpoint
        assert isinstance(checkpoint, workflows.Checkpoint)
        (step,) = checkpoint.unknown
        checkpoint.resubmit(step)
        files = await workflows.everything(client, clip, tmp_path, checkpoint=checkpoint, **parts)
        assert files.wav or files.stems
    assert len(box.journal.requests(path)) == 2


async def test_with_store_killed_step_is_job_that_can_be_resolved(
    box: Sandbox, clip: Clip, tmp_path: Path
) -> None:
    """The step has a job key of its own; the task that the caller names for it is waited for, and fetched."""
    await killed(box, clip, tmp_path / "out", "/sonic/stems/basic", STEMS, tmp_path / "jobs.sqlite")
    async with box.client(rate_limit=None, store=SQLiteStore(tmp_path / "jobs.sqlite")) as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await workflows.everything(client, clip, tmp_path / "out", **STEMS)
        (job,) = await client.jobs("ambiguous")
        assert caught.value.job_key == job.key
        (entry,) = box.journal.requests("/sonic/stems/basic")
        await client.resolve(job.key, task_id=entry.task_id)
        files = await workflows.everything(client, clip, tmp_path / "out", **STEMS)
    assert len(files.stems) == 2
    assert len(box.journal.requests("/sonic/stems/basic")) == 1


@pytest.mark.parametrize(("path", "parts"), [("/sonic/wav", WAV), ("/sonic/stems/basic", STEMS)])
async def test_with_store_step_that_was_answered_before_kill_is_not_sent_again(
    box: Sandbox, clip: Clip, tmp_path: Path, path: str, parts: dict[str, Any]
) -> None:
    """The answer is in the store, only the folder's note is still that of the moment before the call."""
    out, store = tmp_path / "out", SQLiteStore(tmp_path / "jobs.sqlite")
    async with box.client(rate_limit=None, store=store) as client:
        files = await workflows.everything(client, clip, out, **parts)
        (job,) = await client.jobs()
        before = workflows.Checkpoint(
            clip_ids={"clip": clip.clip_id}, unknown={job.key.partition(".")[2]: job.key}
        )
        for path_of in (files.wav, *files.stems.values()):
            if path_of is not None:
                path_of.unlink()
        (out / workflows.CHECKPOINT_FILE).write_text(before.json())
        assert await workflows.everything(client, clip, out, **parts) == files
    assert len(box.journal.requests(path)) == 1


async def test_chain_killed_while_it_queued_is_sent_when_it_is_called_again(
    box: Sandbox, clip: Clip, tmp_path: Path
) -> None:
    """With a store it is known that nothing had left, so there is nothing to decide."""
    store = SQLiteStore(tmp_path / "jobs.sqlite")
    process = started(box, clip, tmp_path / "out", STEMS, store.path, rate_limit="1/86400s")

    async def queued() -> bool:
        states = [job.state for job in await store.jobs()] if store.path.exists() else []
        return sorted(states) == ["accepted", "reserved"]

    await until(queued)
    process.kill()
    await process.ended()
    noted = workflows.Checkpoint.parse((tmp_path / "out" / workflows.CHECKPOINT_FILE).read_bytes())
    assert list(noted.unknown) == ["stems_basic"]
    async with box.client(rate_limit=None, store=store) as client:
        assert (await workflows.everything(client, clip, tmp_path / "out", **STEMS)).stems
    assert len(box.journal.requests("/sonic/stems/basic")) == 1
