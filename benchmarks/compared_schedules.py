"""Schedules that the default is compared with, and a client without a network for the waiter."""

from __future__ import annotations

import math
from typing import Final, Literal

from musicapi_async._wire.redaction import NOTHING_KNOWN, Redactor
from musicapi_async._wire.retry import Draw, equal_jitter, spread
from musicapi_async.api.results import TaskUpdate
from musicapi_async.api.task import TaskRef
from musicapi_async.polling.kind_model import PolledStage, Stage
from musicapi_async.polling.schedule import POLL_JITTER


class _Unlearning:
    """The part of a schedule that learns nothing."""

    def observed(
        self, kind: str, finished: bool, last_age: float | None, age: float, latest: PolledStage | None
    ) -> None:
        """Learn nothing."""


class FirstThenFixedSchedule(_Unlearning):
    """The first poll at age `first`, then one every `interval` seconds; with `draw` jittered by 10 %."""

    def __init__(self, first: float, interval: float, *, draw: Draw | None = None) -> None:
        if not (0 < first < math.inf and 0 < interval < math.inf):
            raise ValueError(
                f"first and interval must be positive and finite, got {first!r} and {interval!r}"
            )
        self._first: Final = first
        self._interval: Final = interval
        self._draw: Final = draw

    def first(self, kind: str) -> float:
        """Return the age of the first poll."""
        return self._jittered(self._first)

    def next(self, kind: str, age: float, stage: Stage | None) -> float:
        """Return the age one interval later."""
        return age + self._jittered(self._interval)

    def _jittered(self, interval: float) -> float:
        return interval if self._draw is None else spread(interval, POLL_JITTER, self._draw)


class FixedSchedule(FirstThenFixedSchedule):
    """A poll every `interval` seconds; with `draw` jittered by 10 %."""

    def __init__(self, interval: float, *, draw: Draw | None = None) -> None:
        super().__init__(interval, interval, draw=draw)


class ExponentialSchedule(_Unlearning):
    """Gaps of `base`, 2 `base`, 4 `base`, … up to `cap` seconds.

    As a schedule sees no count of polls, the gap follows from the age, which is `base` less than the next gap
    when gaps double. `jitter` is that of backoff libraries: `"full"` draws from 0 to the gap, `"equal"` from
    half of it; both need `draw`.
    """

    SHORTEST: Final = 0.1

    def __init__(
        self,
        base: float,
        cap: float,
        jitter: Literal["none", "equal", "full"] = "none",
        *,
        draw: Draw | None = None,
    ) -> None:
        if not 0 < base <= cap < math.inf:
            raise ValueError(f"needs 0 < base <= cap, finite, got {base!r} and {cap!r}")
        if jitter != "none" and draw is None:
            raise ValueError(f"jitter {jitter!r} needs draw")
        self._base: Final = base
        self._cap: Final = cap
        self._jitter: Final = jitter
        self._draw: Final = draw
        self._mean: Final = {"none": 1.0, "equal": 0.75, "full": 0.5}[jitter]

    def first(self, kind: str) -> float:
        """Return the first gap."""
        return self._gap(self._base)

    def next(self, kind: str, age: float, stage: Stage | None) -> float:
        """Return the age after the next gap, which is about as long as the age."""
        return age + self._gap(min(age / self._mean + self._base, self._cap))

    def _gap(self, gap: float) -> float:
        if self._draw is not None and self._jitter != "none":
            # Never 0, as a wait of backoff's own may be.
            full = self._jitter == "full"
            gap = gap * 0.001 + self._draw(gap * 0.999) if full else equal_jitter(gap, self._draw)
        return max(gap, self.SHORTEST)


class MadeUpClient:
    """The client of a waiter, but for `poll`; what ends is not written down."""

    redactor: Redactor = NOTHING_KNOWN
    host_responds = True

    def polling_ended(self, ref: TaskRef, update: TaskUpdate | None) -> None:
        """Do nothing."""
