"""What a poll is worth under a cap, and what follows for when looks come."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from musicapi_async._transport.rate import Rate
from musicapi_async._transport.rate_limiter import LaneLimits, MemoryLimiter
from musicapi_async._wire.looks import Seen
from musicapi_async._wire.retry import drawing
from musicapi_async.api.families import polled_as
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import Clips, TaskUpdate
from musicapi_async.api.task import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.polling.price import CHEAPEST, DEAREST, PRICE, ShadowPrice
from musicapi_async.polling.schedule import Learned
from musicapi_async.polling.waiter import TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop

KIND = "sonic/create_music sonic-v6"


class Queue:
    """A queue of which it is told whether it is crowded, and a clock."""

    def __init__(self) -> None:
        self.crowded = False
        self.now = 0.0
        self.price = ShadowPrice(lambda: self.crowded, lambda: self.now)

    def after(self, seconds: float, *, crowded: bool) -> float:
        """The price after that time, if it is asked for once a second."""
        self.crowded = crowded
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            found = self.price()
        return found


def test_the_price_follows_the_queue() -> None:
    """It rises while looks wait and falls while none does, and stays within its bounds."""
    queue = Queue()
    assert queue.after(1, crowded=False) == CHEAPEST
    some = queue.after(100, crowded=True)
    assert CHEAPEST < some < DEAREST
    assert queue.after(3600, crowded=True) == DEAREST
    assert some < queue.after(100, crowded=False) < DEAREST
    assert queue.after(3600, crowded=False) == CHEAPEST


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), max_size=50))
def test_no_clock_breaks_the_price(steps: list[tuple[float, bool]]) -> None:
    """Whatever the clock does, a price is between the cheapest and the dearest."""
    queue = Queue()
    for seconds, crowded in steps:
        queue.now += seconds
        queue.crowded = crowded
        assert CHEAPEST <= queue.price() <= DEAREST


def test_an_hour_without_looks_says_nothing_of_a_queue() -> None:
    """A queue that is seen after a long silence raises the price by a moment's worth only."""
    queue = Queue()
    queue.price()
    queue.now, queue.crowded = 3600.0, True
    assert queue.price() < 2 * CHEAPEST


def test_a_cheap_poll_comes_sooner_and_never_below_the_floor() -> None:
    """The first look is late at the usual price, earlier when polls are left, at the floor at the earliest."""
    queue = Queue()
    policy = Learned(price=queue.price)
    cheap, usual = policy.first(KIND), Learned().first(KIND)
    assert 15 <= cheap < usual
    assert policy.next(KIND, cheap) >= cheap + 15 - 1e-9
    queue.after(3600, crowded=True)
    assert policy.first(KIND) > usual, "and later while others wait"
    assert (
        Learned().first(KIND) == Learned(price=PRICE).first(KIND) == Learned(price=lambda: PRICE).first(KIND)
    )


def watch(count: int, gap: float, *, rationed: bool) -> tuple[float, int, list[float]]:
    """Tasks of 30 to 300 s through waiter and limiter: mean lateness, polls, and waits for the first look."""
    late: list[float] = []
    firsts: dict[str, float] = {}
    polls = 0

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = Clock()
        rng = Random(1)
        limiter = MemoryLimiter({"poll": LaneLimits(64, Rate(5, 1.0))}, clock)
        polled = polled_as("sonic", "create_music")
        assert polled is not None
        price = ShadowPrice(partial(limiter.has_long_queue, "poll"), clock.now) if rationed else PRICE
        ends: dict[str, float] = {}

        async def look(ref: TaskRef, _polled: Polled) -> Seen:
            nonlocal polls
            async with limiter.slot("poll"):
                now = loop.time()
            polls += 1
            firsts.setdefault(ref.task_id, now)
            if now < ends[ref.task_id]:
                return Seen(phase="running", update=TaskUpdate("running"))
            late.append(now - ends[ref.task_id])
            return Seen(phase="done", update=TaskUpdate("succeeded", result=Clips((), None)))

        waiter = TaskWaiter(
            look, Learned(price=price, draw=drawing(rng)), clock, drawing(Random(2)), lambda _ref: polled
        )

        async def song(number: int) -> None:
            await asyncio.sleep(number * gap)
            ends[str(number)] = loop.time() + rng.uniform(30, 300)
            await waiter.wait(TaskRef("sonic", str(number), "create_music", own=True), "all", 1e5)

        await asyncio.gather(*(song(number) for number in range(count)))
        await waiter.aclose()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    return sum(late) / len(late), polls, list(firsts.values())


def test_polls_that_are_left_over_are_used() -> None:
    """With far more polls allowed than needed, ends are noticed sooner than at the usual price."""
    capped = watch(200, 2.0, rationed=True)
    usual = watch(200, 2.0, rationed=False)
    assert capped[0] < usual[0]
    assert usual[1] < capped[1] < 200 * 20


def test_a_burst_is_served_in_turn_from_the_first_moment_on() -> None:
    """The first looks of a burst begin while the cap is idle, and nobody waits for two rounds."""
    _, _, firsts = watch(300, 0.0, rationed=True)
    assert len(firsts) == 300
    assert 15 <= min(firsts) < 25
    assert max(firsts) < min(firsts) + 300 / 5 * 1.1
