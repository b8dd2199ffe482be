"""The learned schedule and its duration model."""

from __future__ import annotations

import itertools
import json
import math
from bisect import bisect_right
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async._wire.retry import drawing
from musicapi_async.api.operation import LONGEST_INTERVAL
from musicapi_async.polling.duration_model import BINS, EDGES, Counts, DurationModel, log_normal_prior
from musicapi_async.polling.kind_model import MOST_KINDS, PolledStage, Stage, with_poll
from musicapi_async.polling.schedule import POLL_JITTER, LearnedSchedule, PollSchedule, documented

SONG = "sonic/create sonic-v6"
STAGES: tuple[Stage, ...] = ("pending", "running", "stream", "first")


def polls(schedule: PollSchedule, kind: str, count: int, stage: Stage | None = None) -> list[float]:
    """Return the ages of the first polls of a task that never ends, and always shows one stage."""
    ages = [schedule.first(kind)]
    while len(ages) < count:
        ages.append(schedule.next(kind, ages[-1], stage))
    return ages


def live(
    schedule: PollSchedule, kind: str, duration: float, queued: float = 0.0, word: Stage = "running"
) -> tuple[int, float]:
    """Poll one task to its end as the waiter does: polls taken, lateness of the last.

    It shows `pending` while it is queued, and then `word`.
    """
    latest: PolledStage | None = None
    age, taken = schedule.first(kind), 1
    while age < duration:
        schedule.observed(kind, False, None if latest is None else latest.age, age, latest)
        stage: Stage = "pending" if age < queued else word
        latest = with_poll(latest, age, stage)
        age, taken = schedule.next(kind, age, stage), taken + 1
    schedule.observed(kind, True, None if latest is None else latest.age, age, latest)
    return taken, age - duration


def test_cold_start_follows_the_declared_durations() -> None:
    """Before any song was polled the polls fall where one to four minutes make them pay."""
    assert polls(LearnedSchedule(), SONG, 5) == pytest.approx([45, 63, 79.5, 95.5, 111], abs=1)


def test_polls_move_to_where_tasks_end() -> None:
    """When songs take 150 s the first polls come late, and few are needed."""
    schedule = LearnedSchedule()
    before = polls(schedule, SONG, 1)[0]
    rng = Random(1)
    costs = [live(schedule, SONG, rng.gauss(150, 8)) for _ in range(150)][100:]
    assert schedule.first(SONG) == LONGEST_INTERVAL > before
    assert sum(taken for taken, _ in costs) / 50 < 4.5
    assert sum(late for _, late in costs) / 50 < 8


def test_change_of_durations_is_followed() -> None:
    """After songs became quick, fifty of them outweigh two hundred slow ones."""
    schedule = LearnedSchedule()
    rng = Random(2)
    for _ in range(200):
        live(schedule, SONG, rng.gauss(200, 10))
    slow = polls(schedule, SONG, 1)[0]
    for _ in range(50):
        live(schedule, SONG, rng.gauss(40, 3))
    assert polls(schedule, SONG, 1)[0] < 45 < slow


def test_kinds_learn_apart() -> None:
    """Songs of one model do not move the polls of another."""
    schedule = LearnedSchedule()
    before = polls(schedule, "sonic/create sonic-v5", 6)
    for _ in range(50):
        live(schedule, SONG, 150)
    assert polls(schedule, "sonic/create sonic-v5", 6) == before


def test_stage_says_more_than_age() -> None:
    """After a long queue of any length the work takes 45 s: then few polls of the queue are needed, and a poll
    that shows work is followed by one at its end."""
    schedule, rng = LearnedSchedule(), Random(5)
    lives = [(queued + rng.gauss(45, 4), queued) for queued in (rng.expovariate(1 / 120) for _ in range(300))]
    staged = [live(schedule, SONG, *one) for one in lives][100:]
    assert schedule.next(SONG, 200.0, "pending") > 245
    assert schedule.next(SONG, 200.0, "running") < 235
    by_age = LearnedSchedule()
    alone = [live(by_age, SONG, duration) for duration, _ in lives][100:]
    cost = sum(2 * taken + late for taken, late in staged) / sum(2 * taken + late for taken, late in alone)
    assert cost < 0.8


@pytest.mark.parametrize("word", STAGES)
def test_stage_that_says_nothing_changes_nothing(word: Stage) -> None:
    """Where the service says one word from the submit to the end, the polls are those of the age alone."""
    schedule, by_age, rng = LearnedSchedule(), LearnedSchedule(), Random(6)
    for _ in range(200):
        duration = rng.gauss(45, 4) if rng.random() < 0.5 else rng.gauss(150, 8)
        live(schedule, SONG, duration, word=word)
        live(by_age, SONG, duration, word="running")
    assert polls(schedule, SONG, 9, word) == pytest.approx(polls(by_age, SONG, 9), abs=0.5)


def test_unknown_stage_follows_the_age() -> None:
    """A stage that no poll has shown, or that ends too few tasks, does not decide."""
    schedule = LearnedSchedule()
    for _ in range(100):
        live(schedule, SONG, 75, word="running")
    before = polls(schedule, SONG, 6)
    assert polls(schedule, SONG, 6, "stream") == before
    for _ in range(4):
        schedule.observed(SONG, True, 30.0, 31.0, PolledStage(30.0, "stream"))
    assert polls(schedule, SONG, 6, "stream") == pytest.approx(polls(schedule, SONG, 6), abs=0.01)


durations = st.lists(st.floats(0.5, 1500), max_size=60)


@given(
    durations,
    st.sampled_from(["producer/create_music", "nuro/create_vocal", "suno/make_lyrics", SONG, "unknown/kind"]),
    st.integers(),
)
def test_floors_and_ceilings_hold(lives: list[float], kind: str, seed: int) -> None:
    """No poll comes before its floor, none more than a jittered minute after the last, after any tasks."""
    schedule = LearnedSchedule(draw=drawing(Random(seed)))
    for duration in lives:
        live(schedule, kind, duration)
    times = documented(kind)
    ages = polls(schedule, kind, 30)
    assert times.first <= ages[0] <= LONGEST_INTERVAL * (1 + POLL_JITTER) + 1e-6
    for age, following in itertools.pairwise(ages):
        assert times.interval - 1e-6 <= following - age <= LONGEST_INTERVAL * (1 + POLL_JITTER) + 1e-6


@given(
    st.lists(st.tuples(st.booleans(), st.none() | st.floats(), st.floats(), st.floats()), max_size=30),
    st.sampled_from(STAGES),
)
def test_no_observation_breaks_the_schedule(
    observations: list[tuple[bool, float | None, float, float]], stage: Stage
) -> None:
    """Ages from broken clocks or resumed tasks teach nothing absurd."""
    schedule = LearnedSchedule()
    for finished, last_age, age, shown_at in observations:
        schedule.observed(SONG, finished, last_age, age, PolledStage(shown_at, stage))
    ages = polls(schedule, SONG, 10, stage)
    assert all(15 - 1e-6 <= b - a <= 60 + 1e-6 for a, b in itertools.pairwise([0.0, *ages]))
    LearnedSchedule().load(schedule.save())


@given(st.floats(0, 1200), st.floats(0, 300))
def test_finished_task_is_one_event(begin: float, width: float) -> None:
    """However many bins the gap between two polls spans, it adds one event and at most its seconds."""
    model = DurationModel(log_normal_prior(30, 240))
    model.finished(begin, begin + width)
    assert sum(model.counts.events) == pytest.approx(1)
    assert 0 <= sum(model.counts.exposure) <= width + 1e-6


@given(st.floats(0, 1200), st.floats(0, 1200))
def test_exposure_is_the_time_between_polls(begin: float, width: float) -> None:
    """A poll that found a task unfinished adds the seconds since the one before."""
    model = DurationModel(log_normal_prior(30, 240))
    model.unfinished(begin, begin + width)
    assert sum(model.counts.exposure) == pytest.approx(width, abs=1e-6)
    assert sum(model.counts.events) == 0


@given(durations, st.floats(0, 900), st.floats(0.2, 20))
def test_next_poll_is_where_it_first_pays(lives: list[float], age: float, cost: float) -> None:
    """The closed form agrees with summing the condition in small steps."""
    schedule = LearnedSchedule()
    for duration in lives:
        live(schedule, SONG, duration)
    model = DurationModel(log_normal_prior(30, 240))
    if lives:
        model.replace(msgspec.convert(schedule.save()["kinds"][SONG]["submitted"], Counts))
    poll = model.next_poll(age, cost, 0.0)

    step, summed, lost, at = 0.01, 0.0, 0.0, age
    while lost < cost and at < age + 60:
        index = bisect_right(EDGES, at + step / 2) - 1
        summed += model[index] * step
        lost += (math.exp(summed) - 1) * step
        at += step
    assert poll == pytest.approx(at, abs=0.3)


def test_declared_durations_are_forgotten() -> None:
    """After hundreds of the same tasks the durations that were declared hardly matter."""
    models = DurationModel(log_normal_prior(30, 240)), DurationModel(log_normal_prior(100, 200))
    rng = Random(4)
    for _ in range(500):
        duration = rng.uniform(40, 140)
        for model in models:
            model.unfinished(0.0, duration - 5)
            model.finished(duration - 5, duration + 5)
    one, other = (model.next_poll(70.0, 2.0, 0.0) for model in models)
    assert one == pytest.approx(other, abs=1.5)
    assert 0 < sum(models[0].counts.events) <= 100 + 1e-6, (
        "and of the tasks that were polled the oldest count least"
    )


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(0.01, 60)), min_size=1, max_size=400))
def test_hazards_stay_within_their_bounds(observations: list[tuple[float, float]]) -> None:
    """No order of ends and polls makes a hazard that cannot be used."""
    model = DurationModel(log_normal_prior(30, 240))
    for begin, width in observations * 5:
        model.unfinished(0.0, begin)
        model.finished(begin, begin + width)
    assert all(1e-9 <= model[index] <= 1.0 for index in range(BINS))
    assert all(value >= 0 for value in [*model.counts.events, *model.counts.exposure])


def test_learned_durations_can_be_saved() -> None:
    """A schedule that loads the saved state, through JSON, polls at the same ages."""
    schedule, restored = LearnedSchedule(), LearnedSchedule()
    rng = Random(3)
    for _ in range(40):
        live(schedule, SONG, rng.gauss(100, 20))
        live(schedule, "producer/create", rng.gauss(45, 5))
    restored.load(json.loads(json.dumps(schedule.save())))
    for kind, stage in itertools.product((SONG, "producer/create"), STAGES):
        assert polls(restored, kind, 8, stage) == pytest.approx(polls(schedule, kind, 8, stage), abs=0.01)


ZEROS = [0.0] * BINS


def counts(events: Any = ZEROS, exposure: Any = ZEROS, **more: Any) -> dict[str, Any]:
    return {"events": events, "exposure": exposure, **more}


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        "{}",
        {},
        {"version": 1, "kinds": {}},
        {"version": 2},
        {"version": 2, "kinds": []},
        *(
            {"version": 2, "kinds": kinds}
            for kinds in (
                {"sonic": None},
                {"sonic": counts()},
                {"sonic": {"submitted": {"events": ZEROS}}},
                {"sonic": {"no such stage": counts()}},
                {"sonic": {"submitted": counts(ZEROS[1:])}},
                {"sonic": {"submitted": counts([*ZEROS, 0.0])}},
                {"sonic": {"submitted": counts([-1.0, *ZEROS[1:]])}},
                {"sonic": {"running": counts([math.nan, *ZEROS[1:]])}},
                {"sonic": {"running": counts(ZEROS, [math.inf, *ZEROS[1:]])}},
                {"sonic": {"running": counts(["1", *ZEROS[1:]])}},
                {"sonic": {"running": counts(advantage=1e9)}},
                {"x" * 1000: {"submitted": counts()}},
                {str(n): {"submitted": counts()} for n in range(MOST_KINDS + 1)},
            )
        ),
    ],
)
def test_hostile_state_is_refused(state: Any) -> None:
    """A saved state that is broken is a ValueError, and changes nothing."""
    schedule = LearnedSchedule()
    live(schedule, SONG, 77)
    before = schedule.save()
    with pytest.raises(ValueError, match="not the state of a poll schedule"):
        schedule.load(state)
    assert schedule.save() == before


def test_memory_is_bounded() -> None:
    """Kinds come from model names of callers; only so many are remembered."""
    schedule = LearnedSchedule()
    for number in range(MOST_KINDS * 2):
        live(schedule, f"sonic/create model-{number}" + "x" * 500, 60)
    assert len(schedule.save()["kinds"]) == MOST_KINDS
    LearnedSchedule().load(schedule.save())


@pytest.mark.parametrize(
    ("kind", "first", "interval", "deadline"),
    [
        ("sonic/create sonic-v6", 15, 15, 900),
        ("suno/create", 15, 15, 900),
        ("sonic/stems_full sonic-v6", 15, 15, 1800),
        ("sonic/create_voice", 10, 15, 900),
        ("suno/make_lyrics", 3, 5, 180),
        ("producer/create", 10, 8, 600),
        ("nuro/create", 10, 10, 600),
        ("riffusion/create", 15, 15, 900),
        ("studio/create", 15, 15, 900),
        ("sonicated", 15, 15, 900),
        ("", 15, 15, 900),
    ],
)
def test_times_follow_from_the_declarations(
    kind: str, first: float, interval: float, deadline: float
) -> None:
    """Operation, family, song: the first that is declared wins."""
    times = documented(kind)
    assert (times.first, times.interval, times.deadline) == (first, interval, deadline)


@pytest.mark.parametrize("cost", [0, -1, math.inf, math.nan])
def test_impossible_costs_are_refused(cost: float) -> None:
    """A poll must be worth something, and not everything."""
    with pytest.raises(ValueError, match="poll_cost"):
        LearnedSchedule(poll_cost=cost)
