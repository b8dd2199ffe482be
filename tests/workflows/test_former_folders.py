"""Folders that the version before wrote are continued: nothing in them is paid for again."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from report_pages import songs as page_songs
from small_batches import make, rows

from musicapi_async import Clip, MusicAPI, RequestValidationError, workflows
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.workflows import Manifest, plan_batch, run_batch
from musicapi_async.workflows.batch_calls import wanted_fields


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


async def test_song_without_id_keeps_its_former_one(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """It followed from the whole row, steps included: the song is not paid for again, nor are its steps."""

    def songs(*steps: str) -> list[dict[str, Any]]:
        row = {"mv": "sonic-v6", "clips": "first", "steps": [*steps]}
        return [{**row, "prompt": f"[Verse]\nRain {number}"} for number in range(2)]

    def formerly(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "id": hashlib.sha256(msgspec.json.encode(row, order="sorted")).hexdigest()[:16]}

    before = Manifest.of([*map(formerly, songs("wav"))])
    await run_batch(client, before, out=tmp_path, waveforms=False)
    requests = len(sandbox.journal)
    plan = await plan_batch(Manifest.of(songs("wav")), tmp_path)
    assert (plan.settled, plan.new) == (2, 0)
    result = await run_batch(client, Manifest.of(songs("wav")), out=tmp_path, waveforms=False)
    assert (result.done, result.complete, len(sandbox.journal)) == (2, True, requests)
    plan = await plan_batch(Manifest.of(songs("wav", "midi")), tmp_path)
    assert (plan.new, plan.creates, plan.steps) == (0, 0, {"midi": 2})
    result = await run_batch(client, Manifest.of(songs("wav", "midi")), out=tmp_path, waveforms=False)
    assert (result.done, result.submitted) == (2, 2)
    assert len(sandbox.journal.creates) == len(sandbox.journal.requests("/sonic/wav")) == 2
    assert [song["state"] for song in page_songs(result.report)] == ["done"] * 2


async def test_correction_keeps_the_job_key_of_earlier_versions(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """It followed from the corrected fields: what is paid for under such a key is not paid for again."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    assert (await make(client, rows(1), tmp_path)).failed == 1
    corrected = rows(1, prompt="[Verse]\nSun")
    assert (await make(client, corrected, tmp_path, retry_failed=True)).done == 1
    store = SQLiteStore(tmp_path / ".musicapi" / "jobs.sqlite")
    (job,) = await store.jobs("finished")
    digest = hashlib.sha256(wanted_fields(job.request)).hexdigest()
    former = msgspec.structs.replace(job, key=f"s0/create_music~{digest[:12]}")
    await store.change(job.key, lambda _job: None)
    await store.change(former.key, lambda _job: former, account=job.account)
    await store.aclose()
    for record in (tmp_path / ".musicapi" / "songs").iterdir():
        record.unlink()
    for retry_failed in (False, True):
        again = await make(client, corrected, tmp_path, retry_failed=retry_failed)
        assert (again.done, again.submitted) == (1, 0)
    assert len(sandbox.journal.creates) == 2
