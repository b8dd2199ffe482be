"""Faults as texts and as JSON, for users of other languages; read off the declaration of `Fault`.

A text is `METHOD PATH FAULT`, then options: `"POST /sonic/create 429*2 retry_after=2"`. FAULT is the name of
a fault, or a number for `status`; `*2` means two requests, `*` alone all of them. JSON has the same words:
`{"method": "POST", "path": "/sonic/create", "fault": "status", "code": 429, "retry_after": 2, "times": 2}`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Final

from ..api.suggestions import did_you_mean
from .declared_settings import Setting, WrongSetting, docstrings, parameters_of
from .faults import Fault, Faults, FaultScript, Scope
from .routes import BATCH, POLLS, POSTS

EVENTS: Final = ("song.streaming", "song.completed", "song.failed")
"""The events of webhooks (vendor's page on webhooks)."""

EXAMPLE: Final = "'POST /sonic/create 429*2', 'GET /media/* truncate', 'WEBHOOK song.completed lost'"

COMMON: Final = (
    Setting("method", str, "POST", "The method; `*` for all; WEBHOOK for a delivery."),
    Setting("path", str, "*", "The path below `/api/v1`, or `/media/...`, with `*` for any text; an event."),
    Setting("times", int | None, 1, "The number of requests to hit; null for all."),
    Setting("after", int, 0, "The number of matching requests that pass before."),
    Setting("rate", float, None, "A probability instead: the share of all requests that the fault hits."),
)

_TAKEN: Final = Setting("taken", bool, False, "True if the request is carried out, and charged, before.")


@dataclass(frozen=True, slots=True)
class FaultWord:
    """The name of a fault, the options that it has, and what it does."""

    name: str
    scope: Scope
    make: Callable[..., Fault]
    options: Mapping[str, Setting]
    help: str


@cache
def fault_words() -> Mapping[str, FaultWord]:
    """Return every fault that `Fault` declares, by name."""
    words: dict[str, FaultWord] = {}
    constants = docstrings(Fault)
    for name, declared in vars(Fault).items():
        if isinstance(declared, Fault):
            options = {"taken": _TAKEN} if declared.scope == "request" else {}
            make = _with_taken(declared)
            words[name] = FaultWord(name, declared.scope, make, options, constants.get(name, ""))
        elif isinstance(declared, staticmethod):
            make = getattr(Fault, name)
            text = (inspect.getdoc(make) or "").partition("\n")[0].removeprefix("Return a fault: ")
            words[name] = FaultWord(name, _SCOPES.get(name, "request"), make, parameters_of(make), text)
    return words


_SCOPES: Final[Mapping[str, Scope]] = {
    "fail": "task",
    "partial": "task",
    "stuck": "task",
    "late_file": "task",
    "odd_state": "task",
    "fail_step": "step",
    "late": "webhook",
}


_METHODS: Final[Mapping[Scope, str]] = {"task": "POST", "step": "POST", "webhook": "WEBHOOK"}
"""The one method of the requests that a fault of a scope can hit."""


def _with_taken(fault: Fault) -> Callable[..., Fault]:
    def make(*, taken: bool = False) -> Fault:
        return fault.once_taken() if taken else fault

    return make


def parse(text: str) -> dict[str, object]:
    """Return a text as the JSON object that means the same. Raises `WrongSetting`."""
    words = text.split()
    if len(words) < 3:
        raise WrongSetting(f"a fault is METHOD PATH FAULT, such as {EXAMPLE}, got {text!r}")
    method, path, fault, *options = words
    name, star, times = fault.partition("*")
    values: dict[str, object] = {"method": method, "path": path, "fault": name}
    if name.isdecimal():
        values |= {"fault": "status", "code": name}
    if star:
        values["times"] = times or "null"
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise WrongSetting(f"an option of a fault is name=value, such as after=1, got {option!r}")
        values[key] = value
    return values


def add(faults: Faults, given: Mapping[str, object] | str) -> None:
    """Add the fault that a text, or a JSON object, describes; raises `WrongSetting` and adds nothing else."""
    texts = isinstance(given, str)
    values = parse(given) if isinstance(given, str) else dict(given)
    word = _word(values.pop("fault", None))
    known = {setting.name: setting for setting in COMMON} | dict(word.options)
    read = {name: _read(word, known, name, value, texts=texts) for name, value in values.items()}
    own = {name: read.pop(name) for name in word.options if name in read}
    absent = [name for name in required(word) if name not in own]
    if absent:
        raise WrongSetting(f"{word.name} needs {' and '.join(absent)}")
    method, path = str(read.get("method", "POST")), str(read.get("path", "*"))
    _check_path(word, method.upper(), path)
    try:
        fault = word.make(**own)
        rate, times, after = read.get("rate"), read.get("times", 1), read.get("after", 0)
        if isinstance(rate, float):
            every = {"*", _METHODS.get(word.scope, "*")}
            if path != "*" or read.get("method", "*") not in every or {"times", "after"} & read.keys():
                text = f"a fault with a rate hits any request, as in '* * {word.name} ... rate={rate:g}'"
                raise WrongSetting(f"{text}, and has neither times nor after")
            faults.at_random(fault, rate)
        else:
            count = times if isinstance(times, int) else None
            faults.on(method, path, fault, times=count, after=after if isinstance(after, int) else 0)
    except (ValueError, TypeError) as error:
        raise WrongSetting(str(error)) from None


def required(word: FaultWord) -> list[str]:
    """Return the options that a fault cannot do without."""
    signature = inspect.signature(word.make).parameters
    return [name for name in word.options if signature[name].default is inspect.Parameter.empty]


def _word(name: object) -> FaultWord:
    words = fault_words()
    found = words.get(name) if isinstance(name, str) else None
    if found is None:
        near = did_you_mean(name, words) if isinstance(name, str) else ""
        raise WrongSetting(f"fault must be a status such as 503, or one of {', '.join(words)}{near}")
    return found


def _read(word: FaultWord, known: Mapping[str, Setting], name: str, value: object, *, texts: bool) -> object:
    setting = known.get(name)
    if setting is None:
        raise WrongSetting(f"{word.name} has no option {name!r}; it has {', '.join(known)}")
    return setting.read_text(value) if texts and isinstance(value, str) else setting.read(value)


def _check_path(word: FaultWord, method: str, path: str) -> None:
    """Refuse a path that no request can have: the fault would wait for ever."""
    if method == "WEBHOOK":
        if not any(fnmatchcase(event, path) for event in EVENTS):
            raise WrongSetting(f"path must match an event ({', '.join(EVENTS)}), got {path!r}")
        return
    if method not in ("*", "GET", "POST", "HEAD"):
        raise WrongSetting(f"method must be GET, POST, HEAD, WEBHOOK or *, got {method!r}")
    if word.scope == "webhook":
        return
    known = [*POSTS, *(f"{poll}/id" for poll in POLLS), "/get-credits", BATCH]
    media = path.startswith(("/media/", "/audiopipe/"))
    if not media and not any(fnmatchcase(name, path) or _same_poll(name, path) for name in known):
        raise WrongSetting(f"path must match a path of the API below /api/v1{did_you_mean(path, known)}")


def _same_poll(name: str, path: str) -> bool:
    """Return True if `path` is the poll of one task."""
    return name.endswith("/id") and name.rpartition("/")[0] == path.rpartition("/")[0]


def described(script: FaultScript) -> dict[str, object]:
    """Return a fault that is still to act, as JSON."""
    fault = described_fault(script.fault)
    return {
        "method": script.method,
        "path": script.path,
        **fault,
        "times": script.times,
        "after": script.after,
    }


def described_fault(fault: Fault) -> dict[str, object]:
    """Return what a fault does, as JSON: its name, and the options that it was made with."""
    names = {
        "code": fault.code,
        "seconds": fault.seconds,
        "text": fault.text,
        "retry_after": fault.retry_after,
    }
    return {
        "fault": fault.name,
        "taken": fault.taken,
        **{name: value for name, value in names.items() if value},
    }
