"""Creates under a rate: how many start in any window, and how much of the allowance is used.

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

from musicapi_async._transport.rate_limiter import LaneLimits, MemoryLimiter
from musicapi_async._transport.rate_window import Rate
from musicapi_async._wire.retry import AttemptFailure, decide, drawing
from musicapi_async.options import Options
from musicapi_async.testing.virtual import VirtualTimeLoop

CREATES = 2000
LATENCY = 0.03
ANSWER = 0.4
WAITERS = 1000


@dataclass
class Server:
    """Refuses a share at random, and whatever exceeds its limit."""

    rate: Rate
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
        while self.accepted and self.accepted[0] <= now - self.rate.period:
            self.accepted.popleft()
        if len(self.accepted) >= self.rate.count:
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


async def creates(rate: Rate, share: float, seed: int) -> Outcome:
    rng = Random(seed)
    loop = asyncio.get_running_loop()
    limiter = MemoryLimiter({"submit": LaneLimits(64, rate)})
    server = Server(rate, share, rng)
    options = Options(max_retries=20)
    starts: list[float] = []

    async def create() -> None:
        for attempt in range(1, options.max_retries + 2):
            async with limiter.slot("submit"):
                starts.append(loop.time())
                done = await server.create()
            if done:
                limiter.succeeded("submit")
                return
            wait = decide("create", AttemptFailure.RATE_LIMITED, attempt, None, options, drawing(rng)) or 0.0
            limiter.pause("submit", min(wait, 1.0))
            await asyncio.sleep(wait)
        raise RuntimeError("a create was refused more often than a policy repeats it")

    await asyncio.gather(*(create() for _ in range(CREATES)))
    # The first window is full at once; what is allowed is counted from its end.
    seconds = starts[-1] - starts[0]
    allowed = seconds * rate.per_second
    return Outcome(
        largest_window(starts, rate.period),
        largest_window(server.arrivals, rate.period),
        (len(starts) - rate.count) / allowed,
        (CREATES - rate.count) / allowed,
        server.over,
        server.refused,
    )


@dataclass
class Unknown:
    """What a lane without a configured rate made of a limit that nobody told it."""

    used: float
    refusals: float
    first: int


async def unknown_limit(per_second: float, seed: int) -> Unknown:
    """`WAITERS` callers poll without end for 20 minutes; in the second five the limit is halved."""
    rng = Random(seed)
    loop = asyncio.get_running_loop()
    limiter = MemoryLimiter({"poll": LaneLimits(64)})
    options = Options()
    tokens, filled, begun = per_second, loop.time(), loop.time()
    allowed = 0.0
    accepted = refused = first = 0

    def admit() -> bool:
        nonlocal tokens, filled, allowed
        now = loop.time()
        rate = per_second / 2 if 300 <= now - begun < 600 else per_second
        allowed += (now - filled) * rate
        tokens = min(tokens + (now - filled) * rate, max(rate, 1.0))
        filled = now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    async def caller() -> None:
        nonlocal accepted, refused, first
        while True:
            async with limiter.slot("poll"):
                await asyncio.sleep(rng.uniform(0.02, 0.08))
                if done := admit():
                    accepted += 1
                else:
                    refused += 1
                    first += loop.time() - begun < 60
            if done:
                limiter.succeeded("poll")
            else:
                # Nobody said how long to wait: stop the lane for a moment, the cut does the rest.
                limiter.pause(
                    "poll",
                    0.5 * (decide("get", AttemptFailure.RATE_LIMITED, 1, None, options, drawing(rng)) or 0.0),
                )

    callers = [asyncio.create_task(caller()) for _ in range(WAITERS)]
    await asyncio.sleep(1200)
    for task in callers:
        task.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    return Unknown(accepted / allowed, refused / accepted, first)


def largest_window(times: list[float], period: float) -> int:
    """The largest number of times in any half-open window of a period."""
    times = sorted(times)
    return max(bisect_left(times, begin + period) - n for n, begin in enumerate(times))


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    report = Report("rate", (__doc__ or "").strip())
    report.text(f"{CREATES:,} creates, all waiting from the beginning.")
    for rate in (Rate(1, 3.0), Rate(20, 10.0)):
        rows: list[tuple[str, int, int, float, float, int, int]] = []
        for share in (0.0, 0.01, 0.1):
            with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
                found = runner.run(creates(rate, share, options.seed))
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
                f"{rate}, {share:.0%} refused: largest count in a window", found.largest, rate.count
            )
            if share == 0:
                report.target(f"{rate}: share of the allowance used", found.used, 0.98, at_least=True)
        report.table(
            f"{rate.count} per {rate.period:g} s",
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
    unknown: list[tuple[str, float, float, int]] = []
    for per_second in (1.0, 5.0, 20.0):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            learned = runner.run(unknown_limit(per_second, options.seed))
        unknown.append((f"{per_second:g} per second", learned.used, learned.refusals, learned.first))
    report.table(
        f"A limit that nobody told: {WAITERS:,} callers for 20 minutes, the limit halved in the second five",
        ("true limit", "use of the limit", "refusals per accepted call", "refusals in the first minute"),
        unknown,
    )
    report.write(options.out)


if __name__ == "__main__":
    main()
