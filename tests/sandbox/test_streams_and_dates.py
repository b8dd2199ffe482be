"""What comes before a file, when things were made, and how old they are."""

from __future__ import annotations

import asyncio
import email.utils
import time
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from musicapi_async.sandbox import Choices, Durations, Fault
from musicapi_async.sandbox.fault_texts import add

EXACT = Durations(song=(100.0, 0.0), stream=10.0)
WISH = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
HALF_A_MINUTE = {**WISH, "duration": 30}


async def stream_of(api: Any) -> str:
    """The first stream link of a fresh song."""
    task_id = await api.submit(body=HALF_A_MINUTE)

    def streams(status: int, body: Any) -> bool:
        return any(clip["audio_url"] for clip in body.get("data") or ())

    _, body = await api.until(f"/sonic/task/{task_id}", streams, step=0.5)
    return next(clip["audio_url"] for clip in body["data"] if clip["audio_url"])


async def test_stream_comes_at_the_pace_of_the_music(start):
    """Half a minute of music takes about that long to come, a few seconds at once; it is no copy of the file."""
    api = await start(speed=1.0, durations=EXACT)
    url = await stream_of(api)
    assert "/audiopipe/?item_id=" in url
    begun = api.sandbox.now()
    arrivals: list[tuple[float, int]] = []
    data = b""
    async with api.session.get(url) as reply:
        assert (reply.status, reply.headers["Content-Type"]) == (200, "audio/mpeg")
        assert "Content-Length" not in reply.headers
        assert "ETag" not in reply.headers
        async for chunk in reply.content.iter_any():
            data += chunk
            arrivals.append((api.sandbox.now() - begun, len(data)))
    lasted = arrivals[-1][0]
    assert 20 < lasted < 31
    for at, size in arrivals:
        assert size / len(data) * 30 <= at + 7.5, "never more than a listener could have heard, and 5 s"
    assert data.startswith(b"\xff\xfb")
    clip_id = url.partition("item_id=")[2]
    status, file = await api.call("GET", api.sandbox.service.media(f"{clip_id}.mp3"), key=None)
    assert status == 404, "the file is not there yet"
    await asyncio.sleep(90)
    status, file = await api.call("GET", api.sandbox.service.media(f"{clip_id}.mp3"), key=None)
    assert status == 200
    assert data != file
    assert data[1000:2000] not in file


async def test_stream_is_never_a_file_of_the_media_host(start):
    """Neither a name below /media/, nor a stream before its time, nor one of an unknown clip."""
    api = await start(durations=EXACT)
    task_id = await api.submit(body=HALF_A_MINUTE)
    clip = next(iter(api.sandbox.service.tasks)).clips[0]
    root = api.sandbox.base_url.removesuffix("/api/v1")
    for path in (
        f"/media/{clip.clip_id}.stream",
        f"/audiopipe/?item_id={clip.clip_id}",
        "/audiopipe/?item_id=x",
    ):
        assert (await api.call("GET", root + path, key=None))[0] == 404
    await api.finished(task_id)
    assert (await api.call("GET", f"{root}/media/{clip.clip_id}.stream", key=None))[0] == 404


async def test_stream_ends_with_the_sandbox(start):
    """A listener does not hold the sandbox open."""
    api = await start(speed=1.0, durations=EXACT)
    url = await stream_of(api)
    async with api.session.get(url) as reply:
        await reply.content.readany()
        begun = api.sandbox.now()
        await api.sandbox.stop()
        assert api.sandbox.now() - begun < 5
        with pytest.raises(aiohttp.ClientError):
            await reply.read()


async def test_listener_who_leaves_is_no_failure(start, caplog):
    """The journal has the status that was sent, and nothing is logged as an error."""
    api = await start(speed=1.0, durations=EXACT)
    async with api.session.get(await stream_of(api)) as reply:
        await reply.content.readany()
        reply.close()
    await asyncio.sleep(60)
    assert (api.sandbox.journal[-1].path, api.sandbox.journal[-1].status) == ("/audiopipe/", 200)
    assert caplog.records == []


async def test_stream_for_a_player_of_http_1_0(start):
    """It has no chunks there: the end of the connection is the end of the stream."""
    api = await start(speed=1.0, durations=EXACT)
    url = await stream_of(api)
    api.sandbox.forward(60)
    async with aiohttp.ClientSession(version=aiohttp.HttpVersion10) as session, session.get(url) as reply:
        assert (reply.status, "Transfer-Encoding" in reply.headers) == (200, False)
        assert (await reply.read()).startswith(b"\xff\xfb")


async def test_faults_of_a_stream(start):
    """A broken media host breaks streams, too: another body, half of it, a reset, a slow one."""
    api = await start(speed=1.0, durations=EXACT)
    url = await stream_of(api)
    for fault in (Fault.html, Fault.status(503, taken=True), Fault.trickle(4000), Fault.truncate):
        api.sandbox.faults.on("GET", "/audiopipe/*", fault)
    async with api.session.get(url) as reply:
        assert b"502 Bad Gateway" in await reply.read()
    async with api.session.get(url) as reply:
        assert reply.status == 503
    begun = api.sandbox.now()
    async with api.session.get(url) as reply:
        assert len(await reply.read()) / 4000 <= api.sandbox.now() - begun + 1
    async with api.session.get(url) as reply:
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()
    assert api.sandbox.faults.scripts == ()


async def test_dates_are_real_and_agree(start):
    """On a clock that is a thousand times as fast, a song of two minutes is not made in the future."""
    api = await start(speed=1000.0)
    clip = (await api.finished(await api.submit(body=WISH)))[0]
    created = datetime.fromisoformat(clip["created_at"]).timestamp()
    date = email.utils.parsedate_to_datetime(api.headers["Date"]).timestamp()
    assert abs(created - time.time()) < 60
    assert -1 < date - created < 60
    again = (await api.finished(next(iter(api.sandbox.service.tasks)).task_id))[0]
    assert again["created_at"] == clip["created_at"]


@pytest.mark.parametrize(("ages", "status"), [("real", 200), ("clock", 400)])
async def test_a_fast_clock_makes_clips_too_old_only_if_asked(start, ages, status):
    """Two days of a fast clock are minutes: the source of a persona is young, unless ages follow the clock."""
    api = await start(speed=1000.0, choices=Choices(ages=ages))
    clip = (await api.finished(await api.submit(body=WISH)))[0]
    await asyncio.sleep(2 * 86_400 / 1000)
    persona = {"name": "Rain", "clip_id": clip["clip_id"]}
    assert (await api.post("/sonic/persona", persona))[0] == status
    api.sandbox.forward(86_401)
    assert (await api.post("/sonic/persona", persona))[0] == 400


async def test_producer_makes_m4a(start):
    """The link, the bytes and the content type; the file can be uploaded again."""
    api = await start()
    task_id = await api.submit("/producer/create", {"sound": "pop", "length": 5})
    clip = (await api.finished(task_id, "/producer/task/"))[0]
    assert clip["audio_url"].endswith(f"{clip['clip_id']}.m4a")
    status, data = await api.call("GET", clip["audio_url"], key=None)
    assert (status, data[4:12], api.headers["Content-Type"]) == (200, b"ftypM4A ", "audio/mp4")
    assert (await api.post("/sonic/upload", {"url": clip["audio_url"]}))[0] == 200


async def test_slow_media_host(start):
    """`trickle` sends a file slowly, whole, and does not hold up other requests."""
    api = await start(speed=1.0, durations=EXACT, longest=2.0)
    clip = (await api.finished(await api.submit(body=WISH)))[0]
    _, whole = await api.call("GET", clip["audio_url"], key=None)
    api.sandbox.faults.on("GET", "/media/*.mp3", Fault.trickle(len(whole) / 20))
    begun = api.sandbox.now()
    reading = asyncio.create_task(api.call("GET", clip["audio_url"], key=None))
    assert (await api.call("GET", clip["audio_url"].replace(".mp3", ".mid"), key=None))[0] == 200
    status, data = await reading
    assert (status, data == whole) == (200, True)
    assert 18 < api.sandbox.now() - begun < 25


@pytest.mark.parametrize("fault", ["truncate", "reset_after*2", "503", "garbage", "html"])
async def test_broken_media_host(start, fault):
    """Half a file, a reset, an error, another body: set for media by path. A reset acts twice, as the library
    of this test repeats a GET."""
    api = await start(longest=2.0)
    clip = (await api.finished(await api.submit(body=WISH)))[0]

    async def read() -> bytes:
        try:
            async with api.session.get(clip["audio_url"]) as reply:
                return await reply.read()
        except aiohttp.ClientError:
            return b""

    whole = await read()
    add(api.sandbox.faults, f"GET /media/* {fault}")
    assert whole.startswith(b"ID3")
    assert await read() != whole
    assert await read() == whole
