"""From recipes to files: MP3, M4A, WAV, MIDI and pictures. Needs the `sandbox` extra; for worker threads."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from .recipes import Recipe, heard, score_of
from .synth import STEMS
from .works import Clip

if TYPE_CHECKING:
    from .render import Audio

MISSING: Final = (
    "The sandbox needs numpy, soundfile, mutagen and mido to make media files: "
    "pip install 'musicapi-async[sandbox]'"
)

CONTENT_TYPES: Final = {
    "mp3": "audio/mp3",
    "m4a": "audio/mp4",
    "wav": "audio/wav",
    "mid": "audio/midi",
    "png": "image/png",
}
"""What can be made, and the content type that the service sends with it (audio/mp3: seen)."""

SINGERS: Final = ("vocals", "backing vocals")
FOREIGN: Final = "synth"
"""The one of the twelve stems that holds the sound of an uploaded file; the others are silent there."""


def require() -> None:
    """Raise ImportError with the way out when the extra is not installed."""
    if any(find_spec(name) is None for name in ("numpy", "soundfile", "mutagen", "mido")):
        raise ImportError(MISSING)


def press(clip: Clip, ending: str) -> bytes:
    """The file of `clip` with this ending (a key of `CONTENT_TYPES`). Blocks for up to some seconds."""
    require()
    from . import container, cover, encode

    if ending == "png":
        return cover.cover(clip.recipe.brief)
    if ending == "mid":
        return encode.to_midi(heard(clip.recipe, clip.stem_names if clip.stem else None))
    sound = sound_of((clip.stem_source or clip).recipe, clip.stem_names if clip.stem else None)
    if ending == "wav":
        return encode.to_wav(sound)
    mp3 = encode.to_mp3(
        sound,
        title=clip.title,
        artist="Sandbox",
        tags=clip.tags,
        lyrics=clip.lyrics,
        cover_png=None if clip.stem else cover.cover(clip.recipe.brief),
    )
    return container.to_m4a(mp3, len(sound)) if ending == "m4a" else mp3


def sound_of(recipe: Recipe, stems: tuple[str, ...] | None = None) -> Audio:
    """The sound of a recipe, or of some of its stems; all twelve sum to the whole."""
    from . import encode, render

    if recipe.how == "upload" and recipe.tape is not None and recipe.tape.data:
        sound = encode.read_audio(recipe.tape.data)
        return sound if stems is None or FOREIGN in stems else sound * 0
    if recipe.how == "join" and recipe.uploaded:
        first, second = recipe.sources
        return encode.splice(sound_of(first, stems), recipe.start, sound_of(second, stems))
    if recipe.how == "cut" and recipe.uploaded:
        return encode.cut(sound_of(recipe.sources[0], stems), recipe.start, recipe.end)
    mix = render.render(score_of(recipe))
    return mix.audio if stems is None else mix.group(stems)


def stem_groups(kind: str, count: int) -> list[tuple[str, tuple[str, ...]]]:
    """Names of stems and what is heard in each: `basic` 2 or 4, `full` 12, or 24 with second takes."""
    if kind == "basic" and count == 2:
        return [("vocals", SINGERS), ("instrumental", tuple(s for s in STEMS if s not in SINGERS))]
    if kind == "basic":
        rest = tuple(s for s in STEMS if s not in (*SINGERS, "drums", "percussion", "bass"))
        return [("vocals", SINGERS), ("drums", ("drums", "percussion")), ("bass", ("bass",)), ("other", rest)]
    single: list[tuple[str, tuple[str, ...]]] = [(stem, (stem,)) for stem in STEMS]
    return single + [(f"{stem} 2", ()) for stem in STEMS] if count == 24 else single


def load(data: bytes) -> tuple[float, int]:
    """Duration in seconds and a seed of an uploaded file; ValueError for what is no audio or too long."""
    require()
    from . import encode

    info = encode.import_audio(data)
    return info.duration, info.seed
