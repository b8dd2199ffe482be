"""Whether a file of music has its end, where no one said how long it is.

A host that sends no length cannot be told from one that broke off. So the last frame, page or chunk has to be
there whole, and the sound has to be about as long as the clip is said to be. What follows the sound, tags or
padding, is not looked at. Files are walked from header to header, and only up to a number of them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from .media import JUNK, LONGEST_FRAME, Broken, Frame, Read, chunks, end_of_tags, first_frame, frame_at

Walk: TypeAlias = "Callable[[Read, int], float | None]"
"""Walks to the end of a file; the seconds of sound if they are known, `Broken` if the end is not there."""

WINDOW: Final = 256 * 1024
"""Bytes that are read at once; frames have some hundred."""
MOST_FRAMES: Final = 1_500_000
"""Frames that are walked: ten hours of MP3, and two seconds of work."""
MOST_GAPS: Final = 16
"""Places between the frames of an MP3 where something else stands."""
ADTS_HERTZ: Final = (96e3, 88.2e3, 64e3, 48e3, 44.1e3, 32e3, 24e3, 22.05e3, 16e3, 12e3, 11.025e3, 8e3)
"""Sample rates by their index (ISO/IEC 14496-3, 1.6.3.4)."""
MISSING: Final = 2.0
"""Seconds that the sound may be shorter than the clip is said to be, and as much again per hundred seconds:
encoders round, and trim silence."""


def cut_of(kind: str, read: Read, size: int, duration: float | None) -> str:
    """Say what is missing at the end of a file of this kind, '' if nothing seems to be.

    `duration` is that of the clip in seconds, if it is known. FLAC and M4A say nothing new here: the one
    cannot be walked without decoding it, the other was checked with its header.
    """
    walk = WALKS.get(kind)
    if walk is None:
        return ""
    try:
        seconds = walk(_buffered(read), size)
    except Broken as broken:
        return f"it is cut off: {broken}"
    if seconds is None or duration is None or not math.isfinite(duration):
        return ""
    if seconds < duration - MISSING - duration * MISSING / 100:
        return f"it is cut off: {seconds:.1f} s of sound came, the clip has {duration:.1f} s"
    return ""


def _buffered(read: Read) -> Read:
    """`read` for many small reads, each a little further on."""
    start, window = 0, b""

    def buffered(at: int, count: int) -> bytes:
        nonlocal start, window
        if not (start <= at and at + count <= start + len(window)):
            if count > WINDOW:
                return read(at, count)
            start, window = at, read(at, WINDOW)
        return window[at - start : at - start + count]

    return buffered


def _mp3(read: Read, size: int) -> float | None:
    at = first_frame(read, size)
    first = frame_at(read(at, 4), 0)
    seconds, gaps = 0.0, 0
    for _ in range(MOST_FRAMES):
        head = read(at, 4)
        frame = frame_at(head, 0)
        if first is None or (frame is not None and not frame.length):
            return None  # a free bit rate, by which frames do not say where they end
        if frame is None or frame.fixed != first.fixed:
            if 0 < len(head) < 4 and head[0] == 0xFF:
                raise Broken("its last frame has no header")
            gaps += 1
            following = _next_frame(read, at, size, first) if gaps <= MOST_GAPS else None
            if following is None:
                return seconds if gaps <= MOST_GAPS else None
            at = following
            continue
        at += frame.length
        if at > size:
            raise Broken(f"its last frame lacks {at - size} bytes")
        seconds += frame.seconds
    return None


def _next_frame(read: Read, at: int, size: int, first: Frame) -> int | None:
    """Where the sound goes on after something else: at two frames, or one with which the file ends."""
    data = read(at, JUNK + LONGEST_FRAME + 4)
    found = data.find(0xFF)
    while 0 <= found < JUNK:
        frame = frame_at(data, found)
        if frame is not None and frame.fixed == first.fixed and frame.length:
            second = frame_at(data, found + frame.length)
            if at + found + frame.length == size or (second is not None and second.fixed == first.fixed):
                return at + found
        found = data.find(0xFF, found + 1)
    return None


def _aac(read: Read, size: int) -> float | None:
    at = end_of_tags(read, size)
    seconds = 0.0
    for _ in range(MOST_FRAMES):
        head = read(at, 7)
        if head[:1] == b"\xff" and len(head) < 7:
            raise Broken("its last frame has no header")
        if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 11:
            return seconds
        length = int.from_bytes(head[3:6], "big") >> 5 & 0x1FFF
        if length < 7:
            return None
        at += length
        if at > size:
            raise Broken(f"its last frame lacks {at - size} bytes")
        seconds += 1024 * ((head[6] & 3) + 1) / ADTS_HERTZ[head[2] >> 2 & 15]
    return None


def _ogg(read: Read, size: int) -> None:
    at, last = 0, 0
    for _ in range(MOST_FRAMES):
        head = read(at, 27)
        if head[:4] != b"OggS":
            break
        table = read(at + 27, head[26]) if len(head) == 27 else b""
        if len(head) < 27 or len(table) < head[26] or at + 27 + len(table) + sum(table) > size:
            raise Broken("its last page is not whole")
        at, last = at + 27 + len(table) + sum(table), head[5]
    else:
        return
    if not last & 4:  # RFC 3533, 6
        raise Broken("its last page is not marked as the last")


def _wav(read: Read, size: int) -> float | None:
    """Sizes of chunks were checked with the header; here it is about samples of which no size was known."""
    order = ">" if read(0, 4) == b"RIFX" else "<"
    rate = 0
    for chunk in chunks(read, 12, order, 1):
        if chunk.name == b"fmt ":
            (rate,) = struct.unpack(f"{order}I", read(chunk.start + 8, 4))
        elif chunk.name == b"data":
            return min(chunk.length, size - chunk.start) / rate if rate else None
    return None


def _mid(read: Read, size: int) -> None:
    length, _, tracks = struct.unpack(">IHH", read(4, 8))
    found = [chunk for chunk in chunks(read, 8 + length, ">", 0) if chunk.name == b"MTrk"]
    if found and found[-1].start + found[-1].length > size:
        raise Broken(f"its last track lacks {found[-1].start + found[-1].length - size} bytes")
    if len(found) < tracks:
        raise Broken(f"{len(found)} of its {tracks} tracks are there")


WALKS: Final[Mapping[str, Walk]] = MappingProxyType(
    {"mp3": _mp3, "aac": _aac, "ogg": _ogg, "wav": _wav, "mid": _mid}
)
"""How the end of each kind is reached."""
