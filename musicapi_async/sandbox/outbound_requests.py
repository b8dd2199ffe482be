"""The requests that the sandbox itself sends, for uploads and webhooks: to this machine only.

One rule is for both: its own address is always allowed, other ports of this machine if `local_ports` is, and
nothing else. What may not be reached is in the journal, with the fault `not_allowed`.
"""

from __future__ import annotations

import logging
import ssl
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import anyio

from ..options import LOOPBACK

UPLOAD_BYTES: Final = 100 * 1024 * 1024
"""Bytes of the largest file that is fetched: 8 minutes of stereo WAV at 48 kHz are 92 MB."""

FETCHES: Final = 4
"""Files that are fetched at the same time, so that as many times `UPLOAD_BYTES` are in memory at most."""

TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=10.0)
"""Real seconds. No total: it would count the wait for a connection, where many webhooks are due at once."""

FILE_TIMEOUT: Final = aiohttp.ClientTimeout(total=120.0, sock_connect=5.0, sock_read=10.0)
"""Real seconds; the total ends a file that comes drop by drop."""

NOT_ALLOWED: Final = "not_allowed"
"""The `fault` in the journal of a webhook or an upload that was not tried."""

HERE_ONLY: Final = "The sandbox fetches files from this machine only."
OTHER_PORTS: Final = (
    "The sandbox fetches files from other ports of this machine only if it is started with --local-ports."
)
SKIPPED: Final = (
    "webhooks to %s://%s are skipped: the sandbox sends them to other ports of this machine only if it is "
    "started with --local-ports"
)

_log = logging.getLogger("musicapi_async.sandbox")


class NotAccessible(Exception):
    """The file cannot be fetched; the text says why, if it is the sandbox that does not try."""


class OutboundRequests:
    """One HTTP session for everything that leaves the sandbox; opened when first needed."""

    def __init__(self, *, local_ports: bool = True) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._local_ports: Final = local_ports
        self._has_warned = False
        self._fetches = anyio.Semaphore(FETCHES)
        self._origin = self._local = ""
        self._tls: ssl.SSLContext | None = None

    def know(self, origin: str, local: str, tls: ssl.SSLContext | None) -> None:
        """Learn under which address the sandbox has its own files, and the local one that leads there."""
        self._origin, self._local, self._tls = origin, local, tls

    def allows(self, url: str) -> bool:
        """Return True if the sandbox may connect there."""
        return self._own(url) is not None or (self._local_ports and urlsplit(url).hostname in LOOPBACK)

    def warn_of_skipped(self, url: str) -> None:
        """Log, once, that a webhook to another port of this machine is skipped: its sender waits for it."""
        parts = urlsplit(url)
        if parts.hostname in LOOPBACK and not self._has_warned:
            self._has_warned = True
            _log.warning(SKIPPED, parts.scheme, parts.netloc)

    def _own(self, url: str) -> str | None:
        """Return the address under which the sandbox reaches a link of its own; None for any other."""
        for address in (self._origin, self._local):
            if address and url.startswith(address + "/"):
                return self._local + url.removeprefix(address)
        given, local = urlsplit(url), urlsplit(self._local)
        if given.hostname in LOOPBACK and given.port is not None and given.port == local.port:
            return given._replace(scheme=local.scheme, netloc=local.netloc).geturl()
        return None

    async def fetch(self, url: str) -> bytes:
        """Return the file at `url`: HEAD first, as the service does, then GET; raises NotAccessible."""
        if not self.allows(url):
            raise NotAccessible(OTHER_PORTS if urlsplit(url).hostname in LOOPBACK else HERE_ONLY)
        async with self._fetches:
            return await self._fetch(self._own(url) or url)

    async def _fetch(self, url: str) -> bytes:
        try:
            async with self._open().head(url, allow_redirects=False, timeout=FILE_TIMEOUT) as head:
                if head.status != 200:
                    raise NotAccessible
            async with self._open().get(url, allow_redirects=False, timeout=FILE_TIMEOUT) as reply:
                if reply.status != 200:
                    raise NotAccessible
                data = bytearray()
                async for chunk in reply.content.iter_chunked(1 << 18):
                    data += chunk
                    if len(data) > UPLOAD_BYTES:
                        raise NotAccessible
                return bytes(data)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise NotAccessible from error

    async def deliver(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Post a webhook; returns the status of the response, 0 if there was none."""
        try:
            async with self._open().post(url, data=body, headers=headers, allow_redirects=False) as reply:
                await reply.content.read(1 << 16)
                return reply.status
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
            return 0

    async def close(self) -> None:
        """Close the session, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls or True),
                timeout=TIMEOUT,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session
