"""Webhooks: signed as documented, repeated until a 2xx, and broken by injected faults."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections.abc import Coroutine
from typing import Final, NamedTuple

import msgspec

from .backend import Service
from .faults import Fault
from .journal import Entry, log_access
from .ordered_tasks import NEVER, OrderedTask
from .outbound_requests import NOT_ALLOWED
from .poll_bodies import FAILURE, nuro_body, producer_data, sonic_data

DEFAULT_SECRET: Final = "the-service-keeps-this-one-to-itself"  # noqa: S105 signs what no one can verify
"""Without `webhook_secret` the service signs with a secret of its own, which no one knows."""

OLD: Final = 900.0
"""Real seconds by which `old_timestamp` is too old; receivers allow 300."""


def signature(secret: str, timestamp: str, raw: bytes) -> str:
    """Return `sha256=<hex>`: HMAC-SHA256 of `<timestamp>.<raw body>`."""
    message = timestamp.encode() + b"." + raw
    return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def payload(service: Service, task: OrderedTask, event: str, now: float) -> dict[str, object]:
    """Return the body of an event: the polling shape with `task_id`, `platform` and `event`."""
    platform = service.choices.platform if task.family == "sonic" else task.family
    tail: dict[str, object] = {"task_id": task.task_id, "platform": platform, "event": event}
    if event == "song.failed":
        return {"type": "failed", "message": FAILURE, "refund_processed": task.refunded, **tail}
    if task.family == "nuro":
        flat = nuro_body(service, task, now)
        return {**flat, **tail, "prompt": "", "theme": "", "instrument": ""}
    data: object
    if task.family == "producer":
        data = producer_data(service, task, now)
    else:
        data = sonic_data(service, task, now, chirp=True)
    message = "streaming" if event == "song.streaming" else "success"
    return {"code": 200, "data": data, "message": message, **tail}


class _Delivery(NamedTuple):
    """One event of a task that is being delivered; `at` is the time of the event."""

    task: OrderedTask
    event: str
    fault: Fault | None
    at: float
    raw: bytes = b""
    event_id: str = ""

    @property
    def mark(self) -> str:
        """The name of this event among those of the task, which may have several of one kind."""
        return f"{self.event} {self.at:.3f}"

    def fails(self, name: str) -> bool:
        """Return True if the fault of this name hits it."""
        return self.fault is not None and self.fault.name == name


class WebhookSender:
    """Sends the events of every task with a webhook, at the moment they happen."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._time = service.time
        self._running: set[asyncio.Task[None]] = set()

    def watch(self, task: OrderedTask) -> None:
        """Follow a task until its last event is delivered."""
        self._start(self._follow(task))

    def forget(self) -> None:
        """Stop all deliveries, without waiting for their end."""
        for delivery in self._running:
            delivery.cancel()

    def resume(self) -> None:
        """Follow the tasks whose last event was not delivered when an earlier process ended."""
        for task in self._service.tasks:
            last = min(task.failed_at, task.ends)
            event = "song.failed" if task.failed_at < NEVER else "song.completed"
            delivered = _Delivery(task, event, None, last).mark in task.delivered
            if task.webhook is not None and not delivered:
                self.watch(task)

    async def close(self) -> None:
        """Stop all deliveries."""
        running = list(self._running)
        self.forget()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self, delivery: Coroutine[None, None, None]) -> None:
        running = asyncio.get_running_loop().create_task(delivery)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _follow(self, task: OrderedTask) -> None:
        late: list[tuple[Fault, float]] = []
        last = min(task.failed_at, task.ends)
        for stream in self._streams(task, last):
            if _Delivery(task, "song.streaming", None, stream).mark in task.delivered:
                continue
            await self._time.until(stream)
            fault = self._pick("song.streaming")
            if fault is not None and fault.name == "reordered":
                late.append((fault, stream))
            else:
                self._send(task, "song.streaming", fault, stream)
        if math.isinf(last):
            return
        await self._time.until(last)
        event = "song.failed" if task.failed_at < NEVER else "song.completed"
        self._send(task, event, self._pick(event), last)
        for fault, stream in late:
            self._send(task, "song.streaming", fault, stream)

    def _streams(self, task: OrderedTask, last: float) -> list[float]:
        """Return when `song.streaming` is due: never after the end, nor for what is no list of clips."""
        if task.family != "sonic" or task.shape != "clips":
            return []
        times = sorted(clip.streams for clip in task.clips)
        match self._service.choices.streaming:
            case "first":
                times = times[:1]
            case "all":
                times = times[-1:]
            case _:
                pass
        return [at for at in times if at < last]

    def _pick(self, event: str) -> Fault | None:
        return self._service.faults.pick("webhook", "WEBHOOK", event)

    def _send(self, task: OrderedTask, event: str, fault: Fault | None, at: float) -> None:
        """Start to send an event of the time `at`; its attempts continue beside the task's later events."""
        delivery = _Delivery(task, event, fault, at)
        if task.webhook is None or delivery.fails("lost"):
            self._note(delivery)
            self._end(delivery)
            return
        raw = msgspec.json.encode(payload(self._service, task, event, at))
        self._start(self._deliver(delivery._replace(raw=raw, event_id=self._service.new_id())))

    async def _deliver(self, delivery: _Delivery) -> None:
        fault = delivery.fault
        if fault is not None and fault.name in ("late", "reordered"):
            await self._time.sleep(fault.seconds)
        await self._try(delivery)
        if delivery.fails("duplicate"):
            await self._try(delivery)
        self._end(delivery)

    def _end(self, delivery: _Delivery) -> None:
        """Note that an event needs no further delivery."""
        task = delivery.task
        task.delivered.append(delivery.mark)
        if task.task_id in self._service.tasks:
            self._service.tasks.put(task.task_id, task)
        self._service.on_change()

    async def _try(self, delivery: _Delivery) -> None:
        url, _ = delivery.task.webhook or ("", "")
        choices = self._service.choices
        for attempt in range(choices.webhook_attempts):
            if attempt:
                await self._time.sleep(choices.webhook_pause * 2 ** (attempt - 1))
            entry = self._note(delivery)
            if not self._service.outbound.allows(url):
                entry.fault = NOT_ALLOWED
                log_access(entry)
                self._service.outbound.warn_of_skipped(url)
                return
            entry.status = await self._service.outbound.deliver(url, delivery.raw, self._headers(delivery))
            self._service.journal.touch(entry)
            log_access(entry)
            if 200 <= entry.status < 300:
                return

    def _headers(self, delivery: _Delivery) -> dict[str, str]:
        secret = (delivery.task.webhook or ("", ""))[1] or DEFAULT_SECRET
        timestamp = str(int(self._time.date() - (OLD if delivery.fails("old_timestamp") else 0.0)))
        headers = {
            "Content-Type": "application/json",
            "X-Webhook-Id": delivery.event_id,
            "Idempotency-Key": delivery.event_id,
            "X-Webhook-Event": delivery.event,
            "X-Webhook-Timestamp": timestamp,
        }
        if not delivery.fails("unsigned"):
            key = f"not {secret}" if delivery.fails("wrong_secret") else secret
            headers["X-Webhook-Signature"] = signature(key, timestamp, delivery.raw)
        return headers

    def _note(self, delivery: _Delivery) -> Entry:
        journal, task, fault = self._service.journal, delivery.task, delivery.fault
        url = (task.webhook or ("", ""))[0]
        entry = Entry(
            self._service.now(), "POST", url, "webhook", task_id=task.task_id, event=delivery.event,
            fault="" if fault is None else fault.name,
        )  # fmt: skip
        journal.add(entry)
        journal.store_body(entry, delivery.raw)
        return entry
