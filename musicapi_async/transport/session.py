"""HTTP: one attempt, the attempt loop, and the sessions of a loop.

Three aiohttp sessions, opened when first needed, one set per event loop and process:

- *api* for polls and free calls, on kept-alive connections. aiohttp's default keep-alive of 15 s is just
  the interval of polls, so a lone waiter would shake hands for every poll: 75 s here.
- *create* for calls that charge, each on a fresh connection. On a reused one the server may have closed
  its end a moment ago; aiohttp then reports a lost connection although nothing arrived, and a paid call
  would be called ambiguous for nothing.
- *media* for downloads. It never carries the key.

None keeps cookies or follows redirects to another place with the key. The body is read whole, up to a limit,
within the time-outs; its content type is not trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator, Mapping
from functools import lru_cache, partial
from typing import Any, Final, Literal, cast
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from .._version import __version__
from ..clock import Clock
from ..config import ATTEMPT_TIMEOUT, BODY_LIMIT, CONNECT_TIMEOUT, Options
from ..errors import (
    APIConnectionError,
    ConnectFailedError,
    ConnectionLostError,
    InvalidResponseError,
    RequestTimeoutError,
)
from ..wire import replies, retry
from ..wire.replies import Answer
from .limit import TimeLimits
from .rate_limiter import RateLimiter, Slot
from .recording import Recording

log: Final = logging.getLogger("musicapi_async")

POOL: Final = 64
"""Connections kept; the limiter's lanes queue in front of it: a queue in the pool gave tails of 1 s."""
KEEP_ALIVE: Final = 75.0
"""Seconds a free connection is kept: more than the longest learned interval between two polls (60 s)."""
HIDDEN: Final = "[hidden]"
"""Stands for a secret in whatever is shown of an answer."""
HIDDEN_BYTES: Final = HIDDEN.encode()
SOCKET_FLOOR: Final = 2.0
"""Real seconds below which no time-out is scaled: a busy machine answers a sandbox late, too."""
CONNECTING: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
"""What aiohttp watches itself: its time-outs for reading set two timers per call."""
MOST_URLS: Final = 1024
"""Addresses of tasks that are kept: 0.6 MB at most."""
USER_AGENT: Final = f"musicapi-async/{__version__}"

Kind = Literal["get", "create", "repeatable"]


class Outgoing(msgspec.Struct, kw_only=True):
    """A request as it leaves. `left` turns True once its bytes may be on the way, `doubt` once an attempt
    that is followed by another may have been carried out; `recording` is told before each attempt, and after
    one that was provably not taken."""

    method: str
    path: str
    call: str
    kind: Kind
    lane: str
    params: Mapping[str, str] | None = None
    body: bytes | None = None
    attempt_timeout: float = ATTEMPT_TIMEOUT
    secrets: tuple[str, ...] = ()
    left: bool = False
    doubt: bool = False
    slot: Slot | None = None
    recording: Recording | None = None


def fill_path(path: str, values: Mapping[str, Any]) -> str:
    """`/sonic/task/{task_id}` with the id percent-encoded, whatever characters it has."""
    for name, value in values.items():
        mark = "{" + name + "}"
        if mark in path:
            text = quote(str(value), safe="")
            path = path.replace(mark, text if text.strip(".") else text.replace(".", "%2E"))
    return path


@lru_cache(maxsize=MOST_URLS)
def poll_path(path: str, task_id: str) -> str:
    """`fill_path` for the path of a poll, which is asked for again and again."""
    return fill_path(path, {"task_id": task_id})


class _PaidBody(aiohttp.BytesPayload):
    """The body of a paid call, which notes when it leaves.

    aiohttp writes the headers together with the body, so this is called when the connection is open and not
    one byte has left, in a session of ours and in one that was given. A second call would send the request
    twice: a middleware of a given session may try that, and is stopped.
    """

    def __init__(self, body: bytes, out: Outgoing) -> None:
        super().__init__(body, content_type="application/json")
        self._out: Final = out

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Wait until the request may leave, note that it does, and write it."""
        if self._out.left:
            raise RuntimeError("a paid call is sent once")
        if self._out.slot is not None:
            await self._out.slot.departing()
        self._out.left = True
        await super().write_with_length(writer, content_length)


class Session:
    """The connections of one event loop, and the rules by which a request is repeated."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        limiter: RateLimiter,
        clock: Clock,
        draw: retry.Draw,
        given: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        body_limit: int = BODY_LIMIT,
    ) -> None:
        self._headers: Final = {
            "Authorization": f"Bearer {api_key}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
        }
        # Sessions of our own carry these by default, which is cheaper than merging them into each request.
        self._get_headers: Final = None if given is None else self._headers
        self._post_headers: Final = {**(self._get_headers or {}), "Content-Type": "application/json"}
        self._key: Final = api_key
        self._base: Final = base_url
        self._limiter: Final = limiter
        self._clock: Final = clock
        self._draw: Final = draw
        self._given: Final = given
        self._proxy: Final = proxy
        self._trust_env: Final = trust_env
        self._body_limit: Final = body_limit
        self._opened: Final[dict[str, aiohttp.ClientSession]] = {}
        self._limits: Final = TimeLimits(partial(_socket_seconds, clock))
        self._key_spellings: Final = _spellings(api_key)
        # yarl keeps the last 128; with more tasks than that each poll would parse its own again, for 3 µs.
        self._url: Final = lru_cache(maxsize=MOST_URLS)(partial(_address, base_url))

    def _session(self, name: str) -> aiohttp.ClientSession:
        if self._given is not None and name != "media":
            return self._given
        session = self._opened.get(name)
        if session is None:
            connector = (
                aiohttp.TCPConnector(limit=POOL, force_close=True)
                if name == "create"
                else aiohttp.TCPConnector(limit=POOL, keepalive_timeout=KEEP_ALIVE)
            )
            session = self._opened[name] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=CONNECTING,
                trust_env=self._trust_env,
                proxy=self._proxy,
                headers={"User-Agent": USER_AGENT} if name == "media" else self._headers,
            )
        return session

    async def send(self, out: Outgoing, options: Options) -> Answer:
        """Send, repeat as the rules allow, and return the last answer, whatever its status.

        Raises `ConnectFailedError`, `RequestTimeoutError`, `ConnectionLostError` (their `sent` tells whether
        the request may have left), `InvalidResponseError` for a body over the limit.
        """
        attempt = 1
        recording = out.recording if out.kind == "create" else None
        while True:
            error: APIConnectionError | None = None
            reply: Answer | None = None
            retry_after: float | None = None
            async with self._limiter.slot(out.lane) as slot:
                out.slot = slot
                if recording is not None:
                    await recording.leaving()
                try:
                    reply = await self.attempt(out)
                except APIConnectionError as caught:
                    error = caught
            if reply is None:
                failure = (
                    retry.Failure.NOT_SENT
                    if error is not None and error.sent is False
                    else retry.Failure.SENT_UNKNOWN
                )
            else:
                found = replies.failure_of(reply)
                if found is None:
                    self._limiter.succeeded(out.lane)
                    return reply
                failure = found
                retry_after = retry.parse_retry_after(reply.headers.get("retry-after"), self._clock.time())
            policy = retry.RetryPolicy(
                retries=options.retries, resend_creates_on_5xx=options.resend_creates_on_5xx
            )
            wait = retry.decide(out.kind, failure, attempt, retry_after, policy, self._draw)
            if failure is retry.Failure.RATE_LIMITED:
                # No header stops the lane for longer than a retry would obey it.
                self._limiter.pause(out.lane, wait or min(retry_after or 0.0, policy.retry_after_cap))
            if wait is None:
                if error is not None:
                    raise error
                return cast("Answer", reply)
            attempt += 1
            if out.kind == "create" and failure not in (retry.Failure.NOT_SENT, retry.Failure.RATE_LIMITED):
                out.doubt = True  # an earlier attempt may have been taken, whatever the next one says
            log.info("%s: %s; attempt %d follows in %.1f s", out.call, failure, attempt, wait)
            out.left = False
            if recording is not None and failure in (retry.Failure.NOT_SENT, retry.Failure.RATE_LIMITED):
                await recording.returned()
            await self._clock.sleep(wait)

    async def attempt(self, out: Outgoing) -> Answer:
        """One attempt. Everything that aiohttp raises is mapped here, around the reading of the body too."""
        session = self._session("create" if out.kind == "create" else "api")
        data: bytes | _PaidBody | None = out.body
        if out.kind == "create":
            if _is_session(session):
                data = _PaidBody(out.body or b"", out)
            else:  # a double, which does not tell when it sends
                if out.slot is not None:
                    await out.slot.departing()
                out.left = True
        try:
            with self._limits.within(out.attempt_timeout):
                # Not `async with`: its exit releases once more what a body that was read has released (4 µs).
                response = await session.request(
                    out.method,
                    self._url(out.path),
                    params=out.params,
                    data=data,
                    headers=self._get_headers if out.body is None else self._post_headers,
                    allow_redirects=False,
                    timeout=CONNECTING,
                )
                try:
                    raw = await response.content.readany()
                    if len(raw) > self._body_limit or not response.content.at_eof():
                        raw = await _rest(raw, response, self._body_limit, out)
                except BaseException:
                    response.close()
                    raise
            headers: Mapping[str, str] = response.headers
            if self._key in "\n".join(headers.values()):  # the key holds no white space
                headers = {k.lower(): v.replace(self._key, HIDDEN) for k, v in headers.items()}
            return replies.answer(response.status, headers, self._without_secrets(raw, out))
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise ConnectFailedError(
                f"no connection to {self._base}: {_reason(error)}", sent=False, call=out.call
            ) from error
        except aiohttp.ClientHttpProxyError as error:
            raise ConnectFailedError(
                f"the proxy refused: HTTP {error.status}", sent=False, call=out.call
            ) from error
        except TimeoutError as error:
            told = f"no answer within {out.attempt_timeout:g} s"
            if out.kind == "create" and not out.left:
                raise ConnectFailedError(told, sent=False, call=out.call) from error
            raise RequestTimeoutError(told, sent=True, call=out.call) from error
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            sent = None if out.left or out.kind != "create" else False
            if sent is False:
                raise ConnectFailedError(
                    f"the connection failed before anything was sent: {_reason(error)}",
                    sent=False,
                    call=out.call,
                ) from error
            raise ConnectionLostError(
                f"the connection dropped: {_reason(error)}", sent=sent, call=out.call
            ) from error

    def _without_secrets(self, raw: bytes, out: Outgoing) -> bytes:
        """Whatever the status: what the service repeats may end up in an error, and that in a log."""
        for spelling in self._key_spellings:
            raw = raw.replace(spelling, HIDDEN_BYTES)
        for secret in out.secrets:
            for spelling in _spellings(secret):
                raw = raw.replace(spelling, HIDDEN_BYTES)
        return raw

    @property
    def base_url(self) -> str:
        """The address that calls go to, for errors."""
        return self._base

    @contextlib.asynccontextmanager
    async def media(
        self, url: str, headers: Mapping[str, str], read_timeout: float
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Open a media link, following redirects, without the key."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=read_timeout)
        async with self._session("media").get(
            url, headers=dict(headers), timeout=timeout, allow_redirects=True, max_redirects=5
        ) as response:
            yield response

    async def aclose(self) -> None:
        """Close what was opened here; a given session stays open."""
        self._limits.close()
        for session in self._opened.values():
            await session.close()
        if self._opened:
            # One turn of the loop lets the transports finish, so that nothing warns about them.
            await asyncio.sleep(0)
        self._opened.clear()


def _address(base_url: str, path: str) -> URL:
    return URL(base_url + path, encoded=True)


def _socket_seconds(clock: Clock, seconds: float) -> float:
    """A time-out in real seconds. Sockets do not run faster on a faster clock, hence the floor."""
    return max(clock.real(seconds), min(seconds, SOCKET_FLOOR))


async def _rest(first: bytes, response: aiohttp.ClientResponse, limit: int, out: Outgoing) -> bytes:
    """The whole body of which `first` has been read; `InvalidResponseError` if that is over the limit."""
    content = response.content
    parts = [first]
    size = len(first)
    while size > limit or not content.at_eof():
        if size > limit:
            raise InvalidResponseError(
                f"the answer is larger than {limit} bytes",
                status=response.status,
                body=parts[0][:500],
                call=out.call,
                may_have_been_charged=out.kind == "create",
            )
        parts.append(await content.readany())
        size += len(parts[-1])
    return b"".join(parts)


def _spellings(secret: str) -> tuple[bytes, ...]:
    """How a secret may stand in a body: as it is, and as JSON writes it where that is not the same."""
    return tuple(dict.fromkeys((secret.encode(), msgspec.json.encode(secret)[1:-1])))


def _is_session(session: object) -> bool:
    """Return True for a session of aiohttp, which calls `_PaidBody` when it writes."""
    return isinstance(session, aiohttp.ClientSession)


def _reason(error: BaseException) -> str:
    return str(error).replace(" ssl:default", "") or type(error).__name__
