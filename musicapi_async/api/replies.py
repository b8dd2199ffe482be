"""What direct calls answer. Each reply reads itself from a body and names what it cannot do without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from .results import Item
from .values import amount, finite, id_of, lenient, list_or_empty, mapping_or_empty, reference_or_none

ItemT = TypeVar("ItemT", bound=Item)


def find(body: Mapping[str, Any], key: str) -> Any:
    """The value of `key` at the top level of a body, else under `data`."""
    value = body.get(key)
    return mapping_or_empty(body.get("data")).get(key) if value in (None, "") else value


def read_items(kind: type[ItemT], value: Any) -> list[ItemT]:
    """The JSON objects of a list; what is no object stays in the raw body only."""
    return [kind.read(mapping_or_empty(item)) for item in list_or_empty(value) if isinstance(item, dict)]


class Reply(Item, kw_only=True):
    """The base of direct replies. `raw` is the whole body; `needs` names the fields that must be there.

    A field is looked for at the top level of the body first, then under `data`.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self | None:
        """Read a body; None when a field that it needs is missing or empty."""
        given = {key: value for key, value in body.items() if value not in (None, "")}
        if data := mapping_or_empty(body.get("data")):
            given = {**data, **given}
        reply = lenient(cls, given)
        reply.raw = dict(body)
        for name in cls.needs:
            if getattr(reply, name) in (None, ""):
                return None
        return reply

    @property
    def is_empty(self) -> bool:
        """Nothing of what was asked for came."""
        named = (name for name in self.__struct_fields__ if name != "raw")
        return all(getattr(self, name) in (None, "", [], {}) for name in named)


class Persona(Reply, kw_only=True):
    """A persona: `persona_id` is what `persona_music` takes."""

    needs: ClassVar[tuple[str, ...]] = ("persona_id",)

    persona_id: str = ""
    name: str | None = None


class Upload(Reply, kw_only=True):
    """Imported audio: `clip_id` is the clip.

    The service may answer with a task instead: then `clip_id` is None, `task_id` is set, and
    `client.task(family, upload.task_id, kind="upload").wait()` gives the clip.
    """

    clip_id: str | None = None
    task_id: str | None = None

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self | None:
        """Read a body; None when there is neither a clip nor a task."""
        upload = super().from_body(body)
        if upload is not None and not (upload.clip_id or upload.task_id or body.get("error")):
            upload.clip_id = id_of(body) or id_of(mapping_or_empty(body.get("data")))
        return upload if upload is not None and (upload.clip_id or upload.task_id) else None


class Wav(Reply, kw_only=True):
    """The link of a WAV file, in `wav_url`."""

    needs: ClassVar[tuple[str, ...]] = ("wav_url",)

    wav_url: str = ""


class Note(Item, kw_only=True):
    """A note: `pitch` 0 to 127 (60 is middle C), `start` and `end` in seconds, `velocity` 0 to 1."""

    pitch: int | None = None
    start: float | None = None
    end: float | None = None
    velocity: float | None = None

    def __post_init__(self) -> None:
        if self.pitch is not None and not 0 <= self.pitch <= 127:
            self.pitch = None
        self.start = finite(self.start)
        self.end = finite(self.end)
        self.velocity = finite(self.velocity)


class Instrument(Item, kw_only=True):
    """An instrument of a MIDI file with its notes."""

    name: str = ""
    notes: list[Note] = msgspec.field(default_factory=list[Note])

    @classmethod
    def read(cls, mapping: Mapping[str, Any]) -> Self:
        """Read one JSON object; what is no note is left out."""
        instrument = super().read({"name": mapping.get("name")})
        instrument.notes = read_items(Note, mapping.get("notes"))
        instrument.raw = dict(mapping)
        return instrument


class Midi(Reply, kw_only=True):
    """The notes of a clip: `midi_url` of the file, and the `instruments`.

    `midi_url` is None while the file is being made (`wait=False`), or if the service sent none.
    """

    midi_url: str | None = None
    instruments: list[Instrument] = msgspec.field(default_factory=list[Instrument])

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self | None:
        """Read a body; nothing in it is needed."""
        midi = cls(midi_url=reference_or_none(find(body, "midi_url")))
        midi.instruments = read_items(Instrument, find(body, "instruments"))
        midi.raw = dict(body)
        return midi

    @property
    def ready(self) -> bool:
        """Whether the file is there."""
        return self.midi_url is not None


class Bpm(Reply, kw_only=True):
    """The tempo in beats per minute: average, highest, lowest."""

    avg_bpm: float | None = None
    max_bpm: float | None = None
    min_bpm: float | None = None

    def __post_init__(self) -> None:
        self.avg_bpm = finite(self.avg_bpm)
        self.max_bpm = finite(self.max_bpm)
        self.min_bpm = finite(self.min_bpm)


class Vox(Reply, kw_only=True):
    """A vocal segment: `vox_audio_id` and the same bounds are what `create_persona` takes."""

    needs: ClassVar[tuple[str, ...]] = ("vox_audio_id",)

    vox_audio_id: str = ""
    status: str | None = None
    source_clip_id: str | None = None
    vocal_start_s: float | None = None
    vocal_end_s: float | None = None
    wave_response: Any = None

    def __post_init__(self) -> None:
        self.vocal_start_s = finite(self.vocal_start_s)
        self.vocal_end_s = finite(self.vocal_end_s)


class UpsampledTags(Reply, kw_only=True):
    """A richer description of a style, for `tags`, in `upsampled_tags`."""

    needs: ClassVar[tuple[str, ...]] = ("upsampled_tags",)

    upsampled_tags: str = ""


class File(Item, kw_only=True):
    """A file: its `format`, such as 'wav', and its `url`."""

    format: str = ""
    url: str = ""


class Files(Reply, kw_only=True):
    """The files of a clip."""

    files: list[File] = msgspec.field(default_factory=list[File])

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self | None:
        """Read a body; None when no file has a link."""
        found = [file for file in read_items(File, find(body, "files")) if file.url]
        return cls(files=found, raw=dict(body)) if found else None

    @property
    def by_format(self) -> dict[str, str]:
        """The link of each format."""
        return {file.format.lower(): file.url for file in self.files}

    def url(self, format: str) -> str | None:
        """The link of one format, or None."""
        return self.by_format.get(format.lower())


class SongMetadata(Reply, kw_only=True):
    """What a share link shows of a song."""

    audio_url: str | None = None
    video_url: str | None = None
    cover_image: str | None = None
    song_title: str | None = None
    song_author: str | None = None
    music_styles: str | None = None


class Credits(Reply, kw_only=True):
    """The account's balance: `credits` of the subscription period, `extra_credits` bought, `total`."""

    credits: float = 0.0
    extra_credits: float = 0.0

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self | None:
        """Read a body; None when it tells of no balance at all, so that none is made up."""
        credits, extra = find(body, "credits"), find(body, "extra_credits")
        if credits is None and extra is None:
            return None
        return cls(credits=amount(credits), extra_credits=amount(extra), raw=dict(body))

    @property
    def total(self) -> float:
        """All credits that can be spent."""
        return self.credits + self.extra_credits
