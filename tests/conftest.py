"""Settings shared by all tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, which is what aiohttp needs."""
    return "asyncio"
