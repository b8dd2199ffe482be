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
from collections.abc import AsyncGenerator, Mapping
from functools import lru_cache, partial
from typing import Any, Final, Literal, cast
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import (
    BadHttpMessage,
    BadStatusLine,
    ContentLengthError,
    HttpProcessingError,
    InvalidHeader,
    LineTooLong,
    TransferEncodingError,
)
from yarl import URL

from .._version import __version__
from .._wire import codec, replies, retry, verdict
from .._wire.redaction import Redactor
from .._wire.replies import Answer
from ..clock import Clock
from ..errors import (
    APIConnectionError,
    ConnectFailedError,
    ConnectionLostError,
    InvalidResponseError,
    MusicAPIError,
    RequestTimeoutError,
)
from ..options import ATTEMPT_TIMEOUT, BODY_LIMIT, CONNECT_TIMEOUT, Options, find_proxy
from . import media_requests
from .limit import TimeLimits
from .rate_limiter import RateLimiter, Slot
from .recording import Recording

log: Final = logging.getLogger("musicapi_async")

POOL: Final = 64
"""Connections kept; the limiter's lanes queue in front of it: a queue in the pool gave tails of 1 s."""
KEEP_ALIVE: Final = 75.0
"""Seconds a free connection is kept: more than the longest learned interval between two polls (60 s)."""
SOCKET_FLOOR: Final = 2.0
"""Real seconds below which no time-out is scaled: a busy machine answers a sandbox late, too."""
CONNECTING: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
"""What aiohttp watches itself: its time-outs for reading set two timers per call."""
HEADER_LIMIT: Final = 64 * 1024
"""Bytes of the longest status or header line that is read; aiohttp's own 8,190 are too few for signed cookies
and security policies of gateways, and what it refuses to read is lost."""
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

    def __repr__(self) -> str:
        return f"Outgoing({self.call!r}, kind={self.kind!r}, lane={self.lane!r}, left={self.left})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Without the body and the secrets in it, as in `repr`."""
        return [("call", self.call), ("kind", self.kind), ("lane", self.lane), ("left", self.left)]


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
        forbid_private_addresses: bool = False,
        redactor: Redactor | None = None,
        body_limit: int = BODY_LIMIT,
        reached: set[str] | None = None,
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
        self.redactor: Final = redactor or Redactor([api_key])
        """Hides the key, and the secrets of requests, in what is shown."""
        self._base: Final = base_url
        self._limiter: Final = limiter
        self._clock: Final = clock
        self._draw: Final = draw
        self._given: Final = given
        self._proxy: Final = proxy
        self._trust_env: Final = trust_env
        self._forbid_private_addresses: Final = forbid_private_addresses
        self._body_limit: Final = body_limit
        self._reached: Final = set[str]() if reached is None else reached
        self._opened: Final[dict[str, aiohttp.ClientSession]] = {}
        self._limits: Final = TimeLimits(partial(_socket_seconds, clock))
        self._repaired: Final = codec.RepairLog(f"an answer of {base_url}")
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
                else media_requests.connector(
                    POOL, KEEP_ALIVE, public_only=name == "media" and self._forbid_private_addresses
                )
            )
            session = self._opened[name] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=CONNECTING,
                request_class=ProxiedByEnvironment if self._trust_env else aiohttp.ClientRequest,
                max_line_size=HEADER_LIMIT,
                max_field_size=HEADER_LIMIT,
                proxy=self._proxy,
                headers={"User-Agent": USER_AGENT} if name == "media" else self._headers,
                # Files are unpacked on purpose: lengths and ranges count the packed bytes.
                auto_decompress=name != "media",
            )
        return session

    async def send(self, out: Outgoing, options: Options) -> Answer:
        """Send, repeat as the rules allow, and return the last answer, whatever its status.

        Raises `ConnectFailedError`, `RequestTimeoutError`, `ConnectionLostError` (their `sent` tells whether
        the request may have left), `InvalidResponseError` for a body over the limit.
        """
        attempt = 1
        self.redactor.learn(out.secrets)
        recording = out.recording if out.kind == "create" else None
        while True:
            error: APIConnectionError | None = None
            reply: Answer | None = None
            retry_after: float | None = None
            async with self._limiter.slot(out.lane) as slot:
                out.slot = slot
                if recording is not None:
                    await recording.sending()
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
                retry_after = reply.retry_after
            policy = retry.RetryPolicy(
                max_retries=options.max_retries, resend_creates_on_5xx=options.resend_creates_on_5xx
            )
            wait = retry.decide(out.kind, failure, attempt, retry_after, policy, self._draw)
            if reply is not None and out.kind == "create" and verdict.carried_out(reply, out.call):
                wait = None  # a refusal that names a task is none
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
        """One attempt. Everything that aiohttp raises becomes an error of ours, the reading of the body too.

        Nothing of aiohttp hangs on that error, not even as its context: its errors hold the key, passwords of
        proxies and what the peer sent, and they do not pickle.
        """
        try:
            status, headers, raw = await self._exchange(out)
        except _TooLarge as large:
            failure: MusicAPIError = InvalidResponseError(
                f"the answer is larger than {self._body_limit} bytes",
                status=large.status,
                body=replies.excerpt(large.beginning, self.redactor),
                call=out.call,
                may_have_been_charged=out.kind == "create",
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = self._failure_of(error, out)
        else:
            if status < 500:
                self._reached.add(self._base)
            return replies.answer(
                status, headers, raw, self.redactor, now=self._clock.time, repaired=self._repaired
            )
        raise failure

    async def _exchange(self, out: Outgoing) -> tuple[int, Mapping[str, str], bytes]:
        """Send the request and read the whole answer."""
        session = self._session("create" if out.kind == "create" else "api")
        data: bytes | _PaidBody | None = out.body
        if out.kind == "create":
            if _is_session(session):
                data = _PaidBody(out.body or b"", out)
            else:  # a double, which does not tell when it sends
                if out.slot is not None:
                    await out.slot.departing()
                out.left = True
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
                    raw = await _rest(raw, response, self._body_limit)
            except BaseException:
                response.close()
                raise
        return response.status, response.headers, raw

    def _failure_of(self, error: Exception, out: Outgoing) -> APIConnectionError:
        """What an attempt without an answer means: was anything sent?"""
        reason = self.redactor.line(reason_of(error))
        unsent = out.kind == "create" and not out.left
        match error:
            case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
                told, unsent = f"no connection to {self._base}: {reason}", True
            case aiohttp.InvalidURL() | UnicodeError():
                told, unsent = f"{self._base} cannot be called: {reason}", True
            case aiohttp.ClientHttpProxyError():
                told, unsent = f"the proxy refused: HTTP {error.status}", True
            case TimeoutError():
                told = f"no answer within {out.attempt_timeout:g} s"
                if not unsent:
                    return RequestTimeoutError(told, sent=True, call=out.call)
            case aiohttp.ClientResponseError():
                # From aiohttp's parser: the status that it carries is not the server's.
                return APIConnectionError(
                    f"the answer breaks the rules of HTTP and was not read: {reason}",
                    sent=True,
                    call=out.call,
                )
            case _ if unsent:
                told = f"the connection failed before anything was sent: {reason}"
            case _:
                told = f"the connection dropped: {reason}"
        if unsent:
            return ConnectFailedError(told, sent=False, call=out.call)
        return ConnectionLostError(told, sent=None, call=out.call)

    @property
    def reached(self) -> bool:
        """Return True once the host has answered the client with a status below 500."""
        return self._base in self._reached

    @property
    def base_url(self) -> str:
        """The address that calls go to, for errors."""
        return self._base

    @contextlib.asynccontextmanager
    async def media(
        self, url: str, headers: Mapping[str, str], read_timeout: float
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Open a media link, following redirects, without the key; see `media_requests.opened`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=read_timeout)
        async with media_requests.opened(self._session("media"), url, headers, timeout) as response:
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


class _TooLarge(Exception):
    """A body is over the limit; `beginning` is its first part."""

    def __init__(self, status: int, beginning: bytes) -> None:
        super().__init__()
        self.status = status
        self.beginning = beginning


async def _rest(first: bytes, response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body of which `first` has been read; `_TooLarge` if that is over the limit."""
    content = response.content
    parts = [first]
    size = len(first)
    while size > limit or not content.at_eof():
        if size > limit:
            raise _TooLarge(response.status, b"".join(parts))
        parts.append(await content.readany())
        size += len(parts[-1])
    return b"".join(parts)


BROKEN: Final[tuple[tuple[type[HttpProcessingError], str], ...]] = (
    (LineTooLong, "a header or the status line is too long"),
    (BadStatusLine, "broken status line"),
    (InvalidHeader, "broken header"),
    (ContentLengthError, "the body is shorter than announced"),
    (TransferEncodingError, "broken chunks"),
    (HttpProcessingError, "broken header or body"),
)
"""What the parser of aiohttp complains of."""


def _is_session(session: object) -> bool:
    """Return True for a session of aiohttp, which calls `_PaidBody` when it writes."""
    return isinstance(session, aiohttp.ClientSession)


def reason_of(error: BaseException) -> str:
    """What went wrong with a connection, in words of our own or of the system.

    The texts of aiohttp may hold what the peer sent (cut in the middle of a secret), and addresses with
    their queries and passwords.
    """
    match error:
        case aiohttp.TooManyRedirects():
            return "too many redirects"
        case aiohttp.InvalidURL():
            return "not an address that can be called"
        case aiohttp.ClientConnectorError():
            return str(error).replace(" ssl:default", "")
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            cause: BaseException | None = error.__cause__
            while isinstance(cause, HttpProcessingError) and type(cause) is HttpProcessingError:
                cause = cause.__cause__ or BadHttpMessage("")
            return next(
                (told for kind, told in BROKEN if isinstance(cause, kind)), "the body is not complete"
            )
        case OSError():
            return str(error) or type(error).__name__
        case UnicodeError():
            return "the address has a host name that does not exist"
        case _:
            return type(error).__name__


class ProxiedByEnvironment(aiohttp.ClientRequest):
    """A request through the proxy that the environment names for its address, if there is one.

    The `trust_env` of aiohttp would read passwords from `.netrc` as well, and send them to any host.
    """

    def __init__(self, method: str, url: URL, *, proxy: URL | None = None, **options: Any) -> None:
        if proxy is None and (found := find_proxy(str(url))) is not None:
            proxy = URL(found)
        super().__init__(method, url, proxy=proxy, **options)
