"""Reading a request body the way the service does: its limits, its order of checks, its texts.

The texts are the documented ones even where they are known to be stale ("less than 200" for a limit of 400).
Independent of the client on purpose: limits are written a second time, from the vendor's pages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from ..api.json_values import JSON, list_or_empty
from ..options import LOOPBACK
from .replies import Refusal, forbidden, invalid


class TextLimits(NamedTuple):
    """Characters that a model takes."""

    prompt: int
    tags: int


_NEWER: Final = TextLimits(5000, 1000)
_OLDER: Final = TextLimits(3000, 200)

SONIC_MODEL_LIMITS: Final[Mapping[str, TextLimits]] = {
    "sonic-v6": _NEWER,
    "sonic-v6-wild": _NEWER,
    "sonic-v6-mini": _NEWER,
    "sonic-v5-5": _NEWER,
    "sonic-v5": _NEWER,
    "sonic-v4-5-plus": _NEWER,
    "sonic-v4-5": _NEWER,
    "sonic-v4": _OLDER,
    "sonic-v3-5": _OLDER,
}
"""The models of the vendor's page; `sonic-v4-5-all` is taken by sample and mashup only."""

TITLE: Final = 80
SONG_DESCRIPTION: Final = 400
NEGATIVE_TAGS: Final = 200
SHORT_TAGS: Final = 200
PERSONA_NAME: Final = 79
STYLES: Final = 2000
LYRICS_DESCRIPTION: Final = 119
WEBHOOK_URL: Final = 1024
ID: Final = 200
"""No id of the service is longer than a UUID; longer ones are unknown without a search."""

_STALE: Final[Mapping[tuple[str, int], str]] = {
    ("prompt", 5000): "The prompt character length should be less than 3000.",
    ("gpt_description_prompt", 400): (
        "The 'gpt_description_prompt' character length should be less than 200."
    ),
    ("tags", 1000): "The tags character length should be less than 200.",
    ("name", 79): "The name character length should be less than 80.",
    ("description", 199): "The description character length should be less than 200.",
}
"""Texts that do not name their limit: known to be stale, or "less than" a limit that is itself refused."""

_LYRICS: Final = ("prompt", "lyrics", "infill_lyrics")
_WISHES: Final = ("gpt_description_prompt", "tags", "sound", "description")
_DENIED: Final = (
    (_LYRICS, "example phrase", "The lyrics contain copyrighted content: '{}'. Please use original lyrics."),
    (_LYRICS, "example obscenity", "The lyrics contain inappropriate content: '{}'."),
    (_WISHES, "example name", "The song description contains artist names: '{}' which is not allowed."),
    (_WISHES, "example producer", "The song description contains producer tags: '{}' which is not allowed."),
    (_WISHES, "example review", "The song description needs moderation review."),
)
"""Examples of words that the sandbox's moderation refuses, with the documented texts."""

_NUMBER: Final = re.compile(r"-?\d{1,12}(\.\d{1,6})?")


def read_body(raw: bytes) -> dict[str, JSON]:
    """Return the JSON object of a request; anything else is a documented 400, whichever bytes came."""
    try:
        body: JSON = msgspec.json.decode(raw)
        msgspec.json.encode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, OverflowError):
        raise invalid("The request body should be valid JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The request body should be a JSON object.")
    return body


class Form:
    """The fields of one request. Null and empty text count as left out, as the service takes them."""

    def __init__(self, body: Mapping[str, JSON]) -> None:
        self._body = body

    def get(self, name: str) -> JSON:
        """Return the field as it came; None when it is missing, null or empty."""
        value = self._body.get(name)
        return None if value == "" else value

    def has(self, name: str) -> bool:
        """Return True if the field came at all, be it null."""
        return name in self._body

    def text(self, name: str, most: int | None = None) -> str | None:
        """Return a text of at most `most` characters."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise invalid(f"The '{name}' field should be string.")
        if most is not None and len(value) > most:
            text = f"The {name} character length should be less than {most}."
            raise invalid(_STALE.get((name, most), text))
        return value

    def needed(self, name: str, why: str = "", most: int | None = None) -> str:
        """Return a text that must be there."""
        value = self.text(name, most)
        if value is None:
            raise _missing(name, why)
        return value

    def clip_id(self, name: str, why: str = "") -> str:
        """Return an id that must be there."""
        return self.needed(name, why)[: ID + 1]

    def flag(self, name: str, *, needed: bool = False) -> bool | None:
        """Return a JSON boolean."""
        value = self.get(name)
        if value is None and not needed and self._body.get(name) != "":
            return None
        if not isinstance(value, bool):
            raise invalid(f"The '{name}' field should be boolean.")
        return value

    def number(
        self, name: str, *, needed: bool = False, least: float = 0.0, most: float = math.inf
    ) -> float | None:
        """Return a JSON number within bounds."""
        value = self.get(name)
        if value is None:
            if needed:
                raise _missing(name)
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(f"The '{name}' field should be a number.")
        if not least <= value <= most:
            span = (
                f"between {least:g} and {most:g}"
                if most < math.inf
                else f"greater than or equal to {least:g}"
            )
            raise invalid(f"The '{name}' field should be a number {span}.")
        return float(value)

    def weight(self, name: str) -> float | None:
        """Return a number from 0 to 1."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise invalid(f"The '{name}' field should be a number between 0 and 1.")
        return float(value)

    def whole(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number within bounds."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise invalid(f"The '{name}' field should be an integer between {least} and {most}.")
        return value

    def numeric(self, name: str) -> str | None:
        """Return a number, or a text that holds one; given back as text."""
        value = self.get(name)
        if value is None:
            return None
        text = value if isinstance(value, str) else f"{value}"
        if isinstance(value, bool) or not _NUMBER.fullmatch(text):
            raise invalid(f"The '{name}' field should be a number.")
        return text

    def words(self, name: str, most: int | None = None) -> list[str] | None:
        """Return a list of texts."""
        value = self.get(name)
        if value is None:
            return None
        texts = [item for item in list_or_empty(value) if isinstance(item, str)]
        if not isinstance(value, list) or len(texts) < len(value):
            raise invalid(f"The '{name}' field should be an array of string.")
        if most is not None and len(texts) > most:
            raise invalid(f"The '{name}' field should have at most {most} items.")
        return texts

    def source_url(self, name: str = "url") -> str:
        """Return an http(s) address of a file."""
        url = self.needed(name, most=4096)
        if not _is_web(url):
            raise invalid(f"The '{name}' field should be a valid URL.")
        return url

    def webhook(self) -> tuple[str, str] | None:
        """Return `webhook_url` and `webhook_secret`, or None without a URL."""
        url, secret = self.hook("webhook_url"), self.text("webhook_secret")
        return None if url is None else (url, secret or "")

    def hook(self, name: str) -> str | None:
        """Return a URL to notify: https, or http to this machine, where tests listen."""
        url = self.text(name, WEBHOOK_URL)
        if url is None:
            return None
        parts = urlsplit(url) if _is_web(url) else None
        if parts is None or not (parts.scheme == "https" or parts.hostname in LOOPBACK):
            raise invalid(f"The '{name}' field should be a valid https URL.")
        return url

    def moderate(self) -> None:
        """Apply moderation; last, as moderation reads only valid requests."""
        for names, phrase, text in _DENIED:
            for name in names:
                value = self.get(name)
                if isinstance(value, str) and phrase in value.lower():
                    raise forbidden(text.format(phrase))
        prompt = self.get("prompt")
        if isinstance(prompt, str) and not any(letter.isalnum() for letter in prompt):
            raise forbidden("The lyrics format is invalid. Please check and try again.")


def _missing(name: str, why: str = "") -> Refusal:
    return invalid(f"The '{name}' field is required{' when ' + why if why else ''}.")


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def model(form: Form, *, also: tuple[str, ...] = (), chirp: bool = False) -> tuple[str, TextLimits]:
    """Return the model of a Sonic request and its limits."""
    value = form.get("mv")
    known = [*SONIC_MODEL_LIMITS, *also]
    if isinstance(value, str):
        if value in known:
            return value, SONIC_MODEL_LIMITS.get(value, _NEWER)
        if chirp and value.startswith("chirp-"):
            return value, _NEWER
    listed = ", ".join(f"'{name}'" for name in known)
    raise invalid(f"The 'mv' field is invalid. The model should be one of {listed}.")
