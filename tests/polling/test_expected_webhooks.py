"""The waiter with webhooks, in virtual time."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from scripted import Every, ScriptedClient, send_webhook

from musicapi_async._wire.poll_response import judge_poll
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.response import read_response
from musicapi_async._wire.retry import drawing
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import TaskUpdate
from musicapi_async.api.task import TaskRef
from musicapi_async.clock import Clock
from musicapi_async.errors import TaskTimeoutError
from musicapi_async.polling.expected_webhooks import EARLY_RESULTS, LATE_WEBHOOK, SHARED_FOR
from musicapi_async.polling.schedule import SAFETY_POLLS, LearnedSchedule
from musicapi_async.polling.waiter import TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop

STREAM = "https://audiopipe.suno.ai/?item_id=c1"
FILE = "https://cdn1.suno.ai/c1.mp3"
SLOW = 900 / SAFETY_POLLS


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def body(state: str, task_id: str = "t") -> dict[str, Any]:
    url = FILE if state == "succeeded" else STREAM
    clips = [{"clip_id": "c1", "state": state, "audio_url": url}]
    return {"code": 200, "data": clips, "task_id": task_id}


FAILED = {"type": "failed", "message": "no", "refund_processed": True}


class Service(ScriptedClient):
    """Tasks of given durations that send webhooks, unless `lost`; counts the polls."""

    def __init__(self, *, lost: bool = False, seed: int = 1, arrived: bool = True) -> None:
        super().__init__()
        self.clock = Clock()
        self.lost = lost
        self.polls: dict[str, int] = {}
        self.ends: dict[str, float] = {}
        self.noticed: dict[str, float] = {}
        draw = drawing(random.Random(seed))
        self.waiter = TaskWaiter(self, LearnedSchedule(draw=draw), self.clock, draw)
        if arrived:  # the first webhook shows that they arrive
            send_webhook(self.waiter, "first", body("succeeded"))
            self.ended.clear()

    def submit(self, task_id: str, seconds: float, *, with_webhook: bool = True) -> TaskRef:
        self.polls[task_id] = 0
        self.ends[task_id] = self.clock.now() + seconds
        ref = TaskRef("sonic", task_id, "create_music", self.clock.time(), own=True)
        if with_webhook:
            asyncio.get_running_loop().call_later(min(20, seconds / 2), self.send_webhook, task_id, "running")
            asyncio.get_running_loop().call_later(seconds + 0.5, self.send_webhook, task_id, "succeeded")
            self.waiter.expect(ref)
        return ref

    def send_webhook(self, task_id: str, state: str) -> None:
        if not self.lost:
            send_webhook(self.waiter, task_id, body(state, task_id))

    async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
        self.polls[ref.task_id] += 1
        state = "succeeded" if self.clock.now() >= self.ends[ref.task_id] else "running"
        raw = msgspec.json.encode(body(state))
        return judge_poll(read_response(200, {}, raw), ref=ref, polled=polled)

    async def wait(self, ref: TaskRef) -> TaskUpdate:
        update = await self.waiter.wait(ref, "all", None)
        self.noticed[ref.task_id] = self.clock.now()
        return update

    async def run(self, durations: list[float], every: float = 3.0) -> list[float]:
        """Submit and wait for all; return how late each was noticed."""
        waits: list[asyncio.Task[TaskUpdate]] = []
        for number, seconds in enumerate(durations):
            waits.append(asyncio.create_task(self.wait(self.submit(f"t{number}", seconds))))
            await asyncio.sleep(every)
        for update in await asyncio.gather(*waits):
            assert update.result is not None
        return [self.noticed[task_id] - end for task_id, end in self.ends.items()]


def durations(count: int, seed: int = 5) -> list[float]:
    rng = random.Random(seed)
    drawn = [min(rng.lognormvariate(4.32, 0.5), 850) for _ in range(count)]
    drawn[::50] = [rng.uniform(540, 660) for _ in drawn[::50]]
    return drawn


async def test_webhooks_make_polls_needless() -> None:
    """A thousand songs, 2 % of them stragglers of 9 to 11 minutes: at most two polls each, noticed at once."""
    service = Service()
    late = await service.run(durations(1000))
    assert max(service.polls.values()) <= 2
    assert sum(service.polls.values()) < 100
    assert max(late) <= 1
    assert service.waiter.watched == 0


async def test_tasks_are_polled_as_usual_until_the_first_webhook() -> None:
    """A wrong address delays no result; the first webhook makes polls a safety net."""
    service = Service(lost=True, arrived=False)
    late = await service.run([100.0] * 5)
    assert max(late) <= 30
    assert min(service.polls.values()) >= 1
    service = Service(arrived=False)
    await service.run([100.0] * 20, every=30)
    assert service.polls["t0"] <= 2
    assert sum(service.polls[f"t{n}"] for n in range(2, 20)) == 0


async def test_lost_webhooks_delay_by_the_slow_interval_at_most() -> None:
    """The first poll that finds an end without a webhook brings the usual polling back."""
    service = Service(lost=True)
    late = await service.run(durations(300))
    assert max(late) <= SLOW
    late_later = sorted(late[120:])
    assert late_later[len(late_later) // 2] < 20
    assert max(late_later) <= 70


async def test_next_webhook_makes_polls_few_again() -> None:
    """Lost for a while, then they come again: new tasks are not polled."""
    service = Service(lost=True)
    await service.run(durations(20))
    service.lost = False
    await service.run([60.0] * 3)
    service.polls.clear()
    service.ends.clear()
    await service.run([100.0] * 10)
    assert sum(service.polls.values()) == 0


async def test_webhook_for_another_process_brings_the_usual_polling() -> None:
    """Tasks that wait already and new ones are polled; a quarter of an hour later none is."""
    service = Service()
    waiting = asyncio.create_task(service.wait(service.submit("t", 200)))
    await asyncio.sleep(50)
    send_webhook(service.waiter, "elsewhere", body("running", "elsewhere"), own=False)
    await waiting
    assert service.polls["t"] >= 2
    await service.wait(service.submit("u", 100))
    assert service.polls["u"] >= 1
    await asyncio.sleep(SHARED_FOR)
    await service.wait(service.submit("v", 100))
    assert service.polls["v"] == 0
    send_webhook(service.waiter, "v", body("succeeded", "v"), own=False)  # a copy is not for another process
    await service.wait(service.submit("w", 100))
    assert service.polls["w"] == 0


async def test_webhook_for_a_resumed_task_is_for_this_process() -> None:
    """A poll found its end, or the wait timed out, before the webhook came."""
    service = Service()
    service.submit("t", 10, with_webhook=False)
    service.submit("u", 900, with_webhook=False)
    await asyncio.sleep(20)
    await service.wait(TaskRef("sonic", "t", "create_music"))
    with pytest.raises(TaskTimeoutError):
        await service.waiter.wait(TaskRef("sonic", "u", "create_music"), "all", 5)
    for task_id in ("t", "u"):
        send_webhook(service.waiter, task_id, body("running", task_id), own=False)
    await service.wait(service.submit("v", 100))
    assert service.polls["v"] == 0


async def test_webhook_a_little_later_than_the_poll_is_not_lost() -> None:
    """The poll at 300 s finds a song whose webhook comes 10 s later: other tasks are polled no more often."""
    service = Service()
    ref = service.submit("slow", SLOW - 1)
    other = asyncio.create_task(service.wait(service.submit("other", 600)))
    await asyncio.sleep(30)
    service.lost = True  # the poll at 300 s comes first
    update = await service.wait(ref)
    assert update.result is not None
    assert service.polls["slow"] == 1
    await asyncio.sleep(LATE_WEBHOOK / 3)
    service.lost = False
    service.send_webhook("slow", "succeeded")
    await other
    assert service.polls["other"] <= 2


async def test_webhook_before_the_wait_answers_at_once() -> None:
    """Its body is stored: a wait or an iteration that starts later sends nothing."""
    service = Service()
    refs = [service.submit(f"t{n}", 50) for n in range(3)]
    await asyncio.sleep(60)
    assert sorted(service.ended) == ["t0", "t1", "t2"]
    now = service.clock.now()
    assert (await service.waiter.wait(refs[0], "all", None)).result is not None
    updates = [update async for update in service.waiter.updates(refs[1], None)]
    assert [update.state for update in updates] == ["succeeded"]
    assert service.clock.now() == now
    assert sum(service.polls.values()) == 0


async def test_early_bodies_are_bounded_and_never_go_back() -> None:
    """The oldest are dropped; a late body about the stream does not replace the end."""
    service = Service()
    for number in range(EARLY_RESULTS + 50):
        send_webhook(service.waiter, f"x{number}", body("succeeded"))
    send_webhook(service.waiter, f"x{EARLY_RESULTS + 49}", body("running"))
    now = service.clock.now()
    late = TaskRef("sonic", f"x{EARLY_RESULTS + 49}")
    assert (await service.waiter.wait(late, "all", None)).result is not None
    assert service.clock.now() == now
    service.polls["x0"], service.ends["x0"] = 0, 0.0
    assert (await service.wait(TaskRef("sonic", "x0"))).result is not None
    assert service.polls["x0"] == 1


async def test_overtaken_webhook_takes_no_clip_back() -> None:
    """A late `song.streaming` must not turn a finished clip back into a running one."""
    service = Service()
    ref = service.submit("t", 500, with_webhook=False)
    states: list[str] = []

    async def watch() -> None:
        async for update in service.waiter.updates(ref, None):
            states.extend(clip.state for clip in update.clips)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(1)
    two = [{"clip_id": "a", "state": "succeeded", "audio_url": FILE}, {"clip_id": "b", "state": "running"}]
    send_webhook(service.waiter, "t", {"data": two})
    await asyncio.sleep(1)
    send_webhook(service.waiter, "t", {"data": [{**clip, "state": "running"} for clip in two]})
    await asyncio.sleep(1)
    send_webhook(service.waiter, "t", body("succeeded"))
    await watching
    assert states == ["succeeded", "running", "succeeded"]


class SlowPolls(ScriptedClient):
    """Polls that take ten seconds, and give these bodies one after the other."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        super().__init__()
        self.bodies = iter(bodies)
        self.sent = 0

    async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
        self.sent += 1
        raw = msgspec.json.encode(next(self.bodies))
        await asyncio.sleep(10)
        return judge_poll(read_response(200, {}, raw), ref=ref, polled=polled)


NOT_READY = {"type": "not_ready"}
NO_STREAM = {"code": 200, "data": [{"clip_id": "c1", "state": "running", "audio_url": None}]}


@pytest.mark.parametrize("overtaken", [NOT_READY, NO_STREAM])
async def test_overtaken_poll_takes_no_update_back(overtaken: dict[str, Any]) -> None:
    """A webhook brings the stream while a poll without it is under way: the poll changes nothing."""
    client = SlowPolls(overtaken, body("running"), body("succeeded"))
    clock = Clock()
    waiter = TaskWaiter(client, Every(30), clock, drawing(random.Random(1)))
    ref = TaskRef("sonic", "t", "create_music", clock.time(), own=True)
    on_handle: list[str] = []
    wait = asyncio.create_task(waiter.wait(ref, "all", None, lambda update: on_handle.append(update.state)))
    states: list[str] = []

    async def watch() -> None:
        async for update in waiter.updates(ref, None):
            states.append(update.state)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    while not client.sent:  # noqa: ASYNC110 - until the first poll is under way
        await asyncio.sleep(1)
    send_webhook(waiter, "t", body("running"))
    await asyncio.sleep(20)
    assert (client.sent, states, on_handle) == (1, ["pending", "running"], ["running"])
    assert (await wait).result is not None
    await watching
    assert states == ["pending", "running", "succeeded"]
    assert on_handle == ["running", "running", "succeeded"]
    assert client.ended == ["t"]
    await waiter.aclose()


async def test_failed_webhook_ends_the_wait_with_its_refund() -> None:
    """`song.failed` raises as a failed poll would, and once."""
    service = Service(lost=True)
    ref = service.submit("t", 100)
    waiting = asyncio.create_task(service.wait(ref))
    await asyncio.sleep(10)
    send_webhook(service.waiter, "t", FAILED)
    send_webhook(service.waiter, "t", body("succeeded"))
    update = await waiting
    assert update.state == "failed"
    assert getattr(update.error, "refunded", None) is True
    assert service.ended == ["t"]


async def test_new_subscriber_gets_the_present_state_first() -> None:
    """An iteration that starts in the middle begins with the last update of the others."""
    service = Service()
    ref = service.submit("t", 100)

    async def watch() -> list[str]:
        return [update.state async for update in service.waiter.updates(ref, None)]

    first = asyncio.create_task(watch())
    await asyncio.sleep(50)
    second = asyncio.create_task(watch())
    assert await first == ["pending", "running", "succeeded"]
    assert await second == ["running", "succeeded"]
    assert sum(service.polls.values()) == 0


async def test_webhook_about_a_resumed_task_ends_its_polls() -> None:
    """Another process submitted it: one poll at once, and no more after a webhook has come."""
    service = Service()
    own = service.submit("t", 200)
    resumed = TaskRef("sonic", "t", "create_music", own.submitted_at)
    other = Service()
    other.polls, other.ends = service.polls, service.ends
    waiting = asyncio.create_task(other.wait(resumed))
    await asyncio.sleep(10)
    send_webhook(other.waiter, "t", body("running"))
    await asyncio.sleep(185)
    assert service.polls["t"] == 1
    await asyncio.sleep(6)
    send_webhook(other.waiter, "t", body("succeeded"))
    assert (await waiting).result is not None
    assert service.polls["t"] == 1


async def test_closing_cancels_the_alarm() -> None:
    """A webhook that is late when the client closes changes nothing."""
    service = Service(lost=True)
    update = await service.wait(service.submit("t", 100))
    assert update.result is not None
    await service.waiter.aclose()
    await asyncio.sleep(2 * LATE_WEBHOOK)
    assert service.waiter.watched == 0
