"""What a client learned about durations is in its job store, for the next one. All in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from musicapi_async import JobStoreError, MusicAPI, SQLiteStore
from musicapi_async.jobs import MemoryStore
from musicapi_async.jobs.store import Merge
from musicapi_async.polling.schedule import LearnedSchedule
from musicapi_async.sandbox import Durations, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

KIND = "sonic/create_music sonic-v6"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


async def first_polls(client: MusicAPI, sandbox: Sandbox, count: int) -> list[float]:
    """Return the ages of songs at their first polls, in seconds of the sandbox."""
    rows = [{"mv": "sonic-v6", "gpt_description_prompt": f"song {n}"} for n in range(count)]
    created = await client.create_many(client.sonic.create_music, rows)
    tasks = [task for task in created if not isinstance(task, Exception)]
    await client.wait_all(tasks)
    entries = {
        task.task_id: [one.at for one in sandbox.journal if one.task_id == task.task_id] for task in tasks
    }
    return [times[1] - times[0] for times in entries.values()]


def quick_songs() -> Sandbox:
    """Return a sandbox whose songs take 30 s instead of the declared minutes."""
    return Sandbox(durations=Durations(song=(30.0, 0.0)), create_limit=None)


async def test_store_holds_what_was_learned(tmp_path: Path) -> None:
    """The next process with the same store polls the first song at once when such songs are done."""
    async with quick_songs() as sandbox:
        polled: list[float] = []
        for count in (40, 1):
            store = SQLiteStore(tmp_path / "jobs.sqlite")
            async with sandbox.client(store=store, rate_limit=None) as client:
                polled.append(min(await first_polls(client, sandbox, count)))
        assert polled[0] > 38 > polled[1]


async def test_client_without_store_begins_with_the_declared_times() -> None:
    """Nothing is kept of one that has no store, nor of one whose schedule is the caller's."""
    async with quick_songs() as sandbox:
        store = MemoryStore()
        async with sandbox.client(store=store, polling=LearnedSchedule(), rate_limit=None) as client:
            await first_polls(client, sandbox, 10)
        assert await store.durations() == {}
        for _ in range(2):
            async with sandbox.client(rate_limit=None) as client:
                assert min(await first_polls(client, sandbox, 1)) > 38


async def test_damaged_durations_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is in their place is one line of the log, and replaced by what is learned now."""
    store = MemoryStore()
    damaged = [b"", b"null", b"{", b"\xff", b'{"version": 1, "stages": {}}', b"[" * 5000]
    for number, state in enumerate(damaged):
        await store.merge_durations(f"kind {number}", lambda _, state=state: state)
    await store.merge_durations(KIND, lambda _: b"{}")
    async with quick_songs() as sandbox:
        with caplog.at_level(logging.WARNING, "musicapi_async"):
            async with sandbox.client(store=store, rate_limit=None) as client:
                assert min(await first_polls(client, sandbox, 10)) > 38
            assert [record.message.split(": ")[1] for record in caplog.records] == [
                "a state in the job store is damaged or of another version"
            ]
        async with sandbox.client(store=store, rate_limit=None) as client:
            assert min(await first_polls(client, sandbox, 1)) < 38


async def test_foreign_rows_spoil_no_others(tmp_path: Path) -> None:
    """A row that another program wrote, as text, number or bytes, leaves the other kinds as they are."""
    path = tmp_path / "jobs.sqlite"
    async with quick_songs() as sandbox:
        async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
            await first_polls(client, sandbox, 20)
        with sqlite3.connect(path) as database:
            foreign = [("text", "état"), ("number", 5), ("", b"{}")]
            database.executemany("INSERT INTO durations VALUES (?, ?)", foreign)
            for kind in ("x'61FF'", "CAST(x'61FF' AS TEXT)"):
                database.execute(f"INSERT INTO durations SELECT {kind}, state FROM durations LIMIT 1")
        database.close()
        async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
            assert min(await first_polls(client, sandbox, 1)) < 38
        with sqlite3.connect(path) as database:
            database.execute("UPDATE durations SET state = 'text' WHERE kind = ?", (KIND,))
        database.close()
        async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
            await first_polls(client, sandbox, 20)
        async with sandbox.client(store=SQLiteStore(path), rate_limit=None) as client:
            assert min(await first_polls(client, sandbox, 1)) < 38, "what was foreign is replaced"


class SlowStore(MemoryStore):
    """A store that takes long over learned durations, and over nothing else."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def durations(self) -> Mapping[str, bytes]:
        await asyncio.sleep(self.seconds)
        return await super().durations()

    async def merge_durations(self, kind: str, merge: Merge) -> bytes:
        await asyncio.sleep(self.seconds)
        return await super().merge_durations(kind, merge)


@pytest.mark.parametrize(("seconds", "waited"), [(1.0, 1.0), (1000.0, 2.0)])
async def test_slow_store_holds_up_a_client_for_seconds(
    seconds: float, waited: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither entering nor closing waits for learned durations any longer, and no job is said to be lost."""
    store, loop, tasks = SlowStore(seconds), asyncio.get_running_loop(), asyncio.all_tasks()
    times = [loop.time()]
    async with quick_songs() as sandbox:
        async with sandbox.client(store=store, rate_limit=None) as client:
            times.append(loop.time())
            await first_polls(client, sandbox, 3)
            await asyncio.sleep(60)
            await first_polls(client, sandbox, 1)  # time to save, which takes longer than the last song
            times.append(loop.time())
        times.append(loop.time())
    assert times[1] - times[0] == pytest.approx(waited, abs=0.1)
    assert times[3] - times[2] == pytest.approx(waited, abs=0.1)
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
    assert asyncio.all_tasks() == tasks, "and nothing remains to be done"


class LockedStore(MemoryStore):
    """A store that cannot save what was learned, and says each time since when."""

    failures = 0

    async def merge_durations(self, kind: str, merge: Merge) -> bytes:
        self.failures += 1
        raise JobStoreError(f"locked for {30 + self.failures} s")


async def test_store_that_fails_each_time_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often it is tried, and whatever the errors say."""
    store = LockedStore()
    async with quick_songs() as sandbox, sandbox.client(store=store, rate_limit=None) as client:
        for _ in range(4):
            await asyncio.sleep(60)
            await first_polls(client, sandbox, 1)
    assert store.failures >= 4
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        "locked for 31 s. Repair the job store, or use another one."
    ]


class CountingStore(SlowStore):
    """A slow store that counts how often it was closed."""

    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


async def test_cancelled_entry_closes_what_was_opened(recwarn: pytest.WarningsRecorder) -> None:
    """A client whose entry was cancelled, so that it is never left, keeps no store open, and nothing warns."""
    store = CountingStore(1.0)
    async with quick_songs() as sandbox:
        client = sandbox.client(store=store)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), client:
                raise AssertionError("it was entered")
        assert store.closed == 1
        async with client:
            assert (await client.credits()).total > 0, "it can be entered later"
        assert store.closed == 2
        del client
    assert not [str(warning.message) for warning in recwarn if "never closed" in str(warning.message)]


async def test_states_without_end_are_not_all_read(caplog: pytest.LogCaptureFixture) -> None:
    """A client begins with as many kinds as it remembers, and ignores a state larger than any that it writes."""
    async with quick_songs() as sandbox:
        store = MemoryStore()
        async with sandbox.client(store=store, rate_limit=None) as client:
            await first_polls(client, sandbox, 20)
        learned = (await store.durations())[KIND]
        large = learned.replace(b"{", b"{" + b" " * 20_000, 1)
        await store.merge_durations(KIND, lambda _: large)
        for number in range(300):
            await store.merge_durations(f"{KIND}-{number}", lambda _: learned)
        with caplog.at_level(logging.WARNING, "musicapi_async"):
            async with sandbox.client(store=store, rate_limit=None) as client:
                assert min(await first_polls(client, sandbox, 1)) > 38
    assert [record.message.split(": ")[1] for record in caplog.records] == [
        "a state in the job store is damaged or of another version"
    ]


async def test_clients_at_once_add_to_one_store(tmp_path: Path) -> None:
    """Two clients with the same file each add what they have learned, also while they run."""
    async with quick_songs() as sandbox:
        stores = [SQLiteStore(tmp_path / "jobs.sqlite") for _ in range(3)]
        async with (
            sandbox.client(store=stores[0], rate_limit=None) as one,
            sandbox.client(store=stores[1], rate_limit=None) as two,
        ):
            for _ in range(2):
                await asyncio.gather(first_polls(one, sandbox, 6), first_polls(two, sandbox, 6))
                await asyncio.sleep(60)
            await first_polls(one, sandbox, 1)
            assert 12 < ends_in(await stores[2].durations()) < 23, "saved while they run"
        assert ends_in(await stores[2].durations()) == pytest.approx(
            sum(0.99**n for n in range(25)), rel=1e-3
        )
        await stores[2].aclose()


def ends_in(states: Mapping[str, bytes]) -> float:
    """Return the ends of songs in the stored states."""
    return sum(json.loads(states[KIND])["stages"]["submitted"]["events"])
