"""What the sandbox's music maker writes: a brief goes in, a score comes out.

A score is plain data in seconds. Sound, MIDI, aligned lyrics, tempo and stems are all read from the same
score, so they cannot disagree; every edit (extend, replace, join) is an edit of the score. Pure Python: a
server can answer everything but the media files themselves without an audio library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

STEMS: Final = (
    "vocals",
    "backing vocals",
    "drums",
    "bass",
    "guitar",
    "keyboard",
    "percussion",
    "strings",
    "synth",
    "fx",
    "brass",
    "woodwinds",
)
"""The twelve stems of a song, in the order in which they are listed; one without a part is silent."""

MIN_DURATION: Final = 1.0
"""Seconds of the shortest piece; a shorter or senseless duration is raised to it."""

MAX_DURATION: Final = 480.0
"""Seconds of the longest piece: the longest upload that the API takes is 8 minutes."""

_SHORTEST_NOTE: Final = 0.02
"""Seconds; what a cut leaves of a note below this is dropped, since nobody would hear it."""


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a piece of music follows from; equal briefs give equal bytes.

    `duration` is in seconds. `voice_seed` is the colour of the singer: songs of one persona share it; left
    out, it follows from `seed`. Words in `tags` and `description` choose genre, mood, key, tempo ("96 bpm")
    and instruments; those in `negative_tags` forbid them.
    """

    seed: int = 0
    title: str = ""
    tags: str = ""
    lyrics: str | None = None
    description: str | None = None
    instrumental: bool = False
    vocal_gender: Literal["f", "m"] | None = None
    duration: float = 120.0
    negative_tags: str = ""
    voice_seed: int | None = None


class Note(msgspec.Struct, frozen=True, array_like=True):
    """One note: MIDI pitch, start and end in seconds, velocity 0-1, and for a singer what is sung."""

    pitch: int
    start: float
    end: float
    velocity: float
    syllable: str = ""


class Part(msgspec.Struct, frozen=True):
    """The notes of one instrument. `sound` names how it is played, `colour` shades its timbre."""

    name: str
    stem: str
    program: int
    sound: str
    colour: int
    notes: tuple[Note, ...]


class Bar(msgspec.Struct, frozen=True, array_like=True):
    """One bar: times in seconds, its beats, the chord (pitch classes, root first), the kind of section."""

    start: float
    end: float
    beats: float
    chord: tuple[int, ...]
    section: str


class Section(msgspec.Struct, frozen=True):
    """A named stretch of the song, in seconds."""

    name: str
    start: float
    end: float


class Word(msgspec.Struct, frozen=True):
    """A sung word as the aligned lyrics show it: section tags in front, white space behind, seconds."""

    text: str
    start: float
    end: float


class Tempo(msgspec.Struct, frozen=True, array_like=True):
    """From `start` seconds on, `bpm` beats a minute."""

    start: float
    bpm: float


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of music; `tempos` is never empty and starts at 0."""

    title: str
    tags: str
    lyrics: str
    seed: int
    voice_seed: int
    vocal_gender: Literal["f", "m"]
    duration: float
    tonic: int
    mode: Literal["major", "minor"]
    tempos: tuple[Tempo, ...]
    bars: tuple[Bar, ...]
    sections: tuple[Section, ...]
    words: tuple[Word, ...]
    parts: tuple[Part, ...]

    @property
    def bpm(self) -> float:
        """The tempo of the longest stretch, in beats a minute."""
        ends = [tempo.start for tempo in self.tempos[1:]] + [self.duration]
        return max(zip(self.tempos, ends, strict=True), key=lambda pair: pair[1] - pair[0].start)[0].bpm

    @property
    def key(self) -> str:
        """The key in words, such as "A minor"."""
        return f"{PITCH_NAMES[self.tonic]} {self.mode}"


PITCH_NAMES: Final = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
"""The twelve pitch classes by name, C first."""


def bounded_duration(seconds: float) -> float:
    """`seconds` brought into the range that can be played; a senseless value becomes the shortest."""
    if not math.isfinite(seconds):
        return MIN_DURATION
    return round(min(max(seconds, MIN_DURATION), MAX_DURATION), 3)


def window(score: Score, start: float, end: float) -> Score:
    """What is heard of `score` from `start` to `end` seconds, moved to 0. Notes across the edges are cut.

    A word belongs to the window in which it starts. The bounds are brought into the score; an empty window
    gives a score of duration 0.
    """
    start = min(max(start, 0.0), score.duration)
    end = min(max(end, start), score.duration)

    def inside(a: float, b: float) -> tuple[float, float] | None:
        a, b = max(a, start) - start, min(b, end) - start
        return (a, b) if b - a > _SHORTEST_NOTE else None

    def notes(part: Part) -> Iterable[Note]:
        for note in part.notes:
            if (span := inside(note.start, note.end)) is not None:
                yield Note(note.pitch, span[0], span[1], note.velocity, note.syllable)

    bars: list[Bar] = []
    for bar in score.bars:
        if (span := inside(bar.start, bar.end)) is not None:
            share = (span[1] - span[0]) / (bar.end - bar.start)
            bars.append(Bar(span[0], span[1], bar.beats * share, bar.chord, bar.section))
    current = [tempo for tempo in score.tempos if tempo.start <= start][-1]
    later = [tempo for tempo in score.tempos if start < tempo.start < end]
    parts = (msgspec.structs.replace(part, notes=tuple(notes(part))) for part in score.parts)
    return msgspec.structs.replace(
        score,
        duration=end - start,
        tempos=(Tempo(0.0, current.bpm), *(Tempo(tempo.start - start, tempo.bpm) for tempo in later)),
        bars=tuple(bars),
        sections=tuple(
            Section(section.name, *span)
            for section in score.sections
            if (span := inside(section.start, section.end)) is not None
        ),
        words=tuple(
            Word(word.text, word.start - start, min(word.end, end) - start)
            for word in score.words
            if start <= word.start < end
        ),
        parts=tuple(part for part in parts if part.notes),
    )


def join(first: Score, at: float, second: Score) -> Score:
    """`first` up to `at` seconds, then the whole of `second`; title, tags, key and voice are the first's."""
    head = window(first, 0.0, at)
    offset = head.duration
    tail = _moved(second, offset)
    parts = {_identity(part): part for part in head.parts}
    for part in tail.parts:
        before = parts.get(_identity(part))
        notes = part.notes if before is None else before.notes + part.notes
        parts[_identity(part)] = msgspec.structs.replace(part, notes=notes)
    return msgspec.structs.replace(
        head,
        lyrics=_lyrics_of(first, head, second),
        duration=tail.duration,
        tempos=_merged(head.tempos + tail.tempos) if offset > 0 else tail.tempos,
        bars=head.bars + tail.bars,
        sections=head.sections + tail.sections,
        words=_line_ended(head.words) + tail.words if tail.words else head.words,
        parts=ordered(parts.values()),
    )


def rescaled(score: Score, factor: float) -> Score:
    """The same music with every time multiplied by `factor` and every tempo divided by it."""

    def notes(part: Part) -> tuple[Note, ...]:
        return tuple(
            Note(note.pitch, note.start * factor, note.end * factor, note.velocity, note.syllable)
            for note in part.notes
        )

    return msgspec.structs.replace(
        score,
        duration=score.duration * factor,
        tempos=tuple(Tempo(tempo.start * factor, tempo.bpm / factor) for tempo in score.tempos),
        bars=tuple(Bar(b.start * factor, b.end * factor, b.beats, b.chord, b.section) for b in score.bars),
        sections=tuple(Section(s.name, s.start * factor, s.end * factor) for s in score.sections),
        words=tuple(Word(word.text, word.start * factor, word.end * factor) for word in score.words),
        parts=tuple(msgspec.structs.replace(part, notes=notes(part)) for part in score.parts),
    )


def _moved(score: Score, by: float) -> Score:
    def notes(part: Part) -> tuple[Note, ...]:
        return tuple(Note(n.pitch, n.start + by, n.end + by, n.velocity, n.syllable) for n in part.notes)

    return msgspec.structs.replace(
        score,
        duration=score.duration + by,
        tempos=tuple(Tempo(tempo.start + by, tempo.bpm) for tempo in score.tempos),
        bars=tuple(Bar(b.start + by, b.end + by, b.beats, b.chord, b.section) for b in score.bars),
        sections=tuple(Section(s.name, s.start + by, s.end + by) for s in score.sections),
        words=tuple(Word(word.text, word.start + by, word.end + by) for word in score.words),
        parts=tuple(msgspec.structs.replace(part, notes=notes(part)) for part in score.parts),
    )


def _line_ended(words: tuple[Word, ...]) -> tuple[Word, ...]:
    """`words` with white space behind the last one, so that what follows is not glued to it."""
    if not words or words[-1].text[-1:].isspace():
        return words
    return (*words[:-1], msgspec.structs.replace(words[-1], text=words[-1].text + "\n"))


def _identity(part: Part) -> tuple[str, str, str, int]:
    return part.name, part.stem, part.sound, part.colour


def ordered(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(sorted(parts, key=lambda part: (STEMS.index(part.stem), part.name, part.colour)))


def _merged(tempos: tuple[Tempo, ...]) -> tuple[Tempo, ...]:
    kept: list[Tempo] = []
    for tempo in tempos:
        if not kept or tempo.bpm != kept[-1].bpm:
            kept.append(tempo)
    return tuple(kept)


def _lyrics_of(first: Score, head: Score, second: Score) -> str:
    """The text of a joined song: the first's own text if all of it is still sung, else what is left of it."""
    sung = first.lyrics if len(head.words) == len(first.words) else "".join(word.text for word in head.words)
    return "\n".join(text for text in (sung.strip("\n"), second.lyrics.strip("\n")) if text)
