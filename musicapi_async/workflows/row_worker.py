"""A worker: it carries out the rows of batches, one after the other and thousands at once.

A row is settled as in a batch of one process (`song_steps.BatchSong`); the waits of all rows are those of the
client, whose one loop follows all tasks. The worker fetches rows, and decides how it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from types import MappingProxyType
from typing import Final, TypeVar

import anyio.to_thread
import msgspec

from ..api.task import TaskRef
from ..client import MusicAPI
from ..errors import FolderError, JobStoreError, RequestValidationError
from ..files import BeingWrittenError
from ..jobs import Job, PostgresStore, transitions
from .batch_calls import BatchCalls
from .batch_folder import BatchFolder, SharedBatch
from .batch_plan import MAX_TASKS
from .batch_progress import Progress, Tally
from .budget import Budget
from .manifest import Song
from .queue_engine import PAUSES, TryLater
from .row_queue import Row, RowQueue, TakenRow, shared_store
from .song_places import Layout, gets_tags
from .song_steps import DISK_HINT, BatchSong, SongOutcome, disk_fault
from .step_engine import Step

log: Final = logging.getLogger("musicapi_async")

R = TypeVar("R")

SENDING_PATIENCE: Final = 90.0
"""Seconds that a worker that ends waits for calls that are being sent: longer than one attempt takes."""
CANCELLED_PATIENCE: Final = 5.0
"""The same in seconds of a worker that is cancelled; its calls then end in the background of the client."""


class RowEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a row in a worker: its song and folder, the token of its task, and the reason of a failure.

    `state` is 'done' or 'failed'; 'unknown' if a call is of unknown outcome; 'later' if the row is tried
    again; or 'unfinished' if it was tried often enough.
    """

    id: str
    line: int
    out: str
    state: str
    token: str = ""
    why: str = ""


class WorkerResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a worker: the numbers of its rows by their end.

    `given_back` rows are queued again. `halted` is the reason for which the worker ended by itself, or '';
    `disk_failed` is True if that was the disk or a folder, False if it was the account.
    """

    done: int = 0
    failed: int = 0
    unknown: int = 0
    later: int = 0
    unfinished: int = 0
    given_back: int = 0
    halted: str = ""
    disk_failed: bool = False


async def batch_of(folder: BatchFolder, store: PostgresStore, batch_id: str | None = None) -> SharedBatch:
    """Return the batch of a folder; raise `FolderError` if it is none of this database, or another one."""
    await store.work(lambda _connection: None)
    batch = await anyio.to_thread.run_sync(folder.shared)
    if batch is None or (batch_id is not None and batch.id != batch_id):
        raise FolderError(
            f"the folder {folder.out} has no batch that was queued for workers",
            hint="Nothing was sent. All machines need the folder under the same path, as one user. Rows of a "
            "folder that is gone are removed with `musicapi batch withdraw`.",
        )
    if batch.database != store.identity:
        raise FolderError(
            f"the jobs of the batch in {folder.out} are in the database that was at {batch.store}, and "
            f"{store.name} is another one",
            hint="Nothing was sent, as everything would be paid for again. Bring that database back; or "
            "choose another folder.",
        )
    return batch


class RowCalls(BatchCalls):
    """The calls of one row. There is no budget, and no balance is read: other workers move it, too.

    Args:
        client: The client, whose store is that of the jobs.
        stop: Set when nothing more is to be submitted.
        retry_failed: Send failed jobs again.
        failed: These alone, each if it has been sent no more often than here: so once, in whichever worker.
        submitted: Called when the row no longer waits for the rate.
        sending: Entered around each call that may leave.
    """

    def __init__(
        self,
        client: MusicAPI,
        stop: asyncio.Event,
        *,
        retry_failed: bool,
        failed: Mapping[str, int] = MappingProxyType({}),
        submitted: Callable[[], None] = lambda: None,
        sending: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        def moved(progress: Progress) -> None:
            if not progress.queued and not progress.submitting:
                submitted()

        budget = Budget(None, client, {}, lambda _prices: None, measures=False)
        tally = Tally(1, client.clock, budget, stop, moved)
        tally.counts.update(queued=0, submitting=1)
        self._sending: Final = sending
        self._failed: Final = failed
        super().__init__(
            client,
            budget,
            tally,
            stop,
            max_in_flight=MAX_TASKS,
            retry_failed=retry_failed,
        )

    async def make(self, step: Step[R], key: str) -> R:
        """Return what the job of a step has made; see `BatchCalls.make`."""
        async with self._sending():
            return await super().make(step, key)

    def resubmits(self, job: Job) -> bool:
        """Return True for a failed job that is sent again, and was not since its row was queued."""
        return super().resubmits(job) and self._failed.get(job.key) == job.attempts


async def run_worker(
    client: MusicAPI,
    *,
    stop: asyncio.Event | None = None,
    on_row: Callable[[RowEnd], None] | None = None,
) -> WorkerResult:
    """Carry out queued rows until `stop` is set. Charges credits for each; any number may run at once.

    A worker that is stopped or cancelled returns its rows to the queue: it finishes calls that are being
    sent, and the next worker fetches the songs that are being made. A worker ends by itself if the account or
    the disk refuses all further work, or if the folder of a row does not exist.

    Args:
        client: The account that pays, and its store. The rate is that of the store.
        stop: An event that ends the worker when it is set.
        on_row: A function that is called with a `RowEnd` for each row that has ended.

    Returns:
        The numbers of its rows by their end.

    Raises:
        RequestValidationError: The store is none that workers can share.
        JobStoreError: The database cannot be used at the beginning. Later it waits for it.

    ```python
    async with MusicAPI(store=PostgresStore("postgresql://music@db.example/music")) as client:
        await run_worker(client, stop=stop)
    ```
    """
    queue = await RowQueue.of(client)
    return await _Worker(
        client, shared_store(client.store), queue, stop or asyncio.Event(), on_row
    ).carry_out()


class _Worker:
    """One worker: its rows, and how it ends."""

    def __init__(
        self,
        client: MusicAPI,
        store: PostgresStore,
        queue: RowQueue,
        stop: asyncio.Event,
        on_row: Callable[[RowEnd], None] | None,
    ) -> None:
        self._client: Final = client
        self._store: Final = store
        self._queue: Final = queue
        self._stop_requested: Final = stop
        self._on_row: Final = on_row
        self._stop: Final = asyncio.Event()  # nothing more is submitted
        self._end: Final = asyncio.Event()  # rows are given back
        self._sending = 0
        self._sent: Final = asyncio.Condition()
        self._counts: Final[Counter[str]] = Counter()
        self._halted = ""
        self._disk_failed = False

    async def carry_out(self) -> WorkerResult:
        """Work until the end is requested, then give the rows back."""
        working = asyncio.ensure_future(self._queue.carry_out(self._row))
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stop_requested, self._stop)]
        try:
            await asyncio.wait({working, *waits}, return_when=asyncio.FIRST_COMPLETED)
            self._stop.set()
            if not working.done():
                self._queue.stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(SENDING_PATIENCE), self._sent:
                    await self._sent.wait_for(lambda: not self._sending)
            self._end.set()
            await working
        finally:
            self._stop.set()
            self._end.set()
            for wait in waits:
                wait.cancel()
            if not working.done():
                self._queue.stop()
                await asyncio.wait({working}, timeout=CANCELLED_PATIENCE)
        return WorkerResult(**self._counts, halted=self._halted, disk_failed=self._disk_failed)

    def _halt(self, reason: str, *, by_disk: bool = False) -> None:
        if not self._halted:
            self._halted, self._disk_failed = reason, by_disk
            log.info("the worker ends: %s", reason)  # its result says it, too
        self._stop.set()

    async def _row(self, taken: TakenRow) -> None:
        """Bring a row to its end. Raises `TryLater` if it has none."""
        song, folder = taken.row.song, BatchFolder(taken.row.out)
        try:
            outcome = await self._until_end(self._outcome(taken, folder))
            if outcome is None or (self._stop.is_set() and outcome.record is None and not outcome.unknown):
                self._counts["given_back"] += 1
                raise TryLater(is_given_back=True)
            is_later = outcome.record is None and not outcome.unknown and taken.attempts < len(PAUSES)
            await self._note(folder, song, outcome)
        except (FolderError, OSError) as error:
            text = disk_fault(error, folder.out) if isinstance(error, OSError) else ""
            self._halt(f"{text}. {DISK_HINT}" if text else str(error), by_disk=True)
            self._counts["given_back"] += 1
            raise TryLater(is_given_back=True) from error
        self._report(taken.row, outcome, is_later=is_later)
        if is_later:
            raise TryLater(is_given_back=False)

    async def _until_end(self, work: Coroutine[None, None, R]) -> R | None:
        """Return what work gives; None if rows are given back before."""
        working = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                working.cancel()
                await asyncio.wait({working})
            return None if working.cancelled() else working.result()
        finally:
            working.cancel()
            ended.cancel()

    async def _outcome(self, taken: TakenRow, folder: BatchFolder) -> SongOutcome:
        row, song = taken.row, taken.row.song
        try:
            await batch_of(folder, self._store, row.batch)
            if taken.is_taken_over:
                await self._recover(song)
            before = await anyio.to_thread.run_sync(folder.record, song)
            if before is not None and before.settles(song, retry_failed=row.retry_failed):
                return SongOutcome(record=before)
            calls = RowCalls(
                self._client,
                self._stop,
                retry_failed=row.retry_failed,
                failed=row.failed,
                submitted=taken.submitted,
                sending=self._sending_one,
            )
            work = BatchSong(
                song,
                calls,
                folder,
                before=before,
                layout=await anyio.to_thread.run_sync(_layout_of, row, folder),
                waveforms=row.waveforms,
            )
            outcome = await work.settle()
        except JobStoreError as error:
            return SongOutcome(unfinished=str(error))
        except RequestValidationError as error:  # tags are to be written, and their library is not here
            self._halt(str(error))
            return SongOutcome(unfinished=str(error))
        if calls.halted:
            self._halt(calls.halted, by_disk=calls.disk_failed)
        return outcome

    async def _recover(self, song: Song) -> None:
        """Settle the calls of a row whose worker is gone, perhaps with its machine.

        Should it live after all: what it was about to send is refused to it by the store, and an answer that
        it gets to what it has sent is believed.
        """
        for job in await self._store.jobs("reserved", "sent"):
            if job.key.startswith(song.job_prefix):
                gone = transitions.recover(lambda _owner: False, self._client.clock.time())
                await self._store.change(job.key, gone, account=job.account)

    async def _note(self, folder: BatchFolder, song: Song, outcome: SongOutcome) -> None:
        """Write down for a report why a song is not settled; raises `OSError`."""
        text = "" if outcome.record is not None else msgspec.json.encode(outcome).decode()
        with suppress(BeingWrittenError):  # by another one that has the row by mistake: its own is as good
            await anyio.to_thread.run_sync(folder.save_note, song, text)

    def _report(self, row: Row, outcome: SongOutcome, *, is_later: bool) -> None:
        record, why = outcome.record, outcome.unfinished
        state: str
        if record is not None:
            state, why = record.state, record.reason
        elif outcome.unknown:
            state, why = "unknown", next(iter(outcome.unknown.values()))
        else:
            state = "later" if is_later else "unfinished"
        self._counts[state] += 1
        if self._on_row is not None:
            song, task_id = row.song, record.task_id if record is not None else ""
            token = TaskRef(song.family, task_id).token if task_id else ""
            self._on_row(RowEnd(id=song.id, line=song.line, out=row.out, state=state, token=token, why=why))

    @asynccontextmanager
    async def _sending_one(self) -> AsyncGenerator[None]:
        """Count a call that may leave; a worker that ends waits for it."""
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1
            async with self._sent:
                self._sent.notify_all()


def _layout_of(row: Row, folder: BatchFolder) -> Layout:
    """Return where the files of a row go; raises `RequestValidationError` if they cannot get their tags."""
    pattern, tagged = folder.name_pattern(None), gets_tags(row.tags)
    return Layout(folder.out, pattern, {row.song.id: row.number}, row.count, tagged=tagged)
