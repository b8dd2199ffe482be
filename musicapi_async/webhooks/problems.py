"""The error tree as HTTP problem documents (RFC 9457) that leak nothing.

An error text is written for the operator of the back end: it names calls, task ids, balances and texts of
the service. None of that is the browser's business. So every sentence here is fixed; only the names and
limits of fields, which are public documentation, come out of the error. The status
says whose fault it is: 4xx for one that the visitor can fix, and not for a missing key or an empty balance.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from .._wire.codec import escaped
from ..errors import (
    APIConnectionError,
    BadRequestError,
    ContentModerationError,
    DownloadError,
    EndpointRetiredError,
    InsufficientCreditsError,
    InvalidResponseError,
    JobKeyConflictError,
    MusicAPIError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestTimeoutError,
    RequestValidationError,
    ServerError,
    TaskFailedError,
    TaskTimeoutError,
    UpstreamError,
    WebhookVerificationError,
)

PROBLEM_TYPE: Final = "application/problem+json"
LONGEST_RETRY_AFTER: Final = 3600
LONGEST_LOGGED: Final = 1000
"""Characters of a path or an error in the log; a server accepts paths of 64 kB."""
PRIVATE_FIELDS: Final = frozenset(
    {"api_key", "base_url", "proxy", "webhooks", "webhook_url", "webhook_secret", "rate_limit", "job_key"}
)
"""Fields that the operator sets: a mistake there is not the visitor's."""


class FieldProblem(msgspec.Struct, frozen=True):
    """A field of the visitor's request and the limit that it breaks."""

    field: str
    limit: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document (RFC 9457). `code` is a stable word for programs, `detail` a sentence for people."""

    status: int
    title: str
    code: str
    detail: str
    errors: tuple[FieldProblem, ...] = ()
    retry_after: int = 0

    @property
    def closes(self) -> bool:
        """True if the body of the request was not read completely: close the connection."""
        return self.status in (408, 413, 415)

    @property
    def body(self) -> bytes:
        """The bytes of the JSON document."""
        return msgspec.json.encode({"type": "about:blank", **msgspec.to_builtins(self)})

    @property
    def headers(self) -> dict[str, str]:
        """The headers: Content-Type, Retry-After if waiting helps, Accept-Encoding for a 415 (RFC 9110)."""
        headers = {"Content-Type": PROBLEM_TYPE, "Cache-Control": "no-store"}
        if self.status == 415:
            headers["Accept-Encoding"] = "identity"
        if self.retry_after:
            headers["Retry-After"] = str(self.retry_after)
        return headers


def _problem(status: int, title: str, code: str, detail: str) -> Problem:
    return Problem(status=status, title=title, code=code, detail=detail)


INTERNAL: Final = _problem(500, "Internal Server Error", "internal", "Something went wrong here.")
INVALID: Final = _problem(422, "Unprocessable Content", "invalid_request", "Some fields break their limits.")
TOO_LARGE: Final = _problem(413, "Content Too Large", "too_large", "The body is too large.")
TOO_SLOW: Final = _problem(408, "Request Timeout", "too_slow", "The body did not arrive in time.")
ENCODED: Final = _problem(
    415, "Unsupported Media Type", "encoded", "The body must be sent without a content encoding."
)
BEING_HANDLED: Final = _problem(
    503, "Service Unavailable", "being_handled", "This delivery is being handled. Please repeat it later."
)
NO_WEBHOOKS: Final = _problem(404, "Not Found", "no_webhooks", "No webhooks are received here.")
NO_TASK: Final = _problem(404, "Not Found", "not_found", "There is no such song, clip or persona.")

_TABLE: Final[tuple[tuple[type[MusicAPIError], Problem], ...]] = (
    (WebhookVerificationError,
     _problem(400, "Bad Request", "webhook_refused", "The delivery could not be verified.")),
    (ContentModerationError,
     _problem(422, "Unprocessable Content", "content_refused",
              "The lyrics or the description were refused. Please change the text.")),
    (RateLimitedError,
     _problem(503, "Service Unavailable", "busy", "Too many songs are being made. Please try again soon.")),
    (InsufficientCreditsError,
     _problem(503, "Service Unavailable", "unavailable", "No songs can be made at present.")),
    (NotFoundError, NO_TASK),
    (EndpointRetiredError, _problem(501, "Not Implemented", "retired", "This is no longer offered.")),
    (BadRequestError,
     _problem(422, "Unprocessable Content", "refused", "The request was refused.")),
    (JobKeyConflictError,
     _problem(409, "Conflict", "conflict", "The same request was made before with other contents.")),
    (OutcomeUnknownError,
     _problem(502, "Bad Gateway", "outcome_unknown",
              "It is not known yet if the song is being made. Please do not send it again.")),
    (TaskFailedError, _problem(502, "Bad Gateway", "generation_failed", "The song could not be made.")),
    (TaskTimeoutError,
     _problem(504, "Gateway Timeout", "still_running", "The song takes longer than usual, and continues.")),
    (DownloadError, _problem(502, "Bad Gateway", "download_failed", "The file could not be fetched.")),
    (RequestTimeoutError,
     _problem(504, "Gateway Timeout", "upstream_timeout", "The music service did not answer in time.")),
    (UpstreamError, _problem(502, "Bad Gateway", "upstream", "The music service has a problem.")),
    (ServerError, _problem(502, "Bad Gateway", "upstream", "The music service has a problem.")),
    (InvalidResponseError, _problem(502, "Bad Gateway", "upstream", "The music service has a problem.")),
    (APIConnectionError,
     _problem(502, "Bad Gateway", "upstream", "The music service cannot be reached.")),
)  # fmt: skip
"""The first row whose class fits; everything else is `INTERNAL`."""


def problem_schema() -> dict[str, Any]:
    """Return the JSON schema of a problem document, for OpenAPI."""
    _, parts = msgspec.json.schema_components([Problem])
    schema = parts["Problem"]
    fields = schema["properties"]
    fields["errors"]["items"] = parts["FieldProblem"]
    return {**schema, "properties": {"type": {"type": "string", "const": "about:blank"}, **fields}}


def loggable(text: object) -> str:
    """Return a text as one line of printable characters, so that visitors cannot forge lines of a log.

    Control and format characters become escapes such as `\\n`; a text of more than 1,000 characters is cut.
    """
    line = str(text)
    return escaped(line if len(line) <= LONGEST_LOGGED else line[:LONGEST_LOGGED] + "...")


def problem_of(error: BaseException) -> Problem:
    """Return the problem document of `error` for a browser. Never raises."""
    if isinstance(error, RequestValidationError):
        return _of_fields(error)
    for kind, problem in _TABLE:
        if isinstance(error, kind):
            wait = getattr(error, "retry_after", None)
            if problem.status == 503 and isinstance(wait, int | float) and math.isfinite(wait) and wait > 0:
                seconds = min(math.ceil(wait), LONGEST_RETRY_AFTER)
                return msgspec.structs.replace(problem, retry_after=seconds)
            return problem
    return INTERNAL


def _of_fields(error: RequestValidationError) -> Problem:
    broken = [(violation.field, violation.limit) for violation in error.violations]
    broken = broken or [(error.field, error.limit)]
    if not all(field and limit and field not in PRIVATE_FIELDS for field, limit in broken):
        return INTERNAL
    return msgspec.structs.replace(INVALID, errors=tuple(FieldProblem(*pair) for pair in broken))
