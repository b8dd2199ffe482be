"""The limiter: exact paces, fair queues, and what refusals teach."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicapi_async.clock import Clock
from musicapi_async.testing.virtual import VirtualTimeLoop
from musicapi_async.transport.limiter import DEFAULT_LANES, LaneLimits, MemoryLimiter
from musicapi_async.transport.pace import GUARD, Pace


def run(main: Coroutine[Any, Any, Any], start: float = 0.0) -> Any:
    with asyncio.Runner(loop_factory=partial(VirtualTimeLoop, start)) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def largest_window(starts: list[float], period: float) -> int:
    """The largest number of starts in any half-open window of a period."""
    return max((sum(1 for s in starts if a <= s < a + period) for a in starts), default=0)


async def starts_of(limiter: MemoryLimiter, lane: str, requests: int, takes: float = 0.0) -> list[float]:
    starts: list[float] = []

    async def request() -> None:
        async with limiter.slot(lane):
            starts.append(now())
            await asyncio.sleep(takes)

    await asyncio.gather(*(request() for _ in range(requests)))
    return starts


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pace"),
    [
        ("1/3s", Pace(1, 3.0)),
        ("20/10s", Pace(20, 10.0)),
        (" 5 / s ", Pace(5, 1.0)),
        ("100/min", Pace(100, 60.0)),
        ("7/1.5m", Pace(7, 90.0)),
        ("3/250ms", Pace(3, 0.25)),
        ("9/2h", Pace(9, 7200.0)),
    ],
)
def test_paces_are_read_from_text(text: str, pace: Pace) -> None:
    """A pace is written as count, slash, period and unit."""
    assert Pace.parse(text) == pace
    assert Pace.parse(str(pace)) == pace


@pytest.mark.parametrize(
    "text", ["", "3", "/3s", "1/3", "0/3s", "-1/3s", "1/0s", "1/nan", "1/1e9s", "1/99h", "٣/3s", "1/3s" * 99]
)
def test_texts_that_are_no_pace_are_refused(text: str) -> None:
    """Anything else is a ValueError that says what a pace looks like or which limit it breaks."""
    with pytest.raises(ValueError, match="pace"):
        Pace.parse(text)


@pytest.mark.parametrize(
    ("count", "period"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, float("nan")), (1, float("inf"))]
)
def test_impossible_paces_are_refused(count: int, period: float) -> None:
    """Counts below one and periods that are not positive and finite are refused at construction."""
    with pytest.raises(ValueError, match="pace"):
        Pace(count, period)


def test_impossible_limits_are_refused() -> None:
    """No lane and no cap may be closed altogether."""
    with pytest.raises(ValueError, match="concurrency"):
        LaneLimits(0)
    with pytest.raises(ValueError, match="in_flight"):
        MemoryLimiter(in_flight=0)


def test_an_unknown_lane_is_named() -> None:
    """A misspelt lane is an error that lists the lanes."""

    async def main() -> None:
        with pytest.raises(ValueError, match=r"unknown lane 'sumbit'.*submit"):
            MemoryLimiter().slot("sumbit")

    run(main())


def test_creates_are_paced_as_documented_by_default() -> None:
    """The submit lane starts one create per 3 s; the other lanes have no pace."""
    assert DEFAULT_LANES["submit"].pace == Pace(1, 3.0)
    assert [name for name, limits in DEFAULT_LANES.items() if limits.pace is None] == [
        "poll",
        "call",
        "media",
    ]


# --- the pace ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [Pace(1, 3.0), Pace(20, 10.0), Pace(5, 1.0)])
@pytest.mark.parametrize("start", [0.0, 1e6 / 3])
def test_under_load_the_pace_is_kept_and_used(pace: Pace, start: float) -> None:
    """No window holds more starts than allowed, and at least 98 % of what is allowed is used."""
    limiter = MemoryLimiter({"submit": LaneLimits(16, pace)})
    windows = 60
    starts = run(starts_of(limiter, "submit", pace.count * windows, takes=0.01), start)
    assert largest_window(starts, pace.period) == pace.count
    used = (windows - 1) * pace.period / (starts[-pace.count] - starts[0])
    assert 0.98 <= used <= 1.0


def test_a_burst_up_to_the_count_starts_at_once() -> None:
    """A window that is empty is filled without waiting."""
    limiter = MemoryLimiter({"submit": LaneLimits(16, Pace(4, 10.0))})
    assert run(starts_of(limiter, "submit", 5)) == [0, 0, 0, 0, pytest.approx(10 * (1 + GUARD))]


def test_the_pace_survives_the_event_loop() -> None:
    """A second loop with the same limiter does not begin with a fresh allowance."""
    limiter = MemoryLimiter()
    first = run(starts_of(limiter, "submit", 2))
    second = run(starts_of(limiter, "submit", 2), start=first[-1] + 1)
    assert largest_window(first + second, 3.0) == 1


def test_places_belong_to_their_loop() -> None:
    """A place that a loop took with it is missing in no other one, and each loop finds its own again."""
    limiter = MemoryLimiter({"call": LaneLimits(1)})

    async def hold() -> None:
        slot = limiter.slot("call")
        await slot.__aenter__()

    def is_free(runner: asyncio.Runner) -> bool:
        async def ask() -> bool:
            try:
                async with asyncio.timeout(1), limiter.slot("call"):
                    return True
            except TimeoutError:
                return False

        return runner.run(ask())

    with (
        asyncio.Runner(loop_factory=VirtualTimeLoop) as one,
        asyncio.Runner(loop_factory=VirtualTimeLoop) as two,
    ):
        one.run(hold())
        assert [is_free(two), is_free(one), is_free(two), is_free(one)] == [True, False, True, False]


def test_a_clock_that_begins_anew_delays_one_period_at_most() -> None:
    """Starts that lie in the future of a new loop count as of now."""
    limiter = MemoryLimiter()
    run(starts_of(limiter, "submit", 1), start=1e9)
    assert run(starts_of(limiter, "submit", 1)) == [pytest.approx(3 * (1 + GUARD))]


def test_the_pace_counts_seconds_of_the_clock() -> None:
    """On a clock at speed 60 the intervals take a sixtieth of the loop's time."""
    limiter = MemoryLimiter(clock=Clock(60))
    starts = run(starts_of(limiter, "submit", 3))
    assert starts == [0, pytest.approx(0.05 * (1 + GUARD)), pytest.approx(0.1 * (1 + GUARD))]


def test_a_start_counts_even_if_the_request_fails() -> None:
    """An error inside the slot frees the place and keeps the start."""
    limiter = MemoryLimiter({"submit": LaneLimits(1, Pace(1, 3.0))})

    async def main() -> float:
        with pytest.raises(OSError, match="refused"):
            async with limiter.slot("submit"):
                raise OSError("refused")
        async with limiter.slot("submit"):
            return now()

    assert run(main()) == pytest.approx(3 * (1 + GUARD))


def test_lanes_do_not_delay_each_other() -> None:
    """A thousand queued creates leave the other lanes free."""
    limiter = MemoryLimiter()

    async def main() -> float:
        creates = [asyncio.create_task(starts_of(limiter, "submit", 1)) for _ in range(1000)]
        await asyncio.sleep(1)
        await asyncio.gather(*(starts_of(limiter, lane, 3) for lane in ("poll", "call", "media")))
        for create in creates:
            create.cancel()
        await asyncio.gather(*creates, return_exceptions=True)
        return now()

    assert run(main()) == 1


def test_places_bound_what_is_under_way() -> None:
    """The third request of a lane with two places starts when the first ends."""
    limiter = MemoryLimiter({"media": LaneLimits(2)})
    assert run(starts_of(limiter, "media", 5, takes=10)) == [0, 0, 10, 10, 20]


def test_a_slot_may_be_left_in_another_task() -> None:
    """No cancel scope is involved, as fixtures and web frameworks need it."""
    limiter = MemoryLimiter({"call": LaneLimits(1)})

    async def main() -> None:
        slot = limiter.slot("call")
        await asyncio.create_task(slot.__aenter__())
        await asyncio.create_task(slot.__aexit__(None, None, None))
        async with asyncio.timeout(1), limiter.slot("call"):
            pass

    run(main())


# --- refusals ---------------------------------------------------------------------------------------------


def test_a_pause_stops_the_whole_lane() -> None:
    """After a refusal nobody starts before the given time, those who already wait included."""
    limiter = MemoryLimiter({"submit": LaneLimits(16, Pace(1, 3.0))})

    async def main() -> list[float]:
        async with limiter.slot("submit"):
            pass
        waiting = asyncio.create_task(starts_of(limiter, "submit", 2))
        await asyncio.sleep(1)
        limiter.pause("submit", 30)
        limiter.pause("submit", 5)
        return await waiting

    first, second = run(main())
    assert first == 31
    assert second - first == pytest.approx(3 / 0.8)


@pytest.mark.parametrize("seconds", [float("nan"), -5.0, 0.0])
def test_a_pause_without_sense_only_cuts(seconds: float) -> None:
    """A hostile Retry-After neither stops a lane for ever nor lets it run faster."""
    limiter = MemoryLimiter({"submit": LaneLimits(16, Pace(1, 3.0))})

    async def main() -> list[float]:
        limiter.pause("submit", seconds)
        return await starts_of(limiter, "submit", 2)

    assert run(main()) == [0, pytest.approx(3.75)]


def test_an_endless_pause_ends() -> None:
    """A pause of infinity lasts an hour."""
    limiter = MemoryLimiter()

    async def main() -> list[float]:
        limiter.pause("poll", float("inf"))
        return await starts_of(limiter, "poll", 1)

    assert run(main()) == [3600]


def test_refusals_of_one_second_cut_once() -> None:
    """Requests that were under way together count as one refusal."""
    limiter = MemoryLimiter({"submit": LaneLimits(64, Pace(10, 10.0))})

    async def main() -> list[float]:
        for _ in range(50):
            limiter.pause("submit", 0)
        return await starts_of(limiter, "submit", 3)

    assert run(main()) == [0, pytest.approx(1.25), pytest.approx(2.5)]


def test_successes_restore_the_configured_pace_and_no_more() -> None:
    """After ten seconds of success a cut rate is back, and the window is kept all the time."""
    pace = Pace(2, 1.0)
    limiter = MemoryLimiter({"submit": LaneLimits(64, pace)})
    starts: list[float] = []

    async def request() -> None:
        async with limiter.slot("submit"):
            starts.append(now())
        limiter.succeeded("submit")

    async def main() -> None:
        limiter.pause("submit", 0)
        await asyncio.gather(*(request() for _ in range(100)))

    run(main())
    assert largest_window(starts, pace.period) <= pace.count
    assert len([s for s in starts if s < 9]) < 2 * 9 * 0.95
    assert len([s for s in starts if 12 <= s < 32]) >= 2 * 20 * 0.98


def test_a_lane_without_a_pace_learns_one() -> None:
    """A refusal gives a lane the rate of its last seconds, less a fifth, evenly spread."""
    limiter = MemoryLimiter({"poll": LaneLimits(64)})

    async def main() -> list[float]:
        for _ in range(40):
            await starts_of(limiter, "poll", 1)
            await asyncio.sleep(0.25)
        limiter.pause("poll", 2)
        return await starts_of(limiter, "poll", 5)

    starts = run(main())
    assert starts[0] == 12
    assert [b - a for a, b in itertools.pairwise(starts)] == [pytest.approx(1 / (4 * 0.8))] * 4


def test_a_learned_pace_grows_only_while_it_binds() -> None:
    """Successes below the learned rate prove nothing; successes at it raise it."""

    def spacing(busy: bool) -> float:
        limiter = MemoryLimiter({"poll": LaneLimits(64)})

        async def request() -> None:
            await starts_of(limiter, "poll", 1)
            limiter.succeeded("poll")

        async def main() -> float:
            await starts_of(limiter, "poll", 10)
            limiter.pause("poll", 0)
            if busy:
                await asyncio.gather(*(request() for _ in range(300)))
            else:
                for _ in range(30):
                    await asyncio.sleep(1)
                    await request()
            await asyncio.sleep(5)
            first, second = await starts_of(limiter, "poll", 2)
            return second - first

        return run(main())

    assert spacing(busy=False) == pytest.approx(1 / 8)
    assert spacing(busy=True) < 1 / 12


def test_the_rate_never_falls_to_nothing() -> None:
    """However often a lane is refused, it tries about once a minute."""
    limiter = MemoryLimiter()

    async def main() -> list[float]:
        for _ in range(200):
            limiter.pause("poll", 0)
            await asyncio.sleep(1)
        return await starts_of(limiter, "poll", 2)

    first, second = run(main())
    assert second - first == pytest.approx(60)


# --- waiting and leaving, at random -----------------------------------------------------------------------


@dataclass
class Arrival:
    at: float
    takes: float
    cancelled_after: float | None


@dataclass
class Journal:
    queued: list[int] = field(default_factory=list)
    starts: list[tuple[float, int]] = field(default_factory=list)
    inside: int = 0
    most_inside: int = 0


times = st.floats(0, 20).map(lambda value: round(value, 2))
arrivals = st.lists(
    st.builds(Arrival, at=times, takes=times.map(lambda value: value / 4), cancelled_after=st.none() | times),
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(
    arrivals=arrivals,
    pace=st.none() | st.builds(Pace, st.integers(1, 4), st.sampled_from([0.5, 3.0, 10.0])),
    concurrency=st.integers(1, 4),
    pauses=st.lists(st.tuples(times, times), max_size=4),
    succeed=st.booleans(),
)
def test_random_crowds_keep_every_promise(
    arrivals: list[Arrival],
    pace: Pace | None,
    concurrency: int,
    pauses: list[tuple[float, float]],
    succeed: bool,
) -> None:
    """Whoever comes, leaves or is refused: pace, places and order are kept, and nobody waits for ever."""
    limiter = MemoryLimiter({"submit": LaneLimits(concurrency, pace)})
    journal = Journal()

    async def request(number: int, arrival: Arrival) -> None:
        journal.queued.append(number)
        async with limiter.slot("submit"):
            journal.starts.append((now(), number))
            journal.inside += 1
            journal.most_inside = max(journal.most_inside, journal.inside)
            try:
                await asyncio.sleep(arrival.takes)
            finally:
                journal.inside -= 1
        if succeed:
            limiter.succeeded("submit")

    async def arrive(number: int, arrival: Arrival) -> None:
        await asyncio.sleep(arrival.at)
        task = asyncio.create_task(request(number, arrival))
        if arrival.cancelled_after is not None:
            await asyncio.sleep(arrival.cancelled_after)
            task.cancel()
        await asyncio.wait([task])

    async def refuse(at: float, seconds: float) -> None:
        await asyncio.sleep(at)
        limiter.pause("submit", seconds)

    async def main() -> None:
        await asyncio.gather(
            *(arrive(number, arrival) for number, arrival in enumerate(arrivals)),
            *(refuse(at, seconds) for at, seconds in pauses),
        )
        await starts_of(limiter, "submit", concurrency + 1)  # nothing was lost or left locked

    run(main())
    starts = [start for start, _ in journal.starts]
    order = [number for _, number in journal.starts]
    if pace is not None:
        assert largest_window(starts, pace.period) <= pace.count
    assert journal.most_inside <= concurrency
    assert order == [number for number in journal.queued if number in order]
    assert {n for n, arrival in enumerate(arrivals) if arrival.cancelled_after is None} <= set(order)
    for at, seconds in pauses:
        assert not [start for start in starts if at + 1e-6 < start < at + seconds - 1e-6]


def test_a_cancelled_waiter_costs_nobody_a_start() -> None:
    """When the first of the queue leaves, the second starts at the time at which the first would have."""
    limiter = MemoryLimiter()

    async def main() -> float:
        async with limiter.slot("submit"):
            pass
        first = asyncio.create_task(starts_of(limiter, "submit", 1))
        second = asyncio.create_task(starts_of(limiter, "submit", 1))
        await asyncio.sleep(1)
        first.cancel()
        return (await second)[0]

    assert run(main()) == pytest.approx(3 * (1 + GUARD))


# --- tasks in flight --------------------------------------------------------------------------------------


def test_tasks_in_flight_are_not_capped_by_default() -> None:
    """Without a cap a place costs nothing and waits for nothing."""

    async def main() -> float:
        limiter = MemoryLimiter()
        places = [await limiter.reserve_task() for _ in range(1000)]
        for place in places:
            place.release()
        return now()

    assert run(main()) == 0


def test_a_place_in_flight_is_held_until_it_is_released() -> None:
    """Waiters get places in their order; a second release gives nothing away."""

    async def main() -> list[int]:
        limiter = MemoryLimiter(in_flight=2)
        held = [await limiter.reserve_task(), await limiter.reserve_task()]
        admitted: list[int] = []

        async def submit(number: int) -> None:
            await limiter.reserve_task()
            admitted.append(number)

        waiting = [asyncio.create_task(submit(number)) for number in range(4)]
        await asyncio.sleep(1)
        assert admitted == []
        waiting[0].cancel()
        held[0].release()
        held[0].release()
        held[1].release()
        await asyncio.sleep(1)
        for task in waiting:
            task.cancel()
        return admitted

    assert run(main()) == [1, 2]


def test_a_place_that_comes_with_the_cancellation_is_passed_on() -> None:
    """A waiter that is cancelled in the moment of its admission leaves the place to the next."""

    async def main() -> None:
        limiter = MemoryLimiter(in_flight=1)
        place = await limiter.reserve_task()
        first = asyncio.create_task(limiter.reserve_task())
        second = asyncio.create_task(limiter.reserve_task())
        await asyncio.sleep(0)
        place.release()
        await asyncio.sleep(0)
        first.cancel()
        async with asyncio.timeout(1):
            (await second).release()

    run(main())


def test_a_place_in_flight_outlives_its_loop() -> None:
    """A task that was submitted in one loop counts, and is released, in the next."""
    limiter = MemoryLimiter(in_flight=1)
    place = run(limiter.reserve_task())

    async def second_loop() -> float:
        waiting = asyncio.create_task(limiter.reserve_task())
        await asyncio.sleep(5)
        assert not waiting.done()
        place.release()
        await waiting
        return now()

    assert run(second_loop()) == 5


def test_a_start_counts_from_when_its_request_left() -> None:
    """A slow handshake before one request does not bring the next too close behind it."""

    async def main() -> list[float]:
        clock = Clock()
        limiter = MemoryLimiter({"submit": LaneLimits(16, Pace(1, 3.0))}, clock)
        left: list[float] = []

        async def create(handshake: float) -> None:
            async with limiter.slot("submit") as start:
                await asyncio.sleep(handshake)
                start.sent()
                left.append(clock.now())
                await asyncio.sleep(1)

        await asyncio.gather(*(create(handshake) for handshake in (2.5, 0.0, 1.0, 0.1, 4.0, 0.0)))
        return left

    left = run(main())
    assert all(later - earlier >= 3.0 for earlier, later in itertools.pairwise(sorted(left)[:4]))


@given(st.lists(st.floats(0, 3), min_size=2, max_size=12), st.integers(1, 4))
def test_no_window_holds_too_many_requests_that_left(handshakes: list[float], count: int) -> None:
    """Whatever connecting takes, as long as it is less than the period."""

    async def main() -> list[float]:
        clock = Clock()
        limiter = MemoryLimiter({"submit": LaneLimits(1, Pace(count, 3.0))}, clock)
        left: list[float] = []

        async def create(handshake: float) -> None:
            async with limiter.slot("submit") as start:
                await asyncio.sleep(handshake)
                start.sent()
                left.append(clock.now())

        await asyncio.gather(*(create(handshake) for handshake in handshakes))
        return left

    left = run(main())
    assert all(left[n + count] - left[n] >= 3.0 for n in range(len(left) - count))


# --- who waits --------------------------------------------------------------------------------------------


def test_a_lane_is_crowded_while_many_wait_for_their_start() -> None:
    """Two seconds' worth of starts that wait are a crowd; one that waits is none, nor is a lane without pace."""

    async def main() -> None:
        limiter = MemoryLimiter({"poll": LaneLimits(64, Pace(4, 1.0))})
        assert limiter.has_pace("poll")
        assert not limiter.has_pace("call")
        assert not limiter.is_crowded("poll")
        few = asyncio.create_task(starts_of(limiter, "poll", 5))
        await asyncio.sleep(0.1)
        assert not limiter.is_crowded("poll")
        await few
        many = asyncio.create_task(starts_of(limiter, "poll", 12))
        others = asyncio.create_task(starts_of(limiter, "call", 100, takes=1.0))
        await asyncio.sleep(0.1)
        assert limiter.is_crowded("poll")
        assert not limiter.is_crowded("call")
        await asyncio.gather(many, others)
        assert not limiter.is_crowded("poll")

    run(main())


def test_who_leaves_the_queue_is_no_crowd() -> None:
    """Cancelled requests do not count as waiting."""

    async def main() -> None:
        limiter = MemoryLimiter({"poll": LaneLimits(8, Pace(1, 10.0))})
        many = asyncio.create_task(starts_of(limiter, "poll", 30))
        await asyncio.sleep(0.1)
        assert limiter.is_crowded("poll")
        many.cancel()
        await asyncio.wait([many])
        assert not limiter.is_crowded("poll")

    run(main())
