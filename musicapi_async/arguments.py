"""Checks of arguments: what cannot be meant is refused before anything is sent, by name and limit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from .errors import RequestValidationError


def refused(field: str, limit: str, value: str) -> RequestValidationError:
    """Return the error of an argument: what it can be, and what was given ('' to leave that out)."""
    text = f"{field}: {limit}" + (f", got {value}" if value else "")
    return RequestValidationError(text, field=field, limit=limit, value=value)


PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "store": ("change", 'a store such as SQLiteStore("jobs.sqlite")'),
    "polling": ("observed", "a schedule such as musicapi_async.polling.LearnedSchedule"),
    "limiter": ("slot", "a RateLimiter"),
    "session": ("ws_connect", "an aiohttp.ClientSession"),  # httpx has `request`, too
    "webhooks": ("order", 'Webhooks(url="https://...", secret="...")'),
    "clock": ("sleep", "a Clock"),
    "uploader": ("__call__", "an async function that takes a path and returns a public link"),
}
"""Parts that a client can be given: a method by which they are known, and what to give."""


def check_parts(**given: object) -> None:
    """Refuse what cannot be the part of its name, such as a path instead of a store."""
    for name, value in given.items():
        method, limit = PARTS[name]
        if value is not None and (isinstance(value, type) or not callable(getattr(value, method, None))):
            given_as = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            raise refused(name, limit, given_as)


def check_text(name: str, value: str) -> None:
    """Refuse text that cannot be sent or written, such as a lone surrogate from a broken file."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refused(name, "text that is valid Unicode", ascii(value[:40])) from None


def check_bools(**given: object) -> None:
    """Refuse anything but True and False: the text "no" is true, and a setting may cost money."""
    for name, value in given.items():
        if not isinstance(value, bool):
            raise refused(name, "True or False", repr(value)[:100])


def check_seconds(name: str, value: float) -> float:
    """Return `value` if it is a positive finite number of seconds, else raise `RequestValidationError`."""
    if not is_positive(value):
        raise refused(name, "a positive number of seconds", repr(value))
    return float(value)


def is_positive(value: object) -> bool:
    """Return True for a positive finite number."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )


def check_credits(field: str, value: object, name: str = "") -> None:
    """Refuse what is no number of credits, finite and 0 or more; `name` is that of one price of several."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise refused(field, "credits, 0 or more", f"{name}={value!r}" if name else repr(value))


def check_count(field: str, value: object) -> None:
    """Refuse what is no whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise refused(field, "a whole number, 1 or more", repr(value))
