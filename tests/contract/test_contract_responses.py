"""Every response of the contract gives the outcome that the contract's index demands."""

from __future__ import annotations

from typing import Any

import pytest
from examples_index import FOLDER, REQUESTS, RESPONSES, WEBHOOKS, Example
from test_contract_requests import CALLS, arguments, operation_of

from musicapi_async import (
    AlignedLyrics,
    Batch,
    MusicAPI,
    MusicAPIError,
    OutcomeUnknownError,
    RequestTimeoutError,
    StepFailedError,
    Task,
    TaskFailedError,
)
from musicapi_async._wire import call_reply, codec, poll_response, poll_rules, response
from musicapi_async.api.families import polled_as
from musicapi_async.api.task import TaskRef
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop
from musicapi_async.webhooks import parse

TASK_ID = "11111111-1111-4111-8111-111111111111"
PREPARING = "still being prepared"
CALLED = {
    f"{one.method} {one.path}": (CALLS[one.name], arguments(operation_of(CALLS[one.name]), one))
    for one in reversed(REQUESTS)
    if one.name in CALLS
}
CALLED["POST /suno/create"] = "suno.create_music", CALLED["POST /sonic/create"][1]
CALLED["any"] = CALLED["POST /sonic/create"]
"""A call for each endpoint that takes a POST: the first one of the contract that is typed."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def is_poll(example: Example) -> bool:
    """Return True for the response to a poll of a task."""
    return example.method == "GET" and "{" in example.path


async def polled(example: Example, client: MusicAPI) -> str:
    """The outcome of a task each of whose polls is answered in the same way."""
    family = example.path.split("/")[1]
    kind = "make_lyrics" if "get-lyrics" in example.path else ""
    task = client.task(family, TASK_ID, kind=kind)
    update = await task.refresh()
    assert update.raw == example.body
    if not update.is_terminal and example.outcome in {"pending", "running"}:
        return update.state
    try:
        return (await task.wait()).status
    except TaskFailedError as error:
        assert error.body == example.body
        return f"failed, refunded={error.refunded}" if error.refunded is not None else "failed"


async def called(example: Example, client: MusicAPI) -> str:
    """The outcome of a submit, of a batch, or of a direct call."""
    if example.path == "/get-credits":
        reply = await client.credits()
    else:
        name, given = CALLED["any" if example.method == "any" else f"{example.method} {example.path}"]
        family, _, method = name.partition(".")
        reply = await getattr(getattr(client, family), method)(**given)
    assert reply.raw == example.body
    if isinstance(reply, Batch):
        assert reply.is_assigned
        assert [task.task_id for task in reply.tasks] == [one["task_id"] for one in example.body["tasks"]]
        assert (reply.batch_id, reply.submitted) == (example.body["batch_id"], example.body["submitted"])
        return "accepted"
    if isinstance(reply, Task) or getattr(reply, "task_id", None):
        assert reply.task_id in example.raw.decode()
        return "accepted"
    return "ok (empty)" if isinstance(reply, AlignedLyrics) and not reply.words else "ok"


def raised(error: MusicAPIError) -> str:
    """The name of an error, with its cause where the outcome of a paid call is unknown."""
    if isinstance(error, OutcomeUnknownError):
        assert isinstance(error.__cause__, MusicAPIError)
        name = raised(error.__cause__)
        # The index leaves it out there.
        known = name in {"InvalidResponseError", "ServerError", "UpstreamError"}
        return name if known else f"OutcomeUnknownError from {name}"
    if isinstance(error, RequestTimeoutError) and PREPARING in str(error):
        return "pending"
    return type(error).__name__


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("example", RESPONSES, ids=str)
async def test_each_response_gives_the_outcome_of_the_index(example: Example) -> None:
    """The responses are understood as the contract says, at every status that they may come with."""
    wanted = example.outcome.partition(" (status")[0].partition(" (poll")[0]
    if "on a paid POST OutcomeUnknownError from it" in example.outcome:
        wanted = f"OutcomeUnknownError from {wanted}"
    async with Sandbox() as box, box.client(rate_limit=None, max_retries=0) as client:
        method, path = (
            ("POST", "/sonic/create") if example.method == "any" else (example.method, example.path)
        )
        path = path.replace("{id}", TASK_ID).replace("{task_id}", TASK_ID)
        answer = Fault.status(example.status, body=example.raw.decode())
        box.faults.on(method, path, answer, times=None)
        try:
            outcome = await (polled(example, client) if is_poll(example) else called(example, client))
        except MusicAPIError as error:
            outcome = raised(error)
            body = getattr(error.__cause__ if isinstance(error, OutcomeUnknownError) else error, "body", None)
            assert body == example.body or outcome == "pending"
        assert outcome == wanted
        if method == "POST" and outcome != "pending":
            assert len(box.journal.requests(path, "POST")) == 1


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
    """A delivered body is the event that the index names, and goes through the same rules as a polled one."""
    event = parse(example.raw)
    assert (event.event, event.family) == (example.outcome, example.name.split("-")[1])
    assert (event.task_id, event.raw) == (example.body["task_id"], example.body)
    assert event.update.state == WEBHOOK_STATES[example.name]
    assert event.refunded is example.body.get("refund_processed")


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
