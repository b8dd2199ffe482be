"""Jobs: records of paid calls and their tasks, in memory, in a file, or in a database.

A create that is recorded before it is sent can be found after a crash, and a create that has a job key is
never paid for twice. `sqlite3` is imported when `SQLiteStore` is first used, `psycopg` with
`PostgresStore`.

# Job keys

With a store, every paid call is stored before it is sent, and its task before the first poll. A job key makes
a paid call idempotent across crashes and processes: a second call with the same key returns the same task and
pays nothing; with another request it raises `JobKeyConflictError`.

```python
from musicapi_async import Clips, MusicAPI, SQLiteStore


async def order(number: str, description: str) -> Clips:
    async with MusicAPI(store=SQLiteStore("jobs.sqlite")) as client:
        once = client.with_options(job_key=f"order-{number}")
        task = await once.sonic.create_music(mv="sonic-v6", gpt_description_prompt=description)
        return await task.wait()
```

A call of unknown outcome is listed (by `await client.jobs("ambiguous")`, or `musicapi jobs list` with
the file or the folder of a batch) until a webhook, `client.resolve(key, task_id=...)` or
`client.resubmit(key)` settles it. `resubmit` may pay a second time, so the client never calls it by itself.

One key covers a whole batch (`client.sonic.create_batch`): its job has a task or an error for each item, and
is ambiguous until each item has one. `client.resolve(key, task_id=..., item=1)` names the task of the second
item. `Job.others` has the tasks whose item the reply does not name.

# Accounts

A job key belongs to an account: `MusicAPI(account="studio")` or `MUSICAPI_ACCOUNT`, else a fingerprint of the
API key. If a job key exists only under another fingerprint, the API key may have been replaced, or belong to
another account. So the call raises `JobKeyConflictError` and sends nothing; the error names the `account=` to
pass if the account is the same. Named accounts may share a store: the same job key is then one job for each.

# The file

The file has requests without their secrets, responses, task ids and outcomes; only its owner can read it. If
the file is removed or replaced, the store refuses all calls until a new `SQLiteStore` is made. A damaged row
is listed with `Job.is_readable` False; the other rows can be used.

Nothing is removed automatically. `await store.purge(before)`, or `musicapi jobs purge FILE --older-than 30d`,
removes the finished and failed jobs that were last changed before a Unix time, together with their keys: a
later call with such a key is paid for again.

# Many machines

The rate limit of an account applies to all processes that use it. With one PostgreSQL database (15 or later,
extra `[postgres]`) they share this limit, their jobs and job keys, and a webhook that any of them receives
ends the waits in all of them:

```python
from musicapi_async import MusicAPI, PostgresStore

client = MusicAPI("your-key", account="studio", store=PostgresStore("postgresql://music@db.example/music"))
```

The same address in MUSICAPI_STORE makes this store the default. The password comes from PGPASSWORD or from
the file of PGPASSFILE. The database user needs the right to create the schema `musicapi` once. All processes
must have a version of this package with the same version of the tables; others are refused.

- The rate is in the database: 1 per 3 s at first; `musicapi jobs rate ADDRESS 20/10s --account studio` sets
  another one. Creates of all machines are sent in the order in which they were called. Leave out
  `rate_limit`: a client with another rate than the database's is refused. A 429 of the service pauses all
  clients and lowers their rate.
- `max_in_flight` counts the tasks of all clients of the account. A permit ends with its task or its client,
  or 20 s after its process was killed or lost the database. If the database itself was away, no permit ends.
- The rate follows the clock of the database server. If the clock is set back, creates are delayed; if it is
  set forward, some creates are sent too early, once. So let a time server adjust it in small steps.
- Without the database no create is sent, because it could not be recorded. Waits continue with polls, and
  results of paid calls are recorded when the database is back. A process refuses a database that is not the
  one that it used before; a new process accepts any.
- A process has three connections. A create makes about 50 exchanges with the server: if the server is 2 ms
  away, a create takes 0.1 to 0.2 s longer. Few processes with many tasks each are better than many processes.
  A webhook is announced to all processes, and read by those that wait for its task.

Workers spread whole batches over machines: see `musicapi_async.workflows`.

# The database

Install it from a package (Debian, Ubuntu), run it as a container, or use a hosted one:

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

Store the password on each machine in a file that only its user can read:

```sh
(umask 077; echo "db.example:5432:music:music:THE-PASSWORD" >> ~/.pgpass)
```

For a hosted database use the direct address, or that of a pooler in session mode: in transaction mode a
pooler does not support LISTEN, which notifies processes. A process has three connections, a worker of batches
up to seven. A server accepts 100 by default (`max_connections`), which is enough for 14 workers. All tables
are in the schema `musicapi`, so an application may use the same database.

- The database has jobs, as a file does; the bodies of webhooks, without secrets, for an hour; learned
  durations; rates and permits; and the rows of batches, including lyrics, until they are carried out.
- `musicapi jobs list ADDRESS` lists jobs. `musicapi jobs purge ADDRESS --older-than 30d` removes finished and
  failed jobs with their keys. Webhooks and rows are removed automatically; `musicapi batch withdraw DIR`
  removes the rows of a batch that is no longer wanted.
- A new process cannot know that the database was replaced, for instance by an empty one or by a backup of
  yesterday. A call whose job key is missing there is paid for again. So restore a backup before the first
  process is started, and check which songs the service has made since. A folder of workers records its
  database, and refuses another one.

# Task queues and workflow engines

Celery, Temporal and DBOS repeat a task after an error, a lost worker or a restart. They cannot know if a paid
call was sent; a job key can. So derive the job key from the order, never from the attempt. With a store that
all workers share, a repeated call then returns the same task and pays nothing.

Make each paid call its own task, which returns `task.token`, a text, not the `Task`, which an engine would
await or could not store. Do not wait for songs in this task: it would occupy a worker for minutes. Wait for
thousands of songs in one process (`client.wait_all`), or use webhooks, or wait in a second task, which may
be repeated freely, because `client.task(token).wait()` is free.

```python
async def submit(number: str, description: str) -> str:
    async with MusicAPI(store=PostgresStore(ADDRESS), account="studio") as client:
        once = client.with_options(job_key=f"order-{number}")
        return (await once.sonic.create_music(mv="sonic-v6", gpt_description_prompt=description)).token
```

- Celery: the paid call is a task that runs `asyncio.run(submit(...))` and returns the token, without
  `autoretry_for`. By default Celery acknowledges a message before its task begins, so that a killed worker
  loses it; with a job key, `acks_late=True` and `task_reject_on_worker_lost=True` are safe.
- Temporal: the paid call is an activity. A workflow must not use the client, because workflows are replayed.
  By default activities are retried without limit, so pass `RetryPolicy(maximum_attempts=3,
  non_retryable_error_types=[...])` with "OutcomeUnknownError", "JobKeyConflictError" and
  "RequestValidationError".
- DBOS: the paid call is a step, with `DBOS.workflow_id` in its job key and `retries_allowed=False`. Even so,
  the recovery after a crash carries out a step again that was under way: without a job key it is paid for
  twice.

After `OutcomeUnknownError` a retry sends nothing and raises it again, until a person or a webhook settles the
job. The rate limits of the engine (`rate_limit` of Celery or of a queue) are not necessary: the store has the
rate limit of the account, which also counts calls from outside of the engine.

# In memory

A client without a store uses a `MemoryStore`, whose contents are lost when its process ends. It has all calls
with a job key of the caller, and all of unknown outcome. Other calls are recorded only for their webhooks: it
has the last 5,000.
"""

from __future__ import annotations

import os
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Final

from .._lazy_names import lazy_names

if TYPE_CHECKING:
    from .job import Job, JobRequest, JobState, JobTask, Owner
    from .memory import MemoryStore
    from .postgres import PostgresStore
    from .sqlite import SQLiteStore
    from .store import JobStore, Transition

STORE_VARIABLE: Final = "MUSICAPI_STORE"

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


def find_store() -> JobStore | None:
    """Return the store that MUSICAPI_STORE names, None if it is not set."""
    place = os.environ.get(STORE_VARIABLE, "").strip()
    return open_store(place) if place else None


_MODULES = {
    ".job": ("Job", "JobRequest", "JobState", "JobTask", "Owner"),
    ".memory": ("MemoryStore",),
    ".postgres": ("PostgresStore",),
    ".sqlite": ("SQLiteStore",),
    ".store": ("JobStore", "Transition"),
}


if not TYPE_CHECKING:  # type checkers would believe in any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
