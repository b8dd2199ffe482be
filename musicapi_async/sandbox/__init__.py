"""The API on this machine: `Sandbox`, and how it is set up.

Importing this is cheap; the server and aiohttp are loaded when `Sandbox` is first named, and the libraries
of the `sandbox` extra when a media file is first fetched.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .choices import Choices, Durations
    from .faults import Fault, Faults
    from .journal import Entry, Journal
    from .server import Sandbox

__all__ = ["Choices", "Durations", "Entry", "Fault", "Faults", "Journal", "Sandbox"]

_HOMES = {
    "Choices": "choices",
    "Durations": "choices",
    "Entry": "journal",
    "Fault": "faults",
    "Faults": "faults",
    "Journal": "journal",
    "Sandbox": "server",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
