"""The note beside a started download: which link its bytes came from, so that no two files are ever mixed."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

NOTE_LIMIT: Final = 4096
"""Bytes of a note; ours are below 400."""
TAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,200}"')
"""An entity tag (RFC 9110, 8.8.3), in ASCII and of a sensible length."""


class Source(msgspec.Struct, frozen=True):
    """Where the bytes of a `.part` came from. The link is kept as a digest: it may be signed."""

    link: str
    tag: str = ""
    total: int | None = None

    def agrees(self, tag: str, total: int | None) -> bool:
        """Whether an answer with this tag and length can be of the same file."""
        return not (self.tag and tag and self.tag != tag) and (
            None in (self.total, total) or self.total == total
        )

    @property
    def condition(self) -> dict[str, str]:
        """The header that gives the rest only of the same file; weak tags do not prove that."""
        return {"If-Range": self.tag} if self.tag.startswith('"') else {}


class Started(NamedTuple):
    """How many bytes are there, and of what."""

    size: int
    source: Source


def source_of(url: str, tag: str = "", total: int | None = None) -> Source:
    """The source that a link and the headers of its answer tell of."""
    digest = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return Source(digest, tag if TAG.fullmatch(tag) else "", total)


def started(part: Path, url: str) -> Started:
    """What is there of `url`; the folder is made if it is missing. Other bytes count for nothing."""
    part.parent.mkdir(parents=True, exist_ok=True)
    wanted = source_of(url)
    note = _note(part)
    if not (part.is_file() and note.is_file()):
        return Started(0, wanted)
    with note.open("rb") as file:
        text = file.read(NOTE_LIMIT)
    try:
        found = msgspec.json.decode(text, type=Source)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return Started(0, wanted)
    if found.link != wanted.link or (found.tag and not TAG.fullmatch(found.tag)):
        return Started(0, wanted)
    return Started(part.stat().st_size, found)


def note_source(part: Path, source: Source) -> None:
    """Write down, before the first byte of a `.part`, where it comes from."""
    with _note(part).open("wb") as file:
        file.write(msgspec.json.encode(source))
        file.flush()
        os.fsync(file.fileno())


def drop(part: Path) -> None:
    """Forget what has come."""
    part.unlink(missing_ok=True)
    drop_note(part)


def drop_note(part: Path) -> None:
    """Forget where a `.part` came from, once it has its name."""
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(".part") + ".source.part")
