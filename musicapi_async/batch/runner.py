"""Carries a manifest out: submits, waits, fetches, and can be killed at any instant.

What keeps it from paying twice is the store in the folder: every paid call has a job key that follows from
the manifest, so doing everything again after a crash sends only what was never sent. What is kept beside it
(a record for each settled song) only saves looking again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import anyio
import anyio.to_thread
import msgspec

from ..api.families import FAMILIES
from ..api.request import body
from ..api.spelling import did_you_mean
from ..client import MusicAPI
from ..errors import BatchError, JobKeyConflictError, RequestValidationError
from ..files import write_whole
from ..jobs import Job, SQLiteStore, transitions
from ..jobs.job_request import difference, request_of
from . import files
from .manifest import Manifest, Song, operation_of
from .plan import MAX_IN_FLIGHT
from .purse import BudgetReached, Purse
from .records import Folder, SongRecord
from .report import write_report
from .song_work import HALTING, MENDING, Left, SongWork, disk_fault

log: Final = logging.getLogger("musicapi_async")

PLACES: Final = ("queued", "submitting", "running", "fetching", "done", "failed", "unknown", "left")
STOPPED_LOOK: Final = 0.05
"""Seconds between looks at a create that was under way when the batch was stopped."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is, in songs: all, not begun, waiting to be submitted, running at the service, being
    fetched, done, failed, with an unknown outcome, and left for the next run.

    `submitted` counts the creates of this run, steps included; `rate_limit` is how many per minute;
    `left_seconds` is the expected time to the end, None before it can be told. `spent` is in credits, with a
    budget.
    """

    total: int
    queued: int = 0
    submitting: int = 0
    running: int = 0
    fetching: int = 0
    done: int = 0
    failed: int = 0
    unknown: int = 0
    left: int = 0
    submitted: int = 0
    rate_limit: float = 0.0
    left_seconds: float | None = None
    spent: float | None = None
    stopping: bool = False


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. `failures` maps the ids of failed songs to why, `unknown` the job keys whose outcome
    nobody knows, `left` the ids of songs that are not settled; `halted` is why submitting stopped early, or
    ''; `disk_failed` tells whether that was the disk and not the account; `report` is the page.
    """

    done: int
    failed: int
    failures: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    unknown: dict[str, str]
    left: dict[str, str]
    halted: str
    disk_failed: bool = False
    submitted: int
    spent: float | None
    report: Path

    @property
    def complete(self) -> bool:
        """Every song is settled."""
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

    May be repeated: with the same manifest and folder it goes on where it ended, however it ended, and pays
    for nothing twice. `budget` credits for the whole folder stop it before they are passed, as far as prices
    are known: what is not in `prices` (credits by operation) is learned from the first call of its kind,
    which is made alone and may pass the budget. `max_in_flight` tasks at once. `retry_failed` sends failed
    songs and steps again. `tags` writes ID3 tags into the files, `waveforms` draws them in the report.
    `stop` ends submitting when it is set: what was submitted is still waited for and fetched.
    `on_progress` is told of every change.

    When the disk is full or the folder can no longer be written, it submits nothing more, and leaves what it
    cannot write for the next run.

    Returns a `BatchResult`. Raises `RequestValidationError` for a faulty manifest and `JobKeyConflictError`
    for a song that was changed under its id or is of another base URL, both before anything is sent;
    `BatchError` if the folder is in use or cannot be written; `JobStoreError`.

    ```python
    result = await run_batch(client, "songs.jsonl", out="out/")
    ```
    """
    if tags:
        files.check_tagging()
    for name in prices or ():
        if name not in (known := {one for family in FAMILIES.values() for one in family.operations()}):
            told = f"prices: there is no operation {name!r}{did_you_mean(name, known)}"
            raise RequestValidationError(told, field="prices")
    if not isinstance(manifest, Manifest):
        manifest = await anyio.to_thread.run_sync(Manifest.read, manifest)
    folder = Folder(out)
    with folder.locked():
        folder.check_store()
        store = SQLiteStore(folder.store_path)
        try:
            run = Run(
                client.with_options(store=store),
                store,
                folder,
                manifest,
                max_in_flight=max_in_flight,
                retry_failed=retry_failed,
                tags=tags,
                waveforms=waveforms,
                stop=stop or asyncio.Event(),
                on_progress=on_progress or (lambda _progress: None),
                budget=budget,
                prices=prices,
            )
            return await run.carry_out()
        except OSError as error:
            raise BatchError(disk_fault(error, folder.out), hint=MENDING) from error
        finally:
            await store.aclose()


class Run:
    """One run over a folder that is locked."""

    def __init__(
        self,
        client: MusicAPI,
        store: SQLiteStore,
        folder: Folder,
        manifest: Manifest,
        *,
        max_in_flight: int,
        retry_failed: bool,
        tags: bool,
        waveforms: bool,
        stop: asyncio.Event,
        on_progress: Callable[[Progress], None],
        budget: float | None,
        prices: Mapping[str, float] | None,
    ) -> None:
        self.client: Final = client
        self.store: Final = store
        self.folder: Final = folder
        self.manifest: Final = manifest
        self.workers: Final = max_in_flight * 2
        self.places: Final = asyncio.Semaphore(max_in_flight)
        self.retry_failed: Final = retry_failed
        self.tags: Final = tags
        self.waveforms: Final = waveforms
        self.stop: Final = stop
        self.on_progress: Final = on_progress
        self.purse: Final = Purse(
            budget, self._balance, {**self._kept_prices(), **(prices or {})}, self._keep_prices
        )
        self.counts: Final[dict[str, int]] = dict.fromkeys(PLACES, 0)
        self.failures: Final[dict[str, str]] = {}
        self.unknown: Final[dict[str, str]] = {}
        self.left: Final[dict[str, str]] = {}
        self.submitted = 0
        self.begun = 0
        self.last_begun = 0.0
        self.took: Final[list[float]] = [0.0, 0.0]
        """Songs that were run and settled, and how long they took in all."""
        self.halted = ""
        self.disk_failed = False
        self.started = client.clock.now()

    async def carry_out(self) -> BatchResult:
        """All songs, as many at once as there are workers."""
        await self._prepare()
        self.counts["queued"] = len(self.manifest.songs)
        songs = iter(self.manifest.songs)
        try:
            async with anyio.create_task_group() as group:
                for _ in range(min(self.workers, len(self.manifest.songs))):
                    group.start_soon(self._work, songs)
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from None
        ids = (song.id for song in self.manifest.songs)
        report = self.folder.out / "report.html"
        await anyio.to_thread.run_sync(
            write_report, report, self.folder.records(ids), {**self.unknown, **self.left}, self._counted()
        )
        return BatchResult(
            done=self.counts["done"],
            failed=self.counts["failed"],
            failures=self.failures,
            unknown=self.unknown,
            left=self.left,
            halted=self.halted,
            disk_failed=self.disk_failed,
            submitted=self.submitted,
            spent=self.purse.spent if self.purse.budget is not None else None,
            report=report,
        )

    def _counted(self) -> str:
        told = (
            ("done", "done"),
            ("failed", "failed"),
            ("unknown", "with an unknown outcome"),
            ("left", "left"),
        )
        counts = ", ".join(f"{self.counts[name]} {words}" for name, words in told if self.counts[name])
        songs = len(self.manifest.songs)
        return f"{songs} song{'s' if songs != 1 else ''}: {counts}" if counts else ""

    # --- before the first credit ---------------------------------------------------------------------------

    async def _prepare(self) -> None:
        now = self.client.clock.time()
        for job in await self.store.jobs("reserved", "sent"):
            # The folder is ours alone, so whoever held these is gone, even on another machine.
            await self.store.change(job.key, transitions.recover(lambda _holder: False, now))
        await anyio.to_thread.run_sync(self.folder.begin)
        await self._check_unchanged()
        if self.purse.budget is not None:
            self._keep_prices(self.purse.prices)
            for job in await self.store.jobs("accepted", "finished", "failed", "ambiguous"):
                if job.state != "failed" or job.refunded is False:
                    self.purse.charged(job.request.kind, job.key)

    async def _check_unchanged(self) -> None:
        """Refuse songs that would not be asked for as they were, which is found out without sending."""
        conflicts: list[str] = []
        hints: set[str] = set()
        for song in self.manifest.songs:
            known = await self.store.get(song.key)
            if known is None:
                continue
            operation = operation_of(song)
            asked = {**body(operation.request(**song.fields)), **(self.client.options.extra_body or {})}
            now = request_of(self.client.base_url, operation.call_name, msgspec.json.encode(asked))
            if changed := difference(known.request, now):
                conflicts.append(f"line {song.line} (id {song.id!r}): {', '.join(changed)}")
                if known.request.base_url != now.base_url:
                    hints.add(f"Use the base_url of the first run, {known.request.base_url}.")
                if any(not line.startswith("base_url:") for line in changed):
                    hints.add("Give a changed song another id, or use another folder.")
        if conflicts:
            raise JobKeyConflictError(
                f"{self.manifest.source}: songs that were sent before are asked for differently now: "
                + "; ".join(conflicts[:20]),
                difference=conflicts,
                hint=" ".join(sorted(hints, reverse=True)),
            )

    @property
    def _prices_path(self) -> Path:
        return self.folder.home / "prices.json"

    def _kept_prices(self) -> dict[str, float]:
        try:
            return msgspec.json.decode(self._prices_path.read_bytes(), type=dict[str, float])
        except (OSError, msgspec.MsgspecError, ValueError):
            return {}

    def _keep_prices(self, prices: dict[str, float]) -> None:
        write_whole(self._prices_path, msgspec.json.encode(prices))

    async def _balance(self) -> float:
        return (await self.client.credits()).total

    # --- one song after the other --------------------------------------------------------------------------

    async def _work(self, songs: Iterator[Song]) -> None:
        for song in songs:
            self.move("queued", "submitting")
            record = await anyio.to_thread.run_sync(self.folder.record, song)
            if record is None or record.open or (self.retry_failed and any(record.faults)):
                work = SongWork(self, song, record)
                record = await work.settle()
                where = work.place
                if record is not None and work.ran_at is not None:
                    self.took[0] += 1
                    self.took[1] += self.client.clock.now() - work.ran_at
            else:
                where = "submitting"
            self.move(where, self._verdict(song, record))

    def _verdict(self, song: Song, record: SongRecord | None) -> str:
        if record is not None and record.state == "failed":
            self.failures[song.id] = record.reason or record.error
            return "failed"
        if record is not None:
            return "done"
        return "left" if song.id in self.left else "unknown"

    def move(self, before: str, after: str) -> None:
        """A song is counted elsewhere now."""
        if before != after:
            self.counts[before] -= 1
            self.counts[after] += 1
        self._tell()

    def _tell(self) -> None:
        elapsed = self.client.clock.now() - self.started
        open_songs = sum(self.counts[name] for name in ("queued", "submitting", "running", "fetching"))
        self.on_progress(
            Progress(
                total=len(self.manifest.songs),
                **self.counts,
                submitted=self.submitted,
                rate_limit=60 * self.submitted / elapsed if elapsed > 0 else 0.0,
                left_seconds=self._left_seconds(elapsed) if open_songs else None,
                spent=self.purse.spent if self.purse.budget is not None else None,
                stopping=self.stop.is_set() or bool(self.halted),
            )
        )

    def ran(self) -> float:
        """A song runs at the service from now on; the time on the monotonic clock."""
        self.begun += 1
        self.last_begun = self.client.clock.now()
        return self.last_begun

    def _left_seconds(self, elapsed: float) -> float | None:
        """The expected time to the end: until the last song begins, and then what a song takes."""
        settled, seconds = self.took
        if not settled:
            return None
        waiting = self.counts["queued"] + self.counts["submitting"]
        if waiting and not self.stop.is_set() and not self.halted:
            return waiting * elapsed / self.begun + seconds / settled
        left = seconds / settled - (self.client.clock.now() - self.last_begun)
        return left if left > 0 else None

    # --- paid calls ----------------------------------------------------------------------------------------

    async def obtain(self, key: str, family: str, operation: str, fields: Mapping[str, Any]) -> Any:
        """What the key stands for, sent now if it never was: a task, or the reply of a direct call."""
        job = await self.store.get(key)
        again = job is not None and job.state == "failed" and self.retry_failed

        async def call() -> Any:
            view = self.client.with_options(job_key=key)
            return await getattr(getattr(view, family), operation)(**fields)

        async def call_again() -> Any:
            try:
                return await self.client.resubmit(key, webhook_secret=fields.get("webhook_secret"))
            except RequestValidationError as error:  # not sent, so what is known of it stays as it is
                raise Left(str(error)) from error

        if job is not None and not again:
            return await call()  # paid for before, or known to be unknown
        if self.halted or self.stop.is_set():
            raise Left(self.halted or "not submitted: the batch was stopped")
        try:
            async with self.purse.pay(operation, key):
                found = await self._unless_stopped(key, job, call_again if again else call, look=call)
        except BudgetReached as reached:
            self.halt(str(reached))
            raise Left(self.halted) from None
        except HALTING as error:
            self.halt(str(error))
            raise Left(self.halted) from error
        self.submitted += 1
        self._tell()
        return found

    def halt(self, why: str, *, by_disk: bool = False) -> None:
        """Submit nothing more; what is about to leave still does."""
        if not self.halted:
            self.halted, self.disk_failed = why, by_disk
            log.warning("the batch submits nothing more: %s", why)

    async def _unless_stopped(
        self,
        key: str,
        before: Job | None,
        create: Callable[[], Awaitable[Any]],
        *,
        look: Callable[[], Awaitable[Any]],
    ) -> Any:
        """The create, unless the batch is stopped before it leaves. `before` is the job as it was, `look`
        gives what a create that did leave has made, and sends nothing."""
        call = asyncio.ensure_future(create())
        stopped = asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait({call, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                return await call
            call.cancel()
            await asyncio.wait({call})
            if not call.cancelled():
                return await call
            sends = before.attempts if before is not None else 0
            while (job := await self.store.get(key)) is not None and job.attempts > sends:
                if job.state not in ("reserved", "sent"):
                    return await look()  # its answer came after all
                await self.client.clock.sleep(STOPPED_LOOK)
            raise Left("not submitted: the batch was stopped")
        finally:
            call.cancel()
            stopped.cancel()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(cast("BaseExceptionGroup[BaseException]", error)) if hasattr(error, "exceptions") else error
