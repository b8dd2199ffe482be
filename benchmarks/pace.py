"""Creates under a pace: how many start in any window, and how much of the allowance is used.

The limiter of the SDK with the retry rules of the SDK on an event loop with virtual time, so that the
figures are exact. The server counts arrivals, which are up to 30 ms later than starts, in a sliding window
of its own, and refuses what is too much; besides, it refuses a share of requests at random.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from random import Random

from report import Report, arguments

from musicapi_async.testing.virtual import VirtualTimeLoop
from musicapi_async.transport.limiter import LaneLimits, MemoryLimiter, Pace
from musicapi_async.wire.retry import Failure, RetryPolicy, decide

CREATES = 2000
LATENCY = 0.03
ANSWER = 0.4


@dataclass
class Server:
    """Refuses a share at random, and whatever exceeds its limit."""

    pace: Pace
    share: float
    rng: Random
    arrivals: list[float] = field(default_factory=list)
    accepted: deque[float] = field(default_factory=deque)
    over: int = 0
    refused: int = 0

    async def create(self) -> bool:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.rng.uniform(0, LATENCY))
        now = loop.time()
        self.arrivals.append(now)
        while self.accepted and self.accepted[0] <= now - self.pace.period:
            self.accepted.popleft()
        if len(self.accepted) >= self.pace.count:
            self.over += 1
            return False
        if self.rng.random() < self.share:
            self.refused += 1
            return False
        self.accepted.append(now)
        await asyncio.sleep(ANSWER)
        return True


@dataclass
class Outcome:
    largest: int
    largest_arrivals: int
    used: float
    accepted: float
    over: int
    refused: int


async def creates(pace: Pace, share: float, seed: int) -> Outcome:
    rng = Random(seed)
    loop = asyncio.get_running_loop()
    limiter = MemoryLimiter({"submit": LaneLimits(64, pace)})
    server = Server(pace, share, rng)
    policy = RetryPolicy(retries=20)
    starts: list[float] = []

    async def create() -> None:
        for attempt in range(1, policy.retries + 2):
            async with limiter.slot("submit"):
                starts.append(loop.time())
                done = await server.create()
            if done:
                limiter.succeeded("submit")
                return
            wait = decide("create", Failure.RATE_LIMITED, attempt, None, policy, rng) or 0.0
            limiter.pause("submit", min(wait, 1.0))
            await asyncio.sleep(wait)
        raise RuntimeError("a create was refused more often than a policy repeats it")

    await asyncio.gather(*(create() for _ in range(CREATES)))
    # The first window is full at once; what is allowed is counted from its end.
    seconds = starts[-1] - starts[0]
    allowed = seconds * pace.rate
    return Outcome(
        largest_window(starts, pace.period),
        largest_window(server.arrivals, pace.period),
        (len(starts) - pace.count) / allowed,
        (CREATES - pace.count) / allowed,
        server.over,
        server.refused,
    )


def largest_window(times: list[float], period: float) -> int:
    """The largest number of times in any half-open window of a period."""
    times = sorted(times)
    return max(bisect_left(times, begin + period) - n for n, begin in enumerate(times))


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    report = Report("pace", (__doc__ or "").strip())
    report.text(f"{CREATES:,} creates, all waiting from the beginning.")
    for pace in (Pace(1, 3.0), Pace(20, 10.0)):
        rows: list[tuple[str, int, int, float, float, int, int]] = []
        for share in (0.0, 0.01, 0.1):
            with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
                found = runner.run(creates(pace, share, options.seed))
            rows.append(
                (
                    f"{share:.0%}",
                    found.largest,
                    found.largest_arrivals,
                    found.used,
                    found.accepted,
                    found.refused,
                    found.over,
                )
            )
            report.target(
                f"{pace}, {share:.0%} refused: largest count in a window", found.largest, pace.count
            )
            if share == 0:
                report.target(f"{pace}: share of the allowance used", found.used, 0.98, at_least=True)
        report.table(
            f"{pace.count} per {pace.period:g} s",
            (
                "refused at random",
                "most starts in a window",
                "most arrivals in a window",
                "allowance used",
                "accepted of the allowance",
                "refusals at random",
                "refusals over the limit",
            ),
            rows,
        )
    report.write(options.out)


if __name__ == "__main__":
    main()
