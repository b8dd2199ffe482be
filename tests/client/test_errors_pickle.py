"""Every error crosses a process boundary, whatever the peer sent: process pools hang on one that does not."""

from __future__ import annotations

import copy
import inspect
import pickle
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import aiohttp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

import musicapi_async
from musicapi_async import MusicAPIError, errors
from musicapi_async._wire import codec, response
from musicapi_async._wire.result_reading import read_clip

KINDS = sorted(
    {
        kind
        for module in (errors, musicapi_async)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, MusicAPIError)
    },
    key=lambda kind: kind.__name__,
)
FIELDS: dict[str, Callable[[Any], Any]] = {
    "body": lambda body: body,
    "last_body": lambda body: body,
    "steps": lambda body: {"upload": body},
    "clips": lambda body: [read_clip({"clip_id": "c", "state": "running", "extra": body})],
    "code": lambda body: "500",
    "type": lambda body: "\ud83d",
    "status": lambda body: 500,
    "headers": lambda body: CIMultiDictProxy(CIMultiDict({"X-Echo": "\udcff"})),
    "retry_after": lambda body: float("inf"),
    "task_id": lambda body: "t",
    "family": lambda body: "sonic",
    "call": lambda body: "POST /sonic/create",
}


class NeedsMore(Exception):
    """An exception that pickle saves and cannot load."""

    def __init__(self, one: str, *, two: str) -> None:
        super().__init__(one + two)


class Speechless(Exception):
    """An exception that neither pickles nor has a text."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())

    def __str__(self) -> str:
        raise RuntimeError("no text")


def _parse_error() -> aiohttp.ClientResponseError:
    headers = CIMultiDictProxy(CIMultiDict({"X": "y"}))
    info = aiohttp.RequestInfo(URL("http://host/"), "GET", headers, URL("http://host/"))
    return aiohttp.ClientResponseError(info, (), status=400, message="bad", headers=headers)


CAUSES: list[Callable[[], BaseException | None]] = [
    lambda: None,
    _parse_error,
    aiohttp.ServerDisconnectedError,
    lambda: ssl.SSLError(1, "handshake"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    lambda: NeedsMore("a", two="b"),
    Speechless,
    lambda: OSError(threading.Lock()),
    lambda: ExceptionGroup("several", [_parse_error(), ValueError("x")]),
    lambda: errors.ServerError("inner", status=500, body=deep(600)),
]


def deep(levels: int) -> Any:
    """A body as deep as the decoder takes it, as lists and as objects."""
    return codec.decode(b'[{"a":' * (levels // 2) + b"1" + b"}]" * (levels // 2))


def made(kind: type[MusicAPIError], body: Any, text: str, cause: BaseException | None) -> MusicAPIError:
    """An error of this class with everything in it that a peer can send."""
    known: set[str] = set()
    for one in kind.__mro__:
        if issubclass(one, MusicAPIError) and "__init__" in vars(one):
            names = inspect.signature(vars(one)["__init__"]).parameters
            known |= names.keys()
            if "fields" not in names:  # what the class above it takes is not taken here
                break
    error = kind(text, **{name: make(body) for name, make in FIELDS.items() if name in known})
    error.__cause__ = cause
    return error


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
LEVELS = st.sampled_from([0, 100, 300, 400, 500, 600, 700])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(sent=JSON, levels=LEVELS, text=st.text(st.characters()), cause=st.sampled_from(CAUSES))
@example(sent=None, levels=700, text="\ud83d", cause=_parse_error)
@settings(max_examples=15)
def test_every_error_pickles(
    kind: type[MusicAPIError], sent: Any, levels: int, text: str, cause: Callable[[], BaseException | None]
) -> None:
    """Class, texts and fields stay; so does the body, unless it is nested beyond what pickle takes."""
    error = made(kind, {"sent": sent, "deep": deep(levels)}, text, cause())
    told = str(error)
    again = pickle.loads(pickle.dumps([error]))[0]
    assert type(again) is kind
    assert (str(again), again.args, again.money, again.hint) == (told, error.args, error.money, error.hint)
    assert vars(again).keys() == vars(error).keys()
    assert (again.__cause__ is None) == (error.__cause__ is None)
    twice = pickle.loads(pickle.dumps(again))
    assert str(twice) == told


@pytest.mark.parametrize("levels", [10, 200, 600, 700])
def test_a_body_is_kept_as_far_as_pickle_takes_it(levels: int) -> None:
    """What fits is equal; of the rest the first hundred levels stay."""
    error = response.error_of(response.read_response(500, {}, b'{"error":"x"}'), call="GET /x")
    error.body = {"error": "x", "more": deep(levels)}
    again = pickle.loads(pickle.dumps(error))
    assert again.body["error"] == "x"
    if levels <= 200:
        assert again.body == error.body
    assert again.body["more"][0]["a"][0]["a"]


def test_a_copy_keeps_its_cause_and_body() -> None:
    """Each waiter gets a copy, in the same process: nothing is left out there."""
    cause, body = _parse_error(), deep(700)
    error = made(errors.ServerError, body, "x", cause)
    twin = copy.copy(error)
    assert twin is not error
    assert twin.__cause__ is cause
    assert isinstance(twin, errors.ServerError)
    assert twin.body is body


def test_a_cause_that_cannot_come_along_leaves_its_name_and_text() -> None:
    """What happened stays readable on the other side."""
    error = made(errors.ConnectionLostError, None, "x", NeedsMore("a", two="b"))
    assert str(pickle.loads(pickle.dumps(error)).__cause__).endswith("NeedsMore: ab")
    plain = made(errors.ConnectionLostError, None, "x", ValueError("plain"))
    assert isinstance(pickle.loads(pickle.dumps(plain)).__cause__, ValueError)


def fail(number: int) -> None:
    """Raise the error of a class, as a worker of a process pool would."""
    raise made(KINDS[number], deep(700), "\ud83d", CAUSES[number % len(CAUSES)]())


def show(error: MusicAPIError) -> str:
    """The text of an error that came from another process."""
    return str(error)


def test_every_error_crosses_a_process_boundary() -> None:
    """Raised by a worker of a process pool, and handed to one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        raised = [pool.submit(fail, number) for number in range(len(KINDS))]
        for kind, future in zip(KINDS, raised, strict=True):
            error = future.exception(timeout=60)
            assert isinstance(error, MusicAPIError)
            assert type(error) is kind
            assert pool.submit(show, error).result(timeout=60) == str(error)
