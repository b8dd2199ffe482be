"""One kind of task: its duration model for each stage, and the choice between them.

`duration_model` explains why there is a model for each stage, and why it is not always used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import expm1
from typing import Final, Literal

import msgspec

from .._wire.retry import Draw
from ..api.operation import LONGEST_INTERVAL, Polled
from ..api.results import TaskUpdate
from .duration_model import (
    MOST_ADVANTAGE,
    NOTHING_LEARNED,
    Counts,
    DurationModel,
    flat_prior,
    log_normal_prior,
)

Stage = Literal["submitted", "pending", "running", "stream", "first"]
"""The point that a task has reached by its last poll: not polled yet, not ready, running without audio,
running with a stream, the first of its clips done."""

WINDOW: Final = LONGEST_INTERVAL
"""Seconds for which a poll is remembered, to learn whether the task ended by then: as no next poll comes
later, nothing beyond is needed."""

SPACING: Final = WINDOW / 2
"""Seconds between polls of one task that showed the same stage and both teach it: they say much the same."""

MOST_KINDS: Final = 256
"""Kinds that are remembered; a kind takes 2 to 8 kB."""

TAUGHT_BY_ALL: Final = 100
"""Tasks of a kind that all teach the stages, the first ones that are polled, as many as a kind remembers;
then a sample does. They are not counted as they end: of a burst, all would have been polled by then. They are
counted for each kind: of songs that are one in ten among other tasks, the first 200 would else cost up to 1.4
times as much."""

SAMPLE: Final = 1 / 10
"""Share of the tasks in that sample: the others remember no polls, which with 100,000 tasks would double the
cost of each of their polls. A model remembers 100 ends in any case, now of a longer time."""

LEAST_KNOWN: Final = 5.0
"""Ends that a stage remembers before its predictions count."""

LEAST_ADVANTAGE: Final = 1.0
"""Advantage, in nats, above which a stage decides: its predictions were e times as likely to come true."""

LEAST_LIKELIHOOD: Final = 1e-3
"""The lowest chance that a prediction can give to an outcome: no model is surer of itself than that."""

INSTANT: Final = 1e-3
"""Seconds below which an end is taken to be known exactly, as from a webhook."""


class PolledStage(msgspec.Struct, frozen=True, gc=False):
    """A poll that found a task unfinished: its age then, the stage that it showed, and the poll remembered
    before it. A waiting task that teaches the stages has one to three of 40 bytes, or a dozen if it goes
    back and forth, which the garbage collector need not visit; another has none."""

    age: float
    stage: Stage
    before: PolledStage | None = None


SavedKind = dict[Stage, Counts]
"""Everything learned about a kind, by stage."""


def stage_of(update: TaskUpdate) -> Stage:
    """Return the stage that an unfinished task has reached."""
    if update.state == "pending":
        return "pending"
    clips = update.clips
    if clips.has_succeeded:
        return "first"
    return "stream" if clips.has_audio else "running"


class Sample:
    """The choice of the tasks that teach the stages: the first ones of each kind, and then a sample.

    Args:
        draw: source of chance.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw: Final = draw
        self._joined: Final[dict[str, int]] = {}
        """Tasks that teach, or did, by kind."""

    def takes(self, kind: str) -> bool:
        """Return True if one more task of this kind is to teach the stages."""
        joined = self._joined.get(kind, 0)
        if joined >= TAUGHT_BY_ALL:
            return self._draw(1.0) < SAMPLE
        if not joined and len(self._joined) >= MOST_KINDS:
            del self._joined[next(iter(self._joined))]
        self._joined[kind] = joined + 1
        return True


def with_poll(latest: PolledStage | None, age: float, stage: Stage) -> PolledStage:
    """Return the polls that a task of the sample remembers after one more: those that teach, and the latest.

    Args:
        latest: the polls that it remembers; None before its first one.
        age: its age at the poll.
        stage: the stage that the poll showed.
    """
    return PolledStage(age, stage, _since(age - WINDOW, teaching(latest)))


def teaching(latest: PolledStage | None) -> PolledStage | None:
    """Return the polls that teach: all but the latest do, and it does if it brought something new."""
    before = None if latest is None else latest.before
    while latest is not None and before is not None:
        if before.stage == latest.stage:
            return latest if latest.age - before.age >= SPACING else latest.before
        before = before.before
    return latest


def _since(begin: float, latest: PolledStage | None) -> PolledStage | None:
    if latest is None or latest.age <= begin:
        return None
    before = _since(begin, latest.before)
    return latest if before is latest.before else PolledStage(latest.age, latest.stage, before)


class KindModel:
    """The duration models of one kind, which is polled as `times` says."""

    __slots__ = ("_base", "_saved", "ages", "stages", "times")

    def __init__(self, times: Polled) -> None:
        self.times: Final = times
        self.ages: Final = DurationModel(log_normal_prior(times.quick, times.slow))
        """Of the time since the submit."""
        self.stages: Final[dict[Stage, DurationModel]] = {}
        """Of the time since a poll that showed the stage."""
        self._base: dict[Stage, tuple[Counts, int]] = {}
        """The counts that are saved, with the number of ends that each model had counted then."""
        self._saved = 0

    def first(self, cost: float) -> float:
        """Return the age of the first poll that pays."""
        return self.ages.first_poll(cost, self.times.first)

    def next(self, age: float, stage: Stage | None, cost: float) -> float:
        """Return the age of the next poll that pays.

        Args:
            age: that of the last poll.
            stage: the stage that it showed; None if it showed nothing.
            cost: seconds of lateness that one poll is worth.
        """
        model = self.stages.get(stage) if stage is not None else None
        if model is None or model.advantage < LEAST_ADVANTAGE:
            return self.ages.next_poll(age, cost, self.times.interval)
        return age + model.first_poll(cost, self.times.interval)

    def observed(self, finished: bool, begin: float, end: float, latest: PolledStage | None) -> None:
        """Learn that a task was unfinished at age `begin`, and at `end` finished or not.

        Args:
            finished: True if it was.
            begin: the age until which it is known to have been unfinished.
            end: the age at this poll, or at this webhook.
            latest: the polls that the task remembers, all until `begin`; None if it teaches no stages.
        """
        ages = self.ages
        if latest is not None:
            self._compare(finished, begin, end, latest)
            self._teach(finished, begin, end, teaching(latest))
        if finished:
            ages.finished(begin, end)
        else:
            ages.unfinished(begin, end)

    def _teach(self, finished: bool, begin: float, end: float, poll: PolledStage | None) -> None:
        """Teach the stages what became of the polls that showed them."""
        while poll is not None:
            model = self._of(poll.stage)
            if finished:
                if poll.age < begin:
                    model.unfinished(0.0, begin - poll.age)
                model.finished(begin - poll.age, end - poll.age)
            elif end - poll.age >= WINDOW:  # the task will not remember it
                model.unfinished(0.0, end - poll.age)
            poll = poll.before

    def _compare(self, finished: bool, begin: float, end: float, latest: PolledStage) -> None:
        """Add to the advantage of the stage of the latest poll, before this outcome teaches anything."""
        model = self._of(latest.stage)
        if model.remembered < LEAST_KNOWN:
            return
        end = max(end, begin + INSTANT)
        by_age = self.ages.summed(begin, end)
        by_stage = model.summed(begin - latest.age, end - latest.age)
        if finished:
            gained = math.log(
                max(-expm1(-by_stage), LEAST_LIKELIHOOD) / max(-expm1(-by_age), LEAST_LIKELIHOOD)
            )
        else:
            gained = by_age - by_stage
        model.advantage = min(max(model.advantage + gained, -MOST_ADVANTAGE), MOST_ADVANTAGE)

    def _of(self, stage: Stage) -> DurationModel:
        model = self.stages.get(stage)
        if model is None:
            mean = math.sqrt(self.times.quick * self.times.slow)
            model = self.stages[stage] = DurationModel(flat_prior(mean))
        return model

    # --- saving -----------------------------------------------------------------------------------------

    def _models(self) -> dict[Stage, DurationModel]:
        return {"submitted": self.ages, **self.stages}

    @property
    def has_news(self) -> bool:
        """True if a task has ended since this was saved."""
        return self.ages.ended > self._saved

    def counts(self) -> SavedKind:
        """Return everything learned, as a model that begins with it will use it."""
        models = self._models()
        for model in models.values():
            model.refresh()
        return {stage: model.counts for stage, model in models.items()}

    def replace(self, counts: Mapping[Stage, Counts]) -> None:
        """Replace everything learned."""
        self.ages.replace(counts.get("submitted", NOTHING_LEARNED))
        self.stages.clear()
        for stage in counts.keys() - {"submitted"}:
            self._of(stage).replace(counts[stage])
        self._base = {}

    def gain(self) -> Gain:
        """Return what was learned here since this was saved, and take it to be saved from now on."""
        gained = Gain()
        for stage, model in self._models().items():
            base, ended = self._base.get(stage, (NOTHING_LEARNED, 0))
            now, since = model.counts, model.ended - ended
            gained.stages[stage] = since, now.plus(base.forgotten(since), -1.0)
            gained.base[stage] = base, ended
            self._base[stage] = now, model.ended
        gained.saved, self._saved = self._saved, self.ages.ended
        return gained

    def undo(self, gain: Gain) -> None:
        """Take a gain not to be saved after all."""
        self._base = gain.base
        self._saved = gain.saved

    def adopt(self, saved: Mapping[Stage, Counts]) -> None:
        """Replace what is saved by these counts, to which others have added; what was learned since stays."""
        stages: set[Stage] = {*saved, *self._base}
        for stage in stages:
            model = self.ages if stage == "submitted" else self._of(stage)
            base, ended = self._base.get(stage, (NOTHING_LEARNED, 0))
            since = model.ended - ended
            learned = model.counts.plus(base.forgotten(since), -1.0)
            counts = saved.get(stage, base)
            model.replace(counts.forgotten(since).plus(learned))
            self._base[stage] = counts, ended


class Gain:
    """Counts that one process has added to a kind since it saved last; see `KindModel.gain`."""

    __slots__ = ("base", "saved", "stages")

    def __init__(self) -> None:
        self.stages: Final[dict[Stage, tuple[int, Counts]]] = {}
        """Of each stage: the tasks that have ended, and the counts that were added."""
        self.base: Final[dict[Stage, tuple[Counts, int]]] = {}
        self.saved: int = 0

    def merged(self, saved: Mapping[Stage, Counts]) -> SavedKind:
        """Return saved counts with this gain added: older ones are forgotten as if all were one process's."""
        merged = dict(saved)
        for stage, (ended, counts) in self.stages.items():
            merged[stage] = merged.get(stage, NOTHING_LEARNED).forgotten(ended).plus(counts)
        return merged
