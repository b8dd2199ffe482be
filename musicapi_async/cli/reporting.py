"""What a command tells while it works, whoever reads it.

Both reporters, JSON lines for programs and text for people, are told the same things in the same order. A
`Row` stands for one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from ..api.handle import Task
from ..api.results import Result, TaskUpdate
from ..errors import MusicAPIError


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

    def following(self, speed: float, *, resumable: bool = True) -> AbstractContextManager[object]:
        """A context in which tasks are followed; `speed` is that of the client's clock.

        Of `resumable` tasks, which outlive this process, text gives the token at once and the result at the
        end.
        """
        ...

    def busy(self, what: str) -> AbstractContextManager[object]:
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
