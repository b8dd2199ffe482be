"""Faults on purpose: scripted for one request, or at random by seed.

```python
sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)            # the next create
sandbox.faults.on("GET", "/sonic/task/*", Fault.status(503, body=None), times=2, after=1)
sandbox.faults.on("POST", "/sonic/create", Fault.fail("timeout-504"))    # its task will fail
sandbox.faults.on("WEBHOOK", "song.completed", Fault.duplicate)
Sandbox(faults=Faults(seed=7, rates={Fault.reset_after: 0.02, Fault.status(429, retry_after=2): 0.05}))
```

Faults of the wire act below HTTP: a reset is a TCP reset. Those named `..._before` (and `refuse`, `status`,
`garbage` with `taken=False`) act before the request is taken: nothing is charged and no task exists.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Final, Literal

Scope = Literal["request", "task", "step", "webhook"]

_REASONS: Final = {
    429: '{"type":"rate_limited","error":"Too many requests."}',
    500: '{"type":"internal_error","error":"Internal Server Error."}',
    502: '{"type":"upstream_error","error":"Provider did not return a job id"}',
    503: '{"message":"Sonic API under maintenance"}',
    504: '{"message":"Gateway Timeout"}',
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to go wrong. Use the names below rather than the constructor."""

    name: str
    scope: Scope = "request"
    taken: bool = False
    """True if the request is carried out (and charged) before the fault acts."""
    code: int = 0
    seconds: float = 0.0
    text: str | None = None
    retry_after: str | None = None

    refuse: ClassVar[Fault]
    """The connection is closed in good order without an answer; the request is not taken."""
    reset_before: ClassVar[Fault]
    """A TCP reset; the request is not taken."""
    reset_after: ClassVar[Fault]
    """A TCP reset instead of the answer; the request was taken and charged."""
    hang: ClassVar[Fault]
    """The request is taken and never answered."""
    hang_before: ClassVar[Fault]
    """The request is neither taken nor answered."""
    truncate: ClassVar[Fault]
    """Half of the answer's body, then the connection closes; the request was taken."""
    garbage: ClassVar[Fault]
    """A 200 whose body is no JSON (and no text); the request was taken."""
    html: ClassVar[Fault]
    """A 200 with a gateway's HTML page; the request was taken."""
    duplicate: ClassVar[Fault]
    """Webhook: delivered twice with the same id."""
    lost: ClassVar[Fault]
    """Webhook: never delivered."""
    wrong_secret: ClassVar[Fault]
    """Webhook: signed with another key."""
    old_timestamp: ClassVar[Fault]
    """Webhook: signed correctly, but 15 minutes ago."""
    unsigned: ClassVar[Fault]
    """Webhook: without the signature header."""
    reordered: ClassVar[Fault]
    """Webhook `song.streaming`: delivered after the task's last event."""

    @staticmethod
    def status(
        code: int, *, body: str | None = "", retry_after: float | str | None = None, taken: bool = False
    ) -> Fault:
        """An HTTP error; `body` "" is the documented one, None is empty, other text is sent as it is."""
        text = _REASONS.get(code, "{}") if body == "" else body
        hint = f"{retry_after:g}" if isinstance(retry_after, int | float) else retry_after
        return Fault("status", taken=taken, code=code, text=text, retry_after=hint)

    @staticmethod
    def slow(seconds: float) -> Fault:
        """The request is taken at once and answered `seconds` (API time) later."""
        return Fault("slow", taken=True, seconds=seconds)

    @staticmethod
    def fail(form: str = "") -> Fault:
        """The task fails and is refunded, as `form` says (a word of `Choices.failure`; "" is its default)."""
        return Fault("fail", "task", True, text=form)

    @staticmethod
    def partial() -> Fault:
        """One clip of the task fails, the others succeed."""
        return Fault("partial", "task", True)

    @staticmethod
    def stuck() -> Fault:
        """The task runs for ever."""
        return Fault("stuck", "task", True)

    @staticmethod
    def late_file(seconds: float) -> Fault:
        """Clips are shown as succeeded `seconds` before their files exist (404 until then)."""
        return Fault("late_file", "task", True, seconds=seconds)

    @staticmethod
    def odd_state(word: str) -> Fault:
        """While the clips run, their `state` is an unknown word."""
        return Fault("odd_state", "task", True, text=word)

    @staticmethod
    def fail_step() -> Fault:
        """upload-extend, upload-cover, sample: the upload succeeds, the second step fails, free of charge."""
        return Fault("fail_step", "step", True)

    @staticmethod
    def late(seconds: float) -> Fault:
        """Webhook: delivered `seconds` later than due."""
        return Fault("late", "webhook", True, seconds=seconds)

    def once_taken(self) -> Fault:
        """Return the same fault, acting after the request was taken."""
        return replace(self, taken=True)


Fault.refuse = Fault("refuse")
Fault.reset_before = Fault("reset_before")
Fault.reset_after = Fault("reset_after", taken=True)
Fault.hang = Fault("hang", taken=True)
Fault.hang_before = Fault("hang_before")
Fault.truncate = Fault("truncate", taken=True)
Fault.garbage = Fault("garbage", taken=True)
Fault.html = Fault("html", taken=True)
Fault.duplicate = Fault("duplicate", "webhook", True)
Fault.lost = Fault("lost", "webhook", True)
Fault.wrong_secret = Fault("wrong_secret", "webhook", True)
Fault.old_timestamp = Fault("old_timestamp", "webhook", True)
Fault.unsigned = Fault("unsigned", "webhook", True)
Fault.reordered = Fault("reordered", "webhook", True, seconds=5.0)


@dataclass(slots=True)
class _Script:
    method: str
    path: str
    fault: Fault
    times: int | None
    after: int


class Faults:
    """The script and the dice. `rates` gives each fault a chance between 0 and 1 per request that it can hit.

    Random wire faults hit API requests, never media; random task faults hit creates. One draw is made
    per request and scope, so rates add up and must not exceed 1.
    """

    def __init__(self, *, seed: int = 0, rates: Mapping[Fault, float] | None = None) -> None:
        self._draw = random.Random(f"faults:{seed}")
        self._rates = dict(rates or {})
        self._scripts: list[_Script] = []
        for scope in ("request", "task", "step", "webhook"):
            chances = [rate for fault, rate in self._rates.items() if fault.scope == scope]
            if any(not 0 <= rate <= 1 for rate in chances) or sum(chances) > 1 + 1e-9:
                raise ValueError(
                    f"the rates of {scope} faults must be 0-1 and add up to at most 1: {chances}"
                )

    def on(self, method: str, path: str, fault: Fault, *, times: int | None = 1, after: int = 0) -> Faults:
        """Hit the next `times` requests (None: all) that match, letting `after` of them pass first.

        `path` is below `/api/v1` (or `/media/...`) and may hold `*`. For webhooks the method is `WEBHOOK`
        and the path the event, such as `song.completed` or `*`. Scripts are tried in the order given.
        """
        self._scripts.append(_Script(method.upper(), path, fault, times, after))
        return self

    def clear(self) -> None:
        """Forget all scripts and rates."""
        self._scripts.clear()
        self._rates.clear()

    def pick(self, scope: Scope, method: str, path: str, *, random_too: bool = True) -> Fault | None:
        """Return the fault that hits this request, if any; counts the scripts down."""
        for script in self._scripts:
            if (
                script.fault.scope != scope
                or script.method not in ("*", method)
                or not fnmatchcase(path, script.path)
            ):
                continue
            if script.after > 0:
                script.after -= 1
                continue
            if script.times is not None:
                script.times -= 1
                if script.times <= 0:
                    self._scripts.remove(script)
            return script.fault
        chances = [(fault, rate) for fault, rate in self._rates.items() if fault.scope == scope]
        if not random_too or not chances:
            return None
        point = self._draw.random()
        for fault, rate in chances:
            point -= rate
            if point < 0:
                return fault
        return None
