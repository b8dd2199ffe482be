"""Fetch finished files: only complete files get their name; downloads are checked, resumed, and without key.

The file of a succeeded clip may not be on the CDN yet, so first refusals are expected and repeated. HEAD is
not reliable on these hosts, so the file is fetched with GET. The bytes are written to `<name>.part`,
checked, synced, and then renamed. The checks are: the length, or, if none was sent, the end of the file; the
first bytes; and the header, which must be decodable. A later try or call continues the `.part` if the note
beside it has the same link and the response proves that the file is the same (`partial_file.py`).

An existing file is considered that of a clip only if its name contains the clip's id. A file with another
name may be another song: the file is fetched, and if its content differs, the next free name is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from weakref import WeakValueDictionary

import aiohttp
import anyio
import anyio.to_thread
import msgspec

from .._error_base import results_of
from .._wire import retry
from ..api.results import Clip
from ..clock import Clock
from ..errors import DownloadError
from ..file_names import check_pattern, holds_id, name_of
from ..files import sync
from . import partial_file as parts
from .audio_tags import COVER_LIMIT, COVER_TIME, FileTags, Tagger, has_album
from .finished_file import Retry, check_end, finish, name_file, open_part
from .links import Link, printable
from .media_requests import Unpacker, first_line, malformed, url_of
from .observer import Observer
from .rate_limiter import RateLimiter
from .session import CERTIFICATE_HINT, Session, reason_of

log: Final = logging.getLogger("musicapi_async")

TRIES: Final = 6
"""Tries within about a minute: files reach the CDN some seconds after their task ends."""
FIRST_RETRY_PAUSE: Final = 2.0
LONGEST_RETRY_PAUSE: Final = 30.0
CHUNK: Final = 256 * 1024
"""Bytes written at once; 16 KiB chunks write at a fifth of the speed (measured)."""
READ_TIMEOUT: Final = 60.0
"""Real seconds for the head of the response, and for the next byte."""
LEAST: Final = 256 * 1024
"""Bytes that must come in each minute, else the try has failed: 35 kbit/s, the rate of GPRS."""
SIZE_LIMIT: Final = 1024**3
"""Bytes; a song of eight minutes as WAV is 90 MB."""
PASSING: Final = frozenset({408, 425, 429})
"""Statuses below 500 that say that a later request may succeed."""
LATE: Final = frozenset({403, 404})
"""The statuses of a CDN for a file that it does not have yet."""
GONE: Final = frozenset({401, 403, 404, 410})
"""The statuses of hosts of files for a link that has expired."""


class _Body(NamedTuple):
    """The body of a response: its offset in the file, the length of the file if it was sent, and the content
    coding. The length of a compressed file is the compressed one.
    """

    start: int
    total: int | None
    unpacker: Unpacker


class _Work:
    """The work for one file: the tries so far, and its bytes once it was fetched."""

    def __init__(self) -> None:
        self.tries = 0
        self.size: int | None = None


class Downloader:
    """Fetches files over the media session of an event loop."""

    def __init__(
        self, session: Session, limiter: RateLimiter, clock: Clock, draw: retry.Draw, observer: Observer
    ) -> None:
        self._observer: Final = observer
        self._session: Final = session
        self._limiter: Final = limiter
        self._clock: Final = clock
        self._draw: Final = draw
        self._locks: Final[WeakValueDictionary[str, asyncio.Lock]] = WeakValueDictionary()
        """One for each file under way. A fetch that waits for one refers to it, so it exists until then."""
        self._naming: Final = asyncio.Lock()

    async def fetch_all(
        self,
        links: Sequence[Link],
        folder: Path,
        pattern: str,
        deadline: float | None = None,
        tags: FileTags | None = None,
    ) -> list[Path]:
        """Fetch files at once, as many as the lane allows; the paths in the order of `links`.

        All are tried; then the first error is raised, with every whole file in place. After `deadline`
        seconds, waits included, all end; partial files that can be continued stay for the next call.
        With `tags`, files of clips get tags.
        """
        check_pattern(pattern)
        taken: dict[str, set[str]] = {}
        names = [name_of(link, index, pattern, taken) for index, link in enumerate(links)]

        async def fetch(index: int, link: Link, name: str) -> Path:
            owned = link.clip is not None and holds_id(name, link.clip_id, pattern)
            if tags is None or link.clip is None:
                return await self.fetch(link, folder / name, owned=owned)
            filled = msgspec.structs.replace(tags, track=tags.track or index + 1)
            return await self._fetch_tagged(link, folder / name, owned, Tagger(link.clip, filled))

        work = [fetch(index, *pair) for index, pair in enumerate(zip(links, names, strict=True))]
        try:
            async with asyncio.timeout(None if deadline is None else self._clock.real(deadline)):
                done = await asyncio.gather(*work, return_exceptions=True)
        except TimeoutError as error:
            raise DownloadError(
                f"the deadline of {deadline:g} s passed",
                path=str(folder),
                hint="Raise deadline with client.with_options(...) and download again, which is free.",
            ) from error
        return results_of(done)

    async def _fetch_tagged(self, link: Link, path: Path, owned: bool, tagger: Tagger) -> Path:
        """Fetch a link with tags; a file that is there gets them, unless it has an album."""
        there = await anyio.to_thread.run_sync(parts.whole_file, path, link.extension) if owned else None
        if there is not None and await anyio.to_thread.run_sync(has_album, there):
            return there
        if tagger.tags.cover is None:
            cover = await self._cover(tagger.clip)
            tagger = tagger._replace(tags=msgspec.structs.replace(tagger.tags, cover=cover))
        if there is None:
            return await self.fetch(link, path, owned=owned, tagger=tagger)
        await anyio.to_thread.run_sync(tagger.add, there)
        return there

    async def _cover(self, clip: Clip) -> bytes:
        """Return the cover of a clip; nothing, with a warning in the log, for one that cannot be had soon."""
        if not clip.image_url:
            return b""
        folder = anyio.Path(await anyio.to_thread.run_sync(tempfile.mkdtemp))
        try:
            link = Link(clip.image_url)
            path = anyio.Path(await self.fetch(link, Path(folder / "cover"), limit=COVER_TIME))
            return await path.read_bytes() if (await path.stat()).st_size <= COVER_LIMIT else b""
        except DownloadError as error:
            log.warning("no cover of clip %s: %s", clip.clip_id, error.message)
            return b""
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # small, and a cancelled task may be unable to wait

    def _lock(self, path: Path) -> asyncio.Lock:
        """Return the lock of a file, however its path is written."""
        return self._locks.setdefault(os.path.abspath(path), asyncio.Lock())

    async def fetch(
        self,
        link: Link,
        path: Path,
        *,
        owned: bool = True,
        tagger: Tagger | None = None,
        limit: float | None = None,
    ) -> Path:
        """Fetch a link to `path` plus the extension that its content speaks for; returns the whole path.

        With an extension of the link, files of other formats may exist beside it under the same name.
        `owned`: no other file can have this name, so one that is there is the one; else the name may get a
        number. The file has the tags of `tagger` before it has its name. `limit`: real seconds for all tries,
        without the wait for the lane.
        """
        try:
            url_of(link.url)
        except ValueError as error:
            raise malformed(link.url, link.url) from error
        try:
            async with self._lock(path), self._limiter.slot("media"), asyncio.timeout(limit):
                return await self._observed(link, path, owned, tagger)
        except DownloadError as error:
            # The causes are errors of aiohttp, which hold signed addresses and do not pickle.
            error.__cause__ = error.__context__ = None
            raise
        except OSError as error:
            if limit is not None and isinstance(error, TimeoutError):
                raise DownloadError(f"it did not come in {limit:g} s", url=link.url) from None
            raise DownloadError(
                f"could not write {error.filename or path}: {error.strerror or error}",
                url=link.url,
                path=str(path),
                hint="Fix the folder or the disk and download again, which is free.",
            ) from error

    async def _observed(self, link: Link, path: Path, owned: bool, tagger: Tagger | None) -> Path:
        """Fetch a link and deliver how that ended, if anything came or was tried."""
        since, work = self._clock.now(), _Work()
        made, failure = path, None
        try:
            made = await self._fetch(link, path, owned, work, tagger)
        except BaseException as error:
            failure = error
            raise
        finally:
            if self._observer.is_active and (failure is not None or work.size is not None):
                self._observer.downloaded(
                    printable(link.url),
                    made,
                    tries=work.tries,
                    since=since,
                    size=work.size or 0,
                    error=failure,
                )
        return made

    async def _fetch(self, link: Link, path: Path, owned: bool, work: _Work, tagger: Tagger | None) -> Path:
        pauses = retry.delays(FIRST_RETRY_PAUSE, LONGEST_RETRY_PAUSE)
        part = parts.part_of(path, link.extension)
        while True:
            work.tries += 1
            # A previous call may have fetched it, or another process meanwhile.
            there = await anyio.to_thread.run_sync(parts.whole_file, path, link.extension) if owned else None
            if there is not None:
                return there
            try:
                written, source = await self._attempt(link, part)
                whole = await anyio.to_thread.run_sync(finish, written, part, link.url, source, tagger)
                async with self._naming:  # two files must not find the same name free
                    made = await anyio.to_thread.run_sync(name_file, whole, part, path, owned)
                work.size = written.st_size
                return made
            except Retry as failed:
                if failed.drop:
                    await anyio.to_thread.run_sync(parts.drop, part)
                if work.tries == TRIES:
                    raise DownloadError(
                        f"could not fetch {printable(link.url)} in {TRIES} tries: {failed}",
                        url=link.url,
                        path=str(path),
                        status=failed.status,
                        hint=_next_step(failed.status),
                    ) from failed
                floor = retry.retry_after_floor(failed.retry_after)
            finally:
                # Not in a thread, which a cancelled task may be unable to wait for; it is short.
                with contextlib.suppress(OSError):
                    parts.drop_useless(part, link.url, SIZE_LIMIT)
            await self._clock.sleep(max(retry.spread(next(pauses), 0.1, self._draw), floor))

    async def _attempt(self, link: Link, part: Path) -> tuple[os.stat_result, str]:
        """Fetch the missing bytes of a link into `part`, and check that it is whole.

        Returns the identity of `part`, and the link that its bytes came from.
        """
        url = link.url
        have, source = await anyio.to_thread.run_sync(parts.started, part, url, SIZE_LIMIT)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": source.validator}
        try:
            async with (
                asyncio.timeout(READ_TIMEOUT) as opening,
                self._session.media(url, headers, READ_TIMEOUT) as response,
            ):
                opening.reschedule(None)
                body = await _accept(response, have, url, self._clock.time())
                fresh = parts.source_of(url, response.headers, body.total)
                if body.start and not source.agrees(fresh):
                    raise Retry("the file at the link has changed", 206, drop=True)
                file = await anyio.to_thread.run_sync(open_part, part, body.start)
                try:
                    if not body.start:
                        # Ranges of a packed file are of the packed bytes, which are not stored.
                        noted = parts.source_of(url, {}) if body.unpacker.packed else fresh
                        await anyio.to_thread.run_sync(parts.note_source, part, noted)
                    await self._copy(response, file, body, url)
                    if body.total is None:
                        await anyio.to_thread.run_sync(check_end, file, link.duration)
                    return await anyio.to_thread.run_sync(sync, file), str(response.url)
                finally:
                    file.close()  # at once: a cancelled task may not be able to wait
        except DownloadError:  # no later call will continue the partial file
            await anyio.to_thread.run_sync(parts.drop, part)
            raise
        except aiohttp.ClientConnectorCertificateError as error:
            text = f"could not fetch {printable(url)}: {reason_of(error)}"
            raise DownloadError(text, url=url, hint=CERTIFICATE_HINT) from None
        except aiohttp.ClientError as error:
            raise Retry(reason_of(error)) from error
        except zlib.error as error:
            raise Retry(f"the packed file is damaged: {error}", drop=True) from error
        except TimeoutError as error:
            raise Retry(f"nothing came for {READ_TIMEOUT:g} s") from error

    async def _copy(self, response: aiohttp.ClientResponse, file: BinaryIO, body: _Body, url: str) -> None:
        came = size = body.start  # of what was sent, of what is written
        held = bytearray()
        loop = asyncio.get_running_loop()
        minute, had = loop.time() + 60, came  # of real time, as sockets know no other
        try:
            async for chunk in response.content.iter_any():
                came += len(chunk)
                if body.total is not None and came > body.total:
                    raise Retry(f"more than {body.total} bytes came", drop=True)
                for piece in body.unpacker.feed(chunk):
                    size += len(piece)
                    if size > SIZE_LIMIT:
                        raise DownloadError(f"more than {SIZE_LIMIT} bytes came", url=url)
                    held += piece
                    if len(held) >= CHUNK:
                        whole, held = held, bytearray()
                        await anyio.to_thread.run_sync(file.write, whole)
                if loop.time() >= minute:
                    if came - had < LEAST:
                        raise Retry(f"only {came - had} bytes came in a minute")
                    minute, had = loop.time() + 60, came
        finally:
            file.write(held)  # less than a chunk, and not lost when a slow or cut line ends the try
        if body.total is not None and came < body.total:
            raise Retry(f"only {came} of {body.total} bytes came")
        if not body.unpacker.is_whole:
            raise Retry("the packed file is cut off")


def _next_step(status: int | None) -> str:
    """Return the hint for a file that did not come, where the default does not help."""
    if status not in GONE:
        return ""
    return (
        "Links expire: poll the task once more for fresh ones, which is free, and download those: "
        "clips = await client.task(token).wait()."
    )


async def _accept(response: aiohttp.ClientResponse, have: int, url: str, now: float) -> _Body:
    """Decide what to do with a response; raises `Retry` or `DownloadError` if its body is not the file.

    Args:
        response: the response; of an error its first line is read.
        have: the bytes of the file that are there.
        url: the link, for errors.
        now: the Unix time, for a `Retry-After` with a date.
    """
    status = response.status
    if status not in (200, 206):
        line = await first_line(response, url)
        text = f"HTTP {status}" + (f": {line}" if line else "")
        if status >= 500 or status in PASSING:
            wait = retry.parse_retry_after(response.headers.get("Retry-After"), now)
            raise Retry(text, status, retry_after=wait)
        if have:  # some hosts refuse a request for a range, but not one for the whole file
            raise Retry(f"the server does not continue the partial file: {text}", status, drop=True)
        if status in LATE:
            raise Retry(text, status)
        text = f"HTTP {status} for {printable(url)}" + (f": {line}" if line else "")
        raise DownloadError(text, url=url, status=status, hint=_next_step(status))
    try:
        unpacker = Unpacker(response.headers.get("Content-Encoding", ""))
    except ValueError as error:
        raise DownloadError(
            f"the file came {error}, which was not requested", url=url, status=status
        ) from error
    start, total = 0, response.content_length
    if status == 206:
        said = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)", said)
        if match is None or int(match[1]) != have or unpacker.packed:
            raise Retry("the server sent another part than was requested", status, drop=True)
        start, total = have, None if match[2] == "*" else int(match[2])
    if total is not None and total > SIZE_LIMIT:
        raise DownloadError(f"the file has {total} bytes, more than {SIZE_LIMIT}", url=url, status=status)
    return _Body(start, total, unpacker)
