"""Fault injection: scripted for one request, or at random by seed.

```python
sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)            # the next create
sandbox.faults.on("GET", "/sonic/task/*", Fault.status(503, body=None), times=2, after=1)
sandbox.faults.on("POST", "/sonic/create", Fault.fail("timeout-504"))    # its task will fail
sandbox.faults.on("WEBHOOK", "song.completed", Fault.duplicate)
Sandbox(faults=Faults(seed=7, rates={Fault.reset_after: 0.02, Fault.status(429, retry_after=2): 0.05}))
```

From outside of Python the same are texts, or JSON with the same words: `"POST /sonic/create reset_after"`,
`"GET /sonic/task/* 503*2 after=1"`, `"WEBHOOK song.completed duplicate"` (`fault_texts`).

Faults of the wire act below HTTP: a reset is a TCP reset. Those named `..._before` (and `refuse`, `status`,
`garbage` with `taken=False`) act before the request is taken: nothing is charged and no task exists.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Final, Literal

from .declared_settings import check_type, checked, read_values
from .reply_choices import Choices

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
    """A failure of a request, a task or a webhook. Make one with the functions and constants below."""

    name: str
    scope: Scope = "request"
    taken: bool = False
    """True if the request is carried out (and charged) before the fault acts."""
    code: int = 0
    seconds: float = 0.0
    text: str | None = None
    retry_after: str | None = None

    refuse: ClassVar[Fault]
    """The connection is closed in good order without a response; the request is not taken."""
    reset_before: ClassVar[Fault]
    """A TCP reset; the request is not taken."""
    reset_after: ClassVar[Fault]
    """A TCP reset instead of the response; the request was taken and charged."""
    hang: ClassVar[Fault]
    """The request is taken, and there is no response."""
    hang_before: ClassVar[Fault]
    """The request is not taken, and there is no response."""
    truncate: ClassVar[Fault]
    """Half of the response's body, then the connection closes; the request was taken."""
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
    @checked
    def status(
        code: int, *, body: str | None = "", retry_after: float | str | None = None, taken: bool = False
    ) -> Fault:
        """Return a fault: an HTTP error.

        Args:
            code: The status.
            body: The text of the body; "" is the documented one of the status, None is no body.
            retry_after: Retry-After, in seconds or as it is sent.
            taken: True if the request is carried out, and charged, before the error.
        """
        if not 200 <= code <= 599:
            raise ValueError(f"code must be an HTTP status of 200 to 599, got {code!r}")
        text = _REASONS.get(code, "{}") if body == "" else body
        hint = f"{retry_after:g}" if isinstance(retry_after, int | float) else retry_after
        return Fault("status", taken=taken, code=code, text=text, retry_after=hint)

    @staticmethod
    @checked
    def slow(seconds: float) -> Fault:
        """Return a fault: the request is taken at once, and its response comes `seconds` (API time) later."""
        return Fault("slow", taken=True, seconds=_wait(seconds))

    @staticmethod
    @checked
    def trickle(rate: float) -> Fault:
        """Return a fault: the body comes at `rate` bytes per second (API time), as from a slow media host."""
        if not 0 < rate < math.inf:
            raise ValueError(f"rate must be a positive number of bytes per second, got {rate!r}")
        return Fault("trickle", taken=True, seconds=rate)

    @staticmethod
    @checked
    def fail(form: str = "") -> Fault:
        """Return a fault: the task fails and is refunded.

        `form` is a word of `Choices.failure`; "" is the one that is chosen there.
        """
        if form:
            read_values(Choices, {"failure": form})
        return Fault("fail", "task", True, text=form)

    @staticmethod
    def partial() -> Fault:
        """Return a fault: one clip of the task fails, the others succeed."""
        return Fault("partial", "task", True)

    @staticmethod
    def stuck() -> Fault:
        """Return a fault: the task runs for ever."""
        return Fault("stuck", "task", True)

    @staticmethod
    @checked
    def late_file(seconds: float) -> Fault:
        """Return a fault: clips succeed `seconds` before their files exist (404 until then)."""
        return Fault("late_file", "task", True, seconds=_wait(seconds))

    @staticmethod
    @checked
    def odd_state(word: str) -> Fault:
        """Return a fault: while the clips run, their `state` is an unknown word."""
        return Fault("odd_state", "task", True, text=word)

    @staticmethod
    def fail_step() -> Fault:
        """Return a fault: of upload-extend, upload-cover and sample the second step fails, free of charge."""
        return Fault("fail_step", "step", True)

    @staticmethod
    @checked
    def late(seconds: float) -> Fault:
        """Return a fault: a webhook is delivered `seconds` later than due."""
        return Fault("late", "webhook", True, seconds=_wait(seconds))

    def once_taken(self) -> Fault:
        """Return the same fault, but after the request was carried out and charged."""
        return replace(self, taken=True)


def _wait(seconds: float) -> float:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be a number of at least 0, got {seconds!r}")
    return seconds


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
class FaultScript:
    """A fault for the next requests that match; `times` counts down, and None is for all of them."""

    method: str
    path: str
    fault: Fault
    times: int | None
    after: int


class Faults:
    """The scripted and the random faults. `rates` gives each fault a probability per request that it can hit.

    Random wire faults hit API requests, never media; random task faults hit creates. One draw is made
    per request and scope, so rates add up and must not exceed 1.
    """

    @checked
    def __init__(self, *, seed: int = 0, rates: Mapping[Fault, float] | None = None) -> None:
        self._draw = random.Random(f"faults:{seed}")
        self._scripts: list[FaultScript] = []
        self._rates: dict[Fault, float] = {}
        for fault, rate in (rates or {}).items():
            self.at_random(fault, rate)

    @property
    def scripts(self) -> Sequence[FaultScript]:
        """The scripts that can still act, in their order."""
        return tuple(self._scripts)

    @property
    def rates(self) -> Mapping[Fault, float]:
        """The probability of each random fault per request that it can hit."""
        return dict(self._rates)

    def at_random(self, fault: Fault, rate: float) -> Faults:
        """Inject a fault into a share (0 to 1) of the requests that it can hit; 0 ends it; return these."""
        _check_fault(fault)
        check_type("rate", rate, float)
        rates = {**self._rates, fault: rate}
        if rate == 0:
            del rates[fault]
        for scope in ("request", "task", "step", "webhook"):
            chances = [rate for fault, rate in rates.items() if fault.scope == scope]
            if any(not 0 <= rate <= 1 for rate in chances) or sum(chances) > 1 + 1e-9:
                raise ValueError(
                    f"the rates of {scope} faults must be 0-1 and add up to at most 1: {chances}"
                )
        self._rates = rates
        return self

    def on(self, method: str, path: str, fault: Fault, *, times: int | None = 1, after: int = 0) -> Faults:
        """Inject a fault into the next requests that match. If several scripts match, the first one acts.

        Args:
            method: The method, or "*" for all; for webhooks it is "WEBHOOK".
            path: The path below `/api/v1` (or `/media/...`), with `*` for any text; of a webhook its
                event, such as "song.completed".
            fault: The fault.
            times: The number of requests to hit; None for all.
            after: The number of matching requests that pass before.

        Returns:
            These faults, so that calls can be chained.

        Raises:
            TypeError: if `fault` is no `Fault`.
            ValueError: if the fault can never hit such a request, or a number is out of range.
        """
        _check_fault(fault)
        for name, text in (("method", method), ("path", path)):
            check_type(name, text, str)
        for name, count in (("times", 1 if times is None else times), ("after", after)):
            check_type(name, count, int)
        if fault.scope == "webhook" and method.upper() not in ("WEBHOOK", "*"):
            raise ValueError(f"{fault.name} is a fault of webhooks: method must be 'WEBHOOK', got {method!r}")
        if fault.scope != "webhook" and method.upper() == "WEBHOOK":
            raise ValueError(f"{fault.name} is no fault of webhooks: method must not be 'WEBHOOK'")
        if fault.scope in ("task", "step") and method.upper() not in ("POST", "*"):
            raise ValueError(f"{fault.name} is a fault of tasks: method must be 'POST', got {method!r}")
        if "{" in path:
            raise ValueError(f"path must have * for any text, as in /sonic/task/*, got {path!r}")
        if after < 0 or (times is not None and times < 1):
            raise ValueError(f"times must be at least 1 and after at least 0, got {times} and {after}")
        self._scripts.append(FaultScript(method.upper(), path, fault, times, after))
        return self

    def clear(self) -> None:
        """Remove all scripts and rates."""
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


def _check_fault(fault: object) -> None:
    """Refuse anything but a `Fault` where it is set, and not when a request comes."""
    if isinstance(fault, Fault):
        return
    hint = ""
    if callable(fault):
        hint = f": call it, as in Fault.{getattr(fault, '__name__', 'fail')}(...)"
    raise TypeError(f"fault must be a Fault, such as Fault.refuse or Fault.status(503), got {fault!r}{hint}")
