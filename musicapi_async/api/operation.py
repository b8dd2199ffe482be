"""Declare an endpoint once: everything else follows from it.

```python
class Sonic(Family):
    create_music = submits("/sonic/create", CreateMusic, Clips)      # -> Task[Clips]
    create_persona = calls("/sonic/persona", CreatePersona, Persona)  # -> Persona
```

The public method with its exact typed signature, its help text, the local checks, the sandbox's route and
the command's options are all read off the declaration. A Struct class is a `Callable[P, Req]`, so a type
checker sees the keyword arguments of `CreateMusic` on `client.sonic.create_music`.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import cached_property
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)
from urllib.parse import quote

import msgspec

from ..errors import BadRequestError
from ..options import Options
from .handle import Task
from .request import FieldInfo, Request, fields, unknown_words
from .results import Result
from .spelling import did_you_mean, is_folder, nearest

P = ParamSpec("P")
Req = TypeVar("Req", bound=Request)
R = TypeVar("R")
T = TypeVar("T", bound=Result)


LONGEST_INTERVAL: Final = 60.0
"""Seconds between two polls of a task at most, however it is scheduled."""


class Polled(msgspec.Struct, frozen=True):
    """How tasks of a family are polled: where, how the body is read, and the documented times in seconds.

    `first` is the earliest first look, `interval` the least time between looks, `deadline` the default
    limit of a wait (the contract's table of defaults). By `quick` 5 % of such tasks are finished, by `slow`
    95 %: reported durations, a little widened; where the learned schedule starts from.
    """

    path: str
    shape: Literal["sonic", "producer", "nuro", "riffusion", "studio", "lyrics"]
    first: float
    interval: float
    deadline: float
    quick: float = 30.0
    slow: float = 240.0

    def __post_init__(self) -> None:
        if not (0 <= self.first < math.inf and 0 < self.interval <= LONGEST_INTERVAL and self.deadline > 0):
            raise ValueError(
                f"times: first >= 0, 0 < interval <= {LONGEST_INTERVAL:g} and deadline > 0 are needed, got "
                f"{self.first!r}, {self.interval!r} and {self.deadline!r}"
            )
        if not 0 < self.quick < self.slow < math.inf:
            raise ValueError(f"times: 0 < quick < slow is needed, got {self.quick!r} and {self.slow!r}")

    def call_for(self, task_id: str) -> str:
        """The call for a task, such as `GET /sonic/task/<id>`, for errors."""
        return f"GET {self.path.replace('{task_id}', quote(task_id, safe=''))}"


class Repeat(msgspec.Struct, frozen=True):
    """A direct call that is sent again while its result is being prepared: the interval and the limit in
    seconds, and on what: HTTP 202 ('202'), or an empty result as well ('empty')."""

    every: float
    deadline: float
    on: Literal["202", "empty"] = "202"


class Caller(Protocol):
    """The client, as an operation sees it."""

    async def submit(self, operation: Operation[Any, Any], request: Request) -> Task[Any]:
        """Send a create and return the handle of its task."""
        ...

    async def call(self, operation: Operation[Any, Any], request: Request) -> Any:
        """Send a direct call and return its reply."""
        ...


class Operation(Generic[P, R]):
    """One endpoint, as declared. On an instance of its family it is the public method."""

    def __init__(
        self,
        path: str,
        request: Callable[P, Any],
        reply: type[Any],
        *,
        submits: bool,
        method: Literal["GET", "POST"] = "POST",
        polled: Polled | None = None,
        charges: bool = True,
        resend: bool = False,
        attempt_timeout: float | None = None,
        repeat: Repeat | None = None,
        replacement: str | None = None,
    ) -> None:
        self.path: Final = path
        self.call_name: Final = f"{method} {path}"
        """Such as `POST /sonic/create`, for errors and logs."""
        self.request = cast("type[Request]", request)
        self.reply = reply
        self.submits: Final = submits
        self.method: Final = method
        self.polled: Final = polled
        self.charges: Final = charges
        self.resend: Final = resend
        self.attempt_timeout: Final = attempt_timeout
        self.repeat: Final = repeat
        self.replacement: Final = replacement
        self.name = ""
        self.family: type[Family] = Family

    def __set_name__(self, owner: type[Family], name: str) -> None:
        if not self.name:  # an alias in another class does not rename it
            self.name = name
            self.family = owner

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Family, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Family | None, owner: type) -> Self | Callable[P, Coroutine[Any, Any, R]]:
        if instance is None:
            return self
        send = instance.caller.submit if self.submits else instance.caller.call

        async def method(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                request = self.request(*args, **kwargs)
            except TypeError as error:
                raise self.misused(args, kwargs, error) from None
            del args, kwargs  # they may hold a secret, and tracebacks can show the locals of a frame
            try:
                return cast("R", await send(self, request))
            except BadRequestError as error:
                error.hint = " ".join(filter(None, [error.hint, unknown_words(request)]))
                raise

        # Kept on the family, where it is found the next time without asking here again.
        vars(instance)[self.name] = method
        method.__name__ = self.name
        method.__qualname__ = f"{self.family.__name__}.{self.name}"
        method.__doc__ = self.doc
        method.__module__ = self.family.__module__
        method.__signature__ = self.signature  # type: ignore[attr-defined]
        return method

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the public method, read off the request."""
        plain = get_type_hints(self.request)
        own = list(inspect.signature(self.request).parameters.values())
        if own and own[0].kind is inspect.Parameter.KEYWORD_ONLY:
            own.sort(key=_importance)
        returns: Any = types.GenericAlias(Task, (self.reply,)) if self.submits else self.reply
        return inspect.Signature(
            [parameter.replace(annotation=_union(plain[parameter.name])) for parameter in own],
            return_annotation=returns,
        )

    @property
    def fields(self) -> tuple[FieldInfo, ...]:
        """The fields of the request with their limits and help texts."""
        return fields(self.request)

    @cached_property
    def doc(self) -> str:
        """The docstring of the public method: what it does, what it costs, its arguments, what it raises."""
        about = inspect.cleandoc(self.request.__doc__ or "")
        cost = "Charges credits." if self.charges else "Free."
        lines = [about, "", f"`{self.call_name}`. {cost} {self._sending()}", "", "Arguments:"]
        plain = get_type_hints(self.request)
        for field in self.fields:
            kind = inspect.formatannotation(_union(plain[field.name]))
            need = "required" if field.required else "optional"
            told = " ".join(part for part in (field.description, f"({field.limit})") if part)
            lines.append(f"    {field.name} ({kind}, {need}): {told}")
        returns = f"Task[{self.reply.__name__}]" if self.submits else self.reply.__name__
        lines += ["", f"Returns `{returns}`.", "", _RAISES]
        instead = self.replacement or self.family.replacement
        if instead:
            lines += ["", f"Deprecated by the service; use {instead} instead."]
        return "\n".join(lines)

    def _sending(self) -> str:
        if not self.charges or self.resend:
            return "May be repeated freely; repeated for you after passing failures."
        return "Sent at most once: never repeated after it may have left."

    def misused(self, args: tuple[object, ...], given: Mapping[str, object], error: TypeError) -> TypeError:
        """What is wrong with the arguments, and what is right."""
        known = self.signature.parameters
        name = f"{self.family.word}.{self.name}()"
        unknown = [one for one in given if one not in known]
        options = [one for one in unknown if one in Options.__struct_fields__]
        if options:
            told = f"takes no {options[0]!r}: that is an option, client.with_options({options[0]}=...)"
        elif unknown:
            told = "has no argument " + ", ".join(_no_argument(one, known) for one in unknown)
            if not any(nearest(one, known) or is_folder(one) for one in unknown):
                told += f"; there are {', '.join(known)}"
        else:
            named = args and next(iter(known.values())).kind is inspect.Parameter.KEYWORD_ONLY
            needed = [one for one, about in known.items() if about.default is about.empty]
            lacking = [one for one in needed if one not in given and one not in list(known)[: len(args)]]
            listed = [
                words for field in self.fields if field.name in lacking and (words := field.known_words)
            ]
            told = f"needs {', '.join(lacking)}" if lacking else f"cannot be called so: {error}"
            told = "; ".join([told, *listed])
            if named:
                told = f"takes arguments by name only, such as {next(iter(known))}=..."
        return TypeError(f"{name} {told}")

    def __repr__(self) -> str:
        return f"<{self.family.__name__}.{self.name}: {self.call_name}>"


def _no_argument(name: str, known: Iterable[str]) -> str:
    near = did_you_mean(name, known)
    if not near and is_folder(name):
        near = " (to save the files: client.download(await task.wait(), folder))"
    return f"{name!r}{near}"


_RAISES: Final = (
    "Raises `RequestValidationError` before sending, `OutcomeUnknownError` when a paid call may have been\n"
    "carried out, `APIStatusError` and its kinds when the service refuses, `APIConnectionError` when it\n"
    "cannot be reached."
)


def _importance(parameter: inspect.Parameter) -> int:
    if parameter.default is inspect.Parameter.empty:
        return 0
    return 2 if parameter.name.startswith("webhook_") else 1


def _union(hint: Any) -> Any:
    """`Optional[str]`, which is how typing spells it at run time, as `str | None`."""
    if get_origin(hint) is Union:
        union = get_args(hint)[0]
        for member in get_args(hint)[1:]:
            union = union | member
        return union
    return hint


class Family:
    """A family of endpoints: its operations are attributes. `word` is its name in paths and tokens."""

    word: ClassVar[str] = ""
    replacement: ClassVar[str | None] = None
    """What to use instead of a deprecated family; None for a live one."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    @classmethod
    def operations(cls) -> dict[str, Operation[Any, Any]]:
        """All operations of the family by name, in the order of their declaration."""
        return {
            name: value
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if isinstance(value, Operation)
        }


def submits(
    path: str,
    request: Callable[P, Request],
    result: type[T],
    *,
    polled: Polled,
    attempt_timeout: float | None = None,
    replacement: str | None = None,
) -> Operation[P, Task[T]]:
    """Declare a create: a POST that charges credits and gives a task, polled as `polled` says."""
    return Operation(
        path,
        request,
        result,
        submits=True,
        polled=polled,
        attempt_timeout=attempt_timeout,
        replacement=replacement,
    )


def calls(
    path: str,
    request: Callable[P, Request],
    reply: type[R],
    *,
    method: Literal["GET", "POST"] = "POST",
    charges: bool = True,
    resend: bool = False,
    attempt_timeout: float | None = None,
    repeat: Repeat | None = None,
    polled: Polled | None = None,
    replacement: str | None = None,
) -> Operation[P, R]:
    """Declare a direct call. `charges=False` or `resend=True` allow it to be repeated after failures."""
    return Operation(
        path,
        request,
        reply,
        submits=False,
        method=method,
        charges=charges,
        resend=resend,
        attempt_timeout=attempt_timeout,
        repeat=repeat,
        polled=polled,
        replacement=replacement,
    )
