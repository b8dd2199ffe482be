"""How long do such tasks take? A hazard that is learned from looks, and the look that first pays.

The hazard at age x is the chance per second that a task that is unfinished at x finishes now. It is kept
constant within each of a few geometric bins, because all that is known is censored: a look says "not
finished at 60 s" or "finished between 60 and 75 s", never when. In a bin, the hazard is the number of
tasks that finished there over the seconds that tasks spent there, and both can be counted from such looks.

To wait is to be late, to look costs a poll. If the next look is at u, the expected lateness at u, given
that the task was unfinished at a, grows with u; beyond some u a poll is worth its price. That u is where

    integral from a to u of (exp(H(x) - H(a)) - 1) dx >= price        H: the hazard, summed up

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

PRIOR_LEFT: Final = 1.0
"""How many tasks of the prior are never forgotten: what is said of ages that nobody looks at any more."""

FORGETTING: Final = 0.99
"""Weight of everything learned, per finished task: a memory of about 100 tasks, which one client submits in
five minutes, follows a service whose durations drift within the hour."""

NEWS: Final = 0.4
"""Looks that may be learned of before the hazards are worked out anew, per task remembered: as a task takes
about four looks, never more than 10 % of what is known is left out. Saves 2 of 6 µs per look."""

HIGHEST: Final = 1.0
"""Hazard per second above which a higher one changes nothing, as no interval is that short."""

LOWEST: Final = 1e-9
"""Hazard below which a bin counts as empty."""

HEAVIEST: Final = 1e6
"""Weight of the news above which everything is scaled down; 1e6 is 1,400 tasks, and doubles hold 1e300."""

_CLOSE_ENOUGH: Final = 0.05
"""Seconds of error in the next look; far below its jitter."""


class Hazard:
    """The hazard of one kind of task, in bins: `(events + prior) / (exposure + prior exposure)`.

    `quick` and `slow` are the ages in seconds by which 5 % and 95 % of such tasks are said to be finished.
    """

    __slots__ = (
        "_events",
        "_exposure",
        "_news",
        "_patience",
        "_prior_events",
        "_prior_exposure",
        "_rates",
        "_weight",
        "generation",
    )

    def __init__(self, quick: float, slow: float) -> None:
        self._prior_events, self._prior_exposure = _log_normal_prior(quick, slow)
        self.generation = 0
        """Changes whenever the hazards do."""
        self.learn([0.0] * BINS, [0.0] * BINS)

    def learn(self, events: list[float], exposure: list[float]) -> None:
        """Take these events and seconds per bin for everything that was ever learned."""
        self._events = events
        self._exposure = exposure
        self._weight = 1.0  # of what comes next: that grows, so that nothing else has to shrink
        self.work_out()

    @property
    def events(self) -> list[float]:
        """Tasks that finished in each bin, the older the less."""
        return [value / self._weight for value in self._events]

    @property
    def exposure(self) -> list[float]:
        """Seconds that tasks spent in each bin, the older the less."""
        return [value / self._weight for value in self._exposure]

    def __getitem__(self, index: int) -> float:
        """The present hazard of a bin, per second."""
        if self._news:
            self.work_out()
        return self._rates[index]

    def next_look(self, age: float, price: float, shortest: float, longest: float) -> float:
        """The age of the look that first pays, `shortest` to `longest` seconds after `age`."""
        rates = self._rates
        index = bisect_right(EDGES, age) - 1
        soonest = age + shortest
        last = age + min(longest, 600 / HIGHEST)  # exp() of more would overflow
        left, growth, lost = age, 1.0, 0.0
        while True:
            hazard = rates[index]
            right = EDGES[index + 1]
            ended = right >= last
            if ended:
                right = last
            width = right - left
            step = growth * expm1(hazard * width)
            late = step / hazard - width
            if lost + late >= price:
                if right <= soonest:
                    return min(soonest, last)
                paid = left + _solve(growth, hazard, price - lost, width)
                return min(max(paid, soonest), last)
            if ended:
                return last
            lost += late
            growth += step
            left = right
            index += 1

    def unfinished(self, begin: float, end: float) -> None:
        """A task that was unfinished at age `begin` is so at `end`: more exposure."""
        self._hear()
        exposure, weight = self._exposure, self._weight
        index = bisect_right(EDGES, begin) - 1
        while (right := EDGES[index + 1]) < end:
            exposure[index] += weight * (right - begin)
            begin = right
            index += 1
        exposure[index] += weight * (end - begin)

    def finished(self, begin: float, end: float) -> None:
        """A task finished somewhere between `begin` and `end`: one event, spread by the present hazard."""
        self._hear()
        self._weight /= FORGETTING
        if self._weight > HEAVIEST:
            self.learn(self.events, self.exposure)
        weight, rates = self._weight, self._rates
        index = bisect_right(EDGES, begin) - 1
        if end - begin < 1e-3:  # known to the instant, as from a webhook right after a look
            self._events[index] += weight
            return
        shares: list[
            tuple[int, float, float, float]
        ] = []  # bin, chance to finish in it, seconds in it, width
        survival, total = 1.0, 0.0
        left = begin
        while left < end:
            right = min(EDGES[index + 1], end)
            hazard = rates[index]
            width = right - left
            dies = -survival * expm1(-hazard * width)
            shares.append((index, dies, dies / hazard, width))
            survival -= dies
            total += dies
            left = right
            index += 1
        # Given that it did finish by `end`, what would have survived `end` is taken out of every bin.
        for index, dies, survived, width in shares:
            self._events[index] += weight * dies / total
            seconds = (survived - survival * width) / total
            self._exposure[index] += weight * min(max(seconds, 0.0), width)

    def _hear(self) -> None:
        if self._news >= self._patience:
            self.work_out()
        self._news += 1

    def work_out(self) -> None:
        """The hazards of all bins, from what was learned until now."""
        remembered = sum(self._events) / self._weight
        fresh = 1.0 - (1.0 - FORGETTING) * remembered  # the weight of what was there before the first task
        prior = self._weight * max(fresh, PRIOR_LEFT / PRIOR_TASKS)
        rates = [
            (events + prior * prior_events) / (exposure + prior * prior_exposure)
            for events, exposure, prior_events, prior_exposure in zip(
                self._events, self._exposure, self._prior_events, self._prior_exposure, strict=True
            )
        ]
        self._rates = [min(rate, HIGHEST) if rate > LOWEST else LOWEST for rate in rates]
        self.generation += 1
        self._news = 0
        self._patience = NEWS * (PRIOR_TASKS + remembered)


def _solve(growth: float, hazard: float, price: float, width: float) -> float:
    """The d at which growth * (exp(hazard d) - 1) / hazard - d reaches `price`, known to be <= width.

    The function is convex and lies above its second-order expansion at 0, whose root is therefore a start
    to the right of the solution, from where Newton's steps never overshoot.
    """
    slope = growth - 1.0
    curve = growth * hazard
    d = min((sqrt(slope * slope + 2.0 * curve * price) - slope) / curve, width)
    for _ in range(8):
        grown = growth * exp(hazard * d)
        change = ((grown - growth) / hazard - d - price) / (grown - 1.0)
        d -= change
        if change < _CLOSE_ENOUGH:
            break
    return d


@lru_cache(maxsize=64)
def _log_normal_prior(quick: float, slow: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Events and exposure per bin of `PRIOR_TASKS` tasks of a log-normal duration with these 5 % and 95 %."""
    centre = (math.log(quick) + math.log(slow)) / 2
    sigma = math.log(slow / quick) / (2 * NormalDist().inv_cdf(0.95))
    normal = NormalDist(centre, sigma)

    def survival(age: float) -> float:
        return normal.cdf(2 * centre - math.log(age)) if age > 0 else 1.0  # 1 - cdf, exact in the far tail

    events: list[float] = []
    exposure: list[float] = []
    points = 32
    for left, right in pairwise(EDGES):
        end = right if math.isfinite(right) else left * 4
        width = (end - left) / points
        inside = sum(survival(left + (n + 0.5) * width) for n in range(points)) * width
        # A bin that the prior calls impossible still gets a millionth of a task, so that it can be divided.
        events.append(PRIOR_TASKS * (survival(left) - survival(end)) + 1e-9)
        exposure.append(PRIOR_TASKS * inside + 1e-6)
    return tuple(events), tuple(exposure)
