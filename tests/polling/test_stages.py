"""The stages that polls and webhooks show, as the schedule is given them. In virtual time."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from scripted import AgingClock, Every, ScriptedClient, send_webhook

from musicapi_async._wire.poll_response import judge_poll
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.response import read_response
from musicapi_async._wire.retry import drawing
from musicapi_async.api.operation import Polled
from musicapi_async.api.task import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.errors import TaskTimeoutError
from musicapi_async.polling.kind_model import PolledStage, Stage
from musicapi_async.polling.waiter import TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


STREAM = "https://audiopipe.suno.ai/?item_id=c1"
FILE = "https://cdn1.suno.ai/c1.mp3"


def songs(*clips: tuple[str, str | None]) -> dict[str, Any]:
    data = [{"clip_id": f"c{n}", "state": state, "audio_url": url} for n, (state, url) in enumerate(clips)]
    return {"code": 200, "data": data}


NOT_READY: dict[str, Any] = {"type": "not_ready"}
RUNNING = songs(("running", None), ("pending", None))
STREAMING = songs(("running", None), ("running", STREAM))
FIRST = songs(("succeeded", FILE), ("running", STREAM))
DONE = songs(("succeeded", FILE), ("succeeded", FILE))


class Recording(Every):
    """A schedule that polls every `interval` seconds and records what it is given."""

    def __init__(self, interval: float) -> None:
        super().__init__(interval)
        self.stages: list[Stage | None] = []
        self.begins: list[int | None] = []
        self.observations: list[tuple[bool, int, tuple[tuple[int, Stage], ...]]] = []

    def next(self, kind: str, age: float, stage: Stage | None) -> float:
        """Return the age of the next poll."""
        self.stages.append(stage)
        return super().next(kind, age, stage)

    def observed(
        self, kind: str, finished: bool, last_age: float | None, age: float, latest: PolledStage | None
    ) -> None:
        """Record it."""
        assert latest is None or last_age == latest.age or (finished and last_age == age)
        self.begins.append(None if last_age is None else round(last_age))
        polls: list[tuple[int, Stage]] = []
        while latest is not None:
            polls.insert(0, (round(latest.age), latest.stage))
            latest = latest.before
        self.observations.append((finished, round(age), tuple(polls)))


async def follow(
    *answers: tuple[int, Any], webhooks: tuple[tuple[float, Any], ...] = (), interval: float = 10
) -> Recording:
    """Wait for a song whose polls give these answers, while these webhooks come at their times."""
    schedule, remaining = Recording(interval), list(reversed(answers))

    class Client(ScriptedClient):
        async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
            status, body = remaining.pop()
            return judge_poll(read_response(status, {}, msgspec.json.encode(body)), ref=ref, polled=polled)

    clock = Clock()
    waiter = TaskWaiter(Client(), schedule, clock, drawing(random.Random(1)))
    for at, body in webhooks:
        asyncio.get_running_loop().call_later(at, send_webhook, waiter, "t", {**body, "task_id": "t"})
    await waiter.wait(TaskRef("sonic", "t", "create_music", clock.time(), own=True), "all", 900)
    await waiter.aclose()
    return schedule


async def test_each_poll_shows_a_stage() -> None:
    """Not ready, running, a stream, the first clip; a poll that shows nothing of the task shows no stage."""
    schedule = await follow(
        (202, NOT_READY), (200, RUNNING), (429, {}), (200, STREAMING), (200, FIRST), (200, DONE)
    )
    assert schedule.stages == ["pending", "running", None, "stream", "first"]


async def test_task_remembers_polls_for_a_minute() -> None:
    """Of one stage those half a minute apart, and the latest."""
    schedule = await follow(*[(202, NOT_READY)] * 8, (200, RUNNING), (200, RUNNING), (200, DONE))
    _, _, remembered = schedule.observations[7]
    assert remembered == ((40, "pending"), (70, "pending")), "and the one at 10 s no more"
    finished, age, remembered = schedule.observations[-1]
    assert (finished, age) == (True, 110)
    assert remembered == ((70, "pending"), (90, "running"), (100, "running"))


async def test_task_that_goes_back_and_forth_remembers_few_polls() -> None:
    """Of each stage those half a minute apart, also where every poll shows another one than the last."""
    schedule = await follow(*[(200, RUNNING), (200, STREAMING)] * 1500, (200, DONE), interval=0.04)
    assert max(len(remembered) for _, _, remembered in schedule.observations) < 10


async def test_webhook_shows_a_stage() -> None:
    """One about the stream is as good as a poll; the end that a webhook brings is known to the second."""
    schedule = await follow(
        (202, NOT_READY),
        (200, RUNNING),
        webhooks=((15, songs(("running", STREAM))), (23, DONE)),
    )
    assert schedule.observations == [
        (False, 10, ()),
        (False, 15, ((10, "pending"),)),
        (False, 23, ((10, "pending"), (15, "stream"))),
        (True, 23, ((10, "pending"), (15, "stream"))),
    ]


async def test_webhook_before_the_wait_teaches_nothing() -> None:
    """The task did not take until the wait that found it done, nor until a second wait."""
    schedule, clock = Recording(10), Clock()
    waiter = TaskWaiter(ScriptedClient(), schedule, clock, drawing(random.Random(1)))
    ref = TaskRef("sonic", "t", "create_music", clock.time(), own=True)
    waiter.expect(ref)
    await asyncio.sleep(75)
    send_webhook(waiter, "t", {**DONE, "task_id": "t"})
    for _ in range(2):
        await asyncio.sleep(3600)
        await waiter.wait(ref, "all", 900)
    await waiter.aclose()
    assert schedule.observations == []


async def test_each_time_of_a_task_teaches_once() -> None:
    """A second wait goes on where the first one left, and a third one, after the end, teaches nothing."""
    schedule, clock = Recording(10), AgingClock()
    answers = [(202, NOT_READY), (200, DONE), (200, DONE)]

    class Client(ScriptedClient):
        async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
            status, body = answers.pop(0)
            return judge_poll(read_response(status, {}, msgspec.json.encode(body)), ref=ref, polled=polled)

    waiter = TaskWaiter(Client(), schedule, clock, drawing(random.Random(1)))
    ref = TaskRef("sonic", "t", "create_music", clock.time(), own=True)
    with pytest.raises(TaskTimeoutError):
        await waiter.wait(ref, "all", 15)
    for _ in range(2):
        await waiter.wait(ref, "all", 900)
    await waiter.aclose()
    assert not answers
    assert schedule.begins == [None, 10]
    assert [(finished, age) for finished, age, _ in schedule.observations] == [(False, 10), (True, 20)]


async def test_early_webhook_is_no_poll() -> None:
    """The task had not necessarily reached the age at which the wait began, only that of the webhook."""
    schedule, clock = Recording(10), AgingClock()

    class Client(ScriptedClient):
        async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
            return judge_poll(read_response(200, {}, msgspec.json.encode(DONE)), ref=ref, polled=polled)

    waiter = TaskWaiter(Client(), schedule, clock, drawing(random.Random(1)))
    ref = TaskRef("sonic", "t", "create_music", clock.time(), own=True)
    await asyncio.sleep(5)
    send_webhook(waiter, "t", {**RUNNING, "task_id": "t"}, own=False)
    await asyncio.sleep(100)
    await waiter.wait(ref, "all", 900)
    await waiter.aclose()
    ((finished, age, remembered),) = schedule.observations
    assert (finished, remembered, schedule.begins) == (True, (), [None])
    assert age >= 105


async def test_overtaken_poll_shows_no_earlier_stage() -> None:
    """A poll that shows less than a webhook before it is an old answer."""
    schedule = await follow(
        (200, RUNNING),
        (202, NOT_READY),
        webhooks=((15, songs(("running", STREAM))), (320, DONE)),
    )
    assert schedule.observations[-1][2][-1][1] == "stream"


async def test_in_a_burst_a_sample_of_each_kind_teaches_the_stages() -> None:
    """Of 2,000 tasks that are polled before any has ended, the first hundred and about a tenth of the rest;
    tasks of another kind that came before take no one's place."""
    remembering: dict[str, int] = {}

    class Counting(Every):
        def observed(
            self, kind: str, finished: bool, last_age: float | None, age: float, latest: PolledStage | None
        ) -> None:
            """Count the tasks that remember a poll when they are done."""
            assert latest is None or latest.age == last_age
            if finished and latest is not None:
                remembering[kind] = remembering.get(kind, 0) + 1

    class Client(ScriptedClient):
        async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
            body = DONE if ref.task_id in polled_before else RUNNING
            polled_before.add(ref.task_id)
            return judge_poll(read_response(200, {}, msgspec.json.encode(body)), ref=ref, polled=polled)

    clock, polled_before = Clock(), set[str]()
    waiter = TaskWaiter(Client(), Counting(10), clock, drawing(random.Random(1)))
    for kind in ("cover_music", "create_music"):
        refs = [TaskRef("sonic", f"{kind} {n}", kind, clock.time(), own=True) for n in range(2000)]
        await asyncio.gather(*(waiter.wait(ref, "all", 900) for ref in refs))
    assert remembering.keys() == {"sonic/cover_music", "sonic/create_music"}
    assert all(100 + 140 < count < 100 + 240 for count in remembering.values())
    await waiter.aclose()
