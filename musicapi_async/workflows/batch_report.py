"""The report: one HTML page that needs nothing but the files beside it: no network, no scripts."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ..files import replacing
from .batch_folder import ClipRecord, SongRecord, StepRecord

WIDTH: Final = 640
"""Units of a wave form's drawing; it scales with the page."""

STEP_TITLES: Final = {
    "stems_basic": "Stems (basic)",
    "stems_full": "Stems (full)",
    "stems": "Stems",
    "wav": "WAV",
    "midi": "MIDI",
    "lyrics": "Timed lyrics",
    "cover": "Cover",
    "persona": "Persona",
    "extend": "Extended",
}
"""Names of the steps on the page."""


def write_report(
    path: Path, records: Iterable[SongRecord], unsettled: Mapping[str, str], summary: str = ""
) -> None:
    """Write the page, for its owner only. Flat in memory.

    Args:
        path: Where it goes.
        records: The songs, one article each.
        unsettled: What is not settled, and why.
        summary: A line above the songs.
    """
    with replacing(path, private=True) as file:
        file.writelines(text.encode() for text in _page(records, unsettled, summary))


def _page(records: Iterable[SongRecord], unsettled: Mapping[str, str], summary: str) -> Iterator[str]:
    style = files(__name__.rpartition(".")[0]).joinpath("batch_report.css").read_text(encoding="utf-8")
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Songs</title><style>{style}</style></head><body><h1>Songs</h1>"
    )
    if unsettled:
        yield '<section class="unsettled"><h2>Not settled</h2><dl>'
        reasons: dict[str, list[str]] = {}
        for name, why in unsettled.items():
            reasons.setdefault(why, []).append(name)
        for why, names in reasons.items():
            yield f"<dt>{html.escape(', '.join(names))}</dt><dd>{html.escape(why)}</dd>"
        yield "</dl></section>"
    yield f"<p>{html.escape(summary)}</p>" if summary else ""
    yield '<p class="legend"><span><i class="queued"></i>queueing</span> <span><i class="waiting"></i>waiting'
    yield '</span> <span><i class="fetching"></i>downloading</span></p>'
    count = 0
    for record in records:
        count += 1
        yield from _song(record)
    if not count:
        yield "<p>No song is settled yet.</p>"
    yield "</body></html>\n"


def _song(record: SongRecord) -> Iterator[str]:
    yield f'<article class="{record.state}"><h2>{html.escape(record.title.strip() or record.id)}</h2>'
    yield f'<p class="facts">line {record.line} · {html.escape(record.operation)}'
    yield f" · task <code>{html.escape(record.task_id)}</code></p>" if record.task_id else "</p>"
    if record.error:
        yield f'<p class="error">{html.escape(record.error)}</p>'
    yield from _timeline(record)
    for clip in record.clips:
        yield from _clip(clip)
    yield "</article>"


def _timeline(record: SongRecord) -> Iterator[str]:
    """Bars of the song's time: until it was submitted, until it was ready, until its files were there."""
    start = min(record.queued_at, record.submitted_at or record.queued_at)
    whole = max(record.fetched_at, record.ended_at) - start
    spans = (
        ("queued", start, record.submitted_at),
        ("waiting", record.submitted_at, record.ended_at),
        ("fetching", record.ended_at, record.fetched_at),
    )
    # A clock that was set meanwhile gives times out of order: they are left out.
    ordered = [(name, begin, end) for name, begin, end in spans if start <= begin < end <= start + whole]
    if not ordered or whole <= 0:
        return
    yield '<div class="timeline">'
    for name, begin, end in ordered:
        share = 100 * (end - begin) / whole
        yield f'<span class="{name}" style="width:{share:.2f}%" title="{name}: {end - begin:.1f} s"></span>'
    yield "</div>"


def _clip(clip: ClipRecord) -> Iterator[str]:
    yield '<section class="clip">'
    if clip.cover:
        yield f'<img src="{_link(clip.cover)}" alt="" loading="lazy">'
    yield f"<div><h3>{html.escape(clip.title.strip() or clip.clip_id)}</h3>"
    facts = [f"{clip.duration:.0f} s" if clip.duration else "", clip.tags]
    yield f'<p class="facts">{html.escape(" · ".join(fact for fact in facts if fact))}</p>'
    if clip.error:
        yield f'<p class="error">{html.escape(clip.error)}</p>'
    if clip.peaks:
        yield _wave(clip.peaks)
    if clip.file:
        yield f'<audio controls preload="none" src="{_link(clip.file)}"></audio>'
    if clip.lyrics:
        yield f"<details><summary>Lyrics</summary><pre>{html.escape(clip.lyrics)}</pre></details>"
    for step in clip.steps:
        yield from _step(step)
    yield "</div></section>"


def _step(step: StepRecord) -> Iterator[str]:
    title = STEP_TITLES.get(step.name, step.name) + (", failed" if step.state == "failed" else "")
    yield f'<details class="{html.escape(step.state)}"><summary>{html.escape(title)}</summary>'
    if step.error:
        yield f'<p class="error">{html.escape(step.error)}</p>'
    yield "<ul>" if step.files else ""
    for name in step.files:
        label = html.escape(Path(name).name)
        if Path(name).suffix.lower() in (".mp3", ".wav", ".ogg", ".flac", ".m4a"):
            yield f'<li>{label}<audio controls preload="none" src="{_link(name)}"></audio></li>'
        else:
            yield f'<li><a href="{_link(name)}">{label}</a></li>'
    yield "</ul></details>" if step.files else "</details>"


def _wave(peaks: list[float]) -> str:
    step = WIDTH / len(peaks)
    bars = "".join(
        f"M{index * step:.1f} {50 - 48 * peak:.1f}V{50 + 48 * peak:.1f}" for index, peak in enumerate(peaks)
    )
    return (
        f'<svg class="wave" viewBox="0 0 {WIDTH} 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{bars}" stroke-width="{step * 0.6:.1f}"/></svg>'
    )


def _link(name: str) -> str:
    return html.escape(quote(name))
