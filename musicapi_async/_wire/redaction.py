"""Hiding secrets in texts: error texts, log lines, and what our files keep. Data is never changed.

A peer that repeats the API key may write it as JSON does (`\\/`, `\\u002b`), as a URL does (`%2B`), as HTML
does (`&#43;`), or in lower case as the name of a header. So a text is searched twice: as it is, and with all
such spellings undone. It is searched before it is cut, else a part of a secret would stay at the end.

A secret of less than 8 characters (`test`, `0`) is an ordinary word: it is hidden only where it is a whole
value, never as a part of a text.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ..api.values import list_or_empty, mapping_or_empty
from ..errors import TEXT_LIMIT
from .codec import one_line

HIDDEN: Final = "[hidden]"
"""Stands for a secret."""
LEAST: Final = 8
"""Characters of a secret that is hidden inside of a text, too."""
LEARNED: Final = 64
"""Secrets of single requests that are remembered, the latest ones."""
LONGEST: Final = 256 * 1024
"""Characters of a text that are looked through; the rest is cut off. No real reply has such a text."""
WIDEST: Final = 24
"""Characters that a spelling may take for one, such as an emoji in a URL inside of another."""

_MARKS: Final = re.compile(r"[\\%&+]")
_SPELLED: Final = re.compile(
    r"(?P<octets>(?:%(?:25)*[0-9a-f]{2}|\\++x[0-9a-f]{2})++)"
    r"|(?P<units>(?:\\++u[0-9a-f]{4})++)"
    r"|(?P<entity>&(?:\#\d{1,7}|\#x[0-9a-f]{1,6}|amp|lt|gt|quot|apos);)"
    r"|\\++",
    re.IGNORECASE,
)
"""Spellings of characters; backslashes in any number, as JSON inside of JSON has more of them."""
_SAME: Final = str.maketrans("\b\f\n\r\t ", "bfnrt+", "\\")
"""With backslashes left out, `\\n` and a new line are the same; in a URL a space and `+` are."""


class Redactor:
    """Hides known secrets in texts.

    Args:
        secrets: those that are known from the start; empty ones count for nothing.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: Final = {secret: _forms(secret) for secret in secrets if secret}
        self._learned: Final[dict[str, tuple[str, str]]] = {}

    def learn(self, secrets: Iterable[str]) -> None:
        """Hide these as well, such as the webhook secret of a request, from now on."""
        for secret in secrets:
            if secret and secret not in self._known:
                known = self._learned.pop(secret) if secret in self._learned else _forms(secret)
                self._learned[secret] = known  # the last one now
        while len(self._learned) > LEARNED:
            del self._learned[next(iter(self._learned))]

    def text(self, text: str, limit: int = LONGEST) -> str:
        """The first `limit` characters of `text`, with every secret hidden that begins in them."""
        if self._is_short_secret(text):
            return HIDDEN
        secrets = [(secret, forms) for secret, forms in self._all() if len(secret) >= LEAST]
        margin = WIDEST * max((len(secret) for secret, _ in secrets), default=0)
        window = text[: limit + margin]
        lowered = _lower(window)
        undone = _undone(window) if _MARKS.search(window) else None
        spans: list[tuple[int, int]] = []
        for _, (plain, bare) in secrets:
            spans += _places(lowered, plain)
            if undone is not None and bare in undone:
                spans += _spelled_places(window, bare)
        return _covered(text, sorted(spans), limit)

    def line(self, text: str) -> str:
        """`text` as one line for an error text, with secrets hidden, cut to `TEXT_LIMIT` characters."""
        return one_line(self.text(text, 4 * TEXT_LIMIT))

    def name(self, name: str) -> str:
        """A name, such as that of a header or of a field, which is no value: short secrets stay."""
        return name if self._is_short_secret(name) else self.text(name)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """A copy of the headers of a reply, by their names in lower case."""
        return {self.name(name.lower()): self.text(value) for name, value in headers.items()}

    def copy(self, value: Any) -> Any:
        """A copy of a JSON value in which secrets are hidden."""
        whole: list[Any] = [None]
        waiting: list[tuple[Any, dict[str, Any] | list[Any], Any]] = [(value, whole, 0)]
        while waiting:  # not by recursion: what comes may be nested as deep as the decoder allows
            inner, holder, place = waiting.pop()
            if isinstance(inner, dict):
                fields: dict[str, Any] = {self.name(name): None for name in mapping_or_empty(inner)}
                holder[place] = fields
                waiting += ((one, fields, self.name(name)) for name, one in mapping_or_empty(inner).items())
            elif isinstance(inner, list):
                items: list[Any] = [None] * len(list_or_empty(inner))
                holder[place] = items
                waiting += ((one, items, at) for at, one in enumerate(list_or_empty(inner)))
            else:
                holder[place] = self._leaf(inner)
        return whole[0]

    def _leaf(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int) and abs(value) >= 10 ** (LEAST - 1):
            return value if self.name(str(value)) == str(value) else HIDDEN
        return value

    def _all(self) -> Iterator[tuple[str, tuple[str, str]]]:
        yield from self._known.items()
        yield from self._learned.items()

    def _is_short_secret(self, text: str) -> bool:
        word = text[: 16 * LEAST].strip()
        if len(text) > 16 * LEAST or not word:
            return False
        told = _undone(word).removeprefix("bearer+")
        return any(len(secret) < LEAST and told == bare for secret, (_, bare) in self._all())


NOTHING_KNOWN: Final = Redactor()
"""Hides nothing: for texts of a peer that was given no secret."""


def _lower(text: str) -> str:
    """`text` in lower case, of the same length: two letters need help for that."""
    return text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")


def _forms(secret: str) -> tuple[str, str]:
    """A secret as it is found in a text as it is, and in one with all spellings undone."""
    return _lower(secret), _undone(secret)


def _undone(text: str) -> str:
    """`text` in lower case with all spellings undone."""
    return _lower(_SPELLED.sub(_meant, text).translate(_SAME))


def _meant(spelled: re.Match[str]) -> str:
    """The characters that a spelling stands for."""
    match spelled.lastgroup:
        case "octets":
            octets = re.findall(r"[0-9a-f]{2}(?=[%\\]|$)", spelled[0], re.I)
            text = bytes.fromhex("".join(octets)).decode("utf-8", "replace")
        case "units":
            units = re.findall(r"[0-9a-f]{4}(?=\\|$)", spelled[0], re.I)
            text = bytes.fromhex("".join(units)).decode("utf-16-be", "replace")
        case "entity":
            text = html.unescape(spelled[0])
        case _:
            text = ""
    return text.translate(_SAME)


def _places(text: str, wanted: str) -> Iterator[tuple[int, int]]:
    start = text.find(wanted)
    while start >= 0:
        yield start, start + len(wanted)
        start = text.find(wanted, start + len(wanted))


def _spelled_places(text: str, bare: str) -> Iterator[tuple[int, int]]:
    """Where in `text` a secret is spelled out; whole spellings, also where they stand for more."""
    starts: list[int] = []  # in the undone text
    spans: list[tuple[int, int, int]] = []  # the end there; start and end in `text`
    shift = 0
    for spelled in _SPELLED.finditer(text):
        start = spelled.start() - shift
        end = start + len(_meant(spelled))
        starts.append(start)
        spans.append((end, spelled.start(), spelled.end()))
        shift = spelled.end() - end

    def origin(at: int) -> tuple[int, int]:
        known = bisect_right(starts, at) - 1
        if known < 0:
            return at, at + 1
        end, first, last = spans[known]
        return (first, last) if at < end else (last + at - end, last + at - end + 1)

    for start, end in _places(_undone(text), bare):
        yield origin(start)[0], origin(end - 1)[1]


def _covered(text: str, spans: list[tuple[int, int]], limit: int) -> str:
    """The first `limit` characters, with `HIDDEN` for each span that begins in them."""
    parts: list[str] = []
    done = 0
    for start, end in spans:
        if start >= limit:
            break
        if start >= done:
            parts += (text[done:start], HIDDEN)
        done = max(done, end)
    return "".join(parts) + text[done:limit]
