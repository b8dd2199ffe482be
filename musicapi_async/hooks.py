"""Hooks: functions that are called with each event of a client, for your own logs, metrics and traces.

```python
from musicapi_async import MusicAPI
from musicapi_async.hooks import HookEvent, ResponseEvent, TaskEndedEvent


def watch(event: HookEvent) -> None:
    match event:
        case ResponseEvent(status=429):
            print(event.call, "was refused for the rate of requests")
        case TaskEndedEvent():
            print(event.task_id, event.state, event.seconds)


client = MusicAPI("your-key", hooks=[watch])
```

A hook is a plain function, or another callable, with one argument, the event. It is called in the event loop
during the call, so it should return within a millisecond; pass longer work to a queue or a thread.

- Hooks only observe. The value that a hook returns is ignored. An exception in a hook is logged, once for
  each hook and class of event, and does not affect the call or other hooks.
- The `ResponseEvent` of a paid call follows after its outcome was recorded, so a hook cannot lose a task.
- No event has the API key, a webhook secret, the query of a URL, or a body. Events have task ids and job
  keys, which can be used only with the API key.
- New versions may add fields and classes of events: a hook should ignore those that it does not know.

| event | when |
| --- | --- |
| `RequestEvent` | an attempt is about to be sent |
| `ResponseEvent` | an attempt has ended: with a response of any status, or with an error |
| `RetryEvent` | another attempt follows, after a pause |
| `PollEvent` | a poll of a task has ended or failed; it follows the events of its request and response |
| `CallSettledEvent` | the task of a paid call of unknown outcome was named, so it was carried out |
| `WebhookEvent` | a verified webhook about a task was received |
| `TaskEndedEvent` | a poll or a webhook has reported the end of a task; once for each task |
| `SpendingEvent` | a block of `client.spending()` has ended, and the balance was queried |
| `DownloadEvent` | a file was fetched, or its last try has failed |

All events of one call have the same `call_id`. A call that sends no request, for instance because its job key
has a task already, has no events.

# Traces and metrics

`musicapi_async.contrib.opentelemetry` is a hook that makes a span for each request and each task, and
metrics.

# Logs

The logger is `musicapi_async`. INFO names each accepted task and each repeated call; DEBUG names each
attempt, poll, end of a task and download. Lines have the call, attempt, status, request id, task, job key and
milliseconds, as far as they are known, but never the API key or a webhook secret.

`MUSICAPI_LOG=debug` (or `info`, `warning`) in the environment turns the log on when a client is made. It is
written to standard error, or to the program's own handlers, if it has any.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .plain_data import PlainData

__all__ = [
    "CallEvent",
    "CallSettledEvent",
    "DownloadEvent",
    "Hook",
    "HookEvent",
    "PollEvent",
    "RequestEvent",
    "ResponseEvent",
    "RetryEvent",
    "SpendingEvent",
    "TaskEndedEvent",
    "WebhookEvent",
]


class HookEvent(PlainData, msgspec.Struct, frozen=True, kw_only=True):
    """The base class of all events."""


class CallEvent(HookEvent, frozen=True, kw_only=True):
    """An event of one call to the API.

    Args:
        call: the call, such as 'POST /sonic/create'; for a poll with the id of the task.
        call_id: a number that identifies the call in this process; all events of the call have it.
        method: the HTTP method.
        url: the URL without its query.
        attempt: the number of the attempt, from 1.
        family: the family, such as 'sonic'; '' for `client.request`.
        kind: the operation, such as 'create_music'; for a poll, the operation that made the task; '' if
            unknown.
        task_id: the id of the task that is polled, or that this call made; None if there is none.
        job_key: the job key of a recorded paid call, else None.
    """

    call: str
    call_id: int
    method: str
    url: str
    attempt: int
    family: str = ""
    kind: str = ""
    task_id: str | None = None
    job_key: str | None = None


class RequestEvent(CallEvent, frozen=True, kw_only=True):
    """An attempt is about to be sent: it connects next, and a create may wait for the rate after that.

    Args:
        waited: seconds, on the client's clock, that this attempt has waited: for the rate, after a 429, for
            other requests, or for tasks in flight.
    """

    waited: float = 0.0


class ResponseEvent(CallEvent, frozen=True, kw_only=True):
    """An attempt has ended, with a response of any status or without one.

    Args:
        status: the HTTP status; None if no response came.
        request_id: the id for the service's support, if a header had one.
        seconds: real seconds from the request to its response, without waits for the rate.
        waited: seconds, on the client's clock, that this attempt waited before it was sent.
        error: the failure in one line, also if the response is a 2xx; None if there was none.
        error_type: the class of the error if there was no response, such as 'RequestTimeoutError', or
            'CancelledError' if the caller or the deadline ended the attempt.
        carried_out: True if this attempt brought the task or the result of a call that may charge credits.
            False if the response says that the result is being prepared, or if the outcome is unknown.
        task_ids: all tasks that this call made, several for a batch.
    """

    status: int | None = None
    request_id: str | None = None
    seconds: float = 0.0
    waited: float = 0.0
    error: str | None = None
    error_type: str | None = None
    carried_out: bool = False
    task_ids: tuple[str, ...] = ()


class RetryEvent(CallEvent, frozen=True, kw_only=True):
    """Another attempt follows `attempt`.

    Args:
        reason: the failure: 'not_sent', 'sent_unknown', 'rate_limited', 'server_error', 'invalid_reply' or
            'refused'.
        after: seconds, on the client's clock, until the next attempt.
        status: the HTTP status of the failure; None if no response came.
        request_id: the id for the service's support, if a header had one.
    """

    reason: str
    after: float
    status: int | None = None
    request_id: str | None = None


class CallSettledEvent(HookEvent, frozen=True, kw_only=True):
    """The task of a paid call of unknown outcome was named, by a webhook that proves the job key, or by
    `client.resolve`: the call was carried out. For a batch, once for each of its tasks.

    Args:
        family: the family of the task.
        kind: the operation that made it; '' if unknown.
        task_id: the task.
        job_key: the job key of the call.
    """

    family: str
    kind: str
    task_id: str
    job_key: str


class PollEvent(HookEvent, frozen=True, kw_only=True):
    """A poll of a task has ended.

    Args:
        family: the family of the task.
        kind: the operation that made it; '' if unknown.
        task_id: the task.
        call_id: the `call_id` of the request and the response of this poll.
        state: 'pending', 'running', 'succeeded', 'partial' or 'failed'; '' if the poll failed.
        can_stream: True if a clip has a link to audio.
        progress: the part that is done, from 0 to 1; None if the service does not report it.
        late: seconds, on the client's clock, between the planned time of the poll and its start; None for a
            poll that was not planned (`task.refresh()`).
        error: the reason for which the poll failed, in one line; None if it did not fail.
    """

    family: str
    kind: str
    task_id: str
    call_id: int
    state: str = ""
    can_stream: bool = False
    progress: float | None = None
    late: float | None = None
    error: str | None = None


class WebhookEvent(HookEvent, frozen=True, kw_only=True):
    """A verified webhook about a task was received.

    A webhook that comes twice is one event, unless your code failed to handle the first delivery.

    Args:
        family: the family of the task.
        kind: the operation that made it; '' if unknown.
        task_id: the task.
        event: the name of the webhook, such as 'song.streaming' or 'song.completed'.
        state: the state of the task, as in a `PollEvent`; '' if the body has none.
        can_stream: True if a clip has a link to audio.
    """

    family: str
    kind: str
    task_id: str
    event: str
    state: str = ""
    can_stream: bool = False


class SpendingEvent(HookEvent, frozen=True, kw_only=True):
    """A block of `client.spending()` has ended.

    Args:
        before: the credits at the start of the block.
        after: the credits at its end.
        total: the credits spent; negative if the balance has grown. Other calls of the account count, too.
    """

    before: float
    after: float
    total: float


class TaskEndedEvent(HookEvent, frozen=True, kw_only=True):
    """A poll or a webhook has reported the end of a task.

    Args:
        family: the family of the task.
        kind: the operation that made it; '' if unknown.
        task_id: the task.
        state: 'succeeded', 'partial' or 'failed'.
        clips: the number of clips that succeeded.
        seconds: seconds, on the client's clock, since the create; None if its time is not known.
        error: the reason for which it failed, in one line; None if it did not fail.
        refunded: the service's report on the credits of a failed task, True or False; None if it has none.
    """

    family: str
    kind: str
    task_id: str
    state: str
    clips: int = 0
    seconds: float | None = None
    error: str | None = None
    refunded: bool | None = None


class DownloadEvent(HookEvent, frozen=True, kw_only=True):
    """A file was fetched, or the last try has failed. A file that existed already has no event.

    Args:
        url: the link without its query.
        path: the file; after a failure its name as far as it is known.
        tries: the number of tries.
        seconds: real seconds of all tries, including the pauses.
        size: the size of the file in bytes; 0 after a failure.
        status: the HTTP status of a failure; None if there was no response.
        error: the reason for which it failed, in one line; None if it did not fail.
        error_type: the class of the error; None if there was none.
    """

    url: str
    path: str
    tries: int
    seconds: float
    size: int = 0
    status: int | None = None
    error: str | None = None
    error_type: str | None = None


Hook = Callable[[HookEvent], object]
"""A function that takes one event, whose result is ignored."""
