"""When to look: lateness and polls of every polling policy, against the optimum that knows the durations.

Tasks are submitted every 3 s, as the documented pace allows, and a policy learns of each look when the look
happens, not before. All time is simulated. Cost = mean lateness + 2 s per poll.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from html import escape
from pathlib import Path
from random import Random

import numpy as np
from durations import ALL, LN, Durations
from report import Report, arguments

from musicapi_async.tasks.schedule import (
    LONGEST_GAP,
    PRICE,
    Exponential,
    FirstThenFixed,
    Fixed,
    Learned,
    PollPolicy,
    Timing,
)
from musicapi_async.wire.retry import drawing

TASKS = 3000
WARM_UP = 200
SAMPLES = 5
BETWEEN_SUBMITS = 3.0
GAP = 15.0
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
        return self.late + PRICE * self.polls


def outcome(looks: list[tuple[int, float]]) -> Outcome:
    polls = np.array([count for count, _ in looks])
    late = np.array([seconds for _, seconds in looks])
    return Outcome(float(polls.mean()), float(late.mean()), float(np.quantile(late, 0.95)))


def simulate(policy: PollPolicy, durations: list[float]) -> Outcome:
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
        costs = PRICE * (1 - cdf[now]) + late + value[looks]
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
        simulate(Learned(draw=drawing(rng)), sample).cost
        / static(optimum(durations, GAP, LONGEST_GAP), sample).cost
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


def policies(seed: int) -> dict[str, PollPolicy]:
    return {
        LEARNED: Learned(draw=drawing(Random(seed))),
        "learned, gap 15 s, no jitter": Learned(),
        "learned, gap 5 s": Learned(lambda _kind: Timing(5, 5, 900), draw=drawing(Random(seed))),
        "first 45 s, then every 15 s": FirstThenFixed(45, 15),
        "every 5 s": Fixed(5),
        "every 15 s": Fixed(15),
        "every 20 s": Fixed(20),
        "every 30 s": Fixed(30),
        "expo 2 to 30 s, no jitter": Exponential(2, 30),
        "expo 2 to 30 s, full jitter": Exponential(2, 30, "full", draw=drawing(Random(seed))),
    }


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    report = Report("polling_policy", (__doc__ or "").strip())
    report.text(
        f"{TASKS:,} tasks per distribution, the first {WARM_UP} not counted. The optimum is the best static "
        f"schedule with gaps of {GAP:g} to {LONGEST_GAP:g} s, found by dynamic programming on the true "
        "distribution; clairvoyant looks once, at the right moment."
    )
    spread: list[tuple[str, float, float, float]] = []
    charts: list[tuple[Durations, dict[str, Outcome], list[Outcome]]] = []
    for durations in ALL:
        rng = Random(options.seed)
        sample = [durations.draw(rng) for _ in range(TASKS)]
        results = {
            "clairvoyant": Outcome(1.0, 0.0, 0.0),
            OPTIMUM: static(optimum(durations, GAP, LONGEST_GAP), sample),
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
        charts.append((durations, results, [simulate_fixed(float(i), sample) for i in range(6, 41, 2)]))
    report.table(
        f"Cost of the default against the same-gap optimum, {SAMPLES} samples",
        ("durations", "mean", "least", "most"),
        spread,
    )
    report.write(options.out)
    plot(options.out / "polling_policy.svg", charts)


# Label, kind of dot, and where the label stands (left -8, centred 0, right 8; lines below the dot).
LABELS = {
    "clairvoyant": ("clairvoyant", "p", 8, 4),
    OPTIMUM: ("optimum", "o", -8, 4),
    LEARNED: ("learned", "l", 0, -8),
    "first 45 s, then every 15 s": ("first 45 s, then 15 s", "p", 0, 16),
    "every 15 s": ("every 15 s", "p", 8, -4),
    "every 20 s": ("every 20 s", "p", 8, -4),
    "every 30 s": ("every 30 s", "p", 8, -4),
    "expo 2 to 30 s, no jitter": ("expo, no jitter", "p", 0, -8),
    "expo 2 to 30 s, full jitter": ("expo, full jitter", "p", 0, -8),
}


def plot(path: Path, charts: list[tuple[Durations, dict[str, Outcome], list[Outcome]]]) -> None:
    """Mean lateness over polls per task; down and to the left is better."""
    width, height, margin = 460, 340, 50
    most_polls, most_late = 12.0, 20.0
    columns = 2
    parts: list[str] = []
    for place, (durations, results, curve) in enumerate(charts):
        left, top = (place % columns) * width, (place // columns) * height

        def x(polls: float, left: int = left) -> float:
            return left + margin + polls / most_polls * (width - margin - 20)

        def y(late: float, top: int = top) -> float:
            return top + height - margin - late / most_late * (height - margin - 30)

        title = escape(f"{durations.name}: {durations.what}")
        parts.append(f'<text x="{left + margin}" y="{top + 18}" class="t">{title}</text>')
        for tick in range(0, 13, 2):
            parts.append(f'<path d="M{x(tick):.1f} {y(0):.1f}V{y(most_late):.1f}" class="g"/>')
            parts.append(f'<text x="{x(tick):.1f}" y="{y(0) + 14:.1f}" class="m">{tick}</text>')
        for tick in range(0, 21, 5):
            parts.append(f'<path d="M{x(0):.1f} {y(tick):.1f}H{x(most_polls):.1f}" class="g"/>')
            parts.append(f'<text x="{x(0) - 6:.1f}" y="{y(tick) + 4:.1f}" class="e">{tick}</text>')
        parts.append(f'<text x="{x(most_polls / 2):.1f}" y="{y(0) + 30:.1f}" class="m">polls per task</text>')
        parts.append(f'<text x="{x(0) - 6:.1f}" y="{y(most_late) - 5:.1f}" class="e">late, s</text>')
        line = " ".join(
            f"{x(o.polls):.1f},{y(o.late):.1f}"
            for o in curve
            if o.polls <= most_polls and o.late <= most_late
        )
        parts.append(f'<polyline points="{line}" class="f"/>')
        for name, (label, kind, side, below) in LABELS.items():
            o = results[name]
            at, up = x(o.polls), y(o.late)
            anchor = {-8: "e", 0: "m"}.get(side, "")
            parts.append(f'<circle cx="{at:.1f}" cy="{up:.1f}" r="4" class="{kind}"/>')
            parts.append(
                f'<text x="{at + side:.1f}" y="{up + below:.1f}" class="s {anchor}">{escape(label)}</text>'
            )
    rows = (len(charts) + columns - 1) // columns
    style = (
        "text{font:11px sans-serif;fill:#333}.t{font-weight:bold;font-size:12px}.m{text-anchor:middle}"
        ".e{text-anchor:end}.s{font-size:10px}.g{stroke:#e4e4e4;fill:none}.f{stroke:#999;fill:none}"
        ".p{fill:#888}.l{fill:#c2410c}.o{fill:#15803d}"
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * columns} {height * rows}" role="img" '
        'aria-label="Mean lateness over polls per task for every polling policy; the grey line is all fixed '
        f'intervals"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
