"""Every operation of every family as a command, derived from its declaration."""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..api.families import FAMILIES
from ..api.handle import TaskRef
from ..api.lyrics import AlignedLyrics
from ..api.operation import Family, Operation
from ..api.replies import Files, Midi, Wav
from ..api.request import refuse, violations
from ..api.results import TaskUpdate
from ..errors import DownloadError
from .commanding import Command, Group, first_sentence, kebab, run, seconds
from .following import follow
from .invocation import Invocation
from .parameters import Folder, argument_fields, fields_given, parameters_of, rule_spoken, spoken
from .visible import visible

if TYPE_CHECKING:
    from ..client import MusicAPI

LABELLED_BY: Final = ("title", "name", "gpt_description_prompt", "description", "prompt", "sound", "lyrics")
"""Fields that tell a person which task is meant, in the order in which they are looked at."""


class OperationCommand(Command):
    """One operation. Its parameters are read off the request only when they are needed."""

    def __init__(self, operation: Operation[Any, Any], name: str | None = None) -> None:
        self.operation: Final = operation
        about = inspect.cleandoc(operation.request.__doc__ or "")
        super().__init__(
            name or kebab(operation.name),
            callback=self._invoke,
            params=_waiting_options() if operation.submits else _saving_options(operation),
            short_help=first_sentence(about) + ("" if _replacement(operation) is None else " (deprecated)"),
        )
        self._about = about
        self._derived = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters: those of the request first."""
        if not self._derived:
            self._derived = True
            self.params = [*parameters_of(self.operation), *self.params]
        return super().get_params(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What it does, what it costs, and its arguments, whose help click does not show."""
        operation = self.operation
        cost = "Charges credits." if operation.charges else "Free."
        if operation.charges and not operation.resend:
            cost += " Sent at most once."
        paragraphs = [spoken(self._about, operation), f"{operation.call_name}. {cost}"]
        replacement = _replacement(operation)
        if replacement is not None:
            paragraphs.append(f"Deprecated by the service; it recommends {replacement}.")
        rows = [(one.name.upper(), spoken(one.description, operation)) for one in argument_fields(operation)]
        for text in paragraphs:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(text.replace("\n\n", "\b").replace("\n", " ").replace("\b", "\n\n"))
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """How to give text that does not fit a command line."""
        formatter.write_paragraph()
        formatter.write_text("Text may come from a file (@file) or from standard input (@-). Options of")
        formatter.write_text("musicapi itself, such as --json, may stand here too.")

    def _invoke(self, **given: Any) -> None:
        values = fields_given(self.operation, given)
        found = violations(self.operation.request(**values))
        if found:
            found = [rule_spoken(rule, self.operation) for rule in found]
            raise refuse(found, self.operation.call_name)
        wait, folder, timeout = given.get("wait"), given.get("download"), given.get("timeout")
        if wait is False and (folder is not None or timeout is not None):
            raise click.UsageError("--no-wait excludes --download and --timeout.")

        async def work(invocation: Invocation) -> int | None:
            chosen = wait if wait is not None else bool(folder or timeout) or not invocation.is_json
            if folder is not None:
                _make_ready(folder)
            async with invocation.client() as client:
                if not self.operation.submits:
                    await _call(invocation, client, self.operation, values, folder)
                    return None
                return await _submit(
                    invocation, client, self.operation, values, wait=chosen, folder=folder, timeout=timeout
                )

        run(work)


def _waiting_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--wait/--no-wait"],
            default=None,
            help="Wait for the end. Default: yes, with bars, on a terminal.",
        ),
        _download_option("Wait, then fetch the files into this folder."),
        click.Option(
            ["--timeout"],
            type=float,
            callback=seconds,
            metavar="SECONDS",
            help="Wait, at most so long; the task goes on after that.",
        ),
    ]


def _saving_options(operation: Operation[Any, Any]) -> list[click.Parameter]:
    if issubclass(operation.reply, AlignedLyrics):
        return [_download_option("Write the subtitles (LRC and SRT) into this folder.")]
    if issubclass(operation.reply, Wav | Midi | Files):
        return [_download_option("Fetch the files into this folder.")]
    return []


def _download_option(told: str) -> click.Option:
    return click.Option(["--download"], type=Folder(), metavar="DIR", help=told)


def _replacement(operation: Operation[Any, Any]) -> str | None:
    return operation.replacement or operation.family.replacement


def method_of(client: MusicAPI, operation: Operation[Any, Any]) -> Any:
    """The public method of an operation, whatever its family."""
    return operation.__get__(operation.family(client.sonic.caller), operation.family)


async def _call(
    invocation: Invocation,
    client: MusicAPI,
    operation: Operation[Any, Any],
    values: Mapping[str, Any],
    folder: Path | None,
) -> None:
    invocation.charges = operation.charges
    with invocation.reporter.busy(operation.call_name):
        reply = await method_of(client, operation)(**values)
    if isinstance(reply, TaskUpdate):
        ref = TaskRef(operation.family.word, reply.task_id or str(values.get("task_id")))
        invocation.named(ref)
        invocation.reporter.look(client.task(ref.token), reply)
    else:
        name = f"{operation.family.word}.{operation.name}"
        is_saved_whole = folder is not None and isinstance(reply, AlignedLyrics)
        if invocation.is_json or not is_saved_whole:  # nobody reads on the screen what is in the files
            invocation.reporter.reply(name, reply)
        if folder is None:
            return
        if isinstance(reply, AlignedLyrics):
            paths = _write_subtitles(reply, folder, str(values["clip_id"]))
        else:
            paths = await client.download(reply, folder)
        told = [f"saved  {visible(str(path))}" for path in paths]
        invocation.reporter.event("saved", {"operation": name, "paths": paths}, told)


def _make_ready(folder: Path) -> None:
    """Find out before anything is paid that nothing can be saved here."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        hint = "Nothing was sent. Name another folder."
        raise DownloadError(
            f"cannot write to {folder}: {error.strerror}", path=str(folder), hint=hint
        ) from error


def _write_subtitles(aligned: AlignedLyrics, folder: Path, clip_id: str) -> list[Path]:
    from ..files import safe_name, write_whole

    if not aligned.words:
        raise DownloadError("there are no words yet", hint="Ask again, or with --wait; repeats are free.")
    paths = [folder / f"{safe_name(clip_id) or 'lyrics'}.{ending}" for ending in ("lrc", "srt")]
    try:
        for path, text in zip(paths, (aligned.lrc(), aligned.srt()), strict=True):
            write_whole(path, text.encode())
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error.strerror}") from error
    return paths


async def _submit(
    invocation: Invocation,
    client: MusicAPI,
    operation: Operation[Any, Any],
    values: Mapping[str, Any],
    *,
    wait: bool,
    folder: Path | None,
    timeout: float | None,
) -> int | None:
    reporter = invocation.reporter
    if not wait:
        with reporter.busy(operation.call_name):
            task = await method_of(client, operation)(**values)
        invocation.accepted(task)
        reporter.accepted(task)
        return None
    invocation.folder = folder  # also for a task that only the log tells of, after Ctrl-C during the create
    with reporter.following(client.clock.speed):
        row = reporter.row(_label(operation, values))
        task = await method_of(client, operation)(**values)
        invocation.accepted(task)
        row.submitted(task)
        error = await follow(invocation, client, task, row, timeout=timeout, folder=folder)
    return invocation.end([error] if error else [])


def _label(operation: Operation[Any, Any], values: Mapping[str, Any]) -> str:
    given = (values.get(name) for name in LABELLED_BY)
    text = next((value for value in given if isinstance(value, str) and value.strip()), operation.name)
    return " ".join(text.split())


class FamilyGroup(Group):
    """The operations of a family."""

    def __init__(self, family: type[Family]) -> None:
        about = first_sentence(inspect.cleandoc(family.__doc__ or ""))
        deprecated = "" if family.replacement is None else " Deprecated by the service."
        super().__init__(family.word, help=about + deprecated, params=[])
        self._operations: Final = {kebab(name): one for name, one in family.operations().items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of their declaration."""
        return list(self._operations)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Made when asked for."""
        operation = self._operations.get(cmd_name)
        return None if operation is None else OperationCommand(operation)


def family_groups() -> dict[str, FamilyGroup]:
    """A group for every family, in the order of their declaration."""
    return {word: FamilyGroup(family) for word, family in FAMILIES.items()}


def shortcut(family: str, operation: str, name: str) -> OperationCommand:
    """An operation under a shorter name."""
    return OperationCommand(FAMILIES[family].operations()[operation], name)
