"""The page of a run while it is on: renewed as songs settle, and written once more at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from ..errors import MusicAPIError
from .batch_calls import BatchCalls
from .batch_folder import BatchFolder
from .batch_report import PAGE, can_write_pages, song_costs, unknown_songs, write_page
from .manifest import Manifest
from .report_overview import PageState
from .run_record import RunRecord
from .song_steps import DISK_HINT, BatchSong, disk_fault

log: Final = logging.getLogger("musicapi_async")

RENEWED: Final = 10.0
"""Seconds between two pages of a run; an open page loads itself as often."""
RENEWED_PER_SONG: Final = 0.05
"""Seconds for each song, from 200 songs on; writing one takes below 1 ms (`benchmarks/batch_page.py`)."""
UNCHANGED: Final = 6
"""Renewals after which the page is written without news, too: an open page that finds twelve times the same
takes the run for stopped, and songs with many stems are silent for longer."""


class BatchPage:
    """The page of one run.

    Args:
        folder: The folder of the batch.
        calls: Says what the run has spent; submits nothing more when the disk is full.
    """

    def __init__(self, folder: BatchFolder, calls: BatchCalls) -> None:
        self.path: Final[Path | None] = folder.out / PAGE if can_write_pages() else None
        self._folder: Final = folder
        self._calls: Final = calls
        self._active: Final[dict[str, BatchSong]] = {}
        self._renewed: Final = max(RENEWED, RENEWED_PER_SONG * calls.tally.total)
        self._run: RunRecord | None = None

    @contextmanager
    def active(self, song: BatchSong) -> Generator[None]:
        """Within this context the page displays where a song is on its way."""
        song_id = song.song.stored_id
        self._active[song_id] = song
        try:
            yield
        finally:
            del self._active[song_id]

    @asynccontextmanager
    async def followed(self, manifest: Manifest) -> AsyncGenerator[None]:
        """Record that a run begins, and renew the page within this context."""
        now = self._calls.client.clock.time()
        self._run = await anyio.to_thread.run_sync(RunRecord.begin, manifest, self._folder.out, now)
        self._run.budget = self._calls.budget.limit
        await anyio.to_thread.run_sync(self._run.save, self._folder.out)
        following = asyncio.ensure_future(self._follow())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait([following])

    async def _follow(self) -> None:
        clock, tally = self._calls.client.clock, self._calls.tally
        before, unchanged = "", 0
        while True:
            now = str((tally.counts, tally.submitted))
            unchanged = unchanged + 1 if now == before else 0
            if unchanged % UNCHANGED == 0:
                try:
                    await self._write()
                except MusicAPIError as error:  # of the job store, which the songs meet, too
                    log.debug("the page was not renewed: %s", error)
                before = now
            await clock.sleep(self._renewed)

    async def finish(self, unfinished: Mapping[str, str]) -> None:
        """Record how the run ended, and write its last page; what cannot be written loses nothing else."""
        if self._run is None:
            return
        calls, now = self._calls, self._calls.client.clock.time()
        self._run.ended_at, self._run.halted = now, calls.halted
        self._run.unfinished = dict(unfinished)
        try:
            await anyio.to_thread.run_sync(self._run.save, self._folder.out)
            await self._write()
        except OSError as error:
            calls.halt(f"{disk_fault(error, self._folder.out)}. {DISK_HINT}", by_disk=True)

    async def _write(self) -> None:
        """Write the page as the batch is now. Raises `OSError`, but while the run is on."""
        run = self._run
        if self.path is None or run is None:
            return
        calls, ended = self._calls, run.ended_at > 0
        prices = calls.budget.prices
        jobs = await calls.store.jobs() if ended and prices else []
        unknown = await calls.store.jobs("ambiguous")
        state = PageState(
            run=msgspec.structs.replace(run),
            written_at=calls.client.clock.time(),
            renewed=self._renewed,
            states=unknown_songs(run, unknown)
            | {song_id: song.place for song_id, song in self._active.items()},
            costs=song_costs(run, jobs, prices),
            unknown=unknown,
            spent=calls.budget.spent_text,
        )
        writing = asyncio.ensure_future(anyio.to_thread.run_sync(write_page, self.path, self._folder, state))
        try:
            await asyncio.wait({writing})
        except asyncio.CancelledError:  # its thread continues, and a later page must not come before it
            await asyncio.wait({writing})
            writing.exception()
            raise
        with suppress(FileExistsError) if ended else suppress(OSError):  # another process writes it just now
            writing.result()
