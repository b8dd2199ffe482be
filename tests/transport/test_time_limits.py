"""Time limits of attempts, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicapi_async._transport.time_limits import MOST_LINES, TimeLimits
from musicapi_async.testing.virtual import VirtualTimeLoop

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


async def block(limits: TimeLimits, seconds: float, takes: float) -> tuple[str, float]:
    begun = now()
    try:
        with limits.within(seconds):
            await asyncio.sleep(takes)
    except TimeoutError:
        return "late", now() - begun
    return "in time", now() - begun


@settings(deadline=None, max_examples=60)
@given(
    blocks=st.lists(
        st.tuples(st.sampled_from([1.0, 2.0, 30.0]), st.floats(0, 60), st.floats(0, 60)), max_size=30
    )
)
def test_each_block_ends_in_time_or_at_its_limit(blocks: list[tuple[float, float, float]]) -> None:
    """Whatever runs beside it: the block finishes, or TimeoutError comes exactly when the limit passes."""

    async def main() -> None:
        limits = TimeLimits()

        async def one(limit: float, at: float, takes: float) -> None:
            await asyncio.sleep(at)
            outcome, took = await block(limits, limit, takes)
            assert outcome == ("in time" if takes < limit else "late") or takes == limit
            assert took == pytest.approx(min(limit, takes), abs=1e-6)

        await asyncio.gather(*(one(*given) for given in blocks))
        limits.close()

    run(main())


def test_a_cancel_from_outside_stays_a_cancel() -> None:
    """Who cancels the task gets a cancelled task, also in the very moment in which the limit passes."""

    async def main() -> None:
        for at in (0.5, 1.0):
            limits = TimeLimits()
            task = asyncio.create_task(block(limits, 1.0, 5.0))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_at(now() + at, task.cancel)
            await asyncio.wait([task])
            assert task.cancelled()
            limits.close()

    run(main())


def test_a_limit_inside_another_is_told_apart() -> None:
    """The inner time-out is caught inside; the outer block goes on."""

    async def main() -> list[str]:
        limits = TimeLimits()
        told: list[str] = []
        with limits.within(5.0):
            told.append((await block(limits, 1.0, 3.0))[0])
            await asyncio.sleep(1.0)
            told.append("outer")
        with pytest.raises(TimeoutError), limits.within(2.0):
            await block(limits, 30.0, 10.0)
        limits.close()
        return told

    assert run(main()) == ["late", "outer"]


def test_an_error_of_the_block_goes_through() -> None:
    """A limit that did not pass changes no exception."""

    async def main() -> None:
        limits = TimeLimits()
        with pytest.raises(KeyError), limits.within(1.0):
            raise KeyError("own")
        limits.close()

    run(main())


def test_many_different_limits_do_not_pile_up() -> None:
    """Lines that watch nothing are dropped, so that odd time-outs cost no memory."""

    async def main() -> None:
        limits = TimeLimits()
        for number in range(10 * MOST_LINES):
            assert (await block(limits, 1.0 + number, 0.0))[0] == "in time"
        assert len(limits._lines) <= MOST_LINES  # pyright: ignore[reportPrivateUsage]
        limits.close()

    run(main())


def test_a_limit_is_told_in_seconds_of_another_clock() -> None:
    """What is asked for is turned into real seconds by the rule that was given."""

    async def main() -> None:
        limits = TimeLimits(lambda seconds: seconds / 10)
        assert await block(limits, 10.0, 5.0) == ("late", 1.0)
        assert await block(limits, 10.0, 0.5) == ("in time", 0.5)
        limits.close()

    run(main())
