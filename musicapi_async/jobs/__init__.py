"""Jobs: what was sent, what was paid for, and what became of it, in memory or in a file.

A create that is written down before it leaves can be found again after a crash, and a create that has a job
key is never paid for twice. The file, and with it the database, is loaded when `SQLiteStore` is first named.

# Job keys

With a store, every paid call is written down before it is sent, and its task before the first poll; a job
key makes it idempotent across crashes and processes: the same key gives the same task and pays nothing, the
same key with another request is an error.

```python
from musicapi_async import Clips, MusicAPI
from musicapi_async.jobs import SQLiteStore


async def order(number: str, description: str) -> Clips:
    async with MusicAPI(store=SQLiteStore("jobs.sqlite")) as client:
        once = client.with_options(job_key=f"order-{number}")
        task = await once.sonic.create_music(mv="sonic-v6", gpt_description_prompt=description)
        return await task.wait()
```

A call of unknown outcome stays listed (`await client.jobs("ambiguous")`, `musicapi jobs list jobs.sqlite`,
or with the folder of a batch) until a webhook, `client.resolve(key, task_id=...)` or your explicit
`client.resubmit(key)` settles it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Holder, Job, JobRequest, JobState, JobStore, Step
from .memory import MemoryStore

if TYPE_CHECKING:
    from .sqlite import SQLiteStore

__all__ = ["Holder", "Job", "JobRequest", "JobState", "JobStore", "MemoryStore", "SQLiteStore", "Step"]


def __getattr__(name: str) -> Any:
    if name != "SQLiteStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sqlite import SQLiteStore

    return SQLiteStore
