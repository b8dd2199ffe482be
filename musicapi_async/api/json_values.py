"""JSON values as they came: read one as what it should be, or as missing. None of these functions raises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""A decoded JSON value."""

_NOT_INTACT: Final = re.compile("[\x00-\x1f\ufffd]")


def mapping_or_empty(value: JSON) -> dict[str, JSON]:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def list_or_empty(value: JSON) -> list[JSON]:
    """Return a copy of `value` if it is a JSON array, else an empty one."""
    return list(value) if isinstance(value, list) else []


def text_or_none(value: JSON) -> str | None:
    """Return `value` if it is a non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def reference_or_none(value: JSON) -> str | None:
    """Return `value` if it is a non-empty id or link that is intact, else None."""
    return value if isinstance(value, str) and value and is_intact(value) else None


def is_intact(value: object) -> bool:
    """Return False for an id or a link that had to be repaired when its body was read.

    A repair leaves U+FFFD in the place of what could not be read, or a control character as it came. Nothing
    can be fetched under such an id or link; another task or file might be.
    """
    if not isinstance(value, str) or (value.isascii() and value.isprintable()):
        return True  # the usual case
    return _NOT_INTACT.search(value) is None


def id_in(value: JSON) -> str | None:
    """Return an id as text, from text or a whole number; None for anything else, and for text that was
    repaired.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = value.strip() if isinstance(value, str) else ""
    return text if text and is_intact(text) else None


def clip_id_in(mapping: Mapping[str, JSON]) -> str | None:
    """Return the id of a clip: `clip_id`, or `id` where some replies have only that."""
    for key in ("clip_id", "id"):
        value = mapping.get(key)
        if (isinstance(value, int) and not isinstance(value, bool)) or text_or_none(value):
            return id_in(value)
    return None
