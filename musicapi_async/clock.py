"""One clock for everything that waits: polls, rates, deadlines, the sandbox.

A `Clock` counts *API seconds*. With `speed=1` they are real seconds; the sandbox and the clients that it
hands out share a faster clock, so that a song of two minutes takes two seconds while every interval keeps
its proportion to every other and no code path differs. Time comes from the running event loop, so a loop
with virtual time (`musicapi_async.testing.virtual`) makes all waits instant and exact.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import anyio

from .arguments import is_positive, refused


class Clock:
    """A monotonic clock that may run faster than real time.

    `speed` is the number of API seconds in a real one. Raises `RequestValidationError` if it is no positive,
    finite number.
    """

    __slots__ = ("speed",)

    def __init__(self, speed: float = 1.0) -> None:
        if not is_positive(speed):
            raise refused("speed", "a positive, finite number", repr(speed)[:100])
        self.speed: Final = float(speed)

    def now(self) -> float:
        """Return seconds on the monotonic clock of the running event loop."""
        return asyncio.get_running_loop().time() * self.speed

    def time(self) -> float:
        """Return the Unix time in seconds, to display and store; measure durations with `now`."""
        return time.time()

    def real(self, seconds: float) -> float:
        """Return the real seconds that `seconds` of this clock take; infinity for infinity."""
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds` of this clock; zero and negative values only yield to other tasks."""
        await anyio.sleep(max(0.0, seconds) / self.speed)

    def __repr__(self) -> str:
        return f"Clock(speed={self.speed:g})"
