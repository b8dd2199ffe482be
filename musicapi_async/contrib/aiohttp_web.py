"""aiohttp servers, with nothing to install beside this package.

```python
from aiohttp import web
from musicapi_async import Webhooks
from musicapi_async.contrib.aiohttp_web import CLIENT, setup

app = web.Application()
setup(app, webhooks=Webhooks(url="https://example.com/webhooks/musicapi", secret=secret))


async def create(request: web.Request) -> web.Response:
    client = request.app[CLIENT]
    task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi")
    return web.json_response({"events": f"/tasks/{task.token}/events"})
```
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

from aiohttp import web

from ..client import MusicAPI
from ..errors import MusicAPIError, RequestValidationError
from ..web import STREAM_HEADERS, STREAM_TYPE, Problem, has_ended, problem_of, stream
from ..web.problems import NO_TASK
from ..web.receiving import EVENTS_PATH, WEBHOOK_PATH, OnEvent
from ..web.receiving import receive as take
from ..web.streams import HEARTBEAT
from ..webhooks import BODY_LIMIT

log: Final = logging.getLogger("musicapi_async")

CLIENT: Final = web.AppKey("musicapi_async", MusicAPI)
"""The app's client: `request.app[CLIENT]`."""


class _Streams(set[asyncio.Task[None]]):
    """The event streams that are open."""


_STREAMS: Final[web.AppKey[_Streams]] = web.AppKey("musicapi_async.streams", _Streams)

GONE: Final = 1.0
"""Real seconds within which a browser that has gone is noticed; aiohttp does not tell a running handler."""


def setup(
    app: web.Application,
    make: Callable[[], MusicAPI] | None = None,
    *,
    webhook: str | None = WEBHOOK_PATH,
    events: str | None = EVENTS_PATH,
    on_event: OnEvent | None = None,
    limit: int = BODY_LIMIT,
    heartbeat: float = HEARTBEAT,
    **options: Any,
) -> None:
    """Give an app a client that lives as long as it does, the routes, and answers for this package's errors.

    `make` makes the client; without it `options` go to `MusicAPI`. `webhook` is POSTed to by the service:
    204 once the waits are finished, 400 for what must not be believed, 413 above `limit` bytes. `on_event`
    is called with each event once in each process; if it raises, the service is told to try again. `events`
    streams the updates of the task whose token is in the path. None leaves a route out.
    """

    async def run(app: web.Application) -> AsyncIterator[None]:
        async with make() if make is not None else MusicAPI(**options) as client:
            app[CLIENT] = client
            yield

    async def receive(request: web.Request) -> web.StreamResponse:
        inbox, raw = request.app[CLIENT].webhooks, await _body(request, limit)
        problem = await take(inbox, request.headers, raw, str(request.rel_url), on_event)
        return web.Response(status=204) if problem is None else problem_response(problem)

    async def watch(request: web.Request) -> web.StreamResponse:
        last = request.headers.get("Last-Event-ID")
        if has_ended(last):
            return web.Response(status=204)
        try:
            task = request.app[CLIENT].task(request.match_info["token"])
        except RequestValidationError:
            return problem_response(NO_TASK)
        return await send_events(request, stream(task.updates(), last, heartbeat=heartbeat))

    app[_STREAMS] = _Streams()
    app.cleanup_ctx.append(run)
    app.on_shutdown.append(_end_streams)
    app.middlewares.append(problems)
    if webhook is not None:
        app.router.add_post(webhook, receive)
    if events is not None:
        app.router.add_get(events, watch, allow_head=False)  # a HEAD would get the events as a body


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer errors of this package with problem documents that leak nothing; the log has the whole text."""
    try:
        return await handler(request)
    except MusicAPIError as error:
        log.warning("%s %s: %s", request.method, request.rel_url.raw_path, error)
        return problem_response(problem_of(error))


def problem_response(problem: Problem) -> web.Response:
    """A problem as an answer."""
    return web.Response(body=problem.body, status=problem.status, headers=problem.headers)


async def send_events(request: web.Request, chunks: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """Send what a generator yields until it ends, the browser goes or the app stops; then close it."""
    response = web.StreamResponse(headers={**STREAM_HEADERS, "Content-Type": STREAM_TYPE})
    response.enable_chunked_encoding()
    await response.prepare(request)

    async def pump() -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                await response.write(chunk)

    pumping = asyncio.get_running_loop().create_task(pump())
    streams = request.app.get(_STREAMS)
    if streams is not None:
        streams.add(pumping)
        pumping.add_done_callback(streams.discard)
    try:
        while not pumping.done() and request.transport is not None and not request.transport.is_closing():
            await asyncio.wait({pumping}, timeout=GONE)
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
    return response


async def _end_streams(app: web.Application) -> None:
    """Before the app waits for its handlers: browsers reconnect to the next process."""
    streams = app[_STREAMS]
    for pumping in list(streams):
        pumping.cancel()


async def _body(request: web.Request, limit: int) -> bytes | None:
    """The raw body, or None if it is longer than `limit`; nothing beyond is kept."""
    parts: list[bytes] = []
    size = 0
    with suppress(ConnectionError):  # half a body is refused like any other that was not signed
        async for part in request.content.iter_any():
            size += len(part)
            if size > limit:
                return None
            parts.append(part)
    return b"".join(parts)
