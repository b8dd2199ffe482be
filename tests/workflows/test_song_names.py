"""Names of a batch's files: by row and take, the same in each run, and never another clip's."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mutagen.id3
import mutagen.wave
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import PATIENCE
from small_batches import make, rows

from musicapi_async import Clip, MusicAPI
from musicapi_async.errors import FolderError, RequestValidationError
from musicapi_async.sandbox import Sandbox
from musicapi_async.workflows import Manifest
from musicapi_async.workflows.batch_folder import BatchFolder
from musicapi_async.workflows.song_places import DEFAULT, Layout, check_name_pattern

STEPS = ["wav", "lyrics", "bpm"]


def files_in(out: Path) -> set[str]:
    """The files of a batch but its own records."""
    return {
        str(path.relative_to(out))
        for path in out.rglob("*")
        if path.is_file() and ".musicapi" not in path.parts
    }


def songs_in(out: Path) -> set[bytes]:
    """The content of the songs."""
    return {path.read_bytes() for path in out.glob("*.mp3")}


def fetched(sandbox: Sandbox) -> int:
    """How many files were requested."""
    return sum(entry.path.startswith("/media/") for entry in sandbox.journal)


async def test_files_are_named_by_row_and_take(client: MusicAPI, tmp_path: Path) -> None:
    """Songs with their subtitles, audio of steps in folders, and the rest in `details`."""
    await make(client, rows(1, steps=STEPS, clips="first"), tmp_path)
    assert files_in(tmp_path) == {
        "01 Song 0 (take 1).mp3", "01 Song 0 (take 1).lrc", "01 Song 0 (take 1).srt", "01 Song 0 (take 2).mp3",
        "wav/01 Song 0 (take 1).wav",
        "details/01 Song 0 (take 1).json", "details/01 Song 0 (take 1).png", "details/01 Song 0 (take 1).bpm.json",
        "details/01 Song 0 (take 2).json", "details/01 Song 0 (take 2).png",
        "report.html",
    }  # fmt: skip


async def test_files_have_tags_by_default(client: MusicAPI, tmp_path: Path) -> None:
    """The album is the folder, the track the row; the WAV file has them, too."""
    await make(client, rows(2, steps=["wav"], clips="first"), tmp_path / "Rainy days")
    tags = mutagen.id3.ID3(tmp_path / "Rainy days" / "02 Song 1 (take 2).mp3")
    found = {name: str(tags[name]) for name in ("TIT2", "TALB", "TRCK", "COMM::und", "USLT::und")}
    words = "[Verse]\nRain 1"
    assert found == {
        "TIT2": "Song 1",
        "TALB": "Rainy days",
        "TRCK": "2",
        "COMM::und": words,
        "USLT::und": words,
    }
    assert tags.getall("APIC")[0].data[:4] == b"\x89PNG"
    wave = mutagen.wave.WAVE(tmp_path / "Rainy days" / "wav" / "01 Song 0 (take 1).wav")
    assert str(wave["TIT2"]) == "Song 0"


async def test_run_after_kill_fetches_nothing_again(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """A process killed before a song is settled leaves no record, but files whose metadata say whose they are."""
    songs = rows(2, steps=STEPS, clips="first")
    await make(client, songs, tmp_path)
    files, before = files_in(tmp_path), fetched(sandbox)
    shutil.rmtree(tmp_path / ".musicapi" / "songs")
    result = await make(client, songs, tmp_path)
    assert (result.done, result.submitted, fetched(sandbox), files_in(tmp_path)) == (2, 0, before, files)


async def test_moved_rows_keep_their_files(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """A step that was added finds the song under the number it had; a new row gets the number of its place."""
    one, other, new = rows(3)
    await make(client, [one, other], tmp_path)
    await make(client, [new, one, {**other, "steps": ["wav"]}], tmp_path)
    assert files_in(tmp_path) >= {
        "01 Song 0 (take 1).mp3",
        "02 Song 1 (take 1).mp3",
        "wav/02 Song 1 (take 1).wav",
    }
    assert files_in(tmp_path) >= {"01 Song 2 (take 1).mp3", "01 Song 2 (take 2).mp3"}
    assert len([name for name in files_in(tmp_path) if name.endswith(".mp3")]) == 6


async def test_moved_rows_of_one_title_are_not_mixed_up(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """After a kill nothing but the metadata says whose a file is: each song has one that is its own."""
    songs = [{**row, "title": "Rain"} for row in rows(2)]
    await make(client, songs, tmp_path)
    before = songs_in(tmp_path)
    shutil.rmtree(tmp_path / ".musicapi" / "songs")
    await make(client, songs[::-1], tmp_path)
    assert before < songs_in(tmp_path)
    clips = [clip for one in BatchFolder(tmp_path).records(["s0", "s1"]) for clip in one.clips]
    assert len({clip.file for clip in clips}) == 4
    for clip in clips:
        metadata = json.loads((tmp_path / "details" / f"{clip.name}.json").read_bytes())
        assert metadata["clip_id"] == clip.clip_id


async def test_file_of_someone_else_stays(client: MusicAPI, tmp_path: Path) -> None:
    """The song gets the next name."""
    planted = tmp_path / "01 Song 0 (take 1).mp3"
    planted.write_text("mine")
    await make(client, rows(1), tmp_path)
    assert planted.read_text() == "mine"
    assert "01 Song 0 (take 1) 2.mp3" in files_in(tmp_path)


async def test_folder_of_earlier_version_is_continued(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Its names end with the clip id, and metadata, covers and subtitles are where they were."""
    home = tmp_path / ".musicapi"
    home.mkdir()
    songs = rows(1, steps=STEPS, clips="first")
    await make(client, songs, tmp_path)
    (home / "names.json").unlink()  # earlier versions have none
    shutil.rmtree(home / "songs")
    for name in files_in(tmp_path):
        (tmp_path / name).unlink()
    await make(client, songs, tmp_path)
    (first, second) = sorted(name for name in files_in(tmp_path) if name.endswith(".mp3"))
    one, other = (Path(name).stem for name in (first, second))
    assert all(name.startswith("Song 0 ") and len(name) == len("Song 0 ") + 36 for name in (one, other))
    files, before = files_in(tmp_path), fetched(sandbox)
    assert {f"{one}.json", f"{other}.json"} < files
    assert {
        f"{folder}/{one}.{ending}" for folder, ending in (("lyrics", "lrc"), ("wav", "wav"), ("bpm", "json"))
    } < {name.replace(other, one) for name in files}
    assert len([name for name in files if name.startswith("covers/")]) == 2
    shutil.rmtree(home / "songs")
    assert (await make(client, songs, tmp_path)).submitted == 0
    assert (files_in(tmp_path), fetched(sandbox)) == (files, before)
    with pytest.raises(FolderError, match="which was chosen by the first run"):
        await make(client, songs, tmp_path, name=DEFAULT)


async def test_pattern_is_that_of_first_run(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Later runs need not name it, and may not change it."""
    await make(client, rows(1), tmp_path, name="{id}-{take}")
    assert files_in(tmp_path) >= {"s0-1.mp3", "s0-2.mp3", "details/s0-1.json"}
    await make(client, rows(2), tmp_path)
    assert "s1-1.mp3" in files_in(tmp_path)
    requests = len(sandbox.journal)
    with pytest.raises(FolderError, match="Leave the pattern out, or choose another folder"):
        await make(client, rows(3), tmp_path, name=DEFAULT)
    assert len(sandbox.journal) == requests


@pytest.mark.parametrize(
    "pattern", ["{title}", "{number}", "{take}", "{number} {tak}", "a/{clip_id}", "", "{clip_id"]
)
async def test_pattern_that_cannot_work_is_refused(client: MusicAPI, tmp_path: Path, pattern: str) -> None:
    """One without different names for all files, with unknown fields, or one that leaves the folder."""
    with pytest.raises(RequestValidationError, match="name: a pattern with"):
        await make(client, rows(1), tmp_path / "out", name=pattern)
    assert not (tmp_path / "out").exists()


TITLES = st.text(max_size=90) | st.sampled_from(
    ["", "CON", "../../etc", "a\\b", ".", "x" * 80, "é" * 80, "(take 2)"]
)


@settings(max_examples=25)
@given(
    titles=st.lists(st.tuples(TITLES, st.integers(1, 3)), min_size=1, max_size=6),
    pattern=st.sampled_from(
        [DEFAULT, "{title} {take} {id}", "{id}{take}{title}{title}", "{title}" * 9 + "{clip_id}"]
    ),
)
def test_names_are_different_safe_and_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, titles: list[tuple[str, int]], pattern: str
) -> None:
    """Whatever the titles are: one plain file name for each clip, the same when it is claimed again."""
    check_name_pattern(pattern)
    out = tmp_path_factory.mktemp("out")
    song: dict[str, Any] = {"mv": "sonic-v6", "prompt": "la"}
    songs = Manifest.of([{**song, "id": f"s{number}"} for number, _ in enumerate(titles)]).songs
    numbers = {one.id: number for number, one in enumerate(songs, 1)}
    clips = [
        (one, Clip(clip_id=f"{one.id}-{take}", title=title), take)
        for one, (title, takes) in zip(songs, titles, strict=True)
        for take in range(1, takes + 1)
    ]
    names = [Layout(out, pattern, numbers, len(numbers), tagged=False).claim(*clip, {}) for clip in clips]
    assert len({name.casefold() for name in names}) == len(clips)
    assert all(len(name.encode()) <= 155 and name == Path(name).name for name in names)
    assert [
        Layout(out, pattern, numbers, len(numbers), tagged=False).claim(*clip, {}) for clip in clips
    ] == names


def test_names_that_workers_want_in_the_same_moment_are_those_of_one(tmp_path: Path) -> None:
    """Ids that become the same safe name, in workers that share nothing but the folder: each clip has a name, and
    each name one clip."""
    together = threading.Barrier(6)

    def claim(worker: int) -> list[tuple[str, str]]:
        song = Manifest.of(rows(1, id="a/b" if worker % 2 else "a:b")).songs[0]
        layout = Layout(tmp_path, "{id} {take}", {}, 1, tagged=False)
        claimed: list[tuple[str, str]] = []
        for number in range(12):
            clip = Clip(clip_id=f"{worker} {number}", title="Song", state="succeeded")
            together.wait(60)
            claimed.append((layout.claim(song, clip, number, {}), clip.clip_id))
        return claimed

    with ThreadPoolExecutor(6) as workers:
        claimed = [pair for pairs in workers.map(claim, range(6)) for pair in pairs]
    owners = dict(claimed)
    assert len(owners) == len(claimed) == 72
    for name, clip_id in claimed:
        assert json.loads((tmp_path / "details" / f"{name}.json").read_bytes())["clip_id"] == clip_id


def test_name_whose_claim_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    """A worker was killed while it made the file: no one knows whose it is."""
    (tmp_path / "details").mkdir()
    (tmp_path / "details" / "s0 1.json").touch()
    layout = Layout(tmp_path, "{id} {take}", {}, 1, tagged=False)
    clip = Clip(clip_id="c", title="Song", state="succeeded")
    assert layout.claim(Manifest.of(rows(1)).songs[0], clip, 1, {}) == "s0 1 2"


def test_name_that_another_worker_claims_in_this_moment_is_read_again(tmp_path: Path) -> None:
    """Its file is there before its data is: two workers that have the same song give its clip one name."""
    (tmp_path / "details").mkdir()
    path = tmp_path / "details" / "s0 1.json"
    os.mkfifo(path)  # each open of a reader waits for a writer, so the test decides what each read finds

    was_read = threading.Event()

    def is_being_read() -> bool:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            assert error.errno == errno.ENXIO
            return False
        return True

    def other_worker() -> None:
        os.close(os.open(path, os.O_WRONLY))  # the first read finds nothing
        while is_being_read():
            pass
        was_read.set()
        path.write_bytes(b'{"clip_id": "c"}')

    with ThreadPoolExecutor(1) as workers:
        written = workers.submit(other_worker)
        layout = Layout(tmp_path, "{id} {take}", {}, 1, tagged=False)
        clip = Clip(clip_id="c", title="Song", state="succeeded")
        name = layout.claim(Manifest.of(rows(1)).songs[0], clip, 1, {})
        if path.is_fifo():  # it was not read again, and the other worker still waits for a reader
            was_read.wait(PATIENCE)
            path.read_bytes()
        written.result()
    assert name == "s0 1"
