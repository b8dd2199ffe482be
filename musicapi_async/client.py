"""`MusicAPI`: builds the parts, hands them to each other, and owns their lifetime."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, cast, overload

import msgspec

from ._resources import ClientView, Resources
from .api.account import Account, Credits, Spending
from .api.families import FAMILIES
from .api.nuro import Nuro
from .api.operation import Operation
from .api.producer import Producer
from .api.request import check_secrets
from .api.results import Clips, Result, TaskUpdate, Until
from .api.riffusion import Riffusion
from .api.sonic import Sonic, Suno
from .api.studio import Studio
from .api.suggestions import did_you_mean
from .api.task import Task, TaskRef, tasks_of
from .clock import Clock
from .errors import MusicAPIError, RequestValidationError
from .files import expand
from .jobs.job import STATES
from .options import (
    Options,
    SonicPaths,
    check_parts,
    check_private_addresses,
    check_proxy,
    check_text,
    find_account,
    find_base_url,
    find_clock_speed,
    find_key,
)

if TYPE_CHECKING:
    import aiohttp

    from ._transport.links import Fetchable
    from ._transport.rate import Rate
    from ._transport.rate_limiter import RateLimiter
    from .jobs.job import Job, JobState
    from .jobs.store import JobStore
    from .polling.schedule import PollSchedule
    from .webhooks import Inbox, Webhooks

R = TypeVar("R", bound=Result)


class MusicAPI:
    """A client of one host and one account.

    ```python
    async with MusicAPI() as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi, rainy")
        clips = await task.wait()
        await client.download(clips, "out/")
    ```

    It may be made outside a loop and used in one loop after the other. Without `async with`, end with
    `await client.aclose()`.

    `api_key`: else MUSICAPI_KEY or MUSICAPI_API_KEY. `base_url`: else MUSICAPI_BASE_URL, else the service.
    `rate_limit`: creates per time, such as '1/3s' (the documented limit, default) or '20/10s'; None: no
    limit. `max_in_flight`: most tasks submitted and not yet ended (None: no cap). `attempt_timeout`,
    `deadline`, `max_retries`, `validate`: see `with_options`. `polling`: a schedule
    of polls, such as `musicapi_async.polling.LearnedSchedule`.
    `store`: where paid calls are written down before they leave, such as
    `SQLiteStore("jobs.sqlite")`; without one, job keys hold within this client only. `account`: else
    MUSICAPI_ACCOUNT, else a fingerprint of the API key: the account that job keys belong to. Name it where an
    API key may be replaced, or where accounts share a store; the error of a job key says when it matters.
    `limiter`: a `RateLimiter` instead of the one in memory. `session`: an aiohttp session for API calls,
    used and not closed. `proxy`: a proxy's URL; `trust_env`: take proxies from the environment.
    `forbid_private_addresses`: for back ends that download links of their users: no file is fetched from a
    private or loopback address, whatever the link is called, redirects included. Not with a proxy, which
    connects in place of this process.
    `webhooks`: `Webhooks(url=..., secret=...)` has results delivered instead of polled, see
    `client.webhooks`.
    `sonic_word`: 'suno' on sister hosts that want it in the paths; `sonic_poll`: where songs are polled there
    (else '/suno/clip/{task_id}'). `close_with_loop`: connections end with their event loop, and a client that
    is not closed by hand is no mistake. `clock`, `rng`: for tests.

    Raises `RequestValidationError` for a missing or malformed key, address or option.
    """

    sonic: Sonic
    """Songs, personas, voices, stems, files and tools."""
    suno: Suno
    """The same service under its other word, legacy lyrics, share links."""
    producer: Producer
    """Short tracks."""
    nuro: Nuro
    """Deprecated by the service."""
    riffusion: Riffusion
    """Deprecated by the service."""
    studio: Studio
    """Unavailable at the service."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        rate_limit: str | Rate | None = "1/3s",
        max_in_flight: int | None = None,
        attempt_timeout: float | None = None,
        deadline: float | None = None,
        max_retries: int = 3,
        validate: str = "error",
        polling: PollSchedule | None = None,
        store: JobStore | None = None,
        account: str | None = None,
        limiter: RateLimiter | None = None,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        forbid_private_addresses: bool = False,
        webhooks: Webhooks | None = None,
        sonic_word: str = "sonic",
        sonic_poll: str | None = None,
        close_with_loop: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        options = Options(
            attempt_timeout=attempt_timeout,
            deadline=deadline,
            max_retries=max_retries,
            validate=cast("Any", validate),
        )
        check_parts(
            store=store, polling=polling, limiter=limiter, session=session, webhooks=webhooks, clock=clock
        )
        check_proxy(proxy)
        check_private_addresses(forbid_private_addresses, by_proxy=proxy is not None or trust_env)
        url = find_base_url(base_url)
        key = find_key(api_key)
        resources = Resources(
            api_key=key,
            account=find_account(account, key),
            base_url=url,
            rate_limit=rate_limit,
            max_in_flight=max_in_flight,
            polling=polling,
            store=store,
            limiter=limiter,
            session=session,
            proxy=proxy,
            trust_env=trust_env,
            forbid_private_addresses=forbid_private_addresses,
            webhooks=webhooks,
            sonic_paths=SonicPaths(sonic_word, sonic_poll),
            close_with_loop=close_with_loop,
            clock=clock or Clock(find_clock_speed(url)),
            rng=rng,
            attempt_timeout=attempt_timeout,
        )
        self._attach(ClientView(resources, options, resources.recorder))

    def _attach(self, view: ClientView) -> None:
        self._view = view
        self._resources = view.resources
        self._options = view.options
        self._recorder = view.recorder
        self.sonic = Sonic(view)
        self.suno = Suno(view)
        self.producer = Producer(view)
        self.nuro = Nuro(view)
        self.riffusion = Riffusion(view)
        self.studio = Studio(view)
        self._account = Account(view)

    # --- calls ---------------------------------------------------------------------------------------------

    async def credits(self) -> Credits:
        """The balance of the account. Free, may be called often. Raises `AuthenticationError`."""
        return await self._account.credits()

    @asynccontextmanager
    async def spending(self) -> AsyncGenerator[Spending]:
        """Measure what is spent inside: the balance before and after alone proves a charge or a refund. Free.

        ```python
        async with client.spending() as spent:
            await (await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm")).wait()
        print(spent.total)
        ```
        Other calls of the account count, too. An error leaves with `spent` filled in, if the balance can be
        had; a cancellation, such as by a time-out around it, does not wait for that. Raises what `credits`
        raises.
        """
        spent = Spending(await self.credits())
        try:
            yield spent
        except Exception:
            with suppress(MusicAPIError):
                spent.after = await self.credits()
            raise
        spent.after = await self.credits()

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, object] | None = None,
    ) -> Any:
        """Call any path below the base URL, with the same key, limits and errors; returns the decoded JSON.

        For what is not typed here. A GET is free and repeated after passing failures; anything else is taken
        to cost credits, is sent at most once, and waits for its turn under the rate of creates unless it is
        known to be a direct call.

        `POST /sonic/batch` and `GET /sonic/batch` (`params={"batch_id": ...}`): at most 10 items, each with a
        webhook and failures of its own, as the vendor's site says. Unknown: the keys of the body, the reply
        (where the batch id is in it), the form of a status and of results, the price. `create_many` makes
        single creates under the rate and needs none of it. `POST /producer/lyrics-create` and
        `POST /producer/video-clip`, on a sister host only: bodies and results are unknown; the task is polled
        with `client.task("producer", task_id)`.
        """
        here = await self._view.here()
        call = here.calls.request(method, path, json, params, self._options, self._recorder)
        del json, params  # they may hold a secret, and tracebacks can show the locals of a frame
        return await call

    async def create_many(
        self, create: Callable[..., Awaitable[Task[Any]]], requests: Iterable[Mapping[str, Any]]
    ) -> list[Task[Any] | Exception]:
        """Submit many creates under the rate: `await client.create_many(client.sonic.create_music, rows)`.

        Each costs credits. Returns, in the order of `requests`, the task or the error of each, whatever it is
        (a `TypeError` for a misspelt field): an error of one loses none of the others.
        """

        async def one(request: Mapping[str, Any]) -> Task[Any] | Exception:
            try:
                return await create(**request)
            except Exception as error:
                return error

        return list(await asyncio.gather(*map(one, requests)))

    # --- tasks ---------------------------------------------------------------------------------------------

    @overload
    def task(self, token: str, /) -> Task[Clips]: ...
    @overload
    def task(
        self, family: str, task_id: str, *, kind: str = "", submitted_at: float = 0.0
    ) -> Task[Clips]: ...
    def task(
        self, family: str, task_id: str | None = None, *, kind: str = "", submitted_at: float = 0.0
    ) -> Task[Clips]:
        """The handle of a task that was submitted before, by any process: `client.task("sonic", task_id)`, or
        `client.task(token)` with a `Task.token`. Sends nothing.

        `kind` is the operation that made it (needed only to read stems by name), `submitted_at` its Unix
        time.
        """
        check_text("task", f"{family}{task_id or ''}")
        if task_id is None:
            ref = TaskRef.parse(family)
            if ref is None:
                raise RequestValidationError(
                    "token: a Task.token, such as 'musicapi:sonic:create_music:1760000000:TASK_ID'",
                    field="token",
                    limit="a Task.token",
                    hint="With a bare id name the family, too: client.task('sonic', task_id).",
                )
        else:
            if not task_id or not family:
                raise RequestValidationError("task_id: text, not empty", field="task_id")
            ref = TaskRef(family, task_id, kind, submitted_at)
        return Task(ref, self._view)

    @overload
    async def wait_all(
        self, tasks: Iterable[Task[R]], *, timeout: float | None = None, until: Until = "all"
    ) -> list[R]: ...
    @overload
    async def wait_all(
        self,
        tasks: Iterable[Task[R]],
        *,
        timeout: float | None = None,
        until: Until = "all",
        return_exceptions: bool,
    ) -> list[R | Exception]: ...
    async def wait_all(
        self,
        tasks: Iterable[Task[R]],
        *,
        timeout: float | None = None,
        until: Until = "all",
        return_exceptions: bool = False,
    ) -> list[R] | list[R | Exception]:
        """Wait for all tasks; returns their results in order. Free.

        `timeout` in seconds for all of them (default: each family's own). All are waited for even if one
        fails; then the first error is raised, while every result stays on its handle (`task.last`). With
        `return_exceptions=True` errors stand in the list instead.
        """
        asked: list[Task[R]] = tasks_of(tasks)
        outcomes: dict[int, TaskUpdate | Exception] = {}
        async with aclosing(self._each(asked, timeout, until)) as each:
            async for task, outcome in each:
                outcomes[id(task)] = outcome
                if isinstance(outcome, TaskUpdate):
                    task.settle(outcome)
        ended: list[R | Exception] = []
        for task in asked:
            outcome = outcomes[id(task)]
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                ended.append(cast("R", outcome.outcome()))
            except Exception as error:
                ended.append(error)
        if not return_exceptions:
            for one in ended:
                if isinstance(one, Exception):
                    raise one
        return ended

    async def as_completed(
        self, tasks: Iterable[Task[R]], *, timeout: float | None = None, until: Until = "all"
    ) -> AsyncGenerator[Task[R], None]:
        """The tasks in the order in which they end; `await task.wait()` then answers at once. Free.

        ```python
        async for task in client.as_completed(tasks):
            clips = await task.wait()  # the result, or the task's own error
        ```
        """
        async with aclosing(self._each(tasks_of(tasks), timeout, until)) as each:
            async for task, outcome in each:
                task.settle(outcome)
                yield task

    async def _each(
        self, asked: list[Task[R]], timeout: float | None, until: Until
    ) -> AsyncGenerator[tuple[Task[R], TaskUpdate | Exception], None]:
        here = await self._view.here()
        waiting: list[Task[R]] = []
        for task in asked:
            if task.last is not None and task.last.is_terminal:
                yield task, task.last
            else:
                waiting.append(task)
        async with aclosing(here.waiter.wait_each(waiting, until, timeout)) as ended:
            async for task, outcome in ended:
                yield task, outcome

    # --- jobs ----------------------------------------------------------------------------------------------

    async def jobs(self, *states: JobState, state: JobState | None = None) -> list[Job]:
        """The paid calls that were written down, oldest first; with states, only those in these states.

        Free, sends nothing. `await client.jobs("ambiguous")`, or `jobs(state="ambiguous")`, lists what
        a person has to decide on; jobs whose process died while sending are among them. States: reserved,
        sent, accepted, finished, failed, ambiguous. Raises `JobStoreError`.
        """
        wanted = states if state is None else (*states, state)
        for name in wanted:
            if name not in STATES:
                raise RequestValidationError(
                    f"state: one of {', '.join(STATES)}, got {name!r}", field="state"
                )
        here = await self._view.here()
        await here.calls.notes.finish()
        return await self._recorder.jobs(*wanted)

    async def job(self, key: str) -> Job | None:
        """The paid call with this job key exactly as it is written down; None if there is none.

        Free, sends nothing, settles nothing: of a process that died while sending it may still say `sent`.
        Raises `JobStoreError`.
        """
        here = await self._view.here()
        await here.calls.notes.finish()
        return await self._recorder.job(key)

    async def resolve(self, key: str, *, task_id: str) -> Task[Any]:
        """Say which task an ambiguous job made: from now on its key stands for that task. Sends nothing.

        May be repeated. Raises `RequestValidationError` if there is no such job, or it is not ambiguous.
        """
        job, operation = await self._job(key)
        if operation is None or not operation.submits or not task_id:
            raise RequestValidationError(
                f"job {key!r} makes no task ({job.request.call})" if task_id else "task_id: text, not empty",
                field="key" if task_id else "task_id",
            )
        asked = job.request.fields
        ref = TaskRef(
            job.request.family,
            task_id,
            job.request.kind,
            job.updated_at,
            model=str(asked.get("mv") or ""),
            format=str(asked.get("format") or ""),
        )
        job = await self._recorder.resolve(key, ref)
        return Task(job.task or ref, self._view, job_key=key)

    async def resubmit(self, key: str, *, webhook_secret: str | None = None) -> Any:
        """Send an ambiguous or failed job once more, as it was written down. Charges credits.

        An ambiguous job may have been carried out: then this pays for it twice, which is why nothing ever
        does this for you. Its key stands for the new task afterwards; `webhook_secret`, which is never
        kept, has to be given again where there was one that is not of the client's own `webhooks`. Returns
        what the call returns, such as a `Task`.
        Raises `RequestValidationError` for a job in another state, and what the call raises.
        """
        job, operation = await self._job(key)
        if operation is None:
            raise RequestValidationError(f"job {key!r}: {job.request.call} is not known here", field="key")
        fields = dict(job.request.fields)
        if job.request.hidden:
            if not webhook_secret and self._resources.webhooks is not None:
                own = self._resources.webhooks.renewed(fields.get("webhook_url"), key)
                if own is not None:
                    fields["webhook_url"], webhook_secret = own
            if not webhook_secret:
                raise RequestValidationError(
                    f"webhook_secret: job {key!r} had one, which was not kept", field="webhook_secret"
                )
            check_secrets([webhook_secret], job.request.call)
            fields["webhook_secret"] = webhook_secret
        request = msgspec.convert(fields, operation.request, strict=False)
        options = msgspec.structs.replace(self._options, job_key=key, extra_body=fields)
        del fields, webhook_secret  # tracebacks can show the locals of a frame
        view = ClientView(self._resources, options, self._recorder, self._recorder.resubmission(job))
        return await operation.sender(view)(request)

    async def _job(self, key: str) -> tuple[Job, Operation[..., Any] | None]:
        here = await self._view.here()
        await here.calls.notes.finish()
        job = await self._recorder.own_job(key)
        family = FAMILIES.get(job.request.family)
        return job, family.operations().get(job.request.kind) if family is not None else None

    # --- files ---------------------------------------------------------------------------------------------

    async def download(
        self,
        files: Fetchable,
        folder: str | os.PathLike[str],
        *,
        name: str = "{title} {clip_id}",
    ) -> list[Path]:
        """Fetch finished files into `folder` (made if missing); returns the paths. Free.

        `files`: a clip, clips, the result of a task (such as `Stems`), a task or an update that has ended, a
        reply that holds links (`Wav`, `Midi`, `Files`), a link, or a list of any of these. `name` is the
        pattern of the file names without extension; fields: title, clip_id, index, name (of a stem).
        Each file appears under its name only when it is whole and has been checked; its extension is that of
        its content, or a known one of the link, else `.bin`. A clip that is there whole under a name with its
        clip_id is not fetched again. With other names, and for links, a file
        there may be another's: it stays, and the new one gets a number unless both are the same. Clips that
        failed are passed over. The key is never sent, links are sent byte for byte. The option `deadline`
        limits all of it. Raises `DownloadError`, after which the next call continues a partial file if the
        host proves that it is of the same one; `RequestValidationError` for what is no file; for a task that
        failed its own error. A leading `~` in `folder` is the home folder.
        """
        from ._transport.links import links_of

        here = await self._view.here()
        return await here.downloader.fetch_all(links_of(files), expand(folder), name, self._options.deadline)

    # --- options and lifetime ------------------------------------------------------------------------------

    def with_options(self, **changes: Any) -> MusicAPI:
        """A view of this client with other options; it shares session, limiter and waiter. Cheap.

        `attempt_timeout` seconds for one attempt, `deadline` seconds for a whole call,
        `max_retries` after the first attempt, `validate` 'error', 'warn' or 'off', `extra_body` fields added
        to the JSON body, `resend_creates_on_5xx` True to repeat paid calls after a 5xx (may pay twice),
        `job_key` a name for one paid call: the same key gives the same task (or reply) again, in this
        process or another one with the same store, and pays nothing; with another request it raises
        `JobKeyConflictError`. `check_balance` True to note the credits as evidence (see `Options`);
        `store` another `JobStore` for this view.
        """
        store = changes.pop("store", None)
        check_parts(store=store)
        known = set(Options.__struct_fields__)
        for name in changes:
            if name not in known:
                near = did_you_mean(name, known)
                raise TypeError(f"unknown option {name!r}{near}; there are {', '.join(sorted(known))}")
        view = MusicAPI.__new__(type(self))
        recorder = self._recorder if store is None else self._resources.recorder_of(store)
        view._attach(ClientView(self._resources, msgspec.structs.replace(self._options, **changes), recorder))
        return view

    @property
    def base_url(self) -> str:
        """The address that calls go to."""
        return self._resources.base_url

    @property
    def webhooks(self) -> Inbox:
        """Where webhooks go in: `await client.webhooks.handle(headers, raw, url=...)` in the view that gets
        them finishes the waits. Tasks that a webhook will tell of are polled only as a safety net.
        """
        return self._resources.inbox

    @property
    def options(self) -> Options:
        """The options of this view; `with_options` makes another."""
        return self._options

    @property
    def records_calls(self) -> bool:
        """True if every paid call is recorded, as with a store; else only those with a job key are."""
        return self._recorder.always

    @property
    def clock(self) -> Clock:
        """The clock that all waiting goes by."""
        return self._resources.clock

    async def __aenter__(self) -> Self:
        self._resources.closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> NoReturn:
        raise TypeError("MusicAPI is async-only: use `async with MusicAPI() as client:`")

    def __exit__(self, *_: object) -> None: ...

    async def aclose(self) -> None:
        """Close the connections. Tasks go on at the service; waits end with how to resume them."""
        await self._resources.aclose()

    def __repr__(self) -> str:
        return f"MusicAPI(base_url={self.base_url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client holds a key and connections and is not pickled: make one per process")


__all__ = ["MusicAPI"]
