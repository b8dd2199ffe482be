"""Who waits for a task, and the slot that they share."""

from __future__ import annotations

import asyncio
from collections import deque
from copy import copy
from typing import Protocol

from ..api.handle import TaskRef
from ..api.operation import Polled
from ..api.results import TaskUpdate, Until
from ..wire import polls

Key = tuple[str, str]
"""Family and task id."""


class Listener(Protocol):
    """Somebody who waits for a task."""

    @property
    def eager(self) -> bool:
        """Wants early audio: look at the documented interval instead of when it pays."""
        ...

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        """A look has shown `update`."""
        ...

    def fail(self, slot: Slot, error: Exception) -> None:
        """The wait has ended with `error`, and it is no failure of the generation."""
        ...


class Slot:
    """A task that is waited for. Small on purpose: a hundred thousand of them are 20 MB."""

    __slots__ = ("born", "busy", "due", "kind", "last", "listeners", "looked", "memory", "polled", "ref")

    def __init__(self, ref: TaskRef, polled: Polled, kind: str, born: float) -> None:
        self.ref = ref
        self.polled = polled
        self.kind = kind
        self.born = born
        self.due = 0.0
        self.looked: float | None = None
        self.busy = False
        self.memory: polls.Memory | None = None
        self.last: TaskUpdate | None = None
        self.listeners: Listener | list[Listener] | None = None

    @property
    def key(self) -> Key:
        """Family and task id."""
        return (self.ref.family, self.ref.task_id)

    def each(self) -> tuple[Listener, ...]:
        """The listeners; one alone is kept without a list around it."""
        if self.listeners is None:
            return ()
        return tuple(self.listeners) if isinstance(self.listeners, list) else (self.listeners,)

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

    __slots__ = ("future", "until")

    def __init__(self, until: Until) -> None:
        self.until: Until = until
        self.future: asyncio.Future[TaskUpdate] = asyncio.get_running_loop().create_future()

    @property
    def eager(self) -> bool:
        return self.until == "stream"

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        if update.satisfies(self.until) and not self.future.done():
            self.future.set_result(update)

    def fail(self, slot: Slot, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(copy(error))


class Queue:
    """One caller of `updates`, or of a wait for many tasks: keeps what it is told until it is fetched."""

    __slots__ = ("_arrived", "_items", "eager", "until")

    def __init__(self, *, eager: bool, until: Until | None = None) -> None:
        self.eager = eager
        self.until: Until | None = until
        self._items: deque[tuple[Key, TaskUpdate | Exception]] = deque()
        self._arrived: asyncio.Future[None] | None = None

    def notify(self, slot: Slot, update: TaskUpdate) -> None:
        if self.until is None or update.satisfies(self.until):
            self._put(slot.key, update)

    def fail(self, slot: Slot, error: Exception) -> None:
        self._put(slot.key, error)

    def _put(self, key: Key, item: TaskUpdate | Exception) -> None:
        self._items.append((key, item))
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def next(self) -> tuple[Key, TaskUpdate | Exception]:
        while not self._items:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._items.popleft()
