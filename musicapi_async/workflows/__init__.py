"""Workflows: calls that belong together, and batches of songs.

`extend` and `cover` take audio wherever it comes from, `extend_full` makes the full song, `everything`
fetches all files of a clip, and `run_batch` makes all songs of a manifest with the steps that follow for
their clips.

```python
from musicapi_async import MusicAPI, workflows

async with MusicAPI() as client:
    link = "https://example.org/demo.mp3"
    task = await workflows.cover(client, link, mv="sonic-v6", prompt=lyrics, tags="jazz")
    song = await workflows.extend_full(client, (await task.wait())[0], mv="sonic-v6", prompt=more)
    files = await workflows.everything(client, song[0], "out/demo")
```

They use public calls only, so the rate limit, the checks and the promise of paying once are those of the
client.

# Steps and checkpoints

A workflow pays for several calls, its steps, and a later one may fail. What was paid for until then is never
lost: every `MusicAPIError` that leaves a workflow has it as `error.checkpoint`, and `workflow(...,
checkpoint=error.checkpoint)` continues from there without paying again. A `Checkpoint` that is passed in is
filled in on the way, which helps where no error comes, as when a task is cancelled. It is stored as JSON
(`Checkpoint.json`, `Checkpoint.parse`); `everything` does that in its folder.

A step of unknown outcome (`OutcomeUnknownError`, or a task cancelled or a process killed while it was sent)
may be paid for; it is in the checkpoint before it is sent. Continuing raises `OutcomeUnknownError` again and
sends nothing until you have looked at the dashboard and say `checkpoint.resolve("extend", task=token)` or,
to pay for it once more, `checkpoint.resubmit("extend")`.

With a job key (`client.with_options(job_key="demo")`) each step has a key of its own ("demo.extend"), so
running a workflow again finds what it has paid for in the job store of the client. A step that failed stays
so under its key until `client.resubmit("demo.extend")`; without a job key, continuing submits it again. A
client with a job store gives each step a new key, which the checkpoint keeps: a step that was under way when
the process was killed is settled by its job, and sends nothing if it was accepted.

# Batches

A manifest has one song on each line, JSON Lines or a table (CSV with commas, semicolons or tabs):

```json
{"id": "rain", "mv": "sonic-v6", "gpt_description_prompt": "calm rain", "steps": ["stems", "wav", "lyrics"]}
```

A row has the fields of `create_music` (or of its `operation`) and, if wanted, `id`, `steps` and `clips`. The
steps are `stems`, `stems_full`, `wav`, `midi`, `lyrics` (with times), `bpm`, `vox`, `persona`, `extend`
(joined to the full song), `cover`, `everything`, and every other operation that works on a clip, with fields
as in `{"persona": {"name": "V"}}`. Each runs for every clip of the song, usually two; with `"clips":
"first"` for the first.

```sh
musicapi batch run songs.jsonl --out album/ --dry-run
musicapi batch run songs.jsonl --out album/ --budget 500 --price lyrics=1 --rate-limit 20/10s
```

```python
plan = await workflows.plan_batch(Manifest.read("songs.jsonl"), "album/", prices={"lyrics": 1}, budget=500)
result = await workflows.run_batch(client, "songs.jsonl", out="album/", budget=500)
print(result.done, result.failed, result.failed_steps, result.spent_now, result.left, result.hint)
```

Everything is checked before the first credit is spent. With a budget the first call of each kind is made
alone to learn its price, and may pass the budget by that; prices that are given are known beforehand, and a
dry run adds them up. A run may be killed at any instant and started again:
it continues, and pays for nothing twice, because every call is recorded in the job store of the folder under
a key that follows from the manifest. One run at a time holds a folder. A song or step that failed stays
failed until `retry_failed=True`, and is then sent with the fields that the manifest has now.
`album/report.html` has players, lyrics, wave forms and a timeline. Report, records and metadata can be read
by their owner only."""

from __future__ import annotations

from .batch_folder import ClipRecord, SongRecord, StepRecord
from .batch_plan import Plan, plan_batch
from .batch_progress import Progress
from .batch_run import BatchResult, StepFailure, run_batch
from .checkpoint import Checkpoint
from .everything import CHECKPOINT_FILE, Everything, everything
from .extend_and_cover import Source, Uploader, cover, extend, extend_full
from .manifest import Manifest, Song, SongStep

__all__ = [
    "CHECKPOINT_FILE",
    "BatchResult",
    "Checkpoint",
    "ClipRecord",
    "Everything",
    "Manifest",
    "Plan",
    "Progress",
    "Song",
    "SongRecord",
    "SongStep",
    "Source",
    "StepFailure",
    "StepRecord",
    "Uploader",
    "cover",
    "everything",
    "extend",
    "extend_full",
    "plan_batch",
    "run_batch",
]
