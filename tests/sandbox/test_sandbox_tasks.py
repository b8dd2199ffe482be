"""The life of a task, from submit to the last clip, in every form that the contract names."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any, get_args, get_type_hints

import pytest

from musicapi_async.sandbox import Choices, Durations, Fault

SONG = {
    "task_type": "create_music",
    "custom_mode": True,
    "mv": "sonic-v6",
    "prompt": "[Verse]\nRain on the window\nLight in the hall",
    "use_suno_cdn": False,
}
KEYS = {
    "clip_id", "state", "title", "tags", "lyrics", "image_url", "audio_url", "video_url", "created_at", "mv",
    "gpt_description_prompt", "duration", "negative_tags", "style_weight", "weirdness_constraint",
}  # fmt: skip


async def test_task_passes_through_every_phase(start):
    """Not ready, pending, running with a stream link, one clip done, both done, clip by clip."""
    api = await start(speed=250.0)
    task_id = await api.submit()
    seen: list[tuple[int, tuple[str, ...]]] = []
    stream_links = False

    def done(status: int, body: Any) -> bool:
        nonlocal stream_links
        clips = body.get("data") or []
        phase = (status, tuple(sorted(clip["state"] for clip in clips)))
        if not seen or seen[-1] != phase:
            seen.append(phase)
        for clip in clips:
            if clip["state"] == "running" and clip["audio_url"]:
                stream_links = True
                assert "/audiopipe/?item_id=" in clip["audio_url"]
            if clip["state"] != "succeeded":
                assert clip["duration"] is None
        return phase[1] == ("succeeded", "succeeded")

    await api.until(f"/sonic/task/{task_id}", done, step=0.5)
    phases = [phase for _, phase in seen]
    assert seen[0] == (202, ())
    assert stream_links
    for word in (("pending", "pending"), ("running", "running"), ("running", "succeeded")):
        assert word in phases
    assert phases.index(("pending", "pending")) < phases.index(("running", "succeeded"))


async def test_finished_clip_has_the_live_form(start):
    """Fifteen keys, the duration as decimal text, no video, the file on the sandbox's own media host."""
    api = await start()
    status, reply = await api.post("/sonic/create", SONG)
    assert (status, set(reply)) == (200, {"message", "task_id"})
    assert reply["message"] == "success"
    uuid.UUID(reply["task_id"])
    clips = await api.finished(reply["task_id"])
    assert len(clips) == 2
    for clip in clips:
        assert set(clip) == KEYS
        assert isinstance(clip["duration"], str)
        assert float(clip["duration"]) == pytest.approx(6, abs=0.01)
        assert clip["video_url"] is None
        assert clip["mv"] == "sonic-v6"
        assert clip["audio_url"].endswith(f"/media/{clip['clip_id']}.mp3")
        assert clip["created_at"].endswith("Z")
        assert clip["lyrics"] == SONG["prompt"]


@pytest.mark.parametrize(
    ("choice", "status", "body"),
    [
        ("202", 202, {"type", "error"}),
        ("202-code", 202, {"code", "type", "error"}),
        ("200", 200, {"type"}),
        ("empty", 200, {"code", "message", "data"}),
        ("null", 200, {"code", "message", "data"}),
    ],
)
async def test_not_ready_forms(start, choice, status, body):
    """A task without clips is told in each documented form."""
    api = await start(choices=Choices(not_ready=choice), speed=1.0)
    task_id = await api.submit()
    got, reply = await api.get(f"/sonic/task/{task_id}")
    assert (got, set(reply)) == (status, body)
    assert not reply.get("data")


async def test_hidden_running_stays_at_202_until_all_is_done(start):
    """With `running="hidden"` the first 200 is the finished one, as clients of `code == 200` need."""
    api = await start(choices=Choices(running="hidden"))
    task_id = await api.submit()
    _, body = await api.until(f"/sonic/task/{task_id}", lambda status, _: status == 200)
    assert [clip["state"] for clip in body["data"]] == ["succeeded", "succeeded"]


@pytest.mark.parametrize(
    ("form", "status", "word"),
    [
        ("failed-200", 200, "failed"),
        ("timeout-200", 200, "timeout"),
        ("forbidden-200", 200, "forbidden"),
        ("api-error-200", 200, "api_error"),
        ("api-error-refunded", 500, "api_error"),
        ("failed-500", 500, "failed"),
        ("timeout-504", 504, "timeout"),
    ],
)
async def test_failure_forms(start, form, status, word):
    """A failed task is told in each documented form, and its price comes back."""
    api = await start(credits=100)
    api.sandbox.faults.on("POST", "/sonic/create", Fault.fail(form))
    task_id = await api.submit()
    assert api.sandbox.balance == 80
    got, body = await api.until(
        f"/sonic/task/{task_id}", lambda _, b: b.get("type") not in (None, "not_ready")
    )
    assert (got, body["type"]) == (status, word)
    assert body.get("already_refunded") is (True if form == "api-error-refunded" else None)
    assert api.sandbox.balance == 100
    assert api.sandbox.journal.charges == 0
    assert api.sandbox.journal.creates[0].refunded


async def test_clips_can_fail_one_by_one_or_all(start):
    """A partial task is not refunded; a failed one is, its text on the clips."""
    api = await start(credits=100, choices=Choices(clip_error="error"))
    api.sandbox.faults.on("POST", "/sonic/create", Fault.partial())
    clips = await api.finished(await api.submit())
    assert sorted(clip["state"] for clip in clips) == ["failed", "succeeded"]
    assert api.sandbox.balance == 80
    api.sandbox.faults.on("POST", "/sonic/create", Fault.fail("clips"))
    clips = await api.finished(await api.submit())
    assert [clip["state"] for clip in clips] == ["failed", "failed"]
    assert all(clip["error"] and clip["audio_url"] is None for clip in clips)
    assert api.sandbox.balance == 80


@pytest.mark.parametrize(
    ("choice", "status", "key"), [("400", 400, "error"), ("404", 404, "error"), ("code", 200, "message")]
)
async def test_unknown_task_forms(start, choice, status, key):
    """An unknown id is told in each documented form."""
    api = await start(choices=Choices(unknown_task=choice))
    got, body = await api.get(f"/sonic/task/{uuid.uuid4()}")
    assert (got, body[key]) == (status, "task not found.")
    got, body = await api.get("/sonic/task/")
    assert (got, body["error"]) == (400, "missing task id.")


@pytest.mark.parametrize(("form", "path"), [("plain", "task_id"), ("code", "code"), ("nested", "data")])
async def test_submit_forms(start, form, path):
    """The task id comes with or without `code`, or under `data`."""
    api = await start(choices=Choices(submit=form))
    _, body = await api.post("/sonic/create", SONG)
    assert path in body
    task_id = body["data"]["task_id"] if form == "nested" else body["task_id"]
    assert (await api.get(f"/sonic/task/{task_id}"))[0] in (200, 202)


@pytest.mark.parametrize(("form", "kind"), [("text", str), ("number", float), ("integer", int)])
async def test_duration_forms(start, form, kind):
    """`duration` comes as text, as a number or as a whole number."""
    api = await start(choices=Choices(duration=form))
    clip = await api.song(duration=10)
    assert type(clip["duration"]) is kind
    assert float(clip["duration"]) == pytest.approx(10, abs=1)


async def test_durations_and_ids_follow_from_the_seed(start):
    """Two sandboxes with one seed give the same ids and times; another seed gives others."""
    ids = []
    for seed in (1, 1, 2):
        api = await start(seed=seed)
        ids.append(await api.submit())
    assert ids[0] == ids[1] != ids[2]


async def test_durations_are_spread_like_the_reported_ones(start):
    """Nine songs of ten take between one and three minutes."""
    api = await start()
    draws = [api.sandbox.service.spread(Durations().song) for _ in range(2000)]
    inside = sum(60 <= draw <= 180 for draw in draws) / len(draws)
    assert 0.85 < inside < 0.95


async def test_aliases_and_families_keep_their_tasks_apart(start):
    """A sonic task is also found under the suno alias, and nowhere else."""
    api = await start()
    task_id = await api.submit("/suno/create")
    assert (await api.get(f"/suno/clip/{task_id}"))[0] == 202
    assert (await api.get(f"/producer/task/{task_id}"))[0] == 400


def test_every_row_of_the_choices_can_be_switched():
    """Each literal row accepts each of its words."""
    hints = get_type_hints(Choices)
    for row in dataclasses.fields(Choices):
        for word in get_args(hints[row.name]):
            assert getattr(Choices(**{row.name: word}), row.name) == word
