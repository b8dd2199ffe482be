"""The event loop on which waiting takes no time."""

from __future__ import annotations

import asyncio
import math
import selectors
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest
from patience import PATIENCE

from musicapi_async.clock import Clock
from musicapi_async.testing.virtual import THREAD_GRACE, DeadlockError, VirtualTimeLoop


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": VirtualTimeLoop})])
async def test_week_of_timers_is_exact(anyio_backend: object) -> None:
    """As a backend of anyio's pytest plugin the loop sleeps a week at once, to the exact second."""
    begun = asyncio.get_running_loop().time()
    for _ in range(7):
        await anyio.sleep(86_400)
    assert asyncio.get_running_loop().time() - begun == 7 * 86_400


def test_anyio_runs_on_it() -> None:
    """`anyio.run` accepts the loop, and anyio's deadlines fire at their virtual time."""

    async def main() -> float:
        with anyio.move_on_after(900):
            await anyio.sleep(math.inf)
        return anyio.current_time()

    assert anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop}) == 900


def test_timers_fire_in_their_order() -> None:
    """Tasks wake in the order of their due times, in any order of creation."""

    async def main() -> list[tuple[float, float]]:
        woken: list[tuple[float, float]] = []

        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append((seconds, asyncio.get_running_loop().time()))

        await asyncio.gather(*(sleeper(seconds) for seconds in (5.0, 0.25, 3600.0, 1e-9, 7.5)))
        return woken

    assert run(main()) == [(s, pytest.approx(s)) for s in (1e-9, 0.25, 5.0, 7.5, 3600.0)]


def test_faster_clock_takes_less_virtual_time() -> None:
    """A clock at speed 60 sleeps a minute of its own in a second of the loop."""

    async def main() -> tuple[float, float]:
        clock = Clock(60)
        await clock.sleep(60)
        return clock.now(), asyncio.get_running_loop().time()

    assert run(main()) == (60, 1)


def test_real_sockets_answer_before_time_jumps() -> None:
    """An exchange over loopback ends before a timer of a millisecond that was set at the same time."""

    async def main() -> tuple[bytes, float]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            async with asyncio.timeout(0.001):
                writer.write(b"hello\n")
                reply = await reader.read()
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(600)
            return reply, asyncio.get_running_loop().time()

    reply, now = run(main())
    assert reply == b"HELLO\n"
    assert now == pytest.approx(600, abs=0.01)


DELAYED_ACK: Final = 0.04
"""Real seconds after which Linux says at the latest that a reader has room again."""


def test_room_of_a_slow_reader_comes_before_time_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large body is sent in no virtual time, though the kernel says with a delay that its reader has room."""
    here, there = socket.socketpair()

    class DelayingSelector(selectors.DefaultSelector):
        """The kernel as it is towards a full socket: the reader has room once the loop has waited long enough."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is None or timeout >= DELAYED_ACK:
                there.recv(1_000_000)
            return super().select(timeout)

    monkeypatch.setattr(selectors, "DefaultSelector", DelayingSelector)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(3600):
            await loop.sock_sendall(here, bytes(2_000_000))
        return loop.time()

    with here, there:
        here.setblocking(False)
        assert run(main()) == 0


@pytest.mark.parametrize("pool", ["anyio", "asyncio"])
def test_no_time_passes_while_a_thread_works(pool: str) -> None:
    """A job in a worker thread ends before a long timer, though the timer takes no real time."""

    async def main() -> list[str]:
        ended: list[str] = []

        async def job() -> None:
            if pool == "anyio":
                await anyio.to_thread.run_sync(time.sleep, 0.03)
            else:
                await asyncio.to_thread(time.sleep, 0.03)
            ended.append("job")

        async def timer() -> None:
            await asyncio.sleep(3600)
            ended.append("timer")

        await asyncio.gather(timer(), job())
        return ended

    assert run(main()) == ["job", "timer"]


def test_no_time_passes_while_threads_end() -> None:
    """Since Python 3.12 the end of a loop gives them 300 s: virtual ones would pass at once, with a warning."""

    async def main() -> None:
        executor = ThreadPoolExecutor()
        asyncio.get_running_loop().set_default_executor(executor)
        executor.submit(time.sleep, 0.05)  # the loop does not know of it

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main())


@pytest.mark.parametrize("wait", [asyncio.Event().wait, partial(asyncio.sleep, math.inf)])
def test_deadlock_is_an_error(wait: Any) -> None:
    """When nothing can ever wake a task the loop says so instead of hanging."""
    with pytest.raises(DeadlockError, match="nothing can wake"):
        run(wait())


def test_second_loop_continues_where_the_first_ended() -> None:
    """`start` sets the clock of a new loop."""
    with asyncio.Runner(loop_factory=partial(VirtualTimeLoop, 1234.5)) as runner:
        runner.run(asyncio.sleep(1))
        assert runner.get_loop().time() == 1235.5


WAITS = """
import asyncio, selectors, sys, threading
import anyio.to_thread
from musicapi_async.testing.virtual import VirtualTimeLoop

waits = []

class Recording(selectors.DefaultSelector):
    def select(self, timeout=None):
        waits.append(timeout)
        return super().select(timeout)

selectors.DefaultSelector = Recording

async def main():
    match sys.argv[1]:
        case "anyio":
            await anyio.to_thread.run_sync(int)
        case "executor":
            await asyncio.to_thread(int)
        case _:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
    waits.clear()
    await asyncio.sleep(3600)
    assert asyncio.get_running_loop().time() == 3600
    print(sum(wait or 0 for wait in waits))

with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize(("thread", "seconds"), [("anyio", 0), ("executor", 0), ("other", THREAD_GRACE)])
def test_idle_thread_of_a_pool_delays_no_jump(thread: str, seconds: float) -> None:
    """The loop waits for a thread that it does not know before it jumps, and not for those of pools.

    In a process of its own, as those of other tests may have threads that have not ended yet.
    """
    command = [sys.executable, "-c", WAITS, thread]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.stderr == ""
    assert float(ran.stdout) == seconds


def test_thread_of_no_pool_wakes_the_loop_before_it_jumps() -> None:
    """It acts at once in real time, and so before a timer of an hour."""

    async def main() -> list[str]:
        loop, ended = asyncio.get_running_loop(), list[str]()
        loop.call_later(3600, ended.append, "timer")
        woken = asyncio.Event()
        threading.Thread(target=lambda: loop.call_soon_threadsafe(woken.set), daemon=True).start()
        await woken.wait()
        ended.append("thread")
        await asyncio.sleep(3600)
        return ended

    assert run(main()) == ["thread", "timer"]
