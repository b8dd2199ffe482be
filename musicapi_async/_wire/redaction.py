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
import sys
from bisect import bisect_right
from collections import deque
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
    r"|(?P<entity>&(?:\#\d{1,7}|\#x[0-9a-f]{1,6}|[a-z]{2,31}\d{0,2});)"
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
        self._sort()

    def _sort(self) -> None:
        """Prepare what each text is compared with."""
        secrets = {**self._known, **self._learned}
        self._long = [forms for secret, forms in secrets.items() if len(secret) >= LEAST]
        self._short = {bare for secret, (_, bare) in secrets.items() if bare and len(secret) < LEAST}
        self._margin = WIDEST * max(map(len, secrets), default=0)
        # A spelling is never shorter than what it stands for, so shorter texts hold no secret.
        self._least = min((len(bare) for _, bare in self._long), default=0)

    def learn(self, secrets: Iterable[str]) -> None:
        """Hide these as well, such as the webhook secret of a request, from now on."""
        changed = False
        for secret in secrets:
            if secret and secret not in self._known:
                known = self._learned.pop(secret) if secret in self._learned else _forms(secret)
                self._learned[secret] = known  # the last one now
                changed = True
        while len(self._learned) > LEARNED:
            del self._learned[next(iter(self._learned))]
        if changed:
            self._sort()

    def text(self, text: str, limit: int = LONGEST) -> str:
        """The first `limit` characters of `text`, with every secret hidden that begins in them."""
        if self._is_short_secret(text):
            return HIDDEN
        if not self._long or len(text) < self._least:
            return text[:limit]
        window = text[: limit + self._margin]
        lowered = _lower(window)
        undone = _undone(window) if _MARKS.search(window) else None
        spans: list[tuple[int, int]] = []
        for plain, bare in self._long:
            spans += _places(lowered, plain)
            if undone is not None and bare and bare in undone:
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

    def copy(self, value: Any, most: int = sys.maxsize) -> Any:
        """A copy of a JSON value in which secrets are hidden.

        Args:
            value: what to copy; outer values come before inner ones.
            most: values that are copied; 16 characters of text count as one more. The rest is left out.
        """
        whole: list[Any] = [None]
        waiting: deque[tuple[Any, dict[str, Any] | list[Any], Any]] = deque([(value, whole, 0)])
        left = most
        while waiting:  # not by recursion: what comes may be nested as deep as the decoder allows
            inner, holder, place = waiting.popleft()
            if isinstance(inner, dict):
                fields: dict[str, Any] = {}
                holder[place] = fields
                for name, one in mapping_or_empty(inner).items():
                    left -= 1 + len(name) // 16
                    if left < 0:
                        break
                    shown = self.name(name)
                    fields[shown] = None
                    waiting.append((one, fields, shown))
            elif isinstance(inner, list):
                some = list_or_empty(inner)[: max(left, 0)]
                left -= len(some)
                items: list[Any] = [None] * len(some)
                holder[place] = items
                waiting += ((one, items, at) for at, one in enumerate(some))
            elif isinstance(inner, str):
                holder[place] = self.text(inner, min(LONGEST, 16 * max(left, 0)))
                left -= len(inner) // 16
            else:
                holder[place] = self._number(inner)
        return whole[0]

    def _number(self, value: Any) -> Any:
        if isinstance(value, int) and abs(value) >= 10 ** (LEAST - 1):
            return value if self.name(str(value)) == str(value) else HIDDEN
        return value

    def _is_short_secret(self, text: str) -> bool:
        if not self._short or len(text) > 16 * LEAST:
            return False
        return _undone(text.strip()).removeprefix("bearer+") in self._short


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
