"""Words: lyrics for a description, fuller tags, and how syllables are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async.sandbox.lyric_writer import read_lyrics, syllables, upsample_tags, write_lyrics


def test_two_songs_are_written_about_the_description():
    """Both have a title, verses and choruses and sing about the subject; they are not the same."""
    songs = write_lyrics("a song about lighthouses and storms", 1)
    assert len(songs) == 2
    assert songs[0] != songs[1]
    for title, text in songs:
        assert title
        assert text.startswith("[Verse]\n")
        assert "[Chorus]" in text
        assert "lighthouses" in text or "storms" in text
    assert write_lyrics("a song about lighthouses and storms", 1) == songs
    assert write_lyrics("a song about lighthouses and storms", 2) != songs


def test_another_script_is_kept():
    """A description that is not in Latin letters is answered in its own words."""
    for title, text in write_lyrics("песня про дождь и реку", 3):
        assert title.lower() in "песня про дождь и реку"
        assert "the" not in text


def test_tags_grow_and_keep_what_was_given():
    """The given tags come first; known words bring their sound along."""
    fuller = upsample_tags("pop, happy", 1)
    assert fuller.startswith("pop, happy, catchy hooks")
    assert fuller == upsample_tags("pop, happy", 1)
    assert upsample_tags("", 1)


@given(text=st.text(st.characters(exclude_categories=()), max_size=300), seed=st.integers())
def test_any_text_gets_lyrics_and_tags(text: str, seed: int):
    """No description and no tags make the poet fail."""
    assert [bool(title and words) for title, words in write_lyrics(text, seed)] == [True, True]
    assert len(upsample_tags(text, seed)) < 1000


@given(text=st.text(max_size=300))
def test_reading_lyrics_loses_no_word(text: str):
    """Every letter and digit outside of section tags is sung, in order."""

    def letters(source: str) -> str:
        return "".join(character for character in source if character.isalnum())

    words = "".join(word for verse in read_lyrics(text) for line in verse.lines for word in line)
    assert letters(words) == letters(text[: len(text)]) or "[" in text
    assert all(1 <= len(syllables(word)) <= 6 for word in words.split())


@pytest.mark.parametrize(
    ("word", "count"),
    [("rain", 1), ("river", 2), ("tomorrow", 3), ("home", 1), ("hmm", 1), ("雨", 1), ("schön", 1)],
)
def test_syllables_are_counted_as_they_are_sung(word: str, count: int):
    """A silent e is not sung; a word without vowels has one syllable."""
    assert len(syllables(word)) == count


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Final Chorus 2", "chorus"),
        ("Pre-Chorus", "pre-chorus"),
        ("guitar solo", "solo"),
        ("Outro", "outro"),
        ("X", "verse"),
    ],
)
def test_section_names_are_understood(name: str, kind: str):
    """What is not known is a verse."""
    assert [section.kind for section in read_lyrics(f"[{name}]\nla")] == [kind]
