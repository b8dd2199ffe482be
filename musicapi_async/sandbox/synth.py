"""The front door of the sandbox's music maker: everything about music that needs no audio library.

A `Brief` says what is wanted, `compose` makes a `Score` of it, and the other functions make scores of
scores. All are pure functions of their arguments: no clock, no global randomness, no I/O; equal arguments
give equal results, and two briefs that differ in their seed two variants of the same wish. A song of two
minutes takes about 15 ms. `render` and `encode` turn scores into sound and files.
"""

from __future__ import annotations

from musicapi_async.sandbox.composer import INSTRUMENTAL, compose, natural_duration
from musicapi_async.sandbox.lyricist import lyrics, upsample_tags
from musicapi_async.sandbox.revision import (
    accompany_score,
    continue_score,
    cover_score,
    mash,
    remaster,
    replace,
    sing_over,
)
from musicapi_async.sandbox.score import (
    MAX_DURATION,
    MIN_DURATION,
    STEMS,
    Bar,
    Brief,
    Note,
    Part,
    Score,
    Section,
    Tempo,
    Word,
    join,
    window,
)

__all__ = [
    "INSTRUMENTAL",
    "MAX_DURATION",
    "MIN_DURATION",
    "STEMS",
    "Bar",
    "Brief",
    "Note",
    "Part",
    "Score",
    "Section",
    "Tempo",
    "Word",
    "accompany_score",
    "compose",
    "continue_score",
    "cover_score",
    "join",
    "lyrics",
    "mash",
    "natural_duration",
    "remaster",
    "replace",
    "sing_over",
    "upsample_tags",
    "window",
]
