"""Results as HTML for notebooks: title, state, cover and player of each clip.

Pure text, without scripts and without colours of its own beside a grey, so it reads on light and on dark. All
text of the service is escaped. Only an http or https link becomes a player, a cover or a link; nothing is
fetched before a player is started but the cover.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Final

from .request import is_link
from .results import Clip

if TYPE_CHECKING:
    from .results import Clips, TaskUpdate

CARD: Final = (
    "display:flex;gap:12px;align-items:center;padding:8px;margin:4px 0;max-width:640px;"
    "border:1px solid rgba(128,128,128,.4);border-radius:6px"
)
COVER: Final = "width:72px;height:72px;object-fit:cover;border-radius:4px;flex:none"
PLAYER: Final = "width:100%;height:36px;margin:2px 0"
SMALL: Final = "font-size:85%;opacity:.75;overflow-wrap:anywhere"
"""Styles, which are in line because notebooks drop style sheets of others."""


def clip_html(clip: Clip, name: str = "") -> str:
    """Return a clip as a card with its cover and player; `name` is that of a stem."""
    title = " · ".join(filter(None, (name, clip.title or ("" if name else "untitled"))))
    facts = [clip.state or "no state"]
    if clip.duration is not None:
        facts.append(f"{int(clip.duration) // 60}:{int(clip.duration) % 60:02}")
    facts += filter(None, (clip.tags, clip.failure if clip.is_failed else None))
    final, stream = _link(clip.final_url), _link(clip.stream_url)
    if stream:
        facts.append("early audio, not the file")
    cover = _link(clip.image_url)
    image = f'<img src="{cover}" alt="" loading="lazy" referrerpolicy="no-referrer" style="{COVER}">'
    audio = f'<audio controls preload="none" src="{final or stream}" style="{PLAYER}"></audio>'
    link = f' · <a href="{final}" target="_blank" rel="noopener noreferrer">file</a>' if final else ""
    return (
        f'<div style="{CARD}">{image if cover else ""}<div style="flex:1;min-width:0">'
        f'<div style="font-weight:bold;overflow-wrap:anywhere">{escape(title)}</div>'
        f'<div style="{SMALL}">{escape(" · ".join(facts))}{link}</div>'
        f"{audio if final or stream else ''}"
        f'<div style="{SMALL}"><code style="background:none">{escape(clip.clip_id)}</code></div></div></div>'
    )


def clips_html(clips: Clips) -> str:
    """Return clips as cards below each other."""
    from .stems import Stems

    named: Iterable[tuple[str, Clip]] = (
        clips.by_name.items() if isinstance(clips, Stems) else (("", clip) for clip in clips)
    )
    cards = "".join(clip_html(clip, name) for name, clip in named)
    return cards or f'<div style="{SMALL}">no clips</div>'


def task_html(heading: str, token: str, last: TaskUpdate | None) -> str:
    """Return a task with its last update and its token.

    Args:
        heading: family and kind of the task.
        token: the token, to copy.
        last: the last update; None before the first poll.
    """
    state = "submitted, not polled yet" if last is None else last.state
    cards = ""
    if last is not None:
        if last.progress is not None:
            state += f" · {last.progress:.0%}"
        if last.error is not None:
            state += f" · {last.error.message}"
        ended = clips if last.result is not None and len(clips := last.result.clips) else last.clips
        cards = clips_html(ended) if len(ended) else ""
    return (
        f'<div style="overflow-wrap:anywhere"><b>{escape(heading)}</b> · {escape(state)}'
        f'<div style="{SMALL}">client.task(token): <code style="background:none">{escape(token)}</code></div>'
        f"</div>{cards}"
    )


def _link(url: str | None) -> str:
    """Return a link as the value of an attribute; '' for what is no http or https link."""
    return escape(url) if url and is_link(url) else ""
