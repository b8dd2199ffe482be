"""JSON on the wire: one function to encode, one to decode, and one error for all malformed bodies.

A body is first decoded strictly. Back ends cut a title in the middle of an emoji, print `NaN`, or leave a raw
tab or a byte of Latin-1 in a string; a result that was paid for must be readable in spite of that. So a
malformed body is repaired where the meaning is certain, and decoded strictly again.
`api.json_values.is_intact` recognizes ids and links that a repair changed; they are not used.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from ..api.json_values import JSON
from ..errors import TEXT_LIMIT, RequestValidationError

log: Final = logging.getLogger("musicapi_async")

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

Repair = Literal["not UTF-8", "lone surrogate", "control character", "no finite number"]
"""A kind of fault in spite of which a body can be read."""

MOST_DIGITS: Final = 4300
"""Digits of the longest whole number that is read: the limit of Python (`sys.int_info`) and of msgspec."""

_LONE: Final = re.compile("[\ud800-\udfff]")
_NOT_FINITE: Final = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[-+]?\b(?:nan|inf(?:inity)?)\b', re.DOTALL | re.IGNORECASE
)
"""Not a number and infinity as Python, C, PHP and Go print them, and strings, in which they are words."""

_decoder: Final = msgspec.json.Decoder()
_encoder: Final = msgspec.json.Encoder()


class MalformedBody(ValueError):
    """A body that is no JSON document, or one that is nested too deep."""


def encode(value: object, call: str, what: str = "json:") -> bytes:
    """Return a value as JSON.

    Args:
        value: the value.
        call: method and path, for the error.
        what: names the value in the error.

    Raises:
        RequestValidationError: the value holds what JSON cannot.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        text = f"{what} cannot be sent as JSON: {error}"
        raise RequestValidationError(text, field="json", call=call) from None


def decode(raw: bytes, repaired: Callable[[Repair], object] | None = None) -> JSON:
    """Decode the JSON value in `raw`; raises `MalformedBody` and nothing else.

    Bytes that are no UTF-8 and lone surrogates become U+FFFD, control characters inside strings are taken as
    they are, `NaN`, `Infinity`, their other spellings (`nan`, `-INF`, `+Inf`), and numbers that overflow
    become None. `repaired` is called with each kind of repair, once per body. Time and memory are linear in
    the size of the body; what is nested too deep is malformed.
    """
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    try:
        value: JSON = _decoder.decode(raw)
    except RecursionError:
        raise MalformedBody("not JSON: nested too deep") from None
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        strict = error
    else:
        return value
    try:
        text, repairs = _repaired(raw)
        value = _decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        raise MalformedBody(f"not JSON: {strict}") from None
    if repaired is not None:
        for kind in repairs:
            repaired(kind)
    return value


def _repaired(raw: bytes) -> tuple[str, list[Repair]]:
    """Return a body as valid JSON text, and the repairs made; raises `ValueError` if it is no JSON."""
    import json  # only a body with faults needs it

    repairs: dict[Repair, None] = {}
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(errors="replace")
        repairs["not UTF-8"] = None

    def constant(_word: str) -> None:
        repairs["no finite number"] = None

    def number(digits: str) -> int | None:
        if len(digits) <= MOST_DIGITS:
            return int(digits)
        constant(digits)
        return None

    def fraction(digits: str) -> float | None:
        value = float(digits)
        if math.isfinite(value):
            return value
        constant(digits)
        return None

    def read(*, strict: bool) -> JSON:
        value: JSON = json.loads(
            text, strict=strict, parse_int=number, parse_float=fraction, parse_constant=constant
        )
        return value

    text = _NOT_FINITE.sub(lambda found: found[0] if found[0].startswith('"') else "NaN", text)
    try:
        value = read(strict=True)
    except ValueError:  # a control character, or no JSON: then this fails, too
        value = read(strict=False)
        repairs["control character"] = None
    text = json.dumps(value, ensure_ascii=False)
    if _LONE.search(text):
        text = _LONE.sub("\ufffd", text)
        repairs["lone surrogate"] = None
    return text, list(repairs)


class RepairLog:
    """Logs each kind of repair once. Called with the kinds; one log lives as long as its client."""

    def __init__(self, where: str) -> None:
        self._where: Final = where
        self._logged: Final[set[Repair]] = set()

    def __call__(self, kind: Repair) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            text = "%s was not valid JSON (%s) and was repaired; this is logged once"
            report(logging.WARNING, text, self._where, kind)


def one_line(text: str) -> str:
    """Return `text` cut to `TEXT_LIMIT` characters, white space joined and control characters left out."""
    text = text[: 4 * TEXT_LIMIT]
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())[:TEXT_LIMIT]


def escaped(text: str) -> str:
    """Return a text whose control and format characters are escapes such as `\\n`.

    An id or a link that a stranger gave could forge lines of its own in a log, or steer a terminal.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def report(level: int, text: str, *values: object) -> None:
    """Write a line to the log. A logging filter that fails loses no task, and no decision about money."""
    with contextlib.suppress(Exception):
        log.log(level, text, *values)
