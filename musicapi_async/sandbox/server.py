"""The sandbox: a real HTTP server on this machine that speaks the MusicAPI.ai API.

It is written from the documentation of the service, not from the client, and knows nothing of the client.
Time runs `speed` times as fast as real time for everything that it does; `sandbox.client()` gives a client
on the same clock, so that intervals, rates and deadlines keep their proportions.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
import zlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from aiohttp import http_exceptions, web

from ..clock import Clock
from .choices import Choices, Durations
from .deprecated_families import nuro_form
from .fault_injection import GONE, inject
from .faults import Faults
from .journal import Entry, Journal
from .media_host import MediaHost
from .outside import Outside
from .poll_bodies import poll_reply
from .prices import Account, CreateLimit
from .refusal import Refusal, invalid
from .routes import POLLS, POSTS
from .service import Call, Reply, Service, refused
from .tools import batch_refusal
from .validation import Form, read_body
from .webhook_sender import Deliveries

if TYPE_CHECKING:
    from ..client import MusicAPI

ROOT: Final = "/api/v1"
BODY_LIMIT: Final = 1024 * 1024
"""Bytes of the largest request body that is read; longer ones get 413."""

JITTER: Final = 20.0
"""Real milliseconds by which a create may arrive early: what a busy machine adds between two requests."""

MEDIA_BYTES: Final = 128 * 1024 * 1024
WORKS: Final = 100_000
LONGEST: Final = 240.0

_log = logging.getLogger("musicapi_async.sandbox")
_http_log = logging.getLogger("musicapi_async.sandbox.http")
_http_log.setLevel(logging.CRITICAL)  # malformed HTTP is the sender's fault and answered, not logged

_UNREADABLE: Final = (http_exceptions.HttpProcessingError, ValueError, zlib.error, EOFError)
_HTML: Final = "<!doctype html><html><body><h1>{} {}</h1></body></html>"


class Sandbox:
    """The API on this machine: `async with Sandbox() as sandbox: ...`.

    `port` 0 takes a free one. `speed` is API seconds per real second. `seed` decides ids, durations and
    music. `credits`, `extra_credits` are the balances; `prices` overrides single rows of the price table.
    `create_limit` is (creates, per seconds), such as (1, 3.0), or None for no limit; `jitter` is the
    tolerance in real milliseconds. `choices` answers what the documentation leaves open, `faults`
    breaks things, `durations` says how long tasks take. `longest` is the seconds of the longest song that it
    makes when requested without a length. `journal_size`, `works` and `media_bytes` bound the memory. With
    `remote` it also fetches uploads from, and delivers webhooks to, other machines; otherwise only this one.

    Costs nothing, needs no network. Files need the extra: `pip install -e '.[sandbox]'` in a clone.

    ```python
    async with Sandbox(speed=60) as sandbox:
        async with sandbox.client() as client:
            task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm rain")
            clips = await task.wait()
    ```
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        speed: float = 1.0,
        seed: int = 0,
        credits: float = 1000.0,
        extra_credits: float = 0.0,
        api_key: str = "sandbox-key",
        create_limit: tuple[int, float] | None = None,
        jitter: float = JITTER,
        choices: Choices | None = None,
        faults: Faults | None = None,
        durations: Durations | None = None,
        prices: Mapping[str, float] | None = None,
        longest: float = LONGEST,
        journal_size: int = 100_000,
        works: int = WORKS,
        media_bytes: int = MEDIA_BYTES,
        remote: bool = False,
    ) -> None:
        self.clock: Final = Clock(speed)
        self.api_key: Final = api_key
        self.journal: Final = Journal(journal_size)
        self.faults: Final = faults if faults is not None else Faults()
        self.account: Final = Account(api_key, credits, extra_credits, prices)
        self._host = host
        self._port = port
        self._limit = None if create_limit is None else CreateLimit(*create_limit, jitter / 1000 * speed)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._origin = 0.0
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None
        self._stopping = asyncio.Event()
        self.service: Final = Service(
            account=self.account,
            journal=self.journal,
            faults=self.faults,
            choices=choices if choices is not None else Choices(),
            durations=durations if durations is not None else Durations(),
            now=self.now,
            sleep=self.clock.sleep,
            epoch=0.0,
            seed=seed,
            works=works,
            longest=longest,
            outside=Outside(remote=remote),
            audio_bytes=media_bytes,
        )
        self._media = MediaHost(self.service, media_bytes)
        self._deliveries = Deliveries(self.service, self.clock)
        self.service.on_work = self._deliveries.watch

    # --- life ---

    async def start(self) -> Self:
        """Listen. Repeatable after `stop`; the account, the journal and the works live on."""
        if self._runner is not None:
            raise RuntimeError("the sandbox is running already")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # time continues from where it was, whatever the new loop's clock shows
            elapsed = self.now()
            if self._loop is None:
                self.service.epoch = self.clock.time()
            self._loop, self._origin = loop, self.clock.now() - elapsed
        self._stopping = asyncio.Event()
        server = web.Server(
            self._serve, access_log=None, logger=_http_log, lingering_time=1.0, keepalive_timeout=75.0
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        try:
            await self._runner.setup()
            await self._listen()
        except BaseException:
            await self._runner.cleanup()
            self._runner = None
            raise
        return self

    async def stop(self) -> None:
        """Close every connection and free the port; repeatable."""
        runner, self._runner, self._site = self._runner, None, None
        self._stopping.set()
        if runner is not None:
            await runner.cleanup()
        await self._deliveries.close()
        await self.service.outside.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        raise TypeError("Sandbox is used with `async with`, not `with`")

    def __exit__(self, *exc: object) -> None:
        """Only here so that `with` reaches the explanation in `__enter__`."""

    async def serve_forever(self) -> None:
        """Start if needed and serve until cancelled."""
        if self._runner is None:
            await self.start()
        try:
            await self._stopping.wait()
        finally:
            await self.stop()

    @asynccontextmanager
    async def unreachable(self) -> AsyncGenerator[None]:
        """While inside, the port is closed and every connection is cut: clients get "connection refused"."""
        if self._site is None or self._runner is None:
            raise RuntimeError("the sandbox is not running")
        await self._site.stop()
        server = self._runner.server
        for protocol in list(server.connections) if server is not None else []:
            if protocol.transport is not None:
                protocol.transport.abort()
        try:
            yield
        finally:
            await self._listen()

    async def _listen(self) -> None:
        if self._runner is None:
            raise RuntimeError("the sandbox is not running")
        self._site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        await self._site.start()
        self._port = int(self._runner.addresses[0][1])
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.service.origin = f"http://{shown}:{self._port}"

    # --- what users ask ---

    @property
    def base_url(self) -> str:
        """The address to give to a client, such as `http://127.0.0.1:40123/api/v1`."""
        if not self.service.origin:
            raise RuntimeError("the sandbox is not running: use `async with Sandbox() as sandbox`")
        return self.service.origin + ROOT

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before it was started with a free one."""
        return self._port

    @property
    def choices(self) -> Choices:
        """The answers where the documentation leaves a choice; may be replaced at any time."""
        return self.service.choices

    @choices.setter
    def choices(self, choices: Choices) -> None:
        self.service.choices = choices

    def now(self) -> float:
        """API seconds since the sandbox was started first; works from any thread."""
        return 0.0 if self._loop is None else self._loop.time() * self.clock.speed - self._origin

    @property
    def balance(self) -> float:
        """Credits left, both kinds together, refunds that are due included."""
        return self.account.balance(self.now())

    def client(self, **options: Any) -> MusicAPI:
        """A client of this sandbox, on its clock and with its key; `options` go to `MusicAPI`."""
        from ..client import MusicAPI

        return MusicAPI(self.api_key, base_url=self.base_url, clock=self.clock, **options)

    def __repr__(self) -> str:
        state = self.service.origin if self._runner is not None else "not running"
        return f"<Sandbox: {state}, speed {self.clock.speed:g}>"

    # --- requests ---

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        api = path.startswith(ROOT + "/")
        path = path.removeprefix(ROOT) if api else path
        entry = self.journal.add(
            Entry(
                self.now(),
                request.method,
                path,
                _kind(request.method, path) if api else "media",
                key_sent="Authorization" in request.headers,
                request_id=str(uuid.uuid4()),
            )
        )
        fault = self.faults.pick("request", request.method, path, random_too=api)
        entry.fault = fault.name if fault is not None else ""
        try:
            if fault is not None and not fault.taken:
                response = await inject(request, fault, None, self.clock, self._stopping)
            else:
                response = await (
                    self._api(request, path, entry) if api else self._media.serve(request, path)
                )
                if fault is not None:
                    response = await inject(request, fault, response, self.clock, self._stopping)
        except Exception:
            _log.exception("the sandbox failed on %s %s", request.method, path)
            reply = Reply({"type": "internal_error", "error": "Internal Server Error."}, 500)
            response = _response(reply, entry)
        entry.status = response.status if response.status != GONE else 0
        if response.status in (400, 413) and not request.content.at_eof() and not response.prepared:
            response.force_close()  # what is left of an unreadable body is not waited for
        return response

    async def _api(self, request: web.BaseRequest, path: str, entry: Entry) -> web.Response:
        known = _methods(path)
        if request.method not in known:
            return _page(405, known) if known else _page(404)
        try:
            self.account.check_key(request.headers.get("Authorization"))
            reply = await self._answer(request, path, entry)
        except Refusal as refusal:
            reply = refused(refusal, self.choices)
            if path.startswith("/nuro/"):
                reply.body = nuro_form(refusal)
        if reply.pause > 0:
            await self.clock.sleep(reply.pause)
        return _response(reply, entry)

    async def _answer(self, request: web.BaseRequest, path: str, entry: Entry) -> Reply:
        now = entry.at
        if request.method == "GET":
            return self._get(path, entry, now)
        endpoint = POSTS[path]
        if endpoint.kind == "create":
            self._pace(path, now)
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return Reply({"error": "The request body is too large."}, 413)
        except _UNREADABLE:
            raise invalid("The request body should be valid JSON.") from None
        self.journal.keep(entry, raw)
        call = Call(self.service, Form(read_body(raw)), entry, now)
        answer = endpoint.answer(call)
        return answer if isinstance(answer, Reply) else await answer

    def _get(self, path: str, entry: Entry, now: float) -> Reply:
        if path == "/get-credits":
            return Reply(self.account.body(now))
        if path == "/sonic/batch":
            raise batch_refusal(self.choices.batch)
        prefix, _, task_id = path.rpartition("/")
        if path in POLLS or not task_id:
            raise invalid("missing task id.")
        entry.task_id = task_id
        return poll_reply(self.service, POLLS[prefix], task_id, now)

    def _pace(self, path: str, now: float) -> None:
        wait = 0.0 if self._limit is None else self._limit.wait(now)
        if wait <= 0:
            return
        if path.startswith("/nuro/"):
            body = {"type": "forbidden", "message": "API QPS limit exceeded", "refund_processed": False}
            raise Refusal(403, dict[str, object](body))
        headers: dict[str, str] = {}
        if self.choices.retry_after == "seconds":
            headers["Retry-After"] = f"{math.ceil(wait)}"
        elif self.choices.retry_after == "date":
            headers["Retry-After"] = formatdate(math.ceil(self.clock.time() + wait), usegmt=True)
        raise Refusal(429, {"type": "rate_limited", "error": "Too many requests."}, headers)


def _kind(method: str, path: str) -> str:
    if method == "POST" and path in POSTS:
        return POSTS[path].kind
    if method == "GET" and path.rpartition("/")[0] in POLLS:
        return "poll"
    return "account" if path == "/get-credits" else "other"


def _methods(path: str) -> list[str]:
    """The methods that a path takes; none for a path that does not exist."""
    known = ["POST"] if path in POSTS else []
    if path in ("/get-credits", "/sonic/batch") or path in POLLS or path.rpartition("/")[0] in POLLS:
        known.append("GET")
    return known


def _page(status: int, allowed: list[str] | None = None) -> web.Response:
    """The HTML with which a gateway answers a wrong path or method."""
    text = _HTML.format(status, "Method Not Allowed" if status == 405 else "Not Found")
    headers = {"Allow": ", ".join(allowed)} if allowed else None
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def _response(reply: Reply, entry: Entry) -> web.Response:
    return web.Response(
        status=reply.status,
        body=msgspec.json.encode(reply.body),
        content_type="application/json",
        charset="utf-8",
        headers={"X-Request-Id": entry.request_id, **reply.headers},
    )
