"""The inbox of webhooks: each is verified, taken once, and handed to the waits for its task.

`Webhooks` holds the URL and the secret that the service gets with each create; `Inbox` takes what it sends.
Neither knows a web framework: a view passes on the headers, the raw body and the URL that was called.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from hashlib import blake2b
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

import msgspec

from .._wire import signature
from ..api.request import Request
from ..api.request_fields import SHORTEST_SECRET
from ..api.task import TaskRef
from ..errors import JobStoreError, RequestValidationError
from ..options import is_protected
from .events import BODY_LIMIT, TOLERANCE, Event, Headers, Raw, Scheme, verify

log: Final = logging.getLogger("musicapi_async")

JOB_KEY: Final = "job_key"
"""Query parameter of a webhook's URL with the job key."""
JOB_PROOF: Final = "job_proof"
"""Query parameter with the proof of the job key."""
URL_LIMIT: Final = 1024
"""Characters of a webhook's URL that the service takes."""
MOST_DELIVERIES: Final = 10_000
"""Deliveries and job keys that are remembered, about 200 bytes each. A replay must come within the tolerance
of its signature, so at 10 events per second this covers three times that."""
DELIVERY_MEMORY: Final = 86_400.0
"""Seconds after which they are forgotten. How long the service repeats a delivery is not known."""

R = TypeVar("R", bound=Request)
V = TypeVar("V")
Adopt = Callable[[str, TaskRef], Awaitable[object]]
"""Settles the job of a key with a task; returns False if the job belongs to another task."""


class Webhooks:
    """Settings of webhooks: `MusicAPI(webhooks=Webhooks(url=..., secret=...))`.

    Args:
        url: the public https URL of the view that calls `client.webhooks.handle`; http only for this machine.
            None: order no webhooks, only receive them.
        secret: the key that signs them, or several while one is being replaced. The first signs all webhooks
            ordered from now on, and must have at least 16 characters for that; all are accepted.
        tolerance: seconds by which the time of signing may differ from ours.
        limit: bytes of the largest body.
        scheme: the header with the signature.
        now: gives Unix seconds, for tests.

    Raises:
        RequestValidationError: for a URL that the service would not call, and for a secret that is missing or
            too short.
    """

    def __init__(
        self,
        url: str | None = None,
        secret: str | Iterable[str] = (),
        *,
        tolerance: float = TOLERANCE,
        limit: int = BODY_LIMIT,
        scheme: Scheme = "X-Webhook-Signature",
        now: Callable[[], float] = time.time,
    ) -> None:
        self.url: Final = url
        self.secrets: Final = _secrets(secret)
        self.tolerance: Final = tolerance
        self.limit: Final = limit
        self.scheme: Final[Scheme] = scheme
        self.now: Final = now
        if url is not None and len(self.secrets[0]) < SHORTEST_SECRET:
            least = f"a secret of at least {SHORTEST_SECRET} characters, such as secrets.token_urlsafe()"
            raise _bad("webhooks", least)
        if url is not None and not _callable(url):
            good = f"an https URL of at most {URL_LIMIT} characters, without white space and a fragment"
            raise _bad("webhooks", good)
        if url is not None and {JOB_KEY, JOB_PROOF} & _names_in(url):
            raise _bad("webhooks", f"a URL without {JOB_KEY} and {JOB_PROOF}, which are added to it")

    def order(self, request: R, job_key: str | None = None) -> R:
        """Return the request with `webhook_url` and `webhook_secret` filled in, where it has these fields.

        A request with a URL of its own is unchanged, and `webhook_url=""` orders none. The job key goes into
        the URL, with a proof that this client put it there, so that the delivery names the call that made the
        task, even if its response was lost. Raises `RequestValidationError` if the URL becomes longer than
        the service takes.
        """
        if self.url is None or getattr(request, "webhook_url", "") is not None:
            return request
        changes: dict[str, Any] = {"webhook_url": self.url_for(job_key), "webhook_secret": self.secrets[0]}
        return msgspec.structs.replace(request, **changes)

    def url_for(self, job_key: str | None) -> str:
        """Return the URL with the job key and its proof in the query; without a key the plain URL.

        Raises `RequestValidationError` for a key that makes it longer than the service takes, or that no URL
        can hold: without the key a lost response could not be recovered.
        """
        url = self.url or ""
        if not job_key:
            return url
        try:
            whole = self._with_key(job_key) + f"&{JOB_PROOF}={signature.prove(self.secrets[0], job_key)}"
        except UnicodeEncodeError:
            raise _bad("job_key", "text without lone surrogates, as it becomes part of a URL") from None
        if len(whole) > URL_LIMIT:
            raise _bad(
                "job_key",
                f"short enough for the webhook's URL: with key and proof it has {len(whole)} characters, "
                f"and the service takes {URL_LIMIT}",
            )
        return whole

    def _with_key(self, job_key: str) -> str:
        url = self.url or ""
        joint = "&" if urlsplit(url).query else "?"
        return f"{url}{joint}{JOB_KEY}={quote(job_key, safe='')}"

    def renewed(self, url: object, job_key: str) -> tuple[str, str] | None:
        """Return URL and secret for repeating a call whose webhook URL was `url`; None if that is not ours.

        The proof is a new one: that in `url` may be of a secret that was replaced since.
        """
        if self.url is None or not isinstance(url, str):
            return None
        plain = url.partition(f"&{JOB_PROOF}=")[0]
        own = plain == self._with_key(job_key) or url == self.url
        return (self.url_for(job_key), self.secrets[0]) if own else None

    def key_in(self, url: str) -> str | None:
        """Return the job key in a called URL, if it carries the proof that one of the secrets made for it."""
        job_key = job_key_of(url)
        if job_key is None:
            return None
        if signature.proves(_parameter(url, JOB_PROOF) or "", self.secrets, job_key):
            return job_key
        log.warning("a webhook names the job key %.80r without its proof: it settles no job", job_key)
        return None

    def __repr__(self) -> str:
        return f"Webhooks(url={self.url!r}, secret=...)"


class Claims(Protocol):
    """Remembers for all workers which deliveries were handled; a `JobStore` does."""

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim marks for a time, all or none; return False if one of them is claimed already."""
        ...

    async def unclaim(self, marks: Collection[str]) -> None:
        """Let marks be claimed again."""
        ...


class Inbox:
    """Receives webhooks: `client.webhooks`.

    Args:
        settings: URL and secrets; None to receive none.
        deliver: called with each event once.
        adopt: called with a job key and the task that its call made.
        claims: remembers for all workers which deliveries were handled; None: each process by itself.
        remembered: deliveries and job keys that are remembered in this process.
    """

    def __init__(
        self,
        settings: Webhooks | None,
        deliver: Callable[[Event], object],
        *,
        adopt: Adopt | None = None,
        claims: Claims | None = None,
        remembered: int = MOST_DELIVERIES,
    ) -> None:
        self._settings: Final = settings
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
        """Check a delivery, finish the waits for its task, and return it. Free, may be repeated.

        Args:
            headers: as they came.
            raw: the body as the bytes that came.
            url: the URL that was called, or its query; with it the delivery also names its job, if it carries
                the proof that `Webhooks` put there.

        Returns:
            The event. One that came before has `is_duplicate` set and changes nothing. Workers that share a
            job store handle a delivery once among them; one that another worker has handled finishes the
            waits here, too. Answer all with 2xx.

        Raises:
            WebhookVerificationError: for a delivery that must not be believed: answer 400.

        ```python
        event = await client.webhooks.handle(request.headers, await request.body(), url=str(request.url))
        ```
        """
        settings = self._settings
        if settings is None:
            raise _bad("webhooks", "MusicAPI(webhooks=Webhooks(url=..., secret=...)) to receive them")
        event = verify(
            headers,
            raw,
            settings.secrets,
            settings.tolerance,
            settings.now,
            limit=settings.limit,
            scheme=settings.scheme,
        )
        job_key = settings.key_in(url)
        if job_key is not None:
            event = msgspec.structs.replace(event, job_key=job_key)
        marks = _marks(event)
        if any(mark in self._handled for mark in marks):
            # The signature does not cover the URL: a copy at another one names another job.
            await self._claim(event)
            return msgspec.structs.replace(event, is_duplicate=True)
        for mark in marks:  # before anything is awaited: a copy may come meanwhile
            self._handled.put(mark, True)
        try:
            if not await self._is_first(marks):
                event = msgspec.structs.replace(event, is_duplicate=True)
            await self._claim(event)
            self._deliver(event)
        except BaseException:
            await self.forget(event)  # the service tries again
            raise
        return event

    async def _is_first(self, marks: tuple[str, ...]) -> bool:
        """Return True if no worker has handled a delivery with these marks, as far as can be known."""
        if self._shared is None:
            return True
        try:
            return await self._shared.claim(_digests(marks), now=self._now(), seconds=DELIVERY_MEMORY)
        except JobStoreError as error:
            log.warning("a webhook may be handled by other workers, too: %s", error)
            return True

    async def _claim(self, event: Event) -> None:
        """Note which job made the task, where the URL proves it; a task that two jobs claim is of neither."""
        job_key, task_id, family = event.job_key, event.task_id, event.family
        if job_key is None or not task_id or not family:
            return
        claim = f"{family}:{task_id}"
        before = self._claims.get(claim)
        if before == job_key:
            return
        self._claims.put(claim, job_key)
        ref = TaskRef(family, task_id)
        try:
            settled = self._adopt is None or await self._adopt(job_key, ref) is not False
        except BaseException:
            self._claims.drop(claim)
            raise
        if settled and before is None:
            self._jobs.put(job_key, ref)
        for key in (before, job_key) if before is not None else ():
            if self._jobs.get(key) == ref:
                self._jobs.drop(key)

    def expect(self, job_key: str) -> None:
        """Expect the webhook of a call with this job key, which is about to be sent."""
        self._ordered.put(job_key, True)

    def expects(self, event: Event) -> bool:
        """Return True if this process ordered the event, even if the response with the task id was lost."""
        return event.job_key is not None and event.job_key in self._ordered

    async def forget(self, event: Event) -> None:
        """Treat the next delivery of `event` as a new one, because your work with this one failed."""
        marks = _marks(event)
        for mark in marks:
            self._handled.drop(mark)
        if self._shared is not None and not event.is_duplicate:  # else another worker has claimed it
            try:
                await self._shared.unclaim(_digests(marks))
            except JobStoreError as error:
                log.warning("the next delivery of a webhook may be taken for a duplicate: %s", error)

    def task_of(self, job_key: str) -> TaskRef | None:
        """Return the task that a call with this job key made, if a webhook has named it.

        After an `OutcomeUnknownError`: `client.task(ref.family, ref.task_id)` for it.
        """
        return self._jobs.get(job_key)


def _marks(event: Event) -> tuple[str, str]:
    """Return id and signature: a replay under another id has the same signature, which covers no header."""
    return f"id {event.dedupe_key}", f"signature {event.signature}"


def job_key_of(url: str) -> str | None:
    """Return the job key in the query of a called URL, or None, also if it is too long. Never raises."""
    if not url or len(url) > 8 * URL_LIMIT:
        return None
    return _parameter(url, JOB_KEY)


def _parameter(url: str, name: str) -> str | None:
    try:
        query = urlsplit(url).query or url
        values = parse_qs(query, max_num_fields=64).get(name, [])
    except ValueError:
        return None
    return values[0] if len(values) == 1 else None


class _Recent(Generic[V]):
    """The latest items, by a text of any length, of which only a digest is stored; for a day at most."""

    def __init__(self, size: int, now: Callable[[], float]) -> None:
        self._size: Final = size
        self._now: Final = now
        self._items: Final[OrderedDict[bytes, tuple[V, float]]] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

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


def _digests(marks: Iterable[str]) -> list[str]:
    """The marks in a length that a store takes."""
    return [_digest(mark).hex() for mark in marks]


def _digest(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _secrets(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the secrets, if they are texts that can sign; the error never contains them."""
    try:
        secrets = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        secrets = None
    if secrets is None or not all(map(_is_text, secrets)):
        raise _bad("webhooks", "a secret that is text, or several of them")
    if not secrets or not all(secrets):
        raise _bad("webhooks", "a secret that is not empty: without one any sender could sign")
    if any("\ud800" <= letter <= "\udfff" for letter in "".join(secrets)):
        raise _bad("webhooks", "a secret that is valid Unicode")
    return secrets


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _callable(url: str) -> bool:
    fits = len(url) <= URL_LIMIT and not any(map(str.isspace, url))
    return fits and is_protected(url) and not urlsplit(url).fragment


def _names_in(url: str) -> set[str]:
    return {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}


def _bad(field: str, limit: str) -> RequestValidationError:
    return RequestValidationError(f"{field}: {limit}", field=field, limit=limit)
