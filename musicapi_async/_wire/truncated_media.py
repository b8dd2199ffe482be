"""Check that a music file has its end, where its length was not announced.

If a host sent no length, the transfer may have been cut off. So the last frame, page or chunk must be
complete, and the sound must be about as long as the duration of the clip. Tags or padding after the sound are
ignored. Files are read from header to header, up to a limit.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from .media_types import (
    AFTER_AUDIO,
    JUNK,
    LONGEST_FRAME,
    Broken,
    Frame,
    Read,
    chunks,
    end_of_tags,
    first_frame,
    frame_at,
)

Walk: TypeAlias = "Callable[[Read, int], float | None]"
"""Walks to the end of a file; the seconds of sound if they are known, `Broken` if the end is not there."""

READ_AHEAD: Final = 256 * 1024
"""Bytes that are read at once; frames have some hundred."""
MOST_FRAMES: Final = 1_500_000
"""Frames that are walked: ten hours of MP3, and two seconds of work."""
MOST_GAPS: Final = 16
"""Places between the frames of an MP3 where something else is."""
ADTS_HERTZ: Final = (96e3, 88.2e3, 64e3, 48e3, 44.1e3, 32e3, 24e3, 22.05e3, 16e3, 12e3, 11.025e3, 8e3)
"""Sample rates by their index (ISO/IEC 14496-3, 1.6.3.4)."""
TOLERATED_SECONDS: Final = 2.0
"""Seconds that the sound may be shorter than the clip is said to be, and as much again per hundred seconds:
encoders round, and trim silence."""


def cut_of(kind: str, read: Read, size: int, duration: float | None) -> str:
    """Say what is missing at the end of a file, '' if nothing seems to be.

    Of M4A there is nothing to say here: its boxes were checked with its header.

    Args:
        kind: the extension of its type, from `media_types.kind_of`.
        read: reads the file.
        size: bytes of the file.
        duration: that of the clip in seconds, if it is known.
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
    if seconds < duration - TOLERATED_SECONDS - duration * TOLERATED_SECONDS / 100:
        return f"it is cut off: {seconds:.1f} s of sound came, the clip has {duration:.1f} s"
    return ""


def _buffered(read: Read) -> Read:
    """Return `read` with a buffer, for many small reads, each a little further than the last."""
    start, window = 0, b""

    def buffered(at: int, count: int) -> bytes:
        nonlocal start, window
        if not (start <= at and at + count <= start + len(window)):
            if count > READ_AHEAD:
                return read(at, count)
            start, window = at, read(at, READ_AHEAD)
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
    """Return the offset of the sound after something else: of two frames, or one with which the file ends."""
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
    if not last & 4:  # the flag of the last page (RFC 3533, section 6)
        raise Broken("its last page is not marked as the last")


# --- FLAC: frames say their place and not their length (RFC 9639), so the last one is searched ------------

FLAC_TAIL: Final = 64 * 1024
"""Bytes at the end that are searched for the last frame; one of CD quality has at most 18 kB."""
_FLAC_SYNC: Final = re.compile(b"\xff[\xf8\xf9]")


class _Flac(NamedTuple):
    """The facts of STREAMINFO: samples of a block, samples per second, samples of the whole (0: unknown)."""

    block: int
    hertz: int
    total: int


def _flac(read: Read, size: int) -> float | None:
    start = end_of_tags(read, size)
    info = read(start + 8, 18)
    packed = int.from_bytes(info[10:18], "big")
    facts = _Flac(int.from_bytes(info[2:4], "big"), packed >> 44, packed & (1 << 36) - 1)
    if not facts.hertz:  # allowed only for what is no audio (RFC 9639, 8.2)
        return None
    longest = int.from_bytes(info[7:10], "big")  # of a frame; 0 if it is not known
    data = read(max(start + 42, size - max(FLAC_TAIL, 2 * longest)), size)
    ends = {
        found.start(): end
        for found in _FLAC_SYNC.finditer(data)
        if (end := _flac_frame_end(data[found.start() : found.start() + 16], facts)) is not None
        and (not facts.total or end <= facts.total)
    }
    if not ends:
        return None
    last = max(ends.values())
    if facts.total and last < facts.total:
        raise Broken(f"{(facts.total - last) / facts.hertz:.1f} s of its sound are not there")
    if facts.total and not any(_has_flac_checksum(data[at:]) for at, end in ends.items() if end == last):
        raise Broken("its last frame is not whole")
    return last / facts.hertz


def _flac_frame_end(head: bytes, facts: _Flac) -> int | None:
    """Return the number of samples up to the end of the frame with this header; None if it is no header."""
    if len(head) < 6 or head[2] >> 4 == 0 or head[2] & 15 == 15 or head[3] & 1 or head[3] >> 4 > 10:
        return None  # reserved values
    block_code, rate_code = head[2] >> 4, head[2] & 15
    extra = max(8 - (head[4] ^ 0xFF).bit_length() - 1, 0)  # bytes after the first, coded as in UTF-8
    at = 5 + extra
    coded = head[5:at]
    if head[4] & 0xC0 == 0x80 or any(byte & 0xC0 != 0x80 for byte in coded) or extra > 6:
        return None
    number = head[4] & (0x7F if not extra else 0x3F >> extra)
    for byte in coded:
        number = number << 6 | byte & 0x3F
    match block_code:
        case 6 | 7:
            samples = int.from_bytes(head[at : at + block_code - 5], "big") + 1
            at += block_code - 5
        case 1:
            samples = 192
        case _:
            samples = 576 << block_code - 2 if block_code < 6 else 256 << block_code - 8
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(head) or _remainder(head[: at + 1], 8, 0x07):
        return None
    begin = number if head[1] & 1 else number * facts.block  # blocks of various sizes, or of one
    return begin + samples


def _has_flac_checksum(frame: bytes) -> bool:
    """Return True if a frame ends with these bytes, or where tags or padding begin in them."""
    rest = 0
    for at, byte in enumerate(frame, 1):
        rest = _CRC_16[rest >> 8 ^ byte] ^ rest << 8 & 0xFFFF
        if not rest and (at == len(frame) or frame.startswith((*AFTER_AUDIO, bytes(4)), at)):
            return True
    return False


def _remainder(data: bytes, bits: int, polynomial: int) -> int:
    """Return the remainder of a cyclic redundancy check, which is 0 if its checksum ends the data."""
    rest, top = 0, 1 << bits - 1
    for byte in data:
        rest ^= byte << bits - 8
        for _ in range(8):
            rest = (rest << 1 ^ (polynomial if rest & top else 0)) & (1 << bits) - 1
    return rest


_CRC_16: Final = tuple(_remainder(bytes((byte,)), 16, 0x8005) for byte in range(256))


def _wav(read: Read, size: int) -> float | None:
    """Return the length of the samples that are there: with the header only known sizes were checked."""
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
    {"mp3": _mp3, "aac": _aac, "ogg": _ogg, "flac": _flac, "wav": _wav, "mid": _mid}
)
"""The walk to the end of each kind."""
