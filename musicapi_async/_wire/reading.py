"""Fill the shapes that `api/` declares from JSON, leniently: nothing in a reply makes these functions raise.

Numbers may be strings; what does not fit its field leaves that field at its default; ids and links that had
to be repaired count as missing; unknown keys stay reachable in `raw`. The callers decide what a body means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from ..api.account import Credits
from ..api.lyrics import LyricsDrafts
from ..api.replies import Files, Reply, Upload
from ..api.results import RAW_NAME, SUCCEEDED, UNKNOWN, Clip, Clips, Item, Voice
from ..api.stems import ConcatPairs, Pair, Stem, Stems
from ..api.values import id_of, is_intact, list_or_empty, mapping_or_empty, reference_or_none, text_or_none

ItemT = TypeVar("ItemT", bound=Item)
ClipT = TypeVar("ClipT", bound=Clip)
ReplyT = TypeVar("ReplyT", bound=Reply)

# --- any item ---------------------------------------------------------------------------------------------

_MISFITS: Final = (msgspec.ValidationError, UnicodeError, RecursionError)
_TEXT: Final = (str, str | None)
_LINKS: Final = ("url", "cover_image")
"""Names of links beside those that end with `_url`."""


class _Plan(msgspec.Struct, frozen=True):
    """How items of a class are read: its fields by name, key and type, keys of ids and links, and lists."""

    fields: tuple[tuple[str, str, Any], ...]
    references: tuple[str, ...]
    lists: tuple[tuple[str, str, type[Item]], ...]


@cache
def _plan(kind: type[Item]) -> _Plan:
    fields: list[tuple[str, str, Any]] = []
    lists: list[tuple[str, str, type[Item]]] = []
    for field in msgspec.structs.fields(kind):
        inner = msgspec.inspect.type_info(field.type)
        if isinstance(inner, msgspec.inspect.ListType) and isinstance(
            inner.item_type, msgspec.inspect.StructType
        ):
            item = inner.item_type.cls
            if issubclass(item, Item):
                lists.append((field.name, field.encode_name, item))
                continue
        if field.encode_name != RAW_NAME:
            fields.append((field.name, field.encode_name, field.type))
    references = tuple(key for name, key, _ in fields if name.endswith(("_id", "_url")) or name in _LINKS)
    return _Plan(tuple(fields), references, tuple(lists))


def read_item(kind: type[ItemT], mapping: Mapping[str, Any]) -> ItemT:
    """Read one JSON object as `kind`.

    The whole is tried first, which is fast; only an object with a field of the wrong type is read field by
    field.
    """
    plan = _plan(kind)
    given = _without_broken(mapping, plan.references)
    if plan.lists:
        lists = {key for _, key, _ in plan.lists}
        given = {key: value for key, value in given.items() if key not in lists}
    try:
        item = msgspec.convert(given, kind, strict=False)
    except _MISFITS:
        fitting = {name: _fitting(given[key], hint) for name, key, hint in plan.fields if key in given}
        item = kind(**{name: value for name, value in fitting.items() if value is not None})
    if plan.lists:
        found = {name: read_items(inner, mapping.get(key)) for name, key, inner in plan.lists}
        item = msgspec.structs.replace(item, **found)
    item.raw = dict(mapping)
    return item


def read_items(kind: type[ItemT], value: object) -> list[ItemT]:
    """Read the JSON objects of a list; what is no object stays in the raw body only."""
    return [read_item(kind, mapping_or_empty(one)) for one in list_or_empty(value) if isinstance(one, dict)]


def _without_broken(mapping: Mapping[str, Any], references: tuple[str, ...]) -> Mapping[str, Any]:
    """Leave out ids and links that are not intact."""
    # One test of all of them, which are ASCII as a rule, costs a fifth of one of each.
    joined = "".join([value for key in references if isinstance(value := mapping.get(key), str)])
    if joined.isascii() and joined.isprintable():
        return mapping
    broken = {key for key in references if not is_intact(mapping.get(key))}
    return {key: value for key, value in mapping.items() if key not in broken}


def _fitting(value: Any, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint, strict=False)
    except _MISFITS:
        if hint in _TEXT and isinstance(value, int | float) and not isinstance(value, bool):
            return _fitting(str(value), hint)
        return None


# --- direct replies ---------------------------------------------------------------------------------------


def read_reply(kind: type[ReplyT], body: Mapping[str, Any]) -> ReplyT | None:
    """Read the reply of a direct call; None when the body lacks what the caller came for."""
    given = {key: value for key, value in body.items() if value not in (None, "")}
    if data := mapping_or_empty(body.get("data")):
        given = {**data, **given}
    reply = read_item(kind, given)
    reply.raw = dict(body)
    return reply if _has_result(reply, given) else None


def _has_result(reply: Reply, given: Mapping[str, Any]) -> bool:
    match reply:
        case Credits():  # no balance is made up, and zero is one
            return any(name in given for name in reply.needs)
        case LyricsDrafts():  # perhaps none was written
            return isinstance(given.get("results"), list)
        case Files():
            reply.files = [file for file in reply.files if file.url]
            return bool(reply.files)
        case Upload() if not (reply.clip_id or reply.task_id or reply.raw.get("error")):
            reply.clip_id = id_of(reply.raw) or id_of(mapping_or_empty(reply.raw.get("data")))
            return reply.clip_id is not None
        case _:
            values = msgspec.structs.asdict(reply)
            return not reply.needs or any(values[name] for name in reply.needs)


# --- results of tasks -------------------------------------------------------------------------------------


def read_clip(mapping: Mapping[str, Any]) -> Clip:
    """Read one clip; empty links count as missing, a state that is no word as unknown."""
    return _read_clip(Clip, mapping)


def _read_clip(kind: type[ClipT], mapping: Mapping[str, Any]) -> ClipT:
    clip = read_item(kind, mapping)
    if not clip.clip_id:
        clip.clip_id = id_of(mapping) or ""
    if not clip.state and "state" in mapping:
        clip.state = UNKNOWN
    clip.audio_url = clip.audio_url or None
    clip.wav_url = clip.wav_url or None
    clip.video_url = clip.video_url or None
    clip.image_url = clip.image_url or None
    return clip


def read_clips(items: Iterable[object], raw: Any, *, task_id: str, family: str) -> Clips:
    """Read a list of JSON objects as clips; what is no object is in `raw` only."""
    found = [read_clip(mapping_or_empty(item)) for item in items if isinstance(item, dict)]
    return Clips(found, raw, task_id=task_id, family=family)


class RunningClips(Clips):
    """Clips that are all unfinished, read when a caller uses them: of most polls none does."""

    __slots__ = ("_unread",)

    def __init__(self, unread: Sequence[Mapping[str, Any]], raw: Any, *, task_id: str, family: str) -> None:
        super().__init__((), raw, task_id=task_id, family=family)
        self._unread = unread

    @property
    def items(self) -> tuple[Clip, ...]:
        """The clips as a tuple."""
        if self._unread:
            self._items = tuple(map(read_clip, self._unread))
            self._unread = ()
        return self._items

    @property
    def has_succeeded(self) -> bool:
        """False: all of them are known to be unfinished."""
        return False

    def __repr__(self) -> str:
        return repr(Clips(self.items))


def read_studio_song(song: Mapping[str, Any]) -> Clip:
    """Read a song of Studio under the names of the other families."""
    tags = song.get("tags")
    clip = read_clip(
        {
            **song,
            "clip_id": song.get("id"),
            "audio_url": song.get("song_path"),
            "image_url": song.get("image_path"),
            "tags": ", ".join(map(str, list_or_empty(tags))) or tags,
            "state": SUCCEEDED if song.get("song_path") else "running",
        }
    )
    clip.raw = dict(song)
    return clip


def read_voice(data: Mapping[str, Any], raw: Any, *, task_id: str, family: str) -> Voice | None:
    """Read a created voice; None while there is no persona id."""
    persona_id = reference_or_none(data.get("persona_id"))
    if persona_id is None:
        return None
    return Voice(persona_id, text_or_none(data.get("name")), raw, task_id=task_id, family=family)


def read_progress(body: Mapping[str, Any]) -> float | None:
    """Read the share done from 0 to 1, of a body that says a percentage; else None."""
    value = body.get("progress")
    if value is None:
        value = mapping_or_empty(body.get("data")).get("progress")
        if value is None:
            return None
    try:
        share = float(str(value).rstrip("%")) / 100
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


# --- parts of a song --------------------------------------------------------------------------------------

DASH: Final = re.compile(r"\s[-\u2013\u2014](?=\s)")
"""A hyphen, en dash or em dash between spaces."""
BRACKETS: Final = re.compile(r"[(\[]([^()\[\]]*[^()\[\]\s][^()\[\]]*)[)\]]")
"""Brackets with something in them."""
PART_NAMES: Final = ("extended", "replaced", "covered")
"""Keys under which a pair holds its part; the full song is beside it under 'full'."""


def read_stems(clips: Clips) -> Stems:
    """Name the clips by `stem_type`, else by the title's dash or brackets, else by index."""
    named: list[Stem] = []
    for index, clip in enumerate(clips):
        stem = _read_clip(Stem, clip.raw)
        stem.name = (clip.stem_type or "").strip().lower() or _name_in(clip.title or "") or str(index)
        named.append(stem)
    return Stems(named, clips.raw, task_id=clips.task_id, family=clips.family)


def _name_in(title: str) -> str:
    """Return the name in a stem's title: after the last dash between spaces, else in the last brackets.

    A hyphen inside a word, as in 'Lo-Fi Beat (Instrumental)', separates nothing.
    """
    parts = DASH.split(title)
    if len(parts) > 1 and parts[-1].strip():
        return parts[-1].strip().lower()
    bracketed = BRACKETS.findall(title)
    return bracketed[-1].strip().lower() if bracketed else ""


def is_pair(item: object) -> bool:
    """Return True if a JSON value is a part with its full song."""
    return isinstance(item, dict) and ("full" in item or "extended" in item or "replaced" in item)


def read_pairs(items: Iterable[object], raw: Any, *, task_id: str, family: str) -> ConcatPairs:
    """Read a list of `{"extended" or "replaced": clip, "full": clip or null}` as pairs."""
    pairs: list[Pair] = []
    for mapping in map(mapping_or_empty, filter(is_pair, items)):
        kind = next((name for name in PART_NAMES if isinstance(mapping.get(name), dict)), "")
        full = mapping_or_empty(mapping.get("full"))
        pairs.append(
            Pair(
                part=read_clip(mapping_or_empty(mapping.get(kind))),
                full=read_clip(full) if full else None,
                kind=kind,
                raw=mapping,
            )
        )
    return ConcatPairs(pairs, raw, task_id=task_id, family=family)
