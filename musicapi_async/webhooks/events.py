"""Verify a webhook and read it. Pure functions: no clock but the one given, no network.

A request at a public address is hostile until its signature says otherwise, so the order is fixed: size,
headers, signature, time, and only then the JSON. Every fault raises `WebhookVerificationError` and nothing
else. A verified body is read as leniently as a poll response, by the same code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Final, Literal, cast, overload

import msgspec

from .._wire import codec, poll_response, signature
from ..api.families import polled_as
from ..api.results import Result, TaskUpdate
from ..api.task import TaskRef
from ..api.values import reference_or_none, text_or_none
from ..errors import TaskFailedError, WebhookVerificationError

TOLERANCE: Final = 300.0
"""Seconds by which the time of signing may differ from ours (the window of receivers in use; the vendor
names none)."""
BODY_LIMIT: Final = 1024 * 1024
"""Bytes of the largest body that is read; a task of 24 stems with their lyrics stays below."""
ID_LIMIT: Final = 200
"""Characters of an id; the service sends UUIDs."""

FAMILY_OF: Final[Mapping[str, str]] = {"suno": "sonic"}
"""Platforms that are another word for a family."""

Headers = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
)
Secrets = str | bytes | Iterable[str | bytes]
Now = float | Callable[[], float]
Scheme = Literal["X-Webhook-Signature", "X-Signature"]
Raw = bytes | bytearray


_repaired: Final = codec.RepairLog("the body of a webhook")


class Event(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A webhook that may be believed.

    `event` is its name, such as 'song.completed', 'song.streaming', 'song.failed', or a word that is not
    known yet; `platform` the service's word, `family` ours ('sonic' for 'suno'); `task_id` None in payloads
    that have none. `timestamp` are the Unix seconds of signing (0 where none is signed); `raw` is the body as
    it came. `dedupe_key` is the same for every delivery of one event. `is_duplicate` is set by
    `client.webhooks.handle` on a delivery that had come before, and `job_key` from the URL that was called.
    """

    event: str
    platform: str = ""
    family: str = ""
    task_id: str | None = None
    timestamp: int = 0
    dedupe_key: str
    signature: str
    raw: dict[str, Any]
    job_key: str | None = None
    is_duplicate: bool = False

    @cached_property
    def update(self) -> TaskUpdate:
        """The update that a poll with this body would give; of an unknown family, 'pending'. Never raises."""
        task_id = self.task_id or ""
        pending = TaskUpdate("pending", task_id=task_id, family=self.family, raw=self.raw)
        polled = polled_as(self.family)
        if polled is None:
            return pending
        ref = TaskRef(self.family, task_id)
        return poll_response.judge_webhook(self.raw, ref=ref, polled=polled).update or pending

    @property
    def result(self) -> Result | None:
        """The result, as a poll would give it; None unless the task ended well."""
        return self.update.result

    @property
    def refunded(self) -> bool | None:
        """The report of the service on the refund of a failed task; None without one."""
        error = self.update.error
        return error.refunded if isinstance(error, TaskFailedError) else None

    @property
    def is_terminal(self) -> bool:
        """The task has ended."""
        return self.update.is_terminal


@overload
def verify(
    raw: Raw,
    headers: Headers,
    secrets: Secrets,
    tolerance: float = ...,
    now: Now | None = ...,
    *,
    limit: int = ...,
    scheme: Scheme = ...,
) -> Event: ...
@overload
def verify(
    headers: Headers,
    raw: Raw,
    secrets: Secrets,
    /,
    tolerance: float = ...,
    now: Now | None = ...,
    *,
    limit: int = ...,
    scheme: Scheme = ...,
) -> Event: ...
def verify(
    raw: Any,
    headers: Any,
    secrets: Any,
    tolerance: float = TOLERANCE,
    now: Now | None = None,
    *,
    limit: int = BODY_LIMIT,
    scheme: Scheme = "X-Webhook-Signature",
) -> Event:
    """Check the signature of a webhook and read it. Free, pure, and safe with any input.

    Args:
        raw: the bytes of the body exactly as they came. Body and headers may change places.
        headers: a mapping (also of a web framework) or pairs; upper and lower case are the same.
        secrets: the webhook secret, or several while one is being replaced.
        tolerance: seconds by which the time of signing may differ from `now`.
        now: Unix seconds, or a function that gives them; default the system's clock.
        limit: bytes of the largest body.
        scheme: 'X-Signature' for the older header, which is not bound to a time.

    Returns:
        The event.

    Raises:
        WebhookVerificationError: for every fault, and nothing else.

    ```python
    event = verify(raw, request.headers, "my secret")
    if event.result:
        print(event.task_id, event.result.clips)
    ```
    """
    if isinstance(headers, bytes | bytearray):
        raw, headers = headers, raw
    body = _body(raw, limit)
    parts = _Headers(headers)
    known = _secrets(secrets)
    older = scheme == "X-Signature"
    stamp = None if older else parts.one("X-Webhook-Timestamp")
    given = parts.one("X-Signature" if older else "X-Webhook-Signature")
    seconds = 0 if stamp is None else signature.read_timestamp(stamp)
    mark = signature.read_signature(given, prefixed=not older)
    if seconds is None:
        raise _refuse("X-Webhook-Timestamp: Unix seconds expected, malformed")
    if mark is None:
        raise _refuse(f"{scheme}: sha256=<64 hex digits> expected, malformed")
    if not signature.matches(mark, known, stamp, body):
        raise _refuse("the signature does not match: another secret, or a changed body")
    if stamp is not None:
        _check_time(seconds, _moment(now), tolerance)
    return _event(body, parts, seconds, mark.hex())


def parse(raw: Raw, headers: Headers = (), *, limit: int = BODY_LIMIT) -> Event:
    """Read a webhook without checking who sent it. Free.

    Only for bodies that were verified elsewhere, such as by a gateway, or that come out of a store.
    Raises `WebhookVerificationError` if it is too large or no JSON object.
    """
    return _event(_body(raw, limit), _Headers(headers), 0, "")


def _refuse(text: str) -> WebhookVerificationError:
    return WebhookVerificationError(text)


def _body(raw: object, limit: int) -> bytes:
    if not isinstance(raw, bytes | bytearray):
        raise _refuse(f"the body must be given as the bytes that came, not as {type(raw).__name__}")
    if not raw:
        raise _refuse("the body is empty")
    if len(raw) > limit:
        raise _refuse(f"the body has {len(raw)} bytes, more than {limit}")
    return bytes(raw)


def _secrets(given: object) -> list[str | bytes]:
    some = [given] if isinstance(given, str | bytes) else given
    known = cast("Iterable[object]", some) if isinstance(some, Iterable) else ()
    secrets = [secret for secret in known if isinstance(secret, str | bytes) and secret]
    if not secrets:
        raise _refuse("no webhook secret to check with: without one any sender could sign")
    return secrets


def _moment(now: Now | None) -> float:
    return time.time() if now is None else float(now() if callable(now) else now)


def _check_time(seconds: int, now: float, tolerance: float) -> None:
    away = now - seconds
    if not abs(away) <= tolerance:  # so that NaN is refused, too
        side = "before" if away > 0 else "after"
        raise _refuse(f"signed {abs(away):.0f} s {side} now, more than {tolerance:g} s: a replay, or a clock")


class _Headers:
    """The headers of a webhook, by lower-case name; all others are ignored."""

    NAMES: Final = frozenset(
        {
            "x-webhook-id",
            "idempotency-key",
            "x-webhook-event",
            "x-webhook-timestamp",
            "x-webhook-signature",
            "x-signature",
        }
    )

    def __init__(self, headers: object) -> None:
        self._values: dict[str, list[str]] = {}
        try:
            given = cast("Any", headers)
            items = getattr(given, "items", None)  # also of `http.server`, whose headers are no Mapping
            pairs = cast("Iterable[tuple[object, object]]", items() if callable(items) else given)
            for name, value in pairs:
                key = _text(name).lower()
                if key in self.NAMES:
                    self._values.setdefault(key, []).append(_text(value))
        except (TypeError, ValueError, AttributeError):
            raise _refuse("the headers must be a mapping of text, or pairs of it") from None

    def one(self, name: str) -> str:
        """Return a header that must come once; twice could mean one thing to a proxy and another here."""
        values = self._values.get(name.lower(), [])
        if not values:
            raise _refuse(f"{name}: the header is missing")
        if len(values) > 1:
            raise _refuse(f"{name}: the header comes {len(values)} times")
        return values[0]

    def some(self, *names: str) -> str:
        """Return the first of `names` that has a value, or ''."""
        for name in names:
            if self._values.get(name.lower()):
                value = self.one(name)
                if len(value) > ID_LIMIT:
                    raise _refuse(f"{name}: at most {ID_LIMIT} characters, got {len(value)}")
                if value:
                    return value
        return ""


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise TypeError
    return value


def _event(body: bytes, parts: _Headers, seconds: int, mark: str) -> Event:
    try:
        read: Any = codec.decode(body, _repaired)
    except codec.MalformedBody as error:
        raise _refuse(f"the body is {error}") from None
    if not isinstance(read, dict):
        raise _refuse("the body is no JSON object")
    raw = cast("dict[str, Any]", read)
    platform = text_or_none(raw.get("platform")) or ""
    family = FAMILY_OF.get(platform.lower(), platform.lower())
    task_id = reference_or_none(raw.get("task_id"))
    name = text_or_none(raw.get("event")) or parts.some("X-Webhook-Event")
    key = parts.some("X-Webhook-Id", "Idempotency-Key") or f"{platform}:{task_id}:{name}"
    return Event(
        event=name,
        platform=platform,
        family=family,
        task_id=task_id,
        timestamp=seconds,
        dedupe_key=key,
        signature=mark,
        raw=raw,
    )
