"""Requests to the hosts of files: links byte for byte as they came, redirects included, and packed bodies.

Links are often signed, and a signature covers every byte: `%2F` and `/` are not the same to it. So nothing is
decoded or encoded again; only what no request line can hold is encoded.

A service that fetches links from its users must not be led into its own network. With `public_connector`
each connection is checked at the address that it really goes to, whatever the host was called and however
often its name is resolved; so redirects, numeric forms, and names whose address changes are covered.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import re
import socket
import string
import zlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
from yarl import URL

from ..errors import DownloadError
from .links import shown_link

MOST_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
NO_LINK: Final = "Give an http link, clips, or the result of a task."
PIECE: Final = 256 * 1024
"""Bytes that are unpacked at once, whatever a packed body holds."""
ERROR_BYTES: Final = 4096
"""Bytes of an error's body that are read."""
ERROR_SECONDS: Final = 5.0
"""Seconds that are waited for the body of an error."""
LINE: Final = 200
"""Characters of an error's first line that are displayed."""
MARKUP: Final = re.compile(r"<(style|script)\b.*?</\1\s*>|<[^<>]*>", re.DOTALL | re.IGNORECASE)


# --- links -------------------------------------------------------------------------------------------------


def url_of(link: str) -> URL:
    """The URL that is requested for a link: its path and query as they are.

    Raises `ValueError` if it is no http link. A host in other letters is written in IDNA; spaces, control
    characters and letters beyond ASCII, which no request line can hold, are percent-encoded.
    """
    parts = urlsplit(link)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http link")
    origin = URL(f"{parts.scheme}://{parts.netloc}")
    labels = (origin.raw_host or "").removesuffix(".").split(".")
    if ":" not in (origin.raw_host or "") and not all(0 < len(label) < 64 for label in labels):
        raise ValueError("the host has an empty label, or one of more than 63 characters")  # RFC 1035, 2.3.4
    query = f"?{_sendable(parts.query)}" if parts.query else ""
    return URL(f"{parts.scheme}://{origin.raw_authority}{_sendable(parts.path) or '/'}{query}", encoded=True)


def _sendable(text: str) -> str:
    return quote(text, safe=string.punctuation, errors="surrogateescape")


def malformed(target: str, link: str) -> DownloadError:
    """The error for a link that cannot be requested, or that is redirected to such a target."""
    shown = f"'{shown_link(target)}'"
    if target == link:
        return DownloadError(f"not a link that can be fetched: {shown}", url=link, hint=NO_LINK)
    return DownloadError(f"redirected to what cannot be fetched: {shown}", url=link)


@contextlib.asynccontextmanager
async def opened(
    session: aiohttp.ClientSession, link: str, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
) -> AsyncGenerator[aiohttp.ClientResponse, None]:
    """Request a link, follow its redirects, and yield the last response, whatever its status.

    Raises `DownloadError` for what will not change: a malformed link, a redirect to one, too many of them, an
    address that is forbidden. All else is as aiohttp raises it.
    """
    target = link
    for _ in range(MOST_REDIRECTS + 1):
        try:
            url = url_of(target)
            response = await session.get(url, headers=headers, timeout=timeout, allow_redirects=False)
        except ValueError as error:  # of yarl, of aiohttp, and of the IDNA codec while the name is resolved
            raise malformed(target, link) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _PrivateAddressError):
                raise DownloadError(
                    f"{error.host!r} is at a private or loopback address",
                    url=link,
                    hint="This client fetches public links only: forbid_private_addresses is on.",
                ) from None
            raise
        async with response:
            location = response.headers.get("Location")
            if response.status not in REDIRECTS or location is None:
                yield response
                return
        try:
            target = urljoin(str(url), location)
        except ValueError as error:
            raise malformed(location, link) from error
    raise DownloadError(f"more than {MOST_REDIRECTS} redirects", url=link)


# --- addresses ---------------------------------------------------------------------------------------------


class _PrivateAddressError(OSError):
    """A connection that is not made."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "a private or loopback address")


EMBEDDED: Final = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b::/96")))
"""IPv6 networks whose last 32 bits are an IPv4 address (RFC 4291, 2.5.5.1; RFC 6052, 2.1)."""


def is_public(address: str) -> bool:
    """Return True if an IP address is one of the public internet, whichever form it has."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and any(ip in network for network in EMBEDDED):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, place = address
    if not is_public(str(place[0])):
        raise _PrivateAddressError
    return socket.socket(family, kind, protocol)


def connector(limit: int, keep_alive: float, *, public_only: bool) -> aiohttp.TCPConnector:
    """Connections to hosts of files; with `public_only` none to a private or loopback address."""
    return aiohttp.TCPConnector(
        limit=limit,
        keepalive_timeout=keep_alive,
        socket_factory=_public_socket if public_only else None,
    )


# --- bodies ------------------------------------------------------------------------------------------------


UNPACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
PACKINGS: Final = UNPACKED | {"compress", "x-compress", "br", "zstd", "dcb", "dcz"}
"""The content codings that are registered (IANA, HTTP Content Coding Registry) and change the bytes."""
GZIP: Final = b"\x1f"
"""The first byte of gzip (RFC 1952, 2.3.1)."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class Unpacker:
    """Unpacks a body that a host packed although it was asked not to; anything else passes as it is.

    `packed` is True if the host says that it packed the body. Raises `ValueError` for a packing that is not
    known, and `zlib.error` for data that is damaged. Words that name no packing, such as 'binary', and 'gzip'
    of what is none stand on files that were stored with wrong labels, and are not believed.
    """

    def __init__(self, encoding: str) -> None:
        words = [word.strip().lower() for word in encoding.split(",")]
        packings = [word for word in words if word in PACKINGS]
        if len(packings) > 1 or not UNPACKED.issuperset(packings):
            raise ValueError(f"packed as {encoding[:40]!r}")
        self.packed: Final = bool(packings)
        self._deflate: Final = packings == ["deflate"]
        self._plain = not packings
        self._current: _Decompressor | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the body has come to its own end."""
        return self._plain or (self._current is not None and self._current.eof)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The content of the next bytes, in pieces of a bounded size."""
        if self._current is None and not self._deflate and data and data[:1] != GZIP:
            self._plain = True
        if self._plain:
            yield data
            return
        piece = b""
        while data or len(piece) == PIECE:  # after a full piece there may be more, with all data taken in
            if self._current is None:
                self._current = zlib.decompressobj(self._window(data))
            elif self._current.eof:
                if self._deflate or data[:1] != GZIP:
                    return  # nothing, or padding after the end, as gzip allows
                self._current = zlib.decompressobj(self._window(data))
            piece = self._current.decompress(data, PIECE)
            yield piece
            data = self._current.unused_data if self._current.eof else self._current.unconsumed_tail

    def _window(self, data: bytes) -> int:
        if not self._deflate:
            return 16 + zlib.MAX_WBITS
        # "deflate" is the zlib format (RFC 9110, 8.4.1.2), but some send the bare one.
        return zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS


async def first_line(response: aiohttp.ClientResponse) -> str:
    """The first line of text in an error's body, as it may be displayed; '' if there is none."""
    text = bytearray()
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError, zlib.error):
        unpacker = Unpacker(response.headers.get("Content-Encoding", ""))
        async with asyncio.timeout(ERROR_SECONDS):
            async for chunk in response.content.iter_any():
                for piece in unpacker.feed(chunk):
                    text += piece[:ERROR_BYTES]
                    if len(text) >= ERROR_BYTES:
                        return line_of(text)
    return line_of(text)


def line_of(data: bytes | bytearray) -> str:
    """The first line of `data` that holds words, without markup and control characters."""
    text = MARKUP.sub("\n", data[:ERROR_BYTES].decode("utf-8", "replace"))
    for line in text.splitlines():
        shown = " ".join("".join(c if c.isprintable() else " " for c in line).split())
        if any(c.isalnum() for c in shown):  # "{}" tells nothing
            return shown if len(shown) <= LINE else f"{shown[: LINE - 1]}…"
    return ""
