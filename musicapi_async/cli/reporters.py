"""Reports of a command: JSON lines for programs, text and bars for people.

Commands report to a `Reporter`, and on each task that they wait for to a `TaskReport`, whose methods are
called in the order in which they are declared. In JSON each event is one object on one line. All events of a
task have its `task_id` and `token`, and the first has `family` and `kind`; an `update` has the clips that
have changed, each with its `clip_id` and what is new of it. Other events have the same keys always.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..api.account import Credits
from ..api.json_values import JSON
from ..api.lyrics import AlignedLyrics
from ..api.results import Clip, Clips, Result, TaskUpdate
from ..api.stems import ConcatPairs, Stem
from ..api.task import Task, ref_of
from ..errors import MusicAPIError, TaskFailedError
from ..plain_data import PlainData
from .error_texts import Saving, resume_command
from .output import json_line, print_err, print_out, visible
from .result_texts import detail_lines, details_of, lyric_lines, result_lines, value_lines

if TYPE_CHECKING:
    from .progress import Bar, Bars


class JsonReporter:
    """One JSON object per line on standard output, for all tasks and commands."""

    is_json = True

    def __init__(self) -> None:
        self._written: Final[dict[str, dict[str, dict[str, object]]]] = {}
        """By task and clip, the fields that were written last."""
        self._named: Final[set[str]] = set()

    def following(
        self, speed: float, *, resumable: bool = True, saving: Saving | None = None
    ) -> AbstractContextManager[object]:
        """Return a context for commands that wait for tasks; in JSON it does nothing.

        Args:
            speed: The speed of the client's clock.
            resumable: False for tasks that end with this process. For others, text prints the command that
                resumes at once.
            saving: How the files are saved, which that command repeats.
        """
        return nullcontext()

    def task(self, label: str) -> TaskReport:
        """Return the report on one task, inside `following`: this reporter, since events name their task."""
        return self

    def busy(self, label: str) -> AbstractContextManager[object]:
        """Return a context for a call that takes a while; in JSON it does nothing."""
        return nullcontext()

    def note_printed(self, command: str) -> None:
        """Do nothing: events have tokens instead of commands."""

    def has_printed(self, command: str) -> bool:
        """Return False, as no command is printed."""
        return False

    def submitted(self, task: Task[Result]) -> None:
        """Write the event 'submitted'."""
        self._write("submitted", task, {"state": "pending", "warning": task.warning})

    accepted = submitted

    def resumed(self, task: Task[Result]) -> None:
        """Write nothing: no event has happened."""

    def updated(self, task: Task[Result], update: TaskUpdate) -> None:
        """Write what is new as the event 'update'; the last one becomes 'finished' or 'failed' instead."""
        if update.is_terminal:
            return
        before = self._written.setdefault(task.task_id, {})
        clips: list[dict[str, object]] = []
        for fields in clips_fields(update.clips):
            clip_id = str(fields["clip_id"])
            known = before.get(clip_id, {})
            changed = {name: value for name, value in fields.items() if value != known.get(name)}
            before[clip_id] = fields
            if changed:
                clips.append({"clip_id": clip_id, **changed})
        self._write("update", task, {"state": update.state, "clips": clips})

    def displayed(self, task: Task[Result], update: TaskUpdate) -> None:
        """Write the event 'update' with all that is known, for the end of a task, too."""
        clips = [
            {**fields, **details_of(clip)}
            for fields, clip in zip(clips_fields(update.clips), update.clips, strict=True)
        ]
        others = other_fields(update.result) if update.result is not None else {}
        self._write("update", task, {"state": update.state, "clips": clips, **others})

    def finished(self, task: Task[Result], result: Result) -> None:
        """Write the event 'finished'."""
        self._write("finished", task, result_fields(result))

    def failed(self, task: Task[Result], error: MusicAPIError) -> None:
        """Write the event 'failed' if the task failed; any other error is on standard error only."""
        if isinstance(error, TaskFailedError):
            fields = {"state": "failed", "refunded": error.refunded, "message": error.message}
            self._write("failed", task, {**fields, "clips": clips_fields(error.clips)})

    def saved(self, task: Task[Result], paths: Sequence[Path]) -> None:
        """Write the event 'downloaded'."""
        self._write("downloaded", task, {"paths": list(paths)})

    def reply(self, operation: str, reply: object) -> None:
        """Write the event 'reply' with the fields of the reply."""
        self.event("reply", {"operation": operation, **reply_fields(reply)}, ())

    def body(self, body: object) -> None:
        """Write the body alone, on one line."""
        print_out(json_line(body), repeatable=False)

    def event(self, name: str, fields: Mapping[str, object], text: Iterable[str]) -> None:
        """Write the event; the text is for people."""
        print_out(json_line({"event": name, **fields}), repeatable=False)

    def _write(self, name: str, task: Task[Result], fields: Mapping[str, object]) -> None:
        ids = {"task_id": task.task_id, "token": task.token}
        if task.task_id not in self._named:
            self._named.add(task.task_id)
            ids |= {"family": task.family, "kind": task.kind}
        print_out(json_line({"event": name, **ids, **fields}))


def clips_fields(clips: Iterable[Clip]) -> list[dict[str, object]]:
    """Return clips as JSON objects; the keys are always the same, and stems have a name."""
    return [_clip_fields(clip) for clip in clips]


def _clip_fields(clip: Clip) -> dict[str, object]:
    fields: dict[str, object] = {
        "clip_id": clip.clip_id,
        "state": clip.state,
        "title": clip.title,
        "duration": clip.duration,
        "stream_url": clip.stream_url,
        "final_url": clip.final_url,
        "image_url": clip.image_url,
        "failure": clip.failure if clip.is_failed else None,
    }
    return {**fields, "name": clip.name} if isinstance(clip, Stem) else fields


def result_fields(result: Result) -> dict[str, object]:
    """Return the status and clips of a result, and what else its kind has (a persona id, lyrics)."""
    fields: dict[str, object] = {"state": result.status, "clips": clips_fields(result.clips)}
    return {**fields, **other_fields(result)}


def other_fields(result: Result) -> dict[str, object]:
    """Return what a result has beside its clips, such as a persona id."""
    if isinstance(result, ConcatPairs):
        return {"parts": clips_fields(pair.part for pair in result.pairs)}
    return (
        {} if isinstance(result, Clips) else {name: getattr(result, name) for name in type(result).__slots__}
    )


def reply_fields(reply: Any) -> dict[str, JSON]:
    """Return the typed fields of a direct reply, without the raw body."""
    if not isinstance(reply, PlainData):
        return {"value": reply}
    fields = reply.to_dict()
    return {**fields, "total": reply.total} if isinstance(reply, Credits) else fields


class TextReport:
    """The report on one task: a bar while it runs, and lines that are printed at the end."""

    def __init__(self, bar: Bar, last_lines: list[str], resumable: Callable[[str], None]) -> None:
        self._bar: Final = bar
        self._last_lines: Final = last_lines
        self._resumable: Final = resumable

    def submitted(self, task: Task[Result]) -> None:
        """Print the token before anything can fail, and start the bar's clock."""
        self._resumable(task.token)
        self._bar.start()

    def resumed(self, task: Task[Result]) -> None:
        """Start the bar's clock at the time of the submit, if that is known."""
        at = ref_of(task).submitted_at
        self._bar.resume(max(0.0, time.time() - at) if at else 0.0)

    def updated(self, task: Task[Result], update: TaskUpdate) -> None:
        """Move the bar."""
        self._bar.show(update)

    def finished(self, task: Task[Result], result: Result) -> None:
        """Stop the bar; the result is printed at the end."""
        self._bar.stop(result.status)
        self._last_lines.extend(result_lines(result))

    def failed(self, task: Task[Result], error: MusicAPIError) -> None:
        """Stop the bar; the error itself is printed by the command."""
        self._bar.stop("failed" if isinstance(error, TaskFailedError) else "stopped")

    def saved(self, task: Task[Result], paths: Sequence[Path]) -> None:
        """Count the files beside the bar; their paths are printed at the end, below all clips."""
        self._bar.note(f"{len(paths)} saved")
        self._last_lines.extend(f"saved  {visible(str(path))}" for path in paths)


class TextReporter:
    """Text on standard output, bars on standard error."""

    is_json = False

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options: Final = options
        """Those of this run that its commands for tasks need, too."""
        self._bars: Bars | None = None
        self._last_lines: list[str] = []
        self._resumable = True
        self._saving: Saving | None = None
        self._commands: Final[set[str]] = set()

    @contextmanager
    def following(
        self, speed: float, *, resumable: bool = True, saving: Saving | None = None
    ) -> Generator[None]:
        """Show the bars; then print the results, also those of an interrupted wait."""
        from .progress import Bars

        self._resumable, self._saving = resumable, saving
        try:
            with Bars(speed) as self._bars:
                yield
        finally:
            self._bars = None
            lines = self._last_lines if resumable else []
            self._last_lines = []
            _print_lines(lines, repeatable=True)

    def task(self, label: str) -> TaskReport:
        """Return a report with a bar of its own."""
        if self._bars is None:
            raise RuntimeError("bars are displayed only inside `following`")
        bar = self._bars.bar(label)
        return TextReport(bar, self._last_lines, self._print_command)

    def _print_command(self, token: str) -> None:
        """Print the command that resumes a task, if one does."""
        if self._resumable:
            command = resume_command([token], self._saving, self._options)
            print_err(f"Accepted. To resume:\n{command}", fallback=True)
            self.note_printed(command)

    def busy(self, label: str) -> AbstractContextManager[object]:
        """Return a spinner."""
        from .progress import spinner

        return spinner(label)

    def note_printed(self, command: str) -> None:
        """Note that a command is on the screen, where its user finds it."""
        self._commands.add(command)

    def has_printed(self, command: str) -> bool:
        """Return True if a command is on the screen, so that it need not be printed again."""
        return command in self._commands

    def accepted(self, task: Task[Result]) -> None:
        """Print the id, and the command that waits."""
        warning = [f"Note: {visible(task.warning)}"] if task.warning else []
        lines = [
            f"Accepted: {task.family} {task.kind}, task {task.task_id}",
            *warning,
            "Wait for it, free of charge, with:",
            resume_command([task.token], options=self._options),
        ]
        _print_lines(lines, repeatable=True)

    def displayed(self, task: Task[Result], update: TaskUpdate) -> None:
        """Print all that is known of a task."""
        at = ref_of(task).submitted_at
        when = f", submitted {datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d %H:%M}" if at else ""
        made = f" {task.kind}" if task.kind else ""
        lines = [f"{task.family}{made}, {update.state}{when}", f"  task   {task.task_id}"]
        for above, clip in zip([None, *update.clips], update.clips, strict=False):
            lines += ["", *result_lines(Clips([clip])), *detail_lines(clip, above)]
        lines += result_lines(update.result, clips=False) if update.result is not None else []
        _print_lines(lines, repeatable=True)

    def reply(self, operation: str, reply: object) -> None:
        """Print a line per field, a block for long text and for lists of objects; aligned lyrics as LRC."""
        _print_lines(
            lyric_lines(reply) if isinstance(reply, AlignedLyrics) else value_lines(reply_fields(reply))
        )

    def body(self, body: object) -> None:
        """Print indented JSON."""
        print_out(json.dumps(body, indent=2), repeatable=False)

    def event(self, name: str, fields: Mapping[str, object], text: Iterable[str]) -> None:
        """Print the text; the fields are for programs."""
        _print_lines(text)


def _print_lines(lines: Iterable[str], *, repeatable: bool = False) -> None:
    """Print all lines in one write, so that all of them are on the error if it fails."""
    if found := list(lines):
        print_out("\n".join(found), repeatable=repeatable)


Reporter = JsonReporter | TextReporter
TaskReport = JsonReporter | TextReport
