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
from .webhooks import Webhooks

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
