"""One paid call from the job key to the task: deadline, cancellation, permit, and what they mean for money.

Each test holds against one small change of the code that would charge twice, lose a paid task, or block for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
import warnings
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import msgspec
import pytest
from patience import PATIENCE, until

from musicapi_async import (
    APIConnectionError,
    BadRequestError,
    JobStoreError,
    MusicAPI,
    MusicAPIError,
    OutcomeUnknownError,
    RequestTimeoutError,
    Webhooks,
    workflows,
)
from musicapi_async.api.json_values import mapping_or_empty
from musicapi_async.jobs import Job, MemoryStore, Transition
from musicapi_async.jobs.owner import this_process
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


async def test_deadline_never_takes_a_reply(sandbox: Sandbox) -> None:
    """So it is with a call that makes no task: its reply is paid for, too."""
    store = HeldStore("finished")
    async with sandbox.client(rate_limit=None, store=store) as client:
        keyed = client.with_options(job_key="k", deadline=20)
        call = asyncio.ensure_future(keyed.sonic.lyrics("a sky"))
        await store.reached.wait()
        await client.clock.sleep(40)
        assert not call.done()
        store.released.set()
        assert (await call).raw == (await keyed.sonic.lyrics("a sky")).raw
    assert len(sandbox.journal.requests("/sonic/lyrics", "POST")) == 1


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


async def test_closing_never_takes_an_accepted_task(sandbox: Sandbox) -> None:
    """The client gives up a slow store that is storing the accepted id: its caller gets the task all the same."""
    store = HeldStore("accepted")
    client = sandbox.client(rate_limit=None, store=store)
    create = asyncio.ensure_future(client.with_options(job_key="k").sonic.create_music(**SONG))
    await store.reached.wait()
    closing = asyncio.ensure_future(client.aclose())
    await asyncio.sleep(30)
    store.released.set()
    task = await create
    await closing
    assert task.task_id == sandbox.journal.creates[0].task_id
    assert [(job.state, job.task_id) for job in await store.jobs()] == [("accepted", task.task_id)]


async def test_closing_waits_a_moment_for_an_answer() -> None:
    """Seconds later the task is there; after them, the error says that it may have been charged."""
    async with Sandbox() as sandbox:
        for fault in (Fault.slow(3), Fault.hang):
            client = sandbox.client(rate_limit=None, store=MemoryStore())
            sandbox.faults.on("POST", "/sonic/create", fault)
            create = asyncio.ensure_future(client.sonic.create_music(**SONG))
            before = len(sandbox.journal.creates)
            await until(lambda before=before: len(sandbox.journal.creates) > before)
            closing = asyncio.ensure_future(client.aclose())
            if fault is Fault.hang:
                with pytest.raises(OutcomeUnknownError, match="closed before the answer came"):
                    await create
            else:
                assert (await create).task_id == sandbox.journal.creates[-1].task_id
            await closing


@pytest.mark.parametrize("how", ["cancelled scope", "failed group", "cancelled twice"])
async def test_cancellation_of_a_client_never_takes_an_answer(how: str) -> None:
    """A scope of anyio cancels each wait of what it holds, the waits of closing the client among them."""
    store = MemoryStore()

    async def create() -> None:
        async with sandbox.client(rate_limit=None, store=store) as client:
            await client.with_options(job_key="k").sonic.create_music(**SONG)

    async def fail_beside() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(create)
            await asyncio.sleep(1)
            raise ValueError

    async with Sandbox() as sandbox:
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(3))
        if how == "cancelled scope":
            with anyio.move_on_after(1):
                await create()
        elif how == "failed group":
            with pytest.raises(ExceptionGroup):
                await fail_beside()
        else:
            creating = asyncio.ensure_future(create())
            for _ in range(2):
                await asyncio.sleep(1)
                creating.cancel()
            with pytest.raises(asyncio.CancelledError):
                await creating
            await asyncio.sleep(3)
        job = await store.get("k")
        assert job is not None
        assert (job.state, job.task_id) == ("accepted", sandbox.journal.creates[0].task_id)


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        (Fault.slow(60), "it was accepted and continues: "),
        (Fault.hang, "its caller was cancelled, and then: "),
        (None, "given up before the answer: the account may have been charged"),
    ],
)
async def test_log_says_how_a_call_ended_whose_caller_has_gone(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, fault: Fault | None, end: str
) -> None:
    """It may have been charged, and no error can say so; None: its client is closed before the answer."""
    caplog.set_level("WARNING", "musicapi_async")
    sandbox.faults.on("POST", "/sonic/create", fault or Fault.hang)
    async with sandbox.client(rate_limit=None) as client:
        view = client.with_options(attempt_timeout=100 if fault else 10_000)
        create = asyncio.ensure_future(view.sonic.create_music(**SONG))
        await until(lambda: sandbox.journal.creates)
        create.cancel()
        with pytest.raises(asyncio.CancelledError):
            await create
        assert end not in caplog.text
        if fault is not None:
            await client.clock.sleep(2000)
    (line,) = [record.getMessage() for record in caplog.records if end in record.getMessage()]
    assert "POST /sonic/create: " in line
    assert ("accepted" in end) == (sandbox.journal.creates[0].task_id in line)


async def test_log_has_the_paid_reply_of_a_caller_that_has_gone(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """A persona is paid for, and has no task by which it could be found again."""
    caplog.set_level("WARNING", "musicapi_async")
    async with sandbox.client(rate_limit=None) as client:
        clips = await (await client.sonic.create_music(**SONG))
        sandbox.faults.on("POST", "/sonic/persona", Fault.slow(60))
        call = asyncio.ensure_future(client.sonic.create_persona(name="V", clip_id=clips[0].clip_id))
        await until(lambda: sandbox.journal.requests("/sonic/persona"))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.clock.sleep(200)
    (line,) = [record.getMessage() for record in caplog.records if "carried out" in record.getMessage()]
    assert '"persona_id":"' in line


async def test_calls_that_have_ended_are_not_kept(sandbox: Sandbox) -> None:
    """A service that runs for months makes millions of them with one client."""

    def ended() -> int:
        gc.collect()
        return sum(isinstance(one, asyncio.Task) and one.done() for one in gc.get_objects())

    async with sandbox.client(rate_limit=None) as client:
        await client.sonic.create_music(**SONG)
        before = ended()
        for _ in range(10):
            await client.sonic.create_music(**SONG)
        assert ended() - before < 10


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


async def test_cancelled_while_it_connects_was_not_sent() -> None:
    """The job is gone when it is read just after that, and a workflow does not take its step for sent."""
    connected = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()  # the greeting of TLS, which gets no answer
        writer.close()
        ended.release()

    ended = asyncio.Semaphore(0)
    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        host = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with MusicAPI(
            "some-key-of-a-user", base_url=host, rate_limit=None, store=MemoryStore()
        ) as client:
            checkpoint = workflows.Checkpoint()
            for call in (
                client.with_options(job_key="k").sonic.create_music(**SONG),
                workflows.cover(client, "a-clip", checkpoint=checkpoint, **SONG),
            ):
                connected.clear()
                calling = asyncio.ensure_future(call)
                await connected.wait()
                calling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await calling
                assert checkpoint.unknown == {}
                assert await client.jobs() == []
                await ended.acquire()


async def test_refused_create_frees_its_permit(sandbox: Sandbox) -> None:
    """With a cap of one task in flight, a refused create does not block the next one."""
    async with sandbox.client(rate_limit=None, max_in_flight=1) as client:
        view = client.with_options(deadline=60)
        for fault in (Fault.status(400), Fault.garbage, Fault.status(500)):
            sandbox.faults.on("POST", "/sonic/*", fault, times=2)
            with pytest.raises((BadRequestError, OutcomeUnknownError)):
                await view.sonic.create_music(**SONG)
            with pytest.raises((BadRequestError, OutcomeUnknownError)):
                await view.sonic.create_batch([SONG])
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
        assert "being prepared" not in str(caught.value)
        assert await client.job("k") is None
    assert len(sandbox.journal) == 0


async def test_call_waits_while_another_machine_goes_on_with_its_key(sandbox: Sandbox) -> None:
    """Nothing tells if that one lives, so it is given up only once nothing has changed for two minutes."""
    store = MemoryStore()
    here = this_process("")
    elsewhere = msgspec.structs.replace(here, pid=2**22 + 1, started="1", namespace="pid:[1]")

    async def change(**changes: Any) -> None:
        await store.change("k", lambda job: job and msgspec.structs.replace(job, **changes))

    async with sandbox.client(rate_limit=None, store=store) as client:
        keyed = client.with_options(job_key="k")
        task = await keyed.sonic.create_music(**SONG)
        (job,) = await store.jobs()
        await change(state="reserved", owner=elsewhere, tasks=(), reply="")
        again = asyncio.ensure_future(keyed.sonic.create_music(**SONG))
        await client.clock.sleep(100)
        await change(state="sent", updated_at=1.0)
        await client.clock.sleep(100)
        await change(state="accepted", owner=None, tasks=job.tasks, reply=job.reply)
        assert await again == task
        await change(state="sent", owner=elsewhere, tasks=(), reply="")
        began = client.clock.now()
        with pytest.raises(JobStoreError, match="whether that one lives cannot be known"):
            await keyed.sonic.create_music(**SONG)
        assert client.clock.now() - began == pytest.approx(120, abs=2)
    assert len(sandbox.journal.creates) == 1


async def test_row_that_went_missing_is_written_again(sandbox: Sandbox) -> None:
    """Someone has deleted it while the call was under way: the answer is stored all the same."""
    store = MemoryStore()
    async with sandbox.client(rate_limit=None, store=store) as client:
        views = {key: client.with_options(job_key=key) for key in ("task", "reply")}
        for path in ("create", "lyrics"):
            sandbox.faults.on("POST", f"/sonic/{path}", Fault.slow(5))
        create = asyncio.ensure_future(views["task"].sonic.create_music(**SONG))
        lyrics = asyncio.ensure_future(views["reply"].sonic.lyrics("a sky"))
        await until(lambda: len(sandbox.journal.requests(method="POST")) == 2)
        for key in views:
            await store.change(key, lambda _job: None)
        assert await store.jobs() == []
        task, reply = await create, await lyrics
        assert await views["task"].sonic.create_music(**SONG) == task
        assert (await views["reply"].sonic.lyrics("a sky")).raw == reply.raw
        assert {job.key: job.state for job in await store.jobs()} == {"task": "accepted", "reply": "finished"}
    assert len(sandbox.journal.requests(method="POST")) == 2


class SyncedStore(MemoryStore):
    """A store in memory that notes the states that were to be on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: list[str] = []

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        """Note the state after the change."""
        job = await super().change(key, transition, account=account, durable=durable)
        if durable and job is not None:
            self.synced.append(job.state)
        return job


async def test_what_a_power_cut_must_not_take_is_synced(sandbox: Sandbox) -> None:
    """That a request may leave, before it does; its task, or that nothing is known of it; a reply; a decision."""
    store = SyncedStore()
    async with sandbox.client(rate_limit=None, store=store) as client:
        await client.with_options(job_key="a").sonic.create_music(**SONG)
        assert store.synced == ["sent", "accepted"]
        await client.with_options(job_key="b").sonic.lyrics("a sky")
        assert store.synced[2:] == ["sent", "finished"]
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="c").sonic.create_music(**SONG)
        await client.resolve("c", task_id=sandbox.journal.creates[-1].task_id)
        assert store.synced[4:] == ["sent", "ambiguous", "accepted"]


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


class Broken(HeldStore):
    """A store that writes nothing any more once the request was sent."""

    failures = 0

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        """Fail."""
        if self.failures or self.released.is_set():
            self.failures += 1
            raise JobStoreError("the disk is full")
        return await MemoryStore.change(self, key, transition, account=account, durable=durable)


async def test_note_that_fails_is_tried_again_after_growing_pauses(sandbox: Sandbox) -> None:
    """A store that is out of order for an hour is not asked all the time."""
    store = Broken("")
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(5))
    async with sandbox.client(rate_limit=None, store=store) as client:
        create = asyncio.ensure_future(client.with_options(job_key="k").sonic.create_music(**SONG))
        await until(lambda: sandbox.journal.creates)
        store.released.set()
        await create
        await client.clock.sleep(3600)
        assert 60 <= store.failures <= 70


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


async def test_client_that_closes_while_a_result_is_prepared_may_have_paid() -> None:
    """The error of its caller does not say that nothing was sent or charged; the key is free."""
    store = MemoryStore()
    async with Sandbox(longest=3) as sandbox:
        async with sandbox.client(rate_limit=None, store=store) as client:
            clips = await (await client.sonic.create_music(**SONG)).wait()
            sandbox.faults.on("POST", "/sonic/midi", Fault.status(202, taken=True), times=None)
            call = asyncio.ensure_future(client.with_options(job_key="k").sonic.midi(clips[0].clip_id))
            await until(lambda: sandbox.journal.requests("/sonic/midi", "POST"))
        with pytest.raises(APIConnectionError, match="while the result was being prepared") as caught:
            await call
    assert sandbox.journal.requests("/sonic/midi", "POST")[0].charge > 0
    assert caught.value.may_have_been_charged
    assert not caught.value.not_charged
    assert caught.value.sent is None
    assert await store.get("k") is None


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
