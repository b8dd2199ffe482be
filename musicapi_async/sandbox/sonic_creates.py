"""Sonic's `create` with its ten task types, and personas."""

from __future__ import annotations

from typing import Final

from .backend import Call, submitted
from .ordered_tasks import OrderedClip, StoredPersona
from .recipes import How, composed, continued, joined, made
from .replies import JsonReply, invalid
from .reply_choices import DAY
from .song_clips import SongRequest, read_song, variants
from .validation import PERSONA_NAME, STYLES

LENGTHY: Final = frozenset({"create_music", "persona_music", "extend_music", "cover_music"})
"""The task types that take `duration` (vendor's page, read on 2026-10-07)."""

PRICED: Final = {
    "create_music": "create",
    "cover_music": "create",
    "persona_music": "create",
    "extend_music": "extend",
    "concat_music": "concat",
    "remaster": "rework",
    "add_vocals": "rework",
    "add_instrumental": "rework",
    "extend_upload_music": "rework",
    "cover_upload_music": "rework",
}
"""Every task type and its row of the price table."""

UPLOADS: Final = frozenset({"add_vocals", "add_instrumental", "extend_upload_music", "cover_upload_music"})


def create(call: Call) -> JsonReply:
    """`POST /sonic/create`: all ten task types."""
    form, service = call.form, call.service
    kind = form.text("task_type") or "create_music"
    if kind not in PRICED:
        raise invalid("The 'task_type' field is invalid.")
    form.flag("use_suno_cdn", needed=service.choices.suno_cdn == "required")  # live, it has no effect
    webhook = form.webhook()
    make = _MAKERS.get(kind, _rework)
    clips = make(call, kind)
    task = call.order("sonic", kind, service.durations.song, clips, webhook=webhook)
    return submitted(call, task)


def _create(call: Call, kind: str) -> list[OrderedClip]:
    song = read_song(call, kind=kind, lengthy=True)
    persona = None
    if kind == "persona_music":
        persona = call.service.persona(call.form.needed("persona_id", f"task_type = {kind}"), call.now)
    call.form.moderate()
    call.pay(PRICED[kind])
    longest = call.service.longest
    return variants(
        call, song, lambda brief: composed(brief, longest=longest, seconds=song.seconds), persona=persona
    )


def _extend(call: Call, kind: str) -> list[OrderedClip]:
    lenient = call.service.choices.extend == "lenient"
    song = read_song(call, kind=kind, lengthy=kind in LENGTHY, lenient=lenient)
    at = call.form.number("continue_at", needed=not lenient)
    source = source_clip(call, kind)
    call.form.moderate()
    call.pay(PRICED[kind])
    return extension(call, song, source, at)


def extension(call: Call, song: SongRequest, source: OrderedClip, at: float | None) -> list[OrderedClip]:
    """Return the new part of `source` from `at` seconds (its end when None) on."""
    start = min(source.recipe.duration if at is None else at, source.recipe.duration)
    longest = call.service.longest
    clips = variants(
        call,
        song,
        lambda brief: continued(source.recipe, start, brief, longest=longest, seconds=song.seconds),
        inherits=source,
    )
    for clip in clips:
        clip.extends = (source.recipe, start)
    return clips


def _concat(call: Call, kind: str) -> list[OrderedClip]:
    part = source_clip(call, kind)
    if call.form.get("duration") is not None:
        raise invalid(f"The 'duration' field is not supported when task_type = {kind}.")
    if part.extends is None:
        raise invalid("The 'continue_clip_id' field should be a clip returned by extend_music.")
    call.pay(PRICED[kind])
    return [whole(call, part)]


def whole(call: Call, part: OrderedClip) -> OrderedClip:
    """Return the full song that an extension belongs to."""
    if part.extends is None:
        raise ValueError("only an extension can be joined to its source")
    source, at = part.extends
    lyrics = source.brief.lyrics or ""
    return OrderedClip(
        call.service.new_id(),
        joined(source, at, part.recipe),
        mv=part.mv,
        title=part.title,
        tags=part.tags,
        lyrics=f"{lyrics.rstrip()}\n{part.lyrics}" if lyrics else part.lyrics,
        negative_tags=part.negative_tags,
    )


def _cover(call: Call, kind: str) -> list[OrderedClip]:
    song = read_song(call, kind=kind, lengthy=kind in LENGTHY)
    source = source_clip(call, kind)
    call.form.moderate()
    call.pay(PRICED[kind])
    return cover(call, song, source)


def cover(call: Call, song: SongRequest, source: OrderedClip) -> list[OrderedClip]:
    """Return covers of `source`: its melody in another style, or new words in its place."""
    longest = call.service.longest
    if song.prompt and song.custom and song.prompt.strip() != source.lyrics.strip():
        seconds = song.seconds or min(source.recipe.duration, longest)
        return variants(
            call, song, lambda brief: composed(brief, longest=longest, seconds=seconds), inherits=source
        )
    return variants(call, song, lambda brief: made("cover", brief, source.recipe), inherits=source)


def _rework(call: Call, kind: str) -> list[OrderedClip]:
    form = call.form
    song = read_song(call, kind=kind, modes=False)
    category = form.text("variation_category")
    if category not in (None, "subtle", "normal", "high"):
        raise invalid("The 'variation_category' field should be one of 'subtle', 'normal', 'high'.")
    if kind == "add_vocals" and song.prompt is None:
        raise invalid(f"The 'prompt' field is required when task_type = {kind}.")
    start = form.number("overpainting_start_s") or 0.0
    end = form.number("overpainting_end_s")
    if end is not None and end <= start:
        raise invalid("The 'overpainting_end_s' field should be greater than 'overpainting_start_s'.")
    source = source_clip(call, kind)
    form.moderate()
    call.pay(PRICED[kind])
    until = source.recipe.duration if end is None else end
    if kind == "add_vocals":
        return variants(call, song, lambda b: made("sing", b, source.recipe, start=start, end=until))
    how: How = "remaster" if kind == "remaster" else "accompany"
    return variants(call, song, lambda b: made(how, b, source.recipe), inherits=source)


def source_clip(call: Call, kind: str) -> OrderedClip:
    """Return the clip named by `continue_clip_id`."""
    clip_id = call.form.clip_id("continue_clip_id", f"task_type = {kind}")
    clip = call.service.clip(clip_id, call.now)
    if call.service.choices.sources == "strict":
        if kind in UPLOADS and not clip.uploaded:
            raise invalid(f"The 'continue_clip_id' field should be an uploaded clip when task_type = {kind}.")
        if kind in ("extend_music", "cover_music") and clip.uploaded:
            raise invalid(
                f"The 'continue_clip_id' field should not be an uploaded clip when task_type = {kind}."
            )
    return clip


_MAKERS: Final = {
    "create_music": _create,
    "persona_music": _create,
    "extend_music": _extend,
    "extend_upload_music": _extend,
    "concat_music": _concat,
    "cover_music": _cover,
    "cover_upload_music": _cover,
}


def persona(call: Call) -> JsonReply:
    """`POST /sonic/persona`: the newer form (`clip_id`), or the older (`continue_clip_id`, `description`)."""
    form, service = call.form, call.service
    if form.get("clip_id") is None and (form.has("continue_clip_id") or form.has("description")):
        if form.get("name") is None or form.get("continue_clip_id") is None:
            raise invalid("name and continue_clip_id are required fields.")
        name, clip_id = form.needed("name", most=PERSONA_NAME), form.clip_id("continue_clip_id")
        styles = form.needed("description", most=199)
    else:
        name, clip_id = form.needed("name", most=PERSONA_NAME), form.clip_id("clip_id")
        form.text("describe")
        styles = form.text("styles", STYLES) or ""
    segment = form.text("vox_audio_id")
    start, end = form.number("vocal_start_s"), form.number("vocal_end_s")
    clip = service.clip(clip_id, call.now)
    if service.age(clip.ends) > DAY:
        raise invalid("The clip is too old. Please use a clip created within the last 24 hours.")
    if segment is not None:
        vox = service.voxes.get(segment)
        if vox is None or vox.clip_id != clip.clip_id:
            raise invalid("The 'vox_audio_id' field is invalid.")
        if (start, end) != (vox.start, vox.end):
            raise invalid("The 'vocal_start_s' and 'vocal_end_s' fields should match the vox range.")
    call.pay("persona")
    brief = clip.recipe.brief
    persona_id = service.new_id()
    voice = brief.seed if brief.voice_seed is None else brief.voice_seed
    service.personas.put(
        persona_id, StoredPersona(persona_id, name, styles or clip.tags, voice, brief.vocal_gender)
    )
    return JsonReply({"code": 200, "persona_id": persona_id, "message": "success"})
