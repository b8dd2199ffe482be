"""How a brief becomes a score: style, form, melody and band put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from musicapi_async.sandbox.arrangement import accompany, lead_instrument
from musicapi_async.sandbox.chance import dice
from musicapi_async.sandbox.form import Stretch, bars_of, plan, sections_of
from musicapi_async.sandbox.lyricist import lyrics as write_lyrics
from musicapi_async.sandbox.score import Bar, Brief, Note, Part, Score, Tempo, Word, bounded_duration, ordered
from musicapi_async.sandbox.singing import Voice, contour, read_lyrics, scale_pitch, sing
from musicapi_async.sandbox.style import Instrument, Style, read_style

__all__ = [
    "CENTRE",
    "INSTRUMENTAL",
    "compose",
    "gender_of",
    "lead_part",
    "natural_duration",
    "style_of",
    "text_of",
    "voice_part",
    "voice_seed_of",
    "write",
]

INSTRUMENTAL: Final = "[Instrumental]"
"""The lyrics of a piece without singing: a marker in brackets, as the API shows it."""

CENTRE: Final = {"f": 68, "m": 56}
"""The middle of the singer's range as a MIDI pitch."""

_RHYTHMS: Final = ((0, 1, 1.5, 2, 3), (0, 0.5, 1, 2, 2.5, 3), (0, 1.5, 2, 3.5), (0, 2), (0, 1, 2))
"""Beats of a bar on which a lead plays."""


def compose(brief: Brief, *, continues: Score | None = None) -> Score:
    """Write the piece that `brief` asks for, exactly `brief.duration` seconds long (1-480).

    With `continues` the piece starts without an intro in that score's key, tempo and voice, and in its style
    where the brief names none. Never fails for any text; what cannot be sung in the time is not sung.
    """
    style = style_of(brief, continues)
    return write(brief, style, continues)


def natural_duration(brief: Brief) -> float:
    """Seconds that the brief's lyrics take at the brief's tempo with intro and outro: 20 to 240.

    The lyrics' own pace decides; `brief.duration` is not looked at. A piece without words takes 60-150 s.
    """
    style = style_of(brief, None)
    text = text_of(brief)
    bar = style.beats * 60 / style.bpm
    lines = 0 if text == INSTRUMENTAL else sum(len(verse.lines) for verse in read_lyrics(text))
    if not lines:
        return round(dice("length", brief.seed).uniform(60, 150), 2)
    per_line = 2 if bar < 3.2 else 1
    return round(min(max((lines * per_line + 8) * bar, 20.0), 240.0), 2)


def style_of(brief: Brief, continues: Score | None) -> Style:
    tags, description = brief.tags, brief.description or ""
    if continues is not None and not tags.strip() and not description.strip():
        tags = continues.tags
    style = read_style(
        tags, description, brief.negative_tags, brief.seed if continues is None else continues.seed
    )
    if continues is None:
        return style
    beats = round(continues.bars[-1].beats) if continues.bars else style.beats
    beats = beats if beats in {3, 4} else style.beats
    groove = "waltz" if beats == 3 else "ballad" if style.groove == "waltz" else style.groove
    return msgspec.structs.replace(
        style,
        bpm=continues.tempos[-1].bpm,
        tonic=continues.tonic,
        mode=continues.mode,
        beats=beats,
        groove=groove,
    )


def text_of(brief: Brief, continues: Score | None = None) -> str:
    """The words to sing: the brief's, or ones written for its description; a marker if there are none."""
    if brief.instrumental:
        return INSTRUMENTAL
    if brief.lyrics is not None and brief.lyrics.strip():
        return brief.lyrics
    if continues is not None and continues.lyrics == INSTRUMENTAL and not brief.description:
        return INSTRUMENTAL
    return write_lyrics(brief.description or brief.title or brief.tags, brief.seed)[0][1]


def voice_seed_of(brief: Brief) -> int:
    return brief.seed if brief.voice_seed is None else brief.voice_seed


def gender_of(voice_seed: int) -> Literal["f", "m"]:
    return "f" if dice("gender", voice_seed).random() < 0.5 else "m"


def voice_part(colour: int, notes: Sequence[Note]) -> Part:
    return Part("Synth Voice", "vocals", 54, "voice", colour, tuple(notes))


def write(
    brief: Brief, style: Style, continues: Score | None, progression: tuple[int, ...] | None = None
) -> Score:
    duration = bounded_duration(brief.duration)
    text = text_of(brief, continues)
    verses = read_lyrics(text) if text != INSTRUMENTAL else []
    if brief.voice_seed is None and continues is not None:
        voice_seed, gender = continues.voice_seed, brief.vocal_gender or continues.vocal_gender
    else:
        voice_seed = voice_seed_of(brief)
        gender = brief.vocal_gender or gender_of(voice_seed)
    bar_seconds = style.beats * 60 / style.bpm
    count = max(1, math.ceil(duration / bar_seconds - 0.05))
    stretches = plan(verses, count, continues is None)
    bars = bars_of(stretches, style, duration, brief.seed, progression)
    words, notes, harmony = _melodies(stretches, bars, style, brief.seed, CENTRE[gender])
    parts = accompany(style, bars, brief.seed, brief.seed)
    if notes:
        parts.append(voice_part(voice_seed, notes))
    if harmony:
        parts.append(Part("Choir", "backing vocals", 52, "choir", voice_seed, tuple(harmony)))
    if (lead := _lead(stretches, bars, style, brief.seed, alone=not notes)) is not None:
        parts.append(lead)
    title = brief.title or (continues.title if continues is not None else "") or "Untitled"
    return Score(
        title=title,
        tags=brief.tags or (continues.tags if continues is not None else "") or style.genre,
        lyrics=text,
        seed=brief.seed,
        voice_seed=voice_seed,
        vocal_gender=gender,
        duration=duration,
        tonic=style.tonic,
        mode=style.mode,
        tempos=(Tempo(0.0, style.bpm),),
        bars=tuple(bars),
        sections=tuple(sections_of(stretches, bars)),
        words=tuple(words),
        parts=ordered(parts),
    )


def _melodies(
    stretches: list[Stretch], bars: list[Bar], style: Style, seed: int, centre: int
) -> tuple[list[Word], list[Note], list[Note]]:
    """The sung words, the singer's notes, and the second voice of the choruses."""
    words: list[Word] = []
    notes: list[Note] = []
    harmony: list[Note] = []
    beat = 60 / style.bpm
    at = 0
    for stretch in stretches:
        kind, size = stretch.kind, stretch.bars
        height = centre + (3 if kind == "chorus" else 0)
        for index, line in enumerate(stretch.lines):
            start = bars[at].start + index * stretch.per_line * style.beats * beat
            length = min(stretch.per_line * style.beats, (bars[-1].end - start) / beat)
            if length <= 0.5:
                break
            draw = dice("melody", seed, kind, index % 4)
            voice = Voice(style.tonic, style.mode, height)
            sung = sing(line, (start, start + length * beat), bars[at : at + size], voice, draw)
            words += sung[0]
            notes += sung[1]
            if kind == "chorus":
                harmony += [
                    Note(_third_above(style, n.pitch), n.start, n.end, round(n.velocity * 0.6, 3), n.syllable)
                    for n in sung[1]
                ]
        at += size
    return words, notes, harmony


def _third_above(style: Style, pitch: int) -> int:
    scale = {scale_pitch(style.tonic, style.mode, degree, 0) % 12 for degree in range(7)}
    return next((pitch + up for up in (3, 4) if (pitch + up) % 12 in scale), pitch + 3)


def _lead(stretches: list[Stretch], bars: list[Bar], style: Style, seed: int, *, alone: bool) -> Part | None:
    """The instrument that plays the tune where nobody sings: in breaks, everywhere without a singer."""
    instrument = lead_instrument(style)
    if instrument is None:
        return None
    kinds = {"verse", "chorus", "pre-chorus", "bridge", "solo"} if alone else {"solo"}
    beat = 60 / style.bpm
    notes: list[Note] = []
    for index, bar in enumerate(bars):
        if bar.section not in kinds:
            continue
        draw = dice("lead", seed, bar.section, index % 4)
        beats = [position for position in draw.choice(_RHYTHMS) if position < bar.beats - 0.1]
        starts = [bar.start + position * beat for position in beats]
        pitches = contour((style.tonic, style.mode), [bar], starts, 74, draw)
        for a, b, pitch in zip(starts, [*starts[1:], bar.end], pitches, strict=True):
            notes.append(Note(pitch, round(a, 4), round(a + (b - a) * 0.92, 4), 0.7))
    if not notes:
        return None
    return lead_part(instrument, seed, tuple(notes))


def lead_part(instrument: Instrument, colour: int, notes: tuple[Note, ...]) -> Part:
    """The tune on an instrument, apart from what the same instrument plays with the band."""
    return Part(
        f"Lead {instrument.name}", instrument.stem, instrument.program, instrument.sound, colour, notes
    )
