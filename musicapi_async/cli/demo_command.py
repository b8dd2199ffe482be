"""`musicapi demo` makes songs with a sandbox in its own process. No key, no cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..api.account import credits_text
from ..api.direct_replies import Persona
from ..api.results import Clip, Clips
from ..api.task import Task
from ..extras import require
from .invocation import Invocation
from .output import clock_text, print_err, visible
from .parameters import Folder, Positive
from .reporters import TaskReport
from .task_commands import result_of, together
from .usage import Command

if TYPE_CHECKING:
    from ..client import MusicAPI

DEMO_SPEED: Final = 20.0
"""A song of two minutes takes six seconds, so that one can watch it happen."""

DEMO_MODEL: Final = "sonic-v6"

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

SONG_SECONDS: Final = (56, 52, 54)
"""Requested lengths of the three songs in seconds; short ones are made faster."""

PERSONA: Final = "Rainy voice"

DEMO_LABELS: Final = ("From a description", "From own lyrics", "With the first song's voice")
"""Of the three songs, until they have titles."""

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


class DemoSong:
    """A song of the demo, what it was made from, and its files so far."""

    def __init__(self, task: Task[Clips], clips: Clips, origin: str) -> None:
        self.task: Final = task
        self.clips: Final = clips
        self.origin: Final = origin
        self.paths: list[Path] = []

    @property
    def title(self) -> str:
        """The title of the song."""
        return self.clips[0].title or "(no title)"


@click.command("demo", cls=Command)
@click.option(
    "--out",
    type=Folder(),
    default=Path("musicapi-demo"),
    show_default=True,
    metavar="DIR",
    help="Folder to save the songs in.",
)
@click.option(
    "--speed",
    type=Positive(),
    default=DEMO_SPEED,
    show_default=True,
    help="Speed of the sandbox; 1 is that of the service.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of the songs; each number makes another demo.",
)
@click.pass_obj
async def demo_command(invocation: Invocation, out: Path, speed: float, seed: int) -> None:
    """Make three songs in a sandbox, without account, network or cost.

    Makes two songs at once, a persona from the first one, and a song with this persona. The sandbox is a
    server in this process with the API of the service; it is faster, and makes real audio.
    """
    from ..sandbox import Sandbox

    require("The audio of the demo", "sandbox")
    invocation.is_demo = invocation.is_rerunnable = True
    reporter = invocation.reporter
    start = time.monotonic()
    async with Sandbox(speed=speed, seed=seed, create_limit=(1, 3.0)) as sandbox, sandbox.client() as client:
        before = (await client.credits()).total
        if not invocation.is_json:
            print_err(f"A sandbox on this machine, {speed:g} times as fast as the service.\n")
        demo = _Demo(invocation, client, out, seed)
        try:
            with reporter.following(speed, resumable=False):
                songs = await demo.run()
        except asyncio.CancelledError:  # Ctrl-C
            if demo.songs and not invocation.is_json:
                print_err("\n".join(["Files that are there:", *_song_lines(demo.songs)]))
            raise
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
    cost = f"{credits_text(before - after)} of the sandbox's {credits_text(before)} credits, nothing real"
    lines = [
        *_song_lines(songs),
        "",
        f"Cost  {cost}; {seconds:.0f} s for {clock_text(seconds * speed)} minutes",
        "The same as a program, for an account or for `musicapi sandbox`:",
        *PROGRAM.splitlines(),
    ]
    reporter.event("demo", fields, lines)


class _Demo:
    """Two songs at once, and as soon as the first is ready a persona of its voice and a third song."""

    persona: Persona

    def __init__(self, invocation: Invocation, client: MusicAPI, out: Path, seed: int) -> None:
        self._invocation: Final = invocation
        self._client: Final = client
        self._sonic: Final = client.sonic
        self._out: Final = out
        self._seed: Final = "" if seed == 0 else f"seed {seed}, "
        self.songs: Final[list[DemoSong]] = []
        self._first_clip: Final[asyncio.Future[Clip]] = asyncio.get_running_loop().create_future()

    async def run(self) -> list[DemoSong]:
        """Make the songs side by side."""
        task = self._invocation.reporter.task
        reports = [task(label) for label in DEMO_LABELS]
        return await together(
            [self._described(reports[0]), self._own_lyrics(reports[1]), self._with_persona(reports[2])]
        )

    async def _described(self, report: TaskReport) -> DemoSong:
        create = self._sonic.create_music(
            mv=DEMO_MODEL, gpt_description_prompt=RAIN, duration=SONG_SECONDS[0]
        )
        song = await self._finish(report, create, "from a description")
        self._first_clip.set_result(song.clips[0])
        return await self._save(report, song)

    async def _own_lyrics(self, report: TaskReport) -> DemoSong:
        create = self._sonic.create_music(
            mv=DEMO_MODEL,
            title="Paper Lanterns",
            prompt=LANTERNS,
            tags="folk, guitar",
            duration=SONG_SECONDS[1],
        )
        return await self._save(report, await self._finish(report, create, "from own lyrics"))

    async def _with_persona(self, report: TaskReport) -> DemoSong:
        clip = await self._first_clip
        persona = await self._sonic.create_persona(name=PERSONA, clip_id=clip.clip_id)
        persona.name = persona.name or PERSONA  # the service's reply holds the id only
        self.persona = persona
        if self._invocation.is_json:
            self._invocation.reporter.reply("sonic.create_persona", persona)
        create = self._sonic.persona_music(
            mv=DEMO_MODEL,
            persona_id=persona.persona_id,
            title="Harbour",
            prompt=HARBOUR,
            tags="ballad",
            duration=SONG_SECONDS[2],
        )
        origin = f"sung by {PERSONA}, the persona of {clip.title}"
        return await self._save(report, await self._finish(report, create, origin))

    async def _finish(self, report: TaskReport, create: Awaitable[Task[Clips]], origin: str) -> DemoSong:
        task = await create
        self._invocation.accepted(task)
        report.submitted(task)
        song = DemoSong(task, (await result_of(task, report)).clips, origin)
        report.finished(task, song.clips)
        self._invocation.ended(task)
        return song

    async def _save(self, report: TaskReport, song: DemoSong) -> DemoSong:
        self.songs.append(song)
        for take, clip in enumerate(song.clips.succeeded, 1):
            name = f"{{title}} ({self._seed}take {take})"
            song.paths += await self._client.download(clip, self._out, name=name, tags=True)
        report.saved(song.task, song.paths)
        return song


def _song_lines(songs: Sequence[DemoSong]) -> list[str]:
    """Return a line for each song and for each of its files, so that 24 lines hold them and the program."""
    lines: list[str] = []
    for song in songs:
        lines.append(f"{visible(song.title)}, {visible(song.origin)}")
        pairs = zip(song.clips.succeeded, song.paths, strict=False)  # the second may be on its way
        lines += [f"  {clock_text(clip.duration)}  {visible(str(path))}" for clip, path in pairs]
    return lines
