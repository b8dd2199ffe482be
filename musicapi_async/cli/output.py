"""Standard output and standard error: everything that the command writes goes through these two streams.

Standard output may be full, closed, or read by a program that leaves early. The first write that fails
raises `OutputLost`, once; later ones do nothing, so that no error of the interpreter's own appears at exit.
Errors of standard error are never raised: there is no other place to report them, and no paid call may end
because of them.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from io import BufferedWriter, RawIOBase, TextIOWrapper
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CLOSED: Final = "it is closed"
"""The reason when the process was started without the stream (`>&-`)."""


class OutputLost(Exception):
    """Standard output cannot be written.

    `reason` says why, `reader_left` is True when a pipe was closed at its other end, and `text` is what could
    not be written, if it cannot be asked for again.
    """

    def __init__(self, reason: str, *, reader_left: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reader_left = reader_left
        self.text = ""


class _Guarded(RawIOBase):
    """The bytes of the file descriptor `number`, or of a stream that was closed from the start (None).

    Once a write has failed, `lost` is set and no more is written.
    """

    def __init__(self, number: int | None, *, raises: bool) -> None:
        super().__init__()
        self._raw: Final = None if number is None else open(number, "wb", 0, closefd=False)  # noqa: SIM115
        self._terminal: Final = self._raw is not None and self._raw.isatty()
        self.raises = raises
        self.lost: OutputLost | None = OutputLost(CLOSED) if number is None else None

    def writable(self) -> bool:
        """True, also when writing fails: the failure is reported at the first write."""
        return True

    def fileno(self) -> int:
        """The file descriptor; an error if there is none."""
        return super().fileno() if self._raw is None else self._raw.fileno()

    def isatty(self) -> bool:
        """True if the stream was a terminal at the start."""
        return self._terminal

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of `data`; returns how many bytes were written."""
        while self.lost is None and self._raw is not None:
            try:
                written = self._raw.write(data)
            except OSError as error:
                reason = error.strerror or str(error)
                self.lost = OutputLost(reason, reader_left=error.errno == errno.EPIPE)
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


def guard() -> None:
    """Put the streams of this module in the place of the interpreter's. Called once, at the start."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _occupy_standard_descriptors()
        sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - lives until exit
    sys.stdout = _guarded(sys.stdout, raises=True)
    sys.stderr = _guarded(sys.stderr, raises=False)


def _guarded(stream: TextIO | None, *, raises: bool) -> TextIO:
    """The stream in guard; one without a file descriptor, which a program has put in its place, stays."""
    if stream is None:
        return _Stream(None, "utf-8", raises=raises)
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return stream
    return _Stream(number, stream.encoding, raises=raises)


def _occupy_standard_descriptors() -> None:
    """Open /dev/null on those of the descriptors 0, 1 and 2 that are closed.

    Otherwise the next file or socket would get such a number, and what writes to "standard error" by its
    number would write into a job store.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def lost_output() -> OutputLost | None:
    """Why standard output cannot be written, or None as long as nothing failed."""
    return (
        sys.stdout.guarded.lost if isinstance(sys.stdout, _Stream) and not sys.stdout.guarded.raises else None
    )


def put(text: str, *, only_here: bool = False) -> None:
    """Write `text` and a line break to standard output, at once.

    With `only_here` it cannot be asked for again: when it cannot be written, it stands on the `OutputLost`.
    """
    import click

    try:
        click.echo(text)
    except OutputLost as lost:
        if only_here:
            lost.text = text
        raise


def tell(text: str, *, needed: bool = False) -> None:
    """Write `text` and a line break to standard error, at once; never raises an error of the stream.

    `needed` text, which names paid tasks, goes to standard output when standard error cannot be written.
    """
    import click

    click.echo(text, err=True)
    if needed and isinstance(sys.stderr, _Stream) and sys.stderr.guarded.lost:
        try:
            click.echo(text)
        except OutputLost:
            return  # both are lost: `lost_output` tells at the end, and the exit code
