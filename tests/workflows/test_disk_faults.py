"""A disk that fills up or turns read-only in the middle, a store that is gone, a clock that jumps back.

The runs are processes of their own, and the sandbox's journal is the judge: a clear error that names the file,
nothing half written under a final name, and when the fault is gone the same command ends without paying again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from batch_processes import BatchRun, Running
from patience import until
from report_pages import songs

from musicapi_async import Clock, MusicAPI
from musicapi_async.errors import FolderError, JobStoreError
from musicapi_async.jobs import Job, SQLiteStore
from musicapi_async.sandbox import Sandbox
from musicapi_async.workflows import BatchResult, run_batch
from musicapi_async.workflows.batch_folder import BatchFolder

SONGS = 3
SECONDS = 12
"""Of long songs: files of some 200 kB, so that the disk is full in the middle of one and not before."""


@pytest.fixture
async def sandbox(request: pytest.FixtureRequest) -> AsyncGenerator[Sandbox]:
    """A sandbox whose songs take half a second to make, and have a second to play unless a test says more."""
    async with Sandbox(speed=300, credits=1e6, longest=getattr(request, "param", 1)) as sandbox:
        yield sandbox


@pytest.fixture
def run(sandbox: Sandbox, tmp_path: Path) -> BatchRun:
    """Songs, each with its stems."""
    manifest = tmp_path / "songs.jsonl"
    rows = [
        {
            "id": f"s{index}",
            "mv": "sonic-v6",
            "gpt_description_prompt": f"song number {index}",
            "steps": ["stems_basic"],
            "clips": "first",
        }
        for index in range(SONGS)
    ]
    manifest.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return BatchRun(
        sandbox.base_url, sandbox.api_key, sandbox.clock.speed, str(manifest), str(tmp_path / "out")
    )


async def ended(run: BatchRun) -> dict[str, Any]:
    """How a run ended that nothing disturbs on its way."""
    return await Running(run).result()


async def jobs(run: BatchRun) -> list[Job]:
    """What is written down."""
    store = SQLiteStore(BatchFolder(run.out).store_path)
    try:
        return await store.jobs()
    finally:
        await store.aclose()


def found(run: BatchRun, pattern: str) -> list[Path]:
    """What there is in the folder."""
    return list(Path(run.out).rglob(pattern))


def finals(run: BatchRun) -> dict[str, int]:
    """All audio under its final name, and its length."""
    return {str(path): path.stat().st_size for path in found(run, "*.mp3")}


async def reached(sandbox: Sandbox, kind: str, running: Running) -> None:
    """The run has made its first request of a kind, or has ended."""
    await until(lambda: sandbox.journal.tally()[kind] or running.has_ended, every=0.001)


async def completes(sandbox: Sandbox, run: BatchRun, before: dict[str, int]) -> None:
    """The same command makes all songs, pays for nothing twice, and what was there was whole."""
    result = await ended(run)
    assert (result["done"], result["unknown"], result["unfinished"]) == (SONGS, {}, {})
    assert len(sandbox.journal.creates) == 2 * SONGS
    assert sandbox.journal.charged_twice() == []
    assert not found(run, "*.part")
    assert len(finals(run)) == 2 * SONGS + 2 * SONGS
    assert before.items() <= finals(run).items()


@pytest.mark.parametrize("sandbox", [SECONDS], indirect=True)
async def test_disk_that_fills_up_while_files_are_fetched(sandbox: Sandbox, run: BatchRun) -> None:
    """The file and the reason are named, nothing more is submitted, and nothing is half there."""
    result = await ended(replace(run, limit=150_000))
    assert result["done"] == 0
    assert result["unfinished"]
    for why in (result["halted"], *result["unfinished"].values()):
        assert why == result["halted"] or "was stopped" in why
        assert why.endswith("free the disk and run the same command again.") or "was stopped" in why
    assert "File too large" in result["halted"]
    assert f"could not write {run.out}{os.sep}" in result["halted"]
    assert not finals(run)
    assert {job.task_id for job in await jobs(run)} == {entry.task_id for entry in sandbox.journal.creates}
    await completes(sandbox, run, {})


async def test_disk_that_is_full_for_store_itself(sandbox: Sandbox, run: BatchRun) -> None:
    """The store is named; an answer that could not be written down stands in the log, with its task, and is
    listed as unknown; nothing is paid twice."""
    result = await ended(replace(run, limit=60_000))
    assert result["error"] == "JobStoreError"
    assert "jobs.sqlite" in result["text"]
    assert "limit to file sizes" in result["text"]
    log = run.log.read_text()
    result = await ended(run)
    unknown = [job for job in await jobs(run) if job.state == "ambiguous"]
    assert set(result["unknown"]) == {job.key for job in unknown}
    assert result["done"] == SONGS - len({job.key.partition("/")[0] for job in unknown})
    assert sandbox.journal.charged_twice() == []
    known = {job.task_id for job in await jobs(run)}
    for entry in sandbox.journal.creates:
        assert entry.task_id in known or entry.task_id in log
    for job in unknown:
        assert job.key in log


@pytest.mark.parametrize("phase", ["create", "media"])
async def test_folder_that_turns_read_only_in_middle(sandbox: Sandbox, run: BatchRun, phase: str) -> None:
    """The file and the reason are named; made writable again, the batch continues."""
    running = Running(run)
    await reached(sandbox, phase, running)
    folders = [Path(run.out), *(path for path in found(run, "*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        result = await running.result()
        before = finals(run)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert "Permission denied" in str(result)
    assert run.out in str(result)
    await completes(sandbox, run, before)


async def test_folder_whose_place_is_taken_in_middle(sandbox: Sandbox, run: BatchRun) -> None:
    """A file where the folder of the stems should be: the songs are left with the reason, and fetched later."""
    running = Running(run)
    await reached(sandbox, "create", running)
    (Path(run.out) / "stems_basic").write_text("in the way")
    result = await running.result()
    assert result["unfinished"]
    assert "stems_basic" in result["halted"]
    (Path(run.out) / "stems_basic").unlink()
    await completes(sandbox, run, finals(run))


def cut(path: Path) -> None:
    os.truncate(path, 5000)


def garble(path: Path) -> None:
    path.write_bytes(b"no database" + path.read_bytes()[11:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def lock_up(path: Path) -> None:
    path.chmod(0o000)


@pytest.mark.parametrize("harm", [cut, garble, empty, replace_by_folder, lock_up, Path.unlink])
async def test_store_that_was_harmed_between_two_runs(
    sandbox: Sandbox, run: BatchRun, harm: Callable[[Path], None]
) -> None:
    """It is named and left as it is, nothing is sent; put back, the batch has nothing left to do."""
    await ended(run)
    path, copy = BatchFolder(run.out).store_path, Path(run.out).with_name("copy")
    shutil.copyfile(path, copy)
    harm(path)
    sent = len(sandbox.journal)
    result = await ended(run)
    assert result["error"] in (JobStoreError.__name__, FolderError.__name__)
    assert "jobs.sqlite" in result["text"]
    assert len(sandbox.journal) == sent
    if path.is_dir():
        path.rmdir()
    os.replace(copy, path)
    await completes(sandbox, run, finals(run))


class Watch(Clock):
    """A clock whose time of day is set."""

    __slots__ = ("ahead",)

    def __init__(self, speed: float) -> None:
        super().__init__(speed)
        self.ahead = 0.0

    def time(self) -> float:
        """The time of day."""
        return super().time() + self.ahead


DAY = 86400.0


@pytest.mark.parametrize("jump", [-DAY, DAY])
@pytest.mark.parametrize("within", [True, False])
async def test_clock_that_is_set_back_or_forth(
    sandbox: Sandbox, run: BatchRun, jump: float, within: bool
) -> None:
    """Within a run or between two: no wait becomes longer, nothing is paid again, and the report stays sane."""
    clock = Watch(sandbox.clock.speed)
    stop = asyncio.Event()

    async def go(on_progress: Callable[[Any], None]) -> BatchResult:
        async with MusicAPI(
            sandbox.api_key, base_url=sandbox.base_url, rate_limit=None, clock=clock
        ) as client:
            return await run_batch(
                client, run.manifest, out=run.out, waveforms=False, stop=stop, on_progress=on_progress
            )

    def set_clock(progress: Any) -> None:
        if progress.running and not clock.ahead:
            clock.ahead = jump

    def stop_soon(progress: Any) -> None:
        if progress.running > 1:
            stop.set()

    if within:
        result = await go(set_clock)
    else:
        await go(stop_soon)
        stop.clear()
        clock.ahead = jump
        result = await go(lambda progress: None)
    assert clock.ahead == jump
    assert (result.done, result.complete) == (SONGS, True)
    assert len(sandbox.journal.creates) == 2 * SONGS
    assert sandbox.journal.charged_twice() == []
    assert all(len(song["times"]) == 4 for song in songs(result.report))
