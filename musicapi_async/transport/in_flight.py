"""The cap on tasks in flight: places that are held from the submit until the task is terminal.

A task outlives the request, and even the event loop, that submitted it, so places are counted per process
and may be given back from another loop or thread. Waiters are served in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from typing import Final, Protocol


class Place(Protocol):
    """A place among the tasks in flight."""

    def release(self) -> None:
        """Give the place back; a second time does nothing."""
        ...


class FreePlace:
    """The place of a limiter without a cap."""

    def release(self) -> None:
        """Nothing is held."""


FREE: Final = FreePlace()
"""Needs no state, so all share it."""


class InFlight:
    """Counts tasks in flight across event loops: a task outlives the loop that submitted it."""

    def __init__(self, cap: int) -> None:
        self._lock: Final = threading.Lock()
        self._free = cap
        self._waiters: Final[deque[asyncio.Future[None]]] = deque()

    async def reserve(self) -> Place:
        """Wait, first come first served, for a place."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return TaskPlace(self)
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            with self._lock, contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
            if waiter.done() and not waiter.cancelled():
                self.give_back()  # the place came in the moment of the cancellation
            raise
        return TaskPlace(self)

    def give_back(self) -> None:
        """Hand a place to the first waiter that still waits, or count it as free."""
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                loop = waiter.get_loop()
                if waiter.done() or loop.is_closed():
                    continue
                loop.call_soon_threadsafe(self._hand_over, waiter)
                return
            self._free += 1

    def _hand_over(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done():
            self.give_back()
        else:
            waiter.set_result(None)


class TaskPlace:
    """A place that `InFlight` gave."""

    __slots__ = ("_in_flight",)

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight: InFlight | None = in_flight

    def release(self) -> None:
        """Give the place back; a second time does nothing."""
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            in_flight.give_back()
