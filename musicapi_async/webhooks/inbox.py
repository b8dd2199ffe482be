"""Where webhooks arrive: checked, each once, and handed to whoever waits.

`Webhooks` says where the service shall tell of results and with which secret; `Inbox` takes what comes.
Neither knows a web framework: a view passes on the headers, the raw body and the address that was called.
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
from ..api.handle import TaskRef
from ..api.request import Request
from ..api.values import SHORTEST_SECRET
from ..errors import JobStoreError, RequestValidationError
from ..options import is_protected
from .events import BODY_LIMIT, TOLERANCE, Event, Headers, Raw, Scheme, verify

log: Final = logging.getLogger("musicapi_async")

JOB_KEY: Final = "job_key"
"""The query parameter that carries the job key in the webhook's address."""
JOB_PROOF: Final = "job_proof"
"""The one that proves it."""
URL_LIMIT: Final = 1024
"""Characters of a webhook's address (contract, webhooks 1)."""
REMEMBERED: Final = 10_000
"""Deliveries and job keys that are remembered, about 200 bytes each. A replay must come within the tolerance
of its signature, so at 10 events per second this covers three times that."""
REMEMBERED_FOR: Final = 86_400.0
"""Seconds after which they are forgotten. How long the service repeats a delivery is not known."""

R = TypeVar("R", bound=Request)
V = TypeVar("V")
Adopt = Callable[[str, TaskRef], Awaitable[object]]
"""Settles the job of a key with a task; gives False if the job does not stand for that task."""


class Webhooks:
    """Where the service shall tell of results: `MusicAPI(webhooks=Webhooks(url=..., secret=...))`.

    `url`: the public https address of the view that calls `client.webhooks.handle`; http only for this
    machine. None: order no webhooks, only receive them. `secret`: the key that signs them, or several while
    one is being replaced: the first signs what is ordered from now on, and must have at least 16 characters
    for that; all are accepted. `tolerance`: seconds by which the time of signing may be away. `limit`: bytes
    of the largest body. `now`: a clock, for tests.

    Raises `RequestValidationError` for an address that the service would not call, and for a secret that is
    missing or too short.
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
            good = f"an https address of at most {URL_LIMIT} characters, without white space and a fragment"
            raise _bad("webhooks", good)
        if url is not None and {JOB_KEY, JOB_PROOF} & _names_in(url):
            raise _bad("webhooks", f"an address without {JOB_KEY} and {JOB_PROOF}, which are added to it")

    def order(self, request: R, job_key: str | None = None) -> R:
        """The request with `webhook_url` and `webhook_secret` filled in, where it has these fields.

        One that names its own address keeps it, and `webhook_url=""` orders none. The job key goes into the
        address, with a proof that it was put there here, so that the delivery tells which call made the task,
        even if its answer was lost. Raises `RequestValidationError` if that is longer than the service takes.
        """
        if self.url is None or getattr(request, "webhook_url", "") is not None:
            return request
        changes: dict[str, Any] = {"webhook_url": self.url_for(job_key), "webhook_secret": self.secrets[0]}
        return msgspec.structs.replace(request, **changes)

    def url_for(self, job_key: str | None) -> str:
        """The address with the job key and its proof in the query; without a key the plain address.

        Raises `RequestValidationError` for a key that makes it longer than the service takes, or that no
        address can hold: without the key a lost answer could not be found again.
        """
        url = self.url or ""
        if not job_key:
            return url
        try:
            whole = self._with_key(job_key) + f"&{JOB_PROOF}={signature.prove(self.secrets[0], job_key)}"
        except UnicodeEncodeError:
            raise _bad("job_key", "text without lone surrogates, as it becomes part of an address") from None
        if len(whole) > URL_LIMIT:
            raise _bad(
                "job_key",
                f"short enough for the webhook's address: with key and proof it has {len(whole)} characters, "
                f"and the service takes {URL_LIMIT}",
            )
        return whole

    def _with_key(self, job_key: str) -> str:
        url = self.url or ""
        joint = "&" if urlsplit(url).query else "?"
        return f"{url}{joint}{JOB_KEY}={quote(job_key, safe='')}"

    def renewed(self, url: object, job_key: str) -> tuple[str, str] | None:
        """Address and secret for sending a call again whose address was `url`; None if that is not ours.

        The proof is made anew: the one in `url` may be of a secret that was replaced since.
        """
        if self.url is None or not isinstance(url, str):
            return None
        plain = url.partition(f"&{JOB_PROOF}=")[0]
        own = plain == self._with_key(job_key) or url == self.url
        return (self.url_for(job_key), self.secrets[0]) if own else None

    def key_in(self, url: str) -> str | None:
        """The job key in a called address, if it carries the proof that one of the secrets made for it."""
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
        settings: address and secrets; None to receive none.
        deliver: called with each event once.
        adopt: called when a webhook proves which task the call with a job key made.
        claims: where workers share which deliveries were handled; None: this process alone.
        remembered: deliveries and job keys that are remembered in this process.
    """

    def __init__(
        self,
        settings: Webhooks | None,
        deliver: Callable[[Event], object],
        *,
        adopt: Adopt | None = None,
        claims: Claims | None = None,
        remembered: int = REMEMBERED,
    ) -> None:
        self._settings: Final = settings
        self._deliver: Final = deliver
        self._adopt: Final = adopt
        self._store: Final = claims
        now = time.time if settings is None else settings.now
        self._now: Final = now
        self._handled: Final[_Recent[bool]] = _Recent(remembered, now)
        self._claims: Final[_Recent[str]] = _Recent(remembered, now)
        self._jobs: Final[_Recent[TaskRef]] = _Recent(remembered, now)
        self._ordered: Final[_Recent[bool]] = _Recent(remembered, now)

    async def handle(self, headers: Headers, raw: Raw, *, url: str = "") -> Event:
        """Check a delivery, finish the waits for its task, and return it. Free, may be repeated.

        `headers` and `raw`: as they came; the body must be the raw bytes. `url`: the address that was
        called, or its query; with it the delivery also tells which job it belongs to, if it carries the proof
        that `Webhooks` put there.
        Returns the `Event`; one that came before has `is_duplicate` set and changes nothing. Workers that
        share a job store take a delivery once among them; what another one has received finishes the waits
        here, too. Answer both with 2xx. Raises `WebhookVerificationError` for what must not be believed:
        answer 400.

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
            # The signature does not cover the address: a copy at another one names another job.
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
        if self._store is None:
            return True
        try:
            return await self._store.claim(_digests(marks), now=self._now(), seconds=REMEMBERED_FOR)
        except JobStoreError as error:
            log.warning("a webhook may be handled by other workers, too: %s", error)
            return True

    async def _claim(self, event: Event) -> None:
        """Note which job made the task, where the address proves it; what two jobs claim is of neither."""
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
        """A call with this job key is about to leave here, and orders a webhook."""
        self._ordered.put(job_key, True)

    def expects(self, event: Event) -> bool:
        """Whether this process ordered the event, even if it never got the answer that names the task."""
        return event.job_key is not None and event.job_key in self._ordered

    async def forget(self, event: Event) -> None:
        """Take the next delivery of `event` for a new one, because what you did with this one failed."""
        marks = _marks(event)
        for mark in marks:
            self._handled.drop(mark)
        if self._store is not None and not event.is_duplicate:  # else another worker has claimed it
            try:
                await self._store.unclaim(_digests(marks))
            except JobStoreError as error:
                log.warning("the next delivery of a webhook may be taken for a duplicate: %s", error)

    def task_of(self, job_key: str) -> TaskRef | None:
        """The task that a call with this job key made, if a webhook has told.

        After an `OutcomeUnknownError`: `client.task(ref.family, ref.task_id)` for what it gives.
        """
        return self._jobs.get(job_key)


def _marks(event: Event) -> tuple[str, str]:
    """The signature covers neither the id nor the address: a replay under another id has its signature."""
    return f"id {event.dedupe_key}", f"signature {event.signature}"


def job_key_of(url: str) -> str | None:
    """The job key in the query of a called address, or None. Never raises; too long is none."""
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
    """The last things put in, by a text of any length, of which only a digest is kept; for a day at most."""

    def __init__(self, size: int, now: Callable[[], float]) -> None:
        self._size: Final = size
        self._now: Final = now
        self._items: Final[OrderedDict[bytes, tuple[V, float]]] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> V | None:
        found = self._items.get(_digest(key))
        return None if found is None or self._now() - found[1] > REMEMBERED_FOR else found[0]

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
    """The secrets, if they are texts that can sign; the error never shows them."""
    try:
        secrets = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        secrets = None
    if secrets is None or not all(map(_is_text, secrets)):
        raise _bad("webhooks", "a secret that is text, or several of them")
    if not secrets or not all(secrets):
        raise _bad("webhooks", "a secret that is not empty: without one anybody could sign")
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
