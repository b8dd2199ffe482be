"""Requests about clips of Sonic: personas and voices, uploads, stems, files, lyrics, and other tools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Final

from msgspec import Meta

from ..errors import Violation
from .field_limits import LINK, LOCAL, ClipId, Link, SourceUrl
from .request import Request, WebhookFields, in_order

VOX_WINDOW: Final = 30
"""Seconds that a vocal segment may last (vendor's documentation)."""
MILLISECONDS: Final = 3
"""Decimals of a length in seconds: binary fractions make 32.2 - 2.2 a little more than 30."""

PersonaName = Annotated[str, Meta(min_length=1, max_length=79, description="Name of the persona.")]


class CreatePersona(Request):
    """Make a persona from a clip: its voice and style can then sing other songs (`persona_music`).

    The clip should be at most 24 hours old. With `vox_audio_id` give the bounds that were given to `vox`.
    """

    example: ClassVar[str] = """\
persona = await client.{family}.create_persona(name="Rainy voice", clip_id=clip.clip_id)"""

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
        return _vocals_in_order(self.vocal_start_s, self.vocal_end_s)


class CreatePersonaOlder(Request):
    """Make a persona with the older names of the fields, for accounts that still need them."""

    name: PersonaName
    description: Annotated[str, Meta(min_length=1, max_length=199, description="Description.")]
    continue_clip_id: ClipId


class CreateVoice(WebhookFields):
    """Make a voice from a recording: its `persona_id` then sings other songs (`persona_music`)."""

    example: ClassVar[str] = """\
voice = await (await client.{family}.create_voice(link))
task = await client.{family}.persona_music(persona_id=voice.persona_id, mv="sonic-v6", prompt=lyrics)"""

    audio_url: Annotated[
        Link,
        Meta(
            min_length=1,
            description="Public direct link to MP3 or WAV: longer than 10 s, one clear speaker.",
            extra={LINK: True},
        ),
    ]


class UploadAudio(Request):
    """Import audio by its link, in about 20 seconds. The clip can then be extended, covered, split, mixed, or
    made a persona.
    """

    example: ClassVar[str] = """\
upload = await client.{family}.upload(link)
print(upload.clip_id)"""

    url: SourceUrl


class StemsBasic(Request):
    """Split a clip into vocals and instrumental, in some minutes. Uploaded clips can be split, too."""

    example: ClassVar[str] = """\
stems = await (await client.{family}.stems_basic(clip.clip_id))
print(stems["vocals"].final_url)"""

    clip_id: ClipId


class StemsFull(Request):
    """Split a clip into all its parts, in many minutes; 12 to 24 parts were reported. It often fails: four of
    five attempts were reported to fail, each with its credits returned.
    """

    clip_id: ClipId


class GetWav(Request):
    """Get a link to the WAV file of a clip. `download` is newer: several formats at one price."""

    example: ClassVar[str] = """\
wav = await client.{family}.wav(clip.clip_id)
print(wav.wav_url)"""

    clip_id: ClipId


class GetMidi(Request):
    """Get the notes of a clip or of one stem, by instrument, with the link of a MIDI file.

    While the service prepares the file (HTTP 202), the call is repeated every 5 seconds, for 180 seconds at
    most.
    """

    example: ClassVar[str] = """\
midi = await client.{family}.midi(clip.clip_id)
print(midi.midi_url, [instrument.name for instrument in midi.instruments])"""

    clip_id: Annotated[str, Meta(min_length=1, description="Clip or stem, best at most 24 hours old.")]
    wait: Annotated[bool, Meta(description="False: return at once, `ready` or not.", extra={LOCAL: True})] = (
        True
    )


class GetBpm(Request):
    """Get the tempo of a clip."""

    clip_id: ClipId


class GetVox(Request):
    """Cut a segment of singing out of a clip, for `create_persona`. Give both bounds or none."""

    clip_id: ClipId
    vocal_start_s: Annotated[float, Meta(ge=0, description="Start of the segment in seconds.")] | None = None
    vocal_end_s: (
        Annotated[float, Meta(ge=0, description="End of the segment, at most 30 s after its start.")] | None
    ) = None

    def rules(self) -> Iterator[Violation]:
        yield from _vocals_in_order(self.vocal_start_s, self.vocal_end_s)
        length = round((self.vocal_end_s or 0) - (self.vocal_start_s or 0), MILLISECONDS)
        if length > VOX_WINDOW:
            yield Violation("vocal_end_s", f"at most {VOX_WINDOW} s after vocal_start_s", f"{length:g} s")


class GetAlignedLyrics(Request):
    """Get the lyrics of a clip with the time of each word; `lrc()` and `srt()` make subtitles of them.

    The first call for a clip charges credits, repeats are free. Soon after an upload the list may be empty.
    """

    clip_id: Annotated[str, Meta(min_length=1, description="Clip that has lyrics.")]
    wait: Annotated[
        bool,
        Meta(
            description="Repeat the call every 10 seconds while the list is empty, for 180 seconds at most.",
            extra={LOCAL: True},
        ),
    ] = False


class UpsampleTags(Request):
    """Turn a few style words into a richer description for `tags`."""

    tags: Annotated[str, Meta(min_length=1, description="A few style words, separated by commas.")]


class WriteLyrics(Request):
    """Write lyrics from a description, in its language; normally two versions."""

    description: Annotated[str, Meta(min_length=1, max_length=119, description="Subject of the song.")]


class DownloadFiles(Request):
    """Get links to files of a clip in several formats, at one price for any number of them.

    While the service prepares the files (HTTP 202), the call is repeated every 3 seconds, for 120 seconds at
    most.
    """

    clip_id: ClipId
    formats: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(min_length=1, description="Formats such as 'mp3', 'm4a', 'wav'."),
    ]


def _vocals_in_order(start: float | None, end: float | None) -> Iterator[Violation]:
    """Check the bounds of a vocal segment in seconds: both or neither, the end after the start."""
    if (start is None) != (end is None):
        missing = "vocal_start_s" if start is None else "vocal_end_s"
        yield Violation(missing, "vocal_start_s and vocal_end_s belong together", "only one of them")
    else:
        yield from in_order(start, end, "vocal_start_s", "vocal_end_s")
