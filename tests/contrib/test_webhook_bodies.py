"""Hostile bodies of webhooks, at real servers: slow, compressed, broken off, malformed."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from contextlib import suppress
from typing import Any

import pytest
from patience import PATIENCE
from serving import FRAMEWORKS, app_of, serving

from musicapi_async import Webhooks
from musicapi_async.sandbox import Sandbox
from musicapi_async.webhooks import sign

SECRET = "a secret of sixteen characters or more"
BODY = json.dumps({"task_id": "t", "platform": "suno", "event": "song.completed"}).encode()

pytestmark = pytest.mark.parametrize("framework", FRAMEWORKS)


def app(framework: str, sandbox: Sandbox, **more: Any) -> Any:
    hooks = Webhooks(secret=SECRET)
    return app_of(framework, lambda: sandbox.client(webhooks=hooks), events=None, **more)


def head(raw: bytes, length: int | None, *more: str) -> bytes:
    now = int(time.time())
    lines = [
        "POST /webhooks/musicapi HTTP/1.1",
        "Host: x",
        f"X-Webhook-Timestamp: {now}",
        f"X-Webhook-Signature: {sign(SECRET, now, raw)}",
        *([] if length is None else [f"Content-Length: {length}"]),
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def test_body_that_stalls_is_cut_off(framework: str) -> None:
    """A sender that stops in the middle gets 408, and the server closes the connection."""
    async with Sandbox() as sandbox, serving(app(framework, sandbox, body_timeout=0.2)) as server:
        async with asyncio.timeout(PATIENCE):
            answer = await server.raw(head(BODY, len(BODY)), BODY[:10])
        status, *lines = answer.lower().split(b"\r\n")
        assert b" 408 " in status
        assert b"connection: close" in lines
        assert b'"too_slow"' in answer


async def test_body_that_trickles_in_is_cut_off(framework: str) -> None:
    """A byte now and then, for ever, holds its connection no longer than allowed."""
    async with Sandbox() as sandbox, serving(app(framework, sandbox, body_timeout=0.2)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head(BODY, 100_000))

        async def trickle() -> None:
            while True:
                writer.write(b" ")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):  # a byte that comes after the end resets the connection
                await reader.read()
        trickling.cancel()
        writer.close()
        writer.close()


@pytest.mark.parametrize("signed", ["packed", "unpacked"])
@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate"])
async def test_compressed_body_is_refused_unread(framework: str, coding: str, signed: str) -> None:
    """415 that names what is accepted, for right and wrong bytes; never a 500."""
    async with Sandbox() as sandbox, serving(app(framework, sandbox)) as server:
        for body in (gzip.compress(BODY), BODY):
            raw = body if signed == "packed" else BODY
            answer = await server.raw(head(raw, len(body), f"Content-Encoding: {coding}"), body)
            status, *lines = answer.lower().split(b"\r\n")
            assert b" 415 " in status
            assert b"accept-encoding: identity" in lines
            assert b"content-type: application/problem+json" in lines


async def test_body_that_unpacks_to_much_more_is_not_unpacked(framework: str) -> None:
    """20 kB that would become 20 MB are answered at once."""
    async with Sandbox() as sandbox, serving(app(framework, sandbox)) as server:
        bomb = gzip.compress(bytes(20_000_000))
        answer = await server.raw(head(bomb, len(bomb), "Content-Encoding: gzip"), bomb)
        assert b" 415 " in answer.split(b"\r\n")[0]


async def test_plain_body_is_taken(framework: str) -> None:
    """With `identity`, without the header, in chunks."""
    async with Sandbox() as sandbox, serving(app(framework, sandbox)) as server:
        for more in ("Content-Encoding: identity", "Content-Encoding:", "X-Other: 1"):
            answer = await server.raw(head(BODY, len(BODY), more, "Connection: close"), BODY)
            assert b" 204 " in answer.split(b"\r\n")[0]
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
        answer = await server.raw(
            head(BODY, None, "Transfer-Encoding: chunked", "Connection: close"), chunked
        )
        assert b" 204 " in answer.split(b"\r\n")[0]


async def test_malformed_body_is_no_error_of_the_server(
    framework: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Chunks without a size, at once and in the middle: 400, or 408 where the server does not say; never 500."""
    async with Sandbox() as sandbox, serving(app(framework, sandbox, body_timeout=0.3)) as server:
        with caplog.at_level(logging.WARNING):
            opening = head(BODY, None, "Transfer-Encoding: chunked", "Connection: close")
            assert b" 400 " in (await server.raw(opening + b"zz\r\n")).split(b"\r\n")[0]
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(opening + b"2\r\n{}\r\n")
            await writer.drain()
            await server.get("/")
            writer.write(b"zz\r\n")
            async with asyncio.timeout(PATIENCE):
                answer = await reader.read()
            writer.close()
            assert answer.split()[1] in (b"400", b"408")
        ours = [record for record in caplog.records if record.name.startswith("musicapi_async")]
        assert [record for record in ours if record.levelno >= logging.ERROR] == []


async def test_client_without_webhooks_answers_404(framework: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing failed in the back end that a repetition could find repaired; the log says once what to do."""
    async with Sandbox() as sandbox:
        application = app_of(framework, sandbox.client, events=None)
        async with serving(application) as server:
            for _ in range(2):
                answer = await server.raw(head(BODY, len(BODY), "Connection: close"), BODY)
                assert b" 404 " in answer.split(b"\r\n")[0]
                assert b"webhooks=" not in answer
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(records) == 1
    assert "webhooks=Webhooks(url=..., secret=...)" in records[0].getMessage()
