"""Who waits for a task, and the slot that they share."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Final, Protocol

from .._wire import polls
from ..api.handle import TaskRef
from ..api.operation import Polled
from ..api.results import TaskUpdate, Until
from .schedule import MOST_KINDS

Key = tuple[str, str]
"""Family and task id."""
Show = Callable[[TaskUpdate], None]
"""Notes a poll result on the handle of its task."""


class Listener(Protocol):
    """Somebody who waits for a task."""

    @property
    def eager(self) -> bool:
        """Wants early audio: look at the documented interval instead of when it pays."""
        ...

    @property
    def end(self) -> float:
        """When this listener gives up, by the clock of the waiter."""
        ...

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        """A look has shown `update`."""
        ...

    def fail(self, slot: Slot, error: Exception) -> None:
        """The wait has ended with `error`, and it is no failure of the generation."""
        ...


@lru_cache(maxsize=MOST_KINDS)
def kind_of(family: str, kind: str, model: str) -> str:
    """One text for all tasks that take about equally long: family, operation and model."""
    return f"{family}/{kind} {model}".rstrip(" /")


class Slot:
    """A task that is waited for. Small on purpose: see benchmarks/waiting.py.

    `key` is family and task id, `kind` what the policy tells tasks apart by; `last` the last update, unless
    so many tasks are waited for that only its `state` is kept.
    """

    __slots__ = (
        "born",
        "busy",
        "due",
        "key",
        "kind",
        "last",
        "listeners",
        "looked",
        "memory",
        "polled",
        "ref",
        "state",
        "trouble",
    )

    def __init__(self, key: Key, ref: TaskRef, polled: Polled, born: float) -> None:
        self.key = key
        self.ref = ref
        self.polled = polled
        self.kind = kind_of(ref.family, ref.kind, ref.model)
        self.born = born
        self.due = 0.0
        self.looked: float | None = None
        self.busy = False
        self.memory: polls.Memory | None = None
        self.state = ""
        self.trouble = ""
        self.last: TaskUpdate | None = None
        self.listeners: Listener | list[Listener] | None = None

    def each(self) -> tuple[Listener, ...]:
        """The listeners; one alone is kept without a list around it."""
        if self.listeners is None:
            return ()
        return tuple(self.listeners) if isinstance(self.listeners, list) else (self.listeners,)

    @property
    def eager(self) -> bool:
        """Whether a listener wants early audio."""
        listeners = self.listeners
        if isinstance(listeners, list):
            return any(listener.eager for listener in listeners)
        return listeners is not None and listeners.eager

    def notify(self, update: TaskUpdate) -> None:
        """Tell all listeners of an update."""
        listeners = self.listeners
        if isinstance(listeners, list):
            for listener in tuple(listeners):
                listener.notify(self, update)
        elif listeners is not None:
            listeners.notify(self, update)

    def add(self, listener: Listener) -> None:
        """One more listener."""
        if self.listeners is None:
            self.listeners = listener
        else:
            self.listeners = [*self.each(), listener]

    def remove(self, listener: Listener) -> None:
        """A listener has gone."""
        rest = [other for other in self.each() if other is not listener]
        self.listeners = None if not rest else rest[0] if len(rest) == 1 else rest


class Waiting:
    """One caller of `wait`."""

    __slots__ = ("_show", "end", "future", "until")

    def __init__(self, until: Until, end: float, show: Show | None = None) -> None:
        self.until: Until = until
        self.end = end
        self._show = show
        self.future: asyncio.Future[TaskUpdate] = asyncio.get_running_loop().create_future()

    @property
    def eager(self) -> bool:
        return self.until == "stream"

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        if self._show is not None and slot.last is update:
            self._show(update)
        if update.satisfies(self.until) and not self.future.done():
            self.future.set_result(update)

    def fail(self, slot: Slot, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(copy(error))


class Follower:
    """The subscriber of tasks that are polled although no one waits for them."""

    __slots__ = ()
    eager = False
    end = math.inf

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        """Do nothing: the waiter's own notice of the end is enough."""

    def fail(self, slot: Slot, error: Exception) -> None:
        """Do nothing."""


FOLLOWER: Final = Follower()


class Queue:
    """One caller of `updates`, or of a wait for many tasks: keeps what it is told until it is fetched."""

    __slots__ = ("_arrived", "_items", "eager", "end", "until")

    def __init__(self, *, eager: bool, end: float, until: Until | None = None) -> None:
        self.eager = eager
        self.end = end
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
        self._ring()

    def _ring(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def next(self, end: float) -> tuple[Slot, TaskUpdate | Exception] | None:
        """The next that was told, or None at `end`, a time of the loop."""
        loop = asyncio.get_running_loop()
        while not self._items:
            if loop.time() >= end:
                return None
            self._arrived = loop.create_future()
            alarm = loop.call_at(end, self._ring)
            try:
                await self._arrived
            finally:
                alarm.cancel()
        return self._items.popleft()
