"""Read and judge one poll response: pending, running, done, failed, or nothing about the task.

The judgement rests on one response alone; `poll_rules` adds what follows from several. The rules are those of
the service's documentation and of the responses that it was seen to send; the first that matches decides.

Two errors would be dear. Success made up from a half-read body gives a song that is not there, so a task is
done only if its clips or keys say so. A failure made up from an odd word loses a song that was paid for, so
an unknown shape or word means that the task is unfinished: another poll is free.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final, Literal, cast

import msgspec

from ..api.lyrics import WrittenLyrics
from ..api.operation import Polled
from ..api.results import SUCCEEDED, UNFINISHED, Clip, Clips, Result, TaskUpdate
from ..api.task import TaskRef
from ..api.values import list_or_empty, mapping_or_empty, text_or_none
from ..errors import (
    APIConnectionError,
    InvalidResponseError,
    MusicAPIError,
    RateLimitedError,
    TaskFailedError,
)
from .reading import (
    RunningClips,
    is_pair,
    read_clip,
    read_clips,
    read_pairs,
    read_progress,
    read_stems,
    read_studio_song,
    read_voice,
)
from .redaction import NOTHING_KNOWN, Redactor
from .response import TOO_FAST, Response, error_of, error_text

Phase = Literal[
    "pending", "running", "done", "failed", "refused", "transient", "rate_limited", "missing", "unconfirmed"
]
"""Judgement of one response; 'unconfirmed' is a failure of the task that a second poll must confirm."""
Confirm = Literal["", "file", "second song", "failure"]
"""Reason to poll again before an end is believed: a finished task without its file, one song of two, or a
failure that was reported as an HTTP error."""

TASK_WORDS: Final = frozenset({"failed", "timeout", "api_error", "bad_request", "forbidden"})
"""Values of `type` that speak of the task, and not of the poll, where a refund flag stands beside them."""
FAILED_IN_2XX: Final = frozenset({"timeout", "api_error", "forbidden", "bad_request"})
"""Values of `type` that mean a failed task in a 2xx; as an HTTP error they may mean the poll."""
REFUND_FLAGS: Final = ("refund_processed", "already_refunded")
"""Keys that report a refund, the better one first."""
LIMITS_NOT_FAILURES: Final = (*TOO_FAST, "usage limit")
"""Texts of Nuro's limits, which come with the refund flag of a failure."""
FAILED_EVENT: Final = "song.failed"
"""The event that ends a task as failed, whatever else its body holds: receivers in use go by its name. The
name in the body counts, which is signed; the header is not."""

STEMS_KINDS: Final = frozenset({"stems_basic", "stems_full"})
RIFFUSION_SONGS: Final = 2
"""Songs of a Riffusion call (vendor's Riffusion page); with fewer the rest is still to come."""


class PollResult(msgspec.Struct, frozen=True, kw_only=True):
    """Judgement of one poll response.

    `update` is for the caller (None for a response that says nothing of the task); `error` tells why the task
    failed, or why the poll brought nothing. With `confirm` set, the end is not believed yet: `update` shows
    an unfinished task, and `ending` is its last update once the end is confirmed. `failure_digest` tells
    failures to be confirmed apart; `note` describes a shape or word that no rule knows.
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


def judge_poll(response: Response, *, ref: TaskRef, polled: Polled) -> PollResult:
    """Judge the response to a poll. Never raises."""
    return PollResponse(response, ref, polled).judge()


def judge_webhook(
    body: Any, *, ref: TaskRef, polled: Polled, redactor: Redactor = NOTHING_KNOWN
) -> PollResult:
    """Judge the body of a webhook like a poll response with HTTP 200; `song.failed` ends the task.

    Args:
        body: the decoded body.
        ref: the task that the body names.
        polled: how tasks of its family are polled.
        redactor: hides secrets in the texts of errors.

    Returns:
        The judgement. Never raises.
    """
    response = PollResponse(Response(200, {}, body, json=True, redactor=redactor), ref, polled)
    event = text_or_none(response.body.get("event")) or ""
    return response.failed_by_event() if event.lower() == FAILED_EVENT else response.judge()


def without_response(error: APIConnectionError | InvalidResponseError, *, ref: TaskRef) -> PollResult:
    """Judge a poll that brought no response: a passing failure."""
    return PollResult(phase="transient", error=error.about(task_id=ref.task_id, family=ref.family))


class PollResponse:
    """One response to a poll, and the rules over it; `judge` applies them. It never raises."""

    __slots__ = ("body", "polled", "ref", "response", "type")

    def __init__(self, response: Response, ref: TaskRef, polled: Polled) -> None:
        self.response = response
        self.ref = ref
        self.polled = polled
        self.body = response.fields
        self.type = response.type

    def judge(self) -> PollResult:
        """Return the judgement of the first rule that matches."""
        if self._is_plain:
            return self._by_shape()
        response = self.response
        names_failure = self.type == "failed" or self.body.get("status") == "FAILED"
        if response.not_ready and not (response.status == 202 and names_failure):
            return self._unfinished("pending")
        result = self._by_status(response.status, names_failure)
        if result is None and (response.code or 0) >= 400:  # `code` in a 2xx counts as the status
            result = self._by_status(response.code or 0, names_failure)
        if result is not None:
            return result
        if not self.type and "data" not in self.body and "status" not in self.body and self._has_error_text:
            return self._transient()
        return self._by_shape()

    def failed_by_event(self) -> PollResult:
        """Return the failure that a webhook reports by the name of its event; `message` tells why."""
        items = list_or_empty(self.body.get("data"))
        clips = self._clips(items) if items else None
        texts = (text_or_none(self.body.get("message")), error_text(self.body))
        reason = next((text for text in texts if text and text.strip().lower() != "success"), "")
        if not reason and clips is not None:
            reason = "; ".join(dict.fromkeys(filter(None, (clip.failure for clip in clips))))
        return self._failed(clips, reason)

    @property
    def _is_plain(self) -> bool:
        """Return True for the usual response, in which the body of the family decides alone."""
        response, body = self.response, self.body
        return (
            response.status == 200
            and (response.code is None or response.code == 200)
            and not self.type
            and "data" in body
            and "status" not in body
            and body.keys().isdisjoint(REFUND_FLAGS)
        )

    @property
    def _has_error_text(self) -> bool:
        return bool(error_text({"error": self.body.get("error")}))

    def _by_status(self, status: int, names_failure: bool) -> PollResult | None:
        """Return the judgement of the rules about HTTP statuses; None where the body decides."""
        response, ok = self.response, 200 <= status < 300
        flagged = any(self.body.get(flag) is not None for flag in REFUND_FLAGS)
        if ok and response.json and not flagged and not self.type:
            return self._failed() if names_failure else None
        text = response.words
        limited = any(word in text for word in LIMITS_NOT_FAILURES)
        if flagged and self.type in TASK_WORDS and not limited:
            return self._failed()
        if names_failure or (ok and self.type in FAILED_IN_2XX):
            return self._failed()
        if not ok and (self.type in {"timeout", "api_error"} or _task_failed(status, text)):
            return self._failed(sure="refund" in text)
        match status:
            case 429:
                return self._rate_limited()
            case 400 if "task not found" in text:
                return PollResult(phase="missing", error=self._error())
            case 404:
                return PollResult(phase="missing", error=self._error())
            case _ if 400 <= status < 500:  # a wrong key, a retired endpoint, any other refusal
                error = self._error()
                return self._rate_limited() if isinstance(error, RateLimitedError) else _refused(error)
            case _ if not ok or not response.json:
                return self._transient()
            case _:
                return None

    def _by_shape(self) -> PollResult:
        """Return what the body says, by the shape of its family."""
        match self.polled.shape:
            case "sonic":
                return self._data()
            case "producer":
                return self._producer()
            case "nuro":
                return self._nuro()
            case "riffusion":
                return self._riffusion()
            case "studio":
                return self._studio()
            case "lyrics":
                return self._lyrics()

    def _data(self) -> PollResult:
        data = self.body.get("data")
        if isinstance(data, list) and data:
            return self._items(list_or_empty(data))
        if isinstance(data, dict):
            voice = read_voice(
                mapping_or_empty(data), self.response.body, task_id=self.ref.task_id, family=self.ref.family
            )
            if voice is not None:
                return self._done(voice)
            fields = mapping_or_empty(data)
            word = (text_or_none(fields.get("status")) or "").upper()
            if "FAIL" in word or "ERROR" in word:
                return self._failed(reason=error_text(fields) or "")
            return self._unfinished("pending")
        note = "" if data in (None, []) and self.body else f"no rule knows this body: {self.response.text}"
        return self._unfinished("pending", note=note)

    def _items(self, items: Sequence[Any]) -> PollResult:
        raw, task_id, family = self.response.body, self.ref.task_id, self.ref.family
        if any(map(is_pair, items)):
            pairs = read_pairs(items, raw, task_id=task_id, family=family)
            if not all(map(is_pair, items)) or not all(pair.is_terminal for pair in pairs.pairs):
                return self._unfinished("running", pairs)
            return self._ended(pairs, failed=all(pair.is_failed for pair in pairs.pairs))
        if all(map(_is_unfinished, items)) and self.ref.kind not in STEMS_KINDS:
            return self._unfinished("running", RunningClips(items, raw, task_id=task_id, family=family))
        clips = self._clips(items)
        succeeded = clips.succeeded
        if len(succeeded) + len(clips.failed) < len(items):  # an item that is no object has not ended
            return self._unfinished("running", clips)
        return self._ended(clips, failed=not succeeded)

    def _clips(self, items: Sequence[Any]) -> Clips:
        clips = read_clips(items, self.response.body, task_id=self.ref.task_id, family=self.ref.family)
        for clip in clips.items:
            if "state" not in clip.raw and self._is_upload(clip):
                clip.state = SUCCEEDED
            if self.ref.kind == "download" and clip.wav_url and self.ref.format in {"", "wav"}:
                clip.audio_url = clip.wav_url  # a download gives WAV unless MP3 was requested
        return read_stems(clips) if self.ref.kind in STEMS_KINDS else clips

    def _is_upload(self, clip: Clip) -> bool:
        """An uploaded clip has neither state nor link: its id is the result."""
        if not clip.clip_id or "state" in clip.raw:
            return False
        unknown = self.ref.kind in {"", "get_music"}
        return self.ref.kind == "upload" or (unknown and clip.raw.keys() <= {"clip_id", "id"})

    def _ended(self, clips: Clips, *, failed: bool) -> PollResult:
        if not failed:
            has_files = all(_has_file(clip) or self._is_upload(clip) for clip in clips.succeeded)
            return self._done(clips, "" if has_files else "file")
        reasons = dict.fromkeys(filter(None, (clip.failure for clip in clips)))
        return self._failed(clips, "; ".join(reasons))

    def _producer(self) -> PollResult:
        word = (text_or_none(self.body.get("status")) or "").upper()
        items = list_or_empty(self.body.get("data"))
        match word:
            case "PENDING" | "RUNNING":
                return self._unfinished("running" if items else "pending", self._clips(items))
            case "FAILED":
                return self._failed(self._clips(items))
            case "SUCCESS":
                clips = self._clips(items)
                has_files = bool(clips) and all(_has_file(clip) or self._is_upload(clip) for clip in clips)
                return self._done(clips, "" if has_files else "file")
            case _:
                return self._data()

    def _nuro(self) -> PollResult:
        word = (text_or_none(self.body.get("status")) or "").lower()
        clip = read_clip({**self.body, "clip_id": self.ref.task_id, "state": word})
        clip.raw = self.body
        clips = Clips([clip], self.response.body, task_id=self.ref.task_id, family=self.ref.family)
        match word:
            case "succeeded":
                return self._ended(clips, failed=False)
            case "failed":
                return self._failed(clips)
            case "running":
                return self._unfinished("running", clips)
            case _:
                known = word in {"", "pending"}
                return self._unfinished(
                    "pending", clips, note="" if known else f"no rule knows status {word!r}"
                )

    def _riffusion(self) -> PollResult:
        items = list_or_empty(self.body.get("data"))
        message = (text_or_none(self.body.get("message")) or "").strip().lower()
        if not items or message == "processing":
            return self._unfinished("pending", self._clips(items) if items else None)
        result = self._items(items)
        if len(items) >= RIFFUSION_SONGS or result.phase not in {"done", "failed"}:
            return result
        return _unconfirmed(result, "second song")

    def _studio(self) -> PollResult:
        data = mapping_or_empty(self.body.get("data"))
        word = (text_or_none(data.get("status")) or "").upper()
        reason = text_or_none(data.get("fail_reason"))
        songs = list_or_empty(mapping_or_empty(data.get("data")).get("songs"))
        clips = Clips(
            [read_studio_song(mapping_or_empty(song)) for song in songs if isinstance(song, dict)],
            self.response.body,
            task_id=self.ref.task_id,
            family=self.ref.family,
        )
        if word == "SUCCESS":
            return self._done(clips, "" if clips and all(map(_has_file, clips)) else "file")
        if reason or "FAIL" in word or "ERROR" in word:
            return self._failed(clips, reason or "")
        if word == "IN_PROGRESS":
            return self._unfinished("running", clips)
        known = word in {"", "NOT_START"}
        note = "" if known else f"no rule knows status {word!r}"
        return self._unfinished("pending", clips, note)

    def _lyrics(self) -> PollResult:
        data = mapping_or_empty(self.body.get("data"))
        text = text_or_none(data.get("text"))
        if not text and (text_or_none(data.get("status")) or "").lower() != "complete":
            return self._unfinished("pending")
        title = text_or_none(data.get("title"))
        return self._done(
            WrittenLyrics(
                title, text or "", self.response.body, task_id=self.ref.task_id, family=self.ref.family
            )
        )

    # --- the judgements ----------------------------------------------------------------------------------

    def _update(
        self,
        state: str,
        clips: Clips | None = None,
        *,
        result: Result | None = None,
        error: MusicAPIError | None = None,
    ) -> TaskUpdate:
        return TaskUpdate(
            state,
            task_id=self.ref.task_id,
            family=self.ref.family,
            clips=clips,
            result=result,
            error=error,
            progress=read_progress(self.body),
            raw=self.response.body,
        )

    def _unfinished(
        self, phase: Literal["pending", "running"], clips: Clips | None = None, note: str = ""
    ) -> PollResult:
        update = self._update(phase, clips)
        note = self.response.redactor.line(note) if note else ""
        return PollResult(phase=phase, update=update, retry_after=self.response.retry_after, note=note)

    def _done(self, result: Result, confirm: Literal["", "file"] = "") -> PollResult:
        update = self._update(result.status, result.clips, result=result)
        done = PollResult(phase="done", update=update)
        return _unconfirmed(done, confirm) if confirm else done

    def _failed(self, clips: Clips | None = None, reason: str = "", *, sure: bool = True) -> PollResult:
        message = error_text(self.body) or ""
        hide = self.response.redactor.text
        text = reason or (message if message.strip().lower() != "success" else "")
        error = TaskFailedError(
            hide(text) or "no reason given",
            type=hide(text_or_none(self.body.get("type")) or "") or None,
            refunded=self._refunded(f"{message} {reason}"),
            clips=clips or (),
            body=self.response.shown,
            http_status=self.response.status,
            task_id=self.ref.task_id,
            family=self.ref.family,
        )
        failed = PollResult(phase="failed", update=self._update("failed", clips, error=error), error=error)
        if sure:
            return failed
        digest = zlib.crc32(f"{self.response.status} {self.type} {self.response.words}".encode())
        return msgspec.structs.replace(_unconfirmed(failed, "failure"), failure_digest=digest)

    def _refunded(self, text: str) -> bool | None:
        """Return what the service reports: its flag, else the word in its text, else None."""
        for flag in REFUND_FLAGS:
            value = self.body.get(flag)
            if isinstance(value, bool):
                return value
        return True if "refunded" in text.lower() else None

    def _error(self) -> MusicAPIError:
        call = self.polled.call_for(self.ref.task_id)
        if self.response.ok and not self.response.json:
            return InvalidResponseError(
                f"the answer is not JSON: {self.response.text}",
                status=self.response.status,
                body=self.response.shown,
                call=call,
                task_id=self.ref.task_id,
                family=self.ref.family,
            )
        return error_of(self.response, call=call, task_id=self.ref.task_id, family=self.ref.family)

    def _rate_limited(self) -> PollResult:
        return PollResult(phase="rate_limited", error=self._error(), retry_after=self.response.retry_after)

    def _transient(self) -> PollResult:
        return PollResult(phase="transient", error=self._error(), retry_after=self.response.retry_after)


def _refused(error: MusicAPIError) -> PollResult:
    return PollResult(phase="refused", error=error)


def _unconfirmed(result: PollResult, confirm: Confirm) -> PollResult:
    """Return the same judgement with its end held back."""
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


def _is_unfinished(item: Any) -> bool:
    """Return True for a clip whose own word says so: no more of it needs to be read."""
    return isinstance(item, dict) and cast("dict[str, Any]", item).get("state") in UNFINISHED


def _task_failed(status: int, text: str) -> bool:
    """Return True for a 504 that speaks of the task and not of the gateway."""
    return status == 504 and "task" in text and "fail" in text


def _has_file(clip: Clip) -> bool:
    """Return True for a clip with its file; a video alone has no audio to wait for."""
    return clip.final_url is not None or bool(clip.video_url and not clip.audio_url)
