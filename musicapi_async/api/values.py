"""JSON values as they came: read one as what it should be, or as missing. None of these functions raises."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

_NOT_INTACT: Final = re.compile("[\x00-\x1f\ufffd]")


def mapping_or_empty(value: Any) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_or_empty(value: Any) -> list[Any]:
    """Return `value` if it is a JSON array, else an empty one."""
    return list(cast("Sequence[Any]", value)) if isinstance(value, list) else []


def text_or_none(value: Any) -> str | None:
    """Return `value` if it is a non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def reference_or_none(value: Any) -> str | None:
    """Return `value` if it is a non-empty id or link that is intact, else None."""
    return value if isinstance(value, str) and value and is_intact(value) else None


def is_intact(value: object) -> bool:
    """Return False for an id or a link that had to be repaired when its body was read.

    A repair leaves U+FFFD in the place of what could not be read, or a control character as it came. Nothing
    can be fetched under such an id or link; another task or file might be.
    """
    return not (isinstance(value, str) and _NOT_INTACT.search(value))


def id_of(mapping: Mapping[str, Any]) -> str | None:
    """Return the id of a clip: `clip_id`, or `id` where some replies have only that."""
    for name in ("clip_id", "id"):
        value = mapping.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value:
            return value if is_intact(value) else None
    return None
