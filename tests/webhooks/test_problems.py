"""Every error of the tree becomes a problem whose text is ours, not the error's."""

from __future__ import annotations

import inspect
import json

import pytest

from musicapi_async import errors
from musicapi_async.errors import (
    MusicAPIError,
    RateLimitedError,
    RequestValidationError,
    TaskFailedError,
    Violation,
)
from musicapi_async.webhooks import problem_of

HUSH = "sk-hush-0123 task 1111 balance 17 https://api.example/x"
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MusicAPIError)]


def build(kind: type[MusicAPIError]) -> MusicAPIError:
    """An error full of things that a browser must not see."""
    error = kind.__new__(kind, HUSH)
    Exception.__init__(error, HUSH)
    error.__dict__.update(
        message=HUSH, hint=HUSH, call=HUSH, task_id=HUSH, family=HUSH, status=500, body=HUSH
    )
    error.__dict__.update(may_have_been_charged=True, field="", limit=HUSH, violations=(), retry_after=None)
    return error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_problem_repeats_what_an_error_says(kind: type[MusicAPIError]) -> None:
    """Fixed sentences, a status of 4xx or 5xx, a code for programs, the media type of RFC 9457."""
    problem = problem_of(build(kind))
    body = json.loads(problem.body)
    assert set(body) <= {"type", "status", "title", "code", "detail", "errors", "retry_after"}
    assert 400 <= body["status"] <= 599
    assert body["detail"].endswith((".", "again."))
    for word in HUSH.split():
        assert word not in problem.body.decode() or word in ("task", "balance")
    assert problem.headers["Content-Type"] == "application/problem+json"


def test_status_says_whose_fault_it_is() -> None:
    """The visitor's fault is 4xx; a wrong key or an empty balance is not the visitor's business."""
    expected = {
        "AuthenticationError": 500,
        "InsufficientCreditsError": 503,
        "RateLimitedError": 503,
        "ContentModerationError": 422,
        "NotFoundError": 404,
        "OutcomeUnknownError": 502,
        "TaskTimeoutError": 504,
        "RequestTimeoutError": 504,
        "ConnectFailedError": 502,
        "WebhookVerificationError": 400,
        "JobKeyConflictError": 409,
    }
    for name, status in expected.items():
        assert problem_of(build(getattr(errors, name))).status == status
    assert problem_of(ValueError(HUSH)).status == 500
    assert problem_of(KeyboardInterrupt()).status == 500


def test_fields_and_limits_are_named_and_values_are_not() -> None:
    """All broken fields; but not those that the operator sets."""
    found = [Violation("title", "text of at most 80 characters", HUSH), Violation("mv", "needed", "")]
    problem = problem_of(RequestValidationError(HUSH, field="title", limit="x", violations=found))
    assert problem.status == 422
    assert [(error.field, error.limit) for error in problem.errors] == [
        ("title", "text of at most 80 characters"),
        ("mv", "needed"),
    ]
    assert b"hush" not in problem.body
    for field in ("api_key", "webhook_url", "base_url"):
        assert problem_of(RequestValidationError(HUSH, field=field, limit="x")).status == 500


@pytest.mark.parametrize(
    ("wait", "header"), [(2.1, "3"), (0, None), (float("inf"), None), (1e9, "3600"), (None, None)]
)
def test_retry_after_is_passed_on_within_bounds(wait: float | None, header: str | None) -> None:
    """Whole seconds, rounded up, at most an hour."""
    problem = problem_of(RateLimitedError("x", status=429, retry_after=wait))
    assert problem.headers.get("Retry-After") == header


def test_failed_generation_gives_no_reason() -> None:
    """The reason may quote anything; it is in the log."""
    problem = problem_of(TaskFailedError(HUSH, refunded=True, task_id="t", family="sonic"))
    assert problem.code == "generation_failed"
    assert b"refund" not in problem.body
