"""An agent in a test: it calls the tools of a server in this process, and reads their results."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.types import CallToolResult

from musicapi_async import MemoryStore, MusicAPI
from musicapi_async.jobs import JobStore
from musicapi_async.mcp import music_server
from musicapi_async.sandbox import Sandbox

SONG = {"gpt_description_prompt": "calm rain"}
SECRETS = ("sandbox-key",)


@dataclass
class Result:
    """The result of a tool: its fields, and the links of its files."""

    fields: dict[str, Any]
    is_error: bool
    links: list[Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


@dataclass
class Agent:
    """Calls tools, as a model does."""

    client: Client
    texts: list[str] = field(default_factory=list[str])
    progress: list[tuple[float, str | None]] = field(default_factory=list[tuple[float, str | None]])

    async def __call__(self, tool: str, **arguments: Any) -> Result:
        async def reported(progress: float, total: float | None, message: str | None) -> None:
            self.progress.append((progress, message))

        found = await self.client.call_tool(tool, arguments, progress_callback=reported)
        assert isinstance(found, CallToolResult)
        return self.read(found)

    def read(self, found: CallToolResult) -> Result:
        """Check the form that all results have."""
        text, *links = found.content
        assert text.type == "text"
        assert json.loads(text.text) == found.structured_content
        assert all(link.type == "resource_link" for link in links)
        if found.is_error:
            assert {"error", "happened", "money", "may_have_been_charged", "next"} <= set(
                found.structured_content
            )
            assert all(found.structured_content[name] for name in ("error", "happened", "money", "next"))
        whole = found.model_dump_json()
        assert not any(secret in whole for secret in SECRETS)
        self.texts.append(whole)
        return Result(found.structured_content, found.is_error, links)


@asynccontextmanager
async def an_agent(
    sandbox: Sandbox, folder: Path, *, store: JobStore | None = None, mode: str = "auto", **options: Any
) -> AsyncIterator[Agent]:
    """An agent whose server saves in a folder; `options` go to `music_server`."""
    async with (
        sandbox.client(store=store or MemoryStore()) as api,
        agent_of(api, folder, mode=mode, **options) as agent,
    ):
        yield agent


@asynccontextmanager
async def agent_of(
    api: MusicAPI, folder: Path, *, mode: str = "auto", extensions: Any = None, **options: Any
) -> AsyncIterator[Agent]:
    """An agent whose server uses a client."""
    async with Client(music_server(api, folder, **options), mode=mode, extensions=extensions) as client:
        yield Agent(client)


def size_of(path: Path) -> int:
    """The bytes of a file."""
    return path.stat().st_size


def names_in(folder: Path) -> set[str]:
    """The files and folders in a folder."""
    return {path.name for path in folder.iterdir()}
