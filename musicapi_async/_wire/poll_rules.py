"""Decide what follows from a poll: the end of the task, the end of the polling, or another poll, and when.

No clock, no waiting: functions of their arguments. `poll_response` judges one response by itself. Some rules
need several polls ("confirmed by a second one", "five failures in a row"): `conclude` applies those, with a
`PollHistory` that exists only while one of them is open.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ..api.results import TaskUpdate
from ..errors import MusicAPIError
from .poll_result import PollResult
from .retry import retry_after_floor

FAILURES_IN_A_ROW: Final = 5
"""Transient failures that end a wait if the host has never answered: then the address is the likely cause.
Otherwise they end no wait before its time-out: the task is paid for, and outages of minutes pass."""
UNKNOWN_ID_GRACE: Final = 60.0
"""Seconds after our own submit during which an unknown id is believed to be on its way."""
UNKNOWN_ID_POLLS: Final = 2
"""Polls that may find the id unknown within that time."""
MISSING_FILE_POLLS: Final = 2
"""More polls for a file that a finished task does not have yet; its link may follow some seconds later."""
SECOND_SONG_LIMIT: Final = 120.0
"""Seconds to wait for the second song of Riffusion, from the first poll that found one finished."""
RATE_LIMIT_PAUSE: Final = 10.0
"""Least seconds before the next poll after one that was refused for the rate."""


class PollHistory(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Facts of earlier polls; made only when a rule needs them."""

    failures: int = 0
    unknown_id: int = 0
    without_file: int = 0
    failure_digest: int = 0
    one_song_since: float | None = None


EMPTY: Final = PollHistory()


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """The step that follows from a poll.

    `update` is for the callers who wait; a terminal one is the last. `error` ends the polling; it is not a
    failure of the generation. If there is neither, poll again after `pause` seconds or later. `failures`
    counts the transient failures in a row; `history` is an argument of the next `conclude`.
    """

    update: TaskUpdate | None = None
    error: MusicAPIError | None = None
    pause: float = 0.0
    failures: int = 0
    history: PollHistory | None = None

    @property
    def is_final(self) -> bool:
        """True if no further poll is needed."""
        return self.error is not None or (self.update is not None and self.update.is_terminal)


def conclude(
    result: PollResult,
    history: PollHistory | None,
    *,
    age: float,
    own: bool,
    now: float,
    host_responds: bool = False,
) -> Conclusion:
    """Decide what follows from a poll.

    Args:
        result: the judgement of its response.
        history: that of the conclusion before, or None.
        age: seconds since the task was submitted.
        own: True if this process submitted it, so that its age is known.
        now: seconds of any steady clock.
        host_responds: True if the host has ever given this client a response below 500.

    Returns:
        The conclusion. Never raises.
    """
    if history is None and result.error is None and not result.confirm:  # nearly every poll
        return Conclusion(update=result.update, pause=retry_after_floor(result.retry_after))
    before = history or EMPTY
    match result.phase:
        case "refused":
            return Conclusion(error=result.error)
        case "transient":
            failures = before.failures + 1
            if failures >= FAILURES_IN_A_ROW and not host_responds:
                return Conclusion(error=result.error, failures=failures)
            after = msgspec.structs.replace(before, failures=failures)
            return Conclusion(pause=retry_after_floor(result.retry_after), failures=failures, history=after)
        case "rate_limited":
            after = msgspec.structs.replace(before, failures=0)
            return Conclusion(
                pause=max(RATE_LIMIT_PAUSE, retry_after_floor(result.retry_after)), history=_needed(after)
            )
        case "missing":
            if not own or age >= UNKNOWN_ID_GRACE or before.unknown_id >= UNKNOWN_ID_POLLS:
                return Conclusion(error=result.error)
            after = msgspec.structs.replace(before, failures=0, unknown_id=before.unknown_id + 1)
            return Conclusion(history=after)
        case _ if not result.confirm and before.one_song_since is None:
            return Conclusion(update=result.update, pause=retry_after_floor(result.retry_after))
        case _:
            return _confirmed(result, before, now)


def _confirmed(result: PollResult, before: PollHistory, now: float) -> Conclusion:
    """Decide whether an end is believed that needs more polls than one."""
    after = PollHistory(one_song_since=before.one_song_since)
    match result.confirm:
        case "":
            believed = True
        case "file":
            believed = before.without_file >= MISSING_FILE_POLLS
            after = msgspec.structs.replace(after, without_file=before.without_file + 1)
        case "failure":
            believed = before.failure_digest == result.failure_digest
            after = msgspec.structs.replace(after, failure_digest=result.failure_digest)
        case "second song":
            since = now if before.one_song_since is None else before.one_song_since
            believed = now - since >= SECOND_SONG_LIMIT
            after = msgspec.structs.replace(after, one_song_since=since)
    update = result.ending if believed and result.ending is not None else result.update
    ended = update is not None and update.is_terminal
    return Conclusion(
        update=update, pause=retry_after_floor(result.retry_after), history=None if ended else _needed(after)
    )


def _needed(history: PollHistory) -> PollHistory | None:
    return None if history == EMPTY else history
