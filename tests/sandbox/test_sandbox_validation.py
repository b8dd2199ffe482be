"""What is refused: the documented limits and texts, and anything else that a stranger may send."""

from __future__ import annotations

import json
import logging

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicapi_async.sandbox import Choices, Sandbox
from musicapi_async.sandbox.routes import POSTS

OWN = {"custom_mode": True, "mv": "sonic-v6", "prompt": "la la"}
WISH = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
V4 = {**OWN, "mv": "sonic-v4"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({**OWN, "title": "x" * 81}, "The title character length should be less than 80."),
        ({**OWN, "prompt": "x" * 5001}, "The prompt character length should be less than 3000."),
        ({**V4, "prompt": "x" * 3001}, "The prompt character length should be less than 3000."),
        ({**OWN, "tags": "x" * 1001}, "The tags character length should be less than 200."),
        ({**V4, "tags": "x" * 201}, "The tags character length should be less than 200."),
        (
            {**WISH, "gpt_description_prompt": "x" * 401},
            "The 'gpt_description_prompt' character length should be less than 200.",
        ),
        ({**OWN, "style_weight": 1.01}, "The 'style_weight' field should be a number between 0 and 1."),
        ({**OWN, "style_weight": -0.01}, "The 'style_weight' field should be a number between 0 and 1."),
        ({**OWN, "audio_weight": True}, "The 'audio_weight' field should be a number between 0 and 1."),
        ({**OWN, "make_instrumental": "true"}, "The 'make_instrumental' field should be boolean."),
        ({**OWN, "custom_mode": 1}, "The 'custom_mode' field should be boolean."),
        ({**OWN, "use_suno_cdn": "false"}, "The 'use_suno_cdn' field should be boolean."),
        (
            {**OWN, "task_type": "persona_music"},
            "The 'persona_id' field is required when task_type = persona_music.",
        ),
        ({**OWN, "duration": 9}, "The 'duration' field should be an integer between 10 and 360."),
        ({**OWN, "duration": 12.5}, "The 'duration' field should be an integer between 10 and 360."),
        ({**OWN, "vocal_gender": None}, "The 'vocal_gender' field should be 'f' or 'm'."),
        ({**OWN, "vocal_gender": ""}, "The 'vocal_gender' field should be 'f' or 'm'."),
        ({**OWN, "tags": ["pop"]}, "The 'tags' field should be string."),
        ({"custom_mode": True, "mv": "sonic-v6"}, "The 'prompt' field is required when custom_mode = true."),
        ({**OWN, "task_type": "sing"}, "The 'task_type' field is invalid."),
    ],
)
async def test_documented_texts(start, body, text):
    """Each limit is refused one over, with the documented text, and charges nothing."""
    api = await start()
    status, reply = await api.post("/sonic/create", body)
    assert (status, reply) == (400, {"type": "validation_error", "error": text})
    assert api.sandbox.journal.charges == 0


@pytest.mark.parametrize(
    "body",
    [
        {**OWN, "title": "x" * 80, "tags": "x" * 1000, "prompt": "x" * 5000},
        {**V4, "tags": "x" * 200, "prompt": "x" * 3000},
        {**WISH, "gpt_description_prompt": "x" * 400},
        {**OWN, "style_weight": 0, "weirdness_constraint": 1},
        {**OWN, "title": None, "tags": ""},
        {"custom_mode": True, "mv": "sonic-v6", "lyrics": "la"},
        {"custom_mode": True, "mv": "sonic-v6", "make_instrumental": True},
        {**OWN, "auto_lyrics": True, "prompt": "a song about the sea"},
        {**OWN, "unknown_field": {"x": 1}},
    ],
)
async def test_what_is_just_allowed(start, body):
    """The limits themselves, empty fields, the alias and unknown fields pass."""
    api = await start()
    assert (await api.post("/sonic/create", body))[0] == 200


@pytest.mark.parametrize("mv", ["sonic-v4-5-all", "chirp-v5", "", None, 7, "sonic-v99"])
async def test_unknown_models(start, mv):
    """Create refuses models that it does not have, naming those that it has."""
    api = await start()
    status, reply = await api.post("/sonic/create", {**OWN, "mv": mv})
    assert status == 400
    assert reply["error"].startswith("The 'mv' field is invalid. The model should be")
    lenient = await start(choices=Choices(chirp_models=True))
    assert (await lenient.post("/sonic/create", {**OWN, "mv": "chirp-v5"}))[0] == 200


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("type", {"type": "validation_error", "error": "The 'task_type' field is invalid."}),
        ("error", {"error": "The 'task_type' field is invalid."}),
        ("message", {"message": "The 'task_type' field is invalid."}),
        ("detail", {"detail": "The 'task_type' field is invalid."}),
        ("code", {"code": 400, "message": "The 'task_type' field is invalid."}),
        ("code-text", {"code": "bad_request", "message": "The 'task_type' field is invalid."}),
    ],
)
async def test_error_forms(start, form, body):
    """A 400 comes in each documented form."""
    api = await start(choices=Choices(error=form))
    assert await api.post("/sonic/create", {"task_type": "x"}) == (400, body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {**OWN, "prompt": "an Example phrase here"},
            "The lyrics contain copyrighted content: 'example phrase'.",
        ),
        (
            {**OWN, "prompt": "example obscenity"},
            "The lyrics contain inappropriate content: 'example obscenity'.",
        ),
        ({**OWN, "prompt": "[][]"}, "The lyrics format is invalid. Please check and try again."),
        (
            {**WISH, "gpt_description_prompt": "like Example Name"},
            "The song description contains artist names:",
        ),
        ({**OWN, "tags": "example producer"}, "The song description contains producer tags:"),
        (
            {**WISH, "gpt_description_prompt": "example review"},
            "The song description needs moderation review.",
        ),
    ],
)
async def test_moderation(start, body, text):
    """Moderation refuses with 403 and charges nothing."""
    api = await start()
    status, reply = await api.post("/sonic/create", body)
    assert (status, reply["type"]) == (403, "forbidden")
    assert reply["error"].startswith(text)
    assert api.sandbox.journal.charges == 0


async def test_switches_for_strictness(start):
    """`use_suno_cdn` may be demanded; extend may do without its fields; sources may be told apart."""
    api = await start(choices=Choices(suno_cdn="required", extend="lenient", sources="strict"))
    assert (await api.post("/sonic/create", OWN))[0] == 400
    (clip, _) = await api.finished(await api.submit(body={**OWN, "use_suno_cdn": False}))
    extend = {"task_type": "extend_music", "mv": "sonic-v6", "use_suno_cdn": False}
    await api.submit(body={**extend, "continue_clip_id": clip["clip_id"]})
    upload = {
        **extend,
        "task_type": "extend_upload_music",
        "continue_clip_id": clip["clip_id"],
        "continue_at": 1,
    }
    assert (await api.post("/sonic/create", upload))[0] == 400


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"{'mv': 1}",
    b"\xff\xfe{}",
    b'{"title":"\xff"}',
    b'{"title":"\\ud800"}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"duration":1e999}',
    b'{"duration":NaN}',
    b'{"mv":' + b"9" * 5000 + b"}",
    b'{"mv":"sonic-v6","custom_mode":true,"prompt":"' + b"x" * 900_000 + b'"}',
    b"\x00" * 1000,
]


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_bodies(start, raw, caplog):
    """Whatever the bytes are, every endpoint answers a documented 400 and logs nothing."""
    api = await start()
    for path in POSTS:
        with caplog.at_level(logging.WARNING):
            status, reply = await api.call(
                "POST", path, data=raw, headers={"Content-Type": "application/json"}
            )
        assert status == 400, (path, reply)
        assert isinstance(reply, dict)
    assert api.sandbox.journal.charges == 0
    assert [record for record in caplog.records if record.name.startswith("musicapi")] == []


WORDS = st.sampled_from(
    ["mv", "prompt", "title", "tags", "custom_mode", "clip_id", "url", "continue_clip_id", "task_type", "config",
     "description", "lyrics", "sound", "formats", "mashup_clip_ids", "duration", "name", "type", "segments", "seed",
     "webhook_url", "length", "bpm", "share_link", "audio_url", "vocal_start_s", "lyrics_type", "persona_id"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(
        ["sonic-v6", "create_music", "extend_music", "bgm", "vocal", "https://x/y", "http://127.0.0.1:1/x"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(POSTS)), st.dictionaries(WORDS, VALUES, max_size=10))
def test_no_body_breaks_an_endpoint(path, body):
    """Any JSON object is answered with a documented status, never with a 500."""
    import asyncio

    async def ask() -> int:
        async with (
            Sandbox(speed=1000, longest=2) as sandbox,
            aiohttp.ClientSession(headers={"Authorization": "Bearer sandbox-key"}) as session,
            session.post(sandbox.base_url + path, data=json.dumps(body)) as reply,
        ):
            return reply.status

    assert asyncio.run(ask()) in (200, 202, 400, 403, 404, 410, 501)
