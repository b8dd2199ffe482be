"""The life of a job as pure functions: from the row as it is to the row as it shall be.

Each builder returns a `Step`. The rules about money are all here: who may send, when a key may be used
again, and what becomes of a job whose process died.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from ..api.handle import TaskRef
from ..api.request import picture
from ..errors import JobKeyConflictError, JobStoreError, RequestValidationError
from .store import Job, JobRequest, Owner, Step

Liveness = Callable[[Owner], bool | None]
"""Whether the process of a holder lives: True, False, or None when that cannot be told."""

DELIVERY: Final = frozenset({"webhook_url"})
"""Fields that say where to tell of the result and not what to make: they may differ under one key."""

DIED_SENDING: Final = "the process that sent it ended before it had read the answer"


def difference(before: JobRequest, now: JobRequest) -> list[str]:
    """What differs between two requests, one line for each field; empty if they ask for the same."""
    told = [
        f"{name}: {old!r} before, {new!r} now"
        for name, old, new in (
            ("call", before.call, now.call),
            ("base_url", before.base_url, now.base_url),
        )
        if old != new
    ]
    if before.body != now.body:
        old_fields, new_fields = before.fields, now.fields
        for name in sorted({*old_fields, *new_fields} - DELIVERY):
            old, new = old_fields.get(name), new_fields.get(name)
            if old != new:
                told.append(f"{name}: {_shown(old, new)} before, {_shown(new, old)} now")
    return told


def _shown(value: object, other: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str) and isinstance(other, str) and picture(value) == picture(other):
        at = next((i for i, pair in enumerate(zip(value, other, strict=False)) if pair[0] != pair[1]), 0)
        return f"'...{value[max(0, at - 10) : at + 30]}...'"
    return picture(value)


def reserve(key: str, request: JobRequest, holder: Owner, alive: Liveness, now: float) -> Step:
    """Take the key for `holder` if it is free, or if the process that held it died before sending.

    Raises `JobKeyConflictError` when the key was used with another request.
    """

    def step(job: Job | None) -> Job | None:
        if job is None:
            return Job(
                key=key, state="reserved", request=request, created_at=now, updated_at=now, holder=holder
            )
        told = difference(job.request, request)
        if told:
            raise JobKeyConflictError(
                f"the job key {key!r} was used before with another request ({'; '.join(told)})",
                job_key=key,
                difference=told,
                call=request.call,
            )
        left = _without_the_dead(job, alive, now)
        return step(None) if left is None else left

    return step


def recover(alive: Liveness, now: float) -> Step:
    """Settle a job whose process died: one that may have left is ambiguous, one that did not is undone."""

    def step(job: Job | None) -> Job | None:
        return None if job is None else _without_the_dead(job, alive, now)

    return step


def _without_the_dead(job: Job, alive: Liveness, now: float) -> Job | None:
    if job.state not in ("reserved", "sent") or job.holder is None or alive(job.holder) is not False:
        return job
    if job.state == "sent":
        return msgspec.structs.replace(job, state="ambiguous", holder=None, why=DIED_SENDING, updated_at=now)
    return _undone(job)


def _undone(job: Job) -> Job | None:
    """The row without its last send; what was heard meanwhile is kept."""
    earlier = job.earlier
    if earlier is None:
        return None
    heard = job.others if earlier.task is None else _without(job.others, earlier.task)
    return msgspec.structs.replace(earlier, others=_and(earlier.others, heard))


def sending(holder: Owner, now: float, balance: float | None = None) -> Step:
    """The request is about to leave. Raises if the reservation is no longer the holder's."""

    def step(job: Job | None) -> Job | None:
        if job is None or job.holder != holder or job.state not in ("reserved", "sent"):
            raise JobStoreError(
                "the reservation was taken over by another process; nothing was sent by this one",
                hint="Call again with the same job key: it returns the task of the other one.",
            )
        return msgspec.structs.replace(job, state="sent", balance_before=balance, updated_at=now)

    return step


def returned(holder: Owner, now: float) -> Step:
    """It provably did not leave or was refused, and will be sent again later."""

    def step(job: Job | None) -> Job | None:
        if job is None or job.holder != holder or job.state != "sent":
            return job
        return msgspec.structs.replace(job, state="reserved", updated_at=now)

    return step


def released(holder: Owner) -> Step:
    """It provably did not leave or was refused, and will not be sent again: the key is free."""

    def step(job: Job | None) -> Job | None:
        if job is None or job.holder != holder or job.state not in ("reserved", "sent"):
            return job
        return _undone(job)

    return step


def accepted(holder: Owner, job_if_lost: Job, task: TaskRef, reply: str, now: float) -> Step:
    """The service gave a task. What is paid for is written down even if the row went missing, and the answer
    is believed rather than what a webhook or somebody told meanwhile. No task is dropped."""

    def step(job: Job | None) -> Job | None:
        job = job or job_if_lost
        others = _without(job.others, task)
        if job.task is not None and job.holder != holder:
            if job.task.task_id == task.task_id:  # known already, and it may have ended since
                return msgspec.structs.replace(job, by_webhook=False) if job.by_webhook else job
            if job.attempts > job_if_lost.attempts:  # sent again after this send, and that was accepted
                return msgspec.structs.replace(job, others=_and(job.others, (task,)))
            others = _and(others, (job.task,))
        return msgspec.structs.replace(
            job,
            state="accepted",
            holder=None,
            task=task,
            reply=reply,
            outcome="",
            refunded=None,
            why="",
            updated_at=now,
            others=others,
            by_webhook=False,
        )

    return step


def _and(tasks: tuple[TaskRef, ...], more: tuple[TaskRef, ...]) -> tuple[TaskRef, ...]:
    known = {task.task_id for task in tasks}
    return (*tasks, *(task for task in more if task.task_id not in known))


def _without(tasks: tuple[TaskRef, ...], one: TaskRef) -> tuple[TaskRef, ...]:
    return tuple(task for task in tasks if task.task_id != one.task_id)


def answered(holder: Owner, job_if_lost: Job, reply: str, now: float) -> Step:
    """A direct call was answered; the same key gives this answer from now on."""

    def step(job: Job | None) -> Job | None:
        if job is not None and job.holder != holder and job.state == "finished":
            return job
        return msgspec.structs.replace(
            job or job_if_lost,
            state="finished",
            holder=None,
            reply=reply,
            outcome="succeeded",
            why="",
            updated_at=now,
        )

    return step


def unknown(holder: Owner, why: str, balance: float | None, now: float) -> Step:
    """It was sent and its outcome is unknown."""

    def step(job: Job | None) -> Job | None:
        if job is None or job.holder != holder or job.state not in ("reserved", "sent"):
            return job
        return msgspec.structs.replace(
            job, state="ambiguous", holder=None, why=why, balance_after=balance, updated_at=now
        )

    return step


def ended(task: TaskRef, outcome: str, refunded: bool | None, why: str, now: float) -> Step:
    """The task ended."""

    def step(job: Job | None) -> Job | None:
        if job is None or job.state != "accepted" or job.task is None or job.task.task_id != task.task_id:
            return job
        return msgspec.structs.replace(
            job,
            state="failed" if outcome == "failed" else "finished",
            outcome=outcome,
            refunded=refunded,
            why=why,
            updated_at=now,
        )

    return step


def resolved(key: str, task: TaskRef, alive: Liveness, now: float) -> Step:
    """Somebody who knows says which task an ambiguous job made."""

    def step(job: Job | None) -> Job | None:
        job = None if job is None else _without_the_dead(job, alive, now)
        if job is None:
            raise _no_job(key)
        if job.task is not None and job.task.task_id == task.task_id:
            return job
        if job.state not in ("ambiguous", "sent"):
            raise RequestValidationError(
                f"job {key!r} is {job.state}{_with_task(job)}: only an ambiguous job can be resolved",
                field="key",
            )
        if not job.request.kind:
            raise RequestValidationError(f"job {key!r} makes no task: {job.request.call}", field="key")
        return _settled(job, task, "resolved by its task id", now)

    return step


def adopted(task: TaskRef, now: float) -> Step:
    """A webhook told which task a job made that nobody had heard of since it was sent.

    For a job that was sent more than once it may be late and mean an earlier send: a task that was known
    before the last one is not of it, and while the answer to the last one is awaited, that answer decides.
    """

    def step(job: Job | None) -> Job | None:
        if job is None or job.state not in ("sent", "ambiguous") or job.request.family != task.family:
            return job
        if task.task_id in job.disputed:
            return job
        if job.earlier is not None and task.task_id in _known_to(job.earlier):
            return job
        known = msgspec.structs.replace(task, kind=job.request.kind, submitted_at=job.updated_at)
        if job.state == "sent" and job.attempts > 1:
            return msgspec.structs.replace(job, others=_and(job.others, (known,)))
        return _settled(job, known, "resolved by its webhook", now, by_webhook=True)

    return step


def may_be_adopted(job: Job, task_id: str) -> bool:
    """Return True if a webhook's word that the job made this task may still decide something about it."""
    named = job.by_webhook and job.task_id == task_id
    return job.state in ("sent", "ambiguous") or named


def disputed(task: TaskRef, now: float) -> Step:
    """Webhooks name one task for this job and for another: neither is settled by them.

    A job that a webhook alone has settled with this task is ambiguous again. One whose own answer named the
    task keeps it.
    """

    def step(job: Job | None) -> Job | None:
        if job is None or not may_be_adopted(job, task.task_id):
            return job
        ids = (*(known for known in job.disputed if known != task.task_id), task.task_id)
        if job.state == "sent":
            return msgspec.structs.replace(job, disputed=ids)
        return msgspec.structs.replace(
            job,
            state="ambiguous",
            task=None if job.task_id == task.task_id else job.task,
            outcome="",
            refunded=None,
            why=f"webhooks name task {task.task_id} for this job and for another one",
            by_webhook=False,
            disputed=ids,
            updated_at=now,
        )

    return step


def _settled(job: Job, task: TaskRef, why: str, now: float, *, by_webhook: bool = False) -> Job:
    """A job of which it was found out late that it made this task."""
    return msgspec.structs.replace(
        job,
        state="accepted",
        holder=None,
        task=task,
        why=why,
        updated_at=now,
        others=_without(job.others, task),
        by_webhook=by_webhook,
    )


def _known_to(job: Job) -> set[str]:
    return {task.task_id for task in (*job.others, *((job.task,) if job.task is not None else ()))}


def resubmitted(key: str, holder: Owner, alive: Liveness, now: float) -> Step:
    """Somebody decided to send an ambiguous or failed job once more."""

    def step(job: Job | None) -> Job | None:
        job = None if job is None else _without_the_dead(job, alive, now)
        if job is None:
            raise _no_job(key)
        if job.state not in ("ambiguous", "failed"):
            raise RequestValidationError(
                f"job {key!r} is {job.state}{_with_task(job)}: only an ambiguous or failed job is sent again",
                field="key",
                hint="It is under way or paid for; for another song use another job key.",
            )
        return Job(
            key=key,
            state="reserved",
            request=job.request,
            created_at=job.created_at,
            updated_at=now,
            holder=holder,
            attempts=job.attempts + 1,
            earlier=msgspec.structs.replace(job, earlier=None),
            others=_and(job.others, (job.task,) if job.task is not None else ()),
            disputed=job.disputed,
        )

    return step


def _no_job(key: str) -> RequestValidationError:
    return RequestValidationError(f"there is no job with the key {key!r}", field="key", value=repr(key))


def _with_task(job: Job) -> str:
    return f" as task {job.task.task_id}" if job.task is not None else ""
