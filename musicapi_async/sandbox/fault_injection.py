"""Faults of the wire, injected into a live connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

import anyio
from aiohttp import web

from ..clock import Clock
from .faults import Fault

GONE: Final = 599
"""The status of a response object that never leaves: the connection was cut first."""

_LINGER: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 seconds: closing sends RST instead of FIN."""

_PAGE: Final = (
    "<!doctype html>\n<html><head><title>Just a moment...</title></head>"
    "<body><h1>502 Bad Gateway</h1></body></html>\n"
)
_GARBAGE: Final = b'\x1f\x8b\x00{"code":200,"data":[\xff\xfe'


async def inject(
    request: web.BaseRequest,
    fault: Fault,
    response: web.StreamResponse | None,
    clock: Clock,
    stopping: asyncio.Event,
) -> web.StreamResponse:
    """Answer `request` as `fault` wants; `response` is the true answer, None if it was not taken."""
    match fault.name:
        case "refuse":
            _cut(request, reset=False)
        case "reset_before" | "reset_after":
            _cut(request, reset=True)
        case "hang" | "hang_before":
            await _hang(request, clock, stopping)
        case "slow":
            await clock.sleep(fault.seconds)
            return response if response is not None else web.Response(status=GONE)
        case "truncate":
            if isinstance(response, web.Response):
                return await _truncate(request, response)
            _cut(request, reset=False)
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
    return web.Response(status=GONE)


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
    """Say nothing until the client hangs up or the sandbox stops."""
    while not stopping.is_set() and request.transport is not None and not request.transport.is_closing():
        with anyio.move_on_after(clock.real(max(0.5, 0.02 * clock.speed))):
            await stopping.wait()
    _cut(request, reset=True)


async def _truncate(request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
    body = response.body if isinstance(response.body, bytes) else b"{}"
    half = web.StreamResponse(status=response.status, headers=response.headers)
    half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half
