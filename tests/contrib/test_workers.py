"""Back ends that share a job store: each event is worked on once, and none is lost with its worker."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from patience import until
from serving import FRAMEWORKS, Server, app_of, serving

from musicapi_async import (
    MusicAPI,
    NotFoundError,
    RequestValidationError,
    Webhooks,
    WebhookVerificationError,
)
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Sandbox
from musicapi_async.webhooks import Event, sign

SECRET = "a secret of sixteen characters or more"
BODY = json.dumps({"task_id": "t", "platform": "suno", "event": "song.failed"}).encode()

pytestmark = pytest.mark.parametrize("framework", FRAMEWORKS)


class Work:
    """The work of a back end with an event, which may hang, as if its process had been killed."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.events: list[str | None] = []
        self.done = asyncio.Event()
        if not hangs:
            self.done.set()

    async def __call__(self, event: Event) -> None:
        self.events.append(event.task_id)
        await self.done.wait()


async def post(server: Server, now: float) -> int:
    """Deliver the event once more; return the status of the answer."""
    stamp = int(now)
    headers = {
        "X-Webhook-Id": "1",
        "X-Webhook-Timestamp": str(stamp),
        "X-Webhook-Signature": sign(SECRET, stamp, BODY),
    }
    async with server.browser.post(f"{server.url}/webhooks/musicapi", data=BODY, headers=headers) as answer:
        return answer.status


async def test_event_of_a_killed_worker_is_worked_on_by_another(framework: str, tmp_path: Path) -> None:
    """Its repetitions are refused for a minute, in which it may still end; then another worker has the event."""
    now = [time.time()]

    def worker(sandbox: Sandbox, work: Work) -> Any:
        hooks = Webhooks(secret=SECRET, now=lambda: now[0])
        store = SQLiteStore(tmp_path / "jobs.sqlite")
        return app_of(
            framework,
            lambda: sandbox.client(webhooks=hooks, store=store),
            events=None,
            on_event=work,
        )

    killed, other = Work(hangs=True), Work()
    async with (
        Sandbox() as sandbox,
        serving(worker(sandbox, killed)) as first,
        serving(worker(sandbox, other)) as second,
    ):
        hanging = asyncio.create_task(post(first, now[0]))
        await until(lambda: killed.events)
        assert await post(first, now[0]) == await post(second, now[0]) == 503
        assert not other.events
        now[0] += 61
        assert await post(second, now[0]) == 204
        assert other.events == ["t"]
        killed.done.set()
        assert await hanging == 204
        for hours in (1, 23):
            now[0] += hours * 1800
            assert await post(first, now[0]) == await post(second, now[0]) == 204
        assert (killed.events, other.events) == (["t"], ["t"])


async def test_error_of_the_work_is_the_back_ends_own(framework: str) -> None:
    """500, whatever its class says of other requests: the service cannot repair its delivery, and repeats it.

    A paid call with a job key is made once, although the work is done twice.
    """
    found: list[Exception] = [
        NotFoundError("no such clip", status=404),
        RequestValidationError("title", field="title", limit="80 characters"),
        WebhookVerificationError("another webhook"),
    ]

    async with Sandbox(speed=60) as sandbox:
        client = sandbox.client(webhooks=Webhooks(secret=SECRET))

        async def work(event: Event) -> None:
            once = client.with_options(job_key=f"sequel of {event.task_id}")
            await once.sonic.create_music(mv="sonic-v6", gpt_description_prompt="sequel")
            if found:
                raise found.pop()

        async with serving(app_of(framework, lambda: client, events=None, on_event=work)) as server:
            assert [await post(server, time.time()) for _ in range(4)] == [500, 500, 500, 204]
        assert len(sandbox.journal.creates) == 1


async def test_work_may_be_a_plain_function(framework: str) -> None:
    """As `authorize` may: it is called once, and the delivery is taken."""
    events: list[str] = []

    def work(event: Event) -> None:
        events.append(event.event)

    async with Sandbox() as sandbox:

        def make() -> MusicAPI:
            return sandbox.client(webhooks=Webhooks(secret=SECRET))

        async with serving(app_of(framework, make, events=None, on_event=work)) as server:
            assert [await post(server, time.time()) for _ in range(2)] == [204, 204]
    assert events == ["song.failed"]
