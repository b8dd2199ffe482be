"""A batch of 200 songs against its bound: the client and the sandbox, 60 times as fast as the service.

No batch can take less than the rate of its creates plus what its songs need. The stated bound is the rate
plus the longest song; the exact one (song n is not sent before n times 3 s, and then takes as long as it
takes) is a little less, as the longest is seldom the last. The sandbox enforces the documented limit (1
create per 3 s) and lets songs take as long as users report; the client is the public one, with its usual
rate and polling. Nothing is downloaded. All times are in seconds of the service. At this speed a create is
due every 50 real ms, so 5 ms by which a busy machine wakes late are 10 % of the rate: `--speed 10` is closer
to life and takes five minutes.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median

from report import Report, arguments

from musicapi_async import MusicAPIError
from musicapi_async.sandbox import Sandbox

SPEED = 60.0
SONGS = 200
RUNS = 3
EVERY = 3.0


@dataclass(frozen=True)
class Batch:
    """One run: how long it took and what it was made of."""

    took: float
    creating: float
    durations: list[float]
    polls: float
    refused: int

    @property
    def bound(self) -> float:
        return max(n * EVERY + duration for n, duration in enumerate(self.durations))

    @property
    def stated(self) -> float:
        return (SONGS - 1) * EVERY + max(self.durations)


async def run(seed: int, speed: float) -> Batch:
    async with Sandbox(speed=speed, seed=seed, create_limit=(1, EVERY), credits=1e6) as sandbox:
        async with sandbox.client() as client:
            await client.credits()  # opens the connection; not part of the batch
            begun = time.perf_counter()
            rows = [{"mv": "sonic-v6", "gpt_description_prompt": f"song {n}"} for n in range(SONGS)]
            tasks = await client.create_many(client.sonic.create_music, rows)
            created = time.perf_counter()
            submitted = [task for task in tasks if not isinstance(task, MusicAPIError)]
            assert len(submitted) == SONGS
            await client.wait_all(submitted)
            took = time.perf_counter() - begun
        works = [sandbox.service.tasks.get(task.task_id) for task in submitted]
        polls = sum(entry.path.startswith("/sonic/task/") for entry in sandbox.journal)
        refused = sum(entry.status == 429 for entry in sandbox.journal)
        durations = [work.ends - work.created for work in works if work is not None]
        return Batch(took * speed, (created - begun) * speed, durations, polls / SONGS, refused)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--speed", type=float, default=SPEED)
    options = parser.parse_args()
    report = Report("makespan", (__doc__ or "").strip())
    batches = [asyncio.run(run(options.seed + n, options.speed)) for n in range(RUNS)]
    report.table(
        f"{SONGS} songs, {RUNS} runs",
        (
            "run",
            "took s",
            "rate plus longest s",
            "against it",
            "exact bound s",
            "against that",
            "creating s",
            "polls per song",
            "429s",
        ),
        [
            (
                str(n),
                b.took,
                b.stated,
                b.took / b.stated,
                b.bound,
                b.took / b.bound,
                b.creating,
                b.polls,
                b.refused,
            )
            for n, b in enumerate(batches, 1)
        ],
    )
    report.target(
        "time against rate plus longest song, median", median(b.took / b.stated for b in batches), 1.05
    )
    report.write(options.out)


if __name__ == "__main__":
    main()
