"""One run of the command: what it was told, the client it makes, the tasks that it may leave behind."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..api.handle import Task, TaskRef
from ..config import LOOPBACK
from ..errors import MusicAPIError
from . import exits
from .complaint import complain, resume_command
from .lines import JsonReporter, write_json

if TYPE_CHECKING:
    from ..client import MusicAPI
    from .reporting import Reporter

KEY_FILE_LIMIT: Final = 4096
"""Bytes; a longer file is no key."""


class Invocation:
    """Settings of one run, and the tasks that go on if it ends now."""

    def __init__(self) -> None:
        self.json: bool | None = None
        self.base_url: str | None = None
        self.key_file: str | None = None
        self.sonic_word = "sonic"
        self.clock_speed: float = 1.0
        self.verbose: int = 0
        self.resumable = True
        """False in the demo, whose tasks end with it."""
        self._going_on: dict[str, TaskRef] = {}
        self._unsaved: dict[str, TaskRef] = {}
        self.folder: Path | None = None
        """Where the files of all tasks are wanted, if they are."""
        self._reporter: Reporter | None = None

    @property
    def is_json(self) -> bool:
        """Whether to write JSON lines: when asked, or when nobody reads along on a terminal."""
        return not sys.stdout.isatty() if self.json is None else self.json

    @property
    def errors_as_json(self) -> bool:
        """Whether standard error speaks JSON: when asked, or when neither stream has a reader."""
        return self.is_json and (self.json is True or not sys.stderr.isatty())

    @property
    def reporter(self) -> Reporter:
        """The writer of all output."""
        if self._reporter is None:
            from .text import TextReporter

            self._reporter = JsonReporter() if self.is_json else TextReporter()
        return self._reporter

    # --- the client ----------------------------------------------------------------------------------------

    def client(self, **options: Any) -> MusicAPI:
        """A client as the options and the environment say; `options` go to `MusicAPI`."""
        from ..client import MusicAPI
        from ..clock import Clock

        client = MusicAPI(
            self._key(),
            base_url=self.base_url,
            sonic_word=self.sonic_word,
            clock=Clock(self.clock_speed),
            **options,
        )
        if self.clock_speed != 1 and not _is_local(client.base_url):
            raise click.UsageError(
                "--clock-speed (MUSICAPI_CLOCK_SPEED) is for a sandbox on this machine only."
            )
        return client

    def _key(self) -> str | None:
        if self.key_file is None:
            return None
        try:
            with Path(self.key_file).expanduser().open("rb") as file:
                data = file.read(KEY_FILE_LIMIT + 1)
        except OSError as error:
            raise click.UsageError(f"--key-file: cannot read {self.key_file!r}: {error.strerror}") from error
        text = data.decode("utf-8-sig", "replace").strip()
        if not text or len(data) > KEY_FILE_LIMIT:
            raise click.UsageError(f"--key-file: {self.key_file!r} holds no key.")
        return text

    # --- tasks that go on ----------------------------------------------------------------------------------

    def accepted(self, task: Task[Any]) -> None:
        """From now on the task goes on even if this process ends."""
        self._going_on[task.task_id] = task.ref

    def ended(self, task: Task[Any]) -> None:
        """The task has come to its end."""
        self._going_on.pop(task.task_id, None)

    def fetching(self, task: Task[Any], folder: Path) -> None:
        """From now on its files are wanted; they are not there yet."""
        self._unsaved[task.task_id] = task.ref
        self.folder = folder

    def fetched(self, task: Task[Any]) -> None:
        """Its files are on disk."""
        self._unsaved.pop(task.task_id, None)

    def noticed(self, token: object) -> None:
        """A token that the library logged: the task of a call whose caller was interrupted."""
        ref = TaskRef.parse(token) if isinstance(token, str) else None
        if ref is not None:
            self._going_on.setdefault(ref.task_id, ref)
            if self.folder is not None:
                self._unsaved.setdefault(ref.task_id, ref)

    @property
    def going_on(self) -> list[str]:
        """The tokens of the tasks that go on."""
        return [ref.token for ref in self._going_on.values()] if self.resumable else []

    @property
    def not_downloaded(self) -> list[str]:
        """The tokens of the tasks whose files are wanted and were not all fetched, ended or not."""
        return [ref.token for ref in self._unsaved.values()] if self.resumable else []

    # --- the end -------------------------------------------------------------------------------------------

    def end(self, errors: Iterable[MusicAPIError]) -> int:
        """Tell of errors and of the tasks that go on; returns the exit code."""
        codes: list[int] = []
        for error in errors:
            codes.append(exits.code_of(error))
            complain(error, codes[-1], as_json=self.errors_as_json)
        self.tell_resume()
        return exits.gravest(codes)

    def interrupted(self) -> int:
        """Tell what goes on after Ctrl-C; returns the exit code."""
        if self.errors_as_json:
            fields = {"exit_code": exits.INTERRUPTED, **self._left_behind()}
            write_json({"event": "interrupted", **fields}, err=True)
        elif not self.resumable:
            click.echo(
                "Interrupted. The sandbox has ended with its tasks; nothing real was charged.", err=True
            )
        else:
            click.echo("Interrupted.", err=True)
            self.tell_resume()
        return exits.INTERRUPTED

    def tell_resume(self) -> None:
        """Print how to come back to the tasks that go on, and to files that were not fetched."""
        left = self._left_behind()
        if not any(left.values()):
            return
        if self.errors_as_json:
            write_json({"event": "going_on", **left}, err=True)
            return
        tokens, unsaved = left["tasks"], left["not_downloaded"]
        if tokens:
            what = "1 task goes on and is" if len(tokens) == 1 else f"{len(tokens)} tasks go on and are"
            click.echo(f"{what} paid for. Come back, free of charge, with:", err=True)
        waited_for = [token for token in tokens if token not in unsaved]
        if waited_for:
            click.echo(resume_command(waited_for), err=True)
        if unsaved:
            if waited_for or not tokens:
                click.echo("Not all files were fetched. Go on, free of charge, with:", err=True)
            words = [f"--out {shlex.quote(str(self.folder or Path()))}", *unsaved]
            click.echo(resume_command(words, "download"), err=True)

    def _left_behind(self) -> dict[str, list[str]]:
        return {"tasks": self.going_on, "not_downloaded": self.not_downloaded}

    def broken_pipe(self) -> int:
        """The reader has gone: nothing more is written, not even at exit. Returns the exit code."""
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError, AttributeError):
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives until exit
        try:
            self.tell_resume()
        except OSError:
            return exits.BROKEN_PIPE  # standard error has gone, too
        return exits.BROKEN_PIPE


class LogHandler(logging.Handler):
    """The library's log on standard error, in the form of the other output."""

    def __init__(self, invocation: Invocation) -> None:
        super().__init__()
        self._invocation = invocation

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; at warnings, note the tasks that are named."""
        message = record.getMessage()
        if record.levelno < _LEVELS[min(self._invocation.verbose, 2)]:
            return
        if record.levelno >= logging.WARNING:
            args = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
            for value in args:
                self._invocation.noticed(value)
        if self._invocation.errors_as_json:
            write_json({"event": "log", "level": record.levelname.lower(), "message": message}, err=True)
        else:
            click.echo(f"{record.levelname.lower()}: {message}", err=True)


_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


def _is_local(url: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname in LOOPBACK
