"""Every fault against calls that are written down, and against downloads: requests, charges, rows, files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from patience import until

from musicapi_async import Clock, MusicAPI, MusicAPIError
from musicapi_async.errors import DownloadError, OutcomeUnknownError
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.webhooks import Webhooks

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}

UNKNOWN: dict[str, Fault] = {
    "reset before it was taken": Fault.reset_before,
    "closed before it was taken": Fault.refuse,
    "reset after it was taken": Fault.reset_after,
    "taken and never answered": Fault.hang,
    "not taken and never answered": Fault.hang_before,
    "half an answer": Fault.truncate,
    "garbage": Fault.garbage,
    "a page of a gateway": Fault.html,
    "500": Fault.status(500),
    "500 without a body, taken": Fault.status(500, body=None, taken=True),
    "502 without a body": Fault.status(502, body=None),
    "503": Fault.status(503),
    "504 without a body, taken": Fault.status(504, body=None, taken=True),
}

REPEATED: dict[str, Fault] = {
    "429": Fault.status(429),
    "429 without a body": Fault.status(429, body=None),
    "429 with Retry-After": Fault.status(429, retry_after=5),
    "403 for the rate": Fault.status(403, body='{"type":"forbidden","message":"API QPS limit exceeded"}'),
}

REFUSED: dict[str, Fault] = {
    "400": Fault.status(400),
    "401": Fault.status(401),
    "402": Fault.status(402),
    "410": Fault.status(410),
    "429 for too long": Fault.status(429, retry_after=3600),
}


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A fast sandbox with short songs."""
    async with Sandbox(speed=300, longest=3) as sandbox:
        yield sandbox


def opened(sandbox: Sandbox, folder: Path, **options: Any) -> MusicAPI:
    """A client that writes everything down."""
    store = SQLiteStore(folder / "jobs.sqlite")
    return sandbox.client(store=store, rate_limit=None, attempt_timeout=0.5, **options)


@pytest.mark.parametrize("fault", UNKNOWN)
@pytest.mark.parametrize("direct", [False, True])
async def test_an_unknown_outcome_is_one_request_and_one_ambiguous_row(
    sandbox: Sandbox, tmp_path: Path, fault: str, direct: bool
) -> None:
    """One request whatever happens, also when the key is used again in another client."""
    path = "/sonic/persona" if direct else "/sonic/create"

    async def call(client: MusicAPI) -> Any:
        if direct:
            return await client.with_options(job_key="k").sonic.create_persona(name="x", clip_id=clip_id)
        return await client.with_options(job_key="k").sonic.create_music(**SONG)

    async with sandbox.client(rate_limit=None) as client:
        clip_id = (await (await client.sonic.create_music(**SONG)).wait())[0].clip_id
    before, paid = len(sandbox.journal.requests(path)), sandbox.journal.charges
    sandbox.faults.on("POST", path, UNKNOWN[fault])
    for _ in range(2):
        async with opened(sandbox, tmp_path) as client:
            with pytest.raises(OutcomeUnknownError) as caught:
                await call(client)
            assert caught.value.job_key == "k"
            (job,) = await client.jobs()
            assert job.state == "ambiguous"
            assert job.why
    assert len(sandbox.journal.requests(path)) == before + 1
    assert (sandbox.journal.charges > paid) is UNKNOWN[fault].taken


@pytest.mark.parametrize("fault", REPEATED)
async def test_a_refusal_for_the_rate_is_repeated_under_one_row(
    sandbox: Sandbox, tmp_path: Path, fault: str
) -> None:
    """Refused, sent again, accepted: one charge, one row."""
    sandbox.faults.on("POST", "/sonic/create", REPEATED[fault], times=2)
    async with opened(sandbox, tmp_path) as client:
        task = await client.with_options(job_key="k").sonic.create_music(**SONG)
        (job,) = await client.jobs()
        assert (job.state, job.task_id, job.attempts) == ("accepted", task.task_id, 1)
    assert len(sandbox.journal.creates) == 3
    assert sandbox.journal.charges == 20


@pytest.mark.parametrize("fault", REFUSED)
async def test_a_final_refusal_leaves_no_row(sandbox: Sandbox, tmp_path: Path, fault: str) -> None:
    """Refused for good: nothing is charged, the key is free."""
    sandbox.faults.on("POST", "/sonic/create", REFUSED[fault])
    async with opened(sandbox, tmp_path) as client:
        with pytest.raises(MusicAPIError) as caught:
            await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert not caught.value.may_have_been_charged
        assert await client.jobs() == []
        await client.with_options(job_key="k").sonic.create_music(**SONG)
    assert [entry.charge for entry in sandbox.journal.creates] == [0, 20]


async def test_closing_in_the_middle_leaves_the_truth(sandbox: Sandbox, tmp_path: Path) -> None:
    """Closed while a call is under way and never answered: the row says that nobody knows."""
    sandbox.faults.on("POST", "/sonic/create", Fault.hang)
    client = opened(sandbox, tmp_path)
    client = client.with_options(attempt_timeout=600, job_key="k")
    asked = asyncio.ensure_future(client.sonic.create_music(**SONG))
    await until(lambda: sandbox.journal.creates)
    await client.aclose()
    with pytest.raises(OutcomeUnknownError):
        await asked
    async with opened(sandbox, tmp_path) as client:
        (job,) = await client.jobs("ambiguous")
        assert job.key == "k"


class Backwards(Clock):
    """A wall clock that is set back by an hour each time somebody looks."""

    hours = 0

    def time(self) -> float:
        """Earlier than before."""
        self.hours += 1
        return super().time() - 3600 * self.hours


async def test_a_clock_that_jumps_back_loses_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """Wall time orders nothing and decides nothing."""
    for _ in range(2):
        client = MusicAPI(
            sandbox.api_key,
            base_url=sandbox.base_url,
            clock=Backwards(sandbox.clock.speed),
            store=SQLiteStore(tmp_path / "jobs.sqlite"),
        )
        async with client:
            task = await client.with_options(job_key="k").sonic.create_music(**SONG)
            assert (await task.wait()).status == "succeeded"
            (job,) = await client.jobs()
            assert job.state == "finished"
    assert len(sandbox.journal.creates) == 1


async def test_a_webhook_with_the_job_key_settles_a_lost_answer(sandbox: Sandbox, tmp_path: Path) -> None:
    """The answer was lost; the webhook brings the key and the task, and the key gives the task."""
    told = asyncio.Event()
    client: MusicAPI

    async def receive(request: web.BaseRequest) -> web.Response:
        await client.webhooks.handle(request.headers, await request.read(), url=str(request.url))
        told.set()
        return web.Response()

    runner = web.ServerRunner(web.Server(receive))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    client = opened(sandbox, tmp_path, webhooks=Webhooks(url=url, secret="whsec-sesame-opens"))
    async with client:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.sonic.create_music(**SONG)
        key = caught.value.job_key
        assert key is not None
        await until(told.is_set)
        task = await client.with_options(job_key=key).sonic.create_music(**SONG)
        assert task.task_id == sandbox.journal.creates[0].task_id
        assert (await task.wait()).status == "succeeded"
        (job,) = await client.jobs()
        assert job.request.kind == "create_music"
    await runner.cleanup()
    assert len(sandbox.journal.creates) == 1


PASSING: dict[str, Fault] = {
    "reset": Fault.reset_before,
    "closed": Fault.refuse,
    "cut in the middle": Fault.truncate,
    "garbage": Fault.garbage,
    "a page of a gateway": Fault.html,
    "404 while the CDN catches up": Fault.status(404),
    "429": Fault.status(429),
    "429 with Retry-After": Fault.status(429, retry_after=3),
    "503 without a body": Fault.status(503, body=None),
    "500": Fault.status(500),
}


@pytest.mark.parametrize("fault", PASSING)
async def test_a_passing_fault_of_a_download_is_overcome(
    sandbox: Sandbox, tmp_path: Path, fault: str
) -> None:
    """The file is whole, nothing half-written is left, no key was sent, and nothing was charged for it."""
    async with sandbox.client(rate_limit=None) as client:
        clips = await (await client.sonic.create_music(**SONG)).wait()
        (whole,) = await client.download(clips[0], tmp_path / "whole")
        sandbox.faults.on("GET", "/media/*", PASSING[fault], times=2)
        (path,) = await client.download(clips[0], tmp_path / "out")
    assert path.read_bytes() == whole.read_bytes()
    assert os.listdir(tmp_path / "out") == [path.name]
    assert not any(entry.key_sent for entry in sandbox.journal if entry.kind == "media")
    assert sandbox.journal.charges == 20


async def test_a_download_that_never_comes_leaves_nothing_under_its_name(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """After the last try a clear error, and no file that looks whole."""
    async with sandbox.client(rate_limit=None) as client:
        clips = await (await client.sonic.create_music(**SONG)).wait()
        sandbox.faults.on("GET", "/media/*", Fault.truncate, times=None)
        with pytest.raises(DownloadError):
            await client.download(clips[0], tmp_path / "out")
        assert not [name for name in os.listdir(tmp_path / "out") if not name.endswith(".part")]
        sandbox.faults.clear()
        (path,) = await client.download(clips[0], tmp_path / "out")
    assert os.listdir(tmp_path / "out") == [path.name]


async def test_a_process_killed_after_the_last_byte_leaves_nothing_for_ever(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Killed between giving a file its name and forgetting its note: the next call removes the note."""
    async with sandbox.client(rate_limit=None) as client:
        clips = await (await client.sonic.create_music(**SONG)).wait()
        (path,) = await client.download(clips[0], tmp_path)
        path.with_name(path.name + ".source.part").write_text("{}")
        assert await client.download(clips[0], tmp_path) == [path]
    assert os.listdir(tmp_path) == [path.name]
