"""Hide secrets in texts: error texts, log lines, and texts in our files. Data is never changed.

A peer that repeats the API key may encode it as in JSON (`\\/`, `\\u002b`), in a URL (`%2B`) or in HTML
(`&#43;`), or write it in lower case as the name of a header. So a text is searched twice: as it is, and with
all such spellings decoded. It is searched before it is cut, else a part of a secret could remain at the end.

A secret of less than 8 characters (`test`, `0`) is an ordinary word: it is hidden only where it is a whole
value, never as a part of a text.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from ..api.json_values import JSON
from ..errors import TEXT_LIMIT
from .codec import one_line

HIDDEN: Final = "[hidden]"
"""The text in the place of a secret."""
SHORTEST_HIDDEN: Final = 8
"""Characters of a secret that is hidden inside of a text, too."""
MOST_LEARNED: Final = 64
"""Secrets of single requests that are remembered, the latest ones."""
LONGEST_TEXT: Final = 256 * 1024
"""Characters of a text that are searched; the rest is cut off. No real reply has such a text."""
LONGEST_FORM: Final = 24
"""Characters that a spelling may take for one, such as an emoji in a URL inside of another."""

_MARKS: Final = re.compile(r"[\\%&+]")
_MARKS_OR_SPACE: Final = re.compile(r"[\\%&+ ]")
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
        secrets: those that are known from the start; empty ones are ignored.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: Final = {secret: _forms(secret) for secret in secrets if secret}
        self._learned: Final[dict[str, tuple[str, str]]] = {}
        self._sort()

    def _sort(self) -> None:
        """Prepare what each text is compared with."""
        secrets = {**self._known, **self._learned}
        self._long = [forms for secret, forms in secrets.items() if len(secret) >= SHORTEST_HIDDEN]
        self._short = {
            bare for secret, (_, bare) in secrets.items() if bare and len(secret) < SHORTEST_HIDDEN
        }
        self._margin = LONGEST_FORM * max(map(len, secrets), default=0)
        # In a form that was decoded a space may mean `+`. Few secrets have one, most texts have spaces.
        self._marks = _MARKS_OR_SPACE if any("+" in secret for secret in secrets) else _MARKS
        # A spelling is never shorter than its meaning, so shorter texts hold no secret.
        self._least = min((len(bare) for _, bare in self._long), default=0)

    def learn(self, secrets: Iterable[str]) -> None:
        """Hide these as well, such as the webhook secret of a request, from now on."""
        changed = False
        for secret in secrets:
            if secret and secret not in self._known:
                known = self._learned.pop(secret) if secret in self._learned else _forms(secret)
                self._learned[secret] = known  # the last one now
                changed = True
        while len(self._learned) > MOST_LEARNED:
            del self._learned[next(iter(self._learned))]
        if changed:
            self._sort()

    def text(self, text: str, limit: int = LONGEST_TEXT) -> str:
        """Return the first `limit` characters of `text`, with every secret hidden that begins in them."""
        if self._is_short_secret(text):
            return HIDDEN
        if not self._long or len(text) < self._least:
            return text[:limit]
        window = text[: limit + self._margin]
        lowered = _lower(window)
        undone = _undone(window) if self._marks.search(window) else None
        spans: list[tuple[int, int]] = []
        for plain, bare in self._long:
            spans += _places(lowered, plain)
            if undone is not None and bare and bare in undone:
                spans += _spelled_places(window, bare)
        return _covered(text, sorted(spans), limit)

    def line(self, text: str) -> str:
        """Return `text` as one line of an error text, with secrets hidden, cut to `TEXT_LIMIT` characters."""
        return one_line(self.text(text, 4 * TEXT_LIMIT))

    def name(self, name: str) -> str:
        """Return a name, such as that of a header, redacted; it is no value, so short secrets stay."""
        return name if self._is_short_secret(name) else self.text(name)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return a redacted copy of the headers of a reply, by their names in lower case."""
        return {self.name(name.lower()): self.text(value) for name, value in headers.items()}

    def copy(self, value: JSON, most: int = sys.maxsize) -> JSON:
        """Return a copy of a JSON value in which secrets are hidden.

        Args:
            value: the original; outer values come before inner ones.
            most: number of values that are copied; 16 characters of text count as one more. The rest is left
                out.
        """
        whole: list[JSON] = [None]
        waiting: deque[tuple[JSON, Callable[[JSON], None]]] = deque([(value, partial(whole.__setitem__, 0))])
        room = most
        while waiting:  # not by recursion: a body may be nested as deep as the decoder allows
            inner, put = waiting.popleft()
            if isinstance(inner, dict):
                fields: dict[str, JSON] = {}
                put(fields)
                for name, one in inner.items():
                    room -= 1 + len(name) // 16
                    if room < 0:
                        break
                    redacted = self.name(name)
                    fields[redacted] = None
                    waiting.append((one, partial(fields.__setitem__, redacted)))
            elif isinstance(inner, list):
                some = inner[: max(room, 0)]
                room -= len(some)
                items: list[JSON] = [None] * len(some)
                put(items)
                waiting += ((one, partial(items.__setitem__, at)) for at, one in enumerate(some))
            elif isinstance(inner, str):
                put(self.text(inner, min(LONGEST_TEXT, 16 * max(room, 0))))
                room -= len(inner) // 16
            else:
                put(self._number(inner))
        return whole[0]

    def _number(self, value: float | None) -> JSON:
        if isinstance(value, int) and abs(value) >= 10 ** (SHORTEST_HIDDEN - 1):
            return value if self.name(str(value)) == str(value) else HIDDEN
        return value

    def _is_short_secret(self, text: str) -> bool:
        if not self._short or len(text) > 16 * SHORTEST_HIDDEN:
            return False
        return _undone(text.strip()).removeprefix("bearer+") in self._short


NOTHING_KNOWN: Final = Redactor()
"""Hides nothing: for texts of a peer that was given no secret."""


def _lower(text: str) -> str:
    """Return `text` in lower case and of the same length, which two letters would change."""
    return text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")


def _forms(secret: str) -> tuple[str, str]:
    """Return a secret as it is searched in a text as it is, and in one with all spellings undone."""
    return _lower(secret), _undone(secret)


def _undone(text: str) -> str:
    """Return `text` in lower case with all spellings undone."""
    return _lower(_SPELLED.sub(_meant, text).translate(_SAME))


def _meant(spelled: re.Match[str]) -> str:
    """Return the characters that a spelling means."""
    match spelled.lastgroup:
        case "octets":
            octets = re.findall(r"[0-9a-f]{2}(?=[%\\]|$)", spelled[0], re.I)
            text = bytes.fromhex("".join(octets)).decode("utf-8", "replace")
        case "units":
            units = re.findall(r"[0-9a-f]{4}(?=\\|$)", spelled[0], re.I)
            text = bytes.fromhex("".join(units)).decode("utf-16-be", "replace")
        case "entity":
            import html  # rarely needed, and its table takes 2 ms

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
    """Find a secret where it is spelled out in `text`: whole spellings, also where they mean more."""
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
    """Return the first `limit` characters, with `HIDDEN` for each span that begins in them."""
    parts: list[str] = []
    done = 0
    for start, end in spans:
        if start >= limit:
            break
        if start >= done:
            parts += (text[done:start], HIDDEN)
        done = max(done, end)
    return "".join(parts) + text[done:limit]
