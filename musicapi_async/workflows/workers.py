"""Batches that workers carry out, on any number of machines: the extra `[workers]`.

The guide is in the docstring of `musicapi_async.workflows`.

No song is paid for twice: each call of a row has a job key that follows from the batch and the row, in the
job store that all workers share. The queue only assigns rows to workers. If two workers have the same row,
one after the other or by mistake at once, the second one finds the call of the first in the store, and sends
nothing.

No song is lost: a row stays in the queue until its files are in the folder and its record is written. A
worker that ends returns its rows to the queue; the rows of a killed worker are taken over
`PostgresStore.lease` seconds after its last heartbeat. A call that was being sent then has an unknown
outcome, and is listed.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from ..api.request import SECRET
from ..client import MusicAPI
from ..errors import FolderError, Violation
from ..extras import require
from ..files import expand
from ..jobs import Job
from .batch_folder import SONGS, BatchFolder, SharedBatch
from .batch_plan import MAX_TASKS, check_no_files, check_settings
from .batch_report import PAGE, STATES, can_write_pages, unknown_songs, write_page
from .batch_result import BatchResult, Outcomes
from .batch_run import check_unchanged
from .folder_lock import locked
from .manifest import Manifest, refuse_rows
from .manifest_formats import RowFault
from .report_overview import PageState
from .run_record import RowRecord, RunRecord, read_run, song_id_of
from .song_places import check_name_pattern, gets_tags
from .song_steps import DISK_HINT, SongOutcome, disk_fault

require("The queue of workers", "workers", "procrastinate", "psycopg")
from ..jobs.postgres import PostgresStore  # noqa: E402
from ..jobs.postgres_tickets import Usage, usage  # noqa: E402
from .row_queue import QueueState, Row, RowQueue, WorkerSign, shared_store  # noqa: E402
from .row_worker import RowCalls, RowEnd, WorkerResult, batch_of, run_worker  # noqa: E402

__all__ = [
    "QueueState",
    "Queued",
    "RowEnd",
    "Usage",
    "WorkerResult",
    "WorkerSign",
    "WorkerState",
    "put_batch",
    "report_batch",
    "run_worker",
    "withdraw_batch",
    "worker_state",
]

DECIDED: Final = "its unknown outcome was decided since: queue the batch again"
NOT_QUEUED: Final = "not queued: queue the batch again"
PLACES: Final = {"todo": "queued", "doing": "under way"}

_note_decoder: Final = msgspec.json.Decoder(SongOutcome)


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """The songs of a batch that was queued: in all, queued now, queued or under way before, and settled."""

    songs: int
    queued: int
    known: int
    settled: int


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of an account, its workers, and the use of its rate: see `QueueState` and `Usage`."""

    account: str
    queue: QueueState
    usage: Usage


async def put_batch(
    client: MusicAPI,
    manifest: Manifest | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    retry_failed: bool = False,
    name: str | None = None,
    tags: bool | None = None,
    waveforms: bool = True,
) -> Queued:
    """Queue the songs of a manifest for workers. Free, may be repeated; the workers' calls charge credits.

    Songs that are settled, queued or under way are not queued again.

    Args:
        client: The account that pays, and its store, a `PostgresStore`.
        manifest: A `.jsonl`, `.csv` or `.tsv` file, or a `Manifest`, without local files and secrets.
        out: The folder, which must have this path on all machines.
        retry_failed: Send songs and steps that have failed until now again, each once.
        name: The pattern of file names, for the first time that songs of a folder are queued; as in
            `run_batch`.
        tags: Write tags into the MP3 and WAV files, as in `run_batch`. By default each worker does that has
            the extra `[tags]`.
        waveforms: Draw wave forms in the report.

    Returns:
        What was queued.

    Raises:
        RequestValidationError: The manifest is faulty, or has local files or secrets; the store is none that
            workers can share.
        OSError: The manifest cannot be read.
        JobKeyConflictError: A song was changed under its id.
        FolderError: The folder cannot be written, it is of a batch without workers, its jobs are in another
            database, or its files have names of another pattern.
        JobStoreError: The database cannot be used.
    """
    check_settings(None, MAX_TASKS, retry_failed)
    if name is not None:
        check_name_pattern(name)
    gets_tags(tags)
    store = shared_store(client.store)
    manifest = await _read(manifest)
    folder = BatchFolder(_absolute(out))
    with locked(folder.out, SONGS):
        pattern = folder.name_pattern(name)
        batch, is_new = await _shared(folder, store)
        songs = tuple(msgspec.structs.replace(song, batch=batch.id) for song in manifest.songs)
        manifest = Manifest(songs, manifest.source)
        if not is_new:
            calls = RowCalls(client, asyncio.Event(), retry_failed=retry_failed)
            await check_unchanged(manifest, calls, {song.key for song in manifest.songs})
        run = RunRecord.begin(manifest, folder.out, client.clock.time())
        run.job_prefix = f"{batch.id}/"
        queue = await RowQueue.of(client)
        places = await queue.places(batch.id)
        rows: list[Row] = []
        try:
            await anyio.to_thread.run_sync(folder.begin, pattern)
            await anyio.to_thread.run_sync(run.save, folder.out)
            failed = await _failed(store, run) if retry_failed else {}
            for number, song in enumerate(songs, 1):
                record = await anyio.to_thread.run_sync(folder.record, song)
                if record is not None and record.settles(song, retry_failed=retry_failed):
                    continue
                if record is not None and song.stored_id not in places:
                    record.open = True
                    await anyio.to_thread.run_sync(folder.save, record)
                rows.append(
                    Row(
                        batch=batch.id,
                        out=str(folder.out),
                        song=song,
                        number=number,
                        count=len(songs),
                        retry_failed=retry_failed,
                        failed=failed.get(song.stored_id, {}),
                        tags=tags,
                        waveforms=waveforms,
                    )
                )
        except OSError as error:
            raise FolderError(disk_fault(error, folder.out), hint="Nothing was queued.") from error
        queued = await queue.put(rows)
    settled = len(songs) - len(rows)
    return Queued(songs=len(songs), queued=queued, known=len(rows) - queued, settled=settled)


async def report_batch(
    client: MusicAPI,
    *,
    out: str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    embed: bool = False,
) -> BatchResult:
    """Write the page of a batch that workers carry out, with their present progress. Free, on any machine.

    Args:
        client: The account, and its store.
        out: The folder.
        to: The file of the page, as in `write_report`.
        embed: Put songs and covers into the page, as in `write_report`.

    Returns:
        The finished songs, the failures, and the reasons for which other songs are not settled. It has no
        costs, because other calls of the account change the balance, too.

    Raises:
        RequestValidationError: The store is none that workers can share.
        FolderError: The folder is of no batch with workers, its jobs are in another database, or the page
            cannot be written.
        JobStoreError: The database cannot be used.
        ModuleNotFoundError: `to` or `embed` is given, and Jinja2 (extra `[cli]`) is not installed.
    """
    if to is not None or embed:
        require("The page of a batch", "cli", "jinja2")
    store = shared_store(client.store)
    folder = BatchFolder(out)
    batch = await batch_of(folder, store)
    run = await anyio.to_thread.run_sync(read_run, folder.out)
    if run is None:
        raise FolderError(
            f"the record of the rows in {folder.out} is gone",
            hint="Queue the batch again, which writes it; what was paid for is not paid for again.",
        )
    places = await (await RowQueue.of(client)).places(batch.id)
    jobs = await store.jobs("reserved", "sent", "accepted", "ambiguous")
    jobs = [job for job in jobs if job.key.startswith(run.job_prefix)]
    progress = await anyio.to_thread.run_sync(_Progress, folder, run, places, jobs)
    outcomes = progress.outcomes
    state = PageState(
        run=msgspec.structs.replace(run, ended_at=1, unfinished=outcomes.unfinished),
        states=progress.states,
        unknown=[job for job in jobs if job.state == "ambiguous"],
        store=batch.store,
    )
    page = (expand(to) if to is not None else folder.out / PAGE) if can_write_pages() else None
    if page is not None:
        try:
            await anyio.to_thread.run_sync(partial(write_page, page, folder, state, embed=embed))
        except OSError as error:
            raise FolderError(disk_fault(error, page.parent), hint=DISK_HINT) from error
    failures = outcomes.step_failures(run.rows)
    return BatchResult(
        done=progress.counts["done"],
        failed=progress.counts["failed"],
        failed_steps=len(failures),
        failures=outcomes.failures,
        step_failures=failures,
        unknown=outcomes.unknown,
        unfinished=outcomes.unfinished,
        halted="",
        submitted=0,
        spent=None,
        hint=outcomes.hint,
        report=page,
    )


async def withdraw_batch(client: MusicAPI, *, out: str | os.PathLike[str]) -> int:
    """Remove the rows of a folder from the queue; rows that a worker has begun are finished. Free.

    The folder need not exist any more. To continue the batch, queue it again.

    Args:
        client: The account, and its store.
        out: The folder, under the path that it had when the batch was queued.

    Returns:
        The number of removed rows.

    Raises:
        RequestValidationError: The store is none that workers can share.
        JobStoreError: The database cannot be used.
    """
    return await (await RowQueue.of(client)).remove(str(_absolute(out)))


async def worker_state(client: MusicAPI) -> WorkerState:
    """Return the queue of the client's account, its workers, and the use of its rate. Free.

    Raises `RequestValidationError` for a store that workers cannot share, and `JobStoreError`.
    """
    store, account = shared_store(client.store), client.account
    state = await (await RowQueue.of(client)).state()
    used = await store.work(lambda connection: usage(connection, account))
    return WorkerState(account=account, queue=state, usage=used)


def _absolute(out: str | os.PathLike[str]) -> Path:
    """Return the path of a folder as all machines have it: links are not followed, as they may differ."""
    return Path(os.path.abspath(BatchFolder(out).out))


async def _read(manifest: Manifest | str | os.PathLike[str]) -> Manifest:
    """Return the manifest, without what other machines do not have, and what is not stored."""
    if not isinstance(manifest, Manifest):
        manifest = await anyio.to_thread.run_sync(Manifest.read, manifest)
    check_no_files(manifest)
    faults: list[tuple[int, Violation]] = []
    for song in manifest.songs:
        for name in sorted(SECRET & song.fields.keys()):
            text = f"{name} would be stored in the database, where the rows of workers are"
            faults.append((song.line, RowFault(name, "left out", "a secret", text)))
    if faults:
        raise refuse_rows(manifest.source, faults)
    return manifest


async def _shared(folder: BatchFolder, store: PostgresStore) -> tuple[SharedBatch, bool]:
    """Return the batch of a folder, and True if it has just begun."""
    if folder.shared() is not None:
        return await batch_of(folder, store), False
    if folder.store_path.exists():
        raise FolderError(
            f"the batch in {folder.out} has its jobs in the folder, so workers cannot carry it out",
            hint="Nothing was queued. Run it without --workers, or choose another folder.",
        )
    folder.check_store()
    await store.work(lambda _connection: None)
    batch = SharedBatch(f"batch-{uuid.uuid4().hex[:16]}", store.identity, store.name)
    try:
        await anyio.to_thread.run_sync(folder.share, batch)
    except OSError as error:
        raise FolderError(disk_fault(error, folder.out), hint="Nothing was queued.") from error
    return batch, True


async def _failed(store: PostgresStore, run: RunRecord) -> dict[str, dict[str, int]]:
    """Return the failed jobs of each song and how often they were sent, by the ids of songs in the folder."""
    ids = {row.stored_id for row in run.rows}
    found: dict[str, dict[str, int]] = {}
    for job in await store.jobs("failed"):
        if job.key.startswith(run.job_prefix):
            found.setdefault(song_id_of(job.key, ids, run.job_prefix), {})[job.key] = job.attempts
    return found


class _Progress:
    """How far the workers are with a batch; reads the folder, so not for the event loop.

    Args:
        folder: The folder of the batch.
        run: Its rows.
        places: Where rows are in the queue, by the ids of their songs in the folder.
        jobs: Those of the batch that have not ended.
    """

    def __init__(
        self, folder: BatchFolder, run: RunRecord, places: Mapping[str, str], jobs: Sequence[Job]
    ) -> None:
        self.outcomes: Final = Outcomes()
        self.counts: Final[Counter[str]] = Counter()
        self.states: Final[dict[str, str]] = {}
        """The states of unsettled songs on the page."""
        ids = {row.stored_id for row in run.rows}
        submitted = {
            job.key.removeprefix(run.job_prefix).rpartition("/")[0]: STATES[job.state] for job in jobs
        }
        unknown: dict[str, dict[str, str]] = {}
        for job in jobs:
            if job.state == "ambiguous":
                song_id = song_id_of(job.key, ids, run.job_prefix)
                why = f"{job.why.rstrip('.')}. The account may have been charged."
                unknown.setdefault(song_id, {})[job.key] = why
        for row in run.rows:
            record = folder.record(row)
            if record is not None and not record.open:
                self.outcomes.settled(row, record)
                self.counts[record.state] += 1
                continue
            place = places.get(row.stored_id, "")
            noted = _noted(folder, row, unknown.get(row.stored_id, {}))
            self._unsettled(row, PLACES.get(place, ""), noted)
            if place == "todo":
                self.states[row.stored_id] = "queued"
            elif place == "doing":
                self.states[row.stored_id] = submitted.get(row.stored_id, "submitting")
        self.states.update(unknown_songs(run, jobs))

    def _unsettled(self, row: RowRecord, place: str, noted: SongOutcome) -> None:
        self.outcomes.unknown.update(noted.unknown)
        if place or not noted.unknown:
            why = f"{place}; last: {noted.unfinished}" if place and noted.unfinished else place
            self.outcomes.unfinished[row.id] = why or noted.unfinished or NOT_QUEUED


def _noted(folder: BatchFolder, row: RowRecord, unknown: Mapping[str, str]) -> SongOutcome:
    """Return what a worker has noted of a song, as far as it is still true.

    `unknown` are the jobs of the song whose outcome is unknown now, and why.
    """
    try:
        noted = _note_decoder.decode(folder.note(row))
    except (msgspec.MsgspecError, ValueError):
        noted = SongOutcome()
    found = {key: noted.unknown.get(key) or why for key, why in unknown.items()}
    return SongOutcome(unknown=found, unfinished=DECIDED if noted.unknown and not found else noted.unfinished)
