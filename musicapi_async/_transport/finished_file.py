"""The end of a download: the file is checked, tagged, and then renamed."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from .._wire import media_types, truncated_media
from ..files import give_name, lock, open_new, open_old, same_bytes
from . import partial_file as parts
from .audio_tags import Tagger, reader_of, tagged_of
from .links import EXTENSIONS, UNKNOWN, extension_of
from .media_requests import line_of

log: Final = logging.getLogger("musicapi_async")

BUSY: Final = "another process is fetching it into the same place"


class Retry(Exception):
    """A try that failed and may be repeated.

    Args:
        reason: the failure, for the error after the last try.
        status: the HTTP status, if there was one.
        drop: True if the bytes that came are of no use.
        retry_after: the seconds that the host names in `Retry-After`.
    """

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        *,
        drop: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.drop = drop
        self.retry_after = retry_after


def open_part(part: Path, start: int) -> BinaryIO:
    """Open a partial file to write on from `start`, and hold it, so that no other process writes it, too."""
    file = open_old(part, write=True)
    if file is None:
        if start:
            raise Retry("the partial file is gone", drop=True)
        file = open_new(part)
    try:
        lock(file)
    except BlockingIOError:
        file.close()
        raise Retry(BUSY) from None
    except OSError:  # a file system without locks
        log.debug("%s cannot be locked", part)
    file.seek(start)
    file.truncate()
    return file


def check_end(file: BinaryIO, duration: float | None) -> None:
    """Raise `Retry` if a file whose length was not sent has no end."""
    read, size = reader_of(file), file.seek(0, 2)
    kind = media_types.kind_of(read, size) or ""
    if not media_types.fault_of(kind, read, size):  # else `finish` raises that fault
        cut = truncated_media.cut_of(kind, read, size, duration)
        if cut:
            raise Retry(cut, drop=True)


class Whole(NamedTuple):
    """A whole file that has no name yet: where it is, proof that it is the one, and its extension."""

    path: Path
    written: os.stat_result
    ending: str


def finish(written: os.stat_result, part: Path, url: str, source: str, tagger: Tagger | None) -> Whole:
    """Check the whole `.part` of a link, which came from `source`, and write its tags into a copy."""
    file = open_old(part)
    if file is None:
        raise Retry(BUSY)
    with file:
        if not os.path.samestat(written, os.fstat(file.fileno())):
            raise Retry(BUSY)
        read, size = reader_of(file), file.seek(0, 2)
        kind = media_types.kind_of(read, size)
        fault = media_types.fault_of(kind or "", read, size)
        line = line_of(read(0, media_types.HEAD), (url, source)) if kind is None else ""
    if kind is None:
        raise Retry(f"no audio came, but text: {line}" if line else "an empty file came", drop=True)
    if fault:
        raise Retry(fault, drop=True)
    named = extension_of(url)
    if not kind and named in EXTENSIONS:
        raise Retry(f"what came does not begin like {named}", drop=True)
    tagged = tagger.copy(part, kind) if tagger is not None else None
    ending = kind or named or UNKNOWN
    return Whole(part, written, ending) if tagged is None else Whole(tagged_of(part), tagged, ending)


def name_file(whole: Whole, part: Path, path: Path, owned: bool) -> Path:
    """Give a whole file its name, or the next one that is free unless it is `owned`; remove its `.part`."""
    final, count = path.with_name(f"{path.name}.{whole.ending}"), 2
    while not owned and final.exists() and (final.is_dir() or final.stat().st_size):
        if final.is_file() and same_bytes(whole.path, final):
            break
        final, count = path.with_name(f"{path.name} {count}.{whole.ending}"), count + 1
    else:
        give_name(whole.written, whole.path, final)
    tagged_of(part).unlink(missing_ok=True)  # it may be of a process that was killed
    parts.drop(part)
    return final
