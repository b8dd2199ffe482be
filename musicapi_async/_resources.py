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
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, NoReturn
from weakref import WeakValueDictionary

import anyio
import msgspec
from msgspec import UnsetType

from ._open_in_notebooks import Closable, close_collected, in_notebook, watch
from ._transport.permits import HeldPermits
from ._transport.rate_limiter import DEFAULT_LANES, LaneLimits, MemoryLimiter, RateLimiter
from ._transport.rate_window import Rate
from ._wire.prepare import outside
from ._wire.redaction import Redactor
from ._wire.retry import Draw, drawing
from .api.batches import CreateBatch
from .api.families import FAMILIES, polled_as, polled_of
from .api.operation import Polled
from .api.request import Request
from .api.results import TaskUpdate
from .api.task import TaskKey, TaskRef
from .clock import Clock
from .errors import JobStoreError, MusicAPIError, RequestValidationError, WebhookVerificationError
from .hooks import Hook
from .jobs.job import new_key
from .jobs.memory import MemoryStore
from .jobs.recorder import Adoption, JobRecorder
from .jobs.store import SharedStore
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
    from .polling.waiter import TaskWaiter
    from .webhooks import Event, Inbox, Webhooks

DURATIONS_PATIENCE: Final = 2.0
"""Real seconds that closing waits for learned durations to be saved."""

REMEMBERED: Final = 10_000
"""Tasks of the client's own that are remembered, 250 bytes each; 8 hours of creates at one per 3 s."""


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
        self.process: Final = os.getpid()
        self._recorder: Final = shared.recorder
        self._recorders: Final = shared.recorders
        self._stores: Final[WeakValueDictionary[int, JobStore]] = WeakValueDictionary()
        self.closed = False
        self._session: Final = session
        self._held_permits: Final = shared.held_permits
        self._attempts: Final = attempts
        self._once: Final = shared.once
        self._durations: Final = shared.durations
        self.waiter: Final = TaskWaiter(self, schedule, shared.clock, draw)
        publisher = Publisher(shared.uploader, shared.clock, session.redactor)
        self.calls: Final = Calls(attempts, session.redactor, self._held_permits, self.waiter, publisher)
        self._observer: Final = shared.observer
        self.downloader: Final = Downloader(session, attempts.limiter, shared.clock, draw, shared.observer)
        self._gone: Final = asyncio.Event()
        self._keeper: AsyncGenerator[None, None] | None = None
        self.unsubscribe: Callable[[], None] = lambda: None

    def use(self, recorder: JobRecorder) -> None:
        """Note ends of tasks in its store, too, and close it at the end, while it is in use elsewhere."""
        self._stores[id(recorder.store)] = recorder.store

    def recorders(self) -> list[JobRecorder]:
        """Return the recorder of the client, and those of other stores that were used in this loop."""
        if not self._stores:
            return [self._recorder]
        return [self._recorder, *map(self._recorders.of, list(self._stores.values()))]

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
            for recorder in self.recorders() if self._stores else (self._recorder,):
                # Another poll of a task whose end was recorded is no news.
                if not (recorder.is_empty or recorder.has_recorded_end(ref)):
                    self.calls.notes.begin(recorder.record_end(ref, update))
            if self._observer.is_active:
                self._observer.task_ended(ref, update)
        if self._durations is not None and self._durations.is_due:
            self.calls.notes.begin(self._durations.save())

    async def refresh(self, ref: TaskRef, options: Options) -> TaskUpdate:
        """Poll a task once, with the repeats of any free call."""
        result = await self._attempts.poll(ref, polled_of(ref), options)
        if result.update is None:
            raise result.error or AssertionError("a poll without an update has an error")
        if result.update.is_terminal:
            self.polling_ended(ref, result.update)
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
        """Stop waiting, let paid calls under way finish for a moment, close the connections."""
        if self.closed:
            await self._gone.wait()
            return
        self.closed = True
        self.unsubscribe()
        try:
            async with AsyncExitStack() as closing:  # each step runs, from the last one, also if others fail
                if self._keeper is not None:
                    closing.push_async_callback(self._keeper.aclose)
                closing.push_async_callback(self._session.aclose)
                for recorder in self.recorders():
                    closing.push_async_callback(recorder.aclose)
                if self._durations is not None:
                    saving = self._durations.save
                    closing.push_async_callback(lambda: self.calls.notes.write(saving(), DURATIONS_PATIENCE))
                closing.push_async_callback(self.calls.aclose)
                closing.push_async_callback(self.waiter.aclose)
        finally:
            self._gone.set()


class Resources:
    """The parts that all views of a client share, and those of each event loop. A `WebhookAddress`."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        rate_limit: str | Rate | UnsetType | None,
        max_in_flight: int | None,
        polling: PollSchedule | None,
        store: JobStore | None,
        limiter: RateLimiter | None,
        session: aiohttp.ClientSession | None,
        proxy: str | None,
        trust_env: bool,
        ssl_context: ssl.SSLContext | None,
        default_headers: Mapping[str, str],
        user_agent: str,
        forbid_private_addresses: bool,
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
        self._api_key: Final = api_key
        self._session: Final = session
        self._proxy: Final = proxy
        self._trust_env: Final = trust_env
        self._ssl: Final = ssl_context
        self._default_headers: Final = default_headers
        self._user_agent: Final = user_agent
        self._forbid_private_addresses: Final = forbid_private_addresses
        self._sonic_paths: Final = sonic_paths
        self._draw: Final = drawing(rng)
        self._shared: Final = store if isinstance(store, SharedStore) else None
        self._limiter: Final = limiter or _limiter(rate_limit, max_in_flight, clock, self._shared, account)
        self._polling = polling
        self.durations: SavedDurations | None = None
        self._opened: Final[list[LoopResources]] = []
        self._made: Final[OrderedDict[TaskKey, None]] = OrderedDict()
        self._responding: Final[set[str]] = set()  # base URLs that have answered, in any loop
        self._redactor: Final = Redactor(
            [
                api_key,
                *proxy_secrets(proxy, trust_env=trust_env),
                *secrets_in(default_headers),
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
        process = os.getpid()
        for opened in self._opened:
            if opened.loop is loop and opened.process == process and not opened.closed:
                break
        else:
            self._opened[:] = [
                known
                for known in self._opened
                if known.process == process and not known.closed and not known.loop.is_closed()
            ]
            opened = self._open()
            if self._shared is not None:
                waiter = opened.waiter
                opened.unsubscribe = self._shared.subscribe(partial(self._heard, waiter), waiter.knows_id)
            self._opened.append(opened)
            opened.close_with_loop()
            watch(self)
        if recorder is not self.recorder:
            opened.use(recorder)
        return opened

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
            api_key=self._api_key,
            base_url=self.base_url,
            clock=self.clock,
            given=self._session,
            proxy=self._proxy,
            trust_env=self._trust_env,
            ssl_context=self._ssl,
            headers=self._default_headers,
            user_agent=self._user_agent,
            forbid_private_addresses=self._forbid_private_addresses,
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
    def inbox(self) -> Inbox:
        """Takes webhooks and hands them to the waits of the running loop."""
        from .webhooks import Inbox

        claims = self if self.recorder.always else None
        return Inbox(self.webhooks, self._deliver, adopt=self._adopt, claims=claims)

    def order(self, request: Request, options: Options) -> tuple[Request, Options]:
        """Return the request with a webhook, if one is wanted, and the options with its job key."""
        if self.webhooks is None:
            return request, options
        key = options.job_key or new_key()
        ordered: Request
        if isinstance(request, CreateBatch):
            ordered = self.webhooks.order_items(request, key)
        else:
            ordered = self.webhooks.order(request, key)
        if ordered is request:
            return request, options
        self.inbox.expect(key)
        return ordered, msgspec.structs.replace(options, job_key=key)

    def remember(self, task: TaskRef) -> None:
        """Note that a call of this client made this task."""
        self._made[task.key] = None
        while len(self._made) > REMEMBERED:
            self._made.popitem(last=False)

    def made(self, task: TaskRef) -> bool:
        """Return True if a call of this client made this task, as far as it remembers."""
        return task.key in self._made

    async def _adopt(self, key: str, event: Event) -> TaskRef | None:
        """Settle the job of a key with the task of an event, in the store that has it, and return the task.

        A store that fails is of no consequence if another one has the job. Raises `JobStoreError` if the job
        may be in that store, so that the service repeats the webhook.
        """
        here = self.here(self.recorder)
        task = TaskRef(_family(event), event.task_id or "")
        adoptions: list[Adoption] = []
        failures: list[JobStoreError] = []
        for recorder in here.recorders():
            try:
                adoptions.append(await recorder.adopt(key, task, event.job_item or 0))
            except JobStoreError as error:
                failures.append(error)
        found = [one for one in adoptions if one.outcome != "no job"]
        if failures and not found:
            raise failures[0]
        if any(one.outcome == "refused" for one in found):
            return None
        if not found:
            return task if task.family else None
        adopted = found[0].task
        if not self._family_of(event):  # else it was handed over at once
            self._hand_over(event, adopted)
        if event.is_terminal:  # the wait ended before the job had the task
            here.polling_ended(adopted, event.update)
        return adopted

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim the marks of a delivery in the job store; see `JobStore.claim`."""
        self.here(self.recorder)  # so that closing the client closes the store
        return await self.recorder.store.claim(marks, now=now, seconds=seconds)

    async def unclaim(self, marks: Collection[str]) -> None:
        """Let the marks of a delivery be claimed again."""
        await self.recorder.store.unclaim(marks)

    async def _deliver(self, event: Event) -> None:
        """Hand a webhook to the waits in this loop; a body may leave out its platform, or name a new one."""
        if event.task_id:
            self._hand_over(event, TaskRef(self._family_of(event), event.task_id))
            if self._shared is not None:
                body = msgspec.json.encode(self._redactor.copy(event.raw))
                await self._shared.publish(body, event.task_id)

    def _family_of(self, event: Event) -> str:
        """Return the family of an event, as it says or as its task is known here; '' if it is unknown."""
        return _family(event) or self.here(self.recorder).waiter.family_of(event.task_id or "")

    def _hand_over(self, event: Event, task: TaskRef) -> None:
        """Judge a webhook with all that is known of its task, and hand it to the waits in this loop."""
        from .webhooks.delivery import judge

        waiter = self.here(self.recorder).waiter
        if polled_as(task.family) is not None:
            ref = waiter.known(task)
            result = judge(event, ref, self._redactor)
            if self.observer.is_active:
                self.observer.webhook_came(ref, event.event, result.update)
            # With a store that workers share, it reaches the one that waits from any of them.
            own = self._shared is not None or self.inbox.expects(event)
            waiter.deliver(ref, result, own=own)

    def _heard(self, waiter: TaskWaiter, notice: Notice, body: bytes) -> None:
        """Hand a webhook that another worker has received to the waits in this loop."""
        if notice.kind != "webhook":
            return
        from .webhooks.delivery import judge, parse

        try:
            event = parse(body)
        except WebhookVerificationError:  # written by a version that says it in another way
            return
        task = TaskRef(_family(event) or waiter.family_of(event.task_id or ""), event.task_id or "")
        if waiter.knows(task) and polled_as(task.family) is not None:
            ref = waiter.known(task)
            waiter.deliver(ref, judge(event, ref, self._redactor), own=True)

    async def enter(self) -> None:
        """Open the client again if it was closed, and begin with what others have learned of durations."""
        self.closed = False
        # Imports aiohttp, which would stop the loop in the middle of the first call; and what is open here is
        # closed with the client, as is the store.
        self.here(self.recorder)
        if self.durations is not None:
            await self.durations.load()

    async def aclose(self) -> None:
        """Close what this loop has open, and with the last loop the client."""
        loop = asyncio.get_running_loop()
        mine = [known for known in self._opened if known.loop is loop]
        # Another thread may have a loop in which the client is in use.
        self.closed = not any(
            known.process == os.getpid() and not known.closed and not known.loop.is_closed()
            for known in self._opened
            if known not in mine
        )
        for opened in mine:
            await opened.aclose()
        self._opened[:] = [
            known for known in self._opened if known not in mine and not known.loop.is_closed()
        ]

    def leave(self) -> tuple[list[Closable], bool]:
        """Return what is open, which counts as closed from now on, and True if that is a mistake."""
        opened: list[Closable] = [
            known for known in self._opened if known.process == os.getpid() and not known.closed
        ]
        is_mistake = not (self.closed or self._close_with_loop)
        self.closed = True
        return opened, is_mistake

    def __del__(self) -> None:
        opened = getattr(self, "_opened", ())  # missing if construction was refused
        if not opened or self.closed or opened[0].process != os.getpid():
            return
        if in_notebook():
            close_collected(*self.leave())
            return
        if self._close_with_loop:
            return
        warnings.warn(
            f"MusicAPI made at {self._made_at} was never closed: use `async with MusicAPI() as client:` "
            "or `await client.aclose()`",
            ResourceWarning,
            stacklevel=2,
        )


def _family(event: Event) -> str:
    """Return the family that the platform of an event names; '' for none, and for a new word."""
    return event.family if event.family in FAMILIES else ""


def _limiter(
    rate_limit: str | Rate | UnsetType | None,
    max_in_flight: int | None,
    clock: Clock,
    shared: SharedStore | None,
    account: str,
) -> RateLimiter:
    try:
        allowed = Rate.parse(rate_limit) if isinstance(rate_limit, str) else rate_limit
        if shared is not None:
            return shared.limiter(account, allowed, clock, max_in_flight)
        if isinstance(allowed, UnsetType):
            return MemoryLimiter(DEFAULT_LANES, clock, max_in_flight=max_in_flight)
        submit = LaneLimits(DEFAULT_LANES["submit"].concurrency, allowed)
        return MemoryLimiter({"submit": submit}, clock, max_in_flight=max_in_flight)
    except (ValueError, TypeError) as error:
        raise RequestValidationError(f"rate_limit: {error}", field="rate_limit") from error


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
