"""Checks of arguments: what cannot be meant is refused before anything is sent, by name and limit."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final, TypeGuard

from .errors import RequestValidationError

LARGEST: Final = sys.float_info.max


def refused(field: str, limit: str, value: str = "") -> RequestValidationError:
    """Return the error of an argument: what it can be, and what was given (by default that is left out)."""
    text = f"{field}: {limit}" + (f", got {value}" if value else "")
    return RequestValidationError(text, field=field, limit=limit, value=value)


PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "store": ("change", 'a store such as SQLiteStore("jobs.sqlite")'),
    "polling": ("observed", "a schedule such as musicapi_async.polling.LearnedSchedule"),
    "limiter": ("slot", "a RateLimiter"),
    "session": ("ws_connect", "an aiohttp.ClientSession"),  # httpx has `request`, too
    "webhooks": ("order", 'Webhooks(url="https://...", secret="...")'),
    "rate": ("parse", 'a rate such as Rate.parse("20/10s")'),
    "clock": ("sleep", "a Clock"),
    "rng": ("uniform", "a random.Random"),
    "params": ("items", "a mapping of names and values"),
    "tracer_provider": ("get_tracer", "a TracerProvider of OpenTelemetry"),
    "meter_provider": ("get_meter", "a MeterProvider of OpenTelemetry"),
    "uploader": ("__call__", "an async function that takes a path and returns a public link"),
}
"""Parts that a client or a call can be given: a method by which they are known, and what to give."""


def check_parts(**given: object) -> None:
    """Refuse what cannot be the part of its name, such as a path instead of a store."""
    for name, value in given.items():
        method, limit = PARTS[name]
        if value is not None and (isinstance(value, type) or not callable(getattr(value, method, None))):
            given_as = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            raise refused(name, limit, given_as)


def check_functions(**given: object) -> None:
    """Refuse what cannot be called, where it is given, and not when it is needed."""
    for name, value in given.items():
        if not callable(value):
            raise refused(name, "a function", type(value).__name__)


def is_text(value: object) -> bool:
    """Return True for text, where a type checker believes what a caller may not observe."""
    return isinstance(value, str)


def is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    """Return True for a mapping, of which no type is known yet."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Return True for a list or a tuple, of which no type is known yet."""
    return isinstance(value, list | tuple)


def check_text(name: str, value: object) -> None:
    """Refuse what is no text, and text that cannot be sent, such as a lone surrogate from a broken file."""
    if not isinstance(value, str):
        raise refused(name, "text", type(value).__name__)
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
    """Return True for a positive number that a float can hold, which `10**400` is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LARGEST


def check_credits(field: str, value: object, name: str = "") -> None:
    """Refuse what is no number of credits, finite and 0 or more; `name` is that of one price of several."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise refused(field, "credits, 0 or more", f"{name}={value!r}" if name else repr(value))


def check_count(field: str, value: object) -> None:
    """Refuse what is no whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise refused(field, "a whole number, 1 or more", repr(value))
