"""Chains of calls: the right task type, everything of a clip, and nothing paid twice when a step fails."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mido
import pytest

from musicapi_async import (
    Clip,
    Clips,
    ContentModerationError,
    DownloadError,
    FolderError,
    InsufficientCreditsError,
    JobKeyConflictError,
    JobStoreError,
    MusicAPI,
    MusicAPIError,
    OutcomeUnknownError,
    RequestValidationError,
    TaskFailedError,
    TaskTimeoutError,
    workflows,
)
from musicapi_async.api.direct_replies import Upload
from musicapi_async.jobs import Job, SQLiteStore, Transition
from musicapi_async.sandbox import Choices, Fault, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

LYRICS = "[Verse]\nRain on the window\n[Chorus]\nStay for the evening"
SONG = {"mv": "sonic-v6", "prompt": LYRICS, "title": "Rain"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    """A sandbox with short songs."""
    async with Sandbox(seed=2, longest=3.0) as sandbox:
        yield sandbox


@pytest.fixture
async def client(box: Sandbox) -> AsyncIterator[MusicAPI]:
    """A client of it."""
    async with box.client(rate_limit=None) as client:
        yield client


async def song(client: MusicAPI, **fields: Any) -> Clip:
    """A finished clip."""
    return (await (await client.sonic.create_music(**{**SONG, **fields})).wait())[0]


def paid(box: Sandbox) -> Counter[str]:
    """What was charged and kept, by path or task type."""
    found: Counter[str] = Counter()
    for entry in box.journal:
        if entry.charge and not entry.refunded:
            body = entry.body
            found[body.get("task_type", entry.path) if isinstance(body, dict) else entry.path] += 1
    return found


# --- extend and cover --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", [workflows.extend, workflows.cover])
async def test_task_type_follows_from_where_clip_comes_from(
    box: Sandbox, client: MusicAPI, workflow: Any
) -> None:
    """Links, files and uploads go to the upload form, clips and their ids to the other."""
    clip = await song(client)
    link = str(clip.final_url)
    word = workflow.__name__
    at = {"continue_at": 2.0} if word == "extend" else {}
    upload = await client.sonic.upload(link)
    for source, kind, uploads in [
        (clip, f"{word}_music", 0),
        (clip.clip_id, f"{word}_music", 0),
        (upload, f"{word}_upload_music", 0),
        (Upload(clip_id=upload.clip_id), f"{word}_upload_music", 0),
        (link, f"{word}_upload_music", 1),
    ]:
        box.journal.clear()
        task = await workflow(client, source, mv="sonic-v6", prompt=LYRICS, **at)
        assert paid(box) == Counter({kind: 1, **({"/sonic/upload": 1} if uploads else {})})
        assert len(await task.wait()) == 2


async def test_extension_starts_at_end_unless_given(box: Sandbox, client: MusicAPI) -> None:
    """A clip knows its length; a link does not, and then the start is needed."""
    clip = await song(client)
    await workflows.extend(client, clip, mv="sonic-v6", gpt_description_prompt="a quiet outro")
    body = box.journal.creates[-1].body
    assert isinstance(body, dict)
    assert (body["continue_at"], body["custom_mode"]) == (clip.duration, False)
    with pytest.raises(RequestValidationError, match="continue_at"):
        await workflows.extend(client, "https://files.example/a.mp3", **SONG)
    with pytest.raises(RequestValidationError, match=r"^source: an Upload with"):
        await workflows.cover(client, Upload(), **SONG)


async def test_local_file_needs_somebody_who_uploads_it(
    box: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The error says that only public links are taken; the hook gets the path and gives the link."""
    clip = await song(client)
    (path,) = await client.download(clip, tmp_path, name="demo")
    for source in (path, str(path)):
        with pytest.raises(RequestValidationError, match="a public link") as caught:
            await workflows.cover(client, source, **SONG)
        assert "uploader=" in str(caught.value)
    seen: list[Path] = []

    async def uploader(file: Path) -> str:
        seen.append(file)
        return str(clip.final_url)

    async with MusicAPI(box.api_key, base_url=box.base_url, clock=box.clock, uploader=uploader) as publishing:
        task = await workflows.cover(publishing, path, **SONG)
        assert (await task.wait()).status == "succeeded"
        assert seen == [path]
        with pytest.raises(RequestValidationError, match="no file"):
            await workflows.cover(publishing, tmp_path / "none.mp3", **SONG)
    assert paid(box) == {"create_music": 1, "/sonic/upload": 1, "cover_upload_music": 1}


async def test_bad_last_step_costs_no_upload(box: Sandbox, client: MusicAPI) -> None:
    """The fields of the cover are checked before the upload is paid for."""
    with pytest.raises(RequestValidationError, match="title"):
        await workflows.cover(client, "https://files.example/a.mp3", **{**SONG, "title": "x" * 81})
    text = r"sonic\.cover_upload_music\(\) has no argument 'promt' \(did you mean 'prompt'\?\)"
    with pytest.raises(TypeError, match=text):
        await workflows.cover(client, "https://files.example/a.mp3", mv="sonic-v6", promt="misspelt")
    assert len(box.journal) == 0


async def test_upload_is_not_paid_again_when_cover_is_refused(box: Sandbox, client: MusicAPI) -> None:
    """The error carries the uploaded clip; continuing from it, also from stored JSON, uploads nothing."""
    link = str((await song(client)).final_url)
    with pytest.raises(ContentModerationError) as caught:
        await workflows.cover(client, link, mv="sonic-v6", prompt="an example phrase")
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error.checkpoint, workflows.Checkpoint)
    again = workflows.Checkpoint.parse(error.checkpoint.json())
    assert again == error.checkpoint
    task = await workflows.cover(client, link, checkpoint=again, **SONG)
    assert await workflows.cover(client, link, checkpoint=again, **SONG) == task
    assert paid(box) == {"create_music": 1, "/sonic/upload": 1, "cover_upload_music": 1}
    with pytest.raises(RequestValidationError, match="checkpoint"):
        workflows.Checkpoint.parse('{"tasks": 5}')


async def test_upload_that_becomes_task_is_waited_for(box: Sandbox, client: MusicAPI) -> None:
    """Some hosts answer an upload with a task; the workflow continues with its clip."""
    link = str((await song(client)).final_url)
    hooked = client.with_options(extra_body={"callback_url": "http://127.0.0.1:9/hook"})
    upload = await hooked.sonic.upload(link)
    assert upload.clip_id is None
    assert upload.task_id
    task = await workflows.cover(client, upload, **SONG)
    assert (await task.wait()).status == "succeeded"
    assert paid(box)["/sonic/upload"] == 1


# --- the full song -----------------------------------------------------------------------------------------


async def test_full_song_is_source_and_its_extension(box: Sandbox, client: MusicAPI) -> None:
    """Two tasks, one after the other; `choose` decides which extension is joined."""
    clip = await song(client)
    full = await workflows.extend_full(client, clip, continue_at=5.0, choose=lambda clips: clips[1], **SONG)
    assert len(full) == 1
    assert full[0].duration is not None
    assert full[0].duration > 5.0
    parts = await client.task("sonic", box.journal.creates[1].task_id).wait()
    body = box.journal.creates[2].body
    assert isinstance(body, dict)
    assert body["continue_clip_id"] == parts[1].clip_id


async def test_no_step_of_full_song_is_paid_twice(box: Sandbox, client: MusicAPI) -> None:
    """Credits run out, a wait runs out of time, a task is cancelled: continuing pays only what is missing."""
    clip = await song(client)
    checkpoint = workflows.Checkpoint()
    with pytest.raises(TaskTimeoutError):
        await workflows.extend_full(client, clip, timeout=20.0, checkpoint=checkpoint, **SONG)
    assert list(checkpoint.tasks) == ["extend"]
    box.account.credits = 1
    with pytest.raises(InsufficientCreditsError) as caught:
        await workflows.extend_full(client, clip, checkpoint=checkpoint, **SONG)
    assert caught.value.checkpoint is checkpoint
    assert set(checkpoint.clip_ids) == {"part"}
    box.account.credits = 100
    running = asyncio.ensure_future(workflows.extend_full(client, clip, checkpoint=checkpoint, **SONG))
    await asyncio.sleep(5)  # the parts are there, so joining begins at once
    assert "concat" in checkpoint.tasks
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(await workflows.extend_full(client, clip, checkpoint=checkpoint, **SONG)) == 1
    assert paid(box) == {"create_music": 1, "extend_music": 1, "concat_music": 1}


async def test_failed_step_is_made_again(box: Sandbox, client: MusicAPI) -> None:
    """A task that failed was refunded, so continuing submits it again."""
    clip = await song(client)
    box.faults.on("POST", "/sonic/create", Fault.fail())
    with pytest.raises(TaskFailedError) as caught:
        await workflows.extend_full(client, clip, **SONG)
    assert isinstance(caught.value.checkpoint, workflows.Checkpoint)
    assert caught.value.checkpoint.tasks == {}
    assert await workflows.extend_full(client, clip, checkpoint=caught.value.checkpoint, **SONG)
    assert paid(box) == {"create_music": 1, "extend_music": 1, "concat_music": 1}


# --- everything of a clip ------------------------------------------------------------------------------------


async def test_everything_of_clip_in_one_folder(box: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Audio, WAV, MIDI, both subtitles and the stems by name; a second call requests nothing."""
    clip = await song(client)
    files = await workflows.everything(client, clip, tmp_path, name="Rain {1}")
    assert files.audio == tmp_path / "Rain {1}.mp3"
    assert files.wav is not None
    assert files.wav.read_bytes()[8:12] == b"WAVE"
    assert files.midi is not None
    assert mido.MidiFile(files.midi).length > 1
    assert files.lrc is not None
    assert "Rain on the window" in files.lrc.read_text()
    assert files.srt is not None
    assert " --> " in files.srt.read_text()
    assert files.stems.keys() == {"vocals", "instrumental"}
    assert all(path.parent == tmp_path / "stems" and path.is_file() for path in files.stems.values())
    assert sorted(os.listdir(tmp_path)) == [
        ".musicapi", "Rain {1}.lrc", "Rain {1}.mid", "Rain {1}.mp3", "Rain {1}.srt", "Rain {1}.wav", "checkpoint.json", "stems",
    ]  # fmt: skip
    requests = len(box.journal)
    assert await workflows.everything(client, clip, tmp_path, name="Rain {1}") == files
    assert len(box.journal) == requests


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("stems", word) for word in (None, False, True, "", "Basic", "all", ["basic"])),
        *((part, word) for part in ("wav", "midi", "lyrics") for word in ("no", None, 0)),
    ],
)
async def test_part_in_unknown_word_is_refused(
    box: Sandbox, client: MusicAPI, tmp_path: Path, name: str, value: Any
) -> None:
    """It is neither taken for the dearest stems nor for yes; nothing is sent and no folder made."""
    clip = Clip(clip_id="c", state="succeeded")
    parts: dict[str, Any] = {name: value}
    with pytest.raises(RequestValidationError, match=f"^{name}: ") as caught:
        await workflows.everything(client, clip, tmp_path / "clip", **parts)
    assert caught.value.field == name
    assert not (tmp_path / "clip").exists()
    assert len(box.journal) == 0


async def test_second_run_on_one_folder_is_refused(box: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """The process is named, as for a batch, nothing is paid twice, and after it the folder is free."""
    clip = await song(client)
    box.faults.on("POST", "/sonic/wav", Fault.slow(20.0))
    running = asyncio.ensure_future(
        workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False)
    )
    await asyncio.sleep(5)
    assert box.journal.requests("/sonic/wav")
    held = rf"another run holds the folder .*process {os.getpid()}\b"
    with pytest.raises(FolderError, match=held):
        await workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False)
    with pytest.raises(FolderError, match=held):
        await workflows.run_batch(client, workflows.Manifest.of([SONG]), out=tmp_path)
    files = await running
    assert await workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False) == files
    assert paid(box) == {"create_music": 1, "/sonic/wav": 1}


async def test_instrumental_has_no_subtitles(client: MusicAPI, tmp_path: Path) -> None:
    """What the service does not have is None; parts that are not wanted are not requested."""
    clip = await song(client, make_instrumental=True)
    files = await workflows.everything(client, clip, tmp_path, stems="none", wav=False, midi=False)
    assert (files.lrc, files.srt, files.wav, files.midi, files.stems) == (None, None, None, None, {})
    assert files.audio.is_file()


async def test_everything_continues_where_it_stopped(box: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Whatever fails, the other parts are there, and the next call pays only for what it has not got."""
    clip = await song(client)
    box.faults.on(
        "POST", "/sonic/wav", Fault.status(403, body='{"error":"The remaining credits are not enough."}')
    )
    box.faults.on("GET", "/media/*.mid", Fault.status(500), times=6)
    with pytest.raises(MusicAPIError) as caught:
        await workflows.everything(client, clip, tmp_path, timeout=30.0)
    assert len(getattr(caught.value, "__notes__", ())) == 2
    assert (tmp_path / "song.mp3").is_file()
    assert (tmp_path / "song.srt").is_file()
    assert isinstance(caught.value.checkpoint, workflows.Checkpoint)
    assert set(caught.value.checkpoint.tasks) == {"stems_basic"}
    async with box.client(rate_limit=None) as other:
        files = await workflows.everything(other, clip, tmp_path)
    assert files.midi is not None
    assert files.wav is not None
    assert len(files.stems) == 2
    assert paid(box) == {
        "create_music": 1, "/sonic/wav": 1, "/sonic/midi": 1, "/sonic/aligned-lyrics": 1, "/sonic/stems/basic": 1,
    }  # fmt: skip
    assert not box.journal.charged_twice()


async def test_stale_links_and_failed_stems_are_asked_for_again(
    box: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """A link that is gone is forgotten; a stems task that failed was refunded and is submitted again."""
    clip = await song(client)
    box.faults.on("POST", "/sonic/stems/full", Fault.fail())
    box.faults.on("GET", "/media/*.wav", Fault.status(410))
    with pytest.raises((TaskFailedError, DownloadError)):
        await workflows.everything(client, clip, tmp_path, stems="full", midi=False, lyrics=False)
    kept = workflows.Checkpoint.parse((tmp_path / "checkpoint.json").read_text())
    assert kept == workflows.Checkpoint(clip_ids={"clip": clip.clip_id})
    files = await workflows.everything(client, clip, tmp_path, stems="full", midi=False, lyrics=False)
    assert len(files.stems) == 12
    assert paid(box) == {"create_music": 1, "/sonic/wav": 2, "/sonic/stems/full": 1}


async def test_folder_is_of_one_finished_clip(client: MusicAPI, tmp_path: Path) -> None:
    """Another clip's folder, a damaged record and an unfinished clip are refused before anything is paid."""
    clip = await song(client)
    await workflows.everything(client, clip, tmp_path, stems="none", wav=False, midi=False, lyrics=False)
    (tmp_path / "checkpoint.json").write_text('{"clip_ids":{"clip":"other"}}')
    with pytest.raises(RequestValidationError, match="one for each clip"):
        await workflows.everything(client, clip, tmp_path)
    (tmp_path / "checkpoint.json").write_text("damaged")
    with pytest.raises(RequestValidationError, match="checkpoint"):
        await workflows.everything(client, clip, tmp_path)
    with pytest.raises(RequestValidationError, match="finished"):
        await workflows.everything(client, Clip(clip_id="c", state="running"), tmp_path)


async def test_midi_without_file_is_none(box: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A reply without a link is not requested again: that might cost."""
    clip = await song(client)
    body = '{"code":200,"message":"success","data":{"instruments":[]}}'
    box.faults.on("POST", "/sonic/midi", Fault.status(200, body=body))
    for _ in range(2):
        files = await workflows.everything(client, clip, tmp_path, stems="none", wav=False, lyrics=False)
        assert files.midi is None
    assert len(box.journal.requests("/sonic/midi")) == 1


async def test_sources_of_right_kind_pass_strict_service(client: MusicAPI, box: Sandbox) -> None:
    """A service that refuses the wrong form of a source accepts what the workflows choose."""
    clip = await song(client)
    box.choices = Choices(sources="strict")
    assert await workflows.cover(client, clip, **SONG)
    assert await workflows.extend(client, str(clip.final_url), continue_at=0.1, **SONG)


async def test_job_key_of_chain_becomes_one_for_each_step(
    box: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Running a workflow again under its key pays nothing, although only the store remembers it."""
    clip = await song(client)
    again = client.with_options(job_key="demo")
    first = await workflows.extend_full(again, str(clip.final_url), continue_at=2.0, **SONG)
    charges = box.journal.charges
    assert await workflows.extend_full(again, str(clip.final_url), continue_at=2.0, **SONG) == first
    assert box.journal.charges == charges
    for folder in ("a", "b"):
        assert (await workflows.everything(again, clip, tmp_path / folder)).stems
    assert max(paid(box).values()) == 1


async def test_failed_step_is_submitted_again_under_its_key(box: Sandbox, client: MusicAPI) -> None:
    """Under a job key a failure is an answer, too; `resubmit` pays for another try."""
    clip = await song(client)
    keyed = client.with_options(job_key="demo")
    box.faults.on("POST", "/sonic/create", Fault.fail())
    for _ in range(2):
        with pytest.raises(TaskFailedError):
            await workflows.extend_full(keyed, clip, **SONG)
    await client.resubmit("demo.extend")
    assert len(await workflows.extend_full(keyed, clip, **SONG)) == 1
    assert paid(box) == {"create_music": 1, "extend_music": 1, "concat_music": 1}


# --- outcomes that are unknown, and links ------------------------------------------------------------------


async def test_step_of_unknown_outcome_is_not_paid_again(box: Sandbox, client: MusicAPI) -> None:
    """Continuing is refused until the caller says which task the step made, also from stored JSON."""
    clip = await song(client)
    box.faults.on("POST", "/sonic/create", Fault.reset_after)
    with pytest.raises(OutcomeUnknownError) as caught:
        await workflows.extend_full(client, clip, **SONG)
    assert isinstance(caught.value.checkpoint, workflows.Checkpoint)
    checkpoint = workflows.Checkpoint.parse(caught.value.checkpoint.json())
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError, match="extend") as again:
            await workflows.extend_full(client, clip, checkpoint=checkpoint, **SONG)
        assert again.value.checkpoint is checkpoint
    made = client.task("sonic", str(box.journal.creates[-1].task_id))
    checkpoint.resolve("extend", task=made.token)
    assert len(await workflows.extend_full(client, clip, checkpoint=checkpoint, **SONG)) == 1
    assert paid(box) == {"create_music": 1, "extend_music": 1, "concat_music": 1}


async def test_step_of_unknown_outcome_is_sent_again_when_told(box: Sandbox, client: MusicAPI) -> None:
    """An upload whose outcome is unknown, too; what is not open cannot be resolved."""
    link = str((await song(client)).final_url)
    box.faults.on("POST", "/sonic/upload", Fault.reset_before)
    checkpoint = workflows.Checkpoint()
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError):
            await workflows.cover(client, link, checkpoint=checkpoint, **SONG)
    for step, given in (("cover", {"task": "x"}), ("upload", {}), ("upload", {"task": "x", "clip_id": "y"})):
        with pytest.raises(RequestValidationError):
            checkpoint.resolve(step, **given)
    checkpoint.resubmit("upload")
    assert await workflows.cover(client, link, checkpoint=checkpoint, **SONG)
    assert paid(box) == {"create_music": 1, "/sonic/upload": 1, "cover_upload_music": 1}


async def test_step_whose_caller_was_cancelled_is_not_paid_again(box: Sandbox, client: MusicAPI) -> None:
    """It is not known if a call that was cancelled had left, so it stays open."""
    clip = await song(client)
    box.faults.on("POST", "/sonic/create", Fault.slow(20.0))
    checkpoint = workflows.Checkpoint()
    running = asyncio.ensure_future(workflows.extend(client, clip, checkpoint=checkpoint, **SONG))
    await asyncio.sleep(5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(OutcomeUnknownError):
        await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
    assert paid(box) == {"create_music": 1, "extend_music": 1}


@pytest.mark.parametrize("ends", ["time-out", "choose"])
async def test_workflow_that_ends_without_its_error_leaves_its_checkpoint_in_the_log(
    box: Sandbox, client: MusicAPI, caplog: pytest.LogCaptureFixture, ends: str
) -> None:
    """A time-out around it, or a mistake in the caller's own function, loses nothing that was paid for."""

    def choose(parts: Clips) -> Clip:
        return parts[99]

    clip = await song(client)
    if ends == "choose":
        with pytest.raises(IndexError):
            await workflows.extend_full(client, clip, choose=choose, **SONG)
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await workflows.extend_full(client, clip, **SONG)
    (text,) = (str(one.args[0]) for one in caplog.records if one.args and "checkpoint" in one.getMessage())
    checkpoint = workflows.Checkpoint.parse(text)
    assert len(await workflows.extend_full(client, clip, checkpoint=checkpoint, **SONG)) == 1
    assert paid(box) == {"create_music": 1, "extend_music": 1, "concat_music": 1}


async def test_open_step_that_was_written_down_is_settled_by_its_job(box: Sandbox, client: MusicAPI) -> None:
    """Under a job key the store keeps the promise, and `client.resolve` settles the workflow's step, too."""
    clip = await song(client)
    keyed = client.with_options(job_key="demo")
    box.faults.on("POST", "/sonic/create", Fault.reset_after)
    checkpoint = workflows.Checkpoint()
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError):
            await workflows.extend_full(keyed, clip, checkpoint=checkpoint, **SONG)
    await client.resolve("demo.extend", task_id=str(box.journal.creates[-1].task_id))
    assert len(await workflows.extend_full(keyed, clip, checkpoint=checkpoint, **SONG)) == 1
    assert paid(box) == {"create_music": 1, "extend_music": 1, "concat_music": 1}


async def test_part_of_unknown_outcome_is_not_paid_again(
    box: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The folder remembers that the WAV may be paid for, in a later process as well."""
    clip = await song(client)
    box.faults.on("POST", "/sonic/wav", Fault.reset_after)
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError) as caught:
            await workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False)
    assert len(box.journal.requests("/sonic/wav")) == 1
    assert isinstance(caught.value.checkpoint, workflows.Checkpoint)
    caught.value.checkpoint.resubmit("wav")
    files = await workflows.everything(
        client, clip, tmp_path, stems="none", midi=False, lyrics=False, checkpoint=caught.value.checkpoint
    )
    assert files.wav is not None


async def test_paid_link_is_kept_while_file_is_late(box: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A file that is not there yet is looked for under the same link by the next call."""
    clip = await song(client)
    box.faults.on("GET", "/media/*.wav", Fault.status(404), times=6)
    with pytest.raises(DownloadError):
        await workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False)
    files = await workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False)
    assert files.wav is not None
    assert paid(box) == {"create_music": 1, "/sonic/wav": 1}


async def test_link_that_worked_before_goes_stale(box: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Once the file has been there, a refusal means that the link is gone."""
    clip = await song(client)
    files = await workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False)
    assert files.wav is not None
    files.wav.unlink()
    box.faults.on("GET", "/media/*.wav", Fault.status(404), times=6)
    with pytest.raises(DownloadError):
        await workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False)
    assert await workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False) == files
    assert paid(box) == {"create_music": 1, "/sonic/wav": 2}


# --- what an error without a charge says of the calls before it -----------------------------------------------


class Disk(SQLiteStore):
    """A store that cannot write while its disk is full; a dying one cannot be read after that, either."""

    full = dying = dead = False

    async def change(
        self, key: str, transition: Transition, *, account: str = "", durable: bool = False
    ) -> Job | None:
        if self.full:
            self.dead = self.dying
            raise JobStoreError("the disk is full", path=str(self.path))
        return await super().change(key, transition, account=account, durable=durable)

    async def get(self, key: str, *, account: str = "") -> Job | None:
        if self.dead:
            raise JobStoreError("the disk is gone", path=str(self.path))
        return await super().get(key, account=account)


@pytest.mark.parametrize("dying", [False, True])
async def test_full_disk_does_not_make_step_of_unknown_outcome_new(
    box: Sandbox, tmp_path: Path, dying: bool
) -> None:
    """What could not be written down was not sent; that an earlier call may be paid for stays known."""
    store = Disk(tmp_path / "jobs.sqlite")
    async with box.client(rate_limit=None, store=store) as client:
        clip = await song(client)
        box.faults.on("POST", "/sonic/create", Fault.reset_after)
        checkpoint = workflows.Checkpoint()
        with pytest.raises(OutcomeUnknownError):
            await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
        noted = dict(checkpoint.unknown)
        store.full, store.dying = True, dying
        with pytest.raises(JobStoreError):
            await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
        store.full = store.dead = False
        assert checkpoint.unknown == noted
        with pytest.raises(OutcomeUnknownError):
            await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
    assert paid(box) == {"create_music": 1, "extend_music": 1}


async def test_other_words_do_not_make_step_of_unknown_outcome_new(box: Sandbox, tmp_path: Path) -> None:
    """A changed prompt is refused as often as it is tried; the words of the first call are settled."""
    async with box.client(rate_limit=None, store=SQLiteStore(tmp_path / "jobs.sqlite")) as client:
        clip = await song(client)
        box.faults.on("POST", "/sonic/create", Fault.reset_after)
        checkpoint = workflows.Checkpoint()
        with pytest.raises(OutcomeUnknownError):
            await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
        for _ in range(2):
            with pytest.raises(JobKeyConflictError):
                await workflows.extend(
                    client, clip, checkpoint=checkpoint, **{**SONG, "prompt": "other words"}
                )
        (key,) = checkpoint.unknown.values()
        await client.resolve(key, task_id=str(box.journal.creates[-1].task_id))
        assert await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
        assert checkpoint.unknown == {}
    assert paid(box) == {"create_music": 1, "extend_music": 1}


async def test_step_that_was_refused_is_open_no_more(box: Sandbox, tmp_path: Path) -> None:
    """A refusal frees the key of the step, so other words may follow, with a store as without."""
    async with box.client(rate_limit=None, store=SQLiteStore(tmp_path / "jobs.sqlite")) as client:
        clip = await song(client)
        checkpoint = workflows.Checkpoint()
        with pytest.raises(ContentModerationError):
            await workflows.extend(
                client, clip, checkpoint=checkpoint, mv="sonic-v6", prompt="an example phrase"
            )
        assert checkpoint.unknown == {}
        assert await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
    assert paid(box) == {"create_music": 1, "extend_music": 1}


# --- settling a step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "taken"),
    [
        ("upload", {"task", "clip_id"}),
        ("wav", {"link"}),
        ("midi", {"link"}),
        ("extend", {"task"}),
        ("cover", {"task"}),
        ("concat", {"task"}),
        ("stems_basic", {"task"}),
        ("stems_full", {"task"}),
    ],
)
def test_step_is_settled_only_by_what_it_reads(step: str, taken: set[str]) -> None:
    """Anything else is refused, says what is taken, and leaves the step open."""
    for given in ("task", "clip_id", "link"):
        checkpoint = workflows.Checkpoint(unknown={step: "a key"})
        if given in taken:
            checkpoint.resolve(step, **{given: "it"})
            assert checkpoint.unknown == {}
        else:
            with pytest.raises(RequestValidationError, match=rf"'{step}' takes \w+=.*got {given}"):
                checkpoint.resolve(step, **{given: "it"})
            assert checkpoint == workflows.Checkpoint(unknown={step: "a key"})


async def test_clip_does_not_settle_step_whose_task_made_it(box: Sandbox, client: MusicAPI) -> None:
    """The refusal says how to name the task, and then the extension is not paid for again."""
    clip = await song(client)
    box.faults.on("POST", "/sonic/create", Fault.reset_after)
    checkpoint = workflows.Checkpoint()
    with pytest.raises(OutcomeUnknownError):
        await workflows.extend_full(client, clip, checkpoint=checkpoint, **SONG)
    made = client.task("sonic", str(box.journal.creates[-1].task_id))
    with pytest.raises(RequestValidationError, match="token"):
        checkpoint.resolve("extend", clip_id=(await made.wait())[0].clip_id)
    with pytest.raises(OutcomeUnknownError, match=r"checkpoint\.resolve\('extend', task="):
        await workflows.extend_full(client, clip, checkpoint=checkpoint, **SONG)
    checkpoint.resolve("extend", task=made.token)
    assert await workflows.extend_full(client, clip, checkpoint=checkpoint, **SONG)
    assert paid(box) == {"create_music": 1, "extend_music": 1, "concat_music": 1}


async def test_link_settles_file_and_clip_upload(box: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Neither the WAV nor the upload is paid for again."""
    clip = await song(client)
    box.faults.on("POST", "/sonic/wav", Fault.reset_after)
    with pytest.raises(OutcomeUnknownError) as caught:
        await workflows.everything(client, clip, tmp_path, stems="none", midi=False, lyrics=False)
    assert isinstance(caught.value.checkpoint, workflows.Checkpoint)
    link = (await client.sonic.wav((await song(client)).clip_id)).wav_url
    caught.value.checkpoint.resolve("wav", link=link)
    files = await workflows.everything(
        client, clip, tmp_path, stems="none", midi=False, lyrics=False, checkpoint=caught.value.checkpoint
    )
    assert files.wav is not None
    upload = await client.sonic.upload(str(clip.final_url))
    box.faults.on("POST", "/sonic/upload", Fault.reset_after)
    checkpoint = workflows.Checkpoint()
    with pytest.raises(OutcomeUnknownError):
        await workflows.cover(client, str(clip.final_url), checkpoint=checkpoint, **SONG)
    checkpoint.resolve("upload", clip_id=str(upload.clip_id))
    assert await workflows.cover(client, str(clip.final_url), checkpoint=checkpoint, **SONG)
    assert paid(box) == {"create_music": 2, "/sonic/wav": 2, "/sonic/upload": 2, "cover_upload_music": 1}


# --- steps that never left -------------------------------------------------------------------------------------


async def test_step_that_could_not_be_noted_was_not_sent(
    box: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The folder cannot be written for a while; another part then writes no lie about the WAV."""
    clip = await song(client)
    midi = (await client.sonic.midi(clip.clip_id)).midi_url
    checkpoint = workflows.Checkpoint(clip_ids={"clip": clip.clip_id}, links={"midi": str(midi)})
    (tmp_path / workflows.CHECKPOINT_FILE).write_text(checkpoint.json())
    obstacle = tmp_path / f"{workflows.CHECKPOINT_FILE}.part"
    obstacle.mkdir()
    box.faults.on("GET", "/media/*.mid", Fault.slow(20.0))
    running = asyncio.ensure_future(workflows.everything(client, clip, tmp_path, stems="none", lyrics=False))
    await asyncio.sleep(10)
    obstacle.rmdir()
    with pytest.raises(OSError, match=r"checkpoint\.json"):
        await running
    assert not box.journal.requests("/sonic/wav")
    noted = workflows.Checkpoint.parse((tmp_path / workflows.CHECKPOINT_FILE).read_bytes())
    assert noted.files.keys() == {"midi"}
    assert noted.unknown == {}
    files = await workflows.everything(client, clip, tmp_path, stems="none", lyrics=False)
    assert files.wav is not None
    assert paid(box) == {"create_music": 1, "/sonic/midi": 1, "/sonic/wav": 1}


async def test_nothing_planted_in_folder_leads_to_other_files(client: MusicAPI, tmp_path: Path) -> None:
    """Links under the names of temporary files are removed, never followed."""
    clip = await song(client)
    out, victim = tmp_path / "out", tmp_path / "victim"
    out.mkdir()
    victim.write_text("precious")
    for name in (
        workflows.CHECKPOINT_FILE,
        "song.lrc",
        "song.srt",
        "song.mp3",
        "song.mp3.source",
        "song.wav",
    ):
        (out / f"{name}.part").symlink_to(victim)
    files = await workflows.everything(client, clip, out, stems="none", midi=False)
    assert files.lrc is not None
    assert not any(path.is_symlink() for path in (files.audio, files.lrc, out / workflows.CHECKPOINT_FILE))
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("stored", [False, True])
async def test_step_cancelled_in_queue_is_reported_as_it_is(
    box: Sandbox, tmp_path: Path, stored: bool
) -> None:
    """With a store nothing had left for certain, and continuing sends it; without one it is begun, not sent."""
    store = SQLiteStore(tmp_path / "jobs.sqlite") if stored else None
    checkpoint = workflows.Checkpoint()
    async with box.client(rate_limit="1/1000s", store=store) as client:
        clip = await song(client)
        running = asyncio.ensure_future(workflows.extend(client, clip, checkpoint=checkpoint, **SONG))
        await asyncio.sleep(5)
        assert list(checkpoint.unknown) == ["extend"]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        if stored:
            assert checkpoint.unknown == {}
        else:
            with pytest.raises(OutcomeUnknownError, match="begun before and may have been sent"):
                await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
            checkpoint.resubmit("extend")
        assert await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
    assert paid(box) == {"create_music": 1, "extend_music": 1}


async def test_step_cancelled_after_it_left_stays_open_with_store(box: Sandbox, tmp_path: Path) -> None:
    """Its job waits for the answer, and continuing finds it there."""
    checkpoint = workflows.Checkpoint()
    async with box.client(rate_limit=None, store=SQLiteStore(tmp_path / "jobs.sqlite")) as client:
        clip = await song(client)
        box.faults.on("POST", "/sonic/create", Fault.slow(20.0))
        running = asyncio.ensure_future(workflows.extend(client, clip, checkpoint=checkpoint, **SONG))
        await asyncio.sleep(5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert list(checkpoint.unknown) == ["extend"]
        assert await workflows.extend(client, clip, checkpoint=checkpoint, **SONG)
        assert checkpoint.unknown == {}
    assert paid(box) == {"create_music": 1, "extend_music": 1}
