"""The picks that the page of a batch exports, and a folder with copies of the chosen takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from ..errors import FolderError, RequestValidationError
from ..files import expand, replacing, same_bytes
from .batch_folder import BatchFolder, ClipRecord
from .manifest import STEP_NAMES
from .run_record import read_run

PICKS_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of a file of picks; a hundred thousand takes."""
SUBTITLES: Final = "aligned_lyrics"
"""The operation whose files are copied with a take."""


class Pick(msgspec.Struct, frozen=True, kw_only=True):
    """A decision on a take: 0 to 5 stars, and to keep or drop it."""

    clip_id: str
    stars: int = 0
    choice: Literal["keep", "drop", ""] = ""


class Picks(msgspec.Struct, frozen=True, kw_only=True):
    """The picks of a batch, as its page exports them in JSON; other fields are for people."""

    picks: list[Pick]


_decoder: Final = msgspec.json.Decoder(Picks)


def read_picks(path: str | os.PathLike[str]) -> Picks:
    """Read picks that a page has exported.

    Raises `RequestValidationError` for another file, and `OSError`.
    """
    with expand(path).open("rb") as file:
        data = file.read(PICKS_LIMIT + 1)
    try:
        if len(data) > PICKS_LIMIT:
            raise ValueError(f"the file is larger than {PICKS_LIMIT} bytes")
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RequestValidationError(
            f"picks: {os.fspath(path)!r} is no file of picks: {error}",
            field="picks",
            hint="Take the JSON that the page of the batch exports.",
        ) from error


def copy_picks(
    out: str | os.PathLike[str], picks: str | os.PathLike[str], to: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Copy the takes to keep into a folder, with their subtitles. Free, sends nothing, may be repeated.

    Args:
        out: The folder of the batch.
        picks: The JSON file that its page exported.
        to: The folder for the copies, which is created if it is missing; by default `picks` in the folder of
            the batch. No file there is overwritten: if a file of the same name has another content, the copy
            gets a number.

    Returns:
        The copies of the audio files, in the order of the batch.

    Raises:
        RequestValidationError: The file has no picks, none of them says 'keep', or one names no take of this
            batch; nothing was copied.
        FolderError: A file of a take is missing, or the copies cannot be written.
        OSError: The file of picks cannot be read.
    """
    folder = BatchFolder(out)
    chosen = read_picks(picks)
    keep = {pick.clip_id for pick in chosen.picks if pick.choice == "keep"}
    if not keep:
        raise RequestValidationError(
            "picks: no take is marked to keep", field="picks", hint="Press f, or Keep, on the page."
        )
    found = {clip.clip_id: clip for clip in _clips(folder) if clip.clip_id in keep and clip.file}
    if missing := sorted(keep - found.keys()):
        raise RequestValidationError(
            f"picks: {len(missing)} of {len(keep)} takes are not in {folder.out}: {', '.join(missing[:3])}",
            field="picks",
            hint="Name the folder of the batch whose page exported the picks.",
        )
    target = expand(to) if to is not None else folder.out / "picks"
    try:
        copies = [_copy(folder.out, clip, target) for clip in found.values()]
    except OSError as error:
        reason = error.strerror or error
        raise FolderError(f"could not copy {error.filename or 'a take'} to {target}: {reason}") from error
    return copies


def _clips(folder: BatchFolder) -> Iterator[ClipRecord]:
    """Yield all clips of a batch, in the order of its rows."""
    run = read_run(folder.out)
    ids = [row.stored_id for row in run.rows] if run is not None else []
    for record in folder.records(ids) if run is not None else folder.all_records():
        yield from record.clips


def _copy(out: Path, clip: ClipRecord, target: Path) -> Path:
    """Copy a take and its subtitles, all under one name; return the copy of the audio."""
    source = out / clip.file
    extras = {
        Path(name).suffix: out / name
        for step in clip.steps
        if STEP_NAMES.get(step.name, step.name) == SUBTITLES
        for name in step.files
    }
    name, number = source.stem, 2
    while not _is_free(source, target / f"{name}{source.suffix}"):
        name, number = f"{source.stem} {number}", number + 1
    copied = target / f"{name}{source.suffix}"
    for suffix, file in {source.suffix: source, **extras}.items():
        place = target / f"{name}{suffix}"
        if not (place.exists() and same_bytes(file, place)):
            with file.open("rb") as original, replacing(place) as copy:
                shutil.copyfileobj(original, copy)
    return copied


def _is_free(source: Path, place: Path) -> bool:
    """Return True if a file can have this name: no other has it, or one with the same content."""
    return not os.path.lexists(place) or (place.is_file() and same_bytes(source, place))
