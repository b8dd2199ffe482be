"""M4A files: MP3 frames in the container of MPEG-4."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutagen.mp4 import MP4

from musicapi_async.sandbox import container, encode

SECONDS = 2.5
SOUND = (np.sin(np.arange(int(48_000 * SECONDS)) / 20)[:, None] * [0.5, 0.3]).astype(np.float32)


def tagged() -> bytes:
    return encode.to_mp3(SOUND, title="Rain", artist="A", tags="pop", lyrics="la")


@pytest.mark.parametrize("mp3", [tagged(), encode.mp3_by_soundfile(SOUND)], ids=["constant", "variable"])
def test_an_m4a_holds_the_frames_of_the_mp3(mp3: bytes) -> None:
    """A reader that nobody here wrote finds stereo MP3 at 48 kHz of the right length; no frame is lost."""
    m4a = container.to_m4a(mp3, len(SOUND))
    info = MP4(io.BytesIO(m4a)).info
    assert (info.codec, info.channels, info.sample_rate) == ("mp4a.6B", 2, 48_000)
    assert SECONDS <= info.length <= SECONDS + 0.1
    frames = list(container.mp3_frames(mp3))
    assert m4a.endswith(b"mdat" + b"".join(frames))
    at = m4a.index(b"stco") + 12
    (offset,) = struct.unpack(">I", m4a[at : at + 4])
    assert m4a[offset : offset + len(frames[0])] == frames[0]
    assert m4a[4:8] == b"ftyp"


@given(st.binary(max_size=600))
@example(b"ID3")
def test_other_bytes_have_no_frames(data: bytes) -> None:
    """Whatever comes, only whole frames are taken, and the container is still one."""
    frames = list(container.mp3_frames(data))
    assert all(frame[:1] == b"\xff" for frame in frames)
    assert container.to_m4a(data, 0)[4:8] == b"ftyp"
