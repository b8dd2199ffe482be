"""Standard output and standard error: everything that the command writes goes through these two streams.

Standard output may be full, closed, or read by a program that leaves early. The first write that fails
raises `OutputLost`, once; later ones do nothing, so that no error of the interpreter's own appears at exit.
Errors of standard error are never raised: there is no other place to report them, and no paid call may end
because of them.
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedWriter, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich.console import Console

CLOSED: Final = "it is closed"
"""The reason when the process was started without the stream (`>&-`)."""


class OutputLost(Exception):
    """Standard output cannot be written.

    `reason` says why, `reader_closed` is True when a pipe was closed at its other end, and `text` is the text
    that could not be written, if it cannot be requested again.
    """

    def __init__(self, reason: str, *, reader_closed: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reader_closed = reader_closed
        self.text = ""


class _Guarded(RawIOBase):
    """The bytes of the file descriptor `number`; None is a stream that was closed from the start.

    Once a write has failed, `lost` is set and no more is written.
    """

    def __init__(self, number: int | None, *, raises: bool) -> None:
        super().__init__()
        self._raw: Final = None if number is None else open(number, "wb", 0, closefd=False)  # noqa: SIM115
        self._terminal: Final = self._raw is not None and self._raw.isatty()
        self.raises = raises
        self.lost: OutputLost | None = OutputLost(CLOSED) if number is None else None

    def writable(self) -> bool:
        """Return True, also when writing fails: the failure is reported at the first write."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor; raises `OSError` if there is none."""
        return super().fileno() if self._raw is None else self._raw.fileno()

    def isatty(self) -> bool:
        """Return True if the stream was a terminal at the start."""
        return self._terminal

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of `data`; returns the number of bytes that were written."""
        while self.lost is None and self._raw is not None:
            try:
                written = self._raw.write(data)
            except OSError as error:
                reason = error.strerror or str(error)
                self.lost = OutputLost(reason, reader_closed=error.errno == errno.EPIPE)
            else:
                if written is not None:
                    return written
                select.select([], [self._raw], [])  # the other end made the pipe non-blocking, and it is full
        if self.raises and self.lost is not None:
            self.raises = False
            raise self.lost
        return memoryview(data).nbytes


class _Stream(TextIOWrapper):
    """The text of a standard stream."""

    def __init__(self, number: int | None, encoding: str, *, raises: bool) -> None:
        self.guarded: Final = _Guarded(number, raises=raises)
        super().__init__(
            BufferedWriter(self.guarded),
            encoding=encoding,
            errors="replace",  # a title that the terminal cannot show is no error
            line_buffering=True,
        )


def guard_streams() -> None:
    """Replace the interpreter's standard streams by those of this module. Called once, at the start."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _occupy_standard_descriptors()
        sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - lives until exit
    sys.stdout = _guarded(sys.stdout, raises=True)
    sys.stderr = _guarded(sys.stderr, raises=False)


def _guarded(stream: TextIO | None, *, raises: bool) -> TextIO:
    """Return the stream guarded; one without a file descriptor, which a program has put there, as it is."""
    if stream is None:
        return _Stream(None, "utf-8", raises=raises)
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return stream
    return _Stream(number, stream.encoding, raises=raises)


def _occupy_standard_descriptors() -> None:
    """Open /dev/null on those of the descriptors 0, 1 and 2 that are closed.

    Otherwise the next file or socket would get such a number, and code that writes to "standard error" by its
    number would write into a job store.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def lost_output() -> OutputLost | None:
    """Return why standard output cannot be written, or None if nothing failed so far."""
    if isinstance(sys.stdout, _Stream) and not sys.stdout.guarded.raises:
        return sys.stdout.guarded.lost
    return None


def print_out(text: str, *, repeatable: bool = True) -> None:
    """Write `text` and a line break to standard output, at once.

    Args:
        text: One or more lines.
        repeatable: False for a reply that cannot be requested again. When it cannot be written, it is the
            `text` of the error.

    Raises:
        OutputLost: if this is the first text that cannot be written.
    """
    import click

    try:
        click.echo(text)
    except OutputLost as lost:
        if not repeatable:
            lost.text = text
        raise


def print_err(text: str, *, fallback: bool = False) -> None:
    """Write `text` and a line break to standard error, at once, above the bars if there are any.

    Args:
        text: One or more lines, which may hold colours.
        fallback: True for text that names paid tasks: it is written to standard output if standard error
            cannot be written.
    """
    import click

    if _console is None:
        click.echo(text, err=True)
    else:
        from rich.text import Text

        _console.print(Text.from_ansi(text), soft_wrap=True)
    if fallback and isinstance(sys.stderr, _Stream) and sys.stderr.guarded.lost:
        try:
            click.echo(text)
        except OutputLost:
            return  # both are lost: `lost_output` and the exit code report it


_console: Console | None = None


@contextmanager
def above_bars(console: Console) -> Generator[None]:
    """Within this context `print_err` writes above the live bars of `console`, if it is a terminal.

    Text that is written past them would continue the line of a bar.
    """
    global _console  # noqa: PLW0603 - one process has one standard error
    _console = console if console.is_terminal and not console.is_dumb_terminal else None
    try:
        yield
    finally:
        _console = None


def json_line(value: object) -> str:
    """Return a value as one line of JSON, in ASCII, so that no encoding and no terminal can spoil it."""
    return json.dumps(value, default=_plain)


def _plain(value: object) -> Any:
    import msgspec

    return str(value) if isinstance(value, Path) else msgspec.to_builtins(value)


def visible(text: str, *, lines: bool = False) -> str:
    """Return `text` without control and format characters, so that no title can steer the terminal.

    With `lines`, line breaks remain.
    """
    return "".join(
        character
        for character in text.replace("\r\n", "\n").replace("\t", " ")
        if (lines and character == "\n") or unicodedata.category(character)[0] != "C"
    )


def clock_text(seconds: float | None) -> str:
    """Return seconds as minutes and seconds, such as '2:42'."""
    if seconds is None:
        return "-:--"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
