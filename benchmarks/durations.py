"""Assumed durations of tasks: nobody has published real ones, so the shapes differ widely."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from statistics import NormalDist

import numpy as np

STREAM_AFTER = 20.0
"""Seconds of work after which there is early audio, at most."""
STREAM_SHARE = 0.4
"""Share of the work after which there is, if the work is short."""
STRAGGLERS = 0.02


@dataclass(frozen=True)
class Durations:
    """A distribution: draws durations in seconds and knows its cumulative distribution function."""

    name: str
    what: str
    draw: Callable[[Random], float]
    cdf: Callable[[float], float]


def log_normal(median: float, sigma: float) -> tuple[Callable[[Random], float], Callable[[float], float]]:
    normal = NormalDist(math.log(median), sigma)
    return (
        lambda rng: math.exp(rng.gauss(normal.mean, sigma)),
        lambda age: normal.cdf(math.log(age)) if age > 0 else 0.0,
    )


def two_modes(
    quick: float, slow: float, share: float, sigma: float
) -> tuple[Callable[[Random], float], Callable[[float], float]]:
    """`share` of the tasks are quick."""
    quick_draw, quick_cdf = log_normal(quick, sigma)
    slow_draw, slow_cdf = log_normal(slow, sigma)
    return (
        lambda rng: (quick_draw if rng.random() < share else slow_draw)(rng),
        lambda age: share * quick_cdf(age) + (1 - share) * slow_cdf(age),
    )


_bi_draw, _bi_cdf = two_modes(45, 150, 0.6, 0.2)


def _straggling_draw(rng: Random) -> float:
    return rng.uniform(540, 660) if rng.random() < STRAGGLERS else _bi_draw(rng)


def _straggling_cdf(age: float) -> float:
    late = min(max((age - 540) / 120, 0.0), 1.0)
    return (1 - STRAGGLERS) * _bi_cdf(age) + STRAGGLERS * late


def _queued_draw(rng: Random) -> float:
    return 50 + rng.expovariate(1 / 40)


def _queued_cdf(age: float) -> float:
    return 1 - math.exp(-max(age - 50, 0.0) / 40)


LN = Durations("LN", "log-normal, median 75 s, sigma 0.5", *log_normal(75, 0.5))
BI = Durations("BI", "60 % about 45 s, 40 % about 150 s, sigma 0.2", _bi_draw, _bi_cdf)
BI_STRAGGLERS = Durations("BI+2%", "BI with 2 % stragglers of 9 to 11 min", _straggling_draw, _straggling_cdf)
QUEUED = Durations("QUEUED", "50 s of work after a queue of 40 s on average", _queued_draw, _queued_cdf)
SHARP = Durations("SHARP", "half about 45 s, half about 150 s, sigma 0.15", *two_modes(45, 150, 0.5, 0.15))
ALL = (LN, BI, BI_STRAGGLERS, QUEUED, SHARP)


# --- durations with stages ----------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Draws so many seconds."""


@dataclass(frozen=True)
class Staged:
    """A distribution of songs that show stages: a queue, work with a stream on the way, a second clip."""

    name: str
    what: str
    queue: Draw
    work: Draw
    second: Draw
    shows: bool = True

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw songs, a row each: the ages when work begins, a stream, the first clip and the second come."""
        queue, work = self.queue(rng, count), self.work(rng, count)
        stream = np.minimum(STREAM_AFTER, STREAM_SHARE * work)
        end = queue + work + self.second(rng, count)
        if not self.shows:
            return np.stack([np.zeros(count), end, end, end], axis=1)
        return np.stack([queue, queue + stream, queue + work, end], axis=1)


def exponential(mean: float) -> Draw:
    return lambda rng, count: rng.exponential(mean, count)


def around(median: float, sigma: float) -> Draw:
    return lambda rng, count: median * np.exp(rng.normal(0.0, sigma, count))


def either(one: float, other: float, sigma: float) -> Draw:
    return lambda rng, count: (
        np.where(rng.random(count) < 0.5, one, other) * np.exp(rng.normal(0.0, sigma, count))
    )


def at_once(_rng: np.random.Generator, count: int) -> np.ndarray:
    return np.zeros(count)


LONG_QUEUE = Staged("long queue", "queue exp 60, work 45", exponential(60), around(45, 0.25), exponential(8))
VERY_LONG_QUEUE = Staged(
    "very long queue", "queue exp 180, work 60", exponential(180), around(60, 0.25), exponential(10)
)
UNEVEN_QUEUE = Staged(
    "uneven queue",
    "queue log-normal 90, sigma 0.8, work 50",
    around(90, 0.8),
    around(50, 0.2),
    exponential(5),
)
NO_QUEUE = Staged("no queue", "work 75, sigma 0.35", at_once, around(75, 0.35), exponential(8))
SILENT = Staged(
    "silent", "log-normal 75, sigma 0.5, running from the submit on", at_once, around(75, 0.5), at_once, False
)
STAGED = (
    LONG_QUEUE,
    VERY_LONG_QUEUE,
    Staged("short queue", "queue exp 10, work 55", exponential(10), around(55, 0.3), exponential(8)),
    Staged(
        "two works", "queue exp 20, work 30 or 120", exponential(20), either(30, 120, 0.2), exponential(8)
    ),
    UNEVEN_QUEUE,
    NO_QUEUE,
    SILENT,
)
"""The last three are of another making than the rule; in the last two the stages say little or nothing."""
