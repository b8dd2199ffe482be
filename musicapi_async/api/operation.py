"""Declare an endpoint once: everything else follows from it.

```python
class Sonic(Family):
    create_music = submits("/sonic/create", CreateMusic, Clips)      # -> Task[Clips]
    create_persona = calls("/sonic/persona", CreatePersona, Persona)  # -> Persona
    get_music = polls(GetMusic)                                       # -> TaskUpdate
```

The public method with its exact typed signature, its help text, the local checks, the sandbox's route and
the command's options are all read off the declaration. A Struct class is a `Callable[P, Req]`, so a type
checker sees the keyword arguments of `CreateMusic` on `client.sonic.create_music`.
"""

from __future__ import annotations

import inspect
import math
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from functools import cached_property, partial
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    overload,
)
from urllib.parse import quote

import msgspec

from ..errors import BadRequestError
from .batches import Batch
from .direct_replies import Reply
from .operation_help import docstring_of, first_paragraph, misuse, signature_of
from .request import FieldInfo, GetMusic, Request, fields, unknown_words
from .results import Result, TaskUpdate
from .suggestions import did_you_mean
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Result)
ReplyT = TypeVar("ReplyT", bound=Reply)
Method = Literal["GET", "POST"]
Shape = Literal["sonic", "producer", "nuro", "riffusion", "studio", "lyrics"]
"""The shape that the responses to polls have."""

FAMILY: Final = "{family}"
"""Place of the family's word in the path of an operation that several families share."""

LONGEST_INTERVAL: Final = 60.0
"""Seconds between polls at most, however unlikely an end is: what is known of a kind may be out of date."""


class Polled(msgspec.Struct, frozen=True):
    """How tasks are polled: where, how the body is read, and when, in seconds since the submit.

    `first` and `interval` are floors: no poll before the age `first`, none sooner than `interval` after
    another. `deadline` is the default limit of a wait. By `quick` 5 % of such tasks are finished, by `slow`
    95 %: reported durations, a little widened; the schedule learns from there.
    """

    path: str
    shape: Shape
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
        """Return the call that polls a task, such as `GET /sonic/task/<id>`, for errors."""
        return f"GET {self.path.replace('{task_id}', quote(task_id, safe=''))}"


class Repeat(msgspec.Struct, frozen=True):
    """How a direct call is repeated while its result is being prepared.

    `every` and `deadline` are seconds; `on` is the reason: HTTP 202, or an empty result as well.
    """

    every: float
    deadline: float
    on: Literal["202", "empty"] = "202"


class Caller(Protocol):
    """The client, as an operation sees it."""

    async def submit(self, operation: Create[..., T], request: Request) -> Task[T]:
        """Send a create and return the handle of its task."""
        ...

    async def submit_batch(self, operation: SubmitsBatch[...], request: Request) -> Batch:
        """Send a create of several tasks and return their handles."""
        ...

    def call(self, operation: Direct[..., ReplyT], request: Request) -> Coroutine[Any, Any, ReplyT]:
        """Send a direct call and return its reply."""
        ...

    def poll(self, operation: Poll[...], request: Request) -> Coroutine[Any, Any, TaskUpdate]:
        """Poll a task once."""
        ...


class Operation(ABC, Generic[P, R]):
    """One endpoint, as declared: `Create`, `Direct` or `Poll`. On an instance of its family it is the method.

    `P` are the arguments of the method, `R` is what awaiting it gives.
    """

    submits: ClassVar[bool] = False
    """True if it gives one task."""
    creates: ClassVar[bool] = False
    """True if it makes tasks, so that it waits for the rate of creates."""

    def __init__(
        self,
        path: str,
        request: Callable[P, Request],
        *,
        method: Method = "POST",
        polled: Polled | None = None,
        charges: bool = True,
        resend: bool = False,
        attempt_timeout: float | None = None,
        repeat: Repeat | None = None,
        replacement: str | None = None,
    ) -> None:
        self._make: Final = request
        if not (isinstance(request, type) and issubclass(request, Request)):
            raise TypeError(f"{path}: {request!r} is no class of requests")
        self.request: type[Request] = request
        self.method: Final = method
        self.charges: Final = charges
        self.resend: Final = resend
        self.attempt_timeout: Final = attempt_timeout
        self.repeat: Final = repeat
        self.replacement: Final = replacement
        self.path: str = path
        self.call_name: str = f"{method} {path}"
        """Such as `POST /sonic/create`, for errors and logs."""
        self.polled = polled
        self.name: str = ""
        self.family: type[Family] = Family
        self._declared: Final = path, polled

    def __set_name__(self, owner: type[Family], name: str) -> None:
        if not self.name:  # an alias in another class does not rename it
            self.name = name
            self._enter(owner)

    def of(self, family: type[Family]) -> Self:
        """Return the same operation as one of another family: under its word, polled as its tasks are."""
        other = copy(self)
        other._enter(family)
        return other

    def _enter(self, family: type[Family]) -> None:
        path, polled = self._declared
        self.family = family
        self.polled = polled or self._polled_in(family)
        self.path = path.replace(FAMILY, family.word) if family.word else path
        self.call_name = f"{self.method} {self.path}"

    def _polled_in(self, family: type[Family]) -> Polled | None:
        """Return how tasks of this operation are polled where the declaration does not say it."""
        return family.polled

    @property
    @abstractmethod
    def reply(self) -> type[Result | Reply | TaskUpdate | Batch]:
        """The class of the result, of the reply, or of the update."""

    @abstractmethod
    def sender(self, caller: Caller) -> Callable[[Request], Coroutine[Any, Any, R]]:
        """Return the function that carries out this operation for a request."""

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Family, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Family | None, owner: type) -> Self | Callable[P, Coroutine[Any, Any, R]]:
        if instance is None:
            return self
        send = self.sender(instance.caller)

        async def method(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                request = self._make(*args, **kwargs)
            except TypeError as error:
                raise self.misused(args, kwargs, error) from None
            del args, kwargs  # they may hold a secret, and tracebacks can show the locals of a frame
            try:
                return await send(request)
            except BadRequestError as error:
                error.hint = " ".join(filter(None, [error.hint, unknown_words(request)]))
                raise

        # Stored in the family, where it is found the next time without asking here again.
        vars(instance)[self.name] = method
        method.__name__ = self.name
        method.__qualname__ = f"{self.family.__name__}.{self.name}"
        method.__doc__ = self.doc
        method.__module__ = self.family.__module__
        method.__signature__ = self.signature  # type: ignore[attr-defined]
        return method

    def public_method(self, caller: Caller) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return the public method; for code that chooses the operation while it runs."""
        return self.__get__(self.family(caller), self.family)

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the public method, read off the request."""
        return signature_of(
            self.request, types.GenericAlias(Task, (self.reply,)) if self.submits else self.reply
        )

    @property
    def fields(self) -> tuple[FieldInfo, ...]:
        """The fields of the request with their limits and help texts, those of most use first."""
        return fields(self.request)

    @cached_property
    def links(self) -> tuple[str, ...]:
        """The names of the fields that take a link."""
        return tuple(field.name for field in self.fields if field.link)

    @cached_property
    def doc(self) -> str:
        """The docstring of the public method: subject, cost, arguments, result and errors."""
        return docstring_of(
            self.request,
            self.call_name,
            self._returns(),
            family=self.family.word,
            charges=self.charges,
            resend=self.resend,
            replacement=self.replacement or self.family.replacement,
        )

    def _returns(self) -> str:
        return f"{self.reply.__name__}: {first_paragraph(self.reply)}"

    def misused(self, args: tuple[object, ...], given: Mapping[str, object], error: TypeError) -> TypeError:
        """Return the error that says what is wrong with arguments of the public method."""
        return misuse(f"{self.family.word}.{self.name}", self.request, args, given, error)

    def __repr__(self) -> str:
        return f"<{self.family.__name__}.{self.name}: {self.call_name}>"


class Create(Operation[P, Task[T]], Generic[P, T]):
    """A create: a POST that charges credits and gives a task whose result is a `T`."""

    submits: ClassVar[bool] = True
    creates: ClassVar[bool] = True

    def __init__(
        self,
        path: str,
        request: Callable[P, Request],
        result: type[T],
        *,
        polled: Polled | None = None,
        attempt_timeout: float | None = None,
        replacement: str | None = None,
    ) -> None:
        super().__init__(
            path, request, polled=polled, attempt_timeout=attempt_timeout, replacement=replacement
        )
        self._result: Final = result

    @property
    def reply(self) -> type[T]:
        return self._result

    def sender(self, caller: Caller) -> Callable[[Request], Coroutine[Any, Any, Task[T]]]:
        return partial(caller.submit, self)

    def _returns(self) -> str:
        return f"Task[{self.reply.__name__}]: the handle; `await task` waits for the result, which is free."


class SubmitsBatch(Operation[P, Batch]):
    """A create of several tasks in one call, each of which is paid for."""

    creates: ClassVar[bool] = True

    @property
    def reply(self) -> type[Batch]:
        return Batch

    def sender(self, caller: Caller) -> Callable[[Request], Coroutine[Any, Any, Batch]]:
        return partial(caller.submit_batch, self)


class Direct(Operation[P, ReplyT], Generic[P, ReplyT]):
    """A direct call, which is answered with its reply."""

    def __init__(
        self,
        path: str,
        request: Callable[P, Request],
        reply: type[ReplyT],
        *,
        method: Method = "POST",
        charges: bool = True,
        resend: bool = False,
        attempt_timeout: float | None = None,
        repeat: Repeat | None = None,
        replacement: str | None = None,
    ) -> None:
        super().__init__(
            path,
            request,
            method=method,
            charges=charges,
            resend=resend,
            attempt_timeout=attempt_timeout,
            repeat=repeat,
            replacement=replacement,
        )
        self._reply: Final = reply

    def _polled_in(self, family: type[Family]) -> Polled | None:
        return None

    @property
    def reply(self) -> type[ReplyT]:
        return self._reply

    def sender(self, caller: Caller) -> Callable[[Request], Coroutine[Any, Any, ReplyT]]:
        send = partial(caller.call, self)
        if not self._reply.echoed:
            return send

        async def send_and_echo(request: Request) -> ReplyT:
            reply = await send(request)
            for name in self._reply.echoed:
                if getattr(reply, name) is None:
                    setattr(reply, name, getattr(request, name))
            return reply

        return send_and_echo


class Poll(Operation[P, TaskUpdate]):
    """One poll of a task. Its path is that where the tasks are polled."""

    def __init__(self, request: Callable[P, GetMusic], *, polled: Polled | None = None) -> None:
        super().__init__("", request, method="GET", polled=polled, charges=False)

    def _enter(self, family: type[Family]) -> None:
        super()._enter(family)
        if self.polled is not None:
            self.path: str = self.polled.path
            self.call_name: str = f"GET {self.path}"

    @property
    def reply(self) -> type[TaskUpdate]:
        return TaskUpdate

    def sender(self, caller: Caller) -> Callable[[Request], Coroutine[Any, Any, TaskUpdate]]:
        return partial(caller.poll, self)


submits = Create
calls = Direct
polls = Poll
submits_batch = SubmitsBatch


class Family:
    """A family of endpoints: its operations are attributes.

    `word` is its name in paths and tokens, `polled` how its tasks are polled, `replacement` what to use
    instead of a deprecated family, None for a live one.
    """

    word: ClassVar[str] = ""
    polled: ClassVar[Polled | None] = None
    replacement: ClassVar[str | None] = None

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def __init_subclass__(cls) -> None:
        for name, operation in cls.operations().items():
            if name not in vars(cls) and operation.family.word != cls.word:
                setattr(cls, name, operation.of(cls))

    if not TYPE_CHECKING:  # type checkers know the operations

        def __getattr__(self, name):
            near = did_you_mean(name, self.operations())
            raise AttributeError(f"client.{self.word} has no operation {name!r}{near}")

    @classmethod
    def operations(cls) -> dict[str, Operation[..., Any]]:
        """Return all operations of the family by name, in the order of their declaration."""
        return {
            name: value
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if isinstance(value, Operation)
        }
