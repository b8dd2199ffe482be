"""Exit codes: what a script can tell from how the command ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ..errors import (
    AuthenticationError,
    ContentModerationError,
    JobKeyConflictError,
    MusicAPIError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RequestValidationError,
    TaskError,
    TaskFailedError,
)

OK: Final = 0
OTHER: Final = 1
REFUSED_HERE: Final = 2
NOT_ALLOWED: Final = 3
TASK_FAILED: Final = 4
GOING_ON: Final = 5
OUTCOME_UNKNOWN: Final = 6
INTERRUPTED: Final = 130
OUTPUT_LOST: Final = 141

MEANINGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        OK: "done",
        OTHER: "the service, the network, a file or the disk failed, or something unexpected",
        REFUSED_HERE: "wrong usage, or refused before sending; nothing was charged",
        NOT_ALLOWED: "key, permission or credits",
        TASK_FAILED: "a task failed",
        GOING_ON: "time is over; the task goes on, its id is printed",
        OUTCOME_UNKNOWN: "outcome unknown: the account may have been charged",
        INTERRUPTED: "interrupted with Ctrl-C; tasks that go on are printed",
        OUTPUT_LOST: "standard output is full or closed, or its reader went away; paid tasks are printed on "
        "standard error",
    }
)

GRAVEST_FIRST: Final = (
    OUTCOME_UNKNOWN,
    OUTPUT_LOST,
    NOT_ALLOWED,
    TASK_FAILED,
    GOING_ON,
    OTHER,
    REFUSED_HERE,
    OK,
)
"""Which code wins when several tasks end differently: what costs most when overlooked."""


def code_of(error: BaseException) -> int:
    """The exit code for an error."""
    match error:
        case OutcomeUnknownError():
            return OUTCOME_UNKNOWN
        case RequestValidationError() | JobKeyConflictError():
            return REFUSED_HERE
        case ContentModerationError():  # a permission by its status, a matter of the text by its meaning
            return OTHER
        case AuthenticationError() | PermissionDeniedError():
            return NOT_ALLOWED
        case TaskFailedError():
            return TASK_FAILED
        case TaskError():
            return GOING_ON
        case MusicAPIError(may_have_been_charged=True):
            return OUTCOME_UNKNOWN
        case _:
            return OTHER


def gravest(codes: Iterable[int]) -> int:
    """The code to exit with when several things ended."""
    return min(codes, key=GRAVEST_FIRST.index, default=OK)
