"""The plan of a batch: what a run would do and cost, found without sending anything."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from .._transport.rate_window import Rate
from ..api.account import credits_in
from ..api.local_files import local_files
from ..api.request import PUBLIC_LINK, PUBLISH, body, picture
from ..arguments import check_bools, check_count, check_credits
from ..errors import RequestValidationError, Violation
from ..jobs import Job, JobRequest, SQLiteStore
from ..jobs.job import request_of
from .batch_calls import corrected_key, with_former_ids
from .batch_folder import BatchFolder, SongRecord
from .budget import charged_sends, cost_of, price_name, prices_by_operation
from .manifest import Manifest, Song, operation_of, refuse_rows
from .manifest_formats import RowFault

MAX_TASKS: Final = 64
"""Tasks submitted and not yet ended; at the documented rate about 40 songs run at once."""
CLIPS: Final = 2
"""Clips of a song; the service usually makes two."""
RATE_LIMIT: Final = "1/3s"
"""Creates per time on a standard account (documented)."""
TASK_SECONDS: Final = 120.0
"""Seconds that a task takes, in the middle of the one to four minutes that users report."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The work of a run: numbers of songs, and the expected calls, time and cost.

    Args:
        songs: the number of songs in the manifest.
        settled: songs that need no more work.
        going_on: songs that were submitted and would be waited for.
        unknown: songs that need a decision, see `musicapi jobs`.
        new: songs that would be submitted.
        creates: the expected number of tasks, with two clips for each song.
        calls: the expected number of other paid calls.
        steps: the expected number of calls, by the name of the step.
        rate_limit: the rate of creates, 'none' without one.
        seconds: the expected time in seconds.
        cost: the credits for the calls whose price is known; None if no price is known.
        unpriced: the number of calls without a known price, by the name of the step; those of earlier runs,
            too.
        spent: the credits that the folder has cost so far, by the same prices.
        budget: the budget.
        over_budget: True if `cost` and `spent` together exceed the `budget`.
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
    cost: float | None = None
    unpriced: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    spent: float = 0.0
    budget: float | None = None
    over_budget: bool = False


async def plan_batch(
    manifest: Manifest,
    out: str | os.PathLike[str],
    *,
    retry_failed: bool = False,
    rate_limit: Rate | str | None = RATE_LIMIT,
    max_in_flight: int = MAX_TASKS,
    budget: float | None = None,
    prices: Mapping[str, float] | None = None,
) -> Plan:
    """Return the work that `run_batch` would do with this manifest and folder. Free, sends and writes
    nothing.

    Args:
        manifest: The songs.
        out: The folder of the batch; it need not exist.
        retry_failed: As for `run_batch`.
        rate_limit: The rate of the client, such as '20/10s'; None: no limit.
        max_in_flight: As for `run_batch`.
        budget: The credits for the whole folder, to compare the cost with.
        prices: The prices in credits, by the name of a step or an operation. Those in the folder are known.

    Returns:
        The plan.

    Raises:
        RequestValidationError: A price names no step or operation, or an argument has a wrong value.
        FolderError: The prices in the folder are damaged, or workers carry out its batch.
        ValueError: The rate is malformed.
    """
    check_settings(budget, max_in_flight, retry_failed)
    if isinstance(rate_limit, str):
        rate_limit = Rate.parse(rate_limit)
    folder = BatchFolder(out)
    folder.check_not_shared()
    known_prices = {**folder.prices(), **prices_by_operation(prices)}
    jobs: list[Job] = []
    if folder.store_path.exists():
        store = SQLiteStore(folder.store_path)
        jobs = await store.jobs()
        await store.aclose()
    manifest = with_former_ids(manifest, jobs, _request_of)
    work = _Work(jobs, retry_failed=retry_failed)
    for song in manifest.songs:
        work.add(song, folder.record(song))
    sends = charged_sends(jobs)
    spent = cost_of(sends, known_prices)
    count = work.creates.total()
    apart = max(1 / rate_limit.per_second if rate_limit is not None else 0.0, TASK_SECONDS / max_in_flight)
    expected = work.creates + work.calls
    priced = {name: number for name, number in expected.items() if name in known_prices}
    cost = cost_of(priced, known_prices) if known_prices else None
    return Plan(
        songs=len(manifest.songs),
        settled=work.settled,
        going_on=work.going_on,
        unknown=work.unknown,
        new=work.new,
        creates=count,
        calls=work.calls.total(),
        steps=dict(+work.steps),
        rate_limit="none" if rate_limit is None else str(rate_limit),
        seconds=count * apart + work.depth * TASK_SECONDS if count or work.going_on else 0.0,
        cost=cost,
        unpriced={
            price_name(name): number
            for name, number in (expected + sends).items()
            if cost is not None and name not in known_prices
        },
        spent=spent,
        budget=budget,
        over_budget=budget is not None and cost is not None and credits_in(spent, cost) > budget,
    )


class _Work:
    """The work that the songs of a batch still need, as its jobs say; see `Plan`."""

    def __init__(self, jobs: Sequence[Job], *, retry_failed: bool) -> None:
        self._known: Final = {job.key: job for job in jobs}
        self._retry_failed: Final = retry_failed
        self._sent: Final = _sent_steps(jobs, retry_failed=retry_failed)
        self.settled = self.going_on = self.unknown = self.new = 0
        self.steps: Final[Counter[str]] = Counter()
        self.creates: Final[Counter[str]] = Counter()
        self.calls: Final[Counter[str]] = Counter()
        self.depth = 1
        """Tasks of one song that follow one another."""

    def add(self, song: Song, record: SongRecord | None) -> None:
        """Count a song and its steps."""
        if record is not None and record.settles(song, retry_failed=self._retry_failed):
            self.settled += 1
            return
        job = self._known.get(song.key)
        while job is not None and job.state == "failed":
            corrected = self._known.get(corrected_key(song.key, job))
            if corrected is None:
                break
            job = corrected
        state = job.state if job is not None else "reserved"
        if state in ("ambiguous", "sent"):
            self.unknown += 1
            return
        if state == "reserved" or (state == "failed" and self._retry_failed):
            self.new += 1
            self.creates[song.operation] += 1
        else:
            self.going_on += 1
        times = CLIPS if song.clips == "all" else 1
        for step in song.steps:
            key = f"{song.stored_id}/{step.name}"
            wanted = max(0, times - self._sent[key, step.operation])
            self.steps[step.name] += wanted
            submits = operation_of(song, step).submits
            (self.creates if submits else self.calls)[step.operation] += wanted
            if step.name == "extend":
                joins = times * (CLIPS if times > 1 else 1)
                self.creates["concat_music"] += max(0, joins - self._sent[key, "concat_music"])
            if submits:
                self.depth = max(self.depth, 3 if step.name == "extend" else 2)


def _request_of(song: Song) -> JobRequest:
    """Return the request of a song without what a client adds to it."""
    operation = operation_of(song)
    return request_of("", operation.call_name, msgspec.json.encode(body(operation.request(**song.fields))))


def check_settings(budget: object, max_in_flight: object, retry_failed: object) -> None:
    """Raise `RequestValidationError` for settings of a run that cannot be meant."""
    if budget is not None:
        check_credits("budget", budget)
    check_count("max_in_flight", max_in_flight)
    check_bools(retry_failed=retry_failed)


def _sent_steps(jobs: Iterable[Job], *, retry_failed: bool) -> Counter[tuple[str, str]]:
    """Count the jobs of steps that are not sent again, by song with step and by operation."""
    found: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        song_and_step, _, rest = job.key.rpartition("/")
        song_and_step = song_and_step.rpartition("/")[0]
        if job.state != "reserved" and not (job.state == "failed" and retry_failed):
            found[song_and_step, rest.partition("~")[0]] += 1
    return found


def files_of(song: Song) -> dict[str, Path]:
    """Return the local files of a song by field."""
    operation = operation_of(song)
    return local_files(operation.request(**song.fields), operation.links) if operation.links else {}


def check_no_files(manifest: Manifest) -> None:
    """Raise `RequestValidationError` for local files, which need an `uploader`, by their lines."""
    faults = [
        (song.line, Violation(name, PUBLIC_LINK, picture(song.fields[name])))
        for song in manifest.songs
        for name in files_of(song)
    ]
    if faults:
        raise refuse_rows(manifest.source, faults, PUBLISH)


def no_such_files(manifest: Manifest, missing: Iterable[tuple[Song, str]]) -> RequestValidationError:
    """Return the error for local files that are not there, by songs and fields."""
    faults: list[tuple[int, Violation]] = []
    for song, name in missing:
        path = song.fields[name]
        text = f"{name}: there is no file {path!r}, and it is no public link"
        faults.append((song.line, RowFault(name, "a public link or a local file", picture(path), text)))
    return refuse_rows(manifest.source, faults)
