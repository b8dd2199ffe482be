"""Clips, stems, subtitles: what replies become, however odd they are."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import musicapi_async.api as room
from musicapi_async._wire.result_reading import read_clip, read_reply, read_stems
from musicapi_async.api.lyrics import AlignedLyrics
from musicapi_async.api.results import Clip, Clips

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
def test_every_struct_has_a_decoder(kind: type[msgspec.Struct]) -> None:
    """All annotations resolve at run time; one that does not would fail at the first reply."""
    assert msgspec.json.Decoder(kind)


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
def test_stream_is_no_file(state: str, url: str | None, stream: bool, final: bool) -> None:
    """The finished file and early audio are never mixed up."""
    clip = read_clip({"clip_id": "c", "state": state, "audio_url": url})
    assert (clip.stream_url is not None, clip.final_url is not None) == (stream, final)


def test_stems_of_one_name_are_numbered() -> None:
    """Names come from stem_type, the title, or the place; a repeated name gets a number."""
    clips = [
        read_clip({"stem_type": "Drums"}),
        read_clip({"title": "My-Song - drums"}),
        read_clip({"title": "no dash"}),
    ]
    assert list(read_stems(Clips(clips)).by_name) == ["drums", "drums 2", "2"]


def words(*items: tuple[str, Any, Any]) -> AlignedLyrics:
    found = read_reply(
        AlignedLyrics,
        {
            "data": {
                "alignment": [{"word": word, "start_s": start, "end_s": end} for word, start, end in items]
            }
        },
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


def test_field_of_a_clip_is_not_one_of_all_clips() -> None:
    """The text says how to get it; other names are as unknown as anywhere."""
    clips: Any = Clips([Clip(clip_id="c")])
    with pytest.raises(
        AttributeError, match=r"'Clips' .* 'audio_url'; that of a clip is clips\[0\]\.audio_url$"
    ):
        _ = clips.audio_url
    with pytest.raises(AttributeError, match=r"'Clips' object has no attribute 'links'$"):
        _ = clips.links
    assert pickle.loads(pickle.dumps(clips)) == copy.deepcopy(clips) == clips
