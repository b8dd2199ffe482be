"""The account: its balance."""

from __future__ import annotations

from .operation import Family, calls
from .replies import Credits
from .request import Request


class GetCredits(Request):
    """The balance of the account. Nothing but two balances proves a charge or a refund."""


class Account(Family):
    """The account behind the key: `client.credits()`."""

    word = "account"

    credits = calls("/get-credits", GetCredits, Credits, method="GET", charges=False)
