"""The account: its balance."""

from __future__ import annotations

from typing import Final

import msgspec

from .operation import Family, calls
from .replies import Credits
from .request import Request


class GetCredits(Request):
    """The balance of the account. Nothing but two balances proves a charge or a refund."""


class Account(Family):
    """The account behind the key: `client.credits()`."""

    word = "account"

    credits = calls("/get-credits", GetCredits, Credits, method="GET", charges=False)


DIGITS: Final = 6
"""Decimals of a difference between balances: what binary fractions leave beyond is no credit."""


class Spending(msgspec.Struct):
    """What the balance lost between two looks at it; see `MusicAPI.spending`. `after` is None before."""

    before: Credits
    after: Credits | None = None

    @property
    def total(self) -> float | None:
        """Credits that are gone, below zero if some came back; None if there was no second look."""
        return None if self.after is None else round(self.before.total - self.after.total, DIGITS)
