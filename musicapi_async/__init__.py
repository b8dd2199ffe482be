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

Each package has a guide: `musicapi_async.polling` (waiting), `musicapi_async.jobs` (job stores and job keys:
no task is lost or paid twice; many machines), `musicapi_async.workflows` (batches, with or without workers,
and calls that belong together), `musicapi_async.webhooks` and `musicapi_async.contrib` (back ends),
`musicapi_async.mcp` (songs from Claude, Cursor and other MCP clients), `musicapi_async.cli` (the command),
`musicapi_async.sandbox` and `musicapi_async.testing` (work without an account, and tests). Every operation
with its arguments is in `musicapi_async.api`.

# What to call

Creates charge credits and return a `Task` at once; direct calls return their reply.
`help(client.sonic.create_music)` lists the arguments, limits, cost and errors of an operation.

| you want | call | you get |
| --- | --- | --- |
| a song from a description | `sonic.create_music(mv=..., gpt_description_prompt=...)` | `Task[Clips]` |
| a song with your lyrics | `sonic.create_music(mv=..., prompt=lyrics, title=..., tags=...)` | `Task[Clips]` |
| music without vocals | `sonic.create_music(..., make_instrumental=True)` | `Task[Clips]` |
| a longer song | `sonic.extend_music(...)`, then `sonic.concat_music(...)`; `workflows.extend_full` does both | `Task[Clips]` |
| another style, or a changed part | `sonic.cover_music`, `remaster`, `replace_section`, `add_vocals`, `add_instrumental` | `Task[Clips]` |
| the voice of a clip, and songs with it | `sonic.create_persona(name, clip_id)`, then `sonic.persona_music(...)` | `Persona`, `Task[Clips]` |
| a voice from a recording | `sonic.create_voice(audio_url)` | `Task[Voice]` |
| a song from your own audio (a public link, or a local file with an `uploader`) | `sonic.upload(url)`; `upload_extend`, `upload_cover`, `sample`, `mashup` | `Upload`; `Task[Clips]` |
| stems | `sonic.stems_basic(clip_id)`, `sonic.stems_full(clip_id)`: `stems["vocals"]` | `Task[Stems]` |
| files | `client.download(clips, folder, tags=True)`; `sonic.wav`, `sonic.midi`, `sonic.download(clip_id, ["mp3", "m4a"])` | paths; links |
| tempo, a vocal segment, or timed lyrics of a clip | `sonic.bpm`, `sonic.vox`, `sonic.aligned_lyrics` | a reply |
| new lyrics, or a description of a style | `sonic.lyrics(description)`, `sonic.upsample_tags(tags)` | a reply |
| short tracks | `producer.create_music(...)`, `producer.extend_music(...)`, ... | `Task[Clips]` |
| the balance, or the cost of a block of code | `client.credits()`; `async with client.spending() as spent:` | `Credits`; `spent.total` |
| a task of an earlier process | `client.task(token)`, `client.task("sonic", task_id)` | `Task[Clips]` |
| one with another result | `client.task(token, result=Stems)` | `Task[Stems]` |

Call them on the client: `client.sonic.create_music(...)`. `client.nuro`, `client.riffusion` and
`client.studio` are deprecated by the service. `client.suno` has the ten creates under the word "suno", legacy
lyrics and share links. On a sister host that has this word in all its paths,
`MusicAPI(base_url=..., sonic_word="suno")` puts it into the paths of `client.sonic`.

# Many at once

One client keeps all its calls within the account's limits, however many tasks you start. Creates are sent one
per 3 s, the documented limit; set a higher one with `rate_limit="20/10s"`. Polls and direct calls do not wait
behind creates. A 429 pauses all requests of its kind, and lowers their rate.

```python
from musicapi_async import MusicAPI, MusicAPIError, Task


async def album(client: MusicAPI, titles: list[str]) -> None:
    rows = [
        {"mv": "sonic-v6", "make_instrumental": True, "tags": "calm piano", "title": title}
        for title in titles
    ]
    made = await client.create_many(client.sonic.create_music, rows)
    tasks = [task for task in made if isinstance(task, Task)]
    for error in made:  # create_many returns errors instead of raising them
        if not isinstance(error, Task):
            print(error)
    async for task in client.as_completed(tasks):  # in the order in which they end
        try:
            await client.download(await task.wait(), "out/")
        except MusicAPIError as error:  # continue with the other tasks
            print(error)
```

`client.wait_all(tasks)` returns all results in the order of the tasks.

`client.sonic.create_batch(rows)` sends up to ten songs in one call, which counts once for the rate. Each song
costs as much as a single create, and the service accepts or refuses each song separately:

```python
from musicapi_async import Batch, Clips, MusicAPI


async def ten(client: MusicAPI, descriptions: list[str]) -> list[Clips]:
    rows = [{"mv": "sonic-v6", "gpt_description_prompt": text} for text in descriptions]
    batch: Batch = await client.sonic.create_batch(rows)
    for error in batch.errors:  # one for each refused song
        print(error)
    return await client.wait_all(batch.tasks)
```

The vendor documents little of the reply. If the reply does not say which task belongs to which row,
`batch.is_assigned` is False, and a job with a job key stays ambiguous; `batch.tasks` has all tasks even then.

# Money

A paid call is sent at most once. The API has no idempotency key, so the client repeats a create only if it
provably was not sent or provably was refused. All errors derive from `MusicAPIError`, have the `task_id` if
there is one, and can be pickled. Their text says what happened, whether money moved, and what to do next:

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
    except MusicAPIError as error:  # refused, failed, or no network: the text says if it was charged
        print(error)
    return None
```

The service continues a task when your process ends. Store `task.token` (or family and id), and wait for the
task in any process:

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
of pydantic models, and arguments and results of FastAPI routes, with their schema in `/docs`. Pydantic also
makes them from plain data, such as a `Clip` from a dict.

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

The keys are the names of the fields. `raw` is not included (except that of an `Event`), so that a back end
that returns a clip does not publish what the service adds to its replies. Properties that are computed from
fields, such as `final_url`, are not included either; add them where a browser needs them:
`{**clip.to_dict(), "final_url": clip.final_url}`. An update of a failed task has `failure` in the place of
`error`. Results are compared by their fields.

A `Task` that was pickled, or read back from plain data, has its ids, its token and its last update, but no
client: `client.task(task.token)` waits for it again. A copy of a `Task` shares the client.

# Options

`help(MusicAPI)` lists all options. The key is the argument, or that in `MUSICAPI_KEY` or `MUSICAPI_API_KEY`;
the host is `base_url`, or that in `MUSICAPI_BASE_URL`.

`client.with_options(...)` returns a view with other options, for instance `validate="warn"`, `deadline=20`
(seconds for the whole call), or `extra_body={"new_field": 1}` for fields that this version does not know. Call
an endpoint that has no typed method with `await client.request("POST", "/new/path", json=...)`; the key,
limits and errors are the same.

`attempt_timeout` limits one attempt, `deadline` a whole call; there is no `timeout`. Set headers, for instance
for a gateway of your own, with `MusicAPI(default_headers={"X-Team": "sound"})`, or for a view with
`with_options(headers={...})`. They are never sent to the hosts of files. `app_info="my-app/1.2"` names your
program in the user agent.

To trust your company's certificate authority, set the variable `SSL_CERT_FILE` before Python starts, or pass
a context, which API calls and downloads use:

```python
import ssl

from musicapi_async import MusicAPI


def behind_company_proxy(certificates: str) -> MusicAPI:
    return MusicAPI(ssl=ssl.create_default_context(cafile=certificates))
```

Replies of direct calls, and the `Task` of a create, have the HTTP response in `.response`: its status, headers
and request id, the number of attempts, and the seconds that the call waited here (`waited`) and that the last
attempt took (`elapsed`).

```python
from musicapi_async import MusicAPI


async def check(client: MusicAPI) -> None:
    response = (await client.credits()).response
    if response is not None:
        print(response.status, response.request_id, response.attempts, response.waited, response.elapsed)
```

The service fetches audio from public links; it accepts no files. With an `uploader`, every argument that takes
a link also takes a local file: a path, or an open file that has a name.

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

The request is checked before the file is published, and the file is published before anything is paid for. If
the function fails, `UploaderError` is raised and nothing was charged. With a job key, the job records the
SHA-256 of the file and its link: the same call with the same file is neither published nor paid for again,
even if the function would return another link. Another file with the same key is refused.

Type checkers see the exact signature of every operation. Proxies of the environment are used only with
`trust_env=True`.

# Logs, hooks and metrics

`MUSICAPI_LOG=debug` (or `info`, `warning`) prints the log, which never contains the API key.
`MusicAPI(hooks=[watch])` calls `watch(event)` for each request, response, retry, poll, webhook, end of a task
and download; see `musicapi_async.hooks`. For spans and metrics of OpenTelemetry see
`musicapi_async.contrib.opentelemetry`.

# In a notebook

IPython and Jupyter run an event loop, so `await` works at the top of a cell. If the last line of a cell is a
clip, clips, stems or a task, it is displayed with cover, state and player; a task also with its token, to
copy.

```python
from musicapi_async import MusicAPI

client = MusicAPI()
task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi, rainy evening")
await task  # the last line of a cell: two players
```

This loop runs as long as the kernel. Close the client with `await client.aclose()` in the last cell, or make
it with `MusicAPI(close_with_loop=True)`. A client that was not closed is closed when the kernel ends, or when
a cell that runs again replaces it; then one line says so.

# Troubleshooting

| symptom | reason, and what to do |
| --- | --- |
| "no API key" | set `MUSICAPI_KEY` or pass `api_key`; without an account use `musicapi demo` or the sandbox |
| `AuthenticationError` | the key is mistyped, or belongs to another host: each host has its own accounts and keys |
| `NotFoundError` for everything, "a page of HTML" | `base_url` is wrong; it ends with `/api/v1`, as in `https://api.musicapi.ai/api/v1` |
| `ConnectFailedError` behind a proxy | use `MusicAPI(trust_env=True)` or `proxy="http://..."`; the command uses the proxy of the environment |
| "the certificate of ... is not valid here" | behind a company proxy, set `SSL_CERT_FILE`, or use `MusicAPI(ssl=...)`; see Options |
| creates are sent only one per 3 s | that is the standard limit; if your account has a higher one, set it: `rate_limit="20/10s"` |
| `TaskTimeoutError` | the song is paid for and still being made: wait again; do not create it again |
| `clip.final_url` is None | the clip has not ended: `await task.wait()`; `clip.stream_url` is for listening only |
| "Links expire" (a `DownloadError`) | `clips = await client.task(token).wait()` returns new links, free of charge |
| "has no argument", "needs ..." (a TypeError) | an argument is misspelt or missing; the text names the right one |
| a model or field that this version does not know | unknown models are sent as they are; pass fields with `with_options(extra_body={...})` |
| "was never closed" (ResourceWarning) | use `async with MusicAPI() as client:`, or `await client.aclose()` |
| a process died after a create | with a store, `await client.jobs("accepted")` has its task, and `await client.jobs("ambiguous")` has the calls of unknown outcome |
| your code is not async | use `asyncio.run(main())`; in a notebook simply `await` |
| "was not closed" in a notebook | `await client.aclose()` in the last cell, or `MusicAPI(close_with_loop=True)` |
| a local file is refused | use `MusicAPI(uploader=...)`; see Options |

# Limits

This SDK was not tested with a live account. It is tested with the sandbox, which follows the vendor's
published documentation, and the vendor's own Python client is tested with the same sandbox. Prices are not in
the SDK, because they change. It needs asyncio and aiohttp; there is no trio support and no synchronous client.
"""  # noqa: E501

from importlib.machinery import PathFinder

from ._lazy_names import lazy_names
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
    ".errors": tuple(name for name in __all__ if name.endswith("Error")),
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

if not TYPE_CHECKING:  # type checkers would believe in any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULES, _PACKAGES)
