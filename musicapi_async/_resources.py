"""The parts of a client: those that all its views share, those of each event loop, and a view.

Connections, calls under way and waits belong to the loop that opened them (`LoopResources`, opened by the
first call in it). The limiter, the permits of tasks in flight, the webhooks and the secrets to hide belong to
the client (`Resources`): they outlive a loop.

aiohttp, and with it half of the import time, is imported when the first loop opens.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
import warnings
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, aclosing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

import msgspec

from ._transport.attempts import Attempts
from ._transport.call import Calls
from ._transport.permits import TasksInFlight
from ._transport.rate import Rate
from ._transport.rate_limiter import DEFAULT_LANES, LaneLimits, MemoryLimiter, RateLimiter
from ._wire.poll_response import PollResult
from ._wire.prepare import check, outside, warn
from ._wire.redaction import Redactor
from ._wire.retry import Draw, drawing
from .api.families import polled_as
from .api.operation import Create, Direct, Family, Poll, Polled, ReplyT, T
from .api.request import GetMusic, Request
from .api.results import TaskUpdate, Until
from .api.task import Task, TaskKey, TaskRef
from .clock import Clock
from .errors import MusicAPIError, RequestValidationError
from .jobs.memory import MemoryStore
from .jobs.recorder import JobRecorder, Resubmission
from .options import Options, SonicPaths, proxy_secrets

if TYPE_CHECKING:
    import aiohttp

    from ._transport.session import Session
    from .jobs.store import JobStore
    from .polling.schedule import PollSchedule
    from .webhooks import Event, Inbox, Webhooks

REMEMBERED: Final = 10_000
"""Tasks of the client's own that are remembered, 250 bytes each; 8 hours of creates at one per 3 s."""


class LoopResources:
    """The parts of a client in one event loop and process. A `PollClient`."""

    def __init__(
        self, session: Session, attempts: Attempts, schedule: PollSchedule, draw: Draw, shared: Resources
    ) -> None:
        from ._transport.download import Downloader
        from .polling.waiter import TaskWaiter

        self.loop: Final = asyncio.get_running_loop()
        self.process: Final = os.getpid()
        self.recorders: Final[set[JobRecorder]] = {shared.recorder}
        self.closed = False
        self._session: Final = session
        self._in_flight: Final = shared.in_flight
        self._attempts: Final = attempts
        self._once: Final = shared.once
        self.waiter: Final = TaskWaiter(self, schedule, shared.clock, draw)
        self.calls: Final = Calls(attempts, session.redactor, self._in_flight, self.waiter)
        self.downloader: Final = Downloader(session, attempts.limiter, shared.clock, draw)
        self._gone: Final = asyncio.Event()
        self._keeper: AsyncGenerator[None, None] | None = None

    @property
    def redactor(self) -> Redactor:
        """Hides the secrets of this client in texts."""
        return self._session.redactor

    @property
    def host_responds(self) -> bool:
        """True once the host has given any response below 500."""
        return self._session.reached

    async def poll(self, ref: TaskRef, polled: Polled) -> PollResult:
        """Poll a task with one attempt: the waiter has rules of its own for what follows a failure."""
        return await self._attempts.poll(ref, polled, self._once)

    def polling_ended(self, ref: TaskRef, update: TaskUpdate | None) -> None:
        """Free the permit of a task, and write its end down; None if it cannot be polled any more."""
        self._in_flight.ended(ref)
        for recorder in self.recorders:
            # Another poll of a task whose end was recorded is no news.
            if update is not None and not recorder.has_recorded_end(ref):
                self.calls.notes.begin(recorder.record_end(ref, update))

    def deliver(self, event: Event, *, own: bool) -> None:
        """Hand a webhook to the waits for its task; `own` if this process ordered it."""
        if event.task_id and polled_as(event.family) is not None:
            if not own and not self.waiter.knows(event.family, event.task_id):
                self.waiter.stray()
            self.waiter.deliver(event.family, event.task_id, event.raw)

    async def refresh(self, ref: TaskRef, options: Options) -> TaskUpdate:
        """Poll a task once, with the repeats of any free call."""
        from .polling.waiter import polled_of

        result = await self._attempts.poll(ref, polled_of(ref), options)
        if result.update is None:
            raise result.error or AssertionError("a poll without an update has an error")
        if result.update.is_terminal:
            self.polling_ended(ref, result.update)
        return result.update

    async def close_with_loop(self) -> None:
        """Have the loop close this when it shuts down, so that a forgotten client leaves no connection.

        `asyncio.run` finishes all asynchronous generators before it closes the loop; this one waits for it.
        """
        self._keeper = self._close_at_end()
        await anext(self._keeper)

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
        try:
            async with AsyncExitStack() as closing:  # each step runs, from the last one, whatever fails
                if self._keeper is not None:
                    closing.push_async_callback(self._keeper.aclose)
                closing.push_async_callback(self._session.aclose)
                for recorder in tuple(self.recorders):
                    closing.push_async_callback(recorder.aclose)
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
        rate_limit: str | Rate | None,
        max_in_flight: int | None,
        polling: PollSchedule | None,
        store: JobStore | None,
        limiter: RateLimiter | None,
        session: aiohttp.ClientSession | None,
        proxy: str | None,
        trust_env: bool,
        forbid_private_addresses: bool,
        webhooks: Webhooks | None,
        sonic_paths: SonicPaths,
        close_with_loop: bool,
        clock: Clock,
        rng: random.Random | None,
        attempt_timeout: float | None,
        account: str,
    ) -> None:
        self.base_url: Final = base_url
        self.clock: Final = clock
        self.webhooks: Final = webhooks
        self.in_flight: Final = TasksInFlight(clock)
        self.once: Final = Options(max_retries=0, attempt_timeout=attempt_timeout)
        self.warned_families: Final[set[str]] = set()
        self.closed = False
        self._account: Final = account
        self._close_with_loop: Final = close_with_loop
        self._made_at: Final = _outside_line()
        self._api_key: Final = api_key
        self._session: Final = session
        self._proxy: Final = proxy
        self._trust_env: Final = trust_env
        self._forbid_private_addresses: Final = forbid_private_addresses
        self._sonic_paths: Final = sonic_paths
        self._rng: Final = rng
        self._draw: Final = drawing(rng)
        self._limiter: Final = limiter or _limiter(rate_limit, max_in_flight, clock)
        self._polling = polling
        self._opened: Final[list[LoopResources]] = []
        self._made: Final[OrderedDict[TaskKey, None]] = OrderedDict()
        self._reached: Final[set[str]] = set()  # base URLs that have answered, in whichever loop
        self._redactor: Final = Redactor(
            [api_key, *proxy_secrets(proxy, trust_env=trust_env), *(webhooks.secrets if webhooks else ())]
        )
        self.recorder: Final = self.recorder_of(store)

    def recorder_of(self, store: JobStore | None) -> JobRecorder:
        """Return a recorder of paid calls in `store`; without one, of those with a job key in memory."""
        always = store is not None
        return JobRecorder(store or MemoryStore(), self.clock, self.base_url, self._account, always=always)

    async def here(self, recorder: JobRecorder) -> LoopResources:
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
                opened.recorders.add(recorder)
                return opened
        self._opened[:] = [
            known
            for known in self._opened
            if known.process == process and not known.closed and not known.loop.is_closed()
        ]
        opened = self._open()
        opened.recorders.add(recorder)
        self._opened.append(opened)
        await opened.close_with_loop()
        return opened

    def _open(self) -> LoopResources:
        from ._transport.session import Session

        if self._polling is None:
            self._polling = _learned(self._limiter, self.clock, self._draw)
        session = Session(
            api_key=self._api_key,
            base_url=self.base_url,
            clock=self.clock,
            given=self._session,
            proxy=self._proxy,
            trust_env=self._trust_env,
            forbid_private_addresses=self._forbid_private_addresses,
            reached=self._reached,
            redactor=self._redactor,
        )
        attempts = Attempts(
            session, self._limiter, self.clock, self._draw, self._sonic_paths.of, self.base_url
        )
        return LoopResources(session, attempts, self._polling, self._draw, self)

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
        # Not from a generator of this process: one that was forked from it would draw the same key.
        fresh = uuid.uuid4() if self._rng is None else uuid.UUID(int=self._rng.getrandbits(128), version=4)
        key = options.job_key or str(fresh)
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

    async def _adopt(self, key: str, task: TaskRef) -> bool:
        here = await self.here(self.recorder)
        return all([await recorder.adopt(key, task) for recorder in tuple(here.recorders)])

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim the marks of a delivery in the job store; see `JobStore.claim`."""
        await self.here(self.recorder)  # so that closing the client closes the store
        return await self.recorder.store.claim(marks, now=now, seconds=seconds)

    async def unclaim(self, marks: Collection[str]) -> None:
        """Let the marks of a delivery be claimed again."""
        await self.recorder.store.unclaim(marks)

    def _deliver(self, event: Event) -> None:
        loop = asyncio.get_running_loop()
        for opened in self._opened:
            if opened.loop is loop and not opened.closed:
                opened.deliver(event, own=self.inbox.expects(event))

    async def aclose(self) -> None:
        """Close what this loop has open."""
        self.closed = True
        loop = asyncio.get_running_loop()
        mine = [known for known in self._opened if known.loop is loop]
        for opened in mine:
            await opened.aclose()
        self._opened[:] = [
            known for known in self._opened if known not in mine and not known.loop.is_closed()
        ]

    def __del__(self) -> None:
        opened = getattr(self, "_opened", ())  # missing if construction was refused
        if not opened or self.closed or self._close_with_loop or opened[0].process != os.getpid():
            return
        warnings.warn(
            f"MusicAPI made at {self._made_at} was never closed: use `async with MusicAPI() as client:` "
            "or `await client.aclose()`",
            ResourceWarning,
            stacklevel=2,
        )


class ClientView:
    """A client with its options, as families and handles use it. A `Caller` and a `Waiter`, in any loop."""

    __slots__ = ("_calls_recorder", "options", "recorder", "resources")

    def __init__(
        self,
        resources: Resources,
        options: Options,
        recorder: JobRecorder,
        resubmission: Resubmission | None = None,
    ) -> None:
        self.resources: Final = resources
        self.options: Final = options
        self.recorder: Final = recorder
        self._calls_recorder: Final = resubmission or recorder

    async def here(self) -> LoopResources:
        """Return the parts of the running loop."""
        return await self.resources.here(self.recorder)

    async def submit(self, operation: Create[..., T], request: Request) -> Task[T]:
        """Send a create and return the handle of its task."""
        if operation.family.replacement is not None:
            self._warn(operation.family)
        here = await self.resources.here(self.recorder)
        webhooks = None if self.resources.webhooks is None else self.resources
        accepted = await here.calls.submit(operation, request, self.options, self._calls_recorder, webhooks)
        task = accepted.task
        self.resources.remember(task)
        if accepted.webhook:
            here.waiter.expect(task.family, task.task_id)
        return Task(task, self, accepted.reply, accepted.job_key)

    async def call(self, operation: Direct[..., ReplyT], request: Request) -> ReplyT:
        """Send a direct call and return its reply."""
        if operation.family.replacement is not None:
            self._warn(operation.family)
        here = await self.resources.here(self.recorder)
        return await here.calls.direct(operation, request, self.options, self._calls_recorder)

    async def poll(self, operation: Poll[...], request: Request) -> TaskUpdate:
        """Poll a task once."""
        if operation.family.replacement is not None:
            self._warn(operation.family)
        here = await self.resources.here(self.recorder)
        check(request, operation.call_name, self.options)
        task_id = request.task_id if isinstance(request, GetMusic) else ""
        return await here.refresh(TaskRef(operation.family.word, task_id, operation.name), self.options)

    async def wait(
        self, ref: TaskRef, until: Until, timeout: float | None, show: Callable[[TaskUpdate], None]
    ) -> TaskUpdate:
        """Wait until the task has ended as `until` says."""
        here = await self.resources.here(self.recorder)
        return await here.waiter.wait(ref, until, timeout, show)

    async def updates(self, ref: TaskRef, timeout: float | None) -> AsyncGenerator[TaskUpdate, None]:
        """Each change of the task until its end."""
        here = await self.resources.here(self.recorder)
        async with aclosing(here.waiter.updates(ref, timeout)) as updates:
            async for update in updates:
                yield update

    async def refresh(self, ref: TaskRef) -> TaskUpdate:
        """Poll the task once, now."""
        here = await self.resources.here(self.recorder)
        return await here.refresh(ref, self.options)

    async def is_known(self, ref: TaskRef) -> bool:
        """Return True if the client made the task, or its job store holds it."""
        return self.resources.made(ref) or bool(await self.recorder.store.find(ref.family, ref.task_id))

    def _warn(self, family: type[Family]) -> None:
        """Warn once that the service has deprecated a family."""
        if family.word not in self.resources.warned_families:
            self.resources.warned_families.add(family.word)
            text = f"{family.word} is deprecated by the service; use {family.replacement} instead"
            warn(text, DeprecationWarning)


def _limiter(rate_limit: str | Rate | None, max_in_flight: int | None, clock: Clock) -> RateLimiter:
    try:
        allowed = Rate.parse(rate_limit) if isinstance(rate_limit, str) else rate_limit
        submit = LaneLimits(DEFAULT_LANES["submit"].concurrency, allowed)
        return MemoryLimiter({"submit": submit}, clock, max_in_flight=max_in_flight)
    except (ValueError, TypeError) as error:
        raise RequestValidationError(f"rate_limit: {error}", field="rate_limit") from error


def _learned(limiter: RateLimiter, clock: Clock, draw: Draw) -> PollSchedule:
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
