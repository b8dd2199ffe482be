"""Access to event streams: which task a visitor may watch, and what a visitor may cost.

A token names a task; it proves nothing, and anyone can invent one. To watch a task that this process knows
costs what the wait for it costs anyway. A task that it does not know has to be looked up at the service,
and each lookup is a poll that delays the polls of all songs. So lookups have a limit, tasks that do not exist
are remembered, and nothing is sent about a task before the service has confirmed that it exists.

Tasks that an earlier process made are unknown, too, unless a job store holds them. So a visitor who comes
while no lookup is available, or while the job store is away, is not refused: a browser does not reconnect
after an error. The response is a stream that ends at once and says when to reconnect. So it is for a task
that was made in the last minute and that the service does not know yet: a lookup comes sooner than any poll.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from hashlib import blake2b
from typing import Any, Final, Literal, Protocol, TypeAlias

from .._wire.poll_rules import UNKNOWN_ID_GRACE
from ..api.families import polled_as
from ..api.results import TaskUpdate
from ..api.task import Task, ref_in
from ..arguments import check_bools, check_functions, check_seconds
from ..clock import Clock
from ..errors import JobStoreError, NotFoundError, RequestValidationError
from .problems import NO_TASK, Problem, loggable
from .receiving import check_path
from .server_sent_events import has_ended, reconnect_later, stream

log: Final = logging.getLogger("musicapi_async")

EVENTS_PATH: Final = "/tasks/{token}/events"

LOOKUPS: Final = 20
"""Lookups at once, and in a burst: far fewer than the 64 polls that may be under way."""
LOOKUPS_PER_SECOND: Final = 2.0
"""Lookups in the long run, by real time: little beside the polls of a back end with a hundred songs."""
LOOKUP_TIME: Final = 10.0
"""Real seconds within which a lookup must be answered."""
MOST_MISSING: Final = 10_000
"""Tasks that do not exist and are remembered, 150 bytes each."""
MISSING_FOR: Final = 300.0
"""Real seconds for which they are."""
LONGEST_TOKEN: Final = 1000
"""Characters; tokens of real tasks have about 80."""

Allowed: TypeAlias = bool | Awaitable[bool]
Later = Literal["later"]
LATER: Final[Later] = "later"
May: TypeAlias = Callable[[Task[Any]], Allowed]


def check_guarded(events: str | None, authorize: object, public: bool, where: str) -> None:
    """Raise `RequestValidationError` for event streams without a rule who may watch them.

    Args:
        events: the path of the streams; None for no stream.
        authorize: the check of each visitor; None for none.
        public: True if to know a task's token is enough.
        where: the function that was called, for the text.
    """
    check_path("events", events)
    check_bools(public=public)
    if authorize is not None:
        check_functions(authorize=authorize)
    if events is not None and authorize is None and not public:
        raise RequestValidationError(
            f"{where} includes the event stream {events}, and nothing says who may watch a task",
            field="authorize",
            hint="Give authorize=check, where check(request, task) returns True for a visitor who may watch "
            "the task; public=True if anyone who knows its token may watch it; or events=None for no stream.",
        )


class Tasks(Protocol):
    """The part of a client that visitors need."""

    def task(self, token: str, /) -> Task[Any]:
        """Make the handle of a task; `RequestValidationError` for what is no token."""
        ...

    def with_options(self, *, max_retries: int) -> Tasks:
        """The same client with other options."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock of all waits."""
        ...


class Visitors:
    """The visitors of one application."""

    def __init__(self, *, heartbeat: float) -> None:
        self._heartbeat: Final = check_seconds("heartbeat", heartbeat)
        self._missing: Final[OrderedDict[bytes, float]] = OrderedDict()
        """Loop time of each lookup without a task, by the digest of its name; the oldest first."""
        self._looking: Final[dict[bytes, asyncio.Task[TaskUpdate]]] = {}
        self._lookups = 0.0
        self._counted_at = -math.inf

    async def watch(
        self, client: Tasks, token: str, last_event_id: str | None, may: May | None
    ) -> Problem | AsyncGenerator[bytes, None] | None:
        """Return the events of a task for one visitor. Free.

        Args:
            client: makes the handle of the task.
            token: what the visitor sent.
            last_event_id: the `Last-Event-ID` that the visitor's browser sent.
            may: says whether the visitor may watch a task; None: everyone may.

        Returns:
            The chunks to send, the problem to answer instead, or None for 204, after which a browser does not
            reconnect. A visitor who may not watch a task gets the same 404 as for none.
        """
        if has_ended(last_event_id):
            return None
        if len(token) > LONGEST_TOKEN:
            return NO_TASK
        try:
            task = client.task(token)
        except RequestValidationError:
            return NO_TASK
        if polled_as(task.family, task.kind) is None or not await _may_watch(may, task):
            return NO_TASK
        updates: AsyncGenerator[TaskUpdate, None]
        try:
            is_known = await task.is_known()
        except JobStoreError as error:
            log.warning("an event stream could not begin: %s", loggable(error))
            return _not_now()
        if is_known:
            updates = task.updates()
        else:
            lookup = self._lookup(client, task)
            if lookup is None:
                return NO_TASK
            found = await _outcome(lookup)
            if isinstance(found, NotFoundError) and not _is_young(client, task):
                return NO_TASK
            if not isinstance(found, TaskUpdate):
                return _not_now()
            updates = _continued(found, task)
        return stream(updates, last_event_id, heartbeat=self._heartbeat)

    def _lookup(self, client: Tasks, task: Task[Any]) -> asyncio.Task[TaskUpdate] | Later | None:
        """Return the poll of an unknown task, shared by its visitors; None if it does not exist."""
        key = blake2b(f"{task.family} {task.task_id}".encode(), digest_size=16).digest()
        if (running := self._looking.get(key)) is not None:
            return running
        now = asyncio.get_running_loop().time()
        if now - self._missing.get(key, -math.inf) < MISSING_FOR:
            return None
        refilled = self._lookups + (now - self._counted_at) * LOOKUPS_PER_SECOND
        self._lookups, self._counted_at = min(float(LOOKUPS), refilled), now
        if self._lookups < 1 or len(self._looking) >= LOOKUPS:
            return LATER
        self._lookups -= 1
        once = client.with_options(max_retries=0).task(task.token)
        lookup = asyncio.get_running_loop().create_task(once.refresh())
        self._looking[key] = lookup
        lookup.add_done_callback(partial(self._lookup_ended, key, _is_young(client, task)))
        return lookup

    def _lookup_ended(self, key: bytes, is_young: bool, lookup: asyncio.Task[TaskUpdate]) -> None:
        del self._looking[key]
        if not lookup.cancelled() and isinstance(lookup.exception(), NotFoundError) and not is_young:
            self._missing.pop(key, None)
            self._missing[key] = lookup.get_loop().time()
            while len(self._missing) > MOST_MISSING:
                self._missing.popitem(last=False)


async def _outcome(lookup: asyncio.Task[TaskUpdate] | Later) -> TaskUpdate | BaseException | None:
    """Return what a lookup gave or raised; None if it takes too long or may not start yet."""
    if lookup == LATER:
        return None
    done, _ = await asyncio.wait({lookup}, timeout=LOOKUP_TIME)
    if not done or lookup.cancelled():
        return None
    return lookup.exception() or lookup.result()


def _is_young(client: Tasks, task: Task[Any]) -> bool:
    """Return True if the service may not know the task yet, as its token says when it was made."""
    age = (client.clock.time() - ref_in(task.token).submitted_at) * client.clock.speed
    return abs(age) < UNKNOWN_ID_GRACE


async def _may_watch(may: May | None, task: Task[Any]) -> bool:
    if may is None:
        return True
    allowed = may(task)
    return _admits(await allowed if inspect.isawaitable(allowed) else allowed)


def _admits(value: object) -> bool:
    """Return True for True only: the text "no" is true, too."""
    if not isinstance(value, bool):
        log.error("authorize returned %s, not True or False, which admits no one", type(value).__name__)
    return value is True


async def _continued(first: TaskUpdate, task: Task[Any]) -> AsyncGenerator[TaskUpdate, None]:
    """Yield the update of the lookup, then those of polls; not the state before the first poll."""
    yield first
    if first.is_terminal:
        return
    async with aclosing(task.updates()) as updates:
        async for update in updates:
            if update.raw is not None or update.is_terminal:
                yield update


async def _not_now() -> AsyncGenerator[bytes, None]:
    """Yield only the time after which the browser reconnects."""
    yield reconnect_later("this task could not be looked up yet")
