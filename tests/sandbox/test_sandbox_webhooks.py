"""Webhooks as receivers get them: headers, signature, bodies, retries, and every way to go wrong."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from musicapi_async.sandbox import Choices, Durations, Fault
from musicapi_async.sandbox.webhook_sender import signature

SECRET = "example-webhook-secret"
QUICK = Durations(song=(40.0, 0.0), producer=(20.0, 0.0), nuro=(20.0, 0.0), voice=(20.0, 0.0))
SONG = {
    "custom_mode": False,
    "mv": "sonic-v5",
    "gpt_description_prompt": "calm rain",
    "webhook_secret": SECRET,
}


class Receiver:
    """A real HTTP server that keeps what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes, Any]] = []
        self.answers: list[int] = []
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        raw = await request.read()
        import msgspec

        self.got.append((dict(request.headers), raw, msgspec.json.decode(raw)))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    @property
    def events(self) -> list[str]:
        return [body["event"] for _, _, body in self.got]

    async def wait(self, count: int) -> None:
        for _ in range(1500):
            if len(self.got) >= count:
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"{len(self.got)} of {count} deliveries came: {self.events}")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on this machine."""
    mine = Receiver()
    runner = web.ServerRunner(web.Server(mine.handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    mine.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield mine
    await runner.cleanup()


def authentic(headers: dict[str, str], raw: bytes, secret: str = SECRET) -> bool:
    message = headers["X-Webhook-Timestamp"].encode() + b"." + raw
    expected = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    return headers["X-Webhook-Signature"] == f"sha256={expected}"


def test_signature_of_the_documented_vector():
    """The documented example is signed as documented."""
    raw = (
        b'{"type":"failed","message":"Example failure","refund_processed":true,'
        b'"task_id":"11111111-1111-4111-8111-111111111111","platform":"suno","event":"song.failed"}'
    )
    known = "sha256=b9c4f04995f6107af7f1171543390c2d487c8ad0accfb1e67579a84f8b89326b"
    assert signature(SECRET, "1760000000", raw) == known


async def test_streaming_then_completed(start, receiver):
    """Two events with all headers, signed over the raw bytes, models in chirp spelling."""
    api = await start(durations=QUICK)
    task_id = await api.submit(body={**SONG, "webhook_url": receiver.url})
    await receiver.wait(2)
    assert receiver.events == ["song.streaming", "song.completed"]
    ids = set()
    for headers, raw, body in receiver.got:
        assert authentic(headers, raw)
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Webhook-Id"] == headers["Idempotency-Key"]
        assert headers["X-Webhook-Event"] == body["event"]
        assert abs(int(headers["X-Webhook-Timestamp"]) - time.time()) < 60
        assert (body["task_id"], body["platform"], body["code"]) == (task_id, "suno", 200)
        ids.add(headers["X-Webhook-Id"])
    assert len(ids) == 2
    early, late = (body for _, _, body in receiver.got)
    assert (early["message"], late["message"]) == ("streaming", "success")
    assert {clip["state"] for clip in late["data"]} == {"succeeded"}
    assert {clip["mv"] for clip in late["data"]} == {"chirp-v5"}
    assert all("/audiopipe/" in (clip["audio_url"] or "") for clip in early["data"])
    assert [entry.event for entry in api.sandbox.journal.webhooks] == receiver.events


@pytest.mark.parametrize(("choice", "running"), [("all", [2]), ("first", [1]), ("each", [1, 2])])
async def test_streaming_event_is_sent_when_the_choice_says(start, receiver, choice, running):
    """Once all clips stream; by choice for each clip, or for the first one; the body shows which do by then."""
    api = await start(durations=QUICK, choices=Choices(streaming=choice))
    await api.submit(body={**SONG, "webhook_url": receiver.url})
    await receiver.wait(len(running) + 1)
    early = [body for _, _, body in receiver.got if body["event"] == "song.streaming"]
    assert [sum(bool(clip["audio_url"]) for clip in body["data"]) for body in early] == running
    assert receiver.events[-1] == "song.completed"


async def test_failed(start, receiver):
    """A failed task is told with its refund, after the early audio."""
    api = await start(durations=QUICK)
    api.sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    task_id = await api.submit(body={**SONG, "webhook_url": receiver.url})
    await receiver.wait(2)
    _, _, body = receiver.got[-1]
    assert {key: body[key] for key in ("type", "refund_processed", "task_id", "event")} == {
        "type": "failed",
        "refund_processed": True,
        "task_id": task_id,
        "event": "song.failed",
    }


async def test_other_families(start, receiver):
    """Producer's and Nuro's events have their own shapes."""
    api = await start(durations=QUICK, choices=Choices(platform="sonic"))
    hook = {"webhook_url": receiver.url, "webhook_secret": SECRET}
    await api.submit("/producer/create", {"sound": "pop", **hook})
    await receiver.wait(1)
    await api.submit("/nuro/create", {"type": "bgm", "description": "calm", "duration": 5, **hook})
    await receiver.wait(2)
    producer, nuro = (body for _, _, body in receiver.got)
    assert (producer["platform"], producer["data"][0]["state"]) == ("producer", "succeeded")
    assert (nuro["platform"], nuro["status"], nuro["event"]) == ("nuro", "succeeded", "song.completed")
    assert "data" not in nuro
    song = await api.song(duration=12)
    await api.submit("/sonic/create-voice", {"audio_url": song["audio_url"], **hook})
    await receiver.wait(3)
    voice = receiver.got[-1][2]
    assert (voice["platform"], set(voice["data"])) == ("sonic", {"persona_id", "name"})


async def test_refused_deliveries_are_tried_again(start, receiver):
    """Until a 2xx comes, with the same id."""
    api = await start(durations=QUICK)
    receiver.answers = [500, 500]
    await api.submit("/producer/create", {"sound": "pop", "webhook_url": receiver.url})
    await receiver.wait(3)
    assert len({headers["X-Webhook-Id"] for headers, _, _ in receiver.got}) == 1
    assert [entry.status for entry in api.sandbox.journal.webhooks] == [500, 500, 200]


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (Fault.duplicate, lambda got: len(got) == 2 and got[0][1] == got[1][1]),
        (Fault.wrong_secret, lambda got: not authentic(got[0][0], got[0][1])),
        (Fault.unsigned, lambda got: "X-Webhook-Signature" not in got[0][0]),
        (
            Fault.old_timestamp,
            lambda got: (
                authentic(got[0][0], got[0][1]) and time.time() - int(got[0][0]["X-Webhook-Timestamp"]) > 600
            ),
        ),
    ],
    ids=lambda value: getattr(value, "name", "check"),
)
async def test_broken_deliveries(start, receiver, fault, check):
    """Duplicates, wrong keys, missing signatures and old timestamps arrive as such."""
    api = await start(durations=QUICK)
    api.sandbox.faults.on("WEBHOOK", "song.completed", fault)
    hook = {"webhook_url": receiver.url, "webhook_secret": SECRET}
    await api.submit("/producer/create", {"sound": "pop", **hook})
    await receiver.wait(2 if fault is Fault.duplicate else 1)
    assert check(receiver.got)
    assert api.sandbox.journal.webhooks[0].fault == fault.name


async def test_late_lost_and_reordered(start, receiver):
    """An event may come late, never, or after the one that follows it."""
    api = await start(durations=QUICK)
    api.sandbox.faults.on("WEBHOOK", "song.streaming", Fault.reordered)
    await api.submit(body={**SONG, "webhook_url": receiver.url})
    await receiver.wait(2)
    assert receiver.events == ["song.completed", "song.streaming"]
    api.sandbox.faults.on("WEBHOOK", "song.streaming", Fault.late(300))
    await api.submit(body={**SONG, "webhook_url": receiver.url})
    await receiver.wait(4)
    assert receiver.events[2:] == ["song.completed", "song.streaming"]
    api.sandbox.faults.on("WEBHOOK", "*", Fault.lost, times=2)
    await api.finished(await api.submit(body={**SONG, "webhook_url": receiver.url}))
    await asyncio.sleep(0.02)
    assert len(receiver.got) == 4
    assert [entry.status for entry in api.sandbox.journal.webhooks][-2:] == [0, 0]


async def test_other_machines_are_left_alone(start):
    """Nothing leaves this machine; the journal says so."""
    api = await start(durations=QUICK)
    await api.finished(await api.submit(body={**SONG, "webhook_url": "https://app.example/hook"}))
    await asyncio.sleep(0.01)
    assert {entry.fault for entry in api.sandbox.journal.webhooks} == {"not_allowed"}


@pytest.mark.parametrize(
    "url", ["http://app.example/hook", "ftp://x", "https://", 7, "https://" + "x" * 1020]
)
async def test_refused_addresses(start, url):
    """A webhook must be https (or this machine) and at most 1024 characters long."""
    api = await start()
    assert (await api.post("/sonic/create", {**SONG, "webhook_url": url}))[0] == 400


async def test_stop_ends_all_deliveries(start, receiver):
    """Stopping the sandbox cancels what is still waiting, at once."""
    api = await start(speed=1.0)
    await api.submit(body={**SONG, "webhook_url": receiver.url})
    begun = api.sandbox.now()
    await api.sandbox.stop()
    assert api.sandbox.now() - begun < 1
    assert receiver.got == []
