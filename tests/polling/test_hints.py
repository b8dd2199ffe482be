"""What a service says of the end of a task moves the next look, in virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import pairwise
from typing import Any

import pytest

from musicapi_async._wire import response
from musicapi_async._wire.looks import Seen
from musicapi_async._wire.polls import read_poll
from musicapi_async.api.families import polled_as
from musicapi_async.api.handle import TaskRef
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import TaskUpdate
from musicapi_async.clock import Clock
from musicapi_async.polling.schedule import Fixed, PollPolicy, hinted
from musicapi_async.polling.waiter import TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def polled_of(ref: TaskRef) -> Polled:
    polled = polled_as(ref.family, ref.kind)
    assert polled is not None
    return polled


async def looks_at(
    policy: PollPolicy, family: str, body: Any, headers: dict[str, str], done_after: float, done: Any
) -> list[float]:
    """The ages at which a task is looked at that says `body(age)` with `headers` until it is done."""
    clock = Clock()
    begun = clock.now()
    ages: list[float] = []

    async def look(ref: TaskRef, polled: Polled) -> Seen:
        await asyncio.sleep(0)
        ages.append(round(clock.now() - begun, 1))
        raw = json.dumps(done if ages[-1] >= done_after else body(ages[-1])).encode()
        return read_poll(response.read_response(200, headers, raw), ref=ref, polled=polled)

    waiter = TaskWaiter(look, policy, clock, random.Random(1), polled_of)
    await waiter.wait(TaskRef(family, "t", submitted_at=clock.time(), own=True), "all", 900)
    await waiter.aclose()
    return ages


SONG = {
    "code": 200,
    "data": [{"clip_id": "c", "state": "succeeded", "audio_url": "https://cdn.example/c.mp3"}],
}
PIECE = {"status": "succeeded", "progress": 100, "audio_url": "https://cdn.example/c.wav"}


def running(_age: float) -> Any:
    return {"code": 200, "data": [{"clip_id": "c", "state": "running"}]}


@pytest.mark.parametrize(("asked", "gap"), [(40, 40), (20, 20), (1, 15), (3600, 60)])
async def test_retry_after_moves_the_next_look(asked: int, gap: float) -> None:
    """Earlier or later than the policy would look, not before the floor of the family, not beyond a minute."""
    ages = await looks_at(Fixed(30), "sonic", running, {"retry-after": str(asked)}, 100, SONG)
    assert ages[0] == 30
    assert [later - age for age, later in pairwise(ages)] == pytest.approx([gap] * (len(ages) - 1), abs=0.2)


async def test_a_shorter_interval_of_the_user_stays_the_floor() -> None:
    """Who asked for a look every 5 s gets a hint of 8 s obeyed, and one of 1 s as 5 s."""
    for asked, gap in ((8, 8), (1, 5)):
        ages = await looks_at(Fixed(5), "sonic", running, {"retry-after": str(asked)}, 40, SONG)
        assert ages[1] - ages[0] == pytest.approx(gap, abs=0.2)


async def test_progress_foretells_the_end() -> None:
    """A piece of 70 s that says how far it is at 20 s is looked at once more: when it is done."""
    ages = await looks_at(
        Fixed(20),
        "nuro",
        lambda age: {"status": "running", "progress": round(100 * age / 70, 1)},
        {},
        70,
        PIECE,
    )
    assert ages == pytest.approx([20, 71.4], abs=0.3)


async def test_a_progress_that_stands_still_is_looked_at_at_the_floor() -> None:
    """99 % for minutes: as often as the family allows, not more."""
    floor = polled_of(TaskRef("nuro", "t")).interval
    ages = await looks_at(
        Fixed(30), "nuro", lambda _age: {"status": "running", "progress": 99}, {}, 150, PIECE
    )
    assert ages[2] - ages[1] == pytest.approx(floor, abs=0.2)


@pytest.mark.parametrize("progress", [None, 0, 5, -1, 101, "nan", "soon", {}])
def test_a_progress_that_tells_nothing_is_no_hint(progress: Any) -> None:
    """Missing, early or odd values leave the next look to the policy."""
    assert hinted(TaskUpdate("running", raw={"progress": progress}), 0.0, 30.0) is None
    assert hinted(None, 10.0, 30.0) is None
