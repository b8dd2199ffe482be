"""The handle of a task: its ids, the reply to its submit, and the ways to wait. It holds no connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import aclosing
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast
from urllib.parse import quote, unquote

import msgspec

from ..arguments import check_text, is_text, refused
from ..errors import RequestValidationError
from ..options import check_id
from ..plain_data import PlainData
from .json_values import clip_id_in, mapping_or_empty, text_or_none
from .response_info import Received, ResponseInfo
from .results import Result, TaskUpdate, Until

R_co = TypeVar("R_co", bound=Result, covariant=True)

SAME_FAMILY: Final[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("sonic", "suno"), ("sonic", "suno"))
"""Families whose tasks are the same: both words name Sonic (vendor's webhook guide)."""

LATEST_SUBMIT: Final = 1e11
"""Unix times that are above it are milliseconds, or no times at all."""

TASKS_AT_ONCE: Final = 500
"""Tasks that a wait takes in, in about 5 ms, before other tasks of the loop run."""

TaskKey = tuple[str, str]
"""A family, by the first of its words, and a task id."""

TOKEN_MARK: Final = "musicapi"  # noqa: S105 - the first word of a resume token, no secret


class TaskRef(PlainData, msgspec.Struct, frozen=True):
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
        """The families under which the service knows this task: 'sonic' and 'suno' are the same."""
        return SAME_FAMILY.get(self.family, (self.family,))

    @property
    def key(self) -> TaskKey:
        """The identity of the task: equal for 'sonic' and 'suno'."""
        same = SAME_FAMILY.get(self.family)
        return self.family if same is None else same[0], self.task_id

    @property
    def token(self) -> str:
        """One line of text to store; `client.task(token)` returns a handle of this task in any process."""
        parts = [self.family, self.kind, f"{self.submitted_at:.0f}", self.task_id]
        if self.format:
            parts.append(self.format)
        return ":".join((TOKEN_MARK, *(quote(part, safe="") for part in parts)))

    @classmethod
    def parse(cls, token: str) -> TaskRef | None:
        """Return the identity in a token, or None if the text is no token."""
        parts = token.split(":")
        if len(parts) not in (5, 6) or parts[0] != TOKEN_MARK:
            return None
        family, kind, submitted, task_id, *rest = (unquote(part) for part in parts[1:])
        try:
            at = float(submitted)
        except ValueError:
            return None
        if not (family and task_id and _is_time(at)):
            return None
        return cls(family, task_id, kind, at, format=rest[0] if rest else "")


def check_task(ref: TaskRef) -> TaskRef:
    """Return the task that a caller names; `RequestValidationError` if its token could not name it again."""
    for field, value in (("family", ref.family), ("task_id", ref.task_id), ("kind", ref.kind)):
        if not is_text(value) or not (value or field == "kind"):
            raise refused(field, "text" if field == "kind" else "text, not empty", repr(value)[:100])
        check_text(field, value)
    check_id("task_id", ref.task_id)
    if not _is_time(ref.submitted_at) or TaskRef.parse(ref.token) is None:
        limit = "a Unix time in seconds, or 0 if it is not known"
        raise refused("submitted_at", limit, repr(ref.submitted_at)[:100])
    return ref


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LATEST_SUBMIT


def check_until(until: Until) -> None:
    """Raise `RequestValidationError` for a word that is no `Until`."""
    if until not in ("all", "first", "stream"):
        raise refused("until", "'all', 'first' or 'stream'", repr(until))


NOT_AWAITED: Final = "await the task for its result: clips = await task"


class Waiter(Protocol):
    """The part of the client that a handle needs: it waits for tasks."""

    def wait(
        self, ref: TaskRef, until: Until, timeout: float | None, notify: Callable[[TaskUpdate], None], /
    ) -> Coroutine[Any, Any, TaskUpdate]:
        """Wait until the task has ended as `until` says; `notify` gets each update until then."""
        ...

    def updates(self, ref: TaskRef, timeout: float | None, /) -> AsyncGenerator[TaskUpdate, None]:
        """Yield every change of the task until its end."""
        ...

    def refresh(self, ref: TaskRef, /) -> Coroutine[Any, Any, TaskUpdate]:
        """Poll the task once, now."""
        ...

    async def is_known(self, ref: TaskRef, /) -> bool:
        """Return True if the client made the task, or its job store holds it."""
        ...


class DetachedWaiter:
    """The waiter of a handle without a client, such as one that was pickled: it says how to get one."""

    async def wait(
        self, ref: TaskRef, until: Until, timeout: float | None, notify: Callable[[TaskUpdate], None], /
    ) -> TaskUpdate:
        raise _detached(ref)

    async def updates(self, ref: TaskRef, timeout: float | None, /) -> AsyncGenerator[TaskUpdate, None]:
        raise _detached(ref)
        yield  # makes it a generator

    async def refresh(self, ref: TaskRef, /) -> TaskUpdate:
        raise _detached(ref)

    async def is_known(self, ref: TaskRef, /) -> bool:
        raise _detached(ref)


def _detached(ref: TaskRef) -> RequestValidationError:
    return RequestValidationError(
        f"the handle of task {ref.task_id} has no client: it was pickled, or made of plain data",
        field="task",
        hint=f"Use client.task(task.token), here client.task({ref.token!r}).",
    )


def _load(ref: TaskRef, raw: Any, job_key: str | None, last: TaskUpdate | None) -> Task[Any]:
    """Return a handle out of a pickle; `own` says which process submitted it, and this one may be another."""
    return handle_of(msgspec.structs.replace(ref, own=False), DetachedWaiter(), raw, job_key, last=last)


class Task(
    PlainData,
    Generic[R_co],
    fields={
        "token": str,
        "family": str,
        "task_id": str,
        "kind": str,
        "job_key": str | None,
        "state": str | None,
        "last": TaskUpdate | None,
    },
):
    """A generation that was accepted and paid for.

    A create returns a `Task`; `client.task(token)` or `client.task(family, task_id)` returns one for the same
    task later, in any process. Once the task has ended, waiting again returns at once from `last`.

    A `Task` that was pickled, read back from plain data, or made as `Task(token)` has no client: wait with
    `client.task(task.token)`. A pickle includes the ids, `raw`, `job_key` and `last`. A copy shares the
    client.

    ```python
    task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi, rainy evening")
    print(task.token)  # store it to wait in another process
    clips = await task
    ```

    Args:
        token: the token of the task.
        job_key: the key of its job, if it has one.
        last: the last update.
    """

    __slots__ = {
        "_received": "",
        "_ref": "",
        "_stopped": "",
        "_waiter": "",
        "job_key": "The key of its job, if it has one.",
        "last": "The last update of this handle, also after a wait that timed out, failed or was cancelled. "
        "While more than a thousand tasks are waited for, only those with a finished clip have it.",
        "raw": "The reply to the create; None if the handle was made from a token or an id.",
    }

    if not TYPE_CHECKING:

        def __class_getitem__(cls, result):
            """Return the class: the result is for type checkers, and hides the schema from pydantic."""
            return cls

        # The commonest mistake is to take a task for its result. Type checkers find it without these.

        def __getattr__(self, name):
            raise AttributeError(
                f"'Task' object has no attribute {name!r}; {NOT_AWAITED}", name=name, obj=self
            )

        def __getitem__(self, key):
            raise TypeError(f"'Task' object is not subscriptable and not iterable; {NOT_AWAITED}")

    def __init__(self, token: str, *, job_key: str | None = None, last: TaskUpdate | None = None) -> None:
        """Make a handle without a client; `client.task(token)` makes one that can wait."""
        self._ref: TaskRef = check_task(ref_in(token))
        self._waiter: Waiter = DetachedWaiter()
        self._stopped: Exception | None = None
        self.raw: Any = None
        self.job_key: str | None = job_key
        self._received: Received | ResponseInfo | None = None
        self.last: TaskUpdate | None = last

    @property
    def task_id(self) -> str:
        """The service's id of the task, an opaque string."""
        return self._ref.task_id

    @property
    def family(self) -> str:
        """The family of the task, such as 'sonic'."""
        return self._ref.family

    @property
    def kind(self) -> str:
        """The operation that made the task, such as 'create_music'; '' if that is not known."""
        return self._ref.kind

    @property
    def token(self) -> str:
        """One line of text to store; `client.task(token)` returns a handle of this task in any process."""
        return self._ref.token

    @property
    def state(self) -> str | None:
        """The state in `last`, such as 'running'; None if the handle has no update yet. Sends nothing."""
        return None if self.last is None else self.last.state

    @property
    def response(self) -> ResponseInfo | None:
        """The HTTP response to the create; None if the handle was made from a token or a recorded job."""
        if self._received is not None and not isinstance(self._received, ResponseInfo):
            self._received = self._received.info()
        return self._received

    @property
    def warning(self) -> str | None:
        """The warning in the service's reply to the create, if it has one; `create_voice` sends some."""
        return text_or_none(mapping_or_empty(self.raw).get("warning"))

    @property
    def steps(self) -> dict[str, Any]:
        """The steps of upload_extend, upload_cover and sample, from the reply to the create."""
        return mapping_or_empty(mapping_or_empty(self.raw).get("steps"))

    @property
    def uploaded_clip_id(self) -> str | None:
        """The id of the clip that the upload step made; None if there was no such step."""
        return clip_id_in(mapping_or_empty(self.steps.get("upload")))

    async def wait(self, *, timeout: float | None = None, until: Until = "all") -> R_co:
        """Wait for the task and return its result. Free; may be repeated, also several times at once.

        Args:
            timeout: the longest time to wait, in seconds; by default 900 for songs, 1800 for stems, 600 for
                Producer and Nuro, 180 for `make_lyrics`.
            until: 'all' (every clip has ended), 'first' (one clip has succeeded), or 'stream' (one clip has
                audio to listen to).

        Returns:
            The result. Some clips may have failed: `clips.failed`, `clips.require_all()`.

        Raises:
            TaskFailedError: all clips failed.
            TaskTimeoutError: the time ran out; the task continues, and can be waited for again.
            AuthenticationError: the key may not poll the task; likewise `PermissionDeniedError`.
            NotFoundError: the service does not know the task.
            EndpointRetiredError: the service retired the family of the task.
        """
        check_until(until)
        if self.last is None or not self.last.is_terminal:
            if self._stopped is not None:
                error, self._stopped = self._stopped, None
                raise error
            self.last = await self._waiter.wait(self._ref, until, timeout, self._notify)
        return cast("R_co", self.last.outcome())

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait for the task with the default `timeout`: `clips = await task`. See `wait`."""
        return self.wait().__await__()

    async def updates(self, *, timeout: float | None = None) -> AsyncGenerator[TaskUpdate, None]:
        """Yield each change of the task: pending, running (stream links), then the end. Free.

        The last update has `result` or `error` set: a failed task is an update, not an exception.

        Args:
            timeout: the longest time to wait, in seconds; by default 900 for songs, 1800 for stems, 600 for
                Producer and Nuro, 180 for `make_lyrics`.

        Raises:
            TaskTimeoutError: the time ran out; the task continues, and can be waited for again.
            APIStatusError: the errors that end a `wait`, such as `NotFoundError`.
        """
        async with aclosing(self._waiter.updates(self._ref, timeout)) as updates:
            async for update in updates:
                self.last = update
                yield update

    async def refresh(self) -> TaskUpdate:
        """Poll the task once, now, and return its update. Free, may be repeated.

        A failed task is an update with `error` set. Raises `APIStatusError` and `APIConnectionError`.
        """
        self.last = await self._waiter.refresh(self._ref)
        return self.last

    async def is_known(self) -> bool:
        """Return True if this client made the task, or its job store has it. Free, sends nothing.

        A back end can check a token from a visitor with it before it polls: the token may name another
        account's task, or none. The client remembers its last 10,000 tasks. Raises `JobStoreError`.
        """
        return await self._waiter.is_known(self._ref)

    def _notify(self, update: TaskUpdate) -> None:
        self.last = update

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self._ref, self.raw, self.job_key, self.last)

    def __copy__(self) -> Task[R_co]:
        return self._with(self.raw, self.last)

    def __deepcopy__(self, memo: dict[int, Any]) -> Task[R_co]:
        return self._with(deepcopy(self.raw, memo), deepcopy(self.last, memo))

    def _with(self, raw: Any, last: TaskUpdate | None) -> Task[R_co]:
        """Return a handle of the same task and client."""
        task = handle_of(self._ref, self._waiter, raw, self.job_key, self._received, last=last)
        task._stopped = self._stopped
        return task

    def __repr__(self) -> str:
        kind = f", kind={self.kind!r}" if self.kind else ""
        state = f", state={self.last.state!r}" if self.last is not None else ""
        return f"Task({self.family!r}, {self.task_id!r}{kind}{state})"

    def _repr_html_(self) -> str:
        from .player import task_html

        return task_html(f"{self.family} {self.kind}".strip(), self.token, self.last)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        return self.family == other.family and self.task_id == other.task_id

    def __hash__(self) -> int:
        return hash((self.family, self.task_id))


def handle_of(
    ref: TaskRef,
    waiter: Waiter,
    raw: Any = None,
    job_key: str | None = None,
    response: Received | ResponseInfo | None = None,
    *,
    last: TaskUpdate | None = None,
) -> Task[Any]:
    """Return the handle of a task.

    Args:
        ref: the identity of the task.
        waiter: waits for it.
        raw: the reply to its submit.
        job_key: the key of its job.
        response: the HTTP response of its submit.
        last: its last update.
    """
    kind: type[Task[Any]] = Task
    task = kind.__new__(kind)
    task._ref, task._waiter, task._stopped = ref, waiter, None  # pyright: ignore[reportPrivateUsage]
    task.raw, task.job_key, task._received, task.last = raw, job_key, response, last  # pyright: ignore[reportPrivateUsage]
    return task


def ref_in(token: object) -> TaskRef:
    """Return the identity in a `Task.token`; `RequestValidationError` if it is none."""
    ref = TaskRef.parse(token) if isinstance(token, str) else None
    if ref is None:
        raise RequestValidationError(
            "token: a Task.token, such as 'musicapi:sonic:create_music:1760000000:TASK_ID'",
            field="token",
            limit="a Task.token",
            hint="With a bare id name the family, too: client.task('sonic', task_id).",
        )
    return ref


def ref_of(task: Task[Any]) -> TaskRef:
    """Return the identity of a handle's task."""
    return task._ref  # pyright: ignore[reportPrivateUsage]


def settle(task: Task[Any], outcome: TaskUpdate | Exception) -> None:
    """Store how a wait for many tasks ended for this one: its next `wait` returns or raises it.

    An error that ended the wait but not the task is raised once; waiting after that resumes.
    """
    if isinstance(outcome, Exception):
        task._stopped = outcome  # pyright: ignore[reportPrivateUsage]
    else:
        task.last, task._stopped = outcome, None  # pyright: ignore[reportPrivateUsage]


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
