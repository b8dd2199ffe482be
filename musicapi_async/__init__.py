"""musicapi_async: an asyncio-first SDK for the MusicAPI.ai REST API.

```python
import asyncio
from musicapi_async import MusicAPI


async def main() -> None:
    async with MusicAPI() as client:  # MUSICAPI_KEY
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="warm lo-fi, rainy")
        clips = await task.wait()
        await client.download(clips, "out/")


asyncio.run(main())
```
"""

from typing import TYPE_CHECKING

from ._version import __version__
from .api.account import Spending
from .api.handle import Task, TaskRef
from .api.lyrics import AlignedLyrics, Lyrics, LyricsDrafts
from .api.parts import ConcatPairs, Pair, Stem, Stems, Voice, WrittenLyrics
from .api.replies import Bpm, Credits, Files, Midi, Persona, SongMetadata, Upload, UpsampledTags, Vox, Wav
from .api.results import Clip, Clips, Result, TaskUpdate
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
