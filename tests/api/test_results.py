"""Clips, stems, subtitles: what replies become, however odd they are."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import musicapi_async.api as room
from musicapi_async.api import replies
from musicapi_async.api.lyrics import AlignedLyrics, LyricsDrafts
from musicapi_async.api.results import Clip, Clips
from musicapi_async.api.stems import Stems

MODULES = [
    importlib.import_module(f"{room.__name__}.{found.name}") for found in pkgutil.iter_modules(room.__path__)
]
STRUCTS = sorted(
    {
        kind
        for module in MODULES
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, msgspec.Struct) and kind.__module__.startswith("musicapi_async")
    },
    key=lambda kind: (kind.__module__, kind.__name__),
)


@pytest.mark.parametrize(
    "kind", STRUCTS, ids=lambda kind: f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"
)
def test_a_decoder_can_be_built_for_every_struct(kind: type[msgspec.Struct]) -> None:
    """All annotations resolve at run time; one that does not would fail at the first reply."""
    assert msgspec.json.Decoder(kind)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(Clip.__struct_encode_fields__[1:]), JSON))
def test_a_clip_reads_anything(mapping: dict[str, Any]) -> None:
    """No field raises whatever it holds; the raw mapping stays; links are links."""
    clip = Clip.read(mapping)
    assert clip.raw == mapping or any(value != value for value in mapping.values())
    assert clip.final_url is None or clip.is_succeeded
    assert not (clip.final_url and clip.stream_url)
    assert clip.duration is None or clip.duration >= 0
    assert clip.created is None or clip.created
    assert repr(clip)


@pytest.mark.parametrize(
    ("state", "url", "stream", "final"),
    [
        ("running", "https://audiopipe.suno.ai/?item_id=c", True, False),
        ("running", "https://cdn1.suno.ai/c.mp3", True, False),
        ("succeeded", "https://audiopipe.suno.ai/?item_id=c", True, False),
        ("succeeded", "https://cdn1.suno.ai/c.mp3", False, True),
        ("succeeded", None, False, False),
        ("succeeded", "", False, False),
        ("succeeded", "not a link", True, False),
    ],
)
def test_a_stream_is_no_file(state: str, url: str | None, stream: bool, final: bool) -> None:
    """The finished file and early audio are never mixed up."""
    clip = Clip.read({"clip_id": "c", "state": state, "audio_url": url})
    assert (clip.stream_url is not None, clip.final_url is not None) == (stream, final)


@pytest.mark.parametrize(
    ("value", "seconds"), [("104.88", 104.88), (3, 3.0), (None, None), ("", None), (-1, None)]
)
def test_duration_comes_in_any_type(value: Any, seconds: float | None) -> None:
    """Text, integer and number are seconds; anything else is None."""
    assert Clip.read({"duration": value}).duration == seconds


def test_stems_of_one_name_are_numbered() -> None:
    """Names come from stem_type, the title, or the place; a repeated name gets a number."""
    clips = [
        Clip.read({"stem_type": "Drums"}),
        Clip.read({"title": "My-Song - drums"}),
        Clip.read({"title": "no dash"}),
    ]
    assert list(Stems.of(Clips(clips)).by_name) == ["drums", "drums 2", "2"]


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
def test_a_stem_is_named_by_its_title(title: str | None, name: str) -> None:
    """After a dash between spaces, else in the last brackets, else by its place; hyphens stay in words."""
    clips = Clips([Clip.read({"clip_id": "c", "title": title})])
    assert Stems.of(clips)[0].name == name


def test_an_upload_has_its_id_under_either_name() -> None:
    """`clip_id`, else `id`; an error with an id of its own is no upload."""
    for body in ({"clip_id": "c", "id": "x"}, {"id": "c"}, {"data": {"id": "c"}}):
        upload = replies.Upload.from_body(body)
        assert upload is not None
        assert upload.clip_id == "c"
    assert replies.Upload.from_body({"id": "request-1", "error": "no"}) is None
    tasked = replies.Upload.from_body({"id": "x", "task_id": "t"})
    assert tasked is not None
    assert tasked.clip_id is None


def words(*items: tuple[str, Any, Any]) -> AlignedLyrics:
    found = AlignedLyrics.from_body(
        {
            "data": {
                "alignment": [{"word": word, "start_s": start, "end_s": end} for word, start, end in items]
            }
        }
    )
    assert found is not None
    return found


def test_aligned_lyrics_become_subtitles() -> None:
    """Lines end at line breaks, section marks are left out, times are those of the words."""
    found = words(("[Verse]\nFirst ", 1.2, 1.6), ("line\n", 1.6, 2.05), ("Second", 62.5, "63.25"))
    assert found.lrc() == "[00:01.20]First line\n[01:02.50]Second\n"
    assert found.srt() == (
        "1\n00:00:01,200 --> 00:00:02,050\nFirst line\n\n2\n00:01:02,500 --> 00:01:03,250\nSecond\n"
    )
    assert [line.text for line in found.lines(sections=True)] == ["[Verse]", "First line", "Second"]


def test_no_words_are_no_subtitles() -> None:
    """An empty list gives empty files, and what is no word is kept in the raw body only."""
    empty = AlignedLyrics.from_body({"data": {"alignment": [None, "x"]}})
    assert empty is not None
    assert (empty.words, empty.lrc(), empty.srt(), empty.is_empty) == ([], "", "", True)
    assert empty.raw == {"data": {"alignment": [None, "x"]}}


TIMES = st.none() | st.floats() | st.integers(-5, 10**6) | st.just("7.5")


@given(st.lists(st.tuples(st.sampled_from(["a", " b\n", "\n", "[x]\nc", "d\ne\n\nf ", ""]), TIMES, TIMES)))
def test_subtitles_never_run_backwards(items: list[tuple[str, Any, Any]]) -> None:
    """Whatever the times are, cues are in order, end after they start, and do not overlap."""
    found = words(*items)
    lines = found.lines()
    clock = 0.0
    for line in lines:
        assert clock <= line.start <= line.end
        clock = line.start
    assert found.srt().count(" --> ") == len(lines)
    assert found.lrc().count("\n") == len(lines)


def test_lyrics_are_a_sequence_of_versions() -> None:
    """Any number of versions, also none."""
    drafts = LyricsDrafts.from_body({"results": [{"title": "t", "lyrics": "l"}, 5]})
    assert drafts is not None
    assert [(one.title, one.lyrics) for one in drafts] == [("t", "l")]
    assert drafts[0].raw == {"title": "t", "lyrics": "l"}
    none = LyricsDrafts.from_body({"results": []})
    assert none is not None
    assert len(none) == 0
