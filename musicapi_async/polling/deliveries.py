"""What the waiter knows of webhooks: what came before anybody asked, and whether they can be relied on.

Webhooks make most polls needless, so a task whose result will be told is looked at seldom. That begins with
the first webhook that arrives here: behind an address that nobody can reach, every result would be minutes
late. Deliveries get lost later, too, and nobody says so; it looks like tasks that take long. The sign is a
look that finds a task ended of which no webhook told. Then webhooks are taken to have stopped, and every task
is looked at when a look pays, until the next webhook comes.

Where several processes share the address, such as the workers of one server, each webhook reaches one of
them, and mostly not the one that waits. The sign is a webhook about a task that nobody here submitted or
waited for. Then, too, every task is looked at when a look pays, until no such webhook has come for a while.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from ..clock import Clock

LOOKS: Final = 3
"""The slow interval is the default deadline of a wait divided by this: a safety net of two looks, and a last
one as the time runs out. For songs 900 / 3 = 300 s; nothing is late by more, whatever is lost."""
GRACE: Final = 30.0
"""Seconds that a webhook may be later than the look that found the end, before it counts as lost: a slow
receiver and one repetition."""
REMEMBERED: Final = 256
"""Ended tasks whose bodies are kept for a wait that starts later; 10 kB each, usually."""

EXPECTED: Final = 10_000
"""Tasks of which a webhook will tell, or was to, 200 bytes each; older ones are polled as usual."""

SHARED: Final = 900.0
"""Seconds after a webhook for another process for which none is relied on: as long as a wait for a song, so
that a process that was started anew has heard the last of the tasks of the one before."""

Key = tuple[str, str]


class Deliveries:
    """For one event loop. `unreliable` is called with the reason when webhooks can be relied on no longer."""

    def __init__(
        self, clock: Clock, unreliable: Callable[[str], None], *, remembered: int = REMEMBERED
    ) -> None:
        self._silent = True  # until the first has come: the address may never be reached
        self._shared_until = -math.inf
        self._clock: Final = clock
        self._unreliable: Final = unreliable
        self._remembered: Final = remembered
        self._expected: Final[OrderedDict[Key, bool]] = OrderedDict()
        """Whether more will come of a task; False for those that have ended."""
        self._bodies: Final[OrderedDict[Key, tuple[Any, bool]]] = OrderedDict()
        self._left: Final[OrderedDict[Key, None]] = OrderedDict()
        self._doubt: asyncio.TimerHandle | None = None

    def expect(self, key: Key) -> None:
        """A webhook will tell of this task."""
        self._expected[key] = True
        while len(self._expected) > EXPECTED:
            self._expected.popitem(last=False)

    def expects(self, key: Key) -> bool:
        """Whether a webhook will tell of this task."""
        return self._expected.get(key, False)

    @property
    def reliable(self) -> bool:
        """Whether what will be told is told here, so that looking is only the safety net."""
        return not self._silent and self._clock.now() >= self._shared_until

    def knows(self, key: Key) -> bool:
        """Whether this process has to do with this task, as far as it remembers."""
        return key in self._expected or key in self._bodies or key in self._left

    def left(self, key: Key) -> None:
        """Nobody waits any more for a task that an earlier process submitted; its webhook may still come."""
        self._left[key] = None
        while len(self._left) > EXPECTED:
            self._left.popitem(last=False)

    def stray(self) -> None:
        """A webhook has come for another process: those for this one may go astray as well."""
        was, self._shared_until = self.reliable, self._clock.now() + SHARED
        if was:
            self._unreliable("webhooks are shared with other processes")

    def ended(self, key: Key) -> bool:
        """Nothing more will come of this task; returns whether something was to come."""
        expected = self.expects(key)
        if expected:
            self._expected[key] = False
        return expected

    def heard(self) -> None:
        """A webhook has come: they do come."""
        self._silent = False
        self.close()

    def missed(self) -> None:
        """A look found the end of a task of which a webhook should have told."""
        if self._silent or self._doubt is not None:
            return
        loop = asyncio.get_running_loop()
        delay = self._clock.real(GRACE)
        self._doubt = loop.call_later(delay, self._conclude, context=contextvars.Context())

    def keep(self, key: Key, body: Any, *, ended: bool) -> bool:
        """Remember a body for a wait that starts later; False if the end was known, which nothing covers."""
        known = self._bodies.get(key)
        if known is not None and known[1]:
            return False
        self._bodies[key] = (body, ended)
        self._bodies.move_to_end(key)
        while len(self._bodies) > self._remembered:
            self._bodies.popitem(last=False)
        return True

    def early(self, key: Key) -> Any:
        """The body that came before anybody waited, or None."""
        found = self._bodies.get(key)
        return None if found is None else found[0]

    def close(self) -> None:
        """Set no alarm any more."""
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    def _conclude(self) -> None:
        self._doubt = None
        self._silent = True
        self._unreliable("webhooks have stopped coming")
