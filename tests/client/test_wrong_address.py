"""A wrong base URL: refused at once where that can be seen, and named by the errors that come of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult

from musicapi_async import (
    AuthenticationError,
    ConnectFailedError,
    MusicAPI,
    MusicAPIError,
    NotFoundError,
    OutcomeUnknownError,
    RequestValidationError,
)
from musicapi_async.sandbox import Sandbox

SONG = {"mv": "sonic-v6", "gpt_description_prompt": "rain"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("api.musicapi.ai/api/v1", "did you mean https://api.musicapi.ai/api/v1?"),
        ("api.musicapi.ai/api/v1/", "did you mean https://api.musicapi.ai/api/v1?"),
        ("api.musicapi.ai", "did you mean https://api.musicapi.ai/api/v1?"),
        ("localhost:8765/api/v1", "did you mean http://localhost:8765/api/v1?"),
        ("'https://api.musicapi.ai/api/v1'", "did you mean https://api.musicapi.ai/api/v1?"),
        (" https://api.musicapi.ai/api/v1\n", "did you mean https://api.musicapi.ai/api/v1?"),
        ("ftp://api.musicapi.ai", "got 'ftp://api.musicapi.ai'"),
        ("https://api.musicapi.ai/api/v1?key=abc", "one with a user, a query, or too long"),
        ("https://user:abc@api.musicapi.ai", "one with a user, a query, or too long"),
    ],
)
def test_what_is_no_address_is_refused_with_what_was_meant(given: str, told: str) -> None:
    """The text shows what was given, unless that may hold a secret."""
    with pytest.raises(RequestValidationError) as caught:
        MusicAPI("key", base_url=given)
    assert caught.value.field == "base_url"
    assert told in str(caught.value)
    assert "abc" not in str(caught.value)


def test_an_address_from_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks for it in the program then."""
    monkeypatch.setenv("MUSICAPI_BASE_URL", "api.musicapi.ai")
    with pytest.raises(RequestValidationError, match=r"\(from MUSICAPI_BASE_URL\)"):
        MusicAPI("key")


@pytest.fixture
async def elsewhere() -> AsyncIterator[str]:
    """The address of a web site that is not the API: 404 as a page, 200 as a page at /found."""

    async def page(request: web.Request) -> web.Response:
        status = 200 if request.path.startswith("/found") else 404
        return web.Response(status=status, text="<!doctype html><p>Welcome", content_type="text/html")

    site = web.Application()
    site.router.add_route("*", "/{path:.*}", page)
    runner = web.AppRunner(site)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


async def test_another_site_is_named_by_every_kind_of_call(elsewhere: str) -> None:
    """A create, a free call, an untyped call and a look at a task all lead to base_url."""
    async with MusicAPI("key", base_url=elsewhere, max_retries=0, rate_limit=None) as client:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.sonic.create_music(**SONG),
            client.credits,
            client.with_options(deadline=30.0).credits,
            lambda: client.request("GET", "/get-credits"),
            client.task("sonic", "t").refresh,
            client.task("sonic", "t").wait,
        ]
        for call in calls:
            with pytest.raises(NotFoundError, match=r"Is base_url right\?") as caught:
                await call()
            assert elsewhere in str(caught.value)
            assert "a page of HTML" in str(caught.value)


async def test_a_page_instead_of_an_answer_to_a_paid_call(elsewhere: str) -> None:
    """Nobody can tell whether it was charged, but the address is named."""
    async with MusicAPI("key", base_url=f"{elsewhere}/found", max_retries=0, rate_limit=None) as client:
        with pytest.raises(OutcomeUnknownError, match=r"Is base_url right\?") as caught:
            await client.sonic.create_music(**SONG)
        assert "Do not simply call again" in str(caught.value)


class NoNetwork(aiohttp.ThreadedResolver):
    """A machine that is offline."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        raise OSError(None, "Temporary failure in name resolution")


async def test_where_nothing_listens_the_address_is_named() -> None:
    """A refused connection names the whole address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with MusicAPI("key", base_url=f"http://127.0.0.1:{port}/api/v1", max_retries=0) as client:
        with pytest.raises(
            ConnectFailedError, match=f"no connection to http://127.0.0.1:{port}/api/v1: Connection refused"
        ):
            await client.credits()
        with pytest.raises(ConnectFailedError, match="Check base_url"):
            await client.sonic.create_music(**SONG)


async def test_address_of_the_service_is_not_suspected_of_a_failed_connection() -> None:
    """The network is; or the proxy, where that is out of reach."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        proxy = f"http://127.0.0.1:{taken.getsockname()[1]}"
    offline = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoNetwork()))
    async with offline:
        for options, suspected in (({"session": offline}, "network"), ({"proxy": proxy}, "proxy")):
            async with MusicAPI("key", max_retries=0, **options) as client:
                with pytest.raises(ConnectFailedError, match=f"Check the {suspected}") as caught:
                    await client.credits()
            assert "base_url" not in str(caught.value)


async def test_proxy_that_refuses_is_suspected() -> None:
    """It answers with a status of its own, so the address was not even tried."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with MusicAPI("key", proxy=f"http://{host}:{port}", max_retries=0) as client:
            with pytest.raises(ConnectFailedError, match="the proxy refused: HTTP 407") as caught:
                await client.credits()
    assert caught.value.hint.startswith("Check the proxy")
    assert "base_url" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "reason"), [("no-such-host.invalid", "not known|resolution"), ("", "SSL: ")]
)
async def test_reason_of_a_failed_connection_repeats_no_address(host: str, reason: str) -> None:
    """A host that does not exist, and one that does not speak TLS."""
    async with Sandbox() as box:
        base_url = f"https://{host}/api/v1" if host else box.base_url.replace("http://", "https://")
        async with MusicAPI("key", base_url=base_url, max_retries=0) as client:
            with pytest.raises(
                ConnectFailedError, match=f"no connection to {base_url}: .*({reason})"
            ) as caught:
                await client.credits()
    assert caught.value.message.count(host or "127.0.0.1") == 1


async def test_a_key_of_another_host_names_the_host() -> None:
    """Sister hosts have keys of their own."""
    async with Sandbox() as box, MusicAPI("other", base_url=box.base_url, max_retries=0) as client:
        with pytest.raises(AuthenticationError, match=r"a key of 127\.0\.0\.1, where base_url leads"):
            await client.credits()


async def test_errors_show_the_id_of_the_task_and_no_template() -> None:
    """Whatever a task is asked, its error names the very address."""
    async with Sandbox() as box, box.client(max_retries=0) as client:
        task = client.task("sonic", "no such/task")
        for call in (task.refresh, task.wait, lambda: client.sonic.get_music("no such/task")):
            with pytest.raises(MusicAPIError, match="GET /sonic/task/no%20such%2Ftask: ") as caught:
                await call()
            assert "{" not in str(caught.value)
