"""The replies of the control of a sandbox: each is a struct, from which its description is made."""

from __future__ import annotations

from typing import Final

import msgspec

from .backend import Service
from .journal import Entry
from .ordered_tasks import OrderedClip, OrderedTask
from .poll_bodies import audio_link
from .prices import SandboxAccount

NULL: Final = msgspec.Raw(b"null")


class RequestRow(msgspec.Struct):
    """One request to the sandbox, or one delivery of a webhook by it (`kind` "webhook").

    `at` is in API seconds since the first start, `charge` in credits. `status` 0: no response was sent.
    `body` is the JSON that came, or null when it could not be read, is forgotten, or was not requested.
    `fault` names the fault that hit it; `not_allowed`: a delivery, or the fetch of an upload, was skipped.
    """

    number: int
    at: float
    method: str
    path: str
    kind: str
    status: int
    task_id: str
    charge: float
    refunded: bool
    key_sent: bool
    fault: str
    request_id: str
    event: str
    body: msgspec.Raw


class JournalPage(msgspec.Struct):
    """Requests, oldest first. `next` is the value for `after` that continues; `dropped` were forgotten."""

    requests: list[RequestRow]
    next: int
    dropped: int
    charges: float


class ClipRow(msgspec.Struct):
    """One clip of a task; `audio_url` is null, the stream, or the file."""

    clip_id: str
    title: str
    state: str
    audio_url: str | None
    seconds: float


class TaskRow(msgspec.Struct):
    """One task; `state` is running, succeeded or failed, `progress` in percent."""

    task_id: str
    family: str
    kind: str
    state: str
    progress: int
    created_at: str
    clips: list[ClipRow]


class AccountRow(msgspec.Struct):
    """The balance in credits, and if there is a subscription."""

    credits: float
    extra_credits: float
    subscription: bool


class ClockRow(msgspec.Struct):
    """API seconds since the first start, how many of them pass in a real second, and the real date."""

    now: float
    speed: float
    date: str


def request_row(entry: Entry, *, body: bool = True) -> RequestRow:
    """Return an entry of the journal as a reply; `body` False leaves its body out."""
    return RequestRow(
        number=entry.number, at=round(entry.at, 3), method=entry.method, path=entry.path, kind=entry.kind,
        status=entry.status, task_id=entry.task_id, charge=entry.charge, refunded=entry.refunded,
        key_sent=entry.key_sent, fault=entry.fault, request_id=entry.request_id, event=entry.event,
        body=_body(entry.raw) if body else NULL,
    )  # fmt: skip


def _body(raw: bytes) -> msgspec.Raw:
    """Return JSON as it came, without building its objects: 1 MB of empty lists would be 25 MB of them."""
    try:
        raw.decode()
        return msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NULL


def task_row(service: Service, task: OrderedTask) -> TaskRow:
    """Return a task as it is now."""
    now = service.now()
    failed, done = now >= task.failed_at, now >= task.ends
    return TaskRow(
        task_id=task.task_id,
        family=task.family,
        kind=task.kind,
        state="failed" if failed else "succeeded" if done else "running",
        progress=100 if failed or done else task.percent(now),
        created_at=service.stamp(task.date),
        clips=[_clip_row(service, clip, now) for clip in task.items()],
    )


def _clip_row(service: Service, clip: OrderedClip, now: float) -> ClipRow:
    known = clip.recipe.length
    seconds = 0.0 if known is None else round(known, 2)
    return ClipRow(clip.clip_id, clip.title, clip.state(now), audio_link(service, clip, now), seconds)


def account_row(account: SandboxAccount, now: float) -> AccountRow:
    """Return the account as it is now."""
    account.settle(now)
    return AccountRow(round(account.credits, 4), round(account.extra_credits, 4), account.subscription)


def clock_row(service: Service) -> ClockRow:
    """Return the time of the sandbox."""
    time = service.time
    return ClockRow(round(time.now(), 3), time.clock.speed, service.stamp(time.date()))
