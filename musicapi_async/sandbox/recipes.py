"""How each clip's music comes about: a recipe names a brief and the clips it is made from.

Recipes are small and are kept for every clip; scores are written from them when somebody asks, and only the
newest are remembered. So a poll costs nothing and a thousand songs cost a thousand recipes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import msgspec

from .score import MAX_DURATION, Brief, Score, bounded_duration, join, window
from .synth import (
    accompany_score,
    compose,
    continue_score,
    cover_score,
    mash,
    natural_duration,
    remaster,
    replace,
    sing_over,
)

How = Literal[
    "compose",
    "continue",
    "join",
    "cover",
    "mash",
    "replace",
    "remaster",
    "sing",
    "accompany",
    "cut",
    "upload",
]

REMEMBERED: Final = 48
"""Scores kept at a time, about 0.3 MB each."""

DEEPEST: Final = 30
"""Generations of recipes above which a score is written at once instead of being kept as a recipe."""


@dataclass(slots=True, eq=False)
class Tape:
    """The bytes of an uploaded file; emptied when the sandbox needs the room."""

    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """What a piece of music is made of. `start` and `end` are seconds of the first source.

    `duration` is the length in seconds. `tape` holds an uploaded file; `fixed` a score that was written once
    and for all.
    """

    how: How
    brief: Brief
    sources: tuple[Recipe, ...] = ()
    start: float = 0.0
    end: float = 0.0
    tape: Tape | None = None
    fixed: Score | None = None
    depth: int = 0
    length: float | None = None

    @property
    def duration(self) -> float:
        """Seconds of music."""
        return self.length if self.length is not None else score_of(self).duration

    @property
    def uploaded(self) -> bool:
        """Whether real uploaded sound is part of this clip."""
        return self.how == "upload" or (self.how in ("join", "cut") and any(s.uploaded for s in self.sources))


@lru_cache(maxsize=REMEMBERED)
def score_of(recipe: Recipe) -> Score:
    """The score that a recipe gives; a pure function, a few milliseconds for a whole song."""
    if recipe.fixed is not None:
        return recipe.fixed
    scores = [score_of(source) for source in recipe.sources]
    match recipe.how:
        case "compose" | "upload":
            return compose(recipe.brief)
        case "continue":
            return continue_score(scores[0], recipe.start, recipe.brief)
        case "join":
            return window(join(scores[0], recipe.start, scores[1]), 0.0, MAX_DURATION)
        case "cover":
            return cover_score(scores[0], recipe.brief)
        case "mash":
            return mash(scores[0], scores[1], recipe.brief)
        case "replace":
            return replace(scores[0], recipe.start, recipe.end, recipe.brief)
        case "remaster":
            return remaster(scores[0], recipe.brief.seed)
        case "cut":
            return window(scores[0], recipe.start, recipe.end)
        case "sing":
            return sing_over(scores[0], recipe.brief, recipe.start, recipe.end)
        case _:
            return accompany_score(scores[0], recipe.brief)


def heard(recipe: Recipe, stems: tuple[str, ...] | None = None) -> Score:
    """The notes and words that are really heard: none where uploaded sound plays; of some stems only."""
    if recipe.uploaded and recipe.how == "join":
        score = join(heard(recipe.sources[0]), recipe.start, heard(recipe.sources[1]))
    elif recipe.uploaded and recipe.how == "cut":
        score = window(heard(recipe.sources[0]), recipe.start, recipe.end)
    else:
        score = score_of(recipe)
    if recipe.how == "upload":
        return msgspec.structs.replace(score, parts=(), words=())
    kept = score.parts if stems is None else tuple(part for part in score.parts if part.stem in stems)
    return msgspec.structs.replace(score, parts=kept)


def composed(brief: Brief, *, longest: float, seconds: float | None = None) -> Recipe:
    """A new song: as long as asked for, else as its words need, then at most `longest` seconds."""
    length = min(natural_duration(brief), longest) if seconds is None else float(seconds)
    brief = msgspec.structs.replace(brief, duration=bounded_duration(length))
    return Recipe("compose", brief, length=brief.duration)


def continued(
    source: Recipe, at: float, brief: Brief, *, longest: float, seconds: float | None = None
) -> Recipe:
    """The new part of an extension."""
    at = min(max(at, 0.0), source.duration)
    length = min(natural_duration(brief), longest) if seconds is None else float(seconds)
    room = max(MAX_DURATION - at, 1.0)
    brief = msgspec.structs.replace(brief, duration=bounded_duration(min(length, room)))
    return _shallow(Recipe("continue", brief, (source,), at, length=brief.duration))


def joined(source: Recipe, at: float, part: Recipe) -> Recipe:
    """The whole song: `source` up to `at`, then `part`."""
    at = min(max(at, 0.0), source.duration)
    length = min(at + part.duration, MAX_DURATION)
    return _shallow(Recipe("join", source.brief, (source, part), at, length=length))


def made(how: How, brief: Brief, *sources: Recipe, start: float = 0.0, end: float = 0.0) -> Recipe:
    """A rework of other clips; its length follows from them."""
    if how == "mash":
        brief = msgspec.structs.replace(brief, duration=bounded_duration(sources[0].duration))
        return _shallow(Recipe(how, brief, sources, start, end, length=brief.duration))
    if how == "cut":
        end = min(end, sources[0].duration)
        return _shallow(Recipe(how, brief, sources, start, end, length=max(end - start, 0.0)))
    same_length = how in ("replace", "remaster", "sing", "accompany")
    return _shallow(
        Recipe(how, brief, sources, start, end, length=sources[0].duration if same_length else None)
    )


def uploaded(brief: Brief, duration: float, tape: Tape) -> Recipe:
    """An imported file; what is composed in its stead when it is worked on follows from its bytes."""
    brief = msgspec.structs.replace(brief, duration=bounded_duration(duration))
    return Recipe("upload", brief, tape=tape, length=duration)


def _shallow(recipe: Recipe) -> Recipe:
    depth = 1 + max(source.depth for source in recipe.sources)
    if depth <= DEEPEST:
        return Recipe(
            recipe.how,
            recipe.brief,
            recipe.sources,
            recipe.start,
            recipe.end,
            length=recipe.length,
            depth=depth,
        )
    return Recipe("compose", recipe.brief, fixed=score_of(recipe), length=recipe.length)
