"""From an operation to its answer: check, encode, send under the rules, read, and say what it means.

A paid call runs in a task of its own once it is under way. If its caller is cancelled then (Ctrl-C, a closed
browser), the answer is still read, so that the id of a task that was paid for reaches the log.
"""

from __future__ import annotations

import asyncio
import logging
import math
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import urlencode, urlsplit

import anyio
import msgspec

from ..api.handle import Task, TaskRef, Watcher
from ..api.operation import Operation, Polled
from ..api.replies import Credits
from ..api.request import SECRET, Request, body, refuse, violations
from ..clock import Clock
from ..config import ATTEMPT_TIMEOUT, POLL_TIMEOUT, Options
from ..errors import (
    APIConnectionError,
    InvalidResponseError,
    JobStoreError,
    MusicAPIError,
    OutcomeUnknownError,
    RequestTimeoutError,
    RequestValidationError,
    ServerError,
)
from ..wire import codec, polls, replies
from ..wire.looks import Seen
from .in_flight import Place
from .limiter import RateLimiter
from .recording import Earlier, Recorder, Recording
from .session import Incoming, Kind, Outgoing, Session, fill_path

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
        self, session: Session, limiter: RateLimiter, clock: Clock, path_of: Callable[[str], str] = str
    ) -> None:
        self._session: Final = session
        self._path_of: Final = path_of
        self._limiter: Final = limiter
        self._clock: Final = clock
        self._flights: Final[set[asyncio.Task[Any]]] = set()
        self._places: Final[dict[tuple[str, str], Place]] = {}

    async def submit(
        self,
        operation: Operation[Any, Any],
        request: Request,
        options: Options,
        watcher: Watcher,
        recorder: Recorder,
    ) -> Task[Any]:
        """Send a create and return the handle of its task, or of the one that its job key stands for."""
        out = _outgoing(operation, request, options, self._path_of)
        _record(out, options, recorder, operation)

        async def fly() -> Task[Any]:
            place = await self._limiter.reserve_task()
            try:
                reply = await self._session.send(out, options)
                accepted = replies.read_submit(
                    reply.status,
                    reply.headers,
                    reply.raw,
                    call=out.call,
                    family=operation.family.word,
                    replacement=operation.replacement,
                )
            except BaseException:
                place.release()
                raise
            model = getattr(request, "mv", None)
            ref = TaskRef(
                operation.family.word,
                accepted.task_id,
                operation.name,
                self._clock.time(),
                model=model if isinstance(model, str) else "",
                own=True,
            )
            self._places[ref.family, ref.task_id] = place
            log.info("%s accepted: %s", out.call, ref.token)
            return Task(ref, watcher, accepted.raw, options.job_key)

        async def keep(recording: Recording, task: Task[Any]) -> None:
            task.job_key = recording.key
            await recording.accepted(task.ref, task.raw)

        def again(recording: Recording, earlier: Earlier) -> Task[Any]:
            assert earlier.task is not None  # a request that makes tasks is not equal to one that does not
            return Task(earlier.task, watcher, earlier.reply, recording.key)

        return cast("Task[Any]", await self._paid(out, options, operation, fly, keep=keep, again=again))

    async def call(
        self, operation: Operation[Any, Any], request: Request, options: Options, recorder: Recorder
    ) -> Any:
        """Send a direct call and return its reply; where it has to be repeated while preparing, do so."""
        out = _outgoing(operation, request, options, self._path_of)
        _record(out, options, recorder, operation)
        whole = True

        async def fly() -> Any:
            nonlocal whole
            started = self._clock.now()
            while True:
                reply = await self._session.send(out, options)
                read = replies.read_direct(reply.status, reply.headers, reply.raw, operation, call=out.call)
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
                await self._clock.sleep(pause)

        async def keep(recording: Recording, reply: Any) -> None:
            await (recording.answered(reply.raw) if whole else recording.dropped())

        def again(_recording: Recording, earlier: Earlier) -> Any:
            return replies.read_direct(200, {}, _encode_any(earlier.reply, out.call), operation, out.call)

        if out.kind == "get":
            return await self._within(out, options, fly)
        return await self._paid(out, options, operation, fly, keep=keep, again=again)

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
        out = _raw(method, path, options, json, params)
        _record(out, options, recorder)

        async def fly() -> Any:
            reply = await self._session.send(out, options)
            return _read_any(reply, out)

        async def keep(recording: Recording, reply: Any) -> None:
            await recording.answered(reply)

        def again(_recording: Recording, earlier: Earlier) -> Any:
            return earlier.reply

        if out.kind == "get":
            return await self._within(out, options, fly)
        return await self._paid(out, options, None, fly, keep=keep, again=again)

    async def look(self, ref: TaskRef, polled: Polled, options: Options) -> Seen:
        """Poll a task once; a failure to get an answer is a value, too. Free."""
        out = Outgoing(
            method="GET",
            path=fill_path(self._path_of(polled.path), {"task_id": ref.task_id}),
            call=f"GET {polled.path}",
            kind="get",
            lane="poll",
            attempt_timeout=options.attempt_timeout or POLL_TIMEOUT,
        )
        try:
            reply = await self._session.send(out, options)
        except (APIConnectionError, InvalidResponseError) as error:
            return polls.unanswered(error, ref=ref)
        return polls.read_poll(reply.status, reply.headers, reply.raw, ref=ref, polled=polled)

    def task_ended(self, family: str, task_id: str) -> None:
        """Free the place that the task held among the tasks in flight."""
        place = self._places.pop((family, task_id), None)
        if place is not None:
            place.release()

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
        operation: Operation[Any, Any] | None,
        fly: Callable[[], Any],
        *,
        keep: Keep,
        again: Again,
    ) -> Any:
        flight: asyncio.Task[Any] = asyncio.ensure_future(
            self._recorded(out, options, operation, fly, keep=keep, again=again)
        )
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
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
        operation: Operation[Any, Any] | None,
        fly: Callable[[], Any],
        *,
        keep: Keep,
        again: Again,
    ) -> Any:
        """A paid call under its job key: what the key was used for before, or sent and written down."""
        recording = out.recording
        if recording is None:
            return await self._known(out, options, operation, self._within(out, options, fly))

        async def begin_and_fly() -> Any:
            earlier = await recording.begin()
            if earlier is not None:
                return earlier
            if options.check_balance:
                recording.balanced(await self._balance())
            return await fly()

        try:
            result = await self._known(out, options, operation, self._within(out, options, begin_and_fly))
        except BaseException as error:
            await self._undone(out, options, recording, error)
            raise
        if isinstance(result, Earlier):
            return again(recording, result)
        await keep(recording, result)
        return result

    async def _undone(
        self, out: Outgoing, options: Options, recording: Recording, error: BaseException
    ) -> None:
        """Write down how a paid call ended that gave no result."""
        if isinstance(error, JobStoreError):
            error.call = out.call
        if isinstance(error, OutcomeUnknownError):
            error.job_key = recording.key
            balance = await self._balance() if options.check_balance else None
            await recording.unknown(str(error.__cause__ or error.message), balance)
        elif out.left and out.kind == "create" and not isinstance(error, MusicAPIError):
            await recording.unknown("given up before its answer was read", None)
        else:
            await recording.dropped()

    async def _balance(self) -> float | None:
        """The credits, or None if they cannot be had; evidence only."""
        out = Outgoing(method="GET", path="/get-credits", call="GET /get-credits", kind="get", lane="call")
        try:
            reply = await self._session.send(out, Options(retries=1))
            found = replies.answer(reply.status, reply.headers, reply.raw)
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
            f"the deadline of {options.deadline:g} s passed", sent=out.left, call=out.call
        )

    async def _known(
        self, out: Outgoing, options: Options, operation: Operation[Any, Any] | None, work: Any
    ) -> Any:
        """Await a paid call; an end that leaves its outcome open becomes `OutcomeUnknownError`."""
        try:
            return await work
        except APIConnectionError as error:
            if error.sent is False:
                raise
            raise self._unknown(out, options, error) from error
        except ServerError as error:
            if operation is not None and error.status in operation.uncharged:
                error.may_have_been_charged = False
                raise
            raise self._unknown(out, options, error) from error
        except InvalidResponseError as error:
            raise self._unknown(out, options, error) from error

    def _unknown(self, out: Outgoing, options: Options, error: MusicAPIError) -> MusicAPIError:
        if out.kind != "create":
            return error
        error.may_have_been_charged = True
        log.warning("%s: outcome unknown: %s", out.call, error.message)
        return OutcomeUnknownError(
            f"the call was sent, and whether it was carried out is unknown ({error.message})",
            call=out.call,
            job_key=options.job_key,
        )


def _read_any(reply: Incoming, out: Outgoing) -> Any:
    """The decoded body of an untyped call, or the error that it tells of."""
    found = replies.answer(reply.status, reply.headers, reply.raw)
    if not found.ok or (found.code or 0) >= 400:
        raise replies.error_of(found, call=out.call)
    if not found.json:
        raise InvalidResponseError(
            f"the answer is not JSON: {found.body}", status=found.status, body=found.body, call=out.call
        )
    return found.body


def _record(
    out: Outgoing, options: Options, recorder: Recorder, operation: Operation[Any, Any] | None = None
) -> None:
    """Have a call written down that costs credits, or that has a job key."""
    if out.kind == "create" or (out.kind == "repeatable" and options.job_key is not None):
        out.recording = recorder.record(
            options.job_key,
            f"{out.call}?{urlencode(out.params)}" if out.params else out.call,
            out.body or b"",
            operation.family.word if operation is not None else "",
            operation.name if operation is not None else "",
        )


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


def _outgoing(
    operation: Operation[Any, Any], request: Request, options: Options, path_of: Callable[[str], str]
) -> Outgoing:
    call = operation.call_name
    if options.validate != "off":
        found = violations(request)
        if found and options.validate == "error":
            raise refuse(found, call)
        for violation in found:
            warnings.warn(f"{call}: {violation}", stacklevel=5)  # the line that awaits the operation
    values = body(request)
    path = fill_path(path_of(operation.path), values)
    data: bytes | None = None
    if operation.method == "POST":
        data = _encode({**values, **(options.extra_body or {})}, call)
    kind: Kind = "get"
    if operation.method != "GET":
        kind = "create" if operation.charges and not operation.resend else "repeatable"
    return Outgoing(
        method=operation.method,
        path=path,
        call=call,
        kind=kind,
        lane="submit" if operation.submits else "call",
        body=data,
        attempt_timeout=options.attempt_timeout or operation.attempt_timeout or ATTEMPT_TIMEOUT,
        secrets=tuple(str(values[name]) for name in SECRET if values.get(name)),
    )


def _encode(values: Mapping[str, object], call: str) -> bytes:
    try:
        return codec.encode(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestValidationError(f"the body cannot be sent as JSON: {error}", call=call) from error


METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def _raw(
    method: str, path: str, options: Options, json: object, params: Mapping[str, object] | None
) -> Outgoing:
    verb = method.upper()
    if verb not in METHODS:
        raise RequestValidationError(
            f"method: one of {', '.join(METHODS)}, got {method!r}", field="method", value=repr(method)
        )
    parts = urlsplit(path)
    if parts.scheme or parts.netloc or not path.startswith("/") or parts.fragment or "\\" in path:
        raise RequestValidationError(
            "path: a path below the base URL such as '/sonic/batch'", field="path", value=repr(path[:80])
        )
    query: dict[str, str] = {}
    for name, value in (params or {}).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestValidationError(f"params: {name} is not finite", field="params")
        if value is not None:
            query[name] = str(value).lower() if isinstance(value, bool) else str(value)
    call = f"{verb} {parts.path}"
    return Outgoing(
        method=verb,
        path=path,
        call=call,
        kind="get" if verb == "GET" else "create",
        lane="submit" if verb != "GET" and parts.path.endswith("/create") else "call",
        params=query or None,
        body=None if json is None else _encode_any(json, call),
        attempt_timeout=options.attempt_timeout or ATTEMPT_TIMEOUT,
    )


def _encode_any(json: object, call: str) -> bytes:
    try:
        return msgspec.json.encode(json)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestValidationError(f"json: cannot be sent as JSON: {error}", call=call) from error
