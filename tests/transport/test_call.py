"""A call that may charge, over a transport of the test's own: the seam below the attempt loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from musicapi_async._transport.attempts import Attempts, Departure, Transport
from musicapi_async._transport.call_entry import Notes
from musicapi_async._transport.observer import Observer
from musicapi_async._transport.paid_call import PaidCall
from musicapi_async._transport.rate_limiter import MemoryLimiter
from musicapi_async._wire.prepare import PreparedRequest
from musicapi_async._wire.redaction import Redactor
from musicapi_async._wire.response import Response, read_response
from musicapi_async._wire.retry import drawing
from musicapi_async.clock import Clock
from musicapi_async.errors import ConnectFailedError, ConnectionLostError, OutcomeUnknownError
from musicapi_async.options import Options

CREATE = PreparedRequest(
    method="POST", path="/sonic/create", call="POST /sonic/create", kind="create", lane="call", family="sonic"
)


class Script:
    """A `Transport` that does one thing after the other."""

    def __init__(self, *steps: Response | Exception) -> None:
        self.steps = list(steps)

    async def attempt(self, prepared: PreparedRequest, departure: Departure) -> Response:
        """Leave, unless the next step is a connection that fails; then give or raise it."""
        step = self.steps.pop(0)
        if not isinstance(step, ConnectFailedError):
            await departure.leaving()
        if isinstance(step, Exception):
            raise step
        return step


def attempts_over(transport: Transport) -> Attempts:
    """The attempts of a client without hooks."""
    clock, url = Clock(1000), "https://x.example"
    observer = Observer([], Redactor([]), clock, url)
    return Attempts(transport, MemoryLimiter(), clock, drawing(None), str, url, observer)


def paid_call(*steps: Response | Exception, **options: Any) -> PaidCall:
    """A create over a script."""
    attempts = attempts_over(Script(*steps))
    return PaidCall(CREATE, Options(**options), None, attempts=attempts, redactor=Redactor([]), notes=Notes())


async def fail_after_acceptance(paid: PaidCall) -> None:
    """A call that is accepted, outlives its deadline, and then fails."""
    async with paid:
        paid.sent = True
        await paid.accepted(CREATE.task("t", 1.0), {})
        await asyncio.sleep(0.01)  # ten times the deadline
        raise RuntimeError("later")


async def test_error_after_acceptance_is_not_judged() -> None:
    """What fails once the task id is there says nothing about money, and leaves as it is."""
    with pytest.raises(RuntimeError, match="later"):
        await fail_after_acceptance(paid_call(deadline=1))


async def test_response_counts_its_attempts() -> None:
    """Attempts that were provably not carried out are repeated; the response says how many there were."""
    refused = read_response(429, {"x-request-id": "r-1"}, b"{}")
    paid = paid_call(ConnectFailedError("no", sent=False), refused, read_response(200, {}, b"{}"))
    async with paid:
        assert (await paid.send()).attempts == 3
    assert refused.request_id == "r-1"
    assert not paid.in_doubt


async def test_attempt_that_may_have_worked_puts_a_refusal_in_doubt() -> None:
    """A 500 that is repeated on request, then a refusal: whether the first was carried out is unknown."""
    failed, refused = read_response(500, {}, b"{}"), read_response(400, {}, b"{}")
    paid = paid_call(failed, refused, resend_creates_on_5xx=True)
    async with paid:
        assert (await paid.send()).status == 400
    assert paid.in_doubt


async def test_loss_after_sending_is_unknown_and_before_it_is_free() -> None:
    """What counts is whether the transport said that the request left."""
    with pytest.raises(OutcomeUnknownError):
        async with paid_call(ConnectionLostError("gone", sent=None)) as paid:
            await paid.send()
    with pytest.raises(ConnectFailedError) as caught:
        async with paid_call(ConnectFailedError("no", sent=False), max_retries=0) as paid:
            await paid.send()
    assert caught.value.not_charged


class HeldSlot:
    """A `RequestSlot` whose request may never leave."""

    async def departing(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()


async def test_call_that_waits_for_the_rate_is_not_sent() -> None:
    """With its connection open, a request that still waits for the rate costs nothing."""
    paid = paid_call()
    await paid.begin(HeldSlot())
    leaving = asyncio.ensure_future(paid.leaving())
    await asyncio.sleep(0)
    assert not paid.sent
    leaving.cancel()
    await asyncio.wait({leaving})
    assert not paid.sent


class Writer:
    """A `Transport` that writes in a task of its own, as aiohttp does; `connected` lets it write."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.requests = 0

    async def attempt(self, prepared: PreparedRequest, departure: Departure) -> Response:
        """Wait for a response that never comes."""
        writing = asyncio.ensure_future(self._write(departure))
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            writing.cancel()

    async def _write(self, departure: Departure) -> None:
        await self.connected.wait()
        await departure.leaving()
        self.requests += 1


async def test_request_does_not_leave_once_its_call_is_given_up() -> None:
    """A connection that opens in the moment of the cancellation sends nothing, so nothing is unknown."""
    writer = Writer()
    attempts = attempts_over(writer)
    paid = PaidCall(CREATE, Options(), None, attempts=attempts, redactor=Redactor([]), notes=Notes())

    async def send() -> None:
        async with paid:
            await paid.send()

    sending = asyncio.ensure_future(send())
    for _ in range(10):  # until the writer waits for its connection
        await asyncio.sleep(0)
    writer.connected.set()  # the writer continues before the call learns that it is given up
    sending.cancel()
    await asyncio.wait({sending})
    assert not paid.sent
    assert writer.requests == 0
