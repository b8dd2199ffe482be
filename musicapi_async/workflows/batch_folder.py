"""The folder of a batch: the records of its songs, the job store, and the lock of the run that holds it.

out/                        finished files, each with its metadata (.json) beside it
out/covers/, out/wav/, ...  covers, and the files of the steps
out/report.html             the report
out/.musicapi/jobs.sqlite   the job store: every paid call, and its state
out/.musicapi/begun         there once the store is: a store that is gone is noticed
out/.musicapi/songs/        one record for each song that is settled
out/.musicapi/prices.json   prices, in credits by operation
out/.musicapi/lock          held while a run is on; names its process

Folder `.musicapi`, report and metadata can be read by their owner only. Records of earlier versions are read;
one that cannot be is as good as none: the song is settled from the job store again, for free.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec

from ..errors import BatchError
from ..files import expand, lock, open_lock, write_whole
from ..jobs import Owner
from ..jobs.owner import is_alive, this_process
from .manifest import Song

HOME: Final = ".musicapi"
OWNER_AT: Final = 1
"""Byte of the lock file where its owner is written. Windows locks the first byte against reading, too."""
OWNER_BYTES: Final = 4096
OWNER_PATIENCE: Final = 0.5
"""Real seconds in which a run that has just taken the lock writes who it is."""

RecordState = Literal["done", "failed"]


class StepRecord(msgspec.Struct, kw_only=True):
    """What a step gave. `state` is 'done' or 'failed'; `error` is the whole text of what went wrong, `reason`
    its core, the same for all steps that failed alike; `files` are paths below the folder. Times are Unix
    times: submitted, ended, and with its files fetched."""

    name: str
    state: str
    task_id: str = ""
    error: str = ""
    reason: str = ""
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
    """A song as it was settled: `state` is 'done' (perhaps with failed clips or steps) or 'failed'. `error`
    is the whole text of what went wrong, `reason` its core, the same for all songs that failed alike."""

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
    """True while the song is not settled: this is what was known before a run took it up, or what a run could
    fetch of it."""

    @property
    def files(self) -> Iterator[str]:
        """All its files, as paths below the folder."""
        for clip in self.clips:
            yield from (name for name in (clip.file, clip.cover) if name)
            for step in clip.steps:
                yield from step.files

    @property
    def failed_steps(self) -> Iterator[tuple[ClipRecord, StepRecord]]:
        """The steps that failed, each with its clip."""
        for clip in self.clips:
            yield from ((clip, step) for step in clip.steps if step.state == "failed")

    @property
    def faults(self) -> Iterator[str]:
        """What went wrong, one line each."""
        if self.error:
            yield self.error
        for clip in self.clips:
            if clip.error:
                yield f"clip {clip.clip_id}: {clip.error}"
            yield from (f"{step.name} of {clip.clip_id}: {step.error}" for step in clip.steps if step.error)


_record_decoder: Final = msgspec.json.Decoder(SongRecord)
_owner_decoder: Final = msgspec.json.Decoder(Owner)


class BatchFolder:
    """The folder of a batch."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out: Final = expand(out)
        self.home: Final = self.out / HOME
        self.store_path: Final = self.home / "jobs.sqlite"
        self._songs: Final = self.home / "songs"
        self._begun: Final = self.home / "begun"
        self._prices: Final = self.home / "prices.json"

    # --- the run that holds it -----------------------------------------------------------------------------

    def make(self) -> None:
        """Make the folder, or raise `BatchError`."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            for private in (self.home, self._songs):
                private.mkdir(mode=0o700, exist_ok=True)
            if os.name == "posix" and self.home.stat().st_mode & 0o077:
                with contextlib.suppress(PermissionError):  # another user's, who lets this one write
                    for private in (self.home, self._songs):  # of an earlier version, which left them open
                        private.chmod(0o700)
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
        """Hold the folder. The system frees it when the process dies.

        Raises `BatchError`, which names the process, if another run holds it.
        """
        self.make()
        with self._open_lock() as file:
            try:
                lock(file)
            except BlockingIOError as error:
                raise self._held(file) from error
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                file.truncate(OWNER_AT)
                file.seek(OWNER_AT)
                file.write(msgspec.json.encode(this_process("")))
                file.flush()
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    file.truncate(OWNER_AT)

    def _held(self, file: BinaryIO) -> BatchError:
        owner = self._owner(file)
        process = f" (process {owner.pid} on {owner.host})" if owner is not None else ""
        return BatchError(
            f"another run holds the folder {self.out}{process}",
            hint="Nothing was sent. Wait for it, or stop it; or choose another folder with --out.",
        )

    @staticmethod
    def _owner(file: BinaryIO) -> Owner | None:
        """Return the process that holds the lock; None if it does not say so in time."""
        end = time.monotonic() + OWNER_PATIENCE
        while True:
            try:
                file.seek(OWNER_AT)
                owner = _owner_decoder.decode(file.read(OWNER_BYTES))
            except (OSError, msgspec.MsgspecError, ValueError):
                owner = None
            if owner is not None and is_alive(owner) is not False:  # else that of a run that was killed
                return owner
            if time.monotonic() > end:
                return None
            time.sleep(OWNER_PATIENCE / 20)

    # --- the job store -------------------------------------------------------------------------------------

    def check_store(self) -> None:
        """Raise `BatchError` if the store is gone: without it, everything would be paid for again."""
        if self._begun.exists() and not self.store_path.exists():
            raise BatchError(
                f"the job store {self.store_path} is gone: it says which songs were paid for",
                hint="Nothing was sent. Put it back from a copy; or choose another folder, where every song "
                "is made and paid for again.",
            )

    def begin(self) -> None:
        """Note that the store is there now."""
        if not self._begun.exists():
            write_whole(self._begun, b"", private=True)

    def prices(self) -> dict[str, float]:
        """Return the prices that earlier runs learned or were given."""
        try:
            return msgspec.json.decode(self._prices.read_bytes(), type=dict[str, float])
        except (OSError, msgspec.MsgspecError, ValueError):
            return {}

    def save_prices(self, prices: Mapping[str, float]) -> None:
        """Save all prices that are known."""
        write_whole(self._prices, msgspec.json.encode(prices), private=True)

    # --- records -------------------------------------------------------------------------------------------

    def _record_path(self, song_id: str) -> Path:
        # Ids are the user's words and may be any; their digest is a name everywhere.
        return self._songs / f"{hashlib.sha256(song_id.encode()).hexdigest()[:32]}.json"

    def record(self, song: Song) -> SongRecord | None:
        """Return the record of a song; None if there is none, or if a file that it names is gone."""
        record = self._read(self._record_path(song.id))
        if record is None or record.id != song.id:
            return None
        try:
            return record if all((self.out / name).is_file() for name in record.files) else None
        except OSError:
            return None

    def records(self, ids: Iterable[str]) -> Iterator[SongRecord]:
        """Yield the records of these songs, one at a time, however many there are."""
        for song_id in ids:
            record = self._read(self._record_path(song_id))
            if record is not None:
                yield record

    @staticmethod
    def _read(path: Path) -> SongRecord | None:
        try:
            return _record_decoder.decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError, ValueError):
            return None

    def save(self, record: SongRecord) -> None:
        """Write the record of a song, whole or not at all."""
        write_whole(self._record_path(record.id), msgspec.json.encode(record), private=True)

    def relative(self, path: Path) -> str:
        """Return a path as records name it: below the folder, with '/'."""
        return path.relative_to(self.out).as_posix()
