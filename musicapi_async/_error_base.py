"""The base of all errors: their fields, the sentences of their text, and their pickling.

`errors` has the tree. A value that does not pickle would hang a process pool for ever. A body of a peer may
be nested deeper than pickle allows, and errors of other libraries may hold live objects, so both are cut to
what pickles.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final, Self, TypedDict, TypeVar, cast

T = TypeVar("T")


class ErrorFields(TypedDict, total=False):
    """Fields that every error takes; see `MusicAPIError`."""

    hint: str
    call: str
    task_id: str | None
    family: str | None
    may_have_been_charged: bool
    not_charged: bool


class MusicAPIError(Exception):
    """The base class of all errors of this package.

    `checkpoint` is set if a step of a workflow failed (`musicapi_async.workflows`): pass it to the workflow
    to continue from that step. An error with neither `may_have_been_charged` nor `not_charged` says nothing
    about money.

    Args:
        message: what happened.
        hint: what to do next.
        call: the call that failed, such as `POST /sonic/create`; '' if there was none.
        task_id: the id of the task that the error is about; None if there is none.
        family: the family of that task.
        may_have_been_charged: True if the call may have spent credits and no response proves it.
        not_charged: True if it is proven that the call was not carried out.
    """

    default_hint: ClassVar[str] = ""
    task_hint: ClassVar[str] = ""
    """Hint for an error that happened to a task that is paid for."""
    checkpoint: object = None

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        call: str = "",
        task_id: str | None = None,
        family: str | None = None,
        may_have_been_charged: bool = False,
        not_charged: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint: str = hint or self.default_hint
        self.call = call
        self.task_id = task_id
        self.family = family
        self.may_have_been_charged = may_have_been_charged
        self.not_charged: bool = not_charged

    @property
    def money(self) -> str:
        """A sentence that says if credits were spent, may have been spent, or were not; '' if unknown."""
        if self.may_have_been_charged:
            return "The account may have been charged."
        if self.task_id:
            return f"Task {self.task_id} is already paid for."
        is_paid = bool(self.call) and not self.call.startswith("GET ")
        return "Nothing was charged." if is_paid and self.not_charged else ""

    def _event(self) -> str:
        return f"{self.call}: {self.message}" if self.call else self.message

    def __str__(self) -> str:
        parts = (self._event().rstrip(), self.money, self.hint)
        return " ".join(part if part[-1] in ".!?" else part + "." for part in parts if part)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: _portable(value) for name, value in self.__dict__.items()}
        return _rebuild, (type(self), self.args, state, _portable_cause(self.__cause__))

    def __copy__(self) -> Self:
        return cast("Self", _rebuild(type(self), self.args, self.__dict__.copy(), self.__cause__))

    def about(self, *, task_id: str | None, family: str | None) -> Self:
        """Set the task that this error is about, unless one is set; return the error."""
        self.task_id = self.task_id or task_id
        self.family = self.family or family
        if self.task_hint and self.hint == self.default_hint:
            self.hint = self.task_hint
        return self


PICKLED_LEVELS: Final = 100
"""Levels of a body that are pickled where all of them are too many: pickle has a limit of some hundreds."""
SPARE_LEVELS: Final = 50
"""Levels to spare, as the error itself may be inside of something."""


def _rebuild(
    cls: type[MusicAPIError], args: tuple[Any, ...], state: dict[str, Any], cause: BaseException | None
) -> MusicAPIError:
    error = cls.__new__(cls, *args)
    error.args = args  # an `OSError` takes them in its `__init__` only
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


def _pickles(value: object) -> bool:
    """Return True if `value` survives pickling, also a little deeper inside another object."""
    import pickle  # who pickles an error has it

    wrapped: object = value
    for _ in range(SPARE_LEVELS):
        wrapped = [wrapped]
    try:
        pickle.loads(pickle.dumps(wrapped))  # noqa: S301 - what was dumped just now
    except Exception:
        return False
    return True


def _portable(value: object) -> object:
    """Return the value if it pickles, else a part that does: of a body that is nested too deeply its top."""
    if value is None or isinstance(value, str | int | float) or _pickles(value):
        return value
    cut = _cut(value, PICKLED_LEVELS)
    if _pickles(cut):
        return cut
    return () if isinstance(value, tuple) else f"<{type(value).__name__}>"


def _cut(value: object, depth: int) -> object:
    if isinstance(value, dict):
        fields = cast("dict[object, object]", value)
        return {name: _cut(one, depth - 1) for name, one in fields.items()} if depth else "..."
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [_cut(one, depth - 1) for one in items] if depth else "..."
    return value


def _portable_cause(cause: BaseException | None) -> BaseException | None:
    """Return the cause if it pickles, else its name and text: errors of libraries may hold live objects."""
    if cause is None or _pickles(cause):
        return cause
    name = f"{type(cause).__module__}.{type(cause).__qualname__}"
    try:
        return Exception(f"{name}: {cause}")
    except Exception:  # its text cannot be made either
        return Exception(name)


def first_in(error: BaseException) -> BaseException:
    """Return the first error of a group, or `error` itself if it is none."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def results_of(ended: Iterable[T | BaseException]) -> list[T]:
    """Return the results of work that was done at once; raise the first error, if there is one."""
    results: list[T] = []
    for one in ended:
        if isinstance(one, BaseException):
            raise one
        results.append(one)
    return results
