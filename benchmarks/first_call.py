"""The largest gap of the event loop in the first awaited call after a client was entered; see `imports`.

A server in the same loop answers, in less than a millisecond, so that the process is as fresh as a program's
first call finds it. Prints the gap in seconds, and what entering took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

CLIPS = [{"clip_id": f"c{n}", "state": "succeeded", "audio_url": "https://cdn.example/c.mp3"} for n in (1, 2)]
ANSWERS = {
    "get-credits": {"code": 200, "credits": 10, "extra_credits": 0},
    "create": {"code": 200, "message": "success", "task_id": "t1"},
    "task": {"code": 200, "message": "success", "data": CLIPS},
}
SONG = {"mv": "sonic-v6", "gpt_description_prompt": "calm"}
CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "credits": lambda client: client.credits(),
    "create": lambda client: client.sonic.create_music(**SONG),
    "wait": lambda client: client.task("sonic", "t1").wait(),
}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1]
            length = head.lower().partition("content-length:")[2].split("\r\n")[0]
            await reader.readexactly(int(length or 0))
            body = json.dumps(next(reply for word, reply in ANSWERS.items() if word in path)).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


@asynccontextmanager
async def entered(by: str, options: dict[str, Any]) -> Any:
    """A client that was entered by itself, or by the lifespan of a bridge."""
    if by == "client":
        from musicapi_async import MusicAPI

        async with MusicAPI(**options) as client:
            yield client
        return
    from fastapi import FastAPI

    from musicapi_async.contrib.fastapi import lifespan

    async with lifespan(**options)(FastAPI()) as state:
        yield state["musicapi"]


async def main(call: str, by: str) -> tuple[float, float]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = {"api_key": "k" * 32, "base_url": f"http://127.0.0.1:{port}/api/v1"}
    gaps: list[float] = []

    async def turn() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    began = time.perf_counter()
    opened: AbstractAsyncContextManager[Any] = entered(by, options)
    async with opened as client:
        entering = time.perf_counter() - began
        turning = asyncio.create_task(turn())
        await asyncio.sleep(0)
        await CALLS[call](client)
        turning.cancel()
    server.close()
    return max(gaps), entering


if __name__ == "__main__":
    print(*asyncio.run(main(sys.argv[1], sys.argv[2])))
