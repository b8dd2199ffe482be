"""Headers of the caller, its name in the user agent, and options that other libraries have."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web

from musicapi_async import MusicAPI, MusicAPIError, RequestValidationError, __version__
from musicapi_async.options import Options

SONG = {"mv": "sonic-v6", "prompt": "[Verse]\nla la la"}
MP3 = bytes.fromhex("fffb9064") + bytes(413)


class Seen(NamedTuple):
    """A request as the server got it."""

    call: str
    headers: Mapping[str, str]


@asynccontextmanager
async def serving(seen: list[Seen], *, echo: bool = False, status: int = 200) -> AsyncGenerator[str, None]:
    """A server that takes everything and notes it; its base URL. With `echo` it repeats what it got."""

    async def answer(request: web.Request) -> web.Response:
        seen.append(Seen(f"{request.method} {request.path}", request.headers))
        sent = {"X-Echo": " ".join(request.headers.values())} if echo else {}
        if request.path.endswith(".mp3"):
            return web.Response(body=MP3 * 8, headers=sent)
        if request.path == "/moved":
            return web.Response(status=302, headers={"Location": "/song.mp3"})
        reply = {"task_id": "t1", "code": 200, "credits": 1, "extra_credits": 0, "avg_bpm": 90, "data": []}
        body = {"error": sent["X-Echo"]} if status >= 400 else reply
        return web.json_response(body, status=status, headers=sent)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_headers_go_to_every_api_call() -> None:
    """Free calls, creates, direct calls, raw ones and polls have the default ones; those of a view are added."""
    seen: list[Seen] = []
    async with (
        serving(seen) as url,
        MusicAPI(
            "k", base_url=url, rate_limit=None, default_headers={"X-Team": "sound", "x-env": "test"}
        ) as client,
    ):
        view = client.with_options(headers={"X-ENV": "live"}).with_options(headers={"X-More": "1"})
        task = await view.sonic.create_music(**SONG)
        await view.credits()
        await view.sonic.bpm("clip")
        await view.request("GET", "/other")
        await task.refresh()
        assert len(seen) == 5
        for request in seen:
            got = [request.headers.getall(name) for name in ("X-Team", "X-Env", "X-More")]  # type: ignore[attr-defined]
            assert got == [["sound"], ["live"], ["1"]], request.call
            assert request.headers["Authorization"] == "Bearer k"
        await client.credits()
        assert (seen[-1].headers["X-Env"], seen[-1].headers.get("X-More")) == ("test", None)
        await view.with_options(headers=None).credits()
        assert (seen[-1].headers["X-Env"], seen[-1].headers.get("X-More")) == ("test", None)
        with contextlib.suppress(MusicAPIError):
            await task.wait(timeout=30)
        assert (seen[-1].headers["X-Env"], seen[-1].headers.get("X-More")) == ("test", None)


async def test_headers_are_sent_with_a_session_of_the_callers_own() -> None:
    """Which has its own default headers, too."""
    seen: list[Seen] = []
    async with (
        serving(seen) as url,
        aiohttp.ClientSession(headers={"X-Mine": "1"}) as session,
        MusicAPI(
            "k",
            base_url=url,
            rate_limit=None,
            session=session,
            default_headers={"X-Team": "sound"},
            app_info="app/1.2",
        ) as client,
    ):
        view = client.with_options(headers={"x-more": "1"})
        await view.sonic.create_music(**SONG)
        await view.credits()
        for request in seen:
            assert [request.headers[name] for name in ("X-Mine", "X-Team", "X-More")] == ["1", "sound", "1"]
            assert request.headers["User-Agent"] == f"musicapi-async/{__version__} app/1.2"


async def test_hosts_of_files_never_get_them(tmp_path: Path) -> None:
    """Nor the name of the program; redirects included, also where the host is that of the API."""
    seen: list[Seen] = []
    async with (
        serving(seen) as url,
        MusicAPI("k", base_url=url, default_headers={"X-Team": "sound"}, app_info="app/1") as client,
    ):
        view = client.with_options(headers={"X-More": "1"})
        (path,) = await view.download(f"{url}/moved", tmp_path)
        assert path.suffix == ".mp3"
        assert [request.call for request in seen] == ["GET /moved", "GET /song.mp3"]
        for request in seen:
            assert {"X-Team", "X-More", "Authorization"}.isdisjoint(request.headers)
            assert request.headers["User-Agent"] == f"musicapi-async/{__version__}"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "authorization",
        "Host",
        "Content-Type",
        "Content-Length",
        "content-anything",
        "Accept-Encoding",
        "Accept",
        "User-Agent",
        "Connection",
        "Keep-Alive",
        "TE",
        "Transfer-Encoding",
        "Upgrade",
        "Expect",
        "Range",
        "If-None-Match",
        "Proxy-Authorization",
        "X Team",
        "X-Team\r\nX-Evil",
        "X-Team:",
        ":authority",
        "",
        "X-Stra\u00dfe",
        7,
    ],
)
def test_a_header_that_is_set_here_is_refused(name: Any) -> None:
    """And one whose name no header may have; the text names it and holds no value."""
    given = {name: "sesame-open"}
    for option, make in (
        ("headers", lambda: MusicAPI("k").with_options(headers=given)),
        ("default_headers", lambda: MusicAPI("k", default_headers=given)),
    ):
        with pytest.raises(RequestValidationError) as caught:
            make()
        assert caught.value.field == option
        assert "sesame" not in str(caught.value)
        assert "\r" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["sesame\r\nX-Evil: 1", "sesame\n", "sesame\0", "sesame\x7f", "s\u00e9same", 7, None, b"x"]
)
def test_a_value_that_no_header_takes_is_refused(value: Any) -> None:
    """The text holds none of it."""
    for make in (
        lambda: MusicAPI("k", default_headers={"X-Team": value}),
        lambda: MusicAPI("k").with_options(headers={"X-Team": value}),
    ):
        with pytest.raises(RequestValidationError, match="X-Team: printable ASCII") as caught:
            make()
        assert "same" not in str(caught.value)
    for odd in ("X-Team: a", ["X-Team"], {"X-A": "1", "x-a": "2"}):
        with pytest.raises(RequestValidationError, match="default_headers: "):
            MusicAPI("k", default_headers=odd)  # type: ignore[arg-type]


async def test_values_that_may_be_secrets_are_hidden_in_texts() -> None:
    """A server that repeats them in its error; shorter words, and those of other names, are left alone."""
    seen: list[Seen] = []
    async with (
        serving(seen, echo=True, status=400) as url,
        MusicAPI(
            "k",
            base_url=url,
            default_headers={
                "X-Api-Token": "open/sesame=1",
                "Cookie": "id=sesame-open-2; a=b",
                "X-Team": "production",
            },
        ) as client,
    ):
        view = client.with_options(headers={"X-Auth": "Bearer sesame-open-3"})
        with pytest.raises(MusicAPIError) as caught:
            await view.credits()
        shown = f"{caught.value} {vars(caught.value)}"
        assert "sesame" not in shown
        assert "production" in shown
        assert "sesame" not in repr(view.options)
        assert "sesame" not in str(list(view.options.__rich_repr__()))
    assert "sesame" not in repr(Options(headers={"X-Auth": "sesame-open"}))


@pytest.mark.parametrize("given", ["app/1.2", ("app", "1.2"), "app"])
async def test_app_info_is_in_the_user_agent(given: Any) -> None:
    """Behind the name of this package."""
    seen: list[Seen] = []
    async with serving(seen) as url, MusicAPI("k", base_url=url, app_info=given) as client:
        await client.credits()
    named = "app" if given == "app" else "app/1.2"
    assert seen[0].headers["User-Agent"] == f"musicapi-async/{__version__} {named}"


@pytest.mark.parametrize(
    "given", ["", "my app/1", "app/1/2", "app/", ("app",) * 3, (), ("app", 1), 7, "a\n/1", "\u00e4"]
)
def test_an_odd_app_info_is_refused(given: Any) -> None:
    """With what to give instead."""
    with pytest.raises(RequestValidationError, match="app_info: a name and a version"):
        MusicAPI("k", app_info=given)


def test_timeout_names_what_there_is() -> None:
    """Other libraries have one; here it would be unclear which of two it is."""
    for make in (
        lambda: MusicAPI("k", timeout=5),  # type: ignore[arg-type]
        lambda: MusicAPI("k").with_options(timeout=5),
    ):
        with pytest.raises(TypeError, match=r"timeout.*attempt_timeout.*deadline"):
            make()
    with pytest.raises(TypeError, match=r"retries.*did you mean 'max_retries'"):
        MusicAPI("k", retries=5)  # type: ignore[arg-type]
