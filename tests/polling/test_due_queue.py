"""The due queue: order, workers and timers, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async.api.families import polled_as
from musicapi_async.api.task import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.polling.due_queue import DUE_SLACK, MOST_STALE, DueQueue
from musicapi_async.polling.subscribers import Slot
from musicapi_async.testing.virtual import VirtualTimeLoop

SONG = polled_as("sonic", "create_music")


def slot(number: int) -> Slot:
    assert SONG is not None
    return Slot(("sonic", str(number)), TaskRef("sonic", str(number)), SONG, float(number))


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


class Polls:
    """Polls that take `takes` seconds; notes when each began, and how many ran at once."""

    def __init__(self, takes: float = 0.0) -> None:
        self.takes = takes
        self.began: list[tuple[str, float]] = []
        self.now = self.most = 0

    async def poll(self, slot: Slot) -> None:
        self.began.append((slot.ref.task_id, asyncio.get_running_loop().time()))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.takes:
                await asyncio.sleep(self.takes)
        finally:
            self.now -= 1
            slot.busy = False


def pending_timers() -> list[asyncio.TimerHandle]:
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [timer for timer in scheduled if not timer.cancelled()]


@given(
    st.lists(st.floats(0, 60), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.02, 3.0]),
    st.integers(1, 6),
)
def test_each_is_polled_once_in_order(dues: list[float], takes: float, concurrency: int) -> None:
    """Never early, never more at once than allowed, and at once when a worker is free."""

    async def main() -> None:
        polls = Polls(takes)
        queue = DueQueue(Clock(), polls.poll, concurrency)
        for number, due in enumerate(dues):
            queue.schedule(slot(number), due)
        await asyncio.sleep(60 + len(dues) * takes + 1)
        assert sorted(int(name) for name, _ in polls.began) == list(range(len(dues)))
        waits = [began - dues[int(name)] for name, began in polls.began]
        assert min(waits) >= -DUE_SLACK - 1e-9
        assert polls.most <= concurrency
        if concurrency >= len(dues) or not takes:
            assert max(waits) <= 2 * DUE_SLACK
        if concurrency == 1:
            order = [dues[int(name)] for name, _ in polls.began]
            late = [
                later for earlier, later in zip(order, order[1:], strict=False) if later < earlier - DUE_SLACK
            ]
            assert not late, "first due first served"

    run(main())


@pytest.mark.parametrize("takes", [0.0, 0.5])
async def test_outdated_entries_are_skipped(takes: float) -> None:
    """A slot that is moved is polled at its last due time only, and a removed one not at all."""
    polls = Polls(takes)
    queue = DueQueue(Clock(1000), polls.poll, 4)
    clock = Clock(1000)
    start = clock.now()
    moved, sooner, removed = slot(1), slot(2), slot(3)
    queue.schedule(moved, start + 10)
    queue.schedule(moved, start + 30)
    queue.schedule(sooner, start + 300)
    queue.schedule(sooner, start + 20)
    queue.schedule(removed, start + 5)
    queue.remove(removed, 2)
    while len(polls.began) < 2:
        await clock.sleep(50)
    await clock.sleep(400)
    assert sorted(name for name, _ in polls.began) == ["1", "2"]
    await queue.aclose()


def test_memory_is_bounded_by_the_waiting_slots() -> None:
    """However often slots are moved and removed, the heap holds few outdated entries."""

    async def main() -> None:
        rng = Random(1)
        queue = DueQueue(Clock(), Polls().poll, 4)
        slots = [slot(number) for number in range(2000)]
        for one in slots:
            queue.schedule(one, 1000 + rng.random())
        while slots:
            queue.remove(slots.pop(rng.randrange(len(slots))), len(slots))
            assert len(queue) <= 2 * len(slots) + MOST_STALE
        assert len(queue) == 0

    run(main())


@pytest.mark.parametrize("takes", [0.0, 2.0])
def test_empty_queue_has_no_worker_and_no_timer(takes: float) -> None:
    """Without anything scheduled there is no worker and no timer, so that a loop can end."""

    async def main() -> None:
        polls = Polls(takes)
        queue = DueQueue(Clock(), polls.poll, 8)
        slots = [slot(number) for number in range(20)]
        for one in slots:
            queue.schedule(one, 1.0)
        late = slot(99)
        queue.schedule(late, 500.0)
        await asyncio.sleep(100)
        assert len(polls.began) == 20
        queue.remove(late, 0)
        await asyncio.sleep(0.1)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert pending_timers() == []

    run(main())


@pytest.mark.parametrize("turns", range(4))
def test_cancelled_workers_are_replaced(turns: int) -> None:
    """To cancel all tasks of the loop, at any moment, stops no wait for good."""

    async def main() -> None:
        polls = Polls(1.0)
        queue = DueQueue(Clock(), polls.poll, 2)
        for number in range(6):
            queue.schedule(slot(number), 10.0 + number)
        await asyncio.sleep(10.0 - DUE_SLACK)
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(100)
        assert {name for name, _ in polls.began} >= {"1", "2", "3", "4", "5"}
        await queue.aclose()

    run(main())


def test_quick_polls_share_two_workers() -> None:
    """A thousand that are due together are served by two workers if polls do not wait."""

    async def main() -> None:
        polls = Polls()
        queue = DueQueue(Clock(), polls.poll, 64)
        for number in range(1000):
            queue.schedule(slot(number), 1.0)
        queue.schedule(slot(1000), 50.0)
        await asyncio.sleep(2)
        assert len(polls.began) == 1000
        assert len(asyncio.all_tasks()) <= 1 + 2
        await queue.aclose()
        assert pending_timers() == []

    run(main())


@pytest.mark.parametrize("count", [300, 2000])
@pytest.mark.parametrize("factory", [None, getattr(asyncio, "eager_task_factory", None)])  # from 3.12 on
def test_eager_tasks_change_nothing(factory: Any, count: int) -> None:
    """Where tasks begin at once, as services may set, every slot is polled, and no more at once than allowed."""
    polls = Polls(takes=1.0)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        queue = DueQueue(Clock(), polls.poll, 64)
        for number in range(count):
            queue.schedule(slot(number), 5.0)
        await asyncio.sleep(60 + count / 64)
        await queue.aclose()

    run(main())
    assert len(polls.began) == count
    assert polls.most == 64
