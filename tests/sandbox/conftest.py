"""A sandbox and a plain HTTP caller that knows nothing of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from musicapi_async.sandbox import Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

SONG = {
    "task_type": "create_music",
    "custom_mode": True,
    "mv": "sonic-v6",
    "title": "Rainy Evening",
    "tags": "pop, dreamy",
    "prompt": "[Verse]\nRain on the window\nLight in the hall\n[Chorus]\nStay for the evening\nStay here",
    "use_suno_cdn": False,
}


class Caller:
    """Speaks plain HTTP to one sandbox."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.session = session

    async def call(
        self, method: str, path: str, *, key: str | None = "sandbox-key", **options: Any
    ) -> tuple[int, Any]:
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers.setdefault("Authorization", f"Bearer {key}")
        url = path if path.startswith("http") else self.sandbox.base_url + path
        async with self.session.request(method, url, headers=headers, **options) as reply:
            self.headers = reply.headers
            raw = await reply.read()
            kind = reply.headers.get("Content-Type", "")
            return reply.status, (await reply.json() if "json" in kind and raw else raw)

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        return await self.call("POST", path, json=body)

    async def get(self, path: str) -> tuple[int, Any]:
        return await self.call("GET", path)

    async def submit(self, path: str = "/sonic/create", body: object = SONG) -> str:
        status, reply = await self.post(path, body)
        assert status == 200, reply
        return str(reply["task_id"])

    async def until(self, path: str, done: Callable[[int, Any], bool], step: float = 10.0) -> tuple[int, Any]:
        """Poll each `step` API seconds."""
        for _ in range(1500):
            status, body = await self.get(path)
            if done(status, body):
                return status, body
            await asyncio.sleep(step / self.sandbox.clock.speed)
        raise AssertionError(f"still waiting for {path}: {body}")

    async def finished(self, task_id: str, path: str = "/sonic/task/") -> list[dict[str, Any]]:
        def over(status: int, body: Any) -> bool:
            items = body.get("data") if isinstance(body, dict) else None
            return (
                status == 200
                and isinstance(items, list)
                and bool(items)
                and all(item.get("state", "succeeded") in ("succeeded", "failed") for item in items)
            )

        return list((await self.until(f"{path}{task_id}", over))[1]["data"])

    async def song(self, **fields: object) -> dict[str, Any]:
        """The first clip of a finished song."""
        return (await self.finished(await self.submit(body={**SONG, **fields})))[0]


Starter = Callable[..., Awaitable[Caller]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Time passes only while everybody waits, so that a busy machine changes no result."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def start() -> AsyncIterator[Starter]:
    """Starts sandboxes, each with a caller; closes all of them afterwards."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def begin(**options: Any) -> Caller:
            options.setdefault("speed", 1000.0)
            options.setdefault("longest", 6.0)
            return Caller(await stack.enter_async_context(Sandbox(**options)), session)

        yield begin
