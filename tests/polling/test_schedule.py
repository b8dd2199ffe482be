"""When to look: what is learned from looks, and the plain policies."""

from __future__ import annotations

import itertools
import json
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async._wire.retry import drawing
from musicapi_async.api.operation import LONGEST_GAP
from musicapi_async.polling.hazard import BINS, EDGES, Hazard
from musicapi_async.polling.schedule import (
    JITTER,
    MOST_KINDS,
    Exponential,
    FirstThenFixed,
    Fixed,
    Learned,
    PollPolicy,
    documented,
)

SONG = "sonic/create sonic-v6"


def looks(policy: PollPolicy, kind: str, count: int) -> list[float]:
    """The ages of the first looks at a task that never ends."""
    ages = [policy.first(kind)]
    while len(ages) < count:
        ages.append(policy.next(kind, ages[-1]))
    return ages


def live(policy: PollPolicy, kind: str, duration: float) -> tuple[int, float]:
    """Poll one task to its end as the waiter does: looks taken, lateness of the last."""
    last, age, taken = None, policy.first(kind), 1
    while age < duration:
        policy.observed(kind, False, last, age)
        last, age, taken = age, policy.next(kind, age), taken + 1
    policy.observed(kind, True, last, age)
    return taken, age - duration


# --- the learned policy -----------------------------------------------------------------------------------


def test_a_cold_start_follows_the_stated_durations() -> None:
    """Before any song was seen the looks fall where one to four minutes make them pay."""
    assert looks(Learned(), SONG, 5) == pytest.approx([45, 63, 79.5, 95.5, 111], abs=1)


def test_looks_move_to_where_tasks_end() -> None:
    """When songs take 150 s the first looks come late, and few are needed."""
    policy = Learned()
    before = looks(policy, SONG, 1)[0]
    rng = Random(1)
    costs = [live(policy, SONG, rng.gauss(150, 8)) for _ in range(150)][100:]
    assert policy.first(SONG) == LONGEST_GAP > before
    assert sum(taken for taken, _ in costs) / 50 < 4.5
    assert sum(late for _, late in costs) / 50 < 8


def test_a_change_of_durations_is_followed() -> None:
    """After songs became quick, fifty of them outweigh what two hundred slow ones taught."""
    policy = Learned()
    rng = Random(2)
    for _ in range(200):
        live(policy, SONG, rng.gauss(200, 10))
    slow = looks(policy, SONG, 1)[0]
    for _ in range(50):
        live(policy, SONG, rng.gauss(40, 3))
    assert looks(policy, SONG, 1)[0] < 45 < slow


def test_kinds_learn_apart() -> None:
    """What one model teaches does not move the looks at another."""
    policy = Learned()
    before = looks(policy, "sonic/create sonic-v5", 6)
    for _ in range(50):
        live(policy, SONG, 150)
    assert looks(policy, "sonic/create sonic-v5", 6) == before


durations = st.lists(st.floats(0.5, 1500), max_size=60)


@given(
    durations,
    st.sampled_from(["producer/create_music", "nuro/create_vocal", "suno/make_lyrics", SONG, "unheard/of"]),
    st.integers(),
)
def test_floors_and_ceilings_hold_whatever_was_learned(lives: list[float], kind: str, seed: int) -> None:
    """No look comes before its floor, none more than a jittered minute after the last."""
    policy = Learned(draw=drawing(Random(seed)))
    for duration in lives:
        live(policy, kind, duration)
    timing = documented(kind)
    ages = looks(policy, kind, 30)
    assert timing.first <= ages[0] <= LONGEST_GAP * (1 + JITTER) + 1e-6
    for age, following in itertools.pairwise(ages):
        assert timing.interval - 1e-6 <= following - age <= LONGEST_GAP * (1 + JITTER) + 1e-6


@given(st.lists(st.tuples(st.booleans(), st.none() | st.floats(), st.floats()), max_size=30))
def test_no_observation_breaks_the_schedule(observations: list[tuple[bool, float | None, float]]) -> None:
    """Ages from broken clocks or resumed tasks teach nothing absurd."""
    policy = Learned()
    for finished, last_age, age in observations:
        policy.observed(SONG, finished, last_age, age)
    ages = looks(policy, SONG, 10)
    assert all(15 - 1e-6 <= b - a <= 60 + 1e-6 for a, b in itertools.pairwise([0.0, *ages]))
    Learned().load(policy.save())


@given(st.floats(0, 1200), st.floats(0, 300))
def test_a_finished_task_is_one_event(begin: float, width: float) -> None:
    """However many bins the gap between two looks spans, it adds one event and at most its seconds."""
    hazard = Hazard(30, 240)
    hazard.finished(begin, begin + width)
    assert sum(hazard.events) == pytest.approx(1)
    assert 0 <= sum(hazard.exposure) <= width + 1e-6


@given(st.floats(0, 1200), st.floats(0, 1200))
def test_exposure_is_the_time_between_looks(begin: float, width: float) -> None:
    """A look that found nothing adds the seconds since the one before."""
    hazard = Hazard(30, 240)
    hazard.unfinished(begin, begin + width)
    assert sum(hazard.exposure) == pytest.approx(width, abs=1e-6)
    assert sum(hazard.events) == 0


@given(durations, st.floats(0, 900), st.floats(0.2, 20))
def test_the_next_look_is_where_it_first_pays(lives: list[float], age: float, price: float) -> None:
    """The closed form agrees with summing the condition in small steps."""
    policy = Learned()
    for duration in lives:
        live(policy, SONG, duration)
    hazard = Hazard(30, 240)
    state = policy.save()["kinds"].get(SONG)
    if state:
        hazard.learn(state["events"], state["exposure"])
    look = hazard.next_look(age, price, 0.0, 60.0)

    step, summed, lost, at = 0.01, 0.0, 0.0, age
    while lost < price and at < age + 60:
        index = max(n for n, edge in enumerate(EDGES) if edge <= at + step / 2)
        summed += hazard[index] * step
        lost += (math.exp(summed) - 1) * step
        at += step
    assert look == pytest.approx(at, abs=0.3)


def test_what_was_stated_is_forgotten_once_tasks_were_seen() -> None:
    """After hundreds of the same tasks it hardly matters what was believed of them before."""
    hazards = Hazard(30, 240), Hazard(100, 200)
    rng = Random(4)
    for _ in range(500):
        duration = rng.uniform(40, 140)
        for hazard in hazards:
            hazard.unfinished(0.0, duration - 5)
            hazard.finished(duration - 5, duration + 5)
    one, other = (hazard.next_look(70.0, 2.0, 0.0, 60.0) for hazard in hazards)
    assert one == pytest.approx(other, abs=1.5)
    assert 0 < sum(hazards[0].events) <= 100 + 1e-6, "and of those that were seen the oldest count least"


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(0.01, 60)), min_size=1, max_size=400))
def test_many_observations_keep_every_hazard_within_its_bounds(looks_at: list[tuple[float, float]]) -> None:
    """No order of ends and looks makes a hazard that cannot be worked with."""
    hazard = Hazard(30, 240)
    for begin, width in looks_at * 5:
        hazard.unfinished(0.0, begin)
        hazard.finished(begin, begin + width)
    assert all(1e-9 <= hazard[index] <= 1.0 for index in range(BINS))
    assert all(value >= 0 for value in [*hazard.events, *hazard.exposure])


def test_what_was_learned_can_be_saved() -> None:
    """A policy that loads the saved state, through JSON, looks at the same ages."""
    policy, restored = Learned(), Learned()
    rng = Random(3)
    for _ in range(40):
        live(policy, SONG, rng.gauss(100, 20))
        live(policy, "producer/create", rng.gauss(45, 5))
    restored.load(json.loads(json.dumps(policy.save())))
    for kind in (SONG, "producer/create"):
        assert looks(restored, kind, 8) == pytest.approx(looks(policy, kind, 8), abs=0.01)


ZEROS = [0.0] * BINS


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        "{}",
        {},
        {"version": 2, "kinds": {}},
        {"version": 1},
        {"version": 1, "kinds": []},
        {"version": 1, "kinds": {"sonic": None}},
        {"version": 1, "kinds": {"sonic": {"events": ZEROS}}},
        {"version": 1, "kinds": {"sonic": {"events": ZEROS[1:], "exposure": ZEROS}}},
        {"version": 1, "kinds": {"sonic": {"events": [*ZEROS, 0.0], "exposure": ZEROS}}},
        {"version": 1, "kinds": {"sonic": {"events": [-1.0, *ZEROS[1:]], "exposure": ZEROS}}},
        {"version": 1, "kinds": {"sonic": {"events": [math.nan, *ZEROS[1:]], "exposure": ZEROS}}},
        {"version": 1, "kinds": {"sonic": {"events": [math.inf, *ZEROS[1:]], "exposure": ZEROS}}},
        {"version": 1, "kinds": {"sonic": {"events": ["1", *ZEROS[1:]], "exposure": ZEROS}}},
        {"version": 1, "kinds": {"x" * 1000: {"events": ZEROS, "exposure": ZEROS}}},
        {
            "version": 1,
            "kinds": {str(n): {"events": ZEROS, "exposure": ZEROS} for n in range(MOST_KINDS + 1)},
        },
    ],
)
def test_a_hostile_state_is_refused_and_changes_nothing(state: Any) -> None:
    """A saved state that is broken is a ValueError; what was learned stays."""
    policy = Learned()
    live(policy, SONG, 77)
    before = policy.save()
    with pytest.raises(ValueError, match="not the state of a polling policy"):
        policy.load(state)
    assert policy.save() == before


def test_memory_is_bounded() -> None:
    """Kinds come from model names of callers; only so many are remembered."""
    policy = Learned()
    for number in range(MOST_KINDS * 2):
        live(policy, f"sonic/create model-{number}" + "x" * 500, 60)
    assert len(policy.save()["kinds"]) == MOST_KINDS
    Learned().load(policy.save())


# --- timings ----------------------------------------------------------------------------------------------


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
def test_timings_follow_from_the_declarations(
    kind: str, first: float, interval: float, deadline: float
) -> None:
    """Operation, family, song: the first that is declared wins."""
    timing = documented(kind)
    assert (timing.first, timing.interval, timing.deadline) == (first, interval, deadline)


@pytest.mark.parametrize("price", [0, -1, math.inf, math.nan])
def test_impossible_prices_are_refused(price: float) -> None:
    """A poll must be worth something, and not everything."""
    with pytest.raises(ValueError, match="price"):
        Learned(price=price)


# --- the plain policies -----------------------------------------------------------------------------------


def test_plain_policies_do_what_they_say() -> None:
    """Fixed, first then fixed, and doubling intervals, without jitter."""
    assert looks(Fixed(20), SONG, 3) == [20, 40, 60]
    assert looks(FirstThenFixed(45, 15), SONG, 3) == [45, 60, 75]
    assert looks(Exponential(2, 30), SONG, 6) == [2, 6, 14, 30, 60, 90]


@given(st.integers(), st.sampled_from(["full", "equal"]))
def test_jitter_never_looks_twice_at_once(seed: int, jitter: Any) -> None:
    """Jittered ages rise, by no more than the gap and a tenth."""
    for policy in (
        Fixed(20, draw=drawing(Random(seed))),
        FirstThenFixed(45, 15, draw=drawing(Random(seed))),
        Exponential(2, 30, jitter, draw=drawing(Random(seed))),
    ):
        ages = looks(policy, SONG, 50)
        assert 0 < ages[0] <= 45 * 1.1
        assert all(0 < b - a <= 33 for a, b in itertools.pairwise(ages))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fixed(0),
        lambda: FirstThenFixed(math.nan, 15),
        lambda: FirstThenFixed(15, math.inf),
        lambda: Exponential(0, 30),
        lambda: Exponential(31, 30),
        lambda: Exponential(2, 30, "full"),
    ],
)
def test_impossible_plain_policies_are_refused(make: Any) -> None:
    """Intervals are positive and finite, and jitter needs a source."""
    with pytest.raises(ValueError, match=r"first|base|draw"):
        make()
