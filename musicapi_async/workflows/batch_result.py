"""The result of a batch: which songs are done, which failed and why, and what the next run continues."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from .batch_folder import SongRecord
from .manifest import Song
from .run_record import RowRecord

RETRY_HINT: Final = "To send what failed again, which is charged again: run_batch(..., retry_failed=True)."


class StepFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A step that failed: the id and the line of its song, its name, the clip, and the reason."""

    id: str
    line: int
    step: str
    clip_id: str
    reason: str


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    `done` and `failed` count songs, `failed_steps` the steps that failed for songs that are done; `failures`
    maps the ids of failed songs to why, `step_failures` lists failed steps. `unknown` maps the job keys of
    unknown outcome to why, `unfinished` the ids of songs that the next run continues to why. `halted` is why
    submitting stopped early, or ''; `disk_failed` says that it was the disk and not the account. `submitted`
    counts paid calls.
    `spent_now` is what this run has cost in credits: with a budget by its prices, else by the balance, which
    other calls of the account move, too (None: it could not be read, or a price is unknown). `spent` is what
    the whole folder has cost, with a budget: all charged sends, by the prices known now; what has no price
    adds nothing. `report` is the page, None where Jinja2 (extra `[cli]`) is not installed; `hint` is what to
    do about failures, or ''.
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
        """Every song is settled, which does not say that none failed."""
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
