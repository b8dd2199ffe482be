"""What one answer to a poll says by itself: rules R1 to R13 of the contract, tasks 3, the first that matches.

Two errors would be dear. Success made up from a half-read body gives a song that is not there, so a task is
done only if its clips or keys say so. A failure made up from an odd word loses a song that was paid for, so
an unknown shape or word means "go on": looking is free.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final, Literal, cast

import msgspec

from ..api.handle import TaskRef
from ..api.operation import Polled
from ..api.parts import Stems, WrittenLyrics, is_pair, read_pairs, read_voice
from ..api.results import SUCCEEDED, UNDER_WAY, Clip, Clips, Result, TaskUpdate, read_clips
from ..api.values import list_or_empty, mapping_or_empty, text_or_none
from ..errors import (
    InvalidResponseError,
    MusicAPIError,
    RateLimitedError,
    TaskFailedError,
)
from .response import TOO_FAST, Response, error_of, error_text

Phase = Literal[
    "pending", "running", "done", "failed", "stop", "transient", "rate_limited", "missing", "timeout?"
]
"""What one answer says by itself; 'timeout?' is a failure that one more look must confirm."""

TASK_WORDS: Final = frozenset({"failed", "timeout", "api_error", "bad_request", "forbidden"})
"""Values of `type` that speak of the task where a refund flag stands beside them (R2)."""
FAILED_IN_2XX: Final = frozenset({"timeout", "api_error", "forbidden", "bad_request"})
"""Values of `type` that mean a failed task in a 2xx (R3)."""
REFUND_FLAGS: Final = ("refund_processed", "already_refunded")
"""Keys that report a refund, the better one first."""
LIMITS_NOT_FAILURES: Final = (*TOO_FAST, "usage limit")
"""Texts of Nuro's limits, which come with the refund flag of a failure (R2)."""

STEMS_KINDS: Final = frozenset({"stems_basic", "stems_full"})
RIFFUSION_SONGS: Final = 2
"""Songs of a Riffusion call; with fewer the rest is still to come (contract, riffusion 3)."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, judged by itself.

    `update` is what to show the caller (None for answers that say nothing of the task); `error` why it
    failed or why polling stops. `doubt` says that the end must not be believed at once: 'no file' for a
    finished task without its file, 'half' for one song of two, 'again' for a failure to be confirmed; then
    `update` shows a task that goes on, and `ending` is the last update once the doubt has gone.
    `mark` tells answers apart, `note` describes a shape or word that no rule knows.
    """

    phase: Phase
    update: TaskUpdate | None = None
    ending: TaskUpdate | None = None
    error: MusicAPIError | None = None
    retry_after: float | None = None
    doubt: Literal["", "no file", "half", "again"] = ""
    mark: int = 0
    note: str = ""

    @property
    def result(self) -> Result | None:
        """The result, if the task is done beyond doubt."""
        return self.update.result if self.update is not None else None


class Look:
    """One answer to a poll and the rules R1 to R13 over it; `judge` applies them. It never raises."""

    __slots__ = ("body", "found", "polled", "ref", "type")

    def __init__(self, found: Response, ref: TaskRef, polled: Polled) -> None:
        self.found = found
        self.ref = ref
        self.polled = polled
        self.body = found.fields
        self.type = found.type

    def judge(self) -> Seen:
        """What the answer says by itself."""
        if self._is_plain:
            return self._by_shape()
        found = self.found
        says_failed = self.type == "failed" or self.body.get("status") == "FAILED"
        if found.not_ready and not (found.status == 202 and says_failed):  # R1
            return self._going("pending")
        seen = self._by_status(found.status, says_failed)
        if seen is None and (found.code or 0) >= 400:  # R11
            seen = self._by_status(found.code or 0, says_failed)
        if seen is not None:
            return seen
        if not self.type and "data" not in self.body and "status" not in self.body and self._says_error:
            return self._transient()  # R12
        return self._by_shape()

    def failed_by_event(self) -> Seen:
        """Return the failure that a webhook reports by the name of its event; `message` tells why."""
        items = list_or_empty(self.body.get("data"))
        clips = self._clips(items) if items else None
        told = (text_or_none(self.body.get("message")), error_text(self.body))
        reason = next((text for text in told if text and text.strip().lower() != "success"), "")
        if not reason and clips is not None:
            reason = "; ".join(dict.fromkeys(filter(None, (clip.failure for clip in clips))))
        return self._failed(clips, reason)

    @property
    def _is_plain(self) -> bool:
        """The usual answer, of which R1 to R12 say nothing."""
        found, body = self.found, self.body
        return (
            found.status == 200
            and (found.code is None or found.code == 200)
            and not self.type
            and "data" in body
            and "status" not in body
            and body.keys().isdisjoint(REFUND_FLAGS)
        )

    @property
    def _says_error(self) -> bool:
        return bool(error_text({"error": self.body.get("error")}))

    def _by_status(self, status: int, says_failed: bool) -> Seen | None:
        """R2 to R10; None where the body decides."""
        found, ok = self.found, 200 <= status < 300
        flagged = any(self.body.get(flag) is not None for flag in REFUND_FLAGS)
        if ok and found.json and not flagged and not self.type:
            return self._failed() if says_failed else None  # R3, or the usual answer
        text = found.words
        limited = any(word in text for word in LIMITS_NOT_FAILURES)
        if flagged and self.type in TASK_WORDS and not limited:  # R2
            return self._failed()
        if says_failed or (ok and self.type in FAILED_IN_2XX):  # R3
            return self._failed()
        if not ok and (self.type in {"timeout", "api_error"} or _task_failed(status, text)):  # R4
            return self._failed(sure="refund" in text)
        match status:
            case 429:  # R7
                return self._limited()
            case 400 if "task not found" in text:  # R8
                return Seen(phase="missing", error=self._error())
            case 404:
                return Seen(phase="missing", error=self._error())
            case _ if 400 <= status < 500:  # R5, R6, R9, and the 403 of R7
                error = self._error()
                return self._limited() if isinstance(error, RateLimitedError) else _stop(error)
            case _ if not ok or not found.json:  # R10
                return self._transient()
            case _:
                return None

    def _by_shape(self) -> Seen:
        """R13: the body of the family."""
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

    def _data(self) -> Seen:
        data = self.body.get("data")
        if isinstance(data, list) and data:
            return self._items(list_or_empty(data))
        if isinstance(data, dict):
            voice = read_voice(
                mapping_or_empty(data), self.found.body, task_id=self.ref.task_id, family=self.ref.family
            )
            if voice is not None:
                return self._done(voice)
            told = mapping_or_empty(data)
            word = (text_or_none(told.get("status")) or "").upper()
            if "FAIL" in word or "ERROR" in word:
                return self._failed(reason=error_text(told) or "")
            return self._going("pending")
        note = "" if data in (None, []) and self.body else f"no rule knows this body: {self.found.text}"
        return self._going("pending", note=note)

    def _items(self, items: Sequence[Any]) -> Seen:
        raw, task_id, family = self.found.body, self.ref.task_id, self.ref.family
        if any(map(is_pair, items)):
            pairs = read_pairs(items, raw, task_id=task_id, family=family)
            if not all(map(is_pair, items)) or not all(pair.is_terminal for pair in pairs.pairs):
                return self._going("running", pairs)
            return self._ended(pairs, failed=all(pair.is_failed for pair in pairs.pairs))
        if all(map(_is_under_way, items)) and self.ref.kind not in STEMS_KINDS:
            return self._going("running", Clips.unread(items, raw, task_id=task_id, family=family))
        clips = self._clips(items)
        succeeded = clips.succeeded
        if len(succeeded) + len(clips.failed) < len(items):  # an item that is no object has not ended
            return self._going("running", clips)
        return self._ended(clips, failed=not succeeded)

    def _clips(self, items: Sequence[Any]) -> Clips:
        clips = read_clips(items, self.found.body, task_id=self.ref.task_id, family=self.ref.family)
        for clip in clips.items:
            if "state" not in clip.raw and self._is_upload(clip):
                clip.state = SUCCEEDED
            if self.ref.kind == "download" and clip.wav_url and self.ref.format in {"", "wav"}:
                clip.audio_url = clip.wav_url  # read first (contract, producer 4), unless MP3 was asked for
        return Stems.of(clips) if self.ref.kind in STEMS_KINDS else clips

    def _is_upload(self, clip: Clip) -> bool:
        """An uploaded clip has neither state nor link: its id is the result."""
        if not clip.clip_id or "state" in clip.raw:
            return False
        unsaid = self.ref.kind in {"", "get_music"}
        return self.ref.kind == "upload" or (unsaid and clip.raw.keys() <= {"clip_id", "id"})

    def _ended(self, clips: Clips, *, failed: bool) -> Seen:
        if not failed:
            shown = all(_shows_file(clip) or self._is_upload(clip) for clip in clips.succeeded)
            return self._done(clips, "" if shown else "no file")
        reasons = dict.fromkeys(filter(None, (clip.failure for clip in clips)))
        return self._failed(clips, "; ".join(reasons))

    def _producer(self) -> Seen:
        word = (text_or_none(self.body.get("status")) or "").upper()
        items = list_or_empty(self.body.get("data"))
        match word:
            case "PENDING" | "RUNNING":
                return self._going("running" if items else "pending", self._clips(items))
            case "FAILED":
                return self._failed(self._clips(items))
            case "SUCCESS":
                clips = self._clips(items)
                shown = bool(clips) and all(_shows_file(clip) or self._is_upload(clip) for clip in clips)
                return self._done(clips, "" if shown else "no file")
            case _:
                return self._data()

    def _nuro(self) -> Seen:
        word = (text_or_none(self.body.get("status")) or "").lower()
        clip = Clip.read({**self.body, "clip_id": self.ref.task_id, "state": word})
        clip.raw = self.body
        clips = Clips([clip], self.found.body, task_id=self.ref.task_id, family=self.ref.family)
        match word:
            case "succeeded":
                return self._ended(clips, failed=False)
            case "failed":
                return self._failed(clips)
            case "running":
                return self._going("running", clips)
            case _:
                known = word in {"", "pending"}
                return self._going("pending", clips, note="" if known else f"no rule knows status {word!r}")

    def _riffusion(self) -> Seen:
        items = list_or_empty(self.body.get("data"))
        message = (text_or_none(self.body.get("message")) or "").strip().lower()
        if not items or message == "processing":
            return self._going("pending", self._clips(items) if items else None)
        seen = self._items(items)
        if len(items) >= RIFFUSION_SONGS or seen.phase not in {"done", "failed"}:
            return seen
        return _doubted(seen, "half")

    def _studio(self) -> Seen:
        data = mapping_or_empty(self.body.get("data"))
        word = (text_or_none(data.get("status")) or "").upper()
        reason = text_or_none(data.get("fail_reason"))
        songs = list_or_empty(mapping_or_empty(data.get("data")).get("songs"))
        clips = Clips(
            [Clip.from_studio(mapping_or_empty(song)) for song in songs if isinstance(song, dict)],
            self.found.body,
            task_id=self.ref.task_id,
            family=self.ref.family,
        )
        if word == "SUCCESS":
            return self._done(clips, "" if clips and all(map(_shows_file, clips)) else "no file")
        if reason or "FAIL" in word or "ERROR" in word:
            return self._failed(clips, reason or "")
        if word == "IN_PROGRESS":
            return self._going("running", clips)
        known = word in {"", "NOT_START"}
        return self._going("pending", clips, note="" if known else f"no rule knows status {word!r}")

    def _lyrics(self) -> Seen:
        data = mapping_or_empty(self.body.get("data"))
        text = text_or_none(data.get("text"))
        if not text and (text_or_none(data.get("status")) or "").lower() != "complete":
            return self._going("pending")
        title = text_or_none(data.get("title"))
        return self._done(
            WrittenLyrics(
                title, text or "", self.found.body, task_id=self.ref.task_id, family=self.ref.family
            )
        )

    # --- what a rule concludes ---------------------------------------------------------------------------

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
            raw=self.found.body,
        )

    def _going(
        self, phase: Literal["pending", "running"], clips: Clips | None = None, note: str = ""
    ) -> Seen:
        update = self._update(phase, clips)
        note = self.found.redactor.line(note) if note else ""
        return Seen(phase=phase, update=update, retry_after=self.found.retry_after, note=note)

    def _done(self, result: Result, doubt: Literal["", "no file"] = "") -> Seen:
        update = self._update(result.status, result.clips, result=result)
        seen = Seen(phase="done", update=update)
        return _doubted(seen, doubt) if doubt else seen

    def _failed(self, clips: Clips | None = None, reason: str = "", *, sure: bool = True) -> Seen:
        said = error_text(self.body) or ""
        hide = self.found.redactor.text
        text = reason or (said if said.strip().lower() != "success" else "")
        error = TaskFailedError(
            hide(text) or "no reason given",
            type=hide(text_or_none(self.body.get("type")) or "") or None,
            refunded=self._refunded(f"{said} {reason}"),
            clips=clips or (),
            body=self.found.shown,
            http_status=self.found.status,
            task_id=self.ref.task_id,
            family=self.ref.family,
        )
        seen = Seen(phase="failed", update=self._update("failed", clips, error=error), error=error)
        if sure:
            return seen
        mark = zlib.crc32(f"{self.found.status} {self.type} {self.found.words}".encode())
        return msgspec.structs.replace(_doubted(seen, "again"), mark=mark)

    def _refunded(self, text: str) -> bool | None:
        """What the service reports: its flag, else the word in its text, else nothing."""
        for flag in REFUND_FLAGS:
            value = self.body.get(flag)
            if isinstance(value, bool):
                return value
        return True if "refunded" in text.lower() else None

    def _error(self) -> MusicAPIError:
        call = self.polled.call_for(self.ref.task_id)
        if self.found.ok and not self.found.json:
            return InvalidResponseError(
                f"the answer is not JSON: {self.found.text}",
                status=self.found.status,
                body=self.found.shown,
                call=call,
                task_id=self.ref.task_id,
                family=self.ref.family,
            )
        return error_of(self.found, call=call, task_id=self.ref.task_id, family=self.ref.family)

    def _limited(self) -> Seen:
        return Seen(phase="rate_limited", error=self._error(), retry_after=self.found.retry_after)

    def _transient(self) -> Seen:
        return Seen(phase="transient", error=self._error(), retry_after=self.found.retry_after)


def _is_under_way(item: Any) -> bool:
    """A clip whose own word says that it goes on: no more of it needs to be read."""
    return isinstance(item, dict) and cast("dict[str, Any]", item).get("state") in UNDER_WAY


def _stop(error: MusicAPIError) -> Seen:
    return Seen(phase="stop", error=error)


def _doubted(seen: Seen, doubt: Literal["no file", "half", "again"]) -> Seen:
    """The same look, with its end held back."""
    ending = seen.update if seen.ending is None else seen.ending
    assert ending is not None
    shown = TaskUpdate(
        "pending" if doubt == "again" else "running",
        task_id=ending.task_id,
        family=ending.family,
        clips=ending.clips,
        raw=ending.raw,
    )
    phase: Phase = "timeout?" if doubt == "again" else "running" if doubt == "half" else seen.phase
    return Seen(phase=phase, update=shown, ending=ending, doubt=doubt)


def _task_failed(status: int, text: str) -> bool:
    """A 504 that speaks of the task and not of the gateway."""
    return status == 504 and "task" in text and "fail" in text


def _shows_file(clip: Clip) -> bool:
    """A succeeded clip with its file; a video alone has no audio to wait for."""
    return clip.final_url is not None or bool(clip.video_url and not clip.audio_url)
