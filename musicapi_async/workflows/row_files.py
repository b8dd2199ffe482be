"""Local files in the rows of a manifest, and the errors of those that cannot be published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..api.local_files import local_files
from ..api.request import PUBLIC_LINK, PUBLISH, picture
from ..errors import RequestValidationError, Violation
from .manifest import Manifest, Song, operation_of, refuse_rows
from .manifest_formats import RowFault


def files_of(song: Song) -> dict[str, Path]:
    """Return the local files of a song by field."""
    operation = operation_of(song)
    return local_files(operation.request(**song.fields), operation.links) if operation.links else {}


def check_no_files(manifest: Manifest) -> None:
    """Raise `RequestValidationError` for local files, which need an `uploader`, by their lines."""
    faults = [
        (song.line, Violation(name, PUBLIC_LINK, picture(song.fields[name])))
        for song in manifest.songs
        for name in files_of(song)
    ]
    if faults:
        raise refuse_rows(manifest.source, faults, PUBLISH)


def no_such_files(manifest: Manifest, missing: Iterable[tuple[Song, str]]) -> RequestValidationError:
    """Return the error for local files that are not there, by songs and fields."""
    faults: list[tuple[int, Violation]] = []
    for song, name in missing:
        path = song.fields[name]
        text = f"{name}: there is no file {path!r}, and it is no public link"
        faults.append((song.line, RowFault(name, "a public link or a local file", picture(path), text)))
    return refuse_rows(manifest.source, faults)
