"""The state of a sandbox in a file: what a restart, or `kill -9`, must not take.

Tasks, clips, personas, the balance and the journal are in one SQLite file, written in one transaction before
the response of each request leaves; a write is never synced, as it has to outlive the process, not the
machine. While the sandbox is down its time continues. Each run draws ids of its own, so none is repeated.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_type_hints
from weakref import WeakKeyDictionary

import msgspec

from .backend import Service
from .journal import Entry
from .ordered_tasks import OrderedClip, OrderedTask, StoredPersona, StoredVox
from .recipes import Recipe, UploadedFile

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VERSION: Final = 1
"""The layout of the file; another one is refused."""

APPLICATION: Final = 0x6D736278
"""SQLite's `application_id` of such a file: "msbx"."""

SCHEMA: Final = """
CREATE TABLE items (store TEXT, key TEXT, place INTEGER, data BLOB, PRIMARY KEY (store, key)) WITHOUT ROWID;
CREATE TABLE journal (number INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE recipes (id INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE uploads (id INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE sandbox (one INTEGER PRIMARY KEY CHECK (one = 1), data BLOB);
"""

PUT: Final = "INSERT INTO items VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET data = excluded.data"


class StateError(ValueError):
    """The file of a state cannot be used; the text names it and says why."""


class _Account(msgspec.Struct):
    """The one row of `sandbox`."""

    run: int = 0
    """How many times the state was opened before; each run draws other ids."""
    now: float = 0.0
    saved: float = 0.0
    """The moment of the last write: API seconds, and seconds since 1970."""
    forwards: list[tuple[float, float]] = []
    credits: float = 0.0
    extra_credits: float = 0.0
    subscription: bool = True
    last: int = 0
    """The number of the newest entry of the journal."""
    token: str = ""
    """The token of the control, so that what uses it need not ask after a restart."""


def _row_type(declared: type[DataclassInstance], **references: object) -> type[msgspec.Struct]:
    """Return a struct with the fields of a dataclass; of those that refer to others, with other types."""
    hints: Mapping[str, object] = get_type_hints(declared) | references
    return msgspec.defstruct(
        f"_{declared.__name__}", [(f.name, hints[f.name]) for f in dataclasses.fields(declared)]
    )


_RECIPE: Final = _row_type(Recipe, sources=tuple[int, ...], tape=int | None)
_CLIP: Final = _row_type(OrderedClip, recipe=int, stem_source=str | None, extends=tuple[int, float] | None)
_TASK: Final = _row_type(OrderedTask, entry=int, clips=list[str], pairs=list[tuple[str, str]])

_PLAIN: Final = {"persona": StoredPersona, "vox": StoredVox, "requested": float, "batch": tuple[str, ...]}
"""The types of what refers to nothing else, or by ids only."""


class State:
    """The file of one sandbox, open and locked as long as the sandbox runs.

    `token` is that of the control: the given one, else that of the run before, else a new one.
    """

    def __init__(self, path: Path, service: Service, token: str | None) -> None:
        self._path = path
        self.token: str = token or ""
        self._service = service
        self._recipes: WeakKeyDictionary[Recipe, int] = WeakKeyDictionary()
        self._uploads: WeakKeyDictionary[UploadedFile, int] = WeakKeyDictionary()
        self._new: list[Recipe | UploadedFile] = []
        """What the current transaction gave an id."""
        self._run: int | None = None
        self._database: sqlite3.Connection | None = None
        self._stores: Final[Mapping[str, Any]] = {
            "clip": service.clips,
            "task": service.tasks,
            "persona": service.personas,
            "vox": service.voxes,
            "requested": service.requested,
            "batch": service.batches,
        }

    def open(self) -> None:
        """Open the file, and read the state from it if this process has not yet.

        Raises:
            StateError: if it is no such file, is damaged, is in use by another sandbox, or cannot be written.
        """
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = sqlite3.connect(self._path, isolation_level=None, timeout=0.5)
        except (OSError, ValueError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StateError(f"the state {str(self._path)!r} cannot be opened: {reason}") from error
        try:
            self._prepare(database)
            self._database = database
            if self._run is None:
                self._load()
            elif self._account().run != self._run:
                raise StateError(f"the state {str(self._path)!r} was used by another sandbox in between")
        except (sqlite3.Error, msgspec.MsgspecError, KeyError, TypeError) as error:
            self._give_up(database)
            busy = "locked" in str(error)
            why = "it is in use by another sandbox" if busy else f"it is no state, or is damaged ({error})"
            raise StateError(f"the state {str(self._path)!r} cannot be used: {why}") from error
        except StateError:
            self._give_up(database)
            raise

    def _give_up(self, database: sqlite3.Connection) -> None:
        self._database = None
        database.close()

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        (known,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (tables and known != APPLICATION) or version not in (0, VERSION):
            raise StateError(f"{str(self._path)!r} is no state of this version of the sandbox")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN IMMEDIATE")
        if not tables:
            for statement in SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION}")
            database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")

    def close(self) -> None:
        """Write what is not written yet, and close the file."""
        if self._database is not None:
            self.save()
            self._give_up(self._database)

    @property
    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            raise RuntimeError("the state is not open")
        return self._database

    def save(self) -> None:
        """Write all changes in one transaction; nothing if the file is closed. Takes about 0.1 ms.

        Raises `sqlite3.Error` if it cannot be written, as on a full disk; the changes are written later then.
        """
        if self._database is None:
            return
        database, now = self._database, self._service.now()
        self._service.account.settle(now)  # so that refunds up to now are in the balance that is written
        database.execute("BEGIN IMMEDIATE")
        try:
            self._save_changes(database, now)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            for item in self._new:
                if isinstance(item, Recipe):
                    self._recipes.pop(item, None)
                else:
                    self._uploads.pop(item, None)
            raise
        finally:
            self._new.clear()
        for store in self._stores.values():
            store.written()
        self._service.journal.written()
        self._service.emptied.clear()

    def _save_changes(self, database: sqlite3.Connection, now: float) -> None:
        service = self._service
        for file in service.emptied:
            database.execute("UPDATE uploads SET data = x'' WHERE id = ?", (self._uploads.get(file),))
        for name, store in self._stores.items():
            for key, item in store.changes():
                if item is None:
                    database.execute("DELETE FROM items WHERE store = ? AND key = ?", (name, key))
                else:
                    database.execute(PUT, (name, key, store.place, self._encoded(database, item)))
        changed, first = service.journal.changes()
        for entry in changed:
            data = msgspec.msgpack.encode(entry)
            database.execute("INSERT OR REPLACE INTO journal VALUES (?, ?)", (entry.number, data))
        if first is not None:
            database.execute("DELETE FROM journal WHERE number < ?", (first,))
        self._save_account(database, now)

    def _save_account(self, database: sqlite3.Connection, now: float) -> None:
        service, account = self._service, self._service.account
        row = _Account(
            run=self._run or 0,
            now=now,
            saved=time.time(),
            forwards=service.time.forwards,
            credits=account.credits,
            extra_credits=account.extra_credits,
            subscription=account.subscription,
            last=service.journal.last,
            token=self.token,
        )
        database.execute("INSERT OR REPLACE INTO sandbox VALUES (1, ?)", (msgspec.msgpack.encode(row),))

    def _encoded(self, database: sqlite3.Connection, item: object) -> bytes:
        """Return an item as bytes; what it refers to is written before, or named by its key."""
        if isinstance(item, OrderedClip):
            extends = item.extends
            return _encoded(
                item,
                recipe=self._recipe_id(database, item.recipe),
                stem_source=None if item.stem_source is None else item.stem_source.clip_id,
                extends=None if extends is None else (self._recipe_id(database, extends[0]), extends[1]),
            )
        if isinstance(item, OrderedTask):
            return _encoded(
                item,
                entry=item.entry.number,
                clips=[clip.clip_id for clip in item.clips],
                pairs=[(part.clip_id, full.clip_id) for part, full in item.pairs],
            )
        return msgspec.msgpack.encode(item)

    def _recipe_id(self, database: sqlite3.Connection, recipe: Recipe) -> int:
        known = self._recipes.get(recipe)
        if known is not None:
            return known
        tape = None if recipe.tape is None else self._upload_id(database, recipe.tape)
        sources = [self._recipe_id(database, source) for source in recipe.sources]
        data = _encoded(recipe, sources=sources, tape=tape)
        made = _inserted(database, "INSERT INTO recipes (data) VALUES (?)", data)
        self._new.append(recipe)
        return self._recipes.setdefault(recipe, made)

    def _upload_id(self, database: sqlite3.Connection, file: UploadedFile) -> int:
        known = self._uploads.get(file)
        if known is not None:
            return known
        made = _inserted(database, "INSERT INTO uploads (data) VALUES (?)", file.data)
        self._new.append(file)
        return self._uploads.setdefault(file, made)

    def _account(self) -> _Account:
        row = self._open.execute("SELECT data FROM sandbox").fetchone()
        return _Account() if row is None else msgspec.msgpack.decode(row[0], type=_Account)

    def _load(self) -> None:
        """Read everything into the service, which is new."""
        service = self._service
        first = self._open.execute("SELECT count(*) FROM sandbox").fetchone() == (0,)
        account = self._account()
        self._run = account.run + 1
        self.token = self.token or account.token or secrets.token_urlsafe(16)
        if not first:
            service.continue_run(self._run)
            elapsed = max(0.0, time.time() - account.saved) * service.time.clock.speed
            service.time.resume(account.now + elapsed, account.forwards)
            service.account.credits = account.credits
            service.account.extra_credits = account.extra_credits
            service.account.subscription = account.subscription
            entries = self._load_journal(account.last)
            self._load_clips(self._load_recipes())
            self._drop_recipes()
            self._load_tasks(entries, account.now)
            for name, kind in _PLAIN.items():
                for key, data in self._items(name):
                    self._stores[name].put(key, msgspec.msgpack.decode(data, type=kind))
        for store in self._stores.values():
            store.track()
        service.journal.track()
        self.save()

    def _items(self, name: str) -> Iterator[tuple[str, bytes]]:
        query = "SELECT key, data FROM items WHERE store = ? ORDER BY place"
        yield from self._open.execute(query, (name,))

    def _load_journal(self, last: int) -> dict[int, Entry]:
        journal = self._service.journal
        for _, data in self._open.execute("SELECT number, data FROM journal ORDER BY number"):
            entry = msgspec.msgpack.decode(data, type=Entry)
            raw, entry.raw = entry.raw, b""
            journal.store_body(journal.add(entry), raw)
        journal.last = max(journal.last, last)
        return {entry.number: entry for entry in journal}

    def _load_recipes(self) -> dict[int, Recipe]:
        """Return all recipes; each refers only to earlier ones."""
        files = {key: UploadedFile(data) for key, data in self._open.execute("SELECT id, data FROM uploads")}
        for key, file in files.items():
            self._uploads[file] = key
            self._service.store_upload(file)
        recipes: dict[int, Recipe] = {}
        for key, data in self._open.execute("SELECT id, data FROM recipes ORDER BY id"):
            values = _decoded(data, _RECIPE)
            values["sources"] = tuple(recipes[source] for source in values["sources"])
            values["tape"] = None if values["tape"] is None else files[values["tape"]]
            recipes[key] = Recipe(**values)
            self._recipes[recipes[key]] = key
        return recipes

    def _drop_recipes(self) -> None:
        """Remove the recipes of clips that are forgotten."""
        used = set(self._recipes.values())
        unused = [row for row in self._open.execute("SELECT id FROM recipes") if row[0] not in used]
        self._open.executemany("DELETE FROM recipes WHERE id = ?", unused)

    def _load_clips(self, recipes: dict[int, Recipe]) -> None:
        clips = self._service.clips
        sources: list[tuple[OrderedClip, str]] = []
        for key, data in self._items("clip"):
            values = _decoded(data, _CLIP)
            values["recipe"] = recipes[values["recipe"]]
            extends = values["extends"]
            values["extends"] = None if extends is None else (recipes[extends[0]], extends[1])
            source = values.pop("stem_source")
            clip = clips.put(key, OrderedClip(**values))
            if source is not None:
                sources.append((clip, source))
        for clip, source in sources:
            clip.stem_source = clips.get(source)

    def _load_tasks(self, entries: dict[int, Entry], saved: float) -> None:
        """Read the tasks; refunds of failed ones after `saved`, in API seconds, are still due."""
        service = self._service
        for key, data in self._items("task"):
            values = _decoded(data, _TASK)
            number = values["entry"]
            values["entry"] = entries.get(number) or Entry(
                values["created"], "POST", "", "create", refunded=True
            )
            values["clips"] = [self._clip(clip_id) for clip_id in values["clips"]]
            values["pairs"] = [(self._clip(part), self._clip(full)) for part, full in values["pairs"]]
            task = service.tasks.put(key, OrderedTask(**values))
            if task.refunded and task.failed_at > saved:
                service.account.refund_at(task.failed_at, task.parts, task.entry)

    def _clip(self, clip_id: str) -> OrderedClip:
        clip = self._service.clips.get(clip_id)
        if clip is None:
            raise KeyError(f"clip {clip_id}")
        return clip


def _encoded(item: DataclassInstance, **references: object) -> bytes:
    values = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return msgspec.msgpack.encode(values | references)


def _decoded(data: bytes, kind: type[msgspec.Struct]) -> dict[str, Any]:
    return msgspec.structs.asdict(msgspec.msgpack.decode(data, type=kind))


def _inserted(database: sqlite3.Connection, statement: str, data: bytes) -> int:
    number = database.execute(statement, (data,)).lastrowid
    if number is None:
        raise sqlite3.DatabaseError("no row was written")
    return number
