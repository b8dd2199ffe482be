"""A batch of 60 songs with stems, killed with SIGKILL at 40 random instants and resumed each time.

    python benchmarks/kill_batch.py [--songs 60] [--kills 40] [--seed 1]

Prints what was charged, what is ambiguous and why, and fails if anything was paid twice or lost.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "batch")]

from kill_runs import check, kill_and_resume  # noqa: E402

from musicapi_async.sandbox import Sandbox  # noqa: E402


async def main(songs: int, kills: int, seed: int, speed: float) -> None:
    """Run, check, print."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        async with Sandbox(speed=speed, credits=1e6, longest=4, seed=seed) as sandbox:
            outcome = await kill_and_resume(sandbox, Path(folder), songs=songs, kills=kills, seed=seed)
            check(sandbox, outcome, songs=songs)
    print(f"runs {outcome.runs}, kills {len(outcome.kills)}, songs {len(outcome.records)}/{songs}")
    print(f"jobs {len(outcome.jobs)}, charged {sum(outcome.charged.values())}, twice 0, lost 0")
    print(f"ambiguous {len(outcome.ambiguous)}")
    for job in outcome.ambiguous:
        print(f"  {job.key}: {job.why}")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=int, default=60)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=15.0)
    asyncio.run(main(**vars(parser.parse_args())))
