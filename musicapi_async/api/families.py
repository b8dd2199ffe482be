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
from .sonic import Sonic
from .studio import Studio
from .suno import Suno

FAMILIES: Final[Mapping[str, type[Family]]] = {
    family.word: family for family in (Sonic, Suno, Producer, Nuro, Riffusion, Studio, Account)
}
"""Every family by its word; the word stands in paths, in handles and in resume tokens."""


@lru_cache(maxsize=256)
def polled_as(family: str, kind: str = "") -> Polled | None:
    """How tasks of `family` that the operation `kind` made are polled; None if nothing there is polled.

    An unknown or empty `kind` is polled like the family's `get_music`.
    """
    known = FAMILIES.get(family)
    if known is None:
        return None
    operations = known.operations()
    for name in (kind, "get_music"):
        operation = operations.get(name)
        if operation is not None and operation.polled is not None:
            return operation.polled
    return None
