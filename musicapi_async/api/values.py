"""Values of the wire: fields that many requests share, limits by model, and the lenient reader of replies.

Requests are strict: a field's limits stand in its `Meta` and are checked before anything is sent. Replies
are lenient: `lenient` never raises for a field of an unexpected type, it leaves that field at its default,
and the raw mapping stays beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, TypeVar, cast, get_type_hints

import msgspec
from msgspec import Meta

S = TypeVar("S", bound=msgspec.Struct)

KNOWN: Final = "known"
"""`Meta(extra={KNOWN: (...)})`: the values that are known; others are sent as they are."""

LINK: Final = "link"
"""`Meta(extra={LINK: True})` marks a link that the service fetches: nothing else can be sent in it."""

# --- limits by model (contract, sonic 1: refused live one over) ----------------------------------------


class ModelLimits(msgspec.Struct, frozen=True):
    """Characters that a Sonic model takes in `prompt` and `tags`."""

    prompt: int
    tags: int


LOOSEST: Final = ModelLimits(prompt=5000, tags=1000)
"""Unknown models get the loosest limits: the service decides."""

SONIC_MODELS: Final[Mapping[str, ModelLimits]] = {
    "sonic-v6": LOOSEST,
    "sonic-v6-wild": LOOSEST,
    "sonic-v6-mini": LOOSEST,
    "sonic-v5-5": LOOSEST,
    "sonic-v5": LOOSEST,
    "sonic-v4-5-plus": LOOSEST,
    "sonic-v4-5": LOOSEST,
    "sonic-v4": ModelLimits(prompt=3000, tags=200),
    "sonic-v3-5": ModelLimits(prompt=3000, tags=200),
}

# --- fields that several requests share ----------------------------------------------------------------

Mv = Annotated[
    str,
    Meta(
        min_length=1,
        description=f"Model: {', '.join(SONIC_MODELS)}. Unknown names are sent as they are.",
        extra={KNOWN: tuple(SONIC_MODELS)},
    ),
]
CustomMode = Annotated[
    bool,
    Meta(
        description="True: `prompt` holds the lyrics. False: `gpt_description_prompt` describes the song. "
        "Left out: follows from which of the two is given."
    ),
]
Prompt = Annotated[
    str,
    Meta(
        max_length=5000,
        description="Lyrics with [Verse], [Chorus], ... marks; with auto_lyrics a description of the song. "
        "3000 characters with sonic-v4 and sonic-v3-5.",
    ),
]
DescriptionPrompt = Annotated[str, Meta(max_length=400, description="The song, described in plain words.")]
Title = Annotated[str, Meta(max_length=80, description="Title; may be rewritten in description mode.")]
Tags = Annotated[
    str,
    Meta(
        max_length=1000,
        description="Style, mood, instruments, tempo, separated by commas. "
        "200 characters with sonic-v4 and sonic-v3-5.",
    ),
]
ShortTags = Annotated[str, Meta(max_length=200, description="Style words, separated by commas.")]
NegativeTags = Annotated[str, Meta(max_length=200, description="Things to avoid, separated by commas.")]
Weight = Annotated[float, Meta(ge=0, le=1)]
StyleWeight = Annotated[float, Meta(ge=0, le=1, description="How closely to follow `tags`.")]
Weirdness = Annotated[float, Meta(ge=0, le=1, description="How unusual the song may be.")]
AudioWeight = Annotated[
    float,
    Meta(ge=0, le=1, description="Influence of the source: 0-0.3 free, 0.4-0.6 balanced, 0.7-1 close."),
]
VocalGender = Annotated[
    str, Meta(description="Singer: 'f' or 'm'; models from sonic-v4-5 on. Not echoed in the result.")
]
Instrumental = Annotated[bool, Meta(description="No vocals; works in either mode.")]
AutoLyrics = Annotated[
    bool, Meta(description="The service writes lyrics from `prompt`; needs custom_mode=True.")
]
TargetSeconds = Annotated[int, Meta(ge=10, le=360, description="Target length in seconds, approximate.")]
Seconds = Annotated[float, Meta(ge=0)]
ClipId = Annotated[str, Meta(min_length=1, description="Clip id.")]
PersonaId = Annotated[str, Meta(min_length=1, description="Persona id, from create_persona or create_voice.")]
SourceUrl = Annotated[
    str,
    Meta(
        min_length=1,
        description="Public direct link to the audio (MP3, WAV, ...; at most 8 minutes); must answer HEAD.",
        extra={LINK: True},
    ),
]
WebhookUrl = Annotated[str, Meta(max_length=1024, description="https address that is told of the result.")]
SHORTEST_SECRET: Final = 16
"""Characters of a webhook secret that is ordered with; ours, as the service's limit is unknown."""
WebhookSecret = Annotated[
    str,
    Meta(min_length=SHORTEST_SECRET, description="Key that signs the webhook; never shown again."),
]
SunoCdn = Annotated[bool, Meta(description="Ask for links on the provider's CDN; always sent.")]

# --- reading replies --------------------------------------------------------------------------------------


@cache
def _fields(cls: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    hints = get_type_hints(cls, include_extras=True)
    names = zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)
    return tuple((name, wire, hints[name]) for name, wire in names if wire != RAW_NAME)


RAW_NAME: Final = "<raw>"
"""Wire name of the field that keeps the raw mapping; no reply has such a key."""


def lenient(cls: type[S], mapping: Mapping[str, Any]) -> S:
    """Read `mapping` as `cls`: numbers may be strings, what does not fit is left at its default.

    The whole is tried first, which is fast; only a mapping with a field of the wrong type is read field
    by field. Ids and links that are not intact are left at their defaults, too. Keys that `cls` does not have
    stay reachable in the `raw` field of the replies.
    """
    try:
        read = msgspec.convert(mapping, cls, strict=False)
    except (msgspec.ValidationError, UnicodeError, RecursionError):
        found: dict[str, Any] = {}
        for name, wire, hint in _fields(cls):
            if wire in mapping:
                value = _one(mapping[wire], hint)
                if value is not None:
                    found[name] = value
        read = cls(**found)
    references = _references(cls)
    if references:
        # One look at all of them, which are ASCII as a rule, costs a fifth of one at each.
        values = [getattr(read, name) for name, _ in references]
        joined = "".join(filter(None, values))
        if not (joined.isascii() and joined.isprintable()):
            for (name, default), value in zip(references, values, strict=True):
                if not is_intact(value):
                    setattr(read, name, default)
    return read


_LINKS: Final = ("url", "cover_image")


@cache
def _references(cls: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """The fields of a reply that hold an id or a link, with their defaults."""
    return tuple(
        (field.name, field.default)
        for field in msgspec.structs.fields(cls)
        if field.name.endswith(("_id", "_url")) or field.name in _LINKS
    )


_NOT_INTACT: Final = re.compile("[\x00-\x1f\ufffd]")


def is_intact(value: object) -> bool:
    """Return False for an id or a link that had to be repaired when its body was read.

    A repair leaves U+FFFD in the place of what could not be read, or a control character as it came. Nothing
    can be fetched under such an id or link; another task or file might be.
    """
    return not (isinstance(value, str) and _NOT_INTACT.search(value))


def _one(value: Any, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint, strict=False)
    except (msgspec.ValidationError, UnicodeError, RecursionError):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _one(str(value), hint) if hint in _TEXT else None
        return None


_TEXT: Final = (str, str | None)


def finite(value: float | None) -> float | None:
    """`value` if it is a finite number of zero or more, else None."""
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def amount(value: Any) -> float:
    """`value` as a finite number of zero or more, also if it came as text; what is none counts as zero."""
    if type(value) in (int, float) and 0 <= value < 1e15:  # as it usually comes
        return float(value)
    return finite(_one(value, float)) or 0.0


def mapping_or_empty(value: Any) -> dict[str, Any]:
    """`value` if it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_or_empty(value: Any) -> list[Any]:
    """`value` if it is a JSON array, else an empty one."""
    return list(cast("Sequence[Any]", value)) if isinstance(value, list) else []


def reference_or_none(value: Any) -> str | None:
    """`value` if it is a non-empty id or link that is intact, else None."""
    return value if isinstance(value, str) and value and is_intact(value) else None


def text_or_none(value: Any) -> str | None:
    """`value` if it is a non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def id_of(mapping: Mapping[str, Any]) -> str | None:
    """The id of a clip: `clip_id`, or `id` where some replies have only that."""
    for name in ("clip_id", "id"):
        value = mapping.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value:
            return value if is_intact(value) else None
    return None
