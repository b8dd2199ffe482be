"""The cap on tasks in flight never blocks for ever, and a caller that waits learns why.

While a create waits for a permit, tasks that no one waits for are polled. Waiting takes no time here, so that
hours may pass.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from patience import until

from musicapi_async import (
    MusicAPI,
    OutcomeUnknownError,
    RateLimitedError,
    RequestTimeoutError,
    TaskTimeoutError,
    Webhooks,
)
from musicapi_async.jobs import MemoryStore, SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop
from musicapi_async.webhooks import sign

SECRET = "example-webhook-secret"
SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


def polls_of(sandbox: Sandbox, task_id: str) -> int:
    """The polls of a task that the sandbox has seen."""
    return len([entry for entry in sandbox.journal if entry.method == "GET" and task_id in entry.path])


async def cancelled_after_sending(client: MusicAPI, sandbox: Sandbox) -> None:
    """A create whose caller is cancelled once its POST has left."""
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(5))
    create = asyncio.ensure_future(client.sonic.create_music(**SONG))
    while not sandbox.journal.creates:  # noqa: ASYNC110 - the sandbox has no event for it
        await asyncio.sleep(0.1)
    create.cancel()
    with pytest.raises(asyncio.CancelledError):
        await create


async def wait_that_times_out(client: MusicAPI, sandbox: Sandbox) -> None:
    """A wait that ends before its task."""
    task = await client.sonic.create_music(**SONG)
    with pytest.raises(TaskTimeoutError):
        await task.wait(timeout=5)


async def never_waited(client: MusicAPI, sandbox: Sandbox) -> None:
    """A handle that no one waits for."""
    await client.sonic.create_music(**SONG)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A sandbox in virtual time with short songs."""
    async with Sandbox(longest=3) as sandbox:
        yield sandbox


@pytest.mark.parametrize("before", [cancelled_after_sending, wait_that_times_out, never_waited])
async def test_forgotten_task_frees_its_permit_when_it_ends(
    sandbox: Sandbox, before: Callable[[MusicAPI, Sandbox], Coroutine[Any, Any, None]]
) -> None:
    """The next create gets the permit of a task that no one waits for, after polls on the usual schedule."""
    async with sandbox.client(rate_limit=None, max_in_flight=1) as client:
        await before(client, sandbox)
        (first,) = sandbox.journal.creates
        await client.with_options(deadline=900).sonic.create_music(**SONG)
        assert len(sandbox.journal.creates) == 2
        assert 1 <= polls_of(sandbox, first.task_id) <= 20
        polls = polls_of(sandbox, first.task_id)
        await client.clock.sleep(600)
        assert polls_of(sandbox, first.task_id) == polls


async def test_task_is_followed_only_while_a_create_waits(sandbox: Sandbox) -> None:
    """Without a create that waits for a permit, no one polls a task that no one waits for."""
    async with sandbox.client(rate_limit=None, max_in_flight=1) as client:
        task = await client.sonic.create_music(**SONG)
        with pytest.raises(RequestTimeoutError):
            await client.with_options(deadline=1).sonic.create_music(**SONG)
        await client.clock.sleep(600)
        assert polls_of(sandbox, task.task_id) == 0
        assert (await task).status == "succeeded"


async def test_task_whose_end_came_before_its_answer_frees_its_permit(sandbox: Sandbox) -> None:
    """Also if its caller was cancelled meanwhile: the next create gets the permit, and no error."""
    hooks = Webhooks(url="https://example.com/hooks", secret=SECRET)
    async with sandbox.client(rate_limit=None, max_in_flight=1, webhooks=hooks) as client:
        await cancelled_after_sending(client, sandbox)
        (first,) = sandbox.journal.creates
        body = {"event": "song.failed", "task_id": first.task_id, "platform": "suno", "type": "failed"}
        raw, stamp = json.dumps(body).encode(), str(int(time.time()))
        headers = {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": sign(SECRET, stamp, raw)}
        await client.webhooks.handle(headers, raw)
        await client.with_options(deadline=60).sonic.create_music(**SONG)
        assert len(sandbox.journal.creates) == 2
        assert polls_of(sandbox, first.task_id) == 0


async def test_task_that_cannot_be_polled_frees_its_permit_at_last(sandbox: Sandbox) -> None:
    """Half an hour after the default deadline of 900 s the permit of a task is free, whatever happens."""
    sandbox.faults.on("GET", "/sonic/task/*", Fault.status(503), times=None)
    async with sandbox.client(rate_limit=None, max_in_flight=1) as client:
        started = client.clock.now()
        await client.sonic.create_music(**SONG)
        await client.with_options(deadline=9000).sonic.create_music(**SONG)
        assert 2700 <= client.clock.now() - started < 2800


async def test_deadline_names_the_wait_for_a_permit(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says after 5 s why nothing is sent, and the error names the reason and the seconds."""
    caplog.set_level(logging.INFO, "musicapi_async")
    async with sandbox.client(rate_limit=None, max_in_flight=1) as client:
        await client.sonic.create_music(**SONG)
        with pytest.raises(RequestTimeoutError) as caught:
            await client.with_options(deadline=12).sonic.create_music(**SONG)
    assert "it waited 12.0 s for other tasks to end (max_in_flight=1)" in str(caught.value)
    assert "POST /sonic/create: not sent yet; it waits for other tasks to end" in caplog.text
    assert caught.value.sent is False


async def test_deadline_names_the_wait_for_the_rate(sandbox: Sandbox) -> None:
    """So it does for the rate limit; nothing was sent."""
    async with sandbox.client(rate_limit="1/1min") as client:
        await client.sonic.create_music(**SONG)
        with pytest.raises(RequestTimeoutError, match=r"it waited 12\.0 s for the rate limit \(1/60s\)"):
            await client.with_options(deadline=12).sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 1


async def test_refusal_names_the_pause_before_it(sandbox: Sandbox) -> None:
    """A create that was refused for the rate again says how long it waited because of the first refusal."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=20), times=2)
    async with sandbox.client(rate_limit=None, max_retries=1) as client:
        with pytest.raises(RateLimitedError) as caught:
            await client.sonic.create_music(**SONG)
    assert "requests; it waited 20.0 s because the service refused the rate of requests" in str(caught.value)
    assert "Nothing was charged" in str(caught.value)


async def test_refusal_holds_back_the_other_creates(sandbox: Sandbox) -> None:
    """What the service says to one of them holds for all: none is sent before its Retry-After is over."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=20))
    async with sandbox.client(rate_limit=None) as client:
        refused = asyncio.ensure_future(client.sonic.create_music(**SONG))
        while not sandbox.journal.creates:  # noqa: ASYNC110 - the sandbox has no event for it
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        began = client.clock.now()
        await client.sonic.create_music(**SONG)
        assert 18 <= client.clock.now() - began <= 25
        await refused
    assert [entry.status for entry in sandbox.journal.creates] == [429, 200, 200]


async def test_rate_recovers_after_a_refusal() -> None:
    """One refusal slows creates down, and later successes let them be as fast as before."""
    async with Sandbox(longest=3, credits=2000) as sandbox, sandbox.client(rate_limit="1/3s") as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=20), after=1)
        await asyncio.gather(*(client.sonic.create_music(**SONG) for _ in range(80)))
    pauses = sandbox.journal.intervals()
    assert max(pauses[2:12]) > 3.5
    assert max(pauses[-3:]) == pytest.approx(3, abs=0.2)


async def test_tasks_that_an_error_names_are_in_flight(sandbox: Sandbox) -> None:
    """They were accepted; the permits of the other songs are given back."""
    body = '{"error": "out of credits", "tasks": [{"task_id": "t1"}, {"error": "no credits"}]}'
    sandbox.faults.on("POST", "/sonic/batch", Fault.status(400, body=body, taken=True))
    async with sandbox.client(rate_limit=None, max_in_flight=2) as client:
        with pytest.raises(OutcomeUnknownError, match="t1"):
            await client.sonic.create_batch([SONG, SONG])
        view = client.with_options(deadline=8)
        await view.sonic.create_music(**SONG)
        with pytest.raises(RequestTimeoutError, match="max_in_flight=2"):
            await view.sonic.create_music(**SONG)


async def test_hint_advises_nothing_that_cannot_help(sandbox: Sandbox) -> None:
    """More retries do not help where the service asks to wait an hour."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=3600))
    async with sandbox.client(rate_limit=None) as client:
        with pytest.raises(RateLimitedError) as caught:
            await client.sonic.create_music(**SONG)
    assert "max_retries" not in caught.value.hint
    assert "3600 s" in caught.value.hint


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_deadline_holds_while_another_program_locks_the_store(tmp_path: Path) -> None:
    """A locked SQLite file delays an error by a moment only; the note follows when the lock is gone."""
    path = tmp_path / "jobs.sqlite"
    async with (
        Sandbox(speed=20) as sandbox,
        sandbox.client(rate_limit=None, store=SQLiteStore(path)) as client,
    ):
        assert await client.jobs() == []
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            started = time.monotonic()
            with pytest.raises(RequestTimeoutError) as caught:
                await client.with_options(job_key="k", deadline=5).sonic.create_music(**SONG)
            assert time.monotonic() - started < 5
            assert caught.value.sent is False
        finally:
            other.execute("ROLLBACK")
            other.close()

        async def is_free() -> bool:
            return await client.job("k") is None

        await until(is_free)
        await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert len(sandbox.journal.creates) == 1


async def test_balance_on_the_way_out_is_bounded(sandbox: Sandbox) -> None:
    """A balance that is never answered does not hold an error beyond its deadline for long."""
    async with sandbox.client(rate_limit=None, store=MemoryStore()) as client:
        await client.credits()
        sandbox.faults.on("GET", "/get-credits", Fault.hang_before, times=None, after=1)
        sandbox.faults.on("POST", "/sonic/create", Fault.hang)
        view = client.with_options(job_key="k", deadline=30, check_balance=True)
        started = client.clock.now()
        with pytest.raises(OutcomeUnknownError):
            await view.sonic.create_music(**SONG)
        assert client.clock.now() - started < 60
        (job,) = await client.jobs("ambiguous")
        assert job.balance_before is not None
        assert job.balance_after is None


async def test_await_waits_for_a_task(sandbox: Sandbox) -> None:
    """`await task` is `await task.wait()`, any number of times."""
    async with sandbox.client(rate_limit=None) as client:
        task = await client.sonic.create_music(**SONG)
        clips = await task
        assert len(clips) == 2
        assert await task is await task.wait()
