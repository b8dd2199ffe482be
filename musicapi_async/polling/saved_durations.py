"""Learned durations in a job store: a process starts with the durations that others learned, and adds its
own.

The store has one state for each kind. A process adds only what it has learned since it last added, in a
transaction that reads the present state. So several processes can add to one state, and no task counts twice.
Older counts are forgotten as if all tasks were those of one process.

Learned durations only save polls. No failure here ends a call or a wait: if the store cannot be read or
written, or a state is damaged or of another version, a line is logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final, Literal, Protocol

import anyio
import msgspec

from ..clock import Clock
from .kind_model import MOST_KINDS, KindModel, SavedKind
from .schedule import LONGEST_KIND, LearnedSchedule

SAVE_INTERVAL: Final = 60.0
"""Seconds between saves while tasks end: what a killed process has learned since is lost, and no more."""

STORE_PATIENCE: Final = 2.0
"""Real seconds that opening and closing a client wait for a store that is slow."""

LARGEST_STATE: Final = 16_384
"""Bytes of a state that is read; what is learned takes 3 kB at most."""

log: Final = logging.getLogger("musicapi_async")


class LearnedDurations(Protocol):
    """The part of a job store that holds learned durations; see `jobs.store.JobStore`."""

    async def durations(self) -> Mapping[str, bytes]:
        """Return the state of each kind."""
        ...

    async def merge_durations(self, kind: str, merge: Callable[[bytes | None], bytes]) -> bytes:
        """Change the state of one kind in one transaction; return the state after it."""
        ...


class _State(msgspec.Struct, frozen=True):
    """The state of one kind in the store."""

    version: Literal[2]
    stages: SavedKind


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(_State)


class SavedDurations:
    """The durations that one schedule has learned, in a job store.

    The loops of other threads may learn, and begin to save, meanwhile; so all iterations are over copies.

    Args:
        schedule: the schedule; it is of one client only.
        store: the job store of that client.
        clock: that of the client.
    """

    def __init__(self, schedule: LearnedSchedule, store: LearnedDurations, clock: Clock) -> None:
        self._schedule: Final = schedule
        self._store: Final = store
        self._clock: Final = clock
        self._saved_at = clock.now()
        self._process = os.getpid()
        self._busy = False
        self._saves: Final[set[asyncio.Task[None]]] = set()
        self._complained: Final[set[str]] = set()

    @property
    def is_due(self) -> bool:
        """True once it is time to save again."""
        return not 0 <= self._clock.now() - self._saved_at < SAVE_INTERVAL  # a clock may go back

    async def load(self) -> None:
        """Begin with what is stored, and with what was learned here since. Raises nothing."""
        if not self._begin():
            return
        try:
            states: Mapping[str, bytes] = {}
            with anyio.move_on_after(STORE_PATIENCE) as scope:
                states = await self._store.durations()
            if scope.cancelled_caught:
                self._complain("the job store takes too long to read learned durations")
            for kind, state in islice(states.items(), MOST_KINDS):
                counts = self._read(kind, state)
                if counts:
                    self._schedule.model_of(kind).adopt(counts)
        except Exception as error:
            self._complain("learned durations could not be read from the job store", error)
        finally:
            self._busy = False

    async def save(self) -> None:
        """Add what was learned since the last time, and take over what others have added. Raises nothing."""
        if not self._begin():
            return
        try:
            models = [pair for pair in list(self._schedule.models.items()) if pair[1].has_news]
            # All are begun at once, and a store carries out what was begun, even if the client is closing.
            ends = await asyncio.gather(*(self._merge(*pair) for pair in models), return_exceptions=True)
            for error in ends:
                if isinstance(error, Exception):
                    self._complain("learned durations could not be saved in the job store", error)
        finally:
            self._busy = False

    def begin_save(self) -> None:
        """Save in a task of its own, which no cancellation of a caller stops."""
        save = asyncio.get_running_loop().create_task(self.save())
        self._saves.add(save)
        save.add_done_callback(self._saves.discard)

    async def finish(self) -> None:
        """Save for the last time in this loop; what takes long is given up, though a store may yet do it."""
        loop = asyncio.get_running_loop()
        running = {save for save in list(self._saves) if save.get_loop() is loop}
        with anyio.move_on_after(STORE_PATIENCE):
            if running:  # it may have begun before the last task ended
                await asyncio.wait(running)
            await self.save()
        for save in running:
            save.cancel()

    async def _merge(self, kind: str, model: KindModel) -> None:
        gain = model.gain()  # if this is cancelled, it counts as saved, since the store may well do it

        def merge(state: bytes | None) -> bytes:
            counts = {} if state is None else self._read(kind, state)
            return _encoder.encode(_State(2, gain.merged(counts)))

        try:
            state = await self._store.merge_durations(kind, merge)
        except Exception:
            model.undo(gain)
            raise
        model.adopt(self._read(kind, state))

    def _begin(self) -> bool:
        """Return True if nothing else is reading or writing; from now on something is."""
        if self._process != os.getpid():  # what was learned before a fork is for the parent to save
            self._process, self._busy = os.getpid(), False
            for model in list(self._schedule.models.values()):
                model.gain()
        if self._busy:
            return False
        self._busy = True
        self._saved_at = self._clock.now()
        return True

    def _read(self, kind: str, state: bytes) -> SavedKind:
        """Return the counts in a state; none if it cannot be used."""
        try:
            if len(kind) <= LONGEST_KIND and len(state) <= LARGEST_STATE:
                return _decoder.decode(state).stages
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            pass
        self._complain("a state in the job store is damaged or of another version: it is ignored")
        return {}

    def _complain(self, text: str, error: Exception | None = None) -> None:
        """Log a problem with learned durations once, with its first error: the next may say other seconds."""
        if text not in self._complained:
            self._complained.add(text)
            why = "" if error is None else f": {error}"
            log.warning("polls begin at the declared times: %s%s", text, why)
