"""One paid call while it is under way, and the single place that decides what its end means for money.

`Calls` runs it in a task of its own, shielded from its caller; `Attempts` sends its request; a `JobEntry`
writes down what happens to it. This module knows none of the three from inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, NoReturn, Protocol, Self

import msgspec

from .._wire import base_url_hints
from .._wire.prepare import BALANCE, PreparedRequest
from .._wire.reading import read_reply
from .._wire.redaction import Redactor
from .._wire.response import Response
from .._wire.verdict import Outcome, verdict
from ..api.account import Credits
from ..api.task import TaskRef
from ..errors import (
    APIConnectionError,
    APIStatusError,
    ConnectionLostError,
    JobStoreError,
    MusicAPIError,
    OutcomeUnknownError,
    RequestTimeoutError,
    StepFailedError,
)
from ..options import Options
from .attempts import Attempts
from .permits import FREE, Permit
from .rate_limiter import Slot
from .waits import Waits

log: Final = logging.getLogger("musicapi_async")

NOTE_PATIENCE: Final = 1.0
"""Real seconds that an error waits for its note in the job store; the note goes on after that."""
BALANCE_LIMIT: Final = 10.0
"""Seconds of the client's clock for the balance after a call whose outcome is unknown."""
BALANCE_FLOOR: Final = 2.0
"""Real seconds that it has at least: a service does not answer faster because the clock is faster."""


class Previous(msgspec.Struct, frozen=True):
    """The result of a previous call with the same job key: its task, or the body of its response."""

    task: TaskRef | None
    reply: Any


class JobEntry(Protocol):
    """One paid call in the job store.

    `reserve`, `sending` and `returned` raise `JobStoreError` when the store cannot be written: then nothing
    may be sent. The others come after the fact and never raise that.
    """

    @property
    def key(self) -> str:
        """The job key, given or generated."""
        ...

    async def reserve(self) -> Previous | None:
        """Reserve the key, or return the result that it stands for.

        Waits while another call with this key is under way. Raises `JobKeyConflictError`, and
        `OutcomeUnknownError` when the outcome of the previous call is unknown.
        """
        ...

    async def sending(self) -> None:
        """Note that an attempt is about to leave; on disk when this returns."""
        ...

    async def returned(self) -> None:
        """Note that the attempt was provably not carried out, and another one follows."""
        ...

    async def released(self) -> None:
        """Note that the call was provably not carried out, and no attempt follows: the key is free."""
        ...

    async def unknown(self, why: str, balance: float | None) -> None:
        """Note that the outcome is unknown, with the credits after it."""
        ...

    async def accepted(self, task: TaskRef, reply: Any) -> None:
        """Note the task that the service gave; on disk when this returns."""
        ...

    async def answered(self, reply: Any) -> None:
        """Note the response to a direct call."""
        ...

    def balance(self, before: float | None) -> None:
        """Take the credits before the first attempt, for the next note."""
        ...


class Accepted(msgspec.Struct, frozen=True):
    """A create that was taken: its task, the body of the response, and the job key if it was recorded.

    `webhook` is True if a webhook was ordered for it.
    """

    task: TaskRef
    reply: Any
    job_key: str | None = None
    webhook: bool = False


class Notes:
    """Writes to job stores that are under way and that no caller waits for any longer."""

    def __init__(self) -> None:
        self._running: Final[set[asyncio.Task[None]]] = set()

    async def write(self, note: Coroutine[Any, Any, None], patience: float | None = None) -> None:
        """Begin a write and wait for it at most `patience` real seconds; it goes on after that."""
        await asyncio.wait({self.begin(note)}, timeout=patience)

    def begin(self, note: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a write in a task of its own, which no cancellation of a caller stops."""
        task = asyncio.get_running_loop().create_task(note)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job could not be written down: %s", error, exc_info=error)

    async def finish(self, patience: float | None = None) -> None:
        """Return when all writes that have begun are done, at most `patience` real seconds later."""
        if self._running:
            # Not `gather`, which cancels them all with its caller.
            _, remaining = await asyncio.wait(self._running, timeout=patience)
            if remaining:
                log.error("%d jobs were not written down: the store does not answer", len(remaining))


class PaidCall:
    """A call that may charge, while it is under way. A `Sending`, so also a `Departure`.

    As a context manager it covers the call with its deadline and reserves the job key on entry (`previous` is
    then the result that the key stands for). Leaving it by an error, one of the entry included, decides once
    what the error means for money, writes that down, and raises the error that says so.

    From `accepted` on the call is settled: no deadline, cancellation or error takes its result away.

    Attributes:
        prepared: the request.
        options: those of the client view.
        job: its entry in the job store, if it is recorded.
        key: the job key, given or generated.
        previous: the result of a previous call with the same job key.
        permit: the permit for one more task in flight; the call's own from the moment it is granted.
        waits: the waits before it was sent.
        sent: True while an attempt may have left and is not proven to be refused.
        in_doubt: True once an attempt that is followed by another may have been carried out.
        is_preparing: True once the service has answered that the result is being prepared.
        settled: True once its result is there.
    """

    def __init__(
        self,
        prepared: PreparedRequest,
        options: Options,
        job: JobEntry | None,
        *,
        attempts: Attempts,
        redactor: Redactor,
        notes: Notes,
    ) -> None:
        self.prepared: Final = prepared
        self.options: Final = options
        self.job: Final = job
        self.key: Final = options.job_key if job is None else job.key
        self.previous: Previous | None = None
        self.permit: Permit = FREE
        self.waits: Final = Waits(attempts.clock, prepared.call)
        self.sent = False
        self.in_doubt = False
        self.is_preparing = False
        self.settled = False
        self._attempts: Final = attempts
        self._redactor: Final = redactor
        self._notes: Final = notes
        self._slot: Slot | None = None
        self._deadline = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        if self.options.deadline is not None:
            self._deadline = asyncio.timeout(self._attempts.clock.real(self.options.deadline))
        await self._deadline.__aenter__()
        try:
            if self.job is not None:
                self.previous = await self.job.reserve()
                if self.previous is not None:
                    self._settle()
                elif self.options.check_balance:
                    self.job.balance(await self._balance())
        except BaseException as error:  # it would not reach `__aexit__` by itself
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended = error
        try:
            await self._deadline.__aexit__(kind, error, traceback)
        except TimeoutError:
            ended = self._too_late()
        if ended is None or self.settled:
            return
        shown = await self._decide(ended)
        if shown is not ended:
            raise shown from ended
        if ended is not error:
            raise ended from None

    async def send(self) -> Response:
        """Send the request under the rules and return the last response."""
        # A call that is free to repeat has nothing to note of its attempts.
        paid = self if self.prepared.kind == "create" else None
        return await self._attempts.send(self.prepared, self.options, paid, self.waits)

    async def begin(self, slot: Slot) -> None:
        """Note that an attempt begins; see `Sending`."""
        self._slot = slot
        if self.job is not None:
            await self.job.sending()

    async def leaving(self) -> None:
        """Wait for the rate, and note that the request leaves; see `Departure`."""
        if self._slot is not None:
            await self._slot.departing()
        self.sent = True

    async def repeat(self, *, proven: bool) -> None:
        """Note that another attempt follows; nothing is under way until then."""
        self.in_doubt = self.in_doubt or not proven  # whatever the next attempt says
        self.sent = False
        if proven and self.job is not None:
            await self.job.returned()

    async def accepted(self, task: TaskRef, reply: Any) -> None:
        """Keep the task that the service gave: its id cannot be lost from here on.

        Returns after the first try to store it. Never raises.
        """
        self._settle()
        job = self.job
        note = None if job is None else self._notes.begin(self._store_task(job, task, reply))
        with contextlib.suppress(Exception):  # a logging filter that fails loses no task
            log.info("%s accepted: %s", self.prepared.call, task.token)
        if note is not None:
            await self._first_try(note)

    async def answered(self, reply: Any) -> None:
        """Keep the response to a direct call. Returns after the first try to store it; never raises."""
        self._settle()
        if self.job is not None:
            await self._first_try(self._notes.begin(self._store_reply(self.job, reply)))

    async def unfinished(self) -> None:
        """End a call whose result is still being prepared, and whose caller does not wait for it."""
        self._settle()
        if self.job is not None:
            await self._first_try(self._notes.begin(self._release(self.job)))

    def _settle(self) -> None:
        self.settled = True
        if not self._deadline.expired():
            self._deadline.reschedule(None)

    async def _first_try(self, note: asyncio.Task[None]) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the client closes; the note goes on
            await asyncio.wait({note})

    async def _store_task(self, job: JobEntry, task: TaskRef, reply: Any) -> None:
        await job.accepted(task, self._redactor.copy(reply))

    async def _store_reply(self, job: JobEntry, reply: Any) -> None:
        await job.answered(self._redactor.copy(reply))

    async def _release(self, job: JobEntry) -> None:
        await job.released()

    # --- the end by an error ------------------------------------------------------------------------------

    async def _decide(self, error: BaseException) -> BaseException:
        """Decide what the error that ended the call means for money, note it, and return what to raise."""
        self.permit.release()
        job = self.job
        if isinstance(error, JobStoreError):
            error.call = self.prepared.call
        if isinstance(error, OutcomeUnknownError):  # of the call that the job key was used for before
            error.job_key = self.key
            return error
        free = self.prepared.kind != "create"  # it may be repeated at no cost, so nothing is to be settled
        outcome = Outcome.NOT_SENT if free else verdict(error, sent=self.sent, in_doubt=self.in_doubt)
        self._explain_waits(error)
        if outcome is Outcome.ACCEPTED and isinstance(error, APIStatusError) and error.task_id:
            task = self.prepared.task(error.task_id, self._attempts.clock.time())
            log.warning("%s: accepted, as an error says: %s", self.prepared.call, task.token)
            if job is not None:
                await self._notes.write(job.accepted(task, error.body), NOTE_PATIENCE)
            error.may_have_been_charged = True
            error.about(task_id=task.task_id, family=task.family)
            return task_in_error(self.prepared, task, f" ({error.message})", self.key)
        if outcome.is_free:
            if isinstance(error, MusicAPIError):
                # An answer that the result is being prepared may have been charged, and the request may be
                # repeated at no cost: the key is free, and nothing is said to be proven.
                error.not_charged = not self.is_preparing and (error.not_charged or not free)
                error.may_have_been_charged = error.may_have_been_charged or self.is_preparing
                base_url_hints.add_hint(error, self._attempts.base_url)
            if job is not None:
                await self._notes.write(job.released(), NOTE_PATIENCE)
            return error
        shown = self._unknown(error) if isinstance(error, Exception) else error
        if job is not None:
            known = isinstance(error, MusicAPIError)
            balance = await self._last_balance() if self.options.check_balance and known else None
            why = str(error) if known else "given up before its answer was read"
            await self._notes.write(job.unknown(why, balance), NOTE_PATIENCE)
        return shown

    def _too_late(self) -> RequestTimeoutError:
        """The error of a call that its deadline has ended."""
        return RequestTimeoutError(
            f"the deadline of {self.options.deadline:g} s passed",
            sent=self.sent or self.in_doubt if self.prepared.kind == "create" else None,
            call=self.prepared.call,
        )

    def _explain_waits(self, error: BaseException) -> None:
        """Name in an error what the call has waited for, if it was long."""
        if isinstance(error, MusicAPIError) and (waited := str(self.waits)):
            error.message = f"{error.message}; {waited}"

    def _unknown(self, error: Exception) -> OutcomeUnknownError:
        """The error of a call of which is unknown whether it was carried out."""
        text, hint = type(error).__name__, ""
        if isinstance(error, MusicAPIError):
            text = error.message
            error.may_have_been_charged = True
            hint = base_url_hints.suggestion(error, self._attempts.base_url)
            # In doubt it must not say "it may be repeated".
            error.hint = hint or ("" if self.in_doubt else error.hint)
        log.warning("%s: outcome unknown: %s", self.prepared.call, text)
        step = error if isinstance(error, StepFailedError) else None
        clip_id = step.clip_id if step else None
        usable = f"The upload worked: clip {clip_id} can be used without another upload." if clip_id else ""
        return OutcomeUnknownError(
            f"the call was sent, and whether it was carried out is unknown ({text})",
            hint=" ".join(filter(None, (OutcomeUnknownError.default_hint, usable, hint))),
            call=self.prepared.call,
            job_key=self.key,
            steps=step.steps if step else None,
            clip_id=clip_id,
        )

    async def _last_balance(self) -> float | None:
        """The credits after the call, or None if they cannot be had soon."""
        try:
            async with asyncio.timeout(max(self._attempts.clock.real(BALANCE_LIMIT), BALANCE_FLOOR)):
                return await self._balance()
        except TimeoutError:
            log.info("the balance could not be read within %g s", BALANCE_LIMIT)
            return None

    async def _balance(self) -> float | None:
        """The credits, or None if they cannot be had; evidence only."""
        try:
            found = await self._attempts.send(BALANCE, Options(max_retries=1))
        except MusicAPIError as error:
            log.info("the balance could not be read: %s", error)
            return None
        known = read_reply(Credits, found.fields) if found.ok and found.is_object else None
        return known.total if known is not None else None

    # --- its caller ---------------------------------------------------------------------------------------

    def client_closed(self) -> NoReturn:
        """Raise what the caller hears when the client is closed while the call is under way."""
        call, creates = self.prepared.call, self.prepared.kind == "create"
        if not creates or not (self.sent or self.in_doubt):
            sent = False if creates else None
            raise APIConnectionError("the client was closed before it was sent", sent=sent, call=call)
        lost = ConnectionLostError("the client was closed before the answer came", sent=True, call=call)
        raise self._unknown(lost) from lost

    def report(self, done: asyncio.Task[Any]) -> None:
        """Log the end of the call, whose caller has gone."""
        call = self.prepared.call
        if done.cancelled():
            log.error("%s: sent, and given up before the answer: the account may have been charged", call)
        elif (error := done.exception()) is not None:
            log.error("%s: its caller was cancelled; it ended with: %s", call, error)
        else:
            result = done.result()
            end = result.task.token if isinstance(result, Accepted) else "done"
            log.warning("%s: its caller was cancelled; it was accepted and goes on: %s", call, end)


def task_in_error(
    prepared: PreparedRequest, task: TaskRef, text: str, job_key: str | None
) -> OutcomeUnknownError:
    """Return the error of a paid call whose response was an error that names a task."""
    return OutcomeUnknownError(
        f"the answer is an error that names task {task.task_id}: it was probably accepted{text}",
        hint="Do not send it again: wait for the task of this id; the same job key gives it, too.",
        call=prepared.call,
        task_id=task.task_id,
        family=task.family,
        job_key=job_key,
    )
