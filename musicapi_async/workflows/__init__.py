"""Workflows: calls that belong together, and many songs from one file.

`run_batch` makes all songs of a manifest, with audio, metadata and a report, resumable at any instant.
`extend` and `cover` take audio wherever it comes from, `extend_full` makes the full song, `everything`
fetches all files of a clip.

```python
from musicapi_async import MusicAPI, workflows

async with MusicAPI() as client:
    link = "https://example.org/demo.mp3"
    task = await workflows.cover(client, link, mv="sonic-v6", prompt=lyrics, tags="jazz")
    song = await workflows.extend_full(client, (await task.wait())[0], mv="sonic-v6", prompt=more)
    files = await workflows.everything(client, song[0], "out/demo")
```

They use public calls only, so the rate, the checks and the promise of paying once are those of the client.
A workflow pays for several calls, and a later one may fail. What was paid for until then is never lost:
every `MusicAPIError` that leaves a workflow carries it as `error.reached`, and `workflow(...,
reached=error.reached)` goes on from there without paying again. A `Reached` that is passed in is filled as
the chain goes on, which helps where no error comes, such as a cancelled task; it is stored as JSON
(`Reached.json`, `Reached.parse`).

A step of unknown outcome (`OutcomeUnknownError`, or a task cancelled or a process killed while it was sent)
may be paid for; it is noted in `Reached` before it is sent, and `everything` writes that down in its
folder. Going on raises `OutcomeUnknownError` again and sends nothing until somebody has looked and says
`reached.resolve("extend", task=token)` or, to pay for it once more, `reached.resubmit("extend")`.

With a job key (`client.with_options(job_key="demo")`) each step gets a key of its own ("demo.extend"), so
that running a workflow again finds what it has paid for in the store of the client. A step that failed
stays so under its key until `client.resubmit("demo.extend")`; without a job key, going on submits it anew.
A client with a store gives each step a new key of its own, which `Reached` keeps: so a step that was under
way when the process was killed is settled by its job, and sends nothing if it was accepted.
"""

from __future__ import annotations

from .folder import GONE, REACHED_FILE, REFUSED, Everything, everything
from .manifest import Manifest, Song, Step
from .plan import Plan, plan_batch
from .reached import Reached
from .records import ClipRecord, SongRecord, StepRecord
from .runner import BatchResult, Progress, run_batch
from .songs import AUDIO, Source, Uploader, cover, extend, extend_full

__all__ = [
    "AUDIO",
    "GONE",
    "REACHED_FILE",
    "REFUSED",
    "BatchResult",
    "ClipRecord",
    "Everything",
    "Manifest",
    "Plan",
    "Progress",
    "Reached",
    "Song",
    "SongRecord",
    "Source",
    "Step",
    "StepRecord",
    "Uploader",
    "cover",
    "everything",
    "extend",
    "extend_full",
    "plan_batch",
    "run_batch",
]
