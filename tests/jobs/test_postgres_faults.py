"""Faults of a database that many processes share: hangs, restarts, clocks that jump, notices of other versions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from patience import PATIENCE, until
from postgres_proxy import Proxy, proxy_to
from postgres_server import PASSWORD, USER, PostgresServer

from musicapi_async import Clock, JobStoreError, MusicAPI, PostgresStore, Rate
from musicapi_async.jobs.postgres_rate import PostgresLimiter
from musicapi_async.jobs.postgres_tickets import Leaving
from musicapi_async.jobs.store import Notice
from musicapi_async.sandbox import Sandbox
from musicapi_async.sandbox.reply_choices import Durations

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
ACCOUNT = "studio"


class Hasty(PostgresStore):
    """A store whose lease is short, and that waits for its server for as long as it is away."""

    patience = 30.0
    lease = 1.2


class Impatient(PostgresStore):
    """A store that waits for an answer for a moment only."""

    patience = 0.3
    silence = 0.5


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the server lives in it."""
    return "asyncio"


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A sandbox whose songs never end."""
    async with Sandbox(speed=60, credits=1e6, durations=Durations(song=(1e6, 0.0))) as sandbox:
        yield sandbox


@pytest.fixture
async def proxy(server: PostgresServer, address: str) -> AsyncGenerator[Proxy]:
    """A proxy to the server, whose database is empty."""
    async with proxy_to(server.port) as proxy:
        yield proxy


@pytest.fixture
async def make_store() -> AsyncGenerator[Callable[[str], PostgresStore]]:
    """Makes stores at an address, as those of other processes; they are closed in the end."""
    made: list[PostgresStore] = []

    def make(address: str) -> PostgresStore:
        made.append(Hasty(address))
        return made[-1]

    yield make
    for store in made:
        await store.aclose()


MakeStore = Callable[[str], PostgresStore]


def address_of(proxy: Proxy) -> str:
    """The address of the database behind a proxy."""
    return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}/postgres"


@asynccontextmanager
async def limiters(address: str, rate: str) -> AsyncGenerator[list[PostgresLimiter]]:
    """The limiters of two processes."""
    stores = [Hasty(address), Hasty(address)]
    made = [store.limiter(ACCOUNT, Rate.parse(rate), Clock(), None) for store in stores]
    try:
        yield [limiter for limiter in made if isinstance(limiter, PostgresLimiter)]
    finally:
        for store in stores:
            await store.aclose()


def rows(server: PostgresServer, table: str) -> int:
    """How many rows a table of the store has."""
    return server.execute(f"SELECT count(*) FROM musicapi.{table}")[0][0]


# --- the rate ---------------------------------------------------------------------------------------------


async def test_departure_that_may_be_seconds_late_is_waited_for(address: str) -> None:
    """A database that hung has taught one process to count 8 s ahead: the others go by that, and take it for no
    start of another clock."""
    async with limiters(address, "2/10s") as (slow, other):
        assert (await slow.start("slow", Leaving(8.0))).at is not None
        assert (await other.start("other", Leaving(0.01))).at is not None
        assert (await other.start("third")).wait < 11
        assert 12 < (await other.start("fourth")).wait < 19


async def test_late_departure_is_not_forgotten_before_earlier_ones(address: str) -> None:
    """Of two that are counted, the one that was granted first leaves last: the window begins with the other one."""
    async with limiters(address, "2/20s") as (slow, quick):
        assert (await slow.start("slow", Leaving(18.0))).at is not None
        assert (await quick.start("quick", Leaving(0.01))).at is not None
        assert (await quick.start("third")).wait < 22
        assert (await quick.start("fourth")).wait > 28


async def test_departures_after_a_pause_are_those_of_one_window(address: str) -> None:
    """After the longest pause a window is empty, and two processes fill it once together, not once each."""
    async with limiters(address, "3/10s") as pair:
        asked = [await pair[n % 2].start(f"{n}", Leaving(0.01)) for n in range(5)]
        assert [start.at is not None for start in asked] == [True] * 3 + [False] * 2


async def test_turn_that_no_one_takes_is_free_after_the_clock_was_set_back(
    server: PostgresServer, address: str
) -> None:
    """The time since when it was not taken is in the future then: it counts as of now."""
    async with limiters(address, "1/s") as (one, other):
        await one.start("lost")
        await other.start("next", Leaving(0.01))
        server.execute("UPDATE musicapi.rates SET unused_since = now() + interval '1 hour'")
        assert (await other.start("next", Leaving(0.01))).wait <= 1


async def test_tickets_of_a_dead_process_are_not_waited_for(
    server: PostgresServer, address: str, sandbox: Sandbox
) -> None:
    """A hundred slots are theirs, and no one else comes: the one behind them is notified once they are removed."""
    store = Hasty(address)
    await store.set_rate(ACCOUNT, Rate.parse("1/min"))
    async with sandbox.client(store=store, account=ACCOUNT) as client:
        await client.sonic.create_music(**SONG)
        server.execute("INSERT INTO musicapi.owners VALUES ('dead')")
        server.execute(
            "INSERT INTO musicapi.queue (ticket, account, lane, owner) "
            f"SELECT 'lost ' || n, '{ACCOUNT}', 'submit', 'dead' FROM generate_series(1, 100) AS n"
        )
        async with asyncio.timeout(PATIENCE):
            await client.sonic.create_music(**SONG)


# --- permits ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def holder_and_waiter(
    sandbox: Sandbox, server: PostgresServer, address: str
) -> AsyncGenerator[tuple[MusicAPI, asyncio.Task[Any]]]:
    """A client that holds the one permit, and the create of another client that waits for it."""
    options: dict[str, Any] = {"account": ACCOUNT, "max_in_flight": 1, "rate_limit": None}
    async with (
        sandbox.client(store=Hasty(address), **options) as one,
        sandbox.client(store=Hasty(address), **options) as other,
    ):
        await one.sonic.create_music(**SONG)
        waiting = asyncio.create_task(other.sonic.create_music(**SONG))
        await until(lambda: rows(server, "queue") == 1)
        try:
            yield one, waiting
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


def signs(server: PostgresServer) -> list[float]:
    """The times of the last signs of life of processes."""
    found = server.execute(
        "SELECT extract(epoch FROM seen_at)::float8 FROM musicapi.owners WHERE owner <> ''"
    )
    return [seen_at for (seen_at,) in found]


async def after(server: PostgresServer, leases: float) -> None:
    """Wait until both processes have given a sign of life so many leases later."""
    late = max(signs(server)) + leases * Hasty.lease
    await until(lambda: len([sign for sign in signs(server) if sign > late]) == 2)


async def test_permits_outlive_a_database_that_was_away_for_longer_than_a_lease(
    server: PostgresServer, address: str, sandbox: Sandbox
) -> None:
    """No one could give a sign of life, so no one is dead: the cap holds, whoever comes back first."""
    async with holder_and_waiter(sandbox, server, address) as (_, waiting):
        server.stop()
        await asyncio.sleep(1.2 * Hasty.lease)
        server.start()
        await until(lambda: len(signs(server)) == 2)
        await after(server, 1.1)
        assert rows(server, "permits") == 1
        assert len(sandbox.journal.creates) == 1
        assert not waiting.done()


class Quick(PostgresStore):
    """A store that waits for its server for a moment only."""

    patience = 0.3
    lease = 1.2


async def test_permit_whose_task_ends_while_the_database_is_away_is_given_back(
    server: PostgresServer, address: str, sandbox: Sandbox
) -> None:
    """As soon as the database is back; other clients would wait for it for up to 45 minutes."""
    options: dict[str, Any] = {"account": ACCOUNT, "max_in_flight": 1, "rate_limit": None}
    async with sandbox.client(store=Quick(address), **options) as client:
        task = await client.sonic.create_music(**SONG)
        server.stop()
        try:
            sandbox.forward(2e6)
            await task.wait()
            with pytest.raises(JobStoreError):  # so the permit could not be given back either
                await client.jobs()
        finally:
            server.start()
        async with asyncio.timeout(PATIENCE):
            await client.sonic.create_music(**SONG)


async def test_waiter_that_fails_while_the_database_is_away_leaves_the_queue(
    server: PostgresServer, address: str, sandbox: Sandbox
) -> None:
    """As soon as the database is back; those behind it would wait for as long as its process lives."""
    options: dict[str, Any] = {"account": ACCOUNT, "max_in_flight": 1, "rate_limit": None}
    async with (
        sandbox.client(store=Hasty(address), **options) as one,
        sandbox.client(store=Quick(address), **options) as other,
    ):
        task = await one.sonic.create_music(**SONG)
        waiting = asyncio.create_task(other.sonic.create_music(**SONG))
        await until(lambda: rows(server, "queue") == 1)
        server.stop()
        try:
            with pytest.raises(JobStoreError):
                await waiting
        finally:
            server.start()
        sandbox.forward(2e6)
        await task.wait()
        async with asyncio.timeout(PATIENCE):
            await one.sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 2


@pytest.mark.parametrize("hours", [1, -1])
async def test_permits_outlive_a_clock_that_jumps(
    server: PostgresServer, address: str, sandbox: Sandbox, hours: int
) -> None:
    """All signs of life seem to be old, or still to come; a process that is really dead is found a lease later."""
    async with holder_and_waiter(sandbox, server, address) as (_, waiting):
        await until(lambda: rows(server, "owners") == 3)
        server.execute("INSERT INTO musicapi.owners VALUES ('dead')")
        server.execute("INSERT INTO musicapi.permits VALUES ('lost', 'other account', 'dead')")
        server.execute(f"UPDATE musicapi.owners SET seen_at = seen_at - interval '{hours} hour'")
        await until(lambda: "dead" not in str(server.execute("SELECT owner FROM musicapi.owners")))
        assert len(signs(server)) == 2
        assert server.execute("SELECT count(*) FROM musicapi.permits WHERE permit = 'lost'") == [(0,)]
        assert rows(server, "permits") == 1
        assert not waiting.done()


async def test_permit_of_a_client_that_ends_is_taken_at_once(
    server: PostgresServer, address: str, sandbox: Sandbox
) -> None:
    """Those who wait for it are notified, and need not ask."""
    async with holder_and_waiter(sandbox, server, address) as (one, waiting):
        server.execute(
            "UPDATE musicapi.owners SET seen_at = 'infinity'"
        )  # no one is taken for dead meanwhile
        await one.aclose()
        async with asyncio.timeout(PATIENCE):
            await waiting


async def test_permits_of_a_client_end_with_it_alone(
    server: PostgresServer, address: str, sandbox: Sandbox, make_store: MakeStore
) -> None:
    """Clients of one process share a store: one that closes gives its permits back, whoever has others."""
    options: dict[str, Any] = {"account": ACCOUNT, "max_in_flight": 100, "rate_limit": None}
    store = make_store(address)
    async with sandbox.client(store=store, **options) as staying:
        await staying.sonic.create_music(**SONG)
        async with sandbox.client(store=store, **options) as leaving:
            for _ in range(3):
                await leaving.sonic.create_music(**SONG)
            assert rows(server, "permits") == 4
        await until(lambda: rows(server, "permits") == 1)
        assert await staying.sonic.create_music(**SONG)
        assert rows(server, "permits") == 2


async def test_permit_of_a_client_that_comes_while_the_last_one_closes_stays(
    server: PostgresServer, address: str, sandbox: Sandbox, make_store: MakeStore
) -> None:
    """What the one that closes removes is its own, though both are of one process."""
    options: dict[str, Any] = {"account": ACCOUNT, "max_in_flight": 100, "rate_limit": None}
    store = make_store(address)
    leaving, coming = (sandbox.client(store=store, **options) for _ in range(2))
    async with leaving:
        await asyncio.gather(*(leaving.sonic.create_music(**SONG) for _ in range(60)))
        closing = asyncio.create_task(leaving.aclose())
        await until(lambda: rows(server, "permits") < 60)
        async with coming:
            await coming.sonic.create_music(**SONG)
            await closing
            await until(lambda: rows(server, "permits") <= 1)
            assert rows(server, "permits") == 1


async def test_of_many_waiters_of_a_process_one_asks_for_a_permit(
    server: PostgresServer, proxy: Proxy, address: str, make_store: MakeStore
) -> None:
    """A permit that is freed is one transaction for each process, not one for each task that waits."""
    holder, waiter = make_store(address), make_store(address_of(proxy))
    permit = holder.limiter(ACCOUNT, None, Clock(), 1).permit()
    assert permit is not None
    await permit.acquire()
    limiter = waiter.limiter(ACCOUNT, None, Clock(), 1)
    permits = [limiter.permit() for _ in range(40)]
    waits = [asyncio.create_task(permit.acquire()) for permit in permits if permit is not None]
    await until(lambda: rows(server, "queue") == 40)
    before = proxy.messages
    permit.release()
    await waits[0]
    await until(lambda: rows(server, "queue") == 39)
    await asyncio.sleep(0.1)
    assert proxy.messages - before < 40
    assert [wait.done() for wait in waits] == [True] + [False] * 39
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


# --- a server that does not answer ------------------------------------------------------------------------


async def test_server_that_hangs_is_an_error_and_used_again(proxy: Proxy) -> None:
    """It takes the query and never answers, as one that is stopped, or a proxy whose server is gone."""
    store = Impatient(address_of(proxy))
    assert await store.jobs() == []
    proxy.delay = 3600.0
    with pytest.raises(JobStoreError, match=r"no answer for 0\.5 s"):
        await store.jobs()
    proxy.delay = 0.0
    assert await store.jobs() == []
    await store.aclose()


# --- webhooks ---------------------------------------------------------------------------------------------


class Subscriber:
    """What a client of a store gets; it knows the tasks of these ids."""

    def __init__(self, store: PostgresStore, *ids: str) -> None:
        self.bodies: list[bytes] = []
        self.freed = 0
        self.end = store.subscribe(self.heard, ids.__contains__)

    def heard(self, notice: Notice, body: bytes) -> None:
        """Note it."""
        if notice.kind == "webhook":
            self.bodies.append(body)
        self.freed += notice.kind == "freed"


Subscribe = Callable[..., Subscriber]


@pytest.fixture
def subscribe(make_store: MakeStore) -> Generator[Subscribe]:
    """Subscribes to a store; ends before the stores are closed, as a store stays open while a client has it."""
    made: list[Subscriber] = []

    def begin(store: PostgresStore, *ids: str) -> Subscriber:
        made.append(Subscriber(store, *ids))
        return made[-1]

    yield begin
    for subscriber in made:
        subscriber.end()


async def listening(server: PostgresServer, *stores: PostgresStore) -> None:
    """Wait until these stores listen."""
    for store in stores:
        await store.jobs()  # makes the tables
    await until(lambda: len(signs(server)) == len(stores))


async def test_webhook_is_read_only_where_its_task_is_known(
    server: PostgresServer, proxy: Proxy, address: str, make_store: MakeStore, subscribe: Subscribe
) -> None:
    """Of many processes one waits for the song: all others make no exchange with the database for its webhook."""
    idle = PostgresStore(address_of(proxy))  # with a long lease: it gives no sign of life meanwhile
    waiting, receiving = make_store(address), make_store(address)
    there, here = subscribe(idle, "another song"), subscribe(waiting, "song")
    await listening(server, idle, waiting)
    await until(lambda: rows(server, "owners") == 3)  # what a process does at first is done
    await asyncio.sleep(0.1)
    before = proxy.messages
    await receiving.publish(b"body", "song")
    await receiving.set_rate(ACCOUNT, None)
    await until(lambda: there.freed and here.bodies)
    assert (proxy.messages - before, there.bodies, here.bodies) == (0, [], [b"body"])
    there.end()
    await idle.aclose()


@pytest.mark.parametrize("task_id", ["", "x" * 10_000], ids=["earlier version", "too long"])
async def test_webhook_whose_notice_names_no_task_is_read_by_all(
    server: PostgresServer, address: str, make_store: MakeStore, subscribe: Subscribe, task_id: str
) -> None:
    """As those of earlier versions, which are at work during an update; each finds out from the body."""
    store, receiving = make_store(address), make_store(address)
    here = subscribe(store, "song")
    await listening(server, store)
    await receiving.publish(b"body", task_id)
    await until(lambda: here.bodies == [b"body"])


async def test_notice_is_understood_by_earlier_versions(address: str, make_store: MakeStore) -> None:
    """It has what theirs had, and one field more, which they pass over."""
    store = make_store(address)
    await store.jobs()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("LISTEN musicapi")
        await store.publish(b"body", "song")
        (notice,) = connection.notifies(timeout=PATIENCE, stop_after=1)
    found = json.loads(notice.payload)
    assert {name: found[name] for name in ("kind", "sender", "number")} == {
        "kind": "webhook",
        "sender": store.owner,
        "number": 1,
    }


async def test_webhooks_of_a_lost_connection_are_read_in_parts(
    server: PostgresServer, address: str, make_store: MakeStore, subscribe: Subscribe
) -> None:
    """However many came meanwhile, all are handed over, each once."""
    store = make_store(address)
    here = subscribe(store)
    await listening(server, store)
    server.execute(  # and no notice
        "INSERT INTO musicapi.webhooks (sender, body) "
        "SELECT 'other', convert_to(n::text, 'UTF8') FROM generate_series(1, 450) AS n"
    )
    server.cut_connections()
    await until(lambda: len(here.bodies) >= 450)
    assert here.bodies == [str(n).encode() for n in range(1, 451)]
