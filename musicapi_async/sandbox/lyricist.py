"""A small poet: lyrics for a description, and fuller tags for short ones. Pure text, decided by the seed."""

from __future__ import annotations

import random
import re
from typing import Final

from musicapi_async.sandbox.chance import dice

__all__ = ["lyrics", "upsample_tags"]

_READ: Final = 400
"""Characters of a description that are looked at: the longest that the API takes."""

_COMMON: Final = frozenset(
    word
    for line in (
        "a an the and or of in on at to for with about from by as into like any very so some please",
        "i you he she it we they my your our their me this that these those is are was were be been",
        "song songs music track make write upbeat slow fast sad happy pop rock jazz style",
        "vocal vocals female male instrumental",
    )
    for word in line.split()
)
"""Words of a description that are no subject to sing about."""

_WORD: Final = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")

_VERSE: Final = (
    "I found the {a} in the early light",
    "We left the {b} behind us tonight",
    "Every road leads back to the {a}",
    "There is a whisper of {b} in the air",
    "I count the hours by the {a} alone",
    "The {b} is calling, calling me home",
    "Carry the {a} like a flame in the cold",
    "Stories of {b} that were never told",
    "I hear the {a} through an open door",
    "You were the {b} I was waiting for",
    "Paint me the {a} on an empty wall",
    "I hear you, {b}, I hear you call",
)
_CHORUS: Final = (
    "Oh, {a}, stay with me tonight",
    "Hold on to the {b}, hold on to the light",
    "{A}, {a}, never let it go",
    "Sing for the {b}, sing it soft and slow",
    "We are the {a}, we are the flame",
    "Nothing but {b} will ever be the same",
)
_BRIDGE: Final = (
    "And if the {a} should fade away",
    "I will remember the {b} of today",
    "Turn it around, let the {a} begin",
    "Open the window and let the {b} in",
)
_TITLES: Final = (
    "{A} Tonight",
    "The {A} and the {B}",
    "Waiting for {A}",
    "{A}",
    "Song of the {A}",
    "{B} in the Air",
)

_SOUNDS: Final = {
    "pop": "catchy hooks, polished production, layered backing vocals",
    "rock": "driving electric guitars, punchy live drums, anthemic choruses",
    "jazz": "walking upright bass, brushed drums, smoky saxophone",
    "lofi": "dusty drums, mellow electric piano, vinyl crackle",
    "lo-fi": "dusty drums, mellow electric piano, vinyl crackle",
    "hip": "deep bass, crisp snares, confident flow",
    "dance": "four-on-the-floor beat, side-chained synths, big drops",
    "ambient": "slow evolving pads, wide reverb, distant textures",
    "folk": "fingerpicked acoustic guitar, close harmonies, light percussion",
    "happy": "bright major chords, handclaps, upbeat groove",
    "sad": "minor key, sparse piano, intimate vocals",
}
_FILLERS: Final = (
    "warm analog synths", "steady groove", "clear lead melody", "wide stereo image", "gentle build-up",
    "melodic bass line", "soft reverb", "memorable chorus", "dynamic arrangement",
)  # fmt: skip


def lyrics(description: str, seed: int) -> list[tuple[str, str]]:
    """Two songs as (title, lyrics) about `description`, with [Verse], [Chorus] and [Bridge] sections.

    The description's own words are its subjects. One in another script than Latin is answered in its own
    words with a refrain on "la", so that the text stays in its language.
    """
    topics = _topics(description)
    return [_song(topics, dice("lyrics", seed, variant, description[:_READ])) for variant in (0, 1)]


def upsample_tags(tags: str, seed: int) -> str:
    """Fuller tags: the given ones, what their words suggest, and two or three details drawn by `seed`."""
    draw = dice("tags", seed, tags[:1000])
    given = tags.strip().strip(",")[:1000]
    words = set(_WORD.findall(given.lower())) | set(given.lower().split())
    suggested = [sounds for word, sounds in _SOUNDS.items() if word in words]
    details = draw.sample(_FILLERS, 3 if not suggested else 2)
    return ", ".join(text for text in (given, *dict.fromkeys(suggested), *details) if text)


def _topics(description: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(description[:_READ])]
    topics = list(dict.fromkeys(word[:30] for word in words if word not in _COMMON and len(word) > 1))
    return topics[:8] or words[:1] or ["morning", "river"]


def _song(topics: list[str], draw: random.Random) -> tuple[str, str]:
    first = draw.choice(topics)
    second = draw.choice([topic for topic in topics if topic != first] or ["silence"])
    if any(ord(character) > 0x24F for character in first):
        return first.capitalize(), _hummed(topics, draw)

    def lines(pool: tuple[str, ...], count: int) -> str:
        return "\n".join(_filled(line, first, second) for line in draw.sample(pool, count))

    chorus = f"[Chorus]\n{lines(_CHORUS, 4)}"
    verses = f"[Verse]\n{lines(_VERSE, 4)}", f"[Verse 2]\n{lines(_VERSE, 4)}"
    text = "\n\n".join((verses[0], chorus, verses[1], chorus, f"[Bridge]\n{lines(_BRIDGE, 2)}", chorus))
    return _filled(draw.choice(_TITLES), first, second), text


def _hummed(topics: list[str], draw: random.Random) -> str:
    def line() -> str:
        return " ".join(draw.sample(topics, min(3, len(topics))))

    refrain = f"[Chorus]\n{line()}\nla la la\n{line()}\nla la la"
    return f"[Verse]\n{line()}\n{line()}\n\n{refrain}\n\n[Verse 2]\n{line()}\n{line()}\n\n{refrain}"


def _filled(template: str, first: str, second: str) -> str:
    return template.format(a=first, b=second, A=first.capitalize(), B=second.capitalize())
