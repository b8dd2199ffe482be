"""The job store as a paid call sees it: the entry of a call, and the writes that outlive their caller.

`jobs.recorder` implements the protocols; nothing here knows how a store works.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from .._wire.prepare import PreparedRequest
from ..api.task import TaskRef

log: Final = logging.getLogger("musicapi_async")


RESPONSE_IS_RECORDED: Final = "its response is read from the job store"
"""Message of the cancellation of a caller who does so, as `Task.cancel` takes it: the end alone is logged."""


class Previous(msgspec.Struct, frozen=True):
    """The result of a previous call with the same job key: its task, or the body of its response.

    `items` has the task of each item of a batch, as far as it is known.
    """

    task: TaskRef | None
    reply: Any
    items: tuple[TaskRef | None, ...] = ()


class ItemNote(msgspec.Struct, frozen=True):
    """A note on an item of a batch: its task, or why it was refused, or that nothing is known of it."""

    task: TaskRef | None = None
    error: str = ""


class CallEntry(Protocol):
    """One paid call in the job store.

    `reserve`, `sending` and `returned` raise `JobStoreError` if the store cannot be written: then nothing
    may be sent. The other methods record what has happened, and never raise it. `PaidCall` decides what an
    attempt proves; the entry records it.
    """

    @property
    def key(self) -> str:
        """The job key, given or generated."""
        ...

    async def reserve(self) -> Previous | None:
        """Reserve the key, or return the previous result of this key.

        Waits while another call with this key is under way. Raises `JobKeyConflictError`, and
        `OutcomeUnknownError` when the outcome of the previous call is unknown.
        """
        ...

    async def sending(self) -> None:
        """Record that an attempt is about to be sent; it is on disk when this returns."""
        ...

    async def returned(self) -> None:
        """Record that the attempt was provably not carried out, and that another one follows."""
        ...

    async def released(self) -> None:
        """Record that the call was provably not carried out, and that no attempt follows: the key is free."""
        ...

    async def unknown(self, why: str, balance: float | None) -> None:
        """Record that the outcome is unknown, with the credits after the call."""
        ...

    async def accepted(self, task: TaskRef, reply: Any) -> None:
        """Record the task that the service returned; it is on disk when this returns."""
        ...

    async def accepted_batch(self, items: Sequence[ItemNote], others: Sequence[TaskRef], reply: Any) -> None:
        """Record the task or error of each item; it is on disk when this returns.

        `others` are tasks that belong to an item of which it is not known.
        """
        ...

    async def answered(self, reply: Any) -> None:
        """Record the response to a direct call."""
        ...

    def balance(self, before: float | None) -> None:
        """Set the credits before the first attempt; the next record includes them."""
        ...


class CallRecorder(Protocol):
    """Gives entries of a job store to paid calls."""

    async def links(self, key: str, files: Mapping[str, str]) -> Mapping[str, str]:
        """Return the links of those files that the job of a key has published already, by field.

        `files` has the SHA-256 of each file by the field of its link. Raises `JobStoreError`.
        """
        ...

    def record(
        self, key: str | None, prepared: PreparedRequest, files: Mapping[str, str]
    ) -> CallEntry | None:
        """Return the entry of a call under this job key, or under one of its own; None if none is recorded.

        `files` has the SHA-256 of each local file by the field of its link.
        """
        ...


class Notes:
    """Writes to job stores that are under way and that no caller waits for any longer."""

    def __init__(self) -> None:
        self._running: Final[set[asyncio.Task[None]]] = set()

    async def write(self, note: Coroutine[Any, Any, None], patience: float | None = None) -> None:
        """Begin a write and wait for it at most `patience` real seconds; it continues after that."""
        await asyncio.wait({self.begin(note)}, timeout=patience)

    def begin(self, note: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a write in a task of its own, which no cancellation of a caller stops."""
        task = asyncio.get_running_loop().create_task(note)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job could not be written down: %s", error, exc_info=error)

    async def finish(self, patience: float | None = None) -> None:
        """Return when all writes that have begun are done, at most `patience` real seconds later."""
        if self._running:
            # Not `gather`, which cancels them all with its caller.
            _, remaining = await asyncio.wait(self._running, timeout=patience)
            if remaining:
                log.error("%d jobs were not written down: the store does not answer", len(remaining))
