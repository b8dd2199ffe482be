"""Standard input, line by line, without a read that delays the end of the process.

The `mcp` SDK reads it in a worker thread whose read cannot be cancelled: Ctrl-C and SIGTERM would wait until
the client closes its end.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Final

import anyio

LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes of a message; a longer one is left out. The largest that a tool takes is a batch of 1,000 songs."""
CHUNK: Final = 256 * 1024

log: Final = logging.getLogger("musicapi_async")


class StandardInput(anyio.AsyncFile[str]):
    """The lines of a file descriptor, which a thread reads that ends with the process."""

    def __init__(self, number: int = 0) -> None:
        super().__init__(io.StringIO())
        self._number: Final = number

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the lines until the other end is closed; no more is read than is taken."""
        lines: asyncio.Queue[str | None] = asyncio.Queue(1)
        loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                for line in chain(_lines_of(self._number), (None,)):
                    asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()
            except RuntimeError:
                return  # the loop has ended

        threading.Thread(target=read, name="standard input", daemon=True).start()
        while (line := await lines.get()) is not None:
            yield line


def _lines_of(number: int) -> Iterator[str]:
    """Yield the lines that a file descriptor gives; bytes that are no UTF-8 become U+FFFD."""
    rest, is_too_long = bytearray(), False
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
            if not is_too_long:
                yield rest.decode("utf-8", "replace")
            rest, is_too_long = bytearray(), False
        rest += last
        if len(rest) > LONGEST_LINE:
            log.warning("a message of more than %d bytes was left out", LONGEST_LINE)
            rest, is_too_long = bytearray(), True
