"""What the caller asks of whoever writes paid calls down.

The caller knows when a request is about to leave, that it was refused, that it was accepted, or that nobody
knows. It tells a `Recording` so at each of these moments, and knows nothing of files.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from ..api.handle import TaskRef


class Earlier(msgspec.Struct, frozen=True):
    """What an earlier call with the same job key gave: its task, or the body that answered it."""

    task: TaskRef | None
    reply: Any


class Recording(Protocol):
    """One paid call as it is written down.

    `reserve`, `sending` and `returned` raise `JobStoreError` when it cannot be: then nothing may be sent. The
    others come after the fact and never raise.
    """

    @property
    def key(self) -> str:
        """The job key, given or generated."""
        ...

    async def reserve(self) -> Earlier | None:
        """Reserve the key; or give what it was used for before, without sending anything.

        Waits while another call with this key is under way. Raises `JobKeyConflictError`, and
        `OutcomeUnknownError` when the outcome of the earlier call is unknown.
        """
        ...

    async def sending(self) -> None:
        """An attempt is about to leave; on disk when this returns."""
        ...

    async def returned(self) -> None:
        """The attempt was provably not taken, and another one follows."""
        ...

    async def released(self) -> None:
        """It was provably not taken, and none follows: the key is free."""
        ...

    async def unknown(self, why: str, balance: float | None) -> None:
        """Nobody knows whether it was taken."""
        ...

    async def accepted(self, task: TaskRef, reply: Any) -> None:
        """The service gave a task; on disk when this returns."""
        ...

    async def answered(self, reply: Any) -> None:
        """A direct call was answered."""
        ...

    def balance(self, before: float | None) -> None:
        """The credits before the first attempt."""
        ...


class Recorder(Protocol):
    """Gives recordings of paid calls."""

    def record(
        self, key: str | None, call: str, body: bytes, family: str = "", kind: str = ""
    ) -> Recording | None:
        """The recording of a call with the JSON `body`; None if it needs none."""
        ...


class Unrecorded:
    """A `Recorder` for calls that nobody writes down."""

    def record(self, key: str | None, call: str, body: bytes, family: str = "", kind: str = "") -> None:
        """Nothing is written down."""
