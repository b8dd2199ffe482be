"""One paid call from the job key to the task: deadline, cancellation, permit, and what they mean for money.

Each test holds against one small change of the code that would charge twice, lose a paid task, or block for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import warnings
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from patience import PATIENCE, until

from musicapi_async import (
    BadRequestError,
    JobStoreError,
    MusicAPIError,
    OutcomeUnknownError,
    RequestTimeoutError,
    Webhooks,
)
from musicapi_async.api.json_values import mapping_or_empty
from musicapi_async.jobs import Job, MemoryStore, Transition
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.webhooks import sign

SECRET = "a-secret-of-more-than-16"
SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A fast sandbox with short songs."""
    async with Sandbox(speed=100, longest=3) as sandbox:
        yield sandbox


class HeldStore(MemoryStore):
    """A store in memory that holds each write that leads to one state until it is released."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self.state = state
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        """Hold the write, then make it."""
        before = await super().get(key, account=account)
        after = transition(before)
        if after is not None and after.state == self.state and (before is None or before.state != self.state):
            self.reached.set()
            await self.released.wait()
        return await super().change(key, transition, account=account, durable=durable)


async def test_deadline_never_takes_an_accepted_task(sandbox: Sandbox) -> None:
    """The deadline passes while the accepted id is being stored: the caller gets the task all the same."""
    store = HeldStore("accepted")
    async with sandbox.client(rate_limit=None, store=store) as client:
        keyed = client.with_options(job_key="k", deadline=20)
        create = asyncio.ensure_future(keyed.sonic.create_music(**SONG))
        await store.reached.wait()
        await client.clock.sleep(40)
        was_early = create.done()
        store.released.set()
        task = await create
        assert not was_early  # the handle follows the first try to store it
        assert task.task_id == sandbox.journal.creates[0].task_id
        job = await client.job("k")
        assert job is not None
        assert (job.state, job.task_id) == ("accepted", task.task_id)
    assert len(sandbox.journal.creates) == 1


async def test_cancellation_never_takes_an_accepted_task(sandbox: Sandbox) -> None:
    """A caller that is cancelled while the accepted id is being stored loses nothing: the store has it."""
    store = HeldStore("accepted")
    async with sandbox.client(rate_limit=None, store=store) as client:
        create = asyncio.ensure_future(client.with_options(job_key="k").sonic.create_music(**SONG))
        await store.reached.wait()
        create.cancel()
        store.released.set()
        with pytest.raises(asyncio.CancelledError):
            await create
        again = await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert again.task_id == sandbox.journal.creates[0].task_id
    assert len(sandbox.journal.creates) == 1


async def test_cancelled_between_refusal_and_retry_pays_nothing() -> None:
    """After a refusal that provably cost nothing, a cancelled caller sends nothing more."""
    async with Sandbox(speed=0.1) as slow, slow.client(rate_limit=None, store=MemoryStore()) as client:
        slow.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=5))
        create = asyncio.ensure_future(client.with_options(job_key="k").sonic.create_music(**SONG))
        await until(lambda: len(slow.journal) == 1)
        job = await client.job("k")
        while job is None or job.state != "reserved":  # the refusal was read, and a retry is to follow
            await asyncio.sleep(0)
            job = await client.job("k")
        create.cancel()
        with pytest.raises(asyncio.CancelledError):
            await create
        assert await client.job("k") is None
        assert len(slow.journal) == 1
        assert slow.journal.charges == 0


async def test_refused_create_frees_its_permit(sandbox: Sandbox) -> None:
    """With a cap of one task in flight, a refused create does not block the next one."""
    async with sandbox.client(rate_limit=None, max_in_flight=1) as client:
        view = client.with_options(deadline=60)
        for fault in (Fault.status(400), Fault.garbage, Fault.status(500)):
            sandbox.faults.on("POST", "/sonic/create", fault)
            with pytest.raises((BadRequestError, OutcomeUnknownError)):
                await view.sonic.create_music(**SONG)
        task = await view.sonic.create_music(**SONG)
        assert task.task_id


async def test_deadline_covers_the_reservation(sandbox: Sandbox) -> None:
    """A store that does not answer ends the call at its deadline, with nothing sent."""
    store = HeldStore("reserved")
    async with sandbox.client(rate_limit=None, store=store) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            async with asyncio.timeout(PATIENCE):
                await client.with_options(job_key="k", deadline=20).sonic.create_music(**SONG)
        assert caught.value.sent is False
        assert not caught.value.may_have_been_charged
        assert await client.job("k") is None
    assert len(sandbox.journal) == 0


class BrokenOnce(MemoryStore):
    """A store in memory whose first write fails."""

    broken = True

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        """Fail once."""
        if self.broken:
            self.broken = False
            raise JobStoreError("the disk is full")
        return await super().change(key, transition, account=account, durable=durable)


async def test_store_that_cannot_reserve_sends_nothing(sandbox: Sandbox) -> None:
    """An error while the key is reserved names the call, sends nothing, and leaves the key free."""
    async with sandbox.client(rate_limit=None, store=BrokenOnce(), max_in_flight=1) as client:
        keyed = client.with_options(job_key="k", deadline=60)
        with pytest.raises(JobStoreError) as caught:
            await keyed.sonic.create_music(**SONG)
        assert caught.value.call == "POST /sonic/create"
        assert len(sandbox.journal) == 0
        await keyed.sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 1


async def test_job_key_of_a_webhook_is_a_job(sandbox: Sandbox) -> None:
    """A key that was made for the webhook's URL names a job that exists, or is not shown as a job key."""
    webhooks = Webhooks(url="http://127.0.0.1:9/hook", secret=SECRET)
    async with sandbox.client(rate_limit=None, webhooks=webhooks) as client:
        task = await client.sonic.create_music(**SONG)
        assert task.job_key is None or await client.job(task.job_key) is not None


async def test_warnings_point_at_the_line_of_the_caller(sandbox: Sandbox) -> None:
    """Each warning of a call names this file, whatever kind of call it is."""
    async with sandbox.client(rate_limit=None) as client:
        view = client.with_options(validate="warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for call in (
                lambda: view.sonic.create_music(mv="sonic-v6", gpt_description_prompt="x" * 900),
                lambda: view.sonic.lyrics(description="x" * 900),
                lambda: view.sonic.get_music(task_id=""),
                lambda: view.riffusion.create_music(mv="FUZZ-1.0", prompt="calm"),
            ):
                with contextlib.suppress(Exception):  # what the service says is not the subject
                    await call()
        assert len(caught) >= 3
        assert {warning.filename for warning in caught} == {__file__}


async def test_webhook_before_the_response_belongs_to_its_call(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """A webhook that overtakes the response to its create is no stranger's: webhooks stay relied on."""
    webhooks = Webhooks(url="http://127.0.0.1:9/hook", secret=SECRET)
    async with sandbox.client(rate_limit=None, webhooks=webhooks) as client:

        async def deliver(number: int) -> None:
            """The webhook of a create that the sandbox has taken."""
            create = sandbox.journal.creates[number]
            url = str(mapping_or_empty(create.body)["webhook_url"])
            await client.webhooks.handle(*delivery(create.task_id), url=url)

        await client.sonic.create_music(**SONG)
        await deliver(0)
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(30))
        create = asyncio.ensure_future(client.sonic.create_music(**SONG))
        await until(lambda: len(sandbox.journal.creates) == 2 and sandbox.journal.creates[1].task_id)
        await deliver(1)
        task = await create
        clips = await task
    assert "shared with other processes" not in caplog.text
    assert clips[0].clip_id == f"{task.task_id}-0"
    assert not [entry for entry in sandbox.journal if entry.method == "GET"]


def delivery(task_id: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of a webhook for a song that is finished."""
    clips = [
        {"clip_id": f"{task_id}-{n}", "state": "succeeded", "audio_url": f"https://cdn.example/{n}.mp3"}
        for n in range(2)
    ]
    body = {"code": 200, "data": clips, "task_id": task_id, "platform": "suno", "event": "song.completed"}
    raw, stamp = json.dumps(body).encode(), str(int(time.time()))
    headers = {"X-Webhook-Id": task_id, "X-Webhook-Timestamp": stamp}
    return {**headers, "X-Webhook-Signature": sign(SECRET, stamp, raw)}, raw


@pytest.mark.parametrize("end", ["deadline", "refused", "unreachable"])
async def test_preparing_may_have_been_charged(sandbox: Sandbox, end: str) -> None:
    """After an answer that a result is being prepared, no error says that nothing was charged; the key is free."""
    async with sandbox.client(rate_limit=None, store=MemoryStore(), max_retries=0) as client:
        clips = await (await client.sonic.create_music(**SONG)).wait()
        if end == "refused":
            sandbox.faults.on("POST", "/sonic/midi", Fault.status(402), after=1)
        if end == "unreachable":
            sandbox.faults.on("POST", "/sonic/midi", Fault.status(429), after=1, times=None)
        view = client.with_options(job_key="k", deadline=3 if end == "deadline" else None)
        with pytest.raises(MusicAPIError) as caught:
            await view.sonic.midi(clips[0].clip_id)
        charges = [entry.charge for entry in sandbox.journal if entry.path == "/sonic/midi"]
        assert charges[0] > 0
        assert caught.value.may_have_been_charged
        assert "othing was charged" not in str(caught.value)
        assert await client.job("k") is None


@pytest.mark.parametrize("call", ["midi", "download"])
@pytest.mark.parametrize("end", ["asked to wait", "its own time", "deadline"])
async def test_call_that_is_still_being_prepared_frees_its_key(call: str, end: str) -> None:
    """However its time ends, the error says after how long; the next call with the key gets the result."""
    limit = {"midi": 180, "download": 120}[call]
    not_ready = Fault.status(
        202, body='{"type": "not_ready"}', retry_after=3600 if end == "asked to wait" else None
    )
    async with Sandbox(longest=3) as sandbox, sandbox.client(rate_limit=None, store=MemoryStore()) as client:
        clips = await (await client.sonic.create_music(**SONG)).wait()
        sandbox.faults.on("POST", f"/sonic/{call}", not_ready, times=None)
        view = client.with_options(job_key="k", deadline=20 if end == "deadline" else None)

        async def prepared() -> object:
            if call == "midi":
                return (await view.sonic.midi(clips[0].clip_id)).midi_url
            return (await view.sonic.download(clip_id=clips[0].clip_id, formats=["mp3"])).files

        def requests() -> int:
            return len(sandbox.journal.requests(f"/sonic/{call}", "POST"))

        began = client.clock.now()
        with pytest.raises(RequestTimeoutError, match="still being prepared") as caught:
            await prepared()
        took = client.clock.now() - began
        error = caught.value
        assert error.may_have_been_charged
        assert not error.not_charged
        sent = requests()
        if end == "asked to wait":
            assert sent == 1
            assert took < 1
            assert f"in 3600 s, would come after the {limit} s" in str(error)
        elif end == "its own time":
            assert sent > 10
            assert limit - 10 < took <= limit
            assert f"given up after {took:.3g} s" in str(error)
        else:
            assert took == pytest.approx(20, abs=0.1)
            assert "the deadline of 20 s passed" in str(error)
        assert await client.job("k") is None
        sandbox.faults.clear()
        assert await prepared()
        sent_again = requests()
        assert sent_again > sent
        assert await prepared()  # from the store
        assert requests() == sent_again
