"""`MusicAPI(uploader=...)`: a local file in the place of a link, published once and paid for once."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from musicapi_async import (
    APIConnectionError,
    JobKeyConflictError,
    MusicAPI,
    RequestTimeoutError,
    RequestValidationError,
    SQLiteStore,
    UploaderError,
)
from musicapi_async.api.families import FAMILIES
from musicapi_async.sandbox import Fault, Sandbox

SONG: dict[str, Any] = {"mv": "sonic-v6", "prompt": "[Verse]\nRain"}
OTHERS: dict[str, dict[str, Any]] = {
    "upload_extend": {**SONG, "continue_at": 1.0},
    "upload_cover": SONG,
    "sample": {**SONG, "chop_sample_start_s": 0.0, "chop_sample_end_s": 9.0},
    "create_music": {"sound": "lo-fi"},
}
"""Fields that an operation needs beside its link."""
LINKS = [
    (word, operation.name, field)
    for word, family in FAMILIES.items()
    for operation in family.operations().values()
    for field in operation.links
]


class Storage:
    """A place for files: each upload gets a link of its own, as from a service with signed links."""

    def __init__(self, link: str) -> None:
        self.link = link
        self.published: list[Path] = []

    async def upload(self, path: Path) -> str:
        self.published.append(path)
        await asyncio.sleep(0)
        return f"{self.link}?signature={len(self.published)}"


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    async with Sandbox(speed=600, seed=1, longest=10) as box:
        yield box


@pytest.fixture
async def storage(box: Sandbox, tmp_path: Path) -> Storage:
    async with box.client() as client:
        clips = await (await client.sonic.create_music(**SONG))
        await client.download(clips[0], tmp_path)  # so that its audio is made before the sandbox fetches it
    box.journal.clear()
    return Storage(str(clips[0].final_url))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "demo.mp3"
    path.write_bytes(b"ID3 demo")
    return path


def make(box: Sandbox, uploader: Any, **options: Any) -> MusicAPI:
    return MusicAPI(
        box.api_key, base_url=box.base_url, clock=box.clock, rate_limit=None, uploader=uploader, **options
    )


def test_every_family_with_links_is_covered() -> None:
    """The fields are found by their declaration."""
    assert {f"{word}.{name}.{field}" for word, name, field in LINKS} >= {
        "sonic.upload.url",
        "sonic.upload_extend.url",
        "sonic.upload_cover.url",
        "sonic.sample.url",
        "sonic.create_voice.audio_url",
        "producer.upload.audio_url",
        "producer.create_music.cover_url",
        "riffusion.upload.url",
    }


@pytest.mark.filterwarnings("ignore:riffusion is deprecated")
@pytest.mark.parametrize(("word", "name", "field"), LINKS)
async def test_a_local_file_is_taken_where_a_link_is_wanted(
    box: Sandbox, storage: Storage, file: Path, word: str, name: str, field: str
) -> None:
    """As a path, as text, or opened by name; the service gets the link."""
    async with make(box, storage.upload) as client:
        call = getattr(getattr(client, word), name)
        with file.open("rb") as opened:
            for value in (file, str(file), opened):
                await call(**{**OTHERS.get(name, {}), field: value})
                body = box.journal.requests(method="POST")[-1].body
                assert isinstance(body, dict)
                assert body[field] == f"{storage.link}?signature={len(storage.published)}"
    assert storage.published == [file] * 3


async def test_a_link_is_not_published(box: Sandbox, storage: Storage) -> None:
    """It is sent as it is."""
    async with make(box, storage.upload) as client:
        await client.sonic.upload(storage.link)
    assert storage.published == []


async def test_the_same_key_and_file_publish_and_pay_once(
    box: Sandbox, storage: Storage, file: Path, tmp_path: Path
) -> None:
    """Also in another process, although the uploader would give another link."""
    clips = set[str | None]()
    for _ in range(3):
        async with make(box, storage.upload, store=SQLiteStore(tmp_path / "jobs.sqlite")) as client:
            clips.add((await client.with_options(job_key="demo").sonic.upload(file)).clip_id)
    assert len(clips) == len(storage.published) == len(box.journal.requests(method="POST")) == 1


async def test_another_file_under_the_key_is_refused(box: Sandbox, storage: Storage, file: Path) -> None:
    """The file is compared, and not its name or its link."""
    async with make(box, storage.upload) as client:
        view = client.with_options(job_key="demo")
        await view.sonic.upload(file)
        await asyncio.to_thread(file.write_bytes, b"ID3 another")
        with pytest.raises(JobKeyConflictError, match=r"url: the file \w{12} \(SHA-256\) before, \w{12} now"):
            await view.sonic.upload(file)
    assert len(box.journal.requests(method="POST")) == 1


async def test_two_calls_at_once_under_one_key_pay_once(box: Sandbox, storage: Storage, file: Path) -> None:
    """Both may publish the file; one request is sent."""
    async with make(box, storage.upload) as client:
        view = client.with_options(job_key="demo")
        first, second = await asyncio.gather(view.sonic.upload(file), view.sonic.upload(file))
    assert first.clip_id == second.clip_id
    assert len(box.journal.requests(method="POST")) == 1


async def test_a_call_that_was_not_carried_out_is_published_again(
    box: Sandbox, storage: Storage, file: Path
) -> None:
    """Its key is free, and it may be repeated."""
    async with make(box, storage.upload, max_retries=0) as client:
        view = client.with_options(job_key="demo")
        box.faults.on("POST", "/sonic/upload", Fault.status(429), times=1)
        with pytest.raises(Exception, match="429"):
            await view.sonic.upload(file)
        assert (await view.sonic.upload(file)).clip_id
    assert storage.published == [file] * 2


async def test_a_failing_uploader_costs_nothing(box: Sandbox, file: Path) -> None:
    """The error says so, has the uploader's own as its cause, and pickles."""

    async def upload(path: Path) -> str:
        raise OSError("the bucket is full")

    async with make(box, upload) as client:
        with pytest.raises(UploaderError) as caught:
            await client.sonic.create_voice(file)
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error).startswith(
        f"POST /sonic/create-voice: the uploader failed for {str(file)!r}: OSError: the bucket is full. "
        "Nothing was charged."
    )
    assert (error.field, error.path, error.not_charged) == ("audio_url", str(file), True)
    assert isinstance(caught.value.__cause__, OSError)
    assert len(box.journal.requests(method="POST")) == 0


@pytest.mark.parametrize("returned", ["demo.mp3", "s3://bucket/demo.mp3", None, "", b"https://a.example/b"])
async def test_an_uploader_that_returns_no_link(box: Sandbox, file: Path, returned: Any) -> None:
    """Nothing is sent."""

    async def upload(path: Path) -> Any:
        return returned

    async with make(box, upload) as client:
        with pytest.raises(UploaderError, match="and not a public link"):
            await client.sonic.upload(file)
    assert len(box.journal.requests(method="POST")) == 0


async def test_an_uploader_must_be_an_async_function(box: Sandbox, file: Path) -> None:
    """Anything that cannot be called is refused at once, a plain function when it is called."""
    with pytest.raises(RequestValidationError, match="uploader: an async function"):
        make(box, "https://files.example/")
    async with make(box, Path.as_uri) as client:
        with pytest.raises(UploaderError, match="TypeError"):
            await client.sonic.upload(file)


async def test_a_request_is_checked_before_its_file_is_published(
    box: Sandbox, storage: Storage, file: Path
) -> None:
    """A title that is too long, a file that is not there, a file in memory."""
    import io

    async with make(box, storage.upload) as client:
        with pytest.raises(RequestValidationError, match="title: text of at most 80 characters"):
            await client.sonic.upload_cover(url=file, **SONG, title="x" * 81)
        with pytest.raises(RequestValidationError, match=r"url: there is no file '.*none.mp3'"):
            await client.sonic.upload(file.with_name("none.mp3"))
        with pytest.raises(RequestValidationError, match="cannot be read"):
            await client.sonic.upload(file.parent)
        with pytest.raises(RequestValidationError, match="a public link"):
            await client.sonic.upload(io.BytesIO(b"ID3"))
    assert storage.published == []
    assert len(box.journal.requests(method="POST")) == 0


@pytest.mark.skipif(os.name != "posix", reason="pipes are those of POSIX")
async def test_a_file_without_end_is_refused(box: Sandbox, storage: Storage, tmp_path: Path) -> None:
    """A pipe that no one writes to, and a device: reading them would never end."""
    pipe = tmp_path / "pipe.mp3"
    os.mkfifo(pipe)
    async with make(box, storage.upload) as client:
        for endless in (pipe, Path("/dev/zero")):
            with pytest.raises(RequestValidationError, match="cannot be read: it is no regular file"):
                await client.sonic.upload(endless)
    assert storage.published == []
    assert len(box.journal.requests(method="POST")) == 0


async def test_without_an_uploader_no_check_lets_a_file_through(box: Sandbox, file: Path) -> None:
    """A path cannot be sent, whatever `validate` says."""
    async with make(box, None) as client:
        for validate in ("error", "warn", "off"):
            with pytest.raises(RequestValidationError, match=r"uploader="):
                await client.with_options(validate=validate).sonic.upload(file)
    assert len(box.journal.requests(method="POST")) == 0


async def test_the_deadline_covers_the_upload(box: Sandbox, file: Path) -> None:
    """It ends while the file is published; nothing was sent."""
    never = asyncio.Event()

    async def upload(path: Path) -> str:
        await never.wait()
        return ""

    async with make(box, upload) as client:
        with pytest.raises(RequestTimeoutError, match="while a file was published"):
            await client.with_options(deadline=0.01).sonic.upload(file)
    assert len(box.journal.requests(method="POST")) == 0


async def test_a_client_that_is_closed_meanwhile_sends_nothing(
    box: Sandbox, storage: Storage, file: Path
) -> None:
    """The caller gets the error of a call that was not sent."""
    begun, closed = asyncio.Event(), asyncio.Event()

    async def upload(path: Path) -> str:
        begun.set()
        await closed.wait()
        return storage.link

    client = make(box, upload)
    call = asyncio.create_task(client.sonic.upload(file))
    await begun.wait()
    await client.aclose()
    closed.set()
    with pytest.raises(APIConnectionError, match="closed before it was sent"):
        await call
    assert len(box.journal.requests(method="POST")) == 0


async def test_a_job_can_be_sent_again_with_the_link_that_it_had(
    box: Sandbox, storage: Storage, file: Path
) -> None:
    """`resubmit` sends the recorded request, whose file is at its link."""
    async with make(box, storage.upload) as client:
        view = client.with_options(job_key="demo")
        box.faults.on("POST", "/sonic/upload", Fault.reset_after, times=1)
        with pytest.raises(Exception, match="unknown"):
            await view.sonic.upload(file)
        upload = await client.resubmit("demo")
        assert (await view.sonic.upload(file)).clip_id == upload.clip_id
    assert storage.published == [file]
