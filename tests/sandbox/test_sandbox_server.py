"""The server itself: starting, stopping, being misused, and being without the extra."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import io
import json
import logging
import socket
import subprocess
import sys
import urllib.request

import aiohttp
import pytest
from patience import PATIENCE, until

from musicapi_async.sandbox import Sandbox

SONG = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


@pytest.fixture
def anyio_backend() -> str:
    """Stopping is measured in real time."""
    return "asyncio"


def test_misuse_is_explained():
    """`with` instead of `async with`, and asking for the address before the start."""
    sandbox = Sandbox()
    with pytest.raises(TypeError, match="async with"), sandbox:
        pass
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.base_url
    assert "not running" in repr(sandbox)
    assert sandbox.balance == 1000
    for wrong in ({"speed": 0}, {"create_limit": (0, 3.0)}, {"create_limit": (1, 0.0)}):
        with pytest.raises(ValueError, match="|".join(wrong)):
            Sandbox(**wrong)


def test_sandbox_outlives_event_loops():
    """Started again on another loop it has the same port, tasks and balance, and its time goes on."""
    sandbox = Sandbox(speed=500)

    async def once() -> float:
        async with sandbox:
            request = urllib.request.Request(
                sandbox.base_url + "/sonic/create",
                json.dumps(SONG).encode(),
                {"Authorization": "Bearer sandbox-key"},
            )
            reply = await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(request)))
            assert reply["message"] == "success"
            with pytest.raises(RuntimeError, match="running already"):
                await sandbox.start()
            return sandbox.now()

    first = asyncio.run(once())
    port = sandbox.port
    assert asyncio.run(once()) > first
    assert sandbox.port == port
    assert len(sandbox.journal.creates) == 2
    assert sandbox.balance == 960


@pytest.mark.parametrize("turns", range(6))
def test_connection_that_is_being_accepted_is_closed(turns, monkeypatch):
    """Its client has connected, but the loop has not come so far in this turn, or in one of the next."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    async def connected_while_it_stops():
        async with Sandbox() as sandbox:
            port = int(sandbox.base_url.split(":")[2].split("/")[0])
            client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            for _ in range(turns):
                await asyncio.sleep(0)
        with client:
            assert client.recv(1) == b""

    asyncio.run(connected_while_it_stops())
    gc.collect()
    assert unraisable == []


async def test_serve_forever():
    """Serves until it is cancelled, then frees its port."""
    sandbox = Sandbox()
    serving = asyncio.create_task(sandbox.serve_forever())
    await until(lambda: sandbox.port)
    _, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    writer.close()
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", sandbox.port)


async def test_stop_does_not_wait_for_files_being_made(start):
    """A file in the making is given up when the sandbox closes."""
    api = await start(longest=200.0)
    clip = await api.song(duration=60)
    asking = asyncio.create_task(api.call("GET", clip["audio_url"], key=None))
    await until(lambda: api.sandbox.journal.requests(kind="media"))
    await api.sandbox.stop()
    with pytest.raises(aiohttp.ClientError):
        await asking


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /api/v1/get-credits\r\n\r\n",
        b"POST /api/v1/sonic/create HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/v1/sonic/task/%00%ff HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sandbox-key\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /media/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=range(8),
)
async def test_malformed_http(start, raw, caplog):
    """Whatever comes in, it is answered with a 4xx or a closed connection, and logged by nobody."""
    api = await start()
    with caplog.at_level(logging.DEBUG):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.sandbox.port)
        writer.write(raw)
        writer.write_eof()
        got = await reader.read()
        writer.close()
    # aiohttp's parser in C refuses a version that its parser in Python takes, where no wheel has the one in C.
    assert got == b"" or (got.startswith(b"HTTP/") and got.split()[1].startswith(b"4"))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert (await api.get("/get-credits"))[0] == 200


async def test_compressed_bodies_are_bounded(start):
    """A small body that unpacks into a large one is refused."""
    api = await start()
    bomb = io.BytesIO(gzip.compress(b"[" * 50_000_000))
    status, _ = await api.call("POST", "/sonic/create", data=bomb, headers={"Content-Encoding": "gzip"})
    assert status in (400, 413)
    plain = gzip.compress(json.dumps(SONG).encode())
    status, _ = await api.call("POST", "/sonic/create", data=plain, headers={"Content-Encoding": "gzip"})
    assert status == 200


WITHOUT = """
import asyncio, json, sys, urllib.request, urllib.error
for name in ("numpy", "soundfile", "mutagen", "mido"):
    sys.modules[name] = None
import musicapi_async.sandbox as room
assert "aiohttp" not in sys.modules
sandbox = room.Sandbox(speed=1000)
def ask(path, body=None):
    url = path if path.startswith("http") else sandbox.base_url + path
    raw = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, {"Authorization": "Bearer sandbox-key"})
    try:
        return json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as error:
        return error.read().decode()
def work():
    wish = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "x"}
    task_id = ask("/sonic/create", wish)["task_id"]
    clips = []
    while not clips or clips[0]["state"] != "succeeded":
        clips = ask("/sonic/task/" + task_id).get("data") or []
    return ask(clips[0]["audio_url"]), ask("/sonic/upload", {"url": clips[0]["image_url"]})
async def main():
    async with sandbox:
        return await asyncio.to_thread(work)
print(asyncio.run(main()))
"""


def test_without_the_extra():
    """Everything but files works without the audio libraries; asking for a file says what to install."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "`pip install -e '.[sandbox]'` in a clone" in ran.stdout


async def test_access_log_has_one_line_for_each_request(start, caplog):
    """Requests and deliveries, once its level is INFO; a path cannot forge a line."""
    api = await start()
    caplog.set_level(logging.INFO)
    await api.get("/get-credits")
    assert caplog.messages == []
    caplog.set_level(logging.INFO, "musicapi_async.sandbox.access")
    task_id = await api.submit(body={**SONG, "webhook_url": "https://elsewhere.example/hook"})
    await api.get("/sonic/task/x%0AWARNING%20forged%1b[2J")
    api.sandbox.forward(3600)
    await until(lambda: len(api.sandbox.journal.webhooks) == 2)
    created, *others = [line.partition(" s ")[2] for line in caplog.messages]
    deliveries = [line for line in others if line.startswith("POST ")]  # the first may come before the poll
    (forged,) = [line for line in others if line not in deliveries]
    assert created == f"POST /sonic/create 200 20 credits {task_id}"
    assert forged == "GET /sonic/task/x\\nWARNING forged\\x1b[2J 400 x\\nWARNING forged\\x1b[2J"
    hook = "POST https://elsewhere.example/hook no response"
    assert deliveries == [f"{hook} song.{word} {task_id} not_allowed" for word in ("streaming", "completed")]
