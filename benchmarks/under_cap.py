"""Polling under a cap of 5 polls per second: who notices ends sooner, in a steady state and in a burst.

All tasks share one first-come-first-served heap by due time, as in the waiter; a look that is due while the
cap is used up waits for its turn, and the next look is planned from when it really happened. All time is
simulated.

The default policy prices a poll at 2 s of lateness, whatever the cap, and so leaves a fifth of the polls
unused at 1 task/s. Where a cap is known, polls below it are free, and `Learned(price=1.0)` is the better
choice: the queue does the rest. In a burst nearly every look waits for its turn, and no policy helps.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from durations import BI_STRAGGLERS, LN, Durations
from report import Report, arguments

from musicapi_async.tasks.schedule import Fixed, Learned, PollPolicy

POLLS_PER_SECOND = 5.0
BURST = 1000
STEADY = 4000
SAMPLES = 3
KIND = "sonic/create"


@dataclass(frozen=True)
class Noticed:
    """How late the ends of tasks were noticed, and how many polls it took."""

    mean: float
    late95: float
    worst: float
    polls: float


def simulate(policy: PollPolicy, submits: list[float], durations: list[float], warm_up: int) -> Noticed:
    late: list[float] = [0.0] * len(durations)
    polls = [0] * len(durations)
    order = itertools.count()
    arrivals = deque(enumerate(submits))
    due: list[tuple[float, int, int, float | None]] = []
    now = 0.0
    while due or arrivals:
        # A task asks for its first look when it is submitted, with what was learned until then.
        while arrivals and (not due or arrivals[0][1] <= max(now, due[0][0])):
            task, at = arrivals.popleft()
            heapq.heappush(due, (at + policy.first(KIND), next(order), task, None))
        when, _, task, last = heapq.heappop(due)
        now = max(now, when)
        age = now - submits[task]
        polls[task] += 1
        finished = age >= durations[task]
        policy.observed(KIND, finished, last, age)
        if finished:
            late[task] = age - durations[task]
        else:
            heapq.heappush(due, (submits[task] + policy.next(KIND, age), next(order), task, age))
        now += 1 / POLLS_PER_SECOND
    seen = np.array(late[warm_up:])
    return Noticed(
        float(seen.mean()), float(np.quantile(seen, 0.95)), float(seen.max()), float(np.mean(polls[warm_up:]))
    )


def mean_of(runs: list[Noticed]) -> Noticed:
    return Noticed(
        *(float(np.mean([getattr(r, name) for r in runs])) for name in Noticed.__dataclass_fields__)
    )


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    report = Report("under_cap", (__doc__ or "").strip())
    report.text(
        f"Means of {SAMPLES} samples, also of their worst tasks. Steady: {STEADY:,} tasks at equal "
        f"intervals, the first 200 not counted. Burst: {BURST:,} tasks at once."
    )
    makers: dict[str, Callable[[Random], PollPolicy]] = {
        "every 20 s": lambda _: Fixed(20),
        "learned (the default)": lambda rng: Learned(rng=rng),
        "learned, price 1 s": lambda rng: Learned(rng=rng, price=1.0),
    }
    for durations in (LN, BI_STRAGGLERS):
        rows: list[tuple[str, str, float, float, float, float]] = []
        for load, target in (("1 task/s", 0.8), ("2 tasks/s", 0.8), ("burst of 1,000", 1.0)):
            found = {
                name: mean_of([run(make, load, durations, options.seed + n) for n in range(SAMPLES)])
                for name, make in makers.items()
            }
            rows += [(load, name, r.mean, r.late95, r.worst, r.polls) for name, r in found.items()]
            fixed = found.pop("every 20 s")
            for name, learned in found.items():
                report.target(
                    f"{durations.name}, {load}: mean of {name} against every 20 s",
                    learned.mean / fixed.mean,
                    target,
                )
        report.table(
            f"{durations.name}: {durations.what}",
            ("load", "policy", "mean time to notice s", "95 % s", "worst task s", "polls per task"),
            rows,
        )
    report.write(options.out)


def run(make: Callable[[Random], PollPolicy], load: str, durations: Durations, seed: int) -> Noticed:
    rng = Random(seed)
    burst = load.startswith("burst")
    count = BURST if burst else STEADY
    gap = 0.0 if burst else 1 / float(load.split(maxsplit=1)[0])
    sample = [durations.draw(rng) for _ in range(count)]
    return simulate(make(rng), [n * gap for n in range(count)], sample, 0 if burst else 200)


if __name__ == "__main__":
    main()
