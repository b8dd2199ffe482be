"""The engine of workflows: a step is one paid call that is made at most once, however often it is run.

A `Step` is a value: its name in the checkpoint, the operation and its arguments. A `Workflow` runs steps on a
client, alone or inside a batch. Before a step is sent, the checkpoint says that its outcome is unknown, under
which job key; after its answer, it says what the step gave. So a process that is killed in between does not
pay again. Subclasses decide where the checkpoint is saved and which job keys the steps have.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import anyio

from .._wire.codec import report
from ..api.operation import Operation
from ..api.request import Request, refuse, violations
from ..api.results import Result
from ..api.task import Task
from ..errors import JobStoreError, MusicAPIError, OutcomeUnknownError, TaskFailedError
from .checkpoint import Checkpoint, settled_by

if TYPE_CHECKING:
    from ..client import MusicAPI

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T", bound=Result)


class Step(Generic[R_co]):
    """One paid call of a workflow: `name` in the checkpoint, the operation, its arguments."""

    def __init__(
        self,
        name: str,
        operation: Operation[..., R_co],
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self.name: Final = name
        self.operation: Final = operation
        self.fields: Final[Mapping[str, Any]] = fields or {}

    @property
    def request(self) -> Request:
        """The request of the call. Raises `TypeError` for arguments that the operation does not have."""
        try:
            return self.operation.request(**self.fields)
        except TypeError as error:
            raise self.operation.misused((), self.fields, error) from None

    def check(self, client: MusicAPI) -> None:
        """Raise the error of a request that the client would refuse, before an earlier step is paid for."""
        broken = violations(self.request)
        if broken and client.options.validate == "error":
            raise refuse(broken, self.operation.call_name)

    async def send(self, client: MusicAPI) -> R_co:
        """Make the call. Returns what the operation gives: a task, or the reply of a direct call."""
        return await self.operation.public_method(client.sonic.caller)(**self.fields)


class Workflow:
    """Steps that belong together, with one checkpoint. The checkpoint is the caller's to save."""

    def __init__(self, client: MusicAPI, checkpoint: Checkpoint | None = None) -> None:
        self.client = client
        self.checkpoint: Checkpoint = Checkpoint() if checkpoint is None else checkpoint
        self._is_own: Final = checkpoint is None

    @contextmanager
    def on_errors(self) -> Generator[None]:
        """Put the checkpoint on every `MusicAPIError` that leaves the block.

        A cancellation and errors of the caller's own functions cannot carry it: then the log has it, unless
        the caller does.
        """
        try:
            yield
        except MusicAPIError as error:
            error.checkpoint = self.checkpoint
            raise
        except BaseException:
            if self._is_own and self.checkpoint != Checkpoint():
                text = "a workflow ended early; continue it with checkpoint=Checkpoint.parse(%r)"
                report(logging.WARNING, text, self.checkpoint.json())
            raise

    # --- what a subclass may decide ------------------------------------------------------------------------

    async def save(self) -> None:
        """Save the checkpoint."""

    async def job_key(self, step: Step[object]) -> str:
        """Return the job key of a step: from that of the client, else that of its last send, else a new one.

        '' without a job store, where no job would be recorded.
        """
        if self.client.options.job_key is not None:
            return f"{self.client.options.job_key}.{step.name}"
        if self.checkpoint.unknown.get(step.name):
            return self.checkpoint.unknown[step.name]
        return f"workflow-{uuid.uuid4().hex}.{step.name}" if self.client.records_calls else ""

    async def send(self, step: Step[R], key: str) -> R:
        """Make the call of a step under its job key."""
        return await step.send(self.client.with_options(job_key=key) if key else self.client)

    # --- steps ---------------------------------------------------------------------------------------------

    async def task(self, step: Step[Task[T]]) -> Task[T]:
        """Return the task of a step: the one that is paid for already, else a new one."""
        token = self.checkpoint.tasks.get(step.name)
        if token is not None:
            return cast("Task[T]", self.client.task(token))
        try:
            task = await self.reply(step)
            self.checkpoint.tasks[step.name] = task.token
        finally:
            await self.save()
        return task

    async def wait(self, step: Step[object], task: Task[T], timeout: float | None = None) -> T:
        """Return the result of a step's task.

        A task that failed is forgotten, so that the next run makes a new one.
        """
        try:
            return await task.wait(timeout=timeout)
        except TaskFailedError:
            self.checkpoint.tasks.pop(step.name, None)
            await self.save()
            raise

    async def result(self, step: Step[Task[T]], timeout: float | None = None) -> T:
        """Run a step to its end and return the result. `timeout` in seconds limits the wait."""
        return await self.wait(step, await self.task(step), timeout)

    async def reply(self, step: Step[R]) -> R:
        """Make the paid call of a step, unless an earlier one may have been carried out.

        The step is of unknown outcome, and saved as such, from before it is sent until its answer is there.
        An operation that may be repeated freely needs no note: a second call of it costs nothing.

        Raises:
            OutcomeUnknownError: The step was begun before, and nothing proves that it was not sent.
            MusicAPIError: As the call raises.
        """
        key = await self.job_key(step)
        if step.operation.resend:
            return await self.send(step, key)
        unknown = self.checkpoint.unknown
        if step.name in unknown and not await self._has_job(unknown[step.name]):
            raise OutcomeUnknownError(
                f"the step {step.name!r} was begun before and may have been sent: its outcome is unknown",
                job_key=unknown[step.name] or None,
                hint=f"Look for its result in the dashboard, then call checkpoint.resolve({step.name!r}, "
                f"{settled_by(step.name)[0]}=...), or checkpoint.resubmit({step.name!r}) to pay for it "
                "again. (`checkpoint` is on this error.)",
            )
        before = unknown.get(step.name)
        unknown[step.name] = key
        try:
            await self.save()
        except BaseException:  # nothing was sent
            self._restore(step, before)
            raise
        try:
            made = await self.send(step, key)
        except MusicAPIError as error:
            if error.may_have_been_charged:
                sent_as = error.job_key if isinstance(error, OutcomeUnknownError) else None
                unknown[step.name] = sent_as or key
            elif not await self._may_be_paid(key, before):
                unknown.pop(step.name, None)
            raise
        except TypeError:  # a misspelt field: nothing was sent this time
            self._restore(step, before)
            raise
        except anyio.get_cancelled_exc_class():
            if await self._was_not_sent(key):
                self._restore(step, before)
            raise
        unknown.pop(step.name, None)
        return made

    def _restore(self, step: Step[object], before: str | None) -> None:
        """Undo the note of this call; `before` is the note of an earlier one."""
        if before is None:
            self.checkpoint.unknown.pop(step.name, None)
        else:
            self.checkpoint.unknown[step.name] = before

    async def _may_be_paid(self, key: str, before: str | None) -> bool:
        """Return True if a step may have been carried out although its call has just ended without a charge.

        An earlier call of it may have been: `before` is the note of one, and then only a job that is gone
        proves that it was not. A store that cannot be read proves nothing.
        """
        if not key:
            return False  # without a job, a step that was noted before is not called
        try:
            job = await self.client.job(key)
        except JobStoreError:
            return before is not None
        return job is not None and (before is not None or job.state in {"sent", "ambiguous"})

    async def _was_not_sent(self, key: str) -> bool:
        """Return True if the job of a call that was cancelled just now proves that nothing was sent."""
        if not key:
            return False
        with anyio.CancelScope(shield=True), suppress(JobStoreError):
            job = await self.client.job(key)
            return job is None or job.state == "reserved"
        return False

    async def _has_job(self, key: str) -> bool:
        """Return True if this store has a job under this key: then the job says if the step is sent."""
        prefix = self.client.options.job_key
        mine = not prefix or key.startswith(f"{prefix}.")
        return bool(key) and mine and await self.client.job(key) is not None
