"""The paid calls of a batch: the steps of the engine, under job keys that follow from the manifest.

What keeps a batch from paying twice is the job store in its folder: doing everything again after a crash
sends only what was never sent. A call waits for the budget, and is not made once the batch is stopped.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import msgspec

from .._transport.call_entry import RESPONSE_IS_RECORDED
from .._transport.publishing import digest_of
from ..api.local_files import local_files
from ..api.request import body
from ..api.results import Result
from ..api.task import Task
from ..client import MusicAPI
from ..errors import (
    AuthenticationError,
    InsufficientCreditsError,
    RequestValidationError,
    SubscriptionRequiredError,
    TaskFailedError,
)
from ..jobs import Job, JobRequest
from ..jobs.job import DELIVERY, difference, request_of
from .batch_progress import Tally
from .budget import Budget, BudgetExceeded
from .manifest import SOURCES, Manifest, Song
from .step_engine import Step, Workflow

log: Final = logging.getLogger("musicapi_async")

R = TypeVar("R")
T = TypeVar("T", bound=Result)

HALTING: Final = (AuthenticationError, InsufficientCreditsError, SubscriptionRequiredError)
"""Errors that every further create would meet, too: the batch stops submitting."""
STOPPED: Final = "the batch was stopped before all calls were submitted"
STOPPED_POLL: Final = 0.05
"""Seconds between polls of a job that was under way when the batch was stopped."""

MADE_ID: Final = re.compile(r"[0-9a-f]{16}(-\d+)?")
"""An id that followed from a row; the number tells equal rows apart."""


class NotSubmitted(Exception):
    """A call was not made in this run; the text says why."""


class BatchCalls:
    """Makes the paid calls of one run.

    Args:
        client: A view whose store is that of the batch.
        budget: Lets calls through while it lasts.
        tally: Counts what was submitted.
        stop: Set when nothing more is to be submitted.
        max_in_flight: Tasks that run at once.
        retry_failed: Send failed jobs again, with new fields if they were changed.
    """

    def __init__(
        self,
        client: MusicAPI,
        budget: Budget,
        tally: Tally,
        stop: asyncio.Event,
        *,
        max_in_flight: int,
        retry_failed: bool,
    ) -> None:
        self.client: Final = client
        self.store: Final = client.store
        self.budget: Final = budget
        self.max_in_flight: Final = max_in_flight
        self.permits: Final = asyncio.Semaphore(max_in_flight)
        self.retry_failed: Final = retry_failed
        self.halted: str = ""
        self.disk_failed: bool = False
        self.tally: Final = tally
        self._stop: Final = stop

    def halt(self, reason: str, *, by_disk: bool = False) -> None:
        """Submit nothing more; what is about to leave still does."""
        if not self.halted:
            self.halted, self.disk_failed = reason, by_disk
            self.tally.halted = True
            log.info("the batch submits nothing more: %s", reason)  # the result of the run says it, too

    def request(self, step: Step[object]) -> JobRequest:
        """Return the request of a step as its job records it."""
        fields = {**body(step.request), **(self.client.options.extra_body or {})}
        return request_of(self.client.base_url, step.operation.call_name, msgspec.json.encode(fields))

    async def request_beside(self, step: Step[object], known: JobRequest) -> JobRequest:
        """Return the request of a step, to compare it with what its job has sent.

        Local files are known by their SHA-256. One that is gone since counts as the one that was sent.
        """
        files: dict[str, str] = {}
        sent = dict(known.fields)
        fields = {**body(step.request), **(self.client.options.extra_body or {})}
        for name, path in local_files(step.request, step.operation.links).items():
            try:
                files[name] = await digest_of(name, path, step.operation.call_name)
            except RequestValidationError:
                fields[name] = sent.get(name)
                if name in known.files:
                    files[name] = known.files[name]
        encoded = msgspec.json.encode(fields)
        return request_of(self.client.base_url, step.operation.call_name, encoded, files=files)

    async def key_for(self, step: Step[object], key: str) -> str:
        """Return the job key of a step: `key`, or that of its last correction.

        The fields of a failed job may be corrected. Then they are sent under `corrected_key`, if failed jobs
        are sent again. A correction that did not fail is what the step is: it cannot be changed once more.
        """
        job = await self.client.job(key)
        if job is None or job.state != "failed":
            return key
        former = f"{key}~{_digest(wanted_fields(await self.request_beside(step, job.request)))}"
        if await self.client.job(former) is not None:  # earlier versions named it by its own fields
            return former
        while job.state == "failed":
            corrected = corrected_key(key, job)
            following = await self.client.job(corrected)
            if following is None:
                now = await self.request_beside(step, job.request)
                is_changed = job.request.base_url == now.base_url and difference(job.request, now)
                return corrected if is_changed and self.retry_failed else job.key
            job = following
        return job.key

    async def make(self, step: Step[R], key: str) -> R:
        """Return what the job of a step has made; the step is sent now if it never was.

        Raises `NotSubmitted` if the batch is stopped or halted, the budget is used up, or a local file can no
        longer be read; what the call raises.
        """
        job = await self.client.job(key)
        view = self.client.with_options(job_key=key)
        resubmits = job is not None and self.resubmits(job)
        if job is not None and not resubmits:
            return await _as_sent(step, job).send(view)  # paid for before, or of unknown outcome
        if self.halted or self._stop.is_set():
            raise NotSubmitted(self.halted or STOPPED)
        try:
            async with self.budget.pay(step.operation.name, key):
                call: Awaitable[R] = self._resubmit(step, key) if resubmits else step.send(view)
                made = await self._unless_stopped(call, step, view, job)
        except BudgetExceeded as error:
            self.halt(str(error))
            raise NotSubmitted(self.halted) from None
        except HALTING as error:
            self.halt(str(error))
            raise NotSubmitted(self.halted) from error
        except RequestValidationError as error:
            if error.field in local_files(step.request, step.operation.links):  # it may be there again later
                raise NotSubmitted(str(error)) from error
            raise
        self.tally.submitted += 1
        self.tally.report()
        return made

    def resubmits(self, job: Job) -> bool:
        """Return True for a failed job that is sent again."""
        return job.state == "failed" and self.retry_failed

    async def _resubmit(self, step: Step[R], key: str) -> R:
        try:
            made: R = await self.client.resubmit(key, webhook_secret=step.fields.get("webhook_secret"))
        except RequestValidationError as error:  # not sent, so what is known of it stays as it is
            raise NotSubmitted(str(error)) from error
        return made

    async def _unless_stopped(
        self, call: Awaitable[R], step: Step[R], view: MusicAPI, before: Job | None
    ) -> R:
        """Await a call, unless the batch is stopped before it leaves.

        Args:
            call: The call.
            step: Its step, which returns what a call that did leave has made, and sends nothing then.
            view: The client with the job key.
            before: The job as it was before the call.

        Raises:
            NotSubmitted: The batch was stopped before the call left.
        """
        sending = asyncio.ensure_future(call)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({sending, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                return await sending
            sending.cancel(RESPONSE_IS_RECORDED)
            await asyncio.wait({sending})
            if not sending.cancelled():
                return await sending
            key = view.options.job_key or ""
            attempts = before.attempts if before is not None else 0
            while (job := await self.client.job(key)) is not None and job.attempts > attempts:
                if job.state not in ("reserved", "sent"):
                    return await _as_sent(step, job).send(view)  # its answer came after all
                await self.client.clock.sleep(STOPPED_POLL)
            raise NotSubmitted(STOPPED)
        finally:
            sending.cancel(RESPONSE_IS_RECORDED)
            stopped.cancel()


def corrected_key(key: str, failed: Job) -> str:
    """Return the job key under which the fields of a failed job are sent when they are corrected.

    Args:
        key: The first job key of the step.
        failed: Its job, or that of its last correction. One job has one correction, which others follow.
    """
    return f"{key}~{_digest(failed.key.encode() + wanted_fields(failed.request))}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _as_sent(step: Step[R], job: Job) -> Step[R]:
    """Return the step with the links that its job has sent in the place of local files, which may be gone."""
    links = {name: job.request.fields.get(name) for name in job.request.files}
    return Step(step.name, step.operation, {**step.fields, **links}) if links else step


def wanted_fields(request: JobRequest) -> bytes:
    """Return the call and the fields of a request in one form, without where results are delivered.

    A local file is the one of its SHA-256, and not its link.
    """
    wanted = {**request.fields, **request.files}
    fields = {name: value for name, value in wanted.items() if name not in DELIVERY}
    return request.call.encode() + msgspec.json.encode(fields, order="sorted")


def with_former_ids(
    manifest: Manifest, jobs: Iterable[Job], request_of: Callable[[Song], JobRequest]
) -> Manifest:
    """Return the manifest with the former id of each song that was sent under one.

    Earlier versions made the id of a song without one from its whole row, steps included; now it follows from
    what the song is made of. So that nothing is paid for again, such a song keeps the id under which its
    request is in the job store.

    Args:
        manifest: The songs.
        jobs: The jobs of the folder.
        request_of: Returns the request of a song.
    """
    by_key = {job.key: job for job in jobs}
    if all(song.is_named or song.key in by_key for song in manifest.songs):
        return manifest
    of_songs = {song.key for song in manifest.songs}
    former: defaultdict[bytes, list[str]] = defaultdict(list)
    for key, job in by_key.items():
        song_id = key.removesuffix(f"/{job.request.kind}")
        if key not in of_songs and MADE_ID.fullmatch(song_id):
            former[wanted_fields(job.request)].append(song_id)
    songs = list(manifest.songs)
    for index, song in enumerate(songs):
        if not song.is_named and song.key not in by_key:
            ids = former[wanted_fields(request_of(song))]
            if ids:
                songs[index] = msgspec.structs.replace(song, former_id=ids.pop(0))
    return Manifest(tuple(songs), manifest.source)


class SongWorkflow(Workflow):
    """The steps of one song, or those that follow for one of its clips, in a batch.

    Their checkpoint is the job store, so the one in memory is new for every run. `name` is that of the step
    in the manifest, '' for the song itself.
    """

    def __init__(self, calls: BatchCalls, song: Song, name: str = "") -> None:
        super().__init__(calls.client)
        self.calls: Final = calls
        self.last_task: Task[Result] | None = None
        self.ended_at: float = 0.0
        self._song: Final = song
        self._name: Final = name
        self._keys: Final[dict[str, str]] = {}

    async def job_key(self, step: Step[object]) -> str:
        """Return the job key of a step, which follows from the manifest."""
        key = self._song.key
        if self._name:
            clip_id = next(step.fields[field] for field in SOURCES if field in step.fields)
            key = self._song.step_key(self._name, clip_id, step.operation.name)
        return await self.calls.key_for(step, key)

    async def send(self, step: Step[R], key: str) -> R:
        """Make the call of a step, within the budget."""
        self._keys[step.name] = key
        made = await self.calls.make(step, key)
        self.ended_at = self.client.clock.time()
        return made

    async def result(self, step: Step[Task[T]], timeout: float | None = None) -> T:
        """Run a step to its end, within the tasks that may run at once."""
        async with self.calls.permits:
            return await super().result(step, timeout)

    async def wait(self, step: Step[object], task: Task[T], timeout: float | None = None) -> T:
        """Wait for the task of a step, and count what the service gives back if it fails."""
        self.last_task = task
        try:
            return await super().wait(step, task, timeout)
        except TaskFailedError as error:
            if error.refunded is not False:
                self.calls.budget.refund(self._keys[step.name])
            raise
        finally:
            self.ended_at = self.client.clock.time()
