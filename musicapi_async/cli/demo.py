"""`musicapi demo`: the whole workflow against a sandbox in this process. No key, no network, no cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..api.replies import Persona
from ..api.results import Clip, Clips
from ..api.task import Task
from ..extras import require
from .invocation import Command, Invocation
from .output import clock_text, print_err, print_out, visible
from .parameters import Folder, Positive
from .reporters import TaskReport
from .task_commands import result_of, together

if TYPE_CHECKING:
    from ..client import MusicAPI

SPEED: Final = 20.0
"""A song of two minutes takes six seconds, so that one can watch it happen."""

MODEL: Final = "sonic-v6"

RAIN: Final = "warm lo-fi with soft piano, a rainy evening in a small town"

LANTERNS: Final = """[Verse]
Paper lanterns on the river
Every light a name we knew
Let the slow dark water carry
What the daylight never could do
[Chorus]
Float on, float on
Till the morning finds you home"""

HARBOUR: Final = """[Verse]
Same warm voice, another window
Ships come in on quiet feet
[Chorus]
Harbour, harbour, keep them near
All the ones I used to meet"""

LENGTHS: Final = (70, 60, 65)
"""Requested lengths of the three songs in seconds; short ones are made faster."""

PERSONA: Final = "Rainy voice"

PROGRAM: Final = """import asyncio
from musicapi_async import MusicAPI
async def main():
    async with MusicAPI() as api:
        sonic, ask = api.sonic, {"mv": "sonic-v6", "prompt": "Rain, rain, stay"}
        one, two = [await sonic.create_music(**ask) for _ in range(2)]
        ann = await sonic.create_persona("Ann", (await one.wait())[0].clip_id)
        more = await sonic.persona_music(**ask, persona_id=ann.persona_id)
        await api.download(await api.wait_all([one, two, more]), "songs")
asyncio.run(main())
"""
"""The demo in short, to copy; the tests run it."""


class Song:
    """A song of the demo, and its files."""

    def __init__(self, task: Task[Clips], clips: Clips) -> None:
        self.task: Final = task
        self.clips: Final = clips
        self.paths: Sequence[Path] = ()


@click.command("demo", cls=Command)
@click.option(
    "--out",
    type=Folder(),
    default=Path("musicapi-demo"),
    show_default=True,
    metavar="DIR",
    help="Folder for the songs.",
)
@click.option(
    "--speed", type=Positive(), default=SPEED, show_default=True, help="Times as fast as the service."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another number, another demo.")
@click.pass_obj
async def demo_command(invocation: Invocation, out: Path, speed: float, seed: int) -> None:
    """Make three songs right now, without account, network or cost.

    Two songs at once, a persona from the first of them, and a song with that persona. A sandbox in this
    process speaks the same API as the service, only faster, and makes real audio.
    """
    from ..sandbox import Sandbox

    try:
        require("The audio of the demo", "sandbox")
    except ModuleNotFoundError as error:
        raise click.UsageError(str(error)) from None
    invocation.is_demo = invocation.is_rerunnable = True
    reporter = invocation.reporter
    start = time.monotonic()
    async with Sandbox(speed=speed, seed=seed, create_limit=(1, 3.0)) as sandbox, sandbox.client() as client:
        before = (await client.credits()).total
        if not invocation.is_json:
            print_err(f"A sandbox on this machine, {speed:g} times as fast as the service.\n")
        with reporter.following(speed, resumable=False):
            demo = _Demo(invocation, client, out, seed)
            songs = await demo.run()
        after = (await client.credits()).total
    seconds = time.monotonic() - start
    fields = {
        "files": [path for song in songs for path in song.paths],
        "persona_id": demo.persona.persona_id,
        "persona": demo.persona.name,
        "cost": before - after,
        "seconds": round(seconds, 2),
        "program": PROGRAM,
    }
    if not invocation.is_json:
        _print_table(songs)
    reporter.event("demo", fields, _summary(demo.persona, before, after, seconds, speed))


class _Demo:
    """Two songs at once, and as soon as the first is ready a persona of its voice and a third song."""

    persona: Persona

    def __init__(self, invocation: Invocation, client: MusicAPI, out: Path, seed: int) -> None:
        self._invocation: Final = invocation
        self._client: Final = client
        self._sonic: Final = client.sonic
        self._out: Final = out
        self._pattern: Final = "{title}" if seed == 0 else f"{{title}} (seed {seed})"
        self._first_clip: Final[asyncio.Future[Clip]] = asyncio.get_running_loop().create_future()

    async def run(self) -> list[Song]:
        """Make the songs side by side."""
        task = self._invocation.reporter.task
        reports = [task(label) for label in ("From a description", "From own lyrics", "With a persona")]
        return await together(
            [self._described(reports[0]), self._own_lyrics(reports[1]), self._with_persona(reports[2])]
        )

    async def _described(self, report: TaskReport) -> Song:
        create = self._sonic.create_music(mv=MODEL, gpt_description_prompt=RAIN, duration=LENGTHS[0])
        song = await self._finish(report, create)
        self._first_clip.set_result(song.clips[0])
        return await self._save(report, song)

    async def _own_lyrics(self, report: TaskReport) -> Song:
        create = self._sonic.create_music(
            mv=MODEL, title="Paper Lanterns", prompt=LANTERNS, tags="folk, guitar", duration=LENGTHS[1]
        )
        return await self._save(report, await self._finish(report, create))

    async def _with_persona(self, report: TaskReport) -> Song:
        clip = await self._first_clip
        persona = await self._sonic.create_persona(name=PERSONA, clip_id=clip.clip_id)
        persona.name = persona.name or PERSONA  # the service's reply holds the id only
        self.persona = persona
        if self._invocation.is_json:
            self._invocation.reporter.reply("sonic.create_persona", persona)
        create = self._sonic.persona_music(
            mv=MODEL,
            persona_id=persona.persona_id,
            title="Harbour",
            prompt=HARBOUR,
            tags="ballad",
            duration=LENGTHS[2],
        )
        return await self._save(report, await self._finish(report, create))

    async def _finish(self, report: TaskReport, create: Awaitable[Task[Clips]]) -> Song:
        task = await create
        self._invocation.accepted(task)
        report.submitted(task)
        song = Song(task, (await result_of(task, report)).clips)
        report.finished(task, song.clips)
        self._invocation.ended(task)
        return song

    async def _save(self, report: TaskReport, song: Song) -> Song:
        song.paths = await self._client.download(song.clips, self._out, name=self._pattern)
        report.saved(song.task, song.paths)
        return song


def _print_table(songs: Sequence[Song]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("Title", overflow="fold")
    table.add_column("Length", justify="right")
    table.add_column("File", overflow="fold")
    for song in songs:
        finished = [clip for clip in song.clips if clip.is_succeeded]
        for clip, path in zip(finished, song.paths, strict=True):
            length = clock_text(clip.duration)
            table.add_row(Text(visible(clip.title or "")), length, Text(visible(str(path))))
    console = Console()
    with console.capture() as captured:
        console.print(table)
    print_out(captured.get().removesuffix("\n"))


def _summary(persona: Persona, before: float, after: float, seconds: float, speed: float) -> list[str]:
    """Return the last lines; with the table above them they fit a terminal of 24 lines."""
    cost = f"{before - after:g} of the sandbox's {before:g} credits, nothing real"
    return [
        "",
        f"Persona  {persona.name} ({persona.persona_id})",
        f"Cost     {cost}; {seconds:.0f} s for {clock_text(seconds * speed)} minutes",
        "",
        "The same as a program, for an account or for `musicapi sandbox`:",
        *PROGRAM.splitlines(),
    ]
