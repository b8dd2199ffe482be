"""Live rows on standard error: one per task, or one for a batch, with a bar, the state and the age.

All have the same columns, and leave room for the "^C" that a terminal adds, since a row that wraps would
remain. When the display ends, its rows are gone: what came of the tasks is printed in their place. The
service does not say how far a task is (only Nuro and Studio do), so a bar shows the share of tasks that
have ended by this age, going by the reported durations; the state and the age beside it are facts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Final, Self

from rich.console import Console, JustifyMethod, RenderableType
from rich.progress import Progress, ProgressColumn
from rich.progress import Task as RichTask
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from ..api.results import TaskUpdate
from .output import above_bars, visible

SCALE: Final = 110.0
"""Seconds within which two songs of three are done (reported: one to four minutes)."""

SHAPE: Final = 1.5
"""Of the Weibull distribution: few tasks end early. With SCALE, nine of ten take 15 to 230 s."""

MOST_FILLED: Final = 0.97
"""A bar is full only when its task has ended."""

COLORS: Final = {
    "pending": "yellow",
    "running": "yellow",
    "stream": "cyan",
    "succeeded": "green",
    "partial": "yellow",
    "failed": "red",
    "stopped": "red",
    "stopping": "red",
}

LABEL: Final = 30
BAR: Final = 18
STATE: Final = 10
NOTE: Final = 9
AGE: Final = 5
WIDTH: Final = 76
"""Columns of a row, with the gaps between them, so that it fits 80."""


def expected_share(age: float) -> float:
    """Return the share of a bar to fill at `age` seconds: of songs that have ended by then, nearly."""
    return MOST_FILLED * (1 - math.exp(-((max(age, 0.0) / SCALE) ** SHAPE)))


class _ShareColumn(ProgressColumn):
    def render(self, task: RichTask) -> ProgressBar:
        """Return the bar itself."""
        bar: Bar | BatchBar = task.fields["row"]
        ended = bar.style_of_end
        return ProgressBar(
            total=1.0,
            completed=bar.share,
            width=BAR,
            finished_style=ended or "green",
            complete_style=ended or "cyan",
        )


class _WordColumn(ProgressColumn):
    def __init__(self, index: int, width: int, justify: JustifyMethod = "left") -> None:
        super().__init__(Column(width=width, no_wrap=True, overflow="ellipsis", justify=justify))
        self._index = index

    def render(self, task: RichTask) -> Text:
        """Return one of the bar's words."""
        row: Bar | BatchBar = task.fields["row"]
        text, style = row.words[self._index]
        return Text(text, style=style, overflow="ellipsis", no_wrap=True)


class _Rows(Progress):
    """The rows, and a line below them."""

    below = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the rows, and the line if there is one."""
        yield self.make_tasks_table(self.tasks)
        if self.below:
            yield Text(visible(self.below)[:WIDTH], style="dim", no_wrap=True, overflow="ellipsis")


def can_redraw(console: Console) -> bool:
    """Return True for a terminal that can move its cursor, which one with TERM=dumb cannot."""
    return console.is_terminal and not console.is_dumb_terminal


class Bars:
    """A context in which live rows are displayed, and other texts appear above them.

    `speed` is that of the client's clock.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed: Final = speed
        self._console: Final = Console(stderr=True)
        self._rows: Final = _Rows(
            _WordColumn(0, LABEL),
            _ShareColumn(Column(width=BAR)),
            _WordColumn(1, STATE),
            _WordColumn(2, NOTE),
            _WordColumn(3, AGE, "right"),
            console=self._console,
            disable=not can_redraw(self._console),
            transient=True,
        )
        self._displayed: Final = ExitStack()

    def __enter__(self) -> Self:
        self._displayed.enter_context(self._rows)
        self._displayed.enter_context(above_bars(self._console))
        return self

    def __exit__(self, *exception: object) -> None:
        self._displayed.close()

    @property
    def are_live(self) -> bool:
        """True if the rows are displayed."""
        return not self._rows.disable

    def bar(self, label: str) -> Bar:
        """Add the row of a task below the others."""
        bar = Bar(label, self.speed)
        self._rows.add_task("", total=1.0, row=bar)
        return bar

    def batch(self, songs: int) -> BatchBar:
        """Add the row of a batch."""
        row = BatchBar(songs, self._rows)
        self._rows.add_task("", total=1.0, row=row)
        return row


class Bar:
    """The bar of one task. Its numbers are read by the thread that draws."""

    def __init__(self, label: str, speed: float) -> None:
        self._speed: Final = speed
        self._label = label
        self._state = "waiting"
        self._note = ""
        self._started: float | None = None
        self._final_age: float | None = None
        self._reported_share: float | None = None
        self._resumed = False

    def start(self) -> None:
        """Start the clock of a task that was accepted now."""
        self._started = time.monotonic()
        self._state = "pending"

    def resume(self, age: float) -> None:
        """Start the clock of a task that was accepted `age` real seconds ago, and may have ended by now.

        Its age is displayed from the first poll on that finds it running.
        """
        self._started, self._resumed = time.monotonic() - age, True

    def note(self, text: str) -> None:
        """Show a few characters behind the state."""
        self._note = text

    def show(self, update: TaskUpdate) -> None:
        """Show a poll result: the state, the finished clips, and the progress if the service reports it."""
        if self._resumed and not update.age and not update.is_terminal:
            return  # what is known before the first poll, which may find that the task ended long ago
        if self._resumed and update.is_terminal:
            self._started = None  # the time of its end is unknown
        elif self._started is None:
            self._started = time.monotonic() - update.age / self._speed
        self._resumed = False
        streaming = any(clip.stream_url for clip in update.clips)
        self._state = "stream" if update.state == "running" and streaming else update.state
        done = sum(clip.is_succeeded for clip in update.clips)
        self._note = f"{done}/{len(update.clips)} clips" if update.clips else ""
        self._reported_share = update.progress
        title = next((clip.title for clip in update.clips if clip.title), None)
        if title:
            self._label = title

    def stop(self, state: str) -> None:
        """Stop the clock, and show a last state."""
        self._final_age = self.age
        self._state = state

    @property
    def age(self) -> float | None:
        """Seconds of the service's time since the submit; None if unknown."""
        if self._final_age is not None or self._started is None or self._resumed:
            return self._final_age
        return (time.monotonic() - self._started) * self._speed

    @property
    def share(self) -> float:
        """The filled share of the bar, from 0 to 1."""
        if self._state in ("succeeded", "partial", "failed"):
            return 1.0
        if self._reported_share is not None:
            return self._reported_share
        return expected_share(self.age or 0.0)

    @property
    def style_of_end(self) -> str | None:
        """The colour once the task has ended or the wait has stopped."""
        return COLORS[self._state] if self._state in ("succeeded", "partial", "failed", "stopped") else None

    @property
    def words(self) -> tuple[tuple[str, str], ...]:
        """The label, the state, the note and the age, each with its style."""
        return (
            (visible(self._label), "bold"),
            (visible(self._state), COLORS.get(self._state, "dim")),
            (self._note, "dim"),
            ("" if self.age is None else age_text(self.age), "dim"),
        )


def age_text(seconds: float) -> str:
    """Return an age that fits its column: '2:42', above an hour '2h39', above four days '5 d'."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours >= 100:
        return f"{hours // 24} d"
    return f"{hours}h{minutes % 60:02d}" if hours else f"{minutes}:{int(seconds) % 60:02d}"


class BatchBar:
    """The row of a batch: the share of its songs that have ended; the line below has the counts."""

    def __init__(self, songs: int, rows: _Rows) -> None:
        self._songs: Final = songs
        self._rows: Final = rows
        self._started: Final = time.monotonic()
        self._ended = self._failed = 0
        self._state = "waiting"

    def show(self, ended: int, failed: int, state: str, text: str) -> None:
        """Display how many songs have ended, how many of them failed, a word for the state, and the line."""
        self._ended, self._failed, self._state = ended, failed, state
        self._rows.below = text

    @property
    def share(self) -> float:
        """The filled share of the bar, from 0 to 1."""
        return self._ended / self._songs if self._songs else 1.0

    @property
    def style_of_end(self) -> str | None:
        """The colour once all songs have ended."""
        return ("yellow" if self._failed else "green") if self.share == 1 else None

    @property
    def words(self) -> tuple[tuple[str, str], ...]:
        """The songs, the state, the failures, and the real time since the start, each with its style."""
        return (
            (f"{self._ended} of {self._songs} songs", "bold"),
            (self._state, COLORS.get(self._state, "dim")),
            (f"{self._failed} failed" if self._failed else "", "red"),
            (age_text(time.monotonic() - self._started), "dim"),
        )


def spinner(label: str) -> AbstractContextManager[object]:
    """Return a spinner on standard error for the time of a call, or nothing without a terminal."""
    console = Console(stderr=True)
    return _spinner(console, label) if can_redraw(console) else nullcontext()


@contextmanager
def _spinner(console: Console, label: str) -> Generator[None]:
    with console.status(Text(label)), above_bars(console):
        yield
