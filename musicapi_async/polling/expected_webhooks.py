"""Expected webhooks: the tasks of which one will come, the bodies that came early, and their reliability.

Webhooks make most polls needless, so a task of which one is expected is polled seldom. That begins with the
first webhook that arrives here: with an address that the service cannot reach, every result would be minutes
late. Webhooks get lost later, too, without a sign except tasks that seem to take long. The sign is a poll
that finds a task ended of which no webhook has come. Then webhooks are taken to have stopped, and every task
is polled on the usual schedule, until the next webhook comes.

Where several processes share the address, such as the workers of one server, each webhook reaches one of
them, and mostly not the one that waits. The sign is a webhook about a task that this process neither
submitted nor waited for. Then, too, every task is polled on the usual schedule, until no such webhook has
come for a while.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..api.task import TaskKey
from ..clock import Clock

SAFETY_POLLS: Final = 3
"""The slow interval is the default deadline of a wait divided by this: a safety net of two polls, and a last
one as the time runs out. For songs 900 / 3 = 300 s; no result is late by more, whatever is lost."""
LATE: Final = 30.0
"""Seconds that a webhook may be later than the poll that found the end, before it counts as lost: a slow
receiver and one repetition."""
EARLY_BODIES: Final = 256
"""Early webhooks whose bodies are stored for a wait that starts later; 10 kB each, usually."""
MOST_TASKS: Final = 10_000
"""Tasks of which a webhook is expected, or was, 200 bytes each; older ones are polled on the usual
schedule."""
SHARED: Final = 900.0
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
        self._more: Final[OrderedDict[TaskKey, bool]] = OrderedDict()
        """True while more will come of a task, False once it has ended."""
        self._bodies: Final[OrderedDict[TaskKey, tuple[Any, bool]]] = OrderedDict()
        self._abandoned: Final[OrderedDict[TaskKey, None]] = OrderedDict()
        self._alarm: asyncio.TimerHandle | None = None

    def expect(self, key: TaskKey) -> None:
        """Expect a webhook about this task."""
        _put(self._more, key, True, MOST_TASKS)

    def is_expected(self, key: TaskKey) -> bool:
        """Return True if a webhook about this task will come."""
        return self._more.get(key, False)

    def is_relied_on(self, key: TaskKey) -> bool:
        """Return True if a webhook about this task will come to this process, so that polls can be few."""
        return self._more.get(key, False) and not self._silent and self._clock.now() >= self._shared_until

    def is_known(self, key: TaskKey) -> bool:
        """Return True for a task that this process submitted or waited for, as far as it remembers."""
        return key in self._more or key in self._bodies or key in self._abandoned

    def abandon(self, key: TaskKey) -> None:
        """Remember a task of another process whose last wait has gone; its webhook may still come."""
        _put(self._abandoned, key, None, MOST_TASKS)

    def for_another_process(self) -> None:
        """Note a webhook about a task of another process: those for this one may reach that one."""
        now = self._clock.now()
        was_reliable = not self._silent and now >= self._shared_until
        self._shared_until = now + SHARED
        if was_reliable:
            self._unreliable("webhooks are shared with other processes")

    def end(self, key: TaskKey) -> bool:
        """Note that a task has ended; return True if a webhook about it was expected."""
        expected = self._more.get(key, False)
        if expected:
            self._more[key] = False
        return expected

    def arrived(self) -> None:
        """Note that a webhook has come: they reach this process."""
        self._silent = False
        self.close()

    def missed(self) -> None:
        """Note that a poll found an end of which no webhook has come; one may still come for a moment."""
        if self._silent or self._alarm is not None:
            return
        loop = asyncio.get_running_loop()
        delay = self._clock.real(LATE)
        self._alarm = loop.call_later(delay, self._give_up, context=contextvars.Context())

    def store(self, key: TaskKey, body: Any, *, ended: bool) -> bool:
        """Store a body for a wait that starts later; return False if the end is already stored."""
        stored = self._bodies.get(key)
        if stored is not None and stored[1]:
            return False
        _put(self._bodies, key, (body, ended), EARLY_BODIES)
        return True

    def early_body(self, key: TaskKey) -> Any:
        """Return the body that came before the wait, or None."""
        stored = self._bodies.get(key)
        return None if stored is None else stored[0]

    def close(self) -> None:
        """Cancel the alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _give_up(self) -> None:
        self._alarm = None
        self._silent = True
        self._unreliable("webhooks have stopped coming")


def _put(items: OrderedDict[TaskKey, V], key: TaskKey, value: V, most: int) -> None:
    """Put an item last, and drop the oldest beyond `most`."""
    items[key] = value
    items.move_to_end(key)
    while len(items) > most:
        items.popitem(last=False)
