"""Sound: the mix is its stems, words are heard where they are aligned, equal scores sound equal."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from musicapi_async.sandbox.composer import compose
from musicapi_async.sandbox.render import SAMPLE_RATE, Audio, gain_of, render
from musicapi_async.sandbox.score import STEM_NAMES, Brief, Part, Score, ScoreNote, excerpt, join
from musicapi_async.sandbox.style import INSTRUMENTS

BRIEF = Brief(
    seed=3,
    tags="pop, 100 bpm, strings, brass, flute",
    lyrics="[Verse]\nTell me something new today\nTell me\n[Chorus]\nSing along and stay",
    duration=30,
)


@pytest.fixture(scope="module")
def score() -> Score:
    return compose(BRIEF)


@pytest.fixture(scope="module")
def mix(score: Score) -> Audio:
    return render(score)


@pytest.fixture(scope="module")
def vocals(score: Score) -> Audio:
    return render(score, ["vocals"], gain_of(render(score, gain=1.0)))


def level(audio: Audio) -> float:
    return float(np.sqrt(np.mean(np.square(audio)))) if len(audio) else 0.0


def test_the_mix_is_stereo_at_48_khz_and_neither_silent_nor_clipped(mix: Audio):
    """Shape, length and loudness of a finished song."""
    assert mix.shape == (30 * SAMPLE_RATE, 2)
    assert mix.dtype == np.float32
    assert 0.9 < np.max(np.abs(mix)) <= 0.98
    assert level(mix) > 0.05
    assert not np.allclose(mix[:, 0], mix[:, 1])


def test_the_stems_sum_to_the_mix(score: Score, mix: Audio):
    """All twelve stems together, each with the gain of the mix, give the mix."""
    gain = gain_of(render(score, gain=1.0))
    stems = {name: render(score, [name], gain) for name in STEM_NAMES}
    np.testing.assert_allclose(sum(stems.values()), mix, atol=1e-3)
    heard = {name for name, stem in stems.items() if stem.any()}
    assert heard == {part.stem for part in score.parts}
    assert {"vocals", "backing vocals", "drums", "bass", "strings", "brass", "woodwinds"} <= heard


def test_an_unknown_stem_is_a_key_error(score: Score):
    """Only the twelve names are stems."""
    with pytest.raises(KeyError, match="kazoo"):
        render(score, ["kazoo"])


def test_every_word_is_heard_where_it_is_aligned(score: Score, vocals: Audio):
    """In the vocals, the 30 ms after a word's start are louder than the 30 ms before it."""
    span = round(0.03 * SAMPLE_RATE)
    for word in score.words:
        at = round(word.start * SAMPLE_RATE)
        before, after = level(vocals[at - span : at]), level(vocals[at : at + span])
        assert after > before * 1.3, (word, before, after)


def test_no_voice_is_heard_before_the_first_word(score: Score, vocals: Audio):
    """The singer waits for the alignment."""
    first = round(score.words[0].start * SAMPLE_RATE)
    assert level(vocals[: first - 100]) < 1e-4


def test_equal_scores_sound_equal_and_other_seeds_do_not():
    """Samples follow from the score alone."""
    short = msgspec.structs.replace(BRIEF, duration=6)
    first = render(compose(short))
    np.testing.assert_array_equal(first, render(compose(short)))
    other = render(compose(msgspec.structs.replace(short, seed=4)))
    assert level(first - other) > 0.5 * level(first)


def test_a_persona_has_one_timbre():
    """The same note by the same voice seed has the same spectrum; another voice has another."""

    def vocals(voice_seed: int, seed: int) -> Audio:
        score = compose(msgspec.structs.replace(BRIEF, seed=seed, voice_seed=voice_seed, vocal_gender="f"))
        (voice,) = (part for part in score.parts if part.stem == "vocals")
        note = msgspec.structs.replace(
            voice.notes[0], pitch=69, start=0.0, end=1.0, velocity=0.8, syllable="la"
        )
        alone = msgspec.structs.replace(voice, notes=(note,))
        return render(msgspec.structs.replace(score, duration=1.2, parts=(alone,)))

    np.testing.assert_array_equal(vocals(1, 1), vocals(1, 2))
    assert level(vocals(1, 1) - vocals(2, 1)) > 0.01


@pytest.mark.parametrize(
    "tags", ["ambient", "metal", "techno", "waltz", "reggae", "orchestral", "lofi organ sax"]
)
def test_every_style_has_a_sound(tags: str):
    """No instrument is missing its sound, and none is unreasonably loud or quiet."""
    mix = render(compose(Brief(seed=5, tags=tags, lyrics="Oh, sing a line\nmy dear", duration=16)))
    assert level(mix) > 0.03
    assert np.isfinite(mix).all()


def test_an_empty_score_is_silence():
    """Nothing to play gives nothing to hear, not an error."""
    score = msgspec.structs.replace(compose(Brief(duration=2)), parts=())
    assert render(score).shape == (2 * SAMPLE_RATE, 2)
    assert not render(score).any()
    assert render(excerpt(score, 1, 1)).shape == (0, 2)


def test_a_joined_score_sounds_like_its_pieces():
    """Before the seam the joined song is the first song, up to one loudness."""
    song = compose(msgspec.structs.replace(BRIEF, duration=10))
    full = join(song, 5, compose(msgspec.structs.replace(BRIEF, seed=8, duration=4)))
    a, b = render(song)[: 4 * SAMPLE_RATE], render(full)[: 4 * SAMPLE_RATE]
    scale = level(b) / level(a)
    assert len(render(full)) == 9 * SAMPLE_RATE
    assert level(b - a * np.float32(scale)) < 0.01 * level(b)


@pytest.mark.parametrize(
    "name", [name for name in INSTRUMENTS if INSTRUMENTS[name].sound not in {"drums", "riser"}]
)
def test_instruments_are_in_tune(name: str):
    """An A is 440 Hz (or an overtone of it) on every pitched instrument, within a quarter of a semitone."""
    instrument = INSTRUMENTS[name]
    part = Part(name, instrument.stem, 0, instrument.sound, 1, (ScoreNote(69, 0.0, 2.0, 0.8),))
    audio = render(msgspec.structs.replace(compose(Brief(duration=2)), parts=(part,)))[:, 0]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    strongest = float(np.argmax(spectrum)) / 2
    assert strongest / 440 == pytest.approx(round(strongest / 440), rel=0.015)
