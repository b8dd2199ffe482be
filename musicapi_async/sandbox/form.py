"""The form of a song: which sections follow each other for how many bars, and on which chords."""

from __future__ import annotations

import itertools
import math
from typing import Final

import msgspec

from musicapi_async.sandbox.chance import dice
from musicapi_async.sandbox.score import Bar, Section
from musicapi_async.sandbox.singing import Verse, scale_pitch, section_kind
from musicapi_async.sandbox.style import Style

__all__ = ["Stretch", "bars_of", "plan", "sections_of"]

_PROGRESSIONS: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (3, 0, 4, 5), (0, 3, 4, 3), (0, 2, 3, 4), (5, 3, 0, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 2, 6, 3), (0, 3, 0, 6), (5, 6, 0, 0)),
    "jazz": ((1, 4, 0, 5), (0, 5, 1, 4), (2, 5, 1, 4), (0, 3, 1, 4)),
}
"""Chords by scale degree (0 is the tonic), four bars at a time."""


class Stretch(msgspec.Struct, frozen=True):
    """A planned section: its name, kind, number of bars, lines to sing and bars per line."""

    name: str
    kind: str
    bars: int
    lines: list[list[str]] = []
    per_line: float = 2.0


_TEMPLATE: Final = tuple(
    Stretch(name, section_kind(name), 8)
    for name in ("Verse", "Chorus", "Verse 2", "Chorus", "Bridge", "Solo", "Chorus")
)
"""The form of a piece without words, 56 bars; repeated while there is time."""


def plan(verses: list[Verse], count: int, opening: bool) -> list[Stretch]:
    """Share `count` bars out: intro, the lyrics' sections with breaks between them as time allows, outro."""
    intro = 0 if count < 6 or not opening else 2 if count < 24 else 4
    outro = 0 if count < 8 else 1 if count < 24 else 2
    free = count - intro - outro
    if any(verse.lines for verse in verses):
        body = _sung(verses, free)
    else:
        body = [
            msgspec.structs.replace(stretch, bars=min(stretch.bars, free - before))
            for stretch, before in zip(_TEMPLATE * (free // 56 + 1), itertools.count(0, 8), strict=False)
            if before < free
        ]
    return [
        stretch
        for stretch in (Stretch("Intro", "intro", intro), *body, Stretch("Outro", "outro", outro))
        if stretch.bars
    ]


def _sung(verses: list[Verse], free: int) -> list[Stretch]:
    """The sections with words, as slowly as `free` bars allow; what does not fit is left out."""
    paces = (n for n in (2.0, 1.0, 0.5) if sum(math.ceil(len(verse.lines) * n) for verse in verses) <= free)
    per_line = next(paces, 0.5)
    body: list[Stretch] = []
    left = free
    for verse in verses:
        size = min(math.ceil(len(verse.lines) * per_line), left)
        if size:
            lines = verse.lines[: max(1, int(size / per_line))]
            body.append(Stretch(verse.name, verse.kind, size, lines, per_line))
            left -= size
    return _with_breaks(body, left)


def _with_breaks(body: list[Stretch], spare: int) -> list[Stretch]:
    """Put `spare` bars of music without words after the sections, evenly, in fours as far as possible."""
    gaps = [0] * len(body)
    order = sorted(range(len(body)), key=lambda i: (body[i].kind != "chorus", i))
    for turn, before in enumerate(range(0, spare, 4)):
        gaps[order[turn % len(order)]] += min(4, spare - before)
    pairs = ((stretch, Stretch("Break", "solo", gap)) for stretch, gap in zip(body, gaps, strict=True))
    return [stretch for pair in pairs for stretch in pair if stretch.bars]


def bars_of(
    stretches: list[Stretch], style: Style, duration: float, seed: int, progression: tuple[int, ...] | None
) -> list[Bar]:
    """The bars of the plan with their chords, the last one cut or held to end at `duration` seconds.

    `progression`, scale degrees of four bars, replaces the drawn ones of verse and chorus.
    """
    draw = dice("harmony", seed, style.mode)
    choices = _PROGRESSIONS["jazz" if style.sevenths and style.swing > 0.5 else style.mode]
    by_kind = {kind: draw.choice(choices) for kind in ("verse", "chorus", "bridge")}
    if progression is not None:
        by_kind["verse"] = by_kind["chorus"] = progression
    seconds = style.beats * 60 / style.bpm
    kinds = [(stretch.kind, index) for stretch in stretches for index in range(stretch.bars)]
    bars: list[Bar] = []
    for number, (kind, index) in enumerate(kinds):
        source = by_kind[
            "chorus" if kind in {"chorus", "solo"} else "bridge" if kind == "bridge" else "verse"
        ]
        last = number == len(kinds) - 1
        degree = 0 if last else source[index % len(source)]
        steps = (0, 2, 4, 6) if style.sevenths else (0, 2, 4)
        chord = tuple(scale_pitch(style.tonic, style.mode, degree + step, 0) % 12 for step in steps)
        start = number * seconds
        end = duration if last else start + seconds
        beats = (end - start) / seconds * style.beats if last else float(style.beats)
        bars.append(Bar(start, end, beats, chord, kind))
    return bars


def sections_of(stretches: list[Stretch], bars: list[Bar]) -> list[Section]:
    """The times of the planned sections."""
    found: list[Section] = []
    at = 0
    for stretch in stretches:
        found.append(Section(stretch.name, bars[at].start, bars[at + stretch.bars - 1].end))
        at += stretch.bars
    return found
