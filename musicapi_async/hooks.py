"""Hooks: functions that watch what a client does, for logs, metrics and traces of your own.

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

A hook is a plain function, or any object that can be called with one event. It is called in the event loop,
in the middle of the work, so it should return within a millisecond: hand longer work to a queue or a thread.

- Hooks observe. What one returns is ignored; an exception in it is logged, once for each hook and class of
  event, and changes nothing for the call or for the other hooks.
- The `ResponseEvent` of a paid call comes after its outcome is written down, so no hook can cost a task.
- No event holds the key, a webhook secret, a query of an address, or a body. Ids of tasks and job keys are in
  the events; the key of the account is needed to use them.
- A new version may add fields and classes of events: a hook should pass over those that it does not know.

| event | when |
| --- | --- |
| `RequestEvent` | an attempt is about to be sent |
| `ResponseEvent` | an attempt has ended: with a response of any status, or with an error |
| `RetryEvent` | another attempt follows, after a pause |
| `PollEvent` | a poll has said something of a task, or failed; in addition to its request and its response |
| `WebhookEvent` | a webhook has said something of a task |
| `TaskEndedEvent` | a task has ended, by a poll or by a webhook; once for each task |
| `SpendingEvent` | a block of `client.spending()` has ended, and the balance says what it has cost |
| `DownloadEvent` | a file was fetched, or finally not |

All events of one call have the same `call_id`. A call without a response within the client (such as a job key
that is known already) has no events.

# Traces and metrics

`musicapi_async.contrib.opentelemetry` is such a hook: a span for each request and for each task, and metrics.

# Logs

All log lines are of the logger `musicapi_async`. INFO names each accepted task and each repeated call, DEBUG
each attempt, poll, end of a task and download, with what is known: call, attempt, status, request id, task,
job key, milliseconds. The key and webhook secrets are never in a line.

`MUSICAPI_LOG=debug` (or `info`, `warning`) in the environment turns them on without a change of the program,
when its client is made: on standard error, or where the program's own handlers write, if it has any.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .plain_data import PlainData

__all__ = [
    "CallEvent",
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
    """One thing that a client did. The base of all events."""


class CallEvent(HookEvent, frozen=True, kw_only=True):
    """An event of one call to the API.

    Args:
        call: the call, such as 'POST /sonic/create'; of a poll with the id of its task.
        call_id: a number that all events of one call share, and no other call of the process has.
        method: the HTTP method.
        url: the address without its query.
        attempt: the number of the attempt, from 1.
        family: the family, such as 'sonic'; '' for a call that is not typed.
        kind: the operation, such as 'create_music'; of a poll that which made the task; '' if unknown.
        task_id: the task that is polled, or that this call made; None if there is none.
        job_key: the job key of a paid call that is recorded, else None.
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
    """An attempt is about to be sent: it connects, and a create may wait for the rate once more.

    Args:
        waited: seconds of the client's clock that this attempt waited so far: for the rate, after a refusal,
            for other requests, or for tasks in flight.
    """

    waited: float = 0.0


class ResponseEvent(CallEvent, frozen=True, kw_only=True):
    """An attempt has ended, with a response of any status or without one.

    Args:
        status: the HTTP status; None if no response came.
        request_id: the id for the service's support, if a header had one.
        seconds: real seconds from the request to its response, without waits for the rate.
        waited: seconds of the client's clock that this attempt waited before it was sent.
        error: the words of a failure in one line, also of one in a 2xx; None if there was none.
        error_type: the class of the error that came instead of a response, such as 'RequestTimeoutError', or
            'CancelledError' if the caller or the deadline ended it.
        carried_out: True if a call that may cost credits has its task or its result by this attempt. False
            for each response that says only that the result is being prepared, and where the outcome is
            unknown.
        task_ids: all tasks that this call made: of a batch several, else that of `task_id`.
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
        after: seconds of the client's clock until it follows.
        status: the HTTP status of the failure; None if no response came.
        request_id: the id for the service's support, if a header had one.
    """

    reason: str
    after: float
    status: int | None = None
    request_id: str | None = None


class PollEvent(HookEvent, frozen=True, kw_only=True):
    """A poll of a task, judged.

    Args:
        family: the family of the task.
        kind: the operation that made it; '' if unknown.
        task_id: the task.
        call_id: that of the request and the response of this poll.
        state: 'pending', 'running', 'succeeded', 'partial' or 'failed'; '' if the poll failed.
        can_stream: True once a clip has a link that can be heard.
        progress: the share done, from 0 to 1, where the service says it.
        late: seconds of the client's clock between the time for which the poll was planned and its begin;
            None for one that was not planned (`task.refresh()`).
        error: why the poll failed, in one line; None if it did not.
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
    """A webhook that may be believed has said something of a task.

    Of one that comes twice the first counts, unless the view failed to handle it.

    Args:
        family: the family of the task.
        kind: the operation that made it; '' if unknown.
        task_id: the task.
        event: the name of the webhook, such as 'song.streaming' or 'song.completed'.
        state: that of the task, as in a `PollEvent`; '' if the body says none.
        can_stream: True once a clip has a link that can be heard.
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
        before: credits of the account at its begin.
        after: credits at its end.
        total: credits that are gone, below zero if some came back; other calls of the account count, too.
    """

    before: float
    after: float
    total: float


class TaskEndedEvent(HookEvent, frozen=True, kw_only=True):
    """A task has ended, and a poll or a webhook has said so.

    Args:
        family: the family of the task.
        kind: the operation that made it; '' if unknown.
        task_id: the task.
        state: 'succeeded', 'partial' or 'failed'.
        clips: the number of clips that succeeded.
        seconds: seconds of the client's clock since the submit; None if its time is not known.
        error: why it failed, in one line; None if it did not.
        refunded: True or False if the service said so of a failed task, else None.
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
    """A file was fetched, or the last try has failed. A file that was there already has no event.

    Args:
        url: the link without its query.
        path: the file; of a failure its name as far as it is known.
        tries: the number of tries.
        seconds: real seconds of all tries, pauses included.
        size: bytes of the file; 0 of a failure.
        status: the HTTP status of a failure, if there was one.
        error: why it failed, in one line; None if it did not.
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
