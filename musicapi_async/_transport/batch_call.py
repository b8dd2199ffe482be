"""The call of a batch: the tasks that its response names, and the record of each item. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from .._wire.batch_reply import SubmittedBatch, SubmittedItem, read_batch
from .._wire.codec import encode
from .._wire.prepare import PreparedRequest
from .._wire.response import read_response
from ..api.batches import CreateBatch
from ..api.request import Request
from ..api.response_info import Received, ResponseInfo
from ..api.task import TaskRef
from ..clock import Clock
from ..errors import APIStatusError, MusicAPIError, OutcomeUnknownError, RequestValidationError
from ..options import Options
from .call_entry import ItemNote, Previous
from .permits import BatchPermit, Permit
from .rate_limiter import RateLimiter


class AcceptedItem(msgspec.Struct, frozen=True):
    """One entry of an accepted batch. `index` is None if it is not known to which item it belongs."""

    index: int | None
    task: TaskRef | None
    error: APIStatusError | None
    raw: Any


class AcceptedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that was taken: its tasks, the body of the response, and the job key if it was recorded.

    `announced` are the tasks of which this call ordered a webhook; `response` is None if a previous call made
    the tasks.
    """

    batch_id: str | None
    submitted: int | None
    items: tuple[AcceptedItem, ...]
    is_assigned: bool
    reply: Any
    job_key: str | None
    announced: tuple[TaskRef, ...] = ()
    response: Received | ResponseInfo | None = None

    @property
    def tasks(self) -> tuple[TaskRef, ...]:
        """Its tasks, each once."""
        found = {item.task.key: item.task for item in self.items if item.task is not None}
        return tuple(found.values())

    def notes(self, items: int) -> tuple[list[ItemNote], tuple[TaskRef, ...]]:
        """Return the note on each item, and the tasks that belong to no item for certain."""
        if not self.is_assigned:
            return [ItemNote()] * items, self.tasks
        return [
            ItemNote(item.task, "" if item.error is None else item.error.message) for item in self.items
        ], ()


def accepted_batch(
    read: SubmittedBatch, prepared: PreparedRequest, now: float, reply: Any, key: str | None
) -> AcceptedBatch:
    """Return the batch that a response names.

    Args:
        read: the response as it was read.
        prepared: the request.
        now: the Unix time of the submit.
        reply: the body of the response.
        key: the job key.
    """
    return AcceptedBatch(
        batch_id=read.batch_id,
        submitted=read.submitted,
        items=tuple(
            _item(item, index if read.is_assigned else None, prepared, now)
            for index, item in enumerate(read.items)
        ),
        is_assigned=read.is_assigned,
        reply=reply,
        job_key=key,
    )


def _item(item: SubmittedItem, index: int | None, prepared: PreparedRequest, now: float) -> AcceptedItem:
    task = None if item.task_id is None else prepared.task(item.task_id, now, index)
    return AcceptedItem(index, task, item.error, item.raw)


def previous_batch(previous: Previous, prepared: PreparedRequest, key: str | None) -> AcceptedBatch:
    """Return the batch of a previous call with the same job key.

    Its reply says what was refused; the job knows the tasks, also those that came to be known later.
    """
    count = len(prepared.models)
    batch = AcceptedBatch(
        batch_id=None,
        submitted=None,
        items=tuple(AcceptedItem(index, None, None, None) for index in range(count)),
        is_assigned=True,
        reply=previous.reply,
        job_key=key,
    )
    if previous.reply is not None:
        stored = read_response(200, {}, encode(previous.reply, prepared.call))
        try:
            read = read_batch(stored, items=count, family=prepared.family)
        except MusicAPIError:
            pass  # it was an error that names no task: the job has learned of them since
        else:
            batch = accepted_batch(read, prepared, 0.0, previous.reply, key)
    known = (*previous.items, *[None] * count)[:count]
    if not batch.is_assigned:
        if not (known and all(known)):
            return batch
        batch = msgspec.structs.replace(batch, is_assigned=True, items=())
    entries = batch.items or tuple(AcceptedItem(index, None, None, None) for index in range(count))
    items = tuple(
        item if ref is None else AcceptedItem(item.index, ref, None, item.raw)
        for item, ref in zip(entries, known, strict=True)
    )
    return msgspec.structs.replace(batch, items=items)


def with_webhooks(
    batch: AcceptedBatch, request: Request, ordered: Request, options: Options
) -> AcceptedBatch:
    """Return the batch with the tasks of which a webhook was ordered for this call.

    Args:
        batch: the accepted batch.
        request: the request as it was given.
        ordered: the request with webhooks; an item that has one of its own, or wants none, is as it was.
        options: those of the call; items in `extra_body` are sent in the place of those of the request.
    """
    replaced = options.extra_body is not None and "items" in options.extra_body
    if ordered is request or replaced or batch.response is None:
        return batch
    if not (isinstance(request, CreateBatch) and isinstance(ordered, CreateBatch)):
        return batch
    wanted = [old != new for old, new in zip(request.items, ordered.items, strict=True)]
    tasks = (item.task for item in batch.items if item.index is not None and wanted[item.index])
    return msgspec.structs.replace(batch, announced=tuple(filter(None, tasks)))


def tasks_in_error(
    prepared: PreparedRequest, tasks: Sequence[TaskRef], error: APIStatusError, job_key: str | None
) -> OutcomeUnknownError:
    """Return the error of a batch whose response was an error that names tasks."""
    ids = ", ".join(task.task_id for task in tasks)
    return OutcomeUnknownError(
        f"the answer is an error that names the tasks {ids}: a part of it was accepted ({error.message})",
        hint="Do not send it again: wait for the tasks of these ids. The same job key returns them, too.",
        call=prepared.call,
        task_id=tasks[0].task_id,
        task_ids=[task.task_id for task in tasks],
        family=prepared.family,
        job_key=job_key,
    )


@runtime_checkable
class _Capped(Protocol):
    """A permit that says how many there are."""

    @property
    def cap(self) -> int:
        """The number of tasks that may be in flight."""
        ...


def batch_permit(limiter: RateLimiter, count: int, call: str, clock: Clock) -> BatchPermit | None:
    """Return the permit for so many tasks in flight; None without a cap.

    Raises `RequestValidationError` if there are never so many.
    """
    permits: list[Permit] = [one for _ in range(count) if (one := limiter.permit()) is not None]
    if not permits:
        return None
    first = permits[0]
    if isinstance(first, _Capped) and first.cap < count:
        limit = f"at most max_in_flight={first.cap} items"
        raise RequestValidationError(
            f"items: {limit}, got {count}", field="items", limit=limit, value=f"{count} items", call=call
        )
    return BatchPermit(permits, clock)
