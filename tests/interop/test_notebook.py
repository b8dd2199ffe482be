"""In Jupyter and IPython: players, and what is said of a client that was left open."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from musicapi_async.sandbox import Sandbox

OPEN = "from musicapi_async import MusicAPI\nclient = MusicAPI(rate_limit=None)"
LEFT = "A MusicAPI client was not closed. In a notebook one event loop runs until the end"


@pytest.fixture
def anyio_backend() -> str:
    """A loop in real time, as a kernel lives in real time."""
    return "asyncio"


@pytest.fixture
async def box(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Sandbox]:
    """A sandbox whose address and key are in the environment of the kernel."""
    async with Sandbox(speed=600, seed=1, longest=2) as box:
        monkeypatch.setenv("MUSICAPI_KEY", box.api_key)
        monkeypatch.setenv("MUSICAPI_BASE_URL", box.base_url)
        monkeypatch.setenv("MUSICAPI_CLOCK_SPEED", "600")
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
            monkeypatch.setenv(name, str(tmp_path / name))
        yield box


async def run(*cells: str) -> list[dict[str, Any]]:
    """Run a notebook; return the outputs of its cells."""
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory(prefix="kernel") as folder:
        # Files instead of ports: kernels that start at once in several processes choose the same ports.
        client = NotebookClient(notebook, timeout=60, kernel_name="python3")
        manager: Any = client.create_kernel_manager()
        manager.transport, manager.ip = "ipc", f"{folder}/k"
        await client.async_execute()
    return [output for cell in notebook.cells for output in cell.outputs]


def pages(outputs: list[dict[str, Any]]) -> Iterator[str]:
    for output in outputs:
        if output["output_type"] == "execute_result":
            yield output["data"]["text/html"]


async def test_results_are_players(box: Sandbox) -> None:
    """A task, its clips, one of them, and stems; a client that is closed in the last cell says nothing."""
    outputs = await run(
        OPEN,
        'task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm rain")\ntask',
        "await task",
        "task",
        "task.last.clips[0]",
        "await (await client.sonic.stems_basic(task.last.clips[0].clip_id))",
        "await client.aclose()",
    )
    submitted, clips, ended, clip, stems = pages(outputs)
    assert len(outputs) == 5
    assert "sonic create_music</b> · submitted, not polled yet" in submitted
    assert "musicapi:sonic:create_music:" in submitted
    assert clips.count("<audio controls preload=") == ended.count("<audio controls preload=") == 2
    assert "sonic create_music</b> · succeeded" in ended
    assert clip.count("<img") == 1
    assert "vocals · " in stems
    assert "<script" not in "".join(pages(outputs))


async def test_a_client_that_a_cell_replaces_is_closed_in_words(box: Sandbox) -> None:
    """Once for all of them, where the cell writes."""
    collected = "import asyncio, gc; gc.collect(); await asyncio.sleep(0.1)"
    outputs = await run(OPEN, *["x = await client.credits()", OPEN, collected] * 3, "await client.aclose()")
    assert [output["text"][: len(LEFT)] for output in outputs] == [LEFT]


@pytest.mark.parametrize(
    ("last", "told"),
    [("", 1), ("await client.aclose()", 0), ("del client", 1)],
    ids=["left open", "closed", "deleted"],
)
async def test_leaving_ipython(box: Sandbox, last: str, told: int) -> None:
    """One line in words if the client is open, none else; nothing of aiohttp or asyncio."""
    said = await ipython(OPEN, "x = await client.credits()", last)
    assert said.count(LEFT) == told
    assert "Unclosed" not in said
    assert "Traceback" not in said


async def test_leaving_ipython_with_a_client_that_closes_with_its_loop(box: Sandbox) -> None:
    """It is closed at the end without a word."""
    said = await ipython(
        OPEN.replace("MusicAPI(", "MusicAPI(close_with_loop=True, "), "x = await client.credits()"
    )
    assert "closed" not in said
    assert "Unclosed" not in said


async def ipython(*lines: str) -> str:
    """Type lines into IPython and leave it; return all that it wrote."""
    import anyio

    command = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor"]
    done = await anyio.run_process(
        command, input="\n".join([*lines, "exit", ""]).encode(), stderr=subprocess.STDOUT, env={**os.environ}
    )
    return done.stdout.decode()
