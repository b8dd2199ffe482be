"""The schedules that benchmarks compare the default with."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from compared_schedules import ExponentialSchedule, FirstThenFixedSchedule, FixedSchedule

from musicapi_async._wire.retry import drawing
from musicapi_async.polling.schedule import PollSchedule

SONG = "sonic/create sonic-v6"


def polls(schedule: PollSchedule, kind: str, count: int) -> list[float]:
    """Return the ages of the first polls of a task that never ends."""
    ages = [schedule.first(kind)]
    while len(ages) < count:
        ages.append(schedule.next(kind, ages[-1], None))
    return ages


def test_schedules_poll_as_they_say() -> None:
    """Fixed, first then fixed, and doubling intervals, without jitter."""
    assert polls(FixedSchedule(20), SONG, 3) == [20, 40, 60]
    assert polls(FirstThenFixedSchedule(45, 15), SONG, 3) == [45, 60, 75]
    assert polls(ExponentialSchedule(2, 30), SONG, 6) == [2, 6, 14, 30, 60, 90]


@given(st.integers(), st.sampled_from(["full", "equal"]))
def test_jittered_ages_rise(seed: int, jitter: Any) -> None:
    """Jittered ages rise, by no more than the gap and a tenth."""
    for schedule in (
        FixedSchedule(20, draw=drawing(Random(seed))),
        FirstThenFixedSchedule(45, 15, draw=drawing(Random(seed))),
        ExponentialSchedule(2, 30, jitter, draw=drawing(Random(seed))),
    ):
        ages = polls(schedule, SONG, 50)
        assert 0 < ages[0] <= 45 * 1.1
        assert all(0 < b - a <= 33 for a, b in itertools.pairwise(ages))


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedSchedule(0),
        lambda: FirstThenFixedSchedule(math.nan, 15),
        lambda: FirstThenFixedSchedule(15, math.inf),
        lambda: ExponentialSchedule(0, 30),
        lambda: ExponentialSchedule(31, 30),
        lambda: ExponentialSchedule(2, 30, "full"),
    ],
)
def test_impossible_intervals_are_refused(make: Any) -> None:
    """Intervals are positive and finite, and jitter needs a source."""
    with pytest.raises(ValueError, match=r"first|base|draw"):
        make()
