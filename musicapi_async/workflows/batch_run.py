"""Runs a batch: all songs of a manifest, submitted, waited for and fetched; resumable at any instant."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

import anyio
import anyio.to_thread

from .._error_base import first_in
from ..client import MusicAPI
from ..errors import FolderError, JobKeyConflictError
from ..jobs import SQLiteStore, transitions
from ..jobs.job import difference
from ..jobs.recorder import is_active
from .batch_calls import BatchCalls, with_former_ids
from .batch_folder import SONGS, BatchFolder
from .batch_plan import MAX_TASKS, check_no_files, check_settings, files_of, no_such_files
from .batch_progress import Progress, Tally
from .batch_result import BatchResult, Outcomes
from .budget import Budget, prices_by_operation
from .folder_lock import locked
from .manifest import Manifest, Song
from .page_renewal import BatchPage
from .song_places import Layout, check_name_pattern, gets_tags
from .song_steps import DISK_HINT, BatchSong, SongOutcome, disk_fault, song_step

REPORTED_CHANGES: Final = 20
"""Changed songs that one error names."""


async def run_batch(
    client: MusicAPI,
    manifest: Manifest | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    budget: float | None = None,
    prices: Mapping[str, float] | None = None,
    max_in_flight: int = MAX_TASKS,
    retry_failed: bool = False,
    name: str | None = None,
    tags: bool | None = None,
    waveforms: bool = True,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> BatchResult:
    """Make all songs of a manifest, with their steps, in the folder `out`. Charges credits for each.

    May be repeated: a run with the same manifest and folder continues where the last one ended, and pays for
    nothing twice. If the disk is full or the folder cannot be written, the run submits nothing more, and the
    next run fetches what could not be written.

    Args:
        client: The client. Its rate limit determines how fast songs are submitted. If it has an `uploader`,
            rows may have local files in the place of links.
        manifest: A `.jsonl`, `.csv` or `.tsv` file, or a `Manifest`.
        out: The folder, which is created if it is missing. Only one run at a time can use it.
        budget: The credits for the whole folder, of all its runs. The run stops before a call would exceed
            them. A price that is not in `prices` is learned from the first call of its kind, which is made
            alone and may exceed the budget; if it cannot be learned, nothing more is submitted. None: no
            limit.
        prices: The prices in credits, by the name of a step ('lyrics') or an operation ('create_music').
        max_in_flight: The largest number of unfinished tasks.
        retry_failed: Send failed songs and steps again, with the fields that the manifest has now.
        name: The pattern of file names without extension, for the first run in a folder; later runs have the
            same. Fields: number (of the row), title, take (1 or 2 for the clips of a song), id, clip_id.
            Default: '{number} {title} (take {take})'.
        tags: Write title, artist, album, track, style, lyrics, cover and prompt into the MP3 and WAV files.
            By default True if the extra `[tags]` is installed.
        waveforms: Draw wave forms in the report, and find stems that are silent.
        stop: An event that ends submitting when it is set; submitted songs are still waited for and fetched.
        on_progress: A function that is called with a `Progress` at every change.

    Returns:
        The result of the run, with failures and costs.

    Raises:
        RequestValidationError: The manifest is faulty, its local files are missing or the client has no
            `uploader` for them, a price names no step or operation, or an argument has a wrong value; nothing
            was sent.
        OSError: The manifest cannot be read; nothing was sent.
        JobKeyConflictError: A song was changed under its id or is of another base URL; nothing was sent.
        FolderError: Another run uses the folder, it cannot be written, its first run had another `name`, its
            job store is missing, or its prices are damaged; nothing was sent.
        JobStoreError: The job store cannot be read or written.

    ```python
    result = await run_batch(client, "songs.jsonl", out="out/")
    ```
    """
    check_settings(budget, max_in_flight, retry_failed)
    if name is not None:
        check_name_pattern(name)
    tagged = gets_tags(tags)
    given_prices = prices_by_operation(prices)
    if not isinstance(manifest, Manifest):
        manifest = await anyio.to_thread.run_sync(Manifest.read, manifest)
    if not client.uploads_files:
        check_no_files(manifest)
    folder = BatchFolder(out)
    stop = stop or asyncio.Event()
    with locked(folder.out, SONGS):
        folder.check_store()
        pattern = folder.name_pattern(name)
        numbers = {song.id: number for number, song in enumerate(manifest.songs, 1)}
        layout = Layout(folder.out, pattern, numbers, len(numbers), tagged=tagged)
        store = SQLiteStore(folder.store_path)
        allowance = Budget(budget, client, {**folder.prices(), **given_prices}, folder.save_prices)
        tally = Tally(len(manifest.songs), client.clock, allowance, stop, on_progress)
        calls = BatchCalls(
            client.with_options(store=store),
            allowance,
            tally,
            stop,
            max_in_flight=max_in_flight,
            retry_failed=retry_failed,
        )
        try:
            return await _Run(manifest, folder, calls, layout, waveforms=waveforms).carry_out()
        except OSError as error:
            raise FolderError(disk_fault(error, folder.out), hint=DISK_HINT) from error
        finally:
            allowance.close()
            await store.aclose()


class _Run:
    """One run over a folder that is locked."""

    def __init__(
        self,
        manifest: Manifest,
        folder: BatchFolder,
        calls: BatchCalls,
        layout: Layout,
        *,
        waveforms: bool,
    ) -> None:
        self._manifest = manifest
        self._folder: Final = folder
        self._calls: Final = calls
        self._tally: Final = calls.tally
        self._layout: Final = layout
        self._waveforms: Final = waveforms
        self._page: Final = BatchPage(folder, calls)
        self._outcomes: Final = Outcomes()

    async def carry_out(self) -> BatchResult:
        """Run all songs, twice as many at once as tasks may run, so that others fetch meanwhile."""
        await self._prepare()
        workers = min(2 * self._calls.max_in_flight, len(self._manifest.songs))
        songs = iter(self._manifest.songs)
        try:
            async with self._page.followed(self._manifest), anyio.create_task_group() as group:
                for _ in range(workers):
                    group.start_soon(self._work, songs)
        except BaseExceptionGroup as errors:
            error = first_in(errors)
            if isinstance(error, Exception):
                await self._page.finish(self._outcomes.unfinished)
            raise error from None
        spent_now = await self._calls.budget.spent_now()
        await self._page.finish(self._outcomes.unfinished)
        calls, counts, outcomes = self._calls, self._tally.counts, self._outcomes
        return BatchResult(
            done=counts["done"],
            failed=counts["failed"],
            failed_steps=self._tally.failed_steps,
            failures=outcomes.failures,
            step_failures=outcomes.step_failures(self._manifest.songs),
            unknown=outcomes.unknown,
            unfinished=outcomes.unfinished,
            halted=calls.halted,
            disk_failed=calls.disk_failed,
            submitted=self._tally.submitted,
            spent_now=spent_now,
            spent=calls.budget.displayed,
            hint=outcomes.hint,
            report=self._page.path,
        )

    async def _prepare(self) -> None:
        calls, now = self._calls, self._calls.client.clock.time()
        for job in await calls.store.jobs("reserved", "sent"):
            # No other run has the folder, so what another machine began has ended. A call of a process of
            # this one may be under way: that of a run whose caller gave up, or of another program.
            gone = transitions.recover(lambda owner: is_active(owner) or False, now)
            await calls.store.change(job.key, gone, account=job.account)
        jobs = await calls.store.jobs()
        self._manifest = with_former_ids(self._manifest, jobs, lambda song: calls.request(song_step(song)))
        await anyio.to_thread.run_sync(self._folder.begin, self._layout.pattern)
        await check_unchanged(self._manifest, self._calls, {job.key for job in jobs})
        if calls.budget.limit is not None:
            await anyio.to_thread.run_sync(self._folder.save_prices, calls.budget.prices)
            calls.budget.restore(jobs)

    async def _work(self, songs: Iterator[Song]) -> None:
        for song in songs:
            self._tally.move("queued", "submitting")
            record = await anyio.to_thread.run_sync(self._folder.record, song)
            if record is not None and record.settles(song, retry_failed=self._calls.retry_failed):
                place, outcome = "submitting", SongOutcome(record=record)
            else:
                work = BatchSong(
                    song,
                    self._calls,
                    self._folder,
                    before=record,
                    layout=self._layout,
                    waveforms=self._waveforms,
                )
                with self._page.active(work):
                    outcome = await work.settle()
                place = work.place
            self._tally.move(place, self._count(song, outcome))

    def _count(self, song: Song, outcome: SongOutcome) -> str:
        """Note how a song ended; return where it is counted."""
        self._outcomes.unknown.update(outcome.unknown)
        record = outcome.record
        if record is None:
            if outcome.unfinished:
                self._outcomes.unfinished[song.id] = outcome.unfinished
            return "unfinished" if outcome.unfinished else "unknown"
        self._tally.failed_steps += self._outcomes.settled(song, record)
        return record.state


async def check_unchanged(manifest: Manifest, calls: BatchCalls, sent: Collection[str]) -> None:
    """Refuse songs that were sent before with other fields, and files that are missing. Sends nothing.

    Args:
        manifest: The songs.
        calls: Knows their jobs and requests.
        sent: The keys of all jobs; those of others that may have one are allowed.

    Raises:
        JobKeyConflictError: Songs were changed.
        RequestValidationError: Files are missing.
    """
    conflicts: list[str] = []
    missing: list[tuple[Song, str]] = []
    hints: set[str] = set()
    for song in manifest.songs:
        step = song_step(song)
        known = None
        if song.key in sent:
            known = await calls.client.job(await calls.key_for(step, song.key))
        if known is None:
            for name, path in files_of(song).items():
                if not await anyio.to_thread.run_sync(path.is_file):
                    missing.append((song, name))
            continue
        now = await calls.request_beside(step, known.request)
        if changed := difference(known.request, now):
            conflicts.append(f"line {song.line} (id {song.id!r}): {', '.join(changed)}")
            if known.request.base_url != now.base_url:
                hints.add(f"Use the base_url of the first run, {known.request.base_url}.")
            if any(not line.startswith("base_url:") for line in changed):
                hints.add("Give a changed song another id, or use another folder.")
    if conflicts:
        raise JobKeyConflictError(
            f"{manifest.source}: songs that were sent before have other fields now: "
            + "; ".join(conflicts[:REPORTED_CHANGES]),
            difference=conflicts,
            hint=" ".join(sorted(hints, reverse=True)),
        )
    if missing:
        raise no_such_files(manifest, missing)
