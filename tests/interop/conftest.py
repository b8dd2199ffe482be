"""What the clients of this room share."""

from __future__ import annotations

import functools
import ssl
from typing import Final

import pytest

ONE_CONTEXT: Final = functools.cache(ssl.create_default_context)


@pytest.fixture(autouse=True)
def certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the certificates of the world once: `httpx` does so for each client, 50 ms, and no test needs them.

    For each test and not for the room: pytest ends a fixture of a folder without `__init__.py` with the session.
    """
    monkeypatch.setattr(ssl, "create_default_context", ONE_CONTEXT)
