"""Retry: what may be sent again, after how long, and what a server may ask for."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from musicapi_async._wire.retry import (
    RETRY_AFTER_LONGEST,
    AttemptFailure,
    Draw,
    MethodKind,
    decide,
    delays,
    drawing,
    equal_jitter,
    parse_retry_after,
    spread,
)
from musicapi_async.options import Options

KINDS: list[MethodKind] = ["get", "create", "repeatable"]
NOW = 1_800_000_000.0

kinds = st.sampled_from(KINDS)
failures = st.sampled_from(list(AttemptFailure))
draws = st.integers().map(Random).map(drawing) | st.just(drawing(None))


@pytest.mark.parametrize(
    ("failure", "get", "create", "repeatable"),
    [
        (AttemptFailure.NOT_SENT, True, True, True),
        (AttemptFailure.SENT_UNKNOWN, True, False, True),
        (AttemptFailure.RATE_LIMITED, True, True, True),
        (AttemptFailure.SERVER_ERROR, True, False, False),
        (AttemptFailure.INVALID_REPLY, True, False, False),
        (AttemptFailure.REFUSED, False, False, False),
    ],
)
def test_what_may_be_sent_again(failure: AttemptFailure, get: bool, create: bool, repeatable: bool) -> None:
    """A create is repeated only when it was not sent or was refused for its rate."""
    answers = [decide(kind, failure, 1, None, Options(), drawing(None)) is not None for kind in KINDS]
    assert answers == [get, create, repeatable]


@given(kinds, st.text(), st.integers(1, 3), draws)
def test_an_unknown_failure_is_never_repeated(
    kind: MethodKind, failure: str, attempt: int, draw: Draw
) -> None:
    """A word that nobody knows is no proof that nothing was charged."""
    if failure not in list(AttemptFailure):
        assert decide(kind, failure, attempt, None, Options(), draw) is None


def test_creates_after_a_5xx_are_an_explicit_choice() -> None:
    """Only the policy that says so repeats a create after a server error, and nothing else changes."""
    daring = Options(resend_creates_on_5xx=True)
    assert decide("create", AttemptFailure.SERVER_ERROR, 1, None, daring, drawing(Random(0))) is not None
    assert decide("create", AttemptFailure.SENT_UNKNOWN, 1, None, daring, drawing(Random(0))) is None
    assert decide("create", AttemptFailure.INVALID_REPLY, 1, None, daring, drawing(Random(0))) is None


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_attempts_end(max_retries: int) -> None:
    """After as many repeats as the policy allows there is none."""
    policy = Options(max_retries=max_retries)
    waits = [decide("get", AttemptFailure.NOT_SENT, n, None, policy, drawing(Random(n))) for n in range(1, 6)]
    assert [wait is not None for wait in waits] == [n <= max_retries for n in range(1, 6)]


@given(st.integers(1, 100), draws)
def test_waits_double_up_to_the_cap(attempt: int, draw: Draw) -> None:
    """The wait lies between half and all of 1, 2, 4, 8, 8, … seconds."""
    wait = decide("get", AttemptFailure.SERVER_ERROR, attempt, None, Options(max_retries=100), draw)
    nominal = min(2.0 ** min(attempt - 1, 10), 8.0)
    assert wait is not None
    assert nominal / 2 <= wait <= nominal


@given(kinds, failures, st.integers(1, 3), st.floats(0, 60), draws)
def test_retry_after_is_a_floor(
    kind: MethodKind, failure: AttemptFailure, attempt: int, retry_after: float, draw: Draw
) -> None:
    """No jitter undercuts what the server asked for."""
    wait = decide(kind, failure, attempt, retry_after, Options(), draw)
    assert wait is None or wait >= retry_after


def test_a_retry_after_beyond_the_cap_is_not_waited_for() -> None:
    """More than a minute is the caller's decision."""
    assert decide("get", AttemptFailure.RATE_LIMITED, 1, 60.0, Options(), drawing(None)) == 60
    assert decide("get", AttemptFailure.RATE_LIMITED, 1, 60.1, Options(), drawing(None)) is None
    assert decide("get", AttemptFailure.RATE_LIMITED, 1, float("inf"), Options(), drawing(None)) is None


@pytest.mark.parametrize("retry_after", [float("nan"), -3.0, 0.0])
def test_a_retry_after_without_sense_is_ignored(retry_after: float) -> None:
    """The wait is then the same as without it."""
    waits = [
        decide("get", AttemptFailure.RATE_LIMITED, 2, hint, Options(), drawing(Random(7)))
        for hint in (retry_after, None)
    ]
    assert waits[0] == waits[1]


def test_delays_are_numbers_from_the_first() -> None:
    """The value that only starts backoff's generator does not come through."""
    assert list(itertools.islice(delays(1, 8), 6)) == [1, 2, 4, 8, 8, 8]
    assert list(itertools.islice(delays(0.5, 3), 5)) == [0.5, 1, 2, 3, 3]


@given(st.floats(0.001, 1e6), draws)
def test_jitter_stays_in_its_bounds(value: float, draw: Draw) -> None:
    """Equal jitter waits at least half, a spread of a tenth stays within it, and none is ever 0."""
    assert value / 2 <= equal_jitter(value, draw) <= value
    assert value * 0.9 * (1 - 1e-9) <= spread(value, 0.1, draw) <= value * 1.1 * (1 + 1e-9)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_spread_that_could_reach_zero_is_refused(fraction: float) -> None:
    """The fraction is at least 0 and below 1."""
    with pytest.raises(ValueError, match="fraction"):
        spread(10, fraction, drawing(Random(0)))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0.4", 0.4),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("Fri, 15 Jan 2027 08:01:00 -0000", 60.0),
        ("Fri, 15 Jan 2027 09:01:00 +0100", 60.0),
        ("Friday, 15-Jan-27 08:01:00 GMT", 60.0),
        ("Thu, 14 Jan 2027 08:00:00 GMT", 0.0),
        ("9" * 60, RETRY_AFTER_LONGEST),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_LONGEST),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float) -> None:
    """Both forms of the header are understood; a date in the past means now."""
    assert parse_retry_after(header, NOW) == seconds


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "-5",
        "nan",
        "inf",
        "1e9",
        "0x10",
        "١٢",
        "soon",
        "1" * 10_000,
        "Fri, 99 Foo 2027 99:99:99 GMT",
    ],
)
def test_a_retry_after_that_says_nothing_is_none(header: str | None) -> None:
    """Hostile and senseless values are as if the header were missing."""
    assert parse_retry_after(header, NOW) is None


@given(st.text(max_size=80) | st.from_regex(r"\A\w{3}, \d+ \w{3} \d{1,6} \d+:\d+:\d+ [+\-\w]{1,6}\Z"))
@example("Mon, 1 Jan 0001 00:00:00 +2359")
@example("1 Jan 99999999999 0:0:0")
def test_no_retry_after_raises(header: str) -> None:
    """Whatever the header holds, the answer is None or a finite number that is not negative."""
    seconds = parse_retry_after(header, NOW)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_LONGEST
