"""Text and bars: the output for people."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..api.handle import Task
from ..api.lyrics import AlignedLyrics
from ..api.parts import Stem
from ..api.results import Clips, Result, TaskUpdate
from ..api.values import list_or_empty, mapping_or_empty
from ..errors import MusicAPIError, TaskFailedError
from .error_texts import resume_command
from .json_output import reply_fields
from .output import put, tell
from .reporting import Row
from .visible import visible

if TYPE_CHECKING:
    from .progress import Bar, Bars


class TextRow:
    """A bar while the task runs, and lines at its end. `resumable` tasks outlive this process."""

    def __init__(self, bar: Bar, endings: list[str], *, resumable: bool) -> None:
        self._bar: Final = bar
        self._endings: Final = endings
        self._resumable: Final = resumable

    def submitted(self, task: Task[Any]) -> None:
        """The time runs from here; whatever happens from now on, the token has been printed."""
        if self._resumable:
            tell(f"Accepted; to come back to it:\n{resume_command([task.token])}", needed=True)
        self._bar.begin()

    def resumed(self, task: Task[Any]) -> None:
        """The time runs from the submit, if that is known."""
        at = task.ref.submitted_at
        self._bar.resume(max(0.0, time.time() - at) if at else 0.0)

    def saw(self, task: Task[Any], update: TaskUpdate) -> None:
        """Move the bar."""
        self._bar.show(update)

    def ended(self, task: Task[Any], result: Result) -> None:
        """Keep what to print once the bars are gone."""
        self._bar.finish(result.status)
        self._endings.extend(result_lines(result))

    def failed(self, task: Task[Any] | None, error: MusicAPIError) -> None:
        """Stop the bar; the error itself is told at the end."""
        self._bar.finish("failed" if isinstance(error, TaskFailedError) else "stopped")

    def saved(self, task: Task[Any], paths: Sequence[Path]) -> None:
        """Keep the paths for the end."""
        self._bar.note(f"{len(paths)} saved")
        self._endings.extend(f"  saved  {visible(str(path))}" for path in paths)


class TextReporter:
    """Text on standard output, bars on standard error."""

    is_json = False

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._endings: list[str] = []
        self._resumable = True

    def row(self, label: str) -> Row:
        """A bar of its own for a task."""
        if self._bars is None:
            raise RuntimeError("rows are made inside `following`")
        return TextRow(self._bars.bar(label), self._endings, resumable=self._resumable)

    @contextmanager
    def following(self, speed: float, *, resumable: bool = True) -> Generator[None]:
        """Show the bars; print what the tasks gave when they are done, or as far as they came."""
        from .progress import Bars

        self._resumable = resumable
        try:
            with Bars(speed) as self._bars:
                yield
        finally:
            self._bars = None
            endings = self._endings if resumable else []
            self._endings = []
            _put_lines(endings)

    def busy(self, what: str) -> AbstractContextManager[object]:
        """A spinner."""
        from .progress import spinner

        return spinner(what)

    def accepted(self, task: Task[Any]) -> None:
        """The id, and how to come back."""
        _put_lines(submitted_lines(task))

    def look(self, task: Task[Any], update: TaskUpdate) -> None:
        """The state and the clips as they are."""
        _put_lines([f"{task.task_id}  {update.state}", *result_lines(update.result or update.clips)])

    def reply(self, operation: str, reply: Any) -> None:
        """One line per field, a block for long text and for lists of objects; lyrics with times as LRC."""
        is_sung = isinstance(reply, AlignedLyrics)
        lines = lyric_lines(reply) if is_sung else value_lines(reply_fields(reply))
        _put_lines(lines, only_here=True)

    def body(self, body: Any) -> None:
        """Indented JSON."""
        put(json.dumps(body, indent=2), only_here=True)

    def event(self, name: str, fields: Mapping[str, Any], text: Iterable[str]) -> None:
        """The text; the fields are for programs."""
        _put_lines(text, only_here=True)


def _put_lines(lines: Iterable[str], *, only_here: bool = False) -> None:
    """All lines in one write, so that what cannot be written is known as a whole."""
    if found := list(lines):
        put("\n".join(found), only_here=only_here)


def lyric_lines(aligned: AlignedLyrics) -> list[str]:
    """A line of the song per line, with its time; the single words are for programs."""
    return [visible(line) for line in aligned.lrc().split("\n") if line] or ["There are no lines yet."]


def value_lines(fields: Mapping[str, Any]) -> list[str]:
    """The fields of a reply in lines; what is empty is left out."""
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


def clock_text(seconds: float | None) -> str:
    """Seconds as minutes and seconds, such as '2:42'."""
    if seconds is None:
        return "-:--"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def result_lines(result: Result) -> list[str]:
    """A result in lines: for each clip its title, length and state, its id and its link."""
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


def submitted_lines(task: Task[Any]) -> list[str]:
    """What to say of a task that nobody waits for here."""
    warning = [f"Note: {visible(task.warning)}"] if task.warning else []
    return [
        f"Accepted: {task.family} {task.kind}, task {task.task_id}",
        *warning,
        "Wait for it, free of charge, with:",
        resume_command([task.token]),
    ]
