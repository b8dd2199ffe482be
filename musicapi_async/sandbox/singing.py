"""Lyrics as music: sections and lines of a text, the syllables of a word, and a melody to sing them on."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import msgspec

from musicapi_async.sandbox.score import Bar, Note, Word

__all__ = ["Verse", "Voice", "contour", "read_lyrics", "scale_pitch", "section_kind", "sing", "syllables"]

_LONGEST_TEXT: Final = 12_000
"""Characters of lyrics that are read; the API's own limit is 5,000."""

_LONGEST_LINE: Final = 12
"""Words that are sung as one line; a longer line is sung as several."""

_PAUSE: Final = 0.06
"""Seconds of silence before a new word, so that one hears where it begins."""

_SCALES: Final = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}

_TOKEN: Final = re.compile(
    r"(?P<tag>\[[^\[\]\n]{1,80}\])|(?P<space>\s+)"
    r"|(?P<word>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|\[)"
)
_VOWELS: Final = re.compile(r"[aeiouy]+")


class Verse(msgspec.Struct):
    """A section of the lyrics: its name, its kind, and its lines of words (each with its tags and space)."""

    name: str
    kind: str
    lines: list[list[str]]


class Voice(msgspec.Struct, frozen=True):
    """What a singer sings in: the key's tonic and mode, and the pitch in the middle of the range."""

    tonic: int
    mode: str
    centre: int


def section_kind(name: str) -> str:
    """What a section's name means to the arrangement, such as "chorus" for "Final Chorus 2"."""
    lowered = name.lower()
    for word, kind in (
        ("pre", "pre-chorus"), ("chorus", "chorus"), ("hook", "chorus"), ("refrain", "chorus"),
        ("drop", "chorus"), ("bridge", "bridge"), ("intro", "intro"), ("outro", "outro"), ("end", "outro"),
        ("solo", "solo"), ("break", "solo"), ("interlude", "solo"), ("inst", "solo"),
    ):  # fmt: skip
        if word in lowered:
            return kind
    return "verse"


def read_lyrics(text: str) -> list[Verse]:
    """The sections of a text in order. A section may have no lines; a text without tags is one verse."""
    verses = [Verse("Verse", "verse", [])]
    line: list[str] = []
    prefix = ""
    for token in _TOKEN.finditer(text[:_LONGEST_TEXT]):
        kind, found = token.lastgroup, token[0]
        if kind == "tag":
            line = []
            name = found[1:-1].strip()
            verses.append(Verse(name.title() or "Verse", section_kind(name), []))
            prefix += found
        elif kind == "space":
            if prefix:
                prefix += found
            elif line:
                line[-1] += found
            if "\n" in found:
                line = []
        elif not any(character.isalnum() for character in found):
            if line and not prefix:
                line[-1] += found
            else:
                prefix += found
        else:
            if not line or len(line) >= _LONGEST_LINE:
                line = []
                verses[-1].lines.append(line)
            line.append(prefix + found)
            prefix = ""
    if not verses[0].lines and len(verses) > 1:
        del verses[0]
    return verses


def syllables(word: str) -> list[str]:
    """What a singer makes of a word: one to six of consonant and vowel, such as ["wo", "de"]."""
    bare = word.rsplit("]", 1)[-1]
    folded = unicodedata.normalize("NFKD", bare[:40]).lower()
    latin = "".join(character for character in folded if "a" <= character <= "z")
    if not latin:
        code = ord(next((character for character in folded if character.isalnum()), "a"))
        return ["mndlsktr"[code % 8] + "aeiou"[code % 5]]
    if len(latin) > 3 and latin.endswith("e") and latin[-2] not in "aeiouyl":
        latin = latin[:-1]
    found = [
        (latin[group.start() - 1] if group.start() else "") + group[0][0].replace("y", "i")
        for group in _VOWELS.finditer(latin)
    ]
    return found[:6] or [latin[0] + "e"]


def scale_pitch(tonic: int, mode: str, degree: int, octave: int) -> int:
    """The MIDI pitch of a scale degree (0 is the tonic) above the tonic of an octave."""
    return 12 * octave + tonic + _SCALES[mode][degree % 7] + 12 * (degree // 7)


def nearest_degree(tonic: int, mode: str, pitch: int) -> int:
    """The scale degree, counted from the tonic of octave 0, whose pitch is nearest to `pitch`."""
    guess = (pitch - tonic) * 7 // 12
    return min(range(guess - 2, guess + 3), key=lambda d: abs(scale_pitch(tonic, mode, d, 0) - pitch))


def contour(
    key: tuple[int, str], bars: Sequence[Bar], times: Sequence[float], centre: int, draw: random.Random
) -> list[int]:
    """A melody for notes that start at `times`: a walk on the scale that meets the chord on long steps."""
    tonic, mode = key
    home = nearest_degree(tonic, mode, centre)
    degree = home + draw.choice((-2, 0, 0, 1, 2))
    pitches: list[int] = []
    at = 0
    for index, time in enumerate(times):
        while at < len(bars) - 1 and time >= bars[at].end - 1e-6:
            at += 1
        bar = bars[at]
        first_in_bar = index == 0 or times[index - 1] < bar.start - 1e-6
        degree += draw.choice((-2, -1, -1, 0, 1, 1, 2))
        if abs(degree - home) > 5:
            degree += 2 if degree < home else -2
        if first_in_bar or index == len(times) - 1 or draw.random() < 0.35:
            near = (degree, degree + 1, degree - 1, degree + 2, degree - 2)
            degree = next((d for d in near if scale_pitch(tonic, mode, d, 0) % 12 in bar.chord), degree)
        pitches.append(scale_pitch(tonic, mode, degree, 0))
    return pitches


def sing(
    line: Sequence[str], time: tuple[float, float], bars: Sequence[Bar], voice: Voice, draw: random.Random
) -> tuple[list[Word], list[Note]]:
    """Words and notes of one line in `time`, its start and end in seconds, over `bars`.

    Syllables fall on eighths or sixteenths where there is room and are packed evenly where there is none;
    the last one is held, and a breath is left before the next line.
    """
    start = time[0]
    beat = (bars[0].end - bars[0].start) / bars[0].beats
    beats = (time[1] - start) / beat
    sung = [syllables(word) for word in line]
    count = sum(map(len, sung))
    room = beats * 0.875
    step = next(
        (unit for unit in (1.0, 0.5, 0.25) if count * unit <= room and (unit < 1 or count <= 4)), room / count
    )
    words: list[Word] = []
    starts: list[float] = []
    texts: list[str] = []
    position = 0
    for word, parts in zip(line, sung, strict=True):
        first = start + position * step * beat
        starts.extend(start + (position + index) * step * beat for index in range(len(parts)))
        texts.extend(parts)
        position += len(parts)
        words.append(Word(word, round(first, 4), round(start + position * step * beat, 4)))
    held = min(room, count * step + 1.0) * beat
    words[-1] = Word(words[-1].text, words[-1].start, round(start + held, 4))
    pitches = contour((voice.tonic, voice.mode), bars, starts, voice.centre, draw)
    ends = [*starts[1:], start + held]
    notes: list[Note] = []
    onsets = {word.start for word in words}
    for index, (a, b) in enumerate(zip(starts, ends, strict=True)):
        pause = min(_PAUSE, (b - a) * 0.3) if index + 1 == count or round(b, 4) in onsets else 0.0
        accent = 0.85 if index == 0 else 0.62 + 0.2 * draw.random()
        notes.append(Note(pitches[index], round(a, 4), round(b - pause, 4), round(accent, 3), texts[index]))
    return words, notes
