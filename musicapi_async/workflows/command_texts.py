"""Texts of the library for users of the command: calls in Python become commands and options.

The advice of errors, and the reasons of a batch, are about Python. The command and the page of a batch, which
names commands anyway, translate them.
"""

from __future__ import annotations

import re
import shlex
from ast import literal_eval
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from ..api.families import FAMILIES

_TEXT: Final = r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
"""A text as `repr` has it, such as a job key; a command has it as a word of a shell."""

IN_COMMANDS: Final[Sequence[tuple[re.Pattern[str], str]]] = tuple(
    (re.compile(python), command)
    for python, command in (
        (r"`?(?:await )?client\.credits\(\)`?", "`musicapi credits`"),
        (
            rf"client\.resolve\({_TEXT}, task_id=\.\.\.\)",
            r"`musicapi jobs resolve FILE \1 --task-id ID`",
        ),
        (rf"client\.resubmit\({_TEXT}\)", r"`musicapi jobs resubmit FILE \1`"),
        (
            rf"client\.task\('(\w+)', {_TEXT}(?:, kind='\w+')?\)\.wait\(\)(?: on an open client)?",
            r"`musicapi wait \2 --family \1`",
        ),
        (rf"client\.task\({_TEXT}\)\.wait\(\)(?: on an open client)?", r"`musicapi wait \1`"),
        (r"clips = await task\.wait\(\)", "`musicapi wait`"),
        (r"Raise attempt_timeout or deadline with client\.with_options\(\.\.\.\)", "Repeat it later"),
        (r"Raise deadline with client\.with_options\(\.\.\.\) and download", "Download"),
        (
            r"Lower the rate of the client \(`rate_limit=`\), or raise `max_retries`",
            "Wait a little, or lower --rate-limit",
        ),
        (r"Call midi\(\) again", "Repeat the command"),
        (r"Save `body` for the vendor's support", "Report it to the vendor's support"),
        (r'MusicAPI\(sonic_word="suno"\)', "--sonic-word suno"),
        (r"pass api_key=\.\.\. or set MUSICAPI_KEY", "MUSICAPI_KEY is not set"),
        (r" before Python starts, or pass MusicAPI\(ssl=.*?\)\)", ""),
        (r"The environment names a proxy, .*MusicAPI\(trust_env=True\)", "Check the network"),
        (r" ?MusicAPI\(uploader=\.\.\.\)[^.]*\.", ""),
        (r"If `clip_id` is set, the upload worked.*", ""),
        (r"MusicAPI\(account=[^)]*\), or ", ""),
        (
            rf"Decide with a client of that host: MusicAPI\(base_url={_TEXT}\)",
            r"Repeat it with `--base-url \1`",
        ),
        (r" A new (?:SQLiteStore\(path\)|PostgresStore\(address\)).*", ""),
        (r" \(out=\)", ""),
        (r"run_batch\(\.\.\., retry_failed=True\)", "the same command with --retry-failed"),
        (r"\bbase_url\b", "--base-url"),
    )
)
"""Advice of the library in Python, and the same for users of the command."""

_WAITS: Final = re.compile(r"; it waited .*?(?=\)\.|\. | \(HTTP |$)|\b[\d.]+ s\b")
"""The part of a reason that differs from song to song."""

_PLACE: Final = re.compile(r"\\(\d)|FILE")
_OPERATION: Final = re.compile(rf"\b({'|'.join(FAMILIES)})\.([a-z]+(?:_[a-z]+)*)\b")


def in_commands(text: str, store: str = "FILE") -> str:
    """Return a text of the library with each call in Python replaced by the command that does the same.

    `store` is the file or folder of the jobs, as a word of a command line.
    """
    for python, command in IN_COMMANDS:
        text = python.sub(partial(_filled, command, store), text)
    return _OPERATION.sub(_as_command, text)


def same_reason(text: str) -> str:
    """Return a reason without the seconds of a wait: equal ones are displayed once."""
    return _WAITS.sub("", text)


def duration_text(seconds: float) -> str:
    """Return a time in words, such as '1 h 12 min'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as '2 songs'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _filled(command: str, store: str, found: re.Match[str]) -> str:
    """Return a command with the place of the jobs, and with what was found as words of a shell."""

    def word(place: re.Match[str]) -> str:
        if place[1] is None:
            return store
        text = found[int(place[1])]
        with suppress(SyntaxError, ValueError):  # of the service, which may say anything
            text = literal_eval(text) if text[0] in "'\"" else text
        return shlex.quote(text)

    return _PLACE.sub(word, command)


def _as_command(found: re.Match[str]) -> str:
    is_one = found[2] in FAMILIES[found[1]].operations()
    return f"`musicapi {found[1]} {found[2].replace('_', '-')}`" if is_one else found[0]
