"""The cost of a poll under a cap, and the times of polls that follow from it."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedClient

from musicapi_async._transport.rate_limiter import LaneLimits, MemoryLimiter
from musicapi_async._transport.rate_window import Rate
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.retry import drawing
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import Clips, TaskUpdate
from musicapi_async.api.task import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.polling.schedule import (
    HIGHEST_COST,
    LOWEST_COST,
    POLL_COST,
    LearnedSchedule,
    PollCost,
)
from musicapi_async.polling.waiter import TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop

KIND = "sonic/create_music sonic-v6"


class Queue:
    """A queue in which polls wait while `queued` is set, and a clock."""

    def __init__(self) -> None:
        self.queued = False
        self.now = 0.0
        self.cost = PollCost(lambda: self.queued, lambda: self.now)

    def after(self, seconds: float, *, queued: bool) -> float:
        """Return the cost after that time, computed once a second."""
        self.queued = queued
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            found = self.cost()
        return found


def test_cost_follows_the_queue() -> None:
    """It rises while polls wait and falls while none does, and stays within its bounds."""
    queue = Queue()
    assert queue.after(1, queued=False) == LOWEST_COST
    some = queue.after(100, queued=True)
    assert LOWEST_COST < some < HIGHEST_COST
    assert queue.after(3600, queued=True) == HIGHEST_COST
    assert some < queue.after(100, queued=False) < HIGHEST_COST
    assert queue.after(3600, queued=False) == LOWEST_COST


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), max_size=50))
def test_no_clock_breaks_the_cost(steps: list[tuple[float, bool]]) -> None:
    """Whatever the clock does, a cost is between the lowest and the highest."""
    queue = Queue()
    for seconds, queued in steps:
        queue.now += seconds
        queue.queued = queued
        assert LOWEST_COST <= queue.cost() <= HIGHEST_COST


def test_hour_without_polls_raises_no_cost() -> None:
    """A queue that is found after a long silence raises the cost by a moment's worth only."""
    queue = Queue()
    queue.cost()
    queue.now, queue.queued = 3600.0, True
    assert queue.cost() < 2 * LOWEST_COST


def test_cheap_polls_come_sooner_and_not_below_the_floor() -> None:
    """The first poll is late at the usual cost, earlier while polls are unused, at the floor at the earliest."""
    queue = Queue()
    schedule = LearnedSchedule(poll_cost=queue.cost)
    cheap, usual = schedule.first(KIND), LearnedSchedule().first(KIND)
    assert 15 <= cheap < usual
    assert schedule.next(KIND, cheap, None) >= cheap + 15 - 1e-9
    queue.after(3600, queued=True)
    assert schedule.first(KIND) > usual, "and later while others wait"
    assert (
        LearnedSchedule().first(KIND)
        == LearnedSchedule(poll_cost=POLL_COST).first(KIND)
        == LearnedSchedule(poll_cost=lambda: POLL_COST).first(KIND)
    )


def watch(count: int, gap: float, *, rationed: bool) -> tuple[float, int, list[float]]:
    """Tasks of 30 to 300 s through waiter and limiter: mean lateness, polls, and waits for the first poll."""
    late: list[float] = []
    firsts: dict[str, float] = {}
    polls = 0

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = Clock()
        rng = Random(1)
        limiter = MemoryLimiter({"poll": LaneLimits(64, Rate(5, 1.0))}, clock)
        cost = PollCost(partial(limiter.has_long_queue, "poll"), clock.now) if rationed else POLL_COST
        ends: dict[str, float] = {}

        class Client(ScriptedClient):
            async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
                nonlocal polls
                async with limiter.slot("poll"):
                    now = loop.time()
                polls += 1
                firsts.setdefault(ref.task_id, now)
                if now < ends[ref.task_id]:
                    return PollResult(phase="running", update=TaskUpdate("running"))
                late.append(now - ends[ref.task_id])
                return PollResult(phase="done", update=TaskUpdate("succeeded", result=Clips((), None)))

        schedule = LearnedSchedule(poll_cost=cost, draw=drawing(rng))
        waiter = TaskWaiter(Client(), schedule, clock, drawing(Random(2)))

        async def song(number: int) -> None:
            await asyncio.sleep(number * gap)
            ends[str(number)] = loop.time() + rng.uniform(30, 300)
            await waiter.wait(TaskRef("sonic", str(number), "create_music", own=True), "all", 1e5)

        await asyncio.gather(*(song(number) for number in range(count)))
        await waiter.aclose()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    return sum(late) / len(late), polls, list(firsts.values())


def test_unused_polls_are_used() -> None:
    """With far more polls allowed than needed, ends are noticed sooner than at the usual cost."""
    capped = watch(200, 2.0, rationed=True)
    usual = watch(200, 2.0, rationed=False)
    assert capped[0] < usual[0]
    assert usual[1] < capped[1] < 200 * 20


def test_burst_is_served_from_the_first_moment() -> None:
    """The first polls of a burst begin while the cap is idle, and none waits for two rounds."""
    _, _, firsts = watch(300, 0.0, rationed=True)
    assert len(firsts) == 300
    assert 15 <= min(firsts) < 25
    assert max(firsts) < min(firsts) + 300 / 5 * 1.1
