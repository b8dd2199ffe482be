"""A fast sandbox, and the command with its key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from command_shell import QUICK, SPEED, Shell

from musicapi_async.sandbox import Sandbox


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A fast sandbox with an account of 1000 credits."""
    async with Sandbox(speed=SPEED, durations=QUICK, longest=1) as running:
        yield running


@pytest.fixture
def shell(sandbox: Sandbox, tmp_path: Path) -> Shell:
    """The command with the key of the sandbox."""
    return Shell(sandbox, tmp_path)
