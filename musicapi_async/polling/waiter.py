"""One scheduler for every task that is waited for.

Why not one loop per task
-------------------------
A sleeping asyncio task costs 1.5 kB and a timer of its own; thousands of them wake the loop one by one. Here
a waiting task is a slot and an entry in a heap of due times. One timer of the loop is set to the earliest
entry; when it fires, everything that is due is polled by a bounded number of workers, first due first
served (`due_queue`). Any number of callers may wait for a task: they share its slot and each poll.

Responsibilities
----------------
`schedule` decides when to poll, `_wire.poll_response` and `_wire.poll_rules` decide what a response means,
and the client fetches it. This module has the slots and due times, and notifies the subscribers. It is
independent of HTTP, so tests run it in virtual time.

A wait never loses a task: every error that ends a wait carries the task id, a time-out says how to resume,
and a slot without subscribers is dropped without touching the task at the service.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from copy import copy
from itertools import islice
from typing import Final, Protocol, TypeVar

import anyio

from .._wire import poll_rules, retry
from .._wire.codec import report
from .._wire.poll_result import PollResult
from .._wire.redaction import Redactor
from ..api.families import FAMILIES, polled_of
from ..api.operation import LONGEST_INTERVAL, Polled
from ..api.results import Result, TaskUpdate, Until
from ..api.task import TASKS_AT_ONCE, Task, TaskKey, TaskRef, check_until, ref_of
from ..arguments import check_seconds
from ..clock import Clock
from ..errors import TaskTimeoutError
from .due_queue import DueQueue
from .expected_webhooks import ExpectedWebhooks, put
from .kind_model import Sample, stage_of, with_poll
from .poll_problems import PollProblems
from .schedule import PollSchedule, next_poll, safety_poll
from .subscribers import (
    FOLLOWER,
    OnUpdate,
    Slot,
    Subscriber,
    UpdateQueue,
    Wait,
    WaitingHandles,
    WaitLimit,
    closed,
    timed_out,
)

log: Final = logging.getLogger("musicapi_async")

MOST_UPDATES: Final = 1000
"""Tasks waited for beyond which the last updates of those without a finished clip (5 kB each) are dropped."""
CONCURRENCY: Final = 64
"""Polls that run at once; as many as the connection pool keeps."""

LONGEST_GAP: Final = 4 * LONGEST_INTERVAL
"""Seconds without a poll after which the next one teaches nothing, finished or not: the task may have ended
at any time between. Such is the first poll of a task that was submitted hours ago; in a process that has
learned nothing else, 200 such ends would cost the next tasks up to 1.6 times as much. The task counts from
this poll on, so nothing is distorted. Under a limit the polls of 1,000 tasks may be 200 s apart."""

MOST_RECENT: Final = 1000
"""Tasks without a wait that are remembered, 500 bytes and the last update of each. With 3,000 or more, the
garbage collector examines all objects when the time of 20,000 waits is over, and stops the loop for 50 ms
instead of 15."""

R = TypeVar("R", bound=Result)


class PollClient(Protocol):
    """The client, as the waiter sees it."""

    @property
    def redactor(self) -> Redactor:
        """Hides secrets in errors."""
        ...

    @property
    def host_responds(self) -> bool:
        """True once the host has given any response below 500."""
        ...

    def poll(self, ref: TaskRef, polled: Polled, due: float) -> Awaitable[PollResult]:
        """Poll a task with one attempt, scheduled for `due`; a failure is a result, too."""
        ...

    def polling_ended(self, ref: TaskRef, update: TaskUpdate | None) -> None:
        """Take the last update of a task; None if it cannot be polled any more."""
        ...


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
        self._recent: Final[OrderedDict[TaskKey, tuple[Slot, float] | None]] = OrderedDict()
        """Tasks without a wait: the slot of the last one, and when its poll is due; None if it ended."""
        self._followed: Final[set[TaskKey]] = set()
        self._queue: Final = DueQueue(clock, self._poll, concurrency)
        self._webhooks: Final = ExpectedWebhooks(clock, self._poll_as_usual)
        self._problems: Final = PollProblems(clock)
        self._sample: Final = Sample(draw)
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
        wait = Wait(until, limit.end, on_update)
        slot = self._subscribe(ref, wait)
        try:
            with anyio.CancelScope(deadline=self._clock.real(limit.end)):
                return await wait.future
            raise self._timed_out(slot, limit)
        finally:
            self._unsubscribe(slot, wait)

    async def updates(self, ref: TaskRef, timeout: float | None) -> AsyncGenerator[TaskUpdate, None]:
        """Yield every change of one task; see `Task.updates`. No scope is held across a yield."""
        limit = self._limit(ref, timeout)
        queue = UpdateQueue(wants_stream=True, end=limit.end)
        slot = self._subscribe(ref, queue)
        try:
            update = slot.last or TaskUpdate(slot.state or "pending", task_id=ref.task_id, family=ref.family)
            fingerprint = update.fingerprint()
            yield update
            while not update.is_terminal:
                _, outcome = await queue.next(self._clock) or (slot, None)
                if outcome is None:
                    raise self._timed_out(slot, limit)
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
            tasks: their handles; several may be of one task, each with the time of its own kind.
            until: 'all', 'first' or 'stream'.
            timeout: seconds for all of them; None for the default deadline of each handle.

        Yields:
            A handle, and its last update or the error of its wait: `TaskTimeoutError` when its time is over.
        """
        check_until(until)
        if timeout is not None:
            check_seconds("timeout", timeout)
        started = self._clock.now()
        found: set[float] = set()
        waiting: WaitingHandles[R] = WaitingHandles()
        ended = UpdateQueue(wants_stream=until == "stream", until=until, end=math.inf)
        try:
            for number, task in enumerate(tasks, 1):
                ref = ref_of(task)
                seconds = self._seconds(ref, timeout)
                if seconds not in found:
                    found.add(seconds)
                    ended.end = min(ended.end, started + seconds)
                key = ref.key
                slot = self._slots.get(key)
                if slot is None:
                    slot = self._open(ref, key, ended)
                elif slot not in waiting:
                    self._join(slot, ended)
                waiting.add(slot, task)
                if number % TASKS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            limits = [WaitLimit(started, seconds) for seconds in sorted(found)]
            while waiting:
                item = await ended.next(self._clock)
                if item is not None:
                    slot, outcome = item
                    handles = waiting.pop(slot)
                    if handles:  # else it had ended before
                        self._unsubscribe(slot, ended)
                        slot.store_last(handles)
                    for task in handles:
                        yield task, outcome
                    continue
                limit = limits.pop(0)
                if limits:
                    ended.end = limits[0].end
                late: list[tuple[Task[R], TaskTimeoutError]] = []
                for number, slot in enumerate(waiting.slots(), 1):
                    if number % TASKS_AT_ONCE == 0:
                        await asyncio.sleep(0)
                    if slot.subscribers is None:
                        continue  # it has ended meanwhile, and its outcome is in the queue
                    handles = waiting.pop(slot)
                    for task in handles:
                        if self._seconds(ref_of(task), timeout) > limit.seconds:
                            waiting.add(slot, task)
                        else:
                            late.append((task, self._timed_out(slot, limit)))
                    slot.store_last(handles)
                    if slot not in waiting:
                        self._unsubscribe(slot, ended)
                for number, (task, error) in enumerate(late, 1):
                    yield task, error
                    if number % TASKS_AT_ONCE == 0:
                        await asyncio.sleep(0)
        finally:
            await self._leave(waiting, ended)

    async def _leave(self, waiting: WaitingHandles[R], subscriber: Subscriber) -> None:
        """Unsubscribe from all that remain, some at a time; if that is cancelled, from the rest at once."""

        def leave(slots: Iterable[Slot]) -> None:
            for slot in slots:
                self._unsubscribe(slot, subscriber)
                slot.store_last(waiting.pop(slot))

        slots = iter(waiting.slots())
        try:
            leave(islice(slots, TASKS_AT_ONCE))
            with anyio.CancelScope(shield=True):
                while waiting:
                    await asyncio.sleep(0)
                    leave(islice(slots, TASKS_AT_ONCE))
        finally:
            leave(slots)

    def follow(self, ref: TaskRef) -> None:
        """Poll a task that no caller waits for, on its normal schedule, until its end or until `unfollow`."""
        if not self._closed and ref.key not in self._slots:
            self._subscribe(ref, FOLLOWER)
            if ref.key in self._slots:  # else a webhook had brought its end before
                self._followed.add(ref.key)

    def unfollow(self) -> None:
        """Poll only the tasks that a caller waits for."""
        for key in list(self._followed):
            self._unsubscribe(self._slots[key], FOLLOWER)
        self._followed.clear()

    def poll_now(self, ref: TaskRef) -> None:
        """Poll a task at once, or when it is waited for: a poll beside the schedule has found its end."""
        key = ref.key
        self._recent.pop(key, None)
        slot = self._slots.get(key)
        if slot is not None and not slot.busy:
            self._queue.schedule(slot, self._clock.now())

    @property
    def watched(self) -> int:
        """Number of tasks that are waited for now."""
        return len(self._slots)

    async def aclose(self) -> None:
        """Stop polling. Waits that remain raise a `TaskError` that says how to resume; the tasks continue."""
        self._closed = True
        self._webhooks.close()
        self._recent.clear()
        for slot in list(self._slots.values()):
            self._fail(slot, closed(slot.ref, "the client was closed while waiting"))
        await self._queue.aclose()

    # --- webhooks --------------------------------------------------------------------------------------

    def expect(self, ref: TaskRef) -> None:
        """Expect a webhook about this task: poll it only as a safety net.

        One about its end may have come before the response to its create.
        """
        self._webhooks.expect(ref)
        if (update := self._webhooks.end_of(ref.key)) is not None:
            self._client.polling_ended(ref, update)

    def known(self, ref: TaskRef) -> TaskRef:
        """Return a task as it is waited for or was submitted here, which says more of it; else `ref`."""
        slot = self._slots.get(ref.key)
        return self._webhooks.known(ref) if slot is None else slot.ref

    def knows(self, ref: TaskRef) -> bool:
        """Return True for a task that is waited for or was submitted here."""
        return ref.key in self._slots or self._webhooks.is_known(ref.key)

    def family_of(self, task_id: str) -> str:
        """Return the family of the known task with this id; '' if there is none, or more than one."""
        known = self._families_of(task_id)
        return known[0] if len(known) == 1 else ""

    def knows_id(self, task_id: str) -> bool:
        """Return True for the id of a task that is waited for or was submitted here; from any thread."""
        return bool(self._families_of(task_id))

    def _families_of(self, task_id: str) -> list[str]:
        keys = {TaskRef(family, task_id).key for family in FAMILIES}
        return [key[0] for key in keys if key in self._slots or self._webhooks.is_known(key)]

    def deliver(self, ref: TaskRef, result: PollResult, *, own: bool, takes_end: bool = True) -> None:
        """Apply the result of a webhook about a task like that of a poll; the first end wins.

        Args:
            ref: the task, as `known` gives it.
            result: the judgement of the body. Without a wait it is stored for one that starts later.
            own: True if this process ordered the webhook. One that it neither ordered nor knows says that
                webhooks are shared with other processes: poll on the usual schedule for some time.
            takes_end: False if the caller has the client take the end of a task that is not known here.
        """
        key, update = ref.key, result.update
        slot = self._slots.get(key)
        self._webhooks.arrived(here=own or slot is not None or self._webhooks.is_known(key))
        if slot is not None:
            self._webhooks.expect(slot.ref)  # after one about the beginning, one about the end will come
            if not slot.has_overtaken(update, with_webhooks=True):
                self._apply(slot, result, from_webhook=True)
        elif update is not None:
            is_new_end = self._webhooks.store(ref, result) and update.is_terminal
            if is_new_end and (ref.own or takes_end):
                self._client.polling_ended(ref, update)

    def _poll_as_usual(self, reason: str) -> None:
        """Poll the tasks that relied on webhooks like any others, each within its interval if it is due."""
        report(logging.WARNING, "%s: polling at the usual times", reason)
        self._recent.clear()
        now = self._clock.now()
        for slot in self._slots.values():
            if self._webhooks.is_expected(slot.key) and not slot.busy:
                due = max(slot.begin + self._schedule.first(slot.kind), now)
                self._queue.schedule(slot, min(slot.due, due + self._draw(slot.polled.interval)))

    # --- slots -----------------------------------------------------------------------------------------

    def _limit(self, ref: TaskRef, timeout: float | None) -> WaitLimit:
        return WaitLimit(self._clock.now(), self._seconds(ref, timeout))

    @staticmethod
    def _seconds(ref: TaskRef, timeout: float | None) -> float:
        """Return the time of one handle's wait: its timeout, else the deadline of its family and kind.

        Another handle of the same task, which shares its slot, may have another.
        """
        return polled_of(ref).deadline if timeout is None else check_seconds("timeout", timeout)

    def _timed_out(self, slot: Slot, limit: WaitLimit) -> TaskTimeoutError:
        elapsed = self._clock.now() - limit.started
        return timed_out(slot, limit.seconds, elapsed, self._problems.of(slot), self._client.redactor)

    def _subscribe(self, ref: TaskRef, subscriber: Subscriber) -> Slot:
        """Return the slot of a task with one more subscriber, and schedule its next poll."""
        key = ref.key
        slot = self._slots.get(key)
        if slot is None:
            return self._open(ref, key, subscriber)
        self._join(slot, subscriber)
        return slot

    def _join(self, slot: Slot, subscriber: Subscriber) -> None:
        slot.add(subscriber)
        is_fixed = slot.busy or slot.is_unsettled or self._webhooks.is_relied_on(slot.key)
        if subscriber.wants_stream and not is_fixed:
            polled = slot.polled
            age = polled.first if slot.polled_at is None else slot.polled_at + polled.interval
            due = max(self._clock.now(), slot.begin + age)
            if due < slot.due:
                self._queue.schedule(slot, due)
        if slot.last is not None:
            subscriber.notify(slot, slot.last)

    def _open(self, ref: TaskRef, key: TaskKey, subscriber: Subscriber) -> Slot:
        if self._closed:
            raise closed(ref, "the client is closed")
        if (given_up := self._reopened(ref, key)) is not None:
            self._join(given_up, subscriber)
            return given_up
        polled = polled_of(ref)
        now, age = self._clock.now(), 0.0
        if ref.submitted_at:  # not below 0, as after the system's clock was set back
            age = max(0.0, (self._clock.time() - ref.submitted_at) * self._clock.speed)
        slot = self._slots[key] = Slot(key, ref, polled, now - age)
        slot.subscribers = subscriber
        if len(self._slots) == MOST_UPDATES + 1:
            for other in self._slots.values():
                if other.last is not None and not other.last.clips.has_succeeded:
                    other.last = None
        try:
            if (early := self._webhooks.early(ref, polled, self._client.redactor)) is not None:
                self._apply(slot, early, from_webhook=True, learns=False)
            elif self._webhooks.is_relied_on(key):
                self._queue.schedule(slot, max(now, slot.begin + safety_poll(slot, age)))
            elif ref.own:
                first = polled.first if subscriber.wants_stream else self._schedule.first(slot.kind)
                self._queue.schedule(slot, max(now, slot.begin + first))
            else:  # a task that another process submitted may be done already
                self._queue.schedule(slot, now)
        except Exception:  # of the user's own schedule; another wait for the task begins again
            self._drop(slot)
            raise
        return slot

    def _reopened(self, ref: TaskRef, key: TaskKey) -> Slot | None:
        """Return the slot of a task whose last wait was given up, with the poll that was to come.

        So many short waits poll, and teach the schedule, as a long one does.
        """
        recent = self._recent.get(key)
        if recent is None or recent[0].ref != ref or self._webhooks.has_early(key):
            return None
        del self._recent[key]
        slot, due = recent
        self._slots[key] = slot
        if not slot.busy:
            self._queue.schedule(slot, max(due, self._clock.now()))
        return slot

    def _unsubscribe(self, slot: Slot, subscriber: Subscriber) -> None:
        if slot.subscribers is None or not slot.remove(subscriber):
            return  # it was dropped, or one remains
        if slot.busy or slot.polled_at is not None or slot.is_unsettled:
            due = self._clock.now() + slot.polled.interval if slot.busy else slot.due
            put(self._recent, slot.key, (slot, due), MOST_RECENT)
        self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        """Forget a slot that has no subscribers any more, or none once they were notified."""
        self._slots.pop(slot.key, None)
        self._followed.discard(slot.key)
        if not self._slots:
            self._problems.failing_since = None  # a time in which nothing is polled is no outage
        if not slot.ref.own:
            self._webhooks.remember(slot.ref)
        self._queue.remove(slot, len(self._slots))

    # --- polls -----------------------------------------------------------------------------------------

    async def _poll(self, slot: Slot) -> None:
        try:
            result = await self._client.poll(slot.ref, slot.polled, self._queue.due)
            slot.busy = False
            if slot.subscribers is not None:
                self._apply(slot, result)
        except Exception as error:  # such as one of the user's own schedule
            slot.busy = False
            if slot.subscribers is not None:
                self._fail(slot, error)
            log.exception("polling task %s failed unexpectedly", slot.ref.task_id)

    def _apply(
        self, slot: Slot, result: PollResult, *, from_webhook: bool = False, learns: bool = True
    ) -> None:
        """Act on a poll result, or on that of a webhook: store, notify, and schedule the next poll.

        Args:
            slot: the task.
            result: the judgement of the response or of the body.
            from_webhook: True for one of a webhook.
            learns: False for a webhook that came some time ago, before the wait.
        """
        now = self._clock.now()
        age = now - slot.begin
        host_responds = result.phase != "transient" or self._client.host_responds
        conclusion = poll_rules.conclude(
            result, slot.history, age=age, own=slot.ref.own, now=now, host_responds=host_responds
        )
        slot.history = conclusion.history
        if conclusion.error is not None:
            self._fail(slot, conclusion.error)
            self._client.polling_ended(slot.ref, None)
            return
        problems = self._problems
        known_problem = slot.problem or problems.rate_limited or problems.failing_since is not None
        if result.error is not None or result.note or known_problem:
            problems.store(slot, result, from_webhook=from_webhook)
        update = conclusion.update
        if update is not None:
            update.age = age
            if update.is_terminal:
                if learns and update.result is not None:
                    self._learn(slot, True, age, from_webhook=from_webhook)
                self._end(slot, update, from_webhook=from_webhook)
                return
            if learns:
                self._learn(slot, False, age, from_webhook=from_webhook)
            is_overtaken = slot.last is not None and slot.has_overtaken(
                update, with_webhooks=self._webhooks.is_expected(slot.key)
            )
            if not is_overtaken:
                slot.stage = stage_of(update)
            if learns:
                if slot.polled_at is None and self._sample.takes(slot.kind):
                    slot.latest = with_poll(None, age, slot.stage)
                elif slot.latest is not None:
                    slot.latest = with_poll(slot.latest, age, slot.stage)
                slot.polled_at = age
            if not is_overtaken:
                slot.state = update.state
                stored = len(self._slots) <= MOST_UPDATES or update.clips.has_succeeded
                slot.last = update if stored else None
                slot.notify(update)
        if not slot.busy:
            relied_on = self._webhooks.is_relied_on(slot.key)
            poll = next_poll(slot, conclusion, age, self._schedule, self._draw, relied_on=relied_on)
            self._queue.schedule(slot, slot.begin + poll)

    def _end(self, slot: Slot, update: TaskUpdate, *, from_webhook: bool) -> None:
        slot.state, slot.last = update.state, update
        put(self._recent, slot.key, None, MOST_RECENT)
        self._drop(slot)
        if from_webhook or self._webhooks.is_expected(slot.key):
            self._webhooks.ended(slot.ref, update, by_webhook=from_webhook)
        slot.notify(update)
        slot.subscribers = None
        self._client.polling_ended(slot.ref, update)

    def _learn(self, slot: Slot, finished: bool, age: float, *, from_webhook: bool) -> None:
        """Teach the schedule what a poll or a webhook says about the duration, if it says enough."""
        if not (slot.ref.own or slot.ref.submitted_at) or self._recent.get(slot.key, slot) is None:
            return  # of unknown age, or waited for again after its end
        observed, begin = self._schedule.observed, slot.polled_at
        if from_webhook and finished:  # it ended just now, not at some time since the last poll
            observed(slot.kind, False, begin, age, slot.latest)
            begin = age
        if from_webhook or age - (begin or 0.0) <= LONGEST_GAP:
            observed(slot.kind, finished, begin, age, slot.latest)

    def _fail(self, slot: Slot, error: Exception) -> None:
        self._drop(slot)
        for subscriber in slot.each():
            subscriber.fail(slot, error)
        slot.subscribers = None
