"""The example service as a process, without a browser: killed, restarted, and its answers cut off."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fastapi import HTTPException, Request
from studio_process import SHORT, StudioProcess

from musicapi_async import MusicAPI, NotFoundError, RateLimitedError
from musicapi_async.examples.own_sandbox import Address
from musicapi_async.examples.records import Records
from musicapi_async.examples.service import Settings, check_visitor, client_for
from musicapi_async.examples.songs import MAX_SONGS, SongStudio
from musicapi_async.sandbox import Durations, Fault, Sandbox

SPEED = 30.0


async def watch(
    studio: StudioProcess, enough: Callable[[dict[str, dict[str, Any]]], bool], last: str = ""
) -> dict[str, dict[str, Any]]:
    """Read the feed until it shows enough; returns songs and personas by id."""
    shown: dict[str, dict[str, Any]] = {}
    headers = {"Last-Event-ID": last} if last else {}
    async with (
        asyncio.timeout(90),
        aiohttp.ClientSession() as browser,
        browser.get(f"{studio.url}/feed", headers=headers) as response,
    ):
        mark = ""
        async for line in response.content:
            name, _, value = line.decode().strip().partition(": ")
            if name == "id":
                mark = value
            elif name == "data" and "id" in (fields := json.loads(value)):
                assert "token" not in fields
                shown[fields["id"]] = {**fields, "mark": mark}
                if enough(shown):
                    return shown
    raise AssertionError("the feed ended")


async def order(studio: StudioProcess, description: str, **more: Any) -> str:
    body = {"description": description, **more}
    async with aiohttp.ClientSession() as browser, browser.post(f"{studio.url}/songs", json=body) as answer:
        assert answer.status == 202, await answer.text()
        return (await answer.json())["id"]


def all_ended(count: int) -> Callable[[dict[str, dict[str, Any]]], bool]:
    return lambda shown: sum(song.get("ended", False) for song in shown.values()) == count


def studio_on(sandbox: Sandbox, folder: Path) -> StudioProcess:
    return StudioProcess(folder, SPEED, MUSICAPI_KEY=sandbox.api_key, MUSICAPI_BASE_URL=sandbox.base_url)


async def test_kills_lose_nothing_and_pay_nothing_twice(tmp_path: Path) -> None:
    """SIGKILL at random instants while songs are made: every song that got its token ends, with files."""
    draw = random.Random(7)
    async with Sandbox(speed=SPEED, longest=SHORT, durations=Durations(song=(90.0, 0.2))) as sandbox:
        studio = studio_on(sandbox, tmp_path)
        await asyncio.to_thread(studio.start)
        try:
            for number in range(4):
                await order(studio, f"song {number}")
            await watch(studio, lambda shown: sum(s["state"] != "ordering" for s in shown.values()) == 4)
            for _ in range(3):
                await asyncio.sleep(draw.uniform(0.1, 1.2))
                await asyncio.to_thread(studio.end, signal.SIGKILL)
                await asyncio.to_thread(studio.start)
            shown = await watch(studio, all_ended(4))
        finally:
            await asyncio.to_thread(studio.end)
        assert {song["state"] for song in shown.values()} == {"succeeded"}
        for song in shown.values():
            assert len(song["clips"]) == 2
            assert all(clip["file"] for clip in song["clips"])
        assert len(sandbox.journal.creates) == 4
        assert not sandbox.journal.charged_twice()


async def test_kill_while_ordering_sends_nothing_twice(tmp_path: Path) -> None:
    """Six orders, killed at once: after the restart each is sent, or recovered, or named by its webhook.

    One whose request was on its way out in that moment never arrived, and says that nobody knows.
    """
    # Ten seconds for a song: a webhook that comes while the service is away is repeated only so often.
    async with Sandbox(speed=SPEED, longest=SHORT, durations=Durations(song=(300.0, 0.2))) as sandbox:
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(10), times=3)
        studio = studio_on(sandbox, tmp_path)
        await asyncio.to_thread(studio.start)
        try:
            for number in range(6):
                await order(studio, f"song {number}")
            await asyncio.to_thread(studio.end, signal.SIGKILL)
            await asyncio.to_thread(studio.start)

            def settled(shown: dict[str, dict[str, Any]]) -> bool:
                states = Counter(song["state"] for song in shown.values())
                return states["succeeded"] == len(sandbox.journal.creates) == 6 - states["unknown"]

            await watch(studio, settled)
        finally:
            await asyncio.to_thread(studio.end)
        assert len(sandbox.journal.creates) >= 4
        assert sandbox.journal.charges == 20 * len(sandbox.journal.creates)


async def test_webhook_recovers_an_unanswered_order(tmp_path: Path) -> None:
    """The connection breaks after the create was taken: it is not ordered again, and it is found."""
    async with Sandbox(speed=SPEED, longest=SHORT) as sandbox:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        studio = studio_on(sandbox, tmp_path)
        await asyncio.to_thread(studio.start)
        try:
            await order(studio, "rain")
            unknown = await watch(studio, lambda shown: any(s["state"] == "unknown" for s in shown.values()))
            assert "do not send it again" in next(iter(unknown.values()))["problem"]["detail"]
            shown = await watch(studio, all_ended(1))
        finally:
            await asyncio.to_thread(studio.end)
        (song,) = shown.values()
        assert song["state"] == "succeeded"
        assert song["problem"] is None
        assert len(sandbox.journal.creates) == 1


async def test_feed_continues_where_the_browser_was(tmp_path: Path) -> None:
    """With Last-Event-ID only what changed since; an id of another file starts from the beginning."""
    async with Sandbox(speed=SPEED, longest=SHORT) as sandbox:
        studio = studio_on(sandbox, tmp_path)
        await asyncio.to_thread(studio.start)
        try:
            first = await order(studio, "one", key="a" * 32)
            shown = await watch(studio, all_ended(1))
            mark = shown[first]["mark"]
            second = await order(studio, "two")
            later = await watch(studio, lambda shown: second in shown, mark)
            assert first not in later
            for odd in ("other.1", "x", f"{mark}x", "9" * 400, f"{mark}{'9' * 5000}", "%00"):
                assert first in await watch(studio, lambda shown: second in shown, odd)
            assert await order(studio, "one", key="a" * 32) == first  # sent again, as its answer was lost
        finally:
            await asyncio.to_thread(studio.end)
        assert len(sandbox.journal.creates) == 2


async def _without_end() -> AsyncGenerator[bytes]:
    """Yield a body that is too large, and then never ends."""
    yield b"[" + b" " * 20_000
    await asyncio.Event().wait()


async def test_forbidden_requests_are_refused(tmp_path: Path) -> None:
    """Too long, empty, unknown clips and files, paths out of the folder: 4xx, and nothing is charged.

    Neither may another site order in the visitor's name, nor one whose name points to this machine.
    """
    async with Sandbox(speed=SPEED) as sandbox:
        studio = studio_on(sandbox, tmp_path)
        await asyncio.to_thread(studio.start)
        try:
            async with aiohttp.ClientSession() as browser:
                posts: list[tuple[str, Any]] = [
                    ("/songs", {"description": ""}),
                    ("/songs", {"description": "x" * 401}),
                    ("/songs", []),
                    ("/songs", {"description": float("nan")}),
                    ("/songs", {"description": "\ud800"}),
                    ("/personas", {"name": "n", "clip_id": "no-such-clip"}),
                    ("/personas", {"name": "", "clip_id": "c"}),
                ]
                for path, body in posts:
                    async with browser.post(studio.url + path, json=body) as answer:
                        assert 400 <= answer.status < 500, path
                        assert answer.content_type == "application/problem+json"
                here, order_ = studio.url, {"description": "rain"}
                for headers, status in (
                    ({"Origin": "https://evil.example"}, 403),
                    ({"Origin": "null"}, 403),
                    ({"Origin": "http://127.0.0.1:1"}, 403),
                    ({"Host": f"evil.example:{studio.port}"}, 421),
                    ({"Host": "["}, 421),
                ):
                    async with browser.post(f"{here}/songs", json=order_, headers=headers) as answer:
                        assert answer.status == status, headers
                foreign = {"Host": f"evil.example:{studio.port}"}
                for path in ("/", "/docs", "/openapi.json", "/feed", "/nosuch", "/webhooks/musicapi"):
                    async with browser.get(here + path, headers=foreign) as answer:
                        assert answer.status == 421, path
                for path in ("/songs", "/personas", "/nosuch"):
                    async with browser.post(here + path, data=_without_end()) as answer:
                        assert answer.status == 413, path
                async with browser.post(f"{here}/songs", data=_without_end(), headers=foreign) as answer:
                    assert answer.status == 421
                async with browser.get(f"{here}/openapi.json") as answer:
                    assert answer.status == 200
                async with browser.post(f"{here}/songs", json=[], headers={"Origin": here}) as answer:
                    assert answer.status == 422
                async with browser.get(here) as answer:
                    assert "script-src 'sha256-" in answer.headers["Content-Security-Policy"]
                for path in ("/files/a/b", "/files/..%2F..%2Fetc/passwd", "/files/a/..%2Frecords.sqlite"):
                    async with browser.get(studio.url + path) as answer:
                        assert answer.status == 404
        finally:
            await asyncio.to_thread(studio.end)
        assert sandbox.journal.charges == 0


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
    ],
)
async def test_webhooks_go_where_the_service_listens(tmp_path: Path, host: str, here: str) -> None:
    """With IPv6, too; where the sandbox may not call, none are ordered."""
    address = Address("http://127.0.0.1:1/api/v1", "sk_test", 1.0)
    settings = Settings(host, 8000, tmp_path, None, 1.0)
    async with client_for(address, settings, "secret-of-the-service") as client:
        ordered = client._view.resources.webhooks  # pyright: ignore[reportPrivateUsage]
        assert settings.here == here
        assert ordered is not None
        assert ordered.url == f"{here}/webhooks/musicapi"
    async with client_for(
        address, Settings("192.0.2.1", 8000, tmp_path, None, 1.0), "secret-of-the-service"
    ) as client:
        assert client._view.resources.webhooks is None  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("public", "host", "origin", "refused"),
    [
        ("https://Songs.example:443", "127.0.0.1:8000", "https://songs.example", 0),
        ("https://songs.example", "songs.example", "https://songs.example", 0),
        (None, "[::1]:8000", "http://[::1]:8000", 0),
        (None, "localhost", "http://localhost", 0),
        (None, "localhost:8000", "http://localhost:3000", 403),
        (None, "localhost:8000", "null", 403),
        (None, "localhost:8000", "https://", 403),
        (None, "localhost:8000", "http://localhost:x", 403),
        ("https://songs.example", "127.0.0.1:8000", "https://songs.example:8443", 403),
        (None, "evil.example:8000", "http://evil.example:8000", 421),
        (None, "", "https://", 421),
    ],
)
@pytest.mark.parametrize("listening", ["127.0.0.1", "127.0.0.2", "LOCALHOST", "0.0.0.0"])
def test_only_the_own_page_may_order(
    tmp_path: Path, public: str | None, host: str, origin: str, refused: int, listening: str
) -> None:
    """A site is its name and its port, however they are written, and wherever the service listens."""
    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    request = Request({"type": "http", "headers": headers})
    settings = Settings(listening, 8000, tmp_path, public, 1.0)
    if not refused:
        check_visitor(settings, request)
        return
    with pytest.raises(HTTPException) as caught:
        check_visitor(settings, request)
    assert caught.value.status_code == refused


async def test_repeated_persona_is_paid_once(tmp_path: Path) -> None:
    """The answer did not reach the page: the same clip and name give the same persona."""
    records = Records(tmp_path / "records.sqlite")
    async with Sandbox(speed=600, longest=10) as sandbox, sandbox.client(rate_limit=None) as client:
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        clip = (await task.wait())[0]
        studio = SongStudio(client, records, tmp_path)
        made = [await studio.make_persona(name, clip.clip_id) for name in ("One", "One", "Two")]
        assert made[0].id == made[1].id != made[2].id
        asked = [entry for entry in sandbox.journal if entry.path.endswith("/sonic/persona")]
        assert len(asked) == 2
        for _ in range(2):  # what was refused may be asked again
            with pytest.raises(NotFoundError):
                await studio.make_persona("One", "no-such-clip")
    records.close()


async def test_songs_in_flight_are_bounded(tmp_path: Path) -> None:
    """One more is refused as the service's own "too many", and not written down."""
    records = Records(tmp_path / "records.sqlite")
    async with MusicAPI("key", base_url="http://127.0.0.1:9") as client:
        studio = SongStudio(client, records, tmp_path)
        for number in range(MAX_SONGS):
            studio.order(f"song {number}")
        with pytest.raises(RateLimitedError):
            studio.order("one more")
        assert len(records.songs()) == MAX_SONGS
        await studio.close()
    records.close()


def test_records_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """The webhooks' secret is in them: true in an open folder and for an existing file, too."""
    path = tmp_path / "records.sqlite"
    path.touch(mode=0o644)
    Records(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
