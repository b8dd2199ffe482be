"""Downloads: clips, results, replies that hold links, and plain links, in folders where much stands already."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from musicapi_async import Clip, DownloadError, MusicAPI
from musicapi_async.api.replies import Midi, Wav
from musicapi_async.sandbox import Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def client() -> AsyncIterator[MusicAPI]:
    """A client of a sandbox with short songs."""
    async with Sandbox(seed=3, longest=6.0) as box, box.client(pace=None) as client:
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
    with pytest.raises(KeyError):
        stems["kazoo"]
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


async def test_clips_of_one_name_are_numbered(client: MusicAPI, tmp_path: Path) -> None:
    """Two clips never share a file, whatever their links end with."""
    link = str((await song(client)).final_url)
    clips = [Clip(state="succeeded", audio_url=url) for url in (link, link, f"{link}?a", f"{link}?b")]
    names = [path.name for path in await client.download(clips, tmp_path, name="one")]
    assert names == ["one.mp3", "one 2.mp3", "one 3.mp3", "one 4.mp3"]


async def test_what_is_no_file_yet_is_refused(client: MusicAPI, tmp_path: Path) -> None:
    """A clip that runs, a MIDI file that is being built, and links that are none."""
    for files in (
        Clip(clip_id="c", state="running", audio_url="https://audiopipe.suno.ai/?item_id=c"),
        Midi(),
        Wav(wav_url="file:///etc/passwd"),
        "nonsense",
        "https://[bad",
    ):
        with pytest.raises(DownloadError):
            await client.download(files, tmp_path)
    assert os.listdir(tmp_path) == []
