"""Expected webhooks: the tasks of which one will come, the ends that came early, and how reliable they are.

Webhooks replace most polls, so a task whose webhook is expected is polled seldom, but only after the first
webhook has arrived: if the service could not reach the URL, every result would be minutes late. Webhooks may
also stop later. The sign of that is a poll of a task that has ended without a webhook. Then every task is
polled on the usual schedule until the next webhook comes.

If several processes share the URL, such as the workers of one server, each webhook reaches one of them, and
usually not the one that waits. The sign of that is a webhook about a task that this process neither submitted
nor waited for. Then, too, every task is polled on the usual schedule, until no such webhook has come for a
while.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

from .._wire.poll_response import judge_webhook
from .._wire.poll_result import PollResult
from .._wire.redaction import Redactor
from ..api.operation import Polled
from ..api.results import TaskUpdate
from ..api.task import TaskKey, TaskRef
from ..clock import Clock

LATE_WEBHOOK: Final = 30.0
"""Seconds that a webhook may be later than the poll that found the end, before it counts as lost: a slow
receiver and one repetition."""
EARLY_RESULTS: Final = 256
"""Early webhooks whose results are stored for a wait that starts later; 10 kB each, usually."""
MOST_EXPECTED: Final = 10_000
"""Tasks of which a webhook is expected, or was, 300 bytes each; older ones are polled on the usual
schedule."""
SHARED_FOR: Final = 900.0
"""Seconds after a webhook for another process for which none is relied on: as long as a wait for a song, so
that a restarted process has received the last webhooks for the one before it."""

V = TypeVar("V")


class ExpectedWebhooks:
    """The webhooks of one event loop. `unreliable` is called with the reason when they become so."""

    def __init__(self, clock: Clock, unreliable: Callable[[str], None]) -> None:
        self._clock: Final = clock
        self._unreliable: Final = unreliable
        self._silent = True  # until the first has come: the address may be wrong
        self._shared_until = -math.inf
        self._tasks: Final[OrderedDict[TaskKey, tuple[TaskRef, bool]]] = OrderedDict()
        """The tasks that were submitted or waited for here; True while a webhook about one will come."""
        self._early: Final[OrderedDict[TaskKey, tuple[TaskRef, PollResult]]] = OrderedDict()
        """The results that came without a wait, each with the task as it was judged."""
        self._alarm: asyncio.TimerHandle | None = None

    def expect(self, ref: TaskRef) -> None:
        """Expect a webhook about this task."""
        put(self._tasks, ref.key, (ref, True), MOST_EXPECTED)

    def remember(self, ref: TaskRef) -> None:
        """Remember a task of another process whose last wait has gone; its webhook may still come."""
        if ref.key not in self._tasks:
            put(self._tasks, ref.key, (ref, False), MOST_EXPECTED)

    def known(self, ref: TaskRef) -> TaskRef:
        """Return the task as it was submitted or waited for here, which says more of it; else `ref`."""
        task = self._tasks.get(ref.key)
        return ref if task is None else task[0]

    def is_known(self, key: TaskKey) -> bool:
        """Return True for a task that this process submitted or waited for, as far as it remembers."""
        return key in self._tasks or key in self._early

    def is_expected(self, key: TaskKey) -> bool:
        """Return True if a webhook about this task will come."""
        task = self._tasks.get(key)
        return task is not None and task[1]

    def is_relied_on(self, key: TaskKey) -> bool:
        """Return True if a webhook about this task will come to this process, so that polls can be few."""
        return not self._silent and self.is_expected(key) and self._clock.now() >= self._shared_until

    def arrived(self, *, here: bool) -> None:
        """Note that a webhook has come, so that they are relied on.

        One about a task of another process (`here` False) says that those for this process may reach that
        one: for some time none is relied on.
        """
        if not here:
            now = self._clock.now()
            was_reliable = not self._silent and now >= self._shared_until
            self._shared_until = now + SHARED_FOR
            if was_reliable:
                self._unreliable("webhooks are shared with other processes")
        self._silent = False
        self.close()

    def ended(self, ref: TaskRef, update: TaskUpdate, *, by_webhook: bool) -> None:
        """Note that a task has ended: a later wait gets its last update, and a copy changes nothing.

        If a poll found the end although a webhook was expected, one may still come for a moment; then they
        are taken to have stopped.

        Args:
            ref: the task.
            update: its last one.
            by_webhook: True if a webhook brought it, False for a poll.
        """
        expected = self.is_expected(ref.key)
        if expected:
            self._tasks[ref.key] = ref, False
        if expected or by_webhook:
            self.store(ref, PollResult(phase="done" if update.error is None else "failed", update=update))
        if expected and not by_webhook and not self._silent and self._alarm is None:
            loop = asyncio.get_running_loop()
            delay = self._clock.real(LATE_WEBHOOK)
            self._alarm = loop.call_later(delay, self._give_up, context=contextvars.Context())

    def store(self, ref: TaskRef, result: PollResult) -> bool:
        """Store the result of a webhook for a wait that starts later; return False if the end is stored."""
        if self.end_of(ref.key) is not None:
            return False
        put(self._early, ref.key, (ref, result), EARLY_RESULTS)
        return True

    def end_of(self, key: TaskKey) -> TaskUpdate | None:
        """Return the last update of a task that has ended, if it is stored for a wait that starts later."""
        stored = self._early.get(key)
        update = None if stored is None else stored[1].update
        return update if update is not None and update.is_terminal else None

    def has_early(self, key: TaskKey) -> bool:
        """Return True if a result came before the wait for a task."""
        return key in self._early

    def early(self, ref: TaskRef, polled: Polled, redactor: Redactor) -> PollResult | None:
        """Return the result that came before the wait for a task, or None.

        A wait of another process's task may be the first to know what made it: then the body that came is
        judged once more.

        Args:
            ref: the task, as the wait knows it.
            polled: the declared times and shape of its family.
            redactor: hides secrets in the texts of errors.
        """
        stored = self._early.get(ref.key) if self._early else None
        if stored is None:
            return None
        known, result = stored
        if (known.family, known.kind, known.format) == (ref.family, ref.kind, ref.format):
            return result
        raw = result.update.raw if result.update is not None else None
        return judge_webhook(raw, ref=ref, polled=polled, redactor=redactor)

    def close(self) -> None:
        """Cancel the alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _give_up(self) -> None:
        self._alarm = None
        self._silent = True
        self._unreliable("webhooks have stopped coming")


def put(items: OrderedDict[TaskKey, V], key: TaskKey, value: V, most: int) -> None:
    """Put an item last, and drop the oldest beyond `most`."""
    items[key] = value
    items.move_to_end(key)
    while len(items) > most:
        items.popitem(last=False)
