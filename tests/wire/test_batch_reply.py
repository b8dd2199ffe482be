"""Replies about batches, of any shape: no task is lost, nothing is guessed, and nothing else is raised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async import InvalidResponseError, MusicAPIError
from musicapi_async._wire import codec
from musicapi_async._wire.batch_reply import read_batch
from musicapi_async._wire.call_reply import read_direct
from musicapi_async._wire.charge_verdict import Outcome, verdict
from musicapi_async._wire.response import read_response
from musicapi_async.api.batches import MOST_ENTRIES
from musicapi_async.api.sonic import Sonic

WORD = st.text("ab1 \ufffd\n", max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 5) | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=5,
)
ENTRY = JSON | st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("task_id", "id", "error", "message", "type", "code", "data"), JSON),
)
REPLY = st.fixed_dictionaries(
    {},
    optional={
        "tasks": st.lists(ENTRY, max_size=4) | JSON,
        "batch_id": JSON,
        "task_id": JSON,
        "submitted": JSON,
        "error": JSON,
        "success": JSON,
        "code": st.sampled_from([200, 202, 400, "404", 429, 500]),
    },
)
STATUS = st.sampled_from([200, 201, 202, 207, 302, 400, 402, 403, 409, 429, 500, 504])


def plain_ids(reply: dict[str, Any]) -> set[str]:
    """The ids that a reply names under the plainest key, written apart from the package."""
    tasks = reply.get("tasks")
    found = (
        [entry.get("task_id") for entry in tasks if isinstance(entry, dict)]
        if isinstance(tasks, list)
        else []
    )
    found.append(reply.get("task_id"))
    texts = {one.strip() for one in found if isinstance(one, str)}
    return {text for text in texts if text and text.isascii() and text.isprintable()}


@given(REPLY, STATUS, st.integers(1, 3))
def test_a_task_that_a_reply_names_is_never_lost(reply: dict[str, Any], status: int, items: int) -> None:
    """It is in the batch, whatever else the reply says; and no such reply frees a job key."""
    response = read_response(status, {}, codec.encode(reply, "reply"))
    try:
        batch = read_batch(response, items=items)
    except MusicAPIError as error:
        assert plain_ids(reply) == set()
        if verdict(error, sent=True, in_doubt=False).is_free:
            assert not (isinstance(reply.get("batch_id"), str) and reply["batch_id"].strip())
            assert status >= 400 or reply.get("code") in (400, "404", 429)
        return
    ids = [item.task_id for item in batch.items if item.task_id is not None]
    assert plain_ids(reply) <= set(ids)
    assert batch.is_assigned == (len(batch.items) == items and len(ids) == len(set(ids)))
    for item in batch.items:
        assert item.task_id is None or item.error is None
        if item.error is not None and item.error.not_charged:
            assert item.raw["code"] in (400, 429) or str(item.raw["code"]) in ("400", "404", "429")
    if batch.error is not None:
        assert ids
        assert verdict(batch.error, sent=True, in_doubt=False) in (Outcome.ACCEPTED, Outcome.UNKNOWN)


@given(st.fixed_dictionaries({}, optional={"batch_id": JSON, "data": st.lists(ENTRY, max_size=4) | JSON}))
def test_states_of_any_shape_are_read_as_far_as_they_go(reply: dict[str, Any]) -> None:
    """Each entry that names its task has a state, and the raw body has the rest."""
    response = read_response(200, {}, codec.encode(reply, "reply"))
    states = read_direct(response, Sonic.get_batch)
    assert states.raw == reply  # type: ignore[union-attr]
    assert all(state.task_id and state.state for state in states.tasks)  # type: ignore[union-attr]


def test_a_reply_of_a_million_entries_is_read_in_part() -> None:
    """The rest is in the raw body; it is a hundred times what a request can ask for."""
    raw = codec.encode({"batch_id": "b", "tasks": ["t"] * 1_000_000}, "reply")
    assert len(read_batch(read_response(200, {}, raw), items=2).items) == MOST_ENTRIES


@pytest.mark.parametrize("raw", [b"", b"<html>", b'"text"', b"[]", b"null", b"{"])
def test_what_is_no_object_is_no_batch(raw: bytes) -> None:
    """It was sent, so it may have been charged."""
    with pytest.raises(InvalidResponseError) as caught:
        read_batch(read_response(200, {}, raw), items=1)
    assert caught.value.may_have_been_charged


@pytest.mark.parametrize("status", [200, 400])
def test_an_empty_list_hides_no_task(status: int) -> None:
    """The tasks under `data` were paid for, and an error beside them proves nothing."""
    body = {"error": "internal", "tasks": [], "data": {"tasks": [{"task_id": "t1"}]}}
    batch = read_batch(read_response(status, {}, codec.encode(body, "reply")), items=1)
    assert [item.task_id for item in batch.items] == ["t1"]


@pytest.mark.parametrize(
    "entry",
    [
        {"message": "success", "code": 200},
        {"message": "success"},
        {"success": True, "message": "queued"},
        {"message": "accepted", "code": 202, "uuid": "x"},
    ],
)
def test_a_success_without_an_id_is_no_refusal(entry: dict[str, Any]) -> None:
    """The item may have been charged, so nothing says that it was refused: it stays unknown."""
    body = {"batch_id": "b1", "tasks": [entry]}
    (item,) = read_batch(read_response(200, {}, codec.encode(body, "reply")), items=1).items
    assert (item.task_id, item.error) == (None, None)
