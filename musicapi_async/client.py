"""`MusicAPI`: builds the parts, hands them to each other, and owns their lifetime."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import uuid
import warnings
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar, cast, overload

import msgspec

from .api.account import Account
from .api.families import FAMILIES
from .api.handle import Task, TaskRef
from .api.nuro import Nuro
from .api.operation import Operation
from .api.producer import Producer
from .api.replies import Credits
from .api.request import Request
from .api.results import Clips, Result, TaskUpdate, Until
from .api.riffusion import Riffusion
from .api.sonic import Sonic
from .api.studio import Studio
from .api.suno import Suno
from .clock import Clock
from .config import Options, find_base_url, find_key
from .errors import MusicAPIError, RequestValidationError
from .store.base import STATES
from .store.ledger import Ledger
from .store.memory import MemoryStore
from .transport.recording import Recorder, Unrecorded

if TYPE_CHECKING:
    import aiohttp

    from .runtime import Runtime
    from .store.base import Job, JobState, JobStore
    from .tasks.schedule import PollPolicy
    from .transport.download import Fetchable
    from .transport.limiter import Pace, RateLimiter
    from .webhooks import Event, Inbox, Webhooks

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
    `pace`: creates per time, such as '1/3s' (the documented limit, default) or '20/10s'; None: no limit.
    `in_flight`: most tasks submitted and not yet ended (None: no cap). `attempt_timeout`, `deadline`,
    `retries`, `validate`: see `with_options`. `polling`: a policy of `musicapi_async.tasks.schedule`.
    `store`: where paid calls are written down before they leave, such as
    `SQLiteStore("jobs.sqlite")`; without one, job keys hold within this client only.
    `limiter`: a `RateLimiter` instead of the one in memory. `session`: an aiohttp session for API calls,
    used and not closed. `proxy`: a proxy's URL; `trust_env`: take proxies from the environment.
    `webhooks`: `Webhooks(url=..., secret=...)` has results told instead of polled, see `client.webhooks`.
    `sonic_word`: 'suno' on sister hosts that want it in the paths. `close_with_loop`: connections end with
    their event loop, and a client that is not closed by hand is no mistake. `clock`, `rng`: for tests.

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
        pace: str | Pace | None = "1/3s",
        in_flight: int | None = None,
        attempt_timeout: float | None = None,
        deadline: float | None = None,
        retries: int = 3,
        validate: str = "error",
        polling: PollPolicy | None = None,
        store: JobStore | None = None,
        limiter: RateLimiter | None = None,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        webhooks: Webhooks | None = None,
        sonic_word: str = "sonic",
        close_with_loop: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        options = Options(
            attempt_timeout=attempt_timeout,
            deadline=deadline,
            retries=retries,
            validate=cast("Any", validate),
        )
        core = _Core(
            api_key=find_key(api_key),
            base_url=find_base_url(base_url),
            pace=pace,
            in_flight=in_flight,
            polling=polling,
            store=store,
            limiter=limiter,
            session=session,
            proxy=proxy,
            trust_env=trust_env,
            webhooks=webhooks,
            sonic_word=sonic_word,
            close_with_loop=close_with_loop,
            clock=clock or Clock(),
            rng=rng or random.Random(),
            attempt_timeout=attempt_timeout,
        )
        self._attach(core, options, core.book)

    def _attach(self, core: _Core, options: Options, ledger: Ledger) -> None:
        self._core = core
        self._options = options
        self._ledger = ledger
        caller = _Bound(core, options, ledger)
        self.sonic = Sonic(caller)
        self.suno = Suno(caller)
        self.producer = Producer(caller)
        self.nuro = Nuro(caller)
        self.riffusion = Riffusion(caller)
        self.studio = Studio(caller)
        self._account = Account(caller)

    # --- calls ---------------------------------------------------------------------------------------------

    async def credits(self) -> Credits:
        """The balance of the account. Free, may be called often. Raises `AuthenticationError`."""
        return await self._account.credits()

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, object] | None = None,
    ) -> Any:
        """Call any path below the base URL, with the same key, limits and errors; returns the decoded JSON.

        For what is not typed here, such as `/sonic/batch`. A GET is free and repeated after passing
        failures; anything else is taken to cost credits and is sent at most once.
        """
        runtime = await self._core.runtime()
        runtime.ledgers.add(self._ledger)
        return await runtime.caller.request(
            method, path, self._options, self._ledger, json=json, params=params
        )

    async def create_many(
        self, create: Any, requests: Iterable[Mapping[str, Any]]
    ) -> list[Task[Any] | MusicAPIError]:
        """Submit many creates under the pace: `await client.create_many(client.sonic.create_music, rows)`.

        Each costs credits. Returns, in the order of `requests`, the task or the error of each: an error of
        one loses none of the others.
        """
        sent = [create(**request) for request in requests]
        ended = await asyncio.gather(*sent, return_exceptions=True)
        for one in ended:
            if isinstance(one, BaseException) and not isinstance(one, MusicAPIError):
                raise one
        return cast("list[Task[Any] | MusicAPIError]", ended)

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
        """The handle of a task that was submitted before, by anybody: `client.task("sonic", task_id)`, or
        `client.task(token)` with a `Task.token`. Sends nothing.

        `kind` is the operation that made it (needed only to read stems by name), `submitted_at` its Unix
        time.
        """
        if task_id is None:
            ref = TaskRef.parse(family)
            if ref is None:
                raise RequestValidationError(
                    "token: a Task.token, or pass family and task_id", field="token", limit="a Task.token"
                )
        else:
            if not task_id or not family:
                raise RequestValidationError("task_id: text, not empty", field="task_id")
            ref = TaskRef(family, task_id, kind, submitted_at)
        return Task(ref, _Watching(self._core, self._options))

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
        asked = list(tasks)
        async for _ in self.as_completed(asked, timeout=timeout, until=until):
            pass
        ended: list[R | Exception] = []
        for task in asked:
            try:
                ended.append(await task.wait(until=until))
            except Exception as error:
                if not return_exceptions and not isinstance(error, MusicAPIError):
                    raise
                ended.append(error)
        if not return_exceptions:
            for outcome in ended:
                if isinstance(outcome, Exception):
                    raise outcome
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
        asked = list(tasks)
        runtime = await self._core.runtime()
        done = [task for task in asked if task.last is not None and task.last.is_terminal]
        for task in done:
            yield task
        waiting = [task for task in asked if task not in done]
        async with aclosing(runtime.waiter.wait_each(waiting, until, timeout)) as ended:
            async for task, outcome in ended:
                task.settle(outcome)
                yield task

    # --- jobs ----------------------------------------------------------------------------------------------

    async def jobs(self, *states: JobState) -> list[Job]:
        """The paid calls that were written down, oldest first; with `states`, only those in these states.

        Free, sends nothing. `await client.jobs("ambiguous")` lists what somebody has to decide on; jobs whose
        process died while sending are among them. States: reserved, sent, accepted, finished, failed,
        ambiguous. Raises `JobStoreError`.
        """
        for state in states:
            if state not in STATES:
                raise RequestValidationError(
                    f"state: one of {', '.join(STATES)}, got {state!r}", field="state"
                )
        runtime = await self._core.runtime()
        await runtime.noted()
        return await self._ledger.jobs(*states)

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
        model = str(job.request.fields.get("mv") or "")
        ref = TaskRef(job.request.family, task_id, job.request.kind, job.updated_at, model)
        job = await self._ledger.resolve(key, ref)
        return Task(job.task or ref, _Watching(self._core, self._options), job_key=key)

    async def resubmit(self, key: str, *, webhook_secret: str | None = None) -> Any:
        """Send an ambiguous or failed job once more, as it was written down. Charges credits.

        An ambiguous job may have been carried out: then this pays for it twice, which is why nothing ever
        does this for you. Its key stands for the new task afterwards; `webhook_secret`, which is never
        kept, has to be given again where there was one. Returns what the call returns, such as a `Task`.
        Raises `RequestValidationError` for a job in another state, and what the call raises.
        """
        job, operation = await self._job(key)
        if operation is None:
            raise RequestValidationError(f"job {key!r}: {job.request.call} is not known here", field="key")
        fields = dict(job.request.fields)
        if job.request.hidden:
            if not webhook_secret:
                raise RequestValidationError(
                    f"webhook_secret: job {key!r} had one, which was not kept", field="webhook_secret"
                )
            fields["webhook_secret"] = webhook_secret
        request = msgspec.convert(fields, operation.request, strict=False)
        options = msgspec.structs.replace(self._options, job_key=key, extra_body=fields)
        bound = _Bound(self._core, options, self._ledger, self._ledger.again(job))
        return await (bound.submit if operation.submits else bound.call)(operation, request)

    async def _job(self, key: str) -> tuple[Job, Operation[Any, Any] | None]:
        runtime = await self._core.runtime()
        await runtime.noted()
        runtime.ledgers.add(self._ledger)
        job = await self._ledger.store.get(key)
        if job is None:
            raise RequestValidationError(
                f"there is no job with the key {key!r}", field="key", value=repr(key)
            )
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

        `files`: a clip, clips, the result of a task (such as `Stems`), a reply that holds links (`Wav`,
        `Midi`, `Files`), or a link. `name` is the pattern of the file names without extension; fields:
        title, clip_id, index, name (of a stem). Each file appears under its name only when it is whole and
        has been checked; one that is already there whole is not fetched again. Clips that failed are passed
        over. The key is never sent. Raises `DownloadError`.
        """
        from .transport.download import links_of

        runtime = await self._core.runtime()
        return await runtime.downloader.fetch_all(links_of(files), Path(folder), name)

    # --- options and lifetime ------------------------------------------------------------------------------

    def with_options(self, **changes: Any) -> MusicAPI:
        """A view of this client with other options; it shares session, limiter and waiter. Cheap.

        `attempt_timeout` seconds for one attempt, `deadline` seconds for a whole call,
        `retries` after the first attempt, `validate` 'error', 'warn' or 'off', `extra_body` fields added to
        the JSON body, `resend_creates_on_5xx` True to repeat paid calls after a 5xx (may pay twice),
        `job_key` a name for one paid call: the same key gives the same task (or reply) again, in this
        process or another one with the same store, and pays nothing; with another request it raises
        `JobKeyConflictError`. `check_balance` True to note the credits as evidence (see `Options`);
        `store` another `JobStore` for this view.
        """
        store = changes.pop("store", None)
        known = set(Options.__struct_fields__)
        for name in changes:
            if name not in known:
                raise TypeError(f"unknown option {name!r}; there are {', '.join(sorted(known))}")
        view = MusicAPI.__new__(type(self))
        ledger = self._ledger if store is None else self._core.ledger(store)
        view._attach(self._core, msgspec.structs.replace(self._options, **changes), ledger)
        return view

    @property
    def base_url(self) -> str:
        """The address that calls go to."""
        return self._core.base_url

    @property
    def webhooks(self) -> Inbox:
        """Where webhooks go in: `await client.webhooks.handle(headers, raw, url=...)` in the view that gets
        them finishes the waits. Tasks that a webhook will tell of are polled only as a safety net.
        """
        return self._core.inbox

    @property
    def options(self) -> Options:
        """The options of this view; `with_options` makes another."""
        return self._options

    @property
    def clock(self) -> Clock:
        """The clock that all waiting goes by."""
        return self._core.clock

    async def __aenter__(self) -> Self:
        self._core.closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> NoReturn:
        raise TypeError("MusicAPI is async-only: use `async with MusicAPI() as client:`")

    def __exit__(self, *_: object) -> None: ...

    async def aclose(self) -> None:
        """Close the connections. Tasks go on at the service; who still waits here is told how to resume."""
        await self._core.aclose()

    def __repr__(self) -> str:
        return f"MusicAPI(base_url={self.base_url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client holds a key and connections and is not pickled: make one per process")


class _Core:
    """What all views of a client share."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        pace: str | Pace | None,
        in_flight: int | None,
        polling: PollPolicy | None,
        store: JobStore | None,
        limiter: RateLimiter | None,
        session: aiohttp.ClientSession | None,
        proxy: str | None,
        trust_env: bool,
        webhooks: Webhooks | None,
        sonic_word: str,
        close_with_loop: bool,
        clock: Clock,
        rng: random.Random,
        attempt_timeout: float | None,
    ) -> None:
        self._attempt_timeout: Final = attempt_timeout
        self.base_url: Final = base_url
        self.clock: Final = clock
        self.closed = False
        self._close_with_loop: Final = close_with_loop
        self.warned_families: Final[set[str]] = set()
        self._made_at: Final = _outside_line()
        self._api_key: Final = api_key
        self._session: Final = session
        self._proxy: Final = proxy
        self._trust_env: Final = trust_env
        self._sonic_word: Final = sonic_word
        self._rng: Final = rng
        self._limiter: Final = limiter or _limiter(pace, in_flight, clock)
        self._polling = polling
        self._runtimes: Final[list[Runtime]] = []
        self.webhooks: Final = webhooks
        self.book: Final = self.ledger(store)

    def ledger(self, store: JobStore | None) -> Ledger:
        """What writes paid calls into `store`; without one, those with a job key into memory."""
        return Ledger(store or MemoryStore(), self.clock, self.base_url, always=store is not None)

    async def runtime(self) -> Runtime:
        """The parts for the running loop, opened now if this is the first call in it."""
        if self.closed:
            raise MusicAPIError(
                "the client is closed", hint="Open it again with `async with client:`, or make a new one."
            )
        loop = asyncio.get_running_loop()
        process = os.getpid()
        for runtime in self._runtimes:
            if runtime.loop is loop and runtime.process == process and not runtime.closed:
                return runtime
        self._runtimes[:] = [
            known
            for known in self._runtimes
            if known.process == process and not known.closed and not known.loop.is_closed()
        ]
        opened = self._open()
        self._runtimes.append(opened)
        await opened.keep()
        return opened

    def _open(self) -> Runtime:
        from .runtime import Runtime
        from .tasks.schedule import Learned
        from .transport.session import Session

        if self._polling is None:
            self._polling = Learned(rng=self._rng)
        return Runtime(
            session=Session(
                api_key=self._api_key,
                base_url=self.base_url,
                limiter=self._limiter,
                clock=self.clock,
                rng=self._rng,
                given=self._session,
                proxy=self._proxy,
                trust_env=self._trust_env,
            ),
            limiter=self._limiter,
            policy=self._polling,
            clock=self.clock,
            rng=self._rng,
            path_of=self._path_of,
            attempt_timeout=self._attempt_timeout,
        )

    def _path_of(self, path: str) -> str:
        if self._sonic_word == "sonic" or not path.startswith("/sonic/"):
            return path
        if path == "/sonic/task/{task_id}":
            return f"/{self._sonic_word}/clip/{{task_id}}"
        return f"/{self._sonic_word}/{path.removeprefix('/sonic/')}"

    @cached_property
    def inbox(self) -> Inbox:
        """Takes webhooks and hands them to the waits of the running loop."""
        from .webhooks import Inbox

        return Inbox(self.webhooks, self._deliver, adopt=self.book.adopt)

    def order(self, request: Request, options: Options) -> tuple[Request, Options]:
        """The request with its webhook, if there shall be one, and options with the job key in it."""
        if self.webhooks is None:
            return request, options
        key = options.job_key or str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        ordered = self.webhooks.order(request, key)
        return ordered, options if ordered is request else msgspec.structs.replace(options, job_key=key)

    def _deliver(self, event: Event) -> None:
        loop = asyncio.get_running_loop()
        for runtime in self._runtimes:
            if runtime.loop is loop and not runtime.closed:
                runtime.deliver(event.family, event.task_id, event.raw)

    async def aclose(self) -> None:
        """Close what this loop has open."""
        self.closed = True
        loop = asyncio.get_running_loop()
        for runtime in [known for known in self._runtimes if known.loop is loop]:
            await runtime.aclose()
            self._runtimes.remove(runtime)
        self._runtimes[:] = [known for known in self._runtimes if not known.loop.is_closed()]

    def __del__(self) -> None:
        runtimes = getattr(self, "_runtimes", ())  # empty if construction was refused
        if self.closed or self._close_with_loop or not runtimes or runtimes[0].process != os.getpid():
            return
        warnings.warn(
            f"MusicAPI made at {self._made_at} was never closed: use `async with MusicAPI() as client:` "
            "or `await client.aclose()`",
            ResourceWarning,
            stacklevel=2,
        )


class _Watching:
    """What a handle sees of the client: whatever loop it is used in."""

    __slots__ = ("_core", "_options")

    def __init__(self, core: _Core, options: Options) -> None:
        self._core = core
        self._options = options

    async def wait(self, ref: TaskRef, until: Until, timeout: float | None) -> TaskUpdate:
        runtime = await self._core.runtime()
        return await runtime.waiter.wait(ref, until, timeout)

    async def updates(self, ref: TaskRef, timeout: float | None) -> AsyncGenerator[TaskUpdate, None]:
        runtime = await self._core.runtime()
        async with aclosing(runtime.waiter.updates(ref, timeout)) as updates:
            async for update in updates:
                yield update

    async def refresh(self, ref: TaskRef) -> TaskUpdate:
        runtime = await self._core.runtime()
        return await runtime.refresh(ref, self._options)


class _Bound:
    """What the families see of the client: a caller with its options."""

    __slots__ = ("_core", "_ledger", "_options", "_recorder", "_watching")

    def __init__(
        self, core: _Core, options: Options, ledger: Ledger, recorder: Recorder | None = None
    ) -> None:
        self._core = core
        self._options = options
        self._ledger = ledger
        self._recorder: Recorder = recorder or ledger
        self._watching = _Watching(core, options)

    async def submit(self, operation: Operation[Any, Any], request: Request) -> Task[Any]:
        self._warn(operation)
        runtime = await self._core.runtime()
        runtime.ledgers.add(self._ledger)
        keyed = self._ledger.keyed(self._options)
        ordered, options = self._core.order(request, keyed)
        recorder = self._recorder if keyed.job_key is not None else Unrecorded()
        task = await runtime.caller.submit(operation, ordered, options, self._watching, recorder)
        if ordered is not request:
            runtime.waiter.expect(task.family, task.task_id)
        return task

    async def call(self, operation: Operation[Any, Any], request: Request) -> Any:
        self._warn(operation)
        runtime = await self._core.runtime()
        if operation.polled is not None:
            from .transport.outgoing import check

            check(request, operation.call_name, self._options, stacklevel=4)
            ref = TaskRef(operation.family.word, str(getattr(request, "task_id", "")), operation.name)
            return await runtime.refresh(ref, self._options)
        runtime.ledgers.add(self._ledger)
        return await runtime.caller.call(operation, request, self._options, self._recorder)

    def _warn(self, operation: Operation[Any, Any]) -> None:
        family = operation.family
        if family.replacement is None or family.word in self._core.warned_families:
            return
        self._core.warned_families.add(family.word)
        warnings.warn(
            f"{family.word} is deprecated by the service; use {family.replacement} instead",
            DeprecationWarning,
            stacklevel=4,
        )


def _limiter(pace: str | Pace | None, in_flight: int | None, clock: Clock) -> RateLimiter:
    from .transport.limiter import DEFAULT_LANES, LaneLimits, MemoryLimiter, Pace

    try:
        allowed = Pace.parse(pace) if isinstance(pace, str) else pace
        submit = LaneLimits(DEFAULT_LANES["submit"].concurrency, allowed)
        return MemoryLimiter({"submit": submit}, clock, in_flight=in_flight)
    except (ValueError, TypeError) as error:
        raise RequestValidationError(str(error), field="pace") from error


def _outside_line() -> str:
    """The line that made the client: the first frame outside this package."""
    package = __name__.rpartition(".")[0]
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(package + "."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "an unknown line"


__all__ = ["MusicAPI"]
