"""Event streams, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from musicapi_async.api.results import Clip, Clips, TaskUpdate, Voice
from musicapi_async.errors import AuthenticationError, TaskFailedError, TaskTimeoutError
from musicapi_async.testing.virtual import VirtualTimeLoop
from musicapi_async.webhooks import event, has_ended, stream, update_fields
from musicapi_async.webhooks.server_sent_events import mark_of


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def clips(state: str, title: str = "Song") -> Clips:
    url = "https://cdn.example/a.mp3" if state == "succeeded" else "https://audiopipe.suno.ai/?item_id=a"
    return Clips([Clip(clip_id="a", state=state, title=title, audio_url=url)])


PENDING = TaskUpdate("pending")
RUNNING = TaskUpdate("running", clips=clips("running"))
DONE = TaskUpdate("succeeded", clips=clips("succeeded"), result=clips("succeeded"))


class Source:
    """Updates with pauses between them; knows whether it was closed."""

    def __init__(self, *steps: TaskUpdate | Exception | float) -> None:
        self.steps = steps
        self.closed = False

    async def updates(self) -> AsyncGenerator[TaskUpdate, None]:
        try:
            for step in self.steps:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.closed = True


async def read(source: Source, last: str | None = None) -> list[str]:
    """The lines of the stream, without the blank ones."""
    chunks = [chunk async for chunk in stream(source.updates(), last)]
    assert source.closed
    return [line for line in b"".join(chunks).decode().split("\n") if line]


async def test_each_change_is_one_event_and_silence_a_comment() -> None:
    """Retry hint, updates with ids, a comment every 15 s, then the end."""
    lines = await read(Source(PENDING, 40.0, RUNNING, RUNNING, 1.0, DONE))
    assert lines[0] == "retry: 2000"
    assert [line for line in lines if line.startswith(":")] == [": still here"] * 2
    states = [json.loads(line[6:])["state"] for line in lines if line.startswith("data: ")]
    assert states == ["pending", "running", "succeeded"]
    ids = [line[4:] for line in lines if line.startswith("id: ")]
    assert ids == [mark_of(PENDING), mark_of(RUNNING), mark_of(DONE)]
    assert [has_ended(mark) for mark in ids] == [False, False, True]


async def test_events_of_the_browser_are_not_repeated() -> None:
    """The id names the state, so a new process knows it too."""
    lines = await read(Source(RUNNING, DONE), mark_of(RUNNING))
    assert len([line for line in lines if line.startswith("data: ")]) == 1
    assert has_ended(mark_of(DONE))
    assert not has_ended(None)
    assert not has_ended("")


async def test_reconnected_browser_gets_no_older_state() -> None:
    """Before the first poll after a restart, the made-up first state is not sent to a browser that has more."""
    looked = TaskUpdate("running", clips=clips("running"), raw={"code": 200})
    data = [line for line in await read(Source(PENDING, looked, DONE), mark_of(RUNNING)) if "data: " in line]
    assert [json.loads(line[6:])["state"] for line in data] == ["succeeded"]
    data = [
        line for line in await read(Source(PENDING, looked, DONE), "of another state") if "data: " in line
    ]
    assert [json.loads(line[6:])["state"] for line in data] == ["running", "succeeded"]


async def test_error_of_a_stream_is_one_last_problem() -> None:
    """Nothing of the error's text; a time-out only closes, so that the browser reconnects."""
    lines = await read(Source(PENDING, AuthenticationError("hush", status=401)))
    assert lines[-3] == "event: problem"
    assert has_ended(lines[-2].removeprefix("id: "))
    assert "hush" not in lines[-1]
    assert json.loads(lines[-1][6:])["code"] == "internal"
    lines = await read(Source(PENDING, RuntimeError("hush")))
    assert json.loads(lines[-1][6:])["code"] == "internal"
    lines = await read(Source(PENDING, TaskTimeoutError("hush", task_id="t", family="sonic")))
    assert "problem" not in "".join(lines)


async def test_left_stream_ends_the_polling_at_once() -> None:
    """By closing between events, in the middle of a silence, and by cancelling."""
    before = asyncio.all_tasks()
    source = Source(PENDING, 100.0, DONE)
    async with aclosing(stream(source.updates())) as chunks:
        await anext(chunks)
        await anext(chunks)
    assert source.closed
    source = Source(PENDING, 100.0, DONE)
    async with aclosing(stream(source.updates())) as chunks:
        for _ in range(4):
            await anext(chunks)
    assert source.closed
    source = Source(PENDING, 100.0, DONE)
    reading = asyncio.create_task(read(source))
    await asyncio.sleep(20)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.closed
    assert asyncio.all_tasks() == before


def test_text_of_songs_cannot_forge_an_event() -> None:
    """Line breaks and control characters in lyrics stay inside their line of JSON."""
    update = TaskUpdate("running", clips=clips("running", "x\n\nevent: forged\r\ndata: {}\u2028"))
    sent = event(update_fields(update), name="update", event_id="1")
    assert sent.count(b"\n") == 4
    assert b"\r" not in sent
    assert sent.endswith(b"\n\n")


def test_voice_has_its_persona_and_failure_its_problem() -> None:
    """Results without clips have their own fields."""
    voice = Voice("p1", "Name")
    assert update_fields(TaskUpdate("succeeded", result=voice))["persona_id"] == "p1"
    failed = TaskUpdate("failed", error=TaskFailedError("hush", task_id="t", family="sonic"))
    fields = update_fields(failed)
    assert fields["ended"] is True
    assert fields["problem"]["code"] == "generation_failed"
    assert "hush" not in str(fields)
