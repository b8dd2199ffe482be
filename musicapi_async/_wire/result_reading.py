"""Fill the shapes that `api/` declares from JSON, leniently: nothing in a reply makes these functions raise.

Numbers may be strings; what does not fit its field leaves that field at its default; ids and links that had
to be repaired count as missing; unknown keys stay reachable in `raw`. The callers decide what a body means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from ..api.direct_replies import Reply, Upload
from ..api.json_values import (
    JSON,
    clip_id_in,
    id_in,
    is_intact,
    list_or_empty,
    mapping_or_empty,
    text_or_none,
)
from ..api.results import SUCCEEDED, UNKNOWN_STATE, Clip, Clips, Item, Voice
from ..api.stems import ConcatPairs, Pair, Stem, Stems, name_of_stem

ItemT = TypeVar("ItemT", bound=Item)
ClipT = TypeVar("ClipT", bound=Clip)
ReplyT = TypeVar("ReplyT", bound=Reply)

_MISFITS: Final = (msgspec.ValidationError, UnicodeError, RecursionError)
_TEXT: Final = (str, str | None)
_LINKS: Final = ("url", "cover_image")
"""Names of links beside those that end with `_url`."""


class _Plan(msgspec.Struct, frozen=True):
    """The way to read items of a class: fields by name, key and type, keys of ids and links, and lists."""

    fields: tuple[tuple[str, str, object], ...]
    references: tuple[str, ...]
    lists: tuple[tuple[str, str, type[Item]], ...]


@cache
def _plan(kind: type[Item]) -> _Plan:
    keys: Mapping[str, str] = kind.keys if issubclass(kind, Reply) else {}
    fields: list[tuple[str, str, object]] = []
    lists: list[tuple[str, str, type[Item]]] = []
    for field in msgspec.structs.fields(kind):
        inner = msgspec.inspect.type_info(field.type)
        if isinstance(inner, msgspec.inspect.ListType) and isinstance(
            inner.item_type, msgspec.inspect.StructType
        ):
            item = inner.item_type.cls
            if issubclass(item, Item):
                lists.append((field.name, keys.get(field.name, field.name), item))
                continue
        fields.append((field.name, field.name, field.type))
    references = tuple(key for name, key, _ in fields if name.endswith(("_id", "_url")) or name in _LINKS)
    return _Plan(tuple(fields), references, tuple(lists))


def read_item(kind: type[ItemT], mapping: Mapping[str, JSON], raw: Mapping[str, JSON] | None = None) -> ItemT:
    """Read one JSON object.

    The whole is tried first, which is fast; only an object with a field of the wrong type is read field by
    field.

    Args:
        kind: the class to read it as.
        mapping: the JSON object.
        raw: the whole body, if that is another object.
    """
    plan = _plan(kind)
    given = _without_broken(mapping, plan.references) if plan.references else mapping
    if plan.lists:
        lists = {key for _, key, _ in plan.lists}
        given = {key: value for key, value in given.items() if key not in lists}
    try:
        item = msgspec.convert(given, kind, strict=False)
    except _MISFITS:
        fitting = {name: _fitting(given[key], hint) for name, key, hint in plan.fields if key in given}
        item = kind(**{name: value for name, value in fitting.items() if value is not None})
    if plan.lists:
        found = {  # what is no object stays in the raw body only
            name: [read_item(inner, one) for one in list_or_empty(mapping.get(key)) if isinstance(one, dict)]
            for name, key, inner in plan.lists
        }
        item = msgspec.structs.replace(item, **found)
    item.raw = dict(mapping if raw is None else raw)
    return item


def _without_broken(mapping: Mapping[str, JSON], references: tuple[str, ...]) -> Mapping[str, JSON]:
    """Leave out ids and links that are not intact."""
    # One test of all of them, which are ASCII as a rule, costs a fifth of one of each.
    joined = "".join([value for key in references if isinstance(value := mapping.get(key), str)])
    if joined.isascii() and joined.isprintable():
        return mapping
    broken = {key for key in references if not is_intact(mapping.get(key))}
    return {key: value for key, value in mapping.items() if key not in broken}


def _fitting(value: JSON, hint: object) -> Any:
    """Return `value` as what a field takes, or None if it does not fit."""
    try:
        return msgspec.convert(value, hint, strict=False)
    except _MISFITS:
        if hint in _TEXT and isinstance(value, int | float) and not isinstance(value, bool):
            return _fitting(str(value), hint)
        return None


def read_reply(kind: type[ReplyT], body: Mapping[str, JSON]) -> ReplyT | None:
    """Read the reply of a direct call; None when the body lacks what the caller came for."""
    given, values = body, body.values()
    if None in values or "" in values:  # left out, too
        given = {key: value for key, value in body.items() if value not in (None, "")}
    if "data" in body and (data := mapping_or_empty(body["data"])):
        given = {**data, **given}
    if issubclass(kind, Upload) and given.keys().isdisjoint((*kind.needs, "error")):
        given = {**given, "clip_id": clip_id_in(given)}  # the clip may have no other name
    reply = read_item(kind, given, body)
    for name in kind.needs:
        if getattr(reply, name):
            return reply
    if not kind.needs or (kind.may_be_empty and _is_given(kind, given)):
        return reply
    return None


def _is_given(kind: type[Reply], given: Mapping[str, JSON]) -> bool:
    """Return True if a field that is needed came as what it should be, be it zero or empty."""
    plan = _plan(kind)
    fitting = {key for _, key, _ in plan.lists if isinstance(given.get(key), list)}
    fitting |= {
        key for _, key, hint in plan.fields if key in given and _fitting(given[key], hint) is not None
    }
    return not fitting.isdisjoint(kind.needs)


def read_clip(mapping: Mapping[str, JSON]) -> Clip:
    """Read one clip; empty links count as missing, a state that is no word as unknown."""
    return _read_clip(Clip, mapping)


def _read_clip(kind: type[ClipT], mapping: Mapping[str, JSON]) -> ClipT:
    clip = read_item(kind, mapping)
    if not clip.clip_id:
        clip.clip_id = clip_id_in(mapping) or ""
    if not clip.state and "state" in mapping:
        clip.state = UNKNOWN_STATE
    clip.audio_url = clip.audio_url or None
    clip.wav_url = clip.wav_url or None
    clip.video_url = clip.video_url or None
    clip.image_url = clip.image_url or None
    return clip


def read_clips(items: Iterable[JSON], raw: JSON, *, task_id: str, family: str) -> Clips:
    """Read a list of JSON objects as clips; what is no object is in `raw` only."""
    found = [read_clip(item) for item in items if isinstance(item, dict)]
    return Clips(found, raw, task_id=task_id, family=family)


class Unread(msgspec.Struct, frozen=True):
    """JSON objects that are read as clips when a caller uses them, which is rare. An `UnreadItems`."""

    items: Sequence[Mapping[str, JSON]]
    succeeded: bool
    has_audio: bool

    def read(self) -> tuple[Clip, ...]:
        """Return the clips."""
        return tuple(map(read_clip, self.items))


def read_studio_song(song: Mapping[str, JSON]) -> Clip:
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


def read_voice(data: Mapping[str, JSON], raw: JSON, *, task_id: str, family: str) -> Voice | None:
    """Read a created voice; None while there is no persona id."""
    persona_id = id_in(data.get("persona_id"))
    if persona_id is None:
        return None
    return Voice(persona_id, text_or_none(data.get("name")), raw, task_id=task_id, family=family)


def read_progress(body: Mapping[str, JSON]) -> float | None:
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


PART_NAMES: Final = ("extended", "replaced", "covered")
"""Keys under which a pair holds its part; the full song is beside it under 'full'."""


def read_stems(clips: Clips) -> Stems:
    """Read the clips as stems, each with its name."""
    named: list[Stem] = []
    for index, clip in enumerate(clips):
        stem = _read_clip(Stem, clip.raw)
        stem.name = name_of_stem(clip, index)
        named.append(stem)
    return Stems(named, clips.raw, task_id=clips.task_id, family=clips.family)


def is_pair(item: JSON) -> bool:
    """Return True if a JSON value is a part with its full song."""
    return isinstance(item, dict) and ("full" in item or "extended" in item or "replaced" in item)


def read_pairs(items: Iterable[JSON], raw: JSON, *, task_id: str, family: str) -> ConcatPairs:
    """Read a list of `{"extended" or "replaced": clip, "full": clip or null}` as pairs."""
    pairs: list[Pair] = []
    for mapping in map(mapping_or_empty, filter(is_pair, items)):
        kind = next((name for name in PART_NAMES if isinstance(mapping.get(name), dict)), "")
        full = mapping_or_empty(mapping.get("full"))
        pair = Pair(
            part=read_clip(mapping_or_empty(mapping.get(kind))),
            full=read_clip(full) if full else None,
            kind=kind,
        )
        pair.raw = mapping
        pairs.append(pair)
    return ConcatPairs(pairs, raw, task_id=task_id, family=family)
