"""How words such as "sad acoustic folk, 90 bpm, no drums" become tempo, key, groove and instruments."""

from __future__ import annotations

import random
import re
from typing import Final, Literal

import msgspec

from musicapi_async.sandbox.chance import dice
from musicapi_async.sandbox.score import PITCH_NAMES

__all__ = ["GENRES", "INSTRUMENTS", "Genre", "Instrument", "Style", "read_style"]

Mode = Literal["major", "minor"]

_SLOWEST: Final = 40.0
_FASTEST: Final = 240.0
"""Beats a minute outside which a tempo named in the tags is brought back: no groove here goes further."""

_READ: Final = 4_000
"""Characters of tags and description that are looked at; the API's own limits are 1,000 and 400."""


class Instrument(msgspec.Struct, frozen=True):
    """An instrument's name, its stem, its General MIDI program and the sound that plays it."""

    name: str
    stem: str
    program: int
    sound: str


class Genre(msgspec.Struct, frozen=True):
    """What a genre brings along: the words that name it, tempo range, mode, groove and instruments."""

    words: tuple[str, ...]
    slow: int
    fast: int
    minor: float
    groove: str
    instruments: tuple[str, ...]
    swing: float = 0.0
    sevenths: bool = False
    beats: int = 4
    energy: float = 0.7


class Style(msgspec.Struct, frozen=True):
    """The decisions that the words led to. `energy` and `swing` are 0-1; `tonic` is a pitch class."""

    genre: str
    bpm: float
    tonic: int
    mode: Mode
    groove: str
    beats: int
    swing: float
    sevenths: bool
    energy: float
    instruments: tuple[str, ...]


INSTRUMENTS: Final = {
    instrument.name: instrument
    for instrument in (
        Instrument("Drum Kit", "drums", 0, "drums"),
        Instrument("Percussion", "percussion", 0, "drums"),
        Instrument("Finger Bass", "bass", 33, "bass"),
        Instrument("Upright Bass", "bass", 32, "upright"),
        Instrument("Synth Bass", "bass", 38, "synthbass"),
        Instrument("Acoustic Guitar", "guitar", 25, "guitar"),
        Instrument("Electric Guitar", "guitar", 27, "electric"),
        Instrument("Distortion Guitar", "guitar", 30, "distortion"),
        Instrument("Piano", "keyboard", 0, "piano"),
        Instrument("Electric Piano", "keyboard", 4, "epiano"),
        Instrument("Organ", "keyboard", 16, "organ"),
        Instrument("String Ensemble", "strings", 48, "strings"),
        Instrument("Synth Pad", "synth", 89, "pad"),
        Instrument("Synth Pluck", "synth", 81, "pluck"),
        Instrument("Riser", "fx", 119, "riser"),
        Instrument("Brass Section", "brass", 61, "brass"),
        Instrument("Flute", "woodwinds", 73, "flute"),
        Instrument("Saxophone", "woodwinds", 65, "reed"),
    )
}
"""Every instrument that an arrangement may use, by name; the singers are added by the singing part."""

_BAND: Final = ("Drum Kit", "Finger Bass", "Electric Guitar", "Piano")
_CLUB: Final = ("Drum Kit", "Percussion", "Synth Bass", "Synth Pad", "Synth Pluck", "Riser")

GENRES: Final[dict[str, Genre]] = {
    "pop": Genre(("pop", "indie"), 96, 124, 0.4, "rock", (*_BAND, "Synth Pad", "Percussion", "Riser")),
    "rock": Genre(
        ("rock", "punk", "grunge", "garage"), 112, 148, 0.4, "rock", (*_BAND[:3], "Organ"), energy=0.85
    ),
    "metal": Genre(
        ("metal", "hardcore"), 130, 168, 0.95, "rock",
        ("Drum Kit", "Finger Bass", "Distortion Guitar"), energy=1,
    ),
    "jazz": Genre(
        ("jazz", "swing", "bebop", "blues", "big band"), 96, 152, 0.4, "swing",
        ("Drum Kit", "Upright Bass", "Piano", "Saxophone", "Brass Section"), swing=0.6, sevenths=True,
    ),
    "lofi": Genre(
        ("lofi", "lo-fi", "lo fi", "chillhop", "study"), 70, 88, 0.5, "hiphop",
        ("Drum Kit", "Upright Bass", "Electric Piano", "Electric Guitar", "Synth Pad"),
        swing=0.35, sevenths=True, energy=0.45,
    ),
    "hiphop": Genre(
        ("hip hop", "hip-hop", "hiphop", "rap", "trap", "drill", "boom bap"), 80, 100, 0.8, "hiphop",
        ("Drum Kit", "Percussion", "Synth Bass", "Electric Piano", "Synth Pluck"),
    ),
    "dance": Genre(
        ("edm", "house", "techno", "trance", "dance", "electronic", "club", "disco", "synthwave"),
        118, 132, 0.6, "four", _CLUB, energy=0.9,
    ),
    "drumnbass": Genre(("drum and bass", "dnb", "jungle"), 165, 176, 0.8, "rock", _CLUB, energy=0.9),
    "ambient": Genre(
        ("ambient", "drone", "meditation", "new age", "sleep", "soundscape"), 56, 76, 0.5, "none",
        ("Synth Pad", "String Ensemble", "Electric Piano", "Flute"), energy=0.25,
    ),
    "orchestral": Genre(
        ("orchestral", "classical", "cinematic", "symphonic", "film", "epic", "soundtrack"), 72, 108, 0.7,
        "march", ("String Ensemble", "Brass Section", "Flute", "Piano", "Percussion"), energy=0.7,
    ),
    "folk": Genre(
        ("folk", "acoustic", "country", "singer-songwriter", "bluegrass", "campfire"), 84, 116, 0.3, "ballad",
        ("Percussion", "Upright Bass", "Acoustic Guitar", "String Ensemble", "Flute"), energy=0.5,
    ),
    "ballad": Genre(
        ("ballad", "lullaby", "love song", "torch song"), 62, 82, 0.4, "ballad",
        ("Drum Kit", "Finger Bass", "Piano", "String Ensemble"), energy=0.45,
    ),
    "soul": Genre(
        ("soul", "r&b", "rnb", "funk", "motown", "gospel"), 88, 112, 0.5, "funk",
        ("Drum Kit", "Percussion", "Finger Bass", "Electric Guitar", "Electric Piano", "Brass Section"),
        sevenths=True,
    ),
    "reggae": Genre(
        ("reggae", "ska", "dub", "dancehall"), 72, 92, 0.3, "reggae",
        ("Drum Kit", "Finger Bass", "Electric Guitar", "Organ", "Brass Section"),
    ),
    "latin": Genre(
        ("latin", "bossa", "bossa nova", "samba", "salsa", "reggaeton", "flamenco", "tango"), 94, 124, 0.6,
        "latin", ("Percussion", "Upright Bass", "Acoustic Guitar", "Piano", "Brass Section"), sevenths=True,
    ),
    "waltz": Genre(
        ("waltz", "3/4"), 96, 150, 0.4, "waltz",
        ("Upright Bass", "Piano", "String Ensemble", "Flute"), beats=3, energy=0.5,
    ),
}  # fmt: skip
"""Genres in the order in which ties are decided; "pop" is what music without a genre becomes."""

_MOODS: Final[dict[str, tuple[float, float, float]]] = {
    # word: (towards minor, tempo factor, towards energy)
    "happy": (-0.6, 1.06, 0.15), "joyful": (-0.6, 1.06, 0.15), "upbeat": (-0.4, 1.1, 0.2),
    "bright": (-0.5, 1.03, 0.1), "cheerful": (-0.6, 1.05, 0.15), "uplifting": (-0.4, 1.04, 0.15),
    "summer": (-0.4, 1.04, 0.1), "warm": (-0.3, 0.98, -0.05), "playful": (-0.5, 1.05, 0.05),
    "sad": (0.7, 0.88, -0.2), "melancholic": (0.7, 0.9, -0.2), "melancholy": (0.7, 0.9, -0.2),
    "dark": (0.7, 0.96, 0.0), "moody": (0.6, 0.95, -0.1), "lonely": (0.6, 0.9, -0.2),
    "tense": (0.6, 1.04, 0.1), "haunting": (0.7, 0.92, -0.1), "minor": (1.0, 1.0, 0.0),
    "major": (-1.0, 1.0, 0.0), "angry": (0.6, 1.08, 0.3), "aggressive": (0.6, 1.08, 0.3),
    "calm": (-0.1, 0.88, -0.3), "relaxing": (-0.1, 0.88, -0.3), "chill": (0.0, 0.92, -0.2),
    "dreamy": (0.0, 0.94, -0.15), "gentle": (-0.1, 0.92, -0.25), "soft": (0.0, 0.93, -0.25),
    "peaceful": (-0.2, 0.88, -0.3), "rainy": (0.3, 0.93, -0.15), "romantic": (-0.1, 0.94, -0.1),
    "slow": (0.0, 0.8, -0.15), "downtempo": (0.1, 0.84, -0.2), "mid-tempo": (0.0, 1.0, 0.0),
    "fast": (0.0, 1.22, 0.2), "uptempo": (0.0, 1.15, 0.2), "driving": (0.1, 1.1, 0.2),
    "energetic": (-0.1, 1.12, 0.25), "powerful": (0.1, 1.04, 0.25), "intense": (0.3, 1.08, 0.25),
}  # fmt: skip

_WANTED: Final[dict[str, str]] = {
    "drums": "Drum Kit", "drum": "Drum Kit", "beat": "Drum Kit", "percussion": "Percussion",
    "handclaps": "Percussion", "claps": "Percussion", "shaker": "Percussion", "congas": "Percussion",
    "bass": "Finger Bass", "sub bass": "Synth Bass", "808": "Synth Bass", "double bass": "Upright Bass",
    "guitar": "Electric Guitar", "electric guitar": "Electric Guitar", "acoustic guitar": "Acoustic Guitar",
    "ukulele": "Acoustic Guitar", "distorted": "Distortion Guitar", "distortion": "Distortion Guitar",
    "piano": "Piano", "keys": "Electric Piano", "keyboard": "Electric Piano", "rhodes": "Electric Piano",
    "electric piano": "Electric Piano", "organ": "Organ", "strings": "String Ensemble",
    "violin": "String Ensemble", "cello": "String Ensemble", "synth": "Synth Pluck", "synths": "Synth Pluck",
    "pad": "Synth Pad", "pads": "Synth Pad", "arp": "Synth Pluck", "riser": "Riser", "fx": "Riser",
    "brass": "Brass Section", "trumpet": "Brass Section", "horns": "Brass Section",
    "flute": "Flute", "woodwinds": "Flute", "clarinet": "Flute", "sax": "Saxophone",
    "saxophone": "Saxophone", "vocals": "", "vocal": "",
}  # fmt: skip

_BPM: Final = re.compile(r"(\d{2,4}(?:\.\d{1,2})?)\s{0,3}-?\s{0,3}(?:bpm|beats per minute)")
_KEY: Final = re.compile(
    r"(?<![a-z])([a-g])([#♯b♭]?|\s?sharp|\s?flat)[\s-]{1,2}(major|minor|maj|min)(?![a-z])"
)


def _has(text: str, word: str) -> bool:
    """Whether `word` stands in `text` as a word of its own."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not (at and text[at - 1].isalnum()) and not (end < len(text) and text[end].isalnum()):
            return True
        at = text.find(word, at + 1)
    return False


def read_style(tags: str, description: str, negative_tags: str, seed: int) -> Style:
    """The style that the words ask for; what they leave open is drawn by `seed`.

    A tempo ("120 bpm") and a key ("in D minor") that are named are kept exactly, the tempo within 40-240.
    """
    text = f"{tags[:_READ]} , {description[:_READ]}".lower()
    avoided = negative_tags[:_READ].lower()
    draw = dice("style", seed)
    genre_name = _genre(text, avoided)
    genre = GENRES[genre_name]
    minor, pace, energy = genre.minor, 1.0, genre.energy
    for word, (towards_minor, factor, towards_energy) in _MOODS.items():
        if _has(text, word) and not _has(avoided, word):
            minor, pace, energy = minor + towards_minor, pace * factor, energy + towards_energy
    mode: Mode = "minor" if draw.random() < minor else "major"
    tonic = draw.choice((0, 2, 3, 4, 5, 7, 9, 10))
    if (key := _KEY.search(text)) is not None:
        flats_and_sharps = key[2].strip()
        shift = {"": 0, "#": 1, "♯": 1, "sharp": 1}.get(flats_and_sharps, -1)
        tonic = (PITCH_NAMES.index(key[1].upper()) + shift) % 12
        mode = "minor" if key[3].startswith("min") else "major"
    tempo: float = round(draw.uniform(genre.slow, genre.fast) * min(max(pace, 0.7), 1.4))
    if (named := _BPM.search(text)) is not None:
        tempo = float(named[1])
    return Style(
        genre=genre_name,
        bpm=min(max(float(tempo), _SLOWEST), _FASTEST),
        tonic=tonic,
        mode=mode,
        groove=genre.groove,
        beats=genre.beats,
        swing=genre.swing,
        sevenths=genre.sevenths,
        energy=min(max(energy, 0.1), 1.0),
        instruments=_instruments(genre, text, avoided, draw),
    )


def _genre(text: str, avoided: str) -> str:
    """The genre with the most words in `text`; the earliest named decides a tie."""
    found: list[tuple[int, int, str]] = []
    for name, genre in GENRES.items():
        hits = [text.find(word) for word in genre.words if _has(text, word) and not _has(avoided, word)]
        if hits:
            found.append((-len(hits), min(hits), name))
    return min(found)[2] if found else "pop"


def _instruments(genre: Genre, text: str, avoided: str, draw: random.Random) -> tuple[str, ...]:
    """The genre's instruments, without one of the optional ones now and then, plus and minus the named."""
    chosen = list(genre.instruments)
    if len(chosen) > 4 and draw.random() < 0.5:
        chosen.remove(draw.choice(chosen[3:]))
    for word, name in _WANTED.items():
        refused = _has(avoided, word) or _has(text, f"no {word}") or _has(text, f"without {word}")
        if not name or not (refused or _has(text, word)):
            continue
        stem = INSTRUMENTS[name].stem
        if refused:
            chosen = [other for other in chosen if INSTRUMENTS[other].stem != stem]
        elif stem == "bass" and "drum and bass" in text:
            continue
        elif name not in chosen:
            replaced = stem in {"bass", "guitar", "keyboard"}
            chosen = [o for o in chosen if not (replaced and INSTRUMENTS[o].stem == stem)]
            chosen.append(name)
    return tuple(chosen) or ("Synth Pad",)
