"""Every response of the contract gives the outcome that the contract's index demands."""

from __future__ import annotations

from typing import Any

import pytest
from examples_index import FOLDER, RESPONSES, WEBHOOKS, Example

from musicapi_async._wire import batch_reply, call_reply, codec, poll_response, poll_rules, response
from musicapi_async._wire.charge_verdict import Outcome, verdict
from musicapi_async.api.families import FAMILIES, polled_as
from musicapi_async.api.operation import Operation, Polled, SubmitsBatch
from musicapi_async.api.task import TaskRef
from musicapi_async.errors import MusicAPIError, StepFailedError, TaskFailedError

OPERATIONS: list[Operation[..., Any]] = [
    operation for family in FAMILIES.values() for operation in family.operations().values()
]


def polled_at(path: str) -> tuple[str, Polled] | None:
    """Family word and polling of a polled path."""
    path = path.replace("{id}", "{task_id}")
    for operation in OPERATIONS:
        if operation.polled is not None and operation.polled.path == path:
            return operation.family.word, operation.polled
    return None


def polled_outcome(example: Example) -> str:
    """The outcome of a poll that is answered in the same way until it ends, or once if it does not."""
    at = polled_at(example.path)
    assert at is not None
    ref = TaskRef(at[0], "11111111-1111-4111-8111-111111111111")
    result = poll_response.judge_poll(
        response.read_response(example.status, {}, example.raw), ref=ref, polled=at[1]
    )
    conclusion = poll_rules.conclude(result, None, age=100, own=False, now=0)
    if result.phase == "unconfirmed":
        conclusion = poll_rules.conclude(result, conclusion.history, age=115, own=False, now=15)
    if conclusion.error is not None:
        return type(conclusion.error).__name__
    assert conclusion.update is not None
    assert conclusion.update.raw == example.body
    error = conclusion.update.error
    if isinstance(error, TaskFailedError):
        assert error.body == example.body
        return f"failed, refunded={error.refunded}" if error.refunded is not None else "failed"
    return conclusion.update.state


def called(example: Example) -> str:
    """The outcome of a submit, of a batch, or of a direct call."""
    operation = next(one for one in OPERATIONS if (one.method, one.path) == (example.method, example.path))
    if isinstance(operation, SubmitsBatch):
        found = response.read_response(example.status, {}, example.raw)
        batch = batch_reply.read_batch(found, items=len(example.body["tasks"]))
        assert batch.is_assigned
        assert batch.task_ids == tuple(entry["task_id"] for entry in example.body["tasks"])
        assert (batch.batch_id, batch.submitted) == (example.body["batch_id"], example.body["submitted"])
        return "accepted"
    try:
        if operation.submits:
            found = response.read_response(example.status, {}, example.raw)
            assert call_reply.read_submit(found, call=operation.call_name) in example.raw.decode()
            assert found.body == example.body
            return "accepted"
        reply = call_reply.read_direct(response.read_response(example.status, {}, example.raw), operation)
    except MusicAPIError as error:
        caught = error
    else:
        assert reply.raw == example.body
        if isinstance(reply, call_reply.Pending):
            return "ok (empty)" if example.status == 200 else "pending"
        return "accepted" if getattr(reply, "task_id", None) else "ok"
    assert getattr(caught, "body", None) == example.body
    return raised(caught)


def raised(error: MusicAPIError) -> str:
    """The name of the error that a typed call raises for it, with its cause where the outcome is unknown."""
    name = type(error).__name__
    known = name in {"InvalidResponseError", "ServerError", "UpstreamError"}  # the index leaves it out there
    if not known and verdict(error, sent=True, in_doubt=False) is Outcome.UNKNOWN:
        return f"OutcomeUnknownError from {name}"
    return name


def refused(example: Example) -> str:
    """The outcome of an error that may come from any endpoint."""
    with pytest.raises(MusicAPIError) as caught:
        call_reply.read_submit(
            response.read_response(example.status, {}, example.raw), call="POST /sonic/create"
        )
    return raised(caught.value)


@pytest.mark.parametrize("example", RESPONSES, ids=str)
def test_each_response_gives_the_outcome_of_the_index(example: Example) -> None:
    """The responses are understood as the contract says, at every status that they may come with."""
    wanted = example.outcome.partition(" (status")[0].partition(" (poll")[0]
    if "on a paid POST OutcomeUnknownError from it" in example.outcome:
        wanted = f"OutcomeUnknownError from {wanted}"
    if example.method == "any":
        assert refused(example) == wanted
    elif example.method == "GET" and polled_at(example.path):
        assert polled_outcome(example) == wanted
    else:
        assert called(example) == wanted


@pytest.mark.parametrize("example", [one for one in RESPONSES if "poll: " in one.outcome], ids=str)
def test_errors_that_pass_do_not_end_a_poll(example: Example) -> None:
    """Rate limits and failures of the service without a word on the task are looked at again."""
    at = polled_as("sonic")
    assert at is not None
    result = poll_response.judge_poll(
        response.read_response(example.status, {}, example.raw), ref=TaskRef("sonic", "t"), polled=at
    )
    assert result.phase == ("rate_limited" if "wait" in example.outcome else "transient")
    assert not poll_rules.conclude(result, None, age=100, own=False, now=0).is_final


WEBHOOK_STATES = {
    "webhook-sonic-completed": "succeeded",
    "webhook-sonic-completed-platform-sonic": "succeeded",
    "webhook-sonic-streaming": "running",
    "webhook-sonic-failed": "failed",
    "webhook-sonic-failed-no-type": "failed",
    "webhook-sonic-voice-completed": "succeeded",
    "webhook-producer-completed": "succeeded",
    "webhook-producer-failed": "failed",
    "webhook-nuro-completed": "succeeded",
    "webhook-nuro-failed": "failed",
}


@pytest.mark.parametrize("example", WEBHOOKS, ids=lambda example: example.name)
def test_a_webhook_body_reads_like_a_poll(example: Example) -> None:
    """A delivered body goes through the same rules as a polled one."""
    family = example.name.split("-")[1]
    polled = polled_as(family)
    assert polled is not None
    result = poll_response.judge_webhook(example.body, ref=TaskRef(family, "t"), polled=polled)
    assert result.update is not None
    assert result.update.state == WEBHOOK_STATES[example.name]
    if result.error is not None:
        assert isinstance(result.error, TaskFailedError)
        assert result.error.refunded is example.body["refund_processed"]


def test_a_failed_step_tells_what_can_be_saved() -> None:
    """When the cover fails after the upload, the uploaded clip is on the error."""
    raw = (FOLDER / "sonic-upload-cover-res-cover-failed.json").read_bytes()
    for status in (200, 400, 500):
        with pytest.raises(StepFailedError) as caught:
            call_reply.read_submit(response.read_response(status, {}, raw), call="POST /sonic/upload-cover")
        error = caught.value
        assert (error.failed_step, error.clip_id) == ("cover", "cccccccc-0000-4000-8000-000000000001")
        assert error.steps["cover"]["error"] == "Example refusal"
        assert error.may_have_been_charged
        assert "Example refusal" in str(error)


def test_the_examples_are_all_there() -> None:
    """All 234 bodies of the contract are tried, and each is JSON."""
    files = sorted(FOLDER.glob("*-*.json"))
    assert len(files) == 234
    for file in files:
        codec.decode(file.read_bytes())
