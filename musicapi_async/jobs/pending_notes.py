"""Records of what has already happened to jobs: each is tried once, and later again until it is stored.

The request of such a record was sent or has its response, so a record that cannot be written raises no error,
and is never dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Collection
from typing import Final

import anyio

from ..clock import Clock
from ..errors import JobStoreError
from .store import JobStore, Transition

log: Final = logging.getLogger("musicapi_async")

FIRST_NOTE_RETRY: Final = 1.0
LONGEST_NOTE_RETRY: Final = 60.0
"""Seconds between tries of notes that could not be written."""
CLOSING_NOTES_PATIENCE: Final = 2.0
"""Real seconds that closing spends on notes that could not be written before."""


class PendingNotes:
    """The notes of one account that are not in the store yet, in their order for each job."""

    def __init__(self, store: JobStore, clock: Clock, account: str) -> None:
        self._store: Final = store
        self._clock: Final = clock
        self._account: Final = account
        self._pending: Final[dict[str, deque[Transition]]] = {}
        self._retry: asyncio.Task[None] | None = None

    @property
    def keys(self) -> Collection[str]:
        """The keys of the jobs with notes that are not in the store yet."""
        return self._pending.keys()

    async def note(self, key: str, transition: Transition, what: str, needed: object = None) -> None:
        """Store what has happened already: tried once here, and later in the background until it is stored.

        Args:
            key: the job key.
            transition: the change. Applied once more, it must change nothing.
            what: what has happened, for the log.
            needed: lives until it is stored, in the frame of what tries again: closing it stores it first.
        """
        self._pending.setdefault(key, deque()).append(transition)
        try:
            await self._write(key)
        except JobStoreError as error:
            self._retry_later(needed)
            log.error("job %s: %s, and that could not be stored yet: %s", key, what, error)

    async def write(self, *keys: str) -> None:
        """Store the notes of these jobs (none given: of all) that could not be stored before.

        Jobs do not wait for each other, so one damaged row holds up no other job. Raises `JobStoreError`.
        """
        wanted = [key for key in self._pending if not keys or key in keys]
        outcomes = await asyncio.gather(*map(self._write, wanted), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _write(self, key: str) -> None:
        """Store the notes of one job, in their order."""
        pending = self._pending.get(key)
        while pending:
            transition = pending[0]
            await self._store.change(key, transition, account=self._account, durable=True)
            if pending and pending[0] is transition:  # else another call has stored it meanwhile
                pending.popleft()
        if not pending and self._pending.get(key) is pending:  # else another call has begun new ones
            self._pending.pop(key, None)

    def _retry_later(self, needed: object) -> None:
        loop = asyncio.get_running_loop()
        if self._retry is None or self._retry.done() or self._retry.get_loop() is not loop:
            self._retry = loop.create_task(self._retry_pending(needed))

    async def _retry_pending(self, needed: object) -> None:
        pause = FIRST_NOTE_RETRY
        while self._pending:
            await self._clock.sleep(pause)
            with contextlib.suppress(JobStoreError):
                await self.write()
            pause = min(2 * pause, LONGEST_NOTE_RETRY)

    async def aclose(self) -> None:
        """Store what is pending, within seconds; what could not be stored is logged."""
        retry, self._retry = self._retry, None
        if retry is not None and retry.get_loop() is asyncio.get_running_loop():
            retry.cancel()
        with anyio.move_on_after(CLOSING_NOTES_PATIENCE), contextlib.suppress(JobStoreError):
            await self.write()
        if self._pending:
            log.error("jobs %s could not be stored before the client was closed", ", ".join(self._pending))
