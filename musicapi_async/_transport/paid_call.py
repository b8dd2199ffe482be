"""One paid call while it is under way, and how it ends.

`_wire.charge_verdict` decides what one response or error proves about money. This module applies that verdict
once per call: it frees the permit, records the outcome in the job store, and raises an error that says if
anything was charged. `jobs.transitions` decides how the record changes a stored job.

`Calls` runs a paid call in its own asyncio task, shielded from its caller; `Attempts` sends its request; a
`CallEntry` stores its progress. This module depends on their interfaces only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import msgspec

from .._wire import base_url_hints
from .._wire.charge_verdict import Outcome, verdict
from .._wire.codec import escaped, report
from .._wire.prepare import BALANCE, PreparedRequest
from .._wire.redaction import Redactor
from .._wire.response import Response
from .._wire.result_reading import read_reply
from ..api.account import Credits
from ..api.direct_replies import Reply
from ..api.json_values import JSON
from ..api.response_info import Received, ResponseInfo
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
from .attempts import CLOSED_HINT, Attempts
from .batch_call import AcceptedBatch
from .call_entry import CallEntry, ItemNote, Notes, Previous
from .observer import ObservedCall
from .permits import Permit
from .rate_limiter import RequestSlot
from .wait_reasons import Waits

NOTE_PATIENCE: Final = 1.0
"""Real seconds that an error waits for its note in the job store; the write continues after that."""
LATE_NOTE_PATIENCE: Final = 0.1
"""The same once the deadline has passed: a write takes milliseconds, unless the store is locked."""
BALANCE_LIMIT: Final = 10.0
"""Seconds of the client's clock for the balance after a call whose outcome is unknown."""
BALANCE_FLOOR: Final = 2.0
"""The least of these in real seconds: a service does not respond faster because the clock is faster."""
PREPARING_HINT: Final = "Call again later: the service continues the work."


class Accepted(msgspec.Struct, frozen=True):
    """A create that was taken: its task, the body of the response, and the job key if it was recorded.

    `webhook` is True if a webhook was ordered for it; `response` is None if a previous call made the task.
    """

    task: TaskRef
    reply: Any
    job_key: str | None = None
    webhook: bool = False
    response: Received | ResponseInfo | None = None

    @property
    def tasks(self) -> tuple[TaskRef, ...]:
        """Its task, as those of a batch."""
        return (self.task,)


class PaidCall:
    """A call that may charge, while it is under way. A `Sending`, so also a `Departure`.

    As a context manager it covers the call with its deadline and reserves the job key on entry (`previous` is
    then the previous result of that key). Leaving it by an error, one of the entry included, decides once
    what the error means for money, records that, and raises the error that says so.

    From `accepted` on the call is settled: no deadline, cancellation or error takes its result away.

    Attributes:
        prepared: the request.
        options: those of the client view.
        job: its entry in the job store, if it is recorded.
        key: the job key, given or generated.
        previous: the result of a previous call with the same job key.
        permit: the permit for one more task in flight; the call's own from the moment it is granted.
        waits: the waits before it was sent.
        sent: True while an attempt may have been sent and is not proven to be refused.
        in_doubt: True if an attempt that was followed by another may have been carried out.
        is_preparing: True if a response said that the result is being prepared.
        settled: True if the call has its result.
    """

    def __init__(
        self,
        prepared: PreparedRequest,
        options: Options,
        job: CallEntry | None,
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
        self.permit: Permit | None = None
        self.waits: Final = Waits(attempts.clock, prepared.call)
        self.sent = False
        self.in_doubt = False
        self.is_preparing = False
        self.settled = False
        self._attempts: Final = attempts
        self._redactor: Final = redactor
        self._notes: Final = notes
        self._slot: RequestSlot | None = None
        self._task: asyncio.Task[Any] | None = None
        self._observed: ObservedCall | None = None
        self._deadline = asyncio.timeout(None)
        self._sent_before = 0  # requests of sends that were followed by another

    async def __aenter__(self) -> Self:
        if self.options.deadline is not None:
            self._deadline = asyncio.timeout(self._attempts.clock.real(self.options.deadline))
        await self._deadline.__aenter__()
        self._task = asyncio.current_task()
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
            try:
                await self._deadline.__aexit__(kind, error, traceback)
            except TimeoutError:
                ended = self.too_late(f"the deadline of {self.options.deadline:g} s passed")
            if ended is None or self.settled:
                return
            decided = await self._decide(ended)
            if decided is not ended:
                raise decided from ended
            if ended is not error:
                raise ended from None
        finally:
            if self._observed is not None:
                self._observed.settled()

    async def send(self) -> Response:
        """Send the request under the rules and return the last response."""
        # A call that is free to repeat has nothing to note of its attempts.
        paid = self if self.prepared.kind == "create" else None
        if self._observed is None:
            self._observed = self._attempts.observer.call(self.prepared, job_key=self.key, waits=self.waits)
        response = await self._attempts.send(self.prepared, self.options, paid, self.waits, self._observed)
        self._sent_before = response.attempts = self._sent_before + response.attempts
        return response

    async def begin(self, slot: RequestSlot) -> None:
        """Note that an attempt begins; see `Sending`."""
        self._slot = slot
        if self.job is not None:
            await self.job.sending()

    async def leaving(self) -> None:
        """Wait for the rate, and note that the request leaves; see `Departure`."""
        if self._slot is not None:
            await self._slot.departing()
        if self._task is not None and self._task.cancelling():
            # A session may write in a task of its own, which continues for a moment after that.
            raise asyncio.CancelledError
        self.sent = True

    async def repeat(self, *, proven: bool) -> None:
        """Note that another attempt follows; nothing is under way until then."""
        self.in_doubt = self.in_doubt or not proven  # a later attempt proves nothing about this one
        self.sent = False
        if proven and not self.in_doubt and self.job is not None:
            await self.job.returned()

    async def preparing(self) -> None:
        """Note that the result is being prepared: nothing is under way, and the same call again is free."""
        self.is_preparing = True
        await self.repeat(proven=True)

    async def accepted(self, task: TaskRef, reply: Any) -> None:
        """Settle the call with the task that the service returned. From here on its id cannot be lost.

        Returns after the first try to store it. Never raises.
        """
        job = self.job
        await self._accept((task,), None if job is None else self._store_task(job, task, reply))

    async def accepted_batch(
        self, items: Sequence[ItemNote], others: Sequence[TaskRef], reply: Any, batch_id: str | None
    ) -> None:
        """Settle a batch with what the service gave for each item, as `accepted` does for one task.

        `others` are tasks of which it is not known to which item they belong.
        """
        if batch_id is not None:  # of a task that the answer does not name, all that is known
            report(logging.INFO, "%s accepted: batch %s", self.prepared.call, self._redactor.text(batch_id))
        tasks = (*(item.task for item in items if item.task is not None), *others)
        job = self.job
        note = None if job is None else self._store_items(job, items, others, reply)
        await self._accept(tasks, note)

    async def _accept(self, tasks: Sequence[TaskRef], storing: Coroutine[Any, Any, None] | None) -> None:
        self._settle()
        if self._observed is not None:
            self._observed.carried_out(*tasks)
        note = None if storing is None else self._notes.begin(storing)
        for task in tasks:
            report(logging.INFO, "%s accepted: %s", self.prepared.call, task.token)
        if note is not None:
            await self._first_try(note)

    async def answered(self, reply: Any) -> None:
        """Settle a direct call with its reply. Returns after the first try to store it; never raises."""
        self._settle()
        if self._observed is not None:
            self._observed.carried_out()
        if self.job is not None:
            await self._first_try(self._notes.begin(self._store_reply(self.job, reply)))

    async def unfinished(self) -> None:
        """End a call whose result is still being prepared, and whose caller does not wait for it."""
        self._settle()
        if self.job is not None:
            why = "an earlier attempt may have been carried out"
            note = self.job.unknown(why, None) if self.in_doubt else self.job.released()
            await self._first_try(self._notes.begin(note))

    def _settle(self) -> None:
        self.settled = True
        if not self._deadline.expired():
            self._deadline.reschedule(None)

    async def _first_try(self, note: asyncio.Task[None]) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the client closes; the write continues
            await asyncio.wait({note})

    async def _store_task(self, job: CallEntry, task: TaskRef, reply: Any) -> None:
        await job.accepted(task, self._redactor.copy(reply))

    async def _store_items(
        self, job: CallEntry, items: Sequence[ItemNote], others: Sequence[TaskRef], reply: Any
    ) -> None:
        hidden = [msgspec.structs.replace(item, error=self._redactor.text(item.error)) for item in items]
        await job.accepted_batch(hidden, others, self._redactor.copy(reply))

    async def _store_reply(self, job: CallEntry, reply: Any) -> None:
        await job.answered(self._redactor.copy(reply))

    async def _decide(self, error: BaseException) -> BaseException:
        """Decide what the error that ended the call means for money, note it, and return what to raise."""
        if self.permit is not None:
            self.permit.release()
        job = self.job
        patience = LATE_NOTE_PATIENCE if self._deadline.expired() else NOTE_PATIENCE
        if isinstance(error, JobStoreError):
            error.call = self.prepared.call
        if isinstance(error, OutcomeUnknownError):  # of the call that the job key was used for before
            return error
        free = self.prepared.kind != "create"  # it may be repeated for free, so there is nothing to settle
        outcome = Outcome.NOT_SENT if free else verdict(error, sent=self.sent, in_doubt=self.in_doubt)
        if isinstance(error, MusicAPIError) and (waited := str(self.waits)):  # that were long
            error.message = f"{error.message.rstrip('. ')}; {waited}"
        if outcome is Outcome.ACCEPTED and isinstance(error, APIStatusError) and error.task_id:
            task = self.prepared.task(error.task_id, self._attempts.clock.time())
            report(logging.WARNING, "%s: accepted, as an error says: %s", self.prepared.call, task.token)
            if self._observed is not None:
                self._observed.carried_out(task)
            if job is not None:
                await self._notes.write(job.accepted(task, error.body), patience)
            error.may_have_been_charged = True
            error.about(task_id=task.task_id, family=task.family)
            return task_in_error(self.prepared, task, f" ({error.message})", self.key)
        if outcome.is_free:
            if isinstance(error, MusicAPIError):
                # A response that the result is being prepared may have been charged, and the request may be
                # repeated at no cost: the key is free, and nothing is said to be proven.
                error.not_charged = not self.is_preparing and (error.not_charged or not free)
                error.may_have_been_charged = error.may_have_been_charged or self.is_preparing
                base_url_hints.add_hint(error, self._attempts.base_url)
            if job is not None:
                await self._notes.write(job.released(), patience)
            return error
        decided = self._unknown(error) if isinstance(error, Exception) else error
        if job is not None:
            known = isinstance(error, MusicAPIError)
            balance = await self._last_balance() if self.options.check_balance and known else None
            # The event alone: the advice is about a call that may be repeated, which this one may not.
            why = error.message if isinstance(error, MusicAPIError) else "given up before its answer was read"
            why = f"{why.rstrip('.')}. {usable}" if (usable := _usable(error)) else why
            await self._notes.write(job.unknown(why, balance), patience)
        return decided

    def too_late(self, what: str) -> RequestTimeoutError:
        """Return the error of a call whose deadline, or own time limit, has passed."""
        prepares = self.is_preparing and not self.sent
        return RequestTimeoutError(
            f"{what}; its result is still being prepared" if prepares else what,
            sent=self.sent or self.in_doubt if self.prepared.kind == "create" else None,
            call=self.prepared.call,
            hint=PREPARING_HINT if prepares else "",
        )

    def _unknown(self, error: Exception) -> OutcomeUnknownError:
        """Return the error of a call whose outcome is unknown."""
        text, hint = type(error).__name__, ""
        if isinstance(error, MusicAPIError):
            text = error.message
            error.may_have_been_charged = True
            hint = base_url_hints.suggestion(error, self._attempts.base_url)
            # If an earlier attempt may have been carried out, the text must not say "it may be repeated".
            error.hint = hint or ("" if self.in_doubt else error.hint)
        # No warning: the error is raised, and what its caller reports would be said twice.
        report(logging.INFO, "%s: outcome unknown: %s", self.prepared.call, text)
        step = error if isinstance(error, StepFailedError) else None
        return OutcomeUnknownError(
            f"the call was sent, and whether it was carried out is unknown ({text})",
            hint=" ".join(filter(None, (OutcomeUnknownError.default_hint, _usable(error), hint))),
            call=self.prepared.call,
            job_key=self.key,
            steps=step.steps if step else None,
            clip_id=step.clip_id if step else None,
        )

    async def _last_balance(self) -> float | None:
        """Return the credits after the call, or None if the service does not give them soon."""
        try:
            async with asyncio.timeout(max(self._attempts.clock.real(BALANCE_LIMIT), BALANCE_FLOOR)):
                return await self._balance()
        except TimeoutError:
            report(logging.INFO, "the balance could not be read within %g s", BALANCE_LIMIT)
            return None

    async def _balance(self) -> float | None:
        """Return the credits, or None if the service does not give them; evidence only."""
        try:
            options = Options(max_retries=1, headers=self.options.headers)
            observed = self._attempts.observer.call(BALANCE)
            found = await self._attempts.get(BALANCE, options, observed=observed)
        except MusicAPIError as error:
            report(logging.INFO, "the balance could not be read: %s", error)
            return None
        known = read_reply(Credits, found.fields) if found.ok and found.is_object else None
        return known.total if known is not None else None

    def client_closed(self) -> NoReturn:
        """Raise the error of a caller whose client is closed while the call is under way."""
        call, creates = self.prepared.call, self.prepared.kind == "create"
        if creates and self.is_preparing and not (self.sent or self.in_doubt):
            raise APIConnectionError(
                "the client was closed while the result was being prepared",
                call=call,
                hint=PREPARING_HINT,
                may_have_been_charged=True,
            )
        if not creates or not (self.sent or self.in_doubt):
            sent = False if creates else None
            raise APIConnectionError(
                "the client was closed before it was sent", sent=sent, call=call, hint=CLOSED_HINT
            )
        lost = ConnectionLostError("the client was closed before the answer came", sent=True, call=call)
        raise self._unknown(lost) from lost

    def report_end(self, done: asyncio.Task[Any]) -> None:
        """Log the end of the call, because its caller was cancelled."""
        call = self.prepared.call
        if done.cancelled():
            text = "%s: sent, and given up before the answer: the account may have been charged"
            report(logging.ERROR, text, call)
        elif (error := done.exception()) is not None:
            ended = str(error) if str(error).startswith(call) else f"{call}: {error}"
            report(logging.ERROR, "its caller was cancelled, and then: %s", ended)
        else:
            result = done.result()
            text = "%s: its caller was cancelled; it was accepted and continues: %s"
            if not isinstance(result, Accepted | AcceptedBatch):
                self._report_reply(result)
                return
            for task in result.tasks:
                report(logging.WARNING, text, call, task.token)

    def _report_reply(self, reply: Reply | JSON) -> None:
        """Log a direct reply that its caller cannot get any more; one that is paid for is nowhere else."""
        ending = ""
        if self.prepared.kind == "create":
            body = self._redactor.copy(reply.raw if isinstance(reply, Reply) else reply)
            ending = f", and its reply is {escaped(msgspec.json.encode(body).decode())}"
        text = "%s: its caller was cancelled; it was carried out%s"
        report(logging.WARNING, text, self.prepared.call, ending)


def _usable(error: BaseException) -> str:
    """Return that the clip of an upload can be used, if the error is of a later step of its call."""
    clip_id = error.clip_id if isinstance(error, StepFailedError) else None
    return f"The upload worked: clip {clip_id} can be used without another upload." if clip_id else ""


def task_in_error(
    prepared: PreparedRequest, task: TaskRef, text: str, job_key: str | None
) -> OutcomeUnknownError:
    """Return the error of a paid call whose response was an error that names a task."""
    return OutcomeUnknownError(
        f"the answer is an error that names task {task.task_id}: it was probably accepted{text}",
        hint="Do not send it again: wait for the task of this id. The same job key returns it, too.",
        call=prepared.call,
        task_id=task.task_id,
        family=task.family,
        job_key=job_key,
    )
