"""The account: its balance, and what a block of calls spent."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec

from ..plain_data import PlainData
from .direct_replies import Reply
from .operation import Family, calls
from .request import Request

BALANCE_DECIMALS: Final = 6
"""Decimals of a sum of credits: what binary fractions leave beyond is no credit."""


def credits_in(*amounts: float) -> float:
    """Return the sum of credits: 0.1 + 0.1 + 0.1 is 0.3, and within a budget of 0.3."""
    return round(sum(amounts), BALANCE_DECIMALS) + 0.0  # and not -0.0


def credits_text(amount: float) -> str:
    """Return credits for people, to the last one, such as '1234567' or '0.3'."""
    return f"{amount:.15g}"


Balance = Annotated[float, msgspec.Meta(ge=-1.7e308, le=1.7e308)]
"""A finite number, which is below zero where credits are owed; anything else in a reply counts as missing."""


class Credits(Reply, kw_only=True):
    """The balance: `credits` of the subscription period, bought `extra_credits`, and their sum `total`."""

    needs: ClassVar[tuple[str, ...]] = ("credits", "extra_credits")
    may_be_empty: ClassVar[bool] = True

    credits: Balance = 0.0
    extra_credits: Balance = 0.0

    @property
    def total(self) -> float:
        """The sum of `credits` and `extra_credits`."""
        return credits_in(self.credits, self.extra_credits)


class Spending(PlainData, msgspec.Struct):
    """The change of the balance between two queries; see `MusicAPI.spending`.

    `before` is the balance at the start of the block, `after` the balance at its end, None until then.
    """

    before: Credits
    after: Credits | None = None

    @property
    def total(self) -> float | None:
        """The credits spent; negative if the balance has grown, None until the second query."""
        return None if self.after is None else credits_in(self.before.total, -self.after.total)


class GetCredits(Request):
    """Get the balance of the account. Only two balances prove a charge or a refund."""


class Account(Family):
    """The account behind the key: `client.credits()`."""

    word = "account"

    credits = calls("/get-credits", GetCredits, Credits, method="GET", charges=False)
