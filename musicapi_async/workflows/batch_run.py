"""Runs a batch: all songs of a manifest, submitted, waited for and fetched; resumable at any instant."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, cast

import anyio
import anyio.to_thread
import msgspec

from ..client import MusicAPI
from ..errors import BatchError, JobKeyConflictError
from ..jobs import SQLiteStore, transitions
from ..jobs.job_request import difference
from . import step_files
from .batch_calls import BatchCalls
from .batch_folder import BatchFolder
from .batch_plan import MAX_IN_FLIGHT
from .batch_progress import Progress, Tally
from .batch_report import write_report
from .batch_song import DISK_HINT, BatchSong, SongOutcome, disk_fault
from .budget import Budget, prices_by_operation
from .manifest import Manifest, Song, operation_of
from .steps import Step

REPORTED: Final = 20
"""Changed songs that one error names."""
RETRY_HINT: Final = "To send what failed again, which is charged again: run_batch(..., retry_failed=True)."


class StepFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A step that failed: the id and the line of its song, its name, the clip, and the reason."""

    id: str
    line: int
    step: str
    clip_id: str
    reason: str


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    `done` and `failed` count songs, `failed_steps` the steps that failed for songs that are done; `failures`
    maps the ids of failed songs to why, `step_failures` lists failed steps. `unknown` maps the job keys of
    unknown outcome to why, `left` the ids of songs that are not settled. `halted` is why submitting stopped
    early, or ''; `disk_failed` tells that it was the disk and not the account. `submitted` counts paid calls.
    `spent_now` is what this run has cost in credits: with a budget by its prices, else by the balance, which
    other calls of the account move, too (None: it could not be read). `spent` is what the whole folder has
    cost, with a budget. `report` is the page, `hint` what to do about failures, or ''.
    """

    done: int
    failed: int
    failed_steps: int = 0
    failures: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    step_failures: list[StepFailure] = msgspec.field(default_factory=list[StepFailure])
    unknown: dict[str, str]
    left: dict[str, str]
    halted: str
    disk_failed: bool = False
    submitted: int
    spent_now: float | None = None
    spent: float | None
    hint: str = ""
    report: Path

    @property
    def complete(self) -> bool:
        """Every song is settled, which does not say that none failed."""
        return not self.unknown and not self.left


async def run_batch(
    client: MusicAPI,
    manifest: Manifest | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    budget: float | None = None,
    prices: Mapping[str, float] | None = None,
    max_in_flight: int = MAX_IN_FLIGHT,
    retry_failed: bool = False,
    tags: bool = False,
    waveforms: bool = True,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> BatchResult:
    """Make all songs of a manifest, with their steps, in the folder `out`. Charges credits for each.

    May be repeated: with the same manifest and folder it continues where it ended, however it ended, and pays
    for nothing twice. When the disk is full or the folder can no longer be written, it submits nothing more,
    and leaves what it cannot write for the next run.

    Args:
        client: Who pays. Its rate limit decides how fast songs are submitted.
        manifest: A `.jsonl`, `.csv` or `.tsv` file, or a `Manifest`.
        out: The folder, which is made if it is missing. One run at a time holds it.
        budget: Credits for the whole folder, all runs together: the run stops before they are passed, as far
            as prices are known. What is not in `prices` is learned from the first call of its kind, which is
            made alone and may pass the budget.
        prices: Credits by the name of a step ('lyrics') or an operation ('create_music').
        max_in_flight: Tasks that run at once.
        retry_failed: Send failed songs and steps again, with their new fields if the manifest was corrected.
        tags: Write ID3 tags into the MP3 files.
        waveforms: Draw wave forms in the report.
        stop: Ends submitting when it is set: what was submitted is still waited for and fetched.
        on_progress: Gets a `Progress` for every change.

    Returns:
        How the run ended, failures and costs included.

    Raises:
        RequestValidationError: The manifest is faulty, or a price is of no step; nothing was sent.
        JobKeyConflictError: A song was changed under its id or is of another base URL; nothing was sent.
        BatchError: Another run holds the folder, or it cannot be written; nothing was sent.
        JobStoreError: The job store cannot be read or written.

    ```python
    result = await run_batch(client, "songs.jsonl", out="out/")
    ```
    """
    if tags:
        step_files.check_tagging()
    given_prices = prices_by_operation(prices)
    if not isinstance(manifest, Manifest):
        manifest = await anyio.to_thread.run_sync(Manifest.read, manifest)
    folder = BatchFolder(out)
    stop = stop or asyncio.Event()
    with folder.locked():
        folder.check_store()
        store = SQLiteStore(folder.store_path)
        allowance = Budget(budget, client, {**folder.prices(), **given_prices}, folder.save_prices)
        tally = Tally(len(manifest.songs), client.clock, allowance, stop, on_progress)
        calls = BatchCalls(
            client.with_options(store=store),
            store,
            allowance,
            tally,
            stop,
            max_in_flight=max_in_flight,
            retry_failed=retry_failed,
        )
        try:
            return await _Run(manifest, folder, calls, tally, tags=tags, waveforms=waveforms).carry_out()
        except OSError as error:
            raise BatchError(disk_fault(error, folder.out), hint=DISK_HINT) from error
        finally:
            calls.close()
            await store.aclose()


class _Run:
    """One run over a folder that is locked."""

    def __init__(
        self,
        manifest: Manifest,
        folder: BatchFolder,
        calls: BatchCalls,
        tally: Tally,
        *,
        tags: bool,
        waveforms: bool,
    ) -> None:
        self._manifest: Final = manifest
        self._folder: Final = folder
        self._calls: Final = calls
        self._tally: Final = tally
        self._tags: Final = tags
        self._waveforms: Final = waveforms
        self._report: Final = folder.out / "report.html"
        self._failures: Final[dict[str, str]] = {}
        self._step_failures: Final[dict[str, list[StepFailure]]] = {}
        self._unknown: Final[dict[str, str]] = {}
        self._left: Final[dict[str, str]] = {}

    async def carry_out(self) -> BatchResult:
        """Run all songs, twice as many at once as tasks may run, so that others fetch meanwhile."""
        await self._prepare()
        workers = min(2 * self._calls.max_in_flight, len(self._manifest.songs))
        songs = iter(self._manifest.songs)
        try:
            async with anyio.create_task_group() as group:
                for _ in range(workers):
                    group.start_soon(self._work, songs)
        except BaseExceptionGroup as errors:
            error = _first(errors)
            if isinstance(error, Exception):
                await self._write_report()
            raise error from None
        spent_now = await self._calls.spent_now()
        await self._write_report()
        calls, counts = self._calls, self._tally.counts
        failed_steps = [
            failure for song in self._manifest.songs for failure in self._step_failures.get(song.id, ())
        ]
        return BatchResult(
            done=counts["done"],
            failed=counts["failed"],
            failed_steps=len(failed_steps),
            failures=self._failures,
            step_failures=failed_steps,
            unknown=self._unknown,
            left=self._left,
            halted=calls.halted,
            disk_failed=calls.disk_failed,
            submitted=self._tally.submitted,
            spent_now=spent_now,
            spent=calls.budget.spent if calls.budget.limit is not None else None,
            hint=RETRY_HINT if self._failures or failed_steps else "",
            report=self._report,
        )

    async def _write_report(self) -> None:
        """Write the page; one that cannot be written loses nothing else."""
        records = self._folder.records(song.id for song in self._manifest.songs)
        unsettled = {**self._unknown, **self._left}
        try:
            await anyio.to_thread.run_sync(
                write_report, self._report, records, unsettled, self._tally.summary()
            )
        except OSError as error:
            self._calls.halt(f"{disk_fault(error, self._folder.out)}. {DISK_HINT}", by_disk=True)

    # --- before the first credit ---------------------------------------------------------------------------

    async def _prepare(self) -> None:
        calls, now = self._calls, self._calls.client.clock.time()
        for job in await calls.store.jobs("reserved", "sent"):
            # The folder is ours alone, so the process that held these is gone, even on another machine.
            await calls.store.change(job.key, transitions.recover(lambda _owner: False, now))
        await anyio.to_thread.run_sync(self._folder.begin)
        await self._check_unchanged()
        if calls.budget.limit is not None:
            await anyio.to_thread.run_sync(self._folder.save_prices, calls.budget.prices)
        await calls.restore_budget()

    async def _check_unchanged(self) -> None:
        """Refuse songs that were sent before with other fields. Sends nothing."""
        conflicts: list[str] = []
        hints: set[str] = set()
        for song in self._manifest.songs:
            step = Step("song", operation_of(song), song.fields, song.family)
            known = await self._calls.store.get(await self._calls.key_for(step, song.key))
            if known is None:
                continue
            now = self._calls.request(step)
            if changed := difference(known.request, now):
                conflicts.append(f"line {song.line} (id {song.id!r}): {', '.join(changed)}")
                if known.request.base_url != now.base_url:
                    hints.add(f"Use the base_url of the first run, {known.request.base_url}.")
                if any(not line.startswith("base_url:") for line in changed):
                    hints.add("Give a changed song another id, or use another folder.")
        if conflicts:
            raise JobKeyConflictError(
                f"{self._manifest.source}: songs that were sent before have other fields now: "
                + "; ".join(conflicts[:REPORTED]),
                difference=conflicts,
                hint=" ".join(sorted(hints, reverse=True)),
            )

    # --- one song after the other --------------------------------------------------------------------------

    async def _work(self, songs: Iterator[Song]) -> None:
        for song in songs:
            self._tally.move("queued", "submitting")
            record = await anyio.to_thread.run_sync(self._folder.record, song)
            retry = self._calls.retry_failed
            if record is not None and not record.open and not (retry and any(record.faults)):
                place, outcome = "submitting", SongOutcome(record=record)
            else:
                work = BatchSong(
                    song,
                    self._calls,
                    self._folder,
                    self._tally,
                    before=record,
                    tags=self._tags,
                    waveforms=self._waveforms,
                )
                outcome = await work.settle()
                place = work.place
            self._tally.move(place, self._count(song, outcome))

    def _count(self, song: Song, outcome: SongOutcome) -> str:
        """Note how a song ended; return where it is counted."""
        self._unknown.update(outcome.unknown)
        record = outcome.record
        if record is None:
            if outcome.left:
                self._left[song.id] = outcome.left
            return "left" if outcome.left else "unknown"
        if record.state == "failed":
            self._failures[song.id] = record.reason or record.error
            return "failed"
        failed_steps = [
            StepFailure(
                id=song.id,
                line=song.line,
                step=step.name,
                clip_id=clip.clip_id,
                reason=step.reason or step.error,
            )
            for clip, step in record.failed_steps
        ]
        if failed_steps:
            self._step_failures[song.id] = failed_steps
            self._tally.failed_steps += len(failed_steps)
        return "done"


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(cast("BaseExceptionGroup[BaseException]", error)) if hasattr(error, "exceptions") else error
