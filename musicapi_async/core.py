"""What all views of a client share: the settings, the parts of each event loop, and who closes them."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import uuid
import warnings
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ._transport.recording import Recorder, Unrecorded
from ._wire import addresses
from ._wire.redaction import Redactor
from ._wire.retry import Draw, drawing
from .api.handle import Task, TaskRef
from .api.operation import Operation
from .api.request import Request
from .api.results import TaskUpdate, Until
from .clock import Clock
from .errors import MusicAPIError, RequestValidationError
from .jobs.memory import MemoryStore
from .jobs.recorder import JobRecorder
from .options import Options, SonicPaths, proxy_secrets

if TYPE_CHECKING:
    import aiohttp

    from ._transport.permits import Permit
    from ._transport.rate import Rate
    from ._transport.rate_limiter import RateLimiter
    from .jobs.store import JobStore
    from .polling.schedule import PollPolicy
    from .runtime import Runtime
    from .webhooks import Event, Inbox, Webhooks

REMEMBERED: Final = 10_000
"""Tasks of the client's own that are remembered, 250 bytes each; 8 hours of creates at one per 3 s."""


class Core:
    """What all views of a client share."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        rate_limit: str | Rate | None,
        max_in_flight: int | None,
        polling: PollPolicy | None,
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
        self._attempt_timeout: Final = attempt_timeout
        self._account: Final = account
        self.base_url: Final = base_url
        self.clock: Final = clock
        self.closed = False
        self._close_with_loop: Final = close_with_loop
        self.warned_families: Final[set[str]] = set()
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
        self._runtimes: Final[list[Runtime]] = []
        self._permits: Final[dict[tuple[str, str], Permit]] = {}
        self._made: Final[OrderedDict[tuple[str, str], None]] = OrderedDict()
        self._reached: Final[set[str]] = set()  # base URLs that have answered, in whichever loop
        self.webhooks: Final = webhooks
        self._redactor: Final = Redactor(
            [api_key, *proxy_secrets(proxy, trust_env=trust_env), *(webhooks.secrets if webhooks else ())]
        )
        self.book: Final = self.ledger(store)

    def ledger(self, store: JobStore | None) -> JobRecorder:
        """What writes paid calls into `store`; without one, those with a job key into memory."""
        return JobRecorder(
            store or MemoryStore(), self.clock, self.base_url, self._account, always=store is not None
        )

    async def runtime(self) -> Runtime:
        """The parts for the running loop, opened now if this is the first call in it."""
        if self.closed:
            raise MusicAPIError(
                "the client is closed", hint="Open it again with `async with client:`, or make a new one."
            )
        loop = asyncio.get_running_loop()
        process = os.getpid()
        for runtime in self._runtimes:
            if runtime.loop is loop and runtime.process == process and not runtime.closed:
                return runtime
        self._runtimes[:] = [
            known
            for known in self._runtimes
            if known.process == process and not known.closed and not known.loop.is_closed()
        ]
        opened = self._open()
        opened.ledgers.add(self.book)
        self._runtimes.append(opened)
        await opened.keep()
        return opened

    def _open(self) -> Runtime:
        from ._transport.session import Session
        from .runtime import Runtime

        if self._polling is None:
            self._polling = _learned(self._limiter, self.clock, self._draw)
        return Runtime(
            session=Session(
                api_key=self._api_key,
                base_url=self.base_url,
                limiter=self._limiter,
                clock=self.clock,
                draw=self._draw,
                given=self._session,
                proxy=self._proxy,
                trust_env=self._trust_env,
                forbid_private_addresses=self._forbid_private_addresses,
                reached=self._reached,
                redactor=self._redactor,
            ),
            limiter=self._limiter,
            policy=self._polling,
            clock=self.clock,
            draw=self._draw,
            path_of=self._sonic_paths.of,
            permits=self._permits,
            attempt_timeout=self._attempt_timeout,
        )

    @cached_property
    def inbox(self) -> Inbox:
        """Takes webhooks and hands them to the waits of the running loop."""
        from .webhooks import Inbox

        claims = self if self.book.always else None
        return Inbox(self.webhooks, self._deliver, adopt=self._adopt, claims=claims)

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim the marks of a delivery in the job store; see `JobStore.claim`."""
        await self.runtime()  # so that closing the client closes the store
        return await self.book.store.claim(marks, now=now, seconds=seconds)

    async def unclaim(self, marks: Collection[str]) -> None:
        """Let the marks of a delivery be claimed again."""
        await self.book.store.unclaim(marks)

    def order(self, request: Request, options: Options) -> tuple[Request, Options]:
        """The request with its webhook, if there shall be one, and options with the job key in it."""
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
        """Note that a call of this client gave this task."""
        self._made[task.family, task.task_id] = None
        while len(self._made) > REMEMBERED:
            self._made.popitem(last=False)

    def made(self, task: TaskRef) -> bool:
        """Return True if a call of this client gave this task, as far as it remembers."""
        return (task.family, task.task_id) in self._made

    async def _adopt(self, key: str, task: TaskRef) -> bool:
        runtime = await self.runtime()
        return all([await ledger.adopt(key, task) for ledger in tuple(runtime.ledgers)])

    def _deliver(self, event: Event) -> None:
        loop = asyncio.get_running_loop()
        for runtime in self._runtimes:
            if runtime.loop is loop and not runtime.closed:
                runtime.deliver(event.family, event.task_id, event.raw, own=self.inbox.expects(event))

    async def aclose(self) -> None:
        """Close what this loop has open."""
        self.closed = True
        loop = asyncio.get_running_loop()
        mine = [known for known in self._runtimes if known.loop is loop]
        for runtime in mine:
            await runtime.aclose()
        self._runtimes[:] = [
            known for known in self._runtimes if known not in mine and not known.loop.is_closed()
        ]

    def __del__(self) -> None:
        runtimes = getattr(self, "_runtimes", ())  # empty if construction was refused
        if self.closed or self._close_with_loop or not runtimes or runtimes[0].process != os.getpid():
            return
        warnings.warn(
            f"MusicAPI made at {self._made_at} was never closed: use `async with MusicAPI() as client:` "
            "or `await client.aclose()`",
            ResourceWarning,
            stacklevel=2,
        )


class Watching:
    """What a handle sees of the client: whatever loop it is used in."""

    __slots__ = ("_core", "_ledger", "_options")

    def __init__(self, core: Core, options: Options, ledger: JobRecorder) -> None:
        self._core = core
        self._options = options
        self._ledger = ledger

    async def _runtime(self) -> Runtime:
        """The parts for the running loop, which note in the ledger when a task ends."""
        runtime = await self._core.runtime()
        runtime.ledgers.add(self._ledger)
        return runtime

    async def wait(
        self, ref: TaskRef, until: Until, timeout: float | None, show: Callable[[TaskUpdate], None]
    ) -> TaskUpdate:
        runtime = await self._runtime()
        return await runtime.waiter.wait(ref, until, timeout, show)

    async def updates(self, ref: TaskRef, timeout: float | None) -> AsyncGenerator[TaskUpdate, None]:
        runtime = await self._runtime()
        async with aclosing(runtime.waiter.updates(ref, timeout)) as updates:
            async for update in updates:
                yield update

    async def refresh(self, ref: TaskRef) -> TaskUpdate:
        runtime = await self._runtime()
        return await runtime.refresh(ref, self._options)

    async def is_known(self, ref: TaskRef) -> bool:
        return self._core.made(ref) or bool(await self._ledger.store.find(ref.family, ref.task_id))


class Bound:
    """What the families see of the client: a caller with its options."""

    __slots__ = ("_core", "_ledger", "_options", "_recorder", "_watching")

    def __init__(
        self, core: Core, options: Options, ledger: JobRecorder, recorder: Recorder | None = None
    ) -> None:
        self._core = core
        self._options = options
        self._ledger = ledger
        self._recorder: Recorder = recorder or ledger
        self._watching = Watching(core, options, ledger)

    async def submit(self, operation: Operation[Any, Any], request: Request) -> Task[Any]:
        if operation.family.replacement is not None:
            self._warn(operation)
        runtime = await self._core.runtime()
        runtime.ledgers.add(self._ledger)
        keyed = self._ledger.with_job_key(self._options)
        ordered, options = self._core.order(request, keyed)
        recorder = self._recorder if keyed.job_key is not None else Unrecorded()
        try:
            task = await runtime.caller.submit(operation, ordered, options, self._watching, recorder)
        except MusicAPIError as error:
            addresses.explain(error, self._core.base_url)
            raise
        self._core.remember(task.ref)
        if ordered is not request and task.ref.own:  # what an earlier call made may have been told already
            runtime.waiter.expect(task.family, task.task_id)
        return task

    async def call(self, operation: Operation[Any, Any], request: Request) -> Any:
        if operation.family.replacement is not None:
            self._warn(operation)
        runtime = await self._core.runtime()
        if operation.polled is not None:
            from ._transport.outgoing import check

            check(request, operation.call_name, self._options, stacklevel=4)
            ref = TaskRef(operation.family.word, str(getattr(request, "task_id", "")), operation.name)
            return await runtime.refresh(ref, self._options)
        runtime.ledgers.add(self._ledger)
        try:
            return await runtime.caller.call(operation, request, self._options, self._recorder)
        except MusicAPIError as error:
            addresses.explain(error, self._core.base_url)
            raise

    def _warn(self, operation: Operation[Any, Any]) -> None:
        family = operation.family
        if family.word in self._core.warned_families:
            return
        self._core.warned_families.add(family.word)
        warnings.warn(
            f"{family.word} is deprecated by the service; use {family.replacement} instead",
            DeprecationWarning,
            stacklevel=4,
        )


def _limiter(rate_limit: str | Rate | None, max_in_flight: int | None, clock: Clock) -> RateLimiter:
    from ._transport.rate import Rate
    from ._transport.rate_limiter import DEFAULT_LANES, LaneLimits, MemoryLimiter

    try:
        allowed = Rate.parse(rate_limit) if isinstance(rate_limit, str) else rate_limit
        submit = LaneLimits(DEFAULT_LANES["submit"].concurrency, allowed)
        return MemoryLimiter({"submit": submit}, clock, max_in_flight=max_in_flight)
    except (ValueError, TypeError) as error:
        raise RequestValidationError(f"rate_limit: {error}", field="rate_limit") from error


def _learned(limiter: RateLimiter, clock: Clock, draw: Draw) -> PollPolicy:
    """The default policy; where polls are capped, their price follows from the queue for them."""
    from ._transport.rate_limiter import MemoryLimiter
    from .polling.price import PRICE, ShadowPrice
    from .polling.schedule import Learned

    if not (isinstance(limiter, MemoryLimiter) and limiter.has_rate("poll")):
        return Learned(price=PRICE, draw=draw)
    return Learned(price=ShadowPrice(partial(limiter.has_long_queue, "poll"), clock.now), draw=draw)


def _outside_line() -> str:
    """The line that made the client: the first frame outside this package."""
    package = __name__.rpartition(".")[0]
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(package + "."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "an unknown line"
