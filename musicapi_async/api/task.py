"""The handle of a task: its ids, the reply to its submit, and the ways to wait. It holds no connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final, Generic, Protocol, TypeVar, cast
from urllib.parse import quote, unquote

import msgspec

from ..errors import RequestValidationError
from .results import Result, TaskUpdate, Until
from .values import id_of, mapping_or_empty, text_or_none

R_co = TypeVar("R_co", bound=Result, covariant=True)

SAME_FAMILY: Final[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("sonic", "suno"), ("sonic", "suno"))
"""Families whose tasks are the same: both words name Sonic (vendor's webhook guide)."""

TaskKey = tuple[str, str]
"""A family, by the first of its words, and a task id."""

TOKEN_MARK: Final = "musicapi"  # noqa: S105 - the first word of a resume token, no secret


class TaskRef(msgspec.Struct, frozen=True):
    """The identity of a task: family ('sonic'), task id, and kind (the operation that made it).

    `submitted_at` is the Unix time of the submit, 0 if it is not known; `model` and `format` are those of
    the request; `own` is True if this process submitted it.
    """

    family: str
    task_id: str
    kind: str = ""
    submitted_at: float = 0.0
    model: str = ""
    own: bool = False
    format: str = ""

    @property
    def families(self) -> tuple[str, ...]:
        """The words that name the family of this task."""
        return SAME_FAMILY.get(self.family, (self.family,))

    @property
    def key(self) -> TaskKey:
        """One key for the task, by whichever word its family is named."""
        same = SAME_FAMILY.get(self.family)
        return self.family if same is None else same[0], self.task_id

    @property
    def token(self) -> str:
        """The task in one line to store; `client.task(token)` makes a handle of it in any process."""
        parts = [self.family, self.kind, f"{self.submitted_at:.0f}", self.task_id]
        if self.format:
            parts.append(self.format)
        return ":".join((TOKEN_MARK, *(quote(part, safe="") for part in parts)))

    @classmethod
    def parse(cls, token: str) -> TaskRef | None:
        """Read a token; None if it is none."""
        parts = token.split(":")
        if len(parts) not in (5, 6) or parts[0] != TOKEN_MARK:
            return None
        family, kind, submitted, task_id, *rest = (unquote(part) for part in parts[1:])
        try:
            at = float(submitted)
        except ValueError:
            return None
        if not (family and task_id and 0 <= at < 1e11):
            return None
        return cls(family, task_id, kind, at, format=rest[0] if rest else "")


def check_until(until: Until) -> None:
    """Raise `RequestValidationError` for a word that is no `Until`."""
    if until not in ("all", "first", "stream"):
        limit = "'all', 'first' or 'stream'"
        raise RequestValidationError(
            f"until: {limit}, got {until!r}", field="until", limit=limit, value=repr(until)
        )


class Waiter(Protocol):
    """The part of the client that waits for tasks, as a handle sees it."""

    async def wait(
        self, ref: TaskRef, until: Until, timeout: float | None, notify: Callable[[TaskUpdate], None], /
    ) -> TaskUpdate:
        """Wait until the task has ended as `until` says; `notify` gets each update until then."""
        ...

    def updates(self, ref: TaskRef, timeout: float | None, /) -> AsyncGenerator[TaskUpdate, None]:
        """Yield every change of the task until its end."""
        ...

    async def refresh(self, ref: TaskRef, /) -> TaskUpdate:
        """Poll the task once, now."""
        ...

    async def is_known(self, ref: TaskRef, /) -> bool:
        """Return True if the client made the task, or its job store holds it."""
        ...


class Task(Generic[R_co]):
    """A generation that was accepted and paid for.

    `task_id` and `family` are all that is needed to find it again later, from any process:
    `client.task(family, task_id)`, or `client.task(token)`. Losing the handle loses nothing.
    `raw` is the reply to the submit, `job_key` the key of its job, if it has one; `last` is the last update
    that this handle got, also after a wait that timed out, failed or was cancelled (while more than a
    thousand tasks are waited for, only those with a finished clip have it). Once the task has ended, waiting
    again returns at once from `last`.
    """

    __slots__ = ("_stopped", "_waiter", "job_key", "last", "raw", "ref")

    def __init__(self, ref: TaskRef, waiter: Waiter, raw: Any = None, job_key: str | None = None) -> None:
        self.ref: TaskRef = ref
        self.raw: Any = raw
        self.job_key: str | None = job_key
        self.last: TaskUpdate | None = None
        self._stopped: Exception | None = None
        self._waiter = waiter

    @property
    def task_id(self) -> str:
        """The service's id of the task, an opaque string."""
        return self.ref.task_id

    @property
    def family(self) -> str:
        """The family that polls it, such as 'sonic'."""
        return self.ref.family

    @property
    def kind(self) -> str:
        """The operation that made it, such as 'create_music'; '' if the handle was rebuilt without it."""
        return self.ref.kind

    @property
    def token(self) -> str:
        """The task in one line to store; `client.task(token)` makes this handle again."""
        return self.ref.token

    @property
    def warning(self) -> str | None:
        """Remark of the service on the submit, such as that of create_voice on durability."""
        return text_or_none(mapping_or_empty(self.raw).get("warning"))

    @property
    def steps(self) -> dict[str, Any]:
        """The steps of upload_extend, upload_cover and sample, from the reply to the submit."""
        return mapping_or_empty(mapping_or_empty(self.raw).get("steps"))

    @property
    def uploaded_clip_id(self) -> str | None:
        """The clip that the upload step made, where there was one."""
        return id_of(mapping_or_empty(self.steps.get("upload")))

    async def wait(self, *, timeout: float | None = None, until: Until = "all") -> R_co:
        """Wait for the task. Free: polls cost nothing; may be called any number of times, also at once.

        Args:
            timeout: seconds to wait at most; by default that of the family, 900 for songs.
            until: 'all' clips terminal, the 'first' succeeded clip, or 'stream': the first clip with any
                audio.

        Returns:
            The result. Some clips may have failed: `clips.failed`, `clips.require_all()`.

        Raises:
            TaskFailedError: all clips failed.
            TaskTimeoutError: the time ran out; the task is still running and can be waited for again.
            AuthenticationError: the key may not poll it. The same holds for `PermissionDeniedError`.
            NotFoundError: the service does not know the task.
            EndpointRetiredError: its family was retired.
        """
        check_until(until)
        if self.last is None or not self.last.is_terminal:
            if self._stopped is not None:
                error, self._stopped = self._stopped, None
                raise error
            self.last = await self._waiter.wait(self.ref, until, timeout, self._notify)
        return cast("R_co", self.last.outcome())

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait for the task with the default time: `clips = await task`. See `wait`."""
        return self.wait().__await__()

    async def updates(self, *, timeout: float | None = None) -> AsyncGenerator[TaskUpdate, None]:
        """Yield each change of the task: pending, running (stream links), then the end. Free.

        The last update has `result` or `error` set; a failed task is an update, not an exception. `timeout`
        is in seconds, by default that of the family. Raises `TaskTimeoutError` when the time runs out, and
        the errors that end a wait otherwise.
        """
        async with aclosing(self._waiter.updates(self.ref, timeout)) as updates:
            async for update in updates:
                self.last = update
                yield update

    async def refresh(self) -> TaskUpdate:
        """Poll the task once, now, and return its update. Free."""
        self.last = await self._waiter.refresh(self.ref)
        return self.last

    async def is_known(self) -> bool:
        """Return True if this client made the task, or its job store holds it. Free, sends nothing.

        A token that a stranger sends may name any task, or none: check it before you spend polls on it. The
        client remembers its last 10,000 tasks. Raises `JobStoreError`.
        """
        return await self._waiter.is_known(self.ref)

    def _notify(self, update: TaskUpdate) -> None:
        self.last = update

    def settle(self, outcome: TaskUpdate | Exception) -> None:
        """Store how a wait for many tasks ended for this one: the next `wait` returns or raises it.

        An error that ended the wait but not the task is raised once; waiting after that resumes.
        """
        if isinstance(outcome, Exception):
            self._stopped = outcome
        else:
            self.last, self._stopped = outcome, None

    def __repr__(self) -> str:
        kind = f", kind={self.kind!r}" if self.kind else ""
        return f"Task({self.family!r}, {self.task_id!r}{kind})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        return self.family == other.family and self.task_id == other.task_id

    def __hash__(self) -> int:
        return hash((self.family, self.task_id))


def tasks_of(tasks: object) -> list[Any]:
    """Return the tasks to wait for; raises `RequestValidationError` for a single one, and for ids."""
    given = list(cast("Iterable[object]", tasks)) if isinstance(tasks, Iterable) else [tasks]
    wrong = [one for one in given if not isinstance(one, Task)]
    if wrong or not isinstance(tasks, Iterable):
        raise RequestValidationError(
            f"tasks: a list of tasks, got {type((wrong or given)[0]).__name__}",
            field="tasks",
            hint="For one task: await task.wait(); for an id: client.task(family, task_id).",
        )
    return given
