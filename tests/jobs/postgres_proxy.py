"""A proxy in front of a PostgreSQL server: it delays what passes, and cuts connections at a chosen message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final


class Proxy:
    """Passes on what clients and server send each other.

    Attributes:
        port: where clients connect.
        delay: real seconds by which each message is late, in both directions.
        messages: messages of clients that have arrived.
        cuts: how many connections were cut.
    """

    def __init__(self, server: int) -> None:
        self.port = 0
        self.delay = 0.0
        self.messages = 0
        self.cuts = 0
        self._server: Final = server
        self._cut_in = 0
        self._answer_only = False
        self._open: Final[dict[asyncio.Task[None], asyncio.StreamWriter]] = {}

    def cut(self, messages: int, *, answer_only: bool) -> None:
        """Cut the connection that carries the nth message of clients from now on.

        Args:
            messages: n, from 1 on; 0 to cut none.
            answer_only: True if the server gets that message, and only its answer is lost.
        """
        self._cut_in, self._answer_only = messages, answer_only

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one connection until one side ends it."""
        serving = asyncio.current_task()
        assert serving is not None
        self._open[serving] = writer
        try:
            answers, to_server = await asyncio.open_connection("127.0.0.1", self._server)
        except BaseException:
            del self._open[serving]
            writer.transport.abort()
            raise
        answering = asyncio.create_task(self._pass_answers(answers, writer))
        try:
            while data := await reader.read(65536):
                self.messages += 1
                self._cut_in -= 1
                if self._cut_in == 0:
                    self.cuts += 1
                    answering.cancel()
                    await asyncio.wait({answering})
                    if self._answer_only:
                        to_server.write(data)
                        await answers.read(1)  # it has been done
                    return
                await self._pass(data, to_server)
        except ConnectionError:
            pass
        finally:
            answering.cancel()
            del self._open[serving]
            writer.transport.abort()
            to_server.transport.abort()

    async def aclose(self) -> None:
        """End all connections."""
        for serving in self._open:
            serving.cancel()  # one may sleep for its delay
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _pass_answers(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await answers.read(65536):
                await self._pass(data, writer)
        writer.transport.abort()

    async def _pass(self, data: bytes, out: asyncio.StreamWriter) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        out.write(data)
        await out.drain()


@asynccontextmanager
async def proxy_to(server: int) -> AsyncGenerator[Proxy]:
    """A proxy to the server on a port of this machine."""
    proxy = Proxy(server)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.aclose()
