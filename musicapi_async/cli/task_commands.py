"""The commands about tasks and the account, and the one for calls that are not typed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from ..api.families import FAMILIES, polled_as
from ..api.handle import TaskRef
from ..api.results import Until
from ..api.spelling import did_you_mean
from ..api.values import mapping_or_empty
from ..errors import MusicAPIError
from .commanding import Command, Word, run, seconds
from .error_texts import WHERE_FROM
from .following import follow, together
from .invocation import Invocation
from .output import put
from .parameters import Folder, Json

if TYPE_CHECKING:
    from ..client import MusicAPI

TASK_ID: Final = re.compile(r"[\w.~-]{1,200}", re.ASCII)
"""Ids are opaque, UUIDs so far (contract, tasks 1); the rest are damaged tokens and links."""
POLLED_FAMILIES: Final = tuple(word for word in FAMILIES if polled_as(word) is not None)

_tasks = click.argument("tasks", nargs=-1, required=True, metavar="TOKEN_OR_ID...")
_family = click.option(
    "--family",
    type=Word(POLLED_FAMILIES),
    default="sonic",
    show_default=True,
    help="Family of tasks that are given by their bare id.",
)
_timeout = click.option(
    "--timeout", type=float, callback=seconds, metavar="SECONDS", help="Stop waiting then; the tasks go on."
)


def refs_of(given: Sequence[str], family: str) -> list[TaskRef]:
    """What tokens and bare ids stand for, each once; a usage error for what is neither."""
    found: dict[tuple[str, str], TaskRef] = {}
    for text in given:
        ref = TaskRef.parse(text)
        if ref is None and not TASK_ID.fullmatch(text):
            raise click.UsageError(f"{text[:200]!r} is neither a whole token nor a task id. {WHERE_FROM}")
        ref = ref or TaskRef(family, text)
        if ref.family not in POLLED_FAMILIES:
            near = did_you_mean(ref.family, POLLED_FAMILIES)
            raise click.UsageError(f"{text[:200]!r} names no family of tasks{near}. {WHERE_FROM}")
        found.setdefault((ref.family, ref.task_id), ref)
    return list(found.values())


@click.command("credits", cls=Command)
def credits_command() -> None:
    """Show the balance of the account. Free."""

    async def work(invocation: Invocation) -> None:
        async with invocation.client() as client:
            balance = await client.credits()
        fields = {"credits": balance.credits, "extra_credits": balance.extra_credits, "total": balance.total}
        extra = f" ({balance.extra_credits:g} of them extra)" if balance.extra_credits else ""
        invocation.reporter.event("credits", fields, [f"{balance.total:g} credits{extra}"])

    run(work)


async def _follow_all(
    invocation: Invocation,
    refs: Sequence[TaskRef],
    *,
    timeout: float | None,
    until: Until = "all",
    folder: Path | None = None,
    pattern: str = "{title} {clip_id}",
) -> int:
    reporter = invocation.reporter

    async def one(client: MusicAPI, ref: TaskRef) -> MusicAPIError | None:
        task, row = client.task(ref.token), reporter.row(ref.task_id)
        invocation.accepted(task)
        row.resumed(task)
        return await follow(
            invocation, client, task, row, timeout=timeout, until=until, folder=folder, pattern=pattern
        )

    async with invocation.client() as client:
        with reporter.following(client.clock.speed):
            outcomes = await together([one(client, ref) for ref in refs])
    return invocation.end([error for error in outcomes if error is not None])


@click.command("wait", cls=Command)
@_tasks
@_family
@_timeout
@click.option(
    "--until",
    type=Word(["all", "first", "stream"]),
    default="all",
    show_default=True,
    help="All clips ended, the first finished clip, or the first audio of any kind.",
)
def wait_command(tasks: tuple[str, ...], family: str, timeout: float | None, until: str) -> None:
    """Wait for tasks that were submitted before. Free; may be repeated at any time."""
    refs = refs_of(tasks, family)
    run(lambda invocation: _follow_all(invocation, refs, timeout=timeout, until=cast("Until", until)))


@click.command("download", cls=Command)
@_tasks
@_family
@_timeout
@click.option(
    "--out",
    type=Folder(),
    default=Path(),
    metavar="DIR",
    help="Folder for the files, made if missing. Default: this one.",
)
@click.option(
    "--name",
    default="{title} {clip_id}",
    show_default=True,
    metavar="PATTERN",
    help="File names; fields: {title}, {clip_id}, {index}, {name} (of a stem).",
)
def download_command(
    tasks: tuple[str, ...], family: str, timeout: float | None, out: Path, name: str
) -> None:
    """Fetch the files of tasks. Free. Waits for tasks that have not ended. Whole files are not fetched
    again, and an interrupted download goes on where it stopped."""
    refs = refs_of(tasks, family)
    run(lambda invocation: _follow_all(invocation, refs, timeout=timeout, folder=out, pattern=name))


@click.command("task", cls=Command)
@_tasks
@_family
def task_command(tasks: tuple[str, ...], family: str) -> None:
    """Look at tasks once, as they are now. Free."""
    refs = refs_of(tasks, family)

    async def look(invocation: Invocation, client: MusicAPI, ref: TaskRef) -> MusicAPIError | None:
        task = client.task(ref.token)
        try:
            update = await task.refresh()
        except MusicAPIError as error:
            return error
        invocation.named(ref)
        if update.error is not None:
            invocation.failed(update.error)
        invocation.reporter.look(task, update)
        return update.error

    async def work(invocation: Invocation) -> int:
        async with invocation.client() as client:
            outcomes = await together([look(invocation, client, ref) for ref in refs])
        return invocation.end([error for error in outcomes if error is not None])

    run(work)


def _pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in value:
        name, sign, given = text.partition("=")
        if not sign:
            raise click.BadParameter("needs the form NAME=VALUE", ctx, param)
        pairs[name] = given
    return pairs


@click.command("request", cls=Command, form=False)
@click.argument("method")
@click.argument("path")
@click.option("--json", "body", type=Json(), metavar="JSON", help="The body: JSON, @file, or @-.")
@click.option(
    "--param",
    "params",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="Of the query; repeatable.",
)
def request_command(method: str, path: str, body: Any, params: dict[str, str]) -> None:
    """Call any path and print the JSON that it answers.

    The path is below the base URL, such as /get-credits. The only way to /sonic/batch, whose body, reply and
    results nobody has documented.

    A GET is free and repeated after passing failures; anything else is taken to charge credits and is sent
    at most once.
    """

    async def work(invocation: Invocation) -> None:
        async with invocation.client() as client:
            with invocation.reporter.busy(f"{method.upper()} {path}"):
                answer = await client.request(method, path, json=body, params=params or None)
            invocation.charges = method.upper() != "GET"
            family, task_id = path.strip("/").partition("/")[0], mapping_or_empty(answer).get("task_id")
            if invocation.charges and family in POLLED_FAMILIES and isinstance(task_id, str):
                invocation.named(TaskRef(family, task_id))
            invocation.reporter.body(answer)

    run(work)


@click.command("completion", cls=Command)
@click.argument("shell", type=Word(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the script that completes commands and options.

    bash: add `eval "$(musicapi completion bash)"` to ~/.bashrc; zsh: the same with zsh in ~/.zshrc; fish:
    `musicapi completion fish > ~/.config/fish/completions/musicapi.fish`.
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click knows no completion for {shell}.")
    put(kind(root, {}, "musicapi", "_MUSICAPI_COMPLETE").source())
