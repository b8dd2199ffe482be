"""The calls of the fault matrix, their good replies, and clients that make them."""

from __future__ import annotations

import asyncio
import io
import socket
import wave
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_cases import KEY, SECRET, TASK_ID, Fault
from fault_oracle import Reply, Rules
from hostile_server import HostileServer, Request

from musicapi_async import Clock, MusicAPI
from musicapi_async.jobs import SQLiteStore

SPEED = 1000.0
QUICK, PATIENT = 0.4, 15.0
"""Real seconds of an attempt: for faults that outlast it, and for all others."""

Good = Mapping[str, Any]


TASK_MAKING = Rules()
DIRECT = Rules(submits=False)


@dataclass(frozen=True)
class Call:
    """A call under test: how it is made, what answers it when all is well, and what is special about it."""

    name: str
    make: Callable[[MusicAPI], Awaitable[Any]]
    good: Good
    rules: Rules = TASK_MAKING


SUBMITTED = {"message": "success", "task_id": TASK_ID}
SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
HOOK: dict[str, Any] = {"webhook_url": "https://example.com/hook", "webhook_secret": SECRET}
CLIP = {
    "clip_id": "aaaaaaaa-0000-4000-8000-000000000001",
    "state": "succeeded",
    "title": "Rain",
    "audio_url": "https://cdn.example/a.mp3",
    "duration": "104.88",
}
FINISHED = {"code": 200, "message": "success", "data": [CLIP]}
FILES = {"code": 200, "data": {"files": [{"format": "mp3", "url": "https://cdn.example/a.mp3"}]}}

PAID = (
    Call("sonic.create_music", lambda c: c.sonic.create_music(**SONG, **HOOK), SUBMITTED),
    Call(
        "sonic.upload_cover",
        lambda c: c.sonic.upload_cover(**SONG, **HOOK, url="https://example.com/a.mp3"),
        SUBMITTED,
    ),
    Call("producer.create_music", lambda c: c.producer.create_music(sound="calm", **HOOK), SUBMITTED),
    Call("nuro.create_bgm", lambda c: c.nuro.create_bgm(description="calm", **HOOK), SUBMITTED),
    Call("riffusion.create", lambda c: c.riffusion.create(prompt="calm", custom_mode=False), SUBMITTED),
    Call(
        "studio.create_instrumental",
        lambda c: c.studio.create_instrumental(prompt="calm", model_type="m"),
        {"code": "200", "data": TASK_ID},
        Rules(id_is_data=True),
    ),
    Call(
        "sonic.create_persona",
        lambda c: c.sonic.create_persona(name="Rain", clip_id="c"),
        {"code": 200, "message": "success", "persona_id": "dddddddd-0000-4000-8000-000000000001"},
        DIRECT,
    ),
    Call("sonic.wav", lambda c: c.sonic.wav("c"), {"data": {"wav_url": "https://cdn.example/a.wav"}}, DIRECT),
    Call(
        "sonic.midi",
        lambda c: c.sonic.midi("c"),
        {"code": 200, "data": {"midi_url": "https://cdn.example/a.mid", "instruments": []}},
        Rules(submits=False, repeats_202=True, may_be_empty=True),
    ),
    Call(
        "sonic.lyrics",
        lambda c: c.sonic.lyrics("rain"),
        {"code": 200, "results": [{"title": "Rain", "lyrics": "[Verse]\nRain"}]},
        Rules(submits=False, free_504=True),
    ),
    Call(
        "sonic.upload",
        lambda c: c.sonic.upload("https://example.com/a.mp3"),
        {"code": 200, "clip_id": "cccccccc-0000-4000-8000-000000000001"},
        DIRECT,
    ),
    Call(
        "sonic.download",
        lambda c: c.sonic.download(clip_id="c", formats=["mp3"]),
        FILES,
        Rules(submits=False, repeats_202=True),
    ),
    Call(
        "sonic.create_batch",
        lambda c: c.sonic.create_batch([{**SONG, **HOOK}, SONG]),
        {"message": "success", "batch_id": "b-1", "tasks": [{"task_id": TASK_ID}, {"task_id": "task-2"}]},
        Rules(is_batch=True),
    ),
    Call(
        "POST /new/path",
        lambda c: c.request("POST", "/new/path", json={"items": [], "webhook_secret": SECRET}),
        {"message": "success", "id": "b-1"},
        Rules(submits=False, untyped=True),
    ),
)
FREE = (
    Call("credits", lambda c: c.credits(), {"credits": 50, "extra_credits": 0}),
    Call("task.refresh", lambda c: c.task("sonic", TASK_ID).refresh(), FINISHED),
    Call(
        "sonic.get_batch",
        lambda c: c.sonic.get_batch("b-1"),
        {"batch_id": "b-1", "data": [{"task_id": TASK_ID, **FINISHED}]},
    ),
    Call("GET /new/path", lambda c: c.request("GET", "/new/path", params={"id": "b-1"}), {"status": "x"}),
)


def song() -> bytes:
    """A short file of silence."""
    raw = io.BytesIO()
    with wave.open(raw, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4000))
    return raw.getvalue()


MEDIA = {"raw": song()}


@asynccontextmanager
async def client_of(
    address: str, *, speed: float = SPEED, slow: bool = False, store: Path | None = None, **more: Any
) -> AsyncGenerator[MusicAPI]:
    """A client of the server at `address`, a host and port or a URL."""
    url = address if "://" in address else f"http://{address}/api/v1"
    async with MusicAPI(
        KEY,
        base_url=url,
        rate_limit=None,
        clock=Clock(speed),
        attempt_timeout=QUICK if slow else PATIENT * speed,
        store=SQLiteStore(store) if store else None,
        **more,
    ) as client:
        yield client


def place_of(fault: Fault, server: HostileServer) -> str:
    """Where the client is sent."""
    match fault.address:
        case "refused port":
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                return f"127.0.0.1:{free.getsockname()[1]}"
        case "unknown host":
            return "https://no-such-host.invalid/api/v1"
        case "TLS":
            return f"https://{server.address}/api/v1"
        case _:
            return server.address


@dataclass
class Seen:
    """How a call ended, and what the server had seen by then."""

    result: Any
    error: BaseException | None
    arrived: list[Request]
    replies: list[Reply]


async def seen_of(server: HostileServer, made: Awaitable[Any]) -> Seen:
    """Await a call."""
    result, error = None, None
    try:
        result = await made
    except BaseException as caught:
        if (
            isinstance(caught, asyncio.CancelledError)
            and (task := asyncio.current_task())
            and task.cancelling()
        ):
            raise
        error = caught
    return Seen(result, error, list(server.arrived), list(server.replies))
