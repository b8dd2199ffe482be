"""Paid calls, written down in a store: the side that faces the client."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, Final, cast
from weakref import WeakValueDictionary

import msgspec

from .._transport.recording import Earlier
from ..api.families import SAME_FAMILY
from ..api.handle import TaskRef
from ..api.request import SECRET, without_secrets
from ..api.results import TaskUpdate
from ..clock import Clock
from ..errors import JobStoreError, MusicAPIError, OutcomeUnknownError, TaskFailedError
from ..options import Options
from . import transitions
from .owner import is_alive, this_process
from .store import Job, JobRequest, JobState, JobStore, Owner, Step

log: Final = logging.getLogger("musicapi_async")

LOOK_FIRST: Final = 0.05
LOOK_LONGEST: Final = 1.0
"""Seconds between looks at a row that another call holds; a create takes about a second."""
PATIENCE: Final = 120.0
"""Seconds to wait for a holder of whom nobody can tell whether it lives, twice the longest attempt."""

ENDS: Final = 1024
"""Tasks whose end is remembered as noted, so that looking at them again costs no look into the store."""

_encoder: Final = msgspec.json.Encoder(order="sorted")
_under_way: Final[WeakValueDictionary[str, JobEntry]] = WeakValueDictionary()
"""The recordings of this process. One whose call was torn down with its loop is gone from here, too."""


def holds(holder: Owner) -> bool | None:
    """Whether the holder of a reservation can still go on with it; None when that cannot be told."""
    if holder == this_process(holder.nonce):
        return holder.nonce in _under_way
    return is_alive(holder)


def new_key() -> str:
    """A job key for a create that was given none."""
    return f"auto-{uuid.uuid4().hex}"


def request_of(base_url: str, call: str, body: bytes, family: str = "", kind: str = "") -> JobRequest:
    """What a call asks for, in the one form in which two calls are compared, without its secrets."""
    asked: Any = msgspec.json.decode(body) if body else None
    hidden: tuple[str, ...] = ()
    if isinstance(asked, dict):
        fields = cast("dict[str, Any]", asked)
        hidden = tuple(sorted(name for name in SECRET if fields.get(name)))
    asked = without_secrets(cast("object", asked))
    return JobRequest(call, base_url, _encoder.encode(asked).decode(), family, kind, hidden)


class JobRecorder:
    """Writes the paid calls of a client into a store. A `Recorder`.

    `always=False` writes down only calls that have a job key.
    """

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        base_url: str,
        *,
        always: bool = True,
        new_key: Callable[[], str] = new_key,
        alive: transitions.Liveness = holds,
    ) -> None:
        self.store: Final = store
        self.clock: Final = clock
        self.alive: Final = alive
        self._base_url: Final = base_url
        self.always: Final = always
        self._new_key: Final = new_key
        self._unsaved: Final[dict[str, Step]] = {}
        self._ends: Final[dict[tuple[str, str], None]] = {}

    def record(
        self, key: str | None, call: str, body: bytes, family: str = "", kind: str = ""
    ) -> JobEntry | None:
        """The recording of a call; None for one without a key that need not be written down."""
        if key is None and not self.always:
            return None
        request = request_of(self._base_url, call, body, family, kind)
        return JobEntry(self, key or self._new_key(), request)

    def keyed(self, options: Options) -> Options:
        """The options with a job key, if the call is written down."""
        if options.job_key is not None or not self.always:
            return options
        return msgspec.structs.replace(options, job_key=self._new_key())

    def again(self, job: Job) -> Reopening:
        """A recorder for sending an ambiguous or failed job once more."""
        return Reopening(self, job)

    async def jobs(self, *wanted: JobState) -> list[Job]:
        """The jobs in these states, after settling those whose process died."""
        await self.save()
        for job in await self.store.jobs("reserved", "sent"):
            if job.holder is not None and self.alive(job.holder) is False:
                await self.store.change(job.key, transitions.recover(self.alive, self.clock.time()))
        return await self.store.jobs(*wanted)

    async def resolve(self, key: str, task: TaskRef) -> Job:
        """Say which task an ambiguous job made."""
        self.reopen(task)
        step = transitions.resolved(key, task, self.alive, self.clock.time())
        job = await self.store.change(key, step, durable=True)
        assert job is not None  # the step raises when there is none
        return job

    async def adopt(self, key: str, task: TaskRef) -> bool:
        """Settle a job whose answer was lost with the task that a webhook names for it.

        Only if no other job holds the task. If webhooks name it for two jobs, both stay undecided. Returns
        False if there is such a job and it does not stand for the task.
        """
        job = await self.store.get(key)
        if job is None:
            return True
        if not transitions.may_be_adopted(job, task.task_id):
            return job.task_id == task.task_id
        self.reopen(task)
        others = await self._others_with(key, task)
        if not others:
            if job.request.family in _words(task):
                task = msgspec.structs.replace(task, family=job.request.family)
            job = await self.store.change(key, transitions.adopted(task, self.clock.time()), durable=True)
            others = await self._others_with(key, task)  # another process may have heard the same
        if not others:
            return job is not None and job.task_id == task.task_id
        log.warning("task %s is named by webhooks for the jobs %s", task.task_id, ", ".join((key, *others)))
        for one in (key, *others):
            await self.store.change(one, transitions.disputed(task, self.clock.time()), durable=True)
        return False

    async def _others_with(self, key: str, task: TaskRef) -> list[str]:
        """The keys of other jobs that hold the task."""
        found = [job.key for word in _words(task) for job in await self.store.find(word, task.task_id)]
        return [one for one in found if one != key]

    def knows_end_of(self, ref: TaskRef) -> bool:
        """Whether that a task ended has been noted lately, so that there is nothing to do."""
        return _one(ref) in self._ends

    def reopen(self, ref: TaskRef) -> None:
        """There is news of a task: its end is noted when it is seen again."""
        self._ends.pop(_one(ref), None)

    async def ended(self, ref: TaskRef, update: TaskUpdate) -> None:
        """Note that a task ended. A loss here loses nothing: the next look at the task tells it again."""
        self._ends[_one(ref)] = None  # at once, so that looks in the meantime do not note it, too
        while len(self._ends) > ENDS:
            del self._ends[next(iter(self._ends))]
        noted = False
        error = update.error
        outcome = "failed" if error is not None else update.result.status if update.result else ""
        refunded = error.refunded if isinstance(error, TaskFailedError) else None
        why = error.message if error is not None else ""
        try:
            for word in _words(ref):
                for job in await self.store.find(word, ref.task_id):
                    step = transitions.ended(ref, outcome, refunded, why, self.clock.time())
                    await self.store.change(job.key, step)
                    noted = True
        except JobStoreError as failure:
            noted = False
            log.warning("task %s ended (%s), and that could not be noted: %s", ref.task_id, outcome, failure)
        finally:
            if not noted:  # or cancelled, or its job is being written down just now
                self.reopen(ref)

    async def keep(self, key: str, step: Step, what: str) -> None:
        """Write down what has happened already. What cannot be is logged, and tried again later."""
        self._unsaved[key] = step
        try:
            await self.store.change(key, step, durable=True)
        except JobStoreError as error:
            log.error("job %s: %s, and that could not be written down yet: %s", key, what, error)
        else:
            self._unsaved.pop(key, None)

    async def save(self) -> None:
        """Write down what could not be before."""
        for key, step in list(self._unsaved.items()):
            await self.store.change(key, step, durable=True)
            self._unsaved.pop(key, None)

    async def aclose(self) -> None:
        """Write down what is left, and close the store."""
        try:
            await self.save()
        except JobStoreError as error:
            log.error("jobs %s stay unsaved: %s", ", ".join(self._unsaved), error)
        await self.store.aclose()


class JobEntry:
    """One paid call as it is written down; see `transport.recording.Recording`."""

    def __init__(self, ledger: JobRecorder, key: str, request: JobRequest) -> None:
        self.key: Final = key
        self.request: Final = request
        self._ledger: Final = ledger
        self._holder: Final = this_process(uuid.uuid4().hex)
        self._balance: float | None = None
        self._begun = self._left = self._doubt = False
        _under_way[self._holder.nonce] = self
        now = ledger.clock.time()
        self._job = Job(key=key, state="reserved", request=request, created_at=now, updated_at=now)

    async def begin(self) -> Earlier | None:
        """Reserve the key, or give what it was used for before."""
        ledger = self._ledger
        await ledger.save()
        self._begun = True
        pause, waited = LOOK_FIRST, 0.0
        last: Job | None = None
        while True:
            try:
                job = await ledger.store.change(self.key, self._taking())
            except MusicAPIError:
                self._begun = False
                raise
            assert job is not None  # what it makes of a missing row is a reserved one
            if job.state == "reserved" and job.holder == self._holder:
                self._job = job
                return None
            if job.state in ("accepted", "finished", "failed"):
                return Earlier(job.task, msgspec.json.decode(job.reply) if job.reply else None)
            if job.state == "ambiguous":
                raise unknown_outcome(job)
            waited = waited + pause if job == last else 0.0
            last = job
            if job.holder is not None and ledger.alive(job.holder) is None and waited > PATIENCE:
                raise _held(job, job.holder)
            await ledger.clock.sleep(pause)
            pause = min(pause * 1.5, LOOK_LONGEST)

    def _taking(self) -> Step:
        ledger = self._ledger
        return transitions.reserve(self.key, self.request, self._holder, ledger.alive, ledger.clock.time())

    async def leaving(self) -> None:
        """On disk when this returns: it may have left."""
        step = transitions.sending(self._holder, self._ledger.clock.time(), self._balance)
        job = await self._ledger.store.change(self.key, step, durable=True)
        assert job is not None  # the step raises when the row is gone
        self._job = job
        self._doubt = self._doubt or self._left
        self._left = True

    async def returned(self) -> None:
        """It was not taken, and another attempt follows."""
        self._left = False
        if not self._doubt:
            now = self._ledger.clock.time()
            await self._ledger.store.change(self.key, transitions.returned(self._holder, now))

    async def dropped(self) -> None:
        """It was not taken, and none follows. An attempt before it may have been: then nobody knows."""
        if self._doubt:
            await self.unknown("an earlier attempt may have been carried out", None)
        elif self._begun:
            await self._ledger.keep(self.key, transitions.released(self._holder), "it was not carried out")

    async def unknown(self, why: str, balance: float | None) -> None:
        """Nobody knows whether it was taken."""
        step = transitions.unknown(self._holder, why, balance, self._ledger.clock.time())
        await self._ledger.keep(self.key, step, f"its outcome is unknown ({why})")

    async def accepted(self, task: TaskRef, reply: Any) -> None:
        """On disk when this returns: the task."""
        self._ledger.reopen(task)
        kept = msgspec.structs.replace(task, own=False)
        now = self._ledger.clock.time()
        step = transitions.accepted(self._holder, self._job, kept, _text(reply), now)
        await self._ledger.keep(self.key, step, f"it was accepted as {task.token}")

    async def answered(self, reply: Any) -> None:
        """A direct call was answered."""
        step = transitions.answered(self._holder, self._job, _text(reply), self._ledger.clock.time())
        await self._ledger.keep(self.key, step, "it was answered")

    def balanced(self, before: float | None) -> None:
        """The credits before the first attempt."""
        self._balance = before


class Reopening:
    """Records a job that is sent once more, under its own key."""

    def __init__(self, ledger: JobRecorder, job: Job) -> None:
        self._ledger: Final = ledger
        self._job: Final = job

    def record(self, key: str | None, call: str, body: bytes, family: str = "", kind: str = "") -> JobEntry:
        """The recording that opens the job again."""
        return _Reopened(self._ledger, self._job.key, self._job.request)


class _Reopened(JobEntry):
    def __init__(self, ledger: JobRecorder, key: str, request: JobRequest) -> None:
        super().__init__(ledger, key, request)
        self._opened = False

    def _taking(self) -> Step:
        if self._opened:
            return super()._taking()
        self._opened = True
        ledger = self._ledger
        return transitions.resubmitted(self.key, self._holder, ledger.alive, ledger.clock.time())


def _words(ref: TaskRef) -> tuple[str, ...]:
    """The words for the family of a task."""
    return SAME_FAMILY.get(ref.family, (ref.family,))


def _one(ref: TaskRef) -> tuple[str, str]:
    """One key for a task, whichever word of its family it is told by."""
    return _words(ref)[0], ref.task_id


def unknown_outcome(job: Job) -> OutcomeUnknownError:
    """The error that an ambiguous job stands for."""
    return OutcomeUnknownError(
        f"job {job.key!r} was sent before and its outcome is unknown ({job.why})",
        call=job.request.call,
        job_key=job.key,
        balance_before=job.balance_before,
        balance_after=job.balance_after,
        hint=resolving(job.key, job.balance_before, job.balance_after),
    )


def resolving(key: str, before: float | None = None, after: float | None = None) -> str:
    """What to do about an ambiguous job."""
    told = ""
    if before is not None and after is not None:
        told = (
            f"The balance went from {before:g} to {after:g} credits, which other calls and refunds may have "
            "moved as well. "
        )
    return (
        f"{told}Look for the song in the dashboard; then client.resolve({key!r}, task_id=...) if it is "
        f"there, or client.resubmit({key!r}) to send it again, which may be paid for twice"
    )


def _held(job: Job, holder: Owner) -> JobStoreError:
    return JobStoreError(
        f"job {job.key!r} is {job.state} by process {holder.pid} on {holder.host}, and whether that one "
        "lives cannot be told from here",
        hint="If it is gone, look for the song in the dashboard before you use another key.",
    )


def _text(reply: Any) -> str:
    try:
        return msgspec.json.encode(reply).decode()
    except (TypeError, ValueError, RecursionError):
        return ""
