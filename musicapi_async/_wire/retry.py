"""The rules of retries: which failed request is sent again, and after how long. Pure decisions, and jitter.

The rule about money comes first: a create is repeated only if it provably was not sent or provably was
refused. There is no idempotency key, so a second send of an accepted create is charged a second time.

Waits come from backoff's exponential generator, and their jitter from its `full_jitter`, which draws a number
between 0 and a wait. Alone it could be 0 s, so the jitter here is "equal": half of a wait is fixed and half
is random. `Retry-After` is the minimum of each wait.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC
from enum import StrEnum
from functools import partial
from itertools import islice
from random import Random
from typing import Final, Literal

import backoff

from ..options import Options

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 8.0
"""Seconds between attempts, unless `Retry-After` is longer."""

RETRY_AFTER_CAP: Final = 60.0
"""Seconds up to which `Retry-After` is obeyed, for a task is ready within minutes. A call whose response
names more is not repeated: its error is raised at once. Polls and downloads continue after this time."""

RETRY_AFTER_LONGEST: Final = 366 * 86_400.0
"""Seconds to which a header is clipped; it is not obeyed, but displayed."""

RETRY_AFTER_LENGTH: Final = 64
"""Characters of a `Retry-After` header that may make sense; the longest date form has 33."""

_DELAY_SECONDS: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?")

Draw = Callable[[float], float]
"""Draws a number between 0 and its argument, as `backoff.full_jitter` does."""

MethodKind = Literal["get", "create", "repeatable"]
"""The cost that a request may have.

- `get`: reads; free.
- `create`: charges, or might. Downloads and MIDI belong here: after a 202 the same request is sent once more,
  which is no failure, but after a loss it is unknown if the first one was charged.
- `repeatable`: a POST that is free to repeat after a loss (aligned lyrics).
"""


def drawing(rng: Random | None) -> Draw:
    """Return `backoff.full_jitter`, or the same from a generator with a seed, for repeatable runs."""
    return backoff.full_jitter if rng is None else partial(rng.uniform, 0)


class AttemptFailure(StrEnum):
    """A kind of failure. An open set: a word that is not here is never a reason to send again."""

    NOT_SENT = "not_sent"
    """No connection, DNS, TLS, no pool slot: no byte of the request was sent."""

    SENT_UNKNOWN = "sent_unknown"
    """Time-out or loss after sending may have begun."""

    RATE_LIMITED = "rate_limited"
    """429, or a 403 that says "QPS limit" or "Queue is full": refused before it was accepted."""

    SERVER_ERROR = "server_error"
    """5xx."""

    INVALID_REPLY = "invalid_reply"
    """A 2xx that is not JSON or lacks what is needed."""

    REFUSED = "refused"
    """Any other 4xx."""


def decide(  # noqa: PLR0917 - these six decide
    method_kind: MethodKind,
    failure: AttemptFailure | str,
    attempt: int,
    retry_after: float | None,
    options: Options,
    draw: Draw,
) -> float | None:
    """Decide if a request is sent again after a failure, and when.

    Args:
        method_kind: the cost that the request may have.
        failure: how the attempt failed.
        attempt: the number of the attempt that failed, from 1.
        retry_after: seconds of the response's `Retry-After`, if it had one.
        options: how often to send again, and if a create is sent again after a 5xx.
        draw: draws the random part of the wait.

    Returns:
        The seconds to wait before the request is sent again, or None: do not send it again.
    """
    if attempt > options.max_retries or not may_repeat(method_kind, failure, options):
        return None
    wait = equal_jitter(next(islice(delays(FIRST_PAUSE, LONGEST_PAUSE), attempt - 1, None)), draw)
    if retry_after is None or not retry_after > 0:
        return wait
    return max(wait, retry_after) if retry_after <= RETRY_AFTER_CAP else None


def retry_after_floor(seconds: float | None) -> float:
    """Return the least pause after a response with this `Retry-After`, where the pause ends in any case."""
    return min(seconds, RETRY_AFTER_CAP) if seconds else 0.0


def may_repeat(method_kind: MethodKind, failure: AttemptFailure | str, options: Options) -> bool:
    """Return True if a request of this kind may be sent again after this failure, if attempts remain."""
    match failure:
        case AttemptFailure.NOT_SENT | AttemptFailure.RATE_LIMITED:
            return True
        case AttemptFailure.SENT_UNKNOWN:
            return method_kind in ("get", "repeatable")
        case AttemptFailure.SERVER_ERROR:
            return method_kind == "get" or (method_kind == "create" and options.resend_creates_on_5xx)
        case AttemptFailure.INVALID_REPLY:
            return method_kind == "get"
        case _:
            return False


def delays(base: float, cap: float, growth: float = 2) -> Iterator[float]:
    """Yield the waits between attempts in seconds without jitter: base, 2 base, 4 base, … cap, cap, …"""
    for value in backoff.expo(base=growth, factor=base, max_value=cap):
        # The first value only starts the generator for backoff's own `send()`; one that yields its first
        # wait at once, as the fork of the same name may, loses nothing here.
        if value is not None:  # pyright: ignore[reportUnnecessaryComparison]
            yield value


def equal_jitter(value: float, draw: Draw) -> float:
    """Draw a time between half of `value` and all of it: many clients spread, and none comes at once."""
    return value / 2 + draw(value / 2)


def spread(value: float, fraction: float, draw: Draw) -> float:
    """Draw a time within `fraction` of `value`, never 0 for a positive value. 0 <= fraction < 1."""
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be 0 or more and below 1, got {fraction!r}")
    return value * (1 - fraction) + draw(2 * fraction * value)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds in a `Retry-After` header, or None if it says nothing that makes sense.

    `now` is the time in seconds since 1970, for the date form. A date in the past is 0; a number is
    clipped to a year. Negative numbers, NaN, infinity and other text are None. Never raises.
    """
    if value is None or len(value) > RETRY_AFTER_LENGTH:
        return None
    text = value.strip()
    if _DELAY_SECONDS.fullmatch(text):
        return min(float(text), RETRY_AFTER_LONGEST)
    from email.utils import parsedate_to_datetime  # only a date needs it, and it takes 2 ms

    try:
        date = parsedate_to_datetime(text)
        # A date without a zone is GMT, as the header's definition says.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_LONGEST) if math.isfinite(seconds) else None


POLL_PAUSE_FIRST: Final = 2.0
POLL_PAUSE_LONGEST: Final = 60.0
"""Seconds; four pauses of 2, 8, 32 and 60 s bridge a break of the network of more than a minute."""


def poll_pause(failures: int, draw: Draw) -> float:
    """Return the seconds before the next poll after `failures` transient failures in a row (1 or more)."""
    pauses = delays(POLL_PAUSE_FIRST, POLL_PAUSE_LONGEST, growth=4)
    return equal_jitter(next(islice(pauses, min(max(failures, 1), 10) - 1, None)), draw)
