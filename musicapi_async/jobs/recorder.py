"""The recorder of paid calls: the side of a job store that faces the client.

A note that must precede a request (`reserve`, `sending`) raises when it cannot be written. A note of what has
happened already never raises: it is tried once, and again later until it is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

import anyio
import msgspec

from .._transport.paid_call import Previous
from ..api.results import TaskUpdate
from ..api.task import TaskKey, TaskRef
from ..clock import Clock
from ..errors import JobStoreError, MusicAPIError, TaskFailedError
from ..options import Options
from . import transitions
from .job import Job, JobState, JobTask, Owner
from .job_errors import conflict, no_job, outcome_unknown, reserved_elsewhere
from .job_request import JobRequest, request_of
from .owner import is_alive, this_process
from .store import JobStore, Step, may_be_same

log: Final = logging.getLogger("musicapi_async")

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between reads of a row that another call has reserved; a create takes about a second."""
PATIENCE: Final = 120.0
"""Seconds to wait for an owner of which it is unknown whether it lives, twice the longest attempt."""

FIRST_RETRY: Final = 1.0
LONGEST_RETRY: Final = 60.0
"""Seconds between tries of notes that could not be written."""
CLOSE_PATIENCE: Final = 2.0
"""Real seconds that closing spends on notes that could not be written before."""

ENDS: Final = 1024
"""Tasks whose end is remembered as recorded, so that another poll of them reads nothing from the store."""

_active: Final[WeakValueDictionary[str, JobEntry]] = WeakValueDictionary()
"""The entries of this process by nonce. One whose call was torn down with its loop is gone from here, too."""


def is_active(owner: Owner) -> bool | None:
    """Return True if a reservation may still be used by its owner, False if not, None if that is unknown."""
    if owner == this_process(owner.nonce):
        return owner.nonce in _active
    return is_alive(owner)


def new_key() -> str:
    """Return a job key for a create that was given none."""
    return f"auto-{uuid.uuid4().hex}"


class JobRecorder:
    """Records the paid calls of one account in a store.

    Args:
        store: where jobs are stored.
        clock: the clock of the client.
        base_url: the base URL of the client; part of every request.
        account: the account whose jobs these are.
        always: False to record only calls that have a job key.
        new_key: makes job keys for calls that have none.
        is_active: judges the owners of reservations.
    """

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        base_url: str,
        account: str = "",
        *,
        always: bool = True,
        new_key: Callable[[], str] = new_key,
        is_active: transitions.Liveness = is_active,
    ) -> None:
        self.store: Final = store
        self.clock: Final = clock
        self.account: Final = account
        self.always: Final = always
        self.is_active: Final = is_active
        self._base_url: Final = base_url
        self._new_key: Final = new_key
        self._pending: Final[dict[str, deque[Step]]] = {}
        self._retry: asyncio.Task[None] | None = None
        self._ends: Final[dict[TaskKey, None]] = {}

    # --- calls ----------------------------------------------------------------------------------------

    def record(
        self, key: str | None, call: str, body: bytes, family: str = "", kind: str = ""
    ) -> JobEntry | None:
        """Return the entry of a call; None for one without a key that need not be recorded."""
        if key is None and not self.always:
            return None
        request = request_of(self._base_url, call, body, family, kind)
        return JobEntry(self, key or self._new_key(), request)

    def with_job_key(self, options: Options) -> Options:
        """Return the options with a job key, if the call is recorded."""
        if options.job_key is not None or not self.always:
            return options
        return msgspec.structs.replace(options, job_key=self._new_key())

    def resubmission(self, job: Job) -> Resubmission:
        """Return a recorder for sending an ambiguous or failed job once more."""
        return Resubmission(self, job)

    # --- jobs -----------------------------------------------------------------------------------------

    async def jobs(self, *states: JobState) -> list[Job]:
        """Return the jobs of all accounts in these states, after settling those whose process died."""
        with contextlib.suppress(JobStoreError):
            await self.write_pending()
        for job in await self.store.jobs("reserved", "sent"):
            if job.owner is not None and self.is_active(job.owner) is False:
                step = transitions.recover(self.is_active, self.clock.time())
                await self.store.change(job.key, step, account=job.account)
        return await self.store.jobs(*states)

    async def job(self, key: str) -> Job | None:
        """Return the job of a key, of this account or of one that may be the same."""
        job = await self.store.get(key, account=self.account)
        if job is None:
            foreign = await self.store.get(key)
            job = foreign if foreign is not None and may_be_same(foreign.account, self.account) else None
        return job

    async def own_job(self, key: str) -> Job:
        """Return the job of a key, to decide on it.

        Raises `RequestValidationError` if there is none, and `JobKeyConflictError` if there is only one of
        another account that may be the same.
        """
        job = await self.job(key)
        if job is None:
            raise no_job(key)
        if job.account and self.account and job.account != self.account:
            raise conflict(job, self.account)
        return job

    async def resolve(self, key: str, task: TaskRef) -> Job:
        """Record which task an ambiguous job made."""
        self.forget_end(task)
        step = transitions.resolved(key, task, self.is_active, self.clock.time())
        job = await self.store.change(key, step, account=self.account, durable=True)
        assert job is not None  # the step raises when there is none
        return job

    async def adopt(self, key: str, task: TaskRef) -> bool:
        """Settle a job whose answer was lost with the task that a webhook names for it.

        Only if no other job has the task. If webhooks name it for two jobs, both stay undecided. Returns
        False if there is such a job and it does not have the task.
        """
        # The webhook's address proves the key by our secret, so the account may have another API key now.
        job = await self.store.get(key, account=self.account) or await self.store.get(key)
        if job is None:
            return True
        if not transitions.may_be_adopted(job, task.task_id):
            return any(ref.task_id == task.task_id for ref in job.refs)
        self.forget_end(task)
        rivals = await self._rivals(job, task)
        if not rivals:
            if job.request.family in task.families:
                task = msgspec.structs.replace(task, family=job.request.family)
            step = transitions.adopted(task, self.clock.time())
            job = await self.store.change(key, step, account=job.account, durable=True) or job
            rivals = await self._rivals(job, task)  # another process may have received the same webhook
        if not rivals:
            return any(ref.task_id == task.task_id for ref in job.refs)
        keys = ", ".join((key, *(rival.key for rival in rivals)))
        log.warning("task %s is named by webhooks for the jobs %s", task.task_id, keys)
        for one in (job, *rivals):
            step = transitions.disputed(task, self.clock.time())
            await self.store.change(one.key, step, account=one.account, durable=True)
        return False

    async def _rivals(self, job: Job, task: TaskRef) -> list[Job]:
        """The other jobs that have the task."""
        found = [one for word in task.families for one in await self.store.find(word, task.task_id)]
        return [one for one in found if (one.key, one.account) != (job.key, job.account)]

    # --- ends of tasks --------------------------------------------------------------------------------

    def has_recorded_end(self, ref: TaskRef) -> bool:
        """Return True if this task's end was already recorded, as far as is remembered."""
        return ref.key in self._ends

    def forget_end(self, ref: TaskRef) -> None:
        """Record the end of a task once more when it is polled again, because a job may have got it since."""
        self._ends.pop(ref.key, None)

    async def record_end(self, ref: TaskRef, update: TaskUpdate) -> None:
        """Record that a task ended, in the job that has it. A failure is logged; the next poll repeats it."""
        self._ends[ref.key] = None
        while len(self._ends) > ENDS:
            del self._ends[next(iter(self._ends))]
        is_recorded = False
        error = update.error
        outcome = "failed" if error is not None else update.result.status if update.result else ""
        refunded = error.refunded if isinstance(error, TaskFailedError) else None
        why = error.message if error is not None else ""
        try:
            for word in ref.families:
                for job in await self.store.find(word, ref.task_id):
                    step = transitions.ended(ref, outcome, refunded, why, self.clock.time())
                    await self.store.change(job.key, step, account=job.account)
                    is_recorded = True
        except JobStoreError as failure:
            is_recorded = False
            log.warning("task %s ended (%s), and that could not be stored: %s", ref.task_id, outcome, failure)
        finally:
            if not is_recorded:  # or cancelled, or its job is being stored just now
                self.forget_end(ref)

    # --- notes ----------------------------------------------------------------------------------------

    async def note(self, key: str, step: Step, what: str) -> None:
        """Store what has happened already: tried once here, and later in the background until it is stored.

        Args:
            key: the job key.
            step: the change. Applied once more, it must change nothing.
            what: what has happened, for the log.
        """
        self._pending.setdefault(key, deque()).append(step)
        try:
            await self._write(key)
        except JobStoreError as error:
            log.error("job %s: %s, and that could not be stored yet: %s", key, what, error)
            self._retry_later()

    async def write_pending(self, *keys: str) -> None:
        """Store the notes of these jobs (none given: of all) that could not be stored before.

        Jobs do not wait for each other, so one damaged row holds up no other job. Raises `JobStoreError`.
        """
        wanted = [key for key in self._pending if not keys or key in keys]
        outcomes = await asyncio.gather(*map(self._write, wanted), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _write(self, key: str) -> None:
        """Store the notes of one job, in their order."""
        steps = self._pending.get(key)
        while steps:
            step = steps[0]
            await self.store.change(key, step, account=self.account, durable=True)
            if steps and steps[0] is step:  # else another call has stored it meanwhile
                steps.popleft()
        if not steps:
            self._pending.pop(key, None)

    def _retry_later(self) -> None:
        loop = asyncio.get_running_loop()
        if self._retry is None or self._retry.done() or self._retry.get_loop() is not loop:
            self._retry = loop.create_task(self._retry_pending())

    async def _retry_pending(self) -> None:
        pause = FIRST_RETRY
        while self._pending:
            await self.clock.sleep(pause)
            with contextlib.suppress(JobStoreError):
                await self.write_pending()
            pause = min(2 * pause, LONGEST_RETRY)

    async def aclose(self) -> None:
        """Store what is pending, within seconds, and close the store."""
        retry, self._retry = self._retry, None
        if retry is not None and retry.get_loop() is asyncio.get_running_loop():
            retry.cancel()
        try:
            with anyio.move_on_after(CLOSE_PATIENCE), contextlib.suppress(JobStoreError):
                await self.write_pending()
            if self._pending:
                log.error(
                    "jobs %s could not be stored before the client was closed", ", ".join(self._pending)
                )
        finally:
            await self.store.aclose()


class JobEntry:
    """One paid call as it is recorded. A `_transport.paid_call.JobEntry`."""

    def __init__(self, recorder: JobRecorder, key: str, request: JobRequest) -> None:
        self.key: Final = key
        self.request: Final = request
        self._recorder: Final = recorder
        self._owner: Final = this_process(uuid.uuid4().hex)
        self._balance: float | None = None
        self._has_begun = self._is_sent = False
        self.in_doubt: bool = False
        _active[self._owner.nonce] = self
        now = recorder.clock.time()
        self._job = Job(
            key=key,
            account=recorder.account,
            state="reserved",
            request=request,
            created_at=now,
            updated_at=now,
        )

    # --- before the request leaves --------------------------------------------------------------------

    async def reserve(self) -> Previous | None:
        """Reserve the key, or return the previous result of the call that it was used for.

        Waits while another call with this key is under way. A caller who gives up must call `released`: the
        reservation may be written afterwards.

        Raises:
            JobKeyConflictError: the key was used with another request, or perhaps by another account.
            OutcomeUnknownError: the outcome of the previous call is unknown.
            JobStoreError: the store cannot be used, or another process has reserved the key and may be dead.
        """
        recorder = self._recorder
        await recorder.write_pending(self.key)
        self._has_begun = True
        pause, waited = FIRST_PAUSE, 0.0
        last: Job | None = None
        while True:
            try:
                job = await recorder.store.change(self.key, self._reservation(), account=recorder.account)
            except MusicAPIError:
                self._has_begun = False
                raise
            assert job is not None  # the step makes a reserved row of a missing one
            if job.state == "reserved" and job.owner == self._owner:
                self._job = job
                return None
            if job.state in ("accepted", "finished", "failed"):
                return Previous(job.task, msgspec.json.decode(job.reply) if job.reply else None)
            if job.state == "ambiguous":
                raise outcome_unknown(job)
            waited = waited + pause if job == last else 0.0
            last = job
            if job.owner is not None and recorder.is_active(job.owner) is None and waited > PATIENCE:
                raise reserved_elsewhere(job, job.owner)
            await recorder.clock.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _reservation(self) -> Step:
        recorder = self._recorder
        return transitions.reserve(
            self.key, self.request, self._owner, recorder.is_active, recorder.clock.time()
        )

    def balance(self, before: float | None) -> None:
        """Set the credits before the first attempt."""
        self._balance = before

    async def sending(self) -> None:
        """Record that an attempt is about to leave; on disk when this returns. Raises `JobStoreError`."""
        step = transitions.sending(self._owner, self._recorder.clock.time(), self._balance)
        job = await self._recorder.store.change(self.key, step, account=self._recorder.account, durable=True)
        assert job is not None  # the step raises when the row is gone
        self._job = job
        self.in_doubt = self.in_doubt or self._is_sent
        self._is_sent = True

    async def returned(self) -> None:
        """Record that the attempt was provably not taken, and another one follows. Raises `JobStoreError`."""
        self._is_sent = False
        if not self.in_doubt:
            step = transitions.returned(self._owner, self._recorder.clock.time())
            await self._recorder.store.change(self.key, step, account=self._recorder.account)

    # --- what has happened ----------------------------------------------------------------------------

    async def released(self) -> None:
        """Record that it was provably not taken, and no attempt follows: the key is free.

        If an attempt before may have been carried out, the outcome is unknown.
        """
        if self.in_doubt:
            await self.unknown("an earlier attempt may have been carried out", None)
        elif self._has_begun:
            await self._recorder.note(self.key, transitions.released(self._owner), "it was not carried out")

    async def unknown(self, why: str, balance: float | None) -> None:
        """Record that it is unknown whether it was taken; `balance` is the credits after it."""
        step = transitions.unknown(self._owner, why, balance, self._recorder.clock.time())
        await self._recorder.note(self.key, step, f"its outcome is unknown ({why})")

    async def accepted(self, task: TaskRef, reply: Any) -> None:
        """Record the task that the service gave; on disk when this returns, unless the store fails."""
        self._recorder.forget_end(task)
        item = JobTask(ref=msgspec.structs.replace(task, own=False))
        now = self._recorder.clock.time()
        step = transitions.accepted(self._owner, self._job, (item,), _json(reply), now)
        await self._recorder.note(self.key, step, f"it was accepted as {task.token}")

    async def answered(self, reply: Any) -> None:
        """Record the answer to a direct call."""
        step = transitions.answered(self._owner, self._job, _json(reply), self._recorder.clock.time())
        await self._recorder.note(self.key, step, "it was answered")


class Resubmission:
    """Records a job that is sent once more, under its own key."""

    def __init__(self, recorder: JobRecorder, job: Job) -> None:
        self._recorder: Final = recorder
        self._job: Final = job

    def with_job_key(self, options: Options) -> Options:
        """Return the options as they are: they hold the key."""
        return options

    def record(self, key: str | None, call: str, body: bytes, family: str = "", kind: str = "") -> JobEntry:
        """Return the entry that sends the job once more."""
        return _ResubmittedEntry(self._recorder, self._job.key, self._job.request)


class _ResubmittedEntry(JobEntry):
    """The entry of a job that is sent once more: its first reservation takes over the job."""

    _is_taken_over = False

    def _reservation(self) -> Step:
        if self._is_taken_over:
            return super()._reservation()
        self._is_taken_over = True
        recorder = self._recorder
        return transitions.resubmitted(self.key, self._owner, recorder.is_active, recorder.clock.time())


def _json(reply: Any) -> str:
    try:
        return msgspec.json.encode(reply).decode()
    except (TypeError, ValueError, RecursionError):
        return ""
