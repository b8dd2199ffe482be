"""The protocol of a job store.

A store is small: it changes one row in one transaction, finds rows and lists rows. Which row a key means and
whether it may be reserved is decided by `reservation`, and every other change by `transitions`. Both are pure
functions, so a store decides nothing about money.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import msgspec
from msgspec import UnsetType

from ..api.task import TaskRef
from .job import STATES, Job, JobRequest, JobState, JobTask

if TYPE_CHECKING:
    from .._transport.rate_limiter import RateLimiter
    from .._transport.rate_window import Rate
    from ..clock import Clock

Transition = Callable[[Job | None], Job | None]
"""A change of one row: from the row as it is (None: there is none) to the row as it shall be (None: none).

It is pure and quick, may be called again on newer data, and raises to leave the row as it is.
"""

Merge = Callable[[bytes | None], bytes]
"""A change of a learned state: from the stored one (None: there is none) to the next. Pure and quick."""

SETTLED: Final[tuple[JobState, ...]] = ("finished", "failed")
"""States in which nothing is under way, unknown or still to be fetched: what `purge` removes."""


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of which other processes are notified.

    `kind` is 'webhook' (one about `task_id` was received, `number` is its row), 'freed' (a place in a queue
    or a permit has become free) or 'pause' (requests of a `lane` were refused for their rate; stop for
    `seconds`). `sender` is the owner that has sent it. A `task_id` of '' is not said: by an earlier version,
    or as it is too long for a notice.
    """

    kind: str
    sender: str
    account: str = ""
    lane: str = ""
    seconds: float = 0.0
    number: int = 0
    task_id: str = ""


Subscriber = Callable[[Notice, bytes], None]
"""Called in its loop with a notice, and for one of a webhook with its body."""

Knows = Callable[[str], bool]
"""Returns True for the id of a task whose webhooks a subscriber wants. Quick; called in any thread."""


@runtime_checkable
class SharedStore(Protocol):
    """A `JobStore` that many machines share: with the rate of each account, and webhooks of all."""

    def limiter(
        self, account: str, rate: Rate | UnsetType | None, clock: Clock, max_in_flight: int | None
    ) -> RateLimiter:
        """Return a limiter that keeps one rate with all clients of the account that share the store.

        Args:
            account: the account.
            rate: the rate; None for no limit, UNSET to take that of the store.
            clock: the clock of the client.
            max_in_flight: tasks in flight of all clients together; None: no cap.
        """
        ...

    async def rate(self, account: str) -> Rate | None:
        """Return the rate of an account; None for no limit. 1 per 3 s is written if there is none."""
        ...

    async def set_rate(self, account: str, rate: Rate | None) -> None:
        """Set the rate of an account for all clients, also those that are at work; None for no limit."""
        ...

    async def publish(self, body: bytes, task_id: str) -> None:
        """Hand the body of a webhook to the clients that share the store and know its task."""
        ...

    def subscribe(self, subscriber: Subscriber, knows: Knows) -> Callable[[], None]:
        """Have notices, and the bodies of webhooks, handed to the running loop; returns what ends that.

        Args:
            subscriber: called with each.
            knows: says which webhooks are wanted; others are not read.
        """
        ...


_STATES_BY_NAME: Final[Mapping[str, JobState]] = {state: state for state in STATES}


class JobStore(Protocol):
    """A store of jobs. Safe for use by many tasks, loops and threads, and by all processes that share it.

    A job is identified by its key and its account. `account=""` means that the account was not said, on
    either side: then the key alone identifies it, and of several the job of the same account comes first.

    Every method raises `JobStoreError` when the store cannot be read or written. A change that was begun is
    carried out, in the order of the calls, even if its caller is cancelled.
    """

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        """Apply `transition` to the row of a job in one transaction.

        Args:
            key: the job key.
            transition: the change; what it raises is raised here, and the row stays as it is.
            account: the account of the job.
            durable: True: when this returns, the change outlives a loss of power.

        Returns:
            The row after the change.

        Raises:
            JobKeyConflictError: see `reservation.apply`.
            JobStoreError: the row cannot be read, or the store cannot be used.
        """
        ...

    async def get(self, key: str, *, account: str = "") -> Job | None:
        """Return the job with this key. Raises `JobStoreError` if its row is damaged."""
        ...

    async def find(self, family: str, task_id: str) -> list[Job]:
        """Return the jobs that made this task, oldest first, damaged rows included (`Job.is_readable`)."""
        ...

    async def jobs(self, *states: JobState) -> list[Job]:
        """Return the jobs in these states (none given: all), oldest first, damaged rows included."""
        ...

    async def purge(self, before: float) -> int:
        """Remove the finished and failed jobs that were last changed before a Unix time; return how many.

        Their keys are forgotten: a call with such a key is sent and paid for again. Jobs in other states
        stay, however old they are.
        """
        ...

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim marks, such as the ids of a webhook's delivery, for a time. All or none.

        Args:
            marks: texts of any length.
            now: the Unix time.
            seconds: the time until they may be claimed again.

        Returns:
            False if one of them is claimed already.
        """
        ...

    async def unclaim(self, marks: Collection[str]) -> None:
        """Let marks be claimed again, because what was done under the claim has failed."""
        ...

    async def durations(self) -> Mapping[str, bytes]:
        """Return what was learned about durations: an opaque state for each kind of task."""
        ...

    async def merge_durations(self, kind: str, merge: Merge) -> bytes:
        """Apply `merge` to the state of one kind in one transaction; return the state after it."""
        ...

    async def aclose(self) -> None:
        """Finish what was begun, within seconds, and close. The store opens again when it is used again."""
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
