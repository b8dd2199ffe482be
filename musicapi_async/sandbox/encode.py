"""Files of music: MP3, WAV and MIDI bytes, and what an uploaded file holds. Needs the `sandbox` extra.

M4A files are MP3 frames in another container (`container.py`).
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, MutableSequence
from typing import Final

import msgspec
import numpy as np

from musicapi_async.sandbox.libraries import Encoder, MidiMessage, SoundFile, id3, lameenc, mido, soundfile
from musicapi_async.sandbox.render import SAMPLE_RATE, Audio
from musicapi_async.sandbox.score import MAX_DURATION, Part, Score, Tempo

__all__ = [
    "AudioInfo",
    "cut",
    "import_audio",
    "read_audio",
    "splice",
    "to_midi",
    "to_mp3",
    "to_wav",
]

_BIT_RATE: Final = 128
"""Kilobits per second of an MP3: what streaming services send."""

_FRAME_BYTES: Final = 144 * _BIT_RATE * 1000 // SAMPLE_RATE
_FRAME_SAMPLES: Final = 1152
_ENCODER_DELAY: Final = 576
"""Bytes and samples of an MP3 frame at this rate, and the samples that LAME puts before the first."""

_TICKS: Final = 960
"""MIDI ticks per beat: half a millisecond at 120 bpm."""

_BLOCK: Final = 1 << 18
"""Frames of a foreign file that are decoded at a time."""


class AudioInfo(msgspec.Struct, frozen=True):
    """What an audio file holds. `seed` follows from its bytes.

    Uploads are not transcribed: `compose(Brief(seed=info.seed, duration=info.duration))` stands in for one.
    """

    duration: float
    sample_rate: int
    channels: int
    format: str
    seed: int


def to_mp3(
    array: Audio, *, title: str, artist: str, tags: str, lyrics: str, cover_png: bytes | None = None
) -> bytes:
    """A stereo 48 kHz MP3 with ID3 title, artist, genre (`tags`), lyrics and cover.

    Nearly all its time is LAME's: 7 ms per second of music with `lameenc` installed, which can be told to be
    quick, else 30 ms with the one inside libsndfile, which cannot. Both release the interpreter lock.
    """
    encoder = lameenc()
    frames = mp3_by_soundfile(array) if encoder is None else mp3_by_lameenc(encoder.Encoder(), array)
    tag = id3()
    header = tag.ID3()
    header.add(tag.TIT2(encoding=3, text=[_text(title)]))
    header.add(tag.TPE1(encoding=3, text=[_text(artist)]))
    if tags:
        header.add(tag.TCON(encoding=3, text=[_text(tags)]))
    if lyrics:
        header.add(tag.USLT(encoding=3, lang="und", desc="", text=_text(lyrics)))
    if cover_png is not None:
        header.add(tag.APIC(encoding=3, mime="image/png", type=3, desc="Cover", data=cover_png))
    buffer = io.BytesIO(frames)
    header.save(buffer, v2_version=4, padding=lambda _: 0)
    return buffer.getvalue()


def mp3_by_lameenc(encoder: Encoder, array: Audio) -> bytes:
    encoder.silence()
    encoder.set_channels(2)
    encoder.set_in_sample_rate(SAMPLE_RATE)
    encoder.set_bit_rate(_BIT_RATE)
    encoder.set_quality(7)
    frames = bytes(encoder.encode(_pcm(array).tobytes()) + encoder.flush())
    return info_frame(frames, len(array)) + frames


def info_frame(frames: bytes, samples: int) -> bytes:
    """The silent first frame that tells a player the exact length, which `lameenc` leaves out.

    It holds the number of frames and bytes, and the samples of delay and padding to cut off. Without it
    players guess the length from the file's size and take the cover for a quarter of a second of music.
    """
    count, size = len(frames) // _FRAME_BYTES, len(frames)
    padding = max(count * _FRAME_SAMPLES - _ENCODER_DELAY - samples, 0)
    gap = (_ENCODER_DELAY << 12 | min(padding, 0xFFF)).to_bytes(3, "big")
    header = frames[:4] + bytes(32)  # as the first frame, and an empty side information
    xing = b"Info" + struct.pack(">III", 3, count + 1, size + _FRAME_BYTES)
    lame = b"LAME3.100" + bytes(12) + gap + bytes(12)
    return (header + xing + lame).ljust(_FRAME_BYTES, b"\0")


def mp3_by_soundfile(array: Audio) -> bytes:
    buffer = io.BytesIO()
    soundfile().write(
        buffer, array, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III",
        bitrate_mode="VARIABLE", compression_level=0.8,
    )  # fmt: skip
    return buffer.getvalue()


def to_wav(array: Audio) -> bytes:
    """A stereo 48 kHz WAV of 16 bits, 192 kB per second."""
    buffer = io.BytesIO()
    soundfile().write(buffer, _pcm(array), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def to_midi(score: Score) -> bytes:
    """A MIDI file of the notes as they are heard: one track per part, tempo map and lyrics in the first."""
    ticks = _ticker(score.tempos)
    file = mido().MidiFile(type=1, ticks_per_beat=_TICKS, charset="utf-8")
    meta: list[tuple[int, int, MidiMessage]] = [
        (0, 0, mido().MetaMessage("track_name", name=_text(score.title)[:120]))
    ]
    meta += [
        (ticks(tempo.start), 1, mido().MetaMessage("set_tempo", tempo=_microseconds(tempo.bpm)))
        for tempo in score.tempos
    ]
    meta += [
        (ticks(word.start), 2, mido().MetaMessage("lyrics", text=_text(word.text))) for word in score.words
    ]
    file.tracks.append(_track(meta, ticks(score.duration)))
    melodic = 0
    for part in score.parts:
        if part.sound == "drums":
            channel = 9
        else:
            channel = melodic % 15
            channel += channel >= 9
            melodic += 1
        file.tracks.append(_track(_events(part, channel, ticks), 0))
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def _events(part: Part, channel: int, ticks: Callable[[float], int]) -> list[tuple[int, int, MidiMessage]]:
    events: list[tuple[int, int, MidiMessage]] = [
        (0, 0, mido().MetaMessage("track_name", name=part.name)),
        (0, 1, mido().Message("program_change", channel=channel, program=part.program)),
    ]
    for note in part.notes:
        loud = min(max(round(note.velocity * 127), 1), 127)
        begin = ticks(note.start)
        end = max(ticks(note.end), begin + 1)
        events.append((begin, 3, mido().Message("note_on", channel=channel, note=note.pitch, velocity=loud)))
        events.append((end, 2, mido().Message("note_off", channel=channel, note=note.pitch, velocity=0)))
    return events


def _track(events: list[tuple[int, int, MidiMessage]], end: int) -> MutableSequence[MidiMessage]:
    """A track of (tick, rank within the tick, message)."""
    track = mido().MidiTrack()
    now = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido().MetaMessage("end_of_track", time=max(0, end - now)))
    return track


def _microseconds(bpm: float) -> int:
    """A tempo as MIDI stores it: whole microseconds per beat, in 24 bits."""
    return min(max(round(60_000_000 / bpm), 1), (1 << 24) - 1)


def _ticker(tempos: tuple[Tempo, ...]) -> Callable[[float], int]:
    marks: list[tuple[float, float, float]] = []
    tick = 0.0
    for index, tempo in enumerate(tempos):
        rate = _TICKS * 1_000_000 / _microseconds(tempo.bpm)
        if index:
            tick += (tempo.start - marks[-1][0]) * marks[-1][2]
        marks.append((tempo.start, tick, rate))

    def ticks(seconds: float) -> int:
        start, base, rate = next((mark for mark in reversed(marks) if mark[0] <= seconds), marks[0])
        return max(0, round(base + (seconds - start) * rate))

    return ticks


def cut(array: Audio, start: float, end: float) -> Audio:
    """The samples from `start` to `end` seconds; bounds outside the audio are brought into it."""
    first = round(max(start, 0.0) * SAMPLE_RATE)
    return array[first : max(first, round(max(end, 0.0) * SAMPLE_RATE))]


def splice(first: Audio, at: float, second: Audio) -> Audio:
    """`first` up to `at` seconds and then `second`, with 10 ms of fade on both sides of the seam."""
    head = np.array(cut(first, 0.0, at))
    tail = np.array(second)
    fade = min(SAMPLE_RATE // 100, len(head), len(tail))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)[:, None]
    head[len(head) - fade :] *= ramp[::-1]
    tail[:fade] *= ramp
    return np.concatenate((head, tail))


def import_audio(data: bytes) -> AudioInfo:
    """What an uploaded file holds, from its header; decodes nothing.

    Knows WAV, MP3, FLAC, Ogg and AIFF. Raises ValueError for anything else, for an empty file and for one of
    more than 8 minutes, the API's own limit.
    """
    with _opened(data) as file:
        return _info(file, data)


def read_audio(data: bytes) -> Audio:
    """The sound of an uploaded file as stereo at 48 kHz. Raises ValueError as `import_audio` does."""
    with _opened(data) as file:
        info = _info(file, data)
        blocks: list[Audio] = []
        try:
            left = file.frames
            while left > 0:
                block = file.read(min(left, _BLOCK), dtype="float32", always_2d=True)
                if not len(block):
                    break
                left -= len(block)
                blocks.append(np.ascontiguousarray(block[:, [0, min(1, info.channels - 1)]]))
        except soundfile().SoundFileError as error:
            raise ValueError(f"the audio file breaks off: {error}") from error
    sound = np.nan_to_num(np.concatenate(blocks)) if blocks else np.zeros((0, 2), np.float32)
    if info.sample_rate == SAMPLE_RATE or not len(sound):
        return sound
    source = np.arange(len(sound)) / info.sample_rate
    wanted = np.arange(round(len(sound) * SAMPLE_RATE / info.sample_rate)) / SAMPLE_RATE
    return np.stack([np.interp(wanted, source, side) for side in sound.T], axis=1).astype(np.float32)


def _opened(data: bytes) -> SoundFile:
    try:
        return soundfile().SoundFile(io.BytesIO(data))
    except (soundfile().SoundFileError, RuntimeError, TypeError) as error:
        start = data[:8].hex(" ") or "nothing"
        raise ValueError(
            f"not an audio file that can be read: {len(data)} bytes that begin with {start}"
        ) from error


def _info(file: SoundFile, data: bytes) -> AudioInfo:
    duration = file.frames / file.samplerate if file.samplerate > 0 else 0.0
    if duration <= 0:
        raise ValueError("the audio file is empty")
    if duration > MAX_DURATION:
        raise ValueError(f"the audio file lasts {duration:.0f} s; at most {MAX_DURATION:.0f} s are taken")
    digest = hashlib.blake2b(data, digest_size=6).digest()
    return AudioInfo(
        round(duration, 3), file.samplerate, file.channels, file.format.lower(), int.from_bytes(digest, "big")
    )


def _pcm(array: Audio) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return (np.clip(array, -1.0, 1.0) * np.float32(32767)).astype(np.int16)


def _text(text: str) -> str:
    """`text` without what UTF-8 or a null-terminated field cannot hold."""
    return text.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8")
