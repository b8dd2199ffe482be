"""The data of the sandbox's music maker: a `Brief` says what is wanted, a `Score` is the piece.

Sound, MIDI, aligned lyrics, tempo and stems are all read from the same score, so they agree. Times are in
seconds. Pure Python: everything but the media files works without an audio library.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Final, Literal, TypeVar

import msgspec

STEM_NAMES: Final = (
    "vocals", "backing vocals", "drums", "bass", "guitar", "keyboard", "percussion", "strings", "synth", "fx",
    "brass", "woodwinds",
)  # fmt: skip
"""The twelve stems of a song, in the order in which they are listed; one without a part is silent."""

SINGERS: Final = STEM_NAMES[:2]

INSTRUMENTAL: Final = "[Instrumental]"
"""The lyrics of a piece without singing: a marker in brackets, as in the API."""

MIN_DURATION: Final = 1.0
MAX_DURATION: Final = 480.0
"""Seconds of the shortest and of the longest piece: the API takes uploads of up to 8 minutes."""

_AUDIBLE: Final = 0.02
"""Seconds; a note of which a cut leaves less than this is dropped."""

Gender = Literal["f", "m"]
Mode = Literal["major", "minor"]


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a piece of music follows from; equal briefs give equal bytes.

    `voice_seed` chooses the singer's timbre: songs of one persona share it; by default it is `seed`. Words in
    `tags` and `description` choose genre, mood, key, tempo ("96 bpm") and instruments; those in
    `negative_tags` forbid them. `duration` is in seconds.
    """

    seed: int = 0
    title: str = ""
    tags: str = ""
    lyrics: str | None = None
    description: str | None = None
    instrumental: bool = False
    vocal_gender: Gender | None = None
    duration: float = 120.0
    negative_tags: str = ""
    voice_seed: int | None = None


class ScoreNote(msgspec.Struct, frozen=True, array_like=True):
    """One note: MIDI pitch, times, velocity from 0 to 1, and the syllable if it is sung."""

    pitch: int
    start: float
    end: float
    velocity: float
    syllable: str = ""


class Part(msgspec.Struct, frozen=True):
    """The notes of one instrument: its General MIDI program, its sound, and the seed of its timbre."""

    name: str
    stem: str
    program: int
    sound: str
    colour: int
    notes: tuple[ScoreNote, ...]


class Measure(msgspec.Struct, frozen=True, array_like=True):
    """One bar: times, number of beats, the chord's pitch classes with the root first, kind of section."""

    start: float
    end: float
    beats: float
    chord: tuple[int, ...]
    section: str


class SungWord(msgspec.Struct, frozen=True):
    """A sung word of the aligned lyrics: section tags before it, white space after it."""

    text: str
    start: float
    end: float


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of music. `tonic` is a pitch class."""

    title: str
    tags: str
    seed: int
    voice_seed: int
    vocal_gender: Gender
    duration: float
    tonic: int
    mode: Mode
    bars: tuple[Measure, ...]
    words: tuple[SungWord, ...]
    parts: tuple[Part, ...]

    @property
    def lyrics(self) -> str:
        """The words that are sung, or the marker of a piece without any."""
        return "".join(word.text for word in self.words).strip() or INSTRUMENTAL

    @property
    def tempos(self) -> list[tuple[float, float, float]]:
        """The tempo map as (start, end, beats per minute)."""
        found: list[tuple[float, float, float]] = []
        for bar in self.bars:
            start, bpm = bar.start if found else 0.0, round(bar.beats * 60 / (bar.end - bar.start), 3)
            if found and abs(found[-1][2] - bpm) < 0.01:
                start = found.pop()[0]
            found.append((start, bar.end, bpm))
        return found or [(0.0, self.duration, 120.0)]

    @property
    def bpm(self) -> float:
        """The tempo of the longest stretch, in beats a minute."""
        return max(self.tempos, key=lambda tempo: tempo[1] - tempo[0])[2]

    @property
    def singers(self) -> tuple[Part, ...]:
        """The parts that are sung."""
        return tuple(part for part in self.parts if part.stem in SINGERS)

    @property
    def band(self) -> tuple[Part, ...]:
        """The parts that are played."""
        return tuple(part for part in self.parts if part.stem not in SINGERS)

    @property
    def lead(self) -> tuple[ScoreNote, ...]:
        """The notes of the instrument that carries the tune where there is no singing."""
        return next((part.notes for part in self.parts if part.name.startswith("Lead ")), ())


_Timed = TypeVar("_Timed", ScoreNote, Measure, SungWord)


def rng(*purpose: object) -> random.Random:
    """Return a generator of the same numbers for the same purpose, such as ("melody", seed, "chorus").

    Each decision has its own, so that a further decision in one place changes nothing in another.
    """
    return random.Random(":".join(map(str, purpose)).encode("utf-8", "surrogatepass"))


def bounded_duration(seconds: float) -> float:
    """Return `seconds` within what can be played; the shortest duration for NaN and infinity."""
    return round(min(max(seconds, MIN_DURATION), MAX_DURATION), 3) if math.isfinite(seconds) else MIN_DURATION


def ordered(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Return the parts in the order of the stems."""
    return tuple(sorted(parts, key=lambda part: (STEM_NAMES.index(part.stem), part.name, part.colour)))


def excerpt(
    score: Score, start: float = 0.0, end: float = math.inf, *, shift: float = 0.0, stretch: float = 1.0
) -> Score:
    """Return what is heard from `start` to `end` seconds, `stretch` times as long, beginning at `shift`.

    Notes and bars across the edges are cut; a word belongs to the excerpt in which it starts. The bounds are
    brought into the score; an empty excerpt has no parts.
    """
    start = min(max(start, 0.0), score.duration)
    end = min(max(end, start), score.duration)

    def moved(items: Iterable[_Timed]) -> Iterable[_Timed]:
        for item in items:
            first, last = max(item.start, start), min(item.end, end)
            if last - first > _AUDIBLE:
                first, last = (first - start) * stretch + shift, (last - start) * stretch + shift
                yield msgspec.structs.replace(item, start=first, end=last)

    bars = [
        msgspec.structs.replace(bar, beats=bar.beats * share)
        for bar in score.bars
        if (share := (min(bar.end, end) - max(bar.start, start)) / (bar.end - bar.start)) > 0
    ]
    parts = (msgspec.structs.replace(part, notes=tuple(moved(part.notes))) for part in score.parts)
    return msgspec.structs.replace(
        score,
        duration=(end - start) * stretch + shift,
        bars=tuple(moved(bars)),
        words=tuple(moved(word for word in score.words if start <= word.start < end)),
        parts=tuple(part for part in parts if part.notes),
    )


def join(first: Score, at: float, second: Score) -> Score:
    """Return `first` up to `at` seconds, then all of `second`; title, tags, key and voice are the first's."""
    head = excerpt(first, 0.0, at)
    tail = excerpt(second, shift=head.duration)
    parts: dict[tuple[str, str, str, int], Part] = {}
    for part in (*head.parts, *tail.parts):
        known = parts.setdefault((part.name, part.stem, part.sound, part.colour), part)
        if known is not part:
            notes = known.notes + part.notes
            parts[part.name, part.stem, part.sound, part.colour] = msgspec.structs.replace(part, notes=notes)
    words = head.words
    if words and tail.words and not words[-1].text[-1:].isspace():
        words = (*words[:-1], msgspec.structs.replace(words[-1], text=words[-1].text + "\n"))
    return msgspec.structs.replace(
        head,
        duration=tail.duration,
        bars=head.bars + tail.bars,
        words=words + tail.words,
        parts=ordered(parts.values()),
    )
