"""Downloads: clips, results, replies that hold links, and plain links, in folders where much stands already."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from musicapi_async import (
    Clip,
    DownloadError,
    MusicAPI,
    RequestValidationError,
    TaskFailedError,
    TaskUpdate,
    Voice,
)
from musicapi_async._transport.links import Fetchable
from musicapi_async.api.direct_replies import Midi, Persona, Wav
from musicapi_async.sandbox import Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def client() -> AsyncIterator[MusicAPI]:
    """A client of a sandbox with short songs."""
    async with Sandbox(seed=3, longest=6.0) as box, box.client(rate_limit=None) as client:
        yield client


async def song(client: MusicAPI) -> Clip:
    """A finished clip."""
    task = await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla la la", title="Rain")
    return (await task.wait())[0]


async def test_replies_with_links_are_fetched_as_they_are(client: MusicAPI, tmp_path: Path) -> None:
    """A WAV, a MIDI file, several formats, stems by name and a plain link, each whole and of its kind."""
    clip = await song(client)
    (wav,) = await client.download(await client.sonic.wav(clip.clip_id), tmp_path)
    assert wav == tmp_path / f"{clip.clip_id}.wav"
    assert wav.read_bytes()[:4] == b"RIFF"
    (midi,) = await client.download(await client.sonic.midi(clip.clip_id), tmp_path, name="notes")
    assert (midi.name, midi.read_bytes()[:4]) == ("notes.mid", b"MThd")
    files = await client.download(
        await client.sonic.download(clip.clip_id, ["mp3", "m4a", "wav"]), tmp_path, name="x"
    )
    assert [path.name for path in files] == ["x.mp3", "x.m4a", "x.wav"]
    stems = await (await client.sonic.stems_basic(clip.clip_id)).wait()
    paths = await client.download(stems, tmp_path, name="{title}, {name}")
    assert sorted(path.name for path in paths) == [
        "Rain - Instrumental, instrumental.mp3",
        "Rain - Vocals, vocals.mp3",
    ]
    assert stems["vocals"].name == "vocals"
    assert [stem.name for stem in stems] == [stem.name for stem in stems[:2]] == ["vocals", "instrumental"]
    for name, meant in (("Vocal", " (did you mean 'vocals'?)"), ("kazoo", "")):
        with pytest.raises(KeyError) as caught:
            stems[name]
        assert caught.value.args == (f"no stem {name!r}{meant}; there are vocals, instrumental",)
    (again,) = await client.download(str(clip.final_url), tmp_path)
    assert again.name == f"{clip.clip_id}.mp3"


async def test_formats_of_one_name_stand_beside_each_other(client: MusicAPI, tmp_path: Path) -> None:
    """A WAV is fetched although the MP3 of that name is there; what is there of its format is not."""
    clip = await song(client)
    (mp3,) = await client.download(clip, tmp_path, name="song")
    wav = await client.sonic.wav(clip.clip_id)
    for _ in range(2):
        assert await client.download(wav, tmp_path, name="song") == [tmp_path / "song.wav"]
    assert mp3.name == "song.mp3"
    kept = mp3.stat().st_mtime_ns
    assert await client.download(clip, tmp_path, name="song") == [mp3]
    assert mp3.stat().st_mtime_ns == kept


async def test_a_file_that_is_named_in_two_ways_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two downloads at once into one folder, by a relative and an absolute path, write one file once."""
    monkeypatch.chdir(tmp_path)
    async with Sandbox(seed=3, longest=6.0) as box, box.client(rate_limit=None) as client:
        clip = await song(client)
        one, other = await asyncio.gather(
            client.download(clip, "out"), client.download(clip, tmp_path / "out")
        )
        assert one[0].resolve() == other[0]
        assert len(box.journal.requests(kind="media")) == 1


async def test_clips_of_one_name_are_numbered(client: MusicAPI, tmp_path: Path) -> None:
    """Two clips never share a file, whatever their links end with."""
    link = str((await song(client)).final_url)
    clips = [Clip(state="succeeded", audio_url=url) for url in (link, link, f"{link}?a", f"{link}?b")]
    names = [path.name for path in await client.download(clips, tmp_path, name="one")]
    assert names == ["one.mp3", "one 2.mp3", "one 3.mp3", "one 4.mp3"]


async def test_what_has_ended_is_fetched_however_it_is_held(client: MusicAPI, tmp_path: Path) -> None:
    """A task, its last update, its result, and lists of them give the same files."""
    task = await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla la la", title="Rain")
    clips = await task.wait()
    assert task.last is not None
    held: list[Fetchable] = [task, task.last, clips, list(clips), [clips], [task], clips.succeeded]
    paths = [await client.download(one, tmp_path) for one in held]
    assert all(len(found) == 2 and found == paths[0] for found in paths)
    assert await client.download([], tmp_path) == []
    (one, other, third) = await client.download([clips, str(clips[0].final_url)], tmp_path / "more")
    assert len({one, other, third}) == 3


async def test_what_is_no_file_yet_is_refused(client: MusicAPI, tmp_path: Path) -> None:
    """A task that runs, its empty clips, a MIDI file that is being built, and links that are none: each says
    what to do."""
    fresh = await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla la la", title="Rain")
    looked = await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla la la", title="Rain")
    update = await looked.refresh()
    running = Clip(clip_id="c", state="running", audio_url="https://audiopipe.suno.ai/?item_id=c")
    cases: list[tuple[Any, str]] = [
        (fresh, "clips = await task.wait()"),
        (looked, "clips = await task.wait()"),
        (update, "clips = await task.wait()"),
        (update.clips, "clips = await task.wait()"),
        ([update.clips], "clips = await task.wait()"),
        (running, "Wait for the task first"),
        (Midi(), "Call midi() again"),
        (Wav(wav_url="file:///etc/passwd"), "Give an http link"),
        ("nonsense", "Give an http link"),
        ("https://[bad", "Give an http link"),
    ]
    for files, advice in cases:
        with pytest.raises(DownloadError) as caught:
            await client.download(files, tmp_path)
        assert advice in str(caught.value), files
        assert "is already paid for" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "files", [None, 7, {"clip_id": "c"}, b"https://a.example/x.mp3", Voice("p"), [Persona()]]
)
async def test_what_never_is_a_file_is_refused(client: MusicAPI, tmp_path: Path, files: Any) -> None:
    """The error says what can be given, and what was."""
    with pytest.raises(RequestValidationError, match="files: a clip, clips, the result of a task") as caught:
        await client.download(files, tmp_path)
    assert caught.value.field == "files"
    assert caught.value.value in {"NoneType", "int", "dict", "bytes", "Voice", "Persona"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "{",
        "{}",
        "{author}",
        "{title}/{index}",
        "{title!x}",
        "{index:q}",
        "{title:d}",
        "{index!s:d}",
        "{title:{clip_id}}",
        "{title:{author}}",
        "{title:>9999999999}",
    ],
)
async def test_a_name_that_cannot_be_filled_in_is_refused(
    client: MusicAPI, tmp_path: Path, name: str
) -> None:
    """Before anything is fetched, as a fault of `name`, whichever part of the pattern is wrong."""
    links = [f"{client.base_url}/{number}.mp3" for number in range(3)]
    with pytest.raises(
        RequestValidationError, match="name: a pattern with the fields title, clip_id"
    ) as caught:
        await client.download(links, tmp_path / "songs", name=name)
    assert caught.value.field == "name"
    assert os.listdir(tmp_path) == []


async def test_a_name_may_be_formatted(client: MusicAPI, tmp_path: Path) -> None:
    """Widths, cuts and conversions of the fields, and braces that are meant as such."""
    clip = await song(client)
    (path,) = await client.download(clip, tmp_path, name="{index:03d} {title!s:.2} {{x}}")
    assert path.name == "000 Ra {x}.mp3"


async def test_a_forgotten_await_is_named(client: MusicAPI, tmp_path: Path) -> None:
    """`client.download(task.wait(), ...)` says what is missing, and Python need not warn besides."""
    task = client.task("sonic", "t")
    with pytest.raises(RequestValidationError, match="Await it first"):
        await client.download(cast("Any", task.wait()), tmp_path)


async def test_a_failed_task_has_no_files_but_an_error(client: MusicAPI, tmp_path: Path) -> None:
    """Its own error comes, not one about files."""
    failed = TaskUpdate("failed", task_id="t", error=TaskFailedError("no", task_id="t"))
    with pytest.raises(TaskFailedError):
        await client.download(failed, tmp_path)


async def test_a_link_that_has_expired_says_where_a_fresh_one_is(client: MusicAPI, tmp_path: Path) -> None:
    """Hosts answer 403 or 404 then; trying again would not help."""
    link = str((await song(client)).final_url).replace(".mp3", "-gone.mp3")
    with pytest.raises(DownloadError, match="Links expire: poll the task once more"):
        await client.download(link, tmp_path)
