"""What a poll is worth when polls are rationed: its shadow price.

Without a limit a poll costs work, here and at the service, and `PRICE` is what that is worth. Where the
polls per second are capped, the first of them are free, since nobody else could use them, and one too many
makes everybody wait. What a poll then costs is what it keeps others from, and that shows in the queue: the
price falls slowly while nobody waits for a turn, and rises while somebody does, until the looks that pay
are about as many as are allowed.

A burst finds the price low, so that its first looks fill the time before the queue forms; looks wait first
come first served, so nobody starves, whatever the price.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Final

PRICE: Final = 2.0
"""Seconds of lateness that one poll is worth: with it the learned times need as many polls as a fixed
interval of 24 s, and are about 30 % less late (benchmarks/polling_policy.py)."""

CHEAPEST: Final = 0.05
"""The price of a poll that nobody else wants: nearly every look then comes as soon as the floor allows."""
DEAREST: Final = 4.0
"""The highest price: under 2 tasks per second and 5 polls per second the best of all that were tried, and
higher ones leave polls unused (benchmarks/under_cap.py)."""
RISE: Final = 0.01
FALL: Final = 0.005
"""Logarithm of the price per second, while looks wait and while none does: from one end to the other within
a quarter of an hour. Twice or half as fast costs 1 to 3 % of the time to notice."""
LONGEST_STEP: Final = 5.0
"""Seconds for which a queue that is seen now is taken to have been there, if nobody looked meanwhile."""


class ShadowPrice:
    """The present price of a poll in seconds of lateness, for `Learned(price=…)`.

    `crowded` says whether looks wait for their turn now, `now` tells the time in seconds. Costs about 1 µs.
    """

    __slots__ = ("_asked", "_crowded", "_now", "_price")

    def __init__(self, crowded: Callable[[], bool], now: Callable[[], float]) -> None:
        self._crowded: Final = crowded
        self._now: Final = now
        self._price = CHEAPEST
        self._asked: float | None = None

    def __call__(self) -> float:
        """The price now."""
        now = self._now()
        passed = 0.0 if self._asked is None else max(now - self._asked, 0.0)  # another loop begins anew
        self._asked = now
        if self._crowded():
            self._price = min(self._price * exp(RISE * min(passed, LONGEST_STEP)), DEAREST)
        else:
            self._price = max(self._price * exp(-FALL * passed), CHEAPEST)
        return self._price
