"""Scores as sound: stems, and a mix that is exactly their sum. Needs numpy (the `sandbox` extra)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from musicapi_async.sandbox.score import STEMS, Score
from musicapi_async.sandbox.timbre import RATE, Bank, Wave

__all__ = ["SAMPLE_RATE", "Audio", "Mix", "render"]

Audio = npt.NDArray[np.float32]
"""Stereo samples between -1 and 1, of shape (samples, 2)."""

SAMPLE_RATE: Final = 48_000
"""Samples per second of everything that leaves this module."""

_PEAK: Final = 0.95
"""The loudest sample of a mix; below full scale so that lossy encoders do not clip it."""

_LARGEST_GAIN: Final = 4.0
"""A nearly silent score is not blown up to full scale."""

_FADE: Final = 0.02
"""Seconds of fade at the very end, so that a cut song does not click."""

_DESK: Final[dict[str, tuple[float, float, float]]] = {
    # stem: (level, place from -1 left to 1 right, echo)
    "vocals": (0.85, 0.0, 0.22), "backing vocals": (0.35, 0.25, 0.3), "drums": (0.75, 0.0, 0.0),
    "bass": (0.62, 0.0, 0.0), "guitar": (0.2, -0.4, 0.1), "keyboard": (0.22, 0.35, 0.12),
    "percussion": (0.9, 0.5, 0.0), "strings": (0.16, -0.25, 0.2), "synth": (0.17, 0.2, 0.25),
    "fx": (0.5, 0.0, 0.0), "brass": (0.2, 0.45, 0.15), "woodwinds": (0.3, -0.5, 0.25),
}  # fmt: skip

_ECHOES: Final = ((0.031, 0.5, 0), (0.047, 0.45, 1), (0.113, 0.3, 0), (0.139, 0.28, 1), (0.251, 0.15, 0))
"""Early reflections: seconds, level, and the side (0 left, 1 right) on which they arrive."""

_HALF_BAND: Final = tuple(float(np.sinc(n - 0.5) * np.cos(np.pi * (n - 0.5) / 12) ** 2) for n in range(1, 7))
"""Half of a windowed sinc that finds the samples between samples."""


class Mix:
    """The sound of a score. Stems are made when they are asked for, always with the same gain as in the mix.

    A mix of two minutes is 46 MB; nothing but the last mix is kept. Not safe for use by several threads.
    """

    def __init__(self, score: Score) -> None:
        self.score: Final = score
        self._samples = round(score.duration * SAMPLE_RATE)
        self._bank = Bank(score.vocal_gender == "m")
        mix = self._raised(self._desk(STEMS))
        peak = float(np.max(np.abs(mix), initial=0.0))
        self._gain = np.float32(min(_PEAK / peak, _LARGEST_GAIN) if peak > 0 else 1.0)
        mix *= self._gain
        self.audio: Final[Audio] = mix
        """The whole song, stereo at 48 kHz."""

    @property
    def names(self) -> tuple[str, ...]:
        """The stems in which something is played."""
        playing = {part.stem for part in self.score.parts if part.notes}
        return tuple(stem for stem in STEMS if stem in playing)

    def stem(self, name: str) -> Audio:
        """One of the twelve stems, silent if nobody plays it. Raises KeyError for another name."""
        if name not in STEMS:
            raise KeyError(name)
        return self.group((name,))

    def group(self, names: Iterable[str]) -> Audio:
        """Several stems together, such as everything but the singers."""
        return self._raised(self._desk(names)) * self._gain

    def stems(self) -> dict[str, Audio]:
        """All twelve stems by name; they sum to `audio`. Large: 46 MB each for two minutes."""
        return {name: self.stem(name) for name in STEMS}

    def _desk(self, names: Iterable[str]) -> tuple[Wave, Wave]:
        """Left and right at `RATE` of these stems, placed and echoed."""
        count = (self._samples + 1) // 2
        sides = np.zeros(count, np.float32), np.zeros(count, np.float32)
        for name in names:
            level, place, echo = _DESK[name]
            if (dry := self._dry(name, count)) is None:
                continue
            dry *= np.float32(level)
            for index, angle in enumerate((1 + place, 1 - place)):
                sides[index][:] += dry * np.float32(np.cos(angle * np.pi / 4) * np.sqrt(2))
            for seconds, share, side in _ECHOES if echo else ():
                late = round(seconds * RATE)
                if late < count:
                    sides[side][late:] += dry[: count - late] * np.float32(share * echo)
        fade = min(round(_FADE * RATE), count)
        for channel in sides:
            channel[count - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        return sides

    def _dry(self, name: str, count: int) -> Wave | None:
        parts = [part for part in self.score.parts if part.stem == name and part.notes]
        if not parts:
            return None
        line = np.zeros(count, np.float32)
        note = self._bank.note
        for part in parts:
            for played in part.notes:
                at = round(played.start * RATE)
                length = played.end - played.start
                wave = note(part.sound, played.pitch, length, part.colour, played.syllable)
                room = count - at
                if room <= 0:
                    continue
                if len(wave) > room:
                    wave = wave[:room]
                line[at : at + len(wave)] += wave * np.float32(played.velocity)
        return line

    def _raised(self, sides: tuple[Wave, Wave]) -> Audio:
        """Both sides brought from `RATE` to twice the rate and interleaved."""
        count = len(sides[0])
        stereo = np.zeros((count * 2, 2), np.float32)
        for index, side in enumerate(sides):
            padded = np.concatenate((np.zeros(5, np.float32), side, np.zeros(6, np.float32)))
            between = np.zeros(count, np.float32)
            for step, tap in enumerate(_HALF_BAND):
                pair = padded[5 - step : 5 - step + count] + padded[6 + step : 6 + step + count]
                between += pair * np.float32(tap)
            stereo[0::2, index] = side
            stereo[1::2, index] = between
        return stereo[: self._samples]


def render(score: Score) -> Mix:
    """The sound of `score`; equal scores give equal samples. Takes 2 to 5 ms per second of music."""
    return Mix(score)
