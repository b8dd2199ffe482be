"""Many songs from one file: a manifest in, audio, metadata and a report out, resumable at any instant."""

from __future__ import annotations

from .manifest import Manifest, Song, Step
from .plan import Plan, plan_batch
from .records import ClipRecord, SongRecord, StepRecord
from .runner import BatchResult, Progress, run_batch

__all__ = [
    "BatchResult",
    "ClipRecord",
    "Manifest",
    "Plan",
    "Progress",
    "Song",
    "SongRecord",
    "Step",
    "StepRecord",
    "plan_batch",
    "run_batch",
]
