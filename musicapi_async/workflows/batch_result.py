"""The result of a batch: which songs are done, which failed and why, and what the next run continues."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from .batch_folder import SongRecord
from .manifest import Song
from .run_record import RowRecord

RETRY_HINT: Final = "To send what failed again, which charges credits: run_batch(..., retry_failed=True)."


class StepFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A step that failed: the id and the line of its song, its name, the clip, and the reason."""

    id: str
    line: int
    step: str
    clip_id: str
    reason: str


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run of a batch.

    Args:
        done: the number of finished songs.
        failed: the number of failed songs.
        failed_steps: the number of failed steps of finished songs.
        failures: the reason of each failed song, by its id.
        step_failures: the failed steps.
        unknown: the reason of each call of unknown outcome, by its job key.
        unfinished: the reason of each song that the next run continues, by its id.
        halted: the reason for which submitting stopped early, or ''.
        disk_failed: True if that was the disk, False if it was the account.
        submitted: the number of paid calls of this run.
        spent_now: the credits that this run has cost. With a budget they are computed from prices, else from
            the balance, which other calls of the account change, too. None if the balance could not be read,
            or a price is unknown.
        spent: the credits that the whole folder has cost, computed from the known prices; None without a
            budget, or if a price is unknown.
        hint: what to do about failures, or ''.
        report: the page; None if Jinja2 (extra `[cli]`) is not installed.
    """

    done: int
    failed: int
    failed_steps: int = 0
    failures: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    step_failures: list[StepFailure] = msgspec.field(default_factory=list[StepFailure])
    unknown: dict[str, str]
    unfinished: dict[str, str]
    halted: str
    disk_failed: bool = False
    submitted: int
    spent_now: float | None = None
    spent: float | None
    hint: str = ""
    report: Path | None = None

    @property
    def complete(self) -> bool:
        """True if every song is done or failed, so that the next run has nothing to continue."""
        return not self.unknown and not self.unfinished


class Outcomes:
    """The outcomes of the songs of a manifest, as they are counted."""

    def __init__(self) -> None:
        self.failures: Final[dict[str, str]] = {}
        self.unknown: Final[dict[str, str]] = {}
        self.unfinished: Final[dict[str, str]] = {}
        self._step_failures: Final[dict[str, list[StepFailure]]] = {}

    def settled(self, song: Song | RowRecord, record: SongRecord) -> int:
        """Count a settled song; return how many of its steps failed."""
        if record.state == "failed":
            self.failures[song.id] = record.reason or record.error
            return 0
        failed_steps = [
            StepFailure(
                id=song.id,
                line=song.line,
                step=step.name,
                clip_id=clip.clip_id,
                reason=step.reason or step.error,
            )
            for clip, step in record.failed_steps
        ]
        if failed_steps:
            self._step_failures[song.id] = failed_steps
        return len(failed_steps)

    def step_failures(self, songs: Iterable[Song | RowRecord]) -> list[StepFailure]:
        """Return the steps that failed, in the order of the songs."""
        return [failure for song in songs for failure in self._step_failures.get(song.id, ())]

    @property
    def hint(self) -> str:
        """The advice about failures; '' if there are none."""
        return RETRY_HINT if self.failures or self._step_failures else ""
