"""One run of the command: its settings, the client that it makes, and the paid tasks that outlive it.

The settings are the options that `musicapi` and all its commands take.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from ..api.results import Result
from ..api.task import Task, TaskRef, ref_of
from ..errors import MusicAPIError, TaskTimeoutError
from ..options import LOOPBACK, find_account, find_base_url, find_key, is_loopback
from .error_texts import Saving, labelled, print_error, resume_command, wrapped
from .exit_codes import ExitCode, exit_code_of, gravest
from .output import OutputLost, json_line, print_err
from .reporters import JsonReporter, TextReporter

if TYPE_CHECKING:
    from ..client import MusicAPI
    from .reporters import Reporter

T = TypeVar("T")

CLOCK_SPEED_VARIABLE: Final = "MUSICAPI_CLOCK_SPEED"
KEY_FILE_LIMIT: Final = 4096
"""Bytes; a longer file is no key."""


@dataclass(slots=True)
class _Tracked:
    """A task of this run."""

    ref: TaskRef
    running: bool | None = None
    """None as long as no command has marked the task."""
    unfetched: bool = False
    """True if its files are requested and not fetched yet."""


class Invocation:
    """The settings of one run, and the tasks to name if it ends now."""

    def __init__(self) -> None:
        self.json: bool | None = None
        self.base_url: str | None = None
        self.key_file: str | None = None
        self.sonic_word = "sonic"
        self.clock_speed: float = 1.0
        self.verbose = 0
        self.args: Sequence[str] = ()
        """The arguments of this run, for a command line to copy."""
        self.is_demo = False
        """True if the tasks of this run end with it and cost nothing."""
        self.is_rerunnable = False
        """True if the same command continues where it stopped, as that of a batch does."""
        self.charges = False
        """True if replies of this run are paid for, and cannot be requested again."""
        self.saving: Saving | None = None
        """How the files of all tasks are saved, if they are requested."""
        self._tasks: dict[str, _Tracked] = {}
        self._unreported: list[MusicAPIError] = []
        self._reporter: Reporter | None = None

    @property
    def is_json(self) -> bool:
        """True for JSON lines: on request, or by default if standard output is no terminal."""
        return not sys.stdout.isatty() if self.json is None else self.json

    @property
    def errors_as_json(self) -> bool:
        """True for JSON lines on standard error: on request, or if neither stream is a terminal."""
        return self.is_json and (self.json is True or not sys.stderr.isatty())

    @property
    def reporter(self) -> Reporter:
        """The writer of the results."""
        if self._reporter is None:
            self._reporter = JsonReporter() if self.is_json else TextReporter(self.options)
        return self._reporter

    @property
    def options(self) -> list[str]:
        """The options of this run that a command for its tasks needs, too: the host, the key, the clock."""
        given: dict[str, object] = {"--base-url": self.base_url, "--key-file": self.key_file}
        if self.sonic_word != "sonic":
            given["--sonic-word"] = self.sonic_word
        if self.clock_speed != 1 and not os.environ.get(CLOCK_SPEED_VARIABLE):
            given["--clock-speed"] = f"{self.clock_speed:g}"
        return [f"{name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None]

    # --- the client ----------------------------------------------------------------------------------------

    def client(self, **options: Any) -> MusicAPI:
        """Return a client by the options and the environment; `options` go to `MusicAPI`.

        As with other commands, the proxy is that of the environment; a sandbox on this machine needs none.
        """
        from ..client import MusicAPI
        from ..clock import Clock

        host = urlsplit(find_base_url(self.base_url)).hostname
        client = MusicAPI(
            self._key(),
            base_url=self.base_url,
            trust_env=not is_loopback(host),
            sonic_word=self.sonic_word,
            clock=Clock(self.clock_speed),
            **options,
        )
        if self.clock_speed != 1 and host not in LOOPBACK:
            raise click.UsageError(
                "--clock-speed (MUSICAPI_CLOCK_SPEED) is for a sandbox on this machine only."
            )
        return client

    def account(self) -> str:
        """Return the account of this run: MUSICAPI_ACCOUNT, or a fingerprint of the API key."""
        return find_account(None, find_key(self._key()))

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

    # --- the tasks of this run -----------------------------------------------------------------------------

    def track(self, ref: TaskRef) -> _Tracked:
        """Add a task that this run is about; it is named if standard output is lost."""
        return self._tasks.setdefault(ref.task_id, _Tracked(ref))

    def accepted(self, task: Task[Result]) -> None:
        """Mark a task as running, even after the end of this process."""
        self.track(ref_of(task)).running = True

    def ended(self, task: Task[Result]) -> None:
        """Mark a task as ended."""
        self.track(ref_of(task)).running = False

    def to_fetch(self, task: Task[Result], saving: Saving) -> None:
        """Mark the files of a task as requested and not fetched yet."""
        self.track(ref_of(task)).unfetched = True
        self.saving = saving

    def fetched(self, task: Task[Result]) -> None:
        """Mark the files of a task as fetched, or as impossible to get."""
        self.track(ref_of(task)).unfetched = False

    def forget(self, task: Task[Result]) -> None:
        """Remove a task that the service does not know."""
        self._tasks.pop(task.task_id, None)

    def track_logged(self, token: object, *, abandoned: bool = True) -> None:
        """Add a task that the library's log names by its token, if `token` is one.

        Args:
            token: An argument of a log record.
            abandoned: True if the caller of its create was interrupted, so that no command knows the task.
        """
        ref = TaskRef.parse(token) if isinstance(token, str) else None
        if ref is None:
            return
        tracked = self.track(ref)
        if abandoned and tracked.running is None:
            tracked.running = True
            tracked.unfetched = self.saving is not None

    @property
    def unfinished(self) -> list[str]:
        """The tokens of the tasks that may still be running."""
        return self._tokens(task for task in self._tasks.values() if task.running)

    @property
    def not_downloaded(self) -> list[str]:
        """The tokens of the tasks, ended or not, whose files were requested and not all fetched."""
        return self._tokens(task for task in self._tasks.values() if task.unfetched)

    def _is_unfinished(self, task_id: str | None) -> bool:
        tracked = self._tasks.get(task_id or "")
        return tracked is not None and bool(tracked.running) and not self.is_demo

    def _tokens(self, tasks: Iterable[_Tracked]) -> list[str]:
        return [] if self.is_demo else [task.ref.token for task in tasks]

    def failed(self, error: MusicAPIError) -> None:
        """Add an error that is reported at the end, or when standard output is lost."""
        self._unreported.append(error)

    # --- the end -------------------------------------------------------------------------------------------

    def end(self, errors: Iterable[MusicAPIError], *, waited: bool = True) -> ExitCode:
        """Report errors and unfinished tasks; returns the exit code.

        `waited` is False if no task was to be waited for: the result then has the command that does.
        """
        self._unreported = list(errors)
        code = self._report_errors()
        if waited:
            self._report_unfinished()
        return code

    def _report_errors(self, *codes: ExitCode) -> ExitCode:
        """Report all errors that were not reported yet; returns the gravest of their codes and `codes`."""
        found = list(codes)
        for error in self._unreported:
            found.append(exit_code_of(error))
            is_resumed = isinstance(error, TaskTimeoutError) and self._is_unfinished(error.task_id)
            print_error(error, found[-1], as_json=self.errors_as_json, is_resumed=is_resumed)
        self._unreported.clear()
        return gravest(found)

    def interrupted(self) -> ExitCode:
        """Report the unfinished tasks after a signal; returns the exit code."""
        code = ExitCode.INTERRUPTED
        if self.errors_as_json:
            tasks = {"tasks": self.unfinished, "not_downloaded": self.not_downloaded}
            print_err(json_line({"event": "interrupted", "exit_code": code, **tasks}), fallback=True)
        else:
            over = "\r" if sys.stderr.isatty() else ""  # over the "^C" that the terminal has written
            ended = " The sandbox and its tasks have ended; nothing real was charged." if self.is_demo else ""
            print_err(f"{over}Interrupted.{ended}")
            if not self.is_rerunnable:  # else the same command continues, and has said so
                self._report_unfinished()
        return code

    def _report_unfinished(self) -> None:
        """Print how to resume unfinished tasks, and how to fetch files that are missing."""
        running, unfetched = self.unfinished, self.not_downloaded
        if not running and not unfetched:
            return
        if self.errors_as_json:
            event = {"event": "going_on", "tasks": running, "not_downloaded": unfetched}
            print_err(json_line(event), fallback=True)
            return
        lines: list[str] = []
        to_wait_for = [token for token in running if token not in unfetched]
        saving = self.saving or Saving(Path())
        to_fetch = resume_command(unfetched, saving, self.options) if unfetched else ""
        if running:
            subject = "1 task is" if len(running) == 1 else f"{len(running)} tasks are"
            command = resume_command(to_wait_for, options=self.options) if to_wait_for else to_fetch
            lines += self._advice(f"{subject} still running and paid for. Resume", command)
        if to_fetch and (to_wait_for or not running):
            lines += self._advice("Not all files were fetched. Fetch the rest", to_fetch)
        print_err("\n".join(lines), fallback=True)

    def _advice(self, text: str, command: str) -> list[str]:
        """Return what a command does, and the command, unless it is on the screen already."""
        if self.reporter.has_printed(command):
            return [wrapped(f"{text}, free of charge, with the command above.")]
        return [f"{text}, free of charge, with:", command]

    def output_lost(self, lost: OutputLost) -> ExitCode:
        """Report on standard error what standard output could not take; returns the exit code.

        That is: errors, paid tasks, paid replies, and the command that shows the results again.
        """
        code = self._report_errors(ExitCode.OUTPUT_LOST)
        tokens = self._tokens(self._tasks.values())
        reply = lost.text if self.charges else ""
        if lost.reader_closed and not tokens and not reply and not self.is_demo:
            return code  # `| head` is no error, and nothing was paid for
        if self.errors_as_json:
            if reply:
                print_err(reply)
            resume = " ".join(line.strip() for line in self._resume(tokens).split("\\\n"))
            tasks = {"tasks": tokens, "not_downloaded": self.not_downloaded}
            event = {"event": "output_lost", "reason": lost.reason, **tasks, "resume": resume}
            print_err(json_line({**event, "exit_code": code}))
            return code
        lines = [labelled(f"Cannot write to standard output: {lost.reason}.")]
        if reply:
            lines += ["The output that could not be written, and was paid for:", reply]
        if self.is_demo:
            lines.append("The sandbox and its tasks have ended; nothing real was charged. To start again:")
        elif self.is_rerunnable:
            lines += [f"Task {token}" for token in tokens]
            lines.append("The same command continues, and pays for nothing twice:")
        if self.is_rerunnable:
            lines.append(self._resume(tokens))
        elif tokens:
            subject = "1 task is" if len(tokens) == 1 else f"{len(tokens)} tasks are"
            lines += self._advice(f"{subject} paid for. The results again", self._resume(tokens))
        print_err("\n".join(lines))
        return code

    def _resume(self, tokens: Sequence[str]) -> str:
        """Return the command that gives the results of all tasks of this run; '' if there were none."""
        if self.is_rerunnable:
            return f"  {shlex.join(['musicapi', *self.args])}"
        return resume_command(tokens, self.saving, self.options) if tokens else ""


# --- signals -----------------------------------------------------------------------------------------------


ENDING: Final = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, `timeout` or a service manager, and a terminal that is closed; Windows lacks the last."""


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; a signal of `ENDING` cancels it between two callbacks of the loop.

    So a paid call that was sent is still answered, and its task is reported. A second Ctrl-C ends `work` at
    once, also between two callbacks, and a third one wherever it is; other signals may well come twice
    (`timeout` and terminals send them so), and mean one end.

    `asyncio.Runner` cancels inside the signal handler, which may run in the middle of a callback. The end of
    a player that the same Ctrl-C had ended then met a future that was cancelled after asyncio had checked it,
    and an InvalidStateError was printed.
    """
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    is_interrupted = is_given_up = False

    def give_up() -> None:
        raise KeyboardInterrupt

    def interrupted(number: int, _frame: object) -> None:
        nonlocal is_interrupted, is_given_up
        if main is None or (is_given_up and number == signal.SIGINT):
            raise KeyboardInterrupt
        if not is_interrupted:
            is_interrupted = True
            loop.call_soon_threadsafe(main.cancel)
        elif number == signal.SIGINT:
            is_given_up = True
            loop.call_soon_threadsafe(give_up)

    try:
        with _handled_by(interrupted):
            return await work
    except asyncio.CancelledError:
        if is_interrupted and not is_given_up:  # else the runner raises one, and would report this as lost
            raise KeyboardInterrupt from None
        raise


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object]) -> Generator[None]:
    """Within this context `handler` is called for the signals of `ENDING`, but for those that are ignored."""
    before: dict[signal.Signals, Any] = {}
    try:
        with contextlib.suppress(ValueError):  # only the main thread hears signals
            for number in (signal.Signals[name] for name in ENDING if name in signal.Signals.__members__):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as by `nohup`, or a shell's background
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def confirm(question: str) -> None:
    """Ask on standard error, within `interruptible`; any answer but yes raises `click.Abort`.

    Ctrl-C and the end of the input raise `KeyboardInterrupt`.

    `interruptible` ends work between two callbacks, and no callback runs while an answer is awaited.
    """
    heard, signalled = socket.socketpair()  # before Ctrl-C may end this anywhere
    try:
        with heard, signalled, _handled_by(signal.default_int_handler):
            click.echo(f"{question} [y/N]:", nl=False, err=True)
            if sys.stdin.isatty() and sys.platform != "win32":
                _await_input(heard, signalled)
            is_confirmed = click.confirm("", show_default=False, prompt_suffix="", err=True)
    except (click.Abort, KeyboardInterrupt):
        if not sys.stdin.isatty():
            raise click.UsageError("No one confirmed it; --yes does.") from None
        print_err("")  # behind the question
        raise KeyboardInterrupt from None
    if not is_confirmed:
        raise click.Abort


def _await_input(heard: socket.socket, signalled: socket.socket) -> None:
    """Return when a line was typed.

    A signal that comes just before `input` begins to read would be handled only after a line. Here it is also
    written to `signalled`, and so ends the wait.
    """
    signalled.setblocking(False)
    before = signal.set_wakeup_fd(signalled.fileno())
    try:
        select.select([sys.stdin, heard], [], [])
    finally:
        signal.set_wakeup_fd(before)


@contextlib.contextmanager
def two_interrupts(
    first: Callable[[], None], second: Callable[[], None], *signals: signal.Signals
) -> Generator[asyncio.Event]:
    """Within this context a signal sets the event once, and twice cancels the task.

    Args:
        first: Called with the first signal.
        second: Called when the task has been cancelled, be it by a signal that `interruptible` hears.
        signals: The signals; SIGINT is Ctrl-C.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()

    def interrupted() -> None:
        if stop.is_set():
            if main is not None:
                main.cancel()
            return
        stop.set()
        first()

    def on_signal(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(interrupted)

    before = {number: signal.signal(number, on_signal) for number in signals}
    try:
        yield stop
    except asyncio.CancelledError:
        second()
        if stop.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def until_terminated() -> Generator[None]:
    """Within this context SIGTERM, by which servers are stopped, ends the block instead of the process."""
    main = asyncio.current_task()
    assert main is not None
    is_terminated = False

    def terminate() -> None:
        nonlocal is_terminated
        is_terminated = True
        main.cancel()

    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows has none
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        yield
    except asyncio.CancelledError:
        if not is_terminated:
            raise
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGTERM)
