"""One rate that 1 to 8 processes keep: whether it is ever exceeded, and how much of it is used.

Each process makes its share of the songs, all at once, against one sandbox at a speed at which a slot of the
documented rate, one create per 3 s, takes 250 ms. Processes, sockets and the PostgreSQL server are real. The
first row is one process that keeps the rate in its memory, as a measure of what the machine allows.

The sandbox judges: it refuses what arrives sooner than the rate by more than 20 ms, the delay by which a busy
machine reads one request late and the next on time. The shortest time between two arrivals is there as well.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from report import Report, arguments

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "jobs")]

from fleet import PERIOD, Fleet, Outcome, Work, arrived, carry_out  # noqa: E402
from postgres_server import PostgresServer, find_programs  # noqa: E402

from musicapi_async.sandbox import Sandbox  # noqa: E402

SPEED = 12.0


async def trial(server: PostgresServer, workers: int, songs: int) -> Outcome:
    """The songs of one trial, in an empty database; 0 workers: one without a store."""
    server.empty()
    with tempfile.TemporaryDirectory() as folder:
        async with Sandbox(speed=SPEED, credits=1e9, create_limit=(1, PERIOD)) as sandbox:
            if not workers:
                names = tuple(str(number) for number in range(songs))
                await carry_out(Work(sandbox.base_url, sandbox.api_key, "", SPEED, names))
                return arrived(sandbox)
            fleet = Fleet(sandbox, server, server.address(), Path(folder), workers=workers, songs=songs)
            fleet.start()
            found = await fleet.end()
            fleet.check(found)
            return found


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--songs", type=int, default=300, help="of each trial")
    parser.add_argument("--processes", type=int, nargs="+", default=[0, 1, 2, 4, 6, 8])
    options = parser.parse_args()
    report = Report("shared_rate", (__doc__ or "").strip(), ["psycopg"])
    programs = find_programs()
    if programs is None:
        parser.error("no PostgreSQL server, 15 or later, is installed")
    server = PostgresServer(programs)
    rows: list[tuple[str, int, float, float, float, float, float]] = []
    try:
        for workers in options.processes:
            began = time.perf_counter()
            found = asyncio.run(trial(server, workers, options.songs))
            gaps = found.gaps
            name = f"{workers}" if workers else "1, in memory"
            rows.append(
                (
                    name,
                    found.refused,
                    gaps[0] / PERIOD,
                    gaps[len(gaps) // 2] / PERIOD,
                    gaps[-1] / PERIOD,
                    found.used,
                    time.perf_counter() - began,
                )
            )
            report.target(f"{name}: creates above the rate", found.refused, 0)
            report.target(f"{name}: share of the rate used", found.used, 0.95, at_least=True)
    finally:
        server.remove()
    report.table(
        f"{options.songs} creates under 1 per 3 s; times between them as parts of a slot",
        ("processes", "above the rate", "shortest", "median", "longest", "rate used", "seconds"),
        rows,
    )
    report.write(options.out)


if __name__ == "__main__":
    main()
