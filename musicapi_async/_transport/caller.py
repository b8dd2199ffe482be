"""From an operation to its answer: check, encode, send under the rules, read, and say what it means.

A paid call runs in a task of its own once it is under way. If its caller is cancelled then (Ctrl-C, a closed
browser), the answer is still read, so that the id of a task that was paid for reaches the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, cast

import anyio

from .._wire import addresses, polls, replies
from .._wire.looks import Seen
from .._wire.verdict import PREPARING, Outcome, verdict
from ..api.handle import Task, TaskRef, Watcher
from ..api.operation import Operation, Polled
from ..api.producer import RETIRED
from ..api.replies import Credits
from ..api.request import Request
from ..clock import Clock
from ..errors import (
    APIConnectionError,
    APIStatusError,
    ConnectionLostError,
    InvalidResponseError,
    JobStoreError,
    MusicAPIError,
    OutcomeUnknownError,
    RequestTimeoutError,
    StepFailedError,
)
from ..options import POLL_TIMEOUT, Options
from .outgoing import encode_any, outgoing, raw_outgoing, record
from .permits import FREE, Permit
from .rate_limiter import RateLimiter
from .recording import Earlier, Recorder, Recording
from .session import Outgoing, Session, poll_path

log: Final = logging.getLogger("musicapi_async")

Keep = Callable[[Recording, Any], Awaitable[None]]
"""Writes down the result of a paid call."""
Again = Callable[[Recording, Earlier], Any]
"""Makes the result of a paid call of what its job key gave before."""

CLOSE_GRACE: Final = 5.0
"""Real seconds that closing waits for the answers of paid calls that are under way."""


class ApiCaller:
    """Carries out operations over the session of one event loop."""

    def __init__(
        self,
        session: Session,
        limiter: RateLimiter,
        clock: Clock,
        path_of: Callable[[str], str],
        permits: dict[tuple[str, str], Permit],
    ) -> None:
        self._session: Final = session
        self._path_of: Final = path_of
        self._limiter: Final = limiter
        self._clock: Final = clock
        self._flights: Final[set[asyncio.Task[Any]]] = set()
        self._permits: Final = permits  # of the client: a task outlives the loop that submitted it

    async def submit(
        self,
        operation: Operation[Any, Any],
        request: Request,
        options: Options,
        watcher: Watcher,
        recorder: Recorder,
    ) -> Task[Any]:
        """Send a create and return the handle of its task, or of the one that its job key stands for."""
        out = outgoing(operation, request, options, self._path_of)
        record(out, options, recorder, operation)
        model, wanted = getattr(request, "mv", None), getattr(request, "format", None)

        def ref_of(task_id: str) -> TaskRef:
            return TaskRef(
                operation.family.word,
                task_id,
                operation.name,
                self._clock.time(),
                model=model if isinstance(model, str) else "",
                own=True,
                format=wanted if isinstance(wanted, str) else "",
            )

        async def fly() -> Task[Any]:
            permit = self._limiter.permit()
            await permit.acquire()
            try:
                reply = await self._session.send(out, options)
                accepted = replies.read_submit(
                    reply,
                    call=out.call,
                    family=operation.family.word,
                    replacement=operation.replacement or _instead(out.path, options.extra_body),
                )
            except BaseException:
                permit.release()
                raise
            ref = ref_of(accepted.task_id)
            if permit is not FREE:
                self._permits[ref.family, ref.task_id] = permit
            log.info("%s accepted: %s", out.call, ref.token)
            return Task(ref, watcher, accepted.raw, options.job_key)

        async def keep(recording: Recording, task: Task[Any]) -> None:
            task.job_key = recording.key
            await recording.accepted(task.ref, self._session.redactor.copy(task.raw))

        def again(recording: Recording, earlier: Earlier) -> Task[Any]:
            assert earlier.task is not None  # a request that makes tasks is not equal to one that does not
            return Task(earlier.task, watcher, earlier.reply, recording.key)

        return cast("Task[Any]", await self._paid(out, options, fly, ref_of, keep=keep, again=again))

    async def call(
        self, operation: Operation[Any, Any], request: Request, options: Options, recorder: Recorder
    ) -> Any:
        """Send a direct call and return its reply; where it has to be repeated while preparing, do so."""
        out = outgoing(operation, request, options, self._path_of)
        if out.kind == "get" and operation.repeat is None and options.deadline is None:
            # Nothing to repeat, to limit or to write down, as with the balance: 2 µs less than what follows.
            return replies.read_direct(await self._session.send(out, options), operation, call=out.call)
        record(out, options, recorder, operation)
        whole = True

        async def fly() -> Any:
            nonlocal whole
            started = self._clock.now()
            while True:
                reply = await self._session.send(out, options)
                read = replies.read_direct(reply, operation, call=out.call)
                if not isinstance(read, replies.Pending):
                    return read
                repeat = operation.repeat
                if repeat is None or not getattr(request, "wait", True):
                    whole = False
                    return read.reply if read.reply is not None else operation.reply()
                pause = max(repeat.every, read.retry_after or 0.0)
                if self._clock.now() - started + pause > repeat.deadline:
                    raise RequestTimeoutError(
                        f"still being prepared after {repeat.deadline:g} s",
                        sent=True,
                        call=out.call,
                        hint="Call again later: the work goes on at the service.",
                    )
                out.left = False  # nothing is under way while it is being prepared
                if out.recording is not None:
                    await out.recording.returned()
                await self._clock.sleep(pause)

        async def keep(recording: Recording, reply: Any) -> None:
            if whole:
                await recording.answered(self._session.redactor.copy(reply.raw))
            else:
                await recording.released()

        def again(recording: Recording, earlier: Earlier) -> Any:
            kept = replies.answer(200, {}, encode_any(earlier.reply, out.call))
            if earlier.task is None:
                return replies.read_direct(kept, operation, call=out.call)
            with contextlib.suppress(MusicAPIError):
                read = replies.read_direct(kept, operation, call=out.call)
                if not isinstance(read, replies.Pending) and not read.is_empty:
                    return read
            raise _named(out, earlier.task, "", recording.key)  # as it was the first time

        def ref_of(task_id: str) -> TaskRef:
            return TaskRef(operation.family.word, task_id, operation.name, self._clock.time(), own=True)

        if out.kind == "get":
            return await self._within(out, options, fly)
        return await self._paid(out, options, fly, ref_of, keep=keep, again=again)

    async def request(
        self,
        method: str,
        path: str,
        options: Options,
        recorder: Recorder,
        *,
        json: object = None,
        params: Mapping[str, object] | None = None,
    ) -> Any:
        """Any call that is not typed; see `MusicAPI.request`."""
        out = raw_outgoing(method, path, options, json, params, self._path_of)
        instead = _instead(path, json)
        del json, params  # they may hold a secret, and tracebacks can show the locals of a frame
        record(out, options, recorder)
        whole = True

        async def fly() -> Any:
            nonlocal whole
            reply = await self._session.send(out, options)
            read = replies.read_raw(reply, call=out.call, replacement=instead)
            whole = not (reply.not_ready and out.call in PREPARING)
            return read

        async def keep(recording: Recording, reply: Any) -> None:
            if whole:
                await recording.answered(self._session.redactor.copy(reply))
            else:
                await recording.released()

        def ref_of(task_id: str) -> TaskRef:
            family = out.call.partition(" /")[2].partition("/")[0]
            return TaskRef(family, task_id, submitted_at=self._clock.time(), own=True)

        def again(_recording: Recording, earlier: Earlier) -> Any:
            return earlier.reply

        if out.kind == "get":
            return await self._within(out, options, fly)
        return await self._paid(out, options, fly, ref_of, keep=keep, again=again)

    async def look(self, ref: TaskRef, polled: Polled, options: Options) -> Seen:
        """Poll a task once; a failure to get an answer is a value, too. Free."""
        path = poll_path(self._path_of(polled.path), ref.task_id)
        out = Outgoing(
            method="GET",
            path=path,
            call=f"GET {path}",
            kind="get",
            lane="poll",
            attempt_timeout=options.attempt_timeout or POLL_TIMEOUT,
        )
        try:
            reply = await self._session.send(out, options)
        except (APIConnectionError, InvalidResponseError) as error:
            return polls.unanswered(error, ref=ref)
        seen = polls.read_poll(reply, ref=ref, polled=polled)
        if seen.error is not None:
            addresses.explain(seen.error, self._session.base_url)
        return seen

    def task_ended(self, family: str, task_id: str) -> None:
        """Release the permit of a task that has ended."""
        permit = self._permits.pop((family, task_id), None)
        if permit is not None:
            permit.release()

    async def aclose(self) -> None:
        """Wait a moment for the answers of paid calls under way, then give them up, loudly."""
        if self._flights:
            await asyncio.wait(self._flights, timeout=CLOSE_GRACE)
        for flight in list(self._flights):
            flight.cancel()
        await asyncio.gather(*self._flights, return_exceptions=True)

    # --- sending under the rules ----------------------------------------------------------------------

    async def _paid(
        self,
        out: Outgoing,
        options: Options,
        fly: Callable[[], Any],
        ref_of: Callable[[str], TaskRef],
        *,
        keep: Keep,
        again: Again,
    ) -> Any:
        flight: asyncio.Task[Any] = asyncio.ensure_future(
            self._recorded(out, options, fly, ref_of, keep=keep, again=again)
        )
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if flight.cancelled() and not (task and task.cancelling()):
                self._give_up(out, options)
            if out.left and not flight.done():
                log.warning("%s: cancelled after it was sent; its answer is still awaited", out.call)
                flight.add_done_callback(lambda done: _report(out, done))
            else:
                flight.cancel()
            raise

    async def _recorded(
        self,
        out: Outgoing,
        options: Options,
        fly: Callable[[], Any],
        ref_of: Callable[[str], TaskRef],
        *,
        keep: Keep,
        again: Again,
    ) -> Any:
        """A paid call under its job key: what the key was used for before, or sent and written down."""
        recording = out.recording

        async def begin_and_fly() -> Any:
            if recording is None:
                return await fly()
            earlier = await recording.reserve()
            if earlier is not None:
                return earlier
            if options.check_balance:
                recording.balance(await self._balance())
            return await fly()

        try:
            result = await self._within(out, options, begin_and_fly)
        except BaseException as error:
            shown = await self._settle(out, options, ref_of, error)
            if shown is error:
                raise
            raise shown from error
        if recording is None:
            return result
        if isinstance(result, Earlier):
            return again(recording, result)
        await keep(recording, result)
        return result

    async def _settle(
        self, out: Outgoing, options: Options, ref_of: Callable[[str], TaskRef], error: BaseException
    ) -> BaseException:
        """Decide once what the end of a paid call means for money, note it, and return what to raise."""
        recording = out.recording
        key = options.job_key if recording is None else recording.key
        if isinstance(error, JobStoreError):
            error.call = out.call
        if isinstance(error, OutcomeUnknownError):  # of the call that the job key was used for before
            error.job_key = key
            return error
        free = out.kind != "create"  # it may be repeated at no cost, so nothing needs to be settled
        outcome = Outcome.NOT_SENT if free else verdict(error, sent=out.left, in_doubt=out.doubt)
        if outcome is Outcome.ACCEPTED and isinstance(error, APIStatusError) and error.task_id:
            ref = ref_of(error.task_id)
            log.warning("%s: accepted, as an error says: %s", out.call, ref.token)
            if recording is not None:
                await recording.accepted(ref, error.body)
            error.may_have_been_charged = True
            error.about(task_id=ref.task_id, family=ref.family)
            return _named(out, ref, f" ({error.message})", key)
        if outcome.is_free:
            if isinstance(error, MusicAPIError) and not free:
                error.not_charged = True
            if recording is not None:
                await recording.released()
            return error
        shown = self._unknown(out, error, key) if isinstance(error, Exception) else error
        if recording is not None:
            known = isinstance(error, MusicAPIError)
            balance = await self._balance() if options.check_balance and known else None
            why = str(error) if known else "given up before its answer was read"
            await recording.unknown(why, balance)
        return shown

    async def _balance(self) -> float | None:
        """The credits, or None if they cannot be had; evidence only."""
        out = Outgoing(method="GET", path="/get-credits", call="GET /get-credits", kind="get", lane="call")
        try:
            found = await self._session.send(out, Options(max_retries=1))
        except MusicAPIError as error:
            log.info("the balance could not be read: %s", error)
            return None
        known = Credits.from_body(found.fields) if found.ok and found.is_object else None
        return known.total if known is not None else None

    async def _within(self, out: Outgoing, options: Options, fly: Callable[[], Any]) -> Any:
        if options.deadline is None:
            return await fly()
        with anyio.move_on_after(self._clock.real(options.deadline)):
            return await fly()
        raise RequestTimeoutError(
            f"the deadline of {options.deadline:g} s passed",
            sent=out.left or out.doubt if out.kind == "create" else None,
            call=out.call,
        )

    def _give_up(self, out: Outgoing, options: Options) -> NoReturn:
        """The client was closed while a paid call was under way: its caller must hear of it."""
        if out.kind != "create" or not (out.left or out.doubt):
            sent = False if out.kind == "create" else None
            raise APIConnectionError("the client was closed before it was sent", sent=sent, call=out.call)
        lost = ConnectionLostError("the client was closed before the answer came", sent=True, call=out.call)
        raise self._unknown(out, lost, options.job_key) from lost

    def _unknown(self, out: Outgoing, error: Exception, job_key: str | None) -> OutcomeUnknownError:
        """The error of a paid call of which nobody knows whether it was carried out."""
        told, address = type(error).__name__, ""
        if isinstance(error, MusicAPIError):
            told = error.message
            error.may_have_been_charged = True
            address = addresses.suspicion(error, self._session.base_url)
            error.hint = address or ("" if out.doubt else error.hint)  # "it may be repeated" is not true then
        log.warning("%s: outcome unknown: %s", out.call, told)
        step = error if isinstance(error, StepFailedError) else None
        clip_id = step.clip_id if step else None
        usable = f"The upload worked: clip {clip_id} can be used without another upload." if clip_id else ""
        return OutcomeUnknownError(
            f"the call was sent, and whether it was carried out is unknown ({told})",
            hint=" ".join(filter(None, (OutcomeUnknownError.default_hint, usable, address))),
            call=out.call,
            job_key=job_key,
            steps=step.steps if step else None,
            clip_id=clip_id,
        )


def _named(out: Outgoing, ref: TaskRef, told: str, job_key: str | None) -> OutcomeUnknownError:
    """The error of a paid call whose answer was an error that names a task."""
    return OutcomeUnknownError(
        f"the answer is an error that names task {ref.task_id}: it was probably accepted{told}",
        hint="Do not send it again: wait for the task of this id; the same job key gives it, too.",
        call=out.call,
        task_id=ref.task_id,
        family=ref.family,
        job_key=job_key,
    )


def _instead(path: str, body: object) -> str | None:
    """What is advised instead of a task type that Producer has retired; no typed call asks for one."""
    kind = cast("Mapping[str, object]", body).get("task_type") if isinstance(body, Mapping) else None
    return RETIRED.get(kind) if isinstance(kind, str) and path.startswith("/producer/") else None


def _report(out: Outgoing, flight: asyncio.Task[Any]) -> None:
    """The answer to a call whose caller has gone."""
    if flight.cancelled():
        log.error("%s: sent, and given up before the answer: the account may have been charged", out.call)
    elif (error := flight.exception()) is not None:
        log.error("%s: its caller was cancelled; it ended with: %s", out.call, error)
    else:
        result = flight.result()
        told = result.ref.token if isinstance(result, Task) else "done"
        log.warning("%s: its caller was cancelled; it was accepted and goes on: %s", out.call, told)
