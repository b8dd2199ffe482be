"""Lateness and polls of every poll schedule, against the optimum that knows the durations.

Tasks are submitted every 3 s, as the documented rate allows, and a policy learns of each look when the look
happens, not before. All time is simulated. Cost = mean lateness + 2 s per poll.

First with tasks that show nothing until they are done, then with songs that show stages. The optimum is that
of time alone everywhere: it knows the distribution of the durations, and of a song only the age. So a rule
that sees stages can be below 1.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
from compared_schedules import ExponentialSchedule, FirstThenFixedSchedule, FixedSchedule
from durations import (
    ALL,
    LN,
    LONG_QUEUE,
    NO_QUEUE,
    SILENT,
    STAGED,
    VERY_LONG_QUEUE,
    Durations,
    Staged,
    log_normal,
)
from report import Report, arguments

from musicapi_async._wire.retry import drawing
from musicapi_async.api.operation import LONGEST_INTERVAL
from musicapi_async.api.sonic import SONIC_POLLED
from musicapi_async.clock import Clock
from musicapi_async.jobs import MemoryStore
from musicapi_async.polling.kind_model import PolledStage, Sample, Stage, with_poll
from musicapi_async.polling.saved_durations import SavedDurations
from musicapi_async.polling.schedule import POLL_COST, LearnedSchedule, PollSchedule

TASKS = 3000
WARM_UP = 200
SAMPLES = 5
BETWEEN_SUBMITS = 3.0
STAGED_TASKS = 2000
STAGED_SAMPLES = 10
FIRST_TASKS = 20
EARLIER_PROCESSES = 10
LATER_PROCESSES = 10
LEARNED_BEFORE = 500
GAP = 15.0
SHORT_GAP = 5.0
HORIZON = 6000.0
SOON = msgspec.structs.replace(SONIC_POLLED, first=5, interval=5)
KIND = "sonic/create"
OPTIMUM = "optimum that knows the durations, gap 15 s"
LEARNED = "learned, gap 15 s (the default)"


@dataclass(frozen=True)
class Outcome:
    """What a policy cost after its warm-up."""

    polls: float
    late: float
    late95: float

    @property
    def cost(self) -> float:
        return self.late + POLL_COST * self.polls


Life = Sequence[float]
"""The ages at which a task is ready, has a stream, has its first clip, and is done."""

STAGED_BOUNDS = {
    (LONG_QUEUE.name, GAP): 0.84,
    (LONG_QUEUE.name, SHORT_GAP): 0.75,
    (VERY_LONG_QUEUE.name, GAP): 0.72,
    (VERY_LONG_QUEUE.name, SHORT_GAP): 0.67,
}
NO_WORSE = 1.02


class AgeAlone:
    """A schedule that is not given the stages."""

    def __init__(self, schedule: PollSchedule) -> None:
        self.schedule = schedule

    def first(self, kind: str) -> float:
        return self.schedule.first(kind)

    def next(self, kind: str, age: float, stage: Stage | None) -> float:
        return self.schedule.next(kind, age, None)

    def observed(
        self, kind: str, finished: bool, last_age: float | None, age: float, latest: PolledStage | None
    ) -> None:
        self.schedule.observed(kind, finished, last_age, age, None)


def outcome(looks: list[tuple[int, float]]) -> Outcome:
    polls = np.array([count for count, _ in looks])
    late = np.array([seconds for _, seconds in looks])
    return Outcome(float(polls.mean()), float(late.mean()), float(np.quantile(late, 0.95)))


def simulate(policy: PollSchedule, lives: Sequence[Life], warm_up: int = WARM_UP) -> Outcome:
    """All looks of all tasks in the order of time."""
    results: list[tuple[int, float]] = [(0, 0.0)] * len(lives)
    sample = Sample(drawing(Random(0)))
    due: list[tuple[float, int, float, float | None, int, PolledStage | None]] = []
    for task, _ in enumerate(lives):
        heapq.heappush(due, (task * BETWEEN_SUBMITS, task, -1.0, None, 0, None))
    while due:
        _, task, age, last, polls, latest = heapq.heappop(due)
        if age < 0:
            following, polled_at = policy.first(KIND), None
        else:
            polls += 1
            ready, stream, first, end = lives[task]
            policy.observed(KIND, age >= end, last, age, latest)
            if age >= end:
                results[task] = polls, age - end
                continue
            stage: Stage = (
                "pending"
                if age < ready
                else "running"
                if age < stream
                else "stream"
                if age < first
                else "first"
            )
            if last is None and sample.takes(KIND):
                latest = with_poll(None, age, stage)
            elif latest is not None:
                latest = with_poll(latest, age, stage)
            following, polled_at = policy.next(KIND, age, stage), age
        heapq.heappush(due, (task * BETWEEN_SUBMITS + following, task, following, polled_at, polls, latest))
    return outcome(results[warm_up:])


def silent(durations: list[float]) -> list[Life]:
    """Tasks that are running from the submit to the end."""
    return [(0.0, end, end, end) for end in durations]


def optimum(durations: Durations | Staged, shortest: float, longest: float) -> list[float]:
    """The ages of the best static looks, by dynamic programming backwards over ages of half a second."""
    step = 0.5
    ages = np.arange(0.0, HORIZON + step, step)
    if isinstance(durations, Staged):
        ends = np.sort(durations.draw(np.random.default_rng(0), 400_000)[:, -1])
        cdf = np.searchsorted(ends, ages, side="right") / len(ends)
    else:
        cdf = np.array([durations.cdf(float(age)) for age in ages])
    area = np.concatenate([[0.0], np.cumsum((cdf[1:] + cdf[:-1]) / 2 * step)])
    near, far = round(shortest / step), round(longest / step)
    value = np.zeros(len(ages) + far)
    choice = np.zeros(len(ages), dtype=int)
    padded_area = np.concatenate([area, area[-1] + step * np.arange(1, far + 1)])
    for now in range(len(ages) - 1, -1, -1):
        looks = np.arange(now + near, now + far + 1)
        late = padded_area[looks] - area[now] - cdf[now] * (looks - now) * step
        costs = POLL_COST * (1 - cdf[now]) + late + value[looks]
        best = int(np.argmin(costs))
        value[now], choice[now] = costs[best], looks[best]
    schedule: list[float] = []
    now = 0
    while now < len(ages):
        now = int(choice[now])
        schedule.append(now * step)
    return schedule


def static(schedule: list[float], durations: Sequence[float], warm_up: int = WARM_UP) -> Outcome:
    ages = np.array(schedule)
    found = np.searchsorted(ages, np.array(durations))
    looks = [
        (int(index) + 1, float(ages[index]) - duration)
        for index, duration in zip(found, durations, strict=True)
    ]
    return outcome(looks[warm_up:])


def against_optimum(durations: Durations, seed: int) -> float:
    """Cost of the default over that of the optimum, on one sample."""
    rng = Random(seed)
    sample = [durations.draw(rng) for _ in range(TASKS)]
    return (
        simulate(LearnedSchedule(draw=drawing(rng)), silent(sample)).cost
        / static(optimum(durations, GAP, LONGEST_INTERVAL), sample).cost
    )


def fixed_with_polls(polls: float, durations: list[float]) -> tuple[float, Outcome]:
    """The fixed interval that needs as many polls per task."""
    low, high = 1.0, 300.0
    for _ in range(50):
        middle = (low + high) / 2
        if simulate_fixed(middle, durations).polls > polls:
            low = middle
        else:
            high = middle
    return high, simulate_fixed(high, durations)


def simulate_fixed(interval: float, durations: list[float]) -> Outcome:
    return static([interval * n for n in range(1, int(2000 / interval) + 2)], durations)


def made(gap: float, seed: int) -> LearnedSchedule:
    """The default schedule with another gap."""
    times = msgspec.structs.replace(SONIC_POLLED, first=gap, interval=gap)
    return LearnedSchedule(lambda _kind: times, draw=drawing(Random(seed)))


def with_stages(report: Report, seed: int) -> None:
    """The default and its rule for the age alone, on songs that show stages."""
    rows: list[tuple[str, float, float, float, float, float, float, float, float, float]] = []
    for durations in STAGED:
        for gap in (GAP, SHORT_GAP):
            best = optimum(durations, gap, LONGEST_INTERVAL)
            ratios: list[float] = []
            alone: list[float] = []
            found: list[Outcome] = []
            for number in range(seed, seed + STAGED_SAMPLES):
                lives = durations.draw(np.random.default_rng(number), STAGED_TASKS)
                cost = static(best, lives[:, -1].tolist()).cost
                found.append(simulate(made(gap, number), lives.tolist()))
                ratios.append(found[-1].cost / cost)
                alone.append(simulate(AgeAlone(made(gap, number)), lives.tolist()).cost / cost)
            polls, late, late95 = (
                float(np.mean([getattr(one, name) for one in found])) for name in ("polls", "late", "late95")
            )
            mean = float(np.mean(ratios))
            rows.append(
                (
                    f"{durations.name}: {durations.what}",
                    gap,
                    polls,
                    late,
                    late95,
                    mean,
                    float(np.std(ratios, ddof=1)),
                    min(ratios),
                    max(ratios),
                    float(np.mean(alone)),
                )
            )
            bound = STAGED_BOUNDS.get((durations.name, gap), NO_WORSE)
            report.target(
                f"{durations.name}, gap {gap:g} s: cost over the optimum of time alone, mean of "
                f"{STAGED_SAMPLES} samples",
                mean,
                bound,
            )
            if durations in (NO_QUEUE, SILENT):
                report.target(
                    f"{durations.name}, gap {gap:g} s: cost over the same rule without stages",
                    mean / float(np.mean(alone)),
                    NO_WORSE,
                )
    report.table(
        f"Songs that show stages, {STAGED_SAMPLES} samples of {STAGED_TASKS:,}: cost over the optimum of "
        "time alone",
        (
            "durations",
            "gap s",
            "polls per task",
            "mean lateness s",
            "95 % lateness s",
            "cost over the optimum",
            "standard deviation",
            "least",
            "most",
            "the rule without stages",
        ),
        rows,
    )


def cold_starts(report: Report, seed: int) -> None:
    """The first tasks of a process, with and without what an earlier one has learned."""
    rows: list[tuple[str, float, float]] = []
    quick, slow = (
        Durations(f"LN {median}", f"log-normal, median {median} s, sigma 0.3", *log_normal(median, 0.3))
        for median in (25, 200)
    )
    for durations in (*ALL, quick, slow, *STAGED):
        best = optimum(durations, GAP, LONGEST_INTERVAL)
        costs = np.zeros(3)
        for earlier in range(EARLIER_PROCESSES):
            store = MemoryStore()
            learned(store, lives_of(durations, seed + earlier, LEARNED_BEFORE), seed + earlier)
            for later in range(LATER_PROCESSES):
                number = seed + 100 * (earlier + 1) + later
                lives = lives_of(durations, number, FIRST_TASKS)
                costs += (
                    simulate(learned(store, (), number), lives, 0).cost,
                    simulate(made(GAP, number), lives, 0).cost,
                    static(best, [life[-1] for life in lives], 0).cost,
                )
        with_memory, without, least = map(float, costs)
        rows.append((f"{durations.name}: {durations.what}", with_memory / least, without / least))
        report.target(
            f"{durations.name}: cost of the first {FIRST_TASKS} tasks with what was learned before, against "
            "the optimum",
            with_memory / least,
            1.08,
        )
    report.table(
        f"The first {FIRST_TASKS} tasks of a process, {EARLIER_PROCESSES * LATER_PROCESSES} samples, gap "
        f"{GAP:g} s: cost over the optimum of time alone",
        ("durations", f"after {LEARNED_BEFORE} tasks of another process", "with the declared times"),
        rows,
    )


def lives_of(durations: Durations | Staged, seed: int, count: int) -> Sequence[Life]:
    if isinstance(durations, Staged):
        lives: list[Life] = durations.draw(np.random.default_rng(seed), count).tolist()
        return lives
    rng = Random(seed)
    return silent([durations.draw(rng) for _ in range(count)])


def learned(store: MemoryStore, lives: Sequence[Life], seed: int) -> LearnedSchedule:
    """The schedule of a process that has this store, after these tasks, which it has saved."""
    schedule = made(GAP, seed)

    async def live() -> None:
        saved = SavedDurations(schedule, store, Clock())
        await saved.load()
        if lives:
            simulate(schedule, lives, 0)
            await saved.save()

    asyncio.run(live())
    return schedule


def policies(seed: int) -> dict[str, PollSchedule]:
    return {
        LEARNED: LearnedSchedule(draw=drawing(Random(seed))),
        "learned, gap 15 s, no jitter": LearnedSchedule(),
        "learned, gap 5 s": LearnedSchedule(lambda _kind: SOON, draw=drawing(Random(seed))),
        "first 45 s, then every 15 s": FirstThenFixedSchedule(45, 15),
        "every 5 s": FixedSchedule(5),
        "every 15 s": FixedSchedule(15),
        "every 20 s": FixedSchedule(20),
        "every 30 s": FixedSchedule(30),
        "expo 2 to 30 s, no jitter": ExponentialSchedule(2, 30),
        "expo 2 to 30 s, full jitter": ExponentialSchedule(2, 30, "full", draw=drawing(Random(seed))),
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--redraw", action="store_true", help="only draw the chart of the saved figures again"
    )
    options = parser.parse_args()
    if options.redraw:
        saved = (options.out / "polling_policy.json").read_text(encoding="utf-8")
        plot(options.out / "polling_policy.svg", json.loads(saved))
        return
    report = Report("polling_policy", (__doc__ or "").strip())
    report.text(
        f"{TASKS:,} tasks per distribution, the first {WARM_UP} not counted. The optimum is the best static "
        f"schedule with gaps of {GAP:g} to {LONGEST_INTERVAL:g} s, found by dynamic programming on the true "
        "distribution; clairvoyant looks once, at the right moment."
    )
    spread: list[tuple[str, float, float, float]] = []
    fixed_intervals: dict[str, list[tuple[float, float]]] = {}
    for durations in ALL:
        rng = Random(options.seed)
        sample = [durations.draw(rng) for _ in range(TASKS)]
        results = {
            "clairvoyant": Outcome(1.0, 0.0, 0.0),
            OPTIMUM: static(optimum(durations, GAP, LONGEST_INTERVAL), sample),
        }
        results |= {name: simulate(policy, silent(sample)) for name, policy in policies(options.seed).items()}
        best, learned = results[OPTIMUM], results[LEARNED]
        interval, equal = fixed_with_polls(learned.polls, sample)
        results[f"every {interval:.1f} s (as many polls as the default)"] = equal
        report.table(
            f"{durations.name}: {durations.what}",
            (
                "policy",
                "polls per task",
                "mean lateness s",
                "95 % lateness s",
                "cost s",
                "against the optimum",
            ),
            [(name, r.polls, r.late, r.late95, r.cost, r.cost / best.cost) for name, r in results.items()],
        )
        ratios = [against_optimum(durations, options.seed + n) for n in range(SAMPLES)]
        spread.append((durations.name, sum(ratios) / SAMPLES, min(ratios), max(ratios)))
        bound = 1.05 if durations is LN else 1.10
        report.target(
            f"{durations.name}: cost against the same-gap optimum, mean of {SAMPLES} samples",
            spread[-1][1],
            bound,
        )
        report.target(
            f"{durations.name}: cost against a fixed 5 s", learned.cost / results["every 5 s"].cost, 0.5
        )
        if durations is LN:
            report.target(
                "LN: lateness against a fixed interval at equal polls", learned.late / equal.late, 0.72
            )
        curve = [simulate_fixed(float(interval), sample) for interval in range(6, 41, 2)]
        fixed_intervals[f"{durations.name}: {durations.what}"] = [(o.polls, o.late) for o in curve]
    report.table(
        f"Cost of the default against the same-gap optimum, {SAMPLES} samples",
        ("durations", "mean", "least", "most"),
        spread,
    )
    report.data["fixed_intervals"] = fixed_intervals
    with_stages(report, options.seed)
    cold_starts(report, options.seed)
    report.write(options.out)
    plot(options.out / "polling_policy.svg", report.data)


# Label, kind of dot, and where the label stands (left, centred or right of it; points above the dot).
LABELS = {
    "clairvoyant": ("clairvoyant", "policy", "left", 4),
    OPTIMUM: ("optimum", "optimum", "right", -3),
    LEARNED: ("learned", "learned", "center", 7),
    "first 45 s, then every 15 s": ("first 45 s, then 15 s", "policy", "center", -14),
    "every 15 s": ("every 15 s", "policy", "left", 3),
    "every 20 s": ("every 20 s", "policy", "left", 3),
    "every 30 s": ("every 30 s", "policy", "left", 3),
    "expo 2 to 30 s, no jitter": ("expo, no jitter", "policy", "left", -3),
    "expo 2 to 30 s, full jitter": ("expo, full jitter", "policy", "center", 7),
}
COLOURS = {"policy": "#888888", "optimum": "#15803d", "learned": "#c2410c"}


def plot(path: Path, data: dict[str, Any]) -> None:
    """Mean lateness over polls per task, from the saved figures; down and to the left is better."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    tables = {
        table["title"]: {row["policy"]: row for row in table["rows"]}
        for table in data["tables"]
        if table["title"] in data["fixed_intervals"]
    }
    # Text stays text, and neither a date nor chance is in the file, so that equal figures give equal bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "polling_policy", "font.size": 8}):
        rows = (len(tables) + 1) // 2
        figure = Figure(figsize=(9.2, 3.4 * rows), layout="constrained")
        axes = list(figure.subplots(rows, 2, squeeze=False).flat)
        for axis, (title, policies) in zip(axes, tables.items(), strict=False):
            axis.set(
                title=title, xlabel="polls per task", ylabel="mean lateness, s", xlim=(0, 12), ylim=(0, 20)
            )
            axis.grid(color="#e4e4e4")
            axis.set_axisbelow(True)
            axis.plot(*zip(*data["fixed_intervals"][title], strict=True), color="#999999", linewidth=1)
            for name, (label, kind, side, above) in LABELS.items():
                at = policies[name]["polls per task"], policies[name]["mean lateness s"]
                axis.plot(*at, "o", color=COLOURS[kind], markersize=5, clip_on=False)
                beside = {"left": 6, "center": 0, "right": -6}[side]
                axis.annotate(label, at, (beside, above), textcoords="offset points", ha=side, fontsize=7)
        for axis in axes[len(tables) :]:
            axis.set_axis_off()
        figure.savefig(
            path,
            metadata={
                "Date": None,
                "Title": "Mean lateness over polls per task for every polling policy; grey: fixed intervals",
            },
        )


if __name__ == "__main__":
    main()
