"""The attempt loop: sends a request within the rate, and repeats it if the rules of `_wire.retry` allow it.

`Transport` is the layer below: it makes one attempt. `Sending` is the part of a paid call that the loop
notifies of each attempt; a free call has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import msgspec

from .._wire import base_url_hints, poll_response, retry
from .._wire.charge_verdict import carried_out
from .._wire.codec import report
from .._wire.poll_result import PollResult
from .._wire.prepare import PathOf, PreparedRequest, prepare_poll
from .._wire.response import Response, failure_of
from .._wire.retry import AttemptFailure
from ..api.operation import Polled
from ..api.task import TaskRef
from ..clock import Clock
from ..errors import APIConnectionError, InvalidResponseError, RequestTimeoutError
from ..options import Options
from .observer import ObservedCall, Observer
from .rate_limiter import RateLimiter, RequestSlot
from .wait_reasons import Waits, during

CLOSED_HINT: Final = "The call may be repeated."
PROVEN: Final = (AttemptFailure.NOT_SENT, AttemptFailure.RATE_LIMITED)
"""Failures of an attempt that was certainly not carried out."""


class Departure(Protocol):
    """The departure of a request: the time at which its first byte is sent."""

    @property
    def sent(self) -> bool:
        """True once bytes of the request may have left."""
        ...

    async def leaving(self) -> None:
        """Wait until the request may be sent, and record that it is.

        A transport calls it for a request of kind "create" when its connection is open, before it sends the
        first byte. A transport that does not know this time calls it at once.
        """
        ...


class Transport(Protocol):
    """A transport: makes one attempt to send a request."""

    async def attempt(self, prepared: PreparedRequest, departure: Departure) -> Response:
        """Send the request once and return the response, of any status.

        Raises `APIConnectionError` if there is no response; its `sent` is False if nothing was sent.
        """
        ...


class Sending(Departure, Protocol):
    """A paid call, as the attempt loop sees it."""

    async def begin(self, slot: RequestSlot) -> None:
        """Record that an attempt begins, with its `slot`. If this raises, nothing is sent."""
        ...

    async def repeat(self, *, proven: bool) -> None:
        """Record that another attempt follows; `proven`: the last one was certainly not carried out."""
        ...


class _Free:
    """The departure of a request that costs nothing."""

    def __init__(self) -> None:
        self.sent = False

    async def leaving(self) -> None:
        """Return at once: the request may be sent."""


FREE_CALL: Final = _Free()


class Attempts:
    """Sends requests over one transport, under one limiter.

    Args:
        transport: makes one attempt.
        limiter: says when a request may be sent.
        clock: the clock of the pauses between attempts.
        draw: draws the jitter of these pauses.
        path_of: gives the path at this host of a declared path.
        base_url: the address that calls go to, for errors.
        observer: takes the events of calls.
    """

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        transport: Transport,
        limiter: RateLimiter,
        clock: Clock,
        draw: retry.Draw,
        path_of: PathOf,
        base_url: str,
        observer: Observer,
    ) -> None:
        self._transport: Final = transport
        self.limiter: Final = limiter
        self.clock: Final = clock
        self._draw: Final = draw
        self.path_of: Final = path_of
        self.base_url: Final = base_url
        self._real_time: Final = asyncio.get_running_loop().time
        self.observer: Final = observer

    async def send(
        self,
        prepared: PreparedRequest,
        options: Options,
        paid: Sending | None = None,
        waits: Waits | None = None,
        observed: ObservedCall | None = None,
    ) -> Response:
        """Send a request, repeat it if the rules allow it, and return the last response, of any status.

        Args:
            prepared: the request.
            options: how often it may be sent again.
            paid: the call if it may charge; it is notified of each attempt.
            waits: collects the waits for the rate. With it, the response has these waits and its own time.
            observed: receives the events of the call, if its caller observes it.

        Raises:
            APIConnectionError: there was no response; `sent` says if the request may have left.
            InvalidResponseError: the body of a response is over the limit.
        """
        if options.headers is not None:
            prepared = msgspec.structs.replace(prepared, headers=options.headers)
        attempt = 1
        found: Response | APIConnectionError | None
        while True:
            found, began, held = None, 0.0, 0.0
            try:
                async with self.limiter.slot(prepared.lane, waits) as slot:
                    if paid is not None:
                        await paid.begin(slot)
                    if observed is not None:
                        observed.begins()
                    if waits is not None:  # after the hooks, whose time is not that of the service
                        began, held = self._real_time(), 0.0 if paid is None else waits.seconds()
                    try:
                        found = await self._transport.attempt(prepared, paid or FREE_CALL)
                    except APIConnectionError as error:
                        # Without its traceback, whose frames would refer to the error.
                        found = error.with_traceback(None)
                    except BaseException as error:
                        if observed is not None:
                            observed.ends(error)
                        raise
                    if observed is not None:
                        observed.ends(found)
            except Exception as error:
                if found is None:
                    raise
                _report_limiter(error)
            retry_after: float | None = None
            if isinstance(found, APIConnectionError):
                failure = AttemptFailure.NOT_SENT if found.sent is False else AttemptFailure.SENT_UNKNOWN
            else:
                found.attempts = attempt
                if waits is not None:
                    found.waits, found.elapsed = waits, self._real_time() - began
                    if paid is not None:  # it waits for the rate once more when its connection is open
                        found.elapsed -= self.clock.real(waits.seconds() - held)
                failed = failure_of(found)
                if failed is None:
                    try:
                        self.limiter.succeeded(prepared.lane)
                    except Exception as error:
                        _report_limiter(error)
                    return found
                failure, retry_after = failed, found.retry_after
            wait = retry.decide(prepared.kind, failure, attempt, retry_after, options, self._draw)
            if paid is not None and isinstance(found, Response) and carried_out(found, prepared.call):
                wait = None  # a refusal that names a task is no refusal
            if failure is AttemptFailure.RATE_LIMITED:
                # The lane is paused for no longer than a retry would wait.
                self.limiter.pause(prepared.lane, wait or retry.retry_after_floor(retry_after))
            if wait is None:
                if isinstance(found, APIConnectionError):
                    raise found
                return found
            attempt += 1
            text = "%s: %s; attempt %d follows in %.1f s"
            report(logging.INFO, text, prepared.call, failure, attempt, wait)
            if paid is not None:
                await paid.repeat(proven=failure in PROVEN)
            if observed is not None:
                observed.repeats(failure, wait)
            with during(waits if failure is AttemptFailure.RATE_LIMITED else None, "pause"):
                await self.clock.sleep(wait)

    def get(
        self,
        prepared: PreparedRequest,
        options: Options,
        waits: Waits | None = None,
        observed: ObservedCall | None = None,
    ) -> Coroutine[Any, Any, Response]:
        """Send a free call, within its deadline if it has one; see `send`."""
        if waits is None and observed is not None:
            waits = observed.waits
        if options.deadline is None:
            return self.send(prepared, options, None, waits, observed)
        return self._get_within(options.deadline, prepared, options, waits, observed)

    async def _get_within(
        self,
        seconds: float,
        prepared: PreparedRequest,
        options: Options,
        waits: Waits | None,
        observed: ObservedCall | None,
    ) -> Response:
        waits = waits or Waits(self.clock, prepared.call)
        deadline = asyncio.timeout(self.clock.real(seconds))
        try:
            async with deadline:
                return await self.send(prepared, options, waits=waits, observed=observed)
        except TimeoutError:
            if not deadline.expired():
                raise
        waited = f"; {waits}" if str(waits) else ""
        text = f"the deadline of {seconds:g} s passed{waited}"
        raise RequestTimeoutError(text, sent=None, call=prepared.call)

    async def poll(
        self, ref: TaskRef, polled: Polled, options: Options, due: float | None = None
    ) -> PollResult:
        """Poll a task once. Free. If there is no response, returns that as a value, too.

        `due` is the time of the clock for which the poll was planned, if it was.
        """
        prepared = prepare_poll(self.path_of(polled.path), ref.task_id, options.attempt_timeout)
        observed = self.observer.call(prepared, task=ref)
        late = None if due is None or observed is None else max(0.0, self.clock.now() - due)
        try:
            response = await self.get(prepared, options, observed=observed)
        except (APIConnectionError, InvalidResponseError) as error:
            result = poll_response.without_response(error, ref=ref)
        else:
            result = poll_response.judge_poll(response, ref=ref, polled=polled)
            if result.error is not None:
                base_url_hints.add_hint(result.error, self.base_url)
        if observed is not None:
            observed.polled(result, late)
        return result


def _report_limiter(error: Exception) -> None:
    """Log that a limiter failed after a response. The error is not raised: the response may have a task."""
    report(logging.ERROR, "the rate limiter failed after a response: %s: %s", type(error).__name__, error)
