"""The steps of a chain: what is paid for already is not paid for again, and what may be is not either."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio

from ..api.operation import Operation
from ..api.request import refuse, violations
from ..api.results import Result
from ..errors import (
    JobStoreError,
    MusicAPIError,
    OutcomeUnknownError,
    TaskFailedError,
)
from .reached import TAKES, Reached

if TYPE_CHECKING:
    from ..api.handle import Task
    from ..client import MusicAPI


R = TypeVar("R", bound=Result)
T = TypeVar("T")


@contextmanager
def keeping(reached: Reached | None) -> Generator[Reached]:
    """What is reached inside stands on every error that leaves."""
    now = Reached() if reached is None else reached
    try:
        yield now
    except MusicAPIError as error:
        error.reached = now
        raise


async def nothing() -> None:
    """Where what was reached is kept by the caller."""


async def submitted(
    client: MusicAPI,
    reached: Reached,
    step: str,
    create: Callable[[MusicAPI], Awaitable[Task[R]]],
    keep: Callable[[], Awaitable[None]] = nothing,
) -> Task[R]:
    """The task of a step: the one that is paid for already, else a new one."""
    token = reached.tasks.get(step)
    if token is not None:
        return cast("Task[R]", client.task(token))
    task = await paid(client, reached, step, create, keep)
    reached.tasks[step] = task.token
    return task


async def paid(
    client: MusicAPI,
    reached: Reached,
    step: str,
    create: Callable[[MusicAPI], Awaitable[T]],
    keep: Callable[[], Awaitable[None]] = nothing,
) -> T:
    """Make a paid call unless it may have been made, with a client that has the job key of the step.

    The step counts as of unknown outcome from before it is sent until its answer is there, and `keep` writes
    that down: whoever is killed in between does not pay again.
    """
    key = _key_of(client, reached, step)
    takes = TAKES.get(step, ("task",))[0]
    if step in reached.unknown and not await _is_guarded(client, reached.unknown[step]):
        raise OutcomeUnknownError(
            f"the step {step!r} was begun before and may have been sent: its outcome is unknown",
            job_key=reached.unknown[step] or None,
            hint=f"Look for its result in the dashboard, then call reached.resolve({step!r}, {takes}=...), "
            f"or reached.resubmit({step!r}) to pay for it again. (`reached` is on this error.)",
        )
    before = reached.unknown.get(step)
    reached.unknown[step] = key
    try:
        await keep()
    except BaseException:  # nothing was sent
        _restore(reached, step, before)
        raise
    try:
        made = await create(client.with_options(job_key=key) if key else client)
    except MusicAPIError as error:
        if error.may_have_been_charged:
            reached.unknown[step] = getattr(error, "job_key", None) or key
        elif not await _stays_open(client, key, before):
            reached.unknown.pop(step, None)
        raise
    except TypeError:  # a misspelt field: it was not sent this time
        _restore(reached, step, before)
        raise
    except anyio.get_cancelled_exc_class():
        if await _never_left(client, key):
            _restore(reached, step, before)
        raise
    reached.unknown.pop(step, None)
    return made


def _restore(reached: Reached, step: str, before: str | None) -> None:
    """Have it noted of a step what was noted before this call of it."""
    if before is None:
        reached.unknown.pop(step, None)
    else:
        reached.unknown[step] = before


async def _stays_open(client: MusicAPI, key: str, before: str | None) -> bool:
    """Whether a step may have been carried out although its call has just ended without a charge.

    An earlier call of it may have been: of one that was noted before, only that its job is gone proves that
    it was not. A store that cannot be read proves nothing.
    """
    if not key:
        return False  # without a job, a step that was noted before is not called
    try:
        job = await client.job(key)
    except JobStoreError:
        return before is not None
    return job is not None and (before is not None or job.state in {"sent", "ambiguous"})


async def _never_left(client: MusicAPI, key: str) -> bool:
    """Whether the job of a call that was cancelled just now proves that nothing had left."""
    if not key:
        return False
    with anyio.CancelScope(shield=True), suppress(JobStoreError):
        job = await client.job(key)
        return job is None or job.state == "reserved"
    return False


def _key_of(client: MusicAPI, reached: Reached, step: str) -> str:
    """The job key of a step: from that of the chain, else that of its last send, else a new one.

    '' if there is no store where it would be written down.
    """
    if client.options.job_key is not None:
        return f"{client.options.job_key}.{step}"
    if reached.unknown.get(step):
        return reached.unknown[step]
    return f"chain-{uuid.uuid4().hex}.{step}" if client.records_calls else ""


async def _is_guarded(client: MusicAPI, key: str) -> bool:
    """Whether a call was written down under this key, in this store: then its job says whether it is sent."""
    wanted = client.options.job_key
    mine = not wanted or key.startswith(f"{wanted}.")
    return bool(key) and mine and await client.job(key) is not None


async def finished(task: Task[R], reached: Reached, step: str, timeout: float | None = None) -> R:
    """The result of a step. A task that failed is forgotten, so that going on makes a new one."""
    try:
        return await task.wait(timeout=timeout)
    except TaskFailedError:
        reached.tasks.pop(step, None)
        raise


def check(client: MusicAPI, operation: Operation[Any, Any], fields: dict[str, Any]) -> None:
    """Refuse what the last call of a chain would refuse before the first is paid for."""
    try:
        request = operation.request(**fields)
    except TypeError as error:
        raise operation.misused((), fields, error) from None
    found = violations(request)
    if found and client.options.validate == "error":
        raise refuse(found, operation.call_name)
