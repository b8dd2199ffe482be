"""Hands webhooks to the waits for their tasks, and settles the jobs that they name.

The inbox takes each delivery once. Here the task of its event is found, as a body may leave out its platform
or name a new one, and the event is judged with all that is known of that task. With a store that workers
share, the event reaches the one that waits from any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from .._wire.redaction import Redactor
from ..api.batches import CreateBatch
from ..api.families import FAMILIES, polled_as
from ..api.request import Request
from ..api.results import TaskUpdate
from ..api.task import TaskRef
from ..errors import JobStoreError, WebhookVerificationError
from ..jobs.job import new_key
from ..jobs.recorder import Adoption, JobRecorder
from ..jobs.store import Notice, SharedStore
from ..options import Options
from .delivery import Event, judge, parse
from .inbox import Inbox
from .webhook_settings import Webhooks

if TYPE_CHECKING:
    from .._transport.observer import Observer
    from ..polling.waiter import TaskWaiter


class OpenLoop(Protocol):
    """The parts of a client in one event loop, as webhooks need them."""

    @property
    def waiter(self) -> TaskWaiter:
        """Waits for tasks."""
        ...

    def recorders(self) -> list[JobRecorder]:
        """Return the recorders of all stores that are in use."""
        ...

    def polling_ended(self, ref: TaskRef, update: TaskUpdate | None) -> None:
        """Take the last update of a task."""
        ...


class Handover:
    """The webhooks of one client. A `Claims` of its inbox, and a `WebhookAddress` of its calls.

    Args:
        settings: URL and secrets; None to order and receive none.
        recorder: the recorder of the client.
        here: returns the parts of the running loop, opened by the first call in it.
        redactor: hides secrets in texts.
        observer: takes the events.
    """

    def __init__(
        self,
        settings: Webhooks | None,
        recorder: JobRecorder,
        here: Callable[[], OpenLoop],
        redactor: Redactor,
        observer: Observer,
    ) -> None:
        self._here: Final = here  # first, as the client then says why it is not pickled
        self._settings: Final = settings
        self._recorder: Final = recorder
        self._shared: Final = recorder.store if isinstance(recorder.store, SharedStore) else None
        self._redactor: Final = redactor
        self._observer: Final = observer
        claims = self if recorder.always else None
        self.inbox: Final = Inbox(settings, self._deliver, adopt=self._adopt, claims=claims)

    def order(self, request: Request, options: Options) -> tuple[Request, Options]:
        """Return the request with a webhook, if one is wanted, and the options with its job key."""
        if self._settings is None:
            return request, options
        key = options.job_key or new_key()
        ordered: Request
        if isinstance(request, CreateBatch):
            ordered = self._settings.order_items(request, key)
        else:
            ordered = self._settings.order(request, key)
        if ordered is request:
            return request, options
        self.inbox.expect(key)
        return ordered, msgspec.structs.replace(options, job_key=key)

    def notified(self, waiter: TaskWaiter, notice: Notice, body: bytes) -> None:
        """Hand a webhook that another worker has received to the waits of a loop."""
        if notice.kind != "webhook":
            return
        try:
            event = parse(body)
        except WebhookVerificationError:  # written by a version that says it in another way
            return
        task = _task_of(event, waiter)
        if waiter.knows(task):
            self._hand_over(event, task, waiter, received_here=False)

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim the marks of a delivery in the job store; see `JobStore.claim`."""
        self._here()  # so that closing the client closes the store
        return await self._recorder.store.claim(marks, now=now, seconds=seconds)

    async def unclaim(self, marks: Collection[str]) -> None:
        """Let the marks of a delivery be claimed again."""
        await self._recorder.store.unclaim(marks)

    async def _deliver(self, event: Event) -> None:
        """Hand a webhook to the waits in this loop, and to the other workers."""
        if event.task_id:
            waiter = self._here().waiter
            self._hand_over(event, _task_of(event, waiter), waiter, received_here=True)
            if self._shared is not None:
                body = msgspec.json.encode(self._redactor.copy(event.raw))
                await self._shared.publish(body, event.task_id)

    async def _adopt(self, key: str, event: Event) -> TaskRef | None:
        """Settle the job of a key with the task of an event, in the store that has it, and return the task.

        A store that fails is of no consequence if another one has the job. Raises `JobStoreError` if the job
        may be in that store, so that the service repeats the webhook.
        """
        here = self._here()
        task = TaskRef(_family_of(event), event.task_id or "")
        adoptions: list[Adoption] = []
        failures: list[JobStoreError] = []
        for recorder in here.recorders():
            try:
                adoptions.append(await recorder.adopt(key, task, event.job_item or 0))
            except JobStoreError as error:
                failures.append(error)
        found = [one for one in adoptions if one.outcome != "no job"]
        if failures and not found:
            raise failures[0]
        if any(one.outcome == "refused" for one in found):
            return None
        if not found:
            return task if task.family else None
        adopted = found[0].task
        if found[0].is_news and self._observer.is_active:
            self._observer.call_settled(adopted, key)
        if not _task_of(event, here.waiter).family:  # else it was handed over at once
            self._hand_over(event, adopted, here.waiter, received_here=True)
        if event.is_terminal:  # the wait ended before the job had the task
            here.polling_ended(adopted, event.update)
        return adopted

    def _hand_over(self, event: Event, task: TaskRef, waiter: TaskWaiter, *, received_here: bool) -> None:
        """Judge a webhook with all that is known of its task, and hand it to the waits of a loop.

        Hooks take it from the worker that has received it.
        """
        if polled_as(task.family) is None:
            return
        named = None if event.job_key is None else self.inbox.task_of(event.job_key, event.job_item)
        if named is not None and named.key == task.key:  # an earlier webhook has settled its job
            task = named
        ref = waiter.known(task)
        result = judge(event, ref, self._redactor)
        if received_here and self._observer.is_active:
            self._observer.webhook_came(ref, event.event, result.update)
        # Of a call without its response yet, only its job says what made the task: see `_adopt`.
        is_ordered = self.inbox.expects(event)
        takes_end = task is named or not is_ordered
        waiter.deliver(ref, result, own=self._shared is not None or is_ordered, takes_end=takes_end)


def _family_of(event: Event) -> str:
    """Return the family that the platform of an event names; '' for none, and for a new word."""
    return event.family if event.family in FAMILIES else ""


def _task_of(event: Event, waiter: TaskWaiter) -> TaskRef:
    """Return the task of an event, without a family if neither the event nor the waiter knows it."""
    task_id = event.task_id or ""
    return TaskRef(_family_of(event) or waiter.family_of(task_id), task_id)
