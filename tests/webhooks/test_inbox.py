"""`client.webhooks` against the sandbox: orders go out, deliveries come in and finish the waits, once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from deliveries import NOW, SECRET, deliver, example

from musicapi_async import (
    MusicAPI,
    MusicAPIError,
    OutcomeUnknownError,
    RequestValidationError,
    TaskFailedError,
    WebhookVerificationError,
)
from musicapi_async.api.families import FAMILIES
from musicapi_async.api.sonic_songs import CreateMusic
from musicapi_async.api.task import TaskRef
from musicapi_async.hooks import HookEvent, TaskEndedEvent, WebhookEvent
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.webhooks import Event, Inbox, Webhooks
from musicapi_async.webhooks.webhook_settings import job_key_of

URL = "https://example.com/hooks"
LONELY = "http://127.0.0.1:9/hooks"
"""Where nothing listens, so that only what a test delivers comes in."""


def hooks_of(*secrets: str) -> Webhooks:
    return Webhooks(url=LONELY, secret=secrets, now=lambda: NOW)


def hooks(url: str | None = LONELY, **options: Any) -> Webhooks:
    return Webhooks(url=url, secret=SECRET, now=lambda: NOW, **options)


def into(events: list[Event]) -> Callable[[Event], Awaitable[None]]:
    """Take events as a client does, into a list."""

    async def take(event: Event) -> None:
        events.append(event)

    return take


def address(job_key: str | None, quoted: str = "", secret: str = SECRET, url: str = LONELY) -> str:
    """Return the URL with a job key and its proof, made without the help of the code under test."""
    key = job_key or ""
    proof = hmac.new(secret.encode(), f"job_key:{key}".encode(), hashlib.sha256).hexdigest()
    return f"{url}?job_key={quoted or key}&job_proof={proof}"


def about(name: str, task_id: str) -> tuple[bytes, dict[str, str]]:
    """A signed delivery of an example about `task_id`."""
    return deliver({**example(f"webhook-sonic-{name}"), "task_id": task_id}, event_id=f"{name} {task_id}")


async def test_webhook_finishes_the_wait() -> None:
    """Address with job key, and secret, go out; the result comes in without a single poll."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        (create,) = sandbox.journal.creates
        sent: Any = create.body
        assert sent["webhook_secret"] == SECRET
        assert sent["webhook_url"] == address(task.job_key)
        waiting = asyncio.create_task(task.wait())
        await asyncio.sleep(0)
        raw, headers = about("streaming", task.task_id)
        event = await client.webhooks.handle(headers, raw)
        assert event.event == "song.streaming"
        assert not waiting.done()
        raw, headers = about("completed", task.task_id)
        event = await client.webhooks.handle(headers, raw, url=sent["webhook_url"])
        clips = await waiting
        assert [clip.clip_id for clip in clips] == [clip.clip_id for clip in event.update.clips]
        assert event.job_key == task.job_key
        assert not event.is_duplicate
        assert not sandbox.journal.polls


async def test_webhook_without_a_platform_is_one_event() -> None:
    """The task is known here, so the job has nothing to add: hooks and waits get each webhook once."""
    events: list[HookEvent] = []
    async with (
        Sandbox(speed=1) as sandbox,
        sandbox.client(webhooks=hooks(), hooks=events.append) as client,
    ):
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        for name in ("streaming", "completed"):
            body = {**example(f"webhook-sonic-{name}"), "task_id": task.task_id}
            del body["platform"]
            raw, headers = deliver(body, event_id=name)
            await client.webhooks.handle(headers, raw, url=address(task.job_key))
    seen = [(event.event, event.state) for event in events if isinstance(event, WebhookEvent)]
    assert seen == [("song.streaming", "running"), ("song.completed", "succeeded")]


async def test_clips_are_those_that_came_though_the_view_changes_the_body() -> None:
    """They are read when they are used, which may be after the view has shortened what it stores."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        waiting = asyncio.create_task(task.wait())
        await asyncio.sleep(0)
        event = await client.webhooks.handle(*reversed(about("completed", task.task_id)))
        for item in event.raw["data"]:
            item["state"] = "archived"
            del item["audio_url"], item["lyrics"]
        clips = await waiting
        assert clips.succeeded == list(clips)
        assert all(clip.final_url and clip.lyrics for clip in clips)


async def test_keys_of_clients_with_equal_seeds_differ(tmp_path: Path) -> None:
    """A key that a store has seen means the song that it was made for: the second would not be made."""
    path = tmp_path / "jobs.sqlite"
    keys: set[str | None] = set()
    async with Sandbox(speed=100) as sandbox:
        for _ in range(2):
            async with sandbox.client(
                webhooks=hooks(), store=SQLiteStore(path), rate_limit=None, rng=random.Random(7)
            ) as client:
                keys.add((await client.sonic.create_music(mv="sonic-v6", prompt="rain")).job_key)
        assert len(keys) == len(sandbox.journal.creates) == 2


async def test_body_is_judged_once() -> None:
    """The wait, the handle and the view get the very update that was read from the webhook, early or not."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks(), rate_limit=None) as client:
        for early in (True, False):
            task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
            waits = [] if early else [asyncio.create_task(task.wait()) for _ in range(2)]
            await asyncio.sleep(0)
            event = await client.webhooks.handle(*reversed(about("completed", task.task_id)))
            waits = waits or [asyncio.create_task(task.wait()) for _ in range(2)]
            assert all([await wait is event.result for wait in waits])
            assert task.last is event.update
        assert not sandbox.journal.polls


async def test_event_says_what_the_wait_says() -> None:
    """The body is read as that of the call that made the task, also for the view: a download gives its WAV."""
    async with Sandbox(speed=1000) as sandbox, sandbox.client(webhooks=hooks(), rate_limit=None) as client:
        songs = await (await client.producer.create_music(sound="rain", mv="FUZZ-2.0")).wait()
        task = await client.producer.download(clip_id=songs[0].clip_id, format="wav")
        body = {"data": [{"wav_url": "https://cdn.example/c.wav"}], "task_id": task.task_id}
        event = await client.webhooks.handle(*reversed(deliver({**body, "platform": "producer"})))
        assert event.update.clips[0].audio_url == "https://cdn.example/c.wav"
        assert await task.wait() is event.result


async def test_kind_that_a_handle_knows_later_counts() -> None:
    """A webhook comes before anything is known of its task but the id; then a handle says what made it."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        body = {"data": [{"wav_url": "https://cdn.example/c.wav"}], "task_id": "t", "platform": "producer"}
        event = await client.webhooks.handle(*reversed(deliver(body)))
        assert event.update.clips[0].audio_url is None
        clips = await client.task("producer", "t", kind="download").wait()
        assert clips[0].audio_url == "https://cdn.example/c.wav"
        assert not sandbox.journal.polls


async def test_delivery_to_a_closed_client_is_not_swallowed() -> None:
    """It is an error, which a back end answers as one, so that the service may repeat it to the next process."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        raw, headers = about("completed", "t")
        await client.aclose()
        with pytest.raises(MusicAPIError, match="closed"):
            await client.webhooks.handle(headers, raw)
        async with client:
            assert not (await client.webhooks.handle(headers, raw)).is_duplicate


async def test_repeated_delivery_changes_nothing() -> None:
    """The id and the signature both identify a delivery; a replay has one of them."""
    told: list[Event] = []
    inbox = Inbox(hooks(), into(told))
    raw, headers = deliver(example("webhook-sonic-completed"))
    assert not (await inbox.handle(headers, raw)).is_duplicate
    assert (await inbox.handle(headers, raw)).is_duplicate
    other = {**headers, "X-Webhook-Id": "another"}
    assert (await inbox.handle(other, raw)).is_duplicate
    raw, headers = deliver(example("webhook-sonic-completed"), at=NOW + 5)  # sent again, signed anew
    assert (await inbox.handle(headers, raw)).is_duplicate
    assert len(told) == 1


async def test_the_memory_of_deliveries_is_bounded() -> None:
    """The oldest is forgotten; what it remembers does not grow."""
    told: list[Event] = []
    inbox = Inbox(hooks(), into(told), remembered=10)
    for number in range(30):
        raw, headers = deliver(example("webhook-sonic-failed"), at=NOW - number, event_id=f"{number}")
        await inbox.handle(headers, raw)
        assert (await inbox.handle(headers, raw)).is_duplicate
    raw, headers = deliver(example("webhook-sonic-failed"), event_id="0")
    assert not (await inbox.handle(headers, raw)).is_duplicate
    assert len(told) == 31


async def test_failed_handling_lets_the_delivery_repeat() -> None:
    """If the store could not be written, the error goes out, and the repetition is no duplicate."""
    failing = [True]

    async def adopt(job_key: str, event: Event) -> TaskRef | None:
        if failing.pop():
            failing.append(False)
            raise OSError("disk full")
        failing.append(False)

    told: list[Event] = []
    inbox = Inbox(hooks(), into(told), adopt=adopt)
    raw, headers = deliver(example("webhook-sonic-completed"))
    with pytest.raises(OSError, match="disk full"):
        await inbox.handle(headers, raw, url=address("k"))
    assert len(told) == 1  # a wait needs no store
    assert not (await inbox.handle(headers, raw, url=address("k"))).is_duplicate
    assert len(told) == 2


async def test_copies_at_once_are_handled_once() -> None:
    """While the first is being written down, the others are duplicates already."""
    writing = asyncio.Event()

    async def adopt(job_key: str, event: Event) -> TaskRef | None:
        await writing.wait()

    told: list[Event] = []
    inbox = Inbox(hooks(), into(told), adopt=adopt)
    raw, headers = deliver(example("webhook-sonic-completed"))
    copies = [asyncio.create_task(inbox.handle(headers, raw, url=address("k"))) for _ in range(3)]
    await asyncio.sleep(0)
    writing.set()
    assert [event.is_duplicate for event in await asyncio.gather(*copies)] == [False, True, True]
    assert len(told) == 1


async def test_cancelled_handling_lets_the_delivery_repeat() -> None:
    """The connection closed while it was being written down: the repetition is no duplicate."""
    held = [asyncio.Event()]

    async def adopt(job_key: str, event: Event) -> TaskRef | None:
        while held:
            await held.pop().wait()

    told: list[Event] = []
    inbox = Inbox(hooks(), into(told), adopt=adopt)
    raw, headers = deliver(example("webhook-sonic-completed"))
    first = asyncio.create_task(inbox.handle(headers, raw, url=address("k")))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not (await inbox.handle(headers, raw, url=address("k"))).is_duplicate
    assert len(told) == 2


async def test_failed_generation_raises_with_its_refund() -> None:
    """`song.failed` ends the wait as a failed poll would."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        raw, headers = about("failed", task.task_id)
        await client.webhooks.handle(headers, raw)
        with pytest.raises(TaskFailedError) as caught:
            await task.wait()
        assert caught.value.refunded is True


@pytest.mark.parametrize(
    "rest", [{}, {"code": 500, "data": []}, {"type": "not_ready"}, {"message": "success"}]
)
async def test_song_failed_ends_the_wait_with_any_body(rest: dict[str, Any]) -> None:
    """Neither `type` nor anything else is needed: the wait ends at once, before it and for one that starts later."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        for early in (True, False):
            task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
            waiting = None if early else asyncio.create_task(task.wait())
            await asyncio.sleep(0)
            body = {**rest, "task_id": task.task_id, "platform": "suno", "event": "song.failed"}
            raw, headers = deliver(body, event_id=task.task_id)
            event = await client.webhooks.handle(headers, raw)
            assert event.is_terminal
            with pytest.raises(TaskFailedError):
                await (waiting or task.wait())
        assert not sandbox.journal.polls


@pytest.mark.parametrize(("platform", "family"), [({}, ""), ({"platform": ""}, ""), ({"platform": None}, "")])
async def test_song_failed_without_a_platform_ends_the_wait(platform: dict[str, Any], family: str) -> None:
    """The id of a task that this client waits for is enough; so it is for one that it submitted."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        for early in (True, False):
            task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
            waiting = None if early else asyncio.create_task(task.wait())
            await asyncio.sleep(0)
            body = {**platform, "task_id": task.task_id, "event": "song.failed", "message": "no voice"}
            raw, headers = deliver(body, event_id=task.task_id)
            event = await client.webhooks.handle(headers, raw)
            assert (event.family, event.is_terminal) == (family, True)
            with pytest.raises(TaskFailedError, match="no voice"):
                await (waiting or task.wait())
        assert not sandbox.journal.polls


async def test_a_delivery_without_a_platform_about_an_unknown_task_ends_nothing() -> None:
    """It is returned to the caller, and the tasks that are waited for continue."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        raw, headers = deliver({"task_id": "another", "event": "song.failed"})
        assert (await client.webhooks.handle(headers, raw)).is_terminal
        assert (await task.refresh()).state == "pending"


async def test_unverified_delivery_finishes_nothing() -> None:
    """A wrong signature raises, and the task continues."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        raw, headers = about("completed", task.task_id)
        with pytest.raises(WebhookVerificationError):
            await client.webhooks.handle(headers, raw.replace(b"succeeded", b"running!!"))
        assert (await task.refresh()).state == "pending"


async def test_ambiguous_submit_is_recovered_by_its_job_key() -> None:
    """The response to a create is lost; the webhook's URL names the task that it made."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.with_options(job_key="night song/1 ü").sonic.create_music(
                mv="sonic-v6", gpt_description_prompt="rain"
            )
        (create,) = sandbox.journal.creates
        sent: Any = create.body
        assert caught.value.job_key == "night song/1 ü"
        assert sent["webhook_url"] == address("night song/1 ü", "night%20song%2F1%20%C3%BC")
        raw, headers = about("completed", create.task_id)
        await client.webhooks.handle(headers, raw, url=sent["webhook_url"])
        ref = client.webhooks.task_of("night song/1 ü")
        assert ref is not None
        assert (ref.family, ref.task_id) == ("sonic", create.task_id)
        assert len(await client.task(ref.family, ref.task_id).wait()) == 2
        assert client.webhooks.task_of("another") is None


async def test_end_of_a_task_that_an_earlier_webhook_has_named_is_taken() -> None:
    """The response to its create was lost, and no one waits for it: its job ends all the same."""
    ends: list[HookEvent] = []
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks(), hooks=ends.append) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k").sonic.create_music(
                mv="sonic-v6", gpt_description_prompt="rain"
            )
        (create,) = sandbox.journal.creates
        for name, state in (("streaming", "accepted"), ("completed", "finished")):
            raw, headers = about(name, create.task_id)
            await client.webhooks.handle(headers, raw, url=address("k"))
            job = await client.job("k")
            assert job is not None
            assert (job.state, job.task_id) == (state, create.task_id)
    assert [(end.state, end.kind) for end in ends if isinstance(end, TaskEndedEvent)] == [
        ("succeeded", "create_music")
    ]


@pytest.mark.parametrize("platform", [{}, {"platform": None}, {"platform": "futura"}])
async def test_webhook_without_a_known_platform_settles_its_job(platform: dict[str, Any]) -> None:
    """Its URL proves the key, and the job says of which family it is: the song is not paid for again."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks(), rate_limit=None) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        keyed = client.with_options(job_key="k")
        with pytest.raises(OutcomeUnknownError):
            await keyed.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        (create,) = sandbox.journal.creates
        body = {**example("webhook-sonic-completed"), "task_id": create.task_id}
        raw, headers = deliver({name: body[name] for name in body if name != "platform"} | platform)
        event = await client.webhooks.handle(headers, raw, url=address("k"))
        ref = client.webhooks.task_of("k")
        assert ref is not None
        assert (ref.family, ref.task_id) == ("sonic", create.task_id)
        task = await keyed.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        assert await task.wait() is event.result
        job = await client.job("k")
        assert job is not None
        assert (job.state, job.task_id) == ("finished", create.task_id)
        assert len(sandbox.journal.creates) == 1
        assert not sandbox.journal.polls


async def test_task_of_suno_is_delivered_too() -> None:
    """Platform 'suno' means a task of `client.suno` as it means one of `client.sonic`."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        task = await client.suno.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        waiting = asyncio.create_task(task.wait())
        await asyncio.sleep(0)
        raw, headers = about("completed", task.task_id)
        await client.webhooks.handle(headers, raw)
        assert len(await waiting) == 2


async def test_unknown_platform_is_returned() -> None:
    """New words are the caller's to read."""
    client = MusicAPI("key", webhooks=hooks())
    raw, headers = deliver({"platform": "futura", "event": "song.remixed", "task_id": "t"})
    event = await client.webhooks.handle(headers, raw, url=address("k"))
    assert (event.event, event.family, event.job_key) == ("song.remixed", "futura", "k")
    await client.aclose()


async def test_client_views_share_the_inbox() -> None:
    """`with_options` keeps the same memory of deliveries."""
    client = MusicAPI("key", webhooks=hooks())
    assert client.with_options(max_retries=0).webhooks is client.webhooks
    plain = MusicAPI("key")
    raw, headers = deliver(example("webhook-sonic-completed"))
    with pytest.raises(RequestValidationError, match="Webhooks"):
        await plain.webhooks.handle(headers, raw)


def test_own_url_of_a_request_is_unchanged() -> None:
    """Only what is left out is filled in; requests without the fields are left alone."""
    settings = Webhooks(URL, [SECRET, "old"])
    plain = settings.order(CreateMusic(mv="sonic-v6", gpt_description_prompt="x"))
    assert (plain.webhook_url, plain.webhook_secret) == (URL, SECRET)
    own = CreateMusic(mv="sonic-v6", gpt_description_prompt="x", webhook_url="https://a.example")
    assert settings.order(own) is own
    none = CreateMusic(mv="sonic-v6", gpt_description_prompt="x", webhook_url="")
    assert settings.order(none) is none
    receiving = Webhooks(secret=SECRET)
    left = CreateMusic(mv="sonic-v6", gpt_description_prompt="x")
    assert receiving.order(left) is left


def test_every_operation_with_webhooks_orders_one() -> None:
    """Address with job key and secret, on each path that the contract says takes them, and on no other."""
    hooked: set[str] = set()
    for operation in (one for family in FAMILIES.values() for one in family.operations().values()):
        fields = msgspec.structs.fields(operation.request)
        plain = operation.request(**{field.name: "x" for field in fields if field.required})
        ordered: Any = Webhooks(URL, SECRET).order(plain, "k")
        if ordered is not plain:
            assert (ordered.webhook_url, ordered.webhook_secret) == (address("k", url=URL), SECRET)
            hooked.add(operation.path)
    sonic = ("create", "create-voice", "sample", "mashup", "replace-section", "upload-extend", "upload-cover")
    producer = ("create", "upload", "download")
    assert hooked == {f"/sonic/{word}" for word in sonic} | {f"/producer/{word}" for word in producer} | {
        "/suno/create",
        "/nuro/create",
    }


def test_job_key_goes_into_the_url_with_its_proof() -> None:
    """An existing query is kept."""
    made = Webhooks(URL + "?a=1", SECRET).url_for("k&=#")
    assert made.startswith(f"{URL}?a=1&job_key=k%26%3D%23&job_proof=")
    assert Webhooks(URL, SECRET).url_for("k") == address("k", url=URL)
    assert Webhooks(URL, SECRET).url_for(None) == URL


async def test_too_long_job_key_is_refused_before_sending() -> None:
    """1,024 characters with the proof pass, one more does not; no key is dropped silently."""
    room = 1024 - len(address("", url=LONELY))
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks()) as client:
        for key in ("k" * (room + 1), "ü" * 200, "\ud800"):
            with pytest.raises(RequestValidationError) as caught:
                await client.with_options(job_key=key).sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla")
            assert caught.value.field == "job_key"
        assert not sandbox.journal.creates
        await client.with_options(job_key="k" * room).sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla")
        (create,) = sandbox.journal.creates
        assert isinstance(create.body, dict)
        assert len(create.body["webhook_url"]) == 1024


@pytest.mark.parametrize(
    "url",
    [
        "/hooks?job_key=k", "/hooks?job_key=k&job_proof=", "/hooks?job_key=k&job_proof=00",
        "/hooks?job_key=k&job_proof=%ff\ud800", address("other").replace("other", "k"),
        address("k", secret="another secret"), address("k") + "&job_proof=00", address("k") + "&job_key=l",
        address("k").upper(),
    ],
)  # fmt: skip
async def test_url_without_proof_settles_no_job(url: str) -> None:
    """The body is believed, since it is signed; a job key in the URL is not."""
    adopted: list[str] = []

    async def adopt(job_key: str, event: Event) -> TaskRef | None:
        adopted.append(job_key)

    told: list[Event] = []
    inbox = Inbox(hooks(), into(told), adopt=adopt)
    raw, headers = deliver(example("webhook-sonic-completed"))
    event = await inbox.handle(headers, raw, url=url)
    assert (event.job_key, adopted, len(told)) == (None, [], 1)
    assert inbox.task_of("k") is None


async def test_proof_of_a_replaced_secret_counts() -> None:
    """Every configured secret is tried, as for the body."""
    inbox = Inbox(hooks_of("a new secret, long enough", SECRET), into([]))
    raw, headers = deliver(example("webhook-sonic-completed"))
    assert (await inbox.handle(headers, raw, url=address("k"))).job_key == "k"
    assert inbox.task_of("k") is not None


async def test_task_that_two_jobs_claim_is_of_neither() -> None:
    """The signature does not cover the URL: a copy at another job's URL must not win by coming first."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks(), rate_limit=None) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after, times=2)
        for key in ("a", "b"):
            with pytest.raises(OutcomeUnknownError):
                await client.with_options(job_key=key).sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla")
        first, second = sandbox.journal.creates
        raw, headers = about("completed", first.task_id)
        await client.webhooks.handle(headers, raw, url=address("b"))  # a replay that was quicker
        assert client.webhooks.task_of("b") is not None
        event = await client.webhooks.handle(headers, raw, url=address("a"))
        assert event.is_duplicate
        for _ in range(2):  # also when the service repeats them
            assert {job.key: job.state for job in await client.jobs()} == {"a": "ambiguous", "b": "ambiguous"}
            assert client.webhooks.task_of("a") is client.webhooks.task_of("b") is None
            await client.webhooks.handle(headers, raw, url=address("b"))
            await client.webhooks.handle(headers, raw, url=address("a"))
        raw, headers = about("completed", second.task_id)
        await client.webhooks.handle(headers, raw, url=address("b"))
        found = await client.with_options(job_key="b").sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla")
        assert found.task_id == second.task_id
        assert (await client.resolve("a", task_id=first.task_id)).task_id == first.task_id
        assert len(sandbox.journal.creates) == 2


async def test_task_named_by_a_response_is_not_taken() -> None:
    """It stays with its job, at any URL of a copy of its webhook; the other job stays undecided."""
    async with Sandbox(speed=1) as sandbox, sandbox.client(webhooks=hooks(), rate_limit=None) as client:
        song = {"mv": "sonic-v6", "prompt": "[Verse]\nla"}
        task = await client.with_options(job_key="a").sonic.create_music(**song)
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="b").sonic.create_music(**song)
        raw, headers = about("completed", task.task_id)
        await client.webhooks.handle(headers, raw, url=address("b"))
        job = await client.job("b")
        assert job is not None
        assert (job.state, client.webhooks.task_of("b")) == ("ambiguous", None)
        assert await client.with_options(job_key="a").sonic.create_music(**song) == task


async def test_deliveries_are_remembered_for_a_day() -> None:
    """A filter with a time limit: what comes under an old id much later is news."""
    now = [float(NOW)]
    told: list[Event] = []
    inbox = Inbox(Webhooks(secret=SECRET, now=lambda: now[0]), into(told))
    for hours, count in ((0, 1), (1, 1), (23, 1), (25, 2)):
        now[0] = NOW + hours * 3600
        raw, headers = deliver(example("webhook-sonic-completed"), at=now[0])
        await inbox.handle(headers, raw)
        assert len(told) == count


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("", None), ("/hooks", None), ("?job_key=a", "a"), ("job_key=a", "a"), ("job_key=", None),
        ("https://x.example/h?b=1&job_key=a%2Fb+c", "a/b c"), ("?job_key=a&job_key=b", None),
        ("http://[bad", None), ("?" + "a=1&" * 100 + "job_key=k", None), ("?job_key=" + "k" * 10_000, None),
        ("?job_key=%ff", "\ufffd"),
    ],
)  # fmt: skip
def test_job_key_is_read_from_any_url(url: str, key: str | None) -> None:
    """Whatever was called: one key, or none."""
    assert job_key_of(url) == key


@pytest.mark.parametrize(
    "url",
    ["http://example.com/hooks", "ftp://example.com", "example.com", "", "https://", "https://a.example/#b",
     "https://[bad", "https://a.example/" + "x" * 1024, "https://a.example/b c", "https://a.example/b\n", b"https://a.example"],
)  # fmt: skip
def test_url_that_the_service_would_not_call_is_refused(url: Any) -> None:
    """Https, not too long, no fragment; http only to this machine."""
    with pytest.raises(RequestValidationError, match="https"):
        Webhooks(url, SECRET)


@pytest.mark.parametrize("name", ["job_key=x", "a=b&job_proof=", "job%5Fkey=x"])
def test_an_address_has_no_job_key_of_its_own(name: str) -> None:
    """With two of them a delivery would prove neither, and a lost answer would never be found."""
    with pytest.raises(RequestValidationError, match="job_key"):
        Webhooks(f"https://a.example/hooks?{name}", SECRET)
    assert Webhooks("https://a.example/hooks?key=job_key", SECRET).url


@pytest.mark.parametrize("secret", [None, b"x" * 16, 16, [SECRET, b"old"], [SECRET, None], "\ud800" * 16])
def test_a_secret_that_cannot_sign_is_refused_at_once(secret: Any) -> None:
    """With the name of the option, and without the secret."""
    with pytest.raises(RequestValidationError, match="webhooks: a secret") as caught:
        Webhooks(URL, secret)
    assert "xxxx" not in str(caught.value)


@pytest.mark.parametrize("secret", ["", [], [""], ["a", ""], ()])
def test_webhooks_without_a_secret_are_refused(secret: Any) -> None:
    """Without one the service signs with its own, which cannot be checked."""
    with pytest.raises(RequestValidationError, match="secret"):
        Webhooks(URL, secret)


@pytest.mark.parametrize(
    "secret", [" " * 16, " secret of the webhooks", [SECRET, "secret of the webhooks\n"]]
)
def test_secret_with_white_space_at_its_ends_is_refused(secret: Any) -> None:
    """Also where webhooks are only received, and with a clear text; the same holds for a single request."""
    for url in (URL, None):
        with pytest.raises(RequestValidationError, match="white space at its ends"):
            Webhooks(url, secret)


async def test_secret_of_a_request_has_no_white_space_at_its_ends() -> None:
    """It is refused before anything is sent, even with `validate="off"`."""
    async with Sandbox(speed=1) as sandbox, sandbox.client() as client:
        for validate in ("error", "off"):
            with pytest.raises(RequestValidationError, match="white space at its ends") as caught:
                await client.with_options(validate=validate).sonic.create_music(
                    mv="sonic-v6", prompt="[Verse]\nla", webhook_url=URL, webhook_secret=f"{SECRET}\n"
                )
            assert caught.value.violations[0].field == "webhook_secret"
        assert not sandbox.journal.creates


def test_no_text_contains_the_secret() -> None:
    """Neither the settings nor a request with them."""
    settings = Webhooks(URL, "hush-hush-hush-hush")
    request = settings.order(CreateMusic(mv="sonic-v6", gpt_description_prompt="x"))
    assert "hush" not in repr(settings) + repr(request)


# --- several workers on one job store ---------------------------------------------------------------------


def worker(sandbox: Sandbox, path: Path) -> MusicAPI:
    """A client that shares its store with others, as workers of a back end do."""
    return sandbox.client(webhooks=hooks(), store=SQLiteStore(path), rate_limit=None)


async def test_delivery_is_handled_by_one_of_the_workers_of_a_store(tmp_path: Path) -> None:
    """Whichever receives it again takes it for a duplicate, and finishes its own wait with it all the same."""
    path = tmp_path / "jobs.sqlite"
    async with Sandbox(speed=1) as sandbox, worker(sandbox, path) as one, worker(sandbox, path) as two:
        task = await two.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        waiting = asyncio.create_task(task.wait())
        raw, headers = about("completed", task.task_id)
        assert not (await one.webhooks.handle(headers, raw)).is_duplicate
        for client in (two, one, two):
            assert (await client.webhooks.handle(headers, raw)).is_duplicate
        assert await waiting
        assert not sandbox.journal.polls


async def test_delivery_that_one_worker_failed_to_handle_is_new_for_another(tmp_path: Path) -> None:
    """The claim is given back with the error, and not by who has none."""
    path = tmp_path / "jobs.sqlite"
    raw, headers = deliver(example("webhook-sonic-completed"))
    async with Sandbox() as sandbox, worker(sandbox, path) as one, worker(sandbox, path) as two:
        event = await one.webhooks.handle(headers, raw)
        duplicate = await two.webhooks.handle(headers, raw)
        await two.webhooks.forget(duplicate)
        assert (await two.webhooks.handle(headers, raw)).is_duplicate
        await two.webhooks.forget(duplicate)
        await one.webhooks.forget(event)
        assert not (await two.webhooks.handle(headers, raw)).is_duplicate


async def test_delivery_is_handled_although_the_store_cannot_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Better twice by two workers than by none."""
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"no database" * 1000)
    raw, headers = deliver(example("webhook-sonic-completed"))
    async with Sandbox() as sandbox, worker(sandbox, path) as client:
        assert not (await client.webhooks.handle(headers, raw)).is_duplicate
        assert (await client.webhooks.handle(headers, raw)).is_duplicate
    assert "other workers" in caplog.text


async def test_wait_ends_while_the_store_is_locked(tmp_path: Path) -> None:
    """The result needs no store: it is there at once; the job is settled when the lock is gone."""
    path = tmp_path / "jobs.sqlite"
    async with Sandbox(speed=1) as sandbox, worker(sandbox, path) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        key = caught.value.job_key
        (create,) = sandbox.journal.creates
        raw, headers = about("completed", create.task_id)
        waiting = asyncio.create_task(client.task("sonic", create.task_id).wait())
        await asyncio.sleep(0)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            handling = asyncio.create_task(client.webhooks.handle(headers, raw, url=address(key)))
            assert len(await waiting) == 2
            assert not handling.done()
            other.execute("ROLLBACK")
        assert (await handling).result is waiting.result()
        job = await client.job(key or "")
        assert job is not None
        assert (job.state, job.task_id) == ("finished", create.task_id)
        assert len(sandbox.journal.creates) == 1
        assert not sandbox.journal.polls


async def test_closing_the_client_closes_a_store_that_only_webhooks_used(tmp_path: Path) -> None:
    """Neither its file nor its thread stays open."""
    raw, headers = deliver(example("webhook-sonic-completed"))
    async with Sandbox() as sandbox, worker(sandbox, tmp_path / "jobs.sqlite") as client:
        await client.webhooks.handle(headers, raw)
        assert sorted(os.listdir(tmp_path)) == ["jobs.sqlite", "jobs.sqlite-shm", "jobs.sqlite-wal"]
    assert os.listdir(tmp_path) == ["jobs.sqlite"]
