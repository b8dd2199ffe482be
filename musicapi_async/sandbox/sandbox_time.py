"""The time of the sandbox: API seconds since its first start, dates for people, and the age of things.

API seconds run `speed` times as fast as real ones and can be moved forward. Dates (`created_at`, webhooks)
are real, as `Date` of each response is. An age counts real seconds, and those by which the time was moved
forward on purpose, so that a clip of today is not too old for a persona because the clock is fast.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import anyio
import anyio.lowlevel

from ..clock import Clock

NEGLIGIBLE: Final = 1e-6
"""API seconds below which a moment has come: less than what a float of the clock can tell apart."""

MOST_FORWARDS: Final = 1000
"""Moves of the time that are distinguished; the oldest become one."""


class SandboxTime:
    """The clock of one sandbox; it continues in another event loop, and in another process with a state."""

    def __init__(self, speed: float) -> None:
        self.clock: Final = Clock(speed)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._origin = 0.0
        self._start = 0.0
        self._moved = asyncio.Event()
        self.forwards: list[tuple[float, float]] = []
        """When the time was moved forward, and by how many API seconds."""

    def start(self) -> None:
        """Run in the current event loop, from the moment on that was reached in the one before."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        elapsed = self.now()
        self._loop, self._origin = loop, self.clock.now() - elapsed
        self._moved = asyncio.Event()

    def resume(self, at: float, forwards: list[tuple[float, float]]) -> None:
        """Begin at `at` instead of 0, before the first start: the state of an earlier process continues."""
        self._start, self.forwards = at, forwards

    def now(self) -> float:
        """Return API seconds since the first start; works from any thread."""
        return self._start if self._loop is None else self._loop.time() * self.clock.speed - self._origin

    def forward(self, seconds: float) -> None:
        """Move the time forward; everything that waits notices."""
        self.forwards.append((self.now(), seconds))
        if len(self.forwards) > MOST_FORWARDS:  # what began between these two seems younger by the second
            (at, first), (_, second) = self.forwards[:2]
            self.forwards[:2] = [(at, first + second)]
        self._origin -= seconds
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def age(self, at: float) -> float:
        """Return the seconds since `at`: real ones, and those by which the time was moved forward since."""
        moved = sum(seconds for when, seconds in self.forwards if when >= at)
        return moved + max(0.0, self.now() - at - moved) / self.clock.speed

    def date(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    async def until(self, at: float) -> None:
        """Sleep until `at`, however the time is moved; yields to other tasks at least once."""
        await anyio.lowlevel.checkpoint()
        close = NEGLIGIBLE + self.clock.speed * 1e-9
        while (remaining := at - self.now()) > close:
            moved = self._moved
            with anyio.move_on_after(self.clock.real(remaining)):
                await moved.wait()

    async def sleep(self, seconds: float) -> None:
        """Sleep for some API seconds."""
        await self.until(self.now() + seconds)
