"""What follows from a look at a task. No clock, no waiting: functions of their arguments.

`read_poll` judges one answer by itself (`looks`). Some rules need a second look ("after one more poll with
the same answer", "five in a row"): `decide` applies those, with a `Memory` that exists only while one of
them is open.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..api.handle import TaskRef
from ..api.operation import Polled
from ..api.results import TaskUpdate
from ..api.values import text_or_none
from ..errors import APIConnectionError, InvalidResponseError, MusicAPIError
from .looks import Look, Seen
from .redaction import NOTHING_KNOWN, Redactor
from .response import Response

__all__ = ["Memory", "Seen", "Verdict", "decide", "read_payload", "read_poll", "unanswered"]

ROW_OF_FAILURES: Final = 5
"""Transient failures in a row that end a wait if the host has never answered: then the address is the likely
cause. Otherwise they end no wait before its time-out: the task is paid for, and outages of minutes pass."""
MISSING_GRACE: Final = 60.0
"""Seconds after our own submit during which an unknown id is believed to be on its way (R8)."""
MISSING_LOOKS: Final = 2
"""Looks that may find the id unknown within that time (R8)."""
MORE_LOOKS: Final = 2
"""Looks more for a file that a finished task does not show yet (contract, tasks 3, contract, studio 2)."""
HALF_LIMIT: Final = 120.0
"""Seconds to wait for the second song of Riffusion, from the first look that showed one finished."""
LIMITED_PAUSE: Final = 10.0
"""Least seconds before the next look after a 429 (R7)."""
FAILED_EVENT: Final = "song.failed"
"""The event that ends a task as failed, whatever else its body holds: receivers in use go by its name. The
name in the body counts, which is signed; the header is not."""
RETRY_AFTER_CAP: Final = 60.0
"""Retry-After is obeyed up to this many seconds (contract, errors 6)."""


class Memory(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What must be remembered of earlier looks; made only when a rule needs it."""

    failures: int = 0
    missing: int = 0
    without_file: int = 0
    again: int = 0
    half_since: float | None = None


FRESH: Final = Memory()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from a look.

    `update`: tell it to whoever waits; it is the last one if it is terminal. `error`: polling stops, and it
    is no failure of the generation. Neither terminal nor an error: look again, not before `after` seconds.
    `failures` counts transient failures in a row; `memory` goes into the next `decide`.
    """

    update: TaskUpdate | None = None
    error: MusicAPIError | None = None
    after: float = 0.0
    failures: int = 0
    memory: Memory | None = None

    @property
    def final(self) -> bool:
        """Nothing more will come."""
        return self.error is not None or (self.update is not None and self.update.is_terminal)


# --- one answer by itself --------------------------------------------------------------------------------


def read_poll(found: Response, *, ref: TaskRef, polled: Polled) -> Seen:
    """Judge the answer to a poll. Never raises."""
    return Look(found, ref, polled).judge()


def read_payload(body: Any, *, ref: TaskRef, polled: Polled, redactor: Redactor = NOTHING_KNOWN) -> Seen:
    """Judge the body of a webhook as a poll answered with HTTP 200; its event `song.failed` ends the task."""
    look = Look(Response(200, {}, body, json=True, redactor=redactor), ref, polled)
    event = text_or_none(look.body.get("event")) or ""
    return look.failed_by_event() if event.lower() == FAILED_EVENT else look.judge()


def unanswered(error: APIConnectionError | InvalidResponseError, *, ref: TaskRef) -> Seen:
    """A poll that brought no answer: transient (R10)."""
    return Seen(phase="transient", error=error.about(task_id=ref.task_id, family=ref.family))


# --- what follows from it --------------------------------------------------------------------------------


def decide(
    seen: Seen, memory: Memory | None, *, age: float, own: bool, now: float, reached: bool = False
) -> Verdict:
    """Return what follows from a poll, with what earlier polls have left in `memory`.

    `age` is the task's age in seconds, `own` whether this process submitted it, `now` any steady clock,
    `reached` whether the host has ever given this client an answer below 500.
    """
    before = memory or FRESH
    match seen.phase:
        case "stop":
            return Verdict(error=seen.error)
        case "transient":
            failures = before.failures + 1
            if failures >= ROW_OF_FAILURES and not reached:
                return Verdict(error=seen.error, failures=failures)
            kept = msgspec.structs.replace(before, failures=failures)
            return Verdict(after=_asked(seen), failures=failures, memory=kept)
        case "rate_limited":
            kept = msgspec.structs.replace(before, failures=0)
            return Verdict(after=max(LIMITED_PAUSE, _asked(seen)), memory=_needed(kept))
        case "missing":
            if not own or age >= MISSING_GRACE or before.missing >= MISSING_LOOKS:
                return Verdict(error=seen.error)
            kept = msgspec.structs.replace(before, failures=0, missing=before.missing + 1)
            return Verdict(memory=kept)
        case _:
            return _with_doubt(seen, before, now)


def _with_doubt(seen: Seen, before: Memory, now: float) -> Verdict:
    if not seen.doubt and before.half_since is None:
        return Verdict(update=seen.update, after=_asked(seen))
    kept = Memory(half_since=before.half_since)
    match seen.doubt:
        case "":
            believed = True
        case "no file":
            believed = before.without_file >= MORE_LOOKS
            kept = msgspec.structs.replace(kept, without_file=before.without_file + 1)
        case "again":
            believed = before.again == seen.mark
            kept = msgspec.structs.replace(kept, again=seen.mark)
        case "half":
            since = now if before.half_since is None else before.half_since
            believed = now - since >= HALF_LIMIT
            kept = msgspec.structs.replace(kept, half_since=since)
    update = seen.ending if believed and seen.ending is not None else seen.update
    ended = update is not None and update.is_terminal
    return Verdict(update=update, after=_asked(seen), memory=None if ended else _needed(kept))


def _asked(seen: Seen) -> float:
    return min(seen.retry_after or 0.0, RETRY_AFTER_CAP)


def _needed(memory: Memory) -> Memory | None:
    return None if memory == FRESH else memory
