"""The permits of a batch: all or none, and no two batches wait for each other for ever."""

from __future__ import annotations

import asyncio

import pytest

from musicapi_async._transport.permits import LONGEST_COLLECTION, BatchPermit, Permits, TaskPermit
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
