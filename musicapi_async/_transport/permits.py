"""The cap on tasks in flight: a task has a permit from its create until its end.

A task continues after the request, and even the event loop, that created it has ended. So permits are counted
per process, and may be returned from another task, loop or thread. Waiters are served in their order. A
permit with an expiry is returned automatically, so that a forgotten task never blocks creates for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from ..api.families import polled_as
from ..api.task import TaskKey, TaskRef
from ..arguments import check_count
from ..clock import Clock
from .wait_reasons import Waits, during


class Permit(Protocol):
    """The permission to have one more task in flight. It exists before it is granted."""

    def try_acquire(self) -> bool:
        """Take the permit if one is free and no one waits for it; return True if it is held."""
        ...

    async def acquire(self, waits: Waits | None = None) -> None:
        """Wait, first come first served, until the permit is granted. The wait is noted in `waits`."""
        ...

    def expire_at(self, when: float) -> None:
        """Give the permit back at this time of the limiter's clock, if no one has by then."""
        ...

    def release(self) -> None:
        """Give the permit back, or do nothing if it is not held."""
        ...


AFTER_DEADLINE: Final = 1800.0
"""Seconds after the default deadline of a task for which its permit is held at most: songs that take longer
than two deadlines were not reported."""


LONGEST_COLLECTION: Final = 1800.0
"""Seconds from the first permit of a batch to the last one: no song was reported to take longer, so permits
that come later are held by other batches that wait, too."""


class Permits:
    """Counts the tasks in flight across event loops, at most `cap`.

    Raises `RequestValidationError` for a cap below 1.
    """

    def __init__(self, cap: int, clock: Clock) -> None:
        check_count("max_in_flight", cap)
        self.cap: Final = cap
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._free = cap
        self._waiters: Final[deque[asyncio.Future[None]]] = deque()
        self._expiries: Final[dict[TaskPermit, float]] = {}
        self._timers: Final[dict[asyncio.AbstractEventLoop, asyncio.TimerHandle]] = {}
        """The next check of the expiries, in each loop in which anyone waits."""

    def take(self) -> bool:
        """Take a permit if one is free and no one waits."""
        self._release_expired()
        with self._lock:
            if self._waiters or not self._free:
                return False
            self._free -= 1
            return True

    async def wait(self) -> None:
        """Wait, first come first served, for a permit."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        with self._lock:  # for both: another thread may give one back in between, to no waiter
            if self._free and not self._waiters:
                self._free -= 1
                return
            self._waiters.append(waiter)
        self._watch_expiries(loop)
        try:
            await waiter
        except BaseException:
            with self._lock, contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
            if waiter.done() and not waiter.cancelled():
                self.give_back()  # the permit came in the moment of the cancellation
            raise

    def give_back(self) -> None:
        """Hand a permit to the first waiter that still waits, or count it as free."""
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                loop = waiter.get_loop()
                if waiter.done() or loop.is_closed():
                    continue
                loop.call_soon_threadsafe(self._grant, waiter)
                return
            self._free += 1

    def _grant(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done():
            self.give_back()
        else:
            waiter.set_result(None)

    def set_expiry(self, permit: TaskPermit, when: float | None) -> None:
        """Note when a held permit expires; None if it is not held any more."""
        with self._lock:
            if when is None:
                self._expiries.pop(permit, None)
                return
            self._expiries[permit] = when
            waiters = list(self._waiters)
        for loop in {waiter.get_loop() for waiter in waiters}:
            with contextlib.suppress(RuntimeError):  # a loop that has closed meanwhile waits for nothing
                loop.call_soon_threadsafe(self._watch_expiries, loop)

    def _watch_expiries(self, loop: asyncio.AbstractEventLoop) -> None:
        """While anyone waits in this loop, check again when the next permit expires."""
        with self._lock:
            waits = any(waiter.get_loop() is loop for waiter in self._waiters)
            first = min(self._expiries.values(), default=None)
            for known in [known for known in self._timers if known is loop or known.is_closed()]:
                self._timers.pop(known).cancel()
            if waits and first is not None:
                seconds = self._clock.real(max(first - self._clock.now(), 0.0))
                self._timers[loop] = loop.call_later(seconds, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._release_expired()
        self._watch_expiries(loop)

    def _release_expired(self) -> None:
        if not self._expiries:
            return
        now = self._clock.now()
        with self._lock:
            expired = [permit for permit, when in self._expiries.items() if when <= now]
        for permit in expired:
            permit.release()


class TaskPermit:
    """A `Permit` that `Permits` counts."""

    __slots__ = ("_held", "_permits")

    def __init__(self, permits: Permits) -> None:
        self._permits: Final = permits
        self._held = False

    @property
    def cap(self) -> int:
        """The number of tasks that may be in flight."""
        return self._permits.cap

    def try_acquire(self) -> bool:
        """Take the permit if one is free and no one waits for it; return True if it is held."""
        self._held = self._held or self._permits.take()
        return self._held

    async def acquire(self, waits: Waits | None = None) -> None:
        """Wait, first come first served, until the permit is granted."""
        if self.try_acquire():
            return
        with during(waits, "permit", f"max_in_flight={self._permits.cap}"):
            await self._permits.wait()
        self._held = True

    def expire_at(self, when: float) -> None:
        """Give the permit back at this time of the limiter's clock, if no one has by then."""
        if self._held:
            self._permits.set_expiry(self, when)

    def release(self) -> None:
        """Give the permit back, or do nothing if it is not held."""
        if self._held:
            self._held = False
            self._permits.set_expiry(self, None)
            self._permits.give_back()


class BatchPermit:
    """The permits of all tasks of a batch, which is sent once it has them all. A `Permit`.

    They wait in the queue together, so that of the batches of one process only the first holds some.
    Batches of several machines may: one that has waited `LONGEST_COLLECTION` since its first permit gives
    them back and begins again.

    Args:
        permits: one for each task; each is given back by itself.
        clock: the clock of the limiter.
        draw: draws the pause before another begin, as a share of `LONGEST_COLLECTION`.
    """

    def __init__(
        self, permits: Sequence[Permit], clock: Clock, draw: Callable[[], float] = random.random
    ) -> None:
        self.permits: Final = tuple(permits)
        self._clock: Final = clock
        self._draw: Final = draw

    def try_acquire(self) -> bool:
        """Take the permits that are free while no one waits for one; return True if all are held."""
        return all(permit.try_acquire() for permit in self.permits)

    async def acquire(self, waits: Waits | None = None) -> None:
        """Wait, first come first served, until all permits are granted."""
        while not await self._collect(waits):
            await self._clock.sleep(LONGEST_COLLECTION * self._draw())

    async def _collect(self, waits: Waits | None) -> bool:
        # The last one waits longest: its wait is that of the batch.
        last = self.permits[-1]
        waiting = [
            asyncio.ensure_future(permit.acquire(waits if permit is last else None))
            for permit in self.permits
        ]
        complete = False
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(waiting, timeout=self._clock.real(LONGEST_COLLECTION))
            for one in waiting:
                if one.done():
                    one.result()
            complete = all(one.done() for one in waiting)
        finally:
            if not complete:
                for one in waiting:
                    one.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                self.release()
        return complete

    def expire_at(self, when: float) -> None:
        """Give the permits back at this time of the limiter's clock, if no one has by then."""
        for permit in self.permits:
            permit.expire_at(when)

    def release(self) -> None:
        """Give back those that are held."""
        for permit in self.permits:
            permit.release()


class HeldPermits:
    """The permits of a client's tasks in flight. They outlive the event loop that submitted the task.

    A permit is given back when its task ends, at the latest `AFTER_DEADLINE` after the default deadline of a
    wait for it: such a task may never be polled again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._held: Final[dict[TaskKey, _Held]] = {}

    def hold(self, permit: Permit, task: TaskRef) -> None:
        """Hold the permit of a task that was accepted just now."""
        polled = polled_as(task.family, task.kind)
        until = self._clock.now() + AFTER_DEADLINE + (polled.deadline if polled is not None else 0.0)
        permit.expire_at(until)
        self._drop_expired()
        self._held[task.key] = _Held(permit, task, until)

    def hold_batch(self, permit: BatchPermit, tasks: Sequence[TaskRef]) -> None:
        """Hold one permit for each task of a batch that was accepted just now, and give back the others."""
        for one, task in zip(permit.permits, tasks, strict=False):
            self.hold(one, task)
        for one in permit.permits[len(tasks) :]:
            one.release()

    def ended(self, task: TaskRef) -> None:
        """Give back the permit of a task that has ended."""
        if self._held and (held := self._held.pop(task.key, None)) is not None:
            held.permit.release()

    def give_back(self) -> None:
        """Give back all: the client is closed, and will not learn when its tasks end."""
        while self._held:
            self._held.popitem()[1].permit.release()

    def tasks(self) -> list[TaskRef]:
        """Return the tasks that hold a permit."""
        self._drop_expired()
        return [held.task for held in self._held.values()]

    def _drop_expired(self) -> None:
        now = self._clock.now()
        for key, held in list(self._held.items()):
            if held.until > now:
                break  # those behind it were accepted later
            del self._held[key]  # the limiter has its permit back


class _Held(msgspec.Struct, frozen=True):
    permit: Permit
    task: TaskRef
    until: float
