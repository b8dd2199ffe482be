"""The tools at work: each takes checked arguments and returns a `Reply`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .._client_view import ClientView
from .._wire.codec import escaped, one_line
from ..api.account import credits_in
from ..api.families import polled_as
from ..api.json_values import mapping_or_empty
from ..api.request import Request, is_link
from ..api.results import Clips, TaskUpdate
from ..api.sonic import Sonic
from ..api.task import Task, TaskRef
from ..arguments import refused
from ..errors import MusicAPIError, TaskTimeoutError
from ..workflows.batch_folder import BatchFolder
from ..workflows.batch_plan import plan_batch
from ..workflows.budget import BudgetExceeded
from ..workflows.manifest import Manifest, operation_of
from .paid_calls import PaidCalls, Sending
from .tool_results import (
    WAIT_MORE,
    Fields,
    FileLink,
    Reply,
    error_fields,
    fault_fields,
    file_fields,
    given,
    job_fields,
    link,
    over_budget_fields,
    reply_fields,
    sending_fields,
    task_fields,
    update_fields,
)
from .tools import (
    DEFAULTS,
    TOOLS,
    USUAL_WAIT,
    CheckSong,
    DownloadSong,
    GetCredits,
    ListJobs,
    PlanBatch,
    Tool,
    WaitForSong,
    prices_of,
    request_of,
)

if TYPE_CHECKING:
    from ..client import MusicAPI

log: Final = logging.getLogger("musicapi_async")

REPORT_EVERY: Final = 5.0
"""Real seconds between reports of progress: some clients count their limit from the last one."""

PLANNED: Final = (
    *("songs", "creates", "calls", "steps", "seconds", "rate_limit"),
    *("cost", "unpriced", "spent", "budget", "over_budget"),
)
"""Fields of a plan that its tool returns; the others are about a batch that has begun."""
WRITES: Final = "write_lyrics"
LONGEST_NAME: Final = 1000
"""Characters of a token or a job key that an error repeats."""

Report = Callable[[float, str], Awaitable[None]]
"""Reports progress: the seconds so far, and a sentence."""


class Actions:
    """Carries out the tools of one server.

    Args:
        client: An open client with a job store.
        folder: Where files and learned prices are saved.
        store: The job store, as a word of a command line.
        budget: Credits for all calls in the job store; None: no limit.
        prices: Credits by operation.
    """

    def __init__(
        self,
        client: MusicAPI,
        folder: BatchFolder,
        store: str,
        budget: float | None,
        prices: Mapping[str, float],
    ) -> None:
        caller = client.sonic.caller
        assert isinstance(caller, ClientView)
        self._view: Final = caller
        # A free call that hangs ends before the client of the model gives up.
        self._client: Final = client.with_options(deadline=USUAL_WAIT * client.clock.speed)
        self._folder: Final = folder
        self._store: Final = store
        self._calls: Final = PaidCalls(client, caller.recorder.account, folder, budget, prices)

    @property
    def speed(self) -> float:
        """The API seconds in a real one."""
        return self._client.clock.speed

    async def aclose(self) -> None:
        """End the paid calls that are under way; see `PaidCalls.aclose`."""
        await self._calls.aclose()

    async def call(self, name: str, arguments: Mapping[str, object], report: Report) -> Reply:
        """Carry out a tool. Never raises an `Exception`: an error is a result, too.

        Args:
            name: One of `TOOLS`.
            arguments: As the model gave them.
            report: Gets the progress of a wait.
        """
        tool = TOOLS[name]
        named = _names(tool, arguments)
        try:
            request = request_of(tool, arguments)
            if tool.charges:
                reply = await self._pay(tool, request, str(arguments["job_key"]))
            else:
                reply = await self._free(request, report)
        except Sending:
            reply = Reply({**sending_fields(), **named})
        except BudgetExceeded as error:
            reply = Reply({**over_budget_fields(str(error)), **named}, is_error=True)
        except MusicAPIError as error:
            fields = error_fields(error, charges=tool.charges, store=self._store)
            reply = Reply({**fields, **named}, is_error=True)
        except Exception as error:
            log.exception("the tool %s failed", name)
            reply = Reply({**fault_fields(error, charges=tool.charges), **named}, is_error=True)
        return msgspec.structs.replace(reply, fields=self._redacted(reply.fields))

    def _redacted(self, fields: Fields) -> Fields:
        """Return the fields with the secrets of the client hidden, which a peer may have repeated."""
        return mapping_or_empty(self._view.here().redactor.copy(fields))

    async def _pay(self, tool: Tool, request: Request, key: str) -> Reply:
        made = await self._calls.make(tool.operation_for(request), request, key, at_most=USUAL_WAIT)
        if isinstance(made.result, Task):
            return Reply(task_fields(made.result, key, made.known))
        return Reply(reply_fields(made.result, key, made.known))

    async def _free(self, request: Request, report: Report) -> Reply:
        match request:
            case WaitForSong():
                return await self._wait(self._task(request.token), request.at_most, report)
            case CheckSong():
                update = await self._task(request.token).refresh()
                return Reply(update_fields(request.token, update))
            case DownloadSong():
                return await self._download(self._task(request.token), request.at_most)
            case ListJobs():
                return await self._list(request)
            case GetCredits():
                return await self._credits()
            case PlanBatch():
                return await self._plan(request)
            case _:
                raise AssertionError(type(request).__name__)

    def _task(self, token: str) -> Task[Clips]:
        ref = TaskRef.parse(token)
        if ref is None or polled_as(ref.family) is None:
            form = "a whole token, such as musicapi:sonic:create_music:1760000000:TASK_ID"
            raise refused("token", form)
        return self._client.task(token)

    async def _wait(self, task: Task[Clips], at_most: float, report: Report) -> Reply:
        reporting = asyncio.ensure_future(_report_progress(task, report))
        try:
            async with aclosing(task.updates(timeout=at_most * self.speed)) as updates:
                async for update in updates:
                    if update.is_terminal:
                        return Reply(update_fields(task.token, update))
        except TaskTimeoutError:
            last = task.last or TaskUpdate("pending")
            return Reply(update_fields(task.token, last))
        finally:
            reporting.cancel()
        raise AssertionError("updates end with the end of the task or with an error")

    async def _download(self, task: Task[Clips], at_most: float) -> Reply:
        loop = asyncio.get_running_loop()
        end = loop.time() + at_most
        update = await task.refresh()
        if not update.is_terminal:
            return Reply(given(state="still being made", token=task.token, next=WAIT_MORE))
        result = update.outcome()
        seconds = max(1.0, end - loop.time()) * self.speed
        view = self._client.with_options(deadline=seconds)
        paths = await view.download(result, self._folder.out)
        clips = [clip for clip in result.clips if not clip.is_failed]
        files = tuple(
            FileLink(path, one_line(clip.title or path.stem), clip.duration, link(clip.image_url))
            for path, clip in zip(paths, clips, strict=False)
        )
        fields = given(
            state=update.state,
            token=task.token,
            files=file_fields(files),
            money="Paid for before; saving is free.",
            next="Give the paths to the user.",
        )
        return Reply(fields, files)

    async def _list(self, request: ListJobs) -> Reply:
        states = request.states
        jobs = [job for job in await self._calls.jobs() if states is None or job.state in states]
        latest = jobs[::-1][: request.limit]
        more = len(jobs) - len(latest)
        return Reply(given(jobs=[job_fields(job) for job in latest], not_listed=more or None))

    async def _credits(self) -> Reply:
        balance = await self._client.credits()
        budget = self._calls.budget
        limits: Fields = {}
        if budget is not None and budget.limit is not None:
            spent = await self._calls.spent()
            limits = {
                "limit": budget.limit,
                "spent": spent,
                "remaining": max(0.0, credits_in(budget.limit, -spent)),
            }
        return Reply(given(credits=balance.total, budget=limits or None))

    async def _plan(self, request: PlanBatch) -> Reply:
        rows = [row if "operation" in row else {**DEFAULTS, **row} for row in request.songs]
        manifest = Manifest.of(rows, "songs")
        for song in manifest.songs:
            for name in operation_of(song).links:
                if name in song.fields and not is_link(song.fields[name]):
                    raise refused(f"songs, {name}", "a public link", "a local file")
        budget = self._calls.budget
        known = dict(budget.prices) if budget is not None else {}
        known.pop(Sonic.lyrics.name, None)  # of no batch, in which this name means the words of a clip
        known |= prices_of({name: price for name, price in (request.prices or {}).items() if name != WRITES})
        limit = None if budget is None else budget.limit
        plan = await plan_batch(manifest, self._folder.out, budget=limit, prices=known or None)
        following = (
            "Create each with create_song, with a job_key of its own; or save them as one JSON object a "
            "line, and the user runs `musicapi batch run songs.jsonl --out FOLDER`."
        )
        found = {name: value for name, value in msgspec.structs.asdict(plan).items() if name in PLANNED}
        if limit is not None:  # of the job store, which need not be in the folder
            spent = await self._calls.spent()
            found |= {
                "spent": spent,
                "over_budget": plan.cost is not None and credits_in(spent, plan.cost) > limit,
            }
        return Reply({**found, "money": "Nothing was sent.", "next": following})


async def _report_progress(task: Task[Any], report: Report) -> None:
    """Report how far a task is, until this is cancelled."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while True:
        state = "pending" if task.last is None else task.last.state
        with suppress(Exception):  # a client that is gone, or reads no progress, is no reason to end a wait
            waited = round(loop.time() - start, 1)
            await report(waited, f"{state}, waited {waited:.0f} s")
        await asyncio.sleep(REPORT_EVERY)


def _names(tool: Tool, arguments: Mapping[str, object]) -> Fields:
    """Return the job key or the token of a call, which its error repeats."""
    name = "job_key" if tool.charges else "token"
    value = arguments.get(name)
    return {name: escaped(value)} if isinstance(value, str) and len(value) <= LONGEST_NAME else {}
