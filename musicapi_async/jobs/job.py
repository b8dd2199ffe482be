"""A job: one paid call as it is stored, with its owner and the tasks that it made."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from ..api.task import TaskRef
from .job_request import JobRequest

JobState = Literal["reserved", "sent", "accepted", "finished", "failed", "ambiguous"]
"""The life of a paid call.

- `reserved`: a process is about to send it; nothing has left.
- `sent`: it may have left; the answer is awaited.
- `accepted`: the service gave a task id; it is paid for.
- `finished`: the task ended well, or a direct call was answered.
- `failed`: the task failed; `refunded` is what the service reports.
- `ambiguous`: it was sent, and whether it was carried out is unknown.
"""
STATES: Final[tuple[JobState, ...]] = get_args(JobState)


class Owner(msgspec.Struct, frozen=True):
    """The process that has reserved a job key.

    `namespace` is that of the process id, so that a `pid` is compared only where it means the same process;
    '' if the system has none or it was not recorded. `started` and `boot` tell the process from a later one
    with its `pid`; `nonce` tells its reservations apart.
    """

    host: str
    boot: str
    pid: int
    started: str
    nonce: str = ""
    namespace: str = ""


class JobTask(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a job: its task, or why it has none.

    `ref` is None for an item that the service refused (then `outcome` is 'failed'), and for one of which
    nothing is known yet. `outcome` is 'succeeded', 'partial' or 'failed' once the task has ended, `refunded`
    what the service reports then, `error` why it failed. `by_webhook` is set while only a webhook has named
    the task.
    """

    ref: TaskRef | None = None
    outcome: str = ""
    refunded: bool | None = None
    error: str = ""
    by_webhook: bool = False

    @property
    def is_decided(self) -> bool:
        """True if the item has a task or was refused."""
        return self.ref is not None or bool(self.outcome)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One paid call as it is stored. It holds the request, never the API key or a webhook secret.

    `key` is the caller's job key, or a generated one; with `account` it identifies the job. `account` is that
    of the client (see `MusicAPI(account=...)`), '' in files of versions that did not store it. `tasks` has
    one entry for each item of the request once anything is known of one; `reply` is the JSON of the service's
    answer to the call. `outcome` is 'succeeded', 'partial' or 'failed' once all tasks have ended, `why` the
    reason why a job is ambiguous or failed. `balance_before` and `balance_after` are credits, with
    `check_balance=True`; they are evidence, not proof: other calls and refunds move the balance, too. Times
    are Unix times of the machine that stored them. `attempts` counts the decisions to send: 1, and one more
    for each `resubmit`; `previous` is the job as it was before the last one. `others` are tasks that were
    named for this key and are not its result: those of previous sends, and what a webhook named while a later
    one was under way. `disputed` are ids of tasks that webhooks named for another job, too. `is_readable` is
    False for a job whose stored record is damaged: then only key, account, state, tasks and `created_at` are
    known, and `why` says what is wrong.
    """

    key: str
    state: JobState
    request: JobRequest
    created_at: float
    updated_at: float
    account: str = ""
    owner: Owner | None = None
    tasks: tuple[JobTask, ...] = ()
    reply: str = ""
    outcome: str = ""
    refunded: bool | None = None
    why: str = ""
    balance_before: float | None = None
    balance_after: float | None = None
    attempts: int = 1
    previous: Job | None = None
    others: tuple[TaskRef, ...] = ()
    disputed: tuple[str, ...] = ()
    is_readable: bool = True

    @property
    def refs(self) -> tuple[TaskRef, ...]:
        """The tasks that the call made, in the order of its items."""
        return tuple(item.ref for item in self.tasks if item.ref is not None)

    @property
    def task(self) -> TaskRef | None:
        """The task that the call made; of a batch the first. None before there is one."""
        return next(iter(self.refs), None)

    @property
    def task_id(self) -> str | None:
        """The service's id of `task`."""
        return self.task.task_id if self.task is not None else None
