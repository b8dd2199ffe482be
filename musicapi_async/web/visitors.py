"""Visitors of event streams: which task a visitor may watch, and what a visitor may cost.

A token names a task; it proves nothing, and anyone can invent one. To watch a task that this process knows
costs what the wait for it costs anyway. A task that it does not know has to be looked up at the service,
and each lookup is a poll that delays the polls for everyone's songs. So lookups have a limit, what was not
found is remembered, and nothing is shown of a task before the service has said that it exists.

Tasks that an earlier process made are unknown, too, unless a job store holds them. So whoever comes while no
lookup is left is not refused: a browser does not come back after an error. The answer is a stream that ends
at once and tells the browser when to reconnect.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import anyio

from ..api.families import polled_as
from ..api.handle import Task
from ..api.results import TaskUpdate
from ..errors import MusicAPIError, NotFoundError, RequestValidationError
from .problems import NO_TASK, Problem, problem_of
from .streams import has_ended, stream

EVENTS_PATH: Final = "/tasks/{token}/events"

LOOKUPS: Final = 20
"""Lookups at once, and in a burst: far fewer than the 64 polls that may be under way."""
LOOKUPS_PER_SECOND: Final = 2.0
"""Lookups in the long run, by real time: little beside the polls of a back end with a hundred songs."""
LOOKUP_TIME: Final = 10.0
"""Real seconds within which a lookup must be answered."""
RECONNECT_LATER: Final = 5000
"""Milliseconds after which a browser reconnects for which no lookup was left."""
REMEMBERED: Final = 10_000
"""Unknown tasks that are remembered, 150 bytes each."""
REMEMBERED_FOR: Final = 300.0
"""Real seconds. Not for ever: another process may hand out a token before the service knows its task."""
LONGEST_TOKEN: Final = 1000
"""Characters; tokens of real tasks have about 80."""

Allowed: TypeAlias = bool | Awaitable[bool]
May: TypeAlias = Callable[[Task[Any]], Allowed]


def check_guarded(events: str | None, authorize: object, public: bool, where: str) -> None:
    """Raise `RequestValidationError` for event streams of which nobody said who may watch them."""
    if events is not None and authorize is None and not public:
        raise RequestValidationError(
            f"{where} includes the event stream {events}, and nothing says who may watch a task",
            field="authorize",
            hint="Give authorize=check, where check(request, task) returns True for a visitor who may watch "
            "the task; or public=True, if to know its token is enough; or events=None for no stream.",
        )


class Visitors:
    """The visitors of one application."""

    def __init__(self, *, heartbeat: float) -> None:
        self._heartbeat: Final = heartbeat
        self._missing: Final[OrderedDict[bytes, float]] = OrderedDict()
        """When each task was not found, by the digest of its name; the oldest first."""
        self._looking: Final[Counter[bytes]] = Counter()
        self._lookups = 0.0
        self._counted_at = -math.inf

    async def watch(
        self, task_of: Callable[[str], Task[Any]], token: str, last_event_id: str | None, may: May | None
    ) -> Problem | AsyncGenerator[bytes, None] | None:
        """Return the events of a task for one visitor; polls are free, but see the module's text.

        Args:
            task_of: the client's `task`.
            token: what the visitor sent.
            last_event_id: the `Last-Event-ID` that the visitor's browser sent.
            may: says whether the visitor may watch a task; None: everyone may.

        Returns:
            The chunks to send, the problem to answer instead, or None for 204, after which a browser does not
            reconnect. Who may not watch a task is told that there is none.
        """
        if has_ended(last_event_id):
            return None
        if len(token) > LONGEST_TOKEN:
            return NO_TASK
        try:
            task = task_of(token)
        except RequestValidationError:
            return NO_TASK
        if polled_as(task.family, task.kind) is None or not await _may_watch(may, task):
            return NO_TASK
        if await task.is_known():
            return stream(task.updates(), last_event_id, heartbeat=self._heartbeat)
        key = blake2b(f"{task.family} {task.task_id}".encode(), digest_size=16).digest()
        if self._is_missing(key):
            return NO_TASK
        if not self._take_lookup(key):
            return _come_back()
        return await self._look_up(key, task, last_event_id)

    async def _look_up(
        self, key: bytes, task: Task[Any], last_event_id: str | None
    ) -> Problem | AsyncGenerator[bytes, None]:
        """Wait for the first poll of a task; the stream then goes on with the same wait."""
        updates = task.updates()
        self._looking[key] += 1
        try:
            async with AsyncExitStack() as closing:
                await closing.enter_async_context(aclosing(updates))
                with anyio.move_on_after(LOOKUP_TIME):
                    async for update in updates:
                        if update.raw is not None or update.is_terminal:  # the service has answered
                            closing.pop_all()
                            found = _continued(update, updates)
                            return stream(found, last_event_id, heartbeat=self._heartbeat)
            return _come_back()
        except NotFoundError:
            self._remember(key)
            return NO_TASK
        except MusicAPIError as error:
            return problem_of(error)
        finally:
            self._looking[key] -= 1
            if not self._looking[key]:
                del self._looking[key]

    def _take_lookup(self, key: bytes) -> bool:
        """Return True if a lookup may start now; visitors of one task share its lookup."""
        if key in self._looking:
            return True
        now = _now()
        refilled = self._lookups + (now - self._counted_at) * LOOKUPS_PER_SECOND
        self._lookups, self._counted_at = min(float(LOOKUPS), refilled), now
        if self._lookups < 1 or len(self._looking) >= LOOKUPS:
            return False
        self._lookups -= 1
        return True

    def _is_missing(self, key: bytes) -> bool:
        at = self._missing.get(key)
        return at is not None and _now() - at < REMEMBERED_FOR

    def _remember(self, key: bytes) -> None:
        self._missing.pop(key, None)
        self._missing[key] = _now()
        while len(self._missing) > REMEMBERED:
            self._missing.popitem(last=False)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _may_watch(may: May | None, task: Task[Any]) -> bool:
    if may is None:
        return True
    allowed = may(task)
    return bool(await allowed if inspect.isawaitable(allowed) else allowed)


async def _continued(
    first: TaskUpdate, rest: AsyncGenerator[TaskUpdate, None]
) -> AsyncGenerator[TaskUpdate, None]:
    async with aclosing(rest):
        yield first
        async for update in rest:
            yield update


async def _come_back() -> AsyncGenerator[bytes, None]:
    """A stream that only tells the browser when to reconnect."""
    yield f"retry: {RECONNECT_LATER}\n: many tasks are being looked up\n\n".encode()
