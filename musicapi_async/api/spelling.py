"""A misspelt word and the right one that is nearest to it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

LONGEST: Final = 60
"""Characters of a word that are compared; none of ours is longer, and comparing takes time."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` most likely stands for, or None if none is near."""
    by_plain = {_plain(name): name for name in known}
    found = get_close_matches(_plain(word[:LONGEST]), by_plain, n=1)
    return by_plain[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to put behind the text of an error, with a blank before it; nothing if no word is near."""
    found = nearest(word, known)
    return "" if found is None else f" (did you mean {found!r}?)"


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_")
