"""TLS with a certificate authority of a company: calls and downloads, and the errors without it."""

from __future__ import annotations

import asyncio
import os
import pickle
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from aiohttp import web

from musicapi_async import ConnectFailedError, DownloadError, MusicAPI, RequestValidationError

MP3 = bytes.fromhex("fffb9064") + bytes(413)


class Host(NamedTuple):
    """A server whose certificate comes from an authority that no system knows."""

    url: str
    authority: trustme.CA
    calls: list[str]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Another process takes part, which lives in real time."""
    return "asyncio"


@pytest.fixture(scope="module")
async def host() -> AsyncIterator[Host]:
    """A server with a balance and a file."""
    calls: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.path)
        if request.path.endswith(".mp3"):
            return web.Response(body=MP3 * 8)
        return web.json_response({"credits": 7, "extra_credits": 0})

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield Host(f"https://localhost:{runner.addresses[0][1]}", authority, calls)
    finally:
        await runner.cleanup()


async def test_context_reaches_calls_and_downloads(host: Host, tmp_path: Path) -> None:
    """With the authority in it both work."""
    context = ssl.create_default_context()
    host.authority.configure_trust(context)
    async with MusicAPI("k", base_url=host.url, ssl=context) as client:
        assert (await client.credits()).total == 7
        (path,) = await client.download(f"{host.url}/song.mp3", tmp_path)
        assert path.read_bytes() == MP3 * 8


@pytest.mark.parametrize("own", [True, False])
async def test_error_for_a_certificate_says_what_to_do(host: Host, tmp_path: Path, own: bool) -> None:
    """Of calls and downloads; nothing was sent, a paid call included, and a download is not tried again."""
    before = len(host.calls)
    context = ssl.create_default_context() if own else None
    async with MusicAPI("k", base_url=host.url, ssl=context, max_retries=0, rate_limit=None) as client:
        errors: list[Exception] = []
        for call in (
            client.credits(),
            client.sonic.create_music(mv="sonic-v6", prompt="la"),
            client.sonic.bpm("clip"),
        ):
            with pytest.raises(ConnectFailedError) as caught:
                await call
            errors.append(caught.value)
        began = asyncio.get_running_loop().time()
        with pytest.raises(DownloadError) as missing:
            await client.download(f"{host.url}/song.mp3", tmp_path)
        assert asyncio.get_running_loop().time() - began < 1.0
        errors.append(missing.value)
    for error in errors:
        text = str(error)
        assert "the certificate of localhost is not valid here: unable to get local issuer" in text
        assert "SSL_CERT_FILE" in text
        assert "MusicAPI(ssl=" in text
        assert "0x" not in text
        assert str(pickle.loads(pickle.dumps(error))) == text
    assert "Nothing was charged." in str(errors[1])
    assert len(host.calls) == before
    assert os.listdir(tmp_path) == []


async def test_variable_does_the_same(host: Host, tmp_path: Path) -> None:
    """As the error says: SSL_CERT_FILE is enough, for a process that begins with it."""
    file = tmp_path / "company.pem"
    host.authority.cert_pem.write_to_path(file)
    program = (
        "import asyncio, sys, musicapi_async\n"
        "async def main():\n"
        "    async with musicapi_async.MusicAPI('k', base_url=sys.argv[1]) as client:\n"
        "        print((await client.credits()).total)\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        host.url,
        env={**os.environ, "SSL_CERT_FILE": str(file)},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert printed.decode().strip() == "7.0"


def without_verification() -> ssl.SSLContext:
    """A context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("given", [False, True, "company.pem", ssl.SSLContext, without_verification()])
def test_what_verifies_nothing_is_refused(given: Any) -> None:
    """`ssl=False` with the reason: the key would go to anyone on the way."""
    with pytest.raises(RequestValidationError, match=r"ssl: an ssl\.SSLContext that verifies") as caught:
        MusicAPI("k", ssl=given)
    if given is False:
        assert "pass for the host and read the API key" in str(caught.value)
