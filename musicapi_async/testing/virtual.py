"""An asyncio event loop on which waiting takes no time.

A program that waits minutes for a song spends them in timers. On a `VirtualTimeLoop` nothing ever sleeps:
whenever all tasks wait, the clock of the loop jumps to the next timer. Hours pass in milliseconds, and
the order of events and the measured intervals are exact, because no scheduling delay is in them.

Real sockets work, such as a test server in the same loop: before each jump the loop polls for real input,
for `IO_GRACE` if any socket is registered, for `WRITE_GRACE` if one waits to be written to. It does not
jump while a worker thread is known to be busy. The idle threads of pools are no reason to wait, as the jobs
that this loop or anyio gave them are known. While any other thread lives, which may do anything at any time,
the loop polls for `THREAD_GRACE` before each jump.
A peer in another process lives in real time, however, and a virtual minute may pass before it answers.

If nothing can ever happen again (no timer, no callback, no socket, no thread), a normal loop would hang;
this one raises `DeadlockError`.

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())

    anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop})

    @pytest.fixture
    def anyio_backend():
        return "asyncio", {"loop_factory": VirtualTimeLoop}
"""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["DeadlockError", "VirtualTimeLoop"]

IO_GRACE: Final = 0.001
"""Real seconds in which a socket may receive before time jumps. Loopback delivers in about 0.05 ms."""

WRITE_GRACE: Final = 0.05
"""The same while a socket waits to be written to: more follows as soon as its reader has room."""

THREAD_GRACE: Final = 0.005
"""Real seconds in which a thread whose work this loop does not know may act before time jumps."""

SILENCE: Final = 5.0
"""Real seconds without any event after which a loop with only sockets or idle threads gives up."""

THREAD_PATIENCE: Final = 30.0
"""The same while a worker thread is known to be busy."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class DeadlockError(RuntimeError):
    """Raised when every task waits, and nothing remains that could wake one."""


class _JumpingSelector(selectors.BaseSelector):
    """A selector that lets time jump when there is nothing to read."""

    def __init__(self) -> None:
        self._real: Final = selectors.DefaultSelector()
        self.jump: Callable[[float], None] = lambda _seconds: None
        self.busy: Callable[[], bool] = lambda: False
        self.first_thread: Callable[[], bool] = lambda: False
        self.is_pooled: Callable[[threading.Thread], bool] = lambda _thread: False

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if threading.active_count() > 1 and self.first_thread():
            return ready
        since = time.monotonic()
        while not ready and ((busy := self.busy()) or timeout is None):
            alive = self._could_be_woken()
            # Found before the last `select`: a thread may wake the loop and end between the two.
            ready = self._real.select(0.05 if alive else 0)
            if ready:
                break
            if not alive or time.monotonic() - since > (THREAD_PATIENCE if busy else SILENCE):
                raise DeadlockError(
                    f"a worker thread did not finish within {THREAD_PATIENCE:g} real seconds"
                    if busy
                    else "every task waits and nothing can wake one: no timer is set, "
                    "and no socket or thread is active"
                )
        if not ready and timeout is not None:
            grace = self._grace()
            ready = self._real.select(grace) if grace else []
            if not ready:
                self.jump(timeout)
        return ready

    def _has_sockets(self) -> bool:
        # One entry is the pipe through which other threads wake the loop.
        return len(self._real.get_map()) > 1

    def _could_be_woken(self) -> bool:
        return self._has_sockets() or threading.active_count() > 1

    def _grace(self) -> float:
        if any(key.events & selectors.EVENT_WRITE for key in self._real.get_map().values()):
            return WRITE_GRACE
        if self._has_unknown_threads():
            return THREAD_GRACE
        return IO_GRACE if self._has_sockets() else 0.0

    def _has_unknown_threads(self) -> bool:
        others = set(threading.enumerate()) - {threading.current_thread()}
        return not all(map(self.is_pooled, others))


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A selector event loop whose `time()` starts at `start` and jumps from timer to timer.

    Pass the `time()` of an earlier loop as `start` (with `functools.partial`) to continue where it ended.
    """

    def __init__(self, start: float = 0.0) -> None:
        selector = _JumpingSelector()
        self._virtual_now = float(start)
        self._executor_jobs = 0
        self._executor_threads = set[threading.Thread]()
        self._thread_limiter: anyio.CapacityLimiter | None = None
        super().__init__(selector)
        selector.jump = self._jump
        selector.busy = self._threads_are_busy
        selector.first_thread = self._find_thread_limiter
        selector.is_pooled = self._is_pooled

    def time(self) -> float:
        """Return the virtual time in seconds; it passes only while the loop waits."""
        return self._virtual_now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer, as in any loop, but not for a time of infinity, to which the loop could not jump."""
        if when == math.inf:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function in an executor, as in any loop; no virtual time passes until it returns."""
        if executor is None or isinstance(executor, ThreadPoolExecutor):
            future = super().run_in_executor(executor, self._run_in_thread, partial(func, *args))
        else:
            future = super().run_in_executor(executor, func, *args)
        self._executor_jobs += 1
        future.add_done_callback(self._executor_job_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the threads of the executor, as any loop does; no virtual time passes until they have ended.

        Args:
            timeout: the longest time to wait, in real seconds, from Python 3.12 on; at most
                `THREAD_PATIENCE`.
        """
        self._executor_jobs += 1
        try:
            if sys.version_info >= (3, 12):
                await super().shutdown_default_executor(timeout)
            else:
                await super().shutdown_default_executor()
        finally:
            self._executor_jobs -= 1

    def _run_in_thread(self, job: Callable[[], T]) -> T:
        self._executor_threads.add(threading.current_thread())
        return job()

    def _is_pooled(self, thread: threading.Thread) -> bool:
        """Return True for the threads of executors and of anyio: the loop counts their jobs."""
        return thread in self._executor_threads or type(thread).__module__.startswith("anyio.")

    def _executor_job_done(self, _future: asyncio.Future[Any]) -> None:
        self._executor_jobs -= 1

    def _jump(self, seconds: float) -> None:
        self._virtual_now += seconds

    def _threads_are_busy(self) -> bool:
        return self._executor_jobs > 0 or (
            self._thread_limiter is not None and self._thread_limiter.borrowed_tokens > 0
        )

    def _find_thread_limiter(self) -> bool:
        """Get the limiter that counts anyio's busy threads, once; only a task may do so."""
        if self._thread_limiter is not None:
            return False

        async def find() -> None:
            self._thread_limiter = anyio.to_thread.current_default_thread_limiter()

        # It has no await, so it ends in this turn of the loop, and needs no reference.
        self.create_task(find())
        return True
