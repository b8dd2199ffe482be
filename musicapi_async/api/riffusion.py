"""Riffusion: deprecated by the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Final

from msgspec import Meta

from ..errors import Violation
from .direct_replies import Upload
from .field_limits import KNOWN, SourceUrl, Title
from .operation import Family, Polled, calls, polls, submits
from .request import GetMusic, Request, in_order
from .results import Clips

RIFFUSION_POLLED: Final = Polled(
    "/riffusion/task/{task_id}", "riffusion", first=15, interval=15, deadline=900
)
"""A poll every 15 s, as the vendor advises for songs."""

TASK_TYPES: Final = (
    "create_music",
    "extend_music",
    "extend_upload_music",
    "cover_music",
    "cover_upload_music",
    "replace_music",
    "replace_upload_music",
    "swap_music_sound",
    "swap_upload_music_sound",
    "swap_music_vocals",
    "swap_upload_music_vocals",
)
"""Known values of `task_type` (vendor's documentation); others are sent as they are."""


RIFFUSION_MODELS: Final = ("FUZZ-1.1 Pro", "FUZZ-1.1", "FUZZ-1.0 Pro", "FUZZ-1.0")
"""The models that the vendor's documentation lists."""


class RiffusionCreate(Request, kw_only=True):
    """Create two songs, or work on a clip, as `task_type` says; the service checks the fields against it."""

    task_type: Annotated[
        str,
        Meta(min_length=1, description=f"Type of the task: {', '.join(TASK_TYPES)}."),
    ] = "create_music"
    mv: Annotated[
        str,
        Meta(
            min_length=1,
            description=f"Model: {', '.join(RIFFUSION_MODELS)}.",
            extra={KNOWN: RIFFUSION_MODELS},
        ),
    ] = "FUZZ-1.1 Pro"
    custom_mode: (
        Annotated[bool, Meta(description="True: `lyrics`. False: `prompt`. Left out: follows from them.")]
        | None
    ) = None
    make_instrumental: Annotated[bool, Meta(description="No vocals.")] | None = None
    lyrics: Annotated[str, Meta(max_length=3000, description="Lyrics with [Verse], ... marks.")] | None = None
    sound: Annotated[str, Meta(max_length=200, description="Style or voice.")] | None = None
    prompt: Annotated[str, Meta(max_length=200, description="The song, described.")] | None = None
    title: Title | None = None
    continue_clip_id: (
        Annotated[str, Meta(description="The clip to work on; every type but create_music needs it.")] | None
    ) = None
    continue_at: (
        Annotated[float, Meta(ge=0, description="Second of the source where the extension starts.")] | None
    ) = None
    replace_start_time: Annotated[float, Meta(ge=0, description="Start of the window in s.")] | None = None
    replace_end_time: Annotated[float, Meta(ge=0, description="End of the window in s.")] | None = None
    vocal_variation: Annotated[float, Meta(ge=0, le=1, description="Change of the voice.")] | None = None

    def __post_init__(self) -> None:
        if self.custom_mode in (None, ""):  # type: ignore[comparison-overlap]  # as a form may have it
            self.custom_mode = bool(self.lyrics) or not self.prompt

    def rules(self) -> Iterator[Violation]:
        return in_order(
            self.replace_start_time, self.replace_end_time, "replace_start_time", "replace_end_time"
        )


class RiffusionUpload(Request):
    """Import audio by its link."""

    url: SourceUrl


class Riffusion(Family):
    """Songs by Riffusion, deprecated: `client.riffusion`."""

    word = "riffusion"
    polled: ClassVar[Polled | None] = RIFFUSION_POLLED
    replacement: ClassVar[str | None] = "sonic.create_music"

    create = submits("/riffusion/create", RiffusionCreate, Clips)
    upload = calls("/riffusion/upload", RiffusionUpload, Upload, attempt_timeout=120.0)
    get_music = polls(GetMusic)
