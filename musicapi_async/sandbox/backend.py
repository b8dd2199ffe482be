"""The service without HTTP: accounts, tasks and time. Endpoints are functions of a `Call` to it."""

from __future__ import annotations

import math
import random
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .faults import Faults
from .journal import Entry, Journal
from .ordered_tasks import (
    NEVER,
    BoundedStore,
    Family,
    OrderedClip,
    OrderedTask,
    Shape,
    StoredPersona,
    StoredVox,
)
from .outbound_requests import OutboundRequests
from .prices import SandboxAccount
from .recipes import UploadedFile
from .replies import JsonReply, invalid, not_found
from .reply_choices import Choices, Durations
from .sandbox_time import SandboxTime
from .validation import ID, Form

TASKS: Final = 100_000
"""Tasks that are stored; the oldest go first."""

UPLOADED_BYTES: Final = 128 * 1024 * 1024
"""Bytes of uploaded files that are stored."""

FIRST_OF_TWO: Final = (0.7, 0.95)
"""The share of the whole time after which the first of several clips is done; the last takes all of it."""


class Service:
    """The state of the sandbox, bounded."""

    def __init__(
        self,
        *,
        account: SandboxAccount,
        journal: Journal,
        faults: Faults,
        choices: Choices,
        durations: Durations,
        time: SandboxTime,
        seed: int,
        longest: float,
        local_ports: bool = True,
    ) -> None:
        self.account: Final = account
        account.on_refund = journal.touch
        self.journal: Final = journal
        self.faults: Final = faults
        self.choices: Choices = choices
        self.durations: Durations = durations
        self._first = choices, durations
        self.time: Final = time
        self.now: Final = time.now
        self.sleep: Final = time.sleep
        self.longest: Final = longest
        self.outbound: Final = OutboundRequests(local_ports=local_ports)
        self._uploads: deque[UploadedFile] = deque()
        self.emptied: Final[deque[UploadedFile]] = deque(maxlen=TASKS)
        """Uploaded files whose bytes are gone, until the state has noticed."""
        self.origin = ""
        self._seed = f"sandbox:{seed}"
        self.draw: Final = random.Random(self._seed)
        self.tasks: Final[BoundedStore[OrderedTask]] = BoundedStore(TASKS)
        self.clips: Final[BoundedStore[OrderedClip]] = BoundedStore(TASKS * 3)
        self.batches: Final[BoundedStore[tuple[str, ...]]] = BoundedStore(TASKS)
        """The tasks of each batch."""
        self.personas: Final[BoundedStore[StoredPersona]] = BoundedStore(TASKS)
        self.voxes: Final[BoundedStore[StoredVox]] = BoundedStore(TASKS)
        self.requested: Final[BoundedStore[float]] = BoundedStore(TASKS * 3)
        """When something that takes a while (midi, files) was requested first, or a price was paid once."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when something changed outside of a request: a webhook was delivered."""
        self.on_task: Callable[[OrderedTask], None] = lambda task: None
        """Called for every task with a webhook."""

    def reset(self) -> None:
        """Forget everything; choices and durations are those of the start. Ids are never repeated."""
        for store in (self.tasks, self.clips, self.batches, self.personas, self.voxes, self.requested):
            store.clear()
        self._uploads.clear()
        self.choices, self.durations = self._first
        self.faults.clear()
        self.account.reset()
        self.journal.clear()

    def store_upload(self, file: UploadedFile) -> UploadedFile:
        """Store an uploaded file; the oldest are emptied beyond `UPLOADED_BYTES`."""
        self._uploads.append(file)
        while sum(len(file.data) for file in self._uploads) > UPLOADED_BYTES and len(self._uploads) > 1:
            oldest = self._uploads.popleft()
            oldest.data = b""
            self.emptied.append(oldest)
        return file

    def continue_run(self, number: int) -> None:
        """Draw ids and seeds that no run before has drawn; `number` counts the runs of a state, from 1 on."""
        self.draw.seed(f"{self._seed}:{number}")

    def new_id(self) -> str:
        """Return a UUID that follows from the seed."""
        return str(uuid.UUID(int=self.draw.getrandbits(128), version=4))

    def new_seed(self) -> int:
        """Return a seed for a piece of music."""
        return self.draw.getrandbits(31)

    def spread(self, shape: tuple[float, float]) -> float:
        """Return seconds drawn from (median, sigma), at most five times the median."""
        median, sigma = shape
        return median * math.exp(min(sigma * self.draw.gauss(0, 1), math.log(5))) if sigma else median

    def age(self, at: float) -> float:
        """Return the seconds since `at` that count where something may be too old."""
        return self.now() - at if self.choices.ages == "clock" else self.time.age(at)

    def stamp(self, date: float) -> str:
        """Return a date as the API writes it: ISO 8601, UTC, milliseconds, `Z`."""
        moment = datetime.fromtimestamp(date, UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"

    def media(self, name: str) -> str:
        """Return the address of a media file."""
        return f"{self.origin}/media/{name}"

    def clip_at(self, url: str) -> OrderedClip | None:
        """Return the clip whose whole sound is the file at `url`, if that is a link of the sandbox."""
        name, dot, ending = url.removeprefix(self.media("")).partition(".")
        clip = self.clips.get(name) if dot and ending in ("mp3", "m4a", "wav") else None
        return clip if clip is not None and not clip.stem and url == self.media(f"{name}.{ending}") else None

    def clip(self, clip_id: str, now: float, *, text: str = "clip not found") -> OrderedClip:
        """Return a clip to work on; refuses an unknown or failed one with 404, a running one with 400."""
        clip = self.clips.get(clip_id) if len(clip_id) <= ID else None
        if clip is None or (clip.failed and now >= clip.ends):
            raise not_found(text)
        if not clip.ready(now):
            raise invalid("The clip is not ready yet. Please wait until it has succeeded.")
        return clip

    def persona(self, persona_id: str, now: float) -> StoredPersona:
        """Return a persona or voice that can sing."""
        persona = self.personas.get(persona_id) if len(persona_id) <= ID else None
        if persona is None or now < persona.ready_at or self.age(persona.ready_at) >= persona.life:
            raise not_found("persona not found")
        return persona


@dataclass(slots=True)
class Call:
    """One request that is being carried out."""

    service: Service
    form: Form
    entry: Entry
    now: float
    parts: tuple[float, float] = (0.0, 0.0)

    def afford(self, operation: str, *, form: str = "") -> None:
        """Refuse if the balance is too low now; charges nothing."""
        self.service.account.check(operation, self.now, form or self.service.choices.no_credits)

    def pay(self, operation: str, *, form: str = "") -> None:
        """Refuse if the balance is too low, else charge."""
        service = self.service
        price = service.account.check(operation, self.now, form or service.choices.no_credits)
        extra, rest = service.account.charge(price, self.entry)
        self.parts = (self.parts[0] + extra, self.parts[1] + rest)

    def order(
        self,
        family: Family,
        kind: str,
        spread: tuple[float, float],
        clips: Sequence[OrderedClip] = (),
        *,
        pairs: Sequence[tuple[OrderedClip, OrderedClip]] = (),
        pair_word: str = "extended",
        shape: Shape = "clips",
        webhook: tuple[str, str] | None = None,
    ) -> OrderedTask:
        """Take a task: decide its times and its faults, store its clips.

        Args:
            family: The family under which it is polled.
            kind: The task type or endpoint.
            spread: Median and sigma of its duration in API seconds.
            clips: Its clips, whose times are set.
            pairs: Pairs of a part and the full song, in the place of clips.
            pair_word: The key of the part in a poll response.
            shape: The form of the result where there are no pairs.
            webhook: The URL to notify and the secret to sign with.
        """
        service, draw, now = self.service, self.service.draw, self.now
        task = OrderedTask(service.new_id(), family, kind, "pairs" if pairs else shape, now, self.entry)
        task.clips, task.pairs, task.pair_word, task.webhook = list(clips), list(pairs), pair_word, webhook
        task.date = service.time.date()
        total = service.spread(spread)
        stream = min(service.durations.stream, 0.4 * total) * draw.uniform(0.85, 1.15)
        task.ready_at = now + stream * draw.uniform(0.3, 0.6)
        task.ends = now + total
        parts = [part for part, _ in pairs] or list(clips)
        late = draw.randrange(len(parts)) if parts else 0
        for index, clip in enumerate(parts):
            share = 1.0 if index == late else draw.uniform(*FIRST_OF_TWO)
            clip.starts = task.ready_at + (now + stream - task.ready_at) * draw.uniform(0.3, 0.8)
            clip.streams = now + stream * draw.uniform(0.95, 1.05)
            clip.ends = clip.file_at = max(now + total * share, clip.streams)
        for part, full in pairs:
            full.starts = part.ends
            full.streams = NEVER
            full.ends = full.file_at = part.ends + max(4.0, 0.1 * total)
        for clip in task.items():
            clip.created = task.date
            task.ends = max(task.ends, clip.ends)
        self._apply_fault(task)
        for clip in task.items():
            service.clips.put(clip.clip_id, clip)
        service.tasks.put(task.task_id, task)
        self.entry.task_id = task.task_id
        if webhook is not None:
            service.on_task(task)
        return task

    def _apply_fault(self, task: OrderedTask) -> None:
        fault = self.service.faults.pick("task", self.entry.method, self.entry.path)
        if fault is None:
            return
        self.entry.fault = self.entry.fault or fault.name
        items = list(task.items())
        match fault.name:
            case "fail":
                task.failed_at = task.ends = self.now + (task.ends - self.now) * 0.8
                task.failure = fault.text or self.service.choices.failure
                for clip in items:
                    clip.failed, clip.ends, clip.file_at = True, task.failed_at, NEVER
                self.service.account.refund_at(task.failed_at, self.parts, self.entry)
                task.parts = self.parts
                task.refunded = True
            case "partial":
                for clip in items[-1:] if task.clips else ():
                    clip.failed, clip.file_at = True, NEVER
                for part, full in task.pairs[-1:]:
                    part.failed, part.file_at = True, NEVER
                    full.failed, full.ends, full.file_at = True, NEVER, NEVER
                task.ends = max(clip.ends for clip in items if clip.ends < NEVER)
            case "stuck":
                task.ends = NEVER
                for clip in items:
                    clip.ends = clip.file_at = NEVER
            case "late_file":
                for clip in items:
                    clip.file_at = clip.ends + fault.seconds
            case "odd_state":
                task.odd_state = fault.text or ""
            case _:
                pass


def submitted(call: Call, task: OrderedTask, **more: object) -> JsonReply:
    """Return the submit reply, in the form of the choice."""
    form = call.service.choices.submit
    if form == "nested":
        return JsonReply({"code": 200, "message": "success", "data": {"task_id": task.task_id}, **more})
    head: dict[str, object] = {"code": 200} if form == "code" else {}
    return JsonReply({**head, "message": "success", "task_id": task.task_id, **more})
