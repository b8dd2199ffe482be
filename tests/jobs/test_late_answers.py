"""A job that was sent more than once: which task its key gives, and that no other is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from musicapi_async._wire.prepare import PreparedRequest
from musicapi_async.api.task import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.jobs import Job, JobStore, transitions
from musicapi_async.jobs.recorder import JobEntry, JobRecorder, Resubmission

CREATE = PreparedRequest(
    method="POST",
    path="/sonic/create",
    call="POST /sonic/create",
    kind="create",
    lane="submit",
    body=b'{"mv":"sonic-v6"}',
    family="sonic",
    operation="create_music",
)
FIRST = TaskRef("sonic", "first", "create_music")
SECOND = TaskRef("sonic", "second", "create_music")


@pytest.fixture
def recorder(store: JobStore) -> JobRecorder:
    """A recorder on the store."""
    return JobRecorder(store, Clock(), "http://host")


async def sent(recorder: JobRecorder) -> JobEntry:
    """The job 'k', sent for the first time."""
    entry = recorder.record("k", CREATE)
    assert entry is not None
    await entry.reserve()
    await entry.sending()
    return entry


async def resubmitted(recorder: JobRecorder) -> JobEntry:
    """The job 'k', sent once more because a person decided so."""
    entry = Resubmission(recorder, await stored(recorder)).record("k", CREATE)
    await entry.reserve()
    await entry.sending()
    return entry


async def stored(recorder: JobRecorder) -> Job:
    """The job 'k' as it is stored."""
    job = await recorder.store.get("k")
    assert job is not None
    return job


async def failed(recorder: JobRecorder) -> None:
    """The first task was accepted and failed."""
    await (await sent(recorder)).accepted(FIRST, {})
    await recorder.store.change("k", transitions.ended(FIRST, "failed", True, "no", 1.0))


async def lost(recorder: JobRecorder) -> None:
    """The outcome of the first send is unknown."""
    await (await sent(recorder)).unknown("the connection dropped", None)


def summary(job: Job) -> tuple[str, str | None, list[str]]:
    """The state, the task that the key gives, and the others."""
    return job.state, job.task_id, [task.task_id for task in job.others]


@pytest.mark.parametrize("before", [failed, lost])
async def test_late_webhook_of_the_first_task_does_not_replace_the_second(
    recorder: JobRecorder, before: Callable[[JobRecorder], Awaitable[None]]
) -> None:
    """The key gives what was sent last; the first task stays known beside it."""
    await before(recorder)
    second = await resubmitted(recorder)
    await recorder.adopt("k", FIRST)
    assert (await stored(recorder)).state == "sent"
    await second.accepted(SECOND, {"task_id": "second"})
    assert summary(await stored(recorder)) == ("accepted", "second", ["first"])
    assert await recorder.store.find("sonic", "second")


async def test_webhook_before_the_answer_names_the_second_task_once(recorder: JobRecorder) -> None:
    """Named first by the webhook and then by the answer, it is one task."""
    await lost(recorder)
    second = await resubmitted(recorder)
    await recorder.adopt("k", SECOND)
    await second.accepted(SECOND, {})
    assert summary(await stored(recorder)) == ("accepted", "second", [])


async def test_task_known_before_the_last_send_is_never_its_result(recorder: JobRecorder) -> None:
    """The second send's outcome is unknown too: the first task's webhook says nothing of it."""
    await failed(recorder)
    second = await resubmitted(recorder)
    await second.unknown("the connection dropped", None)
    await recorder.adopt("k", FIRST)
    assert (await stored(recorder)).state == "ambiguous"
    await recorder.adopt("k", SECOND)
    assert summary(await stored(recorder)) == ("accepted", "second", ["first"])


async def test_refused_second_send_keeps_tasks_named_meanwhile(recorder: JobRecorder) -> None:
    """It was not carried out, so the webhook that came was of the first."""
    await lost(recorder)
    second = await resubmitted(recorder)
    await recorder.adopt("k", FIRST)
    await second.released()
    assert summary(await stored(recorder)) == ("ambiguous", None, ["first"])


async def test_answer_wins_over_a_webhook_that_named_another_task(recorder: JobRecorder) -> None:
    """The key gives the task of the call's own answer; the other stays known."""
    entry = await sent(recorder)
    await recorder.adopt("k", FIRST)
    await entry.accepted(SECOND, {"task_id": "second"})
    job = await stored(recorder)
    assert summary(job) == ("accepted", "second", ["first"])
    assert msgspec.json.decode(job.reply) == {"task_id": "second"}


async def test_answer_after_a_later_send_was_accepted_is_stored_beside_it(
    recorder: JobRecorder,
) -> None:
    """The later decision holds; the task that was paid for before it is not forgotten."""
    slow = await sent(recorder)
    await recorder.store.change("k", transitions.recover(lambda _holder: False, 1.0))
    second = await resubmitted(recorder)
    await second.accepted(SECOND, {})
    await slow.accepted(FIRST, {})
    assert summary(await stored(recorder)) == ("accepted", "second", ["first"])


async def lost_job(recorder: JobRecorder, key: str) -> JobEntry:
    """A job whose outcome is unknown."""
    entry = recorder.record(key, CREATE)
    assert entry is not None
    await entry.reserve()
    await entry.sending()
    await entry.unknown("the connection dropped", None)
    return entry


async def states_of(recorder: JobRecorder) -> dict[str, tuple[str, str | None]]:
    """State and task of each job."""
    return {job.key: (job.state, job.task_id) for job in await recorder.store.jobs()}


@pytest.mark.parametrize("ended", [False, True])
async def test_webhooks_that_name_one_task_for_two_jobs_settle_neither(
    recorder: JobRecorder, ended: bool
) -> None:
    """The first is taken back, also after its end; repetitions change nothing; a person decides."""
    for key in ("k", "l"):
        await lost_job(recorder, key)
    assert (await recorder.adopt("k", FIRST)).outcome == "settled"
    assert (await recorder.adopt("k", FIRST)).outcome == "settled"
    if ended:
        await recorder.store.change("k", transitions.ended(FIRST, "succeeded", None, "", 1.0))
    assert (await recorder.adopt("l", FIRST)).outcome == "refused"
    for key in ("k", "l", "k"):
        assert await states_of(recorder) == {"k": ("ambiguous", None), "l": ("ambiguous", None)}
        assert "first" in (await stored(recorder)).why
        assert (await recorder.adopt(key, FIRST)).outcome == "refused"
    assert not await recorder.store.find("sonic", "first")
    await recorder.resolve("k", FIRST)
    assert (await recorder.adopt("l", FIRST)).outcome == "refused"
    assert (await recorder.adopt("l", SECOND)).outcome == "settled"
    assert await states_of(recorder) == {"k": ("accepted", "first"), "l": ("accepted", "second")}


async def test_webhook_settles_the_job_of_its_own_account(store: JobStore) -> None:
    """Two accounts that were both named have a job each under one key."""
    one, two = (JobRecorder(store, Clock(), "http://host", account) for account in ("one", "two"))
    for recorder in (one, two):
        await lost_job(recorder, "k")
    assert (await two.adopt("k", SECOND)).outcome == "settled"
    jobs = [await recorder.job("k") for recorder in (one, two)]
    assert [job and (job.state, job.task_id) for job in jobs] == [("ambiguous", None), ("accepted", "second")]


async def test_webhook_settles_the_job_of_a_replaced_api_key(store: JobStore) -> None:
    """Its address proves the job key, whatever the API key is now."""
    former, now = (JobRecorder(store, Clock(), "http://host", f"key-{digit * 16}") for digit in "01")
    await lost_job(former, "k")
    assert (await now.adopt("k", FIRST)).outcome == "settled"
    assert await states_of(now) == {"k": ("accepted", "first")}


async def test_failed_task_has_its_refund_in_the_job(recorder: JobRecorder) -> None:
    """As the service reports it."""
    await failed(recorder)
    job = await stored(recorder)
    assert (job.state, job.outcome, job.refunded, job.why) == ("failed", "failed", True, "no")


async def test_webhooks_in_two_processes_at_once_settle_neither(store: JobStore) -> None:
    """Each reads once more after it has written."""
    one, other = (JobRecorder(store, Clock(), "http://host") for _ in range(2))
    for _ in range(20):
        for key in ("k", "l"):
            await store.change(key, lambda _job: None)
            await lost_job(one, key)
        await asyncio.gather(one.adopt("k", FIRST), other.adopt("l", FIRST))
        assert await states_of(one) == {"k": ("ambiguous", None), "l": ("ambiguous", None)}


async def test_task_of_its_own_answer_stays_when_a_webhook_names_another_job(
    recorder: JobRecorder,
) -> None:
    """Before the webhook or after it: the answer to the call is certain."""
    entry = await sent(recorder)
    assert (await recorder.adopt("k", FIRST)).outcome == "settled"
    await entry.accepted(FIRST, {"task_id": "first"})
    await lost_job(recorder, "l")
    assert (await recorder.adopt("l", FIRST)).outcome == "refused"
    assert await states_of(recorder) == {"k": ("accepted", "first"), "l": ("ambiguous", None)}


async def test_webhook_of_another_task_changes_no_job_that_has_one(recorder: JobRecorder) -> None:
    """It is no dispute either: the job that has that task keeps it."""
    await (await sent(recorder)).accepted(FIRST, {})
    await lost_job(recorder, "l")
    assert (await recorder.adopt("l", SECOND)).outcome == "settled"
    assert (await recorder.adopt("k", SECOND)).outcome == "refused"
    assert (await recorder.adopt("k", FIRST)).outcome == "settled"
    assert await states_of(recorder) == {"k": ("accepted", "first"), "l": ("accepted", "second")}
