"""What a song leaves on the disk beside its audio: metadata, tags, wave form, and what its steps gave."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from ..api.parts import Stems
from ..api.results import SUCCEEDED, Clip, Clips
from ..client import MusicAPI
from ..errors import RequestValidationError
from ..extras import require
from ..files import replacing, safe_name, write_whole

PEAKS: Final = 160
"""Bars of a wave form in the report; more would be thinner than a pixel on a phone."""
NAME: Final = "{title} {clip_id}"


def linked(clip: Clip, url: str) -> Clip:
    """A clip whose file is another one of the song, such as its WAV or its cover."""
    return Clip(clip_id=clip.clip_id, title=clip.title, state=SUCCEEDED, audio_url=url)


async def fetch_step(client: MusicAPI, clip: Clip, result: Any, folder: Path) -> list[Path]:
    """Fetch or write what a step gave, into `folder`; whatever has no file is written as JSON."""
    stem = safe_name(NAME.format(title=safe_name(clip.title or "", 90), clip_id=clip.clip_id)) or "clip"
    if isinstance(result, Stems):
        return await client.download(result.succeeded, folder / stem, name="{name}")
    if isinstance(result, Clips):
        return await client.download(result.succeeded, folder, name=NAME)
    urls = links(result)
    paths: list[Path] = []
    for kind, url in urls.items():
        paths += await client.download(
            linked(clip, url), folder / kind if len(urls) > 1 else folder, name=NAME
        )
    lrc = getattr(result, "lrc", None)
    if callable(lrc):
        path = folder / f"{stem}.lrc"
        write_whole(path, str(lrc()).encode())
        paths.append(path)
    if not urls:
        path = folder / f"{stem}.json"
        write_whole(path, pretty(getattr(result, "raw", None)))
        paths.append(path)
    return paths


def links(result: Any) -> dict[str, str]:
    """The files that the reply of a direct call links to, by kind."""
    by_format = getattr(result, "by_format", None)
    if isinstance(by_format, dict):
        return cast("dict[str, str]", by_format)
    named = {name: getattr(result, f"{name}_url", None) for name in ("wav", "midi")}
    return {name: url for name, url in named.items() if isinstance(url, str) and url}


def pretty(value: object) -> bytes:
    """JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)


def write_metadata(path: Path, clip: Clip, about: Mapping[str, Any]) -> None:
    """Write what is known of a clip beside its file."""
    write_whole(path.with_suffix(".json"), pretty({**about, "clip": clip.raw}))


def check_tagging() -> None:
    """Refuse to tag files without the library for it."""
    try:
        require("writing ID3 tags", "sandbox", "mutagen")
    except ModuleNotFoundError as error:
        raise RequestValidationError(f"tags: {error}", field="tags") from error


def write_tags(path: Path, clip: Clip) -> None:
    """Write title, style and lyrics into an MP3 file; other formats are left as they are."""
    if path.suffix.lower() != ".mp3":
        return
    id3 = cast("Any", import_module("mutagen.id3"))
    with replacing(path) as file:
        with path.open("rb") as untagged:
            shutil.copyfileobj(untagged, file)
        _tag(id3, file, clip)


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
    """The loudest sample of each of `PEAKS` parts, 0 to 1; empty without the libraries or for other data."""
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
