"""The sandbox: a real HTTP server on this machine that speaks the MusicAPI.ai API.

It is written from the documentation of the service, not from the client, and knows nothing of the client.
Time runs `speed` times as fast as real time for everything that it does; `sandbox.client()` gives a client
on the same clock, so that intervals, rates and deadlines keep their proportions.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, Unpack

from aiohttp import web

from ..clock import Clock
from . import control, control_page
from .addresses import TLS, Addresses
from .api_host import ApiHost, json_response
from .backend import Service
from .declared_settings import checked
from .faults import Faults
from .journal import Entry, Journal, log_access
from .media_host import MediaHost
from .poll_bodies import STREAM
from .prices import CreateLimit, SandboxAccount
from .replies import JsonReply
from .reply_choices import Choices, Durations, preset
from .routes import kind_of
from .sandbox_time import SandboxTime
from .state import State
from .webhook_sender import WebhookSender
from .wire_faults import NO_RESPONSE, inject

if TYPE_CHECKING:
    from ..client import ClientOptions, MusicAPI

ROOT: Final = "/api/v1"
"""The path of the API."""

ARRIVAL_JITTER: Final = 20.0
"""Real milliseconds by which a create may arrive early: what a busy machine adds between two requests."""

LONGEST_SONG: Final = 240.0
"""Seconds of the longest song that is requested without a length."""

_log = logging.getLogger("musicapi_async.sandbox")
_http_log = logging.getLogger("musicapi_async.sandbox.http")
_http_log.setLevel(logging.CRITICAL)  # malformed HTTP is the sender's fault and answered, not logged


class Sandbox:
    """A server with the API of the service on this machine: `async with Sandbox() as sandbox: ...`.

    Free, and without a network: it fetches uploads only from this machine, and sends webhooks only to it.
    Media files need the extra `[sandbox]` (`pip install -e '.[sandbox]'` in a clone).

    Args:
        port: The port to listen on; 0 for a free one.
        host: The address to listen on.
        speed: API seconds per real second.
        seed: The seed of ids, durations and music.
        credits: The balance at the start.
        extra_credits: The balance of one-time packs, which is spent first.
        api_key: The API key that requests must have.
        create_limit: The rate limit of creates as (number, API seconds), such as (1, 3.0); by default none.
        jitter: Real milliseconds by which a create may arrive too early for the limit.
        choices: The behaviour that the documentation of the service leaves open.
        faults: Faults to inject; more can be added to `sandbox.faults` at any time.
        durations: The durations of tasks.
        prices: Prices in credits by operation, where they differ from the default ones.
        longest: Seconds of the longest song that is requested without a length.
        like: A preset of choices and durations, such as "vendor-samples", in the place of both.
        public_url: The address in links, such as "https://tunnel.example", if clients use another one.
        tls: True for https with a new certificate (needs the extra `[tls]`), or the paths of the PEM files of
            a certificate and of its key.
        local_ports: False to send no webhooks to other ports of this machine, and to fetch no files from
            them; the journal has what was skipped.
        state: A file to store tasks, clips, personas, balance and journal in; they survive a restart.
        control_token: The token for the control below `/_sandbox/`; by default a new one, or that in the
            state.

    ```python
    async with Sandbox(speed=60) as sandbox:
        async with sandbox.client() as client:
            task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm rain")
            clips = await task.wait()
    ```
    """

    @checked
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
        jitter: float = ARRIVAL_JITTER,
        choices: Choices | None = None,
        faults: Faults | None = None,
        durations: Durations | None = None,
        prices: Mapping[str, float] | None = None,
        longest: float = LONGEST_SONG,
        like: str | None = None,
        public_url: str | None = None,
        tls: TLS = None,
        local_ports: bool = True,
        state: str | os.PathLike[str] | None = None,
        control_token: str | None = None,
    ) -> None:
        if like is not None and (choices is not None or durations is not None):
            raise ValueError("give like, or choices and durations, not both")
        as_given = (
            Choices() if choices is None else choices,
            Durations() if durations is None else durations,
        )
        self._time: Final = SandboxTime(speed)
        self.api_key: Final = api_key
        self.journal: Final = Journal()
        self.faults: Final = faults if faults is not None else Faults()
        self.account: Final = SandboxAccount(api_key, credits, extra_credits, prices)
        self._port = port
        self._addresses: Final = Addresses(host, public_url, tls)
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None
        self._stopping = asyncio.Event()
        first_choices, first_durations = as_given if like is None else preset(like)
        self.service: Final = Service(
            account=self.account,
            journal=self.journal,
            faults=self.faults,
            choices=first_choices,
            durations=first_durations,
            time=self._time,
            seed=seed,
            longest=longest,
            local_ports=local_ports,
        )
        limit = None if create_limit is None else CreateLimit(*create_limit, jitter / 1000 * speed)
        self._api: Final = ApiHost(self.service, limit)
        self._media: Final = MediaHost(self.service)
        self._deliveries: Final = WebhookSender(self.service)
        self.service.on_task = self._deliveries.watch
        self._state: Final = None if state is None else State(Path(state), self.service, control_token)
        token = control_token or secrets.token_urlsafe(16)
        self.service.on_change = self._save_later
        self._control: Final = control.Control(self.service, token, self.reset, self._save_later)

    # --- life ---

    async def start(self) -> Self:
        """Start to listen. May be called again after `stop`: account, journal and tasks are not reset."""
        if self._runner is not None:
            raise RuntimeError("the sandbox is running already")
        if self._state is not None:
            self._state.open()
            self._control.token = self._state.token
        self._time.start()
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
            if self._state is not None:
                self._state.close()
            raise
        if self._state is not None:
            self._deliveries.resume()
        return self

    async def stop(self) -> None:
        """Close all connections and the port. May be repeated."""
        runner, self._runner, self._site = self._runner, None, None
        self._stopping.set()
        if runner is not None:
            # A client is accepted in one turn of the loop, and becomes a connection two turns later.
            # If the port is closed in between, the socket stays open: an assertion of asyncio fails.
            for _ in range(4):
                await asyncio.sleep(0)
            await runner.cleanup()
        await self._deliveries.close()
        await self.service.outbound.close()
        self._addresses.close()
        if self._state is not None:
            self._state.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        raise TypeError("Sandbox is used with `async with`, not `with`")

    def __exit__(self, *exc: object) -> None:
        """Do nothing: without this method `with` would not reach the explanation in `__enter__`."""

    async def serve_forever(self) -> None:
        """Start, if necessary, and serve until cancelled."""
        if self._runner is None:
            await self.start()
        try:
            await self._stopping.wait()
        finally:
            await self.stop()

    def reset(self) -> None:
        """Remove tasks, journal and faults, and set balance, choices and durations as at the start.

        Ids are not repeated after a reset, and the clock is not reset.
        """
        self._deliveries.forget()
        self._api.reset()
        self._media.clear()
        self.service.reset()

    def forward(self, seconds: float) -> None:
        """Move the clock forward by some API seconds: tasks end, webhooks are sent, clips become older."""
        self._time.forward(seconds)

    def _save(self) -> None:
        if self._state is not None:
            self._state.save()

    def _save_later(self) -> None:
        """Save outside of a request that could answer 500: what cannot be written now is written later."""
        try:
            self._save()
        except sqlite3.Error as error:
            _log.error("the state cannot be written: %s", error)

    @asynccontextmanager
    async def unreachable(self) -> AsyncGenerator[None]:
        """Close the port and cut all connections for the block: clients get "connection refused"."""
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
        context = self._addresses.server_context()
        host = self._addresses.host
        self._site = web.TCPSite(self._runner, host, self._port, reuse_address=True, ssl_context=context)
        await self._site.start()
        self._port = int(self._runner.addresses[0][1])
        local = self._addresses.listens_on(self._port)
        self.service.origin = self._addresses.public_url or local
        self.service.outbound.know(self.service.origin, local, self._addresses.client_context())

    # --- its address, time and balance ---

    @property
    def base_url(self) -> str:
        """The base URL for clients, such as `http://127.0.0.1:40123/api/v1`."""
        if not self.service.origin:
            raise RuntimeError("the sandbox is not running: use `async with Sandbox() as sandbox`")
        return self.service.origin + ROOT

    @property
    def control_token(self) -> str:
        """The token for the control; with a state, after the start, that of the previous run."""
        return self._control.token

    @property
    def control_url(self) -> str:
        """The URL of the control over HTTP, such as `http://127.0.0.1:40123/_sandbox`."""
        return self.base_url.removesuffix(ROOT) + control.ROOT

    @property
    def page_url(self) -> str:
        """The URL of the page with journal, tasks and balance; it includes the token for the control."""
        return f"{self.base_url.removesuffix(ROOT)}/#token={self.control_token}"

    @property
    def ca_file(self) -> Path | None:
        """The PEM file of the authority of the sandbox's own certificate; removed when the sandbox stops."""
        return self._addresses.ca_file

    @property
    def clock(self) -> Clock:
        """The clock, as fast as the sandbox."""
        return self._time.clock

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before the first start if a free one was requested."""
        return self._port

    @property
    def choices(self) -> Choices:
        """The behaviour that the documentation leaves open; may be replaced at any time."""
        return self.service.choices

    @choices.setter
    @checked
    def choices(self, choices: Choices) -> None:
        self.service.choices = choices

    @property
    def durations(self) -> Durations:
        """The durations of tasks; may be replaced at any time, for tasks that are created after that."""
        return self.service.durations

    @durations.setter
    @checked
    def durations(self, durations: Durations) -> None:
        self.service.durations = durations

    def now(self) -> float:
        """Return the API seconds since the first start of the sandbox, in any thread."""
        return self._time.now()

    @property
    def balance(self) -> float:
        """The sum of both kinds of credits, including refunds that are due."""
        return self.account.balance(self.now())

    def client(self, **options: Unpack[ClientOptions]) -> MusicAPI:
        """Return a client of this sandbox, with its clock and API key.

        `options` are those of `MusicAPI`; `api_key="wrong"` makes a client that is refused. However fast the
        clock, an attempt has 10 real seconds, or `attempt_timeout` if that is less: a test of `Fault.hang` is
        quick with `attempt_timeout=0.5`.
        """
        from ..client import ClientOptions, MusicAPI

        own = ClientOptions(api_key=self.api_key, base_url=self.base_url, clock=self.clock)
        context = self._addresses.client_context()
        if context is not None:
            own["ssl"] = context
        return MusicAPI(**(own | options))

    def __repr__(self) -> str:
        state = self.service.origin if self._runner is not None else "not running"
        return f"<Sandbox: {state}, speed {self.clock.speed:g}>"

    # --- requests ---

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        api = path.startswith(ROOT + "/")
        media = path.startswith(("/media/", STREAM))
        why = self._addresses.refusal(request, media=media or path == "/")
        if why is None and path == "/" and request.method in ("GET", "HEAD"):
            return control_page.page(self.service.origin)
        if why is None and (path + "/").startswith(control.ROOT + "/"):
            return await self._control.serve(request)
        path = path.removeprefix(ROOT) if api else path
        entry = self.journal.add(
            Entry(
                self.now(),
                request.method,
                path,
                kind_of(request.method, path) if api else "media" if media else "other",
                key_sent="Authorization" in request.headers,
                request_id=str(uuid.uuid4()),
            )
        )
        response = await self._respond(request, path, entry, api=api, why=why)
        status = response.status if response.status != NO_RESPONSE else 0
        if status != entry.status:
            entry.status = status
            self.journal.touch(entry)
            self._save_later()
        if response.status in (400, 413) and not request.content.at_eof() and not response.prepared:
            response.force_close()  # the rest of an unreadable body is not waited for
        log_access(entry)
        return response

    async def _respond(
        self, request: web.BaseRequest, path: str, entry: Entry, *, api: bool, why: str | None
    ) -> web.StreamResponse:
        if why is not None:
            entry.kind = "other"
            return json_response(JsonReply({"error": why}, 403), entry)
        fault = self.faults.pick("request", request.method, path, random_too=api)
        entry.fault = fault.name if fault is not None else ""
        try:
            if fault is not None and not fault.taken:
                return await inject(request, fault, None, self._time, self._stopping)
            response: web.StreamResponse = await (
                self._api.serve(request, path, entry)
                if api
                else self._media.serve(request, path, unsent=fault is not None)
            )
            entry.status = response.status
            self.journal.touch(entry)
            self._save()  # before anything leaves
            if fault is not None:
                response = await inject(request, fault, response, self._time, self._stopping)
        except ConnectionError:  # the client has gone
            return web.Response(status=NO_RESPONSE)
        except Exception:
            _log.exception("the sandbox failed on %s %s", request.method, path)
            reply = JsonReply({"type": "internal_error", "error": "Internal Server Error."}, 500)
            response = json_response(reply, entry)
        return response
