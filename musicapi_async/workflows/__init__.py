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
sends nothing until you have searched the dashboard and say `checkpoint.resolve("extend", task=token)` or,
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

Where an operation wants a public link, a row may have a local file, if the client of `run_batch` has an
`uploader`: `{"operation": "sonic.upload_cover", "url": "demos/one.mp3", ...}`. Paths begin at the folder of
the manifest, and missing files are refused before anything is sent. A file is known by its content: once its
row was sent it is not published again, may be gone, and is refused if it has changed. A row is known by its
`id`; one without is known by what it says, so that another path in it makes another song. The command
publishes no files.

```sh
musicapi batch run songs.jsonl --out album/ --dry-run
musicapi batch run songs.jsonl --out album/ --budget 500 --price lyrics=1 --rate-limit 20/10s
```

```python
plan = await workflows.plan_batch(Manifest.read("songs.jsonl"), "album/", prices={"lyrics": 1}, budget=500)
result = await workflows.run_batch(client, "songs.jsonl", out="album/", budget=500)
print(result.done, result.failed, result.failed_steps, result.spent_now, result.unfinished, result.hint)
```

Everything is checked before the first credit is spent. With a budget the first call of each kind is made
alone to learn its price, and may pass the budget by that; prices that are given are known beforehand, and a
dry run adds them up. A run may be killed at any instant and started again:
it continues, and pays for nothing twice, because every call is recorded in the job store of the folder under
a key that follows from the manifest. One run at a time holds a folder. A song or step that failed stays
failed until `retry_failed=True`, and is then sent with the fields that the manifest has now.
Report, records and metadata can be read by their owner only.

Songs are called `01 Title (take 1).mp3`, with the number of their row and subtitles (`.lrc`, `.srt`) beside
them; WAV, MIDI and stems are in `wav/`, `midi/` and `stems/`, metadata, covers and replies in `details/`.
`name="{id} {take}"` chooses another pattern in the first run. Where the extra `[tags]` is installed, MP3 and
WAV files have title, artist, album (the folder), track (the row), style, lyrics, cover, and the prompt in a
comment. A folder of an earlier version is continued with the names that it has.

The page `album/report.html` needs a browser and nothing else. It is renewed while a run is on, and lists what
failed with the command that helps. It plays takes, stems and lyrics, compares takes at the same position,
and stores stars and choices in the browser. It exports them, and the takes to keep are then copied:

```sh
musicapi batch report album/ --embed --to page-to-send.html
musicapi batch keep album/ picks.json --out chosen/
```

`write_report` and `copy_picks` do the same. The page needs Jinja2 (extra `[cli]`).

# Workers

With one PostgreSQL database (`musicapi_async.jobs` says how to start it) a batch is carried out by any number
of workers, on any number of machines, under the one rate of the account; extra `[workers]` (procrastinate):

```sh
export MUSICAPI_STORE=postgresql://music@db.example/music PGPASSFILE=~/.pgpass MUSICAPI_ACCOUNT=studio
musicapi batch run songs.jsonl --out /shared/album --workers    # queues the songs, on one machine
musicapi worker                                                 # carries them out, on each machine
musicapi worker --status                                        # queue, workers, rate, permits
musicapi batch report /shared/album                             # how far it is, and the page; anywhere
```

```python
from musicapi_async import MusicAPI, PostgresStore
from musicapi_async.workflows import workers

async with MusicAPI(store=PostgresStore(address), account="studio") as client:
    await workers.put_batch(client, "songs.jsonl", out="/shared/album")
    await workers.run_worker(client, stop=stop)  # until `stop`, an asyncio.Event, is set
    result = await workers.report_batch(client, out="/shared/album")
```

- The folder is one that all machines have under the same path, for the same user (NFS, or a volume). A
  machine without it ends its worker, and says so.
- Names and tags are those of any batch. The page is written by `musicapi batch report`, not by workers;
  without the database it displays what is in the folder.
- One worker has thousands of songs under way: it fetches a few that wait for the rate, and follows all others
  in the one loop of its client.
- Ctrl-C or SIGTERM gives the songs of a worker back, wherever they are; another one continues. Those of a
  worker that was killed, or of a machine that is gone, are taken over within 20 s. What was paid for is
  never paid for again, as each call has a job key in the database. A call that was being sent in that
  instant is of unknown outcome, and reported as such.
- A song that cannot be settled, such as while a host of files is down, is tried again five times within ten
  minutes; queueing the batch again continues all that is not settled. Without credits, or with a full disk,
  a worker ends and leaves the songs in the queue.
- Rows have no local files and no secrets, and there is no budget: `musicapi batch run --dry-run` without
  `--workers` says what a new batch costs.
"""

from __future__ import annotations

from .batch_folder import ClipRecord, SongRecord, StepRecord
from .batch_plan import Plan, plan_batch
from .batch_progress import Progress
from .batch_report import write_report
from .batch_result import BatchResult, StepFailure
from .batch_run import run_batch
from .checkpoint import Checkpoint
from .everything import CHECKPOINT_FILE, Everything, everything
from .extend_and_cover import Source, cover, extend, extend_full
from .manifest import Manifest, Song, SongStep
from .picks import copy_picks

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
    "copy_picks",
    "cover",
    "everything",
    "extend",
    "extend_full",
    "plan_batch",
    "run_batch",
    "write_report",
]
