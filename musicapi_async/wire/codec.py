"""JSON on the wire: one way in, one way out, one error for whatever is wrong with an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..errors import TEXT_LIMIT, RequestValidationError

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

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


def decode(raw: bytes) -> Any:
    """The JSON value in `raw`; raises `MalformedBody` and nothing else."""
    try:
        return _decoder.decode(raw.removeprefix(BYTE_ORDER_MARK))
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise MalformedBody(f"not JSON: {error}") from None


def excerpt(raw: bytes) -> str:
    """The first characters of an answer, fit for an error text and a log line."""
    return one_line(raw[: 4 * TEXT_LIMIT].decode(errors="replace"))


def one_line(text: str) -> str:
    """`text` cut to `TEXT_LIMIT` characters, white space joined and control characters left out."""
    text = text[: 4 * TEXT_LIMIT]
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())[:TEXT_LIMIT]
