"""A sandbox and a client for tests of workflows."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from postgres_server import address, server

from musicapi_async import MusicAPI
from musicapi_async.sandbox import Sandbox

__all__ = ["address", "server"]


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A sandbox whose songs take half a second and are short."""
    async with Sandbox(speed=300, credits=1e6, longest=1) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncGenerator[MusicAPI]:
    """A client without a rate limit."""
    async with sandbox.client(rate_limit=None) as client:
        yield client
