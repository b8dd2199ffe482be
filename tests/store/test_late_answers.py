"""A job that was sent more than once: which task its key stands for, and that no other is forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from musicapi_async.api.handle import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.store import Job, JobStore, states
from musicapi_async.store.ledger import JobRecording, Ledger

BODY = b'{"mv":"sonic-v6"}'
FIRST = TaskRef("sonic", "first", "create_music")
SECOND = TaskRef("sonic", "second", "create_music")


@pytest.fixture
def ledger(store: JobStore) -> Ledger:
    """What writes into the store."""
    return Ledger(store, Clock(), "http://host")


async def sent(ledger: Ledger) -> JobRecording:
    """The job 'k', which has left for the first time."""
    recording = ledger.record("k", "POST /sonic/create", BODY, "sonic", "create_music")
    assert recording is not None
    await recording.begin()
    await recording.leaving()
    return recording


async def sent_again(ledger: Ledger) -> JobRecording:
    """The job 'k', which has left once more because somebody decided so."""
    recording = ledger.again(await kept(ledger)).record("k", "POST /sonic/create", BODY)
    await recording.begin()
    await recording.leaving()
    return recording


async def kept(ledger: Ledger) -> Job:
    """The job 'k' as it is written down."""
    job = await ledger.store.get("k")
    assert job is not None
    return job


async def failed(ledger: Ledger) -> None:
    """The first task was accepted and failed."""
    await (await sent(ledger)).accepted(FIRST, {})
    await ledger.store.change("k", states.ended(FIRST, "failed", True, "no", 1.0))


async def lost(ledger: Ledger) -> None:
    """Nobody knows what became of the first send."""
    await (await sent(ledger)).unknown("the connection dropped", None)


def words(job: Job) -> tuple[str, str | None, list[str]]:
    """The state, the task the key stands for, and the others."""
    return job.state, job.task_id, [task.task_id for task in job.others]


@pytest.mark.parametrize("before", [failed, lost])
async def test_a_late_word_of_the_first_task_does_not_take_the_place_of_the_second(
    ledger: Ledger, before: Callable[[Ledger], Awaitable[None]]
) -> None:
    """The key stands for what was sent last; the first task stays known beside it."""
    await before(ledger)
    again = await sent_again(ledger)
    await ledger.adopt("k", FIRST)
    assert (await kept(ledger)).state == "sent"
    await again.accepted(SECOND, {"task_id": "second"})
    assert words(await kept(ledger)) == ("accepted", "second", ["first"])
    assert await ledger.store.find("sonic", "second")


async def test_a_word_of_the_second_task_before_its_answer_names_it_once(ledger: Ledger) -> None:
    """Told first by the webhook and then by the answer, it is no other task."""
    await lost(ledger)
    again = await sent_again(ledger)
    await ledger.adopt("k", SECOND)
    await again.accepted(SECOND, {})
    assert words(await kept(ledger)) == ("accepted", "second", [])


async def test_a_task_known_before_the_last_send_is_never_taken_for_it(ledger: Ledger) -> None:
    """The second send's outcome is unknown too: the first task's webhook says nothing of it."""
    await failed(ledger)
    again = await sent_again(ledger)
    await again.unknown("the connection dropped", None)
    await ledger.adopt("k", FIRST)
    assert (await kept(ledger)).state == "ambiguous"
    await ledger.adopt("k", SECOND)
    assert words(await kept(ledger)) == ("accepted", "second", ["first"])


async def test_a_refused_second_send_keeps_what_was_heard_meanwhile(ledger: Ledger) -> None:
    """It was not carried out, so the word that came was of the first."""
    await lost(ledger)
    again = await sent_again(ledger)
    await ledger.adopt("k", FIRST)
    await again.dropped()
    assert words(await kept(ledger)) == ("ambiguous", None, ["first"])


async def test_an_answer_wins_over_a_webhook_that_named_another_task(ledger: Ledger) -> None:
    """What the call itself was answered is what its key stands for; the other is kept."""
    recording = await sent(ledger)
    await ledger.adopt("k", FIRST)
    await recording.accepted(SECOND, {"task_id": "second"})
    job = await kept(ledger)
    assert words(job) == ("accepted", "second", ["first"])
    assert msgspec.json.decode(job.reply) == {"task_id": "second"}


async def test_an_answer_that_comes_after_a_later_send_was_accepted_is_kept_beside_it(ledger: Ledger) -> None:
    """The later decision stands; the task that was paid for before it is not forgotten."""
    slow = await sent(ledger)
    await ledger.store.change("k", states.recover(lambda _holder: False, 1.0))
    again = await sent_again(ledger)
    await again.accepted(SECOND, {})
    await slow.accepted(FIRST, {})
    assert words(await kept(ledger)) == ("accepted", "second", ["first"])
