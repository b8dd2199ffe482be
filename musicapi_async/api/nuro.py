"""Nuro: deprecated by the service, probably retired. Known values stand in `nuro_values`."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from .operation import Family, Polled, calls, submits
from .request import GetMusic, Hooked
from .results import Clips, TaskUpdate

SONGS: Final = Polled("/nuro/task/{task_id}", "nuro", first=10, interval=10, deadline=600, quick=30, slow=90)
"""First look, interval and deadline in seconds (contract, tasks 5)."""


class CreateVocal(Hooked, kw_only=True, tag_field="type", tag="vocal"):
    """Create a song with vocals, Chinese or English, in about 40 seconds."""

    lyrics: Annotated[
        str, Meta(min_length=1, max_length=2000, description="Lyrics with [intro], [verse], ... marks.")
    ]
    gender: Annotated[str, Meta(description="Singer: 'Female' or 'Male'.")] | None = None
    genre: Annotated[str, Meta(description="One of VOCAL_GENRES.")] | None = None
    mood: Annotated[str, Meta(description="One of VOCAL_MOODS.")] | None = None
    timbre: Annotated[str, Meta(description="One of VOCAL_TIMBRES.")] | None = None
    duration: Annotated[int, Meta(ge=30, le=240, description="Length in seconds.")] | None = None


class Segment(msgspec.Struct, kw_only=True):
    """A part of a piece: `name` 'intro', 'verse', 'chorus', 'inst', 'bridge' or 'outro', `duration` in s."""

    name: str
    duration: int


FEW: Final = 5
"""Items that each list of create_bgm may have (contract, nuro 1.2)."""


class CreateBgm(Hooked, kw_only=True, tag_field="type", tag="bgm"):
    """Create an instrumental piece. The lists belong to version 'v1.0', `segments` to 'v2.0'."""

    description: Annotated[str, Meta(min_length=1, description="What to make.")]
    version: Annotated[str, Meta(description="Engine: 'v1.0' or 'v2.0'.")] | None = None
    genre: Annotated[list[str], Meta(max_length=FEW, description="Of BGM_GENRES.")] | None = None
    mood: Annotated[list[str], Meta(max_length=FEW, description="Of BGM_MOODS.")] | None = None
    instrument: Annotated[list[str], Meta(max_length=FEW, description="Of BGM_INSTRUMENTS.")] | None = None
    theme: Annotated[list[str], Meta(max_length=FEW, description="Of BGM_THEMES.")] | None = None
    duration: Annotated[int, Meta(ge=1, description="Length in seconds, without `segments`.")] | None = None
    segments: Annotated[list[Segment], Meta(description="The parts in their order.")] | None = None


class Nuro(Family):
    """Songs and background music by Nuro, deprecated: `client.nuro`."""

    word = "nuro"
    replacement = "sonic.create_music (vocal) or producer.create_music (instrumental)"

    create_vocal = submits("/nuro/create", CreateVocal, Clips, polled=SONGS, replacement="sonic.create_music")
    create_bgm = submits("/nuro/create", CreateBgm, Clips, polled=SONGS, replacement="producer.create_music")
    get_music = calls("/nuro/task/{task_id}", GetMusic, TaskUpdate, method="GET", charges=False, polled=SONGS)
