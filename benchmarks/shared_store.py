"""What a shared store costs: the notes of a job, an acquire of the rate, webhooks of other processes.

*Notes* are the four changes of the job of a create: reserved, sent (synced), accepted (synced), finished.
*An acquire* is a slot of the rate, from its request to the departure (synced), under a rate that holds no one
back. The PostgreSQL server is real, on this machine, and syncs its disk; a proxy adds a round trip, as to
a server elsewhere, and counts the exchanges. *A webhook* is verified and handed over at home or by another
client of the same store; measured is the time from its arrival until the wait has ended.

How much one database carries is measured with processes that do nothing but acquire: for one account, whose
acquires follow each other, and for an account each; and with processes that do nothing but make notes.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from report import Report, arguments

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "jobs")]

from forked import Piped  # noqa: E402
from postgres_proxy import proxy_to  # noqa: E402
from postgres_server import PASSWORD, USER, PostgresServer, find_programs  # noqa: E402

from musicapi_async import Clock, Rate, SQLiteStore, Webhooks, webhooks  # noqa: E402
from musicapi_async._transport.rate_limiter import LaneLimits, MemoryLimiter, RateLimiter  # noqa: E402
from musicapi_async.api.task import TaskRef  # noqa: E402
from musicapi_async.jobs import JobStore, MemoryStore, PostgresStore, reservation, transitions  # noqa: E402
from musicapi_async.jobs.job import JobRequest, JobTask  # noqa: E402
from musicapi_async.jobs.owner import this_process  # noqa: E402
from musicapi_async.sandbox import Sandbox  # noqa: E402
from musicapi_async.sandbox.reply_choices import Durations  # noqa: E402

ACCOUNT = "studio"
RATE = Rate(20, 0.01)
"""More than a database carries."""
SECRET = "a secret of sixteen or more"
EXAMPLE = ROOT / "tests" / "contract" / "examples" / "webhook-sonic-completed.json"
ROUND_TRIP = 0.002
"""Real seconds that the proxy adds to each exchange: a database in the same region."""
SECONDS = 5.0
"""Real seconds for which processes do nothing else."""
REPLY = json.dumps({"code": 200, "task_id": "t" * 36, "message": "success"})
REQUEST = JobRequest(
    call="POST /sonic/create",
    base_url="https://api.musicapi.ai/api/v1",
    family="sonic",
    kind="create_music",
    body=json.dumps({"gpt_description_prompt": "calm rain " * 20, "mv": "sonic-v6"}),
)


async def notes(store: JobStore) -> None:
    """The four notes of a create."""
    key, owner, now = uuid.uuid4().hex, this_process(os.urandom(16).hex()), time.time()
    ref = TaskRef("sonic", uuid.uuid4().hex, "create_music", int(now))
    reserve = reservation.reserve(key, REQUEST, owner, lambda _: None, now)
    await store.change(key, reserve, account=ACCOUNT)
    sent = await store.change(key, transitions.sending(owner, now), account=ACCOUNT, durable=True)
    assert sent is not None
    accepted = transitions.accepted(sent, (JobTask(ref=ref),), REPLY, now)
    await store.change(key, accepted, account=ACCOUNT, durable=True)
    await store.change(key, transitions.ended(ref, "succeeded", None, "", now), account=ACCOUNT)


async def acquire(limiter: RateLimiter) -> None:
    """A slot of the rate, up to its departure."""
    async with limiter.slot("submit") as slot:
        await slot.departing()


async def timed(work: Callable[[], Awaitable[None]], count: int) -> tuple[float, float, float]:
    """The median and the 95 % time of one, and its CPU time in this process; all in milliseconds."""
    for _ in range(10):
        await work()
    times: list[float] = []
    used = time.process_time()
    for _ in range(count):
        began = time.perf_counter()
        await work()
        times.append(time.perf_counter() - began)
    used = time.process_time() - used
    times.sort()
    return 1000 * statistics.median(times), 1000 * times[int(0.95 * count)], 1000 * used / count


# --- cost -------------------------------------------------------------------------------------------------


async def costs(report: Report, server: PostgresServer, count: int) -> None:
    """Notes and acquires, one after the other."""
    head = ("store", "median ms", "95 % ms", "CPU ms", "exchanges with the server")
    noted: list[tuple[str, float, float, float, str]] = []
    acquired: list[tuple[str, float, float, float, str]] = []

    async def both(name: str, store: JobStore, limiter: RateLimiter, counter: Callable[[], int]) -> None:
        fewer = count if name == "memory" else count // 2
        for rows, work in ((noted, lambda: notes(store)), (acquired, lambda: acquire(limiter))):
            before = counter()
            found = await timed(work, fewer)
            exchanges = (counter() - before) / (fewer + 10)
            rows.append((name, *found, f"{exchanges:.1f}" if exchanges else "-"))
        await store.aclose()

    memory = MemoryLimiter({"submit": LaneLimits(16, Rate(100_000, 1.0))})
    await both("memory", MemoryStore(), memory, lambda: 0)
    with tempfile.TemporaryDirectory() as folder:
        await both("SQLite", SQLiteStore(Path(folder) / "jobs.sqlite"), memory, lambda: 0)
    acquired.pop()  # a file has no rate
    store = PostgresStore(server.address())
    await both("PostgreSQL", store, store.limiter(ACCOUNT, RATE, Clock(), None), lambda: 0)
    async with proxy_to(server.port) as proxy:
        proxy.delay = ROUND_TRIP / 2
        store = PostgresStore(f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}/postgres")
        limiter = store.limiter(ACCOUNT, RATE, Clock(), None)
        await both(f"PostgreSQL, {1000 * ROUND_TRIP:g} ms away", store, limiter, lambda: proxy.messages)
    report.table("The four notes of a create", head, noted)
    report.table("An acquire of the rate", head, acquired)


# --- webhooks ---------------------------------------------------------------------------------------------


async def latency(report: Report, server: PostgresServer, count: int) -> None:
    """From the arrival of a webhook to the end of the wait, at home and elsewhere."""
    hooks, rows = Webhooks("https://example.org/hooks", SECRET), list[tuple[str, float, float, float]]()
    async with Sandbox(durations=Durations(song=(3600.0, 0.0)), credits=1e9) as sandbox:
        for name, is_shared, is_home in (
            ("at home, without a store", False, True),
            ("at home, shared store", True, True),
            ("received by another client", True, False),
        ):
            stores = [PostgresStore(server.address()) if is_shared else None for _ in range(2)]
            clients = [
                sandbox.client(store=store, webhooks=hooks, rate_limit=None, account="hooks")
                for store in stores
            ]
            async with clients[0] as waiting, clients[1] as other:
                times: list[float] = []
                for _ in range(count + 5):
                    task = await waiting.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
                    wait = asyncio.create_task(task.wait())
                    await asyncio.sleep(0.01)
                    raw = json.dumps({**json.loads(EXAMPLE.read_bytes()), "task_id": task.task_id}).encode()
                    stamp = str(int(time.time()))
                    headers = {"X-Webhook-Timestamp": stamp}
                    headers["X-Webhook-Signature"] = webhooks.sign(SECRET, stamp, raw)
                    began = time.perf_counter()
                    handling = (waiting if is_home else other).webhooks.handle(headers, raw)
                    await asyncio.gather(handling, wait)
                    times.append(time.perf_counter() - began)
                times = sorted(times[5:])
                rows.append(
                    (
                        name,
                        1000 * statistics.median(times),
                        1000 * times[int(0.95 * count)],
                        1000 * times[-1],
                    )
                )
    report.table(
        "A webhook, until the wait has ended", ("received", "median ms", "95 % ms", "longest ms"), rows
    )


# --- how much a database carries --------------------------------------------------------------------------


def work_on() -> None:
    """The program of a process that does nothing else."""
    print(asyncio.run(working(*sys.argv[1:])), flush=True)


async def working(what: str, address: str, account: str) -> int:
    """How often it was done."""
    store = PostgresStore(address)
    limiter = store.limiter(account, RATE, Clock(), None)
    work = (lambda: acquire(limiter)) if what == "acquires" else (lambda: notes(store))
    await work()
    done, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        await asyncio.gather(*(work() for _ in range(8)))
        done += 8
    await store.aclose()
    return done


async def throughput(report: Report, server: PostgresServer) -> None:
    """Acquires and notes per second of one database, and the memory of its connections."""
    rows: list[tuple[str, int, float]] = []
    memory: list[float] = []
    for what, title, processes, is_one in (
        ("acquires", "acquires, one account", 1, True),
        ("acquires", "acquires, one account", 4, True),
        ("acquires", "acquires, an account each", 4, False),
        ("notes", "creates noted (four changes each)", 1, True),
        ("notes", "creates noted (four changes each)", 4, True),
    ):
        server.empty()
        await PostgresStore(server.address()).jobs()
        started = [
            await Piped.started(
                "shared_store:work_on", what, server.address(), ACCOUNT if is_one else f"account-{number}"
            )
            for number in range(processes)
        ]
        await asyncio.sleep(SECONDS / 2)
        memory += connections(server)
        printed = [await process.communicate() for process in started]
        done = sum(int(out) for out, _ in printed)
        rows.append((title, processes, done / SECONDS))
    report.table("How much one database carries", ("work", "processes", "per second"), rows)
    report.text(
        f"A connection takes {statistics.median(memory):.1f} MB of the server's memory (its private part)."
    )


def connections(server: PostgresServer) -> list[float]:
    """Megabytes of private memory of each connection of a store."""
    found: list[float] = []
    for (pid,) in server.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'musicapi_async'"
    ):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        private = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
        found.append(sum(private) / 1024)
    return found


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--count", type=int, default=400, help="of each measurement")
    options = parser.parse_args()
    report = Report("shared_store", (__doc__ or "").strip(), ["psycopg"])
    programs = find_programs()
    if programs is None:
        parser.error("no PostgreSQL server, 15 or later, is installed")
    server = PostgresServer(programs, fsync="on", shared_buffers="128MB")
    try:
        asyncio.run(costs(report, server, options.count))
        asyncio.run(latency(report, server, options.count // 4))
        asyncio.run(throughput(report, server))
    finally:
        server.remove()
    report.write(options.out)


if __name__ == "__main__":
    main()
