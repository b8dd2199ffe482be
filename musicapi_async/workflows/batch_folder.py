"""The folder of a batch: the records of its songs, and its job store.

out/                        the songs, with their subtitles beside them
out/wav/, out/stems/, ...   audio and MIDI files of the steps
out/details/                metadata and covers of the songs, replies of steps
out/report.html             the report
out/.musicapi/jobs.sqlite   the job store: every paid call, and its state
out/.musicapi/begun         there once the store is: a store that is gone is noticed
out/.musicapi/names.json    the pattern of names; absent in a folder of an earlier version (`song_places`)
out/.musicapi/songs/        one record for each song that is settled
out/.musicapi/workers.json  the batch that workers carry out: its id, and the database that has its jobs
out/.musicapi/prices.json   prices, in credits by operation
out/.musicapi/run.json      the last run: its rows, its times, and why songs are unfinished
out/.musicapi/lock          held while a run is on; names its process
out/.musicapi/budget        held while an MCP server with a budget pays

Folder `.musicapi`, report and metadata can be read by their owner only. Records of earlier versions are read;
one that cannot be is as good as none: the song is settled from the job store again, for free. Prices that
cannot be read are refused, as they say what was spent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from ..errors import FolderError
from ..files import expand, fault_in_words, lock, open_lock, write_whole
from .folder_lock import HOME, unwritable
from .manifest import Song
from .run_record import RowRecord
from .song_places import DEFAULT, FORMER

SONGS: Final = "songs"
"""The folder of the records, in `.musicapi`."""
BUDGET_PAUSE: Final = 0.05
"""Seconds between tries to pay while another process does: a create takes about a second."""

T = TypeVar("T")
RecordState = Literal["done", "failed"]


class StepRecord(msgspec.Struct, kw_only=True):
    """The record of a finished or failed step of a clip.

    `state` is 'done' or 'failed'; `error` is the whole text of the error, `reason` the part of it that is
    equal for all steps that failed for the same reason; `refunded` is the service's report on the credits.
    `files` are paths below the folder, `labels` their names, such as those of stems, `silent` the files in
    which nothing can be heard. `fields` are those of the manifest. Times are Unix times, in seconds.
    """

    name: str
    state: str
    fields: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    task_id: str = ""
    error: str = ""
    reason: str = ""
    refunded: bool | None = None
    files: list[str] = msgspec.field(default_factory=list[str])
    labels: list[str] = msgspec.field(default_factory=list[str])
    silent: list[str] = msgspec.field(default_factory=list[str])
    reply: Any = None
    submitted_at: float = 0.0
    ended_at: float = 0.0
    fetched_at: float = 0.0


class ClipRecord(msgspec.Struct, kw_only=True):
    """A clip of a song, its files and steps.

    `name` is the name of its files without extension; '' in records of earlier versions. `peaks` is its wave
    form, from 0 to 1, if it could be read.
    """

    clip_id: str
    state: str
    name: str = ""
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
    """The record of a finished or failed song.

    `state` is 'done' (perhaps with failed clips or steps) or 'failed'. `error` is the whole text of the
    error, `reason` the part of it that is equal for all songs that failed for the same reason.
    """

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
    """True while the song is not settled: the record is that of the run before, or of what was fetched."""

    @property
    def files(self) -> Iterator[str]:
        """All files of the song, as paths below the folder."""
        for clip in self.clips:
            yield from (name for name in (clip.file, clip.cover) if name)
            for step in clip.steps:
                yield from step.files

    def settles(self, song: Song, *, retry_failed: bool) -> bool:
        """Return True if nothing remains to be made for `song`, including steps that were added since."""
        if self.open or (retry_failed and any(self.faults)):
            return False
        made = [clip for clip in self.clips if not clip.error]
        chosen = made[:1] if song.clips == "first" else made
        wanted = {step.name for step in song.steps}
        return all(wanted <= {step.name for step in clip.steps} for clip in chosen)

    @property
    def failed_steps(self) -> Iterator[tuple[ClipRecord, StepRecord]]:
        """The failed steps, each with its clip."""
        for clip in self.clips:
            yield from ((clip, step) for step in clip.steps if step.state == "failed")

    @property
    def faults(self) -> Iterator[str]:
        """The texts of all errors, one line each."""
        if self.error:
            yield self.error
        for clip in self.clips:
            if clip.error:
                yield f"clip {clip.clip_id}: {clip.error}"
            yield from (f"{step.name} of {clip.clip_id}: {step.error}" for step in clip.steps if step.error)


class SharedBatch(msgspec.Struct, frozen=True):
    """A batch that workers carry out.

    `id` is the beginning of its job keys, `database` the identity of the database that has its jobs, and
    `store` the address of that database for texts.
    """

    id: str
    database: str
    store: str


class _Names(msgspec.Struct, frozen=True):
    pattern: str


_shared_decoder: Final = msgspec.json.Decoder(SharedBatch)
_record_decoder: Final = msgspec.json.Decoder(SongRecord)
_names_decoder: Final = msgspec.json.Decoder(_Names)
_price_decoder: Final = msgspec.json.Decoder(dict[str, Annotated[float, msgspec.Meta(ge=0)]])


def _stored(file: Path, decoder: msgspec.json.Decoder[T], what: str, hint: str) -> T | None:
    """Return what a file holds, None if there is none; `FolderError` with the hint if it cannot be read."""
    try:
        return decoder.decode(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        text = f"{what} cannot be read: {fault_in_words(error)}"
        raise FolderError(text, hint=f"Nothing was sent. {hint}") from error


class BatchFolder:
    """The folder of a batch."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out: Final = expand(out)
        self.home: Final = self.out / HOME
        self.store_path: Final = self.home / "jobs.sqlite"
        self._songs: Final = self.home / SONGS
        self._begun: Final = self.home / "begun"
        self._prices: Final = self.home / "prices.json"
        self._shared: Final = self.home / "workers.json"
        self._names: Final = self.home / "names.json"

    @property
    def name(self) -> str:
        """The name of the batch, which is that of its folder."""
        return self.out.resolve().name or str(self.out)

    def check_store(self) -> None:
        """Raise `FolderError` if the store is gone: without it, everything would be paid for again.

        The same for a folder whose jobs are in a database.
        """
        self.check_not_shared()
        if self._begun.exists() and not self.store_path.exists():
            raise FolderError(
                f"the job store {self.store_path} is gone: it says which songs were paid for",
                hint=f"Nothing was sent. Put it back from a copy, or {self._shared.name} of workers; or "
                "choose another folder, where every song is made and paid for again.",
            )

    def begin(self, pattern: str | None) -> None:
        """Note that the store is there now, and the pattern of names if the folder has none yet."""
        if not self._begun.exists():
            if pattern is not None:
                write_whole(self._names, msgspec.json.encode(_Names(pattern)), private=True)
            write_whole(self._begun, b"", private=True)

    def shared(self) -> SharedBatch | None:
        """Return the batch that workers carry out in the folder; None if they do not.

        Raises `FolderError` if that cannot be read.
        """
        hint = "Put it back from a copy: it says where the jobs of the batch are."
        return _stored(self._shared, _shared_decoder, str(self._shared), hint)

    def share(self, batch: SharedBatch) -> None:
        """Note that workers carry out the batch in the folder."""
        write_whole(self._shared, msgspec.json.encode(batch), private=True)

    def check_not_shared(self) -> None:
        """Raise `FolderError` if workers carry out the batch: its jobs are not in the folder."""
        batch = self.shared()
        if batch is not None:
            raise FolderError(
                f"the batch in {self.out} is carried out by workers: its jobs are in {batch.store}",
                hint="Nothing was sent. Run it with --workers, and see its state with `musicapi batch "
                "report`; or choose another folder.",
            )

    def name_pattern(self, given: str | None) -> str | None:
        """Return the pattern of names: that of the first run, else `given`, else the default one.

        None: the layout of earlier versions. Raises `FolderError` if the first run had another
        pattern than the one that is given: its files have their names already.
        """
        what = f"the pattern of names in {self._names}"
        hint = "Delete the file: names then end with the ids of clips."
        names = _stored(self._names, _names_decoder, what, hint)
        if names is None and not self._begun.exists():
            return given or DEFAULT
        first = None if names is None else names.pattern
        if given is not None and given != (first or FORMER):
            raise FolderError(
                f"the files in {self.out} are named {first or FORMER!r}, which was chosen by the first run",
                hint="Nothing was sent. Leave the pattern out, or choose another folder.",
            )
        return first

    def prices(self) -> dict[str, float]:
        """Return the prices that earlier runs learned or were given.

        Raises `FolderError` if they cannot be read: without them, what was spent would count as nothing.
        """
        hint = "Delete the file: a run with a budget learns the prices again."
        return _stored(self._prices, _price_decoder, f"the prices in {self._prices}", hint) or {}

    def save_prices(self, prices: Mapping[str, float]) -> None:
        """Save all prices that are known."""
        write_whole(self._prices, msgspec.json.encode(prices), private=True)

    @asynccontextmanager
    async def budget_lock(self) -> AsyncGenerator[None]:
        """Within this context no other process that uses it pays: their budget is one.

        Waits while another one holds it; the system frees it when that process dies. Raises `FolderError` if
        the folder cannot be written.
        """
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = open_lock(self.home / "budget")
        except OSError as error:
            raise unwritable(self.out, error) from error
        with file:
            while True:
                try:
                    lock(file)
                except BlockingIOError:
                    await asyncio.sleep(BUDGET_PAUSE)
                    continue
                except OSError as error:
                    raise unwritable(self.out, error) from error
                break
            yield

    def _record_path(self, song_id: str) -> Path:
        # Ids are the user's words and may be any; their digest is a name everywhere.
        return self._songs / f"{hashlib.sha256(song_id.encode()).hexdigest()[:32]}.json"

    def record(self, song: Song | RowRecord) -> SongRecord | None:
        """Return the record of a song; None if there is none, or if a file that it names is gone."""
        record = self._read(self._record_path(song.stored_id))
        if record is None or record.id != song.stored_id:
            return None
        try:
            return record if all((self.out / name).is_file() for name in record.files) else None
        except OSError:
            return None

    def records(self, ids: Iterable[str]) -> Iterator[SongRecord]:
        """Yield the records of these songs, one at a time, however many there are."""
        yield from filter(None, map(self.record_of, ids))

    def record_of(self, stored_id: str) -> SongRecord | None:
        """Return the record of a song by its id in the folder, its files unchecked; None if there is none."""
        return self._read(self._record_path(stored_id))

    def all_records(self) -> list[SongRecord]:
        """Return the records of all songs that the folder ever had, in the order of their lines."""
        found = map(self._read, self._songs.glob("*.json"))
        return sorted(filter(None, found), key=lambda record: record.line)

    @staticmethod
    def _read(path: Path) -> SongRecord | None:
        try:
            return _record_decoder.decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError, ValueError):
            return None

    def save(self, record: SongRecord) -> None:
        """Write the record of a song, whole or not at all."""
        write_whole(self._record_path(record.id), msgspec.json.encode(record), private=True)

    def note(self, song: Song | RowRecord) -> str:
        """Return why a worker has not settled a song, in its words; '' if none has said so."""
        try:
            return self._note_path(song).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def save_note(self, song: Song, why: str) -> None:
        """Write why a worker has not settled a song; '' removes the note."""
        if why:
            write_whole(self._note_path(song), why.encode(errors="replace"), private=True)
        else:
            self._note_path(song).unlink(missing_ok=True)

    def _note_path(self, song: Song | RowRecord) -> Path:
        return self._record_path(song.stored_id).with_suffix(".txt")

    def relative(self, path: Path) -> str:
        """Return a path as records name it: below the folder, with '/'."""
        return path.relative_to(self.out).as_posix()
