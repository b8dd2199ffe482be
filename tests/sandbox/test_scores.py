"""Scores: what a brief leads to, and what stays true when scores are made of scores."""

from __future__ import annotations

import subprocess
import sys
from itertools import groupby, pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicapi_async.sandbox.composer import compose, natural_duration
from musicapi_async.sandbox.recipes import How, Recipe, score_of
from musicapi_async.sandbox.score import (
    MAX_DURATION,
    MIN_DURATION,
    STEM_NAMES,
    Brief,
    Score,
    excerpt,
    join,
)

LYRICS = (
    "[Verse]\nExample line one\nExample line two\n[Chorus]\nA refrain that everybody sings\n"
    "[Verse 2]\nAnother morning\n[Chorus]\nA refrain that everybody sings"
)
SONG = Brief(seed=7, title="Rain", tags="dreamy pop, 120 bpm", lyrics=LYRICS, duration=60)


def rework(how: How, brief: Brief, *sources: Score, start: float = 0.0, end: float = float("inf")) -> Score:
    """A score made of scores."""
    recipes = tuple(Recipe("compose", Brief(), fixed=source) for source in sources)
    return score_of(Recipe(how, brief, recipes, start, end))


def check(score: Score) -> None:
    """The rules of every score, however it was made."""
    assert score.tempos[0][0] == 0
    for (start, end, _), (later, _, _) in pairwise(score.tempos):
        assert start < end == pytest.approx(later, abs=0.05)
        assert later < score.duration + 1e-6
    for part in score.parts:
        assert part.stem in STEM_NAMES
        assert part.notes
        for note in part.notes:
            assert 0 <= note.pitch <= 127
            assert 0 <= note.start < note.end <= score.duration + 0.01
            assert 0 < note.velocity <= 1
    for word, later in pairwise(score.words):
        assert word.start <= later.start + 1e-6
    assert all(0 <= word.start < word.end <= score.duration + 0.01 for word in score.words)
    for bar, later in pairwise(score.bars):
        assert bar.end == pytest.approx(later.start, abs=0.05)
    assert msgspec.json.decode(msgspec.json.encode(score), type=Score) == score


def sung(score: Score) -> str:
    return "".join(word.text for word in score.words)


def test_a_score_has_the_length_and_tempo_that_were_asked_for():
    """Duration is exact and "120 bpm" in the tags is the tempo."""
    score = compose(SONG)
    check(score)
    assert score.duration == 60
    assert score.bpm == 120
    assert score.bars[-1].end == 60


@pytest.mark.parametrize(
    "tags", ["96 bpm", "rock 96bpm", "slow 96-BPM", "fast, 96 BPM, dark", "96 beats per minute"]
)
def test_a_named_tempo_wins_over_every_mood(tags: str):
    """However it is written and whatever else is said."""
    assert compose(Brief(tags=tags, duration=20)).bpm == 96


@pytest.mark.parametrize(("tags", "bpm"), [("999 bpm", 240), ("10 bpm", 40), ("5000 bpm", 240)])
def test_senseless_tempos_are_brought_into_range(tags: str, bpm: float):
    """A tempo that nobody could play becomes the nearest that can be played."""
    assert compose(Brief(tags=tags, duration=20)).bpm == bpm


@pytest.mark.parametrize(
    ("tags", "tonic", "mode"),
    [("in F# minor", 6, "minor"), ("B flat major", 10, "major"), ("a sad waltz in c minor", 0, "minor")],
)
def test_a_named_key_is_kept(tags: str, tonic: int, mode: str):
    """Tonic and mode are those that the tags name."""
    score = compose(Brief(tags=tags, duration=20))
    assert (score.tonic, score.mode) == (tonic, mode)


def test_moods_choose_the_mode_and_the_pace():
    """Sad songs are mostly minor and slower than happy ones."""
    sad = [compose(Brief(seed=seed, tags="sad pop", duration=10)) for seed in range(20)]
    happy = [
        compose(Brief(seed=seed, description="a happy upbeat pop song", duration=10)) for seed in range(20)
    ]
    assert sum(score.mode == "minor" for score in sad) > 15
    assert sum(score.mode == "major" for score in happy) > 15
    assert sum(s.bpm for s in sad) < sum(s.bpm for s in happy) - 20 * 10


def test_tags_choose_the_instruments():
    """Genre words bring their band, named instruments join, unwanted ones stay away."""

    def names(**words: str) -> set[str]:
        return {part.name for part in compose(Brief(duration=60, lyrics="la la", **words)).parts}

    assert "Upright Bass" in names(tags="smoky jazz")
    assert "Distortion Guitar" in names(tags="metal")
    assert "Flute" in names(tags="pop with flute")
    assert not {"Drum Kit"} & names(tags="rock, no drums")
    assert not {"Piano", "Drum Kit"} & names(tags="pop", negative_tags="piano, drums")
    assert {bar.beats for bar in compose(Brief(tags="waltz", duration=30)).bars[:-1]} == {3}


def test_words_are_aligned_with_their_tags_and_spaces():
    """Section tags stand in front of the next word, white space behind its word; nothing is lost."""
    score = compose(SONG)
    assert sung(score) == LYRICS
    assert score.words[0].text == "[Verse]\nExample "
    kinds = [bar.section for bar in score.bars if bar.section != "solo"]
    assert [kind for kind, _ in groupby(kinds)] == ["intro", "verse", "chorus", "verse", "chorus", "outro"]


def test_every_word_begins_with_a_sung_note():
    """The singer starts a note where the alignment says that a word starts."""
    score = compose(SONG)
    (voice,) = (part for part in score.parts if part.stem == "vocals")
    starts = {note.start for note in voice.notes}
    assert {word.start for word in score.words} <= starts


def test_an_instrumental_has_no_words_and_a_lead():
    """Nobody sings; an instrument has the tune; the lyrics are a marker in brackets."""
    score = compose(msgspec.structs.replace(SONG, instrumental=True))
    check(score)
    assert score.words == ()
    assert score.lyrics == "[Instrumental]"
    assert not {"vocals", "backing vocals"} & {part.stem for part in score.parts}
    assert any(part.name.startswith("Lead ") for part in score.parts)


def test_a_description_is_given_words():
    """Without lyrics, words are written about the description and sung."""
    score = compose(Brief(seed=1, description="a song about lighthouses", duration=90))
    assert "lighthouses" in score.lyrics
    assert "lighthouses" in sung(score)


def test_a_seed_decides_everything_and_two_seeds_differ():
    """Equal briefs give equal scores; the two variants of a task share words but not music."""
    other = compose(msgspec.structs.replace(SONG, seed=8))
    assert compose(SONG) == compose(SONG)
    assert compose(SONG).parts != other.parts
    assert sung(compose(SONG)) == sung(other)


def test_a_persona_keeps_its_voice():
    """Songs with one voice seed have one singer, whatever else differs."""
    first = compose(msgspec.structs.replace(SONG, voice_seed=99))
    second = compose(Brief(seed=1, tags="metal", lyrics="something else", voice_seed=99, duration=40))
    colours = {part.colour for score in (first, second) for part in score.parts if part.stem == "vocals"}
    assert colours == {99}
    assert first.vocal_gender == second.vocal_gender


def test_singers_have_their_range():
    """A man sings an octave below a woman."""

    def height(gender: str) -> float:
        score = compose(msgspec.structs.replace(SONG, vocal_gender=gender))
        (voice,) = (part for part in score.parts if part.stem == "vocals")
        return sum(note.pitch for note in voice.notes) / len(voice.notes)

    assert 8 < height("f") - height("m") < 16


def test_an_extension_continues_in_key_tempo_and_voice():
    """The new part stands alone; joined, it begins exactly where the source was left."""
    song = compose(SONG)
    part = rework("continue", Brief(seed=9, lyrics="[Bridge]\nNew words here", duration=25), song, start=30)
    check(part)
    assert (part.duration, part.bpm, part.tonic, part.mode) == (25, song.bpm, song.tonic, song.mode)
    assert part.voice_seed == song.voice_seed
    assert part.bars[0].section != "intro"
    full = join(song, 30, part)
    check(full)
    assert full.duration == 55
    assert sung(full).endswith("New words here")
    assert [word for word in full.words if word.start < 30] == [
        word for word in song.words if word.start < 30
    ]


def test_an_instrumental_is_continued_without_words():
    """Nobody starts to sing in an extension or a repair unless words are given."""
    bare = compose(msgspec.structs.replace(SONG, instrumental=True))
    assert rework("continue", Brief(seed=2, duration=20), bare, start=20).words == ()
    assert rework("replace", Brief(seed=2), bare, start=20, end=30).lyrics == "[Instrumental]"
    assert rework("continue", Brief(seed=2, lyrics="Now sing", duration=20), bare, start=20).words


def test_joining_pieces_of_two_tempos_keeps_both():
    """A tempo map grows at the seam, and the longer stretch names the tempo."""
    fast = compose(Brief(seed=1, tags="160 bpm", duration=20))
    slow = compose(Brief(seed=1, tags="80 bpm", duration=30))
    full = join(fast, 12, slow)
    check(full)
    assert full.tempos == [(0, pytest.approx(12), 160), (pytest.approx(12), pytest.approx(42), 80)]
    assert full.bpm == 80
    assert excerpt(full, 15, 40).bpm == 80


def test_replacing_a_section_leaves_the_rest_alone():
    """Only what starts inside the window changes, and the length stays."""
    song = compose(SONG)
    repaired = rework("replace", Brief(seed=5, lyrics="totally different"), song, start=20, end=30)
    check(repaired)
    assert repaired.duration == song.duration
    assert [w.start for w in repaired.words if w.start >= 30] == pytest.approx(
        [w.start for w in song.words if w.start >= 30]
    )
    assert [w for w in repaired.words if w.start < 20] == [w for w in song.words if w.start < 20]
    assert "different" in "".join(word.text for word in repaired.words if 20 <= word.start < 30)
    assert repaired.parts != song.parts
    assert "different\n" in repaired.lyrics


def test_a_cover_keeps_the_melody_and_words_in_another_style():
    """The same intervals are sung to the same words at the new tempo by a new band."""
    song = compose(SONG)
    cover = rework("cover", Brief(seed=3, tags="jazz, 90 bpm", vocal_gender=song.vocal_gender), song)
    check(cover)

    def tune(score: Score) -> list[int]:
        return [note.pitch for part in score.parts if part.stem == "vocals" for note in part.notes]

    assert tune(cover) == tune(song)
    assert sung(cover) == sung(song)
    assert cover.bpm == pytest.approx(90)
    assert cover.duration == pytest.approx(song.duration * 120 / 90)
    assert "Upright Bass" in {part.name for part in cover.parts}


def test_a_mashup_takes_from_both():
    """The first's key and words, the second's chords and instruments, a tempo between the two."""
    first = compose(SONG)
    second = compose(Brief(seed=2, tags="metal, 150 bpm, E minor", lyrics="other words", duration=60))
    mix = rework("mash", Brief(seed=4, duration=50), first, second)
    check(mix)
    assert mix.bpm == 135
    assert mix.tonic == first.tonic
    assert sung(mix) == LYRICS
    assert "Distortion Guitar" in {part.name for part in mix.parts}


def test_a_singer_or_a_band_can_be_exchanged():
    """Vocals are laid over an instrumental, and a new band is put under a voice."""
    bare = compose(msgspec.structs.replace(SONG, instrumental=True))
    voiced = rework("sing", Brief(seed=1, lyrics="Hello over there", voice_seed=5), bare, start=10, end=50)
    check(voiced)
    assert sung(voiced) == "Hello over there"
    assert all(10 <= word.start <= 50 for word in voiced.words)
    assert [part for part in voiced.parts if part.stem != "vocals"] == list(bare.parts)
    rebuilt = rework("accompany", Brief(seed=1, tags="orchestral"), compose(SONG))
    check(rebuilt)
    assert rebuilt.words == compose(SONG).words
    assert "String Ensemble" in {part.name for part in rebuilt.parts}


def test_a_remaster_changes_the_tone_and_not_the_notes():
    """Pitches and times stay; colours and levels do not; the singer stays the same person."""
    song = compose(SONG)
    again = rework("remaster", Brief(seed=77), song)
    check(again)
    assert [[n[:3] for n in msgspec.to_builtins(p.notes)] for p in again.parts] == [
        [n[:3] for n in msgspec.to_builtins(p.notes)] for p in song.parts
    ]
    assert again != song
    assert again.voice_seed == song.voice_seed


def test_the_natural_duration_leaves_room_for_all_words():
    """Whoever names no duration gets one in which everything is sung."""
    brief = msgspec.structs.replace(SONG, lyrics="\n".join(["[Verse]\nfour words a line"] * 20))
    duration = natural_duration(brief)
    assert 20 <= duration <= 240
    assert sung(compose(msgspec.structs.replace(brief, duration=duration))) == brief.lyrics


TEXT = st.text(max_size=120) | st.lists(
    st.sampled_from(
        ["[Verse]\n", "[Chorus]", "[", "]", "la ", "雨の日\n", "grüße ", "\n", "(ooh) ", "…", "🎵", "120 bpm",
         "no drums", "waltz", "metal ", "ambient", "in A minor ", "\x00", "ﬁ", "٣"]
    ),
    max_size=30,
).map("".join)  # fmt: skip
BRIEFS = st.builds(
    Brief,
    seed=st.integers(),
    title=TEXT,
    tags=TEXT,
    lyrics=st.none() | TEXT,
    description=st.none() | TEXT,
    instrumental=st.booleans(),
    vocal_gender=st.sampled_from(["f", "m", None]),
    duration=st.floats(0, 60) | st.sampled_from([float("nan"), float("inf"), -1.0, 0.0, 1.0]),
    negative_tags=TEXT,
    voice_seed=st.none() | st.integers(),
)


@settings(max_examples=40, deadline=None)
@given(brief=BRIEFS)
def test_whatever_is_asked_for_becomes_a_sound_score(brief: Brief):
    """Any text and number gives a bounded score that follows the rules."""
    score = compose(brief)
    check(score)
    assert MIN_DURATION <= score.duration <= MAX_DURATION
    assert sum(len(part.notes) for part in score.parts) < 200 * score.duration + 200
    assert 20 <= natural_duration(brief) <= 240


@settings(max_examples=25, deadline=None)
@given(brief=BRIEFS, other=BRIEFS, start=st.floats(-10, 70), length=st.floats(-10, 70))
def test_whatever_is_made_of_scores_is_a_sound_score(brief: Brief, other: Brief, start: float, length: float):
    """Edits at any place with any brief keep every rule."""
    score = compose(brief)
    part = rework("continue", other, score, start=start)
    for made in (
        join(score, start, part),
        rework("replace", other, score, start=start, end=start + length),
        rework("cover", other, score),
        rework("mash", other, score, part),
        rework("sing", other, score, start=start, end=start + length),
        excerpt(score, start, start + length),
    ):
        check(made)


def test_long_texts_take_no_long_time():
    """Ten thousand unbroken words, tags and brackets are read once and bounded."""
    for text in ("la " * 10_000, "[" * 30_000, "[a]" * 10_000, "x" * 30_000, " " * 30_000):
        check(compose(Brief(tags=text, lyrics=text, description=text, negative_tags=text, duration=30)))


def test_composing_needs_no_audio_library():
    """Scores are made without numpy, so a server answers everything but media files without it."""
    program = (
        "import sys; from musicapi_async.sandbox.recipes import compose, Brief; compose(Brief());"
        "print(sorted({'numpy', 'soundfile', 'mido', 'mutagen'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
