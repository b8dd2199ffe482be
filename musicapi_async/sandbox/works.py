"""Tasks and clips: what was ordered, and its state at any moment.

A task's whole life is decided when it is taken: when its clips start, stream and end, and which of them
fail. What a poll shows is a function of that and the time, so nothing runs in the background and a sandbox
holds a hundred thousand waiting tasks as easily as one.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar

from .journal import Entry
from .recipes import Recipe

Family = Literal["sonic", "producer", "nuro", "riffusion", "studio", "lyrics"]
Shape = Literal["clips", "pairs", "voice", "upload", "file", "lyrics"]

NEVER: Final = math.inf
V = TypeVar("V")


@dataclass(slots=True)
class Clip:
    """One piece of audio and the times (API seconds) at which it starts, streams, ends and has its file."""

    clip_id: str
    recipe: Recipe
    mv: str = ""
    title: str = ""
    tags: str = ""
    lyrics: str = ""
    description: str | None = None
    negative_tags: str | None = None
    style_weight: float | None = None
    weirdness: float | None = None
    created: float = 0.0
    starts: float = 0.0
    streams: float = 0.0
    ends: float = 0.0
    file_at: float = 0.0
    failed: bool = False
    stem: str = ""
    stem_names: tuple[str, ...] = ()
    """Which of the twelve stems are heard in this one; none in a silent second take."""
    stem_source: Clip | None = None
    extends: tuple[Recipe, float] | None = None
    """The clip that this one continues, and from which second on; concat needs it."""
    uploaded: bool = False
    extra: dict[str, object] = field(default_factory=dict[str, object])
    """Keys of other families: `sound`, `seed`, `vocal_variation`, ..."""

    def state(self, now: float) -> Literal["pending", "running", "succeeded", "failed"]:
        """The documented word for the state of the clip."""
        if now >= self.ends:
            return "failed" if self.failed else "succeeded"
        return "running" if now >= self.starts else "pending"

    def ready(self, now: float) -> bool:
        """True if the clip can be worked on."""
        return now >= self.ends and not self.failed


@dataclass(slots=True)
class Work:
    """One task. `pairs` holds (part, full) for `auto_concat`; `failed_at` is when the whole task fails."""

    task_id: str
    family: Family
    kind: str
    shape: Shape
    created: float
    entry: Entry
    ready_at: float = 0.0
    clips: list[Clip] = field(default_factory=list[Clip])
    pairs: list[tuple[Clip, Clip]] = field(default_factory=list[tuple[Clip, Clip]])
    pair_word: str = "extended"
    ends: float = 0.0
    failed_at: float = NEVER
    failure: str = ""
    refunded: bool = False
    odd_state: str = ""
    result: dict[str, object] = field(default_factory=dict[str, object])
    webhook: tuple[str, str] | None = None

    def items(self) -> Iterator[Clip]:
        """Every clip of the task."""
        yield from self.clips
        for part, full in self.pairs:
            yield part
            yield full


@dataclass(slots=True)
class Persona:
    """A voice and a style to sing with; `voice_seed` is its colour."""

    persona_id: str
    name: str
    styles: str
    voice_seed: int
    gender: Literal["f", "m"] | None = None
    ready_at: float = 0.0
    expires: float = NEVER


@dataclass(slots=True)
class Vox:
    """A segment of a clip's voice."""

    vox_audio_id: str
    clip_id: str
    start: float
    end: float


class Shelf(Generic[V]):
    """Things by id, at most `size` of them; the oldest go first."""

    def __init__(self, size: int) -> None:
        self._items: OrderedDict[str, V] = OrderedDict()
        self._size = size

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[V]:
        return iter(tuple(self._items.values()))

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def get(self, key: str) -> V | None:
        """The thing with this id, if it is still there."""
        return self._items.get(key)

    def put(self, key: str, value: V) -> V:
        """Keep a thing, dropping the oldest beyond the size."""
        self._items[key] = value
        while len(self._items) > self._size:
            self._items.popitem(last=False)
        return value
