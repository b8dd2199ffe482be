"""The log: a line for each attempt with its ids, the switch in the environment, and never a secret."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import until

from musicapi_async import MusicAPI, MusicAPIError, OutcomeUnknownError
from musicapi_async.hooks import HookEvent
from musicapi_async.jobs import MemoryStore
from musicapi_async.sandbox import Fault, Sandbox

SONG: Final = {"mv": "sonic-v6", "prompt": "[Verse]\nRain on the window"}


async def test_each_attempt_has_a_debug_line_with_its_ids(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The call, the number, the status, the task, the job key; polls, the end and downloads, too."""
    caplog.set_level(logging.DEBUG, "musicapi_async")
    async with Sandbox(speed=100, longest=3) as sandbox, sandbox.client() as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(429))
        task = await client.with_options(job_key="order-1").sonic.create_music(**SONG)
        await client.download(await task.wait(), tmp_path)
    lines = [one.getMessage() for one in caplog.records if one.levelno == logging.DEBUG]
    attempts = [line for line in lines if line.startswith("POST /sonic/create: attempt")]
    assert [line.partition(" ms")[0].rpartition(",")[0] for line in attempts] == [
        "POST /sonic/create: attempt 1: HTTP 429",
        "POST /sonic/create: attempt 2: HTTP 200",
    ]
    assert attempts[0].endswith("(job key order-1)")
    assert "(request id " in attempts[1]
    assert attempts[1].endswith(f", task {task.task_id}, job key order-1)")
    polled = [line for line in lines if line.startswith(f"task {task.task_id}: polled: ")]
    requests = [
        line for line in lines if line.startswith(f"GET /sonic/task/{task.task_id}: attempt 1: HTTP 200")
    ]
    assert len(polled) == len(requests) >= 1
    assert sum(line.startswith(f"task {task.task_id}: ended (succeeded, 2 clips)") for line in lines) == 1
    assert sum(line.startswith("download http") and "tries 1" in line for line in lines) == 2
    assert {one.name for one in caplog.records if one.name.startswith("musicapi_async")} >= {"musicapi_async"}


async def test_failing_log_filter_costs_no_call(caplog: pytest.LogCaptureFixture) -> None:
    """What listens to the log can raise: the song is made."""

    def broken(record: logging.LogRecord) -> bool:
        raise ValueError("broken")

    caplog.set_level(logging.DEBUG, "musicapi_async")
    log = logging.getLogger("musicapi_async")
    log.addFilter(broken)
    try:
        async with Sandbox(speed=100) as sandbox, sandbox.client() as client:
            assert (await (await client.sonic.create_music(**SONG)).wait()).status == "succeeded"
    finally:
        log.removeFilter(broken)


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault.status(500, body='{"error":"late","task_id":"T-1"}'), "accepted"),
        (Fault.reset_after, "ambiguous"),
    ],
)
async def test_failing_log_filter_loses_no_end_of_a_paid_call(fault: Fault, state: str) -> None:
    """A paid call that ends by an error is written down and raises what it means for money, as ever."""

    def broken(record: logging.LogRecord) -> bool:
        raise ValueError("broken")

    log = logging.getLogger("musicapi_async")
    log.addFilter(broken)
    try:
        async with Sandbox() as sandbox, sandbox.client(store=MemoryStore()) as client:
            sandbox.faults.on("POST", "/sonic/create", fault)
            with pytest.raises(OutcomeUnknownError):
                await client.with_options(job_key="k").sonic.create_music(**SONG)
            assert [job.state for job in await client.jobs()] == [state]
    finally:
        log.removeFilter(broken)


@pytest.mark.parametrize(
    ("fault", "creates"),
    [
        (Fault.status(429), 2),
        (Fault.status(200, body='{"task_id":"T-1","message":"a\ttab"}'), 1),
    ],
)
async def test_failing_log_filter_makes_no_doubt(fault: Fault, creates: int) -> None:
    """A line on a retry, or on a body that was repaired, comes between a paid call and its task."""

    def broken(record: logging.LogRecord) -> bool:
        raise ValueError("broken")

    log = logging.getLogger("musicapi_async")
    level = log.level
    log.addFilter(broken)
    log.setLevel(logging.INFO)
    try:
        async with Sandbox(speed=100) as sandbox, sandbox.client(store=MemoryStore()) as client:
            sandbox.faults.on("POST", "/sonic/create", fault)
            task = await client.sonic.create_music(**SONG)
            (job,) = await client.jobs("accepted")
            assert job.task_id == task.task_id
            assert len(sandbox.journal.requests("/sonic/create")) == creates
    finally:
        log.setLevel(level)
        log.removeFilter(broken)


PROGRAM: Final = """
import logging, sys
from musicapi_async import MusicAPI
{before}
for _ in range(2):
    MusicAPI("key-that-nobody-may-see")
log = logging.getLogger("musicapi_async")
for level in ("debug", "info", "warning"):
    getattr(log, level)("a line at %s", level)
"""


def run(word: str | None, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program that makes two clients and logs a line at each level."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MUSICAPI_")}
    if word is not None:
        environment["MUSICAPI_LOG"] = word
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )


@pytest.mark.parametrize(
    ("word", "levels"),
    [
        ("debug", ["DEBUG", "INFO", "WARNING"]),
        (" Info", ["INFO", "WARNING"]),
        ("WARNING", ["WARNING"]),
    ],
)
def test_environment_turns_the_log_on(word: str, levels: list[str]) -> None:
    """Each line comes once on standard error, with time, level and logger."""
    ran = run(word)
    lines = ran.stderr.splitlines()
    assert [line.split(" musicapi_async: ")[0].split()[-1] for line in lines] == levels
    assert all(line.endswith(f"a line at {level.lower()}") for line, level in zip(lines, levels, strict=True))
    assert not ran.stdout


@pytest.mark.parametrize("word", [None, "", " "])
def test_log_without_the_variable_is_left_alone(word: str | None) -> None:
    """Only what Python prints by itself: warnings, without a handler of ours."""
    assert run(word).stderr == "a line at warning\n"


def test_handlers_of_the_program_get_the_lines() -> None:
    """A program that has set up logging gets each line once, in its own form."""
    ran = run("info", "logging.basicConfig(format='mine: %(message)s', stream=sys.stdout)")
    assert ran.stdout.splitlines() == ["mine: a line at info", "mine: a line at warning"]
    assert not ran.stderr


def test_program_that_wants_more_has_more() -> None:
    """The variable lowers the level and never raises it."""
    before = "logging.basicConfig(format='%(message)s'); logging.getLogger('musicapi_async').setLevel(10)"
    assert run("warning", before).stderr.splitlines() == [
        f"a line at {level}" for level in ("debug", "info", "warning")
    ]


def test_unknown_word_is_an_error_that_lists_the_words() -> None:
    """A misspelt level is seen at once."""
    ran = run("verbose")
    assert ran.returncode == 1
    assert "MUSICAPI_LOG: one of debug, info, warning, got 'verbose'" in ran.stderr


# --- secrets -------------------------------------------------------------------------------------------------


def secrets(shortest: int) -> st.SearchStrategy[str]:
    """API keys and webhook secrets: printable ASCII, but no duration and no name of a class, as lines have."""
    return st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=shortest, max_size=40
    ).filter(
        lambda text: (
            text[0] not in "\"'`"
            and text[-1] not in "\"'`"
            and not text.lower().startswith("bearer")
            and sum(map(str.isalpha, text)) > 2
            and not text.isidentifier()
        )
    )


def spellings(secret: str) -> list[str]:
    """The forms in which a peer may repeat a secret."""
    return [
        secret,
        secret.upper(),
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        json.dumps(secret.replace("/", "\\/")),
    ]


class Echo:
    """A server that repeats the secrets of a request in each place of its responses."""

    def __init__(self, status: int, form: int, secrets: list[str]) -> None:
        self.status = status
        self.texts = [spellings(secret)[form] for secret in secrets]

    async def respond(self, request: web.Request) -> web.Response:
        """Respond with an error, or with a task whose clips, title and state are secrets."""
        if "/files/" in request.path:  # a host of files knows no secret
            return web.Response(status=self.status if self.status >= 400 else 410)
        text = " ".join(self.texts)
        clip = {
            "clip_id": "c-1",
            "state": text,
            "title": text,
            "audio_url": f"https://a.example/?{quote(text)}",
        }
        body = {
            "code": self.status,
            "message": text,
            "error": text,
            "type": text,
            "task_id": "t-1",
            "data": [clip],
        }
        headers = {"x-request-id": self.texts[0], "Retry-After": "1", "X-Echo": text}
        return web.json_response(body, status=self.status, headers=headers)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=secrets(10),
    hook=secrets(16),
    status=st.sampled_from([200, 202, 400, 403, 404, 429, 500]),
    form=st.integers(0, 4),
)
async def test_no_secret_is_in_any_line_or_event(
    key: str, hook: str, status: int, form: int, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Keys and webhook secrets, repeated in bodies and headers, in job keys, paths, queries and file names."""
    caplog.clear()
    caplog.set_level(logging.DEBUG, "musicapi_async")
    events: list[HookEvent] = []
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", Echo(status, form, [key, hook]).respond)
    async with TestServer(app) as server:
        client = MusicAPI(
            key,
            base_url=str(server.make_url("/api/v1")),
            hooks=[events.append, _raiser(key)],
            max_retries=1,
            rate_limit=None,
        )
        async with client:
            view = client.with_options(job_key=f"{key} {hook}", deadline=30)
            body: dict[str, Any] = {**SONG, "webhook_url": "https://a.example/", "webhook_secret": hook}
            path = f"/{quote(key, safe='')}/{quote(hook, safe='')}"
            for work in (
                view.sonic.create_music(**body),
                client.credits(),
                client.task("sonic", "t-1").refresh(),
                client.request("GET", path, params={"key": key, "webhook_secret": hook}),
                client.request("POST", path, json=body),
                client.with_options(deadline=20).download(str(server.make_url(f"/files{path}")), tmp_path),
            ):
                with contextlib.suppress(MusicAPIError):
                    await work
    assert (
        len(events) >= 8
    )  # of the two untyped calls there are none if the secret makes the path a refused one
    text = "\n".join([*map(repr, events), *(_whole(record) for record in caplog.records)])
    assert caplog.records
    for secret in (key, hook):
        for spelled in spellings(secret):
            assert spelled.lower() not in text.lower()


def _raiser(secret: str) -> Any:
    def broken(event: HookEvent) -> None:
        raise ValueError(f"broken {secret}")

    return broken


def _whole(record: logging.LogRecord) -> str:
    return logging.Formatter("%(message)s").format(record)


async def test_error_that_is_raised_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The caller has it, and reports it: a warning would say the same twice."""
    caplog.set_level(logging.INFO, "musicapi_async")
    async with Sandbox(speed=100) as sandbox, sandbox.client() as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        with pytest.raises(
            OutcomeUnknownError, match=r"\(the connection dropped: Connection reset by peer\)"
        ):
            await client.sonic.create_music(**SONG)
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert any("outcome unknown" in one.getMessage() for one in caplog.records)


async def test_error_without_a_caller_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its caller was cancelled after it was sent: the log has the end, with its money, in one line."""
    async with Sandbox() as sandbox:
        sandbox.faults.on("POST", "/sonic/create", Fault.hang)
        async with sandbox.client(attempt_timeout=3) as client:
            create = asyncio.ensure_future(client.sonic.create_music(**SONG))
            await until(lambda: bool(sandbox.journal.creates))
            create.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await create
    lines = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    waiting, ended = lines
    assert waiting == "POST /sonic/create: cancelled after it was sent; its answer is still awaited"
    assert ended.startswith("its caller was cancelled, and then: POST /sonic/create: the call was sent, and ")
    assert ended.count("POST /sonic/create") == ended.count("The account may have been charged.") == 1
