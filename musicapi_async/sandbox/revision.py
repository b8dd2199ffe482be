"""Scores made of scores: continued, repaired, covered, mashed, remastered, sung over."""

from __future__ import annotations

import math

import msgspec

from musicapi_async.sandbox.arrangement import accompany, lead_instrument
from musicapi_async.sandbox.chance import dice
from musicapi_async.sandbox.composer import (
    CENTRE,
    INSTRUMENTAL,
    compose,
    gender_of,
    lead_part,
    style_of,
    text_of,
    voice_part,
    voice_seed_of,
    write,
)
from musicapi_async.sandbox.score import (
    MAX_DURATION,
    MIN_DURATION,
    Brief,
    Note,
    Part,
    Score,
    Word,
    join,
    ordered,
    rescaled,
    window,
)
from musicapi_async.sandbox.singing import Voice, read_lyrics, scale_pitch, sing
from musicapi_async.sandbox.style import Style


def continue_score(score: Score, at: float, brief: Brief) -> Score:
    """The new part of an extension of `score` from `at` seconds on, starting at 0: same key, tempo, voice.

    `join(score, at, part)` makes the full song of it.
    """
    return compose(brief, continues=window(score, 0.0, at) if at > 0 else score)


def replace(score: Score, start: float, end: float, brief: Brief) -> Score:
    """`score` with what lies between `start` and `end` seconds written anew from `brief`; same duration.

    Bounds are brought into the score; the brief's own duration is not looked at. A window shorter than a
    second is widened to one where the score has room.
    """
    start = min(max(start, 0.0), max(score.duration - MIN_DURATION, 0.0))
    end = min(max(end, start + MIN_DURATION), score.duration)
    if end - start < MIN_DURATION:
        return score
    part = compose(msgspec.structs.replace(brief, duration=end - start), continues=window(score, start, end))
    part = window(part, 0.0, end - start)
    song = join(join(score, start, part), end, window(score, end, score.duration))
    return msgspec.structs.replace(song, duration=score.duration, lyrics=_sung_text(song))


def cover_score(score: Score, brief: Brief) -> Score:
    """The melody, words and chords of `score` in the style, tempo and voice of `brief`.

    The duration follows from the new tempo. Lyrics in the brief are ignored unless the score has none.
    """
    style = style_of(brief, None)
    moved = rescaled(score, max(score.bpm / style.bpm, score.duration and MIN_DURATION / score.duration))
    if moved.duration > MAX_DURATION:
        moved = window(moved, 0.0, MAX_DURATION)
    style = _in_metre_of(score, style)
    voice_seed = voice_seed_of(brief)
    gender = brief.vocal_gender or score.vocal_gender
    lift = CENTRE[gender] - CENTRE[score.vocal_gender]
    singers = [
        msgspec.structs.replace(
            part,
            colour=voice_seed,
            notes=tuple(Note(n.pitch + lift, n.start, n.end, n.velocity, n.syllable) for n in part.notes),
        )
        for part in moved.parts
        if part.stem in {"vocals", "backing vocals"} and not brief.instrumental
    ]
    instrument = lead_instrument(style)
    tunes = [part.notes for part in moved.parts if part.name.startswith("Lead ")]
    leads = [lead_part(instrument, brief.seed, notes) for notes in tunes[:1] if instrument is not None]
    covered = msgspec.structs.replace(
        moved,
        title=brief.title or score.title,
        tags=brief.tags or score.tags,
        seed=brief.seed,
        voice_seed=voice_seed,
        vocal_gender=gender,
        words=() if brief.instrumental else moved.words,
        lyrics=INSTRUMENTAL if brief.instrumental else moved.lyrics,
        parts=ordered([*singers, *leads, *accompany(style, moved.bars, brief.seed, brief.seed)]),
    )
    return covered if covered.words or not brief.lyrics or brief.instrumental else sing_over(covered, brief)


def mash(first: Score, second: Score, brief: Brief) -> Score:
    """A new song of two: the first's key and words, the second's chords and groove, a tempo between.

    Lyrics in the brief win over those of the scores; the voice is the first's unless the brief names one.
    """
    tags = ", ".join(text for text in (brief.tags, second.tags, first.tags) if text)
    lyrics = brief.lyrics or next((s.lyrics for s in (first, second) if s.words), None)
    voice_seed = first.voice_seed if brief.voice_seed is None else brief.voice_seed
    mixed = msgspec.structs.replace(
        brief,
        tags=tags,
        lyrics=lyrics,
        voice_seed=voice_seed,
        vocal_gender=brief.vocal_gender or first.vocal_gender,
        instrumental=brief.instrumental or lyrics is None,
    )
    style = msgspec.structs.replace(
        style_of(mixed, None),
        bpm=float(round((first.bpm + second.bpm) / 2)),
        tonic=first.tonic,
        mode=second.mode,
    )
    borrowed = tuple(_degree(bar.chord[0] - second.tonic, second.mode) for bar in second.bars[4:8])
    return write(mixed, style, None, borrowed if len(borrowed) == 4 else None)


def remaster(score: Score, seed: int) -> Score:
    """The same music with a fresh tone: other instrument colours and slightly other dynamics."""
    draw = dice("remaster", seed)
    parts: list[Part] = []
    for part in score.parts:
        gain = draw.uniform(0.85, 1.1)
        notes = tuple(
            Note(n.pitch, n.start, n.end, round(min(n.velocity * gain, 1.0), 3), n.syllable)
            for n in part.notes
        )
        singer = part.stem in {"vocals", "backing vocals"}
        parts.append(msgspec.structs.replace(part, colour=part.colour if singer else seed, notes=notes))
    return msgspec.structs.replace(score, seed=seed, parts=tuple(parts))


def sing_over(score: Score, brief: Brief, start: float = 0.0, end: float = math.inf) -> Score:
    """`score` with a singer added (the old one leaves) who sings `brief`'s lyrics from `start` to `end` s."""
    text = text_of(brief)
    bars = [bar for bar in score.bars if bar.start >= start - 1e-6 and bar.end <= end + 1e-6]
    lines = [line for verse in read_lyrics(text) for line in verse.lines]
    voice_seed = voice_seed_of(brief)
    gender = brief.vocal_gender or gender_of(voice_seed)
    words: list[Word] = []
    notes: list[Note] = []
    if bars and lines and text != INSTRUMENTAL:
        stride = next((n for n in (2, 1) if len(lines) * n <= len(bars)), 1)
        for index, line in enumerate(lines[: len(bars) // stride]):
            here = bars[index * stride : (index + 1) * stride]
            draw = dice("melody", brief.seed, index % 4)
            voice = Voice(score.tonic, score.mode, CENTRE[gender])
            sung = sing(line, (here[0].start, here[-1].end), here, voice, draw)
            words += sung[0]
            notes += sung[1]
    band = [part for part in score.parts if part.stem not in {"vocals", "backing vocals"}]
    singers = [voice_part(voice_seed, notes)] if notes else []
    return msgspec.structs.replace(
        score,
        title=brief.title or score.title,
        lyrics=text,
        voice_seed=voice_seed,
        vocal_gender=gender,
        words=tuple(words),
        parts=ordered([*singers, *band]),
    )


def accompany_score(score: Score, brief: Brief) -> Score:
    """`score` with its singers kept and a new band in the brief's style, at the score's own tempo."""
    style = _in_metre_of(score, style_of(brief, None))
    singers = [part for part in score.parts if part.stem in {"vocals", "backing vocals"}]
    band = accompany(style, score.bars, brief.seed, brief.seed)
    return msgspec.structs.replace(score, tags=brief.tags or score.tags, parts=ordered([*singers, *band]))


def _sung_text(score: Score) -> str:
    return "".join(word.text for word in score.words).strip() or INSTRUMENTAL


def _in_metre_of(score: Score, style: Style) -> Style:
    """`style` with a groove that fits the bars of `score`."""
    threes = sum(bar.beats <= 3 for bar in score.bars) * 2 > len(score.bars)
    groove = "waltz" if threes else "ballad" if style.groove == "waltz" else style.groove
    return msgspec.structs.replace(style, beats=3 if threes else 4, groove=groove)


def _degree(interval: int, mode: str) -> int:
    """The scale degree of an interval above the tonic; 0 for one outside the scale."""
    return next((d for d in range(7) if scale_pitch(0, mode, d, 0) == interval % 12), 0)
