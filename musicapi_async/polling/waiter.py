"""One scheduler for every task that anybody waits for.

Why not one loop per task
-------------------------
A sleeping asyncio task costs 1.5 kB and a timer of its own; thousands of them wake the loop one by one. Here
a waiting task is a slot and an entry in a heap of due times. One timer of the loop is set to the earliest
entry; when it fires, everything that is due is polled by a bounded number of workers, first due first
served (`agenda`). Any number of callers may wait for a task: they share its slot and each poll.

Who decides what
----------------
When to look is the policy's business (`schedule`), what an answer means is `wire.polls`', how it is fetched
is the function that is handed in. What is left here: slots, due times, and telling the listeners. Nothing
here knows HTTP, so the whole runs in virtual time in the tests.

A wait never loses a task: every error that ends a wait carries the task id, a time-out says how to resume,
and a slot whose last listener has gone is forgotten without touching the task at the service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from copy import copy
from typing import Any, Final, TypeVar

import anyio

from .._wire import polls, retry
from .._wire.looks import Seen
from .._wire.redaction import NOTHING_KNOWN, Redactor
from ..api.handle import Task, TaskRef, check_until
from ..api.operation import Polled
from ..api.results import Result, TaskUpdate, Until
from ..clock import Clock
from ..errors import TaskError, TaskTimeoutError
from ..options import check_seconds
from .agenda import NEVER, Agenda
from .deliveries import LOOKS, Deliveries
from .listeners import FOLLOWER, Key, Listener, Queue, Show, Slot, Waiting
from .schedule import LONGEST_GAP, PollPolicy, hinted

log: Final = logging.getLogger("musicapi_async")

NOTES: Final = 100
"""Different unknown shapes and words that are logged at most."""
BODIES: Final = 1000
"""Tasks waited for beyond which the bodies of those without a finished clip (5 kB each) are not kept."""
NAMED: Final = 4
"""Finished clips that a time-out names."""
NAME: Final = 80
"""Characters of a clip's id that a text shows; the service sends UUIDs."""
TURN: Final = 500
"""Tasks that are taken in at once, in about 5 ms; then the loop has its turn."""
CONCURRENCY: Final = 64
"""Polls under way at once; as many as the connection pool keeps."""

Look = Callable[[TaskRef, Polled], Awaitable[Seen]]
R = TypeVar("R", bound=Result)
JITTER: Final = 0.1
"""Share by which an interval varies, so that many clients do not look in step."""


class TaskWaiter:
    """Watches tasks for one event loop; see the module's text.

    `look` polls a task once and gives failures as values; `policy` says when to look; `polled_of` finds
    how tasks of a family and kind are polled; `ended` is told of each task that ended, `lost` of each that
    cannot be looked at any more; `reached` tells whether the host has ever answered; `redactor` hides
    secrets in errors.
    """

    def __init__(
        self,
        look: Look,
        policy: PollPolicy,
        clock: Clock,
        draw: retry.Draw,
        polled_of: Callable[[TaskRef], Polled],
        *,
        concurrency: int = CONCURRENCY,
        ended: Callable[[TaskRef, TaskUpdate], None] | None = None,
        lost: Callable[[TaskRef], None] | None = None,
        reached: Callable[[], bool] = lambda: False,
        redactor: Redactor = NOTHING_KNOWN,
    ) -> None:
        self._look: Final = look
        self._policy: Final = policy
        self._clock: Final = clock
        self._draw: Final = draw
        self._polled_of: Final = polled_of
        self._ended: Final = ended
        self._lost: Final = lost
        self._reached: Final = reached
        self._redactor: Final = redactor
        self._slots: Final[dict[Key, Slot]] = {}
        self._agenda: Final = Agenda(clock, self._poll, concurrency)
        self._noted: Final[set[str]] = set()
        self._limited = ""  # the refusal of a poll that was too fast, until another poll is answered
        self._closed = False
        self._followed: Final[list[Key]] = []
        self._deliveries: Final = Deliveries(clock, self._hurry)

    # --- what callers want ---------------------------------------------------------------------------

    async def wait(
        self, ref: TaskRef, until: Until, timeout: float | None, show: Show | None = None
    ) -> TaskUpdate:
        """Wait for one task; see `Task.wait`. `show` is given each poll result that is kept."""
        check_until(until)
        limit = self._limit(ref, timeout)
        started = self._clock.now()
        waiting = Waiting(until, started + limit, show)
        slot = self._watch(ref, waiting)
        try:
            with anyio.move_on_after(self._clock.real(limit)):
                return await waiting.future
            raise self._timed_out(slot, limit, self._clock.now() - started)
        finally:
            self._leave(slot, waiting)

    async def updates(self, ref: TaskRef, timeout: float | None) -> AsyncGenerator[TaskUpdate, None]:
        """Every change of one task; see `Task.updates`. No scope is held across a yield."""
        limit = self._limit(ref, timeout)
        started = self._clock.now()
        stream = Queue(eager=True, end=started + limit)
        slot = self._watch(ref, stream)
        try:
            update = slot.last or TaskUpdate(slot.state or "pending", task_id=ref.task_id, family=ref.family)
            shown = update.fingerprint()
            yield update
            while not update.is_terminal:
                _, outcome = await stream.next(self._clock.real(started + limit)) or (slot, None)
                if outcome is None:
                    raise self._timed_out(slot, limit, self._clock.now() - started)
                if isinstance(outcome, Exception):
                    raise copy(outcome)
                update = outcome
                if update.is_terminal or update.fingerprint() != shown:
                    shown = update.fingerprint()
                    yield update
        finally:
            self._leave(slot, stream)

    async def wait_each(
        self, tasks: Sequence[Task[R]], until: Until, timeout: float | None
    ) -> AsyncGenerator[tuple[Task[R], TaskUpdate | Exception], None]:
        """The tasks in the order in which they end, each with its last update or the error of its wait.

        One queue listens for all of them: a waiting task costs its slot and no future. Each task has its
        family's deadline, or all of them `timeout`; one whose time is over comes with `TaskTimeoutError`.
        """
        check_until(until)
        started = self._clock.now()
        waiting: dict[Slot, Task[R] | list[Task[R]]] = {}  # several handles may stand for one task
        limits = {self._limit(task.ref, timeout) for task in tasks}
        ended = Queue(eager=until == "stream", until=until, end=started + min(limits, default=NEVER))
        try:
            for number, task in enumerate(tasks, 1):
                known = self._slots.get(task.ref.key)
                if known is not None and known in waiting:
                    same = waiting[known]
                    waiting[known] = [*same, task] if isinstance(same, list) else [same, task]
                else:
                    waiting[self._watch(task.ref, ended)] = task
                if number % TURN == 0:
                    await asyncio.sleep(0)
            while waiting:
                told = await ended.next(self._clock.real(started + min(limits, default=NEVER)))
                if told is None:  # the time of a family is over
                    limit = min(limits)
                    limits.remove(limit)
                    for slot in [slot for slot in waiting if self._limit(slot.ref, timeout) <= limit]:
                        ended.fail(slot, self._timed_out(slot, limit, self._clock.now() - started))
                    continue
                slot, outcome = told
                if slot not in waiting:
                    continue  # it had ended before
                same = waiting.pop(slot)
                self._leave(slot, ended)
                _show(slot, same)
                for task in same if isinstance(same, list) else (same,):
                    yield task, outcome
        finally:
            for slot, same in waiting.items():
                self._leave(slot, ended)
                _show(slot, same)

    def expect(self, family: str, task_id: str) -> None:
        """A webhook will tell of this task: look at it only as a safety net."""
        self._deliveries.expect(TaskRef(family, task_id).key)

    def deliver(self, family: str, task_id: str, body: Any) -> bool:
        """The body of a webhook about a task: as if it had been polled.

        Returns whether anybody was waiting; if nobody was, it is kept for whoever comes later. The first
        terminal answer wins; later ones change nothing.
        """
        self._deliveries.heard()
        ref = TaskRef(family, task_id)
        slot = self._slots.get(ref.key)
        if slot is not None:
            seen = self._read(body, slot.ref, slot.polled)
            self._deliveries.expect(slot.key)  # one that told of the beginning will tell of the end
            if not _steps_back(slot.last, seen.update):
                self._apply(slot, seen, told=True)
            return True
        update = self._read(body, ref, self._polled_of(ref)).update
        ended = update is not None and update.is_terminal
        news = self._deliveries.keep(ref.key, body, ended=ended)
        if update is not None and ended and news and self._ended is not None:
            self._ended(ref, update)
        return False

    def _read(self, body: Any, ref: TaskRef, polled: Polled) -> Seen:
        return polls.read_payload(body, ref=ref, polled=polled, redactor=self._redactor)

    def knows(self, family: str, task_id: str) -> bool:
        """Whether somebody waits or waited for this task here, or a webhook was expected or has come."""
        key = TaskRef(family, task_id).key
        return key in self._slots or self._deliveries.knows(key)

    def follow(self, ref: TaskRef) -> None:
        """Poll a task that no one waits for, on its normal schedule, until its end or until `unfollow`."""
        if not self._closed and ref.key not in self._slots:
            self._watch(ref, FOLLOWER)
            self._followed.append(ref.key)

    def unfollow(self) -> None:
        """Poll only what someone waits for."""
        for key in self._followed:
            if (slot := self._slots.get(key)) is not None:
                self._leave(slot, FOLLOWER)
        self._followed.clear()

    def stray(self) -> None:
        """A webhook has come about a task of another process: poll as usual for some time."""
        self._deliveries.stray()

    @property
    def watched(self) -> int:
        """How many tasks are waited for now."""
        return len(self._slots)

    async def aclose(self) -> None:
        """Stop watching. Who still waits gets a `TaskError` that says how to resume; the tasks go on."""
        self._closed = True
        self._deliveries.close()
        for slot in list(self._slots.values()):
            self._fail(slot, _closed(slot.ref, "the client was closed while waiting"))
        await self._agenda.aclose()

    # --- slots and due times ---------------------------------------------------------------------------

    def _limit(self, ref: TaskRef, timeout: float | None) -> float:
        return self._polled_of(ref).deadline if timeout is None else check_seconds("timeout", timeout)

    def _age(self, ref: TaskRef) -> float:
        """Seconds since the submit; 0 if that is unknown or in the future, as after a clock was set back."""
        if not ref.submitted_at:
            return 0.0
        return max(0.0, (self._clock.time() - ref.submitted_at) * self._clock.speed)

    def _timed_out(self, slot: Slot, limit: float, elapsed: float) -> TaskTimeoutError:
        ref = slot.ref
        state = slot.state or "not seen yet"
        # A pause after a refusal holds back the polls of all tasks.
        trouble = slot.trouble or (self._limited if slot.busy else "")
        return TaskTimeoutError(
            f"no end after {limit:.3g} s of waiting (last state: {state}{_ready(slot)}{trouble})",
            elapsed=elapsed,
            clips=slot.last.clips if slot.last else (),
            last_body=self._redactor.copy(slot.last.raw) if slot.last else None,
            task_id=ref.task_id,
            family=ref.family,
            kind=ref.kind,
        )

    def _watch(self, ref: TaskRef, listener: Listener) -> Slot:
        if self._closed:
            raise _closed(ref, "the client is closed")
        key = ref.key
        slot = self._slots.get(key)
        now = self._clock.now()
        if slot is None:
            polled = self._polled_of(ref)
            slot = self._slots[key] = Slot(key, ref, polled, now - self._age(ref))
            slot.listeners = listener
            if (body := self._deliveries.early(slot.key)) is not None:
                self._apply(slot, self._read(body, ref, polled), told=True)
                return slot
            if self._is_told(slot):
                self._agenda.schedule(slot, max(now, slot.born + self._slow_look(slot, now - slot.born)))
            elif ref.own:
                first = polled.first if listener.eager else self._policy.first(slot.kind)
                self._agenda.schedule(slot, max(now, slot.born + first))
            else:  # a task that another process submitted may be done already
                self._agenda.schedule(slot, now)
            return slot
        slot.add(listener)
        if listener.eager and not slot.busy and not self._is_told(slot):
            seen_at = slot.born if slot.looked is None else slot.born + slot.looked
            soon = max(now, seen_at + (slot.polled.first if slot.looked is None else slot.polled.interval))
            if soon < slot.due:
                self._agenda.schedule(slot, soon)
        if slot.last is not None:
            listener.notify(slot, slot.last)
        return slot

    def _leave(self, slot: Slot, listener: Listener) -> None:
        slot.remove(listener)
        if slot.listeners is None:
            self._forget(slot)

    def _forget(self, slot: Slot) -> None:
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
            if not slot.ref.own:
                self._deliveries.left(slot.key)
        self._agenda.forget(slot, len(self._slots))

    def _is_told(self, slot: Slot) -> bool:
        """Whether a webhook will tell of the end, so that looking is only the safety net."""
        return self._deliveries.expects(slot.key) and self._deliveries.reliable

    def _hurry(self, why: str) -> None:
        """Webhooks cannot be relied on: look at the tasks that did as at any other."""
        log.warning("%s: polling at the usual times", why)
        now = self._clock.now()
        for slot in self._slots.values():
            if self._deliveries.expects(slot.key) and not slot.busy:
                age = now - slot.born
                due = slot.born + max(self._policy.first(slot.kind), age)
                self._agenda.schedule(slot, min(slot.due, due + self._draw(slot.polled.interval)))

    async def _poll(self, slot: Slot) -> None:
        try:
            seen = await self._look(slot.ref, slot.polled)
            slot.busy = False
            if self._slots.get(slot.key) is slot:
                self._apply(slot, seen)
        except Exception as error:  # such as one of a polling policy that the user wrote
            slot.busy = False
            log.exception("polling task %s failed unexpectedly", slot.ref.task_id)
            self._fail(slot, error)

    def _apply(self, slot: Slot, seen: Seen, *, told: bool = False) -> None:
        """Act on what a look shows, or on what a webhook told."""
        now = self._clock.now()
        age = now - slot.born
        reached = seen.phase != "transient" or self._reached()
        verdict = polls.decide(seen, slot.memory, age=age, own=slot.ref.own, now=now, reached=reached)
        slot.memory = verdict.memory
        update = verdict.update
        if verdict.error is not None:
            self._fail(slot, verdict.error)
            if self._lost is not None:
                self._lost(slot.ref)
            return
        slot.trouble = ""
        if seen.phase == "rate_limited" and seen.error is not None:
            slot.trouble = self._limited = f"; polls are rate limited: {seen.error.message}"
        elif verdict.failures and seen.error is not None:
            slot.trouble = f"; the last poll failed: {seen.error.message}"
        elif not told:
            self._limited = ""
        if seen.note:
            self._note(slot, seen.note)
        if update is not None:
            update.seen_at = age
            if update.is_terminal:
                self._end(slot, update, age, told=told)
                return
            self._policy.observed(slot.kind, False, slot.looked, age)
            slot.looked = age
            if not _steps_back(slot.last, update):  # a webhook may overtake a poll that is under way
                slot.state = update.state
                kept = len(self._slots) <= BODIES or update.clips.has_succeeded
                slot.last = update if kept else None
                slot.notify(update)
        if not slot.busy:
            self._agenda.schedule(slot, slot.born + self._next_look(slot, verdict, age))

    def _note(self, slot: Slot, note: str) -> None:
        """Log an answer that no rule knows, once for each kind of it; it never counts as an end."""
        if note not in self._noted and len(self._noted) < NOTES:
            self._noted.add(note)
            log.warning("task %s: %s; waiting goes on", slot.ref.token, note)

    def _next_look(self, slot: Slot, verdict: polls.Verdict, age: float) -> float:
        if verdict.failures:
            return age + max(retry.poll_pause(verdict.failures, self._draw), verdict.after)
        if self._is_told(slot) and verdict.memory is None:
            return max(self._slow_look(slot, age), age + verdict.after)
        due = self._policy.next(slot.kind, age)
        hint = hinted(verdict.update, verdict.after, age)
        if hint is not None:
            shortest = min(slot.polled.interval, due - age)
            due = age + min(max(hint - age, shortest), LONGEST_GAP)
        if slot.eager:
            due = min(due, age + retry.spread(slot.polled.interval, JITTER, self._draw))
        return max(due, age + verdict.after)

    def _slow_look(self, slot: Slot, age: float) -> float:
        """The age of the next look at a task that a webhook will tell of: late, but before a wait ends."""
        slow = (age if slot.looked is not None else 0.0) + slot.polled.deadline / LOOKS
        last = min(listener.end for listener in slot.each()) - slot.born - slot.polled.interval
        return min(slow, last) if last > age + 1 else slow

    def _end(self, slot: Slot, update: TaskUpdate, age: float, *, told: bool) -> None:
        if update.result is not None:
            if told:  # it ended just now, not at some time since the last look
                self._policy.observed(slot.kind, False, slot.looked, age)
            self._policy.observed(slot.kind, True, age if told else slot.looked, age)
        slot.state, slot.last = update.state, update
        self._forget(slot)
        expected = self._deliveries.ended(slot.key)
        if told or expected:
            self._deliveries.keep(slot.key, update.raw, ended=True)
        if expected and not told:
            self._deliveries.missed()
        slot.notify(update)
        if self._ended is not None:
            self._ended(slot.ref, update)

    def _fail(self, slot: Slot, error: Exception) -> None:
        self._forget(slot)
        for listener in slot.each():
            listener.fail(slot, error)


def _show(slot: Slot, tasks: Task[R] | list[Task[R]]) -> None:
    """Note on the handles of a task what was last seen of it."""
    if slot.last is not None:
        for task in tasks if isinstance(tasks, list) else (tasks,):
            task.last = slot.last


def _ready(slot: Slot) -> str:
    """Name the clips that are finished while others are not."""
    ready = slot.last.clips.succeeded if slot.last is not None else []
    if slot.last is None or not ready:
        return ""
    names = ", ".join(clip.clip_id[:NAME] for clip in ready[:NAMED])
    more = ", ..." if len(ready) > NAMED else ""
    verb = "is" if len(ready) == 1 else "are"
    return f"; {len(ready)} of {len(slot.last.clips)} clips {verb} ready: {names}{more}"


def _steps_back(last: TaskUpdate | None, update: TaskUpdate | None) -> bool:
    """Return True for an answer that another one overtook: it shows less than is known."""
    if last is None or update is None or update.is_terminal:
        return False
    began = last.state != "pending" and update.state == "pending"
    return began or len(update.clips.succeeded) < len(last.clips.succeeded)


def _closed(ref: TaskRef, what: str) -> TaskError:
    hint = f"The task goes on; resume with client.task({ref.token!r}).wait() on an open client."
    return TaskError(what, task_id=ref.task_id, family=ref.family, hint=hint)
