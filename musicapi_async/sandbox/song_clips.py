"""From the fields of a request to clips: what is shared by everything that makes songs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from .backend import Call
from .lyric_writer import write_lyrics
from .ordered_tasks import OrderedClip, StoredPersona
from .recipes import Recipe, score_of
from .replies import invalid
from .score import INSTRUMENTAL, Brief
from .style import read_style
from .validation import NEGATIVE_TAGS, SONG_DESCRIPTION, TITLE, Form, TextLimits, model

VARIANTS: Final = 2
"""Clips of a create (observed)."""


REWORKED: Final = frozenset({"cover", "mash", "replace", "remaster", "sing", "accompany", "cut"})
"""Recipes whose words are known only from their score."""


@dataclass(slots=True, frozen=True)
class SongRequest:
    """The song that a request describes."""

    mv: str
    custom: bool
    instrumental: bool
    auto_lyrics: bool
    prompt: str | None
    description: str | None
    title: str | None
    tags: str | None
    negative_tags: str | None
    gender: Literal["f", "m"] | None
    style_weight: float | None
    weirdness: float | None
    seconds: float | None


def read_song(
    call: Call,
    *,
    kind: str = "",
    also: tuple[str, ...] = (),
    tags: int | None = None,
    own: TextLimits | None = None,
    modes: bool = True,
    lengthy: bool = False,
    lenient: bool = False,
) -> SongRequest:
    """Read and check the fields of a song.

    Args:
        call: The request.
        kind: The task type that an error text names.
        also: Models that only this endpoint takes.
        tags: Most characters of the tags, where they do not follow from the model; then those to avoid have
            no limit.
        own: Limits of the texts, where they do not follow from the model.
        modes: True if there is a custom mode, which decides on the required text.
        lengthy: True if a duration may be requested.
        lenient: True if mode and text may be left out.
    """
    form, choices = call.form, call.service.choices
    mv, limits = model(form, also=also, chirp=choices.chirp_models)
    limits = own or limits
    custom = form.flag("custom_mode", needed=modes and not lenient)
    instrumental = form.flag("make_instrumental") or False
    auto = form.flag("auto_lyrics") or False
    prompt, description = _texts(form, limits)
    title = form.text("title", TITLE)
    style = form.text("tags", limits.tags if tags is None else tags)
    negative = form.text("negative_tags", NEGATIVE_TAGS if tags is None else None)
    gender = vocal_gender(form)
    style_weight, weirdness = form.weight("style_weight"), form.weight("weirdness_constraint")
    form.weight("audio_weight")
    seconds = form.whole("duration", 10, 360)
    if seconds is not None and not lengthy:
        raise invalid(f"The 'duration' field is not supported{' when task_type = ' + kind if kind else ''}.")
    if modes:
        _check_text(custom is not False, instrumental, prompt, description, lenient)
        if auto and custom is False:
            raise invalid("The 'auto_lyrics' field needs custom_mode = true.")
    return SongRequest(
        mv, custom is not False, instrumental, auto, prompt, description, title, style, negative, gender,
        style_weight, weirdness, seconds,
    )  # fmt: skip


def _texts(form: Form, limits: TextLimits) -> tuple[str | None, str | None]:
    lyrics = form.text("lyrics", limits.prompt)
    prompt = form.text("prompt", limits.prompt)
    return prompt if prompt is not None else lyrics, form.text("gpt_description_prompt", SONG_DESCRIPTION)


def _check_text(
    custom: bool, instrumental: bool, prompt: str | None, description: str | None, lenient: bool
) -> None:
    if custom and prompt is None and not instrumental and not lenient:
        raise invalid("The 'prompt' field is required when custom_mode = true.")
    if not custom and description is None:
        raise invalid("The 'gpt_description_prompt' field is required when custom_mode = false.")


def vocal_gender(form: Form) -> Literal["f", "m"] | None:
    """Return `f` or `m`; null and empty text are refused here (observed), unlike anywhere else."""
    if not form.has("vocal_gender"):
        return None
    value = form.get("vocal_gender")
    if value == "f":
        return "f"
    if value == "m":
        return "m"
    raise invalid("The 'vocal_gender' field should be 'f' or 'm'.")


def brief_of(song: SongRequest, seed: int, words_seed: int, persona: StoredPersona | None = None) -> Brief:
    """Return the brief for one variant; `words_seed` is shared by all, so that they sing the same text."""
    title, lyrics, tags = song.title or "", song.prompt, song.tags or (persona.styles if persona else "")
    wish = song.prompt if song.auto_lyrics else None if song.custom else song.description
    if wish is not None:
        written_title, written = write_lyrics(wish, words_seed)[0]
        title, lyrics = title or written_title, written
    return Brief(
        seed=seed,
        title=title,
        tags=tags,
        lyrics=lyrics,
        description=wish,
        instrumental=song.instrumental or (lyrics is None and song.custom),
        vocal_gender=song.gender or (persona.gender if persona else None),
        negative_tags=song.negative_tags or "",
        voice_seed=persona.voice_seed if persona else None,
    )


def variants(
    call: Call,
    song: SongRequest,
    make: Callable[[Brief], Recipe],
    *,
    persona: StoredPersona | None = None,
    inherits: OrderedClip | None = None,
) -> list[OrderedClip]:
    """Return the clips of a task, each with music of its own.

    Args:
        call: The request.
        song: Its fields.
        make: Returns the recipe of a brief.
        persona: The voice to sing with.
        inherits: The clip from which lyrics, title and tags come that are not in the request.
    """
    words_seed = call.service.new_seed()
    rewritten = not song.custom and call.service.choices.title == "rewritten"
    genre = ""
    clips: list[OrderedClip] = []
    for _ in range(VARIANTS):
        brief = brief_of(song, call.service.new_seed(), words_seed, persona)
        recipe = make(brief)
        given = brief.title or (inherits.title if inherits is not None else "")
        title = given or _first_line(brief.lyrics or "") or "Untitled"
        if not brief.tags and not genre:
            genre = read_style("", brief.description or "", brief.negative_tags, words_seed).genre
        tags = brief.tags or genre
        lyrics = sung(recipe) if recipe.how in REWORKED else displayed_lyrics(brief)
        if rewritten and song.title and song.description:
            title = write_lyrics(song.description, words_seed)[0][0]
        if inherits is not None and song.prompt is None and song.description is None:
            tags = song.tags or inherits.tags
        clips.append(
            OrderedClip(
                call.service.new_id(),
                recipe,
                mv=song.mv,
                title=title,
                tags=tags,
                lyrics=lyrics,
                description=None if song.custom else song.description,
                negative_tags=song.negative_tags,
                style_weight=song.style_weight,
                weirdness=song.weirdness,
            )
        )
    return clips


def displayed_lyrics(brief: Brief) -> str:
    """Return the lyrics of a composed clip: its text, or the marker of a piece without singing."""
    return INSTRUMENTAL if brief.instrumental else brief.lyrics or ""


def sung(recipe: Recipe) -> str:
    """Return the lyrics of a clip whose words come from other clips."""
    return score_of(recipe).lyrics


def _first_line(lyrics: str) -> str:
    lines = (line.strip() for line in lyrics.splitlines())
    return next((line for line in lines if line and not line.startswith("[")), "")[:40]
