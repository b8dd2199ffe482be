"""The overview of a batch: its numbers, and what failed, with the reason, the money, and what repairs it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import msgspec

from ..jobs import Job
from .batch_folder import BatchFolder, SongRecord
from .command_texts import counted, duration_text, in_commands, same_reason
from .run_record import RowRecord, RunRecord, song_id_of

NAMED: Final = 12
"""Songs that one problem names; the others are counted."""
REFUNDS: Final[Mapping[bool | None, str]] = {
    True: "Refunded.",
    False: "Not refunded.",
    None: "The service does not say if it was refunded.",
}
UNKNOWN: Final = "It was sent, and may have been charged."
INTERRUPTED: Final = "It was submitted and is paid for; the run ended before it was fetched."


class AffectedSong(msgspec.Struct, frozen=True):
    """A song that a problem names, by its row and in words."""

    row: int
    text: str


class Problem(msgspec.Struct):
    """Songs or steps that failed alike: the reason, what became of the money, and the command that helps."""

    what: str
    reason: str
    money: str
    command: str
    places: list[AffectedSong] = []
    more: int = 0


class PageState(msgspec.Struct, kw_only=True):
    """All that a page is made from, beside the records of the songs.

    `states` maps the ids in the folder of songs without a settled record to words of the page, `costs` ids to
    credits in words, `unknown` are the jobs of unknown outcome. `spent` is in words. While a run is on, the
    page is `renewed` after as many seconds. `store` is where the jobs are, if that is not the folder.
    """

    run: RunRecord
    written_at: float = 0.0
    renewed: float = 0.0
    states: Mapping[str, str] = {}
    costs: Mapping[str, str] = {}
    unknown: list[Job] = []
    spent: str = ""
    store: str = ""

    @property
    def is_running(self) -> bool:
        """True while a run is on."""
        return self.run.ended_at == 0

    def jobs_in(self, folder: BatchFolder) -> str:
        """Return the place of the jobs as a word of a command line."""
        return shlex.quote(self.store or str(folder.out))


def state_of(row: RowRecord, record: SongRecord | None, state: PageState) -> tuple[str, str]:
    """Return the state of a row, and what is to be said of it."""
    if record is not None and not record.open:
        return record.state, ""
    reason = state.run.unfinished.get(row.id, "")
    now = state.states.get(row.stored_id, "unfinished" if reason else "queued")
    if now == "unfinished" and not reason:
        reason = INTERRUPTED
    notes = {"unfinished": reason, "unknown": UNKNOWN}
    return now, notes.get(now, "")


class Overview:
    """The numbers and the problems of a batch, gathered from its records before the page is written."""

    def __init__(self, folder: BatchFolder, state: PageState) -> None:
        self._state: Final = state
        self._counts: Final[Counter[str]] = Counter()
        self._found: Final[dict[tuple[str, str, str], Problem]] = {}
        self._takes = self._failed_steps = 0
        self._seconds = 0.0
        self._command: Final = state.run.command(folder.out)
        self._store: Final = state.jobs_in(folder)
        for number, row in enumerate(state.run.rows, 1):
            self._add(number, row, folder.record_of(row.stored_id))
        places = {row.stored_id: _affected(number, row) for number, row in enumerate(state.run.rows, 1)}
        for job in state.unknown:
            self._add_unknown(job, places)

    def _add(self, at: int, row: RowRecord, record: SongRecord | None) -> None:
        now, note = state_of(row, record, self._state)
        self._counts[now] += 1
        if now == "unfinished":
            if not self._state.is_running:
                self._problem("Unfinished", note, "", self._command, _affected(at, row))
        elif record is not None and now == "failed":
            money = REFUNDS[record.refunded] if record.task_id else ""
            reason = record.reason or record.error
            self._problem("Failed", reason, money, f"{self._command} --retry-failed", _affected(at, row))
        for number, clip in enumerate(record.clips if record is not None else (), 1):
            self._takes += bool(clip.file)
            self._seconds += clip.duration or 0.0
            place = _affected(at, row, f"take {number}")
            if clip.error:
                self._problem("One take failed", clip.error, "", "", place)
            for step in clip.steps:
                if step.state == "failed":
                    self._failed_steps += 1
                    money = REFUNDS[step.refunded] if step.task_id else ""
                    reason = step.reason or step.error
                    command = f"{self._command} --retry-failed"
                    self._problem(f"Step {step.name} failed", reason, money, command, place)

    def _add_unknown(self, job: Job, places: Mapping[str, AffectedSong]) -> None:
        place = places.get(song_id_of(job.key, places, self._state.run.job_prefix))
        where = f"{self._store} {shlex.quote(job.key)}"
        resubmit = f"musicapi jobs resubmit {where}"
        if job.request.makes_tasks:
            command = f"musicapi jobs resolve {where} --task-id ID"
            todo = f"its task, and name it. If there is none, `{resubmit}` sends it again."
        else:
            command, todo = resubmit, "its result. If there is none, send it again."
        money = f"It may have been charged: search the dashboard for {todo}"
        reason = job.why.partition(". ")[0] or "it was sent, and no answer came"
        if place is not None:
            self._problem("Outcome unknown", reason, money, command, place)

    def _problem(self, what: str, reason: str, money: str, command: str, place: AffectedSong) -> None:
        reason = in_commands(reason, self._store)
        key = what, same_reason(reason), money + command
        problem = self._found.setdefault(key, Problem(what, reason, money, command, []))
        if len(problem.places) < NAMED:
            problem.places.append(place)
        else:
            problem.more += 1

    @property
    def problems(self) -> list[Problem]:
        """The problems, those about money first; of those with one command the last has it."""
        order = ("Outcome unknown", "Failed", "Unfinished", "Step", "One take")
        found = sorted(
            self._found.values(), key=lambda one: next(i for i, word in enumerate(order) if word in one.what)
        )
        for problem, following in pairwise(found):
            if problem.command == following.command:  # it is displayed once, below the last of them
                problem.command = ""
        return found

    @property
    def title(self) -> str:
        """The heading above the problems."""
        words = ("unknown", "with an unknown outcome"), ("failed", "failed"), ("unfinished", "unfinished")
        parts = [
            f"{counted(self._counts[name], 'song')} {text}" for name, text in words if self._counts[name]
        ]
        if self._failed_steps:
            parts.append(f"{counted(self._failed_steps, 'step')} failed")
        return ", ".join(parts) or "Some takes failed"

    def numbers(self) -> list[str]:
        """Return the counts of the batch in words."""
        counts = self._counts
        waiting = counts["queued"] + counts["submitting"]
        parts = [counted(counts.total(), "song")]
        parts += [
            f"{number} {text}"
            for number, text in (
                (counts["done"], "done"),
                (waiting, "waiting"),
                (counts["running"], "generating"),
                (counts["fetching"], "downloading"),
                (counts["failed"], "failed"),
                (counts["unknown"], "with an unknown outcome"),
                (counts["unfinished"], "unfinished"),
            )
            if number
        ]
        if self._takes:
            parts.append(f"{counted(self._takes, 'take')}, {duration_text(self._seconds)} of music")
        run = self._state.run
        if self._state.spent:
            parts.append(f"{self._state.spent} spent")
        if halted := in_commands(run.halted, self._store):
            is_below = any(problem.reason == halted for problem in self._found.values())
            parts.append("stopped early" if is_below else f"stopped early: {halted}")
        if run.ended_at > run.started_at > 0:
            parts.append(f"the last run took {duration_text(run.ended_at - run.started_at)}")
        return parts


def _affected(number: int, row: RowRecord, take: str = "") -> AffectedSong:
    return AffectedSong(number, f"row {number}, {row.title[:60]}" + (f", {take}" if take else ""))
