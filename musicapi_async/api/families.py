"""All families by their word, and how a task of a family is polled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from ..arguments import refused
from .account import Account
from .nuro import Nuro
from .operation import Family, Polled
from .producer import Producer
from .results import Clips, Result
from .riffusion import Riffusion
from .sonic import Sonic, Suno
from .studio import Studio
from .task import TaskRef

FAMILIES: Final[Mapping[str, type[Family]]] = {
    family.word: family for family in (Sonic, Suno, Producer, Nuro, Riffusion, Studio, Account)
}
"""Every family by its word, which is part of paths, handles and resume tokens."""


def family_in(call: str) -> str:
    """Return the word of the family in a call such as `POST /sonic/create`; '' if its path has none."""
    return call.partition(" /")[2].partition("/")[0]


def makes_tasks(family: str, kind: str, call: str) -> bool:
    """Return True if the operation `kind` of a family makes tasks; for an untyped call its path decides."""
    operation = FAMILIES[family].operations().get(kind) if family in FAMILIES else None
    return polled_as(family_in(call)) is not None if operation is None else operation.creates


@lru_cache(maxsize=256)
def polled_as(family: str, kind: str = "") -> Polled | None:
    """Return how tasks of `family` that the operation `kind` made are polled; None if it has no tasks.

    An unknown or empty `kind` is polled as the family's tasks are by default.
    """
    known = FAMILIES.get(family)
    if known is None:
        return None
    operation = known.operations().get(kind)
    return (operation and operation.polled) or known.polled


def check_result(ref: TaskRef, result: type[Result]) -> None:
    """Refuse a class that the result of a task does not have, such as `Stems` for a song.

    Without a known kind the result is read as clips.
    """
    known = FAMILIES.get(ref.family)
    operation = None if known is None else known.operations().get(ref.kind)
    made = Clips if operation is None or not operation.submits else operation.reply
    if not issubclass(made, result):
        why = f"the result of {ref.kind}" if ref.kind else "unless kind= names another operation"
        raise refused("result", f"{made.__name__}, {why}", result.__name__)


def polled_of(ref: TaskRef) -> Polled:
    """Return how a task is polled; `RequestValidationError` for a family that has no tasks."""
    polled = polled_as(ref.family, ref.kind)
    if polled is None:
        raise refused("family", "one whose tasks can be polled, such as 'sonic'", repr(ref.family))
    return polled
