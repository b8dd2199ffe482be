"""Subscribers of a task, the slot that they share, and the errors that end their waits."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from .._wire.poll_rules import PollHistory
from .._wire.redaction import Redactor
from ..api.operation import Polled
from ..api.results import Result, TaskUpdate, Until
from ..api.task import Task, TaskKey, TaskRef
from ..clock import Clock
from ..errors import TaskError, TaskTimeoutError
from .kind_model import PolledStage, Stage

MOST_NAMED_CLIPS: Final = 4
"""Finished clips that the text of a time-out names."""
LONGEST_CLIP_ID: Final = 80
"""Characters of a clip's id in a text; the service sends UUIDs."""

R = TypeVar("R", bound=Result)

OnUpdate = Callable[[TaskUpdate], None]
"""Stores a poll result on the handle of its task."""


class WaitLimit(NamedTuple):
    """The time of one wait, by the clock of the waiter: its start, and the seconds that it may take."""

    started: float
    seconds: float

    @property
    def end(self) -> float:
        """The time at which the wait is given up."""
        return self.started + self.seconds


class Subscriber(Protocol):
    """A caller who waits for a task."""

    @property
    def wants_stream(self) -> bool:
        """True for early audio: poll at the documented interval instead of when a poll pays."""
        ...

    @property
    def end(self) -> float:
        """The time at which this subscriber gives up, by the clock of the waiter."""
        ...

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        """Take an update of the task."""
        ...

    def fail(self, slot: Slot, error: Exception) -> None:
        """Take the error that ends the wait; it is no failure of the generation."""
        ...


@lru_cache(maxsize=1024)
def kind_of(family: str, kind: str, model: str) -> str:
    """Return one text for all tasks that take about equally long: family, operation and model."""
    return f"{family}/{kind} {model}".rstrip(" /")


class Slot:
    """A task with subscribers. Small on purpose: see benchmarks/waiting.py.

    `key` is family and task id, `kind` groups tasks for the schedule, `begin` is the time of the submit and
    `due` that of the next poll, by the waiter's clock; `polled_at` is the age at the latest poll that showed
    the task, `stage` the stage that it showed, and `latest` that poll with those before it, if the task
    remembers them to teach the stages. `last` is the last update, unless so many tasks have slots that only
    its `state` is stored.
    """

    __slots__ = (
        "begin",
        "busy",
        "due",
        "history",
        "key",
        "kind",
        "last",
        "latest",
        "polled",
        "polled_at",
        "problem",
        "ref",
        "stage",
        "state",
        "subscribers",
    )

    def __init__(self, key: TaskKey, ref: TaskRef, polled: Polled, begin: float) -> None:
        self.key: TaskKey = key
        self.ref: TaskRef = ref
        self.polled: Polled = polled
        self.kind: str = kind_of(ref.family, ref.kind, ref.model)
        self.begin: float = begin
        self.due: float = 0.0
        self.polled_at: float | None = None
        self.stage: Stage = "submitted"
        self.latest: PolledStage | None = None
        self.busy: bool = False
        self.history: PollHistory | None = None
        self.state: str = ""
        self.problem: str = ""
        self.last: TaskUpdate | None = None
        self.subscribers: Subscriber | tuple[Subscriber, ...] | None = None

    def each(self) -> tuple[Subscriber, ...]:
        """Return the subscribers; one alone is stored without a tuple around it."""
        subscribers = self.subscribers
        if subscribers is None:
            return ()
        return subscribers if isinstance(subscribers, tuple) else (subscribers,)

    @property
    def wants_stream(self) -> bool:
        """True if a subscriber wants early audio."""
        subscribers = self.subscribers
        if isinstance(subscribers, tuple):
            return any(subscriber.wants_stream for subscriber in subscribers)
        return subscribers is not None and subscribers.wants_stream

    @property
    def is_unsettled(self) -> bool:
        """True if the last poll failed, or reported an end that the next one must confirm: however many join,
        that one comes when it is due."""
        return bool(self.problem) or self.history is not None

    @property
    def end(self) -> float:
        """The time at which the first subscriber gives up."""
        return min(subscriber.end for subscriber in self.each())

    def has_overtaken(self, update: TaskUpdate | None, *, with_webhooks: bool) -> bool:
        """Return True for an update that shows less than is known: another one overtook it.

        A webhook may overtake a poll, and a poll a webhook. Without webhooks, polls of a task follow each
        other, and the links of unfinished clips, which cost most of the time to read, need no comparison.
        """
        last = self.last
        if last is None or update is None or update.is_terminal:
            return False
        if last.state != "pending" and update.state == "pending":
            return True
        if last.clips.has_succeeded and len(update.clips.succeeded) < len(last.clips.succeeded):
            return True
        return with_webhooks and _links(update) < _links(last)

    def store_last(self, tasks: Iterable[Task[Any]]) -> None:
        """Store the last update on handles of the task."""
        if self.last is not None:
            for task in tasks:
                task.last = self.last

    def notify(self, update: TaskUpdate) -> None:
        """Give an update to all subscribers."""
        subscribers = self.subscribers
        if isinstance(subscribers, tuple):
            for subscriber in subscribers:
                subscriber.notify(self, update)
        elif subscribers is not None:
            subscribers.notify(self, update)

    def add(self, subscriber: Subscriber) -> None:
        """Add a subscriber."""
        self.subscribers = subscriber if self.subscribers is None else (*self.each(), subscriber)

    def remove(self, subscriber: Subscriber) -> bool:
        """Remove a subscriber; return True if none remains."""
        rest = tuple(other for other in self.each() if other is not subscriber)
        self.subscribers = None if not rest else rest[0] if len(rest) == 1 else rest
        return not rest


def _links(update: TaskUpdate) -> int:
    """Return the number of clips that can be heard."""
    return sum(clip.audio_url is not None for clip in update.clips)


class Wait:
    """The subscriber of one call of `wait`."""

    __slots__ = ("_on_update", "end", "future", "until", "wants_stream")

    def __init__(self, until: Until, end: float, on_update: OnUpdate | None = None) -> None:
        self.until: Until = until
        self.end: float = end
        self.wants_stream: bool = until == "stream"
        self._on_update = on_update
        self.future: asyncio.Future[TaskUpdate] = asyncio.get_running_loop().create_future()

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        if self._on_update is not None and slot.last is update:
            self._on_update(update)
        if update.satisfies(self.until) and not self.future.done():
            self.future.set_result(update)

    def fail(self, slot: Slot, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(copy(error))


class Follower:
    """The subscriber of tasks that are polled although no caller waits for them."""

    __slots__ = ()
    wants_stream: bool = False
    end: float = math.inf

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        """Do nothing: the client takes the end of every task."""

    def fail(self, slot: Slot, error: Exception) -> None:
        """Do nothing."""


FOLLOWER: Final = Follower()


class UpdateQueue:
    """The subscriber of one call of `updates`, or of a wait for many tasks: a queue of their updates."""

    __slots__ = ("_arrived", "_items", "end", "until", "wants_stream")

    def __init__(self, *, wants_stream: bool, end: float, until: Until | None = None) -> None:
        self.wants_stream: bool = wants_stream
        self.end: float = end
        self.until: Until | None = until
        self._items: deque[tuple[Slot, TaskUpdate | Exception]] = deque()
        self._arrived: asyncio.Future[None] | None = None

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        if self.until is None or update.satisfies(self.until):
            self._put(slot, update)

    def fail(self, slot: Slot, error: Exception) -> None:
        self._put(slot, error)

    def _put(self, slot: Slot, item: TaskUpdate | Exception) -> None:
        self._items.append((slot, item))
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def next(self, clock: Clock) -> tuple[Slot, TaskUpdate | Exception] | None:
        """Return the next update or error, or None at `end`."""
        if not self._items:
            loop, end = asyncio.get_running_loop(), clock.real(self.end)
            while not self._items:
                if loop.time() >= end:
                    return None
                self._arrived = loop.create_future()
                alarm = loop.call_at(end, self._wake)
                try:
                    await self._arrived
                finally:
                    alarm.cancel()
        return self._items.popleft()


class WaitingHandles(Generic[R]):
    """The handles of a wait for many tasks, by the slots of their tasks. One of its task costs no list."""

    __slots__ = ("_first", "_further")

    def __init__(self) -> None:
        self._first: Final[dict[Slot, Task[R]]] = {}
        self._further: Final[dict[Slot, list[Task[R]]]] = {}

    def add(self, slot: Slot, task: Task[R]) -> None:
        """Add a handle; the same one may be added twice."""
        if slot in self._first:
            self._further.setdefault(slot, []).append(task)
        else:
            self._first[slot] = task

    def pop(self, slot: Slot) -> list[Task[R]]:
        """Remove and return the handles of one slot; none if it has none here."""
        first = self._first.pop(slot, None)
        if first is None:
            return []
        return [first, *self._further.pop(slot, ())] if self._further else [first]

    def slots(self) -> list[Slot]:
        """Return the slots, in the order in which they were added."""
        return list(self._first)

    def __contains__(self, slot: Slot) -> bool:
        return slot in self._first

    def __len__(self) -> int:
        return len(self._first)


def timed_out(slot: Slot, limit: float, elapsed: float, problem: str, redactor: Redactor) -> TaskTimeoutError:
    """Return the error of a wait whose time is over.

    Args:
        slot: that of the task.
        limit: seconds that the wait was allowed to take.
        elapsed: seconds that it took.
        problem: why the last poll showed nothing, to follow after "; ", or "".
        redactor: hides secrets in the last body.
    """
    ref, last = slot.ref, slot.last
    ready = last.clips.succeeded if last is not None else []
    clips = ""
    if last is not None and ready:
        names = ", ".join(clip.clip_id[:LONGEST_CLIP_ID] for clip in ready[:MOST_NAMED_CLIPS])
        more = ", ..." if len(ready) > MOST_NAMED_CLIPS else ""
        verb = "is" if len(ready) == 1 else "are"
        clips = f"; {len(ready)} of {len(last.clips)} clips {verb} ready: {names}{more}"
    state = slot.state or "not polled yet"
    return TaskTimeoutError(
        f"no end after {limit:g} s of waiting (last state: {state}{clips}{problem})",
        elapsed=elapsed,
        clips=last.clips if last is not None else (),
        last_body=redactor.copy(last.raw) if last is not None else None,
        task_id=ref.task_id,
        family=ref.family,
        kind=ref.kind,
    )


def closed(ref: TaskRef, what: str) -> TaskError:
    """Return the error of a wait on a closed client."""
    hint = f"The task continues; resume with client.task({ref.token!r}).wait() on an open client."
    return TaskError(what, task_id=ref.task_id, family=ref.family, hint=hint)
