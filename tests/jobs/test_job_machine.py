"""No order of calls, answers and deaths pays twice for a key or forgets what was paid for."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from musicapi_async.api.task import TaskRef
from musicapi_async.errors import JobKeyConflictError, JobStoreError, RequestValidationError
from musicapi_async.jobs import (
    Job,
    JobRequest,
    JobStore,
    JobTask,
    MemoryStore,
    Owner,
    SQLiteStore,
    Transition,
    reservation,
    transitions,
)

KEYS = ("a", "b")
MOVES = {move for row in transitions.TRANSITIONS.values() for move in row.items()}


@dataclass(eq=False)
class Sender:
    """A process that was given a key to send under."""

    key: str
    owner: Owner
    attempts: int
    sent: bool = False
    task: TaskRef | None = None


def request_for(key: str, variant: int = 0) -> JobRequest:
    """The request that belongs to a key."""
    return JobRequest(
        "POST /sonic/create", "http://host", f'{{"title":"{key}{variant}"}}', "sonic", "create_music"
    )


class Machine(RuleBasedStateMachine):
    """Processes that begin, send, get answers and die in any order, on one store."""

    senders = Bundle("senders")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = self.make()
        self.living: set[str] = set()
        self.paid: dict[str, list[TaskRef]] = {key: [] for key in KEYS}
        self.decisions = dict.fromkeys(KEYS, 0)
        self.count = 0

    def make(self) -> JobStore:
        """The store under test."""
        return MemoryStore()

    def teardown(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()

    def change(self, key: str, step: Transition) -> Job | None:
        before = self.runner.run(self.store.get(key))
        after = self.runner.run(self.store.change(key, step, durable=self.count % 2 == 0))
        moved = (before.state if before else None, after.state if after else None)
        undone = before is not None and after is not None and after.attempts < before.attempts
        assert moved[0] == moved[1] or undone or moved in MOVES
        return after

    def alive(self, owner: Owner) -> bool:
        return owner.nonce in self.living

    def born(self) -> Owner:
        self.count += 1
        owner = Owner("host", "boot", self.count, "1", str(self.count))
        self.living.add(owner.nonce)
        return owner

    @rule(target=senders, key=st.sampled_from(KEYS))
    def begin(self, key: str):
        """A call with a key: it may send, or must wait, or gets the result of the key."""
        owner = self.born()
        job = self.change(key, reservation.reserve(key, request_for(key), owner, self.alive, self.count))
        assert job is not None
        if job.state == "reserved" and job.owner == owner:
            return Sender(key, owner, job.attempts)
        if job.state in ("accepted", "finished", "failed"):
            assert job.task in self.paid[key]
        return multiple()

    @rule(key=st.sampled_from(KEYS))
    def begin_with_another_request(self, key: str) -> None:
        """A key that was used refuses another request and stays as it is."""
        before = self.runner.run(self.store.get(key))
        owner = self.born()
        try:
            job = self.change(
                key, reservation.reserve(key, request_for(key, 1), owner, self.alive, self.count)
            )
        except JobKeyConflictError as error:
            assert error.difference == (f"title: '{key}0' before, '{key}1' now",)
            assert self.runner.run(self.store.get(key)) == before
        else:
            assert before is None or before.state == "reserved"
            assert job is not None
            self.change(key, transitions.released(owner))

    @rule(sender=senders)
    def leave(self, sender: Sender) -> None:
        """A living process sends, if its reservation is still its own."""
        if sender.sent or sender.owner.nonce not in self.living:
            return
        try:
            self.change(sender.key, transitions.sending(sender.owner, self.count))
        except JobStoreError:
            return
        sender.sent = True

    @rule(sender=senders)
    def take(self, sender: Sender) -> None:
        """The service takes what was sent, and charges."""
        if sender.sent and sender.task is None:
            self.count += 1
            sender.task = TaskRef("sonic", f"task-{self.count}", "create_music")
            self.paid[sender.key].append(sender.task)

    @rule(sender=consumes(senders))
    def answer(self, sender: Sender) -> None:
        """The answer arrives, if its process lives; or the loss of it does."""
        if not sender.sent or sender.owner.nonce not in self.living:
            return
        if sender.task is not None:
            lost = Job(
                key=sender.key,
                state="sent",
                request=request_for(sender.key),
                created_at=0,
                updated_at=0,
                attempts=sender.attempts,
            )
            self.change(
                sender.key,
                transitions.accepted(lost, (JobTask(ref=sender.task),), "{}", self.count),
            )
        else:
            self.change(sender.key, transitions.released(sender.owner))
        self.living.discard(sender.owner.nonce)

    @rule(sender=consumes(senders))
    def lose(self, sender: Sender) -> None:
        """The connection drops: the outcome is unknown."""
        if sender.owner.nonce in self.living:
            step = transitions.unknown if sender.sent else None
            if step is not None:
                self.change(sender.key, step(sender.owner, "lost", None, self.count))
            else:
                self.change(sender.key, transitions.released(sender.owner))
            self.living.discard(sender.owner.nonce)

    @rule(sender=senders)
    def refused_for_now(self, sender: Sender) -> None:
        """The service refuses for now; the process keeps its reservation."""
        if sender.sent and sender.task is None and sender.owner.nonce in self.living:
            self.change(sender.key, transitions.returned(sender.owner, self.count))
            sender.sent = False

    @rule(sender=senders)
    def die(self, sender: Sender) -> None:
        """A process is killed."""
        self.living.discard(sender.owner.nonce)

    @rule(key=st.sampled_from(KEYS), failed=st.booleans())
    def end(self, key: str, failed: bool) -> None:
        """The task of a key ends."""
        job = self.runner.run(self.store.get(key))
        if job is not None and job.task is not None:
            found = self.runner.run(self.store.find("sonic", job.task.task_id))
            assert found == [job]
            self.change(
                key, transitions.ended(job.task, "failed" if failed else "succeeded", failed, "", self.count)
            )

    @rule(key=st.sampled_from(KEYS))
    def resolve(self, key: str) -> None:
        """A person finds the task of an ambiguous job."""
        job = self.runner.run(self.store.get(key))
        known = [job.task] if job is not None and job.task is not None else []
        previous = [job.previous.task] if job is not None and job.previous is not None else []
        fresh = [task for task in self.paid[key] if task not in known and task not in previous]
        if not fresh:
            return
        try:
            changed = self.change(key, transitions.resolved(key, fresh[-1], self.alive, self.count))
        except RequestValidationError:
            return
        assert changed is not None
        assert changed.task == fresh[-1]

    @rule(target=senders, key=st.sampled_from(KEYS))
    def reopen(self, key: str):
        """A person decides to send an ambiguous or failed job once more."""
        owner = self.born()
        try:
            job = self.change(key, reservation.resubmitted(key, owner, self.alive, self.count))
        except RequestValidationError:
            return multiple()
        assert job is not None
        self.decisions[key] += 1
        return Sender(key, owner, job.attempts)

    @invariant()
    def at_most_one_charge_for_each_decision(self) -> None:
        """Nothing but a decision to send once more makes a second charge possible."""
        for key in KEYS:
            assert len(self.paid[key]) <= 1 + self.decisions[key]

    @invariant()
    def nothing_paid_is_forgotten(self) -> None:
        """A paid task has a row that says so, or that its outcome is unknown."""
        for key in KEYS:
            if self.paid[key]:
                job = self.runner.run(self.store.get(key))
                assert job is not None
                # A reservation on top of a previous send is one that a person decided on.
                assert job.state != "reserved" or job.previous is not None


class SQLiteMachine(Machine):
    """The same on a file."""

    def make(self) -> JobStore:
        self.folder = tempfile.TemporaryDirectory()
        return SQLiteStore(Path(self.folder.name) / "jobs.sqlite")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestMemoryMachine = Machine.TestCase
TestMemoryMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSQLiteMachine = SQLiteMachine.TestCase
TestSQLiteMachine.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
