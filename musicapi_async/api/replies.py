"""What direct calls answer. Each reply reads itself from a body and names what it cannot do without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from .results import Item
from .values import finite, mapping_or_empty


class Reply(Item, kw_only=True):
    """The base of direct replies. `raw` is the whole body; `needs` names the fields that must be there.

    A field is looked for at the top level of the body first, then under `data`.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self | None:
        """Read a body; None when a field that it needs is missing or empty."""
        given = {key: value for key, value in body.items() if value not in (None, "")}
        reply = cls.read({**mapping_or_empty(body.get("data")), **given})
        reply.raw = dict(body)
        missing = [name for name in cls.needs if getattr(reply, name) in (None, "")]
        return None if missing else reply

    @property
    def is_empty(self) -> bool:
        """Nothing of what was asked for came."""
        named = (name for name in self.__struct_fields__ if name != "raw")
        return all(getattr(self, name) in (None, "", [], {}) for name in named)


class Persona(Reply, kw_only=True):
    """A persona: `persona_id` is what `persona_music` takes."""

    needs: ClassVar[tuple[str, ...]] = ("persona_id",)

    persona_id: str = ""
    name: str | None = None


class Credits(Reply, kw_only=True):
    """The account's balance: `credits` of the subscription period, `extra_credits` bought, `total`."""

    credits: float = 0.0
    extra_credits: float = 0.0

    def __post_init__(self) -> None:
        self.credits = finite(self.credits) or 0.0
        self.extra_credits = finite(self.extra_credits) or 0.0

    @property
    def total(self) -> float:
        """All credits that can be spent."""
        return self.credits + self.extra_credits
