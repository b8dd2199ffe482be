"""One delivery of a webhook: verified, and read as an event. No network, and no clock but the one given.

A request at a public address is hostile until its signature says otherwise, so the order is fixed: size,
headers, signature, time, and only then the JSON. Every fault raises `WebhookVerificationError` and nothing
else. `_wire/signature.py` checks the signature. A verified body is read as leniently as a poll response, by
the same code, and once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias, cast, overload

import msgspec

from .._wire import codec, signature
from .._wire.poll_response import judge_webhook
from .._wire.poll_result import PollResult
from .._wire.redaction import NOTHING_KNOWN, Redactor
from ..api.families import polled_as
from ..api.field_limits import has_white_ends
from ..api.json_values import id_in, text_or_none
from ..api.results import Result, TaskUpdate
from ..api.task import TaskRef
from ..errors import TaskFailedError, WebhookVerificationError
from ..plain_data import PlainData

TOLERANCE: Final = 300.0
"""Seconds by which the time of signing may differ from ours (the window of receivers in use; the vendor
names none)."""
WEBHOOK_BODY_LIMIT: Final = 1024 * 1024
"""Bytes of the largest body that is read; a task of 24 stems with their lyrics stays below."""
ID_LIMIT: Final = 200
"""Characters of an id; the service sends UUIDs."""

Headers = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
)
Secrets = str | bytes | Iterable[str | bytes]
Now = float | Callable[[], float]
Scheme = Literal["X-Webhook-Signature", "X-Signature"]
Raw = bytes | bytearray


_repaired: Final = codec.RepairLog("the body of a webhook")


class Event(PlainData, msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A verified webhook.

    Args:
        event: its name, such as 'song.completed', 'song.streaming', 'song.failed', or an unknown one.
        platform: the service's word for the family.
        family: the family as in this package ('sonic' for 'suno').
        task_id: the id of the task; None if the body has none.
        timestamp: the Unix time of signing in seconds; 0 if no time is signed.
        dedupe_key: a text that is equal for all deliveries of one event.
        raw: the body as it came; it is part of the plain data.
        job_key: the job key in the URL that was called, if its proof is valid.
        job_item: the index of the item of a batch in this URL, from 0.
        is_duplicate: True if `client.webhooks.handle` has handled this event before.
    """

    event: str
    platform: str = ""
    family: str = ""
    task_id: str | None = None
    timestamp: int = 0
    dedupe_key: str
    raw: dict[str, Any]
    job_key: str | None = None
    job_item: int | None = None
    is_duplicate: bool = False

    @property
    def signature(self) -> str:
        """The digits of the signature; '' if none was checked. It is not part of the plain data."""
        return str(vars(self).get("signature", ""))

    def __reduce__(self) -> tuple[Any, ...]:
        return _signed, (msgspec.structs.asdict(self), self.signature)

    def __copy__(self) -> Event:
        return changed(self)

    @cached_property
    def update(self) -> TaskUpdate:
        """The update that a poll with this body would give. Never raises.

        Of an unknown family, and of none, it is 'pending', but for `song.failed`, which is a failure of any.
        """
        ref = TaskRef(self.family, self.task_id or "")
        update = judge(self, ref).update
        return update or TaskUpdate("pending", task_id=ref.task_id, family=ref.family, raw=self.raw)

    @property
    def result(self) -> Result | None:
        """The result of the task, as a poll would return it; None unless the task succeeded."""
        return self.update.result

    @property
    def refunded(self) -> bool | None:
        """The service's report on the credits of a failed task; None if the body has none."""
        error = self.update.error
        return error.refunded if isinstance(error, TaskFailedError) else None

    @property
    def is_terminal(self) -> bool:
        """True if the task has ended."""
        return self.update.is_terminal


def changed(event: Event, **fields: Any) -> Event:
    """Return a copy of an event with other fields, and with its signature, which is no field."""
    return _signed(msgspec.structs.asdict(event) | fields, event.signature)


def _signed(fields: Mapping[str, Any], signature: str) -> Event:
    event = Event(**fields)
    vars(event)["signature"] = signature
    return event


OnEvent: TypeAlias = Callable[[Event], Awaitable[object] | None]
"""Called with each event once, by one of the workers that share a job store; again if it raised, or if its
process was killed. A plain or an async function."""


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
    limit: int = WEBHOOK_BODY_LIMIT,
    scheme: Scheme = "X-Webhook-Signature",
) -> Event:
    """Verify the signature of a webhook and read it. Free; accepts any input and needs no client.

    Args:
        raw: the bytes of the body exactly as they came. Body and headers may be passed in either order.
        headers: a mapping (also of a web framework) or pairs, with names in any case.
        secrets: the webhook secret, or several while one is being replaced.
        tolerance: seconds by which the time of signing may differ from `now`.
        now: Unix seconds, or a function that returns them; by default the system's clock.
        limit: the size of the largest accepted body, in bytes.
        scheme: 'X-Signature' for the older header, which does not sign the time.

    Returns:
        The event.

    Raises:
        WebhookVerificationError: the webhook must not be trusted. No other error is raised.

    ```python
    event = verify(raw, request.headers, "my secret")
    if event.result:
        print(event.task_id, event.result.clips)
    ```
    """
    if isinstance(headers, bytes | bytearray):
        raw, headers = headers, raw
    body = _body(raw, limit)
    given = _Headers(headers)
    known = _secrets(secrets)
    stamp = None if scheme == "X-Signature" else given.one("X-Webhook-Timestamp")
    moment = time.time() if now is None else float(now() if callable(now) else now)
    signed = signature.check(given.one(scheme), stamp, body, known, now=moment, tolerance=tolerance)
    return _event(body, given, signed)


def judge(event: Event, ref: TaskRef, redactor: Redactor = NOTHING_KNOWN) -> PollResult:
    """Judge the body of an event as a poll response about a task; `event.update` is then what it says.

    The client does so once for each event, with all that it knows of the task, and hands the judgement to
    the waits.

    Args:
        event: the event.
        ref: the task; of a family whose tasks cannot be polled only `song.failed` says anything.
        redactor: hides secrets in the texts of errors.

    Returns:
        The judgement. Never raises.
    """
    result = judge_webhook(event.raw, ref=ref, polled=polled_as(ref.family, ref.kind), redactor=redactor)
    if result.update is not None:
        vars(event)["update"] = result.update  # where `cached_property` finds it
    return result


def parse(raw: Raw, headers: Headers = (), *, limit: int = WEBHOOK_BODY_LIMIT) -> Event:
    """Read a webhook without verifying it. Free.

    Use it only for bodies that were verified before, for instance by a gateway, or that come from a store.

    Args:
        raw: the bytes of the body.
        headers: as they came, for the id and the name of the event; none by default.
        limit: bytes of the largest body.

    Raises:
        WebhookVerificationError: the body is too large or no JSON object.
    """
    return _event(_body(raw, limit), _Headers(headers), signature.Signed("", 0))


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
    if any(map(has_white_ends, secrets)):
        raise _refuse("a webhook secret is blank or has white space at its ends: take it off with .strip()")
    return secrets


class _Headers:
    """The headers of a webhook, by lower-case name; all others are ignored."""

    USED: Final = frozenset(
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
                if key in self.USED:
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


def _event(body: bytes, headers: _Headers, signed: signature.Signed) -> Event:
    try:
        raw = codec.decode(body, _repaired)
    except codec.MalformedBody as error:
        raise _refuse(f"the body is {error}") from None
    if not isinstance(raw, dict):
        raise _refuse("the body is no JSON object")
    platform = text_or_none(raw.get("platform")) or ""
    task_id = id_in(raw.get("task_id"))
    family, _ = TaskRef(platform.lower(), task_id or "").key  # 'suno' is another word for 'sonic'
    name = text_or_none(raw.get("event")) or headers.some("X-Webhook-Event")
    key = headers.some("X-Webhook-Id", "Idempotency-Key") or f"{platform}:{task_id}:{name}"
    fields = {
        "event": name,
        "platform": platform,
        "family": family,
        "task_id": task_id,
        "timestamp": signed.timestamp,
        "dedupe_key": key,
        "raw": raw,
    }
    return _signed(fields, signed.digits)
