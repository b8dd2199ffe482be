"""The page's data: songs, takes and files as the page of a batch displays them, from the records."""

from __future__ import annotations

import base64
import mimetypes
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from .._wire.result_reading import read_reply
from ..api.direct_replies import Bpm, Persona
from ..api.json_values import mapping_or_empty
from ..api.lyrics import AlignedLyrics
from ..api.request import SECRET
from .batch_folder import ClipRecord, SongRecord, StepRecord
from .command_texts import in_commands
from .manifest import STEP_NAMES
from .run_record import RowRecord

STEP_TITLES: Final = {
    "stems_basic": "Stems (basic)",
    "stems_full": "Stems (full)",
    "stems": "Stems",
    "wav": "WAV",
    "midi": "MIDI",
    "lyrics": "Timed lyrics",
    "aligned_lyrics": "Timed lyrics",
    "bpm": "Tempo",
    "cover": "Cover",
    "persona": "Persona",
    "create_persona": "Persona",
    "extend": "Extended",
}
"""Names of the steps on the page."""
STEMS: Final = frozenset({"stems_basic", "stems_full"})
AUDIO: Final = frozenset({".mp3", ".wav", ".ogg", ".opus", ".flac", ".m4a", ".aac"})
LEVELS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
"""Heights of a wave form, a letter each: 64 are more than the pixels that it has."""
WITHOUT_FACTS: Final = frozenset({"aligned_lyrics", "create_persona", "bpm", "wav", "midi", "download"})
"""Operations whose replies say nothing that the page does not display otherwise: links that expire, words."""
ENVELOPE: Final = frozenset({"code", "message", "msg", "success", "status"})
"""Fields around a reply, which say that the call worked."""
HIDDEN: Final = SECRET | {"mv", "prompt", "gpt_description_prompt", "title", "tags", "persona_id"}
"""Fields of a request that the page displays in a place of their own, or not at all."""
FACT_LENGTH: Final = 300


class Stem(msgspec.Struct, omit_defaults=True):
    """A part of a take, which the page mutes or plays alone; a silent one is folded away."""

    name: str
    file: str
    silent: bool = False


class StepFile(msgspec.Struct, omit_defaults=True):
    """A file of a step."""

    label: str
    file: str
    ending: str
    audio: bool = False


class FailedStep(msgspec.Struct):
    """A step that failed, and why."""

    label: str
    error: str


class Take(msgspec.Struct, omit_defaults=True):
    """A clip of a song. `lines` are its lyrics with the second at which each begins, `persona` id and name
    of the one that was made of it, `path` its file below the folder, `file` the link to it."""

    id: str
    title: str = ""
    tags: str = ""
    length: float | None = None
    file: str = ""
    path: str = ""
    cover: str = ""
    peaks: str = ""
    lyrics: str = ""
    lines: list[tuple[float, str]] = []
    bpm: float | None = None
    error: str = ""
    persona: tuple[str, str] | None = None
    stems: list[Stem] = []
    files: list[StepFile] = []
    failed: list[FailedStep] = []
    facts: list[tuple[str, str]] = []


class PageSong(msgspec.Struct, omit_defaults=True):
    """A song. `row` is its number in the batch, as in the names of its files, `state` a word of the page,
    `named` says that its id was given, `times` when it was queued, submitted, made and fetched.
    """

    id: str
    row: int
    title: str
    state: str
    named: bool = False
    note: str = ""
    operation: str = ""
    model: str = ""
    prompt: str = ""
    persona: str = ""
    cost: str = ""
    task_id: str = ""
    times: list[float] = []
    facts: list[tuple[str, str]] = []
    takes: list[Take] = []


class Links:
    """Makes the links of a page to the files of a batch.

    Args:
        out: The folder of the batch.
        page: The folder of the page.
        embed: Put the files themselves into the page.
    """

    def __init__(self, out: Path, page: Path, *, embed: bool = False) -> None:
        self._out: Final = out
        self._embed: Final = embed
        self._way: Final = "" if out == page else Path(os.path.relpath(out, page)).as_posix() + "/"

    def to(self, name: str, *, embed: bool = False) -> str:
        """Return the link to a file, by its path below the folder; '' for none.

        With `embed`, which is for sounds and pictures, it is the file itself if the page is to have them.
        """
        if not name:
            return ""
        if embed and self._embed:
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            try:
                data = (self._out / name).read_bytes()
            except OSError:
                return ""
            return f"data:{kind};base64,{base64.b64encode(data).decode()}"
        return quote(self._way + name)


def page_song(
    record: SongRecord,
    row: RowRecord,
    number: int,
    links: Links,
    *,
    cost: str,
    note: str,
    state: str,
    store: str,
) -> PageSong:
    """Return a song that has a record.

    Args:
        record: Its record.
        row: Its row.
        number: That of its row, from 1.
        links: Makes the links to its files.
        cost: Its cost in words, or ''.
        note: What is to be said of it, in the place of its error; or ''.
        state: Its state.
        store: The place of the jobs, as a word of a command line.
    """
    fields = record.fields
    prompt = fields.get("prompt") or fields.get("gpt_description_prompt") or ""
    rest = ((name.replace("_", " "), _fact(value)) for name, value in fields.items() if name not in HIDDEN)
    return PageSong(
        id=row.id,
        row=number,
        title=record.title.strip() or row.id,
        state=state,
        named=row.is_named,
        note=in_commands(note or record.reason or record.error, store),
        operation=record.operation,
        model=str(fields.get("mv") or ""),
        prompt=str(prompt),
        persona=str(fields.get("persona_id") or ""),
        cost=cost,
        task_id=record.task_id,
        times=[record.queued_at, record.submitted_at, record.ended_at, record.fetched_at],
        facts=[(name, value) for name, value in rest if value],
        takes=[_take(clip, links, store) for clip in record.clips],
    )


def _take(clip: ClipRecord, links: Links, store: str) -> Take:
    take = Take(
        id=clip.clip_id,
        title=clip.title.strip(),
        tags=clip.tags,
        length=clip.duration,
        file=links.to(clip.file, embed=True),
        path=clip.file,
        cover=links.to(clip.cover, embed=True),
        peaks="".join(LEVELS[round(63 * min(max(peak, 0.0), 1.0))] for peak in clip.peaks),
        lyrics=clip.lyrics,
        error=in_commands(clip.error, store),
    )
    for step in clip.steps:
        _add_step(take, step, links, store)
    if take.lines:
        take.lyrics = ""
    return take


def _add_step(take: Take, step: StepRecord, links: Links, store: str) -> None:
    operation = STEP_NAMES.get(step.name, step.name)
    title = STEP_TITLES.get(step.name, step.name.replace("_", " ").capitalize())
    if step.state == "failed":
        take.failed.append(FailedStep(title, in_commands(step.reason or step.error, store)))
        return
    body = mapping_or_empty(step.reply)
    if operation in STEMS:
        for name, file in zip(step_labels(step), step.files, strict=True):
            take.stems.append(Stem(name, links.to(file, embed=True), file in step.silent))
        return
    if operation == "aligned_lyrics" and (lyrics := read_reply(AlignedLyrics, body)) is not None:
        take.lines = [(round(line.start, 2), line.text) for line in lyrics.lines(sections=True)]
    elif operation == "create_persona" and (persona := read_reply(Persona, body)) is not None:
        name = persona.name or str(step.fields.get("name") or "")
        take.persona = (persona.persona_id, name)
        take.facts.append((title, f"{name} ({persona.persona_id})".strip()))
    elif operation == "bpm" and (tempo := read_reply(Bpm, body)) is not None:
        take.bpm = tempo.avg_bpm
        if tempo.min_bpm and tempo.max_bpm and tempo.min_bpm < tempo.max_bpm:
            take.facts.append((title, f"{tempo.min_bpm:g} to {tempo.max_bpm:g} bpm"))
    for number, (label, file) in enumerate(zip(step_labels(step), step.files, strict=True), 1):
        ending = Path(file).suffix.lower()
        if ending != ".json":  # a reply, which is displayed as facts
            is_audio, named = ending in AUDIO, title
            if len(step.files) > 1 and is_audio:  # those of clips are labelled by their ids
                named = f"{title}: {label}" if label == ending[1:] else f"{title} {number}"
            link = links.to(file, embed=is_audio)
            take.files.append(StepFile(named, link, ending[1:].upper() or "File", is_audio))
    if operation not in WITHOUT_FACTS:
        values = {**body, **mapping_or_empty(body.get("data"))}
        for name, value in values.items():
            if name not in ENVELOPE and (fact := _fact(value)):
                take.facts.append((f"{title}: {name.replace('_', ' ')}", fact))


def step_labels(step: StepRecord) -> list[str]:
    """Return what the files of a step are called, such as the names of stems."""
    if len(step.labels) == len(step.files):
        return step.labels
    return [Path(file).stem for file in step.files]


def _fact(value: object) -> str:
    """Return a value that a person can read, else ''."""
    if not isinstance(value, str | int | float) or value is False:
        return ""
    text = "yes" if value is True else str(value)
    return text if len(text) <= FACT_LENGTH else f"{text[:FACT_LENGTH]}…"
