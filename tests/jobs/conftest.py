"""What the tests of jobs share: both stores, and requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from musicapi_async.jobs import JobStore, MemoryStore, SQLiteStore


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[JobStore]:
    """An empty store of each kind."""
    made: JobStore = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "jobs.sqlite")
    yield made
    await made.aclose()
