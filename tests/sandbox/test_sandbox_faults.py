"""What goes wrong on purpose, as a client sees it on the wire, and what it costs."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import pytest

from musicapi_async.sandbox import Fault, Faults

SONG = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


async def exchange(port: int, path: str = "/sonic/create", body: object = SONG) -> tuple[bytes, bool]:
    """One raw request on a fresh connection: the bytes that came, and whether it ended by a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = json.dumps(body).encode()
    head = f"POST /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sandbox-key\r\n"
    writer.write(f"{head}Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode() + raw)
    got = b""
    try:
        while chunk := await reader.read(65536):
            got += chunk
    except ConnectionResetError:
        return got, True
    finally:
        writer.close()
    return got, False


@pytest.mark.parametrize(
    ("fault", "reset", "charge"),
    [
        (Fault.refuse, False, 0),
        (Fault.reset_before, True, 0),
        (Fault.reset_after, True, 20),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
async def test_cut_connections(start, fault, reset, charge):
    """A reset is a TCP reset; before the request is taken nothing is charged, after it the task exists."""
    api = await start()
    api.sandbox.faults.on("POST", "/sonic/create", fault)
    assert await exchange(api.sandbox.port) == (b"", reset)
    entry = api.sandbox.journal.creates[0]
    assert (entry.charge, entry.status, entry.fault) == (charge, 0, fault.name)
    assert len(api.sandbox.service.tasks) == (1 if charge else 0)
    got, _ = await exchange(api.sandbox.port)
    assert got.startswith(b"HTTP/1.1 200")


async def test_client_library_sees_the_reset(start):
    """aiohttp reports a lost connection, with the request taken and charged."""
    api = await start()
    api.sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    with pytest.raises(aiohttp.ClientError):
        await api.post("/sonic/create", SONG)
    assert api.sandbox.journal.charges == 20


async def test_truncated_body(start):
    """The announced length does not come."""
    api = await start()
    api.sandbox.faults.on("POST", "/sonic/create", Fault.truncate)
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.post("/sonic/create", SONG)
    assert api.sandbox.journal.charges == 20


async def test_bodies_that_are_no_json(start):
    """Garbage and HTML come with status 200, the request taken."""
    api = await start()
    api.sandbox.faults.on("POST", "/sonic/create", Fault.html)
    status, body = await api.post("/sonic/create", SONG)
    assert status == 200
    assert body.startswith(b"<!doctype html>")
    api.sandbox.faults.on("POST", "/sonic/create", Fault.garbage)
    got, _ = await exchange(api.sandbox.port)
    assert b"\xff\xfe" in got
    assert api.sandbox.journal.charges == 40


async def test_statuses(start):
    """429 and 5xx with and without body and Retry-After; nothing is taken unless asked."""
    api = await start()
    api.sandbox.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=2))
    status, body = await api.post("/sonic/create", SONG)
    assert (status, body["type"], api.headers["Retry-After"]) == (429, "rate_limited", "2")
    api.sandbox.faults.on("POST", "/sonic/create", Fault.status(503, body=None))
    assert await api.post("/sonic/create", SONG) == (503, b"")
    assert api.sandbox.journal.charges == 0
    api.sandbox.faults.on("POST", "/sonic/create", Fault.status(502, taken=True))
    status, body = await api.post("/sonic/create", SONG)
    assert (status, body["type"]) == (502, "upstream_error")
    assert api.sandbox.journal.charges == 20


async def test_hang_lasts_until_the_client_leaves(start):
    """A hanging request is taken; it ends when the client hangs up, and does not keep the sandbox open."""
    api = await start()
    api.sandbox.faults.on("POST", "/sonic/create", Fault.hang, times=2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await api.post("/sonic/create", SONG)
    assert api.sandbox.journal.charges == 20
    hanging = asyncio.create_task(exchange(api.sandbox.port))
    for _ in range(1000):
        if len(api.sandbox.journal.creates) == 2:
            break
        await asyncio.sleep(0.001)
    begun = api.sandbox.now()
    await api.sandbox.stop()
    assert api.sandbox.now() - begun < 2 * api.sandbox.clock.speed
    assert (await hanging)[0] == b""


async def test_slow_answers(start):
    """A slow answer is charged at once and comes after the given API seconds."""
    api = await start(speed=100.0)
    api.sandbox.faults.on("POST", "/sonic/create", Fault.slow(5))
    begun = api.sandbox.now()
    assert (await api.post("/sonic/create", SONG))[0] == 200
    assert api.sandbox.now() - begun >= 5


async def test_unreachable_port(start):
    """While unreachable, connecting is refused; afterwards the same port answers and remembers everything."""
    api = await start()
    task_id = await api.submit(body=SONG)
    port = api.sandbox.port
    async with api.sandbox.unreachable():
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass
    assert api.sandbox.port == port
    assert (await api.get(f"/sonic/task/{task_id}"))[0] in (200, 202)


async def test_scripts_count_and_wait(start):
    """`after` lets requests pass first, `times` ends the fault; other paths are untouched."""
    api = await start()
    api.sandbox.faults.on("GET", "/sonic/task/*", Fault.status(500), times=2, after=1)
    task_id = await api.submit(body=SONG)
    got = [(await api.get(f"/sonic/task/{task_id}"))[0] for _ in range(4)]
    assert got[1:3] == [500, 500]
    assert got[0] != 500 != got[3]


async def test_task_faults(start):
    """A stuck task runs for ever, an odd state is a word nobody knows, a late file is a 404 for a while."""
    api = await start(speed=2000.0)
    api.sandbox.faults.on("POST", "/sonic/create", Fault.stuck())
    stuck = await api.submit(body=SONG)
    api.sandbox.faults.on("POST", "/sonic/create", Fault.odd_state("queued_v2"))
    odd = await api.submit(body=SONG)
    _, body = await api.until(f"/sonic/task/{odd}", lambda _, b: bool(b.get("data")))
    assert body["data"][0]["state"] == "queued_v2"
    await api.finished(odd)
    api.sandbox.faults.on("POST", "/sonic/create", Fault.late_file(400))
    clip = (await api.finished(await api.submit(body=SONG)))[0]
    cover = clip["image_url"]
    assert (await api.call("HEAD", clip["audio_url"], key=None))[0] == 404
    assert (await api.call("HEAD", cover, key=None))[0] == 200
    for _ in range(1000):
        if (await api.call("HEAD", clip["audio_url"], key=None))[0] == 200:
            break
        await asyncio.sleep(0.005)
    else:
        raise AssertionError("the file never comes")
    _, body = await api.get(f"/sonic/task/{stuck}")
    assert {clip["state"] for clip in body["data"]} == {"running"}


async def test_random_faults_follow_from_the_seed(start):
    """Rates give a mixture that a seed repeats."""
    runs = []
    for _ in range(2):
        faults = Faults(seed=5, rates={Fault.status(500): 0.3, Fault.status(429): 0.2})
        api = await start(faults=faults)
        runs.append([(await api.get("/get-credits"))[0] for _ in range(60)])
    assert runs[0] == runs[1]
    assert {200, 429, 500} == set(runs[0])


def test_rates_must_make_sense():
    """Rates are chances and add up to at most one."""
    with pytest.raises(ValueError, match="add up"):
        Faults(rates={Fault.hang: 0.7, Fault.html: 0.7})
