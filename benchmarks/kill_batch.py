"""A batch of 60 songs with stems, killed with SIGKILL at 40 random instants and resumed each time.

    python benchmarks/kill_batch.py [--songs 60] [--kills 40] [--seed 1] [--speed 100]

Prints what the kills hit, what was charged, what is ambiguous and why; fails if anything was paid twice or
lost. Then the ambiguous jobs are settled, and every song must be there.
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "workflows")]

from kill_runs import DURATIONS, Killing  # noqa: E402

from musicapi_async.sandbox import Sandbox  # noqa: E402


async def main(songs: int, kills: int, seed: int, speed: float) -> None:
    """Run, check, print."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        async with Sandbox(speed=speed, credits=1e6, longest=1, seed=seed, durations=DURATIONS) as sandbox:
            killing = Killing(sandbox, Path(folder), songs, seed)
            await killing.kill_and_resume(kills)
            killing.check()
            tell(killing)
            await killing.settle()
            killing.check_whole()
    outcome = killing.outcome
    print(f"settled: songs {len(outcome.records)}/{songs}, jobs {len(outcome.jobs)}, each charged once")
    print(f"{time.perf_counter() - started:.0f} s")


def tell(killing: Killing) -> None:
    """What was found after the last kill and one run more."""
    outcome = killing.outcome
    hit = Counter(phase for kill in outcome.kills for phase in kill.phases)
    print(f"kills {len(outcome.kills)}, by what was under way: {dict(hit.most_common())}")
    print(f"songs {len(outcome.records)}/{killing.songs}, jobs {len(outcome.jobs)}, ", end="")
    print(f"charged {outcome.charged.total()}, twice 0, lost 0, ambiguous {len(outcome.ambiguous)}")
    for job in outcome.ambiguous:
        print(f"  {job.key}: {job.why}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=int, default=60)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=100.0)
    asyncio.run(main(**vars(parser.parse_args())))
