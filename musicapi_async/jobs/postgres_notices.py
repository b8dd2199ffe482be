"""Notices between the processes that share a PostgreSQL store, and the heartbeat of each process.

A notice (LISTEN and NOTIFY) only says that something has changed; the state is in the tables. A notice that
is lost with a connection only costs time: a waiter reads the tables again after a while, and when the
connection is back, the webhooks since then are read from their table. The notice of a webhook names its task,
so that only the processes that know the task read the webhook.

One thread listens, and also writes the heartbeat of its process. If a process has written none for `lease`
seconds, another process removes its tickets and permits, for all accounts, and notifies those who wait for
them. If no process has checked the heartbeats for a while, the database was away, or its clock was set: then
no process could write one, and each gets another `lease` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import OrderedDict
from typing import Any, Final, LiteralString, TypeAlias

import msgspec
import psycopg

from ..errors import JobStoreError
from .postgres_connection import Database, cut
from .postgres_schema import Connection, row
from .store import Knows, Notice, Subscriber

log: Final = logging.getLogger("musicapi_async")

CHANNEL: Final = "musicapi"
RECONNECT_PAUSE: Final = 0.5
"""Seconds between tries to listen again."""
WEBHOOK_MEMORY: Final = 3600.0
"""Seconds for which webhooks stay in the table: a process without a connection for longer polls anyway."""
OVERLAP: Final = 30.0
"""Seconds of webhooks that are read again after a lost connection, as a row may become visible late."""
REMEMBERED_WEBHOOKS: Final = 10_000
WEBHOOKS_AT_ONCE: Final = 200
"""Webhooks that are read at once: some megabytes, however many came in the meantime."""
LONGEST_ID: Final = 200
"""Characters of a task's id in a notice, which has 8,000 bytes for all; the service's ids have 36."""
SWEEPER: Final = ""
"""The owner that no process is: when the dead were removed the last time."""


Subscribers: TypeAlias = dict[object, tuple[asyncio.AbstractEventLoop, Subscriber, Knows | None]]

_decoder: Final = msgspec.json.Decoder(Notice)


def notify(connection: Connection, notice: Notice) -> None:
    """Tell all processes, when the transaction ends."""
    connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, msgspec.json.encode(notice).decode()))


def mark_alive(connection: Connection, owner: str) -> None:
    """Write the heartbeat of an owner's process."""
    connection.execute(
        "INSERT INTO musicapi.owners VALUES (%s, clock_timestamp()) "
        "ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at",
        (owner,),
    )


def forget(connection: Connection, owner: str) -> None:
    """Remove the tickets and permits of a process that ends, and notify those who wait for them."""
    connection.execute("DELETE FROM musicapi.owners WHERE owner = %s", (owner,))
    notify(connection, Notice("freed", owner))


def sweep(database: Database, connection: Connection, lease: float) -> None:
    """Remove the tickets and permits of processes that are dead, unless another one has just done so.

    Args:
        database: the database.
        connection: a connection to it.
        lease: seconds without a heartbeat after which a process is considered dead.
    """
    with database.transaction(connection):
        found = connection.execute(
            "SELECT extract(epoch FROM clock_timestamp() - seen_at)::float8 FROM musicapi.owners "
            "WHERE owner = %s FOR UPDATE SKIP LOCKED",
            (SWEEPER,),
        ).fetchone()
        if found is None:  # the first one, or another one is at it
            connection.execute(
                "INSERT INTO musicapi.owners (owner) VALUES (%s) ON CONFLICT DO NOTHING", (SWEEPER,)
            )
            return
        (age,) = found
        mark_alive(connection, SWEEPER)
        if not 0 <= age < lease / 2:
            connection.execute("UPDATE musicapi.owners SET seen_at = clock_timestamp()")
            return
        removed = connection.execute(
            "DELETE FROM musicapi.owners WHERE seen_at < clock_timestamp() - make_interval(secs => %s)",
            (lease,),
        )
        if removed.rowcount:
            notify(connection, Notice("freed", SWEEPER))


class NoticeReader:
    """The thread of a process that listens. Its subscribers are called in their own loops.

    Args:
        database: what it listens to.
        owner: the id of this process.
        lease: seconds without a heartbeat after which others consider this process dead.
        subscribers: called with each notice, each in its own loop; the store adds and removes them.
    """

    def __init__(self, database: Database, owner: str, lease: float, subscribers: Subscribers) -> None:
        self._database: Final = database
        self._owner: Final = owner
        self._lease: Final = lease
        self._lock: Final = threading.Lock()
        self._subscribers: Final = subscribers
        self._handled: Final[OrderedDict[int, None]] = OrderedDict()
        self._read_until: Any = None  # the server's time up to which webhooks were read
        self._ended: Final = threading.Event()
        self._connection: Connection | None = None
        self._thread: Final = threading.Thread(target=self._run, name="musicapi-notices", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Have the thread stop listening."""
        self._ended.set()
        with self._lock:
            if self._connection is not None:
                cut(self._connection)

    async def aclose(self) -> None:
        """Stop listening; return when the thread has ended."""
        while self._thread.is_alive():
            self.close()
            await asyncio.to_thread(self._thread.join, 0.2)

    # --- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        is_lost = False
        while not self._ended.is_set():
            try:
                connection = self._database.connect()
                with self._lock:
                    self._connection = connection
                try:
                    connection.execute(f"LISTEN {CHANNEL}")
                    is_lost = False
                    self._catch_up(connection)
                    self._listen(connection)
                finally:
                    with self._lock:
                        self._connection = None
                    with contextlib.suppress(psycopg.Error):
                        connection.close()
            except (psycopg.Error, JobStoreError) as error:
                if self._ended.is_set():
                    return
                if not is_lost:
                    reason = " ".join(str(error).split())
                    log.warning(
                        "the job store %s tells no news until it is back: %s", self._database.name, reason
                    )
                is_lost = True
                self._hand_over(Notice("freed", ""))  # none may come for what waits now
                self._ended.wait(RECONNECT_PAUSE)

    def _listen(self, connection: Connection) -> None:
        while not self._ended.is_set():
            self._mark(connection)
            end = time.monotonic() + self._lease / 3
            while not self._ended.is_set() and (wait := end - time.monotonic()) > 0:
                # Read to its end, as it holds the lock of the connection until then.
                for notify in list(connection.notifies(timeout=wait, stop_after=1)):
                    with contextlib.suppress(msgspec.MsgspecError):  # of a version that says more
                        notice = _decoder.decode(notify.payload)
                        if notice.kind != "webhook":
                            self._hand_over(notice)
                        elif self._is_wanted(notice.task_id):
                            self._read_webhooks(connection, "number = %s", notice.number)

    def _mark(self, connection: Connection) -> None:
        """Write the heartbeat, and remove dead processes if no other process has just done so."""
        mark_alive(connection, self._owner)
        self._read_until, is_swept = row(
            connection.execute(
                "SELECT clock_timestamp(), EXISTS (SELECT FROM musicapi.owners WHERE owner = %s AND seen_at "
                "BETWEEN clock_timestamp() - make_interval(secs => %s) AND clock_timestamp())",
                (SWEEPER, self._lease / 6),
            )
        )
        if not is_swept:
            # Another transaction may remove the same rows in another order.
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                sweep(self._database, connection, self._lease)

    def _catch_up(self, connection: Connection) -> None:
        """Read the webhooks that came while nothing was listened to."""
        last = None if self._read_until is None else 0
        while last is not None:
            last = self._read_webhooks(
                connection,
                "number > %s AND received_at > %s - make_interval(secs => %s)",
                last,
                self._read_until,
                OVERLAP,
            )

    def _is_wanted(self, task_id: str) -> bool:
        """Return True for a webhook about this task that a subscriber may want; '' if it is not said."""
        known = [knows for _, _, knows in list(self._subscribers.values()) if knows is not None]
        return not task_id or any(knows(task_id) for knows in known)

    def _read_webhooks(self, connection: Connection, where: LiteralString, *values: object) -> int | None:
        """Hand over the first webhooks of a condition; return the last number if there may be more."""
        found = connection.execute(
            f"SELECT number, sender, body FROM musicapi.webhooks WHERE {where} ORDER BY number LIMIT %s",  # noqa: S608
            (*values, WEBHOOKS_AT_ONCE),
        ).fetchall()
        for number, sender, body in found:
            if number in self._handled:
                continue
            self._handled[number] = None
            if len(self._handled) > REMEMBERED_WEBHOOKS:
                self._handled.popitem(last=False)
            self._hand_over(Notice("webhook", sender, number=number), body)
        return found[-1][0] if len(found) == WEBHOOKS_AT_ONCE else None

    def _hand_over(self, notice: Notice, body: bytes = b"") -> None:
        for mark, (loop, subscriber, _) in list(self._subscribers.items()):
            try:
                loop.call_soon_threadsafe(subscriber, notice, body)
            except RuntimeError:  # the loop is closed
                self._subscribers.pop(mark, None)
