"""The audio libraries, which ship no types, with the types of what is used of them."""

from __future__ import annotations

import importlib
import importlib.util
import io
import threading
from collections.abc import Callable, MutableSequence
from functools import cache
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt

__all__ = ["Encoder", "MidiMessage", "SoundFile", "id3", "lameenc", "mido", "soundfile"]

_importing: Final = threading.Lock()

Samples = npt.NDArray[np.float32]


class SoundFile(Protocol):
    """An open audio file of libsndfile."""

    frames: int
    samplerate: int
    channels: int
    format: str

    def __enter__(self) -> SoundFile: ...
    def __exit__(self, *exception: object) -> None: ...
    def read(self, frames: int, dtype: str, always_2d: bool) -> Samples: ...


class _SoundFileModule(Protocol):
    SoundFile: Callable[[io.BytesIO], SoundFile]
    SoundFileError: type[Exception]
    write: Callable[..., None]


class MidiMessage(Protocol):
    """A MIDI message or meta message."""

    def copy(self, *, time: int) -> MidiMessage: ...


class _MidiFile(Protocol):
    tracks: list[MutableSequence[MidiMessage]]

    def save(self, *, file: io.BytesIO) -> None: ...


class _Mido(Protocol):
    MidiFile: Callable[..., _MidiFile]
    MidiTrack: Callable[[], MutableSequence[MidiMessage]]
    Message: Callable[..., MidiMessage]
    MetaMessage: Callable[..., MidiMessage]


class _Tags(Protocol):
    def add(self, frame: object) -> None: ...
    def save(self, file: io.BytesIO, *, v2_version: int, padding: Callable[[object], int]) -> None: ...


class _Id3(Protocol):
    ID3: Callable[[], _Tags]
    TIT2: Callable[..., object]
    TPE1: Callable[..., object]
    TCON: Callable[..., object]
    USLT: Callable[..., object]
    APIC: Callable[..., object]


class Encoder(Protocol):
    """LAME, set up step by step."""

    def silence(self) -> None: ...
    def set_channels(self, channels: int) -> None: ...
    def set_in_sample_rate(self, rate: int) -> None: ...
    def set_bit_rate(self, kilobits: int) -> None: ...
    def set_quality(self, quality: int) -> None: ...
    def encode(self, pcm: bytes) -> bytearray: ...
    def flush(self) -> bytearray: ...


class _Lameenc(Protocol):
    Encoder: Callable[[], Encoder]


def soundfile() -> _SoundFileModule:
    """libsndfile: reads and writes WAV, MP3 and more."""
    return cast("_SoundFileModule", importlib.import_module("soundfile"))


def mido() -> _Mido:
    """MIDI files."""
    return cast("_Mido", importlib.import_module("mido"))


def id3() -> _Id3:
    """Tags of MP3 files."""
    return cast("_Id3", importlib.import_module("mutagen.id3"))


def lameenc() -> _Lameenc | None:
    """The MP3 encoder that can be told to be quick, if it is installed."""
    with _importing:  # while one thread imports this extension, others would find it half made
        return _lameenc()


@cache
def _lameenc() -> _Lameenc | None:
    if importlib.util.find_spec("lameenc") is None:
        return None
    return cast("_Lameenc", importlib.import_module("lameenc"))
