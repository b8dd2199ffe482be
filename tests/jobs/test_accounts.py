"""One job key under several accounts: a task is given to its own account only, and never paid for twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from musicapi_async import MusicAPI
from musicapi_async.errors import JobKeyConflictError, OutcomeUnknownError, RequestValidationError
from musicapi_async.jobs import JobStore, SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


@pytest.fixture
async def sandbox() -> AsyncGenerator[Sandbox]:
    """A fast sandbox."""
    async with Sandbox(speed=400) as sandbox:
        yield sandbox


def opened(sandbox: Sandbox, store: JobStore, api_key: str = "", **options: Any) -> MusicAPI:
    """A client of the sandbox with an API key of its own."""
    key = api_key or sandbox.api_key
    return MusicAPI(
        key, base_url=sandbox.base_url, clock=sandbox.clock, store=store, rate_limit=None, **options
    )


async def test_job_key_of_another_api_key_is_refused(sandbox: Sandbox, store: JobStore) -> None:
    """Nothing is sent, and the error says how to name the account; neither API key is in it."""
    async with opened(sandbox, store) as client:
        task = await client.with_options(job_key="k").sonic.create_music(**SONG)
        (job,) = await client.jobs()
    async with opened(sandbox, store, "the-key-after") as client:
        with pytest.raises(JobKeyConflictError, match=f"account='{job.account}'") as caught:
            await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert caught.value.job_key == "k"
        assert "the-key-after" not in str(caught.value)
        assert sandbox.api_key not in str(caught.value)
        for call in (client.resolve("k", task_id="other"), client.resubmit("k")):
            with pytest.raises(JobKeyConflictError, match="account="):
                await call
        assert await client.job("k") == job
        assert await client.jobs() == [job]
    assert len(sandbox.journal.creates) == 1
    async with opened(sandbox, store, account=job.account) as client:
        assert await client.with_options(job_key="k").sonic.create_music(**SONG) == task
    assert len(sandbox.journal.creates) == 1


async def test_replaced_api_key_of_a_named_account_gives_the_same_task(
    sandbox: Sandbox, store: JobStore
) -> None:
    """The account is its name, whatever its API key is."""
    async with opened(sandbox, store, account="studio") as client:
        task = await client.with_options(job_key="k").sonic.create_music(**SONG)
    async with opened(sandbox, store, "the-key-after", account="studio") as client:
        assert await client.with_options(job_key="k").sonic.create_music(**SONG) == task
    assert len(sandbox.journal.creates) == 1


async def test_named_accounts_have_a_job_each(sandbox: Sandbox, store: JobStore) -> None:
    """Two accounts that were both named share a store, and no job key."""
    tasks: dict[str, Any] = {}
    for account in ("one", "two", "one", "two"):
        async with opened(sandbox, store, account=account) as client:
            assert (await client.job("k") is None) == (account not in tasks)
            task = await client.with_options(job_key="k").sonic.create_music(**SONG)
            assert tasks.setdefault(account, task) == task
            await task.wait()
            await client.jobs()  # when it returns, all ends are stored
            job = await client.job("k")
            assert job is not None
            assert (job.account, job.task_id, job.state) == (account, task.task_id, "finished")
            assert await client.job("other") is None
    assert tasks["one"] != tasks["two"]
    assert len(sandbox.journal.creates) == 2


async def test_naming_an_account_later_is_refused_with_its_name_so_far(
    sandbox: Sandbox, store: JobStore
) -> None:
    """A new name may mean another account or the same one: only the caller can tell."""
    async with opened(sandbox, store) as client:
        await client.with_options(job_key="k").sonic.create_music(**SONG)
    async with opened(sandbox, store, account="studio") as client:
        with pytest.raises(JobKeyConflictError, match=r"account='key-[0-9a-f]{16}'"):
            await client.with_options(job_key="k").sonic.create_music(**SONG)
    assert len(sandbox.journal.creates) == 1


async def test_ambiguous_job_of_a_replaced_api_key_is_listed_and_can_be_settled(
    sandbox: Sandbox, store: JobStore
) -> None:
    """It is not lost from sight, and the account that the error names settles it."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    async with opened(sandbox, store) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k").sonic.create_music(**SONG)
    async with opened(sandbox, store, "the-key-after") as client:
        (job,) = await client.jobs("ambiguous")
    async with opened(sandbox, store, "the-key-after", account=job.account) as client:
        task_id = sandbox.journal.creates[0].task_id
        assert (await client.resolve("k", task_id=task_id)).task_id == task_id


async def test_job_of_another_host_is_decided_there_only(sandbox: Sandbox, store: JobStore) -> None:
    """A store and an account may be shared by clients of two hosts: a job is never sent to the other one."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    async with opened(sandbox, store, account="studio") as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k").sonic.create_music(**SONG)
    async with Sandbox(speed=400) as other, opened(other, store, account="studio") as client:
        job = await client.job("k")
        for call in (client.resubmit("k"), client.resolve("k", task_id="other")):
            with pytest.raises(JobKeyConflictError, match=sandbox.base_url) as caught:
                await call
            assert caught.value.job_key == "k"
        assert await client.job("k") == job
        assert not other.journal.creates
    async with opened(sandbox, store, account="studio") as client:
        await client.resubmit("k")
    assert len(sandbox.journal.creates) == 2


async def test_account_comes_from_the_environment(
    sandbox: Sandbox, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MUSICAPI_ACCOUNT` names it where the argument does not, as for the command."""
    monkeypatch.setenv("MUSICAPI_ACCOUNT", "studio")
    async with opened(sandbox, store) as client:
        await client.with_options(job_key="k").sonic.create_music(**SONG)
    async with opened(sandbox, store, account="label") as client:
        await client.with_options(job_key="k").sonic.create_music(**SONG)
        assert [job.account for job in await client.jobs()] == ["studio", "label"]


@pytest.mark.parametrize("account", ["", "  ", "two\nlines", "x" * 201, 7])
def test_account_that_is_no_name_is_refused(account: Any) -> None:
    """The error names the argument."""
    with pytest.raises(RequestValidationError, match="account: "):
        MusicAPI("key", account=account)


async def test_api_key_is_nowhere_in_the_file(sandbox: Sandbox, tmp_path: Path) -> None:
    """The fingerprint is stored instead of it."""
    async with opened(sandbox, SQLiteStore(tmp_path / "jobs.sqlite")) as client:
        await client.with_options(job_key="k").sonic.create_music(**SONG)
        (job,) = await client.jobs()
    raw = (tmp_path / "jobs.sqlite").read_bytes()
    assert job.account.encode() in raw
    assert sandbox.api_key.encode() not in raw
