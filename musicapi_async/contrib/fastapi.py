"""FastAPI: `pip install 'musicapi-async[fastapi]'`.

```python
from fastapi import FastAPI
from musicapi_async import Webhooks
from musicapi_async.contrib.fastapi import Client, add_problem_handler, lifespan, router

hooks = Webhooks(url="https://example.com/webhooks/musicapi", secret=secret)
app = FastAPI(lifespan=lifespan(webhooks=hooks))
app.include_router(router())
add_problem_handler(app)


@app.post("/songs")
async def create(description: str, client: Client) -> dict[str, str]:
    task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt=description)
    return {"events": f"/tasks/{task.token}/events"}
```

An event stream stays open for as long as its song takes, and uvicorn waits for open connections when it is
stopped: run it with `--timeout-graceful-shutdown 2`, or have your own server call `end_streams(app)` as the
example service does. The browsers reconnect to the next process.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Annotated, Any, Final, cast

import anyio
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.params import Depends as Dependency
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Receive, Scope, Send

from ..client import MusicAPI
from ..errors import MusicAPIError, RequestValidationError
from ..web import PROBLEM_TYPE, STREAM_HEADERS, STREAM_TYPE, Problem, has_ended, problem_of, stream
from ..web.problems import NO_TASK
from ..web.receiving import EVENTS_PATH, WEBHOOK_PATH, OnEvent
from ..web.receiving import receive as take
from ..web.streams import HEARTBEAT
from ..webhooks import BODY_LIMIT

log: Final = logging.getLogger("musicapi_async")


def lifespan(
    make: Callable[[], MusicAPI] | None = None, **options: Any
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """A lifespan that opens a client with the app and closes it with the app.

    `make` makes the client; without it `options` go to `MusicAPI`. A lifespan of your own calls it inside:
    `async with lifespan(...)(app): ...`.
    """

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncGenerator[Mapping[str, Any]]:
        async with make() if make is not None else MusicAPI(**options) as client:
            app.state.musicapi = client
            try:
                yield {}
            finally:
                del app.state.musicapi

    return run


def client_of(connection: HTTPConnection) -> MusicAPI:
    """The app's client, for `Depends`; also in web sockets."""
    client = getattr(connection.app.state, "musicapi", None)
    if not isinstance(client, MusicAPI):
        raise RuntimeError(
            "the app has no client: FastAPI(lifespan=musicapi_async.contrib.fastapi.lifespan())"
        )
    return client


Client = Annotated[MusicAPI, Depends(client_of)]
"""The app's client as a parameter: `async def view(client: Client)`."""


def router(
    *,
    webhook: str | None = WEBHOOK_PATH,
    events: str | None = EVENTS_PATH,
    on_event: OnEvent | None = None,
    limit: int = BODY_LIMIT,
    heartbeat: float = HEARTBEAT,
    dependencies: Sequence[Dependency] = (),
) -> APIRouter:
    """The routes that a back end needs; None leaves one out.

    `webhook` is POSTed to by the service: 204 once the waits are finished, 400 for what must not be believed,
    413 above `limit` bytes. `on_event` is called with each event once in each process; if it raises, the
    service is told to try again. `events` streams the updates of the task whose token is in the path; guard
    it with `dependencies` if knowing a token is not enough.
    """
    routes = APIRouter()

    async def receive(request: Request, client: Client) -> Response:
        """A delivery of the service."""
        raw = await _body(request, limit)
        problem = await take(client.webhooks, request.headers.raw, raw, str(request.url), on_event)
        return Response(status_code=204) if problem is None else problem_response(problem)

    async def watch(token: str, request: Request, client: Client) -> Response:
        """The updates of a task as server-sent events."""
        last = request.headers.get("last-event-id")
        if has_ended(last):
            return Response(status_code=204)
        try:
            task = client.task(token)
        except RequestValidationError:
            return problem_response(NO_TASK)
        return EventStream(stream(task.updates(), last, heartbeat=heartbeat))

    if webhook is not None:
        routes.add_api_route(webhook, receive, methods=["POST"], status_code=204, include_in_schema=False)
    if events is not None:
        guards = list(dependencies)
        routes.add_api_route(events, watch, methods=["GET"], response_class=EventStream, dependencies=guards)
    return routes


def add_problem_handler(app: FastAPI) -> None:
    """Answer errors of this package with problem documents that leak nothing; the log has the whole text."""

    async def answer(request: Request, error: Exception) -> Response:
        log.warning("%s %s: %s", request.method, request.url.path, error)
        return problem_response(problem_of(error))

    app.add_exception_handler(MusicAPIError, answer)


def problem_response(problem: Problem) -> Response:
    """A problem as an answer."""
    headers = {name: value for name, value in problem.headers.items() if name != "Content-Type"}
    return Response(problem.body, problem.status, headers, media_type=PROBLEM_TYPE)


def end_streams(app: FastAPI) -> None:
    """End every event stream of `app`, such as when its server begins to stop."""
    for scope in list(_streams(app)):
        scope.cancel()


def _streams(app: Any) -> set[anyio.CancelScope]:
    if not hasattr(app.state, "musicapi_streams"):
        app.state.musicapi_streams = set[anyio.CancelScope]()
    return cast("set[anyio.CancelScope]", app.state.musicapi_streams)


class EventStream(Response):
    """Sends what a generator yields until it ends or the browser goes; then the generator is closed.

    Starlette's own streaming response notices a browser that has gone only at the next chunk with servers
    of ASGI 2.4, and leaves the generator to the garbage collector.
    """

    media_type = STREAM_TYPE

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self._chunks = chunks
        self.status_code = 200
        self.background = None
        self.init_headers(dict(STREAM_HEADERS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wait_until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        streams, sending = _streams(scope["app"]), anyio.CancelScope()
        try:
            async with aclosing(self._chunks) as chunks, anyio.create_task_group() as group:
                group.start_soon(wait_until_gone)
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                with sending:
                    streams.add(sending)
                    async for chunk in chunks:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                group.cancel_scope.cancel()
        except* OSError:
            pass  # how some servers say that the browser has gone
        finally:
            streams.discard(sending)


async def _body(request: Request, limit: int) -> bytes | None:
    """The raw body, or None if it is longer than `limit`; nothing beyond is kept."""
    parts: list[bytes] = []
    size = 0
    with suppress(ClientDisconnect):  # half a body is refused like any other that was not signed
        async for part in request.stream():
            size += len(part)
            if size > limit:
                return None
            parts.append(part)
    return b"".join(parts)
