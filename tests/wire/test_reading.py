"""Replies become shapes, however odd they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async._wire.reading import read_clip, read_item, read_reply, read_stems
from musicapi_async.api.lyrics import AlignedLyrics, LyricsDrafts, Word
from musicapi_async.api.replies import Bpm, Note, Upload
from musicapi_async.api.results import Clip, Clips

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(Clip.__struct_encode_fields__[1:]), JSON))
def test_clip_reads_anything(mapping: dict[str, Any]) -> None:
    """No field raises whatever it holds; the raw mapping stays; links are links."""
    clip = read_clip(mapping)
    assert clip.raw == mapping or any(value != value for value in mapping.values())
    assert clip.final_url is None or clip.is_succeeded
    assert not (clip.final_url and clip.stream_url)
    assert clip.duration is None or clip.duration >= 0
    assert clip.created is None or clip.created
    assert repr(clip)


@pytest.mark.parametrize(
    ("value", "seconds"), [("104.88", 104.88), (3, 3.0), (None, None), ("", None), (-1, None)]
)
def test_duration_comes_in_any_type(value: Any, seconds: float | None) -> None:
    """Text, integer and number are seconds; anything else is None."""
    assert read_clip({"duration": value}).duration == seconds


@pytest.mark.parametrize("odd", [-1, float("nan"), float("inf"), "-2", "soon", {}, True])
def test_odd_numbers_count_as_missing(odd: Any) -> None:
    """Seconds, beats and shares are finite and not negative, a pitch is one of 128; the rest is still read."""
    bpm = read_reply(Bpm, {"data": {"avg_bpm": odd, "max_bpm": "120.5"}})
    assert bpm is not None
    assert (bpm.avg_bpm, bpm.max_bpm) == (None, 120.5)
    word = read_item(Word, {"word": "rain", "start_s": odd, "end_s": 2})
    assert (word.word, word.start_s, word.end_s) == ("rain", None, 2)
    assert [read_item(Note, {"pitch": pitch}).pitch for pitch in (odd, 128, "127")] == [None, None, 127]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Example Title - Vocals", "vocals"),
        ("A - B - Backing Vocals", "backing vocals"),
        ("Example \u2013 Drums", "drums"),
        ("Example \u2014 Bass", "bass"),
        ("Lo-Fi \u2013 Night - Lead Guitar", "lead guitar"),
        ("Song - Hi-Hat", "hi-hat"),
        ("Song - FX/Other", "fx/other"),
        ("Lo-Fi Beat (Instrumental)", "instrumental"),
        ("Lo-Fi Beat [Vocals]", "vocals"),
        ("Rain (Live) (Backing Vocals)", "backing vocals"),
        ("Rain (Live) - Keys", "keys"),
        ("Rain ( Drums )", "drums"),
        ("Rain ()", "0"),
        ("Lo-Fi Beat", "0"),
        ("Rain -", "0"),
        ("Rain - ", "0"),
        ("Rain - (Bass)", "(bass)"),
        ("", "0"),
        (None, "0"),
    ],
)
def test_stem_is_named_by_its_title(title: str | None, name: str) -> None:
    """After a dash between spaces, else in the last brackets, else by its place; hyphens stay in words."""
    clips = Clips([read_clip({"clip_id": "c", "title": title})])
    assert read_stems(clips)[0].name == name


def test_upload_has_its_id_under_either_name() -> None:
    """`clip_id`, else `id`; an error with an id of its own is no upload."""
    for body in ({"clip_id": "c", "id": "x"}, {"id": "c"}, {"data": {"id": "c"}}):
        upload = read_reply(Upload, body)
        assert upload is not None
        assert upload.clip_id == "c"
    assert read_reply(Upload, {"id": "request-1", "error": "no"}) is None
    tasked = read_reply(Upload, {"id": "x", "task_id": "t"})
    assert tasked is not None
    assert tasked.clip_id is None


def test_no_words_give_no_subtitles() -> None:
    """An empty list gives empty files, and what is no word is kept in the raw body only."""
    empty = read_reply(AlignedLyrics, {"data": {"alignment": [None, "x"]}})
    assert empty is not None
    assert (empty.words, empty.lrc(), empty.srt(), empty.is_empty) == ([], "", "", True)
    assert empty.raw == {"data": {"alignment": [None, "x"]}}


def test_lyrics_are_a_sequence_of_versions() -> None:
    """Any number of versions, also none."""
    drafts = read_reply(LyricsDrafts, {"results": [{"title": "t", "lyrics": "l"}, 5]})
    assert drafts is not None
    assert [(one.title, one.lyrics) for one in drafts] == [("t", "l")]
    assert drafts[0].raw == {"title": "t", "lyrics": "l"}
    none = read_reply(LyricsDrafts, {"results": []})
    assert none is not None
    assert len(none) == 0
