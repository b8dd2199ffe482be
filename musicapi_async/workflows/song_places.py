"""Where the files of a batch go and what they are called: `01 Title (take 1).mp3`, the same in each run.

A folder has one layout for all its runs. That of an earlier version, whose names end with the clip id, is
continued as it was. Otherwise the name of a clip belongs to it once `details/NAME.json` names the clip; a
name that another clip or another file has gets a number. Of workers that want the same name in the same
moment, on whichever machines, the one has it that makes this file.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from .._transport.audio_tags import FileTags, check_tagging, prompt_of
from .._transport.links import EXTENSIONS, OTHERS, UNKNOWN
from ..api.results import Clip
from ..arguments import check_bools, refused
from ..file_names import NAME_BYTES, check_pattern, fields_of, safe_name
from ..files import BeingWrittenError, make_first, write_whole
from .manifest import Song

FIELDS: Final = ("number", "title", "take", "id", "clip_id")
DEFAULT: Final = "{number} {title} (take {take})"
FORMER: Final = "{title} {clip_id}"
"""The pattern of earlier versions; a folder that they began has their layout, too."""
TITLE_BYTES: Final = 90
"""Bytes of a title in a file name, so that what follows it is whole."""
ID_BYTES: Final = 60
DETAILS: Final = "details"
"""The folder of what belongs to a song and is not to be played: metadata, covers, replies of steps."""
CLAIM_PAUSE: Final = 0.01
CLAIM_READS: Final = 50
"""Seconds between two reads of a file that is empty yet, and most reads: then its writer was killed."""
DIFFERENT: Final = "{clip_id}, or {take} with {number} or {id}, so that each file has a name of its own"


def check_name_pattern(pattern: str) -> None:
    """Raise `RequestValidationError` for a pattern that cannot be filled in, or gives two clips one name."""
    check_pattern(pattern, FIELDS)
    fields = fields_of(pattern)
    if "clip_id" not in fields and not ("take" in fields and fields & {"number", "id"}):
        raise refused("name", f"a pattern with {DIFFERENT}", repr(pattern))


def gets_tags(tags: bool | None) -> bool:
    """Return True if files get tags: as requested, and for None where the library is installed.

    Raises `RequestValidationError` if they are requested without it.
    """
    if tags is not None:
        check_bools(tags=tags)
    is_tagged = tags if tags is not None else find_spec("mutagen") is not None
    if is_tagged:
        check_tagging()
    return is_tagged


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the files of a clip's steps go.

    `root` is the folder of all, `folder` that of audio and MIDI files, and `name` their name without
    extension. `stems` is the folder of stems; `subtitles` and `reply` are paths without extension. `step` is
    part of the names of new clips, or '' where these have their ids. `tags` go into files of audio.
    """

    root: Path
    folder: Path
    name: str
    stems: Path
    subtitles: Path
    reply: Path
    step: str = ""
    tags: FileTags | None = None

    def clip_name(self, clip: Clip, take: int) -> str:
        """Return the name of a clip that a step has made."""
        return f"{self.name} {self.step} {take}" if self.step else former_name(clip)


def former_name(clip: Clip) -> str:
    """Return the name of a clip in the layout of earlier versions."""
    title = safe_name(clip.title or "", TITLE_BYTES)
    return safe_name(FORMER.format(title=title, clip_id=clip.clip_id)) or "clip"


class _Owner(msgspec.Struct):
    """The part of the metadata that says whose they are."""

    clip_id: str = ""


class Layout:
    """The layout of one batch.

    Args:
        out: Its folder.
        pattern: The pattern of names; None for the layout of earlier versions.
        numbers: The numbers of its rows by the ids of their songs, from 1; all, or those that are needed.
        count: How many rows it has.
        tagged: Files get tags.
    """

    def __init__(
        self, out: Path, pattern: str | None, numbers: Mapping[str, int], count: int, *, tagged: bool
    ) -> None:
        self.tagged: Final = tagged
        self._out: Final = out
        self.pattern: Final = pattern
        self._pattern: Final = pattern or FORMER
        self._is_former: Final = pattern is None
        self._numbers: Final = numbers
        self._width: Final = max(2, len(str(count)))

    def claim(self, song: Song, clip: Clip, take: int, about: Mapping[str, Any], before: str = "") -> str:
        """Return the name of a clip, and write its metadata, which make the name its own.

        Args:
            song: The song.
            clip: The clip.
            take: Its place among the clips of the song, from 1.
            about: The metadata, beside what the service says of the clip.
            before: Its name in an earlier run, or ''.
        """
        name = before or self._free_name(song, clip, take)
        owner = {"clip_id": clip.clip_id}
        with suppress(BeingWrittenError):  # by another worker that has the song: its own are as good
            write_whole(self._metadata(name), pretty({**owner, **about, "clip": clip.raw}), private=True)
        return name

    def _free_name(self, song: Song, clip: Clip, take: int) -> str:
        if self._is_former:  # the id makes it different
            return former_name(clip)
        wanted = self._name(song, clip, take)
        names = itertools.chain([wanted], (f"{wanted} {count}" for count in itertools.count(2)))
        return next(name for name in names if self._has(name, clip))

    def _name(self, song: Song, clip: Clip, take: int) -> str:
        fields = {
            "number": f"{self._numbers.get(song.id, song.line):0{self._width}}",
            "take": str(take),
            "id": safe_name(song.id, ID_BYTES),
            "clip_id": safe_name(clip.clip_id, ID_BYTES),
        }
        rest = len(self._pattern.format(**fields, title="").encode())
        title = safe_name(clip.title or song.title, max(0, min(TITLE_BYTES, NAME_BYTES - rest)))
        return safe_name(self._pattern.format(**fields, title=title)) or safe_name(clip.clip_id) or "clip"

    def _has(self, name: str, clip: Clip) -> bool:
        """Return True if the name is that of the clip, from now on if it was free."""
        path = self._metadata(name)
        if not path.exists():
            endings = (*EXTENSIONS, *OTHERS, UNKNOWN)
            if any((self._out / f"{name}.{ending}").exists() for ending in endings):
                return False
            if make_first(path, msgspec.json.encode(_Owner(clip.clip_id))):
                return True
        for _ in range(CLAIM_READS):
            try:
                if data := path.read_bytes():
                    return msgspec.json.decode(data, type=_Owner).clip_id == clip.clip_id
            except (FileNotFoundError, msgspec.MsgspecError, UnicodeError):
                break
            time.sleep(CLAIM_PAUSE)  # another worker makes the name its own in this moment
        return False

    def _metadata(self, name: str) -> Path:
        return (self._out if self._is_former else self._out / DETAILS) / f"{name}.json"

    def cover(self, name: str, clip: Clip) -> tuple[Path, str]:
        """Return the folder and the name of a clip's cover."""
        return (self._out / "covers", clip.clip_id) if self._is_former else (self._out / DETAILS, name)

    def place(self, step: str, name: str, tags: FileTags | None) -> Place:
        """Return where the files of a step of the clip with this name go."""
        out, folder = self._out, self._out / step
        former = self._is_former
        return Place(
            root=out,
            folder=folder,
            name=name,
            stems=folder / name,
            subtitles=(folder if former else out) / name,
            reply=folder / name if former else out / DETAILS / f"{name}.{step}",
            step="" if former else step,
            tags=tags,
        )

    def tags(self, song: Song, cover: bytes) -> FileTags | None:
        """Return the tags of the files of a song; None if they get none."""
        if not self.tagged:
            return None
        return FileTags(
            album=self._out.absolute().name,
            track=self._numbers.get(song.id),
            comment=prompt_of(song.fields),
            cover=cover,
        )


def pretty(value: object) -> bytes:
    """Return JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
