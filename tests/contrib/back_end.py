"""A back end as it would be deployed, in a process of its own, with arguments: `fastapi <port> <settings>`.

Prints its port once it listens. `/state` lists what is running inside.
"""

import asyncio
import json
import socket
import sys
from typing import Any

from musicapi_async import Clock, MusicAPI, Webhooks

EVENTS: list[str] = []


def make(port: int, settings: dict[str, Any]) -> MusicAPI:
    url = f"http://127.0.0.1:{port}/webhooks/musicapi"
    return MusicAPI(
        settings["key"],
        base_url=settings["base_url"],
        clock=Clock(settings["speed"]),
        rate_limit=None,
        webhooks=Webhooks(url, "a secret of a test") if settings.get("webhooks", True) else None,
    )


def routes(settings: dict[str, Any]) -> dict[str, Any]:
    return {"heartbeat": 0.3, "body_timeout": settings.get("body_timeout", 10.0)}


async def note(event: Any) -> None:
    EVENTS.append(event.event)
    if event.event == "song.failed" and EVENTS.count("song.failed") == 1:
        raise OSError("the database is away")


async def state() -> dict[str, Any]:
    names = [type(task.get_coro()).__name__ for task in asyncio.all_tasks()]
    streams = names.count("async_generator_asend")
    return {"tasks": len(names), "streams": streams, "events": EVENTS}


def fastapi(sock: socket.socket, settings: dict[str, Any]) -> None:
    import uvicorn
    from fastapi import FastAPI

    from musicapi_async.contrib.fastapi import Client, add_problem_handler, lifespan, router

    port = sock.getsockname()[1]
    app = FastAPI(lifespan=lifespan(lambda: make(port, settings)))
    app.include_router(router(public=True, on_event=note, **routes(settings)))
    add_problem_handler(app)

    @app.post("/songs")
    async def create(client: Client, description: str = "", mv: str = "sonic-v6") -> dict[str, str]:
        task = await client.sonic.create_music(mv=mv, gpt_description_prompt=description)
        return {"token": task.token}

    app.get("/state")(state)
    config = uvicorn.Config(app, log_level="error")
    uvicorn.Server(config).run(sockets=[sock])


def aiohttp_web(sock: socket.socket, settings: dict[str, Any]) -> None:
    from aiohttp import web

    from musicapi_async.contrib.aiohttp_web import CLIENT, setup

    port = sock.getsockname()[1]
    app = web.Application()
    setup(app, lambda: make(port, settings), public=True, on_event=note, **routes(settings))

    async def create(request: web.Request) -> web.Response:
        query = request.query
        task = await request.app[CLIENT].sonic.create_music(
            mv=query.get("mv", "sonic-v6"), gpt_description_prompt=query.get("description", "")
        )
        return web.json_response({"token": task.token})

    async def show(request: web.Request) -> web.Response:
        return web.json_response(await state())

    app.router.add_post("/songs", create)
    app.router.add_get("/state", show)
    web.run_app(app, sock=sock, print=None, access_log=None)


def main() -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", int(sys.argv[2])))
    sock.listen(1024)
    print(sock.getsockname()[1], flush=True)
    {"fastapi": fastapi, "aiohttp_web": aiohttp_web}[sys.argv[1]](sock, json.loads(sys.argv[3]))
