"""Read the reply to a call: the task id of a create, the result of a direct call, an untyped body.

A reply is read leniently and judged strictly: missing fields are left empty, but a success needs the key that
the call is for, such as the task id.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

from ..api.batches import BatchStates
from ..api.direct_replies import Reply
from ..api.json_values import JSON, mapping_or_empty
from ..api.operation import Direct
from ..errors import InvalidResponseError, MusicAPIError
from .batch_states import read_states
from .charge_verdict import PREPARING
from .codec import one_line
from .response import Response, error_of, error_text, failed_step, is_paid, task_id_in, text_in
from .result_reading import read_reply

ReplyT = TypeVar("ReplyT", bound=Reply)

WORDS_ABOUT: Final = frozenset(("error", "message", "detail", "type", "code", "success", "status"))
"""Keys that describe a response and hold no result."""


class Pending(msgspec.Struct, Generic[ReplyT], frozen=True):
    """A direct call whose result is being prepared: call again, not before `retry_after` seconds if set.

    `reply` is the response as far as it can be read, for callers who do not wait; None if it cannot.
    """

    retry_after: float | None = None
    reply: ReplyT | None = None


def read_submit(
    response: Response, *, call: str, family: str | None = None, replacement: str | None = None
) -> str:
    """Return the id of the task that a create gave.

    Args:
        response: the response to the create.
        call: method and path, such as `POST /sonic/create`.
        family: the family of the operation, if it is known.
        replacement: what to use instead if the endpoint is retired.

    Raises:
        APIStatusError: the error that the response holds. An id that comes with it is its `task_id`.
        InvalidResponseError: a 2xx without a task id; `may_have_been_charged` is True.
    """
    if not response.ok or (response.code or 0) >= 400 or failed_step(response.fields):
        raise error_of(response, call=call, family=family, replacement=replacement)
    task_id = task_id_in(response.fields)
    if task_id is None:
        raise without_result(response, "a task id", call=call, family=family, charges=True)
    return task_id


def read_direct(
    response: Response, operation: Direct[..., ReplyT], call: str | None = None
) -> ReplyT | Pending[ReplyT]:
    """Return the reply of a direct call, or `Pending` where the operation says that such calls are repeated.

    Args:
        response: the response to the call.
        operation: its declaration.
        call: method and path, if they differ from those of the declaration, as at a sister host.

    Raises:
        APIStatusError: the error that the response holds.
        InvalidResponseError: a 2xx without the result.
    """
    call = call or operation.call_name
    family = operation.family.word or None
    if not response.ok or (response.code or 0) >= 400:
        raise error_of(response, call=call, family=family, replacement=operation.replacement)
    reply = _read(operation, response) if response.is_object else None
    repeat = operation.repeat
    if repeat is not None and (response.status == 202 or (repeat.on == "empty" and response.not_ready)):
        return Pending(response.retry_after, reply)
    if reply is None or (reply.is_empty and _says_no(response)):
        needed = " or ".join(operation.reply.needs) or "a result"
        raise without_result(response, needed, call=call, family=family, charges=operation.charges)
    if repeat is not None and repeat.on == "empty" and reply.is_empty:
        return Pending(response.retry_after, reply)
    return reply


def _read(operation: Direct[..., ReplyT], response: Response) -> ReplyT | None:
    """Read a JSON object as the reply of an operation; None when it lacks what the caller came for."""
    kind, polled = operation.reply, operation.family.polled
    if issubclass(kind, BatchStates) and polled is not None:
        return read_states(kind, response, polled, operation.family.word)
    return read_reply(kind, response.fields)


def read_raw(response: Response, *, call: str, replacement: str | None = None) -> JSON:
    """Return the decoded body of the response to an untyped call.

    A 2xx that only says that something went wrong, or that something is yet to come, is no result of a call
    that may charge, unless the call is one that is repeated while its file is being prepared.

    Args:
        response: the response to the call.
        call: method and path, such as `POST /sonic/batch`.
        replacement: what to use instead if the endpoint is retired.

    Raises:
        APIStatusError: the error that the response holds.
        InvalidResponseError: a body that is not JSON, or no result of a call that may charge.
    """
    if not response.ok or (response.code or 0) >= 400:
        raise error_of(response, call=call, replacement=replacement)
    if not response.json:
        raise without_result(response, "JSON", call=call, family=None, charges=is_paid(call))
    if is_paid(call) and not (response.status == 202 and call in PREPARING):
        given = {name for name, value in response.fields.items() if value not in (None, "", [], {})}
        is_later = call in PREPARING and response.not_ready  # and not by the status that may be repeated
        without = (given <= WORDS_ABOUT or is_later) and response.is_object and _says_no(response)
        if failed_step(response.fields) or without:
            raise without_result(response, "a result", call=call, family=None, charges=True)
    return response.body


def _says_no(response: Response) -> bool:
    """Return True if a 2xx that holds no result says that there is none, or none yet."""
    refused = response.fields.get("success") is False
    return refused or response.not_ready or bool(text_in(response.fields.get("error")))


def without_result(
    response: Response, needed: str, *, call: str, family: str | None, charges: bool
) -> MusicAPIError:
    """Return the error for a 2xx that lacks what is needed, with the service's own words if it has some."""
    if text_in(response.fields.get("error")) or failed_step(response.fields):
        return error_of(response, call=call, family=family)
    redacted = response.redacted
    if not response.json:
        text = f"the response is not JSON: {response.text}" if response.body else "the response is empty"
    else:
        text = f"the response holds no {needed.removeprefix('a ')}"
    words = error_text(mapping_or_empty(redacted))
    if words and words != "success":
        text = f"{text} (it says: {one_line(words)})"
    return InvalidResponseError(
        text,
        status=response.status,
        body=redacted,
        call=call,
        family=family,
        may_have_been_charged=charges,
    )
