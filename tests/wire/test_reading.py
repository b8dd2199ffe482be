"""Replies become shapes, however odd they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async._wire.result_reading import read_clip, read_item, read_reply, read_stems
from musicapi_async.api.account import Credits
from musicapi_async.api.direct_replies import Bpm, Files, Note, Upload
from musicapi_async.api.lyrics import AlignedLyrics, LyricsDrafts, Word
from musicapi_async.api.results import Clip, Clips, Voice

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


@pytest.mark.parametrize(
    ("body", "total"),
    [
        ({"credits": 0}, 0.0),
        ({"data": {"credits": "12.5", "extra_credits": 3}}, 15.5),
        ({"extra_credits": 7, "credits": "soon"}, 7.0),
        ({"credits": -5, "extra_credits": 3}, -2.0),
        ({"credits": "-0.5"}, -0.5),
        ({"credits": "soon"}, None),
        ({"credits": None}, None),
        ({"credits": {}}, None),
        ({}, None),
    ],
)
def test_no_balance_is_made_up(body: dict[str, Any], total: float | None) -> None:
    """Zero is a balance; what is no number is none."""
    read = read_reply(Credits, body)
    assert (read and read.total) == total


def test_results_that_may_be_empty() -> None:
    """No versions of lyrics are a result, and no files are none; files without a link do not count."""
    drafts = read_reply(LyricsDrafts, {"results": []})
    assert drafts is not None
    assert len(drafts) == 0
    assert read_reply(LyricsDrafts, {"results": "soon"}) is None
    assert read_reply(Files, {"files": []}) is None
    assert read_reply(Files, {"files": [{"format": "wav"}]}) is None
    files = read_reply(Files, {"files": [{"format": "wav"}, {"format": "mp3", "url": "https://a.example/b"}]})
    assert files is not None
    assert files.by_format == {"mp3": "https://a.example/b"}


@pytest.mark.parametrize(
    ("body", "clip_id", "task_id"),
    [
        ({"id": "c"}, "c", None),
        ({"data": {"id": 7}}, "7", None),
        ({"id": "request", "data": {"clip_id": "c"}}, "c", None),
        ({"id": "request", "task_id": "t"}, None, "t"),
    ],
)
def test_an_uploaded_clip_has_its_id_under_either_name(
    body: dict[str, Any], clip_id: str | None, task_id: str | None
) -> None:
    """`id` is that of the clip only where neither a clip nor a task is named."""
    read = read_reply(Upload, body)
    assert read is not None
    assert (read.clip_id, read.task_id) == (clip_id, task_id)


def test_an_id_beside_an_error_is_no_clip() -> None:
    """It is one of the request."""
    assert read_reply(Upload, {"id": "x", "error": "refused"}) is None


def test_results_are_compared_by_their_value_and_have_no_hash() -> None:
    """Two reads of one body are equal; like lists they are no keys."""
    first, second = (read_stems(Clips([read_clip({"clip_id": "a"})], {"n": 1})) for _ in range(2))
    assert first == second
    assert first != read_stems(Clips([read_clip({"clip_id": "b"})], {"n": 1}))
    assert first != Clips([read_clip({"clip_id": "a"})], {"n": 1})
    assert Voice("p", raw={"n": 1}) == Voice("p", raw={"n": 1})
    for result in (first, Voice("p")):
        with pytest.raises(TypeError, match="unhashable"):
            hash(result)
