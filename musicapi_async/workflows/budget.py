"""A budget in credits, and prices.

The service publishes no prices and changes them. Given prices are taken as they are. With a budget, the
others are learned: the first call of each kind is made alone, with the balance read before and after, and may
pass the budget, because its price is not known before. The budget is that of the folder, so runs before this
one count, too; a task that failed and was refunded counts nothing, one of unknown outcome counts as charged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from ..api.suggestions import did_you_mean
from ..client import MusicAPI
from ..errors import OutcomeUnknownError, RequestValidationError
from ..jobs import Job
from .manifest import STEP_NAMES, priced_operations

_STEPS: Final = {operation: step for step, operation in STEP_NAMES.items()}


def prices_by_operation(prices: Mapping[str, float] | None) -> dict[str, float]:
    """Return prices by operation of those by the names of steps, such as 'lyrics', or of operations.

    Raises `RequestValidationError` for a name that no song or step of a batch has.
    """
    if not prices:
        return {}
    known = priced_operations()
    found: dict[str, float] = {}
    for name, price in prices.items():
        operation = STEP_NAMES.get(name, name)
        if operation not in known:
            words = {*known, *STEP_NAMES}
            raise RequestValidationError(
                f"prices: no song or step of a batch is called {name!r}{did_you_mean(name, words)}",
                field="prices",
            )
        found[operation] = price
    return found


def price_name(operation: str) -> str:
    """Return what a price is called: the name of the step, such as 'lyrics', else that of the operation."""
    return _STEPS.get(operation, operation)


def is_charged(job: Job) -> bool:
    """Return True if a job counts as charged."""
    if job.state == "failed":
        return job.refunded is False
    return job.state in ("accepted", "finished", "ambiguous")


def spent_by(jobs: Iterable[Job], prices: Mapping[str, float]) -> float:
    """Return the credits that jobs have cost, by the prices of their operations."""
    return sum(prices.get(job.request.kind, 0.0) for job in jobs if is_charged(job))


class BudgetExceeded(Exception):
    """The next call would pass the budget, or the last one has: it is not made. The text says which."""


class Budget:
    """Lets calls through while the budget lasts.

    Args:
        limit: Credits for the whole folder; None counts nothing and lets everything through.
        client: Reads the balance, to learn prices.
        prices: Credits by operation.
        save: Gets all prices each time that one is learned.
    """

    def __init__(
        self,
        limit: float | None,
        client: MusicAPI,
        prices: Mapping[str, float],
        save: Callable[[Mapping[str, float]], None],
    ) -> None:
        self.limit: Final = limit
        self.prices: Final = dict(prices)
        self.spent = 0.0
        self._client: Final = client
        self._save: Final = save
        self._charges: Final[dict[str, float]] = {}
        self._passed_by = ""
        self._held = 0.0
        self._paying = 0
        self._learning = False
        self._changed: Final = asyncio.Condition()

    @asynccontextmanager
    async def pay(self, operation: str, key: str) -> AsyncGenerator[None]:
        """Make the call of this operation and job key in the block.

        A call that raises in it counts as not charged, unless its outcome is unknown. Raises `BudgetExceeded`
        instead if the call would pass the budget.
        """
        if self.limit is None:
            yield
            return
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._learning and (operation in self.prices or self._paying == 0)
            )
            price = self.prices.get(operation)
            if self.spent + self._held + (price or 0.0) > self.limit or self.spent >= self.limit:
                raise BudgetExceeded(self._reason(operation, price))
            self._learning = price is None
            self._paying += 1
            self._held += price or 0.0
        try:
            before = await self._balance() if price is None else 0.0
            yield
            if price is None:
                # A refund that arrives in this moment hides a part of the price.
                cost = self.prices[operation] = max(0.0, before - await self._balance())
                self._save(self.prices)
                if self.spent + cost > self.limit:
                    name = price_name(operation)
                    self._passed_by = f"the first {name} cost {cost:g}, the budget was {self.limit:g}"
            self.charge(operation, key)
        except OutcomeUnknownError:
            self.charge(operation, key)
            raise
        finally:
            async with self._changed:
                self._paying -= 1
                self._held -= price or 0.0
                if price is None:
                    self._learning = False
                self._changed.notify_all()

    async def _balance(self) -> float:
        return (await self._client.credits()).total

    def _reason(self, operation: str, price: float | None) -> str:
        """Return why a call of this price is not made."""
        if self._passed_by:
            return self._passed_by
        costs = f", and {price_name(operation)} costs {price:g}" if price else ""
        spent = self.spent + self._held
        return f"the budget of {self.limit:g} credits is used up: {spent:g} are spent{costs}"

    def charge(self, operation: str, key: str) -> None:
        """Count the call of this operation and job key as charged."""
        price = self._charges[key] = self.prices.get(operation, 0.0)
        self.spent += price

    def refund(self, key: str) -> None:
        """No longer count the last call with this job key: the service gave back what it cost."""
        self.spent -= self._charges.pop(key, 0.0)
