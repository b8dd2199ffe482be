"""OpenTelemetry, with the extra `[opentelemetry]`: `pip install -e '.[opentelemetry]'` in a clone.

```python
from musicapi_async import MusicAPI
from musicapi_async.contrib.opentelemetry import OpenTelemetryHook

client = MusicAPI("your-key", hooks=OpenTelemetryHook())
```

Spans and metrics go to the global providers, or to those that are passed. Without an OpenTelemetry SDK
nothing is recorded.

# Spans

- Each attempt to send a request is a span of kind CLIENT with the attributes of the HTTP conventions:
  `http.request.method`, `url.full` without a query, `server.address`, `server.port`,
  `http.response.status_code`, `error.type`, `http.request.resend_count`. Its name is the call, such as
  `POST /sonic/create`, with `{task_id}` in the place of an id; for `client.request` it is the method. Each
  fetched file is a CLIENT span, too, with `musicapi.tries`.
- Each task that this client submitted is a span of kind INTERNAL, from the create to the end:
  `musicapi create_music`, with the events `pending` (accepted), `running` and `streaming` (when a poll or a
  webhook first reported it), and `ended`. It is a child of the span in which it was submitted; the requests
  of its polls are its children. `hook.close()` ends the spans of unfinished tasks.

Attributes of this package begin with `musicapi.`: `call`, `family`, `kind`, `task_id`, `job_key`,
`request_id`, `state`, `refunded`.

# Metrics

| name | what |
| --- | --- |
| `http.client.request.duration` | seconds of each attempt, without waits for the rate |
| `musicapi.rate_wait.duration` | seconds that an attempt waited before it was sent |
| `musicapi.retries` | attempts that were followed by another, by `musicapi.reason` |
| `musicapi.tasks.in_flight` | tasks that were submitted and have not ended |
| `musicapi.task.duration` | seconds from the create to the end, by `musicapi.state` |
| `musicapi.poll.lateness` | seconds between the planned time of a poll and its start |
| `musicapi.download.size` | bytes of each fetched file |
| `musicapi.charged_calls` | calls that charge credits and were carried out, by `musicapi.kind` |
| `musicapi.credits.charged` | their cost by `musicapi.kind`, for the operations in `prices` |
| `musicapi.credits.refunded` | the part of it that the service reports as returned, for failed tasks |
| `musicapi.credits.measured` | the cost of blocks of `client.spending()`, by the balance of the account |

Replies of the service have no prices, and prices change: pass those of your account, as in
`OpenTelemetryHook(prices={"create_music": 20})`. A call that returned a recorded result of its job key is not
counted. A call of unknown outcome is counted when a webhook, or `client.resolve`, names its task; each task
of a batch is then a call. A call that the service repeats for free, such as a second one for the lyrics of a
clip, is counted.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

try:
    from opentelemetry import context, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, MeterProvider, get_meter
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.util.types import AttributeValue
except ModuleNotFoundError as missing:
    from ..extras import missing_extra

    raise missing_extra(
        "musicapi_async.contrib.opentelemetry", "opentelemetry", str(missing.name)
    ) from missing

from .._version import __version__
from ..api.families import FAMILIES
from ..api.suggestions import check_names
from ..api.task import TaskKey, TaskRef
from ..arguments import check_credits, check_parts
from ..hooks import (
    CallEvent,
    CallSettledEvent,
    DownloadEvent,
    HookEvent,
    PollEvent,
    RequestEvent,
    ResponseEvent,
    RetryEvent,
    SpendingEvent,
    TaskEndedEvent,
    WebhookEvent,
)

__all__ = ["OpenTelemetryHook"]

SCOPE: Final = "musicapi_async"
SCHEMA: Final = "https://opentelemetry.io/schemas/1.23.0"
"""The version in which the HTTP conventions became stable."""
MOST_TASKS: Final = 10_000
"""Tasks whose spans are open at most; the oldest is ended for one more, with the state that is known."""
MOST_EARLY: Final = 1000
"""Ends of tasks without a span that are remembered, as a create may still get its response."""
CALL_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Boundaries that the HTTP conventions name for durations of requests."""
TASK_BUCKETS: Final = (10, 20, 30, 45, 60, 90, 120, 180, 240, 300, 450, 600, 900)
"""Boundaries for tasks, which take one to four minutes."""

_Attributes = dict[str, AttributeValue]


class _OpenTask:
    """The span of a task that has not ended, and the stages that it has had."""

    def __init__(self, span: Span) -> None:
        self.span: Final = span
        self.context: Final = trace.set_span_in_context(span)
        self.stages: Final[set[str]] = set()

    def reach(self, stage: str) -> None:
        """Add the event of a stage, once."""
        if stage not in self.stages:
            self.stages.add(stage)
            self.span.add_event(stage)


class OpenTelemetryHook:
    """A hook that makes spans and metrics of the events of clients; see the description of the module.

    Several clients may share one, in several threads. It exports nothing itself; use a batch processor of the
    OpenTelemetry SDK, so that no export runs in the event loop.

    Args:
        tracer_provider: the provider for the spans; by default the global one.
        meter_provider: the provider for the metrics; by default the global one.
        prices: the prices in credits by operation, such as `{"create_music": 20, "lyrics": 2}`; for
            `create_batch` the price of one item.

    Raises:
        RequestValidationError: a price is no number, or names no operation.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        prices: Mapping[str, float] | None = None,
    ) -> None:
        check_parts(tracer_provider=tracer_provider, meter_provider=meter_provider)
        self._prices: Final = _checked({} if prices is None else prices)
        self._tracer: Final = trace.get_tracer(SCOPE, __version__, tracer_provider, SCHEMA)
        meter = get_meter(SCOPE, __version__, meter_provider, SCHEMA)
        self._requests: Final = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=CALL_BUCKETS,
        )
        self._waits: Final = meter.create_histogram(
            "musicapi.rate_wait.duration",
            "s",
            "Time that an attempt waited before it was sent.",
            explicit_bucket_boundaries_advisory=CALL_BUCKETS,
        )
        self._retries: Final = meter.create_counter(
            "musicapi.retries", "{retry}", "Attempts that were followed by another."
        )
        self._active: Final = meter.create_up_down_counter(
            "musicapi.tasks.in_flight", "{task}", "Tasks that were submitted and have not ended."
        )
        self._tasks: Final = meter.create_histogram(
            "musicapi.task.duration",
            "s",
            "Time from the submit of a task to its end.",
            explicit_bucket_boundaries_advisory=TASK_BUCKETS,
        )
        self._lateness: Final = meter.create_histogram(
            "musicapi.poll.lateness",
            "s",
            "Time between the planned and the real begin of a poll.",
            explicit_bucket_boundaries_advisory=CALL_BUCKETS,
        )
        self._sizes: Final = meter.create_histogram(
            "musicapi.download.size", "By", "Bytes of the files that were fetched."
        )
        self._charged: Final = meter.create_counter(
            "musicapi.charged_calls", "{call}", "Calls that cost credits and were carried out."
        )
        self._credits: Final = meter.create_counter(
            "musicapi.credits.charged", "{credit}", "Credits that calls of a known price cost."
        )
        self._refunds: Final = meter.create_counter(
            "musicapi.credits.refunded", "{credit}", "Credits of failed tasks that the service gave back."
        )
        self._measured: Final = meter.create_up_down_counter(
            "musicapi.credits.measured", "{credit}", "Credits that measured blocks of calls cost."
        )
        self._calls: Final[dict[int, tuple[Span, int, Context]]] = {}
        self._open: Final[OrderedDict[TaskKey, _OpenTask]] = OrderedDict()
        self._early: Final[OrderedDict[TaskKey, TaskEndedEvent]] = OrderedDict()
        """Ends of tasks without a span: a webhook may come before the response to the create."""
        self._lock: Final = threading.RLock()

    def __call__(self, event: HookEvent) -> None:
        """Take one event of a client."""
        with self._lock:
            match event:
                case RequestEvent():
                    self._requested(event)
                case ResponseEvent():
                    self._responded(event)
                case RetryEvent():
                    self._retries.add(1, {**_server(event.url), "musicapi.reason": event.reason})
                case PollEvent():
                    if event.late is not None:
                        self._lateness.record(event.late, {"musicapi.family": event.family})
                    self._staged(event)
                case WebhookEvent():
                    self._staged(event)
                case CallSettledEvent():
                    self._charge(event, 1)
                case SpendingEvent():
                    self._measured.add(event.total)
                case TaskEndedEvent():
                    self._ended(event)
                case DownloadEvent():
                    self._downloaded(event)
                case _:
                    pass

    def close(self) -> None:
        """End the spans of all unfinished tasks, with their last known state. May be repeated.

        Otherwise these spans are not exported, because no poll reports the end of a task that no one waits
        for.
        """
        with self._lock:
            while self._open:
                self._give_up_oldest()

    # --- requests --------------------------------------------------------------------------------------

    def _requested(self, event: RequestEvent) -> None:
        attributes: _Attributes = {
            "http.request.method": event.method,
            "url.full": event.url,
            **_server(event.url),
            **_ids(event),
        }
        if event.attempt > 1:
            attributes["http.request.resend_count"] = event.attempt - 1
        template = _template(event)
        if template:
            attributes["url.template"] = template
        task = None if event.task_id is None else self._open.get(_key(event.family, event.task_id))
        parent = context.get_current() if task is None else task.context
        begin = time.time_ns()
        span = self._tracer.start_span(
            f"{event.method} {template}".rstrip(),
            parent,
            SpanKind.CLIENT,
            attributes,
            start_time=begin,
        )
        self._calls[event.call_id] = span, begin, parent

    def _responded(self, event: ResponseEvent) -> None:
        attributes: _Attributes = {"http.request.method": event.method, **_server(event.url)}
        failure = event.error_type
        if event.status is not None:
            attributes["http.response.status_code"] = event.status
            failure = failure or (str(event.status) if event.status >= 400 else None)
        if failure is not None:
            attributes["error.type"] = failure
        self._requests.record(event.seconds, attributes)
        waited: _Attributes = {"http.request.method": event.method, "musicapi.kind": event.kind}
        self._waits.record(event.waited, waited)
        if event.carried_out:
            self._charge(event, max(1, len(event.task_ids)))
        known = self._calls.pop(event.call_id, None)
        if known is None:
            return
        span, begin, parent = known
        span.set_attributes({name: attributes[name] for name in _OUTCOME if name in attributes})
        span.set_attributes(_ids(event))
        if event.request_id is not None:
            span.set_attribute("musicapi.request_id", event.request_id)
        if failure is not None:
            # The conventions want no text where the status says it.
            span.set_status(Status(StatusCode.ERROR, event.error if event.status is None else None))
        span.end()
        if event.method != "GET":
            for task_id in event.task_ids or filter(None, (event.task_id,)):
                self._submitted(event, task_id, begin, parent)

    def _charge(self, event: ResponseEvent | CallSettledEvent, items: int) -> None:
        price = self._prices.get(event.kind)
        self._count(self._charged, event, 1)
        self._count(self._credits, event, None if price is None else price * items)

    @staticmethod
    def _count(
        counter: Counter, event: ResponseEvent | CallSettledEvent | TaskEndedEvent, value: float | None
    ) -> None:
        if value is not None:
            counter.add(value, {"musicapi.family": event.family, "musicapi.kind": event.kind})

    # --- tasks -----------------------------------------------------------------------------------------

    def _submitted(self, event: ResponseEvent, task_id: str, begin: int, parent: Context) -> None:
        key = _key(event.family, task_id)
        if key in self._open:
            return
        name = f"musicapi {event.kind or 'task'}"
        task = self._open[key] = _OpenTask(
            self._tracer.start_span(
                name,
                parent,
                SpanKind.INTERNAL,
                {**_ids(event), "musicapi.task_id": task_id},
                start_time=begin,
            )
        )
        task.reach("pending")
        self._active.add(1, {"musicapi.family": key[0]})
        if (end := self._early.pop(key, None)) is not None:
            self._end(key, end)
        if len(self._open) > MOST_TASKS:
            self._give_up_oldest()

    def _staged(self, event: PollEvent | WebhookEvent) -> None:
        task = self._open.get(_key(event.family, event.task_id))
        if task is None:
            return
        if event.state == "running":
            task.reach("running")
        if event.can_stream:
            task.reach("streaming")

    def _ended(self, event: TaskEndedEvent) -> None:
        attributes: _Attributes = {
            "musicapi.family": event.family,
            "musicapi.kind": event.kind,
            "musicapi.state": event.state,
        }
        if event.seconds is not None:
            self._tasks.record(event.seconds, attributes)
        if event.refunded:
            self._count(self._refunds, event, self._prices.get(event.kind))
        key = _key(event.family, event.task_id)
        if key in self._open:
            self._end(key, event)
            return
        self._early[key] = event
        if len(self._early) > MOST_EARLY:
            self._early.popitem(last=False)

    def _end(self, key: TaskKey, event: TaskEndedEvent) -> None:
        task = self._open.pop(key)
        self._active.add(-1, {"musicapi.family": key[0]})
        task.reach("ended")
        task.span.set_attribute("musicapi.state", event.state)
        if event.refunded is not None:
            task.span.set_attribute("musicapi.refunded", event.refunded)
        if event.error is not None:
            task.span.set_status(Status(StatusCode.ERROR, event.error))
        task.span.end()

    def _give_up_oldest(self) -> None:
        key, task = self._open.popitem(last=False)
        self._active.add(-1, {"musicapi.family": key[0]})
        task.span.end()

    # --- files -----------------------------------------------------------------------------------------

    def _downloaded(self, event: DownloadEvent) -> None:
        attributes: _Attributes = {
            "http.request.method": "GET",
            "url.full": event.url,
            **_server(event.url),
            "musicapi.tries": event.tries,
        }
        if event.status is not None:
            attributes["http.response.status_code"] = event.status
        failure = None if event.error is None else str(event.status or event.error_type)
        if failure is not None:
            attributes["error.type"] = failure
        else:
            attributes["http.response.body.size"] = event.size
            self._sizes.record(event.size, _server(event.url))
        end = time.time_ns()
        begin = end - int(event.seconds * 1e9)
        span = self._tracer.start_span("GET", None, SpanKind.CLIENT, attributes, start_time=begin)
        if failure is not None:
            span.set_status(Status(StatusCode.ERROR, event.error if event.status is None else None))
        span.end(end)


_OUTCOME: Final = ("http.response.status_code", "error.type")
"""Attributes of a request that are known once it has ended."""


def _checked(prices: Mapping[str, Any]) -> dict[str, float]:
    """Return the prices; refuses names that are no operation, and what is no number of credits."""
    known = {name for family in FAMILIES.values() for name in family.operations()}
    check_names("prices", prices, known, "operations")
    for name, price in prices.items():
        check_credits("prices", price, name)
    return dict(prices)


def _key(family: str, task_id: str) -> TaskKey:
    """Return one key for a task, by whichever word its family is named."""
    return TaskRef(family, task_id).key


def _server(url: str) -> _Attributes:
    """Return the address and the port of a URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


def _ids(event: CallEvent) -> _Attributes:
    """Return what identifies a call, as far as it is known."""
    known = {
        "musicapi.call": event.call if event.kind else None,
        "musicapi.family": event.family or None,
        "musicapi.kind": event.kind or None,
        "musicapi.task_id": event.task_id,
        "musicapi.job_key": event.job_key,
    }
    return {name: value for name, value in known.items() if value is not None}


def _template(event: CallEvent) -> str:
    """Return the path of a call without ids; '' for an untyped call, whose path may hold any."""
    path = event.call.partition(" ")[2]
    if event.task_id is not None and event.method == "GET":
        return path.replace(quote(event.task_id, safe=""), "{task_id}")
    return path if event.kind else ""
