"""Live bars on standard error: one per task, with its state and its age.

The service does not say how far a task is (only Nuro and Studio do), so a bar shows the share of tasks that
have ended by this age, going by the reported durations; the state and the age beside it are facts.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID
from rich.progress import Task as RichTask
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from ..api.results import TaskUpdate
from .visible import visible

SCALE: Final = 110.0
"""Seconds within which two songs of three are done (reported: one to four minutes)."""

SHAPE: Final = 1.5
"""Of the Weibull distribution: few tasks end early. With SCALE, nine of ten take 15 to 230 s."""

MOST: Final = 0.97
"""A bar is full only when its task has ended."""

COLORS: Final = {
    "pending": "yellow",
    "running": "yellow",
    "stream": "cyan",
    "succeeded": "green",
    "partial": "yellow",
    "failed": "red",
    "stopped": "red",
}

LABEL: Final = 30
BAR: Final = 18
STATE: Final = 10
NOTE: Final = 9
AGE: Final = 5
"""Columns of a row; with the gaps between them 76, so that it fits 80."""


def share_done(age: float) -> float:
    """The share of songs that have ended by `age` seconds, as far as a bar should tell."""
    return MOST * (1 - math.exp(-((max(age, 0.0) / SCALE) ** SHAPE)))


class _Share(ProgressColumn):
    def render(self, task: RichTask) -> ProgressBar:
        """The bar itself."""
        bar: Bar = task.fields["bar"]
        ended = bar.style_of_end
        return ProgressBar(
            total=1.0,
            completed=bar.share,
            width=BAR,
            finished_style=ended or "green",
            complete_style=ended or "cyan",
        )


class _Words(ProgressColumn):
    def __init__(self, field: str, width: int, justify: Any = "left") -> None:
        super().__init__(Column(width=width, no_wrap=True, overflow="ellipsis", justify=justify))
        self._field = field

    def render(self, task: RichTask) -> Text:
        """One word of the bar's."""
        bar: Bar = task.fields["bar"]
        text, style = getattr(bar, self._field)
        return Text(text, style=style, overflow="ellipsis", no_wrap=True)


class Bars:
    """The bars of all tasks that are followed now."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed: Final = speed
        console = Console(stderr=True)
        self.progress: Final = Progress(
            _Words("title", LABEL),
            _Share(Column(width=BAR)),
            _Words("state", STATE),
            _Words("hint", NOTE),
            _Words("age_text", AGE, "right"),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=12,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def bar(self, label: str) -> Bar:
        """A new bar, below the others."""
        return Bar(self, label)


class Bar:
    """One task. All its numbers are read by the thread that draws."""

    def __init__(self, bars: Bars, label: str) -> None:
        self._speed: Final = bars.speed
        self._label = label
        self._word = "waiting"
        self._note = ""
        self._began: float | None = None
        self._took: float | None = None
        self._told: float | None = None
        self._resumed = False
        self.id: Final[TaskID] = bars.progress.add_task("", total=1.0, bar=self)

    def begin(self, age: float = 0.0) -> None:
        """The task was accepted `age` real seconds ago."""
        self._began = time.monotonic() - age
        self._word = "pending"

    def resume(self, age: float = 0.0) -> None:
        """It was accepted `age` real seconds ago, and may have ended long since: the first look tells."""
        self._began, self._resumed = time.monotonic() - age, True

    def note(self, text: str) -> None:
        """Show a few characters beside the state."""
        self._note = text

    def show(self, update: TaskUpdate) -> None:
        """What was seen: the state, how many clips are done, and how far it is if the service tells."""
        if self._resumed and update.is_terminal:
            self._began = None  # nobody knows when it ended
        elif self._began is None:
            self._began = time.monotonic() - update.seen_at / self._speed
        self._resumed = False
        streaming = any(clip.stream_url for clip in update.clips)
        self._word = "stream" if update.state == "running" and streaming else update.state
        done = sum(clip.is_succeeded for clip in update.clips)
        self._note = f"{done}/{len(update.clips)} clips" if update.clips else ""
        self._told = update.progress
        title = next((clip.title for clip in update.clips if clip.title), None)
        if title:
            self._label = title

    def finish(self, word: str) -> None:
        """Stop here, with this state."""
        self._took = self.age
        self._word = word

    @property
    def age(self) -> float | None:
        """Seconds of the service's time since the submit."""
        if self._took is not None or self._began is None or self._resumed:
            return self._took
        return (time.monotonic() - self._began) * self._speed

    @property
    def share(self) -> float:
        """How much of the bar is filled."""
        if self._word in ("succeeded", "partial", "failed"):
            return 1.0
        if self._told is not None:
            return self._told
        return share_done(self.age or 0.0)

    @property
    def style_of_end(self) -> str | None:
        """The colour once it has ended."""
        return COLORS[self._word] if self._word in ("succeeded", "partial", "failed", "stopped") else None

    @property
    def title(self) -> tuple[str, str]:
        """The label, with its style."""
        return visible(self._label), "bold"

    @property
    def state(self) -> tuple[str, str]:
        """The state, with its style."""
        return visible(self._word), COLORS.get(self._word, "dim")

    @property
    def hint(self) -> tuple[str, str]:
        """What stands beside the state."""
        return self._note, "dim"

    @property
    def age_text(self) -> tuple[str, str]:
        """The age in minutes and seconds, or in hours and minutes."""
        return ("" if self.age is None else age_words(self.age)), "dim"


def age_words(seconds: float) -> str:
    """'2:42', above an hour '2h39', above four days '5 d': never wider than its column."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours >= 100:
        return f"{hours // 24} d"
    return f"{hours}h{minutes % 60:02d}" if hours else f"{minutes}:{int(seconds) % 60:02d}"


def spinner(what: str) -> AbstractContextManager[Any]:
    """A spinner on standard error while a call is under way; nothing where no terminal is."""
    console = Console(stderr=True)
    return console.status(Text(what)) if console.is_terminal else nullcontext()
