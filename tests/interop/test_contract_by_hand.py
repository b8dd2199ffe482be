"""Plain HTTP requests, as one would type them for `curl`, against the sandbox: what an outside checker sees.

Another HTTP stack (httpx), no code of the client. Bodies are compared with the documented examples: the same
keys, at every depth, with values of the same JSON type. Time is virtual, so every moment can be looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from musicapi_async.sandbox import Choices, Fault, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

EXAMPLES = Path(__file__).parents[1] / "contract" / "examples"

LYRICS = "[Verse]\nRain on the window\n[Chorus]\nStay for the evening"
SONG = {"task_type": "create_music", "custom_mode": True, "mv": "sonic-v6", "title": "Rain", "prompt": LYRICS}
WISH = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
OWN = {"custom_mode": True, "mv": "sonic-v6", "prompt": LYRICS}
STUDIO = {
    "prompt": "rock", "lyrics_type": "generate", "prompt_strength": 0.5, "clarity_strength": 0.25,
    "lyrics_strength": 0.5, "generation_quality": 0.75, "model_type": "studio32-v1.5", "config": {"mode": "regular"},
}  # fmt: skip
NUMBER = "Number"
CREATES = (
    "/sonic/create", "/sonic/create-voice", "/sonic/upload-extend", "/sonic/upload-cover", "/sonic/sample",
    "/sonic/mashup", "/sonic/replace-section", "/sonic/stems/basic", "/sonic/stems/full", "/suno/create",
    "/suno/make-lyrics", "/producer/create", "/producer/upload", "/producer/download", "/nuro/create",
    "/riffusion/create", "/studio/create", "/sonic/batch",
)  # fmt: skip
DIRECT = (
    "/sonic/persona", "/sonic/upload", "/sonic/wav", "/sonic/midi", "/sonic/bpm", "/sonic/vox",
    "/sonic/aligned-lyrics", "/sonic/upsample-tags", "/sonic/lyrics", "/sonic/download", "/suno/get-song",
    "/riffusion/upload",
)  # fmt: skip
POLLS = (
    "/sonic/task/x", "/suno/clip/x", "/suno/get-lyrics/x", "/producer/task/x", "/nuro/task/x",
    "/riffusion/task/x", "/studio/task/x",
)  # fmt: skip
BATCH = "/sonic/batch"
"""A path with a query instead of an id."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def example(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.json").read_bytes())


def unlike(documented: Any, sent: Any, where: str = "") -> list[str]:
    """Where `sent` has not the shape of the documented body; null stands for a value of any type."""
    if documented is None or sent is None:
        return []
    if isinstance(documented, dict) and isinstance(sent, dict):
        found = [f"{where}: {key}" for key in documented.keys() ^ sent.keys()]
        for key in documented.keys() & sent.keys():
            found += unlike(documented[key], sent[key], f"{where}.{key}")
        return found
    if isinstance(documented, list) and isinstance(sent, list):
        return [text for item in sent[:3] if documented for text in unlike(documented[0], item, f"{where}[]")]
    kinds = [
        NUMBER if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
        for value in (documented, sent)
    ]
    return [] if kinds[0] == kinds[1] else [f"{where}: {sent!r} instead of {documented!r}"]


class Hand:
    """Plain HTTP to one sandbox."""

    def __init__(self, box: Sandbox, http: httpx.AsyncClient) -> None:
        self.box = box
        self.http = http
        self.headers: httpx.Headers = httpx.Headers()

    async def send(
        self, method: str, path: str, *, auth: str | None = None, **options: Any
    ) -> tuple[int, Any]:
        header = f"Bearer {self.box.api_key}" if auth is None else auth
        url = path if path.startswith("http") else self.box.base_url + path
        reply = await self.http.request(
            method, url, headers={"Authorization": header} if header else {}, **options
        )
        self.headers = reply.headers
        kind = reply.headers.get("content-type", "")
        return reply.status_code, reply.json() if kind.startswith("application/json") else reply.text

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        return await self.send("POST", path, json=body)

    async def get(self, path: str) -> tuple[int, Any]:
        return await self.send("GET", path)

    async def submit(self, path: str, body: object) -> str:
        status, reply = await self.post(path, body)
        assert status == 200, reply
        found = reply.get("task_id") or reply["data"]
        return str(found if isinstance(found, str) else found["task_id"])

    async def looks(self, path: str, *, every: float = 1.0, limit: float = 900.0) -> list[tuple[int, Any]]:
        """Every different answer of a poll until `limit` seconds have passed."""
        seen: list[tuple[int, Any]] = []
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while loop.time() < end:
            now = await self.get(path)
            if not seen or now != seen[-1]:
                seen.append(now)
            await asyncio.sleep(every)
        return seen

    async def finished(self, path: str, body: object, poll: str = "/sonic/task/") -> Any:
        """The last body of a task."""
        task_id = await self.submit(path, body)
        await asyncio.sleep(3000)
        status, found = await self.get(poll + task_id)
        assert status == 200, found
        return found

    async def clip(self, **fields: object) -> dict[str, Any]:
        return dict((await self.finished("/sonic/create", {**SONG, **fields}))["data"][0])


Begin = Callable[..., Awaitable[Hand]]


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Starts sandboxes; closes all of them afterwards."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Hand:
            options.setdefault("longest", 12.0)
            box = await stack.enter_async_context(Sandbox(seed=1, **options))
            return Hand(box, await stack.enter_async_context(httpx.AsyncClient(timeout=None)))

        yield start


# --- the key, paths and methods --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("", "missing-header"),
        ("Basic c2FuZGJveA==", "bad-format"),
        ("sandbox-key", "bad-format"),
        ("Bearer", "bad-format"),
        ("Bearer sandbox-key x", "bad-format"),
        ("Bearer Bearer sandbox-key", "bad-format"),
        ("Bearer wrong", "invalid-key"),
    ],
)
async def test_keys(begin: Begin, header: str, name: str) -> None:
    """401 with the documented text and body: no header, another format, another key."""
    hand = await begin()
    for method, path in [("GET", "/get-credits"), ("POST", "/sonic/create"), ("GET", "/sonic/task/x")]:
        assert await hand.send(method, path, auth=header) == (401, example(f"error-401-{name}"))


async def test_every_endpoint_wants_the_key(begin: Begin) -> None:
    """No endpoint answers without one, and nothing is charged."""
    hand = await begin()
    missing = example("error-401-missing-header")
    for path in (*CREATES, *DIRECT):
        assert await hand.send("POST", path, auth="", json={}) == (401, missing), path
    for path in (*POLLS, "/get-credits", BATCH):
        assert await hand.send("GET", path, auth="") == (401, missing), path
    assert hand.box.journal.charges == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/sonic/create", 405),
        ("POST", "/get-credits", 405),
        ("POST", "/sonic/task/x", 405),
        ("PUT", "/sonic/wav", 405),
        ("GET", "/credits", 404),
        ("POST", "/sonic/generate", 404),
        ("POST", "/sonic/music", 404),
        ("POST", "/sonic/get", 404),
        ("POST", "/sonic/export-midi", 404),
        ("GET", "/get_music/x", 404),
        ("GET", "/sonic/task/x/y", 404),
        ("POST", "/producer/lyrics-create", 404),
        ("POST", "/producer/video-clip", 404),
    ],
)
async def test_wrong_paths_and_methods(begin: Begin, method: str, path: str, status: int) -> None:
    """404 and 405 with a gateway's HTML page, not JSON."""
    hand = await begin()
    found = await hand.send(method, path)
    assert found[0] == status
    assert found[1].startswith("<!doctype html>")
    assert hand.headers["content-type"].startswith("text/html")


async def test_paths_need_their_prefix(begin: Begin) -> None:
    """Without /api/v1 there is no API, whichever the method."""
    hand = await begin()
    root = hand.box.base_url.removesuffix("/api/v1")
    assert (await hand.get(root + "/get-credits"))[0] == 404
    assert (await hand.send("POST", root + "/sonic/create", json=SONG))[0] == 404


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/sonic/create", {**OWN, "mv": "sonic-v4-5-all"}, "The 'mv' field is invalid. The model should be "),
        ("/sonic/create", {"custom_mode": True, "prompt": "la"}, "The 'mv' field is invalid. The model should be "),
        ("/sonic/create", {**OWN, "task_type": "persona_music"},
         "The 'persona_id' field is required when task_type = persona_music."),
        ("/sonic/create", {**OWN, "make_instrumental": "yes"}, "The 'make_instrumental' field should be boolean."),
        ("/sonic/create", {**OWN, "custom_mode": "true"}, "The 'custom_mode' field should be boolean."),
        ("/sonic/create", {"mv": "sonic-v6", "prompt": "la"}, "The 'custom_mode' field should be boolean."),
        ("/sonic/create", {**OWN, "weirdness_constraint": 1.01}, "should be a number between 0 and 1"),
        ("/sonic/create", {**OWN, "prompt": "x" * 5001}, "The prompt character length should be less than 3000."),
        ("/sonic/create", {**WISH, "gpt_description_prompt": "x" * 401},
         "The 'gpt_description_prompt' character length should be less than 200."),
        ("/sonic/create", {**OWN, "tags": "x" * 1001}, "The tags character length should be less than 200."),
        ("/sonic/create", {**OWN, "title": "x" * 81}, "The title character length should be less than 80."),
        ("/sonic/create", {**OWN, "webhook_url": "http://example.org/x"}, "webhook_url"),
        ("/sonic/create", {**OWN, "use_suno_cdn": "false"}, "use_suno_cdn"),
        ("/suno/create", {**OWN, "title": "x" * 81}, "The title character length should be less than 80."),
        ("/sonic/lyrics", {}, "description is required."),
        ("/sonic/lyrics", {"description": "x" * 120}, "The description character length should be less than 120."),
        ("/sonic/persona", {"name": "n", "description": "d"}, "name and continue_clip_id are required fields."),
        ("/sonic/persona", {"name": "x" * 80, "clip_id": "c"}, "The name character length should be less than 80."),
        ("/sonic/persona", {"name": "n", "continue_clip_id": "c", "description": "x" * 200},
         "The description character length should be less than 200."),
        ("/sonic/upload", {"url": "https://files.example/a.mp3"},
         "Audio URL is not accessible. Please provide a public direct audio file URL."),
        ("/sonic/upload", {}, "url"),
        ("/sonic/mashup", {**WISH, "mashup_clip_ids": ["a"]}, "mashup_clip_ids"),
        ("/sonic/sample", {**OWN, "make_instrumental": False, "chop_sample_start_s": 0, "chop_sample_end_s": 9},
         "url"),
        ("/sonic/sample", {**OWN, "make_instrumental": False, "chop_sample_start_s": 9, "chop_sample_end_s": 5,
                           "sample_clip_id": "c"}, "chop_sample_end_s"),
        ("/sonic/replace-section", {"clip_id": "c", "mv": "sonic-v5", "infill_start_s": 9, "infill_end_s": 5},
         "infill_end_s"),
        ("/sonic/replace-section", {"clip_id": "c", "mv": "sonic-v3-5", "infill_start_s": 1, "infill_end_s": 5},
         "The 'mv' field is invalid"),
        ("/sonic/vox", {"clip_id": "c", "vocal_start_s": 1}, "together"),
        ("/sonic/download", {"clip_id": "c"}, "formats"),
        ("/suno/make-lyrics", {"prompt": "x" * 120}, "less than 120"),
        ("/producer/create", {"task_type": "create_music"}, "sound"),
        ("/producer/create", {"task_type": "nonsense", "sound": "x"}, "task_type"),
        ("/producer/upload", {"url": "https://a"}, "audio_url"),
        ("/riffusion/create", {"custom_mode": True, "lyrics": "x" * 3001}, "lyrics"),
        ("/studio/create", {**STUDIO, "lyrics_type": "user"}, "lyrics"),
        ("/studio/create", {**STUDIO, "prompt_strength": 2}, "prompt_strength"),
    ],
)  # fmt: skip
async def test_bad_requests(begin: Begin, path: str, body: object, text: str) -> None:
    """400 with `type` and the documented text, where one is documented; not charged."""
    hand = await begin()
    status, reply = await hand.post(path, body)
    assert (status, set(reply)) == (400, {"type", "error"}), reply
    assert text in reply["error"]
    assert hand.box.journal.charges == 0


async def test_unknown_clips_and_tasks(begin: Begin) -> None:
    """404 for clips, 400 for tasks, each family's own body; a missing id is told."""
    hand = await begin()
    nobody = {"clip_id": "00000000-0000-4000-8000-000000000000"}
    for path in ("/sonic/wav", "/sonic/midi", "/sonic/bpm", "/sonic/stems/basic", "/sonic/stems/full"):
        assert await hand.post(path, nobody) == (404, example("sonic-wav-res-notfound")), path
    assert await hand.post("/sonic/aligned-lyrics", nobody) == (
        404,
        example("sonic-aligned-lyrics-res-notfound"),
    )
    purged = await hand.post("/sonic/download", {**nobody, "formats": ["mp3"]})
    assert purged == (404, example("sonic-download-res-purged"))
    unknown = (400, example("sonic-task-res-notfound-400"))
    for path in (
        "/sonic/task/x",
        "/suno/clip/x",
        "/suno/get-lyrics/x",
        "/producer/task/x",
        "/riffusion/task/x",
    ):
        assert await hand.get(path) == unknown, path
    assert await hand.get("/nuro/task/x") == (404, example("nuro-error-notfound"))
    assert await hand.get("/studio/task/x") == (400, example("studio-task-res-notfound"))
    assert await hand.get("/sonic/task/") == (400, example("sonic-task-res-missing-id-400"))


async def test_credits_subscription_and_moderation(begin: Begin) -> None:
    """403 by text, create-voice 402; free calls go on; moderation comes before the price."""
    hand = await begin(credits=0)
    assert await hand.post("/sonic/create", SONG) == (403, example("error-403-credits"))
    voice = {"audio_url": "http://127.0.0.1:9/voice.wav"}
    assert await hand.post("/sonic/create-voice", voice) == (402, example("error-402-credits"))
    assert await hand.get("/get-credits") == (200, {"credits": 0, "extra_credits": 0})
    hand.box.account.subscription = False
    assert await hand.post("/sonic/create", SONG) == (403, example("error-403-subscription"))
    status, reply = await hand.post("/sonic/create", {**OWN, "prompt": "an example phrase"})
    assert (status, reply["type"]) == (403, "forbidden")
    assert unlike(example("error-403-copyright"), reply) == []


async def test_retired_endpoints(begin: Begin) -> None:
    """410 for retired task types, and for families that are switched off: create and poll."""
    hand = await begin(choices=Choices(nuro="retired", riffusion="retired", studio="retired"))
    gone = (410, example("error-410-retired"))
    for kind in ("music_variation", "swap_music_vocals", "swap_music_sound"):
        found = await hand.post("/producer/create", {"task_type": kind, "sound": "pop"})
        assert found == (410, example("producer-create-res-retired"))
    for path, body in [
        ("/nuro/create", {"type": "vocal"}),
        ("/riffusion/create", {}),
        ("/studio/create", STUDIO),
    ]:
        assert await hand.post(path, body) == gone
    for path in ("/nuro/task/x", "/riffusion/task/x", "/studio/task/x"):
        assert await hand.get(path) == gone


async def test_the_create_limit(begin: Begin) -> None:
    """One create per three seconds: 429 with Retry-After, Nuro's 403; polls and direct calls pass."""
    hand = await begin(create_limit=(1, 3.0))
    first = await hand.submit("/sonic/create", SONG)
    assert await hand.post("/sonic/create", SONG) == (429, example("error-429-rate"))
    assert hand.headers["retry-after"] == "3"
    assert await hand.post("/nuro/create", {"type": "vocal", "lyrics": "la"}) == (
        403,
        example("nuro-error-qps"),
    )
    assert (await hand.get(f"/sonic/task/{first}"))[0] == 202
    assert (await hand.post("/sonic/upsample-tags", {"tags": "pop"}))[0] == 200
    await asyncio.sleep(3)
    assert (await hand.post("/producer/create", {"sound": "pop"}))[0] == 200


# --- submitting and polling ----------------------------------------------------------------------------------


async def test_submit_replies(begin: Begin) -> None:
    """Every create answers as documented, with and without `code`, with `steps` where a step comes first."""
    hand = await begin(credits=5000)
    clip = await hand.clip()
    clip_id, url = clip["clip_id"], clip["audio_url"]
    track = (await hand.finished("/producer/create", {"sound": "pop"}, "/producer/task/"))["data"][0][
        "clip_id"
    ]
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("/sonic/create", SONG, "sonic-create-res-submit"),
        ("/suno/create", SONG, "suno-create-res-submit"),
        ("/sonic/create-voice", {"audio_url": url}, "sonic-create-voice-res-submit"),
        ("/sonic/upload-extend", {**OWN, "url": url}, "sonic-upload-extend-res-submit"),
        ("/sonic/upload-cover", {**WISH, "url": url}, "sonic-upload-cover-res-submit"),
        (
            "/sonic/sample",
            {
                **OWN,
                "sample_clip_id": clip_id,
                "chop_sample_start_s": 1,
                "chop_sample_end_s": 5,
                "make_instrumental": False,
            },
            "sonic-sample-res-submit",
        ),
        ("/sonic/mashup", {**WISH, "mashup_clip_ids": [clip_id, clip_id]}, "sonic-mashup-res-submit"),
        (
            "/sonic/replace-section",
            {"clip_id": clip_id, "mv": "sonic-v5", "infill_start_s": 1, "infill_end_s": 4},
            "sonic-replace-section-res-submit",
        ),
        ("/sonic/stems/basic", {"clip_id": clip_id}, "sonic-stems-res-submit"),
        ("/sonic/stems/full", {"clip_id": clip_id}, "sonic-stems-res-submit"),
        ("/suno/make-lyrics", {"prompt": "sky"}, "suno-make-lyrics-res-submit"),
        ("/producer/create", {"lyrics": LYRICS}, "producer-create-res-submit"),
        ("/producer/upload", {"audio_url": url}, "producer-create-res-submit"),
        ("/producer/download", {"clip_id": track}, "producer-create-res-submit"),
        ("/nuro/create", {"type": "vocal", "lyrics": LYRICS}, "nuro-create-res-submit"),
        ("/riffusion/create", {"custom_mode": False, "prompt": "pop"}, "riffusion-create-res-submit"),
        ("/studio/create", STUDIO, "studio-create-res-submit"),
        ("/sonic/batch", {"items": [WISH, WISH]}, "sonic-batch-res-submit"),
    ]
    assert {path for path, _, _ in rows} == set(CREATES)
    for path, body, name in rows:
        status, reply = await hand.post(path, body)
        assert (status, unlike(example(name), reply)) == (200, []), (path, reply)


async def test_a_song_from_not_ready_to_finished(begin: Begin) -> None:
    """202, then 200 with clips that are pending, running (stream link), succeeded; one clip before the other."""
    hand = await begin()
    task_id = await hand.submit("/sonic/create", SONG)
    seen = await hand.looks(f"/sonic/task/{task_id}", limit=400)
    assert seen[0] == (202, example("sonic-task-res-notready-202"))
    assert all((status, body["code"], body["message"]) == (200, 200, "success") for status, body in seen[1:])
    rank = ["pending", "running", "succeeded"]
    for number in range(2):
        clips = [body["data"][number] for _, body in seen[1:]]
        states = [rank.index(clip["state"]) for clip in clips]
        assert states == sorted(states)
        assert set(states) == {0, 1, 2}
        for clip in clips:
            link = clip["audio_url"] or ""
            assert ("item_id=" in link) <= (clip["state"] == "running")
            assert link.endswith(".mp3") == (clip["state"] == "succeeded")
            assert (clip["duration"] is None) == (clip["state"] != "succeeded")
    assert {len({clip["state"] for clip in body["data"]}) for _, body in seen[1:]} == {1, 2}
    last = seen[-1][1]
    assert unlike(example("sonic-task-res-succeeded-live"), last) == []
    assert len(last["data"]) == 2
    assert isinstance(last["data"][0]["duration"], str)
    assert last["data"][0]["created_at"].endswith("Z")
    assert await hand.get(f"/suno/clip/{task_id}") == seen[-1]
    assert hand.box.journal.charges == 20


FAMILIES: list[tuple[str, dict[str, Any], str, str]] = [
    ("/producer/create", {"sound": "pop", "seed": "7"}, "/producer/task/", "producer-task-res-succeeded"),
    ("/nuro/create", {"type": "vocal", "lyrics": LYRICS}, "/nuro/task/", "nuro-task-res-succeeded"),
    (
        "/nuro/create",
        {
            "type": "bgm",
            "version": "v2.0",
            "description": "calm",
            "segments": [{"name": "intro", "duration": 40}],
        },
        "/nuro/task/",
        "nuro-task-res-succeeded",
    ),
    (
        "/riffusion/create",
        {"task_type": "create_music", "custom_mode": True, "lyrics": LYRICS, "sound": "pop"},
        "/riffusion/task/",
        "riffusion-task-res-succeeded",
    ),
    ("/studio/create", STUDIO, "/studio/task/", "studio-task-res-success"),
    (
        "/suno/make-lyrics",
        {"prompt": "a song about sky"},
        "/suno/get-lyrics/",
        "suno-get-lyrics-res-complete",
    ),
]


@pytest.mark.parametrize(("path", "body", "poll", "name"), FAMILIES)
async def test_other_families_end_as_documented(
    begin: Begin, path: str, body: object, poll: str, name: str
) -> None:
    """Producer's clips, Nuro's flat object, Riffusion's songs, Studio's task object, legacy lyrics."""
    hand = await begin()
    assert unlike(example(name), await hand.finished(path, body, poll)) == []


async def test_interim_forms_of_the_other_families(begin: Begin) -> None:
    """Producer 202 with code; Nuro with empty texts; Riffusion processing and one song; Studio's words."""
    hand = await begin()
    task_id = await hand.submit("/producer/create", {"sound": "pop"})
    assert await hand.get(f"/producer/task/{task_id}") == (202, example("producer-task-res-notready"))
    task_id = await hand.submit("/nuro/create", {"type": "vocal", "lyrics": LYRICS})
    seen = await hand.looks(f"/nuro/task/{task_id}", every=2.0, limit=200)
    words = list(dict.fromkeys(body["status"] for _, body in seen))
    assert words == ["pending", "running", "succeeded"]
    assert seen[0] == (200, {**example("nuro-task-res-pending"), "task_id": task_id})
    assert seen[-1][1]["audio_url"].endswith(".wav")
    task_id = await hand.submit("/riffusion/create", {"custom_mode": False, "prompt": "pop"})
    seen = await hand.looks(f"/riffusion/task/{task_id}", limit=300)
    assert seen[0] == (202, example("riffusion-task-res-notready"))
    assert seen[1] == (200, example("riffusion-task-res-processing"))
    assert [len(body["data"]) for _, body in seen[2:]] == [1, 2]
    task_id = await hand.submit("/studio/create", STUDIO)
    seen = await hand.looks(f"/studio/task/{task_id}", every=2.0, limit=300)
    assert list(dict.fromkeys(body["data"]["status"] for _, body in seen)) == [
        "NOT_START",
        "IN_PROGRESS",
        "SUCCESS",
    ]
    assert seen[-1][1]["data"]["progress"] == "100%"


FAILURES: list[tuple[str, int, str]] = [
    ("clips", 200, "sonic-task-res-failed-clips"),
    ("failed-200", 200, "sonic-task-res-failed-200"),
    ("timeout-200", 200, "sonic-task-res-timeout-200"),
    ("forbidden-200", 200, "sonic-task-res-forbidden-200"),
    ("api-error-200", 200, "sonic-task-res-apierror-200"),
    ("api-error-refunded", 500, "sonic-task-res-apierror-refunded"),
    ("failed-500", 500, "sonic-task-res-failed-500"),
    ("timeout-504", 504, "sonic-task-res-timeout-504"),
]


@pytest.mark.parametrize(("form", "status", "name"), FAILURES)
async def test_failed_tasks_are_told_and_paid_back(begin: Begin, form: str, status: int, name: str) -> None:
    """Each documented form with its status; extra credits go first, and come back to where they were."""
    hand = await begin(credits=100, extra_credits=5, choices=Choices(clip_error="error"))
    hand.box.faults.on("POST", "/sonic/create", Fault.fail(form))
    task_id = await hand.submit("/sonic/create", SONG)
    assert (await hand.get("/get-credits"))[1] == {"credits": 85, "extra_credits": 0}
    await asyncio.sleep(600)
    found = await hand.get(f"/sonic/task/{task_id}")
    assert found[0] == status
    assert unlike(example(name), found[1]) == [], found[1]
    assert (await hand.get("/get-credits"))[1] == {"credits": 100, "extra_credits": 5}


# --- what is made of clips -----------------------------------------------------------------------------------


async def test_direct_calls(begin: Begin) -> None:
    """wav, bpm, vox, persona, tags, lyrics, alignment, upload, share link: the documented bodies."""
    hand = await begin(credits=5000)
    clip = await hand.clip()
    one = {"clip_id": clip["clip_id"]}
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("/sonic/persona", {**one, "name": "Example"}, "sonic-persona-res-ok"),
        ("/sonic/upload", {"url": clip["audio_url"]}, "sonic-upload-res-ok"),
        ("/sonic/wav", one, "sonic-wav-res-ok"),
        ("/sonic/bpm", one, "sonic-bpm-res-ok"),
        ("/sonic/vox", {**one, "vocal_start_s": 1.0, "vocal_end_s": 4.0}, "sonic-vox-res-ok"),
        ("/sonic/aligned-lyrics", one, "sonic-aligned-lyrics-res-ok"),
        ("/sonic/upsample-tags", {"tags": "pop, happy"}, "sonic-upsample-tags-res-ok"),
        ("/sonic/lyrics", {"description": "a song about sky"}, "sonic-lyrics-res-ok"),
        ("/suno/get-song", {"share_link": "https://suno.example/song/x"}, "suno-get-song-res-ok"),
        ("/riffusion/upload", {"url": clip["audio_url"]}, "riffusion-upload-res-ok"),
    ]
    for path, body, name in rows:
        status, reply = await hand.post(path, body)
        assert (status, unlike(example(name), reply)) == (200, []), (path, reply)
    for path, body, early, late in [
        ("/sonic/midi", one, "sonic-midi-res-notready", "sonic-midi-res-ok"),
        (
            "/sonic/download",
            {**one, "formats": ["mp3", "m4a", "wav"]},
            "sonic-download-res-preparing",
            "sonic-download-res-ok",
        ),
    ]:
        before = hand.box.balance
        assert await hand.post(path, body) == (202, example(early))
        paid = before - hand.box.balance
        await asyncio.sleep(60)
        status, reply = await hand.post(path, body)
        assert (status, unlike(example(late), reply)) == (200, []), reply
        assert before - hand.box.balance == paid
    assert {*DIRECT} == {path for path, _, _ in rows} | {"/sonic/midi", "/sonic/download"}


async def test_persona_forms(begin: Begin) -> None:
    """The newer and the older form; a segment must be named with its own bounds; the persona sings."""
    hand = await begin()
    clip_id = (await hand.clip())["clip_id"]
    bounds = {"vocal_start_s": 1.0, "vocal_end_s": 4.0}
    vox = (await hand.post("/sonic/vox", {"clip_id": clip_id, **bounds}))[1]["data"]["vox_audio_id"]
    new = {
        "name": "N",
        "clip_id": clip_id,
        "describe": "calm",
        "styles": "soft",
        "vox_audio_id": vox,
        **bounds,
    }
    status, persona = await hand.post("/sonic/persona", new)
    assert status == 200
    assert (await hand.post("/sonic/persona", {**new, "vocal_end_s": 5.0}))[0] == 400
    older = {"name": "N", "continue_clip_id": clip_id, "description": "calm"}
    assert (await hand.post("/sonic/persona", older))[0] == 200
    song = {**OWN, "task_type": "persona_music", "persona_id": persona["persona_id"]}
    assert len((await hand.finished("/sonic/create", song))["data"]) == 2


@pytest.mark.parametrize(
    ("path", "count", "names"),
    [("basic", 2, {"vocals", "instrumental"}), ("full", 12, {"vocals", "drums", "bass"})],
)
@pytest.mark.parametrize("told", ["title", "both"])
async def test_stems(begin: Begin, path: str, count: int, names: set[str], told: Any) -> None:
    """One clip per stem, named at the end of `title`, and in `stem_type` if it is there; own files."""
    hand = await begin(choices=Choices(stem_names=told))
    data = (await hand.finished(f"/sonic/stems/{path}", {"clip_id": (await hand.clip())["clip_id"]}))["data"]
    documented = [{**clip, "stem_type": "x"} for clip in example(f"sonic-task-res-stems-{path}")["data"]]
    if told == "title":
        documented = [
            {key: value for key, value in clip.items() if key != "stem_type"} for clip in documented
        ]
    assert unlike(documented, data) == []
    assert len({clip["clip_id"] for clip in data}) == len({clip["audio_url"] for clip in data}) == count
    parts = [clip["title"].rpartition("-")[2].strip().lower() for clip in data]
    assert [clip.get("stem_type", part).lower() for clip, part in zip(data, parts, strict=True)] == parts
    assert names <= set(parts)


async def test_pairs(begin: Begin) -> None:
    """auto_concat gives pairs: `extended` or `replaced`, with `full` null until it is joined."""
    hand = await begin(credits=5000)
    clip = await hand.clip()
    section = {"clip_id": clip["clip_id"], "mv": "sonic-v5", "infill_start_s": 1, "infill_end_s": 4}
    for path, body, word in [
        ("/sonic/replace-section", section, "replaced"),
        ("/sonic/upload-extend", {**OWN, "url": clip["audio_url"], "continue_at": 5}, "extended"),
    ]:
        task_id = await hand.submit(path, {**body, "auto_concat": True})
        seen = [
            body
            for status, body in await hand.looks(f"/sonic/task/{task_id}", every=2.0, limit=600)
            if status == 200
        ]
        assert all(set(pair) == {word, "full"} for body in seen for pair in body["data"])
        joining = [pair for body in seen for pair in body["data"] if pair["full"] is None]
        assert any(pair[word]["state"] == "succeeded" for pair in joining)
        assert unlike(example(f"sonic-task-res-pairs-{word}"), seen[-1]) == []
        for pair in seen[-1]["data"]:
            assert float(pair["full"]["duration"]) > float(pair[word]["duration"])


async def test_a_voice(begin: Begin) -> None:
    """Its result is an object with the persona id."""
    hand = await begin()
    found = await hand.finished("/sonic/create-voice", {"audio_url": (await hand.clip())["audio_url"]})
    assert unlike(example("sonic-task-res-voice"), found) == []


async def test_steps_that_fail(begin: Begin) -> None:
    """`failed_step` and `steps`, no task id, nothing charged; the uploaded clip is told and can be used."""
    hand = await begin()
    url = (await hand.clip())["audio_url"]
    before = hand.box.balance
    status, reply = await hand.post("/sonic/upload-cover", {**OWN, "url": "http://127.0.0.1:9/no.mp3"})
    assert (status, reply) == (400, example("sonic-upload-cover-res-upload-failed"))
    hand.box.faults.on("POST", "/sonic/upload-cover", Fault.fail_step())
    status, reply = await hand.post("/sonic/upload-cover", {**OWN, "url": url})
    assert status == 400
    assert unlike(example("sonic-upload-cover-res-cover-failed"), reply) == []
    assert hand.box.balance == before
    uploaded = reply["steps"]["upload"]["clip_id"]
    cover = {**OWN, "task_type": "cover_upload_music", "continue_clip_id": uploaded}
    assert await hand.submit("/sonic/create", cover)


async def test_sources_must_answer_head(begin: Begin) -> None:
    """A link that only answers GET cannot be uploaded."""
    hand = await begin(choices=Choices(head="refused"))
    found = await hand.post("/sonic/upload", {"url": (await hand.clip())["audio_url"]})
    assert found == (400, example("sonic-upload-res-unreachable"))


# --- webhooks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "fault", "events", "name"),
    [
        ("/sonic/create", SONG, None, ["song.streaming", "song.completed"], "webhook-sonic-completed"),
        ("/sonic/create", SONG, Fault.fail(), ["song.streaming", "song.failed"], "webhook-sonic-failed"),
        ("/producer/create", {"sound": "pop"}, None, ["song.completed"], "webhook-producer-completed"),
        (
            "/nuro/create",
            {"type": "vocal", "lyrics": LYRICS},
            None,
            ["song.completed"],
            "webhook-nuro-completed",
        ),
    ],
)
async def test_webhooks(
    begin: Begin, path: str, body: dict[str, Any], fault: Fault | None, events: list[str], name: str
) -> None:
    """POST with the five headers, a signature over timestamp and raw body, and the documented payload."""
    hand = await begin()
    if fault is not None:
        hand.box.faults.on("POST", path, fault)
    got: list[tuple[dict[str, str], bytes]] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])
        }
        assert lines[0].startswith("POST /hook ")
        got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        hook = {"webhook_url": f"http://127.0.0.1:{port}/hook", "webhook_secret": "example-webhook-secret"}
        task_id = await hand.submit(path, {**body, **hook})
        await asyncio.sleep(900)
    assert [headers["x-webhook-event"] for headers, _ in got] == events
    for headers, raw in got:
        signed = headers["x-webhook-timestamp"].encode() + b"." + raw
        digest = hmac.new(b"example-webhook-secret", signed, hashlib.sha256).hexdigest()
        assert headers["x-webhook-signature"] == f"sha256={digest}"
        assert headers["x-webhook-id"] == headers["idempotency-key"]
        assert headers["content-type"].startswith("application/json")
        assert json.loads(raw)["task_id"] == task_id
    assert len({headers["x-webhook-id"] for headers, _ in got}) == len(events)
    assert unlike(example(name), json.loads(got[-1][1])) == []
