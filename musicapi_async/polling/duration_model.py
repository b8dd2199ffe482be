"""Duration model: how long one kind of task takes, learned from polls, and the next poll worth its cost.

One model
---------
The hazard at x is the chance per second that a task that is unfinished x seconds after some moment finishes
now. It is constant within each of a few geometric bins, because everything known is censored: a poll says
"not finished at 60 s" or "finished between 60 and 75 s", never when. In a bin, the hazard is the number of
tasks that finished there over the seconds that tasks spent there, and both can be counted from such polls.

A late poll costs the caller time, and each poll has a cost. If the next poll is at u, the expected lateness
at u, given that the task was unfinished at a, grows with u; beyond some u a poll is worth its cost. That u is
where

    integral from a to u of (exp(H(x) - H(a)) - 1) dx >= cost        H: the hazard, summed up

which is the optimality condition of inspection schedules with the survival function cancelled out: it needs
the hazard between a and u and nothing else, so one forward sum over a few bins finds it.

One model per stage
-------------------
A poll that finds a task unfinished also shows how far it is: not ready, running, a stream, some clips done.
After a minute in a queue nothing is near; a minute after the first audio nearly everything is. So a kind has
a model of the time since the submit, and one for each stage: of the time *from a poll that showed the stage
until the task is done*. After a poll that shows stage s the next one is the first poll of the model of s,
counted from that poll. When a task has ended between the ages `last` and `age`, a poll of it at t in stage s
teaches the model of s that (last - t, age - t] was the time. That is what matters, and nothing else is
modelled: not when the stages change, since a poll that only catches a change costs as much as any other and
ends no wait (schedules that try to catch them are 6 to 26 % dearer than those that know the age alone), and
not when a stage began, since no poll was there.

A model from the poll on knows neither the age nor for how long the stage has lasted. Where a queue has no
memory, or the work after it takes about the same time, nothing is lost by that and much is gained. Where the
service says "running" from the submit to the end, everything is lost: then the age is all there is. Which of
the two holds is measured, for each stage: before a poll teaches, both models say how likely its outcome was,
given the poll before, and the logarithm of the ratio is added up, forgetting as the counts do. The stage
decides only while that sum, its *advantage*, is clearly positive (prequential selection: Dawid, "Statistical
theory: the prequential approach", 1984). So a stage that says nothing, or that is new, costs what the age
alone costs.

The models of stages begin without an opinion, with one constant hazard: an end that is known to lie between
two polls is spread by the present hazard, and a prior that calls the first seconds impossible would never be
talked out of it.

A task remembers a poll for a minute, which is the longest interval: what comes later is never needed. To
forget it sooner, say when two more polls have come, would distort what is learned, because polls come the
faster the nearer the end is, so that just the tasks that end would be the forgotten ones. Polls of one stage
within half a minute say much the same, so of those only the first is remembered, beside the latest: three as
a rule, at any interval.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate, pairwise
from math import exp, expm1, sqrt
from operator import mul
from statistics import NormalDist
from typing import Annotated, Final

import msgspec

from ..api.operation import LONGEST_INTERVAL

FIRST_EDGE: Final = 8.0
"""Seconds; nothing of this API is ready sooner than a legacy lyric."""

RATIO: Final = 1.25
"""Width of a bin against its left edge. Coarser bins miss modes, finer ones learn slower."""

BINS: Final = 23

EDGES: Final = (0.0, *(FIRST_EDGE * RATIO**n for n in range(BINS - 1)), math.inf)
"""Bins: from 0 to 4 s, then geometric up to 847 s, the last one open."""

WIDTHS: Final = (*(end - begin for begin, end in pairwise(EDGES[:-1])), 0.0)
"""Seconds of each bin; the last one is never crossed."""

PRIOR_TASKS: Final = 8.0
"""How many tasks the stated durations are worth. They are forgotten as any other tasks are."""

PRIOR_SHARE: Final = 1 / 8
"""Share of the prior that is never forgotten: all that is known of ages without polls."""

FLAT_TASKS: Final = 2.0
"""How many tasks the constant hazard is worth with which the model of a stage begins; 8 changes nothing."""

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


Prior = tuple[tuple[float, ...], tuple[float, ...]]
"""Events and seconds per bin with which a model begins."""

MOST_EVENTS: Final = 1e6
MOST_EXPOSURE: Final = 1e9
MOST_ADVANTAGE: Final = 10.0
"""Bounds of what is learned, in tasks, seconds and nats. Forgetting keeps the first two far below; the third
is what a hundred good predictions earn and a few dozen bad ones cost."""

Amounts = Annotated[
    list[Annotated[float, msgspec.Meta(ge=0, le=MOST_EXPOSURE)]], msgspec.Meta(max_length=BINS)
]


class Counts(msgspec.Struct, frozen=True):
    """Everything that a model has learned: tasks that finished and seconds spent in each bin, the older the
    less, and by how much it has predicted better than the age alone, in nats."""

    events: Amounts
    exposure: Amounts
    advantage: Annotated[float, msgspec.Meta(ge=-MOST_ADVANTAGE, le=MOST_ADVANTAGE)] = 0.0

    def __post_init__(self) -> None:
        if not len(self.events) == len(self.exposure) == BINS:
            raise ValueError(f"needs {BINS} bins")
        if not all(map(math.isfinite, (*self.events, *self.exposure, self.advantage))):
            raise ValueError("has a value that is no number")

    def forgotten(self, ended: int) -> Counts:
        """Return what remains of these counts after so many more tasks."""
        remaining = FORGETTING**ended
        return Counts(
            [value * remaining for value in self.events],
            [value * remaining for value in self.exposure],
            self.advantage * remaining,
        )

    def plus(self, other: Counts, sign: float = 1.0) -> Counts:
        """Return the sum of both, or with -1 the difference; neither leaves the bounds."""
        advantage = self.advantage + sign * other.advantage
        return Counts(
            [
                round(min(max(one + sign * two, 0.0), MOST_EVENTS), 6)
                for one, two in zip(self.events, other.events, strict=True)
            ],
            [
                round(min(max(one + sign * two, 0.0), MOST_EXPOSURE), 4)
                for one, two in zip(self.exposure, other.exposure, strict=True)
            ],
            round(min(max(advantage, -MOST_ADVANTAGE), MOST_ADVANTAGE), 6),
        )


NOTHING_LEARNED: Final = Counts([0.0] * BINS, [0.0] * BINS)


class DurationModel:
    """Hazards after one moment in the life of a kind of task, in bins.

    Each is `(events + prior) / (exposure + prior exposure)`. `prior` is one of the two functions below.
    """

    __slots__ = (
        "_crossed",
        "_events",
        "_exposure",
        "_first",
        "_most_unused",
        "_prior_events",
        "_prior_exposure",
        "_rates",
        "_summed",
        "_unused",
        "_weight",
        "advantage",
        "ended",
        "remembered",
    )

    def __init__(self, prior: Prior) -> None:
        self._prior_events, self._prior_exposure = prior
        self._first: tuple[float, float, float] | None = None
        self.ended: int = 0
        """Events that were counted so far, saved and forgotten ones included."""
        self.replace(NOTHING_LEARNED)

    def replace(self, counts: Counts) -> None:
        """Replace everything learned."""
        self._events = list(counts.events)
        self._exposure = list(counts.exposure)
        self._crossed = [0.0] * BINS
        self._weight = 1.0  # of the next count: it grows, so that the earlier ones need not shrink
        self.advantage: float = counts.advantage
        """How much better its predictions were than those by the age alone, in nats, the older the less."""
        self.refresh()

    @property
    def counts(self) -> Counts:
        """Everything learned."""
        weight = self._weight
        return Counts(
            [value / weight for value in self._events],
            [max(value, 0.0) / weight for value in self._seconds()],
            self.advantage,
        )

    def _seconds(self) -> list[float]:
        """Return the seconds spent in each bin, those of bins that tasks crossed as a whole included."""
        return [
            exposure + crossed * width
            for exposure, crossed, width in zip(
                self._exposure, accumulate(self._crossed), WIDTHS, strict=True
            )
        ]

    def __getitem__(self, index: int) -> float:
        """Return the present hazard of a bin, per second."""
        if self._unused:
            self.refresh()
        return self._rates[index]

    def next_poll(self, age: float, cost: float, shortest: float) -> float:
        """Return the age of the next poll that pays, at most `LONGEST_INTERVAL` later.

        Args:
            age: seconds at which the task was unfinished.
            cost: seconds of lateness that one poll is worth.
            shortest: least seconds between `age` and the next poll.

        Returns:
            The age in seconds. Takes about 2 µs.
        """
        rates = self._rates
        index = bisect_right(EDGES, age) - 1
        soonest = age + shortest
        last = age + LONGEST_INTERVAL  # so exp() cannot overflow: no rate is above `HIGHEST_RATE`
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

    def first_poll(self, cost: float, shortest: float) -> float:
        """Return the seconds from the moment until the first poll that pays; see `next_poll`."""
        if self._first is None or self._first[:2] != (cost, shortest):
            self._first = (cost, shortest, self.next_poll(0.0, cost, shortest))
        return self._first[2]

    def summed(self, begin: float, end: float) -> float:
        """Return the hazard between two ages, summed up: a task survives it with chance exp(-hazard)."""
        return self._until(end) - self._until(begin)

    def _until(self, age: float) -> float:
        index = bisect_right(EDGES, age) - 1
        return self._summed[index] + self._rates[index] * (age - EDGES[index])

    def unfinished(self, begin: float, end: float) -> None:
        """Count a task that was unfinished at age `begin` and still is at `end`: more exposure."""
        if self._unused >= self._most_unused:
            self.refresh()
        self._unused += 1
        weight, exposure = self._weight, self._exposure
        first, last = bisect_right(EDGES, begin) - 1, bisect_right(EDGES, end) - 1
        if first == last:
            exposure[first] += weight * (end - begin)
            return
        exposure[first] += weight * (EDGES[first + 1] - begin)
        exposure[last] += weight * (end - EDGES[last])
        # The bins between them are added up when the hazards are computed.
        self._crossed[first + 1] += weight
        self._crossed[last] -= weight

    def finished(self, begin: float, end: float) -> None:
        """Count a task that finished between `begin` and `end`: one event, spread by the present hazard."""
        if self._unused >= self._most_unused:
            self.refresh()
        self._unused += 1
        self.ended += 1
        self.advantage *= FORGETTING
        self._weight /= FORGETTING
        if self._weight > MOST_WEIGHT:
            self.replace(self.counts)
        weight, rates, events, exposure = self._weight, self._rates, self._events, self._exposure
        index = bisect_right(EDGES, begin) - 1
        # Given that it did finish by `end`, what would have survived `end` is taken out of every bin.
        total = -expm1(self._until(begin) - self._until(end))
        if end - begin < 1e-3 or total < LOWEST_RATE:  # known to the instant, or no bin is likelier
            events[index] += weight
            return
        weight /= total
        survival, survives = 1.0, 1.0 - total
        while begin < end:
            right = min(EDGES[index + 1], end)
            rate = rates[index]
            width = right - begin
            dies = -survival * expm1(-rate * width)
            survival -= dies
            seconds = dies / rate - survives * width
            events[index] += weight * dies
            if seconds > 0.0:
                exposure[index] += weight * seconds
            begin = right
            index += 1

    def refresh(self) -> None:
        """Compute the hazards of all bins from all counts."""
        self.remembered: float = sum(self._events) / self._weight
        """Tasks that are not forgotten yet, when the hazards were last computed."""
        fresh = 1.0 - (1.0 - FORGETTING) * self.remembered  # the weight that remains of the prior
        prior = self._weight * max(fresh, PRIOR_SHARE)
        rates = [
            (events + prior * prior_events) / (exposure + prior * prior_exposure)
            for events, exposure, prior_events, prior_exposure in zip(
                self._events, self._seconds(), self._prior_events, self._prior_exposure, strict=True
            )
        ]
        self._rates = [min(rate, HIGHEST_RATE) if rate > LOWEST_RATE else LOWEST_RATE for rate in rates]
        self._summed: list[float] = list(accumulate(map(mul, self._rates[:-1], WIDTHS), initial=0.0))
        self._first = None
        self._unused = 0
        self._most_unused = MOST_UNUSED * (PRIOR_TASKS + self.remembered)


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
def flat_prior(mean: float) -> Prior:
    """Return events and exposure per bin of `FLAT_TASKS` tasks whose hazard is constant.

    `mean` is their mean duration in seconds.
    """
    shares = [exp(-begin / mean) - exp(-end / mean) for begin, end in pairwise(EDGES)]
    return (
        tuple(FLAT_TASKS * share + 1e-9 for share in shares),
        tuple(FLAT_TASKS * share * mean + 1e-6 for share in shares),
    )


@lru_cache(maxsize=64)
def log_normal_prior(quick: float, slow: float) -> Prior:
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
