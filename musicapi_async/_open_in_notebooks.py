"""Clients that are left open in IPython or Jupyter.

There the one event loop lasts as long as the session, so no `asyncio.run` closes what was forgotten. Such
clients are closed when the process ends, and one line says how to do it better. A client that was replaced by
another one, as when a cell is run again, is closed when it is collected.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol
from weakref import WeakSet

log: Final = logging.getLogger("musicapi_async")

CLOSING_LIMIT: Final = 10.0
"""Real seconds that the end of the process waits for a client: paid calls under way may take 5."""
NOT_CLOSED: Final = (
    "A MusicAPI client was not closed. In a notebook one event loop runs until the end, so nothing closes a "
    "client for you: run `await client.aclose()` in the last cell, use `async with MusicAPI() as client:` "
    "within one cell, or make it with `MusicAPI(close_with_loop=True)` to have it closed at the end without "
    "this line. It is closed now; tasks that are paid for continue at the service."
)


class Closable(Protocol):
    """The part of a client that is open in one event loop."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        ...

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Close it."""
        ...


class OpenClient(Protocol):
    """The parts of a client, as the end of the process sees them."""

    def leave(self) -> tuple[list[Closable], bool]:
        """Return what is open, which counts as closed from now on, and True if that is a mistake."""
        ...


def in_notebook() -> bool:
    """Return True in IPython and Jupyter."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


_watched: Final[WeakSet[OpenClient]] = WeakSet()
_closing: Final[set[asyncio.Task[None]]] = set()
_reported: Final[list[str]] = []


def watch(client: OpenClient) -> None:
    """Close a client at the end of the process, if this is a notebook."""
    if in_notebook():
        if not _watched:
            atexit.unregister(_close_watched)
            atexit.register(_close_watched)
        _watched.add(client)


def _close_watched() -> None:
    for client in list(_watched):
        close(*client.leave())


def close(opened: Sequence[Closable], is_mistake: bool) -> None:
    """Close what is open: now, or soon where its loop runs; if that is a mistake, log how to do it better."""
    for one in opened:
        loop = one.loop
        with suppress(Exception):  # the process ends; a store may have no threads any more
            if loop.is_running():
                loop.call_soon_threadsafe(_close_soon, one)
            elif not loop.is_closed():
                loop.run_until_complete(asyncio.wait_for(one.aclose(), CLOSING_LIMIT))
    if opened and is_mistake and not _reported:
        _reported.append(NOT_CLOSED)
        log.warning(NOT_CLOSED)


def _close_soon(one: Closable) -> None:
    closing = one.loop.create_task(one.aclose())
    _closing.add(closing)  # a loop holds its tasks weakly
    closing.add_done_callback(_closing.discard)
