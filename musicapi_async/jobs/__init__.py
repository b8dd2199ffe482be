"""Jobs: paid calls as they were sent, paid for and ended, in memory, in a file, or in a database.

A create that is recorded before it is sent can be found again after a crash, and a create that has a job key
is never paid for twice. `sqlite3` is imported when `SQLiteStore` is first named, `psycopg` with
`PostgresStore`.

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

One key covers a whole batch (`client.sonic.create_batch`): its job has a task or an error for each item, and
is ambiguous until each has one. `client.resolve(key, task_id=..., item=1)` names the task of the second item;
`Job.others` are tasks of which the reply did not say to which item they belong.

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
and with them their keys: a call with such a key is paid for again. The command for it is
`musicapi jobs purge FILE --older-than 30d`.

# Many machines

The rate limit of an account is one number for all processes that call it. With one PostgreSQL database (15 or
later, extra `[postgres]`) they keep it together, share their jobs and job keys, and a webhook that any of
them receives ends the waits in all of them:

```python
from musicapi_async import MusicAPI, PostgresStore

client = MusicAPI("your-key", account="studio", store=PostgresStore("postgresql://music@db.example/music"))
```

MUSICAPI_STORE, the address, does the same without a line of code. The password comes from PGPASSWORD or from
the file of PGPASSFILE. The database user needs the right to make a schema once (`musicapi`); workers of
different versions refuse each other.

- The rate is in the database: 1 per 3 s at first, another one by `musicapi jobs rate ADDRESS 20/10s --account
  studio`. Creates are served in the order in which they came, on any machine. A client leaves `rate_limit`
  out; one that was given another rate is refused. A refusal by the service (HTTP 429) stops and slows all of
  them.
- `max_in_flight` counts the tasks of all clients of the account. A permit ends with its task or its client,
  or 20 s after its process was killed or has lost the database; not because the database was away for all.
- The rate goes by the clock of the database server. A clock that is set back costs time; one that is set
  forward lets creates out as much earlier, once, so have it follow a time server by small steps.
- Without the database nothing is sent, as it could not be recorded. Waits continue by polls, and what was
  paid meanwhile is written down when it is back. A process refuses a database that is not the one that it has
  used before; a new process takes the one that is there.
- A process has three connections, and a create makes about 50 exchanges with the server: one that is 2 ms
  away makes it 0.1 to 0.2 s longer. Few processes with many tasks each are better than many. A webhook is
  announced to all of them, and read by the one that waits for its song.

Whole batches are spread over machines by workers: see `musicapi_async.workflows`.

# The database

From a package (Debian, Ubuntu), as a container, or as a service of a hosting company:

```sh
sudo apt install postgresql
sudo -u postgres createuser --pwprompt music && sudo -u postgres createdb --owner music music
# other machines are let in by two lines, here those of 10.0.0.0/8; then restart it
sudo -u postgres psql -c "ALTER SYSTEM SET listen_addresses = '*'"
echo "host music music 10.0.0.0/8 scram-sha-256" | \\
    sudo tee -a "$(sudo -u postgres psql -tAc 'SHOW hba_file')"
sudo systemctl restart postgresql

docker run -d --name music-db -p 5432:5432 -v music-db:/var/lib/postgresql/data \\
    -e POSTGRES_USER=music -e POSTGRES_PASSWORD="$PGPASSWORD" -e POSTGRES_DB=music postgres:17
```

Each machine that uses it has the password in a file that only its user can read:

```sh
(umask 077; echo "db.example:5432:music:music:THE-PASSWORD" >> ~/.pgpass)
```

Of a service take the direct address, or that of a pooler in session mode: in transaction mode a pooler has no
LISTEN, by which processes are notified. A process has three connections; a worker of batches up to seven. A
server takes 100 unless `max_connections` says more: that is 14 workers. All tables are in the schema
`musicapi`, so an application may use the same database.

- Stored are jobs, as in a file; for an hour the bodies of webhooks, without secrets; learned durations; rates
  and permits; and the rows of batches, lyrics included, until they are carried out.
- `musicapi jobs list ADDRESS` lists jobs. `musicapi jobs purge ADDRESS --older-than 30d` removes those that
  have finished or failed, and forgets their keys. Webhooks and rows are removed by themselves, and rows that
  are no longer wanted by `musicapi batch withdraw DIR`.
- A new process cannot know that the database was replaced, such as by an empty one, or by a back-up of
  yesterday: for it, no job key that is missing there was ever used, and a call with one is paid for again.
  So restore before the first process is started, and list what the service has made since. A folder of
  workers remembers its database, and refuses another one.

# Task queues and workflow engines

Celery, Temporal and DBOS repeat what may not have been done: after an error, a lost worker, a restart. None
of them can know if a paid call has left. A job key can, so give each call one that follows from the order,
and never from the attempt; with a store that all workers share, a repetition gives the same task, and pays
nothing.

Make one task of one paid call: it returns `task.token`, a text, and not the handle, which an engine would
await or could not store. Do not wait for songs in it: a slot of a worker would be taken for minutes. Wait in
a process of your own, for thousands at once (`client.wait_all`), or by webhooks; or in a second task, which
may be repeated freely, as `client.task(token).wait()` costs nothing.

```python
async def submit(number: str, description: str) -> str:
    async with MusicAPI(store=PostgresStore(ADDRESS), account="studio") as client:
        once = client.with_options(job_key=f"order-{number}")
        return (await once.sonic.create_music(mv="sonic-v6", gpt_description_prompt=description)).token
```

- Celery: the paid call is a task that runs `asyncio.run(submit(...))` and returns the token, without
  `autoretry_for`. By default a message is acknowledged before its task begins, so that a killed worker loses
  it; with the job key `acks_late=True` and `task_reject_on_worker_lost=True` are safe.
- Temporal: the paid call is an activity; a workflow calls no client, as it is replayed. By default activities
  are retried without end, so give it `RetryPolicy(maximum_attempts=3, non_retryable_error_types=[...])` with
  "OutcomeUnknownError", "JobKeyConflictError" and "RequestValidationError".
- DBOS: the paid call is a step, with `DBOS.workflow_id` in its key and `retries_allowed=False`. A step that
  was under way in a crash is carried out again by the recovery, even so: without a job key it is paid for
  twice.

After `OutcomeUnknownError` a retry sends nothing and raises it again: a person, or a webhook, must settle the
job first. The engine's own limits of rate (`rate_limit` of Celery, of a queue) are needless: the store has
that of the account, also for what is not called by the engine.

`MemoryStore`, which a client without a store uses, forgets everything with its process. Of the calls that no
caller named a key for, it remembers the last 5,000 whose task is known, and all whose outcome is not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Final

from .job import Job, JobRequest, JobState, JobTask, Owner
from .memory import MemoryStore
from .store import JobStore, Transition

STORE_VARIABLE: Final = "MUSICAPI_STORE"

if TYPE_CHECKING:
    from .postgres import PostgresStore
    from .sqlite import SQLiteStore

__all__ = [
    "Job",
    "JobRequest",
    "JobState",
    "JobStore",
    "JobTask",
    "MemoryStore",
    "Owner",
    "PostgresStore",
    "SQLiteStore",
    "Transition",
]
if not TYPE_CHECKING and PathFinder.find_spec("psycopg") is None:
    __all__.remove("PostgresStore")  # which `import *` would fail for


def is_address(place: str) -> bool:
    """Return True for the address of a database, False for the path of a file."""
    return place.startswith(("postgresql://", "postgres://"))


def open_store(place: str) -> JobStore:
    """Return the store at an address, 'postgresql://...', or else in a file."""
    if is_address(place):
        from .postgres import PostgresStore

        return PostgresStore(place)
    from .sqlite import SQLiteStore

    return SQLiteStore(place)


def find_store(environment: Mapping[str, str] = os.environ) -> JobStore | None:
    """Return the store that MUSICAPI_STORE names, None if it is not set."""
    place = environment.get(STORE_VARIABLE, "").strip()
    return open_store(place) if place else None


def __getattr__(name: str) -> object:
    if name == "SQLiteStore":
        from .sqlite import SQLiteStore

        return SQLiteStore
    if name == "PostgresStore":
        from .postgres import PostgresStore

        return PostgresStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
