"""Duration model: how long one kind of task takes, learned from polls, and the next poll that pays.

The hazard at age x is the chance per second that a task that is unfinished at x finishes now. It is constant
within each of a few geometric bins, because everything known is censored: a poll says "not finished at 60 s"
or "finished between 60 and 75 s", never when. In a bin, the hazard is the number of tasks that finished there
over the seconds that tasks spent there, and both can be counted from such polls.

To wait is to be late, to poll has a cost. If the next poll is at u, the expected lateness at u, given that
the task was unfinished at a, grows with u; beyond some u a poll is worth its cost. That u is where

    integral from a to u of (exp(H(x) - H(a)) - 1) dx >= cost        H: the hazard, summed up

which is the optimality condition of inspection schedules with the survival function cancelled out: it needs
the hazard between a and u and nothing else, so one forward sum over a few bins finds it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise
from math import exp, expm1, sqrt
from statistics import NormalDist
from typing import Final

FIRST_EDGE: Final = 4.0
"""Seconds; nothing of this API is ready sooner than a legacy lyric."""

RATIO: Final = 1.25
"""Width of a bin against its left edge. Coarser bins miss modes, finer ones learn slower."""

BINS: Final = 26

EDGES: Final = (0.0, *(FIRST_EDGE * RATIO**n for n in range(BINS - 1)), math.inf)
"""Bins: from 0 to 4 s, then geometric up to 847 s, the last one open."""

PRIOR_TASKS: Final = 8.0
"""How many tasks the stated durations are worth. They are forgotten as any other tasks are."""

PRIOR_REMAINDER: Final = 1.0
"""How many tasks of the prior are never forgotten: all that is known of ages without polls."""

FORGETTING: Final = 0.99
"""Weight of everything learned, per finished task: a memory of about 100 tasks, which one client submits in
five minutes, follows a service whose durations drift within the hour."""

MOST_UNUSED: Final = 0.4
"""Polls that may be counted before the hazards are computed again, per task remembered: as a task takes about
four polls, never more than 10 % of all counts are unused. Saves 2 of 6 µs per poll."""

HIGHEST_RATE: Final = 1.0
"""Hazard per second above which a higher one changes nothing, as no interval is that short."""

LOWEST_RATE: Final = 1e-9
"""Hazard below which a bin counts as empty."""

MOST_WEIGHT: Final = 1e6
"""Weight of a new count above which all are scaled down; 1e6 is 1,400 tasks, and doubles hold 1e300."""

_CLOSE_ENOUGH: Final = 0.05
"""Seconds of error in the age of the next poll; far below its jitter."""


class DurationModel:
    """Hazards of one kind of task, in bins: `(events + prior) / (exposure + prior exposure)`.

    `quick` and `slow` are the ages in seconds by which 5 % and 95 % of such tasks should be finished.
    """

    __slots__ = (
        "_events",
        "_exposure",
        "_most_unused",
        "_prior_events",
        "_prior_exposure",
        "_rates",
        "_unused",
        "_weight",
        "generation",
    )

    def __init__(self, quick: float, slow: float) -> None:
        self._prior_events, self._prior_exposure = _log_normal_prior(quick, slow)
        self.generation: int = 0
        """Changes whenever the hazards do."""
        self.replace([0.0] * BINS, [0.0] * BINS)

    def replace(self, events: list[float], exposure: list[float]) -> None:
        """Replace everything learned by these events and seconds per bin."""
        self._events = events
        self._exposure = exposure
        self._weight = 1.0  # of the next count: it grows, so that the earlier ones need not shrink
        self.refresh()

    @property
    def events(self) -> list[float]:
        """Tasks that finished in each bin, the older the less."""
        return [value / self._weight for value in self._events]

    @property
    def exposure(self) -> list[float]:
        """Seconds that tasks spent in each bin, the older the less."""
        return [value / self._weight for value in self._exposure]

    def __getitem__(self, index: int) -> float:
        """Return the present hazard of a bin, per second."""
        if self._unused:
            self.refresh()
        return self._rates[index]

    def next_poll(self, age: float, cost: float, shortest: float, longest: float) -> float:
        """Return the age of the next poll that pays.

        Args:
            age: seconds at which the task was unfinished.
            cost: seconds of lateness that one poll is worth.
            shortest: least seconds between `age` and the next poll.
            longest: most seconds between them.

        Returns:
            The age in seconds. Takes about 2 µs.
        """
        rates = self._rates
        index = bisect_right(EDGES, age) - 1
        soonest = age + shortest
        last = age + min(longest, 600 / HIGHEST_RATE)  # exp() of more would overflow
        begin, growth, lost = age, 1.0, 0.0
        while True:
            rate = rates[index]
            right = EDGES[index + 1]
            ended = right >= last
            if ended:
                right = last
            width = right - begin
            step = growth * expm1(rate * width)
            late = step / rate - width
            if lost + late >= cost:
                if right <= soonest:
                    return min(soonest, last)
                paid = begin + _solve(growth, rate, cost - lost, width)
                return min(max(paid, soonest), last)
            if ended:
                return last
            lost += late
            growth += step
            begin = right
            index += 1

    def unfinished(self, begin: float, end: float) -> None:
        """Count a task that was unfinished at age `begin` and still is at `end`: more exposure."""
        self._count()
        exposure, weight = self._exposure, self._weight
        index = bisect_right(EDGES, begin) - 1
        while (right := EDGES[index + 1]) < end:
            exposure[index] += weight * (right - begin)
            begin = right
            index += 1
        exposure[index] += weight * (end - begin)

    def finished(self, begin: float, end: float) -> None:
        """Count a task that finished between `begin` and `end`: one event, spread by the present hazard."""
        self._count()
        self._weight /= FORGETTING
        if self._weight > MOST_WEIGHT:
            self.replace(self.events, self.exposure)
        weight, rates = self._weight, self._rates
        index = bisect_right(EDGES, begin) - 1
        if end - begin < 1e-3:  # known to the instant, as from a webhook right after a poll
            self._events[index] += weight
            return
        # Of each bin: its index, the chance to finish in it, the seconds spent in it, its width.
        shares: list[tuple[int, float, float, float]] = []
        survival, total = 1.0, 0.0
        while begin < end:
            right = min(EDGES[index + 1], end)
            rate = rates[index]
            width = right - begin
            dies = -survival * expm1(-rate * width)
            shares.append((index, dies, dies / rate, width))
            survival -= dies
            total += dies
            begin = right
            index += 1
        # Given that it did finish by `end`, what would have survived `end` is taken out of every bin.
        for index, dies, survived, width in shares:
            self._events[index] += weight * dies / total
            seconds = (survived - survival * width) / total
            self._exposure[index] += weight * min(max(seconds, 0.0), width)

    def _count(self) -> None:
        if self._unused >= self._most_unused:
            self.refresh()
        self._unused += 1

    def refresh(self) -> None:
        """Compute the hazards of all bins from all counts."""
        remembered = sum(self._events) / self._weight
        fresh = 1.0 - (1.0 - FORGETTING) * remembered  # the weight that remains of the prior
        prior = self._weight * max(fresh, PRIOR_REMAINDER / PRIOR_TASKS)
        rates = [
            (events + prior * prior_events) / (exposure + prior * prior_exposure)
            for events, exposure, prior_events, prior_exposure in zip(
                self._events, self._exposure, self._prior_events, self._prior_exposure, strict=True
            )
        ]
        self._rates = [min(rate, HIGHEST_RATE) if rate > LOWEST_RATE else LOWEST_RATE for rate in rates]
        self.generation += 1
        self._unused = 0
        self._most_unused = MOST_UNUSED * (PRIOR_TASKS + remembered)


def _solve(growth: float, rate: float, cost: float, width: float) -> float:
    """Return the d at which growth * (exp(rate d) - 1) / rate - d reaches `cost`, known to be <= width.

    The function is convex and lies above its second-order expansion at 0, whose root is therefore a start
    to the right of the solution, from where Newton's steps never overshoot.
    """
    slope = growth - 1.0
    curve = growth * rate
    d = min((sqrt(slope * slope + 2.0 * curve * cost) - slope) / curve, width)
    for _ in range(8):
        grown = growth * exp(rate * d)
        change = ((grown - growth) / rate - d - cost) / (grown - 1.0)
        d -= change
        if change < _CLOSE_ENOUGH:
            break
    return d


@lru_cache(maxsize=64)
def _log_normal_prior(quick: float, slow: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return events and exposure per bin of `PRIOR_TASKS` tasks of a log-normal duration.

    `quick` and `slow` are the ages by which 5 % and 95 % of them are finished.
    """
    centre = (math.log(quick) + math.log(slow)) / 2
    sigma = math.log(slow / quick) / (2 * NormalDist().inv_cdf(0.95))
    normal = NormalDist(centre, sigma)

    def survival(age: float) -> float:
        return normal.cdf(2 * centre - math.log(age)) if age > 0 else 1.0  # 1 - cdf, exact in the far tail

    events: list[float] = []
    exposure: list[float] = []
    points = 32
    for begin, right in pairwise(EDGES):
        end = right if math.isfinite(right) else begin * 4
        width = (end - begin) / points
        inside = sum(survival(begin + (n + 0.5) * width) for n in range(points)) * width
        # A bin that the prior calls impossible still gets a millionth of a task, so that it can be divided.
        events.append(PRIOR_TASKS * (survival(begin) - survival(end)) + 1e-9)
        exposure.append(PRIOR_TASKS * inside + 1e-6)
    return tuple(events), tuple(exposure)
