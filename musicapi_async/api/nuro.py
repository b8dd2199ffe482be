"""Nuro: deprecated by the service, probably retired. Known values come first, then the requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from ..errors import Violation
from .field_limits import KNOWN
from .operation import Family, Polled, polls, submits
from .request import GetMusic, WebhookFields
from .results import Clips

# --- known values: the lists A to G of the vendor's documentation ---------------------------------------

VOCAL_GENRES: Final = (
    "Folk",
    "Pop",
    "Rock",
    "Chinese Style",
    "Hip Hop/Rap",
    "R&B/Soul",
    "Punk",
    "Electronic",
    "Jazz",
    "Reggae",
    "DJ",
    "Pop Punk",
    "Disco",
    "Future Bass",
    "Pop Rap",
    "Trap Rap",
    "R&B Rap",
    "Chinoiserie Electronic",
    "GuFeng Music",
    "Pop Rock",
    "Jazz Pop",
    "Bossa Nova",
    "Contemporary R&B",
)
"""Known values of `genre` of `create_vocal` (23); others are sent as they are."""

VOCAL_MOODS: Final = (
    "Happy",
    "Dynamic/Energetic",
    "Sentimental/Melancholic/Lonely",
    "Inspirational/Hopeful",
    "Nostalgic/Memory",
    "Excited",
    "Sorrow/Sad",
    "Chill",
    "Romantic",
    "Miss",
    "Groovy/Funky",
    "Dreamy/Ethereal",
    "Calm/Relaxing",
)
"""Known values of `mood` of `create_vocal` (13); others are sent as they are."""

VOCAL_TIMBRES: Final = (
    "Warm",
    "Bright",
    "Husky",
    "Electrified voice",
    "Sweet_AUDIO_TIMBRE",
    "Cute_AUDIO_TIMBRE",
    "Loud and sonorous",
    "Powerful",
    "Sexy/Lazy",
)
"""Known values of `timbre` of `create_vocal` (9); others are sent as they are."""

BGM_GENRES: Final = (
    "corporate",
    "dance/edm",
    "orchestral",
    "chill out",
    "rock",
    "hip hop",
    "folk",
    "funk",
    "ambient",
    "holiday",
    "jazz",
    "kids",
    "world",
    "travel",
    "commercial",
    "advertising",
    "driving",
    "cinematic",
    "upbeat",
    "epic",
    "inspiring",
    "business",
    "video game",
    "dark",
    "pop",
    "trailer",
    "modern",
    "electronic",
    "documentary",
    "soundtrack",
    "fashion",
    "acoustic",
    "movie",
    "tv",
    "high tech",
    "industrial",
    "dance",
    "video",
    "vlog",
    "marketing",
    "game",
    "radio",
    "promotional",
    "sports",
    "party",
    "summer",
    "beauty",
)
"""Known values of `genre` of `create_bgm` (47); others are sent as they are."""

BGM_MOODS: Final = (
    "positive",
    "uplifting",
    "energetic",
    "happy",
    "bright",
    "optimistic",
    "hopeful",
    "cool",
    "dreamy",
    "fun",
    "light",
    "powerful",
    "calm",
    "confident",
    "joyful",
    "dramatic",
    "peaceful",
    "playful",
    "soft",
    "groovy",
    "reflective",
    "easy",
    "relaxed",
    "lively",
    "smooth",
    "romantic",
    "intense",
    "elegant",
    "mellow",
    "emotional",
    "sentimental",
    "cheerful happy",
    "contemplative",
    "soothing",
    "proud",
    "passionate",
    "sweet",
    "mystical",
    "tranquil",
    "cheerful",
    "casual",
    "beautiful",
    "ethereal",
    "melancholy",
    "sad",
    "aggressive",
    "haunting",
    "adventure",
    "serene",
    "sincere",
    "funky",
    "funny",
)
"""Known values of `mood` of `create_bgm` (52); others are sent as they are."""

BGM_INSTRUMENTS: Final = (
    "piano",
    "drums",
    "guitar",
    "percussion",
    "synth",
    "electric guitar",
    "acoustic guitar",
    "bass guitar",
    "brass",
    "violin",
    "cello",
    "flute",
    "organ",
    "trumpet",
    "ukulele",
    "saxophone",
    "double bass",
    "harp",
    "glockenspiel",
    "synthesizer",
    "keyboard",
    "marimba",
    "bass",
    "banjo",
    "strings",
)
"""Known values of `instrument` of `create_bgm` (25); others are sent as they are."""

BGM_THEMES: Final = (
    "inspirational",
    "motivational",
    "achievement",
    "discovery",
    "every day",
    "love",
    "technology",
    "lifestyle",
    "journey",
    "meditation",
    "drama",
    "children",
    "hope",
    "fantasy",
    "holiday",
    "health",
    "family",
    "real estate",
    "media",
    "kids",
    "science",
    "education",
    "progress",
    "world",
    "vacation",
    "training",
    "christmas",
    "sales",
)
"""Known values of `theme` of `create_bgm` (28); others are sent as they are."""

# --- requests ---------------------------------------------------------------------------------------------


def _of(known: tuple[str, ...]) -> str:
    return f"Known: {', '.join(known)}."


NURO_POLLED: Final = Polled(
    "/nuro/task/{task_id}", "nuro", first=10, interval=10, deadline=600, quick=30, slow=90
)
"""A song took 37 to 69 s."""


class CreateVocal(WebhookFields, kw_only=True, tag_field="type", tag="vocal"):
    """Create a song with vocals, Chinese or English, in about 40 seconds."""

    lyrics: Annotated[
        str, Meta(min_length=1, max_length=2000, description="Lyrics with [intro], [verse], ... marks.")
    ]
    gender: Annotated[str, Meta(description="Singer: 'Female' or 'Male'.")] | None = None
    genre: Annotated[str, Meta(description=_of(VOCAL_GENRES))] | None = None
    mood: Annotated[str, Meta(description=_of(VOCAL_MOODS))] | None = None
    timbre: Annotated[str, Meta(description=_of(VOCAL_TIMBRES))] | None = None
    duration: Annotated[int, Meta(ge=30, le=240, description="Length in seconds.")] | None = None


class Segment(msgspec.Struct, kw_only=True):
    """A part of a piece: `name` 'intro', 'verse', 'chorus', 'inst', 'bridge' or 'outro'; `duration` in s."""

    name: str
    duration: int


FEW: Final = 5
"""Items that each list of create_bgm may have. This and what follows: vendor's documentation of Nuro."""
BGM_DESCRIPTION_LENGTH: Final = 199
"""Characters of a description for version 'v2.0'."""
BGM_SECONDS: Final = {"v1.0": (1, 60), "v2.0": (30, 120)}
"""Seconds of a piece by version; without one it is 'v1.0'."""
SEGMENT_SECONDS: Final = (5, 120)
"""Seconds of a segment."""


class CreateBgm(WebhookFields, kw_only=True, tag_field="type", tag="bgm"):
    """Create an instrumental piece. The lists belong to version 'v1.0', `segments` to 'v2.0'."""

    description: Annotated[
        str, Meta(min_length=1, description="The piece, described; at most 199 characters with 'v2.0'.")
    ]
    version: (
        Annotated[str, Meta(description="Engine: 'v1.0' or 'v2.0'.", extra={KNOWN: ("v1.0", "v2.0")})] | None
    ) = None
    genre: Annotated[list[str], Meta(max_length=FEW, description=_of(BGM_GENRES))] | None = None
    mood: Annotated[list[str], Meta(max_length=FEW, description=_of(BGM_MOODS))] | None = None
    instrument: Annotated[list[str], Meta(max_length=FEW, description=_of(BGM_INSTRUMENTS))] | None = None
    theme: Annotated[list[str], Meta(max_length=FEW, description=_of(BGM_THEMES))] | None = None
    duration: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="Length in seconds: 1 to 60 with 'v1.0', 30 to 120 with 'v2.0', where `segments` "
                "take its place.",
            ),
        ]
        | None
    ) = None
    segments: (
        Annotated[
            list[Segment],
            Meta(
                description="The parts in their order, each an object with a name (intro, verse, chorus, "
                "inst, bridge, outro) and a duration of 5 to 120 s, together 30 to 120 s."
            ),
        ]
        | None
    ) = None

    def rules(self) -> Iterator[Violation]:
        """Check the limits of lengths and description by version; an unknown version has none here."""
        version = self.version or "v1.0"
        if version not in BGM_SECONDS:
            return
        low, high = BGM_SECONDS[version]
        if self.duration is not None and not low <= self.duration <= high:
            limit = f"a whole number from {low} to {high} with {version}"
            yield Violation("duration", limit, f"{self.duration}")
        if version != "v2.0":
            return
        if self.segments and self.duration is not None:
            yield Violation("duration", "left out with segments, which have their own", f"{self.duration}")
        if len(self.description) > BGM_DESCRIPTION_LENGTH:
            limit = f"text of at most {BGM_DESCRIPTION_LENGTH} characters with {version}"
            yield Violation("description", limit, f"{len(self.description)} characters")
        lengths = [part.duration for part in msgspec.convert(self.segments or [], list[Segment])]
        odd = [length for length in lengths if not SEGMENT_SECONDS[0] <= length <= SEGMENT_SECONDS[1]]
        if odd:
            yield Violation(
                "segments", f"each from {SEGMENT_SECONDS[0]} to {SEGMENT_SECONDS[1]} s", f"{odd[0]} s"
            )
        elif lengths and not low <= sum(lengths) <= high:
            yield Violation("segments", f"together from {low} to {high} s", f"{sum(lengths)} s")


class Nuro(Family):
    """Songs and background music by Nuro, deprecated: `client.nuro`."""

    word = "nuro"
    polled: ClassVar[Polled | None] = NURO_POLLED
    replacement: ClassVar[str | None] = "sonic.create_music (vocal) or producer.create_music (instrumental)"

    create_vocal = submits("/nuro/create", CreateVocal, Clips, replacement="sonic.create_music")
    create_bgm = submits("/nuro/create", CreateBgm, Clips, replacement="producer.create_music")
    get_music = polls(GetMusic)
