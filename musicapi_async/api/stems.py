"""Results that are more than a list of clips: stems, pairs of a part and its full song, voices, lyrics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast, overload

import msgspec

from .results import SUCCEEDED, Clip, Clips, Result
from .values import mapping_or_empty, reference_or_none, text_or_none

DASH: Final = re.compile(r"\s[-\u2013\u2014](?=\s)")
"""A hyphen, en dash or em dash between spaces."""
BRACKETS: Final = re.compile(r"[(\[]([^()\[\]]*[^()\[\]\s][^()\[\]]*)[)\]]")
"""Brackets with something in them."""


class Stem(Clip, kw_only=True):
    """One part of a song: a clip whose file holds that part alone. `name` is lower case, such as 'vocals'."""

    name: str = ""


class Pair(msgspec.Struct, kw_only=True):
    """A part and the full song that it was joined into. `full` is None while joining, or when that failed."""

    part: Clip
    full: Clip | None = None
    kind: str = ""
    raw: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])

    @property
    def deliverable(self) -> Clip:
        """The full song if there is one, else the part."""
        return self.full or self.part

    @property
    def is_failed(self) -> bool:
        """The part or the join failed."""
        return self.part.is_failed or (self.full is not None and self.full.is_failed)

    @property
    def is_succeeded(self) -> bool:
        """The full song is there."""
        return self.full is not None and self.full.is_succeeded

    @property
    def is_terminal(self) -> bool:
        """Nothing more will come."""
        return self.is_failed or self.is_succeeded


class Stems(Clips):
    """The parts of a song by name. The service decides how many: 2 to 24 were seen.

    `stems["vocals"]` or `stems[0]`; iterating gives `Stem`s in the service's order.
    """

    __slots__ = ()

    @overload
    def __getitem__(self, index: int) -> Stem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Clip]: ...
    @overload
    def __getitem__(self, index: str) -> Stem: ...
    def __getitem__(self, index: int | slice | str) -> Clip | Sequence[Clip]:
        return self.by_name[index] if isinstance(index, str) else self.items[index]

    @property
    def by_name(self) -> dict[str, Stem]:
        """The parts by lower-case name; a name that comes twice gets ' 2', ' 3', ..."""
        named: dict[str, Stem] = {}
        for stem in self.stems:
            name, count = stem.name, 2
            while name in named:
                name, count = f"{stem.name} {count}", count + 1
            named[name] = stem
        return named

    @property
    def stems(self) -> list[Stem]:
        """The parts in the service's order."""
        return [item for item in self.items if isinstance(item, Stem)]

    @classmethod
    def of(cls, clips: Clips) -> Stems:
        """Name the clips by `stem_type`, else by the title's dash or brackets, else by index."""
        named = [_stem(clip, index) for index, clip in enumerate(clips)]
        return cls(named, clips.raw, task_id=clips.task_id, family=clips.family)


def _stem(clip: Clip, index: int) -> Stem:
    stem = Stem.read(clip.raw)
    stem.name = (clip.stem_type or "").strip().lower() or _name_in(clip.title or "") or str(index)
    return stem


def _name_in(title: str) -> str:
    """The name in a stem's title: after the last dash between spaces, else in the last brackets.

    A hyphen inside a word, as in 'Lo-Fi Beat (Instrumental)', separates nothing.
    """
    parts = DASH.split(title)
    if len(parts) > 1 and parts[-1].strip():
        return parts[-1].strip().lower()
    bracketed = BRACKETS.findall(title)
    return bracketed[-1].strip().lower() if bracketed else ""


class ConcatPairs(Clips):
    """Parts and the full songs joined from them (`auto_concat=True`); as a sequence, the deliverables."""

    __slots__ = ("pairs",)

    def __init__(
        self, pairs: Sequence[Pair] = (), raw: Any = None, *, task_id: str = "", family: str = ""
    ) -> None:
        super().__init__([pair.deliverable for pair in pairs], raw, task_id=task_id, family=family)
        self.pairs = tuple(pairs)

    @property
    def status(self) -> str:
        """'succeeded', or 'partial' when some pairs failed."""
        return "partial" if any(pair.is_failed for pair in self.pairs) else SUCCEEDED

    @property
    def succeeded(self) -> list[Clip]:
        """The full songs that are there."""
        return [pair.deliverable for pair in self.pairs if pair.is_succeeded]

    @property
    def failed(self) -> list[Clip]:
        """The deliverables of the pairs that failed."""
        return [pair.deliverable for pair in self.pairs if pair.is_failed]


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
        self.persona_id = persona_id
        self.name = name

    def __repr__(self) -> str:
        return f"Voice(persona_id={self.persona_id!r}, name={self.name!r})"


class WrittenLyrics(Result):
    """Lyrics that the service wrote as a task: `title` and `lyrics`."""

    __slots__ = ("lyrics", "title")

    def __init__(
        self,
        title: str | None = None,
        lyrics: str = "",
        raw: Any = None,
        *,
        task_id: str = "",
        family: str = "",
    ) -> None:
        super().__init__(raw, task_id=task_id, family=family)
        self.title = title
        self.lyrics = lyrics

    def __repr__(self) -> str:
        return f"WrittenLyrics(title={self.title!r}, {len(self.lyrics)} characters)"


PART_NAMES: Final = ("extended", "replaced", "covered")
"""Keys under which a pair holds its part; the full song stands beside it under 'full'."""


def is_pair(item: Any) -> bool:
    """Whether a JSON value is a part with its full song."""
    return isinstance(item, dict) and ("full" in item or "extended" in item or "replaced" in item)


def read_pairs(items: Sequence[Any], raw: Any, *, task_id: str, family: str) -> ConcatPairs:
    """A list of `{"extended" or "replaced": clip, "full": clip or null}` as pairs."""
    pairs: list[Pair] = []
    for item in items:
        if not is_pair(item):
            continue
        mapping = cast("dict[str, Any]", item)
        kind = next((name for name in PART_NAMES if isinstance(mapping.get(name), dict)), "")
        full = mapping.get("full")
        pairs.append(
            Pair(
                part=Clip.read(mapping_or_empty(mapping.get(kind))),
                full=Clip.read(cast("dict[str, Any]", full)) if isinstance(full, dict) and full else None,
                kind=kind,
                raw=mapping,
            )
        )
    return ConcatPairs(pairs, raw, task_id=task_id, family=family)


def read_voice(data: Mapping[str, Any], raw: Any, *, task_id: str, family: str) -> Voice | None:
    """A created voice, or None while there is no persona id."""
    persona_id = reference_or_none(data.get("persona_id"))
    if persona_id is None:
        return None
    return Voice(persona_id, text_or_none(data.get("name")), raw, task_id=task_id, family=family)
