"""Results that are parts of a song: stems, and new parts with the full songs that they were joined into."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

from .results import IDS, SUCCEEDED, Clip, Clips, Item
from .suggestions import did_you_mean

DASH: Final = re.compile(r"\s[-\u2013\u2014](?=\s)")
"""A hyphen, en dash or em dash between spaces."""
BRACKETS: Final = re.compile(r"[(\[]([^()\[\]]*[^()\[\]\s][^()\[\]]*)[)\]]")
"""Brackets with something in them."""


def name_of_stem(clip: Clip, index: int) -> str:
    """Return the name of a stem: its `stem_type`, else the name in its title, else its index."""
    return (clip.stem_type or "").strip().lower() or _name_in_title(clip.title or "") or str(index)


def _name_in_title(title: str) -> str:
    """Return the name in a stem's title: after the last dash between spaces, else in the last brackets.

    A hyphen inside a word, as in 'Lo-Fi Beat (Instrumental)', separates nothing.
    """
    parts = DASH.split(title)
    if len(parts) > 1 and parts[-1].strip():
        return parts[-1].strip().lower()
    bracketed = BRACKETS.findall(title)
    return bracketed[-1].strip().lower() if bracketed else ""


class Stem(Clip, kw_only=True):
    """One part of a song: a clip whose file holds that part alone. `name` is lower case, such as 'vocals'."""

    name: str = ""


class Stems(Clips, fields={**IDS, "stems": list[Stem]}):
    """The parts of a song by name. The service decides how many: 2 to 24 were reported.

    Use `stems["vocals"]` or `stems[0]`; a loop yields each `Stem`, in the service's order.
    """

    __slots__ = ()

    def __init__(
        self, stems: Sequence[Stem] = (), raw: Any = None, *, task_id: str = "", family: str = ""
    ) -> None:
        super().__init__(stems, raw, task_id=task_id, family=family)

    @overload
    def __getitem__(self, index: int) -> Stem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Stem]: ...
    @overload
    def __getitem__(self, index: str) -> Stem: ...
    def __getitem__(self, index: int | slice | str) -> Stem | Sequence[Stem]:
        if not isinstance(index, str):
            return self.stems[index]
        named = self.by_name
        if index not in named:
            raise KeyError(f"no stem {index!r}{did_you_mean(index, named)}; there are {', '.join(named)}")
        return named[index]

    def __iter__(self) -> Iterator[Stem]:
        return iter(self.stems)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name!r}: {stem.clip_id or '?'}" for name, stem in self.by_name.items())
        return f"{type(self).__name__}({{{parts}}})"

    @property
    def by_name(self) -> dict[str, Stem]:
        """The parts by their lower-case name; a repeated name has ' 2', ' 3', ... appended."""
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


class Pair(Item, kw_only=True):
    """A new part, and the full song that it was joined into. `full` is None until the song is joined.

    `kind` is 'extended', 'replaced' or 'covered'; `raw` is the JSON object that the pair was read from.
    """

    part: Clip
    full: Clip | None = None
    kind: str = ""

    @property
    def deliverable(self) -> Clip:
        """The full song if there is one, else the part."""
        return self.full or self.part

    @property
    def is_failed(self) -> bool:
        """True if the part or the join failed."""
        return self.part.is_failed or (self.full is not None and self.full.is_failed)

    @property
    def is_succeeded(self) -> bool:
        """True if the full song is finished."""
        return self.full is not None and self.full.is_succeeded

    @property
    def is_terminal(self) -> bool:
        """True if the pair succeeded or failed."""
        return self.is_failed or self.is_succeeded


class ConcatPairs(Clips, fields={**IDS, "pairs": list[Pair]}):
    """The result with `auto_concat=True`: new parts, and the full songs that they were joined into.

    As a sequence it has the deliverable of each pair: the full song if there is one, else the part.
    """

    __slots__ = ("pairs",)

    def __init__(
        self, pairs: Sequence[Pair] = (), raw: Any = None, *, task_id: str = "", family: str = ""
    ) -> None:
        super().__init__([pair.deliverable for pair in pairs], raw, task_id=task_id, family=family)
        self.pairs: tuple[Pair, ...] = tuple(pairs)

    @property
    def status(self) -> str:
        """'succeeded', or 'partial' when some pairs failed."""
        return "partial" if any(pair.is_failed for pair in self.pairs) else SUCCEEDED

    @property
    def succeeded(self) -> list[Clip]:
        """The full songs that are finished."""
        return [pair.deliverable for pair in self.pairs if pair.is_succeeded]

    @property
    def has_succeeded(self) -> bool:
        """True if any full song is finished; a part alone does not count."""
        return any(pair.is_succeeded for pair in self.pairs)

    @property
    def failed(self) -> list[Clip]:
        """The deliverables of the pairs that failed."""
        return [pair.deliverable for pair in self.pairs if pair.is_failed]
