"""Recognize the type of a music file by its first bytes, and check that its header can be decoded.

A downloaded file is paid for, so unusual files are accepted if decoders accept them: with junk before the
first frame, with sizes that the encoder of a stream could not know, with unknown chunks. A file is refused if
no decoder could start with it. Nothing is decoded, and only some kilobytes are read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

Read: TypeAlias = Callable[[int, int], bytes]
"""Returns the bytes of the file from an offset on: as many as requested, or fewer at its end."""

MAGIC: Final = (
    (0, b"ID3", "mp3"),
    (8, b"WAVE", "wav"),
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (4, b"ftyp", "m4a"),
    (0, b"MThd", "mid"),
)
TEXT_BYTES: Final = frozenset({9, 10, 13, *range(32, 127)})
HEAD: Final = 512
"""Bytes that identify a type."""
MOST_TAGS: Final = 8
"""ID3 tags one after the other; files have two at most."""
JUNK: Final = 64 * 1024
"""Bytes between the tags and the first frame of an MP3; common players search about that far."""
LONGEST_FRAME: Final = 2881
"""Bytes of an MPEG audio frame: layer II, 160 kbit/s at 8 kHz."""
MOST_CHUNKS: Final = 2048
"""Chunks or boxes that are read; common files have less than 20."""
STREAMED: Final = 0x7FFFF000
"""Sizes from here on say that the writer could not know them; sox puts this one, others 0xFFFFFFFF."""
WAV_SLACK: Final = 1024
"""Bytes by which a WAV may be shorter than it says; some writers count headers twice, or miss a pad byte."""
MOST_CHANNELS: Final = 256
HIGHEST_HERTZ: Final = 1_536_000
"""Hertz: twice the highest rate of studio converters."""
PCM: Final = frozenset({1, 3})
"""WAV formats of plain samples, whole and floating."""

_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS: Final = MappingProxyType(
    {
        (True, 3): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
        (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
        (True, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        (False, 3): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
        (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
        (False, 1): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    }
)
"""Bit rates by whether it is MPEG-1 and by the layer's two bits (ISO/IEC 11172-3 and 13818-3)."""
AFTER_AUDIO: Final = (b"TAG", b"APET", b"LYRI", b"ID3", b"3DI")


def kind_of(read: Read, size: int) -> str | None:
    """Return the extension that fits a file's bytes; None for text, HTML and JSON; '' for unknown data."""
    head = read(0, HEAD)
    if head[:3] == b"ID3":
        return _tagged_kind(read, size)
    for offset, mark, extension in MAGIC:
        if head[offset : offset + len(mark)] == mark:
            return extension
    if synced := _synced_kind(head):
        return synced
    return None if TEXT_BYTES.issuperset(head[:64]) or head.lstrip()[:1] in (b"<", b"{", b"[") else ""


def fault_of(kind: str, read: Read, size: int) -> str:
    """Name the fault of a file's header, such as "not a decodable MP3: …"; '' if there is none.

    Args:
        kind: the extension of its type, from `kind_of`.
        read: reads the file; at most some 100 kB are read of it.
        size: bytes of the file.
    """
    check = CHECKS.get(kind)
    if check is None:
        return ""
    try:
        check(read, size)
    except Broken as broken:
        return f"not a decodable {'MIDI file' if kind == 'mid' else kind.upper()}: {broken}"
    return ""


class Broken(Exception):
    """A file that cannot be decoded, and why."""


class Frame(NamedTuple):
    """The header of an MPEG audio frame: version, layer and sample rate, which all frames share,
    the length in bytes, 0 where the bit rate is free, and the seconds of sound.
    """

    fixed: tuple[int, int, int]
    length: int
    seconds: float


def frame_at(data: bytes, at: int) -> Frame | None:
    """Return the frame that begins at `at`, if one does."""
    if len(data) - at < 4 or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, data[at + 1] >> 1 & 3
    rate, hertz = data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or layer == 0 or rate == 15 or hertz == 3:
        return None
    bits = _KBITS[version == 3, layer][rate] * 1000
    pad = data[at + 2] >> 1 & 1
    if layer == 3:
        length = (12 * bits // _RATES[version][hertz] + pad) * 4
    else:
        slots = 72 if layer == 1 and version != 3 else 144
        length = slots * bits // _RATES[version][hertz] + pad
    samples = 384 if layer == 3 else 576 if layer == 1 and version != 3 else 1152
    return Frame((version, layer, hertz), length if bits else 0, samples / _RATES[version][hertz])


def _synced_kind(head: bytes) -> str:
    """Tell MPEG audio from AAC (ADTS), which begin with the same bits; AAC has none for its layer."""
    if len(head) < 2 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return ""
    return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"


def end_of_tags(read: Read, size: int) -> int:
    """Return the offset at which the ID3v2 tags at the start end."""
    at = 0
    for _ in range(MOST_TAGS):
        head = read(at, 10)
        if head[:3] != b"ID3":
            break
        if len(head) < 10:
            raise Broken("its ID3 tag is cut off")
        length = int.from_bytes(head[6:10], "big")
        if max(head[6:10]) < 0x80:
            length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        # Else the size is not sync-safe, as old writers had it, and plain.
        at += 10 + length + (10 if head[5] & 0x10 else 0)
        if at > size:
            raise Broken(f"its ID3 tag of {length} bytes is longer than the file of {size}")
    return at


def _tagged_kind(read: Read, size: int) -> str:
    """Return the type after the ID3 tags: taggers put them before FLAC and AAC, too."""
    try:
        head = read(end_of_tags(read, size), 4)
    except Broken:
        return "mp3"
    if head == b"fLaC":
        return "flac"
    return _synced_kind(head) or "mp3"


def first_frame(read: Read, size: int) -> int:
    """Return the offset of the first frame of an MP3: another one, or the end of the file, follows it."""
    start = end_of_tags(read, size)
    if start >= size:
        raise Broken("nothing follows its ID3 tag")
    data = read(start, JUNK + LONGEST_FRAME + 4)
    at = data.find(0xFF)
    while 0 <= at < JUNK:
        frame = frame_at(data, at)
        if frame is not None and _is_followed(data, at, frame, start + len(data) >= size):
            return start + at
        at = data.find(0xFF, at + 1)
    place = f"after its ID3 tag of {start}" if start else "at its start"
    raise Broken(f"no two MPEG audio frames follow each other in the {min(len(data), JUNK)} bytes {place}")


def _is_followed(data: bytes, at: int, frame: Frame, whole: bool) -> bool:
    """Return True if a frame of the same stream, or the end of the file, follows a frame.

    Args:
        data: a part of the file.
        at: the offset of the frame in it.
        frame: the header of the frame.
        whole: True if the data reaches to the end of the file.
    """
    if (
        not frame.length
    ):  # a free bit rate: all frames have one length, which only the place of the next one shows
        following = data.find(data[at : at + 2], at + 4, at + 2 * LONGEST_FRAME)
        second = frame_at(data, following) if following >= 0 else None
        return second is not None and second == frame
    end = at + frame.length
    second = frame_at(data, end)
    if second is not None:
        return second.fixed == frame.fixed
    rest = data[end : end + 4]
    return whole and len(data) >= end and at == 0 and (len(rest) < 4 or rest.startswith(AFTER_AUDIO))


def _aac(read: Read, size: int) -> None:
    at = end_of_tags(read, size)
    head = read(at, 7)
    if len(head) < 7 or head[2] >> 2 & 15 > 12:
        raise Broken("its first frame has no known sample rate")
    length = int.from_bytes(head[3:6], "big") >> 5 & 0x1FFF
    following = read(at + length, 2)
    if length < 7 or (_synced_kind(following) != "aac" and at + length != size):
        raise Broken("no second frame is where its first one ends")


class Chunk(NamedTuple):
    """A chunk of a file: its name, where its content begins, and how long it says that this is."""

    name: bytes
    start: int
    length: int


def chunks(read: Read, at: int, order: str, pad: int) -> Iterator[Chunk]:
    """Yield the chunks from an offset on, as far as their sizes lead.

    Args:
        read: reads the file.
        at: the offset of the first chunk.
        order: '<' or '>', the order of the bytes of a size.
        pad: 1 if chunks of an odd length have a byte of padding, else 0.
    """
    for _ in range(MOST_CHUNKS):
        head = read(at, 8)
        if len(head) < 8:
            return
        name, length = struct.unpack(f"{order}4sI", head)
        yield Chunk(name, at + 8, length)
        at += 8 + length + (length & pad)


def _wav(read: Read, size: int) -> None:
    head = read(0, 12)
    family = head[:4]
    if family not in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        raise Broken(f"it begins with {family!r} instead of b'RIFF'")
    order = ">" if family == b"RIFX" else "<"
    announced: int = struct.unpack(f"{order}I", head[4:8])[0]
    if announced < STREAMED and announced + 8 > size + WAV_SLACK:
        raise Broken(f"its header announces {announced + 8} bytes, the file has {size}")
    described = False
    for chunk in chunks(read, 12, order, 1):
        if chunk.name == b"fmt ":
            _wav_format(read(chunk.start, min(chunk.length, 26)), order)
            described = True
        elif chunk.name == b"data":
            if not described:
                raise Broken("no 'fmt ' chunk comes before its samples")
            if chunk.length < STREAMED and chunk.start + chunk.length > size + WAV_SLACK:
                raise Broken(f"{chunk.length} bytes of samples are announced, {size - chunk.start} are there")
            return
    raise Broken(f"it has no {'data' if described else 'fmt '!r} chunk")


def _wav_format(data: bytes, order: str) -> None:
    if len(data) < 14:
        raise Broken(f"its 'fmt ' chunk has {len(data)} bytes")
    form, channels, hertz, _, _ = struct.unpack(f"{order}HHIIH", data[:14])
    bits: int | None = struct.unpack(f"{order}H", data[14:16])[0] if len(data) >= 16 else None
    if form == 0xFFFE and len(data) == 26:  # the real format begins the GUID at the end
        form = struct.unpack(f"{order}H", data[24:26])[0]
    if form == 0:
        raise Broken("its format is 0, unknown")
    if not 1 <= channels <= MOST_CHANNELS:
        raise Broken(f"it claims {channels} channels")
    if not 1 <= hertz <= HIGHEST_HERTZ:
        raise Broken(f"it claims {hertz} samples per second")
    if bits is not None and (bits > 64 or (form in PCM and not bits)):
        raise Broken(f"it claims {bits} bits per sample")


def _mid(read: Read, _size: int) -> None:
    head = read(0, 14)
    if len(head) < 14:
        raise Broken("its header is cut off")
    length, form, tracks, division = struct.unpack(">IHHH", head[4:])
    if length < 6:
        raise Broken(f"its header has {length} bytes instead of 6")
    if form > 2:
        raise Broken(f"its format is {form}, not 0 to 2")
    if not tracks:
        raise Broken("it has no tracks")
    if not division:
        raise Broken("a beat has no ticks")
    if all(chunk.name != b"MTrk" for chunk in chunks(read, 8 + length, ">", 0)):
        raise Broken("no track follows its header")


_CODECS: Final = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ", b"fishead\0", b"PCM     ")


def _ogg(read: Read, size: int) -> None:
    head = read(0, 27)
    if len(head) < 27:
        raise Broken("its first page is cut off")
    if head[4]:
        raise Broken(f"its first page has version {head[4]} instead of 0")
    table = read(27, head[26])
    start, length = 27 + head[26], sum(table)
    packet = read(start, min(length, 16))
    if len(table) < head[26] or start + length > size:
        raise Broken("its first page is longer than the file")
    if not packet.startswith(_CODECS):
        raise Broken(f"its first page holds no known codec but {packet[:8]!r}")
    if packet.startswith(b"\x01vorbis") and (len(packet) < 16 or not packet[11] or not any(packet[12:16])):
        raise Broken("its Vorbis header has no channels or no sample rate")
    if packet.startswith(b"OpusHead") and (len(packet) < 10 or packet[8] > 15 or not packet[9]):
        raise Broken("its Opus header has no channels or an unknown version")


def _flac(read: Read, size: int) -> None:
    start = end_of_tags(read, size)
    head = read(start, 4 + 4 + 18)
    if len(head) < 26 or start + 4 + 4 + 34 > size:
        raise Broken("its header is cut off")
    if head[4] & 0x7F or int.from_bytes(head[5:8], "big") != 34:
        raise Broken("it does not begin with a STREAMINFO block")
    if int.from_bytes(head[10:12], "big") < 16:
        raise Broken("its blocks have less than 16 samples")
    if not int.from_bytes(head[18:21], "big") >> 4:
        raise Broken("its sample rate is 0")


def _m4a(read: Read, size: int) -> None:
    found: set[bytes] = set()
    for kind, start, end in _boxes(read, 0, size):
        if not found and end - start < 8:
            raise Broken("its ftyp box is too short")
        is_index = kind == b"moov" and kind not in found
        if is_index and all(inner != b"trak" for inner, _, _ in _boxes(read, start, end)):
            raise Broken("its moov box holds no track")
        found.add(kind)
        if found >= {b"moov", b"mdat"}:
            return  # players need no more than these
    raise Broken(f"it has no {'mdat' if b'moov' in found else 'moov'} box")


def _boxes(read: Read, at: int, limit: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes between two offsets: their types, and where the content begins and ends."""
    for _ in range(MOST_CHUNKS):
        head = read(at, min(limit - at, 16))
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head[:8])
        start = at + 8
        if length == 1 and len(head) == 16:
            length, start = int.from_bytes(head[8:], "big"), at + 16
        end = limit if length == 0 else at + length
        if end < start:
            raise Broken(f"its box {kind!r} has {length} bytes")
        if end > limit:
            raise Broken(f"its box {kind!r} of {length} bytes is longer than what holds it")
        yield kind, start, end
        at = end


CHECKS: Final[Mapping[str, Callable[[Read, int], object]]] = MappingProxyType(
    {"mp3": first_frame, "aac": _aac, "wav": _wav, "ogg": _ogg, "flac": _flac, "m4a": _m4a, "mid": _mid}
)
"""The check of the header of each kind."""
