"""Results that are parts of a song: stems, and new parts with the full songs that they were joined into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import msgspec

from .results import SUCCEEDED, Clip, Clips


class Stem(Clip, kw_only=True):
    """One part of a song: a clip whose file holds that part alone. `name` is lower case, such as 'vocals'."""

    name: str = ""


class Stems(Clips):
    """The parts of a song by name. The service decides how many: 2 to 24 were reported.

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


class Pair(msgspec.Struct, kw_only=True):
    """A part and the full song that it was joined into. `full` is None while joining, or when that failed.

    `kind` is 'extended', 'replaced' or 'covered'; `raw` is the JSON object that the pair was read from.
    """

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
        """True if the part or the join failed."""
        return self.part.is_failed or (self.full is not None and self.full.is_failed)

    @property
    def is_succeeded(self) -> bool:
        """True if the full song is there."""
        return self.full is not None and self.full.is_succeeded

    @property
    def is_terminal(self) -> bool:
        """True if the pair succeeded or failed."""
        return self.is_failed or self.is_succeeded


class ConcatPairs(Clips):
    """Parts and the full songs joined from them (`auto_concat=True`); as a sequence, the deliverables."""

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
        """The full songs that are there."""
        return [pair.deliverable for pair in self.pairs if pair.is_succeeded]

    @property
    def failed(self) -> list[Clip]:
        """The deliverables of the pairs that failed."""
        return [pair.deliverable for pair in self.pairs if pair.is_failed]
