"""HTTP: one attempt to send a request, and the connections of an event loop.

Three aiohttp sessions, opened when first needed, one set per event loop and process:

- *api* for polls and free calls, on connections that stay open. aiohttp's default keep-alive of 15 s is just
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
import os
import ssl
from collections.abc import Mapping
from functools import lru_cache, partial
from http.cookies import BaseCookie, SimpleCookie
from typing import TYPE_CHECKING, Any, Final

import aiohttp
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

from .._wire import base_url_hints, codec
from .._wire.prepare import PreparedRequest
from .._wire.redaction import Redactor
from .._wire.response import Response, excerpt, read_response
from ..clock import Clock
from ..errors import (
    APIConnectionError,
    ConnectFailedError,
    ConnectionLostError,
    InvalidResponseError,
    MusicAPIError,
    RequestTimeoutError,
)
from ..options import BODY_LIMIT, CONNECT_TIMEOUT, find_proxy, is_loopback
from ..request_headers import USER_AGENT, secrets_in
from . import media_requests
from .attempts import CLOSED_HINT, Departure
from .private_addresses import public_socket
from .time_limits import TimeLimits

if TYPE_CHECKING:
    import ssl

POOL: Final = 64
"""Connections of a pool; the limiter's lanes queue in front of it: a queue in the pool gave tails of 1 s."""
KEEP_ALIVE: Final = 75.0
"""Seconds that a free connection stays open: more than the longest interval between two polls (60 s)."""
SOCKET_FLOOR: Final = 10.0
"""Real seconds below which no time-out is scaled: a busy machine needed over 2 to answer 60 creates."""
CONNECTING: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
"""The only time-out that aiohttp watches: its time-outs for reading set two timers per call."""
HEADER_LIMIT: Final = 64 * 1024
"""Bytes of the longest status or header line that is read; aiohttp's own 8,190 are too few for signed cookies
and security policies of gateways, and what it refuses to read is lost."""
MOST_URLS: Final = 1024
"""Addresses of tasks that are cached: 0.6 MB at most."""
CERTIFICATE_HINT: Final = (
    "If the host, or a proxy of your network, has a certificate of a private authority, name the file of "
    "that authority in the environment variable SSL_CERT_FILE before Python starts, or pass "
    "MusicAPI(ssl=ssl.create_default_context(cafile=...))."
)
"""The hint of the errors for a certificate that cannot be verified."""

NETWORK_HINT: Final = "Check the network. Nothing was sent, so the call may be repeated."
"""The hint where the base URL is one of the service, and so is right."""
PROXY_HINT: Final = "Check the proxy. Nothing was sent, so the call may be repeated."
UNUSED_PROXY_HINT: Final = (
    "The environment names a proxy, which is used only with MusicAPI(trust_env=True). Nothing was sent, so "
    "the call may be repeated."
)
"""Other clients of HTTP use such a proxy by default."""


class _NoCookies(aiohttp.DummyCookieJar):
    """Keeps no cookies. That of aiohttp makes a new, empty collection of them for each request."""

    def __init__(self) -> None:
        super().__init__()
        self._none: Final = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> BaseCookie[str]:
        """Return the same empty collection each time."""
        return self._none


class _PaidBody(aiohttp.BytesPayload):
    """The body of a paid call, which announces that it leaves.

    aiohttp writes the headers together with the body, so this is called when the connection is open and not
    one byte has left, in a session of ours and in one that was given. A second call would send the request
    twice: a middleware of a given session may try that, and is stopped.
    """

    def __init__(self, body: bytes, departure: Departure) -> None:
        super().__init__(body, content_type="application/json")
        self._departure: Final = departure

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Wait until the request may leave, and write it."""
        if self._departure.sent:
            raise RuntimeError("a paid call is sent once")
        await self._departure.leaving()
        transport = writer.transport
        try:
            await super().write_with_length(writer, content_length)
        except asyncio.CancelledError:
            # aiohttp closes the connection, which would wait for a server that does not read the rest.
            if transport is not None:
                transport.abort()
            raise


class Session:
    """The connections of one event loop. A `Transport`."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        clock: Clock,
        given: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        user_agent: str = USER_AGENT,
        forbid_private_addresses: bool = False,
        redactor: Redactor | None = None,
        body_limit: int = BODY_LIMIT,
        responding: set[str] | None = None,
    ) -> None:
        self._headers: Final = {
            "Authorization": f"Bearer {api_key}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": user_agent,
            **(headers or {}),
        }
        # Sessions of our own carry these by default, which is cheaper than merging them into each request.
        self._get_headers: Final = None if given is None else self._headers
        self._post_headers: Final = {**(self._get_headers or {}), "Content-Type": "application/json"}
        # A double of aiohttp's session does not call `_PaidBody` when it writes.
        self._announces: Final = given is None or _is_session(given)
        self.redactor: Final = redactor or Redactor([api_key])
        """Hides the key, and the secrets of requests, in texts."""
        self._base: Final = base_url
        self._clock: Final = clock
        self._proxy: Final = proxy
        self._trust_env: Final = trust_env
        self._ignores_proxies: Final = given is None and proxy is None and not trust_env
        self._ssl: Final = ssl_context
        self._forbid_private_addresses: Final = forbid_private_addresses
        self._body_limit: Final = body_limit
        self._responding: Final = set[str]() if responding is None else responding
        self._sessions: Final = {} if given is None else {"api": given, "create": given}
        self._opened: Final[list[aiohttp.ClientSession]] = []
        self._is_closed = False
        # Sockets do not run faster on a faster clock, hence the floor.
        self._limits: Final = TimeLimits(lambda limit: max(clock.real(limit), min(limit, SOCKET_FLOOR)))
        self._repaired: Final = codec.RepairLog(f"an answer of {base_url}")
        # yarl keeps the last 128; with more tasks than that each poll would parse its own again, for 3 µs.
        self._url: Final = lru_cache(maxsize=MOST_URLS)(partial(_address, base_url))

    def _open(self, name: str) -> aiohttp.ClientSession:
        """Open the session *api*, *create* or *media*.

        Raises `MusicAPIError` after `aclose`, when a free call repeats: no one would close the session.
        """
        if self._is_closed:
            raise MusicAPIError("the client was closed while the call was under way", hint=CLOSED_HINT)
        public_only = name == "media" and self._forbid_private_addresses
        connector = aiohttp.TCPConnector(
            limit=POOL,
            force_close=name == "create",
            ssl=True if self._ssl is None else self._ssl,
            keepalive_timeout=None if name == "create" else KEEP_ALIVE,
            socket_factory=public_socket if public_only else None,
        )
        session = self._sessions[name] = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=_NoCookies(),
            timeout=CONNECTING,
            request_class=ProxiedByEnvironment if self._trust_env else aiohttp.ClientRequest,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
            proxy=self._proxy,
            headers={"User-Agent": USER_AGENT} if name == "media" else self._headers,
            # Files are unpacked on purpose: lengths and ranges count the packed bytes.
            auto_decompress=name != "media",
        )
        self._opened.append(session)
        return session

    async def attempt(self, prepared: PreparedRequest, departure: Departure) -> Response:
        """Send a request once and return the response, of any status.

        Args:
            prepared: the request.
            departure: is called for a paid call when its connection is open, before its first byte leaves.

        Raises:
            ConnectFailedError: nothing was sent.
            RequestTimeoutError: no response within `prepared.attempt_timeout` seconds.
            ConnectionLostError: the connection dropped after sending may have begun.
            InvalidResponseError: the body is over the limit.
        """
        # Nothing of aiohttp hangs on an error, not even as its context: its errors hold the key, passwords of
        # proxies and what the peer sent, and they do not pickle.
        try:
            status, headers, raw = await self._exchange(prepared, departure)
        except _TooLarge as large:
            failure: MusicAPIError = InvalidResponseError(
                f"the answer is larger than {self._body_limit} bytes",
                status=large.status,
                body=excerpt(large.beginning, self.redactor),
                call=prepared.call,
                may_have_been_charged=prepared.kind == "create",
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = self._failure_of(error, prepared, sent=departure.sent)
        else:
            if status < 500:
                self._responding.add(self._base)
            return read_response(
                status, headers, raw, self.redactor, now=self._clock.time, repaired=self._repaired
            )
        raise failure

    async def _exchange(
        self, prepared: PreparedRequest, departure: Departure
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send the request and read the whole response."""
        data: bytes | _PaidBody | None = prepared.body
        headers = self._get_headers if data is None else self._post_headers
        if prepared.headers is not None:
            headers = {**(headers or {}), **prepared.headers}
            self.redactor.learn(secrets_in(prepared.headers))
        if prepared.kind != "create":
            session = self._sessions.get("api") or self._open("api")
        else:
            session = self._sessions.get("create") or self._open("create")
            if self._announces:
                data = _PaidBody(prepared.body or b"", departure)
            else:
                await departure.leaving()
        with self._limits.within(prepared.attempt_timeout):
            # Not `async with`: its exit releases once more what a body that was read has released (4 µs).
            response = await session.request(
                prepared.method,
                self._url(prepared.path),
                params=prepared.params,
                data=data,
                headers=headers,
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

    def _failure_of(self, error: Exception, prepared: PreparedRequest, *, sent: bool) -> APIConnectionError:
        """Return the error of an attempt without a response; its class says if anything was sent."""
        reason = self.redactor.line(reason_of(error))
        unsent = prepared.kind == "create" and not sent
        hint = NETWORK_HINT if base_url_hints.is_of_service(self._base) else ""
        match error:
            case aiohttp.ClientConnectorCertificateError():
                text, unsent, hint = f"no connection to {self._base}: {reason}", True, CERTIFICATE_HINT
            case aiohttp.ClientProxyConnectionError():
                text, unsent, hint = f"no connection to {self._base}: {reason}", True, PROXY_HINT
            case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
                text, unsent = f"no connection to {self._base}: {reason}", True
                if self._ignores_proxies and not is_loopback(URL(self._base).host) and find_proxy(self._base):
                    hint = UNUSED_PROXY_HINT
            case aiohttp.InvalidURL() | UnicodeError():
                text, unsent = f"{self._base} cannot be called: {reason}", True
            case aiohttp.ClientHttpProxyError():
                text, unsent, hint = f"the proxy refused: HTTP {error.status}", True, PROXY_HINT
            case TimeoutError():
                text = f"no answer within {prepared.attempt_timeout:g} s"
                if not unsent:
                    return RequestTimeoutError(text, sent=True, call=prepared.call)
            case aiohttp.ClientResponseError():
                # From aiohttp's parser: the status that it carries is not the server's.
                return APIConnectionError(
                    f"the answer breaks the rules of HTTP and was not read: {reason}",
                    sent=True,
                    call=prepared.call,
                )
            case _ if unsent:
                text = f"the connection failed before anything was sent: {reason}"
            case _:
                text = f"the connection dropped: {reason}"
        if unsent:
            return ConnectFailedError(text, sent=False, call=prepared.call, hint=hint)
        return ConnectionLostError(text, sent=None, call=prepared.call)

    @property
    def host_responds(self) -> bool:
        """Return True once the host has given any response below 500."""
        return self._base in self._responding

    def media(
        self, url: str, headers: Mapping[str, str], read_timeout: float
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Open a media link, following redirects, without the key; see `media_requests.opened`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=read_timeout)
        session = self._sessions.get("media") or self._open("media")
        return media_requests.opened(session, url, headers, timeout)

    async def aclose(self) -> None:
        """Close what was opened here; a given session stays open."""
        self._is_closed = True
        self._sessions.clear()
        self._limits.close()
        for session in self._opened:
            await session.close()
        if self._opened:
            # One turn of the loop lets the transports finish, so that nothing warns about them.
            await asyncio.sleep(0)
        self._opened.clear()


def _address(base_url: str, path: str) -> URL:
    return URL(base_url + path, encoded=True)


class _TooLarge(Exception):
    """A body is over the limit; `beginning` is its first part."""

    def __init__(self, status: int, beginning: bytes) -> None:
        super().__init__()
        self.status = status
        self.beginning = beginning


async def _rest(first: bytes, response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the whole body that begins with `first`. Raises `_TooLarge` if it is over the limit."""
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
"""Errors of the parser of aiohttp, in words of our own."""


def _is_session(session: object) -> bool:
    """Return True for a session of aiohttp, which calls `_PaidBody` when it writes."""
    return isinstance(session, aiohttp.ClientSession)


def reason_of(error: BaseException) -> str:
    """Return the failure of a connection, in words of our own or of the system.

    The texts of aiohttp may hold what the peer sent (cut in the middle of a secret), and addresses with
    their queries and passwords.
    """
    match error:
        case aiohttp.TooManyRedirects():
            return "too many redirects"
        case aiohttp.InvalidURL():
            return "not an address that can be called"
        case aiohttp.ClientConnectorCertificateError():
            why = error.certificate_error
            return f"the certificate of {error.host} is not valid here: {getattr(why, 'verify_message', why)}"
        case aiohttp.ClientConnectorError():  # its own text names the host, which the caller names, too
            failed = error.os_error
            number = 0 if isinstance(failed, ssl.SSLError) else failed.errno or 0
            text = os.strerror(number) if number > 0 else failed.strerror or str(failed)
            is_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
            return f"the proxy {error.host}:{error.port}: {text}" if is_proxy else text
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            cause: BaseException | None = error.__cause__
            while isinstance(cause, HttpProcessingError) and type(cause) is HttpProcessingError:
                cause = cause.__cause__ or BadHttpMessage("")
            return next(
                (text for kind, text in BROKEN if isinstance(cause, kind)), "the body is not complete"
            )
        case OSError():
            return error.strerror or str(error) or type(error).__name__
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
