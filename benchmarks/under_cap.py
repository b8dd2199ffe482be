"""Polling under a cap of 5 polls per second: who notices ends sooner, in a steady state and in a burst.

The waiter, the limiter and the schedules are the real ones, in virtual time; only the answers are made up. A
poll that is due while the cap is used up waits for its turn, first due first served, and the next poll is
planned from when it really happened.

The default policy, as a client makes it whose limiter has a rate for polls, takes the cost of a poll from
the queue for them: one that would remain unused is nearly free, and one that delays others is dear. The
learned schedules with a fixed cost show what that is worth. In a burst nearly every poll waits for its turn,
so that no schedule helps: the default must not begin late, while the cap is idle. Its mean there is that of
the fixed interval within the error, which comes from the order in which jitter lines up the tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

import numpy as np
from compared_schedules import FixedSchedule, MadeUpClient
from durations import BI_STRAGGLERS, LN, Durations
from report import Report, arguments

from musicapi_async._transport.rate_limiter import LaneLimits, MemoryLimiter
from musicapi_async._transport.rate_window import Rate
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.retry import Draw, drawing
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import Clips, TaskUpdate
from musicapi_async.api.task import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.polling.schedule import LearnedSchedule, PollCost, PollSchedule
from musicapi_async.polling.waiter import TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop

CAP = Rate(5, 1.0)
BURST = 1000
BURST_SAMPLES = 100
STEADY = 4000
STEADY_SAMPLES = 5
FIXED = "every 20 s"
DEFAULT = "learned (the default)"

Make = Callable[[Draw, MemoryLimiter, Clock], PollSchedule]
SCHEDULES: dict[str, Make] = {
    FIXED: lambda _draw, _limiter, _clock: FixedSchedule(20),
    DEFAULT: lambda draw, limiter, clock: LearnedSchedule(
        poll_cost=PollCost(partial(limiter.has_long_queue, "poll"), clock.now), draw=draw
    ),
    "learned, poll cost 2 s": lambda draw, _limiter, _clock: LearnedSchedule(draw=draw),
    "learned, poll cost 1 s": lambda draw, _limiter, _clock: LearnedSchedule(poll_cost=1.0, draw=draw),
}


@dataclass(frozen=True)
class Noticed:
    """How late the ends of tasks were noticed, and how many polls it took."""

    mean: float
    late95: float
    worst: float
    polls: float


@dataclass(frozen=True)
class Load:
    """When tasks are submitted, and how many of the first are not counted."""

    name: str
    count: int
    gap: float
    warm_up: int
    samples: int
    target: float


LOADS = (
    Load("1 task/s", STEADY, 1.0, 200, STEADY_SAMPLES, 0.8),
    Load("2 tasks/s", STEADY, 0.5, 200, STEADY_SAMPLES, 0.8),
    Load("burst of 1,000", BURST, 0.0, 0, BURST_SAMPLES, 1.0),
)


async def watch(make: Make, load: Load, durations: list[float], draw: Draw) -> Noticed:
    loop = asyncio.get_running_loop()
    clock = Clock()
    limiter = MemoryLimiter({"poll": LaneLimits(64, CAP)}, clock)
    late = [0.0] * load.count
    polls = [0] * load.count

    class Client(MadeUpClient):
        async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
            number = int(ref.task_id)
            async with limiter.slot("poll"):
                polls[number] += 1
                late[number] = loop.time() - number * load.gap - durations[number]
            if late[number] < 0:
                return PollResult(phase="running", update=TaskUpdate("running"))
            return PollResult(phase="done", update=TaskUpdate("succeeded", result=Clips((), None)))

    waiter = TaskWaiter(Client(), make(draw, limiter, clock), clock, draw)

    async def song(number: int) -> None:
        await asyncio.sleep(number * load.gap - loop.time())
        await waiter.wait(
            TaskRef("sonic", str(number), "create_music", model="sonic-v6", own=True), "all", 1e5
        )

    await asyncio.gather(*(song(number) for number in range(load.count)))
    await waiter.aclose()
    counted = np.array(late[load.warm_up :])
    return Noticed(
        float(counted.mean()),
        float(np.quantile(counted, 0.95)),
        float(counted.max()),
        float(np.mean(polls[load.warm_up :])),
    )


def samples(make: Make, load: Load, durations: Durations, seed: int) -> list[Noticed]:
    found: list[Noticed] = []
    for number in range(load.samples):
        rng = Random(seed + number)
        sample = [durations.draw(rng) for _ in range(load.count)]
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            found.append(runner.run(watch(make, load, sample, drawing(rng))))
    return found


def mean_of(runs: list[Noticed], name: str) -> float:
    return float(np.mean([getattr(run, name) for run in runs]))


def error_of_ratio(runs: list[Noticed], others: list[Noticed], name: str = "mean") -> float:
    """The standard error of the ratio of two figures over the same samples."""
    ratios = [getattr(one, name) / getattr(other, name) for one, other in zip(runs, others, strict=True)]
    return float(np.std(ratios, ddof=1) / len(ratios) ** 0.5)


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    report = Report("under_cap", (__doc__ or "").strip())
    report.text(
        f"Steady: {STEADY:,} tasks at equal intervals, the first 200 not counted, means of {STEADY_SAMPLES} "
        f"samples. Burst: {BURST:,} tasks at once, {BURST_SAMPLES} samples. The worst tasks are means over "
        "the samples, too. The error is the standard error of the ratio to the fixed interval."
    )
    for durations in (LN, BI_STRAGGLERS):
        rows: list[tuple[str, str, float, float, float, float, float, float]] = []
        for load in LOADS:
            found = {
                name: samples(make, load, durations, options.seed)
                for name, make in SCHEDULES.items()
                if load.gap or name in (FIXED, DEFAULT)
            }
            fixed = found[FIXED]
            for name, runs in found.items():
                ratio = mean_of(runs, "mean") / mean_of(fixed, "mean")
                figures = (mean_of(runs, what) for what in ("mean", "late95", "worst", "polls"))
                rows.append((load.name, name, *figures, ratio, error_of_ratio(runs, fixed)))  # type: ignore[arg-type]
                if name == DEFAULT:
                    report.target(
                        f"{durations.name}, {load.name}: mean of {name} against {FIXED}", ratio, load.target
                    )
            if not load.gap:
                worst = mean_of(found[DEFAULT], "worst") / mean_of(fixed, "worst")
                error = error_of_ratio(found[DEFAULT], fixed, "worst")
                what = f"worst task of {DEFAULT} against {FIXED}, error {error:.4f}"
                report.target(f"{durations.name}, {load.name}: {what}", worst, 1.0)
        report.table(
            f"{durations.name}: {durations.what}",
            (
                "load",
                "policy",
                "mean time to notice s",
                "95 % s",
                "worst task s",
                "polls per task",
                f"against {FIXED}",
                "error",
            ),
            rows,
        )
    report.write(options.out)


if __name__ == "__main__":
    main()
