"""Replies of direct calls: each names what must be there; `musicapi_async._wire.result_reading` fills it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import msgspec

from .response_info import Received, ResponseInfo
from .results import Amount, Item


class Reply(Item, kw_only=True):
    """The base of direct replies. `raw` is the whole body.

    A field is read from the top level of the body, else from its `data`. A body without any of the fields in
    `needs` is refused. `may_be_empty` is True if zero, or an empty list, is a result.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    may_be_empty: ClassVar[bool] = False
    echoed: ClassVar[tuple[str, ...]] = ()
    """Fields that are those of the request where the reply leaves them out."""
    keys: ClassVar[Mapping[str, str]] = {}
    """Keys of fields in the body, where they have another name there."""

    @property
    def is_empty(self) -> bool:
        """True if all fields of the reply are missing or empty."""
        for name in self.__struct_fields__:  # noqa: SIM110 - a generator costs more than the first field, which decides
            if getattr(self, name) not in (None, "", [], {}):
                return False
        return True

    @property
    def response(self) -> ResponseInfo | None:
        """The HTTP response of the call; None for a stored reply of a previous call with the same job key."""
        try:
            received = self._received
        except AttributeError:  # never set
            return None
        if not isinstance(received, ResponseInfo):
            received = self._received = received.info()
        return received

    def __copy__(self) -> Self:
        copied = super().__copy__()
        if (response := self.response) is not None:
            came_in(copied, response)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        made, response = super().__reduce__(), self.response
        # A state of two parts: the second one are attributes to set.
        return made if response is None else (*made, (None, {"_received": response}))


def came_in(reply: Reply, received: Received | ResponseInfo) -> None:
    """Set the HTTP response that a reply came in."""
    reply._received = received  # pyright: ignore[reportPrivateUsage]


class Persona(Reply, kw_only=True):
    """A persona. `persona_music` takes its `persona_id`."""

    needs: ClassVar[tuple[str, ...]] = ("persona_id",)
    echoed: ClassVar[tuple[str, ...]] = ("name",)

    persona_id: str = ""
    name: str | None = None


class Upload(Reply, kw_only=True):
    """Imported audio, as a clip with the id `clip_id`.

    The service may reply with a task instead: then `clip_id` is None, `task_id` is set, and
    `await client.task(family, upload.task_id, kind="upload").wait()` returns the clip.
    """

    needs: ClassVar[tuple[str, ...]] = ("clip_id", "task_id")

    clip_id: str | None = None
    task_id: str | None = None


class Wav(Reply, kw_only=True):
    """The link of a WAV file, in `wav_url`."""

    needs: ClassVar[tuple[str, ...]] = ("wav_url",)

    wav_url: str = ""


class Note(Item, kw_only=True):
    """A note: `pitch` 0 to 127 (60 is middle C), `start` and `end` in seconds, `velocity` 0 to 1."""

    pitch: Annotated[int, msgspec.Meta(ge=0, le=127)] | None = None
    start: Amount | None = None
    end: Amount | None = None
    velocity: Amount | None = None


class Instrument(Item, kw_only=True):
    """An instrument of a MIDI file with its notes."""

    name: str = ""
    notes: list[Note] = msgspec.field(default_factory=list[Note])


class Midi(Reply, kw_only=True):
    """The notes of a clip: the link of the MIDI file in `midi_url`, and the `instruments` with their notes.

    `midi_url` is None while the service prepares the file (with `wait=False`), or if the reply has none.
    """

    midi_url: str | None = None
    instruments: list[Instrument] = msgspec.field(default_factory=list[Instrument])

    @property
    def ready(self) -> bool:
        """True if `midi_url` is set."""
        return self.midi_url is not None


class Bpm(Reply, kw_only=True):
    """The average, highest and lowest tempo, in beats per minute."""

    avg_bpm: Amount | None = None
    max_bpm: Amount | None = None
    min_bpm: Amount | None = None


class Vox(Reply, kw_only=True):
    """A vocal segment. `create_persona` takes its `vox_audio_id` and the same bounds, in seconds."""

    needs: ClassVar[tuple[str, ...]] = ("vox_audio_id",)

    vox_audio_id: str = ""
    status: str | None = None
    source_clip_id: str | None = None
    vocal_start_s: Amount | None = None
    vocal_end_s: Amount | None = None
    wave_response: Any = None


class UpsampledTags(Reply, kw_only=True):
    """A detailed description of a style, in `upsampled_tags`; use it as `tags` of a create."""

    needs: ClassVar[tuple[str, ...]] = ("upsampled_tags",)

    upsampled_tags: str = ""


class File(Item, kw_only=True):
    """A file: its `format`, such as 'wav', and its `url`."""

    format: str = ""
    url: str = ""


class Files(Reply, kw_only=True):
    """The files of a clip that have a link."""

    needs: ClassVar[tuple[str, ...]] = ("files",)

    files: list[File] = msgspec.field(default_factory=list[File])

    def __post_init__(self) -> None:
        self.files = [file for file in self.files if file.url]

    @property
    def by_format(self) -> dict[str, str]:
        """The link of each format, by its name in lower case."""
        return {file.format.lower(): file.url for file in self.files}

    def url(self, format: str) -> str | None:
        """Return the link of one format, or None if there is none."""
        return self.by_format.get(format.lower())


class SongMetadata(Reply, kw_only=True):
    """Title, author, styles and links of a song behind a share link."""

    audio_url: str | None = None
    video_url: str | None = None
    cover_image: str | None = None
    song_title: str | None = None
    song_author: str | None = None
    music_styles: str | None = None
