"""What the clients of this room share."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True, scope="package")
def certificates() -> Generator[None]:
    """Load the certificates of the world once: `httpx` does so for each client, 50 ms, and no test needs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield
