"""The only dice of the music maker."""

from __future__ import annotations

import random

__all__ = ["dice"]


def dice(*purpose: object) -> random.Random:
    """Dice that always fall the same way for the same purpose, such as ("melody", seed, "chorus").

    One pair per decision: a decision more or less in one place then changes nothing in another.
    """
    text = ":".join(map(str, purpose))
    return random.Random(text.encode("utf-8", "surrogatepass"))
