"""The file of jobs: whole, shared, and never silently replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest
from patience import PATIENCE

from musicapi_async.api.task import TaskRef
from musicapi_async.errors import JobStoreError
from musicapi_async.jobs import Job, JobRequest, JobTask, Owner, SQLiteStore, owner, reservation, transitions

REQUEST = JobRequest("POST /sonic/create", "http://host", '{"title":"a"}', "sonic", "create_music")
ME = Owner("host", "boot", 1, "1", "nonce")


def is_alive(_owner: Owner) -> bool:
    return True


def reserve(key: str = "a"):
    return reservation.reserve(key, REQUEST, ME, is_alive, 1.0)


async def test_job_outlives_its_store(tmp_path: Path) -> None:
    """A job outlives the store object, with every field."""
    path = tmp_path / "jobs.sqlite"
    store = SQLiteStore(path)
    await store.change("a", reserve())
    await store.change("a", transitions.sending(ME, 2.0, 50.0), durable=True)
    task = TaskRef("sonic", "task-1", "create_music", 3.0, "sonic-v6")
    lost = Job(key="a", state="sent", request=REQUEST, created_at=0, updated_at=0)
    written = await store.change(
        "a", transitions.accepted(lost, (JobTask(ref=task),), '{"task_id":"task-1"}', 3.0), durable=True
    )
    await store.aclose()
    reopened = SQLiteStore(path)
    assert await reopened.get("a") == written
    assert await reopened.find("sonic", "task-1") == [written]
    assert await reopened.jobs("accepted") == [written]
    assert await reopened.jobs("ambiguous", "sent") == []
    await reopened.aclose()
    assert os.listdir(tmp_path) == ["jobs.sqlite"]


async def test_unknown_key_and_task_are_nothing(store: SQLiteStore) -> None:
    """A job that was never stored is not found."""
    assert await store.get("nothing") is None
    assert await store.find("sonic", "nothing") == []
    assert await store.jobs() == []


def test_one_store_serves_one_loop_after_the_other(tmp_path: Path) -> None:
    """The store is bound to no loop, and closing it does not end it."""
    store = SQLiteStore(tmp_path / "jobs.sqlite")
    asyncio.run(store.change("a", reserve("a")))
    asyncio.run(store.aclose())
    asyncio.run(store.change("b", reserve("b")))
    assert [job.key for job in asyncio.run(store.jobs())] == ["a", "b"]
    asyncio.run(store.aclose())


def test_loops_in_many_threads_share_one_store(tmp_path: Path) -> None:
    """Every change of every thread is stored."""
    store = SQLiteStore(tmp_path / "jobs.sqlite")

    async def write(name: str) -> None:
        await asyncio.gather(*(store.change(f"{name}-{i}", reserve(f"{name}-{i}")) for i in range(20)))

    threads = [threading.Thread(target=asyncio.run, args=(write(str(n)),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asyncio.run(store.jobs())) == 80
    asyncio.run(store.aclose())


async def test_step_that_raises_changes_nothing(store: SQLiteStore) -> None:
    """An error inside a change rolls it back and leaves the store usable."""
    await store.change("a", reserve())

    def step(job: Job | None) -> Job | None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await store.change("a", step)
    job = await store.get("a")
    assert job is not None
    assert job.state == "reserved"
    await store.change("a", lambda _job: None)
    assert await store.get("a") is None


async def test_cancelled_change_is_still_carried_out(tmp_path: Path) -> None:
    """A cancelled caller never leaves a change half done."""
    store = SQLiteStore(tmp_path / "jobs.sqlite")
    change = asyncio.ensure_future(store.change("a", reserve(), durable=True))
    await asyncio.sleep(0)
    change.cancel()
    with pytest.raises(asyncio.CancelledError):
        await change
    assert await store.get("a") is not None
    await store.aclose()


async def test_file_that_comes_back_is_used(tmp_path: Path) -> None:
    """A moved file is refused, as writes into it would be lost, and used once it has its name back."""
    path = tmp_path / "jobs.sqlite"
    store = SQLiteStore(path)
    await store.change("a", reserve())
    path.rename(tmp_path / "moved.sqlite")
    with pytest.raises(JobStoreError, match="removed or replaced"):
        await store.change("b", reserve("b"))
    (tmp_path / "moved.sqlite").rename(path)
    assert [job.key for job in await store.jobs()] == ["a"]
    await store.aclose()


async def test_folder_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    """A path that cannot exist is an error that names it."""
    (tmp_path / "file").write_text("")
    store = SQLiteStore(tmp_path / "file" / "jobs.sqlite")
    with pytest.raises(JobStoreError, match=r"jobs\.sqlite"):
        await store.get("a")
    await store.aclose()


FORKED = """
import asyncio, os, sys
from musicapi_async.jobs import JobRequest, Owner, SQLiteStore, reservation
store = SQLiteStore(sys.argv[1])
request, me = JobRequest("POST /sonic/create", "http://host", "{}"), Owner("h", "b", 1, "1", "n")
def reserve(key):
    asyncio.run(store.change(key, reservation.reserve(key, request, me, lambda h: True, 1.0), durable=True))
reserve("parent")
(written, writing), (closed, closing) = os.pipe(), os.pipe()
if os.fork() == 0:
    try:
        reserve("before")
        os.write(writing, b"+")
        os.read(closed, 1)
        reserve("after")
        asyncio.run(store.aclose())
    finally:
        os._exit(0)
os.read(written, 1)
asyncio.run(store.aclose())
os.write(closing, b"+")
os.wait()
print(*sorted(job.key for job in asyncio.run(store.jobs())))
asyncio.run(store.aclose())
"""


async def test_child_has_locks_of_its_own(tmp_path: Path) -> None:
    """Its parent, which is the first to close the store, does not take the log away from it."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "always::ResourceWarning", "-c", FORKED, str(tmp_path / "jobs.sqlite")],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, "after before parent\n"), done.stderr
    assert "unclosed database" not in done.stderr


LIMITED = """
import asyncio, os, resource, sys
from musicapi_async.errors import JobStoreError
from musicapi_async.jobs import SQLiteStore, JobRequest, reservation, transitions, Owner
path, mode = sys.argv[1:]
if mode == "read-only":
    if os.geteuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
store = SQLiteStore(path)
me = Owner("h", "b", 1, "1", "n")
async def main():
    for index in range(5000):
        key = f"key-{index}"
        request = JobRequest("POST /sonic/create", "http://host", '"' + "x" * 500 + '"')
        await store.change(key, reservation.reserve(key, request, me, lambda h: True, 1.0), durable=True)
        print("stored", key, flush=True)
try:
    asyncio.run(main())
except JobStoreError as error:
    print("error", error)
"""


async def test_full_disk_is_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    """Where the file may not grow, the change fails, and all that was reported as stored is there."""
    path = tmp_path / "jobs.sqlite"
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", LIMITED, str(path), "full"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ended.stdout.splitlines()
    assert lines[-1].startswith("error")
    assert str(path) in lines[-1]
    stored = [line.split()[1] for line in lines if line.startswith("stored")]
    assert stored
    store = SQLiteStore(path)
    assert {job.key for job in await store.jobs()} >= set(stored)
    await store.aclose()


LISTING = """
import asyncio, os, sys
from musicapi_async.cli.commands import musicapi
def run(*arguments):
    try:
        musicapi.main(arguments, prog_name="musicapi")
    except SystemExit as end:
        return end.code
for path in sys.argv[1:3]:  # so that all is imported that another user may not read
    run("--text", "jobs", "list", path)
print("read-only", flush=True)
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(run("--text", "jobs", "list", sys.argv[3]))
print(run("--text", "jobs", "list", sys.argv[3], "--state", "ambiguous"))
print(run("--text", "jobs", "purge", sys.argv[3], "--older-than", "1d", "--yes"))
"""


async def test_jobs_are_listed_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Also one whose process died while it sent the call: that it is ambiguous need not be written first."""
    folder = tmp_path / "locked"
    store, other = SQLiteStore(folder / "jobs.sqlite"), SQLiteStore(tmp_path / "other.sqlite")
    dead = msgspec.structs.replace(owner.this_process("nonce"), pid=2**22 + 1)
    for one in (store, other):
        await one.change("done", reserve("done"))
        await one.change("sent", reservation.reserve("sent", REQUEST, dead, is_alive, 2.0))
        await one.change("sent", transitions.sending(dead, 3.0))
        await one.aclose()
    damaged = tmp_path / "damaged.sqlite"
    damaged.touch()
    with read_only(folder):
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", LISTING, str(other.path), str(damaged), str(store.path)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
    listed = ended.stdout.partition("read-only\n")[2].splitlines()
    assert [line.split() for line in listed if "reserved" in line or "ambiguous" in line] == [
        ["reserved", "done"],
        ["ambiguous", "sent"],
        ["ambiguous", "sent"],
    ]
    assert "must be writable" in ended.stderr
    assert sorted(os.listdir(folder)) == ["jobs.sqlite"]


@contextlib.contextmanager
def read_only(folder: Path) -> Generator[None]:
    """A folder, and the files in it, in which nobody may write; any user may come to it."""
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    for parent in folder.parents[:4]:
        if parent.stat().st_uid == os.getuid() and parent != Path("/tmp"):
            parent.chmod(0o755)
    try:
        yield
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("there", [False, True])
async def test_read_only_folder_is_a_clear_error(tmp_path: Path, there: bool) -> None:
    """Without the right to write, nothing is reserved, and the error names the file."""
    folder = tmp_path / "locked"
    folder.mkdir()
    path = folder / "jobs.sqlite"
    if there:
        store = SQLiteStore(path)
        await store.change("a", reserve())
        await store.aclose()
    with read_only(folder):
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", LIMITED, str(path), "read-only"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
    assert "stored" not in ended.stdout
    assert ended.stdout.startswith("error")
    assert str(path) in ended.stdout
