"""A delivery of the service, taken the same way whatever the web framework."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import WebhookVerificationError
from .problems import TOO_LARGE, Problem, problem_of

if TYPE_CHECKING:
    from ..webhooks import Event, Inbox
    from ..webhooks.events import Headers

log: Final = logging.getLogger("musicapi_async")

WEBHOOK_PATH: Final = "/webhooks/musicapi"
EVENTS_PATH: Final = "/tasks/{token}/events"

OnEvent: TypeAlias = "Callable[[Event], Awaitable[object]]"


async def receive(
    inbox: Inbox, headers: Headers, raw: bytes | None, url: str, on_event: OnEvent | None
) -> Problem | None:
    """Finish the waits that a delivery tells of; returns what to answer instead of 204, if anything.

    `raw` is None for a body over the limit. `on_event` is called with each event once; if it raises, the
    event is forgotten, so that the service, which hears of the error, may send it again.
    """
    if raw is None:
        return TOO_LARGE
    try:
        event = await inbox.handle(headers, raw, url=url)
    except WebhookVerificationError as error:
        log.warning("a webhook was refused: %s", error)
        return problem_of(error)
    if on_event is not None and not event.is_duplicate:
        try:
            await on_event(event)
        except BaseException:
            inbox.forget(event)
            raise
    return None
