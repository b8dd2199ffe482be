"""The account: its balance, and what a block of calls spent."""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from ..plain_data import PlainData
from .direct_replies import Reply
from .operation import Family, calls
from .request import Request
from .results import Amount

BALANCE_DECIMALS: Final = 6
"""Decimals of a difference between balances: what binary fractions leave beyond is no credit."""


class Credits(Reply, kw_only=True):
    """The account's balance: `credits` of the subscription period, `extra_credits` bought, `total`."""

    needs: ClassVar[tuple[str, ...]] = ("credits", "extra_credits")
    may_be_empty: ClassVar[bool] = True

    credits: Amount = 0.0
    extra_credits: Amount = 0.0

    @property
    def total(self) -> float:
        """All credits that can be spent."""
        return self.credits + self.extra_credits


class Spending(PlainData, msgspec.Struct):
    """The change of the balance between two queries; see `MusicAPI.spending`.

    `before` is the balance at the begin, `after` the one at the end; None until then.
    """

    before: Credits
    after: Credits | None = None

    @property
    def total(self) -> float | None:
        """Credits that are gone, below zero if some came back; None until the second query."""
        return None if self.after is None else round(self.before.total - self.after.total, BALANCE_DECIMALS)


class GetCredits(Request):
    """Get the balance of the account. Only two balances prove a charge or a refund."""


class Account(Family):
    """The account behind the key: `client.credits()`."""

    word = "account"

    credits = calls("/get-credits", GetCredits, Credits, method="GET", charges=False)
