"""A PostgreSQL server for tests: started on a free port of this machine, as an ordinary user, and removed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from patience import PATIENCE

OLDEST: Final = 15
WITH_PARENT: Final = ("setpriv", "--pdeathsig", "INT") if shutil.which("setpriv") else ()
"""Stops the server when the process that started it is killed; of util-linux, which not every system has."""
USER: Final = "music"
PASSWORD: Final = "not-to-be-shown"


def find_programs() -> Path | None:
    """The folder of the newest server that is installed and not too old; None if there is none."""
    found: dict[int, Path] = {}
    for folder in Path("/usr/lib/postgresql").glob("*/bin"):  # where Debian has them, off the PATH
        if folder.parent.name.isdigit() and (folder / "initdb").exists():
            found[int(folder.parent.name)] = folder
    if not found and (initdb := shutil.which("initdb")) is not None:
        folder = Path(initdb).resolve().parent
        version = subprocess.run([initdb, "--version"], capture_output=True, text=True, check=True).stdout
        found[int(version.split()[2].partition(".")[0])] = folder
    newest = max(found, default=0)
    return found[newest] if newest >= OLDEST else None


class PostgresServer:
    """A server with one user and one database; `settings` are more than the usual ones of the server."""

    def __init__(self, programs: Path, **settings: str) -> None:
        self._programs: Final = programs
        self._settings: Final = settings
        # The server refuses root; Debian's package brings a user for it.
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            self._user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self.folder: Final = Path(tempfile.mkdtemp(prefix="musicapi-postgres-"))
        (self.folder / "password").write_text(PASSWORD, encoding="utf-8")
        if self._user:
            for path in (self.folder, self.folder / "password"):
                os.chown(path, self._user["user"], self._user["group"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: Final[int] = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._run(
            "initdb",
            *("-D", "data", "-U", USER, "-E", "UTF8", "--locale=C", "-N"),
            *("--auth=scram-sha-256", "--pwfile=password"),
        )
        self.start()

    def _run(self, program: str, *args: str) -> None:
        command = [str(self._programs / program), *args]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, **self._user)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "80",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*WITH_PARENT, str(self._programs / "postgres"), "-D", "data", *options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self._user,
            )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < end, (self.folder / "log").read_text(encoding="utf-8")
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop the server at once, as a restart does; connections are cut."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)

    def remove(self) -> None:
        """Stop the server and remove its files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, database: str = "postgres") -> str:
        """The address of a database, with its password."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def execute(self, text: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Carry out a statement, and return its rows."""
        with psycopg.connect(self.address(database), autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    def empty(self, database: str = "postgres") -> None:
        """Remove the tables of the store, which is quicker than to make a database."""
        self.execute("DROP SCHEMA IF EXISTS musicapi CASCADE", database)

    def watch_departures(self) -> None:
        """Note when creates depart from now on, for `departures`, by the clock of the server.

        When they arrive depends on the machine. So does who has a turn that is given away after a second: from
        now on it is kept for its ticket, however late a busy machine comes for it.
        """
        self.execute(
            """
            CREATE TABLE musicapi.departures (ticket text PRIMARY KEY, owner text, number bigint, at timestamptz);
            CREATE FUNCTION musicapi.note_departure() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO musicapi.departures VALUES (NEW.ticket, NEW.owner, NEW.number, clock_timestamp())
                ON CONFLICT (ticket) DO UPDATE SET at = excluded.at;
                RETURN NULL;
            END $$;
            CREATE TRIGGER departure AFTER UPDATE ON musicapi.queue FOR EACH ROW
                WHEN (NEW.is_passed AND NOT OLD.is_passed) EXECUTE FUNCTION musicapi.note_departure();
            CREATE FUNCTION musicapi.keep_turn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                NEW.unused_since := clock_timestamp();
                RETURN NEW;
            END $$;
            CREATE TRIGGER turn BEFORE UPDATE ON musicapi.rates FOR EACH ROW
                WHEN (NEW.unused_since IS NOT NULL) EXECUTE FUNCTION musicapi.keep_turn();
            """
        )

    def departures(self) -> list[tuple[str, int, float]]:
        """The departures in their order: who left, the place in the queue, and the seconds on the clock."""
        found = "SELECT owner, number, extract(epoch FROM at)::float8 FROM musicapi.departures ORDER BY at"
        return [(str(owner), int(number), float(at)) for owner, number, at in self.execute(found)]

    def cut_connections(self) -> int:
        """End all connections of stores; returns how many there were."""
        ended = self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'musicapi_async'"
        )
        return len(ended)


# --- fixtures, for the conftest of a room ------------------------------------------------------------------


@pytest.fixture(scope="session")
def server() -> Generator[PostgresServer]:
    """A PostgreSQL server, started when it is first needed."""
    programs = find_programs()
    if programs is None:
        assert not os.environ.get("CI"), "CI installs a PostgreSQL server"
        pytest.skip("no PostgreSQL server is installed")
    server = PostgresServer(programs)
    yield server
    server.remove()


@pytest.fixture
def address(server: PostgresServer) -> str:
    """The address of an empty database."""
    server.empty()
    return server.address()
