"""Reports of a command: JSON lines for programs, text and bars for people.

Commands report to a `Reporter`, and on each task that they wait for to a `TaskReport`, whose methods are
called in the order in which they are declared. In JSON each event is one object on one line; the keys of an
event are always the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click
import msgspec

from ..api.account import Credits
from ..api.lyrics import AlignedLyrics
from ..api.results import RAW_NAME, Clip, Clips, Result, TaskUpdate
from ..api.stems import ConcatPairs, Stem
from ..api.task import Task
from ..api.values import list_or_empty, mapping_or_empty
from ..errors import MusicAPIError, TaskFailedError
from .error_texts import resume_command
from .output import clock_text, json_line, print_err, print_out, visible

if TYPE_CHECKING:
    from .progress import Bar, Bars

# --- JSON lines --------------------------------------------------------------------------------------------


class JsonReporter:
    """One JSON object per line on standard output, for all tasks and commands."""

    is_json = True

    def following(
        self, speed: float, *, resumable: bool = True, folder: Path | None = None
    ) -> AbstractContextManager[object]:
        """Return a context for commands that wait for tasks; in JSON it does nothing.

        Args:
            speed: The speed of the client's clock.
            resumable: False for tasks that end with this process. For others, text prints the command that
                resumes at once.
            folder: The folder for the files, which that command names.
        """
        return nullcontext()

    def task(self, label: str) -> TaskReport:
        """Return the report on one task, inside `following`: this reporter, since events name their task."""
        return self

    def busy(self, label: str) -> AbstractContextManager[object]:
        """Return a context for a call that takes a while; in JSON it does nothing."""
        return nullcontext()

    def submitted(self, task: Task[Any]) -> None:
        """Write the event 'submitted'."""
        self._write("submitted", task, {"state": "pending", "warning": task.warning})

    accepted = submitted

    def resumed(self, task: Task[Any]) -> None:
        """Write nothing: no event has happened."""

    def updated(self, task: Task[Any], update: TaskUpdate) -> None:
        """Write the event 'update'; the last update becomes 'finished' or 'failed' instead."""
        if not update.is_terminal:
            self.polled(task, update)

    def polled(self, task: Task[Any], update: TaskUpdate) -> None:
        """Write the event 'update', for the end of a task, too."""
        self._write("update", task, {"state": update.state, "clips": clips_fields(update.clips)})

    def finished(self, task: Task[Any], result: Result) -> None:
        """Write the event 'finished'."""
        self._write("finished", task, result_fields(result))

    def failed(self, task: Task[Any], error: MusicAPIError) -> None:
        """Write the event 'failed' if the task failed; any other error is on standard error only."""
        if isinstance(error, TaskFailedError):
            fields = {"state": "failed", "refunded": error.refunded, "message": error.message}
            self._write("failed", task, {**fields, "clips": clips_fields(error.clips)})

    def saved(self, task: Task[Any], paths: Sequence[Path]) -> None:
        """Write the event 'downloaded'."""
        self._write("downloaded", task, {"paths": list(paths)})

    def reply(self, operation: str, reply: Any) -> None:
        """Write the event 'reply' with the fields of the reply."""
        self.event("reply", {"operation": operation, **reply_fields(reply)}, ())

    def body(self, body: Any) -> None:
        """Write the body alone, on one line."""
        print_out(json_line(body), repeatable=False)

    def event(self, name: str, fields: Mapping[str, Any], text: Iterable[str]) -> None:
        """Write the event; the text is for people."""
        print_out(json_line({"event": name, **fields}), repeatable=False)

    def _write(self, name: str, task: Task[Any], fields: Mapping[str, Any]) -> None:
        ids = {"task_id": task.task_id, "family": task.family, "kind": task.kind, "token": task.token}
        print_out(json_line({"event": name, **ids, **fields}))


def clips_fields(clips: Iterable[Clip]) -> list[dict[str, Any]]:
    """Return clips as JSON objects; the keys are always the same, and stems have a name."""
    return [_clip_fields(clip) for clip in clips]


def _clip_fields(clip: Clip) -> dict[str, Any]:
    fields = {
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


def result_fields(result: Result) -> dict[str, Any]:
    """Return the status and clips of a result, and what else its kind has (a persona id, lyrics)."""
    fields: dict[str, Any] = {"state": result.status, "clips": clips_fields(result.clips)}
    if isinstance(result, ConcatPairs):
        fields["parts"] = clips_fields(pair.part for pair in result.pairs)
    elif not isinstance(result, Clips):
        fields |= {name: getattr(result, name) for name in type(result).__slots__}
    return fields


def reply_fields(reply: Any) -> dict[str, Any]:
    """Return the typed fields of a direct reply, without the raw body."""
    if not isinstance(reply, msgspec.Struct):
        return {"value": reply}
    names = [name for name in reply.__struct_fields__ if name != "raw"]
    fields = {name: _without_raw(msgspec.to_builtins(getattr(reply, name))) for name in names}
    return {**fields, "total": reply.total} if isinstance(reply, Credits) else fields


def _without_raw(value: Any) -> Any:
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        return {key: _without_raw(one) for key, one in mapping.items() if key != RAW_NAME}
    return [_without_raw(one) for one in list_or_empty(value)] if isinstance(value, list) else value


# --- text --------------------------------------------------------------------------------------------------


class TextReport:
    """The report on one task: a bar while it runs, and lines that are printed at the end."""

    def __init__(self, bar: Bar, last_lines: list[str], *, resumable: bool, folder: Path | None) -> None:
        self._bar: Final = bar
        self._last_lines: Final = last_lines
        self._resumable: Final = resumable
        self._folder: Final = folder

    def submitted(self, task: Task[Any]) -> None:
        """Print the token before anything can fail, and start the bar's clock."""
        if self._resumable:
            print_err(f"Accepted. To resume:\n{resume_command([task.token], self._folder)}", fallback=True)
        self._bar.start()

    def resumed(self, task: Task[Any]) -> None:
        """Start the bar's clock at the time of the submit, if that is known."""
        at = task.ref.submitted_at
        self._bar.resume(max(0.0, time.time() - at) if at else 0.0)

    def updated(self, task: Task[Any], update: TaskUpdate) -> None:
        """Move the bar."""
        self._bar.show(update)

    def finished(self, task: Task[Any], result: Result) -> None:
        """Stop the bar; the result is printed at the end."""
        self._bar.stop(result.status)
        self._last_lines.extend(result_lines(result))

    def failed(self, task: Task[Any], error: MusicAPIError) -> None:
        """Stop the bar; the error itself is printed by the command."""
        self._bar.stop("failed" if isinstance(error, TaskFailedError) else "stopped")

    def saved(self, task: Task[Any], paths: Sequence[Path]) -> None:
        """Count the files beside the bar; their paths are printed at the end."""
        self._bar.note(f"{len(paths)} saved")
        self._last_lines.extend(f"  saved  {visible(str(path))}" for path in paths)


class TextReporter:
    """Text on standard output, bars on standard error."""

    is_json = False

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._last_lines: list[str] = []
        self._resumable = True
        self._folder: Path | None = None

    @contextmanager
    def following(
        self, speed: float, *, resumable: bool = True, folder: Path | None = None
    ) -> Generator[None]:
        """Show the bars; then print the results, also those of an interrupted wait."""
        from .progress import Bars

        self._resumable, self._folder = resumable, folder
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
        return TextReport(bar, self._last_lines, resumable=self._resumable, folder=self._folder)

    def busy(self, label: str) -> AbstractContextManager[object]:
        """Return a spinner."""
        from .progress import spinner

        return spinner(label)

    def accepted(self, task: Task[Any]) -> None:
        """Print the id, and the command that waits."""
        warning = [f"Note: {visible(task.warning)}"] if task.warning else []
        lines = [
            f"Accepted: {task.family} {task.kind}, task {task.task_id}",
            *warning,
            "Wait for it, free of charge, with:",
            resume_command([task.token]),
        ]
        _print_lines(lines, repeatable=True)

    def polled(self, task: Task[Any], update: TaskUpdate) -> None:
        """Print the state and the clips."""
        lines = [f"{task.task_id}  {update.state}", *result_lines(update.result or update.clips)]
        _print_lines(lines, repeatable=True)

    def reply(self, operation: str, reply: Any) -> None:
        """Print a line per field, a block for long text and for lists of objects; aligned lyrics as LRC."""
        is_sung = isinstance(reply, AlignedLyrics)
        _print_lines(lyric_lines(reply) if is_sung else value_lines(reply_fields(reply)))

    def body(self, body: Any) -> None:
        """Print indented JSON."""
        print_out(json.dumps(body, indent=2), repeatable=False)

    def event(self, name: str, fields: Mapping[str, Any], text: Iterable[str]) -> None:
        """Print the text; the fields are for programs."""
        _print_lines(text)


def _print_lines(lines: Iterable[str], *, repeatable: bool = False) -> None:
    """Print all lines in one write, so that all of them are on the error if it fails."""
    if found := list(lines):
        print_out("\n".join(found), repeatable=repeatable)


Reporter = JsonReporter | TextReporter
TaskReport = JsonReporter | TextReport


def lyric_lines(aligned: AlignedLyrics) -> list[str]:
    """Return a line of text per line of the song, with its time; the single words are for programs."""
    return [visible(line) for line in aligned.lrc().split("\n") if line] or ["There are no lines yet."]


def value_lines(fields: Mapping[str, Any]) -> list[str]:
    """Return the fields of a reply as lines, without empty ones."""
    lines: list[str] = []
    for name, value in fields.items():
        if value in (None, "", [], {}):
            continue
        label = click.style(name, bold=True)
        rows = [mapping_or_empty(one) for one in list_or_empty(value) if isinstance(one, dict)]
        if rows:
            lines.append(label)
            for row in rows:
                block = _row_lines(row)
                lines += [f"  {line}".rstrip() for line in block] + ([""] if len(block) > 1 else [])
        elif isinstance(value, dict):
            lines += [label, *(f"  {line}" for line in value_lines(mapping_or_empty(value)))]
        else:
            text = _scalar(value)
            lines += [label, *text.splitlines()] if "\n" in text else [f"{label}  {text}"]
    return lines


def _row_lines(row: dict[str, Any]) -> list[str]:
    plain = all(not isinstance(value, dict | list) and "\n" not in _scalar(value) for value in row.values())
    if not plain:
        return value_lines(row)
    return ["  ".join(f"{name} {_scalar(value)}" for name, value in row.items() if value not in (None, ""))]


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_scalar(one) for one in list_or_empty(value))
    if isinstance(value, str):
        return visible(value, lines=True)
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def result_lines(result: Result) -> list[str]:
    """Return a result as lines: for each clip its title, length and state, its id and its link."""
    lines: list[str] = []
    for clip in result.clips:
        name = clip.name if isinstance(clip, Stem) else clip.title or "(no title)"
        state = clip.state or ("succeeded" if clip.is_succeeded else "running")
        color = "green" if clip.is_succeeded else "red" if clip.is_failed else None
        title = click.style(visible(name), bold=True)
        lines.append(f"{title}  {clock_text(clip.duration)}  {click.style(visible(state), fg=color)}")
        if clip.failure and clip.is_failed:
            lines.append(f"  why    {visible(clip.failure)}")
        lines.append(f"  clip   {visible(clip.clip_id)}")
        link = clip.final_url or clip.stream_url
        if link:
            lines.append(f"  {'link  ' if clip.final_url else 'stream'} {visible(link)}")
    if not isinstance(result, Clips):
        for name in type(result).__slots__:
            value = getattr(result, name)
            if value:
                text = visible(str(value), lines=True)
                lines.append(f"{name}\n{text}" if "\n" in text else f"{click.style(name, bold=True)}  {text}")
    return lines
