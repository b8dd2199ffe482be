"""Read the reply to a batch: the tasks that it made.

The keys inside `tasks` of a reply are not documented. So an entry is read as a submit reply is: its id is
`task_id`, else `id`, else the entry itself if it is text. The text of an entry without an id is the error of
its item. Nothing is guessed: the outcome of an item whose entry has neither is unknown, and if there are more
or fewer entries than items, or one task comes twice, no entry is assigned to an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ..api.batches import BATCH_CALL, entries_in
from ..api.json_values import JSON, id_in, mapping_or_empty
from ..errors import APIStatusError
from .call_reply import without_result
from .charge_verdict import names_batch, task_id_of_error
from .response import Response, error_of, number, text_in

WORDS: Final = ("error", "message", "detail")
"""Keys that hold the words of a refused item, best first."""
SUCCESS_WORDS: Final = frozenset({"success", "ok"})
"""Words of `message` in replies that report no error (vendor's pages)."""
REFUSED_ITEM: Final = "This item alone was refused; compare client.credits() before you send it again."


class SubmittedItem(msgspec.Struct, frozen=True):
    """One entry of the reply: the id of its task, or the error of its item, or neither."""

    task_id: str | None = None
    error: APIStatusError | None = None
    raw: JSON = None


class SubmittedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to a batch that made tasks, or may have made them.

    `is_assigned` is True if entry n belongs to item n. `error` is set if the reply is an error that names
    tasks all the same.
    """

    batch_id: str | None
    submitted: int | None
    items: tuple[SubmittedItem, ...]
    is_assigned: bool
    error: APIStatusError | None = None


def read_batch(response: Response, *, items: int, family: str | None = None) -> SubmittedBatch:
    """Return the tasks that a batch made.

    Args:
        response: the response to the create.
        items: the number of items of the request.
        family: the family of the operation, if it is known.

    Raises:
        APIStatusError: the error that the response holds, if it names no task.
        InvalidResponseError: a 2xx with neither entries nor a batch id; `may_have_been_charged` is True.
    """
    entries = entries_in(response.fields, "tasks")
    read = tuple(_read_entry(entry, response) for entry in entries)
    ids = [item.task_id for item in read if item.task_id is not None]
    alone = task_id_of_error(response.fields, BATCH_CALL)
    if alone is not None and alone not in ids:  # beside the list: it is paid for, too
        read, ids = (*read, SubmittedItem(alone)), [*ids, alone]
    is_error = not response.ok or (response.code or 0) >= 400
    batch_id = batch_id_in(response.fields)
    says_no = bool(text_in(response.fields.get("error"))) or response.fields.get("success") is False
    if not ids and (is_error or (says_no and not any(item.error for item in read))):
        error = error_of(response, call=BATCH_CALL, family=family)
        if batch_id is not None:  # all that is known of what may be paid for
            error.message = f"{error.message}; it names batch {batch_id}"
        raise error
    if not read and batch_id is None:
        raise without_result(response, "tasks", call=BATCH_CALL, family=family, charges=True)
    return SubmittedBatch(
        batch_id=batch_id,
        submitted=number(response.fields.get("submitted")),
        items=read,
        is_assigned=len(read) == items and len(ids) == len(set(ids)),
        error=error_of(response, call=BATCH_CALL, family=family) if is_error else None,
    )


def batch_id_in(fields: Mapping[str, JSON]) -> str | None:
    """Return the id of a batch: `batch_id`, else the one under `data`."""
    candidates = (fields.get("batch_id"), mapping_or_empty(fields.get("data")).get("batch_id"))
    return next(filter(None, map(id_in, candidates)), None)


def _read_entry(entry: JSON, response: Response) -> SubmittedItem:
    raw = response.redactor.copy(entry)
    if not isinstance(entry, dict):
        text = id_in(entry)
        if text is not None and len(text.split()) == 1:
            return SubmittedItem(text, raw=raw)
        words = text_in(entry)  # with white space: the words of an error, and no id
        return SubmittedItem(None, _refusal({"error": entry}, response) if words else None, raw)
    task_id = task_id_of_error(entry, BATCH_CALL) or id_in(entry.get("id"))
    if task_id is not None:
        return SubmittedItem(task_id, raw=raw)
    if names_batch({"tasks": [entry]}):
        return SubmittedItem(None, None, raw)  # of an id that cannot be used
    return SubmittedItem(None, _refusal(entry, response) if _is_refused(entry) else None, raw)


def _is_refused(entry: Mapping[str, JSON]) -> bool:
    """Return True if an entry without an id has words that are not those of a success."""
    code = number(entry.get("code")) or 0
    if text_in(entry.get("error")) or code >= 400 or entry.get("success") is False:
        return True
    succeeded = entry.get("success") is True or 200 <= code < 300
    words = next(filter(None, (text_in(entry.get(key)) for key in WORDS)), "")
    return bool(words) and not succeeded and words.strip().lower() not in SUCCESS_WORDS


def _refusal(entry: dict[str, JSON], response: Response) -> APIStatusError:
    """Return the error of an item; what it says of money follows from its `code`, as in a whole reply."""
    alone = Response(200, response.headers, entry, True, redactor=response.redactor)
    error = error_of(alone, call=BATCH_CALL)
    error.hint = error.hint or REFUSED_ITEM
    return error
