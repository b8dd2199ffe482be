"""Learned durations in a job store that several processes share."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Mapping
from itertools import count
from random import Random

import pytest
from test_schedule import STAGES, live, polls

from musicapi_async.clock import Clock
from musicapi_async.errors import JobStoreError
from musicapi_async.jobs import MemoryStore
from musicapi_async.jobs.store import Merge
from musicapi_async.polling.saved_durations import SavedDurations
from musicapi_async.polling.schedule import LearnedSchedule

KIND = "sonic/create_music sonic-v6"


class Process:
    """A client process with a schedule of its own, on a store that others share."""

    def __init__(self, store: MemoryStore, seed: int = 1) -> None:
        self.schedule = LearnedSchedule()
        self.saved = SavedDurations(self.schedule, store, Clock())
        self.rng = Random(seed)

    def work(self, count: int, seconds: float = 40.0) -> None:
        """Poll songs that are queued and then take some seconds of work."""
        for _ in range(count):
            queued = self.rng.expovariate(1 / 60)
            live(self.schedule, KIND, queued + self.rng.gauss(seconds, 3), queued)

    @property
    def ends(self) -> float:
        """Ends of tasks that the schedule remembers, by the age alone."""
        return sum(self.schedule.models[KIND].ages.counts.events)


async def test_processes_add_to_one_state() -> None:
    """What two processes have learned at the same time counts once each, however often they save."""
    store = MemoryStore()
    one, two, both = Process(store, 1), Process(store, 2), Process(store)
    for process in (one, two):
        await process.saved.load()
    for _ in range(4):
        one.work(5)
        two.work(5)
        await asyncio.gather(one.saved.save(), two.saved.save())
        await asyncio.gather(one.saved.save(), two.saved.save(), one.saved.load())
    await both.saved.load()
    assert both.ends == pytest.approx(sum(0.99**n for n in range(40)), rel=1e-3)
    await one.saved.load()
    assert one.ends == pytest.approx(both.ends, rel=1e-6)
    for stage in STAGES:
        assert polls(one.schedule, KIND, 6, stage) == pytest.approx(
            polls(both.schedule, KIND, 6, stage), abs=0.1
        )


async def test_process_alone_keeps_what_it_has_learned() -> None:
    """Saving and loading changes nothing in the times of a process that is alone."""
    store = MemoryStore()
    process, never = Process(store), Process(MemoryStore())
    for _ in range(10):
        process.work(7)
        never.work(7)
        await process.saved.save()
        await process.saved.load()
        assert process.ends == pytest.approx(never.ends, rel=1e-4)
    for stage in STAGES:
        assert polls(process.schedule, KIND, 3, stage) == pytest.approx(
            polls(never.schedule, KIND, 3, stage), rel=0.1
        )


class Failing(MemoryStore):
    """A store that fails while it is told to, or answers some time after it has made a change."""

    fails = False
    is_slow = False

    async def durations(self) -> Mapping[str, bytes]:
        if self.fails:
            raise JobStoreError("the disk is full")
        return await super().durations()

    async def merge_durations(self, kind: str, merge: Merge) -> bytes:
        if self.fails:
            raise JobStoreError("the disk is full")
        state = await super().merge_durations(kind, merge)
        if self.is_slow:
            await asyncio.sleep(0)
        return state


async def test_failing_store_costs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """What could not be saved is saved later, and counts once."""
    store = Failing()
    process, other = Process(store), Process(store)
    store.fails = True
    await process.saved.load()
    for _ in range(3):
        process.work(5)
        await process.saved.save()
    assert len(caplog.records) == 2, "one for reading, one for writing"
    store.fails = False
    await process.saved.save()
    await other.saved.load()
    assert other.ends == pytest.approx(sum(0.99**n for n in range(15)), rel=1e-3)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_slow_save_counts_once(cancelled: bool) -> None:
    """What is learned meanwhile is saved the next time; what a cancelled save has begun is not saved again."""
    store = Failing()
    process, other = Process(store), Process(store)
    process.work(5)
    store.is_slow = True
    saving = asyncio.ensure_future(process.saved.save())
    while not await store.durations():  # noqa: ASYNC110 - nothing notifies
        await asyncio.sleep(0)
    process.work(5)
    if cancelled:
        saving.cancel()
    await asyncio.wait([saving])
    store.is_slow = False
    await process.saved.save()
    await other.saved.load()
    assert other.ends == pytest.approx(sum(0.99**n for n in range(10)), rel=1e-3)
    assert process.ends == pytest.approx(other.ends, rel=1e-6)


async def test_forked_process_saves_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learned before a fork is saved by the parent, and not by the child, too."""
    store = MemoryStore()
    child, other = Process(store), Process(store)
    child.work(5)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    await child.saved.save()
    child.work(3)
    await child.saved.save()
    await other.saved.load()
    assert other.ends == pytest.approx(sum(0.99**n for n in range(3)), rel=1e-3)


async def test_saving_while_another_thread_learns_raises_nothing() -> None:
    """A client may be used in the loops of several threads, and its last one to close saves."""
    process = Process(MemoryStore())
    process.work(5)
    interval, has_ended = sys.getswitchinterval(), threading.Event()

    def learn() -> None:
        for number in count():
            process.schedule.first(f"{KIND}-{number}")
            if has_ended.is_set():
                return

    thread = threading.Thread(target=learn)
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for _ in range(3000):
            await process.saved.save()
    finally:
        has_ended.set()
        thread.join()
        sys.setswitchinterval(interval)
