"""The protocol of a job store, the same for every kind of store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
import pytest

from musicapi_async.api.task import TaskRef
from musicapi_async.errors import JobKeyConflictError
from musicapi_async.jobs import Job, JobRequest, JobState, JobStore, JobTask, Owner, reservation, transitions

REQUEST = JobRequest("POST /sonic/create", "http://host", '{"title":"a"}', "sonic", "create_music")
ME = Owner("host", "boot", 1, "1", "nonce")


def is_alive(_owner: Owner) -> bool:
    return True


def reserve(key: str, now: float = 1.0) -> transitions.Transition:
    return reservation.reserve(key, REQUEST, ME, is_alive, now)


@dataclass(frozen=True)
class Put:
    """A change that stores a job in a state, whatever was there."""

    key: str
    state: JobState = "accepted"
    task_ids: tuple[str, ...] = ()
    at: float = 1.0

    def __call__(self, _job: Job | None) -> Job:
        return Job(
            key=self.key,
            state=self.state,
            request=REQUEST,
            created_at=self.at,
            updated_at=self.at,
            tasks=tuple(JobTask(ref=TaskRef("sonic", task_id)) for task_id in self.task_ids),
        )


async def keys(store: JobStore, *states: JobState) -> list[tuple[str, str]]:
    """The keys and accounts of the jobs."""
    return [(job.key, job.account) for job in await store.jobs(*states)]


# --- accounts ---------------------------------------------------------------------------------------------


async def test_key_belongs_to_an_account(store: JobStore) -> None:
    """Named accounts have a row each, and each change finds its own."""
    for account in ("a", "b"):
        await store.change("k", reserve("k"), account=account)
        await store.change("k", transitions.sending(ME, 2.0, balance=ord(account)), account=account)
    assert await keys(store) == [("k", "a"), ("k", "b")]
    for account in ("a", "b"):
        job = await store.get("k", account=account)
        assert job is not None
        assert (job.account, job.balance_before) == (account, ord(account))
    assert await store.get("k", account="c") is None
    await store.change("k", lambda _job: None, account="a")
    assert await keys(store) == [("k", "b")]


@pytest.mark.parametrize(("stored", "asked"), [("", "a"), ("a", ""), ("", "key-0123456789abcdef")])
async def test_account_that_was_not_said_means_any(store: JobStore, stored: str, asked: str) -> None:
    """A row of a version without accounts, and a caller that names none, go by the key alone."""
    await store.change("k", reserve("k"), account=stored)
    job = await store.change("k", transitions.sending(ME, 2.0), account=asked)
    assert job is not None
    assert (job.state, job.account) == ("sent", stored)
    assert await store.get("k", account=asked) == job
    assert len(await store.jobs()) == 1


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("key-0123456789abcdef", "key-fedcba9876543210"),
        ("key-0123456789abcdef", "a"),
        ("a", "key-0123456789abcdef"),
    ],
)
async def test_account_that_may_be_the_same_is_refused(store: JobStore, stored: str, asked: str) -> None:
    """A key is not reserved beside that of a fingerprint; the row stays as it is."""
    before = await store.change("k", reserve("k"), account=stored)
    with pytest.raises(JobKeyConflictError, match=f"account='{stored}'"):
        await store.change("k", reserve("k"), account=asked)
    assert await store.jobs() == [before]


async def test_own_account_is_found_beside_others(store: JobStore) -> None:
    """Its own row stands for the key, whichever other accounts have one."""
    await store.change("k", reserve("k"), account="key-0123456789abcdef")
    await store.change("k", Put("k"), account="a")
    job = await store.change("k", reserve("k"), account="a")
    assert job is not None
    assert (job.account, job.state) == ("a", "accepted")


# --- several tasks ----------------------------------------------------------------------------------------


async def test_job_is_found_by_each_of_its_tasks(store: JobStore) -> None:
    """Of a batch, any task leads to the job; of what it no longer has, none."""
    await store.change("one", Put("one", task_ids=("x", "y"), at=1.0))
    await store.change("two", Put("two", task_ids=("y",), at=2.0))
    assert [job.key for job in await store.find("sonic", "x")] == ["one"]
    assert [job.key for job in await store.find("sonic", "y")] == ["one", "two"]
    assert await store.find("producer", "y") == []
    await store.change("one", Put("one", task_ids=("x", "z")))
    assert [job.key for job in await store.find("sonic", "y")] == ["two"]
    assert [job.key for job in await store.find("sonic", "z")] == ["one"]
    await store.change("one", lambda _job: None)
    assert await store.find("sonic", "z") == []


# --- purge ------------------------------------------------------------------------------------------------


async def test_purge_removes_old_settled_jobs_only(store: JobStore) -> None:
    """Finished and failed jobs go by their last change; what is open, unknown or to be fetched stays."""
    states: tuple[JobState, ...] = ("reserved", "sent", "accepted", "finished", "failed", "ambiguous")
    for state in states:
        for at in (1.0, 9.0):
            await store.change(f"{state}-{at:g}", Put(f"{state}-{at:g}", state, (f"{state}-{at:g}",), at))
    assert await store.purge(5.0) == 2
    left = {key for key, _ in await keys(store)}
    assert left == {f"{state}-{at}" for state in states for at in (1, 9)} - {"finished-1", "failed-1"}
    assert await store.find("sonic", "finished-1") == []
    assert await store.find("sonic", "finished-9")
    assert await store.purge(5.0) == 0


# --- claims -----------------------------------------------------------------------------------------------


async def test_marks_are_claimed_once_within_their_time(store: JobStore) -> None:
    """All or none of them; after the time, or after they were given back, they can be claimed again."""
    assert await store.claim(["a", "b"], now=0.0, seconds=10.0)
    assert not await store.claim(["b", "c"], now=5.0, seconds=10.0)
    assert await store.claim(["c"], now=5.0, seconds=10.0)
    assert await store.claim(["a"], now=10.0, seconds=10.0)
    await store.unclaim(["c", "unknown"])
    assert await store.claim(["c"], now=10.0, seconds=10.0)


async def test_one_of_many_claims_wins(store: JobStore) -> None:
    """Workers that receive the same delivery at once: one handles it."""
    outcomes = await asyncio.gather(*(store.claim(["a", str(n)], now=0.0, seconds=1.0) for n in range(9)))
    assert sorted(outcomes) == [False] * 8 + [True]


# --- durations --------------------------------------------------------------------------------------------


def added(number: int) -> transitions.Callable[[bytes | None], bytes]:
    """Adds a number to those that are stored."""
    return lambda state: msgspec.json.encode([*(msgspec.json.decode(state) if state else ()), number])


async def test_learned_durations_are_merged_and_none_is_lost(store: JobStore) -> None:
    """Each kind has a state of its own, and merges at the same time all count."""
    assert await store.durations() == {}
    await asyncio.gather(*(store.merge_durations("music", added(n)) for n in range(9)))
    assert await store.merge_durations("stems", added(1)) == b"[1]"
    states = await store.durations()
    assert set(states) == {"music", "stems"}
    assert sorted(msgspec.json.decode(states["music"])) == list(range(9))
