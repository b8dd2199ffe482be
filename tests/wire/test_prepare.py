"""Untyped calls keep the limits of the typed ones."""

from __future__ import annotations

import pytest

from musicapi_async._wire.prepare import prepare, prepare_raw
from musicapi_async.api.families import FAMILIES
from musicapi_async.options import Options, SonicPaths

POSTS = [
    operation
    for family in FAMILIES.values()
    for operation in family.operations().values()
    if operation.method == "POST"
]


@pytest.mark.parametrize("operation", POSTS, ids=repr)
def test_an_untyped_call_has_pace_and_time_of_the_typed_one(operation) -> None:
    """Whatever makes tasks waits for its turn, and what works before it answers gets its time."""
    needed = {field.name: "x" for field in operation.fields if field.required}
    plain = Options(validate="off")
    typed = prepare(operation, operation.request(**needed), plain, str)
    raw = prepare_raw("post", operation.path, plain, {}, None)
    assert (raw.lane, raw.attempt_timeout) == (typed.lane, typed.attempt_timeout)
    assert prepare_raw("POST", operation.path, Options(attempt_timeout=5), {}, None).attempt_timeout == 5


@pytest.mark.parametrize("path", ["/sonic/batch", "/producer/video-clip", "/suno/upload"])
def test_what_nobody_knows_waits_for_its_turn(path: str) -> None:
    """It may make tasks; looking never does."""
    assert prepare_raw("POST", path, Options(), {}, None).lane == "submit"
    assert prepare_raw("GET", path, Options(), None, {"batch_id": "b"}).lane == "call"


def test_the_word_of_a_sister_host_changes_no_limits() -> None:
    """Where Sonic is called suno, the direct calls of Sonic are direct calls under that name."""
    path_of = SonicPaths("suno").of
    assert prepare_raw("POST", "/suno/wav", Options(), {}, None).lane == "submit"
    assert prepare_raw("POST", "/suno/wav", Options(), {}, None, path_of).lane == "call"
    assert prepare_raw("POST", "/suno/create", Options(), {}, None, path_of).lane == "submit"
    assert prepare_raw("POST", "/suno/get-song", Options(), {}, None, path_of).lane == "call"
