"""Real uvicorn and aiohttp servers in processes of their own, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from forked import Piped
from patience import PATIENCE, until

from musicapi_async.sandbox import Durations, Fault, Sandbox
from musicapi_async.webhooks import WEBHOOK_BODY_LIMIT, sign

SPEED = 60.0
EXACT = Durations(song=(100.0, 0.0))
SECRET = "a secret of a test"
GAP = 15.0
"""API seconds between two polls of a task, at least."""
COMPLETED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "contract/examples/webhook-sonic-completed.json").read_text(encoding="utf-8")
)

pytestmark = pytest.mark.parametrize("framework", ["fastapi", "aiohttp_web"])


class BackEnd:
    """A running back end and a browser of it."""

    def __init__(self, process: Piped, port: int, browser: aiohttp.ClientSession) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.browser = browser

    async def state(self) -> dict[str, Any]:
        async with self.browser.get(f"{self.url}/state") as response:
            return await response.json()

    async def shows(self, **state: Any) -> bool:
        return (await self.state()).items() >= state.items()

    async def create(self, **query: str) -> str:
        async with self.browser.post(f"{self.url}/songs", params=query) as response:
            assert response.status == 200, await response.text()
            return (await response.json())["token"]

    async def deliver(self, body: dict[str, Any]) -> None:
        """Send a webhook, signed as the service signs it."""
        raw, stamp = json.dumps(body).encode(), int(time.time())
        signed = {"X-Webhook-Timestamp": f"{stamp}", "X-Webhook-Signature": sign(SECRET, stamp, raw)}
        async with self.browser.post(f"{self.url}/webhooks/musicapi", data=raw, headers=signed) as response:
            assert response.status == 204, await response.text()

    async def events(self, token: str, last: str = "", most: int = 100) -> list[dict[str, Any]]:
        """The events of a stream until it ends, or until there are `most`."""
        headers = {"Last-Event-ID": last} if last else {}
        found: list[dict[str, Any]] = []
        async with self.browser.get(f"{self.url}/tasks/{token}/events", headers=headers) as response:
            assert response.content_type == "text/event-stream"
            assert response.headers["Cache-Control"] == "no-store, no-transform"
            event: dict[str, Any] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "data":
                    event["data"] = json.loads(value)
                    found.append(event)
                    if len(found) >= most:
                        break
                    event = {}
                elif name:
                    event[name] = value
        return found


@asynccontextmanager
async def back_end(framework: str, sandbox: Sandbox, port: int = 0, **more: Any) -> AsyncGenerator[BackEnd]:
    settings = {"base_url": sandbox.base_url, "key": sandbox.api_key, "speed": sandbox.clock.speed, **more}
    process = await Piped.started("back_end:main", framework, str(port), json.dumps(settings))
    try:
        found = int(await process.stdout.readline())
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as browser:
            yield BackEnd(process, found, browser)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.ended()


async def test_song_is_streamed_to_the_browser(framework: str) -> None:
    """Pending, stream link, files; it is polled until the first webhook has come, and then no more."""
    async with Sandbox(speed=SPEED, durations=EXACT) as sandbox, back_end(framework, sandbox) as server:
        token = await server.create(description="rain")
        events = await server.events(token)
        states = [event["data"]["state"] for event in events]
        assert states[0] == "pending"
        assert states[-1] == "succeeded"
        assert "running" in states
        assert all(event["event"] == "update" for event in events)
        assert [event["data"]["ended"] for event in events] == [False] * (len(events) - 1) + [True]
        assert events[0]["retry"] == "2000"
        running = [event["data"] for event in events if event["data"]["state"] == "running"]
        assert any(clip["stream_url"] for data in running for clip in data["clips"])
        assert events[-1]["data"]["clips"][1]["final_url"].endswith(".mp3")
        assert [entry.status for entry in sandbox.journal.webhooks] == [204, 204]
        assert len(sandbox.journal.polls) <= 3
        assert (await server.state())["events"] == ["song.streaming", "song.completed"]


async def test_browser_reconnects_after_a_restart(framework: str) -> None:
    """Nothing twice, nothing lost: the id of an event names the state, in any process."""
    async with Sandbox(speed=SPEED, durations=EXACT) as sandbox:
        async with back_end(framework, sandbox) as server:
            port = server.port
            token = await server.create(description="rain")
            seen = await server.events(token, most=2)
            assert len({event["id"] for event in seen}) == 2
        async with back_end(framework, sandbox, port) as server:
            rest = await server.events(token, seen[-1]["id"])
            assert seen[-1]["id"] not in [event["id"] for event in rest]
            assert "pending" not in [event["data"]["state"] for event in rest]
            assert rest[-1]["data"]["state"] == "succeeded"
            url = f"{server.url}/tasks/{token}/events"
            async with server.browser.get(url, headers={"Last-Event-ID": rest[-1]["id"]}) as response:
                assert response.status == 204


async def test_five_hundred_browsers_leave_nothing_behind(framework: str) -> None:
    """250 see the end of 25 songs, 250 disconnect in the middle; then no task is left in the server."""
    async with Sandbox(speed=20) as sandbox, back_end(framework, sandbox) as server:
        # No song ends before all streams are open, however long a busy machine takes for that.
        sandbox.faults.on("POST", "/sonic/create", Fault.stuck(), times=None)
        before, began = (await server.state())["tasks"], sandbox.now()
        tokens = [await server.create(description=f"song {number}") for number in range(25)]
        staying = [asyncio.create_task(server.events(tokens[number % 25])) for number in range(250)]
        leaving = [asyncio.create_task(server.events(tokens[number % 25])) for number in range(250)]
        await until(lambda: server.shows(streams=500), every=0.05)
        for browser in leaving:
            browser.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        for create in sandbox.journal.creates:
            await server.deliver({**COMPLETED, "task_id": create.task_id})
        for events in await asyncio.gather(*staying):
            assert events[-1]["data"]["state"] == "succeeded"
            assert len({event["id"] for event in events}) == len(events)
        await until(lambda: server.shows(streams=0), every=0.05)

        async def quiet() -> bool:
            # 60: connections of the service that stay open between deliveries.
            return (await server.state())["tasks"] <= before + 60

        await until(quiet, every=0.05)
        polls = len(sandbox.journal.polls)
        assert polls <= 25 * (1 + (sandbox.now() - began) / GAP)  # by song, none for a browser


async def test_single_browser_that_leaves_is_noticed(
    framework: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One stream, closed by the browser: the server forgets it although the song continues.

    A delivery that breaks off in the middle of its body is no error of the server's, either.
    """
    async with Sandbox(speed=1) as sandbox, back_end(framework, sandbox) as server:
        token = await server.create(description="rain")
        assert len(await server.events(token, most=1)) == 1
        _, half = await asyncio.open_connection("127.0.0.1", server.port)
        half.write(b"POST /webhooks/musicapi HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        await half.drain()
        await server.state()
        half.close()
        await until(lambda: server.shows(streams=0), every=0.05)
    assert "Traceback" not in capfd.readouterr().err


async def test_stopped_server_waits_for_paid_calls_and_not_for_streams(framework: str) -> None:
    """SIGTERM: the browser of a stream reconnects at once, that of a call under way has its song, made once."""
    async with Sandbox(speed=1) as sandbox, back_end(framework, sandbox) as server:
        token = await server.create(description="rain")
        watching = asyncio.create_task(server.events(token))
        await until(lambda: server.shows(streams=1), every=0.05)
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(1))
        ordering = asyncio.create_task(server.create(description="snow"))
        await until(lambda: len(sandbox.journal.creates) == 2)
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):  # the song takes longer
            assert not (await watching)[-1]["data"]["ended"]
        assert (await ordering).startswith("musicapi:sonic:")
        await server.process.ended()
        assert sandbox.journal.charges == 40


async def test_unverified_deliveries_are_refused_without_a_reason(framework: str) -> None:
    """400 for a bad signature or body, 413 for one that is too long before it ends, 405 for a GET; not why.

    A HEAD of an event stream is refused, too: its events would follow headers that promise no body.
    """
    async with Sandbox(speed=1) as sandbox, back_end(framework, sandbox) as server:
        url = f"{server.url}/webhooks/musicapi"
        raw = b'{"task_id":"t","platform":"suno","event":"song.completed"}'
        stale = {
            "X-Webhook-Timestamp": "1760000000",
            "X-Webhook-Signature": sign(SECRET, 1760000000, raw),
        }

        async def without_end() -> AsyncGenerator[bytes]:
            yield b"x" * (WEBHOOK_BODY_LIMIT + 1)
            await asyncio.Event().wait()

        cases: list[tuple[Any, dict[str, str], int]] = [
            (raw, {}, 400),
            (raw, stale, 400),
            (b"", stale, 400),
            (without_end(), stale, 413),
        ]
        for body, headers, status in cases:
            async with server.browser.post(url, data=body, headers=headers) as response:
                assert response.status == status
                assert response.content_type == "application/problem+json"
                text = await response.text()
                assert json.loads(text)["type"] == "about:blank"
                assert "secret" not in text
                assert "sign" not in text
        async with server.browser.get(url) as response:
            assert response.status == 405
        async with server.browser.head(f"{server.url}/tasks/musicapi:sonic:x:0:id/events") as response:
            assert response.status == 405


async def test_failed_handling_repeats_the_delivery(framework: str) -> None:
    """The first `song.failed` finds the database away: 500, and the repetition is handled as new."""
    faults = Sandbox(speed=SPEED, durations=EXACT)
    async with faults as sandbox, back_end(framework, sandbox) as server:
        sandbox.faults.on("POST", "/sonic/create", Fault.fail())
        token = await server.create(description="rain")
        events = await server.events(token)
        assert events[-1]["data"]["state"] == "failed"
        assert events[-1]["data"]["problem"]["code"] == "generation_failed"

        async def handled_twice() -> bool:
            return (await server.state())["events"].count("song.failed") == 2

        await until(handled_twice, every=0.05)
        assert [entry.status for entry in sandbox.journal.webhooks if entry.event == "song.failed"] == [
            500,
            204,
        ]


async def test_errors_become_problems_that_leak_nothing(framework: str) -> None:
    """Local checks name field and limit; the service's refusals, an empty balance and a bad token nothing."""
    async with Sandbox(speed=1, credits=5) as sandbox, back_end(framework, sandbox) as server:
        songs = f"{server.url}/songs"
        async with server.browser.post(songs, params={"description": "x" * 500}) as response:
            assert response.status == 422
            body = await response.json(content_type="application/problem+json")
            assert body["code"] == "invalid_request"
            assert body["errors"] == [
                {"field": "gpt_description_prompt", "limit": "text of at most 400 characters"}
            ]
            assert "xxx" not in str(body)
        async with server.browser.post(
            songs, params={"description": "rain", "mv": "no-such-model"}
        ) as response:
            assert response.status == 422
            assert (await response.json(content_type=None))["code"] == "refused"
        async with server.browser.post(songs, params={"description": "rain"}) as response:
            assert response.status == 503
            assert "credit" not in (await response.text()).lower()
        for token in (
            "nonsense",
            "musicapi:nosuch:x:0:id",
            "musicapi:sonic:x:nan:id",
            "musicapi:sonic:x:0:id",
        ):
            async with server.browser.get(f"{server.url}/tasks/{token}/events") as response:
                assert response.status == 404
                assert (await response.json(content_type=None))["code"] == "not_found"
