"""Requests of Sonic beside `/sonic/create`: personas, voices, uploads, mixes of clips, and tools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from msgspec import Meta

from ..errors import Violation
from .request import LOCAL, Hooked, Request, in_order, window
from .song_requests import Lengthy, Moded, Styled
from .values import LINK, AudioWeight, AutoLyrics, ClipId, Instrumental, ShortTags, SourceUrl

VOX_WINDOW: Final = 30
"""Seconds that a vocal segment may last (contract, sonic 15)."""

PersonaName = Annotated[str, Meta(min_length=1, max_length=79, description="Name of the persona.")]


class CreatePersona(Request):
    """Make a persona from a clip: its voice and style can then sing other songs (`persona_music`).

    The clip should be at most 24 hours old. With `vox_audio_id` give the bounds that `vox` was asked with.
    """

    name: PersonaName
    clip_id: Annotated[str, Meta(min_length=1, description="Source clip, at most 24 hours old.")]
    describe: Annotated[str, Meta(description="Description of the persona.")] | None = None
    styles: Annotated[str, Meta(max_length=2000, description="Style words.")] | None = None
    vox_audio_id: Annotated[str, Meta(description="Voice segment, from vox.")] | None = None
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


class CreateVoice(Hooked):
    """Make a voice from a recording: its `persona_id` then sings other songs (`persona_music`)."""

    audio_url: Annotated[
        str,
        Meta(
            min_length=1,
            description="Public direct link to MP3 or WAV: longer than 10 s, one clear speaker.",
            extra={LINK: True},
        ),
    ]


class Upload(Request):
    """Import audio by its link, about 20 seconds. The clip can be extended, covered, split, mixed, and made
    a persona. Local files cannot be sent: put them at a public address first.
    """

    url: SourceUrl


AutoConcat = Annotated[bool, Meta(description="Also join the parts: the result is pairs (part, full song).")]


class UploadExtend(Lengthy, kw_only=True):
    """Import audio by its link and extend it, in one call of 30 to 60 seconds, then a task."""

    url: SourceUrl
    continue_at: (
        Annotated[float, Meta(ge=0, description="Second of the source where the extension starts.")] | None
    ) = None
    audio_weight: AudioWeight | None = None
    auto_concat: AutoConcat | None = None


class UploadCover(Lengthy, kw_only=True):
    """Import audio by its link and sing it anew, in one call of 30 to 60 seconds, then a task."""

    url: SourceUrl
    audio_weight: AudioWeight | None = None
    auto_concat: AutoConcat | None = None


class Sample(Moded, kw_only=True):
    """Make a song around a segment of a clip (`sample_clip_id`) or of audio behind a link (`url`)."""

    url: SourceUrl | None = None
    sample_clip_id: Annotated[str, Meta(description="Source clip; or give `url`.")] | None = None
    chop_sample_start_s: Annotated[float, Meta(ge=0, description="Start of the segment in seconds.")]
    chop_sample_end_s: Annotated[float, Meta(ge=0, description="End of the segment in seconds.")]
    make_instrumental: Instrumental | None = False
    tags: ShortTags | None = None
    auto_lyrics: AutoLyrics | None = None
    audio_weight: AudioWeight | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.make_instrumental is None:
            self.make_instrumental = False  # always sent

    def rules(self) -> Iterator[Violation]:
        """Exactly one source; the segment ends after it starts."""
        yield from super().rules()
        if bool(self.url) == bool(self.sample_clip_id):
            given = "both" if self.url else "neither"
            yield Violation("url", "exactly one of url and sample_clip_id", given)
        yield from in_order(
            self.chop_sample_start_s, self.chop_sample_end_s, "chop_sample_start_s", "chop_sample_end_s"
        )


class Mashup(Moded, kw_only=True):
    """Blend two clips into a song."""

    mashup_clip_ids: Annotated[list[ClipId], Meta(min_length=2, max_length=2, description="The two clips.")]
    tags: ShortTags | None = None
    auto_lyrics: AutoLyrics | None = None
    audio_weight: AudioWeight | None = None


class ReplaceSection(Styled, kw_only=True):
    """Sing a section of a clip anew, one to three minutes. Give both `infill_lyrics` and `prompt`."""

    clip_id: ClipId
    infill_start_s: Annotated[float, Meta(ge=0, description="Start of the section in seconds.")]
    infill_end_s: Annotated[float, Meta(ge=0, description="End of the section in seconds.")]
    infill_lyrics: (
        Annotated[str, Meta(max_length=3000, description="New lyrics of the section; recommended.")] | None
    ) = None
    prompt: (
        Annotated[str, Meta(max_length=5000, description="Lyrics around the section; recommended.")] | None
    ) = None
    auto_concat: AutoConcat | None = None

    def rules(self) -> Iterator[Violation]:
        """The section ends after it starts."""
        yield from super().rules()
        yield from in_order(self.infill_start_s, self.infill_end_s, "infill_start_s", "infill_end_s")


class StemsBasic(Request):
    """Split a clip into vocals and instrumental. Uploaded clips work too. Takes minutes."""

    clip_id: ClipId


class StemsFull(Request):
    """Split a clip into all its parts; 12 to 24 were seen. Takes many minutes, and often fails: four of five
    attempts were seen to fail, each with its credits returned.
    """

    clip_id: ClipId


class GetWav(Request):
    """The WAV file of a clip, as a link. `download` is the newer way, for several formats at one price."""

    clip_id: ClipId


class GetMidi(Request):
    """The notes of a clip or of one stem, by instrument, with the link of a MIDI file.

    The service may need a while: the call asks again every 5 seconds, for 180 seconds at most.
    """

    clip_id: Annotated[str, Meta(min_length=1, description="Clip or stem, best at most 24 hours old.")]
    wait: Annotated[bool, Meta(description="False: return at once, `ready` or not.", extra={LOCAL: True})] = (
        True
    )


class GetBpm(Request):
    """The tempo of a clip."""

    clip_id: ClipId


class GetVox(Request):
    """Cut a segment of singing out of a clip, for `create_persona`. Give both bounds or none."""

    clip_id: ClipId
    vocal_start_s: Annotated[float, Meta(ge=0, description="Start of the segment in seconds.")] | None = None
    vocal_end_s: (
        Annotated[float, Meta(ge=0, description="End of the segment, at most 30 s after its start.")] | None
    ) = None

    def rules(self) -> Iterator[Violation]:
        """Both bounds or none, at most 30 seconds apart."""
        yield from window(self.vocal_start_s, self.vocal_end_s, "vocal_start_s", "vocal_end_s")
        length = (self.vocal_end_s or 0) - (self.vocal_start_s or 0)
        if length > VOX_WINDOW:
            yield Violation("vocal_end_s", f"at most {VOX_WINDOW} s after vocal_start_s", f"{length:g} s")


class GetAlignedLyrics(Request):
    """The lyrics of a clip, word by word with times; `lrc()` and `srt()` make subtitles of them.

    The first call for a clip charges credits, repeats are free. For a fresh upload the list may be empty at
    first.
    """

    clip_id: Annotated[str, Meta(min_length=1, description="Clip that has lyrics.")]
    wait: Annotated[
        bool,
        Meta(
            description="Ask again every 10 seconds while the list is empty, for 180 seconds at most.",
            extra={LOCAL: True},
        ),
    ] = False


class UpsampleTags(Request):
    """Turn a few style words into a richer description for `tags`."""

    tags: Annotated[str, Meta(min_length=1, description="A few style words, separated by commas.")]


class WriteLyrics(Request):
    """Write lyrics from a description, in its language; normally two versions."""

    description: Annotated[str, Meta(min_length=1, max_length=119, description="What the song is about.")]


class Download(Request):
    """Links to files of a clip in several formats, at one price whatever their number.

    The service may need a while: the call asks again every 3 seconds, for 120 seconds at most.
    """

    clip_id: ClipId
    formats: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(min_length=1, description="Formats such as 'mp3', 'm4a', 'wav'."),
    ]
