"""Webhooks: signed as documented, tried again, and broken on purpose when a fault says so."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections.abc import Coroutine
from typing import Final

import msgspec

from ..clock import Clock
from .faults import Fault
from .journal import Entry
from .poll_bodies import FAILURE, nuro_body, producer_data, sonic_data
from .service import Service
from .works import NEVER, Work

DEFAULT_SECRET: Final = "the-service-keeps-this-one-to-itself"  # noqa: S105 signs what no one can verify
"""Without `webhook_secret` the service signs with a secret of its own, which it does not tell."""

OLD: Final = 900.0
"""Real seconds by which `old_timestamp` is too old; receivers allow 300."""


def signature(secret: str, timestamp: str, raw: bytes) -> str:
    """`sha256=<hex>`: HMAC-SHA256 of `<timestamp>.<raw body>`."""
    message = timestamp.encode() + b"." + raw
    return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def payload(service: Service, work: Work, event: str, now: float) -> dict[str, object]:
    """The body of an event: the polling shape with `task_id`, `platform` and `event`."""
    platform = service.choices.platform if work.family == "sonic" else work.family
    tail: dict[str, object] = {"task_id": work.task_id, "platform": platform, "event": event}
    if event == "song.failed":
        return {"type": "failed", "message": FAILURE, "refund_processed": work.refunded, **tail}
    if work.family == "nuro":
        flat = nuro_body(service, work, now)
        return {**flat, **tail, "prompt": "", "theme": "", "instrument": ""}
    data: object
    if work.family == "producer":
        data = producer_data(service, work, now)
    else:
        data = sonic_data(service, work, now, chirp=True)
    message = "streaming" if event == "song.streaming" else "success"
    return {"code": 200, "data": data, "message": message, **tail}


class Deliveries:
    """Sends the events of every task that ordered them, at the moment they happen."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()

    def watch(self, work: Work) -> None:
        """Follow a task until its last event is delivered."""
        self._start(self._follow(work))

    async def close(self) -> None:
        """Stop all deliveries."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self, delivery: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(delivery)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _follow(self, work: Work) -> None:
        late_stream: Fault | None = None
        stream = min((clip.streams for clip in work.clips), default=NEVER)
        last = min(work.failed_at, work.ends)
        streams = work.family == "sonic" and work.shape == "clips" and stream < last
        if streams:
            await self._until(stream)
            fault = self._pick("song.streaming")
            if fault is not None and fault.name == "reordered":
                late_stream = fault
            else:
                self._send(work, "song.streaming", fault, stream)
        if math.isinf(last):
            return
        await self._until(last)
        event = "song.failed" if work.failed_at < NEVER else "song.completed"
        self._send(work, event, self._pick(event), last)
        if late_stream is not None:
            self._send(work, "song.streaming", late_stream, stream)

    def _pick(self, event: str) -> Fault | None:
        return self._service.faults.pick("webhook", "WEBHOOK", event)

    async def _until(self, at: float) -> None:
        await self._clock.sleep(at - self._service.now())

    def _send(self, work: Work, event: str, fault: Fault | None, at: float) -> None:
        """One event of the time `at`; its tries continue beside the task's later events."""
        if work.webhook is None or (fault is not None and fault.name == "lost"):
            self._note(work, event, b"", fault)
            return
        raw = msgspec.json.encode(payload(self._service, work, event, at))
        event_id = self._service.new_id()
        self._start(self._deliver(work, event, raw, event_id, fault))

    async def _deliver(self, work: Work, event: str, raw: bytes, event_id: str, fault: Fault | None) -> None:
        if fault is not None and fault.name in ("late", "reordered"):
            await self._clock.sleep(fault.seconds)
        await self._try(work, event, raw, event_id, fault)
        if fault is not None and fault.name == "duplicate":
            await self._try(work, event, raw, event_id, fault)

    async def _try(self, work: Work, event: str, raw: bytes, event_id: str, fault: Fault | None) -> None:
        url, _ = work.webhook or ("", "")
        choices = self._service.choices
        for attempt in range(max(1, choices.webhook_attempts)):
            if attempt:
                await self._clock.sleep(choices.webhook_pause * 2 ** (attempt - 1))
            entry = self._note(work, event, raw, fault)
            if not self._service.outside.allows(url):
                entry.fault = "not_allowed"
                return
            headers = self._headers(work, event, raw, event_id, fault)
            entry.status = await self._service.outside.deliver(url, raw, headers)
            if 200 <= entry.status < 300:
                return

    def _headers(
        self, work: Work, event: str, raw: bytes, event_id: str, fault: Fault | None
    ) -> dict[str, str]:
        name = "" if fault is None else fault.name
        secret = (work.webhook or ("", ""))[1] or DEFAULT_SECRET
        timestamp = str(int(self._clock.time() - (OLD if name == "old_timestamp" else 0.0)))
        headers = {
            "Content-Type": "application/json",
            "X-Webhook-Id": event_id,
            "Idempotency-Key": event_id,
            "X-Webhook-Event": event,
            "X-Webhook-Timestamp": timestamp,
        }
        if name != "unsigned":
            key = f"not {secret}" if name == "wrong_secret" else secret
            headers["X-Webhook-Signature"] = signature(key, timestamp, raw)
        return headers

    def _note(self, work: Work, event: str, raw: bytes, fault: Fault | None) -> Entry:
        journal = self._service.journal
        url = (work.webhook or ("", ""))[0]
        entry = Entry(
            self._service.now(), "POST", url, "webhook", task_id=work.task_id, event=event,
            fault="" if fault is None else fault.name,
        )  # fmt: skip
        journal.add(entry)
        journal.keep(entry, raw)
        return entry
