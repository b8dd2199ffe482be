"""A process that shares its file of jobs with others."""

from __future__ import annotations

import asyncio
import json
import sys

from musicapi_async import MusicAPI
from musicapi_async.jobs import PostgresStore, SQLiteStore


def main() -> None:
    """Make a song for each name that is an argument, and print names and tasks."""
    print(json.dumps(asyncio.run(songs(*sys.argv[1:]))), flush=True)


async def songs(base_url: str, key: str, path: str, *names: str) -> list[tuple[str, str]]:
    """A song for each name, under the name as its job key."""
    async with MusicAPI(key, base_url=base_url, store=SQLiteStore(path), rate_limit=None) as client:

        async def one(name: str) -> tuple[str, str]:
            view = client.with_options(job_key=name)
            task = await view.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain", title=name)
            return name, task.task_id

        return await asyncio.gather(*map(one, names))


class Hasty(PostgresStore):
    """A store whose lease is short."""

    lease = 1.5


def hold() -> None:
    """Make a song with the one permit of an account, and live on."""
    asyncio.run(holding(*sys.argv[1:]))


async def holding(base_url: str, key: str, address: str, account: str) -> None:
    """Make a song, and hold its permit for ever."""
    async with MusicAPI(
        key, base_url=base_url, store=Hasty(address), account=account, max_in_flight=1, rate_limit=None
    ) as client:
        await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
        await asyncio.Event().wait()
