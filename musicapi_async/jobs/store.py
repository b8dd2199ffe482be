"""What a job is, and what a store of jobs must be able to do.

A store is small: change one row in one transaction, find rows, list rows. Which change is right is decided
by the pure functions of `states`, so every store follows the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol, cast, get_args

import msgspec

from ..api.handle import TaskRef

JobState = Literal["reserved", "sent", "accepted", "finished", "failed", "ambiguous"]
"""The life of a paid call.

- `reserved`: a process is about to send it; nothing has left.
- `sent`: it may have left; the answer is awaited.
- `accepted`: the service gave a task id; it is paid for.
- `finished`: the task ended well, or a direct call was answered.
- `failed`: the task failed; `refunded` is what the service reports.
- `ambiguous`: it was sent and nobody knows whether it was carried out.
"""
STATES: Final[tuple[JobState, ...]] = get_args(JobState)


class Owner(msgspec.Struct, frozen=True):
    """The process that holds a reservation. `started` and `boot` tell it from a later one with its `pid`;
    `nonce` tells its reservations apart."""

    host: str
    boot: str
    pid: int
    started: str
    nonce: str = ""


class JobRequest(msgspec.Struct, frozen=True):
    """What a job asks for. `body` is the JSON body with its keys in order; `hidden` names the fields that
    were sent and are not kept, because they are secret."""

    call: str
    base_url: str
    body: str
    family: str = ""
    kind: str = ""
    hidden: tuple[str, ...] = ()

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body's fields; one field 'json' for a body that is no object."""
        found: Any = msgspec.json.decode(self.body)
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {"json": found}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One paid call, as it is written down. It holds the request, never the API key or a webhook secret.

    `key` is the caller's job key, or a generated one. `task` is set from `accepted` on, `reply` is the JSON
    of the service's answer to the call. `outcome` is 'succeeded', 'partial' or 'failed'. `why` tells why a
    job is ambiguous or failed. `balance_before` and `balance_after` are credits, with `check_balance=True`;
    they are evidence, not proof: other calls and refunds move the balance, too. Times are Unix times of the
    machine that wrote them. `attempts` counts sends that were decided on: 1, and one more for each
    `resubmit`; `earlier` is the job as it was before the last one. `others` are tasks that were told for this
    key and that it does not stand for: those of earlier sends, and what a webhook named while a later one was
    under way. `by_webhook` is set while only a webhook has named `task`; `disputed` are ids of tasks that
    webhooks named for another job, too.
    """

    key: str
    state: JobState
    request: JobRequest
    created_at: float
    updated_at: float
    holder: Owner | None = None
    task: TaskRef | None = None
    reply: str = ""
    outcome: str = ""
    refunded: bool | None = None
    why: str = ""
    balance_before: float | None = None
    balance_after: float | None = None
    attempts: int = 1
    earlier: Job | None = None
    others: tuple[TaskRef, ...] = ()
    by_webhook: bool = False
    disputed: tuple[str, ...] = ()

    @property
    def task_id(self) -> str | None:
        """The service's id of the task, once there is one."""
        return self.task.task_id if self.task is not None else None


Step = Callable[[Job | None], Job | None]
"""A change of one row: from what is there (None: nothing) to what shall be there (None: nothing).

It is pure and quick, may be called again on newer data, and raises to leave the row as it is.
"""


class JobStore(Protocol):
    """Where jobs are kept. Safe for use by many tasks, loops and threads, and by all that share it.

    Every method raises `JobStoreError` when the store cannot be read or written.
    """

    async def change(self, key: str, step: Step, *, durable: bool = False) -> Job | None:
        """Apply `step` to the row of `key` in one transaction; returns what is there now.

        `durable=True`: when this returns, the change outlives a loss of power.
        """
        ...

    async def get(self, key: str) -> Job | None:
        """The job with this key."""
        ...

    async def find(self, family: str, task_id: str) -> list[Job]:
        """The jobs with this task."""
        ...

    async def jobs(self, *states: JobState) -> list[Job]:
        """The jobs in these states (none given: all), oldest first."""
        ...

    async def aclose(self) -> None:
        """Close what is open; the store opens again by itself when it is used again."""
        ...
