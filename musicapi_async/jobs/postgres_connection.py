"""A connection to PostgreSQL and the one thread that works on it.

Work is done in the order in which it was begun, in any event loop, and is carried out even if its caller is
cancelled: so a row is never left half decided, and no connection is lost to a cancellation. A connection that
breaks is replaced, and the work done once more: it was rolled back, or its change is one that may be applied
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, LiteralString, TypeVar

import psycopg

from ..errors import JobStoreError
from .postgres_schema import (
    MIGRATIONS,
    SILENCE,
    Connection,
    connect,
    failed,
    is_passing,
    migrate,
    other_version,
    replaced,
    row,
)
from .store import close_with_owner, take_error

R = TypeVar("R")

log: Final = logging.getLogger("musicapi_async")

RETRY_PAUSE: Final = 0.1
"""Seconds between tries to connect: a server that restarts is back within a second or two."""
CLOSING_PATIENCE: Final = 2.0
"""Seconds that closing waits for what was begun before."""


class Database:
    """Which database a store uses; remembered until the store is gone, also while it is closed.

    Args:
        parts: the address and the settings of a connection.
        name: the address for texts, without a password.
        silence: seconds without an answer after which a connection is lost.
    """

    def __init__(self, parts: Mapping[str, Any], name: str, silence: float = SILENCE) -> None:
        self.name: Final = name
        self.parts: Final = parts
        self._silence: Final = silence
        self._lock: Final = threading.Lock()
        self._identity = ""
        self._is_lazy = False

    @property
    def is_known(self) -> bool:
        """Return True once this process has used the database."""
        return bool(self._identity)

    @property
    def identity(self) -> str:
        """The id inside the database, which another one has not; '' before it was used."""
        return self._identity

    def connect(self) -> Connection:
        """Open a connection to the database that was used before, or to any if none was."""
        connection = connect(self.parts, self._silence)
        try:
            with self._lock:
                if not self._identity:
                    self._identity = migrate(connection, self.name)
            self.check(connection)
            # A server may be set up to forget its last second; a paid call must not be forgotten.
            self._is_lazy = row(connection.execute("SHOW synchronous_commit")) == ("off",)
        except BaseException:
            connection.close()
            raise
        return connection

    def check(self, connection: Connection, more: LiteralString = "", *values: object) -> None:
        """Check that this is the database that was used before, and of the version that is known.

        Within a transaction it remains so until the end: a change of the tables waits for that.

        Args:
            connection: the connection.
            more: calls that are made in the same exchange with the server.
            values: their arguments.
        """
        try:
            found = row(connection.execute(f"SELECT version, identity{more} FROM musicapi.store", values))  # noqa: S608
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, AssertionError):
            raise replaced(self.name) from None
        if found[1] != self._identity:
            raise replaced(self.name)
        if found[0] != len(MIGRATIONS):
            raise other_version(self.name, found[0], len(MIGRATIONS))

    @contextlib.contextmanager
    def transaction(
        self, connection: Connection, *, lock: int | None = None, durable: bool = False
    ) -> Generator[Connection]:
        """A transaction on the database that is known; see `check`.

        Args:
            connection: the connection.
            lock: a number that is locked until the end of the transaction; None for no lock.
            durable: True if the transaction must outlive a loss of power when it has ended.
        """
        synced: LiteralString = ""
        if not durable:
            synced = ", set_config('synchronous_commit', 'off', true)"
        elif self._is_lazy:
            synced = ", set_config('synchronous_commit', 'on', true)"
        with connection.transaction():
            if lock is None:
                self.check(connection, synced)
            else:
                self.check(connection, f"{synced}, pg_advisory_xact_lock(%s)", lock)
            yield connection


class Worker:
    """One connection and its thread.

    Args:
        database: what it connects to.
        patience: seconds for which work is tried again while the server does not answer.
        what: what it works on, for the name of the thread.
    """

    def __init__(self, database: Database, patience: float, what: str) -> None:
        self.process: Final = os.getpid()
        self._database: Final = database
        self._patience: Final = patience
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix=f"musicapi-{what}")
        self._opened: Final[list[Connection]] = []  # at most one
        close_with_owner(self, self._opened)
        self._begun = 0
        self._closing_at = float("inf")

    def begin(self, work: Callable[[Connection], R], *, stays_open: bool = True) -> asyncio.Future[R]:
        """Have `work` done in the thread, after all that was begun before. It may raise `JobStoreError`.

        The connection then stays open, or is closed unless more work was begun.
        """
        self._begun += 1
        number = None if stays_open else self._begun
        begun = asyncio.get_running_loop().run_in_executor(
            self._thread, self._guarded, work, number, time.monotonic()
        )
        # Its error is for no one if the caller has gone, and with `shield` alone asyncio would report it.
        begun.add_done_callback(take_error)
        return begun

    async def aclose(self) -> None:
        """Finish what was begun, within seconds, then close; the thread ends."""
        self._closing_at = time.monotonic() + CLOSING_PATIENCE
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        self._thread.shutdown(wait=False)
        _, pending = await asyncio.wait({closing}, timeout=2 * CLOSING_PATIENCE)
        if pending and self._opened:
            log.warning("the job store %s does not answer, and is left", self._database.name)
            for connection in list(self._opened):
                cut(connection)

    def _guarded(self, work: Callable[[Connection], R], number: int | None, begun_at: float) -> R:
        try:
            return self._tried(work, begun_at)
        finally:
            if number == self._begun:
                self._drop()

    def _tried(self, work: Callable[[Connection], R], begun_at: float) -> R:
        while True:
            was_known = self._database.is_known
            try:
                if not self._opened:
                    self._opened.append(self._database.connect())
                return work(self._opened[0])
            except psycopg.Error as error:
                self._drop()
                now = time.monotonic()
                # Before the first success it is more likely a mistake in the address than a restart.
                if was_known and is_passing(error) and now < min(begun_at + self._patience, self._closing_at):
                    time.sleep(RETRY_PAUSE)
                    continue
                raise failed(self._database.name, error, now - begun_at) from None
            except JobStoreError:
                if self._opened and self._opened[0].broken:
                    self._drop()
                raise

    def _drop(self) -> None:
        while self._opened:
            with contextlib.suppress(psycopg.Error):
                self._opened.pop().close()


def cut(connection: Connection) -> None:
    """End a connection from another thread, which then finds it lost."""
    with contextlib.suppress(psycopg.Error, OSError):
        copy = socket.socket(fileno=os.dup(connection.fileno()))
        try:
            copy.shutdown(socket.SHUT_RDWR)
        finally:
            copy.close()
