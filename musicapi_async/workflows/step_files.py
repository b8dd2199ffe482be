"""The files of a clip and of its steps: fetched or written into a folder, with tags, metadata, wave form.

The same code serves a folder of one clip (`everything`) and the folder of a batch; a `Place` says where its
files go and what they are called.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

import anyio.to_thread
import msgspec

from ..api.lyrics import AlignedLyrics
from ..api.replies import Files, Midi, Reply, Wav
from ..api.results import SUCCEEDED, Clip, Clips, Result
from ..api.stems import Stems
from ..api.task import Task
from ..client import MusicAPI
from ..errors import DownloadError, RequestValidationError
from ..extras import require
from ..files import replacing, safe_name, write_whole
from .steps import Step, Workflow

log: Final = logging.getLogger("musicapi_async")

T = TypeVar("T", bound=Result)

PEAKS: Final = 160
"""Bars of a wave form in the report; more would be thinner than a pixel on a phone."""
BY_CLIP: Final = "{title} {clip_id}"
"""The pattern of file names where the files of many clips share a folder."""
TITLE_BYTES: Final = 90
"""Bytes of a title in a file name, so that the clip id after it is whole."""
GONE: Final = 410
"""The status of a link that is stale for certain."""
REFUSED: Final = frozenset({403, 404})
"""Statuses of a link that worked before and has gone stale, or of one whose file is not on the CDN yet."""


@dataclass(frozen=True)
class Place:
    """Where the files of a clip's steps go. `name` is that of files without extension, `pattern` the same for
    downloads, `stems` the folder of stems."""

    folder: Path
    name: str
    pattern: str
    stems: Path

    @classmethod
    def of_clip(cls, folder: Path, clip: Clip) -> Place:
        """Return the place of a clip in a folder that it shares with others."""
        title = safe_name(clip.title or "", TITLE_BYTES)
        name = safe_name(BY_CLIP.format(title=title, clip_id=clip.clip_id)) or "clip"
        return cls(folder, name, BY_CLIP, folder / name)


# --- steps that give files ---------------------------------------------------------------------------------


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
                links[step.name] = next(iter(links_of(reply).values()), "")
        finally:
            await workflow.save()
    try:
        files = await fetch(workflow.client, clip, reply, place)
    except DownloadError as error:
        worked = step.name in workflow.checkpoint.files
        if step.name in links and (error.status == GONE or (error.status in REFUSED and worked)):
            workflow.checkpoint.resubmit(step.name)
            await workflow.save()
        raise
    return reply, await _saved(workflow, step, files, place)


def _linking(step: Step[Reply], link: str) -> Reply:
    """Return the reply of a WAV or MIDI step with this link."""
    return Wav(wav_url=link) if step.operation.reply is Wav else Midi(midi_url=link or None)


async def _saved(
    workflow: Workflow, step: Step[Any], files: dict[str, Path], place: Place
) -> dict[str, Path]:
    if files:
        workflow.checkpoint.files[step.name] = {
            name: path.relative_to(place.folder).as_posix() for name, path in files.items()
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
            paths = await client.download(list(good.values()), place.stems, name="{name}")
            return dict(zip(good, paths, strict=True))
        case Clips():
            paths = await client.download(result.succeeded, place.folder, name=BY_CLIP)
            return {clip.clip_id: path for clip, path in zip(result.succeeded, paths, strict=True)}
        case AlignedLyrics():
            subtitles = {"lrc": result.lrc(), "srt": result.srt()} if result.words else {}
            written = {kind: place.folder / f"{place.name}.{kind}" for kind in subtitles}
            for kind, path in written.items():
                await anyio.to_thread.run_sync(write_whole, path, subtitles[kind].encode())
            return written
        case Wav() | Midi() | Files() if links := links_of(result):
            fetched: dict[str, Path] = {}
            for kind, link in links.items():
                folder = place.folder / kind if len(links) > 1 else place.folder
                (fetched[kind],) = await client.download(linked(clip, link), folder, name=place.pattern)
            return fetched
        case _ if not result.raw:
            return {}
        case _:
            path = place.folder / f"{place.name}.json"
            await anyio.to_thread.run_sync(write_whole, path, pretty(result.raw))
            return {"json": path}


def linked(clip: Clip, link: str) -> Clip:
    """Return a clip whose file is another one of the song, such as its WAV or its cover."""
    return Clip(clip_id=clip.clip_id, title=clip.title, state=SUCCEEDED, audio_url=link)


def links_of(reply: Wav | Midi | Files) -> dict[str, str]:
    """Return the links of a reply by kind, such as 'wav'."""
    match reply:
        case Files():
            return reply.by_format
        case Wav():
            return {"wav": reply.wav_url} if reply.wav_url else {}
        case Midi():
            return {"midi": reply.midi_url} if reply.midi_url else {}


# --- beside the audio of a song ----------------------------------------------------------------------------


def pretty(value: object) -> bytes:
    """Return JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)


def write_metadata(path: Path, clip: Clip, about: Mapping[str, Any]) -> None:
    """Write the reply on a clip beside its file, with `about` the request; for the owner only."""
    write_whole(path.with_suffix(".json"), pretty({**about, "clip": clip.raw}), private=True)


def check_tagging() -> None:
    """Refuse to tag files without the library for it."""
    try:
        require("writing ID3 tags", "sandbox", "mutagen")
    except ModuleNotFoundError as error:
        raise RequestValidationError(f"tags: {error}", field="tags") from error


def write_tags(path: Path, clip: Clip) -> None:
    """Write title, style and lyrics into an MP3 file; other formats are left as they are.

    So is a file that the library cannot read, with a warning: the song is worth more than its tags.
    """
    if path.suffix.lower() != ".mp3":
        return
    mutagen, id3 = cast("Any", import_module("mutagen")), cast("Any", import_module("mutagen.id3"))
    try:
        with replacing(path) as file:
            with path.open("rb") as untagged:
                shutil.copyfileobj(untagged, file)
            _tag(id3, file, clip)
    except mutagen.MutagenError as error:
        log.warning("no tags in %s: %s", path, error)


def _tag(id3: Any, file: BinaryIO, clip: Clip) -> None:
    file.seek(0)
    try:
        tags = id3.ID3(file)
    except id3.ID3NoHeaderError:
        tags = id3.ID3()
    tags.setall("TIT2", [id3.TIT2(encoding=3, text=clip.title or clip.clip_id)])
    if clip.tags:
        tags.setall("TCON", [id3.TCON(encoding=3, text=clip.tags)])
    if clip.lyrics:
        tags.setall("USLT", [id3.USLT(encoding=3, lang="und", desc="", text=clip.lyrics)])
    file.seek(0)
    tags.save(file)


def wave_form(path: Path) -> list[float]:
    """Return the loudest sample of each of `PEAKS` parts, 0 to 1; empty without the libraries, and for data
    that is no audio."""
    if find_spec("soundfile") is None or find_spec("numpy") is None:
        return []
    soundfile = cast("Any", import_module("soundfile"))
    numpy = cast("Any", import_module("numpy"))
    try:
        with soundfile.SoundFile(path) as file:
            size = max(1, file.frames // PEAKS)
            blocks = file.blocks(blocksize=size, dtype="float32", always_2d=True)
            peaks = [float(numpy.abs(block).max(initial=0.0)) for block in blocks][:PEAKS]
    except (RuntimeError, OSError, ValueError):
        return []
    top = max(peaks, default=0.0) or 1.0
    return [round(min(peak / top, 1.0), 3) for peak in peaks]
