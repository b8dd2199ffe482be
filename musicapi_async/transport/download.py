"""Fetch finished files: whole or not at all under their name, checked, resumed, and never with the key.

A clip that has succeeded may not be on the CDN yet, so first refusals are expected and waited out. HEAD is
not dependable on these hosts, so the file is simply fetched. What arrives is written to `<name>.part`,
checked (length, first bytes, whether its header can be decoded), synced, and then renamed; a later call goes
on from the `.part`, if the note beside it says that it is of the same link and the answer that it is of the
same file.

A file that is there already is taken for a clip's only if its name holds the clip's id. Any other name may be
another song's: the file is fetched, and one of the same content is kept, else the next free name is used.
"""

from __future__ import annotations

import asyncio
import os
import re
import string
import unicodedata
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final
from weakref import WeakValueDictionary

import aiohttp
import anyio
import anyio.to_thread

from ..clock import Clock
from ..errors import DownloadError, RequestValidationError
from ..wire import media, retry
from . import part as parts
from .links import EXTENSIONS, Link, extension_of, parts_of
from .rate_limiter import RateLimiter
from .session import Session

TRIES: Final = 6
"""The first and five more over about a minute, while the CDN catches up (contract, tasks 4)."""
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 30.0
CHUNK: Final = 256 * 1024
"""Bytes written at once; 16 KiB chunks write at a fifth of the speed (measured)."""
READ_TIMEOUT: Final = 60.0
"""Real seconds for the first answer, and for the next byte."""
LEAST: Final = 256 * 1024
"""Bytes that must come in each minute, else the host is as good as silent: 35 kbit/s, the pace of GPRS."""
SIZE_LIMIT: Final = 1024**3
"""Bytes; a song of eight minutes as WAV is 90 MB."""
NAME_BYTES: Final = 150
"""Bytes of a file name without its extension; file systems allow 255."""

RETRIED: Final = frozenset({403, 404, 408, 425, 429, 500, 502, 503, 504})
NO_LINK: Final = "Give an http link, clips, or the result of a task."
GONE: Final = frozenset({401, 403, 404, 410})
"""How hosts of files answer to a link that has expired."""

RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
UNSAFE: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')


def safe_name(text: str, limit: int = NAME_BYTES) -> str:
    """`text` as a file name that every common file system takes; '' if nothing is left of it."""
    visible = "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] != "C")
    name = " ".join(UNSAFE.sub(" ", visible).split())
    name = name.encode("utf-8", "ignore")[:limit].decode("utf-8", "ignore").strip(" .")
    return f"_{name}" if RESERVED.fullmatch(name) else name


class _Again(Exception):
    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


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
        seconds, waits included, all end; what has come is kept for the next call.
        """
        check_pattern(pattern)
        taken: dict[str, set[str]] = {}
        names = [_name(link, index, pattern, taken) for index, link in enumerate(links)]

        def fetch(link: Link, name: str) -> Coroutine[Any, Any, Path]:
            owned = link.of_clip and _holds_id(name, link.clip_id, pattern)
            return self.fetch(link.url, folder / name, link.extension, owned=owned)

        try:
            async with asyncio.timeout(None if deadline is None else self._clock.real(deadline)):
                done = await asyncio.gather(*map(fetch, links, names), return_exceptions=True)
        except TimeoutError as error:
            raise DownloadError(
                f"the deadline of {deadline:g} s passed",
                path=str(folder),
                hint="Raise deadline with client.with_options(...) and download again: that goes on.",
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

    async def fetch(self, url: str, path: Path, extension: str = "", *, owned: bool = True) -> Path:
        """Fetch `url` to `path` plus the extension that its content speaks for; returns the whole path.

        With an `extension`, files of other formats may stand beside it under the same name. `owned`: no
        other file can have this name, so one that is there is the one; else the name may get a number.
        """
        if parts_of(url).scheme not in ("http", "https"):
            raise DownloadError(f"not an http link: {url[:200]!r}", url=url, hint=NO_LINK)
        try:
            async with self._lock(path), self._limiter.slot("media"):
                there = await anyio.to_thread.run_sync(_whole_file, path, extension) if owned else None
                return there or await self._fetch(url, path, extension, owned)
        except OSError as error:
            raise DownloadError(
                f"could not write {error.filename or path}: {error.strerror or error}",
                url=url,
                path=str(path),
                hint="Mend the folder or the disk and download again; that costs nothing.",
            ) from error

    async def _fetch(self, url: str, path: Path, extension: str, owned: bool) -> Path:
        pauses = retry.delays(FIRST_PAUSE, LONGEST_PAUSE)
        tries = 0
        while True:
            tries += 1
            try:
                return await self._attempt(url, path, extension, owned)
            except _Again as again:
                if tries == TRIES:
                    raise DownloadError(
                        f"could not fetch {url.partition('?')[0]} in {TRIES} tries: {again}",
                        url=url,
                        path=str(path),
                        status=again.status,
                        hint=_next_step(again.status),
                    ) from again
                await self._clock.sleep(retry.spread(next(pauses), 0.1, self._draw))

    async def _attempt(self, url: str, path: Path, extension: str, owned: bool) -> Path:
        part = _part_of(path, extension)
        have, source = await anyio.to_thread.run_sync(parts.started, part, url)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", **source.condition}
        try:
            async with (
                asyncio.timeout(READ_TIMEOUT) as opening,
                self._session.media(url, headers, READ_TIMEOUT) as response,
            ):
                opening.reschedule(None)
                tag = response.headers.get("ETag", "")
                if response.status == 416:  # what we have is no beginning of this file
                    await anyio.to_thread.run_sync(parts.drop, part)
                    raise _Again("the server cannot go on where the last download stopped", 416)
                have, total = _accept(response, have, url)
                if have and not source.agrees(tag, total):
                    await anyio.to_thread.run_sync(parts.drop, part)
                    raise _Again("the file at the link has changed", 206)
                file = await anyio.to_thread.run_sync(_reopen, part, have)
                try:
                    if not have:
                        fresh = parts.source_of(url, tag, total)
                        await anyio.to_thread.run_sync(parts.note_source, part, fresh)
                    await self._copy(response, file, have, total, url)
                    await anyio.to_thread.run_sync(_sync, file)
                finally:
                    file.close()  # at once: whoever is cancelled may not be able to wait
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise DownloadError(
                f"not a link that can be fetched: {url[:200]!r}", url=url, hint=NO_LINK
            ) from error
        except aiohttp.ClientError as error:
            raise _Again(str(error) or type(error).__name__) from error
        except TimeoutError as error:
            raise _Again(f"nothing came for {READ_TIMEOUT:g} s") from error
        async with self._naming:  # two files must not find the same name free
            return await anyio.to_thread.run_sync(_finish, part, path, url, owned)

    async def _copy(
        self, response: aiohttp.ClientResponse, file: BinaryIO, have: int, total: int | None, url: str
    ) -> None:
        size = have
        limit = SIZE_LIMIT if total is None else min(total, SIZE_LIMIT)
        held = bytearray()
        loop = asyncio.get_running_loop()
        minute, had = loop.time() + 60, size  # of real time, as sockets know no other
        try:
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise DownloadError(f"more than {limit} bytes came", url=url)
                held += chunk
                if len(held) >= CHUNK:
                    whole, held = held, bytearray()
                    await anyio.to_thread.run_sync(file.write, whole)
                if loop.time() >= minute:
                    if size - had < LEAST:
                        raise _Again(f"only {size - had} bytes came in a minute")
                    minute, had = loop.time() + 60, size
        finally:
            file.write(held)  # less than a chunk, and not lost when a slow or cut line ends the try
        if total is not None and size < total:
            raise _Again(f"only {size} of {total} bytes came")


def _next_step(status: int | None) -> str:
    """What to do about a file that did not come, where the default does not help."""
    if status not in GONE:
        return ""
    return (
        "Links expire: look at the task again for fresh ones, which is free, and download those: "
        "clips = await client.task(token).wait()."
    )


def _accept(response: aiohttp.ClientResponse, have: int, url: str) -> tuple[int, int | None]:
    """From which byte on the answer is written, and how long the whole file is, if that is said."""
    status = response.status
    if status == 206:
        said = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)", said)
        if match is None or int(match[1]) != have:
            raise _Again("the server sent another part than asked for", status)
        return have, None if match[2] == "*" else int(match[2])
    if status == 200:
        length = response.content_length
        if length is not None and length > SIZE_LIMIT:
            raise DownloadError(f"the file has {length} bytes, more than {SIZE_LIMIT}", url=url, status=200)
        return 0, length
    if status in RETRIED:
        raise _Again(f"HTTP {status}", status)
    raise DownloadError(
        f"HTTP {status} for {url.partition('?')[0]}", url=url, status=status, hint=_next_step(status)
    )


def _reopen(part: Path, have: int) -> BinaryIO:
    file = part.open("r+b" if have else "wb")
    file.seek(have)
    file.truncate()
    return file


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _finish(part: Path, path: Path, url: str, owned: bool) -> Path:
    """Check the whole `.part` and give it its name, or the next one that is free unless it is `owned`."""
    size = part.stat().st_size
    with part.open("rb") as file:

        def read(at: int, count: int) -> bytes:
            file.seek(at)
            return file.read(count)

        kind = media.kind_of(read, size)
        fault = media.fault_of(kind or "", read, size)
    if kind is None:
        parts.drop(part)
        raise _Again("no audio came, but text" if size else "an empty file came")
    if fault:
        parts.drop(part)
        raise _Again(fault)
    named = extension_of(url)
    if not kind and named in EXTENSIONS:
        parts.drop(part)
        raise _Again(f"what came does not begin like {named}")
    ending = kind or named or "bin"
    final, count = path.with_name(f"{path.name}.{ending}"), 2
    while not owned and final.exists() and (final.is_dir() or final.stat().st_size):
        if final.is_file() and _same_bytes(part, final):
            parts.drop(part)
            return final
        final, count = path.with_name(f"{path.name} {count}.{ending}"), count + 1
    os.replace(part, final)
    parts.drop_note(part)
    sync_folder(final.parent)
    return final


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(CHUNK):
            if chunk != second.read(CHUNK):
                return False
    return True


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power, where the system can be asked for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _whole_file(path: Path, extension: str) -> Path | None:
    """The finished file of an earlier download, if there is one; what a kill left beside it goes."""
    for ending in (extension,) if extension else EXTENSIONS:
        final = path.with_name(f"{path.name}.{ending}")
        if final.is_file() and final.stat().st_size:
            parts.drop(_part_of(path, extension))
            return final
    return None


def _part_of(path: Path, extension: str) -> Path:
    """Where a file is written before it has its name."""
    return path.with_name(path.name + f".{extension}" * bool(extension) + ".part")


FIELDS: Final = ("title", "clip_id", "index", "name")
TOO_WIDE: Final = re.compile(r"[{}]|\d{4}")
"""In a format: a width that another field gives, which may be any text, or one of a thousand and more."""


def check_pattern(pattern: str) -> None:
    """Refuse a name pattern that cannot be filled in, or one that would leave the folder."""
    if not _can_be_filled(pattern) or not pattern.strip() or re.search(r"[/\\]", pattern):
        raise RequestValidationError(
            f"name: a pattern with the fields {', '.join(FIELDS)} and without '/', got {pattern!r}",
            field="name",
            value=repr(pattern),
        )


def _can_be_filled(pattern: str) -> bool:
    """Whether the pattern gives a name for whatever values its fields have, and one of a sane length."""
    try:
        for _, name, form, _ in string.Formatter().parse(pattern):
            if name is not None and name not in FIELDS:
                return False
            if form and TOO_WIDE.search(form):
                return False
        pattern.format(title="title", clip_id="id", index=1, name="name")
    except ValueError:
        return False
    return True


def _fields_of(pattern: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}


def _holds_id(name: str, clip_id: str, pattern: str) -> bool:
    """Whether the whole id came into the name, which may be cut."""
    return bool(clip_id) and "clip_id" in _fields_of(pattern) and clip_id in name


def _name(link: Link, index: int, pattern: str, taken: dict[str, set[str]]) -> str:
    """A name that no other of these files has; only files of different known formats may share one."""
    text = pattern.format(
        title=safe_name(link.title, 90),
        clip_id=safe_name(link.clip_id, 60),
        index=index,
        name=safe_name(link.name, 60),
    )
    stem = safe_name(text) or f"clip {index}"
    name, count = stem, 2
    while _clashes(link.extension, taken.get(name.casefold())):
        name, count = f"{stem} {count}", count + 1
    taken.setdefault(name.casefold(), set()).add(link.extension)
    return name


def _clashes(extension: str, others: set[str] | None) -> bool:
    return others is not None and (not extension or bool(others & {"", extension}))
