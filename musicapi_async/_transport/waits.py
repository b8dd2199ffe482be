"""The waits of a call before it was sent, for its log line and for the text of its error."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Final, Literal, Self

from ..clock import Clock

log: Final = logging.getLogger("musicapi_async")

NOTABLE: Final = 5.0
"""Seconds of waiting after which the reason is logged and shown: the documented rate alone explains 3 s."""

Reason = Literal["rate", "pause", "slot", "permit"]
"""Why a call is not sent yet: the rate, a pause after a refusal, requests at once, or tasks in flight."""

_TEXTS: Final[dict[Reason, str]] = {
    "rate": "for the rate limit",
    "pause": "because the service refused the rate of requests",
    "slot": "for other requests to end",
    "permit": "for other tasks to end",
}


class Waits:
    """The seconds that one call waited before it was sent, by reason, on the client's clock.

    `call` names the call in the log, such as 'POST /sonic/create'.
    """

    __slots__ = ("_clock", "_seconds", "_wait", "call")

    def __init__(self, clock: Clock, call: str) -> None:
        self.call: Final = call
        self._clock: Final = clock
        self._seconds: dict[tuple[Reason, str], float] = {}
        self._wait: _Wait | None = None

    @classmethod
    def unnoted(cls) -> Self:
        """Return a record that no one reads."""
        return cls(Clock(), "a request")

    def during(self, reason: Reason, limit: str = "") -> _Wait:
        """Note the time of a `with` block as a wait for `reason`; `limit` is shown, such as '1/3s'."""
        return _Wait(self, self._clock, reason, limit)

    def begin(self, wait: _Wait) -> None:
        """Note that a wait has begun."""
        self._wait = wait

    def end(self, wait: _Wait) -> None:
        """Note that a wait is over."""
        key = wait.reason, wait.limit
        self._seconds[key] = self._seconds.get(key, 0.0) + wait.seconds
        self._wait = None

    def seconds(self, *reasons: Reason) -> float:
        """Return the seconds waited for these reasons (none given: all), the present wait included."""
        return sum(
            seconds for (reason, _), seconds in self._all().items() if not reasons or reason in reasons
        )

    def _all(self) -> dict[tuple[Reason, str], float]:
        found = dict(self._seconds)
        if self._wait is not None:
            key = self._wait.reason, self._wait.limit
            found[key] = found.get(key, 0.0) + self._wait.seconds
        return found

    def __str__(self) -> str:
        """Return such as 'it waited 12.0 s for the rate limit (1/3s)', or '' if no wait was notable."""
        texts = [
            f"{seconds:.1f} s {_TEXTS[reason]}" + (f" ({limit})" if limit else "")
            for (reason, limit), seconds in self._all().items()
            if seconds >= NOTABLE
        ]
        return f"it waited {' and '.join(texts)}" if texts else ""


class _Wait:
    """One wait; it logs its reason once when it becomes long."""

    __slots__ = ("_clock", "_since", "_timer", "_waits", "limit", "reason")

    def __init__(self, waits: Waits, clock: Clock, reason: Reason, limit: str) -> None:
        self.reason: Final = reason
        self.limit: Final = limit
        self._waits: Final = waits
        self._clock: Final = clock
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def seconds(self) -> float:
        """The seconds since the wait began."""
        return self._clock.now() - self._since

    def __enter__(self) -> None:
        self._since = self._clock.now()
        self._timer = asyncio.get_running_loop().call_later(self._clock.real(NOTABLE), self._log)
        self._waits.begin(self)

    def _log(self) -> None:
        limit = f" ({self.limit})" if self.limit else ""
        log.info("%s: not sent yet; it waits %s%s", self._waits.call, _TEXTS[self.reason], limit)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waits.end(self)
