"""Batches carried out by workers: real processes, a real database, real time; every song once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import mutagen
import psycopg
import pytest
from forked import Piped
from patience import PATIENCE, until
from postgres_server import PASSWORD, PostgresServer
from report_pages import overview, songs
from small_batches import rows
from worker_process import ACCOUNT, Hasty, RunningWorker, WorkerSettings

from musicapi_async import (
    Clock,
    FolderError,
    JobKeyConflictError,
    JobStoreError,
    MusicAPI,
    Rate,
    RequestValidationError,
    SQLiteStore,
)
from musicapi_async.files import BeingWrittenError, replacing, write_whole
from musicapi_async.jobs import Job
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.workflows import Manifest, plan_batch, run_batch, workers, write_report
from musicapi_async.workflows.row_queue import Presence

SPEED = 60.0


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A sandbox in which a slot of the documented rate takes 50 ms, and a song two seconds."""
    async with Sandbox(speed=SPEED, credits=1e6, longest=1) as sandbox:
        yield sandbox


def client_of(sandbox: Sandbox, address: str, **options: Any) -> MusicAPI:
    """A client of one machine."""
    return MusicAPI(
        sandbox.api_key,
        base_url=sandbox.base_url,
        clock=Clock(sandbox.clock.speed),
        **{"store": Hasty(address), "account": ACCOUNT, **options},
    )


@pytest.fixture
async def client(sandbox: Sandbox, address: str) -> AsyncGenerator[MusicAPI]:
    """The client that queues and reports; and it works, where a test needs one worker only."""
    async with client_of(sandbox, address) as client:
        yield client


def songs_made(sandbox: Sandbox) -> Counter[str]:
    """How often each song was created, by title."""
    bodies = [entry.body for entry in sandbox.journal.creates if entry.raw and "/create" in entry.path]
    return Counter(str(body["title"]) for body in bodies if isinstance(body, dict))


def hold_songs(sandbox: Sandbox) -> None:
    """Let no song that was submitted end until `sandbox.faults.clear()`."""
    sandbox.faults.on("GET", "/sonic/task/*", Fault.status(503), times=None)


def is_polled(sandbox: Sandbox, title: str) -> bool:
    """The song was created, and its worker has stored that."""
    polled = {entry.path.rpartition("/")[2] for entry in sandbox.journal.polls}
    creates = [entry for entry in sandbox.journal.creates if entry.task_id in polled]
    return any(isinstance(entry.body, dict) and entry.body["title"] == title for entry in creates)


async def is_empty(client: MusicAPI) -> bool:
    """No row is queued or under way."""
    assert isinstance(client.store, Hasty)
    return await client.store.work(_has_no_row)


def _has_no_row(connection: psycopg.Connection[Any]) -> bool:
    return connection.execute("SELECT FROM musicapi.procrastinate_jobs").fetchone() is None


@asynccontextmanager
async def working(client: MusicAPI) -> AsyncGenerator[list[workers.RowEnd]]:
    """A worker in this process, with the ends of its rows."""
    ends: list[workers.RowEnd] = []
    stop = asyncio.Event()
    worker = asyncio.ensure_future(workers.run_worker(client, stop=stop, on_row=ends.append))
    try:
        yield ends
    finally:
        stop.set()
        await worker


async def carry_out(client: MusicAPI) -> list[workers.RowEnd]:
    """Work until nothing is queued."""
    async with working(client) as ends:
        await until(lambda: is_empty(client), every=0.05)
    return ends


# --- many machines ------------------------------------------------------------------------------------------


async def test_twenty_songs_by_three_machines_one_of_which_vanishes(
    sandbox: Sandbox, client: MusicAPI, address: str, tmp_path: Path
) -> None:
    """Queued here, carried out by three workers, one killed in the middle: every song is made once and is there,
    as a fourth machine reports."""
    manifest = Manifest.of(rows(20))
    out = tmp_path / "out"
    queued = await workers.put_batch(client, manifest, out=out, waveforms=False)
    assert (queued.songs, queued.queued) == (20, 20)
    assert isinstance(client.store, Hasty)
    await client.store.set_rate(ACCOUNT, Rate.parse("1/24h"))  # until each worker has rows
    hold_songs(sandbox)
    running = [
        RunningWorker(
            WorkerSettings(
                sandbox.base_url, sandbox.api_key, SPEED, address, f"machine-{n}", f"{tmp_path}/{n}.log"
            )
        )
        for n in range(3)
    ]

    async def all_have_rows() -> bool:
        found = (await workers.worker_state(client)).queue.workers
        return len([worker for worker in found if worker.rows]) == 3

    await until(all_have_rows, every=0.1)
    await client.store.set_rate(ACCOUNT, Rate.parse("1/3s"))
    await until(lambda: len(songs_made(sandbox)) >= 7)
    running[0].kill()
    assert await running[0].ended() == -signal.SIGKILL
    before = (await workers.worker_state(client)).queue
    assert sum(worker.rows for worker in before.workers) > 0
    sandbox.faults.clear()
    await until(lambda: is_empty(client), every=0.1)
    results = [await worker.stopped() for worker in running[1:]]
    assert all(result["done"] > 0 for result in results), results
    async with client_of(sandbox, address) as elsewhere:
        result = await workers.report_batch(elsewhere, out=out)
        assert result.failed == 0
        assert not result.unfinished
        for key in result.unknown:  # the kill met a call between its being sent and its answer
            arrived = [entry for entry in sandbox.journal.creates if entry.raw and _is_of(entry.body, key)]
            if arrived:
                await elsewhere.resolve(key, task_id=arrived[0].task_id)
            else:
                await elsewhere.resubmit(key)
        await workers.put_batch(elsewhere, manifest, out=out, waveforms=False)
        await carry_out(elsewhere)
        result = await workers.report_batch(elsewhere, out=out)
        jobs = await elsewhere.jobs()
    assert (result.done, result.failed, result.complete) == (20, 0, True)
    assert set(songs_made(sandbox).values()) == {1}
    assert len(songs_made(sandbox)) == 20
    assert sandbox.journal.charged_twice() == []
    assert Counter(job.state for job in jobs) == {"finished": 20}
    assert len(list(out.glob("*.mp3"))) == 40
    assert list(out.rglob("*.part")) == []
    assert "20 songs 20 done 40 takes" in overview(result.report)
    assert (out / "20 Song 19 (take 2).mp3").is_file()


def _is_of(body: object, key: str) -> bool:
    return isinstance(body, dict) and str(body["title"]) == f"Song {key.split('/')[1].removeprefix('s')}"


async def test_heartbeat_does_not_wait_for_jobs(client: MusicAPI, server: PostgresServer) -> None:
    """Else the rows of a worker with much to store, or with a distant database, would be taken over."""
    is_stored = threading.Event()

    def slow(job: Job | None) -> Job | None:
        is_stored.wait(PATIENCE)
        return job

    heartbeats: set[object] = set()

    def is_alive() -> bool:
        heartbeats.update(server.execute("SELECT last_heartbeat FROM musicapi.procrastinate_workers"))
        return len(heartbeats) > 2

    await workers.worker_state(client)  # which makes the tables
    async with working(client):
        await until(lambda: is_alive() or heartbeats, every=0.1)
        assert client.store is not None
        storing = asyncio.ensure_future(client.store.change("k", slow))
        try:
            await until(is_alive, every=0.1)
            assert not storing.done()
        finally:
            is_stored.set()
            await storing


async def test_call_of_a_machine_that_vanished_while_it_was_sent_is_listed(
    sandbox: Sandbox, client: MusicAPI, address: str, tmp_path: Path
) -> None:
    """Its row is taken over, its call is of unknown outcome, and nothing is sent again until that is decided."""
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(600.0).once_taken())
    manifest = Manifest.of(rows(1))
    out = tmp_path / "out"
    await workers.put_batch(client, manifest, out=out, waveforms=False)
    gone = RunningWorker(
        WorkerSettings(sandbox.base_url, sandbox.api_key, SPEED, address, "gone", f"{tmp_path}/gone.log")
    )
    await until(lambda: sandbox.journal.charges)
    gone.kill()
    (end,) = await carry_out(client)
    assert end.state == "unknown"
    result = await workers.report_batch(client, out=out)
    ((key, why),) = result.unknown.items()
    assert "unknown" in why
    assert [song["state"] for song in songs(result.report)] == ["unknown"]
    store = address.replace(f":{PASSWORD}", "")
    assert f"musicapi jobs resolve {store} {key} " in overview(result.report)
    assert (await workers.put_batch(client, manifest, out=out, waveforms=False)).queued == 1
    (end,) = await carry_out(client)
    assert end.state == "unknown"
    assert songs_made(sandbox) == {"Song 0": 1}
    await client.resolve(key, task_id=sandbox.journal.creates[0].task_id)
    result = await workers.report_batch(client, out=out)
    assert (result.unknown, list(result.unfinished)) == ({}, ["s0"])
    await workers.put_batch(client, manifest, out=out, waveforms=False)
    (end,) = await carry_out(client)
    assert end.state == "done"
    assert songs_made(sandbox) == {"Song 0": 1}


async def test_worker_that_ends_gives_its_songs_back(
    sandbox: Sandbox, client: MusicAPI, address: str, tmp_path: Path
) -> None:
    """In the middle of calls and of waits: another one continues at once, and pays for nothing again."""
    manifest = Manifest.of(rows(8))
    await workers.put_batch(client, manifest, out=tmp_path / "out", waveforms=False)
    async with working(client) as ends:
        await until(lambda: len(songs_made(sandbox)) >= 3)
    queue = (await workers.worker_state(client)).queue
    assert (queue.queued, queue.running, queue.workers) == (8 - len(ends), 0, [])
    async with client_of(sandbox, address) as other:
        await carry_out(other)
        result = await workers.report_batch(other, out=tmp_path / "out")
    assert (result.done, result.complete) == (8, True)
    assert songs_made(sandbox) == {f"Song {n}": 1 for n in range(8)}


async def test_database_that_restarts_ends_no_worker(
    sandbox: Sandbox,
    client: MusicAPI,
    server: PostgresServer,
    address: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is away for longer than the lease before the first heartbeat, its connections are cut, and its tables
    fail for a moment: the rows come to their end, and no worker takes those of another one, which has lived all
    the time."""
    manifest = Manifest.of(rows(12))
    await workers.put_batch(client, manifest, out=tmp_path / "out", waveforms=False)
    async with client_of(sandbox, address) as other, working(client) as ends, working(other) as ends_of_other:
        await until(lambda: len(songs_made(sandbox)) >= 2)
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(1.5 * Hasty.lease)
        server.start()  # in this thread: the server ends with the one that started it
        await until(lambda: len(songs_made(sandbox)) >= 5)
        await asyncio.to_thread(server.cut_connections)
        await until(lambda: len(songs_made(sandbox)) >= 7)
        for table in ("jobs", "workers"):
            server.execute(f"ALTER TABLE musicapi.procrastinate_{table} RENAME TO away")
            await asyncio.sleep(0.8 * Hasty.lease)  # fetches, ends and heartbeats fail
            server.execute(f"ALTER TABLE musicapi.away RENAME TO procrastinate_{table}")
        await until(lambda: len(ends) + len(ends_of_other) >= 12)
        await until(lambda: is_empty(client), every=0.05)
    assert "of workers that are gone" not in caplog.text
    assert "the queue of rows does not answer" in caplog.text
    result = await workers.report_batch(client, out=tmp_path / "out")
    assert (result.done, result.complete) == (12, True)
    assert songs_made(sandbox) == {f"Song {n}": 1 for n in range(12)}


def test_workers_are_taken_for_dead_only_after_a_time_without_a_gap() -> None:
    """A database that was away, a process that has slept and a clock that was set, each leave no one a sign."""
    presence = Presence(5.0, 0.0)
    presence.answered(100.0, 1000.0)
    assert presence.seconds(100.0) == 0
    presence = Presence(5.0, 95.0)
    presence.answered(100.0, 1000.0)
    presence.answered(105.0, 1005.5)
    assert presence.seconds(105.0) > 1000
    for now, server in ((110.0, 4610.0), (115.0, 1015.0)):  # an hour forward, and back
        presence.answered(now, server)
        assert presence.seconds(now) == 0
    presence.answered(120.0, 1020.0)
    assert presence.seconds(120.0) == 5
    presence.answered(140.0, 1040.0)
    assert presence.seconds(141.0) == 1
    presence.was_away(142.0)
    presence.answered(145.0, 1045.0)
    assert presence.seconds(145.0) == 3


async def test_worker_taken_for_dead_neither_ends_nor_takes_rows_of_others(
    sandbox: Sandbox, client: MusicAPI, server: PostgresServer, tmp_path: Path
) -> None:
    """It is registered again by its next heartbeat; its row, which another one has by then, stays that one's."""
    await workers.put_batch(client, Manifest.of(rows(1)), out=tmp_path / "out", waveforms=False)
    hold_songs(sandbox)
    async with working(client) as ends:
        await until(lambda: songs_made(sandbox))
        ((other,),) = server.execute(
            "INSERT INTO musicapi.procrastinate_workers (last_heartbeat) VALUES ('infinity') RETURNING id"
        )
        server.execute(f"UPDATE musicapi.procrastinate_jobs SET worker_id = {other}")
        server.execute(f"DELETE FROM musicapi.procrastinate_workers WHERE id <> {other}")
        sandbox.faults.clear()
        await until(lambda: ends)
        rows_of_other = server.execute("SELECT status::text, worker_id FROM musicapi.procrastinate_jobs")
        assert rows_of_other == [("doing", other)]
        server.execute(f"DELETE FROM musicapi.procrastinate_workers WHERE id = {other}")
        await until(lambda: is_empty(client), every=0.1)  # its lease ends, and the first worker has it again
    assert [end.state for end in ends] == ["done", "done"]
    assert songs_made(sandbox) == {"Song 0": 1}


async def test_row_that_is_taken_twice_by_mistake_is_paid_for_once(
    sandbox: Sandbox, client: MusicAPI, server: PostgresServer, address: str, tmp_path: Path
) -> None:
    """The second take finds the call of the first in the store, whichever worker has it. If both write a file in
    the same moment, one does; neither takes that for a broken disk and ends."""
    table = "musicapi.procrastinate_jobs"
    await workers.put_batch(client, Manifest.of(rows(1)), out=tmp_path / "out", waveforms=False)
    hold_songs(sandbox)
    async with client_of(sandbox, address) as other, working(client) as ends, working(other) as ends_of_other:
        await until(lambda: songs_made(sandbox))
        server.execute(f"SET search_path TO musicapi; UPDATE {table} SET status = 'todo'")
        await until(lambda: server.execute(f"SELECT 1 FROM {table} WHERE status = 'doing'"), every=0.05)
        sandbox.faults.clear()
        await until(lambda: is_empty(client), every=0.05)
        await until(lambda: len(ends) + len(ends_of_other) >= 2)
    both = [*ends, *ends_of_other]
    assert any(end.state == "done" for end in both), both
    assert all(end.state == "done" or "another process" in end.why for end in both), both
    assert len(list((tmp_path / "out").glob("*.mp3"))) == 2
    assert songs_made(sandbox) == {"Song 0": 1}


def test_file_that_two_processes_write_is_that_of_one(tmp_path: Path) -> None:
    """The other one is told apart from a disk that refuses: a worker need not end for it."""
    path = tmp_path / "song.json"

    def write(other: Callable[[], object]) -> None:
        with replacing(path) as file:
            other()
            file.write(b"second")

    def begin() -> None:
        path.with_name("song.json.part").unlink()
        path.with_name("song.json.part").write_bytes(b"of another one")

    for other in (lambda: write_whole(path, b"whole"), begin):
        with pytest.raises(BeingWrittenError, match="another process"):
            write(other)
        assert path.read_bytes() == b"whole"


# --- the ends of rows and workers ---------------------------------------------------------------------------


async def test_songs_with_steps_and_failures(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A song that failed is reported, and sent once more only on request."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    manifest = Manifest.of(rows(3, steps=["wav"]))
    out = tmp_path / "out"
    await workers.put_batch(client, manifest, out=out, waveforms=False)
    ends = await carry_out(client)
    assert Counter(end.state for end in ends) == {"done": 2, "failed": 1}
    assert all(client.task(end.token).task_id for end in ends)
    result = await workers.report_batch(client, out=out)
    assert (result.done, result.failed, result.complete) == (2, 1, True)
    assert "retry_failed" in result.hint
    again = await workers.put_batch(client, manifest, out=out, waveforms=False)
    assert (again.queued, again.settled) == (0, 3)
    await workers.put_batch(client, manifest, out=out, waveforms=False, retry_failed=True)
    result = await workers.report_batch(client, out=out)
    assert (result.done, result.failed, list(result.unfinished.values())) == (2, 0, ["queued"])
    (end,) = await carry_out(client)
    assert end.state == "done"
    result = await workers.report_batch(client, out=out)
    assert (result.done, result.failed) == (3, 0)
    assert len(list((out / "wav").glob("*.wav"))) == 6


async def test_failed_song_is_sent_again_once_whichever_worker_does(
    sandbox: Sandbox, client: MusicAPI, server: PostgresServer, tmp_path: Path
) -> None:
    """Also after a worker had the row that gave it back; not once more after the one that has sent it is gone."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail(), times=None)
    manifest = Manifest.of(rows(1))
    await workers.put_batch(client, manifest, out=tmp_path / "out", waveforms=False)
    assert [end.state for end in await carry_out(client)] == ["failed"]
    await workers.put_batch(client, manifest, out=tmp_path / "out", waveforms=False, retry_failed=True)
    server.execute("UPDATE musicapi.procrastinate_jobs SET attempts = 1")
    server.execute("CREATE TABLE musicapi.copied AS SELECT * FROM musicapi.procrastinate_jobs")
    assert [end.state for end in await carry_out(client)] == ["failed"]
    assert len(sandbox.journal.creates) == 2
    server.execute(
        "SET search_path TO musicapi; "
        "INSERT INTO musicapi.procrastinate_jobs (queue_name, task_name, priority, lock, args, attempts) "
        "SELECT queue_name, task_name, 1, lock, args, 2 FROM musicapi.copied"
    )
    assert [end.state for end in await carry_out(client)] == ["failed"]
    assert len(sandbox.journal.creates) == 2


async def test_names_and_tags_are_those_of_the_batch(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Each file has the number of its row in the whole manifest; songs that are queued later have the same names."""
    out = tmp_path / "out"
    manifest = Manifest.of(rows(2))
    await workers.put_batch(
        client, manifest, out=out, name="{id} {number} {take}", tags=True, waveforms=False
    )
    with pytest.raises(FolderError, match="chosen by the first run"):
        await workers.put_batch(client, manifest, out=out, name="{id} {take}")
    await carry_out(client)
    await workers.put_batch(client, Manifest.of(rows(3)), out=out, tags=False, waveforms=False)
    await carry_out(client)
    names = [f"s{n} 0{n + 1} {take}.mp3" for n in range(3) for take in (1, 2)]
    assert sorted(path.name for path in out.glob("*.mp3")) == names
    tags = [mutagen.File(out / name, easy=True).tags or {} for name in names]
    assert [found.get("tracknumber") for found in tags] == [["1"], ["1"], ["2"], ["2"], None, None]
    assert tags[0]["album"] == ["out"]


async def test_page_says_how_far_the_workers_are(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """With the database where each song is; without it, what is in the folder."""
    out = tmp_path / "out"
    await workers.put_batch(client, Manifest.of(rows(4)), out=out, waveforms=False)
    hold_songs(sandbox)
    async with working(client):
        await until(lambda: is_polled(sandbox, "Song 0"))
        result = await workers.report_batch(client, out=out, to=tmp_path / "page.html")
    states = [song["state"] for song in songs(result.report)]
    assert set(states) <= {"queued", "submitting", "running", "fetching", "done"}
    assert states[0] in ("running", "fetching", "done")
    assert len(result.unfinished) == 4 - result.done
    assert await workers.withdraw_batch(client, out=out) > 0
    result = await workers.report_batch(client, out=out)
    last = songs(result.report)[-1]
    assert last["state"] == "unfinished"
    assert "queue the batch again" in last["note"]
    assert f"--out {out} --workers" in overview(result.report)
    assert [song["state"] for song in songs(await write_report(out))][-1] == "queued"


async def test_worker_that_is_stopped_at_once_ends(client: MusicAPI) -> None:
    """Before it has fetched anything, also while it still connects."""
    stop = asyncio.Event()
    stop.set()
    assert await workers.run_worker(client, stop=stop) == workers.WorkerResult()


async def test_creates_that_have_left_do_not_wait_for_the_rate(
    client: MusicAPI, server: PostgresServer
) -> None:
    """Their rows remain for a moment, and are not counted by the state."""
    await workers.worker_state(client)
    server.execute("INSERT INTO musicapi.owners (owner) VALUES ('o')")
    for number, is_passed in enumerate((True, False, True)):
        server.execute(
            "INSERT INTO musicapi.queue (ticket, account, lane, owner, is_passed) "
            f"VALUES ('t{number}', '{ACCOUNT}', 'submit', 'o', {is_passed})"
        )
    assert (await workers.worker_state(client)).usage.waiting == 1


async def test_two_batches_with_the_same_ids_are_two(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Their jobs are in one store, and each folder has its songs."""
    manifest = Manifest.of(rows(2))
    for name in ("one", "two"):
        await workers.put_batch(client, manifest, out=tmp_path / name, waveforms=False)
    ends = await carry_out(client)
    assert Counter(Path(end.out).name for end in ends) == {"one": 2, "two": 2}
    assert songs_made(sandbox) == {"Song 0": 2, "Song 1": 2}


async def test_song_that_cannot_be_fetched_is_tried_again_later(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """It goes back into the queue with a pause, the report says why, and withdrawing removes it."""
    sandbox.faults.on("GET", "*.mp3", Fault.status(404), times=None)
    manifest = Manifest.of(rows(1))
    out = tmp_path / "out"
    await workers.put_batch(client, manifest, out=out, waveforms=False)

    async def is_later() -> bool:
        queue = (await workers.worker_state(client)).queue
        return (queue.queued, queue.later) == (0, 1)

    async with working(client) as ends:
        await until(is_later)
    assert ends[0].state == "later"
    result = await workers.report_batch(client, out=out)
    assert "404" in result.unfinished["s0"]
    assert await workers.withdraw_batch(client, out=out) == 1
    assert await is_empty(client)
    result = await workers.report_batch(client, out=out)
    assert "404" in result.unfinished["s0"]
    sandbox.faults.clear()
    await workers.put_batch(client, manifest, out=out, waveforms=False)
    (end,) = await carry_out(client)
    assert end.state == "done"
    assert songs_made(sandbox) == {"Song 0": 1}


async def test_worker_without_credits_ends_and_leaves_the_rows(address: str, tmp_path: Path) -> None:
    """Every further create would be refused: the rows stay queued, and a refilled account continues."""
    async with Sandbox(speed=SPEED, credits=25, longest=1) as sandbox, client_of(sandbox, address) as client:
        manifest = Manifest.of(rows(4))
        await workers.put_batch(client, manifest, out=tmp_path / "out", waveforms=False)
        async with asyncio.timeout(60):
            ended = await workers.run_worker(client)
        assert "credits" in ended.halted
        assert not ended.disk_failed
        queue = (await workers.worker_state(client)).queue
        made = sum(entry.charge > 0 for entry in sandbox.journal.creates)
        assert 0 < made < 4
        assert queue.queued == 4 - ended.done
        assert queue.running == 0


async def test_machine_without_the_folder_ends_and_leaves_the_rows(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """It would store the songs where no one finds them: it says which folder is not there, and sends nothing."""
    out = tmp_path / "out"
    await workers.put_batch(client, Manifest.of(rows(2)), out=out)
    out.rename(tmp_path / "elsewhere")
    async with asyncio.timeout(60):
        ended = await workers.run_worker(client)
    assert str(out) in ended.halted
    assert ended.disk_failed
    assert not out.exists()
    assert (await workers.worker_state(client)).queue.queued == 2
    assert await workers.withdraw_batch(client, out=out) == 2
    assert not sandbox.journal.creates


# --- what is refused ----------------------------------------------------------------------------------------


async def test_batch_that_workers_cannot_carry_out_is_refused(
    sandbox: Sandbox, client: MusicAPI, address: str, tmp_path: Path
) -> None:
    """Nothing is queued for a store of one machine, local files, secrets, or a folder with jobs of its own."""
    store = SQLiteStore(tmp_path / "jobs.sqlite")
    async with client_of(sandbox, address, store=store) as alone:
        with pytest.raises(RequestValidationError, match="PostgresStore"):
            await workers.put_batch(alone, Manifest.of(rows(1)), out=tmp_path / "a")
        with pytest.raises(RequestValidationError, match="PostgresStore"):
            await workers.run_worker(alone)
    secret = Manifest.of(rows(1, webhook_url="https://example.org/hook", webhook_secret="0123456789abcdef"))
    with pytest.raises(RequestValidationError, match="webhook_secret would be stored"):
        await workers.put_batch(client, secret, out=tmp_path / "a")
    (tmp_path / "one.mp3").write_bytes(b"ID3")
    local = [
        {
            "operation": "sonic.upload_cover",
            "url": tmp_path / "one.mp3",
            "mv": "sonic-v6",
            "prompt": "[Verse]",
        }
    ]
    with pytest.raises(RequestValidationError, match="public link"):
        await workers.put_batch(client, Manifest.of(local), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    await run_batch(client, Manifest.of(rows(1)), out=tmp_path / "b", waveforms=False)
    with pytest.raises(FolderError, match="in the folder"):
        await workers.put_batch(client, Manifest.of(rows(1)), out=tmp_path / "b")
    with pytest.raises(FolderError, match="no batch"):
        await workers.report_batch(client, out=tmp_path / "b")
    await workers.put_batch(client, Manifest.of(rows(1)), out=tmp_path / "c")
    (tmp_path / "c/.musicapi/workers.json").unlink()
    with pytest.raises(FolderError, match="is gone"):  # no one knows what was paid for
        await workers.put_batch(client, Manifest.of(rows(1)), out=tmp_path / "c")


async def test_folder_of_workers_is_refused_to_one_process(client: MusicAPI, tmp_path: Path) -> None:
    """Its jobs are in the database: a run without workers would pay for all songs again."""
    await workers.put_batch(client, Manifest.of(rows(1)), out=tmp_path / "out")
    with pytest.raises(FolderError, match="carried out by workers"):
        await run_batch(client, Manifest.of(rows(1)), out=tmp_path / "out")
    with pytest.raises(FolderError, match="carried out by workers"):
        await plan_batch(Manifest.of(rows(1)), tmp_path / "out")


async def test_changed_song_is_refused(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """One that was sent before with other fields is not queued."""
    out = tmp_path / "out"
    sandbox.faults.on("GET", "*.mp3", Fault.status(404), times=None)
    await workers.put_batch(client, Manifest.of(rows(1)), out=out, waveforms=False)
    async with working(client) as ends:
        await until(lambda: ends)
    with pytest.raises(JobKeyConflictError, match="title"):
        await workers.put_batch(client, Manifest.of(rows(1) and [{**rows(1)[0], "title": "Other"}]), out=out)


async def test_another_database_is_refused(
    sandbox: Sandbox, client: MusicAPI, server: PostgresServer, address: str, tmp_path: Path
) -> None:
    """The folder remembers the database that has its jobs, also for a new process."""
    out = tmp_path / "out"
    await workers.put_batch(client, Manifest.of(rows(1)), out=out)
    server.empty()
    async with client_of(sandbox, address) as new:
        with pytest.raises(FolderError, match="is another one"):
            await workers.put_batch(new, Manifest.of(rows(1)), out=out)
        with pytest.raises(FolderError, match="is another one"):
            await workers.report_batch(new, out=out)


async def test_tables_of_a_newer_engine_are_refused(
    sandbox: Sandbox, client: MusicAPI, server: PostgresServer, address: str
) -> None:
    """Workers with different versions of it say so; an older database is brought up to date."""
    await workers.worker_state(client)
    (((newest),),) = server.execute("SELECT obj_description('musicapi.procrastinate_jobs'::regclass)")
    server.execute("COMMENT ON TABLE musicapi.procrastinate_jobs IS '99_01_pre_far_away.sql'")
    with pytest.raises(JobStoreError, match="99_01_pre"):
        await workers.worker_state(client)
    server.execute("DROP FUNCTION musicapi.procrastinate_trigger_function_status_events_update_v1 CASCADE")
    server.execute("COMMENT ON TABLE musicapi.procrastinate_jobs IS '03.04.00_01_pre_retry.sql'")
    await workers.worker_state(client)
    assert server.execute("SELECT obj_description('musicapi.procrastinate_jobs'::regclass)") == [(newest,)]
    name = "procrastinate_trigger_function_status_events_update_v1"
    assert server.execute(f"SELECT to_regproc('musicapi.{name}') IS NOT NULL") == [(True,)]


async def test_queue_of_an_application_is_left_alone(client: MusicAPI, server: PostgresServer) -> None:
    """Its tables may have the same names in another schema, first in its search path."""
    server.execute("CREATE TABLE IF NOT EXISTS public.procrastinate_jobs (id int)")
    try:
        await workers.worker_state(client)
        with psycopg.connect(server.address()) as connection:
            found = connection.execute(
                "SELECT table_schema FROM information_schema.tables WHERE table_name = 'procrastinate_jobs'"
            )
            assert sorted(found.fetchall()) == [("musicapi",), ("public",)]
    finally:
        server.execute("DROP TABLE public.procrastinate_jobs")


# --- the command --------------------------------------------------------------------------------------------


async def test_batch_by_commands(
    sandbox: Sandbox, server: PostgresServer, address: str, tmp_path: Path
) -> None:
    """Queued by one command, carried out by two workers, one of which ends early, and reported by another."""
    (tmp_path / "songs.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, rows(6))))
    settings = {name: value for name, value in os.environ.items() if not name.startswith("MUSICAPI")}
    settings |= {
        "MUSICAPI_BASE_URL": sandbox.base_url,
        "MUSICAPI_KEY": sandbox.api_key,
        "MUSICAPI_CLOCK_SPEED": f"{SPEED:g}",
        "MUSICAPI_STORE": address.replace(f":{PASSWORD}", ""),
        "PGPASSWORD": PASSWORD,
    }

    async def start(*args: str) -> Piped:
        command = ("--text", *args)
        return await Piped.started("musicapi_async.cli:main", *command, environment=settings, folder=tmp_path)

    async def run(*args: str, code: int = 0) -> str:
        process = await start(*args)
        out, err = await process.communicate()
        assert process.returncode == code, err.decode()
        return out.decode() + err.decode()

    queue = ("batch", "run", "songs.jsonl", "--out", "out", "--workers")
    assert "6 songs: 6 queued" in await run(*queue, "--name", "{id} {take}", "--no-tags")
    assert "6 songs removed" in await run("batch", "withdraw", "out")
    assert "6 songs: 6 queued" in await run(*queue)
    assert "6 queued" in await run("worker", "--status")
    assert "6 songs unfinished: queued" in await run("batch", "report", "out", code=5)
    hold_songs(sandbox)
    first = await start("worker")
    await until(lambda: len(songs_made(sandbox)) >= 2)
    second = await start("worker")
    first.send_signal(signal.SIGTERM)
    _, err = await first.communicate()
    sandbox.faults.clear()
    assert first.returncode == 0
    assert b"given back" in err
    await until(lambda: len(list((tmp_path / "out").glob("*.mp3"))) == 12)

    async def all_done() -> bool:
        process = await start("batch", "report", "out")
        await process.communicate()
        return process.returncode == 0

    await until(all_done, every=0.2)
    assert "0 queued, 0 under way" in await run("worker", "--status")
    second.send_signal(signal.SIGINT)
    out, _ = await second.communicate()
    assert second.returncode == 0
    assert PASSWORD.encode() not in out
    assert "6 songs done, 0 failed" in await run("batch", "report", "out")
    refused = await run("batch", "run", "songs.jsonl", "--out", "out", "--workers", "--budget", "5", code=2)
    assert "--budget is for a batch in one process" in refused
    assert (tmp_path / "out/s5 2.mp3").is_file()
    store = settings.pop("MUSICAPI_STORE")
    assert f"  musicapi worker --store {store}\n" in await run(*queue, "--store", store)
    assert f"  musicapi batch report out --store {store}" in await run("batch", "report", "out")
    assert "6 songs done" in await run("batch", "report", "out", "--store", store, "--to", "page.html")
    assert (tmp_path / "page.html").is_file()
    (tmp_path / "other").mkdir()
    assert "No workers carry out" in await run("batch", "report", "other", "--store", store, code=2)
    assert "MUSICAPI_STORE" in await run("worker", code=2)
    assert songs_made(sandbox) == {f"Song {n}": 1 for n in range(6)}
    sandbox.faults.on("POST", "/sonic/create", Fault.fail(), times=None)
    await run("batch", "run", "songs.jsonl", "--out", "failing", "--workers", "--store", store)
    worker = await start("worker", "--store", store)
    await until(lambda: len(list((tmp_path / "failing/.musicapi/songs").glob("*.json"))) == 6)
    worker.send_signal(signal.SIGTERM)
    await worker.communicate()
    report = await run("batch", "report", "failing", "--store", store, code=4)
    assert "`musicapi batch run songs.jsonl --out failing --workers --retry-failed`" in report
    sandbox.faults.clear()
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    sandbox.faults.on("POST", "/sonic/create", Fault.status(402), after=1)
    await run("batch", "run", "songs.jsonl", "--out", "stopped", "--workers", "--store", store)
    ended = await run("worker", "--store", store, code=3)
    assert f"`musicapi jobs resubmit {store} batch-" in ended
    assert "`musicapi credits` returns the balance" in ended
    assert ended.count("Payment Required") == 1
    assert "client." not in ended
