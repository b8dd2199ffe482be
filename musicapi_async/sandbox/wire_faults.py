"""Faults of the wire, on a live connection: cut, held, slow, cut short, or another response."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

import anyio
from aiohttp import web

from ..clock import Clock
from .faults import Fault
from .sandbox_time import SandboxTime

NO_RESPONSE: Final = 599
"""The status of a response object that never leaves: the connection was cut first."""

_LINGER: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 seconds: closing sends RST instead of FIN."""

TRICKLE_PAUSE: Final = 0.1
"""Real seconds between two parts of a slow body."""

_PAGE: Final = (
    "<!doctype html>\n<html><head><title>Just a moment...</title></head>"
    "<body><h1>502 Bad Gateway</h1></body></html>\n"
)
_GARBAGE: Final = b'\x1f\x8b\x00{"code":200,"data":[\xff\xfe'


async def inject(
    request: web.BaseRequest,
    fault: Fault,
    response: web.StreamResponse | None,
    clock: SandboxTime,
    stopping: asyncio.Event,
) -> web.StreamResponse:
    """Return the response that `fault` makes of the true one, or cut the connection.

    Args:
        request: The request, whose connection may be cut.
        fault: A fault of the wire.
        response: The true response; None if the request was not taken.
        clock: The time of the sandbox.
        stopping: Set when the sandbox stops, which ends a fault that hangs.
    """
    match fault.name:
        case "refuse":
            _cut(request, reset=False)
        case "reset_before" | "reset_after":
            _cut(request, reset=True)
        case "hang" | "hang_before":
            await _hang(request, clock.clock, stopping)
        case "slow":
            await clock.sleep(fault.seconds)
            return response if response is not None else web.Response(status=NO_RESPONSE)
        case "truncate":
            if isinstance(response, web.Response):
                return await _truncate(request, response)
            _cut(request, reset=False)
        case "trickle":
            if isinstance(response, web.Response):
                return await _trickle(request, response, fault.seconds, clock, stopping)
            return response if response is not None else web.Response(status=NO_RESPONSE)
        case "garbage":
            return web.Response(body=_GARBAGE, content_type="application/json")
        case "html":
            return web.Response(text=_PAGE, content_type="text/html")
        case _:
            headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            json = (fault.text or "").startswith("{")
            return web.Response(
                status=fault.code,
                text=fault.text,
                content_type="application/json" if json else "text/html",
                headers=headers,
            )
    return web.Response(status=NO_RESPONSE)


def _cut(request: web.BaseRequest, *, reset: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    transport.abort()


async def _hang(request: web.BaseRequest, clock: Clock, stopping: asyncio.Event) -> None:
    """Send nothing until the client hangs up or the sandbox stops."""
    while not stopping.is_set() and request.transport is not None and not request.transport.is_closing():
        with anyio.move_on_after(clock.real(max(0.5, 0.02 * clock.speed))):
            await stopping.wait()
    _cut(request, reset=True)


async def _trickle(
    request: web.BaseRequest,
    response: web.Response,
    rate: float,
    clock: SandboxTime,
    stopping: asyncio.Event,
) -> web.StreamResponse:
    """Send the body in small parts, `rate` bytes per API second, at most ten parts per real second."""
    body = response.body if isinstance(response.body, bytes) else b"{}"
    slow = web.StreamResponse(status=response.status, headers=response.headers)
    slow.content_length = len(body)
    await slow.prepare(request)
    pause = max(TRICKLE_PAUSE * clock.clock.speed, 1 / rate)
    size = max(1, round(rate * pause))
    for start in range(0, 0 if request.method == "HEAD" else len(body), size):
        if stopping.is_set():
            break
        await slow.write(body[start : start + size])
        await clock.sleep(pause)
    return slow


async def _truncate(request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
    body = response.body if isinstance(response.body, bytes) else b"{}"
    half = web.StreamResponse(status=response.status, headers=response.headers)
    half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half
