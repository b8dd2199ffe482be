"""A batch in a real process, killed with SIGKILL at random instants and resumed each time."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from musicapi_async.batch import Manifest
from musicapi_async.batch.records import Folder, SongRecord
from musicapi_async.sandbox import Sandbox
from musicapi_async.sandbox.journal import Entry
from musicapi_async.store import Job, SQLiteStore

RUN = """
import asyncio, sys
from musicapi_async import Clock, MusicAPI
from musicapi_async.batch import run_batch

async def main():
    base_url, key, speed, manifest, out = sys.argv[1:]
    async with MusicAPI(key, base_url=base_url, clock=Clock(float(speed))) as client:
        result = await run_batch(client, manifest, out=out, waveforms=False)
        print(result.done, len(result.unknown), len(result.left))

asyncio.run(main())
"""


@dataclass
class Outcome:
    """What was found after the last run. Times are API seconds of the sandbox."""

    kills: list[float] = field(default_factory=list[float])
    runs: int = 0
    ambiguous: list[Job] = field(default_factory=list[Job])
    jobs: list[Job] = field(default_factory=list[Job])
    records: list[SongRecord] = field(default_factory=list[SongRecord])
    charged: Counter[str] = field(default_factory=Counter[str])
    arrived: dict[str, Entry] = field(default_factory=dict[str, Entry])


def song_rows(songs: int) -> list[dict[str, Any]]:
    """Songs with their stems; the title tells each from all others at the server."""
    return [
        {
            "id": f"song-{index}",
            "mv": "sonic-v6",
            "gpt_description_prompt": f"song number {index}",
            "steps": ["stems_basic"],
        }
        for index in range(songs)
    ]


def named(entry: Entry) -> str:
    """What tells the request of one job from that of all others."""
    body = entry.body
    assert isinstance(body, dict)
    return str(body.get("clip_id") or body.get("gpt_description_prompt"))


def named_job(job: Job) -> str:
    """The same of a job."""
    return str(job.request.fields.get("clip_id") or job.request.fields.get("gpt_description_prompt"))


async def start(sandbox: Sandbox, manifest: Path, out: Path) -> asyncio.subprocess.Process:
    """A run of the batch in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RUN,
        sandbox.base_url,
        sandbox.api_key,
        str(sandbox.clock.speed),
        str(manifest),
        str(out),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def kill_and_resume(sandbox: Sandbox, folder: Path, *, songs: int, kills: int, seed: int) -> Outcome:
    """Start, kill at a random instant, start again; after the last kill let it end."""
    draw = random.Random(seed)
    manifest, out = folder / "songs.jsonl", folder / "out"
    manifest.write_bytes(b"\n".join(msgspec.json.encode(row) for row in song_rows(songs)))
    outcome = Outcome()
    while len(outcome.kills) < kills:
        outcome.runs += 1
        run = await start(sandbox, manifest, out)
        lived = draw.uniform(0.35, 1.6)
        try:
            await asyncio.wait_for(run.wait(), lived)
        except TimeoutError:
            run.kill()
            outcome.kills.append(sandbox.now())
        else:
            break
        finally:
            await run.communicate()
    outcome.runs += 1
    last = await start(sandbox, manifest, out)
    await last.communicate()
    assert last.returncode == 0
    store = SQLiteStore(Folder(out).store_path)
    outcome.jobs = await store.jobs()
    outcome.ambiguous = await store.jobs("ambiguous")
    await store.aclose()
    ids = (song.id for song in Manifest.read(manifest).songs)
    outcome.records = list(Folder(out).records(ids))
    for entry in sandbox.journal.creates:
        outcome.arrived[named(entry)] = entry
        outcome.charged[named(entry)] += entry.charge > 0
    return outcome


def check(sandbox: Sandbox, outcome: Outcome, *, songs: int) -> None:
    """Nothing was paid twice, nothing that was paid for was lost."""
    unknown = {named_job(job) for job in outcome.ambiguous}
    assert max(outcome.charged.values()) == 1, "a job was charged twice"
    assert sandbox.journal.charged_twice() == []
    for job in outcome.jobs:
        if job.state != "ambiguous":
            assert job.state == "finished"
            assert outcome.charged[named_job(job)] == 1
            assert outcome.arrived[named_job(job)].task_id == job.task_id
    known = {named_job(job) for job in outcome.jobs}
    assert set(outcome.arrived) <= known, "a paid task is in no row"
    # A job is ambiguous only where a kill fell between the moment it was noted as sent and its answer.
    moment = 0.5 * sandbox.clock.speed
    for name in unknown:
        entry = outcome.arrived.get(name)
        if entry is not None:
            assert any(-moment < at - entry.at < moment for at in outcome.kills), "ambiguous without a kill"
    assert len(unknown) <= len(outcome.kills)
    settled = {record.id for record in outcome.records}
    untouched = [record for record in outcome.records if not any(record.faults)]
    assert len(untouched) == len(outcome.records)
    unsettled = {job.key.partition("/")[0] for job in outcome.ambiguous}
    assert settled | unsettled == {f"song-{index}" for index in range(songs)}
    assert not settled & unsettled
    for record in outcome.records:
        assert len(record.clips) == 2
        for clip in record.clips:
            assert [len(step.files) for step in clip.steps] == [2]
