"""Errors in the words of the command: texts for people and for scripts.

A text says what happened, whether money moved, and what to do next. The library's own advice is about Python;
here it is about commands and options.
"""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import click

from ..errors import (
    APIStatusError,
    DownloadError,
    InsufficientCreditsError,
    InvalidResponseError,
    MusicAPIError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestTimeoutError,
    RequestValidationError,
    StepFailedError,
    TaskFailedError,
    TaskTimeoutError,
    Violation,
)
from ..workflows.command_texts import in_commands
from .exit_codes import ExitCode
from .output import json_line, print_err, visible

if TYPE_CHECKING:
    from .._transport.audio_tags import FileTags

NEXT: Final[Mapping[type[MusicAPIError], str]] = MappingProxyType(
    {
        OutcomeUnknownError: "Do not simply repeat it: compare `musicapi credits` with the balance before, "
        "and search the dashboard for the result.",
        InsufficientCreditsError: "Buy credits; `musicapi credits` shows the balance.",
        RateLimitedError: "Wait a little and repeat it.",
        RequestTimeoutError: "Repeat it later; free calls may be repeated.",
        TaskTimeoutError: "Wait for it again, which is free; a new create would be charged again.",
    }
)
"""The next step, where the library's own hint is about Python."""

ID_HINT: Final = (
    "A token is such as musicapi:sonic:create_music:1760000000:TASK_ID and is printed by `musicapi create "
    "--no-wait`, by Ctrl-C, and as token in JSON; with a bare task id, --family names its kind."
)
"""The form of a token, and where to find one."""

CLIP_HINT: Final = (
    "A clip has an id of its own, which is no task's: give the token of the task that made it, or pay for "
    "links with `musicapi sonic download CLIP_ID --formats mp3 --download DIR`."
)
"""The likeliest mistake, since the ids of clips and tasks have the same form."""


def _to_take(error: MusicAPIError) -> str:
    """Return how to get the finished clips of a task that is still running; '' if there are none."""
    if isinstance(error, TaskTimeoutError) and any(clip.is_succeeded for clip in error.clips):
        return "`musicapi wait TOKEN --until first` returns the finished clips."
    return ""


def next_step(error: MusicAPIError) -> str:
    """Return what the user can do now, in terms of the command; '' if there is nothing."""
    if ready := _to_take(error):
        return f"{NEXT[TaskTimeoutError]} {ready}"
    if isinstance(error, OutcomeUnknownError) and error.task_id:
        return f"Do not repeat it: `musicapi wait {error.task_id} --family {error.family}` gets its result."
    for kind, text in NEXT.items():
        if isinstance(error, kind):
            cause = error.__cause__
            address = cause.hint if isinstance(cause, MusicAPIError) and "base_url" in cause.hint else ""
            return in_commands(f"{text} {address}".strip())
    if isinstance(error, NotFoundError) and error.task_id and error.hint == error.default_hint:
        return (
            f"Check the id, the family, and that the key belongs to the account that made it. {CLIP_HINT} "
            f"{ID_HINT}"
        )
    if isinstance(error, RequestValidationError) and error.field == "api_key":
        return f"Set MUSICAPI_KEY or use --key-file. {error.hint}"
    if isinstance(error, StepFailedError) and error.clip_id:
        return (
            f"The upload worked: continue from its clip, {error.clip_id}, with `musicapi sonic "
            "extend-upload-music` or `musicapi sonic cover-upload-music`, instead of uploading again."
        )
    return in_commands(error.hint)


def _in_options(rule: Violation) -> str:
    """Return a broken rule with its field as an option; a place in a list is none."""
    text = str(rule).replace("_", "-", rule.field.count("_"))
    return f"--{text}" if rule.field.isidentifier() else str(rule)


def what_happened(error: MusicAPIError) -> str:
    """Return the event itself; fields of a request are named by their option."""
    if isinstance(error, RequestValidationError) and error.violations and error.call:
        return "; ".join(map(_in_options, error.violations))
    message = in_commands(error.message)
    if isinstance(error, TaskFailedError):
        return f"task {error.task_id} failed: {message}"
    return f"{error.call}: {message}" if error.call else message


def money(error: MusicAPIError) -> str:
    """Return a sentence about credits that were or were not spent, in terms of the command."""
    if isinstance(error, NotFoundError) and error.task_id:
        return ""  # it is not known whether such a task exists, nor whether it was paid for
    return in_commands(error.money)


def error_fields(error: MusicAPIError, code: ExitCode) -> dict[str, object]:
    """Return an error as a JSON object; the keys are always the same."""
    status, request_id = _http_of(error)
    return {
        "event": "error",
        "type": type(error).__name__,
        "message": what_happened(error),
        "money": money(error),
        "next": next_step(error),
        "may_have_been_charged": error.may_have_been_charged,
        "status": status,
        "request_id": request_id,
        "field": error.field if isinstance(error, RequestValidationError) else None,
        "path": error.path if isinstance(error, DownloadError) else None,
        "task_id": error.task_id,
        "family": error.family,
        "exit_code": code,
    }


def print_error(error: MusicAPIError, code: ExitCode, *, as_json: bool, is_resumed: bool = False) -> None:
    """Write an error to standard error.

    Args:
        error: The error.
        code: The exit code for it.
        as_json: Write one JSON object instead of text.
        is_resumed: True if the command that resumes its task follows: it says that the task is paid for.
    """
    if as_json:
        print_err(json_line(error_fields(error, code)))
        return
    facts = what_happened(error)
    status, request_id = _http_of(error)
    about = [f"HTTP {status}"] if status else []
    about += [f"request id {request_id}"] if request_id else []
    if about:
        facts = f"{facts.rstrip('.')} ({', '.join(about)})"
    advice = (_to_take(error),) if is_resumed else (money(error), next_step(error))
    texts = (text for text in advice if text)
    print_err("\n".join([labelled(facts), *map(wrapped, texts)]))


def _http_of(error: MusicAPIError) -> tuple[int | None, str | None]:
    """Return the status and the request id of the response that an error is about."""
    match error:
        case APIStatusError():
            return error.status, error.request_id
        case InvalidResponseError() | DownloadError():
            return error.status, None
        case _:
            return None, None


def labelled(text: str) -> str:
    """Return `text` behind a red "Error:", in lines of the terminal's width."""
    return f"{click.style('Error:', fg='red', bold=True)} {wrapped(text, first=7)}"


_COMMAND: Final = re.compile(r"`[^`]*`")
_BLANKS: Final = re.compile(r"\s+")
BLANK: Final = "\ue000"
"""Stands for the blanks of a command while its text is broken into lines; `visible` leaves none in a text."""


def with_whole_commands(text: str) -> str:
    """Return `text` with `BLANK` for the blanks of each command, so that no line ends inside one."""
    return _COMMAND.sub(lambda command: _BLANKS.sub(BLANK, command[0]), text)


def wrapped(text: str, first: int = 0) -> str:
    """Return `text` in lines of the terminal's width, with whole ids, links and commands, so that all of them
    can be copied.

    `first` is the column at which the first line begins.
    """
    width = min(shutil.get_terminal_size().columns, 100)
    filled = textwrap.fill(
        with_whole_commands(visible(text)),
        width,
        initial_indent=" " * first,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace(BLANK, " ").lstrip()


FILE_NAME: Final = "{title} {clip_id}"
"""The names of files, unless --name chooses others."""


@dataclass(frozen=True, slots=True)
class Saving:
    """The folder for the files of tasks, and how they are written; a resumed download does the same."""

    folder: Path
    tags: bool | FileTags = False
    pattern: str = FILE_NAME

    def options(self) -> list[str]:
        """Return the options of `musicapi download`."""
        words = [f"--out {shlex.quote(str(self.folder))}"]
        if self.pattern != FILE_NAME:
            words.append(f"--name {shlex.quote(self.pattern)}")
        return [*words, "--tags"] if self.tags else words


def resume_command(tokens: Sequence[str], saving: Saving | None = None, options: Sequence[str] = ()) -> str:
    """Return a command line to copy that waits for tasks, or downloads them if their files are to be saved.

    `options` are those of `musicapi` itself. The command has one word per line, because tokens are long:
    behind an indentation of 2 columns most of them leave place for the backslash on a terminal of 80 columns.
    """
    words = [*options, *(saving.options() if saving is not None else ()), *tokens]
    command = "wait" if saving is None else "download"
    return " \\\n".join([f"  musicapi {command}", *(f"  {word}" for word in words)])
