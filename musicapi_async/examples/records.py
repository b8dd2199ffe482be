"""The records of the example service: songs and personas as JSON, in one SQLite file.

Every change gets the next revision. A browser that has revision 17 is sent the later ones, by any process, so
nothing is lost by a restart. Each call is well below a millisecond: it is made in the event loop. A service
with many users would put them into its own database.
"""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

Kind = Literal["song", "persona"]

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, revision INTEGER NOT NULL, fields BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS by_revision ON records (revision);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


class Record(msgspec.Struct, frozen=True):
    """One song or persona as it is now."""

    id: str
    kind: Kind
    revision: int
    fields: dict[str, Any]


class Records:
    """The file. It holds a secret, so only its owner may read it."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        path.chmod(0o600)
        self._database: Final = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing
        self._database.executescript(SCHEMA)
        self.epoch: Final = self.setting("epoch")
        """Distinguishes this file from another one that a browser may remember."""

    def setting(self, name: str) -> str:
        """Return a random text that stays the same for as long as the file exists."""
        self._database.execute(
            "INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, secrets.token_urlsafe(24))
        )
        found = self._database.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return str(found[0])

    def put(self, kind: Kind, record_id: str, fields: dict[str, Any]) -> Record:
        """Write a record, new or changed."""
        row = self._database.execute(
            "INSERT INTO records VALUES (?, ?, (SELECT coalesce(max(revision), 0) + 1 FROM records), ?) "
            "ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, fields = excluded.fields "
            "RETURNING revision",
            (record_id, kind, msgspec.json.encode(fields)),
        ).fetchone()
        return Record(record_id, kind, int(row[0]), fields)

    def get(self, record_id: str) -> Record | None:
        """Return the record with this id, or None."""
        found = self._read("WHERE id = ?", record_id)
        return found[0] if found else None

    def since(self, revision: int, most: int = 200) -> list[Record]:
        """Return the latest `most` changes after `revision`, the oldest first."""
        return self._read("WHERE revision > ? ORDER BY revision DESC LIMIT ?", revision, most)[::-1]

    def songs(self) -> list[Record]:
        """Return all songs."""
        return self._read("WHERE kind = 'song' ORDER BY revision")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _read(self, where: str, *values: object) -> list[Record]:
        query = f"SELECT id, kind, revision, fields FROM records {where}"  # noqa: S608 - `where` is ours
        rows = self._database.execute(query, values)
        return [Record(row[0], row[1], row[2], msgspec.json.decode(row[3])) for row in rows]
