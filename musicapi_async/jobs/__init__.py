"""Jobs: paid calls as they were sent, paid for and ended, in memory or in a file.

A create that is recorded before it is sent can be found again after a crash, and a create that has a job key
is never paid for twice. `sqlite3` is imported when `SQLiteStore` is first named.

# Job keys

With a store, every paid call is stored before it is sent, and its task before the first poll; a job key makes
it idempotent across crashes and processes: the same key gives the same task and pays nothing, the same key
with another request is an error.

```python
from musicapi_async import Clips, MusicAPI, SQLiteStore


async def order(number: str, description: str) -> Clips:
    async with MusicAPI(store=SQLiteStore("jobs.sqlite")) as client:
        once = client.with_options(job_key=f"order-{number}")
        task = await once.sonic.create_music(mv="sonic-v6", gpt_description_prompt=description)
        return await task.wait()
```

A call of unknown outcome stays listed (`await client.jobs("ambiguous")`, `musicapi jobs list jobs.sqlite`,
or with the folder of a batch) until a webhook, `client.resolve(key, task_id=...)` or your explicit
`client.resubmit(key)` settles it.

# Accounts

A job key belongs to an account: `MusicAPI(account="studio")` or `MUSICAPI_ACCOUNT`, else a fingerprint of the
API key. A key that exists only under another fingerprint raises `JobKeyConflictError` and sends nothing,
since an API key that was replaced is still of the same account; the error names the `account=` that says so.
Accounts that were both named may share a store, and have a job each.

# The file

A file holds requests without their secrets, answers, task ids and outcomes, and is readable by its owner
only. A store whose file was removed or replaced refuses until a new `SQLiteStore` is made, and one damaged
row is listed with `Job.is_readable` False and hides no other. Nothing is removed by itself:
`await store.purge(before)` removes the finished and failed jobs that were last changed before a Unix time,
and with them their keys: a call with such a key is paid for again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .job import Job, JobState, JobTask, Owner
from .job_request import JobRequest
from .memory import MemoryStore
from .store import JobStore, Step

if TYPE_CHECKING:
    from .sqlite import SQLiteStore

__all__ = [
    "Job",
    "JobRequest",
    "JobState",
    "JobStore",
    "JobTask",
    "MemoryStore",
    "Owner",
    "SQLiteStore",
    "Step",
]


def __getattr__(name: str) -> object:
    if name != "SQLiteStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sqlite import SQLiteStore

    return SQLiteStore
