"""`musicapi demo`: the whole workflow against a sandbox in this process. No key, no network, no cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..api.handle import Task
from ..api.replies import Persona
from ..api.results import Clip, Clips
from ..errors import MusicAPIError
from . import exits
from .commanding import Command, run, seconds
from .following import end_of, together
from .invocation import Invocation
from .output import put, tell
from .reporting import Row
from .text_output import clock_text
from .visible import visible

if TYPE_CHECKING:
    from ..client import MusicAPI

SPEED: Final = 20.0
"""A song of two minutes takes six seconds, so that one can watch it happen."""

MUSIC_LIBRARIES: Final = ("numpy", "soundfile", "mutagen", "mido")
"""What the extra `[sandbox]` installs; it makes the files."""

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
"""Seconds that the three songs are asked to have; short ones are made faster."""

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
    """A task of the demo: what it gave, and where the files are."""

    def __init__(self, task: Task[Clips], clips: Clips) -> None:
        self.task: Final = task
        self.clips: Final = clips
        self.paths: list[Path] = []


@click.command("demo", cls=Command)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("musicapi-demo"),
    show_default=True,
    metavar="DIR",
    help="Folder for the songs.",
)
@click.option(
    "--speed",
    type=float,
    default=SPEED,
    show_default=True,
    callback=seconds,
    help="Times as fast as the service.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another number, another demo.")
def demo_command(out: Path, speed: float, seed: int) -> None:
    """Make three songs right now, without account, network or cost.

    Two songs at once, a persona from the first of them, and a song with that persona. A sandbox in this
    process speaks the same API as the service, only faster, and makes real audio.
    """
    if any(find_spec(name) is None for name in MUSIC_LIBRARIES):
        raise click.UsageError("The demo makes real audio: pip install 'musicapi-async[cli,sandbox]'")

    async def work(invocation: Invocation) -> int:
        try:
            await _demo(invocation, out, speed, seed)
        except MusicAPIError as error:
            return invocation.end([error])
        return exits.OK

    invocation = click.get_current_context().ensure_object(Invocation)
    invocation.resumable, invocation.rerun = False, True
    run(work)


async def _demo(invocation: Invocation, out: Path, speed: float, seed: int) -> None:
    from ..sandbox import Sandbox

    reporter = invocation.reporter
    began = time.monotonic()
    async with Sandbox(speed=speed, seed=seed, create_limit=(1, 3.0)) as sandbox, sandbox.client() as client:
        before = (await client.credits()).total
        if not invocation.is_json:
            tell(f"A sandbox on this machine, {speed:g} times as fast as the service.\n")
        with reporter.following(speed, resumable=False):
            songs, persona = await _perform(invocation, client, out, seed)
        after = (await client.credits()).total
    took = time.monotonic() - began
    fields = {
        "files": [path for song in songs for path in song.paths],
        "persona_id": persona.persona_id,
        "persona": persona.name,
        "cost": before - after,
        "seconds": round(took, 2),
        "program": PROGRAM,
    }
    if not invocation.is_json:
        _show_table(songs)
    reporter.event("demo", fields, _summary(persona, before, after, took, speed))


async def _perform(
    invocation: Invocation, client: MusicAPI, out: Path, seed: int
) -> tuple[list[Song], Persona]:
    """Two songs at once, and as soon as the first is there a persona of its voice and a third song."""
    reporter = invocation.reporter
    first_clip: asyncio.Future[Clip] = asyncio.get_running_loop().create_future()
    pattern = "{title}" if seed == 0 else "{title} (seed " + str(seed) + ")"

    async def sing(row: Row, create: Awaitable[Task[Clips]]) -> Song:
        task = await create
        invocation.accepted(task)
        row.submitted(task)
        song = Song(task, (await end_of(task, row)).clips)
        row.ended(task, song.clips)
        invocation.ended(task)
        return song

    async def save(row: Row, song: Song) -> Song:
        song.paths = await client.download(song.clips, out, name=pattern)
        row.saved(song.task, song.paths)
        return song

    async def described(row: Row) -> Song:
        create = client.sonic.create_music(mv=MODEL, gpt_description_prompt=RAIN, duration=LENGTHS[0])
        song = await sing(row, create)
        first_clip.set_result(song.clips[0])
        return await save(row, song)

    async def own_words(row: Row) -> Song:
        create = client.sonic.create_music(
            mv=MODEL, title="Paper Lanterns", prompt=LANTERNS, tags="folk, guitar", duration=LENGTHS[1]
        )
        return await save(row, await sing(row, create))

    async def with_persona(row: Row) -> Song:
        clip = await first_clip
        persona = await client.sonic.create_persona(name=PERSONA, clip_id=clip.clip_id)
        persona.name = persona.name or PERSONA  # the service's answer holds the id only
        personas.append(persona)
        if reporter.is_json:
            reporter.reply("sonic.create_persona", persona)
        create = client.sonic.persona_music(
            mv=MODEL,
            persona_id=persona.persona_id,
            title="Harbour",
            prompt=HARBOUR,
            tags="ballad",
            duration=LENGTHS[2],
        )
        return await save(row, await sing(row, create))

    personas: list[Persona] = []
    rows = [reporter.row(label) for label in ("From a description", "From own lyrics", "With a persona")]
    songs = await together([described(rows[0]), own_words(rows[1]), with_persona(rows[2])])
    return songs, personas[0]


def _show_table(songs: Sequence[Song]) -> None:
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
    with console.capture() as shown:
        console.print(table)
    put(shown.get().removesuffix("\n"))


def _summary(persona: Persona, before: float, after: float, took: float, speed: float) -> list[str]:
    """Short: with the table above it, it fits a terminal of 24 lines."""
    cost = f"{before - after:g} of the sandbox's {before:g} credits, nothing real"
    return [
        "",
        f"Persona  {persona.name} ({persona.persona_id})",
        f"Cost     {cost}; {took:.0f} s for {clock_text(took * speed)} minutes",
        "",
        "The same as a program, with MUSICAPI_KEY or what `musicapi sandbox` prints:",
        *PROGRAM.splitlines(),
    ]
