"""Waveforms of single notes: pitched instruments, drums, and a singer with formants.

All are made at `RATE`, half the rate of the finished audio, and brought up once per stem: half the work, and
what is lost lies above 12 kHz. A note is a table of one cycle read at its pitch (band-limited to it) under
an envelope; a render keeps the notes it has made, since music repeats itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from musicapi_async.sandbox.chance import dice

__all__ = ["RATE", "Bank", "Wave"]

Wave = npt.NDArray[np.float32]

RATE: Final = 24_000
"""Samples per second at which notes are made."""

_TABLE: Final = 2_048
_TABLES: Final = 1_000
"""Samples of a table of one cycle, 8 kB, and how many are kept from render to render."""

_FORMANTS: Final = {
    "a": ((850, 90, 1.0), (1220, 110, 0.6), (2810, 170, 0.22)),
    "e": ((530, 80, 1.0), (1950, 130, 0.45), (2650, 170, 0.25)),
    "i": ((310, 70, 1.0), (2450, 150, 0.35), (3200, 200, 0.22)),
    "o": ((540, 80, 1.0), (880, 100, 0.6), (2700, 180, 0.12)),
    "u": ((360, 70, 1.0), (800, 100, 0.4), (2650, 180, 0.08)),
    "m": ((260, 60, 1.0), (1100, 200, 0.08), (2400, 250, 0.04)),
}
"""A woman's formants by vowel: (hertz, bandwidth, level); "m" is a hum. A man's lie at 0.84 of them."""


class Bank:
    """Makes notes and keeps them for the next time. One bank per render."""

    def __init__(self, male: bool) -> None:
        self._notes: dict[tuple[str, int, int, int, str], Wave] = {}
        self._noise = _noise()
        self._male = male
        self._players: dict[str, Callable[[float, float, float], Wave]] = {
            "piano": self._piano,
            "guitar": self._guitar,
            "electric": self._electric,
            "upright": self._upright,
            "bass": self._bass,
            "synthbass": self._synthbass,
            "distortion": self._distortion,
            "epiano": self._epiano,
            "organ": self._organ,
            "strings": self._strings,
            "pad": self._pad,
            "pluck": self._pluck,
            "brass": self._brass,
            "flute": self._flute,
            "reed": self._reed,
        }

    def note(self, sound: str, pitch: int, seconds: float, colour: int, syllable: str) -> Wave:
        """The waveform of a note held for `seconds`, with its release; about 1 loud."""
        ticks = round(seconds * 250)
        key = (sound, pitch, ticks, colour, syllable)
        wave = self._notes.get(key)
        if wave is None:
            wave = self._notes[key] = self._make(sound, pitch, max(ticks, 4) / 250, colour, syllable)
        return wave

    def _make(self, sound: str, pitch: int, seconds: float, colour: int, syllable: str) -> Wave:
        if sound == "drums":
            return self._drum(pitch)
        if sound in {"voice", "choir"}:
            return self._sung(pitch, seconds, colour, syllable, choir=sound == "choir")
        if sound == "riser":
            return self._riser(seconds)
        shade = 0.85 + 0.3 * dice(sound, colour).random()
        return self._players[sound](440.0 * 2 ** ((pitch - 69) / 12), seconds, shade)

    # Pitched instruments: (frequency in hertz, seconds held, shade of the timbre around 1) -> waveform.

    def _struck(self, f: float, seconds: float, tilt: float, bright: float, dark: float) -> Wave:
        """A string: a bright cycle that dies quickly over a dark one that dies slowly."""
        t = _time(seconds + 0.12)
        sharp = self._cycle(f, t * f, ("saw", round(tilt, 2)))
        round_ = self._cycle(f, t * f, ("saw", round(tilt + 1.2, 2)))
        return _held((sharp * np.exp(-bright * t) + round_ * np.exp(-dark * t)) * 0.6, seconds, 0.003, 0.12)

    def _piano(self, f: float, seconds: float, shade: float) -> Wave:
        return self._struck(f, seconds, 1.3 / shade, 5.0, 1.2 * (f / 260) ** 0.5)

    def _guitar(self, f: float, seconds: float, shade: float) -> Wave:
        return self._struck(f, seconds, 1.0 / shade, 9.0, 2.2)

    def _electric(self, f: float, seconds: float, shade: float) -> Wave:
        return _f32(np.tanh(self._struck(f, seconds, 1.1 / shade, 4.0, 1.2) * 1.8) * 0.7)

    def _upright(self, f: float, seconds: float, shade: float) -> Wave:
        return self._struck(f, seconds, 1.6 / shade, 12.0, 2.6)

    def _bass(self, f: float, seconds: float, shade: float) -> Wave:
        return self._struck(f, seconds, 1.4 / shade, 7.0, 1.0)

    def _synthbass(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.05)
        wave = self._cycle(f, t * f, ("saw", round(1.2 / shade, 2))) * (0.4 + 0.6 * np.exp(-8 * t))
        return _held(wave + 0.5 * np.sin(2 * np.pi * f * t), seconds, 0.004, 0.05)

    def _distortion(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.08)
        wave = self._cycle(f, t * f, ("saw", 1.0)) + self._cycle(f, t * f * 1.004, ("saw", 1.0))
        return _held(np.tanh(wave * 4 * shade) * np.exp(-0.5 * t) * 0.55, seconds, 0.003, 0.08)

    def _epiano(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.2)
        bell = np.sin(2 * np.pi * f * t + (1.4 * shade * np.exp(-6 * t)) * np.sin(2 * np.pi * f * 2 * t))
        return _held(bell * np.exp(-1.1 * t) * (1 + 0.15 * np.sin(2 * np.pi * 4.6 * t)), seconds, 0.004, 0.2)

    def _organ(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.06)
        phase = f * t + _vibrato(f, t, 6.2, 0.004)
        return _held(self._cycle(f, phase, ("organ", 0.0)) * (0.7 * shade), seconds, 0.012, 0.06)

    def _strings(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.3)
        wave = sum(
            self._cycle(f, t * f * d + o, ("saw", 1.4)) for d, o in ((0.9965, 0.1), (1.0, 0.5), (1.0037, 0.8))
        )
        return _held(wave * np.float32(0.45 * shade), seconds, 0.12, 0.3)

    def _pad(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.4)
        wave = sum(self._cycle(f, t * f * d + o, ("saw", 1.9)) for d, o in ((0.994, 0.3), (1.006, 0.7)))
        return _held(wave * np.float32(0.55 * shade), seconds, 0.25, 0.4)

    def _pluck(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.15)
        wave = self._cycle(f, t * f * 1.003, ("saw", 0.9)) + self._cycle(f, t * f * 0.997, ("saw", 1.3))
        return _held(wave * np.exp(-6 * t / shade) * 0.6, seconds, 0.003, 0.15)

    def _brass(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.08)
        opening = 1 - np.exp(-t * 18 * shade)
        bright = self._cycle(f, t * f, ("saw", 0.9)) * opening
        return _held((bright + self._cycle(f, t * f, ("saw", 2.0))) * 0.5, seconds, 0.035, 0.08)

    def _flute(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.08)
        phase = f * t + _vibrato(f, t, 5.3, 0.006)
        breath = self._hiss(len(t)) * 0.03
        return _held(self._cycle(f, phase, ("flute", 0.0)) * (0.8 * shade) + breath, seconds, 0.05, 0.08)

    def _reed(self, f: float, seconds: float, shade: float) -> Wave:
        t = _time(seconds + 0.08)
        phase = f * t + _vibrato(f, t, 5.0, 0.007)
        return _held(self._cycle(f, phase, ("reed", round(shade, 1))) * 0.7, seconds, 0.03, 0.08)

    def _riser(self, seconds: float) -> Wave:
        t = _time(seconds)
        noise = np.resize(self._noise, len(t))
        dull = np.convolve(noise, np.full(16, 1 / 16, np.float32), "same")
        x = t / t[-1] if len(t) > 1 else t
        return _held((dull * (1 - x) + noise * 0.5 * x) * x * x * 0.5, seconds - 0.03, 0.01, 0.03)

    # Drums, by General MIDI key.

    def _drum(self, pitch: int) -> Wave:
        if pitch == 36:
            t = _time(0.3)
            body = np.sin(2 * np.pi * (48 * t + 5.5 * (1 - np.exp(-t * 32)))) * np.exp(-t * 11)
            return _f32(body * 1.1 + self._hiss(len(t)) * np.exp(-t * 250) * 0.25)
        if pitch == 38:
            t = _time(0.24)
            tone = np.sin(2 * np.pi * 190 * t) * np.exp(-t * 28) * 0.5
            return _f32(tone + self._noise[: len(t)] * np.exp(-t * 19) * 0.3)
        if pitch == 39:
            t = _time(0.2)
            bursts = sum(np.exp(-np.abs(t - at) * 240) * (t >= at) for at in (0.0, 0.011, 0.023))
            return _f32(self._noise[: len(t)] * (bursts * 0.25 + np.exp(-t * 26) * 0.2))
        if pitch == 45:
            t = _time(0.35)
            return _f32(np.sin(2 * np.pi * (95 * t + 2 * (1 - np.exp(-t * 20)))) * np.exp(-t * 9) * 0.8)
        seconds, decay, level = {
            42: (0.07, 60.0, 0.3), 46: (0.25, 14.0, 0.3), 49: (1.4, 3.0, 0.35), 54: (0.12, 30.0, 0.3),
        }.get(pitch, (0.06, 45.0, 0.25))  # fmt: skip
        t = _time(seconds)
        attack = np.minimum(t * (60 if pitch == 70 else 2000), 1)
        return _held(self._hiss(len(t)) * np.exp(-t * decay) * attack * level, seconds - 0.01, 0.0005, 0.01)

    def _hiss(self, count: int) -> Wave:
        """Noise without its low half."""
        noise = np.resize(self._noise, count + 1)
        return (noise[1:] - noise[:-1]) * np.float32(0.7)

    # The singer.

    def _sung(self, pitch: int, seconds: float, colour: int, syllable: str, *, choir: bool) -> Wave:
        """A syllable: its consonant at the very start, then its vowel until the end of the note."""
        draw = dice("voice", colour)
        size = draw.uniform(0.93, 1.07) * (0.84 if self._male else 1.0)
        tilt, rate, depth, air = (
            draw.uniform(0.7, 1.3),
            draw.uniform(4.8, 6.2),
            draw.uniform(0.003, 0.008),
            draw.random(),
        )
        f = 440.0 * 2 ** ((pitch - 69) / 12)
        consonant, vowel = (syllable[:-1][:1], syllable[-1:]) if syllable else ("", "a")
        release = 0.04
        t = _time(seconds)
        sway = depth * np.clip((t - 0.12) * 5, 0, 1) * np.sin(2 * np.pi * rate * t)
        scoop = -0.02 * np.exp(-t * 40)
        phase = f * t + np.cumsum(_f32(sway + scoop), dtype=np.float64) * (f / RATE)
        vowel = vowel if vowel in _FORMANTS else "a"
        wave = self._cycle(f, phase, ("voice", vowel, round(size, 3), round(tilt, 2)))
        if choir:
            wave = (
                wave + self._cycle(f, phase * 1.006 + 0.4, ("voice", vowel, round(size, 3), round(tilt, 2)))
            ) * 0.6
        breath = self._hiss(len(t)) * np.float32(0.01 + 0.02 * air)
        attack = 0.02
        if consonant and consonant in "mnlrwy":
            hum = self._cycle(f, phase, ("voice", "m", round(size, 3), round(tilt, 2)))
            opened = np.clip((t - 0.03) / 0.05, 0, 1)
            wave = _f32(hum * (1 - opened) * 0.8 + wave * opened)
            attack = 0.008
        sung = _held(wave + breath, seconds, 0.05 if choir else attack, release)
        burst = {"s": (0.075, 30), "z": (0.06, 30), "c": (0.05, 50), "x": (0.06, 40), "f": (0.06, 40),
                 "h": (0.06, 40), "v": (0.04, 50), "j": (0.05, 50)}.get(consonant, (0.02, 150))  # fmt: skip
        if consonant in set("szcxfhvjtkpbdgq") and not choir:
            count = min(round(burst[0] * RATE), len(sung))
            shape = np.exp(-t[:count] * burst[1]) * (0.12 if consonant in "hfv" else 0.25)
            sung[:count] += self._hiss(count) * _f32(shape)
        return sung

    # One cycle of a timbre, read at a pitch.

    def _cycle(self, f: float, phase: npt.NDArray[np.float64], timbre: tuple[object, ...]) -> Wave:
        """The timbre's cycle at `phase` (in cycles), with no partial above what `RATE` can hold."""
        top = max(1, min(int(RATE / 2.1 / f), 80))
        table = _table(timbre, top, round(f, 1) if timbre[0] == "voice" else 0.0)
        at = (phase * _TABLE).astype(np.int64) & (_TABLE - 1)
        return _f32(table.take(at))


def _partials(timbre: tuple[object, ...], top: int, f: float) -> npt.NDArray[np.float64]:
    """Levels of the partials 1 to `top` of a timbre at `f` hertz."""
    k = np.arange(1, top + 1, dtype=np.float64)
    match timbre:
        case ("organ", _):
            return np.asarray(np.isin(k, (1, 2, 3, 4, 6, 8)) / k**0.6)
        case ("flute", _):
            return np.asarray(np.where(k <= 4, 0.25 ** (k - 1), 0.0))
        case ("reed", float(shade)):
            return np.where(k % 2 == 1, 1.0, 0.45) / k ** (0.9 / shade)
        case ("voice", str(vowel), float(size), float(tilt)):
            hertz = k * f
            level = np.full_like(k, 0.01)
            for centre, width, loud in _FORMANTS[vowel]:
                level += loud / (1 + ((hertz - centre * size) / width) ** 2)
            return level / k ** (0.5 * tilt)
        case (_, float(tilt)):
            return 1 / k**tilt
        case _:
            return 1 / k


@cache
def _noise() -> Wave:
    noise = np.random.default_rng(7).standard_normal(RATE * 2).astype(np.float32)
    noise.flags.writeable = False
    return noise


@lru_cache(_TABLES)
def _table(timbre: tuple[object, ...], top: int, f: float) -> Wave:
    """One cycle of a timbre at an RMS of 0.35, so that timbres are about equally loud."""
    partials = _partials(timbre, top, f)
    spectrum = np.zeros(_TABLE // 2 + 1, dtype=np.complex128)
    spectrum[1 : len(partials) + 1] = partials * np.exp(-0.5j * np.pi * (np.arange(len(partials)) % 3))
    cycle = np.fft.irfft(spectrum)
    table = _f32(cycle * (0.35 / max(float(np.sqrt(np.mean(cycle**2))), 1e-12)))
    table.flags.writeable = False
    return table


def _vibrato(f: float, t: npt.NDArray[np.float64], rate: float, depth: float) -> npt.NDArray[np.float64]:
    """What a pitch that sways by `depth` of itself, `rate` times a second, adds to its phase in cycles."""
    return np.asarray(depth * f / (2 * np.pi * rate) * np.sin(2 * np.pi * rate * t) * np.minimum(t * 3, 1))


def _time(seconds: float) -> npt.NDArray[np.float64]:
    return np.arange(max(1, round(seconds * RATE))) / RATE


def _f32(array: npt.ArrayLike) -> Wave:
    return np.asarray(array, dtype=np.float32)


def _held(wave: npt.ArrayLike, seconds: float, attack: float, release: float) -> Wave:
    """`wave` faded in over `attack`, held until `seconds`, faded out over `release`."""
    shaped = np.array(wave, dtype=np.float32)
    rise = min(max(1, round(attack * RATE)), len(shaped))
    shaped[:rise] *= np.linspace(0, 1, rise, endpoint=False, dtype=np.float32)
    fall = min(max(1, round(release * RATE)), len(shaped))
    shaped[-fall:] *= np.linspace(1, 0, fall, dtype=np.float32) ** 2
    return shaped
