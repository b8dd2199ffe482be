"""File names: safe on every common file system, filled in from a pattern, and different from each other."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Final, Protocol

from .arguments import check_text, refused

NAME_BYTES: Final = 150
"""Bytes of a file name without its extension; file systems allow 255."""

RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
UNSAFE: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
FIELDS: Final = ("title", "clip_id", "index", "name")
TOO_WIDE: Final = re.compile(r"[{}]|\d{4}")
"""In a format: a width that another field gives, which may be any text, or one of a thousand and more."""


class NamedFile(Protocol):
    """A file that needs a name; `extension` is '' where it is not known yet."""

    @property
    def title(self) -> str: ...
    @property
    def clip_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def extension(self) -> str: ...


def safe_name(text: str, limit: int = NAME_BYTES) -> str:
    """Return `text` as a file name that every common file system takes; '' if no character is allowed."""
    visible = "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] != "C")
    name = " ".join(UNSAFE.sub(" ", visible).split())
    name = name.encode("utf-8", "ignore")[:limit].decode("utf-8", "ignore").strip(" .")
    return f"_{name}" if RESERVED.fullmatch(name) else name


def check_pattern(pattern: str, fields: Sequence[str] = FIELDS) -> None:
    """Refuse a name pattern that cannot be filled in, or one that would leave the folder."""
    check_text("name", pattern)
    if not _can_be_filled(pattern, fields) or not pattern.strip() or re.search(r"[/\\]", pattern):
        limit = f"a pattern with the fields {', '.join(fields)} and without '/'"
        raise refused("name", limit, repr(pattern))


def _can_be_filled(pattern: str, fields: Sequence[str]) -> bool:
    """Return True if the pattern gives a name of a sane length for any values of its fields."""
    try:
        for _, name, form, _ in string.Formatter().parse(pattern):
            if name is not None and name not in fields:
                return False
            if form and TOO_WIDE.search(form):
                return False
        pattern.format(**{name: 1 if name == "index" else name for name in fields})
    except ValueError:
        return False
    return True


def fields_of(pattern: str) -> set[str]:
    """Return the names of the fields in a pattern."""
    return {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}


def literal(name: str) -> str:
    """Return the pattern that gives exactly this name."""
    return name.replace("{", "{{").replace("}", "}}")


def holds_id(name: str, clip_id: str, pattern: str) -> bool:
    """Return True if the whole id is in the name, which may be cut."""
    return bool(clip_id) and "clip_id" in fields_of(pattern) and clip_id in name


def name_of(file: NamedFile, index: int, pattern: str, taken: dict[str, set[str]]) -> str:
    """Return a name that no other of these files has; only files of different known formats may share one."""
    text = pattern.format(
        title=safe_name(file.title, 90),
        clip_id=safe_name(file.clip_id, 60),
        index=index,
        name=safe_name(file.name, 60),
    )
    stem = safe_name(text) or f"clip {index}"
    name, count = stem, 2
    while _clashes(file.extension, taken.get(name.casefold())):
        name, count = f"{stem} {count}", count + 1
    taken.setdefault(name.casefold(), set()).add(file.extension)
    return name


def _clashes(extension: str, others: set[str] | None) -> bool:
    return others is not None and (not extension or bool(others & {"", extension}))
