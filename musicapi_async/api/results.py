"""Results of tasks: clips and voices, and the update that one poll gives. Stems and pairs are in `stems`.

Every class keeps the reply as it came in `raw`. Fields that the service leaves out, or sends in another
type, are None; unknown words for a state stay readable and never count as an end. Shapes are declared here,
and filled by `musicapi_async._wire.reading`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import copy
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self, overload

import msgspec

from ..errors import MusicAPIError, TaskFailedError

STREAM_HOST: Final = "audiopipe.suno.ai"
"""Host of early audio: a stream while the clip is running, never a file (from live replies)."""

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
UNFINISHED: Final = ("pending", "running")
"""States of a clip that are known not to be an end."""
UNKNOWN: Final = "unknown"
"""State of a clip whose `state` is there but is no word: it is not taken for an end."""

Until = Literal["all", "first", "stream"]
"""When a wait ends: all clips terminal, the first succeeded clip, or the first audio of any kind."""

Amount = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]
"""A finite number of zero or more; anything else in a reply counts as missing."""

RAW_NAME: Final = "<raw>"
"""Name on the wire of the field that keeps the raw mapping; no reply has such a key."""


def _short(value: object) -> str:
    """Return the repr of a value, of a long text such as lyrics its beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"


class Item(msgspec.Struct, kw_only=True):
    """A part of a reply. `raw` is the JSON object that it was read from."""

    # Copied for each item; a factory, `dict[str, Any]`, would cost three times the rest of the reading.
    raw: dict[str, Any] = msgspec.field(default={}, name=RAW_NAME)

    def __repr__(self) -> str:
        values = msgspec.structs.asdict(self).items()
        named = [
            f"{name}={_short(value)}" for name, value in values if name != "raw" and value not in (None, "")
        ]
        return f"{type(self).__name__}({', '.join(named)})"


class Clip(Item, kw_only=True):
    """One song of a task. Clips of a task finish at different times.

    `state` is 'pending', 'running', 'succeeded', 'failed', or a word that is not known yet; `duration` is
    in seconds; `audio_url` is the link that the service sent: use `stream_url` for early audio and
    `final_url` for the file.
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
    duration: Amount | None = None
    negative_tags: str | None = None
    style_weight: Amount | None = None
    weirdness_constraint: Amount | None = None
    mv: str | None = None
    sound: str | None = None
    seed: str | int | None = None
    stem_type: str | None = None
    error: str | None = None
    error_message: str | None = None

    @property
    def is_succeeded(self) -> bool:
        """True if the clip is finished. One without a state is, once it has the link of a file."""
        if self.state:
            return self.state.lower() == SUCCEEDED
        return is_file(self.audio_url) or is_file(self.wav_url) or is_file(self.video_url)

    @property
    def is_failed(self) -> bool:
        """True if the clip failed; `failure` says why."""
        return self.state.lower() == FAILED

    @property
    def is_terminal(self) -> bool:
        """True if the clip succeeded or failed; with every other word it is unfinished."""
        return self.is_succeeded or self.is_failed

    @property
    def failure(self) -> str | None:
        """The service's text for a failed clip."""
        return self.error_message or self.error

    @property
    def stream_url(self) -> str | None:
        """Link of early audio to listen to (about 20 s after submit), no file; None once there is a file."""
        return None if self.final_url else self.audio_url or None

    @property
    def final_url(self) -> str | None:
        """Link of the finished file, or None: never a stream, never made up."""
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


_LINK: Final = re.compile(r"https?://(?:[^/?#@\s]*@)?([\w.-]+|\[[\da-f:.]+\])(?=[:/?#]|$)", re.IGNORECASE)
"""A link with its host. Every finished clip of every poll is matched, and `urlsplit` takes 3 µs."""


def is_file(url: str | None) -> bool:
    """Return True if a link leads to a file: http or https, and not the host of early audio."""
    link = _LINK.match(url) if url else None
    return link is not None and link[1].lower() != STREAM_HOST


class Result:
    """The result of a finished task. `status` is 'succeeded' or 'partial'; `raw` is the whole reply."""

    __slots__ = ("family", "raw", "task_id")

    def __init__(self, raw: Any = None, *, task_id: str = "", family: str = "") -> None:
        self.raw: Any = raw
        self.task_id: str = task_id
        self.family: str = family

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

    def __hash__(self) -> int:
        return object.__hash__(self)


class Clips(Result, Sequence[Clip]):
    """The clips of a task, a sequence; usually two, but never count on it."""

    __slots__ = ("_items",)

    def __init__(
        self, items: Sequence[Clip] = (), raw: Any = None, *, task_id: str = "", family: str = ""
    ) -> None:
        super().__init__(raw, task_id=task_id, family=family)
        self._items = tuple(items)

    @property
    def items(self) -> tuple[Clip, ...]:
        """The clips as a tuple."""
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
        """The clips themselves."""
        return self

    @property
    def status(self) -> str:
        """'succeeded', or 'partial' when some clips failed."""
        return "partial" if self.failed else SUCCEEDED

    @property
    def succeeded(self) -> list[Clip]:
        """The clips that are finished."""
        return [clip for clip in self.items if clip.is_succeeded]

    @property
    def failed(self) -> list[Clip]:
        """The clips that failed."""
        return [clip for clip in self.items if clip.is_failed]

    @property
    def has_succeeded(self) -> bool:
        """True if any clip is finished."""
        return any(clip.is_succeeded for clip in self.items)

    def require_all(self) -> Self:
        """Return the clips themselves, or raise `TaskFailedError` if any of them failed."""
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


class Voice(Result):
    """A voice made from audio: `persona_id` for persona_music; `name` may be missing."""

    __slots__ = ("name", "persona_id")

    def __init__(
        self,
        persona_id: str = "",
        name: str | None = None,
        raw: Any = None,
        *,
        task_id: str = "",
        family: str = "",
    ) -> None:
        super().__init__(raw, task_id=task_id, family=family)
        self.persona_id: str = persona_id
        self.name: str | None = name

    def __repr__(self) -> str:
        return f"Voice(persona_id={self.persona_id!r}, name={self.name!r})"


class TaskUpdate:
    """A task as one poll found it.

    `state` is 'pending' (no clips yet), 'running' (some clips are there), 'succeeded', 'partial' or 'failed';
    `clips` the clips as they are now; `result` is set once the task succeeded, `error` once it failed;
    `progress` the share done from 0 to 1 where the service says it (Nuro, Studio), else None; `raw` is the
    reply; `age` the age of the task in seconds at the poll.
    """

    __slots__ = ("age", "clips", "error", "family", "progress", "raw", "result", "state", "task_id")

    def __init__(
        self,
        state: str,
        *,
        task_id: str = "",
        family: str = "",
        clips: Clips | None = None,
        result: Result | None = None,
        error: MusicAPIError | None = None,
        progress: float | None = None,
        raw: Any = None,
        age: float = 0.0,
    ) -> None:
        self.state: str = state
        self.task_id: str = task_id
        self.family: str = family
        self.clips: Clips = clips if clips is not None else Clips((), raw, task_id=task_id, family=family)
        self.result: Result | None = result
        self.error: MusicAPIError | None = error
        self.progress: float | None = progress
        self.raw: Any = raw
        self.age: float = age

    @property
    def is_terminal(self) -> bool:
        """True if the task has ended, so that this is its last update."""
        return self.result is not None or self.error is not None

    def outcome(self) -> Result:
        """Return the result, or the clips so far; raises the error of a failed task."""
        if self.error is not None:
            raise copy(self.error)  # a copy for each caller, whose traceback is its own
        return self.result if self.result is not None else self.clips

    def satisfies(self, until: Until) -> bool:
        """Return True if a wait that ends as `until` says has ended with this update."""
        if self.is_terminal:
            return True
        if until == "first":
            return bool(self.clips.succeeded)
        return until == "stream" and any(clip.audio_url for clip in self.clips)

    def fingerprint(self) -> tuple[object, ...]:
        """Return all that a caller would notice: updates with the same fingerprint say the same."""
        return (
            self.state,
            tuple((clip.clip_id, clip.state, clip.audio_url) for clip in self.clips),
            self.progress,
        )

    def __repr__(self) -> str:
        return f"TaskUpdate({self.state!r}, task_id={self.task_id!r}, clips={self.clips!r})"
