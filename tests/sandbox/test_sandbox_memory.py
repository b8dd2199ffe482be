"""What requests and tasks cost in memory, so that a day of running, and a hostile body, stay bounded."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import tracemalloc
from collections.abc import Callable

import pytest
from aiohttp import web

from musicapi_async.sandbox import Sandbox

MB = 1024 * 1024


@pytest.fixture
def measured():
    """Starts to measure; returns the peak in bytes above that moment."""
    gc.collect()
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    yield lambda: tracemalloc.get_traced_memory()[1] - start
    tracemalloc.stop()


@pytest.mark.parametrize("item", [b"[],", b'{"a":1},'], ids=["lists", "pairs"])
async def test_a_large_body_costs_a_few_times_its_size(start, measured: Callable[[], int], item: bytes):
    """A body of 15 MB, however many objects it holds, is refused unread; one of 1 MB costs at most 80 MB."""
    api = await start()
    body = b'{"a":[' + item * (15_000_000 // len(item)) + b"1]}"
    tracemalloc.reset_peak()
    before = measured()
    status, _ = await api.call("POST", "/sonic/create", data=io.BytesIO(body))
    assert (status, measured() - before < 40 * MB) == (413, True)
    small = b'{"a":[' + item * (1_000_000 // len(item)) + b"1]}"
    assert (await api.call("POST", "/sonic/create", data=io.BytesIO(small)))[0] == 400
    assert measured() - before < 80 * MB
    assert len(api.sandbox.journal.creates) == 2


async def test_a_task_costs_little(start, measured: Callable[[], int]):
    """A song with its clips and polls costs below 20 kB, so 10,000 of them, those of a day, below 200 MB."""
    api = await start(credits=1e6)
    text = "[Verse]\n" + "line of rain on the window and light in the hall\n" * 10

    async def song(number: int) -> None:
        body = {
            "custom_mode": True,
            "mv": "sonic-v6",
            "title": f"Song {number}",
            "prompt": f"{number}\n{text}",
        }
        task_id = await api.submit(body=body)
        for _ in range(3):
            await api.get(f"/sonic/task/{task_id}")

    for number in range(20):
        await song(number)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(20, 50):
        await song(number)
    gc.collect()
    each = (tracemalloc.get_traced_memory()[0] - before) / 30
    assert each < 20_000, each


async def test_stores_are_bounded():
    """Every store of a sandbox has a size, and its changes for a state are taken by each request."""
    service = Sandbox().service
    stores = (service.tasks, service.clips, service.personas, service.voxes, service.requested)
    assert all(store._size <= 300_000 for store in stores)
    store = service.requested
    store._size = 3
    store.track()
    for number in range(10):
        store.put(str(number), float(number))
    assert [key for key, value in store.changes() if value is None] == [str(number) for number in range(7)]
    assert json.dumps(list(store)) == "[7.0, 8.0, 9.0]"


async def test_uploads_take_bounded_time_and_memory(start):
    """A host that sends drop by drop is left after two minutes; four files at most are fetched at a time."""
    api = await start(speed=1.0)
    begun: list[float] = []

    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        if request.method == "GET":
            begun.append(api.sandbox.now())
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    await response.write(b"x")
                    await asyncio.sleep(5)
        return response

    runner = web.ServerRunner(web.Server(drip))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    link = f"http://127.0.0.1:{runner.addresses[0][1]}/a.mp3"
    upload = {"url": link}
    statuses = await asyncio.gather(*(api.post("/sonic/upload", upload) for _ in range(6)))
    assert {status for status, _ in statuses} == {400}
    assert [at > 119 for at in begun] == [False] * 4 + [True] * 2
    assert api.sandbox.now() < 300
    await runner.cleanup()
