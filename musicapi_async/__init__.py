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
lost, never paid twice), `musicapi_async.workflows` (batches, and calls that belong together),
`musicapi_async.webhooks` and `musicapi_async.contrib` (back ends), `musicapi_async.cli` (the command),
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
| to work on audio of your own (a public URL) | `sonic.upload(url)`; `upload_extend`, `upload_cover`, `sample`, `mashup` | `Upload`; `Task[Clips]` |
| stems | `sonic.stems_basic(clip_id)`, `sonic.stems_full(clip_id)`: `stems["vocals"]` | `Task[Stems]` |
| files | `client.download(clips, folder)`; `sonic.wav`, `sonic.midi`, `sonic.download(clip_id, ["mp3", "m4a"])` | paths; links |
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

# Options

`help(MusicAPI)` lists all. The key comes from the argument, `MUSICAPI_KEY` or `MUSICAPI_API_KEY`; the host
from `base_url` or `MUSICAPI_BASE_URL`.

`client.with_options(...)` is a cheap view with other options, for instance `validate="warn"`, `deadline=20`
(seconds for the whole call), or `extra_body={"new_field": 1}` for fields that this version does not know. An
endpoint that is not typed at all is reached with `await client.request("POST", "/sonic/batch", json=...)`,
under the same key, limits and errors.

Type checkers see the exact signature of every operation. Proxies of the environment are used with
`trust_env=True` only. The logger `musicapi_async` names at level INFO every accepted task and every repeated
call, and never a key.

# Troubleshooting

| symptom | reason, and what to do |
| --- | --- |
| "no API key" | set `MUSICAPI_KEY` or pass `api_key`; without an account use `musicapi demo` or the sandbox |
| `AuthenticationError` | a mistyped key, or one of another host: hosts have accounts and keys of their own |
| `NotFoundError` for everything, "a page of HTML" | `base_url` is wrong; it ends with `/api/v1`, as in `https://api.musicapi.ai/api/v1` |
| `ConnectFailedError` behind a proxy | `MusicAPI(trust_env=True)` or `proxy="http://..."` |
| creates are sent one per 3 s only | that is the standard limit; if your account has a higher one, say so: `rate_limit="20/10s"` |
| `TaskTimeoutError` | the song is still being made and is paid for: wait again; do not create it again |
| `clip.final_url` is None | the clip has not ended: `await task.wait()`; `clip.stream_url` is for listening only |
| "Links expire" | `clips = await client.task(token).wait()` has fresh ones, free of charge |
| "has no argument", "needs ..." (a TypeError) | a misspelt or missing argument; the text names the right one |
| a model or field that this version does not know | unknown models are sent as they are; fields go through `with_options(extra_body={...})` |
| "was never closed" (ResourceWarning) | `async with MusicAPI() as client:`, or `await client.aclose()` |
| a process that died after a create | with a store: `await client.jobs("accepted")` has its task; `await client.jobs("ambiguous")` those of unknown outcome |
| from code that is not async | `asyncio.run(main())`; in a notebook simply `await` |

# Limits

There is no account to test against: everything is tested against the vendor's published contract through the
sandbox, and the vendor's own Python client is run against that sandbox. Prices are not in the SDK; they
change. It is asyncio on aiohttp: no trio, no synchronous client. A local file cannot be uploaded, since the
API takes public URLs only.
"""  # noqa: E501

from typing import TYPE_CHECKING

from ._version import __version__
from .api.account import Credits, Spending
from .api.lyrics import AlignedLyrics, Lyrics, LyricsDrafts, WrittenLyrics
from .api.replies import Bpm, Files, Midi, Persona, SongMetadata, Upload, UpsampledTags, Vox, Wav
from .api.results import Clip, Clips, Result, TaskUpdate, Voice
from .api.stems import ConcatPairs, Pair, Stem, Stems
from .api.task import Task, TaskRef
from .client import MusicAPI
from .clock import Clock
from .errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    BatchError,
    ConnectFailedError,
    ConnectionLostError,
    ContentModerationError,
    DownloadError,
    EndpointRetiredError,
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
    UpstreamError,
    WebhookVerificationError,
)
from .jobs import MemoryStore
from .webhooks import Webhooks

if TYPE_CHECKING:
    from .jobs import SQLiteStore

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "AlignedLyrics",
    "AuthenticationError",
    "BadRequestError",
    "BatchError",
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
    "Files",
    "InsufficientCreditsError",
    "InvalidResponseError",
    "JobKeyConflictError",
    "JobStoreError",
    "Lyrics",
    "LyricsDrafts",
    "MemoryStore",
    "Midi",
    "MusicAPI",
    "MusicAPIError",
    "NotFoundError",
    "OutcomeUnknownError",
    "Pair",
    "PermissionDeniedError",
    "Persona",
    "RateLimitedError",
    "RequestTimeoutError",
    "RequestValidationError",
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


def __getattr__(name: str) -> object:
    if name != "SQLiteStore":  # with it comes `sqlite3`, which not every program needs
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .jobs import SQLiteStore

    return SQLiteStore
