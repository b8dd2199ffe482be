"""Jobs of this process only: what a client without a store keeps for its job keys."""

from __future__ import annotations

import threading
from typing import Final

from .store import Job, JobState, Step


class MemoryStore:
    """A `JobStore` that forgets everything with its process. May be shared by clients, loops and threads."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._rows: Final[dict[str, Job]] = {}
        self._by_task: Final[dict[tuple[str, str], set[str]]] = {}

    async def change(self, key: str, step: Step, *, durable: bool = False) -> Job | None:
        """Apply `step` to the row of `key`; `durable` is beyond it."""
        with self._lock:
            before = self._rows.get(key)
            after = step(before)
            if after is before:
                return after
            if before is not None and before.task is not None:
                self._by_task.get((before.task.family, before.task.task_id), set()).discard(key)
            if after is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = after
                if after.task is not None:
                    self._by_task.setdefault((after.task.family, after.task.task_id), set()).add(key)
            return after

    async def get(self, key: str) -> Job | None:
        """The job with this key."""
        with self._lock:
            return self._rows.get(key)

    async def find(self, family: str, task_id: str) -> list[Job]:
        """The jobs with this task."""
        with self._lock:
            return [self._rows[key] for key in sorted(self._by_task.get((family, task_id), ()))]

    async def jobs(self, *states: JobState) -> list[Job]:
        """The jobs in these states (none given: all), oldest first."""
        with self._lock:
            found = [job for job in self._rows.values() if not states or job.state in states]
        return sorted(found, key=lambda job: job.created_at)

    async def aclose(self) -> None:
        """Nothing is open; what is kept stays."""

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._rows)} jobs)"
