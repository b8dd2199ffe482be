"""The meaning of the end of a paid call for money: one closed table, and pure functions over it.

The API has no idempotency key. So a call is repeated, its job key is freed, and a text says "nothing was
charged", only if it is proven that the call was not carried out. `PROOFS` is the complete list. If a response
is not on it, or names a task or a step that succeeded, the outcome is unknown, whichever status it has.

`outcome_of` decides what one response proves; `verdict` decides it for the error that ended a call, and takes
into account if an earlier attempt may have been carried out. `_transport.paid_call` applies the verdict once
per call, and `jobs.transitions` changes the stored job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from ..api.batches import BATCH_CALL, entries_in
from ..api.json_values import JSON, id_in, list_or_empty, mapping_or_empty
from ..errors import APIConnectionError, APIStatusError, InvalidResponseError, RateLimitedError

if TYPE_CHECKING:
    from .response import Response


class Outcome(StrEnum):
    """The outcome of a paid call that ended without a result, as far as it is proven."""

    NOT_SENT = "not sent"
    """Nothing was sent: not charged, the job key is free, and the call may be sent again."""

    REFUSED = "refused"
    """The service refused it: not charged, and the job key is free."""

    RATE_LIMITED = "rate limited"
    """Refused for the rate: not charged, and the call may be sent again after a pause."""

    ACCEPTED = "accepted"
    """An error that names a task: the call was carried out, and must not be sent again."""

    UNKNOWN = "unknown"
    """Nothing is proven: it may have been charged, and the job key stays taken until it is settled."""

    @property
    def is_free(self) -> bool:
        """True if it is proven that nothing was charged."""
        return self in (Outcome.NOT_SENT, Outcome.REFUSED, Outcome.RATE_LIMITED)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: responses which prove that a paid call was not carried out.

    `http` are statuses; `code` values of `code` in the body of a 2xx; `rate_limited` restricts the row to
    responses whose text says so where the status does not; `call` restricts it to one endpoint.
    """

    outcome: Outcome
    http: frozenset[int]
    code: frozenset[int] = frozenset()
    rate_limited: bool = False
    call: str = ""


_REFUSALS: Final = frozenset({400, 401, 402, 403, 404, 405, 410, 411, 413, 414, 415, 422})
_LIMITS: Final = frozenset({403, 429})

PROOFS: Final = (
    # 429, and the 403 of Nuro with "QPS limit" or "Queue is full": refused before it was accepted.
    Proof(outcome=Outcome.RATE_LIMITED, http=_LIMITS, code=_LIMITS, rate_limited=True),
    # Refusals of the service (vendor's error page), and of a server in front that did not pass the call on.
    # 408, 409 and 499 are not among them: they are sent while the call is carried out, or after.
    Proof(outcome=Outcome.REFUSED, http=_REFUSALS, code=_REFUSALS),
    # The request is to be sent elsewhere (RFC 9110, 15.4), which is never done. 302 and 303 may follow a POST
    # that was carried out.
    Proof(outcome=Outcome.REFUSED, http=frozenset({301, 307, 308})),
    # "Generation timed out, not charged" (vendor's OpenAPI document).
    Proof(outcome=Outcome.REFUSED, http=frozenset({504}), call="POST /sonic/lyrics"),
)
"""Everything that proves that a paid call which was sent was not carried out. Nothing else does."""

PREPARING: Final = frozenset({"POST /sonic/midi", "POST /sonic/download"})
"""Calls that respond with HTTP 202 while their file is being prepared, and are then repeated at no cost."""

STUDIO_CREATE: Final = "POST /studio/create"
"""The call whose response may hold the id of its task as plain text in `data`."""


def outcome_of(response: Response, call: str, *, rate_limited: bool = False) -> Outcome:
    """Return the outcome of a paid call whose response holds no result.

    Args:
        response: the response.
        call: method and path, such as `POST /sonic/create`.
        rate_limited: True if the response is a refusal for the rate by its status or text.
    """
    if names_task(response.fields, call):
        return Outcome.ACCEPTED if task_id_of_error(response.fields, call) else Outcome.UNKNOWN
    if has_succeeded_step(response.fields):
        return Outcome.UNKNOWN
    # A 202 says that the call was taken, even if its body says otherwise.
    by_code = response.ok and (response.status != 202 or call in PREPARING)
    for proof in PROOFS:
        if proof.call not in ("", call) or (proof.rate_limited and not rate_limited):
            continue
        if response.status in proof.http or (by_code and response.code in proof.code):
            return proof.outcome
    return Outcome.UNKNOWN


def verdict(error: BaseException, *, sent: bool, in_doubt: bool) -> Outcome:
    """Return the outcome of a paid call that ended with `error`.

    Args:
        error: the end of the call, a cancellation included. Errors of responses carry what `outcome_of` found
            (`not_charged`, `task_id`).
        sent: True if bytes of the last attempt may have been sent.
        in_doubt: True if a previous attempt may have been carried out. Then the refusal of a later attempt
            proves nothing about the call.
    """
    outcome = _outcome_of_error(error, sent)
    return Outcome.UNKNOWN if in_doubt and outcome is not Outcome.ACCEPTED else outcome


def _outcome_of_error(error: BaseException, sent: bool) -> Outcome:
    match error:
        case APIStatusError() if error.task_id:
            return Outcome.ACCEPTED
        case RateLimitedError() if error.not_charged:
            return Outcome.RATE_LIMITED
        case APIStatusError() if error.not_charged:
            return Outcome.REFUSED
        case APIStatusError() | InvalidResponseError():
            return Outcome.UNKNOWN
        case APIConnectionError():
            return Outcome.NOT_SENT if error.sent is False else Outcome.UNKNOWN
        case _:
            return Outcome.UNKNOWN if sent else Outcome.NOT_SENT


def task_id_of_error(fields: Mapping[str, JSON], call: str) -> str | None:
    """Return the id of the task that the body of an error names, if it can be used."""
    return next(filter(None, map(id_in, _task_ids(fields, call))), None)


def names_task(fields: Mapping[str, JSON], call: str) -> bool:
    """Return True if the body of an error names a task, be it under an id that cannot be used."""
    return any(map(_is_name, _task_ids(fields, call))) or (call == BATCH_CALL and names_batch(fields))


def names_batch(fields: Mapping[str, JSON]) -> bool:
    """Return True if the body of an error names a batch, or a task in `tasks`: a part was carried out."""
    data = mapping_or_empty(fields.get("data"))
    ids = [fields.get("batch_id"), data.get("batch_id")]
    for entry in entries_in(fields, "tasks"):
        if isinstance(entry, dict):
            ids += [entry.get("id"), *_task_ids(entry, BATCH_CALL)]
        elif not (isinstance(entry, str) and len(entry.split()) > 1):  # several words are an error
            ids.append(entry)
    return any(map(_is_name, ids))


def _is_name(value: JSON) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and bool(str(value).strip())


def _task_ids(fields: Mapping[str, JSON], call: str) -> Iterator[JSON]:
    data = fields.get("data")
    yield fields.get("task_id")
    yield mapping_or_empty(data).get("task_id")
    if call == STUDIO_CREATE and isinstance(data, str) and not any(map(str.isspace, data)):
        yield data


def has_succeeded_step(fields: Mapping[str, JSON]) -> bool:
    """Return True if a step of upload-extend, upload-cover or sample worked: it may be charged by itself."""
    steps = fields.get("steps")
    entries = steps.values() if isinstance(steps, dict) else list_or_empty(steps)
    return any(
        step.get("success") is True or bool(step.get("clip_id")) for step in map(mapping_or_empty, entries)
    )


def carried_out(response: Response, call: str) -> bool:
    """Return True if a response shows that a paid call was carried out in part: it is never sent again."""
    return names_task(response.fields, call) or has_succeeded_step(response.fields)
