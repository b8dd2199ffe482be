"""Judgements of one poll response, and how they are made from its body.

`poll_response` and `poll_shapes` decide which judgement it is.
"""

from __future__ import annotations

import zlib
from typing import Final, Literal

import msgspec

from ..api.json_values import text_or_none
from ..api.results import Clips, Result, TaskUpdate
from ..api.task import TaskRef
from ..errors import MusicAPIError, TaskFailedError
from .response import Response, error_text
from .result_reading import read_progress

Phase = Literal[
    "pending", "running", "done", "failed", "refused", "transient", "rate_limited", "missing", "unconfirmed"
]
"""Judgement of one response; 'unconfirmed' is a failure of the task that a second poll must confirm."""
Confirm = Literal["", "file", "second song", "failure"]
"""Reason to poll again before an end is believed: a finished task without its file, one song of two, or a
failure that was reported as an HTTP error."""

REFUND_FLAGS: Final = ("refund_processed", "already_refunded")
"""Keys that report a refund, the better one first."""


class PollResult(msgspec.Struct, frozen=True, kw_only=True):
    """Judgement of one poll response.

    `update` is for the caller (None if the response says nothing about the task); `error` is the reason for
    which the task failed, or for which the poll has no result. If `confirm` is set, a second poll must
    confirm the end: `update` has an unfinished task, and `ending` is its last update after the confirmation.
    `failure_digest` identifies a failure that must be confirmed; `note` describes an unknown shape or word.
    """

    phase: Phase
    update: TaskUpdate | None = None
    ending: TaskUpdate | None = None
    error: MusicAPIError | None = None
    retry_after: float | None = None
    confirm: Confirm = ""
    failure_digest: int = 0
    note: str = ""

    @property
    def result(self) -> Result | None:
        """The task's result, if it is done and needs no confirmation."""
        return self.update.result if self.update is not None else None


class PollReport:
    """The body of a response about a task, and the judgements that can be made of it."""

    __slots__ = ("body", "ref", "response")

    def __init__(self, response: Response, ref: TaskRef) -> None:
        self.response = response
        self.ref = ref
        self.body = response.fields

    def unfinished(
        self, phase: Literal["pending", "running"], clips: Clips | None = None, note: str = ""
    ) -> PollResult:
        """Return that the task has not ended; `note` describes what no rule knows."""
        update = self._update(phase, clips)
        note = self.response.redactor.line(note) if note else ""
        return PollResult(phase=phase, update=update, retry_after=self.response.retry_after, note=note)

    def done(self, result: Result, confirm: Literal["", "file"] = "") -> PollResult:
        """Return that the task has ended with a result."""
        update = self._update(result.status, result.clips, result=result)
        done = PollResult(phase="done", update=update)
        return unconfirmed(done, confirm) if confirm else done

    def failed(self, clips: Clips | None = None, reason: str = "", *, sure: bool = True) -> PollResult:
        """Return that the task has failed.

        Args:
            clips: the clips of the reply.
            reason: the service's words about the failure; by default the text of the body.
            sure: False if a second poll has to confirm it.
        """
        message = error_text(self.body) or ""
        redact = self.response.redactor.text
        text = reason or (message if message.strip().lower() != "success" else "")
        error = TaskFailedError(
            redact(text) or "no reason given",
            type=redact(text_or_none(self.body.get("type")) or "") or None,
            refunded=self._refunded(f"{message} {reason}"),
            clips=clips or (),
            body=self.response.redacted,
            http_status=self.response.status,
            task_id=self.ref.task_id,
            family=self.ref.family,
        )
        failed = PollResult(phase="failed", update=self._update("failed", clips, error=error), error=error)
        if sure:
            return failed
        words = f"{self.response.status} {self.response.type} {self.response.words}"
        digest = zlib.crc32(words.encode())
        return msgspec.structs.replace(unconfirmed(failed, "failure"), failure_digest=digest)

    def _update(
        self,
        state: str,
        clips: Clips | None = None,
        *,
        result: Result | None = None,
        error: MusicAPIError | None = None,
    ) -> TaskUpdate:
        ref, body, raw = self.ref, self.body, self.response.body
        # Not by its constructor: each poll makes one, and keywords make the call of a class twice as long.
        update = TaskUpdate.__new__(TaskUpdate)
        update.state, update.task_id, update.family = state, ref.task_id, ref.family
        update.clips = Clips((), raw, task_id=ref.task_id, family=ref.family) if clips is None else clips
        update.result, update.error, update.raw, update.age = result, error, raw, 0.0
        has_progress = "progress" in body or type(body.get("data")) is dict
        update.progress = read_progress(body) if has_progress else None
        return update

    def _refunded(self, text: str) -> bool | None:
        """Return the report of the service: its flag, else the word in its text, else None."""
        for flag in REFUND_FLAGS:
            value = self.body.get(flag)
            if isinstance(value, bool):
                return value
        return True if "refunded" in text.lower() else None


def unconfirmed(result: PollResult, confirm: Confirm) -> PollResult:
    """Return the same judgement as one that must be confirmed."""
    ending = result.update if result.ending is None else result.ending
    assert ending is not None
    update = TaskUpdate(
        "pending" if confirm == "failure" else "running",
        task_id=ending.task_id,
        family=ending.family,
        clips=ending.clips,
        progress=ending.progress,
        raw=ending.raw,
    )
    phases: dict[str, Phase] = {"failure": "unconfirmed", "second song": "running"}
    phase = phases.get(confirm, result.phase)
    return PollResult(phase=phase, update=update, ending=ending, confirm=confirm)
