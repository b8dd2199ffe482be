"""`musicapi wait`, `show` and `download`: tasks that were submitted before, by their token or id."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import click

from .._error_base import first_in
from .._transport.audio_tags import check_tagging
from ..api.families import FAMILIES, polled_as
from ..api.results import Result, Until
from ..api.suggestions import did_you_mean
from ..api.task import Task, TaskRef
from ..errors import MusicAPIError, NotFoundError, RequestValidationError, TaskFailedError
from ..file_names import check_pattern
from .error_texts import FILE_NAME, ID_HINT, Saving
from .exit_codes import ExitCode
from .invocation import Invocation
from .parameters import IN_FILES, Folder, OneOfWords, Positive
from .reporters import TaskReport
from .usage import Command

if TYPE_CHECKING:
    from ..client import MusicAPI

T = TypeVar("T")

TASK_ID: Final = re.compile(r"[\w.~-]{1,200}", re.ASCII)
"""Ids are opaque, and were UUIDs so far; anything else is a damaged token or a link."""
POLLED_FAMILIES: Final = tuple(word for word in FAMILIES if polled_as(word) is not None)


def _pattern(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Refuse a pattern before the tasks are waited for, which may take minutes."""
    try:
        check_pattern(value)
    except RequestValidationError as error:
        raise click.BadParameter(error.message.removeprefix("name: ")) from error
    return value


_tasks = click.argument("tasks", nargs=-1, required=True, metavar="TOKEN_OR_ID...")
_family = click.option(
    "--family",
    type=OneOfWords(POLLED_FAMILIES),
    default="sonic",
    show_default=True,
    help="Family of the tasks that are given as ids, not as tokens.",
)
_timeout = click.option(
    "--timeout",
    type=Positive(),
    metavar="SECONDS",
    help="Longest time to wait; the tasks continue. Default: 900 for songs, 1800 for stems.",
)


@click.command("wait", cls=Command)
@_tasks
@_family
@_timeout
@click.option(
    "--until",
    type=OneOfWords(["all", "first", "stream"]),
    default="all",
    show_default=True,
    help="Wait until all clips have ended, the first clip is finished, or the first audio can be heard.",
)
@click.pass_obj
async def wait_command(
    invocation: Invocation, *, tasks: tuple[str, ...], family: str, timeout: float | None, until: str
) -> ExitCode:
    """Wait for tasks that were submitted before. Free, may be repeated."""
    return await _follow_all(invocation, refs_of(tasks, family), timeout=timeout, until=cast("Until", until))


@click.command("download", cls=Command)
@_tasks
@_family
@_timeout
@click.option(
    "--out",
    type=Folder(),
    default=Path(),
    metavar="DIR",
    help="Folder for the files, created if missing. Default: the current one.",
)
@click.option(
    "--name",
    default=FILE_NAME,
    show_default=True,
    metavar="PATTERN",
    callback=_pattern,
    help="Pattern of file names; fields: {title}, {clip_id}, {index}, {name} (of a stem).",
)
@click.option("--tags", is_flag=True, help=f"Write tags into the files: {IN_FILES}.")
@click.pass_obj
async def download_command(
    invocation: Invocation,
    *,
    tasks: tuple[str, ...],
    family: str,
    timeout: float | None,
    out: Path,
    name: str,
    tags: bool,
) -> ExitCode:
    """Download the files of tasks. Waits for tasks that have not ended. Free, may be repeated.

    Complete files are not fetched again, and interrupted downloads are resumed.
    """
    if tags:
        check_tagging()
    saving = Saving(out, tags, name)
    return await _follow_all(invocation, refs_of(tasks, family), timeout=timeout, saving=saving)


@click.command("show", cls=Command)
@_tasks
@_family
@click.pass_obj
async def show_command(invocation: Invocation, tasks: tuple[str, ...], family: str) -> ExitCode:
    """Show the details of tasks, without waiting. Free.

    Prints the state, and the links, style, lyrics, prompt and model of each song.
    """
    refs = refs_of(tasks, family)
    async with invocation.client() as client:
        outcomes = await together([_poll(invocation, client, ref) for ref in refs])
    return invocation.end([error for error in outcomes if error is not None])


task_command: Final = copy(show_command)
"""The name of `show` in earlier versions, which help does not list."""
task_command.name, task_command.hidden = "task", True


def refs_of(given: Sequence[str], family: str) -> list[TaskRef]:
    """Return the tasks of tokens and bare ids, each once.

    Args:
        given: Tokens and ids.
        family: The family of bare ids.

    Raises:
        click.UsageError: for a text that is neither, and for a family whose tasks cannot be polled.
    """
    found: dict[tuple[str, str], TaskRef] = {}
    for text in given:
        ref = TaskRef.parse(text)
        if ref is None and not TASK_ID.fullmatch(text):
            raise click.UsageError(f"{text[:200]!r} is neither a whole token nor a task id. {ID_HINT}")
        ref = ref or TaskRef(family, text)
        if ref.family not in POLLED_FAMILIES:
            near = did_you_mean(ref.family, POLLED_FAMILIES)
            raise click.UsageError(f"{text[:200]!r} names no family of tasks{near}. {ID_HINT}")
        found.setdefault((ref.family, ref.task_id), ref)
    return list(found.values())


async def _poll(invocation: Invocation, client: MusicAPI, ref: TaskRef) -> MusicAPIError | None:
    """Report the state of a task; returns its error, or that of the poll."""
    task = client.task(ref.token)
    try:
        update = await task.refresh()
    except MusicAPIError as error:
        return error
    invocation.track(ref)
    if update.error is not None:
        invocation.failed(update.error)
    invocation.reporter.displayed(task, update)
    return update.error


async def _follow_all(
    invocation: Invocation,
    refs: Sequence[TaskRef],
    *,
    timeout: float | None,
    until: Until = "all",
    saving: Saving | None = None,
) -> ExitCode:
    """Follow tasks side by side; the arguments are those of `follow`."""
    async with invocation.client() as client:
        with invocation.reporter.following(client.clock.speed):
            work: list[Coroutine[None, None, MusicAPIError | None]] = []
            for ref in refs:
                task, report = client.task(ref.token), invocation.reporter.task(ref.task_id)
                invocation.accepted(task)
                report.resumed(task)
                work.append(
                    follow(invocation, client, task, report, timeout=timeout, until=until, saving=saving)
                )
            outcomes = await together(work)
    return invocation.end([error for error in outcomes if error is not None])


async def follow(
    invocation: Invocation,
    client: MusicAPI,
    task: Task[Result],
    report: TaskReport,
    *,
    timeout: float | None = None,
    until: Until = "all",
    saving: Saving | None = None,
) -> MusicAPIError | None:
    """Wait for a task, fetch its files if they are to be saved, and report both.

    Args:
        invocation: The run, which names the task if it ends before.
        client: The client of the task.
        task: A task that was accepted.
        report: The report on this task.
        timeout: Seconds to wait; by default the usual time of the family.
        until: "all", "first" or "stream", as in `Task.wait`.
        saving: How its files are saved; None to fetch none.

    Returns:
        The error that the task or the wait ended with, or None.
    """
    if saving is not None:
        invocation.to_fetch(task, saving)
    try:
        result = await result_of(task, report, timeout=timeout, until=until)
        if task.last is not None and task.last.is_terminal:
            invocation.ended(task)
        report.finished(task, result)
        if saving is not None:
            # Before the end only whole clips are fetched; after it, a clip without a file is an error.
            files = result if until == "all" else [clip for clip in result.clips if clip.final_url]
            paths = await client.download(files, saving.folder, name=saving.pattern, tags=saving.tags)
            invocation.fetched(task)
            report.saved(task, paths)
    except MusicAPIError as error:
        if isinstance(error, NotFoundError):
            invocation.forget(task)
        if isinstance(error, TaskFailedError):
            invocation.ended(task)
            invocation.fetched(task)
        invocation.failed(error)
        report.failed(task, error)
        return error
    return None


async def result_of(
    task: Task[Result], report: TaskReport, *, timeout: float | None = None, until: Until = "all"
) -> Result:
    """Report every change of a task until it has ended as `until` says; returns its result."""
    async with aclosing(task.updates(timeout=timeout)) as updates:
        async for update in updates:
            report.updated(task, update)
            if update.satisfies(until):
                return update.outcome()
    raise AssertionError("updates end with the end of the task or with an error")


async def together(work: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """Run coroutines side by side; returns their results.

    The first exception ends the others and is raised as itself, not in a group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one) for one in work]
    except BaseExceptionGroup as group:
        raise first_in(group) from None
    return [one.result() for one in running]
