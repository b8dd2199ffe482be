"""What must hold of money and secrets in the corners: mixed failures, odd rows, places, echoes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator

import pytest
from patience import until

from musicapi_async import (
    AuthenticationError,
    ConnectFailedError,
    OutcomeUnknownError,
    RequestValidationError,
    Task,
    TaskTimeoutError,
)
from musicapi_async._transport.rate_limiter import MemoryLimiter, RequestSlot
from musicapi_async._transport.wait_reasons import Waits
from musicapi_async.hooks import HookEvent, ResponseEvent
from musicapi_async.jobs import MemoryStore
from musicapi_async.sandbox import Fault, Sandbox

LYRICS = "[Verse]\nRain on the window"


@pytest.mark.parametrize("second", ["deadline", "429", "400"])
async def test_a_5xx_that_is_sent_again_on_demand_is_never_forgotten(second: str) -> None:
    """What came after a 5xx that may have charged does not turn the outcome into a known one."""
    async with (
        Sandbox(speed=2 if second == "deadline" else 20) as sandbox,
        sandbox.client(rate_limit=None, max_retries=1) as client,
    ):
        sandbox.faults.on("POST", "/sonic/create", Fault.status(500).once_taken())
        if second != "deadline":
            sandbox.faults.on("POST", "/sonic/create", Fault.status(int(second), body='{"error":"no"}'))
        view = client.with_options(
            resend_creates_on_5xx=True, job_key="k", deadline=0.4 if second == "deadline" else None
        )
        with pytest.raises(OutcomeUnknownError) as caught:
            await view.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        assert caught.value.may_have_been_charged
        assert "othing was charged" not in f"{caught.value} {caught.value.__cause__}"
        assert [job.state for job in await client.jobs()] == ["ambiguous"]
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k").sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        assert sandbox.journal.charges == 20


async def test_no_error_after_a_doubt_advises_to_repeat_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """Not even that of an attempt of which nothing was sent, which is its cause."""
    caplog.set_level("INFO")
    async with Sandbox() as sandbox, sandbox.client(rate_limit=None, max_retries=1) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(500).once_taken())
        view = client.with_options(resend_creates_on_5xx=True)
        creating = asyncio.ensure_future(view.sonic.create_music(mv="sonic-v6", prompt=LYRICS))
        await until(lambda: "attempt 2 follows" in caplog.text)
        async with sandbox.unreachable():
            with pytest.raises(OutcomeUnknownError) as caught:
                await creating
        cause = caught.value.__cause__
        assert isinstance(cause, ConnectFailedError)
        assert "repeated" not in f"{caught.value} {cause}"
        assert "othing was charged" not in f"{caught.value} {cause}"


async def test_doubt_stays_written_down_while_a_later_attempt_waits() -> None:
    """A refusal after a 5xx that may have charged proves nothing: a process that dies now must not pay again."""
    async with Sandbox() as sandbox, sandbox.client(rate_limit=None, store=MemoryStore()) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(500).once_taken())
        sandbox.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=60))
        view = client.with_options(resend_creates_on_5xx=True, job_key="k")
        creating = asyncio.ensure_future(view.sonic.create_music(mv="sonic-v6", prompt=LYRICS))
        await asyncio.sleep(30)
        assert len(sandbox.journal.creates) == 2
        assert [job.state for job in await client.jobs()] == ["sent"]
        await creating


async def test_result_that_is_prepared_does_not_end_a_doubt() -> None:
    """The key of a call that may have been carried out before is not free, though its caller does not wait."""
    async with Sandbox() as sandbox, sandbox.client(rate_limit=None, store=MemoryStore()) as client:
        clips = await (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)).wait()
        sandbox.faults.on("POST", "/sonic/midi", Fault.status(500))
        sandbox.faults.on("POST", "/sonic/midi", Fault.status(202, body='{"type": "not_ready"}'))
        view = client.with_options(resend_creates_on_5xx=True, job_key="k")
        await view.sonic.midi(clips[0].clip_id, wait=False)
        job = await client.job("k")
        assert job is not None
        assert job.state == "ambiguous"


class LostPermit:
    """A permit of such a limiter."""

    def __init__(self, limiter: LostLimiter) -> None:
        self.limiter = limiter

    def try_acquire(self) -> bool:
        return True

    async def acquire(self, waits: Waits | None = None) -> None:
        if self.limiter.fails_in == "acquire":
            raise ConnectionError("the limiter is gone")

    def expire_at(self, when: float) -> None:
        if self.limiter.fails_in == "expire_at":
            raise ConnectionError("the limiter is gone")

    def release(self) -> None:
        """Give it back."""


class LostLimiter(MemoryLimiter):
    """A limiter that cannot be reached any more once a response has come."""

    fails_in = ""

    def permit(self) -> LostPermit:
        return LostPermit(self)

    @contextlib.asynccontextmanager
    async def slot(self, lane: str, waits: Waits | None = None) -> AsyncGenerator[RequestSlot]:
        async with super().slot(lane, waits) as slot:
            yield slot
        if self.fails_in == "slot":
            raise ConnectionError("the limiter is gone")

    def succeeded(self, lane: str) -> None:
        if self.fails_in == "succeeded":
            raise ConnectionError("the limiter is gone")


@pytest.mark.parametrize("fails_in", ["slot", "succeeded", "expire_at"])
async def test_limiter_that_fails_after_the_response_loses_no_task(fails_in: str) -> None:
    """The task is paid for and read; what the limiter has to note of it costs a line in the log."""
    async with Sandbox() as sandbox:
        limiter = LostLimiter()
        async with sandbox.client(limiter=limiter, store=MemoryStore()) as client:
            limiter.fails_in = fails_in
            task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
            assert [job.task_id for job in await client.jobs("accepted")] == [task.task_id]
            batch = await client.sonic.create_batch([{"mv": "sonic-v6", "prompt": LYRICS}])
            assert len(batch.tasks) == 1


class CancellingLimiter(MemoryLimiter):
    """A limiter whose last word to a request comes when its caller has just given up."""

    def __init__(self) -> None:
        super().__init__()
        self.create: asyncio.Future[object] | None = None
        self.turns = 0

    async def departing(self) -> None:
        """Let the cancellation go so many turns of the loop."""
        assert self.create is not None
        self.create.cancel()
        for _ in range(self.turns):
            await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def slot(self, lane: str, waits: Waits | None = None) -> AsyncGenerator[RequestSlot]:
        async with super().slot(lane, waits):
            yield self


async def test_a_call_that_is_cancelled_as_it_departs_pays_nothing() -> None:
    """A request whose connection is open is written by a task of its own, which is not cancelled at once."""
    async with Sandbox() as sandbox:
        limiter = CancellingLimiter()
        async with sandbox.client(limiter=limiter) as client:
            for turns in range(1, 8):
                limiter.turns = turns
                limiter.create = asyncio.ensure_future(
                    client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
                )
                with pytest.raises(asyncio.CancelledError):
                    await limiter.create
        assert sandbox.journal.creates == []


async def test_a_misspelt_row_loses_none_of_the_paid_tasks() -> None:
    """create_many gives whatever went wrong in the row's place."""
    async with Sandbox(speed=100) as sandbox, sandbox.client(rate_limit=None) as client:
        rows = [
            {"mv": "sonic-v6", "prompt": "a"},
            {"mv": "sonic-v6", "promt": "b"},
            {"mv": "sonic-v6", "prompt": "c"},
        ]
        made = await client.create_many(client.sonic.create_music, rows)
        assert [type(one) for one in made] == [Task, TypeError, Task]
        assert sandbox.journal.charges == 40


async def test_large_balance_is_named_to_the_last_credit() -> None:
    """It is the evidence that money moved: '1.23457e+07 to 1.23457e+07 credits' would deny it."""
    async with Sandbox(credits=12_345_678) as sandbox, sandbox.client(rate_limit=None) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        view = client.with_options(job_key="k", check_balance=True)
        for text in ("is unknown", "from 12345678 to 12345658 credits"):
            with pytest.raises(OutcomeUnknownError, match=text):
                await view.sonic.create_music(mv="sonic-v6", prompt=LYRICS)


async def test_create_many_that_is_cancelled_names_its_tasks(caplog: pytest.LogCaptureFixture) -> None:
    """A time-out around it takes the handles, so the log, at the level that is always printed, has them."""
    events: list[HookEvent] = []
    async with Sandbox() as sandbox, sandbox.client(rate_limit="2/1000s", hooks=events.append) as client:
        rows = [{"mv": "sonic-v6", "prompt": "a"}] * 3  # the third one waits for the rate
        many = asyncio.ensure_future(client.create_many(client.sonic.create_music, rows))
        await until(lambda: sum(isinstance(event, ResponseEvent) for event in events) == 2)
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        named = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        made = [str(entry.task_id) for entry in sandbox.journal.creates]
        assert len(made) == 2
        assert all(any(task_id in line for line in named) for task_id in made)


async def test_a_create_that_ends_as_its_caller_is_cancelled_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The call has its task, and the caller does not: there is no instant in which the id is lost."""
    callers: list[asyncio.Task[object]] = []

    def cancel(event: HookEvent) -> None:
        if isinstance(event, ResponseEvent) and event.carried_out:
            callers[0].cancel()

    async with Sandbox() as sandbox, sandbox.client(rate_limit=None, hooks=cancel) as client:
        callers.append(asyncio.ensure_future(client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)))
        with pytest.raises(asyncio.CancelledError):
            await callers[0]
        await asyncio.sleep(0)
        (entry,) = sandbox.journal.creates
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [line for line in lines if str(entry.task_id) in line]


async def test_a_place_in_flight_comes_back_when_a_task_cannot_be_looked_at() -> None:
    """A refused key, and a client that was closed and opened again, leave no place taken for ever."""
    async with Sandbox(speed=300) as sandbox:
        client = sandbox.client(rate_limit=None, max_in_flight=1, close_with_loop=True)
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        sandbox.faults.on("GET", "/sonic/task/*", Fault.status(401, body='{"error":"Invalid API key"}'))
        with pytest.raises(AuthenticationError):
            await task.wait()
        second = await client.with_options(deadline=60).sonic.create_music(mv="sonic-v6", prompt="b")
        await client.aclose()
        async with client:
            await client.task(second.token).wait()
            await client.with_options(deadline=60).sonic.create_music(mv="sonic-v6", prompt="c")


async def test_a_timeout_of_a_group_is_forgotten_once_the_task_has_ended() -> None:
    """An earlier time-out does not come up after a later success."""
    async with Sandbox(speed=300) as sandbox, sandbox.client(rate_limit=None) as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        async for _ in client.as_completed([task], timeout=2):
            pass
        async for _ in client.as_completed([task]):
            pass
        assert (await task.wait()).status == "succeeded"


async def test_waiting_for_one_task_twice_in_a_group_keeps_the_time_limit() -> None:
    """Both places get the time-out; nobody waits on behind the group's back."""
    async with Sandbox(speed=50) as sandbox, sandbox.client(rate_limit=None) as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        before = client.clock.now()
        ended = await client.wait_all([task, task], timeout=5, return_exceptions=True)
        assert [type(one) for one in ended] == [TaskTimeoutError, TaskTimeoutError]
        assert client.clock.now() - before < 30


async def test_text_that_cannot_be_sent_is_refused_at_once() -> None:
    """A lone surrogate in a key or an id harms nothing else."""
    broken = json.loads('"\\ud800"')
    async with Sandbox(speed=300) as sandbox, sandbox.client(rate_limit=None) as client:
        with pytest.raises(RequestValidationError, match="job_key"):
            client.with_options(job_key=broken)
        with pytest.raises(RequestValidationError, match="task"):
            client.task("sonic", broken)
        await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        assert sandbox.journal.charges == 20


@pytest.mark.parametrize("path", ["/get-credits\r\nX-Evil: 1", "/get credits", "/gét-credits", "/a#b"])
async def test_a_path_that_would_break_the_request_line_is_refused(path: str) -> None:
    """Nothing but visible ASCII goes into the request line."""
    async with Sandbox() as sandbox, sandbox.client() as client:
        with pytest.raises(RequestValidationError, match="path"):
            await client.request("GET", path)
        assert len(sandbox.journal) == 0


async def test_what_a_2xx_repeats_of_secrets_is_hidden_in_texts(caplog: pytest.LogCaptureFixture) -> None:
    """Key and webhook secret are hidden whatever the status, nested and escaped too; a result is data."""
    caplog.set_level("DEBUG")
    secret = 'hush "quoted" hush'
    async with (
        Sandbox(api_key="key-that-nobody-may-see") as sandbox,
        sandbox.client(rate_limit=None) as client,
    ):
        echo = json.dumps({"note": f"Bearer key-that-nobody-may-see {secret}"})
        for _ in range(2):
            sandbox.faults.on("POST", "/sonic/create", Fault.status(200, body=echo))
        body = {
            "mv": "sonic-v6",
            "prompt": "a",
            "webhook_url": "https://a.example/",
            "webhook_secret": secret,
        }
        raw = await client.request("POST", "/sonic/create", json={"requests": [body]})
        assert raw == json.loads(echo)
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.sonic.create_music(**body)
        cause = caught.value.__cause__
        text = "\n".join(
            (str(caught.value), repr(vars(caught.value)), str(cause), repr(vars(cause)), caplog.text)
        )
        assert "[hidden]" in text
        assert "key-that-nobody-may-see" not in text
        assert "hush" not in text
