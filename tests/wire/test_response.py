"""Errors by status and words, submit replies, direct replies (contract, errors 1 to 3)."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from multidict import CIMultiDict

from musicapi_async._wire import call_reply, codec, response
from musicapi_async._wire.prepare import prepare
from musicapi_async._wire.redaction import Redactor
from musicapi_async._wire.retry import AttemptFailure
from musicapi_async.api.account import Account, Credits
from musicapi_async.api.direct_replies import Files, Midi, Upload
from musicapi_async.api.sonic import Sonic
from musicapi_async.errors import (
    APIStatusError,
    BadRequestError,
    ContentModerationError,
    EndpointRetiredError,
    InsufficientCreditsError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RequestValidationError,
    ServerError,
    StepFailedError,
    SubscriptionRequiredError,
    UpstreamError,
)
from musicapi_async.options import Options

CREATE = "POST /sonic/create"


def error(
    status: int, body: Any, headers: dict[str, str] | None = None, call: str = CREATE
) -> APIStatusError:
    """The error of an answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return response.error_of(response.read_response(status, CIMultiDict(headers or {}), raw), call=call)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (402, InsufficientCreditsError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (405, BadRequestError),
        (410, EndpointRetiredError),
        (422, BadRequestError),
        (429, RateLimitedError),
        (500, ServerError),
        (502, UpstreamError),
        (503, UpstreamError),
        (504, UpstreamError),
        (520, ServerError),
        (302, APIStatusError),
    ],
)
def test_the_status_chooses_the_class(status: int, kind: type[APIStatusError]) -> None:
    """Each status has its class, also with a body that says nothing."""
    assert type(error(status, b"")) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The remaining CREDITS ARE NOT ENOUGH. Renew your subscription.", InsufficientCreditsError),
        ("API QPS limit exceeded", RateLimitedError),
        ("queue is full", RateLimitedError),
        ("You do not have an active subscription.", SubscriptionRequiredError),
        ("The lyrics format is invalid.", ContentModerationError),
        ("... copyrighted content", ContentModerationError),
        ("... contains artist names", ContentModerationError),
        ("... producer tags: 'x'", ContentModerationError),
        ("API usage limit exceeded", PermissionDeniedError),
    ],
)
def test_a_403_is_split_by_its_text(text: str, kind: type[APIStatusError]) -> None:
    """The four meanings of 403 are told apart in the documented order, without regard to case."""
    assert type(error(403, {"type": "forbidden", "error": text})) is kind
    assert type(error(200, {"code": "403", "message": text})) is kind


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": "e", "message": "m"}, "e"),
        ({"error": "", "message": "m"}, "m"),
        ({"error": 5, "detail": "d"}, "d"),
        ({"error": {"message": "inner"}}, "inner"),
        ({"error": {"a": 1}}, '{"a":1}'),
        ({"failed_step": "upload", "steps": {"upload": {"message": "s"}}}, "s"),
        ({"x": 1}, '{"x":1}'),
        (b"<html>\n <b>Bad</b>\x1b[31m gateway</html>", "a page of HTML"),
        (b"<b>Bad</b>\x1b[31m\n gateway", "<b>Bad</b> [31m gateway"),
        (b"", "Bad Request"),
        ({"error": "a\nb\x00c"}, "a b c"),
    ],
)
def test_the_text_of_an_error(body: Any, text: str) -> None:
    """The first text that says something, on one line, without control characters."""
    assert error(400, body).message == text


def test_an_error_keeps_what_support_needs() -> None:
    """Body, type, code, headers, request id and Retry-After are fields, and the error pickles."""
    told = error(
        429,
        {"type": "rate_limited", "code": 429, "error": "slow"},
        {"Retry-After": "7", "CF-Ray": "ray", "X-Vercel-Id": "id"},
    )
    for one in (told, pickle.loads(pickle.dumps(told))):
        assert (one.type, one.code, one.request_id, one.retry_after) == ("rate_limited", 429, "id", 7)
        assert one.body == {"type": "rate_limited", "code": 429, "error": "slow"}
        assert one.headers["cf-ray"] == "ray"


def test_the_text_is_bounded_and_the_body_is_whole() -> None:
    """A long text is cut in the message and kept in the body."""
    told = error(400, {"error": "x" * 10_000})
    assert len(told.message) == 500
    assert len(told.body["error"]) == 10_000


def test_retirement_names_the_replacement() -> None:
    """A retired family or operation says what to use instead."""
    assert "producer.create_music" in str(error(410, {}, call="POST /nuro/create"))
    told = response.error_of(response.read_response(410, {}, b"{}"), call=CREATE, replacement="sonic.lyrics")
    assert isinstance(told, EndpointRetiredError)
    assert told.replacement == "sonic.lyrics"


def test_money_is_not_denied_after_a_failure_of_the_service() -> None:
    """A 5xx on a POST may have been charged; a refusal was not; polls never say either."""
    assert error(500, {}).may_have_been_charged
    assert "Nothing was charged" in str(error(400, {}))
    assert not error(500, {}, call="GET /get-credits").may_have_been_charged


@pytest.mark.parametrize(
    ("body", "task_id"),
    [
        ({"task_id": "a"}, "a"),
        ({"task_id": 7}, "7"),
        ({"task_id": "", "data": {"task_id": "b"}}, "b"),
        ({"code": "success", "data": "c"}, "c"),
        ({"code": "200", "data": "d"}, "d"),
        ({"task_id": "e", "steps": {"upload": {"success": False}}}, "e"),
        ({"task_id": "f", "failed_step": None, "warning": "w"}, "f"),
    ],
)
def test_the_task_id_is_found_wherever_it_stands(body: Any, task_id: str) -> None:
    """At the top, under data, or data itself."""
    assert (
        call_reply.read_submit(response.read_response(200, {}, json.dumps(body).encode()), call=CREATE)
        == task_id
    )


@pytest.mark.parametrize(
    "body", [{"message": "success"}, {"code": "error", "data": None}, [], "id", {"task_id": True}]
)
def test_a_2xx_without_a_task_id_may_have_been_charged(body: Any) -> None:
    """No id in a 2xx is an answer that cannot be understood, and money may have moved."""
    with pytest.raises(InvalidResponseError) as caught:
        call_reply.read_submit(response.read_response(200, {}, json.dumps(body).encode()), call=CREATE)
    assert caught.value.may_have_been_charged
    assert caught.value.body == body


def test_an_id_beside_an_error_is_kept() -> None:
    """A refusal that names a task keeps its id: nothing that was paid for gets lost."""
    with pytest.raises(ServerError) as caught:
        call_reply.read_submit(
            response.read_response(200, {}, b'{"code":500,"task_id":"t","message":"m"}'), call=CREATE
        )
    assert caught.value.task_id == "t"


@pytest.mark.parametrize("status", [200, 400, 403, 500])
def test_a_failed_step_is_one_error_at_every_status(status: int) -> None:
    """`failed_step`, or a step that says so where there is no task, is a StepFailedError."""
    named = {"failed_step": "sample", "steps": {}}
    told = {
        "message": "m",
        "steps": {"upload": {"success": True, "clip_id": "c"}, "extend": {"success": False}},
    }
    for body, step, clip_id in [(named, "sample", None), (told, "extend", "c")]:
        with pytest.raises(StepFailedError) as caught:
            call_reply.read_submit(response.read_response(status, {}, json.dumps(body).encode()), call=CREATE)
        assert (caught.value.failed_step, caught.value.clip_id) == (step, clip_id)


def read(operation: str, body: Any, status: int = 200) -> Any:
    """A direct reply of Sonic."""
    return call_reply.read_direct(
        response.read_response(status, {}, json.dumps(body).encode()), Sonic.operations()[operation]
    )


@pytest.mark.parametrize(
    "operation", ["wav", "create_persona", "upload", "vox", "upsample_tags", "lyrics", "download"]
)
def test_a_direct_reply_without_its_key_is_an_error(operation: str) -> None:
    """A 2xx without the one thing that was asked for may have been charged."""
    for body in ({}, {"message": "success", "data": {}}, {"data": None}, []):
        with pytest.raises(InvalidResponseError) as caught:
            read(operation, body)
        assert caught.value.may_have_been_charged


@pytest.mark.parametrize("operation", ["wav", "midi", "bpm", "aligned_lyrics", "lyrics", "upload"])
def test_an_error_text_in_a_2xx_is_the_services_own(operation: str) -> None:
    """`error` and no result is the service's error, with status 200."""
    with pytest.raises(APIStatusError) as caught:
        read(operation, {"error": "no such thing"})
    assert (caught.value.status, caught.value.message) == (200, "no such thing")


def test_calls_that_are_prepared_are_pending() -> None:
    """HTTP 202 asks for a repeat of midi and download, whatever its body; of others it is no result."""
    for body in [{"type": "not_ready"}, {"code": "202"}, {}]:
        pending = read("midi", body, 202)
        assert isinstance(pending, call_reply.Pending)
        assert isinstance(pending.reply, Midi)
        assert not pending.reply.ready
        assert isinstance(read("download", body, 202), call_reply.Pending)
        with pytest.raises(InvalidResponseError):
            read("wav", body, 202)


def test_a_200_that_is_not_ready_is_repeated_where_that_is_free() -> None:
    """Aligned lyrics alone; of midi and download, whose repeats are documented for 202, it is no result."""
    for body in [{"type": "not_ready"}, {"code": "202"}]:
        assert isinstance(read("aligned_lyrics", body), call_reply.Pending)
        for operation in ("midi", "download", "bpm"):
            with pytest.raises(InvalidResponseError) as caught:
                read(operation, body)
            assert caught.value.may_have_been_charged


def test_a_midi_without_a_link_is_returned() -> None:
    """Repeating a 200 might cost, so it is given as it came."""
    midi = read("midi", {"data": {"instruments": [{"notes": [{"pitch": "64", "start": 1}, 3]}, None]}})
    assert isinstance(midi, Midi)
    assert not midi.ready
    assert [note.pitch for note in midi.instruments[0].notes] == [64]


def test_an_upload_may_be_a_task() -> None:
    """An upload that is answered with a task gives its id."""
    upload = read("upload", {"task_id": "t"})
    assert isinstance(upload, Upload)
    assert (upload.clip_id, upload.task_id) == (None, "t")


def test_files_by_format() -> None:
    """Files without a link are left out; the format is looked up without regard to case."""
    files = read("download", {"data": {"files": [{"format": "WAV", "url": "u"}, {"format": "mp3"}, 1]}})
    assert isinstance(files, Files)
    assert (files.url("wav"), files.url("mp3")) == ("u", None)


def test_credits_are_never_made_up() -> None:
    """Numbers in any type; a missing one is 0; a body without any is no balance."""
    credits = Account.operations()["credits"]
    found = call_reply.read_direct(
        response.read_response(200, {}, b'{"credits":"12.5","extra_credits":null}'), credits
    )
    assert isinstance(found, Credits)
    assert found.total == 12.5
    with pytest.raises(InvalidResponseError) as caught:
        call_reply.read_direct(response.read_response(200, {}, b"{}"), credits)
    assert not caught.value.may_have_been_charged


@pytest.mark.parametrize(
    ("status", "raw", "failure"),
    [
        (200, b"{}", None),
        (202, b"", None),
        (200, b"<html>", AttemptFailure.INVALID_REPLY),
        (429, b"", AttemptFailure.RATE_LIMITED),
        (403, b'{"message":"Queue is full"}', AttemptFailure.RATE_LIMITED),
        (403, b'{"message":"no"}', AttemptFailure.REFUSED),
        (200, b'{"code":429}', AttemptFailure.RATE_LIMITED),
        (503, b"", AttemptFailure.SERVER_ERROR),
        (404, b"", AttemptFailure.REFUSED),
        (302, b"", AttemptFailure.REFUSED),
    ],
)
def test_how_an_answer_failed(status: int, raw: bytes, failure: AttemptFailure | None) -> None:
    """The kind of failure decides whether a call may be sent again."""
    assert response.failure_of(response.read_response(status, {}, raw)) is failure


def test_bodies_that_json_cannot_hold_are_refused() -> None:
    """What cannot be written as JSON is refused before it is sent, and the text says once what happened."""
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    for body in ({"a": object()}, {"a": "\ud800"}, loop):
        with pytest.raises(RequestValidationError, match=r"^POST /x: json: cannot be sent as JSON: "):
            codec.encode(body, "POST /x")
    assert codec.encode({"a": "ü"}, "POST /x") == '{"a":"ü"}'.encode()
    operation = Sonic.bpm
    options = Options(extra_body={"a": object()})
    with pytest.raises(RequestValidationError) as caught:
        prepare(operation, operation.request(clip_id="c"), options, str)
    assert str(caught.value).count("nothing was charged") == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("Thu, 09 Oct 2025 08:53:30 GMT", 10.0),
        ("Thu, 09 Oct 2025 08:00:00 GMT", 0.0),
        ("soon", None),
    ],
)
def test_a_wait_that_is_asked_for_counts_from_the_clock_of_the_client(
    value: str, seconds: float | None
) -> None:
    """One number for retries, polls and the error; the answer's own date is another machine's clock."""
    headers = CIMultiDict({"Retry-After": value, "Date": "Mon, 01 Jan 2001 00:00:00 GMT"})
    found = response.read_response(429, headers, b"{}", now=lambda: 1760000000.0)
    assert found.retry_after == seconds
    assert response.error_of(found, call="GET /x").retry_after == seconds


def test_a_date_means_nothing_without_a_clock() -> None:
    """Rather no wait than a wrong one."""
    headers = {"retry-after": "Thu, 09 Oct 2025 08:53:30 GMT"}
    assert response.read_response(429, headers, b"{}").retry_after is None


def test_a_refused_key_may_be_bound_to_addresses() -> None:
    """The same key works elsewhere: people must learn why it does not work here."""
    found = response.read_response(401, {}, b'{"type":"unauthorized","error":"Invalid API key"}')
    assert "bound to IP addresses" in str(response.error_of(found, call="GET /get-credits"))


def test_a_secret_at_the_cut_of_a_text_is_hidden_whole() -> None:
    """A body that is no JSON is shown in part: what is cut is the text whose secrets are hidden already."""
    key = "sk-" + "k" * 60
    for before in range(420, 520):
        found = response.read_response(502, {}, b"x" * before + key.encode(), Redactor([key]))
        for shown in (found.body, str(response.error_of(found, call="POST /sonic/create"))):
            assert "sk-" not in shown, before
