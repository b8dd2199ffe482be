"""The waits of a call before it was sent, for its log line and for the text of its error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Literal

import msgspec

from .._wire.codec import report
from ..clock import Clock

NOTABLE: Final = 5.0
"""Seconds of waiting after which the reason is logged and named: the documented rate alone explains 3 s."""

TIMER_PRECISION: Final = 0.001
"""Seconds by which a timer may be early, as those of uvloop are."""

Reason = Literal["rate", "pause", "slot", "permit"]
"""Why a call is not sent yet: the rate, a pause after a refusal, requests at once, or tasks in flight."""

_TEXTS: Final[dict[Reason, str]] = {
    "rate": "for the rate limit",
    "pause": "because the service refused the rate of requests",
    "slot": "for other requests to end",
    "permit": "for other tasks to end",
}


class Waits(msgspec.Struct, eq=False, gc=False):  # a Struct is made in half of the time: one for each call
    """The seconds that one call waited before it was sent, by reason, on the client's clock.

    `call` names the call in the log, such as 'POST /sonic/create'. `ended` are the waits that are over,
    `present` is the one under way, and when it began.
    """

    clock: Clock
    call: str
    ended: dict[tuple[Reason, str], float] | None = None
    present: tuple[Reason, str, float] | None = None

    @contextmanager
    def during(self, reason: Reason, limit: str = "") -> Generator[None, None, None]:
        """Note the time of a `with` block as a wait for `reason`, and log that once when it becomes long.

        `limit` is named in the texts, such as '1/3s'.
        """
        self.begin(reason, limit)
        timer = asyncio.get_running_loop().call_later(self.clock.real(NOTABLE), self.log)
        try:
            yield
        finally:
            timer.cancel()
            self.end()

    def begin(self, reason: Reason, limit: str = "") -> None:
        """Note that a wait begins; see `during`."""
        self.present = reason, limit, self.clock.now()

    def end(self) -> None:
        """Note that the present wait is over."""
        self.ended = self._all()
        self.present = None

    def log(self) -> None:
        """Log the present wait, which has become long."""
        if self.present is not None:
            reason, limit, _ = self.present
            named = f" ({limit})" if limit else ""
            report(logging.INFO, "%s: not sent yet; it waits %s%s", self.call, _TEXTS[reason], named)

    def seconds(self, *reasons: Reason) -> float:
        """Return the seconds waited for these reasons (none given: all), the present wait included."""
        if self.ended is None and self.present is None:
            return 0.0
        return sum(
            seconds for (reason, _), seconds in self._all().items() if not reasons or reason in reasons
        )

    def _all(self) -> dict[tuple[Reason, str], float]:
        waited = dict(self.ended or {})
        if self.present is not None:
            reason, limit, since = self.present
            waited[reason, limit] = waited.get((reason, limit), 0.0) + self.clock.now() - since
        return waited

    def __str__(self) -> str:
        """Return such as 'it waited 12.0 s for the rate limit (1/3s)', or '' if no wait was notable."""
        texts = [
            f"{seconds:.1f} s {_TEXTS[reason]}" + (f" ({limit})" if limit else "")
            for (reason, limit), seconds in self._all().items()
            if seconds >= NOTABLE
        ]
        return f"it waited {' and '.join(texts)}" if texts else ""


class Watch:
    """Logs the waits of one queue that become long, with one timer for all.

    The waits begin in the order in which they are added. Each counts by its own clock, which need not be that
    of a limiter which clients share.
    """

    __slots__ = ("_timer", "_waiting")

    def __init__(self) -> None:
        self._waiting: Final[dict[Waits, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waits: Waits) -> None:
        """Watch a wait that begins now."""
        self._waiting[waits] = None
        if self._timer is None:
            self._check_after(waits.clock.real(NOTABLE))

    def remove(self, waits: Waits) -> None:
        """Stop watching a wait."""
        self._waiting.pop(waits, None)

    def _check_after(self, real_seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(real_seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        for waits in list(self._waiting):
            remaining = NOTABLE - (0.0 if waits.present is None else waits.clock.now() - waits.present[2])
            if remaining > TIMER_PRECISION:
                self._check_after(waits.clock.real(remaining))
                return
            del self._waiting[waits]
            waits.log()


def during(waits: Waits | None, reason: Reason, limit: str = "") -> AbstractContextManager[None]:
    """Note the time of a `with` block in `waits`, if there is one; see `Waits.during`."""
    return nullcontext() if waits is None else waits.during(reason, limit)
