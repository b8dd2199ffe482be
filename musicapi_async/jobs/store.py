"""The protocol of a job store.

A store changes one row in one transaction, finds rows and lists rows. `reservation` decides which row a key
means and if it may be reserved, and `transitions` decides every other change. Both are pure functions, so a
store makes no decision about money.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from _thread import start_new_thread
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, runtime_checkable

import msgspec
from msgspec import UnsetType

from ..api.task import TaskRef
from .job import STATES, Job, JobRequest, JobState, JobTask

if TYPE_CHECKING:
    from .._transport.rate_limiter import RateLimiter
    from .._transport.rate_window import Rate
    from ..clock import Clock

Transition = Callable[[Job | None], Job | None]
"""A function from the present row of a job (None if there is none) to its next row (None to remove it).

It must be pure and quick; it may be called again with newer data. If it raises, the row is not changed.
"""

Merge = Callable[[bytes | None], bytes]
"""A pure, quick function from the stored learned state (None if there is none) to the next one."""

SETTLED: Final[tuple[JobState, ...]] = ("finished", "failed")
"""States in which nothing is under way, unknown, or still to be fetched; `purge` removes such jobs."""


class Closable(Protocol):
    """A connection to a database, or what uses one."""

    def close(self) -> None:
        """Close it."""
        ...


C = TypeVar("C", bound=Closable)
P = ParamSpec("P")
R = TypeVar("R")


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message to the other processes that share a store.

    `kind` is 'webhook' (one about `task_id` was received, `number` is its row), 'freed' (a place in a queue
    or a permit has become free) or 'pause' (requests of a `lane` were refused for their rate; pause for
    `seconds`). `sender` is the owner that sent it. `task_id` is '' if it is unknown: an earlier version sent
    the notice, or the id is too long for a notice.
    """

    kind: str
    sender: str
    account: str = ""
    lane: str = ""
    seconds: float = 0.0
    number: int = 0
    task_id: str = ""


Subscriber = Callable[[Notice, bytes], None]
"""A function that is called in its event loop with a notice, and for a webhook with its body."""

Knows = Callable[[str], bool | None]
"""A quick function for any thread: True for the id of a task whose webhooks a subscriber wants."""


def weakly(method: Callable[P, R]) -> Callable[P, R | None]:
    """Return a function that calls a method for as long as something else has its object; then it is None."""
    known = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        found = known()
        return None if found is None else found(*args, **kwargs)

    return call


@runtime_checkable
class SharedStore(Protocol):
    """A `JobStore` that many machines share: it also has the rate of each account, and delivers webhooks."""

    def limiter(
        self, account: str, rate: Rate | UnsetType | None, clock: Clock, max_in_flight: int | None
    ) -> RateLimiter:
        """Return a limiter with one rate for all clients of the account that share the store.

        Args:
            account: the account.
            rate: the rate; None for no limit, UNSET to take that of the store.
            clock: the clock of the client.
            max_in_flight: tasks in flight of all clients together; None: no cap.
        """
        ...

    async def rate(self, account: str) -> Rate | None:
        """Return the rate of an account; None for no limit. If none is stored, store and return 1 per 3 s."""
        ...

    async def set_rate(self, account: str, rate: Rate | None) -> None:
        """Set the rate of an account for all its clients, also running ones; None for no limit."""
        ...

    async def publish(self, body: bytes, task_id: str) -> None:
        """Deliver the body of a webhook to the clients that share the store and know its task."""
        ...

    def subscribe(self, subscriber: Subscriber, knows: Knows) -> Callable[[], None]:
        """Deliver notices, and the bodies of webhooks, to the running event loop.

        Args:
            subscriber: the function that is called with each of them.
            knows: returns True for the tasks whose webhooks are wanted; other bodies are not read.

        Returns:
            A function that ends the subscription.
        """
        ...


@runtime_checkable
class ReopenedStore(Protocol):
    """A `JobStore` that, once it was closed, each use opens and closes, until a client has it again."""

    def reopen(self) -> None:
        """Stay open from the next use on, until `aclose`."""
        ...


_STATES_BY_NAME: Final[Mapping[str, JobState]] = {state: state for state in STATES}


class JobStore(Protocol):
    """A store of jobs. Tasks, event loops, threads and processes may share it.

    A job is identified by its key and its account. If the caller names no account (`account=""`), or a job
    has none, the key alone identifies it; of several jobs with this key, the one of the same account comes
    first.

    Every method raises `JobStoreError` if the store cannot be read or written. Changes are carried out in the
    order of the calls, even if a caller is cancelled.
    """

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        """Apply `transition` to the row of a job in one transaction.

        Args:
            key: the job key.
            transition: the change. If it raises, the error is raised here, and the row is not changed.
            account: the account of the job.
            durable: True to return only when the change would survive a loss of power.

        Returns:
            The row after the change; None if there is none.

        Raises:
            JobKeyConflictError: see `reservation.apply`.
            JobStoreError: the row cannot be read, or the store cannot be used.
        """
        ...

    async def get(self, key: str, *, account: str = "") -> Job | None:
        """Return the job with this key, or None. Raises `JobStoreError` if its row is damaged."""
        ...

    async def find(self, family: str, task_id: str) -> list[Job]:
        """Return the jobs that made this task, oldest first, including damaged rows (`Job.is_readable`)."""
        ...

    async def jobs(self, *states: JobState) -> list[Job]:
        """Return the jobs in these states, or all if none is given, oldest first, including damaged rows."""
        ...

    async def purge(self, before: float) -> int:
        """Remove the finished and failed jobs that were last changed before a Unix time; return how many.

        Their keys are removed, too: a call with such a key is sent and paid for again. Jobs in other states
        are never removed.
        """
        ...

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim all marks, such as the ids of a webhook's delivery, for a time.

        Args:
            marks: texts of any length.
            now: the Unix time.
            seconds: the time after which they can be claimed again.

        Returns:
            True if all were claimed; False if one of them is claimed already, and then none is claimed.
        """
        ...

    async def unclaim(self, marks: Collection[str]) -> None:
        """Release marks, so that they can be claimed again, because the work under the claim failed."""
        ...

    async def durations(self) -> Mapping[str, bytes]:
        """Return the learned durations: an opaque state for each kind of task."""
        ...

    async def merge_durations(self, kind: str, merge: Merge) -> bytes:
        """Apply `merge` to the state of one kind in one transaction; return the state after it."""
        ...

    async def aclose(self) -> None:
        """Finish what was begun, within seconds, and close. May be repeated.

        A paid call whose caller is gone may use the store later than that: the store opens again, and must
        close itself when nothing is under way, as no one else does.
        """
        ...


def damaged_job(columns: Sequence[object], refs: Iterable[tuple[str, str]], error: Exception) -> Job:
    """Return the job of a row whose record cannot be read.

    Args:
        columns: the row's key, account, state and time of creation.
        refs: family and id of each of its tasks.
        error: why its record cannot be read.
    """
    key, account, state = map(str, columns[:3])
    created_at = float(str(columns[3]))
    return Job(
        key=key,
        account=account,
        state=_STATES_BY_NAME.get(state, "ambiguous"),
        request=JobRequest("", "", "null"),
        created_at=created_at,
        updated_at=created_at,
        tasks=tuple(JobTask(ref=TaskRef(family, task_id)) for family, task_id in refs),
        why=f"its record cannot be read ({error})",
        is_readable=False,
    )


def take_error(done: asyncio.Future[Any]) -> None:
    """Take the error of work that a store has begun, so that asyncio does not report it as unhandled."""
    if not done.cancelled():
        done.exception()


_of_parents: Final[list[object]] = []
"""Connections of the process that this one was forked from, of stores that are dropped here; left open."""


def close_with_owner(owner: object, opened: list[C]) -> None:
    """Close the connections in `opened` when `owner` is dropped without being closed.

    Its `__del__` would be too late: if `owner` is part of a reference cycle, a connection may be finalized
    first, and warns that it was never closed. A thread closes them, as that may take a while, and a new one,
    as that takes no lock: garbage collection may run in a thread that holds any lock, such as that which
    thread pools share.
    """
    process = os.getpid()

    def close() -> None:
        if os.getpid() != process:
            _of_parents.extend(opened)
            return
        with contextlib.suppress(RuntimeError):  # the interpreter ends, which closes it
            for connection in opened:
                start_new_thread(connection.close, ())

    weakref.finalize(owner, close).atexit = False
