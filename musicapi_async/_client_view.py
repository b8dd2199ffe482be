"""A client with its options, as families, handles and the public methods of `MusicAPI` use it.

A view holds nothing of its own but options and the job store that it records in; all else is in `Resources`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import msgspec

from ._resources import LoopResources, Resources
from ._wire.prepare import check, is_task_id, warn
from .api.batches import Batch, BatchItem, batch_came_in
from .api.families import FAMILIES, family_in
from .api.json_values import list_or_empty, mapping_or_empty
from .api.operation import Create, Direct, Operation, Poll, ReplyT, SubmitsBatch, T
from .api.request import GetMusic, Request, check_secrets
from .api.results import Result, TaskUpdate, Until
from .api.task import TASKS_AT_ONCE, Task, TaskRef, check_task, handle_of, ref_of, settle
from .arguments import check_text, refused
from .errors import JobStoreError, RequestValidationError, TaskError
from .jobs.job import STATES, Job, JobState, is_made_up, item_of
from .jobs.recorder import JobRecorder, Resubmission, settles
from .jobs.reservation import made_up
from .options import Options

if TYPE_CHECKING:
    from ._transport.batch_call import AcceptedBatch

R = TypeVar("R", bound=Result)
S = TypeVar("S")


class ClientView:
    """A client with its options, as families and handles use it. A `Caller` and a `Waiter`, in any loop."""

    __slots__ = ("_calls_recorder", "options", "recorder", "resources")

    def __init__(
        self,
        resources: Resources,
        options: Options,
        recorder: JobRecorder,
        resubmission: Resubmission | None = None,
    ) -> None:
        self.resources: Final = resources
        self.options: Final = options
        self.recorder: Final = recorder
        self._calls_recorder: Final = resubmission or recorder

    def __reduce__(self) -> NoReturn:
        self.resources.__reduce__()  # says why not

    def here(self) -> LoopResources:
        """Return the parts of the running loop."""
        return self.resources.here(self.recorder)

    def _here_for(self, operation: Operation[..., Any]) -> LoopResources:
        """Return the parts of the running loop; warn once if the service has deprecated the family."""
        family, warned = operation.family, self.resources.warned_families
        if family.replacement is not None and family.word not in warned:
            warned.add(family.word)
            text = f"{family.word} is deprecated by the service; use {family.replacement} instead"
            warn(text, DeprecationWarning)
        return self.here()

    def _here_of(self, ref: TaskRef) -> LoopResources:
        """Return the parts of the running loop. The error of a closed client names the task."""
        if self.resources.closed:
            raise _closed(ref)
        return self.here()

    async def check_job_key(self) -> None:
        """Refuse the job key of a call that was made up for one of which the store holds nothing (any more).

        Raises `JobKeyConflictError`: the call that it was made for may have been paid for.
        """
        key = self.options.job_key
        if key is not None and is_made_up(key) and await self.job(key) is None:
            raise made_up(key)

    async def submit(self, operation: Create[..., T], request: Request) -> Task[T]:
        """Send a create and return the handle of its task."""
        here = self._here_for(operation)
        await self.check_job_key()
        accepted = await here.calls.submit(operation, request, self.options, self._calls_recorder)
        task = accepted.task
        self.resources.remember(task)
        if accepted.webhook:
            here.waiter.expect(task)
        return handle_of(task, self, accepted.reply, accepted.job_key, accepted.response)

    async def submit_batch(self, operation: SubmitsBatch[...], request: Request) -> Batch:
        """Send a create of several tasks and return their handles."""
        here = self.here()
        await self.check_job_key()
        accepted = await here.calls.submit_batch(operation, request, self.options, self._calls_recorder)
        for task in accepted.tasks:
            self.resources.remember(task)
        for task in accepted.announced:
            here.waiter.expect(task)
        return self._batch_of(accepted)

    def _batch_of(self, accepted: AcceptedBatch) -> Batch:
        """Return the batch for the caller, with a handle for each task."""
        key = accepted.job_key
        items = [
            BatchItem(
                item.index,
                None if item.task is None else handle_of(item.task, self, item.raw, key, accepted.response),
                item.error,
                raw=item.raw,
            )
            for item in accepted.items
        ]
        batch = Batch(
            accepted.batch_id,
            items,
            submitted=accepted.submitted,
            is_assigned=accepted.is_assigned,
            job_key=key,
            raw=accepted.reply,
        )
        return batch_came_in(batch, accepted.response)

    async def call(self, operation: Direct[..., ReplyT], request: Request) -> ReplyT:
        """Send a direct call and return its reply."""
        here = self._here_for(operation)
        if operation.charges:
            await self.check_job_key()
        return await here.calls.direct(operation, request, self.options, self._calls_recorder)

    def poll(self, operation: Poll[...], request: Request) -> Coroutine[Any, Any, TaskUpdate]:
        """Poll a task once."""
        here = self._here_for(operation)
        task_id = request.task_id if isinstance(request, GetMusic) else ""
        if not (type(task_id) is str and is_task_id(task_id)):
            check(request, operation.call_name, self.options)
        return here.refresh(TaskRef(operation.family.word, task_id, operation.name), self.options)

    def wait(
        self, ref: TaskRef, until: Until, timeout: float | None, show: Callable[[TaskUpdate], None]
    ) -> Coroutine[Any, Any, TaskUpdate]:
        """Wait until the task has ended as `until` says."""
        return self._here_of(ref).waiter.wait(ref, until, timeout, show)

    def updates(self, ref: TaskRef, timeout: float | None) -> AsyncGenerator[TaskUpdate, None]:
        """Yield each change of the task until its end."""
        return self._here_of(ref).waiter.updates(ref, timeout)

    def refresh(self, ref: TaskRef) -> Coroutine[Any, Any, TaskUpdate]:
        """Poll the task once, now."""
        return self._here_of(ref).refresh(ref, self.options)

    async def each(
        self, tasks: Iterable[Task[R]], timeout: float | None, until: Until
    ) -> AsyncGenerator[tuple[Task[R], TaskUpdate | Exception], None]:
        """Yield the tasks as they end, each with its last update or the error of its wait."""
        unfinished: list[Task[R]] = []
        for number, task in enumerate(tasks, 1):
            if task.last is not None and task.last.is_terminal:
                yield task, task.last
            else:
                unfinished.append(task)
            if number % TASKS_AT_ONCE == 0:
                await asyncio.sleep(0)
        if self.resources.closed:
            for task in unfinished:
                yield task, _closed(ref_of(task))
            return
        async with aclosing(self.here().waiter.wait_each(unfinished, until, timeout)) as ended:
            async for task, outcome in ended:
                yield task, outcome

    async def outcomes(
        self, tasks: list[Task[R]], timeout: float | None, until: Until
    ) -> list[R | Exception]:
        """Wait for all tasks; return the result or the error of each, in their order."""
        ends: dict[int, R | Exception] = {}
        async with aclosing(self.each(tasks, timeout, until)) as each:
            async for task, end in each:
                ends[id(task)] = _result_of(end)
                if isinstance(end, TaskUpdate):
                    settle(task, end)
        return [ends[id(task)] for task in tasks]

    async def jobs(self, states: Iterable[JobState]) -> list[Job]:
        """Return the jobs in these states (none given: all), once writes under way are done."""
        wanted = tuple(states)
        for state in wanted:
            if state not in STATES:
                raise refused("state", f"one of {', '.join(STATES)}", repr(state))
        return await self._in_time(self.recorder.jobs(*wanted))

    async def job(self, key: str) -> Job | None:
        """Return the job with this key, once writes under way are done."""
        check_text("key", key)
        return await self._in_time(self.recorder.job(key))

    async def _in_time(self, query: Coroutine[Any, Any, S]) -> S:
        """Return what the job store says, once writes under way are done; within the deadline, if any."""
        calls, seconds = self.here().calls, self.options.deadline
        deadline = asyncio.timeout(None if seconds is None else self.resources.clock.real(seconds))
        try:
            async with deadline:
                await calls.finish_notes()
                return await query
        except TimeoutError:
            if seconds is None or not deadline.expired():
                raise
        finally:
            query.close()  # if it was not begun
        raise JobStoreError(
            f"the job store did not answer within the deadline of {seconds:g} s",
            hint="Close the program that locks it, or raise deadline with client.with_options(...).",
        )

    async def _job_to_decide_on(self, key: str) -> tuple[Job, Operation[..., Any] | None]:
        """Return a job and its operation, which an untyped call has none of."""
        check_text("key", key)
        job = await self._in_time(self.recorder.own_job(key))
        family = FAMILIES.get(job.request.family)
        operation = family.operations().get(job.request.kind) if family is not None else None
        if operation is None and job.request.family:
            raise RequestValidationError(f"job {key!r}: {job.request.call} is not known here", field="key")
        return job, operation

    async def resolve(self, key: str, task_id: str, item: int = 0) -> Task[Any]:
        """Give an ambiguous job its task; see `MusicAPI.resolve`."""
        job, _ = await self._job_to_decide_on(key)
        if not task_id:
            raise RequestValidationError("task_id: text, not empty", field="task_id")
        family = job.request.family or family_in(job.request.call)
        if not job.request.makes_tasks:
            raise RequestValidationError(f"job {key!r} makes no task ({job.request.call})", field="key")
        if type(item) is not int or not 0 <= item < job.request.items:
            raise refused("item", f"the number of an item, from 0 to {job.request.items - 1}", repr(item))
        fields = item_of(job.request, item)
        ref = TaskRef(
            family,
            task_id,
            job.request.kind,
            job.updated_at,
            model=str(fields.get("mv") or ""),
            format=str(fields.get("format") or ""),
        )
        check_task(ref)
        is_news = settles(job, ref)
        job = await self._in_time(self.recorder.resolve(key, ref, item))
        named = next((one for one in job.refs if one.key == ref.key), ref)
        if is_news and self.resources.observer.is_active:
            self.resources.observer.call_settled(named, key)
        return handle_of(named, self, job_key=key)

    async def resubmit(self, key: str, webhook_secret: str | None) -> Any:
        """Send a job once more as it was recorded; see `MusicAPI.resubmit`."""
        job, operation = await self._job_to_decide_on(key)
        method, _, path = job.request.call.partition(" ")
        fields = dict(job.request.fields)
        if job.request.hidden:
            if webhook_secret:
                check_secrets([webhook_secret], job.request.call)
            fields = self._with_secrets(job, fields, webhook_secret)
        resubmission = Resubmission(self.recorder, job)
        options = msgspec.structs.replace(self.options, job_key=key)
        if operation is None:
            json = fields if job.request.hidden else msgspec.json.decode(job.request.body)
            call = self.here().calls.request(method, path, json, None, options, resubmission)
            del fields, json, webhook_secret  # tracebacks can show the locals of a frame
            return await call
        request = _recorded(operation.request, fields)
        options = msgspec.structs.replace(options, extra_body=fields, validate="off")
        del fields, webhook_secret  # tracebacks can show the locals of a frame
        view = ClientView(self.resources, options, self.recorder, resubmission)
        return await operation.sender(view)(request)

    def _with_secrets(self, job: Job, fields: dict[str, Any], webhook_secret: str | None) -> dict[str, Any]:
        """Return recorded fields with their webhook secret, of a batch in each item with a webhook."""
        if not job.request.is_batch:
            return self._with_secret(job, fields, webhook_secret, None)
        items = [
            self._with_secret(job, item, webhook_secret, number) if "webhook_url" in item else item
            for number, item in enumerate(map(mapping_or_empty, list_or_empty(fields.get("items"))))
        ]
        return {**fields, "items": items}

    def _with_secret(
        self, job: Job, fields: dict[str, Any], webhook_secret: str | None, item: int | None
    ) -> dict[str, Any]:
        if not webhook_secret and self.resources.webhooks is not None:
            own = self.resources.webhooks.renewed(fields.get("webhook_url"), job.key, item)
            if own is not None:
                url, secret = own
                return {**fields, "webhook_url": url, "webhook_secret": secret}
        if not webhook_secret:
            raise RequestValidationError(
                f"webhook_secret: job {job.key!r} had one, which was not stored", field="webhook_secret"
            )
        return {**fields, "webhook_secret": webhook_secret}

    async def is_known(self, ref: TaskRef) -> bool:
        """Return True if the client made the task, or its job store holds it."""
        if self.resources.made(ref):
            return True
        for word in ref.families:
            if await self._in_time(self.recorder.store.find(word, ref.task_id)):
                return True
        return False


def _closed(ref: TaskRef) -> TaskError:
    from .polling.subscribers import closed

    return closed(ref, "the client is closed")


def _recorded(kind: type[Request], fields: Mapping[str, Any]) -> Request:
    """Return a request with recorded fields, which nothing checks: they were sent like that before."""
    declared = msgspec.structs.fields(kind)
    names = [one for one in declared if one.required or one.encode_name in fields]
    return kind(**{one.name: fields.get(one.encode_name) for one in names})


def _result_of(end: TaskUpdate | Exception) -> Any:
    """Return the result of a task that ended so, or the error that says why it has none."""
    if isinstance(end, Exception):
        return end
    try:
        return end.outcome()
    except Exception as error:
        return error
