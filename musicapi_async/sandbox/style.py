"""How words such as "sad acoustic folk, 90 bpm, no drums" become tempo, key, groove and instruments."""

from __future__ import annotations

import random
import re
from typing import Final, NamedTuple

import msgspec

from .score import Brief, Mode, Score, rng

_SLOWEST: Final = 40.0
_FASTEST: Final = 240.0
"""Beats a minute; a tempo named in the tags is brought into this range."""

_READ: Final = 4_000
"""Characters of tags and description that are read; the API's own limits are 1,000 and 400."""

_PITCHES: Final = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


class BandInstrument(NamedTuple):
    """An instrument: stem, General MIDI program, sound, way of playing, and the words that ask for it."""

    stem: str
    program: int
    sound: str
    playing: str
    words: str


class Groove(NamedTuple):
    """One bar in sixteenths: X and x are loud and soft strokes; in the bass, 1 to 8 are steps of a scale."""

    kick: str
    snare: str
    hat: str
    bass: str
    chords: str


class Genre(NamedTuple):
    """The traits of a genre: tempo range, chance of a minor key, energy, groove, instruments."""

    words: str
    slow: int
    fast: int
    minor: float
    energy: float
    groove: str
    instruments: str


class Style(msgspec.Struct, frozen=True):
    """The decisions that the words led to; `tonic` is a pitch class, `groove` a key of `GROOVES`."""

    genre: str
    bpm: float
    tonic: int
    mode: Mode
    energy: float
    groove: str
    instruments: tuple[str, ...]

    @property
    def beats(self) -> int:
        """Beats of a bar."""
        return 3 if self.groove == "waltz" else 4


INSTRUMENTS: Final = {
    "Drum Kit": BandInstrument("drums", 0, "drums", "drums", "drums, drum, beat"),
    "Percussion": BandInstrument("percussion", 0, "drums", "shaker", "percussion, handclaps, claps, shaker"),
    "Finger Bass": BandInstrument("bass", 33, "bass", "bass", "bass"),
    "Synth Bass": BandInstrument("bass", 38, "synthbass", "bass", "sub bass, 808"),
    "Upright Bass": BandInstrument("bass", 32, "bass", "bass", "double bass"),
    "Electric Guitar": BandInstrument("guitar", 27, "electric", "strum", "guitar, electric guitar"),
    "Acoustic Guitar": BandInstrument("guitar", 25, "guitar", "broken", "acoustic guitar, ukulele"),
    "Distortion Guitar": BandInstrument("guitar", 30, "distortion", "power", "distorted, distortion"),
    "Piano": BandInstrument("keyboard", 0, "piano", "strum", "piano"),
    "Electric Piano": BandInstrument(
        "keyboard", 4, "epiano", "strum", "keys, keyboard, rhodes, electric piano"
    ),
    "Organ": BandInstrument("keyboard", 16, "organ", "strum", "organ"),
    "String Ensemble": BandInstrument("strings", 48, "strings", "hold", "strings, violin, cello"),
    "Synth Pluck": BandInstrument("synth", 81, "pluck", "broken", "synth, synths, arp"),
    "Synth Pad": BandInstrument("synth", 89, "strings", "hold", "pad, pads"),
    "Impact": BandInstrument("fx", 127, "drums", "impact", "fx"),
    "Brass Section": BandInstrument("brass", 61, "brass", "stabs", "brass, trumpet, horns"),
    "Flute": BandInstrument("woodwinds", 73, "flute", "fills", "flute, woodwinds, clarinet"),
    "Saxophone": BandInstrument("woodwinds", 65, "reed", "fills", "sax, saxophone"),
}

GROOVES: Final = {
    name: Groove(*patterns)
    for name, *patterns in map(
        str.split,
        """\
rock    X.......X.x.....  ....X.......X...  X.x.X.x.X.x.X.x.  1.1.1.1.1.1.1.1.  X.....x...X.....
four    X...X...X...X...  ....X.......X...  x.X.x.X.x.X.x.X.  ..1...8...1...8.  X..x..x...x.X...
hiphop  X......x..X.....  ....X.......X...  X.x.X.x.X.x.X.x.  1......1..5.....  X.........x.....
lofi    X......x..X.....  ....X.......X...  x.x.x.x.x.x.x.x.  1.........5.....  X.....x...X.....
funk    X..x......X.....  ....X..x....X...  XxxxXxxxXxxxXxxx  1..8..1...5..81.  ..x...x..x....x.
swing   x.......x.......  ....x.......x...  X...X.x.X...X.x.  1...3...5...6...  X.....x...x.....
ballad  X.........x.....  ........X.......  x.x.x.x.x.x.x.x.  1.......1.....5.  X...x...x...x...
reggae  ........X.......  ........X.......  x.X.x.X.x.X.x.X.  1...5.8...1.....  ..X...X...X...X.
latin   X.....x.X.....x.  ...x..x.....x...  x.x.x.x.x.x.x.x.  1.....5.1.....5.  X.x...X...x...x.
march   X.......X.......  ....x.......x.x.  ................  1.......5.......  X.......X.......
waltz   X...........  ....x...x...  x...x...x...  1...........  ....X...x...
none    ................  ................  ................  1...............  X...............
""".splitlines(),
    )
}
SWING: Final = {"swing": 0.6, "lofi": 0.35}
SEVENTHS: Final = frozenset({"swing", "lofi", "funk", "latin"})
"""How late the second eighth of a beat is, in thirds of a beat, and grooves whose chords have a seventh."""

_BAND: Final = "Drum Kit, Finger Bass, Electric Guitar, "
_CLUB: Final = "Drum Kit, Percussion, Synth Bass, Synth Pad, Synth Pluck, Impact"
_JAZZ: Final = "Drum Kit, Upright Bass, Piano, Saxophone, Brass Section"
_LOFI: Final = "Drum Kit, Upright Bass, Electric Piano, Electric Guitar, Synth Pad"
_FILM: Final = "String Ensemble, Brass Section, Flute, Piano, Percussion"
_FOLK: Final = "Percussion, Upright Bass, Acoustic Guitar, "

GENRES: Final = {
    "pop": Genre("pop, indie", 96, 124, 0.4, 0.7, "rock", _BAND + "Piano, Synth Pad, Percussion, Impact"),
    "rock": Genre("rock, punk, grunge, garage", 112, 148, 0.4, 0.85, "rock", _BAND + "Organ"),
    "metal": Genre("metal, hardcore", 130, 168, 0.95, 1, "rock", "Drum Kit, Finger Bass, Distortion Guitar"),
    "jazz": Genre("jazz, swing, bebop, blues, big band", 96, 152, 0.4, 0.7, "swing", _JAZZ),
    "lofi": Genre("lofi, lo-fi, lo fi, chillhop, study", 70, 88, 0.5, 0.45, "lofi", _LOFI),
    "hiphop": Genre("hip hop, hip-hop, hiphop, rap, trap, drill", 80, 100, 0.8, 0.7, "hiphop",
                    "Drum Kit, Percussion, Synth Bass, Electric Piano, Synth Pluck"),
    "dance": Genre("edm, house, techno, trance, dance, club, disco", 118, 132, 0.6, 0.9, "four", _CLUB),
    "drumnbass": Genre("drum and bass, dnb, jungle", 165, 176, 0.8, 0.9, "rock", _CLUB),
    "ambient": Genre("ambient, drone, meditation, new age, sleep", 56, 76, 0.5, 0.25, "none",
                     "Synth Pad, String Ensemble, Electric Piano, Flute"),
    "orchestral": Genre("orchestral, classical, cinematic, film, epic", 72, 108, 0.7, 0.7, "march", _FILM),
    "folk": Genre("folk, acoustic, country, bluegrass, campfire", 84, 116, 0.3, 0.5, "ballad",
                  _FOLK + "String Ensemble, Flute"),
    "ballad": Genre("ballad, lullaby, love song", 62, 82, 0.4, 0.45, "ballad",
                    "Drum Kit, Finger Bass, Piano, String Ensemble"),
    "soul": Genre("soul, r&b, rnb, funk, motown, gospel", 88, 112, 0.5, 0.7, "funk",
                  _BAND + "Electric Piano, Percussion, Brass Section"),
    "reggae": Genre("reggae, ska, dub", 72, 92, 0.3, 0.7, "reggae", _BAND + "Organ, Brass Section"),
    "latin": Genre("latin, bossa, samba, salsa, tango", 94, 124, 0.6, 0.7, "latin",
                   _FOLK + "Piano, Brass Section"),
    "waltz": Genre("waltz, 3/4", 96, 150, 0.4, 0.5, "waltz", "Upright Bass, Piano, String Ensemble, Flute"),
}  # fmt: skip
"""Genres in the order in which ties are decided; "pop" is what music without a genre becomes."""

_MOODS: Final = (
    # words, towards minor, tempo factor, towards energy
    ("happy, joyful, cheerful, playful, bright, summer, uplifting", -0.6, 1.05, 0.15),
    ("sad, melancholic, melancholy, lonely, haunting", 0.7, 0.9, -0.2),
    ("dark, moody, rainy", 0.6, 0.95, -0.1),
    ("angry, aggressive, tense, intense", 0.6, 1.07, 0.25),
    ("calm, relaxing, peaceful, dreamy, gentle, soft, chill, romantic, warm", -0.1, 0.92, -0.2),
    ("fast, upbeat, uptempo, driving, energetic, powerful", -0.1, 1.13, 0.2),
    ("slow, downtempo", 0.0, 0.82, -0.15),
)

_BPM: Final = re.compile(r"(\d{2,4}(?:\.\d{1,2})?)\s{0,3}-?\s{0,3}(?:bpm|beats per minute)")
_KEY: Final = re.compile(r"(?<!\w)([a-g])([#♯b♭]?|\s?sharp|\s?flat)[\s-]{1,2}(major|minor|maj|min)(?!\w)")


def read_style(tags: str, description: str, negative_tags: str, seed: int) -> Style:
    """Return the style of a song; `seed` decides what its words leave open.

    A named tempo ("120 bpm") and key ("in D minor") are used exactly, the tempo within 40 to 240.
    """
    text = f"{tags[:_READ]} , {description[:_READ]}".lower()
    avoided = negative_tags[:_READ].lower()
    draw = rng("style", seed)
    hits = {name: _named(genre.words, text, avoided) for name, genre in GENRES.items()}
    name = min(hits, key=lambda name: (-len(hits[name]), min(hits[name], default=0)))
    genre = GENRES[name]
    minor, tempo_factor, energy = genre.minor, 1.0, genre.energy
    for words, darker, faster, stronger in _MOODS:
        count = len(_named(words, text, avoided))
        minor, energy = minor + count * darker, energy + count * stronger
        tempo_factor *= faster**count
    mode: Mode = "minor" if draw.random() < minor else "major"
    tonic = draw.choice((0, 2, 3, 4, 5, 7, 9, 10))
    if (key := _KEY.search(text)) is not None:
        shift = {"": 0, "#": 1, "♯": 1, "sharp": 1}.get(key[2].strip(), -1)
        tonic = (_PITCHES.index(key[1].upper()) + shift) % 12
        mode = "minor" if key[3].startswith("min") else "major"
    tempo = _BPM.search(text)
    drawn = round(draw.uniform(genre.slow, genre.fast) * min(max(tempo_factor, 0.7), 1.4))
    bpm = min(max(float(tempo[1] if tempo else drawn), _SLOWEST), _FASTEST)
    instruments = _instruments(genre, text, avoided, draw)
    return Style(name, bpm, tonic, mode, min(max(energy, 0.1), 1.0), genre.groove, instruments)


def style_of(brief: Brief, continues: Score | None) -> Style:
    """Return the style of a brief, in the key, tempo and metre of the score that it continues."""
    tags, description = brief.tags, brief.description or ""
    if continues is None:
        return read_style(tags, description, brief.negative_tags, brief.seed)
    if not tags.strip() and not description.strip():
        tags = continues.tags
    style = in_metre_of(continues, read_style(tags, description, brief.negative_tags, continues.seed))
    bpm = continues.tempos[-1][2]
    return msgspec.structs.replace(style, bpm=bpm, tonic=continues.tonic, mode=continues.mode)


def in_metre_of(score: Score, style: Style) -> Style:
    """Return `style` with a groove that fits the bars of `score`."""
    threes = sum(bar.beats <= 3 for bar in score.bars) * 2 > len(score.bars)
    groove = "waltz" if threes else "ballad" if style.groove == "waltz" else style.groove
    return msgspec.structs.replace(style, groove=groove)


def _instruments(genre: Genre, text: str, avoided: str, draw: random.Random) -> tuple[str, ...]:
    """Return the genre's instruments, sometimes without an optional one, plus and minus the named."""
    chosen = genre.instruments.split(", ")
    if len(chosen) > 4 and draw.random() < 0.5:
        chosen.remove(draw.choice(chosen[3:]))
    text = text.replace("drum and bass", "")
    for name, (stem, _, _, _, words) in INSTRUMENTS.items():
        named = [word for word in words.split(", ") if _has(text, word)]
        no = any(_has(text, f"no {word}") or _has(text, f"without {word}") for word in named)
        no = no or any(_has(avoided, word) for word in words.split(", "))
        if no or (named and name not in chosen and stem in ("bass", "guitar", "keyboard")):
            chosen = [other for other in chosen if INSTRUMENTS[other].stem != stem]
        if named and not no and name not in chosen:
            chosen.append(name)
    return tuple(chosen) or ("Synth Pad",)


def _named(words: str, text: str, avoided: str) -> list[int]:
    """Return the places in `text` of those of `words` that are not avoided."""
    return [text.find(w) for w in words.split(", ") if _has(text, w) and not _has(avoided, w)]


def _has(text: str, word: str) -> bool:
    """Return True if `word` is in `text` as a word of its own."""
    return word in text and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None
