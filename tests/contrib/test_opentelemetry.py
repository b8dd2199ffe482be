"""OpenTelemetry: spans and metrics of real work, in the exporters of the SDK that keep all in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from patience import until

from musicapi_async import (
    ConnectionLostError,
    DownloadError,
    NotFoundError,
    OutcomeUnknownError,
    RequestValidationError,
    TaskFailedError,
    Webhooks,
)
from musicapi_async.api.json_values import mapping_or_empty
from musicapi_async.contrib.opentelemetry import OpenTelemetryHook
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.webhooks import sign

SECRET: Final = "example-webhook-secret"
SONG: Final = {"mv": "sonic-v6", "prompt": "[Verse]\nRain on the window"}


class Telemetry:
    """A hook, and what it has recorded."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.hook = OpenTelemetryHook(self.tracers, self.meters)

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """The ended spans of a name, in the order of their begin."""
        found = [span for span in self.exporter.get_finished_spans() if name in (None, span.name)]
        return sorted(found, key=lambda span: span.start_time or 0)

    def metrics(self) -> dict[str, list[Any]]:
        """The data points of each metric."""
        data = self.reader.get_metrics_data()
        return (
            {}
            if data is None
            else {
                metric.name: list(metric.data.data_points)
                for resource in data.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }
        )


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """A hook with providers of its own."""
    made = Telemetry()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


async def test_song_is_a_span_with_its_stages_and_requests(telemetry: Telemetry, tmp_path: Path) -> None:
    """From the submit to the end; polls are its children, the submit and the task are those of the caller."""
    async with Sandbox(speed=60, longest=3) as sandbox, sandbox.client(hooks=telemetry.hook) as client:
        with telemetry.tracers.get_tracer("test").start_as_current_span("request of a user") as outer:
            task = await client.sonic.create_music(**SONG)
            in_flight = telemetry.metrics()["musicapi.tasks.in_flight"]
            updates = [update async for update in task.updates()]
            paths = await client.download(updates[-1].clips, tmp_path)
        assert [point.value for point in in_flight] == [1]
        (song,) = telemetry.spans("musicapi create_music")
        assert song.kind is SpanKind.INTERNAL
        assert song.parent is not None
        assert song.parent.span_id == outer.get_span_context().span_id
        assert song.attributes == {
            "musicapi.call": "POST /sonic/create",
            "musicapi.family": "sonic",
            "musicapi.kind": "create_music",
            "musicapi.task_id": task.task_id,
            "musicapi.state": "succeeded",
        }
        stages = [event.name for event in song.events]
        assert stages == ["pending", "running", "streaming", "ended"]
        assert song.status.status_code is StatusCode.UNSET

        (create,) = telemetry.spans("POST /sonic/create")
        url = f"{sandbox.base_url}/sonic/create"
        assert create.kind is SpanKind.CLIENT
        assert create.parent is not None
        assert create.parent.span_id == outer.get_span_context().span_id
        attributes = dict(create.attributes or {})
        assert attributes.pop("musicapi.request_id")
        assert attributes == {
            "http.request.method": "POST",
            "url.full": url,
            "url.template": "/sonic/create",
            "server.address": urlsplit(url).hostname,
            "server.port": urlsplit(url).port,
            "http.response.status_code": 200,
            "musicapi.call": "POST /sonic/create",
            "musicapi.family": "sonic",
            "musicapi.kind": "create_music",
            "musicapi.task_id": task.task_id,
        }
        assert (song.start_time or 0) == (create.start_time or 0)
        polls = telemetry.spans("GET /sonic/task/{task_id}")
        assert polls
        for poll in polls:
            assert poll.parent is not None
            assert poll.parent.span_id == song.get_span_context().span_id
            assert (poll.attributes or {})["url.full"] == f"{sandbox.base_url}/sonic/task/{task.task_id}"

        files = telemetry.spans("GET")
        assert [(file.attributes or {})["musicapi.tries"] for file in files] == [1, 1]
        metrics = telemetry.metrics()
        assert [point.value for point in metrics["musicapi.tasks.in_flight"]] == [0]
        assert sum(point.count for point in metrics["http.client.request.duration"]) == 1 + len(polls)
        (ended,) = metrics["musicapi.task.duration"]
        assert (ended.count, ended.attributes["musicapi.state"]) == (1, "succeeded")
        (late,) = metrics["musicapi.poll.lateness"]
        assert late.count == len(polls)
        (sizes,) = metrics["musicapi.download.size"]
        assert sizes.sum == sum(path.stat().st_size for path in paths)
        assert len(sandbox.journal.creates) == 1


async def test_resends_and_failures_follow_the_conventions(telemetry: Telemetry, tmp_path: Path) -> None:
    """A refusal and its repeat, a lost connection, an unknown task, a file that is gone."""
    async with Sandbox(speed=60) as sandbox, sandbox.client(hooks=telemetry.hook, max_retries=1) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(429))
        await client.with_options(job_key="order-1").sonic.create_music(**SONG)
        refused, taken = telemetry.spans("POST /sonic/create")
        assert refused.attributes is not None
        assert refused.attributes["http.response.status_code"] == 429
        assert refused.attributes["error.type"] == "429"
        assert refused.attributes["musicapi.job_key"] == "order-1"
        assert "http.request.resend_count" not in refused.attributes
        assert (refused.status.status_code, refused.status.description) == (StatusCode.ERROR, None)
        assert taken.attributes is not None
        assert taken.attributes["http.request.resend_count"] == 1
        assert taken.status.status_code is StatusCode.UNSET
        (retries,) = telemetry.metrics()["musicapi.retries"]
        assert (retries.value, retries.attributes["musicapi.reason"]) == (1, "rate_limited")
        assert sum(point.sum for point in telemetry.metrics()["musicapi.rate_wait.duration"]) > 0

        sandbox.faults.on("GET", "/get-credits", Fault.reset_before, times=None)
        with pytest.raises(ConnectionLostError):
            await client.with_options(max_retries=0).credits()
        (lost,) = telemetry.spans("GET /get-credits")
        assert lost.attributes is not None
        assert lost.attributes["error.type"] == "ConnectionLostError"
        assert "http.response.status_code" not in lost.attributes
        assert lost.status.status_code is StatusCode.ERROR
        assert lost.status.description

        with pytest.raises(NotFoundError):
            await client.task("sonic", "00000000-0000-4000-8000-000000000000").refresh()
        (unknown,) = telemetry.spans("GET /sonic/task/{task_id}")
        assert (unknown.attributes or {})["error.type"] == "400"

        link = sandbox.base_url.rpartition("/api")[0] + "/no-such-file.mp3?signature=private"
        with pytest.raises(DownloadError):
            await client.download(link, tmp_path)
        (file,) = telemetry.spans("GET")
        assert (file.attributes or {})["error.type"] == "404"
        await client.request("POST", "/sonic/lyrics", json={"description": "rain"})
        assert [span.name for span in telemetry.spans() if span.name == "POST"] == ["POST"]
    telemetry.hook.close()
    assert "private" not in "".join(span.to_json() for span in telemetry.spans())


async def test_failed_task_and_task_without_an_end(telemetry: Telemetry) -> None:
    """A failure has the service's words; a task that no one waits for is ended by `close`, with no state."""
    async with Sandbox(speed=60) as sandbox, sandbox.client(hooks=telemetry.hook, rate_limit=None) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.fail())
        failed = await client.sonic.create_music(**SONG)
        with pytest.raises(TaskFailedError):
            await failed.wait()
        (span,) = telemetry.spans("musicapi create_music")
        assert span.attributes is not None
        assert span.attributes["musicapi.state"] == "failed"
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description
        await client.sonic.create_music(**SONG)
        assert len(telemetry.spans("musicapi create_music")) == 1
    for _ in range(2):
        telemetry.hook.close()
        assert len(telemetry.spans("musicapi create_music")) == 2
    assert "musicapi.state" not in (telemetry.spans("musicapi create_music")[1].attributes or {})
    assert [point.value for point in telemetry.metrics()["musicapi.tasks.in_flight"]] == [0]


async def test_stages_that_webhooks_bring_are_those_of_the_span(telemetry: Telemetry) -> None:
    """Early audio and the end, without a poll; a delivery that comes twice counts once."""
    hooks = Webhooks(url="http://127.0.0.1:9/hooks", secret=SECRET)
    async with (
        Sandbox(speed=1) as sandbox,
        sandbox.client(hooks=telemetry.hook, webhooks=hooks) as client,
    ):
        task = await client.sonic.create_music(**SONG)
        clip = {"clip_id": "c", "state": "running", "audio_url": "https://audiopipe.suno.ai/?item_id=c"}
        done = {"clip_id": "c", "state": "succeeded", "audio_url": "https://cdn.example/c.mp3"}
        for name, one in (("streaming", clip), ("streaming", clip), ("completed", done)):
            body = {"event": f"song.{name}", "platform": "sonic", "task_id": task.task_id, "data": [one]}
            raw, stamp = json.dumps(body).encode(), str(int(time.time()))
            headers = {
                "X-Webhook-Timestamp": stamp,
                "X-Webhook-Signature": sign(SECRET, stamp, raw),
                "X-Webhook-Event": f"song.{name}",
            }
            await client.webhooks.handle(headers, raw)
        await task
        assert not sandbox.journal.polls
    (song,) = telemetry.spans("musicapi create_music")
    assert [event.name for event in song.events] == ["pending", "running", "streaming", "ended"]
    assert (song.attributes or {})["musicapi.state"] == "succeeded"


async def test_webhook_before_the_response_to_the_create_ends_its_span(telemetry: Telemetry) -> None:
    """It is an end of the operation that was called, and its refund is counted, as after the response."""
    telemetry.hook = OpenTelemetryHook(telemetry.tracers, telemetry.meters, prices={"create_music": 20})
    settings = Webhooks(url="http://127.0.0.1:9/hooks", secret=SECRET)
    async with (
        Sandbox(speed=60) as sandbox,
        sandbox.client(hooks=telemetry.hook, webhooks=settings, rate_limit=None) as client,
    ):
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(30))
        create = asyncio.ensure_future(client.sonic.create_music(**SONG))
        await until(lambda: sandbox.journal.creates and sandbox.journal.creates[0].task_id)
        (sent,) = sandbox.journal.creates
        body = {
            "event": "song.failed",
            "platform": "sonic",
            "task_id": sent.task_id,
            "refund_processed": True,
        }
        raw, stamp = json.dumps(body).encode(), str(int(time.time()))
        headers = {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": sign(SECRET, stamp, raw)}
        url = str(mapping_or_empty(sent.body)["webhook_url"])
        await client.webhooks.handle(headers, raw, url=url)
        with pytest.raises(TaskFailedError):
            await (await create)
        assert not sandbox.journal.polls
        metrics = telemetry.metrics()
    for name, value in (("credits.charged", 20), ("credits.refunded", 20), ("tasks.in_flight", 0)):
        assert [point.value for point in metrics[f"musicapi.{name}"]] == [value]
    (song,) = telemetry.spans("musicapi create_music")
    assert (song.attributes or {})["musicapi.state"] == "failed"
    (duration,) = metrics["musicapi.task.duration"]
    assert duration.attributes["musicapi.kind"] == "create_music"


@pytest.mark.parametrize("named_by", ["song.failed", "song.completed", "resolve"])
async def test_charge_whose_response_was_lost_is_counted_when_its_task_is_named(
    telemetry: Telemetry, named_by: str
) -> None:
    """Once, however often it is named; so no refund is counted without the charge that it returns."""
    telemetry.hook = OpenTelemetryHook(telemetry.tracers, telemetry.meters, prices={"create_music": 20})
    settings = Webhooks(url="http://127.0.0.1:9/hooks", secret=SECRET)
    async with (
        Sandbox(speed=60) as sandbox,
        sandbox.client(hooks=telemetry.hook, webhooks=settings, rate_limit=None) as client,
    ):
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="order-1").sonic.create_music(**SONG)
        (sent,) = sandbox.journal.creates
        assert "musicapi.credits.charged" not in telemetry.metrics()
        if named_by == "resolve":
            for _ in range(2):
                await client.resolve("order-1", task_id=sent.task_id)
        else:
            clip = {"clip_id": "c", "state": "succeeded", "audio_url": "https://cdn.example/c.mp3"}
            end = {"refund_processed": True} if named_by == "song.failed" else {"data": [clip]}
            url = str(mapping_or_empty(sent.body)["webhook_url"])
            for event, more in (("song.streaming", {}), (named_by, end), (named_by, end)):
                body = {"event": event, "platform": "sonic", "task_id": sent.task_id, **more}
                raw, stamp = json.dumps(body).encode(), str(int(time.time()))
                headers = {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": sign(SECRET, stamp, raw)}
                await client.webhooks.handle(headers, raw, url=url)
        assert sandbox.journal.charges == 20
        metrics = telemetry.metrics()
    refunds = [20] if named_by == "song.failed" else []
    for name, value in (("charged_calls", [1]), ("credits.charged", [20]), ("credits.refunded", refunds)):
        points = metrics.get(f"musicapi.{name}", [])
        assert [point.value for point in points] == value
        assert all(point.attributes["musicapi.kind"] == "create_music" for point in points)


async def test_charges_are_counted_by_operation(telemetry: Telemetry) -> None:
    """What was refused or known already costs nothing; credits are those of the prices, or of the balance."""
    telemetry.hook = OpenTelemetryHook(
        telemetry.tracers, telemetry.meters, prices={"create_music": 20, "midi": 1}
    )
    async with Sandbox(speed=600) as sandbox, sandbox.client(hooks=telemetry.hook, rate_limit=None) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(429))
        view = client.with_options(job_key="order-1")
        async with client.spending() as spent:
            task = await view.sonic.create_music(**SONG)
            await view.sonic.create_music(**SONG)
            await client.sonic.midi((await task)[0].clip_id)
            await client.sonic.lyrics("rain")
        sandbox.faults.on("POST", "/sonic/create", Fault.fail("api-error-refunded"))
        with pytest.raises(TaskFailedError) as failed:
            await (await client.sonic.create_music(**SONG))
        metrics = telemetry.metrics()
    counted = {
        name: {point.attributes["musicapi.kind"]: point.value for point in metrics[f"musicapi.{name}"]}
        for name in ("charged_calls", "credits.charged", "credits.refunded")
    }
    assert failed.value.refunded
    assert counted == {
        "charged_calls": {"create_music": 2, "midi": 1, "lyrics": 1},
        "credits.charged": {"create_music": 40, "midi": 1},
        "credits.refunded": {"create_music": 20},
    }
    assert [point.value for point in metrics["musicapi.credits.measured"]] == [spent.total]


async def test_call_is_charged_once_it_is_carried_out(telemetry: Telemetry) -> None:
    """However often it is repeated meanwhile, whatever its status; not if it is unknown what it cost."""
    not_ready = '{"type":"not_ready"}'
    async with (
        Sandbox(speed=600, longest=3) as sandbox,
        sandbox.client(hooks=telemetry.hook, rate_limit=None) as client,
    ):
        clips = await (await client.sonic.create_music(**SONG))
        before = await client.credits()
        upload = await client.sonic.upload(str(clips[0].final_url))
        await client.sonic.aligned_lyrics(upload.clip_id, wait=True)  # empty at first
        sandbox.faults.on("POST", "/sonic/midi", Fault.status(202, body=not_ready), times=2)
        await client.sonic.midi(clips[0].clip_id)
        sandbox.faults.on("POST", "/sonic/midi", Fault.status(202, body=not_ready))
        await client.sonic.midi(clips[1].clip_id, wait=False)
        prices = sandbox.account.prices
        cost = prices["upload"] + prices["aligned_lyrics"] + prices["midi"]
        assert before.total - (await client.credits()).total == cost
        sandbox.faults.on("POST", "/sonic/wav", Fault.status(200, body='{"error":"no such clip"}'))
        with pytest.raises(OutcomeUnknownError):
            await client.sonic.wav(clips[0].clip_id)
        for status in (202, 500):  # it names its task, so it was taken
            sandbox.faults.on("POST", "/sonic/create", Fault.status(status, body='{"task_id":"t-1"}'))
        await client.sonic.create_music(**SONG)
        with pytest.raises(OutcomeUnknownError, match="t-1"):
            await client.sonic.create_music(**SONG)
        charged = telemetry.metrics()["musicapi.charged_calls"]
        assert len([one for one in sandbox.journal.requests() if "aligned" in one.path]) > 1
    assert {point.attributes["musicapi.kind"]: point.value for point in charged} == {
        "create_music": 3,
        "upload": 1,
        "aligned_lyrics": 1,
        "midi": 1,
    }


@pytest.mark.parametrize(
    "prices", [{"create_song": 1}, {"create_music": -1}, {"create_music": "20"}], ids=str
)
def test_wrong_prices_are_refused(prices: dict[str, Any]) -> None:
    """A misspelt operation would never be counted."""
    with pytest.raises(RequestValidationError, match="prices"):
        OpenTelemetryHook(prices=prices)


async def test_hook_without_an_sdk_records_nothing_and_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the API alone all calls are no-ops."""
    async with Sandbox(speed=60) as sandbox, sandbox.client(hooks=OpenTelemetryHook()) as client:
        assert (await (await client.sonic.create_music(**SONG)).wait()).status == "succeeded"
    assert not [record for record in caplog.records if "hook" in record.getMessage()]
