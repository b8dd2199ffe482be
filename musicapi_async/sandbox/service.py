"""The service without HTTP: accounts, works and time. Endpoints are functions of a `Call` to it."""

from __future__ import annotations

import math
import random
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from .choices import Choices, Durations
from .faults import Faults
from .journal import Entry, Journal
from .outside import Outside
from .prices import Account
from .recipes import Tape
from .refusal import Refusal, in_form, invalid, not_found
from .validation import ID, Form
from .works import NEVER, Clip, Family, Persona, Shape, Shelf, Vox, Work

FIRST_OF_TWO: Final = (0.7, 0.95)
"""The share of the whole time after which the first of several clips is done; the last takes all of it."""


@dataclass(slots=True)
class Reply:
    """The reply of an endpoint."""

    body: object
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    pause: float = 0.0
    """API seconds that the service takes to answer."""


class Service:
    """Everything that the sandbox remembers, bounded."""

    def __init__(
        self,
        *,
        account: Account,
        journal: Journal,
        faults: Faults,
        choices: Choices,
        durations: Durations,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        epoch: float,
        seed: int,
        works: int,
        longest: float,
        outside: Outside,
        audio_bytes: int,
    ) -> None:
        self.account: Final = account
        self.journal: Final = journal
        self.faults: Final = faults
        self.choices = choices
        self.durations: Final = durations
        self.now: Final = now
        self.sleep: Final = sleep
        self.epoch = epoch
        self.longest: Final = longest
        self.outside: Final = outside
        self._audio_bytes: Final = audio_bytes
        self._tapes: deque[Tape] = deque()
        self.origin = ""
        self.draw: Final = random.Random(f"sandbox:{seed}")
        self.works: Final[Shelf[Work]] = Shelf(works)
        self.clips: Final[Shelf[Clip]] = Shelf(works * 3)
        self.personas: Final[Shelf[Persona]] = Shelf(works)
        self.voxes: Final[Shelf[Vox]] = Shelf(works)
        self.requested: Final[Shelf[float]] = Shelf(works * 3)
        """When something that takes a while (midi, files) was requested first, or a price was paid once."""
        self.on_work: Callable[[Work], None] = _ignore
        """Called for every task with a webhook."""

    def keep_audio(self, data: bytes) -> Tape:
        """Keep an uploaded file; the oldest are emptied beyond the room for them."""
        tape = Tape(data)
        self._tapes.append(tape)
        while sum(len(tape.data) for tape in self._tapes) > self._audio_bytes and len(self._tapes) > 1:
            self._tapes.popleft().data = b""
        return tape

    def new_id(self) -> str:
        """A UUID that follows from the seed."""
        return str(uuid.UUID(int=self.draw.getrandbits(128), version=4))

    def new_seed(self) -> int:
        """A seed for a piece of music."""
        return self.draw.getrandbits(31)

    def spread(self, shape: tuple[float, float]) -> float:
        """Seconds drawn from (median, sigma), at most five times the median."""
        median, sigma = shape
        drawn = median * math.exp(sigma * self.draw.gauss(0, 1)) if sigma else median
        return min(drawn, 5 * median)

    def stamp(self, at: float) -> str:
        """The time `at` as the API writes it: ISO 8601, UTC, milliseconds, `Z`."""
        moment = datetime.fromtimestamp(self.epoch + at, UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"

    def media(self, name: str) -> str:
        """The address of a media file."""
        return f"{self.origin}/media/{name}"

    def whose(self, url: str) -> Clip | None:
        """The clip whose whole sound is the file at `url`, if that is one of the sandbox's own links."""
        name, dot, ending = url.removeprefix(self.media("")).partition(".")
        clip = self.clips.get(name) if dot and ending in ("mp3", "m4a", "wav") else None
        return clip if clip is not None and not clip.stem and url == self.media(f"{name}.{ending}") else None

    def clip(self, clip_id: str, now: float, *, text: str = "clip not found") -> Clip:
        """A clip that can be worked on: 404 for an unknown or failed one, 400 for one that is not done."""
        clip = self.clips.get(clip_id) if len(clip_id) <= ID else None
        if clip is None or (clip.failed and now >= clip.ends):
            raise not_found(text)
        if not clip.ready(now):
            raise invalid("The clip is not ready yet. Please wait until it has succeeded.")
        return clip

    def persona(self, persona_id: str, now: float) -> Persona:
        """A persona or voice that can sing."""
        persona = self.personas.get(persona_id) if len(persona_id) <= ID else None
        if persona is None or not persona.ready_at <= now < persona.expires:
            raise not_found("persona not found")
        return persona


def _ignore(work: Work) -> None:
    """No webhook is wanted."""


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
        clips: Sequence[Clip] = (),
        *,
        pairs: Sequence[tuple[Clip, Clip]] = (),
        pair_word: str = "extended",
        shape: Shape = "clips",
        webhook: tuple[str, str] | None = None,
    ) -> Work:
        """Take a task: settle its times and its fate, keep its clips."""
        service, draw, now = self.service, self.service.draw, self.now
        work = Work(service.new_id(), family, kind, "pairs" if pairs else shape, now, self.entry)
        work.clips, work.pairs, work.pair_word, work.webhook = list(clips), list(pairs), pair_word, webhook
        total = service.spread(spread)
        stream = min(service.durations.stream, 0.4 * total) * draw.uniform(0.85, 1.15)
        work.ready_at = now + stream * draw.uniform(0.3, 0.6)
        work.ends = now + total
        parts = [part for part, _ in pairs] or list(clips)
        late = draw.randrange(len(parts)) if parts else 0
        for index, clip in enumerate(parts):
            share = 1.0 if index == late else draw.uniform(*FIRST_OF_TWO)
            clip.starts = work.ready_at + (now + stream - work.ready_at) * draw.uniform(0.3, 0.8)
            clip.streams = now + stream * draw.uniform(0.95, 1.05)
            clip.ends = clip.file_at = max(now + total * share, clip.streams)
        for part, full in pairs:
            full.starts = part.ends
            full.streams = NEVER
            full.ends = full.file_at = part.ends + max(4.0, 0.1 * total)
        for clip in work.items():
            clip.created = now
            work.ends = max(work.ends, clip.ends)
        self._doom(work)
        for clip in work.items():
            service.clips.put(clip.clip_id, clip)
        service.works.put(work.task_id, work)
        self.entry.task_id = work.task_id
        if webhook is not None:
            service.on_work(work)
        return work

    def _doom(self, work: Work) -> None:
        fate = self.service.faults.pick("task", self.entry.method, self.entry.path)
        if fate is None:
            return
        self.entry.fault = self.entry.fault or fate.name
        items = list(work.items())
        match fate.name:
            case "fail":
                work.failed_at = work.ends = self.now + (work.ends - self.now) * 0.8
                work.failure = fate.text or self.service.choices.failure
                for clip in items:
                    clip.failed, clip.ends, clip.file_at = True, work.failed_at, NEVER
                self.service.account.refund_at(work.failed_at, self.parts, self.entry)
                work.refunded = True
            case "partial":
                for clip in items[-1:] if work.clips else ():
                    clip.failed, clip.file_at = True, NEVER
                for part, full in work.pairs[-1:]:
                    part.failed, part.file_at = True, NEVER
                    full.failed, full.ends, full.file_at = True, NEVER, NEVER
                work.ends = max(clip.ends for clip in items if clip.ends < NEVER)
            case "stuck":
                work.ends = NEVER
                for clip in items:
                    clip.ends = clip.file_at = NEVER
            case "late_file":
                for clip in items:
                    clip.file_at = clip.ends + fate.seconds
            case "odd_state":
                work.odd_state = fate.text or ""
            case _:
                pass


def submitted(call: Call, work: Work, **more: object) -> Reply:
    """The submit reply, in the form of the choice."""
    form = call.service.choices.submit
    if form == "nested":
        return Reply({"code": 200, "message": "success", "data": {"task_id": work.task_id}, **more})
    head: dict[str, object] = {"code": 200} if form == "code" else {}
    return Reply({**head, "message": "success", "task_id": work.task_id, **more})


def refused(refusal: Refusal, choices: Choices) -> Reply:
    """A refusal as a reply, its body in the form of the choice."""
    return Reply(in_form(refusal, choices.error), refusal.status, refusal.headers)
