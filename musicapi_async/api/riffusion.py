"""Riffusion: deprecated by the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from msgspec import Meta

from ..errors import Violation
from .operation import Family, Polled, calls, submits
from .replies import Upload
from .request import GetMusic, Request, in_order
from .results import Clips, TaskUpdate
from .values import KNOWN, SourceUrl, Title

SONGS: Final = Polled("/riffusion/task/{task_id}", "riffusion", first=15, interval=15, deadline=900)
"""First look, interval and deadline in seconds (contract, tasks 5)."""

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
"""Known values of `task_type` (contract, riffusion 1); others are sent as they are."""


MODELS: Final = ("FUZZ-1.1 Pro", "FUZZ-1.1", "FUZZ-1.0 Pro", "FUZZ-1.0")
"""The models that the vendor's documentation lists."""


class Create(Request, kw_only=True):
    """Create two songs, or work on a clip: `task_type` says what. Which fields go together is the service's
    business.
    """

    task_type: Annotated[
        str,
        Meta(min_length=1, description=f"What to do: {', '.join(TASK_TYPES)}."),
    ] = "create_music"
    mv: Annotated[
        str, Meta(min_length=1, description=f"Model: {', '.join(MODELS)}.", extra={KNOWN: MODELS})
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
        if self.custom_mode is None:
            self.custom_mode = bool(self.lyrics) or not self.prompt

    def rules(self) -> Iterator[Violation]:
        """The window ends after it starts."""
        yield from in_order(
            self.replace_start_time, self.replace_end_time, "replace_start_time", "replace_end_time"
        )


class UploadRequest(Request):
    """Import audio by its link."""

    url: SourceUrl


class Riffusion(Family):
    """Songs by Riffusion, deprecated: `client.riffusion`."""

    word = "riffusion"
    replacement = "sonic.create_music"

    create = submits("/riffusion/create", Create, Clips, polled=SONGS)
    upload = calls("/riffusion/upload", UploadRequest, Upload, attempt_timeout=120.0)
    get_music = calls(
        "/riffusion/task/{task_id}", GetMusic, TaskUpdate, method="GET", charges=False, polled=SONGS
    )
