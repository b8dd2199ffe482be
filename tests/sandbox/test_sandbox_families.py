"""Producer and the deprecated families, each with its own envelope."""

from __future__ import annotations

from typing import Any

import pytest

from musicapi_async.sandbox import Choices, Fault

STUDIO = {
    "prompt": "rock, pop soul",
    "prompt_strength": 0.5,
    "clarity_strength": 0.25,
    "lyrics_strength": 0.5,
    "generation_quality": 0.75,
    "model_type": "studio32-v1.5",
    "lyrics_type": "generate",
    "config": {"mode": "regular"},
}


async def test_producer_clip(start):
    """One clip with Producer's keys: the seed as text, the duration a number."""
    api = await start()
    body = {"task_type": "create_music", "sound": "pop, bright", "seed": "12345", "length": 5}
    (clip,) = await api.finished(await api.submit("/producer/create", body), "/producer/task/")
    assert set(clip) == {
        "clip_id", "title", "sound", "lyrics", "image_url", "audio_url", "video_url", "created_at", "mv",
        "seed", "duration", "state",
    }  # fmt: skip
    assert (clip["seed"], clip["mv"], clip["duration"], clip["sound"]) == (
        "12345",
        "Lyria 3 Pro",
        5,
        "pop, bright",
    )
    again = {"task_type": "create_music", "sound": "pop, bright", "seed": 12345, "length": 5, "bpm": "90"}
    assert (await api.post("/producer/create", again))[0] == 200


async def test_producer_status_form(start):
    """The other form has a top-level status and clips without state and date, with the WAV beside the audio."""
    api = await start(choices=Choices(producer="status", producer_seed="number"))
    task_id = await api.submit("/producer/create", {"sound": "pop, instrumental, no vocals"})
    seen: list[str] = []

    def over(_: int, body: Any) -> bool:
        seen.append(body["status"])
        return body["status"] == "SUCCESS"

    _, body = await api.until(f"/producer/task/{task_id}", over)
    assert seen[0] == "PENDING"
    assert "RUNNING" in seen
    assert not {"state", "created_at"} & body["data"][0].keys()
    assert (await api.call("HEAD", body["data"][0]["wav_url"], key=None))[0] == 200
    assert type(body["data"][0]["seed"]) is int
    assert body["data"][0]["lyrics"] == "[Instrumental]"
    api.sandbox.faults.on("POST", "/producer/create", Fault.fail())
    task_id = await api.submit("/producer/create", {"sound": "pop"})
    _, body = await api.until(f"/producer/task/{task_id}", lambda _, b: b["status"] == "FAILED")
    assert body["message"] == "Generation failed. Credits have been refunded."


async def test_producer_failure(start):
    """By default a failed Producer task is an HTTP 500 with `type` failed."""
    api = await start()
    api.sandbox.faults.on("POST", "/producer/create", Fault.fail())
    task_id = await api.submit("/producer/create", {"sound": "pop"})
    status, body = await api.until(f"/producer/task/{task_id}", lambda status, _: status == 500)
    assert (status, body["type"]) == (500, "failed")


async def test_producer_works(start):
    """Extend, replace, cover, upload and download work on its clips."""
    api = await start()
    (clip,) = await api.finished(await api.submit("/producer/create", {"sound": "pop"}), "/producer/task/")
    on = {"clip_id": clip["clip_id"]}
    longer = {"task_type": "extend_music", **on, "starts_at": 4, "length": 3}
    (part,) = await api.finished(await api.submit("/producer/create", longer), "/producer/task/")
    assert part["duration"] == pytest.approx(7)
    anew = {"task_type": "replace_music", **on, "starts_at": 1, "ends_at": 3, "instruction": "softer"}
    (same,) = await api.finished(await api.submit("/producer/create", anew), "/producer/task/")
    assert same["duration"] == pytest.approx(clip["duration"])
    assert (await api.post("/producer/create", {"task_type": "cover_music", **on}))[0] == 400
    for missing in ("starts_at", "ends_at"):
        window = {name: value for name, value in anew.items() if name != missing}
        status, reply = await api.post("/producer/create", window)
        assert (status, missing in reply["error"]) == (400, True)
    older = {"task_type": "replace_music", **on, "starts": 1, "ends": 3}
    assert (await api.post("/producer/create", older))[0] == 200
    task_id = await api.submit("/producer/upload", {"audio_url": clip["audio_url"]})
    (item,) = await api.finished(task_id, "/producer/task/")
    assert set(item) == {"clip_id"}
    for ending, key in (("mp3", "audio_url"), ("wav", "wav_url")):
        task_id = await api.submit("/producer/download", {**on, "format": ending})
        (item,) = await api.finished(task_id, "/producer/task/")
        assert set(item) == {key}
        assert (await api.call("HEAD", item[key], key=None))[0] == 200


async def test_nuro(start):
    """A flat object: empty texts first, then a WAV; errors in Nuro's own form; the limit is a 403."""
    api = await start(create_limit=(1, 60.0))
    body = {"type": "vocal", "lyrics": "[verse]\nla la la", "gender": "Male", "duration": 30}
    status, reply = await api.post("/nuro/create", body)
    assert (status, set(reply)) == (200, {"message", "task_id"})
    limited = await api.post("/nuro/create", body)
    assert limited == (
        403,
        {"type": "forbidden", "message": "API QPS limit exceeded", "refund_processed": False},
    )
    path = f"/nuro/task/{reply['task_id']}"
    seen: list[str] = []

    def over(_: int, item: Any) -> bool:
        seen.append(item["status"])
        return item["status"] == "succeeded"

    _, done = await api.until(path, over)
    assert seen[0] == "pending"
    assert "running" in seen
    assert done["gender"] == "Male"
    assert done["audio_url"].endswith(".wav")
    status, unknown = await api.get("/nuro/task/x")
    assert (status, unknown) == (
        404,
        {"type": "not_found", "message": "Task not found", "refund_processed": False},
    )


async def test_nuro_background_music(start):
    """Lists of at most five words, or segments that sum to 30 to 120 seconds."""
    api = await start()
    await api.submit("/nuro/create", {"type": "bgm", "description": "calm", "genre": ["epic"], "duration": 5})
    segments = {"type": "bgm", "version": "v2.0", "description": "calm"}
    await api.submit("/nuro/create", {**segments, "segments": [{"name": "intro", "duration": 40}]})
    for wrong in ([{"name": "intro", "duration": 4}], [{"name": "x", "duration": 40}], "x", [7]):
        status, reply = await api.post("/nuro/create", {**segments, "segments": wrong})
        assert (status, reply["type"]) == (400, "bad_request")
    assert (await api.post("/nuro/create", {"type": "bgm", "description": "x", "version": "2"}))[0] == 400
    too_many = {"type": "bgm", "description": "x", "mood": ["a"] * 6}
    assert (await api.post("/nuro/create", too_many))[0] == 400


@pytest.mark.parametrize("choice", ["status", "type"])
async def test_nuro_failure(start, choice):
    """A failed task says so by status, or with Nuro's error body."""
    api = await start(choices=Choices(nuro_failure=choice))
    api.sandbox.faults.on("POST", "/nuro/create", Fault.fail())
    task_id = await api.submit("/nuro/create", {"type": "bgm", "description": "calm"})
    status, body = await api.until(
        f"/nuro/task/{task_id}", lambda status, b: status == 400 or b["status"] == "failed"
    )
    assert (status, body.get("refund_processed")) == ((400, True) if choice == "type" else (200, None))


async def test_riffusion(start):
    """Not ready, processing, one song, two songs."""
    api = await start(speed=400.0)
    task_id = await api.submit("/riffusion/create", {"custom_mode": False, "prompt": "r&b pop song"})
    seen: list[tuple[int, str, int]] = []

    def over(status: int, body: Any) -> bool:
        seen.append((status, body.get("message", ""), len(body.get("data") or [])))
        return seen[-1][2] == 2

    _, body = await api.until(f"/riffusion/task/{task_id}", over, step=3.0)
    assert seen[0][0] == 202
    assert (200, "processing", 0) in seen
    assert (200, "success", 1) in seen
    assert body["data"][0]["timestamp"] == {}
    assert isinstance(body["data"][0]["duration"], int | float)
    source = {"continue_clip_id": body["data"][0]["clip_id"], "lyrics": "la", "sound": "deep male voice"}
    for kind in ("extend_music", "cover_music", "swap_music_sound", "swap_music_vocals"):
        await api.submit("/riffusion/create", {"task_type": kind, **source, "continue_at": 3})
    for kind, missing in [
        ("extend_music", "lyrics"),
        ("extend_upload_music", "sound"),
        ("extend_music", "continue_at"),
        ("swap_music_sound", "lyrics"),
        ("swap_upload_music_vocals", "sound"),
        ("cover_music", "lyrics"),
    ]:
        given = {"task_type": kind, "custom_mode": True, **source, "continue_at": 3}
        del given[missing]
        status, reply = await api.post("/riffusion/create", given)
        assert (status, missing in reply["error"]) == (400, True)
    window = {"replace_start_time": 1, "replace_end_time": 3}
    await api.submit("/riffusion/create", {"task_type": "replace_music", **source, **window})
    audio = {"url": body["data"][0]["audio_url"]}
    assert set((await api.post("/riffusion/upload", audio))[1]) == {"code", "clip_id", "message"}


@pytest.mark.parametrize("code", ["success", "200"])
async def test_studio(start, code):
    """The id is `data`, `code` is text; the task is an object with its songs inside."""
    api = await start(choices=Choices(studio_code=code, studio_tags="text"))
    status, reply = await api.post("/studio/create", STUDIO)
    assert (status, reply["code"]) == (200, code)
    path = f"/studio/task/{reply['data']}"
    seen: list[str] = []

    def over(_: int, body: Any) -> bool:
        seen.append(body["data"]["status"])
        return body["data"]["status"] == "SUCCESS"

    _, body = await api.until(path, over)
    assert seen[0] == "NOT_START"
    assert "IN_PROGRESS" in seen
    songs = body["data"]["data"]["songs"]
    assert len(songs) == 2
    assert songs[0]["tags"] == "rock, pop soul"
    assert (await api.call("HEAD", songs[0]["song_path"], key=None))[0] == 200
    more = {**STUDIO, "config": {"mode": "continuation", "source": {"song_id": songs[0]["id"]}}}
    assert (await api.post("/studio/create", more))[0] == 200
    assert (await api.post("/studio/create", {**STUDIO, "config": {"mode": "precede"}}))[0] == 400
    assert await api.get("/studio/task/x") == (400, {"code": "error", "message": "Task not found"})
