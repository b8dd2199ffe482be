"""Programs in processes of their own, forked from one that has imported this package already.

A start costs a hundredth of a second instead of half a second or more of imports; what kills such a process kills
it, and nothing is shared with this one. What a bare interpreter does (its imports, its warnings at the end) is
tested with `subprocess` instead, as in `tests/client/test_lifecycle.py` and `tests/cli/test_cli_processes.py`.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import anyio
from patience import PATIENCE

PRELOADED: Final = (
    "__main__",
    "anyio._backends._asyncio",
    "musicapi_async.workflows",
    "musicapi_async.cli.commands",
    "musicapi_async.contrib.aiohttp_web",
    "musicapi_async.mcp.tool_server",
    "musicapi_async.examples.service",
    "musicapi_async._transport.session",
    "musicapi_async.sandbox.server",
    "musicapi_async.jobs",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)
"""What the programs import. Nothing that starts a thread, as numpy does: threads do not survive a fork."""

CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(PRELOADED))


class Forked:
    """A process that runs `program`, which is "module:function", with arguments as a command gets them.

    Its standard streams are these file descriptors of this process; None for one that it starts without.
    """

    def __init__(
        self,
        program: str,
        *args: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        streams: Sequence[int | None] = (0, 1, 2),
    ) -> None:
        ends = [None if one is None else Connection(os.dup(one)) for one in streams]
        settings = dict(os.environ if environment is None else environment)
        self._process = CONTEXT.Process(
            target=_run, args=(program, args, settings, folder or Path.cwd(), ends), daemon=True
        )  # daemon: one that a failed test left behind is ended, not waited for, when the tests are over
        self._process.start()
        for end in ends:
            if end is not None:
                end.close()

    @property
    def returncode(self) -> int | None:
        """How it ended: its exit code, or less than 0 for the signal that ended it; None while it runs."""
        return self._process.exitcode

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def wait(self) -> int:
        """Block until its end; returns how it ended."""
        self._process.join(PATIENCE)
        assert self.returncode is not None, "it never ended"
        return self.returncode

    async def ended(self) -> int:
        """Wait for its end; returns how it ended."""
        with anyio.fail_after(PATIENCE):
            await anyio.wait_readable(self._process.sentinel)
        return self.wait()


class Piped(Forked):
    """A process with pipes, for asynchronous tests. `await Piped.started(program, ...)` makes one."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    transports: list[asyncio.BaseTransport]
    """Of the three streams."""
    _while_open: AsyncGenerator[None]

    @classmethod
    async def started(
        cls,
        program: str,
        *args: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Piped:
        """Start a process and connect its streams."""
        (given, to_give), (out, to_print), (err, to_complain) = os.pipe(), os.pipe(), os.pipe()
        theirs = (given, to_print, to_complain)
        process = cls(program, *args, environment=environment, folder=folder, streams=theirs)
        for end in theirs:
            os.close(end)
        process.stdin, writing = await _writer(to_give)
        process.stdout, printed = await _reader(out)
        process.stderr, complained = await _reader(err)
        process.transports = [writing, printed, complained]
        process._while_open = process._ended_with_its_loop()
        await anext(process._while_open)
        return process

    async def _ended_with_its_loop(self) -> AsyncGenerator[None]:
        """A loop that ends closes its generators, and thereby what a test that failed has left behind.

        Otherwise its pipes would be warned of later, in another test, which then failed, too.
        """
        try:
            yield
        finally:
            self.kill()
            for transport in self.transports:
                transport.close()

    async def communicate(self, given: bytes = b"") -> tuple[bytes, bytes]:
        """Write, read to the end, and wait for the end."""
        self.stdin.write(given)
        self.stdin.close()
        told = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.ended()
        return told

    async def ended(self) -> int:
        """Wait for its end, and close the pipes; what was not read is lost."""
        code = await super().ended()
        for transport in self.transports:
            transport.close()
        return code


async def _reader(end: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(end, "rb", 0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport


async def _writer(end: int) -> tuple[asyncio.StreamWriter, asyncio.BaseTransport]:
    loop, pipe = asyncio.get_running_loop(), os.fdopen(end, "wb", 0)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), pipe
    )
    return asyncio.StreamWriter(transport, protocol, None, loop), transport


def _run(
    program: str,
    args: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    ends: list[Connection | None],
) -> None:
    """What the process does."""
    for number, end in enumerate(ends):
        if end is not None:
            os.dup2(end.fileno(), number)
            end.close()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if ends[number] is None:  # as an interpreter does it that is started without the stream
            os.close(number)
            setattr(sys, name, None)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    warnings.resetwarnings()
    warnings.simplefilter("error")
    module, _, function = program.partition(":")
    sys.argv = [module, *args]
    getattr(importlib.import_module(module), function)()
