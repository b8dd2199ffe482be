"""Jobs: what was sent, what was paid for, and what became of it, in memory or in a file.

A create that is written down before it leaves can be found again after a crash, and a create that has a job
key is never paid for twice.
"""

from __future__ import annotations

from .base import Holder, Job, JobRequest, JobState, JobStore, Step
from .memory import MemoryStore
from .sqlite import SQLiteStore

__all__ = ["Holder", "Job", "JobRequest", "JobState", "JobStore", "MemoryStore", "SQLiteStore", "Step"]
