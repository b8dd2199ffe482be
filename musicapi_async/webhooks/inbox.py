"""The inbox of webhooks: each is verified, taken once, and handed to the waits for its task.

It knows no web framework: a view passes on the headers, the raw body and the URL that was called.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from hashlib import blake2b
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from ..api.task import TaskRef
from ..errors import JobStoreError, RequestValidationError
from .delivery import Event, Headers, OnEvent, Raw, changed, verify
from .webhook_settings import Webhooks

log: Final = logging.getLogger("musicapi_async")

MOST_DELIVERIES: Final = 10_000
"""Deliveries and job keys that are remembered, about 200 bytes each. A replay must come within the tolerance
of its signature, so at 10 events per second this covers three times that."""
DELIVERY_MEMORY: Final = 86_400.0
"""Seconds after which they are forgotten. How long the service repeats a delivery is not known."""

HANDLING_CLAIM: Final = 60.0
"""Seconds for which a worker claims a delivery that it handles. If it is killed meanwhile, another one may
have the repetition then; a view that answers a webhook takes seconds at the most."""

V = TypeVar("V")
Taken: TypeAlias = Literal["first", "duplicate", "busy"]
"""What a delivery is: new, handled before, or being handled just now by another call or worker."""
Adopt = Callable[[str, Event], Awaitable[TaskRef | None]]
"""Settles the job of a key with the task of an event, and returns the task; None if the job has another one,
or if neither the event nor a job says of which family it is."""


class Claims(Protocol):
    """Remembers for all workers which deliveries were handled; a `JobStore` does."""

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim marks for a time, all or none.

        Args:
            marks: texts that identify a delivery.
            now: the Unix time.
            seconds: the time until they may be claimed again.

        Returns:
            False if one of them is claimed already.
        """
        ...

    async def unclaim(self, marks: Collection[str]) -> None:
        """Let marks be claimed again."""
        ...


class Inbox:
    """Receives webhooks: `client.webhooks`.

    Args:
        settings: URL and secrets; None to receive none.
        deliver: called with each event once, before any store is used; again if a later step failed.
        adopt: called after `deliver` with a job key and the event of the task that its call made.
        claims: remembers handled deliveries for all processes; None: each process remembers its own.
        remembered: the number of deliveries and job keys that this process remembers.
    """

    def __init__(
        self,
        settings: Webhooks | None,
        deliver: Callable[[Event], Awaitable[object]],
        *,
        adopt: Adopt | None = None,
        claims: Claims | None = None,
        remembered: int = MOST_DELIVERIES,
    ) -> None:
        self._settings: Final = settings
        self._has_logged_no_settings = False
        self._deliver: Final = deliver
        self._adopt: Final = adopt
        self._shared: Final = claims
        now = time.time if settings is None else settings.now
        self._now: Final = now
        self._handled: Final[_Recent[bool]] = _Recent(remembered, now)
        self._claims: Final[_Recent[str]] = _Recent(remembered, now)
        self._jobs: Final[_Recent[TaskRef]] = _Recent(remembered, now)
        self._ordered: Final[_Recent[bool]] = _Recent(remembered, now)

    async def handle(self, headers: Headers, raw: Raw, *, url: str = "") -> Event:
        """Verify a delivery, end the waits for its task, and return its event. Free, may be repeated.

        Args:
            headers: the headers, as they came.
            raw: the bytes of the body, as they came.
            url: the URL that was called, or its query. It names the job of the delivery, with the proof that
                `Webhooks` put there.

        Returns:
            The event. If it came before, `is_duplicate` is True and it changes nothing. Processes that share
            a job store handle each delivery once; one that another process handled ends the waits here, too.
            Respond with 2xx in each case.

        Raises:
            WebhookVerificationError: the delivery must not be trusted. Respond with 400.

        ```python
        event = await client.webhooks.handle(request.headers, await request.body(), url=str(request.url))
        ```
        """
        event = self.verified(headers, raw, url)
        taken = await self._take(event, None)
        return event if taken == "first" else _duplicate(event)

    def receives(self) -> bool:
        """Return True if the client was given `webhooks=`; the log says once that a webhook needs them."""
        if self._settings is None and not self._has_logged_no_settings:
            self._has_logged_no_settings = True
            log.error(
                "a webhook was answered with 404, as will be all: the client has no webhooks= to verify them "
                "with. Give it MusicAPI(webhooks=Webhooks(url=..., secret=...)), or the bridge webhook=None"
            )
        return self._settings is not None

    def verified(self, headers: Headers, raw: Raw, url: str) -> Event:
        """Verify a delivery and return its event, without handling it; raises as `handle` does."""
        settings = self._settings
        if settings is None:
            limit = "MusicAPI(webhooks=Webhooks(url=..., secret=...)) to receive them"
            raise RequestValidationError(f"webhooks: {limit}", field="webhooks", limit=limit)
        event = verify(
            headers,
            raw,
            settings.secrets,
            settings.tolerance,
            settings.now,
            limit=settings.limit,
            scheme=settings.scheme,
        )
        named = settings.call_in(url)
        return event if named is None else changed(event, job_key=named.job_key, job_item=named.item)

    async def work_on(self, event: Event, on_event: OnEvent | None) -> bool:
        """Handle a verified event, and call `on_event` with it, if given, under the same claim.

        Returns:
            False if another process is handling it. Refuse the delivery then: the service repeats it, in case
            the other process does not finish.
        """
        return await self._take(event, on_event) != "busy"

    async def _take(self, event: Event, on_event: OnEvent | None) -> Taken:
        """Finish the waits for the task of a delivery, settle its job, then let the view work, all once."""
        marks = _marks(event)
        states = [self._handled.get(mark) for mark in marks]
        if any(state is not None for state in states):
            # The signature does not cover the URL: a copy at another one names another job.
            await self._claim(event)
            return "duplicate" if any(states) else "busy"
        for mark in marks:  # before anything is awaited: a copy may come meanwhile
            self._handled.put(mark, False)
        taken: Taken = "busy"  # until this worker has the claim
        try:
            await self._deliver(event)  # before a store is used, which may be locked for half a minute
            taken = await self._taken(marks)
            await self._claim(event)
            if taken == "first" and on_event is not None:
                working = on_event(event)
                if inspect.isawaitable(working):
                    await working
        except BaseException:
            await self._let_go(event, shared=taken == "first")  # the service tries again
            raise
        if taken == "busy":
            await self._let_go(event, shared=False)
            return taken
        for mark in marks:
            self._handled.put(mark, True)
        if taken == "first":
            await self._finished(marks)
        return taken

    async def _taken(self, marks: tuple[str, ...]) -> Taken:
        """Claim a delivery for this worker, for as long as it is handled, as far as can be known."""
        if self._shared is None:
            return "first"
        now = self._now()
        try:
            if not await self._shared.claim(_digests(marks, "handling"), now=now, seconds=HANDLING_CLAIM):
                return "busy"
            if not await self._shared.claim(_digests(marks), now=now, seconds=0.0):  # was it handled?
                await self._shared.unclaim(_digests(marks, "handling"))
                return "duplicate"
        except JobStoreError as error:
            log.warning("a webhook may be handled by other workers, too: %s", error)
        return "first"

    async def _finished(self, marks: tuple[str, ...]) -> None:
        """Note for all workers that a delivery was handled; then nothing claims it any more."""
        if self._shared is not None:
            try:
                await self._shared.claim(_digests(marks), now=self._now(), seconds=DELIVERY_MEMORY)
                await self._shared.unclaim(_digests(marks, "handling"))
            except JobStoreError as error:
                log.warning("the next delivery of a webhook may be handled once more: %s", error)

    async def _claim(self, event: Event) -> None:
        """Note which job made the task, where the URL proves it; a task that two jobs claim is of neither."""
        job_key, task_id = event.job_key, event.task_id
        if job_key is None or not task_id:
            return
        # Of a batch, two items that claim one task are as two jobs that do.
        claim = job_key if event.job_item is None else f"{job_key}\n{event.job_item}"
        before = self._claims.get(task_id)
        if before == claim:
            return
        self._claims.put(task_id, claim)
        try:
            task = TaskRef(event.family, task_id) if event.family else None
            if self._adopt is not None:
                task = await self._adopt(job_key, event)
        except BaseException:
            self._claims.drop(task_id)
            raise
        if task is not None and before is None:
            self._jobs.put(claim, task)
        for key in (before, claim) if before is not None else ():
            named = self._jobs.get(key)
            if named is not None and named.task_id == task_id:
                self._jobs.drop(key)

    def expect(self, job_key: str) -> None:
        """Expect the webhook of a call with this job key, which is about to be sent."""
        self._ordered.put(job_key, True)

    def expects(self, event: Event) -> bool:
        """Return True if a call of this process ordered the webhook, even if its response was lost."""
        return event.job_key is not None and self._ordered.get(event.job_key) is not None

    async def forget(self, event: Event) -> None:
        """Treat the next delivery of `event` as new, because your code failed to handle this one."""
        await self._let_go(event, shared=not event.is_duplicate)  # else another worker has claimed it

    async def _let_go(self, event: Event, *, shared: bool) -> None:
        marks = _marks(event)
        for mark in marks:
            self._handled.drop(mark)
        if self._shared is not None and shared:
            try:
                await self._shared.unclaim([*_digests(marks), *_digests(marks, "handling")])
            except JobStoreError as error:
                log.warning("the next delivery of a webhook may be taken for a duplicate: %s", error)

    def task_of(self, job_key: str, item: int | None = None) -> TaskRef | None:
        """Return the task of a call with this job key, if a webhook has named it, else None.

        For a batch, `item` is the index of the item, from 0. After an `OutcomeUnknownError`, wait for the
        task with `client.task(ref.family, ref.task_id)`.
        """
        return self._jobs.get(job_key if item is None else f"{job_key}\n{item}")


def _duplicate(event: Event) -> Event:
    """Return the event as one that came before, with the update that was judged already."""
    marked = changed(event, is_duplicate=True)
    vars(marked).update(vars(event))
    return marked


def _marks(event: Event) -> tuple[str, str]:
    """Return id and signature: a replay under another id has the same signature, which covers no header."""
    return f"id {event.dedupe_key}", f"signature {event.signature}"


class _Recent(Generic[V]):
    """The latest items, by a text of any length, of which only a digest is stored; for a day at most."""

    def __init__(self, size: int, now: Callable[[], float]) -> None:
        self._size: Final = size
        self._now: Final = now
        self._items: Final[OrderedDict[bytes, tuple[V, float]]] = OrderedDict()

    def get(self, key: str) -> V | None:
        item = self._items.get(_digest(key))
        return None if item is None or self._now() - item[1] > DELIVERY_MEMORY else item[0]

    def put(self, key: str, value: V) -> None:
        self._items[_digest(key)] = (value, self._now())
        self._items.move_to_end(_digest(key))
        while len(self._items) > self._size:
            self._items.popitem(last=False)

    def drop(self, key: str) -> None:
        self._items.pop(_digest(key), None)


def _digests(marks: Iterable[str], claim: str = "") -> list[str]:
    """Return the marks of a claim, '' for that of a handled delivery, in a length that a store takes."""
    return [_digest(f"{claim} {mark}" if claim else mark).hex() for mark in marks]


def _digest(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
