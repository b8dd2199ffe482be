"""The response to a call: its body, its words, and the error in it.

Statuses and words are those of the vendor's error page. Results are read in `call_reply` and `poll_response`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from ..api.families import FAMILIES, family_in
from ..api.json_values import JSON, clip_id_in, id_in, mapping_or_empty, text_or_none
from ..api.response_info import ResponseInfo
from ..errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContentModerationError,
    EndpointRetiredError,
    InsufficientCreditsError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    StatusFields,
    StepFailedError,
    SubscriptionRequiredError,
    UpstreamError,
)
from .charge_verdict import outcome_of, task_id_of_error
from .codec import MalformedBody, Repair, decode, one_line
from .redaction import NOTHING_KNOWN, Redactor
from .retry import RETRY_AFTER_CAP, AttemptFailure, parse_retry_after

REQUEST_ID_HEADERS: Final = ("x-request-id", "x-vercel-id", "cf-ray")
"""Headers that may hold an id for support, best first; the vendor's own SDK reads the same."""

BEGINNING: Final = 64 * 1024
"""Bytes of a body that are searched for the text of an error."""

MOST_VALUES: Final = 20_000
"""Values of a body that an error has at most, see `Redactor.copy`; no real error has so many. A body of 16 MB
may have five million, and the search for secrets in them would block the event loop for a minute."""
TEXT_KEYS: Final = ("error", "message", "detail")
"""Keys that may hold the text of an error, best first."""

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


class Waited(Protocol):
    """The waits of a call before it was sent."""

    def seconds(self) -> float:
        """Return the seconds waited."""
        ...


class Response:
    """An HTTP response with its body decoded.

    `body` is the JSON value as it came, or the first characters with secrets hidden if `json` is False;
    `fields` the body if it is a JSON object, else an empty one. `headers` have lower-case names, or find a
    name in any case as aiohttp's do. `ok` is HTTP 2xx, also if the body says otherwise; `code` the body's own
    code as a number if it is one (`404`, `"404"`), `type` its type in lower case or nothing. `retry_after`
    are the seconds to wait that the service names, if it does. `attempts` counts the requests that were made
    until this response came, `waits` are those of its call if they were noted, `elapsed` are the real seconds
    that the last attempt took. `redactor` hides secrets in texts.
    """

    # The rules of a poll read these several times, so they are found once and are no properties.
    __slots__ = (
        "attempts",
        "body",
        "code",
        "elapsed",
        "fields",
        "headers",
        "json",
        "ok",
        "redactor",
        "retry_after",
        "status",
        "type",
        "waits",
    )

    def __init__(  # noqa: PLR0917 - by position: keywords make a call of a class twice as long
        self,
        status: int,
        headers: Mapping[str, str],
        body: JSON,
        json: bool,
        redactor: Redactor = NOTHING_KNOWN,
        retry_after: float | None = None,
    ) -> None:
        self.status: int = status
        self.headers: Mapping[str, str] = headers
        self.body: JSON = body
        self.json: bool = json
        self.retry_after: float | None = retry_after
        self.attempts: int = 1
        self.elapsed: float = 0.0
        self.waits: Waited | None = None
        self.redactor: Redactor = redactor
        self.ok: bool = 200 <= status < 300
        self.fields: dict[str, JSON] = mapping_or_empty(body)
        code = self.fields.get("code")
        self.code: int | None = code if code is None or type(code) is int else number(code)
        word = self.fields.get("type")
        self.type: str = word.strip().lower() if isinstance(word, str) else ""

    @property
    def request_id(self) -> str | None:
        """The id of the request for the vendor's support, if a header has one."""
        return request_id_in(self.headers)

    def info(self) -> ResponseInfo:
        """Return the facts about the response for the caller, with secrets hidden."""
        headers = self.redactor.headers(self.headers)
        return ResponseInfo(
            status=self.status,
            headers=headers,
            request_id=request_id_in(headers),
            attempts=self.attempts,
            waited=0.0 if self.waits is None else self.waits.seconds(),
            elapsed=self.elapsed,
        )

    @property
    def is_object(self) -> bool:
        """True if the body is a JSON object."""
        return self.json and isinstance(self.body, dict)

    @property
    def redacted(self) -> JSON:
        """A copy of the body with secrets hidden, for errors; at most `MOST_VALUES` values of it."""
        return self.redactor.copy(self.body, MOST_VALUES)

    @property
    def text(self) -> str:
        """The service's words about an error, in one line with secrets hidden: for display."""
        return one_line(self._words_of(self.redacted))

    @property
    def words(self) -> str:
        """The same words as they came, in lower case: for judging."""
        return one_line(self._words_of(self.body)).lower()

    def _words_of(self, body: JSON) -> str:
        if (text := error_text(mapping_or_empty(body))) is not None:
            return text
        if not self.json and body:
            text = str(body)
            page = text.lstrip().lower().startswith(("<!doctype", "<html", "<head", "<?xml"))
            return "a page of HTML" if page else text
        if body not in (None, "", {}, []):
            return msgspec.json.encode(body).decode()
        from http import HTTPStatus  # only an empty error needs it

        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return f"HTTP {self.status}"

    @property
    def not_ready(self) -> bool:
        """True for a 2xx that only says 'call again': HTTP 202, `type` 'not_ready', or `code` 202."""
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
        redactor: hides secrets in its texts.
        now: gives the Unix time that a date in Retry-After counts from.
        repaired: is called with each kind of repair of the body.
    """
    header = headers.get("retry-after")
    wait = None if header is None else parse_retry_after(header, math.inf if now is None else now())
    try:
        return Response(status, headers, decode(raw, repaired), True, redactor, wait)
    except MalformedBody:
        return Response(status, headers, excerpt(raw, redactor), False, redactor, wait)


def request_id_in(headers: Mapping[str, str]) -> str | None:
    """Return the first header that may be an id for support."""
    return next(filter(None, map(headers.get, REQUEST_ID_HEADERS)), None)


def excerpt(raw: bytes, redactor: Redactor) -> str:
    """Return the first characters of a body, fit for an error text and a log line."""
    return redactor.line(raw[:BEGINNING].decode(errors="replace"))


def number(value: JSON) -> int | None:
    """Return a whole number, also from text, or None."""
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 10:
        return int(value)
    return None


def error_text(fields: Mapping[str, JSON]) -> str | None:
    """Return the text of an error: `error`, `message` or `detail`, else the failed step's own."""
    for key in TEXT_KEYS:
        found = text_in(fields.get(key))
        if found:
            return found
    step = mapping_or_empty(mapping_or_empty(fields.get("steps")).get(failed_step(fields) or ""))
    return text_in(step.get("error")) or text_in(step.get("message"))


def text_in(value: JSON) -> str | None:
    """Return a text that is not blank, of an object its `message`, or the whole as JSON; else None."""
    if isinstance(value, dict) and value:
        return text_or_none(value.get("message")) or msgspec.json.encode(value).decode()
    return value if isinstance(value, str) and value.strip() else None


def failed_step(fields: Mapping[str, JSON]) -> str | None:
    """Return the step that a reply of upload-extend, upload-cover or sample reports as failed."""
    named = text_or_none(fields.get("failed_step"))
    if named or task_id_in(fields):
        return named
    steps = mapping_or_empty(fields.get("steps"))
    return next(
        (name for name, step in steps.items() if mapping_or_empty(step).get("success") is False), None
    )


def task_id_in(fields: Mapping[str, JSON]) -> str | None:
    """Return the task id of a submit reply: `task_id`, else `data.task_id`, else `data` if it is one word."""
    data = fields.get("data")
    word = data if isinstance(data, int) or (isinstance(data, str) and len(data.split()) == 1) else None
    candidates = (fields.get("task_id"), mapping_or_empty(data).get("task_id"), word)
    return next(filter(None, map(id_in, candidates)), None)


def error_of(
    response: Response,
    *,
    call: str,
    task_id: str | None = None,
    family: str | None = None,
    replacement: str | None = None,
) -> APIStatusError:
    """Return the error that a response holds.

    A `code` of 400 or more in a 2xx is its status. What the response to a POST proves about money is on the
    error, as is the id of a task that such a response names.

    Args:
        response: the response.
        call: method and path, such as `POST /sonic/create`.
        task_id: the task that the call was about, if any.
        family: the family of the call, if it is known.
        replacement: what to use instead if the endpoint is retired.
    """
    code = response.code
    status = code if response.ok and code is not None and code >= 400 else response.status
    redacted, headers = response.redacted, response.redactor.headers(response.headers)
    body = mapping_or_empty(redacted)
    word = text_or_none(body.get("type")) or (None if body.get("type") is None else str(body["type"]))
    kind = _class(status, response.type, response.words)
    outcome = outcome_of(response, call, rate_limited=kind is RateLimitedError) if is_paid(call) else None
    fields = StatusFields(
        status=status,
        type=word,
        code=_code(body.get("code")),
        body=redacted,
        headers=headers,
        request_id=request_id_in(headers),
        retry_after=response.retry_after,
        call=call,
        task_id=task_id if outcome is None else task_id or task_id_of_error(response.fields, call),
        family=family,
        may_have_been_charged=outcome is not None and not outcome.is_free,
        not_charged=outcome is not None and outcome.is_free,
    )
    step = failed_step(response.fields)
    # A poll that comes too early says nothing about the steps of its task, though its body may repeat them.
    if step is not None and (outcome is not None or kind is not RateLimitedError):
        return _step_failed(response, step, fields)
    if kind is EndpointRetiredError:
        known = FAMILIES.get(family or family_in(call))
        replacement = replacement or (known.replacement if known else None)
        return EndpointRetiredError(response.text, replacement=replacement, **fields)
    if kind is RateLimitedError and (response.retry_after or 0.0) > RETRY_AFTER_CAP:
        fields["hint"] = f"The service says to wait {response.retry_after:.0f} s: call again after that."
    return kind(response.text, **fields)


def is_paid(call: str) -> bool:
    """Return True for a call that may charge, or might be repeated at a cost: any but a GET."""
    return not call.startswith("GET ")


def _code(value: JSON) -> str | int | None:
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def _step_failed(response: Response, step: str, fields: StatusFields) -> StepFailedError:
    upload = mapping_or_empty(mapping_or_empty(response.fields.get("steps")).get("upload"))
    steps = mapping_or_empty(mapping_or_empty(fields.get("body")).get("steps"))
    step = response.redactor.name(step)
    text = response.text
    reason = text_in(mapping_or_empty(steps.get(step)).get("error"))
    if reason and reason not in text:
        text = one_line(f"{text}: {reason}")
    return StepFailedError(text, failed_step=step, steps=steps, clip_id=clip_id_in(upload), **fields)


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


def failure_of(response: Response) -> AttemptFailure | None:
    """Return how a response failed, for the decision about another attempt; None if it did not."""
    status, code = response.status, response.code
    if status == 202:
        return None  # taken, or not ready: the same call would only add to it
    if response.ok:
        if not response.json:
            return AttemptFailure.INVALID_REPLY
        if code is None or code < 400:
            return None
        status = code
    kind = _class(status, response.type, response.words)
    if kind is RateLimitedError:
        return AttemptFailure.RATE_LIMITED
    if issubclass(kind, ServerError):
        return AttemptFailure.SERVER_ERROR
    return AttemptFailure.REFUSED
