"""JSON lines: the output for programs. One object per line; the keys of an event are always the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import msgspec

from ..api.handle import Task
from ..api.parts import ConcatPairs, Stem
from ..api.replies import Credits
from ..api.results import Clip, Clips, Result, TaskUpdate
from ..api.values import RAW_NAME, list_or_empty
from ..errors import MusicAPIError, TaskFailedError
from .output import put
from .reporting import Row


def json_line(value: Any) -> str:
    """A value as one line of JSON. Only ASCII, so that no encoding and no terminal can spoil it."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else msgspec.to_builtins(value)


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
        put(
            json_line(
                {"event": "submitted", **task_fields(task), "state": "pending", "warning": task.warning}
            )
        )

    def resumed(self, task: Task[Any]) -> None:
        """No event: nothing has happened."""

    def saw(self, task: Task[Any], update: TaskUpdate) -> None:
        """Event 'update'; the last look is told as 'finished' or 'failed'."""
        if not update.is_terminal:
            put(json_line(_look(task, update)))

    def ended(self, task: Task[Any], result: Result) -> None:
        """Event 'finished'."""
        put(json_line({"event": "finished", **task_fields(task), **result_fields(result)}))

    def failed(self, task: Task[Any] | None, error: MusicAPIError) -> None:
        """Event 'failed' if the task failed; any other error stands on standard error only."""
        if task is not None and isinstance(error, TaskFailedError):
            told = {"state": "failed", "refunded": error.refunded, "message": error.message}
            clips = [clip_fields(clip) for clip in error.clips]
            put(json_line({"event": "failed", **task_fields(task), **told, "clips": clips}))

    def saved(self, task: Task[Any], paths: Sequence[Path]) -> None:
        """Event 'downloaded'."""
        put(json_line({"event": "downloaded", **task_fields(task), "paths": list(paths)}))


def _look(task: Task[Any], update: TaskUpdate) -> dict[str, Any]:
    state = {"state": update.state, "clips": [clip_fields(clip) for clip in update.clips]}
    return {"event": "update", **task_fields(task), **state}


class JsonReporter:
    """One JSON object per line on standard output."""

    is_json = True

    def row(self, label: str) -> Row:
        """Events need no preparation."""
        return JsonRow()

    def following(self, speed: float, *, resumable: bool = True) -> AbstractContextManager[object]:
        """Nothing moves in JSON."""
        return nullcontext()

    def busy(self, what: str) -> AbstractContextManager[object]:
        """Nothing moves in JSON."""
        return nullcontext()

    def accepted(self, task: Task[Any]) -> None:
        """Event 'submitted'."""
        JsonRow().submitted(task)

    def look(self, task: Task[Any], update: TaskUpdate) -> None:
        """Event 'update', also for an end."""
        put(json_line(_look(task, update)))

    def reply(self, operation: str, reply: Any) -> None:
        """Event 'reply' with the fields of the reply."""
        put(json_line({"event": "reply", "operation": operation, **reply_fields(reply)}), only_here=True)

    def body(self, body: Any) -> None:
        """The body alone, on one line."""
        put(json_line(body), only_here=True)

    def event(self, name: str, fields: Mapping[str, Any], text: Iterable[str]) -> None:
        """The event; the text is for people."""
        put(json_line({"event": name, **fields}), only_here=True)


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
