"""Standard input, line by line, without a read that delays the end of the process.

The `mcp` SDK reads it in a worker thread whose read cannot be cancelled: Ctrl-C and SIGTERM would wait until
the client closes its end. It also drops a line that it cannot read, such as one with half of an emoji, and
the client waits for an answer until it gives up; here such a line is answered.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import chain
from typing import Final, NamedTuple

import anyio
import mcp_types as types
from pydantic import ValidationError

LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes of a message; a longer one is left out. The largest that a tool takes is a batch of 1,000 songs."""
CHUNK: Final = 256 * 1024
ENDS: Final = 1024
"""Bytes at both ends of a message that is too long, in which its id is."""
CUT: Final = ", where a character is cut in two, such as an emoji (half of a surrogate pair)"

log: Final = logging.getLogger("musicapi_async")

Refuse = Callable[[types.JSONRPCError], Awaitable[None]]

_ID: Final = r'"id"\s*:\s*(-?\d{1,18}|"[^"\\]{1,200}")\s*'
_FIRST: Final = re.compile(r'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?' + _ID + ",")
_LAST: Final = re.compile(_ID + r"\}\s*\Z")


class _Line(NamedTuple):
    """A line of the input; of one that is too long only both ends."""

    text: str
    is_whole: bool


class StandardInput(anyio.AsyncFile[str]):
    """The messages of standard input, which a thread reads that ends with the process.

    Args:
        refuse: Gets the answer to each line that is no message; it was not carried out.
    """

    def __init__(self, refuse: Refuse) -> None:
        super().__init__(io.StringIO())
        self._refuse: Final = refuse

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the messages until the other end is closed; no more is read than is taken."""
        lines: asyncio.Queue[_Line | None] = asyncio.Queue(1)
        loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                for line in chain(_lines_of(0), (None,)):
                    asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()
            except RuntimeError:
                return  # the loop has ended

        threading.Thread(target=read, name="standard input", daemon=True).start()
        while (line := await lines.get()) is not None:
            refusal = refusal_of(line.text, is_whole=line.is_whole)
            if refusal is not None:
                log.warning("%s", refusal.error.message)
                await self._refuse(refusal)
            elif line.text.strip():
                yield line.text


def refusal_of(line: str, *, is_whole: bool = True) -> types.JSONRPCError | None:
    """Return the answer to a line that is no message of the protocol; None for a message or an empty line."""
    if not is_whole:
        return _refusal(line, types.INVALID_REQUEST, f"it has more than {LONGEST_LINE} bytes")
    if not line.strip():
        return None
    try:
        types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        if fault["type"] == "json_invalid":
            is_cut = "hex escape" in fault["msg"] or "surrogate" in fault["msg"]
            return _refusal(line, types.PARSE_ERROR, fault["msg"] + (CUT if is_cut else ""))
        return _refusal(line, types.INVALID_REQUEST, "it is no message of JSON-RPC 2.0")
    return None


def _refusal(line: str, code: int, reason: str) -> types.JSONRPCError:
    text = f"The message was left out: {reason}. Nothing was carried out, nothing was charged."
    return types.JSONRPCError(jsonrpc="2.0", id=_id_of(line), error=types.ErrorData(code=code, message=text))


def _id_of(line: str) -> types.RequestId | None:
    """Return the id of a message that cannot be read, which is at its begin or end; None if not found."""
    found = _FIRST.match(line) or _LAST.search(line[-ENDS:])
    return None if found is None else json.loads(found[1])


def _lines_of(number: int) -> Iterator[_Line]:
    """Yield the lines that a file descriptor gives; bytes that are no UTF-8 become U+FFFD."""
    rest, begin = bytearray(), bytearray()
    while True:
        try:
            chunk = os.read(number, CHUNK)
        except OSError:
            return
        if not chunk:
            return
        *whole, last = chunk.split(b"\n")
        for part in whole:
            rest += part
            if begin:
                rest = begin + rest[-ENDS:]
            yield _Line(rest.decode("utf-8", "replace"), not begin)
            rest, begin = bytearray(), bytearray()
        rest += last
        if len(rest) > LONGEST_LINE:
            begin = begin or rest[:ENDS]
            rest = rest[-ENDS:]
