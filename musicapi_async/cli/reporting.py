"""What the command tells while it works: JSON lines for programs, text and bars for people.

Both reporters are told the same things in the same order. A `Row` stands for one task.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import click
import msgspec

from ..api.handle import Task
from ..api.replies import Credits
from ..api.results import Clip, Clips, ConcatPairs, Result, Stem, TaskUpdate
from ..api.values import RAW_NAME, list_or_empty
from ..errors import MusicAPIError, TaskFailedError
from .complaint import resume_command, what_happened
from .lines import write_json
from .visible import visible

if TYPE_CHECKING:
    from .progress import Bar, Bars


class Row(Protocol):
    """What is told of one task, in this order."""

    def submitted(self, task: Task[Any]) -> None:
        """It was accepted."""
        ...

    def resumed(self, task: Task[Any]) -> None:
        """It was accepted at some earlier time."""
        ...

    def saw(self, task: Task[Any], update: TaskUpdate) -> None:
        """It has changed."""
        ...

    def ended(self, task: Task[Any], result: Result) -> None:
        """It gave a result."""
        ...

    def failed(self, task: Task[Any] | None, error: MusicAPIError) -> None:
        """It failed, or the wait for it ended without a result."""
        ...

    def saved(self, task: Task[Any], paths: Sequence[Path]) -> None:
        """Its files are on disk."""
        ...


class Reporter(Protocol):
    """What a command tells."""

    is_json: bool

    def row(self, label: str) -> Row:
        """Begin to tell of a task; only inside `following`."""
        ...

    def following(self, speed: float, *, summary: bool = True) -> Any:
        """A context in which tasks are followed; `speed` is that of the client's clock.

        With `summary`, text tells at the end what each of them gave.
        """
        ...

    def busy(self, what: str) -> Any:
        """A context for a call that takes a while."""
        ...

    def accepted(self, task: Task[Any]) -> None:
        """A task was accepted that nobody waits for here."""
        ...

    def look(self, task: Task[Any], update: TaskUpdate) -> None:
        """One look at a task."""
        ...

    def reply(self, operation: str, reply: Any) -> None:
        """The answer of a direct call."""
        ...

    def body(self, body: Any) -> None:
        """A JSON body as it came."""
        ...

    def event(self, name: str, fields: Mapping[str, Any], text: Iterable[str]) -> None:
        """Anything else: as an event with fields, or as lines of text."""
        ...


# --- JSON lines --------------------------------------------------------------------------------------------


def task_fields(task: Task[Any]) -> dict[str, Any]:
    """What identifies a task in every event."""
    return {"task_id": task.task_id, "family": task.family, "kind": task.kind, "token": task.token}


def clip_fields(clip: Clip) -> dict[str, Any]:
    """A clip in an event; the keys are always the same, stems have a name."""
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
    """A result in an event: its status and clips, and what else its kind has (a persona id, lyrics)."""
    fields: dict[str, Any] = {"state": result.status, "clips": [clip_fields(clip) for clip in result.clips]}
    if isinstance(result, ConcatPairs):
        fields["parts"] = [clip_fields(pair.part) for pair in result.pairs]
    elif not isinstance(result, Clips):
        fields |= {name: getattr(result, name) for name in type(result).__slots__}
    return fields


class JsonRow:
    """The events of one task."""

    def submitted(self, task: Task[Any]) -> None:
        """Event 'submitted'."""
        write_json({"event": "submitted", **task_fields(task), "state": "pending", "warning": task.warning})

    def resumed(self, task: Task[Any]) -> None:
        """No event: nothing has happened."""

    def saw(self, task: Task[Any], update: TaskUpdate) -> None:
        """Event 'update'; the last look is told as 'finished' or 'failed'."""
        if not update.is_terminal:
            write_json(_look(task, update))

    def ended(self, task: Task[Any], result: Result) -> None:
        """Event 'finished'."""
        write_json({"event": "finished", **task_fields(task), **result_fields(result)})

    def failed(self, task: Task[Any] | None, error: MusicAPIError) -> None:
        """Event 'failed' if the task failed; any other error stands on standard error only."""
        if task is not None and isinstance(error, TaskFailedError):
            told = {"state": "failed", "refunded": error.refunded, "message": what_happened(error)}
            clips = [clip_fields(clip) for clip in error.clips]
            write_json({"event": "failed", **task_fields(task), **told, "clips": clips})

    def saved(self, task: Task[Any], paths: Sequence[Path]) -> None:
        """Event 'downloaded'."""
        write_json({"event": "downloaded", **task_fields(task), "paths": list(paths)})


def _look(task: Task[Any], update: TaskUpdate) -> dict[str, Any]:
    state = {"state": update.state, "clips": [clip_fields(clip) for clip in update.clips]}
    return {"event": "update", **task_fields(task), **state}


class JsonReporter:
    """One JSON object per line on standard output."""

    is_json = True

    def row(self, label: str) -> Row:
        """Events need no preparation."""
        return JsonRow()

    def following(self, speed: float, *, summary: bool = True) -> Any:
        """Nothing moves in JSON."""
        return nullcontext()

    def busy(self, what: str) -> Any:
        """Nothing moves in JSON."""
        return nullcontext()

    def accepted(self, task: Task[Any]) -> None:
        """Event 'submitted'."""
        JsonRow().submitted(task)

    def look(self, task: Task[Any], update: TaskUpdate) -> None:
        """Event 'update', also for an end."""
        write_json(_look(task, update))

    def reply(self, operation: str, reply: Any) -> None:
        """Event 'reply' with the fields of the reply."""
        write_json({"event": "reply", "operation": operation, **reply_fields(reply)})

    def body(self, body: Any) -> None:
        """The body alone, on one line."""
        write_json(body)

    def event(self, name: str, fields: Mapping[str, Any], text: Iterable[str]) -> None:
        """The event; the text is for people."""
        write_json({"event": name, **fields})


def reply_fields(reply: Any) -> dict[str, Any]:
    """The typed fields of a direct reply, without the raw body."""
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


class TextRow:
    """A bar while the task runs, and lines at its end."""

    def __init__(self, bar: Bar, endings: list[str]) -> None:
        self._bar: Final = bar
        self._endings: Final = endings

    def submitted(self, task: Task[Any]) -> None:
        """The time runs from here."""
        self._bar.begin()

    def resumed(self, task: Task[Any]) -> None:
        """The time runs from the submit, if that is known."""
        at = task.ref.submitted_at
        self._bar.begin(max(0.0, time.time() - at) if at else 0.0)

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

    def row(self, label: str) -> Row:
        """A bar of its own for a task."""
        if self._bars is None:
            raise RuntimeError("rows are made inside `following`")
        return TextRow(self._bars.bar(label), self._endings)

    @contextmanager
    def following(self, speed: float, *, summary: bool = True) -> Generator[None]:
        """Show the bars; print what the tasks gave when they are done, or as far as they came."""
        from .progress import Bars

        try:
            with Bars(speed) as self._bars:
                yield
        finally:
            self._bars = None
            for line in self._endings if summary else ():
                click.echo(line)
            self._endings.clear()

    def busy(self, what: str) -> Any:
        """A spinner."""
        from .progress import spinner

        return spinner(what)

    def accepted(self, task: Task[Any]) -> None:
        """The id, and how to come back."""
        for line in submitted_lines(task):
            click.echo(line)

    def look(self, task: Task[Any], update: TaskUpdate) -> None:
        """The state and the clips as they are."""
        click.echo(f"{task.task_id}  {update.state}")
        for line in result_lines(update.result or update.clips):
            click.echo(line)

    def reply(self, operation: str, reply: Any) -> None:
        """One line per field."""
        for name, value in reply_fields(reply).items():
            if value in (None, "", [], {}):
                continue
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            shown = visible(f"{value:g}" if isinstance(value, float) else shown, lines=True)
            click.echo(
                f"{click.style(name, bold=True)}  {shown}" if "\n" not in shown else f"{name}\n{shown}"
            )

    def body(self, body: Any) -> None:
        """Indented JSON."""
        click.echo(json.dumps(body, indent=2))

    def event(self, name: str, fields: Mapping[str, Any], text: Iterable[str]) -> None:
        """The text; the fields are for programs."""
        for line in text:
            click.echo(line)


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
            lines.append(
                f"  {'file ' if clip.final_url else 'stream'} {' ' if clip.final_url else ''}{visible(link)}"
            )
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
