"""One song of a batch: submitted, waited for, fetched, and its steps after it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import anyio.to_thread
import msgspec

from ..api.families import FAMILIES
from ..api.handle import Task
from ..api.results import Clip, Clips
from ..errors import (
    AuthenticationError,
    BadRequestError,
    DownloadError,
    EndpointRetiredError,
    InsufficientCreditsError,
    JobKeyConflictError,
    JobStoreError,
    MusicAPIError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RequestValidationError,
    SubscriptionRequiredError,
    TaskFailedError,
)
from . import files
from .manifest import Song, Step
from .records import ClipRecord, SongRecord, StepRecord

if TYPE_CHECKING:
    from .runner import Run

log: Final = logging.getLogger("musicapi_async")

HALTING: Final = (AuthenticationError, InsufficientCreditsError, SubscriptionRequiredError)
"""Errors that every further create would meet, too: the batch stops submitting."""
SETTLING: Final = (
    TaskFailedError,
    RequestValidationError,
    BadRequestError,
    PermissionDeniedError,
    NotFoundError,
    EndpointRetiredError,
)
"""Errors that settle a song or a step as failed. All others say nothing of it: the next run goes on.

`JobKeyConflictError` is none of them: it says that something was sent before, so it may be paid for.
"""
KEEPING: Final = "Give it as it was in the run that sent it: what was paid for is still there."

MENDING: Final = "What was paid for is written down: mend the disk and run the same command again."


def disk_fault(error: OSError, folder: Path) -> str:
    """What the disk refused, and where."""
    return f"could not write {error.filename or folder}: {error.strerror or error}"


def _is_of_the_disk(error: MusicAPIError) -> bool:
    cause = error.__cause__  # a TimeoutError is an OSError, too
    return (
        isinstance(error, DownloadError)
        and isinstance(cause, OSError)
        and not isinstance(cause, TimeoutError)
    )


def core(error: MusicAPIError) -> str:
    """What happened without the song that it happened to, so that equal reasons can be told once."""
    status = getattr(error, "status", None)
    told = f"{error.message.rstrip('.')} (HTTP {status})" if status else error.message
    return told.replace(error.task_id, "the task") if error.task_id else told


def _kept_for_later(error: MusicAPIError) -> str:
    """Why a song is left, and what is paid for; without its own ids and links where it is."""
    if isinstance(error, DownloadError):
        link = error.url.partition("?")[0]
        told = error.message.replace(link, f"a file from {urlsplit(link).netloc}") if link else error.message
        return f"{told.rstrip('.')}; paid for and made"
    return f"{core(error).rstrip('.')}; paid for and still running" if error.task_id else str(error)


class Left(Exception):
    """The song is not settled in this run."""


class SongWork:
    """One song on its way; `place` is where it is counted, `ran_at` when it first ran."""

    def __init__(self, run: Run, song: Song, before: SongRecord | None = None) -> None:
        self.run: Final = run
        self.song: Final = song
        self.before: Final = before
        self.place = "submitting"
        self.ran_at: float | None = None
        self.now: Final = run.client.clock.time
        self.record: Final = SongRecord(
            id=song.id,
            line=song.line,
            operation=f"{song.family}.{song.operation}",
            title=song.title,
            fields=song.fields,
            state="done",
            queued_at=run.client.clock.time(),
        )

    async def settle(self) -> SongRecord | None:
        """Bring the song to its end, as far as this run can; its record, or None if it is not settled."""
        run, song, record = self.run, self.song, self.record
        try:
            if self.before is not None and not self.before.open:
                # Whoever is killed after this has paid for it again: the old record must not hide that.
                await anyio.to_thread.run_sync(
                    run.folder.keep, msgspec.structs.replace(self.before, open=True)
                )
            clips = await self._made()
            if clips is not None:
                await self._take(clips)
            await anyio.to_thread.run_sync(run.folder.keep, record)
        except Left as left:
            run.left[song.id] = str(left)
            return None
        except OutcomeUnknownError as error:
            run.unknown[error.job_key or song.key] = str(error)
            return None
        except HALTING as error:
            run.halt(str(error))
            run.left[song.id] = str(error)
            return None
        except JobStoreError:
            raise
        except JobKeyConflictError as error:
            error.hint = KEEPING  # with another key it would be paid for again
            run.left[song.id] = str(error)
            return None
        except MusicAPIError as error:
            if _is_of_the_disk(error):
                run.halt(str(error), by_disk=True)  # whatever is made next could not be written either
                run.left[song.id] = str(error)
            else:
                run.left[song.id] = _kept_for_later(error)
            return None
        except OSError as error:
            run.left[song.id] = f"{disk_fault(error, run.folder.out)}. {MENDING}"
            run.halt(run.left[song.id], by_disk=True)
            return None
        return record

    async def _made(self) -> Clips | None:
        """The clips of the song; None if it failed."""
        record, song = self.record, self.song
        try:
            result, task = await self._result(song.key, song.operation, song.fields, self._moved)
        except HALTING:
            raise
        except SETTLING as error:
            record.state, record.error, record.reason = "failed", str(error), core(error)
            record.task_id = error.task_id or ""
            record.ended_at = self.now()
            if isinstance(error, TaskFailedError):
                record.refunded = error.refunded
            return None
        assert task is not None  # the manifest takes submitting operations only
        record.task_id, record.submitted_at = task.task_id, task.ref.submitted_at
        record.ended_at = self.now()
        return cast("Clips", result.clips)

    def _moved(self, place: str) -> None:
        if place == "running" and self.ran_at is None:
            self.ran_at = self.run.ran()
        self.run.move(self.place, place)
        self.place = place

    async def _result(
        self,
        key: str,
        operation: str,
        fields: Mapping[str, Any],
        moved: Callable[[str], None] = lambda _place: None,
    ) -> tuple[Any, Task[Any] | None]:
        """The result of a paid call; one that makes a task holds a place until the task has ended."""
        run, family = self.run, self.song.family
        if not FAMILIES[family].operations()[operation].submits:
            return await run.obtain(key, family, operation, fields), None
        async with run.places:
            task: Task[Any] = await run.obtain(key, family, operation, fields)
            moved("running")
            try:
                return await task.wait(), task
            except TaskFailedError as error:
                if error.refunded is not False:
                    run.purse.refunded(key)
                raise
            finally:
                moved("fetching")

    # --- files and steps -----------------------------------------------------------------------------------

    async def _take(self, clips: Clips) -> None:
        """Fetch the clips, and do the steps of those that they are wanted for."""
        record = self.record
        record.clips = [_clip_record(clip) for clip in clips]
        pairs = [pair for pair in zip(clips, record.clips, strict=True) if pair[0].is_succeeded]
        if pairs:
            record.title = pairs[0][0].title or record.title
        work: list[Awaitable[None]] = [self._fetch(clip, kept) for clip, kept in pairs]
        chosen = pairs[:1] if self.song.clips == "first" else pairs
        work += [self._step(step, clip, kept) for clip, kept in chosen for step in self.song.steps]
        ended = await asyncio.gather(*work, return_exceptions=True)
        failures = [error for error in ended if isinstance(error, BaseException)]
        for error in failures:
            if isinstance(error, OutcomeUnknownError):
                self.run.unknown[error.job_key or self.song.key] = str(error)
        for error in failures:
            raise error
        for _, kept in chosen:
            order = {step.name: index for index, step in enumerate(self.song.steps)}
            kept.steps.sort(key=lambda step: order[step.name])
        record.fetched_at = self.now()

    async def _fetch(self, clip: Clip, kept: ClipRecord) -> None:
        run, folder = self.run, self.run.folder
        (path,) = await run.client.download(clip, folder.out, name=files.NAME)
        about = {"id": self.song.id, "operation": self.record.operation, "request": self.song.fields}
        about["task_id"] = self.record.task_id
        if run.tags:
            await anyio.to_thread.run_sync(files.write_tags, path, clip)
        await anyio.to_thread.run_sync(files.write_metadata, path, clip, about)
        kept.file = folder.relative(path)
        if clip.image_url:
            try:
                cover = files.linked(clip, clip.image_url)
                (image,) = await run.client.download(cover, folder.out / "covers", name="{clip_id}")
                kept.cover = folder.relative(image)
            except DownloadError as error:
                if _is_of_the_disk(error):
                    raise
                log.warning("no cover of clip %s: %s", clip.clip_id, error)  # the song is there without it
        if run.waveforms:
            kept.peaks = await anyio.to_thread.run_sync(files.wave_form, path)

    async def _step(self, step: Step, clip: Clip, kept: ClipRecord) -> None:
        """One step for one clip; a failure of it is noted and stops no other."""
        done = StepRecord(name=step.name, state="done", submitted_at=self.now())
        try:
            key = self.song.step_key(step, clip.clip_id)
            fields = {**step.fields, step.source: clip.clip_id}
            result, task = await self._result(key, step.operation, fields)
            if step.name == "extend":
                result, task = await self._joined(step, result.clips)
        except HALTING:
            raise
        except SETTLING as error:
            done.state, done.error, done.task_id = "failed", str(error), error.task_id or ""
        else:
            done.ended_at = self.now()
            if task is not None:
                done.task_id, done.submitted_at = task.task_id, task.ref.submitted_at
            else:
                done.reply = getattr(result, "raw", None)
            folder = self.run.folder
            paths = await files.fetch_step(self.run.client, clip, result, folder.out / step.name)
            done.files = [folder.relative(path) for path in paths]
            done.fetched_at = self.now()
        kept.steps.append(done)

    async def _joined(self, step: Step, parts: Clips) -> tuple[Clips, Task[Any] | None]:
        """The extensions joined to the song, each into a full one."""
        full: list[Clip] = []
        last: Task[Any] | None = None
        chosen = parts.succeeded[:1] if self.song.clips == "first" else parts.succeeded
        for part in chosen:
            key = self.song.step_key(step, part.clip_id, "concat_music")
            result, last = await self._result(key, "concat_music", {"continue_clip_id": part.clip_id})
            full += result.clips.succeeded
        return Clips(full), last


def _clip_record(clip: Clip) -> ClipRecord:
    return ClipRecord(
        clip_id=clip.clip_id,
        state=clip.state,
        title=clip.title or "",
        tags=clip.tags or "",
        lyrics=clip.lyrics or "",
        duration=clip.duration,
        error="" if clip.is_succeeded else clip.failure or f"state {clip.state}",
    )
