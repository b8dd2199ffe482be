"""The protocol of a job store, the same for every kind of store."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from open_files import open_files
from patience import PATIENCE, until

from musicapi_async.api.task import TaskRef
from musicapi_async.errors import JobKeyConflictError
from musicapi_async.jobs import (
    Job,
    JobRequest,
    JobState,
    JobStore,
    JobTask,
    Owner,
    PostgresStore,
    SQLiteStore,
    reservation,
    transitions,
)

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


# --- the close --------------------------------------------------------------------------------------------


async def test_use_after_the_close_leaves_nothing_open(store: JobStore) -> None:
    """As by a paid call whose caller is gone: it is carried out, and what it has opened is closed after it."""
    before = open_files()
    await store.change("a", reserve("a"))
    await store.aclose()
    await asyncio.gather(*(store.change(key, reserve(key), durable=True) for key in "bcd"))
    assert open_files() <= before
    assert {key for key, _ in await keys(store)} >= {"b", "c", "d"}
    assert open_files() <= before


@pytest.mark.parametrize("place", ["sqlite", pytest.param("postgres", marks=pytest.mark.thorough)])
async def test_store_that_was_never_closed_is_closed_when_it_is_dropped(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Also where garbage collection finds it within a cycle; and nothing warns of its connection."""
    file = tmp_path / "jobs.sqlite"
    store = SQLiteStore(file) if place == "sqlite" else PostgresStore(request.getfixturevalue("address"))
    before = open_files()
    await store.change("a", reserve("a"))
    assert not open_files() <= before
    cycle: list[object] = [store]
    cycle.append(cycle)
    del store, cycle
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
        await until(lambda: open_files() <= before)
    assert not caught


COLLECTED = """
import asyncio, gc, sys
from concurrent.futures import ThreadPoolExecutor
from musicapi_async.jobs import SQLiteStore

class Name(str):
    def __str__(self):
        gc.collect()
        return "name"

async def main():
    store = SQLiteStore(sys.argv[1])
    await store.jobs()
    cycle = [store]
    cycle.append(cycle)

gc.disable()
asyncio.run(main())
ThreadPoolExecutor(1, thread_name_prefix=Name("name")).submit(print, "done").result()
"""


def test_store_is_collected_while_a_lock_of_thread_pools_is_held(tmp_path: Path) -> None:
    """A pool asks for its name under that lock; garbage collection comes there by chance."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COLLECTED, tmp_path / "jobs.sqlite"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


FORKED = """
import asyncio, gc, os, sys, threading
from musicapi_async.jobs import SQLiteStore

def opened():
    names = ((number, f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    return {number for number, name in names if os.path.exists(name) and "sqlite" in os.readlink(name)}

store, is_at_work, is_forked = SQLiteStore(sys.argv[1]), threading.Event(), threading.Event()

def transition(job):
    is_at_work.set()
    is_forked.wait()
    return job

dropped = SQLiteStore(sys.argv[1] + ".dropped")
asyncio.run(dropped.jobs())
changing = threading.Thread(target=lambda: asyncio.run(store.change("k", transition)))
changing.start()
is_at_work.wait()
before = opened()
if os.fork() == 0:
    asyncio.run(store.jobs())
    del dropped
    gc.collect()
    asyncio.run(store.aclose())
    print(len(before) > 1, before <= opened(), flush=True)
    os._exit(0)
os.wait()
is_forked.set()
changing.join()
asyncio.run(store.aclose())
asyncio.run(dropped.aclose())
"""


def test_forked_process_leaves_connections_of_its_parent_open(tmp_path: Path) -> None:
    """One that was at work, as SQLite would wait for a thread that the child does not have; and one of a store
    that is dropped, without a warning."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            FORKED,
            tmp_path / "jobs.sqlite",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True True\n", "")
