"""The protocol of a job store, and the rules that every store follows.

A store is small: it changes one row in one transaction, finds rows and lists rows. Which change is right is
decided by the pure functions of `transitions`, and which row a key means by `apply`, so a store decides
nothing about money.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from ..errors import JobStoreError
from .job import Job, JobState
from .job_errors import conflict

Step = Callable[[Job | None], Job | None]
"""A change of one row: from the row as it is (None: there is none) to the row as it shall be (None: none).

It is pure and quick, may be called again on newer data, and raises to leave the row as it is.
"""

Merge = Callable[[bytes | None], bytes]
"""A change of a learned state: from the stored one (None: there is none) to the next. Pure and quick."""

FINGERPRINT: Final = re.compile(r"key-[0-9a-f]{16}")
"""An account that was derived from an API key, because `MusicAPI(account=...)` did not name one."""

SETTLED: Final[tuple[JobState, ...]] = ("finished", "failed")
"""States in which nothing is under way, unknown or still to be fetched: what `purge` removes."""


class JobStore(Protocol):
    """A store of jobs. Safe for use by many tasks, loops and threads, and by all processes that share it.

    A job is identified by its key and its account. `account=""` means that the account was not said, on
    either side: then the key alone identifies it, and of several the job of the same account comes first.

    Every method raises `JobStoreError` when the store cannot be read or written. A change that was begun is
    carried out, in the order of the calls, even if its caller is cancelled.
    """

    async def change(self, key: str, step: Step, *, account: str = "", durable: bool = False) -> Job | None:
        """Apply `step` to the row of a job in one transaction.

        Args:
            key: the job key.
            step: the change; what it raises is raised here, and the row stays as it is.
            account: the account of the job.
            durable: True: when this returns, the change outlives a loss of power.

        Returns:
            The row after the change.

        Raises:
            JobKeyConflictError: see `apply`.
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


class Change(NamedTuple):
    """A row before and after a step; None: there is none."""

    before: Job | None
    after: Job | None


def choose(rows: Sequence[Job], account: str) -> Job | None:
    """Return the row that a key means for an account: its own, else one where either account is not said.

    Args:
        rows: all rows with the key, oldest first.
        account: the account of the caller; '' if it was not said.
    """
    exact = (row for row in rows if row.account == account)
    unsaid = (row for row in rows if not (row.account and account))
    return next(exact, None) or next(unsaid, None)


def readable(job: Job | None) -> Job | None:
    """Return the job; raise `JobStoreError` if its record is damaged: a decision would be a guess."""
    if job is not None and not job.is_readable:
        named = f", which made task {job.task_id}," if job.task_id is not None else ""
        raise JobStoreError(
            f"job {job.key!r}{named} is damaged in the store: {job.why}",
            hint="Search for its song in the dashboard, and use another job key if it is not there.",
        )
    return job


def apply(rows: Sequence[Job], key: str, step: Step, account: str) -> Change:
    """Apply a step to the row that a key means for an account; every store changes rows by this alone.

    Args:
        rows: all rows with the key, oldest first.
        key: the job key.
        step: the change.
        account: the account of the caller; '' if it was not said.

    Returns:
        The row before and after. It keeps its account.

    Raises:
        JobKeyConflictError: the step reserves a key that exists under another account only, and one of the
            two accounts is a fingerprint of an API key. A key that was replaced is still of the same account,
            so paying again would perhaps pay twice; only the caller can tell. Accounts that were both named
            are different accounts, with a job each.
        JobStoreError: the row is damaged.
    """
    before = readable(choose(rows, account))
    after = step(before)
    if after is not None:
        owned = account if before is None else before.account
        if after.account != owned:
            after = msgspec.structs.replace(after, account=owned)
        if before is None and after.state == "reserved":
            for row in rows:
                if may_be_same(row.account, account):
                    raise conflict(row, account)
    return Change(before, after)


def may_be_same(account: str, other: str) -> bool:
    """Return True if two accounts may be one: a fingerprint may be that of any account's API key."""
    return account == other or bool(FINGERPRINT.fullmatch(account) or FINGERPRINT.fullmatch(other))
