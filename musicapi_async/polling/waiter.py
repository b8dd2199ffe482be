"""One scheduler for every task that is waited for.

Why not one loop per task
-------------------------
A sleeping asyncio task costs 1.5 kB and a timer of its own; thousands of them wake the loop one by one. Here
a waiting task is a slot and an entry in a heap of due times. One timer of the loop is set to the earliest
entry; when it fires, everything that is due is polled by a bounded number of workers, first due first
served (`due_queue`). Any number of callers may wait for a task: they share its slot and each poll.

Who decides what
----------------
The schedule decides when to poll (`schedule`), `_wire.poll_response` and `_wire.poll_rules` what a response
means, the client how it is fetched. What remains here: slots, due times, and notifying the subscribers.
Nothing here knows HTTP, so the whole runs in virtual time in the tests.

A wait never loses a task: every error that ends a wait carries the task id, a time-out says how to resume,
and a slot without subscribers is dropped without touching the task at the service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from copy import copy
from typing import Any, Final, Protocol, TypeVar

import anyio

from .._wire import poll_response, poll_rules, retry
from .._wire.poll_response import PollResult
from .._wire.redaction import Redactor
from ..api.families import polled_as
from ..api.operation import LONGEST_INTERVAL, Polled
from ..api.results import Result, TaskUpdate, Until
from ..api.task import Task, TaskKey, TaskRef, check_until
from ..clock import Clock
from ..errors import RequestValidationError, TaskTimeoutError
from ..options import check_seconds
from .due_queue import NEVER, DueQueue
from .expected_webhooks import SAFETY_POLLS, ExpectedWebhooks
from .schedule import JITTER, PollSchedule, expected_end
from .subscribers import FOLLOWER, OnUpdate, Slot, Subscriber, UpdateQueue, Wait, closed, timed_out

log: Final = logging.getLogger("musicapi_async")

MOST_NOTES: Final = 100
"""Different unknown shapes and words that are logged at most."""
MOST_UPDATES: Final = 1000
"""Tasks waited for beyond which the last updates of those without a finished clip (5 kB each) are dropped."""
TASKS_AT_ONCE: Final = 500
"""Tasks that are subscribed to at once, in about 5 ms, before other tasks of the loop run."""
CONCURRENCY: Final = 64
"""Polls that run at once; as many as the connection pool keeps."""

R = TypeVar("R", bound=Result)


class PollClient(Protocol):
    """The client, as the waiter sees it."""

    @property
    def redactor(self) -> Redactor:
        """Hides secrets in errors."""
        ...

    @property
    def host_answers(self) -> bool:
        """True once the host has given any response below 500."""
        ...

    async def poll(self, ref: TaskRef, polled: Polled) -> PollResult:
        """Poll a task with one attempt; a failure is a result, too."""
        ...

    def polling_ended(self, ref: TaskRef, update: TaskUpdate | None) -> None:
        """Take the last update of a task; None if it cannot be polled any more."""
        ...


def polled_of(ref: TaskRef) -> Polled:
    """Return how a task is polled; `RequestValidationError` for a family that has no tasks."""
    polled = polled_as(ref.family, ref.kind)
    if polled is None:
        raise RequestValidationError(
            f"family: one whose tasks can be polled, such as 'sonic', got {ref.family!r}",
            field="family",
            value=repr(ref.family),
        )
    return polled


class TaskWaiter:
    """Waits for the tasks of one event loop; see the module's text.

    Args:
        client: polls a task, and takes the ends of tasks.
        schedule: decides when to poll.
        clock: all times here are its seconds.
        draw: source of jitter.
        concurrency: polls that run at once.
    """

    def __init__(
        self,
        client: PollClient,
        schedule: PollSchedule,
        clock: Clock,
        draw: retry.Draw,
        *,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._client: Final = client
        self._schedule: Final = schedule
        self._clock: Final = clock
        self._draw: Final = draw
        self._slots: Final[dict[TaskKey, Slot]] = {}
        self._followed: Final[list[TaskKey]] = []
        self._queue: Final = DueQueue(clock, self._poll, concurrency)
        self._webhooks: Final = ExpectedWebhooks(clock, self._poll_as_usual)
        self._logged: Final[set[str]] = set()
        self._rate_limited = ""  # the refusal of a poll for its rate, until another poll succeeds
        self._closed = False

    # --- waiting ---------------------------------------------------------------------------------------

    async def wait(
        self, ref: TaskRef, until: Until, timeout: float | None, on_update: OnUpdate | None = None
    ) -> TaskUpdate:
        """Wait for one task; see `Task.wait`.

        Args:
            ref: the task.
            until: 'all', 'first' or 'stream'.
            timeout: seconds; None for the default deadline of its family.
            on_update: called with each update that is stored.

        Returns:
            The update that satisfies `until`, or the last one of a failed task.

        Raises:
            TaskTimeoutError: the time is over; the task is unfinished.
            MusicAPIError: the task cannot be polled.
        """
        check_until(until)
        limit = self._limit(ref, timeout)
        started = self._clock.now()
        wait = Wait(until, started + limit, on_update)
        slot = self._subscribe(ref, wait)
        try:
            with anyio.move_on_after(self._clock.real(limit)):
                return await wait.future
            raise self._timed_out(slot, limit, started)
        finally:
            self._unsubscribe(slot, wait)

    async def updates(self, ref: TaskRef, timeout: float | None) -> AsyncGenerator[TaskUpdate, None]:
        """Yield every change of one task; see `Task.updates`. No scope is held across a yield."""
        limit = self._limit(ref, timeout)
        started = self._clock.now()
        queue = UpdateQueue(wants_stream=True, end=started + limit)
        slot = self._subscribe(ref, queue)
        try:
            update = slot.last or TaskUpdate(slot.state or "pending", task_id=ref.task_id, family=ref.family)
            fingerprint = update.fingerprint()
            yield update
            while not update.is_terminal:
                _, outcome = await queue.next(self._clock.real(started + limit)) or (slot, None)
                if outcome is None:
                    raise self._timed_out(slot, limit, started)
                if isinstance(outcome, Exception):
                    raise copy(outcome)
                update = outcome
                if update.is_terminal or update.fingerprint() != fingerprint:
                    fingerprint = update.fingerprint()
                    yield update
        finally:
            self._unsubscribe(slot, queue)

    async def wait_each(
        self, tasks: Sequence[Task[R]], until: Until, timeout: float | None
    ) -> AsyncGenerator[tuple[Task[R], TaskUpdate | Exception], None]:
        """Yield the tasks in the order in which they end.

        One queue serves all of them: a waiting task costs its slot and no future.

        Args:
            tasks: their handles; several may be of one task.
            until: 'all', 'first' or 'stream'.
            timeout: seconds for all of them; None for the default deadline of each one's family.

        Yields:
            A handle, and its last update or the error of its wait: `TaskTimeoutError` when its time is over.
        """
        check_until(until)
        started = self._clock.now()
        waiting: dict[Slot, Task[R]] = {}
        duplicates: dict[Slot, list[Task[R]]] = {}  # further handles of the same tasks
        limits = {self._limit(task.ref, timeout) for task in tasks}
        ended = UpdateQueue(
            wants_stream=until == "stream", until=until, end=started + min(limits, default=NEVER)
        )
        try:
            for number, task in enumerate(tasks, 1):
                known = self._slots.get(task.ref.key)
                if known is not None and known in waiting:
                    duplicates.setdefault(known, []).append(task)
                else:
                    waiting[self._subscribe(task.ref, ended)] = task
                if number % TASKS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            while waiting:
                item = await ended.next(self._clock.real(started + min(limits, default=NEVER)))
                if item is None:  # the time of a family is over
                    limit = min(limits)
                    limits.remove(limit)
                    for slot in [slot for slot in waiting if self._limit(slot.ref, timeout) <= limit]:
                        ended.fail(slot, self._timed_out(slot, limit, started))
                    continue
                slot, outcome = item
                if slot not in waiting:
                    continue  # it had ended before
                handles = [waiting.pop(slot), *duplicates.get(slot, ())]
                self._unsubscribe(slot, ended)
                _store_last(slot, handles)
                for task in handles:
                    yield task, outcome
        finally:
            for slot, task in waiting.items():
                self._unsubscribe(slot, ended)
                _store_last(slot, [task, *duplicates.get(slot, ())])

    def follow(self, ref: TaskRef) -> None:
        """Poll a task that no caller waits for, on its normal schedule, until its end or until `unfollow`."""
        if not self._closed and ref.key not in self._slots:
            self._subscribe(ref, FOLLOWER)
            self._followed.append(ref.key)

    def unfollow(self) -> None:
        """Poll only the tasks that a caller waits for."""
        for key in self._followed:
            if (slot := self._slots.get(key)) is not None:
                self._unsubscribe(slot, FOLLOWER)
        self._followed.clear()

    @property
    def watched(self) -> int:
        """Number of tasks that are waited for now."""
        return len(self._slots)

    async def aclose(self) -> None:
        """Stop polling. Waits that remain raise a `TaskError` that says how to resume; the tasks continue."""
        self._closed = True
        self._webhooks.close()
        for slot in list(self._slots.values()):
            self._fail(slot, closed(slot.ref, "the client was closed while waiting"))
        await self._queue.aclose()

    # --- webhooks --------------------------------------------------------------------------------------

    def expect(self, family: str, task_id: str) -> None:
        """Expect a webhook about this task: poll it only as a safety net."""
        self._webhooks.expect(TaskRef(family, task_id).key)

    def deliver(self, family: str, task_id: str, body: Any) -> bool:
        """Apply the body of a webhook about a task like a poll response.

        Returns:
            True if the task is waited for; otherwise the body is stored for a wait that starts later. The
            first terminal body wins; later ones change nothing.
        """
        self._webhooks.arrived()
        ref = TaskRef(family, task_id)
        slot = self._slots.get(ref.key)
        if slot is not None:
            result = self._judge(body, slot.ref, slot.polled)
            self._webhooks.expect(ref.key)  # after a webhook about the beginning, one about the end will come
            if not _goes_back(slot.last, result.update, with_webhooks=True):
                self._apply(slot, result, from_webhook=True)
            return True
        update = self._judge(body, ref, polled_of(ref)).update
        ended = update is not None and update.is_terminal
        if self._webhooks.store(ref.key, body, ended=ended) and update is not None and ended:
            self._client.polling_ended(ref, update)
        return False

    def knows(self, family: str, task_id: str) -> bool:
        """Return True for a task that was submitted or waited for here, or of which a webhook has come."""
        key = TaskRef(family, task_id).key
        return key in self._slots or self._webhooks.is_known(key)

    def stray(self) -> None:
        """Note a webhook about a task of another process: poll on the usual schedule for some time."""
        self._webhooks.for_another_process()

    def _judge(self, body: Any, ref: TaskRef, polled: Polled) -> PollResult:
        return poll_response.judge_webhook(body, ref=ref, polled=polled, redactor=self._client.redactor)

    def _poll_as_usual(self, reason: str) -> None:
        """Poll the tasks that relied on webhooks like any others, each within its interval if it is due."""
        log.warning("%s: polling at the usual times", reason)
        now = self._clock.now()
        for slot in self._slots.values():
            if self._webhooks.is_expected(slot.key) and not slot.busy:
                due = max(slot.begin + self._schedule.first(slot.kind), now)
                self._queue.schedule(slot, min(slot.due, due + self._draw(slot.polled.interval)))

    # --- slots -----------------------------------------------------------------------------------------

    def _timed_out(self, slot: Slot, limit: float, started: float) -> TaskTimeoutError:
        # A pause after a refusal holds back the polls of all tasks.
        problem = slot.problem or (self._rate_limited if slot.busy else "")
        return timed_out(slot, limit, self._clock.now() - started, problem, self._client.redactor)

    def _limit(self, ref: TaskRef, timeout: float | None) -> float:
        return polled_of(ref).deadline if timeout is None else check_seconds("timeout", timeout)

    def _subscribe(self, ref: TaskRef, subscriber: Subscriber) -> Slot:
        """Return the slot of a task with one more subscriber, and schedule its next poll."""
        if self._closed:
            raise closed(ref, "the client is closed")
        slot = self._slots.get(ref.key)
        if slot is None:
            return self._open(ref, subscriber)
        slot.add(subscriber)
        if subscriber.wants_stream and not slot.busy and not self._webhooks.is_relied_on(ref.key):
            polled = slot.polled
            age = polled.first if slot.polled_at is None else slot.polled_at + polled.interval
            due = max(self._clock.now(), slot.begin + age)
            if due < slot.due:
                self._queue.schedule(slot, due)
        if slot.last is not None:
            subscriber.notify(slot, slot.last)
        return slot

    def _open(self, ref: TaskRef, subscriber: Subscriber) -> Slot:
        polled = polled_of(ref)
        now, age = self._clock.now(), 0.0
        if ref.submitted_at:  # not below 0, as after the system's clock was set back
            age = max(0.0, (self._clock.time() - ref.submitted_at) * self._clock.speed)
        slot = self._slots[ref.key] = Slot(ref.key, ref, polled, now - age)
        slot.subscribers = subscriber
        if (body := self._webhooks.early_body(slot.key)) is not None:
            self._apply(slot, self._judge(body, ref, polled), from_webhook=True)
        elif self._webhooks.is_relied_on(slot.key):
            self._queue.schedule(slot, max(now, slot.begin + self._safety_poll(slot, age)))
        elif ref.own:
            first = polled.first if subscriber.wants_stream else self._schedule.first(slot.kind)
            self._queue.schedule(slot, max(now, slot.begin + first))
        else:  # a task that another process submitted may be done already
            self._queue.schedule(slot, now)
        return slot

    def _unsubscribe(self, slot: Slot, subscriber: Subscriber) -> None:
        slot.remove(subscriber)
        if slot.subscribers is None:
            self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
            if not slot.ref.own:
                self._webhooks.abandon(slot.key)
        self._queue.remove(slot, len(self._slots))

    # --- polls -----------------------------------------------------------------------------------------

    async def _poll(self, slot: Slot) -> None:
        try:
            result = await self._client.poll(slot.ref, slot.polled)
            slot.busy = False
            if self._slots.get(slot.key) is slot:
                self._apply(slot, result)
        except Exception as error:  # such as one of the user's own schedule
            slot.busy = False
            log.exception("polling task %s failed unexpectedly", slot.ref.task_id)
            self._fail(slot, error)

    def _apply(self, slot: Slot, result: PollResult, *, from_webhook: bool = False) -> None:
        """Act on a poll result, or on that of a webhook: store, notify, and schedule the next poll."""
        now = self._clock.now()
        age = now - slot.begin
        conclusion = poll_rules.conclude(
            result, slot.history, age=age, own=slot.ref.own, now=now, host_answers=self._client.host_answers
        )
        slot.history = conclusion.history
        if conclusion.error is not None:
            self._fail(slot, conclusion.error)
            self._client.polling_ended(slot.ref, None)
            return
        self._store_problem(slot, result, from_webhook=from_webhook)
        update = conclusion.update
        if update is not None:
            update.age = age
            if update.is_terminal:
                self._end(slot, update, age, from_webhook=from_webhook)
                return
            self._schedule.observed(slot.kind, False, slot.polled_at, age)
            slot.polled_at = age
            if not _goes_back(slot.last, update, with_webhooks=self._webhooks.is_expected(slot.key)):
                slot.state = update.state
                stored = len(self._slots) <= MOST_UPDATES or update.clips.has_succeeded
                slot.last = update if stored else None
                slot.notify(update)
        if not slot.busy:
            self._queue.schedule(slot, slot.begin + self._next_poll(slot, conclusion, age))

    def _store_problem(self, slot: Slot, result: PollResult, *, from_webhook: bool) -> None:
        """Store why a poll showed nothing, for the text of a time-out; log a shape that no rule knows."""
        slot.problem = ""
        if result.error is not None and result.phase == "rate_limited":
            slot.problem = self._rate_limited = f"; polls are rate limited: {result.error.message}"
        elif result.error is not None and result.phase == "transient":
            slot.problem = f"; the last poll failed: {result.error.message}"
        elif not from_webhook:
            self._rate_limited = ""
        note = result.note
        if note and note not in self._logged and len(self._logged) < MOST_NOTES:
            self._logged.add(note)
            log.warning("task %s: %s; still waiting", slot.ref.token, note)

    def _next_poll(self, slot: Slot, conclusion: poll_rules.Conclusion, age: float) -> float:
        """Return the age of the next poll, after one at `age`."""
        pause = conclusion.pause
        if conclusion.failures:
            return age + max(retry.poll_pause(conclusion.failures, self._draw), pause)
        if conclusion.history is None and self._webhooks.is_relied_on(slot.key):
            return max(self._safety_poll(slot, age), age + pause)
        poll = self._schedule.next(slot.kind, age)
        end = expected_end(conclusion.update, pause, age)
        if end is not None:
            shortest = min(slot.polled.interval, poll - age)
            poll = age + min(max(end - age, shortest), LONGEST_INTERVAL)
        if slot.wants_stream:
            poll = min(poll, age + retry.spread(slot.polled.interval, JITTER, self._draw))
        return max(poll, age + pause)

    def _safety_poll(self, slot: Slot, age: float) -> float:
        """Return the age of the next poll of a task that relies on webhooks: late, but before a wait ends."""
        late = (age if slot.polled_at is not None else 0.0) + slot.polled.deadline / SAFETY_POLLS
        last = min(subscriber.end for subscriber in slot.each()) - slot.begin - slot.polled.interval
        return min(late, last) if last > age + 1 else late

    def _end(self, slot: Slot, update: TaskUpdate, age: float, *, from_webhook: bool) -> None:
        if update.result is not None:
            if from_webhook:  # it ended just now, not at some time since the last poll
                self._schedule.observed(slot.kind, False, slot.polled_at, age)
            self._schedule.observed(slot.kind, True, age if from_webhook else slot.polled_at, age)
        slot.state, slot.last = update.state, update
        self._drop(slot)
        expected = self._webhooks.end(slot.key)
        if from_webhook or expected:
            self._webhooks.store(slot.key, update.raw, ended=True)
        if expected and not from_webhook:
            self._webhooks.missed()
        slot.notify(update)
        self._client.polling_ended(slot.ref, update)

    def _fail(self, slot: Slot, error: Exception) -> None:
        self._drop(slot)
        for subscriber in slot.each():
            subscriber.fail(slot, error)


def _store_last(slot: Slot, tasks: Sequence[Task[R]]) -> None:
    """Store the last update of a task on its handles."""
    if slot.last is not None:
        for task in tasks:
            task.last = slot.last


def _goes_back(last: TaskUpdate | None, update: TaskUpdate | None, *, with_webhooks: bool) -> bool:
    """Return True for an update that another one overtook: it shows less than is known.

    A webhook may overtake a poll, and a poll a webhook. Without webhooks, polls of a task follow each other,
    and the links of unfinished clips, which cost most of the time to read, need no comparison.
    """
    if last is None or update is None or update.is_terminal:
        return False
    if last.state != "pending" and update.state == "pending":
        return True
    if last.clips.has_succeeded and len(update.clips.succeeded) < len(last.clips.succeeded):
        return True
    return with_webhooks and _links(update) < _links(last)


def _links(update: TaskUpdate) -> int:
    """Return the number of clips that can be heard."""
    return sum(clip.audio_url is not None for clip in update.clips)
