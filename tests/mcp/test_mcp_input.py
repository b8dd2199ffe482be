"""Lines of standard input that are no message: answered at once, under their id where it can be found."""

from __future__ import annotations

import pytest

from musicapi_async.mcp.standard_input import refusal_of

CALL = '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"create_song","arguments":{"a":%s}}}'
LAST = (
    '{"method":"tools/call","params":{"name":"a","arguments":{"id":5,"a":%s}},"jsonrpc":"2.0","id":"seven"}'
)


@pytest.mark.parametrize("value", ['"\\ud83d"', '"\\ud83d\\u0041"', "[" * 5000, "9" * 5000, "{", "tru"])
@pytest.mark.parametrize(("form", "number"), [(CALL, 7), (LAST, "seven")])
def test_call_that_cannot_be_read_is_answered(form: str, number: int | str, value: str) -> None:
    """Half of an emoji, as models write it, and what no reader takes: the client does not wait for nothing."""
    answer = refusal_of(form % value)
    assert answer is not None
    assert (answer.id, answer.error.code) == (number, -32700)
    assert "nothing was charged" in answer.error.message
    assert ("half of a surrogate pair" in answer.error.message) == ("ud83d" in value)


@pytest.mark.parametrize(
    "line", ["{}", "[]", "7", '{"jsonrpc":"1.0","id":7,"method":"ping"}', '[{"jsonrpc":"2.0","id":7}]']
)
def test_json_that_is_no_message_is_answered(line: str) -> None:
    """An error of the protocol says so."""
    answer = refusal_of(line)
    assert answer is not None
    assert answer.error.code == -32600


@pytest.mark.parametrize(
    "line", ["", "  ", CALL % 1, CALL % '"\\ud83d\\ude00"', '{"jsonrpc":"2.0","method":"notifications/x"}']
)
def test_messages_and_empty_lines_have_no_answer(line: str) -> None:
    """Those are carried out, or passed over."""
    assert refusal_of(line) is None
