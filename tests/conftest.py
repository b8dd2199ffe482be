"""Settings shared by all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# On a shared machine a slow example proves nothing, so no example has a deadline. In CI the examples are the
# same in every run; elsewhere each run looks in new places.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, which is what aiohttp needs."""
    return "asyncio"
