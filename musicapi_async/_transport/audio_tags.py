"""Tags in audio files: title, artist, album, track, style, lyrics, cover, and the prompt in a comment.

Tags are written into a copy, which takes the place of the file only when it is whole and still passes the
checks of a download. If that fails, the file is there without tags: the song is worth more than they are.
ID3 version 2.3 is what most players and file managers read; it is written into MP3 and WAV files, and files
of other formats are left as they are. The library is mutagen, the extra `[tags]`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec

from .._wire import media_types
from ..api.results import Clip
from ..api.stems import Stem
from ..arguments import refused
from ..errors import RequestValidationError
from ..extras import require
from ..files import fault_in_words, give_name, open_new, open_old, sync

log: Final = logging.getLogger("musicapi_async")

TAGGED: Final = frozenset({"mp3", "wav"})
"""Formats that get tags."""
ARTIST: Final = "MusicAPI"
"""The artist of songs for which no one names another."""
COVER_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of a cover in a tag. Players read all tags before the first sound."""
COVER_TIME: Final = 15.0
"""Real seconds that a file waits for its cover: a CDN is late by a few, and the file is worth more."""
PICTURES: Final = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"RIFF": "image/webp",
    b"GIF8": "image/gif",
}
"""The types of pictures by their first bytes."""
LANGUAGE: Final = "und"
"""Of lyrics and comments: undetermined (ISO 639-2)."""


PROMPTS: Final = ("gpt_description_prompt", "description", "prompt", "sound", "lyrics")
"""Fields of requests that say what a song was made from."""


class FileTags(msgspec.Struct, frozen=True, kw_only=True):
    """Tags for downloaded files: `client.download(..., tags=FileTags(artist="Rain Band"))`.

    Args:
        artist: by default the artist in the file, else 'MusicAPI'.
        album: by default the name of the folder.
        track: the number of the track; by default the index in the download, from 1.
        comment: by default the prompt.
        cover: the bytes of a picture; by default the cover of the clip is fetched. b"" for no cover.
    """

    artist: str = ""
    album: str = ""
    track: int | None = None
    comment: str = ""
    cover: bytes | None = None


def tags_of(given: object, folder: Path) -> FileTags | None:
    """Return the tags that are wanted of files in a folder; None for no tags.

    Raises `RequestValidationError` for anything else, and without the library.
    """
    if given is False:
        return None
    if given is not True and not isinstance(given, FileTags):
        raise refused("tags", "True, False or a FileTags", f"{given!r:.80}")
    check_tagging()
    tags = FileTags() if given is True else given
    return tags if tags.album else msgspec.structs.replace(tags, album=folder.absolute().name)


def prompt_of(fields: Mapping[str, object]) -> str:
    """Return the text that a song was made from, of the fields of its request."""
    words = (fields.get(name) for name in PROMPTS)
    return next((word for word in words if isinstance(word, str) and word.strip()), "")


def check_tagging() -> None:
    """Raise `RequestValidationError` without the library for tags."""
    try:
        require("Writing tags", "tags")
    except ModuleNotFoundError as error:
        raise RequestValidationError(f"tags: {error}", field="tags") from error


class Tagger(NamedTuple):
    """Writes the tags of one clip into its file."""

    clip: Clip
    tags: FileTags

    def copy(self, file: Path, ending: str) -> os.stat_result | None:
        """Write a copy of a file with the tags beside it, at `tagged_of(file)`, and force it to the disk.

        Args:
            file: The file, which is only read.
            ending: Its format.

        Returns:
            The identity of the copy; None if there is none, because the format gets no tags, or with a
            warning in the log because it could not be written.
        """
        if ending not in TAGGED:
            return None
        target = tagged_of(file)
        try:
            source = open_old(file)
            if source is None:
                raise FileNotFoundError(file)
            with source, open_new(target) as copy:
                shutil.copyfileobj(source, copy)
                self._write(copy, ending)
                written = sync(copy)
            _check_audio(target)
        except Exception as error:  # of a library that reads what a host has sent
            target.unlink(missing_ok=True)
            log.warning("no tags in the file of clip %s: %s", self.clip.clip_id, fault_in_words(error))
            return None
        return written

    def add(self, file: Path) -> None:
        """Write the tags into a finished file, which is replaced as a whole."""
        written = self.copy(file, file.suffix.lower().lstrip("."))
        if written is not None:
            give_name(written, tagged_of(file), file)

    def _write(self, file: BinaryIO, ending: str) -> None:
        file.seek(0)
        if ending == "wav":
            wave = import_module("mutagen.wave").WAVE(file)
            if wave.tags is None:
                wave.add_tags()
            self._fill(wave.tags)
            file.seek(0)
            wave.save(file, v2_version=3)
            return
        id3: Any = import_module("mutagen.id3")
        try:
            tags = id3.ID3(file)
        except id3.ID3NoHeaderError:
            tags = id3.ID3()
        self._fill(tags)
        file.seek(0)
        tags.save(file, v2_version=3)

    def _fill(self, tags: Any) -> None:
        id3: Any = import_module("mutagen.id3")
        clip, given = self.clip, self.tags
        named = f"{clip.title or clip.clip_id} ({clip.name})" if isinstance(clip, Stem) else clip.title
        tags.setall("TIT2", [id3.TIT2(encoding=3, text=named or clip.clip_id)])
        if given.artist or not tags.getall("TPE1"):
            artist = given.artist or clip.raw.get("artist")
            tags.setall("TPE1", [id3.TPE1(encoding=3, text=artist if isinstance(artist, str) else ARTIST)])
        if given.album:
            tags.setall("TALB", [id3.TALB(encoding=3, text=given.album)])
        if given.track is not None:
            tags.setall("TRCK", [id3.TRCK(encoding=3, text=str(given.track))])
        if clip.tags:
            tags.setall("TCON", [id3.TCON(encoding=3, text=clip.tags)])
        if clip.lyrics:
            tags.setall("USLT", [id3.USLT(encoding=3, lang=LANGUAGE, desc="", text=clip.lyrics)])
        if comment := given.comment or clip.gpt_description_prompt or clip.lyrics:
            tags.setall("COMM", [id3.COMM(encoding=3, lang=LANGUAGE, desc="", text=comment)])
        cover = given.cover or b""
        mime = next((mime for head, mime in PICTURES.items() if cover.startswith(head)), "")
        if mime and len(cover) <= COVER_LIMIT:
            tags.setall("APIC", [id3.APIC(encoding=3, mime=mime, type=3, desc="Cover", data=cover)])
        tags.update_to_v23()


def reader_of(file: BinaryIO) -> media_types.Read:
    """Return a function that reads a part of a file."""

    def read(at: int, count: int) -> bytes:
        file.seek(at)
        return file.read(count)

    return read


def _check_audio(file: Path) -> None:
    """Raise `ValueError` for a file that is no whole file of audio."""
    with file.open("rb") as opened:
        read, size = reader_of(opened), opened.seek(0, 2)
        kind = media_types.kind_of(read, size)
        if fault := media_types.fault_of(kind, read, size) if kind else "no audio":
            raise ValueError(fault)


def tagged_of(file: Path) -> Path:
    """Return the path of the copy with tags, before it takes the place of the file."""
    return file.with_name(f"{file.name.removesuffix('.part')}.tagged.part")


def has_album(file: Path) -> bool:
    """Return True if a file has an album in its tags, so that they are as someone wants them."""
    mutagen: Any = import_module("mutagen")
    try:
        found = mutagen.File(file)
    except (mutagen.MutagenError, OSError):
        return True
    return found is None or (found.tags is not None and "TALB" in found.tags)
