"""Cover pictures: a sky, a light and hills in the colours of the mood, as small PNG files."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Final

import numpy as np

from musicapi_async.sandbox.chance import dice
from musicapi_async.sandbox.score import Brief
from musicapi_async.sandbox.style import read_style

__all__ = ["cover"]

_SIZE: Final = 512
_SHADES: Final = 48
"""Colours of the sky; with the hills' and the light's they stay far below the 256 of a palette."""

_Colour = tuple[float, float, float]


@lru_cache(maxsize=32)  # both as a file of its own and within the MP3
def cover(brief: Brief) -> bytes:
    """A square PNG of 512 pixels, a few kB, that follows the title, the mood and the seed of `brief`.

    Minor keys are cold and dark, major ones warm and bright; the more energy, the steeper the hills.
    """
    style = read_style(brief.tags, brief.description or "", brief.negative_tags, brief.seed)
    draw = dice("cover", brief.seed, brief.title[:200], style.genre)
    minor = style.mode == "minor"
    hue = draw.uniform(190, 290) if minor else draw.uniform(-10, 60)
    top = _rgb(hue, 0.6, 0.18 if minor else 0.45)
    bottom = _rgb(hue + draw.uniform(25, 70), 0.7, 0.45 if minor else 0.75)
    palette = [_between(top, bottom, i / (_SHADES - 1)) for i in range(_SHADES)]

    steps = np.arange(_SIZE) / _SIZE
    x, y = np.meshgrid(steps, steps)
    picture = np.minimum((y * _SHADES).astype(np.uint8), _SHADES - 1)

    if minor:
        palette.append((235, 235, 245))
        for _ in range(draw.randrange(30, 70)):
            at, up = draw.randrange(_SIZE - 2), draw.randrange(_SIZE // 2)
            picture[up : up + 2, at : at + 2] = len(palette) - 1

    palette += [_rgb(hue + 40, 0.35, 0.9 - 0.08 * ring) for ring in range(3)]
    middle, height, radius = draw.uniform(0.25, 0.75), draw.uniform(0.2, 0.45), draw.uniform(0.08, 0.16)
    distance = np.hypot(x - middle, y - height)
    for ring in (2, 1, 0):
        picture[distance < radius * (1 + 0.35 * ring)] = len(palette) - 3 + ring
    hills = 3 + round(3 * style.energy)
    for hill in range(hills):
        palette.append(_rgb(hue + 20 * hill, 0.45, (0.34 if minor else 0.5) * (1 - hill / (hills + 1))))
        base = 0.55 + 0.42 * hill / hills
        waves = [
            (draw.uniform(1, 3) * 2.5**n, draw.uniform(0, 6.3), 0.06 * style.energy / 1.9**n)
            for n in range(3)
        ]
        line = np.full(_SIZE, base)
        for pace, shift, height in waves:
            line += height * np.sin(steps * pace + shift)
        picture[y > line[None, :]] = len(palette) - 1
    return _png(picture, palette)


def _rgb(hue: float, saturation: float, value: float) -> _Colour:
    sector = (hue % 360) / 60
    chroma = value * saturation
    middle = chroma * (1 - abs(sector % 2 - 1))
    corner = ((chroma, middle, 0), (middle, chroma, 0), (0, chroma, middle), (0, middle, chroma),
              (middle, 0, chroma), (chroma, 0, middle))[int(sector)]  # fmt: skip
    rest = value - chroma
    red, green, blue = ((part + rest) * 255 for part in corner)
    return red, green, blue


def _between(first: _Colour, second: _Colour, share: float) -> _Colour:
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def _png(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], palette: list[_Colour]) -> bytes:
    height, width = picture.shape
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = picture
    colours = bytes(min(max(round(part), 0), 255) for colour in palette for part in colour)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", colours),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
