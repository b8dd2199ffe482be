"""M4A files: the frames of an MP3 in the container of MPEG-4 (ISO/IEC 14496-12 and -14).

There is no AAC encoder among the sandbox's libraries, and none is needed: MPEG-4 carries MP3 frames as they
are (object type 0x6B), and browsers and players take them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

RATE: Final = 48_000
FRAME_SAMPLES: Final = 1152
DELAY: Final = 1105
"""Samples that an encoder (576) and a decoder (529) put before the first of the music."""

_BIT_RATES: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MP3: Final = 0x6B
_IDENTITY: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def mp3_frames(data: bytes) -> Iterator[bytes]:
    """The audio frames of an MP3 at 48 kHz, without tags and without the frame that only tells its length."""
    at = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        size = data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9]
        at = 10 + size
    first = True
    while at + 4 <= len(data):
        head, rate = data[at : at + 2], data[at + 2] >> 4
        if head[0] != 0xFF or head[1] & 0xFE != 0xFA or not 0 < rate < 15:
            return  # a tag at the end, or nothing that is MPEG-1 layer III
        size = 144 * _BIT_RATES[rate] * 1000 // RATE + (data[at + 2] >> 1 & 1)
        frame = data[at : at + size]
        if len(frame) == size and not (first and (b"Info" in frame[:40] or b"Xing" in frame[:40])):
            yield frame
        first = False
        at += size


def to_m4a(mp3: bytes, samples: int) -> bytes:
    """An M4A of `samples` samples at 48 kHz from an MP3 of them."""
    frames = list(mp3_frames(mp3))
    ticks = len(frames) * FRAME_SAMPLES
    start = _box(b"ftyp", b"M4A ", bytes(4), b"M4A mp42isom")
    moov = _moov(frames, ticks, samples, 0)
    return start + _moov(frames, ticks, samples, len(start) + len(moov) + 8) + _box(b"mdat", *frames)


def _moov(frames: list[bytes], ticks: int, samples: int, offset: int) -> bytes:
    """The index: one track, whose frames stand one after the other from `offset` on."""
    speed = struct.pack(">IH10x", 0x10000, 0x100)  # plays at its own speed, at full volume
    clock = struct.pack(">4I", 0, 0, RATE, samples)
    header = _full(b"mvhd", clock, speed, _IDENTITY, bytes(24), struct.pack(">I", 2))
    number = struct.pack(">5I8x", 0, 0, 1, 0, samples)
    volume = struct.pack(">4H", 0, 0, 0x100, 0)
    track = _full(b"tkhd", number, volume, _IDENTITY, bytes(8), flags=7)
    edit = _box(b"edts", _full(b"elst", struct.pack(">4I", 1, samples, DELAY, 0x10000)))
    media = _box(
        b"mdia",
        _full(b"mdhd", struct.pack(">4IHH", 0, 0, RATE, ticks, 0x55C4, 0)),
        _full(b"hdlr", bytes(4), b"soun", bytes(12), b"Sound\0"),
        _box(
            b"minf",
            _full(b"smhd", bytes(4)),
            _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1))),
            _table(frames, offset),
        ),
    )
    return _box(b"moov", header, _box(b"trak", track, edit, media))


def _table(frames: list[bytes], offset: int) -> bytes:
    sound = struct.pack(">6xH8xHH4xI", 1, 2, 16, RATE << 16)
    entry = _box(b"mp4a", sound, _full(b"esds", _descriptors(frames)))
    return _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), entry),
        _full(b"stts", struct.pack(">3I", 1, len(frames), FRAME_SAMPLES)),
        _full(b"stsc", struct.pack(">4I", 1, 1, len(frames), 1)),
        _full(b"stsz", struct.pack(f">2I{len(frames)}I", 0, len(frames), *map(len, frames))),
        _full(b"stco", struct.pack(">2I", 1, offset)),
    )


def _descriptors(frames: list[bytes]) -> bytes:
    """What decodes the frames: the object type, and the bit rate."""
    rate = sum(map(len, frames)) * 8 * RATE // max(len(frames) * FRAME_SAMPLES, 1)
    largest = max(map(len, frames), default=0)
    config = struct.pack(">BB3sII", _MP3, 0x15, largest.to_bytes(3, "big"), rate, rate)
    inner = _descriptor(4, config) + _descriptor(6, b"\x02")
    return _descriptor(3, struct.pack(">HB", 1, 0) + inner)


def _descriptor(tag: int, data: bytes) -> bytes:
    return bytes((tag, len(data))) + data


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", len(data) + 8) + kind + data


def _full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *parts)
