"""A pytest plugin: a sandbox and a client on its faster clock, as fixtures.

pytest loads it by itself once the package is installed. The fixtures work under anyio's plugin and under
pytest-asyncio, whichever runs the test: they are synchronous and start the sandbox in a loop of its own.
Arguments of the sandbox come from the marker: `@pytest.mark.musicapi(speed=1000, seed=7)`.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from musicapi_async.client import MusicAPI
    from musicapi_async.sandbox import Sandbox

__all__ = ["SANDBOX_SPEED", "musicapi_client", "musicapi_sandbox"]

SANDBOX_SPEED: Final = 300.0
"""A song of two minutes takes 0.4 s."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "musicapi(**options): arguments of Sandbox for the musicapi fixtures")


@pytest.fixture
def musicapi_sandbox(request: pytest.FixtureRequest) -> Generator[Sandbox, None, None]:
    """A running sandbox in its own thread, which is stopped after the test."""
    import asyncio  # not above: every run of pytest imports this module, most of them for nothing

    from musicapi_async.sandbox import Sandbox

    options: dict[str, Any] = {"speed": SANDBOX_SPEED}
    for marker in reversed(list(request.node.iter_markers("musicapi"))):
        options.update(marker.kwargs)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="musicapi-sandbox", daemon=True)
    thread.start()
    sandbox = Sandbox(**options)
    asyncio.run_coroutine_threadsafe(sandbox.start(), loop).result(timeout=30)
    try:
        yield sandbox
    finally:
        asyncio.run_coroutine_threadsafe(sandbox.stop(), loop).result(timeout=30)
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(timeout=30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)
        loop.close()


@pytest.fixture
def musicapi_client(musicapi_sandbox: Sandbox) -> MusicAPI:
    """A client of the sandbox of the test. Its connections are closed with the event loop of the test."""
    return musicapi_sandbox.client(close_with_loop=True)
