"""The database of a PostgreSQL store: its address, its tables and their version, and what its errors say.

All tables are in the schema `musicapi`, so that the store may share a database with an application.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..arguments import is_text, refused
from ..errors import JobStoreError

SCHEMES: Final = ("postgresql://", "postgres://")
OLDEST_SERVER: Final = 150000
"""PostgreSQL 15, as the server says it."""
LOCK: Final = 0x4D41504A
"""The advisory lock of a migration: the mark of SQLite's files, 'MAPJ'."""
CONNECTION: Final[Mapping[str, Any]] = {
    "application_name": "musicapi_async",
    "connect_timeout": 5,
    # A machine that vanishes without a word is noticed in 20 s; the default is two hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
"""Settings of each connection, unless the address has its own."""
SETTINGS: Final[Mapping[str, str]] = {
    # A statement takes milliseconds; one that waits longer is behind a lock that no one frees.
    "statement_timeout": "15s",
    # A process that stops within a transaction must not hold up all others.
    "idle_in_transaction_session_timeout": "10s",
    "client_min_messages": "warning",
}
"""Settings of each session; set after connecting, as poolers refuse them before."""

SILENCE: Final = 20.0
"""Seconds without an answer after which a connection is lost, as with `tcp_user_timeout`: what hangs may also
be the server, or what is in front of it, and then nothing else ends the wait. A statement has 15."""

R = TypeVar("R")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that is lost once the server has not answered for a while."""

    silence: float = SILENCE

    def wait(self, gen: Generator[Any, Any, R], *args: Any, **options: Any) -> R:
        """Wait as psycopg does, each time that it waits for the server; see `silence`."""
        return super().wait(self._limited(gen), *args, **options)

    def _limited(self, gen: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
        end = time.monotonic() + self.silence
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > end:
                    self.close()
                    raise psycopg.OperationalError(f"no answer for {self.silence:g} s")
                wanted = gen.send(ready)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]


Migration = Callable[[Connection], None]


# --- the address ------------------------------------------------------------------------------------------


def parsed(address: str) -> dict[str, Any]:
    """Return the parts of an address, with the settings of each connection.

    Raises `RequestValidationError` for what is no address; the text leaves it out, as it may hold a password.
    """
    limit = "an address such as 'postgresql://user@host:5432/database'"
    if not (is_text(address) and (address.startswith(SCHEMES) or "=" in address)):
        raise refused("store", limit)
    try:
        return {**CONNECTION, **conninfo_to_dict(address)}
    except (psycopg.Error, ValueError):
        raise refused("store", limit) from None


def display(parts: Mapping[str, Any]) -> str:
    """Return the address for texts: no password, and nothing but where the database is."""
    user, host, port = parts.get("user"), parts.get("host") or "", parts.get("port")
    where = f"{host}:{port}" if port else host
    return f"postgresql://{f'{user}@' if user else ''}{where}/{parts.get('dbname') or ''}"


def connect(parts: Mapping[str, Any], silence: float = SILENCE) -> Connection:
    """Open a connection, with a transaction for each statement unless one is begun; see `Connection`."""
    connection = Connection.connect(make_conninfo(**parts), autocommit=True)
    connection.silence = silence
    try:
        for name, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    except BaseException:
        connection.close()
        raise
    return connection


# --- the tables -------------------------------------------------------------------------------------------


def _make_first_tables(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE musicapi.jobs (
            key text NOT NULL,
            account text NOT NULL,
            state text NOT NULL,
            created_at double precision NOT NULL,
            updated_at double precision NOT NULL,
            number bigint GENERATED ALWAYS AS IDENTITY,
            record text NOT NULL,
            PRIMARY KEY (key, account)
        );
        CREATE INDEX jobs_by_state ON musicapi.jobs (state, created_at);
        CREATE TABLE musicapi.tasks (
            task_id text NOT NULL,
            family text NOT NULL,
            key text NOT NULL,
            account text NOT NULL,
            PRIMARY KEY (task_id, family, key, account)
        );
        CREATE INDEX tasks_by_job ON musicapi.tasks (key, account);
        CREATE TABLE musicapi.claims (mark text PRIMARY KEY, expires_at double precision NOT NULL);
        CREATE INDEX claims_by_end ON musicapi.claims (expires_at);
        CREATE TABLE musicapi.durations (kind text PRIMARY KEY, state bytea NOT NULL);
        CREATE TABLE musicapi.webhooks (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            sender text NOT NULL,
            body bytea NOT NULL
        );
        CREATE INDEX webhooks_by_time ON musicapi.webhooks (received_at);
        CREATE TABLE musicapi.owners (
            owner text PRIMARY KEY,
            seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE TABLE musicapi.rates (
            account text NOT NULL,
            lane text NOT NULL,
            rate text NOT NULL,
            state bytea,
            unused_since timestamptz,
            PRIMARY KEY (account, lane)
        );
        CREATE TABLE musicapi.queue (
            ticket text PRIMARY KEY,
            number bigint GENERATED ALWAYS AS IDENTITY,
            account text NOT NULL,
            lane text NOT NULL,
            is_passed boolean NOT NULL DEFAULT false,
            owner text NOT NULL REFERENCES musicapi.owners ON DELETE CASCADE
        );
        CREATE INDEX queue_by_lane ON musicapi.queue (account, lane, number);
        CREATE TABLE musicapi.permits (
            permit text PRIMARY KEY,
            account text NOT NULL,
            owner text NOT NULL REFERENCES musicapi.owners ON DELETE CASCADE,
            expires_at timestamptz NOT NULL DEFAULT 'infinity'
        );
        CREATE INDEX permits_by_account ON musicapi.permits (account);
        """
    )


MIGRATIONS: Final[tuple[Migration, ...]] = (_make_first_tables,)
"""Number n leads from version n to n + 1."""


def version_of(connection: Connection) -> int:
    """Return the version of the tables; 0 if there are none."""
    # Not `to_regclass`: it may answer from a cache that is older than the lock that was waited for.
    (is_there,) = row(
        connection.execute(
            "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'musicapi' AND tablename = 'store')"
        )
    )
    if not is_there:
        return 0
    (version,) = row(connection.execute("SELECT version FROM musicapi.store"))
    return int(version)


def migrate(connection: Connection, name: str) -> str:
    """Bring the tables up to date, all steps or none, and return the identity of the store.

    One process does so while others wait, and transactions that are under way end before.

    Raises `JobStoreError` for tables of a newer version, and for a server or a database that cannot be used.
    """
    if connection.info.server_version < OLDEST_SERVER:
        raise JobStoreError(
            f"the job store {name} is on PostgreSQL {connection.info.server_version // 10000}, "
            f"and {OLDEST_SERVER // 10000} or later is needed",
            path=name,
        )
    (encoding,) = row(connection.execute("SHOW server_encoding"))
    if encoding != "UTF8":
        raise JobStoreError(
            f"the database of the job store {name} is in {encoding}, and cannot hold every text",
            path=name,
            hint="Use a database that was made with ENCODING 'UTF8'.",
        )
    if version_of(connection) != len(MIGRATIONS):
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            version = version_of(connection)
            if version > len(MIGRATIONS):
                raise other_version(name, version, len(MIGRATIONS))
            if version == 0:
                connection.execute("CREATE SCHEMA IF NOT EXISTS musicapi")
                connection.execute(
                    "CREATE TABLE musicapi.store (version int NOT NULL, identity text NOT NULL)"
                )
                connection.execute("INSERT INTO musicapi.store VALUES (0, %s)", (uuid.uuid4().hex,))
            # Each transaction of a store has read this table, so this waits for their ends.
            connection.execute("LOCK TABLE musicapi.store IN ACCESS EXCLUSIVE MODE")
            for migration in MIGRATIONS[version:]:
                migration(connection)
            connection.execute("UPDATE musicapi.store SET version = %s", (len(MIGRATIONS),))
    (identity,) = row(connection.execute("SELECT identity FROM musicapi.store"))
    return str(identity)


def row(cursor: psycopg.Cursor[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the one row of a result."""
    found = cursor.fetchone()
    assert found is not None  # each of these queries gives a row
    return found


# --- errors -----------------------------------------------------------------------------------------------


def other_version(name: str, version: int, known: int) -> JobStoreError:
    """Return the error of tables of another version than the one that this package knows."""
    return JobStoreError(
        f"the job store {name} has version {version}, and this version of the package knows {known}",
        path=name,
        hint="Let all workers run one version of musicapi-async: upgrade the older ones.",
    )


def replaced(name: str) -> JobStoreError:
    """Return the error of a database that is not the one that this process has used before."""
    return JobStoreError(
        f"the job store {name} was replaced by another database while it was in use",
        path=name,
        hint=(
            "Bring the database back. A new PostgresStore(address) uses the database that is there now, "
            "and pays again for job keys that the lost one held."
        ),
    )


def is_passing(error: psycopg.Error) -> bool:
    """Return True if the same work may succeed on a new connection: it was lost, or a lock was not free."""
    state = error.sqlstate or ""
    if isinstance(error, psycopg.InterfaceError):
        return True
    return isinstance(error, psycopg.OperationalError) and state[:2] in (
        "",
        "08",
        "40",
        "53",
        "55",
        "57",
        "58",
    )


def failed(name: str, error: psycopg.Error, waited: float) -> JobStoreError:
    """Return the error of the package for one of PostgreSQL, after `waited` seconds."""
    reason = " ".join(str(error).split()) or type(error).__name__
    hint = "It is used again by itself when it answers."
    match error:
        case psycopg.errors.InsufficientPrivilege():
            what = f"refuses: {reason}"
            hint = (
                "Let its user make the schema once: GRANT CREATE ON DATABASE ... TO ...; or make it for that "
                "user: CREATE SCHEMA musicapi AUTHORIZATION ..."
            )
        case psycopg.errors.ReadOnlySqlTransaction():
            what, hint = f"takes no writes: {reason}", "Use the address of the primary server."
        case psycopg.errors.DiskFull():
            what, hint = "cannot be written: its disk is full", "Make room on the disk and call again."
        case _ if is_passing(error):
            what = (
                f"cannot be reached: {reason}"
                if waited < 1
                else f"cannot be reached for {waited:.3g} s: {reason}"
            )
        case _:
            what, hint = f"failed: {reason}", ""
    return JobStoreError(f"the job store {name} {what}", path=name, hint=hint)
