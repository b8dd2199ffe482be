"""Every request of the contract is what a typed call sends."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from examples_index import REQUESTS, Example

from musicapi_async import MusicAPIError
from musicapi_async.api.families import FAMILIES
from musicapi_async.api.operation import Operation
from musicapi_async.api.request import body, fields, violations
from musicapi_async.sandbox import Sandbox

SPEED = 1000.0

CALLS = {
    "sonic-create-req-custom": "sonic.create_music",
    "sonic-create-req-description": "sonic.create_music",
    "sonic-create-req-gender-custom": "sonic.create_music",
    "sonic-create-req-gender-description": "sonic.create_music",
    "sonic-create-req-autolyrics": "sonic.create_music",
    "sonic-create-req-instrumental-custom": "sonic.create_music",
    "sonic-create-req-instrumental-description": "sonic.create_music",
    "sonic-create-req-all-options": "sonic.create_music",
    "sonic-create-req-extend": "sonic.extend_music",
    "sonic-create-req-concat": "sonic.concat_music",
    "sonic-create-req-cover-custom": "sonic.cover_music",
    "sonic-create-req-cover-description": "sonic.cover_music",
    "sonic-create-req-persona-music": "sonic.persona_music",
    "sonic-create-req-remaster": "sonic.remaster",
    "sonic-create-req-add-vocals": "sonic.add_vocals",
    "sonic-create-req-add-instrumental": "sonic.add_instrumental",
    "sonic-create-req-extend-upload": "sonic.extend_upload_music",
    "sonic-create-req-cover-upload": "sonic.cover_upload_music",
    "sonic-persona-req-new": "sonic.create_persona",
    "sonic-persona-req-minimal": "sonic.create_persona",
    "sonic-persona-req-old": "sonic.create_persona_older",
    "sonic-create-voice-req": "sonic.create_voice",
    "sonic-upload-req": "sonic.upload",
    "sonic-upload-extend-req": "sonic.upload_extend",
    "sonic-upload-cover-req": "sonic.upload_cover",
    "sonic-upload-cover-req-description": "sonic.upload_cover",
    "sonic-sample-req-url": "sonic.sample",
    "sonic-sample-req-clip": "sonic.sample",
    "sonic-mashup-req-custom": "sonic.mashup",
    "sonic-mashup-req-description": "sonic.mashup",
    "sonic-replace-section-req": "sonic.replace_section",
    "sonic-replace-section-req-minimal": "sonic.replace_section",
    "sonic-stems-req-basic": "sonic.stems_basic",
    "sonic-stems-req-full": "sonic.stems_full",
    "sonic-wav-req": "sonic.wav",
    "sonic-midi-req": "sonic.midi",
    "sonic-bpm-req": "sonic.bpm",
    "sonic-vox-req": "sonic.vox",
    "sonic-aligned-lyrics-req": "sonic.aligned_lyrics",
    "sonic-upsample-tags-req": "sonic.upsample_tags",
    "sonic-lyrics-req": "sonic.lyrics",
    "sonic-download-req": "sonic.download",
    "sonic-batch-req": "sonic.create_batch",
    "suno-make-lyrics-req": "suno.make_lyrics",
    "suno-get-song-req": "suno.get_song",
    "producer-create-req-create": "producer.create_music",
    "producer-create-req-instrumental": "producer.create_music",
    "producer-create-req-bpm-length": "producer.create_music",
    "producer-create-req-extend": "producer.extend_music",
    "producer-create-req-replace": "producer.replace_music",
    "producer-create-req-cover": "producer.cover_music",
    "producer-create-req-cover-upload": "producer.cover_upload_music",
    "producer-create-req-extend-upload": "producer.extend_upload_music",
    "producer-create-req-replace-upload": "producer.replace_upload_music",
    "producer-upload-req": "producer.upload",
    "producer-download-req": "producer.download",
    "nuro-create-req-vocal": "nuro.create_vocal",
    "nuro-create-req-bgm-v1": "nuro.create_bgm",
    "nuro-create-req-bgm-v2": "nuro.create_bgm",
    "riffusion-create-req-lyrics": "riffusion.create",
    "riffusion-create-req-extend": "riffusion.create",
    "riffusion-create-req-cover": "riffusion.create",
    "riffusion-create-req-replace": "riffusion.create",
    "riffusion-create-req-swap-sound": "riffusion.create",
    "riffusion-create-req-swap-vocals": "riffusion.create",
    "riffusion-upload-req": "riffusion.upload",
    "studio-create-req-description": "studio.create_from_description",
    "studio-create-req-extend": "studio.create",
    "studio-create-req-custom": "studio.create_from_lyrics",
    "studio-create-req-instrumental": "studio.create_instrumental",
}
"""Which call sends which body."""

ONLY_RAW = {
    "sonic-create-req-custom-minimal": "the typed call always sends task_type and use_suno_cdn",
    "sonic-upload-req-callback": "callback_url is not typed: its payload is unknown",
    "suno-create-req": "the typed call always sends task_type and use_suno_cdn",
    "riffusion-create-req-description": "the typed call always sends task_type",
}
"""Bodies that only `client.request` or an extra body sends, and why."""

ALWAYS_SENT = {"use_suno_cdn": False, "make_instrumental": False, "format": "mp3"}
TAGS = ("task_type", "type", "lyrics_type")


def operation_of(name: str) -> Operation[..., Any]:
    """The operation behind `family.method`."""
    family, _, method = name.partition(".")
    return FAMILIES[family].operations()[method]


def arguments(operation: Operation[..., Any], example: Example) -> dict[str, Any]:
    """The arguments of the call: the body without what the call adds by itself."""
    names = {field.name: field for field in fields(operation.request)}
    given: dict[str, Any] = {}
    for key, value in example.body.items():
        if key in TAGS and key not in names:
            continue  # the call says it
        derived = key == "custom_mode" and not names[key].required and operation.name != "add_instrumental"
        default = key in ALWAYS_SENT and value == ALWAYS_SENT[key] and names[key].default == value
        if not derived and not default:
            given[key] = value
    return given


@pytest.mark.parametrize("example", [one for one in REQUESTS if one.name in CALLS], ids=lambda one: one.name)
def test_each_typed_call_sends_the_documented_body(example: Example) -> None:
    """The call passes its own checks, goes to the documented path, and sends the documented JSON."""
    operation = operation_of(CALLS[example.name])
    request = operation.request(**arguments(operation, example))
    assert violations(request) == []
    assert f"{operation.method} {operation.path}" in f"{example.method} {example.path}"
    # Null and empty-string fields are left out (contract, overview): the service refuses some of them.
    expected = {key: value for key, value in example.body.items() if value not in (None, "")}
    assert body(request) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_what_leaves_is_the_documented_body() -> None:
    """Every request of the contract, by its public call or by `request`: the JSON that reaches a server."""
    async with Sandbox(speed=SPEED) as box, box.client(rate_limit=None, max_retries=0) as client:
        for example in {one.name: one for one in REQUESTS}.values():
            if example.name in CALLS:
                family, _, name = CALLS[example.name].partition(".")
                given = arguments(operation_of(CALLS[example.name]), example)
                call = getattr(getattr(client, family), name)(**given)
            else:
                call = client.request(example.method, example.path, json=example.body)
            with contextlib.suppress(MusicAPIError):  # there are no such clips
                await call
            sent = box.journal.requests(method=example.method)[-1]
            kept = {key: value for key, value in example.body.items() if value not in (None, "")}
            assert f"{sent.method} {sent.path.removeprefix('/api/v1')}" == f"{example.method} {example.path}"
            assert as_text(sent.body) == as_text(kept), example.name


def as_text(value: object) -> str:
    """JSON text that tells 1, 1.0 and true apart, whatever the order of keys."""
    return json.dumps(value, sort_keys=True)


def test_no_request_of_the_contract_is_forgotten() -> None:
    """Each request is sent by a typed call, or stands in the list of those that are not, with a reason."""
    assert {example.name for example in REQUESTS} == CALLS.keys() | ONLY_RAW.keys()


def test_calls_of_one_thing_take_it_in_first_place() -> None:
    """`wav(clip_id)`, `upload(url)` and the like need no keyword."""
    for name, arguments_, sent in [
        ("sonic.wav", ("c",), {"clip_id": "c"}),
        ("sonic.midi", ("c", False), {"clip_id": "c"}),
        ("sonic.bpm", ("c",), {"clip_id": "c"}),
        ("sonic.stems_basic", ("c",), {"clip_id": "c"}),
        ("sonic.stems_full", ("c",), {"clip_id": "c"}),
        ("sonic.aligned_lyrics", ("c", True), {"clip_id": "c"}),
        ("sonic.upload", ("https://a",), {"url": "https://a"}),
        ("sonic.download", ("c", ["mp3"]), {"clip_id": "c", "formats": ["mp3"]}),
        ("sonic.lyrics", ("a sky",), {"description": "a sky"}),
        ("sonic.create_voice", ("https://a",), {"audio_url": "https://a"}),
        ("sonic.create_persona", ("N", "c"), {"name": "N", "clip_id": "c"}),
        ("producer.download", ("c",), {"clip_id": "c", "format": "mp3"}),
        ("sonic.get_music", ("t",), {"task_id": "t"}),
        ("sonic.create_batch", ([{"mv": "m"}],), {"items": [{"mv": "m", "custom_mode": True}]}),
        ("sonic.get_batch", ("b",), {"batch_id": "b"}),
    ]:
        assert body(operation_of(name).request(*arguments_)) == sent


def test_a_seed_is_sent_as_text() -> None:
    """Producer documents its seed as a string, whatever the caller has."""
    request = operation_of("producer.create_music").request(sound="pop", seed=7)
    assert body(request)["seed"] == "7"


ENDPOINTS = """
POST /sonic/create;GET /sonic/task/{task_id};POST /sonic/persona;POST /sonic/create-voice;POST /sonic/upload
POST /sonic/upload-extend;POST /sonic/upload-cover;POST /sonic/sample;POST /sonic/mashup
POST /sonic/replace-section;POST /sonic/stems/basic;POST /sonic/stems/full;POST /sonic/wav;POST /sonic/midi
POST /sonic/bpm;POST /sonic/vox;POST /sonic/aligned-lyrics;POST /sonic/upsample-tags;POST /sonic/lyrics
POST /sonic/download;POST /sonic/batch;GET /sonic/batch;POST /suno/create;GET /suno/clip/{task_id};POST /suno/make-lyrics
GET /suno/get-lyrics/{task_id};POST /suno/get-song;POST /producer/create;POST /producer/upload
POST /producer/download;GET /producer/task/{task_id};POST /nuro/create;GET /nuro/task/{task_id}
POST /riffusion/create;POST /riffusion/upload;GET /riffusion/task/{task_id};POST /studio/create
GET /studio/task/{task_id};GET /get-credits
"""


def test_every_endpoint_with_a_known_body_is_declared() -> None:
    """39 of the 41 endpoints have typed calls; bodies and results of the other two are unknown."""
    declared = {
        operation.call_name for family in FAMILIES.values() for operation in family.operations().values()
    }
    assert declared == set(ENDPOINTS.strip().replace("\n", ";").split(";"))
