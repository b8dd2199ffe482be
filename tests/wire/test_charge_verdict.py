"""What proves that a paid call cost nothing: the whole table, against a reading of its own."""

from __future__ import annotations

import json
from itertools import product
from random import Random
from typing import Any

import pytest

from musicapi_async._wire import response
from musicapi_async._wire.charge_verdict import Outcome, carried_out, verdict
from musicapi_async.errors import (
    APIConnectionError,
    ConnectFailedError,
    ConnectionLostError,
    InvalidResponseError,
    JobStoreError,
    RequestTimeoutError,
    StepFailedError,
)

CALLS = ["POST /sonic/create", "POST /sonic/wav", "POST /sonic/lyrics", "POST /studio/create"]
REFUSED = {400, 401, 402, 403, 404, 405, 410, 411, 413, 414, 415, 422}
TASKS: list[dict[str, Any]] = [{}, {"task_id": ""}, {"task_id": None}, {"data": None}, {"data": {}}]
NAMED: list[dict[str, Any]] = [{"task_id": "t-1"}, {"task_id": 7}, {"data": {"task_id": "t-1"}}]
STEPS: list[dict[str, Any]] = [{}, {"steps": {}}, {"steps": {"upload": {"success": False}}}, {"steps": None}]
WORKED: list[dict[str, Any]] = [
    {"steps": {"upload": {"success": True}}},
    {"steps": {"upload": {"clip_id": "c"}, "cover": {"success": False}}},
    {"steps": [{"success": True}]},
]

STATUSES = [*range(200, 210), *range(300, 310), *range(400, 432), 451, 460, 499, *range(500, 600)]
CODES = [None, 200, "200", 202, 299, 301, *sorted(REFUSED), "400", "403", 408, 429, "429", 500, 504]
TEXTS = ["no", "API QPS limit exceeded", "Queue is full", "not enough credits", ""]


def read(status: int, body: dict[str, Any], call: str) -> Any:
    """The error of an answer."""
    return response.error_of(response.read_response(status, {}, json.dumps(body).encode()), call=call)


def test_the_table_is_the_whole_truth() -> None:
    """Free of charge only with proof; a task or a step takes every proof away, and so does an open attempt.

    Each status meets each code, with two combinations of the rest.
    """
    rest = list(product(TEXTS, CALLS, TASKS + NAMED, STEPS + WORKED, (False, True)))
    rng = Random(5)
    for status, code in product(STATUSES, CODES):
        for others in rng.sample(rest, 2):
            check(status, code, *others)


def check(
    status: int,
    code: Any,
    text: str,
    call: str,
    task: dict[str, Any],
    steps: dict[str, Any],
    in_doubt: bool,
) -> None:
    """Compare a row of the table with a reading of its own."""
    body = {"error": text, "code": code, **task, **steps}
    number = int(code) if code is not None else None
    effective = number if 200 <= status < 300 and status != 202 else status
    if task in NAMED:
        expected = Outcome.ACCEPTED
    elif steps in WORKED:
        expected = Outcome.UNKNOWN
    elif effective == 429 or (effective == 403 and ("QPS" in text or "Queue" in text)):
        expected = Outcome.RATE_LIMITED
    elif effective in REFUSED or status in (301, 307, 308) or (status == 504 and "lyrics" in call):
        expected = Outcome.REFUSED
    else:
        expected = Outcome.UNKNOWN
    error = read(status, body, call)
    if isinstance(error, StepFailedError) and expected is Outcome.RATE_LIMITED:
        expected = Outcome.REFUSED  # by its class, once no attempt is left
    if in_doubt and expected is not Outcome.ACCEPTED:
        expected = Outcome.UNKNOWN
    assert verdict(error, sent=True, in_doubt=in_doubt) is expected
    if not in_doubt:
        assert ("Nothing was charged" in str(error)) is expected.is_free
        assert error.not_charged is expected.is_free
        assert error.may_have_been_charged is not expected.is_free


def test_a_text_in_data_is_an_id_for_studio_only() -> None:
    """And only without white space: a sentence is none."""
    for data, call, outcome in [
        ("abc", "POST /studio/create", Outcome.ACCEPTED),
        ("not allowed", "POST /studio/create", Outcome.REFUSED),
        ("", "POST /studio/create", Outcome.REFUSED),
        ("abc", "POST /sonic/create", Outcome.REFUSED),
    ]:
        assert verdict(read(400, {"data": data}, call), sent=True, in_doubt=False) is outcome


def test_a_repaired_id_is_not_used_and_is_no_proof_of_a_refusal() -> None:
    """Something was made, and nobody can tell what."""
    error = read(400, {"task_id": "abc\ufffd"}, CALLS[0])
    assert error.task_id is None
    assert verdict(error, sent=True, in_doubt=False) is Outcome.UNKNOWN


@pytest.mark.parametrize("code", [400.0, True, "abc", " ", "4e2", [400], {"a": 400}, -400, "-400"])
def test_a_code_is_a_whole_number_or_digits(code: Any) -> None:
    """Nothing else refuses anything."""
    assert (
        verdict(read(200, {"error": "x", "code": code}, CALLS[0]), sent=True, in_doubt=False)
        is Outcome.UNKNOWN
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"t"'])
@pytest.mark.parametrize("status", [400, 404, 429, 301])
def test_the_status_alone_is_proof(status: int, body: bytes) -> None:
    """A gateway's page refuses, too."""
    error = response.error_of(response.read_response(status, {}, body), call=CALLS[0])
    assert verdict(error, sent=True, in_doubt=False).is_free


@pytest.mark.parametrize(
    ("error", "sent", "outcome"),
    [
        (ConnectFailedError("x", sent=False), True, Outcome.NOT_SENT),
        (ConnectionLostError("x", sent=None), True, Outcome.UNKNOWN),
        (RequestTimeoutError("x", sent=True), True, Outcome.UNKNOWN),
        (RequestTimeoutError("x", sent=False), False, Outcome.NOT_SENT),
        (APIConnectionError("malformed head", sent=True), True, Outcome.UNKNOWN),
        (InvalidResponseError("x", status=400), True, Outcome.UNKNOWN),
        (JobStoreError("x"), False, Outcome.NOT_SENT),
        (RuntimeError("x"), True, Outcome.UNKNOWN),
        (RuntimeError("x"), False, Outcome.NOT_SENT),
        (KeyboardInterrupt(), True, Outcome.UNKNOWN),
    ],
)
def test_errors_without_an_answer(error: BaseException, sent: bool, outcome: Outcome) -> None:
    """What was not sent costs nothing; what may have been sent proves nothing; an open attempt decides."""
    assert verdict(error, sent=sent, in_doubt=False) is outcome
    assert verdict(error, sent=sent, in_doubt=True) is Outcome.UNKNOWN


def test_polls_say_nothing_about_money() -> None:
    """A failure to look at a task is neither a charge nor the proof of none."""
    for status in (400, 404, 429, 500, 504):
        error = response.error_of(
            response.read_response(status, {}, b"{}"), call="GET /sonic/task/t", task_id="t"
        )
        assert not error.may_have_been_charged
        assert not error.not_charged
        assert "harged" not in str(error)


def test_a_refusal_that_names_work_is_never_sent_again() -> None:
    """Whatever its status."""
    for body in (*NAMED, *WORKED):
        assert carried_out(response.read_response(429, {}, json.dumps(body).encode()), CALLS[0])
    assert not carried_out(response.read_response(429, {}, b'{"error":"slow"}'), CALLS[0])
