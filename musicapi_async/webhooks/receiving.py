"""Receive a webhook, the same way with every web framework: read its body in bounds, hand it to the inbox."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import anyio

from ..arguments import check_count, check_functions, check_seconds, refused
from ..errors import MusicAPIError, WebhookVerificationError
from .delivery import Headers, OnEvent
from .problems import (
    BEING_HANDLED,
    ENCODED,
    INTERNAL,
    NO_WEBHOOKS,
    TOO_LARGE,
    TOO_SLOW,
    Problem,
    loggable,
    problem_of,
)

if TYPE_CHECKING:
    from .inbox import Inbox

log: Final = logging.getLogger("musicapi_async")

WEBHOOK_PATH: Final = "/webhooks/musicapi"
BODY_TIMEOUT: Final = 10.0
"""Real seconds within which the whole body must arrive. 1 MiB takes as long at 0.8 Mbit/s; a sender of single
bytes would hold its connection for days."""


def check_path(name: str, path: object) -> None:
    """Refuse what is no path of a route, nor None for no such route."""
    if path is not None and not (isinstance(path, str) and path.startswith("/")):
        raise refused(name, "a path that begins with /, or None for no such route", repr(path)[:100])


def check_receiving(webhook: str | None, on_event: OnEvent | None, limit: int, timeout: float) -> None:
    """Refuse settings of the route with which no webhook could be received."""
    check_path("webhook", webhook)
    if on_event is not None:
        check_functions(on_event=on_event)
    check_count("limit", limit)
    check_seconds("body_timeout", timeout)


async def read_body(parts: AsyncIterator[bytes], limit: int, timeout: float) -> bytes | Problem:
    """Read a body that anyone may have sent.

    Args:
        parts: the body as it arrives. It may end early.
        limit: bytes of the largest body; nothing beyond is read.
        timeout: real seconds within which the body must be complete.

    Returns:
        The body, or the problem to answer, after which the connection must be closed.
    """
    body = bytearray()
    with anyio.move_on_after(timeout) as deadline:
        async for part in parts:
            body += part
            if len(body) > limit:
                return TOO_LARGE
    return TOO_SLOW if deadline.cancelled_caught else bytes(body)


async def receive_webhook(
    inbox: Inbox,
    headers: Headers,
    parts: AsyncGenerator[bytes, None],
    url: str,
    on_event: OnEvent | None,
    *,
    encoding: str | None,
    limit: int,
    timeout: float,
) -> Problem | None:
    """Read a delivery and finish the waits for its task.

    The signature covers the bytes as they were sent, and some frameworks decompress a body before anyone can
    see these bytes. So a body with a content encoding is refused, unread: it costs no memory either.

    Args:
        inbox: the client's.
        headers: as they came.
        parts: the raw body as it arrives; closed at the end.
        url: the URL that was called.
        on_event: see `OnEvent`.
        encoding: the value of the Content-Encoding header.
        limit: bytes of the largest body.
        timeout: real seconds within which the body must be complete.

    Returns:
        The problem to answer instead of 204, or None. An error of this package in `on_event` is one of the
        back end itself: a 404 or 422 would tell the service that its delivery was wrong.
    """
    if (encoding or "identity").strip().lower() != "identity":
        log.warning("a webhook was refused: Content-Encoding %s", loggable(encoding))
        return ENCODED
    async with aclosing(parts):
        body = await read_body(parts, limit, timeout)
    if isinstance(body, Problem):
        return body
    if not inbox.receives():
        return NO_WEBHOOKS
    try:
        try:
            event = inbox.verified(headers, body, url)
        except WebhookVerificationError as error:
            log.warning("a webhook was refused: %s", loggable(error))
            return problem_of(error)
        return None if await inbox.work_on(event, on_event) else BEING_HANDLED
    except MusicAPIError as error:
        log.error("a webhook could not be handled: %s", loggable(error))
        return INTERNAL
