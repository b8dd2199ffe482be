"""Doubles for the waiter: a client whose polls are scripted, and a plain schedule."""

from __future__ import annotations

from musicapi_async._wire.poll_response import PollResult
from musicapi_async._wire.redaction import NOTHING_KNOWN, Redactor
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import TaskUpdate
from musicapi_async.api.task import TaskRef


class ScriptedClient:
    """The client of a waiter; subclasses answer `poll`. `ended` lists the ids of tasks that ended."""

    redactor: Redactor = NOTHING_KNOWN
    host_answers = False

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def poll(self, ref: TaskRef, polled: Polled) -> PollResult:
        """Poll a task."""
        raise NotImplementedError

    def polling_ended(self, ref: TaskRef, update: TaskUpdate | None) -> None:
        """Note the end of a task; not that it cannot be polled any more."""
        if update is not None:
            assert update.is_terminal
            self.ended.append(ref.task_id)


class Every:
    """A schedule that polls every `interval` seconds and learns nothing."""

    def __init__(self, interval: float) -> None:
        self.interval = interval

    def first(self, kind: str) -> float:
        """Return the age of the first poll."""
        return self.interval

    def next(self, kind: str, age: float) -> float:
        """Return the age of the next poll."""
        return age + self.interval

    def observed(self, kind: str, finished: bool, last_age: float | None, age: float) -> None:
        """Learn nothing."""
