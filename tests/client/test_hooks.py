"""Hooks: which events there are, in which order, and that they change nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pickle
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from musicapi_async import (
    ConnectionLostError,
    DownloadError,
    JobStoreError,
    MemoryStore,
    MusicAPI,
    NotFoundError,
    OutcomeUnknownError,
    RequestTimeoutError,
    RequestValidationError,
    Task,
    TaskFailedError,
)
from musicapi_async.hooks import (
    CallEvent,
    DownloadEvent,
    HookEvent,
    PollEvent,
    RequestEvent,
    ResponseEvent,
    RetryEvent,
    SpendingEvent,
    TaskEndedEvent,
)
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

SONG: Final = {"mv": "sonic-v6", "prompt": "[Verse]\nRain on the window"}

E = TypeVar("E", bound=HookEvent)


class Events(list[HookEvent]):
    """A hook that stores the events."""

    def __call__(self, event: HookEvent) -> None:
        self.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """The events of a class."""
        return [event for event in self if isinstance(event, kind)]


async def test_events_of_a_song_from_submit_to_file(tmp_path: Path) -> None:
    """A request and its response with the task, polls with their requests, one end, one event for each file."""
    events = Events()
    async with Sandbox(speed=100, longest=3) as sandbox, sandbox.client(hooks=events) as client:
        task = await client.sonic.create_music(**SONG)
        request, response = events
        assert isinstance(request, RequestEvent)
        assert isinstance(response, ResponseEvent)
        assert (request.call, request.method, request.attempt) == ("POST /sonic/create", "POST", 1)
        assert request.url == f"{sandbox.base_url}/sonic/create"
        assert (request.family, request.kind, request.task_id) == ("sonic", "create_music", None)
        assert (response.call_id, response.status, response.task_id) == (request.call_id, 200, task.task_id)
        assert response.error is None
        assert response.seconds >= 0
        clips = await task.wait()
        polls = events.of(PollEvent)
        assert polls[-1].state == "succeeded"
        assert polls[-1].can_stream
        for poll in polls:
            of_poll = [one for one in events.of(CallEvent) if one.call_id == poll.call_id]
            assert [type(one) for one in of_poll] == [RequestEvent, ResponseEvent]
            assert {one.task_id for one in of_poll} == {poll.task_id} == {task.task_id}
            assert {one.kind for one in of_poll} == {poll.kind} == {"create_music"}
            assert poll.late is not None
        (ended,) = events.of(TaskEndedEvent)
        assert (ended.task_id, ended.state, ended.clips) == (task.task_id, "succeeded", len(clips))
        assert ended.seconds is not None
        paths = await client.download(clips, tmp_path)
        files = events.of(DownloadEvent)
        assert {(file.path, file.size) for file in files} == {(str(one), one.stat().st_size) for one in paths}
        assert all(file.tries >= 1 and file.error is None and "?" not in file.url for file in files)
        await client.download(clips, tmp_path)
        assert len(events.of(DownloadEvent)) == len(files), "nothing was fetched"
        await task.refresh()
        assert len(events.of(TaskEndedEvent)) == 1
        assert events.of(PollEvent)[-1].late is None
        assert pickle.loads(pickle.dumps(list(events))) == events
        assert len(sandbox.journal.creates) == 1


async def test_retry_has_an_event_between_its_attempts() -> None:
    """Refused for the rate, then taken: two attempts of one call, with the pause between them."""
    events = Events()
    async with Sandbox(speed=100, longest=3) as sandbox, sandbox.client(hooks=[events]) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=7))
        task = await client.with_options(job_key="order-1").sonic.create_music(**SONG)
        kinds = [type(event) for event in events]
        assert kinds == [RequestEvent, ResponseEvent, RetryEvent, RequestEvent, ResponseEvent]
        assert len({event.call_id for event in events.of(CallEvent)}) == 1
        assert {event.job_key for event in events.of(CallEvent)} == {"order-1"}
        (retry,) = events.of(RetryEvent)
        assert (retry.reason, retry.status, retry.attempt) == ("rate_limited", 429, 1)
        assert retry.after >= 7
        refused, taken = events.of(ResponseEvent)
        assert (refused.status, refused.attempt, refused.task_id) == (429, 1, None)
        assert refused.error
        assert (taken.status, taken.attempt, taken.task_id) == (200, 2, task.task_id)
        assert taken.waited >= 7
        events.clear()
        await client.with_options(job_key="order-1").sonic.create_music(**SONG)
        assert not events, "the key is known, so nothing was sent"


async def test_retry_of_a_free_call_names_the_status() -> None:
    """Its response is delivered at once, and is that of the retry all the same."""
    events = Events()
    async with Sandbox(speed=100, longest=3) as sandbox, sandbox.client(hooks=events) as client:
        sandbox.faults.on("GET", "/get-credits", Fault.status(503))
        await client.credits()
        (retry,) = events.of(RetryEvent)
        assert (retry.reason, retry.status) == ("server_error", 503)


async def test_spending_has_an_event() -> None:
    """What the balance says of the block; also of one that ends with an error."""
    events = Events()
    async with (
        Sandbox(speed=100, longest=3) as sandbox,
        sandbox.client(hooks=events, rate_limit=None) as client,
    ):
        async with client.spending() as spent:
            await client.sonic.create_music(**SONG)
        with contextlib.suppress(ZeroDivisionError):
            async with client.spending():
                await client.sonic.create_music(**SONG)
                raise ZeroDivisionError
        first, second = events.of(SpendingEvent)
        assert (first.before, first.total) == (spent.before.total, spent.total)
        assert first.total + second.total == sandbox.journal.charges > 0
        assert first.after == second.before == second.after + second.total


async def test_response_of_a_paid_call_comes_after_its_job_is_settled() -> None:
    """When the hook is called, the store already has the task, or the unknown outcome."""
    store = MemoryStore()
    states: list[str] = []

    def watch(event: HookEvent) -> None:
        if isinstance(event, ResponseEvent):
            states.extend(job.state for job in _now(store.jobs()))

    async with Sandbox(speed=100) as sandbox, sandbox.client(hooks=watch, store=store) as client:
        await client.sonic.create_music(**SONG)
        assert states == ["accepted"]
        states.clear()
        sandbox.faults.on("POST", "/sonic/create", Fault.status(500).once_taken())
        with pytest.raises(OutcomeUnknownError):
            await client.sonic.create_music(**SONG)
        assert sorted(states) == ["accepted", "ambiguous"]


def _now(work: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


async def test_hook_that_raises_is_logged_once_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises: the song is made and paid for once, and the other hook gets every event."""
    events, calls = Events(), 0

    def broken(event: HookEvent) -> None:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError if isinstance(event, ResponseEvent) else ValueError("broken")

    async with Sandbox(speed=100) as sandbox, sandbox.client(hooks=[broken, events]) as client:
        for _ in range(2):
            assert (await (await client.sonic.create_music(**SONG)).wait()).status == "succeeded"
        assert sandbox.journal.charges == 40
    assert calls == len(events) > 8
    failures = [
        record.getMessage() for record in caplog.records if "broken failed with" in record.getMessage()
    ]
    kinds = {type(event).__name__ for event in events}
    assert kinds == {"RequestEvent", "ResponseEvent", "PollEvent", "TaskEndedEvent"}
    assert len(failures) == len(kinds)
    assert all(any(f"failed with a {kind};" in text for text in failures) for kind in kinds)
    assert any("ValueError: broken" in text for text in failures)


async def test_call_without_a_response_ends_with_its_error() -> None:
    """Lost, out of time, cancelled, unknown task: each request has its end."""
    events = Events()
    async with Sandbox(speed=20) as sandbox, sandbox.client(hooks=events, max_retries=0) as client:
        sandbox.faults.on("GET", "/get-credits", Fault.reset_before, times=None)
        with pytest.raises(ConnectionLostError):
            await client.credits()
        sandbox.faults.clear()
        sandbox.faults.on("GET", "/get-credits", Fault.slow(60))
        with pytest.raises(RequestTimeoutError):
            await client.with_options(deadline=5).credits()
        with pytest.raises(NotFoundError):
            await client.task("sonic", "00000000-0000-4000-8000-000000000000").refresh()
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(20))
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(deadline=5).sonic.create_music(**SONG)
        lost, late, unknown, paid = events.of(ResponseEvent)
        assert (lost.status, lost.error_type) == (None, "ConnectionLostError")
        assert lost.error
        assert (late.status, late.error_type) == (None, "CancelledError")
        assert (unknown.status, unknown.error_type) == (400, None)
        assert unknown.error
        assert (paid.status, paid.error_type) == (None, "CancelledError")
        (poll,) = events.of(PollEvent)
        assert poll.state == ""
        assert poll.error
        assert len(events.of(RequestEvent)) == 4


async def test_failed_task_and_failed_download_say_why(tmp_path: Path) -> None:
    """The end of a failed task has the service's words and the refund; a file that is gone has its status."""
    events = Events()
    async with (
        Sandbox(speed=100, longest=3) as sandbox,
        sandbox.client(hooks=events, rate_limit=None) as client,
    ):
        sandbox.faults.on("POST", "/sonic/create", Fault.fail())
        failed = await client.sonic.create_music(**SONG)
        with pytest.raises(TaskFailedError) as caught:
            await failed.wait()
        (ended,) = events.of(TaskEndedEvent)
        assert (ended.state, ended.clips, ended.refunded) == ("failed", 0, caught.value.refunded)
        assert ended.error
        link = sandbox.base_url.rpartition("/api")[0] + "/no-such-file.mp3?signature=hidden-part"
        with pytest.raises(DownloadError):
            await client.download(link, tmp_path)
        (file,) = events.of(DownloadEvent)
        assert (file.status, file.error_type, file.size) == (404, "DownloadError", 0)
        assert file.error
        assert "hidden-part" not in repr(file)


async def test_wait_for_the_rate_is_in_the_events() -> None:
    """The second create waits for the rate; the events of its request say how long."""
    events = Events()
    async with (
        Sandbox(speed=100, longest=3) as sandbox,
        sandbox.client(hooks=events, rate_limit="1/30s") as client,
    ):
        rows = [SONG] * 2
        made = await client.create_many(client.sonic.create_music, rows)
        assert all(isinstance(one, Task) for one in made)
        first, second = sorted(event.waited for event in events.of(ResponseEvent))
        assert first < 5
        assert second > 20
        assert all(event.seconds < 5 for event in events.of(ResponseEvent))


async def test_events_of_an_untyped_call_hold_no_query() -> None:
    """The path without its query; no family, no kind."""
    events = Events()
    async with Sandbox(speed=100, longest=3) as sandbox, sandbox.client(hooks=events) as client:
        await client.request("GET", "/get-credits?note=private", params={"more": "private"})
        assert "private" not in repr(events)
        assert {(event.call, event.family, event.kind) for event in events.of(CallEvent)} == {
            ("GET /get-credits", "", "")
        }


async def test_store_that_fails_before_sending_has_no_events() -> None:
    """A call that never came to an attempt has none."""

    class Broken(MemoryStore):
        async def change(self, *args: Any, **options: Any) -> Any:
            raise JobStoreError("the disk is full")

    events = Events()
    async with (
        Sandbox(speed=100, longest=3) as sandbox,
        sandbox.client(hooks=events, store=Broken()) as client,
    ):
        with pytest.raises(JobStoreError):
            await client.sonic.create_music(**SONG)
        assert not events
        assert not sandbox.journal.creates


class _LoopWithBlocks(VirtualTimeLoop):
    """A loop in which code can block for some virtual seconds."""

    blocked = 0.0

    def time(self) -> float:
        return super().time() + self.blocked


def test_time_of_a_hook_is_not_that_of_the_service() -> None:
    """Neither in the event of the response nor in the reply; both are for finding out who is slow."""
    events = Events()

    def slow(event: HookEvent) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _LoopWithBlocks)
        if isinstance(event, RequestEvent):
            loop.blocked += 5.0

    async def call() -> list[float]:
        async with Sandbox() as sandbox, sandbox.client(hooks=[slow, events]) as client:
            task = await client.sonic.create_music(**SONG)
            balance = await client.credits()
        assert task.response is not None
        assert balance.response is not None
        return [task.response.elapsed, balance.response.elapsed]

    with asyncio.Runner(loop_factory=_LoopWithBlocks) as runner:
        elapsed = runner.run(call())
    assert len(events.of(RequestEvent)) == 2
    assert max(*elapsed, *(event.seconds for event in events.of(ResponseEvent))) < 5.0


async def _async_hook(event: HookEvent) -> None: ...


class _AsyncHook:
    async def __call__(self, event: HookEvent) -> None: ...


@pytest.mark.parametrize(
    "hooks",
    [
        _async_hook,
        [_async_hook],
        _AsyncHook(),
        functools.partial(_async_hook),
        7,
        "hook",
        [print, 7],
        [Events],
    ],
    ids=["function", "list", "callable", "partial", "number", "text", "list with a number", "class"],
)
def test_hook_that_cannot_be_one_is_refused(hooks: Any) -> None:
    """Async functions, classes and other values are refused when the client is made."""
    with pytest.raises(RequestValidationError, match="hooks: a function"):
        MusicAPI("a-key", hooks=hooks)
