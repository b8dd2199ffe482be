"""Files on the way: which file a started one belongs to, whose file a name is, and how long it may take."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from musicapi_async import Clip, DownloadError, MusicAPI
from musicapi_async.sandbox import media_files
from musicapi_async.sandbox.composer import Brief, compose
from musicapi_async.testing.virtual import VirtualTimeLoop

SIZE = 1_500_000
FRAME = b"\xff\xfb\x90\x64" + bytes(413)
A, B = FRAME * 2 + b"A" * SIZE, FRAME * 2 + b"B" * SIZE
SOUND = (np.sin(np.arange(48_000) / 20)[:, None] * [0.5, 0.3]).astype(np.float32)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


class Host:
    """A host of files that can resume, cuts the files in `cut` in the middle, drips those in `dripping`, and
    sends what is in `damaged` instead, once.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/a.mp3": A, "/b.mp3": B, "/1/audio.mp3": A, "/2/audio.mp3": B}
        self.damaged: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.cut: set[str] = set()
        self.dripping: dict[str, float] = {}
        self.drop = 1
        self.asked: list[web.Request] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A whole file, the rest of one, or one that goes wrong."""
        self.asked.append(request)
        path = request.path
        body = self.damaged.pop(path, self.files[path])
        tag = self.tags.get(path)
        headers = {} if tag is None else {"ETag": tag}
        span = request.headers.get("Range")
        start = 0
        if span is not None and request.headers.get("If-Range", tag) == tag:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        if path in self.cut:
            response.content_length = len(body) - start
            await response.prepare(request)
            await response.write(body[start : (start + len(body)) // 2])
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.prepare(request)
        if path in self.dripping:
            for at in range(start, len(body), self.drop):
                await response.write(body[at : at + self.drop])
                await asyncio.sleep(self.dripping[path])
        else:
            await response.write(body[start:])
        return response


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """A running host."""
    host = Host()
    app = web.Application()
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]] = host.answer
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield host
    await runner.cleanup()


@pytest.fixture
async def client(host: Host) -> AsyncIterator[MusicAPI]:
    """A client that fetches from it."""
    async with MusicAPI("key", base_url=host.url) as client:
        yield client


def song(host: Host, name: str) -> Clip:
    """A finished clip of the title that all have."""
    return Clip(clip_id=name, title="Song", state="succeeded", audio_url=f"{host.url}/{name}.mp3")


# --- a started file ----------------------------------------------------------------------------------------


async def test_a_started_file_is_gone_on_with(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """After a cut only the missing bytes are asked for, on condition that the file is still the same."""
    host.tags["/a.mp3"] = '"one"'
    host.cut = {"/a.mp3"}
    with pytest.raises(DownloadError):
        await client.download(song(host, "a"), tmp_path, name="{title} {clip_id}")
    host.cut, host.asked = set(), []
    (path,) = await client.download(song(host, "a"), tmp_path, name="{title} {clip_id}")
    assert path.read_bytes() == A
    (request,) = host.asked
    assert request.headers["Range"].startswith("bytes=")
    assert request.headers["If-Range"] == '"one"'
    assert os.listdir(tmp_path) == ["Song a.mp3"]


async def test_a_started_file_is_never_gone_on_with_as_another(
    host: Host, client: MusicAPI, tmp_path: Path
) -> None:
    """Two songs of one name: what came of the first is no beginning of the second."""
    host.cut = {"/a.mp3"}
    with pytest.raises(DownloadError):
        await client.download(song(host, "a"), tmp_path, name="{title}")
    (path,) = await client.download(song(host, "b"), tmp_path, name="{title}")
    assert path.read_bytes() == B
    assert os.listdir(tmp_path) == ["Song.mp3"]


@pytest.mark.parametrize("tags", [('"one"', '"two"'), ('W/"one"', 'W/"two"'), (None, None)])
async def test_a_file_that_changed_at_its_link_is_fetched_from_the_start(
    host: Host, client: MusicAPI, tmp_path: Path, tags: tuple[str | None, str | None]
) -> None:
    """Another tag, or without tags another length, makes what came before worthless."""
    host.cut = {"/a.mp3"}
    for tag, body in zip(tags, (A, B + b"B"), strict=True):
        host.tags = {} if tag is None else {"/a.mp3": tag}
        host.files["/a.mp3"] = body
        if body is A:
            with pytest.raises(DownloadError):
                await client.download(song(host, "a"), tmp_path)
        host.cut = set()
    (path,) = await client.download(song(host, "a"), tmp_path)
    assert path.read_bytes() == B + b"B"


async def test_a_started_file_of_unknown_source_is_fetched_from_the_start(
    host: Host, client: MusicAPI, tmp_path: Path
) -> None:
    """A `.part` without a readable note of its source is not trusted."""
    for note in (None, b"{", b"[]" * 5000):
        (tmp_path / "Song a.mp3.part").write_bytes(B[:1000])
        if note is not None:
            (tmp_path / "Song a.mp3.source.part").write_bytes(note)
        (path,) = await client.download(song(host, "a"), tmp_path)
        assert path.read_bytes() == A
        path.unlink()
    assert os.listdir(tmp_path) == []


# --- whose file a name is ----------------------------------------------------------------------------------


async def test_links_that_end_alike_give_two_files(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """In calls of their own, too: a name made of a link says little, so the content decides."""
    links = [f"{host.url}/1/audio.mp3", f"{host.url}/2/audio.mp3"]
    for _ in range(2):
        (first,) = await client.download(links[0], tmp_path)
        (second,) = await client.download(links[1], tmp_path)
        assert (first.read_bytes(), second.read_bytes()) == (A, B)
        assert sorted(os.listdir(tmp_path)) == ["audio 2.mp3", "audio.mp3"]


@pytest.mark.parametrize("pattern", ["{title}", "fixed", "{index}", "{title}{clip_id:.0}"])
async def test_a_name_without_the_clip_id_takes_no_other_songs_file(
    host: Host, client: MusicAPI, tmp_path: Path, pattern: str
) -> None:
    """The second song of a name gets the next free one; neither is written over, and both are found again."""
    for _ in range(2):
        (first,) = await client.download(song(host, "a"), tmp_path, name=pattern)
        (second,) = await client.download(song(host, "b"), tmp_path, name=pattern)
        assert (first.read_bytes(), second.read_bytes()) == (A, B)
        assert len(os.listdir(tmp_path)) == 2
    both = [song(host, "b"), song(host, "a")]
    fetched = await client.download(both, tmp_path / "other", name=pattern)
    assert [path.read_bytes() for path in fetched] == [B, A]


async def test_a_clip_under_its_own_name_is_not_fetched_again(
    host: Host, client: MusicAPI, tmp_path: Path
) -> None:
    """A name that holds the clip's id is proof enough."""
    (path,) = await client.download(song(host, "a"), tmp_path)
    host.asked = []
    assert await client.download(song(host, "a"), tmp_path) == [path]
    assert host.asked == []


async def test_files_fetched_at_once_never_share_a_free_name(
    host: Host, client: MusicAPI, tmp_path: Path
) -> None:
    """Names that are taken on the disk push all of a call's files on, each to a place of its own."""
    for name in ("Song.mp3", "Song 2.mp3"):
        (tmp_path / name).write_bytes(b"ID3 of somebody else")
    paths = await client.download([song(host, "a"), song(host, "b")], tmp_path, name="{title}")
    assert [path.read_bytes() for path in paths] == [A, B]
    assert len(os.listdir(tmp_path)) == 4
    assert (tmp_path / "Song 2.mp3").read_bytes() == b"ID3 of somebody else"


# --- how long it may take ----------------------------------------------------------------------------------


async def test_a_file_is_written_by_one_at_a_time_when_a_download_is_cancelled(
    host: Host, client: MusicAPI, tmp_path: Path
) -> None:
    """One holds the file, one waits, the first is cancelled, a third comes: still only one fetches it."""
    host.drop, host.dripping["/a.mp3"] = SIZE // 10, 1
    holder, waiter = (asyncio.ensure_future(client.download(song(host, "a"), tmp_path)) for _ in range(2))
    await asyncio.sleep(5)
    assert len(host.asked) == 1
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    third = asyncio.ensure_future(client.download(song(host, "a"), tmp_path))
    await asyncio.sleep(5)
    assert len(host.asked) == 2
    assert await waiter == await third == [tmp_path / "Song a.mp3"]
    assert (tmp_path / "Song a.mp3").read_bytes() == A
    assert len(host.asked) == 2


@pytest.mark.parametrize("tag", ['"one"', None])
async def test_two_clients_that_fetch_one_file_into_one_folder_get_it_whole(
    host: Host, client: MusicAPI, tmp_path: Path, tag: str | None
) -> None:
    """As two processes may do. Neither writes into what the other one writes, or gives it its name."""
    host.drop, host.dripping["/a.mp3"] = SIZE // 10, 1
    if tag is not None:
        host.tags["/a.mp3"] = tag
    async with MusicAPI("key", base_url=host.url) as other:
        first = asyncio.ensure_future(client.download(song(host, "a"), tmp_path))
        await asyncio.sleep(3.5)
        second = asyncio.ensure_future(other.download(song(host, "a"), tmp_path))
        while not (first.done() and second.done()):
            await asyncio.sleep(0.5)
            if "Song a.mp3" in os.listdir(tmp_path):
                assert (tmp_path / "Song a.mp3").read_bytes() == A
        assert await first == await second == [tmp_path / "Song a.mp3"]
    assert os.listdir(tmp_path) == ["Song a.mp3"]


async def test_a_deadline_ends_a_download(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """The option for whole calls holds for files, too; what has come is gone on with by the next call."""
    host.dripping = {"/a.mp3": 5.0}
    started = client.clock.now()
    with pytest.raises(DownloadError, match=r"deadline of 20 s"):
        await client.with_options(deadline=20).download(song(host, "a"), tmp_path)
    assert client.clock.now() - started == pytest.approx(20, abs=1)
    host.dripping, host.asked = {}, []
    (path,) = await client.download(song(host, "a"), tmp_path)
    assert path.read_bytes() == A
    assert os.listdir(tmp_path) == [path.name]


async def test_a_host_that_drips_is_given_up(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """A byte now and then is no progress: the try ends within two minutes, and the tries are few."""
    host.dripping = {"/a.mp3": 5.0}
    started = client.clock.now()
    with pytest.raises(DownloadError, match="in a minute"):
        await client.download(song(host, "a"), tmp_path)
    assert client.clock.now() - started < 15 * 60


async def test_a_slow_download_is_not_given_up(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """A weak line that brings some kilobytes in every second is waited for, as long as it takes."""
    host.dripping, host.drop = {"/a.mp3": 1.0}, 5000
    (path,) = await client.download(song(host, "a"), tmp_path)
    assert path.read_bytes() == A


# --- what came can be decoded ------------------------------------------------------------------------------


async def test_whole_files_of_all_formats_are_kept(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """The sandbox's own encoders write them; the content decides the extension."""
    mp3 = media_files.to_mp3(media_files.encode(SOUND), title="Rain", artist="A", tags="pop", lyrics="la")
    files = {
        "mp3": mp3,
        "wav": media_files.to_wav(SOUND),
        "m4a": media_files.to_m4a(mp3, len(SOUND)),
        "mid": media_files.to_midi(compose(Brief(seed=1, duration=4))),
    }
    host.files = {f"/song.{kind}": data for kind, data in files.items()}
    paths = await client.download([f"{host.url}/song.{kind}" for kind in files], tmp_path)
    assert {path.suffix[1:]: path.read_bytes() for path in paths} == files
    assert len(host.asked) == len(files)


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("a.mp3", b"ID3\x04\0\0\0\0\0\0" + b"A" * 5000, "not a decodable MP3: no two MPEG audio frames"),
        ("a.mp3", b"ID3\x04\0\0\0\0\x7f\x7f" + FRAME * 3, "not a decodable MP3: its ID3 tag"),
        ("a.wav", b"RIFF\x0c\0\0\0WAVEdata\0\0\0\0", "not a decodable WAV: no 'fmt ' chunk"),
        ("a.ogg", b"OggS\x07" + bytes(60), "not a decodable OGG: its first page has version 7"),
        ("a.flac", b"fLaC\x04\0\0\x22" + bytes(60), "not a decodable FLAC: it does not begin with"),
        ("a.m4a", b"\0\0\0\x10ftypM4A \0\0\0\0", "not a decodable M4A: it has no moov box"),
        ("a.mid", b"MThd\0\0\0\x06\0\x09\0\x01\0\x60", "not a decodable MIDI file: its format is 9"),
    ],
)
async def test_a_file_that_cannot_be_decoded_is_refused(
    host: Host, client: MusicAPI, tmp_path: Path, name: str, body: bytes, why: str
) -> None:
    """It is fetched again like other damage, then the error says what is wrong; nothing of it is left."""
    host.files = {f"/{name}": body}
    with pytest.raises(DownloadError, match="in 6 tries") as caught:
        await client.download(f"{host.url}/{name}", tmp_path)
    assert why in str(caught.value)
    assert len(host.asked) == 6
    assert os.listdir(tmp_path) == []


async def test_a_file_that_was_damaged_once_comes_whole(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """Nothing of the damaged one is gone on with."""
    host.damaged = {"/a.mp3": b"ID3\x04\0\0\0\0\0\0" + bytes(5000)}
    (path,) = await client.download(song(host, "a"), tmp_path)
    assert path.read_bytes() == A
    assert os.listdir(tmp_path) == [path.name]
    assert ["Range" in request.headers for request in host.asked] == [False, False]
