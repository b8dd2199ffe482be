"""`MusicAPI`: builds the parts, hands them to each other, and owns their lifetime."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, NoReturn, Self, TypeVar, cast, overload

import msgspec
from msgspec import UNSET, UnsetType

from ._client_view import ClientView
from ._resources import Resources
from .api.account import Account, Credits, Spending
from .api.nuro import Nuro
from .api.producer import Producer
from .api.results import Clips, Result, Until
from .api.riffusion import Riffusion
from .api.sonic import Sonic, Suno
from .api.studio import Studio
from .api.suggestions import check_options
from .api.task import Task, TaskRef, check_task, handle_of, ref_in, settle, tasks_of
from .arguments import check_bools, check_parts
from .clock import Clock
from .errors import MusicAPIError
from .files import expand
from .hooks import Hook, SpendingEvent
from .jobs import find_store
from .options import (
    Options,
    SonicPaths,
    Uploader,
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

R = TypeVar("R", bound=Result)


class MusicAPI:
    """A client of one host and one account.

    ```python
    async with MusicAPI() as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi, rainy")
        clips = await task.wait()
        await client.download(clips, "out/")
    ```

    The operations are those of its families: `client.sonic`, `client.producer`, `client.suno`, and the
    deprecated `client.nuro`, `client.riffusion` and `client.studio`. `help(client.sonic)` lists them.

    It may be made outside a loop and used in one loop after the other. Without `async with`, end with
    `await client.aclose()`.

    Args:
        api_key: the key; else MUSICAPI_KEY or MUSICAPI_API_KEY.
        base_url: the host; else MUSICAPI_BASE_URL, else the service.
        rate_limit: creates per time, such as '20/10s'; None: no limit. By default the documented '1/3s', or
            that of a store that machines share.
        max_in_flight: most tasks submitted and not yet ended; None: no cap.
        attempt_timeout: seconds for one attempt; None: the time of each endpoint.
        deadline: seconds for a whole call; None: no limit.
        max_retries: repeats of a call after its first attempt; downloads have tries of their own.
        validate: 'error', 'warn' or 'off', for requests that the service would refuse.
        polling: a schedule of polls, such as `musicapi_async.polling.LearnedSchedule`.
        store: where paid calls are recorded before they leave, such as `SQLiteStore("jobs.sqlite")`, or
            `PostgresStore("postgresql://...")` for many machines; else MUSICAPI_STORE, the path or the
            address of one. Without one, job keys hold within this client only. Learned durations are stored
            there, too, unless `polling` is given.
        account: the account that job keys belong to; else MUSICAPI_ACCOUNT, else a fingerprint of the API
            key. Name it where an API key may be replaced, or where accounts share a store; the error of a job
            key says when it matters.
        limiter: a `RateLimiter` instead of one of its own, such as a `MemoryLimiter` that clients share.
        session: an aiohttp session for API calls, used and not closed.
        default_headers: headers for each API call, such as `{"X-Team": "sound"}`; `with_options(headers=...)`
            adds some for a view. Those that are set here, such as Authorization, Host and Content-Type, are
            refused. The hosts of files never get them. Values of names like X-Token are hidden in texts.
        app_info: the program, for the user agent of API calls: 'my-app/1.2' or ('my-app', '1.2').
        ssl: an `ssl.SSLContext` for API calls and downloads, such as
            `ssl.create_default_context(cafile="company.pem")` for a certificate authority of your own (the
            variable SSL_CERT_FILE does the same). One that verifies nothing is refused, as is False. API
            calls of a `session` use that of the session.
        proxy: the URL of a proxy.
        trust_env: True to take proxies from the environment.
        forbid_private_addresses: for back ends that download links of their users: True to fetch no file from
            a private or loopback address, under any name of its host, redirects included. Not with a proxy,
            which connects in place of this process.
        uploader: an async function that takes the `Path` of a local file, puts it where the service can fetch
            it, and returns its public link. With it every argument that takes a link takes a local file: a
            path, or an open file that has a name. Without it local files are refused.
        webhooks: `Webhooks(url=..., secret=...)` to have results delivered instead of polled, see
            `client.webhooks`.
        sonic_word: 'suno' on sister hosts that want it in the paths.
        sonic_poll: the path where songs are polled there; else '/suno/clip/{task_id}'.
        hooks: a function, or several, called with each event of the client; see `musicapi_async.hooks`.
        close_with_loop: True to end connections with their event loop; a client that is not closed by hand is
            then no mistake.
        clock: the clock of all waits, for tests.
        rng: the source of jitter, for tests.

    Raises:
        RequestValidationError: a key, an address or an option is missing or malformed.
        TypeError: an option is not known. There is no `timeout`: see `attempt_timeout` and `deadline`.
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
        rate_limit: str | Rate | UnsetType | None = UNSET,
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
        **unknown: Never,
    ) -> None:
        if unknown:
            check_options(unknown, inspect.signature(MusicAPI).parameters.keys() - {"unknown"})
        options = Options(
            attempt_timeout=attempt_timeout,
            deadline=deadline,
            max_retries=max_retries,
            validate=cast("Any", validate),
        )
        check_parts(
            store=store,
            polling=polling,
            limiter=limiter,
            session=session,
            webhooks=webhooks,
            clock=clock,
            uploader=uploader,
        )
        check_bools(trust_env=trust_env, close_with_loop=close_with_loop)
        check_proxy(proxy)
        check_ssl(ssl)
        check_private_addresses(forbid_private_addresses, by_proxy=proxy is not None or trust_env)
        url = find_base_url(base_url)
        key = find_key(api_key)
        store = store if store is not None else find_store()
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
            ssl_context=ssl,
            default_headers=check_headers(
                "default_headers", {} if default_headers is None else default_headers
            ),
            user_agent=user_agent(app_info),
            forbid_private_addresses=forbid_private_addresses,
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

    # --- calls ---------------------------------------------------------------------------------------------

    async def credits(self) -> Credits:
        """Return the balance of the account. Free, may be called often. Raises `AuthenticationError`."""
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

        For endpoints that are not typed. A GET is free and repeated after passing failures; anything else
        is taken to cost credits, is sent at most once, and waits for the rate of creates unless it is known
        to be a direct call.

        `POST /producer/lyrics-create` and
        `POST /producer/video-clip`, on a sister host only: bodies and results are unknown; the task is polled
        with `client.task("producer", task_id)`.
        """
        here, options = self._view.here(), self._view.options
        if options.job_key is not None:
            await self._view.check_job_key(options.job_key)
        call = here.calls.request(method, path, json, params, options, self._view.recorder)
        del json, params  # they may hold a secret, and tracebacks can show the locals of a frame
        return await call

    async def create_many(
        self, create: Callable[..., Awaitable[Task[Any]]], requests: Iterable[Mapping[str, Any]]
    ) -> list[Task[Any] | Exception]:
        """Submit many creates under the rate: `await client.create_many(client.sonic.create_music, rows)`.

        Each costs credits. Returns, in the order of `requests`, the task or the error of each (any
        `Exception`, such as a `TypeError` for a misspelt field): an error of one loses none of the others.
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
        """Return the handle of a task that any process submitted: `client.task("sonic", task_id)`, or
        `client.task(token)` with a `Task.token`. Sends nothing.

        Args:
            family: the family in the paths, such as 'sonic', or the token alone.
            task_id: the id of the task; left out with a token.
            kind: the operation that made it; needed only to read stems by name.
            submitted_at: the Unix time of the submit.
        """
        ref = ref_in(family) if task_id is None else TaskRef(family, task_id, kind, submitted_at)
        return handle_of(check_task(ref), self._view)

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
        """Wait for all tasks; return their results in order. Free.

        All are waited for even if one fails; then the first error is raised, while every result stays on its
        handle (`task.last`).

        Args:
            tasks: the handles.
            timeout: seconds for all of them; None: the time of each family.
            until: 'all' clips, the 'first' one, or a 'stream'.
            return_exceptions: True to have errors in the list instead.
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
        """Yield the tasks in the order in which they end; `await task.wait()` then answers at once. Free.

        ```python
        async for task in client.as_completed(tasks):
            clips = await task.wait()  # the result, or the task's own error
        ```
        """
        async with aclosing(self._view.each(tasks_of(tasks), timeout, until)) as each:
            async for task, outcome in each:
                settle(task, outcome)
                yield task

    # --- jobs ----------------------------------------------------------------------------------------------

    async def jobs(self, *states: JobState, state: JobState | None = None) -> list[Job]:
        """Return the recorded paid calls, oldest first; with states, only those in these states.

        Free, sends nothing. `await client.jobs("ambiguous")`, or `jobs(state="ambiguous")`, lists what
        a person has to decide on; jobs whose process died while sending are among them. States: reserved,
        sent, accepted, finished, failed, ambiguous. Raises `JobStoreError`.
        """
        return await self._view.jobs(states if state is None else (*states, state))

    async def job(self, key: str) -> Job | None:
        """Return the paid call with this job key exactly as it is recorded; None if there is none.

        Free, sends nothing, settles nothing: of a process that died while sending it may still say `sent`.
        Raises `JobStoreError`.
        """
        return await self._view.job(key)

    async def resolve(self, key: str, *, task_id: str, item: int = 0) -> Task[Any]:
        """Name the task that an ambiguous job made: from now on its key gives that task. Sends nothing.

        Of a batch, `item` is the number of the item that the task belongs to, from 0; the job is settled with
        the last of them. May be repeated. Of a `request`, the family of the task is that in its path. Raises
        `RequestValidationError` if there is no such job, or it is not ambiguous, or makes no task.
        """
        return await self._view.resolve(key, task_id, item)

    async def resubmit(self, key: str, *, webhook_secret: str | None = None) -> Any:
        """Send an ambiguous or failed job once more, as it was recorded. Charges credits.

        An ambiguous job may have been carried out: then this pays for it twice, which is why nothing ever
        does this for you. Its key gives the new task afterwards; `webhook_secret`, which is never
        stored, has to be given again where there was one that is not of the client's own `webhooks`. Returns
        what the call returns, such as a `Task`.
        Raises `RequestValidationError` for a job in another state, `JobKeyConflictError` for one of another
        host or account, and what the call raises.
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
        """Fetch finished files; return their paths. Free.

        Args:
            files: a clip, clips, the result of a task (such as `Stems`), a task or an update that has ended,
                a reply that holds links (`Wav`, `Midi`, `Files`), a link, or a list of any of these.
            folder: the folder of the files, made if it is missing; a leading `~` is the home folder.
            name: the pattern of the file names without extension; fields: title, clip_id, index, name (of a
                stem).
            tags: True to write tags into the MP3 and WAV files of clips: title, artist, album (the name of
                the folder), track, style, lyrics, the cover, and the prompt in a comment; a `FileTags` says
                some of them. Needs the extra `[tags]`. Tags that cannot be written cost no file: the log has
                a warning. A file that is there already gets them too, unless it has an album.

        Each file appears under its name only when it is whole and has been checked; its extension is that of
        its content, or a known one of the link, else `.bin`. A clip that is there whole under a name with its
        clip_id is not fetched again. With other names, and for links, a file
        there may be another's: it stays, and the new one gets a number unless both are the same. Clips that
        failed are passed over. The key is never sent, links are sent byte for byte. A file that does not come
        is tried six times in about a minute, not `max_retries` times, because a link is often there before
        its file; the option `deadline` limits all of it.

        Raises:
            DownloadError: a file could not be fetched; the next call continues a partial file if the host
                proves that it is of the same one.
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

    def with_options(self, **changes: Any) -> MusicAPI:
        """Return a view of this client with other options; it shares session, limiter and waiter.

        Cheap: a view holds nothing of its own. Views of one store share what is open of it.

        Args:
            attempt_timeout: seconds for one attempt.
            deadline: seconds for a whole call.
            max_retries: repeats after the first attempt.
            validate: 'error', 'warn' or 'off', for requests that the service would refuse.
            extra_body: fields to add to the JSON body.
            headers: headers to add to those of this view, with their names in any case; None removes those of
                views, not the client's `default_headers`. The polls of a wait, which views share, carry the
                default ones only.
            resend_creates_on_5xx: True to repeat paid calls after a 5xx (may pay twice).
            job_key: a name for one paid call: the same key gives the same task (or reply) again, in this
                process or another one with the same store, and pays nothing; with another request it raises
                `JobKeyConflictError`.
            check_balance: True to note the credits as evidence (see `Options`).
            store: another `JobStore` for this view. It is used while anything has it, and closed with the
                client. The rate limit remains that of the client.
        """
        check_options(changes, {*Options.__struct_fields__, "store"})
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
        """The address that calls go to."""
        return self._view.resources.base_url

    @property
    def webhooks(self) -> Inbox:
        """The inbox of webhooks: `await client.webhooks.handle(headers, raw, url=...)` in the view that gets
        them finishes the waits. Tasks with a webhook are polled only as a safety net.
        """
        return self._view.resources.inbox

    @property
    def options(self) -> Options:
        """The options of this view; `with_options` makes another."""
        return self._view.options

    @property
    def records_calls(self) -> bool:
        """True if every paid call is recorded, as with a store; else only those with a job key are."""
        return self._view.recorder.always

    @property
    def store(self) -> JobStore:
        """The store of its jobs; one in memory if none was given."""
        return self._view.recorder.store

    @property
    def account(self) -> str:
        """The account that its job keys belong to."""
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
        """Close what the running event loop has open: the client, unless another thread's loop uses it, too.

        The service continues its tasks; waits end with how to resume them.
        """
        await self._view.resources.aclose()

    def __repr__(self) -> str:
        return f"MusicAPI(base_url={self.base_url!r})"


__all__ = ["MusicAPI"]
