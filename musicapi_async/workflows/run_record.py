"""The record of the last run on the folder of a batch: its rows, when it ran, and why songs are unfinished.

The page is made from it, from the records of the songs and from the job store, so that it can be written at
any time without the manifest.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Container
from pathlib import Path
from typing import Final

import msgspec

from ..api.account import credits_text
from ..files import write_whole
from .folder_lock import HOME
from .manifest import Manifest

RUN_FILE: Final = "run.json"
"""The file of the record, in `.musicapi`."""


class RowRecord(msgspec.Struct, frozen=True):
    """A row of the manifest: `id` is that of the user, `stored_id` that in the folder.

    `is_named` is True if the manifest gives the id.
    """

    id: str
    stored_id: str
    line: int
    title: str
    operation: str
    model: str = ""
    is_named: bool = True


class RunRecord(msgspec.Struct, kw_only=True):
    """The last run on a folder.

    `batch_id` distinguishes this folder from others, for the picks that a browser stores. `source` is the
    manifest as it was named. Times are Unix times; `ended_at` is 0 while a run is on, and after a kill.
    `unfinished` maps ids to why the next run continues them, `halted` is why submitting stopped, or ''.
    `budget` is in credits, None without one. `job_prefix` begins the job keys of a batch that workers carry
    out; '' for any other.
    """

    batch_id: str
    source: str
    rows: list[RowRecord]
    started_at: float = 0.0
    ended_at: float = 0.0
    unfinished: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    halted: str = ""
    budget: float | None = None
    job_prefix: str = ""

    @classmethod
    def begin(cls, manifest: Manifest, out: Path, now: float) -> RunRecord:
        """Return the record of a run that begins, with the id that the folder has or a new one."""
        former = read_run(out)
        rows = [
            RowRecord(
                song.id,
                song.stored_id,
                song.line,
                song.title.strip() or song.id,
                f"{song.family}.{song.operation}",
                str(song.fields.get("mv") or ""),
                song.is_named,
            )
            for song in manifest.songs
        ]
        batch_id = former.batch_id if former is not None else os.urandom(8).hex()
        return cls(batch_id=batch_id, source=manifest.source, rows=rows, started_at=now)

    def command(self, out: Path) -> str:
        """Return the command that continues the batch in a folder, within the budget of the run."""
        source = "-" if self.source == "standard input" else shlex.quote(self.source)
        budget = "" if self.budget is None else f" --budget {credits_text(self.budget)}"
        workers = " --workers" if self.job_prefix else ""
        return f"musicapi batch run {source} --out {shlex.quote(str(out))}{budget}{workers}"

    def save(self, out: Path) -> None:
        """Write the record, whole or not at all, for the owner only."""
        write_whole(out / HOME / RUN_FILE, msgspec.json.encode(self), private=True)


_decoder: Final = msgspec.json.Decoder(RunRecord)


def read_run(out: Path) -> RunRecord | None:
    """Return the record of the last run on a folder; None in folders of earlier versions."""
    try:
        return _decoder.decode((out / HOME / RUN_FILE).read_bytes())
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


def song_id_of(job_key: str, ids: Container[str], prefix: str) -> str:
    """Return the id in the folder of the song that a job is of, be it the song itself or one of its steps.

    Args:
        job_key: The key of the job.
        ids: The ids of all songs.
        prefix: The `job_prefix` of the run.
    """
    job_key = job_key.removeprefix(prefix)
    song_id = job_key.rpartition("/")[0]
    return song_id if song_id in ids else job_key.rsplit("/", 3)[0]


def date_text(at: float) -> str:
    """Return a Unix time for people, in the time zone of this machine; '' for none."""
    if at <= 0:
        return ""
    local = time.localtime(at)
    return f"{local.tm_mday} {time.strftime('%B %Y, %H:%M', local)}"
