"""How each clip's music comes about: a recipe names a brief and the clips that it is made from.

Recipes are small and are stored for every clip; a score is written from its recipe when it is needed, and
only the newest scores are remembered. So a poll costs nothing and a thousand songs cost a thousand recipes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import msgspec

from .composer import (
    CENTRE,
    arrange,
    compose,
    lead_part,
    natural_duration,
    scale_pitch,
    sing,
    voice_of,
    voice_parts,
)  # fmt: skip
from .lyric_writer import read_lyrics, text_of
from .score import (
    MAX_DURATION,
    MIN_DURATION,
    Brief,
    Part,
    Score,
    bounded_duration,
    excerpt,
    join,
    ordered,
    rng,
)  # fmt: skip
from .style import in_metre_of, style_of

How = Literal[
    "compose", "continue", "join", "cover", "mash", "replace", "remaster", "sing", "accompany", "cut",
    "upload",
]  # fmt: skip

REMEMBERED_SCORES: Final = 48
"""Scores remembered at a time, about 0.3 MB each."""

DEEPEST_RECIPE: Final = 30
"""Generations of recipes above which a score is written at once instead of being stored as a recipe."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class UploadedFile:
    """The bytes of an uploaded file; emptied when the sandbox needs the room."""

    data: bytes


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Recipe:
    """How a piece of music is made; `start` and `end` are seconds of the first source.

    `tape` holds an uploaded file, `fixed` a score that was already written.
    """

    how: How
    brief: Brief
    sources: tuple[Recipe, ...] = ()
    start: float = 0.0
    end: float = 0.0
    tape: UploadedFile | None = None
    fixed: Score | None = None
    depth: int = 0
    length: float | None = None

    @property
    def duration(self) -> float:
        """Seconds of music."""
        return self.length if self.length is not None else score_of(self).duration

    @property
    def uploaded(self) -> bool:
        """True if the sound of an uploaded file is part of this clip."""
        return self.how == "upload" or (self.how in ("join", "cut") and any(s.uploaded for s in self.sources))


@lru_cache(maxsize=REMEMBERED_SCORES)
def score_of(recipe: Recipe) -> Score:
    """Return the score that a recipe gives, in a few milliseconds for a whole song."""
    if recipe.fixed is not None:
        return recipe.fixed
    brief, start, end = recipe.brief, recipe.start, recipe.end
    match recipe.how, [score_of(source) for source in recipe.sources]:
        case "continue", [source]:
            return compose(brief, continues=excerpt(source, 0.0, start) if start > 0 else source)
        case "join", [source, part]:
            return excerpt(join(source, start, part), 0.0, MAX_DURATION)
        case "cut", [source]:
            return excerpt(source, start, end)
        case "replace", [source]:
            return _replaced(source, start, end, brief)
        case "cover", [source]:
            return _covered(source, brief)
        case "mash", [source, second]:
            return _mashed(source, second, brief)
        case "remaster", [source]:
            return _remastered(source, brief.seed)
        case "sing", [source]:
            return _sung_over(source, brief, start, end)
        case "accompany", [source]:
            style = in_metre_of(source, style_of(brief, None))
            band = arrange(style, source.bars, brief.seed)
            return msgspec.structs.replace(source, parts=ordered([*source.singers, *band]))
        case _:
            return compose(brief)


def heard(recipe: Recipe, stems: tuple[str, ...] | None = None) -> Score:
    """Return the notes and words that can be heard: none in uploaded sound; of some stems only."""
    if recipe.uploaded and recipe.how == "join":
        score = join(heard(recipe.sources[0]), recipe.start, heard(recipe.sources[1]))
    elif recipe.uploaded and recipe.how == "cut":
        score = excerpt(heard(recipe.sources[0]), recipe.start, recipe.end)
    else:
        score = score_of(recipe)
    if recipe.how == "upload":
        return msgspec.structs.replace(score, parts=(), words=())
    parts = tuple(part for part in score.parts if stems is None or part.stem in stems)
    return msgspec.structs.replace(score, parts=parts)


def composed(brief: Brief, *, longest: float, seconds: float | None = None) -> Recipe:
    """Return a new song of `seconds`; by default as long as its words need, at most `longest` seconds."""
    length = min(natural_duration(brief), longest) if seconds is None else float(seconds)
    brief = msgspec.structs.replace(brief, duration=bounded_duration(length))
    return Recipe("compose", brief, length=brief.duration)


def continued(
    source: Recipe, at: float, brief: Brief, *, longest: float, seconds: float | None = None
) -> Recipe:
    """Return the new part of an extension of `source` from `at` seconds on; its length as in `composed`."""
    at = min(max(at, 0.0), source.duration)
    brief = composed(brief, longest=longest, seconds=seconds).brief
    brief = msgspec.structs.replace(brief, duration=min(brief.duration, max(MAX_DURATION - at, MIN_DURATION)))
    return _derived("continue", brief, source, start=at, length=brief.duration)


def joined(source: Recipe, at: float, part: Recipe) -> Recipe:
    """Return the whole song: `source` up to `at` seconds, then `part`."""
    at = min(max(at, 0.0), source.duration)
    length = min(at + part.duration, MAX_DURATION)
    return _derived("join", source.brief, source, part, start=at, length=length)


def made(how: How, brief: Brief, *sources: Recipe, start: float = 0.0, end: float = 0.0) -> Recipe:
    """Return a rework of other clips; its length follows from theirs."""
    length: float | None = sources[0].duration
    if how == "mash":
        length = bounded_duration(sources[0].duration)
        brief = msgspec.structs.replace(brief, duration=length)
    elif how == "cut":
        end = min(end, sources[0].duration)
        length = max(end - start, 0.0)
    elif how == "cover":
        length = None
    return _derived(how, brief, *sources, start=start, end=end, length=length)


def uploaded(brief: Brief, duration: float, tape: UploadedFile) -> Recipe:
    """Return an imported file; the score that replaces it in reworks follows from its bytes."""
    brief = msgspec.structs.replace(brief, duration=bounded_duration(duration))
    return Recipe("upload", brief, tape=tape, length=duration)


def _derived(
    how: How, brief: Brief, *sources: Recipe, start: float, length: float | None, end: float = 0.0
) -> Recipe:
    depth = 1 + max(source.depth for source in sources)
    recipe = Recipe(how, brief, sources, start, end, depth=depth, length=length)
    if depth <= DEEPEST_RECIPE:
        return recipe
    return dataclasses.replace(recipe, how="compose", sources=(), depth=0, fixed=score_of(recipe))


def _replaced(score: Score, start: float, end: float, brief: Brief) -> Score:
    """Return `score` with new music from `start` to `end` seconds, at least one second; same duration."""
    start = min(max(start, 0.0), max(score.duration - MIN_DURATION, 0.0))
    end = min(max(end, start + MIN_DURATION), score.duration)
    if end - start < MIN_DURATION:
        return score
    new = msgspec.structs.replace(brief, duration=end - start)
    part = excerpt(compose(new, continues=excerpt(score, start, end)), 0.0, end - start)
    song = join(join(score, start, part), end, excerpt(score, end))
    return msgspec.structs.replace(song, duration=score.duration)


def _covered(score: Score, brief: Brief) -> Score:
    """Return the melody, words and chords of `score` in the style, tempo and voice of `brief`.

    The duration follows from the tempo. Lyrics in the brief are sung only if the score has none.
    """
    style = in_metre_of(score, style_of(brief, None))
    stretch = max(score.bpm / style.bpm, MIN_DURATION / max(score.duration, MIN_DURATION / 10))
    moved = excerpt(excerpt(score, stretch=stretch), 0.0, MAX_DURATION)
    seed, gender = voice_of(brief)
    gender = brief.vocal_gender or score.vocal_gender
    lift = CENTRE[gender] - CENTRE[score.vocal_gender]
    parts = [*lead_part(style, brief.seed, moved.lead), *arrange(style, moved.bars, brief.seed)]
    for part in () if brief.instrumental else moved.singers:
        notes = tuple(msgspec.structs.replace(note, pitch=note.pitch + lift) for note in part.notes)
        parts.append(msgspec.structs.replace(part, colour=seed, notes=notes))
    cover = msgspec.structs.replace(
        moved,
        title=brief.title or score.title,
        tags=brief.tags or score.tags,
        seed=brief.seed,
        voice_seed=seed,
        vocal_gender=gender,
        words=() if brief.instrumental else moved.words,
        parts=ordered(parts),
    )
    return cover if cover.words or not brief.lyrics or brief.instrumental else _sung_over(cover, brief)


def _mashed(first: Score, second: Score, brief: Brief) -> Score:
    """Return a new song of the first's key and words, the second's chords and groove, a tempo between.

    Lyrics in the brief win over those of the scores; the voice is the first's unless the brief names one.
    """
    lyrics = brief.lyrics or next((score.lyrics for score in (first, second) if score.words), None)
    brief = msgspec.structs.replace(
        brief,
        tags=", ".join(text for text in (brief.tags, second.tags, first.tags) if text),
        lyrics=lyrics,
        voice_seed=first.voice_seed if brief.voice_seed is None else brief.voice_seed,
        vocal_gender=brief.vocal_gender or first.vocal_gender,
        instrumental=brief.instrumental or lyrics is None,
    )
    style = msgspec.structs.replace(
        style_of(brief, None),
        bpm=float(round((first.bpm + second.bpm) / 2)),
        tonic=first.tonic,
        mode=second.mode,
    )
    roots = {scale_pitch((second.tonic, second.mode), degree) % 12: degree for degree in range(7)}
    progression = tuple(roots.get(bar.chord[0], 0) for bar in second.bars[4:8])
    return compose(brief, style=style, progression=progression if len(progression) == 4 else None)


def _remastered(score: Score, seed: int) -> Score:
    """Return the same music with other timbres of the instruments and slightly other levels."""
    parts: list[Part] = []
    for part in score.parts:
        gain = rng("remaster", seed, part.name).uniform(0.85, 1.1)
        notes = tuple(msgspec.structs.replace(n, velocity=min(n.velocity * gain, 1.0)) for n in part.notes)
        colour = part.colour if part in score.singers else seed
        parts.append(msgspec.structs.replace(part, colour=colour, notes=notes))
    return msgspec.structs.replace(score, seed=seed, parts=tuple(parts))


def _sung_over(score: Score, brief: Brief, start: float = 0.0, end: float = math.inf) -> Score:
    """Return `score` with a new singer, who sings the brief's lyrics from `start` to `end` seconds."""
    bars = [bar for bar in score.bars if bar.start >= start - 1e-6 and bar.end <= end + 1e-6]
    lines = [line for section in read_lyrics(text_of(brief)) for line in section.lines]
    voice, gender = voice_of(brief)
    words, notes = sing(lines, bars, (score.tonic, score.mode), CENTRE[gender], brief.seed)
    return msgspec.structs.replace(
        score,
        title=brief.title or score.title,
        voice_seed=voice,
        vocal_gender=gender,
        words=tuple(words),
        parts=ordered([*voice_parts(voice, notes), *score.band]),
    )
