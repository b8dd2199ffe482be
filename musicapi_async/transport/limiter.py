"""Keeping under the account's limits: one limiter for everything that a client sends.

What the limits are
-------------------
The service documents one number: standard accounts may send one creating request per 3 seconds. Nothing is
documented about requests at once, about polling, or about what happens to a request above the limit; rate
headers and `Retry-After` were never reported. Two refusals are known besides HTTP 429: a 403 that says
"QPS limit" and one that says "Queue is full". So one limit is known and has to be kept exactly, and the
others, if they exist, can only be learned by hitting them.

Lanes
-----
Requests queue in lanes: `submit` (creates, which charge), `poll` (is it done?), `call` (direct tools and
the balance) and `media` (downloads). A lane has its own queue, its own places and its own pace, and nothing
is shared between lanes. That is the fairness between them: a thousand queued creates do not delay one poll,
and a slow download does not delay a create. Within a lane it is first come, first served. When the next
start of a lane may be is arithmetic, and stands in `pace.py`.

Loops, threads, cancellation
----------------------------
A limiter may be created outside any loop and used by one loop after the other. Queues and places belong to
a loop, as their waiters do; the history of starts belongs to the account, so a second `asyncio.run` does
not begin with a fresh allowance. Two loops in two threads share the history safely, without an order
between their queues. A cancelled waiter leaves the queue at once and costs nobody a start. No cancel scope
is involved, so a slot may be left in another task than it was entered in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType, TracebackType
from typing import Final, Protocol
from weakref import WeakKeyDictionary, ref

import msgspec

from musicapi_async.clock import Clock
from musicapi_async.transport.in_flight import FREE, InFlight, Place
from musicapi_async.transport.pace import LaneState, Pace

CROWD: Final = 0.5
"""Seconds of starts that wait before a lane counts as crowded: less is bunching (benchmarks/under_cap.py)."""


class LaneLimits(msgspec.Struct, frozen=True):
    """How many requests of a lane may be under way at once, and how many may start per time (None: any)."""

    concurrency: int
    pace: Pace | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"lane: concurrency must be at least 1, got {self.concurrency!r}")


DEFAULT_LANES: Final[Mapping[str, LaneLimits]] = MappingProxyType(
    {
        # The pace is the documented create rate of standard accounts. A create answers within seconds, so
        # 16 places are never what slows it; they bound what a stuck server can pile up.
        "submit": LaneLimits(16, Pace(1, 3.0)),
        # As many places as the connection pool has: a queue here is cheaper than one in the pool.
        "poll": LaneLimits(64),
        "call": LaneLimits(16),
        "media": LaneLimits(4),
    }
)


class Start(Protocol):
    """The start of one request."""

    def sent(self) -> None:
        """The request leaves now: connecting took its time, and the server will count from here."""
        ...


class RateLimiter(Protocol):
    """Decides when a request may start. `MemoryLimiter` serves one process."""

    def slot(self, lane: str) -> AbstractAsyncContextManager[Start]:
        """Wait, first come first served, for a place and a start; hold the place until exit.

        One start is counted on entry, whatever happens inside; `Start.sent` moves it to the request's leave.
        """
        ...

    def pause(self, lane: str, seconds: float) -> None:
        """A request was refused for its rate: nothing of the lane starts for `seconds`, then fewer do."""
        ...

    def succeeded(self, lane: str) -> None:
        """A request was not refused: let the pace of the lane recover a little."""
        ...

    async def reserve_task(self) -> Place:
        """Wait for a place among the tasks in flight; release it when the task is terminal."""
        ...


class _Gate:
    """The places of a lane in one event loop, and the queue of those who have one and wait for their start.

    Both are first come, first served.
    """

    __slots__ = ("free", "lane", "queue", "turn", "waiting")

    def __init__(self, lane: LaneState, concurrency: int) -> None:
        self.lane: Final = lane
        self.free = concurrency
        self.queue: Final[deque[asyncio.Future[None]]] = deque()
        self.turn: Final = asyncio.Lock()  # only its holder asks for a start
        self.waiting = 0  # holders of a place without a start

    @property
    def crowd(self) -> int:
        """How many wait for a place or for their start."""
        return self.waiting + len(self.queue)

    async def wait_for_place(self) -> None:
        """Wait until somebody hands a place over."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.append(place)
        try:
            await place
        except BaseException:
            if not place.cancelled():  # it came together with the cancellation
                self.release()
            elif place in self.queue:
                self.queue.remove(place)
            raise

    def release(self) -> None:
        """Hand the place to the first in the queue; it is free only if there is none."""
        while self.queue:
            place = self.queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.free += 1


class _Slot:
    """The context manager of `MemoryLimiter.slot`; a class, because a generator costs each poll 2 µs more."""

    __slots__ = ("_clock", "_gate", "_started")

    def __init__(self, gate: _Gate, clock: Clock) -> None:
        self._gate: Final = gate
        self._clock: Final = clock
        self._started = 0.0

    def sent(self) -> None:
        """See `Start.sent`."""
        now = self._clock.now()
        self._gate.lane.moved(self._started, now)
        self._started = now

    async def __aenter__(self) -> Start:
        gate = self._gate
        if gate.free:
            gate.free -= 1
        else:
            await gate.wait_for_place()
        self._started = self._clock.now()
        if not gate.waiting and gate.lane.claim(self._started) <= 0:
            return self
        gate.waiting += 1
        try:
            async with gate.turn:
                self._started = self._clock.now()
                while (wait := gate.lane.claim(self._started)) > 0:
                    await self._clock.sleep(wait)
                    self._started = self._clock.now()
        except BaseException:
            gate.release()
            raise
        finally:
            gate.waiting -= 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gate.release()


def _no_loop() -> None:
    """Like a weak reference whose loop has gone."""


class MemoryLimiter:
    """A `RateLimiter` for one process.

    `lanes` are added to `DEFAULT_LANES` and replace those of the same name. `in_flight` caps the tasks that
    are submitted but not terminal (None: no cap). Raises `ValueError` for an `in_flight` below 1.

        limiter = MemoryLimiter({"submit": LaneLimits(16, Pace.parse("20/10s"))})
        async with limiter.slot("submit"):
            ...  # send the request
    """

    def __init__(
        self,
        lanes: Mapping[str, LaneLimits] = DEFAULT_LANES,
        clock: Clock | None = None,
        *,
        in_flight: int | None = None,
    ) -> None:
        if in_flight is not None and in_flight < 1:
            raise ValueError(f"in_flight must be at least 1 or None, got {in_flight!r}")
        self._clock: Final = clock or Clock()
        self._limits: Final = {**DEFAULT_LANES, **lanes}
        self._lanes: Final = {name: LaneState(limits.pace) for name, limits in self._limits.items()}
        self._gates: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Gate]]] = (
            WeakKeyDictionary()
        )
        # The gates of the loop that asked last: nearly always the same one, and a weak dictionary is slow.
        self._here: tuple[Callable[[], asyncio.AbstractEventLoop | None], dict[str, _Gate]] = (_no_loop, {})
        self._in_flight: Final = None if in_flight is None else InFlight(in_flight)

    def slot(self, lane: str) -> AbstractAsyncContextManager[Start]:
        """Wait for a place and a start in `lane`; see `RateLimiter.slot`. Needs a running loop."""
        return _Slot(self._gate(lane), self._clock)

    def pause(self, lane: str, seconds: float) -> None:
        """A refusal: stop `lane` for `seconds`, capped at `LONGEST_PAUSE`, and cut its rate.

        Not a number and negative values count as 0. A running pause is never shortened.
        """
        self._lane(lane).pause(self._clock.now(), seconds)

    def succeeded(self, lane: str) -> None:
        """Let the rate of `lane` recover; free when it was never cut."""
        state = self._lane(lane)
        if state.is_cut:
            state.succeeded(self._clock.now())

    def has_pace(self, lane: str) -> bool:
        """Whether a pace was set for `lane`; one that refusals have taught it does not count."""
        self._lane(lane)
        return self._limits[lane].pace is not None

    def is_crowded(self, lane: str) -> bool:
        """Whether more wait than may start in `CROWD` seconds, or than an eighth of the places.

        Never so without a pace. Needs a running loop.
        """
        limits = self._limits[lane]
        if limits.pace is None:
            return False
        return self._gate(lane).crowd > min(limits.pace.rate * CROWD, limits.concurrency / 8)

    async def reserve_task(self) -> Place:
        """Wait, first come first served, for a place among the tasks in flight.

        Without a cap it returns at once. The place may be released in another task, loop or thread.
        """
        return FREE if self._in_flight is None else await self._in_flight.reserve()

    def _lane(self, lane: str) -> LaneState:
        state = self._lanes.get(lane)
        if state is None:
            raise ValueError(f"unknown lane {lane!r}; there are {', '.join(self._lanes)}")
        return state

    def _gate(self, lane: str) -> _Gate:
        loop = asyncio.get_running_loop()
        known, gates = self._here
        if known() is not loop:
            gates = self._gates.setdefault(loop, {})
            self._here = ref(loop), gates
        gate = gates.get(lane)
        if gate is None:
            gate = gates[lane] = _Gate(self._lane(lane), self._limits[lane].concurrency)
        return gate
