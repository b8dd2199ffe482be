"""Every operation of every family as a command, derived from its declaration."""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
from collections.abc import Coroutine, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click
import msgspec

from ..api.batches import Batch, BatchItem
from ..api.direct_replies import Files, Midi, Wav
from ..api.lyrics import AlignedLyrics
from ..api.operation import Family, Operation, SubmitsBatch
from ..api.request import refuse, violations
from ..api.results import TaskUpdate
from ..api.task import TaskRef
from ..arguments import is_list
from ..errors import DownloadError, MusicAPIError
from .error_texts import Saving, resume_command
from .exit_codes import ExitCode
from .invocation import Invocation
from .output import visible
from .parameters import (
    IN_FILES,
    NO_TEXT,
    STYLE,
    Folder,
    Positive,
    argument_fields,
    dest_of,
    fields_given,
    has_style,
    in_options,
    kebab,
    parameters_of,
    violation_in_options,
)
from .task_commands import follow, together
from .usage import FILE_TAGS, Command, Group

if TYPE_CHECKING:
    from .._transport.audio_tags import FileTags
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
            params=_waiting_options(operation) if operation.creates else _saving_options(operation),
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
        for one in arguments:
            if one.example is not None:
                with formatter.section(f"{one.name.upper()} as JSON, in single quotes or from a file"):
                    formatter.write(f"{' ' * formatter.current_indent}{_listed(one.example)}\n")

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
        tags, saving = _file_tags(given, values), None
        if tags and folder is None:
            raise click.UsageError("--tags without text writes tags into files, and needs --download DIR.")
        if folder is not None:
            _check_folder(folder)
            saving = Saving(folder, tags or False)
        async with invocation.client() as client:
            if isinstance(operation, SubmitsBatch):
                return await _submit_batch(
                    invocation, client, operation, values, wait=wait, saving=saving, timeout=timeout
                )
            if not operation.submits:
                await _call(invocation, client, operation, values, folder)
                return None
            if not wait:
                await _submit(invocation, client, operation, values)
                return None
            return await _submit_and_wait(
                invocation, client, operation, values, saving=saving, timeout=timeout
            )


def _listed(example: object) -> str:
    """Return an example as JSON, a list with one line for each of its items."""
    if not is_list(example):
        return msgspec.json.encode(example).decode()
    lines = [msgspec.json.encode(item).decode() for item in example]
    return ",\n   ".join(lines).join("[]")


def _first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, up to the details behind ':' or ';' or in brackets."""
    joined = " ".join(text.replace("`", "").replace("client.", "").replace("_", "-").split())
    return re.split(r"\. |: |; | \(", joined)[0].rstrip(".") + "." if joined else ""


def _waiting_options(operation: Operation[..., object]) -> list[click.Parameter]:
    tags = click.Option(["--tags", FILE_TAGS], is_flag=True, help=f"Write tags into the files: {IN_FILES}.")
    return [
        *([] if has_style(operation) else [tags]),
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


def _saving_options(operation: Operation[..., object]) -> list[click.Parameter]:
    if issubclass(operation.reply, AlignedLyrics):
        return [_download_option("Write the subtitles (LRC and SRT) into this folder.")]
    if issubclass(operation.reply, Wav | Midi | Files):
        return [_download_option("Fetch the files into this folder.")]
    return []


def _download_option(text: str) -> click.Option:
    return click.Option(["--download"], type=Folder(), metavar="DIR", help=text)


def _replacement(operation: Operation[..., object]) -> str | None:
    return operation.replacement or operation.family.replacement


async def _call(
    invocation: Invocation,
    client: MusicAPI,
    operation: Operation[..., Any],
    values: Mapping[str, object],
    folder: Path | None,
) -> None:
    """Make a direct call, report its reply, and save its files if there is a folder for them."""
    invocation.charges = operation.charges
    with invocation.reporter.busy(operation.call_name):
        reply = await operation.public_method(client.sonic.caller)(**values)
    if isinstance(reply, TaskUpdate):
        ref = TaskRef(operation.family.word, reply.task_id or str(values.get("task_id")))
        invocation.track(ref)
        invocation.reporter.displayed(client.task(ref.token), reply)
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


def _file_tags(given: Mapping[str, Any], values: Mapping[str, object]) -> FileTags | None:
    """Return the tags that files are to get; None for none. Refused without the library for them."""
    from .._transport.audio_tags import FileTags, check_tagging, prompt_of

    if not given.get(FILE_TAGS) and NO_TEXT not in (given.get(dest_of(STYLE)) or ()):
        return None
    check_tagging()
    return FileTags(comment=prompt_of(values))


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
    from ..file_names import safe_name
    from ..files import write_whole

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
    invocation: Invocation, client: MusicAPI, operation: Operation[..., Any], values: Mapping[str, object]
) -> None:
    """Make a create and report its task, without waiting for it."""
    with invocation.reporter.busy(operation.call_name):
        task = await operation.public_method(client.sonic.caller)(**values)
    invocation.accepted(task)
    invocation.reporter.accepted(task)


async def _submit_and_wait(
    invocation: Invocation,
    client: MusicAPI,
    operation: Operation[..., Any],
    values: Mapping[str, object],
    *,
    saving: Saving | None,
    timeout: float | None,
) -> ExitCode:
    """Make a create and follow its task to the end; returns the exit code."""
    invocation.saving = saving  # for a task, too, that only the log names, after Ctrl-C during the create
    with invocation.reporter.following(client.clock.speed, saving=saving):
        report = invocation.reporter.task(_label(values, operation.name))
        task = await operation.public_method(client.sonic.caller)(**values)
        invocation.accepted(task)
        report.submitted(task)
        error = await follow(invocation, client, task, report, timeout=timeout, saving=saving)
    return invocation.end([error] if error else [])


async def _submit_batch(
    invocation: Invocation,
    client: MusicAPI,
    operation: Operation[..., Any],
    values: Mapping[str, object],
    *,
    wait: bool,
    saving: Saving | None,
    timeout: float | None,
) -> ExitCode:
    """Make a create of several tasks, and follow them to their end if they are waited for."""
    from .._transport.audio_tags import FileTags, prompt_of

    invocation.saving = saving = saving if wait else None
    with invocation.reporter.busy(operation.call_name):
        batch: Batch = await operation.public_method(client.sonic.caller)(**values)
    for task in batch.tasks:
        invocation.accepted(task)
    errors = [_of_item(item) for item in batch.items if item.error is not None]
    for error in errors:
        invocation.failed(error)
    _report_batch(invocation, batch, saving, wait=wait)
    if not (wait and batch.tasks):
        return invocation.end(errors, waited=wait)
    with invocation.reporter.following(client.clock.speed, saving=saving):
        work: list[Coroutine[None, None, MusicAPIError | None]] = []
        for number, item in enumerate(batch.items):
            if item.task is not None:
                given = _item_fields(values, number)
                report = invocation.reporter.task(_label(given, item.task.task_id))
                report.resumed(item.task)
                own = saving
                if saving is not None and saving.tags:
                    own = replace(saving, tags=FileTags(comment=prompt_of(given)))
                work.append(follow(invocation, client, item.task, report, timeout=timeout, saving=own))
        errors += [error for error in await together(work) if error is not None]
    return invocation.end(errors)


def _report_batch(invocation: Invocation, batch: Batch, saving: Saving | None, *, wait: bool) -> None:
    """Report the tasks of a batch, and the command that waits for them."""
    lines = [f"Accepted: {len(batch.tasks)} of {len(batch.items)} songs, batch {batch.batch_id or '(no id)'}"]
    if not batch.is_assigned:
        lines.append("The reply does not say which song is which.")
    tokens = [task.token for task in batch.tasks]
    command = resume_command(tokens, saving, invocation.options) if tokens else ""
    if command:
        lines += ["To resume:" if wait else "Wait for them, free of charge, with:", command]
    invocation.reporter.event("batch", {**batch.to_dict(), "job_key": batch.job_key}, lines)
    if sys.stdout.isatty():  # else it may be in a file
        invocation.reporter.note_printed(command)


def _of_item(item: BatchItem) -> MusicAPIError:
    """Return the error of a refused item, whose text names the item."""
    error = copy(item.error)
    assert error is not None
    if item.index is not None:
        error.message = f"items[{item.index}]: {error.message}"
    return error


def _item_fields(values: Mapping[str, object], number: int) -> dict[str, object]:
    """Return what was given for one item of a batch."""
    items = values.get("items")
    item = items[number] if is_list(items) else None
    return cast("dict[str, object]", item) if isinstance(item, dict) else {}


def _label(given: Mapping[str, object], default: str) -> str:
    """Return what tells a person which task a bar is for."""
    texts = (given.get(name) for name in LABEL_FIELDS)
    text = next((value for value in texts if isinstance(value, str) and value.strip()), default)
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
