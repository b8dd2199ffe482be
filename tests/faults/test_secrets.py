"""Secrets never show, and data is never changed, whatever a server makes of both."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import pickle
import sqlite3
import sys
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.pretty import pretty_repr
from rich.traceback import Traceback

from musicapi_async import (
    APIConnectionError,
    DownloadError,
    InvalidResponseError,
    MusicAPI,
    MusicAPIError,
    OutcomeUnknownError,
    RequestValidationError,
    TaskFailedError,
    Webhooks,
)
from musicapi_async.api.sonic_songs import CreateMusic
from musicapi_async.jobs import SQLiteStore
from musicapi_async.options import Options
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.webhooks import sign
from musicapi_async.webhooks.problems import problem_of

KEY = "sk-live/Sesame+Opens=0001"
SECRET = "the/secret+of:a webhook"
SONG = {"mv": "sonic-v6", "prompt": "la"}
HOOK = {"webhook_url": "https://app.example/hook", "webhook_secret": SECRET}


@asynccontextmanager
async def server(reply: Callable[[bytes], bytes]) -> AsyncGenerator[str, None]:
    """A server that answers the head of each request with raw bytes and closes; its base URL."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            writer.write(reply(await reader.readuntil(b"\r\n\r\n")))
            await writer.drain()
        writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.ensure_future(talk(reader, writer)))

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        await asyncio.gather(*talks)


def whole(status: str, body: bytes, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def everything(error: BaseException | None) -> str:
    """All that may be shown of an error and of what it came from, with all that hangs on it."""
    told: list[str] = []
    while error is not None:
        assert type(error).__module__.partition(".")[0] in ("musicapi_async", "builtins", "anyio"), error
        told += [str(error), repr(error), repr(vars(error)), str(error.args)]
        told += traceback.format_exception(error)
        if isinstance(error, MusicAPIError):
            told += [repr(vars(pickle.loads(pickle.dumps(error)))), repr(pickle.dumps(error))]
            told.append(problem_of(error).body.decode())
            told += rich_traceback(error)
        error = error.__cause__ or error.__context__
    return "\n".join(told)


def rich_traceback(error: BaseException) -> list[str]:
    """A traceback with the locals of this package's frames, which a user of rich sees."""
    frames = Traceback.extract(type(error), error, error.__traceback__, show_locals=True)
    return [
        f"{name} = {pretty_repr(value)}"
        for stack in frames.stacks
        for frame in stack.frames
        if "musicapi_async" in frame.filename
        for name, value in (frame.locals or {}).items()
    ]


def is_clean(text: str, *secrets: str) -> bool:
    """No secret is in the text, in any of the usual spellings."""
    for secret in secrets or (KEY, SECRET):
        for spelled in (
            secret,
            secret.lower(),
            json.dumps(secret)[1:-1].replace("/", "\\/").replace("+", "\\u002b"),
            secret.replace("/", "%2F").replace("+", "%2B"),
            secret[:12],
            secret[-12:],
        ):
            if spelled in text or repr(spelled)[1:-1] in text:
                return False
    return True


@pytest.fixture(autouse=True)
def _all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


# --- data stays as it came ---------------------------------------------------------------------------------


async def test_a_key_that_is_a_word_changes_no_title_and_no_link() -> None:
    """`test` in "Protest" and in a link."""
    clip = {
        "clip_id": "test-1",
        "state": "succeeded",
        "title": "Protest",
        "audio_url": "https://cdn1.suno.ai/latest/a.mp3",
    }
    body = json.dumps({"code": 200, "data": [clip], "message": "success"}).encode()
    async with (
        server(lambda _: whole("200 OK", body)) as url,
        MusicAPI("test", base_url=url, rate_limit=None) as client,
    ):
        (found,) = await client.task("sonic", "t").wait()
        assert (found.title, found.final_url, found.clip_id) == ("Protest", clip["audio_url"], "test-1")
        assert found.raw == clip


@pytest.mark.parametrize("key", ["0", "7f3a1e52", "success", "task_id"])
async def test_an_id_with_the_key_in_it_is_kept_and_stored(key: str, tmp_path: Path) -> None:
    """A paid task is not lost because its id holds the key, however long that is."""
    task_id = "7f3a1e52-9c1d-4b11-a001-0123456789ab"
    body = json.dumps({"message": "success", "task_id": task_id}).encode()
    async with server(lambda _: whole("200 OK", body)) as url:
        store = SQLiteStore(tmp_path / "jobs.sqlite")
        async with MusicAPI(key, base_url=url, rate_limit=None, store=store) as client:
            task = await client.with_options(job_key="k").sonic.create_music(**SONG)
            assert (task.task_id, task.raw) == (task_id, json.loads(body))
            job = await client.job("k")
            assert job is not None
            assert (job.state, job.task_id) == ("accepted", task_id)
            assert (await client.with_options(job_key="k").sonic.create_music(**SONG)).task_id == task_id


async def test_a_reply_that_repeats_secrets_is_data(tmp_path: Path) -> None:
    """What a caller asked for is left alone; on disk it is hidden, and what is made of it works."""
    echo = {"code": 200, "message": "success", "task_id": "t", "note": f"{KEY} {SECRET}"}
    async with server(lambda _: whole("200 OK", json.dumps(echo).encode())) as url:
        path = tmp_path / "jobs.sqlite"
        async with MusicAPI(KEY, base_url=url, rate_limit=None, store=SQLiteStore(path)) as client:
            assert (await client.sonic.create_music(**SONG, **HOOK)).raw == echo
            assert await client.request("POST", "/sonic/other", json=HOOK) == echo
            for query in ({"webhook_secret": SECRET}, None):
                asked = "/sonic/third" if query else "/sonic/third?webhook_secret=the%2Fsecret%2Bof:a+webhook"
                assert await client.request("POST", asked, params=query) == echo
        assert is_clean(stored(path))
        assert '"task_id":"t"' in stored(path)


def stored(path: Path) -> str:
    """All bytes of a store's files, and all its rows."""
    with contextlib.closing(sqlite3.connect(path)) as store:
        rows = list(store.iterdump())
    files = [file.read_bytes().decode("latin-1") for file in path.parent.glob(f"{path.name}*")]
    return "\n".join([repr(rows), *files])


# --- secrets never show ------------------------------------------------------------------------------------

ECHO = f"you sent Bearer {KEY} and {SECRET}"
SLASHED = json.dumps(ECHO).replace("/", "\\/").replace("+", "\\u002b")
PERCENT = ECHO.replace("/", "%2f").replace("+", "%2B")
FAILING: dict[str, bytes] = {
    "message": whole("400 Bad Request", f'{{"error": {SLASHED}}}'.encode()),
    "percent": whole("400 Bad Request", json.dumps({"message": PERCENT}).encode()),
    "nested": whole("500 Oops", json.dumps({"detail": {"a": [{KEY: ECHO, "b": SECRET}]}}).encode()),
    "type and code": whole("400 Bad", json.dumps({"error": "x", "type": ECHO, "code": KEY}).encode()),
    "text": whole("500 Oops", ECHO.encode()),
    "page": whole("502 Bad Gateway", f"<html>{ECHO}</html>".encode()),
    "cut": whole("500 Oops", json.dumps({"error": "." * 480 + ECHO}).encode()),
    "cut text": whole("500 Oops", b"." * 1990 + ECHO.encode()),
    "step": whole("400 Bad", json.dumps({"failed_step": KEY, "steps": {KEY: {"error": ECHO}}}).encode()),
    "no id": whole("200 OK", json.dumps({"message": ECHO, "data": {"x": ECHO}}).encode()),
    "error in 200": whole("200 OK", json.dumps({"error": ECHO}).encode()),
    "not JSON in 200": whole("200 OK", f"{{{ECHO}".encode()),
    "header": whole("400 Bad", b"{}", f"X-Echo: {ECHO}", f"X-Request-Id: {KEY}", f"Retry-After: {KEY}"),
    "header name": whole("400 Bad", b"{}", "X-sk-live-Sesame: 1"),
    "redirect": whole("302 Found", b"", f"Location: https://a.example/?key={KEY}&s={PERCENT}"),
    "too large": whole("500 Oops", ECHO.encode() + b" " * 17_000_000),
    "broken header": b"HTTP/1.1 200 OK\r\nX Echo Bearer "
    + KEY.encode()
    + b"\r\nY "
    + SECRET.encode()
    + b"\r\n\r\n",
    "broken status": f"HTTP/1.1 {KEY} {SECRET}\r\n\r\n".encode(),
    "broken length": f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode(),
    "broken chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode(),
    "long header": b"HTTP/1.1 200 OK\r\nX-Echo: " + ECHO.encode() * 3000 + b"\r\n\r\n",
    "head only": f"HTTP/1.1 200 OK\r\nX-Echo: {ECHO}\r\n".encode(),
    "short body": f"HTTP/1.1 200 OK\r\nX-Echo: {ECHO}\r\nContent-Length: 99\r\n\r\n{ECHO}".encode(),
}


@pytest.mark.parametrize("reply", FAILING)
@pytest.mark.parametrize("call", ["create", "raw", "direct", "get", "poll"])
async def test_no_error_shows_a_secret(
    reply: str, call: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not its text, fields, pickle, causes, locals, log lines, problem document, nor the store's file."""
    path = tmp_path / "jobs.sqlite"
    async with (
        server(lambda _: FAILING[reply]) as url,
        MusicAPI(KEY, base_url=url, rate_limit=None, max_retries=0, store=SQLiteStore(path)) as client,
    ):
        client_calls: dict[str, Callable[[], Any]] = {
            "create": lambda: client.sonic.create_music(**SONG, **HOOK),
            "raw": lambda: client.request("POST", "/sonic/create", json={"requests": [{**SONG, **HOOK}]}),
            "direct": lambda: client.sonic.create_persona(name="a", clip_id="b"),
            "get": client.credits,
            "poll": lambda: client.task("sonic", "t").refresh(),
        }
        if call not in ("create", "raw"):  # they send no webhook secret, so the client must know of it
            with contextlib.suppress(MusicAPIError):
                await client.sonic.create_music(**SONG, **HOOK)
        try:
            gave = await client_calls[call]()
        except MusicAPIError as error:
            assert is_clean(everything(error)), everything(error)
        else:
            assert call in ("raw", "poll") or reply == "broken length", gave
        assert [job.state for job in await client.jobs()] or call
    assert is_clean(caplog.text), caplog.text
    assert is_clean(stored(path))


async def test_a_header_named_like_the_key_is_hidden() -> None:
    """Names come in lower case."""
    reply = whole("400 Bad", b'{"error": "x"}', "X-Sk-Live-Sesame: 1", "X-Other: x-sk-live-sesame")
    async with (
        server(lambda _: reply) as url,
        MusicAPI("Sk-Live-Sesame", base_url=url, rate_limit=None) as client,
    ):
        with pytest.raises(MusicAPIError) as caught:
            await client.credits()
        assert getattr(caught.value, "headers", {}) == {
            "content-length": "14",
            "x-[hidden]": "1",
            "x-other": "x-[hidden]",
        }


async def test_a_failed_task_and_a_timeout_hide_what_they_repeat(tmp_path: Path) -> None:
    """Polls and webhooks: `body`, `last_body`, message; the reason in the store."""
    failed = {"type": "failed", "message": ECHO, "refund_processed": True, "task_id": "t"}
    bodies = {"/sonic/create": {"message": "success", "task_id": "t"}, "/sonic/task/t": failed}
    path = tmp_path / "jobs.sqlite"

    def reply(head: bytes) -> bytes:
        return whole("200 OK", json.dumps(bodies[head.split()[1].decode()]).encode())

    async with (
        server(reply) as url,
        MusicAPI(
            KEY, base_url=url, rate_limit=None, store=SQLiteStore(path), webhooks=Webhooks(secret=SECRET)
        ) as client,
    ):
        task = await client.sonic.create_music(**SONG, **HOOK)
        with pytest.raises(TaskFailedError, match=r"you sent Bearer \[hidden\] and \[hidden\]") as caught:
            await client.task("sonic", "t").wait()
        assert is_clean(everything(caught.value))
        bodies["/sonic/task/t"] = {"code": 200, "data": [], "message": ECHO}
        waiting = client.task("sonic", "u")
        bodies["/sonic/task/u"] = bodies["/sonic/task/t"]
        with pytest.raises(TimeoutError) as timed_out:
            await waiting.wait(timeout=0.3)
        assert getattr(timed_out.value, "last_body", None) == {
            **bodies["/sonic/task/u"],
            "message": "you sent Bearer [hidden] and [hidden]",
        }
        raw = json.dumps({**failed, "task_id": "v", "platform": "suno", "event": "song.failed"}).encode()
        waiter = asyncio.create_task(client.task("sonic", "v").wait())
        bodies["/sonic/task/v"] = bodies["/sonic/task/t"]
        await asyncio.sleep(0.05)
        now = str(int(client.webhooks._settings.now()))  # type: ignore[union-attr]
        signed = {
            "X-Webhook-Timestamp": now,
            "X-Webhook-Signature": sign(SECRET, now, raw),
            "X-Webhook-Id": "1",
        }
        await client.webhooks.handle(signed, raw)
        with pytest.raises(TaskFailedError) as told:
            await waiter
        assert is_clean(everything(told.value))
        assert task.task_id == "t"
    assert is_clean(stored(path))


async def test_the_password_of_a_proxy_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Whether it refuses, repeats it, or is not there."""
    login = "user:" + "pass/word+1"
    token = base64.b64encode(login.encode()).decode()
    for answer in (
        whole("407 Proxy Authentication Required", b"", f"X-Echo: Basic {token}"),
        whole("400 Bad", json.dumps({"error": f"{login} {token} pass%2Fword%2b1"}).encode()),
        f"HTTP/1.1 200 OK\r\nX Echo {login} {token}\r\n\r\n".encode(),
    ):
        seen: list[bytes] = []

        def reply(head: bytes, answer: bytes = answer, seen: list[bytes] = seen) -> bytes:
            seen.append(head)
            return answer

        async with server(reply) as proxy:
            address = proxy.replace("//", "//user:pass%2Fword%2B1@")
            async with MusicAPI(
                KEY, base_url="http://127.0.0.1:9", proxy=address, rate_limit=None, max_retries=0
            ) as client:
                with pytest.raises(MusicAPIError) as caught:
                    await client.sonic.create_music(**SONG)
        assert token.encode() in seen[0]
        assert is_clean(everything(caught.value), login, "pass/word+1", token, KEY)
    async with MusicAPI(
        KEY, proxy="http://user:pass%2Fword%2B1@127.0.0.1:9", rate_limit=None, max_retries=0
    ) as client:
        with pytest.raises(APIConnectionError) as failed:
            await client.sonic.create_music(**SONG)
        assert failed.value.sent is False
        assert is_clean(everything(failed.value), login, "pass/word+1", token, KEY)
    assert is_clean(caplog.text, login, "pass/word+1", token, KEY)


@pytest.mark.parametrize(
    "reply",
    [
        whole("403 Forbidden", b"no"),
        b"HTTP/1.1 200 OK\r\nX Echo Signature=abcdef0123456789\r\n\r\n",
        whole("302 Found", b"", "Location: http://127.0.0.1:9/b.mp3?Signature=abcdef0123456789"),
        whole("302 Found", b"", "Location: /a.mp3?Signature=abcdef0123456789"),
        whole("302 Found", b"", "Location: http://a:port/b?Signature=abcdef0123456789"),
        whole("302 Found", b"", "Location: ftp://a/b?Signature=abcdef0123456789"),
        whole("403 Forbidden", b"no such thing: /a.mp3?Signature=0123456789abcdef"),
        whole("404 Not Found", b"signature 0123456789abcdef has expired"),
        whole("400 Bad Request", b"%30123456789abcdef"),
        whole("200 OK", b"<p>/a.mp3?Signature=0123456789abcdef"),
    ],
)
async def test_a_download_error_shows_no_signature(reply: bytes, tmp_path: Path) -> None:
    """Neither that of the link nor that of where it leads; nothing of aiohttp hangs on the error."""
    async with server(lambda _: reply) as url, Sandbox(speed=1000) as sandbox, sandbox.client() as client:
        link = f"{url}/a.mp3?Signature=0123456789abcdef"
        with pytest.raises(DownloadError) as caught:
            await client.download(link, tmp_path)
        assert caught.value.url == link
        caught.value.url = ""
        assert is_clean(
            "\n".join((str(caught.value), repr(vars(caught.value)))), "0123456789abcdef", "abcdef0123456789"
        )
        everything(caught.value)  # checks what hangs on it


@pytest.mark.parametrize("status", ["403 Forbidden", "500 Oops", "200 OK"])
async def test_a_host_that_repeats_the_target_of_a_redirect_shows_no_signature(
    status: str, tmp_path: Path
) -> None:
    """Its signature is as secret as that of the link."""

    def reply(head: bytes) -> bytes:
        if b"/a.mp3" in head:
            return whole("302 Found", b"", "Location: /b.mp3?Signature=abc%2Fdef012345%2B&Expires=1")
        return whole(status, b"the signature abc/def012345+ is over")

    async with server(reply) as url, Sandbox(speed=1000) as sandbox, sandbox.client() as client:
        with pytest.raises(DownloadError, match=r"the signature \[hidden\] is over"):
            await client.download(f"{url}/a.mp3", tmp_path)


def test_requests_and_options_show_no_secret() -> None:
    """`repr`, and rich, which does not ask `repr` for Structs."""
    for shown in (
        CreateMusic(**SONG, **HOOK),
        Options(extra_body=HOOK),
        Webhooks("https://a.example", SECRET),
    ):
        assert is_clean(repr(shown) + pretty_repr(shown) + pretty_repr([shown])), shown
        assert "webhook" in pretty_repr(shown).lower()


@pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX sockets")
async def test_a_traceback_with_locals_shows_no_secret_of_a_request() -> None:
    """All frames of this package, from the public method to the attempt."""
    async with (
        server(lambda _: whole("500 Oops", b"{}")) as url,
        MusicAPI(KEY, base_url=url, rate_limit=None) as client,
    ):
        for call in (
            lambda: client.sonic.create_music(**SONG, **HOOK),
            lambda: client.with_options(extra_body=HOOK).sonic.create_music(**SONG),
        ):
            with pytest.raises(OutcomeUnknownError) as caught:
                await call()
            text = "\n".join(rich_traceback(caught.value))
            assert "PreparedRequest(" in text
            assert is_clean(text), text


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("short", ["task_id", "x" * 15])
async def test_a_short_webhook_secret_is_refused_before_sending(short: str) -> None:
    """Wherever it is given; 16 characters are enough."""
    hook = {"webhook_url": "https://app.example/hook", "webhook_secret": short}
    async with Sandbox(speed=300) as sandbox, sandbox.client(rate_limit=None) as client:
        off = client.with_options(validate="off")
        for call in (
            lambda: client.sonic.create_music(**SONG, **hook),
            lambda: off.sonic.create_music(**SONG, **hook),
            lambda: client.with_options(extra_body=hook).sonic.create_music(**SONG),
            lambda: client.request("POST", "/sonic/create", json={**SONG, **hook}),
            lambda: client.request("POST", "/sonic/batch", json={"requests": [{"a": hook}]}),
            lambda: client.request("POST", "/sonic/batch", json=[CreateMusic(**SONG, **hook)]),
            lambda: client.request("POST", "/sonic/create", json=SONG, params=hook),
        ):
            with pytest.raises(RequestValidationError, match="at least 16 characters") as caught:
                await call()
            assert caught.value.field == "webhook_secret"
        with pytest.raises(RequestValidationError, match="at least 16 characters"):
            Webhooks("https://app.example/hook", short)
        assert len(sandbox.journal) == 0
        await client.sonic.create_music(**SONG, **{**hook, "webhook_secret": "x" * 16})
        Webhooks("https://app.example/hook", "x" * 16)
        Webhooks("https://app.example/hook", ["x" * 16, short])  # the old one, still accepted for some time
        assert len(sandbox.journal.creates) == 1


async def test_a_short_secret_is_refused_when_a_job_is_sent_again(tmp_path: Path) -> None:
    """`resubmit` takes no shorter one."""
    async with Sandbox(speed=300) as sandbox:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_before)
        async with sandbox.client(rate_limit=None, store=SQLiteStore(tmp_path / "jobs.sqlite")) as client:
            with pytest.raises(OutcomeUnknownError):
                await client.with_options(job_key="k").sonic.create_music(**SONG, **HOOK)
            with pytest.raises(RequestValidationError, match="at least 16 characters"):
                await client.resubmit("k", webhook_secret="short")
        assert len(sandbox.journal.creates) == 1


@pytest.mark.parametrize(
    "key", ['"sk-live-1"', "'sk-live-1'", "`sk-live-1`", '"sk-live-1', "sk-live-1'", '"Bearer x"', "“sk”"]
)
def test_a_key_in_quotes_is_refused_with_a_clear_text(key: str) -> None:
    """As an .env file or a shell leaves it."""
    with pytest.raises(RequestValidationError, match="without quotes") as caught:
        MusicAPI(key)
    assert "sk" not in str(caught.value).replace("task", "")


async def test_an_answer_that_is_too_large_shows_its_beginning_hidden() -> None:
    """A body over the limit is a text, too."""
    reply = whole("200 OK", ECHO.encode() + b" " * 17_000_000)
    async with (
        server(lambda _: reply) as url,
        MusicAPI(KEY, base_url=url, rate_limit=None, max_retries=0) as client,
    ):
        with pytest.raises(InvalidResponseError) as caught:
            await client.credits()
        assert caught.value.body.startswith("you sent Bearer [hidden] and the")
