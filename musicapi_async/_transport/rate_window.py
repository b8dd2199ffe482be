"""Requests per time: a rate that is observed exactly, and a rate that is learned from refusals.

Why a sliding window
--------------------
A token bucket, the usual choice, lets almost twice the allowed number through in a window that begins
while the bucket is full. Here the times of the last `count` starts are stored, and the next start waits until
the oldest of them is a period ago: no window of a period holds more than `count` starts, wherever it
begins, and under load every window is full. A request that is sent
3.000 s after another may arrive 2.999 s after it, so the period is stretched by `GUARD`.

A start is counted at the moment when the waiter runs again, not when a timer wakes it: a busy event loop
makes starts later, never closer. A create then opens a connection of its own, and is stored first if there
is a store; both take their time, and not always the same. The server counts what arrives. So there are two
counts: starts decide in which order requests begin to connect, and departures decide when their bytes leave
(`LaneState.depart`). After a handshake of 3 s the request that was overtaken meanwhile waits once more,
with its connection open, until its departure keeps the window, too.

A start may also be counted ahead, for the latest moment at which it may come. The counted ones are stored in
their order, which may then be another one than that in which they were granted: what leaves last must not be
forgotten first.

A start that was granted stays counted, even if the request then could not connect. That it was not sent is
known only after a connect time-out that is longer than the documented period, when there is nothing left
to give back; and while connecting fails, what is short is not the limit.

Additive increase, multiplicative decrease
------------------------------------------
A refusal says that the limit is lower than was believed. `pause()` then stops the whole lane for the given
time (all callers, not only the one that was refused: a thousand waiters that back off each on their own
collect several hundred times as many refusals) and cuts the rate to `CUT` of what it was, at most once per
`CUT_INTERVAL`, because requests that were under way together are refused together. While a lane is cut, its
starts are spread evenly, since a burst that is allowed by the window may be what the server refused. Each
success then adds `RECOVERY` per second of the configured rate, or of the rate at which the refusal came. A
lane with a configured rate returns to it and never exceeds it. A lane without one has no limit at all until
a refusal teaches it one: it begins with the rate of its last seconds, and grows only while it holds a
request back, for a rate that is not used proves nothing.

Simulated against an unknown limit of 5 per second that is halved for five minutes, this uses
99 % of the limit and is refused about 0.04 times per accepted call, half of that in the first minute, in
which the limit is found (benchmarks/rate.py).
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections import deque
from types import MappingProxyType
from typing import Final

import msgspec

from ..arguments import is_positive

GUARD: Final = 0.0125
"""Share by which a period is stretched: 37 ms for creates, more than the jitter of an open connection.
The price is 1.2 % of the allowed rate."""

CUT: Final = 0.8
"""Factor on the rate after a refusal; measured with `RECOVERY`, see the simulation above."""

CUT_INTERVAL: Final = 1.0
"""Seconds in which refusals count as one."""

RECOVERY: Final = 0.02
"""Share of the configured rate, or else of the rate at the last cut, added per second of success."""

SLOWEST: Final = 1 / 60
"""Starts per second below which no refusal cuts: one try a minute finds out that the limit is back."""

LONGEST_PAUSE: Final = 3600.0
"""Seconds; a longer `Retry-After` is a broken header, and one request an hour does no harm."""

RATE_WINDOW: Final = 10.0
"""Seconds of starts from which a lane without a rate takes its first rate."""

REMEMBERED_STARTS: Final = 1024
"""Starts that a lane without a rate remembers; bounds its memory."""

ROUNDING: Final = 1e-6
"""Seconds that floating-point clocks may be off; far below `GUARD` of the shortest period."""

NEW_CLOCK: Final = 1.0
"""Seconds that a start may lie ahead of now before it is taken for one of another clock. Clocks of two
threads differ by microseconds; a virtual loop begins at zero."""

SHORTEST_PERIOD: Final = 0.001
LONGEST_PERIOD: Final = 86_400.0
LARGEST_COUNT: Final = 100_000

_RATE: Final = re.compile(r"([0-9]{1,6})\s*/\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)?\s*(ms|s|min|m|h)")
_UNITS: Final = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0})


class Rate(msgspec.Struct, frozen=True):
    """A rate: at most `count` starts in any window of `period` seconds."""

    count: int
    period: float

    def __post_init__(self) -> None:
        if not (type(self.count) is int and 1 <= self.count <= LARGEST_COUNT):
            raise ValueError(f"rate: count must be a whole number, 1 to {LARGEST_COUNT}, got {self.count!r}")
        if not (is_positive(self.period) and SHORTEST_PERIOD <= self.period <= LONGEST_PERIOD):
            raise ValueError(
                f"rate: period must be {SHORTEST_PERIOD} to {LONGEST_PERIOD:g} s, got {self.period!r}"
            )

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Return the rate in a text such as `"20/10s"`, `"1/3s"`, `"5/s"` or `"100/min"`.

        Units are ms, s, m or min, and h. Raises `ValueError` for any other text.
        """
        match = _RATE.fullmatch(text.strip()) if len(text) <= 40 else None
        if match is None:
            raise ValueError(f'rate: expected something like "20/10s", got {text[:40]!r}')
        count, period, unit = match.groups()
        return cls(int(count), float(period or 1) * _UNITS[unit])

    @property
    def per_second(self) -> float:
        """The average number of starts per second."""
        return self.count / self.period

    def __str__(self) -> str:
        return f"{self.count}/{self.period:g}s"


class LaneSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """The starts of a lane and what refusals have taught it, to be stored; see `LaneState.restored`."""

    starts: tuple[float, ...] = ()
    paused_until: float = -math.inf
    taught: float | None = None
    step: float = 0.0
    cut_at: float = -math.inf
    raised_at: float = -math.inf
    held_back: bool = False


class LaneState:
    """The starts and departures of a lane, and when the next may be. Pure arithmetic on given times."""

    __slots__ = (
        "_cut_at",
        "_departures",
        "_held_back",
        "_lock",
        "_new_clock",
        "_paused_until",
        "_raised_at",
        "_starts",
        "_step",
        "limit",
        "taught",
    )

    def __init__(self, limit: Rate | None, new_clock: float = NEW_CLOCK) -> None:
        self.limit: Final = limit
        """The rate that is configured; None for none."""
        self._new_clock: Final = new_clock
        self._lock: Final = threading.Lock()
        self._starts: Final[deque[float]] = deque(maxlen=limit.count if limit else REMEMBERED_STARTS)
        self._departures: Final[deque[float]] = deque(maxlen=limit.count if limit else 1)
        self._paused_until = -math.inf
        self.taught: float | None = None
        """Starts per second while a refusal still holds the rate down; None: as configured."""
        self._step = 0.0
        self._cut_at = -math.inf
        self._raised_at = -math.inf
        self._held_back = False

    @classmethod
    def restored(cls, limit: Rate | None, snapshot: LaneSnapshot, new_clock: float = NEW_CLOCK) -> LaneState:
        """Return the lane of a snapshot, which may have been made with another limit.

        Args:
            limit: the rate; None for any.
            snapshot: what was stored.
            new_clock: seconds that a start may lie ahead of now, see `NEW_CLOCK`.
        """
        lane = cls(limit, new_clock)
        lane._starts.extend(sorted(snapshot.starts))
        lane._paused_until = snapshot.paused_until
        lane.taught, lane._step = snapshot.taught, snapshot.step
        lane._cut_at, lane._raised_at = snapshot.cut_at, snapshot.raised_at
        lane._held_back = snapshot.held_back
        return lane

    def snapshot(self) -> LaneSnapshot:
        """Return what must be stored of this lane; departures are not."""
        return LaneSnapshot(
            tuple(self._starts),
            self._paused_until,
            self.taught,
            self._step,
            self._cut_at,
            self._raised_at,
            self._held_back,
        )

    def claim(self, now: float, late: float = 0.0) -> float:
        """Count a start now and return 0, or return the seconds after which to ask again.

        Args:
            now: the time.
            late: seconds by which the start may come later than now: no other is counted as further away.
        """
        with self._lock:
            if self._starts and self._starts[-1] > now + self._new_clock:
                self._restart(now)
            if self.limit is None and self.taught is None and self._paused_until <= now:
                self._count(now + late)  # nothing holds the lane back, which is so for most polls
                return 0.0
            wait = self._earliest(now) - now
            if wait > ROUNDING:
                return wait
            self._count(now + late)
            return 0.0

    def _count(self, start: float) -> None:
        """Count a start; the earliest of all is forgotten if they are too many."""
        if not self._starts or self._starts[-1] <= start:
            self._starts.append(start)
        else:
            in_order = sorted((*self._starts, start))
            self._starts.clear()
            self._starts.extend(in_order)

    def unclaim(self, start: float) -> None:
        """Take back a start that was counted and not made."""
        with contextlib.suppress(ValueError):
            self._starts.remove(start)

    def free_at(self, now: float, ahead: int = 0) -> float:
        """Return the earliest time of a start, not before now, after `ahead` others that start before it."""
        lane = LaneState.restored(self.limit, self.snapshot())
        for _ in range(min(ahead, REMEMBERED_STARTS)):
            lane._count(max(now, lane._earliest(math.inf)))
        return max(now, lane._earliest(math.inf))

    def follow(self, now: float, tolerance: float) -> bool:
        """Begin again if what is counted lies so far ahead of now that the clock was set back.

        Args:
            now: the time.
            tolerance: seconds by which a start may lie ahead; it is waited for.

        Returns:
            True if the lane has changed, and is to be stored.
        """
        with self._lock:
            last = max(self._starts, default=-math.inf)
            if last <= now + tolerance and self._paused_until <= now + LONGEST_PAUSE + tolerance:
                return False
            self._restart(now)
            return True

    def _restart(self, now: float) -> None:
        """Follow a clock that began again, as that of a new virtual loop: earlier starts count as of now."""
        for times in (self._starts, self._departures):
            clipped = [min(time, now) for time in times]
            times.clear()
            times.extend(clipped)
        self._paused_until = min(self._paused_until, now)
        self._cut_at = min(self._cut_at, now)
        self._raised_at = min(self._raised_at, now)

    def _earliest(self, now: float) -> float:
        earliest = self._paused_until
        if self._starts:
            if self.limit is not None and len(self._starts) == self.limit.count:
                earliest = max(earliest, self._starts[0] + self.limit.period * (1 + GUARD))
            if self.taught is not None:
                spread = self._starts[-1] + 1 / self.taught
                self._held_back = self._held_back or spread > max(earliest, now)
                earliest = max(earliest, spread)
        return earliest

    def depart(self, now: float) -> float:
        """Count a departure now and return 0, or return the seconds after which to ask again.

        The request would leave too close behind others that left while it was connecting.
        """
        if self.limit is None:
            return 0.0
        with self._lock:
            departures = self._departures
            if departures and departures[-1] > now + self._new_clock:
                self._restart(now)
            if len(departures) == self.limit.count:
                wait = departures[0] + self.limit.period * (1 + GUARD) - now
                if wait > ROUNDING:
                    return wait
            departures.append(now)
            return 0.0

    def is_paused(self, now: float) -> bool:
        """Return True while a refusal stops the lane."""
        return self._paused_until > now

    def pause(self, now: float, seconds: float) -> None:
        """Stop the lane for `seconds` and cut its rate."""
        seconds = min(seconds, LONGEST_PAUSE) if seconds > 0 else 0.0
        with self._lock:
            self._paused_until = max(self._paused_until, now + seconds)
            if now - self._cut_at < CUT_INTERVAL:
                return
            rate = self._present_rate(now)
            self._step = (self.limit.per_second if self.limit is not None else rate) * RECOVERY
            self.taught = max(rate * CUT, min(rate, SLOWEST))
            self._cut_at = self._raised_at = now
            self._held_back = False

    def _present_rate(self, now: float) -> float:
        if self.taught is not None:
            return self.taught
        if self.limit is not None:
            return self.limit.per_second
        recent = [start for start in self._starts if now - start <= RATE_WINDOW]
        if not recent:
            return 1.0
        # Less than a second says how large a burst was, not how many were sent per second.
        return len(recent) / max(now - recent[0], 1.0)

    def succeeded(self, now: float) -> None:
        """Let a rate that was cut recover."""
        with self._lock:
            if self.taught is None:
                return
            # Idle time proves nothing: at most the time that one start takes at this rate is rewarded.
            seconds = min(now - self._raised_at, max(1.0, 1 / self.taught))
            self._raised_at = now
            if self.limit is None:
                if self._held_back:
                    self.taught += self._step * seconds
                self._held_back = False
                return
            self.taught += self._step * seconds
            if self.taught >= self.limit.per_second:
                self.taught = None
