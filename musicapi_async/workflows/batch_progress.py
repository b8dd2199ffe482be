"""How far a batch is: songs by where they are, the rate of creates, and the time to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from ..clock import Clock
from .budget import Budget

PLACES: Final = ("queued", "submitting", "running", "fetching", "done", "failed", "unknown", "unfinished")
"""Where a song may be."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a batch, as numbers of songs.

    `total` is the sum of `queued` (not begun), `submitting` (waiting to be submitted), `running` (at the
    service), `fetching`, `done`, `failed`, `unknown` (of unknown outcome) and `unfinished` (the next run
    continues them).

    `failed_steps` counts failed steps of finished songs. `submitted` counts the paid calls of this run,
    including steps; `rate` is their number per minute. `remaining_seconds` is the expected time to the end;
    None until it can be estimated. `spent` is in credits; None without a budget.
    """

    total: int
    queued: int = 0
    submitting: int = 0
    running: int = 0
    fetching: int = 0
    done: int = 0
    failed: int = 0
    unknown: int = 0
    unfinished: int = 0
    failed_steps: int = 0
    submitted: int = 0
    rate: float = 0.0
    remaining_seconds: float | None = None
    spent: float | None = None
    stopping: bool = False


class Tally:
    """Counts the songs of a run, and reports every change.

    Args:
        total: Songs of the manifest.
        clock: The client's.
        budget: Says what is spent.
        stop: Set when the run is to submit nothing more.
        on_progress: Gets a `Progress` for every change.
    """

    def __init__(
        self,
        total: int,
        clock: Clock,
        budget: Budget,
        stop: asyncio.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.total: Final = total
        self.counts: Final = {**dict.fromkeys(PLACES, 0), "queued": total}
        self.failed_steps = 0
        self.submitted = 0
        self.halted = False
        self._clock: Final = clock
        self._budget: Final = budget
        self._stop: Final = stop
        self._on_progress: Final = on_progress
        self._started: Final = clock.now()
        self._begun = 0
        self._last_begun = 0.0
        self._settled = 0
        self._seconds = 0.0

    def move(self, before: str, after: str) -> None:
        """Count a song in another place from now on."""
        if before != after:
            self.counts[before] -= 1
            self.counts[after] += 1
        self.report()

    def run_began(self) -> float:
        """Note that a song runs at the service from now on; return the time on the monotonic clock."""
        self._begun += 1
        self._last_begun = self._clock.now()
        return self._last_begun

    def run_settled(self, began: float) -> None:
        """Note that a song that ran since `began` is settled."""
        self._settled += 1
        self._seconds += self._clock.now() - began

    def report(self) -> None:
        """Report how far the batch is."""
        if self._on_progress is None:
            return
        elapsed = self._clock.now() - self._started
        under_way = sum(self.counts[name] for name in ("queued", "submitting", "running", "fetching"))
        self._on_progress(
            Progress(
                total=self.total,
                **self.counts,
                failed_steps=self.failed_steps,
                submitted=self.submitted,
                rate=60 * self.submitted / elapsed if elapsed > 0 else 0.0,
                remaining_seconds=self._remaining_seconds(elapsed) if under_way else None,
                spent=self._budget.displayed,
                stopping=self._stop.is_set() or self.halted,
            )
        )

    def _remaining_seconds(self, elapsed: float) -> float | None:
        """Return the expected time to the end: until the last song begins, and then what a song takes."""
        if not self._settled:
            return None
        seconds = self._seconds / self._settled
        waiting = self.counts["queued"] + self.counts["submitting"]
        if waiting and not self._stop.is_set() and not self.halted:
            return waiting * elapsed / self._begun + seconds
        remaining = seconds - (self._clock.now() - self._last_begun)
        return remaining if remaining > 0 else None
