"""Read and judge one poll response: pending, running, done, failed, or nothing about the task.

Only one response is judged here; `poll_rules` has the rules about several. The rules follow from the
service's documentation and from recorded responses; the first rule that matches decides. This module has the
rules about statuses and words of all families; `poll_shapes` has those about the body of each family.

Two mistakes would be expensive. If a task were wrongly judged as done, its song would not exist; so it is
done only if its clips or keys say so. If it were wrongly judged as failed, a paid song would be lost; so an
unknown shape or word means that the task is unfinished, because another poll is free.
"""

from __future__ import annotations

from typing import Final, Literal

from ..api.json_values import JSON, list_or_empty, text_or_none
from ..api.operation import Polled
from ..api.task import TaskRef
from ..errors import APIConnectionError, InvalidResponseError, MusicAPIError, RateLimitedError
from .poll_result import REFUND_FLAGS, PollReport, PollResult
from .poll_shapes import SHAPES, clips_in, failures_of
from .redaction import NOTHING_KNOWN, Redactor
from .response import TOO_FAST, Response, error_of, error_text, text_in

TASK_WORDS: Final = frozenset({"failed", "timeout", "api_error", "bad_request", "forbidden"})
"""Values of `type` that are about the task, not about the poll, if the body also has a refund flag."""
FAILED_IN_2XX: Final = frozenset({"timeout", "api_error", "forbidden", "bad_request"})
"""Values of `type` that mean a failed task in a 2xx; as an HTTP error they may mean the poll."""
LIMITS_NOT_FAILURES: Final = (*TOO_FAST, "usage limit")
"""Texts of Nuro's limits, which come with the refund flag of a failure."""
FAILED_EVENT: Final = "song.failed"
"""The event that ends a task as failed, with any body: receivers in use rely on its name. The
name in the body counts, which is signed; the header is not."""


def judge_poll(response: Response, *, ref: TaskRef, polled: Polled) -> PollResult:
    """Judge the response to a poll. Never raises."""
    return _judge(response, PollReport(response, ref), polled)


def judge_webhook(
    body: JSON, *, ref: TaskRef, polled: Polled | None, redactor: Redactor = NOTHING_KNOWN
) -> PollResult:
    """Judge the body of a webhook like a poll response with HTTP 200; `song.failed` ends the task.

    Args:
        body: the decoded body.
        ref: the task that the body names.
        polled: how tasks of its family are polled; None for an unknown family, of which only a failure is
            recognized.
        redactor: hides secrets in the texts of errors.

    Returns:
        The judgement. Never raises.
    """
    response = Response(200, {}, body, json=True, redactor=redactor)
    report = PollReport(response, ref)
    event = text_or_none(report.body.get("event")) or ""
    if event.lower() == FAILED_EVENT:
        return _failed_by_event(report)
    return report.unfinished("pending") if polled is None else _judge(response, report, polled)


def without_response(error: APIConnectionError | InvalidResponseError, *, ref: TaskRef) -> PollResult:
    """Judge a poll without a response: a passing failure."""
    return PollResult(phase="transient", error=error.about(task_id=ref.task_id, family=ref.family))


def _judge(response: Response, report: PollReport, polled: Polled) -> PollResult:
    body, by_shape = response.fields, SHAPES[polled.shape]
    plain = response.status == 200 and (response.code is None or response.code == 200) and not response.type
    if plain and "data" in body and "status" not in body and body.keys().isdisjoint(REFUND_FLAGS):
        return by_shape(report)  # the usual response, in which the body of the family decides alone
    names_failure = response.type == "failed" or body.get("status") == "FAILED"
    if response.not_ready and not (response.status == 202 and names_failure):
        return report.unfinished("pending")
    result = _by_status(response.status, names_failure, report, polled)
    if result is None and (response.code or 0) >= 400:  # `code` in a 2xx counts as the status
        result = _by_status(response.code or 0, names_failure, report, polled)
    if result is not None:
        return result
    if not response.type and "data" not in body and "status" not in body and text_in(body.get("error")):
        return _passing("transient", report, polled)
    return by_shape(report)


def _by_status(status: int, names_failure: bool, report: PollReport, polled: Polled) -> PollResult | None:
    """Return the judgement of the rules about HTTP statuses; None where the body decides.

    Args:
        status: the HTTP status, or the `code` of a 2xx.
        names_failure: True if the body says that the task failed.
        report: the response and its task.
        polled: how the task is polled.
    """
    response, ok = report.response, 200 <= status < 300
    flagged = any(report.body.get(flag) is not None for flag in REFUND_FLAGS)
    if ok and response.json and not flagged and not response.type:
        return report.failed() if names_failure else None
    text = response.words
    limited = any(word in text for word in LIMITS_NOT_FAILURES)
    if flagged and response.type in TASK_WORDS and not limited:
        return report.failed()
    if names_failure or (ok and response.type in FAILED_IN_2XX):
        return report.failed()
    if not ok and (response.type in {"timeout", "api_error"} or _is_about_task(status, text)):
        return report.failed(sure="refund" in text)
    match status:
        case 429:
            return _passing("rate_limited", report, polled)
        case 400 if "task not found" in text:
            return PollResult(phase="missing", error=_error(report, polled))
        case 404:
            return PollResult(phase="missing", error=_error(report, polled))
        case _ if 400 <= status < 500:  # a wrong key, a retired endpoint, any other refusal
            error = _error(report, polled)
            if isinstance(error, RateLimitedError):
                return PollResult(phase="rate_limited", error=error, retry_after=response.retry_after)
            return PollResult(phase="refused", error=error)
        case _ if not ok or not response.json:
            return _passing("transient", report, polled)
        case _:
            return None


def _failed_by_event(report: PollReport) -> PollResult:
    """Return the failure that a webhook reports by the name of its event; `message` says why."""
    items = list_or_empty(report.body.get("data"))
    clips = clips_in(report, items) if items else None
    texts = (text_or_none(report.body.get("message")), error_text(report.body))
    reason = next((text for text in texts if text and text.strip().lower() != "success"), "")
    return report.failed(clips, reason or ("" if clips is None else failures_of(clips)))


def _passing(phase: Literal["transient", "rate_limited"], report: PollReport, polled: Polled) -> PollResult:
    return PollResult(phase=phase, error=_error(report, polled), retry_after=report.response.retry_after)


def _error(report: PollReport, polled: Polled) -> MusicAPIError:
    response, ref = report.response, report.ref
    call = polled.call_for(ref.task_id)
    if response.ok and not response.json:
        return InvalidResponseError(
            f"the response is not JSON: {response.text}",
            status=response.status,
            body=response.redacted,
            call=call,
            task_id=ref.task_id,
            family=ref.family,
        )
    return error_of(response, call=call, task_id=ref.task_id, family=ref.family)


def _is_about_task(status: int, text: str) -> bool:
    """Return True for a 504 that is about a failed task, not about the gateway."""
    return status == 504 and "task" in text and "fail" in text
