"""The permits of a batch: all or none, and no two batches wait for each other for ever."""

from __future__ import annotations

import asyncio

import pytest

from musicapi_async import MemoryLimiter
from musicapi_async._transport.permits import LONGEST_COLLECTION, BatchPermit, Permit, Permits, TaskPermit
from musicapi_async._transport.wait_reasons import Waits
from musicapi_async.clock import Clock


def permits_of(permits: Permits, count: int, share: float = 0.0) -> BatchPermit:
    """The permits of a batch of so many songs, which begins again after this share of the longest wait."""
    return BatchPermit([TaskPermit(permits) for _ in range(count)], Clock(), lambda: share)


async def test_batches_of_two_machines_that_hold_half_each_both_get_their_turn() -> None:
    """In one process the queue prevents it; two processes may have taken turns."""
    permits = Permits(2, Clock())
    first, second = permits_of(permits, 2, 0.1), permits_of(permits, 2, 0.5)
    assert first.permits[0].try_acquire()
    assert second.permits[0].try_acquire()

    async def run(batch: BatchPermit) -> float:
        await batch.acquire()
        at = asyncio.get_running_loop().time()
        await asyncio.sleep(60)
        batch.release()
        return at

    began = asyncio.get_running_loop().time()
    ends = await asyncio.gather(run(first), run(second))
    assert [at - began for at in ends] == pytest.approx([1.1 * LONGEST_COLLECTION, 1.5 * LONGEST_COLLECTION])
    assert permits_of(permits, 2).try_acquire()


async def test_a_batch_that_is_given_up_gives_all_permits_back() -> None:
    """Those that it held, and its places in the queue."""
    permits = Permits(3, Clock())
    held, batch = permits_of(permits, 2), permits_of(permits, 3)
    assert held.try_acquire()
    assert not batch.try_acquire()
    waiting = asyncio.ensure_future(batch.acquire())
    await asyncio.sleep(10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.release()
    assert permits_of(permits, 3).try_acquire()


async def test_a_batch_waits_until_all_of_its_permits_are_free() -> None:
    """First come, first served: a single create behind it waits, too."""
    permits = Permits(3, Clock())
    held, batch, single = permits_of(permits, 2), permits_of(permits, 3), TaskPermit(permits)
    assert held.try_acquire()
    got: list[str] = []

    async def wait(name: str, permit: BatchPermit | TaskPermit) -> None:
        await permit.acquire()
        got.append(name)

    waits = [asyncio.ensure_future(wait("batch", batch))]
    await asyncio.sleep(1)
    waits.append(asyncio.ensure_future(wait("single", single)))
    await asyncio.sleep(1)
    assert not single.try_acquire()
    held.permits[0].release()
    await asyncio.sleep(1)
    assert got == []
    held.permits[1].release()
    await asyncio.sleep(1)
    assert got == ["batch"]
    batch.permits[2].release()
    await asyncio.gather(*waits)


async def test_a_batch_that_has_no_permit_yet_keeps_its_place() -> None:
    """However long it waits: only permits that it holds itself may block another batch."""
    permits = Permits(2, Clock())
    held, batch, single = permits_of(permits, 2), permits_of(permits, 2), TaskPermit(permits)
    assert held.try_acquire()
    got: list[str] = []

    async def wait(name: str, permit: BatchPermit | TaskPermit) -> None:
        await permit.acquire()
        got.append(name)
        permit.release()

    waits = [asyncio.ensure_future(wait("batch", batch))]
    await asyncio.sleep(1)
    waits.append(asyncio.ensure_future(wait("single", single)))
    await asyncio.sleep(LONGEST_COLLECTION + 60)
    held.release()
    await asyncio.gather(*waits)
    assert got == ["batch", "single"]


async def test_a_batch_is_not_sent_without_a_permit_that_failed() -> None:
    """The error reaches its caller, and the others are given back."""

    class Lost(TaskPermit):
        async def acquire(self, waits: Waits | None = None) -> None:
            raise ConnectionError("the limiter is gone")

    permits = Permits(2, Clock())
    with pytest.raises(ConnectionError):
        await BatchPermit([TaskPermit(permits), Lost(permits)], Clock()).acquire()
    assert permits_of(permits, 2).try_acquire()


def test_a_loop_that_was_closed_keeps_no_permit() -> None:
    """A task waited in it for a permit, and was not cancelled; the next one that waits gets it."""
    permits = Permits(1, Clock())
    held = TaskPermit(permits)
    assert held.try_acquire()
    closed = asyncio.new_event_loop()
    forgotten = TaskPermit(permits).acquire()
    closed.call_soon(forgotten.send, None)
    closed.run_until_complete(asyncio.sleep(0))
    closed.close()

    async def release() -> None:
        waiting = asyncio.ensure_future(TaskPermit(permits).acquire())
        await asyncio.sleep(0)
        held.release()
        await asyncio.wait_for(waiting, 60)

    asyncio.run(release())
    forgotten.close()
    assert not TaskPermit(permits).try_acquire()


async def test_a_permit_that_comes_in_the_moment_of_a_cancellation_is_free() -> None:
    """It was on its way to a waiter that has given up."""
    permits = Permits(1, Clock())
    held = TaskPermit(permits)
    assert held.try_acquire()
    waiting = asyncio.ensure_future(TaskPermit(permits).acquire())
    await asyncio.sleep(1)
    held.release()
    waiting.cancel()
    await asyncio.sleep(1)
    assert waiting.cancelled()
    assert TaskPermit(permits).try_acquire()


async def test_a_permit_that_has_expired_is_free() -> None:
    """No one waits for it."""
    clock = Clock()
    permits = Permits(1, clock)
    held = TaskPermit(permits)
    assert held.try_acquire()
    held.expire_at(clock.now() + 60)
    await asyncio.sleep(59)
    assert not TaskPermit(permits).try_acquire()
    await asyncio.sleep(2)
    assert TaskPermit(permits).try_acquire()


async def test_queue_for_permits_needs_one_timer() -> None:
    """However many tasks came and went while others waited, the loop checks the expiries with one timer."""
    limiter, loop = MemoryLimiter(max_in_flight=1), asyncio.get_running_loop()
    held = limiter.permit()
    assert held is not None
    assert held.try_acquire()
    held.expire_at(loop.time() + 2700)

    async def run(permit: Permit) -> None:
        await permit.acquire()
        permit.expire_at(loop.time() + 2700)
        await asyncio.sleep(1)
        permit.release()

    waiting = [
        asyncio.ensure_future(run(permit)) for permit in (limiter.permit() for _ in range(50)) if permit
    ]
    await asyncio.sleep(1)
    held.release()
    await asyncio.wait(waiting[:40])
    timers: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
    assert sum(not timer.cancelled() for timer in timers) <= 3
    await asyncio.wait(waiting)
