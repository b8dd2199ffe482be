"""Headers of files: what encoders write is accepted, what no decoder could begin with is named."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async._wire import media_types, truncated_media
from musicapi_async.sandbox import media_files
from musicapi_async.sandbox.composer import Brief, compose

SOUND = (np.sin(np.arange(48_000) / 20)[:, None] * [0.5, 0.3]).astype(np.float32)


class Verdict(NamedTuple):
    """What was found, and how much of the file was read for it."""

    kind: str | None
    fault: str
    read: int
    reads: int


def judged(data: bytes) -> Verdict:
    """The verdict on a file."""
    spans: list[int] = []

    def read(at: int, count: int) -> bytes:
        assert at >= 0
        assert count >= 0
        spans.append(count)
        return data[at : at + count]

    kind = media_types.kind_of(read, len(data))
    fault = media_types.fault_of(kind or "", read, len(data))
    return Verdict(kind, fault, sum(spans), len(spans))


def written(
    form: str, subtype: str | None = None, rate: int = 48_000, channels: int = 2, **options: Any
) -> bytes:
    """A file by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, SOUND[:24_000, :channels], rate, format=form, subtype=subtype, **options)
    return buffer.getvalue()


def mp3() -> bytes:
    """A tagged one, as the sandbox serves them."""
    return media_files.to_mp3(media_files.encode(SOUND), title="Rain", artist="A", tags="pop", lyrics="la")


ENCODED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "mp3": ("mp3", mp3),
    "mp3 variable": ("mp3", lambda: written("MP3", bitrate_mode="VARIABLE")),
    "mp3 MPEG-2": ("mp3", lambda: written("MP3", rate=22_050)),
    "mp3 MPEG-2.5": ("mp3", lambda: written("MP3", rate=8_000, channels=1)),
    "wav": ("wav", lambda: media_files.to_wav(SOUND)),
    "wav float": ("wav", lambda: written("WAV", "FLOAT")),
    "wav mu-law": ("wav", lambda: written("WAV", "ULAW")),
    "wav ADPCM": ("wav", lambda: written("WAV", "IMA_ADPCM")),
    "wav extensible": ("wav", lambda: written("WAVEX", "PCM_24")),
    "wav RF64": ("wav", lambda: written("RF64", "PCM_16")),
    "m4a": ("m4a", lambda: media_files.to_m4a(mp3(), len(SOUND))),
    "mid": ("mid", lambda: media_files.to_midi(compose(Brief(seed=1, duration=4)))),
    "flac": ("flac", lambda: written("FLAC")),
    "ogg vorbis": ("ogg", lambda: written("OGG", "VORBIS")),
    "ogg opus": ("ogg", lambda: written("OGG", "OPUS")),
}


@cache
def encoded(name: str) -> bytes:
    """A file of a known encoder."""
    return ENCODED[name][1]()


FRAME = b"\xff\xfb\x90\x64" + bytes(413)
FREE = b"\xff\xfb\x00\x64" + bytes(300)
AAC = b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9)
TAG = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)


def wav(*chunks: tuple[bytes, bytes], told: int | None = None, family: bytes = b"RIFF") -> bytes:
    """Chunks in a RIFF file."""
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    )
    return family + struct.pack("<I", len(body) + 4 if told is None else told) + b"WAVE" + body


def form(tag: int = 1, channels: int = 2, hertz: int = 48_000, bits: int = 16) -> tuple[bytes, bytes]:
    """A format chunk."""
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, hertz, hertz * 4, 4, bits)


def streamed(size: int) -> bytes:
    """A WAV whose writer could not go back to fill in sizes."""
    return wav(form(), told=size) + b"data" + struct.pack("<I", size) + bytes(4000)


def box(kind: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A box of an M4A."""
    return struct.pack(">I", len(data) + 8 if length is None else length) + kind + data


def midi(form: int = 1, tracks: int = 1, division: int = 480, length: int = 6) -> bytes:
    """A MIDI file's header."""
    return b"MThd" + struct.pack(">IHHH", length, form, tracks, division) + bytes(max(length - 6, 0))


def page(packet: bytes, version: int = 0) -> bytes:
    """A first Ogg page."""
    return b"OggS" + bytes((version, 2)) + bytes(20) + bytes((1, len(packet))) + packet


FTYP = box(b"ftyp", b"M4A \0\0\0\0")
MOOV = box(b"moov", box(b"mvhd", bytes(100)) + box(b"trak", bytes(8)))
TRACK = b"MTrk" + struct.pack(">I", 4) + b"\x00\xff\x2f\x00"
VORBIS = b"\x01vorbis" + struct.pack("<IBI", 0, 2, 44_100) + bytes(14)


@pytest.mark.parametrize("name", ENCODED)
def test_what_encoders_write_is_accepted(name: str) -> None:
    """Each format, by the sandbox's encoders and by libsndfile, at common rates."""
    verdict = judged(encoded(name))
    assert verdict[:2] == (ENCODED[name][0], "")


ODD = {
    "one frame": ("mp3", FRAME),
    "one frame, then ID3v1": ("mp3", FRAME + b"TAG".ljust(128, b"\0")),
    "nulls after the tag": ("mp3", TAG + bytes(5000) + FRAME * 3),
    "junk that looks like frames": ("mp3", TAG + b"\xff\xfb\x90\xff\xff" * 300 + FRAME * 3),
    "two tags": ("mp3", TAG * 2 + FRAME * 3),
    "a tag with a footer": ("mp3", b"ID3\x04\0\x10\0\0\0\x0a" + bytes(20) + FRAME * 2),
    "a tag with a plain size": ("mp3", b"ID3\x03\0\0\0\0\0\xc8" + bytes(200) + FRAME * 2),
    "an unsynchronised tag": ("mp3", b"ID3\x03\0\x80\0\0\0\x0a" + b"\xff\0\xfb" * 3 + b"\0" + FRAME * 2),
    "a cut last frame": ("mp3", FRAME * 2 + FRAME[:100]),
    "a free bit rate": ("mp3", FREE * 3),
    "layer II": ("mp3", (b"\xff\xfd\x80\x00" + bytes(413)) * 2),
    "AAC": ("aac", AAC * 3),
    "AAC after a tag": ("aac", TAG + AAC * 3),
    "FLAC after a tag": ("flac", TAG + b"fLaC\0\0\0\x22\x10\0\x10\0" + bytes(6) + b"\x0b\xb8" + bytes(22)),
    "a stream of unknown size": ("wav", streamed(0xFFFFFFFF)),
    "a stream by sox": ("wav", streamed(0x7FFFF024)),
    "a stream of size 0": ("wav", streamed(0)),
    "chunks before the format": (
        "wav",
        wav((b"JUNK", bytes(27)), form(), (b"LIST", b"a"), (b"data", bytes(8))),
    ),
    "a size that counts itself": ("wav", wav(form(), (b"data", bytes(8)), told=52)),
    "boxes nobody knows": ("m4a", FTYP + box(b"free", bytes(9)) + MOOV + box(b"mdat", bytes(50)) + b"\0" * 5),
    "an index at the end": ("m4a", FTYP + box(b"mdat", bytes(50)) + MOOV),
    "a last box without a size": ("m4a", FTYP + MOOV + box(b"mdat", bytes(50), 0)),
    "a long size": ("m4a", FTYP + MOOV + box(b"mdat", struct.pack(">Q", 66) + bytes(50), 1)),
    "a longer MIDI header": ("mid", midi(length=8) + TRACK),
    "a strange chunk before the track": ("mid", midi() + b"XFIH\0\0\0\x02ab" + TRACK),
    "FLAC in Ogg": ("ogg", page(b"\x7fFLAC\x01\0" + bytes(40))),
    "no music": ("", b"\x89PNG\r\n\x1a\n" + bytes(50)),
    "text": (None, b"<html>not here</html>"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_odd_encoders_write_is_accepted(name: str) -> None:
    """Decoders play it, and it is paid for."""
    kind, data = ODD[name]
    assert judged(data)[:2] == (kind, "")


BROKEN = {
    "a tag and nothing": (TAG, "nothing follows its ID3 tag"),
    "a cut tag": (b"ID3\x04\0", "ID3 tag is cut off"),
    "a tag longer than the file": (b"ID3\x04\0\0\0\0\x7f\x7f" + FRAME * 3, "longer than the file"),
    "a tag and nulls": (TAG + bytes(4000), "no two MPEG audio frames"),
    "a tag and text": (TAG + b"A" * 4000, "no two MPEG audio frames"),
    "frames too far away": (TAG + bytes(70_000) + FRAME * 3, "no two MPEG audio frames"),
    "a reserved version": ((b"\xff\xeb\x90\x64" + bytes(413)) * 3, "no two MPEG audio frames"),
    "a reserved bit rate": ((b"\xff\xfb\xf0\x64" + bytes(413)) * 3, "no two MPEG audio frames"),
    "a reserved sample rate": ((b"\xff\xfb\x9c\x64" + bytes(413)) * 3, "no two MPEG audio frames"),
    "a frame and nulls": (FRAME + bytes(2000), "no two MPEG audio frames"),
    "frames of two kinds": (FRAME + b"\xff\xf3\x90\x64" + bytes(900), "no two MPEG audio frames"),
    "half a frame": (FRAME[:200], "no two MPEG audio frames"),
    "UTF-16": ("\ufeffnot found".encode("utf-16-le") * 50, "no two MPEG audio frames"),
    "AAC that breaks off": (AAC + bytes(100), "no second frame"),
    "AAC at no rate": (b"\xff\xf1\x7c" + bytes(100), "no known sample rate"),
    "no RIFF": (wav(form(), (b"data", bytes(8)), family=b"ABCD"), "begins with b'ABCD'"),
    "a WAV that is cut": (
        wav(form(), (b"data", bytes(8000)))[:4000],
        "announces 8044 bytes, the file has 4000",
    ),
    "no format": (wav((b"LIST", bytes(20))), "no 'fmt ' chunk"),
    "samples before the format": (wav((b"data", bytes(8)), form()), "no 'fmt ' chunk comes before"),
    "no samples": (wav(form()), "no 'data' chunk"),
    "a short format": (wav((b"fmt ", bytes(6)), (b"data", bytes(8))), "has 6 bytes"),
    "format 0": (wav(form(0), (b"data", bytes(8))), "format is 0"),
    "no channels": (wav(form(channels=0), (b"data", bytes(8))), "0 channels"),
    "9000 channels": (wav(form(channels=9000), (b"data", bytes(8))), "9000 channels"),
    "no sample rate": (wav(form(hertz=0), (b"data", bytes(8))), "0 samples per second"),
    "samples of no bits": (wav(form(bits=0), (b"data", bytes(8))), "0 bits"),
    "too many samples": (
        wav(form(), told=0) + b"data" + struct.pack("<I", 1 << 20) + bytes(8),
        "1048576 bytes of samples are announced, 8 are there",
    ),
    "a cut page": (b"OggS" + bytes(10), "first page is cut off"),
    "an Ogg version": (page(VORBIS, version=3), "version 3"),
    "a long page": (page(VORBIS)[:-5], "longer than the file"),
    "no codec": (page(b"JPEG inside"), "no known codec"),
    "Vorbis without channels": (page(VORBIS[:11] + bytes(20)), "no channels"),
    "Opus without channels": (page(b"OpusHead\x01\0" + bytes(9)), "no channels"),
    "FLAC without STREAMINFO": (b"fLaC\x04\0\0\x22" + bytes(40), "STREAMINFO"),
    "FLAC of no rate": (b"fLaC\0\0\0\x22\x10\0\x10\0" + bytes(30), "sample rate is 0"),
    "FLAC of small blocks": (b"fLaC\0\0\0\x22" + bytes(34), "less than 16 samples"),
    "a cut FLAC": (b"fLaC\0\0\0\x22", "cut off"),
    "ftyp alone": (FTYP, "no moov box"),
    "an empty ftyp": (box(b"ftyp") + MOOV + box(b"mdat"), "ftyp box is too short"),
    "a box of 5 bytes": (FTYP + box(b"moov", length=5), "has 5 bytes"),
    "a box longer than the file": (FTYP + MOOV + box(b"mdat", length=5000), "longer than what holds it"),
    "a long size that is short": (FTYP + box(b"mdat", struct.pack(">Q", 3), 1), "has 3 bytes"),
    "an index without tracks": (FTYP + box(b"moov", box(b"mvhd")) + box(b"mdat"), "holds no track"),
    "an index alone": (FTYP + MOOV, "no mdat box"),
    "a cut MIDI header": (b"MThd\0\0\0\x06", "cut off"),
    "a short MIDI header": (midi(length=4) + TRACK, "4 bytes instead of 6"),
    "MIDI format 3": (midi(form=3) + TRACK, "format is 3"),
    "MIDI without tracks": (midi(tracks=0) + TRACK, "no tracks"),
    "MIDI without ticks": (midi(division=0) + TRACK, "no ticks"),
    "MIDI without a track": (midi() + b"text", "no track follows"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_header_that_no_decoder_could_begin_with_is_named(name: str) -> None:
    """The text tells the format and what is wrong with it."""
    data, why = BROKEN[name]
    fault = judged(data).fault
    assert fault.startswith("not a decodable ")
    assert why in fault


# --- ends of files whose length no one announced ----------------------------------------------------------


def cut_of(kind: str, data: bytes, duration: float | None = None) -> str:
    """Say what is missing at the end."""
    return truncated_media.cut_of(kind, lambda at, count: data[at : at + count], len(data), duration)


def flac(subtype: str = "PCM_16", rate: int = 44_100, channels: int = 2, noise: float = 0.5) -> bytes:
    """Return two and a half seconds by libsndfile; noise makes frames long."""
    rng = np.random.default_rng(7)
    samples = int(2.5 * rate) + 17
    sound = np.sin(np.arange(samples) / 20)[:, None] * np.linspace(0.4, 0.2, channels)
    sound = sound + rng.uniform(-noise, noise, (samples, channels))
    buffer = io.BytesIO()
    soundfile.write(buffer, sound.astype(np.float32), rate, format="FLAC", subtype=subtype)
    return buffer.getvalue()


FLACS: dict[str, dict[str, Any]] = {
    "CD": {},
    "silent": {"noise": 0.0},
    "mono": {"channels": 1, "rate": 8_000},
    "studio": {"subtype": "PCM_24", "rate": 96_000},
    "six channels": {"subtype": "PCM_24", "channels": 6, "noise": 0.6},
    "an odd rate": {"rate": 12_345, "subtype": "PCM_S8"},
}


@pytest.mark.parametrize("name", FLACS)
def test_a_flac_has_its_end_or_is_cut(name: str) -> None:
    """A whole file passes, with tags and padding after it, too; one that lacks a byte, or half, does not."""
    data = flac(**FLACS[name])
    for rest in (b"", b"TAG".ljust(128, b"\0"), b"APETAGEX" + bytes(40), bytes(500)):
        assert not cut_of("flac", data + rest)
    assert not cut_of("flac", TAG + data)
    for missing in (1, 2, 40):
        assert cut_of("flac", data[:-missing]) == "it is cut off: its last frame is not whole"
    assert "of its sound are not there" in cut_of("flac", data[: len(data) // 2])


def test_a_flac_that_does_not_say_its_length_is_compared_with_the_clip() -> None:
    """Encoders that write to a pipe leave the number of samples empty."""
    data = flac()
    piped = data[:21] + bytes((data[21] & 0xF0,)) + bytes(4) + data[26:]
    assert not cut_of("flac", piped)
    assert not cut_of("flac", piped, 2.5)
    assert cut_of("flac", piped[: len(piped) // 2], 4.0).endswith("the clip has 4.0 s")
    assert not cut_of("flac", piped[:60], 4.0), "without any frame nothing can be said"


def test_a_flac_without_a_sample_rate_is_judged() -> None:
    """Zero samples per second: nothing can be said of its seconds."""
    data = flac(channels=1, rate=8_000)
    assert not cut_of("flac", data[:18] + bytes(2) + bytes((data[20] & 0x0F,)) + data[21:])


@given(st.data())
def test_a_damaged_flac_is_judged(data: Any) -> None:
    """Whatever its bytes are, a text comes, and soon."""
    file = bytearray(flac(channels=1, rate=8_000))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(4, len(file) - 1) | st.integers(4, 60))
        file[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    assert isinstance(cut_of("flac", bytes(file[: data.draw(st.integers(42, len(file)))])), str)


@given(st.sampled_from(sorted(ENCODED)), st.data())
def test_damage_is_judged_within_bounds(name: str, data: Any) -> None:
    """Whatever is changed, cut out or put in, a verdict comes, after reading little."""
    file = bytearray(encoded(name))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 120))
        gone = data.draw(st.integers(0, 20))
        file[at : at + gone] = data.draw(st.binary(max_size=20))
    verdict = judged(bytes(file[: data.draw(st.none() | st.integers(0, len(file)))]))
    assert verdict.read < 200_000


@given(
    st.sampled_from([mark.rjust(offset + len(mark), b"\0") for offset, mark, _ in media_types.MAGIC]),
    st.binary(),
)
def test_any_bytes_after_a_known_beginning_are_judged(start: bytes, rest: bytes) -> None:
    """The errors of parsing are never anybody else's."""
    assert isinstance(judged(start + rest).fault, str)


@pytest.mark.parametrize(
    "data",
    [
        TAG * 100_000,
        FTYP + box(b"free") * 300_000,
        FTYP + box(b"moov", box(b"free") * 3000 + box(b"trak")) * 300,
        wav() + b"LIST\0\0\0\0" * 300_000,
        midi() + b"LIST\0\0\0\0" * 300_000,
        b"\xff\xfb\x90" * 300_000,
        b"\xff\xfb\x00\xff" * 300_000,
    ],
    ids=["tags", "boxes", "indexes", "chunks", "MIDI chunks", "sync words", "free sync words"],
)
def test_a_hostile_file_is_not_read_for_long(data: bytes) -> None:
    """However many parts it has, few are looked at."""
    verdict = judged(data)
    assert verdict.read < 200_000
    assert verdict.reads < 3 * media_types.MOST_CHUNKS
