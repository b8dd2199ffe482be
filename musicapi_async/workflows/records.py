"""What became of each song, and the folder where that is kept.

out/                        finished files, each with its metadata (.json) beside it
out/covers/, out/wav/, ...  covers, and what the steps gave
out/report.html             the report
out/.musicapi/jobs.sqlite   the store: what was sent and paid for
out/.musicapi/begun         there once the store is: a store that is gone is noticed
out/.musicapi/songs/        one record for each song that is settled
out/.musicapi/lock          held while a run is on
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec

from ..errors import BatchError
from ..files import expand, lock, open_lock, write_whole
from .manifest import Song

HOME: Final = ".musicapi"

RecordState = Literal["done", "failed"]


class StepRecord(msgspec.Struct, kw_only=True):
    """What a step gave. `state` is 'done' or 'failed'; `files` are paths below the folder. Times are Unix
    times: submitted, ended, and with its files fetched."""

    name: str
    state: str
    task_id: str = ""
    error: str = ""
    files: list[str] = msgspec.field(default_factory=list[str])
    reply: Any = None
    submitted_at: float = 0.0
    ended_at: float = 0.0
    fetched_at: float = 0.0


class ClipRecord(msgspec.Struct, kw_only=True):
    """A clip of a song, its files and steps. `peaks` is its wave form, 0 to 1, where it could be read."""

    clip_id: str
    state: str
    title: str = ""
    tags: str = ""
    lyrics: str = ""
    duration: float | None = None
    error: str = ""
    file: str = ""
    cover: str = ""
    peaks: list[float] = msgspec.field(default_factory=list[float])
    steps: list[StepRecord] = msgspec.field(default_factory=list[StepRecord])


class SongRecord(msgspec.Struct, kw_only=True):
    """What became of a song: `state` is 'done' (perhaps with failed clips or steps) or 'failed'. `error` is
    the whole text of what went wrong, `reason` its core, the same for all songs that failed alike."""

    id: str
    line: int
    operation: str
    title: str
    fields: dict[str, Any]
    state: RecordState
    task_id: str = ""
    error: str = ""
    reason: str = ""
    refunded: bool | None = None
    clips: list[ClipRecord] = msgspec.field(default_factory=list[ClipRecord])
    queued_at: float = 0.0
    submitted_at: float = 0.0
    ended_at: float = 0.0
    fetched_at: float = 0.0
    open: bool = False
    """Whether the song was taken up again, so that this is what was known before."""

    @property
    def files(self) -> Iterator[str]:
        """All its files, as paths below the folder."""
        for clip in self.clips:
            yield from (name for name in (clip.file, clip.cover) if name)
            for step in clip.steps:
                yield from step.files

    @property
    def faults(self) -> Iterator[str]:
        """What went wrong, one line each."""
        if self.error:
            yield self.error
        for clip in self.clips:
            if clip.error:
                yield f"clip {clip.clip_id}: {clip.error}"
            yield from (f"{step.name} of {clip.clip_id}: {step.error}" for step in clip.steps if step.error)


_decoder: Final = msgspec.json.Decoder(SongRecord)


class Folder:
    """The folder of a batch."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out: Final = expand(out)
        self.home: Final = self.out / HOME
        self.store_path: Final = self.home / "jobs.sqlite"
        self._songs: Final = self.home / "songs"
        self._begun: Final = self.home / "begun"

    def make(self) -> None:
        """Make the folder, or raise `BatchError`."""
        try:
            self._songs.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.home).close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> BatchError:
        return BatchError(
            f"the folder {self.out} cannot be written: {error.strerror or error}",
            hint="Nothing was sent. Choose another folder with --out.",
        )

    def _open_lock(self) -> BinaryIO:
        try:
            return open_lock(self.home / "lock")
        except OSError as error:
            raise self._unwritable(error) from error

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Hold the folder; `BatchError` if another run does. The system frees it when the process dies."""
        self.make()
        with self._open_lock() as file:
            try:
                lock(file)
            except OSError as error:
                raise BatchError(
                    f"another run is working on {self.out}",
                    hint="Wait for it, or stop it; or choose another folder.",
                ) from error
            yield

    def check_store(self) -> None:
        """Raise `BatchError` if the store is gone: without it, everything would be paid for again."""
        if self._begun.exists() and not self.store_path.exists():
            raise BatchError(
                f"the job store {self.store_path} is gone: it says which songs were paid for",
                hint="Nothing was sent. Put it back from a copy; or choose another folder, where every song "
                "is made and paid for anew.",
            )

    def begin(self) -> None:
        """Note that the store is there now."""
        if not self._begun.exists():
            write_whole(self._begun, b"")

    def _record_path(self, song_id: str) -> Path:
        # Ids are the user's words and may be any; their digest is a name everywhere.
        return self._songs / f"{hashlib.sha256(song_id.encode()).hexdigest()[:32]}.json"

    def record(self, song: Song) -> SongRecord | None:
        """The record of a song; None if there is none, or if a file that it names is gone."""
        record = self._read(self._record_path(song.id))
        if record is None or record.id != song.id:
            return None
        try:
            return record if all((self.out / name).is_file() for name in record.files) else None
        except OSError:
            return None

    def records(self, ids: Iterator[str]) -> Iterator[SongRecord]:
        """The records of these songs, one at a time, however many there are."""
        for song_id in ids:
            record = self._read(self._record_path(song_id))
            if record is not None:
                yield record

    @staticmethod
    def _read(path: Path) -> SongRecord | None:
        try:
            return _decoder.decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError, ValueError):
            return None  # a record only saves work: without it, the song is looked at again, for free

    def keep(self, record: SongRecord) -> None:
        """Write the record of a song, whole or not at all."""
        write_whole(self._record_path(record.id), msgspec.json.encode(record))

    def relative(self, path: Path) -> str:
        """A path as it stands in records: below the folder, with '/'."""
        return path.relative_to(self.out).as_posix()
