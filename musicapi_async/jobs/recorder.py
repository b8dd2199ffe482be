"""The recorder of paid calls: it records the calls of a client in a job store.

A record that must precede a request (`reserve`, `sending`) raises an error if it cannot be written. A record
of what has already happened never raises: see `pending_notes`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from weakref import WeakValueDictionary

import msgspec

from .._transport.call_entry import ItemNote, Previous
from .._wire.prepare import PreparedRequest
from ..api.local_files import NO_FILES
from ..api.results import TaskUpdate
from ..api.task import TaskKey, TaskRef
from ..clock import Clock
from ..errors import JobStoreError, MusicAPIError, TaskFailedError
from . import reservation, transitions
from .job import Job, JobRequest, JobState, JobTask, Owner, new_key, request_of
from .owner import is_alive, this_process
from .pending_notes import PendingNotes
from .store import JobStore, Transition

log: Final = logging.getLogger("musicapi_async")

FIRST_READ_PAUSE: Final = 0.05
LONGEST_READ_PAUSE: Final = 1.0
"""Seconds between reads of a row that another call has reserved; a create takes about a second."""
UNKNOWN_OWNER_PATIENCE: Final = 120.0
"""Seconds to wait for an owner of which it is unknown whether it lives, twice the longest attempt."""

REMEMBERED_ENDS: Final = 1024
"""Tasks whose end is remembered as recorded, so that another poll of them reads nothing from the store."""

_active: Final[WeakValueDictionary[str, JobEntry]] = WeakValueDictionary()
"""The entries of this process by nonce. An entry is removed with its call, also if its loop was closed."""


def is_active(owner: Owner) -> bool | None:
    """Return True if a reservation may still be used by its owner, False if not, None if that is unknown."""
    if owner == this_process(owner.nonce):
        return owner.nonce in _active
    return is_alive(owner)


class Adoption(msgspec.Struct, frozen=True):
    """The outcome for a task that a webhook names for a job key.

    `outcome` is 'settled' if the job has the task, with `task` as the job knows it; 'refused' if the job has
    another one, or another job claims it; 'no job' if the store has no job of that key. `is_news` is True if
    the outcome of its call was unknown until now.
    """

    outcome: Literal["settled", "refused", "no job"]
    task: TaskRef
    is_news: bool = False


class JobRecorder:
    """Records the paid calls of one account in a store.

    Args:
        store: where jobs are stored.
        clock: the clock of the client.
        base_url: the base URL of the client; part of every request.
        account: the account whose jobs these are.
        always: True to give a job key to calls that have none, so that they are recorded, too. False for a
            store that holds nothing but what this recorder records.
    """

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        base_url: str,
        account: str = "",
        *,
        always: bool = True,
    ) -> None:
        self.store: Final = store
        self.clock: Final = clock
        self.account: Final = account
        self.always: Final = always
        self.is_empty: bool = not always
        """True while the store certainly has no job, so that tasks need not be looked up in it."""
        self.notes: Final = PendingNotes(store, clock, account)
        self._base_url: Final = base_url
        self._ends: Final[dict[TaskKey, None]] = {}

    # --- calls ----------------------------------------------------------------------------------------

    def record(
        self, key: str | None, prepared: PreparedRequest, files: Mapping[str, str] = NO_FILES
    ) -> JobEntry | None:
        """Return the entry of a call under this job key; `files` are as for `request_of`.

        One without a key gets one of its own where every paid call is recorded, else none is recorded.
        """
        if key is None:
            if not self.always or prepared.kind != "create":
                return None
            key = new_key()
        self.is_empty = False
        request = request_of(
            self._base_url,
            prepared.recorded_call,
            prepared.body or b"",
            prepared.family,
            prepared.operation,
            files,
            items=max(1, len(prepared.models)),
        )
        return JobEntry(self, key, request)

    async def links(self, key: str, files: Mapping[str, str]) -> dict[str, str]:
        """Return the links of those files that the job of a key has published already, by field."""
        await self.notes.write(key)
        job = await self.job(key)
        if job is None or not job.request.files:
            return {}
        sent = job.request.fields
        return {
            name: str(sent[name]) for name, digest in files.items() if job.request.files.get(name) == digest
        }

    async def note(self, key: str, transition: Transition, what: str) -> None:
        """Store what has happened to a job; see `PendingNotes.note`."""
        await self.notes.note(key, transition, what, self)

    # --- jobs -----------------------------------------------------------------------------------------

    async def jobs(self, *states: JobState) -> list[Job]:
        """Return the jobs of all accounts in these states, after settling those whose process died."""
        with contextlib.suppress(JobStoreError):
            await self.notes.write()
        unwritten: dict[tuple[str, str], Job | None] = {}
        for job in await self.store.jobs("reserved", "sent"):
            # The end of a call whose note is not stored yet is known.
            if job.owner is not None and is_active(job.owner) is False and job.key not in self.notes.keys:
                transition = transitions.recover(is_active, self.clock.time())
                if not unwritten:
                    try:
                        await self.store.change(job.key, transition, account=job.account)
                        continue
                    except JobStoreError:  # a store that can only be read is listed all the same
                        pass
                unwritten[job.key, job.account] = transition(job)
        listed = [job for job in await self.store.jobs(*states) if (job.key, job.account) not in unwritten]
        listed += [job for job in unwritten.values() if job and (not states or job.state in states)]
        return sorted(listed, key=lambda job: job.created_at) if unwritten else listed

    async def job(self, key: str) -> Job | None:
        """Return the job of a key, of this account or of one that may be the same."""
        job = await self.store.get(key, account=self.account)
        if job is None:
            foreign = await self.store.get(key)
            job = (
                foreign
                if foreign is not None and reservation.may_be_same(foreign.account, self.account)
                else None
            )
        return job

    async def own_job(self, key: str) -> Job:
        """Return the job of a key, to decide on it.

        Raises `RequestValidationError` if there is none, and `JobKeyConflictError` if it was sent to another
        host, or there is only one of another account that may be the same.
        """
        job = await self.job(key)
        if job is None:
            raise transitions.no_job(key)
        if job.account and self.account and job.account != self.account:
            raise reservation.conflict(job, self.account)
        if job.request.base_url != self._base_url:
            raise reservation.elsewhere(job, self._base_url)
        return job

    async def job_to_resubmit(self, key: str) -> Job:
        """Return the job that `resubmit` would send once more; sends and changes nothing.

        Raises what `resubmit` would raise before it sends: as `own_job`, and `RequestValidationError` if the
        job is in another state.
        """
        job = await self.own_job(key)
        transition = reservation.resubmitted(key, this_process(""), is_active, self.clock.time())
        reserved = transition(job)
        assert reserved is not None
        assert reserved.previous is not None
        return reserved.previous

    async def resolve(self, key: str, task: TaskRef, item: int = 0) -> Job:
        """Record which task an ambiguous job made, of a batch for which item."""
        self.forget_end(task)
        transition = transitions.resolved(key, task, is_active, self.clock.time(), item)
        job = await self.store.change(key, transition, account=self.account, durable=True)
        assert job is not None  # the transition raises when there is none
        return job

    async def adopt(self, key: str, task: TaskRef, item: int = 0) -> Adoption:
        """Settle a job whose answer was lost with the task that a webhook names for it.

        Only if no other job has the task. If webhooks name it for two jobs, both stay undecided.

        Args:
            key: the job key, which the webhook proves.
            task: the task; without a family it is of that of the job.
            item: which item of a batch made it, from 0.
        """
        # The webhook's address proves the key by our secret, so the account may have another API key now.
        job = await self.store.get(key, account=self.account) or await self.store.get(key)
        if job is None:
            return Adoption("no job", task)
        if job.request.family in task.families or not task.family:
            task = msgspec.structs.replace(task, family=job.request.family)
        if not task.family:
            return Adoption("refused", task)
        if not transitions.may_be_adopted(job, task.task_id):
            return _adoption(job, task)
        self.forget_end(task)
        rivals = await self._rivals(job, task)
        is_news = settles(job, task)
        if not rivals:
            transition = transitions.adopted(task, self.clock.time(), item)
            job = await self.store.change(key, transition, account=job.account, durable=True) or job
            rivals = await self._rivals(job, task)  # another process may have received the same webhook
        if not rivals:
            return _adoption(job, task, is_news=is_news)
        for one in (job, *rivals):
            transition = transitions.disputed(task, self.clock.time())
            await self.store.change(one.key, transition, account=one.account, durable=True)
        keys = ", ".join((key, *(rival.key for rival in rivals)))
        log.warning("task %s is named by webhooks for the jobs %s", task.task_id, keys)
        return Adoption("refused", task)

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
        while len(self._ends) > REMEMBERED_ENDS:
            del self._ends[next(iter(self._ends))]
        is_recorded = False
        error = update.error
        outcome = "failed" if error is not None else update.result.status if update.result else ""
        refunded = error.refunded if isinstance(error, TaskFailedError) else None
        why = error.message if error is not None else ""
        try:
            for word in ref.families:
                for job in await self.store.find(word, ref.task_id):
                    transition = transitions.ended(ref, outcome, refunded, why, self.clock.time())
                    await self.store.change(job.key, transition, account=job.account)
                    is_recorded = True
        except JobStoreError as failure:
            is_recorded = False
            log.warning("task %s ended (%s), and that could not be stored: %s", ref.task_id, outcome, failure)
        finally:
            if not is_recorded:  # or cancelled, or its job is being stored just now
                self.forget_end(ref)

    async def aclose(self) -> None:
        """Store what is pending, within seconds, and close the store."""
        try:
            await self.notes.aclose()
        finally:
            await self.store.aclose()


class JobEntry:
    """One paid call as it is recorded. A `_transport.call_entry.CallEntry`.

    Args:
        recorder: the recorder of its account.
        key: the job key.
        request: the request that is sent under it.
        resubmits: True to send the job of the key once more, because a person has decided that.
    """

    def __init__(
        self, recorder: JobRecorder, key: str, request: JobRequest, *, resubmits: bool = False
    ) -> None:
        self.key: Final = key
        self.request: Final = request
        self._resubmits: Final = resubmits
        self._recorder: Final = recorder
        self._owner: Final = this_process(os.urandom(16).hex())
        self._balance: float | None = None
        self._has_begun = False
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
        await recorder.notes.write(self.key)
        self._has_begun = True
        pause, waited = FIRST_READ_PAUSE, 0.0
        last: Job | None = None
        while True:
            now = recorder.clock.time()
            if self._resubmits:
                transition = reservation.resubmitted(self.key, self._owner, is_active, now)
            else:
                transition = reservation.reserve(self.key, self.request, self._owner, is_active, now)
            try:
                job = await recorder.store.change(self.key, transition, account=recorder.account)
            except MusicAPIError:
                self._has_begun = False
                raise
            assert job is not None  # the transition makes a reserved row of a missing one
            if job.state == "reserved" and job.owner == self._owner:
                self._job = job
                return None
            if job.state in ("accepted", "finished", "failed"):
                return _previous(job)
            if job.state == "ambiguous":
                if job.request.is_batch and job.reply:  # an answer that leaves some items open
                    return _previous(job)
                raise reservation.outcome_unknown(job)
            waited = waited + pause if job == last else 0.0
            last = job
            if job.owner is not None and is_active(job.owner) is None and waited > UNKNOWN_OWNER_PATIENCE:
                raise reservation.reserved_elsewhere(job, job.owner, self._owner)
            await recorder.clock.sleep(pause)
            pause = min(pause * 1.5, LONGEST_READ_PAUSE)

    def balance(self, before: float | None) -> None:
        """Set the credits before the first attempt."""
        self._balance = before

    async def sending(self) -> None:
        """Record that an attempt is about to leave; on disk when this returns. Raises `JobStoreError`."""
        transition = transitions.sending(self._owner, self._recorder.clock.time(), self._balance)
        job = await self._recorder.store.change(
            self.key, transition, account=self._recorder.account, durable=True
        )
        assert job is not None  # the transition raises when the row is gone
        self._job = job

    async def returned(self) -> None:
        """Record that the attempt was provably not taken, and another one follows. Raises `JobStoreError`."""
        transition = transitions.returned(self._owner, self._recorder.clock.time())
        await self._recorder.store.change(self.key, transition, account=self._recorder.account)

    # --- what has happened ----------------------------------------------------------------------------

    async def released(self) -> None:
        """Record that it was provably not taken, and no attempt follows: the key is free."""
        if self._has_begun:
            await self._recorder.note(self.key, transitions.released(self._owner), "it was not carried out")

    async def unknown(self, why: str, balance: float | None) -> None:
        """Record that it is unknown whether it was taken; `balance` is the credits after it."""
        transition = transitions.unknown(self._owner, why, balance, self._recorder.clock.time())
        await self._recorder.note(self.key, transition, f"its outcome is unknown ({why})")

    async def accepted(self, task: TaskRef, reply: Any) -> None:
        """Record the task that the service gave; on disk when this returns, unless the store fails."""
        self._recorder.forget_end(task)
        item = JobTask(ref=msgspec.structs.replace(task, own=False))
        now = self._recorder.clock.time()
        transition = transitions.accepted(self._job, (item,), _json(reply), now)
        await self._recorder.note(self.key, transition, f"it was accepted as {task.token}")

    async def accepted_batch(self, items: Sequence[ItemNote], others: Sequence[TaskRef], reply: Any) -> None:
        """Record what the service gave for each item; see `accepted`.

        `others` are tasks of which it is not known to which item they belong.
        """
        noted: list[JobTask] = []
        for item in items:
            ref = None if item.task is None else msgspec.structs.replace(item.task, own=False)
            if ref is not None:
                self._recorder.forget_end(ref)
            noted.append(JobTask(ref=ref, outcome="failed" if item.error else "", error=item.error))
        unassigned = tuple(msgspec.structs.replace(task, own=False) for task in others)
        transition = transitions.accepted(
            self._job, noted, _json(reply), self._recorder.clock.time(), unassigned
        )
        await self._recorder.note(self.key, transition, f"it was accepted with {len(items)} items")

    async def answered(self, reply: Any) -> None:
        """Record the answer to a direct call."""
        transition = transitions.answered(self._owner, self._job, _json(reply), self._recorder.clock.time())
        await self._recorder.note(self.key, transition, "it was answered")


class Resubmission:
    """Records an ambiguous or failed job that is sent once more, under its own key."""

    def __init__(self, recorder: JobRecorder, job: Job) -> None:
        self._recorder: Final = recorder
        self._job: Final = job

    async def links(self, key: str, files: Mapping[str, str]) -> dict[str, str]:
        """Return no links: the recorded request has them."""
        return {}

    def record(
        self, key: str | None, prepared: PreparedRequest, files: Mapping[str, str] = NO_FILES
    ) -> JobEntry:
        """Return the entry that sends the job once more, under its own key and with its recorded request."""
        return JobEntry(self._recorder, self._job.key, self._job.request, resubmits=True)


def settles(job: Job, task: TaskRef) -> bool:
    """Return True if it was unknown until now that the call of a job was carried out and made this task."""
    is_unknown = job.state == "ambiguous" or (
        job.state == "sent" and job.owner is not None and is_active(job.owner) is False
    )
    return is_unknown and all(ref.task_id != task.task_id for ref in job.refs)


def _adoption(job: Job, task: TaskRef, *, is_news: bool = False) -> Adoption:
    """Return whether the job has the task now."""
    for ref in job.refs:
        if ref.task_id == task.task_id:
            return Adoption("settled", ref, is_news)
    return Adoption("refused", task)


def _previous(job: Job) -> Previous:
    """Return the result of a job for another call with its key."""
    items = tuple(item.ref for item in job.tasks) if job.request.is_batch else ()
    return Previous(job.task, msgspec.json.decode(job.reply) if job.reply else None, items)


def _json(reply: Any) -> str:
    try:
        return msgspec.json.encode(reply).decode()
    except (TypeError, ValueError, RecursionError):
        return ""
