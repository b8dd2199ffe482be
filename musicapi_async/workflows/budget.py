"""A budget in credits, prices, and what a run has cost.

The service publishes no prices and changes them. Given prices are taken as they are. With a budget, the
others are learned: the first call of each kind is made alone, with the balance read before and after, and may
pass the budget, because its price is not known before. Where a refund hides it, the next two are made alone,
too. If it cannot be learned then, the run pays for nothing more. The budget is that of the folder, so runs
before this one count, too.

What is spent is one sum: the sends that count as charged, resubmitted ones included, by the prices that are
known now. So a price that is learned late values what was sent before, too; until then, a send without a
price adds nothing. A send of unknown outcome counts as charged. One whose task failed does not, unless the
service reports that it was not refunded: it refunds failed tasks (documented), and mostly does not say so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from .._wire.codec import report
from ..api.account import credits_in, credits_text
from ..api.suggestions import check_names
from ..arguments import check_credits
from ..client import MusicAPI
from ..errors import MusicAPIError, OutcomeUnknownError
from ..files import fault_in_words
from ..jobs import Job
from ..jobs.job import JobTask, item_of
from .manifest import STEP_NAMES, priced_operations

MOST_HIDDEN: Final = 3
"""Calls of one kind, each made alone, that may leave the balance as it was before the run stops paying."""

_STEPS: Final = {operation: step for step, operation in STEP_NAMES.items()}


def prices_by_operation(prices: Mapping[str, float] | None) -> dict[str, float]:
    """Return prices by operation of those by the names of steps, such as 'lyrics', or of operations.

    Raises `RequestValidationError` for a name that no song or step of a batch has, and for what is no number
    of credits.
    """
    if prices is None:
        return {}
    check_names("prices", prices, {*priced_operations(), *STEP_NAMES}, "songs or steps of a batch")
    for name, price in prices.items():
        check_credits("prices", price, name)
    return {STEP_NAMES.get(name, name): price for name, price in prices.items()}


def price_name(operation: str) -> str:
    """Return what a price is called: the name of the step, such as 'lyrics', else that of the operation."""
    return _STEPS.get(operation, operation)


def charged_sends(jobs: Iterable[Job]) -> Counter[str]:
    """Return the number of sends that count as charged, by operation; those before a resubmit included.

    Each item of a batch counts as a send of its own: it costs what a single create costs (vendor's page).
    """
    return Counter(kind for job in jobs for send in _sends_of(job) for kind in _charged_kinds(send))


def cost_of(sends: Mapping[str, int], prices: Mapping[str, float]) -> float:
    """Return the credits that sends cost by these prices; those without a price are left out."""
    return credits_in(*(count * prices.get(operation, 0.0) for operation, count in sends.items()))


def known_cost(sends: Mapping[str, int], prices: Mapping[str, float]) -> float | None:
    """Return the credits that sends cost by these prices; None if one of them has no price."""
    known = all(operation in prices for operation, count in sends.items() if count)
    return cost_of(sends, prices) if known else None


def cost_text(sends: Mapping[str, int], prices: Mapping[str, float]) -> str:
    """Return what sends cost, in words: 'at least' so much where a price is unknown; '' where all are."""
    cost = cost_of(sends, prices)
    known = known_cost(sends, prices) is not None
    if not (known or cost):
        return ""
    return f"{'' if known else 'at least '}{credits_text(cost)} {'credit' if cost == 1 else 'credits'}"


def _sends_of(job: Job) -> Iterator[Job]:
    """Yield a job as it is, and as it was before each resubmit."""
    send: Job | None = job
    while send is not None:
        yield send
        send = send.previous


def _charged_kinds(send: Job) -> Iterator[str]:
    """Yield the operation of each part of a send that counts as charged."""
    request = send.request
    if not request.is_batch:
        if _is_charged(send):
            yield request.kind
    elif send.state != "reserved":
        for index in range(request.items):
            item = send.tasks[index] if index < len(send.tasks) else JobTask()
            if item.outcome != "failed" or item.refunded is False:
                yield str(item_of(request, index).get("task_type") or "create_music")


def _is_charged(job: Job) -> bool:
    """Return True if the last send of a job counts as charged."""
    if job.state == "failed":
        return job.refunded is False
    return job.state != "reserved"


class BudgetExceeded(Exception):
    """The next call would pass the budget, or the last one has: it is not made. The text says which."""


class Budget:
    """Lets calls through while the budget lasts, and knows what a run has cost.

    Args:
        limit: Credits for the whole folder; None lets everything through.
        client: Reads the balance, to learn prices or, without a limit, the cost of the run.
        prices: Credits by operation.
        save: Gets all prices each time that one is learned.
        measures: Without a limit, read the balance to know what the run costs. False where others pay from
            it at the same time, so that it says nothing of this run.
    """

    def __init__(
        self,
        limit: float | None,
        client: MusicAPI,
        prices: Mapping[str, float],
        save: Callable[[Mapping[str, float]], None],
        *,
        measures: bool = True,
    ) -> None:
        self.limit: Final = limit
        self.prices: Final = dict(prices)
        self._measures: Final = measures
        self._client: Final = client
        self._save: Final = save
        self._sends: Counter[str] = Counter()
        self._sends_before: Counter[str] = Counter()
        self._keys_before: Final[set[str]] = set()
        self._last_charged: Final[dict[str, str]] = {}
        self._halted_by = ""
        self._hidden: Final[Counter[str]] = Counter()
        self._held = 0.0
        self._under_way = 0
        self._learning = False
        self._changed: Final = asyncio.Condition()
        self._first_balance: asyncio.Task[float | None] | None = None
        self._has_charged = False

    @property
    def spent(self) -> float:
        """The credits that the folder has cost, by the prices known now."""
        return cost_of(self._sends, self.prices)

    @property
    def displayed(self) -> float | None:
        """The credits that the folder has cost; None without a limit, or if a price is unknown."""
        return known_cost(self._sends, self.prices) if self.limit is not None else None

    @property
    def spent_text(self) -> str:
        """The credits that the folder has cost, in words; '' without a limit, or if no price is known."""
        return cost_text(self._sends, self.prices) if self.limit is not None else ""

    def restore(self, jobs: Sequence[Job]) -> None:
        """Count what earlier runs on the folder have sent."""
        self.recount(jobs)
        self._sends_before = Counter(self._sends)
        self._keys_before.update(self._last_charged)

    def recount(self, jobs: Sequence[Job]) -> None:
        """Count what the job store has now, calls of other processes included, in the place of all before."""
        self._sends = charged_sends(jobs)
        self._last_charged.clear()
        self._last_charged.update((job.key, job.request.kind) for job in jobs if _is_charged(job))

    async def spent_now(self) -> float | None:
        """Return the credits that this run has cost.

        With a limit by its prices; else by the balance, which other calls of the account move, too; 0 if
        none of its calls was charged. None if the balance cannot be read, or is not to be, or a price is
        unknown.
        """
        if self.limit is not None:
            if known_cost(self._sends - self._sends_before, self.prices) is None:
                return None
            return credits_in(self.spent, -cost_of(self._sends_before, self.prices))
        if not self._measures:
            return None
        if self._first_balance is None or not self._has_charged:
            return 0.0
        before = await self._first_balance
        after = await self._balance_if_known() if before is not None else None
        return credits_in(before, -after) if before is not None and after is not None else None

    def close(self) -> None:
        """Stop reading the balance, if the run ended before it was there."""
        if self._first_balance is not None:
            self._first_balance.cancel()

    @asynccontextmanager
    async def pay(self, operation: str, key: str) -> AsyncGenerator[None]:
        """Make the call of this operation and job key in the block.

        A call that raises in it counts as not charged, unless its outcome is unknown. Raises `BudgetExceeded`
        instead if the call would pass the budget.
        """
        if self.limit is None:
            if self._measures:
                if self._first_balance is None:
                    self._first_balance = asyncio.ensure_future(self._balance_if_known())
                await asyncio.shield(self._first_balance)  # all calls wait for the one that reads it
            is_charged = True
            try:
                yield
            except MusicAPIError as error:
                is_charged = not error.not_charged
                raise
            finally:
                self._has_charged |= is_charged
            return
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._learning and (operation in self.prices or self._under_way == 0)
            )
            price = self.prices.get(operation)
            reason = self._refusal(operation, price, self.limit)
            if reason:
                raise BudgetExceeded(reason)
            self._learning = price is None
            self._under_way += 1
            self._held += price or 0.0
        try:
            before = await self._balance() if price is None else 0.0
            yield
            self.charge(operation, key)
            if price is None:
                await self._learn(operation, before)
        except OutcomeUnknownError:
            self.charge(operation, key)
            if price is None:
                self._halt_unpriced(operation, "the outcome of the first one is")
            raise
        finally:
            async with self._changed:
                self._under_way -= 1
                self._held -= price or 0.0
                if price is None:
                    self._learning = False
                self._changed.notify_all()

    async def _balance(self) -> float:
        return (await self._client.credits()).total

    async def _balance_if_known(self) -> float | None:
        try:
            return await self._balance()
        except MusicAPIError as error:
            text = "the balance cannot be read: %s"
            report(logging.INFO, text, error)  # the result of the run says it, too, where it matters
            return None

    async def _learn(self, operation: str, before: float) -> None:
        """Learn the price of a call that was made alone, from the balance before it.

        The call is paid for, so nothing here may take away what it returned.
        """
        after = await self._balance_if_known()
        if after is None:
            self._halt_unpriced(operation, "the balance after the first one is")
            return
        # A refund that arrives in this moment hides a part of the price. One that hides all of it would be a
        # price of nothing, and so no limit, for this run and for all that follow: the next call tells.
        cost = credits_in(before, -after)
        if cost <= 0:
            self._hidden[operation] += 1
            if self._hidden[operation] == MOST_HIDDEN:
                self._halt_unpriced(
                    operation, f"the balance did not fall with the first {MOST_HIDDEN}, so it is"
                )
            return
        self.prices[operation] = cost
        try:
            self._save(self.prices)
        except OSError as error:
            text = "the price of %s could not be saved: %s"
            report(logging.WARNING, text, price_name(operation), fault_in_words(error))
        if self.limit is not None and cost > self.limit:
            name = price_name(operation)
            budget = credits_text(self.limit)
            self._halted_by = f"the first {name} cost {credits_text(cost)}, the budget was {budget}"

    def _halt_unpriced(self, operation: str, unknown: str) -> None:
        """Let no further call through: each would be the first of its kind, which may pass the budget."""
        name = price_name(operation)
        self._halted_by = (
            f"the price of {name} is unknown, as {unknown}; the next run learns it, or is given it"
        )

    def _refusal(self, operation: str, price: float | None, limit: float) -> str:
        """Return why a call of this price is not made, or ''."""
        spent = credits_in(self.spent, self._held)
        if self._halted_by or (credits_in(spent, price or 0.0) <= limit and self.spent < limit):
            return self._halted_by
        costs = f", and {price_name(operation)} costs {credits_text(price)}" if price else ""
        used_up = f"the budget of {credits_text(limit)} credits is used up"
        return f"{used_up}: {credits_text(spent)} are spent{costs}. A run with a larger one continues"

    def charge(self, operation: str, key: str) -> None:
        """Count a send of this operation under this job key as charged."""
        self._sends[operation] += 1
        self._last_charged[key] = operation
        self._keys_before.discard(key)

    def refund(self, key: str) -> None:
        """No longer count the last send under this job key: the service gave back what it cost."""
        operation = self._last_charged.pop(key, None)
        if operation is not None:
            self._sends[operation] -= 1
            self._sends_before[operation] -= key in self._keys_before  # no income of this run
