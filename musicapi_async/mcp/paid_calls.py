"""Paid calls of the tools: each under a job key, within the budget, and finished even if no one waits.

A client gives up on a tool after about a minute, or cancels it, or is closed. The call does not end with
that: it continues, its result is stored in the job store, and the same job key gives it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from .._wire.codec import report
from ..api.direct_replies import Reply
from ..api.operation import Operation
from ..api.request import Request
from ..api.task import Task
from ..jobs import Job
from ..jobs.transitions import allows
from ..workflows.batch_folder import BatchFolder
from ..workflows.budget import Budget

if TYPE_CHECKING:
    from ..client import MusicAPI


class Sending(Exception):
    """A paid call takes longer than its tool may: it continues, and its job key gives the result."""


class Made(NamedTuple):
    """The result of a paid call, and the job that its key had before; None if it was paid for now."""

    result: Task[Any] | Reply
    known: Job | None


class PaidCalls:
    """Makes the paid calls of one server.

    Args:
        client: Who pays; it has the job store.
        account: The account whose jobs count for the budget.
        folder: Where learned prices are saved.
        budget: Credits for all calls in the job store, those of earlier servers included; None: no limit.
        prices: Credits by operation, beside those that the folder has.
    """

    def __init__(
        self,
        client: MusicAPI,
        account: str,
        folder: BatchFolder,
        budget: float | None,
        prices: Mapping[str, float],
    ) -> None:
        self._client: Final = client
        self._account: Final = account
        self._folder: Final = folder
        known = {**folder.prices(), **prices}
        self.budget: Final = None if budget is None else Budget(budget, client, known, folder.save_prices)
        self._one_at_a_time: Final = asyncio.Lock()
        self._running: Final[set[asyncio.Task[Made]]] = set()

    async def jobs(self) -> list[Job]:
        """Return the recorded calls of this account, oldest first."""
        return [job for job in await self._client.jobs() if job.account in ("", self._account)]

    async def spent(self) -> float:
        """Return the credits that count for the budget, by the prices that are known."""
        assert self.budget is not None
        self.budget.recount(await self.jobs())
        return self.budget.spent

    async def make(
        self, operation: Operation[..., Any], request: Request, key: str, *, at_most: float
    ) -> Made:
        """Make a call under a job key; a key that was used before pays nothing.

        Args:
            operation: The operation.
            request: Its checked request.
            key: The job key.
            at_most: Real seconds to wait for the result.

        Raises:
            Sending: The time is over; the call continues.
            BudgetExceeded: It would pass the budget; nothing was sent.
            MusicAPIError: As the call raises.
        """
        call = asyncio.ensure_future(self._make(operation, request, key))
        self._running.add(call)
        call.add_done_callback(self._ended)
        await asyncio.wait({call}, timeout=at_most)
        if not call.done():
            raise Sending
        return call.result()

    def _ended(self, call: asyncio.Task[Made]) -> None:
        self._running.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            # Its tool may have given up: then no one else reads the error.
            report(logging.INFO, "a paid call of a tool ended with: %s", error)

    async def _make(self, operation: Operation[..., Any], request: Request, key: str) -> Made:
        if self.budget is None:
            known = _in_use(await self._client.job(key))
            return await self._send(operation, request, key, known)
        async with (
            self._one_at_a_time,
            self._folder.budget_lock(),
        ):  # each sees what those before it have cost
            for name, price in self._folder.prices().items():  # another server may have learned it
                self.budget.prices.setdefault(name, price)
            self.budget.recount(await self.jobs())
            known = _in_use(await self._client.job(key))
            if known is not None:
                return await self._send(operation, request, key, known)
            async with self.budget.pay(operation.name, key):
                return await self._send(operation, request, key, None)

    async def _send(
        self, operation: Operation[..., Any], request: Request, key: str, known: Job | None
    ) -> Made:
        view = self._client.with_options(job_key=key)
        method = operation.public_method(view.sonic.caller)
        result: Task[Any] | Reply = await method(**_arguments(request, operation))
        if known is None and result.response is None:  # the same call was under way meanwhile
            known = await self._client.job(key)
        return Made(result, known)

    async def aclose(self) -> None:
        """End the calls: one that has not left is not sent, and one that has left continues in the client."""
        for call in self._running:
            call.cancel()
        if self._running:
            await asyncio.wait(self._running)


def _in_use(job: Job | None) -> Job | None:
    """Return the job of a key under which nothing will be sent; None for one that is free."""
    return None if allows("reserve", job) or (job is not None and job.state == "reserved") else job


def _arguments(request: Request, operation: Operation[..., Any]) -> dict[str, Any]:
    """Return the keyword arguments of the operation's method."""
    names = {field.name for field in operation.fields}
    given = msgspec.structs.asdict(request).items()
    return {name: value for name, value in given if name in names and value is not None}
