"""The files of a clip and of its steps: fetched or written into a folder; wave forms.

The same code serves a folder of one clip (`everything`) and the folder of a batch; a `Place` says where its
files go and what they are called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio.to_thread

from .._error_base import results_of
from .._transport.audio_tags import FileTags
from .._transport.links import extension_of
from .._transport.partial_file import whole_file
from ..api.direct_replies import Files, Midi, Reply, Wav
from ..api.lyrics import AlignedLyrics
from ..api.results import SUCCEEDED, Clip, Clips, Result
from ..api.stems import Stems
from ..api.task import Task
from ..client import MusicAPI
from ..errors import DownloadError
from ..file_names import literal
from ..files import write_whole
from .song_places import Place, pretty
from .step_engine import Step, Workflow

T = TypeVar("T", bound=Result)

PEAKS: Final = 160
"""Bars of a wave form in the report; more would be thinner than a pixel on a phone."""
SAMPLED: Final = 6
"""Places of a stem of which a second is read, to hear that it is not silent."""
AUDIBLE: Final = 0.001
"""The least sample that counts as sound, -60 dB: below is the noise of encoders."""
LINK_GONE: Final = 410
"""The status of a link that is stale for certain."""
LINK_REFUSED: Final = frozenset({403, 404})
"""Statuses of a link that worked before and has gone stale, or of one whose file is not on the CDN yet."""


async def task_files(
    workflow: Workflow, step: Step[Task[T]], clip: Clip, place: Place, timeout: float | None = None
) -> dict[str, Path]:
    """Run a step that makes a task, and fetch the files of its result.

    Args:
        workflow: Runs the step.
        step: A step on the clip.
        clip: The clip, for the names of the files.
        place: Where the files go.
        timeout: Seconds that the wait for the task may take (default: that of the family).

    Returns:
        The files by name: of stems their names, of clips their ids.
    """
    result = await workflow.result(step, timeout)
    return await _saved(workflow, step, await fetch(workflow.client, clip, result, place), place)


async def reply_files(
    workflow: Workflow, step: Step[Reply], clip: Clip, place: Place
) -> tuple[Reply, dict[str, Path]]:
    """Make a direct call unless its link is in the checkpoint; return the reply and its files by kind.

    A link is paid for once. One that is stale is forgotten, so that the next run pays for another; one that
    has never worked may only be early, and is tried again.
    """
    links = workflow.checkpoint.links
    if step.name in links:
        reply = _linking(step, links[step.name])
    else:
        try:
            reply = await workflow.reply(step)
            if isinstance(reply, Wav | Midi):
                links[step.name] = next(iter(links_by_kind(reply).values()), "")
        finally:
            await workflow.save()
    try:
        files = await fetch(workflow.client, clip, reply, place)
    except DownloadError as error:
        worked = step.name in workflow.checkpoint.files
        if step.name in links and (error.status == LINK_GONE or (error.status in LINK_REFUSED and worked)):
            workflow.checkpoint.resubmit(step.name)
            await workflow.save()
        raise
    return reply, await _saved(workflow, step, files, place)


def _linking(step: Step[Reply], link: str) -> Reply:
    """Return the reply of a WAV or MIDI step with this link."""
    return Wav(wav_url=link) if step.operation.reply is Wav else Midi(midi_url=link or None)


async def _saved(
    workflow: Workflow, step: Step[object], files: dict[str, Path], place: Place
) -> dict[str, Path]:
    if files:
        workflow.checkpoint.files[step.name] = {
            name: path.relative_to(place.root).as_posix() for name, path in files.items()
        }
        await workflow.save()
    return files


async def fetch(client: MusicAPI, clip: Clip, result: Result | Reply, place: Place) -> dict[str, Path]:
    """Fetch or write the files of a step's result; a reply without a file is written as JSON.

    Args:
        client: Downloads.
        clip: The clip of the step, for the names of the files.
        result: What the step gave. Timed lyrics without a word give nothing.
        place: Where the files go.

    Returns:
        The files by name or kind.
    """
    match result:
        case Stems():
            by_name = result.by_name
            for name, stem in by_name.items():
                stem.name = name
            good = {name: stem for name, stem in by_name.items() if stem.is_succeeded}
            paths = await client.download(
                list(good.values()), place.stems, name="{name}", tags=place.tags or False
            )
            return dict(zip(good, paths, strict=True))
        case Clips():
            takes = [(one, place.clip_name(one, take)) for take, one in enumerate(result, 1)]
            made = [(one, name) for one, name in takes if one.is_succeeded]
            work = (own_file(client, place.folder, one, name, place.tags) for one, name in made)
            paths = results_of(await asyncio.gather(*work, return_exceptions=True))
            return {one.clip_id: path for (one, _), path in zip(made, paths, strict=True)}
        case AlignedLyrics():
            subtitles = {"lrc": result.lrc(), "srt": result.srt()} if result.words else {}
            written = {kind: _with_ending(place.subtitles, kind) for kind in subtitles}
            for kind, path in written.items():
                await anyio.to_thread.run_sync(write_whole, path, subtitles[kind].encode())
            return written
        case Wav() | Midi() | Files() if links := links_by_kind(result):
            fetched: dict[str, Path] = {}
            for kind, link in links.items():
                folder = place.folder / kind if len(links) > 1 else place.folder
                fetched[kind] = await own_file(client, folder, linked(clip, link), place.name, place.tags)
            return fetched
        case _ if not result.raw:
            return {}
        case _:
            path = _with_ending(place.reply, "json")
            await anyio.to_thread.run_sync(write_whole, path, pretty(result.raw))
            return {"json": path}


async def own_file(
    client: MusicAPI, folder: Path, clip: Clip, name: str, tags: FileTags | None = None
) -> Path:
    """Fetch the file of a clip under a name that is its own: a file that is there is the one."""
    ending = extension_of(clip.final_url or "")
    there = await anyio.to_thread.run_sync(whole_file, folder / name, ending)
    if there is not None:
        return there
    (path,) = await client.download(clip, folder, name=literal(name), tags=tags or False)
    return path


def _with_ending(path: Path, ending: str) -> Path:
    """Return a path with an extension; its name may have dots."""
    return path.with_name(f"{path.name}.{ending}")


def linked(clip: Clip, link: str) -> Clip:
    """Return a clip whose file is another one of the song, such as its WAV or its cover."""
    return Clip(
        clip_id=clip.clip_id,
        title=clip.title,
        state=SUCCEEDED,
        audio_url=link,
        tags=clip.tags,
        lyrics=clip.lyrics,
    )


def links_by_kind(reply: Wav | Midi | Files) -> dict[str, str]:
    """Return the links of a reply by kind, such as 'wav'."""
    match reply:
        case Files():
            return reply.by_format
        case Wav():
            return {"wav": reply.wav_url} if reply.wav_url else {}
        case Midi():
            return {"midi": reply.midi_url} if reply.midi_url else {}


def silent(paths: Iterable[Path]) -> list[Path]:
    """Return those of these audio files in which nothing can be heard; none without the libraries for it.

    Most stems that sound do so in one of a few seconds; only the others are read to their end.
    """
    return [path for path in paths if _is_silent(path)]


def _is_silent(path: Path) -> bool:
    try:
        soundfile, numpy = _audio_libraries()
        with soundfile.SoundFile(path) as file:
            for part in range(1, SAMPLED + 1):
                file.seek(file.frames * part // (SAMPLED + 1))
                if numpy.abs(file.read(file.samplerate, dtype="float32")).max(initial=0.0) > AUDIBLE:
                    return False
            file.seek(0)
            blocks = file.blocks(blocksize=file.samplerate, dtype="float32")
            return all(numpy.abs(block).max(initial=0.0) <= AUDIBLE for block in blocks)
    except (ImportError, RuntimeError, OSError, ValueError):
        return False


def _audio_libraries() -> tuple[Any, Any]:
    return import_module("soundfile"), import_module("numpy")


def wave_form(path: Path) -> list[float]:
    """Return the loudest sample of each of `PEAKS` parts, 0 to 1; empty without the libraries, and for data
    that is no audio."""
    try:
        soundfile, numpy = _audio_libraries()
        with soundfile.SoundFile(path) as file:
            size = max(1, file.frames // PEAKS)
            blocks = file.blocks(blocksize=size, dtype="float32", always_2d=True)
            peaks = [float(numpy.abs(block).max(initial=0.0)) for block in blocks][:PEAKS]
    except (ImportError, RuntimeError, OSError, ValueError):
        return []
    top = max(peaks, default=0.0) or 1.0
    return [round(min(peak / top, 1.0), 3) for peak in peaks]
