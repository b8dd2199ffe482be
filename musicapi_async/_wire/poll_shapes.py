"""Judge the body of a poll response by the shape that its family has.

Each family has its own form of body. A success needs its clips or keys; an unknown shape or word means that
the task is unfinished, and is logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from ..api.json_values import (
    JSON,
    list_or_empty,
    mapping_or_empty,
    reference_or_none,
    text_or_none,
)
from ..api.lyrics import WrittenLyrics
from ..api.operation import Shape
from ..api.results import STREAM_HOST, SUCCEEDED, UNFINISHED, Clip, Clips, clips_of
from .poll_result import PollReport, PollResult, unconfirmed
from .response import error_text
from .result_reading import (
    Unread,
    is_pair,
    read_clip,
    read_clips,
    read_pairs,
    read_stems,
    read_studio_song,
    read_voice,
)

STEMS_KINDS: Final = frozenset({"stems_basic", "stems_full"})
NAMED_OTHERWISE: Final = STEMS_KINDS | {"download"}
"""Kinds whose clips have other names or links than songs have, which `clips_in` sees to."""
PLAIN_FILE: Final = re.compile(rf"https://(?!{re.escape(STREAM_HOST)})[a-z0-9.-]+/[!-~]*", re.IGNORECASE)
"""The usual form of a link to a file: not at the host of early audio, and without traces of a repair."""
RIFFUSION_SONGS: Final = 2
"""Songs of a Riffusion call (vendor's Riffusion page); with fewer the rest is still to come."""


def clips_in(report: PollReport, items: Sequence[JSON]) -> Clips:
    """Read the clips of a task: stems, uploads and downloads as what they are."""
    ref = report.ref
    clips = read_clips(items, report.response.body, task_id=ref.task_id, family=ref.family)
    for clip in clips.items:
        if "state" not in clip.raw and _is_upload(report, clip):
            clip.state = SUCCEEDED
        if ref.kind == "download" and clip.wav_url and ref.format in {"", "wav"}:
            clip.audio_url = clip.wav_url  # a download gives WAV unless MP3 was requested
    return read_stems(clips) if ref.kind in STEMS_KINDS else clips


def _sonic(report: PollReport) -> PollResult:
    data = report.body.get("data")
    if isinstance(data, list) and data:
        return _items(report, data)
    if isinstance(data, dict):
        ref = report.ref
        voice = read_voice(data, report.response.body, task_id=ref.task_id, family=ref.family)
        if voice is not None:
            return report.done(voice)
        word = (text_or_none(data.get("status")) or "").upper()
        if "FAIL" in word or "ERROR" in word:
            return report.failed(reason=error_text(data) or "")
        return report.unfinished("pending")
    note = "" if data in (None, []) and report.body else f"no rule knows this body: {report.response.text}"
    return report.unfinished("pending", note=note)


def _items(report: PollReport, items: Sequence[JSON]) -> PollResult:
    raw, task_id, family = report.response.body, report.ref.task_id, report.ref.family
    unread = None if report.ref.kind in NAMED_OTHERWISE else _unread(items)
    if unread is not None:
        as_clips = clips_of(unread, raw, task_id=task_id, family=family)
        return report.done(as_clips) if unread.succeeded else report.unfinished("running", as_clips)
    if any(map(is_pair, items)):
        pairs = read_pairs(items, raw, task_id=task_id, family=family)
        if not all(map(is_pair, items)) or not all(pair.is_terminal for pair in pairs.pairs):
            return report.unfinished("running", pairs)
        if all(pair.is_failed for pair in pairs.pairs):
            return report.failed(pairs, failures_of(pairs))
        return _done(report, pairs, pairs.succeeded)
    clips = clips_in(report, items)
    succeeded = clips.succeeded
    if len(succeeded) + len(clips.failed) < len(items):  # an item that is no object has not ended
        return report.unfinished("running", clips)
    return _done(report, clips, succeeded) if succeeded else report.failed(clips, failures_of(clips))


def _done(report: PollReport, clips: Clips, succeeded: list[Clip]) -> PollResult:
    """Return that the task is done, or that a second poll has to confirm it: a clip lacks its file."""
    has_files = all(_has_file(clip) or _is_upload(report, clip) for clip in succeeded)
    return report.done(clips, "" if has_files else "file")


def _producer(report: PollReport) -> PollResult:
    word = (text_or_none(report.body.get("status")) or "").upper()
    items = list_or_empty(report.body.get("data"))
    match word:
        case "PENDING" | "RUNNING":
            return report.unfinished("running" if items else "pending", clips_in(report, items))
        case "FAILED":
            return report.failed(clips_in(report, items))
        case "SUCCESS":
            clips = clips_in(report, items)
            has_files = bool(clips) and all(_has_file(clip) or _is_upload(report, clip) for clip in clips)
            return report.done(clips, "" if has_files else "file")
        case _:
            return _sonic(report)


def _nuro(report: PollReport) -> PollResult:
    ref = report.ref
    word = (text_or_none(report.body.get("status")) or "").lower()
    clip = read_clip({**report.body, "clip_id": ref.task_id, "state": word})
    clip.raw = report.body
    clips = Clips([clip], report.response.body, task_id=ref.task_id, family=ref.family)
    match word:
        case "succeeded":
            return _done(report, clips, clips.succeeded)
        case "failed":
            return report.failed(clips)
        case "running":
            return report.unfinished("running", clips)
        case _:
            note = "" if word in {"", "pending"} else f"no rule knows status {word!r}"
            return report.unfinished("pending", clips, note)


def _riffusion(report: PollReport) -> PollResult:
    items = list_or_empty(report.body.get("data"))
    message = (text_or_none(report.body.get("message")) or "").strip().lower()
    if not items or message == "processing":
        return report.unfinished("pending", clips_in(report, items) if items else None)
    result = _items(report, items)
    if len(items) >= RIFFUSION_SONGS or result.phase not in {"done", "failed"}:
        return result
    return unconfirmed(result, "second song")


def _studio(report: PollReport) -> PollResult:
    data = mapping_or_empty(report.body.get("data"))
    word = (text_or_none(data.get("status")) or "").upper()
    reason = text_or_none(data.get("fail_reason"))
    songs = list_or_empty(mapping_or_empty(data.get("data")).get("songs"))
    clips = Clips(
        [read_studio_song(song) for song in songs if isinstance(song, dict)],
        report.response.body,
        task_id=report.ref.task_id,
        family=report.ref.family,
    )
    if word == "SUCCESS":
        return report.done(clips, "" if clips and all(map(_has_file, clips)) else "file")
    if reason or "FAIL" in word or "ERROR" in word:
        return report.failed(clips, reason or "")
    if word == "IN_PROGRESS":
        return report.unfinished("running", clips)
    note = "" if word in {"", "NOT_START"} else f"no rule knows status {word!r}"
    return report.unfinished("pending", clips, note)


def _lyrics(report: PollReport) -> PollResult:
    data = mapping_or_empty(report.body.get("data"))
    text = text_or_none(data.get("text"))
    if not text and (text_or_none(data.get("status")) or "").lower() != "complete":
        return report.unfinished("pending")
    title = text_or_none(data.get("title"))
    raw, ref = report.response.body, report.ref
    return report.done(WrittenLyrics(title, text or "", raw, task_id=ref.task_id, family=ref.family))


SHAPES: Final[Mapping[Shape, Callable[[PollReport], PollResult]]] = MappingProxyType(
    {
        "sonic": _sonic,
        "producer": _producer,
        "nuro": _nuro,
        "riffusion": _riffusion,
        "studio": _studio,
        "lyrics": _lyrics,
    }
)
"""The judgement of a body by each shape."""


def failures_of(clips: Clips) -> str:
    """Return the service's texts about the clips that failed, each once."""
    return "; ".join(dict.fromkeys(filter(None, (clip.failure for clip in clips))))


def _unread(items: Sequence[JSON]) -> Unread | None:
    """Return items as clips to be read when they are used, if their states decide alone; else None.

    They do if all are unfinished, or all are finished and have a plain link of their file.
    """
    copies: list[dict[str, JSON]] = []  # the reply is the caller's, who may change it before they are read
    finished, has_audio = 0, False
    for item in items:
        if not isinstance(item, dict) or is_pair(item):
            return None
        state, url = item.get("state"), item.get("audio_url")
        if state == SUCCEEDED:
            if not (isinstance(url, str) and PLAIN_FILE.fullmatch(url)):
                return None
            finished, has_audio = finished + 1, True
        elif state not in UNFINISHED:
            return None
        elif url is not None:
            has_audio = has_audio or reference_or_none(url) is not None
        copies.append(item.copy())
    if 0 < finished < len(items):
        return None
    return Unread(copies, finished > 0, has_audio)


def _is_upload(report: PollReport, clip: Clip) -> bool:
    """Return True for an uploaded clip, which has neither state nor link: its id is the result."""
    if not clip.clip_id or "state" in clip.raw:
        return False
    unknown = report.ref.kind in {"", "get_music"}
    return report.ref.kind == "upload" or (unknown and clip.raw.keys() <= {"clip_id", "id"})


def _has_file(clip: Clip) -> bool:
    """Return True for a clip with its file; a video alone has no audio to wait for."""
    return clip.final_url is not None or bool(clip.video_url and not clip.audio_url)
