"""Jobs: paid calls as they were sent, paid for and ended, in memory or in a file.

A create that is recorded before it leaves can be found again after a crash, and a create that has a job key
is never paid for twice. The store holds requests without their secrets, answers, task ids and outcomes;
nothing of it is removed by itself. `await store.purge(before)` removes the finished and failed jobs that were
last changed before a Unix time, and with them their keys: a call with such a key is paid for again.

`sqlite3` is imported when `SQLiteStore` is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .job import Job, JobState, JobTask, Owner
from .job_request import JobRequest
from .memory import MemoryStore
from .store import JobStore, Step

if TYPE_CHECKING:
    from .sqlite import SQLiteStore

__all__ = [
    "Job",
    "JobRequest",
    "JobState",
    "JobStore",
    "JobTask",
    "MemoryStore",
    "Owner",
    "SQLiteStore",
    "Step",
]


def __getattr__(name: str) -> object:
    if name != "SQLiteStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sqlite import SQLiteStore

    return SQLiteStore
