"""A batch: made once, resumed at will, stopped with grace. The sandbox's journal is the judge."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import mutagen.id3
import pytest
from open_files import open_files
from patience import until
from report_pages import overview, takes
from report_pages import songs as songs_on
from small_batches import make, rows

from musicapi_async import MusicAPI, Webhooks
from musicapi_async.errors import FolderError, JobKeyConflictError, JobStoreError
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.workflows import Manifest, Progress, plan_batch, run_batch
from musicapi_async.workflows.batch_folder import BatchFolder
from musicapi_async.workflows.folder_lock import locked


async def test_song_with_all_steps_leaves_all_files(client: MusicAPI, tmp_path: Path) -> None:
    """Audio, cover, metadata, stems, wav, midi, lyrics, persona, the joined extension, and a record."""
    extend = {"continue_at": 2, "custom_mode": True, "prompt": "more", "mv": "sonic-v6"}
    steps = ["stems", "wav", "midi", "lyrics", {"persona": {"name": "V"}}, {"extend": extend}]
    result = await run_batch(client, Manifest.of(rows(1, steps=steps, clips="first")), out=tmp_path)
    assert (result.done, result.complete, result.submitted) == (1, True, 8)
    (record,) = BatchFolder(tmp_path).records(iter(["s0"]))
    first, second = record.clips
    assert not second.steps
    assert first.file == "01 Song 0 (take 1).mp3"
    assert (tmp_path / first.cover).read_bytes()
    assert max(first.peaks) == 1
    assert [step.name for step in first.steps] == ["stems", "wav", "midi", "lyrics", "persona", "extend"]
    assert {Path(name).suffix for name in record.files} >= {".mp3", ".wav", ".mid", ".lrc", ".json"}
    assert all((tmp_path / name).stat().st_size for name in record.files)
    metadata = msgspec.json.decode((tmp_path / "details" / "01 Song 0 (take 1).json").read_bytes())
    assert metadata["task_id"] == record.task_id
    assert metadata["clip"]["clip_id"] == first.clip_id
    assert record.queued_at <= record.submitted_at <= record.ended_at <= record.fetched_at


async def test_finished_work_is_not_repeated(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """The same command again sends nothing at all."""
    await make(client, rows(3), tmp_path)
    before = len(sandbox.journal)
    result = await make(client, rows(3), tmp_path)
    assert (result.done, result.submitted) == (3, 0)
    assert len(sandbox.journal) == before


async def test_lost_file_is_fetched_again_for_free(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """A file that is gone is fetched again; nothing is paid for."""
    await make(client, rows(1), tmp_path)
    gone = tmp_path / next(BatchFolder(tmp_path).records(iter(["s0"]))).clips[0].file
    gone.unlink()
    await make(client, rows(1), tmp_path)
    assert gone.is_file()
    assert len(sandbox.journal.creates) == 1


async def test_songs_can_be_added(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A longer manifest makes only what is new."""
    await make(client, rows(2), tmp_path)
    result = await make(client, rows(4), tmp_path)
    assert (result.done, result.submitted) == (4, 2)
    assert len(sandbox.journal.creates) == 4


@pytest.mark.parametrize("is_named", [True, False])
async def test_steps_added_to_song_are_made(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path, *, is_named: bool
) -> None:
    """The song is there: plan and run have the new step alone, once for each clip, and a third run nothing."""

    def songs(**more: Any) -> list[dict[str, Any]]:
        first, *others = rows(3)
        return [
            {**{name: row[name] for name in row if is_named or name != "id"}}
            for row in (first | more, *others)
        ]

    await make(client, songs(), tmp_path)
    added = songs(steps=["wav"])
    plan = await plan_batch(Manifest.of(added), tmp_path)
    assert (plan.settled, plan.new, plan.creates, plan.steps) == (2, 0, 0, {"wav": 2})
    result = await make(client, added, tmp_path)
    assert (result.done, result.submitted, result.complete) == (3, 2, True)
    assert len(list((tmp_path / "wav").glob("*.wav"))) == 2
    assert (len(sandbox.journal.creates), len(sandbox.journal.requests("/sonic/wav"))) == (3, 2)
    requests = len(sandbox.journal)
    assert (await make(client, added, tmp_path)).done == 3
    assert (await make(client, songs(), tmp_path)).done == 3
    assert len(sandbox.journal) == requests


async def test_step_for_second_clip_is_made(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A step that was for the first clip only is wanted for all: the other one is made."""
    await make(client, rows(1, steps=["wav"], clips="first"), tmp_path)
    result = await make(client, rows(1, steps=["wav"]), tmp_path)
    assert (result.done, result.submitted, len(sandbox.journal.requests("/sonic/wav"))) == (1, 1, 2)


async def test_changed_song_is_refused_before_anything_is_sent(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The same id with other words names the line and the difference."""
    await make(client, rows(2), tmp_path)
    changed = rows(3)
    changed[1]["title"] = "Another"
    with pytest.raises(JobKeyConflictError, match=r"line 2 .*title: 'Song 1' before, 'Another' now"):
        await make(client, changed, tmp_path)
    assert len(sandbox.journal.creates) == 2


async def test_field_taken_away_is_refused_before_anything_is_sent(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """A song without a field that it had is a changed song, too; a field of the client's own is no change."""
    with_field = client.with_options(extra_body={"negative_tags": "drums"})
    await make(with_field, rows(1, tags="pop", custom_mode=True), tmp_path)
    with pytest.raises(JobKeyConflictError, match=r"line 1 .*'pop' before, nothing now"):
        await make(with_field, rows(1, custom_mode=True), tmp_path)
    again = await make(with_field, rows(1, tags="pop", custom_mode=True), tmp_path)
    assert (again.done, len(sandbox.journal.creates)) == (1, 1)


async def test_another_base_url_is_refused_and_loses_no_song(sandbox: Sandbox, tmp_path: Path) -> None:
    """Songs under way are not taken for failed: back on the right address they are waited for and fetched."""
    sent = asyncio.Event()
    async with sandbox.client(rate_limit=None) as client:
        run = asyncio.ensure_future(
            make(client, rows(3), tmp_path, on_progress=lambda p: sent.set() if p.submitted == 3 else None)
        )
        await sent.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    other = sandbox.base_url.replace("127.0.0.1", "localhost")
    async with MusicAPI(sandbox.api_key, base_url=other, clock=sandbox.clock, rate_limit=None) as client:
        with pytest.raises(JobKeyConflictError, match="base_url") as caught:
            await make(client, rows(3), tmp_path)
    assert len(caught.value.difference) == 3
    assert f"Use the base_url of the first run, {sandbox.base_url}." in caught.value.hint
    assert "another id" not in caught.value.hint
    async with sandbox.client(rate_limit=None) as client:
        result = await make(client, rows(3), tmp_path)
    assert (result.done, result.failed, result.submitted) == (3, 0, 0)
    assert len(sandbox.journal.creates) == 3
    assert sandbox.journal.charges == 3 * sandbox.account.prices["create"]


async def test_step_changed_under_its_song_is_left_and_not_taken_for_failed(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """A run that was killed before its record was written continues with the steps that were paid for."""
    songs = rows(1, steps=[{"persona": {"name": "V"}}], clips="first")
    await make(client, songs, tmp_path)
    for record in (tmp_path / ".musicapi" / "songs").iterdir():
        record.unlink()
    charges = sandbox.journal.charges
    changed = await make(client, rows(1, steps=[{"persona": {"name": "W"}}], clips="first"), tmp_path)
    assert (changed.done, changed.failed, changed.complete) == (0, 0, False)
    assert "'V' before, 'W' now" in changed.unfinished["s0"]
    assert "still there" in changed.unfinished["s0"]
    assert "another key" not in changed.unfinished["s0"]
    assert (await make(client, songs, tmp_path)).done == 1
    assert sandbox.journal.charges == charges


async def test_failed_song_is_made_again_only_when_asked(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """A refunded failure is settled; `retry_failed` sends it once more."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    first = await make(client, rows(2), tmp_path)
    assert (first.done, first.failed) == (1, 1)
    again = await make(client, rows(2), tmp_path)
    assert (again.failed, again.submitted) == (1, 0)
    retried = await make(client, rows(2), tmp_path, retry_failed=True)
    assert (retried.done, retried.failed, retried.submitted) == (2, 0, 1)
    assert sandbox.journal.charged_twice() == []


HOOKS = Webhooks("http://127.0.0.1:9/hooks", "a-secret-of-the-batch")
"""Where nothing listens."""


async def test_failed_song_with_webhook_can_be_made_again(sandbox: Sandbox, tmp_path: Path) -> None:
    """The client's own webhook secret is at hand, so nothing has to be given again."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    async with sandbox.client(rate_limit=None, webhooks=HOOKS) as client:
        assert (await make(client, rows(1), tmp_path)).failed == 1
        retried = await make(client, rows(1), tmp_path, retry_failed=True)
    assert (retried.done, retried.failed, retried.submitted) == (1, 0, 1)


async def test_failed_song_that_cannot_be_sent_again_keeps_its_error(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Without the webhook's secret nothing is sent: the song is left, and its record says why it failed."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    async with sandbox.client(rate_limit=None, webhooks=HOOKS) as client:
        await make(client, rows(1), tmp_path)
    (before,) = BatchFolder(tmp_path).records(iter(["s0"]))
    async with sandbox.client(rate_limit=None) as client:
        result = await make(client, rows(1), tmp_path, retry_failed=True)
    assert "webhook_secret" in result.unfinished["s0"]
    (after,) = BatchFolder(tmp_path).records(iter(["s0"]))
    assert (after.state, after.error) == (before.state, before.error)
    assert len(sandbox.journal.creates) == 1


async def test_failed_step_leaves_rest(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """One step fails, the song and its other steps are there; it too is made again only on request."""
    sandbox.faults.on("POST", "/sonic/stems/basic", Fault.fail())
    songs = rows(1, steps=["stems_basic", "wav"], clips="first")
    result = await make(client, songs, tmp_path)
    assert (result.done, result.failed) == (1, 0)
    (record,) = BatchFolder(tmp_path).records(iter(["s0"]))
    assert [step.state for step in record.clips[0].steps] == ["failed", "done"]
    assert len(list(record.faults)) == 1
    await make(client, songs, tmp_path, retry_failed=True)
    (record,) = BatchFolder(tmp_path).records(iter(["s0"]))
    assert [step.state for step in record.clips[0].steps] == ["done", "done"]
    assert len(sandbox.journal.requests("/sonic/wav")) == 1


async def test_refused_song_fails_alone(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A refusal costs nothing and concerns one song."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(400))
    result = await make(client, rows(3), tmp_path)
    assert (result.done, result.failed) == (2, 1)
    assert result.complete


async def test_unknown_outcome_is_listed_by_name_and_not_sent_again(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """A lost answer: the job is named, the next run leaves it alone, and resolving it finishes the song."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    result = await make(client, rows(2), tmp_path)
    (key,) = result.unknown
    assert (result.done, result.complete) == (1, False)
    again = await make(client, rows(2), tmp_path)
    assert list(again.unknown) == [key]
    assert len(sandbox.journal.creates) == 2
    lost = next(entry for entry in sandbox.journal.creates if entry.fault)
    store = SQLiteStore(BatchFolder(tmp_path).store_path)
    await client.with_options(store=store).resolve(key, task_id=lost.task_id)
    await store.aclose()
    assert (await make(client, rows(2), tmp_path)).complete
    assert len(sandbox.journal.creates) == 2


async def test_outage_leaves_songs_for_next_run(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Nothing was sent, so nothing failed: the next run makes them."""
    async with sandbox.unreachable():
        result = await make(client.with_options(max_retries=0), rows(3), tmp_path)
    assert sorted(result.unfinished) == ["s0", "s1", "s2"]
    assert (await make(client, rows(3), tmp_path)).done == 3


async def test_without_credits_it_stops_submitting(
    client: MusicAPI, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The first refusal for want of credits ends submitting; what runs is finished."""
    sandbox.account.credits = 50
    result = await make(client, rows(8), tmp_path, max_in_flight=1)
    assert result.done
    assert "credits" in result.halted.lower()
    assert overview(result.report).count("The remaining credits are not enough") == 1
    assert result.done + len(result.unfinished) == 8
    sandbox.account.credits = 1000
    assert (await make(client, rows(8), tmp_path)).done == 8
    assert sandbox.journal.charged_twice() == []


@pytest.mark.parametrize("prices", [None, {"create_music": 20.0}])
async def test_budget_is_not_passed(
    client: MusicAPI, sandbox: Sandbox, tmp_path: Path, prices: dict[str, float] | None
) -> None:
    """It stops before the next song would pass the budget, over all runs on the folder."""
    price = sandbox.account.prices["create"]
    prices = {"create_music": price} if prices else None
    result = await make(client, rows(6), tmp_path, budget=2.5 * price, prices=prices)
    assert (result.done, result.spent) == (2, 2 * price)
    assert "budget" in result.halted
    again = await make(client, rows(6), tmp_path, budget=2.5 * price, prices=prices)
    assert (again.done, again.submitted) == (2, 0)
    more = await make(client, rows(6), tmp_path, budget=4 * price, prices=prices)
    assert more.done == 4
    assert sandbox.journal.charges == 4 * price


async def test_first_call_that_passes_budget_is_named(
    client: MusicAPI, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Nobody knows what it costs before it is made, alone; with its price given it is not made at all."""
    price = sandbox.account.prices["create"]
    known = await make(client, rows(3), tmp_path / "a", budget=price / 2, prices={"create_music": price})
    assert (known.spent, known.submitted) == (0, 0)
    assert f"create_music costs {price:g}. A run with a larger one continues" in known.halted
    result = await make(client, rows(3), tmp_path / "b", budget=price / 2)
    assert (result.spent, result.submitted) == (price, 1)
    assert result.halted == f"the first create_music cost {price:g}, the budget was {price / 2:g}"


async def test_refund_gives_budget_back(client: MusicAPI, sandbox: Sandbox, tmp_path: Path) -> None:
    """A failed song does not use the budget up."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    price = sandbox.account.prices["create"]
    result = await make(client, rows(2), tmp_path, budget=2 * price, max_in_flight=1)
    assert (result.done, result.failed) == (1, 1)
    assert result.spent == price


async def test_refund_is_given_back_once_however_often_failure_is_seen(
    client: MusicAPI, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Killed before its record was written, a refunded failure is looked at again and frees nothing more."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail(), after=1)
    price = sandbox.account.prices["create"]
    for run in range(3):
        result = await make(client, rows(2 + 2 * (run == 2)), tmp_path, budget=2 * price, max_in_flight=1)
        assert result.failed == 1
        assert result.spent == sandbox.journal.charges
        assert result.spent == (price if run < 2 else 2 * price)
        for record in (tmp_path / ".musicapi" / "songs").iterdir():
            record.unlink()


async def test_songs_left_alike_are_left_for_same_reason(
    client: MusicAPI, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Neither a link nor an id tells them apart, and the reason says that they are paid for."""
    sandbox.faults.on("GET", "/media/*", Fault.status(404), times=None)
    result = await make(client, rows(2), tmp_path)
    host = sandbox.base_url.split("/")[2]
    (why,) = set(result.unfinished.values())
    assert why == f"could not fetch a file from {host} in 6 tries: HTTP 404; paid for and made"


async def test_no_more_than_allowed_are_in_flight(client: MusicAPI, sandbox: Sandbox, tmp_path: Path) -> None:
    """With `max_in_flight=2` at most two songs run at once."""
    running: list[int] = []
    await make(
        client,
        rows(6),
        tmp_path,
        max_in_flight=2,
        on_progress=lambda progress: running.append(progress.running),
    )
    assert max(running) == 2
    assert len(sandbox.journal.creates) == 6


async def test_stopping_submits_nothing_more_and_finishes_rest(sandbox: Sandbox, tmp_path: Path) -> None:
    """What was submitted is waited for and fetched; the next run makes the rest."""
    stop = asyncio.Event()
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.submitted >= 3:
            stop.set()

    async with sandbox.client(rate_limit="1/60s") as client:
        result = await make(client, rows(10), tmp_path, stop=stop, on_progress=watch)
        # On a busy machine a create or two may be under way in the moment of the stop; they are finished, too.
        assert 3 <= result.done < 10
        assert len(result.unfinished) == 10 - result.done
        assert len(sandbox.journal.creates) == result.done
        assert seen[-1].stopping
    async with sandbox.client(rate_limit=None) as client:
        assert (await make(client, rows(10), tmp_path)).done == 10
    assert len(sandbox.journal.creates) == 10


NEVER = "1/3000s"
"""A rate at which the second create of a test does not leave."""


async def test_stopping_sends_no_failed_song_again(sandbox: Sandbox, tmp_path: Path) -> None:
    """With `retry_failed`, too, the songs that wait for the rate are left as they were, unpaid."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail(), times=6)
    async with sandbox.client(rate_limit=None) as client:
        assert (await make(client, rows(6), tmp_path)).failed == 6
    stop = asyncio.Event()

    def watch(progress: Progress) -> None:
        if progress.submitted:
            stop.set()

    async with sandbox.client(rate_limit=NEVER) as client:
        result = await make(client, rows(6), tmp_path, retry_failed=True, stop=stop, on_progress=watch)
    assert (result.submitted, result.done, len(result.unfinished)) == (1, 1, 5)
    assert len(sandbox.journal.creates) == 6 + 1
    assert sandbox.journal.charges == sandbox.account.prices["create"]
    async with sandbox.client(rate_limit=None) as client:
        again = await make(client, rows(6), tmp_path, retry_failed=True)
    assert (again.submitted, again.done) == (5, 6)
    assert len(sandbox.journal.creates) == 6 + 6


@pytest.mark.parametrize("retry_failed", [False, True])
async def test_song_accepted_after_stop_is_finished(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path, *, retry_failed: bool
) -> None:
    """It had left when the batch was stopped and is paid for, so it counts as submitted and is fetched."""
    if retry_failed:
        sandbox.faults.on("POST", "/sonic/create", Fault.fail())
        assert (await make(client, rows(1), tmp_path)).failed == 1
    before = len(sandbox.journal.creates)
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(300))
    stop = asyncio.Event()
    run = asyncio.ensure_future(make(client, rows(1), tmp_path, retry_failed=retry_failed, stop=stop))
    await until(lambda: len(sandbox.journal.creates) > before)
    stop.set()
    result = await run
    assert (result.submitted, result.done, result.unfinished) == (1, 1, {})
    assert len(sandbox.journal.creates) == before + 1
    assert sandbox.journal.charges == sandbox.account.prices["create"]


async def test_failed_song_that_was_paid_for_again_is_fetched_by_any_run(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Ended right after a second payment, the first one's failure does not hide what it bought."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    assert (await make(client, rows(1), tmp_path)).failed == 1
    bought = asyncio.Event()
    run = asyncio.ensure_future(
        make(
            client,
            rows(1),
            tmp_path,
            retry_failed=True,
            on_progress=lambda progress: bought.set() if progress.submitted else None,
        )
    )
    await bought.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    creates = len(sandbox.journal.creates)
    result = await make(client, rows(1), tmp_path)
    assert (result.done, result.failed, result.submitted) == (1, 0, 0)
    assert len(sandbox.journal.creates) == creates == 2


async def test_failed_song_that_was_taken_up_in_vain_is_still_failed(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Stopped before it was sent again, it is settled as it was, and nothing is sent."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    assert (await make(client, rows(1), tmp_path)).failed == 1
    stop = asyncio.Event()
    stop.set()
    assert list((await make(client, rows(1), tmp_path, retry_failed=True, stop=stop)).unfinished) == ["s0"]
    again = await make(client, rows(1), tmp_path)
    assert (again.failed, again.submitted, again.unfinished) == (1, 0, {})
    assert len(sandbox.journal.creates) == 1


async def cancelled_while_sending(sandbox: Sandbox, client: MusicAPI, folder: Path) -> None:
    """Cancel the run of a batch whose create was sent and is not answered yet."""
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(60))
    run = asyncio.ensure_future(make(client, rows(1), folder))
    await until(lambda: bool(sandbox.journal.creates))
    run.cancel()
    await asyncio.wait({run})


async def test_run_after_a_cancelled_one_waits_for_its_call(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Its create is still awaited by the client: no run says that it was lost, or sends it once more."""
    await cancelled_while_sending(sandbox, client, tmp_path)
    result = await make(client, rows(1), tmp_path)
    assert (result.done, result.unknown, result.unfinished) == (1, {}, {})
    assert len(sandbox.journal.creates) == 1


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_create_that_outlives_its_caller_is_one_warning(
    sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Ctrl-C once or twice: the answer of each create that was sent is recorded, and its task is logged."""
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(60), times=2)
    stop = asyncio.Event()
    async with sandbox.client(rate_limit=None) as client:
        run = asyncio.ensure_future(make(client, rows(2), tmp_path, stop=stop))
        await until(lambda: len(sandbox.journal.creates) == 2)
        if how == "stopped":
            stop.set()
        else:
            run.cancel()
        await asyncio.wait({run})
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 2
    for create in sandbox.journal.creates:
        assert sum(str(create.task_id) in text for text in warnings) == 1


async def test_call_of_a_cancelled_run_leaves_nothing_open(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Its task reaches the job store, which the run has closed before, and which is closed again after that."""
    await cancelled_while_sending(sandbox, client, tmp_path)
    store = SQLiteStore(tmp_path / ".musicapi" / "jobs.sqlite")
    await until(lambda: store.jobs("accepted"))
    await store.aclose()
    await until(lambda: not any(name.startswith(str(tmp_path)) for name in open_files()), "a file stays open")


async def test_cancelling_leaves_everything_resumable(sandbox: Sandbox, tmp_path: Path) -> None:
    """Stopped hard: the next run pays for nothing twice."""
    started = asyncio.Event()
    async with sandbox.client(rate_limit=None) as client:
        run = asyncio.ensure_future(
            make(client, rows(4), tmp_path, on_progress=lambda p: started.set() if p.submitted > 1 else None)
        )
        await started.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    async with sandbox.client(rate_limit=None) as client:
        result = await make(client, rows(4), tmp_path)
    assert (result.done, result.unknown) == (4, {})
    assert sandbox.journal.charged_twice() == []


async def test_two_runs_on_one_folder_are_refused(client: MusicAPI, tmp_path: Path) -> None:
    """The lock names the folder, and goes with its holder."""
    with locked(tmp_path), pytest.raises(FolderError, match="another run"):
        await make(client, rows(1), tmp_path)
    assert (await make(client, rows(1), tmp_path)).done == 1


async def test_folder_that_cannot_be_made_is_clear_error(
    client: MusicAPI, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Nothing is sent when nothing can be written."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="file"):
        await make(client, rows(1), tmp_path / "file")
    assert not sandbox.journal.creates


async def test_damaged_store_is_clear_error(client: MusicAPI, sandbox: Sandbox, tmp_path: Path) -> None:
    """A folder whose store is damaged is not replaced by a new one."""
    store = BatchFolder(tmp_path).store_path
    store.parent.mkdir()
    store.write_bytes(b"scrambled" * 100)
    with pytest.raises(JobStoreError, match=r"jobs\.sqlite is damaged"):
        await make(client, rows(1), tmp_path)
    assert not sandbox.journal.creates


HOSTILE = ["../../etc/passwd", "CON", "", "a/b\\c:d*e?", "x" * 80, "<script>alert(1)</script>", "\u202e.mp3"]


async def test_hostile_titles_stay_in_folder_and_out_of_page(client: MusicAPI, tmp_path: Path) -> None:
    """Names are safe on every file system, and the report escapes what it shows."""
    songs = [{**row, "title": title} for row, title in zip(rows(len(HOSTILE)), HOSTILE, strict=True)]
    result = await make(client, songs, tmp_path / "out", tags=True)
    assert result.done == len(HOSTILE)
    assert os.listdir(tmp_path) == ["out"]
    for name in os.listdir(tmp_path / "out"):
        path = tmp_path / "out" / name
        if path.suffix != ".mp3":
            continue
        assert not re.search(r'[<>:"/\\|?*\x00-\x1f]', path.name)
        assert len(path.name.encode()) < 200
        assert mutagen.id3.ID3(path)["TIT2"].text
    assert result.report is not None
    assert "<script>alert" not in result.report.read_text("utf-8")
    assert {"<script>alert(1)</script>", "../../etc/passwd"} < {
        song["title"] for song in songs_on(result.report)
    }


async def test_report_is_one_self_contained_page(client: MusicAPI, tmp_path: Path) -> None:
    """Audio, covers and stems by relative links, wave forms, lyrics, times; nothing from elsewhere."""
    result = await run_batch(client, Manifest.of(rows(2, steps=["stems_basic"], clips="first")), out=tmp_path)
    assert result.report is not None
    page = result.report.read_text("utf-8")
    assert not re.search(r"(src|href)=.?(https?:)?//", page)
    found = takes(result.report)
    stems = [stem for take in found for stem in take.get("stems", ())]
    links = [take[name] for take in found for name in ("file", "cover")] + [stem["file"] for stem in stems]
    assert all((tmp_path / unquote(link)).is_file() for link in links)
    assert (len(found), len(stems), len(set(links))) == (4, 4, 4 + 4 + 4)
    assert {stem["name"] for stem in stems} == {"vocals", "instrumental"}
    assert all(len(take["peaks"]) > 100 and "Rain" in take["lyrics"] for take in found)
    for song in songs_on(result.report):
        assert song["times"] == sorted(song["times"])
        assert (song["model"], song["state"]) == ("sonic-v6", "done")
    assert "2 songs 2 done 4 takes" in overview(result.report)


async def test_report_tells_what_failed_and_names_what_has_no_title(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Counts above, the songs of unknown outcome by their keys, failures with their reason, blank titles by id."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(400))
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    songs = [{**row, "title": title} for row, title in zip(rows(3), ("a", "b", "   "), strict=True)]
    result = await make(client, songs, tmp_path, max_in_flight=1)
    text = overview(result.report)
    assert "3 songs 1 done 1 failed 1 with an unknown outcome" in text
    (unknown,) = result.unknown
    assert f"musicapi jobs resolve {tmp_path} {unknown} --task-id ID" in text
    assert f"musicapi batch run manifest --out {tmp_path} --retry-failed" in text
    by_state = {song["state"]: song for song in songs_on(result.report)}
    assert by_state.keys() == {"done", "failed", "unknown"}
    for song in by_state.values():  # those that failed are named by their rows
        assert f"row {song['row']}, {song['title']}" in text or song["state"] == "done"
        assert song["title"] == (song["id"] if song["id"] == "s2" else "ab"[song["row"] - 1])
    assert by_state["failed"]["note"] in text


async def test_nothing_planted_in_folder_leads_to_other_files(
    client: MusicAPI, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Links and pipes under the names of temporary files are never opened."""
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_text("precious")
    home = out / ".musicapi"
    home.mkdir(parents=True)
    planted = [out / "report.html.part", home / "probe", home / "begun.part", home / "prices.json.part"]
    for path in planted:
        path.symlink_to(victim)
    result = await make(client, rows(1), out)
    assert result.complete
    assert not (out / "report.html").is_symlink()
    os.link(victim, out / "report.html.part")
    (home / "probe").unlink(missing_ok=True)
    os.mkfifo(home / "probe")
    assert (await make(client, rows(1), out)).complete
    assert victim.read_text() == "precious"
    assert len(sandbox.journal.creates) == 1


async def test_lock_that_is_link_is_refused(client: MusicAPI, sandbox: Sandbox, tmp_path: Path) -> None:
    """No file is made where it leads to, and nothing is sent."""
    home = tmp_path / "out" / ".musicapi"
    home.mkdir(parents=True)
    (home / "lock").symlink_to(tmp_path / "new")
    with pytest.raises(FolderError, match="cannot be written"):
        await make(client, rows(1), tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert sandbox.journal.creates == []


async def test_home_folder_is_meant_by_tilde(
    client: MusicAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the files, the report and the store."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert (await make(client, rows(1), Path("~/songs"))).complete
    assert (tmp_path / "home/songs/report.html").is_file()
    assert os.listdir(tmp_path) == ["home"]
