"""Bodies that are not quite JSON: what is read in spite of which fault, and what is not used after a repair."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async._wire import codec, poll_response, response
from musicapi_async._wire.result_reading import read_clip, read_reply
from musicapi_async.api.direct_replies import Files, Midi, Persona, Upload, Wav
from musicapi_async.api.sonic import Sonic
from musicapi_async.api.task import TaskRef

LEAVES: list[tuple[bytes, Any]] = [
    (b'"plain"', "plain"),
    (b"12", 12),
    (b"1.5", 1.5),
    (b"true", True),
    (b"null", None),
    (b'"caf\xe9"', "caf\ufffd"),
    (b'"cut \\ud83d"', "cut \ufffd"),
    (b'"\\ude00 first"', "\ufffd first"),
    (b'"whole \\ud83d\\ude00"', "whole \U0001f600"),
    (b'"no escape \\\\ud83d"', "no escape \\ud83d"),
    (b'"two\tcolumns\nand lines\x00"', "two\tcolumns\nand lines\x00"),
    (b"NaN", None),
    (b"Infinity", None),
    (b"-Infinity", None),
    (b"nan", None),
    (b"inf", None),
    (b"-inf", None),
    *((word, None) for word in (b"NAN", b"-NaN", b"INF", b"+Inf", b"-INFINITY", b"infinity")),
    (b'"nan, inf and \\"-inf"', 'nan, inf and "-inf'),
    (b"1e999", None),
    (b"-1.5E+400", None),
    (b"1" * 5000, None),
]
"""Values as they are written, and as they are to be read."""

leaves = st.sampled_from(LEAVES)
keys = st.text(st.characters(codec="ascii", exclude_characters='"\\', min_codepoint=32), max_size=5)


def _list(items: list[tuple[bytes, Any]]) -> tuple[bytes, Any]:
    return b"[" + b", ".join(raw for raw, _ in items) + b"]", [value for _, value in items]


def _object(fields: dict[str, tuple[bytes, Any]]) -> tuple[bytes, Any]:
    pairs = (json.dumps(name).encode() + b":" + raw for name, (raw, _) in fields.items())
    return b"{" + b",".join(pairs) + b"}", {name: value for name, (_, value) in fields.items()}


bodies = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4).map(_list) | st.dictionaries(keys, inner, max_size=4).map(_object)
    ),
    max_leaves=12,
)


@given(bodies)
def test_faults_of_the_usual_kinds_cost_nothing_else(body: tuple[bytes, Any]) -> None:
    """Each value is read as it is meant, wherever it stands and whatever stands beside it."""
    raw, expected = body
    value = codec.decode(raw)
    assert value == expected
    assert msgspec.json.decode(msgspec.json.encode(value)) == expected


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_valid_json_is_never_repaired(value: Any) -> None:
    """What can be read strictly is read so, and no repair is reported."""
    repairs: list[str] = []
    raw = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if b"\xed\xa0" not in raw:
        assert codec.decode(raw, repairs.append) == value
        assert repairs == []


@given(st.binary(max_size=60), st.sampled_from([b'{"a":"%s"}', b"[%s]", b'{"%s":1}', b"%s"]))
def test_no_body_raises_anything_else(raw: bytes, frame: bytes) -> None:
    """Any bytes in any place are a JSON value that can be written again, or `MalformedBody`."""
    try:
        value = codec.decode(frame.replace(b"%s", raw))
    except codec.MalformedBody:
        return
    msgspec.json.encode(value)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{", b"<html>\xe9", b"{'a':1}", b'{"a":NaN', b'{"a":1}\xe9', b'"\\ud8"', b"[1,]"),
        *(b"nano", b"[1nan]", b"[--inf]", b"{nan:1}"),
    ],
)
def test_what_is_no_json_stays_so(raw: bytes) -> None:
    """A repair never makes up what is missing."""
    with pytest.raises(codec.MalformedBody):
        codec.decode(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'"' + b"\xff" * 1_000_000 + b'"',
        b"[" + b"NaN," * 300_000 + b"1]",
        b"[" + b"1" * 1_000_000 + b"]",
        b"[NaN," + b"0." + b"1" * 1_000_000 + b"]",
        b"\xff" + b"[" * 1_000_000,
        b'["\xff",' + b"[" * 1_000_000,
        b'{"a\t":' * 200_000,
        b'"' + b"\\ud83d" * 200_000 + b'"',
        b'"' + b'\\"' * 500_000,
        b"[" + b"nan," * 250_000 + b'"',
        b"\x00" * 1_000_000,
    ],
    ids=lambda raw: repr(raw[:8]),
)
def test_a_hostile_megabyte_takes_a_moment(raw: bytes) -> None:
    """Reading is linear in the size, and too deep is malformed; the limit is generous for slow machines."""
    started = time.process_time()
    with contextlib.suppress(codec.MalformedBody):
        codec.decode(raw)
    assert time.process_time() - started < 5


def test_each_kind_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A log line for the first repair of a kind, none for those that follow."""
    log = codec.RepairLog("an answer")
    for _ in range(3):
        codec.decode(b'{"a":"\xe9","b":NaN}', log)
    assert [record.getMessage() for record in caplog.records] == [
        "an answer was not valid JSON (not UTF-8) and was repaired; this is logged once",
        "an answer was not valid JSON (no finite number) and was repaired; this is logged once",
    ]


# --- ids and links ----------------------------------------------------------------------------------------

BROKEN = ["abc\ufffd", "a\tb", "\ufffd", "https://cdn.example/a\ufffd.mp3", "https://cdn.example/a\nb.mp3"]


@pytest.mark.parametrize("broken", BROKEN)
def test_ids_and_links_that_were_repaired_are_not_used(broken: str) -> None:
    """They count as missing; the body as it was read stays in `raw`."""
    clip = read_clip({"clip_id": broken, "state": "succeeded", "title": broken, "audio_url": broken})
    assert (clip.clip_id, clip.audio_url, clip.final_url, clip.title) == ("", None, None, broken)
    assert clip.raw["audio_url"] == broken
    assert read_reply(Wav, {"wav_url": broken}) is None
    assert read_reply(Persona, {"persona_id": broken}) is None
    assert read_reply(Upload, {"clip_id": broken, "data": {"task_id": broken}}) is None
    assert read_reply(Files, {"data": {"files": [{"format": "wav", "url": broken}]}}) is None
    midi = read_reply(Midi, {"midi_url": broken})
    assert midi is not None
    assert not midi.ready


def test_a_finished_poll_with_a_cut_emoji_is_finished() -> None:
    """The title is cut; state and link are whole, so the song is done."""
    raw = (
        b'{"data":[{"clip_id":"c","state":"succeeded","title":"Rain \\ud83d","duration":NaN,'
        b'"lyrics":"caf\xe9\tau lait","audio_url":"https://cdn.example/c.mp3"}]}'
    )
    polled = Sonic.operations()["create_music"].polled
    assert polled is not None
    result = poll_response.judge_poll(
        response.read_response(200, {}, raw), ref=TaskRef("sonic", "t"), polled=polled
    )
    assert result.phase == "done"
    assert result.result is not None
    (clip,) = result.result.clips
    assert (clip.title, clip.duration, clip.lyrics) == ("Rain \ufffd", None, "caf\ufffd\tau lait")
    assert clip.final_url == "https://cdn.example/c.mp3"
