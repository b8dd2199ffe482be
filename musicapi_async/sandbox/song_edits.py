"""Songs made of songs: mashup, replace-section and stems."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

from .backend import Call, submitted
from .ordered_tasks import OrderedClip
from .recipes import made
from .replies import JsonReply, invalid
from .score import INSTRUMENTAL, SINGERS, STEM_NAMES
from .song_clips import read_song, sung, variants
from .validation import SHORT_TAGS, TextLimits

SECTION: Final = TextLimits(prompt=5000, tags=1000)
"""Characters of a new section, with any model (vendor's page on replace-section)."""


def mashup(call: Call) -> JsonReply:
    """`POST /sonic/mashup`: one song of exactly two clips."""
    form, service = call.form, call.service
    song = read_song(call, also=("sonic-v4-5-all",), tags=SHORT_TAGS)
    ids = form.words("mashup_clip_ids")
    if ids is None or len(ids) != 2:
        raise invalid("The 'mashup_clip_ids' field should be an array of exactly 2 clip ids.")
    webhook = form.webhook()
    first, second = (service.clip(clip_id, call.now) for clip_id in ids)
    form.moderate()
    call.pay("mashup")
    clips = variants(
        call, song, lambda brief: made("mash", brief, first.recipe, second.recipe), inherits=first
    )
    return submitted(call, call.order("sonic", "mashup", service.durations.song, clips, webhook=webhook))


def replace_section(call: Call) -> JsonReply:
    """`POST /sonic/replace-section`: new music for a section; with `auto_concat` also the whole song."""
    form, service = call.form, call.service
    song = read_song(call, modes=False, own=SECTION)
    if song.mv == "sonic-v3-5":
        raise invalid("The 'mv' field is invalid. The model should be newer than 'sonic-v3-5'.")
    lyrics = form.text("infill_lyrics", 3000)
    start = form.number("infill_start_s", needed=True) or 0.0
    end = form.number("infill_end_s", needed=True) or 0.0
    if end <= start:
        raise invalid("The 'infill_end_s' field should be greater than 'infill_start_s'.")
    auto, webhook = form.flag("auto_concat"), form.webhook()
    source = service.clip(form.clip_id("clip_id"), call.now)
    if start >= source.recipe.duration:
        raise invalid("The 'infill_start_s' field should be within the clip.")
    form.moderate()
    call.pay("replace_section")
    before = sung(made("cut", source.recipe.brief, source.recipe, start=start, end=end))
    lyrics = lyrics or (None if before == INSTRUMENTAL else before)
    song = dataclasses.replace(song, prompt=lyrics, custom=True)
    fulls = variants(
        call,
        song,
        lambda brief: made("replace", brief, source.recipe, start=start, end=end),
        inherits=source,
    )
    parts = [_section(call, full, start, end) for full in fulls]
    spread = service.durations.song
    if auto:
        pairs = list(zip(parts, fulls, strict=True))
        task = call.order(
            "sonic", "replace-section", spread, pairs=pairs, pair_word="replaced", webhook=webhook
        )
    else:
        task = call.order("sonic", "replace-section", spread, parts, webhook=webhook)
    return submitted(call, task)


def _section(call: Call, full: OrderedClip, start: float, end: float) -> OrderedClip:
    section = made("cut", full.recipe.brief, full.recipe, start=start, end=end)
    return OrderedClip(
        call.service.new_id(),
        section,
        mv=full.mv,
        title=full.title,
        tags=full.tags,
        lyrics=sung(section),
        negative_tags=full.negative_tags,
        style_weight=full.style_weight,
        weirdness=full.weirdness,
    )


def stems_basic(call: Call) -> JsonReply:
    """`POST /sonic/stems/basic`: vocals and the rest."""
    return _stems(call, "basic", call.service.choices.stems_basic)


def stems_full(call: Call) -> JsonReply:
    """`POST /sonic/stems/full`: instrument by instrument."""
    return _stems(call, "full", call.service.choices.stems_full)


def _stems(call: Call, kind: Literal["basic", "full"], count: int) -> JsonReply:
    service = call.service
    webhook = call.form.webhook()
    source = service.clip(call.form.clip_id("clip_id"), call.now)
    call.pay(f"stems_{kind}")
    clips = [
        OrderedClip(
            service.new_id(),
            source.recipe,
            mv=source.mv,
            title=f"{source.title} - {name.title()}",
            tags=source.tags,
            lyrics=source.lyrics,
            stem=name,
            stem_names=names,
            stem_source=source,
        )
        for name, names in _stem_groups(kind, count)
    ]
    task = call.order("sonic", f"stems-{kind}", service.durations.stems, clips, webhook=webhook)
    return submitted(call, task)


def _stem_groups(kind: Literal["basic", "full"], count: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return names of stems and what is heard in each: `basic` 2 or 4, `full` 12, or 24 with second takes."""
    rhythm = ("drums", "percussion", "bass")
    if kind == "basic" and count == 2:
        return [("vocals", SINGERS), ("instrumental", tuple(s for s in STEM_NAMES if s not in SINGERS))]
    if kind == "basic":
        rest = tuple(s for s in STEM_NAMES if s not in (*SINGERS, *rhythm))
        return [("vocals", SINGERS), ("drums", rhythm[:2]), ("bass", rhythm[2:]), ("other", rest)]
    single: list[tuple[str, tuple[str, ...]]] = [(stem, (stem,)) for stem in STEM_NAMES]
    return single + [(f"{stem} 2", ()) for stem in STEM_NAMES] if count == 24 else single
