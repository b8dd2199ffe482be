"""Scores as sound: waveforms of single notes, placed on twelve stems that sum to the mix. Needs numpy.

Notes are made at half the rate of the finished audio and brought up once per mix: half the task, and what is
lost lies above 12 kHz. A note is a table of one cycle read at its pitch under an envelope; a render keeps
the notes that it has made, since music repeats itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .score import STEM_NAMES, Part, Score, ScoreNote, rng

Audio = npt.NDArray[np.float32]
"""Samples between -1 and 1; stereo has the shape (samples, 2)."""

SAMPLE_RATE: Final = 48_000
_SYNTHESIS_RATE: Final = SAMPLE_RATE // 2
"""Samples per second of the finished audio, and of single notes."""

_PEAK: Final = 0.95
"""The loudest sample of a mix; below full scale so that lossy encoders do not clip it."""

_LARGEST_GAIN: Final = 4.0
"""A nearly silent score is not brought up to full scale."""

_FADE: Final = 0.02
"""Seconds of fade at the very end, so that a cut song does not click."""

_CYCLE: Final = 2_048
_CYCLES: Final = 1_000
"""Samples of a table of one cycle, 8 kB, and how many tables are cached from render to render."""


class Timbre(NamedTuple):
    """A bright cycle over a mellow one: partial k at k ** -tilt, decays per second, seconds of attack."""

    tilt: float
    bright: float
    mellow: float
    attack: float
    release: float
    detune: float = 0.0
    drive: float = 0.0
    vibrato: float = 0.0
    even: float = 1.0


_TIMBRES: Final = {
    "piano": Timbre(1.3, 5.0, 1.2, 0.003, 0.12),
    "guitar": Timbre(1.0, 9.0, 2.2, 0.003, 0.12),
    "electric": Timbre(1.1, 4.0, 1.2, 0.003, 0.12, drive=2.0),
    "distortion": Timbre(1.0, 0.5, 0.5, 0.003, 0.08, detune=0.002, drive=6.0),
    "bass": Timbre(1.5, 9.0, 1.6, 0.003, 0.12),
    "synthbass": Timbre(1.2, 8.0, 0.0, 0.004, 0.05),
    "epiano": Timbre(2.2, 6.0, 1.1, 0.004, 0.2),
    "organ": Timbre(1.2, 0.0, 0.0, 0.012, 0.06, vibrato=0.003),
    "strings": Timbre(1.4, 0.0, 0.0, 0.12, 0.3, detune=0.004),
    "pluck": Timbre(0.9, 6.0, 6.0, 0.003, 0.15, detune=0.003),
    "brass": Timbre(0.9, 0.0, 0.0, 0.035, 0.08),
    "flute": Timbre(2.2, 0.0, 0.0, 0.05, 0.08, vibrato=0.006),
    "reed": Timbre(0.9, 0.0, 0.0, 0.03, 0.08, vibrato=0.007, even=0.45),
}

_DRUMS: Final = {
    # General MIDI key: seconds, hertz, cycles of sweep, level and decay of the tone, then of the noise, dull
    36: (0.3, 48, 5.5, 1.1, 11, 0.25, 250, False), 38: (0.24, 190, 0, 0.5, 28, 0.3, 19, True),
    45: (0.35, 95, 2, 0.8, 9, 0, 1, False), 35: (1.6, 40, 6, 0.9, 3, 0.3, 4, True),
    42: (0.07, 0, 0, 0, 1, 0.3, 60, False), 49: (1.4, 0, 0, 0, 1, 0.35, 3, False),
    54: (0.12, 0, 0, 0, 1, 0.3, 30, False), 70: (0.06, 0, 0, 0, 1, 0.25, 45, False),
}  # fmt: skip

_FORMANTS: Final = {
    "a": ((850, 90, 1.0), (1220, 110, 0.6), (2810, 170, 0.22)),
    "e": ((530, 80, 1.0), (1950, 130, 0.45), (2650, 170, 0.25)),
    "i": ((310, 70, 1.0), (2450, 150, 0.35), (3200, 200, 0.22)),
    "o": ((540, 80, 1.0), (880, 100, 0.6), (2700, 180, 0.12)),
    "u": ((360, 70, 1.0), (800, 100, 0.4), (2650, 180, 0.08)),
}
"""A woman's formants by vowel: (hertz, bandwidth, level); a man's lie at 0.84 of them."""

_DESK: Final = {
    # stem: level, place from -1 left to 1 right, echo
    "vocals": (0.85, 0.0, 0.22), "backing vocals": (0.35, 0.25, 0.3), "drums": (0.75, 0.0, 0.0),
    "bass": (0.62, 0.0, 0.0), "guitar": (0.2, -0.4, 0.1), "keyboard": (0.22, 0.35, 0.12),
    "percussion": (0.9, 0.5, 0.0), "strings": (0.16, -0.25, 0.2), "synth": (0.17, 0.2, 0.25),
    "fx": (0.5, 0.0, 0.0), "brass": (0.2, 0.45, 0.15), "woodwinds": (0.3, -0.5, 0.25),
}  # fmt: skip

_ECHOES: Final = ((0.031, 0.5, 0), (0.047, 0.45, 1), (0.113, 0.3, 0), (0.139, 0.28, 1), (0.251, 0.15, 0))
"""Early reflections: seconds, level, and the side (0 left, 1 right) on which they arrive."""

_HALF_BAND: Final = tuple(float(np.sinc(n - 0.5) * np.cos(np.pi * (n - 0.5) / 12) ** 2) for n in range(1, 7))
"""Half of a windowed sinc that finds the samples between samples."""


def render(score: Score, stems: Iterable[str] = STEM_NAMES, gain: float | None = None) -> Audio:
    """Return the sound of some stems of `score`, stereo at 48 kHz; equal scores give equal samples.

    Args:
        score: The piece. Takes 2 to 4 ms per second of music.
        stems: Names of `STEM_NAMES`; by default all.
        gain: The factor of the mix (see `gain_of`), so that stems sum to it; by default the loudest sample
            is brought to 0.95.
    """
    samples = round(score.duration * SAMPLE_RATE)
    count = (samples + 1) // 2
    sides = np.zeros((2, count), np.float32)
    cache: dict[tuple[str, int, int, int, str], Audio] = {}
    for stem in stems:
        level, place, echo = _DESK[stem]
        parts = [part for part in score.parts if part.stem == stem]
        if not parts:
            continue
        dry = np.zeros(count, np.float32)
        for part in parts:
            _play(dry, part, cache, male=score.vocal_gender == "m")
        for index, angle in enumerate((1 + place, 1 - place)):
            sides[index] += dry * np.float32(level * np.cos(angle * np.pi / 4) * np.sqrt(2))
        for seconds, share, index in _ECHOES if echo else ():
            late = round(seconds * _SYNTHESIS_RATE)
            sides[index][late:] += dry[: max(count - late, 0)] * np.float32(level * share * echo)
    fade = min(round(_FADE * _SYNTHESIS_RATE), count)
    sides[:, count - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    stereo = _at_full_rate(sides)[:samples]
    stereo *= np.float32(gain_of(stereo) if gain is None else gain)
    return stereo


def gain_of(mix: Audio) -> float:
    """Return the factor that brings a whole mix to its level."""
    peak = float(np.max(np.abs(mix), initial=0.0))
    return min(_PEAK / peak, _LARGEST_GAIN) if peak > 0 else 1.0


def _play(line: Audio, part: Part, cache: dict[tuple[str, int, int, int, str], Audio], *, male: bool) -> None:
    """Add the notes of a part to `line`."""
    for note in part.notes:
        ticks = max(round((note.end - note.start) * 250), 4)
        key = part.sound, note.pitch, ticks, part.colour, note.syllable
        wave = cache.get(key)
        if wave is None:
            wave = cache[key] = _wave(part, note, ticks / 250, male=male)
        at = round(note.start * _SYNTHESIS_RATE)
        wave = wave[: max(len(line) - at, 0)]
        line[at : at + len(wave)] += wave * np.float32(note.velocity)


def _wave(part: Part, note: ScoreNote, seconds: float, *, male: bool) -> Audio:
    """Return the waveform of a note held for `seconds`, with its release; about 1 loud."""
    if part.sound == "drums":
        return _drum(note.pitch)
    hertz = 440.0 * 2 ** ((note.pitch - 69) / 12)
    if part.sound in ("voice", "choir"):
        return _sung(hertz, seconds, note.syllable, part, male=male)
    timbre = _TIMBRES[part.sound]
    tilt = round(timbre.tilt / (0.85 + 0.3 * rng(part.sound, part.colour).random()), 2)
    t = _time(seconds + timbre.release)
    phase = hertz * t
    if timbre.vibrato:
        phase = phase + timbre.vibrato * hertz / 33 * np.sin(33 * t) * np.minimum(t * 3, 1)
    wave = np.zeros(len(t), np.float32)
    for lean, decay, detune in (
        (tilt, timbre.bright, timbre.detune),
        (tilt + 1.2, timbre.mellow, -timbre.detune),
    ):
        layer = _read(
            _tone_cycle(lean, timbre.even, _partials(hertz)), phase * (1 + detune) if detune else phase
        )
        wave += layer * _f32(np.exp(-decay * t)) if decay else layer
    if timbre.drive:
        wave = np.tanh(wave * np.float32(timbre.drive)) * np.float32(0.8)
    return _held(wave * np.float32(0.6), timbre.attack, timbre.release)


@cache
def _drum(key: int) -> Audio:
    seconds, hertz, sweep, loud, decay, noisy, noise_decay, dull = _DRUMS.get(key, _DRUMS[70])
    t = _time(seconds)
    noise = _noise()[: len(t)] if dull else _hiss(len(t))
    wave = noise * np.exp(-noise_decay * t) * noisy
    if loud:
        wave = (
            wave + np.sin(2 * np.pi * (hertz * t + sweep * (1 - np.exp(-32 * t)))) * np.exp(-decay * t) * loud
        )
    return _held(wave, 0.0005, 0.01)


def _sung(hertz: float, seconds: float, syllable: str, part: Part, *, male: bool) -> Audio:
    """Return a syllable: its consonant at the very start, then its vowel until the end of the note."""
    draw = rng("voice", part.colour)
    size = round(draw.uniform(0.93, 1.07) * (0.84 if male else 1.0), 3)
    tilt, rate, depth = round(draw.uniform(0.35, 0.65), 2), draw.uniform(30, 39), draw.uniform(0.003, 0.008)
    air = draw.uniform(0.01, 0.03)
    consonant, vowel = syllable[:-1][:1], syllable[-1:]
    t = _time(seconds)
    sway = depth * np.clip((t - 0.12) * 5, 0, 1) * np.sin(rate * t) - 0.02 * np.exp(-t * 40)
    phase = hertz * t + np.cumsum(sway) * (hertz / _SYNTHESIS_RATE)
    cycle = _vowel_cycle(vowel if vowel in _FORMANTS else "a", size, tilt, round(hertz, 1), _partials(hertz))
    wave = _read(cycle, phase)
    if part.sound == "choir":
        return _held((wave + _read(cycle, phase * 1.006 + 0.4)) * np.float32(0.6), 0.05, 0.04)
    attack = 0.008 if consonant in "mnlrwy" else 0.02
    wave = _held(wave + _hiss(len(t)) * np.float32(air), attack, 0.04)
    if consonant and consonant in "szcxfhvjtkpbdgq":
        length, decay = (0.06, 40) if consonant in "szcxfhvj" else (0.02, 150)
        count = min(round(length * _SYNTHESIS_RATE), len(wave))
        loud = 0.12 if consonant in "hfv" else 0.25
        wave[:count] += _hiss(count) * _f32(np.exp(-t[:count] * decay) * loud)
    return wave


def _partials(hertz: float) -> int:
    """Return how many partials of a tone `_SYNTHESIS_RATE` can hold, at most 80."""
    return max(1, min(int(_SYNTHESIS_RATE / 2.1 / hertz), 80))


@lru_cache(_CYCLES)
def _tone_cycle(tilt: float, even: float, partials: int) -> Audio:
    k = np.arange(1, partials + 1)
    return _cycle(np.where(k % 2, 1.0, even) / k**tilt)


@lru_cache(_CYCLES)
def _vowel_cycle(vowel: str, size: float, tilt: float, hertz: float, partials: int) -> Audio:
    k = np.arange(1, partials + 1)
    levels = np.full(partials, 0.01)
    for centre, width, loud in _FORMANTS[vowel]:
        levels += loud / (1 + ((k * hertz - centre * size) / width) ** 2)
    return _cycle(levels / k**tilt)


def _cycle(levels: npt.NDArray[np.float64]) -> Audio:
    """Return one cycle of these partials at an RMS of 0.35, so that timbres are about equally loud."""
    spectrum = np.zeros(_CYCLE // 2 + 1, np.complex128)
    spectrum[1 : len(levels) + 1] = levels * np.exp(-0.5j * np.pi * (np.arange(len(levels)) % 3))
    cycle = np.fft.irfft(spectrum)
    return _f32(cycle * (0.35 / max(float(np.sqrt(np.mean(cycle**2))), 1e-12)))


def _read(cycle: Audio, phase: npt.NDArray[np.float64]) -> Audio:
    """Return a cycle at `phase`, which counts cycles."""
    return cycle.take((phase * _CYCLE).astype(np.int64) & (_CYCLE - 1))


@cache
def _noise() -> Audio:
    return _f32(np.random.default_rng(7).standard_normal(_SYNTHESIS_RATE * 2))


def _hiss(count: int) -> Audio:
    """Return noise without its low half."""
    noise = np.resize(_noise(), count + 1)
    return (noise[1:] - noise[:-1]) * np.float32(0.7)


def _time(seconds: float) -> npt.NDArray[np.float64]:
    return np.arange(max(1, round(seconds * _SYNTHESIS_RATE))) / _SYNTHESIS_RATE


def _f32(array: npt.ArrayLike) -> Audio:
    return np.asarray(array, np.float32)


def _held(wave: npt.ArrayLike, attack: float, release: float) -> Audio:
    """Return `wave` faded in over `attack` and out over `release` seconds at its end."""
    shaped = _f32(wave)
    rise, fall = (min(max(1, round(length * _SYNTHESIS_RATE)), len(shaped)) for length in (attack, release))
    shaped[:rise] *= np.linspace(0, 1, rise, endpoint=False, dtype=np.float32)
    shaped[-fall:] *= np.linspace(1, 0, fall, dtype=np.float32) ** 2
    return shaped


def _at_full_rate(sides: Audio) -> Audio:
    """Return both sides brought from `_SYNTHESIS_RATE` to twice the rate and interleaved."""
    count = sides.shape[1]
    stereo = np.empty((count * 2, 2), np.float32)
    between, pair = np.empty(count, np.float32), np.empty(count, np.float32)
    for index, side in enumerate(sides):
        padded = np.pad(side, (5, 6))
        between[:] = 0
        for step, tap in enumerate(_HALF_BAND):
            np.add(padded[5 - step : 5 - step + count], padded[6 + step : 6 + step + count], out=pair)
            between += np.multiply(pair, np.float32(tap), out=pair)
        stereo[0::2, index] = side
        stereo[1::2, index] = between
    return stereo
