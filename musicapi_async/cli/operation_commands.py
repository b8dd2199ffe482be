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
from ..api.lyrics import AlignedLyrics
from ..api.operation import Family, Operation
from ..api.replies import Files, Midi, Wav
from ..api.request import refuse, violations
from ..api.results import TaskUpdate
from ..api.task import TaskRef
from ..errors import DownloadError
from .error_texts import ExitCode
from .invocation import Command, Group, Invocation
from .output import visible
from .parameters import (
    Folder,
    Positive,
    argument_fields,
    fields_given,
    in_options,
    kebab,
    parameters_of,
    violation_in_options,
)
from .task_commands import follow

if TYPE_CHECKING:
    from ..client import MusicAPI

LABEL_FIELDS: Final = ("title", "name", "gpt_description_prompt", "description", "prompt", "sound", "lyrics")
"""Fields that tell a person which task a bar is for; the first that is given is taken."""

TEXT_FROM_FILES: Final = """\
Text may come from a file (@file) or from standard input (@-). Options of
musicapi itself, such as --json, are accepted here, too."""


class OperationCommand(Command):
    """One operation. Its parameters are read off the request when they are needed first."""

    def __init__(self, operation: Operation[..., Any], name: str | None = None) -> None:
        self.operation: Final = operation
        about = inspect.cleandoc(operation.request.__doc__ or "")
        super().__init__(
            name or kebab(operation.name),
            callback=click.pass_obj(self._run),
            params=_waiting_options() if operation.submits else _saving_options(operation),
            short_help=_first_sentence(about) + ("" if _replacement(operation) is None else " (deprecated)"),
        )
        self._about = about
        self._derived = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, those of the request first."""
        if not self._derived:
            self._derived = True
            self.params: list[click.Parameter] = [*parameters_of(self.operation), *self.params]
        return super().get_params(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the purpose, the cost, and the arguments, whose help click does not display."""
        operation = self.operation
        cost = "Charges credits." if operation.charges else "Free."
        if operation.charges and not operation.resend:
            cost += " Sent at most once."
        paragraphs = [in_options(self._about, operation), f"{operation.call_name}. {cost}"]
        replacement = _replacement(operation)
        if replacement is not None:
            paragraphs.append(f"Deprecated by the service; it recommends {replacement}.")
        arguments = argument_fields(operation)
        rows = [(one.name.upper(), in_options(one.description, operation)) for one in arguments]
        for text in paragraphs:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(text.replace("\n\n", "\b").replace("\n", " ").replace("\b", "\n\n"))
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how to give text that does not fit a command line."""
        formatter.write_paragraph()
        for line in TEXT_FROM_FILES.splitlines():
            formatter.write_text(line)

    async def _run(self, invocation: Invocation, **given: Any) -> ExitCode | None:
        operation = self.operation
        values = fields_given(operation, given)
        if found := violations(operation.request(**values)):
            raise refuse([violation_in_options(rule, operation) for rule in found], operation.call_name)
        wait, folder, timeout = given.get("wait"), given.get("download"), given.get("timeout")
        if wait is False and (folder is not None or timeout is not None):
            raise click.UsageError("--no-wait excludes --download and --timeout.")
        if wait is None:
            wait = bool(folder or timeout) or not invocation.is_json
        if folder is not None:
            _check_folder(folder)
        async with invocation.client() as client:
            if not operation.submits:
                await _call(invocation, client, operation, values, folder)
                return None
            if not wait:
                await _submit(invocation, client, operation, values)
                return None
            return await _submit_and_wait(
                invocation, client, operation, values, folder=folder, timeout=timeout
            )


def _first_sentence(text: str) -> str:
    joined = " ".join(text.replace("`", "").split())
    return joined.partition(". ")[0].partition(": ")[0].rstrip(".") + "." if joined else ""


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
            type=Positive(),
            metavar="SECONDS",
            help="Wait at most this long; the task continues after that.",
        ),
    ]


def _saving_options(operation: Operation[..., Any]) -> list[click.Parameter]:
    if issubclass(operation.reply, AlignedLyrics):
        return [_download_option("Write the subtitles (LRC and SRT) into this folder.")]
    if issubclass(operation.reply, Wav | Midi | Files):
        return [_download_option("Fetch the files into this folder.")]
    return []


def _download_option(text: str) -> click.Option:
    return click.Option(["--download"], type=Folder(), metavar="DIR", help=text)


def _replacement(operation: Operation[..., Any]) -> str | None:
    return operation.replacement or operation.family.replacement


def _method_of(client: MusicAPI, operation: Operation[..., Any]) -> Any:
    """Return the public method of an operation, of any family."""
    return operation.__get__(operation.family(client.sonic.caller), operation.family)


async def _call(
    invocation: Invocation,
    client: MusicAPI,
    operation: Operation[..., Any],
    values: Mapping[str, Any],
    folder: Path | None,
) -> None:
    """Make a direct call, report its reply, and save its files if there is a folder for them."""
    invocation.charges = operation.charges
    with invocation.reporter.busy(operation.call_name):
        reply = await _method_of(client, operation)(**values)
    if isinstance(reply, TaskUpdate):
        ref = TaskRef(operation.family.word, reply.task_id or str(values.get("task_id")))
        invocation.track(ref)
        invocation.reporter.polled(client.task(ref.token), reply)
        return
    name = f"{operation.family.word}.{operation.name}"
    is_saved_whole = folder is not None and isinstance(reply, AlignedLyrics)
    if invocation.is_json or not is_saved_whole:  # people find in the files what they saved
        invocation.reporter.reply(name, reply)
    if folder is None:
        return
    if isinstance(reply, AlignedLyrics):
        paths = _write_subtitles(reply, folder, str(values["clip_id"]))
    else:
        paths = await client.download(reply, folder)
    lines = [f"saved  {visible(str(path))}" for path in paths]
    invocation.reporter.event("saved", {"operation": name, "paths": paths}, lines)


def _check_folder(folder: Path) -> None:
    """Make a folder and check that files can be saved there, before anything is paid for."""
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
    invocation: Invocation, client: MusicAPI, operation: Operation[..., Any], values: Mapping[str, Any]
) -> None:
    """Make a create and report its task, without waiting for it."""
    with invocation.reporter.busy(operation.call_name):
        task = await _method_of(client, operation)(**values)
    invocation.accepted(task)
    invocation.reporter.accepted(task)


async def _submit_and_wait(
    invocation: Invocation,
    client: MusicAPI,
    operation: Operation[..., Any],
    values: Mapping[str, Any],
    *,
    folder: Path | None,
    timeout: float | None,
) -> ExitCode:
    """Make a create and follow its task to the end; returns the exit code."""
    invocation.folder = folder  # for a task, too, that only the log names, after Ctrl-C during the create
    with invocation.reporter.following(client.clock.speed, folder=folder):
        report = invocation.reporter.task(_label(operation, values))
        task = await _method_of(client, operation)(**values)
        invocation.accepted(task)
        report.submitted(task)
        error = await follow(invocation, client, task, report, timeout=timeout, folder=folder)
    return invocation.end([error] if error else [])


def _label(operation: Operation[..., Any], values: Mapping[str, Any]) -> str:
    given = (values.get(name) for name in LABEL_FIELDS)
    text = next((value for value in given if isinstance(value, str) and value.strip()), operation.name)
    return " ".join(text.split())


class FamilyGroup(Group):
    """The operations of a family."""

    def __init__(self, family: type[Family]) -> None:
        about = _first_sentence(inspect.cleandoc(family.__doc__ or ""))
        deprecated = "" if family.replacement is None else " Deprecated by the service."
        super().__init__(family.word, help=about + deprecated, params=[])
        self._operations: Final = {kebab(name): one for name, one in family.operations().items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the operations in the order of their declaration."""
        return list(self._operations)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of an operation, made on demand."""
        operation = self._operations.get(cmd_name)
        return None if operation is None else OperationCommand(operation)


def family_groups() -> dict[str, FamilyGroup]:
    """Return a group for every family, in the order of their declaration."""
    return {word: FamilyGroup(family) for word, family in FAMILIES.items()}


def shortcut(family: str, operation: str, name: str) -> OperationCommand:
    """Return an operation under a shorter name."""
    return OperationCommand(FAMILIES[family].operations()[operation], name)
