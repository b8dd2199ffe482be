"""From an operation to its answer: check, encode, send under the rules, read, and say what it means.

A paid call runs in a task of its own once it is under way. If its caller is cancelled then (Ctrl-C, a closed
browser), the answer is still read, so that the id of a task that was paid for reaches the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, cast

import anyio

from ..api.handle import Task, TaskRef, Watcher
from ..api.operation import Operation, Polled
from ..api.producer import RETIRED
from ..api.replies import Credits
from ..api.request import Request
from ..clock import Clock
from ..config import POLL_TIMEOUT, Options
from ..errors import (
    APIConnectionError,
    ConnectionLostError,
    InvalidResponseError,
    JobStoreError,
    MusicAPIError,
    OutcomeUnknownError,
    RequestTimeoutError,
    ServerError,
)
from ..wire import addresses, polls, replies
from ..wire.looks import Seen
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
            model, wanted = getattr(request, "mv", None), getattr(request, "format", None)
            ref = TaskRef(
                operation.family.word,
                accepted.task_id,
                operation.name,
                self._clock.time(),
                model=model if isinstance(model, str) else "",
                own=True,
                format=wanted if isinstance(wanted, str) else "",
            )
            if permit is not FREE:
                self._permits[ref.family, ref.task_id] = permit
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
            await (recording.answered(reply.raw) if whole else recording.dropped())

        def again(_recording: Recording, earlier: Earlier) -> Any:
            kept = replies.answer(200, {}, encode_any(earlier.reply, out.call))
            return replies.read_direct(kept, operation, call=out.call)

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
        out = raw_outgoing(method, path, options, json, params, self._path_of)
        record(out, options, recorder)

        async def fly() -> Any:
            reply = await self._session.send(out, options)
            return _read_any(reply, out, _instead(path, json))

        async def keep(recording: Recording, reply: Any) -> None:
            await recording.answered(reply)

        def again(_recording: Recording, earlier: Earlier) -> Any:
            return earlier.reply

        if out.kind == "get":
            return await self._within(out, options, fly)
        return await self._paid(out, options, None, fly, keep=keep, again=again)

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
        operation: Operation[Any, Any] | None,
        fly: Callable[[], Any],
        *,
        keep: Keep,
        again: Again,
    ) -> Any:
        """A paid call under its job key: what the key was used for before, or sent and written down."""
        recording = out.recording
        if recording is None:
            return await self._known(out, options, operation, fly)

        async def begin_and_fly() -> Any:
            earlier = await recording.begin()
            if earlier is not None:
                return earlier
            if options.check_balance:
                recording.balanced(await self._balance())
            return await fly()

        try:
            result = await self._known(out, options, operation, begin_and_fly)
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
        elif (out.left or out.doubt) and out.kind == "create" and not isinstance(error, MusicAPIError):
            await recording.unknown("given up before its answer was read", None)
        else:
            await recording.dropped()

    async def _balance(self) -> float | None:
        """The credits, or None if they cannot be had; evidence only."""
        out = Outgoing(method="GET", path="/get-credits", call="GET /get-credits", kind="get", lane="call")
        try:
            found = await self._session.send(out, Options(retries=1))
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
            f"the deadline of {options.deadline:g} s passed", sent=out.left or out.doubt, call=out.call
        )

    async def _known(
        self,
        out: Outgoing,
        options: Options,
        operation: Operation[Any, Any] | None,
        fly: Callable[[], Any],
    ) -> Any:
        """Carry out a paid call; an end that leaves its outcome open becomes `OutcomeUnknownError`."""
        try:
            return await self._within(out, options, fly)
        except OutcomeUnknownError:
            raise
        except APIConnectionError as error:
            if error.sent is False and not out.doubt:
                raise
            raise self._unknown(out, options, error) from error
        except ServerError as error:
            if operation is not None and error.status in operation.uncharged:
                error.may_have_been_charged = False
                raise
            raise self._unknown(out, options, error) from error
        except InvalidResponseError as error:
            raise self._unknown(out, options, error) from error
        except MusicAPIError as error:
            if not out.doubt:
                raise
            raise self._unknown(out, options, error) from error

    def _give_up(self, out: Outgoing, options: Options) -> NoReturn:
        """The client was closed while a paid call was under way: its caller must hear of it."""
        if not (out.left or out.doubt):
            raise APIConnectionError("the client was closed before it was sent", sent=False, call=out.call)
        lost = ConnectionLostError("the client was closed before the answer came", sent=True, call=out.call)
        raise self._unknown(out, options, lost) from lost

    def _unknown(self, out: Outgoing, options: Options, error: MusicAPIError) -> MusicAPIError:
        if out.kind != "create":
            return error
        error.may_have_been_charged = True
        log.warning("%s: outcome unknown: %s", out.call, error.message)
        address = addresses.suspicion(error, self._session.base_url)
        error.hint = address or error.hint
        return OutcomeUnknownError(
            f"the call was sent, and whether it was carried out is unknown ({error.message})",
            hint=f"{OutcomeUnknownError.default_hint} {address}".strip(),
            call=out.call,
            job_key=options.job_key,
        )


def _instead(path: str, body: object) -> str | None:
    """What is advised instead of a task type that Producer has retired; no typed call asks for one."""
    kind = cast("Mapping[str, object]", body).get("task_type") if isinstance(body, Mapping) else None
    return RETIRED.get(kind) if isinstance(kind, str) and path.startswith("/producer/") else None


def _read_any(found: replies.Answer, out: Outgoing, replacement: str | None) -> Any:
    """The decoded body of an untyped call, or the error that it tells of."""
    if not found.ok or (found.code or 0) >= 400:
        raise replies.error_of(found, call=out.call, replacement=replacement)
    if not found.json:
        raise InvalidResponseError(
            f"the answer is not JSON: {found.text}", status=found.status, body=found.body, call=out.call
        )
    return found.body


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
