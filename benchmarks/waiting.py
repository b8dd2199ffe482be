"""What waiting costs: 1,000, 10,000 and 100,000 tasks at once through the waiter, without HTTP.

Durations are log-normal (median 75 s), the policy is the learned one (for CPU also a fixed interval, which
shows what is the waiter's and what the policy's), and a scripted function answers every look. Memory and CPU
are measured in virtual time, each number of tasks in a process of its own, so that the one does not warm up
or litter the other. "Waiting" is the state before the first look; "running" after a
look has shown two running clips, whose text a few waits keep for their errors and many do not. CPU is
process time, less what the scripted polls cost by themselves; decoding one poll (1.8 kB) is timed beside it,
as a measure of what the machine could do at that moment. The lag is that of a real event loop: by how
much a sleep of 5 ms oversleeps while all tasks are watched at the real rate, with polls that take 20 ms.

The public face is `client.wait_all` over 20,000 handles, with a session that answers without a network: what
a handle takes, what waiting adds to it once all are taken in, after a poll that showed running clips, and
after one that failed; and the longest that the event loop stands still while they are taken in, when the wait
is cancelled, and when its time is over, in CPU time, so that other programs do not count.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, cast

import aiohttp
from compared_schedules import FixedSchedule, MadeUpClient
from durations import LN
from report import Report, arguments

from musicapi_async import Clips, MusicAPI
from musicapi_async._wire.poll_response import judge_webhook
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.retry import drawing
from musicapi_async.api.families import polled_of
from musicapi_async.api.operation import Polled
from musicapi_async.api.task import Task, TaskRef, handle_of, ref_of
from musicapi_async.clock import Clock
from musicapi_async.polling.schedule import LearnedSchedule
from musicapi_async.polling.waiter import CONCURRENCY, TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop

SIZES = (1_000, 10_000, 100_000)
LAG_SECONDS = 15.0
POLL_SECONDS = 0.02
REPEATS = 3
FACE = 20_000


def body(state: str) -> str:
    link = "https://cdn.example/c.mp3" if state == "succeeded" else "https://audiopipe.suno.ai/?item_id=c"
    lyrics = "A line that rhymes with nothing much\n" * 20
    clips = [{"clip_id": f"c{n}", "state": state, "audio_url": link, "lyrics": lyrics} for n in (1, 2)]
    return json.dumps({"code": 200, "message": "success", "data": clips})


class Polls(MadeUpClient):
    """Answers polls of tasks of scripted durations; counts them."""

    def __init__(self, seed: int, *, fresh: bool = False, takes: float = 0.0) -> None:
        self.rng = Random(seed)
        self.ends: dict[str, float] = {}
        self.count = 0
        self.fresh = fresh  # a body of its own for each answer, as memory is measured; else time is
        self.takes = takes
        self.ready = {state: self.read(TaskRef("sonic", "t"), state) for state in ("running", "succeeded")}

    def task(self, number: int, submitted: float = 0.0) -> Task[Any]:
        name = f"00000000-0000-4000-8000-{number:012d}"
        self.ends[name] = LN.draw(self.rng)
        return handle_of(TaskRef("sonic", name, "create_music", submitted, "sonic-v6", own=True), None)  # type: ignore[arg-type]

    async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
        self.count += 1
        if self.takes:
            await asyncio.sleep(self.takes)
        state = "succeeded" if asyncio.get_running_loop().time() >= self.ends[ref.task_id] else "running"
        return self.read(ref, state) if self.fresh else self.ready[state]

    @staticmethod
    def read(ref: TaskRef, state: str) -> PollResult:
        return judge_webhook(json.loads(body(state)), ref=ref, polled=polled_of(ref))


def waiter_of(polls: Polls, seed: int, *, learned: bool = True) -> TaskWaiter:
    draw = drawing(
        Random(f"jitter {seed}")
    )  # with the seed of the durations, quick tasks would be polled late
    schedule = LearnedSchedule(draw=draw) if learned else FixedSchedule(20, draw=draw)
    return TaskWaiter(polls, schedule, Clock(), draw)


async def wait_for(waiter: TaskWaiter, tasks: list[Task[Any]]) -> int:
    return len([task async for task, _ in waiter.wait_each(tasks, "all", None)])


def virtual(main: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


# --- each measured in a process of its own ------------------------------------------------------------------


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def memory(count: int, traced: bool, running: bool) -> float:
    """Bytes per task while all wait: before the first look, or after one that showed running clips."""

    async def main() -> float:
        polls = Polls(1, fresh=True)
        tasks = [polls.task(n) for n in range(count)]
        if running:
            polls.ends = dict.fromkeys(polls.ends, 1e6)
        waiter = waiter_of(polls, 1)
        gc.collect()
        if traced:
            tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0] if traced else resident()
        waiting = asyncio.ensure_future(wait_for(waiter, tasks))
        while waiter.watched < count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        while running and polls.count < count:  # noqa: ASYNC110
            await asyncio.sleep(1)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0] if traced else resident()
        waiting.cancel()
        await asyncio.wait([waiting])
        await waiter.aclose()
        return (after - before) / count

    return float(virtual(main))


def effort(count: int, learned: bool, seed: int) -> tuple[float, float, float, float]:
    """µs of CPU per poll beyond the look, polls per task, µs of CPU per task for everything, and what
    decoding the body of a poll with `json.loads` takes at this time."""

    async def main() -> tuple[float, float, float, float]:
        polls = Polls(seed)
        tasks = [polls.task(n) for n in range(count)]
        waiter = waiter_of(polls, seed, learned=learned)
        gc.collect()
        begun = time.process_time()
        assert await wait_for(waiter, tasks) == count
        cpu = time.process_time() - begun
        sent = polls.count
        gc.collect()
        begun = time.process_time()
        for task in tasks:
            await polls.poll(ref_of(task), polled_of(ref_of(task)), 0.0)
        poll = (time.process_time() - begun) / count
        raw = body("running")
        begun = time.process_time()
        for _ in range(2000):
            json.loads(raw)
        decoding = (time.process_time() - begun) / 2000
        return (cpu / sent - poll) * 1e6, sent / count, cpu / count * 1e6, decoding * 1e6

    return virtual(main)  # type: ignore[no-any-return]


def lag(count: int, seed: int) -> tuple[float, float, float]:
    """Lag of a real loop in ms, the 99th percentile and the longest, and polls per second."""

    async def main() -> tuple[float, float, float]:
        polls = Polls(seed, takes=POLL_SECONDS)
        now = time.time()
        tasks = [polls.task(n, now - polls.rng.uniform(0, 60)) for n in range(count)]
        begun = asyncio.get_running_loop().time()
        polls.ends = {name: begun + polls.rng.uniform(0, 120) for name in polls.ends}
        waiter = waiter_of(polls, seed)
        gc.collect()
        gc.freeze()
        waiting = asyncio.ensure_future(wait_for(waiter, tasks))
        late: list[float] = []
        end = time.perf_counter() + LAG_SECONDS
        while (begun := time.perf_counter()) < end:
            await asyncio.sleep(0.005)
            late.append(time.perf_counter() - begun - 0.005)
        sent = polls.count
        waiting.cancel()
        await asyncio.wait([waiting])
        await waiter.aclose()
        late.sort()
        return late[len(late) * 99 // 100] * 1e3, late[-1] * 1e3, sent / LAG_SECONDS

    return asyncio.run(main())


class Answers:
    """A session as the client uses it, which answers every poll without a network."""

    def __init__(self, failing: bool) -> None:
        self.count = 0
        self.failing = failing
        self.status = 200
        self.headers: dict[str, str] = {}
        self.content = self

    async def request(self, *args: object, **options: object) -> Any:
        await asyncio.sleep(POLL_SECONDS)
        self.count += 1
        if self.failing:
            raise aiohttp.ServerDisconnectedError
        return self

    async def readany(self) -> bytes:
        return body("running").encode()

    def at_eof(self) -> bool:
        return True

    async def close(self) -> None:
        pass

    def ws_connect(self) -> None:
        """By this method the client tells a session from one of httpx."""


async def face(failing: bool, use: Callable[[MusicAPI, Answers], Awaitable[Any]]) -> Any:
    logging.getLogger("musicapi_async").setLevel(logging.ERROR)
    answers = Answers(failing)
    async with MusicAPI("k" * 32, session=cast(Any, answers)) as client:
        answers.failing = False
        await client.task("sonic", "first").refresh()  # the host is known to respond
        answers.failing, answers.count = failing, 0
        return await use(client, answers)


def handles(client: MusicAPI) -> list[Task[Clips]]:
    kind, now = "create_music", time.time()
    return [
        client.task("sonic", f"00000000-0000-4000-8000-{n:012d}", kind=kind, submitted_at=now)
        for n in range(FACE)
    ]


def face_memory(failing: bool) -> tuple[float, float, float]:
    """Bytes of a handle, and what each task adds to it: once all are taken in, and after a poll."""

    def traced() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def use(client: MusicAPI, answers: Answers) -> tuple[float, float, float]:
        gc.collect()
        tracemalloc.start()
        before = traced()
        tasks = handles(client)
        made = traced()
        waiting = asyncio.ensure_future(client.wait_all(tasks))
        await asyncio.sleep(POLL_SECONDS / 2)  # virtual time: all are taken in, and none is answered
        taken_in = traced()
        while answers.count < FACE:  # noqa: ASYNC110
            await asyncio.sleep(1)
        polled = traced()
        waiting.cancel()
        await asyncio.wait([waiting])
        return (made - before) / FACE, (taken_in - made) / FACE, (polled - made) / FACE

    return cast("tuple[float, float, float]", virtual(lambda: face(failing, use)))


async def longest_gap(until: Callable[[], bool]) -> float:
    """The longest CPU time in ms between two turns of the loop."""
    gaps: list[float] = []
    last = time.thread_time()
    while not until():
        await asyncio.sleep(0)
        now = time.thread_time()
        gaps.append(now - last)
        last = now
    return max(gaps) * 1e3


def face_gaps() -> tuple[float, float, float]:
    """The longest gaps of a real loop: `wait_all` takes the tasks in, is cancelled, or runs out of time."""

    async def use(client: MusicAPI, answers: Answers) -> tuple[float, float, float]:
        tasks = handles(client)
        gc.collect()
        waiting = asyncio.ensure_future(client.wait_all(tasks))
        # Some polls run before all tasks are taken in.
        taken_in = await longest_gap(lambda: answers.count >= 4 * CONCURRENCY)
        waiting.cancel()
        cancelled = await longest_gap(waiting.done)
        late = asyncio.ensure_future(client.wait_all(tasks, timeout=2, return_exceptions=True))
        await asyncio.sleep(1)  # all are taken in
        return taken_in, cancelled, await longest_gap(late.done)

    return cast("tuple[float, float, float]", asyncio.run(face(False, use)))


def apart(measure: Callable[[], Any]) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    report = Report("waiting", (__doc__ or "").strip())
    rows: list[tuple[str, float, float, float, float]] = []
    spent: list[tuple[str, str, float, float, float, float]] = []
    lags: list[tuple[str, float, float, float]] = []
    for count in options.sizes:
        name = f"{count:,}"
        rows.append(
            (
                name,
                *(
                    apart(partial(memory, count, traced, running))
                    for running in (False, True)
                    for traced in (True, False)
                ),
            )
        )
        for learned in (True, False):
            efforts = [apart(partial(effort, count, learned, options.seed + n)) for n in range(REPEATS)]
            policy = "learned" if learned else "every 20 s"
            spent.append((name, policy, *(median(one[k] for one in efforts) for k in range(4))))
        lags.append((name, *apart(partial(lag, count, options.seed))))
    handle, taken_in, polled = apart(partial(face_memory, False))
    failed = apart(partial(face_memory, True))[2]
    gaps = list(zip(*(apart(face_gaps) for _ in range(REPEATS)), strict=True))
    taking_in, cancelled, late = map(median, gaps)
    report.table(
        "Bytes per task",
        ("tasks", "waiting, traced", "waiting, RSS", "running, traced", "running, RSS"),
        rows,
    )
    report.table(
        "CPU",
        (
            "tasks",
            "policy",
            "scheduling per poll µs",
            "polls per task",
            "everything per task µs",
            "json.loads of a poll µs",
        ),
        spent,
    )
    report.table("Lag of the loop", ("tasks", "99 % ms", "longest ms", "polls per second"), lags)
    report.table(
        f"`client.wait_all` over {FACE:,} tasks",
        ("a handle takes", "bytes"),
        [
            ("by itself", handle),
            ("more while it waits", taken_in),
            ("more after a poll", polled),
            ("more after a failed poll", failed),
        ],
    )
    report.text(
        f"The loop stood still for {taking_in:.1f} ms at the longest while they were taken in, for "
        f"{cancelled:.1f} ms when the wait was cancelled, and for {late:.1f} ms when its time was over."
    )
    report.target("bytes per waiting task, traced, at most", max(row[1] for row in rows), 600)
    report.target("bytes per running task, traced, at 100,000", rows[-1][3], 600)
    report.target("scheduling per poll at 100,000, µs", spent[-2][2], 15)
    report.target("scheduling per poll at 100,000 with a fixed interval, µs", spent[-1][2], 15)
    report.target("lag of the loop, 99 %, ms", max(row[1] for row in lags), 20)
    report.target("bytes that `wait_all` adds to a handle, at most", max(taken_in, polled, failed), 600)
    report.target("longest stop of the loop while it takes 20,000 tasks in, ms", taking_in, 20)
    report.target("longest stop of the loop when a wait for 20,000 tasks is cancelled, ms", cancelled, 20)
    report.target("longest stop of the loop when the time of 20,000 tasks is over, ms", late, 20)
    report.target("CPU per task, 100,000 against 1,000", spent[-2][4] / spent[0][4], 1.25)
    report.write(options.out)


if __name__ == "__main__":
    main()
