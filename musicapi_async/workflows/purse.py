"""A budget in credits, kept by what calls were seen to cost.

The service publishes no prices and changes them, so they are learned: the first call of each kind is made
alone, with the balance read before and after, and may pass the budget, because nobody knows what it costs.
Prices that are given are taken as they are. What is spent
counts for the whole folder, runs before this one included; a task that failed and was refunded counts
nothing, one whose outcome is unknown counts as charged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from ..errors import OutcomeUnknownError


class BudgetReached(Exception):
    """The next call would pass the budget, or the last one has: it is not made. The text says which."""


class Purse:
    """Lets calls through while the budget lasts.

    `balance` reads the credits of the account; `learned` is told of every price that was found out.
    """

    def __init__(
        self,
        budget: float | None,
        balance: Callable[[], Awaitable[float]],
        prices: Mapping[str, float] | None = None,
        learned: Callable[[dict[str, float]], None] = lambda _prices: None,
    ) -> None:
        self.budget: Final = budget
        self.prices: Final = dict(prices or {})
        self.spent = 0.0
        self._balance: Final = balance
        self._learned: Final = learned
        self._charges: Final[dict[str, float]] = {}
        self._passed_by = ""
        self._held = 0.0
        self._paying = 0
        self._learning = False
        self._changed: Final = asyncio.Condition()

    @asynccontextmanager
    async def pay(self, kind: str, key: str) -> AsyncGenerator[None]:
        """Make the call of this kind and job key inside. Raises `BudgetReached` instead if it would pass the
        budget.

        A call that raises inside counts as not charged, unless its outcome is unknown.
        """
        if self.budget is None:
            yield
            return
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._learning and (kind in self.prices or self._paying == 0)
            )
            price = self.prices.get(kind)
            if self.spent + self._held + (price or 0.0) > self.budget or self.spent >= self.budget:
                raise BudgetReached(self._reason(kind, price))
            self._learning = price is None
            self._paying += 1
            self._held += price or 0.0
        try:
            before = await self._balance() if price is None else 0.0
            yield
            if price is None:
                # A refund that arrives in this moment hides a part of the price.
                self.prices[kind] = max(0.0, before - await self._balance())
                self._learned(self.prices)
            self.charged(kind, key)
            if price is None and self.spent > self.budget:
                cost = self.prices[kind]
                self._passed_by = f"the first {kind} cost {cost:g}, the budget was {self.budget:g}"
        except OutcomeUnknownError:
            self.charged(kind, key)
            raise
        finally:
            async with self._changed:
                self._paying -= 1
                self._held -= price or 0.0
                if price is None:
                    self._learning = False
                self._changed.notify_all()

    def _reason(self, kind: str, price: float | None) -> str:
        """Why a call of this kind and price is not made."""
        if self._passed_by:
            return self._passed_by
        costs = f", and {kind} costs {price:g}" if price else ""
        spent = self.spent + self._held
        return f"the budget of {self.budget:g} credits is reached: {spent:g} are spent{costs}"

    def charged(self, kind: str, key: str) -> None:
        """Count the call of this kind and job key as charged."""
        price = self._charges[key] = self.prices.get(kind, 0.0)
        self.spent += price

    def refunded(self, key: str) -> None:
        """The service gave back what the last call with this job key cost: no longer count it, if it was."""
        self.spent -= self._charges.pop(key, 0.0)
