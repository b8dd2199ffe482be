"""An asyncio-first SDK for the MusicAPI.ai REST API: songs, personas, stems, wav, midi.

```python
import asyncio
from musicapi_async import MusicAPI

LYRICS = "[Verse]\\nRain on the window\\n[Chorus]\\nStay for the evening"


async def main() -> None:
    async with MusicAPI() as client:  # the key is in MUSICAPI_KEY
        task = await client.sonic.create_music(
            mv="sonic-v6", gpt_description_prompt="warm lo-fi, rainy evening"
        )
        clips = await task  # usually two variants
        persona = await client.sonic.create_persona(name="Rainy voice", clip_id=clips[0].clip_id)
        sequel = await client.sonic.persona_music(
            persona_id=persona.persona_id, mv="sonic-v6", prompt=LYRICS
        )
        async for update in sequel.updates():  # pending -> running (stream URL) -> succeeded
            print(update.state, [clip.stream_url or clip.final_url for clip in update.clips])
        print(await client.download(await sequel, "out/"))


asyncio.run(main())
```

Guides are on the pages of the packages: `musicapi_async.polling` (waiting), `musicapi_async.jobs` (never
lost, never paid twice; many machines), `musicapi_async.workflows` (batches, by one process or by workers, and
calls that belong together), `musicapi_async.webhooks` and `musicapi_async.contrib` (back ends),
`musicapi_async.mcp` (songs from Claude, Cursor and other MCP clients), `musicapi_async.cli` (the command),
`musicapi_async.sandbox` and `musicapi_async.testing` (without an account, and in tests). Every operation
with its arguments is in `musicapi_async.api`.

# What to call

Creates charge credits and give a `Task` at once; direct calls give their reply.
`help(client.sonic.create_music)` names the arguments, limits, cost and errors of each.

| you want | call | you get |
| --- | --- | --- |
| a song from a description | `sonic.create_music(mv=..., gpt_description_prompt=...)` | `Task[Clips]` |
| a song with your lyrics | `sonic.create_music(mv=..., prompt=lyrics, title=..., tags=...)` | `Task[Clips]` |
| music without vocals | `sonic.create_music(..., make_instrumental=True)` | `Task[Clips]` |
| a longer song | `sonic.extend_music(...)`, then `sonic.concat_music(...)`; `workflows.extend_full` does both | `Task[Clips]` |
| another style, another part | `sonic.cover_music`, `remaster`, `replace_section`, `add_vocals`, `add_instrumental` | `Task[Clips]` |
| the voice of a clip, and songs with it | `sonic.create_persona(name, clip_id)`, then `sonic.persona_music(...)` | `Persona`, `Task[Clips]` |
| a voice from a recording | `sonic.create_voice(audio_url)` | `Task[Voice]` |
| to work on audio of your own (a public link, or a local file with an `uploader`) | `sonic.upload(url)`; `upload_extend`, `upload_cover`, `sample`, `mashup` | `Upload`; `Task[Clips]` |
| stems | `sonic.stems_basic(clip_id)`, `sonic.stems_full(clip_id)`: `stems["vocals"]` | `Task[Stems]` |
| files | `client.download(clips, folder, tags=True)`; `sonic.wav`, `sonic.midi`, `sonic.download(clip_id, ["mp3", "m4a"])` | paths; links |
| facts of a clip | `sonic.bpm`, `sonic.vox`, `sonic.aligned_lyrics` | a reply |
| words | `sonic.lyrics(description)`, `sonic.upsample_tags(tags)` | a reply |
| short tracks | `producer.create_music(...)` and the same verbs | `Task[Clips]` |
| the balance, and the cost of a piece of work | `client.credits()`; `async with client.spending() as spent:` | `Credits`; `spent.total` |
| a task of an earlier process | `client.task(token)`, `client.task("sonic", task_id)` | `Task[Clips]` |

All are on the client: `client.sonic.create_music(...)`. `client.nuro`, `client.riffusion` and
`client.studio` are deprecated by the service. `client.suno` has the ten creates under the service's other
word, legacy lyrics and share links. On a sister host that has that word in all its paths,
`MusicAPI(base_url=..., sonic_word="suno")` puts it into those of `client.sonic`.

# Many at once

One client keeps every call under the account's limits, however many tasks you start: creates are sent one
per 3 s, the documented limit (`rate_limit="20/10s"` for a higher one), polls and direct calls do not queue
behind them, and a 429 slows all of them, once.

```python
from musicapi_async import MusicAPI, MusicAPIError, Task


async def album(client: MusicAPI, titles: list[str]) -> None:
    rows = [
        {"mv": "sonic-v6", "make_instrumental": True, "tags": "calm piano", "title": title}
        for title in titles
    ]
    made = await client.create_many(client.sonic.create_music, rows)
    tasks = [task for task in made if isinstance(task, Task)]
    for error in made:  # create_many raises none
        if not isinstance(error, Task):
            print(error)
    async for task in client.as_completed(tasks):  # in the order in which they end
        try:
            await client.download(await task.wait(), "out/")
        except MusicAPIError as error:  # one failed task loses none of the others
            print(error)
```

`client.wait_all(tasks)` gives all results in order.

`client.sonic.create_batch(rows)` sends up to ten songs in one call, which counts once for the rate. Each song
costs what a single create costs, and the service refuses each by itself:

```python
from musicapi_async import Batch, Clips, MusicAPI


async def ten(client: MusicAPI, descriptions: list[str]) -> list[Clips]:
    rows = [{"mv": "sonic-v6", "gpt_description_prompt": text} for text in descriptions]
    batch: Batch = await client.sonic.create_batch(rows)
    for error in batch.errors:  # of the songs that were refused
        print(error)
    return await client.wait_all(batch.tasks)
```

The vendor documents little of the reply. If it does not say which task belongs to which row, `is_assigned` is
False, and with a job key the job stays ambiguous; the tasks are there all the same.

# Money

A paid call is sent at most once. There is no idempotency key in this API, so a create is repeated only when
it provably was not sent or provably was refused. All errors derive from `MusicAPIError`, carry `task_id`
where there is one, and pickle. Their text says what happened, whether money moved, and what to do next. In
short:

```python
from musicapi_async import Clips, MusicAPI, MusicAPIError, OutcomeUnknownError, TaskTimeoutError


async def song(client: MusicAPI, description: str) -> Clips | None:
    try:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt=description)
        return await task.wait()
    except OutcomeUnknownError as error:  # perhaps paid: a person must check
        print("check the dashboard:", error)
    except TaskTimeoutError as error:  # paid, and still being made: store the id, wait again later
        print("later:", error.family, error.task_id)
    except MusicAPIError as error:  # refused, failed, or no network: the text says what it cost
        print(error)
    return None
```

A task outlives every process: store `task.token` (or family and id), and wait for it anywhere:

```python
from musicapi_async import Clips, MusicAPI


async def later(token: str) -> Clips:
    async with MusicAPI() as client:
        return await client.task(token).wait(timeout=600)
```

# Results as plain data

Clips, results, updates, tasks, replies, responses, `Spending`, jobs and events have `to_dict()` and
`to_json()`: their fields as dicts, lists, texts and numbers. `json.dumps(clip.to_dict())`, `msgspec.json.encode(clip)`,
`fastapi.encoders.jsonable_encoder(clip)`, pickle and `copy.deepcopy` work on all of them. They can be fields
of pydantic models, and what a route of FastAPI takes or returns, with their schema in `/docs`; pydantic also
reads them back, `Clip` from a dict.

```python
from musicapi_async import Clip, Clips
from pydantic import BaseModel


class Album(BaseModel):
    name: str
    cover: Clip
    songs: list[Clip]


def stored(name: str, clips: Clips) -> str:
    return Album(name=name, cover=clips[0], songs=list(clips)).model_dump_json()


def loaded(text: str) -> list[str | None]:
    return [song.final_url for song in Album.model_validate_json(text).songs]
```

The keys are the names of the fields. `raw` is not among them (but in `Event`): a back end that returns a clip
must not publish what the service adds to its replies. What is computed from the fields, such as `final_url`,
is not either; add it where a browser needs it: `{**clip.to_dict(), "final_url": clip.final_url}`. An update
of a failed task has `failure` in the place of its `error`. Results are compared by their fields.

A `Task` that was pickled, or read back from plain data, has its ids, its token and its last update, but no
client: `client.task(task.token)` waits for it again. A copied one shares the client.

# Options

`help(MusicAPI)` lists all. The key comes from the argument, `MUSICAPI_KEY` or `MUSICAPI_API_KEY`; the host
from `base_url` or `MUSICAPI_BASE_URL`.

`client.with_options(...)` is a cheap view with other options, for instance `validate="warn"`, `deadline=20`
(seconds for the whole call), or `extra_body={"new_field": 1}` for fields that this version does not know. An
endpoint that is not typed at all is reached with `await client.request("POST", "/new/path", json=...)`,
under the same key, limits and errors.

`attempt_timeout` is for one attempt, `deadline` for a whole call; there is no `timeout`. Headers for a gateway
of your own are `MusicAPI(default_headers={"X-Team": "sound"})`, or `with_options(headers={...})` for a view; the
hosts of files never get them. `app_info="my-app/1.2"` names your program in the user agent.

A company's own certificate authority is trusted with the variable `SSL_CERT_FILE`, set before Python starts, or
with a context, which API calls and downloads use:

```python
import ssl

from musicapi_async import MusicAPI


def behind_company_proxy(certificates: str) -> MusicAPI:
    return MusicAPI(ssl=ssl.create_default_context(cafile=certificates))
```

Replies of direct calls, and the `Task` of a submit, say in `.response` which HTTP response they came in: its
status, headers and request id, the attempts, and the seconds that it took.

```python
from musicapi_async import MusicAPI


async def check(client: MusicAPI) -> None:
    response = (await client.credits()).response
    if response is not None:
        print(response.status, response.request_id, response.attempts, response.waited, response.elapsed)
```

The service fetches audio from public links and takes no files. With an `uploader` every argument that wants a
link takes a local file, too: a path, or an open file that has a name.

```python
from pathlib import Path

from musicapi_async import MusicAPI


async def publish(path: Path) -> str:
    await bucket.upload(path.name, path.read_bytes())  # any storage that you have
    return f"https://files.example.org/{path.name}"


async with MusicAPI(uploader=publish) as client:
    upload = await client.sonic.upload("demo.mp3")
    voice = await client.sonic.create_voice(Path("speaker.wav"))
```

The request is checked before the file is published, and the file is published before anything is paid for;
`UploaderError` says that the function failed and that nothing was charged. With a job key the job remembers
the file (by its SHA-256) and its link: the same call with the same file publishes and pays nothing again,
even if the function would give it another address; another file under the key is refused.

Type checkers see the exact signature of every operation. Proxies of the environment are used with
`trust_env=True` only.

# Watching

`MUSICAPI_LOG=debug` (or `info`, `warning`) prints the log, in which no key ever is. `MusicAPI(hooks=[watch])`
calls `watch(event)` for each request, response, retry, poll, webhook, end of a task and download:
`musicapi_async.hooks`. Spans and metrics for OpenTelemetry: `musicapi_async.contrib.opentelemetry`.

# In a notebook

IPython and Jupyter run an event loop of their own, so `await` works at the top of a cell. A clip, clips,
stems and a task as the last line of a cell are displayed with cover, state and player; the token of a task is
there to copy.

```python
from musicapi_async import MusicAPI

client = MusicAPI()
task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi, rainy evening")
await task  # the last line of a cell: two players
```

That loop lasts as long as the kernel, so nothing closes a client that you leave open: run
`await client.aclose()` in the last cell, or make it with `MusicAPI(close_with_loop=True)`. A client that was
forgotten is closed when the kernel ends, or when a cell that is run again has replaced it, and one line says
so.

# Troubleshooting

| symptom | reason, and what to do |
| --- | --- |
| "no API key" | set `MUSICAPI_KEY` or pass `api_key`; without an account use `musicapi demo` or the sandbox |
| `AuthenticationError` | a mistyped key, or one of another host: hosts have accounts and keys of their own |
| `NotFoundError` for everything, "a page of HTML" | `base_url` is wrong; it ends with `/api/v1`, as in `https://api.musicapi.ai/api/v1` |
| `ConnectFailedError` behind a proxy | `MusicAPI(trust_env=True)` or `proxy="http://..."` |
| "the certificate of ... is not valid here" | behind a company proxy: `SSL_CERT_FILE`, or `MusicAPI(ssl=...)`, see Options |
| creates are sent one per 3 s only | that is the standard limit; if your account has a higher one, say so: `rate_limit="20/10s"` |
| `TaskTimeoutError` | the song is still being made and is paid for: wait again; do not create it again |
| `clip.final_url` is None | the clip has not ended: `await task.wait()`; `clip.stream_url` is for listening only |
| "Links expire" | `clips = await client.task(token).wait()` has fresh ones, free of charge |
| "has no argument", "needs ..." (a TypeError) | a misspelt or missing argument; the text names the right one |
| a model or field that this version does not know | unknown models are sent as they are; fields go through `with_options(extra_body={...})` |
| "was never closed" (ResourceWarning) | `async with MusicAPI() as client:`, or `await client.aclose()` |
| a process that died after a create | with a store: `await client.jobs("accepted")` has its task; `await client.jobs("ambiguous")` those of unknown outcome |
| from code that is not async | `asyncio.run(main())`; in a notebook simply `await` |
| "was not closed" in a notebook | `await client.aclose()` in the last cell, or `MusicAPI(close_with_loop=True)` |
| a local file is refused | `MusicAPI(uploader=...)`, see Options |

# Limits

There is no account to test against: everything is tested against the vendor's published contract through the
sandbox, and the vendor's own Python client is run against that sandbox. Prices are not in the SDK; they
change. It is asyncio on aiohttp: no trio, no synchronous client. The API takes public links only, so a
local file needs an `uploader` of yours.
"""  # noqa: E501

from importlib import import_module
from importlib.machinery import PathFinder

from ._version import __version__

TYPE_CHECKING = False  # as `typing` has it for type checkers, without its import: 10 ms

if TYPE_CHECKING:
    from . import api as api
    from . import cli as cli
    from . import client as client
    from . import clock as clock
    from . import contrib as contrib
    from . import errors as errors
    from . import examples as examples
    from . import hooks as hooks
    from . import jobs as jobs
    from . import mcp as mcp
    from . import options as options
    from . import polling as polling
    from . import sandbox as sandbox
    from . import testing as testing
    from . import webhooks as webhooks
    from . import workflows as workflows
    from ._transport.audio_tags import FileTags
    from ._transport.links import Fetchable
    from ._transport.rate_limiter import LaneLimits, MemoryLimiter, RateLimiter
    from ._transport.rate_window import Rate
    from .api.account import Credits, Spending
    from .api.batches import Batch, BatchItem, BatchState, BatchStates
    from .api.direct_replies import Bpm, Files, Midi, Persona, SongMetadata, Upload, UpsampledTags, Vox, Wav
    from .api.lyrics import AlignedLyrics, Lyrics, LyricsDrafts, WrittenLyrics
    from .api.response_info import ResponseInfo
    from .api.results import Clip, Clips, Failure, Result, TaskUpdate, Voice
    from .api.stems import ConcatPairs, Pair, Stem, Stems
    from .api.task import Task, TaskRef
    from .client import MusicAPI
    from .clock import Clock
    from .errors import (
        APIConnectionError,
        APIStatusError,
        AuthenticationError,
        BadRequestError,
        ConnectFailedError,
        ConnectionLostError,
        ContentModerationError,
        DownloadError,
        EndpointRetiredError,
        FolderError,
        InsufficientCreditsError,
        InvalidResponseError,
        JobKeyConflictError,
        JobStoreError,
        MusicAPIError,
        NotFoundError,
        OutcomeUnknownError,
        PermissionDeniedError,
        RateLimitedError,
        RequestTimeoutError,
        RequestValidationError,
        ServerError,
        StepFailedError,
        SubscriptionRequiredError,
        TaskError,
        TaskFailedError,
        TaskTimeoutError,
        UploaderError,
        UpstreamError,
        WebhookVerificationError,
    )
    from .jobs import MemoryStore, PostgresStore, SQLiteStore
    from .options import Uploader
    from .webhooks import Webhooks

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "AlignedLyrics",
    "AuthenticationError",
    "BadRequestError",
    "Batch",
    "BatchItem",
    "BatchState",
    "BatchStates",
    "Bpm",
    "Clip",
    "Clips",
    "Clock",
    "ConcatPairs",
    "ConnectFailedError",
    "ConnectionLostError",
    "ContentModerationError",
    "Credits",
    "DownloadError",
    "EndpointRetiredError",
    "Failure",
    "Fetchable",
    "FileTags",
    "Files",
    "FolderError",
    "InsufficientCreditsError",
    "InvalidResponseError",
    "JobKeyConflictError",
    "JobStoreError",
    "LaneLimits",
    "Lyrics",
    "LyricsDrafts",
    "MemoryLimiter",
    "MemoryStore",
    "Midi",
    "MusicAPI",
    "MusicAPIError",
    "NotFoundError",
    "OutcomeUnknownError",
    "Pair",
    "PermissionDeniedError",
    "Persona",
    "PostgresStore",
    "Rate",
    "RateLimitedError",
    "RateLimiter",
    "RequestTimeoutError",
    "RequestValidationError",
    "ResponseInfo",
    "Result",
    "SQLiteStore",
    "ServerError",
    "SongMetadata",
    "Spending",
    "Stem",
    "Stems",
    "StepFailedError",
    "SubscriptionRequiredError",
    "Task",
    "TaskError",
    "TaskFailedError",
    "TaskRef",
    "TaskTimeoutError",
    "TaskUpdate",
    "Upload",
    "Uploader",
    "UploaderError",
    "UpsampledTags",
    "UpstreamError",
    "Voice",
    "Vox",
    "Wav",
    "WebhookVerificationError",
    "Webhooks",
    "WrittenLyrics",
    "__version__",
]
if not TYPE_CHECKING and PathFinder.find_spec("psycopg") is None:
    __all__.remove("PostgresStore")  # which `import *` would fail for


_MODULES = {
    "._transport.audio_tags": ("FileTags",),
    "._transport.links": ("Fetchable",),
    "._transport.rate_limiter": ("LaneLimits", "MemoryLimiter", "RateLimiter"),
    "._transport.rate_window": ("Rate",),
    ".api.account": ("Credits", "Spending"),
    ".api.batches": ("Batch", "BatchItem", "BatchState", "BatchStates"),
    ".api.direct_replies": (
        "Bpm",
        "Files",
        "Midi",
        "Persona",
        "SongMetadata",
        "Upload",
        "UpsampledTags",
        "Vox",
        "Wav",
    ),
    ".api.lyrics": ("AlignedLyrics", "Lyrics", "LyricsDrafts", "WrittenLyrics"),
    ".api.response_info": ("ResponseInfo",),
    ".api.results": ("Clip", "Clips", "Failure", "Result", "TaskUpdate", "Voice"),
    ".api.stems": ("ConcatPairs", "Pair", "Stem", "Stems"),
    ".api.task": ("Task", "TaskRef"),
    ".client": ("MusicAPI",),
    ".clock": ("Clock",),
    ".errors": (
        "APIConnectionError",
        "APIStatusError",
        "AuthenticationError",
        "BadRequestError",
        "ConnectFailedError",
        "ConnectionLostError",
        "ContentModerationError",
        "DownloadError",
        "EndpointRetiredError",
        "FolderError",
        "InsufficientCreditsError",
        "InvalidResponseError",
        "JobKeyConflictError",
        "JobStoreError",
        "MusicAPIError",
        "NotFoundError",
        "OutcomeUnknownError",
        "PermissionDeniedError",
        "RateLimitedError",
        "RequestTimeoutError",
        "RequestValidationError",
        "ServerError",
        "StepFailedError",
        "SubscriptionRequiredError",
        "TaskError",
        "TaskFailedError",
        "TaskTimeoutError",
        "UploaderError",
        "UpstreamError",
        "WebhookVerificationError",
    ),
    ".jobs": ("MemoryStore", "PostgresStore", "SQLiteStore"),
    ".options": ("Uploader",),
    ".webhooks": ("Webhooks",),
}
"""The exported names by the module that has them. Each is imported when one of its names is first used, so
that a program pays for what it uses, and the pytest plugin for nothing."""


_PACKAGES = (
    "api",
    "cli",
    "client",
    "clock",
    "contrib",
    "errors",
    "examples",
    "hooks",
    "jobs",
    "mcp",
    "options",
    "polling",
    "sandbox",
    "testing",
    "webhooks",
    "workflows",
)
"""The public modules, which resolve without an import of their own."""


def __getattr__(name: str) -> object:
    """Return an exported name, or a public module of the package."""
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(module, __name__), name)
            globals()[name] = value
            return value
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
