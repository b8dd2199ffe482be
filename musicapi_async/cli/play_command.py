"""`musicapi play`: songs, with the player that the machine has."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio.to_thread
import click

from ..errors import MusicAPIError
from .exit_codes import ExitCode
from .invocation import Invocation
from .output import visible
from .usage import Command

ANY: Final = ""
"""The formats of a player that plays them all."""
PLAYERS: Final[Sequence[tuple[str, Sequence[str], str]]] = (
    ("mpv", ("--no-video",), ANY),
    ("ffplay", ("-nodisp", "-autoexit", "-loglevel", "warning", "-stats", "-i"), ANY),
    ("cvlc", ("--play-and-exit",), ANY),
    ("mplayer", ("-novideo",), ANY),
    ("afplay", (), ANY),
    ("play", ("-V1",), "mp3 wav ogg flac aif aiff"),
    ("mpg123", ("-v",), "mp3"),
    ("paplay", (), "wav flac ogg"),
    ("aplay", (), "wav"),
)
"""Players of the terminal, the best first: the program, what precedes a file, and the formats."""
STANDARD_ERROR: Final = 2
"""The file descriptor for what a player writes, since standard output is for the results of the command."""
NAMES_OF_FOLDERS: Final = "Name its files, such as {folder}/*.mp3."


def player_of(ending: str) -> Sequence[str] | None:
    """Return the command that plays files of a format on this machine, without the file; None for none."""
    for program, options, formats in PLAYERS:
        if formats == ANY or ending in formats.split():
            found = shutil.which(program)
            if found is not None:
                return (found, *options)
    return None


def _audio(_ctx: click.Context, _param: click.Parameter, value: tuple[Path, ...]) -> tuple[Path, ...]:
    """Refuse what cannot be played before anything is played."""
    for path in value:
        if path.is_dir():
            raise click.BadParameter(f"{str(path)!r} is a folder. {NAMES_OF_FOLDERS.format(folder=path)}")
        if player_of(ending := _ending_of(path)) is None:
            raise click.UsageError(
                f"no player for {ending or 'such'} files was found. Install mpv: "
                f"{_how_to_install()}; or one of {', '.join(name for name, _, _ in PLAYERS[1:])}."
            )
    return value


@click.command("play", cls=Command)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, resolve_path=True, path_type=Path),
    callback=_audio,
    metavar="FILE...",
)
@click.pass_obj
async def play_command(invocation: Invocation, files: tuple[Path, ...]) -> ExitCode:
    """Play files, one after the other. Ctrl-C ends it.

    Uses the first player that is installed and plays the format: mpv, ffplay, cvlc, mplayer, afplay, play (of
    sox), mpg123, paplay or aplay.
    """
    for path in files:
        command = player_of(_ending_of(path))
        assert command is not None, "checked before"
        fields = {"path": path, "player": Path(command[0]).name}
        invocation.reporter.event("playing", fields, [f"{visible(str(path))}  ({fields['player']})"])
        # Not one of asyncio: its watcher and its `terminate` both collect a player that ends by the same
        # Ctrl-C, and the one that comes second complains on the terminal.
        with subprocess.Popen([*command, path], stdout=STANDARD_ERROR) as process:  # noqa: ASYNC220, S603
            try:
                code = await anyio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
            except asyncio.CancelledError:  # Ctrl-C, which a terminal sends to the player, too
                process.terminate()
                raise
        if code:
            text = f"{fields['player']} could not play {visible(str(path))} (exit {code})"
            return invocation.end([MusicAPIError(text)])
    return ExitCode.OK


def _ending_of(path: Path) -> str:
    return path.suffix.lower().lstrip(".")


def _how_to_install() -> str:
    if sys.platform == "darwin":
        return "brew install mpv"
    if sys.platform == "win32":
        return "winget install mpv"
    managers = ("apt install", "dnf install", "pacman -S", "zypper install", "apk add")
    return next(
        (f"{one} mpv" for one in managers if shutil.which(one.split()[0])), "from your system's packages"
    )
