"""The back end of the README as a process, which shares its port with others, as with `uvicorn --workers 4`."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musicapi_async import Webhooks

README: Final = Path(__file__).parents[2] / "README.md"
SECRET: Final = "a secret of sixteen or more"
WORKER: Final = "X-Worker"
"""The header of responses that names the process."""


def app() -> FastAPI:
    """The app as the README has it, with webhooks; key, address and store come from the environment."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = (block for block in blocks if "FastAPI(lifespan=lifespan())" in block)
    hooks = Webhooks("https://example.org/webhooks/musicapi", SECRET)
    names: dict[str, Any] = {"hooks": hooks, "__name__": __name__}
    exec(text.replace("lifespan()", "lifespan(webhooks=hooks)"), names)
    return names["app"]


class Named:
    """Adds the header that names the process."""

    def __init__(self, app: ASGIApp) -> None:
        self.app: Final = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on all but the beginning of a response as it is."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (WORKER.encode(), str(os.getpid()).encode())]
            await send(message)

        await self.app(scope, receive, sent)


def main() -> None:
    """Serve on the listening socket that is the standard input."""
    config = uvicorn.Config(Named(app()), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=os.dup(0))])
