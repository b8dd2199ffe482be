"""The requests that the sandbox itself sends, to this machine only: for uploads and webhooks."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from ..options import LOOPBACK

UPLOAD_BYTES: Final = 100 * 1024 * 1024
"""Bytes of the largest file that is fetched: 8 minutes of stereo WAV at 48 kHz are 92 MB."""

TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=10.0)
"""Real seconds."""


class NotAccessible(Exception):
    """The file cannot be fetched."""


class OutboundRequests:
    """One HTTP session for everything that leaves the sandbox; opened when first needed."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._own = ("", "")
        self._tls: ssl.SSLContext | None = None

    def know(self, origin: str, local: str, tls: ssl.SSLContext | None) -> None:
        """Learn under which address the sandbox has its own files, and the local one that leads there."""
        self._own, self._tls = (origin + "/", local + "/"), tls

    def allows(self, url: str) -> bool:
        """Return True if the sandbox may connect there: to this machine."""
        return urlsplit(url).hostname in LOOPBACK

    async def fetch(self, url: str) -> bytes:
        """Return the file at `url`: HEAD first, as the service does, then GET; raises NotAccessible."""
        origin, local = self._own
        if origin and url.startswith(origin):
            url = local + url.removeprefix(origin)
        if not self.allows(url):
            raise NotAccessible(url)
        try:
            async with self._open().head(url, allow_redirects=False) as head:
                if head.status != 200:
                    raise NotAccessible(url)
            async with self._open().get(url, allow_redirects=False) as reply:
                if reply.status != 200:
                    raise NotAccessible(url)
                data = bytearray()
                async for chunk in reply.content.iter_chunked(1 << 18):
                    data += chunk
                    if len(data) > UPLOAD_BYTES:
                        raise NotAccessible(url)
                return bytes(data)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise NotAccessible(url) from error

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
