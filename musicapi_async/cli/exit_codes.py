"""The exit codes of the command: by them scripts tell how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

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

if TYPE_CHECKING:
    from ..workflows import BatchResult


class ExitCode(IntEnum):
    """The exit codes, by which scripts tell how the command ended."""

    OK = 0
    OTHER = 1
    REFUSED = 2
    NOT_ALLOWED = 3
    TASK_FAILED = 4
    STILL_RUNNING = 5
    OUTCOME_UNKNOWN = 6
    INTERRUPTED = 130
    OUTPUT_LOST = 141


EXIT_CODES: Final[Mapping[ExitCode, str]] = MappingProxyType(
    {
        ExitCode.OK: "done",
        ExitCode.OTHER: "the service, the network, a file or the disk failed, or something unexpected",
        ExitCode.REFUSED: "wrong usage, or refused before sending; nothing was charged",
        ExitCode.NOT_ALLOWED: "the key, a permission or the credits do not suffice",
        ExitCode.TASK_FAILED: "a task failed",
        ExitCode.STILL_RUNNING: "not finished: the task is still running, and its token is printed; "
        "the same command continues a batch",
        ExitCode.OUTCOME_UNKNOWN: "outcome unknown: the account may have been charged",
        ExitCode.INTERRUPTED: "interrupted with Ctrl-C, SIGTERM or SIGHUP; the tokens of running tasks are "
        "printed",
        ExitCode.OUTPUT_LOST: "standard output is full or closed, or its reader has ended; the tokens of "
        "paid tasks are printed to standard error",
    }
)
"""The meaning of each code, for the help text."""

GRAVEST_FIRST: Final = (
    ExitCode.OUTCOME_UNKNOWN,
    ExitCode.OUTPUT_LOST,
    ExitCode.NOT_ALLOWED,
    ExitCode.TASK_FAILED,
    ExitCode.STILL_RUNNING,
    ExitCode.OTHER,
    ExitCode.REFUSED,
    ExitCode.OK,
)
"""The order in which a code wins when several tasks end differently: the costliest to overlook first."""


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code for an error."""
    match error:
        case OutcomeUnknownError():
            return ExitCode.OUTCOME_UNKNOWN
        case RequestValidationError() | JobKeyConflictError():
            return ExitCode.REFUSED
        case ContentModerationError():  # a permission by its status, a matter of the text by its meaning
            return ExitCode.OTHER
        case AuthenticationError() | PermissionDeniedError():
            return ExitCode.NOT_ALLOWED
        case TaskFailedError():
            return ExitCode.TASK_FAILED
        case TaskError():
            return ExitCode.STILL_RUNNING
        case MusicAPIError(may_have_been_charged=True):
            return ExitCode.OUTCOME_UNKNOWN
        case _:
            return ExitCode.OTHER


def gravest(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the code to exit with when several things ended."""
    return min(codes, key=GRAVEST_FIRST.index, default=ExitCode.OK)


def exit_code_of_batch(result: BatchResult, *, interrupted: bool) -> ExitCode:
    """Return the exit code for a run of a batch."""
    if result.unknown:
        return ExitCode.OUTCOME_UNKNOWN
    if interrupted and result.unfinished:
        return ExitCode.INTERRUPTED
    if result.halted:
        return ExitCode.OTHER if result.disk_failed else ExitCode.NOT_ALLOWED
    if result.failed or result.failed_steps:
        return ExitCode.TASK_FAILED
    return ExitCode.STILL_RUNNING if result.unfinished else ExitCode.OK
