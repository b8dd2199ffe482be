"""`musicapi mcp` as clients run it: a process whose standard input and output speak the protocol."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from agents import SONG
from forked import Piped
from mcp import Client, StdioServerParameters
from patience import PATIENCE, until

from musicapi_async import MemoryStore, SQLiteStore
from musicapi_async.mcp import music_server
from musicapi_async.sandbox import Fault, Sandbox

ROOT = Path(__file__).parents[2]
SPEED = 60.0
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}

NOISY = """
import asyncio, os, sys
from musicapi_async import MusicAPI, SQLiteStore
from musicapi_async.mcp import music_server, serve

def noise(event):
    print("noise of a hook")
    os.write(1, b"noise of a library")

async def main():
    async with MusicAPI(store=SQLiteStore(sys.argv[1] + "/jobs.sqlite"), hooks=noise) as client:
        await serve(music_server(client, sys.argv[1]))

asyncio.run(main())
"""


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the server is another process."""
    return "asyncio"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """The service, in this process."""
    async with Sandbox(speed=SPEED, longest=3) as running:
        yield running


def environment(sandbox: Sandbox) -> dict[str, str]:
    """The environment that a client gives its server."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MUSICAPI", "PYTHONUNBUFFERED"))
    }
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "MUSICAPI_BASE_URL": sandbox.base_url,
        "MUSICAPI_KEY": sandbox.api_key,
        "MUSICAPI_CLOCK_SPEED": f"{SPEED:g}",
    }


class Server:
    """A server process, and a client that reads each line of it as a message of the protocol."""

    def __init__(self, process: Piped) -> None:
        self.process = process
        self.out = b""
        self.sent = 0

    @classmethod
    async def started(cls, sandbox: Sandbox, folder: Path, *options: str) -> Server:
        """Start it and shake hands."""
        args = ("mcp", "--folder", str(folder), *options)
        server = cls(await Piped.started("musicapi_async.cli:main", *args, environment=environment(sandbox)))
        hello = await server.request("initialize", HELLO)
        assert hello["serverInfo"]["name"] == "musicapi"
        server.send({"method": "notifications/initialized"})
        return server

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def begin(self, method: str, params: dict[str, Any]) -> int:
        """Send a request; returns its id."""
        self.sent += 1
        self.send({"id": self.sent, "method": method, "params": params})
        return self.sent

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """Send a request and wait for its result."""
        number = self.begin(method, params)
        while True:
            line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
            assert line, (await self.process.stderr.read()).decode()
            self.out += line
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            if message.get("id") == number:
                return message["result"]

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool; returns its JSON object."""
        result = await self.request("tools/call", {"name": tool, "arguments": arguments})
        return result["structuredContent"]

    async def closed(self) -> tuple[int, str]:
        """Close standard input, as a client does at its end; returns exit code and standard error."""
        self.process.stdin.close()
        rest, err = await asyncio.gather(self.process.stdout.read(), self.process.stderr.read())
        self.out += rest
        for line in self.out.splitlines():
            assert json.loads(line)["jsonrpc"] == "2.0"
        code = await self.process.ended()
        assert b"sandbox-key" not in self.out + err
        return code, err.decode()

    async def killed(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.process.ended()


async def test_official_client_over_standard_streams(sandbox: Sandbox, tmp_path: Path) -> None:
    """A model that calls the same tool three times pays once, and gets the files."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-c", "from musicapi_async.cli import main; main()", "mcp", "--folder", str(tmp_path)],
        env=environment(sandbox),
    )
    progress: list[float] = []

    async def reported(seconds: float, total: float | None, message: str | None) -> None:
        progress.append(seconds)

    async with Client(parameters) as client:
        assert len((await client.list_tools()).tools) == 14
        for _ in range(3):
            made = await client.call_tool("create_song", {"job_key": "rain", **SONG})
        waited = await client.call_tool(
            "wait_for_song", {"token": made.structured_content["token"]}, progress_callback=reported
        )
        assert waited.structured_content["state"] == "succeeded"
        saved = await client.call_tool("download_song", {"token": made.structured_content["token"]})
    assert len(sandbox.journal.creates) == 1
    assert progress
    files = [Path(file["path"]) for file in saved.structured_content["files"]]
    assert all(file.parent == tmp_path and file.stat().st_size > 1000 for file in files)
    assert (tmp_path / ".musicapi").stat().st_mode & 0o077 == 0


async def test_killed_server_loses_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """SIGKILL after one song was accepted and while another is sent: the successor finds both, and pays none."""
    first = await Server.started(sandbox, tmp_path, "--budget", "60")
    made = await first.call("create_song", job_key="rain", **SONG)
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(600))
    first.begin("tools/call", {"name": "create_song", "arguments": {"job_key": "sun", **SONG}})
    await until(lambda: len(sandbox.journal.creates) == 2)
    await first.killed()

    second = await Server.started(sandbox, tmp_path, "--budget", "60")
    jobs = {job["job_key"]: job for job in (await second.call("list_jobs"))["jobs"]}
    assert jobs["rain"]["token"] == made["token"]
    assert jobs["sun"]["state"] == "ambiguous"
    assert (await second.call("create_song", job_key="rain", **SONG))["token"] == made["token"]
    unknown = await second.call("create_song", job_key="sun", **SONG)
    assert unknown["error"] == "OutcomeUnknownError"
    assert str(tmp_path) in unknown["next"]
    assert (await second.call("wait_for_song", token=made["token"]))["state"] == "succeeded"
    assert (await second.call("get_credits"))["budget"]["spent"] == 40
    assert (await second.call("create_song", job_key="wind", **SONG))["state"] == "being made"
    assert (await second.call("create_song", job_key="snow", **SONG))["error"] == "BudgetExceeded"
    assert (await second.closed())[0] == 0
    assert len(sandbox.journal.creates) == 3


async def test_two_servers_of_one_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    """Two clients of one person, each with its server: one key is paid once, and one budget holds for both."""
    servers = [await Server.started(sandbox, tmp_path, "--budget", "40") for _ in range(2)]
    made = await asyncio.gather(*(server.call("create_song", job_key="rain", **SONG) for server in servers))
    assert made[0]["token"] == made[1]["token"]
    assert (await servers[0].call("create_song", job_key="sun", **SONG))["state"] == "being made"
    assert (await servers[1].call("create_song", job_key="wind", **SONG))["error"] == "BudgetExceeded"
    for server in servers:
        assert (await server.closed())[0] == 0
    assert len(sandbox.journal.creates) == 2


@pytest.mark.parametrize("how", ["closed", "SIGTERM", "SIGINT"])
async def test_end_while_a_song_is_sent(sandbox: Sandbox, tmp_path: Path, how: str) -> None:
    """Whichever way it is stopped, the answer that is on its way is still read and recorded."""
    server = await Server.started(sandbox, tmp_path)
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(60))
    server.begin("tools/call", {"name": "create_song", "arguments": {"job_key": "rain", **SONG}})
    await until(lambda: len(sandbox.journal.creates) == 1)
    if how != "closed":
        server.process.send_signal(getattr(signal, how))
        assert await server.process.ended() == (130 if how == "SIGINT" else 0)
    else:
        code, err = await server.closed()
        assert code == 0
        assert "it was accepted and continues" in err
    store = SQLiteStore(tmp_path / ".musicapi" / "jobs.sqlite")
    (job,) = await store.jobs()
    await store.aclose()
    assert (job.key, job.state) == ("rain", "accepted")


async def test_call_that_has_not_left_is_not_sent_after_the_end(sandbox: Sandbox, tmp_path: Path) -> None:
    """Songs that wait for the rate when the client is closed are not paid for."""
    server = await Server.started(sandbox, tmp_path)
    for number in range(6):
        server.begin(
            "tools/call", {"name": "create_song", "arguments": {"job_key": f"song-{number}", **SONG}}
        )
    await until(lambda: len(sandbox.journal.creates) >= 1)
    await server.closed()
    sent = len(sandbox.journal.creates)
    assert sent < 6
    await asyncio.sleep(0.2)
    assert len(sandbox.journal.creates) == sent
    store = SQLiteStore(tmp_path / ".musicapi" / "jobs.sqlite")
    jobs = await store.jobs()
    await store.aclose()
    assert [job.state for job in jobs] == ["accepted"] * sent


async def test_nothing_else_is_on_standard_output(sandbox: Sandbox, tmp_path: Path) -> None:
    """The log at its most talkative is on standard error; `closed` reads each line, and searches the key."""
    server = await Server.started(sandbox, tmp_path, "-vv")
    made = await server.call("create_song", job_key="rain", **SONG)
    await server.call("wait_for_song", token=made["token"])
    await server.call("check_song", token="musicapi:sonic:create_music:0:unknown")
    code, err = await server.closed()
    assert code == 0
    assert "POST" in err


async def test_noise_of_other_code_misses_the_protocol(sandbox: Sandbox, tmp_path: Path) -> None:
    """In a program, too: what a hook prints, or writes to descriptor 1, goes to standard error."""
    program = tmp_path / "noisy.py"
    program.write_text(NOISY, encoding="utf-8")
    errors = tmp_path / "errors"
    parameters = StdioServerParameters(
        command="sh",
        args=["-c", f"exec {sys.executable} {program} {tmp_path} 2>{errors}"],
        env=environment(sandbox),
    )
    async with Client(parameters) as client:
        assert not (await client.call_tool("create_song", {"job_key": "rain", **SONG})).is_error
    await until(lambda: "noise of a hook" in errors.read_text())  # it is written at the end of the server
    assert "noise of a hook" in errors.read_text()
    assert "noise of a library" in errors.read_text()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_server_over_http(sandbox: Sandbox, tmp_path: Path, mode: str) -> None:
    """In a program the same server runs over HTTP, for several clients."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        async with sandbox.client(store=MemoryStore()) as api:
            app = music_server(api, tmp_path).streamable_http_app()
            web = uvicorn.Server(uvicorn.Config(app, log_level="error"))
            serving = asyncio.ensure_future(web.serve(sockets=[listening]))
            await until(lambda: web.started)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
            for _ in range(2):
                async with Client(url, mode=mode) as client:
                    made = await client.call_tool("create_song", {"job_key": "rain", **SONG})
                    waited = await client.call_tool(
                        "wait_for_song", {"token": made.structured_content["token"]}
                    )
                    assert waited.structured_content["state"] == "succeeded"
            web.should_exit = True
            await serving
    assert len(sandbox.journal.creates) == 1


async def test_message_that_is_no_message(sandbox: Sandbox, tmp_path: Path) -> None:
    """Broken JSON, bytes that are no text, and 20 MB without a line end: the server serves what follows."""
    server = await Server.started(sandbox, tmp_path)
    for junk in (b"{\n", b"\xff\xfe\n", b"[]\n", b"null\n", b"x" * 20_000_000 + b"\n"):
        server.process.stdin.write(junk)
        await server.process.stdin.drain()
    long = b'{"jsonrpc": "2.0", "id": "long", "method": "ping", "params": {"a": "%s"}}\n' % (
        b"x" * 17_000_000
    )
    server.process.stdin.write(long)
    await server.process.stdin.drain()
    assert (await server.call("get_credits"))["credits"] == 1000
    code, err = await server.closed()
    assert code == 0
    assert err.count("was left out") == 6
    answers = [json.loads(line) for line in server.out.splitlines()]
    refused = [(one["id"], one["error"]["code"]) for one in answers if "error" in one]
    nameless = [(None, code) for code in (-32700, -32700, -32600, -32600, -32600)]
    assert refused == [*nameless, ("long", -32600)]


async def test_reader_that_is_gone(sandbox: Sandbox, tmp_path: Path) -> None:
    """A client that has closed standard output: the server ends, and the song is recorded."""
    server = await Server.started(sandbox, tmp_path)
    server.process.transports[1].close()
    server.begin("tools/call", {"name": "create_song", "arguments": {"job_key": "rain", **SONG}})
    assert await server.process.ended() == 0
    assert len(sandbox.journal.creates) == 1


async def test_start_that_fails_says_why(sandbox: Sandbox, tmp_path: Path) -> None:
    """Without a key, with a folder that is none, with a store that is gone: a text on standard error alone."""
    server = await Server.started(sandbox, tmp_path / "songs")
    await server.closed()
    (tmp_path / "songs" / ".musicapi" / "jobs.sqlite").unlink()
    (tmp_path / "file").touch()
    settings = environment(sandbox)
    nameless = {name: value for name, value in settings.items() if name != "MUSICAPI_KEY"}
    for given, folder, text in (
        (nameless, "other", "MUSICAPI_KEY is not set"),
        (settings, "songs", "is gone"),
        (settings, "file", "file"),
    ):
        args = ("mcp", "--folder", str(tmp_path / folder))
        process = await Piped.started("musicapi_async.cli:main", *args, environment=given)
        out, err = await process.communicate()
        assert out == b""
        assert text in " ".join(err.decode().split())
        assert "Traceback" not in err.decode()
        assert process.returncode in (1, 2)
