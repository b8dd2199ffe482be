"""The band: for every bar its drums, bass, chords and colours, as the groove and the section ask."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Final

from musicapi_async.sandbox.chance import dice
from musicapi_async.sandbox.score import Bar, Note, Part
from musicapi_async.sandbox.style import INSTRUMENTS, Instrument, Style

__all__ = ["accompany", "lead_instrument"]

_KICK, _SNARE, _CLAP, _HAT, _OPEN_HAT, _CRASH, _TAMBOURINE, _SHAKER, _TOM = 36, 38, 39, 42, 46, 49, 54, 70, 45

_Hit = tuple[float, int, float]

_GROOVES: Final[dict[str, tuple[_Hit, ...]]] = {
    "rock": (
        (0, _KICK, 1.0), (1, _SNARE, 0.9), (2, _KICK, 0.9), (2.5, _KICK, 0.7), (3, _SNARE, 0.95),
        *((i / 2, _HAT, 0.55 if i % 2 else 0.75) for i in range(8)),
    ),
    "four": (
        *((i, _KICK, 1.0) for i in range(4)), (1, _CLAP, 0.8), (3, _CLAP, 0.8),
        *((i + 0.5, _OPEN_HAT, 0.6) for i in range(4)), *((i / 4, _HAT, 0.35) for i in range(16)),
    ),
    "hiphop": (
        (0, _KICK, 1.0), (1, _SNARE, 0.9), (1.75, _KICK, 0.6), (2.5, _KICK, 0.9), (3, _SNARE, 0.9),
        *((i / 2, _HAT, 0.4 if i % 2 else 0.6) for i in range(8)),
    ),
    "funk": (
        (0, _KICK, 1.0), (0.75, _KICK, 0.6), (1, _SNARE, 0.9), (1.75, _SNARE, 0.3), (2.5, _KICK, 0.85),
        (3, _SNARE, 0.95), *((i / 4, _HAT, 0.6 if i % 4 == 0 else 0.35) for i in range(16)),
    ),
    "swing": (
        *((i, _HAT, 0.6) for i in range(4)), (1.5, _HAT, 0.45), (3.5, _HAT, 0.45), (0, _KICK, 0.6),
        (1, _SNARE, 0.35), (2, _KICK, 0.5), (3, _SNARE, 0.4),
    ),
    "ballad": (
        (0, _KICK, 0.8), (2, _SNARE, 0.7), (2.5, _KICK, 0.4), *((i / 2, _HAT, 0.4) for i in range(8)),
    ),
    "reggae": (
        (2, _KICK, 1.0), (2, _SNARE, 0.7), *((i / 2, _HAT, 0.6 if i % 2 else 0.35) for i in range(8)),
    ),
    "latin": (
        (0, _KICK, 0.9), (1.5, _KICK, 0.7), (2, _KICK, 0.9), (3.5, _KICK, 0.7), (0.75, _SNARE, 0.4),
        (1.5, _SNARE, 0.5), (3, _SNARE, 0.5), *((i / 2, _HAT, 0.45) for i in range(8)),
    ),
    "waltz": ((0, _KICK, 0.8), (1, _SNARE, 0.4), (2, _SNARE, 0.4), *((i, _HAT, 0.4) for i in range(3))),
    "march": ((0, _KICK, 0.9), (1, _TOM, 0.5), (2, _KICK, 0.8), (3, _TOM, 0.6), (3.5, _TOM, 0.5)),
    "none": (),
}  # fmt: skip
"""One bar of drums each: (beat, General MIDI drum, velocity)."""

_BASS_LINES: Final[dict[str, tuple[tuple[float, float, int], ...]]] = {
    # (beat, length in beats, interval above the root: 0, 7 for the fifth, 12 for the octave)
    "rock": tuple((i / 2, 0.45, 0) for i in range(8)),
    "four": tuple((i + 0.5, 0.4, 0 if i % 2 == 0 else 12) for i in range(4)),
    "hiphop": ((0, 1.4, 0), (1.75, 0.7, 0), (2.5, 1.2, 7)),
    "funk": ((0, 0.5, 0), (0.75, 0.2, 12), (1.5, 0.4, 0), (2.5, 0.4, 7), (3.25, 0.2, 12), (3.5, 0.4, 0)),
    "swing": ((0, 0.9, 0), (1, 0.9, 4), (2, 0.9, 7), (3, 0.9, 9)),
    "ballad": ((0, 1.9, 0), (2, 1.4, 0), (3.5, 0.4, 7)),
    "reggae": ((0, 0.7, 0), (1, 0.4, 7), (1.5, 0.4, 12), (2.5, 0.9, 0)),
    "latin": ((0, 1.4, 0), (1.5, 0.5, 7), (2, 1.4, 0), (3.5, 0.5, 7)),
    "waltz": ((0, 0.95, 0),),
    "march": ((0, 1.9, 0), (2, 1.9, 7)),
    "none": ((0, 4.0, 0),),
}

_COMPING: Final[dict[str, tuple[tuple[float, float], ...]]] = {
    "rock": ((0, 1.4), (1.5, 0.9), (2.5, 1.4)),
    "four": ((0, 0.4), (0.75, 0.4), (1.5, 0.4), (2.5, 0.4), (3, 0.9)),
    "hiphop": ((0, 1.9), (2.5, 1.4)),
    "funk": ((0.5, 0.3), (1.5, 0.3), (2.25, 0.3), (3.5, 0.3)),
    "swing": ((0, 0.6), (1.5, 0.4), (2.5, 0.8)),
    "ballad": ((0, 0.95), (1, 0.95), (2, 0.95), (3, 0.95)),
    "reggae": ((0.5, 0.25), (1.5, 0.25), (2.5, 0.25), (3.5, 0.25)),
    "latin": ((0, 0.4), (0.5, 0.4), (1.5, 0.9), (2.5, 0.4), (3.5, 0.5)),
    "waltz": ((1, 0.6), (2, 0.6)),
    "march": ((0, 1.9), (2, 1.9)),
    "none": ((0, 3.9),),
}
"""Where the chords of keyboard and guitar fall in a bar: (beat, length in beats)."""

_ENERGY: Final = {
    "intro": 0.45, "verse": 0.62, "pre-chorus": 0.75, "chorus": 1.0, "bridge": 0.6, "solo": 0.85,
    "outro": 0.5,
}  # fmt: skip
"""How much of the band plays, by section; an instrument joins above its own threshold below."""

_JOINS_AT: Final = {
    "drums": 0.5, "percussion": 0.7, "bass": 0.46, "guitar": 0.4, "keyboard": 0.0, "strings": 0.6,
    "synth": 0.3, "brass": 0.8, "woodwinds": 0.8, "fx": 0.0,
}  # fmt: skip

_Figure = list[tuple[float, float, int, float]]
"""What is played in a bar: (beat, length in beats, pitch, velocity)."""

_Player = Callable[[Bar, float, Style, random.Random, int], _Figure]


def voicing(chord: tuple[int, ...], low: int) -> list[int]:
    """The pitches of a chord, each at its lowest place from `low` upwards."""
    return sorted(low + (pitch - low) % 12 for pitch in chord)


def _drums(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    hits = [(beat, 0.1, pitch, velocity) for beat, pitch, velocity in _GROOVES[style.groove]]
    if energy < 0.6:
        hits = [hit for hit in hits if hit[2] != _SNARE or hit[0] >= 2]
    if index == 0 and energy > 0.8:
        hits.append((0.0, 0.1, _CRASH, 0.8))
    if index % 8 == 7 and style.groove not in {"none", "waltz"}:
        hits = [hit for hit in hits if hit[0] < bar.beats - 1]
        hits += [(bar.beats - 1 + i / 4, 0.1, draw.choice((_TOM, _SNARE)), 0.5 + 0.1 * i) for i in range(4)]
    return hits


def _percussion(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    if style.groove in {"march", "waltz", "none"}:
        return [(0.0, 0.1, _TOM, 0.7), (bar.beats - 1, 0.1, _TAMBOURINE, 0.4)]
    eighths = int(bar.beats * 2)
    hits = [(i / 2, 0.1, _SHAKER, 0.45 if i % 2 else 0.3) for i in range(eighths)]
    return hits + [(beat, 0.1, _TAMBOURINE, 0.5) for beat in (1.0, 3.0)]


def _bass(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    root = 28 + (bar.chord[0] - 28) % 12
    third = (bar.chord[1] - bar.chord[0]) % 12
    lines = _BASS_LINES[style.groove]
    if energy < 0.6:
        lines = lines[:1] if style.groove != "rock" else ((0.0, 3.8, 0),)
    return [(beat, length, root + (third if up == 4 else up), 0.8) for beat, length, up in lines]


def _chords(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    pitches = voicing(bar.chord, 53)
    comping = _COMPING[style.groove] if energy > 0.5 else ((0.0, bar.beats * 0.95),)
    return [(beat, length, pitch, 0.5 + 0.2 * energy) for beat, length in comping for pitch in pitches]


def _guitar(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    pitches = voicing(bar.chord, 47)
    if "Distortion Guitar" in style.instruments:
        power = [40 + (bar.chord[0] - 40) % 12 + up for up in (0, 7, 12)]
        return [(i / 2, 0.45, pitch, 0.9 if i % 2 == 0 else 0.7) for i in range(8) for pitch in power]
    if style.groove in {"reggae", "funk"}:
        return [(b, n, p + 12, 0.6) for b, n in _COMPING[style.groove] for p in pitches]
    if energy < 0.7 or style.groove in {"ballad", "hiphop"}:
        broken = [*pitches, pitches[-1] + 0, *reversed(pitches[:-1])]
        return [
            (i / 2, 1.4, broken[i % len(broken)] + 12 * (i % 4 == 2), 0.55) for i in range(int(bar.beats * 2))
        ]
    strums = ((0, 0.9), (1, 0.4), (1.5, 0.9), (2.5, 0.4), (3, 0.4), (3.5, 0.4))
    return [(b + 0.015 * j, n, p, 0.65) for b, n in strums for j, p in enumerate(pitches)]


def _strings(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    low = 60 if energy < 0.9 else 64
    return [(0.0, bar.beats, pitch, 0.4 + 0.2 * energy) for pitch in voicing(bar.chord, low)]


def _synth(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    if "Synth Pluck" not in style.instruments:
        return [(0.0, bar.beats, pitch, 0.5) for pitch in voicing(bar.chord, 55)]
    tones = voicing(bar.chord, 64)
    steps = int(bar.beats * (4 if energy > 0.75 and style.energy > 0.6 else 2))
    return [
        (bar.beats * i / steps, 0.3, tones[i % len(tones)] + 12 * (i % 5 == 3), 0.5) for i in range(steps)
    ]


def _pad(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    return [(0.0, bar.beats, pitch, 0.45) for pitch in voicing(bar.chord, 55)]


def _brass(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    tones = voicing(bar.chord, 55)
    if style.groove in {"march", "none"}:
        return [(0.0, bar.beats * 0.9, pitch, 0.7) for pitch in tones]
    stabs = ((0.0, 0.3), (1.5, 0.3)) if index % 2 == 0 else ((2.5, 0.3), (3.0, 0.8))
    return [(beat, length, pitch, 0.75) for beat, length in stabs for pitch in tones]


def _woodwinds(bar: Bar, energy: float, style: Style, draw: random.Random, index: int) -> _Figure:
    if index % 2 == 0:
        return []
    tones = voicing(bar.chord, 72)
    figure = draw.choice((((0, 1.5), (1.5, 0.5), (2, 2)), ((0.5, 0.5), (1, 0.5), (1.5, 2.2)), ((0, 3.5),)))
    return [(beat, length * 0.95, draw.choice(tones), 0.55) for beat, length in figure]


_PLAYERS: Final[dict[str, _Player]] = {
    "drums": _drums,
    "percussion": _percussion,
    "bass": _bass,
    "guitar": _guitar,
    "keyboard": _chords,
    "strings": _strings,
    "synth": _synth,
    "brass": _brass,
    "woodwinds": _woodwinds,
}


def accompany(style: Style, bars: Sequence[Bar], seed: int, colour: int) -> list[Part]:
    """The parts of every instrument of `style` over `bars`; equal arguments give equal parts."""
    parts: list[Part] = []
    for name in style.instruments:
        instrument = INSTRUMENTS[name]
        draw = dice("arrangement", seed, name)
        notes = _riser(bars) if instrument.stem == "fx" else _play(instrument.name, style, bars, draw)
        if notes:
            parts.append(
                Part(name, instrument.stem, instrument.program, instrument.sound, colour, tuple(notes))
            )
    return parts


def lead_instrument(style: Style) -> Instrument | None:
    """The instrument of `style` that carries a tune best; None if it has only rhythm."""
    playing = [INSTRUMENTS[name] for name in style.instruments]
    for stem in ("woodwinds", "synth", "guitar", "keyboard", "strings", "brass"):
        if (
            found := next((instrument for instrument in playing if instrument.stem == stem), None)
        ) is not None:
            return found
    return None


def _play(name: str, style: Style, bars: Sequence[Bar], draw: random.Random) -> list[Note]:
    stem = INSTRUMENTS[name].stem
    player = _pad if name == "Synth Pad" else _PLAYERS[stem]
    threshold = _JOINS_AT[stem]
    if stem in {"strings", "brass", "woodwinds", "percussion"} and len(style.instruments) <= 4:
        threshold = 0.0
    notes: list[Note] = []
    index, section = 0, ""
    for bar in bars:
        index = 0 if bar.section != section else index + 1
        section = bar.section
        energy = _ENERGY[section]
        if energy < threshold:
            continue
        beat = (bar.end - bar.start) / bar.beats
        last = bar is bars[-1]
        loud = 0.6 + 0.25 * style.energy + 0.15 * energy
        figure = player(bar, energy, style, draw, index)
        if last:
            figure = _final(stem, bar, figure)
        for position, length, pitch, velocity in figure:
            if position >= bar.beats - 1e-6:
                continue
            late = style.swing * 0.33 * beat if position % 1 == 0.5 else 0.0
            start = bar.start + position * beat + late
            end = min(start + length * beat, bar.end)
            if end - start > 0.03:
                human = 1 + 0.06 * (draw.random() - 0.5)
                level = min(max(velocity * loud * human, 0.05), 1.0)
                notes.append(Note(pitch, round(start, 4), round(end, 4), round(level, 3)))
    return _without_overlaps(notes)


def _without_overlaps(notes: list[Note]) -> list[Note]:
    """Notes in order, each ended before its own pitch begins again: an instrument has each once."""
    following: dict[int, float] = {}
    kept: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.start, note.pitch), reverse=True):
        end = min(note.end, following.get(note.pitch, note.end))
        if end - note.start > 0.01:
            following[note.pitch] = note.start
            kept.append(Note(note.pitch, note.start, end, note.velocity))
    return kept[::-1]


def _final(stem: str, bar: Bar, figure: _Figure) -> _Figure:
    """The last bar: drums end on one stroke, everybody else holds the chord."""
    if stem in {"drums", "percussion"}:
        return [(0.0, 0.1, _KICK, 0.9), (0.0, 0.1, _CRASH, 0.7)] if stem == "drums" else figure[:1]
    pitches = sorted({pitch for _, _, pitch, _ in figure})[:4] if stem != "bass" else [figure[0][2]]
    return [(0.0, bar.beats, pitch, 0.6) for pitch in pitches]


def _riser(bars: Sequence[Bar]) -> list[Note]:
    """A sweep through the bar before every chorus."""
    return [
        Note(72, round(before.start, 4), round(before.end, 4), 0.5)
        for before, after in itertools.pairwise(bars)
        if after.section == "chorus" and before.section != "chorus"
    ]
