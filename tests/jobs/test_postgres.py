"""What a PostgreSQL store alone does: one database for many machines. The server is real, and so is time."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pickle
import shlex
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from forked import Piped
from open_files import open_files
from patience import PATIENCE, until
from postgres_server import PASSWORD, PostgresServer

from musicapi_async import (
    Clock,
    JobStoreError,
    MusicAPI,
    PostgresStore,
    Rate,
    RateLimitedError,
    RequestValidationError,
    Webhooks,
    webhooks,
)
from musicapi_async._transport.rate_window import ROUNDING
from musicapi_async.jobs import find_store
from musicapi_async.jobs.postgres_rate import PostgresLimiter
from musicapi_async.sandbox import Fault, Sandbox

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
SECRET = "a secret of sixteen or more"
ACCOUNT = "studio"
EXAMPLES = Path(__file__).parents[1] / "contract" / "examples"


class Hasty(PostgresStore):
    """A store that waits for its server for a moment only, and whose lease is short."""

    patience = 0.3
    lease = 1.5


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the server lives in it."""
    return "asyncio"


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A sandbox in which a slot of the documented rate takes 50 ms."""
    async with Sandbox(speed=60, credits=1e6) as sandbox:
        yield sandbox


@pytest.fixture
async def store(address: str) -> AsyncGenerator[PostgresStore]:
    """A store to set the rate with."""
    store = PostgresStore(address)
    yield store
    await store.aclose()


@asynccontextmanager
async def workers(
    sandbox: Sandbox, address: str, count: int, kind: type[PostgresStore] = PostgresStore, **options: Any
) -> AsyncGenerator[list[MusicAPI]]:
    """Clients with a store of their own each, as in as many processes."""
    async with AsyncExitStack() as opened:
        yield [
            await opened.enter_async_context(sandbox.client(store=kind(address), account=ACCOUNT, **options))
            for _ in range(count)
        ]


# --- the tables -------------------------------------------------------------------------------------------


async def test_workers_that_begin_at_once_make_the_tables_once(address: str) -> None:
    """One makes them, and the others wait and find them."""
    stores = [PostgresStore(address) for _ in range(8)]
    assert await asyncio.gather(*(store.jobs() for store in stores)) == [[]] * 8
    for store in stores:
        await store.aclose()


async def test_other_version_is_refused(server: PostgresServer, address: str, sandbox: Sandbox) -> None:
    """A newer worker has changed the tables: an older one sends nothing more, at work or new."""
    async with workers(sandbox, address, 1, rate_limit=None) as (client,):
        await client.sonic.create_music(**SONG)
        server.execute("UPDATE musicapi.store SET version = 99")
        with pytest.raises(JobStoreError, match="has version 99, and this version of the package knows"):
            await client.sonic.create_music(**SONG)
    with pytest.raises(JobStoreError, match="version 99"):
        await PostgresStore(address).jobs()
    assert len(sandbox.journal.creates) == 1


async def test_replaced_database_is_refused(server: PostgresServer, address: str, sandbox: Sandbox) -> None:
    """A running process pays for no key again because its database was replaced by an empty one."""
    async with workers(sandbox, address, 1, rate_limit=None) as (client,):
        keyed = client.with_options(job_key="song")
        await keyed.sonic.create_music(**SONG)
        for _ in range(2):  # without tables, and with those that another worker has made
            server.empty()
            with pytest.raises(JobStoreError, match="replaced by another database"):
                await keyed.sonic.create_music(**SONG)
            other = PostgresStore(address)
            assert await other.jobs() == []
            await other.aclose()
            with pytest.raises(JobStoreError, match="replaced by another database"):
                await keyed.sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 1


# --- the address ------------------------------------------------------------------------------------------


async def test_password_is_never_shown(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in texts of the store, of its errors and in the log; MUSICAPI_STORE may hold it."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MUSICAPI_STORE", address.replace("/postgres", "/missing"))
    store = find_store()
    assert isinstance(store, PostgresStore)
    with pytest.raises(JobStoreError, match="missing") as caught:
        await store.jobs()
    await store.aclose()
    texts = [repr(store), store.name, str(caught.value), repr(caught.value), caplog.text]
    for wrong in (
        f"postgresql://music:{PASSWORD}%zz@host/x",
        f"mysql://music:{PASSWORD}@host/x",
    ):
        with pytest.raises(RequestValidationError, match="store: an address such as") as refused:
            PostgresStore(wrong)
        texts.append(str(refused.value))
    assert not [text for text in texts if PASSWORD in text]
    assert pickle.loads(pickle.dumps(caught.value)).path == store.name


# --- a server that goes away ------------------------------------------------------------------------------


async def test_cut_connections_are_replaced(server: PostgresServer, address: str, sandbox: Sandbox) -> None:
    """The work that finds its connection lost is done once more, and no one notices."""
    async with workers(sandbox, address, 1, rate_limit="1000/s") as (client,):
        for number in range(3):
            await client.with_options(job_key=str(number)).sonic.create_music(**SONG)
            assert server.cut_connections() >= 2
        assert len(await client.jobs()) == len(sandbox.journal.creates) == 3


async def test_creates_stop_and_waits_continue_without_the_server(
    server: PostgresServer, address: str, sandbox: Sandbox
) -> None:
    """Nothing is sent that cannot be recorded; what was paid for is still waited for; all recovers."""
    async with workers(sandbox, address, 1, Hasty) as (client,):
        task = await client.with_options(job_key="first").sonic.create_music(**SONG)
        server.stop()
        try:
            with pytest.raises(JobStoreError, match="cannot be reached"):
                await client.with_options(job_key="second").sonic.create_music(**SONG)
            assert (await task.wait()).status == "succeeded"
            assert len(sandbox.journal.creates) == 1
        finally:
            server.start()
        again = await client.with_options(job_key="first").sonic.create_music(**SONG)
        assert again.task_id == task.task_id
        await client.with_options(job_key="second").sonic.create_music(**SONG)
        assert len(sandbox.journal.creates) == 2


# --- webhooks ---------------------------------------------------------------------------------------------


def completed(task_id: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of a webhook about the end of a song."""
    body = json.loads((EXAMPLES / "webhook-sonic-completed.json").read_text())
    raw, stamp = json.dumps({**body, "task_id": task_id}).encode(), str(int(time.time()))
    headers = {"X-Webhook-Id": task_id, "X-Webhook-Timestamp": stamp}
    return {**headers, "X-Webhook-Signature": webhooks.sign(SECRET, stamp, raw)}, raw


async def test_webhook_ends_the_waits_of_all_workers(server: PostgresServer, address: str) -> None:
    """Whichever worker receives it; one that has lost its connection reads it when that is back."""
    settings = Webhooks("https://example.org/hooks", SECRET)
    async with (
        Sandbox() as sandbox,
        workers(sandbox, address, 3, webhooks=settings, rate_limit=None) as clients,
    ):
        ordering, waiting, receiving = clients
        for is_lost in (False, True):
            task = await ordering.sonic.create_music(**SONG)
            waits = [asyncio.create_task(client.task(task.token).wait()) for client in (ordering, waiting)]
            # Who did not order it polls once, as it cannot know how old the task is.
            await until(lambda: len(polls_of(sandbox, task.task_id)) >= 1)  # noqa: B023
            if is_lost:
                server.cut_connections()
            event = await receiving.webhooks.handle(*completed(task.task_id))
            assert event.is_terminal
            async with asyncio.timeout(PATIENCE / 2):  # a poll comes after 45 s
                for clips in await asyncio.gather(*waits):
                    assert clips[0].title == "Example Title"


async def test_client_that_closes_leaves_a_shared_store_open(server: PostgresServer, address: str) -> None:
    """The other one keeps its permit, and learns of webhooks that other processes receive."""
    settings = Webhooks("https://example.org/hooks", SECRET)
    options: dict[str, Any] = {
        "webhooks": settings,
        "rate_limit": None,
        "max_in_flight": 1,
        "account": ACCOUNT,
    }
    store = PostgresStore(address)
    async with (
        Sandbox() as sandbox,
        workers(sandbox, address, 1, webhooks=settings) as (receiving,),
        sandbox.client(store=store, **options) as staying,
    ):
        async with sandbox.client(store=store, **options) as leaving:
            await leaving.jobs()
            task = await staying.sonic.create_music(**SONG)
        assert server.execute("SELECT count(*) FROM musicapi.permits") == [(1,)]
        waiting = asyncio.create_task(task.wait())
        await receiving.webhooks.handle(*completed(task.task_id))
        async with asyncio.timeout(PATIENCE / 2):  # a poll comes after 45 s
            assert (await waiting)[0].title == "Example Title"


async def test_store_that_is_used_after_its_clients_closes_itself(address: str, sandbox: Sandbox) -> None:
    """Whatever they have used of it, and whichever part is used."""
    store = PostgresStore(address)
    before = open_files()
    client = sandbox.client(store=store, account=ACCOUNT, max_in_flight=3)
    async with client:
        await client.sonic.create_music(**SONG)
    await store.jobs()
    await store.rate(ACCOUNT)
    assert not [name for name in open_files() - before if "socket" in name]
    async with client:  # which opens it again
        await client.jobs()
        assert [name for name in open_files() - before if "socket" in name]


def connections(server: PostgresServer) -> int:
    """How many connections of stores there are."""
    text = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'musicapi_async'"
    return server.execute(text)[0][0]


def limiters() -> int:
    """How many limiters of clients there are."""
    gc.collect()
    return sum(isinstance(one, PostgresLimiter) for one in gc.get_objects())


async def test_store_does_not_keep_its_clients(address: str, sandbox: Sandbox) -> None:
    """A server may make a client for each of its requests, in one event loop or in a loop for each."""
    store = PostgresStore(address)

    async def request() -> None:
        async with Sandbox(speed=60) as sandbox, sandbox.client(store=store, account=ACCOUNT) as client:
            await client.sonic.create_music(**SONG)

    async with sandbox.client(store=store, account=ACCOUNT) as client:
        await client.jobs()
        before = limiters()
        for _ in range(2):
            await request()
            await asyncio.to_thread(asyncio.run, request())
        assert limiters() == before


async def test_store_that_is_dropped_closes_its_connections(server: PostgresServer, address: str) -> None:
    """Also with a client that was never closed, which says so."""
    store = PostgresStore(address)
    await store.rate(ACCOUNT)
    del store
    gc.collect()
    await until(lambda: connections(server) == 0)
    clients = [MusicAPI("key", base_url="http://127.0.0.1:9", store=PostgresStore(address), account=ACCOUNT)]
    await clients[0].jobs()
    clients.clear()
    with pytest.warns(ResourceWarning, match="never closed"):
        gc.collect()
    await until(lambda: connections(server) == 0)


def polls_of(sandbox: Sandbox, task_id: str) -> list[object]:
    """The polls of a task that the sandbox has seen."""
    return [entry for entry in sandbox.journal.polls if task_id in entry.path]


# --- the rate ---------------------------------------------------------------------------------------------


def queued(server: PostgresServer) -> int:
    """How many tickets there are."""
    return server.execute("SELECT count(*) FROM musicapi.queue")[0][0]


async def begin(server: PostgresServer, clients: list[MusicAPI], count: int) -> list[asyncio.Task[Any]]:
    """Creates of several workers, which arrive one after the other and wait."""
    begun: list[asyncio.Task[Any]] = []
    for number in range(count):
        client = clients[number * 7 % len(clients)]
        begun.append(asyncio.create_task(client.sonic.create_music(**SONG, title=str(number))))
        await until(lambda: queued(server) == len(begun))
    return begun


def titles(sandbox: Sandbox) -> list[str]:
    """The titles of the creates that the sandbox has seen, but for the first, which has none."""
    return [entry.body["title"] for entry in sandbox.journal.creates[1:] if isinstance(entry.body, dict)]


async def test_workers_keep_one_rate_in_the_order_of_arrival(
    server: PostgresServer, address: str, store: PostgresStore
) -> None:
    """Creates of four workers: no two within the rate, and none overtakes another."""
    async with Sandbox(speed=20) as sandbox, workers(sandbox, address, 4) as clients:
        await store.set_rate(ACCOUNT, Rate.parse("1/h"))
        await clients[0].sonic.create_music(**SONG)
        server.watch_departures()
        begun = await begin(server, clients, 8)
        await store.set_rate(ACCOUNT, Rate.parse("1/3s"))
        await asyncio.gather(*begun)
        assert sorted(titles(sandbox)) == [str(number) for number in range(8)]
        left = server.departures()
        assert len({owner for owner, *_ in left}) == 4
        assert [place for _, place, _ in left] == sorted(place for _, place, _ in left)
        assert min(later - one for (*_, one), (*_, later) in pairwise(left)) >= 3 / 20 - ROUNDING
        await until(lambda: queued(server) == 0)


async def test_cancelled_waiter_hands_its_turn_back(
    server: PostgresServer, address: str, sandbox: Sandbox, store: PostgresStore
) -> None:
    """Those ahead in the queue are cancelled: nothing of them remains, and the others move up."""
    async with workers(sandbox, address, 3) as clients:
        await store.set_rate(ACCOUNT, Rate.parse("1/h"))
        await clients[0].sonic.create_music(**SONG)
        begun = await begin(server, clients, 6)
        for number in (0, 1, 4):
            begun[number].cancel()
        await until(lambda: queued(server) == 3)
        await store.set_rate(ACCOUNT, Rate.parse("1/3s"))
        await asyncio.gather(*begun, return_exceptions=True)
        assert titles(sandbox) == ["2", "3", "5"]
        await until(lambda: queued(server) == 0)


async def test_ticket_that_no_one_uses_delays_the_others_once(
    server: PostgresServer, address: str, sandbox: Sandbox, store: PostgresStore
) -> None:
    """Tickets of a living process that never come are overtaken, and then no one waits for them again."""
    async with workers(sandbox, address, 2) as clients:
        await store.set_rate(ACCOUNT, Rate.parse("1/h"))
        await clients[0].sonic.create_music(**SONG)
        for number in range(50):
            server.execute(
                "INSERT INTO musicapi.queue (ticket, account, lane, owner) "
                f"SELECT 'lost {number}', '{ACCOUNT}', 'submit', min(owner) FROM musicapi.owners"
            )
        begun = [asyncio.create_task(client.sonic.create_music(**SONG, title="0")) for client in clients]
        await until(lambda: queued(server) == 52)
        await store.set_rate(ACCOUNT, Rate.parse("1/3s"))
        await asyncio.gather(*begun)
        assert len(titles(sandbox)) == 2
        assert server.execute("SELECT count(*) FROM musicapi.queue WHERE NOT is_passed") == [(0,)]


async def test_rate_stands_in_the_database(
    address: str, sandbox: Sandbox, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client without a rate takes it, and writes the documented one if there is none; another is refused,
    with the command that changes it for all."""
    async with workers(sandbox, address, 1) as (client,):
        await client.sonic.create_music(**SONG)
    assert await store.rate(ACCOUNT) == Rate.parse("1/3s")
    async with workers(sandbox, address, 1, rate_limit="20/10s") as (client,):
        with pytest.raises(RequestValidationError, match="has 1/3s in the job store") as caught:
            await client.sonic.create_music(**SONG)
        assert not await client.jobs("reserved", "sent", "ambiguous")
        command = shlex.split(caught.value.hint.partition(": ")[2])
        assert command[:3] == ["musicapi", "jobs", "rate"]
        assert PASSWORD not in caught.value.hint
        out, err = await musicapi(*command[1:], PGPASSWORD=PASSWORD)
        assert (json.loads(out)["rate"], err) == ("20/10s", b"")
        out, err = await musicapi("jobs", "list", MUSICAPI_STORE=address)
        assert (json.loads(out)["state"], err) == ("accepted", b"")
        out, err = await musicapi("jobs", "list", address)  # others could read it with `ps`
        assert (out, b"without a password" in err, PASSWORD.encode() in err) == (b"", True, False)
        await client.sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 2


async def musicapi(*args: str, **environment: str) -> tuple[bytes, bytes]:
    """What the command writes on its two streams."""
    process = await Piped.started("musicapi_async.cli:main", *args, environment={**os.environ, **environment})
    return await process.communicate()


async def test_clock_that_is_set_back_stops_no_one(address: str, sandbox: Sandbox) -> None:
    """As one of another server, or of a client with a faster clock, by which the last start is years ahead."""
    async with sandbox.client(store=PostgresStore(address), account=ACCOUNT) as fast:
        await fast.sonic.create_music(**SONG)
    async with MusicAPI(
        sandbox.api_key,
        base_url=sandbox.base_url,
        store=PostgresStore(address),
        account=ACCOUNT,
        clock=Clock(20),
    ) as slow:
        async with asyncio.timeout(PATIENCE / 2):
            await slow.sonic.create_music(**SONG)
            await slow.sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 3


async def test_refusal_of_the_service_stops_all_workers(address: str, sandbox: Sandbox) -> None:
    """A 429 with Retry-After that one worker gets holds the creates of the others, too, and slows them down."""
    async with workers(sandbox, address, 2, rate_limit="100/s", max_retries=0) as (one, other):
        sandbox.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=30))
        with pytest.raises(RateLimitedError):
            await one.sonic.create_music(**SONG)
        await other.sonic.create_music(**SONG)
        refused, taken = sandbox.journal.creates
        assert taken.at - refused.at >= 30


async def test_batches_of_two_workers_share_the_cap_and_their_jobs(address: str, sandbox: Sandbox) -> None:
    """Each song holds a permit, and the same key at the other worker gives the same songs."""
    options: dict[str, Any] = {"max_in_flight": 3, "rate_limit": None}
    async with workers(sandbox, address, 2, **options) as (one, other):
        with pytest.raises(RequestValidationError, match="at most max_in_flight=3 items, got 4"):
            await one.sonic.create_batch([SONG] * 4)

        async def made(client: MusicAPI, key: str) -> list[str]:
            batch = await client.with_options(job_key=key).sonic.create_batch([SONG] * 2)
            running = sum(sandbox.now() < task.ends for task in sandbox.service.tasks)
            assert running <= 3
            await client.wait_all(batch.tasks)
            return [task.task_id for task in batch.tasks]

        ids = await asyncio.gather(made(one, "a"), made(other, "b"), made(one, "c"), made(other, "d"))
        again = await other.with_options(job_key="a").sonic.create_batch([SONG] * 2)
        assert [task.task_id for task in again.tasks] == ids[0]
        assert len(sandbox.journal.creates) == 4
        await other.jobs()  # when it returns, all ends of its songs are stored
        assert {job.state for job in await one.jobs()} == {"finished"}


async def test_permit_ends_with_its_task_or_its_process(
    server: PostgresServer, address: str, sandbox: Sandbox
) -> None:
    """The cap holds for all workers together; a living process keeps its permit, a killed one does not."""
    options: dict[str, Any] = {"max_in_flight": 1, "rate_limit": None}
    async with workers(sandbox, address, 1, Hasty, **options) as (client,):
        task = await client.sonic.create_music(**SONG)
        worker = await Piped.started(
            "store_process:hold", sandbox.base_url, sandbox.api_key, address, ACCOUNT
        )
        await until(lambda: queued(server) == 1)
        assert len(sandbox.journal.creates) == 1
        await task.wait()
        await until(lambda: len(sandbox.journal.creates) == 2)
        waiting = asyncio.create_task(client.sonic.create_music(**SONG))
        await until(lambda: queued(server) == 1)
        seen = "SELECT extract(epoch FROM seen_at)::float8 FROM musicapi.owners WHERE owner <> ''"
        since = max(seen_at for (seen_at,) in server.execute(seen))
        late = since + 1.1 * Hasty.lease
        await until(lambda: len([1 for (seen_at,) in server.execute(seen) if seen_at > late]) == 2)
        assert len(sandbox.journal.creates) == 2
        worker.kill()
        await worker.ended()
        await waiting
        assert len(sandbox.journal.creates) == 3
