"""Fetch finished files: whole or not at all under their name, checked, resumed, and never with the key.

A clip that has succeeded may not be on the CDN yet, so first refusals are expected and waited out. HEAD is
not dependable on these hosts, so the file is simply fetched. What arrives is written to `<name>.part`,
checked, synced, and then renamed. The checks: the length, or where none was sent whether the end is there;
the first bytes; whether the header can be decoded. A later try or call continues the `.part` if the note
beside it is of the same link and the response proves that it is of the same file (`part.py`).

A file that is there already is taken for a clip's only if its name holds the clip's id. Any other name may be
another song's: the file is fetched, and one of the same content is kept, else the next free name is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import zlib
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple
from weakref import WeakValueDictionary

import aiohttp
import anyio
import anyio.to_thread

from .._wire import complete, media, retry
from ..clock import Clock
from ..errors import DownloadError
from ..files import give_name, lock, open_new, open_old, sync
from . import part as parts
from .file_names import check_pattern, holds_id, name_of
from .links import EXTENSIONS, OTHERS, UNKNOWN, Link, extension_of, shown_link
from .media_requests import Unpacker, first_line, line_of, malformed, url_of
from .rate_limiter import RateLimiter
from .session import Session, reason_of

log: Final = logging.getLogger("musicapi_async")

TRIES: Final = 6
"""The first and five more over about a minute, while the CDN catches up (contract, tasks 4)."""
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 30.0
CHUNK: Final = 256 * 1024
"""Bytes written at once; 16 KiB chunks write at a fifth of the speed (measured)."""
READ_TIMEOUT: Final = 60.0
"""Real seconds for the first answer, and for the next byte."""
LEAST: Final = 256 * 1024
"""Bytes that must come in each minute, else the host is as good as silent: 35 kbit/s, the rate of GPRS."""
SIZE_LIMIT: Final = 1024**3
"""Bytes; a song of eight minutes as WAV is 90 MB."""
PASSING: Final = frozenset({408, 425, 429})
"""Statuses below 500 that say that a later request may succeed."""
LATE: Final = frozenset({403, 404})
"""How a CDN answers for a file that it does not have yet."""
BUSY: Final = "another process is fetching it into the same place"
GONE: Final = frozenset({401, 403, 404, 410})
"""How hosts of files answer to a link that has expired."""


class _Again(Exception):
    """A try that failed and may be repeated; with `drop`, what came of the file is of no use."""

    def __init__(self, reason: str, status: int | None = None, *, drop: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.drop = drop


class _Body(NamedTuple):
    """The body of a response: where in the file it begins, how many bytes the file has if that is said,
    and how it is packed. A packed length is that of the packed file.
    """

    start: int
    total: int | None
    unpacker: Unpacker


class Downloader:
    """Fetches files over the media session of an event loop."""

    def __init__(self, session: Session, limiter: RateLimiter, clock: Clock, draw: retry.Draw) -> None:
        self._session: Final = session
        self._limiter: Final = limiter
        self._clock: Final = clock
        self._draw: Final = draw
        self._locks: Final[WeakValueDictionary[str, asyncio.Lock]] = WeakValueDictionary()
        """One for each file under way. Whoever waits for it holds it, so no second one is made meanwhile."""
        self._naming: Final = asyncio.Lock()

    async def fetch_all(
        self, links: Sequence[Link], folder: Path, pattern: str, deadline: float | None = None
    ) -> list[Path]:
        """Fetch files at once, as many as the lane allows; the paths in the order of `links`.

        All are tried; then the first error is raised, with every whole file in place. After `deadline`
        seconds, waits included, all end; what has come and can be continued stays for the next call.
        """
        check_pattern(pattern)
        taken: dict[str, set[str]] = {}
        names = [name_of(link, index, pattern, taken) for index, link in enumerate(links)]

        def fetch(link: Link, name: str) -> Coroutine[Any, Any, Path]:
            owned = link.of_clip and holds_id(name, link.clip_id, pattern)
            return self.fetch(link, folder / name, owned=owned)

        try:
            async with asyncio.timeout(None if deadline is None else self._clock.real(deadline)):
                done = await asyncio.gather(*map(fetch, links, names), return_exceptions=True)
        except TimeoutError as error:
            raise DownloadError(
                f"the deadline of {deadline:g} s passed",
                path=str(folder),
                hint="Raise deadline with client.with_options(...) and download again; that costs nothing.",
            ) from error
        paths: list[Path] = []
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
            paths.append(outcome)
        return paths

    def _lock(self, path: Path) -> asyncio.Lock:
        """One for each file, however its path is written."""
        return self._locks.setdefault(os.path.abspath(path), asyncio.Lock())

    async def fetch(self, link: Link, path: Path, *, owned: bool = True) -> Path:
        """Fetch a link to `path` plus the extension that its content speaks for; returns the whole path.

        With an extension of the link, files of other formats may stand beside it under the same name.
        `owned`: no other file can have this name, so one that is there is the one; else the name may get a
        number.
        """
        try:
            url_of(link.url)
        except ValueError as error:
            raise malformed(link.url, link.url) from error
        try:
            async with self._lock(path), self._limiter.slot("media"):
                return await self._fetch(link, path, owned)
        except DownloadError as error:
            # What was tried before is an error of aiohttp, which holds signed addresses and does not pickle.
            error.__cause__ = error.__context__ = None
            raise
        except OSError as error:
            raise DownloadError(
                f"could not write {error.filename or path}: {error.strerror or error}",
                url=link.url,
                path=str(path),
                hint="Fix the folder or the disk and download again; that costs nothing.",
            ) from error

    async def _fetch(self, link: Link, path: Path, owned: bool) -> Path:
        pauses = retry.delays(FIRST_PAUSE, LONGEST_PAUSE)
        part = _part_of(path, link.extension)
        tries = 0
        while True:
            tries += 1
            # An earlier call may have fetched it, or another process meanwhile.
            there = await anyio.to_thread.run_sync(_whole_file, path, link.extension) if owned else None
            if there is not None:
                return there
            try:
                written = await self._attempt(link, part)
                async with self._naming:  # two files must not find the same name free
                    return await anyio.to_thread.run_sync(_finish, written, part, path, link.url, owned)
            except _Again as again:
                if again.drop:
                    await anyio.to_thread.run_sync(parts.drop, part)
                if tries == TRIES:
                    raise DownloadError(
                        f"could not fetch {shown_link(link.url)} in {TRIES} tries: {again}",
                        url=link.url,
                        path=str(path),
                        status=again.status,
                        hint=_next_step(again.status),
                    ) from again
            finally:
                # Not in a thread, which a cancelled task may be unable to wait for; it is short.
                with contextlib.suppress(OSError):
                    parts.drop_useless(part, link.url, SIZE_LIMIT)
            await self._clock.sleep(retry.spread(next(pauses), 0.1, self._draw))

    async def _attempt(self, link: Link, part: Path) -> os.stat_result:
        """Fetch what is missing of a link into `part`, check that it is whole, and tell which file it is."""
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
                body = await _accept(response, have, url)
                fresh = parts.source_of(url, response.headers, body.total)
                if body.start and not source.agrees(fresh):
                    raise _Again("the file at the link has changed", 206, drop=True)
                file = await anyio.to_thread.run_sync(_open, part, body.start)
                try:
                    if not body.start:
                        # Ranges of a packed file are of the packed bytes, which are not stored.
                        noted = parts.source_of(url, {}) if body.unpacker.packed else fresh
                        await anyio.to_thread.run_sync(parts.note_source, part, noted)
                    await self._copy(response, file, body, url)
                    if body.total is None:
                        await anyio.to_thread.run_sync(_check_end, file, link.duration)
                    return await anyio.to_thread.run_sync(sync, file)
                finally:
                    file.close()  # at once: whoever is cancelled may not be able to wait
        except DownloadError:  # no later call will continue what came
            await anyio.to_thread.run_sync(parts.drop, part)
            raise
        except aiohttp.ClientError as error:
            raise _Again(reason_of(error)) from error
        except zlib.error as error:
            raise _Again(f"the packed file is damaged: {error}", drop=True) from error
        except TimeoutError as error:
            raise _Again(f"nothing came for {READ_TIMEOUT:g} s") from error

    async def _copy(self, response: aiohttp.ClientResponse, file: BinaryIO, body: _Body, url: str) -> None:
        came = size = body.start  # of what was sent, of what is written
        held = bytearray()
        loop = asyncio.get_running_loop()
        minute, had = loop.time() + 60, came  # of real time, as sockets know no other
        try:
            async for chunk in response.content.iter_any():
                came += len(chunk)
                if body.total is not None and came > body.total:
                    raise _Again(f"more than {body.total} bytes came", drop=True)
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
                        raise _Again(f"only {came - had} bytes came in a minute")
                    minute, had = loop.time() + 60, came
        finally:
            file.write(held)  # less than a chunk, and not lost when a slow or cut line ends the try
        if body.total is not None and came < body.total:
            raise _Again(f"only {came} of {body.total} bytes came")
        if not body.unpacker.is_whole:
            raise _Again("the packed file is cut off")


def _next_step(status: int | None) -> str:
    """What to do about a file that did not come, where the default does not help."""
    if status not in GONE:
        return ""
    return (
        "Links expire: look at the task again for fresh ones, which is free, and download those: "
        "clips = await client.task(token).wait()."
    )


async def _accept(response: aiohttp.ClientResponse, have: int, url: str) -> _Body:
    """Decide what to do with a response; raises `_Again` or `DownloadError` if its body is not the file."""
    status = response.status
    if status not in (200, 206):
        line = await first_line(response)
        told = f"HTTP {status}" + (f": {line}" if line else "")
        if status >= 500 or status in PASSING:
            raise _Again(told, status)
        if have:  # some hosts answer a whole request where they refuse one for the rest
            raise _Again(f"the server does not continue the partial file: {told}", status, drop=True)
        if status in LATE:
            raise _Again(told, status)
        told = f"HTTP {status} for {shown_link(url)}" + (f": {line}" if line else "")
        raise DownloadError(told, url=url, status=status, hint=_next_step(status))
    try:
        unpacker = Unpacker(response.headers.get("Content-Encoding", ""))
    except ValueError as error:
        raise DownloadError(
            f"the file came {error}, which was not asked for", url=url, status=status
        ) from error
    start, total = 0, response.content_length
    if status == 206:
        said = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)", said)
        if match is None or int(match[1]) != have or unpacker.packed:
            raise _Again("the server sent another part than asked for", status, drop=True)
        start, total = have, None if match[2] == "*" else int(match[2])
    if total is not None and total > SIZE_LIMIT:
        raise DownloadError(f"the file has {total} bytes, more than {SIZE_LIMIT}", url=url, status=status)
    return _Body(start, total, unpacker)


def _open(part: Path, start: int) -> BinaryIO:
    """Open a partial file to write on from `start`, and hold it, so that no other process writes it, too."""
    file = open_old(part, write=True)
    if file is None:
        if start:
            raise _Again("the partial file is gone", drop=True)
        file = open_new(part)
    try:
        lock(file)
    except BlockingIOError:
        file.close()
        raise _Again(BUSY) from None
    except OSError:  # a file system without locks
        log.debug("%s cannot be locked", part)
    file.seek(start)
    file.truncate()
    return file


def _reader(file: BinaryIO) -> media.Read:
    def read(at: int, count: int) -> bytes:
        file.seek(at)
        return file.read(count)

    return read


def _check_end(file: BinaryIO, duration: float | None) -> None:
    """Raise `_Again` if a file of which no length was told has no end."""
    read, size = _reader(file), file.seek(0, 2)
    kind = media.kind_of(read, size) or ""
    if not media.fault_of(kind, read, size):  # else that is the fault to tell of
        cut = complete.cut_of(kind, read, size, duration)
        if cut:
            raise _Again(cut, drop=True)


def _finish(written: os.stat_result, part: Path, path: Path, url: str, owned: bool) -> Path:
    """Check the whole `.part` and give it its name, or the next one that is free unless it is `owned`."""
    file = open_old(part)
    if file is None:
        raise _Again(BUSY)
    with file:
        if not os.path.samestat(written, os.fstat(file.fileno())):
            raise _Again(BUSY)
        read, size = _reader(file), file.seek(0, 2)
        kind = media.kind_of(read, size)
        fault = media.fault_of(kind or "", read, size)
        line = line_of(read(0, media.HEAD)) if kind is None else ""
    if kind is None:
        raise _Again(f"no audio came, but text: {line}" if line else "an empty file came", drop=True)
    if fault:
        raise _Again(fault, drop=True)
    named = extension_of(url)
    if not kind and named in EXTENSIONS:
        raise _Again(f"what came does not begin like {named}", drop=True)
    ending = kind or named or UNKNOWN
    final, count = path.with_name(f"{path.name}.{ending}"), 2
    while not owned and final.exists() and (final.is_dir() or final.stat().st_size):
        if final.is_file() and _same_bytes(part, final):
            parts.drop(part)
            return final
        final, count = path.with_name(f"{path.name} {count}.{ending}"), count + 1
    give_name(written, part, final)
    parts.drop_note(part)
    return final


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(CHUNK):
            if chunk != second.read(CHUNK):
                return False
    return True


def _whole_file(path: Path, extension: str) -> Path | None:
    """The finished file of an earlier download, if there is one; what a kill left beside it goes."""
    for ending in (extension,) if extension else (*EXTENSIONS, *OTHERS, UNKNOWN):
        final = path.with_name(f"{path.name}.{ending}")
        if final.is_file() and final.stat().st_size:
            parts.drop(_part_of(path, extension))
            return final
    return None


def _part_of(path: Path, extension: str) -> Path:
    """Where a file is written before it has its name."""
    return path.with_name(path.name + f".{extension}" * bool(extension) + ".part")
