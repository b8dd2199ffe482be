"""Every result becomes plain data and is read back from it, whichever library of the user's does it.

The instances are made of the contract's example bodies; a class without one fails the test.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import pickle
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from examples_index import RESPONSES, WEBHOOKS, Example
from fastapi.encoders import jsonable_encoder
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from musicapi_async import (
    APIStatusError,
    Batch,
    BatchItem,
    BatchState,
    BatchStates,
    Clip,
    Clips,
    Credits,
    Failure,
    MusicAPIError,
    ResponseInfo,
    Result,
    Spending,
    Stem,
    Stems,
    Task,
    TaskFailedError,
    TaskRef,
    TaskUpdate,
)
from musicapi_async._wire import call_reply, poll_response, response
from musicapi_async._wire.result_reading import read_clip, read_item
from musicapi_async.api.families import FAMILIES
from musicapi_async.api.operation import Operation, Polled
from musicapi_async.hooks import (
    CallEvent,
    CallSettledEvent,
    DownloadEvent,
    HookEvent,
    PollEvent,
    RequestEvent,
    ResponseEvent,
    RetryEvent,
    SpendingEvent,
    TaskEndedEvent,
    WebhookEvent,
)
from musicapi_async.jobs import Job, JobTask, Owner
from musicapi_async.jobs.job import request_of
from musicapi_async.plain_data import PlainData
from musicapi_async.webhooks import Event, parse

ROOMS = (
    "musicapi_async",
    "musicapi_async.api",
    "musicapi_async.hooks",
    "musicapi_async.jobs",
    "musicapi_async.webhooks",
)
KINDS = {
    kind
    for room in map(importlib.import_module, ROOMS)
    for name in room.__all__
    if inspect.isclass(kind := getattr(room, name))
}
PLAIN_KINDS = {kind for kind in KINDS if issubclass(kind, PlainData)}


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


def read(example: Example) -> Iterator[Any]:
    """The objects that a user gets for a body: the update of a poll with its parts, or a reply."""
    found = response.read_response(example.status, {}, example.raw)
    at = polled_at(example.path) if example.method == "GET" else None
    if at is not None:
        ref = TaskRef(at[0], "11111111-1111-4111-8111-111111111111", kind_of(example))
        yield from parts(poll_response.judge_poll(found, ref=ref, polled=at[1]).update)
        return
    for operation in OPERATIONS:
        if (operation.method, operation.path) == (example.method, example.path) and not operation.creates:
            reply = call_reply.read_direct(found, operation)
            if isinstance(reply, PlainData):
                yield reply
            return


def kind_of(example: Example) -> str:
    """The operation that made the task of an example, where the body is read by it."""
    return "stems_full" if "stems" in example.name else ""


def parts(update: TaskUpdate | None) -> Iterator[Any]:
    """An update and what is in it."""
    if update is None:
        return
    yield update
    yield update.clips
    yield from update.clips
    if update.failure is not None:
        yield update.failure
    if update.result is not None:
        yield update.result
        yield from getattr(update.result, "pairs", ())


def made_by_hand() -> Iterator[Any]:
    """What no body of the service alone makes."""
    credits = Credits(credits=3.5, extra_credits=1.0)
    ref = TaskRef("sonic", "t", "create_music", 1.5)
    request = request_of(
        "https://a.example", "POST /sonic/create", b'{"webhook_secret":"long secret","mv":"x"}'
    )
    owner = Owner("host", "boot", 7, "1", "nonce")
    task = JobTask(ref=ref, outcome="failed", refunded=True)
    job = Job(
        key="k", state="sent", request=request, created_at=1.0, updated_at=2.0, owner=owner, tasks=(task,)
    )
    yield from (Spending(credits), Spending(credits, Credits()), ref, request, owner, task, job)
    yield msgspec.structs.replace(job, previous=job, others=(ref,))
    yield from (Clips(), Stems(), Result({"n": 1}, task_id="t", family="sonic"), TaskUpdate("pending"))
    failed = TaskUpdate("failed", task_id="t", family="sonic", failure=Failure("no words", "policy", True))
    yield from (Task(ref.token), Task(ref.token, job_key="order-1", last=failed))
    refused = BatchItem(1, error=APIStatusError("bad words", status=200, type="policy"), raw={"error": "bad"})
    yield from (BatchItem(0, Task(ref.token)), refused, BatchItem())
    yield Batch("b", [BatchItem(0, Task(ref.token)), refused], submitted=1, job_key="k", raw={"n": 1})
    state = BatchState(task_id="t", state="failed", clips=[Clip()], failure=Failure("no words"))
    yield from (state, BatchStates(batch_id="b", tasks=[state]), BatchStates())
    yield ResponseInfo(status=200, headers={"x-request-id": "r"}, request_id="r", elapsed=0.5)
    yield HookEvent()
    call: dict[str, Any] = {
        "call": "GET /get-credits",
        "call_id": 1,
        "method": "GET",
        "url": "u",
        "attempt": 1,
    }
    yield from (CallEvent(**call), RequestEvent(**call), ResponseEvent(**call, status=200))
    yield RetryEvent(**call, reason="rate_limited", after=2.0)
    of_task: dict[str, Any] = {"family": "sonic", "kind": "create_music", "task_id": "t"}
    yield from (PollEvent(**of_task, call_id=1, late=0.1), TaskEndedEvent(**of_task, state="failed"))
    yield WebhookEvent(**of_task, event="song.streaming", state="running", can_stream=True)
    yield CallSettledEvent(family="sonic", kind="create_music", task_id="t", job_key="order-1")
    yield SpendingEvent(before=3.0, after=1.0, total=2.0)
    yield DownloadEvent(url="u", path="p", tries=1, seconds=0.5)


def instances() -> list[Any]:
    """All of them."""
    found = list(made_by_hand())
    for example in RESPONSES:
        try:
            found += read(example)
        except MusicAPIError:
            continue
    for example in WEBHOOKS:
        event = parse(example.raw, {"X-Webhook-Id": "w"})
        found += [event, *parts(event.update)]
    for one in list(found):
        if isinstance(one, msgspec.Struct):  # items inside of replies
            values = msgspec.structs.asdict(one).values()
            lists = (value for value in values if isinstance(value, list))
            found += [item for value in lists for item in value if isinstance(item, PlainData)]
    return found


INSTANCES = instances()


def names_of(value: object) -> Iterator[str]:
    """All keys of plain data, which must hold nothing else than plain data; those of a body are left out."""
    assert value is None or type(value) in (dict, list, str, int, float, bool)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            if name != "raw":
                yield from names_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_of(inner)


def check(one: Any) -> dict[str, Any]:
    """The plain data of `one`, the same in every way to get it and to take it back."""
    plain: dict[str, Any] = one.to_dict()
    names = set(names_of(plain))
    assert not {name for name in names if name.startswith(("_", "<"))}
    assert "raw" not in names or isinstance(one, Event)
    assert not names & {"signature", "webhook_secret"}
    assert "headers" not in names or isinstance(one, ResponseInfo)
    assert json.loads(json.dumps(plain)) == plain
    assert json.loads(one.to_json()) == plain
    assert msgspec.json.decode(msgspec.json.encode(one)) == plain
    assert jsonable_encoder(one) == plain
    raw = getattr(one, "raw", None)
    for again in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert type(again) is type(one)
        assert again.to_dict() == plain
        assert getattr(again, "raw", None) == raw
    kind = type(one)
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    assert adapter.dump_python(one) == plain
    for again in (adapter.validate_python(plain), adapter.validate_json(one.to_json())):
        assert again.to_dict() == plain
        assert type(again) is kind
    assert adapter.validate_python(one) is one
    schema = adapter.json_schema(mode="serialization")
    assert "anyOf" in schema or set(schema["properties"]) == set(schema["required"]) == set(plain)
    return plain


@pytest.mark.parametrize(
    "kind", sorted(PLAIN_KINDS, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
def test_each_exported_class_gives_plain_data_everywhere(kind: type[Any]) -> None:
    """dict, JSON, msgspec, FastAPI's encoder, pickle, copies, and pydantic in both directions."""
    found = [one for one in INSTANCES if type(one) is kind]
    assert found, "no example body gives one"
    for one in found:
        check(one)


def test_parts_of_results_give_plain_data_too() -> None:
    """Classes that are found inside of others, and clips of a poll that have not been read yet."""
    found = {type(one): one for one in INSTANCES if type(one) not in PLAIN_KINDS}
    assert {"Word", "Instrument"} <= {kind.__name__ for kind in found}
    for one in found.values():
        check(one)


def test_no_exported_result_was_forgotten() -> None:
    """What is exported, has fields, and is none of these is a result."""
    structs = {kind for kind in KINDS if issubclass(kind, msgspec.Struct)} - PLAIN_KINDS
    assert {kind.__name__ for kind in structs} == {"FileTags", "LaneLimits", "Rate", "Problem"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([*msgspec.structs.fields(Clip)]).map(lambda field: field.name), JSON),
    JSON,
)
def test_odd_replies_give_plain_data_all_the_same(mapping: dict[str, Any], other: Any) -> None:
    """Fields of any type, and fields that are not known."""
    clip = read_clip({**mapping, "new field": other, "raw": other})
    assert check(clip) == msgspec.to_builtins(clip)
    assert clip.raw["new field"] == clip.raw["raw"] == other


def test_a_field_of_a_reply_that_is_named_raw_changes_nothing() -> None:
    """`raw` is the whole object, and nothing that a reply can set."""
    clip = read_item(Clip, {"clip_id": "c", "raw": {"clip_id": "other"}})
    assert clip.raw == {"clip_id": "c", "raw": {"clip_id": "other"}}
    assert Clip().raw == {}


def test_copies_of_an_item_keep_their_raw_reply() -> None:
    """A shallow copy shares it, a deep one does not."""
    clip = read_clip({"clip_id": "c", "n": [1]})
    assert copy.copy(clip).raw is clip.raw
    assert copy.deepcopy(clip).raw == clip.raw
    assert copy.deepcopy(clip).raw is not clip.raw


class Album(BaseModel):
    """A model of a user."""

    cover: Clip | None = None
    clips: Clips = Clips()
    songs: list[Clip] = []
    result: Result | None = None
    update: TaskUpdate | None = None
    balance: Credits | None = None
    job: Job | None = None


def test_models_of_pydantic_hold_results() -> None:
    """From instances, from plain data, from JSON, and back."""
    clip = Clip(clip_id="c", state="failed")
    stems = Stems([Stem(clip_id="s", name="vocals")], task_id="t", family="sonic")
    error = TaskFailedError("bad words", type="moderation", refunded=True, task_id="t", family="sonic")
    update = TaskUpdate("failed", task_id="t", family="sonic", clips=Clips([clip]), error=error)
    album = Album(cover=clip, songs=[clip], result=stems, update=update, balance=Credits(credits=2.0))
    again = Album.model_validate_json(album.model_dump_json())
    assert again.model_dump() == album.model_dump()
    assert type(again.result) is Stems
    assert again.result["vocals"].clip_id == "s"
    assert again.update is not None
    with pytest.raises(TaskFailedError, match="bad words") as caught:
        again.update.outcome()
    assert (caught.value.refunded, caught.value.type, caught.value.task_id) == (True, "moderation", "t")
    assert again.update.failure == Failure("bad words", "moderation", True)


def test_a_field_of_clips_keeps_to_its_schema_with_stems_in_it() -> None:
    """Stems are Clips: a field typed `Clips` sends `items`, as its schema says; one typed `Result` sends stems."""
    stems = Stems([Stem(clip_id="s", name="vocals")])
    sent = TypeAdapter(Clips).dump_python(stems)
    assert [item["clip_id"] for item in sent["items"]] == ["s"]
    assert "stems" in TypeAdapter(Result).dump_python(stems)
    forms = TypeAdapter(Result).json_schema()["anyOf"]
    assert {"Clips", "Stems", "ConcatPairs", "Voice", "WrittenLyrics"} == {form["title"] for form in forms}


@pytest.mark.parametrize(
    "given",
    [
        {"cover": 3},
        {"cover": {"clip_id": [1]}},
        {"clips": {"items": [{"state": 1}, 2]}},
        {"job": {"key": "k"}},
        {"update": {"clips": {}}},
        {"update": {"state": "running", "clips": []}},
    ],
    ids=str,
)
def test_what_is_no_plain_data_of_a_class_is_refused(given: Any) -> None:
    """By pydantic's own error, which names the field."""
    with pytest.raises(ValidationError) as caught:
        Album.model_validate(given)
    assert caught.value.errors()[0]["loc"] == (next(iter(given)),)


def test_the_schema_of_a_class_that_holds_itself_ends() -> None:
    """A job has the job that it was before."""
    schema = TypeAdapter(Job).json_schema()
    assert {"type": "object", "title": "Job"} in schema["properties"]["previous"]["anyOf"]
    assert "key" in schema["required"]
    assert "owner" not in schema["required"]


def test_results_are_compared_by_their_fields() -> None:
    """Whatever the raw reply was, and whether the clips were read at once or later."""
    assert Clips([Clip(clip_id="a")], {"n": 1}) == Clips([Clip(clip_id="a")], {"n": 2})
    assert Clips(task_id="a") != Clips(task_id="b")
    assert Clips() != Stems()
    for one in INSTANCES:
        if isinstance(one, Clips) and type(one) is not Clips:
            assert one == copy.deepcopy(one)
