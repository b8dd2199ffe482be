"""Producer: short tracks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from msgspec import Meta

from ..errors import Violation
from .operation import Family, Polled, calls, submits
from .request import GetMusic, Hooked, in_order, picture
from .results import Clips, TaskUpdate
from .values import KNOWN, LINK, ClipId, Title

TRACKS: Final = Polled(
    "/producer/task/{task_id}", "producer", first=10, interval=8, deadline=600, quick=20, slow=90
)
FILES: Final = Polled(
    "/producer/task/{task_id}", "producer", first=10, interval=8, deadline=600, quick=4, slow=30
)
"""First look, interval and deadline in seconds (contract, tasks 5)."""

NUMBER: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)

RETIRED: Final[Mapping[str, str]] = {
    "music_variation": "producer.create_music with another seed",
    "swap_music_vocals": "producer.replace_music over the window",
    "swap_music_sound": "producer.replace_music over the window",
}
"""Task types that are retired (410), and what the service advises instead (contract, producer 2.1)."""

Sound = Annotated[
    str,
    Meta(description="Style. For an instrumental say 'instrumental, no vocals' and leave out lyrics."),
]
StartsAt = Annotated[float, Meta(ge=0, description="Start in the source, in seconds.")]
EndsAt = Annotated[float, Meta(ge=0, description="End in the source, in seconds.")]
Instruction = Annotated[str, Meta(description="What to do, in plain words.")]
UploadedClip = Annotated[str, Meta(min_length=1, description="The uploaded clip, from `upload`.")]


MODELS: Final = (
    "Lyria 3 Pro",
    "Lyria 3 preview",
    "FUZZ-3-Demo",
    "FUZZ-2.0",
    "FUZZ-2.0 Pro",
    "FUZZ-2.0 Raw",
    "FUZZ-1.1",
    "FUZZ-1.1 Pro",
    "FUZZ-1.0",
    "FUZZ-1.0 Pro",
    "FUZZ-0.8",
)
"""The only real model, and the names that the vendor's documentation says are taken for it."""


class Made(Hooked, kw_only=True):
    """What every track takes."""

    sound: Sound | None = None
    lyrics: Annotated[str, Meta(description="Lyrics with [Verse], [Chorus], ... marks.")] | None = None
    title: Title | None = None
    mv: (
        Annotated[
            str,
            Meta(
                description=f"Model: {', '.join(MODELS)}. 'Lyria 3 Pro' if left out.", extra={KNOWN: MODELS}
            ),
        ]
        | None
    ) = None
    seed: Annotated[str, Meta(description="Number that picks the variation; sent as text.")] | int | None = (
        None
    )
    length: Annotated[float, Meta(ge=1, le=240, description="Length to aim at, in seconds.")] | None = None
    bpm: Annotated[float, Meta(description="Tempo in beats per minute.")] | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.seed, int) and not isinstance(self.seed, bool):
            self.seed = str(self.seed)

    def rules(self) -> Iterator[Violation]:
        """A seed is a number, although it is sent as text."""
        yield from super().rules()
        if self.seed and not NUMBER.fullmatch(str(self.seed)):
            yield Violation("seed", "a number, also as text", picture(self.seed))


class CreateMusic(Made, kw_only=True, tag_field="task_type", tag="create_music"):
    """Create a track of about 30 seconds from a style, from lyrics, or both."""

    cover_url: Annotated[str, Meta(description="Link to a cover image.", extra={LINK: True})] | None = None

    def rules(self) -> Iterator[Violation]:
        """One of style and lyrics is needed."""
        yield from super().rules()
        if not self.sound and not self.lyrics:
            yield Violation("sound", "needed: sound, or lyrics, or both", "neither")


class Extending(Made, kw_only=True):
    """A longer track."""

    starts_at: StartsAt | None = None
    instruction: Instruction | None = None
    extend_s: Annotated[float, Meta(ge=0, description="Seconds to add.")] | None = None


class ExtendMusic(Extending, kw_only=True, tag_field="task_type", tag="extend_music"):
    """Extend a track from `starts_at`; `length` is that of the new part."""

    clip_id: ClipId


class ExtendUploadMusic(Extending, kw_only=True, tag_field="task_type", tag="extend_upload_music"):
    """Extend an uploaded clip from `starts_at`; `length` is that of the new part."""

    clip_id: UploadedClip


class Replacing(Made, kw_only=True):
    """A window of a track, made again."""

    starts_at: StartsAt
    ends_at: EndsAt
    instruction: Instruction | None = None

    def rules(self) -> Iterator[Violation]:
        """The window ends after it starts."""
        yield from super().rules()
        yield from in_order(self.starts_at, self.ends_at, "starts_at", "ends_at")


class ReplaceMusic(Replacing, kw_only=True, tag_field="task_type", tag="replace_music"):
    """Make the window from `starts_at` to `ends_at` again; an `instruction` is recommended."""

    clip_id: ClipId


class ReplaceUploadMusic(Replacing, kw_only=True, tag_field="task_type", tag="replace_upload_music"):
    """Make a window of an uploaded clip again; an `instruction` is recommended."""

    clip_id: UploadedClip


class Covering(Made, kw_only=True):
    """A track in another style."""

    instruction: Annotated[str, Meta(min_length=1, description="What to do, in plain words.")]
    strength: Annotated[float, Meta(ge=0, le=1, description="Distance from the source.")] | None = None


class CoverMusic(Covering, kw_only=True, tag_field="task_type", tag="cover_music"):
    """Make a track in another style, as `instruction` says."""

    clip_id: ClipId


class CoverUploadMusic(Covering, kw_only=True, tag_field="task_type", tag="cover_upload_music"):
    """Make an uploaded clip in another style, as `instruction` says."""

    clip_id: UploadedClip


class Upload(Hooked):
    """Import audio by its link, as a task: the result is a clip whose `clip_id` can be worked on."""

    audio_url: Annotated[
        str, Meta(min_length=1, description="Public direct link to the audio.", extra={LINK: True})
    ]


class Download(Hooked):
    """The file of a track in another format, as a task: the result is a clip with its link."""

    clip_id: ClipId
    format: Annotated[str, Meta(min_length=1, description="'mp3' or 'wav'.")] = "mp3"


class Producer(Family):
    """Short tracks: `client.producer`."""

    word = "producer"

    create_music = submits("/producer/create", CreateMusic, Clips, polled=TRACKS)
    extend_music = submits("/producer/create", ExtendMusic, Clips, polled=TRACKS)
    extend_upload_music = submits("/producer/create", ExtendUploadMusic, Clips, polled=TRACKS)
    replace_music = submits("/producer/create", ReplaceMusic, Clips, polled=TRACKS)
    replace_upload_music = submits("/producer/create", ReplaceUploadMusic, Clips, polled=TRACKS)
    cover_music = submits("/producer/create", CoverMusic, Clips, polled=TRACKS)
    cover_upload_music = submits("/producer/create", CoverUploadMusic, Clips, polled=TRACKS)
    upload = submits("/producer/upload", Upload, Clips, polled=FILES)
    download = submits("/producer/download", Download, Clips, polled=FILES)
    get_music = calls(
        "/producer/task/{task_id}", GetMusic, TaskUpdate, method="GET", charges=False, polled=TRACKS
    )
