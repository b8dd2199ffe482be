"""Producer: short tracks."""

from __future__ import annotations

from typing import Final

from .backend import Call, submitted
from .lyric_writer import write_lyrics
from .ordered_tasks import OrderedClip
from .recipes import Recipe, composed, continued, joined, made
from .replies import JsonReply, invalid, retired
from .score import INSTRUMENTAL, Brief
from .validation import TITLE

PRODUCER_MODEL: Final = "Lyria 3 Pro"
USUAL_LENGTH: Final = 30.0
"""Seconds of a track if the request names no length (vendor's page: about 30 s)."""

PRODUCER_TEXT: Final = 5000
"""Characters; the service's own limits are unknown."""

RETIRED_TYPES: Final = frozenset({"music_variation", "swap_music_vocals", "swap_music_sound"})
LIVE_TYPES: Final = frozenset(
    {
        "create_music",
        "extend_music",
        "extend_upload_music",
        "replace_music",
        "replace_upload_music",
        "cover_music",
        "cover_upload_music",
    }
)


def create(call: Call) -> JsonReply:
    """`POST /producer/create`: seven live task types, three retired ones."""
    form, service = call.form, call.service
    kind = form.text("task_type") or "create_music"
    if kind in RETIRED_TYPES or (kind.startswith("cover_") and service.choices.producer_cover == "retired"):
        raise retired("This task type is no longer supported.")
    if kind not in LIVE_TYPES:
        raise invalid("The 'task_type' field is invalid.")
    title, sound = form.text("title", TITLE), form.text("sound", PRODUCER_TEXT)
    lyrics = form.text("lyrics", PRODUCER_TEXT) or form.text("lyrics_text", PRODUCER_TEXT)
    instruction, seed = form.text("instruction", PRODUCER_TEXT), form.numeric("seed")
    form.text("cover_url", PRODUCER_TEXT)
    form.text("mv", 100)  # every known name is mapped to the one real model
    length, bpm = form.number("length", least=1, most=240), form.numeric("bpm")
    form.number("extend_s", most=240)
    form.weight("strength")
    form.weight("cover_strength")
    webhook = form.webhook()
    words = sound or instruction or ""
    wish = f"{words}, {bpm} bpm" if bpm else words
    quiet = lyrics is None and ("no vocals" in words.lower() or "instrumental" in words.lower())
    drawn = service.new_seed()
    if lyrics is None and not quiet:
        lyrics = write_lyrics(words or "music", drawn)[0][1]
    music_seed = drawn if seed is None else int(abs(float(seed))) & 0x7FFFFFFF
    brief = Brief(
        seed=music_seed, title=title or "", tags=wish, lyrics=lyrics, description=words, instrumental=quiet
    )
    recipe = _recipe(call, kind, brief, length)
    form.moderate()
    call.pay("producer")
    clip = OrderedClip(
        service.new_id(),
        recipe,
        mv=PRODUCER_MODEL,
        title=title or write_lyrics(words or "music", drawn)[0][0],
        tags=words,
        lyrics=INSTRUMENTAL if quiet else lyrics or "",
        ending="m4a",
        extra={"sound": sound, "seed": str(music_seed) if seed is None else seed},
    )
    task = call.order("producer", kind, service.durations.producer, [clip], webhook=webhook)
    return submitted(call, task)


def _recipe(call: Call, kind: str, brief: Brief, length: float | None) -> Recipe:
    form, longest = call.form, call.service.longest
    if kind == "create_music":
        if form.get("sound") is None and form.get("lyrics") is None and form.get("lyrics_text") is None:
            raise invalid("The 'sound' or 'lyrics' field is required.")
        return composed(brief, longest=longest, seconds=length or min(USUAL_LENGTH, longest))
    why = f"task_type = {kind}"
    source = call.service.clip(form.clip_id("clip_id", why), call.now).recipe
    start = form.number("starts_at")
    start = form.number("starts") if start is None else start
    if kind.startswith("extend_"):
        at = min(source.duration if start is None else start, source.duration)
        part = continued(source, at, brief, longest=longest, seconds=length or min(USUAL_LENGTH, longest))
        return joined(source, at, part)
    if kind.startswith("cover_"):
        form.needed("instruction", why)
        return made("cover", brief, source)
    end = form.number("ends_at")
    end = form.number("ends") if end is None else end
    if start is None or end is None:
        raise invalid(f"The 'starts_at' and 'ends_at' fields are required when {why}.")
    if end <= start:
        raise invalid("The 'ends_at' field should be greater than 'starts_at'.")
    return made("replace", brief, source, start=start, end=end)


def download(call: Call) -> JsonReply:
    """`POST /producer/download`: a task whose result is one link."""
    form, service = call.form, call.service
    ending = form.text("format") or "mp3"
    if ending not in ("mp3", "wav"):
        raise invalid("The 'format' field should be one of 'mp3', 'wav'.")
    webhook = form.webhook()
    clip = service.clip(form.clip_id("clip_id"), call.now)
    call.pay("producer_file")
    spread = service.durations.producer_file
    task = call.order("producer", "download", spread, shape="file", webhook=webhook)
    key = service.choices.producer_wav if ending == "wav" else "audio_url"
    task.result = {key: service.media(f"{clip.clip_id}.{ending}")}
    return submitted(call, task)
