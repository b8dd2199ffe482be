"""What the tests of jobs share: stores of each kind, and a PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from postgres_server import address, server

from musicapi_async.jobs import JobStore, MemoryStore, PostgresStore, SQLiteStore

__all__ = ["address", "server"]


@pytest.fixture
def store_address(request: pytest.FixtureRequest) -> str:
    """The address of an empty database if a test's store is on PostgreSQL; started outside of the event loop."""
    return request.getfixturevalue("address") if request.node.callspec.params["store"] == "postgres" else ""


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.thorough)])
async def store(
    request: pytest.FixtureRequest, store_address: str, tmp_path: Path
) -> AsyncGenerator[JobStore]:
    """An empty store of each kind."""
    made: JobStore
    match request.param:
        case "memory":
            made = MemoryStore()
        case "sqlite":
            made = SQLiteStore(tmp_path / "jobs.sqlite")
        case _:
            made = PostgresStore(store_address)
    yield made
    await made.aclose()
