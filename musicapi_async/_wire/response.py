"""The response to a call: the error in it, the task that was accepted, or the direct result.

A response is read leniently and judged strictly: what it lacks is left empty, but success needs the one key
that the caller came for. Statuses and words are those of the vendor's error page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from ..api.families import FAMILIES
from ..api.operation import Direct
from ..api.replies import Reply
from ..api.values import id_of, mapping_or_empty, text_or_none
from ..errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContentModerationError,
    EndpointRetiredError,
    InsufficientCreditsError,
    InvalidResponseError,
    MusicAPIError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    StepFailedError,
    SubscriptionRequiredError,
    UpstreamError,
)
from .codec import MalformedBody, Repair, decode, one_line
from .reading import read_reply
from .redaction import NOTHING_KNOWN, Redactor
from .retry import RETRY_AFTER_CAP, Failure, parse_retry_after
from .verdict import PREPARING, identifier, outcome_of, task_id_of_error

ReplyT = TypeVar("ReplyT", bound=Reply)

REQUEST_ID_HEADERS: Final = ("x-request-id", "x-vercel-id", "cf-ray")
"""Headers that may hold an id for support, best first; the vendor's own SDK reads the same."""

BEGINNING: Final = 64 * 1024
"""Bytes of a body that are searched for the text of an error."""

MOST_VALUES: Final = 20_000
"""Values of a body that an error shows, see `Redactor.copy`; no real error has so many. In 16 MB there may be
five millions, and to look through these for secrets would hold up the event loop for a minute."""
TEXT_KEYS: Final = ("error", "message", "detail")
"""Keys that may hold the text of an error, best first."""

WORDS_ABOUT: Final = frozenset(("error", "message", "detail", "type", "code", "success", "status"))
"""Keys that describe a response and hold no result."""

OUT_OF_CREDITS: Final = ("credits are not enough", "insufficient credit", "not enough credit")
TOO_FAST: Final = ("qps limit", "queue is full")
MODERATED: Final = (
    "lyrics format",
    "copyright",
    "inappropriate",
    "moderation",
    "artist name",
    "producer tag",
)
"""Words that split a 403, lower case, from the texts of the vendor's error page; `_denied` has the order."""


class Response:
    """An HTTP response with its body decoded.

    `body` is the JSON value as it came, or the first characters with secrets hidden if `json` is False;
    `fields` the body if it is a JSON object, else an empty one. `headers` have lower-case names, or find a
    name in any case as aiohttp's do. `ok` is HTTP 2xx, whatever the body says; `code` the body's own code as
    a number if it is one (`404`, `"404"`), `type` its type in lower case or nothing. `retry_after` is the
    seconds that the service asks to wait, if it does. `attempts` counts the requests that were made until
    this response came. `redactor` hides secrets in texts.
    """

    # The rules of a poll read these several times, so they are found once and are no properties.
    __slots__ = (
        "attempts",
        "body",
        "code",
        "fields",
        "headers",
        "json",
        "ok",
        "redactor",
        "retry_after",
        "status",
        "type",
    )

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: Any,
        json: bool,
        *,
        redactor: Redactor = NOTHING_KNOWN,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.json = json
        self.retry_after = retry_after
        self.attempts = 1
        self.redactor = redactor
        self.ok = 200 <= status < 300
        self.fields = mapping_or_empty(body)
        code, word = self.fields.get("code"), self.fields.get("type")
        self.code = None if code is None else number(code)
        self.type = word.strip().lower() if isinstance(word, str) else ""

    @property
    def request_id(self) -> str | None:
        """The id of the request for the vendor's support, if a header has one."""
        return request_id_in(self.headers)

    @property
    def is_object(self) -> bool:
        """Return True if the body is a JSON object."""
        return self.json and isinstance(self.body, dict)

    @property
    def shown(self) -> Any:
        """A copy of the body with secrets hidden, for errors; at most `MOST_VALUES` values of it."""
        return self.redactor.copy(self.body, MOST_VALUES)

    @property
    def text(self) -> str:
        """The service's words about an error, in one line with secrets hidden: for display."""
        return one_line(self._say(self.shown))

    @property
    def words(self) -> str:
        """The same words as they came, in lower case: for judging."""
        return one_line(self._say(self.body)).lower()

    def _say(self, body: Any) -> str:
        if (said := error_text(mapping_or_empty(body))) is not None:
            return said
        if not self.json and body:
            text = str(body)
            page = text.lstrip().lower().startswith(("<!doctype", "<html", "<head", "<?xml"))
            return "a page of HTML" if page else text
        if body not in (None, "", {}, []):
            return msgspec.json.encode(body).decode()
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return f"HTTP {self.status}"

    @property
    def not_ready(self) -> bool:
        """A 2xx that only says 'call again': HTTP 202, `type` 'not_ready', or `code` 202."""
        return self.status == 202 or (self.ok and (self.type == "not_ready" or self.code == 202))


def read_response(
    status: int,
    headers: Mapping[str, str],
    raw: bytes,
    redactor: Redactor = NOTHING_KNOWN,
    *,
    now: Callable[[], float] | None = None,
    repaired: Callable[[Repair], object] | None = None,
) -> Response:
    """Decode a response; never raises.

    Args:
        status: the HTTP status.
        headers: the headers, under names in lower case or in any case.
        raw: the body as it came.
        redactor: hides secrets in what is shown of it.
        now: gives the Unix time that a date in Retry-After counts from.
        repaired: is called with each kind of repair of the body.
    """
    header = headers.get("retry-after")
    wait = None if header is None else parse_retry_after(header, math.inf if now is None else now())
    try:
        return Response(status, headers, decode(raw, repaired), True, redactor=redactor, retry_after=wait)
    except MalformedBody:
        return Response(status, headers, excerpt(raw, redactor), False, redactor=redactor, retry_after=wait)


def request_id_in(headers: Mapping[str, str]) -> str | None:
    """The first header that may be an id for support."""
    return next(filter(None, map(headers.get, REQUEST_ID_HEADERS)), None)


def excerpt(raw: bytes, redactor: Redactor) -> str:
    """The first characters of a body, fit for an error text and a log line."""
    return redactor.line(raw[:BEGINNING].decode(errors="replace"))


def number(value: Any) -> int | None:
    """A whole number, also as text, or None."""
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 10:
        return int(value)
    return None


def error_text(fields: Mapping[str, Any]) -> str | None:
    """The text of an error: `error`, `message` or `detail`, else the failed step's own."""
    for key in TEXT_KEYS:
        found = _text_of(fields.get(key))
        if found:
            return found
    step = mapping_or_empty(mapping_or_empty(fields.get("steps")).get(failed_step(fields) or ""))
    return _text_of(step.get("error")) or _text_of(step.get("message"))


def _text_of(value: Any) -> str | None:
    if isinstance(value, dict) and value:
        told = cast("dict[str, Any]", value)
        return text_or_none(told.get("message")) or msgspec.json.encode(told).decode()
    return value if isinstance(value, str) and value.strip() else None


def failed_step(fields: Mapping[str, Any]) -> str | None:
    """The step that a reply of upload-extend, upload-cover or sample reports as failed."""
    named = text_or_none(fields.get("failed_step"))
    if named or task_id_in(fields):
        return named
    steps = mapping_or_empty(fields.get("steps"))
    return next(
        (name for name, step in steps.items() if mapping_or_empty(step).get("success") is False), None
    )


def task_id_in(fields: Mapping[str, Any]) -> str | None:
    """The task id of a submit reply: `task_id`, else `data.task_id`, else `data` itself if it is text."""
    data = fields.get("data")
    candidates = (fields.get("task_id"), mapping_or_empty(data).get("task_id"), data)
    return next(filter(None, map(identifier, candidates)), None)


# --- errors -----------------------------------------------------------------------------------------------


def error_of(
    found: Response,
    *,
    call: str,
    task_id: str | None = None,
    family: str | None = None,
    replacement: str | None = None,
) -> APIStatusError:
    """The error that a response holds; `replacement` is what to use instead of a retired endpoint.

    A `code` of 400 or more in a 2xx is its status. What the response to a POST proves about money is on the
    error, as is the id of a task that such a response names.
    """
    code = found.code
    status = code if found.ok and code is not None and code >= 400 else found.status
    shown, headers = found.shown, found.redactor.headers(found.headers)
    body = mapping_or_empty(shown)
    word = text_or_none(body.get("type")) or (None if body.get("type") is None else str(body["type"]))
    kind = _class(status, found.type, found.words)
    outcome = outcome_of(found, call, rate_limited=kind is RateLimitedError) if is_paid(call) else None
    told: dict[str, Any] = {
        "status": status,
        "type": word,
        "code": _code(body.get("code")),
        "body": shown,
        "headers": headers,
        "request_id": request_id_in(headers),
        "retry_after": found.retry_after,
        "call": call,
        "task_id": task_id if outcome is None else task_id or task_id_of_error(found.fields, call),
        "family": family,
        "may_have_been_charged": outcome is not None and not outcome.is_free,
        "not_charged": outcome is not None and outcome.is_free,
    }
    step = failed_step(found.fields)
    # A poll that comes too early says nothing about the steps of its task, whatever else its body repeats.
    if step is not None and (outcome is not None or kind is not RateLimitedError):
        return _step_failed(found, step, told)
    if kind is EndpointRetiredError:
        known = FAMILIES.get(family or call.partition(" /")[2].partition("/")[0])
        told["replacement"] = replacement or (known.replacement if known else None)
    if kind is RateLimitedError and (found.retry_after or 0.0) > RETRY_AFTER_CAP:
        told["hint"] = f"The service asks to wait {found.retry_after:.0f} s: call again after that."
    return kind(found.text, **told)


def _code(value: Any) -> str | int | None:
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def _step_failed(found: Response, step: str, told: dict[str, Any]) -> StepFailedError:
    upload = mapping_or_empty(mapping_or_empty(found.fields.get("steps")).get("upload"))
    steps = mapping_or_empty(mapping_or_empty(found.shown).get("steps"))
    step = found.redactor.name(step)
    text = found.text
    reason = _text_of(mapping_or_empty(steps.get(step)).get("error"))
    if reason and reason not in text:
        text = one_line(f"{text}: {reason}")
    clip_id = id_of(upload)
    return StepFailedError(text, failed_step=step, steps=steps, clip_id=clip_id, **told)


def _class(status: int, word: str, text: str) -> type[APIStatusError]:
    match status:
        case 400 if "task not found" in text:
            return NotFoundError
        case 401:
            return AuthenticationError
        case 402 | 403:
            return _denied(status, word, text)
        case 404:
            return NotFoundError
        case 410:
            return EndpointRetiredError
        case 429:
            return RateLimitedError
        case 502 | 503 | 504:
            return UpstreamError
        case _ if status >= 500:
            return ServerError
        case _ if status >= 400:
            return BadRequestError
        case _:
            return APIStatusError


def _denied(status: int, word: str, text: str) -> type[APIStatusError]:
    if status == 402 or word == "insufficient_credits" or _holds(text, OUT_OF_CREDITS):
        return InsufficientCreditsError
    if _holds(text, TOO_FAST):
        return RateLimitedError
    if "subscription" in text:
        return SubscriptionRequiredError
    return ContentModerationError if _holds(text, MODERATED) else PermissionDeniedError


def _holds(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def failure_of(found: Response) -> Failure | None:
    """How a response failed, for the decision about another attempt; None if it did not."""
    status, code = found.status, found.code
    if status == 202:
        return None  # taken, or not ready: whatever its body says, the same call would only add to it
    if found.ok:
        if not found.json:
            return Failure.INVALID_REPLY
        if code is None or code < 400:
            return None
        status = code
    kind = _class(status, found.type, found.words)
    if kind is RateLimitedError:
        return Failure.RATE_LIMITED
    if issubclass(kind, ServerError):
        return Failure.SERVER_ERROR
    return Failure.REFUSED


# --- results ----------------------------------------------------------------------------------------------


class Pending(msgspec.Struct, Generic[ReplyT], frozen=True):
    """A direct call whose result is being prepared: call again, not before `retry_after` seconds if set.

    `reply` is the response as far as it can be read, for callers who do not wait; None if it cannot.
    """

    raw: Any
    retry_after: float | None = None
    reply: ReplyT | None = None


def read_submit(
    found: Response, *, call: str, family: str | None = None, replacement: str | None = None
) -> str:
    """The id of the task that a create gave.

    Raises the error that the reply tells of, and `InvalidResponseError` (`may_have_been_charged=True`) for a
    2xx without a task id. An id that comes with an error is kept on the error.
    """
    if not found.ok or (found.code or 0) >= 400 or failed_step(found.fields):
        raise error_of(found, call=call, family=family, replacement=replacement)
    task_id = task_id_in(found.fields)
    if task_id is None:
        raise _without_result(found, "a task id", call=call, family=family, charges=True)
    return task_id


def read_direct(
    found: Response, operation: Direct[..., ReplyT], call: str | None = None
) -> ReplyT | Pending[ReplyT]:
    """The reply of a direct call, or `Pending` where the operation says that such calls are repeated.

    Raises the error that the reply tells of, and `InvalidResponseError` for a 2xx without the result.
    """
    call = call or operation.call_name
    family = operation.family.word or None
    if not found.ok or (found.code or 0) >= 400:
        raise error_of(found, call=call, family=family, replacement=operation.replacement)
    reply = read_reply(operation.reply, found.fields) if found.is_object else None
    if operation.repeat is not None and found.not_ready:
        return Pending(found.body, found.retry_after, reply)
    if reply is None or (reply.is_empty and _says_no(found)):
        what = " or ".join(operation.reply.needs) or "a result"
        raise _without_result(found, what, call=call, family=family, charges=operation.charges)
    if operation.repeat is not None and operation.repeat.on == "empty" and reply.is_empty:
        return Pending(found.body, found.retry_after, reply)
    return reply


def read_raw(found: Response, *, call: str, replacement: str | None = None) -> Any:
    """The decoded body that answers an untyped call, or the error that it tells of.

    A 2xx that only says that something went wrong, or that something is yet to come, is no result of a call
    that may charge, unless the call is one that is repeated while its file is being prepared.
    """
    if not found.ok or (found.code or 0) >= 400:
        raise error_of(found, call=call, replacement=replacement)
    if not found.json:
        raise _without_result(found, "JSON", call=call, family=None, charges=is_paid(call))
    if is_paid(call) and not (found.not_ready and call in PREPARING):
        given = {name for name, value in found.fields.items() if value not in (None, "", [], {})}
        if failed_step(found.fields) or (given <= WORDS_ABOUT and found.is_object and _says_no(found)):
            raise _without_result(found, "a result", call=call, family=None, charges=True)
    return found.body


def is_paid(call: str) -> bool:
    """Return True for a call that may charge, or might be repeated at a cost: any but a GET."""
    return not call.startswith("GET ")


def _says_no(found: Response) -> bool:
    """Return True if a 2xx that holds no result says that there is none, or none yet."""
    refused = found.fields.get("success") is False
    return refused or found.not_ready or bool(_text_of(found.fields.get("error")))


def _without_result(
    found: Response, what: str, *, call: str, family: str | None, charges: bool
) -> MusicAPIError:
    """The error for a 2xx that lacks `what`: the service's own words, else 'cannot be understood'."""
    if _text_of(found.fields.get("error")) or failed_step(found.fields):
        return error_of(found, call=call, family=family)
    if not found.json:
        told = f"the answer is not JSON: {found.text}" if found.body else "the answer is empty"
    else:
        told = f"the answer holds no {what}"
    said = error_text(mapping_or_empty(found.shown))
    if said and said != "success":
        told = f"{told} (it says: {one_line(said)})"
    return InvalidResponseError(
        told.replace("no a ", "no "),
        status=found.status,
        body=found.shown,
        call=call,
        family=family,
        may_have_been_charged=charges,
    )
