"""The observer: builds the events of hooks, delivers them, and writes their DEBUG lines.

A call is observed only if there is a hook or the log is at DEBUG; all else costs one test. Events are texts
of a kind: secrets in them are hidden when they are built. The id of a task is left as it is, because nothing
may cost it.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from itertools import count
from typing import Final, TypedDict

import msgspec

from .._wire.codec import escaped
from .._wire.poll_result import PollResult
from .._wire.prepare import PreparedRequest
from .._wire.redaction import Redactor
from .._wire.response import Response, failure_of
from .._wire.retry import AttemptFailure
from ..api.account import credits_text
from ..api.results import TaskUpdate
from ..api.task import TaskKey, TaskRef
from ..clock import Clock
from ..errors import InvalidResponseError, MusicAPIError, TaskFailedError
from ..hooks import (
    CallEvent,
    CallSettledEvent,
    DownloadEvent,
    Hook,
    HookEvent,
    PollEvent,
    RequestEvent,
    ResponseEvent,
    RetryEvent,
    SpendingEvent,
    TaskEndedEvent,
    WebhookEvent,
)
from .wait_reasons import Waits

log: Final = logging.getLogger("musicapi_async")

DELIVERED_ENDS: Final = 10_000
"""Tasks whose end was delivered and is remembered, so that polling one once more is no second end."""

SHORTEST_NAMED_WAIT: Final = 0.1
"""Seconds of waiting that a line names at least."""

_numbers: Final = count(1)


class Observer:
    """Delivers the events of a client to its hooks and to the log.

    Args:
        hooks: are called with each event.
        redactor: hides secrets in the texts of events.
        clock: measures the waits of calls.
        base_url: the address that calls go to.
    """

    def __init__(self, hooks: Sequence[Hook], redactor: Redactor, clock: Clock, base_url: str) -> None:
        self.redactor: Final = redactor
        self.clock: Final = clock
        self.base_url: Final = base_url
        self._hooks: Final = tuple(hooks)
        self._failed: Final[set[tuple[int, type[HookEvent]]]] = set()
        self._ended: Final[OrderedDict[TaskKey, None]] = OrderedDict()

    @property
    def is_active(self) -> bool:
        """True if an event would reach a hook or the log."""
        return bool(self._hooks) or log.isEnabledFor(logging.DEBUG)

    def call(
        self,
        prepared: PreparedRequest,
        *,
        task: TaskRef | None = None,
        job_key: str | None = None,
        waits: Waits | None = None,
    ) -> ObservedCall | None:
        """Return the observation of one call, if anything takes its events."""
        if not self.is_active:
            return None
        return ObservedCall(self, prepared, task, job_key, waits or Waits(self.clock, prepared.call))

    def emit(self, event: HookEvent) -> None:
        """Deliver an event to the log and to each hook. An exception in one changes nothing."""
        with contextlib.suppress(Exception):  # a logging filter that fails costs nothing
            if log.isEnabledFor(logging.DEBUG) and (line := line_of(event)):
                log.debug("%s", escaped(line))
        for number, hook in enumerate(self._hooks):
            try:
                hook(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                self._log_failure(number, event, error)

    def _log_failure(self, number: int, event: HookEvent, error: BaseException) -> None:
        if (number, type(event)) in self._failed:
            return
        self._failed.add((number, type(event)))
        with contextlib.suppress(Exception):
            name = getattr(self._hooks[number], "__qualname__", type(self._hooks[number]).__name__)
            lines = self.redactor.text("".join(traceback.format_exception(error, chain=False)))
            log.error(
                "hook %s failed with a %s; this is logged once, and changes nothing for the client\n%s",
                name,
                type(event).__name__,
                lines,
            )

    def task_ended(self, ref: TaskRef, update: TaskUpdate) -> None:
        """Deliver the end of a task, unless it was delivered before."""
        if ref.key in self._ended:
            return
        self._ended[ref.key] = None
        while len(self._ended) > DELIVERED_ENDS:
            self._ended.popitem(last=False)
        error, seconds = update.error, None
        if ref.submitted_at:
            seconds = max(0.0, (self.clock.time() - ref.submitted_at) * self.clock.speed)
        self.emit(
            TaskEndedEvent(
                family=ref.family,
                kind=ref.kind,
                task_id=ref.task_id,
                state=update.state,
                clips=len(update.clips.succeeded),
                seconds=seconds,
                error=None if error is None else self.redactor.line(error.message),
                refunded=error.refunded if isinstance(error, TaskFailedError) else None,
            )
        )

    def call_settled(self, ref: TaskRef, job_key: str) -> None:
        """Deliver that a call of unknown outcome has made this task."""
        key = self.redactor.text(job_key)
        self.emit(CallSettledEvent(family=ref.family, kind=ref.kind, task_id=ref.task_id, job_key=key))

    def webhook_came(self, ref: TaskRef, name: str, update: TaskUpdate | None) -> None:
        """Deliver what a webhook of this name says of a task."""
        self.emit(
            WebhookEvent(
                family=ref.family,
                kind=ref.kind,
                task_id=ref.task_id,
                event=self.redactor.line(name),
                state="" if update is None else update.state,
                can_stream=_can_stream(update),
            )
        )

    def downloaded(
        self,
        url: str,
        path: object,
        *,
        tries: int,
        since: float,
        size: int = 0,
        error: BaseException | None = None,
    ) -> None:
        """Deliver the end of a download; `since` is a time of the clock, `url` has no query."""
        text = error.message if isinstance(error, MusicAPIError) else str(error or "")
        status = getattr(error, "status", None)
        self.emit(
            DownloadEvent(
                url=self.redactor.text(url),
                path=self.redactor.text(str(path)),
                tries=tries,
                seconds=self.clock.real(self.clock.now() - since),
                size=size,
                status=status if isinstance(status, int) else None,
                error=None if error is None else self.redactor.line(text) or type(error).__name__,
                error_type=None if error is None else type(error).__name__,
            )
        )


class _Ids(TypedDict):
    """The fields of a `CallEvent`."""

    call: str
    call_id: int
    method: str
    url: str
    attempt: int
    family: str
    kind: str
    task_id: str | None
    job_key: str | None


class ObservedCall:
    """The observation of one call.

    Of a call that may be recorded, as any but a GET is, the end of an attempt is held back until the next one
    begins, or until `settled`: until then its outcome is not written down.

    Args:
        observer: delivers the events.
        prepared: the request.
        task: the task that it polls.
        job_key: the key under which it is recorded.
        waits: the waits of the call.
    """

    def __init__(
        self,
        observer: Observer,
        prepared: PreparedRequest,
        task: TaskRef | None,
        job_key: str | None,
        waits: Waits,
    ) -> None:
        text = observer.redactor.text
        self.waits: Final = waits
        self.call_id: Final = next(_numbers)
        self.task: TaskRef | None = task
        self._observer: Final = observer
        self._call: Final = text(prepared.call)
        self._method: Final = prepared.method
        self._url: Final = text(observer.base_url + prepared.path.partition("?")[0])
        self._family: Final = task.family if task is not None else prepared.family
        self._kind: Final = task.kind if task is not None else prepared.operation
        self._job_key: Final = None if job_key is None else text(job_key)
        self._is_recorded: Final = prepared.kind != "get"
        self._attempt = 0
        self._began = 0.0
        self._waited = 0.0  # for the attempts before this one
        self._waited_at_begin = 0.0
        self._carried_out = False
        self._tasks: tuple[TaskRef, ...] = ()
        self._held: ResponseEvent | None = None
        self._last: ResponseEvent | None = None

    def begins(self) -> None:
        """Deliver that an attempt is about to be sent."""
        self._release()
        self._attempt += 1
        self._waited_at_begin = self.waits.seconds()
        self._observer.emit(RequestEvent(waited=self._waited_at_begin - self._waited, **self._ids()))
        self._began = self._observer.clock.now()  # after the hooks, whose time is not that of the service

    def ends(self, end: Response | BaseException) -> None:
        """Take the end of the attempt."""
        waited = self.waits.seconds()
        clock = self._observer.clock
        seconds = clock.real(max(0.0, clock.now() - self._began - (waited - self._waited_at_begin)))
        status = request_id = error = error_type = None
        line = self._observer.redactor.line
        if isinstance(end, Response):
            status = end.status
            request_id = None if end.request_id is None else line(end.request_id)
            error = None if failure_of(end) is None else line(end.text)
        else:
            error_type = type(end).__name__
            error = line(end.message if isinstance(end, MusicAPIError) else str(end)) or error_type
            if isinstance(end, InvalidResponseError):
                status = end.status
        self._held = self._last = ResponseEvent(
            status=status,
            request_id=request_id,
            seconds=seconds,
            waited=waited - self._waited,
            error=error,
            error_type=error_type,
            **self._ids(),
        )
        self._waited = waited
        if not self._is_recorded:
            self._release()

    def repeats(self, failure: AttemptFailure, after: float) -> None:
        """Deliver that another attempt follows."""
        last = self._last
        self._release()
        self._observer.emit(
            RetryEvent(
                reason=failure.value,
                after=after,
                status=None if last is None else last.status,
                request_id=None if last is None else last.request_id,
                **self._ids(),
            )
        )

    def polled(self, result: PollResult, late: float | None) -> None:
        """Deliver what a poll says of its task.

        `late` is in seconds of the clock; None if the poll was not planned.
        """
        task, update = self.task, result.update
        if task is None:
            return
        failed = result.error if update is None else None
        self._observer.emit(
            PollEvent(
                family=task.family,
                kind=task.kind,
                task_id=task.task_id,
                call_id=self.call_id,
                state="" if update is None else update.state,
                can_stream=_can_stream(update),
                progress=None if update is None else update.progress,
                late=late,
                error=None if failed is None else self._observer.redactor.line(failed.message),
            )
        )

    def carried_out(self, *tasks: TaskRef) -> None:
        """Take that the last attempt was carried out, and the tasks that it made, if it made some."""
        self._carried_out = True
        self._tasks = tasks
        self.task = next(iter(tasks), self.task)

    def settled(self) -> None:
        """Deliver the end of the last attempt: the outcome of the call is written down."""
        if self._held is not None and self._carried_out:
            task_id = None if self.task is None else self.task.task_id
            ids = tuple(task.task_id for task in self._tasks)
            self._held = msgspec.structs.replace(self._held, task_id=task_id, task_ids=ids, carried_out=True)
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._observer.emit(held)

    def _ids(self) -> _Ids:
        return {
            "call": self._call,
            "call_id": self.call_id,
            "method": self._method,
            "url": self._url,
            "attempt": self._attempt,
            "family": self._family,
            "kind": self._kind,
            "task_id": None if self.task is None else self.task.task_id,
            "job_key": self._job_key,
        }


def _can_stream(update: TaskUpdate | None) -> bool:
    """Return True if a clip has a link that can be heard."""
    return update is not None and update.clips.has_audio


def line_of(event: HookEvent) -> str:
    """Return the line of an event in the log, with all its ids; '' for one that has none.

    A request has none, as its response says more; a retry has one at level INFO.
    """
    match event:
        case ResponseEvent():
            what = f"HTTP {event.status}" if event.status is not None else event.error_type or "no response"
            facts = [f"attempt {event.attempt}: {what}", f"{event.seconds * 1000:.0f} ms"]
            if event.waited >= SHORTEST_NAMED_WAIT:
                facts.append(f"waited {event.waited:.1f} s")
            if event.error is not None:
                facts.append(event.error)
            return f"{event.call}: {', '.join(facts)}{ids_of(event)}"
        case PollEvent():
            late = "" if event.late is None else f", {event.late * 1000:.0f} ms late"
            return f"task {event.task_id}: polled: {event.state or event.error}{late}"
        case WebhookEvent():
            return f"task {event.task_id}: webhook {event.event}: {event.state or 'nothing of its state'}"
        case CallSettledEvent():
            return f"task {event.task_id}: made by the call of unknown outcome with job key {event.job_key}"
        case SpendingEvent():
            return (
                f"spent {credits_text(event.total)} credits "
                f"({credits_text(event.before)} before, {credits_text(event.after)} after)"
            )
        case TaskEndedEvent():
            age = "" if event.seconds is None else f" after {event.seconds:.1f} s"
            error = "" if event.error is None else f": {event.error}"
            return f"task {event.task_id}: ended ({event.state}, {event.clips} clips){age}{error}"
        case DownloadEvent():
            end = f"{event.size} bytes" if event.error is None else event.error
            return f"download {event.url} to {event.path}: {end}, tries {event.tries}, {event.seconds:.2f} s"
        case _:
            return ""


def ids_of(event: CallEvent) -> str:
    """Return the ids of a call for the end of a line, such as ' (request id r-1, job key k)'; '' for none."""
    ids = {
        "request id": getattr(event, "request_id", None),
        "task": event.task_id,
        "job key": event.job_key,
    }
    text = ", ".join(f"{name} {value}" for name, value in ids.items() if value)
    return f" ({text})" if text else ""
