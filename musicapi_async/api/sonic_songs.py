"""Requests that give songs by Sonic: the ten task types of `create`, and the calls beside it.

Groups of fields come first, each in a class of its own, then the rules between fields as plain functions,
then the requests, which name their group, their rules, and the fields that only they have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta

from ..errors import Violation
from .field_limits import (
    LOOSEST,
    PLACE,
    PLACE_FIRST,
    SONIC_MODELS,
    AudioWeight,
    AutoLyrics,
    ClipId,
    CustomMode,
    DescriptionPrompt,
    FreeNegativeTags,
    Instrumental,
    Mv,
    NegativeTags,
    PersonaId,
    Prompt,
    ShortTags,
    SourceUrl,
    StyleWeight,
    SunoCdn,
    Tags,
    TargetSeconds,
    Title,
    VocalGender,
    Weirdness,
)
from .request import WebhookFields, in_order

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
AutoConcat = Annotated[bool, Meta(description="Also join the parts: the result is pairs (part, full song).")]

# --- groups of fields -------------------------------------------------------------------------------------


class StyleFields(WebhookFields, kw_only=True):
    """Model, title, style and singer: of everything that sings."""

    mv: Mv
    title: Title | None = None
    tags: Tags | None = None
    negative_tags: NegativeTags | None = None
    vocal_gender: VocalGender | None = None
    style_weight: StyleWeight | None = None
    weirdness_constraint: Weirdness | None = None


class TextFields(StyleFields, kw_only=True):
    """The text of a song: own lyrics (custom mode), or a description."""

    prompt: Prompt | None = None
    gpt_description_prompt: DescriptionPrompt | None = None
    make_instrumental: Instrumental | None = None


class SongFields(TextFields, kw_only=True):
    """A song whose mode may be left out: it follows from the text that is given."""

    custom_mode: CustomMode | None = None

    def __post_init__(self) -> None:
        if self.custom_mode in (None, ""):  # type: ignore[comparison-overlap]  # as a form may have it
            self.custom_mode = is_custom(self.prompt, self.gpt_description_prompt)

    def rules(self) -> Iterator[Violation]:
        yield from fits_model(self.mv, self.prompt, self.tags)
        yield from has_text(self, custom=bool(self.custom_mode))


class ExtensionFields(TextFields, kw_only=True):
    """An extension of a clip."""

    continue_at: ContinueAt
    custom_mode: RequiredMode
    use_suno_cdn: SunoCdn = False

    def rules(self) -> Iterator[Violation]:
        yield from fits_model(self.mv, self.prompt, self.tags)
        yield from has_text(self, custom=self.custom_mode)


class OverpaintingFields(StyleFields, kw_only=True):
    """A layer over an uploaded clip, or over a part of it."""

    continue_clip_id: UploadedClip
    audio_weight: AudioWeight | None = None
    overpainting_start_s: PaintStart | None = None
    overpainting_end_s: PaintEnd | None = None
    use_suno_cdn: SunoCdn = False


# --- rules between fields ---------------------------------------------------------------------------------


def fits_model(model: str, prompt: str | None, tags: str | None) -> Iterator[Violation]:
    """Check the limits of `prompt` and `tags` by model; unknown models get the loosest."""
    limits = SONIC_MODELS.get(model, LOOSEST)
    for name, text, most in (("prompt", prompt, limits.prompt), ("tags", tags, limits.tags)):
        if text and len(text) > most:
            limit = f"text of at most {most} characters with {model}"
            yield Violation(name, limit, f"{len(text)} characters")


def has_text(song: TextFields, *, custom: bool) -> Iterator[Violation]:
    """Check that the text of the mode is there, and that of the other mode is not."""
    if song.prompt and song.gpt_description_prompt:
        either = "either prompt (lyrics) or gpt_description_prompt (description), not both"
        yield Violation("prompt", either, "both")
    elif custom and not song.prompt and not song.make_instrumental:
        needed = "needed: lyrics in prompt, or gpt_description_prompt instead, or make_instrumental=True"
        yield Violation("prompt", needed, "none of them")
    elif not custom and not song.gpt_description_prompt:
        yield Violation("gpt_description_prompt", "needed when custom_mode is False", "none")


def is_custom(prompt: object, description: object) -> bool:
    """Return the mode that follows from the text of a song: custom unless there is a description alone."""
    return bool(prompt) or not description


def writes_lyrics(auto_lyrics: bool | None, custom_mode: bool | None) -> Iterator[Violation]:
    """Check that `auto_lyrics` comes with custom mode."""
    if auto_lyrics and not custom_mode:
        yield Violation("auto_lyrics", "needs custom_mode=True and a description in prompt", "False")


def fits_overpainting(layer: OverpaintingFields, prompt: str | None) -> Iterator[Violation]:
    """Check the limits of the model, and that the part ends after its start, by default the beginning."""
    yield from fits_model(layer.mv, prompt, layer.tags)
    start = layer.overpainting_start_s or 0.0
    yield from in_order(start, layer.overpainting_end_s, "overpainting_start_s", "overpainting_end_s")


# --- the ten task types of create ------------------------------------------------------------------------


class CreateMusic(SongFields, kw_only=True, tag_field="task_type", tag="create_music"):
    """Create a song: from own lyrics (`prompt`), from a description (`gpt_description_prompt`), with lyrics
    that the service writes (`auto_lyrics`), with a singer of your choice (`vocal_gender`), or without vocals
    (`make_instrumental`). Usually gives two clips after one to four minutes.
    """

    example: ClassVar[str] = """\
task = await client.{family}.create_music(
    mv="sonic-v6", prompt=lyrics, title="Rain", tags="warm lo-fi, soft piano", vocal_gender="f"
)
clips = await task  # usually two; or gpt_description_prompt="..." instead of lyrics"""

    duration: TargetSeconds | None = None
    auto_lyrics: AutoLyrics | None = None
    use_suno_cdn: SunoCdn = False

    def rules(self) -> Iterator[Violation]:
        yield from super().rules()
        yield from writes_lyrics(self.auto_lyrics, self.custom_mode)


class ExtendMusic(ExtensionFields, kw_only=True, tag_field="task_type", tag="extend_music"):
    """Extend a clip made on the platform. Gives only the new part; `concat_music` joins it to the source.
    For an uploaded clip use extend_upload_music.
    """

    example: ClassVar[str] = """\
part = await client.{family}.extend_music(
    continue_clip_id=clip.clip_id, continue_at=60, custom_mode=True, mv="sonic-v6", prompt=lyrics
)
song = await client.{family}.concat_music(continue_clip_id=(await part)[0].clip_id)"""

    continue_clip_id: SourceClip
    duration: TargetSeconds | None = None


class ExtendUploadMusic(ExtensionFields, kw_only=True, tag_field="task_type", tag="extend_upload_music"):
    """Extend an uploaded clip. `upload_extend` is the newer way: it uploads and extends in one call, and
    can join the two. `continue_at=0.1` is the start that the service advises.
    """

    continue_clip_id: UploadedClip


class ConcatMusic(WebhookFields, kw_only=True, tag_field="task_type", tag="concat_music"):
    """Join an extension to its source into the full song."""

    continue_clip_id: Annotated[str, Meta(min_length=1, description="The clip that extend_music returned.")]
    use_suno_cdn: SunoCdn = False


class CoverMusic(SongFields, kw_only=True, tag_field="task_type", tag="cover_music"):
    """Sing a clip made on the platform again, in another style.

    For an uploaded clip use cover_upload_music.
    """

    example: ClassVar[str] = """\
task = await client.{family}.cover_music(
    continue_clip_id=clip.clip_id, mv="sonic-v6", prompt=lyrics, tags="jazz"
)"""

    continue_clip_id: SourceClip
    audio_weight: AudioWeight | None = None
    duration: TargetSeconds | None = None
    use_suno_cdn: SunoCdn = False


class PersonaMusic(SongFields, kw_only=True, tag_field="task_type", tag="persona_music"):
    """Create a song with the voice and style of a persona or of a created voice."""

    example: ClassVar[str] = """\
persona = await client.sonic.create_persona(name="Rainy voice", clip_id=clip.clip_id)
task = await client.{family}.persona_music(persona_id=persona.persona_id, mv="sonic-v6", prompt=lyrics)"""

    persona_id: PersonaId
    duration: TargetSeconds | None = None
    use_suno_cdn: SunoCdn = False


class CoverUploadMusic(SongFields, kw_only=True, tag_field="task_type", tag="cover_upload_music"):
    """Sing an uploaded clip again. `upload_cover` is the newer way: it uploads and covers in one call."""

    continue_clip_id: UploadedClip
    audio_weight: AudioWeight | None = None
    use_suno_cdn: SunoCdn = False


class Remaster(WebhookFields, kw_only=True, tag_field="task_type", tag="remaster"):
    """Make a clip again with another model. The clip should be at most 24 hours old."""

    continue_clip_id: SourceClip
    mv: Mv
    variation_category: (
        Annotated[str, Meta(description="Distance from the source: 'subtle', 'normal' or 'high'.")] | None
    ) = None
    use_suno_cdn: SunoCdn = False


class AddVocals(OverpaintingFields, kw_only=True, tag_field="task_type", tag="add_vocals"):
    """Sing over an uploaded instrumental clip."""

    prompt: Annotated[str, Meta(min_length=1, max_length=5000, description="The lyrics to sing.")]
    custom_mode: CustomMode = True

    def rules(self) -> Iterator[Violation]:
        return fits_overpainting(self, self.prompt)


class AddInstrumental(OverpaintingFields, kw_only=True, tag_field="task_type", tag="add_instrumental"):
    """Lay instruments under an uploaded clip of singing."""

    prompt: Prompt | None = None
    custom_mode: CustomMode | None = None

    def rules(self) -> Iterator[Violation]:
        return fits_overpainting(self, self.prompt)


# --- songs from audio, beside create ----------------------------------------------------------------------


class UploadExtend(SongFields, kw_only=True):
    """Import audio by its link and extend it, in one call of 30 to 60 seconds, then a task."""

    url: SourceUrl
    continue_at: ContinueAt | None = None
    duration: TargetSeconds | None = None
    audio_weight: AudioWeight | None = None
    auto_concat: AutoConcat | None = None


class UploadCover(SongFields, kw_only=True):
    """Import audio by its link and sing it again, in one call of 30 to 60 seconds, then a task."""

    example: ClassVar[str] = """\
task = await client.{family}.upload_cover(url=link, mv="sonic-v6", prompt=lyrics, tags="jazz")"""

    url: SourceUrl
    duration: TargetSeconds | None = None
    audio_weight: AudioWeight | None = None
    auto_concat: AutoConcat | None = None


class Sample(SongFields, kw_only=True):
    """Make a song around a segment of a clip (`sample_clip_id`) or of audio behind a link (`url`)."""

    sample_clip_id: (
        Annotated[str, Meta(description="Source clip; or give `url`.", extra={PLACE: PLACE_FIRST})] | None
    ) = None
    url: SourceUrl | None = None
    chop_sample_start_s: Annotated[float, Meta(ge=0, description="Start of the segment in seconds.")]
    chop_sample_end_s: Annotated[float, Meta(ge=0, description="End of the segment in seconds.")]
    make_instrumental: Instrumental | None = False
    tags: ShortTags | None = None
    negative_tags: FreeNegativeTags | None = None
    auto_lyrics: AutoLyrics | None = None
    audio_weight: AudioWeight | None = None

    def rules(self) -> Iterator[Violation]:
        yield from super().rules()
        yield from writes_lyrics(self.auto_lyrics, self.custom_mode)
        if bool(self.url) == bool(self.sample_clip_id):
            given = "both" if self.url else "neither"
            yield Violation("url", "exactly one of url and sample_clip_id", given)
        yield from in_order(
            self.chop_sample_start_s, self.chop_sample_end_s, "chop_sample_start_s", "chop_sample_end_s"
        )


class Mashup(SongFields, kw_only=True):
    """Blend two clips into a song."""

    mashup_clip_ids: Annotated[list[ClipId], Meta(min_length=2, max_length=2, description="The two clips.")]
    tags: ShortTags | None = None
    negative_tags: FreeNegativeTags | None = None
    auto_lyrics: AutoLyrics | None = None
    audio_weight: AudioWeight | None = None

    def rules(self) -> Iterator[Violation]:
        yield from super().rules()
        yield from writes_lyrics(self.auto_lyrics, self.custom_mode)


class ReplaceSection(StyleFields, kw_only=True):
    """Sing a section of a clip again, one to three minutes. Give both `infill_lyrics` and `prompt`."""

    clip_id: ClipId
    infill_start_s: Annotated[float, Meta(ge=0, description="Start of the section in seconds.")]
    infill_end_s: Annotated[float, Meta(ge=0, description="End of the section in seconds.")]
    infill_lyrics: (
        Annotated[
            str,
            Meta(
                max_length=3000,
                description="New lyrics of the section; recommended.",
                extra={PLACE: PLACE_FIRST},
            ),
        ]
        | None
    ) = None
    prompt: (
        Annotated[
            str,
            Meta(
                max_length=5000,
                description="Lyrics around the section; recommended.",
                extra={PLACE: PLACE_FIRST},
            ),
        ]
        | None
    ) = None
    auto_concat: AutoConcat | None = None

    def rules(self) -> Iterator[Violation]:
        return in_order(self.infill_start_s, self.infill_end_s, "infill_start_s", "infill_end_s")
