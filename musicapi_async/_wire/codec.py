"""JSON on the wire: one way in, one way out, one error for whatever is wrong with an answer.

A body is read strictly first. Back ends cut a title in the middle of an emoji, print `NaN`, leave a raw tab
in a string or one byte of Latin-1; none of that may cost a result that was paid for. So a body that fails is
repaired where the meaning is beyond doubt, and read strictly once more. Ids and links that a repair touched
are recognized by `api.values.is_intact` and are not used.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from ..errors import TEXT_LIMIT, RequestValidationError

log: Final = logging.getLogger("musicapi_async")

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

Repair = Literal["not UTF-8", "lone surrogate", "control character", "no finite number"]
"""A kind of fault that a body can be read in spite of."""

DIGITS: Final = 4300
"""Digits of the longest whole number that is read: the limit of Python (`sys.int_info`) and of msgspec."""

_LONE: Final = re.compile("[\ud800-\udfff]")

_decoder: Final = msgspec.json.Decoder[Any](Any)
_encoder: Final = msgspec.json.Encoder()


class MalformedBody(ValueError):
    """An answer that is no JSON document: not JSON, bad UTF-8, too deep, or a number out of range."""


def encode(body: Mapping[str, Any]) -> bytes:
    """The bytes of a request body; raises `RequestValidationError` for what JSON cannot hold."""
    try:
        return _encoder.encode(body)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise RequestValidationError(f"the body cannot be written as JSON: {error}", field="json") from None


def decode(raw: bytes, repaired: Callable[[Repair], object] | None = None) -> Any:
    """The JSON value in `raw`; raises `MalformedBody` and nothing else.

    Bytes that are no UTF-8 and lone surrogates become U+FFFD, control characters inside strings are taken as
    they are, `NaN`, `Infinity` and numbers that overflow become None. `repaired` is called with each kind of
    repair, once per body. Time and memory are linear in the size of the body; what is nested too deep is
    malformed.
    """
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    try:
        return _decoder.decode(raw)
    except RecursionError:
        raise MalformedBody("not JSON: nested too deep") from None
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        strict = error
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
    """The body as valid JSON text, and what had to be repaired; raises `ValueError` for what is no JSON."""
    repairs: dict[Repair, None] = {}
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(errors="replace")
        repairs["not UTF-8"] = None

    def constant(_word: str) -> None:
        repairs["no finite number"] = None

    def number(digits: str) -> int | None:
        if len(digits) <= DIGITS:
            return int(digits)
        constant(digits)
        return None

    def fraction(digits: str) -> float | None:
        value = float(digits)
        if math.isfinite(value):
            return value
        constant(digits)
        return None

    def read(*, strict: bool) -> Any:
        return json.loads(
            text, strict=strict, parse_int=number, parse_float=fraction, parse_constant=constant
        )

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
            log.warning("%s was not valid JSON (%s) and was repaired; this is logged once", self._where, kind)


def excerpt(raw: bytes) -> str:
    """The first characters of an answer, fit for an error text and a log line."""
    return one_line(raw[: 4 * TEXT_LIMIT].decode(errors="replace"))


def one_line(text: str) -> str:
    """`text` cut to `TEXT_LIMIT` characters, white space joined and control characters left out."""
    text = text[: 4 * TEXT_LIMIT]
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())[:TEXT_LIMIT]
