"""Words: lyrics for a description, fuller tags for short ones, and a text read as lines to sing."""

from __future__ import annotations

import random
import re
import unicodedata
from typing import Final, NamedTuple

from .score import INSTRUMENTAL, Brief, Score, rng

_LONGEST_TEXT: Final = 12_000
"""Characters of lyrics that are read; the API's own limit is 5,000."""

_LONGEST_LINE: Final = 12
"""Words that are sung as one line; a longer line is sung as several."""

_DESCRIPTION: Final = 400
"""Characters of a description that are read: the most that the API takes."""

_NAMES: Final = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_COMMON: Final = frozenset(
    _NAMES.findall(
        "a an the and or of in on at to for with about from by as into like any very so some please i you he "
        "she it we they my your our their me this that these those is are was were be been song songs music "
        "track make write slow fast sad happy pop rock jazz style vocal vocals female male instrumental"
    )
)
"""Words of a description that are no subject to sing about."""

_VERSE: Final = (
    "I found the {a} in the early light", "We left the {b} behind us tonight", "Every road leads to the {a}",
    "There is a whisper of {b} in the air", "I count the hours by the {a}", "The {b} is calling me home",
    "Carry the {a} like a flame in the cold", "Stories of {b} from of old", "Paint me the {a} on a wall",
)  # fmt: skip
_CHORUS: Final = (
    "Oh, {a}, stay with me tonight", "Hold on to the {b}, to the light", "{A}, {a}, never let it go",
    "Sing for the {b}, soft and slow", "We are the {a}, we are the flame", "Nothing but {b} is the same",
)  # fmt: skip
_BRIDGE: Final = "And if the {a} should fade away", "I remember the {b}", "Open the window to the {b}"
_TITLES: Final = "{A} Tonight", "The {A} and the {B}", "Waiting for {A}", "{B} in the Air"

_SUGGESTED: Final = {
    "pop": "catchy hooks, polished production, layered backing vocals",
    "rock": "driving electric guitars, punchy live drums, anthemic choruses",
    "jazz": "walking upright bass, brushed drums, smoky saxophone",
    "lofi": "dusty drums, mellow electric piano, vinyl crackle",
    "dance": "four-on-the-floor beat, side-chained synths, big drops",
    "folk": "fingerpicked acoustic guitar, close harmonies, light percussion",
    "happy": "bright major chords, handclaps, upbeat groove",
    "sad": "minor key, sparse piano, intimate vocals",
}
_DETAILS: Final = (
    "warm analog synths", "steady groove", "clear lead melody", "wide stereo image", "gentle build-up",
    "melodic bass line", "soft reverb", "memorable chorus", "dynamic arrangement",
)  # fmt: skip

_TAG: Final = re.compile(r"\[[^\[\]\n]{1,80}\]")
_ONE_CHARACTER: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Scripts in which every character is sung as a word."""

_WORD: Final = re.compile(
    rf"(?P<before>(?:{_TAG.pattern}|\W)*+)"
    rf"(?P<word>(?:[{_ONE_CHARACTER}]|\w[^\s\[{_ONE_CHARACTER}]*+)[^\w\s\[]*+)?+(?P<space>\s*+)"
)
_SYLLABLE: Final = re.compile(r"([^aeiouy]?)([aeiouy])[aeiouy]*")


class Section(NamedTuple):
    """A section of the lyrics: its kind, such as "verse", and its lines of words with tags and spaces."""

    kind: str
    lines: list[list[str]]


def write_lyrics(description: str, seed: int) -> list[tuple[str, str]]:
    """Return two songs about `description` as (title, lyrics), with [Verse], [Chorus] and [Bridge].

    Its words are the subjects; in another script than Latin they are all there is, with a refrain on "la".
    """
    words = [word.lower()[:30] for word in _NAMES.findall(description[:_DESCRIPTION])]
    topics = [word for word in dict.fromkeys(words) if word not in _COMMON and len(word) > 1][:8]
    topics = topics or words[:1] or ["morning", "river"]
    return [_song(topics, rng("lyrics", seed, variant, description[:_DESCRIPTION])) for variant in (0, 1)]


def text_of(brief: Brief, continues: Score | None = None) -> str:
    """Return the words to sing: the brief's, ones written for its description, or none."""
    silent = continues is not None and not continues.words and not brief.description
    if brief.instrumental or (not (brief.lyrics or "").strip() and silent) or brief.lyrics == INSTRUMENTAL:
        return ""
    if brief.lyrics is not None and brief.lyrics.strip():
        return brief.lyrics
    return write_lyrics(brief.description or brief.title or brief.tags, brief.seed)[0][1]


def upsample_tags(tags: str, seed: int) -> str:
    """Return fuller tags: the given ones, what their words suggest, and details drawn by `seed`."""
    given = tags.strip().strip(",")[:1000]
    words = {*_NAMES.findall(given.lower()), *given.lower().split()}
    suggested = [sounds for word, sounds in _SUGGESTED.items() if word in words]
    details = rng("tags", seed, given).sample(_DETAILS, 2 if suggested else 3)
    return ", ".join(text for text in (given, *suggested, *details) if text)


def _song(topics: list[str], draw: random.Random) -> tuple[str, str]:
    first = draw.choice(topics)
    second = draw.choice([topic for topic in topics if topic != first] or ["silence"])
    subjects = {"a": first, "b": second, "A": first.capitalize(), "B": second.capitalize()}
    latin = all(character <= "\u024f" for character in first)

    def section(name: str, lines: tuple[str, ...], count: int) -> str:
        if latin:
            return f"[{name}]\n" + "\n".join(line.format(**subjects) for line in draw.sample(lines, count))
        own = [" ".join(draw.sample(topics, min(3, len(topics)))) for _ in range(2)]
        return f"[{name}]\n{own[0]}\nla la la\n{own[1]}\nla la la"

    chorus, bridge = section("Chorus", _CHORUS, 4), section("Bridge", _BRIDGE, 2)
    verses = section("Verse", _VERSE, 4), section("Verse 2", _VERSE, 4)
    title = draw.choice(_TITLES).format(**subjects) if latin else subjects["A"]
    return title, "\n\n".join((verses[0], chorus, verses[1], chorus, bridge, chorus))


def read_lyrics(text: str) -> list[Section]:
    """Return the sections of `text` that have words; a text without tags is one verse."""
    sections = [Section("verse", [])]
    new_line = True
    for match in _WORD.finditer(text[:_LONGEST_TEXT]):
        tags = _TAG.findall(match["before"])
        if tags:
            sections.append(Section(_kind(tags[-1]), []))
        if not match["word"]:
            continue
        lines = sections[-1].lines
        if tags or new_line or "\n" in match["before"] or len(lines[-1]) >= _LONGEST_LINE:
            lines.append([])
        lines[-1].append(match[0])
        new_line = "\n" in match["space"]
    return [section for section in sections if section.lines]


def _kind(tag: str) -> str:
    """Return what a section's name means to the arrangement, such as "chorus" for "[Final Chorus 2]"."""
    for kind, words in {
        "pre-chorus": ("pre",), "chorus": ("chorus", "hook", "refrain", "drop"), "bridge": ("bridge",),
        "intro": ("intro",), "outro": ("outro", "end"), "solo": ("solo", "break", "interlude", "inst"),
    }.items():  # fmt: skip
        if any(word in tag.lower() for word in words):
            return kind
    return "verse"


def syllables(word: str) -> list[str]:
    """Return what a singer makes of a word: one to six of consonant and vowel, such as ["wo", "de"]."""
    folded = unicodedata.normalize("NFKD", word.rpartition("]")[2][:40]).lower()
    latin = "".join(character for character in folded if "a" <= character <= "z")
    if not latin:
        code = ord(next((character for character in folded if character.isalnum()), "a"))
        return ["mndlsktr"[code % 8] + "aeiou"[code % 5]]
    if len(latin) > 3 and latin.endswith("e") and latin[-2] not in "aeiouyl":
        latin = latin[:-1]  # a silent e
    found = [before + vowel.replace("y", "i") for before, vowel in _SYLLABLE.findall(latin)]
    return found[:6] or [latin[0] + "e"]
