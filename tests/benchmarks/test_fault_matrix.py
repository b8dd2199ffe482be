"""The fault matrix judges by the service's rules, and sees a second send."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fault_calls import PAID, Call
from fault_cases import FAULTS
from fault_cells import cells, paid_cell
from fault_checks import DOUBLE, UNTRUE, Cell, shows_secret
from fault_oracle import Poll, Reply, Rules, Verdict, decode, poll_verdicts, verdicts

from musicapi_async import MusicAPI, OutcomeUnknownError

DIRECT = Rules(submits=False)
STEPS = {"steps": {"upload": {"success": True}}}
CASES: list[tuple[int, object, Rules, str]] = [
    (200, {"task_id": "t"}, Rules(), "RESULT"),
    (200, {}, Rules(), "UNKNOWN"),
    (200, {"error": "no"}, DIRECT, "UNKNOWN"),
    (200, {"success": False}, DIRECT, "UNKNOWN"),
    (200, {"code": 400}, Rules(), "REFUSED"),
    (200, {"code": "404"}, Rules(), "REFUSED"),
    (200, {"code": 400.0}, Rules(), "UNKNOWN"),
    (200, {"code": 429}, Rules(), "RATE"),
    (200, {"code": 500}, Rules(), "UNKNOWN"),
    (200, {"code": 409}, Rules(), "UNKNOWN"),
    (202, {"type": "not_ready"}, DIRECT, "UNKNOWN"),
    (202, {"type": "not_ready"}, Rules(submits=False, repeats_202=True), "PREPARING"),
    (200, {"type": "not_ready"}, Rules(submits=False, repeats_202=True), "UNKNOWN"),
    (301, {}, Rules(), "REFUSED"),
    (302, {}, Rules(), "UNKNOWN"),
    (303, {}, Rules(), "UNKNOWN"),
    (307, {"task_id": "t"}, Rules(), "TASK"),
    (400, {}, Rules(), "REFUSED"),
    (400, {"task_id": ""}, Rules(), "REFUSED"),
    (400, {"data": {"task_id": "t"}}, Rules(), "TASK"),
    (400, {"data": "word"}, Rules(), "REFUSED"),
    (400, {"data": "word"}, Rules(id_is_data=True), "TASK"),
    (400, {"data": "two words"}, Rules(id_is_data=True), "REFUSED"),
    (400, STEPS, Rules(), "UNKNOWN"),
    (403, {"message": "QPS limit"}, Rules(), "RATE"),
    (408, {}, Rules(), "UNKNOWN"),
    (429, {}, Rules(), "RATE"),
    (429, {"task_id": "t"}, Rules(), "TASK"),
    (429, STEPS, Rules(), "UNKNOWN"),
    (499, {}, Rules(), "UNKNOWN"),
    (504, {}, Rules(), "UNKNOWN"),
    (504, {}, Rules(submits=False, free_504=True), "REFUSED"),
]


@pytest.mark.parametrize(("status", "body", "rules", "verdict"), CASES)
def test_the_closed_list(status: int, body: object, rules: Rules, verdict: str) -> None:
    """Each row of what proves that a paid call was not carried out, and its neighbours that do not."""
    assert verdicts(Reply(status, json.dumps(body).encode()), rules) == {Verdict[verdict]}


def test_no_reply_proves_nothing() -> None:
    """A lost or unreadable reply is unknown, one that never left is proof."""
    assert verdicts(Reply(), Rules()) == {Verdict.UNKNOWN}
    assert verdicts(Reply(sent=False), Rules()) == {Verdict.NOT_SENT}
    assert verdicts(Reply(sent=None), Rules()) == {Verdict.NOT_SENT, Verdict.UNKNOWN}


def test_damaged_bodies_are_read() -> None:
    """What cannot be read is replaced, the rest stays."""
    assert decode(
        b'{"a": NaN, "b": 1e999, "c": "\\ud83d", "d": "x\ty", "e": "\xe9", "f": "\\ud83c\\udfb5"}'
    ) == {
        "a": None,
        "b": None,
        "c": "\ufffd",
        "d": "x\ty",
        "e": "\ufffd",
        "f": "\U0001f3b5",
    }
    assert decode(b'{"x": ' + b"1" * 5000 + b"}") == {"x": None}
    with pytest.raises(ValueError, match=r".+"):
        decode(b"<html>")


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (500, {}, "GO_ON"),
        (429, {}, "GO_ON"),
        (202, {"type": "not_ready"}, "GO_ON"),
        (200, {"type": "failed"}, "FAILED"),
        (500, {"type": "failed"}, "FAILED"),
        (401, {}, "STOP"),
        (410, {}, "STOP"),
    ],
)
def test_polls_by_their_rules(status: int, body: object, verdict: str) -> None:
    """What ends a wait and what does not."""
    assert poll_verdicts(Reply(status, json.dumps(body).encode())) == {Poll[verdict]}


def test_the_matrix_is_large() -> None:
    """At least 1,200 cells, each with a name of its own."""
    assert len(cells()) >= 1200


@pytest.mark.parametrize(
    "text", ["mk-9f3c/aB+7", "mk-9f3c\\/aB\\u002b7", "mk-9f3c%2FaB%2B7", "mk-9f3c/aB+7Zq=4"]
)
def test_a_secret_is_seen_in_every_spelling(text: str) -> None:
    """Whole, cut short, escaped or percent-encoded."""
    assert shows_secret(f"you said {text}") == "the API key"


async def again_in_spite_of_doubt(client: MusicAPI) -> Any:
    """A call as it must not be: repeated under a fresh job key when its outcome is unknown."""
    try:
        return await PAID[0].make(client)
    except OutcomeUnknownError:
        return await PAID[0].make(client.with_options(job_key="another"))


async def test_a_second_send_is_seen(tmp_path: Path) -> None:
    """The server counts two requests, and the cell fails."""
    fault = next(fault for fault in FAULTS if fault.name == "500, then good")
    cell = Cell("twice")
    await paid_cell(cell, fault, Call("twice", again_in_spite_of_doubt, PAID[0].good), tmp_path)
    kinds = [kind for kind, _ in cell.faults]
    assert DOUBLE in kinds
    assert UNTRUE in kinds
