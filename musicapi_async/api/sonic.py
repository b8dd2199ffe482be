"""Sonic: songs, personas and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta

from ..errors import Violation
from .operation import Family, Polled, calls, submits
from .replies import Persona
from .request import Request, picture
from .results import Clips, TaskUpdate
from .values import (
    LOOSEST,
    SONIC_MODELS,
    AudioWeight,
    AutoLyrics,
    ClipId,
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
    WebhookSecret,
    WebhookUrl,
    Weirdness,
)

SONGS: Final = Polled("/sonic/task/{task_id}", "sonic", first=15, interval=15, deadline=900)
STEMS: Final = Polled("/sonic/task/{task_id}", "sonic", first=15, interval=15, deadline=1800)
VOICES: Final = Polled("/sonic/task/{task_id}", "sonic", first=10, interval=15, deadline=900)

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Hooked(Request, kw_only=True):
    """A request whose result can be told to a webhook."""

    webhook_url: WebhookUrl | None = None
    webhook_secret: WebhookSecret | None = None

    def rules(self) -> Iterator[Violation]:
        """A webhook must be https, except to this machine itself, where a sandbox delivers it."""
        if self.webhook_url and not _reachable(self.webhook_url):
            yield Violation("webhook_url", "an https address", picture(self.webhook_url))


def _reachable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (
            parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        )
    except ValueError:
        return False


class Styled(Hooked, kw_only=True):
    """Title, style and singer, shared by everything that sings."""

    mv: Mv
    title: Title | None = None
    tags: Tags | None = None
    negative_tags: NegativeTags | None = None
    vocal_gender: VocalGender | None = None
    style_weight: StyleWeight | None = None
    weirdness_constraint: Weirdness | None = None

    def rules(self) -> Iterator[Violation]:
        """`tags` and `prompt` have a limit by model; unknown models get the loosest."""
        yield from super().rules()
        limits = SONIC_MODELS.get(self.mv, LOOSEST)
        for name, most in (("prompt", limits.prompt), ("tags", limits.tags)):
            text = getattr(self, name, None)
            if text and len(text) > most:
                limit = f"text of at most {most} characters with {self.mv}"
                yield Violation(name, limit, f"{len(text)} characters")


class Sung(Styled, kw_only=True):
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

    def rules(self) -> Iterator[Violation]:
        """auto_lyrics belongs to custom mode."""
        yield from super().rules()
        if self.auto_lyrics and not self.custom_mode:
            yield Violation("auto_lyrics", "needs custom_mode=True and a description in prompt", "False")


SourceClip = Annotated[str, Meta(min_length=1, description="The clip to work on.")]
ContinueAt = Annotated[float, Meta(ge=0, description="Second of the source where the extension starts.")]
RequiredMode = Annotated[
    bool, Meta(description="True: lyrics in `prompt`. False: `gpt_description_prompt`. Required here.")
]


class ExtendMusic(Sung, kw_only=True, tag_field="task_type", tag="extend_music"):
    """Extend a clip made on the platform. Gives only the new part; `concat_music` joins it to the source.
    For an uploaded clip use extend_upload_music.
    """

    continue_clip_id: SourceClip
    continue_at: ContinueAt
    custom_mode: RequiredMode
    duration: TargetSeconds | None = None
    use_suno_cdn: SunoCdn = False


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


PersonaName = Annotated[str, Meta(min_length=1, max_length=79, description="Name of the persona.")]


class CreatePersona(Request):
    """Make a persona from a clip: its voice and style can then sing other songs (`persona_music`).

    The clip should be at most 24 hours old. With `vox_audio_id` give the bounds that `vox` was asked with.
    """

    name: PersonaName
    clip_id: Annotated[str, Meta(min_length=1, description="Source clip, at most 24 hours old.")]
    describe: Annotated[str, Meta(description="Description of the persona.")] | None = None
    styles: Annotated[str, Meta(max_length=2000, description="Style words.")] | None = None
    vox_audio_id: Annotated[str, Meta(description="Voice segment, from `vox`.")] | None = None
    vocal_start_s: (
        Annotated[float, Meta(ge=0, description="Start of the segment in seconds, as in `vox`.")] | None
    ) = None
    vocal_end_s: (
        Annotated[float, Meta(ge=0, description="End of the segment in seconds, as in `vox`.")] | None
    ) = None

    def rules(self) -> Iterator[Violation]:
        """The bounds of a segment belong together."""
        yield from window(self.vocal_start_s, self.vocal_end_s, "vocal_start_s", "vocal_end_s")


class CreatePersonaOlder(Request):
    """Make a persona with the older names of the fields, for accounts that still want them."""

    name: PersonaName
    description: Annotated[str, Meta(min_length=1, max_length=199, description="Description.")]
    continue_clip_id: ClipId


class GetMusic(Request):
    """Look at a task once, as it is now. A task that failed gives an update with `error` set."""

    task_id: Annotated[str, Meta(min_length=1, description="Task id, from any create of the family.")]


def window(start: float | None, end: float | None, first: str, last: str) -> Iterator[Violation]:
    """Two bounds in seconds: both or neither, the end after the start."""
    if (start is None) != (end is None):
        missing = first if start is None else last
        yield Violation(missing, f"{first} and {last} belong together", "only one of them")
    elif start is not None and end is not None and end <= start:
        yield Violation(last, f"a number greater than {first}", f"{end:g} after {start:g}")


class Sonic(Family):
    """Songs with or without vocals, personas, and what is made of them: `client.sonic`."""

    word = "sonic"

    create_music = submits("/sonic/create", CreateMusic, Clips, polled=SONGS)
    extend_music = submits("/sonic/create", ExtendMusic, Clips, polled=SONGS)
    concat_music = submits("/sonic/create", ConcatMusic, Clips, polled=SONGS)
    cover_music = submits("/sonic/create", CoverMusic, Clips, polled=SONGS)
    persona_music = submits("/sonic/create", PersonaMusic, Clips, polled=SONGS)
    create_persona = calls("/sonic/persona", CreatePersona, Persona)
    create_persona_older = calls("/sonic/persona", CreatePersonaOlder, Persona)
    get_music = calls(
        "/sonic/task/{task_id}", GetMusic, TaskUpdate, method="GET", charges=False, polled=SONGS
    )
