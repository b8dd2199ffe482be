"""What belongs to one event loop of a client: connections, caller, waiter. Opened by the first call in it.

aiohttp, and with it half of the import time, is loaded only when this module is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from ._transport.caller import ApiCaller
from ._transport.download import Downloader
from ._transport.permits import Permit
from ._transport.rate_limiter import RateLimiter
from ._transport.session import Session
from ._wire.looks import Seen
from ._wire.retry import Draw
from .api.families import SAME_FAMILY, polled_as
from .api.handle import TaskRef
from .api.operation import Polled
from .api.results import TaskUpdate
from .clock import Clock
from .errors import RequestValidationError
from .jobs.recorder import JobRecorder
from .options import Options
from .polling.schedule import PollPolicy
from .polling.waiter import TaskWaiter


def polled_of(ref: TaskRef) -> Polled:
    """How the task is polled; `RequestValidationError` for a family that has no tasks."""
    polled = polled_as(ref.family, ref.kind)
    if polled is None:
        raise RequestValidationError(
            f"family: one whose tasks can be polled, such as 'sonic', got {ref.family!r}",
            field="family",
            value=repr(ref.family),
        )
    return polled


class Runtime:
    """The parts of a client in one event loop and process."""

    def __init__(
        self,
        *,
        session: Session,
        limiter: RateLimiter,
        policy: PollPolicy,
        clock: Clock,
        draw: Draw,
        path_of: Callable[[str], str],
        permits: dict[tuple[str, str], Permit],
        attempt_timeout: float | None = None,
    ) -> None:
        # A poll of the waiter is one attempt: it has rules of its own for what follows a failure.
        self._once: Final = Options(max_retries=0, attempt_timeout=attempt_timeout)
        self.loop: Final = asyncio.get_running_loop()
        self.process: Final = os.getpid()
        self.session: Final = session
        self.caller: Final = ApiCaller(session, limiter, clock, path_of, permits)
        self.waiter: Final = TaskWaiter(
            self._look,
            policy,
            clock,
            draw,
            polled_of=polled_of,
            ended=self._ended,
            lost=self._freed,
            reached=lambda: session.reached,
            redactor=session.redactor,
        )
        self.downloader: Final = Downloader(session, limiter, clock, draw)
        self.ledgers: Final[set[JobRecorder]] = set()
        self._notes: Final[set[asyncio.Task[None]]] = set()
        self.closed = False
        self._gone: Final = asyncio.Event()
        self.keeper: AsyncGenerator[None, None] | None = None

    async def _look(self, ref: TaskRef, polled: Polled) -> Seen:
        return await self.caller.look(ref, polled, self._once)

    def _freed(self, ref: TaskRef) -> None:
        for word in SAME_FAMILY.get(ref.family, (ref.family,)):
            self.caller.task_ended(word, ref.task_id)

    def _ended(self, ref: TaskRef, update: TaskUpdate) -> None:
        self._freed(ref)
        for ledger in self.ledgers:
            if ledger.has_recorded_end(ref):
                continue  # whoever looks again at a task that has ended tells no news
            note = self.loop.create_task(ledger.record_end(ref, update))
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)

    async def noted(self) -> None:
        """Return when all that has ended so far is written down."""
        if self._notes:
            await asyncio.wait(self._notes)  # not `gather`, which cancels them all with whoever waits

    def deliver(self, family: str, task_id: str | None, body: Mapping[str, Any], *, own: bool) -> None:
        """Hand the body of a webhook to the waits for its task; `own` if this process ordered it."""
        if task_id and polled_as(family) is not None:
            words = SAME_FAMILY.get(family, (family,))
            if not own and not any(self.waiter.knows(word, task_id) for word in words):
                self.waiter.stray()
            for word in words:
                self.waiter.deliver(word, task_id, body)

    async def refresh(self, ref: TaskRef, options: Options) -> TaskUpdate:
        """Look at a task once, with the repeats of any free call."""
        seen = await self.caller.look(ref, polled_of(ref), options)
        if seen.update is None:
            raise seen.error or AssertionError("a look without an update has an error")
        if seen.update.is_terminal:
            self._ended(ref, seen.update)
        return seen.update

    async def keep(self) -> None:
        """Have the loop close this when it shuts down, so that a forgotten client leaves no connection.

        `asyncio.run` finishes all asynchronous generators before it closes the loop; this one waits for it.
        """
        self.keeper = _close_at_end(self)
        await anext(self.keeper)

    async def aclose(self) -> None:
        """Stop waiting, let paid calls under way finish for a moment, close the connections."""
        if self.closed:
            await self._gone.wait()
            return
        self.closed = True
        try:
            await self._close()
        finally:
            self._gone.set()

    async def _close(self) -> None:
        async with AsyncExitStack() as closing:  # each step runs, whatever becomes of the others
            if self.keeper is not None:
                closing.push_async_callback(self.keeper.aclose)
            closing.push_async_callback(self.session.aclose)
            closing.push_async_callback(self._close_ledgers)
            closing.push_async_callback(self.noted)
            closing.push_async_callback(self.caller.aclose)
            closing.push_async_callback(self.waiter.aclose)

    async def _close_ledgers(self) -> None:
        async with AsyncExitStack() as closing:
            for ledger in tuple(self.ledgers):
                closing.push_async_callback(ledger.aclose)


async def _close_at_end(runtime: Runtime) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        runtime.keeper = None  # a generator cannot close itself while it runs
        if not runtime.closed:  # else it is the runtime that ends this
            await runtime.aclose()
