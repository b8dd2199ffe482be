"""The exception tree, on one screen. Fields first, text second; every error pickles.

```
MusicAPIError
    RequestValidationError (also ValueError)     refused here, nothing was sent
    OutcomeUnknownError                          a paid call whose outcome is unknown; its cause says why
    JobKeyConflictError                          the same job key with another request or account
    JobStoreError                                the job store cannot be used
    FolderError                                  a workflow cannot use its folder, such as one in use
    APIConnectionError
        ConnectFailedError                       DNS, refused, TLS: nothing was sent
        RequestTimeoutError (also TimeoutError)  no response in time
        ConnectionLostError                      dropped after sending began
    InvalidResponseError                         a response that cannot be understood
    APIStatusError                               the service refused, or failed
        BadRequestError
            StepFailedError                      one step of upload-extend, upload-cover or sample
        AuthenticationError
        PermissionDeniedError
            InsufficientCreditsError
            SubscriptionRequiredError
            ContentModerationError
        NotFoundError
        EndpointRetiredError
        RateLimitedError
        ServerError
            UpstreamError
    TaskError
        TaskFailedError                          the generation failed; `refunded` is what the service reports
        TaskTimeoutError (also TimeoutError)     the wait ended; the task is running and is paid for
    DownloadError
    WebhookVerificationError
```

`str(error)` says three things: what happened, whether money moved, and what to do next. No text ever holds
the API key or a webhook secret. Every error pickles: of a body that is nested deeper than pickle allows the
deepest levels are left out, and a cause that does not pickle becomes an `Exception` with its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Required, Unpack

from ._error_base import ErrorFields
from ._error_base import MusicAPIError as MusicAPIError  # noqa: PLC0414 - the others import it from here

TEXT_LIMIT: Final = 500
"""Characters of a reply that an error text repeats; the whole body stays on the error."""


class StatusFields(ErrorFields, total=False):
    """Fields that every error of a status takes; see `APIStatusError`."""

    status: Required[int]
    type: str | None
    code: str | int | None
    body: Any
    headers: Mapping[str, str] | None
    request_id: str | None
    retry_after: float | None


class RequestValidationError(MusicAPIError, ValueError):
    """A request that the API would refuse, refused here: nothing was sent, nothing was charged.

    `field` is the argument, `limit` the rule that it breaks, `value` a short picture of what was given;
    `violations` lists all of them when there are several.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        limit: str = "",
        value: str = "",
        violations: Sequence[Violation] = (),
        call: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, call=call, hint=hint)
        self.field = field
        self.limit = limit
        self.value = value
        self.violations: tuple[Violation, ...] = tuple(violations)

    @property
    def money(self) -> str:
        return "Nothing was sent, nothing was charged."


class Violation:
    """One rule that a request breaks: `field`, `limit`, and `value`, a short picture of what was given."""

    __slots__ = ("field", "limit", "value")

    def __init__(self, field: str, limit: str, value: str) -> None:
        self.field: str = field
        self.limit: str = limit
        self.value: str = value

    def __str__(self) -> str:
        return f"{self.field}: {self.limit}" + (f", got {self.value}" if self.value else "")

    def __repr__(self) -> str:
        return f"Violation({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Violation) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


class OutcomeUnknownError(MusicAPIError):
    """A paid call was sent and its outcome is unknown: it may have been carried out and charged.

    It is never repeated for you. `__cause__` is the precise error. `job_key` is set when the call was
    recorded: `client.resolve(job_key, task_id=...)` and `client.resubmit(job_key)` settle it.
    `balance_before` and `balance_after` are credits, with `check_balance=True`: evidence, not proof, because
    other calls and refunds move the balance, too. `task_id` is set when the service named a task in an error:
    then the call was accepted, and the same job key gives the task; `task_ids` are all that it named, of a
    batch several. `steps` and `clip_id` are those of a `StepFailedError`: an uploaded clip can still be used.
    """

    default_hint = (
        "Do not simply call again: first compare client.credits() with the balance before, "
        "and search the dashboard for the result."
    )

    def __init__(
        self,
        message: str,
        *,
        job_key: str | None = None,
        balance_before: float | None = None,
        balance_after: float | None = None,
        steps: Mapping[str, Any] | None = None,
        clip_id: str | None = None,
        task_ids: Sequence[str] = (),
        **fields: Unpack[ErrorFields],
    ) -> None:
        fields.setdefault("may_have_been_charged", True)
        super().__init__(message, **fields)
        self.job_key = job_key
        self.balance_before = balance_before
        self.balance_after = balance_after
        self.steps: dict[str, Any] = dict(steps or {})
        self.clip_id = clip_id
        self.task_ids: tuple[str, ...] = tuple(task_ids) or tuple(filter(None, (self.task_id,)))


class JobKeyConflictError(MusicAPIError):
    """A job key that was used before with another request, or perhaps by another account.

    `difference` names the fields that differ.
    """

    default_hint = "Use another key, or send the request that the key was first used with."

    def __init__(
        self,
        message: str,
        *,
        job_key: str = "",
        difference: Sequence[str] = (),
        **fields: Unpack[ErrorFields],
    ) -> None:
        super().__init__(message, **fields)
        self.job_key = job_key
        self.difference: tuple[str, ...] = tuple(difference)

    @property
    def money(self) -> str:
        return "Nothing was sent, nothing was charged."


class JobStoreError(MusicAPIError):
    """The job store cannot be read or written. `path` is its file, or its address without a password.

    Raised before a call is sent, so that nothing is paid for that could not be recorded.
    """

    default_hint = "Repair it, or use another store."

    def __init__(self, message: str, *, path: str = "", **fields: Unpack[ErrorFields]) -> None:
        super().__init__(message, **fields)
        self.path = path


class FolderError(MusicAPIError):
    """A workflow cannot use its folder: it is held by another run, not writable, or without its job store."""


class APIConnectionError(MusicAPIError):
    """No usable response came. `sent` is True if the request was sent, False if not, None if unknown."""

    default_hint = "Check the network; free calls may simply be repeated."
    task_hint = "The task is not affected; wait for it again once the network is back."

    def __init__(self, message: str, *, sent: bool | None = None, **fields: Unpack[ErrorFields]) -> None:
        super().__init__(message, **fields)
        self.sent = sent
        self.not_charged: bool = sent is False


class ConnectFailedError(APIConnectionError):
    """No connection: DNS, refused, TLS, or no free slot in the pool in time. Nothing was sent."""

    default_hint = "Check base_url and the network. Nothing was sent, so the call may be repeated."


class RequestTimeoutError(APIConnectionError, TimeoutError):
    """No response within the time allowed."""

    default_hint = "Raise attempt_timeout or deadline with client.with_options(...)."


class ConnectionLostError(APIConnectionError):
    """The connection dropped after sending began."""


class InvalidResponseError(MusicAPIError):
    """A response that cannot be understood: not JSON, too large, or without the one field that matters.

    `status` is the HTTP status, `body` the decoded body or its first bytes.
    """

    default_hint = "Keep `body` for the vendor's support."

    def __init__(
        self,
        message: str,
        *,
        status: int = 200,
        body: Any = None,
        **fields: Unpack[ErrorFields],
    ) -> None:
        super().__init__(message, **fields)
        self.status = status
        self.body = body


class APIStatusError(MusicAPIError):
    """The service responded with an error.

    `status` is the HTTP status (or the `code` of a body that contradicts a 200), `type` and `code` the body's
    own words, `body` the parsed or raw body, `headers` (lower-case names), `request_id` for support,
    `retry_after` the seconds to wait, if the service named them.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str | None = None,
        code: str | int | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        **fields: Unpack[ErrorFields],
    ) -> None:
        super().__init__(message, **fields)
        self.status = status
        self.type = type
        self.code = code
        self.body = body
        self.headers: dict[str, str] = dict(headers or {})
        self.request_id = request_id
        self.retry_after = retry_after

    def _event(self) -> str:
        facts = [f"HTTP {self.status}"]
        if self.type:
            facts.append(f"type {self.type}")
        if self.request_id:
            facts.append(f"request id {self.request_id}")
        return f"{super()._event().rstrip('.')} ({', '.join(facts)})"


class BadRequestError(APIStatusError):
    """400, 405, 415, 422 and other 4xx. Of a paid call it is raised only where that proves a refusal."""

    default_hint = "Fix the request; the text names the field."


class StepFailedError(BadRequestError):
    """A step of upload-extend, upload-cover or sample failed.

    `failed_step` is its name, `steps` the report of the service on all steps, `clip_id` the uploaded clip if
    that step succeeded: it can still be used with extend_upload_music or cover_upload_music.
    """

    default_hint = (
        "If `clip_id` is set, the upload worked: continue with that clip instead of uploading again."
    )

    def __init__(
        self,
        message: str,
        *,
        failed_step: str | None = None,
        steps: Mapping[str, Any] | None = None,
        clip_id: str | None = None,
        **fields: Unpack[StatusFields],
    ) -> None:
        super().__init__(message, **fields)
        self.failed_step = failed_step
        self.steps: dict[str, Any] = dict(steps or {})
        self.clip_id = clip_id


class AuthenticationError(APIStatusError):
    """401: the key is missing, malformed, wrong, expired, or bound to other IP addresses."""

    default_hint = (
        "Check MUSICAPI_KEY (without 'Bearer '), that the key belongs to this host, and that it may be used "
        "from this machine: keys may be bound to IP addresses."
    )


class PermissionDeniedError(APIStatusError):
    """403: refused for the reason in the text."""


class InsufficientCreditsError(PermissionDeniedError):
    """402 or 403: not enough credits."""

    default_hint = "Buy credits or lower the number of calls; `await client.credits()` shows the balance."


class SubscriptionRequiredError(PermissionDeniedError):
    """403: no active subscription."""

    default_hint = "Renew the subscription in the dashboard."


class ContentModerationError(PermissionDeniedError):
    """403: the lyrics or the description were refused (format, copyright, artist names, ...)."""

    default_hint = "Change the text that the message quotes."


class NotFoundError(APIStatusError):
    """404, or 400 'task not found': unknown task, clip or path; purged source."""

    default_hint = "Check the id, the family, and that the key belongs to the account that made it."

    @property
    def money(self) -> str:
        # A task that is not found may never have been paid for.
        return super().money if self.may_have_been_charged or not self.task_id else ""


class EndpointRetiredError(APIStatusError):
    """410: the endpoint or task type was retired. `replacement` names what to use instead, if known."""

    def __init__(
        self,
        message: str,
        *,
        replacement: str | None = None,
        **fields: Unpack[StatusFields],
    ) -> None:
        super().__init__(message, **fields)
        self.replacement = replacement
        if replacement:
            self.hint: str = f"Use {replacement} instead."


class RateLimitedError(APIStatusError):
    """429, or Nuro's 403 "QPS limit" and "Queue is full": too many requests; refused, not charged."""

    default_hint = "Lower the rate of the client (`rate_limit=`), or raise `max_retries`."


class ServerError(APIStatusError):
    """5xx: the service failed."""

    default_hint = "Free calls may be repeated later."


class UpstreamError(ServerError):
    """502, 503, 504: the provider behind the service failed, timed out or is under maintenance."""


class TaskError(MusicAPIError):
    """Something about a task that was accepted and paid for. `task_id` and `family` are always set."""


class TaskFailedError(TaskError):
    """The generation failed.

    `refunded` is the service's report on the credits (None: it says nothing; only the balance proves a
    refund), `clips` the clips as far as they came, `type` the service's word, `body` the last reply.
    """

    default_hint = "A new create is a new charge."

    def __init__(
        self,
        message: str,
        *,
        type: str | None = None,
        refunded: bool | None = None,
        clips: Sequence[Any] = (),
        body: Any = None,
        http_status: int | None = None,
        **fields: Unpack[ErrorFields],
    ) -> None:
        super().__init__(message, **fields)
        self.type = type
        self.refunded = refunded
        self.clips: tuple[Any, ...] = tuple(clips)
        self.body = body
        self.http_status = http_status

    def _event(self) -> str:
        return f"Task {self.task_id} failed: {self.message}"

    @property
    def money(self) -> str:
        if self.refunded:
            return "The service reports that the credits were returned."
        if self.refunded is None:
            return "The service does not say if the credits were returned; compare client.credits()."
        return "The service reports that the credits were not returned."


class TaskTimeoutError(TaskError, TimeoutError):
    """The wait ended before the task. It was paid for, may still finish, and can be waited for again.

    `elapsed` is the time waited in seconds, `clips` the clips as far as they came, `last_body` the last reply
    (None if there was none).
    """

    def __init__(
        self,
        message: str,
        *,
        elapsed: float = 0.0,
        clips: Sequence[Any] = (),
        last_body: Any = None,
        kind: str = "",
        **fields: Unpack[ErrorFields],
    ) -> None:
        super().__init__(message, **fields)
        self.elapsed = elapsed
        self.clips: tuple[Any, ...] = tuple(clips)
        self.last_body = last_body
        self.kind = kind
        if not self.hint:
            kind_argument = f", kind={kind!r}" if kind else ""
            ready = any(clip.is_succeeded for clip in self.clips)
            self.hint: str = (
                f"Resume with client.task({self.family!r}, {self.task_id!r}{kind_argument}).wait()"
                + (', or with .wait(until="first") for what is ready; ' if ready else "; ")
                + "a new create would be paid for again."
            )


class DownloadError(MusicAPIError):
    """A file could not be fetched or written; there is none under the final name. `url`, `path`, `status`."""

    default_hint = "The clip is paid for and stays available for a while: download again."

    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        path: str = "",
        status: int | None = None,
        **fields: Unpack[ErrorFields],
    ) -> None:
        super().__init__(message, **fields)
        self.url = url
        self.path = path
        self.status = status

    @property
    def money(self) -> str:
        return ""


class UploaderError(MusicAPIError):
    """The client's `uploader` failed for a local file, or returned no link: no call was sent.

    `field` is the argument that held the file, `path` the file. The exception of the uploader is the cause.
    """

    default_hint = "Repeat the call once the uploader works: it returns a link that anyone can fetch."

    def __init__(
        self, message: str, *, field: str = "", path: str = "", **fields: Unpack[ErrorFields]
    ) -> None:
        super().__init__(message, **fields)
        self.not_charged = True
        self.field = field
        self.path = path


class WebhookVerificationError(MusicAPIError):
    """A webhook that must not be trusted: header missing or malformed, bad signature, stale, not JSON."""

    default_hint = "Respond with 400 and do not act on it."
