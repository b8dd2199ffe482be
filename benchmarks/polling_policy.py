"""When to look: lateness and polls of every polling policy, against the optimum that knows the durations.

Tasks are submitted every 3 s, as the documented rate allows, and a policy learns of each look when the look
happens, not before. All time is simulated. Cost = mean lateness + 2 s per poll.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
from compared_schedules import ExponentialSchedule, FirstThenFixedSchedule, FixedSchedule
from durations import ALL, LN, Durations
from report import Report, arguments

from musicapi_async._wire.retry import drawing
from musicapi_async.api.operation import LONGEST_INTERVAL
from musicapi_async.api.sonic import SONGS
from musicapi_async.polling.schedule import POLL_COST, LearnedSchedule, PollSchedule

TASKS = 3000
WARM_UP = 200
SAMPLES = 5
BETWEEN_SUBMITS = 3.0
GAP = 15.0
SOON = msgspec.structs.replace(SONGS, first=5, interval=5)
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


def outcome(looks: list[tuple[int, float]]) -> Outcome:
    polls = np.array([count for count, _ in looks])
    late = np.array([seconds for _, seconds in looks])
    return Outcome(float(polls.mean()), float(late.mean()), float(np.quantile(late, 0.95)))


def simulate(policy: PollSchedule, durations: list[float]) -> Outcome:
    """All looks of all tasks in the order of time."""
    results: list[tuple[int, float]] = [(0, 0.0)] * len(durations)
    due: list[tuple[float, int, float | None, float, int]] = []
    for task, _ in enumerate(durations):
        heapq.heappush(due, (task * BETWEEN_SUBMITS, task, None, -1.0, 0))
    while due:
        _, task, last, age, polls = heapq.heappop(due)
        if age < 0:
            following = policy.first(KIND)
        else:
            polls += 1
            finished = age >= durations[task]
            policy.observed(KIND, finished, last, age)
            if finished:
                results[task] = polls, age - durations[task]
                continue
            last, following = age, policy.next(KIND, age)
        heapq.heappush(due, (task * BETWEEN_SUBMITS + following, task, last, following, polls))
    return outcome(results[WARM_UP:])


def optimum(durations: Durations, shortest: float, longest: float) -> list[float]:
    """The ages of the best static looks, by dynamic programming backwards over ages of half a second."""
    step = 0.5
    ages = np.arange(0.0, 1500.0 + step, step)
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


def static(schedule: list[float], durations: list[float]) -> Outcome:
    ages = np.array(schedule)
    found = np.searchsorted(ages, np.array(durations))
    looks = [
        (int(index) + 1, float(ages[index]) - duration)
        for index, duration in zip(found, durations, strict=True)
    ]
    return outcome(looks[WARM_UP:])


def against_optimum(durations: Durations, seed: int) -> float:
    """Cost of the default over that of the optimum, on one sample."""
    rng = Random(seed)
    sample = [durations.draw(rng) for _ in range(TASKS)]
    return (
        simulate(LearnedSchedule(draw=drawing(rng)), sample).cost
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
        results |= {name: simulate(policy, sample) for name, policy in policies(options.seed).items()}
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

    tables = {table["title"]: {row["policy"]: row for row in table["rows"]} for table in data["tables"][:-1]}
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
