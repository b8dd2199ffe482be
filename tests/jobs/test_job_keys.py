"""Job keys on the client: one task for one key, whatever happens. The sandbox's journal is the judge."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from patience import until

from musicapi_async import MusicAPI, Webhooks
from musicapi_async._wire.signature import sign
from musicapi_async.errors import (
    BadRequestError,
    ConnectFailedError,
    JobKeyConflictError,
    JobStoreError,
    OutcomeUnknownError,
    RequestValidationError,
    TaskFailedError,
)
from musicapi_async.jobs import Job, JobStore, MemoryStore, SQLiteStore, Transition
from musicapi_async.sandbox import Fault, Sandbox

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A sandbox whose songs take a real second."""
    async with Sandbox(speed=400) as sandbox:
        yield sandbox


@asynccontextmanager
async def opened(sandbox: Sandbox, store: JobStore | None, **options: Any) -> AsyncGenerator[MusicAPI]:
    async with sandbox.client(store=store, rate_limit=None, **options) as client:
        yield client


async def test_same_key_gives_same_task_and_pays_once(sandbox: Sandbox, store: JobStore) -> None:
    """The second call with a key returns the first one's task, and nothing is sent."""
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="order-42")
        first = await keyed.sonic.create_music(**SONG)
        second = await keyed.sonic.create_music(**SONG)
        assert second == first
        assert second.job_key == "order-42"
        assert (await second.wait()).task_id == first.task_id
        assert len(sandbox.journal.creates) == 1
        (job,) = await client.jobs()
        assert (job.state, job.outcome, job.task_id) == ("finished", "succeeded", first.task_id)


async def test_same_key_in_another_client_gives_the_same_task(sandbox: Sandbox, tmp_path: Path) -> None:
    """A key holds across clients, as it does across processes: the task is on disk."""
    async with opened(sandbox, SQLiteStore(tmp_path / "jobs.sqlite")) as client:
        first = await client.with_options(job_key="k").sonic.create_music(**SONG)
    async with opened(sandbox, SQLiteStore(tmp_path / "jobs.sqlite")) as client:
        again = await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert again == first
        assert again.kind == "create_music"
        assert again.raw == first.raw
        assert len((await again.wait()).succeeded) == 2
    assert len(sandbox.journal.creates) == 1


async def test_job_keys_hold_within_a_client_without_store(sandbox: Sandbox) -> None:
    """Without a store a key is stored in memory, and creates without a key are not stored at all."""
    async with opened(sandbox, None) as client:
        first = await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert await client.with_options(job_key="k").sonic.create_music(**SONG) == first
        await client.sonic.create_music(**SONG)
        assert [job.key for job in await client.jobs()] == ["k"]
    assert len(sandbox.journal.creates) == 2


async def test_other_request_under_the_same_key_is_refused(sandbox: Sandbox, store: JobStore) -> None:
    """The error shows what differs, and nothing is sent."""
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="k")
        await keyed.sonic.create_music(**SONG, title="One")
        with pytest.raises(JobKeyConflictError) as caught:
            await keyed.sonic.create_music(**SONG, title="Two")
        assert caught.value.difference == ("title: 'One' before, 'Two' now",)
        assert "Nothing was sent" in str(caught.value)
        with pytest.raises(JobKeyConflictError, match="A job key names one call") as other:
            await keyed.sonic.create_persona(name="x", clip_id="y")
        assert other.value.difference == ("call: 'POST /sonic/create' before, 'POST /sonic/persona' now",)
    assert len(sandbox.journal.creates) == 1


async def test_store_records_every_create(sandbox: Sandbox, store: JobStore) -> None:
    """Without a job key a create gets a generated one, so that a crash forgets nothing."""
    async with opened(sandbox, store) as client:
        task = await client.sonic.create_music(**SONG)
        (job,) = await client.jobs("accepted")
        assert job.task_id == task.task_id
        assert job.key == task.job_key
        assert job.key.startswith("auto-")


async def test_concurrent_calls_with_one_key_send_one_request(sandbox: Sandbox, store: JobStore) -> None:
    """Twenty callers, one key: one request, one task for all."""
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="k")
        tasks = await asyncio.gather(*(keyed.sonic.create_music(**SONG) for _ in range(20)))
    assert len({task.task_id for task in tasks}) == 1
    assert len(sandbox.journal.creates) == 1


async def test_secrets_are_not_stored(sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither the API key nor a webhook secret is in the file."""
    store = SQLiteStore(tmp_path / "jobs.sqlite")
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="k")
        await keyed.sonic.create_music(
            **SONG, webhook_url="https://example.org/hook", webhook_secret="whsec-sesame-opens"
        )
        (job,) = await client.jobs()
        assert job.request.hidden == ("webhook_secret",)
    raw = (tmp_path / "jobs.sqlite").read_bytes()
    assert b"example.org/hook" in raw
    assert b"sesame" not in raw
    assert sandbox.api_key.encode() not in raw


async def test_refusal_frees_the_key(sandbox: Sandbox, store: JobStore) -> None:
    """A refused call was not carried out: its key may be reused, also for another request."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(400))
    async with opened(sandbox, store, max_retries=0) as client:
        keyed = client.with_options(job_key="k")
        with pytest.raises(BadRequestError):
            await keyed.sonic.create_music(**SONG)
        assert await client.jobs() == []
        await keyed.sonic.create_music(**SONG, title="Another")
    assert len([entry for entry in sandbox.journal.creates if entry.charge]) == 1


async def test_unsent_call_frees_the_key(sandbox: Sandbox, store: JobStore) -> None:
    """No connection, nothing sent: the key is free."""
    async with opened(sandbox, store, max_retries=0) as client:
        keyed = client.with_options(job_key="k")
        async with sandbox.unreachable():
            with pytest.raises(ConnectFailedError):
                await keyed.sonic.create_music(**SONG)
        assert await client.jobs() == []
        await keyed.sonic.create_music(**SONG)
    assert sandbox.journal.charged_twice() == []


async def test_unknown_outcome_is_stored_and_listed(sandbox: Sandbox, store: JobStore) -> None:
    """After a lost answer the key sends nothing more; the job is listed with its reason."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="k", check_balance=True)
        with pytest.raises(OutcomeUnknownError) as caught:
            await keyed.sonic.create_music(**SONG)
        assert caught.value.job_key == "k"
        with pytest.raises(OutcomeUnknownError, match="resubmit") as repeated:
            await keyed.sonic.create_music(**SONG)
        (job,) = await client.jobs("ambiguous")
        assert (
            job.why == "the connection dropped: Connection reset by peer"
        )  # no advice for a call like any other
        assert str(repeated.value).count("may have been charged") == 1
        assert job.balance_before is not None
        assert job.balance_after is not None
        assert job.balance_before - job.balance_after == sandbox.journal.charges
        assert repeated.value.balance_after == job.balance_after
    assert len(sandbox.journal.creates) == 1


async def test_unknown_outcome_without_a_key_can_be_settled(sandbox: Sandbox, store: JobStore) -> None:
    """With a store, the error names the generated key."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    async with opened(sandbox, store) as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.sonic.create_music(**SONG)
        key = caught.value.job_key
        assert key is not None
        task = await client.resolve(key, task_id=sandbox.journal.creates[0].task_id)
        assert (await task.wait()).status == "succeeded"


async def test_resolve_gives_the_key_its_task(sandbox: Sandbox, store: JobStore) -> None:
    """A person names the task, and the key then gives it. Naming it twice changes nothing."""
    sandbox.faults.on("POST", "/sonic/create", Fault.truncate)
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="k")
        with pytest.raises(OutcomeUnknownError):
            await keyed.sonic.create_music(**SONG)
        task_id = sandbox.journal.creates[0].task_id
        assert (await client.resolve("k", task_id=task_id)).task_id == task_id
        assert (await client.resolve("k", task_id=task_id)).job_key == "k"
        task = await keyed.sonic.create_music(**SONG)
        assert (await task.wait()).task_id == task_id
        with pytest.raises(RequestValidationError, match="only an ambiguous job"):
            await client.resolve("k", task_id="another")
        with pytest.raises(RequestValidationError, match="no job"):
            await client.resolve("unknown", task_id=task_id)
    assert len(sandbox.journal.creates) == 1


async def test_resubmit_sends_the_same_body_on_purpose_only(sandbox: Sandbox, store: JobStore) -> None:
    """An ambiguous job is sent once more by `resubmit` alone, byte for byte."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_before)
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="k", extra_body={"extra": 1})
        with pytest.raises(OutcomeUnknownError):
            await keyed.sonic.create_music(**SONG)
        task = await client.resubmit("k")
        assert await keyed.sonic.create_music(**SONG) == task
        (job,) = await client.jobs()
        assert (job.state, job.attempts) == ("accepted", 2)
        with pytest.raises(RequestValidationError, match="only an ambiguous or failed job"):
            await client.resubmit("k")
    (create,) = [entry for entry in sandbox.journal.creates if entry.raw]
    assert isinstance(create.body, dict)
    assert create.body["extra"] == 1
    assert create.charge


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"validate": "off"}, {"title": 5}),
        ({"validate": "off"}, {"title": "x" * 10_000, "prompt": ["la"]}),
        ({"extra_body": {"title": ["a"], "mv": None}}, {}),
        ({"extra_body": {"mv": "", "tags": {"a": 1}}}, {}),
    ],
)
async def test_resubmit_sends_what_no_check_would_pass(
    sandbox: Sandbox, store: JobStore, options: dict[str, Any], fields: dict[str, Any]
) -> None:
    """A person decided to send it once more as it was recorded, whatever this package thinks of its fields."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after, times=2)
    async with opened(sandbox, store) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k", **options).sonic.create_music(**{**SONG, **fields})
        with pytest.raises(OutcomeUnknownError):
            await client.resubmit("k")
        (job,) = await client.jobs()
    first, second = sandbox.journal.requests("/sonic/create")
    assert first.body == second.body == job.request.fields
    assert job.attempts == 2


async def test_refused_resubmit_leaves_the_job_as_it_was(sandbox: Sandbox, store: JobStore) -> None:
    """A refusal of the second send proves nothing about the first."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    sandbox.faults.on("POST", "/sonic/create", Fault.status(400))
    async with opened(sandbox, store) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k").sonic.create_music(**SONG)
        with pytest.raises(BadRequestError):
            await client.resubmit("k")
        (job,) = await client.jobs()
        assert (job.state, job.attempts) == ("ambiguous", 1)


async def test_resubmit_needs_the_webhook_secret(sandbox: Sandbox, store: JobStore) -> None:
    """A secret is not stored, so it cannot be sent once more."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_before)
    async with opened(sandbox, store) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k").sonic.create_music(
                **SONG, webhook_url="https://example.org/hook", webhook_secret="the-first-secret-of-two"
            )
        with pytest.raises(RequestValidationError, match="webhook_secret"):
            await client.resubmit("k")
        await client.resubmit("k", webhook_secret="the-second-secret")
    body = sandbox.journal.creates[-1].body
    assert isinstance(body, dict)
    assert body["webhook_secret"] == "the-second-secret"


async def test_resubmit_knows_the_secret_of_its_own_webhooks(sandbox: Sandbox, store: JobStore) -> None:
    """The client knows the secret for its own address, and for no other."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_before, times=2)
    own = Webhooks("http://127.0.0.1:9/hooks", "a new secret, long enough")
    before = Webhooks("http://127.0.0.1:9/hooks", "the secret of last year")
    async with opened(sandbox, store, webhooks=before) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="own").sonic.create_music(**SONG)
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="other").sonic.create_music(
                **SONG, webhook_url="https://example.org/hook", webhook_secret="one of sixteen or more"
            )
    async with opened(sandbox, store, webhooks=own) as client:
        await client.resubmit("own")
        with pytest.raises(RequestValidationError, match="webhook_secret"):
            await client.resubmit("other")
    body = sandbox.journal.creates[-1].body
    assert isinstance(body, dict)
    assert body["webhook_secret"] == "a new secret, long enough"
    assert body["webhook_url"] == own.url_for("own")


async def test_failed_task_holds_its_key_until_resubmit(sandbox: Sandbox, store: JobStore) -> None:
    """The key of a failed task gives the failure; `resubmit` gives a new task."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="k")
        task = await keyed.sonic.create_music(**SONG)
        with pytest.raises(TaskFailedError):
            await task.wait()
        (job,) = await client.jobs("failed")
        assert job.outcome == "failed"
        with pytest.raises(TaskFailedError):
            await (await keyed.sonic.create_music(**SONG)).wait()
        second = await client.resubmit("k")
        assert second != task
        await second.wait()
    assert len(sandbox.journal.creates) == 2
    assert sandbox.journal.charged_twice() == []


async def wait(client: MusicAPI, token: str) -> None:
    await client.task(token).wait()


async def follow(client: MusicAPI, token: str) -> None:
    async for _ in client.task(token).updates():
        pass


async def refresh(client: MusicAPI, token: str) -> None:
    task = client.task(token)
    while not (await task.refresh()).is_terminal:
        await client.clock.sleep(2)


async def complete(client: MusicAPI, token: str) -> None:
    async for _ in client.as_completed([client.task(token)]):
        pass


@pytest.mark.parametrize("end", [wait, follow, refresh, complete])
@pytest.mark.parametrize("of_view", [False, True])
async def test_failure_that_only_a_later_client_polled_is_recorded(
    sandbox: Sandbox,
    store: JobStore,
    end: Callable[[MusicAPI, str], Awaitable[None]],
    of_view: bool,
) -> None:
    """Resumed by its token, a task ends in the store too, so that its job can be resubmitted."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    async with opened(sandbox, store) as client:
        token = (await client.with_options(job_key="k").sonic.create_music(**SONG)).token
    async with opened(sandbox, None if of_view else store) as client:
        view = client.with_options(store=store) if of_view else client
        with contextlib.suppress(TaskFailedError):
            await end(view, token)
        (job,) = await view.jobs()
        assert (job.state, job.outcome) == ("failed", "failed")
        await (await view.resubmit("k")).wait()


@pytest.mark.parametrize("words", [("sonic", "suno"), ("suno", "sonic")])
async def test_end_is_recorded_under_either_word_of_the_family(
    sandbox: Sandbox, store: JobStore, words: tuple[str, str]
) -> None:
    """Both words name Sonic: a task that was made by one and waited for by the other is finished."""
    made_by, waited_by = words
    async with opened(sandbox, store) as client:
        family = getattr(client.with_options(job_key="k"), made_by)
        task_id = (await family.create_music(**SONG)).task_id
        await client.task(waited_by, task_id).wait()
        (job,) = await client.jobs()
    assert (job.state, job.outcome) == ("finished", "succeeded")


class Counting(MemoryStore):
    """Counts the searches for a task."""

    found = 0

    async def find(self, family: str, task_id: str) -> list[Job]:
        """The jobs with this task."""
        self.found += 1
        return await super().find(family, task_id)


async def test_task_is_known_under_either_word_of_its_family(sandbox: Sandbox, store: JobStore) -> None:
    """A visitor's token may say 'sonic' of a task that `client.suno` made, and the other way round."""
    async with opened(sandbox, store) as client:
        made = [await client.suno.create_music(**SONG), await client.sonic.create_music(**SONG)]
    async with opened(sandbox, store) as later:
        for task in made:
            assert await later.task("sonic", task.task_id).is_known()
            assert await later.task("suno", task.task_id).is_known()
            assert not await later.task("producer", task.task_id).is_known()
    assert not sandbox.journal.polls


async def test_polls_of_an_ended_task_search_the_store_once(sandbox: Sandbox) -> None:
    """Its end is recorded by the first poll; a hundred more go to the service only."""
    store = Counting()
    async with opened(sandbox, store) as client:
        task = await client.sonic.create_music(**SONG)
        await task.wait()
        (job,) = await client.jobs()
        searches = store.found
        for _ in range(100):
            await task.refresh()
    assert job.state == "finished"
    assert store.found == searches


class Holding(MemoryStore):
    """A store whose searches wait until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()

    async def find(self, family: str, task_id: str) -> list[Job]:
        """The jobs with this task."""
        await self.free.wait()
        return await super().find(family, task_id)


async def test_cancelled_listing_stops_no_note(sandbox: Sandbox) -> None:
    """A listing of jobs that is cancelled does not cancel the note of an end with it."""
    store = Holding()
    async with opened(sandbox, store) as client:
        task = await client.sonic.create_music(**SONG)
        await task.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.jobs()
        store.free.set()
        (job,) = await client.jobs()
    assert job.state == "finished"


async def test_closing_the_client_closes_a_store_that_gave_one_job(sandbox: Sandbox, tmp_path: Path) -> None:
    """`client.job` uses the store as all other calls do."""
    before = set(threading.enumerate())
    async with opened(sandbox, SQLiteStore(tmp_path / "jobs.sqlite")) as client:
        assert await client.job("k") is None
        assert stores(before)
    await until(lambda: not stores(before))


async def test_end_of_a_task_that_was_named_late_is_recorded(sandbox: Sandbox, store: JobStore) -> None:
    """Polled before its job was known, its end is recorded when it is polled once more."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    async with opened(sandbox, store) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k").sonic.create_music(**SONG)
        task_id = sandbox.journal.creates[0].task_id
        await client.task("sonic", task_id).wait()
        assert (
            await client.jobs(state="ambiguous") == await client.jobs("ambiguous") == [await client.job("k")]
        )
        await client.resolve("k", task_id=task_id)
        await client.task("sonic", task_id).refresh()
        (job,) = await client.jobs()
    assert (job.state, job.outcome) == ("finished", "succeeded")


async def test_direct_call_reuses_its_reply(sandbox: Sandbox, store: JobStore) -> None:
    """A paid call without a task answers from the store."""
    async with opened(sandbox, store) as client:
        clips = await (await client.sonic.create_music(**SONG)).wait()
        keyed = client.with_options(job_key="voice")
        first = await keyed.sonic.create_persona(name="Rain", clip_id=clips[0].clip_id)
        again = await keyed.sonic.create_persona(name="Rain", clip_id=clips[0].clip_id)
        assert again == first
        assert again.persona_id
    assert len(sandbox.journal.requests("/sonic/persona")) == 1


async def test_untyped_call_reuses_its_reply(sandbox: Sandbox, store: JobStore) -> None:
    """`client.request` with a key pays once, too."""
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="raw")
        body = {"task_type": "create_music", "custom_mode": False, **SONG, "use_suno_cdn": False}
        first = await keyed.request("POST", "/sonic/create", json=body)
        assert await keyed.request("POST", "/sonic/create", json=body) == first
    assert len(sandbox.journal.creates) == 1


RAW: dict[str, Any] = {"task_type": "create_music", "custom_mode": False, **SONG, "webhook_url": None}


async def test_ambiguous_untyped_call_is_sent_once_more_on_purpose_only(
    sandbox: Sandbox, store: JobStore
) -> None:
    """As it was recorded, its query included; its key gives the new reply afterwards."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="raw")
        for _ in range(2):
            with pytest.raises(OutcomeUnknownError) as caught:
                await keyed.request("POST", "/sonic/create?part=1", json=RAW)
            assert caught.value.job_key == "raw"
        assert "resubmit" in caught.value.hint
        assert len(sandbox.journal.creates) == 1
        reply = await client.resubmit("raw")
        assert await keyed.request("POST", "/sonic/create?part=1", json=RAW) == reply
        first, second = sandbox.journal.creates
        assert first.body == second.body == RAW
        assert reply["task_id"] == second.task_id
        with pytest.raises(RequestValidationError, match="only an ambiguous or failed job"):
            await client.resubmit("raw")
    assert len(sandbox.journal.creates) == 2


async def test_untyped_call_without_a_body_is_sent_once_more_without_one(
    sandbox: Sandbox, store: JobStore
) -> None:
    """Nothing is made of nothing."""
    sandbox.faults.on("POST", "/sonic/batch", Fault.reset_after, times=2)
    async with opened(sandbox, store) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="raw").request("POST", "/sonic/batch")
        with pytest.raises(OutcomeUnknownError):
            await client.resubmit("raw")
    assert [entry.raw for entry in sandbox.journal.requests("/sonic/batch")] == [b"", b""]


async def test_secret_of_an_untyped_call_has_to_be_given_again(sandbox: Sandbox, store: JobStore) -> None:
    """It is not stored, as that of a typed call is not."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    body = {**RAW, "webhook_url": "https://example.org/hook", "webhook_secret": "the-first-secret-of-two"}
    async with opened(sandbox, store) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="raw").request("POST", "/sonic/create", json=body)
        with pytest.raises(RequestValidationError, match="webhook_secret"):
            await client.resubmit("raw")
        await client.resubmit("raw", webhook_secret="the-second-secret")
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_before)
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="query").request(
                "POST", "/sonic/create", json=RAW, params={"webhook_secret": "the-third-secret-of-all"}
            )
        with pytest.raises(RequestValidationError, match="webhook_secret"):
            await client.resubmit("query", webhook_secret="the-third-secret-of-all")
        job = await client.job("query")
        assert "third" not in repr(job)
    sent = [entry.body for entry in sandbox.journal.creates if entry.raw]
    assert sent == [body, {**body, "webhook_secret": "the-second-secret"}]


async def test_untyped_call_is_resolved_with_its_task(sandbox: Sandbox, store: JobStore) -> None:
    """The path says of which family it is; the key gives the id from now on, and nothing is paid for again."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    sandbox.faults.on("POST", "/futura/create", Fault.reset_after)
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="raw")
        with pytest.raises(OutcomeUnknownError):
            await keyed.request("POST", "/sonic/create", json=RAW)
        (create,) = sandbox.journal.creates
        task = await client.resolve("raw", task_id=create.task_id)
        assert len(await task.wait()) == 2
        assert await keyed.request("POST", "/sonic/create", json=RAW) == {"task_id": create.task_id}
        await client.jobs()  # when it returns, all ends are stored
        job = await client.job("raw")
        assert job is not None
        assert (job.state, job.task_id) == ("finished", create.task_id)
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="new").request("POST", "/futura/create", json={})
        with pytest.raises(RequestValidationError, match="makes no task"):
            await client.resolve("new", task_id="t")
    assert len(sandbox.journal.creates) == 1


async def test_query_of_an_untyped_call_is_part_of_its_request(sandbox: Sandbox, store: JobStore) -> None:
    """In the path as among the parameters: another one under the same key is a conflict, and sends nothing."""
    body = {"task_type": "create_music", "custom_mode": False, **SONG}
    async with opened(sandbox, store) as client:
        keyed = client.with_options(job_key="raw")
        first = await keyed.request("POST", "/sonic/create?part=1", json=body)
        assert await keyed.request("POST", "/sonic/create", json=body, params={"part": 1}) == first
        for path, params in (("?part=2", None), ("", {"part": 2}), ("", None), ("?part=1&part=1", None)):
            with pytest.raises(JobKeyConflictError, match="part=1"):
                await keyed.request("POST", f"/sonic/create{path}", json=body, params=params)
    assert len(sandbox.journal.creates) == 1


async def test_store_that_cannot_be_written_stops_the_call(sandbox: Sandbox, tmp_path: Path) -> None:
    """A call that cannot be recorded is not sent."""
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"no database" * 1000)
    async with opened(sandbox, SQLiteStore(path)) as client:
        with pytest.raises(JobStoreError, match="damaged") as caught:
            await client.sonic.create_music(**SONG)
        assert "Nothing" in str(caught.value)
    assert len(sandbox.journal.creates) == 0


class FailsAfterSending(MemoryStore):
    """A store whose disk fills up between the request and its answer."""

    full = False

    async def change(
        self, key: str, step: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        if self.full:
            raise JobStoreError("the disk is full")
        job = await super().change(key, step, account=account, durable=durable)
        self.full = job is not None and job.state == "sent"
        return job


async def test_task_that_cannot_be_stored_is_not_lost(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The handle is returned and its token logged; once the store works, it is stored."""
    store = FailsAfterSending()
    async with opened(sandbox, store) as client:
        with caplog.at_level(logging.ERROR):
            task = await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert task.token in caplog.text
        with pytest.raises(JobStoreError):
            await client.with_options(job_key="l").sonic.create_music(**SONG)
        store.full = False
        (job,) = await client.jobs()
        assert job.task_id == task.task_id
    assert len(sandbox.journal.creates) == 1


async def test_view_can_have_a_store_of_its_own(sandbox: Sandbox, store: JobStore) -> None:
    """`with_options(store=...)` writes this view's calls there, and ends of tasks, too."""
    async with opened(sandbox, None) as client:
        view = client.with_options(store=store)
        task = await view.sonic.create_music(**SONG)
        await task.wait()
        assert [job.state for job in await view.jobs()] == ["finished"]
        assert await client.jobs() == []


async def list_jobs(client: MusicAPI) -> None:
    await client.jobs()


async def list_jobs_of_a_view(client: MusicAPI) -> None:
    await client.with_options(job_key="k").jobs()


async def take_a_webhook(client: MusicAPI) -> None:
    raw = b'{"event":"song.streaming","platform":"sonic","task_id":"t","data":[]}'
    stamp = str(int(time.time()))
    headers = {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": sign("secret", stamp, raw)}
    assert not (await client.webhooks.handle(headers, raw, url="/hooks?job_key=k")).is_duplicate


@pytest.mark.parametrize("use", [list_jobs, list_jobs_of_a_view, take_a_webhook])
async def test_closing_the_client_closes_a_store_that_was_only_read(
    sandbox: Sandbox, tmp_path: Path, use: Callable[[MusicAPI], Awaitable[None]]
) -> None:
    """Neither the file nor its thread outlives the client, even if nothing was paid for."""
    before = set(threading.enumerate())
    store, other = SQLiteStore(tmp_path / "jobs.sqlite"), SQLiteStore(tmp_path / "other.sqlite")
    async with opened(sandbox, store, webhooks=Webhooks(secret="secret")) as client:
        await use(client)
        await client.with_options(store=other).jobs()
        assert stores(before)
    await until(lambda: not stores(before))


def stores(before: set[threading.Thread]) -> list[threading.Thread]:
    """The threads of stores that were not there before."""
    new = set(threading.enumerate()) - before
    return [thread for thread in new if thread.name.startswith("musicapi-store")]


async def test_unknown_state_is_refused(sandbox: Sandbox, store: JobStore) -> None:
    """`client.jobs` knows its states."""
    async with opened(sandbox, store) as client:
        with pytest.raises(RequestValidationError, match="ambiguous"):
            await client.jobs("lost")  # type: ignore[arg-type]


async def test_caller_cancelled_after_sending_loses_nothing(sandbox: Sandbox, store: JobStore) -> None:
    """Cancelled while the answer is under way: the task is stored all the same."""
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(20))
    async with opened(sandbox, store) as client:
        asked = asyncio.ensure_future(client.with_options(job_key="k").sonic.create_music(**SONG))
        await until(lambda: len(sandbox.journal.creates) > 0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        task = await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert task.task_id == sandbox.journal.creates[0].task_id
    assert len(sandbox.journal.creates) == 1
