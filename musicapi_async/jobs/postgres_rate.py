"""One rate limit for all processes of an account: it is in the database, and follows the database's clock.

The queue
---------
A client that wants to send a create takes a ticket, which is a row; tickets of all machines are served in
their order. The time of a ticket's turn follows from the tickets ahead of it and from the last starts. So its
owner sleeps until shortly before, records the job, connects, and then requests the departure in one
transaction. The departure is granted to the first ticket if the window of the rate allows it, and counted
(`rate_window.LaneState`, as in one process).

A cancelled waiter removes its ticket and notifies the others. A ticket whose owner does not come at its turn
is overtaken after `GRACE`, and tickets of dead processes are removed, so the queue never stops. The queue
only decides the order; the window decides how many requests of all processes together may leave. A ticket
remains until its request was sent. So a ticket that was overtaken, or whose departure came too late or was
lost with its response, still has its place.

Never faster than the rate
--------------------------
A departure is counted for the latest time at which it may happen, because the response of the database takes
time; if that takes longer than was counted, the departure is counted again instead. Without a response there
is no departure. A refusal of the service (HTTP 429) is recorded in the database, too: it pauses all processes
and lowers their common rate.

Polls and other free calls have no rate until one is learned from a refusal. They use the limiter of their
process, which is notified of the refusals of other processes.

Permits
-------
With `max_in_flight`, a task in flight holds a permit: a row that its process leases. It ends with the task,
with the client, or `lease` seconds after the last heartbeat of its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

from msgspec import UnsetType

from .._transport.permits import Permit
from .._transport.rate_limiter import DEFAULT_LANES, LaneLimits, MemoryLimiter, RequestSlot
from .._transport.rate_window import Rate
from .._transport.wait_reasons import Waits, during
from ..arguments import check_count
from ..clock import Clock
from ..errors import RequestValidationError
from .postgres_notices import notify
from .postgres_schema import Connection
from .postgres_tickets import (
    CLOCK_STEP,
    LANE,
    Leaving,
    Member,
    Start,
    change_lane,
    drop_permit,
    expire_permit,
    read_lane,
    start,
    take_permit,
    text_of,
    withdraw,
)
from .store import Knows, Notice, Subscriber, weakly

R = TypeVar("R")

LONGEST_LEAD: Final = 0.5
"""Seconds before its turn, at most, at which a create is recorded and connects: a handshake with a distant
host. No more than needed: a process that is killed meanwhile leaves a job of unknown outcome."""
SHORTEST_LATENESS: Final = 0.005
"""Seconds that a departure may come after its transaction, at least: the jitter of a busy event loop."""
LONGEST_LATENESS: Final = CLOCK_STEP / 2
"""The same at most: what is counted further ahead is taken for a start of another clock."""


class Store(Protocol):
    """The store of a limiter, as the limiter sees it."""

    @property
    def name(self) -> str:
        """The address for texts."""
        ...

    @property
    def owner(self) -> str:
        """The id of this process."""
        ...

    @property
    def lease(self) -> float:
        """Seconds without a heartbeat after which a process is considered dead."""
        ...

    def begin(
        self, work: Callable[[Connection], R], *, lock: str, durable: bool = False, repeats: bool = False
    ) -> asyncio.Future[R]:
        """Begin a transaction under the lock of a name; its work is done even if its caller is cancelled.

        With `repeats` it is begun again if the database was away for too long.
        """
        ...

    def subscribe(self, subscriber: Subscriber, knows: Knows | None) -> Callable[[], None]:
        """Deliver notices to the running loop."""
        ...


class PostgresLimiter:
    """A `RateLimiter` for all processes that share a store. `PostgresStore.limiter` makes it.

    Args:
        store: the store.
        account: the account whose rate it is.
        rate: the rate of the client; UNSET to take that of the database.
        clock: the clock of the client.
        max_in_flight: tasks in flight of all processes together; None: no cap.
    """

    def __init__(
        self,
        store: Store,
        account: str,
        rate: Rate | UnsetType | None,
        clock: Clock,
        max_in_flight: int | None,
    ) -> None:
        if max_in_flight is not None:
            check_count("max_in_flight", max_in_flight)
        self._store: Final = store
        self._account: Final = account
        self._rate: Final = rate
        self.clock: Final = clock
        self._cap: Final = max_in_flight
        # Its slots for creates bound what this process has under way; it holds no rate for them.
        self._local: Final = MemoryLimiter({LANE: LaneLimits(DEFAULT_LANES[LANE].concurrency)}, clock)
        self._loops: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop]] = WeakKeyDictionary()
        self.recheck: Final = store.lease / 3
        """Seconds after which a waiter for a permit tries again: killed processes send no notice."""
        self.lead: float = 0.0
        """Real seconds before its turn at which a create begins to connect; learned."""
        self._lateness = SHORTEST_LATENESS
        self._is_slowed = False

    # --- a RateLimiter --------------------------------------------------------------------------------

    def slot(self, lane: str, waits: Waits | None = None) -> AbstractAsyncContextManager[RequestSlot]:
        """Wait for a slot and for the rate of `lane`; see `RateLimiter.slot`. Needs a running loop.

        Entering raises `JobStoreError` if the database cannot be used, and `RequestValidationError` if it has
        another rate than this client.
        """
        self.here()
        local = self._local.slot(lane, waits)
        return local if lane != LANE else _SharedSlot(self, local, waits)

    def pause(self, lane: str, seconds: float) -> None:
        """Stop a lane in all processes and slow it down; see `RateLimiter.pause`."""
        notice = Notice("pause", self._store.owner, self._account, lane, seconds)
        if lane != LANE:
            self._local.pause(lane, seconds)
            self.begin(lambda connection: notify(connection, notice))
            return
        self._is_slowed = True
        self.begin(partial(change_lane, me=self.me, change=lambda lane, now: lane.pause(now, seconds)))

    def succeeded(self, lane: str) -> None:
        """Let the rate of a lane recover; free while it was never cut."""
        if lane != LANE:
            self._local.succeeded(lane)
        elif self._is_slowed:
            self.begin(partial(change_lane, me=self.me, change=lambda lane, now: lane.succeeded(now)))

    def permit(self) -> Permit | None:
        """Return a permit for one more task in flight of all processes; None without a cap."""
        return None if self._cap is None else _LeasedPermit(self, self._cap)

    # --- tickets ----------------------------------------------------------------------------------------

    @property
    def me(self) -> Member:
        """This process, as it is in the database."""
        return Member(self._account, self._store.owner, self.clock.speed)

    async def start(self, ticket: str, leaving: Leaving | None = None) -> Start:
        """Return when the turn of a ticket comes; see `postgres_tickets.start`."""
        own = self._rate
        default = DEFAULT_LANES[LANE].rate if isinstance(own, UnsetType) else own

        def work(connection: Connection) -> Start:
            text, lane = read_lane(connection, self.me, default)
            if not isinstance(own, UnsetType) and own != lane.limit:
                raise self._other_rate(text)
            self._is_slowed = lane.taught is not None
            return start(connection, self.me, lane, ticket, leaving or self.lead)

        return await asyncio.shield(self.begin(work, durable=leaving is not None))

    def withdraw(self, ticket: str) -> None:
        """Remove a ticket: others wait for it no longer."""
        self.begin(partial(withdraw, me=self.me, ticket=ticket))

    def _other_rate(self, text: str) -> RequestValidationError:
        own = text_of(None if isinstance(self._rate, UnsetType) else self._rate)
        return RequestValidationError(
            f"rate_limit: the account {self._account!r} has {text} in the job store {self._store.name}, and "
            f"this client has {own}; nothing was sent",
            field="rate_limit",
            hint=(
                "Leave rate_limit out to take the rate of the store, or change it for all: "
                f"musicapi jobs rate '{self._store.name}' {own} --account {self._account}"
            ),
        )

    # --- departures -----------------------------------------------------------------------------------

    async def depart(self, ticket: str) -> Start:
        """Count the departure of a ticket now, if it may leave: then within the time that was counted.

        That is twice as long as the last transaction took; above a second it only doubles at a time, as one
        that waited for a server that restarts says nothing of the next.
        """
        loop = asyncio.get_running_loop()
        counted: float | None = None
        while True:
            began, late = loop.time(), self._lateness
            start = await self.start(ticket, Leaving(late, counted))
            took = loop.time() - began
            self._lateness = max(SHORTEST_LATENESS, min(2 * min(took, max(late, 0.5)), LONGEST_LATENESS))
            if start.at is None or took <= late:
                return start
            counted = start.at

    def connected(self, seconds: float) -> None:
        """Learn how long it took from a turn until the connection was open."""
        self.lead = min(LONGEST_LEAD, max(2 * seconds, self.lead / 2))

    # --- parts of a loop ------------------------------------------------------------------------------

    def here(self) -> _Loop:
        """Return the parts of the running loop."""
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            here = self._loops[loop] = _Loop()
            here.end = self._store.subscribe(weakly(self._heard), None)
        return here

    def _heard(self, notice: Notice, _body: bytes) -> None:
        if notice.kind == "freed" and notice.account in ("", self._account):
            here = self.here()
            here.changed.set()
            here.changed = asyncio.Event()
        elif (
            notice.kind == "pause" and notice.sender != self._store.owner and notice.account == self._account
        ):
            with contextlib.suppress(KeyError):  # a lane of a newer version
                self._local.pause(notice.lane, notice.seconds)

    async def sleep(self, seconds: float, changed: asyncio.Event) -> None:
        """Sleep for real seconds, or until a turn or a permit has become free.

        Args:
            seconds: the time.
            changed: `here().changed`, as it was before the transaction: so no notice is missed.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await changed.wait()

    def begin(
        self, work: Callable[[Connection], R], *, durable: bool = False, repeats: bool = False
    ) -> asyncio.Future[R]:
        """Begin a transaction under the account's lock; see `Store.begin`.

        One that no one waits for may fail at no cost, but for those that give a permit back: it `repeats`.
        """
        return self._store.begin(work, lock=f"rate {self._account}", durable=durable, repeats=repeats)


class _Loop:
    """The parts of a limiter in one event loop."""

    def __init__(self) -> None:
        # One of a process waits for its turn, the first: each that waits queries the database now and then.
        self.order: Final = asyncio.Lock()
        self.permits: Final = asyncio.Lock()
        self.changed: asyncio.Event = asyncio.Event()
        self.end: Callable[[], None] = lambda: None

    def __del__(self) -> None:
        self.end()


class _SharedSlot:
    """The context manager of `PostgresLimiter.slot` for creates."""

    def __init__(
        self, limiter: PostgresLimiter, local: AbstractAsyncContextManager[RequestSlot], waits: Waits | None
    ) -> None:
        self._limiter: Final = limiter
        self._local: Final = local
        self._waits: Final = waits
        self._ticket: Final = uuid.uuid4().hex
        self._entered_at = 0.0
        self._has_departed = False
        self._is_over = False

    async def __aenter__(self) -> RequestSlot:
        limiter, order = self._limiter, self._limiter.here().order
        try:
            start = await limiter.start(self._ticket)
            await self._local.__aenter__()
            try:
                if start.wait > limiter.lead or order.locked():
                    with during(self._waits, "pause" if start.is_paused else "rate", start.rate):
                        async with order:
                            await self._wait_in_queue()
            except BaseException:
                await self._local.__aexit__(None, None, None)
                raise
        except BaseException:
            limiter.withdraw(self._ticket)
            raise
        self._entered_at = asyncio.get_running_loop().time()
        return self

    async def _wait_in_queue(self) -> None:
        limiter = self._limiter
        while True:
            changed = limiter.here().changed
            start = await limiter.start(self._ticket)
            if start.wait <= limiter.lead:
                return
            await limiter.sleep(start.wait - limiter.lead, changed)

    async def departing(self) -> None:
        """Wait until the bytes of the request may leave; see `RequestSlot.departing`."""
        limiter = self._limiter
        limiter.connected(asyncio.get_running_loop().time() - self._entered_at)
        while True:
            if self._is_over:  # a session may write in a task of its own, which lives for a moment longer
                raise asyncio.CancelledError
            changed = limiter.here().changed
            start = await limiter.depart(self._ticket)
            if start.at is not None:
                self._has_departed = True
                limiter.withdraw(self._ticket)
                return
            with during(self._waits, "pause" if start.is_paused else "rate", start.rate):
                await limiter.sleep(start.wait, changed)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        if not self._has_departed:
            self._limiter.withdraw(self._ticket)
        await self._local.__aexit__(kind, error, traceback)


class _LeasedPermit:
    """A `Permit` in the database."""

    def __init__(self, limiter: PostgresLimiter, cap: int) -> None:
        self._limiter: Final = limiter
        self._cap: Final = cap
        self._id = ""
        self._is_held = False

    @property
    def cap(self) -> int:
        """The number of tasks that may be in flight, of all processes."""
        return self._cap

    def try_acquire(self) -> bool:
        """Return True if the permit is held; only `acquire` takes it from the database."""
        return self._is_held

    async def acquire(self, waits: Waits | None = None) -> None:
        """Wait, first come first served, until the permit is granted."""
        limiter = self._limiter
        self._id = uuid.uuid4().hex  # not the one before, which may still be given back
        try:
            if not await self._take():
                with during(waits, "permit", f"max_in_flight={self._cap}"):
                    async with limiter.here().permits:
                        changed = limiter.here().changed
                        while not await self._take():
                            await limiter.sleep(limiter.recheck, changed)
                            changed = limiter.here().changed
        except BaseException:
            self._drop()
            raise
        self._is_held = True

    async def _take(self) -> bool:
        me = self._limiter.me
        work = partial(take_permit, me=me, permit=self._id, cap=self._cap)
        return await asyncio.shield(self._limiter.begin(work))

    def _drop(self) -> None:
        self._limiter.begin(partial(drop_permit, me=self._limiter.me, permit=self._id), repeats=True)

    def expire_at(self, when: float) -> None:
        """Give the permit back at this time of the limiter's clock, if no one has by then."""
        if self._is_held:
            clock = self._limiter.clock
            seconds = clock.real(max(when - clock.now(), 0.0))
            self._limiter.begin(partial(expire_permit, permit=self._id, seconds=seconds), repeats=True)

    def release(self) -> None:
        """Give the permit back, or do nothing if it is not held."""
        if self._is_held:
            self._is_held = False
            self._drop()
