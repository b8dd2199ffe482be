"""Producer: short tracks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final

from msgspec import Meta

from ..errors import Violation
from .field_limits import KNOWN, LINK, ClipId, Link, Title
from .operation import Family, Polled, polls, submits
from .request import GetMusic, WebhookFields, in_order, picture
from .results import Clips

TRACKS_POLLED: Final = Polled(
    "/producer/task/{task_id}", "producer", first=10, interval=8, deadline=600, quick=20, slow=90
)
FILES_POLLED: Final = Polled(
    "/producer/task/{task_id}", "producer", first=10, interval=8, deadline=600, quick=4, slow=30
)
"""A track took 30 to 60 s, a file 5 to 15 s; the vendor advised a poll every 5 to 10 s."""

NUMBER: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)

RETIRED_TASK_TYPES: Final[Mapping[str, str]] = {
    "music_variation": "producer.create_music with another seed",
    "swap_music_vocals": "producer.replace_music over the window",
    "swap_music_sound": "producer.replace_music over the window",
}
"""Task types that are retired (410), and the advice of the service for each."""

Sound = Annotated[
    str,
    Meta(description="Style. For an instrumental say 'instrumental, no vocals' and leave out lyrics."),
]
StartsAt = Annotated[float, Meta(ge=0, description="Start in the source, in seconds.")]
EndsAt = Annotated[float, Meta(ge=0, description="End in the source, in seconds.")]
Instruction = Annotated[str, Meta(description="Instruction in plain words.")]
UploadedClip = Annotated[str, Meta(min_length=1, description="The uploaded clip, from `upload`.")]


PRODUCER_MODELS: Final = (
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


class TrackFields(WebhookFields, kw_only=True):
    """Fields of all tracks."""

    sound: Sound | None = None
    lyrics: Annotated[str, Meta(description="Lyrics with [Verse], [Chorus], ... marks.")] | None = None
    title: Title | None = None
    mv: (
        Annotated[
            str,
            Meta(
                description=f"Model: {', '.join(PRODUCER_MODELS)}. 'Lyria 3 Pro' if left out.",
                extra={KNOWN: PRODUCER_MODELS},
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
        yield from super().rules()
        if self.seed and not NUMBER.fullmatch(str(self.seed)):
            yield Violation("seed", "a number, also as text", picture(self.seed))


class CreateTrack(TrackFields, kw_only=True, tag_field="task_type", tag="create_music"):
    """Create a track of about 30 seconds from a style, from lyrics, or both."""

    example: ClassVar[str] = """\
clips = await (await client.{family}.create_music(sound="lo-fi beat, vinyl crackle", length=30))"""

    cover_url: Annotated[Link, Meta(description="Link to a cover image.", extra={LINK: True})] | None = None

    def rules(self) -> Iterator[Violation]:
        yield from super().rules()
        if not self.sound and not self.lyrics:
            yield Violation("sound", "needed: sound, or lyrics, or both", "neither")


class TrackExtensionFields(TrackFields, kw_only=True):
    """Fields of extensions."""

    starts_at: StartsAt | None = None
    instruction: Instruction | None = None
    extend_s: Annotated[float, Meta(ge=0, description="Seconds to add.")] | None = None


class ExtendTrack(TrackExtensionFields, kw_only=True, tag_field="task_type", tag="extend_music"):
    """Extend a track from `starts_at`; `length` is that of the new part."""

    clip_id: ClipId


class ExtendUploadTrack(TrackExtensionFields, kw_only=True, tag_field="task_type", tag="extend_upload_music"):
    """Extend an uploaded clip from `starts_at`; `length` is that of the new part."""

    clip_id: UploadedClip


class WindowFields(TrackFields, kw_only=True):
    """Fields of requests that make a window of a track again."""

    starts_at: StartsAt
    ends_at: EndsAt
    instruction: Instruction | None = None

    def rules(self) -> Iterator[Violation]:
        yield from super().rules()
        yield from in_order(self.starts_at, self.ends_at, "starts_at", "ends_at")


class ReplaceTrack(WindowFields, kw_only=True, tag_field="task_type", tag="replace_music"):
    """Make the window from `starts_at` to `ends_at` again; an `instruction` is recommended."""

    clip_id: ClipId


class ReplaceUploadTrack(WindowFields, kw_only=True, tag_field="task_type", tag="replace_upload_music"):
    """Make a window of an uploaded clip again; an `instruction` is recommended."""

    clip_id: UploadedClip


class CoverFields(TrackFields, kw_only=True):
    """Fields of covers."""

    instruction: Annotated[str, Meta(min_length=1, description="Instruction in plain words.")]
    strength: Annotated[float, Meta(ge=0, le=1, description="Distance from the source.")] | None = None


class CoverTrack(CoverFields, kw_only=True, tag_field="task_type", tag="cover_music"):
    """Make a track in another style, as `instruction` says."""

    clip_id: ClipId


class CoverUploadTrack(CoverFields, kw_only=True, tag_field="task_type", tag="cover_upload_music"):
    """Make an uploaded clip in another style, as `instruction` says."""

    clip_id: UploadedClip


class UploadTrack(WebhookFields):
    """Import audio by its link, as a task: the result is a clip whose `clip_id` can be worked on."""

    audio_url: Annotated[
        Link, Meta(min_length=1, description="Public direct link to the audio.", extra={LINK: True})
    ]


class DownloadTrack(WebhookFields):
    """Get the file of a track in another format, as a task: the result is a clip with its link."""

    clip_id: ClipId
    format: Annotated[str, Meta(min_length=1, description="'mp3' or 'wav'.")] = "mp3"


class Producer(Family):
    """Short tracks: `client.producer`."""

    word = "producer"
    polled: ClassVar[Polled | None] = TRACKS_POLLED

    create_music = submits("/producer/create", CreateTrack, Clips)
    extend_music = submits("/producer/create", ExtendTrack, Clips)
    extend_upload_music = submits("/producer/create", ExtendUploadTrack, Clips)
    replace_music = submits("/producer/create", ReplaceTrack, Clips)
    replace_upload_music = submits("/producer/create", ReplaceUploadTrack, Clips)
    cover_music = submits("/producer/create", CoverTrack, Clips)
    cover_upload_music = submits("/producer/create", CoverUploadTrack, Clips)
    upload = submits("/producer/upload", UploadTrack, Clips, polled=FILES_POLLED)
    download = submits("/producer/download", DownloadTrack, Clips, polled=FILES_POLLED)
    get_music = polls(GetMusic)
