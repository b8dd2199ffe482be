"""The waiter, in virtual time: polls are scripted, and no network is touched."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from scripted import AgingClock, Every, ScriptedClient, send_webhook

from musicapi_async._wire import response
from musicapi_async._wire.poll_response import judge_poll, without_response
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.retry import drawing
from musicapi_async.api.families import polled_of
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import Clips, TaskUpdate
from musicapi_async.api.stems import Stems
from musicapi_async.api.task import TASKS_AT_ONCE, Task, TaskRef, handle_of, ref_of
from musicapi_async.clock import Clock
from musicapi_async.errors import (
    AuthenticationError,
    ConnectionLostError,
    RequestValidationError,
    TaskError,
    TaskFailedError,
    TaskTimeoutError,
)
from musicapi_async.polling.kind_model import Stage
from musicapi_async.polling.waiter import MOST_UPDATES, TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop

STREAM = "https://audiopipe.suno.ai/?item_id=c1"
FILE = "https://cdn1.suno.ai/c1.mp3"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def clip(state: str, url: str | None = None) -> dict[str, Any]:
    return {"clip_id": "c1", "state": state, "audio_url": url}


class Service(ScriptedClient):
    """Tasks that finish at given ages; counts the polls."""

    def __init__(self, clock: Clock, *, done_after: float = 100.0, stream_after: float = 20.0) -> None:
        super().__init__()
        self.clock = clock
        self.done_after = done_after
        self.stream_after = stream_after
        self.started: dict[str, float] = {}
        self.polls: Counter[str] = Counter()
        self.at: dict[str, list[float]] = {}
        self.answers: Callable[[TaskRef, float], tuple[int, Any] | Exception | None] = lambda ref, age: None

    def ref(self, task_id: str, kind: str = "create_music") -> TaskRef:
        self.started[task_id] = self.clock.now()
        return TaskRef("sonic", task_id, kind, self.clock.time(), own=True)

    async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
        await asyncio.sleep(0.05)
        age = self.clock.now() - self.started[ref.task_id]
        self.polls[ref.task_id] += 1
        self.at.setdefault(ref.task_id, []).append(age)
        answer = self.answers(ref, age) or self.normal(age)
        if isinstance(answer, ConnectionLostError):
            return without_response(answer, ref=ref)
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        return judge_poll(
            response.read_response(status, {}, msgspec.json.encode(body)), ref=ref, polled=polled
        )

    def normal(self, age: float) -> tuple[int, Any]:
        if age < self.stream_after:
            return 202, {"type": "not_ready"}
        if age < self.done_after:
            return 200, {"code": 200, "data": [clip("running", STREAM)]}
        return 200, {"code": 200, "data": [clip("succeeded", FILE)]}


def make(service: Service, schedule: Every | None = None) -> TaskWaiter:
    return TaskWaiter(service, schedule or Every(15), service.clock, drawing(random.Random(1)), concurrency=8)


class Handles:
    """A watcher for `Task` handles over a bare waiter."""

    def __init__(self, waiter: TaskWaiter) -> None:
        self.wait = waiter.wait
        self.updates = waiter.updates

    async def refresh(self, ref: TaskRef) -> Any:
        raise AssertionError("not used here")


async def test_wait_returns_finished_clips_promptly() -> None:
    """A poll every 15 s notices a song of 100 s at the first poll after it."""
    service = Service(Clock())
    waiter = make(service)
    update = await waiter.wait(service.ref("t"), "all", None)
    assert [c.final_url for c in update.clips] == [FILE]
    assert 100 <= service.at["t"][-1] <= 100 + 15 * 1.1 + 0.1
    assert waiter.watched == 0


async def test_waits_share_each_poll() -> None:
    """A hundred callers who wait for one task cause the polls of one."""
    service = Service(Clock())
    waiter = make(service)
    ref = service.ref("t")
    alone = service.ref("alone")
    updates = await asyncio.gather(
        *(waiter.wait(ref, "all", None) for _ in range(100)), waiter.wait(alone, "all", None)
    )
    assert all(update.result is not None for update in updates)
    assert abs(service.polls["t"] - service.polls["alone"]) <= 1


async def test_cancelled_wait_leaves_the_others_alone() -> None:
    """A cancelled caller goes; the rest get their clips; nothing stays behind."""
    service = Service(Clock())
    waiter = make(service)
    ref = service.ref("t")
    callers = [asyncio.create_task(waiter.wait(ref, "all", None)) for _ in range(5)]
    await asyncio.sleep(30)
    callers[0].cancel()
    callers[3].cancel()
    ended = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in ended] == [True, False, False, True, False]
    assert waiter.watched == 0


async def test_task_without_a_wait_is_not_polled() -> None:
    """When the last wait has ended, polling stops."""
    service = Service(Clock(), done_after=1e9)
    waiter = make(service)
    caller = asyncio.create_task(waiter.wait(service.ref("t"), "all", None))
    await asyncio.sleep(40)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    before = service.polls["t"]
    await asyncio.sleep(500)
    assert service.polls["t"] == before


async def test_until_stream_polls_at_the_documented_interval() -> None:
    """Early audio is noticed although the schedule would poll much later."""
    service = Service(Clock(), done_after=500, stream_after=20)
    waiter = make(service, Every(200))
    update = await waiter.wait(service.ref("t"), "stream", None)
    assert update.clips[0].stream_url == STREAM
    assert update.clips[0].final_url is None
    assert service.at["t"][-1] <= 36


async def test_wait_for_the_stream_is_prompt_beside_a_patient_one() -> None:
    """It joins a wait whose next poll is far away, and has it polled at the documented interval, too."""
    service = Service(Clock(), done_after=500)
    waiter = make(service, Every(300))
    ref = service.ref("t")
    patient = asyncio.ensure_future(waiter.wait(ref, "all", None))
    await asyncio.sleep(1)
    update = await waiter.wait(ref, "stream", None)
    assert update.clips[0].stream_url == STREAM
    assert service.at["t"][-1] < 20 + 15 * 1.1 + 0.1
    await patient


async def test_wait_has_what_another_one_has_seen() -> None:
    """A stream that is known needs no poll."""
    service = Service(Clock(), done_after=500)
    waiter = make(service, Every(60))
    ref = service.ref("t")
    patient = asyncio.ensure_future(waiter.wait(ref, "all", None))
    await asyncio.sleep(70)
    began = service.clock.now()
    assert (await waiter.wait(ref, "stream", None)).clips[0].stream_url == STREAM
    assert service.clock.now() == began
    assert service.polls["t"] == 1
    await patient


class Id(str):
    """The id of a task, which tells when nothing has it any more."""

    __slots__ = ("__weakref__",)


async def test_followed_tasks_are_forgotten_once_they_have_ended() -> None:
    """Creates may wait for permits for days, and all tasks of that time are followed."""
    service = Service(Clock())
    waiter = make(service)
    first = Id("first")
    waiter.follow(service.ref(first))
    for number in range(100):
        waiter.follow(service.ref(str(number)))
    await asyncio.sleep(300)
    assert waiter.watched == 0
    waiter.poll_now(service.ref(first))  # which forgets what a wait that begins again would use
    known = weakref.ref(first)
    for counted in (service.started, service.polls, service.at):
        del counted[first]
    service.ended.clear()
    del first
    gc.collect()
    assert known() is None
    waiter.unfollow()


@pytest.mark.parametrize("seconds", [0.02, 2, 40])
async def test_many_short_waits_poll_as_a_long_one(seconds: float) -> None:
    """Also those that end while a poll is under way; each has the last state, and the last one the result."""
    service = Service(AgingClock())
    waiter, schedule = make(service), 15
    ref = service.ref("t")
    while True:
        try:
            update = await waiter.wait(ref, "all", seconds)
            break
        except TaskTimeoutError as error:
            age = service.clock.now() - service.started["t"]
            if age > schedule + 1:
                assert "not polled yet" not in error.message
            assert age < 130
    assert update.clips[0].final_url == FILE
    assert service.polls["t"] == 7
    assert all(later - before > 14.9 for before, later in pairwise(service.at["t"]))


async def test_wait_after_a_pause_is_prompt() -> None:
    """Once the next poll of a wait that was given up is due, and after a poll that has found the end."""
    service = Service(AgingClock())
    waiter = make(service)
    ref = service.ref("t")
    with pytest.raises(TaskTimeoutError):
        await waiter.wait(ref, "all", 20)
    await asyncio.sleep(90)
    began = service.clock.now()
    await waiter.wait(ref, "all", None)
    assert service.clock.now() - began < 0.2
    ref = service.ref("u")
    with pytest.raises(TaskTimeoutError):
        await waiter.wait(ref, "all", 91)
    await asyncio.sleep(11)
    waiter.poll_now(ref)
    began = service.clock.now()
    await waiter.wait(ref, "all", None)
    assert service.clock.now() - began < 0.2


async def test_until_first_ends_with_the_first_succeeded_clip() -> None:
    """One of two clips is enough."""
    service = Service(Clock())
    service.answers = lambda ref, age: (
        (200, {"data": [clip("succeeded", FILE), {"clip_id": "c2", "state": "running"}]})
        if age > 50
        else None
    )
    update = await make(service).wait(service.ref("t"), "first", None)
    assert [c.state for c in update.clips] == ["succeeded", "running"]
    assert update.result is None


async def test_first_song_of_an_extension_is_the_full_one() -> None:
    """A finished part, whose full song is still being joined, is nothing to return."""
    service = Service(Clock())

    def joining(ref: TaskRef, age: float) -> tuple[int, Any]:
        full = clip("succeeded", FILE) if age > 60 else None
        return 200, {
            "data": [{"extended": clip("succeeded", FILE), "full": full}, {"extended": clip("running")}]
        }

    service.answers = joining
    update = await make(service).wait(service.ref("t", "extend_music"), "first", 300)
    assert update.age > 60
    assert len(update.clips.succeeded) == 1


async def test_link_that_cannot_be_used_is_no_stream() -> None:
    """One that had to be repaired is missing in the clip, so the wait for it goes on."""
    service = Service(Clock())
    broken = STREAM + "\ufffd"
    service.answers = lambda ref, age: (
        200,
        {"data": [clip("running", broken if age < 60 else STREAM)]},
    )
    update = await make(service).wait(service.ref("t"), "stream", 300)
    assert [one.stream_url for one in update.clips] == [STREAM]


async def test_timeout_says_how_to_resume() -> None:
    """The time-out carries the id and never says 'try again'."""
    service = Service(Clock(), done_after=1e9)
    with pytest.raises(TaskTimeoutError) as caught:
        await make(service).wait(service.ref("t"), "all", 100)
    assert caught.value.task_id == "t"
    assert caught.value.elapsed == pytest.approx(100, abs=0.5)
    assert caught.value.last_body["data"][0]["state"] == "running"
    text = str(caught.value)
    assert "already paid for" in text
    assert "client.task('sonic', 't'" in text
    assert "try again" not in text.lower()


async def test_default_deadline_is_that_of_the_family() -> None:
    """Songs are waited for 900 s, stems 1800 s."""
    service = Service(Clock(), done_after=1e9)
    waiter = make(service)
    for kind, seconds in (("create_music", 900), ("stems_full", 1800)):
        with pytest.raises(TaskTimeoutError) as caught:
            await waiter.wait(service.ref(kind, kind), "all", None)
        assert caught.value.elapsed == pytest.approx(seconds, abs=1)


async def test_failed_task_raises_for_every_wait() -> None:
    """All waits raise an equal error, none the same object."""
    service = Service(Clock())
    service.answers = lambda ref, age: (
        (200, {"type": "failed", "error": "moderated", "already_refunded": True}) if age > 50 else None
    )
    waiter = make(service)
    tasks: list[Task[Clips]] = [handle_of(service.ref("t"), Handles(waiter)) for _ in range(3)]
    errors = await asyncio.gather(*(task.wait() for task in tasks), return_exceptions=True)
    assert [type(error) for error in errors] == [TaskFailedError] * 3
    assert len({id(error) for error in errors}) == 3
    assert all(isinstance(error, TaskFailedError) and error.refunded for error in errors)


async def test_transient_errors_do_not_end_a_wait() -> None:
    """A break of the network in the middle costs a few polls and no task."""
    service = Service(Clock())
    lost = ConnectionLostError("dropped", sent=True)
    service.answers = lambda ref, age: lost if 30 < age < 60 else None
    update = await make(service).wait(service.ref("t"), "all", None)
    assert update.result is not None


async def test_five_transient_errors_in_a_row_end_the_wait() -> None:
    """A network that stays away ends the wait after more than a minute, and the id is on the error."""
    service = Service(Clock())
    service.answers = lambda ref, age: ConnectionLostError("dropped", sent=True) if age > 30 else None
    with pytest.raises(ConnectionLostError) as caught:
        await make(service).wait(service.ref("t"), "all", None)
    assert caught.value.task_id == "t"
    assert service.at["t"][-1] > 30 + 50


async def test_authentication_error_ends_the_wait_at_once() -> None:
    """To wait longer does not help against a refused key."""
    service = Service(Clock())
    service.answers = lambda ref, age: (401, {"type": "unauthorized", "error": "Invalid API key"})
    waiter = make(service)
    with pytest.raises(AuthenticationError) as caught:
        await waiter.wait(service.ref("t"), "all", None)
    await asyncio.sleep(600)
    assert service.polls["t"] == 1
    assert caught.value.task_id == "t"


async def test_unexpected_exception_reaches_the_caller() -> None:
    """Even a fault of our own does not leave a caller hanging."""
    service = Service(Clock())
    service.answers = lambda ref, age: ZeroDivisionError("a fault")
    with pytest.raises(ZeroDivisionError):
        await make(service).wait(service.ref("t"), "all", None)


class Faulty(Every):
    """A schedule of the user, with a fault in it."""

    def next(self, kind: str, age: float, stage: Stage | None) -> float:
        """Raise."""
        raise ZeroDivisionError("the user's own")


async def test_error_of_the_schedule_reaches_the_caller() -> None:
    """It ends the wait instead of leaving it without another poll."""
    service = Service(Clock())
    waiter = make(service, Faulty(15))
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        await waiter.wait(service.ref("t"), "all", 1000.0)
    await waiter.aclose()


async def test_updates_come_once_for_each_state() -> None:
    """Polls that show nothing new are not reported."""
    service = Service(Clock())
    states = [update.state async for update in make(service).updates(service.ref("t"), None)]
    assert states == ["pending", "running", "succeeded"]


async def test_updates_can_be_left_and_resumed() -> None:
    """Breaking out leaves no slot; a new iteration continues."""
    service = Service(Clock())
    waiter = make(service)
    ref = service.ref("t")
    updates = waiter.updates(ref, None)
    assert (await anext(updates)).state == "pending"
    await updates.aclose()
    assert waiter.watched == 0
    assert [u.state async for u in waiter.updates(ref, None)][-1] == "succeeded"


async def test_updates_end_with_an_update_for_a_failed_task() -> None:
    """A failure is an update here, and is not raised."""
    service = Service(Clock())
    service.answers = lambda ref, age: (200, {"type": "failed", "error": "no"}) if age > 20 else None
    last = [update async for update in make(service).updates(service.ref("t"), None)][-1]
    assert isinstance(last.error, TaskFailedError)


async def test_updates_time_out_like_a_wait() -> None:
    """A stuck task ends the iteration with the same error."""
    service = Service(Clock(), done_after=1e9)
    with pytest.raises(TaskTimeoutError):
        async for _ in make(service).updates(service.ref("t"), 60):
            pass


async def test_tasks_come_in_the_order_in_which_they_end() -> None:
    """The quick ones come first, each exactly once, and each of several handles of one task."""
    service = Service(Clock())
    waiter = make(service)
    tasks: list[Task[Clips]] = [handle_of(service.ref(f"t{n}"), Handles(waiter)) for n in range(20)]
    ends = {f"t{n}": 30.0 + 20 * ((n * 7) % 20) for n in range(20)}
    service.answers = lambda ref, age: (
        (200, {"data": [clip("succeeded", FILE)]}) if age >= ends[ref.task_id] else (202, {})
    )
    order = [task.task_id async for task, _ in waiter.wait_each([*tasks, tasks[3]], "all", None)]
    assert Counter(order) == Counter({**dict.fromkeys(ends, 1), "t3": 2})
    by_end = [ends[task_id] for task_id in dict.fromkeys(order)]
    assert all(later > earlier - 16.6 for earlier, later in zip(by_end, by_end[1:], strict=False))
    assert waiter.watched == 0


async def test_each_of_many_has_the_deadline_of_its_family() -> None:
    """Stuck tasks come with a time-out each when their time is over, and delay no other."""
    service = Service(Clock())
    waiter = make(service)
    stuck: Task[Clips] = handle_of(service.ref("stuck"), Handles(waiter))
    stems: Task[Stems] = handle_of(service.ref("stems", "stems_full"), Handles(waiter))
    good: Task[Clips] = handle_of(service.ref("good"), Handles(waiter))
    service.answers = lambda ref, age: (202, {}) if ref.task_id != "good" else None
    began = service.clock.now()
    came = [
        (task.task_id, type(outcome).__name__, round(service.clock.now() - began, -1))
        async for task, outcome in waiter.wait_each([stuck, stems, good], "all", None)
    ]
    assert [entry[:2] for entry in came] == [
        ("good", "TaskUpdate"),
        ("stuck", "TaskTimeoutError"),
        ("stems", "TaskTimeoutError"),
    ]
    assert [entry[2] for entry in came[1:]] == [900, 1800]


async def test_left_wait_for_many_drops_its_slots() -> None:
    """Breaking out of the iteration drops all slots."""
    service = Service(Clock())
    waiter = make(service)
    tasks: list[Task[Clips]] = [handle_of(service.ref(f"t{n}"), Handles(waiter)) for n in range(10)]
    each = waiter.wait_each(tasks, "all", None)
    await anext(each)
    await each.aclose()
    assert waiter.watched == 0


async def test_webhook_ends_the_wait_once() -> None:
    """The first of webhook and poll wins; the other changes nothing."""
    service = Service(Clock())
    waiter = make(service)
    ref = service.ref("t")
    caller = asyncio.create_task(waiter.wait(ref, "all", None))
    await asyncio.sleep(20)
    body = {"data": [clip("succeeded", FILE)]}
    send_webhook(waiter, "t", body)
    send_webhook(waiter, "t", body)
    update = await caller
    assert update.result is not None
    assert update.age < 25
    await asyncio.sleep(300)
    assert service.ended == ["t"]
    assert service.polls["t"] <= 2


async def test_closing_ends_every_wait() -> None:
    """No wait hangs when the client closes in the middle; each error says how to resume; new waits are refused."""
    service = Service(Clock())
    waiter = make(service)
    refs = [service.ref(f"t{n}") for n in range(5)]
    callers: list[Awaitable[Any]] = [asyncio.create_task(waiter.wait(ref, "all", None)) for ref in refs]
    await asyncio.sleep(15.03)  # in the middle of the first polls
    await waiter.aclose()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(error, TaskError) and "client.task(" in str(error) for error in errors)
    with pytest.raises(TaskError, match="closed"):
        await waiter.wait(refs[0], "all", None)
    assert waiter.watched == 0


async def test_unknown_until_is_refused() -> None:
    """A misspelt `until` is an error at once."""
    service = Service(Clock())
    with pytest.raises(RequestValidationError, match="until"):
        await make(service).wait(service.ref("t"), "done", None)  # type: ignore[arg-type]


async def test_resumed_task_is_polled_at_once() -> None:
    """A handle rebuilt from an id does not sleep through the first minute."""
    service = Service(Clock())
    service.started["t"] = service.clock.now() - 500
    await make(service).wait(TaskRef("sonic", "t"), "all", None)
    assert service.at["t"] == [pytest.approx(500, abs=0.2)]
    resumed = TaskRef("sonic", "t", submitted_at=service.clock.time() - 500)
    await make(service).wait(resumed, "all", None)
    assert service.at["t"][-1] == pytest.approx(500, abs=1)


async def test_no_more_polls_at_once_than_allowed() -> None:
    """A thousand tasks that are due together are polled eight at a time, first due first served."""
    service = Service(Clock(), done_after=0, stream_after=0)
    running = 0
    most = 0
    plain = service.poll

    async def poll(ref: TaskRef, polled: Polled, due: float) -> PollResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await plain(ref, polled, due)
        finally:
            running -= 1

    service.poll = poll  # type: ignore[method-assign]
    waiter = make(service)
    tasks: list[Task[Clips]] = [handle_of(service.ref(f"t{n}"), Handles(waiter)) for n in range(1000)]
    done = [task async for task, _ in waiter.wait_each(tasks, "all", None)]
    assert len(done) == 1000
    assert most == 8


async def test_short_wait_with_webhooks_polls_once_before_it_ends() -> None:
    """A lost webhook does not turn a finished song into a time-out."""
    service = Service(Clock())
    waiter = make(service)
    send_webhook(waiter, "first", {"data": [clip("succeeded", FILE)]})  # webhooks arrive
    ref = service.ref("t")
    waiter.expect(ref)
    update = await waiter.wait(ref, "all", 290)
    assert update.result is not None
    assert service.polls["t"] == 1


async def test_timeout_names_the_failed_poll() -> None:
    """The text does not claim that the task is running when no poll was answered."""
    service = Service(Clock())
    service.answers = lambda ref, age: ConnectionLostError("the cable is cut", sent=None)
    with pytest.raises(TaskTimeoutError, match="the last poll failed: the cable is cut"):
        await make(service).wait(service.ref("t"), "all", 20)


async def test_timeout_names_no_failure_that_is_over() -> None:
    """A poll that failed before others were answered says nothing of the time-out."""
    service = Service(Clock())
    service.answers = lambda ref, age: (
        ConnectionLostError("the cable is cut", sent=None) if age < 20 else None
    )
    with pytest.raises(TaskTimeoutError) as caught:
        await make(service).wait(service.ref("t"), "all", 80)
    assert service.polls["t"] > 2
    assert "the cable is cut" not in str(caught.value)


async def test_three_minutes_without_network_end_no_wait(caplog: pytest.LogCaptureFixture) -> None:
    """The outage begins at 30 s; the song is there, and found, soon after the network is."""
    service = Service(Clock())
    lost = ConnectionLostError("no route to host", sent=None)
    service.answers = lambda ref, age: lost if 30 < age < 210 else None
    service.host_responds = True
    waiter = make(service)
    update = await waiter.wait(service.ref("t"), "all", 900)
    assert update.result is not None
    assert service.at["t"][-1] < 210 + 60 + 1
    (logged,) = [record.getMessage() for record in caplog.records]
    assert logged.startswith("every poll failed for ")
    assert logged.endswith(" s: no route to host; still waiting")


async def test_one_task_that_fails_to_be_polled_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    """While others are polled with success, nothing says that every poll failed."""
    service = Service(Clock(), done_after=100)
    lost = ConnectionLostError("no route to host", sent=None)
    service.answers = lambda ref, age: lost if ref.task_id == "lost" else None
    service.host_responds = True
    waiter = make(service, Every(5))
    ends = await asyncio.gather(
        waiter.wait(service.ref("lost"), "all", 90),
        waiter.wait(service.ref("found"), "all", 200),
        return_exceptions=True,
    )
    assert isinstance(ends[0], TaskTimeoutError)
    assert not [record for record in caplog.records if "every poll failed" in record.getMessage()]


async def test_outage_is_not_the_time_in_which_nothing_was_polled(caplog: pytest.LogCaptureFixture) -> None:
    """A wait that failed an hour ago and one failed poll now are no hour of failures."""
    service = Service(Clock())
    lost = ConnectionLostError("no route to host", sent=None)
    service.answers = lambda ref, age: lost if ref.task_id == "a" or age < 20 else None
    service.host_responds = True
    waiter = make(service)
    with pytest.raises(TaskTimeoutError):
        await waiter.wait(service.ref("a"), "all", 20)
    await asyncio.sleep(3600)
    await waiter.wait(service.ref("b"), "all", 900)
    assert service.at["b"][0] < 20
    assert not caplog.records


def two(first: str, second: str) -> dict[str, Any]:
    """A poll response with two clips."""
    url = {"succeeded": FILE, "running": STREAM}.get
    return {
        "code": 200,
        "data": [
            {"clip_id": "clip-1", "state": first, "audio_url": url(first)},
            {"clip_id": "clip-2", "state": second, "audio_url": url(second)},
        ],
    }


@pytest.mark.parametrize("others", [0, MOST_UPDATES + 1])
async def test_timeout_names_the_clip_that_is_ready(others: int) -> None:
    """One of two is finished: which one, how to get it now, and it stays on the handle, among many too."""
    service = Service(Clock(), done_after=1e9)
    service.answers = lambda ref, age: (200, two("succeeded", "running")) if ref.task_id == "t" else None
    waiter = make(service)
    rest = [asyncio.create_task(waiter.wait(service.ref(f"o{n}"), "all", 5000)) for n in range(others)]
    task: Task[Clips] = handle_of(service.ref("t"), Handles(waiter))
    with pytest.raises(TaskTimeoutError) as caught:
        await task.wait(timeout=300)
    error = caught.value
    assert "1 of 2 clips is ready: clip-1" in error.message
    assert '.wait(until="first")' in error.hint
    assert [clip.state for clip in error.clips] == ["succeeded", "running"]
    assert task.last is not None
    assert [clip.final_url for clip in task.last.clips] == [FILE, None]
    for one in rest:
        one.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    assert [clip.clip_id for clip in (await task.wait(until="first")).succeeded] == ["clip-1"]


async def test_updates_of_unfinished_tasks_are_dropped_once_many_are_waited_for() -> None:
    """Those that were stored while few tasks were waited for take 5 kB each, too; finished clips stay."""
    service = Service(Clock(), done_after=1e9)
    service.answers = lambda ref, age: (200, two("succeeded", "running")) if ref.task_id == "ready" else None
    waiter = make(service, Every(60))
    early: list[Task[Clips]] = [handle_of(service.ref(n), Handles(waiter)) for n in ("ready", "running")]
    waiting = asyncio.create_task(errors_of(waiter, early, 100))
    await asyncio.sleep(70)
    rest: list[Task[Clips]] = [handle_of(service.ref(f"o{n}"), Handles(waiter)) for n in range(MOST_UPDATES)]
    others = asyncio.create_task(errors_of(waiter, rest, 40))
    ended = await waiting
    assert [len(ended[name].clips) for name in ("ready", "running")] == [2, 0]
    assert ended["running"].last_body is None
    await others


async def errors_of(waiter: TaskWaiter, tasks: list[Task[Clips]], timeout: float) -> dict[str, Any]:
    """Return the errors of a wait for many tasks, by their ids."""
    return {task.task_id: error async for task, error in waiter.wait_each(tasks, "all", timeout)}


async def test_timeout_with_nothing_ready_names_no_clip() -> None:
    """Advice that cannot help is not given."""
    service = Service(Clock(), done_after=1e9)
    with pytest.raises(TaskTimeoutError) as caught:
        await make(service).wait(service.ref("t"), "all", 100)
    assert "clips" not in caught.value.message
    assert "first" not in caught.value.hint


async def test_handle_stores_the_last_update_however_a_wait_ends() -> None:
    """Cancelled, refused, or one of many that time out: `task.last` holds what the last poll showed."""
    service = Service(Clock(), done_after=1e9)
    waiter = make(service)
    cancelled: Task[Clips] = handle_of(service.ref("cancelled"), Handles(waiter))
    waiting = asyncio.create_task(cancelled.wait())
    await asyncio.sleep(60)
    assert cancelled.last is not None  # while it waits, too
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert cancelled.last.state == "running"

    service.answers = lambda ref, age: (401, {"error": "no"}) if age > 60 else None
    refused: Task[Clips] = handle_of(service.ref("refused"), Handles(waiter))
    with pytest.raises(AuthenticationError):
        await refused.wait()
    assert refused.last is not None
    assert refused.last.state == "running"

    service.answers = lambda ref, age: None
    many: list[Task[Clips]] = [handle_of(service.ref(f"m{n}"), Handles(waiter)) for n in range(3)]
    async for _, outcome in waiter.wait_each([*many, many[0]], "all", 60):
        assert isinstance(outcome, TaskTimeoutError)
    assert [task.last.state for task in many if task.last is not None] == ["running"] * 3


async def test_timeout_says_that_polls_were_rate_limited() -> None:
    """A wait whose polls got nothing but 429 says so."""
    service = Service(Clock())
    service.answers = lambda ref, age: (429, {"type": "rate_limited", "error": "Too many requests."})
    with pytest.raises(TaskTimeoutError, match="polls are rate limited: Too many requests"):
        await make(service).wait(service.ref("t"), "all", 100)


async def test_timeout_names_the_refusal_of_another_poll() -> None:
    """The pause after a 429 holds for all: the wait whose own poll never left names the reason, too."""
    service = Service(Clock())
    service.answers = lambda ref, age: (429, {"type": "rate_limited", "error": "Too many requests."})
    plain = service.poll

    async def poll(ref: TaskRef, polled: Polled, due: float) -> PollResult:
        if ref.task_id == "held":
            await asyncio.sleep(1e6)
        return await plain(ref, polled, due)

    service.poll = poll
    waiter = make(service)
    both = await asyncio.gather(
        *(waiter.wait(service.ref(name), "all", 100) for name in ("refused", "held")),
        return_exceptions=True,
    )
    assert all("polls are rate limited" in str(one) for one in both)
    await waiter.aclose()


class FailsOnce(Every):
    """A schedule of the user's own, whose first answer is an error."""

    failed = False

    def first(self, kind: str) -> float:
        """Raise, the first time."""
        if not self.failed:
            self.failed = True
            raise RuntimeError("a fault of the user")
        return super().first(kind)


async def test_task_whose_schedule_failed_can_be_waited_for_again() -> None:
    """The error reaches the caller, and leaves nothing behind that another wait would join for ever."""
    service = Service(Clock())
    waiter = make(service, FailsOnce(5))
    ref = msgspec.structs.replace(service.ref("t"), own=True)
    with pytest.raises(RuntimeError, match="a fault of the user"):
        await waiter.wait(ref, "all", 900)
    assert (await waiter.wait(ref, "all", 900)).result is not None


def many(service: Service, waiter: TaskWaiter, count: int) -> list[Task[Any]]:
    return [handle_of(service.ref(f"t{number}"), Handles(waiter)) for number in range(count)]


async def collect(waiter: TaskWaiter, tasks: list[Task[Any]], timeout: float | None) -> list[object]:
    return [outcome async for _, outcome in waiter.wait_each(tasks, "all", timeout)]


async def time_is(when: float) -> None:
    """Wait until a time of the loop, together with other timers of just that time."""
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    loop.call_at(when, reached.set_result, None)
    await reached


async def watched_in_each_turn(waiter: TaskWaiter, waiting: asyncio.Task[Any]) -> list[int]:
    watched = [waiter.watched]
    while not waiting.done():
        await asyncio.sleep(0)
        watched.append(waiter.watched)
    return watched


@pytest.mark.parametrize("timeout", [None, 10.0])
async def test_leaving_many_tasks_lets_the_loop_run(timeout: float | None) -> None:
    """A wait for 3,000 tasks that is cancelled, or out of time, leaves some of them in each turn of the loop."""
    service, began = Service(Clock()), asyncio.get_running_loop().time()
    waiter = make(service)
    waiting = asyncio.create_task(collect(waiter, many(service, waiter, 3000), timeout))
    await time_is(began + 10)
    assert waiter.watched == 3000
    if timeout is None:
        waiting.cancel()
    watched = await watched_in_each_turn(waiter, waiting)
    assert max(before - after for before, after in pairwise(watched)) <= TASKS_AT_ONCE
    assert waiter.watched == 0
    if timeout is not None:
        assert [type(outcome) for outcome in await waiting] == [TaskTimeoutError] * 3000


async def test_a_second_cancellation_leaves_the_rest_at_once() -> None:
    """A wait that is cancelled while it leaves its tasks stays subscribed to none of them."""
    service = Service(Clock())
    waiter = make(service)
    waiting = asyncio.create_task(collect(waiter, many(service, waiter, 3000), None))
    await asyncio.sleep(5)
    waiting.cancel()
    while waiter.watched > 2000:  # noqa: ASYNC110 - turn by turn
        await asyncio.sleep(0)
    assert waiter.watched
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiter.watched == 0


async def test_task_that_ends_while_others_run_out_of_time_has_its_result() -> None:
    """An end that comes while the time-outs of many are spread over turns of the loop is an end."""
    service, began = Service(Clock()), asyncio.get_running_loop().time()
    waiter = make(service)
    tasks = many(service, waiter, 1200)
    waiting = asyncio.create_task(collect(waiter, tasks, 10.0))
    await time_is(began + 10)
    while waiter.watched == 1200 and not waiting.done():  # noqa: ASYNC110 - turn by turn
        await asyncio.sleep(0)
    ref = ref_of(tasks[-1])
    body = response.read_response(
        200, {}, msgspec.json.encode({"code": 200, "data": [clip("succeeded", FILE)]})
    )
    waiter.deliver(ref, judge_poll(body, ref=ref, polled=polled_of(ref)), own=True)
    outcomes = await waiting
    assert [type(outcome) for outcome in outcomes] == [TaskTimeoutError] * 1199 + [TaskUpdate]
