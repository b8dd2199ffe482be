"""One call, from its request to its result.

The order is: links of local files, job key, webhook (the key is part of its address, so of the body), the
prepared request, the reservation of the key, the permit, the attempts, the reading of the response, and what
it means for money.

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

import msgspec

from .._wire import base_url_hints, codec
from .._wire.batch_reply import read_batch
from .._wire.call_reply import Pending, read_direct, read_raw, read_submit
from .._wire.charge_verdict import PREPARING
from .._wire.codec import report
from .._wire.prepare import PreparedRequest, prepare, prepare_raw
from .._wire.redaction import Redactor
from .._wire.response import Response, read_response
from ..api.direct_replies import came_in
from ..api.local_files import NO_FILES
from ..api.operation import Create, Direct, Operation, ReplyT, SubmitsBatch
from ..api.request import Request
from ..api.response_info import Received, ResponseInfo
from ..api.task import TaskRef
from ..errors import APIConnectionError, MusicAPIError
from ..options import Options
from .attempts import CLOSED_HINT, Attempts
from .batch_call import (
    AcceptedBatch,
    accepted_batch,
    batch_permit,
    previous_batch,
    tasks_in_error,
    with_webhooks,
)
from .call_entry import RESPONSE_IS_RECORDED, CallRecorder, Notes, Previous
from .paid_call import Accepted, PaidCall, task_in_error
from .permits import BatchPermit, HeldPermits, Permit
from .publishing import Published, Publisher
from .wait_reasons import Waits

T = TypeVar("T")
CLOSE_GRACE: Final = 5.0
"""Real seconds that closing waits for the responses to paid calls that are under way."""
STORE_GRACE: Final = 60.0
"""Real seconds that closing waits for job stores: twice as long as an SQLite file may be locked."""
FOLLOW_EVERY: Final = 5.0
"""Seconds of the client's clock between two checks for tasks to follow, while a create waits for a permit."""


class WebhookAddress(Protocol):
    """Orders webhooks for calls."""

    def order(self, request: Request, options: Options) -> tuple[Request, Options]:
        """Return the request with a webhook, and the options with the job key in its address.

        Returns both unchanged if no webhook is wanted.
        """
        ...


class Poller(Protocol):
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
        redactor: hides secrets in stored replies.
        held_permits: the permits of the client's tasks, which outlive the loop that submitted them.
        poller: polls tasks in flight while a create waits for a permit.
        publisher: makes links of local files.
        webhooks: orders webhooks; None if the client has none.
    """

    def __init__(
        self,
        attempts: Attempts,
        redactor: Redactor,
        held_permits: HeldPermits,
        poller: Poller,
        *,
        publisher: Publisher,
        webhooks: WebhookAddress | None,
    ) -> None:
        self._attempts: Final = attempts
        self._redactor: Final = redactor
        self._held_permits: Final = held_permits
        self._poller: Final = poller
        self._publisher: Final = publisher
        self._webhooks: Final = webhooks
        self._closed = False
        self.notes: Final = Notes()
        self._running: Final[set[asyncio.Task[Any]]] = set()
        self._stopping: Final[set[asyncio.Task[Any]]] = set()  # cancelled before they were sent
        self._waiting = 0  # creates that wait for a permit
        self._following: asyncio.Task[None] | None = None

    async def submit(
        self, operation: Create[..., Any], request: Request, options: Options, recorder: CallRecorder
    ) -> Accepted:
        """Send a create and return its task, or the previous task of its job key."""
        files = NO_FILES
        if operation.links:
            request, options, files = await self._published(operation, request, options, recorder)
        ordered = request
        if self._webhooks is not None:
            ordered, options = self._webhooks.order(request, options)
        prepared = prepare(operation, ordered, options, self._attempts.path_of)
        paid = self._paid(prepared, options, recorder, files)
        return await self._shielded(paid, self._submit(paid, webhook=ordered is not request))

    async def _submit(self, paid: PaidCall, *, webhook: bool) -> Accepted:
        prepared = paid.prepared
        async with paid:
            previous = paid.previous
            if previous is not None and previous.task is not None:
                return Accepted(previous.task, previous.reply, paid.key)
            permit = paid.permit = self._attempts.limiter.permit()
            if permit is not None and not permit.try_acquire():
                await self._wait_for_permit(permit, paid.waits)
            response = await paid.send()
            task_id = read_submit(
                response, call=prepared.call, family=prepared.family, replacement=prepared.instead
            )
            task = prepared.task(task_id, self._attempts.clock.time())
            await paid.accepted(task, response.body)
            if permit is not None:
                with contextlib.suppress(Exception):  # a limiter that fails loses no task
                    self._held_permits.hold(permit, task)
        return Accepted(task, response.body, paid.key, webhook, _facts(response, prepared, paid.options))

    async def submit_batch(
        self, operation: SubmitsBatch[...], request: Request, options: Options, recorder: CallRecorder
    ) -> AcceptedBatch:
        """Send a create of several tasks and return them, or the previous tasks of its job key."""
        ordered = request
        if self._webhooks is not None:
            ordered, options = self._webhooks.order(request, options)
        prepared = prepare(operation, ordered, options, self._attempts.path_of)
        permit = batch_permit(
            self._attempts.limiter, len(prepared.models), prepared.call, self._attempts.clock
        )
        paid = self._paid(prepared, options, recorder)
        batch = await self._shielded(paid, self._submit_batch(paid, permit))
        return with_webhooks(batch, request, ordered, options)

    async def _submit_batch(self, paid: PaidCall, permit: BatchPermit | None) -> AcceptedBatch:
        prepared, clock = paid.prepared, self._attempts.clock
        async with paid:
            if paid.previous is not None:
                return previous_batch(paid.previous, prepared, paid.key)
            paid.permit = permit
            if permit is not None and not permit.try_acquire():
                await self._wait_for_permit(permit, paid.waits)
            response = await paid.send()
            read = read_batch(response, items=len(prepared.models), family=prepared.family)
            batch = accepted_batch(read, prepared, clock.time(), response.body, paid.key)
            await paid.accepted_batch(*batch.notes(len(prepared.models)), response.body, batch.batch_id)
            if permit is not None:
                with contextlib.suppress(Exception):  # a limiter that fails loses no task
                    self._held_permits.hold_batch(permit, batch.tasks)
            if read.error is not None:
                raise tasks_in_error(prepared, batch.tasks, read.error, paid.key) from read.error
        return msgspec.structs.replace(batch, response=_facts(response, prepared, paid.options))

    async def direct(
        self, operation: Direct[..., ReplyT], request: Request, options: Options, recorder: CallRecorder
    ) -> ReplyT:
        """Send a direct call and return its reply; repeat it while its result is being prepared."""
        files = NO_FILES
        if operation.links:
            request, options, files = await self._published(operation, request, options, recorder)
        prepared = prepare(operation, request, options, self._attempts.path_of)
        if prepared.kind == "get":
            waits = Waits(self._attempts.clock, prepared.call)
            try:
                observed = self._attempts.observer.call(prepared, waits=waits)
                response = await self._attempts.get(prepared, options, waits, observed)
                reply = _reply(read_direct(response, operation, prepared.call), operation)
            except MusicAPIError as error:
                base_url_hints.add_hint(error, self._attempts.base_url)
                raise
            came_in(reply, _facts(response, prepared, options))
            return reply
        paid = self._paid(prepared, options, recorder, files)
        repeats = bool(getattr(request, "wait", True))
        return await self._shielded(paid, self._direct(paid, operation, repeats=repeats))

    async def _direct(self, paid: PaidCall, operation: Direct[..., ReplyT], *, repeats: bool) -> ReplyT:
        clock, call = self._attempts.clock, paid.prepared.call
        repeat = operation.repeat if repeats else None
        async with paid:
            if paid.previous is not None:
                return _reused(paid, paid.previous, operation)
            started = clock.now()
            while True:
                response = await paid.send()
                read = read_direct(response, operation, call)
                if not isinstance(read, Pending) or repeat is None:
                    if isinstance(read, Pending):
                        await paid.unfinished()
                    else:
                        await paid.answered(read.raw)
                    reply = _reply(read, operation)
                    came_in(reply, _facts(response, paid.prepared, paid.options))
                    return reply
                await paid.preparing()
                pause, elapsed = max(repeat.every, read.retry_after or 0.0), clock.now() - started
                if elapsed + pause > repeat.deadline:
                    raise paid.too_late(
                        f"given up after {elapsed:.3g} s, as the next call, in {pause:g} s, would come after "
                        f"the {repeat.deadline:g} s for which it is repeated"
                    )
                await clock.sleep(pause)

    async def request(  # noqa: PLR0917 - as `MusicAPI.request`
        self,
        method: str,
        path: str,
        json: object,
        params: Mapping[str, object] | None,
        options: Options,
        recorder: CallRecorder,
    ) -> Any:
        """Carry out an untyped call; see `MusicAPI.request`."""
        prepared = prepare_raw(method, path, options, json, params, self._attempts.path_of)
        self._redactor.learn(prepared.secrets)
        if (call := self._redactor.text(prepared.call)) != prepared.call:  # the path is the caller's own
            prepared = msgspec.structs.replace(prepared, call=call)
        del json, params  # they may hold a secret, and tracebacks can show the locals of a frame
        if prepared.kind == "get":
            try:
                observed = self._attempts.observer.call(prepared)
                response = await self._attempts.get(prepared, options, observed=observed)
                return read_raw(response, call=prepared.call)
            except MusicAPIError as error:
                base_url_hints.add_hint(error, self._attempts.base_url)
                raise
        paid = self._paid(prepared, options, recorder)
        return await self._shielded(paid, self._request(paid))

    async def _request(self, paid: PaidCall) -> Any:
        prepared = paid.prepared
        async with paid:
            previous = paid.previous
            if previous is not None:
                if previous.reply is None and previous.task is not None:  # named by a person
                    return {"task_id": previous.task.task_id}
                return previous.reply
            response = await paid.send()
            found = read_raw(response, call=prepared.call, replacement=prepared.instead)
            if response.status == 202 and prepared.call in PREPARING:
                await paid.unfinished()
            else:
                await paid.answered(found)
            return found

    async def finish_notes(self) -> None:
        """Return when the job stores say what is known: of calls that were just cancelled, too."""
        if self._stopping:
            await asyncio.wait(self._stopping)
        await self.notes.finish()

    async def aclose(self) -> None:
        """Wait a moment for the responses to paid calls under way, then cancel them and log each."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_GRACE)
        for call in list(self._running):
            call.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.notes.finish(STORE_GRACE)

    async def _published(
        self, operation: Operation[..., Any], request: Request, options: Options, recorder: CallRecorder
    ) -> Published:
        """Return the request with the links of its local files."""
        call = operation.call_name
        published = await self._publisher.publish(request, operation.links, call, options, recorder)
        if self._closed:  # while the file was published
            raise APIConnectionError(
                "the client was closed before it was sent", sent=False, call=call, hint=CLOSED_HINT
            )
        return published

    def _paid(
        self,
        prepared: PreparedRequest,
        options: Options,
        recorder: CallRecorder,
        files: Mapping[str, str] = NO_FILES,
    ) -> PaidCall:
        """Return a call that may charge. The secrets of its request are hidden in texts from now on."""
        if prepared.secrets:
            self._redactor.learn(prepared.secrets)
        job = recorder.record(options.job_key, prepared, files)
        return PaidCall(
            prepared, options, job, attempts=self._attempts, redactor=self._redactor, notes=self.notes
        )

    async def _shielded(self, paid: PaidCall, work: Coroutine[Any, Any, T]) -> T:
        """Run a paid call in a task of its own; a cancelled caller stops it only while nothing is sent."""
        running = asyncio.get_running_loop().create_task(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError as cancelled:
            caller = asyncio.current_task()
            if running.cancelled() and not (caller and caller.cancelling()):
                paid.client_closed()
            if paid.sent:
                call = paid.prepared.call
                # Else it ended in the moment of the cancellation, or the end will be soon enough.
                if not running.done() and RESPONSE_IS_RECORDED not in cancelled.args:
                    text = "%s: cancelled after it was sent; its answer is still awaited"
                    report(logging.WARNING, text, call)
                running.add_done_callback(paid.report_end)
            elif running.cancel():
                self._stopping.add(running)
                running.add_done_callback(self._stopping.discard)
            raise

    async def _wait_for_permit(self, permit: Permit, waits: Waits) -> None:
        """Wait for a permit. Tasks that no one waits for are polled meanwhile: their ends free permits."""
        self._waiting += 1
        if self._following is None:
            self._following = asyncio.get_running_loop().create_task(self._follow())
        try:
            await permit.acquire(waits)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._following.cancel()
                self._following = None
                self._poller.unfollow()

    async def _follow(self) -> None:
        while True:
            for task in self._held_permits.tasks():
                try:
                    self._poller.follow(task)
                except Exception as error:  # of the user's own schedule
                    report(logging.WARNING, "task %s is not polled: %s", task.token, error)
            await self._attempts.clock.sleep(FOLLOW_EVERY)


def _reply(read: ReplyT | Pending[ReplyT], operation: Direct[..., ReplyT]) -> ReplyT:
    """Return the reply as far as it can be read."""
    if not isinstance(read, Pending):
        return read
    return operation.reply() if read.reply is None else read.reply


def _facts(response: Response, prepared: PreparedRequest, options: Options) -> Received | ResponseInfo:
    """Return the facts about a response, or the response, from which they are computed when they are used.

    Computing them takes longer than reading the reply. It is done at once if the request had a secret, which
    the redactor may have forgotten later.
    """
    return response.info() if prepared.secrets or options.headers is not None else response


def _reused(paid: PaidCall, previous: Previous, operation: Direct[..., ReplyT]) -> ReplyT:
    """Return the previous reply of a job key, or raise the error of a call that made a task instead."""
    call = paid.prepared.call
    stored = read_response(200, {}, codec.encode(previous.reply, call))
    if previous.task is None:
        return _reply(read_direct(stored, operation, call), operation)
    with contextlib.suppress(MusicAPIError):
        read = read_direct(stored, operation, call)
        if not isinstance(read, Pending) and not read.is_empty:
            return read
    raise task_in_error(paid.prepared, previous.task, "", paid.key)  # as it was the first time
