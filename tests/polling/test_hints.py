"""Hints of the service about the end of a task move the next poll, in virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import pairwise
from typing import Any

import pytest
from scripted import Every, ScriptedClient

from musicapi_async._wire import response
from musicapi_async._wire.poll_response import judge_poll
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.response import read_response
from musicapi_async._wire.retry import drawing
from musicapi_async.api.families import polled_of
from musicapi_async.api.operation import Polled
from musicapi_async.api.task import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.polling.schedule import PollSchedule, expected_end
from musicapi_async.polling.waiter import TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


async def polled_ages(
    schedule: PollSchedule, family: str, body: Any, headers: dict[str, str], done_after: float, done: Any
) -> list[float]:
    """Return the ages at which a task is polled that answers `body(age)` with `headers` until it is done."""
    clock = Clock()
    begun = clock.now()
    ages: list[float] = []

    class Client(ScriptedClient):
        async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
            await asyncio.sleep(0)
            ages.append(round(clock.now() - begun, 1))
            raw = json.dumps(done if ages[-1] >= done_after else body(ages[-1])).encode()
            return judge_poll(response.read_response(200, headers, raw), ref=ref, polled=polled)

    waiter = TaskWaiter(Client(), schedule, clock, drawing(random.Random(1)))
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


@pytest.mark.parametrize(("seconds", "gap"), [(40, 40), (20, 20), (1, 15), (3600, 60)])
async def test_retry_after_moves_the_next_poll(seconds: int, gap: float) -> None:
    """Earlier or later than the schedule would poll, not before the floor of the family, not beyond a minute."""
    ages = await polled_ages(Every(30), "sonic", running, {"retry-after": str(seconds)}, 100, SONG)
    assert ages[0] == 30
    assert [later - age for age, later in pairwise(ages)] == pytest.approx([gap] * (len(ages) - 1), abs=0.2)


async def test_shorter_interval_of_the_user_is_the_floor() -> None:
    """With a poll every 5 s a hint of 8 s is obeyed, and one of 1 s gives 5 s."""
    for seconds, gap in ((8, 8), (1, 5)):
        ages = await polled_ages(Every(5), "sonic", running, {"retry-after": str(seconds)}, 40, SONG)
        assert ages[1] - ages[0] == pytest.approx(gap, abs=0.2)


async def test_progress_predicts_the_end() -> None:
    """A piece of 70 s that says how far it is at 20 s is polled once more: when it is done."""
    ages = await polled_ages(
        Every(20),
        "nuro",
        lambda age: {"status": "running", "progress": round(100 * age / 70, 1)},
        {},
        70,
        PIECE,
    )
    assert ages == pytest.approx([20, 71.4], abs=0.3)


async def test_progress_without_change_is_polled_at_the_floor() -> None:
    """99 % for minutes: as often as the family allows, not more."""
    floor = polled_of(TaskRef("nuro", "t")).interval
    ages = await polled_ages(
        Every(30), "nuro", lambda _age: {"status": "running", "progress": 99}, {}, 150, PIECE
    )
    assert ages[2] - ages[1] == pytest.approx(floor, abs=0.2)


@pytest.mark.parametrize("progress", [None, 0, 5, -1, 101, "nan", "soon", {}])
def test_odd_progress_is_no_hint(progress: Any) -> None:
    """Missing, early or odd values leave the next poll to the schedule."""
    raw = json.dumps({"status": "running", "progress": progress}).encode()
    ref = TaskRef("nuro", "t")
    result = judge_poll(read_response(200, {}, raw), ref=ref, polled=polled_of(ref))
    assert expected_end(result.update, 0.0, 30.0) is None
    assert expected_end(None, 10.0, 30.0) is None
