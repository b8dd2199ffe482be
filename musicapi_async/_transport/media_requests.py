"""Requests to the hosts of files: links byte for byte as they came, redirects included, and packed bodies.

Links are often signed, and a signature covers every byte: `%2F` and `/` are not the same to it. So nothing is
decoded or encoded again; only what no request line can hold is encoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import string
import zlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import Final, Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

import aiohttp
from yarl import URL

from .._wire.redaction import Redactor
from ..errors import DownloadError
from .links import parts_of, printable
from .private_addresses import PrivateAddressError

MOST_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
NO_LINK: Final = "Give an http link, clips, or the result of a task."
PIECE: Final = 256 * 1024
"""Bytes that are unpacked at once, however much a packed body holds."""
ERROR_BYTES: Final = 4096
"""Bytes of an error's body that are read."""
ERROR_SECONDS: Final = 5.0
"""Seconds that are waited for the body of an error."""
LINE: Final = 200
"""Characters of an error's first line that are displayed."""
MARKUP: Final = re.compile(r"<(style|script)\b.*?</\1\s*>|<[^<>]*>", re.DOTALL | re.IGNORECASE)


def url_of(link: str) -> URL:
    """Return the URL that is requested for a link: its path and query as they are.

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
    """Return the error for a link that cannot be requested, or that is redirected to such a target."""
    quoted = f"'{printable(target)}'"
    if target == link:
        return DownloadError(f"not a link that can be fetched: {quoted}", url=link, hint=NO_LINK)
    return DownloadError(f"redirected to a link that cannot be fetched: {quoted}", url=link)


@contextlib.asynccontextmanager
async def opened(
    session: aiohttp.ClientSession, link: str, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
) -> AsyncGenerator[aiohttp.ClientResponse, None]:
    """Request a link, follow its redirects, and yield the last response, of any status.

    Raises `DownloadError` for what will not change: a malformed link, a redirect to one, too many of them, an
    address that is forbidden. All else is as aiohttp raises it.
    """
    target = link
    for _ in range(MOST_REDIRECTS + 1):
        try:
            url = url_of(target)
            response = await session.get(url, headers=headers, timeout=timeout, allow_redirects=False)
        except aiohttp.ClientConnectorError as error:  # before `ValueError`, which one for a certificate is
            if isinstance(error.os_error, PrivateAddressError):
                raise DownloadError(
                    f"{error.host!r} is at a private or loopback address",
                    url=link,
                    hint="This client fetches public links only: forbid_private_addresses is on.",
                ) from None
            raise
        except ValueError as error:  # of yarl, of aiohttp, and of the IDNA codec while the name is resolved
            raise malformed(target, link) from error
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
    """Unpacks a body that a host packed although the request forbade it; anything else passes as it is.

    `packed` is True if the host says that it packed the body. Raises `ValueError` for a packing that is not
    known, and `zlib.error` for data that is damaged. Files that were stored with wrong labels come with words
    that name no packing, such as 'binary', or with 'gzip' of bytes that are not: neither is believed.
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
        """Return True once the body has come to its own end."""
        return self._plain or (self._current is not None and self._current.eof)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the content of the next bytes, in pieces of a bounded size."""
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


async def first_line(response: aiohttp.ClientResponse, link: str) -> str:
    """Return the first line of text in an error's body, fit for display; '' if there is none."""
    links = (link, str(response.url))
    text = bytearray()
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError, zlib.error):
        unpacker = Unpacker(response.headers.get("Content-Encoding", ""))
        async with asyncio.timeout(ERROR_SECONDS):
            async for chunk in response.content.iter_any():
                for piece in unpacker.feed(chunk):
                    text += piece[:ERROR_BYTES]
                    if len(text) >= ERROR_BYTES:
                        return line_of(text, links)
    return line_of(text, links)


def line_of(data: bytes | bytearray, links: Iterable[str]) -> str:
    """Return the first line of `data` that holds words, without markup and control characters.

    Hosts repeat what was requested, so the values in the queries of `links`, signatures for one, are hidden.
    """
    queries = re.split("[&;]", "&".join(parts_of(link).query for link in links))
    hidden = Redactor(unquote(query.partition("=")[2] or query) for query in queries)
    page = MARKUP.sub("\n", hidden.text(data[:ERROR_BYTES].decode("utf-8", "replace")))
    for line in page.splitlines():
        text = " ".join("".join(c if c.isprintable() else " " for c in line).split())
        if any(c.isalnum() for c in text):  # "{}" says nothing
            return text if len(text) <= LINE else f"{text[: LINE - 1]}…"
    return ""
