"""The rate limiter: one for all requests of a client, which keeps it within the account's limits.

What the limits are
-------------------
The service documents one number: standard accounts may send one creating request per 3 seconds. Nothing is
documented about requests at once, about polling, or about what happens to a request above the limit; rate
headers and `Retry-After` were never reported. Two refusals are known besides HTTP 429: a 403 that says
"QPS limit" and one that says "Queue is full". So one limit is known and has to be observed exactly, and the
others, if they exist, can only be learned by hitting them.

Lanes
-----
Requests queue in lanes: `submit` (creates, which charge), `poll` (is it done?), `call` (direct tools and
the balance) and `media` (downloads). A lane has its own queue, its own slots and its own rate, and nothing
is shared between lanes. That is the fairness between them: a thousand queued creates do not delay one poll,
and a slow download does not delay a create. Within a lane it is first come, first served. When the next
request of a lane may start is arithmetic: `rate_window.py`.

Loops, threads, cancellation
----------------------------
A limiter may be created outside any loop and used by one loop after the other. Queues and slots belong to
a loop, as their waiters do; the history of starts belongs to the account, so a second `asyncio.run` does
not begin with a fresh allowance. Two loops in two threads share the history safely, without an order
between their queues. A cancelled waiter leaves the queue at once and costs no other request its start. No
cancel scope is involved, so a slot may be left in another task than it was entered in.
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

from ..api.suggestions import check_names
from ..arguments import check_count, check_parts, refused
from ..clock import Clock
from .permits import Permit, Permits, TaskPermit
from .rate_window import LaneState, Rate
from .wait_reasons import Reason, Waits, Watch, during

LONG_QUEUE: Final = 0.5
"""Seconds of waiting starts above which a queue is long; below are bursts (benchmarks/under_cap.py)."""


class LaneLimits(msgspec.Struct, frozen=True):
    """The limits of a lane: the number of requests under way at once, and their `rate` (None: no limit)."""

    concurrency: int
    rate: Rate | None = None

    def __post_init__(self) -> None:
        check_count("concurrency", self.concurrency)
        check_parts(rate=self.rate)


DEFAULT_LANES: Final[Mapping[str, LaneLimits]] = MappingProxyType(
    {
        # The documented create rate of standard accounts. A create answers within seconds, so 16 slots are
        # never what slows it; they bound what a stuck server can pile up.
        "submit": LaneLimits(16, Rate(1, 3.0)),
        # As many slots as the connection pool has: a queue here is cheaper than one in the pool.
        "poll": LaneLimits(64),
        "call": LaneLimits(16),
        "media": LaneLimits(4),
    }
)


class RequestSlot(Protocol):
    """The right to send one request."""

    async def departing(self) -> None:
        """Wait until the bytes of the request may leave, and count them as sent then.

        The session calls it when the connection is open, because connecting takes time, and the server counts
        requests when they arrive.
        """
        ...


class RateLimiter(Protocol):
    """A rate limiter: decides when a request may be sent. `MemoryLimiter` is one for a single process."""

    def slot(self, lane: str, waits: Waits | None = None) -> AbstractAsyncContextManager[RequestSlot]:
        """Wait, first come first served, for a slot and for the rate; release the slot on exit.

        Entering counts as one start, also if the block fails. The waiting times are added to `waits`.
        """
        ...

    def pause(self, lane: str, seconds: float) -> None:
        """Pause the lane for `seconds` and lower its rate, because a request was refused for its rate."""
        ...

    def succeeded(self, lane: str) -> None:
        """Raise the rate of the lane a little, because a request was not refused."""
        ...

    def permit(self) -> Permit | None:
        """Return a permit, not yet granted, for one more task in flight; None if there is no cap."""
        ...


class _Queue:
    """The slots of a lane in one event loop, and the queue of requests that have one and wait for the rate.

    Both are first come, first served.
    """

    __slots__ = ("free", "lane", "limit", "order", "rate", "starting", "waiters", "watch")

    def __init__(self, lane: LaneState, limits: LaneLimits) -> None:
        self.lane: Final = lane
        self.limit: Final = f"{limits.concurrency} requests at once"
        self.watch: Final = Watch()
        self.rate: Final = limits.rate
        self.free = limits.concurrency
        self.waiters: Final[deque[asyncio.Future[None]]] = deque()
        self.order: Final = asyncio.Lock()  # only one request at a time tries to start
        self.starting = 0  # requests that have a slot and wait for the rate

    @property
    def length(self) -> int:
        """The requests that wait for a slot or for the rate."""
        return self.starting + len(self.waiters)

    async def wait_for_slot(self, waits: Waits | None) -> None:
        """Wait until a slot is handed over; note that in `waits`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        if waits is not None:
            waits.begin("slot", self.limit)
            self.watch.add(waits)
        try:
            await waiter
        except BaseException:
            if not waiter.cancelled():  # it came together with the cancellation
                self.release()
            elif waiter in self.waiters:
                self.waiters.remove(waiter)
            raise
        finally:
            if waits is not None:
                self.watch.remove(waits)
                waits.end()

    def release(self) -> None:
        """Hand the slot to the first in the queue; it is free only if there is none."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.free += 1


class _LaneSlot(msgspec.Struct, eq=False):
    """The context manager of `MemoryLimiter.slot`; a generator costs each poll 2 µs more."""

    queue: _Queue
    clock: Clock
    waits: Waits | None

    async def departing(self) -> None:
        """Wait until the bytes of the request may leave; see `RequestSlot.departing`."""
        lane = self.queue.lane
        while (wait := lane.depart(self.clock.now())) > 0:
            await self._wait(wait)

    async def __aenter__(self) -> RequestSlot:
        queue = self.queue
        if queue.free:
            queue.free -= 1
        else:
            await queue.wait_for_slot(self.waits)
        if not queue.starting and queue.lane.claim(self.clock.now()) <= 0:
            return self
        queue.starting += 1
        try:
            await self._start()
        except BaseException:
            queue.release()
            raise
        finally:
            queue.starting -= 1
        return self

    async def _start(self) -> None:
        queue = self.queue
        with during(self.waits, *self._reason()):
            await queue.order.acquire()
        try:
            while (wait := queue.lane.claim(self.clock.now())) > 0:
                await self._wait(wait)
        finally:
            queue.order.release()

    async def _wait(self, seconds: float) -> None:
        with during(self.waits, *self._reason()):
            await self.clock.sleep(seconds)

    def _reason(self) -> tuple[Reason, str]:
        if self.queue.lane.is_paused(self.clock.now()):
            return "pause", ""
        return "rate", "" if self.queue.rate is None else str(self.queue.rate)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.queue.release()


def _no_loop() -> None:
    """Return None, as a weak reference does whose loop is gone."""


class MemoryLimiter:
    """A `RateLimiter` for one process.

    `lanes` are the limits by lane ('submit', 'poll', 'call', 'media'); they replace those in `DEFAULT_LANES`.
    `max_in_flight` is the largest number of unfinished tasks (None: no cap). Raises `RequestValidationError`
    for another lane, and for a cap below 1.

        limiter = MemoryLimiter({"submit": LaneLimits(16, Rate.parse("20/10s"))})
        async with limiter.slot("submit") as slot:
            ...  # connect
            await slot.departing()
            ...  # send the request
    """

    def __init__(
        self,
        lanes: Mapping[str, LaneLimits] = DEFAULT_LANES,
        clock: Clock | None = None,
        *,
        max_in_flight: int | None = None,
    ) -> None:
        names = f"lanes ({', '.join(DEFAULT_LANES)})"
        for name, limits in check_names("lanes", lanes, DEFAULT_LANES, names).items():
            if not isinstance(limits, LaneLimits):
                raise refused("lanes", f"LaneLimits(...) for {name!r}", repr(limits)[:100])
        check_parts(clock=clock)
        self._clock: Final = clock or Clock()
        self._limits: Final = {**DEFAULT_LANES, **lanes}
        self._lanes: Final = {name: LaneState(limits.rate) for name, limits in self._limits.items()}
        self._queues: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Queue]]] = (
            WeakKeyDictionary()
        )
        # The queues of the loop of the last request: nearly always the same, and a weak dictionary is slow.
        self._here: tuple[Callable[[], asyncio.AbstractEventLoop | None], dict[str, _Queue]] = (_no_loop, {})
        self._permits: Final = None if max_in_flight is None else Permits(max_in_flight, self._clock)

    def slot(self, lane: str, waits: Waits | None = None) -> AbstractAsyncContextManager[RequestSlot]:
        """Return a context that waits for a slot and for the rate of `lane`; see `RateLimiter.slot`."""
        return _LaneSlot(self._queue_of(lane), self._clock, waits)

    def pause(self, lane: str, seconds: float) -> None:
        """Pause `lane` for `seconds`, at most `LONGEST_PAUSE`, and lower its rate, after a 429.

        NaN and negative values count as 0. A running pause is never shortened.
        """
        self._lanes[lane].pause(self._clock.now(), seconds)

    def succeeded(self, lane: str) -> None:
        """Raise the rate of `lane` a little, if a 429 has lowered it."""
        state = self._lanes[lane]
        if state.taught is not None:
            state.succeeded(self._clock.now())

    def permit(self) -> Permit | None:
        """Return a permit for one more task in flight, not yet granted; None without a cap.

        It may be released in another task, loop or thread.
        """
        return None if self._permits is None else TaskPermit(self._permits)

    def has_rate(self, lane: str) -> bool:
        """Return True if a rate was set for `lane`. A rate that was learned from 429s does not count."""
        return self._limits[lane].rate is not None

    def has_long_queue(self, lane: str) -> bool:
        """Return True if more requests wait than may start in `LONG_QUEUE` s, or than an eighth of the slots.

        Always False without a rate. Needs a running loop.
        """
        limits = self._limits[lane]
        if limits.rate is None:
            return False
        return self._queue_of(lane).length > min(limits.rate.per_second * LONG_QUEUE, limits.concurrency / 8)

    def _queue_of(self, lane: str) -> _Queue:
        """Return the queue of a lane in the running loop."""
        loop = asyncio.get_running_loop()
        known, queues = self._here
        if known() is not loop:
            queues = self._queues.setdefault(loop, {})
            self._here = ref(loop), queues
        queue = queues.get(lane)
        if queue is None:
            if lane not in self._lanes:
                raise ValueError(f"unknown lane {lane!r}; there are {', '.join(self._lanes)}")
            queue = queues[lane] = _Queue(self._lanes[lane], self._limits[lane])
        return queue
