"""The waiter under everything at once, in virtual time: waits, streams, batches, cancels, time-outs,
webhooks, failing polls, and a client that is closed in the middle."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scripted import ScriptedClient, send_webhook

from musicapi_async._wire.poll_response import judge_webhook, without_response
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.retry import drawing
from musicapi_async.api.operation import Polled
from musicapi_async.api.results import TaskUpdate, Until
from musicapi_async.api.task import Task, TaskRef, handle_of, ref_of
from musicapi_async.clock import Clock
from musicapi_async.errors import ConnectionLostError, MusicAPIError, TaskError, TaskTimeoutError
from musicapi_async.polling.due_queue import MOST_STALE
from musicapi_async.polling.schedule import LearnedSchedule
from musicapi_async.polling.subscribers import Slot
from musicapi_async.polling.waiter import CONCURRENCY, TaskWaiter
from musicapi_async.testing.virtual import VirtualTimeLoop

Fate = Literal["succeeds", "fails", "hangs"]
FILE = "https://cdn1.suno.ai/c.mp3"
STREAM = "https://audiopipe.suno.ai/?item_id=c"


class World(ScriptedClient):
    """A service with scripted tasks, one waiter, and the callers that wait with it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.clock = Clock()
        schedule = LearnedSchedule(draw=drawing(self.rng))
        self.waiter = TaskWaiter(self, schedule, self.clock, drawing(self.rng))
        self.refs: list[TaskRef] = []
        self.ends: dict[str, tuple[float, Fate]] = {}
        self.trouble = 0.0
        self.callers: list[tuple[asyncio.Task[None], set[str]]] = []
        self.polls_now = 0
        self.most_polls = 0

    def submit(self, duration: float, fate: Fate, own: bool = True) -> TaskRef:
        name = f"t{len(self.refs)}"
        now = self.clock.now()
        ref = TaskRef("sonic", name, "create_music", self.clock.time() if own else 0.0, own=own)
        self.ends[name] = (now + duration, fate)
        self.refs.append(ref)
        return ref

    def body(self, name: str) -> dict[str, Any]:
        end, fate = self.ends[name]
        state, url = "running", STREAM
        if self.clock.now() >= end and fate != "hangs":
            state, url = ("succeeded", FILE) if fate == "succeeds" else ("failed", "")
        return {"code": 200, "data": [{"clip_id": "c", "state": state, "audio_url": url}]}

    async def poll(self, ref: TaskRef, polled: Polled, due: float) -> PollResult:
        self.polls_now += 1
        self.most_polls = max(self.most_polls, self.polls_now)
        try:
            await asyncio.sleep(self.rng.uniform(0.01, 2.0))
            if self.rng.random() < self.trouble:
                return without_response(ConnectionLostError("gone", sent=True), ref=ref)
            return judge_webhook(self.body(ref.task_id), ref=ref, polled=polled)
        finally:
            self.polls_now -= 1

    def polling_ended(self, ref: TaskRef, update: TaskUpdate | None) -> None:
        super().polling_ended(ref, update)
        if update is not None:
            self.check(ref, update)

    def deliver(self, name: str) -> None:
        """Send a webhook with the state of a task, or with an end that no poll has found yet."""
        end, fate = self.ends[name]
        self.ends[name] = (min(end, self.clock.now()), fate)
        send_webhook(self.waiter, name, self.body(name))

    # --- callers -----------------------------------------------------------------------------------------

    def start(self, caller: Coroutine[Any, Any, None], names: set[str]) -> None:
        self.callers.append((asyncio.get_running_loop().create_task(caller), names))

    def check(self, ref: TaskRef, outcome: TaskUpdate | Exception, until: Until = "all") -> None:
        """Check that the outcome of a wait is true now."""
        if isinstance(outcome, Exception):
            assert isinstance(outcome, MusicAPIError)
            assert ref.task_id in str(outcome)
            return
        assert outcome.satisfies(until)
        if outcome.is_terminal:
            end, fate = self.ends[ref.task_id]
            assert end <= self.clock.now()
            assert (outcome.error is not None) == (fate == "fails")

    async def wait(self, ref: TaskRef, until: Until, timeout: float | None) -> None:
        begun = self.clock.now()
        try:
            self.check(ref, await self.waiter.wait(ref, until, timeout), until)
        except TaskTimeoutError as error:
            assert self.clock.now() - begun == pytest.approx(timeout or 900.0, abs=0.01)
            assert error.task_id == ref.task_id
        except (TaskError, ConnectionLostError) as error:
            assert ref.task_id in str(error)

    async def follow(self, ref: TaskRef, timeout: float | None) -> None:
        ends = 0
        try:
            async for update in self.waiter.updates(ref, timeout):
                assert not ends, "nothing comes after the end"
                ends += update.is_terminal
                if update.is_terminal:
                    self.check(ref, update)
            assert ends == 1
        except (TaskError, ConnectionLostError):
            assert not ends

    async def wait_each(self, refs: list[TaskRef], timeout: float | None, enough: int) -> None:
        tasks: list[Task[Any]] = [handle_of(ref, None) for ref in refs]  # type: ignore[arg-type]
        remaining = Counter(map(id, tasks))
        waiting = self.waiter.wait_each(tasks, "all", timeout)
        try:
            async for task, outcome in waiting:
                remaining[id(task)] -= 1
                assert remaining[id(task)] == 0, "each task comes once"
                if not isinstance(outcome, TaskTimeoutError):
                    self.check(ref_of(task), outcome)
                if sum(remaining.values()) <= len(tasks) - enough:
                    return
            assert not any(remaining.values())
        except TaskError as error:
            assert "closed" in str(error)
        finally:
            await waiting.aclose()

    # --- invariants -----------------------------------------------------------------------------

    def verify(self) -> None:
        for caller, _ in self.callers:
            if caller.done() and not caller.cancelled():
                caller.result()
        self.callers = [(caller, names) for caller, names in self.callers if not caller.done()]
        wanted: set[str] = set()
        for _, names in self.callers:
            wanted |= names
        assert self.waiter.watched <= len(wanted)
        assert self.most_polls <= CONCURRENCY

    async def finish(self) -> None:
        """Every caller is answered within the default deadline of a wait; closing leaves nothing behind."""
        await asyncio.sleep(2000)
        self.verify()
        assert not self.callers, "a wait remains"
        await self.close()

    async def close(self) -> None:
        await self.waiter.aclose()
        if self.callers:
            _, late = await asyncio.wait([caller for caller, _ in self.callers], timeout=1)
            assert not late, "closing ends every wait"
        self.verify()
        assert self.waiter.watched == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        timers: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        assert [timer for timer in timers if not timer.cancelled()] == []


moments = st.floats(0.1, 300).map(lambda value: round(value, 1))
timeouts = st.none() | moments
untils = st.sampled_from(["all", "first", "stream"])
picks = st.integers(0, 1_000_000)


class WaiterMachine(RuleBasedStateMachine):
    """Callers come and go at random; the loop is virtual, so that hours pass in an instant."""

    @initialize(seed=st.integers(0, 1000))
    def open(self, seed: int) -> None:
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.closed = False

        async def make() -> World:
            world = World(seed)
            world.submit(75.0, "succeeds")
            return world

        self.world = self.runner.run(make())

    def do(self, action: Any) -> None:
        async def turn() -> None:
            action()
            await asyncio.sleep(0)

        self.runner.run(turn())

    def ref(self, pick: int) -> TaskRef:
        return self.world.refs[pick % len(self.world.refs)]

    @rule(
        duration=moments, fate=st.sampled_from(["succeeds", "succeeds", "fails", "hangs"]), own=st.booleans()
    )
    def submit(self, duration: float, fate: Fate, own: bool) -> None:
        self.do(lambda: self.world.submit(duration, fate, own))

    @rule(pick=picks, until=untils, timeout=timeouts)
    def wait(self, pick: int, until: Until, timeout: float | None) -> None:
        ref = self.ref(pick)
        self.do(lambda: self.world.start(self.world.wait(ref, until, timeout), {ref.task_id}))

    @rule(pick=picks, timeout=timeouts)
    def follow(self, pick: int, timeout: float | None) -> None:
        ref = self.ref(pick)
        self.do(lambda: self.world.start(self.world.follow(ref, timeout), {ref.task_id}))

    @rule(some=st.lists(picks, min_size=1, max_size=8), timeout=timeouts, enough=st.integers(1, 8))
    def wait_each(self, some: list[int], timeout: float | None, enough: int) -> None:
        refs = [self.ref(pick) for pick in some]
        names = {ref.task_id for ref in refs}
        self.do(lambda: self.world.start(self.world.wait_each(refs, timeout, enough), names))

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        if self.world.callers:
            caller, _ = self.world.callers[pick % len(self.world.callers)]
            self.do(caller.cancel)

    @rule(pick=picks)
    def deliver(self, pick: int) -> None:
        if not self.closed:
            self.do(lambda: self.world.deliver(self.ref(pick).task_id))

    @rule(share=st.sampled_from([0.0, 0.3, 1.0]))
    def trouble(self, share: float) -> None:
        self.world.trouble = share

    @rule(seconds=st.sampled_from([0.001, 1.0, 20.0, 100.0, 1000.0]))
    def pass_time(self, seconds: float) -> None:
        self.runner.run(asyncio.sleep(seconds))

    @precondition(lambda self: not self.closed)
    @rule(sure=st.integers(0, 9))
    def close(self, sure: int) -> None:
        if sure == 0:
            self.closed = True
            self.runner.run(self.world.close())

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.do(self.world.verify)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.runner.run(self.world.finish())
            finally:
                self.runner.close()


TestWaiterMachine = WaiterMachine.TestCase
TestWaiterMachine.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


async def crowd(count: int) -> None:
    world = World(7)
    world.trouble = 0.02
    rng = random.Random(8)
    fates: tuple[Fate, ...] = ("succeeds",) * 18 + ("fails", "hangs")
    for number in range(count):
        ref = world.submit(rng.lognormvariate(4.3, 0.5), rng.choice(fates))
        timeout = rng.choice((None, None, None, rng.uniform(1, 120)))
        if number % 4 == 0:
            world.start(world.wait(ref, "all", timeout), {ref.task_id})
        elif number % 40 == 1:
            world.start(world.follow(ref, timeout), {ref.task_id})
        if number % 500 == 499:
            batch = world.refs[-500:]
            names = {one.task_id for one in batch}
            world.start(world.wait_each(batch, None, 400 if number % 1500 == 1499 else 500), names)
    for _ in range(60):
        await asyncio.sleep(5)
        for _ in range(count // 400):
            caller, names = world.callers[rng.randrange(len(world.callers))]
            if len(names) == 1:
                caller.cancel()
            world.deliver(rng.choice(world.refs).task_id)
    world.verify()
    queue = world.waiter._queue  # type: ignore[reportPrivateUsage]
    assert len(queue) <= 2 * world.waiter.watched + MOST_STALE
    await world.finish()


def test_five_thousand_tasks_leave_nothing_behind() -> None:
    """With cancels, time-outs, failing polls and webhooks: each wait ends once, and nothing remains."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(crowd(5_000))
    gc.collect()
    assert [one for one in gc.get_objects() if isinstance(one, Slot)] == []
