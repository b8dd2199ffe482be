"""Several processes on one file: one charge for each key, and what a killed process leaves behind."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path

import pytest
from forked import Piped
from patience import until

from musicapi_async.errors import OutcomeUnknownError
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the other processes live in it."""
    return "asyncio"


async def start(sandbox: Sandbox, path: Path, *names: str) -> Piped:
    """A process that makes a song for each name, under the name as its job key, and prints their tasks."""
    return await Piped.started("store_process:main", sandbox.base_url, sandbox.api_key, str(path), *names)


async def test_eight_processes_pay_once_for_each_of_200_keys(tmp_path: Path) -> None:
    """Four processes call with each key; all get the same task, and it is charged once."""
    draw = random.Random(5)
    names = [f"song-{index}" for index in range(200)]
    async with Sandbox(credits=1e6) as sandbox:
        shares: list[list[str]] = [[] for _ in range(8)]
        for name in names:
            for share in draw.sample(shares, 4):
                share.append(name)
        for share in shares:
            draw.shuffle(share)
        workers = await asyncio.gather(
            *(start(sandbox, tmp_path / "jobs.sqlite", *share) for share in shares)
        )
        found: dict[str, set[str]] = {}
        for out, _ in await asyncio.gather(*(worker.communicate() for worker in workers)):
            for name, task_id in json.loads(out):
                found.setdefault(name, set()).add(task_id)
        assert set(found) == set(names)
        assert all(len(tasks) == 1 for tasks in found.values())
        charged = [entry for entry in sandbox.journal.creates if entry.charge]
        assert len(charged) == len(sandbox.journal.creates) == 200
    store = SQLiteStore(tmp_path / "jobs.sqlite")
    assert {job.state for job in await store.jobs()} == {"accepted"}
    await store.aclose()


async def test_process_killed_while_sending_leaves_an_ambiguous_job(tmp_path: Path) -> None:
    """Killed between send and answer: the outcome is unknown, the job is listed, the key sends nothing."""
    async with Sandbox() as sandbox:
        sandbox.faults.on("POST", "/sonic/create", Fault.hang)
        worker = await start(sandbox, tmp_path / "jobs.sqlite", "song")
        await until(lambda: len(sandbox.journal.creates) == 1)
        worker.kill()
        await worker.ended()
        async with sandbox.client(store=SQLiteStore(tmp_path / "jobs.sqlite")) as client:
            (job,) = await client.jobs("ambiguous")
            assert job.key == "song"
            assert "ended before" in job.why
            with pytest.raises(OutcomeUnknownError):
                await client.with_options(job_key="song").sonic.create_music(
                    mv="sonic-v6", gpt_description_prompt="rain", title="song"
                )
            task = await client.resolve("song", task_id=sandbox.journal.creates[0].task_id)
            assert (await task.refresh()).task_id == task.task_id
        assert len(sandbox.journal.creates) == 1


async def test_reservation_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    """Killed before sending: the key is free, and one request is sent in all."""
    path = tmp_path / "jobs.sqlite"
    async with Sandbox(create_limit=(1, 30.0)) as sandbox:
        async with sandbox.client(rate_limit=None) as client:
            await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="first")
        worker = await start(sandbox, path, "song")  # it gets 429 and waits
        await until(lambda: len(sandbox.journal.creates) == 2 and sandbox.journal.creates[1].status == 429)
        store = SQLiteStore(path)

        async def is_reserved() -> bool:  # it was "sent" until the process had read the answer
            return [job.state for job in await store.jobs()] == ["reserved"]

        await until(is_reserved)
        worker.kill()
        await worker.ended()
        await store.aclose()
    async with Sandbox(port=sandbox.port) as reopened:
        async with reopened.client(store=SQLiteStore(path)) as client:
            await client.with_options(job_key="song").sonic.create_music(
                mv="sonic-v6", gpt_description_prompt="rain", title="song"
            )
        assert len(reopened.journal.creates) == 1


def test_process_of_a_test_that_failed_ends_with_its_pipes(tmp_path: Path) -> None:
    """No other test is warned of them, and fails, too."""
    left: list[Piped] = []

    async def fail() -> None:
        async with Sandbox() as sandbox:
            sandbox.faults.on("POST", "/sonic/create", Fault.hang)
            left.append(await start(sandbox, tmp_path / "jobs.sqlite", "song"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
    assert left[0].wait() == -signal.SIGKILL
    assert all(transport.is_closing() for transport in left[0].transports)
