"""Doubles for the waiter: a client whose polls are scripted, and a plain schedule."""

from __future__ import annotations

from typing import Any

from musicapi_async._wire.poll_response import judge_webhook
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.redaction import NOTHING_KNOWN, Redactor
from musicapi_async.api.families import polled_of
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import TaskUpdate
from musicapi_async.api.task import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.polling.kind_model import PolledStage, Stage
from musicapi_async.polling.waiter import TaskWaiter


class AgingClock(Clock):
    """A clock whose Unix time passes with the loop's, so that a task is older when it is waited for again."""

    def time(self) -> float:
        """Return the time of the loop, after a begin that is not 0: that is no time of a submit."""
        return 1e9 + self.now()


class ScriptedClient:
    """The client of a waiter; subclasses answer `poll`. `ended` lists the ids of tasks that ended."""

    redactor: Redactor = NOTHING_KNOWN
    host_responds = False

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
        """Poll a task."""
        raise NotImplementedError

    def polling_ended(self, ref: TaskRef, update: TaskUpdate | None) -> None:
        """Note the end of a task; not that it cannot be polled any more."""
        if update is not None:
            assert update.is_terminal
            self.ended.append(ref.task_id)


def send_webhook(waiter: TaskWaiter, task_id: str, body: dict[str, Any], *, own: bool = True) -> None:
    """Hand a webhook about a song to a waiter, judged once, as the client does."""
    ref = waiter.known(TaskRef("sonic", task_id))
    waiter.deliver(ref, judge_webhook(body, ref=ref, polled=polled_of(ref)), own=own)


class Every:
    """A schedule that polls every `interval` seconds and learns nothing."""

    def __init__(self, interval: float) -> None:
        self.interval = interval

    def first(self, kind: str) -> float:
        """Return the age of the first poll."""
        return self.interval

    def next(self, kind: str, age: float, stage: Stage | None) -> float:
        """Return the age of the next poll."""
        return age + self.interval

    def observed(
        self, kind: str, finished: bool, last_age: float | None, age: float, latest: PolledStage | None
    ) -> None:
        """Learn nothing."""
