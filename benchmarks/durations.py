"""Assumed durations of tasks: nobody has published real ones, so the shapes differ widely."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from statistics import NormalDist

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
