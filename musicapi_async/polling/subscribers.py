"""Subscribers of a task, the slot that they share, and the errors that end their waits."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Final, Protocol

from .._wire.poll_rules import PollHistory
from .._wire.redaction import Redactor
from ..api.operation import Polled
from ..api.results import TaskUpdate, Until
from ..api.task import TaskKey, TaskRef
from ..errors import TaskError, TaskTimeoutError
from .schedule import MOST_KINDS

NAMED_CLIPS: Final = 4
"""Finished clips that the text of a time-out names."""
LONGEST_ID: Final = 80
"""Characters of a clip's id in a text; the service sends UUIDs."""

OnUpdate = Callable[[TaskUpdate], None]
"""Stores a poll result on the handle of its task."""


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


@lru_cache(maxsize=MOST_KINDS)
def kind_of(family: str, kind: str, model: str) -> str:
    """Return one text for all tasks that take about equally long: family, operation and model."""
    return f"{family}/{kind} {model}".rstrip(" /")


class Slot:
    """A task with subscribers. Small on purpose: see benchmarks/waiting.py.

    `key` is family and task id, `kind` groups tasks for the schedule, `begin` is the time of the submit and
    `due` that of the next poll, by the waiter's clock; `polled_at` the age at the last poll that showed the
    task. `last` is the last update, unless so many tasks have slots that only its `state` is stored.
    """

    __slots__ = (
        "begin",
        "busy",
        "due",
        "history",
        "key",
        "kind",
        "last",
        "polled",
        "polled_at",
        "problem",
        "ref",
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
        for subscriber in self.each():  # noqa: SIM110 - any() takes three times as long, at each poll
            if subscriber.wants_stream:
                return True
        return False

    def notify(self, update: TaskUpdate) -> None:
        """Give an update to all subscribers."""
        for subscriber in self.each():
            subscriber.notify(self, update)

    def add(self, subscriber: Subscriber) -> None:
        """Add a subscriber."""
        self.subscribers = subscriber if self.subscribers is None else (*self.each(), subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a subscriber."""
        rest = tuple(other for other in self.each() if other is not subscriber)
        self.subscribers = None if not rest else rest[0] if len(rest) == 1 else rest


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

    async def next(self, end: float) -> tuple[Slot, TaskUpdate | Exception] | None:
        """Return the next update or error, or None at `end`, a time of the loop."""
        loop = asyncio.get_running_loop()
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
        names = ", ".join(clip.clip_id[:LONGEST_ID] for clip in ready[:NAMED_CLIPS])
        more = ", ..." if len(ready) > NAMED_CLIPS else ""
        verb = "is" if len(ready) == 1 else "are"
        clips = f"; {len(ready)} of {len(last.clips)} clips {verb} ready: {names}{more}"
    state = slot.state or "not polled yet"
    return TaskTimeoutError(
        f"no end after {limit:.3g} s of waiting (last state: {state}{clips}{problem})",
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
