"""What a run would do, told without sending anything."""

from __future__ import annotations

import os
from typing import Final

import msgspec

from .._transport.rate import Rate
from ..jobs import SQLiteStore
from .manifest import Manifest, operation_of
from .records import Folder

MAX_IN_FLIGHT: Final = 64
"""Tasks submitted and not yet ended; at the documented rate about 40 songs run at once."""
CLIPS: Final = 2
"""Clips of a song; the service usually makes two."""
PACE: Final = "1/3s"
"""Creates per time on a standard account (documented)."""
TASK_SECONDS: Final = 120.0
"""Seconds that a task takes, in the middle of the one to four minutes that users report."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Songs of a manifest by what a run would do with them, and how long it would take.

    `songs` in all; `settled` need nothing; `going_on` were submitted and are waited for; `unknown` wait for
    a decision (`musicapi jobs`); `new` are submitted. `creates` tasks and `calls` other paid calls are
    expected, with two clips for each song; `rate_limit` is that of the creates ('none' without one),
    `seconds` the expected time. Prices are not known here.
    """

    songs: int
    settled: int
    going_on: int
    unknown: int
    new: int
    creates: int
    calls: int
    steps: dict[str, int]
    rate_limit: str
    seconds: float


async def plan_batch(
    manifest: Manifest,
    out: str | os.PathLike[str],
    *,
    retry_failed: bool = False,
    rate_limit: Rate | str | None = PACE,
    max_in_flight: int = MAX_IN_FLIGHT,
) -> Plan:
    """What `run_batch` would do now with this manifest and folder. Free, sends and writes nothing.

    `rate_limit` is that of the client, `max_in_flight` that of `run_batch`. Raises `ValueError` for a bad
    rate.
    """
    if isinstance(rate_limit, str):
        rate_limit = Rate.parse(rate_limit)
    folder = Folder(out)
    known: dict[str, str] = {}
    if folder.store_path.exists():
        store = SQLiteStore(folder.store_path)
        known = {job.key: job.state for job in await store.jobs()}
        await store.aclose()
    settled = going_on = unknown = new = creates = calls = 0
    steps: dict[str, int] = {}
    depth = 1
    for song in manifest.songs:
        record = folder.record(song)
        if record is not None and not (retry_failed and any(record.faults)):
            settled += 1
            continue
        state = known.get(song.key, "reserved")
        if state in ("ambiguous", "sent"):
            unknown += 1
            continue
        if state == "reserved" or (state == "failed" and retry_failed):
            new += 1
            creates += 1
        else:
            going_on += 1
        times = CLIPS if song.clips == "all" else 1
        for step in song.steps:
            steps[step.name] = steps.get(step.name, 0) + times
            if operation_of(song, step).submits:
                creates += times * (1 + CLIPS if step.name == "extend" and times > 1 else 1)
                creates += int(step.name == "extend" and times == 1)
                depth = max(depth, 3 if step.name == "extend" else 2)
            else:
                calls += times
    apart = max(1 / rate_limit.per_second if rate_limit is not None else 0.0, TASK_SECONDS / max_in_flight)
    seconds = creates * apart + depth * TASK_SECONDS if creates or going_on else 0.0
    return Plan(
        songs=len(manifest.songs),
        settled=settled,
        going_on=going_on,
        unknown=unknown,
        new=new,
        creates=creates,
        calls=calls,
        steps=steps,
        rate_limit="none" if rate_limit is None else str(rate_limit),
        seconds=seconds,
    )
