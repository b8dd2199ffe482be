"""Requests are checked before they are sent: each documented limit, exactly at it and one over."""

from __future__ import annotations

import math
from typing import Any

import pytest

from musicapi_async.api import nuro
from musicapi_async.api.families import FAMILIES, polled_as
from musicapi_async.api.nuro import Segment
from musicapi_async.api.request import body, violations

SONG = {"mv": "sonic-v6", "prompt": "la"}
PART = {"continue_clip_id": "c"}
BASES: dict[str, dict[str, Any]] = {
    "sonic.create_music": SONG,
    "sonic.extend_music": {**SONG, **PART, "continue_at": 1, "custom_mode": True},
    "sonic.cover_music": {**SONG, **PART},
    "sonic.persona_music": {**SONG, "persona_id": "p"},
    "sonic.remaster": {**PART, "mv": "sonic-v5"},
    "sonic.add_vocals": {**SONG, **PART},
    "sonic.add_instrumental": {**PART, "mv": "sonic-v6"},
    "sonic.create_persona": {"name": "n", "clip_id": "c"},
    "sonic.create_persona_older": {"name": "n", "description": "d", "continue_clip_id": "c"},
    "sonic.upload_extend": {**SONG, "url": "https://a"},
    "sonic.upload_cover": {**SONG, "url": "https://a"},
    "sonic.sample": {**SONG, "sample_clip_id": "c", "chop_sample_start_s": 0, "chop_sample_end_s": 9},
    "sonic.mashup": {**SONG, "mashup_clip_ids": ["a", "b"]},
    "sonic.replace_section": {"mv": "m", "clip_id": "c", "infill_start_s": 0, "infill_end_s": 9},
    "sonic.vox": {"clip_id": "c"},
    "sonic.lyrics": {"description": "d"},
    "sonic.download": {"clip_id": "c", "formats": ["mp3"]},
    "suno.make_lyrics": {"prompt": "p"},
    "producer.create_music": {"sound": "s"},
    "producer.extend_music": {"clip_id": "c"},
    "producer.replace_music": {"clip_id": "c", "starts_at": 1, "ends_at": 2},
    "producer.cover_music": {"clip_id": "c", "instruction": "i"},
    "nuro.create_vocal": {"lyrics": "l"},
    "nuro.create_bgm": {"description": "d"},
    "riffusion.create": {"lyrics": "l"},
    "studio.create": {"prompt": "p", "model_type": "m", "lyrics_type": "user", "lyrics": "l"},
    "studio.create_from_lyrics": {"prompt": "p", "model_type": "m", "lyrics": "l"},
}

LENGTHS = [
    ("sonic.create_music", "title", 80),
    ("sonic.create_music", "prompt", 5000),
    ("sonic.create_music", "tags", 1000),
    ("sonic.create_music", "negative_tags", 200),
    ("sonic.create_music", "webhook_url", 1024),
    ("sonic.create_persona", "name", 79),
    ("sonic.create_persona", "styles", 2000),
    ("sonic.create_persona_older", "name", 79),
    ("sonic.create_persona_older", "description", 199),
    ("sonic.sample", "tags", 200),
    ("sonic.sample", "title", 80),
    ("sonic.mashup", "tags", 200),
    ("sonic.replace_section", "infill_lyrics", 3000),
    ("sonic.replace_section", "prompt", 5000),
    ("sonic.replace_section", "tags", 1000),
    ("sonic.replace_section", "negative_tags", 200),
    ("sonic.lyrics", "description", 119),
    ("suno.make_lyrics", "prompt", 119),
    ("producer.create_music", "title", 80),
    ("nuro.create_vocal", "lyrics", 2000),
    ("riffusion.create", "lyrics", 3000),
    ("riffusion.create", "sound", 200),
    ("riffusion.create", "prompt", 200),
    ("riffusion.create", "title", 80),
    ("studio.create", "lyrics", 1000),
    ("studio.create_from_lyrics", "lyrics", 1000),
]

RANGES: list[tuple[str, str, float, float]] = [
    ("sonic.create_music", "style_weight", 0, 1),
    ("sonic.create_music", "weirdness_constraint", 0, 1),
    ("sonic.create_music", "duration", 10, 360),
    ("sonic.extend_music", "duration", 10, 360),
    ("sonic.persona_music", "duration", 10, 360),
    ("sonic.cover_music", "duration", 10, 360),
    ("sonic.upload_extend", "duration", 10, 360),
    ("sonic.upload_cover", "duration", 10, 360),
    ("sonic.cover_music", "audio_weight", 0, 1),
    ("sonic.add_vocals", "audio_weight", 0, 1),
    ("sonic.mashup", "audio_weight", 0, 1),
    ("sonic.replace_section", "style_weight", 0, 1),
    ("producer.create_music", "length", 1, 240),
    ("producer.cover_music", "strength", 0, 1),
    ("nuro.create_vocal", "duration", 30, 240),
    ("riffusion.create", "vocal_variation", 0, 1),
    ("studio.create", "prompt_strength", 0, 1),
    ("studio.create", "lyrics_placement_end", 0, 1),
]


def problems(call: str, /, **changes: Any) -> list[str]:
    """The fields of a call that are refused; None takes a field away."""
    family, _, method = call.partition(".")
    operation = FAMILIES[family].operations()[method]
    given = {key: value for key, value in {**BASES[call], **changes}.items() if value is not None}
    return [violation.field for violation in violations(operation.request(**given))]


@pytest.mark.parametrize("name", BASES)
def test_base_calls_are_valid(name: str) -> None:
    """Every case starts from a call that passes."""
    assert problems(name) == []


@pytest.mark.parametrize(("name", "field", "limit"), LENGTHS)
def test_texts_fit_up_to_their_limit(name: str, field: str, limit: int) -> None:
    """A text of the documented length is sent, one character more is refused."""
    text = "https://a.example/".ljust(limit, "x") if field == "webhook_url" else "x" * limit
    assert problems(name, **{field: text}) == []
    assert problems(name, **{field: text + "x"}) == [field]


@pytest.mark.parametrize(("name", "field", "low", "high"), RANGES)
def test_numbers_fit_within_their_range(name: str, field: str, low: float, high: float) -> None:
    """Both ends are allowed, a little beyond is refused, and so are NaN, text and booleans."""
    step = 0.01 if high == 1 else 1
    assert problems(name, **{field: low}) == []
    assert problems(name, **{field: high}) == []
    for bad in (low - step, high + step, math.nan, math.inf, "0.5", True):
        assert problems(name, **{field: bad}) == [field]


@pytest.mark.parametrize("limit", [400, 401])
def test_descriptions_have_400_characters(limit: int) -> None:
    """The limit that is enforced live, not the 200 of older texts."""
    for name in ("sonic.create_music", "sonic.mashup", "sonic.sample", "sonic.upload_cover"):
        found = problems(name, prompt=None, gpt_description_prompt="x" * limit)
        assert found == ([] if limit == 400 else ["gpt_description_prompt"])


@pytest.mark.parametrize("model", ["sonic-v4", "sonic-v3-5"])
@pytest.mark.parametrize("name", ["sonic.create_music", "sonic.add_vocals", "sonic.upload_extend"])
def test_old_models_take_less(name: str, model: str) -> None:
    """sonic-v4 and sonic-v3-5 take 3000 characters of lyrics and 200 of tags."""
    assert problems(name, mv=model, prompt="x" * 3000, tags="x" * 200) == []
    assert problems(name, mv=model, prompt="x" * 3001, tags="x" * 201) == ["prompt", "tags"]
    assert problems(name, mv="sonic-v9", prompt="x" * 5000, tags="x" * 1000) == []


def test_sections_have_their_own_limits() -> None:
    """replace_section documents its limits without regard to the model."""
    assert problems("sonic.replace_section", mv="sonic-v4", prompt="x" * 5000, tags="x" * 1000) == []


def test_booleans_are_booleans() -> None:
    """The service refuses the text 'false', so it is refused here."""
    for field in ("custom_mode", "make_instrumental", "use_suno_cdn", "auto_lyrics"):
        assert problems("sonic.create_music", **{field: "false"}) == [field]


def test_each_mode_needs_its_text() -> None:
    """Lyrics in custom mode, a description in the other, never both; auto_lyrics is custom."""
    call = "sonic.create_music"
    assert problems(call, prompt=None) == ["prompt"]
    assert problems(call, prompt=None, make_instrumental=True) == []
    assert problems(call, prompt=None, custom_mode=False) == ["gpt_description_prompt"]
    assert problems(call, gpt_description_prompt="d") == ["prompt"]
    assert problems(call, prompt=None, gpt_description_prompt="d", auto_lyrics=True) == ["auto_lyrics"]
    assert problems("sonic.sample", prompt=None, gpt_description_prompt="d", auto_lyrics=True) == [
        "auto_lyrics"
    ]


def test_sources_and_pairs_are_complete() -> None:
    """Exactly two clips to a mashup, exactly one source to a sample, at least one format."""
    for ids in (["a"], ["a", "b", "c"], [], ["a", ""]):
        assert problems("sonic.mashup", mashup_clip_ids=ids) == ["mashup_clip_ids"]
    assert problems("sonic.sample", url="https://a") == ["url"]
    assert problems("sonic.sample", sample_clip_id=None) == ["url"]
    assert problems("sonic.sample", sample_clip_id=None, url="https://a") == []
    assert problems("sonic.download", formats=[]) == ["formats"]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("sonic.sample", "chop_sample_start_s", "chop_sample_end_s"),
        ("sonic.replace_section", "infill_start_s", "infill_end_s"),
        ("sonic.add_vocals", "overpainting_start_s", "overpainting_end_s"),
        ("sonic.vox", "vocal_start_s", "vocal_end_s"),
        ("sonic.create_persona", "vocal_start_s", "vocal_end_s"),
        ("producer.replace_music", "starts_at", "ends_at"),
        ("riffusion.create", "replace_start_time", "replace_end_time"),
    ],
)
def test_windows_end_after_they_start(name: str, first: str, last: str) -> None:
    """An empty window, one that runs backwards, and a negative start are refused."""
    assert problems(name, **{first: 0, last: 0.1}) == []
    assert problems(name, **{first: 5, last: 5}) == [last]
    assert problems(name, **{first: 5, last: 4}) == [last]
    assert problems(name, **{first: -1, last: 4}) == [first]


def test_vocal_bounds_come_together() -> None:
    """Both bounds or none, at most 30 s apart where the segment is cut."""
    assert problems("sonic.vox", vocal_start_s=1) == ["vocal_end_s"]
    assert problems("sonic.create_persona", vocal_end_s=1) == ["vocal_start_s"]
    assert problems("sonic.vox", vocal_start_s=10, vocal_end_s=40) == []
    assert problems("sonic.vox", vocal_start_s=10, vocal_end_s=40.5) == ["vocal_end_s"]


def test_webhooks_are_https() -> None:
    """Except to this machine, where a sandbox delivers them."""
    for good in ("https://a.example/hook", "http://127.0.0.1:9/x", "http://localhost/x"):
        assert problems("sonic.create_music", webhook_url=good) == []
        assert problems("producer.create_music", webhook_url=good) == []
    for bad in ("http://a.example", "ftp://a", "nonsense", "https://", "https://[bad"):
        assert problems("sonic.create_music", webhook_url=bad) == ["webhook_url"]
        assert problems("nuro.create_vocal", webhook_url=bad) == ["webhook_url"]


def test_producer_needs_a_style_or_lyrics() -> None:
    """One of sound and lyrics."""
    assert problems("producer.create_music", sound=None) == ["sound"]
    assert problems("producer.create_music", sound=None, lyrics="l") == []


def test_nuro_lists_hold_five() -> None:
    """Five items to a list, six are refused; the parts of a piece have a name and a length."""
    for field in ("genre", "mood", "instrument", "theme"):
        assert problems("nuro.create_bgm", **{field: ["x"] * 5}) == []
        assert problems("nuro.create_bgm", **{field: ["x"] * 6}) == [field]
        assert problems("nuro.create_bgm", **{field: "x"}) == [field]
    assert problems("nuro.create_bgm", segments=[{"name": "intro", "duration": "long"}]) == ["segments"]


@pytest.mark.parametrize(
    ("version", "fields", "wrong"),
    [
        (None, {"duration": 60}, []),
        (None, {"duration": 61}, ["duration"]),
        ("v1.0", {"duration": 61}, ["duration"]),
        ("v1.0", {"description": "x" * 200}, []),
        ("v2.0", {"duration": 120}, []),
        ("v2.0", {"duration": 121}, ["duration"]),
        ("v2.0", {"duration": 29}, ["duration"]),
        ("v2.0", {"description": "x" * 199}, []),
        ("v2.0", {"description": "x" * 200}, ["description"]),
        ("v2.0", {"segments": [5, 25]}, []),
        ("v2.0", {"segments": [4, 40]}, ["segments"]),
        ("v2.0", {"segments": [121]}, ["segments"]),
        ("v2.0", {"segments": [29]}, ["segments"]),
        ("v2.0", {"segments": [60, 61]}, ["segments"]),
        ("v3.0", {"duration": 180, "segments": [1], "description": "x" * 200}, []),
    ],
)
def test_nuro_lengths_follow_the_version(
    version: str | None, fields: dict[str, Any], wrong: list[str]
) -> None:
    """Each version has its own limits; a version that is not known yet has none here."""
    for made in (Segment, dict[str, Any]):
        parts = [made(name="verse", duration=seconds) for seconds in fields.get("segments", ())]
        given = {**fields, **({"segments": parts} if parts else {})}
        assert problems("nuro.create_bgm", version=version, **given) == wrong


def test_nuro_knows_its_values() -> None:
    """The seven lists have the documented number of different values."""
    names = ("VOCAL_GENRES", "VOCAL_MOODS", "VOCAL_TIMBRES", "BGM_GENRES", "BGM_MOODS", "BGM_INSTRUMENTS")
    lists = [getattr(nuro, name) for name in (*names, "BGM_THEMES")]
    assert [len(set(values)) for values in lists] == [23, 13, 9, 47, 52, 25, 28]


def test_studio_modes() -> None:
    """Own lyrics must be given for 'user'; an extension names its song; more keys are sent."""
    assert problems("studio.create", lyrics=None) == ["lyrics"]
    assert problems("studio.create", lyrics=None, lyrics_type="generate") == []
    assert problems("studio.create", config={}) == ["config"]
    assert problems("studio.create", config={"mode": "precede"}) == ["config"]
    more = {"mode": "continuation", "source": {"song_id": "s"}, "context_length": 3}
    assert problems("studio.create", config=more) == []


def test_local_fields_and_empty_ones_are_not_sent() -> None:
    """`wait` steers the client; None and empty texts are left out; False and 0 are sent."""
    sonic = FAMILIES["sonic"].operations()
    assert body(sonic["midi"].request("c", wait=False)) == {"clip_id": "c"}
    sent = body(sonic["create_music"].request(mv="m", prompt="", gpt_description_prompt="d", style_weight=0))
    assert sent == {
        "task_type": "create_music",
        "mv": "m",
        "gpt_description_prompt": "d",
        "style_weight": 0,
        "custom_mode": False,
        "use_suno_cdn": False,
    }


def test_some_fields_are_always_sent() -> None:
    """An explicit CDN choice on /sonic/create and nowhere else; make_instrumental of a sample; a format."""
    for name, base in BASES.items():
        family, _, method = name.partition(".")
        operation = FAMILIES[family].operations()[method]
        sent = body(operation.request(**base))
        assert ("use_suno_cdn" in sent) == (operation.path == "/sonic/create")
        if operation.path == "/sonic/create":
            assert sent["task_type"] == method
    sample = FAMILIES["sonic"].operations()["sample"].request(**BASES["sonic.sample"], make_instrumental=None)
    assert body(sample)["make_instrumental"] is False


def test_duration_is_offered_where_it_is_understood() -> None:
    """The target length is a field of six calls only."""
    offered = {
        f"{family}.{name}"
        for family in ("sonic",)
        for name, operation in FAMILIES[family].operations().items()
        if any(field.name == "duration" for field in operation.fields)
    }
    names = ("create_music", "extend_music", "cover_music", "persona_music", "upload_extend", "upload_cover")
    assert offered == {f"sonic.{name}" for name in names}


@pytest.mark.parametrize(
    ("family", "kind", "times"),
    [
        ("sonic", "create_music", (15, 15, 900)),
        ("sonic", "stems_full", (15, 15, 1800)),
        ("sonic", "create_voice", (10, 15, 900)),
        ("suno", "", (15, 15, 900)),
        ("suno", "make_lyrics", (3, 5, 180)),
        ("producer", "upload", (10, 8, 600)),
        ("nuro", "", (10, 10, 600)),
        ("riffusion", "create", (15, 15, 900)),
        ("studio", "unknown", (15, 15, 900)),
    ],
)
def test_polling_times_are_the_documented_ones(family: str, kind: str, times: tuple[float, ...]) -> None:
    """First poll, interval and deadline in seconds; an unknown kind is polled like its family."""
    polled = polled_as(family, kind)
    assert polled is not None
    assert (polled.first, polled.interval, polled.deadline) == times


def test_families_without_tasks_are_not_polled() -> None:
    """The account, and families that do not exist, have nothing to poll."""
    assert polled_as("account") is None
    assert polled_as("nonsense") is None


def test_every_operation_explains_itself() -> None:
    """Each has a text with its cost, every argument with a description, and its deprecation if it is so."""
    for word, family in FAMILIES.items():
        for operation in family.operations().values():
            doc = operation.doc
            assert ("Charges credits." in doc) == operation.charges
            for field in operation.fields:
                assert field.description, f"{operation!r}.{field.name}"
            assert ("Deprecated" in doc) == (word in {"nuro", "riffusion", "studio"})
