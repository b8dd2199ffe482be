"""The sandbox's webhooks, whole and broken, into a client inside an aiohttp app."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from musicapi_async import MusicAPI, OutcomeUnknownError, Webhooks
from musicapi_async.contrib.aiohttp_web import CLIENT, setup
from musicapi_async.sandbox import Durations, Fault, Faults, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

SONGS = 30


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Sandbox, receiver and client share a loop in which waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@asynccontextmanager
async def receiving(sandbox: Sandbox, **options: Any) -> AsyncGenerator[MusicAPI]:
    """A client whose webhooks arrive at a real server."""
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    url: list[str] = []
    setup(
        app,
        lambda: sandbox.client(rate_limit=None, webhooks=Webhooks(url[0], "a secret of a test"), **options),
        events=None,
    )
    sock = await _listen(url)
    await runner.setup()
    site = web.SockSite(runner, sock)
    await site.start()
    try:
        yield app[CLIENT]
    finally:
        await runner.cleanup()


async def _listen(url: list[str]) -> Any:
    import socket

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    url.append(f"http://127.0.0.1:{sock.getsockname()[1]}/webhooks/musicapi")
    return sock


async def make_songs(client: MusicAPI) -> None:
    """Order songs, wait for all of them through new handles, as other requests would."""
    rows = [{"mv": "sonic-v6", "gpt_description_prompt": f"song {number}"} for number in range(SONGS)]
    tasks = await client.create_many(client.sonic.create_music, rows)
    tokens = [task.token for task in tasks if not isinstance(task, Exception)]
    assert len(tokens) == SONGS
    async for task in client.as_completed([client.task(token) for token in tokens]):
        assert len(await task.wait()) == 2


async def first_webhook(client: MusicAPI, sandbox: Sandbox) -> int:
    """Wait for a song, so that the client knows that webhooks arrive; returns the polls so far."""
    await (await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="the first")).wait()
    return sandbox.journal.tally()["poll"]


async def test_with_webhooks_songs_need_no_polls() -> None:
    """Once a webhook has come, every song ends by its webhook and none is polled."""
    async with Sandbox(seed=1) as sandbox, receiving(sandbox) as client:
        polls = await first_webhook(client, sandbox)
        await make_songs(client)
        assert sandbox.journal.tally()["poll"] == polls
        assert {entry.status for entry in sandbox.journal.webhooks} <= {0, 204}  # 0: still being answered
        assert len(sandbox.journal.webhooks) == 2 * (SONGS + 1)


async def test_the_first_song_is_not_late_where_webhooks_never_arrive() -> None:
    """A URL that the service cannot reach costs polls, not five minutes."""
    hooks = Webhooks("http://127.0.0.1:9/webhooks", "a secret of sixteen or more")
    async with Sandbox(seed=1) as sandbox, sandbox.client(webhooks=hooks) as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        await task.wait()
        (work,) = sandbox.service.tasks
        assert sandbox.now() <= work.ends + 30


@pytest.mark.parametrize(
    "fault",
    [Fault.late(40), Fault.duplicate, Fault.lost, Fault.wrong_secret, Fault.old_timestamp, Fault.unsigned,
     Fault.reordered],
    ids=lambda fault: fault.name,
)  # fmt: skip
async def test_broken_deliveries_make_nothing_wrong_and_little_late(fault: Fault) -> None:
    """All deliveries broken in one way: every song ends, at most as late as the slow interval."""
    durations = Durations(song=(100.0, 0.3))
    async with Sandbox(seed=2, durations=durations) as sandbox, receiving(sandbox) as client:
        polls, before = await first_webhook(client, sandbox), len(sandbox.journal.webhooks)
        sandbox.faults.on("WEBHOOK", "*", fault, times=None)
        await make_songs(client)
        ends = [work.ends for work in sandbox.service.tasks]
        assert sandbox.now() <= max(ends) + 330
        if fault.name in ("duplicate", "reordered", "late"):
            assert sandbox.journal.tally()["poll"] - polls <= 2 * SONGS
        if fault.name in ("wrong_secret", "old_timestamp", "unsigned"):
            assert {entry.status for entry in sandbox.journal.webhooks[before:]} == {400}
        assert sandbox.journal.charges == 20 * (SONGS + 1)


async def test_all_faults_together() -> None:
    """A third of the deliveries goes wrong in some way: everything ends right, with few polls."""
    rates = {
        Fault.late(30): 0.06, Fault.duplicate: 0.06, Fault.lost: 0.06, Fault.wrong_secret: 0.04,
        Fault.old_timestamp: 0.04, Fault.unsigned: 0.04, Fault.reordered: 0.04,
    }  # fmt: skip
    async with Sandbox(seed=3, faults=Faults(seed=5, rates=rates)) as sandbox, receiving(sandbox) as client:
        await make_songs(client)
        assert sandbox.journal.tally()["poll"] <= 2 * SONGS
        assert sandbox.journal.charges == 20 * SONGS


async def test_webhook_of_a_lost_response_brings_no_polls() -> None:
    """Its job key says that it was ordered here, so the URL is not taken for a shared one."""
    async with Sandbox(seed=1) as sandbox, receiving(sandbox) as client:
        polls = await first_webhook(client, sandbox)
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError):
            await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="lost")
        await make_songs(client)
        assert sandbox.journal.tally()["poll"] == polls


async def test_workers_that_share_a_url_are_not_late() -> None:
    """Each delivery reaches one of three, and mostly not the one that waits: that one polls as usual."""
    draw = random.Random(3)
    workers: list[MusicAPI] = []
    late: list[float] = []

    async def pass_on(request: web.Request) -> web.Response:
        inbox = draw.choice(workers).webhooks
        await inbox.handle(request.headers, await request.read(), url=str(request.rel_url))
        return web.Response(status=204)

    async def make_one(client: MusicAPI, number: int) -> None:
        await client.clock.sleep(number)
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt=f"song {number}")
        await task.wait()
        late.append(sandbox.now() - next(w.ends for w in sandbox.service.tasks if w.task_id == task.task_id))

    app, url = web.Application(), list[str]()
    app.router.add_post("/webhooks/musicapi", pass_on)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    sock = await _listen(url)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    async with AsyncExitStack() as open_, Sandbox(seed=6, durations=Durations(song=(100.0, 0.3))) as sandbox:
        for _ in range(3):
            client = sandbox.client(rate_limit=None, webhooks=Webhooks(url[0], "a secret of a test"))
            workers.append(await open_.enter_async_context(client))
        async with asyncio.TaskGroup() as group:
            for number in range(SONGS):
                group.create_task(make_one(workers[number % 3], number))
    await runner.cleanup()
    assert max(late) < 70


async def test_failed_songs_are_failed() -> None:
    """`song.failed` comes with the refund, and without a poll."""
    async with Sandbox(seed=4) as sandbox, receiving(sandbox) as client:
        polls = await first_webhook(client, sandbox)
        sandbox.faults.on("POST", "/sonic/create", Fault.fail(), times=None)
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        ended = await client.wait_all([client.task(task.token)], return_exceptions=True)
        assert getattr(ended[0], "refunded", None) is True
        assert sandbox.journal.tally()["poll"] == polls
