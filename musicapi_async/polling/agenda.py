"""What is due when: a heap, one timer, and a bounded number of workers.

A timer per task and an asyncio task per poll were most of what scheduling cost. Here the loop has one timer,
set to the earliest entry, and everything that is due within `SLACK` of it is served by that one wake-up. What
is served together is kept together: the heap holds instants `SLACK` apart, each with a list of slots, since
a heap of 100,000 slots has 17 levels, most of which miss the cache.

Workers outlive a poll: one that finds nothing due parks on a future and is roused again, for a third of
what a new asyncio task costs. They are roused one after the other, each by the one before it and only while
something is due, so that polls that end at once need no second worker and a burst of slow ones spreads over
several turns of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
from collections.abc import Awaitable, Callable
from typing import Final

from ..clock import Clock
from .listeners import Slot

SLACK: Final = 0.02
"""Seconds within which due times are served by one wake-up. With 100,000 tasks that are looked at in no order
this is 1 to 4 µs per look cheaper than a quarter of it, and far below every interval."""
SHORTEST_SLEEP: Final = 0.005
"""Real seconds that the timer sleeps at least, however fast the clock runs: a timer for each due time was
measured to be 30 times slower on uvloop."""
STALE: Final = 64
"""Entries that were overtaken and are left, beside one for each task."""
NEVER: Final = math.inf
FAR: Final = 1e12
"""Seconds; what is due later is never due, and neither is what is no number."""


class Agenda:
    """The due times of one event loop; `poll` is called for each slot whose time has come.

    At most `concurrency` polls are under way, first due first served. `poll` must not raise.
    """

    def __init__(self, clock: Clock, poll: Callable[[Slot], Awaitable[None]], concurrency: int) -> None:
        self._clock: Final = clock
        self._poll: Final = poll
        self._concurrency: Final = concurrency
        self._slack: Final = max(SLACK, clock.speed * SHORTEST_SLEEP)
        self._instants: Final[list[int]] = []  # a heap, in units of the slack
        self._slots: Final[dict[int, list[Slot]]] = {}  # of each instant
        self._batch: list[Slot] = []  # what is due now, the oldest last
        self._entries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._horizon = -NEVER  # what is due until then is due now
        self._covered = NEVER  # what is due from then on needs no timer of its own
        self._workers: Final[set[asyncio.Task[None]]] = set()
        self._parked: Final[list[asyncio.Future[None]]] = []
        self._roused = False  # a worker will look at the heap in the next turn of the loop
        self._closed = False

    def __len__(self) -> int:
        """Entries, those that were overtaken included."""
        return self._entries

    def schedule(self, slot: Slot, due: float) -> None:
        """Poll `slot` at `due`, a time of the clock, and not at the time that was set before."""
        slot.due = due
        self._entries += 1
        instant = int((due if due < FAR else FAR) / self._slack)
        slots = self._slots.get(instant)
        if slots is None:
            self._slots[instant] = [slot]
            heapq.heappush(self._instants, instant)
        else:
            slots.append(slot)
        if due < self._covered:
            self._set_timer(due)

    def forget(self, slot: Slot, left: int) -> None:
        """Poll `slot` no more; its entry is passed over when its time comes. `left` slots still wait."""
        slot.due = NEVER
        if not left:
            self._rest()
        elif self._entries > 2 * left + STALE:
            kept = {known: None for slots in (self._batch[::-1], *self._slots.values()) for known in slots}
            self._clear()
            for known in kept:
                if known.due < FAR:
                    self.schedule(known, known.due)

    async def aclose(self) -> None:
        """Poll nothing more, and end the polls under way."""
        self._closed = True
        self._rest()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def _rest(self) -> None:
        """Nobody waits: drop what is set, and let the parked workers go."""
        self._clear()
        self._drop_timer()
        while self._unpark():
            pass

    def _clear(self) -> None:
        self._entries = 0
        self._batch = []
        self._slots.clear()
        self._instants.clear()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closed:
            self._roused = False
            while (slot := self._next()) is not None:
                await self._poll(slot)
            if not (self._batch or self._instants):
                return
            parked = loop.create_future()
            self._parked.append(parked)
            await parked

    def _next(self) -> Slot | None:
        """The slot that is due first, or None if none is; and somebody will see to what is due after it."""
        found = None
        while found is None and (self._batch or self._take_batch()):
            slot = self._batch.pop()
            self._entries -= 1
            if slot.due <= self._horizon:  # else it was overtaken
                slot.busy = True
                slot.due = NEVER
                found = slot
        if not self._roused:
            if self._batch or self._take_batch():
                self._rouse()
            elif not self._instants:
                self._drop_timer()
            elif self._timer is None or self._instants[0] * self._slack < self._covered:
                self._set_timer(self._instants[0] * self._slack)
        return found

    def _take_batch(self) -> bool:
        """Whether an instant has come; then its slots are the batch that is served, the oldest last."""
        if not self._instants:
            return False
        begin = self._instants[0] * self._slack
        if begin + self._slack > self._horizon:  # else it was due before, and time does not go back
            self._horizon = self._clock.now() + self._slack
            if begin + self._slack > self._horizon:
                return False
        self._batch = self._slots.pop(heapq.heappop(self._instants))
        self._batch.reverse()
        return True

    def _rouse(self) -> None:
        """Set one more worker going; if all are at work, each sees to the heap when its poll is done."""
        self._drop_timer()
        self._covered = -NEVER
        if self._unpark():
            self._roused = True
        elif len(self._workers) < self._concurrency:
            # Not `create_task`: with `asyncio.eager_task_factory` the worker would run at once, and rouse the
            # next one inside itself before this one is counted.
            worker = asyncio.Task(self._work(), loop=asyncio.get_running_loop())
            worker.add_done_callback(self._ended)
            self._workers.add(worker)
            self._roused = True

    def _unpark(self) -> bool:
        while self._parked:
            parked = self._parked.pop()
            if not parked.done():
                parked.set_result(None)
                return True
        return False

    def _ended(self, worker: asyncio.Task[None]) -> None:
        """A worker has gone: nothing is left to do, or it was cancelled, maybe before it began."""
        self._workers.discard(worker)
        self._roused = False
        if self._batch:
            self._set_timer(self._horizon)
        elif self._instants:
            self._set_timer(self._instants[0] * self._slack)

    def _set_timer(self, due: float) -> None:
        self._drop_timer()
        if self._closed:
            return
        self._covered = due - self._slack
        delay = max(self._clock.real(due - self._clock.now()), SHORTEST_SLEEP)
        # An empty context: the workers outlive the request that happened to start them.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._rouse, context=contextvars.Context())

    def _drop_timer(self) -> None:
        self._covered = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
