"""A raw server on loopback that answers as a script says, byte by byte, and counts what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Literal, Self

from fault_oracle import Reply

Stage = Literal["accept", "head", "request"]
"""When an answer begins: once connected, once the header has been read, or once the body has been read."""


class End(Enum):
    """How a connection ends before its time."""

    CLOSE = auto()
    RESET = auto()
    HANG = auto()


Step = bytes | float | End
"""Bytes to write, seconds to wait, or an end."""


@dataclass(frozen=True)
class Request:
    """A request as it arrived; empty where an answer does not wait for it."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """One entry of a script: `make` gives the steps and what a correct client knows after them."""

    make: Callable[[Request], tuple[Sequence[Step], Reply]]
    stage: Stage = "request"


class HostileServer:
    """Answers the n-th connection attempt with the n-th entry of `script`; the last one stays in force."""

    def __init__(self, script: Sequence[Answer]) -> None:
        self.arrived: list[Request] = []
        self.replies: list[Reply] = []
        self._script = list(script)
        self._next = 0
        self._talks: set[asyncio.Task[None]] = set()

    def play(self, script: Sequence[Answer]) -> None:
        """Forget what came, and go on with another script."""
        self.arrived, self.replies = [], []
        self._script, self._next = list(script), 0

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.ensure_future(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _turn(self) -> Answer:
        answer = self._script[min(self._next, len(self._script) - 1)]
        self._next += 1
        return answer

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether another may follow on this connection."""
        if self._script[min(self._next, len(self._script) - 1)].stage == "accept":
            return await self._play(self._turn(), Request(), writer)
        head = await reader.readuntil(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        method, target, *_ = [*line.split(" "), "", ""]
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
        answer, place = self._turn(), len(self.arrived)
        self.arrived.append(Request(method, target, headers))
        if answer.stage == "request":
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.arrived[place] = Request(method, target, headers, body)
        return await self._play(answer, self.arrived[place], writer)

    async def _play(self, answer: Answer, request: Request, writer: asyncio.StreamWriter) -> bool:
        steps, reply = answer.make(request)
        self.replies.append(reply)
        for step in steps:
            match step:
                case bytes():
                    writer.write(step)
                    await writer.drain()
                case float():
                    await asyncio.sleep(step)
                case End.HANG:
                    await asyncio.sleep(3600)
                case End.RESET:
                    raw: socket.socket = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return False
                case End.CLOSE:
                    return False
        return True
