"""Local files in the rows of a batch: published once, paid for once, refused by line where nothing can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from patience import until
from small_batches import make, rows

from musicapi_async import JobKeyConflictError, MusicAPI, RequestValidationError
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.workflows import Manifest, run_batch

ROW: dict[str, Any] = {"operation": "sonic.upload_cover", "mv": "sonic-v6", "prompt": "[Verse]\nRain"}


class Storage:
    """Publishes files, each time at another address."""

    def __init__(self, link: str) -> None:
        self.link = link
        self.published: list[Path] = []

    async def upload(self, path: Path) -> str:
        self.published.append(path)
        return f"{self.link}?signature={len(self.published)}"


@pytest.fixture
async def storage(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> Storage:
    """A storage whose files are a song that the sandbox has."""
    clips = await (await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nRain"))
    await client.download(clips[0], tmp_path / "source")  # so that its audio is made before it is fetched
    sandbox.journal.clear()
    return Storage(str(clips[0].final_url))


@pytest.fixture
async def publishing(sandbox: Sandbox, storage: Storage) -> AsyncGenerator[MusicAPI]:
    """A client with an uploader."""
    async with sandbox.client(rate_limit=None, uploader=storage.upload) as client:
        yield client


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """A manifest with a file beside it, in a folder that is not the current one."""
    folder = tmp_path / "album"
    (folder / "demos").mkdir(parents=True)
    (folder / "demos" / "one.mp3").write_bytes(b"ID3 one")
    (folder / "songs.jsonl").write_text(json.dumps({**ROW, "url": "demos/one.mp3"}))
    return folder / "songs.jsonl"


def add_before(songs: Path, row: dict[str, Any]) -> None:
    """Add a row at the begin of a manifest."""
    songs.write_text(json.dumps(row) + "\n" + songs.read_text())


def change_row(songs: Path, **fields: str) -> None:
    """Change the row of a manifest that has one."""
    songs.write_text(json.dumps({**json.loads(songs.read_text()), **fields}))


async def test_a_row_with_a_local_file_is_published_and_paid_for_once(
    sandbox: Sandbox, storage: Storage, publishing: MusicAPI, songs: Path, tmp_path: Path
) -> None:
    """Its path begins at the manifest. Once it was sent, the file may be gone; another one in its place is refused."""
    file = songs.parent / "demos" / "one.mp3"

    async def run() -> int:
        return (await run_batch(publishing, songs, out=tmp_path / "out", waveforms=False)).done

    assert await run() == 1
    (create,) = sandbox.journal.creates
    assert create.body["url"] == f"{storage.link}?signature=1"
    assert storage.published == [file]
    for change in (file.touch, file.unlink):
        change()
        for record in (tmp_path / "out" / ".musicapi" / "songs").iterdir():
            record.unlink()  # as after a process that died before it wrote it
        assert await run() == 1
    file.write_bytes(b"ID3 two")
    with pytest.raises(JobKeyConflictError, match=r"line 1 .*url: the file \w+ \(SHA-256\) before"):
        await run()
    assert (len(storage.published), len(sandbox.journal.creates)) == (1, 1)


async def test_a_failed_row_is_sent_again_with_another_file(
    sandbox: Sandbox, storage: Storage, publishing: MusicAPI, songs: Path, tmp_path: Path
) -> None:
    """A correction of the file alone is one of the fields: it has a job of its own."""
    sandbox.faults.on("POST", "/sonic/upload-cover", Fault.fail(), times=2)
    done: list[int] = []
    for content in (b"ID3 one", b"ID3 two", b"ID3 three"):
        (songs.parent / "demos" / "one.mp3").write_bytes(content)
        result = await run_batch(publishing, songs, out=tmp_path / "out", waveforms=False, retry_failed=True)
        done.append(result.done)
    assert done == [0, 0, 1]
    assert [create.body["url"][-1] for create in sandbox.journal.creates] == ["1", "2", "3"]


async def test_a_corrected_row_is_found_again_when_its_file_is_gone(
    sandbox: Sandbox, publishing: MusicAPI, songs: Path, tmp_path: Path
) -> None:
    """Its second job is that of its content: it is paid for, and fetched, without the file."""
    change_row(songs, id="a")
    sandbox.faults.on("POST", "/sonic/upload-cover", Fault.fail())

    async def run(*, retry_failed: bool) -> int:
        return (
            await run_batch(
                publishing, songs, out=tmp_path / "out", waveforms=False, retry_failed=retry_failed
            )
        ).done

    assert await run(retry_failed=False) == 0
    change_row(songs, prompt="[Verse]\nSun")
    assert await run(retry_failed=True) == 1
    (songs.parent / "demos" / "one.mp3").unlink()
    for retry_failed in (False, True):
        for record in (tmp_path / "out" / ".musicapi" / "songs").iterdir():
            record.unlink()  # as after a process that died before it wrote it
        assert await run(retry_failed=retry_failed) == 1
    assert len(sandbox.journal.creates) == 2


async def test_a_row_that_was_sent_before_the_stop_needs_its_file_no_more(
    sandbox: Sandbox, storage: Storage, publishing: MusicAPI, songs: Path, tmp_path: Path
) -> None:
    """It is paid for, and fetched, though the file goes in the moment of the stop."""
    stop = asyncio.Event()
    sandbox.faults.on("POST", "/sonic/upload-cover", Fault.slow(300))
    run = asyncio.ensure_future(
        run_batch(publishing, songs, out=tmp_path / "out", waveforms=False, stop=stop)
    )
    await until(lambda: bool(sandbox.journal.creates))
    storage.published[0].unlink()
    stop.set()
    assert (await run).done == 1


async def test_a_row_whose_file_goes_in_the_run_is_unfinished(
    sandbox: Sandbox, storage: Storage, songs: Path, tmp_path: Path
) -> None:
    """It was not sent, so it has not failed: the next run sends it, when the file is there again."""
    one, other, away = songs.parent / "demos" / "one.mp3", tmp_path / "other.mp3", tmp_path / "away"
    gone: list[Path] = []

    async def unmount(path: Path) -> str:
        gone.append(other if path == one else one)  # either row may come first, as files are read in threads
        gone[0].replace(away)
        return await storage.upload(path)

    add_before(songs, {**ROW, "url": str(other)})
    other.write_bytes(b"ID3 other")
    async with sandbox.client(rate_limit=None, uploader=unmount) as client:
        result = await run_batch(client, songs, out=tmp_path / "out", waveforms=False, max_in_flight=1)
    assert (result.done, result.failed, result.hint) == (1, 0, "")
    (why,) = result.unfinished.values()
    assert "there is no file" in why
    away.replace(gone[0])
    async with sandbox.client(rate_limit=None, uploader=storage.upload) as client:
        again = await run_batch(client, songs, out=tmp_path / "out", waveforms=False)
    assert (again.done, again.submitted) == (2, 1)
    assert len(sandbox.journal.creates) == 2


async def test_paths_and_open_files_in_python(
    sandbox: Sandbox, storage: Storage, publishing: MusicAPI, songs: Path, tmp_path: Path
) -> None:
    """As in a call of the operation itself."""
    file = songs.parent / "demos" / "one.mp3"
    with file.open("rb") as opened:
        given = [
            {**ROW, "id": str(number), "url": one} for number, one in enumerate((str(file), file, opened))
        ]
        result = await make(publishing, given, tmp_path / "out")
    assert result.done == 3
    assert storage.published == [file] * 3
    assert len(sandbox.journal.creates) == 3


async def test_without_an_uploader_files_are_refused_by_line(
    sandbox: Sandbox, client: MusicAPI, songs: Path, tmp_path: Path
) -> None:
    """Nothing is sent, and no folder is made."""
    add_before(songs, rows(1)[0])
    with pytest.raises(RequestValidationError, match="line 2: url: a public link") as caught:
        await run_batch(client, songs, out=tmp_path / "out")
    assert "MusicAPI(uploader=...)" in str(caught.value)
    assert not sandbox.journal.requests()
    assert not (tmp_path / "out").exists()


async def test_missing_files_are_refused_before_the_first_credit(
    sandbox: Sandbox, publishing: MusicAPI, storage: Storage, tmp_path: Path
) -> None:
    """All of them in one error, with other faults of the row found at once, too."""
    given = [*rows(1), *({**ROW, "id": name, "url": f"{name}.mp3"} for name in ("gone", "lost"))]
    with pytest.raises(RequestValidationError) as caught:
        await make(publishing, given, tmp_path / "out")
    assert [fault.field for fault in caught.value.violations] == ["url", "url"]
    assert "line 3: url: there is no file 'lost.mp3'" in str(caught.value)
    assert not sandbox.journal.requests()
    assert not storage.published
    with pytest.raises(RequestValidationError, match="audio_weight"):
        Manifest.of([{**ROW, "url": "gone.mp3", "audio_weight": 3}])
