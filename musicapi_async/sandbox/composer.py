"""How a brief becomes a score: one form, one writer of melodies, one arranger.

The lyrics' sections are laid out in bars between an intro and an outro, the bars get chords, the lines are
sung over them, and every instrument plays its figure of each bar. A song of two minutes takes about 10 ms.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Final

from .lyric_writer import Section, read_lyrics, syllables, text_of
from .score import (
    Brief,
    Gender,
    Measure,
    Part,
    Score,
    ScoreNote,
    SungWord,
    bounded_duration,
    ordered,
    rng,
)  # fmt: skip
from .style import GROOVES, INSTRUMENTS, SEVENTHS, SWING, Groove, Style, style_of

CENTRE: Final[dict[Gender, int]] = {"f": 68, "m": 56}
"""The middle of the singer's range as a MIDI pitch."""

_LEAD_CENTRE: Final = 74
_PAUSE: Final = 0.06
"""Seconds of silence before a new word, so that its beginning is heard."""

_LEGATO: Final = 0.94
"""How long a played note sounds, as a share of the time until the next one."""

_SCALES: Final = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_PROGRESSIONS: Final = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (3, 0, 4, 5), (0, 3, 4, 3), (0, 2, 3, 4), (5, 3, 0, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 2, 6, 3), (0, 3, 0, 6), (5, 6, 0, 0)),
    "jazz": ((1, 4, 0, 5), (0, 5, 1, 4), (2, 5, 1, 4), (0, 3, 1, 4)),
}
"""Chords by scale degree (0 is the tonic), four bars at a time."""

_ENERGY: Final = {"intro": 0.45, "verse": 0.62, "pre-chorus": 0.75, "chorus": 1.0, "solo": 0.85}
_JOINS_AT: Final = {
    "drums": 0.5, "bass": 0.46, "strings": 0.6, "percussion": 0.7, "brass": 0.8, "woodwinds": 0.8,
}  # fmt: skip
"""How much of the band plays, by section (0.55 in others), and where a stem joins (else always)."""

_WITHOUT_WORDS: Final = ("verse", "chorus", "verse", "chorus", "bridge", "solo", "chorus")
"""The sections of a piece without singing, eight bars each."""

_LEADS: Final = "woodwinds, synth, guitar, keyboard, strings, brass"
"""The stems that carry a tune, the best first."""

_BOOM, _KICK, _SNARE, _HAT, _TOM, _CRASH, _TAMBOURINE, _SHAKER = 35, 36, 38, 42, 45, 49, 54, 70
"""General MIDI drums."""

_Key = tuple[int, str]
"""Tonic as a pitch class, and mode."""

_Stretch = tuple[str, int, list[list[str]]]
"""A section as it is laid out: kind, number of bars, lines to sing."""

_Figure = list[tuple[float, float, int, float]]
"""The notes of a bar: (beat, beats until the next stroke, pitch, velocity)."""


def compose(
    brief: Brief,
    *,
    continues: Score | None = None,
    style: Style | None = None,
    progression: tuple[int, ...] | None = None,
) -> Score:
    """Return the piece that `brief` describes, of exactly `brief.duration` seconds.

    Never fails for any text; what cannot be sung in the time is not sung.

    Args:
        brief: The description of the song.
        continues: Start without an intro in this score's key, tempo and voice; by default a new song.
        style: By default the style that the brief's words ask for.
        progression: Chords of verse and chorus by scale degree; by default drawn by the seed.
    """
    style = style or style_of(brief, continues)
    duration = bounded_duration(brief.duration)
    count = max(1, math.ceil(duration * style.bpm / style.beats / 60 - 0.05))
    form = _form(read_lyrics(text_of(brief, continues)), count, opening=continues is None)
    kinds = [kind for kind, size, _ in form for _ in range(size)]
    bars = _bars(kinds, style, duration, brief.seed, progression)
    voice, gender = voice_of(brief)
    if brief.voice_seed is None and continues is not None:
        voice, gender = continues.voice_seed, brief.vocal_gender or continues.vocal_gender
    key = style.tonic, style.mode
    alone = not any(lines for _, _, lines in form)
    words: list[SungWord] = []
    sung: list[ScoreNote] = []
    choir: list[ScoreNote] = []
    lead: list[ScoreNote] = []
    at = 0
    for kind, size, lines in form:
        here = bars[at : at + size]
        at += size
        new, notes = sing(lines, here, key, CENTRE[gender] + 3 * (kind == "chorus"), brief.seed, kind)
        words += new
        sung += notes
        if kind == "chorus":  # doubled by a second voice an octave below
            choir += [ScoreNote(n.pitch - 12, n.start, n.end, n.velocity * 0.6, n.syllable) for n in notes]
        if kind == "solo" or (alone and kind not in ("intro", "outro")):
            draw = rng("lead", brief.seed, kind)
            phrases = [["la"] * draw.randint(5, 9) for _ in range((size + 1) // 2)]
            lead += sing(phrases, here, key, _LEAD_CENTRE, brief.seed, kind)[1]
    leads = lead_part(style, brief.seed, lead)
    parts = [*voice_parts(voice, sung, choir), *leads, *arrange(style, bars, brief.seed)]
    return Score(
        title=brief.title or (continues.title if continues is not None else "") or "Untitled",
        tags=brief.tags or (continues.tags if continues is not None else "") or style.genre,
        seed=brief.seed,
        voice_seed=voice,
        vocal_gender=gender,
        duration=duration,
        tonic=style.tonic,
        mode=style.mode,
        bars=tuple(bars),
        words=tuple(words),
        parts=ordered(parts),
    )


def natural_duration(brief: Brief) -> float:
    """Return the seconds that the brief's lyrics take at its tempo: 20 to 240, without words 60 to 150."""
    style = style_of(brief, None)
    bar = style.beats * 60 / style.bpm
    lines = sum(len(section.lines) for section in read_lyrics(text_of(brief)))
    if not lines:
        return round(rng("length", brief.seed).uniform(60, 150), 2)
    return round(min(max((lines * (2 if bar < 3.2 else 1) + 8) * bar, 20.0), 240.0), 2)


def voice_of(brief: Brief) -> tuple[int, Gender]:
    """Return the seed of the singer's timbre, and the singer's gender."""
    seed = brief.seed if brief.voice_seed is None else brief.voice_seed
    return seed, brief.vocal_gender or ("f" if rng("gender", seed).random() < 0.5 else "m")


def voice_parts(colour: int, notes: Sequence[ScoreNote], choir: Sequence[ScoreNote] = ()) -> list[Part]:
    """Return the parts of the singer and of the second voice, where they have notes."""
    singer = Part("Synth Voice", "vocals", 54, "voice", colour, tuple(notes))
    second = Part("Choir", "backing vocals", 52, "choir", colour, tuple(choir))
    return [part for part in (singer, second) if part.notes]


def lead_part(style: Style, colour: int, notes: Sequence[ScoreNote]) -> list[Part]:
    """Return the part of the instrument of `style` that carries a tune best, if there is one."""
    leads = [
        (_LEADS.index(INSTRUMENTS[n].stem), n) for n in style.instruments if INSTRUMENTS[n].stem in _LEADS
    ]
    if not leads or not notes:
        return []
    name = min(leads)[1]
    stem, program, sound, *_ = INSTRUMENTS[name]
    return [Part(f"Lead {name}", stem, program, sound, colour, tuple(notes))]


def _form(sections: list[Section], count: int, *, opening: bool) -> list[_Stretch]:
    """Lay `count` bars out as (kind, bars, lines): intro, sections with breaks after them, outro.

    A line gets two bars if there is room, else one or half a bar; what does not fit is left out.
    """
    intro = min(4, 2 + count // 24 * 2) if opening and count >= 6 else 0
    outro = min(2, (count + 4) // 12)
    room = count - intro - outro
    stride = next((s for s in (2.0, 1.0) if sum(math.ceil(len(x.lines) * s) for x in sections) <= room), 0.5)
    sizes = [math.ceil(len(section.lines) * stride) for section in sections]
    spare = [min(4, room - at) for at in range(sum(sizes), room, 4)]
    body: list[_Stretch] = []
    for index, (section, size) in enumerate(zip(sections, sizes, strict=True)):
        body += [(section.kind, size, section.lines), ("solo", sum(spare[index :: len(sections)]), [])]
    if not sections:
        body = [(kind, 8, []) for kind in _WITHOUT_WORDS * (room // 56 + 1)]
    starts = itertools.accumulate((size for _, size, _ in body), initial=0)
    fitting = [(k, min(n, room - at), lines) for (k, n, lines), at in zip(body, starts, strict=False)]
    form: list[_Stretch] = [("intro", intro, []), *fitting, ("outro", outro, [])]
    return [stretch for stretch in form if stretch[1] > 0]


def _bars(
    kinds: list[str], style: Style, duration: float, seed: int, progression: tuple[int, ...] | None
) -> list[Measure]:
    """Return bars of these kinds with their chords, the last one cut or held to end at `duration`."""
    draw = rng("harmony", seed, style.mode)
    choices: tuple[tuple[int, ...], ...] = _PROGRESSIONS["jazz" if style.groove == "swing" else style.mode]
    verse, chorus, bridge = (draw.choice(choices) for _ in range(3))
    if progression:
        verse = chorus = progression
    seconds = style.beats * 60 / style.bpm
    bars: list[Measure] = []
    for number, kind in enumerate(kinds):
        degrees = chorus if kind in ("chorus", "solo") else bridge if kind == "bridge" else verse
        start, end, beats = number * seconds, (number + 1) * seconds, float(style.beats)
        root = degrees[number % len(degrees)]
        if number == len(kinds) - 1:
            end, beats, root = duration, (duration - start) / seconds * style.beats, 0
        steps = (0, 2, 4, 6) if style.groove in SEVENTHS else (0, 2, 4)
        chord = tuple(scale_pitch((style.tonic, style.mode), root + step) % 12 for step in steps)
        bars.append(Measure(start, end, beats, chord, kind))
    return bars


def scale_pitch(key: _Key, degree: int) -> int:
    """Return the MIDI pitch of a scale degree, counted from the tonic of octave 0."""
    return key[0] + _SCALES[key[1]][degree % 7] + 12 * (degree // 7)


def sing(
    lines: Sequence[list[str]], bars: Sequence[Measure], key: _Key, centre: int, *seed: object
) -> tuple[list[SungWord], list[ScoreNote]]:
    """Return words and notes of `lines` over `bars`: two bars, one or half a bar for each line.

    Syllables fall on beats, eighths or sixteenths where there is room and are packed evenly where there is
    none; the last one is held, and a breath is left before the next line.
    """
    stride = next((s for s in (2.0, 1.0) if len(lines) * s <= len(bars)), 0.5)
    words: list[SungWord] = []
    notes: list[ScoreNote] = []

    def time(at: float) -> float:
        bar = bars[min(int(at), len(bars) - 1)]
        return bar.end if at >= len(bars) else bar.start + at % 1 * (bar.end - bar.start)

    for index, line in enumerate(lines[: int(len(bars) / stride)]):
        bar, start, end = bars[int(index * stride)], time(index * stride), time((index + 1) * stride)
        beat = (bar.end - bar.start) / bar.beats
        if end - start < beat / 2:
            break
        sung = [syllables(word) for word in line]
        count = sum(map(len, sung))
        room = (end - start) / beat * 0.875
        step = next((s for s in (1.0, 0.5, 0.25) if count * s <= room and count <= 4 / s**3), room / count)
        onsets = [start + n * step * beat for n in range(count)]
        draw = rng("melody", *seed, index % 4)
        pitches = _contour(key, bars, onsets, centre, draw)
        onsets.append(start + min(room, count * step + 1) * beat)
        at = 0
        for word, texts in zip(line, sung, strict=True):
            words.append(SungWord(word, round(onsets[at], 4), round(onsets[at + len(texts)], 4)))
            for text in texts:
                length = onsets[at + 1] - onsets[at]
                pause = min(_PAUSE, length * 0.3) if text is texts[-1] else 0.0
                loud = round(0.62 + 0.2 * draw.random(), 3) if at else 0.85
                start, end = round(onsets[at], 4), round(onsets[at] + length - pause, 4)
                notes.append(ScoreNote(pitches[at], start, end, loud, text))
                at += 1
    return words, notes


def _contour(
    key: _Key, bars: Sequence[Measure], times: Sequence[float], centre: int, draw: random.Random
) -> list[int]:
    """Return a melody for notes at `times`: a walk on the scale that meets the chord on strong notes."""
    home = min(range(80), key=lambda degree: abs(scale_pitch(key, degree) - centre))
    degree = home + draw.choice((-2, 0, 0, 1, 2))
    pitches: list[int] = []
    before: Measure | None = None
    for time in times:
        bar = next((bar for bar in bars if time < bar.end - 1e-6), bars[-1])
        degree += draw.choice((-2, -1, -1, 0, 1, 1, 2))
        if abs(degree - home) > 5:
            degree += 2 if degree < home else -2
        if bar is not before or time == times[-1] or draw.random() < 0.35:
            near = (degree + step for step in (0, 1, -1, 2, -2))
            degree = next((d for d in near if scale_pitch(key, d) % 12 in bar.chord), degree)
        before = bar
        pitches.append(scale_pitch(key, degree))
    return pitches


def arrange(style: Style, bars: Sequence[Measure], seed: int) -> list[Part]:
    """Return the parts of every instrument of `style` over `bars`."""
    parts: list[Part] = []
    swing = SWING.get(style.groove, 0.0) / 3
    for name in style.instruments:
        stem, program, sound, playing, _ = INSTRUMENTS[name]
        draw = rng("arrangement", seed, name)
        notes: list[ScoreNote] = []
        index = -1
        for bar, before in zip(bars, (None, *bars), strict=False):
            index = index + 1 if before is not None and before.section == bar.section else 0
            energy = _ENERGY.get(bar.section, 0.55)
            if energy < _JOINS_AT.get(stem, 0.0) and (
                len(style.instruments) > 4 or stem in ("drums", "bass")
            ):
                continue
            figure = _figure(playing, bar, energy, GROOVES[style.groove], draw=draw, index=index)
            if bar is bars[-1]:
                figure = _ending(playing, bar, figure)
            beat = (bar.end - bar.start) / bar.beats
            for position, length, pitch, velocity in figure:
                start, end = (
                    min(bar.start + (at + swing * (at % 1 == 0.5)) * beat, bar.end)
                    for at in (position, position + length)
                )
                if end - start > 0.03:
                    level = velocity * (0.57 + 0.25 * style.energy + 0.15 * energy + 0.06 * draw.random())
                    end = start + (end - start) * _LEGATO
                    notes.append(ScoreNote(pitch, round(start, 4), round(end, 4), round(min(level, 1.0), 3)))
        if notes:
            parts.append(Part(name, stem, program, sound, seed, tuple(notes)))
    return parts


def _strokes(pattern: str, loud: float = 0.7, soft: float = 0.55) -> list[tuple[float, float, float]]:
    """Return the strokes of a pattern in sixteenths: (beat, beats until the next stroke, velocity)."""
    at = [index for index, mark in enumerate(pattern) if mark != "."]
    spans = itertools.pairwise([*at, len(pattern)])
    return [(a / 4, (b - a) / 4, soft if pattern[a] == "x" else loud) for a, b in spans]


def _figure(
    playing: str, bar: Measure, energy: float, groove: Groove, *, draw: random.Random, index: int
) -> _Figure:
    """Return what an instrument that is played this way plays in a bar, the `index`th of its section."""
    beats = float(round(bar.beats) or 1)
    root, third, fifth, *_ = bar.chord
    low = 28 + (root - 28) % 12
    tones = sorted(55 + (pitch - 55) % 12 for pitch in bar.chord)
    chords = _strokes(groove.chords) if energy > 0.5 else [(0.0, beats, 0.6)]
    match playing:
        case "drums" | "shaker":
            kit = [(groove.kick, _KICK, 1, 0.65), (groove.snare, _SNARE, 0.9, 0.4)]
            kit.append((groove.hat, _HAT, 0.7, 0.45))
            if playing == "shaker":
                kit = [(groove.hat, _SHAKER, 0.3, 0.45), (groove.snare, _TAMBOURINE, 0.5, 0.4)]
            hits = [(b, 0.1, key, v) for line, key, *vs in kit for b, _, v in _strokes(line, *vs)]
            if playing == "drums" and index % 8 == 7 and groove.hat.strip("."):
                fill = [(beats - 1 + n / 4, 0.1, draw.choice((_TOM, _SNARE)), 0.5 + n / 10) for n in range(4)]
                return [hit for hit in hits if hit[0] < beats - 1] + fill
            return hits + [(0.0, 0.1, _CRASH, 0.8)] * (playing == "drums" and index == 0 and energy > 0.8)
        case "impact":
            return [(0.0, beats, _BOOM, 0.6)] * (index == 0 and bar.section == "chorus")
        case "bass":
            steps = {"1": 0, "3": (third - root) % 12, "5": (fifth - root) % 12, "6": 9, "8": 12}
            line = groove.bass if energy >= 0.6 else "1".ljust(len(groove.bass), ".")
            return [(b, n, low + steps[line[int(b * 4)]], 0.8) for b, n, _ in _strokes(line)]
        case "power":
            power, eighths = (low + 12, low + 19, low + 24), range(int(beats * 2))
            return [(n / 2, 0.5, pitch, 0.7 if n % 2 else 0.9) for n in eighths for pitch in power]
        case "broken":
            order = [*tones, tones[0] + 12, *tones[:0:-1]]
            return [(n / 2, 1.0, order[n % len(order)], 0.6) for n in range(int(beats * 2))]
        case "fills":
            return [(b, n, draw.choice(tones) + 12, 0.55) for b, n, _ in chords if index % 2]
        case "stabs" if groove.hat.strip("."):
            return [(b, 0.3, pitch, 0.75) for b, _, v in chords if v > 0.6 for pitch in tones]
        case "strum":
            return [(b, n, pitch, v) for b, n, v in chords for pitch in tones]
        case _:
            return [(0.0, beats, pitch, 0.4 + 0.2 * energy) for pitch in tones]


def _ending(playing: str, bar: Measure, figure: _Figure) -> _Figure:
    """Return the last bar of a figure: drums end on one stroke, the others hold the chord."""
    if playing == "drums":
        return [(0.0, 0.1, _KICK, 0.9), (0.0, 0.1, _CRASH, 0.7)]
    held = {pitch: (0.0, 0.1 if playing == "shaker" else bar.beats, pitch, 0.6) for _, _, pitch, _ in figure}
    return list(held.values())[: 1 if playing in ("bass", "shaker") else 4]
