"""`kill -9` of the sandbox in the middle of a program; restarted with its state, nothing is lost or paid twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from forked import Piped
from patience import until

from musicapi_async import Clip, Clips, Clock, ConnectFailedError, MusicAPI, OutcomeUnknownError, Task
from musicapi_async.jobs import SQLiteStore

SONGS = 40
SPEED = 200
OPTIONS = ("--speed", str(SPEED), "--credits", "5000", "--seed", "3", "--duration", "song=60,0.3")


@pytest.fixture
def anyio_backend() -> str:
    """The sandbox is a process of its own, which lives in real time."""
    return "asyncio"


class Server:
    """The command `musicapi sandbox` with a state, to be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: Piped | None = None
        self.facts: dict[str, Any] = {}
        self.port = "0"

    async def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MUSICAPI")}
        command = ("--json", "sandbox", "--state", "sandbox.state", "--port", self.port, *OPTIONS)
        self._process = await Piped.started(
            "musicapi_async.cli:main", *command, environment=environment, folder=self._folder
        )
        line = await self._process.stdout.readline()
        assert line, (await self._process.stderr.read()).decode()
        self.facts = json.loads(line)
        self.port = self.facts["base_url"].partition("127.0.0.1:")[2].partition("/")[0]

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        assert await self._process.ended() == -9

    async def ask(self, path: str) -> Any:
        """A reply of the control."""
        headers = {"Authorization": f"Bearer {self.facts['control_token']}"}
        url = self.facts["control_url"] + path
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as reply:
            assert reply.status == 200
            return await reply.json()

    async def creates(self) -> list[dict[str, Any]]:
        return (await self.ask("/journal?kind=create&limit=1000"))["requests"]

    async def has_creates(self, count: int) -> bool:
        return len(await self.creates()) >= count


async def one_song(client: MusicAPI, server: Server, number: int) -> list[Clip]:
    """Make a song, whatever happens to the server."""
    prompt, key = f"[Verse]\nSong number {number}", f"song-{number}"

    async def create() -> Task[Clips]:
        return await client.with_options(job_key=key).sonic.create_music(mv="sonic-v6", prompt=prompt)

    async def decide() -> Task[Clips]:
        """Look up in the server's journal what became of a create, as a person would on the dashboard."""
        await up(server)
        made = [row for row in await server.creates() if row["body"] and row["body"]["prompt"] == prompt]
        return await (client.resolve(key, task_id=made[0]["task_id"]) if made else client.resubmit(key))

    submit = create
    while True:
        try:
            return list(await (await submit()).wait())
        except ConnectFailedError:  # nothing was sent
            await asyncio.sleep(0.1)
        except (OutcomeUnknownError, aiohttp.ClientError):
            submit = decide


async def up(server: Server) -> None:
    """Wait until the server answers."""
    while True:
        try:
            await server.ask("/clock")
        except aiohttp.ClientError:
            await asyncio.sleep(0.05)
        else:
            return


async def test_program_of_forty_songs_survives_kills_of_the_sandbox(tmp_path: Path) -> None:
    """Killed three times in the middle, it ends with all songs, each charged once, and ids that are all new."""
    draw = random.Random(7)
    server = Server(tmp_path)
    await server.start()
    client = MusicAPI(
        server.facts["api_key"],
        base_url=server.facts["base_url"],
        clock=Clock(SPEED),
        store=SQLiteStore(tmp_path / "jobs.sqlite"),
    )
    async with client:
        program = asyncio.gather(*(one_song(client, server, number) for number in range(SONGS)))
        seen: list[int] = []
        for wanted in (8, 20, 34):
            await until(partial(server.has_creates, wanted), every=0.01)
            await asyncio.sleep(draw.uniform(0, 0.1))
            await server.kill()
            assert not program.done()
            await asyncio.sleep(draw.uniform(0, 0.3))
            await server.start()
            seen.append(len(await server.creates()))
        songs = await asyncio.wait_for(program, 60)
        assert seen == sorted(seen), "the journal only grows"
        assert [sum(clip.is_succeeded for clip in clips) for clips in songs] == [2] * SONGS
        assert len({clip.clip_id for clips in songs for clip in clips}) == 2 * SONGS
        charged = [row for row in await server.creates() if row["charge"]]
        assert len(charged) == len({row["body"]["prompt"] for row in charged}) == SONGS
        assert len({row["task_id"] for row in charged}) == SONGS
        assert (await server.ask("/account"))["credits"] == 5000 - 20 * SONGS
        assert (await client.credits()).total == 5000 - 20 * SONGS
        numbers = [row["number"] for row in (await server.ask("/journal?limit=1000"))["requests"]]
        assert numbers == sorted(set(numbers))
    await server.kill()
