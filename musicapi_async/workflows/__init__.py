"""Workflows: several calls for one purpose, and batches of songs.

`extend` and `cover` accept audio from any source, `extend_full` makes the full song, `everything` fetches all
files of a clip, and `run_batch` makes all songs of a manifest, with further steps for their clips.

```python
from musicapi_async import MusicAPI, workflows

async with MusicAPI() as client:
    link = "https://example.org/demo.mp3"
    task = await workflows.cover(client, link, mv="sonic-v6", prompt=lyrics, tags="jazz")
    song = await workflows.extend_full(client, (await task.wait())[0], mv="sonic-v6", prompt=more)
    files = await workflows.everything(client, song[0], "out/demo")
```

Workflows use only public calls, so the rate limit, the checks and the rule that nothing is paid twice are
those of the client.

# Steps and checkpoints

A workflow makes several paid calls, its steps, and a later step may fail. The results of the earlier steps
are in `error.checkpoint` of each `MusicAPIError` that a workflow raises, and `workflow(...,
checkpoint=error.checkpoint)` continues from there without paying again. You can also pass in an empty
`Checkpoint`: the workflow fills it in, so that you have it when no error is raised, for instance after a
cancellation. `Checkpoint.json` and `Checkpoint.parse` store it as JSON; `everything` does that in its folder.

A step of unknown outcome (`OutcomeUnknownError`, or a cancellation or a killed process while it was sent) may
be paid for; it is recorded in the checkpoint before it is sent. Continuing raises `OutcomeUnknownError`
again and sends nothing. Search the dashboard for its result, and call
`checkpoint.resolve("extend", task=token)`, or `checkpoint.resubmit("extend")` to pay for the step once more.

With a job key (`client.with_options(job_key="demo")`) each step has its own key, such as "demo.extend". If
the workflow runs again, it finds what was paid for in the job store of the client. A failed step is repeated
only by `client.resubmit("demo.extend")`; without a job key, it is submitted again. Without a job key, but
with a job store, each step has a new key, which is stored in the checkpoint: if the process is killed during
a step, the job says if the step was accepted, and then it is not sent again.

# Batches

A manifest has one song on each line. It is a file of JSON Lines, or a table (CSV with commas, semicolons or
tabs):

```json
{"id": "rain", "mv": "sonic-v6", "gpt_description_prompt": "calm rain", "steps": ["stems", "wav", "lyrics"]}
```

A row has the fields of `create_music`, or of the operation in its `operation`, and optionally `id`, `steps`
and `clips`. The steps are `stems`, `stems_full`, `wav`, `midi`, `lyrics` (with times), `bpm`, `vox`,
`persona`, `extend` (joined to the full song), `cover`, `everything`, and every other operation on a clip,
with fields as in `{"persona": {"name": "V"}}`. Each step runs for every clip of the song, usually two; with
`"clips": "first"` only for the first.

If the client of `run_batch` has an `uploader`, a row may have a local file in the place of a link:
`{"operation": "sonic.upload_cover", "url": "demos/one.mp3", ...}`. Relative paths begin at the folder of the
manifest, and missing files are refused before anything is sent. A file is identified by its content: after
its row was sent, it is not published again and may be deleted, but is refused if it has changed. A row is
identified by its `id`, or, without one, by its fields, so that another path makes another song. The command
`musicapi batch run` has no uploader.

```sh
musicapi batch run songs.jsonl --out album/ --dry-run
musicapi batch run songs.jsonl --out album/ --budget 500 --price lyrics=1 --rate-limit 20/10s
```

```python
plan = await workflows.plan_batch(Manifest.read("songs.jsonl"), "album/", prices={"lyrics": 1}, budget=500)
result = await workflows.run_batch(client, "songs.jsonl", out="album/", budget=500)
print(result.done, result.failed, result.failed_steps, result.spent_now, result.unfinished, result.hint)
```

The whole manifest is checked before the first credit is spent. With a budget, the first call of each kind is
made alone, so that its price is learned; it may exceed the budget by that price. Prices in `prices=` need not
be learned, and a dry run adds them up. A run may be killed at any time and started again: it continues, and
pays for nothing twice, because every call is recorded in the job store of the folder under a key that follows
from the manifest. Only one run can use a folder at a time. A failed song or step is repeated only with
`retry_failed=True`, with the fields that the manifest has then. Report, records and metadata can be read by
their owner only.

Songs are called `01 Title (take 1).mp3`, with the number of their row, and have subtitles (`.lrc`, `.srt`)
beside them. WAV, MIDI and stems are in `wav/`, `midi/` and `stems/`; metadata, covers and replies are in
`details/`. `name="{id} {take}"` chooses another pattern in the first run. If the extra `[tags]` is installed,
MP3 and WAV files have title, artist, album (the folder), track (the row), style, lyrics, cover, and the
prompt in a comment. A folder of an earlier version continues with its names.

The page `album/report.html` needs only a browser. It is updated during a run, and lists failures with the
commands that help. It plays takes, stems and lyrics, compares takes at the same position, and stores stars
and choices in the browser. Export the choices (`picks.json`) to copy the takes to keep:

```sh
musicapi batch report album/ --embed --to page-to-send.html
musicapi batch keep album/ picks.json --out chosen/
```

`write_report` and `copy_picks` do the same. The page needs Jinja2 (extra `[cli]`).

# Workers

With one PostgreSQL database (see `musicapi_async.jobs`), any number of workers on any number of machines
carry out a batch, within the one rate limit of the account; extra `[workers]` (procrastinate):

```sh
export MUSICAPI_STORE=postgresql://music@db.example/music PGPASSFILE=~/.pgpass MUSICAPI_ACCOUNT=studio
musicapi batch run songs.jsonl --out /shared/album --workers    # queues the songs, on one machine
musicapi worker                                                 # carries them out, on each machine
musicapi worker --status                                        # prints queue, workers, rate, permits
musicapi batch report /shared/album                             # prints the progress, writes the page
```

```python
from musicapi_async import MusicAPI, PostgresStore
from musicapi_async.workflows import workers

async with MusicAPI(store=PostgresStore(address), account="studio") as client:
    await workers.put_batch(client, "songs.jsonl", out="/shared/album")
    await workers.run_worker(client, stop=stop)  # until `stop`, an asyncio.Event, is set
    result = await workers.report_batch(client, out="/shared/album")
```

- All machines must have the folder under the same path, for the same user (NFS, or a volume). A worker on a
  machine without the folder ends with an error.
- File names and tags are those of any batch. `musicapi batch report` writes the page, not the workers; if the
  database cannot be reached, the page has what is in the folder.
- One worker waits for thousands of songs: it takes a few from the queue that wait for the rate, and polls all
  others with the one scheduler of its client.
- After Ctrl-C or SIGTERM a worker returns its songs to the queue, and another worker continues them. Songs of
  a worker that was killed, or of a machine that is down, are taken over within 20 s. Nothing is paid for
  twice, because each call has a job key in the database. A call that was being sent when a worker was killed
  has an unknown outcome, and is reported as such.
- A song that cannot be settled, for instance while a host of files is down, is tried again five times within
  ten minutes; after that, queue the batch again to continue. A worker without credits, or with a full disk,
  ends and leaves its songs in the queue.
- Rows cannot have local files or secrets, and there is no budget; `musicapi batch run --dry-run` without
  `--workers` prints the cost of a new batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy_names import lazy_names

if TYPE_CHECKING:
    from .batch_folder import ClipRecord, SongRecord, StepRecord
    from .batch_plan import Plan, plan_batch
    from .batch_progress import Progress
    from .batch_report import write_report
    from .batch_result import BatchResult, StepFailure
    from .batch_run import run_batch
    from .checkpoint import Checkpoint
    from .clip_files import CHECKPOINT_FILE, Everything, everything
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

_MODULES = {
    ".batch_folder": ("ClipRecord", "SongRecord", "StepRecord"),
    ".batch_plan": ("Plan", "plan_batch"),
    ".batch_progress": ("Progress",),
    ".batch_report": ("write_report",),
    ".batch_result": ("BatchResult", "StepFailure"),
    ".batch_run": ("run_batch",),
    ".checkpoint": ("Checkpoint",),
    ".clip_files": ("CHECKPOINT_FILE", "Everything", "everything"),
    ".extend_and_cover": ("Source", "cover", "extend", "extend_full"),
    ".manifest": ("Manifest", "Song", "SongStep"),
    ".picks": ("copy_picks",),
}


if not TYPE_CHECKING:  # type checkers would believe in any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
