"""`MusicAPI`: builds the parts, hands them to each other, and owns their lifetime."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NoReturn,
    ParamSpec,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

import msgspec
from msgspec import UNSET, UnsetType

from ._client_view import ClientView
from ._resources import Connecting, Resources
from ._wire.codec import report
from .api.account import Account, Credits, Spending
from .api.families import check_result
from .api.nuro import Nuro
from .api.producer import Producer
from .api.results import Clips, Result, Until
from .api.riffusion import Riffusion
from .api.sonic import Sonic, Suno
from .api.studio import Studio
from .api.suggestions import check_options
from .api.task import Task, TaskRef, check_task, handle_of, ref_in, settle, tasks_of
from .arguments import check_bools, check_count, check_functions, check_parts, refused
from .clock import Clock
from .errors import MusicAPIError
from .files import expand
from .hooks import Hook, SpendingEvent
from .jobs import find_store
from .options import (
    Options,
    SonicPaths,
    Uploader,
    Validation,
    check_private_addresses,
    check_proxy,
    check_ssl,
    find_account,
    find_base_url,
    find_clock_speed,
    find_hooks,
    find_key,
    set_up_log,
)
from .request_headers import check_headers, user_agent

if TYPE_CHECKING:
    import ssl as tls

    import aiohttp

    from ._transport.audio_tags import FileTags
    from ._transport.links import Fetchable
    from ._transport.rate_limiter import RateLimiter
    from ._transport.rate_window import Rate
    from .jobs.job import Job, JobState
    from .jobs.store import JobStore
    from .polling.schedule import PollSchedule
    from .webhooks import Inbox, Webhooks

P = ParamSpec("P")
R = TypeVar("R", bound=Result)


class OptionChanges(TypedDict, total=False):
    """The options of a view; see `MusicAPI.with_options`."""

    attempt_timeout: float | None
    deadline: float | None
    max_retries: int
    validate: Validation
    job_key: str | None
    extra_body: Mapping[str, object] | None
    headers: Mapping[str, str] | None
    resend_creates_on_5xx: bool
    check_balance: bool
    store: JobStore | None


class ClientOptions(TypedDict, total=False):
    """The options of `MusicAPI`, which describes them, for functions that pass them on."""

    api_key: str | None
    base_url: str | None
    rate_limit: str | Rate | UnsetType | None
    max_in_flight: int | None
    attempt_timeout: float | None
    deadline: float | None
    max_retries: int
    validate: Validation
    polling: PollSchedule | None
    store: JobStore | None
    account: str | None
    limiter: RateLimiter | None
    session: aiohttp.ClientSession | None
    default_headers: Mapping[str, str] | None
    app_info: str | tuple[str, str] | None
    ssl: tls.SSLContext | None
    proxy: str | None
    trust_env: bool
    forbid_private_addresses: bool
    uploader: Uploader | None
    webhooks: Webhooks | None
    sonic_word: str
    sonic_poll: str | None
    hooks: Hook | Iterable[Hook]
    close_with_loop: bool
    clock: Clock | None
    rng: random.Random | None


def _advising(init: Callable[P, None]) -> Callable[P, None]:
    """Return a constructor that answers an unknown option with the right one.

    A `**options` of the constructor itself would hide what type checkers and editors know of it.
    """

    @wraps(init)
    def advising_init(*args: P.args, **options: P.kwargs) -> None:
        check_options(options, ClientOptions.__optional_keys__)
        init(*args, **options)

    return advising_init


def client_maker(make: Callable[[], MusicAPI] | None, options: ClientOptions) -> Callable[[], MusicAPI]:
    """Return what makes the client of a back end: the given function, or one that takes the options.

    Raises at once for a wrong name, not when the app starts. Raises `RequestValidationError` for both.
    """
    check_options(options, ClientOptions.__optional_keys__)
    if make is None:
        return lambda: MusicAPI(**options)
    check_functions(make=make)
    if options:
        raise refused("make", "a function that makes the client, or options, not both", ", ".join(options))
    return make


class MusicAPI:
    """A client of one host and one account.

    ```python
    async with MusicAPI() as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi, rainy")
        clips = await task.wait()
        await client.download(clips, "out/")
    ```

    Its operations are methods of the families `client.sonic`, `client.producer` and `client.suno`, and of the
    deprecated `client.nuro`, `client.riffusion` and `client.studio`. `help(client.sonic)` lists them.

    A client may be made outside of an event loop, and used in several loops one after the other. Without
    `async with`, close it with `await client.aclose()`.

    Args:
        api_key: the API key; by default that in MUSICAPI_KEY or MUSICAPI_API_KEY.
        base_url: the base URL of the API; by default that in MUSICAPI_BASE_URL, else the vendor's.
        rate_limit: creates per time, such as '20/10s'; None: no limit. By default the documented '1/3s', or
            the rate of a `store` that machines share.
        max_in_flight: the largest number of tasks that are submitted and have not ended; None: no cap.
        attempt_timeout: seconds for one attempt; None: the time of each endpoint.
        deadline: seconds for a whole call, including repeats and waits for the rate; None: no limit.
        max_retries: repeats of a call after its first attempt, 0 to 100. Downloads are tried six times.
        validate: 'error', 'warn' or 'off', for requests that the service would refuse.
        polling: a schedule of polls; by default a `musicapi_async.polling.LearnedSchedule`.
        store: a job store, in which paid calls are recorded before they are sent, such as
            `SQLiteStore("jobs.sqlite")`, or `PostgresStore("postgresql://...")` for many machines; by default
            the one whose path or address is in MUSICAPI_STORE. Without a store, a job key is valid within
            this client only. Learned durations are stored there, too, unless `polling` is given.
        account: the account that job keys belong to; by default that in MUSICAPI_ACCOUNT, else a fingerprint
            of the API key. Name it if the API key may be replaced, or if accounts share a store.
        limiter: a `RateLimiter` to use instead of the client's own, such as a `MemoryLimiter` that clients
            share; `rate_limit` and `max_in_flight` are refused beside it.
        session: an aiohttp session for API calls; it is not closed by the client.
        default_headers: headers for each API call, such as `{"X-Team": "sound"}`; `with_options(headers=...)`
            adds headers for a view. Headers that the client sets, such as Authorization, Host and
            Content-Type, are refused. They are never sent to the hosts of files. Values of names like
            X-Token are hidden in texts.
        app_info: the name of your program, for the user agent of API calls: 'my-app/1.2' or
            ('my-app', '1.2').
        ssl: an `ssl.SSLContext` for API calls and downloads, such as
            `ssl.create_default_context(cafile="company.pem")` for your own certificate authority (the
            variable SSL_CERT_FILE has the same effect). False, and a context that does not verify
            certificates, are refused. With `session`, API calls use the context of the session.
        proxy: the URL of a proxy.
        trust_env: True to take proxies from the environment.
        forbid_private_addresses: True to fetch no file from a private or loopback address, by whichever name,
            also after a redirect; for back ends that download links of their users. Not possible with a
            proxy, because the proxy makes the connections.
        uploader: an async function that receives the `Path` of a local file, stores it where the service can
            fetch it, and returns its public link. Every argument that takes a link then also takes a local
            file: a path, or an open file that has a name. Without an uploader, local files are refused.
        webhooks: `Webhooks(url=..., secret=...)`, so that results are delivered as well as polled; see
            `client.webhooks`.
        sonic_word: 'suno' for sister hosts that have this word in their paths.
        sonic_poll: the path of polls for songs on such a host; by default '/suno/clip/{task_id}'.
        hooks: a function, or several, called with each event of the client; see `musicapi_async.hooks`.
        close_with_loop: True to close connections together with their event loop, without a warning if the
            client was not closed.
        clock: the clock of all waits, for tests.
        rng: the source of jitter, for tests.

    Raises:
        RequestValidationError: a key, an address or an option is missing or malformed.
        TypeError: an option is not known. There is no `timeout`: see `attempt_timeout` and `deadline`.
    """

    sonic: Sonic
    """Songs, personas, voices, stems, files and tools."""
    suno: Suno
    """The creates of Sonic under the word 'suno', legacy lyrics, share links."""
    producer: Producer
    """Short tracks."""
    nuro: Nuro
    """Deprecated by the service."""
    riffusion: Riffusion
    """Deprecated by the service."""
    studio: Studio
    """Unavailable at the service."""

    @_advising
    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        rate_limit: str | Rate | UnsetType | None = UNSET,
        max_in_flight: int | None = None,
        attempt_timeout: float | None = None,
        deadline: float | None = None,
        max_retries: int = 3,
        validate: Validation = "error",
        polling: PollSchedule | None = None,
        store: JobStore | None = None,
        account: str | None = None,
        limiter: RateLimiter | None = None,
        session: aiohttp.ClientSession | None = None,
        default_headers: Mapping[str, str] | None = None,
        app_info: str | tuple[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        forbid_private_addresses: bool = False,
        uploader: Uploader | None = None,
        webhooks: Webhooks | None = None,
        sonic_word: str = "sonic",
        sonic_poll: str | None = None,
        hooks: Hook | Iterable[Hook] = (),
        close_with_loop: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        options = Options(
            attempt_timeout=attempt_timeout,
            deadline=deadline,
            max_retries=max_retries,
            validate=validate,
        )
        check_parts(
            store=store,
            polling=polling,
            limiter=limiter,
            session=session,
            webhooks=webhooks,
            clock=clock,
            uploader=uploader,
            rng=rng,
        )
        if max_in_flight is not None:
            check_count("max_in_flight", max_in_flight)
        check_bools(trust_env=trust_env, close_with_loop=close_with_loop)
        check_proxy(proxy)
        check_ssl(ssl)
        check_private_addresses(forbid_private_addresses, by_proxy=proxy is not None or trust_env)
        url = find_base_url(base_url)
        key = find_key(api_key)
        store = store if store is not None else find_store()
        resources = Resources(
            Connecting(
                api_key=key,
                given=session,
                proxy=proxy,
                trust_env=trust_env,
                ssl_context=ssl,
                headers=check_headers("default_headers", {} if default_headers is None else default_headers),
                user_agent=user_agent(app_info),
                forbid_private_addresses=forbid_private_addresses,
            ),
            account=find_account(account, key),
            base_url=url,
            rate_limit=rate_limit,
            max_in_flight=max_in_flight,
            polling=polling,
            store=store,
            limiter=limiter,
            webhooks=webhooks,
            uploader=uploader,
            sonic_paths=SonicPaths(sonic_word, sonic_poll),
            close_with_loop=close_with_loop,
            clock=clock or Clock(find_clock_speed(url)),
            rng=rng,
            attempt_timeout=attempt_timeout,
            hooks=find_hooks(hooks),
        )
        set_up_log()
        self._attach(ClientView(resources, options, resources.recorder))

    def _attach(self, view: ClientView) -> None:
        self._view = view
        self.sonic = Sonic(view)
        self.suno = Suno(view)
        self.producer = Producer(view)
        self.nuro = Nuro(view)
        self.riffusion = Riffusion(view)
        self.studio = Studio(view)
        self._account = Account(view)

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name):
            words = [family.word for family in (Sonic, Producer) if name in family.operations()]
            near = f" (did you mean client.{words[0]}.{name}?)" if words else ""
            known = {} if words else {"name": name, "obj": self}  # from which Python makes its own suggestion
            raise AttributeError(f"'MusicAPI' object has no attribute {name!r}{near}", **known)

    # --- calls ---------------------------------------------------------------------------------------------

    async def credits(self) -> Credits:
        """Return the balance of the account. Free, may be called often.

        Raises `APIStatusError`, such as `AuthenticationError`, and `APIConnectionError`.
        """
        return await self._account.credits()

    @asynccontextmanager
    async def spending(self) -> AsyncGenerator[Spending]:
        """Measure the credits that a block spends: query the balance before and after it. Free.

        ```python
        async with client.spending() as spent:
            await (await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm")).wait()
        print(spent.total)
        ```
        Only the balance proves a charge or a refund, and other calls of the account change it, too. If the
        block raises an error, the balance is still queried, and `spent.after` is None if that fails. If the
        block is cancelled, the balance is not queried again. Raises what `credits` raises.
        """
        spent = Spending(await self.credits())
        try:
            yield spent
        except Exception:
            with suppress(MusicAPIError):
                await self._measure(spent)
            raise
        await self._measure(spent)

    async def _measure(self, spent: Spending) -> None:
        """Fill in what was spent, and have hooks observe it."""
        spent.after = await self.credits()
        observer = self._view.resources.observer
        if observer.is_active and spent.total is not None:
            observer.emit(
                SpendingEvent(before=spent.before.total, after=spent.after.total, total=spent.total)
            )

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, object] | None = None,
    ) -> Any:
        """Call any path below the base URL, with the same key, limits and errors; return the decoded JSON.

        For endpoints without a typed method. A GET is free, and is repeated after passing failures. Any other
        method is assumed to charge credits: it is sent at most once, and waits for the rate of creates unless
        the path is known to be a direct call.

        `POST /producer/lyrics-create` and `POST /producer/video-clip` exist on a sister host only, and their
        bodies and results are unknown; poll their tasks with `client.task("producer", task_id)`.

        Args:
            method: the HTTP method, such as 'POST'.
            path: the path below the base URL, such as '/sonic/create'.
            json: the body.
            params: the query parameters.

        Raises:
            RequestValidationError: the method, path or body is malformed; nothing was sent.
            OutcomeUnknownError: the call was sent, and may have been carried out and charged.
            APIStatusError: the service refused; its subclasses say why.
            APIConnectionError: the service cannot be reached.
        """
        here, options = self._view.here(), self._view.options
        await self._view.check_job_key()
        call = here.calls.request(method, path, json, params, options, self._view.recorder)
        del json, params  # they may hold a secret, and tracebacks can show the locals of a frame
        return await call

    async def create_many(
        self, create: Callable[..., Awaitable[Task[R]]], requests: Iterable[Mapping[str, Any]]
    ) -> list[Task[R] | Exception]:
        """Submit many creates under the rate: `await client.create_many(client.sonic.create_music, rows)`.

        Each create charges credits, and each is sent at most once. Raises no error of a create. When it is
        cancelled, such as by a time-out around it, the log names each task that was accepted.

        Args:
            create: the method of a create.
            requests: the arguments of each call, by name.

        Returns:
            The task or the error of each create, in the order of `requests`. An error is any `Exception`,
            such as a `TypeError` for a misspelt field.
        """
        made: list[object] = []

        async def one(request: Mapping[str, Any]) -> Task[R] | Exception:
            try:
                task = await create(**request)
            except Exception as error:
                return error
            made.append(task)
            return task

        try:
            return list(await asyncio.gather(*map(one, requests)))
        except asyncio.CancelledError:  # then no caller gets the handles
            for task in made:
                if isinstance(task, Task):
                    text = "create_many was cancelled; a task was accepted and continues: %s"
                    report(logging.WARNING, text, task.token)
            raise

    # --- tasks ---------------------------------------------------------------------------------------------

    @overload
    def task(self, token: str, /) -> Task[Clips]: ...
    @overload
    def task(self, token: str, /, *, result: type[R]) -> Task[R]: ...
    @overload
    def task(
        self, family: str, task_id: str, *, kind: str = "", submitted_at: float = 0.0
    ) -> Task[Clips]: ...
    @overload
    def task(
        self, family: str, task_id: str, *, kind: str, submitted_at: float = 0.0, result: type[R]
    ) -> Task[R]: ...
    def task(
        self,
        family: str,
        task_id: str | None = None,
        *,
        kind: str = "",
        submitted_at: float = 0.0,
        result: type[Result] | None = None,
    ) -> Task[Any]:
        """Return the handle of a task that any process submitted: `client.task("sonic", task_id)`, or
        `client.task(token)` with a `Task.token`. Free, sends nothing.

        Args:
            family: the family in the paths, such as 'sonic', or a token.
            task_id: the id of the task; left out with a token.
            kind: the operation that made it, such as 'stems_full'; needed only to read stems by name. A token
                includes it.
            submitted_at: the Unix time of the submit, for the schedule of polls; 0 if it is unknown.
            result: the class of the result, for type checkers: `client.task(token, result=Stems)` is a
                `Task[Stems]`.

        Raises:
            RequestValidationError: the token or the id is malformed, or the task has another result.
        """
        ref = check_task(ref_in(family) if task_id is None else TaskRef(family, task_id, kind, submitted_at))
        if result is not None:
            check_result(ref, result)
        return handle_of(ref, self._view)

    @overload
    async def wait_all(
        self,
        tasks: Iterable[Task[R]],
        *,
        timeout: float | None = None,
        until: Until = "all",
        return_exceptions: Literal[False] = False,
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
        """Wait for all tasks; return their results in the order of the tasks. Free, may be repeated.

        Waits for all of them even if one fails. Then the first error, in the order of the tasks, is raised;
        the results of the others are in `task.last` of their handles.

        Args:
            tasks: the handles.
            timeout: seconds for all of them together; by default the time of each family, such as 900 for
                songs.
            until: 'all' clips, the 'first' one, or a 'stream'; see `Task.wait`.
            return_exceptions: True to return errors in the list instead of raising the first.

        Raises:
            TaskFailedError: a task failed.
            TaskTimeoutError: the time ran out; the task continues, and can be waited for again.
            RequestValidationError: `tasks` is no list of tasks.
        """
        ended: list[R | Exception] = await self._view.outcomes(tasks_of(tasks), timeout, until)
        if not return_exceptions:
            for one in ended:
                if isinstance(one, Exception):
                    raise one
        return ended

    async def as_completed(
        self, tasks: Iterable[Task[R]], *, timeout: float | None = None, until: Until = "all"
    ) -> AsyncGenerator[Task[R], None]:
        """Yield the tasks in the order in which they end; `await task.wait()` then returns at once. Free.

        ```python
        async for task in client.as_completed(tasks):
            clips = await task.wait()  # the result, or the error of this task
        ```

        Args:
            tasks: the handles.
            timeout: seconds for all of them together; by default the time of each family, such as 900 for
                songs. A task that is not finished then is yielded, too: its next `wait` raises
                `TaskTimeoutError`.
            until: 'all' clips, the 'first' one, or a 'stream'; see `Task.wait`.

        Raises:
            RequestValidationError: `tasks` is no list of tasks.
        """
        async with aclosing(self._view.each(tasks_of(tasks), timeout, until)) as each:
            async for task, outcome in each:
                settle(task, outcome)
                yield task

    # --- jobs ----------------------------------------------------------------------------------------------

    async def jobs(self, *states: JobState, state: JobState | None = None) -> list[Job]:
        """Return the recorded paid calls, oldest first; if states are given, only the calls in these states.

        Free, sends nothing. `await client.jobs("ambiguous")`, or `jobs(state="ambiguous")`, lists the calls
        that a person has to decide on, including those whose process died while it sent them. States:
        reserved, sent, accepted, finished, failed, ambiguous (see `Job`). Raises `JobStoreError`, and
        `RequestValidationError` for another state.
        """
        return await self._view.jobs(states if state is None else (*states, state))

    async def job(self, key: str) -> Job | None:
        """Return the paid call with this job key exactly as it is recorded; None if there is none.

        Free, sends nothing, and changes nothing: if the process died while it sent the call, the state may
        still be `sent`. Raises `JobStoreError`.
        """
        return await self._view.job(key)

    async def resolve(self, key: str, *, task_id: str, item: int = 0) -> Task[Any]:
        """Name the task that an ambiguous job made; return its handle. Free, sends nothing, may be repeated.

        From then on a call with this job key returns that task.

        Args:
            key: the job key.
            task_id: the id of the task, for instance from the dashboard. The task of a `client.request` has
                the family in the path of the request.
            item: for a batch, the index of the item that the task belongs to, from 0; the job is settled when
                each item has its task.

        Raises:
            RequestValidationError: there is no such job, or it is not ambiguous, or it makes no task.
            JobStoreError: the job store cannot be read or written.
        """
        return await self._view.resolve(key, task_id, item)

    async def resubmit(self, key: str, *, webhook_secret: str | None = None) -> Any:
        """Send an ambiguous or failed job once more, as it was recorded. Charges credits.

        An ambiguous job may have been carried out; then this pays for it twice, so the client never does it
        by itself. From then on a call with this job key returns the new task.

        Args:
            key: the job key.
            webhook_secret: the secret of the recorded request, which is never stored; not needed for the
                client's own `webhooks`.

        Returns:
            What the call returns, such as a `Task`.

        Raises:
            RequestValidationError: there is no such job, or it is in another state.
            JobKeyConflictError: the job is of another host or account.
            MusicAPIError: what the call raises.
        """
        return await self._view.resubmit(key, webhook_secret)

    # --- files ---------------------------------------------------------------------------------------------

    async def download(
        self,
        files: Fetchable,
        folder: str | os.PathLike[str],
        *,
        name: str = "{title} {clip_id}",
        tags: bool | FileTags = False,
    ) -> list[Path]:
        """Fetch finished files; return their paths. Free, may be repeated.

        A file has its final name only when it is complete and was checked. Its extension follows from its
        content, or is a known one from the link, or `.bin`. Failed clips are skipped.

        If a complete file of the same clip exists under a name that contains its clip_id, it is not fetched
        again. With other names, and for plain links, an existing file may have other content: it is not
        overwritten, and the new file gets a number unless both are equal.

        A link often exists before its file, so a file that cannot be fetched is tried six times in about a
        minute, independent of `max_retries`. The option `deadline` limits the whole call. The API key is
        never sent, and links are requested byte for byte.

        Args:
            files: a clip, clips, the result of a task (such as `Stems`), a task or an update that has ended,
                a reply that holds links (`Wav`, `Midi`, `Files`), a link, or a list of any of these.
            folder: the folder of the files, created if it is missing; a leading `~` is the home folder.
            name: the pattern of the file names without extension. Fields: title, clip_id, index, and name (of
                a stem).
            tags: True to write tags into the MP3 and WAV files of clips: title, artist, album (the name of
                the folder), track, style, lyrics, the cover, and the prompt in a comment; a `FileTags` sets
                some of them. Needs the extra `[tags]`. If tags cannot be written, the file is saved without
                them and a warning is logged. An existing file of a clip is tagged, too, unless it has an
                album.

        Raises:
            DownloadError: a file could not be fetched or written. The next call resumes a partial file if the
                host proves that it belongs to the same content.
            RequestValidationError: `files` holds a value that is no file, or the extra for tags is missing.
            TaskFailedError: the task failed.
        """
        from ._transport.audio_tags import tags_of
        from ._transport.links import links_of

        here, place = self._view.here(), expand(folder)
        return await here.downloader.fetch_all(
            links_of(files), place, name, self._view.options.deadline, tags_of(tags, place)
        )

    # --- options and lifetime ------------------------------------------------------------------------------

    def with_options(self, **changes: Unpack[OptionChanges]) -> MusicAPI:
        """Return a view of this client with other options: `client.with_options(deadline=20)`.

        A view shares the session, limiter and scheduler of the client, so it is cheap and need not be closed.

        Args:
            attempt_timeout: seconds for one attempt; None: the time of each endpoint.
            deadline: seconds for a whole call, including repeats and waits for the rate; None: no limit.
            max_retries: repeats after the first attempt, 0 to 100.
            validate: 'error', 'warn' or 'off', for requests that the service would refuse.
            extra_body: fields to add to the JSON body, as they are.
            headers: headers to add to those of this view, with their names in any case; None removes those of
                views, not the client's `default_headers`. Views share the polls of a wait, which have the
                default headers only.
            resend_creates_on_5xx: True to repeat paid calls after a 5xx, which may pay twice.
            job_key: a name for one paid call. A second call with the same key returns the same task (or
                reply), in this process or another one with the same store, and pays nothing. With another
                request it raises `JobKeyConflictError`.
            check_balance: True to query the credits before a recorded call, and after one of unknown outcome,
                as evidence on `OutcomeUnknownError`.
            store: another `JobStore` for this view; it is closed with the client. The rate limit remains that
                of the client.

        Raises:
            RequestValidationError: an option has a wrong value.
            TypeError: an option is not known.
        """
        check_options(changes, OptionChanges.__optional_keys__)
        store = changes.pop("store", None)
        check_parts(store=store)
        if (headers := changes.get("headers")) is not None:
            added = check_headers("headers", headers)
            changes["headers"] = {**(self.options.headers or {}), **added}
        resources = self._view.resources
        recorder = self._view.recorder if store is None else resources.recorders.of(store)
        view = MusicAPI.__new__(type(self))
        view._attach(ClientView(resources, msgspec.structs.replace(self.options, **changes), recorder))
        return view

    @property
    def base_url(self) -> str:
        """The base URL of all calls."""
        return self._view.resources.base_url

    @property
    def webhooks(self) -> Inbox:
        """The inbox of webhooks: `await client.webhooks.handle(headers, raw, url=...)` in the route that
        receives them ends the waits. Tasks with a webhook are polled only as a safety net.
        """
        return self._view.resources.handover.inbox

    @property
    def options(self) -> Options:
        """The options of this view; `with_options` returns a view with others."""
        return self._view.options

    @property
    def records_calls(self) -> bool:
        """True if every paid call is recorded, as with a store; False if only those with a job key are."""
        return self._view.recorder.always

    @property
    def store(self) -> JobStore:
        """The job store of this view; one in memory if none was given."""
        return self._view.recorder.store

    @property
    def account(self) -> str:
        """The account that the job keys belong to."""
        return self._view.recorder.account

    @property
    def uploads_files(self) -> bool:
        """True if a local file may be given in the place of a link, as with an `uploader`."""
        return self._view.resources.uploader is not None

    @property
    def clock(self) -> Clock:
        """The clock of all waits."""
        return self._view.resources.clock

    async def __aenter__(self) -> Self:
        await self._view.resources.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> NoReturn:
        raise TypeError("MusicAPI is async-only: use `async with MusicAPI() as client:`")

    def __exit__(self, *_: object) -> None: ...

    async def aclose(self) -> None:
        """Close the client in the running event loop. May be repeated.

        Connections that the loop of another thread uses stay open. The service continues the tasks; waits
        that are under way raise an error that says how to resume them.
        """
        await self._view.resources.aclose()

    def __repr__(self) -> str:
        return f"MusicAPI(base_url={self.base_url!r})"


__all__ = ["ClientOptions", "MusicAPI", "OptionChanges"]
