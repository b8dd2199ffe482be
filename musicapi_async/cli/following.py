"""Follow tasks to their end, tell of every change, fetch their files."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..api.handle import Task
from ..api.results import Result, Until
from ..errors import MusicAPIError, NotFoundError, TaskFailedError
from .invocation import Invocation
from .reporting import Row

if TYPE_CHECKING:
    from ..client import MusicAPI

T = TypeVar("T")


async def follow(
    invocation: Invocation,
    client: MusicAPI,
    task: Task[Any],
    row: Row,
    *,
    timeout: float | None = None,
    until: Until = "all",
    folder: Path | None = None,
    pattern: str = "{title} {clip_id}",
) -> MusicAPIError | None:
    """Wait for a task and fetch its files if a folder is given; returns the error that it ended with."""
    if folder is not None:
        invocation.fetching(task, folder)
    try:
        result = await end_of(task, row, timeout=timeout, until=until)
        if task.last is not None and task.last.is_terminal:
            invocation.ended(task)
        row.ended(task, result)
        if folder is not None:
            # Before the end only whole clips are fetched; after it, a clip without a file is an error.
            files = result if until == "all" else [clip for clip in result.clips if clip.final_url]
            paths = await client.download(files, folder, name=pattern)
            invocation.fetched(task)
            row.saved(task, paths)
    except MusicAPIError as error:
        if isinstance(error, NotFoundError):
            invocation.unknown(task)
        if isinstance(error, TaskFailedError):
            invocation.ended(task)
            invocation.fetched(task)
        invocation.failed(error)
        row.failed(task, error)
        return error
    return None


async def end_of(task: Task[Any], row: Row, *, timeout: float | None = None, until: Until = "all") -> Result:
    """Tell every change to `row` until the task has ended as `until` says; returns what it gave."""
    async with aclosing(task.updates(timeout=timeout)) as updates:
        async for update in updates:
            row.saw(task, update)
            if update.satisfies(until):
                return update.outcome()
    raise AssertionError("updates end with the end of the task or with an error")


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once; the first exception ends the others and comes out as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one) for one in work]
    except BaseExceptionGroup as group:
        raise _first(group) from None
    return [one.result() for one in running]


def _first(error: BaseException) -> BaseException:
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error
