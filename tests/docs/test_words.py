"""One thing has one word: what remains of the old ones only shrinks."""

from __future__ import annotations

import pytest
import words

LISTED = words.remaining()


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    """The offenders that are there."""
    return words.found()


def test_no_new_old_word(found: dict[str, set[str]]) -> None:
    """A word that has a better one is in no name or text, but for those listed as remaining."""
    new = [
        f"{place}: {word!r} (better: {words.suggestion(word)})"
        for place, there in found.items()
        for word in sorted(there - LISTED.get(place, set()))
    ]
    assert not new, "\n".join(new)


def test_list_names_only_what_is_there(found: dict[str, set[str]]) -> None:
    """An entry that is no longer needed is taken out: python tests/docs/words.py --write."""
    gone = {place: sorted(listed - found.get(place, set())) for place, listed in LISTED.items()}
    assert not {place: listed for place, listed in gone.items() if listed}


def test_names_are_read_word_by_word() -> None:
    """A part of a name counts as much as the whole; a longer word that holds it does not."""
    assert list(words.in_name("Told")) == ["told"]
    assert list(words.in_name("has_toldAgain")) == ["told", "again"]
    assert list(words.in_name("return_coreutils")) == []
    assert list(words.in_name("max_in_flight")) == []


def test_texts_are_read_by_phrase() -> None:
    """Across lines, and not inside code in backquotes."""
    assert list(words.in_text("It goes\n  on (contract, tasks 5).")) == ["goes-on", words.SECTION]
    assert list(words.in_text("`task.told` is looked up here")) == []
