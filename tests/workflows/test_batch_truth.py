"""A batch says what happened: failed steps, money, who holds the folder. Public names, and the sandbox's journal."""

from __future__ import annotations

import asyncio
import io
import os
import stat
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import mutagen
import mutagen.id3
import pytest
import soundfile
from batch_processes import BatchRun, Running
from patience import until
from report_pages import overview, songs, takes
from small_batches import make, rows

from musicapi_async import MusicAPI
from musicapi_async.errors import FolderError, JobKeyConflictError, RequestValidationError
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.workflows import Manifest, plan_batch, run_batch

ANSWER = '{"code":200,"message":"success","data":%s}'


def found(folder: Path) -> list[Path]:
    """All that is in a folder."""
    return list(folder.rglob("*"))


KINDS = frozenset({".mid", ".wav", ".srt", ".lrc"})


# --- failed steps ------------------------------------------------------------------------------------------


async def test_failed_steps_count(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """The result names each failed step with its row, song, clip and reason, and says how to send it again."""
    sandbox.faults.on("POST", "/sonic/stems/basic", Fault.fail())
    result = await make(client, rows(2, steps=["stems_basic", "wav"], clips="first"), tmp_path)
    assert (result.done, result.failed, result.failed_steps, result.complete) == (2, 0, 1, True)
    (failure,) = result.step_failures
    assert (failure.step, failure.reason) == ("stems_basic", "generation failed")
    assert (failure.id, failure.line) in {("s0", 1), ("s1", 2)}
    assert failure.clip_id
    assert "retry_failed=True" in result.hint
    assert "2 songs 2 done" in overview(result.report)
    assert "1 step failed Step stems_basic failed : generation failed" in overview(result.report)
    (failed,) = [failed for take in takes(result.report) for failed in take.get("failed", ())]
    assert failed == {"label": "Stems (basic)", "error": "generation failed"}


async def test_failed_steps_count_in_later_runs(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A run that has nothing to do reports them, too; one that sends them again no longer does."""
    sandbox.faults.on("POST", "/sonic/stems/basic", Fault.fail())
    songs = rows(1, steps=["stems_basic"], clips="first")
    first = await make(client, songs, tmp_path)
    again = await make(client, songs, tmp_path)
    assert (again.failed_steps, again.step_failures, again.submitted) == (1, first.step_failures, 0)
    retried = await make(client, songs, tmp_path, retry_failed=True)
    assert (retried.failed_steps, retried.step_failures, retried.hint) == (0, [], "")


async def test_failed_step_is_sent_with_its_new_fields(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Mended fields are what is sent, once; the step is then settled for every later run."""
    extend = {"continue_at": 1, "custom_mode": True, "mv": "sonic-v6"}

    def songs(prompt: str) -> list[dict[str, Any]]:
        return rows(1, steps=[{"extend": {**extend, "prompt": prompt}}], clips="first")

    sandbox.faults.on("POST", "/sonic/create", Fault.fail(), after=1)
    assert (await make(client, songs("old words"), tmp_path)).failed_steps == 1
    retried = await make(client, songs("new words"), tmp_path, retry_failed=True)
    assert (retried.failed_steps, retried.done) == (0, 1)
    sent = [entry.body.get("prompt") for entry in sandbox.journal.creates if isinstance(entry.body, dict)]
    assert sent[1:3] == ["old words", "new words"]
    for record in (tmp_path / ".musicapi" / "songs").iterdir():
        record.unlink()
    charges = sandbox.journal.charges
    again = await make(client, songs("new words"), tmp_path, retry_failed=True)
    assert (again.failed_steps, again.submitted) == (0, 0)
    assert sandbox.journal.charges == charges


async def test_failed_song_is_sent_with_its_new_fields(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The same for a song whose task failed; a song that was made cannot be changed."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    assert (await make(client, rows(1), tmp_path)).failed == 1
    changed = rows(1, prompt="[Verse]\nSun")
    result = await make(client, changed, tmp_path, retry_failed=True)
    assert (result.done, result.failed) == (1, 0)
    body = sandbox.journal.creates[-1].body
    assert isinstance(body, dict)
    assert body["prompt"] == "[Verse]\nSun"
    again = await make(client, changed, tmp_path)
    assert (again.done, again.submitted) == (1, 0)


@pytest.mark.parametrize("later", ["[Verse]\nWind", "[Verse]\nRain 0"], ids=["changed", "as at first"])
async def test_correction_that_is_paid_for_cannot_be_changed(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path, later: str
) -> None:
    """The corrected song is being made when the run ends: another correction is refused, and not paid for."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    assert (await make(client, rows(1), tmp_path)).failed == 1
    corrected = rows(1, prompt="[Verse]\nSun")
    sandbox.faults.on("POST", "/sonic/create", Fault.stuck())
    run = asyncio.ensure_future(make(client, corrected, tmp_path, retry_failed=True))
    await until(lambda: len(sandbox.journal.creates) == 2)
    await until(lambda: accepted(tmp_path, 1))
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    plan = await plan_batch(Manifest.of(corrected), tmp_path, retry_failed=True)
    assert (plan.new, plan.going_on, plan.creates) == (0, 1, 0)
    with pytest.raises(JobKeyConflictError, match="prompt"):
        await make(client, rows(1, prompt=later), tmp_path, retry_failed=True)
    assert len(sandbox.journal.creates) == 2


async def accepted(out: Path, count: int) -> bool:
    """True if the job store of a folder has as many accepted jobs."""
    store = SQLiteStore(out / ".musicapi" / "jobs.sqlite")
    try:
        return len(await store.jobs("accepted")) == count
    finally:
        await store.aclose()


async def test_corrections_that_fail_are_corrected_again(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Also back to the first fields, and to those before; each is sent once more, and only on request."""
    words = ["one", "two", "one", "two", "three"]
    sandbox.faults.on("POST", "/sonic/create", Fault.fail(), times=4)
    for number, prompt in enumerate(words, 1):
        result = await make(client, rows(1, prompt=prompt), tmp_path, retry_failed=True)
        assert (result.done, result.failed) == ((1, 0) if number == 5 else (0, 1))
        again = await make(client, rows(1, prompt=prompt), tmp_path)
        assert (again.submitted, len(sandbox.journal.creates)) == (0, number)


# --- money -------------------------------------------------------------------------------------------------


async def test_price_is_that_of_step(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """'lyrics' is the step of a batch, although an operation has that name, too; the budget keeps it."""
    prices = sandbox.account.prices
    song, lyrics = prices["create"], prices["aligned_lyrics"]
    given = {"create_music": song, "lyrics": lyrics}
    songs = rows(1, steps=["lyrics"], clips="first")
    short = await make(client, songs, tmp_path, prices=given, budget=song + lyrics - 1)
    assert f"lyrics costs {lyrics:g}. A run with a larger one continues" in short.halted
    assert not sandbox.journal.requests("/sonic/aligned-lyrics")
    result = await make(client, songs, tmp_path, prices=given, budget=song + lyrics)
    assert (result.done, result.spent, result.complete) == (1, song + lyrics, True)


async def test_price_of_no_step_is_refused(client: MusicAPI, tmp_path: Path) -> None:
    """A misspelt step is answered with the right one, before anything is made."""
    with pytest.raises(RequestValidationError, match=r"did you mean 'lyrics'\?\), got 'lyric'"):
        await make(client, rows(1), tmp_path / "out", prices={"lyric": 3})
    with pytest.raises(RequestValidationError, match="write_lyrics"):
        await make(client, rows(1), tmp_path / "out", prices={"write_lyrics": 3})
    assert not (tmp_path / "out").exists()


async def test_plan_adds_up_prices(tmp_path: Path) -> None:
    """Two clips for each song; what has no price is named; the total is held against the budget."""
    songs = Manifest.of(rows(3, steps=["stems", "wav"]))
    given = {"create_music": 20.0, "stems": 50.0, "wav": 1.0}
    plan = await plan_batch(songs, tmp_path, prices=given, budget=400)
    assert plan.cost == 3 * 20 + 6 * 50 + 6 * 1
    assert (plan.unpriced, plan.over_budget, plan.budget, plan.spent) == ({}, False, 400, 0)
    plan = await plan_batch(songs, tmp_path, prices=given, budget=365)
    assert plan.over_budget
    plan = await plan_batch(songs, tmp_path, prices={"create_music": 20.0}, budget=365)
    assert (plan.cost, plan.unpriced) == (60, {"stems": 6, "wav": 6})
    assert (await plan_batch(songs, tmp_path)).cost is None


async def test_plan_counts_what_is_spent(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """The budget is that of the folder, so runs before count."""
    price = sandbox.account.prices["create"]
    given = {"create_music": price}
    await make(client, rows(2), tmp_path, prices=given)
    plan = await plan_batch(Manifest.of(rows(3)), tmp_path, prices=given, budget=3 * price - 1)
    assert (plan.cost, plan.spent, plan.over_budget) == (price, 2 * price, True)


@pytest.mark.parametrize("budget", [None, 1e5])
async def test_every_run_tells_what_it_spent(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path, budget: float | None
) -> None:
    """By the balance without a budget, by the prices with one; a run that sends nothing spent nothing."""
    songs = rows(2, steps=["wav"], clips="first")
    result = await make(client, songs, tmp_path, budget=budget)
    assert result.spent_now == sandbox.journal.charges > 0
    requests = len(sandbox.journal)
    again = await make(client, songs, tmp_path, budget=budget)
    assert again.spent_now == 0
    assert len(sandbox.journal) == requests


async def test_balance_that_cannot_be_read_is_no_fault(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The songs are made; what was spent is then unknown."""
    sandbox.faults.on("GET", "/get-credits", Fault.status(400), times=None)
    result = await make(client, rows(1), tmp_path)
    assert (result.done, result.spent_now) == (1, None)


async def test_lyrics_of_instrumental_are_refused_unpaid(tmp_path: Path) -> None:
    """A row without singing has no words to align."""
    for row in ({"steps": ["lyrics"]}, {"steps": ["wav", "aligned_lyrics"]}):
        with pytest.raises(RequestValidationError, match=r"line 1: step '\w*lyrics' needs singing"):
            Manifest.of(rows(1, make_instrumental=True, **row))
    assert Manifest.of(rows(1, make_instrumental=False, steps=["lyrics"])).songs


async def test_everything_is_step(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Stems, WAV, MIDI and timed lyrics, as for a clip alone; of an instrumental all but the lyrics."""
    songs = rows(1, steps=["everything"], clips="first")
    songs += [{**rows(2)[1], "make_instrumental": True, "steps": ["everything"], "clips": "first"}]
    result = await make(client, songs, tmp_path)
    assert (result.done, result.failed_steps) == (2, 0)
    kinds = Counter(path.suffix for path in found(tmp_path) if path.suffix in KINDS)
    assert kinds == {".mid": 2, ".wav": 2, ".srt": 1, ".lrc": 1}


async def test_cover_is_step(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A cover of each clip, with the task type of a clip that was made here."""
    cover = {"mv": "sonic-v6", "prompt": "[Verse]\nSun", "custom_mode": True}
    result = await make(client, rows(1, steps=[{"cover": cover}], clips="first"), tmp_path)
    assert (result.done, result.failed_steps) == (1, 0)
    body = sandbox.journal.creates[-1].body
    assert isinstance(body, dict)
    assert body["task_type"] == "cover_music"
    assert len(list((tmp_path / "cover").glob("*.mp3"))) == 2


# --- files ---------------------------------------------------------------------------------------------------


def tags_fail_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library for tags fail for one file on the disk; the sandbox tags in memory."""
    save = mutagen.id3.ID3.save

    def failing(self: mutagen.id3.ID3, file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, io.BytesIO):
            return save(self, file, *args, **kwargs)
        monkeypatch.setattr(mutagen.id3.ID3, "save", save)
        raise error

    monkeypatch.setattr(mutagen.id3.ID3, "save", failing)


async def test_file_that_cannot_be_tagged_ends_nothing(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All songs have their record and stand in the report, the untagged one too."""
    tags_fail_once(mutagen.MutagenError("an odd file"), monkeypatch)
    result = await make(client, rows(3), tmp_path, tags=True)
    assert (result.done, result.complete) == (3, True)
    assert [song["state"] for song in songs(result.report)] == ["done"] * 3


async def test_unexpected_error_leaves_its_song_alone(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are made, the report is there, and the song is left with the error for the next run."""
    opened = soundfile.SoundFile.__init__

    def failing(self: soundfile.SoundFile, file: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(file, Path):  # the sandbox reads from memory
            monkeypatch.setattr(soundfile.SoundFile, "__init__", opened)
            raise LookupError("not expected")
        opened(self, file, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "__init__", failing)
    result = await run_batch(client, Manifest.of(rows(3)), out=tmp_path)
    assert (result.done, len(result.unfinished)) == (2, 1)
    assert "unexpected LookupError: not expected" in next(iter(result.unfinished.values()))
    assert [song["state"] for song in songs(result.report)].count("unfinished") == 1
    assert (await make(client, rows(3), tmp_path)).done == 3
    assert len(sandbox.journal.creates) == 3


async def test_report_that_cannot_be_written_loses_no_result(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The songs are there and counted; the page that failed is named."""
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html" / "mine").write_text("")
    result = await make(client, rows(2), tmp_path)
    assert (result.done, result.disk_failed) == (2, True)
    assert "report.html" in result.halted
    (tmp_path / "report.html" / "mine").unlink()
    (tmp_path / "report.html").rmdir()
    again = await make(client, rows(2), tmp_path)
    assert (again.done, again.submitted, again.halted) == (2, 0, "")


async def test_clip_without_its_file_leaves_other_in_report(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """What was fetched is on the page with the reason of what was not; the next run fetches the rest alone."""
    sandbox.faults.on("GET", "/media/*.mp3", Fault.status(404), times=None)
    assert (await make(client, rows(1), tmp_path)).unfinished
    (one, _) = {entry.path for entry in sandbox.journal if entry.path.endswith(".mp3")}
    sandbox.faults.clear()
    sandbox.faults.on("GET", one, Fault.status(404), times=6)
    result = await make(client, rows(1), tmp_path)
    assert result.unfinished
    (song,) = songs(result.report)
    assert [bool(take.get("file")) for take in song["takes"]].count(True) == 1
    assert song["state"] == "unfinished"
    assert "could not fetch" in song["note"]
    assert "could not fetch" in overview(result.report)
    assert (await make(client, rows(1), tmp_path)).done == 1
    assert len(sandbox.journal.creates) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
async def test_what_batch_writes_of_its_own_is_private(client: MusicAPI, tmp_path: Path) -> None:
    """Records, jobs, report and metadata are for their owner only, also where an earlier run made the folder."""
    home = tmp_path / ".musicapi"
    home.mkdir(mode=0o755)
    await make(client, rows(1), tmp_path)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "songs").stat().st_mode) == 0o700
    private = [path for path in found(tmp_path) if path.suffix in {".json", ".html"}]
    assert len(private) == 1 + 1 + 2 + 1 + 1  # records of run and song, metadata of both clips, names, report
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


# --- who holds the folder ------------------------------------------------------------------------------------


async def test_of_runs_started_at_once_one_goes_on(sandbox: Sandbox, tmp_path: Path) -> None:
    """The others say that another run holds the folder, and which process that is; nothing is paid twice."""
    manifest = tmp_path / "songs.jsonl"
    manifest.write_bytes(b"\n".join(map(msgspec.json.encode, rows(2))))
    out = str(tmp_path / "out")
    run = BatchRun(sandbox.base_url, sandbox.api_key, sandbox.clock.speed, str(manifest), out)
    running = [Running(replace(run, name=f"-{number}")) for number in range(4)]
    results = [await one.result() for one in running]
    (winner,) = (number for number, result in enumerate(results) if "done" in result)
    assert results[winner]["done"] == 2
    for result in results[:winner] + results[winner + 1 :]:
        assert result["error"] == FolderError.__name__
        assert "another run holds" in result["text"]
        assert f"process {running[winner].pid}" in result["text"]
    assert len(sandbox.journal.creates) == 2


async def test_second_run_of_one_process_is_refused(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The process is named, and its own songs are not disturbed; after it the folder is free."""
    started = asyncio.Event()
    run = asyncio.ensure_future(
        make(client, rows(1), tmp_path, on_progress=lambda p: started.set() if p.submitted else None)
    )
    await started.wait()
    with pytest.raises(FolderError, match=rf"another run holds .*process {os.getpid()}\b"):
        await make(client, rows(1), tmp_path)
    assert (await run).done == 1
    assert (await make(client, rows(1), tmp_path)).done == 1
