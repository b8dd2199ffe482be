"""aiohttp servers, with nothing to install beside this package.

```python
from aiohttp import web
from musicapi_async.contrib.aiohttp_web import CLIENT, setup

app = web.Application()
setup(app, public=True)  # public: a task's token is enough to watch it


async def create(request: web.Request) -> web.Response:
    client = request.app[CLIENT]
    task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi")
    return web.json_response({"events": f"/tasks/{task.token}/events"})
```

In sub-applications (`app.add_subapp`) the client is `request.config_dict[CLIENT]`.

The routes have names: `app.router["musicapi_events"].url_for(token=task.token)` is the path of a stream, also
below the prefix of a sub-application; `musicapi_webhook` is the other route.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final, Unpack

from aiohttp import web

from ..api.task import Task
from ..client import ClientOptions, MusicAPI, client_maker
from ..errors import MusicAPIError
from ..webhooks import STREAM_HEADERS, STREAM_TYPE, WEBHOOK_BODY_LIMIT, Problem, loggable, problem_of
from ..webhooks.delivery import OnEvent
from ..webhooks.event_stream_access import EVENTS_PATH, Allowed, Visitors, check_guarded
from ..webhooks.receiving import BODY_TIMEOUT, WEBHOOK_PATH, check_receiving, receive_webhook
from ..webhooks.server_sent_events import HEARTBEAT

__all__ = ["CLIENT", "Authorize", "setup"]

log: Final = logging.getLogger("musicapi_async")

CLIENT: Final = web.AppKey("musicapi_async", MusicAPI)
"""The app's client: `request.app[CLIENT]`; in sub-applications, too, `request.config_dict[CLIENT]`."""

Authorize = Callable[[web.Request, Task[Any]], Allowed]
"""Returns True if the sender of a request may watch a task; a plain or an async function."""


class _Streams(set[asyncio.Task[None]]):
    """The event streams that are open; `ended` is True once the app stops, so that no other begins."""

    ended: bool = False


OPEN_STREAMS: Final[web.AppKey[_Streams]] = web.AppKey("musicapi_async.streams", _Streams)

DISCONNECT_CHECK: Final = 1.0
"""Real seconds within which a browser that has gone is noticed; aiohttp does not notify a running handler."""


def setup(
    app: web.Application,
    make: Callable[[], MusicAPI] | None = None,
    *,
    webhook: str | None = WEBHOOK_PATH,
    events: str | None = EVENTS_PATH,
    authorize: Authorize | None = None,
    public: bool = False,
    on_event: OnEvent | None = None,
    limit: int = WEBHOOK_BODY_LIMIT,
    body_timeout: float = BODY_TIMEOUT,
    heartbeat: float = HEARTBEAT,
    **options: Unpack[ClientOptions],
) -> None:
    """Add to an app a client that lives as long as the app, the routes, and responses to this package's
    errors.

    Args:
        app: the application. Its sub-applications find the client, too.
        make: a function that makes the client, with options of its own; without it the client is
            `MusicAPI(**options)`.
        webhook: the path that the service POSTs to; None for no such route. It responds with 204 when the
            waits are ended, 400 if the webhook is not verified, 404 if the client has no `webhooks=`, and
            408, 413 or 415 if the body is too slow, too large or compressed.
        events: the path, with `{token}` in it, that streams the updates of a task as server-sent events; None
            for no such route.
        authorize: `authorize(request, task)`, plain or async, returns True (no other value) if the visitor
            may watch the task. Other visitors get 404, as for a task that does not exist; to respond
            otherwise, raise `web.HTTPUnauthorized` or another error.
        public: True if anyone who knows a task's token may watch it.
        on_event: a function, plain or async, that is called with each event once, in one of the processes
            that share a job store. If it raises, the service gets a 500 and may repeat the webhook, so a paid
            call in it needs a job key, such as `f"sequel of {event.task_id}"`. While it runs, copies of the
            webhook get 503. If its process is killed, another process is called with a repetition that comes
            at least a minute later.
        limit: the size of the largest accepted webhook, in bytes.
        body_timeout: the longest time for the body of a webhook to arrive, in real seconds.
        heartbeat: real seconds of silence after which a stream sends a comment.
        options: of `MusicAPI`.

    Raises:
        RequestValidationError: an event stream has neither `authorize` nor `public=True`, there are both,
            `make` and options, or an argument has a wrong type.
        TypeError: an option is not known.
    """
    open_client = client_maker(make, options)
    check_guarded(events, authorize, public, "setup()")
    check_receiving(webhook, on_event, limit, body_timeout)
    visitors = Visitors(heartbeat=heartbeat)

    async def run(app: web.Application) -> AsyncIterator[None]:
        async with open_client() as client:
            app[CLIENT] = client
            yield

    async def receive(request: web.Request) -> web.StreamResponse:
        problem = await receive_webhook(
            request.config_dict[CLIENT].webhooks,
            request.headers,
            _parts(request),
            str(request.rel_url),
            on_event,
            encoding=request.headers.get("Content-Encoding"),
            limit=limit,
            timeout=body_timeout,
        )
        return web.Response(status=204) if problem is None else problem_response(problem)

    async def watch(request: web.Request) -> web.StreamResponse:
        found = await visitors.watch(
            request.config_dict[CLIENT],
            request.match_info["token"],
            request.headers.get("Last-Event-ID"),
            None if authorize is None else partial(authorize, request),
        )
        if found is None:
            return web.Response(status=204)
        return problem_response(found) if isinstance(found, Problem) else await send_events(request, found)

    app[OPEN_STREAMS] = _Streams()
    app.cleanup_ctx.append(run)
    app.on_shutdown.append(_end_streams)
    app.middlewares.append(problems)
    if webhook is not None:
        app.router.add_post(webhook, receive, name="musicapi_webhook")
    if events is not None:
        # A HEAD would get the events as a body.
        app.router.add_get(events, watch, name="musicapi_events", allow_head=False)


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Respond to errors of this package with problem documents without secrets; the log has all."""
    try:
        return await handler(request)
    except MusicAPIError as error:
        path = request.rel_url.raw_path
        log.warning("%s %s: %s", loggable(request.method), loggable(path), loggable(error))
        return problem_response(problem_of(error))


def problem_response(problem: Problem) -> web.Response:
    """Return the response with a problem document."""
    response = web.Response(body=problem.body, status=problem.status, headers=problem.headers)
    if problem.closes:
        response.force_close()
    return response


async def send_events(request: web.Request, chunks: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """Send the chunks of a generator until it ends, the browser goes or the app stops; then close it."""
    response = web.StreamResponse(headers={**STREAM_HEADERS, "Content-Type": STREAM_TYPE})
    response.enable_chunked_encoding()
    await response.prepare(request)

    async def pump() -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                await response.write(chunk)

    pumping = asyncio.get_running_loop().create_task(pump())
    streams = request.config_dict.get(OPEN_STREAMS)
    if streams is not None:
        if streams.ended:
            pumping.cancel()
        streams.add(pumping)
        pumping.add_done_callback(streams.discard)
    try:
        while not pumping.done() and request.transport is not None and not request.transport.is_closing():
            await asyncio.wait({pumping}, timeout=DISCONNECT_CHECK)
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
    return response


async def _end_streams(app: web.Application) -> None:
    """End the streams before the app waits for its handlers: browsers reconnect to the next process."""
    streams = app[OPEN_STREAMS]
    streams.ended = True
    for pumping in list(streams):
        pumping.cancel()


async def _parts(request: web.Request) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives; one that breaks off just ends, and is refused like any unsigned one."""
    with suppress(ConnectionError, web.RequestPayloadError):
        async for part in request.content.iter_any():
            yield part
