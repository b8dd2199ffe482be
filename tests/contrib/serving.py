"""Back ends in this process, on real servers: uvicorn for FastAPI, aiohttp's own for the other bridge."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web
from fastapi import FastAPI
from patience import until

from musicapi_async import MusicAPI
from musicapi_async.contrib import aiohttp_web, fastapi

FRAMEWORKS = ("fastapi", "aiohttp_web")


class Server:
    """A running back end and a browser of it."""

    def __init__(self, port: int, browser: aiohttp.ClientSession) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.browser = browser

    async def get(self, path: str, **more: Any) -> tuple[int, str]:
        """The status and the whole text of an answer."""
        async with self.browser.get(f"{self.url}{path}", **more) as response:
            return response.status, await response.text()

    async def raw(self, *parts: bytes) -> bytes:
        """Send bytes and return all that comes until the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
            await writer.drain()
        try:
            return await reader.read()
        finally:
            writer.close()


def app_of(framework: str, make: Callable[[], MusicAPI], **routes: Any) -> FastAPI | web.Application:
    """An app with the routes of the bridge."""
    if framework == "aiohttp_web":
        application = web.Application()
        aiohttp_web.setup(application, make, **routes)
        return application
    app = FastAPI(lifespan=fastapi.lifespan(make))
    app.include_router(fastapi.router(**routes))
    fastapi.add_problem_handler(app)
    return app


@asynccontextmanager
async def serving(app: FastAPI | web.Application) -> AsyncGenerator[Server]:
    """Serve an app on a free port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200, force_close=True)) as browser:
        server = Server(sock.getsockname()[1], browser)
        if isinstance(app, web.Application):
            # aiohttp reads the rest of a refused body for ten seconds by default, then it closes.
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, lingering_time=0.3)
            await runner.setup()
            await web.SockSite(runner, sock).start()
            try:
                yield server
            finally:
                await runner.cleanup()
            return
        uvicorn_server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", log_config=None, timeout_graceful_shutdown=1)
        )
        running = asyncio.create_task(uvicorn_server.serve([sock]))
        try:
            await until(lambda: uvicorn_server.started or running.done())
            yield server
        finally:
            uvicorn_server.should_exit = True
            await running
