"""Whatever the service sends, the readers raise nothing but their own errors and make up no success."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from musicapi_async._wire import call_reply, codec, poll_response, poll_rules, response
from musicapi_async._wire.redaction import NOTHING_KNOWN
from musicapi_async.api.account import Credits
from musicapi_async.api.families import FAMILIES, polled_as
from musicapi_async.api.lyrics import LyricsDrafts
from musicapi_async.api.task import TaskRef
from musicapi_async.errors import MusicAPIError

EXAMPLES = Path(__file__).parent.parent / "contract" / "examples"
BODIES = [
    (entry["file"], json.loads((EXAMPLES / entry["file"]).read_bytes()))
    for entry in json.loads((EXAMPLES / "INDEX.json").read_bytes())
    if entry["kind"] in {"response", "webhook"}
]
POLLS = [
    ("sonic", "create_music"),
    ("sonic", "stems_full"),
    ("sonic", "create_voice"),
    ("suno", "make_lyrics"),
    ("producer", "create_music"),
    ("nuro", "create_vocal"),
    ("riffusion", "create"),
    ("studio", "create"),
]
OPERATIONS = [one for family in FAMILIES.values() for one in family.operations().values()]
STATUSES = st.sampled_from(
    [200, 200, 200, 201, 202, 204, 302, 400, 401, 402, 403, 404, 410, 429, 500, 503, 504]
)

DEEP = "<deep>"
"""Stands for many brackets until the body is text."""

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", " ", "5", "-1", "NaN", "1e999", "SUCCESS", "succeeded", "failed", "FAILED", "\u0000"]
    ),
    st.sampled_from(
        ["queued", "complete", "https://x.example/a.mp3", "https://[bad", "not_ready", "timeout"]
    ),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.just([None, 1, "x", {}]),
    st.just({"message": {"a": [1]}}),
).map(copy.deepcopy)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, as the keys that lead there."""
    found = [path] if path else []
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A body of the contract with a few things wrong."""
    _, source = draw(st.sampled_from(BODIES))
    body = json.loads(json.dumps(source))
    for _ in range(draw(st.integers(0, 4))):
        targets = places(body)
        if not targets:
            break
        *way, last = draw(st.sampled_from(targets))
        holder = body
        for key in way:
            holder = holder[key]
        match draw(st.sampled_from(["drop", "null", "odd", "text", "rename", "add", "deep", "double"])):
            case "drop":
                del holder[last]
            case "null":
                holder[last] = None
            case "text":
                holder[last] = str(holder[last])
            case "rename" if isinstance(holder, dict):
                holder[str(last) + "_new"] = holder.pop(last)
            case "add" if isinstance(holder, dict):
                key = draw(st.sampled_from(["code", "type", "status", "error", "failed_step", "steps", "x"]))
                holder[key] = draw(ODD)
            case "deep":
                holder[last] = DEEP
            case "double" if isinstance(holder, list):
                holder.append(holder[last])
            case _:
                holder[last] = draw(ODD)
    depth = draw(st.sampled_from([3, 90, 600, 100_000]))
    raw = json.dumps(body).encode().replace(json.dumps(DEEP).encode(), b"[" * depth + b"]" * depth)
    match draw(st.sampled_from(["whole"] * 6 + ["cut", "bytes", "page", "mark"])):
        case "cut":
            return raw[: draw(st.integers(0, len(raw)))]
        case "bytes":
            at = draw(st.integers(0, len(raw)))
            return raw[:at] + draw(st.binary(min_size=1, max_size=4)) + raw[at:]
        case "page":
            return b"<html><body>502 Bad Gateway</body></html>"
        case "mark":
            return b"\xef\xbb\xbf" + raw
    return raw


def decoded(raw: bytes) -> Any:
    """The body as an error or an update should keep it."""
    try:
        return codec.decode(raw)
    except codec.MalformedBody:
        return response.excerpt(raw, NOTHING_KNOWN)


def outcome(read: Callable[[], Any]) -> Any:
    """What a reader gives, or its error."""
    try:
        return read()
    except MusicAPIError as error:
        return error


def links(item: dict[str, Any]) -> bool:
    """An item has a link to a file."""
    urls = (item.get(name) for name in ("audio_url", "wav_url", "video_url"))
    return any(isinstance(url, str) and url.startswith("http") and is_url(url) for url in urls)


def is_url(text: str) -> bool:
    try:
        return bool(urlsplit(text).hostname)
    except ValueError:
        return False


def ended(item: Any) -> bool:
    """An item says by itself that it has ended."""
    if not isinstance(item, dict):
        return False
    if "full" in item or "extended" in item or "replaced" in item:
        return any(isinstance(part, dict) and ended(part) for part in item.values())
    if "state" in item:
        return isinstance(item["state"], str) and item["state"].lower() in {"succeeded", "failed"}
    return links(item) or item.keys() == {"clip_id"}


def says_done(body: Any, family: str) -> bool:
    """An independent reading of 'done', as loose as can be: some word or key must really say it."""
    if not isinstance(body, dict):
        return False
    data, status = body.get("data"), body.get("status")
    if family == "nuro":
        return isinstance(status, str) and status.lower() == "succeeded"
    if family == "studio":
        return isinstance(data, dict) and str(data.get("status")).upper() == "SUCCESS"
    if isinstance(data, dict):
        return (
            bool(data.get("persona_id") or data.get("text")) or str(data.get("status")).lower() == "complete"
        )
    if family == "producer" and isinstance(status, str) and status.upper() == "SUCCESS":
        return True
    return isinstance(data, list) and bool(data) and all(map(ended, data))


@pytest.mark.parametrize(("family", "kind"), POLLS)
@settings(max_examples=75, deadline=None)
@given(raw=mutated(), status=STATUSES)
def test_a_mangled_poll_is_judged_and_never_done_by_mistake(
    family: str, kind: str, raw: bytes, status: int
) -> None:
    """Any body at any status gives a judgement; 'done' only where the body says so; the body is kept."""
    polled = polled_as(family, kind)
    assert polled is not None
    body = decoded(raw)
    result = poll_response.judge_poll(
        response.read_response(status, CIMultiDict({"Retry-After": "3"}), raw),
        ref=TaskRef(family, "t", kind),
        polled=polled,
    )
    if result.update is not None:
        assert result.update.raw == body
        assert result.update.fingerprint()
    if result.phase == "done":
        assert 200 <= status < 300
        assert says_done(body, family), body
    else:
        assert result.result is None
    history = None
    for count in range(6):
        conclusion = poll_rules.conclude(result, history, age=100.0 + count, own=False, now=130.0 * count)
        history = conclusion.history
        assert 0 <= conclusion.pause <= 60
        if conclusion.update is not None and conclusion.update.result is not None:
            assert says_done(body, family), body
            for clip in conclusion.update.clips:
                assert clip.final_url is None or clip.final_url.startswith("http")
        if conclusion.is_final:
            break
    else:
        assert result.phase in {"pending", "running", "rate_limited"}
    error = conclusion.error or (conclusion.update.error if conclusion.update else None)
    if error is not None:
        assert isinstance(error, MusicAPIError)
        assert error.task_id == "t"
        assert str(error)


@settings(max_examples=200, deadline=None)
@given(raw=mutated(), status=STATUSES)
def test_a_mangled_submit_reply_is_a_task_or_one_of_our_errors(raw: bytes, status: int) -> None:
    """A task id is never made up, and a 2xx without one says that the account may have been charged."""
    body = decoded(raw)
    found = response.read_response(status, {}, raw)
    accepted = outcome(lambda: call_reply.read_submit(found, call="POST /sonic/create"))
    if isinstance(accepted, MusicAPIError):
        assert getattr(accepted, "body", None) == body
        assert str(accepted)
        return
    assert 200 <= status < 300
    assert found.body == body
    assert json.dumps(accepted)[1:-1] in json.dumps(body)


@settings(max_examples=200, deadline=None)
@given(
    raw=mutated(), status=STATUSES, operation=st.sampled_from([one for one in OPERATIONS if not one.polled])
)
def test_a_mangled_direct_reply_is_a_reply_or_one_of_our_errors(
    raw: bytes, status: int, operation: Any
) -> None:
    """Direct replies keep the body, need their key, and raise only our errors."""
    body = decoded(raw)
    reply = outcome(lambda: call_reply.read_direct(response.read_response(status, {}, raw), operation))
    if isinstance(reply, MusicAPIError):
        assert getattr(reply, "body", None) == body
        assert str(reply)
        return
    assert 200 <= status < 300
    if not isinstance(reply, call_reply.Pending):
        assert reply.raw == body
        needs = operation.reply.needs  # a balance may be zero, and a list of lyrics empty
        assert (
            not needs
            or isinstance(reply, Credits | LyricsDrafts)
            or any(getattr(reply, name) for name in needs)
        )
        assert repr(reply)


@given(st.binary(max_size=200))
def test_decoding_raises_one_error_only(raw: bytes) -> None:
    """Bytes are JSON or `MalformedBody`, whatever they are."""
    with contextlib.suppress(codec.MalformedBody):
        json.dumps(codec.decode(raw))
