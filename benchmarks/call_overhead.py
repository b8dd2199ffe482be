"""What a call costs: the SDK beside plain HTTP clients and the vendor's SDK, to a local keep-alive server.

The server is a bare protocol in a process of its own; it answers a poll with two clips that are under way
(2.8 kB), as three polls of four are answered, or finished, and the balance with a small body. All clients
take turns in one run, round after round, so that a change of the machine's load meets all of them; CPU is the
process time of the client alone. Ratios are medians of the ratios within a round.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import musicapi
from report import Report, arguments

from musicapi_async import MusicAPI

CONCURRENCIES = (1, 50, 500)
ROUNDS = 15
CALLS = 500
KEY = "benchmark"
TASK = "aaaaaaaa-0000-4000-8000-000000000000"
POLL = f"/api/v1/sonic/task/{TASK}"
FINISHED_TASK = "ffffffff-0000-4000-8000-000000000000"
FINISHED_POLL = f"/api/v1/sonic/task/{FINISHED_TASK}"
CREDITS = "/api/v1/get-credits"

RAW = "aiohttp, body not decoded"
PLAIN = "aiohttp + json.loads"
HTTPX = "httpx + json"
VENDOR = "vendor's SDK in threads"
REFRESH = "this SDK: task.refresh()"
PLAIN_FINISHED = "aiohttp + json.loads, finished task"
REFRESH_FINISHED = "this SDK: task.refresh(), finished task"
GET_MUSIC = "this SDK: get_music(), finished task"
PLAIN_CREDITS = "aiohttp + json.loads, balance"
BALANCE = "this SDK: client.credits()"
SLOW = {HTTPX: 10, VENDOR: 5}
"""These get fewer calls, by that factor."""

BASES = {
    BALANCE: PLAIN_CREDITS,
    PLAIN_CREDITS: PLAIN_CREDITS,
    REFRESH_FINISHED: PLAIN_FINISHED,
    GET_MUSIC: PLAIN_FINISHED,
    PLAIN_FINISHED: PLAIN_FINISHED,
}
"""What a client is compared with, if it is not `PLAIN`."""

Call = Callable[[], Awaitable[object]]


# --- the server --------------------------------------------------------------------------------------------


def clip(number: int, *, finished: bool = False) -> dict[str, Any]:
    name = f"aaaaaaaa-0000-4000-8000-{number:012d}"
    lyrics = "\n".join(
        f"[Verse {n}]\nA line that rhymes with nothing much\nAnd one that does" for n in range(9)
    )
    return {
        "clip_id": name,
        "state": "succeeded" if finished else "running",
        "title": "Example Title",
        "tags": "pop, dreamy",
        "lyrics": lyrics,
        "image_url": f"https://cdn2.example/image_{name}.jpeg",
        "audio_url": f"https://{'cdn1.suno.ai/' if finished else 'audiopipe.suno.ai/?item_id='}{name}",
        "video_url": f"https://cdn1.suno.ai/{name}.mp4" if finished else None,
        "created_at": "2026-07-15T10:26:46.552Z",
        "mv": "sonic-v6",
        "gpt_description_prompt": None,
        "duration": 181.5 if finished else None,
        "negative_tags": "metal",
        "style_weight": 0.6,
        "weirdness_constraint": 0.3,
    }


def response(body: object) -> bytes:
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


class Server(asyncio.Protocol):
    """Answers each request at once; requests have no body."""

    poll = response({"code": 200, "message": "success", "data": [clip(1), clip(2)]})
    finished = response(
        {"code": 200, "message": "success", "data": [clip(1, finished=True), clip(2, finished=True)]}
    )
    balance = response({"credits": 1200, "extra_credits": 0})

    def __init__(self) -> None:
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self.rest = (self.rest + data).split(b"\r\n\r\n")
        for request in requests:
            if b"/get-credits" in request[:60]:
                self.transport.write(self.balance)
            else:
                self.transport.write(self.finished if FINISHED_TASK.encode() in request[:80] else self.poll)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


# --- the clients -------------------------------------------------------------------------------------------


@asynccontextmanager
async def clients(host: str, concurrency: int) -> AsyncIterator[dict[str, Call]]:
    """One call of each client, all open at once."""
    async with AsyncExitStack() as stack:
        headers = {"Authorization": f"Bearer {KEY}"}
        plain = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        other = await stack.enter_async_context(httpx.AsyncClient(headers=headers, timeout=60))
        ours = await stack.enter_async_context(MusicAPI(KEY, base_url=f"{host}/api/v1"))
        vendor = stack.enter_context(musicapi.MusicAPI(KEY, base_url=f"{host}/api/v1"))
        threads = stack.enter_context(ThreadPoolExecutor(concurrency))
        loop = asyncio.get_running_loop()
        task, finished = ours.task("sonic", TASK), ours.task("sonic", FINISHED_TASK)

        async def raw() -> object:
            async with plain.get(host + POLL) as answer:
                return await answer.read()

        async def decoded() -> object:
            async with plain.get(host + POLL) as answer:
                return json.loads(await answer.read())

        async def decoded_finished() -> object:
            async with plain.get(host + FINISHED_POLL) as answer:
                return json.loads(await answer.read())

        async def decoded_balance() -> object:
            async with plain.get(host + CREDITS) as answer:
                return json.loads(await answer.read())

        async def with_httpx() -> object:
            return (await other.get(host + POLL)).json()

        yield {
            RAW: raw,
            PLAIN: decoded,
            REFRESH: task.refresh,
            PLAIN_FINISHED: decoded_finished,
            REFRESH_FINISHED: finished.refresh,
            GET_MUSIC: lambda: ours.sonic.get_music(FINISHED_TASK),
            PLAIN_CREDITS: decoded_balance,
            BALANCE: ours.credits,
            HTTPX: with_httpx,
            VENDOR: lambda: loop.run_in_executor(threads, vendor.sonic.get_task, TASK),
        }


@dataclass(frozen=True)
class Round:
    """One round of one client: µs of CPU per call, calls per second, times of single calls in ms."""

    cpu: float
    rate: float
    p50: float
    p99: float


async def measure(call: Call, concurrency: int, calls: int) -> Round:
    left = iter(range(calls))
    times: list[float] = []

    async def worker() -> None:
        for _ in left:
            begun = time.perf_counter()
            await call()
            times.append(time.perf_counter() - begun)

    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    times.sort()
    return Round(
        cpu / calls * 1e6, calls / wall, times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3
    )


async def rounds(host: str, concurrency: int, count: int, calls: int) -> dict[str, list[Round]]:
    """All clients in turn, `count` times over, after one turn that is not counted."""
    found: dict[str, list[Round]] = {}
    async with clients(host, concurrency) as calling:
        names = list(calling)
        for turn in range(count + 1):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                number = max(calls // SLOW.get(name, 1), 2 * concurrency)
                measured = await measure(calling[name], concurrency, number)
                if turn:
                    found.setdefault(name, []).append(measured)
    return {name: found[name] for name in names}


def ratio(found: dict[str, list[Round]], name: str, other: str, what: str) -> float:
    pairs = zip(found[name], found[other], strict=True)
    return statistics.median(getattr(one, what) / getattr(two, what) for one, two in pairs)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--calls", type=int, default=CALLS, help="of a client in one round")
    parser.add_argument("--serve", action="store_true", help="be the server")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    report = Report("call_overhead", (__doc__ or "").strip(), ("httpx", "musicapi-sdk"))
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__)), "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        host = f"http://127.0.0.1:{int(server.stdout.readline())}"
        for concurrency in CONCURRENCIES:
            found = asyncio.run(rounds(host, concurrency, options.rounds, options.calls))
            add(report, concurrency, found)
    finally:
        server.terminate()
        server.wait()
    report.write(options.out)


def add(report: Report, concurrency: int, found: dict[str, list[Round]]) -> None:
    rows: list[tuple[str, float, float, float, float, float]] = []
    for name, measured in found.items():
        plain = BASES.get(name, PLAIN)
        middle = [
            statistics.median(getattr(r, what) for r in measured) for what in Round.__dataclass_fields__
        ]
        rows.append((name, middle[0], ratio(found, name, plain, "cpu"), middle[1], middle[2], middle[3]))
    report.table(
        f"{concurrency} at once",
        (
            "client",
            "CPU per call µs",
            "CPU against aiohttp + json.loads",
            "calls per second",
            "p50 ms",
            "p99 ms",
        ),
        rows,
    )
    for name, what in (
        (REFRESH, "a poll"),
        (REFRESH_FINISHED, "refresh() of a finished task"),
        (GET_MUSIC, "get_music() of a finished task"),
        (BALANCE, "credits()"),
    ):
        report.target(
            f"{concurrency} at once: CPU of {what} against aiohttp + json.loads",
            ratio(found, name, BASES.get(name, PLAIN), "cpu"),
            1.10,
        )
    if concurrency == 50:
        for name in (HTTPX, VENDOR):
            report.target(
                f"50 at once: polls per second against {name}",
                ratio(found, REFRESH, name, "rate"),
                3.0,
                at_least=True,
            )


if __name__ == "__main__":
    main()
