"""What a task gives: clips; and what one look at a task shows. Other results stand in `parts`.

Every class keeps the reply as it came in `raw`. Fields that the service leaves out, or sends in another
type, are None; unknown state words stay readable and never count as an end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import Any, Final, Literal, Self, cast, overload

import msgspec

from ..errors import MusicAPIError, TaskFailedError
from .values import RAW_NAME, finite, id_of, lenient, list_or_empty, mapping_or_empty

STREAM_HOST: Final = "audiopipe.suno.ai"
"""Host of early audio: a stream while the clip is running, never a file (contract, tasks 4)."""

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
UNDER_WAY: Final = ("pending", "running")
"""States of a clip that are known not to be an end."""
UNKNOWN: Final = "unknown"
"""State of a clip whose `state` is there but is no word: it is not taken for an end."""

Until = Literal["all", "first", "stream"]
"""When a wait ends: all clips terminal, the first succeeded clip, or the first audio of any kind."""


def _short(value: object) -> str:
    """Long text, such as lyrics, by its beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"


class Item(msgspec.Struct, kw_only=True):
    """Anything read from a reply; `raw` is the mapping that it was read from."""

    # Made anew for each item; a factory, `dict[str, Any]`, would cost three times the rest of the reading.
    raw: dict[str, Any] = msgspec.field(default={}, name=RAW_NAME)

    @classmethod
    def read(cls, mapping: Mapping[str, Any]) -> Self:
        """Read one JSON object; fields that do not fit are left at their defaults."""
        item = lenient(cls, mapping)
        item.raw = dict(mapping)
        return item

    def __repr__(self) -> str:
        told = ((name, getattr(self, name)) for name in self.__struct_fields__ if name != "raw")
        shown = ", ".join(f"{name}={_short(value)}" for name, value in told if value not in (None, ""))
        return f"{type(self).__name__}({shown})"


class Clip(Item, kw_only=True):
    """One song of a task. Clips of a task finish at different times.

    `state` is 'pending', 'running', 'succeeded', 'failed', or a word that is not known yet; `duration` is
    in seconds; `audio_url` is whatever the service sent: use `stream_url` for early audio and `final_url`
    for the file.
    """

    clip_id: str = ""
    state: str = ""
    title: str | None = None
    tags: str | None = None
    lyrics: str | None = None
    image_url: str | None = None
    audio_url: str | None = None
    video_url: str | None = None
    wav_url: str | None = None
    created_at: str | None = None
    gpt_description_prompt: str | None = None
    duration: float | None = None
    negative_tags: str | None = None
    style_weight: float | None = None
    weirdness_constraint: float | None = None
    mv: str | None = None
    sound: str | None = None
    seed: str | int | None = None
    stem_type: str | None = None
    error: str | None = None
    error_message: str | None = None

    def __post_init__(self) -> None:
        self.duration = finite(self.duration)
        self.style_weight = finite(self.style_weight)
        self.weirdness_constraint = finite(self.weirdness_constraint)

    @classmethod
    def read(cls, mapping: Mapping[str, Any]) -> Self:
        """Read one JSON object; empty links count as missing, a state that is no word as unknown."""
        clip = super().read(mapping)
        if not clip.clip_id:
            clip.clip_id = id_of(mapping) or ""
        if not clip.state and "state" in mapping:
            clip.state = UNKNOWN
        clip.audio_url = clip.audio_url or None
        clip.wav_url = clip.wav_url or None
        clip.video_url = clip.video_url or None
        clip.image_url = clip.image_url or None
        return clip

    @property
    def is_succeeded(self) -> bool:
        """Finished well. An item without a state has, once it has the link of a file."""
        if self.state:
            return self.state.lower() == SUCCEEDED
        return is_file(self.audio_url) or is_file(self.wav_url) or is_file(self.video_url)

    @property
    def is_failed(self) -> bool:
        """Failed for good; `failure` tells why."""
        return self.state.lower() == FAILED

    @property
    def is_terminal(self) -> bool:
        """Succeeded or failed; every other word means that it goes on."""
        return self.is_succeeded or self.is_failed

    @property
    def failure(self) -> str | None:
        """The service's text for a failed clip."""
        return self.error_message or self.error

    @property
    def stream_url(self) -> str | None:
        """Early audio to listen to (about 20 s after submit), not a file; None once there is a file."""
        return None if self.final_url else self.audio_url or None

    @property
    def final_url(self) -> str | None:
        """The finished file's link, or None: never a stream, never made up."""
        if not self.is_succeeded:
            return None
        if is_file(self.audio_url):
            return self.audio_url
        return self.wav_url if is_file(self.wav_url) else None

    @property
    def created(self) -> datetime | None:
        """`created_at` as a time with zone, or None if it is missing or malformed."""
        try:
            return datetime.fromisoformat(self.created_at) if self.created_at else None
        except ValueError:
            return None

    @classmethod
    def from_studio(cls, song: Mapping[str, Any]) -> Clip:
        """A Studio song in the names of the other families."""
        tags = song.get("tags")
        clip = cls.read(
            {
                **song,
                "clip_id": song.get("id"),
                "audio_url": song.get("song_path"),
                "image_url": song.get("image_path"),
                "tags": ", ".join(map(str, list_or_empty(tags))) or tags,
                "state": SUCCEEDED if song.get("song_path") else "running",
            }
        )
        clip.raw = dict(song)
        return clip


_LINK: Final = re.compile(r"https?://(?:[^/?#@\s]*@)?([\w.-]+|\[[\da-f:.]+\])(?=[:/?#]|$)", re.IGNORECASE)
"""A link with its host. Every finished clip of every poll passes here, and `urlsplit` takes 3 µs."""


def is_file(url: str | None) -> bool:
    """Whether a link leads to a file: http or https, and not the host of early audio."""
    link = _LINK.match(url) if url else None
    return link is not None and link[1].lower() != STREAM_HOST


class Result:
    """What a finished task gave. `status` is 'succeeded' or 'partial'; `raw` is the whole reply."""

    __slots__ = ("family", "raw", "task_id")

    def __init__(self, raw: Any = None, *, task_id: str = "", family: str = "") -> None:
        self.raw = raw
        self.task_id = task_id
        self.family = family

    @property
    def status(self) -> str:
        """'succeeded', or 'partial' when some clips failed."""
        return SUCCEEDED

    @property
    def clips(self) -> Clips:
        """The clips of the result; empty for results that have none."""
        return Clips((), self.raw, task_id=self.task_id, family=self.family)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and type(other) is type(self) and self.raw == other.raw

    __hash__ = object.__hash__


class Clips(Result, Sequence[Clip]):
    """The clips of a task, a sequence; usually two, but never count on it."""

    __slots__ = ("_items", "_unread")

    def __init__(
        self, items: Sequence[Clip] = (), raw: Any = None, *, task_id: str = "", family: str = ""
    ) -> None:
        super().__init__(raw, task_id=task_id, family=family)
        self._items: tuple[Clip, ...] | None = tuple(items)
        self._unread: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def unread(cls, mappings: Sequence[Mapping[str, Any]], raw: Any, *, task_id: str, family: str) -> Self:
        """Clips that are read when somebody asks for them: of most polls nobody does."""
        clips = cls((), raw, task_id=task_id, family=family)
        clips._items, clips._unread = None, mappings
        return clips

    @property
    def items(self) -> tuple[Clip, ...]:
        """The clips."""
        if self._items is None:
            self._items = tuple(map(Clip.read, self._unread))
            self._unread = ()
        return self._items

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | Sequence[Clip]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.items)

    def __repr__(self) -> str:
        states = ", ".join(f"{clip.clip_id or '?'}: {clip.state or '?'}" for clip in self.items)
        return f"{type(self).__name__}({states})"

    @property
    def clips(self) -> Clips:
        """Itself."""
        return self

    @property
    def status(self) -> str:
        """'succeeded', or 'partial' when some clips failed."""
        return "partial" if self.failed else SUCCEEDED

    @property
    def succeeded(self) -> list[Clip]:
        """The clips that finished well."""
        return [clip for clip in self.items if clip.is_succeeded]

    @property
    def failed(self) -> list[Clip]:
        """The clips that failed."""
        return [clip for clip in self.items if clip.is_failed]

    @property
    def has_succeeded(self) -> bool:
        """Return True if any clip finished well. Reads nothing: clips not read yet are known to go on."""
        return self._items is not None and any(clip.is_succeeded for clip in self._items)

    def require_all(self) -> Self:
        """Raise `TaskFailedError` if any clip failed, else return self."""
        if self.failed:
            reason = self.failed[0].failure or "no reason given"
            raise TaskFailedError(
                f"{len(self.failed)} of {len(self)} clips failed: {reason}",
                clips=self.items,
                body=self.raw,
                task_id=self.task_id,
                family=self.family,
            )
        return self


class TaskUpdate:
    """One look at a task.

    `state` is 'pending' (nothing to show yet), 'running' (some clips are there), 'succeeded', 'partial' or
    'failed'; `clips` the clips as they are now; `result` is set once the task ended well, `error` once it
    failed; `raw` is the reply; `seen_at` the age of the task in seconds at the look.
    """

    __slots__ = ("clips", "error", "family", "raw", "result", "seen_at", "state", "task_id")

    def __init__(
        self,
        state: str,
        *,
        task_id: str = "",
        family: str = "",
        clips: Clips | None = None,
        result: Result | None = None,
        error: MusicAPIError | None = None,
        raw: Any = None,
        seen_at: float = 0.0,
    ) -> None:
        self.state = state
        self.task_id = task_id
        self.family = family
        self.clips = clips if clips is not None else Clips((), raw, task_id=task_id, family=family)
        self.result = result
        self.error = error
        self.raw = raw
        self.seen_at = seen_at

    @property
    def is_terminal(self) -> bool:
        """Nothing more will come."""
        return self.result is not None or self.error is not None

    def outcome(self) -> Result:
        """The result, or the clips so far; raises the error of a failed task."""
        if self.error is not None:
            raise copy(self.error)  # a copy for each caller, whose traceback is its own
        return self.result if self.result is not None else self.clips

    def satisfies(self, until: Until) -> bool:
        """Whether a wait that ends as `until` says has ended with this look."""
        if self.is_terminal:
            return True
        if until == "first":
            return bool(self.clips.succeeded)
        return until == "stream" and any(clip.audio_url for clip in self.clips)

    @property
    def progress(self) -> float | None:
        """Share done from 0 to 1 where the service tells (Nuro, Studio), else None."""
        body = mapping_or_empty(self.raw)
        value = body.get("progress")
        if value is None:
            value = mapping_or_empty(body.get("data")).get("progress")
            if value is None:
                return None
        try:
            share = float(str(value).rstrip("%")) / 100
        except ValueError:
            return None
        return share if 0 <= share <= 1 else None

    def __repr__(self) -> str:
        return f"TaskUpdate({self.state!r}, task_id={self.task_id!r}, clips={self.clips!r})"

    def fingerprint(self) -> tuple[Any, ...]:
        """What a caller would notice: two looks with the same fingerprint show nothing new."""
        return (
            self.state,
            tuple((clip.clip_id, clip.state, clip.audio_url) for clip in self.clips),
            self.progress,
        )


def read_clips(items: Sequence[Any], raw: Any, *, task_id: str, family: str) -> Clips:
    """A list of JSON objects as clips; what is no object is kept in `raw` only."""
    found = [Clip.read(cast("dict[str, Any]", item)) for item in items if isinstance(item, dict)]
    return Clips(found, raw, task_id=task_id, family=family)
