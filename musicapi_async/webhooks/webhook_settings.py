"""The URL that webhooks are sent to, with the job key in it, and the other settings of `Webhooks`.

The service gets the URL and a secret with each create. The URL carries the job key, so that a delivery names
the call that made its task even if the answer to that was lost, and a proof that this client put it there.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar, cast, get_args
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

import msgspec

from .._wire import signature
from ..api.batches import CreateBatch
from ..api.field_limits import SHORTEST_SECRET, has_white_ends
from ..api.request import Request
from ..arguments import check_count, check_functions, is_positive, is_text, refused
from ..options import is_protected
from .delivery import TOLERANCE, WEBHOOK_BODY_LIMIT, Scheme

log: Final = logging.getLogger("musicapi_async")

JOB_KEY: Final = "job_key"
"""Query parameter of a webhook's URL with the job key."""
JOB_ITEM: Final = "job_item"
"""Query parameter with the place of an item in a batch, from 0."""
_PLACE: Final = re.compile("[0-9]{1,3}", re.ASCII)
JOB_PROOF: Final = "job_proof"
"""Query parameter with the proof of the job key."""
URL_LIMIT: Final = 1024
"""Characters of a webhook's URL that the service takes."""

R = TypeVar("R", bound=Request)


class NamedCall(NamedTuple):
    """The call that a webhook's URL names: its job key, and of a batch the place of the item."""

    job_key: str
    item: int | None


class Webhooks:
    """Settings of webhooks: `MusicAPI(webhooks=Webhooks(url=..., secret=...))`.

    Args:
        url: the public https URL of the route that calls `client.webhooks.handle`; http is accepted only for
            this machine. None: order no webhooks, only receive them.
        secret: the secret that signs webhooks, or several while one is being replaced. The first one is sent
            with new calls, and needs at least 16 characters if `url` is given; all are accepted.
        tolerance: seconds by which the time of signing may differ from the time of this machine.
        limit: the size of the largest accepted body, in bytes.
        scheme: the header with the signature.
        now: a function that returns Unix seconds, for tests.

    Raises:
        RequestValidationError: the service would not call the URL, or a secret is missing, too short, or has
            white space at its ends.
    """

    def __init__(
        self,
        url: str | None = None,
        secret: str | Iterable[str] = (),
        *,
        tolerance: float = TOLERANCE,
        limit: int = WEBHOOK_BODY_LIMIT,
        scheme: Scheme = "X-Webhook-Signature",
        now: Callable[[], float] = time.time,
    ) -> None:
        if not (tolerance == 0 or is_positive(tolerance)):
            raise refused("tolerance", "a number of seconds, 0 or more", repr(tolerance)[:100])
        check_count("limit", limit)
        if scheme not in get_args(Scheme):
            raise refused("scheme", f"one of {', '.join(get_args(Scheme))}", repr(scheme)[:100])
        check_functions(now=now)
        self.url: Final = url
        self.secrets: Final = _secrets(secret)
        self.tolerance: Final = tolerance
        self.limit: Final = limit
        self.scheme: Final[Scheme] = scheme
        self.now: Final = now
        if url is not None and len(self.secrets[0]) < SHORTEST_SECRET:
            least = f"a secret of at least {SHORTEST_SECRET} characters, such as secrets.token_urlsafe()"
            raise refused("webhooks", least)
        if url is not None and not _callable(url):
            good = f"an https URL of at most {URL_LIMIT} characters, without white space and a fragment"
            raise refused("webhooks", good)
        if url is not None and {JOB_KEY, JOB_ITEM, JOB_PROOF} & _names_in(url):
            raise refused(
                "webhooks", f"a URL without {JOB_KEY}, {JOB_ITEM} and {JOB_PROOF}, which are added to it"
            )

    def order(self, request: R, job_key: str | None = None) -> R:
        """Return the request with `webhook_url` and `webhook_secret` filled in, where it has these fields.

        A request with its own `webhook_url` is unchanged; `webhook_url=""` orders no webhook. The URL
        includes the job key, with a proof that this client put it there, so that the delivery names the call
        that made the task, even if its response was lost. Raises `RequestValidationError` if the URL becomes
        longer than the service accepts.
        """
        if self.url is None or getattr(request, "webhook_url", "") is not None:
            return request
        changes: dict[str, Any] = {"webhook_url": self.url_for(job_key), "webhook_secret": self.secrets[0]}
        return msgspec.structs.replace(request, **changes)

    def order_items(self, batch: CreateBatch, job_key: str) -> CreateBatch:
        """Return a batch with a webhook for each item that has none of its own; see `order`.

        The URL of an item also includes its index, so that the delivery names the item.
        """
        if self.url is None:
            return batch
        items = [self._ordered(item, job_key, place) for place, item in enumerate(batch.items)]
        return batch if items == list(batch.items) else msgspec.structs.replace(batch, items=items)

    def _ordered(self, item: Any, job_key: str, place: int) -> Any:
        if not isinstance(item, dict):
            return item  # it is refused before it is sent
        fields = cast("dict[str, Any]", item)
        if fields.get("webhook_url") is not None:
            return fields
        return {
            **fields,
            "webhook_url": self.url_for(job_key, place),
            "webhook_secret": self.secrets[0],
        }

    def url_for(self, job_key: str | None, item: int | None = None) -> str:
        """Return the URL with the job key and its proof in the query; without a job key, the plain URL.

        For a batch, `item` is the index of the item, from 0. Raises `RequestValidationError` if the job key
        makes the URL longer than the service accepts, or cannot be part of a URL.
        """
        url = self.url or ""
        if not job_key:
            return url
        try:
            proof = signature.prove(self.secrets[0], job_key, item)
            whole = f"{self._with_key(job_key, item)}&{JOB_PROOF}={proof}"
        except UnicodeEncodeError:
            raise refused("job_key", "text without lone surrogates, as it becomes part of a URL") from None
        if len(whole) > URL_LIMIT:
            raise refused(
                "job_key",
                f"short enough for the webhook's URL: with key and proof it has {len(whole)} characters, "
                f"and the service takes {URL_LIMIT}",
            )
        return whole

    def _with_key(self, job_key: str, item: int | None = None) -> str:
        url = self.url or ""
        joint = "&" if urlsplit(url).query else "?"
        place = "" if item is None else f"&{JOB_ITEM}={item}"
        return f"{url}{joint}{JOB_KEY}={quote(job_key, safe='')}{place}"

    def renewed(self, url: object, job_key: str, item: int | None = None) -> tuple[str, str] | None:
        """Return URL and secret for repeating a call whose webhook URL was `url`; None if it is another's
        URL.

        For a batch, `item` is the index of the item. The proof is made again, because the one in `url` may be
        of a secret that was replaced since.
        """
        if self.url is None or not isinstance(url, str):
            return None
        plain = url.partition(f"&{JOB_PROOF}=")[0]
        own = plain == self._with_key(job_key, item) or url == self.url
        return (self.url_for(job_key, item), self.secrets[0]) if own else None

    def call_in(self, url: str) -> NamedCall | None:
        """Return the call that a called URL names, or None if the URL has no valid proof of it."""
        job_key = job_key_of(url)
        if job_key is None:
            return None
        place = _parameter(url, JOB_ITEM)
        item = int(place) if place is not None and _PLACE.fullmatch(place) else None
        if signature.proves(_parameter(url, JOB_PROOF) or "", self.secrets, job_key, item):
            return NamedCall(job_key, item)
        log.warning("a webhook names the job key %.80r without its proof: it settles no job", job_key)
        return None

    def __repr__(self) -> str:
        return f"Webhooks(url={self.url!r}, secret=...)"


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


def _secrets(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the secrets, if they are texts that can sign; the error never contains them."""
    try:
        secrets = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        secrets = None
    if secrets is None or not all(map(is_text, secrets)):
        raise refused("webhooks", "a secret that is text, or several of them")
    if not secrets or not all(secrets):
        raise refused("webhooks", "a secret that is not empty: without one any sender could sign")
    if any(map(has_white_ends, secrets)):
        raise refused("webhooks", "a secret that is not blank and has no white space at its ends")
    if any("\ud800" <= letter <= "\udfff" for letter in "".join(secrets)):
        raise refused("webhooks", "a secret that is valid Unicode")
    return secrets


def _callable(url: str) -> bool:
    fits = is_text(url) and len(url) <= URL_LIMIT and not any(map(str.isspace, url))
    return fits and is_protected(url) and not urlsplit(url).fragment


def _names_in(url: str) -> set[str]:
    return {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
