"""FastAPI, with the extra `[fastapi]`: `pip install -e '.[fastapi]'` in a clone of this package.

```python
from fastapi import FastAPI
from musicapi_async.contrib.fastapi import Client, add_problem_handler, lifespan, router

app = FastAPI(lifespan=lifespan())
app.include_router(router(public=True))  # public: a task's token is enough to watch it
add_problem_handler(app)


@app.post("/songs")
async def create(description: str, client: Client) -> dict[str, str]:
    task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt=description)
    return {"events": f"/tasks/{task.token}/events"}
```

Results can be the types of a route: `-> Clip`, `-> Clips`, `-> list[Clip]`, `-> Credits`, `-> Task[Clips]`,
`-> TaskUpdate`, or `clip: Clip` for a body. What is sent is their `to_dict()`, and `/docs` has its schema.

Apps that this one mounts (`app.mount("/api", other)`) find its client, too; each needs `add_problem_handler`
of its own. A lifespan of a mounted app never runs, so `lifespan` belongs to the outermost one.

The routes have names: `request.url_for("musicapi_events", token=task.token)` is the URL of a stream below any
prefix and `root_path`, and `musicapi_webhook` that of the other route.

In a test with `with TestClient(app)`, `lifespan(musicapi_sandbox.client)` opens a client of a sandbox.
`app.dependency_overrides[client_of] = lambda: musicapi_client` does without the lifespan, which must then not
run, because it needs a key; see `musicapi_async.testing`.

An event stream stays open for as long as its song takes, and a server that is stopped waits for its open
connections. So `lifespan` ends the streams at SIGTERM and SIGINT, and the browsers reconnect to the next
process. The server still waits for calls under way: give uvicorn a `--timeout-graceful-shutdown` of a minute
or more, or none. A paid call that it cuts short is recorded, but its visitor gets a 500 and may pay again. A
server that is stopped in another way than by a signal calls `end_streams(app)`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Annotated, Any, Final, Unpack

import anyio

try:
    from fastapi import APIRouter, Depends, FastAPI, Header, Path, Request, Response
    from starlette.background import BackgroundTask
    from starlette.requests import ClientDisconnect, HTTPConnection
    from starlette.types import Receive, Scope, Send
except ModuleNotFoundError as missing:
    from ..extras import missing_extra

    raise missing_extra("musicapi_async.contrib.fastapi", "fastapi", str(missing.name)) from missing

from ..api.task import Task
from ..client import ClientOptions, MusicAPI, client_maker
from ..errors import MusicAPIError
from ..webhooks import (
    PROBLEM_TYPE,
    STREAM_HEADERS,
    STREAM_TYPE,
    WEBHOOK_BODY_LIMIT,
    Problem,
    loggable,
    problem_of,
    problem_schema,
)
from ..webhooks.delivery import OnEvent
from ..webhooks.event_stream_access import EVENTS_PATH, Allowed, Visitors, check_guarded
from ..webhooks.receiving import BODY_TIMEOUT, WEBHOOK_PATH, check_receiving, receive_webhook
from ..webhooks.server_sent_events import HEARTBEAT

__all__ = ["Authorize", "Client", "add_problem_handler", "client_of", "end_streams", "lifespan", "router"]

log: Final = logging.getLogger("musicapi_async")

Authorize = Callable[[Request, Task[Any]], Allowed]
"""Returns True if the sender of a request may watch a task; a plain or an async function."""

CLIENT_STATE: Final = "musicapi"
STREAMS_STATE: Final = "musicapi_streams"
"""Names in the state of the app and of its lifespan, which requests to mounted apps see as well."""


def lifespan(
    make: Callable[[], MusicAPI] | None = None, **options: Unpack[ClientOptions]
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that opens a client with the app and closes it with the app.

    Your own lifespan can use it, and must yield its state, so that mounted apps find the client:
    `async with lifespan(...)(app) as state: yield state`. In the main thread it also ends the event streams
    when SIGTERM or SIGINT stops the process, before it calls the handler of the server.

    Args:
        make: a function that makes the client, with options of its own; without it the client is
            `MusicAPI(**options)`.
        options: the options of `MusicAPI`.

    Raises:
        RequestValidationError: there are both, `make` and options.
        TypeError: an option is not known.
    """
    open_client = client_maker(make, options)

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncGenerator[Mapping[str, Any]]:
        async with open_client() as client:
            streams = _OpenStreams()
            state = {CLIENT_STATE: client, STREAMS_STATE: streams}
            for name, value in state.items():
                setattr(app.state, name, value)
            try:
                with _ending_at_signals(streams):
                    yield state
            finally:
                for name in state:
                    delattr(app.state, name)

    return run


def client_of(connection: HTTPConnection) -> MusicAPI:
    """Return the client of the app, for `Depends`, also in web sockets and in mounted apps."""
    client = _shared(connection.scope, CLIENT_STATE)
    if not isinstance(client, MusicAPI):
        raise RuntimeError(
            "the app has no client: FastAPI(lifespan=musicapi_async.contrib.fastapi.lifespan()). "
            "The lifespan of a mounted app never runs: give it to the outermost app. A lifespan of your own "
            "yields what lifespan() gives: `async with lifespan()(app) as state: yield state`"
        )
    return client


def _shared(scope: Scope, name: str) -> object:
    """Return a value of the lifespan, from the request's state, or the app's if a lifespan dropped it."""
    state: Mapping[str, object] = scope.get("state", {})
    return state[name] if name in state else getattr(scope["app"].state, name, None)


Client = Annotated[MusicAPI, Depends(client_of)]
"""The app's client as a parameter: `async def view(client: Client)`."""


def router(
    *,
    webhook: str | None = WEBHOOK_PATH,
    events: str | None = EVENTS_PATH,
    authorize: Authorize | None = None,
    public: bool = False,
    on_event: OnEvent | None = None,
    limit: int = WEBHOOK_BODY_LIMIT,
    body_timeout: float = BODY_TIMEOUT,
    heartbeat: float = HEARTBEAT,
) -> APIRouter:
    """Return the routes that a back end needs.

    Args:
        webhook: the path that the service POSTs to; None for no such route. It responds with 204 when the
            waits are ended, 400 if the webhook is not verified, 404 if the client has no `webhooks=`, and
            408, 413 or 415 if the body is too slow, too large or compressed.
        events: the path, with `{token}` in it, that streams the updates of a task as server-sent events; None
            for no such route.
        authorize: `authorize(request, task)`, plain or async, returns True (no other value) if the visitor
            may watch the task. Other visitors get 404, as for a task that does not exist; to respond
            otherwise, raise `HTTPException(401)` or another error.
        public: True if anyone who knows a task's token may watch it.
        on_event: a function, plain or async, that is called with each event once, in one of the processes
            that share a job store. If it raises, the service gets a 500 and may repeat the webhook, so a paid
            call in it needs a job key, such as `f"sequel of {event.task_id}"`. While it runs, copies of the
            webhook get 503. If its process is killed, another process is called with a repetition that comes
            at least a minute later.
        limit: the size of the largest accepted webhook, in bytes.
        body_timeout: the longest time for the body of a webhook to arrive, in real seconds.
        heartbeat: real seconds of silence after which a stream sends a comment.

    Raises:
        RequestValidationError: an event stream has neither `authorize` nor `public=True`, or an argument has
            a wrong type.
    """
    check_guarded(events, authorize, public, "router()")
    check_receiving(webhook, on_event, limit, body_timeout)
    visitors = Visitors(heartbeat=heartbeat)
    routes = APIRouter(tags=["musicapi"])

    async def receive(request: Request, client: Client) -> Response:
        """Take a webhook of the music service. It must be signed with the webhook secret."""
        problem = await receive_webhook(
            client.webhooks,
            request.headers.raw,
            body_parts(request),
            str(request.url),
            on_event,
            encoding=request.headers.get("content-encoding"),
            limit=limit,
            timeout=body_timeout,
        )
        return Response(status_code=204) if problem is None else problem_response(problem)

    async def watch(
        token: Annotated[str, Path(description="The token of the task.")],
        request: Request,
        client: Client,
        last_event_id: Annotated[str | None, Header(description="Sent by browsers that reconnect.")] = None,
    ) -> Response:
        """Stream the updates of a task as server-sent events, until its end.

        Each event is named `update` and holds the whole state; the last has `ended` true. An event named
        `problem` ends a stream that cannot continue.
        """
        may = None if authorize is None else partial(authorize, request)
        found = await visitors.watch(client, token, last_event_id, may)
        if found is None:
            return Response(status_code=204)
        return problem_response(found) if isinstance(found, Problem) else EventStream(found)

    if webhook is not None:
        routes.add_api_route(
            webhook,
            receive,
            methods=["POST"],
            status_code=204,
            response_class=Response,
            name="musicapi_webhook",
            summary="Webhook of the music service",
            response_description="The event was taken, now or before.",
            responses=_problems(
                {
                    400: "Not verified.",
                    404: "No webhooks are received.",
                    408: "Too slow.",
                    413: "Too large.",
                    415: "Content encoding.",
                    500: "Could not be handled. The delivery may be repeated.",
                    503: "A copy is being handled. The delivery may be repeated.",
                }
            ),
            openapi_extra=_WEBHOOK_INPUT,
        )
    if events is not None:
        routes.add_api_route(
            events,
            watch,
            methods=["GET"],
            status_code=200,
            response_class=EventStream,
            name="musicapi_events",
            summary="Updates of a task",
            response_description="Server-sent events.",
            responses={
                204: {"description": "This browser has the end of the task."},
                **_problems({404: "No such task, or not this visitor's."}),
            },
        )
    return routes


def _problems(texts: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM_TYPE: {"schema": problem_schema()}}
    return {status: {"description": text, "content": content} for status, text in texts.items()}


_WEBHOOK_INPUT: Final[dict[str, Any]] = {
    "parameters": [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
        for name in ("X-Webhook-Timestamp", "X-Webhook-Signature")
    ],
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
}
"""Headers and body of a webhook. The route reads them itself, since the signature covers the raw bytes."""


def add_problem_handler(app: FastAPI) -> None:
    """Respond to errors of this package with problem documents without secrets; the log has all."""

    async def handle(request: Request, error: Exception) -> Response:
        path = request.url.path
        log.warning("%s %s: %s", loggable(request.method), loggable(path), loggable(error))
        return problem_response(problem_of(error))

    app.add_exception_handler(MusicAPIError, handle)


def problem_response(problem: Problem) -> Response:
    """Return the response with a problem document."""
    headers = {name: value for name, value in problem.headers.items() if name != "Content-Type"}
    if problem.closes:
        headers["Connection"] = "close"
    return Response(problem.body, problem.status, headers, media_type=PROBLEM_TYPE)


def end_streams(app: FastAPI) -> None:
    """End all event streams of `app` and of its mounted apps. Call it when the server begins to stop.

    Streams that begin later end at once.
    """
    _streams({"app": app}).end()


class _OpenStreams:
    """The event streams that are open."""

    def __init__(self) -> None:
        self._scopes: Final[set[anyio.CancelScope]] = set()
        self._ended = False

    @contextmanager
    def opened(self) -> Generator[None]:
        """Run the block as a stream, until it ends or all are ended."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._ended:
                scope.cancel()
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def end(self) -> None:
        """End all, and each that is opened later."""
        self._ended = True
        for scope in list(self._scopes):
            scope.cancel()


def _streams(scope: Scope) -> _OpenStreams:
    """Return the open streams; some of its own where there is no lifespan."""
    found = _shared(scope, STREAMS_STATE)
    return found if isinstance(found, _OpenStreams) else _OpenStreams()


@contextmanager
def _ending_at_signals(streams: _OpenStreams) -> Generator[None]:
    """End the streams at the signals by which a server is stopped; its own handlers are called as before."""
    loop = asyncio.get_running_loop()
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(streams.end)
        handlers[number](number, frame)

    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        for stopping in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(stopping)
            if callable(handler):
                handlers[stopping] = handler
                signal.signal(stopping, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler)


class EventStream(Response):
    """Sends the chunks of a generator until it ends or the browser goes; then the generator is closed.

    Starlette's own streaming response notices a browser that has gone only at the next chunk with servers
    of ASGI 2.4, and leaves the generator to the garbage collector.
    """

    media_type = STREAM_TYPE

    def __init__(self, chunks: AsyncGenerator[bytes, None], status_code: int = 200) -> None:
        # FastAPI makes no OpenAPI document for a response class without the parameter `status_code`.
        self._chunks: AsyncGenerator[bytes, None] = chunks
        self.status_code = status_code
        self.background: BackgroundTask | None = None
        self.init_headers(dict(STREAM_HEADERS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wait_until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        try:
            async with aclosing(self._chunks) as chunks, anyio.create_task_group() as group:
                group.start_soon(wait_until_gone)
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                with _streams(scope).opened():
                    async for chunk in chunks:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                group.cancel_scope.cancel()
        except* OSError:
            pass  # raised by some servers once the browser has gone


async def body_parts(request: Request) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives; one that breaks off just ends, and is refused like any unsigned one."""
    with suppress(ClientDisconnect):
        async for part in request.stream():
            yield part
