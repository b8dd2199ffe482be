"""Requests for songs by Sonic: the ten task types of `/sonic/create`, and their shared fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from ..errors import Violation
from .request import Hooked, in_order
from .values import (
    LOOSEST,
    SONIC_MODELS,
    AudioWeight,
    AutoLyrics,
    CustomMode,
    DescriptionPrompt,
    Instrumental,
    Mv,
    NegativeTags,
    PersonaId,
    Prompt,
    StyleWeight,
    SunoCdn,
    Tags,
    TargetSeconds,
    Title,
    VocalGender,
    Weirdness,
)

SourceClip = Annotated[str, Meta(min_length=1, description="The clip to work on.")]
UploadedClip = Annotated[
    str, Meta(min_length=1, description="The uploaded clip to work on, from `upload`; at most 24 hours old.")
]
ContinueAt = Annotated[float, Meta(ge=0, description="Second of the source where the extension starts.")]
RequiredMode = Annotated[
    bool, Meta(description="True: lyrics in `prompt`. False: `gpt_description_prompt`. Required here.")
]
PaintStart = Annotated[float, Meta(ge=0, description="Second of the source where the new part starts.")]
PaintEnd = Annotated[float, Meta(ge=0, description="Second of the source where the new part ends.")]


class Styled(Hooked, kw_only=True):
    """Title, style and singer, shared by everything that sings."""

    mv: Mv
    title: Title | None = None
    tags: Tags | None = None
    negative_tags: NegativeTags | None = None
    vocal_gender: VocalGender | None = None
    style_weight: StyleWeight | None = None
    weirdness_constraint: Weirdness | None = None


class ByModel(Styled, kw_only=True):
    """A request whose texts are limited by the model."""

    def rules(self) -> Iterator[Violation]:
        """`tags` and `prompt` have a limit by model; unknown models get the loosest."""
        yield from super().rules()
        limits = SONIC_MODELS.get(self.mv, LOOSEST)
        for name, most in (("prompt", limits.prompt), ("tags", limits.tags)):
            text = getattr(self, name, None)
            if text and len(text) > most:
                limit = f"text of at most {most} characters with {self.mv}"
                yield Violation(name, limit, f"{len(text)} characters")


class Sung(ByModel, kw_only=True):
    """Custom mode (own lyrics in `prompt`) or description mode (`gpt_description_prompt`)."""

    prompt: Prompt | None = None
    gpt_description_prompt: DescriptionPrompt | None = None
    make_instrumental: Instrumental | None = None

    def rules(self) -> Iterator[Violation]:
        """Each mode needs its text, and the texts of both modes exclude each other."""
        yield from super().rules()
        custom = getattr(self, "custom_mode", True)
        if self.prompt and self.gpt_description_prompt:
            either = "either prompt (lyrics) or gpt_description_prompt (description), not both"
            yield Violation("prompt", either, "both")
        elif custom and not self.prompt and not self.make_instrumental:
            needed = "needed: lyrics in prompt, or gpt_description_prompt instead, or make_instrumental=True"
            yield Violation("prompt", needed, "none of them")
        elif not custom and not self.gpt_description_prompt:
            yield Violation("gpt_description_prompt", "needed when custom_mode is False", "none")


class Moded(Sung, kw_only=True):
    """A request whose mode may be left out: it follows from the text that is given."""

    custom_mode: CustomMode | None = None

    def __post_init__(self) -> None:
        if self.custom_mode is None:
            self.custom_mode = bool(self.prompt) or not self.gpt_description_prompt

    def rules(self) -> Iterator[Violation]:
        """auto_lyrics, where there is such a field, belongs to custom mode."""
        yield from super().rules()
        if getattr(self, "auto_lyrics", None) and not self.custom_mode:
            yield Violation("auto_lyrics", "needs custom_mode=True and a description in prompt", "False")


class Lengthy(Moded, kw_only=True):
    """A song whose length can be asked for."""

    duration: TargetSeconds | None = None


class Created(Lengthy, kw_only=True):
    """A song from `/sonic/create`, which always carries an explicit CDN choice."""

    use_suno_cdn: SunoCdn = False


class CreateMusic(Created, kw_only=True, tag_field="task_type", tag="create_music"):
    """Create a song: from own lyrics (`prompt`), from a description (`gpt_description_prompt`), with lyrics
    that the service writes (`auto_lyrics`), with a singer of your choice (`vocal_gender`), or without vocals
    (`make_instrumental`). Usually gives two clips after one to four minutes.
    """

    auto_lyrics: AutoLyrics | None = None


class Extending(Sung, kw_only=True):
    """An extension of a clip."""

    continue_at: ContinueAt
    custom_mode: RequiredMode
    use_suno_cdn: SunoCdn = False


class ExtendMusic(Extending, kw_only=True, tag_field="task_type", tag="extend_music"):
    """Extend a clip made on the platform. Gives only the new part; `concat_music` joins it to the source.
    For an uploaded clip use extend_upload_music.
    """

    continue_clip_id: SourceClip
    duration: TargetSeconds | None = None


class ExtendUploadMusic(Extending, kw_only=True, tag_field="task_type", tag="extend_upload_music"):
    """Extend an uploaded clip. `upload_extend` is the newer way: it uploads and extends in one call, and
    can join the two. `continue_at=0.1` is the start that the service advises.
    """

    continue_clip_id: UploadedClip


class ConcatMusic(Hooked, kw_only=True, tag_field="task_type", tag="concat_music"):
    """Join an extension to its source into the full song."""

    continue_clip_id: Annotated[str, Meta(min_length=1, description="The clip that extend_music returned.")]
    use_suno_cdn: SunoCdn = False


class CoverMusic(Created, kw_only=True, tag_field="task_type", tag="cover_music"):
    """Sing a clip made on the platform anew, in another style.

    For an uploaded clip use cover_upload_music.
    """

    continue_clip_id: SourceClip
    audio_weight: AudioWeight | None = None


class PersonaMusic(Created, kw_only=True, tag_field="task_type", tag="persona_music"):
    """Create a song with the voice and style of a persona or of a created voice."""

    persona_id: PersonaId


class CoverUploadMusic(Moded, kw_only=True, tag_field="task_type", tag="cover_upload_music"):
    """Sing an uploaded clip anew. `upload_cover` is the newer way: it uploads and covers in one call."""

    continue_clip_id: UploadedClip
    audio_weight: AudioWeight | None = None
    use_suno_cdn: SunoCdn = False


class Remaster(Hooked, kw_only=True, tag_field="task_type", tag="remaster"):
    """Make a clip again with another model. The clip should be at most 24 hours old."""

    continue_clip_id: SourceClip
    mv: Mv
    variation_category: (
        Annotated[str, Meta(description="How far to go: 'subtle', 'normal' or 'high'.")] | None
    ) = None
    use_suno_cdn: SunoCdn = False


class Overpainting(ByModel, kw_only=True):
    """Something laid over an uploaded clip, or over a part of it."""

    continue_clip_id: UploadedClip
    audio_weight: AudioWeight | None = None
    overpainting_start_s: PaintStart | None = None
    overpainting_end_s: PaintEnd | None = None
    use_suno_cdn: SunoCdn = False

    def rules(self) -> Iterator[Violation]:
        """The part ends after it starts, which is at the beginning unless told."""
        yield from super().rules()
        start = self.overpainting_start_s or 0.0
        yield from in_order(start, self.overpainting_end_s, "overpainting_start_s", "overpainting_end_s")


class AddVocals(Overpainting, kw_only=True, tag_field="task_type", tag="add_vocals"):
    """Sing over an uploaded instrumental clip."""

    prompt: Annotated[str, Meta(min_length=1, max_length=5000, description="The lyrics to sing.")]
    custom_mode: CustomMode = True


class AddInstrumental(Overpainting, kw_only=True, tag_field="task_type", tag="add_instrumental"):
    """Lay instruments under an uploaded clip of singing."""

    prompt: Prompt | None = None
    custom_mode: CustomMode | None = None
