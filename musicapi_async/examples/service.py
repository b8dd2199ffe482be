"""A back end with one small page: `python -m musicapi_async.examples.service`.

Describe a song, listen while it is being made, download it, make a persona of its voice, and create the next
song with it. With MUSICAPI_KEY it makes real songs, which cost credits; without a key it starts a sandbox,
which is free. Stop it in the middle and restart it: the page continues. It needs
`pip install -e '.[fastapi,sandbox]'` in the clone.

`songs.py` makes the songs; this module has only HTTP. There are no users: any visitor may order songs, so the
server listens on this machine only. It accepts orders only from its own page, not from other sites that are
open in the browser. Add a login before you let it listen on other addresses.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import mimetypes
import re
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, cast
from urllib.parse import urlsplit

try:
    import uvicorn
    from fastapi import Depends, FastAPI, HTTPException, Request, Response
    from fastapi.exceptions import RequestValidationError as InvalidBody
    from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
    from pydantic import BaseModel, Field
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ModuleNotFoundError as missing:
    from ..extras import missing_extra

    raise SystemExit(
        str(missing_extra("The example service", "fastapi,sandbox", str(missing.name)))
    ) from missing

from ..client import MusicAPI
from ..clock import Clock
from ..contrib.fastapi import (
    EventStream,
    add_problem_handler,
    body_parts,
    lifespan,
    problem_response,
    router,
)
from ..errors import RequestValidationError
from ..jobs import SQLiteStore
from ..options import LOOPBACK, find_base_url, find_key
from ..webhooks import Event, Webhooks
from ..webhooks.problems import INVALID, Problem
from ..webhooks.receiving import BODY_TIMEOUT, WEBHOOK_PATH, read_body
from ..workflows.batch_report import asset, hash_of
from .own_sandbox import Address, find_or_start, is_running
from .records import Records
from .songs import SongStudio

PAGE: Final = (
    (Path(__file__).parent / "service.html")
    .read_text(encoding="utf-8")
    .replace("/*{{player.css}}*/", asset("player.css"))
    .replace("/*{{player.js}}*/", asset("player.js"))
)
"""The page, with the style and the player that the page of a batch has, too."""
EXAMPLE_SPEED: Final = 10.0
"""How much faster than real time the sandbox makes songs: about ten seconds for one."""
EVERYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to call, not to bind
"""The host to call on this machine, for hosts that mean every address."""
ORDER_LIMIT: Final = 16 * 1024
"""Bytes of the largest order: 400 characters, each perhaps two escapes of six bytes, and a few words."""
SANDBOX_KEEP_ALIVE: Final = 120.0
"""Seconds between requests to the sandbox, which ends without any."""


def _hashes(element: str) -> str:
    inside = re.findall(rf"<{element}>(.*?)</{element}>", PAGE, re.DOTALL)
    return " ".join(f"'{hash_of(text)}'" for text in inside)


PAGE_HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; script-src {_hashes('script')}; connect-src 'self'; "
    f"style-src {_hashes('style')}; img-src * data:; media-src *; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The page runs its own script and no other, even one in a title, and in no frame of another site."""


class Order(BaseModel):
    """A song that a visitor wants; `key` distinguishes a repeated order from a new one."""

    description: Annotated[str, Field(min_length=1, max_length=400)]
    persona_id: Annotated[str, Field(max_length=200)] = ""
    instrumental: bool = False
    key: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")] = ""


class PersonaOrder(BaseModel):
    """A clip whose voice is to sing other songs."""

    name: Annotated[str, Field(min_length=1, max_length=79)]
    clip_id: Annotated[str, Field(min_length=1, max_length=200)]


def the_studio(request: Request) -> SongStudio:
    """Return the app's studio, for `Depends`."""
    return cast("SongStudio", request.app.state.studio)


StudioHere = Annotated[SongStudio, Depends(the_studio)]


class Settings:
    """The options of the command."""

    def __init__(self, host: str, port: int, folder: Path, public_url: str | None, speed: float) -> None:
        self.host: Final = host
        self.port: Final = port
        self.folder: Final = folder
        self.public_url: Final = public_url
        self.speed: Final = speed

    @property
    def here(self) -> str:
        """The address of this service on this machine."""
        host = EVERYWHERE.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def check_visitor(settings: Settings, request: HTTPConnection) -> None:
    """Refuse requests that another site makes in a visitor's browser: songs cost credits.

    The site is in Origin; a name of its own that it had point to this machine is in Host. A number in Host
    is no name that another site could point here.
    """
    host = request.headers.get("host", "")
    public = settings.public_url or ""
    if not _is_ours(_name(f"//{host}"), settings):
        raise HTTPException(421, "Another name than this service's.")
    origin = request.headers.get("origin")
    if origin is not None:
        own = (_site(f"{origin.partition(':')[0]}://{host}"), _site(public))
        if not _name(origin) or _site(origin) not in own:
            raise HTTPException(403, "Not from another site.")


class Gatekeeper:
    """Middleware in front of every path: checks the visitor, then reads the body in bounds.

    FastAPI reads the whole body before anything that a route depends on. The webhook's route has bounds of
    its own.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app: Final = app
        self._settings: Final = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            check_visitor(self._settings, HTTPConnection(scope))
        except HTTPException as refused:
            response = JSONResponse({"detail": refused.detail}, refused.status_code, {"Connection": "close"})
            await response(scope, receive, send)
            return
        if scope["path"] == WEBHOOK_PATH:
            await self._app(scope, receive, send)
            return
        body = await read_body(body_parts(Request(scope, receive)), ORDER_LIMIT, BODY_TIMEOUT)
        if isinstance(body, Problem):
            await problem_response(body)(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_read() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, receive_read, send)


def _is_ours(name: str, settings: Settings) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in {"localhost", settings.host.lower(), _name(settings.public_url or "")} - {""}
    return True


def _site(url: str) -> tuple[str, int | None]:
    """Return host and port, also where the usual port is left out."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None


def _name(url: str) -> str:
    return _site(url)[0]


async def address_of(settings: Settings) -> tuple[Address, bool]:
    """Return the service that makes songs, and True if it is a sandbox of our own."""
    try:
        return Address(find_base_url(None), find_key(None), settings.speed), False
    except RequestValidationError:
        return await find_or_start(settings.folder, settings.speed), True


def client_for(address: Address, settings: Settings, secret: str) -> MusicAPI:
    """Return a client; with webhooks, if the service that makes the songs can reach this one."""
    local = urlsplit(address.base_url).hostname in LOOPBACK
    reachable = local and _name(settings.here) in LOOPBACK
    base = settings.public_url or (settings.here if reachable else None)
    return MusicAPI(
        address.api_key,
        base_url=address.base_url,
        clock=Clock(address.speed) if local else None,
        webhooks=Webhooks(base.rstrip("/") + WEBHOOK_PATH, secret) if base else None,
        store=SQLiteStore(settings.folder / "jobs.sqlite"),
    )


def make_app(settings: Settings) -> FastAPI:
    """Return the app."""

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncGenerator[Mapping[str, Any]]:
        settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds the webhooks' secret
        records = Records(settings.folder / "records.sqlite")
        address, own = await address_of(settings)
        opened = lifespan(lambda: client_for(address, settings, records.setting("secret")))
        async with opened(app) as state:
            studio = app.state.studio = SongStudio(app.state.musicapi, records, settings.folder / "songs")
            app.state.mode = "sandbox" if own else "live"
            studio.resume()
            keeping = asyncio.create_task(_keep(address)) if own else None
            try:
                yield state
            finally:
                await studio.close()
                if keeping is not None:
                    keeping.cancel()
                    with suppress(asyncio.CancelledError):
                        await keeping
        records.close()

    async def on_event(event: Event) -> None:
        await app.state.studio.on_event(event)

    app = FastAPI(title="Song studio", lifespan=run)
    app.add_middleware(Gatekeeper, settings=settings)
    app.include_router(router(events=None, on_event=on_event))
    add_problem_handler(app)

    @app.exception_handler(InvalidBody)
    async def invalid(request: Request, error: Exception) -> Response:
        """Answer a body that is no order; FastAPI's own repeats it, and fails where that is impossible."""
        return problem_response(INVALID)

    @app.get("/", response_class=HTMLResponse)
    async def page(request: Request) -> Response:
        """Return the page."""
        return HTMLResponse(PAGE.replace("{{mode}}", request.app.state.mode), headers=PAGE_HEADERS)

    @app.post("/songs", status_code=202)
    async def order(order: Order, studio: StudioHere) -> dict[str, str]:
        """Order a song; its progress is in the feed."""
        return {"id": studio.order(order.description, order.persona_id, order.instrumental, order.key).id}

    @app.post("/personas", status_code=201)
    async def make_persona(order: PersonaOrder, studio: StudioHere) -> dict[str, str]:
        """Make a persona from a clip."""
        return {"id": (await studio.make_persona(order.name, order.clip_id)).id}

    @app.get("/feed", response_class=EventStream)
    async def feed(request: Request, studio: StudioHere) -> Response:
        """Stream all songs and personas, then every change of them."""
        return EventStream(studio.feed(request.headers.get("last-event-id")))

    @app.get("/files/{song_id}/{clip_id}", response_class=FileResponse)
    async def file(song_id: str, clip_id: str, studio: StudioHere, save: bool = False) -> Response:
        """Return the audio of a finished clip; `save` names it for the download."""
        found = studio.file(song_id, clip_id)
        if found is None or not found[0].is_file():
            return Response(status_code=404)
        path, name = found
        kind = mimetypes.guess_type(path)[0] or ""
        return FileResponse(
            path,
            filename=name if save else None,
            media_type=kind if kind.startswith("audio/") else "application/octet-stream",
            headers={"X-Content-Type-Options": "nosniff"},
        )

    return app


async def _keep(address: Address) -> None:
    while True:
        await asyncio.sleep(SANDBOX_KEEP_ALIVE)
        await is_running(address)


def main(arguments: list[str] | None = None) -> None:
    """Run the service."""
    # As it is written: a command that is broken over two lines cannot be copied.
    parser = argparse.ArgumentParser(
        prog="musicapi_async.examples.service",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    parser.add_argument("--folder", type=Path, default=Path("musicapi-service"), help="for records and songs")
    parser.add_argument("--public-url", help="URL of this service for others and for webhooks (https://...)")
    parser.add_argument("--speed", type=float, default=EXAMPLE_SPEED, help="of the sandbox; 1 is real time")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    # At its stop a persona that is being made is answered; a browser that pauses a song holds its file.
    config = uvicorn.Config(
        "", host=given.host, port=given.port, log_level="warning", timeout_graceful_shutdown=10
    )
    sock = config.bind_socket()
    sock.listen(128)  # visitors wait a moment until the sandbox has started, instead of being refused
    port = sock.getsockname()[1]
    settings = Settings(given.host, port, given.folder.absolute(), given.public_url, given.speed)
    config.app = make_app(settings)
    print(f"Song studio: {settings.here}", flush=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main(sys.argv[1:])
