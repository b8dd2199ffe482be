"""Studio: marked as unavailable by the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from ..errors import Violation
from .field_limits import KNOWN
from .operation import Family, Polled, polls, submits
from .request import GetMusic, Request
from .results import Clips

STUDIO_POLLED: Final = Polled("/studio/task/{task_id}", "studio", first=15, interval=15, deadline=900)
"""A poll every 15 s, as the vendor advises for songs."""

Share = Annotated[float, Meta(ge=0, le=1, description="Position in the song, from 0 to 1.")]
Lyrics = Annotated[str, Meta(min_length=1, max_length=1000, description="Own lyrics.")]
Config = Annotated[
    dict[str, Any],
    Meta(
        description="`mode`: 'regular', 'precede' or 'continuation'; the last two with "
        "`source`: {'song_id': ...}. More keys are sent as they are."
    ),
]


class ModeFields(Request, kw_only=True):
    """Fields of all modes of Studio."""

    prompt: Annotated[
        str, Meta(min_length=1, description="Style tags, a description or keywords, as the mode wants.")
    ]
    model_type: Annotated[
        str,
        Meta(
            min_length=1,
            description="'studio130-v1.5' (130 s) or 'studio32-v1.5' (32 s).",
            extra={KNOWN: ("studio130-v1.5", "studio32-v1.5")},
        ),
    ]
    prompt_strength: Annotated[float, Meta(ge=0, le=1, description="Weight of the prompt.")] = 0.5
    clarity_strength: Annotated[float, Meta(ge=0, le=1, description="Weight of clarity.")] = 0.25
    lyrics_strength: Annotated[float, Meta(ge=0, le=1, description="Weight of the lyrics.")] = 0.5
    generation_quality: Annotated[float, Meta(ge=0, le=1, description="Quality.")] = 0.75
    negative_prompt: Annotated[str, Meta(description="Things to avoid.")] | None = None
    bypass_prompt_optimization: Annotated[bool, Meta(description="Take the prompt as it is.")] | None = None
    seed: Annotated[int, Meta(description="-1 is random.")] | None = None
    song_section_start: Share | None = None
    song_section_end: Share | None = None
    lyrics_placement_start: Share | None = None
    lyrics_placement_end: Share | None = None
    config: Config = msgspec.field(default_factory=lambda: {"mode": "regular"})

    def rules(self) -> Iterator[Violation]:
        """Check that `config` names the mode, and for an extension its song."""
        mode = self.config.get("mode")
        if not isinstance(mode, str) or not mode:
            yield Violation("config", "an object with a mode, such as {'mode': 'regular'}", "no mode")
        elif mode in {"precede", "continuation"} and not self.config.get("source"):
            yield Violation("config", "with this mode also source: {'song_id': ...}", repr(mode))


class StudioCreate(ModeFields, kw_only=True):
    """Create two songs; `lyrics_type` and `config` choose the mode."""

    lyrics_type: Annotated[
        str, Meta(min_length=1, description="'user' (own lyrics), 'generate' or 'instrumental'.")
    ]
    lyrics: Lyrics | None = None

    def rules(self) -> Iterator[Violation]:
        yield from super().rules()
        if self.lyrics_type == "user" and not self.lyrics:
            yield Violation("lyrics", "needed when lyrics_type is 'user'", "none")


class CreateFromDescription(ModeFields, kw_only=True, tag_field="lyrics_type", tag="generate"):
    """Create two songs from a description in `prompt`; the service writes the lyrics."""


class CreateFromLyrics(ModeFields, kw_only=True, tag_field="lyrics_type", tag="user"):
    """Create two songs from own lyrics, with style tags in `prompt`."""

    lyrics: Lyrics


class CreateInstrumental(ModeFields, kw_only=True, tag_field="lyrics_type", tag="instrumental"):
    """Create two pieces without vocals from keywords in `prompt`."""


class Studio(Family):
    """Songs by Studio, marked as unavailable: `client.studio`. Extending is `create` with a `config`."""

    word = "studio"
    polled: ClassVar[Polled | None] = STUDIO_POLLED
    replacement: ClassVar[str | None] = "sonic.create_music"

    create = submits("/studio/create", StudioCreate, Clips)
    create_from_description = submits("/studio/create", CreateFromDescription, Clips)
    create_from_lyrics = submits("/studio/create", CreateFromLyrics, Clips)
    create_instrumental = submits("/studio/create", CreateInstrumental, Clips)
    get_music = polls(GetMusic)
