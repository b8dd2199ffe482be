"""The scheduler with webhooks on, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from musicapi_async._wire.looks import Seen
from musicapi_async._wire.polls import read_poll
from musicapi_async._wire.response import read_response
from musicapi_async._wire.retry import drawing
from musicapi_async.api.families import polled_as
from musicapi_async.api.handle import TaskRef
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import TaskUpdate
from musicapi_async.clock import Clock
from musicapi_async.errors import TaskTimeoutError
from musicapi_async.polling.deliveries import GRACE, LOOKS, REMEMBERED, SHARED
from musicapi_async.polling.schedule import Learned
from musicapi_async.polling.waiter import TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop

STREAM = "https://audiopipe.suno.ai/?item_id=c1"
FILE = "https://cdn1.suno.ai/c1.mp3"
SLOW = 900 / LOOKS


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def polled_of(ref: TaskRef) -> Polled:
    polled = polled_as(ref.family, ref.kind)
    assert polled is not None
    return polled


def body(state: str, task_id: str = "t") -> dict[str, Any]:
    url = FILE if state == "succeeded" else STREAM
    clips = [{"clip_id": "c1", "state": state, "audio_url": url}]
    return {"code": 200, "data": clips, "task_id": task_id}


FAILED = {"type": "failed", "message": "no", "refund_processed": True}


class Service:
    """Tasks of given durations that tell by webhook, unless `lost`; counts the looks."""

    def __init__(self, *, lost: bool = False, seed: int = 1, heard: bool = True) -> None:
        self.clock = Clock()
        self.lost = lost
        self.looks: dict[str, int] = {}
        self.ends: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        draw = drawing(random.Random(seed))
        policy = Learned(draw=draw)
        self.ended: list[str] = []
        ended: Callable[[Any, Any], None] = lambda ref, update: self.ended.append(ref.task_id)  # noqa: E731
        self.waiter = TaskWaiter(self.look, policy, self.clock, draw, polled_of, ended=ended)
        if heard:  # the first webhook shows that they arrive
            self.waiter.deliver("sonic", "first", body("succeeded"))
            self.ended.clear()

    def submit(self, task_id: str, seconds: float, *, hooked: bool = True) -> TaskRef:
        self.looks[task_id] = 0
        self.ends[task_id] = self.clock.now() + seconds
        if hooked:
            asyncio.get_running_loop().call_later(min(20, seconds / 2), self.tell, task_id, "running")
            asyncio.get_running_loop().call_later(seconds + 0.5, self.tell, task_id, "succeeded")
            self.waiter.expect("sonic", task_id)
        return TaskRef("sonic", task_id, "create_music", self.clock.time(), own=True)

    def tell(self, task_id: str, state: str) -> None:
        if not self.lost:
            self.waiter.deliver("sonic", task_id, body(state, task_id))

    async def look(self, ref: TaskRef, polled: Polled) -> Seen:
        self.looks[ref.task_id] += 1
        state = "succeeded" if self.clock.now() >= self.ends[ref.task_id] else "running"
        raw = msgspec.json.encode(body(state))
        return read_poll(read_response(200, {}, raw), ref=ref, polled=polled)

    async def wait(self, ref: TaskRef) -> TaskUpdate:
        update = await self.waiter.wait(ref, "all", None)
        self.seen[ref.task_id] = self.clock.now()
        return update

    async def run(self, durations: list[float], every: float = 3.0) -> list[float]:
        """Submit and wait for all; returns how late each was noticed."""
        waits: list[asyncio.Task[TaskUpdate]] = []
        for number, seconds in enumerate(durations):
            waits.append(asyncio.create_task(self.wait(self.submit(f"t{number}", seconds))))
            await asyncio.sleep(every)
        for update in await asyncio.gather(*waits):
            assert update.result is not None
        return [self.seen[task_id] - end for task_id, end in self.ends.items()]


def durations(count: int, seed: int = 5) -> list[float]:
    rng = random.Random(seed)
    drawn = [min(rng.lognormvariate(4.32, 0.5), 850) for _ in range(count)]
    drawn[::50] = [rng.uniform(540, 660) for _ in drawn[::50]]
    return drawn


async def test_with_webhooks_a_task_costs_at_most_two_polls_and_is_noticed_at_once() -> None:
    """A thousand songs, 2 % of them stragglers of 9 to 11 minutes."""
    service = Service()
    late = await service.run(durations(1000))
    assert max(service.looks.values()) <= 2
    assert sum(service.looks.values()) < 100
    assert max(late) <= 1
    assert service.waiter.watched == 0


async def test_until_the_first_webhook_has_come_tasks_are_polled_as_usual() -> None:
    """An address that nobody can reach delays no result; the first delivery makes polls a safety net."""
    service = Service(lost=True, heard=False)
    late = await service.run([100.0] * 5)
    assert max(late) <= 30
    assert min(service.looks.values()) >= 1
    service = Service(heard=False)
    await service.run([100.0] * 20, every=30)
    assert service.looks["t0"] <= 2
    assert sum(service.looks[f"t{n}"] for n in range(2, 20)) == 0


async def test_with_every_webhook_lost_nothing_is_later_than_the_slow_interval() -> None:
    """The first look that finds an end of which nobody told brings the usual polling back."""
    service = Service(lost=True)
    late = await service.run(durations(300))
    assert max(late) <= SLOW
    late_later = sorted(late[120:])
    assert late_later[len(late_later) // 2] < 20
    assert max(late_later) <= 70


async def test_polling_slows_down_again_with_the_next_webhook() -> None:
    """Lost for a while, then they come again: new tasks are not polled."""
    service = Service(lost=True)
    await service.run(durations(20))
    service.lost = False
    await service.run([60.0] * 3)
    service.looks.clear()
    service.ends.clear()
    await service.run([100.0] * 10)
    assert sum(service.looks.values()) == 0


async def test_a_webhook_for_another_process_brings_the_usual_polling_for_a_while() -> None:
    """Tasks that wait already and new ones are polled; a quarter of an hour later none is."""
    service = Service()
    waiting = asyncio.create_task(service.wait(service.submit("t", 200)))
    await asyncio.sleep(50)
    service.waiter.stray()
    await waiting
    assert service.looks["t"] >= 2
    await service.wait(service.submit("u", 100))
    assert service.looks["u"] >= 1
    await asyncio.sleep(SHARED)
    await service.wait(service.submit("v", 100))
    assert service.looks["v"] == 0
    assert service.waiter.knows("sonic", "v")  # its copies, and those that were overtaken, are no news
    assert not service.waiter.knows("sonic", "w")


async def test_a_webhook_for_a_task_that_was_resumed_here_is_for_this_process() -> None:
    """The look found its end, or the wait was given up, before the webhook came."""
    service = Service()
    service.submit("t", 10, hooked=False)
    service.submit("u", 900, hooked=False)
    await asyncio.sleep(20)
    await service.wait(TaskRef("sonic", "t", "create_music"))
    with pytest.raises(TaskTimeoutError):
        await service.waiter.wait(TaskRef("sonic", "u", "create_music"), "all", 5)
    assert service.waiter.knows("sonic", "t")
    assert service.waiter.knows("sonic", "u")


async def test_a_webhook_that_is_a_little_later_than_the_look_is_not_lost() -> None:
    """The look at 300 s finds a song whose webhook comes 10 s later: nobody starts to hurry."""
    service = Service()
    ref = service.submit("slow", SLOW - 1)
    other = asyncio.create_task(service.wait(service.submit("other", 600)))
    await asyncio.sleep(30)
    service.lost = True  # the look at 300 s comes first
    update = await service.wait(ref)
    assert update.result is not None
    assert service.looks["slow"] == 1
    await asyncio.sleep(GRACE / 3)
    service.lost = False
    service.tell("slow", "succeeded")
    await other
    assert service.looks["other"] <= 2


async def test_a_result_that_came_before_anybody_waited_answers_at_once() -> None:
    """The webhook is kept: a wait that starts later sends nothing, for clips, updates and many at once."""
    service = Service()
    refs = [service.submit(f"t{n}", 50) for n in range(3)]
    await asyncio.sleep(60)
    assert sorted(service.ended) == ["t0", "t1", "t2"]
    now = service.clock.now()
    assert (await service.waiter.wait(refs[0], "all", None)).result is not None
    updates = [update async for update in service.waiter.updates(refs[1], None)]
    assert [update.state for update in updates] == ["succeeded"]
    assert service.clock.now() == now
    assert sum(service.looks.values()) == 0


async def test_what_came_early_is_kept_within_bounds_and_never_goes_back() -> None:
    """The oldest are dropped; a stream that was overtaken does not cover the end."""
    service = Service()
    for number in range(REMEMBERED + 50):
        service.waiter.deliver("sonic", f"x{number}", body("succeeded"))
    service.waiter.deliver("sonic", f"x{REMEMBERED + 49}", body("running"))
    now = service.clock.now()
    late = TaskRef("sonic", f"x{REMEMBERED + 49}")
    assert (await service.waiter.wait(late, "all", None)).result is not None
    assert service.clock.now() == now
    service.looks["x0"], service.ends["x0"] = 0, 0.0
    assert (await service.wait(TaskRef("sonic", "x0"))).result is not None
    assert service.looks["x0"] == 1


async def test_a_stream_that_was_overtaken_by_a_finished_clip_is_passed_over() -> None:
    """A late `song.streaming` must not turn a finished clip back into a running one."""
    service = Service()
    ref = service.submit("t", 500, hooked=False)
    shown: list[str] = []

    async def watch() -> None:
        async for update in service.waiter.updates(ref, None):
            shown.extend(clip.state for clip in update.clips)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(1)
    two = [{"clip_id": "a", "state": "succeeded", "audio_url": FILE}, {"clip_id": "b", "state": "running"}]
    service.waiter.deliver("sonic", "t", {"data": two})
    await asyncio.sleep(1)
    service.waiter.deliver("sonic", "t", {"data": [{**clip, "state": "running"} for clip in two]})
    await asyncio.sleep(1)
    service.waiter.deliver("sonic", "t", body("succeeded"))
    await watching
    assert shown == ["succeeded", "running", "succeeded"]


async def test_a_failure_that_is_told_ends_the_wait_with_its_refund() -> None:
    """`song.failed` raises as a failed poll would, and once."""
    service = Service(lost=True)
    ref = service.submit("t", 100)
    waiting = asyncio.create_task(service.wait(ref))
    await asyncio.sleep(10)
    assert service.waiter.deliver("sonic", "t", FAILED)
    assert not service.waiter.deliver("sonic", "t", body("succeeded"))
    update = await waiting
    assert update.state == "failed"
    assert getattr(update.error, "refunded", None) is True
    assert service.ended == ["t"]


async def test_every_listener_is_shown_the_present_state_first() -> None:
    """Somebody who starts to watch in the middle sees at once what others have seen."""
    service = Service()
    ref = service.submit("t", 100)

    async def watch() -> list[str]:
        return [update.state async for update in service.waiter.updates(ref, None)]

    first = asyncio.create_task(watch())
    await asyncio.sleep(50)
    second = asyncio.create_task(watch())
    assert await first == ["pending", "running", "succeeded"]
    assert await second == ["running", "succeeded"]
    assert sum(service.looks.values()) == 0


async def test_a_resumed_task_whose_stream_was_told_waits_for_its_end_to_be_told() -> None:
    """Another process submitted it: one look at once, and none more after a webhook has come."""
    service = Service()
    own = service.submit("t", 200)
    resumed = TaskRef("sonic", "t", "create_music", own.submitted_at)
    other = Service()
    other.looks, other.ends = service.looks, service.ends
    waiting = asyncio.create_task(other.wait(resumed))
    await asyncio.sleep(10)
    other.waiter.deliver("sonic", "t", body("running"))
    await asyncio.sleep(185)
    assert service.looks["t"] == 1
    await asyncio.sleep(6)
    other.waiter.deliver("sonic", "t", body("succeeded"))
    assert (await waiting).result is not None
    assert service.looks["t"] == 1


async def test_closing_leaves_no_alarm_behind() -> None:
    """A doubt that is open when the client closes concludes nothing."""
    service = Service(lost=True)
    update = await service.wait(service.submit("t", 100))
    assert update.result is not None
    await service.waiter.aclose()
    await asyncio.sleep(2 * GRACE)
    assert service.waiter.watched == 0
