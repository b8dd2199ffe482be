"""Why polls show nothing: a text for the error of a time-out, and what is logged once of it."""

from __future__ import annotations

import logging
import math
from typing import Final

from .._wire.codec import report
from .._wire.poll_result import PollResult
from ..clock import Clock
from .subscribers import Slot

MOST_NOTES: Final = 100
"""Different unknown shapes and words that are logged at most."""
OUTAGE: Final = 20.0
"""Seconds of nothing but failed polls after which that is logged; a short failure is of no interest."""


class PollProblems:
    """The problems that polls of one event loop have met since the last one that succeeded.

    `rate_limited` is the refusal of a poll for its rate, `failing_since` the time of the first failure: both
    are of all tasks. That of one task is `Slot.problem`.
    """

    __slots__ = ("_clock", "_last", "_logged", "failing_since", "rate_limited")

    def __init__(self, clock: Clock) -> None:
        self.rate_limited: str = ""
        self.failing_since: float | None = None  # inf once it is logged
        self._clock: Final = clock
        self._last = ""  # the last failure, one text for all tasks that it hits
        self._logged: Final[set[str]] = set()

    def of(self, slot: Slot) -> str:
        """Return why the last poll of a task showed nothing, to follow after its last state; or ''."""
        # A pause after a refusal holds back the polls of all tasks.
        return slot.problem or (self.rate_limited if slot.busy else "")

    def store(self, slot: Slot, result: PollResult, *, from_webhook: bool) -> None:
        """Store why a poll showed nothing, or that one showed its task; log a shape that no rule knows."""
        slot.problem = ""
        if result.error is not None and result.phase == "rate_limited":
            slot.problem = self.rate_limited = f"; polls are rate limited: {result.error.message}"
        elif result.error is not None and result.phase == "transient":
            problem = f"; the last poll failed: {result.error.message}"
            if problem != self._last:
                self._last = problem
            slot.problem = self._last
            self._log_outage(result.error.message)
        elif not from_webhook:
            self.rate_limited, self.failing_since = "", None
        note = result.note
        if note and note not in self._logged and len(self._logged) < MOST_NOTES:
            self._logged.add(note)
            report(logging.WARNING, "task %s: %s; still waiting", slot.ref.token, note)

    def _log_outage(self, message: str) -> None:
        """Log once that all polls fail, after a while: a wait without news seems to hang."""
        now = self._clock.now()
        if self.failing_since is None:
            self.failing_since = now
        elif now - self.failing_since >= OUTAGE:
            text = "every poll failed for %.0f s: %s; still waiting"
            report(logging.WARNING, text, now - self.failing_since, message)
            self.failing_since = math.inf
