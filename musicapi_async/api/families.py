"""All families by their word, and how a task of a family is polled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from .account import Account
from .nuro import Nuro
from .operation import Family, Polled
from .producer import Producer
from .riffusion import Riffusion
from .sonic import Sonic, Suno
from .studio import Studio

FAMILIES: Final[Mapping[str, type[Family]]] = {
    family.word: family for family in (Sonic, Suno, Producer, Nuro, Riffusion, Studio, Account)
}
"""Every family by its word, which is part of paths, handles and resume tokens."""


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
