"""Jobs: what was sent, what was paid for, and what became of it, in memory or in a file.

A create that is written down before it leaves can be found again after a crash, and a create that has a job
key is never paid for twice. The file, and with it the database, is loaded when `SQLiteStore` is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .memory import MemoryStore
from .store import Job, JobRequest, JobState, JobStore, Owner, Step

if TYPE_CHECKING:
    from .sqlite import SQLiteStore

__all__ = ["Job", "JobRequest", "JobState", "JobStore", "MemoryStore", "Owner", "SQLiteStore", "Step"]


def __getattr__(name: str) -> Any:
    if name != "SQLiteStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sqlite import SQLiteStore

    return SQLiteStore
