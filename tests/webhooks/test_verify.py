"""Nothing is believed that is not signed, and nothing is raised but the one error."""

from __future__ import annotations

import ast
import hashlib
import hmac
import inspect
import json
import pickle
from contextlib import suppress
from email.message import Message
from typing import Any

import pytest
from deliveries import EVENT_ID, NOW, SECRET, deliver, example
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from musicapi_async import Clips, Voice, WebhookVerificationError
from musicapi_async._wire import signature
from musicapi_async.webhooks import WEBHOOK_BODY_LIMIT, parse, sign, sign_body, verify

FAILED = example("webhook-sonic-failed")


def test_the_documented_vector_is_reproduced() -> None:
    """The contract's own secret, time and body give its signature, and verify accepts it."""
    vector = example("webhook-signature-vector")
    raw = vector["raw_body"].encode()
    assert sign(vector["secret"], vector["timestamp"], raw) == vector["signature"]
    event = verify(raw, example("webhook-headers"), vector["secret"], now=1760000000)
    assert (event.event, event.platform, event.family) == ("song.failed", "suno", "sonic")
    assert event.refunded is True
    assert event.dedupe_key == EVENT_ID
    assert event.raw["message"] == "Example failure"


@pytest.mark.parametrize(
    ("name", "family", "state", "clips"),
    [
        ("sonic-completed", "sonic", "succeeded", 2),
        ("sonic-completed-platform-sonic", "sonic", "succeeded", 1),
        ("sonic-streaming", "sonic", "running", 2),
        ("sonic-failed", "sonic", "failed", 0),
        ("sonic-voice-completed", "sonic", "succeeded", 0),
        ("producer-completed", "producer", "succeeded", 1),
        ("producer-failed", "producer", "failed", 0),
        ("nuro-completed", "nuro", "succeeded", 1),
        ("nuro-failed", "nuro", "failed", 0),
    ],
)
def test_every_documented_payload_reads_as_a_poll_would(
    name: str, family: str, state: str, clips: int
) -> None:
    """Platform, family, state, clips and result of each example body."""
    body = example(f"webhook-{name}")
    event = verify(*deliver(body), SECRET, now=NOW)
    assert event.event == body["event"]
    assert event.family == family
    assert event.task_id == body["task_id"]
    assert event.update.state == state
    assert event.is_terminal is (state != "running")
    assert len(event.update.clips) == clips
    assert event.raw == body
    if state == "failed":
        assert event.result is None
        assert event.refunded is body["refund_processed"]
    elif "voice" in name:
        assert isinstance(event.result, Voice)
        assert event.result.persona_id == "dddddddd-0000-4000-8000-000000000001"
    elif state == "succeeded":
        assert isinstance(event.result, Clips)
        assert event.result[0].duration in (104.88, 31.2, 199.04325)
        assert event.result[0].final_url
    else:
        assert all(clip.stream_url for clip in event.update.clips)


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_no_changed_byte_of_body_signature_or_time_is_accepted(flip: int) -> None:
    """Every byte position of the body and of both signed headers, flipped."""
    raw, headers = deliver(FAILED)
    for index in range(len(raw)):
        changed = bytearray(raw)
        changed[index] ^= flip
        with pytest.raises(WebhookVerificationError):
            verify(bytes(changed), headers, SECRET, now=NOW)
    for name in ("X-Webhook-Signature", "X-Webhook-Timestamp"):
        for index in range(len(headers[name])):
            letters = bytearray(headers[name].encode())
            letters[index] ^= flip
            with pytest.raises(WebhookVerificationError):
                verify(raw, {**headers, name: letters.decode("latin-1")}, SECRET, now=NOW)


@pytest.mark.parametrize("name", ["X-Webhook-Signature", "X-Webhook-Timestamp"])
@pytest.mark.parametrize(
    "value",
    [
        "", " ", "sha256=", "sha256", "0", "-1760000000", "+1760000000", "1760000000.0", "1_760_000_000",
        "１７６０００００００", "1760000000\n", " 1760000000", "0x68E7D000", "nan", "inf", "1e9",
        "sha256=" + "g" * 64, "sha256=" + "a" * 63, "sha256=" + "a" * 65, "sha256=" + "é" * 64,
        "sha256= " + "a" * 63, "sha1=" + "a" * 64, "SHA256=" + "a" * 64, "a" * 64, "\x00", "\ud800", "é",
        "1" * 10_000_000, "sha256=" + "a" * 10_000_000,
    ],
)  # fmt: skip
def test_malformed_header_is_refused(name: str, value: str) -> None:
    """Missing parts, other alphabets, signs, white space and ten megabytes: one error, at once."""
    raw, headers = deliver(FAILED)
    with pytest.raises(WebhookVerificationError) as caught:
        verify(raw, {**headers, name: value}, SECRET, now=NOW)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["X-Webhook-Signature", "X-Webhook-Timestamp"])
def test_missing_or_doubled_header_is_refused(name: str) -> None:
    """Without it, with it twice in one mapping (by case), or twice in a multi-mapping, even when equal."""
    raw, headers = deliver(FAILED)
    others = {key: value for key, value in headers.items() if key != name}
    cases: list[Any] = [
        others,
        {**headers, name.lower(): headers[name]},
        CIMultiDict([*headers.items(), (name, headers[name])]),
        [*headers.items(), (name.upper(), "x")],
        {**headers, name: f"{headers[name]}, {headers[name]}"},
    ]
    for case in cases:
        with pytest.raises(WebhookVerificationError):
            verify(raw, case, SECRET, now=NOW)


def test_huge_or_doubled_id_is_refused_and_a_missing_one_is_not() -> None:
    """The id only distinguishes deliveries; without one the payload does."""
    raw, headers = deliver(FAILED)
    for bad in ({**headers, "X-Webhook-Id": "x" * 201}, [*headers.items(), ("x-webhook-id", "other")]):
        with pytest.raises(WebhookVerificationError):
            verify(raw, bad, SECRET, now=NOW)
    del headers["X-Webhook-Id"]
    assert verify(raw, headers, SECRET, now=NOW).dedupe_key == EVENT_ID
    del headers["Idempotency-Key"]
    key = verify(raw, headers, SECRET, now=NOW).dedupe_key
    assert key == "suno:11111111-1111-4111-8111-111111111111:song.failed"


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"null", b"[]", b'"text"', b"12", b"{", b"{}}", b"\xff\xfe", b'{"a":"\xff"',
        b'{"a":NaN', b'{"a":nano}', b'["\\ud800"]', b'{"a":1,}', b"{'a':1}",
        b"[" * 100_000, b'{"a":' * 100_000, b"\x00" * 100, b'{"a":"' + b"x" * WEBHOOK_BODY_LIMIT + b'"}',
        b" " * 10_000_000,
    ],
)  # fmt: skip
def test_signed_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    """Empty, huge, no text, other JSON, no JSON, words that JSON has not: one error."""
    raw, headers = deliver(body)
    with pytest.raises(WebhookVerificationError):
        verify(raw, headers, SECRET, now=NOW)
    with pytest.raises(WebhookVerificationError):
        parse(raw)


def test_signed_body_that_is_not_quite_json_is_read() -> None:
    """The signature is over the bytes as they came; a cut emoji or a stray byte is no forgery."""
    body = (
        b'{"event":"song.completed","platform":"suno","task_id":"t-1","data":[{"clip_id":"c-1","state":"succeeded",'
        b'"title":"Rain \\ud83d","tags":"caf\xe9\tlo-fi","duration":NaN,"audio_url":"https://cdn.example/c.mp3"}]}'
    )
    raw, headers = deliver(body)
    event = verify(raw, headers, SECRET, now=NOW)
    assert (event.task_id, event.is_terminal) == ("t-1", True)
    assert event.result is not None
    (clip,) = event.result.clips
    assert (clip.title, clip.tags, clip.final_url) == (
        "Rain \ufffd",
        "caf\ufffd\tlo-fi",
        "https://cdn.example/c.mp3",
    )
    with pytest.raises(WebhookVerificationError):
        verify(raw.replace(b"\xe9", "\ufffd".encode()), headers, SECRET, now=NOW)
    raw, headers = deliver(body.replace(b"t-1", b"t-\xe9"))
    assert verify(raw, headers, SECRET, now=NOW).task_id is None


@pytest.mark.parametrize("away", [-301, -300, -299, 0, 299, 300, 301, 10_000_000])
def test_the_time_of_signing_may_be_300_seconds_away(away: int) -> None:
    """Early or late by 300 s passes, by 301 s does not; `now` may be a function."""
    raw, headers = deliver(FAILED, at=NOW - away)
    if abs(away) <= 300:
        assert verify(raw, headers, SECRET, now=NOW).timestamp == NOW - away
        assert verify(raw, headers, SECRET, now=lambda: float(NOW)).event == "song.failed"
    else:
        with pytest.raises(WebhookVerificationError, match="300 s"):
            verify(raw, headers, SECRET, now=NOW)
        assert verify(raw, headers, SECRET, now=NOW, tolerance=10_000_000)


@pytest.mark.parametrize("now", [float("nan"), float("inf"), -float("inf")])
def test_clock_that_is_no_number_accepts_nothing(now: float) -> None:
    """A broken clock must not open the window for ever."""
    with pytest.raises(WebhookVerificationError):
        verify(*deliver(FAILED), SECRET, now=now)


def test_several_secrets_are_accepted_while_one_is_replaced() -> None:
    """Old and new secret both verify; a third does not, and none at all never does."""
    for secret in ("old", "new"):
        raw, headers = deliver(FAILED, secret=secret)
        assert verify(raw, headers, ["new", "old"], now=NOW)
        assert verify(raw, headers, (b"new", b"old"), now=NOW)
    raw, headers = deliver(FAILED, secret="")
    nothing: list[Any] = [["new", "old"], "", b"", [], [""], None, ["", b""], 0, 5, object(), [5, None]]
    for secrets in nothing:
        with pytest.raises(WebhookVerificationError):
            verify(raw, headers, secrets, now=NOW)


@pytest.mark.parametrize("secret", [" " * 16, " secret", "secret\n", b"secret\r\n", "\u00a0secret", "\t"])
def test_secret_with_white_space_at_its_ends_is_refused(secret: str | bytes) -> None:
    """A blank one, or one read with its line end, is named as the fault, not a signature that does not match."""
    text = secret if isinstance(secret, str) else secret.decode()
    raw, headers = deliver(FAILED, secret=text)
    for secrets in (secret, [SECRET, secret]):
        with pytest.raises(WebhookVerificationError, match="white space at its ends"):
            verify(raw, headers, secrets, now=NOW)


def test_body_and_headers_may_change_places() -> None:
    """A mapping in any case, a multi-mapping, pairs, pairs of bytes as ASGI has them; hex in either case."""
    raw, headers = deliver(FAILED)
    loud = {key.upper(): value for key, value in headers.items()}
    loud["X-WEBHOOK-SIGNATURE"] = "sha256=" + headers["X-Webhook-Signature"][7:].upper()
    asgi = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    stdlib = Message()
    for key, value in headers.items():
        stdlib[key] = value
    forms: list[Any] = [headers, loud, CIMultiDict(headers), list(headers.items()), asgi, dict(asgi), stdlib]
    for form in forms:
        assert verify(raw, form, SECRET, now=NOW).task_id == FAILED["task_id"]
        assert verify(form, raw, SECRET, now=NOW).task_id == FAILED["task_id"]
    assert verify(bytearray(raw), headers, SECRET, now=NOW)
    assert verify(raw=raw, headers=headers, secrets=SECRET, now=NOW, tolerance=1)


@pytest.mark.parametrize("wrong", [None, 5, "text", object(), [1], [("a",)], {"a": 1}, {1: "a"}, [b"ab"]])
def test_arguments_of_another_type_are_refused_with_the_same_error(wrong: Any) -> None:
    """A framework that hands over something odd gets the error that its handler expects."""
    raw, headers = deliver(FAILED)
    with pytest.raises(WebhookVerificationError):
        verify(raw, wrong, SECRET, now=NOW)
    with pytest.raises(WebhookVerificationError):
        verify(wrong, headers, SECRET, now=NOW)


def test_older_header_counts_only_when_requested() -> None:
    """`X-Signature` over the body alone, with or without its prefix."""
    raw, _ = deliver(FAILED)
    headers = {"X-Signature": sign_body(SECRET, raw)}
    assert headers["X-Signature"][7:] == hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
    assert verify(raw, headers, SECRET, scheme="X-Signature").event == "song.failed"
    bare = {"X-Signature": headers["X-Signature"][7:]}
    assert verify(raw, bare, SECRET, scheme="X-Signature").event == "song.failed"
    with pytest.raises(WebhookVerificationError):
        verify(raw, headers, SECRET, now=NOW)
    with pytest.raises(WebhookVerificationError):
        verify(raw + b" ", headers, SECRET, scheme="X-Signature")


@pytest.mark.parametrize(
    ("body", "event", "family", "state"),
    [
        ({}, "song.failed", "", "pending"),
        ({"event": "song.remixed", "platform": "Suno", "task_id": "t"}, "song.remixed", "sonic", "pending"),
        ({"event": "x", "platform": "futura", "task_id": 7}, "x", "futura", "pending"),
        ({"event": "song.failed", "task_id": "t"}, "song.failed", "", "failed"),
        ({"event": "song.failed", "platform": "futura"}, "song.failed", "futura", "failed"),
        ({"event": ["x"], "platform": {"a": 1}, "task_id": []}, "song.failed", "", "pending"),
        ({"platform": "suno", "data": "nothing"}, "song.failed", "sonic", "pending"),
        ({"platform": "suno", "data": [1, None, {"clip_id": 3}]}, "song.failed", "sonic", "running"),
    ],
)
def test_unknown_events_and_odd_payloads_are_read(
    body: dict[str, Any], event: str, family: str, state: str
) -> None:
    """A signed body is never refused for its shape; it reads as an unfinished task, but for `song.failed`."""
    read = verify(*deliver(body), SECRET, now=NOW)
    assert (read.event, read.family, read.update.state) == (event, family, state)
    assert read.raw == body


def test_error_names_the_fault_and_no_secret() -> None:
    """The text helps the operator, never an attacker; it pickles."""
    raw, headers = deliver(FAILED, secret="other")
    with pytest.raises(WebhookVerificationError) as caught:
        verify(raw, headers, SECRET, now=NOW)
    text = str(caught.value)
    assert "does not match" in text
    assert SECRET not in text
    assert sign(SECRET, NOW, raw)[7:] not in text
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_the_comparison_takes_the_same_time_wherever_it_fails() -> None:
    """Each secret is tried to the end by `hmac.compare_digest`; nothing returns early, nothing compares by ==."""
    made = bytes.fromhex(sign("", 1, b"x").removeprefix("sha256="))
    assert not signature.is_made_by(["", b""], b"1.x", made)
    nodes = list(ast.walk(ast.parse(inspect.getsource(signature.is_made_by))))
    assert sum(isinstance(node, ast.Attribute) and node.attr == "compare_digest" for node in nodes) == 1
    assert not any(isinstance(node, ast.Eq | ast.NotEq | ast.Break | ast.In) for node in nodes)
    assert sum(isinstance(node, ast.Return) for node in nodes) == 1


WHOLE = st.text(min_size=1).filter(lambda secret: secret == secret.strip())


@given(raw=st.binary(max_size=200), at=st.integers(0, 2**33), secret=WHOLE)
def test_only_signed_json_objects_pass(raw: bytes, at: int, secret: str) -> None:
    """Any bytes, any secret: either an event or the one error about the body, never about the signature."""
    headers = {"X-Webhook-Timestamp": str(at), "X-Webhook-Signature": sign(secret, at, raw)}
    with suppress(WebhookVerificationError):
        verify(raw, headers, secret, now=at)
        return
    assert not isinstance(_json(raw), dict)


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


NAMES = st.sampled_from(["X-Webhook-Signature", "x-webhook-timestamp", "X-Webhook-Id", "X-Signature", "a"])
VALUES = st.one_of(st.text(), st.binary(), st.none(), st.integers(), st.just(f"sha256={'a' * 64}"))


@given(
    raw=st.one_of(st.binary(), st.text(), st.none(), st.just(json.dumps(FAILED).encode())),
    headers=st.one_of(st.none(), st.dictionaries(NAMES, VALUES), st.lists(st.tuples(NAMES, VALUES))),
    secrets=st.one_of(st.text(), st.binary(), st.lists(st.one_of(st.text(), st.none()))),
    scheme=st.sampled_from(["X-Webhook-Signature", "X-Signature"]),
)
def test_any_input_raises_one_error_only(raw: Any, headers: Any, secrets: Any, scheme: Any) -> None:
    """Any types in any place: nothing is accepted, nothing else is raised."""
    with pytest.raises(WebhookVerificationError):
        verify(raw, headers, secrets, now=0, scheme=scheme)


KEYS = st.sampled_from(["data", "task_id", "platform", "event", "type", "code", "status", "state", "clip_id"])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(["suno", "producer", "nuro", "succeeded", "FAILED"]),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(body=st.dictionaries(KEYS, TREES))
def test_any_signed_object_becomes_an_event(body: dict[str, Any]) -> None:
    """Lenient in what it reads: no shape of a payload raises."""
    event = verify(*deliver(body), SECRET, now=NOW)
    assert event.raw == body
    assert isinstance(event.event, str)
