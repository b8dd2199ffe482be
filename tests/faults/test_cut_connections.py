"""The cable cut before, during and after every paid POST: requests and charges are counted at the server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from open_files import open_files

from musicapi_async import (
    ConnectFailedError,
    ConnectionLostError,
    InvalidResponseError,
    MusicAPI,
    MusicAPIError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    TaskTimeoutError,
    UpstreamError,
)
from musicapi_async.sandbox import Fault, Sandbox

LYRICS = "[Verse]\nRain on the window"
Create = Callable[[MusicAPI, str], Awaitable[Any]]

PAID: dict[str, tuple[str, Create]] = {
    "create_music": (
        "/sonic/create",
        lambda client, clip: client.sonic.create_music(mv="sonic-v6", prompt=LYRICS),
    ),
    "extend_music": (
        "/sonic/create",
        lambda client, clip: client.sonic.extend_music(
            continue_clip_id=clip, continue_at=5, custom_mode=True, mv="sonic-v6", prompt=LYRICS
        ),
    ),
    "create_persona": ("/sonic/persona", lambda client, clip: client.sonic.create_persona("Voice", clip)),
    "raw": (
        "/sonic/create",
        lambda client, clip: client.request(
            "POST", "/sonic/create", json={"custom_mode": True, "mv": "sonic-v6", "prompt": LYRICS}
        ),
    ),
}

UNKNOWN: dict[str, tuple[Fault, type[Exception], bool]] = {
    "reset before it was taken": (Fault.reset_before, ConnectionLostError, False),
    "closed before it was taken": (Fault.refuse, ConnectionLostError, False),
    "reset after it was taken": (Fault.reset_after, ConnectionLostError, True),
    "never answered": (Fault.hang, RequestTimeoutError, True),
    "half an answer": (Fault.truncate, ConnectionLostError, True),
    "garbage": (Fault.garbage, InvalidResponseError, True),
    "a page of a gateway": (Fault.html, InvalidResponseError, True),
    "500": (Fault.status(500), ServerError, False),
    "502 after it was taken": (Fault.status(502, taken=True), UpstreamError, True),
    "503 without a body": (Fault.status(503, body=None), UpstreamError, False),
    "504": (Fault.status(504), UpstreamError, False),
}


async def source_clip(client: MusicAPI) -> str:
    task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS, title="Source")
    return (await task.wait())[0].clip_id


@pytest.mark.parametrize("operation", PAID)
@pytest.mark.parametrize("fault", UNKNOWN)
async def test_a_paid_call_is_sent_once_whatever_happens_to_it(operation: str, fault: str) -> None:
    """One request at the server, never a second charge; the error says that money may have moved, and why."""
    path, call = PAID[operation]
    strike, cause, charged = UNKNOWN[fault]
    async with (
        Sandbox(speed=300, seed=1) as sandbox,
        sandbox.client(rate_limit=None, attempt_timeout=0.3) as client,
    ):
        clip = await source_clip(client)
        before, paid = len(sandbox.journal.requests(path)), sandbox.journal.charges
        sandbox.faults.on("POST", path, strike)
        with pytest.raises(OutcomeUnknownError) as caught:
            await call(client, clip)
        assert isinstance(caught.value.__cause__, cause)
        assert caught.value.may_have_been_charged
        assert caught.value.__cause__.may_have_been_charged
        assert "may have been charged" in str(caught.value)
        assert len(sandbox.journal.requests(path)) == before + 1
        assert (sandbox.journal.charges > paid) is charged
        assert not sandbox.journal.charged_twice()


@pytest.mark.parametrize("operation", PAID)
async def test_a_refusal_for_the_rate_is_repeated_and_paid_once(operation: str) -> None:
    """429 with and without Retry-After, and 403 'QPS limit': refused before acceptance, so sent again."""
    path, call = PAID[operation]
    async with Sandbox(speed=300, seed=1) as sandbox, sandbox.client(rate_limit=None) as client:
        clip = await source_clip(client)
        paid = sandbox.journal.charges
        sandbox.faults.on("POST", path, Fault.status(429, retry_after=2))
        sandbox.faults.on("POST", path, Fault.status(429))
        body = '{"type":"forbidden","message":"API QPS limit exceeded"}'
        sandbox.faults.on("POST", path, Fault.status(403, body=body))
        before = sandbox.journal.requests(path)
        await call(client, clip)
        attempts = sandbox.journal.requests(path)[len(before) :]
        assert [entry.status for entry in attempts] == [429, 429, 403, 200]
        assert round(attempts[1].at - attempts[0].at, 6) >= 2
        assert sandbox.journal.charges - paid == attempts[-1].charge > 0


async def test_refused_for_ever_ends_with_the_error_and_costs_nothing() -> None:
    """After the retries the rate error reaches the caller."""
    async with Sandbox(speed=300) as sandbox, sandbox.client(rate_limit=None, max_retries=2) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=1), times=None)
        with pytest.raises(RateLimitedError) as caught:
            await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        assert caught.value.retry_after == 1
        assert not caught.value.may_have_been_charged
        assert len(sandbox.journal.creates) == 3
        assert sandbox.journal.charges == 0


async def test_no_connection_is_tried_again_and_said_to_have_sent_nothing() -> None:
    """A service that is down costs nothing; one that comes back within the retries is reached."""
    sandbox = Sandbox(speed=50)
    async with sandbox:
        port = sandbox.base_url
        client = sandbox.client(max_retries=1)
    async with client:
        with pytest.raises(ConnectFailedError) as caught:
            await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        assert caught.value.sent is False
        assert "Nothing was sent" in str(caught.value)
        assert port.startswith("http://127.0.0.1")
    assert len(sandbox.journal.creates) == 0


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_body_that_the_server_does_not_read_keeps_no_connection_open() -> None:
    """The rest of it would wait for a server that may never read it, even after the time is over."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        base_url = f"http://127.0.0.1:{server.getsockname()[1]}/api/v1"
        before = open_files()
        async with MusicAPI("key-of-a-test", base_url=base_url, attempt_timeout=1) as client:
            with pytest.raises(OutcomeUnknownError, match="no answer within 1 s"):
                await client.request("POST", "/sonic/create", json={"prompt": "la" * 10_000_000})
        assert open_files() <= before


async def test_creates_never_travel_on_a_connection_that_was_used_before() -> None:
    """A server that closes idle connections cannot make a create ambiguous."""
    async with Sandbox(speed=300) as sandbox, sandbox.client(rate_limit=None) as client:
        for _ in range(3):
            await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
            sandbox.faults.on("GET", "/get-credits", Fault.refuse)
            await client.credits()
        assert [entry.status for entry in sandbox.journal.creates] == [200, 200, 200]


@pytest.mark.parametrize("fault", [name for name in UNKNOWN if "500" not in name])
async def test_free_calls_are_repeated(fault: str) -> None:
    """A passing fault of a free call is not seen by the caller."""
    async with Sandbox(speed=300) as sandbox, sandbox.client(attempt_timeout=0.3) as client:
        sandbox.faults.on("GET", "/get-credits", UNKNOWN[fault][0])
        assert (await client.credits()).total == 1000
        assert len(sandbox.journal.requests("/get-credits")) == 2


@pytest.mark.parametrize("fault", UNKNOWN)
async def test_an_outage_of_minutes_ends_no_wait(fault: str) -> None:
    """Eight polls in a row fail, over more than three minutes; the wait of 900 s goes on and gets the clips."""
    async with Sandbox(speed=600, seed=1) as sandbox, sandbox.client(attempt_timeout=0.3) as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        sandbox.faults.on("GET", "/sonic/task/*", UNKNOWN[fault][0], times=8)
        assert (await task.wait(timeout=5000)).status == "succeeded"
        assert sandbox.journal.charges == 20
        assert len(sandbox.journal.polls) >= 9


async def test_an_outage_until_the_time_is_over_is_named_and_the_wait_can_be_resumed() -> None:
    """The error is a time-out with task id and trouble; nothing is lost, nothing paid again."""
    async with Sandbox(speed=600, seed=1) as sandbox, sandbox.client() as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        sandbox.faults.on("GET", "/sonic/task/*", Fault.reset_before, times=None)
        with pytest.raises(TaskTimeoutError, match="the last poll failed: the connection dropped") as caught:
            await task.wait()
        assert caught.value.task_id == task.task_id
        assert caught.value.elapsed >= 900
        assert "already paid for" in str(caught.value)
        sandbox.faults.clear()
        assert (await task.wait()).status == "succeeded"
        assert sandbox.journal.charges == 20


async def test_a_client_whose_host_never_answered_stops_after_five_polls() -> None:
    """The address is the likely cause then: no reason to wait for 15 minutes. One answer changes that."""
    async with Sandbox(speed=600, seed=1) as sandbox:
        async with sandbox.client() as client:
            task_id = (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)).task_id
        sandbox.faults.on("GET", "/sonic/task/*", Fault.status(503), times=None)
        async with sandbox.client() as client:
            polled = len(sandbox.journal.polls)
            with pytest.raises(ServerError) as caught:
                await client.task("sonic", task_id).wait()
            assert caught.value.task_id == task_id
            assert len(sandbox.journal.polls) - polled == 5
            await client.credits()
            with pytest.raises(TaskTimeoutError, match="the last poll failed"):
                await client.task("sonic", task_id).wait()


def test_an_answer_in_one_loop_counts_in_the_next() -> None:
    """The host is the client's, whichever loop asked it."""

    async def outage(client: MusicAPI, task_id: str) -> None:
        async with client:
            with pytest.raises(TaskTimeoutError):
                await client.task("sonic", task_id).wait(timeout=300)

    async def whole() -> None:
        async with Sandbox(speed=600, seed=1) as sandbox:
            client = sandbox.client()
            task_id = await asyncio.to_thread(asyncio.run, create(client))
            sandbox.faults.on("GET", "/sonic/task/*", Fault.reset_before, times=None)
            await asyncio.to_thread(asyncio.run, outage(client, task_id))
            assert len(sandbox.journal.polls) > 5

    async def create(client: MusicAPI) -> str:
        async with client:
            return (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)).task_id

    asyncio.run(whole())


async def test_a_deadline_over_a_create_is_ambiguous_only_if_it_was_sent() -> None:
    """Still waiting for the rate_limit: nothing was sent. Under way: may have been charged."""
    async with Sandbox(speed=50) as sandbox, sandbox.client() as client:
        hasty = client.with_options(deadline=20)
        sandbox.faults.on("POST", "/sonic/create", Fault.hang)
        with pytest.raises(OutcomeUnknownError) as caught:
            await hasty.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        assert isinstance(caught.value.__cause__, RequestTimeoutError)
    async with Sandbox(speed=50) as sandbox, sandbox.client(rate_limit="1/1h") as client:
        await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        with pytest.raises(RequestTimeoutError) as early:
            await client.with_options(deadline=20).sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        assert early.value.sent is False
        assert not early.value.may_have_been_charged
        assert len(sandbox.journal.creates) == 1


async def test_random_faults_never_pay_twice_and_never_lose_a_paid_task() -> None:
    """Over many creates with random faults: charges equal accepted tasks plus those reported as unknown."""
    from musicapi_async.sandbox import Faults

    rates = {
        Fault.reset_before: 0.05,
        Fault.reset_after: 0.05,
        Fault.status(429, retry_after=1): 0.1,
        Fault.status(503, body=None): 0.05,
        Fault.truncate: 0.05,
    }
    async with (
        Sandbox(speed=1000, seed=9, credits=100_000, faults=Faults(seed=9, rates=rates)) as sandbox,
        sandbox.client(rate_limit=None, max_retries=6) as client,
    ):
        made = await client.create_many(
            client.sonic.create_music,
            [{"mv": "sonic-v6", "prompt": LYRICS, "title": f"{n}"} for n in range(150)],
        )
        known = {task.task_id for task in made if not isinstance(task, MusicAPIError)}
        unknown = [error for error in made if isinstance(error, OutcomeUnknownError)]
        assert len(known) + len(unknown) == 150
        charged = {entry.task_id for entry in sandbox.journal.creates if entry.charge}
        assert known <= charged
        assert len(charged - known) <= len(unknown)
        titles = [e.body["title"] for e in sandbox.journal.creates if e.charge and isinstance(e.body, dict)]
        assert len(titles) == len(set(titles))
        assert unknown
