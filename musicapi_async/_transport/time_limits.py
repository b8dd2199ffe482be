"""A time limit for each attempt that costs next to nothing while it is met.

A timer per attempt, as `asyncio.timeout` and aiohttp's own time-outs set one, costs 4 to 7 µs each time to be
set and cancelled, and nearly all are cancelled. Attempts with the same limit end in the order in which they
began, so one timer watches the oldest of them and moves on to the next when it fires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import msgspec

MOST_LINES: Final = 64
"""Different limits that are watched; beyond that, those that watch nothing are dropped."""


class TimeLimits:
    """The time limits of one event loop. `real` gives the real seconds of a limit."""

    def __init__(self, real: Callable[[float], float] = float) -> None:
        self._real: Final = real
        self._lines: Final[dict[float, _Line]] = {}

    def within(self, seconds: float) -> Limit:
        """`with limits.within(seconds):` raises `TimeoutError` if the block takes longer.

        The time begins with the call.
        """
        line = self._lines.get(seconds)
        if line is None:
            if len(self._lines) >= MOST_LINES:
                for known in [key for key, line in self._lines.items() if not line.watched]:
                    self._lines.pop(known).close()
            line = self._lines[seconds] = _Line(self._real(seconds))
        task = asyncio.current_task(line.loop)
        if task is None:
            raise RuntimeError("a time limit needs a task")
        limit = Limit(line, task, task.cancelling(), line.loop.time() + line.seconds)
        line.watched[limit] = None
        if line.timer is None:
            line.timer = line.loop.call_at(limit.due, line.check)
        return limit

    def close(self) -> None:
        """Stop watching."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()


class Limit(msgspec.Struct, eq=False):  # a Struct is made in half of the time: one for each attempt
    """One block under a limit.

    `cancelling` is how often its task was cancelled before it began, `due` when it must end, on the loop's
    clock, `passed` is True once the limit has ended it.
    """

    line: _Line
    task: asyncio.Task[Any]
    cancelling: int
    due: float
    passed: bool = False

    def __enter__(self) -> None:
        """The block has begun with `TimeLimits.within`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.line.watched.pop(self, None)
        # Another task may have cancelled as well; then the block ends as cancelled.
        if self.passed and self.task.uncancel() <= self.cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


class _Line:
    """The blocks with the same limit, the oldest first."""

    __slots__ = ("loop", "seconds", "timer", "watched")

    def __init__(self, seconds: float) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.seconds: Final = seconds
        self.timer: asyncio.TimerHandle | None = None
        self.watched: Final[dict[Limit, None]] = {}

    def check(self) -> None:
        """End the blocks whose limit has passed, and watch the next one."""
        self.timer = None
        now = self.loop.time()
        for limit in list(self.watched):
            if limit.due > now:
                self.timer = self.loop.call_at(limit.due, self.check)
                return
            del self.watched[limit]
            limit.passed = True
            limit.task.cancel()

    def close(self) -> None:
        """Stop watching."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
