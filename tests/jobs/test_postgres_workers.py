"""One account, many workers, one database: what the sandbox has seen of them. Server and time are real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, TCPConnector
from fleet import ACCOUNT, PERIOD, Fleet
from forked import Forked
from patience import PATIENCE, until
from postgres_proxy import Proxy, proxy_to
from postgres_server import PASSWORD, USER, PostgresServer
from shared_back_end import SECRET, WORKER

from musicapi_async import Clips, Clock, PostgresStore, Rate, Task, webhooks
from musicapi_async._transport.rate_window import ROUNDING
from musicapi_async.jobs.postgres_rate import PostgresLimiter
from musicapi_async.jobs.postgres_tickets import Leaving
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.sandbox.reply_choices import Durations

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
EXAMPLES = Path(__file__).parents[1] / "contract" / "examples"
SPEED = 12.0
"""A slot of the documented rate takes 250 ms."""
WORKERS = 4
"""Processes of a back end."""
JITTER = 0.4
"""The part of a slot by which the sandbox lets a create be early: on a busy machine it reads one late, and the
next on time. Each counts as if it had come on time, so more than the rate is refused all the same."""


@pytest.fixture
def anyio_backend() -> str:
    """Real time: server and workers live in it."""
    return "asyncio"


def judging(speed: float, song: float = 75.0) -> Sandbox:
    """A sandbox that refuses what is above the rate; songs take so many seconds."""
    return Sandbox(
        speed=speed,
        credits=1e6,
        create_limit=(1, PERIOD),
        jitter=JITTER * 1000 * PERIOD / speed,
        durations=Durations(song=(song, 0.3)),
    )


@pytest.fixture
async def proxy(server: PostgresServer, address: str) -> AsyncGenerator[Proxy]:
    """A proxy to the server, whose database is empty."""
    async with proxy_to(server.port) as proxy:
        yield proxy


def through(proxy: Proxy) -> PostgresStore:
    """A store behind the proxy."""
    return PostgresStore(f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}/postgres")


def rows(server: PostgresServer, table: str) -> int:
    """How many rows a table of the store has."""
    return server.execute(f"SELECT count(*) FROM musicapi.{table}")[0][0]


async def test_processes_keep_one_rate(server: PostgresServer, address: str, tmp_path: Path) -> None:
    """Six workers with five songs each: never two creates within 3 s, and every song once."""
    async with judging(SPEED) as sandbox:
        fleet = Fleet(sandbox, server, address, tmp_path, workers=6, songs=30)
        fleet.start()
        found = await fleet.end()
        fleet.check(found)
        assert not found.ambiguous
        assert found.charged.total() == 30


async def test_killed_workers_lose_and_repeat_nothing(
    server: PostgresServer, address: str, tmp_path: Path
) -> None:
    """SIGKILL at four instants, in every other one while a create has no answer: permits return, and each song is
    made once or listed as unknown."""
    async with judging(2 * SPEED, song=40.0) as sandbox:
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(2.0), times=None)
        fleet = Fleet(sandbox, server, address, tmp_path, workers=3, songs=24, max_in_flight=9, waits=True)
        fleet.start()
        await fleet.kill_and_restart(4, seed=3)
        found = await fleet.end()
        fleet.check(found)
        assert set[str]().union(*fleet.killed), "no kill fell between a create and its answer"


async def test_connections_are_cut_at_any_message(server: PostgresServer, proxy: Proxy) -> None:
    """Each create loses a connection at another message to the database, or the answer to it; all are sent once."""
    async with (
        Sandbox(speed=600, credits=1e6) as sandbox,
        sandbox.client(
            store=through(proxy), account=ACCOUNT, rate_limit="1000/s", max_in_flight=1000
        ) as client,
    ):
        tasks = list[Task[Clips]]()
        while proxy.cuts == len(tasks):  # until a create has fewer messages than that
            proxy.cut(1 + 3 * len(tasks), answer_only=len(tasks) % 2 == 0)
            keyed = client.with_options(job_key=str(len(tasks)))
            tasks.append(await keyed.sonic.create_music(**SONG))
        proxy.cut(0, answer_only=False)
        assert len(tasks) > 12
        await client.wait_all(tasks)
        assert len(sandbox.journal.creates) == len({task.task_id for task in tasks}) == len(tasks)
        assert len(await client.jobs("finished")) == len(tasks)
        await until(lambda: rows(server, "permits") == rows(server, "queue") == 0)


async def test_slow_connection_makes_no_one_faster(server: PostgresServer, proxy: Proxy) -> None:
    """The transactions of one worker take longer than a slot of the rate: it is served among the others, each in
    its order, and none comes sooner than the rate."""
    async with (
        Sandbox(speed=20) as sandbox,
        sandbox.client(store=through(proxy), account=ACCOUNT) as distant,
        sandbox.client(store=PostgresStore(server.address()), account=ACCOUNT) as near,
    ):
        store = PostgresStore(server.address())
        await store.set_rate(ACCOUNT, Rate.parse("1/h"))
        await near.sonic.create_music(**SONG)
        server.watch_departures()
        proxy.delay = 0.005
        begun = list[asyncio.Task[Task[Clips]]]()
        for number in range(9):
            client = near if number % 3 else distant
            begun.append(asyncio.create_task(client.sonic.create_music(**SONG, title=str(number))))
            await until(lambda: rows(server, "queue") == len(begun))
        await store.set_rate(ACCOUNT, Rate.parse("1/3s"))
        await asyncio.gather(*begun)
        await store.aclose()
        assert len(sandbox.journal.creates) == 10
        left = server.departures()
        assert len(left) >= 9  # a create whose connection does not open in time departs once more
        assert min(later - one for (*_, one), (*_, later) in pairwise(left)) >= PERIOD / 20 - ROUNDING
        places = [
            [place for owner, place, _ in left if owner == who] for who in {owner for owner, *_ in left}
        ]
        assert len(places) == 2
        assert all(own == sorted(own) for own in places)


async def test_departure_whose_answer_is_lost_has_its_place_again(address: str) -> None:
    """It is counted once more, as no one knows of it, but before those that came later."""
    store = PostgresStore(address)
    limiter = store.limiter(ACCOUNT, Rate.parse("1/10s"), Clock(), None)
    assert isinstance(limiter, PostgresLimiter)
    assert (await limiter.start("first", Leaving(0.0))).at is not None
    assert (await limiter.start("later")).wait < 11
    assert (await limiter.start("first", Leaving(0.0))).wait < 11
    assert (await limiter.start("later")).wait > 19
    limiter.withdraw("first")
    assert (await limiter.start("later")).wait < 11
    await store.aclose()


async def test_disk_that_is_slower_than_the_network_stops_no_one(
    server: PostgresServer, address: str
) -> None:
    """A departure is written to the disk, which the other transactions do not wait for."""
    async with judging(60) as sandbox:
        stores = [PostgresStore(address) for _ in range(2)]
        clients = [sandbox.client(store=store, account=ACCOUNT) for store in stores]
        await stores[0].rate(ACCOUNT)
        server.execute(
            """
            CREATE FUNCTION musicapi.write_slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF current_setting('synchronous_commit') = 'on' THEN PERFORM pg_sleep(0.05); END IF;
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER slow_disk AFTER UPDATE ON musicapi.rates
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION musicapi.write_slowly();
            """
        )
        async with clients[0] as one, clients[1] as other:
            await asyncio.gather(
                *(client.sonic.create_music(**SONG) for client in (one, other) for _ in range(3))
            )
        assert [entry.status for entry in sandbox.journal.creates] == [200] * 6


async def test_database_is_away_for_five_seconds(server: PostgresServer, address: str) -> None:
    """A create that begins meanwhile is sent when it is back, once; the store is used again by itself."""
    async with (
        judging(60) as sandbox,
        sandbox.client(store=PostgresStore(address), account=ACCOUNT) as client,
    ):
        task = await client.sonic.create_music(**SONG)
        server.stop()
        try:
            begun = asyncio.create_task(client.sonic.create_music(**SONG))
            assert (await task.wait()).status == "succeeded"
            await asyncio.sleep(5)
            assert len(sandbox.journal.creates) == 1
        finally:
            server.start()
        await begun
        assert len(sandbox.journal.creates) == 2
        assert sorted(job.state for job in await client.jobs()) == ["accepted", "finished"]


async def test_webhook_to_any_worker_of_a_back_end_ends_the_streams_of_all(
    server: PostgresServer, address: str, tmp_path: Path
) -> None:
    """The back end of the README in four processes behind one port; no song is finished before its webhook."""
    store = PostgresStore(address)
    await store.set_rate(ACCOUNT, None)
    async with (
        Sandbox(durations=Durations(song=(3600.0, 0.0))) as sandbox,
        back_end(sandbox, address, tmp_path) as url,
    ):
        received = set[str]()
        async with ClientSession(url, connector=TCPConnector(limit=0, force_close=True)) as browser:
            while len(received) < 2:
                async with browser.post("/songs", params={"description": "calm rain"}) as response:
                    events = (await response.json())["events"]
                streams = list[ClientResponse]()
                while len({stream.headers[WORKER] for stream in streams}) < WORKERS:
                    streams.append(await browser.get(events))
                    assert streams[-1].status == 200
                    assert len(streams) < 200, "connections do not reach all workers"
                async with browser.post("/webhooks/musicapi", **delivery(sandbox)) as response:
                    assert response.status == 204
                    received.add(response.headers[WORKER])
                async with asyncio.timeout(PATIENCE / 2):
                    for stream in streams:
                        assert "Example Title" in (await stream.text()).split("event: update")[-1]
    await store.aclose()


@asynccontextmanager
async def back_end(sandbox: Sandbox, address: str, folder: Path) -> AsyncGenerator[str]:
    """The address of four processes that listen on one port."""
    environment = {
        **os.environ,
        "MUSICAPI_KEY": sandbox.api_key,
        "MUSICAPI_BASE_URL": sandbox.base_url,
        "MUSICAPI_ACCOUNT": ACCOUNT,
        "MUSICAPI_STORE": address,
    }
    with socket.create_server(("127.0.0.1", 0)) as listening, (folder / "log").open("wb") as log:
        streams = (listening.fileno(), log.fileno(), log.fileno())
        started = [
            Forked("shared_back_end:main", environment=environment, streams=streams) for _ in range(WORKERS)
        ]
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                await process.ended()


def delivery(sandbox: Sandbox) -> dict[str, Any]:
    """The webhook that announces the song that was created last."""
    body = json.loads((EXAMPLES / "webhook-sonic-completed.json").read_text(encoding="utf-8"))
    raw = json.dumps({**body, "task_id": sandbox.journal.creates[-1].task_id}).encode()
    stamp = str(int(time.time()))
    return {
        "data": raw,
        "headers": {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": webhooks.sign(SECRET, stamp, raw)},
    }
