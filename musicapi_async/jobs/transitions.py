"""The state machine of a job: one table, and pure functions over it.

`TRANSITIONS` has the next state for each event and state; an event that it does not have for a state changes
nothing. Each function below returns a `Transition` for one event, with the conditions of the event and the
changes of the row. They decide when the key of a stored job may be used again, and what happens to a job
whose process died; `reservation` decides who may send it. `_wire.charge_verdict` decides what a response
proves, and `_transport.paid_call` applies that to a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeGuard

import msgspec

from ..api.task import TaskRef
from ..errors import JobStoreError, RequestValidationError
from .job import STATES, Job, JobState, JobTask, Owner
from .store import Transition

JobEvent = Literal[
    "reserve",
    "sending",
    "returned",
    "released",
    "unknown",
    "recover",
    "accepted",
    "answered",
    "succeeded",
    "failed",
    "named",
    "disputed",
    "resubmitted",
]

TRANSITIONS: Final[Mapping[JobEvent, Mapping[JobState | None, JobState | None]]] = {
    # None is a key without a row. Where an event leads to None, a row that was sent before (`resubmit`) is
    # again as it was.
    "reserve": {None: "reserved"},
    "sending": {"reserved": "sent", "sent": "sent"},
    "returned": {"sent": "reserved"},
    "released": {"reserved": None, "sent": None},
    "unknown": {"reserved": "ambiguous", "sent": "ambiguous"},
    # The process that owned the job has died.
    "recover": {"reserved": None, "sent": "ambiguous"},
    # The answer to the call is believed in any state, also after the row went missing.
    "accepted": dict.fromkeys((None, *STATES), "accepted"),
    "answered": dict.fromkeys((None, *STATES), "finished"),
    "succeeded": {"accepted": "finished"},
    "failed": {"accepted": "failed"},
    # A webhook, or a person who knows, names a task.
    "named": {"sent": "accepted", "ambiguous": "accepted"},
    "disputed": {
        "ambiguous": "ambiguous",
        "accepted": "ambiguous",
        "finished": "ambiguous",
        "failed": "ambiguous",
    },
    # A person decides to send once more.
    "resubmitted": {"ambiguous": "reserved", "failed": "reserved"},
}
"""JobEvent, state before, state after."""

Liveness = Callable[[Owner], bool | None]
"""Return True if the process of an owner lives, False if it ended, None if that cannot be known here."""

DIED_SENDING: Final = "the process that sent it ended before it had read the answer"


def allows(event: JobEvent, job: Job | None) -> bool:
    """Return True if the table has the event for the state of the job."""
    return (job.state if job is not None else None) in TRANSITIONS[event]


def _moved(event: JobEvent, job: Job, **changes: Any) -> Job:
    """The job after an event that the table has, in a state that is not None."""
    state = TRANSITIONS[event][job.state]
    assert state is not None
    return msgspec.structs.replace(job, state=state, **changes)


def _may(job: Job | None, event: JobEvent, owner: Owner) -> TypeGuard[Job]:
    """Return True if the job is reserved by this owner, and in a state that has the event."""
    return job is not None and job.owner == owner and allows(event, job)


# --- before the answer ------------------------------------------------------------------------------------


def recover(is_alive: Liveness, now: float) -> Transition:
    """Settle a job whose process died: ambiguous if it may have been sent, else without reservation."""

    def transition(job: Job | None) -> Job | None:
        return recovered(job, is_alive, now)

    return transition


def recovered(job: Job | None, is_alive: Liveness, now: float) -> Job | None:
    """Return the job after `recover`; as it is while its process lives, or may live."""
    if job is None or job.owner is None or not allows("recover", job) or is_alive(job.owner) is not False:
        return job
    if job.state == "sent":
        return _moved("recover", job, owner=None, why=DIED_SENDING, updated_at=now)
    return _undone(job)


def _undone(job: Job) -> Job | None:
    """The row without its last send; tasks that were named meanwhile stay known."""
    previous = job.previous
    if previous is None:
        return None
    return msgspec.structs.replace(
        previous, others=joined(previous.others, _without(job.others, previous.refs))
    )


def sending(owner: Owner, now: float, balance: float | None = None) -> Transition:
    """The request is about to be sent. The transition raises if the reservation is no longer the owner's."""

    def transition(job: Job | None) -> Job | None:
        if not _may(job, "sending", owner):
            raise JobStoreError(
                "the reservation was taken over by another process; nothing was sent by this one",
                hint="Call again with the same job key: it returns the task of the other one.",
            )
        return _moved("sending", job, balance_before=balance, updated_at=now)

    return transition


def returned(owner: Owner, now: float) -> Transition:
    """The request provably was not sent or was refused, and will be sent again later."""

    def transition(job: Job | None) -> Job | None:
        if not _may(job, "returned", owner):
            return job
        return _moved("returned", job, updated_at=now)

    return transition


def released(owner: Owner) -> Transition:
    """The request provably was not sent or was refused, and will not be sent again: the key is free."""

    def transition(job: Job | None) -> Job | None:
        if not _may(job, "released", owner):
            return job
        return _undone(job)

    return transition


def unknown(owner: Owner, why: str, balance: float | None, now: float) -> Transition:
    """It was sent and its outcome is unknown."""

    def transition(job: Job | None) -> Job | None:
        if not _may(job, "unknown", owner):
            return job
        return _moved("unknown", job, owner=None, why=why, balance_after=balance, updated_at=now)

    return transition


# --- the answer -------------------------------------------------------------------------------------------


def accepted(
    job_if_lost: Job,
    tasks: Iterable[JobTask],
    reply: str,
    now: float,
    others: tuple[TaskRef, ...] = (),
) -> Transition:
    """The service answered with tasks. They are paid for, so none is dropped, and the answer is believed
    rather than what a webhook or a person said meanwhile.

    Args:
        job_if_lost: the job as it was sent, in case its row went missing.
        tasks: one for each item of the request: its task, or why the service refused it; an empty `JobTask`
            for an item that the answer does not name.
        reply: the JSON of the answer.
        now: Unix time.
        others: tasks of which the answer does not say to which item they belong.
    """
    items = tuple(tasks)

    def transition(job: Job | None) -> Job | None:
        job = job or job_if_lost
        merged = _merged(items, job.tasks)
        refs = tuple(item.ref for item in merged if item.ref is not None)
        named = _without(job.refs, refs)  # by a webhook or a person, and not by the answer
        if named and job.attempts > job_if_lost.attempts:
            # It was sent once more after this send, and that was accepted.
            return msgspec.structs.replace(job, others=joined(joined(job.others, refs), others))
        known = joined(_without(job.others, refs), (*named, *_without(others, refs)))
        return _with_tasks(
            "accepted", msgspec.structs.replace(job, reply=reply, others=known, updated_at=now), merged
        )

    return transition


def _merged(items: tuple[JobTask, ...], known: tuple[JobTask, ...]) -> tuple[JobTask, ...]:
    """The items of an answer. A task that was known already may have ended since, and an item that the answer
    does not name may have been named by a webhook."""
    by_id = {item.ref.task_id: item for item in known if item.ref is not None}
    merged: list[JobTask] = []
    for index, item in enumerate(items):
        before = by_id.get(item.ref.task_id) if item.ref is not None else None
        if before is not None:
            merged.append(msgspec.structs.replace(before, ref=item.ref, by_webhook=False))
        elif not item.is_decided and index < len(known):
            merged.append(known[index])
        else:
            merged.append(item)
    return tuple(merged)


def answered(owner: Owner, job_if_lost: Job, reply: str, now: float) -> Transition:
    """A direct call was answered; the same key gives this answer from now on."""

    def transition(job: Job | None) -> Job | None:
        if job is not None and job.owner != owner and job.state == "finished":
            return job
        job = job or job_if_lost
        return _moved("answered", job, owner=None, reply=reply, outcome="succeeded", why="", updated_at=now)

    return transition


def ended(task: TaskRef, outcome: str, refunded: bool | None, why: str, now: float) -> Transition:
    """A task of the job ended; with its last task, the job does.

    Args:
        task: the task.
        outcome: 'succeeded', 'partial' or 'failed'.
        refunded: what the service reports about a failed task.
        why: the reason of a failure.
        now: Unix time.
    """

    def transition(job: Job | None) -> Job | None:
        if job is None:
            return None
        tasks = tuple(
            msgspec.structs.replace(item, outcome=outcome, refunded=refunded, error=why)
            if item.ref is not None and item.ref.task_id == task.task_id and not item.outcome
            else item
            for item in job.tasks
        )
        if tasks == job.tasks:
            return job
        return _concluded(msgspec.structs.replace(job, tasks=tasks, updated_at=now))

    return transition


# --- what is learned late ---------------------------------------------------------------------------------


def resolved(key: str, task: TaskRef, is_alive: Liveness, now: float, item: int = 0) -> Transition:
    """A person who knows says which task an ambiguous job made.

    Args:
        key: the job key, for the error texts.
        task: the task.
        is_alive: judges the owner of the row.
        now: Unix time.
        item: which item of a batch made the task, from 0.
    """

    def transition(job: Job | None) -> Job | None:
        job = recovered(job, is_alive, now)
        if job is None:
            raise no_job(key)
        if any(ref.task_id == task.task_id for ref in job.refs):
            return job
        if not allows("named", job) or _item(job, item).is_decided:
            raise refused(job, "only an ambiguous job can be resolved")
        if item >= job.request.items:
            raise refused(job, f"it has {job.request.items} items, counted from 0")
        return _named(job, JobTask(ref=task), item, "resolved by its task id", now)

    return transition


def adopted(task: TaskRef, now: float, item: int = 0) -> Transition:
    """A webhook named the task of a job whose answer is not known.

    For a job that was sent more than once it may be late and mean a previous send: a task that was known
    before the last one is not of it, and while the answer to the last one is awaited, that answer decides.

    Args:
        task: the task.
        now: Unix time.
        item: which item of a batch made the task, from 0.
    """

    def transition(job: Job | None) -> Job | None:
        if job is None or not allows("named", job) or job.request.family != task.family:
            return job
        if task.task_id in job.disputed or _item(job, item).is_decided:
            return job
        if item >= job.request.items or any(ref.task_id == task.task_id for ref in job.refs):
            return job  # of no item, or of another one
        if job.previous is not None and task.task_id in _known_to(job.previous):
            return job
        known = msgspec.structs.replace(task, kind=job.request.kind, submitted_at=job.updated_at)
        if job.state == "sent" and job.attempts > 1:
            return msgspec.structs.replace(job, others=joined(job.others, (known,)))
        return _named(job, JobTask(ref=known, by_webhook=True), item, "resolved by its webhook", now)

    return transition


def may_be_adopted(job: Job, task_id: str) -> bool:
    """Return True if a webhook that names this task for the job may still decide something about it."""
    return allows("named", job) or any(_is_named(item, task_id) for item in job.tasks)


def _is_named(item: JobTask, task_id: str) -> bool:
    return item.by_webhook and item.ref is not None and item.ref.task_id == task_id


def disputed(task: TaskRef, now: float) -> Transition:
    """Webhooks name one task for this job and for another: neither is settled by them.

    A job that a webhook alone has settled with this task is ambiguous again. One whose own answer named the
    task keeps it.
    """

    def transition(job: Job | None) -> Job | None:
        if job is None or not may_be_adopted(job, task.task_id):
            return job
        ids = (*(known for known in job.disputed if known != task.task_id), task.task_id)
        tasks = tuple(JobTask() if _is_named(item, task.task_id) else item for item in job.tasks)
        job = msgspec.structs.replace(job, disputed=ids, tasks=_trimmed(tasks))
        if not allows("disputed", job):
            return job
        return _moved(
            "disputed",
            job,
            outcome="",
            refunded=None,
            why=f"webhooks name task {task.task_id} for this job and for another one",
            updated_at=now,
        )

    return transition


# --- the tasks of a job -----------------------------------------------------------------------------------


def _item(job: Job, index: int) -> JobTask:
    return job.tasks[index] if index < len(job.tasks) else JobTask()


def _named(job: Job, task: JobTask, index: int, why: str, now: float) -> Job:
    """The job with the task of one item, which became known late."""
    items = max(job.request.items, len(job.tasks), index + 1)
    tasks = tuple(task if n == index else _item(job, n) for n in range(items))
    others = job.others if task.ref is None else _without(job.others, (task.ref,))
    return _with_tasks("named", msgspec.structs.replace(job, others=others, updated_at=now), tasks, why)


def _with_tasks(
    event: Literal["accepted", "named"], job: Job, tasks: tuple[JobTask, ...], why: str = ""
) -> Job:
    """The job after its tasks became known: while one is missing, it is settled by none of them."""
    job = msgspec.structs.replace(job, tasks=_trimmed(tasks))
    missing = sum(not _item(job, n).is_decided for n in range(job.request.items))
    if not missing:
        return _concluded(_moved(event, job, owner=None, outcome="", refunded=None, why=why))
    if event == "accepted" and allows("unknown", job):
        why = f"the answer names no task for {missing} of its {job.request.items} items"
        return _moved("unknown", job, owner=None, why=why)
    return job


def _concluded(job: Job) -> Job:
    """The job, ended if all of its tasks have ended."""
    if job.state != "accepted" or not all(item.outcome for item in job.tasks):
        return job
    outcomes = {item.outcome for item in job.tasks}
    refunds = {item.refunded for item in job.tasks}
    outcome = outcomes.pop() if len(outcomes) == 1 else "partial"
    return _moved(
        "failed" if outcome == "failed" else "succeeded",
        job,
        outcome=outcome,
        refunded=refunds.pop() if len(refunds) == 1 else None,
        why="; ".join(dict.fromkeys(item.error for item in job.tasks if item.error)),
    )


def _trimmed(tasks: tuple[JobTask, ...]) -> tuple[JobTask, ...]:
    """The items of a job; none if nothing is known of any of them."""
    return tasks if any(item.is_decided for item in tasks) else ()


def joined(tasks: tuple[TaskRef, ...], more: tuple[TaskRef, ...]) -> tuple[TaskRef, ...]:
    """Return the tasks, and those of `more` that are not among them."""
    known = {task.task_id for task in tasks}
    return (*tasks, *(task for task in more if task.task_id not in known))


def _without(tasks: tuple[TaskRef, ...], refs: tuple[TaskRef, ...]) -> tuple[TaskRef, ...]:
    ids = {ref.task_id for ref in refs}
    return tuple(task for task in tasks if task.task_id not in ids)


def _known_to(job: Job) -> set[str]:
    return {task.task_id for task in (*job.others, *job.refs)}


# --- errors of decisions ----------------------------------------------------------------------------------


def no_job(key: str) -> RequestValidationError:
    """Return the error of a key that no job has."""
    return RequestValidationError(f"there is no job with the key {key!r}", field="key", value=repr(key))


def refused(job: Job, why: str, hint: str = "") -> RequestValidationError:
    """Return the error of a decision that the state of the job does not allow."""
    task = f" as task {job.task_id}" if job.task_id is not None else ""
    return RequestValidationError(f"job {job.key!r} is {job.state}{task}: {why}", field="key", hint=hint)
