"""Tasks and clips that were ordered, and their state at any moment.

A task's whole life is decided when it is taken: when its clips start, stream and end, and which of them
fail. A poll response is a function of that and the time, so nothing runs in the background, and
a hundred thousand unfinished tasks cost no more than one.
"""

from __future__ import annotations

import itertools
import math
import time
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
class OrderedClip:
    """One piece of audio and the times (API seconds) at which it starts, streams, ends and has its file.

    `created` is a date: seconds since 1970.
    """

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
    stem_source: OrderedClip | None = None
    extends: tuple[Recipe, float] | None = None
    """The clip that this one continues, and from which second on; concat needs it."""
    uploaded: bool = False
    ending: str = "mp3"
    """The ending of its final file."""
    extra: dict[str, object] = field(default_factory=dict[str, object])
    """Keys of other families: `sound`, `seed`, `vocal_variation`, ..."""

    def state(self, now: float) -> Literal["pending", "running", "succeeded", "failed"]:
        """Return the documented word for the state of the clip."""
        if now >= self.ends:
            return "failed" if self.failed else "succeeded"
        return "running" if now >= self.starts else "pending"

    def ready(self, now: float) -> bool:
        """Return True if the clip can be worked on."""
        return now >= self.ends and not self.failed


@dataclass(slots=True)
class OrderedTask:
    """One task. `pairs` holds (part, full) for `auto_concat`; `failed_at` is when the whole task fails.

    `created` is in API seconds, and `date` the same moment in seconds since 1970.
    """

    task_id: str
    family: Family
    kind: str
    shape: Shape
    created: float
    entry: Entry
    date: float = 0.0
    ready_at: float = 0.0
    clips: list[OrderedClip] = field(default_factory=list[OrderedClip])
    pairs: list[tuple[OrderedClip, OrderedClip]] = field(
        default_factory=list[tuple[OrderedClip, OrderedClip]]
    )
    pair_word: str = "extended"
    ends: float = 0.0
    failed_at: float = NEVER
    failure: str = ""
    refunded: bool = False
    parts: tuple[float, float] = (0.0, 0.0)
    """What is refunded when it fails: extra credits, and others."""
    odd_state: str = ""
    result: dict[str, object] = field(default_factory=dict[str, object])
    webhook: tuple[str, str] | None = None
    delivered: list[str] = field(default_factory=list[str])
    """The events whose delivery has ended, so that a later process does not repeat them."""

    def percent(self, now: float) -> int:
        """Return the progress of a task that is running, from 0 to 99."""
        return int(100 * min(max((now - self.created) / max(self.ends - self.created, 1e-9), 0.0), 0.99))

    def items(self) -> Iterator[OrderedClip]:
        """Yield every clip of the task."""
        yield from self.clips
        for part, full in self.pairs:
            yield part
            yield full


@dataclass(slots=True)
class StoredPersona:
    """A voice and a style to sing with; `voice_seed` is its colour, `life` the seconds that it lasts."""

    persona_id: str
    name: str
    styles: str
    voice_seed: int
    gender: Literal["f", "m"] | None = None
    ready_at: float = 0.0
    life: float = NEVER


@dataclass(slots=True)
class StoredVox:
    """A segment of a clip's voice."""

    vox_audio_id: str
    clip_id: str
    start: float
    end: float


class BoundedStore(Generic[V]):
    """Items by id, at most `size` of them; the oldest go first.

    Where a state is stored, it tracks what changed: an item that is put, or None for one that is gone.
    """

    def __init__(self, size: int) -> None:
        self._items: OrderedDict[str, V] = OrderedDict()
        self._size = size
        self._changes: dict[str, V | None] | None = None
        self.place: int = time.time_ns()
        """A number that grows with each item, in later processes too: the order of the items."""

    def track(self) -> None:
        """Begin to track changes."""
        self._changes = {}

    def changes(self) -> Iterator[tuple[str, V | None]]:
        """Yield the changes that are not written yet, by key."""
        for key, item in (self._changes or {}).items():
            self.place += 1
            yield key, item

    def written(self) -> None:
        """Forget the changes: they are written."""
        self._changes = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[V]:
        return iter(tuple(self._items.values()))

    def newest(self, count: int) -> list[V]:
        """Return the newest items, the newest first."""
        return list(itertools.islice(reversed(self._items.values()), count))

    def clear(self) -> None:
        """Forget all items."""
        if self._changes is not None:
            self._changes.update(dict.fromkeys(self._items))
        self._items.clear()

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def get(self, key: str) -> V | None:
        """Return the item with this id, or None."""
        return self._items.get(key)

    def put(self, key: str, value: V) -> V:
        """Store an item; the oldest goes beyond the size."""
        self._items[key] = value
        if self._changes is not None:
            self._changes[key] = value
        while len(self._items) > self._size:
            gone, _ = self._items.popitem(last=False)
            if self._changes is not None:
                self._changes[gone] = None
        return value
