"""One call, from its request to its result.

The order is: job key, webhook (the key is part of its address, so of the body), the prepared request, the
reservation of the key, the permit, the attempts, the reading of the response, and what it means for money.

A paid call runs in a task of its own, shielded from its caller. A caller that is cancelled before the request
leaves pays nothing. One that is cancelled later (Ctrl-C, a closed browser) loses nothing: the response is
still read, and the id of the task that was paid for reaches the job store and the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final, Protocol, TypeVar

from .._wire import base_url_hints
from .._wire.prepare import PreparedRequest, encode_any, prepare, prepare_raw
from .._wire.redaction import Redactor
from .._wire.response import Pending, Response, read_direct, read_raw, read_response, read_submit
from .._wire.verdict import PREPARING
from ..api.operation import Create, Direct, ReplyT
from ..api.request import Request
from ..api.task import TaskRef
from ..errors import MusicAPIError, RequestTimeoutError
from ..options import Options
from .attempts import Attempts
from .paid_call import Accepted, JobEntry, Notes, PaidCall, Previous, task_in_error
from .permits import FREE, TasksInFlight
from .waits import Waits

log: Final = logging.getLogger("musicapi_async")

T = TypeVar("T")

CLOSE_GRACE: Final = 5.0
"""Real seconds that closing waits for the responses to paid calls that are under way."""
STORE_GRACE: Final = 60.0
"""Real seconds that closing waits for job stores: twice as long as an SQLite file may be locked."""
FOLLOW_EVERY: Final = 5.0
"""Seconds of the client's clock after which a create that waits for a permit looks for tasks to follow."""


class JobRecorder(Protocol):
    """Gives entries of a job store to paid calls."""

    def with_job_key(self, options: Options) -> Options:
        """Return the options with a job key, if the call is to be recorded."""
        ...

    def record(
        self, key: str | None, call: str, body: bytes, family: str = "", kind: str = ""
    ) -> JobEntry | None:
        """Return the entry of a call with the JSON `body`."""
        ...


class WebhookAddress(Protocol):
    """Has the service announce results."""

    def order(self, request: Request, options: Options) -> tuple[Request, Options]:
        """Return the request with a webhook, and the options with the job key in its address.

        Both come back as they are if no webhook is wanted.
        """
        ...


class Follower(Protocol):
    """Polls tasks that no one waits for."""

    def follow(self, ref: TaskRef) -> None:
        """Poll this task until its end, unless it is polled already."""
        ...

    def unfollow(self) -> None:
        """Poll only what someone waits for."""
        ...


class Calls:
    """Carries out the calls of one event loop.

    Args:
        attempts: sends requests.
        redactor: hides secrets in what is stored and shown.
        in_flight: the permits of the client's tasks, which outlive the loop that submitted them.
        follower: polls tasks in flight while a create waits for a permit.
    """

    def __init__(
        self, attempts: Attempts, redactor: Redactor, in_flight: TasksInFlight, follower: Follower
    ) -> None:
        self._attempts: Final = attempts
        self._redactor: Final = redactor
        self._in_flight: Final = in_flight
        self._follower: Final = follower
        self.notes: Final = Notes()
        self._running: Final[set[asyncio.Task[Any]]] = set()
        self._waiting = 0  # creates that wait for a permit
        self._following: asyncio.Task[None] | None = None

    async def submit(
        self,
        operation: Create[..., Any],
        request: Request,
        options: Options,
        recorder: JobRecorder,
        webhooks: WebhookAddress | None,
    ) -> Accepted:
        """Send a create and return its task, or the one that its job key stands for."""
        ordered = request
        if webhooks is not None:
            ordered, options = webhooks.order(request, recorder.with_job_key(options))
        prepared = prepare(operation, ordered, options, self._attempts.path_of)
        paid = self._paid(prepared, options, recorder)
        return await self._shielded(paid, self._submit(paid, webhook=ordered is not request))

    async def _submit(self, paid: PaidCall, *, webhook: bool) -> Accepted:
        prepared = paid.prepared
        async with paid:
            previous = paid.previous
            if previous is not None and previous.task is not None:
                return Accepted(previous.task, previous.reply, paid.key)
            paid.permit = self._attempts.limiter.permit()
            if not paid.permit.try_acquire():
                await self._wait_for_permit(paid)
            response = await paid.send()
            task_id = read_submit(
                response, call=prepared.call, family=prepared.family, replacement=prepared.instead
            )
            task = prepared.task(task_id, self._attempts.clock.time())
            await paid.accepted(task, response.body)
            if paid.permit is not FREE:
                with contextlib.suppress(Exception):  # a limiter that fails loses no task
                    self._in_flight.hold(paid.permit, task)
        return Accepted(task, response.body, paid.key, webhook)

    async def direct(
        self, operation: Direct[..., ReplyT], request: Request, options: Options, recorder: JobRecorder
    ) -> ReplyT:
        """Send a direct call and return its reply; repeat it while its result is being prepared."""
        prepared = prepare(operation, request, options, self._attempts.path_of)
        if prepared.kind == "get":
            try:
                read = read_direct(await self._get(prepared, options), operation, prepared.call)
            except MusicAPIError as error:
                base_url_hints.add_hint(error, self._attempts.base_url)
                raise
            return _reply(read, operation)
        paid = self._paid(prepared, options, recorder)
        waits = bool(getattr(request, "wait", True))
        return await self._shielded(paid, self._direct(paid, operation, waits=waits))

    async def _direct(self, paid: PaidCall, operation: Direct[..., ReplyT], *, waits: bool) -> ReplyT:
        clock, call = self._attempts.clock, paid.prepared.call
        repeat = operation.repeat if waits else None
        async with paid:
            if paid.previous is not None:
                return _reused(paid, paid.previous, operation)
            started = clock.now()
            while True:
                read = read_direct(await paid.send(), operation, call)
                if not isinstance(read, Pending):
                    await paid.answered(read.raw)
                    return read
                if repeat is None:
                    await paid.unfinished()
                    return _reply(read, operation)
                pause = max(repeat.every, read.retry_after or 0.0)
                if clock.now() - started + pause > repeat.deadline:
                    raise RequestTimeoutError(
                        f"still being prepared after {repeat.deadline:g} s",
                        sent=True,
                        call=call,
                        hint="Call again later: the work goes on at the service.",
                    )
                paid.is_preparing = True
                await paid.repeat(proven=True)  # the same request again is free
                await clock.sleep(pause)

    async def request(  # noqa: PLR0917 - as `MusicAPI.request`
        self,
        method: str,
        path: str,
        json: object,
        params: Mapping[str, object] | None,
        options: Options,
        recorder: JobRecorder,
    ) -> Any:
        """Carry out an untyped call; see `MusicAPI.request`."""
        prepared = prepare_raw(method, path, options, json, params, self._attempts.path_of)
        del json, params  # they may hold a secret, and tracebacks can show the locals of a frame
        if prepared.kind == "get":
            try:
                return read_raw(await self._get(prepared, options), call=prepared.call)
            except MusicAPIError as error:
                base_url_hints.add_hint(error, self._attempts.base_url)
                raise
        paid = self._paid(prepared, options, recorder)
        return await self._shielded(paid, self._request(paid))

    async def _request(self, paid: PaidCall) -> Any:
        prepared = paid.prepared
        async with paid:
            if paid.previous is not None:
                return paid.previous.reply
            response = await paid.send()
            found = read_raw(response, call=prepared.call, replacement=prepared.instead)
            if response.not_ready and prepared.call in PREPARING:
                await paid.unfinished()
            else:
                await paid.answered(found)
            return found

    async def aclose(self) -> None:
        """Wait a moment for the responses to paid calls under way, then give them up, loudly."""
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_GRACE)
        for call in list(self._running):
            call.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.notes.finish(STORE_GRACE)

    # --- steps ----------------------------------------------------------------------------------------------

    def _paid(self, prepared: PreparedRequest, options: Options, recorder: JobRecorder) -> PaidCall:
        if prepared.secrets:
            self._redactor.learn(prepared.secrets)
        if prepared.kind == "create":
            options = recorder.with_job_key(options)
        job: JobEntry | None = None
        if options.job_key is not None:
            job = recorder.record(
                options.job_key,
                prepared.recorded_call,
                prepared.body or b"",
                prepared.family,
                prepared.operation,
            )
        return PaidCall(
            prepared, options, job, attempts=self._attempts, redactor=self._redactor, notes=self.notes
        )

    async def _get(self, prepared: PreparedRequest, options: Options) -> Response:
        """Send a free call, within its deadline."""
        self._redactor.learn(prepared.secrets)
        if options.deadline is None:
            return await self._attempts.send(prepared, options)
        waits = Waits(self._attempts.clock, prepared.call)
        deadline = asyncio.timeout(self._attempts.clock.real(options.deadline))
        try:
            async with deadline:
                return await self._attempts.send(prepared, options, waits=waits)
        except TimeoutError:
            if not deadline.expired():
                raise
        waited = f"; {waits}" if str(waits) else ""
        text = f"the deadline of {options.deadline:g} s passed{waited}"
        raise RequestTimeoutError(text, sent=None, call=prepared.call)

    async def _shielded(self, paid: PaidCall, work: Coroutine[Any, Any, T]) -> T:
        """Run a paid call in a task of its own; a cancelled caller stops it only while nothing is sent."""
        running = asyncio.get_running_loop().create_task(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if running.cancelled() and not (caller and caller.cancelling()):
                paid.client_closed()
            if paid.sent and not running.done():
                call = paid.prepared.call
                log.warning("%s: cancelled after it was sent; its answer is still awaited", call)
                running.add_done_callback(paid.report)
            else:
                running.cancel()
            raise

    async def _wait_for_permit(self, paid: PaidCall) -> None:
        """Wait for a permit. Tasks that no one waits for are polled meanwhile, so that their ends show."""
        self._waiting += 1
        if self._following is None:
            self._following = asyncio.get_running_loop().create_task(self._follow())
        try:
            await paid.permit.acquire(paid.waits)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._unfollow()

    def _unfollow(self) -> None:
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            self._follower.unfollow()

    async def _follow(self) -> None:
        while True:
            for task in self._in_flight.tasks():
                self._follower.follow(task)
            await self._attempts.clock.sleep(FOLLOW_EVERY)


def _reply(read: ReplyT | Pending[ReplyT], operation: Direct[..., ReplyT]) -> ReplyT:
    """Return the reply as far as it can be read."""
    if not isinstance(read, Pending):
        return read
    return operation.reply() if read.reply is None else read.reply


def _reused(paid: PaidCall, previous: Previous, operation: Direct[..., ReplyT]) -> ReplyT:
    """The reply that a job key stands for, or the error of a call that made a task instead."""
    call = paid.prepared.call
    stored = read_response(200, {}, encode_any(previous.reply, call))
    if previous.task is None:
        return _reply(read_direct(stored, operation, call), operation)
    with contextlib.suppress(MusicAPIError):
        read = read_direct(stored, operation, call)
        if not isinstance(read, Pending) and not read.is_empty:
            return read
    raise task_in_error(paid.prepared, previous.task, "", paid.key)  # as it was the first time
