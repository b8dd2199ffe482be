"""The files of a clip: MP3, M4A, WAV, MIDI and cover picture, and what an uploaded file holds.

Importing this needs the libraries of the `sandbox` extra. Everything here blocks: for worker threads. There
is no AAC encoder among the libraries, and none is needed: MPEG-4 carries MP3 frames as they are (object type
0x6B), and browsers and players take them.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Final, NamedTuple, Protocol

import numpy as np

from .ordered_tasks import OrderedClip
from .recipes import Recipe, heard, score_of
from .render import SAMPLE_RATE, Audio, gain_of, render
from .score import MAX_DURATION, Brief, Part, Score, rng
from .style import read_style

# These ship no types. All are imported here, once, since the import of an extension is not safe while other
# threads ask for it.
soundfile: Final = import_module("soundfile")
mido: Final = import_module("mido")
id3: Final = import_module("mutagen.id3")
lameenc: Final = import_module("lameenc")

UPLOADED: Final = "synth"
"""The one of the twelve stems that holds the sound of an uploaded file; the others are silent there."""

_BIT_RATE: Final = 128
"""Kilobits per second of an MP3: what streaming services send."""

_STREAM_BIT_RATE: Final = 64
"""Kilobits per second of a stream."""

_FRAME: Final = 1152
_FRAME_BYTES: Final = 144 * _BIT_RATE * 1000 // SAMPLE_RATE
_ENCODER_DELAY: Final = 576
_DELAY: Final = _ENCODER_DELAY + 529
"""Samples and bytes of an MP3 frame at this rate, and the samples that the encoder, and encoder and decoder,
put before the first of the music."""


class Encoded(NamedTuple):
    """The frames of a stereo MP3, and the samples of music that they hold."""

    frames: bytes
    samples: int


class _Message(Protocol):
    """A MIDI message, `time` ticks after the one before it."""

    time: int


_TICKS: Final = 960
"""MIDI ticks per beat: half a millisecond at 120 bpm."""

_BLOCK: Final = 1 << 18
"""Samples of an uploaded file that are decoded at a time."""

_SHORT: Final = 12.0
_REMEMBERED: Final = 128
"""Seconds of a short song, and how many short songs (192 kB each at most) and cover pictures are remembered.

A test begins with a new sandbox, and a sandbox of the same seed makes the same songs.
"""


def make_file(clip: OrderedClip, ending: str) -> bytes:
    """Return the file of `clip` with this ending: mp3, m4a, wav, mid or png. Takes up to some seconds.

    The ending "stream" is the unfinished audio that is there before: mono MP3 frames of less quality.
    """
    stems = clip.stem_names if clip.stem else None
    if ending == "png":
        return cover_picture(clip.recipe.brief)
    if ending == "mid":
        return to_midi(heard(clip.recipe, stems))
    recipe = (clip.stem_source or clip).recipe
    if ending == "wav":
        return to_wav(sound_of(recipe, stems))
    if ending == "stream":
        return mp3_frames(sound_of(recipe, stems).mean(axis=1), _STREAM_BIT_RATE)
    picture = None if clip.stem else cover_picture(clip.recipe.brief)
    music = _encoded(recipe, stems)
    mp3 = to_mp3(music, title=clip.title, artist="Sandbox", tags=clip.tags, lyrics=clip.lyrics, cover=picture)
    return to_m4a(mp3, music.samples) if ending == "m4a" else mp3


def _encoded(recipe: Recipe, stems: tuple[str, ...] | None) -> Encoded:
    """Return a recipe, or some of its stems, as MP3 frames."""
    if recipe.how == "compose" and recipe.fixed is None and recipe.brief.duration <= _SHORT:
        return _encoded_short(recipe.brief, stems)
    return encode(sound_of(recipe, stems))


@lru_cache(_REMEMBERED)
def _encoded_short(brief: Brief, stems: tuple[str, ...] | None) -> Encoded:
    return encode(sound_of(_composed(brief), stems))


@lru_cache(_REMEMBERED)  # one recipe for a brief, so that the scores and gains of recipes are found as well
def _composed(brief: Brief) -> Recipe:
    return Recipe("compose", brief)


def sound_of(recipe: Recipe, stems: tuple[str, ...] | None = None) -> Audio:
    """Return the sound of a recipe, or of some of its stems; all twelve sum to the whole."""
    if recipe.how == "upload" and recipe.tape is not None and recipe.tape.data:
        sound = read_audio(recipe.tape.data)
        return sound if stems is None or UPLOADED in stems else sound * 0
    if recipe.how == "join" and recipe.uploaded:
        first, second = recipe.sources
        return _spliced(sound_of(first, stems), recipe.start, sound_of(second, stems))
    if recipe.how == "cut" and recipe.uploaded:
        return _cut(sound_of(recipe.sources[0], stems), recipe.start, recipe.end)
    return render(score_of(recipe)) if stems is None else render(score_of(recipe), stems, _gain(recipe))


@lru_cache(32)
def _gain(recipe: Recipe) -> float:
    return gain_of(render(score_of(recipe), gain=1.0))


def _cut(sound: Audio, start: float, end: float) -> Audio:
    first = round(max(start, 0.0) * SAMPLE_RATE)
    return sound[first : max(first, round(max(end, 0.0) * SAMPLE_RATE))]


def _spliced(first: Audio, at: float, second: Audio) -> Audio:
    """Return `first` up to `at` seconds and then `second`, with a fade of 10 ms on both sides of the seam."""
    head, tail = _cut(first, 0.0, at).copy(), second.copy()
    fade = min(SAMPLE_RATE // 100, len(head), len(tail))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)[:, None]
    head[len(head) - fade :] *= ramp[::-1]
    tail[:fade] *= ramp
    return np.concatenate((head, tail))


def to_wav(sound: Audio) -> bytes:
    """Return a stereo 48 kHz WAV of 16 bits, 192 kB per second."""
    buffer = io.BytesIO()
    soundfile.write(buffer, _pcm(sound), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def to_mp3(
    music: Encoded, *, title: str, artist: str, tags: str, lyrics: str, cover: bytes | None = None
) -> bytes:
    """Return a stereo 48 kHz MP3 with ID3 title, artist, genre (`tags`), lyrics and cover."""
    tag = id3.ID3()
    tag.add(id3.TIT2(encoding=3, text=[_text(title)]))
    tag.add(id3.TPE1(encoding=3, text=[_text(artist)]))
    if tags:
        tag.add(id3.TCON(encoding=3, text=[_text(tags)]))
    if lyrics:
        tag.add(id3.USLT(encoding=3, lang="und", desc="", text=_text(lyrics)))
    if cover is not None:
        tag.add(id3.APIC(encoding=3, mime="image/png", type=3, desc="Cover", data=cover))
    buffer = io.BytesIO(_length_frame(music) + music.frames)
    tag.save(buffer, v2_version=4, padding=_no_padding)
    return buffer.getvalue()


def encode(sound: Audio) -> Encoded:
    """Return stereo sound as the frames of an MP3."""
    return Encoded(mp3_frames(sound, _BIT_RATE), len(sound))


def mp3_frames(sound: Audio, bit_rate: int) -> bytes:
    """Return the frames of an MP3 and nothing else; stereo, or mono for sound without a second axis.

    Its time is LAME's, 7 ms per second of music; it releases the interpreter lock.
    """
    encoder = lameenc.Encoder()
    encoder.silence()
    encoder.set_channels(2 if sound.ndim == 2 else 1)
    encoder.set_in_sample_rate(SAMPLE_RATE)
    encoder.set_bit_rate(bit_rate)
    encoder.set_quality(7)
    return bytes(encoder.encode(_pcm(sound).tobytes()) + encoder.flush())


def _no_padding(info: object) -> int:
    return 0


def _length_frame(music: Encoded) -> bytes:
    """Return the silent first frame that tells a player the exact length, which `lameenc` leaves out.

    It holds the number of frames and bytes, and the samples of delay and padding to cut off. Without it
    players guess the length from the file's size and take the cover for a quarter of a second of music.
    """
    count, size = len(music.frames) // _FRAME_BYTES, len(music.frames)
    padding = max(count * _FRAME - _ENCODER_DELAY - music.samples, 0)
    gap = (_ENCODER_DELAY << 12 | min(padding, 0xFFF)).to_bytes(3, "big")
    xing = b"Info" + struct.pack(">III", 3, count + 1, size + _FRAME_BYTES)
    lame = b"LAME3.100" + bytes(12) + gap + bytes(12)
    return (music.frames[:4] + bytes(32) + xing + lame).ljust(_FRAME_BYTES, b"\0")


def to_m4a(mp3: bytes, samples: int) -> bytes:
    """Return an M4A (ISO/IEC 14496-12 and -14) with the frames of an MP3 that `to_mp3` made of `samples`."""
    tag = 10 + (mp3[6] << 21 | mp3[7] << 14 | mp3[8] << 7 | mp3[9])
    frames = mp3[tag + _FRAME_BYTES :]
    start = _box(b"ftyp", b"M4A ", bytes(4), b"M4A mp42isom")
    size = len(start) + len(_moov(len(frames) // _FRAME_BYTES, samples, 0)) + 8
    return start + _moov(len(frames) // _FRAME_BYTES, samples, size) + _box(b"mdat", frames)


def _moov(frames: int, samples: int, offset: int) -> bytes:
    """Return the index: one track, whose frames follow each other from `offset` on."""
    identity = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    config = struct.pack(">BB3sII", 0x6B, 0x15, _FRAME_BYTES.to_bytes(3, "big"), *[_BIT_RATE * 1000] * 2)
    decoder = bytes((4, len(config))) + config + b"\x06\x01\x02"
    descriptor = bytes((3, len(decoder) + 3)) + struct.pack(">HB", 1, 0) + decoder
    sound = struct.pack(">6xH8xHH4xI", 1, 2, 16, SAMPLE_RATE << 16)
    entry = _box(b"mp4a", sound, _box(b"esds", bytes(4), descriptor))
    table = _box(
        b"stbl",
        _box(b"stsd", struct.pack(">2I", 0, 1), entry),
        _box(b"stts", struct.pack(">4I", 0, 1, frames, _FRAME)),
        _box(b"stsc", struct.pack(">5I", 0, 1, 1, frames, 1)),
        _box(b"stsz", struct.pack(">3I", 0, _FRAME_BYTES, frames)),
        _box(b"stco", struct.pack(">3I", 0, 1, offset)),
    )
    source = _box(b"dinf", _box(b"dref", struct.pack(">2I", 0, 1), _box(b"url ", struct.pack(">I", 1))))
    media = _box(
        b"mdia",
        _box(b"mdhd", struct.pack(">5IHH", 0, 0, 0, SAMPLE_RATE, frames * _FRAME, 0x55C4, 0)),
        _box(b"hdlr", bytes(8), b"soun", bytes(12), b"Sound\0"),
        _box(b"minf", _box(b"smhd", bytes(8)), source, table),
    )
    clock = struct.pack(">5IIH10x", 0, 0, 0, SAMPLE_RATE, samples, 0x10000, 0x100)
    number = struct.pack(">6I8x4H", 7, 0, 0, 1, 0, samples, 0, 0, 0x100, 0)
    return _box(
        b"moov",
        _box(b"mvhd", clock, identity, bytes(24), struct.pack(">I", 2)),
        _box(
            b"trak",
            _box(b"tkhd", number, identity, bytes(8)),
            _box(b"edts", _box(b"elst", struct.pack(">5I", 0, 1, samples, _DELAY, 0x10000))),
            media,
        ),
    )


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", len(data) + 8) + kind + data


def to_midi(score: Score) -> bytes:
    """Return a MIDI file of the notes: tempo map and lyrics in the first track, then a track per part."""
    tempos: list[tuple[float, float, int]] = []
    tick = 0.0
    for start, end, bpm in score.tempos:
        beat = min(max(round(60_000_000 / bpm), 1), (1 << 24) - 1)  # in microseconds, as the file holds it
        tempos.append((start, tick, beat))
        tick += (end - start) * _TICKS * 1_000_000 / beat

    def ticks(seconds: float) -> int:
        start, base, beat = next((tempo for tempo in reversed(tempos) if tempo[0] <= seconds), tempos[0])
        return max(0, round(base + (seconds - start) * _TICKS * 1_000_000 / beat))

    meta = mido.MetaMessage
    events = [(0, 0, meta("track_name", name=_text(score.title)[:120]))]
    events += [(ticks(start), 1, meta("set_tempo", tempo=beat)) for start, _, beat in tempos]
    events += [(ticks(word.start), 2, meta("lyrics", text=_text(word.text))) for word in score.words]
    file = mido.MidiFile(type=1, ticks_per_beat=_TICKS, charset="utf-8")
    file.tracks.append(_track(events))
    channels = [channel for channel in range(16) if channel != 9]
    melodic = [part for part in score.parts if part.sound != "drums"]
    for part in score.parts:
        channel = channels[melodic.index(part) % 15] if part in melodic else 9
        file.tracks.append(_track(_events(part, channel, ticks)))
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def _events(part: Part, channel: int, ticks: Callable[[float], int]) -> list[tuple[int, int, _Message]]:
    """Return the messages of a part as (tick, rank within the tick, message)."""
    events: list[tuple[int, int, _Message]] = [
        (0, 0, mido.MetaMessage("track_name", name=part.name)),
        (0, 1, mido.Message("program_change", channel=channel, program=part.program)),
    ]
    for note in part.notes:
        start, loud = ticks(note.start), max(round(note.velocity * 127), 1)
        for rank, name, tick in ((3, "note_on", start), (2, "note_off", max(ticks(note.end), start + 1))):
            message = mido.Message(name, channel=channel, note=note.pitch, velocity=loud, time=0)
            events.append((tick, rank, message))
    return events


def _track(events: list[tuple[int, int, _Message]]) -> object:
    track = mido.MidiTrack()
    now = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        message.time, now = tick - now, tick
        track.append(message)
    return track


@lru_cache(_REMEMBERED)  # both as a file of its own and within the MP3
def cover_picture(brief: Brief) -> bytes:
    """Return a PNG of 512 by 512 pixels, a few kB: a sun over hills, in the colours of the song's mood.

    Minor keys are cold and dark, major ones warm and bright; the more energy, the steeper the hills.
    """
    style = read_style(brief.tags, brief.description or "", brief.negative_tags, brief.seed)
    draw = rng("cover", brief.seed, brief.title[:200], style.genre)
    bright, hue = (
        (0.5, draw.uniform(0.53, 0.8)) if style.mode == "minor" else (1.0, draw.uniform(-0.03, 0.17))
    )
    shift, hills = draw.uniform(0.05, 0.2), 3 + round(3 * style.energy)
    shades = [(hue + shift * n / 47, 0.65, (0.4 + 0.4 * n / 47) * bright) for n in range(48)]  # of the sky
    shades += [(hue + 0.1, 0.35, 0.75 + 0.08 * ring) for ring in range(3)]
    shades += [(hue + hill / 18, 0.45, 0.6 * bright * (1 - hill / (hills + 1))) for hill in range(hills)]
    palette = [colorsys.hsv_to_rgb(shade % 1, *rest) for shade, *rest in shades]
    at = np.arange(512) / 512
    picture = np.repeat((at * 48).astype(np.uint8)[:, None], 512, axis=1)
    across, down, radius = draw.uniform(0.25, 0.75), draw.uniform(0.2, 0.45), draw.uniform(0.08, 0.16)
    squared = (at[None, :] - across) ** 2 + (at[:, None] - down) ** 2
    for ring in range(3):
        picture[squared < (radius * (1.7 - 0.35 * ring)) ** 2] = 48 + ring
    for hill in range(hills):
        waves = [np.sin(at * draw.uniform(1, 3) * 2.5**n + draw.uniform(0, 6.3)) / 1.9**n for n in range(3)]
        line = 0.55 + 0.42 * hill / hills + 0.06 * style.energy * np.sum(waves, axis=0)
        picture[at[:, None] > line] = 51 + hill
    rows = np.pad(picture, ((0, 0), (1, 0)))  # each row begins with its filter: none
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 512, 512, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(round(part * 255) for colour in palette for part in colour)),
        (b"IDAT", zlib.compress(rows.tobytes(), 1)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def load(data: bytes) -> tuple[float, int]:
    """Return the duration in seconds of an uploaded file, and a seed that follows from its bytes.

    Reads the header and decodes nothing. Knows WAV, MP3, FLAC, Ogg, AIFF, and the M4A of the sandbox.
    Raises ValueError for anything else, for an empty file and for one of more than 8 minutes, the API's own
    limit.
    """
    try:
        with soundfile.SoundFile(_opened(data)) as file:
            duration = file.frames / file.samplerate if file.samplerate > 0 else 0.0
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        start = data[:8].hex(" ") or "nothing"
        text = f"not an audio file that can be read: {len(data)} bytes that begin with {start}"
        raise ValueError(text) from error
    if duration <= 0:
        raise ValueError("the audio file is empty")
    if duration > MAX_DURATION:
        raise ValueError(f"the audio file lasts {duration:.0f} s; at most {MAX_DURATION:.0f} s are taken")
    digest = hashlib.blake2b(data, digest_size=6).digest()
    return round(duration, 3), int.from_bytes(digest, "big")


def _opened(data: bytes) -> io.BytesIO:
    """Return a file to read; of an M4A its media data, which is an MP3 where it was made here."""
    at = 0
    while data[4:8] == b"ftyp" and at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"mdat":
            return io.BytesIO(data[at + 8 : at + size])
        at += max(size, 8)
    return io.BytesIO(data)


def read_audio(data: bytes) -> Audio:
    """Return the sound of an uploaded file as stereo at 48 kHz. Raises ValueError as `load` does."""
    load(data)
    blocks = [np.zeros((0, 2), np.float32)]
    try:
        with soundfile.SoundFile(_opened(data)) as file:
            rate, most = file.samplerate, file.frames
            while most > 0 and len(block := file.read(min(most, _BLOCK), dtype="float32", always_2d=True)):
                most -= len(block)
                blocks.append(np.nan_to_num(block[:, [0, min(1, file.channels - 1)]]))
    except soundfile.SoundFileError as error:
        raise ValueError(f"the audio file breaks off: {error}") from error
    sound: Audio = np.concatenate(blocks)
    if rate == SAMPLE_RATE or not len(sound):
        return sound
    source = np.arange(len(sound)) / rate
    wanted = np.arange(round(len(sound) * SAMPLE_RATE / rate)) / SAMPLE_RATE
    return np.column_stack([np.interp(wanted, source, sound[:, side]) for side in (0, 1)]).astype(np.float32)


def _pcm(sound: Audio) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return (np.clip(sound, -1.0, 1.0) * np.float32(32767)).astype(np.int16)


def _text(text: str) -> str:
    """Return `text` without what UTF-8 or a null-terminated field cannot hold."""
    return text.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8")
