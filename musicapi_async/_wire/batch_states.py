"""Read the states of the tasks of a batch: each entry is what a poll of its task would bring.

The form is not documented, so the list may be under any of several keys, and what cannot be read stays in the
raw body.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

from ..api.batches import BatchState, BatchStates, entries_in
from ..api.json_values import JSON, id_in, mapping_or_empty
from ..api.operation import Polled
from ..api.task import TaskRef
from .poll_response import judge_poll
from .redaction import Redactor
from .response import Response

StatesT = TypeVar("StatesT", bound=BatchStates)

STATUS_LISTS: Final = ("data", "tasks", "items")
"""Keys that may hold the list of a batch's tasks."""


def read_states(kind: type[StatesT], response: Response, polled: Polled, family: str) -> StatesT:
    """Read the states of the tasks of a batch.

    Args:
        kind: the class of the reply.
        response: the response.
        polled: how its tasks are polled.
        family: the word of their family.
    """
    reply = kind(
        batch_id=id_in(response.fields.get("batch_id")), tasks=list(_states(response, polled, family))
    )
    reply.raw = dict(response.fields)
    return reply


def _states(response: Response, polled: Polled, family: str) -> Iterator[BatchState]:
    for entry in entries_in(response.fields, *STATUS_LISTS):
        fields = mapping_or_empty(entry)
        task_id = id_in(fields.get("task_id")) or id_in(fields.get("id"))
        if task_id is not None:
            yield _state(fields, task_id, response.redactor, polled, family)


def _state(
    fields: dict[str, JSON], task_id: str, redactor: Redactor, polled: Polled, family: str
) -> BatchState:
    """Return the state in one entry. What says nothing of its task leaves it unfinished, as a poll does."""
    body = {name: value for name, value in fields.items() if name not in ("task_id", "id")}
    poll = Response(200, {}, body, True, redactor=redactor)
    update = judge_poll(poll, ref=TaskRef(family, task_id), polled=polled).update
    state = BatchState(task_id=task_id, state="pending")
    if update is not None:
        state = BatchState(
            task_id=task_id, state=update.state, clips=list(update.clips), failure=update.failure
        )
    state.raw = fields
    return state
