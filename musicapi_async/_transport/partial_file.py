"""A partial file and the note beside it, which identifies the file, so that bytes of two files never mix.

`download` continues a partial file; this module decides if it may.

Only a validator proves that the rest of a file belongs to its beginning (RFC 9110, 8.8 and 13.1.5): a strong
entity tag, or a time of last modification. A link or a length proves nothing, as a host may put another file
there. A partial file without one cannot be continued and is removed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ..files import is_held, open_new, open_old, sync
from .links import EXTENSIONS, OTHERS, UNKNOWN

NOTE_LIMIT: Final = 4096
"""Bytes of a note; ours are below 500."""
TAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,200}"')
"""An entity tag (RFC 9110, 8.8.3), in ASCII and of a sensible length."""
DATE: Final = re.compile(r"[A-Za-z0-9,:+ -]{1,40}")
"""The characters of a date in a header (RFC 9110, 5.6.7)."""


class Source(msgspec.Struct, frozen=True):
    """Where the bytes of a partial file came from. The link is stored as a digest: it may be signed."""

    link: str
    tag: str = ""
    modified: str = ""
    total: int | None = None

    def agrees(self, other: Source) -> bool:
        """Return True if `other`, read from a response, proves to be of the same bytes."""
        if None not in (self.total, other.total) and self.total != other.total:
            return False
        if self.tag and other.tag and (self.tag != other.tag or _is_strong(self.tag)):
            return self.tag == other.tag
        return bool(self.modified) and self.modified == other.modified

    @property
    def validator(self) -> str:
        """The value of `If-Range`, which requests the rest of the same file only; '' if none proves that."""
        return self.tag if _is_strong(self.tag) else self.modified


class Started(NamedTuple):
    """The bytes of a partial file, and the file that they belong to."""

    size: int
    source: Source


def _is_strong(tag: str) -> bool:
    return tag.startswith('"')


def source_of(url: str, headers: Mapping[str, str], total: int | None = None) -> Source:
    """Return the source that a link and the headers of its response name."""
    digest = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    tag = headers.get("ETag", "")
    modified = _modified(headers.get("Last-Modified", ""), headers.get("Date", ""))
    return Source(digest, tag if TAG.fullmatch(tag) else "", modified, total)


def _modified(text: str, now: str) -> str:
    """Return a time of last modification that distinguishes files; '' if there is none.

    One of the second in which it is sent does not: the file may change again in that second (RFC 9110,
    8.8.2.2).
    """
    if not DATE.fullmatch(text):
        return ""
    try:
        modified = parsedate_to_datetime(text)
        if now and (parsedate_to_datetime(now) - modified).total_seconds() < 1:
            return ""
    except (ValueError, TypeError, OverflowError):
        return ""
    return text


def started(part: Path, url: str, limit: int) -> Started:
    """Return the part of `url` that can be continued and remove all else. Makes a folder that is missing."""
    part.parent.mkdir(parents=True, exist_ok=True)
    return drop_useless(part, url, limit)


def drop_useless(part: Path, url: str, limit: int) -> Started:
    """Remove a partial file that cannot be continued as that of `url`; return the part that remains.

    One of more than `limit` bytes will never be a file, so it is removed, too.
    """
    wanted = source_of(url, {})
    source = _noted(part)
    if source is not None and source.link == wanted.link and source.validator:
        file = open_old(part)
        if file is not None:
            with file:
                size = file.seek(0, 2)
            if size <= limit:
                return Started(size, source)
    drop(part)
    return Started(0, wanted)


def _noted(part: Path) -> Source | None:
    file = open_old(_note(part))
    if file is None:
        return None
    with file:
        text = file.read(NOTE_LIMIT)
    try:
        found = msgspec.json.decode(text, type=Source)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    known = source_of("", {"ETag": found.tag, "Last-Modified": found.modified})
    return found if (known.tag, known.modified) == (found.tag, found.modified) else None


def note_source(part: Path, source: Source) -> None:
    """Write down, before the first byte of a partial file, its source."""
    if source.validator:
        with open_new(_note(part)) as file:
            file.write(msgspec.json.encode(source))
            sync(file)
    else:
        _note(part).unlink(missing_ok=True)


def drop(part: Path) -> None:
    """Remove a partial file and its note, unless another process is writing it now."""
    if not is_held(part):
        part.unlink(missing_ok=True)
        _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(".part") + ".source.part")


def whole_file(path: Path, extension: str) -> Path | None:
    """Return the finished file of a previous download, if there is one, and remove a partial one."""
    for ending in (extension,) if extension else (*EXTENSIONS, *OTHERS, UNKNOWN):
        final = path.with_name(f"{path.name}.{ending}")
        if final.is_file() and final.stat().st_size:
            drop(part_of(path, extension))
            return final
    return None


def part_of(path: Path, extension: str) -> Path:
    """Return the path of a file before it has its name."""
    return path.with_name(path.name + f".{extension}" * bool(extension) + ".part")
