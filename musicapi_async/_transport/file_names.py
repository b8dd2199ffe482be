"""The names of downloaded files: a pattern filled in, and no two files of a call under one name."""

from __future__ import annotations

import re
import string
from typing import Final

from ..errors import RequestValidationError
from ..files import safe_name
from .links import Link

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


def holds_id(name: str, clip_id: str, pattern: str) -> bool:
    """Whether the whole id came into the name, which may be cut."""
    return bool(clip_id) and "clip_id" in _fields_of(pattern) and clip_id in name


def name_of(link: Link, index: int, pattern: str, taken: dict[str, set[str]]) -> str:
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
