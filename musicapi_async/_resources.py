"""The parts of a client: those that all its views share, and those of each event loop.

Connections, calls under way and waits belong to the loop that opened them (`LoopResources`, opened when the
client is entered, else by the first call). The limiter, the permits of tasks in flight, the webhooks and the
secrets to hide belong to the client (`Resources`): they outlive a loop.

aiohttp, and with it more than half of the import time, is imported when the first loop opens.
"""

from __future__ import annotations

import asyncio
import os
import random
import warnings
import weakref
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypedDict
from weakref import WeakValueDictionary

import anyio
from msgspec import UnsetType

from ._open_in_notebooks import Closable, close, in_notebook, watch
from ._transport.permits import HeldPermits
from ._transport.rate_limiter import DEFAULT_LANES, LaneLimits, MemoryLimiter, RateLimiter
from ._transport.rate_window import Rate
from ._wire.prepare import outside
from ._wire.redaction import Redactor
from ._wire.retry import Draw, drawing
from .api.families import polled_of
from .api.operation import Polled
from .api.results import TaskUpdate
from .api.task import TaskKey, TaskRef
from .arguments import refused
from .clock import Clock
from .errors import MusicAPIError, RequestValidationError
from .hooks import Hook
from .jobs.memory import MemoryStore
from .jobs.recorder import JobRecorder
from .jobs.store import ReopenedStore, SharedStore, weakly
from .options import Options, SonicPaths, Uploader, proxy_secrets
from .request_headers import secrets_in

if TYPE_CHECKING:
    import ssl

    import aiohttp

    from ._transport.attempts import Attempts
    from ._transport.observer import Observer
    from ._transport.session import Session
    from ._wire.poll_result import PollResult
    from .jobs.store import JobStore, Notice
    from .polling.saved_durations import SavedDurations
    from .polling.schedule import LearnedSchedule, PollSchedule
    from .webhooks import Webhooks
    from .webhooks.handover import Handover

REMEMBERED: Final = 10_000
"""Tasks of the client's own that are remembered, 250 bytes each; 8 hours of creates at one per 3 s."""


this_process: Final = cache(os.getpid)  # as it is a system call, and each call of a client needs it
if hasattr(os, "register_at_fork"):  # Windows has none
    os.register_at_fork(after_in_child=this_process.cache_clear)


class Connecting(TypedDict):
    """How a client connects, of which only its sessions know more; see `MusicAPI`.

    `given` is a session of the caller's own.
    """

    api_key: str
    given: aiohttp.ClientSession | None
    proxy: str | None
    trust_env: bool
    ssl_context: ssl.SSLContext | None
    headers: Mapping[str, str]
    user_agent: str
    forbid_private_addresses: bool


class Recorders:
    """The recorders of a client, one for each store that is in use. Safe from any thread.

    A store is let go with the last view, handle or variable that has it: what became of its tasks is then of
    no interest to anyone, and its file may be gone.

    Args:
        clock: the clock of the client.
        base_url: the base URL of the client.
        account: the account of the client.
    """

    def __init__(self, clock: Clock, base_url: str, account: str) -> None:
        self._clock: Final = clock
        self._base_url: Final = base_url
        self._account: Final = account
        self._recorders: Final[WeakValueDictionary[int, JobRecorder]] = WeakValueDictionary()

    def of(self, store: JobStore | None) -> JobRecorder:
        """Return the recorder of paid calls in `store`; without one, a new one that records calls with a job
        key in memory."""
        if store is None:
            return JobRecorder(MemoryStore(), self._clock, self._base_url, self._account, always=False)
        recorder = self._recorders.get(id(store))  # an id is of one store while its recorder lives
        if recorder is None:
            recorder = JobRecorder(store, self._clock, self._base_url, self._account)
            self._recorders[id(store)] = recorder
        return recorder


def _reopen(store: JobStore) -> None:
    """Have a store that was closed before stay open, as it is in use again."""
    if isinstance(store, ReopenedStore):
        store.reopen()


def _reference(store: JobStore) -> Callable[[], JobStore | None]:
    """Return what gets a store for as long as something else has it; of one with `__slots__`, always."""
    try:
        return weakref.ref(store)
    except TypeError:
        return lambda: store


class LoopResources:
    """The parts of a client in one event loop and process. A `PollClient`."""

    def __init__(
        self, session: Session, attempts: Attempts, schedule: PollSchedule, draw: Draw, shared: Resources
    ) -> None:
        from ._transport.call import Calls
        from ._transport.download import Downloader
        from ._transport.publishing import Publisher
        from .polling.waiter import TaskWaiter

        self.loop: Final = asyncio.get_running_loop()
        self.process: Final = this_process()
        self._recorder: Final = shared.recorder
        _reopen(self._recorder.store)
        self._recorders: Final = shared.recorders
        self._opened: Final = shared.opened
        self._others: list[Callable[[], JobStore | None]] = []
        """Get the stores that were used beside that of the client."""
        self.closed = False
        self._is_done_with_stores = False
        self._session: Final = session
        self._held_permits: Final = shared.held_permits
        self._leases_permits: Final = shared.leases_permits
        self._attempts: Final = attempts
        self._once: Final = shared.once
        self._durations: Final = shared.durations
        self.waiter: Final = TaskWaiter(self, schedule, shared.clock, draw)
        self.calls: Final = Calls(
            attempts,
            session.redactor,
            self._held_permits,
            self.waiter,
            publisher=Publisher(shared.uploader, shared.clock, session.redactor),
            webhooks=None if shared.webhooks is None else shared.handover,
        )
        self._observer: Final = shared.observer
        self.downloader: Final = Downloader(session, attempts.limiter, shared.clock, draw, shared.observer)
        self._closing: asyncio.Task[None] | None = None
        self._keeper: AsyncGenerator[None, None] | None = None
        _of_all_clients[id(self)] = self
        self._handover: Handover | None = None
        self.unsubscribe: Callable[[], None] = lambda: None

    @property
    def is_open(self) -> bool:
        """True until it is closed, or its loop is, or in a process that was forked from its own."""
        return self.process == this_process() and not self.closed and not self.loop.is_closed()

    def use(self, recorder: JobRecorder) -> None:
        """Note ends of tasks in its store, too, and close it at the end, while it is in use elsewhere."""
        store = recorder.store
        if self._is_done_with_stores or self.uses(store):
            return
        _reopen(store)
        self._others = [*(other for other in self._others if other() is not None), _reference(store)]

    def subscribe(self, store: SharedStore, handover: Handover) -> None:
        """Take the webhooks that other processes receive, for as long as the client has this."""
        self._handover = handover
        self.unsubscribe = store.subscribe(weakly(self._notified), weakly(self.waiter.knows_id))

    def _notified(self, notice: Notice, body: bytes) -> None:
        if self._handover is not None:
            self._handover.notified(self.waiter, notice, body)

    def uses(self, store: JobStore) -> bool:
        """Return True for the store of the client, and for others that were used in this loop, until the end
        of its closing."""
        return not self._is_done_with_stores and (
            store is self._recorder.store or any(store is other() for other in self._others)
        )

    def recorders(self) -> list[JobRecorder]:
        """Return the recorder of the client, and those of other stores that were used in this loop."""
        if not self._others:
            return [self._recorder]
        stores = [known() for known in self._others]
        return [self._recorder, *(self._recorders.of(store) for store in stores if store is not None)]

    @property
    def redactor(self) -> Redactor:
        """Hides the secrets of this client in texts."""
        return self._session.redactor

    @property
    def host_responds(self) -> bool:
        """True once the host has given any response below 500."""
        return self._session.host_responds

    def poll(self, ref: TaskRef, polled: Polled, due: float) -> Coroutine[Any, Any, PollResult]:
        """Poll a task with one attempt: the waiter has rules of its own for what follows a failure."""
        return self._attempts.poll(ref, polled, self._once, due)

    def polling_ended(self, ref: TaskRef, update: TaskUpdate | None) -> None:
        """Free the permit of a task, and write its end down; None if it cannot be polled any more."""
        self._held_permits.ended(ref)
        if update is not None:
            for recorder in self.recorders():
                # Another poll of a task whose end was recorded is no news.
                if not (recorder.is_empty or recorder.has_recorded_end(ref)):
                    self.calls.notes.begin(recorder.record_end(ref, update))
            if self._observer.is_active:
                self._observer.task_ended(ref, update)
        if self._durations is not None and self._durations.is_due:
            self._durations.begin_save()

    async def refresh(self, ref: TaskRef, options: Options) -> TaskUpdate:
        """Poll a task once, with the repeats of any free call."""
        result = await self._attempts.poll(ref, polled_of(ref), options)
        if result.update is None:
            raise result.error or AssertionError("a poll without an update has an error")
        if result.update.is_terminal:
            self.polling_ended(ref, result.update)
            self.waiter.poll_now(ref)
        return result.update

    def close_with_loop(self) -> None:
        """Have the loop close this when it shuts down, so that a forgotten client leaves no connection.

        `asyncio.run` finishes all asynchronous generators that have begun before it closes the loop; this one
        begins now, and waits for that.
        """
        self._keeper = self._close_at_end()
        with suppress(StopIteration):  # it comes to its `yield` without a wait
            anext(self._keeper).__await__().send(None)

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._keeper = None  # a generator cannot close itself while it runs
            if not self.closed:  # else it is `aclose` that ends this
                await self.aclose()

    async def aclose(self) -> None:
        """Stop waiting, let paid calls under way finish for a moment, close the connections.

        A caller that is cancelled stops none of it, as the connection of a paid call would then be closed
        before its response came. A cancelled scope of anyio would cancel each of its waits; after another
        cancellation by asyncio it continues without its caller.
        """
        if self._closing is not None:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({self._closing})  # its errors are for the first caller
            return
        self.closed = True
        self.unsubscribe()
        self._closing = self.loop.create_task(self._close())
        _closing.add(self._closing)
        self._closing.add_done_callback(_closing.discard)
        with anyio.CancelScope(shield=True):
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        async with AsyncExitStack() as closing:  # each step runs, from the last one, also if others fail
            if self._keeper is not None:
                closing.push_async_callback(self._keeper.aclose)
            closing.push_async_callback(self._session.aclose)
            for recorder in self.recorders():
                closing.push_async_callback(self._close_store, recorder)
            closing.callback(self._give_permits_back)
            if self._durations is not None:
                closing.push_async_callback(self._durations.finish)
            closing.push_async_callback(self.calls.aclose)
            closing.push_async_callback(self.waiter.aclose)

    def _give_permits_back(self) -> None:
        """Give the permits back that other clients share, unless this client is open in another loop."""
        if self._leases_permits and not any(
            known._opened is self._opened and known.is_open for known in _in_this_process()
        ):
            self._held_permits.give_back()

    async def _close_store(self, recorder: JobRecorder) -> None:
        """Store what is pending, and close the store unless another client has it by now."""
        self._is_done_with_stores = True
        is_used = any(known.uses(recorder.store) for known in _in_this_process())
        await (recorder.notes.aclose() if is_used else recorder.aclose())


def _in_this_process() -> list[LoopResources]:
    """Return the parts of all clients in the loops of this process."""
    known = [known() for known in _of_all_clients.valuerefs()]  # a copy: other threads change it
    return [one for one in known if one and one.process == this_process() and not one.loop.is_closed()]


_closing: Final[set[asyncio.Task[None]]] = set()  # a loop holds its tasks weakly
_of_all_clients: Final[WeakValueDictionary[int, LoopResources]] = WeakValueDictionary()
"""The parts of all clients and loops: the last one of this process that has a store closes it."""


class Resources:
    """The parts that all views of a client share, and those of each event loop."""

    def __init__(
        self,
        connecting: Connecting,
        *,
        base_url: str,
        rate_limit: str | Rate | UnsetType | None,
        max_in_flight: int | None,
        polling: PollSchedule | None,
        store: JobStore | None,
        limiter: RateLimiter | None,
        webhooks: Webhooks | None,
        sonic_paths: SonicPaths,
        close_with_loop: bool,
        clock: Clock,
        rng: random.Random | None,
        attempt_timeout: float | None,
        account: str,
        uploader: Uploader | None,
        hooks: Sequence[Hook],
    ) -> None:
        self.base_url: Final = base_url
        self.clock: Final = clock
        self.webhooks: Final = webhooks
        self.uploader: Final = uploader
        self.held_permits: Final = HeldPermits(clock)
        self.once: Final = Options(max_retries=0, attempt_timeout=attempt_timeout)
        self.warned_families: Final[set[str]] = set()
        self.closed = False
        self._close_with_loop: Final = close_with_loop
        self._made_at: Final = _outside_line()
        self._connecting: Final = connecting
        self._sonic_paths: Final = sonic_paths
        self._draw: Final = drawing(rng)
        self._shared: Final = store if isinstance(store, SharedStore) else None
        self._limiter: Final = _limiter(limiter, rate_limit, max_in_flight, clock, self._shared, account)
        self.leases_permits: Final = limiter is None and self._shared is not None
        """True if other clients share the permits, so that they end with this client."""
        self._polling = polling
        self.durations: SavedDurations | None = None
        self.opened: Final[dict[asyncio.AbstractEventLoop, LoopResources]] = {}
        self._made: Final[OrderedDict[TaskKey, None]] = OrderedDict()
        self._responding: Final[set[str]] = set()  # base URLs that have answered, in any loop
        self._redactor: Final = Redactor(
            [
                connecting["api_key"],
                *proxy_secrets(connecting["proxy"], trust_env=connecting["trust_env"]),
                *secrets_in(connecting["headers"]),
                *(webhooks.secrets if webhooks else ()),
            ]
        )
        self._hooks: Final = hooks
        self.recorders: Final = Recorders(clock, base_url, account)
        self.recorder: Final = self.recorders.of(store)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client holds a key and connections and is not pickled: make one per process")

    def here(self, recorder: JobRecorder) -> LoopResources:
        """Return the parts of the running loop, opened now if this is the first call in it.

        They note in `recorder` when a task ends.
        """
        if self.closed:
            raise MusicAPIError(
                "the client is closed", hint="Open it again with `async with client:`, or make a new one."
            )
        loop = asyncio.get_running_loop()
        process = this_process()
        opened = self.opened.get(loop)
        if opened is None or opened.process != process or opened.closed:
            for known in self._all_opened():  # those of running loops are for their own threads to replace
                if known.process != process or known.loop.is_closed():
                    self.opened.pop(known.loop, None)
            opened = self._open()
            if self._shared is not None:
                opened.subscribe(self._shared, self.handover)
            self.opened[loop] = opened
            opened.close_with_loop()
            watch(self)
        if recorder is not self.recorder:
            opened.use(recorder)
        return opened

    def _all_opened(self) -> list[LoopResources]:
        """Return the parts of all loops at this moment: threads may open and close theirs meanwhile."""
        return list(self.opened.values())

    def _open(self) -> LoopResources:
        from ._transport.attempts import Attempts
        from ._transport.session import Session

        anyio.current_time()  # imports its backend now, not in the first wait: a third of what aiohttp takes
        if self._polling is None:
            self._polling = learned = _learned(self._limiter, self.clock, self._draw)
            if self.recorder.always:  # there is a store
                from .polling.saved_durations import SavedDurations

                self.durations = SavedDurations(learned, self.recorder.store, self.clock)
        session = Session(
            **self._connecting,
            base_url=self.base_url,
            clock=self.clock,
            responding=self._responding,
            redactor=self._redactor,
        )
        attempts = Attempts(
            session,
            self._limiter,
            self.clock,
            self._draw,
            self._sonic_paths.of,
            self.base_url,
            self.observer,
        )
        return LoopResources(session, attempts, self._polling, self._draw, self)

    @cached_property
    def observer(self) -> Observer:
        """Delivers the events of all loops to the hooks."""
        from ._transport.observer import Observer

        return Observer(self._hooks, self._redactor, self.clock, self.base_url)

    @cached_property
    def handover(self) -> Handover:
        """Takes webhooks and hands them to the waits of the running loop."""
        from .webhooks.handover import Handover

        here = partial(self.here, self.recorder)
        return Handover(self.webhooks, self.recorder, here, self._redactor, self.observer)

    def remember(self, task: TaskRef) -> None:
        """Note that a call of this client made this task."""
        self._made[task.key] = None
        while len(self._made) > REMEMBERED:
            self._made.popitem(last=False)

    def made(self, task: TaskRef) -> bool:
        """Return True if a call of this client made this task, as far as it remembers."""
        return task.key in self._made

    async def enter(self) -> None:
        """Open the client again if it was closed, and begin with what others have learned of durations."""
        self.closed = False
        # Imports aiohttp, which would stop the loop in the middle of the first call; and what is open here is
        # closed with the client, as is the store.
        self.here(self.recorder)
        if self.durations is not None:
            try:
                await self.durations.load()
            except BaseException:  # cancelled: what is open would stay so, as no `__aexit__` follows
                await self.aclose()
                raise

    async def aclose(self) -> None:
        """Close what this loop has open, and with the last loop the client."""
        loop = asyncio.get_running_loop()
        mine = self.opened.get(loop)
        # Another thread may have a loop in which the client is in use.
        self.closed = not any(known.is_open for known in self._all_opened() if known is not mine)
        try:
            if mine is not None:
                await mine.aclose()
        finally:
            for known in self._all_opened():
                if known is mine or known.loop.is_closed():
                    self.opened.pop(known.loop, None)

    def leave(self) -> tuple[list[Closable], bool]:
        """Return what is open, which counts as closed from now on, and True if that is a mistake."""
        opened: list[Closable] = [
            known for known in self._all_opened() if known.process == this_process() and not known.closed
        ]
        is_mistake = not (self.closed or self._close_with_loop)
        self.closed = True
        return opened, is_mistake

    def __del__(self) -> None:
        opened: dict[object, LoopResources] = getattr(self, "opened", {})  # missing if it was refused
        for known in opened.values():
            known.unsubscribe()
        if not opened or self.closed or next(iter(opened.values())).process != this_process():
            return
        if in_notebook():
            close(*self.leave())
            return
        if self._close_with_loop:
            return
        warnings.warn(
            f"MusicAPI made at {self._made_at} was never closed: use `async with MusicAPI() as client:` "
            "or `await client.aclose()`",
            ResourceWarning,
            stacklevel=2,
        )


def _limiter(  # noqa: PLR0917 - the settings of the rate
    limiter: RateLimiter | None,
    rate_limit: object,
    max_in_flight: int | None,
    clock: Clock,
    shared: SharedStore | None,
    account: str,
) -> RateLimiter:
    if limiter is not None:
        for name, value in (("rate_limit", rate_limit), ("max_in_flight", max_in_flight)):
            if not (value is None or isinstance(value, UnsetType)):
                raise refused(
                    name, "left out beside limiter=, which has limits of its own", repr(value)[:100]
                )
        return limiter
    try:
        allowed = Rate.parse(rate_limit) if isinstance(rate_limit, str) else rate_limit
    except ValueError as error:
        text = str(error).removeprefix("rate: ")
        raise RequestValidationError(f"rate_limit: {text}", field="rate_limit") from error
    if not (allowed is None or isinstance(allowed, Rate | UnsetType)):
        raise refused("rate_limit", 'a rate such as "20/10s", or None for no limit', repr(allowed)[:100])
    if shared is not None:
        return shared.limiter(account, allowed, clock, max_in_flight)
    if isinstance(allowed, UnsetType):
        return MemoryLimiter(DEFAULT_LANES, clock, max_in_flight=max_in_flight)
    submit = LaneLimits(DEFAULT_LANES["submit"].concurrency, allowed)
    return MemoryLimiter({"submit": submit}, clock, max_in_flight=max_in_flight)


def _learned(limiter: RateLimiter, clock: Clock, draw: Draw) -> LearnedSchedule:
    """Return the default schedule; where polls are capped, their cost follows from the queue for them."""
    from .polling.schedule import LearnedSchedule, PollCost

    if not (isinstance(limiter, MemoryLimiter) and limiter.has_rate("poll")):
        return LearnedSchedule(draw=draw)
    poll_cost = PollCost(partial(limiter.has_long_queue, "poll"), clock.now)
    return LearnedSchedule(poll_cost=poll_cost, draw=draw)


def _outside_line() -> str:
    """The line that made the client: the first frame outside this package."""
    frame = outside()[1]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "an unknown line"
