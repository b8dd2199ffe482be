"""Errors for people and for scripts: what happened, whether money moved, what to do next."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import click

from ..api.families import FAMILIES
from ..errors import (
    DownloadError,
    InsufficientCreditsError,
    MusicAPIError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestTimeoutError,
    RequestValidationError,
    StepFailedError,
    TaskFailedError,
    TaskTimeoutError,
)
from .lines import json_line
from .output import tell
from .visible import visible

NEXT: Final[Mapping[type[MusicAPIError], str]] = MappingProxyType(
    {
        OutcomeUnknownError: "Do not simply repeat it: compare `musicapi credits` with the balance before, "
        "and look in the dashboard for the result.",
        InsufficientCreditsError: "Buy credits; `musicapi credits` shows the balance.",
        RateLimitedError: "Wait a little and repeat it; it was refused, not charged.",
        RequestTimeoutError: "Repeat it later; a free call may be repeated as often as you like.",
        TaskTimeoutError: "Wait for it again, which is free; a new create would be paid for again.",
    }
)
"""What to do next, where the library's own hint speaks of Python."""


IN_COMMANDS: Final[Sequence[tuple[re.Pattern[str], str]]] = tuple(
    (re.compile(python), command)
    for python, command in (
        (r"`?(?:await )?client\.credits\(\)`?", "`musicapi credits`"),
        (
            r"client\.resolve\((\"[^\"]+\"|'[^']+'), task_id=\.\.\.\)",
            r"`musicapi jobs resolve FILE \1 --task-id ID`",
        ),
        (r"client\.resubmit\((\"[^\"]+\"|'[^']+')\)", r"`musicapi jobs resubmit FILE \1`"),
        (
            r"client\.task\('(\w+)', '([^']+)'(?:, kind='\w+')?\)\.wait\(\)(?: on an open client)?",
            r"`musicapi wait \2 --family \1`",
        ),
        (r"client\.task\('([^']+)'\)\.wait\(\)(?: on an open client)?", r"`musicapi wait \1`"),
        (r"clips = await task\.wait\(\)", "`musicapi wait`"),
        (r"Raise attempt_timeout or deadline with client\.with_options\(\.\.\.\)", "Repeat it later"),
        (r"Raise deadline with client\.with_options\(\.\.\.\) and download", "Download"),
        (
            r"Lower the rate of the client \(`rate_limit=`\), or raise `max_retries`",
            "Wait a little, or lower --rate-limit",
        ),
        (r"Call midi\(\) again", "Repeat the command"),
        (r"Keep `body` for the vendor's support", "Report it to the vendor's support"),
        (r'MusicAPI\(sonic_word="suno"\)', "--sonic-word suno"),
        (r" ?musicapi_async\.workflows\.[^.]*\.\.\., an async function\.", ""),
        (r"If `clip_id` is set, the upload worked.*", ""),
        (r"MusicAPI\(account=[^)]*\), or ", ""),
        (r" A new SQLiteStore\(path\).*", ""),
        (r" or musicapi_async\.sandbox\.Sandbox", ""),
        (r" \(out=\)", ""),
        (r"run_batch\(\.\.\., retry_failed=True\)", "the same command with --retry-failed"),
        (r"\bbase_url\b", "--base-url"),
    )
)
"""What the library advises in Python, and the same for users of the command."""

_OPERATION: Final = re.compile(rf"\b({'|'.join(FAMILIES)})\.([a-z]+(?:_[a-z]+)*)\b")


def in_commands(text: str, store: str = "FILE") -> str:
    """A text of the library for users of the command: calls in Python by the command that does the same.

    `store` is the file or folder of the jobs, as a word of a command line.
    """
    for python, command in IN_COMMANDS:
        text = python.sub(command.replace("FILE", store.replace("\\", r"\\")), text)
    return _OPERATION.sub(_as_command, text)


def _as_command(found: re.Match[str]) -> str:
    is_one = found[2] in FAMILIES[found[1]].operations()
    return f"`musicapi {found[1]} {found[2].replace('_', '-')}`" if is_one else found[0]


WHERE_FROM: Final = (
    "A token looks like musicapi:sonic:create_music:1760000000:TASK_ID and is printed by `musicapi create "
    "--no-wait`, by Ctrl-C, and as `token` in JSON; with a bare task id, --family tells which kind it is of."
)
"""What to wait for, and who prints it."""

CLIP_ID: Final = (
    "A clip has an id of its own, which is no task's: give the token of the task that made it, or pay for "
    "links with `musicapi sonic download CLIP_ID --formats mp3 --download DIR`."
)
"""What else may have been given, since both ids look alike."""


def next_step(error: MusicAPIError) -> str:
    """What the user can do now, in terms of the command."""
    if isinstance(error, TaskTimeoutError) and any(clip.is_succeeded for clip in error.clips):
        return f"{NEXT[TaskTimeoutError]} `musicapi wait TOKEN --until first` takes what is ready."
    if isinstance(error, OutcomeUnknownError) and error.task_id:
        return f"Do not repeat it: `musicapi wait {error.task_id} --family {error.family}` gives its result."
    for kind, text in NEXT.items():
        if isinstance(error, kind):
            cause = error.__cause__
            address = cause.hint if isinstance(cause, MusicAPIError) and "base_url" in cause.hint else ""
            return in_commands(f"{text} {address}".strip())
    if isinstance(error, NotFoundError) and error.task_id and "base_url" not in error.hint:
        return (
            f"Check the id, the family, and that the key belongs to the account that made it. {CLIP_ID} "
            f"{WHERE_FROM}"
        )
    if isinstance(error, RequestValidationError) and error.field == "api_key":
        return "Set MUSICAPI_KEY or use --key-file. Without an account, try `musicapi demo`."
    if isinstance(error, StepFailedError) and error.clip_id:
        return (
            f"The upload worked: go on from its clip, {error.clip_id}, with `musicapi sonic "
            "extend-upload-music` or `musicapi sonic cover-upload-music`, instead of uploading again."
        )
    return in_commands(error.hint)


def what_happened(error: MusicAPIError) -> str:
    """The event itself; fields of a request by the name of their option."""
    if isinstance(error, RequestValidationError) and error.violations and error.call:
        rows = [str(one) for one in error.violations]
        names = [one.field for one in error.violations]
        return "; ".join(
            f"--{name.replace('_', '-')}{row.removeprefix(name)}" if row.startswith(name) else row
            for name, row in zip(names, rows, strict=True)
        )
    if isinstance(error, RequestValidationError) and error.field == "api_key":
        return error.message.replace("pass api_key=... or set MUSICAPI_KEY", "MUSICAPI_KEY is not set")
    message = in_commands(error.message)
    if isinstance(error, TaskFailedError):
        return f"task {error.task_id} failed: {message}"
    return f"{error.call}: {message}" if error.call else message


def money(error: MusicAPIError) -> str:
    """Whether credits were spent, in terms of the command."""
    if isinstance(error, NotFoundError) and error.task_id:
        return ""  # whether such a task was ever paid for is just what nobody knows
    return in_commands(error.money)


def error_fields(error: MusicAPIError, code: int) -> dict[str, Any]:
    """An error as a JSON object; the keys are always the same."""
    return {
        "event": "error",
        "type": type(error).__name__,
        "message": what_happened(error),
        "money": money(error),
        "next": next_step(error),
        "may_have_been_charged": error.may_have_been_charged,
        "status": getattr(error, "status", None),
        "request_id": getattr(error, "request_id", None),
        "field": getattr(error, "field", None),
        "path": error.path if isinstance(error, DownloadError) else None,
        "task_id": error.task_id,
        "family": error.family,
        "exit_code": code,
    }


def complain(error: MusicAPIError, code: int, *, as_json: bool) -> None:
    """Write an error to standard error."""
    if as_json:
        tell(json_line(error_fields(error, code)))
        return
    facts = what_happened(error)
    status = getattr(error, "status", None)
    request_id = getattr(error, "request_id", None)
    about = [f"HTTP {status}"] if status else []
    about += [f"request id {request_id}"] if request_id else []
    if about:
        facts = f"{facts.rstrip('.')} ({', '.join(about)})"
    label = click.style("Error:", fg="red", bold=True)
    texts = (text for text in (money(error), next_step(error)) if text)
    tell("\n".join([f"{label} {wrapped(facts, first=7)}", *map(wrapped, texts)]))


def wrapped(text: str, first: int = 0) -> str:
    """`text` in lines of the terminal's width; ids and links stay whole. The first line begins at `first`."""
    width = min(shutil.get_terminal_size().columns, 100)
    filled = textwrap.fill(
        visible(text), width, initial_indent=" " * first, break_long_words=False, break_on_hyphens=False
    )
    return filled.lstrip()


def resume_command(words: Sequence[str], command: str = "wait") -> str:
    """A command line to copy; one word per line, because tokens are long."""
    return " \\\n".join([f"  musicapi {command}", *(f"    {word}" for word in words)])
