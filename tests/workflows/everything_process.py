"""A workflow in a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from musicapi_async import Clip, Clock, MusicAPI, workflows
from musicapi_async.jobs import SQLiteStore


def main() -> None:
    """Run it as the arguments say."""
    asyncio.run(everything(*sys.argv[1:]))


async def everything(
    base_url: str, key: str, clip: str, folder: str, store: str, parts: str, rate_limit: str
) -> None:
    """`workflows.everything` of a clip; with a rate, after another create."""
    client = MusicAPI(
        key,
        base_url=base_url,
        clock=Clock(100),
        rate_limit=rate_limit or None,
        store=SQLiteStore(store) if store else None,
    )
    async with client:
        if rate_limit:
            await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="before it")
        await workflows.everything(
            client, msgspec.json.decode(clip, type=Clip), folder, **msgspec.json.decode(parts)
        )
