"""Jobs in memory: the store of a client without another one.

It must not grow without limit. A job with a key of the caller stays, because the key means that the call is
never paid for again. A call without such a key has a made-up one, so that its webhook can name it. When its
task is known, such a job is removed after enough others, and a caller who uses its key is refused.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final

from .job import Job, JobState, is_made_up
from .reservation import apply, choose
from .store import SETTLED, Merge, Transition

KNOWN_TASKS: Final[frozenset[JobState]] = frozenset({"accepted", "finished", "failed"})
"""States in which a job has nothing to settle: the handle and the log have its task."""
REMEMBERED_JOBS: Final = 5000
"""Jobs with made-up keys that are remembered in these states, about 5 kB each. At 2 creates per second these
are the last 40 minutes, which is longer than a task takes, and than a replayed webhook is accepted."""


class MemoryStore:
    """A `JobStore` whose contents are lost when its process ends. Clients, loops and threads may share it.

    It has all calls with a job key of the caller, and all of unknown outcome. Of other calls, which are
    recorded for their webhooks, it has the last 5,000.
    """

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._rows: Final[dict[str, tuple[Job, ...]]] = {}
        self._keys_by_task: Final[dict[tuple[str, str], set[str]]] = {}
        self._forgettable: Final[OrderedDict[str, None]] = OrderedDict()
        self._claims: Final[dict[str, float]] = {}
        self._durations: Final[dict[str, bytes]] = {}

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        """Apply `transition` to the row of a job; see `JobStore.change`. `durable` has no effect."""
        with self._lock:
            rows = self._rows.get(key, ())
            before, after = apply(rows, transition, account)
            if after is not before:
                added = () if after is None else (after,)
                self._replace(key, (*(row for row in rows if row is not before), *added))
            return after

    def _replace(self, key: str, rows: tuple[Job, ...]) -> None:
        for row in self._rows.pop(key, ()):
            for ref in row.refs:
                keys = self._keys_by_task.get((ref.family, ref.task_id), set())
                keys.discard(key)
                if not keys:
                    self._keys_by_task.pop((ref.family, ref.task_id), None)
        if rows:
            self._rows[key] = rows
        for row in rows:
            for ref in row.refs:
                self._keys_by_task.setdefault((ref.family, ref.task_id), set()).add(key)
        if not rows or not is_made_up(key) or any(row.state not in KNOWN_TASKS for row in rows):
            self._forgettable.pop(key, None)
            return
        self._forgettable[key] = None
        if len(self._forgettable) > REMEMBERED_JOBS:
            self._replace(next(iter(self._forgettable)), ())

    async def get(self, key: str, *, account: str = "") -> Job | None:
        """Return the job with this key, or None."""
        with self._lock:
            return choose(self._rows.get(key, ()), account)

    async def find(self, family: str, task_id: str) -> list[Job]:
        """Return the jobs that made this task, oldest first."""
        with self._lock:
            keys = self._keys_by_task.get((family, task_id), set())
            found = [row for key in keys for row in self._rows[key]]
        holding = (
            row for row in found if any((ref.family, ref.task_id) == (family, task_id) for ref in row.refs)
        )
        return sorted(holding, key=lambda job: (job.created_at, job.key))

    async def jobs(self, *states: JobState) -> list[Job]:
        """Return the jobs in these states, or all jobs if none is given, oldest first."""
        with self._lock:
            found = [row for rows in self._rows.values() for row in rows if not states or row.state in states]
        return sorted(found, key=lambda job: job.created_at)

    async def purge(self, before: float) -> int:
        """Remove the finished and failed jobs that were last changed before a Unix time; return how many."""
        with self._lock:
            stale = [
                row
                for rows in self._rows.values()
                for row in rows
                if row.state in SETTLED and row.updated_at < before
            ]
            for row in stale:
                self._replace(row.key, tuple(one for one in self._rows[row.key] if one is not row))
        return len(stale)

    async def claim(self, marks: Collection[str], *, now: float, seconds: float) -> bool:
        """Claim all marks for a time; return False, and claim none, if one of them is claimed already."""
        with self._lock:
            while self._claims and next(iter(self._claims.values())) <= now:
                del self._claims[next(iter(self._claims))]
            if any(self._claims.get(mark, now) > now for mark in marks):
                return False
            self._claims.update(dict.fromkeys(marks, now + seconds))
            return True

    async def unclaim(self, marks: Collection[str]) -> None:
        """Release marks, so that they can be claimed again."""
        with self._lock:
            for mark in marks:
                self._claims.pop(mark, None)

    async def durations(self) -> Mapping[str, bytes]:
        """Return the learned durations: an opaque state for each kind of task."""
        with self._lock:
            return dict(self._durations)

    async def merge_durations(self, kind: str, merge: Merge) -> bytes:
        """Apply `merge` to the state of one kind; return the state after it."""
        with self._lock:
            self._durations[kind] = merge(self._durations.get(kind))
            return self._durations[kind]

    async def aclose(self) -> None:
        """Do nothing: nothing is open, and what is stored stays."""

    def __repr__(self) -> str:
        return f"MemoryStore({sum(map(len, self._rows.values()))} jobs)"
