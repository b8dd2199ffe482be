"""Results of tasks: clips and voices, and the update that one poll gives. Stems and pairs are in `stems`.

Every class keeps the reply as it came in `raw`, which is not a field: it is neither compared nor part of the
plain data (`plain_data`). Fields that the service leaves out, or sends in another
type, are None; unknown words for a state stay readable and never count as an end. Shapes are declared here,
and filled by `musicapi_async._wire.result_reading`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Protocol, Self, TypeVar, overload

import msgspec

from ..errors import MusicAPIError, TaskFailedError
from ..plain_data import PlainData, fields_of
from .response_info import Received, ResponseInfo

ItemT = TypeVar("ItemT", bound="Item")

STREAM_HOST: Final = "audiopipe.suno.ai"
"""Host of early audio: a stream while the clip is running, never a file (from live replies)."""

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
UNFINISHED: Final = ("pending", "running")
"""States of a clip that are known not to be an end."""
UNKNOWN_STATE: Final = "unknown"
"""State of a clip whose `state` is there but is no word: it is not taken for an end."""

Until = Literal["all", "first", "stream"]
"""When a wait ends: all clips terminal, the first succeeded clip, or the first audio of any kind."""

Amount = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]
"""A finite number of zero or more; anything else in a reply counts as missing."""

_WORD: Final = re.compile(r"[!-~]+")
"""Text of one word in ASCII, such as a link."""


def _short(value: object) -> str:
    """Return the repr of a value, of a long text such as lyrics its beginning.

    A link or an id, which has no white space, is whole, so that it can be copied.
    """
    text = repr(value)
    if len(text) <= 60 or (isinstance(value, str) and _WORD.fullmatch(value)):
        return text
    return f"{text[:50]}... ({len(text)} characters)"


class WithRaw:
    """Has the JSON object, and the response of a reply, beside the fields of a Struct.

    So neither is in a comparison, in JSON, or among the arguments. In a `__dict__`, `vars(item)` would take
    them for the content.
    """

    __slots__ = ("_raw", "_received")

    _received: Received | ResponseInfo

    @property
    def raw(self) -> dict[str, Any]:
        """The JSON object that this was read from; empty for one that was made by hand or of plain data."""
        try:
            return self._raw
        except AttributeError:
            self._raw: dict[str, Any] = {}
            return self._raw

    @raw.setter
    def raw(self, mapping: dict[str, Any]) -> None:
        self._raw = mapping


class Item(WithRaw, PlainData, msgspec.Struct, kw_only=True):
    """A part of a reply. `raw` is the JSON object that it was read from."""

    def __repr__(self) -> str:
        values = msgspec.structs.asdict(self).items()
        named = [f"{name}={_short(value)}" for name, value in values if value not in (None, "")]
        return f"{type(self).__name__}({', '.join(named)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_raw, (type(self), msgspec.structs.asdict(self), self.raw)

    def __copy__(self) -> Self:
        return _with_raw(type(self), msgspec.structs.asdict(self), self.raw)


def _with_raw(kind: type[ItemT], fields: Mapping[str, Any], raw: dict[str, Any]) -> ItemT:
    item = kind(**fields)
    item.raw = raw
    return item


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
        """True if the clip is finished. A clip without a state is finished once it has the link of a file."""
        if self.state:
            return self.state.lower() == SUCCEEDED
        return is_file(self.audio_url) or is_file(self.wav_url) or is_file(self.video_url)

    @property
    def is_failed(self) -> bool:
        """True if the clip failed; `failure` says why."""
        return self.state.lower() == FAILED

    @property
    def is_terminal(self) -> bool:
        """True if the clip succeeded or failed. Every other state, also an unknown one, is unfinished."""
        return self.is_succeeded or self.is_failed

    @property
    def failure(self) -> str | None:
        """The reason that the service gives for a failed clip; None if it gives none."""
        return self.error_message or self.error

    @property
    def stream_url(self) -> str | None:
        """Link of early audio to listen to, from about 20 s after the create; None once there is a file.

        It is no file: do not save it.
        """
        return None if self.final_url else self.audio_url or None

    @property
    def final_url(self) -> str | None:
        """Link of the finished file, as the service sent it; None until there is one. Never a stream."""
        if not self.is_succeeded:
            return None
        if is_file(self.audio_url):
            return self.audio_url
        return self.wav_url if is_file(self.wav_url) else None

    def _repr_html_(self) -> str:
        from .player import clip_html

        return clip_html(self)

    @property
    def created(self) -> datetime | None:
        """`created_at` as a `datetime`, or None if it is missing or malformed."""
        try:
            return datetime.fromisoformat(self.created_at) if self.created_at else None
        except ValueError:
            return None


_FILE: Final = re.compile(
    rf"https?://(?:[^/?#@\s]*+@)?+(?!{re.escape(STREAM_HOST)}(?:[:/?#]|$))(?:[\w.-]+|\[[\da-f:.]+\])(?=[:/?#]|$)",
    re.IGNORECASE,
)
"""A link to a file: not to the host of early audio. Every finished clip of every poll is matched, and
`urlsplit` takes 3 µs."""


def is_file(url: str | None) -> bool:
    """Return True if a link leads to a file: http or https, and not the host of early audio."""
    return url is not None and _FILE.match(url) is not None


IDS: Final[Mapping[str, object]] = {"task_id": str, "family": str}
"""Fields of every result, for its plain data."""


class Result(PlainData, fields=IDS):
    """The result of a finished task. `status` is 'succeeded' or 'partial'; `raw` is the whole reply.

    Results are compared by their fields.
    """

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.family!r}, {self.task_id!r})"

    def __eq__(self, other: object) -> bool:
        names = fields_of(type(self))
        if not isinstance(other, Result) or fields_of(type(other)) is not names:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # compared by value, as a list


class UnreadItems(Protocol):
    """JSON objects that are read as clips when a caller uses them."""

    @property
    def succeeded(self) -> bool:
        """True if all are finished files, False if none has ended."""
        ...

    @property
    def has_audio(self) -> bool:
        """True if any clip can be heard."""
        ...

    def read(self) -> tuple[Clip, ...]:
        """Return the clips."""
        ...


class Clips(Result, Sequence[Clip], fields={**IDS, "items": list[Clip]}):
    """The clips of a task, as a sequence. Usually there are two, but the service decides how many.

    Args:
        items: the clips.
        raw: the whole reply.
        task_id: the id of the task.
        family: the family of the task.
    """

    __slots__ = ("_items", "_unread")

    if not TYPE_CHECKING:  # type checkers find the mistake without this

        def __getattr__(self, name):
            one = f"; that of a clip is clips[0].{name}" if hasattr(Clip, name) else ""
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{one}", name=name, obj=self
            )

    def __init__(
        self, items: Sequence[Clip] = (), raw: Any = None, *, task_id: str = "", family: str = ""
    ) -> None:
        super().__init__(raw, task_id=task_id, family=family)
        self._items = tuple(items)
        self._unread: UnreadItems | None = None

    @property
    def items(self) -> tuple[Clip, ...]:
        """The clips as a tuple."""
        unread = self._unread  # another thread may read them meanwhile
        if unread is not None:
            self._items, self._unread = unread.read(), None
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

    def _repr_html_(self) -> str:
        from .player import clips_html

        return clips_html(self)

    @property
    def clips(self) -> Clips:
        """These clips."""
        return self

    @property
    def status(self) -> str:
        """'succeeded', or 'partial' when some clips failed."""
        return "partial" if self._unread is None and self.failed else SUCCEEDED

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
        unread = self._unread
        if unread is not None:
            return unread.succeeded
        return any(clip.is_succeeded for clip in self.items)

    @property
    def has_audio(self) -> bool:
        """True if any clip can be heard, be it as a stream or as a file."""
        unread = self._unread
        if unread is not None:
            return unread.has_audio
        return any(clip.audio_url for clip in self.items)

    def require_all(self) -> Self:
        """Return these clips, or raise `TaskFailedError` if any of them failed."""
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


def clips_of(unread: UnreadItems, raw: Any, *, task_id: str, family: str) -> Clips:
    """Return clips that are read when a caller uses them."""
    # Not by the constructor: each poll makes clips, and keywords make a call of a class twice as long.
    clips = Clips.__new__(Clips)
    clips.raw, clips.task_id, clips.family = raw, task_id, family
    clips._items, clips._unread = (), unread  # pyright: ignore[reportPrivateUsage]
    return clips


class Voice(Result, fields={**IDS, "persona_id": str, "name": str | None}):
    """A voice made from audio. `persona_music` takes its `persona_id`; `name` may be None."""

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


class Failure(PlainData, msgspec.Struct, frozen=True):
    """The reason for which a task failed, as plain data: the public fields of its `TaskFailedError`.

    `message` and `type` are the service's words. `refunded` is its report on the credits: True if it says
    that they were returned, False if not, None if it says nothing.
    """

    message: str
    type: str | None = None
    refunded: bool | None = None

    def as_error(self, clips: Clips, task_id: str, family: str) -> TaskFailedError:
        """Return the error of a task that failed for this reason."""
        return TaskFailedError(
            self.message,
            type=self.type,
            refunded=self.refunded,
            clips=clips,
            task_id=task_id,
            family=family,
        )


class TaskUpdate(
    PlainData,
    fields={
        "state": str,
        "task_id": str,
        "family": str,
        "clips": Clips,
        "result": Result | None,
        "failure": Failure | None,
        "progress": float | None,
        "age": float,
    },
):
    """The state of a task in one poll.

    Plain data has `failure` in the place of `error`. Updates are compared by their fields, except `raw`.

    Args:
        state: 'pending' (no clips yet), 'running' (the reply has clips), 'succeeded', 'partial' or 'failed'.
        task_id: the id of the task.
        family: the family of the task.
        clips: the clips as they are in this poll.
        result: the result; None until the task has succeeded.
        error: the error; None unless the task failed.
        failure: the error as plain data.
        progress: the part that is done, from 0 to 1; None if the service does not report it (only Nuro and
            Studio do).
        raw: the whole reply.
        age: the age of the task at the poll, in seconds.
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
        failure: Failure | None = None,
        progress: float | None = None,
        raw: Any = None,
        age: float = 0.0,
    ) -> None:
        self.state: str = state
        self.task_id: str = task_id
        self.family: str = family
        self.clips: Clips = clips if clips is not None else Clips((), raw, task_id=task_id, family=family)
        self.result: Result | None = result
        if failure is not None and error is None:
            error = failure.as_error(self.clips, task_id, family)
        self.error: MusicAPIError | None = error
        self.progress: float | None = progress
        self.raw: Any = raw
        self.age: float = age

    @property
    def is_terminal(self) -> bool:
        """True if the task has ended; then this is its last update."""
        return self.result is not None or self.error is not None

    @property
    def failure(self) -> Failure | None:
        """`error` as plain data; None unless the task failed."""
        error = self.error
        if isinstance(error, TaskFailedError):
            return Failure(error.message, error.type, error.refunded)
        return None if error is None else Failure(error.message)

    def outcome(self) -> Result:
        """Return the result, or the clips so far if there is none yet; raise the error of a failed task."""
        if self.error is not None:
            raise copy(self.error)  # a copy for each caller, whose traceback is its own
        return self.result if self.result is not None else self.clips

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskUpdate):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in fields_of(TaskUpdate))

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # compared by value

    def satisfies(self, until: Until) -> bool:
        """Return True if this update ends a wait with this `until`."""
        if self.is_terminal:
            return True
        if until == "first":
            return self.clips.has_succeeded
        return until == "stream" and self.clips.has_audio

    def fingerprint(self) -> tuple[object, ...]:
        """Return the facts that make an update a change for a caller: states, links, and progress."""
        return (
            self.state,
            tuple((clip.clip_id, clip.state, clip.audio_url) for clip in self.clips),
            self.progress,
        )

    def __repr__(self) -> str:
        return f"TaskUpdate({self.state!r}, task_id={self.task_id!r}, clips={self.clips!r})"
