"""Waiting in tests for what another task, thread or process will do: long enough for a busy machine."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE: Final = 60.0
"""Real seconds after which something that was to happen is taken to never happen."""


async def until(
    true: Callable[[], object | Awaitable[object]], what: str = "it never happened", every: float = 0.005
) -> None:
    """Look again and again, each `every` seconds, until it is true."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while True:
        found = true()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return
        assert asyncio.get_running_loop().time() < end, f"{what} (within {PATIENCE:g} s)"
        await asyncio.sleep(every)
