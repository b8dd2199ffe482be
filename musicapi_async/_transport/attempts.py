"""The attempt loop: a request is sent under the rate, and again where the rules of `_wire.retry` allow it.

`Transport` is the seam below: it makes one attempt. `Sending` is what the loop needs of a paid call, which
has to know of each attempt; a free call needs none.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from .._wire import base_url_hints, poll_response, retry
from .._wire.poll_response import PollResult
from .._wire.prepare import PathOf, PreparedRequest, prepare_poll
from .._wire.response import Response, failure_of
from .._wire.retry import Failure
from .._wire.verdict import carried_out
from ..api.operation import Polled
from ..api.task import TaskRef
from ..clock import Clock
from ..errors import APIConnectionError, InvalidResponseError
from ..options import Options
from .rate_limiter import RateLimiter, Slot
from .waits import Waits

log: Final = logging.getLogger("musicapi_async")

PROVEN: Final = (Failure.NOT_SENT, Failure.RATE_LIMITED)
"""Failures of an attempt that was certainly not carried out."""


class Departure(Protocol):
    """The moment in which a request leaves."""

    @property
    def sent(self) -> bool:
        """True once bytes of the request may have left."""
        ...

    async def leaving(self) -> None:
        """Wait until the request may leave, and note that it does.

        A transport calls it for a request of kind "create" when its connection is open, before the first byte
        leaves. One that cannot tell calls it at once.
        """
        ...


class Transport(Protocol):
    """Makes one attempt to send a request."""

    async def attempt(self, prepared: PreparedRequest, departure: Departure) -> Response:
        """Send the request once and return the response, whatever its status.

        Raises `APIConnectionError` without a response; its `sent` is False if nothing left.
        """
        ...


class Sending(Departure, Protocol):
    """A paid call, as the attempt loop sees it."""

    async def begin(self, slot: Slot) -> None:
        """Note that an attempt begins, which leaves through `slot`. If this raises, nothing is sent."""
        ...

    async def repeat(self, *, proven: bool) -> None:
        """Note that another attempt follows; `proven` if the last one was certainly not carried out."""
        ...


class _Free:
    """The departure of a request that costs nothing."""

    def __init__(self) -> None:
        self.sent = False

    async def leaving(self) -> None:
        """Leave at once."""


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
    """

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        transport: Transport,
        limiter: RateLimiter,
        clock: Clock,
        draw: retry.Draw,
        path_of: PathOf,
        base_url: str,
    ) -> None:
        self._transport: Final = transport
        self.limiter: Final = limiter
        self.clock: Final = clock
        self._draw: Final = draw
        self.path_of: Final = path_of
        self.base_url: Final = base_url

    async def send(
        self,
        prepared: PreparedRequest,
        options: Options,
        paid: Sending | None = None,
        waits: Waits | None = None,
    ) -> Response:
        """Send a request, again where the rules allow it, and return the last response, whatever its status.

        Args:
            prepared: the request.
            options: how often it may be sent again.
            paid: the call if it may charge; it is told of each attempt.
            waits: takes note of the waits for the rate.

        Raises:
            APIConnectionError: there was no response; `sent` tells whether the request may have left.
            InvalidResponseError: the body of a response is over the limit.
        """
        attempt = 1
        while True:
            async with self.limiter.slot(prepared.lane, waits) as slot:
                if paid is not None:
                    await paid.begin(slot)
                try:
                    found: Response | APIConnectionError = await self._transport.attempt(
                        prepared, paid or FREE_CALL
                    )
                except APIConnectionError as error:
                    found = error
            retry_after: float | None = None
            if isinstance(found, APIConnectionError):
                failure = Failure.NOT_SENT if found.sent is False else Failure.SENT_UNKNOWN
            else:
                found.attempts = attempt
                failed = failure_of(found)
                if failed is None:
                    self.limiter.succeeded(prepared.lane)
                    return found
                failure, retry_after = failed, found.retry_after
            policy = retry.RetryPolicy(
                max_retries=options.max_retries, resend_creates_on_5xx=options.resend_creates_on_5xx
            )
            wait = retry.decide(prepared.kind, failure, attempt, retry_after, policy, self._draw)
            if paid is not None and isinstance(found, Response) and carried_out(found, prepared.call):
                wait = None  # a refusal that names a task is none
            if failure is Failure.RATE_LIMITED:
                # No header stops the lane for longer than a retry would obey it.
                self.limiter.pause(prepared.lane, wait or min(retry_after or 0.0, policy.retry_after_cap))
            if wait is None:
                if isinstance(found, APIConnectionError):
                    raise found
                return found
            attempt += 1
            log.info("%s: %s; attempt %d follows in %.1f s", prepared.call, failure, attempt, wait)
            if paid is not None:
                await paid.repeat(proven=failure in PROVEN)
            if waits is not None and failure is Failure.RATE_LIMITED:
                with waits.during("pause"):
                    await self.clock.sleep(wait)
            else:
                await self.clock.sleep(wait)

    async def poll(self, ref: TaskRef, polled: Polled, options: Options) -> PollResult:
        """Poll a task once. Free. A failure to get a response is a value, too."""
        prepared = prepare_poll(self.path_of(polled.path), ref.task_id, options.attempt_timeout)
        try:
            response = await self.send(prepared, options)
        except (APIConnectionError, InvalidResponseError) as error:
            return poll_response.without_response(error, ref=ref)
        result = poll_response.judge_poll(response, ref=ref, polled=polled)
        if result.error is not None:
            base_url_hints.add_hint(result.error, self.base_url)
        return result
