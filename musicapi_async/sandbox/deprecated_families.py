"""The deprecated families: Nuro, Riffusion, Studio. Live here by default, so that they can be tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..api.json_values import JSON, list_or_empty, mapping_or_empty
from ..api.riffusion import TASK_TYPES
from .backend import Call, submitted
from .lyric_writer import write_lyrics
from .ordered_tasks import OrderedClip
from .recipes import Recipe, composed, continued, joined, made
from .replies import JsonReply, invalid, retired
from .score import INSTRUMENTAL, Brief
from .validation import TITLE

FUZZ: Final = ("FUZZ-1.1 Pro", "FUZZ-1.1", "FUZZ-1.0 Pro", "FUZZ-1.0")
RIFFUSION_TYPES: Final = frozenset(TASK_TYPES)
STUDIO_SECONDS: Final = {"studio130-v1.5": 130.0, "studio32-v1.5": 32.0}
SEGMENTS: Final = frozenset({"intro", "verse", "chorus", "inst", "bridge", "outro"})


def nuro(call: Call) -> JsonReply:
    """`POST /nuro/create`: a vocal song or background music."""
    if call.service.choices.nuro == "retired":
        raise retired()
    form, service = call.form, call.service
    kind = form.text("type")
    if kind is None and form.get("lyrics") is not None:
        kind = "vocal"
    if kind not in ("vocal", "bgm"):
        raise invalid("The 'type' field should be one of 'vocal', 'bgm'.")
    webhook = form.webhook()
    brief, extra = _nuro_vocal(call) if kind == "vocal" else _nuro_bgm(call)
    form.moderate()
    call.pay("nuro")
    recipe = composed(brief, longest=max(service.longest, 1.0), seconds=brief.duration)
    lyrics = INSTRUMENTAL if brief.instrumental else brief.lyrics or ""
    clip = OrderedClip(service.new_id(), recipe, title="Nuro", tags=brief.tags, lyrics=lyrics, extra=extra)
    return submitted(call, call.order("nuro", kind, service.durations.nuro, [clip], webhook=webhook))


def _nuro_vocal(call: Call) -> tuple[Brief, dict[str, object]]:
    form = call.form
    lyrics = form.needed("lyrics", most=2000)
    texts = {name: form.text(name, 100) for name in ("genre", "mood", "gender", "timbre")}
    if texts["gender"] not in (None, "Female", "Male"):
        raise invalid("The 'gender' field should be one of 'Female', 'Male'.")
    seconds = form.whole("duration", 30, 240)
    extra = {
        "genre": texts["genre"] or "Pop",
        "mood": texts["mood"] or "Happy",
        "gender": texts["gender"] or "Female",
        "timbre": texts["timbre"] or "Warm",
    }
    brief = Brief(
        seed=call.service.new_seed(),
        tags=f"{extra['genre']}, {extra['mood']}",
        lyrics=lyrics,
        vocal_gender="m" if extra["gender"] == "Male" else "f",
        duration=float(seconds or 60),
    )
    return brief, dict[str, object](extra)


def _nuro_bgm(call: Call) -> tuple[Brief, dict[str, object]]:
    form = call.form
    version = form.text("version") or "v1.0"
    if version not in ("v1.0", "v2.0"):
        raise invalid("The 'version' field should be one of 'v1.0', 'v2.0'.")
    newer = version == "v2.0"
    description = form.needed("description", most=199 if newer else 2000)
    lists = {name: form.words(name, 5) or [] for name in ("genre", "mood", "instrument", "theme")}
    seconds = form.whole("duration", 30 if newer else 1, 120 if newer else 60)
    segments = form.get("segments")
    if segments is not None:
        total = _segments(segments)
        seconds = total if newer else seconds
    brief = Brief(
        seed=call.service.new_seed(),
        tags=", ".join(word for words in lists.values() for word in words),
        description=description,
        instrumental=True,
        duration=float(seconds or 60),
    )
    extra: dict[str, object] = {"genre": ", ".join(lists["genre"]), "mood": ", ".join(lists["mood"])}
    return brief, extra


def _segments(value: JSON) -> int:
    """Return the whole duration of `segments`: 5-120 s each, 30-120 s together."""
    wrong = invalid("The 'segments' field is invalid.")
    total = 0
    for segment in map(mapping_or_empty, list_or_empty(value)):
        seconds = segment.get("duration")
        if segment.get("name") not in SEGMENTS or type(seconds) is not int or not 5 <= seconds <= 120:
            raise wrong
        total += seconds
    if not 30 <= total <= 120:
        raise wrong
    return total


def riffusion(call: Call) -> JsonReply:
    """`POST /riffusion/create`: eleven task types, two songs."""
    if call.service.choices.riffusion == "retired":
        raise retired()
    form, service = call.form, call.service
    kind = form.text("task_type") or "create_music"
    if kind not in RIFFUSION_TYPES:
        raise invalid("The 'task_type' field is invalid.")
    mv = form.text("mv") or FUZZ[0]
    if mv not in FUZZ:
        raise invalid(f"The 'mv' field is invalid. The model should be one of {', '.join(FUZZ)}.")
    custom, quiet = form.flag("custom_mode"), form.flag("make_instrumental") or False
    lyrics, sound = form.text("lyrics", 3000), form.text("sound", 200)
    prompt, title = form.text("prompt", 200), form.text("title", TITLE)
    variation = form.weight("vocal_variation")
    form.text("continue_clip_id")
    for name in ("continue_at", "replace_start_time", "replace_end_time"):
        form.number(name)
    sings = kind.startswith(("extend_", "swap_"))
    if lyrics is None and sings:
        raise invalid(f"The 'lyrics' field is required when task_type = {kind}.")
    if lyrics is None and custom and not quiet:
        raise invalid("The 'lyrics' field is required when custom_mode = true.")
    if prompt is None and custom is False and not sings:
        raise invalid("The 'prompt' field is required when custom_mode = false.")
    if sound is None and (kind.startswith("extend_") or kind.endswith("_vocals")):
        raise invalid(f"The 'sound' field is required when task_type = {kind}.")
    seed = service.new_seed()
    written = write_lyrics(prompt or sound or "music", seed)[0]
    text = lyrics or (None if quiet else written[1])

    def brief() -> Brief:
        return Brief(
            seed=service.new_seed(), title=title or "", tags=sound or "", lyrics=text, description=prompt,
            instrumental=quiet,
        )  # fmt: skip

    recipes = [_riffusion_recipe(call, kind, brief()) for _ in range(2)]
    form.moderate()
    call.pay("riffusion")
    clips = [
        OrderedClip(
            service.new_id(),
            recipe,
            mv=mv,
            title=title or written[0],
            tags=sound or "",
            lyrics=INSTRUMENTAL if quiet else text or "",
            extra={"sound": sound, "vocal_variation": variation},
        )
        for recipe in recipes
    ]
    return submitted(call, call.order("riffusion", kind, service.durations.riffusion, clips))


def _riffusion_recipe(call: Call, kind: str, brief: Brief) -> Recipe:
    form, longest = call.form, call.service.longest
    if kind == "create_music":
        return composed(brief, longest=longest)
    why = f"task_type = {kind}"
    source = call.service.clip(form.clip_id("continue_clip_id", why), call.now).recipe
    if kind.startswith("extend_"):
        at = min(form.number("continue_at", needed=True) or 0.0, source.duration)
        return joined(source, at, continued(source, at, brief, longest=longest))
    if kind.startswith("replace_"):
        start = form.number("replace_start_time", needed=True) or 0.0
        end = form.number("replace_end_time", needed=True) or 0.0
        if end <= start:
            raise invalid("The 'replace_end_time' field should be greater than 'replace_start_time'.")
        return made("replace", brief, source, start=start, end=end)
    if kind.endswith("_vocals"):
        return made("sing", brief, source, end=source.duration)
    return made("accompany" if kind.endswith("_sound") else "cover", brief, source)


def studio(call: Call) -> JsonReply:
    """`POST /studio/create`: two songs; the id is `data` itself."""
    choices = call.service.choices
    if choices.studio == "retired":
        raise retired()
    form, service = call.form, call.service
    prompt, kind = form.needed("prompt", most=2000), form.needed("lyrics_type")
    if kind not in ("user", "generate", "instrumental"):
        raise invalid("The 'lyrics_type' field should be one of 'user', 'generate', 'instrumental'.")
    lyrics = form.text("lyrics", 1000)
    if kind == "user" and lyrics is None:
        raise invalid("The 'lyrics' field is required when lyrics_type = user.")
    model = form.needed("model_type")
    if model not in STUDIO_SECONDS:
        raise invalid(f"The 'model_type' field should be one of {', '.join(STUDIO_SECONDS)}.")
    for name in ("prompt_strength", "clarity_strength", "lyrics_strength", "generation_quality"):
        if form.weight(name) is None:
            raise invalid(f"The '{name}' field is required.")
    for name in _SHARES:
        form.weight(name)
    form.text("negative_prompt", 2000)
    form.flag("bypass_prompt_optimization")
    seed = form.number("seed", least=-1)
    source, precede = _studio_source(call)
    drawn = service.new_seed()
    title, written = write_lyrics(prompt, drawn)[0]
    text = {"user": lyrics, "generate": written}.get(kind)
    seconds = min(STUDIO_SECONDS[model], service.longest)
    clips: list[OrderedClip] = []
    for number in range(2):
        own = service.new_seed() if seed is None or seed < 0 else int(seed) % (1 << 31) + number
        brief = Brief(seed=own, title=title, tags=prompt, lyrics=text, instrumental=kind == "instrumental")
        if source is None:
            recipe = composed(brief, longest=seconds, seconds=seconds)
        else:
            base, at = source.recipe, source.recipe.duration
            part = continued(base, at, brief, longest=seconds, seconds=seconds)
            recipe = joined(part, part.duration, base) if precede else joined(base, at, part)
        displayed = INSTRUMENTAL if kind == "instrumental" else text or ""
        clips.append(
            OrderedClip(
                service.new_id(),
                recipe,
                mv=model,
                title=title,
                tags=prompt,
                lyrics=displayed,
                extra={"prompt": prompt},
            )
        )
    form.moderate()
    call.pay("studio")
    task = call.order("studio", kind, service.durations.studio, clips)
    if choices.studio_code == "200":
        return JsonReply({"code": "200", "data": task.task_id})
    return JsonReply({"code": "success", "data": task.task_id, "message": ""})


_SHARES: Final[Sequence[str]] = (
    "song_section_start",
    "song_section_end",
    "lyrics_placement_start",
    "lyrics_placement_end",
)


def _studio_source(call: Call) -> tuple[OrderedClip | None, bool]:
    """Return the song to extend, if any, and True if the new part comes before it."""
    settings = mapping_or_empty(call.form.get("config"))
    mode, song_id = settings.get("mode"), mapping_or_empty(settings.get("source")).get("song_id")
    if mode == "regular":
        return None, False
    if mode not in ("precede", "continuation") or not isinstance(song_id, str):
        raise invalid("The 'config' field is invalid.")
    return call.service.clip(song_id, call.now), mode == "precede"
