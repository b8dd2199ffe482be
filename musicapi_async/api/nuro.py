"""Nuro: deprecated by the service, probably retired. Known values stand in `nuro_values`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ..errors import Violation
from . import nuro_values as values
from .operation import Family, Polled, calls, submits
from .request import GetMusic, Hooked
from .results import Clips, TaskUpdate
from .values import KNOWN


def _of(known: tuple[str, ...]) -> str:
    return f"Known: {', '.join(known)}."


SONGS: Final = Polled("/nuro/task/{task_id}", "nuro", first=10, interval=10, deadline=600, quick=30, slow=90)
"""First look, interval and deadline in seconds (contract, tasks 5)."""


class CreateVocal(Hooked, kw_only=True, tag_field="type", tag="vocal"):
    """Create a song with vocals, Chinese or English, in about 40 seconds."""

    lyrics: Annotated[
        str, Meta(min_length=1, max_length=2000, description="Lyrics with [intro], [verse], ... marks.")
    ]
    gender: Annotated[str, Meta(description="Singer: 'Female' or 'Male'.")] | None = None
    genre: Annotated[str, Meta(description=_of(values.VOCAL_GENRES))] | None = None
    mood: Annotated[str, Meta(description=_of(values.VOCAL_MOODS))] | None = None
    timbre: Annotated[str, Meta(description=_of(values.VOCAL_TIMBRES))] | None = None
    duration: Annotated[int, Meta(ge=30, le=240, description="Length in seconds.")] | None = None


class Segment(msgspec.Struct, kw_only=True):
    """A part of a piece: `name` 'intro', 'verse', 'chorus', 'inst', 'bridge' or 'outro', `duration` in s."""

    name: str
    duration: int


FEW: Final = 5
"""Items that each list of create_bgm may have (contract, nuro 1.2)."""
DESCRIPTION: Final = 199
"""Characters of a description for version 'v2.0' (contract, nuro 1.2)."""
LENGTHS: Final = {"v1.0": (1, 60), "v2.0": (30, 120)}
"""Seconds of a piece by version; without one it is 'v1.0' (contract, nuro 1.2)."""
PART: Final = (5, 120)
"""Seconds of a segment (contract, nuro 1.2)."""


class CreateBgm(Hooked, kw_only=True, tag_field="type", tag="bgm"):
    """Create an instrumental piece. The lists belong to version 'v1.0', `segments` to 'v2.0'."""

    description: Annotated[
        str, Meta(min_length=1, description="What to make; at most 199 characters with 'v2.0'.")
    ]
    version: (
        Annotated[str, Meta(description="Engine: 'v1.0' or 'v2.0'.", extra={KNOWN: ("v1.0", "v2.0")})] | None
    ) = None
    genre: Annotated[list[str], Meta(max_length=FEW, description=_of(values.BGM_GENRES))] | None = None
    mood: Annotated[list[str], Meta(max_length=FEW, description=_of(values.BGM_MOODS))] | None = None
    instrument: Annotated[list[str], Meta(max_length=FEW, description=_of(values.BGM_INSTRUMENTS))] | None = (
        None
    )
    theme: Annotated[list[str], Meta(max_length=FEW, description=_of(values.BGM_THEMES))] | None = None
    duration: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="Length in seconds: 1 to 60 with 'v1.0', 30 to 120 with 'v2.0', where `segments` "
                "take its place.",
            ),
        ]
        | None
    ) = None
    segments: (
        Annotated[
            list[Segment],
            Meta(
                description="The parts in their order, each an object with a name (intro, verse, chorus, "
                "inst, bridge, outro) and a duration of 5 to 120 s, together 30 to 120 s."
            ),
        ]
        | None
    ) = None

    def rules(self) -> Iterator[Violation]:
        """Lengths and description have limits by version; an unknown version has none here."""
        yield from super().rules()
        version = self.version or "v1.0"
        if version not in LENGTHS:
            return
        low, high = LENGTHS[version]
        if self.duration is not None and not low <= self.duration <= high:
            limit = f"a whole number from {low} to {high} with {version}"
            yield Violation("duration", limit, f"{self.duration}")
        if version != "v2.0":
            return
        if len(self.description) > DESCRIPTION:
            limit = f"text of at most {DESCRIPTION} characters with {version}"
            yield Violation("description", limit, f"{len(self.description)} characters")
        lengths = [part.duration for part in msgspec.convert(self.segments or [], list[Segment])]
        odd = [length for length in lengths if not PART[0] <= length <= PART[1]]
        if odd:
            yield Violation("segments", f"each from {PART[0]} to {PART[1]} s", f"{odd[0]} s")
        elif lengths and not low <= sum(lengths) <= high:
            yield Violation("segments", f"together from {low} to {high} s", f"{sum(lengths)} s")


class Nuro(Family):
    """Songs and background music by Nuro, deprecated: `client.nuro`."""

    word = "nuro"
    replacement = "sonic.create_music (vocal) or producer.create_music (instrumental)"

    create_vocal = submits("/nuro/create", CreateVocal, Clips, polled=SONGS, replacement="sonic.create_music")
    create_bgm = submits("/nuro/create", CreateBgm, Clips, polled=SONGS, replacement="producer.create_music")
    get_music = calls("/nuro/task/{task_id}", GetMusic, TaskUpdate, method="GET", charges=False, polled=SONGS)
