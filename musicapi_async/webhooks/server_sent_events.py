"""Server-sent events of a task's updates: a browser watches a song become ready, and reconnects.

Each event carries the whole present state, and its id is made from that state alone. So a browser that
reconnects with `Last-Event-ID`, even to another process after a restart, is sent the changes since and
nothing twice; and one that has the end gets 204, after which it does not reconnect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

import anyio
import msgspec

from ..api.results import Clip, TaskUpdate, Voice
from ..errors import APIStatusError, MusicAPIError, TaskTimeoutError
from .problems import INTERNAL, Problem, loggable, problem_of

log: Final = logging.getLogger("musicapi_async")

STREAM_TYPE: Final = "text/event-stream"
STREAM_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}
"""No proxy may store, compress (RFC 9111, 5.2.2.6) or buffer the events."""

HEARTBEAT: Final = 15.0
"""Real seconds between heartbeats: below the 30 to 60 s after which proxies drop idle connections."""
RECONNECT: Final = 2000
"""Milliseconds after which a browser reconnects."""
RECONNECT_LATER: Final = 5000
"""The same where this process has a trouble of its own, which another one may not have."""
END: Final = "-end"
"""Last part of the id of the last event."""


def event(
    fields: Mapping[str, Any], *, name: str = "", event_id: str = "", retry: int | None = None
) -> bytes:
    """Return the bytes of one server-sent event.

    Args:
        fields: the data, which is sent as one line of JSON.
        name: the name of the event; "" for the default, `message`.
        event_id: the id that a browser sends back as `Last-Event-ID`.
        retry: milliseconds after which a browser reconnects.
    """
    lines = [f"retry: {retry}"] if retry is not None else []
    lines += [f"event: {name}"] if name else []
    lines += [f"id: {event_id}"] if event_id else []
    return "\n".join([*lines, "data: "]).encode() + msgspec.json.encode(fields) + b"\n\n"


def has_ended(last_event_id: str | None) -> bool:
    """Return True if a browser with this `Last-Event-ID` has the last event: respond with 204 to end it."""
    return bool(last_event_id and last_event_id.endswith(END))


def update_fields(update: TaskUpdate) -> dict[str, Any]:
    """Return the fields of an update for a browser: state, progress, clips with links, and a failure."""
    fields: dict[str, Any] = {
        "state": update.state,
        "ended": update.is_terminal,
        "progress": update.progress,
        "clips": [clip_fields(clip) for clip in update.clips],
    }
    if isinstance(update.result, Voice):
        fields["persona_id"] = update.result.persona_id
    if update.error is not None:
        fields["problem"] = problem_fields(problem_of(update.error))
    return fields


def clip_fields(clip: Clip) -> dict[str, Any]:
    """Return the fields of a clip for a browser; `stream_url` is early audio, `final_url` the file."""
    return {
        "clip_id": clip.clip_id,
        "state": clip.state,
        "title": clip.title,
        "tags": clip.tags,
        "lyrics": clip.lyrics,
        "duration": clip.duration,
        "image_url": clip.image_url,
        "stream_url": clip.stream_url,
        "final_url": clip.final_url,
    }


def problem_fields(problem: Problem) -> dict[str, Any]:
    """Return the fields of a problem inside an event."""
    return {"code": problem.code, "detail": problem.detail}


def mark_of(update: TaskUpdate) -> str:
    """Return the id of an update's event: the same for the same state, in every process."""
    digest = blake2b(repr(update.fingerprint()).encode("utf-8", "replace"), digest_size=9).hexdigest()
    return digest + (END if update.is_terminal else "")


def reconnect_later(comment: str = "not now") -> bytes:
    """Return what tells a browser to reconnect a little later; it does not reconnect after a 500."""
    return f"retry: {RECONNECT_LATER}\n: {comment}\n\n".encode()


async def stream(
    updates: AsyncGenerator[TaskUpdate, None],
    last_event_id: str | None = None,
    *,
    heartbeat: float = HEARTBEAT,
) -> AsyncGenerator[bytes, None]:
    """Yield the events of `task.updates()` from the browser's last one to the end of the task. Free.

    Events are named `update`; the last one has `ended` true. A browser that reconnects receives no event
    before the first poll, because it may know more than this process. An error that ends the stream, but not
    the task, is one event named `problem`; after an error of this process alone, such as a client that was
    closed, the browser only reconnects. Closing the generator ends the polling at once; the task continues.

    Args:
        updates: the updates of the task; the generator is closed at the end.
        last_event_id: the `Last-Event-ID` of the browser, if it reconnects.
        heartbeat: real seconds of silence after which a comment keeps the connection open.
    """
    ahead: asyncio.Future[TaskUpdate] | None = None
    last_mark = last_event_id or ""
    try:
        yield f"retry: {RECONNECT}\n\n".encode()
        while True:
            # A step of a generator cannot be interrupted, so it runs beside the heartbeat.
            ahead = ahead or asyncio.ensure_future(anext(updates))
            done, _ = await asyncio.wait({ahead}, timeout=heartbeat)
            if not done:
                yield b": still here\n\n"
                continue
            step, ahead = ahead, None
            update = step.result()
            if last_event_id and update.raw is None and not update.is_terminal:
                continue  # not polled yet
            if (mark := mark_of(update)) != last_mark:
                last_mark = mark
                yield event(update_fields(update), name="update", event_id=mark)
    except StopAsyncIteration:
        pass
    except TaskTimeoutError:
        pass  # the browser reconnects
    except MusicAPIError as error:
        log.warning("an event stream ended: %s", loggable(error))
        problem = problem_of(error)
        if problem is INTERNAL and not isinstance(error, APIStatusError):
            yield reconnect_later()
        else:
            yield event(problem_fields(problem), name="problem", event_id="problem" + END)
    except Exception:
        log.exception("an event stream failed")
        yield event(problem_fields(INTERNAL), name="problem", event_id="problem" + END)
    finally:
        with anyio.CancelScope(shield=True):
            if ahead is not None:
                ahead.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                    await ahead
            await updates.aclose()
