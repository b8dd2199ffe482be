"""One run of the command: what it was told, the client it makes, the tasks that it may leave behind."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..api.handle import Task, TaskRef
from ..errors import MusicAPIError
from ..options import LOOPBACK
from . import exits
from .error_texts import complain, in_commands, resume_command
from .json_output import JsonReporter, json_line
from .output import OutputLost, tell

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
        self.args: Sequence[str] = ()
        """The arguments of this run, for a command line to copy."""
        self.resumable = True
        """False in the demo, whose tasks end with it."""
        self.rerun = False
        """True if the same command goes on by itself, as that of a batch does."""
        self.charges = False
        """True if replies of this run are paid for, and cannot be asked for again."""
        self._tasks: dict[str, TaskRef] = {}
        self._untold: list[MusicAPIError] = []
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
            from .text_output import TextReporter

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

    def named(self, ref: TaskRef) -> None:
        """A task that this run is about; it is printed if standard output is lost."""
        self._tasks.setdefault(ref.task_id, ref)

    def accepted(self, task: Task[Any]) -> None:
        """From now on the task goes on even if this process ends."""
        self.named(task.ref)
        self._going_on[task.task_id] = task.ref

    def ended(self, task: Task[Any]) -> None:
        """The task has come to its end."""
        self._going_on.pop(task.task_id, None)

    def unknown(self, task: Task[Any]) -> None:
        """The service knows no such task, so there is nothing to come back to."""
        for known in (self._tasks, self._going_on, self._unsaved):
            known.pop(task.task_id, None)

    def fetching(self, task: Task[Any], folder: Path) -> None:
        """From now on its files are wanted; they are not there yet."""
        self._unsaved[task.task_id] = task.ref
        self.folder = folder

    def fetched(self, task: Task[Any]) -> None:
        """Its files are on disk."""
        self._unsaved.pop(task.task_id, None)

    def noticed(self, token: object, *, abandoned: bool = True) -> None:
        """A token in the library's log, if it is one: of a task that was accepted, or, if `abandoned`, of one
        whose caller was interrupted."""
        ref = TaskRef.parse(token) if isinstance(token, str) else None
        if ref is None:
            return
        self.named(ref)
        if abandoned:
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

    def failed(self, error: MusicAPIError) -> None:
        """An error that will be told at the end, or when standard output is lost."""
        self._untold.append(error)

    # --- the end -------------------------------------------------------------------------------------------

    def end(self, errors: Iterable[MusicAPIError]) -> int:
        """Tell of errors and of the tasks that go on; returns the exit code."""
        codes: list[int] = []
        self._untold.clear()
        for error in errors:
            codes.append(exits.code_of(error))
            complain(error, codes[-1], as_json=self.errors_as_json)
        self.tell_resume()
        return exits.gravest(codes)

    def interrupted(self) -> int:
        """Tell what goes on after Ctrl-C; returns the exit code."""
        if self.errors_as_json:
            fields = {"exit_code": exits.INTERRUPTED, **self._left_behind()}
            tell(json_line({"event": "interrupted", **fields}), needed=True)
        elif not self.resumable:
            tell("Interrupted. The sandbox has ended with its tasks; nothing real was charged.")
        else:
            tell("Interrupted.")
            self.tell_resume()
        return exits.INTERRUPTED

    def tell_resume(self) -> None:
        """Print how to come back to the tasks that go on, and to files that were not fetched."""
        left = self._left_behind()
        if not any(left.values()):
            return
        if self.errors_as_json:
            tell(json_line({"event": "going_on", **left}), needed=True)
            return
        lines: list[str] = []
        tokens, unsaved = left["tasks"], left["not_downloaded"]
        if tokens:
            what = "1 task goes on and is" if len(tokens) == 1 else f"{len(tokens)} tasks go on and are"
            lines.append(f"{what} paid for. Come back, free of charge, with:")
        waited_for = [token for token in tokens if token not in unsaved]
        if waited_for:
            lines.append(resume_command(waited_for))
        if unsaved:
            if waited_for or not tokens:
                lines.append("Not all files were fetched. Go on, free of charge, with:")
            lines.append(resume_command([self._out, *unsaved], "download"))
        tell("\n".join(lines), needed=True)

    def _left_behind(self) -> dict[str, list[str]]:
        return {"tasks": self.going_on, "not_downloaded": self.not_downloaded}

    def output_lost(self, lost: OutputLost) -> int:
        """Tell what standard output could not take: paid tasks and replies, and the command that shows the
        results again. Returns the exit code."""
        codes = [exits.OUTPUT_LOST]
        for error in self._untold:
            codes.append(exits.code_of(error))
            complain(error, codes[-1], as_json=self.errors_as_json)
        code = exits.gravest(codes)
        tokens = [ref.token for ref in self._tasks.values()]
        reply = lost.text if self.charges else ""
        if lost.reader_left and not tokens and not reply:
            return code  # `| head` is no error, and nothing was paid for
        if self.errors_as_json:
            if reply:
                tell(reply)
            resume = " ".join(line.strip() for line in self._way_back(tokens).split("\\\n"))
            fields = {"reason": lost.reason, "tasks": tokens, "not_downloaded": self.not_downloaded}
            tell(json_line({"event": "output_lost", **fields, "resume": resume, "exit_code": code}))
            return code
        lines = [
            f"{click.style('Error:', fg='red', bold=True)} Cannot write to standard output: {lost.reason}."
        ]
        if reply:
            lines += ["What it could not take, and what was paid for:", reply]
        if self.rerun:
            lines += [f"Task {token}" for token in tokens]
        if tokens or self.rerun:
            lines += [self._what_is_paid(len(tokens)), self._way_back(tokens)]
        tell("\n".join(lines))
        return code

    def _what_is_paid(self, tasks: int) -> str:
        if not self.resumable:
            return "The sandbox has ended with its tasks; nothing real was charged. To begin again:"
        if self.rerun:
            return "The same command goes on, and pays for nothing twice:"
        subject = "1 task is" if tasks == 1 else f"{tasks} tasks are"
        return f"{subject} paid for. The results again, free of charge:"

    def _way_back(self, tokens: Sequence[str]) -> str:
        """The command that gives the results of all tasks of this run; empty if there were none."""
        if self.rerun:
            return f"  {shlex.join(['musicapi', *self.args])}"
        if not tokens:
            return ""
        if self.folder is None:
            return resume_command(tokens)
        return resume_command([self._out, *tokens], "download")

    @property
    def _out(self) -> str:
        return f"--out {shlex.quote(str(self.folder or Path()))}"


class LogHandler(logging.Handler):
    """The library's log on standard error, in the form of the other output."""

    def __init__(self, invocation: Invocation) -> None:
        super().__init__()
        self._invocation = invocation

    def emit(self, record: logging.LogRecord) -> None:
        """Note the tasks that are named, and write one line."""
        if record.levelno >= logging.INFO:
            args = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
            for value in args:
                self._invocation.noticed(value, abandoned=record.levelno >= logging.WARNING)
        if record.levelno < _LEVELS[min(self._invocation.verbose, 2)]:
            return
        message = in_commands(record.getMessage())
        if self._invocation.errors_as_json:
            tell(json_line({"event": "log", "level": record.levelname.lower(), "message": message}))
        else:
            tell(f"{record.levelname.lower()}: {message}")


_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


def _is_local(url: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname in LOOPBACK
