"""The client against the sandbox: the main job, the money, the handles."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from pathlib import Path

import pytest

from musicapi_async import (
    AuthenticationError,
    BadRequestError,
    Clips,
    InsufficientCreditsError,
    MusicAPI,
    MusicAPIError,
    NotFoundError,
    RequestValidationError,
    Task,
    TaskFailedError,
    TaskTimeoutError,
    Webhooks,
)
from musicapi_async.sandbox import Choices, Fault, Sandbox
from musicapi_async.webhooks import sign

SPEED = 300.0
LYRICS = "[Verse]\nRain on the window\n[Chorus]\nStay for the evening"


async def test_the_main_job_from_description_to_persona_song() -> None:
    """Two generations, a persona from the first clip, a song with it; the balance shows what it cost."""
    async with Sandbox(speed=SPEED, seed=3) as sandbox, sandbox.client(rate_limit=None) as client:
        before = await client.credits()
        first = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi, rainy")
        second = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS, title="Own", vocal_gender="f")
        clips = await first.wait()
        assert len(clips) == 2
        assert all(clip.is_succeeded and clip.final_url and clip.duration for clip in clips)
        persona = await client.sonic.create_persona(name="Rainy voice", clip_id=clips[0].clip_id)
        sequel = await client.sonic.persona_music(persona_id=persona.persona_id, mv="sonic-v6", prompt=LYRICS)
        own, sung = await client.wait_all([second, sequel])
        assert own[0].title == "Own"
        assert sung.status == "succeeded"
        spent = before.total - (await client.credits()).total
        assert spent == sandbox.journal.charges == 61
        assert not sandbox.journal.charged_twice()


async def test_extend_concat_cover_and_the_older_persona_form() -> None:
    """The other operations on a finished clip work and give clips."""
    async with Sandbox(speed=SPEED, seed=3) as sandbox, sandbox.client(rate_limit=None) as client:
        clip = (
            await (
                await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nx", make_instrumental=True)
            ).wait()
        )[0]
        extended = await client.sonic.extend_music(
            continue_clip_id=clip.clip_id, continue_at=20, custom_mode=True, mv="sonic-v6", prompt=LYRICS
        )
        cover = await client.sonic.cover_music(
            continue_clip_id=clip.clip_id, mv="sonic-v6", gpt_description_prompt="as jazz", audio_weight=0.5
        )
        part = (await extended.wait())[0]
        full = await (await client.sonic.concat_music(continue_clip_id=part.clip_id)).wait()
        assert len(full) == 1
        assert (full[0].duration or 0) > (part.duration or 0)
        assert len(await cover.wait()) == 2
        older = await client.sonic.create_persona_older("Older", "warm and calm", clip.clip_id)
        assert older.persona_id


async def test_get_music_and_refresh_show_a_task_as_it_is() -> None:
    """One look, free; unknown ids raise."""
    async with Sandbox(speed=1.0) as sandbox, sandbox.client() as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        update = await client.sonic.get_music(task.task_id)
        assert update.state == "pending"
        assert (await task.refresh()).state == "pending"
        with pytest.raises(NotFoundError) as caught:
            await client.sonic.get_music("00000000-0000-4000-8000-000000000000")
        assert caught.value.task_id == "00000000-0000-4000-8000-000000000000"
        assert sandbox.journal.charges == 20


async def test_a_task_is_resumed_from_its_id_or_its_token_by_another_client() -> None:
    """Losing the handle loses nothing."""
    async with Sandbox(speed=SPEED, seed=5) as sandbox:
        async with sandbox.client() as client:
            task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        async with sandbox.client() as other:
            by_token = await other.task(task.token).wait()
            by_id = await other.task("sonic", task.task_id).wait()
            assert [clip.clip_id for clip in by_token] == [clip.clip_id for clip in by_id]
            with pytest.raises(RequestValidationError, match="token"):
                other.task("no token")
        assert len(sandbox.journal.creates) == 1


async def test_waiting_again_answers_at_once_without_a_poll() -> None:
    """A finished handle keeps its result."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client() as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        first = await task.wait()
        polls = len(sandbox.journal.requests(kind="poll"))
        assert await task.wait() is first
        assert len(sandbox.journal.requests(kind="poll")) == polls


async def test_a_local_timeout_leaves_the_task_and_waiting_resumes() -> None:
    """After a time-out the same handle can be waited for again; nothing is paid again."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client() as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        with pytest.raises(TaskTimeoutError) as caught:
            await task.wait(timeout=10)
        assert caught.value.task_id == task.task_id
        assert (await task.wait()).status == "succeeded"
        assert len(sandbox.journal.creates) == 1


async def test_as_completed_gives_each_task_once_and_errors_stay_with_their_task() -> None:
    """One failed task does not hide the others."""
    async with Sandbox(speed=SPEED, seed=2) as sandbox, sandbox.client(rate_limit=None) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.fail(), after=1)
        tasks = [await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS) for _ in range(4)]
        seen: list[Task[Clips]] = []
        failed = 0
        async for task in client.as_completed(tasks):
            seen.append(task)
            try:
                assert len(await task.wait()) == 2
            except TaskFailedError as error:
                failed += 1
                assert error.task_id == task.task_id == tasks[1].task_id
        assert Counter(task.task_id for task in seen) == Counter(task.task_id for task in tasks)
        assert failed == 1
        with pytest.raises(TaskFailedError):
            await client.wait_all(tasks)
        ended = await client.wait_all(tasks, return_exceptions=True)
        assert [isinstance(one, TaskFailedError) for one in ended] == [False, True, False, False]


async def test_a_timeout_of_wait_all_is_raised_once_and_then_waiting_resumes() -> None:
    """`as_completed` hands the time-out to the next wait; the one after that goes on waiting."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client() as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        async for ended in client.as_completed([task], timeout=5):
            with pytest.raises(TaskTimeoutError):
                await ended.wait()
        assert (await task.wait()).status == "succeeded"


async def test_partial_success_is_a_result() -> None:
    """One failed clip of two does not raise; `require_all` does."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client() as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.partial())
        clips = await (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)).wait()
        assert (clips.status, len(clips.succeeded), len(clips.failed)) == ("partial", 1, 1)
        with pytest.raises(TaskFailedError):
            clips.require_all()


async def test_checks_refuse_before_anything_is_sent() -> None:
    """The error names field, limit and value; the server sees nothing; with checks off it answers itself."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client() as client:
        with pytest.raises(RequestValidationError) as caught:
            await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS, title="x" * 81)
        error = caught.value
        assert (error.field, error.limit, error.value) == (
            "title",
            "text of at most 80 characters",
            "81 characters",
        )
        assert "Nothing was sent" in str(error)
        assert len(sandbox.journal) == 0
        unchecked = client.with_options(validate="off")
        with pytest.raises(BadRequestError, match="less than 80"):
            await unchecked.sonic.create_music(mv="sonic-v6", prompt=LYRICS, title="x" * 81)
        with (
            pytest.warns(UserWarning, match="title: text of at most 80"),
            pytest.raises(BadRequestError),
        ):
            await client.with_options(validate="warn").sonic.create_music(
                mv="sonic-v6", prompt=LYRICS, title="x" * 81
            )
        assert sandbox.journal.charges == 0


async def test_refusals_say_what_happened_and_that_nothing_was_charged() -> None:
    """A wrong key and an empty account are told apart, with the request id and a hint; all pickle."""
    async with Sandbox(speed=SPEED, credits=5, choices=Choices(no_credits="402")) as sandbox:
        async with sandbox.client() as client:
            with pytest.raises(InsufficientCreditsError) as poor:
                await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        async with MusicAPI("wrong-key-123", base_url=sandbox.base_url, clock=sandbox.clock) as client:
            with pytest.raises(AuthenticationError) as wrong:
                await client.credits()
        assert "Nothing was charged" in str(poor.value)
        assert "wrong-key-123" not in str(wrong.value) + repr(vars(wrong.value)) + repr(client)
        for error in (poor.value, wrong.value):
            copy = pickle.loads(pickle.dumps(error))
            assert (type(copy), str(copy), copy.status) == (type(error), str(error), error.status)


async def test_the_raw_method_reaches_everything_with_the_same_errors() -> None:
    """`request` sends what is not typed."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client() as client:
        body = {"custom_mode": True, "mv": "sonic-v5-5", "prompt": LYRICS}
        reply = await client.request("POST", "/sonic/create", json=body)
        assert reply["task_id"]
        assert sandbox.journal.creates[0].body == body
        assert (await client.request("get", "/get-credits"))["credits"] == 980
        with pytest.raises(NotFoundError):
            await client.request("GET", "/credits")
        for path in ("http://elsewhere.example/x", "//elsewhere.example/x", "sonic/create"):
            with pytest.raises(RequestValidationError, match="path"):
                await client.request("GET", path)


async def test_extra_body_fields_are_sent_as_they_are() -> None:
    """What the SDK does not type can ride along."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client() as client:
        view = client.with_options(extra_body={"future_field": [1, 2]})
        await view.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        sent = sandbox.journal.creates[0].body
        assert isinstance(sent, dict)
        assert sent["future_field"] == [1, 2]
        with pytest.raises(TypeError, match="unknown option"):
            client.with_options(dedline=3)


async def test_create_many_loses_no_task_to_a_neighbours_error() -> None:
    """Each row gives its task or its error, in order."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client(rate_limit=None) as client:
        rows = [{"mv": "sonic-v6", "prompt": LYRICS}, {"mv": "sonic-v6"}, {"mv": "sonic-v6", "prompt": "la"}]
        made = await client.create_many(client.sonic.create_music, rows)
        assert [type(one) for one in made] == [Task, RequestValidationError, Task]
        assert len(sandbox.journal.creates) == 2


async def test_errors_of_the_family_argument_are_clear() -> None:
    """A family that has no tasks is refused before any wait."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client() as client:
        with pytest.raises(RequestValidationError, match="family"):
            await client.task("sonik", "id").wait()
        with pytest.raises(RequestValidationError):
            client.task("sonic", "")


async def test_downloads_are_whole_playable_files_without_the_key(tmp_path: Path) -> None:
    """Each clip becomes one MP3 of the right length; the key never goes to the media host; again is free."""
    import soundfile

    async with Sandbox(speed=SPEED, seed=4, longest=5) as sandbox, sandbox.client() as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS, title='A/B: "C"?')
        clips = await task.wait()
        paths = await client.download(clips, tmp_path / "new" / "folder")
        assert [path.suffix for path in paths] == [".mp3", ".mp3"]
        for clip, path in zip(clips, paths, strict=True):
            assert clip.clip_id in path.name
            assert not set('<>:"/\\|?*') & set(path.name)
            assert soundfile.info(path).duration == pytest.approx(clip.duration, abs=0.2)
        media = sandbox.journal.requests(kind="media")
        assert media
        assert not any(entry.key_sent for entry in media)
        assert await client.download(clips, tmp_path / "new" / "folder") == paths
        assert len(sandbox.journal.requests(kind="media")) == len(media)
        assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(p.name for p in paths)


async def test_one_error_says_which_option_is_wrong() -> None:
    """Options are checked at construction."""
    for options in (
        {"rate_limit": "fast"},
        {"max_retries": -1},
        {"deadline": 0},
        {"attempt_timeout": float("nan")},
        {"attempt_timeout": 10**400},
        {"validate": "maybe"},
        {"base_url": "ftp://x"},
    ):
        with pytest.raises(MusicAPIError) as caught:
            MusicAPI("key", **options)
        assert next(iter(options)) in str(caught.value)


async def test_an_id_may_be_a_number() -> None:
    """Of a task in the submit reply, in its webhook, and of a voice: the webhook ends the wait for the task."""
    secret = "example-webhook-secret"
    async with Sandbox(speed=SPEED) as sandbox:
        webhooks = Webhooks(url="https://hooks.example/songs", secret=secret)
        async with sandbox.client(webhooks=webhooks, rate_limit=None) as client:
            sandbox.faults.on("POST", "/sonic/create-voice", Fault.status(200, body='{"task_id": 7}'))
            task = await client.sonic.create_voice("https://files.example/voice.wav")
            body = b'{"data":{"persona_id":17},"task_id":7,"platform":"suno","event":"song.completed"}'
            stamp = str(int(time.time()))
            headers = {
                "X-Webhook-Timestamp": stamp,
                "X-Webhook-Signature": sign(secret, stamp, body),
                "X-Webhook-Id": "e-1",
            }
            event = await client.webhooks.handle(headers, body)
            assert (task.task_id, event.task_id) == ("7", "7")
            assert (await task.wait()).persona_id == "17"
            assert sandbox.journal.requests(method="GET") == []
