"""The page of a batch and its picks, without a browser: what is written, when, and what is copied."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import stat
import sys
import threading
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE, until
from report_pages import block, overview, songs, takes
from small_batches import make, rows

from musicapi_async import MusicAPI
from musicapi_async.errors import FolderError, RequestValidationError
from musicapi_async.jobs import MemoryStore
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.workflows import (
    ClipRecord,
    Manifest,
    SongRecord,
    StepRecord,
    copy_picks,
    run_batch,
    write_report,
)
from musicapi_async.workflows.batch_calls import BatchCalls
from musicapi_async.workflows.batch_folder import BatchFolder
from musicapi_async.workflows.batch_progress import Tally
from musicapi_async.workflows.batch_report import write_page
from musicapi_async.workflows.budget import Budget
from musicapi_async.workflows.folder_lock import locked
from musicapi_async.workflows.page_renewal import BatchPage
from musicapi_async.workflows.report_overview import PageState
from musicapi_async.workflows.run_record import RowRecord, RunRecord


def export(path: Path, page: Path | None, **choices: str) -> Path:
    """Write picks as the page does: the choices by the titles of songs, for their first takes."""
    picks = [
        {"clip_id": song["takes"][0]["id"], "choice": choices.get(song["id"], ""), "stars": 3}
        for song in songs(page)
    ]
    path.write_text(json.dumps({"batch": "x", "picks": picks}))
    return path


def files_of(folder: Path) -> list[Path]:
    """Return all files in a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


class HeldFolder(BatchFolder):
    """A folder whose page waits in the middle of its write until it may end."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.begun, self.may_end = threading.Event(), threading.Event()

    @property
    def name(self) -> str:
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        return super().name


# --- the page ------------------------------------------------------------------------------------------------


async def test_last_page_of_a_run_follows_the_one_that_is_being_written(
    client: MusicAPI, tmp_path: Path
) -> None:
    """Else a slow disk leaves the page of a run that never ends."""
    folder, stop = HeldFolder(tmp_path), asyncio.Event()
    budget = Budget(None, client, {}, dict)
    tally = Tally(1, client.clock, budget, stop, None)
    calls = BatchCalls(
        client.with_options(store=MemoryStore()), budget, tally, stop, max_in_flight=1, retry_failed=False
    )
    page = BatchPage(folder, calls)
    leaving, left = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        async with page.followed(Manifest.of(rows(1))):
            await until(folder.begun.is_set)
            leaving.set()
        left.set()
        await page.finish({})

    running = asyncio.ensure_future(run())
    try:
        await leaving.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not left.is_set()
    finally:
        folder.may_end.set()
        await running
    assert '"running":false' in (tmp_path / "report.html").read_text("utf-8")


async def test_policy_allows_the_script_and_style_of_the_page(client: MusicAPI, tmp_path: Path) -> None:
    """By their hashes; there is one of each, and nothing in the page that the policy would refuse."""
    result = await make(client, rows(1), tmp_path)
    assert result.report is not None
    text = result.report.read_text("utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src &#39;none&#39;; ")
    for element in ("script", "style"):
        (inside,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in unescape(policy)
    body = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r"""\s(on\w+|style)=|javascript:|https?://""", body)


async def test_songs_of_a_step_have_numbers(client: MusicAPI, tmp_path: Path) -> None:
    """Their ids say nothing to a person."""
    covered = rows(1, steps=[{"cover": {"mv": "sonic-v6", "prompt": "la"}}])
    result = await make(client, covered, tmp_path)
    for take in takes(result.report):
        assert [file["label"] for file in take["files"]] == ["Cover 1", "Cover 2"]


async def test_page_is_renewed_while_a_run_is_on(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Songs appear as they settle; the others are displayed with where they are."""
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(400), after=2)
    page = tmp_path / "report.html"

    def displayed() -> set[str]:
        return {song["state"] for song in songs(page)} if page.exists() else set()

    running = asyncio.ensure_future(make(client, rows(5), tmp_path, max_in_flight=1))
    await until(lambda: displayed() == {"done", "submitting", "queued"})
    assert block(page, "batch")["running"] is True
    result = await running
    assert [song["state"] for song in songs(result.report)] == ["done"] * 5
    assert block(result.report, "batch")["running"] is False


async def test_rows_of_the_page_are_those_of_the_file_names(client: MusicAPI, tmp_path: Path) -> None:
    """The first row of a table is in its second line. Ids are displayed where the manifest gives them."""
    table = tmp_path / "songs.csv"
    table.write_text("mv,prompt,title,id\nsonic-v6,[Verse],,\nsonic-v6,[Verse],Rain,north\n")
    result = await run_batch(client, Manifest.read(table), out=tmp_path / "out", waveforms=False)
    found = songs(result.report)
    assert [(song["row"], song.get("named", False)) for song in found] == [(1, False), (2, True)]
    for song in found:
        assert {take["path"].split()[0] for take in song["takes"]} == {f"{song['row']:02}"}


async def test_page_of_a_silent_run_is_written_again(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """An open page takes a run without news for stopped, so a run whose songs take long gives a sign of life."""
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(400))
    page, written = tmp_path / "report.html", set[float]()

    def signs() -> bool:
        if page.exists() and [song["state"] for song in songs(page)] == ["submitting"]:
            written.add(block(page, "batch")["written"])
        return len(written) >= 3

    running = asyncio.ensure_future(make(client, rows(1), tmp_path))
    await until(signs)
    assert not running.done()
    await running


async def test_page_of_an_ended_run_is_written_again(client: MusicAPI, tmp_path: Path) -> None:
    """From the folder alone, and with the same id, by which a browser stores the picks."""
    first = await make(client, rows(2), tmp_path / "out")
    assert first.report is not None
    before, batch = songs(first.report), block(first.report, "batch")
    first.report.unlink()
    assert await write_report(tmp_path / "out") == first.report
    assert songs(first.report) == before
    assert block(first.report, "batch")["id"] == batch["id"]
    again = await make(client, rows(3), tmp_path / "out")
    assert block(again.report, "batch")["id"] == batch["id"]


async def test_page_elsewhere_leads_to_the_files_or_has_them(client: MusicAPI, tmp_path: Path) -> None:
    """Links begin at the page; with `embed` there are none, and the page can be sent on its own."""
    await make(client, rows(1), tmp_path / "out")
    elsewhere = await write_report(tmp_path / "out", to=tmp_path / "pages/a.html")
    for take in takes(elsewhere):
        assert take["file"].startswith("../out/")
        assert take["path"] == unquote(take["file"].removeprefix("../out/"))
    whole = await write_report(tmp_path / "out", to=tmp_path / "sent.html", embed=True)
    for take in takes(whole):
        kind, _, data = take["file"].partition(";base64,")
        assert kind == "data:audio/mpeg"
        assert base64.b64decode(data) == (tmp_path / "out" / take["path"]).read_bytes()
        assert take["cover"].startswith("data:image/")
    if os.name == "posix":
        assert stat.S_IMODE(whole.stat().st_mode) == 0o600


async def test_folder_of_an_earlier_version_has_a_page(client: MusicAPI, tmp_path: Path) -> None:
    """One without a record of its run; its songs are those that have records."""
    await make(client, rows(2), tmp_path)
    (tmp_path / ".musicapi/run.json").unlink()
    page = await write_report(tmp_path)
    assert [(song["id"], song["state"]) for song in songs(page)] == [("s0", "done"), ("s1", "done")]


async def test_page_is_not_written_beside_a_run(client: MusicAPI, tmp_path: Path) -> None:
    """A run writes it itself; a page elsewhere does not disturb it. A folder of no batch is refused."""
    await make(client, rows(1), tmp_path / "out")
    with locked(tmp_path / "out"):
        with pytest.raises(FolderError, match="writes the page itself"):
            await write_report(tmp_path / "out")
        assert songs(await write_report(tmp_path / "out", to=tmp_path / "now.html"))
    with pytest.raises(FolderError, match="no folder of a batch"):
        await write_report(tmp_path)


async def test_run_without_the_template_engine_has_no_page(
    client: MusicAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The songs are made; the result says that there is no page, and asking for one says what to install."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = await make(client, rows(1), tmp_path)
    assert (result.done, result.report) == (1, None)
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(ModuleNotFoundError, match=r"\[cli\]"):
        await write_report(tmp_path)


async def test_facts_of_steps_are_on_the_page(client: MusicAPI, tmp_path: Path) -> None:
    """Times of lyrics, the tempo, the persona with its name, what the song cost; no reply as a file."""
    steps = ["lyrics", "bpm", {"persona": {"name": "Rainy voice"}}]
    result = await run_batch(
        client,
        Manifest.of(rows(1, steps=steps, clips="first", webhook_url="https://example.org/hook")),
        out=tmp_path,
        budget=1000,
        waveforms=False,
    )
    (song,) = songs(result.report)
    take = song["takes"][0]
    assert take["lines"][0][1] == "[Verse]"
    assert [start for start, _ in take["lines"]] == sorted(start for start, _ in take["lines"])
    assert 40 < take["bpm"] < 240
    assert take["persona"][1] == "Rainy voice"
    assert {file["ending"] for file in take["files"]} == {"LRC", "SRT"}
    assert song["cost"] == f"{result.spent:g} credits"
    assert f"{result.spent:g} credits spent" in overview(result.report)
    assert ["webhook url", "https://example.org/hook"] in song["facts"]


async def test_secrets_of_rows_are_neither_stored_nor_displayed(client: MusicAPI, tmp_path: Path) -> None:
    """The secret of a webhook is in no file of the folder."""
    secret = "a-webhook-secret-of-length"
    await make(client, rows(1, webhook_url="https://example.org/hook", webhook_secret=secret), tmp_path)
    assert [path for path in files_of(tmp_path) if secret.encode() in path.read_bytes()] == []


async def test_refund_and_command_of_what_failed(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Failures alike are one problem with all their rows; the command that helps is displayed once."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail(), times=2)
    sandbox.faults.on("POST", "/sonic/wav", Fault.status(400), times=1)
    result = await make(client, rows(4, steps=["wav"], clips="first"), tmp_path / "my songs", max_in_flight=1)
    text = overview(result.report)
    assert "2 songs failed, 1 step failed" in text
    assert re.search(r"Failed : generation failed .*refunded\. row 1, Song 0 , row 2, Song 1 ", text)
    assert re.search(r"Step wav failed : .* row 3, Song 2, take 1", text)
    assert text.count(f"musicapi batch run manifest --out '{tmp_path}/my songs' --retry-failed") == 1


async def test_page_speaks_in_commands(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Like the commands that it displays: for a run, a song, a take and a step."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(402), times=1, after=1)
    out = tmp_path / "out"
    result = await make(client, rows(2), out, max_in_flight=1)
    assert "`await client.credits()`" in result.halted
    python = "see client.credits(), or client.resubmit('k')"
    (record,) = BatchFolder(out).all_records()  # of the row that was sent first, either of both
    steps = [StepRecord(name="wav", state="failed", error=python)]
    clips = [ClipRecord(clip_id="c", state="failed", error=python, steps=steps)]
    BatchFolder(out).save(msgspec.structs.replace(record, state="failed", error=python, clips=clips))
    page = await write_report(out)
    text = overview(page)
    assert "`musicapi credits` returns the balance" in text
    command = f"see `musicapi credits`, or `musicapi jobs resubmit {out} k`"
    assert text.count(command) == 3
    (song,) = (song for song in songs(page) if song.get("takes"))
    assert (song["note"], song["takes"][0]["error"], song["takes"][0]["failed"][0]["error"]) == (command,) * 3
    assert "client." not in page.read_text("utf-8").partition("<script>")[0]


@given(title=st.text(max_size=40), tags=st.text(max_size=20))
def test_texts_of_others_end_no_element(
    tmp_path_factory: pytest.TempPathFactory, title: str, tags: str
) -> None:
    """Data and texts are in the page as they were, be they markup, and it has one script."""
    title, tags = (text.encode("utf-8", "ignore").decode() for text in (title, tags))
    folder = BatchFolder(tmp_path_factory.mktemp("batch"))
    clip = ClipRecord(clip_id="c", state="failed", tags=f"{tags}</script><script>", error=f"</ul>{title}")
    folder.save(
        SongRecord(id="s", line=1, operation="o", title=f"<b>{title}", fields={}, state="done", clips=[clip])
    )
    run = RunRecord(batch_id="b", source="m", rows=[RowRecord("s", "s", 1, f"<b>{title}", "o")], ended_at=1)
    page = folder.out / "report.html"
    write_page(page, folder, PageState(run=run))
    (song,) = songs(page)
    assert song["title"] == f"<b>{title}".strip()
    assert song["takes"][0]["tags"] == f"{tags}</script><script>"
    text = page.read_text("utf-8")
    assert (text.count("<b>"), text.count("</ul>"), text.count("</script>")) == (1, 2, 3)


# --- picks ---------------------------------------------------------------------------------------------------


async def test_takes_to_keep_are_copied_with_their_subtitles(client: MusicAPI, tmp_path: Path) -> None:
    """In the order of the batch, whole; what is dropped stays behind. Again: nothing new."""
    result = await make(client, rows(3, steps=["lyrics"]), tmp_path / "out")
    picks = export(tmp_path / "picks.json", result.report, s2="keep", s0="keep", s1="drop")
    copies = copy_picks(tmp_path / "out", picks)
    assert [copy.parent for copy in copies] == [tmp_path / "out/picks"] * 2
    originals = [tmp_path / "out" / song["takes"][0]["path"] for song in songs(result.report)]
    assert [copy.read_bytes() for copy in copies] == [originals[0].read_bytes(), originals[2].read_bytes()]
    listed = sorted(path.name for path in (tmp_path / "out/picks").iterdir())
    assert listed == sorted(
        copy.with_suffix(suffix).name for copy in copies for suffix in (".mp3", ".lrc", ".srt")
    )
    assert copy_picks(tmp_path / "out", picks) == copies
    assert sorted(path.name for path in (tmp_path / "out/picks").iterdir()) == listed


async def test_other_files_in_the_folder_are_not_overwritten(client: MusicAPI, tmp_path: Path) -> None:
    """A copy gets a number where its name is taken, also by a link."""
    result = await make(client, rows(1), tmp_path / "out")
    picks = export(tmp_path / "picks.json", result.report, s0="keep")
    name = Path(takes(result.report)[0]["path"]).name
    chosen, victim = tmp_path / "chosen", tmp_path / "victim"
    chosen.mkdir()
    (chosen / name).write_text("mine")
    victim.write_text("precious")
    (chosen / f"{Path(name).stem} 2.mp3").symlink_to(victim)
    (copy,) = copy_picks(tmp_path / "out", picks, chosen)
    assert copy.name == f"{Path(name).stem} 3.mp3"
    assert ((chosen / name).read_text(), victim.read_text()) == ("mine", "precious")


async def test_picks_of_another_batch_and_no_picks_are_refused(client: MusicAPI, tmp_path: Path) -> None:
    """Nothing is copied, and the text says what to give."""
    result = await make(client, rows(1), tmp_path / "out")
    picks = tmp_path / "picks.json"
    good: dict[str, Any] = {"clip_id": takes(result.report)[0]["id"], "choice": "keep"}
    for content, text in (
        (b"[1", "no file of picks"),
        (b"\xff\xfe", "no file of picks"),
        (b"[" * 100_000, "no file of picks"),
        (msgspec.json.encode({"picks": [{**good, "choice": "perhaps"}]}), "choice"),
        (msgspec.json.encode({"picks": [{**good, "choice": "drop"}]}), "no take is marked"),
        (msgspec.json.encode({"picks": [good, {**good, "clip_id": "../../etc"}]}), "1 of 2 takes"),
    ):
        picks.write_bytes(content)
        with pytest.raises(RequestValidationError, match=text):
            copy_picks(tmp_path / "out", picks)
    assert not (tmp_path / "out/picks").exists()


async def test_take_whose_file_is_gone_is_named(client: MusicAPI, tmp_path: Path) -> None:
    """The error says which file cannot be copied."""
    result = await make(client, rows(1), tmp_path / "out")
    picks = export(tmp_path / "picks.json", result.report, s0="keep")
    gone = tmp_path / "out" / takes(result.report)[0]["path"]
    gone.unlink()
    with pytest.raises(FolderError, match=re.escape(gone.name)):
        copy_picks(tmp_path / "out", picks)
