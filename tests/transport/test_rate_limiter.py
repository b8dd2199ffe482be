"""The limiter: exact rates, fair queues, and what refusals teach."""

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

from musicapi_async._transport.permits import Permit
from musicapi_async._transport.rate_limiter import DEFAULT_LANES, LaneLimits, MemoryLimiter
from musicapi_async._transport.rate_window import GUARD, Rate
from musicapi_async._transport.wait_reasons import Waits
from musicapi_async.clock import Clock
from musicapi_async.errors import RequestValidationError
from musicapi_async.testing.virtual import VirtualTimeLoop


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
    ("text", "rate"),
    [
        ("1/3s", Rate(1, 3.0)),
        ("20/10s", Rate(20, 10.0)),
        (" 5 / s ", Rate(5, 1.0)),
        ("100/min", Rate(100, 60.0)),
        ("7/1.5m", Rate(7, 90.0)),
        ("3/250ms", Rate(3, 0.25)),
        ("9/2h", Rate(9, 7200.0)),
    ],
)
def test_rates_are_read_from_text(text: str, rate: Rate) -> None:
    """A rate is written as count, slash, period and unit."""
    assert Rate.parse(text) == rate
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    "text", ["", "3", "/3s", "1/3", "0/3s", "-1/3s", "1/0s", "1/nan", "1/1e9s", "1/99h", "٣/3s", "1/3s" * 99]
)
def test_texts_that_are_no_rate_are_refused(text: str) -> None:
    """Anything else is a ValueError that says what a rate looks like or which limit it breaks."""
    with pytest.raises(ValueError, match="rate"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("count", "period"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, float("nan")), (1, float("inf"))]
)
def test_impossible_rates_are_refused(count: int, period: float) -> None:
    """Counts below one and periods that are not positive and finite are refused at construction."""
    with pytest.raises(ValueError, match="rate"):
        Rate(count, period)


def test_impossible_limits_are_refused() -> None:
    """No lane and no cap may be closed altogether."""
    with pytest.raises(ValueError, match="concurrency"):
        LaneLimits(0)
    with pytest.raises(ValueError, match="max_in_flight"):
        MemoryLimiter(max_in_flight=0)


def test_limits_of_an_unknown_lane_are_refused() -> None:
    """Else creates would go out at the documented rate, and not at the one that was meant."""
    with pytest.raises(RequestValidationError, match=r"lanes.*did you mean 'submit'\?\), got 'sumbit'"):
        MemoryLimiter({"sumbit": LaneLimits(16, Rate(20, 10.0))})
    wrong: Any
    for wrong in ({"submit": "20/10s"}, {1: LaneLimits(1)}, ["submit"], None):
        with pytest.raises(RequestValidationError, match="lanes"):
            MemoryLimiter(wrong)


def test_an_unknown_lane_is_named() -> None:
    """A misspelt lane is an error that lists the lanes."""

    async def main() -> None:
        with pytest.raises(ValueError, match=r"unknown lane 'sumbit'.*submit"):
            MemoryLimiter().slot("sumbit")

    run(main())


def test_creates_are_spaced_as_documented_by_default() -> None:
    """The submit lane starts one create per 3 s; the other lanes have no rate."""
    assert DEFAULT_LANES["submit"].rate == Rate(1, 3.0)
    assert [name for name, limits in DEFAULT_LANES.items() if limits.rate is None] == [
        "poll",
        "call",
        "media",
    ]


# --- the rate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [Rate(1, 3.0), Rate(20, 10.0), Rate(5, 1.0)])
@pytest.mark.parametrize("start", [0.0, 1e6 / 3])
def test_under_load_the_rate_is_kept_and_used(rate: Rate, start: float) -> None:
    """No window holds more starts than allowed, and at least 98 % of what is allowed is used."""
    limiter = MemoryLimiter({"submit": LaneLimits(16, rate)})
    windows = 60
    starts = run(starts_of(limiter, "submit", rate.count * windows, takes=0.01), start)
    assert largest_window(starts, rate.period) == rate.count
    used = (windows - 1) * rate.period / (starts[-rate.count] - starts[0])
    assert 0.98 <= used <= 1.0


def test_a_burst_up_to_the_count_starts_at_once() -> None:
    """A window that is empty is filled without waiting."""
    limiter = MemoryLimiter({"submit": LaneLimits(16, Rate(4, 10.0))})
    assert run(starts_of(limiter, "submit", 5)) == [0, 0, 0, 0, pytest.approx(10 * (1 + GUARD))]


def test_the_rate_survives_the_event_loop() -> None:
    """A second loop with the same limiter does not begin with a fresh allowance."""
    limiter = MemoryLimiter()
    first = run(starts_of(limiter, "submit", 2))
    second = run(starts_of(limiter, "submit", 2), start=first[-1] + 1)
    assert largest_window(first + second, 3.0) == 1


def test_slots_belong_to_their_loop() -> None:
    """A slot that a loop took with it is missing in no other one, and each loop finds its own again."""
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


def test_the_rate_counts_seconds_of_the_clock() -> None:
    """On a clock at speed 60 the intervals take a sixtieth of the loop's time."""
    limiter = MemoryLimiter(clock=Clock(60))
    starts = run(starts_of(limiter, "submit", 3))
    assert starts == [0, pytest.approx(0.05 * (1 + GUARD)), pytest.approx(0.1 * (1 + GUARD))]


def test_a_start_counts_even_if_the_request_fails() -> None:
    """An error inside the slot frees the slot and keeps the start."""
    limiter = MemoryLimiter({"submit": LaneLimits(1, Rate(1, 3.0))})

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


def test_slots_bound_what_is_under_way() -> None:
    """The third request of a lane with two slots starts when the first ends."""
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
    """After a refusal no one starts before the given time, those who already wait included."""
    limiter = MemoryLimiter({"submit": LaneLimits(16, Rate(1, 3.0))})

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
    limiter = MemoryLimiter({"submit": LaneLimits(16, Rate(1, 3.0))})

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
    limiter = MemoryLimiter({"submit": LaneLimits(64, Rate(10, 10.0))})

    async def main() -> list[float]:
        for _ in range(50):
            limiter.pause("submit", 0)
        return await starts_of(limiter, "submit", 3)

    assert run(main()) == [0, pytest.approx(1.25), pytest.approx(2.5)]


def test_successes_restore_the_configured_rate_and_no_more() -> None:
    """After ten seconds of success a cut rate is back, and the window is kept all the time."""
    rate = Rate(2, 1.0)
    limiter = MemoryLimiter({"submit": LaneLimits(64, rate)})
    starts: list[float] = []

    async def request() -> None:
        async with limiter.slot("submit"):
            starts.append(now())
        limiter.succeeded("submit")

    async def main() -> None:
        limiter.pause("submit", 0)
        await asyncio.gather(*(request() for _ in range(100)))

    run(main())
    assert largest_window(starts, rate.period) <= rate.count
    assert len([s for s in starts if s < 9]) < 2 * 9 * 0.95
    assert len([s for s in starts if 12 <= s < 32]) >= 2 * 20 * 0.98


def test_a_lane_without_a_rate_learns_one() -> None:
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


def test_a_learned_rate_grows_only_while_it_binds() -> None:
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
    rate=st.none() | st.builds(Rate, st.integers(1, 4), st.sampled_from([0.5, 3.0, 10.0])),
    concurrency=st.integers(1, 4),
    pauses=st.lists(st.tuples(times, times), max_size=4),
    succeed=st.booleans(),
)
def test_random_crowds_keep_every_promise(
    arrivals: list[Arrival],
    rate: Rate | None,
    concurrency: int,
    pauses: list[tuple[float, float]],
    succeed: bool,
) -> None:
    """Requests that come, leave or are refused: rate, slots and order are kept, and no one waits for ever."""
    limiter = MemoryLimiter({"submit": LaneLimits(concurrency, rate)})
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
    if rate is not None:
        assert largest_window(starts, rate.period) <= rate.count
    assert journal.most_inside <= concurrency
    assert order == [number for number in journal.queued if number in order]
    assert {n for n, arrival in enumerate(arrivals) if arrival.cancelled_after is None} <= set(order)
    for at, seconds in pauses:
        assert not [start for start in starts if at + 1e-6 < start < at + seconds - 1e-6]


def test_cancelled_waiter_costs_no_start() -> None:
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


# --- permits ----------------------------------------------------------------------------------------------


def test_tasks_in_flight_are_not_capped_by_default() -> None:
    """Without a cap no task needs a permit."""
    assert MemoryLimiter().permit() is None


async def acquired(limiter: MemoryLimiter) -> Permit:
    permit = limiter.permit()
    assert permit is not None
    await permit.acquire()
    return permit


def test_permit_is_held_until_released() -> None:
    """Waiters get permits in their order; a second release gives nothing away."""

    async def main() -> list[int]:
        limiter = MemoryLimiter(max_in_flight=2)
        held = [await acquired(limiter), await acquired(limiter)]
        admitted: list[int] = []

        async def submit(number: int) -> None:
            await acquired(limiter)
            admitted.append(number)

        waiting = [asyncio.create_task(submit(number)) for number in range(4)]
        await asyncio.sleep(1)
        assert admitted == []
        assert not limiter.permit().try_acquire()
        waiting[0].cancel()
        held[0].release()
        held[0].release()
        held[1].release()
        await asyncio.sleep(1)
        for task in waiting:
            task.cancel()
        return admitted

    assert run(main()) == [1, 2]


def test_permit_granted_with_a_cancellation_is_passed_on() -> None:
    """A waiter that is cancelled in the moment of its admission leaves the permit to the next."""

    async def main() -> None:
        limiter = MemoryLimiter(max_in_flight=1)
        permit = await acquired(limiter)
        first = asyncio.create_task(acquired(limiter))
        second = asyncio.create_task(acquired(limiter))
        await asyncio.sleep(0)
        permit.release()
        await asyncio.sleep(0)
        first.cancel()
        async with asyncio.timeout(1):
            (await second).release()

    run(main())


def test_permit_released_while_another_begins_to_wait_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may end in another thread just before a create queues for its permit."""

    async def main() -> None:
        limiter = MemoryLimiter(max_in_flight=1)
        permit, loop = await acquired(limiter), asyncio.get_running_loop()
        make = loop.create_future

        def release_first() -> asyncio.Future[Any]:
            permit.release()
            return make()

        monkeypatch.setattr(loop, "create_future", release_first)
        async with asyncio.timeout(1):
            await acquired(limiter)

    run(main())


def test_permit_outlives_its_loop() -> None:
    """A task that was submitted in one loop counts, and is released, in the next."""
    limiter = MemoryLimiter(max_in_flight=1)
    permit = run(acquired(limiter))

    async def second_loop() -> float:
        waiting = asyncio.create_task(acquired(limiter))
        await asyncio.sleep(5)
        assert not waiting.done()
        permit.release()
        await waiting
        return now()

    assert run(second_loop()) == 5


@pytest.mark.parametrize("late", [False, True])
def test_forgotten_permit_expires(late: bool) -> None:
    """A permit that is never given back lets the next in at its expiry, whenever that was set."""

    async def main() -> list[float]:
        clock = Clock(2)
        limiter = MemoryLimiter(clock=clock, max_in_flight=2)
        first, second = await acquired(limiter), await acquired(limiter)
        if not late:
            first.expire_at(clock.now() + 100)
        waiting = [asyncio.create_task(acquired(limiter)) for _ in range(2)]
        await clock.sleep(10)
        if late:
            first.expire_at(clock.now() + 90)
        second.expire_at(clock.now() + 190)
        granted: list[float] = []
        for create in waiting:
            await create
            granted.append(clock.now())
        first.release()  # expired already, so it frees nothing
        assert not limiter.permit().try_acquire()
        return granted

    assert run(main()) == [100, 200]


def test_expired_permit_is_free_without_a_waiter() -> None:
    """A permit whose expiry passed while no one waited is free at once, in a later loop too."""
    limiter = MemoryLimiter(max_in_flight=1)

    async def first_loop() -> None:
        (await acquired(limiter)).expire_at(50)

    run(first_loop())

    async def second_loop() -> float:
        await acquired(limiter)
        return now()

    assert run(second_loop(), start=60) == 60


# --- departures -------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 30), min_size=2, max_size=12),
    st.integers(1, 4),
    st.sampled_from([1, 4, 16]),
)
def test_no_window_holds_too_many_departures(handshakes: list[float], count: int, slots: int) -> None:
    """Whatever connecting takes, no window holds more requests that left than the rate allows."""

    async def main() -> list[float]:
        clock = Clock()
        limiter = MemoryLimiter({"submit": LaneLimits(slots, Rate(count, 3.0))}, clock)
        left: list[float] = []

        async def create(handshake: float) -> None:
            async with limiter.slot("submit") as slot:
                await asyncio.sleep(handshake)
                await slot.departing()
                left.append(clock.now())

        await asyncio.gather(*(create(handshake) for handshake in handshakes))
        return left

    left = run(main())
    assert len(left) == len(handshakes)
    assert all(left[n + count] - left[n] >= 3.0 for n in range(len(left) - count))


def test_equal_handshakes_cost_no_rate() -> None:
    """Where connecting always takes the same time, requests leave as often as the rate allows."""

    async def main() -> float:
        limiter = MemoryLimiter({"submit": LaneLimits(16, Rate(1, 3.0))})

        async def create() -> None:
            async with limiter.slot("submit") as slot:
                await asyncio.sleep(2.5)
                await slot.departing()

        await asyncio.gather(*(create() for _ in range(5)))
        return now()

    assert run(main()) == pytest.approx(2.5 + 4 * 3 * (1 + GUARD))


# --- reasons ----------------------------------------------------------------------------------------------


def test_long_waits_have_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    """A wait for the rate, a pause, a slot or a permit is logged after 5 s, and shown with its seconds."""
    caplog.set_level("INFO")

    async def main() -> dict[str, str]:
        clock = Clock(3)
        limiter = MemoryLimiter(
            {"submit": LaneLimits(16, Rate(1, 8.0)), "call": LaneLimits(1)}, clock, max_in_flight=1
        )
        texts: dict[str, str] = {}

        async def send(lane: str, takes: float) -> Waits:
            waits = Waits(clock, f"POST /{lane}")
            async with limiter.slot(lane, waits):
                await clock.sleep(takes)
            return waits

        _, rate = await asyncio.gather(send("submit", 0), send("submit", 0))
        texts["rate"] = str(rate)
        limiter.pause("poll", 12)
        texts["pause"] = str(await send("poll", 0))
        _, slot = await asyncio.gather(send("call", 6), send("call", 0))
        texts["slot"] = str(slot)
        permit = await acquired(limiter)
        waits = Waits(clock, "POST /sonic/create")
        waiting = asyncio.create_task(limiter.permit().acquire(waits))
        await clock.sleep(7)
        texts["permit"] = str(waits)
        permit.release()
        await waiting
        texts["short"] = str(await send("media", 0))
        return texts

    assert run(main()) == {
        "rate": "it waited 8.1 s for the rate limit (1/8s)",
        "pause": "it waited 12.0 s because the service refused the rate of requests",
        "slot": "it waited 6.0 s for other requests to end (1 requests at once)",
        "permit": "it waited 7.0 s for other tasks to end (max_in_flight=1)",
        "short": "",
    }
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "POST /submit",
        "POST /poll",
        "POST /call",
        "POST /sonic/create",
    ]


@pytest.mark.parametrize("speed", [1, 60])
def test_long_waits_are_those_of_the_client(caplog: pytest.LogCaptureFixture, speed: float) -> None:
    """A limiter that clients share may have a clock of another speed."""
    caplog.set_level("INFO")

    async def main() -> None:
        limiter = MemoryLimiter({"call": LaneLimits(1)}, Clock(60 / speed))
        clock = Clock(speed)

        async def send(call: str, takes: float) -> None:
            async with limiter.slot("call", Waits(clock, call)):
                await clock.sleep(takes)

        await asyncio.gather(send("", 4), send("short", 4), send("long", 0))

    run(main(), start=1000)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["long"]


# --- queues --------------------------------------------------------------------------------------------


def test_a_lane_has_long_queue_while_many_wait_for_their_start() -> None:
    """Two seconds' worth of waiting starts are a long queue; one is not, and a lane without a rate has none."""

    async def main() -> None:
        limiter = MemoryLimiter({"poll": LaneLimits(64, Rate(4, 1.0))})
        assert limiter.has_rate("poll")
        assert not limiter.has_rate("call")
        assert not limiter.has_long_queue("poll")
        few = asyncio.create_task(starts_of(limiter, "poll", 5))
        await asyncio.sleep(0.1)
        assert not limiter.has_long_queue("poll")
        await few
        many = asyncio.create_task(starts_of(limiter, "poll", 12))
        others = asyncio.create_task(starts_of(limiter, "call", 100, takes=1.0))
        await asyncio.sleep(0.1)
        assert limiter.has_long_queue("poll")
        assert not limiter.has_long_queue("call")
        await asyncio.gather(many, others)
        assert not limiter.has_long_queue("poll")

    run(main())


def test_cancelled_requests_are_not_in_the_queue() -> None:
    """Cancelled requests do not count as waiting."""

    async def main() -> None:
        limiter = MemoryLimiter({"poll": LaneLimits(8, Rate(1, 10.0))})
        many = asyncio.create_task(starts_of(limiter, "poll", 30))
        await asyncio.sleep(0.1)
        assert limiter.has_long_queue("poll")
        many.cancel()
        await asyncio.wait([many])
        assert not limiter.has_long_queue("poll")

    run(main())
