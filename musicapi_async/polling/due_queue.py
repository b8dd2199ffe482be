"""The due queue: polls each slot at its due time, with one timer and a bounded number of workers.

A timer per task and an asyncio task per poll were most of what scheduling cost. Here the loop has one timer,
set to the earliest entry, and everything that is due within `DUE_SLACK` of it is served by that one wake-up.
Slots that are due at about the same time are in one bucket of `DUE_SLACK` seconds, and the heap has buckets,
because a heap of 100,000 slots has 17 levels, most of which miss the cache.

A worker serves many polls: if nothing is due, it waits on a future and is woken again, which costs a third of
a new asyncio task. Each worker wakes the next one, and only while something is due, so that polls that end at
once need no second worker, and a burst of slow polls spreads over several turns of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
from collections.abc import Awaitable, Callable
from typing import Final

from ..clock import Clock
from .subscribers import Slot

DUE_SLACK: Final = 0.02
"""Seconds within which due times are served by one wake-up. With 100,000 tasks that are polled in no order
this is 1 to 4 µs per poll cheaper than a quarter of it, and far below every interval."""
SHORTEST_SLEEP: Final = 0.005
"""Real seconds that the timer sleeps at least, however fast the clock runs: a timer for each due time was
measured to be 30 times slower on uvloop."""
MOST_STALE: Final = 64
"""Outdated entries that may remain, beside one for each task."""
NEVER_DUE: Final = math.inf
FAR_AHEAD: Final = 1e12
"""Seconds; a later due time means never, and so does one that is no number."""


class DueQueue:
    """The due times of one event loop; `poll` is called for each slot whose time has come.

    At most `concurrency` polls run at once, first due first served. `poll` must not raise.
    """

    def __init__(self, clock: Clock, poll: Callable[[Slot], Awaitable[None]], concurrency: int) -> None:
        self._clock: Final = clock
        self._poll: Final = poll
        self._concurrency: Final = concurrency
        self._slack: Final = max(DUE_SLACK, clock.speed * SHORTEST_SLEEP)
        self._heap: Final[list[int]] = []  # begins of buckets, in units of the slack
        self._buckets: Final[dict[int, list[Slot]]] = {}
        self._batch: list[Slot] = []  # slots that are due now, the oldest last
        self._entries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._horizon = -NEVER_DUE  # a due time until then is due now
        self._covered = NEVER_DUE  # a due time from then on needs no timer of its own
        self._workers: Final[set[asyncio.Task[None]]] = set()
        self._idle: Final[list[asyncio.Future[None]]] = []
        self._waking = False  # a worker will take from the heap in the next turn of the loop
        self._closed = False
        self.due: float = NEVER_DUE
        """The time for which the last poll that has begun was scheduled."""

    def __len__(self) -> int:
        """Entries, outdated ones included."""
        return self._entries

    def schedule(self, slot: Slot, due: float) -> None:
        """Poll `slot` at `due`, a time of the clock, and not at the time that was set before."""
        slot.due = due
        self._entries += 1
        begin = int((due if due < FAR_AHEAD else FAR_AHEAD) / self._slack)
        slots = self._buckets.get(begin)
        if slots is None:
            self._buckets[begin] = [slot]
            heapq.heappush(self._heap, begin)
        else:
            slots.append(slot)
        if due < self._covered:
            self._set_timer(due)

    def remove(self, slot: Slot, remaining: int) -> None:
        """Poll `slot` no more; its entry is skipped when its time comes. `remaining` slots still wait."""
        slot.due = NEVER_DUE
        if not remaining:
            self._reset()
        elif self._entries > 2 * remaining + MOST_STALE:
            buckets = (self._batch[::-1], *self._buckets.values())
            waiting = {one: None for bucket in buckets for one in bucket if one.due < FAR_AHEAD}
            self._clear()
            for one in waiting:
                self.schedule(one, one.due)

    async def aclose(self) -> None:
        """Poll nothing more, and end the polls that run."""
        self._closed = True
        self._reset()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def _reset(self) -> None:
        """Drop all entries and the timer, and let the idle workers end."""
        self._clear()
        self._drop_timer()
        while self._wake_idle():
            pass

    def _clear(self) -> None:
        self._entries = 0
        self._batch = []
        self._buckets.clear()
        self._heap.clear()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closed:
            self._waking = False
            while (slot := self._next()) is not None:
                await self._poll(slot)
            if not (self._batch or self._heap):
                return
            idle = loop.create_future()
            self._idle.append(idle)
            await idle

    def _next(self) -> Slot | None:
        """Return the slot that is due first, or None; see to it that the ones after it are served."""
        found = None
        while self._batch or self._take_batch():
            slot = self._batch.pop()
            self._entries -= 1
            if slot.due <= self._horizon:  # else it was scheduled again, or removed
                slot.busy = True
                self.due = slot.due
                slot.due = NEVER_DUE
                found = slot
                break
        if not self._waking:
            if self._batch or self._take_batch():
                self._wake_worker()
            elif not self._heap:
                self._drop_timer()
            elif self._timer is None or self._heap[0] * self._slack < self._covered:
                self._set_timer(self._heap[0] * self._slack)
        return found

    def _take_batch(self) -> bool:
        """Return True if a bucket is due; its slots are then the batch, the oldest last."""
        if not self._heap:
            return False
        end = (self._heap[0] + 1) * self._slack
        if end > self._horizon:  # else it was due before, and time does not go back
            self._horizon = self._clock.now() + self._slack
            if end > self._horizon:
                return False
        self._batch = self._buckets.pop(heapq.heappop(self._heap))
        self._batch.reverse()
        return True

    def _wake_worker(self) -> None:
        """Start or wake one more worker; if all are busy, each takes the next slot when its poll is done."""
        self._drop_timer()
        self._covered = -NEVER_DUE
        if self._wake_idle():
            self._waking = True
        elif len(self._workers) < self._concurrency:
            # Not `create_task`: with `asyncio.eager_task_factory` the worker would run at once, and wake the
            # next one inside itself before this one is counted.
            worker = asyncio.Task(self._work(), loop=asyncio.get_running_loop())
            worker.add_done_callback(self._ended)
            self._workers.add(worker)
            self._waking = True

    def _wake_idle(self) -> bool:
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                return True
        return False

    def _ended(self, worker: asyncio.Task[None]) -> None:
        """Forget a worker: nothing remains to do, or it was cancelled, perhaps before it began."""
        self._workers.discard(worker)
        self._waking = False
        if self._batch:
            self._set_timer(self._horizon)
        elif self._heap:
            self._set_timer(self._heap[0] * self._slack)

    def _set_timer(self, due: float) -> None:
        self._drop_timer()
        if self._closed:
            return
        self._covered = due - self._slack
        delay = max(self._clock.real(due - self._clock.now()), SHORTEST_SLEEP)
        # An empty context: the workers outlive the request that happened to start them.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._wake_worker, context=contextvars.Context())

    def _drop_timer(self) -> None:
        self._covered = NEVER_DUE
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
