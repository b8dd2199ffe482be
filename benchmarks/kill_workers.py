"""Workers that share a PostgreSQL store, killed with SIGKILL at random instants and started again.

    python benchmarks/kill_workers.py [--workers 6] [--songs 80] [--kills 20] [--seed 1] [--slow 2]

Every other kill hits the worker whose create was the last to arrive; answers take `--slow` seconds. Prints
what became of the songs; fails if anything was paid twice or lost, came sooner than the rate, is unknown
without a kill, or if a permit did not return.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "jobs")]

from fleet import PERIOD, Fleet  # noqa: E402
from postgres_server import PostgresServer, find_programs  # noqa: E402

from musicapi_async.sandbox import Fault, Sandbox  # noqa: E402
from musicapi_async.sandbox.reply_choices import Durations  # noqa: E402


async def run(
    server: PostgresServer, workers: int, songs: int, kills: int, seed: int, speed: float, slow: float
) -> None:
    """Run, check, print."""
    started = time.perf_counter()
    durations = Durations(song=(40.0, 0.3))
    with tempfile.TemporaryDirectory() as folder:
        async with Sandbox(
            speed=speed, credits=1e6, seed=seed, durations=durations, create_limit=(1, PERIOD)
        ) as sandbox:
            if slow:
                sandbox.faults.on("POST", "/sonic/create", Fault.slow(slow), times=None)
            fleet = Fleet(
                sandbox,
                server,
                server.address(),
                Path(folder),
                workers=workers,
                songs=songs,
                max_in_flight=12,
                waits=True,
            )
            fleet.start()
            await fleet.kill_and_restart(kills, seed)
            found = await fleet.end()
            fleet.check(found)
    states = Counter(job.state for job in found.jobs)
    hit = sum(1 for names in fleet.killed if names)
    print(f"kills {len(fleet.killed)}, of which {hit} while a create was on its way")
    print(f"songs {songs}: {dict(states)}, charged {found.charged.total()}, twice 0, lost 0")
    print(f"creates above the rate {found.refused}, permits left {found.permits}, tickets {found.tickets}")
    print(f"unknown: {', '.join(sorted(found.ambiguous)) or 'none'}")
    print(f"{time.perf_counter() - started:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--songs", type=int, default=80)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=12.0)
    parser.add_argument("--slow", type=float, default=2.0)
    programs = find_programs()
    if programs is None:
        parser.error("no PostgreSQL server, 15 or later, is installed")
    server = PostgresServer(programs)
    try:
        asyncio.run(run(server, **vars(parser.parse_args())))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
