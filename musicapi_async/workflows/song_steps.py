"""One song of a batch: submitted, waited for, fetched, and the steps that follow for its clips."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import msgspec

from .._transport.audio_tags import COVER_TIME
from ..api.families import makes_tasks
from ..api.request import SECRET
from ..api.results import Clip, Clips, Result
from ..api.stems import Stems
from ..api.task import Task, ref_of
from ..errors import (
    BadRequestError,
    DownloadError,
    EndpointRetiredError,
    JobKeyConflictError,
    JobStoreError,
    MusicAPIError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RequestValidationError,
    TaskFailedError,
)
from ..files import BeingWrittenError
from ..jobs.reservation import resolving
from . import step_files
from .batch_calls import HALTING, BatchCalls, NotSubmitted, SongWorkflow
from .batch_folder import BatchFolder, ClipRecord, SongRecord, StepRecord
from .extend_and_cover import full_songs
from .manifest import NEEDS_SINGING, Song, SongStep, operation_of
from .song_places import Layout
from .step_engine import Step

log: Final = logging.getLogger("musicapi_async")

SETTLING: Final = (
    TaskFailedError,
    RequestValidationError,
    BadRequestError,
    PermissionDeniedError,
    NotFoundError,
    EndpointRetiredError,
)
"""Errors that settle a song or a step as failed. All others say nothing of it: the next run continues it.

`JobKeyConflictError` is none of them: it says that something was sent before, so it may be paid for.
"""
CONFLICT_HINT: Final = "Give it as it was in the run that sent it: what was paid for is still there."
DISK_HINT: Final = "What was paid for is recorded: free the disk and run the same command again."


def disk_fault(error: OSError, folder: Path) -> str:
    """Return what the disk refused, and where."""
    return f"could not write {error.filename or folder}: {error.strerror or error}"


def _is_of_the_disk(error: MusicAPIError) -> bool:
    cause = error.__cause__  # a TimeoutError is an OSError, too
    return (
        isinstance(error, DownloadError)
        and isinstance(cause, OSError)
        and not isinstance(cause, TimeoutError | BeingWrittenError)
    )


def reason_of(error: MusicAPIError) -> str:
    """Return what happened without the song that it happened to: equal reasons are reported once."""
    status = getattr(error, "status", None)
    text = f"{error.message.rstrip('.')} (HTTP {status})" if status else error.message
    return text.replace(error.task_id, "the task") if error.task_id else text


def _unfinished_text(error: MusicAPIError) -> str:
    """Return why a song is unfinished, and what is paid for, without its ids and links where that can be."""
    if isinstance(error, DownloadError):
        link = error.url.partition("?")[0]
        text = error.message.replace(link, f"a file from {urlsplit(link).netloc}") if link else error.message
        return f"{text.rstrip('.')}; paid for and made"
    return f"{reason_of(error).rstrip('.')}; paid for and still running" if error.task_id else str(error)


def song_step(song: Song) -> Step[Task[Result]]:
    """Return the step that makes a song."""
    return Step("song", operation_of(song), song.fields)


class SongOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a song ended in a run: its `record` if it is settled, else why it is `unfinished`, and the job keys
    of `unknown` outcome with the whole texts."""

    record: SongRecord | None = None
    unfinished: str = ""
    unknown: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class BatchSong:
    """One song on its way through a run.

    Args:
        song: The row of the manifest.
        calls: Makes the paid calls, and counts the song.
        folder: Where files and record go.
        before: Its record of an earlier run.
        layout: Where files go, and what they are called.
        waveforms: Read wave forms for the report.
    """

    def __init__(
        self,
        song: Song,
        calls: BatchCalls,
        folder: BatchFolder,
        *,
        before: SongRecord | None = None,
        layout: Layout,
        waveforms: bool,
    ) -> None:
        self.song: Final = song
        self.place: str = "submitting"
        self._calls: Final = calls
        self._client: Final = calls.client
        self._folder: Final = folder
        self._tally: Final = calls.tally
        self._before: Final = before
        self._layout: Final = layout
        self._waveforms: Final = waveforms
        self._began: float | None = None
        self._unknown: Final[dict[str, str]] = {}
        self._now: Final = calls.client.clock.time
        self._record: Final = SongRecord(
            id=song.stored_id,
            line=song.line,
            operation=f"{song.family}.{song.operation}",
            title=song.title,
            fields=_public(song.fields),
            state="done",
            queued_at=calls.client.clock.time(),
        )

    async def settle(self) -> SongOutcome:
        """Bring the song to its end, as far as this run can.

        An error that is not of the job store concerns this song alone. Raises `JobStoreError`.
        """
        record = self._record
        try:
            if self._before is not None and not self._before.open:
                # A run that is killed after this has paid for it again: the old record must not hide that.
                await self._save(msgspec.structs.replace(self._before, open=True))
            clips = await self._made()
            if clips is not None:
                await self._take(clips)
            await self._save(record)
        except JobStoreError:
            raise
        except Exception as error:
            unfinished = self._why_unfinished(error)
            if any(record.files):  # the report shows what is there
                record.open = True
                with suppress(OSError):
                    await self._save(record)
            return SongOutcome(unfinished=unfinished, unknown=self._unknown)
        if self._began is not None:
            self._tally.run_settled(self._began)
        return SongOutcome(record=record)

    async def _save(self, record: SongRecord) -> None:
        await anyio.to_thread.run_sync(self._folder.save, record)

    def _why_unfinished(self, error: Exception) -> str:
        """Return why the song is not settled, and halt the batch where that concerns all songs."""
        match error:
            case NotSubmitted():
                return str(error)
            case OutcomeUnknownError():
                self._add_unknown(error)
                return ""
            case JobKeyConflictError():
                error.hint = CONFLICT_HINT  # with another key it would be paid for again
                return str(error)
            case MusicAPIError() if isinstance(error, HALTING):
                self._calls.halt(str(error))
                return str(error)
            case MusicAPIError(__cause__=OSError() as cause) if _is_of_the_disk(error):
                return self._halted_by_disk(error.message, cause)
            case MusicAPIError():
                return _unfinished_text(error)
            case BeingWrittenError():
                return f"{disk_fault(error, self._folder.out)}; paid for and made"
            case OSError():
                return self._halted_by_disk(disk_fault(error, self._folder.out), error)
            case _:
                log.error("song %r: unexpected error", self.song.id, exc_info=error)
                return f"unexpected {type(error).__name__}: {error}; what was paid for is recorded"

    def _add_unknown(self, error: OutcomeUnknownError) -> None:
        """Note a call of unknown outcome, with what settles its job in the place of the general advice."""
        key = error.job_key or self.song.key
        operation = key.rpartition("/")[2].partition("~")[0]
        advice = resolving(key, by_task=makes_tasks(self.song.family, operation, error.call))
        error.hint = error.hint.replace(OutcomeUnknownError.default_hint, f"{advice}.")
        self._unknown[key] = str(error)

    def _halted_by_disk(self, text: str, error: OSError) -> str:
        """Halt the batch, as the next file could not be written either; return the reason of the song.

        It is that of the halt for all songs that meet the same fault, such as a full disk, so that the
        summary and the page have it once.
        """
        self._calls.halt(f"{text}. {DISK_HINT}", by_disk=True)
        fault = f"{error.strerror or error}. {DISK_HINT}"
        return self._calls.halted if self._calls.halted.endswith(fault) else f"{text}. {DISK_HINT}"

    def _move(self, place: str) -> None:
        if place == "running" and self._began is None:
            self._began = self._tally.run_began()
        self._tally.move(self.place, place)
        self.place = place

    async def _made(self) -> Clips | None:
        """Return the clips of the song; None if it failed."""
        record, song = self._record, self.song
        workflow = SongWorkflow(self._calls, song)
        step = song_step(song)
        try:
            async with self._calls.permits:
                task = await workflow.task(step)
                self._move("running")
                try:
                    result = await workflow.wait(step, task)
                finally:
                    self._move("fetching")
        except HALTING:
            raise
        except SETTLING as error:
            _fail(record, error)
            record.ended_at = self._now()
            return None
        record.task_id, record.submitted_at = task.task_id, ref_of(task).submitted_at
        record.ended_at = workflow.ended_at
        return result.clips

    async def _take(self, clips: Clips) -> None:
        """Fetch the clips, and run the steps of those that they are wanted for. Raises the first error when
        all have ended."""
        record = self._record
        record.clips = [_clip_record(clip) for clip in clips]
        pairs = [pair for pair in zip(clips, record.clips, strict=True) if pair[0].is_succeeded]
        if pairs:
            record.title = pairs[0][0].title or record.title
        await anyio.to_thread.run_sync(self._claim_names, clips)
        work: list[Awaitable[None]] = [self._fetch(clip, about) for clip, about in pairs]
        chosen = pairs[:1] if self.song.clips == "first" else pairs
        work += [self._step(step, clip, about) for clip, about in chosen for step in self.song.steps]
        ended = await asyncio.gather(*work, return_exceptions=True)
        order = {step.name: index for index, step in enumerate(self.song.steps)}
        for _, about in chosen:
            about.steps.sort(key=lambda step: order[step.name])
        errors = [error for error in ended if isinstance(error, BaseException)]
        for error in errors:
            if isinstance(error, OutcomeUnknownError):
                self._add_unknown(error)
        for error in errors:
            raise error
        record.fetched_at = self._now()

    def _claim_names(self, clips: Clips) -> None:
        """Give each finished clip its name and its metadata."""
        about = {
            "id": self.song.id,
            "operation": self._record.operation,
            "request": self._record.fields,
            "task_id": self._record.task_id,
        }
        before = {clip.clip_id: clip.name for clip in self._before.clips} if self._before else {}
        for take, (clip, record) in enumerate(zip(clips, self._record.clips, strict=True), 1):
            if clip.is_succeeded:
                record.name = self._layout.claim(self.song, clip, take, about, before.get(clip.clip_id, ""))

    async def _fetch(self, clip: Clip, about: ClipRecord) -> None:
        """Fetch a clip and its cover, with tags and wave form. A cover that is late is not in the tags."""
        folder = self._folder
        covering = asyncio.ensure_future(self._cover(clip, about))
        try:
            await asyncio.wait({covering}, timeout=COVER_TIME)
            tags = self._layout.tags(self.song, covering.result() if covering.done() else b"")
            path = await step_files.own_file(self._client, folder.out, clip, about.name, tags)
            about.file = folder.relative(path)
            if self._waveforms:
                about.peaks = await anyio.to_thread.run_sync(step_files.wave_form, path)
            await covering
        finally:
            covering.cancel()
            await asyncio.wait({covering})

    async def _cover(self, clip: Clip, about: ClipRecord) -> bytes:
        """Fetch the cover of a clip; its bytes are for the tags, and none if there is no cover."""
        if not clip.image_url:
            return b""
        place, name = self._layout.cover(about.name, clip)
        try:
            image = await step_files.own_file(
                self._client, place, step_files.linked(clip, clip.image_url), name
            )
        except DownloadError as error:
            if _is_of_the_disk(error):
                raise
            log.warning("no cover of clip %s: %s", clip.clip_id, error.message)  # the song is there
            return b""
        about.cover = self._folder.relative(image)
        return await anyio.Path(image).read_bytes()

    async def _step(self, wanted: SongStep, clip: Clip, about: ClipRecord) -> None:
        """Run one step for one clip; its failure is recorded and stops no other."""
        done = StepRecord(
            name=wanted.name, state="done", fields=_public(wanted.fields), submitted_at=self._now()
        )
        workflow = SongWorkflow(self._calls, self.song, wanted.name)
        try:
            files = await self._step_files(workflow, wanted, clip, about.name, done)
        except HALTING:
            raise
        except SETTLING as error:
            _fail(done, error)
        else:
            if workflow.last_task is not None:
                done.task_id = workflow.last_task.task_id
                done.submitted_at = ref_of(workflow.last_task).submitted_at
            done.ended_at = workflow.ended_at
            done.labels = list(files)
            done.files = [self._folder.relative(path) for path in files.values()]
            done.fetched_at = self._now()
        about.steps.append(done)

    async def _step_files(
        self, workflow: SongWorkflow, wanted: SongStep, clip: Clip, name: str, done: StepRecord
    ) -> dict[str, Path]:
        """Run a step and fetch what it gives; return its files by name or kind."""
        fields = {**wanted.fields, wanted.source: clip.clip_id}
        if wanted.operation == NEEDS_SINGING:
            fields.setdefault("wait", True)
        step = Step[Any](wanted.name, operation_of(self.song, wanted), fields)
        place = self._layout.place(wanted.name, name, self._layout.tags(self.song, b""))
        if wanted.name == "extend":
            most = 1 if self.song.clips == "first" else None
            full = await full_songs(workflow, step, lambda parts: parts.succeeded[:most])
            joined = Clips([clip for clips in full for clip in clips.succeeded])
            files = await step_files.fetch(self._client, clip, joined, place)
        elif step.operation.submits:
            files = await step_files.task_files(workflow, step, clip, place)
        else:
            reply, files = await step_files.reply_files(workflow, step, clip, place)
            done.reply = reply.raw
        if self._waveforms and operation_of(self.song, wanted).reply is Stems:
            silent = await anyio.to_thread.run_sync(step_files.silent, list(files.values()))
            done.silent = [self._folder.relative(path) for path in silent]
        return files


def _public(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a row that may be stored."""
    return {name: value for name, value in fields.items() if name not in SECRET}


def _fail(record: SongRecord | StepRecord, error: MusicAPIError) -> None:
    record.state, record.error, record.reason = "failed", str(error), reason_of(error)
    record.task_id = error.task_id or ""
    record.refunded = error.refunded if isinstance(error, TaskFailedError) else None


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
