"""Fields that several requests share, each with its limits and its help text, and the limits of each model.

A field is an annotated type: its `Meta` holds what is checked before anything is sent, the text of its help,
and marks in `extra` that say more than a type can. Requests list these fields by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

KNOWN: Final = "known"
"""`Meta(extra={KNOWN: (...)})`: the values that are known; others are sent as they are."""

LOCAL: Final = "local"
"""`Meta(extra={LOCAL: True})` marks a field that steers this client and is never sent."""

LINK: Final = "link"
"""`Meta(extra={LINK: True})` marks a link that the service fetches: it takes nothing else.

Such a field is an `Annotated[Link, ...]`.
"""

if TYPE_CHECKING:
    Link = str | os.PathLike[str] | IO[bytes]
else:
    Link = str
"""A link that the service fetches, which is text. A caller may give a local file, of which the client's
`uploader` makes the link before the request is built."""

PROTECTED: Final = "protected"
"""`Meta(extra={PROTECTED: True})` marks an address that must be https, or lead to this machine itself."""

PLACE: Final = "place"
"""`Meta(extra={PLACE: ...})`: the place of a field among the required or among the optional ones:
`PLACE_FIRST`, `PLACE_LATE` or `PLACE_LAST`; others come in between."""
PLACE_FIRST: Final = -1
PLACE_LATE: Final = 1
PLACE_LAST: Final = 2

# --- limits by model, as the live service enforces them: one character more is refused -----------------


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
        "None: follows from which of the two is given.",
        extra={PLACE: PLACE_LATE},
    ),
]
Prompt = Annotated[
    str,
    Meta(
        max_length=5000,
        description="Lyrics with [Verse], [Chorus], ... marks; with auto_lyrics a description of the song. "
        "At most 3000 characters with sonic-v4 and sonic-v3-5.",
        extra={PLACE: PLACE_FIRST},
    ),
]
DescriptionPrompt = Annotated[
    str, Meta(max_length=400, description="The song, described in plain words.", extra={PLACE: PLACE_FIRST})
]
Title = Annotated[str, Meta(max_length=80, description="Title; may be rewritten in description mode.")]
Tags = Annotated[
    str,
    Meta(
        max_length=1000,
        description="Style, mood, instruments, tempo, separated by commas. "
        "At most 200 characters with sonic-v4 and sonic-v3-5.",
    ),
]
ShortTags = Annotated[str, Meta(max_length=200, description="Style words, separated by commas.")]
NegativeTags = Annotated[str, Meta(max_length=200, description="Things to avoid, separated by commas.")]
FreeNegativeTags = Annotated[str, Meta(description="Things to avoid, separated by commas.")]
"""The same where the service names no limit."""
StyleWeight = Annotated[
    float,
    Meta(ge=0, le=1, description="Closeness to `tags`, from free to strict.", extra={PLACE: PLACE_LATE}),
]
Weirdness = Annotated[
    float,
    Meta(ge=0, le=1, description="Strangeness of the song, from usual to odd.", extra={PLACE: PLACE_LATE}),
]
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
ClipId = Annotated[str, Meta(min_length=1, description="Clip id.")]
PersonaId = Annotated[str, Meta(min_length=1, description="Persona id, from create_persona or create_voice.")]
SourceUrl = Annotated[
    Link,
    Meta(
        min_length=1,
        description="Public direct link to the audio (MP3, WAV, ...; at most 8 minutes) that answers HEAD.",
        extra={LINK: True, PLACE: PLACE_FIRST},
    ),
]
WebhookUrl = Annotated[
    str,
    Meta(
        max_length=1024,
        description="https URL to which the service sends the result.",
        extra={PROTECTED: True, PLACE: PLACE_LAST},
    ),
]
SHORTEST_SECRET: Final = 16
"""Characters that a webhook secret has at least: a limit of ours, as that of the service is unknown."""


def has_white_ends(secret: str | bytes) -> bool:
    """Return True for a secret that is blank or has white space at its ends.

    Such a secret was mostly read from a file or a variable with its line end, and the other side has it
    without: nothing would verify.
    """
    return len(secret.strip()) < len(secret)


WebhookSecret = Annotated[
    str,
    Meta(
        min_length=SHORTEST_SECRET,
        description="Key that signs the webhook; it cannot be read later.",
        extra={PLACE: PLACE_LAST},
    ),
]
SunoCdn = Annotated[
    bool, Meta(description="Request links on the provider's CDN; always sent.", extra={PLACE: PLACE_LATE})
]
