"""The schedule of polls: when to poll a task, and what a poll costs.

A task takes one to four minutes, each poll uses a rate limit that all tasks share, and a late poll costs the
caller time. `LearnedSchedule`, the default, learns how long each kind of task takes, from the create and from
each stage that polls report, and polls when a poll is worth its cost. Exponential backoff has the highest
cost of all measured schedules (benchmarks/polling_policy.py), because its intervals grow when the task is
likely to be done; it is the right choice only after errors.

All ages and intervals are in seconds since the submit. Nothing here knows a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec

from .._wire.poll_rules import Conclusion
from .._wire.retry import Draw, poll_pause, spread
from ..api.families import polled_as
from ..api.operation import LONGEST_INTERVAL, Polled
from ..api.results import TaskUpdate
from ..api.sonic import SONIC_POLLED
from ..arguments import check_functions, is_positive, refused
from .kind_model import MOST_KINDS, KindModel, PolledStage, SavedKind, Stage
from .subscribers import Slot

POLL_JITTER: Final = 0.1
"""Share by which a gap varies, so that the polls of tasks of one burst spread; it has no measurable cost."""

LONGEST_KIND: Final = 200
"""Characters of a kind that are compared; it includes the name of a model, which may be any text."""

OLDEST_AGE: Final = 1e6
"""Age beyond which nothing is learned: such a task was resumed, or its clock is wrong."""

LEAST_PROGRESS: Final = 0.2
"""Progress from which the end of a task can be estimated; smaller values are mostly rounding."""

END_MARGIN: Final = 1.02
"""Factor for the expected end: a poll a little before it would have to be repeated."""

POLL_COST: Final = 2.0
"""Seconds of lateness that one poll is worth without a limit: with it the learned times need as many polls as
a fixed interval of 24 s, and are about 30 % less late (benchmarks/polling_policy.py)."""

LOWEST_COST: Final = 0.05
"""Cost of a poll while polls remain unused: nearly every poll then comes as soon as the floor allows."""

HIGHEST_COST: Final = 4.0
"""The highest cost: under 2 tasks per second and 5 polls per second the best of all that were tried, and
higher ones leave polls unused (benchmarks/under_cap.py)."""

RISE: Final = 0.01
FALL: Final = 0.005
"""Logarithm of the cost per second, while polls wait and while none does: from one end to the other within a
quarter of an hour. Twice or half as fast costs 1 to 3 % of the lateness."""

LONGEST_STEP: Final = 5.0
"""Seconds for which a queue that is found now counts as having been there, since the last computed cost."""


SAFETY_POLLS: Final = 3
"""The slow interval of tasks that webhooks will end is the default deadline of a wait divided by this: a
safety net of two polls, and a last one as the time runs out. For songs 900 / 3 = 300 s; no result is later,
even if all webhooks are lost."""


class PollSchedule(Protocol):
    """A schedule of polls. `kind` groups tasks with similar durations: endpoint and model."""

    def first(self, kind: str) -> float:
        """Return the age of a task at its first poll, in seconds since the create."""
        ...

    def next(self, kind: str, age: float, stage: Stage | None) -> float:
        """Return the age of a task at the next poll, after a poll of an unfinished task; always above `age`.

        Args:
            kind: the kind of the task.
            age: the age at the last poll, in seconds.
            stage: the stage in the last poll: `"pending"`, `"running"`, `"stream"`, or `"first"` if the first
                clip is done; None if the poll failed.
        """
        ...

    def observed(
        self, kind: str, finished: bool, last_age: float | None, age: float, latest: PolledStage | None
    ) -> None:
        """Learn from a poll or a webhook.

        Not called for what teaches nothing about durations: a poll of a task of unknown age, or one that is
        the first for four minutes.

        Args:
            kind: the kind of the task.
            finished: True if the task has ended.
            last_age: the age at the previous poll, in seconds, also one of an earlier wait; None if this is
                the first.
            age: the age at this poll, in seconds.
            latest: the previous successful poll, with the remembered ones before it. None at the first poll
                of a wait, and for tasks that are not in the sample from which stages are learned.
        """
        ...


def documented(kind: str) -> Polled:
    """Return the declared times of a kind such as `"sonic/stems_full sonic-v6"`.

    They are those of its operation, else of its family, else of a song.
    """
    family, _, rest = kind.partition("/")
    return polled_as(family, rest.partition(" ")[0]) or SONIC_POLLED


def expected_end(update: TaskUpdate | None, retry_after: float, age: float) -> float | None:
    """Return the age at which the service itself expects the task to be done; None if it does not say.

    Args:
        update: the update of the poll, if it showed the task.
        retry_after: seconds of its Retry-After, 0 without one.
        age: the age at the poll; a progress is taken to continue at its rate since the submit.
    """
    if update is None:
        return None
    if retry_after > 0:
        return age + retry_after
    progress = update.progress
    return age / progress * END_MARGIN if progress is not None and progress >= LEAST_PROGRESS else None


def next_poll(
    slot: Slot, conclusion: Conclusion, age: float, schedule: PollSchedule, draw: Draw, *, relied_on: bool
) -> float:
    """Return the age of the poll that follows one at `age`, or what a webhook showed then.

    Failures back off. Otherwise the schedule decides, unless a webhook or the service says when the task will
    be done; no poll comes before the pause that the service set.

    Args:
        slot: that of the task. If a subscriber wants early audio, which comes at any time, the interval of
            the family is the longest.
        conclusion: what followed from the poll; not an end.
        age: the age at that poll.
        schedule: that of all tasks.
        draw: source of jitter.
        relied_on: True if a webhook will come, so that polls are only a safety net.
    """
    pause = conclusion.pause
    if conclusion.failures:
        return age + max(poll_pause(conclusion.failures, draw), pause)
    if relied_on and conclusion.history is None:
        return max(safety_poll(slot, age), age + pause)
    stage = None if conclusion.update is None else slot.stage
    poll = schedule.next(slot.kind, age, stage)
    end = expected_end(conclusion.update, pause, age)
    if end is not None:
        shortest = min(slot.polled.interval, poll - age)
        poll = age + min(max(end - age, shortest), LONGEST_INTERVAL)
    if slot.wants_stream:
        poll = min(poll, age + spread(slot.polled.interval, POLL_JITTER, draw))
    return max(poll, age + pause)


def safety_poll(slot: Slot, age: float) -> float:
    """Return the age of the next poll of a task that a webhook will end: late, but before a wait ends."""
    late = (0.0 if slot.polled_at is None else age) + slot.polled.deadline / SAFETY_POLLS
    last = slot.end - slot.begin - slot.polled.interval
    return min(late, last) if last > age + 1 else late


class _Saved(msgspec.Struct, frozen=True):
    version: Literal[2]
    kinds: Annotated[
        dict[Annotated[str, msgspec.Meta(max_length=LONGEST_KIND)], SavedKind],
        msgspec.Meta(max_length=MOST_KINDS),
    ]


class LearnedSchedule:
    """The default schedule: polls when a poll is worth its cost, by learned durations.

    It has a duration model for each kind of task and each stage. Before anything is learned, songs are polled
    about 45, 63, 79, 95 and 111 s after the create. A decision takes about 2 µs, learning from a poll 3 µs,
    and a kind 2 to 8 kB.

    Args:
        times_of: a function that returns the shortest intervals and the expected durations of a kind; by
            default those that are declared.
        poll_cost: the cost of a poll, in seconds of lateness, or a function that returns it for each
            decision, such as a `PollCost` if polls per second are capped. A client whose limiter has a rate
            for polls uses one by default.
        draw: the source of jitter. With it, gaps vary by 10 %, but are never shorter than the shortest
            interval.

    Raises:
        RequestValidationError: the cost is not positive and finite, or no function where one is needed.

    A client with a job store saves what its own schedule learns there. Save a schedule that you pass
    yourself:

    ```python
    schedule = LearnedSchedule(draw=backoff.full_jitter)
    schedule.load(json.loads(path.read_text()))  # of an earlier process; ValueError if it is something else
    async with MusicAPI(polling=schedule) as client:
        ...
    path.write_text(json.dumps(schedule.save()))
    ```
    """

    def __init__(
        self,
        times_of: Callable[[str], Polled] = documented,
        *,
        poll_cost: float | Callable[[], float] = POLL_COST,
        draw: Draw | None = None,
    ) -> None:
        if not (callable(poll_cost) or is_positive(poll_cost)):
            raise refused("poll_cost", "a positive, finite number, or a function", repr(poll_cost)[:100])
        check_functions(times_of=times_of)
        if draw is not None:
            check_functions(draw=draw)
        self._times_of: Final = times_of
        self._cost_now: Final = poll_cost if callable(poll_cost) else None
        self._fixed_cost: Final = POLL_COST if callable(poll_cost) else poll_cost
        self._draw: Final = draw
        self._kinds: dict[str, KindModel] = {}

    def first(self, kind: str) -> float:
        """Return the age of the first poll in seconds, not before the shortest age for the kind."""
        model = self._kinds.get(kind) or self.model_of(kind)
        cost = self._fixed_cost if self._cost_now is None else self._cost_now()
        return self._jittered(0.0, model.first(cost), model.times.first)

    def next(self, kind: str, age: float, stage: Stage | None) -> float:
        """Return the age of the next poll, between the kind's interval and a minute after `age`."""
        model = self._kinds.get(kind) or self.model_of(kind)
        cost = self._fixed_cost if self._cost_now is None else self._cost_now()
        return self._jittered(age, model.next(age, stage, cost), model.times.interval)

    def observed(
        self, kind: str, finished: bool, last_age: float | None, age: float, latest: PolledStage | None
    ) -> None:
        """Learn from a poll or a webhook; see `PollSchedule.observed`.

        Ages that are negative, not finite or above `OLDEST_AGE` are ignored. So is the end of a task at an
        age at which none is polled yet: the time of its submit is wrong.
        """
        begin = 0.0 if last_age is None else last_age
        if not 0 <= begin <= age <= OLDEST_AGE:
            if not 0 <= age <= OLDEST_AGE or math.isnan(begin):
                return
            begin = min(max(begin, 0.0), age)
        if latest is not None and not 0 <= latest.age <= begin:
            latest = None
        model = self._kinds.get(kind) or self.model_of(kind)
        if finished and age < model.times.first:
            return
        model.observed(finished, begin, age, latest)

    def save(self) -> dict[str, Any]:
        """Return everything that was learned, as a dict for `json.dumps`."""
        kinds = {kind: model.counts() for kind, model in self._kinds.items()}
        saved: dict[str, Any] = msgspec.to_builtins(_Saved(2, kinds))
        return saved

    def load(self, state: object) -> None:
        """Replace everything that was learned with a result of `save`.

        Raises:
            ValueError: `state` is no result of `save`; the text says where, and nothing was changed.
        """
        try:
            saved = msgspec.convert(state, _Saved)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ValueError(f"not the state of a poll schedule: {error}") from error
        self._kinds = {}
        for kind, counts in saved.kinds.items():
            self.model_of(kind).replace(counts)

    @property
    def models(self) -> Mapping[str, KindModel]:
        """The duration models, by kind."""
        return self._kinds

    def model_of(self, kind: str) -> KindModel:
        """Return the model of a kind; a new one replaces the oldest if there are too many."""
        kind = kind[:LONGEST_KIND]
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
            known = self._kinds[kind] = KindModel(self._times_of(kind))
        return known

    def _jittered(self, age: float, poll: float, floor: float) -> float:
        if self._draw is None:
            return poll
        gap = spread(poll - age, POLL_JITTER, self._draw)
        return age + (gap if gap > floor else floor)


class PollCost:
    """The present cost of a poll if polls per second are capped, for `LearnedSchedule(poll_cost=…)`.

    Without a cap, a poll costs work, here and at the service: `POLL_COST`. With a cap, polls below it are
    free, because they would remain unused, and polls above it delay all others. The cost of a poll is then
    the delay that it causes (its shadow price), which follows from the queue: the cost falls slowly while no
    poll waits, and rises while one waits, until the number of polls that are worth it is about the allowed
    one.

    In a burst the cost is low at first, so that its first polls use the time before the queue forms. Polls
    are served first come first served, at any cost.

    Args:
        queued: a function that returns True if polls wait now.
        now: a function that returns the time in seconds.
    """

    __slots__ = ("_cost", "_now", "_queued", "_updated_at")

    def __init__(self, queued: Callable[[], bool], now: Callable[[], float]) -> None:
        check_functions(queued=queued, now=now)
        self._queued: Final = queued
        self._now: Final = now
        self._cost = LOWEST_COST
        self._updated_at: float | None = None

    def __call__(self) -> float:
        """Return the cost now, in seconds of lateness."""
        now = self._now()
        # A clock that goes back is that of another loop.
        passed = 0.0 if self._updated_at is None else max(now - self._updated_at, 0.0)
        self._updated_at = now
        if self._queued():
            self._cost = min(self._cost * math.exp(RISE * min(passed, LONGEST_STEP)), HIGHEST_COST)
        else:
            self._cost = max(self._cost * math.exp(-FALL * passed), LOWEST_COST)
        return self._cost
