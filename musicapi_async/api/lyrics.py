"""Lyrics: versions to choose from, and lyrics aligned with time, with their export as subtitles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from ..plain_data import PlainData
from .direct_replies import Reply
from .results import IDS, Amount, Item, Result


class WrittenLyrics(Result, fields={**IDS, "title": str | None, "lyrics": str}):
    """Lyrics that the service wrote as a task: `title` and `lyrics`."""

    __slots__ = ("lyrics", "title")

    def __init__(
        self,
        title: str | None = None,
        lyrics: str = "",
        raw: Any = None,
        *,
        task_id: str = "",
        family: str = "",
    ) -> None:
        super().__init__(raw, task_id=task_id, family=family)
        self.title: str | None = title
        self.lyrics: str = lyrics

    def __repr__(self) -> str:
        return f"WrittenLyrics(title={self.title!r}, {len(self.lyrics)} characters)"


class Lyrics(Item, kw_only=True):
    """One version of lyrics: `title` and `lyrics`, with [Verse], [Chorus], ... marks."""

    title: str | None = None
    lyrics: str = ""


class LyricsDrafts(Reply, kw_only=True):
    """The versions that the service wrote, as a sequence of `Lyrics`: usually two, sometimes none."""

    needs: ClassVar[tuple[str, ...]] = ("results",)
    may_be_empty: ClassVar[bool] = True

    results: list[Lyrics] = msgspec.field(default_factory=list[Lyrics])

    def __len__(self) -> int:
        return len(self.results)

    def __bool__(self) -> bool:
        return bool(self.results)

    def __getitem__(self, index: int) -> Lyrics:
        return self.results[index]

    def __iter__(self) -> Iterator[Lyrics]:
        return iter(self.results)


class Word(Item, kw_only=True):
    """A word and its time: `start_s` and `end_s` in seconds, and `p_align`, the confidence from 0 to 1.

    `word` includes the line breaks and section marks of the lyrics.
    """

    word: str = ""
    start_s: Amount | None = None
    end_s: Amount | None = None
    p_align: Amount | None = None
    success: bool | None = None


class Line(PlainData, msgspec.Struct, frozen=True):
    """A line of lyrics with its times in seconds."""

    text: str
    start: float
    end: float


class AlignedLyrics(Reply, kw_only=True):
    """The lyrics with the time of each word, in `words`; empty if the service has none yet."""

    keys: ClassVar[Mapping[str, str]] = {"words": "alignment"}

    words: list[Word] = msgspec.field(default_factory=list[Word])

    def lines(self, *, sections: bool = False) -> list[Line]:
        """Return the lines with their times in seconds; `sections=True` includes marks such as [Verse]."""
        return lines_of(self.words, sections=sections)

    def lrc(self) -> str:
        """Return the text of an LRC file, with lines such as `[01:02.34]a line`."""
        return lrc(self.lines())

    def srt(self) -> str:
        """Return the text of a SubRip file (.srt)."""
        return srt(self.lines())


def lines_of(words: Sequence[Word], *, sections: bool = False) -> list[Line]:
    """Join words to lines at their line breaks.

    Times never run backwards; missing ones are filled in. `sections` includes marks such as [Verse].
    """
    lines: list[Line] = []
    text, start, end, clock = "", 0.0, 0.0, 0.0

    def finish() -> None:
        nonlocal text
        line = " ".join(text.split())
        is_section = line.startswith("[") and line.endswith("]")
        if line and (sections or not is_section):
            lines.append(Line(line, start, end))
        text = ""

    for word in words:
        begin = max(clock, word.start_s or 0.0)
        clock = max(begin, word.end_s or 0.0)
        for number, part in enumerate(word.word.split("\n")):
            if number:
                finish()
            if part.strip():
                start, end = start if text.strip() else begin, clock
            text += part
    finish()
    return lines


def lrc(lines: Sequence[Line]) -> str:
    """Return lines as an LRC file; minutes exceed 59."""
    return "".join(f"[{_lrc_time(line.start)}]{line.text}\n" for line in lines)


def srt(lines: Sequence[Line]) -> str:
    """Return lines as SubRip subtitles: each until it ends, and never beyond the start of the next."""
    cues: list[str] = []
    for number, line in enumerate(lines):
        end = line.end if number + 1 == len(lines) else min(line.end, lines[number + 1].start)
        cues.append(f"{number + 1}\n{_srt_time(line.start)} --> {_srt_time(end)}\n{line.text}\n")
    return "\n".join(cues)


LATEST: Final = 359_999.0
"""Seconds, 99:59:59: later times, which no song has, are written as this."""


def _lrc_time(seconds: float) -> str:
    hundredths = round(min(seconds, LATEST) * 100)
    return f"{hundredths // 6000:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def _srt_time(seconds: float) -> str:
    thousandths = round(min(seconds, LATEST) * 1000)
    whole = thousandths // 1000
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{thousandths % 1000:03d}"
