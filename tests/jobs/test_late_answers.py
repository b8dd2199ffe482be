"""A job that was sent more than once: which task its key stands for, and that no other is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from musicapi_async.api.handle import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.jobs import Job, JobStore, transitions
from musicapi_async.jobs.recorder import JobEntry, JobRecorder

BODY = b'{"mv":"sonic-v6"}'
FIRST = TaskRef("sonic", "first", "create_music")
SECOND = TaskRef("sonic", "second", "create_music")


@pytest.fixture
def recorder(store: JobStore) -> JobRecorder:
    """What writes into the store."""
    return JobRecorder(store, Clock(), "http://host")


async def sent(recorder: JobRecorder) -> JobEntry:
    """The job 'k', which has left for the first time."""
    entry = recorder.record("k", "POST /sonic/create", BODY, "sonic", "create_music")
    assert entry is not None
    await entry.reserve()
    await entry.sending()
    return entry


async def sent_again(recorder: JobRecorder) -> JobEntry:
    """The job 'k', which has left once more because somebody decided so."""
    entry = recorder.resubmission(await stored(recorder)).record("k", "POST /sonic/create", BODY)
    await entry.reserve()
    await entry.sending()
    return entry


async def stored(recorder: JobRecorder) -> Job:
    """The job 'k' as it is written down."""
    job = await recorder.store.get("k")
    assert job is not None
    return job


async def failed(recorder: JobRecorder) -> None:
    """The first task was accepted and failed."""
    await (await sent(recorder)).accepted(FIRST, {})
    await recorder.store.change("k", transitions.ended(FIRST, "failed", True, "no", 1.0))


async def lost(recorder: JobRecorder) -> None:
    """Nobody knows what became of the first send."""
    await (await sent(recorder)).unknown("the connection dropped", None)


def words(job: Job) -> tuple[str, str | None, list[str]]:
    """The state, the task the key stands for, and the others."""
    return job.state, job.task_id, [task.task_id for task in job.others]


@pytest.mark.parametrize("before", [failed, lost])
async def test_a_late_word_of_the_first_task_does_not_take_the_place_of_the_second(
    recorder: JobRecorder, before: Callable[[JobRecorder], Awaitable[None]]
) -> None:
    """The key stands for what was sent last; the first task stays known beside it."""
    await before(recorder)
    again = await sent_again(recorder)
    await recorder.adopt("k", FIRST)
    assert (await stored(recorder)).state == "sent"
    await again.accepted(SECOND, {"task_id": "second"})
    assert words(await stored(recorder)) == ("accepted", "second", ["first"])
    assert await recorder.store.find("sonic", "second")


async def test_a_word_of_the_second_task_before_its_answer_names_it_once(recorder: JobRecorder) -> None:
    """Told first by the webhook and then by the answer, it is no other task."""
    await lost(recorder)
    again = await sent_again(recorder)
    await recorder.adopt("k", SECOND)
    await again.accepted(SECOND, {})
    assert words(await stored(recorder)) == ("accepted", "second", [])


async def test_a_task_known_before_the_last_send_is_never_taken_for_it(recorder: JobRecorder) -> None:
    """The second send's outcome is unknown too: the first task's webhook says nothing of it."""
    await failed(recorder)
    again = await sent_again(recorder)
    await again.unknown("the connection dropped", None)
    await recorder.adopt("k", FIRST)
    assert (await stored(recorder)).state == "ambiguous"
    await recorder.adopt("k", SECOND)
    assert words(await stored(recorder)) == ("accepted", "second", ["first"])


async def test_a_refused_second_send_keeps_what_was_heard_meanwhile(recorder: JobRecorder) -> None:
    """It was not carried out, so the word that came was of the first."""
    await lost(recorder)
    again = await sent_again(recorder)
    await recorder.adopt("k", FIRST)
    await again.released()
    assert words(await stored(recorder)) == ("ambiguous", None, ["first"])


async def test_an_answer_wins_over_a_webhook_that_named_another_task(recorder: JobRecorder) -> None:
    """What the call itself was answered is what its key stands for; the other is kept."""
    entry = await sent(recorder)
    await recorder.adopt("k", FIRST)
    await entry.accepted(SECOND, {"task_id": "second"})
    job = await stored(recorder)
    assert words(job) == ("accepted", "second", ["first"])
    assert msgspec.json.decode(job.reply) == {"task_id": "second"}


async def test_an_answer_that_comes_after_a_later_send_was_accepted_is_kept_beside_it(
    recorder: JobRecorder,
) -> None:
    """The later decision stands; the task that was paid for before it is not forgotten."""
    slow = await sent(recorder)
    await recorder.store.change("k", transitions.recover(lambda _holder: False, 1.0))
    again = await sent_again(recorder)
    await again.accepted(SECOND, {})
    await slow.accepted(FIRST, {})
    assert words(await stored(recorder)) == ("accepted", "second", ["first"])


async def lost_job(recorder: JobRecorder, key: str) -> JobEntry:
    """A job of which nobody knows what became of it."""
    entry = recorder.record(key, "POST /sonic/create", BODY, "sonic", "create_music")
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
    """The first is taken back, also after its end; more of the same change nothing; somebody who knows decides."""
    for key in ("k", "l"):
        await lost_job(recorder, key)
    assert await recorder.adopt("k", FIRST)
    assert await recorder.adopt("k", FIRST)
    if ended:
        await recorder.store.change("k", transitions.ended(FIRST, "succeeded", None, "", 1.0))
    assert not await recorder.adopt("l", FIRST)
    for key in ("k", "l", "k"):
        assert await states_of(recorder) == {"k": ("ambiguous", None), "l": ("ambiguous", None)}
        assert "first" in (await stored(recorder)).why
        assert not await recorder.adopt(key, FIRST)
    assert not await recorder.store.find("sonic", "first")
    await recorder.resolve("k", FIRST)
    assert not await recorder.adopt("l", FIRST)
    assert await recorder.adopt("l", SECOND)
    assert await states_of(recorder) == {"k": ("accepted", "first"), "l": ("accepted", "second")}


async def test_two_processes_that_hear_one_task_for_two_jobs_at_once_settle_neither(store: JobStore) -> None:
    """Each looks again after it has written."""
    one, other = (JobRecorder(store, Clock(), "http://host") for _ in range(2))
    for _ in range(20):
        for key in ("k", "l"):
            await store.change(key, lambda _job: None)
            await lost_job(one, key)
        await asyncio.gather(one.adopt("k", FIRST), other.adopt("l", FIRST))
        assert await states_of(one) == {"k": ("ambiguous", None), "l": ("ambiguous", None)}


async def test_a_task_that_its_own_answer_named_stays_when_a_webhook_names_another_job(
    recorder: JobRecorder,
) -> None:
    """Before the webhook or after it: the answer to the call is certain."""
    entry = await sent(recorder)
    assert await recorder.adopt("k", FIRST)
    await entry.accepted(FIRST, {"task_id": "first"})
    await lost_job(recorder, "l")
    assert not await recorder.adopt("l", FIRST)
    assert await states_of(recorder) == {"k": ("accepted", "first"), "l": ("ambiguous", None)}


async def test_a_webhook_of_another_task_says_nothing_of_a_job_that_has_one(recorder: JobRecorder) -> None:
    """It is no claim either: the job that does hold that task keeps it."""
    await (await sent(recorder)).accepted(FIRST, {})
    await lost_job(recorder, "l")
    assert await recorder.adopt("l", SECOND)
    assert not await recorder.adopt("k", SECOND)
    assert await recorder.adopt("k", FIRST)
    assert await states_of(recorder) == {"k": ("accepted", "first"), "l": ("accepted", "second")}
