"""Results of tasks and replies of calls as lines of text, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import click

from ..api.json_values import JSON, list_or_empty
from ..api.lyrics import AlignedLyrics
from ..api.results import Clip, Clips, Result
from ..api.stems import Stem
from .output import clock_text, visible

DETAILS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mv": "model",
        "gpt_description_prompt": "prompt",
        "tags": "style",
        "negative_tags": "avoided",
        "created_at": "made",
        "lyrics": "lyrics",
    }
)
"""Fields of a clip beside those of every event, and what they are called in text."""


MOST_ROWS: Final = 20
"""Objects of a list that text prints; of more, such as the notes of a song, it prints the number."""


def details_of(clip: Clip) -> dict[str, object]:
    """Return what is known of a clip beside its state and its links."""
    return {name: getattr(clip, name) for name in DETAILS}


def lyric_lines(aligned: AlignedLyrics) -> list[str]:
    """Return a line of text per line of the song, with its time; the single words are for programs."""
    return [visible(line) for line in aligned.lrc().split("\n") if line] or ["There are no lines yet."]


def value_lines(fields: Mapping[str, JSON]) -> list[str]:
    """Return the fields of a reply as lines, without empty ones."""
    lines: list[str] = []
    for name, value in fields.items():
        if value in (None, "", [], {}):
            continue
        label = click.style(name, bold=True)
        rows = [one for one in list_or_empty(value) if isinstance(one, dict)]
        if len(rows) > MOST_ROWS:
            lines.append(f"{label}  {len(rows)} (--json prints them)")
        elif rows:
            lines.append(label)
            for row in rows:
                block = _row_lines(row)
                lines += [f"  {line}".rstrip() for line in block] + ([""] if len(block) > 1 else [])
        elif isinstance(value, dict):
            lines += [label, *(f"  {line}" for line in value_lines(value))]
        else:
            text = _scalar(value)
            lines += [label, *text.splitlines()] if "\n" in text else [f"{label}  {text}"]
    return lines


def _row_lines(row: dict[str, JSON]) -> list[str]:
    plain = all(not isinstance(value, dict | list) and "\n" not in _scalar(value) for value in row.values())
    if not plain:
        return value_lines(row)
    return ["  ".join(f"{name} {_scalar(value)}" for name, value in row.items() if value not in (None, ""))]


def _scalar(value: JSON) -> str:
    if isinstance(value, list):
        return ", ".join(_scalar(one) for one in value)
    if isinstance(value, str):
        return visible(value, lines=True)
    return f"{value:.15g}" if isinstance(value, float) else json.dumps(value)


def detail_lines(clip: Clip, above: Clip | None = None) -> list[str]:
    """Return what is known of a clip beside its state and its links, as lines; lyrics are indented.

    A text of several lines that the clip `above` has, too, is not repeated.
    """
    lines: list[str] = []
    for name, label in DETAILS.items():
        value = getattr(clip, name)
        if value:
            text = visible(str(value), lines=True).strip()
            parts = text.splitlines()
            block = [f"    {part}".rstrip() for part in parts]
            if len(parts) > 1 and above is not None and value == getattr(above, name):
                block, parts, text = [], [], "as above"
            lines += [f"  {label}", *block] if len(parts) > 1 else [f"  {label:6} {text}"]
    return lines


def result_lines(result: Result, *, clips: bool = True) -> list[str]:
    """Return a result as lines: for each clip its title, length and state, its id and its link.

    Without `clips` only what it has beside them.
    """
    lines: list[str] = []
    for clip in result.clips if clips else ():
        name = clip.name if isinstance(clip, Stem) else clip.title or "(no title)"
        state = clip.state or ("succeeded" if clip.is_succeeded else "running")
        color = "green" if clip.is_succeeded else "red" if clip.is_failed else None
        title = click.style(visible(name), bold=True)
        lines.append(f"{title}  {clock_text(clip.duration)}  {click.style(visible(state), fg=color)}")
        if clip.failure and clip.is_failed:
            lines.append(f"  why    {visible(clip.failure)}")
        lines.append(f"  clip   {visible(clip.clip_id)}")
        link = clip.final_url or clip.stream_url
        if link:
            lines.append(f"  {'link  ' if clip.final_url else 'stream'} {visible(link)}")
    if not isinstance(result, Clips):
        for name in type(result).__slots__:
            value = getattr(result, name)
            if value:
                text = visible(str(value), lines=True)
                lines.append(f"{name}\n{text}" if "\n" in text else f"{click.style(name, bold=True)}  {text}")
    return lines
