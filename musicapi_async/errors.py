"""The exceptions: what happened, whether money moved, and what to do next, as fields and as text.

```
MusicAPIError
    RequestValidationError (also ValueError)     the client refused the request; nothing was sent
    OutcomeUnknownError                          a paid call was sent, its outcome is unknown; see its cause
    JobKeyConflictError                          the job key was used with another request or account
    JobStoreError                                the job store cannot be used
    FolderError                                  a workflow cannot use its folder
    APIConnectionError                           no usable response came
        ConnectFailedError                       DNS, refused, TLS: nothing was sent
        RequestTimeoutError (also TimeoutError)  no response came in time
        ConnectionLostError                      the connection was lost after sending began
    InvalidResponseError                         the response cannot be understood
    APIStatusError                               the service refused the call, or failed
        BadRequestError                          400 and other 4xx
            StepFailedError                      a step of upload-extend, upload-cover or sample failed
        AuthenticationError                      401
        PermissionDeniedError                    403
            InsufficientCreditsError
            SubscriptionRequiredError
            ContentModerationError
        NotFoundError                            404
        EndpointRetiredError                     410
        RateLimitedError                         429
        ServerError                              5xx
            UpstreamError                        502, 503, 504
    TaskError                                    an error of a task that is paid for
        TaskFailedError                          the generation failed; `refunded` is what the service reports
        TaskTimeoutError (also TimeoutError)     the wait ended; the task is running and is paid for
    DownloadError                                a file could not be fetched or written
    UploaderError                                the client's `uploader` failed; nothing was sent
    WebhookVerificationError                     a webhook must not be trusted
```

`str(error)` says what happened, whether money moved, and what to do next. It never contains the API key or a
webhook secret. Every error can be pickled: the deepest levels of a body that is nested too deeply for pickle
are left out, and a cause that cannot be pickled becomes an `Exception` with its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Required, Unpack

from ._error_base import ErrorFields
from ._error_base import MusicAPIError as MusicAPIError  # noqa: PLC0414 - the others import it from here

if TYPE_CHECKING:
    from .api.results import Clip

TEXT_LIMIT: Final = 500
"""Characters of a reply that an error text repeats; `error.body` has the whole body."""


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
    """The client refused an argument or a request before sending it: nothing was sent, nothing was charged.

    `field` is the name of the argument, `limit` the rule that it breaks, `value` a shortened repr of what was
    given. `violations` has all broken rules of a request.
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
    """A broken rule of a request: the `field`, its `limit`, and `value`, a shortened repr of the argument."""

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

    The client does not repeat it. `__cause__` is the error that ended the call. If the call was recorded,
    `job_key` is set: `client.resolve(job_key, task_id=...)` or `client.resubmit(job_key)` settles it.

    With `check_balance=True`, `balance_before` and `balance_after` are the credits before and after the call.
    They are evidence, not proof, because other calls and refunds change the balance, too.

    If the service named a task in its error, the call was accepted: `task_id` is that task, `task_ids` are
    all tasks that it named (several for a batch), and a call with the same job key returns the task. `steps`
    and `clip_id` are those of a `StepFailedError`: an uploaded clip can still be used.
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
    """The job key was used before, with another request or perhaps by another account. Nothing was sent.

    `difference` has the names of the fields that differ.
    """

    default_hint = (
        "A job key names one call: use another key, or send the request that the key was first used with."
    )

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

    A paid call that cannot be recorded is not sent.
    """

    default_hint = "Repair the job store, or use another one."

    def __init__(self, message: str, *, path: str = "", **fields: Unpack[ErrorFields]) -> None:
        super().__init__(message, **fields)
        self.path = path


class FolderError(MusicAPIError):
    """A workflow cannot use its folder: another run uses it, it is not writable, or it has no job store."""


class APIConnectionError(MusicAPIError):
    """No usable response came. `sent` is True if the request was sent, False if not, None if unknown."""

    default_hint = "Check the network. Free calls may be repeated."
    task_hint = "The task is not affected; wait for it again when the network works."

    def __init__(self, message: str, *, sent: bool | None = None, **fields: Unpack[ErrorFields]) -> None:
        super().__init__(message, **fields)
        self.sent = sent
        self.not_charged: bool = sent is False


class ConnectFailedError(APIConnectionError):
    """No connection was made: DNS, refused, TLS, or no free connection in the pool. Nothing was sent."""

    default_hint = "Check base_url and the network. Nothing was sent, so the call may be repeated."


class RequestTimeoutError(APIConnectionError, TimeoutError):
    """No response came within `attempt_timeout` or `deadline`. `sent` says if the request was sent."""

    default_hint = "Raise attempt_timeout or deadline with client.with_options(...)."


class ConnectionLostError(APIConnectionError):
    """The connection was lost after sending began."""


class InvalidResponseError(MusicAPIError):
    """The response cannot be understood: it is not JSON, too large, or has none of the expected fields.

    `status` is the HTTP status, `body` the decoded body or its first bytes.
    """

    default_hint = "Save `body` for the vendor's support."

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

    `status` is the HTTP status, or the `code` in the body if it contradicts a status of 200. `type` and
    `code` are those of the body, `body` is the decoded body or its text, and `headers` has lower-case names.
    `request_id` is for the vendor's support. `retry_after` is the time to wait in seconds, None if the
    service named none.
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
    """400, 405, 415, 422 and other 4xx. For a paid call it is raised only if the refusal is proven."""

    default_hint = "Fix the request as the message says."


class StepFailedError(BadRequestError):
    """A step of upload-extend, upload-cover or sample failed.

    `failed_step` is the name of the step, `steps` the service's report on all steps. If the upload succeeded,
    `clip_id` is the uploaded clip; use it with extend_upload_music or cover_upload_music.
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
        "Check the API key (without 'Bearer '), that it belongs to this host, and that it may be used "
        "from this machine: keys may be bound to IP addresses."
    )


class PermissionDeniedError(APIStatusError):
    """403: the service refused for the reason in the message."""


class InsufficientCreditsError(PermissionDeniedError):
    """402 or 403: the account has not enough credits."""

    default_hint = "Buy credits or make fewer calls; `await client.credits()` returns the balance."


class SubscriptionRequiredError(PermissionDeniedError):
    """403: the account has no active subscription."""

    default_hint = "Renew the subscription in the dashboard."


class ContentModerationError(PermissionDeniedError):
    """403: the service refused the lyrics or the description (format, copyright, artist names, ...)."""

    default_hint = "Change the lyrics or the description as the message says."


class NotFoundError(APIStatusError):
    """404, or 400 'task not found': the task, clip or path is unknown, or the source clip was deleted."""

    default_hint = (
        "Check the id (that of a task is no clip's), the family, and that the API key belongs to the account "
        "that made the task or clip."
    )

    @property
    def money(self) -> str:
        # A task that is not found may never have been paid for.
        return super().money if self.may_have_been_charged or not self.task_id else ""


class EndpointRetiredError(APIStatusError):
    """410: the service retired the endpoint or task type. `replacement` is what to use instead, if known."""

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
    """429, or Nuro's 403 "QPS limit" and "Queue is full": too many requests. Refused, not charged."""

    default_hint = "Lower the rate of the client (`rate_limit=`), or raise `max_retries`."


class ServerError(APIStatusError):
    """5xx: the service failed."""

    default_hint = "Free calls may be repeated later."


class UpstreamError(ServerError):
    """502, 503, 504: the provider behind the service failed, timed out or is under maintenance."""


class TaskError(MusicAPIError):
    """An error of a task that was accepted and paid for. `task_id` and `family` are always set."""


class TaskFailedError(TaskError):
    """The generation failed.

    `refunded` is True if the service reports that the credits were returned, False if it reports that they
    were not, None if it reports neither; only the balance proves a refund. `clips` has the clips of the last
    reply, `type` is the service's word for the failure, `body` the last reply, `http_status` its status.
    """

    default_hint = "A new create is a new charge."

    def __init__(
        self,
        message: str,
        *,
        type: str | None = None,
        refunded: bool | None = None,
        clips: Sequence[Clip] = (),
        body: Any = None,
        http_status: int | None = None,
        **fields: Unpack[ErrorFields],
    ) -> None:
        super().__init__(message, **fields)
        self.type = type
        self.refunded = refunded
        self.clips: tuple[Clip, ...] = tuple(clips)
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
    """The wait ended before the task. The task is paid for, continues, and can be waited for again.

    `elapsed` is the time waited in seconds, `clips` has the clips of the last reply, `last_body` is the last
    reply (None if there was none), `kind` the operation that made the task.
    """

    def __init__(
        self,
        message: str,
        *,
        elapsed: float = 0.0,
        clips: Sequence[Clip] = (),
        last_body: Any = None,
        kind: str = "",
        **fields: Unpack[ErrorFields],
    ) -> None:
        super().__init__(message, **fields)
        self.elapsed = elapsed
        self.clips: tuple[Clip, ...] = tuple(clips)
        self.last_body = last_body
        self.kind = kind
        if not self.hint:
            kind_argument = f", kind={kind!r}" if kind else ""
            ready = any(clip.is_succeeded for clip in self.clips)
            self.hint: str = (
                f"Resume with client.task({self.family!r}, {self.task_id!r}{kind_argument}).wait()"
                + (', or with .wait(until="first") for the finished clips; ' if ready else "; ")
                + "a new create would be charged again."
            )


class DownloadError(MusicAPIError):
    """A file could not be fetched or written; no incomplete file has its final name.

    `url` is the link, with its signature hidden, `path` the file, `status` the HTTP status, None if there was
    no response.
    """

    default_hint = "The clip is paid for and stays available for a while: download it again."

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
    """The client's `uploader` failed for a local file, or returned no link. No call was sent.

    `field` is the argument with the file, `path` the file. `__cause__` is the exception of the uploader.
    """

    default_hint = "Repeat the call when the uploader works. It must return a link that anyone can fetch."

    def __init__(
        self, message: str, *, field: str = "", path: str = "", **fields: Unpack[ErrorFields]
    ) -> None:
        super().__init__(message, **fields)
        self.not_charged = True
        self.field = field
        self.path = path


class WebhookVerificationError(MusicAPIError):
    """A webhook must not be trusted: a header is missing or malformed, the signature is wrong, the time of
    signing is too old, or the body is not JSON.
    """

    default_hint = "Respond with 400 and ignore the webhook."
