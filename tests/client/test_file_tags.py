"""Tags in downloaded files: complete, the same again, and never at the cost of a song."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import mutagen
import mutagen.id3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicapi_async import Clip, Clips, FileTags, MusicAPI, RequestValidationError
from musicapi_async._transport.audio_tags import Tagger
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop
from musicapi_async.workflows import Manifest, run_batch

PROMPT = "calm rain over a small town"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    """A sandbox with short songs."""
    async with Sandbox(seed=3, longest=3.0) as box:
        yield box


@pytest.fixture
async def client(box: Sandbox) -> AsyncIterator[MusicAPI]:
    """A client of it."""
    async with box.client(rate_limit=None) as client:
        yield client


async def song(client: MusicAPI) -> Clips:
    """Two finished clips."""
    return await (await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt=PROMPT)).wait()


def audio_of(data: bytes) -> bytes:
    """The file behind its tags."""
    try:
        return data[mutagen.id3.ID3(BytesIO(data)).size :]
    except mutagen.id3.ID3NoHeaderError:
        return data


async def test_all_tags_are_in_the_file(client: MusicAPI, tmp_path: Path) -> None:
    """Title, artist, album, track, style, lyrics, cover, and the prompt in a comment; the audio is as it came."""
    clips = await song(client)
    plain = await client.download(clips, tmp_path / "plain")
    paths = await client.download(clips, tmp_path / "Rain", tags=True)
    for track, (clip, path, untagged) in enumerate(zip(clips, paths, plain, strict=True), 1):
        tags = mutagen.id3.ID3(path)
        frames = ("TIT2", "TPE1", "TALB", "TRCK", "TCON", "USLT::und", "COMM::und")
        found = [str(tags[name]) for name in frames]
        assert found == [clip.title, "Sandbox", "Rain", str(track), clip.tags, clip.lyrics, PROMPT]
        assert (tags.version, tags.getall("APIC")[0].mime) == ((2, 3, 0), "image/png")
        assert audio_of(path.read_bytes()) == audio_of(untagged.read_bytes())
    assert sorted(path.suffix for path in (tmp_path / "Rain").iterdir()) == [".mp3", ".mp3"]


async def test_copy_of_killed_process_is_gone(client: MusicAPI, tmp_path: Path) -> None:
    """So is a link of that name, which is not followed."""
    clips, victim = await song(client), tmp_path / "victim"
    victim.write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    for clip in clips:
        (out / f"{clip.title} {clip.clip_id}.mp3.tagged.part").symlink_to(victim)
    await client.download(clips[0], out, tags=True)
    await client.download(clips[1], out)
    assert victim.read_text() == "precious"
    assert [path for path in os.listdir(out) if not path.endswith(".mp3")] == []


async def test_given_tags_are_taken(client: MusicAPI, tmp_path: Path) -> None:
    """Those that are not given follow from the clip; no cover is fetched where one is given."""
    clips = await song(client)
    tags = FileTags(artist="Rain Band", album="Evenings", track=7, comment="first try", cover=b"")
    (path, _) = await client.download(clips, tmp_path, tags=tags)
    found = mutagen.id3.ID3(path)
    assert [str(found[name]) for name in ("TIT2", "TPE1", "TALB", "TRCK", "COMM::und")] == [
        clips[0].title, "Rain Band", "Evenings", "7", "first try"
    ]  # fmt: skip
    with pytest.raises(RequestValidationError, match="tags: True, False or a FileTags"):
        await client.download(clips, tmp_path, tags=cast("bool", "yes"))


@pytest.mark.parametrize("name", ["{title} {clip_id}", "{title}"])
async def test_tagged_files_are_the_same_again(
    box: Sandbox, client: MusicAPI, tmp_path: Path, name: str
) -> None:
    """A file that has its name by its id is not even requested, and any other is the same, byte for byte."""
    clips = await song(client)
    first = await client.download(clips, tmp_path, name=name, tags=True)
    before, data = len(box.journal), [path.read_bytes() for path in first]
    assert await client.download(clips, tmp_path, name=name, tags=True) == first
    assert [path.read_bytes() for path in first] == data
    assert len(os.listdir(tmp_path)) == 2
    if "clip_id" in name:
        assert len(box.journal) == before


async def test_file_that_is_there_gets_tags_once(box: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """One without an album is tagged without being fetched again; later changes of its owner stay."""
    clips = await song(client)
    (path, _) = await client.download(clips, tmp_path)
    requests = [entry.path for entry in box.journal if entry.path.endswith(".mp3")]
    await client.download(clips, tmp_path, tags=True)
    tags = mutagen.id3.ID3(path)
    assert str(tags["COMM::und"]) == PROMPT
    tags.setall("TIT2", [mutagen.id3.TIT2(encoding=3, text="My title")])
    tags.save()
    await client.download(clips, tmp_path, tags=True)
    assert str(mutagen.id3.ID3(path)["TIT2"]) == "My title"
    assert [entry.path for entry in box.journal if entry.path.endswith(".mp3")] == requests


async def test_missing_cover_costs_no_song(
    box: Sandbox, client: MusicAPI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other tags are there, and the log says why there is none."""
    box.faults.on("GET", "/media/image_*", Fault.status(404), times=None)
    (path, _) = await client.download(await song(client), tmp_path, tags=True)
    assert str(mutagen.id3.ID3(path)["TALB"]) == tmp_path.name
    assert sum("no cover of clip" in record.getMessage() for record in caplog.records) == 2


async def test_late_cover_delays_no_song(
    box: Sandbox, client: MusicAPI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A host that answers for covers after minutes: the file is there soon, with the other tags."""
    clips = await song(client)
    box.faults.on("GET", "/media/image_*", Fault.slow(300), times=None)
    began = client.clock.now()
    (path, _) = await client.download(clips, tmp_path, tags=True)
    assert client.clock.now() - began < 30
    assert str(mutagen.id3.ID3(path)["TALB"]) == tmp_path.name
    assert "it did not come in 15 s" in caplog.text


async def test_cover_that_waits_for_other_files_is_not_late(
    box: Sandbox, client: MusicAPI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its time begins when it is fetched: many downloads at once leave no cover out."""
    clips = await song(client)
    box.faults.on("GET", "/media/*.mp3", Fault.slow(20), times=None)
    async with asyncio.TaskGroup() as group:
        for number in range(8):  # as many files as the lane fetches at once, and more
            group.create_task(client.download(clips, tmp_path / f"{number}"))
        group.create_task(client.download(clips, tmp_path / "tagged", tags=True))
    assert "no cover of clip" not in caplog.text
    assert sum(entry.path.startswith("/media/image_") for entry in box.journal) == len(clips)


async def test_batch_saves_a_song_before_its_late_cover(
    box: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The audio is requested while the cover is tried again, and the cover is there in the end."""
    box.faults.on("GET", "/media/image_*", Fault.slow(300), times=4)
    rows = [{"mv": "sonic-v6", "gpt_description_prompt": PROMPT}]
    await run_batch(client, Manifest.of(rows), out=tmp_path, tags=True, waveforms=False)
    asked = [entry.path for entry in box.journal if entry.path.startswith("/media/")]
    kinds = ["cover" if "image_" in path else "audio" for path in asked]
    assert kinds[:4] == ["cover", "cover", "audio", "audio"]
    assert kinds.count("cover") == 2 + 4
    assert len(list((tmp_path / "details").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (mutagen.MutagenError("odd"), "odd"),
        (OSError(28, "No space left", "song.mp3.part"), "No space left"),
        (mutagen.MutagenError(OSError(28, "No space left")), "No space left"),
        (LookupError("new"), "new"),
    ],
)
async def test_tags_that_fail_cost_no_song(
    client: MusicAPI,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    words: str,
) -> None:
    """The file is as it came, nothing remains beside it, and the log says in words what failed."""
    clips = await song(client)
    plain = await client.download(clips, tmp_path / "plain")
    monkeypatch.setattr(mutagen.id3.ID3, "save", lambda *_args, **_options: (_ for _ in ()).throw(error))
    with caplog.at_level(logging.WARNING):
        paths = await client.download(clips, tmp_path / "out", tags=True)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in plain]
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert f"no tags in the file of clip {clips[0].clip_id}: {words}" in caplog.messages


@pytest.fixture(scope="session")
def mp3(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A short song as MP3, with tags."""
    import asyncio

    async def fetched() -> bytes:
        async with Sandbox(seed=3, longest=1.0, speed=1000) as box, box.client(rate_limit=None) as client:
            (path, _) = await client.download(await song(client), tmp_path_factory.mktemp("mp3"))
            return path.read_bytes()

    return asyncio.run(fetched())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    changes=st.lists(st.tuples(st.integers(0, 3500), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 400),
    title=st.text(max_size=40),
    lyrics=st.text(max_size=200),
)
def test_damaged_files_are_never_made_worse(
    mp3: bytes, tmp_path: Path, changes: list[tuple[int, int]], cut: int, title: str, lyrics: str
) -> None:
    """Whatever the file holds, it is either as it was, or has tags before the same audio."""
    data = bytearray(mp3[: len(mp3) - cut])
    for at, value in changes:
        data[at] = value
    file = tmp_path / "song.mp3"
    file.write_bytes(data)
    Tagger(Clip(clip_id="c", title=title, lyrics=lyrics), FileTags(album="x")).add(file)
    after = file.read_bytes()
    assert after == data or after.endswith(audio_of(bytes(data))[-len(mp3) // 2 :])
    assert [path.name for path in tmp_path.iterdir()] == ["song.mp3"]
