"""Files: what is written is read back by the libraries that everybody uses."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import mido
import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from mutagen.id3 import ID3
from mutagen.mp4 import MP4

from musicapi_async.sandbox import media_files
from musicapi_async.sandbox.composer import compose
from musicapi_async.sandbox.media_files import cover_picture, load, make_file, read_audio
from musicapi_async.sandbox.ordered_tasks import OrderedClip
from musicapi_async.sandbox.recipes import Recipe, UploadedFile, joined, made, uploaded
from musicapi_async.sandbox.render import SAMPLE_RATE, Audio, render
from musicapi_async.sandbox.score import Brief, Score, join

BRIEF = Brief(
    seed=11, title="Grüße 🌧", tags="lofi, 84 bpm", lyrics="[Verse]\nOne two three\n雨の日", duration=9.5
)


@pytest.fixture(scope="module")
def score() -> Score:
    return compose(BRIEF)


@pytest.fixture(scope="module")
def audio(score: Score) -> Audio:
    return render(score)


def mp3(audio: Audio, **changes: object) -> bytes:
    words = {"title": BRIEF.title, "artist": "Sandbox", "tags": BRIEF.tags, "lyrics": str(BRIEF.lyrics)}
    return media_files.to_mp3(media_files.encode(audio), **(words | changes))  # type: ignore[arg-type]


def test_a_short_song_is_encoded_once_for_clips_with_words_of_their_own():
    """Two sandboxes of one seed make the same song under two titles; its stems are other sounds."""
    brief = msgspec.structs.replace(BRIEF, duration=1.25, seed=4711)
    first, second = (
        OrderedClip(f"clip-{title}", Recipe("compose", brief), title=title, tags="pop", lyrics=f"la {title}")
        for title in ("Rain", "Tram")
    )
    encoded = media_files._encoded_short.cache_info().misses
    files = [make_file(clip, "mp3") for clip in (first, second)]
    assert media_files._encoded_short.cache_info().misses == encoded + 1
    assert [str(ID3(io.BytesIO(data))["TIT2"]) for data in files] == ["Rain", "Tram"]
    assert [ID3(io.BytesIO(data)).getall("USLT")[0].text for data in files] == ["la Rain", "la Tram"]
    sounds = [soundfile.read(io.BytesIO(data))[0] for data in files]
    assert np.array_equal(*sounds)
    stem = OrderedClip("stem", Recipe("compose", brief), stem="drums", stem_names=("drums",))
    assert not np.array_equal(soundfile.read(io.BytesIO(make_file(stem, "mp3")))[0], sounds[0])


def test_an_mp3_plays_as_long_as_the_song_and_is_not_silent(audio: Audio):
    """Decoded by libsndfile: 48 kHz, stereo, the right length, and the same loudness."""
    data = mp3(audio)
    decoded, rate = soundfile.read(io.BytesIO(data))
    assert (rate, decoded.shape[1]) == (SAMPLE_RATE, 2)
    assert len(decoded) / rate == pytest.approx(BRIEF.duration, abs=0.1)
    assert np.sqrt(np.mean(decoded**2)) == pytest.approx(float(np.sqrt(np.mean(audio**2))), rel=0.1)
    assert data.startswith(b"ID3")
    assert mp3(audio) == data


def test_an_mp3_names_its_song(audio: Audio):
    """Title, artist, genre, lyrics and cover stand in the ID3 tag, in any script."""
    picture = cover_picture(BRIEF)
    tag = ID3(io.BytesIO(mp3(audio[:SAMPLE_RATE], cover=picture)))
    assert str(tag["TIT2"]) == BRIEF.title
    assert str(tag["TPE1"]) == "Sandbox"
    assert str(tag["TCON"]) == BRIEF.tags
    assert tag.getall("USLT")[0].text == BRIEF.lyrics
    assert tag.getall("APIC")[0].data == picture


def test_a_wav_holds_every_sample(audio: Audio):
    """A WAV has the exact length and 16 bits of each sample."""
    decoded, rate = soundfile.read(io.BytesIO(media_files.to_wav(audio)), dtype="float32")
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(decoded, audio, atol=1e-4)


def played(data: bytes) -> list[tuple[str, list[tuple[int, float, float]]]]:
    """Tracks of a MIDI file: name and notes as (pitch, start, end) in seconds; independent of the writer."""
    file = mido.MidiFile(file=io.BytesIO(data), charset="utf-8")
    tempos: list[tuple[int, int]] = []
    now = 0
    for message in file.tracks[0]:
        now += message.time
        if message.type == "set_tempo":
            tempos.append((now, message.tempo))

    def seconds(tick: int) -> float:
        total = 0.0
        for (start, tempo), (end, _) in zip(tempos, [*tempos[1:], (1 << 60, 0)], strict=True):
            if tick > start:
                total += mido.tick2second(min(tick, end) - start, file.ticks_per_beat, tempo)
        return total

    tracks: list[tuple[str, list[tuple[int, float, float]]]] = []
    for track in file.tracks[1:]:
        now, open_notes, notes = 0, {}, []
        for message in track:
            now += message.time
            if message.type == "note_on":
                assert message.note not in open_notes
                open_notes[message.note] = now
            elif message.type == "note_off":
                notes.append((message.note, seconds(open_notes.pop(message.note)), seconds(now)))
        assert not open_notes
        tracks.append((track.name, sorted(notes)))
    return tracks


def assert_same_notes(score: Score) -> None:
    tracks = played(media_files.to_midi(score))
    assert [name for name, _ in tracks] == [part.name for part in score.parts]
    for part, (_, heard) in zip(score.parts, tracks, strict=True):
        written = sorted((note.pitch, note.start, note.end) for note in part.notes)
        for (pitch, *times), (played_pitch, *played_times) in zip(written, heard, strict=True):
            assert pitch == played_pitch
            assert times == pytest.approx(played_times, abs=0.002)


def test_the_midi_file_has_the_notes_that_are_heard(score: Score):
    """One track per instrument with its notes at their times, and the true tempo."""
    assert_same_notes(score)
    tempos = [
        m.tempo
        for m in mido.MidiFile(file=io.BytesIO(media_files.to_midi(score))).tracks[0]
        if m.type == "set_tempo"
    ]
    assert tempos == [mido.bpm2tempo(84)]


def test_a_midi_file_follows_changes_of_tempo(score: Score):
    """After a seam with a new tempo the notes still are where they are heard."""
    faster = compose(msgspec.structs.replace(BRIEF, seed=12, tags="lofi, 131 bpm"))
    assert_same_notes(join(score, 4.3, faster))


def test_equal_scores_give_equal_midi(score: Score):
    """Nothing but the score decides the bytes."""
    assert media_files.to_midi(score) == media_files.to_midi(compose(BRIEF))


@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_text_fits_into_a_file(text: str):
    """Titles, tags and lyrics in any script, with nulls and broken surrogates, never break a file."""
    silence = np.zeros((1200, 2), np.float32)
    tag = ID3(io.BytesIO(mp3(silence, title=text, artist=text, tags=text, lyrics=text)))
    assert tag.unknown_frames == []
    media_files.to_midi(compose(Brief(title=text, lyrics=text, duration=1)))


def tape(level: float, seconds: float) -> Recipe:
    """An uploaded file of one level."""
    data = media_files.to_wav(np.full((round(seconds * SAMPLE_RATE), 2), level, np.float32))
    return uploaded(Brief(), seconds, UploadedFile(data))


def test_uploaded_sound_is_cut_and_joined_at_seconds():
    """Lengths add up; bounds outside are brought in; the seam does not click."""
    tone = tape(0.9, 1.0)
    for start, end, seconds in ((0.25, 0.75, 0.5), (-3, 99, 1.0), (0.9, 0.1, 0.0)):
        cut = media_files.sound_of(made("cut", Brief(), tone, start=start, end=end))
        assert len(cut) == round(seconds * SAMPLE_RATE)
    whole = media_files.sound_of(joined(tone, 0.5, tape(-0.9, 1.0)))
    assert len(whole) == SAMPLE_RATE * 3 // 2
    assert np.max(np.abs(np.diff(whole[:, 0]))) < 0.01


@pytest.mark.parametrize(
    ("kind", "rate"), [("WAV", 44_100), ("FLAC", 48_000), ("OGG", 22_050), ("MP3", 44_100)]
)
def test_an_upload_is_recognised_and_read(kind: str, rate: int):
    """Usual formats and rates arrive as stereo at 48 kHz of the same length."""
    tone = np.sin(np.arange(rate * 2) * 0.05).astype(np.float32) * 0.5
    buffer = io.BytesIO()
    soundfile.write(buffer, tone, rate, format=kind)
    duration, seed = load(buffer.getvalue())
    assert duration == pytest.approx(2, abs=0.1)
    sound = read_audio(buffer.getvalue())
    assert sound.shape[1] == 2
    assert len(sound) / SAMPLE_RATE == pytest.approx(2, abs=0.1)
    assert np.max(np.abs(sound)) == pytest.approx(0.5, abs=0.05)
    assert load(buffer.getvalue()) == (duration, seed)


def test_what_is_no_audio_is_refused_by_name():
    """Text, pages, pictures, nothing and cut-off headers: ValueError with the first bytes."""
    for data in (
        b"",
        b"<html>not found</html>",
        cover_picture(BRIEF),
        b"RIFF",
        b"ID3" + bytes(200),
        bytes(5000),
    ):
        with pytest.raises(ValueError, match="audio"):
            load(data)


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=300),
    start=st.sampled_from([b"", b"RIFF\x00\x01\x00\x00WAVEfmt ", b"fLaC", b"OggS", b"ID3", b"\xff\xfb\x90"]),
)
def test_hostile_uploads_only_raise_value_errors(data: bytes, start: bytes):
    """Whatever stands in the file, the answer is its length or a ValueError."""
    try:
        duration, _ = load(start + data)
        read_audio(start + data)
    except ValueError:
        return
    assert 0 < duration <= 480


def test_an_upload_of_more_than_eight_minutes_is_refused():
    """The API's own limit holds, and is found in the header."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(481 * 1000, np.int16), 1000, format="WAV")
    with pytest.raises(ValueError, match="481 s"):
        load(buffer.getvalue())


def test_a_cover_is_a_small_png_that_follows_its_song():
    """A valid square picture of a few kB; another title or seed gives another."""
    picture = cover_picture(BRIEF)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (512, 512)
    assert len(picture) < 40_000
    at = picture.index(b"IDAT")
    (size,) = struct.unpack(">I", picture[at - 4 : at])
    assert len(zlib.decompress(picture[at + 4 : at + 4 + size])) == 512 * 513
    assert cover_picture(BRIEF) == picture
    assert cover_picture(msgspec.structs.replace(BRIEF, title="Sun")) != picture
    assert cover_picture(msgspec.structs.replace(BRIEF, seed=12)) != picture


HALF_MADE = """
    import time
    whole, __spec__ = __spec__, None  # as an extension looks to other threads while it is imported
    time.sleep(0.02)
    __spec__ = whole
    class Encoder: ...
"""
MANY_THREADS = """
    from concurrent.futures import ThreadPoolExecutor
    def encoder():
        from musicapi_async.sandbox import media_files
        return media_files.lameenc.Encoder
    with ThreadPoolExecutor(4) as threads:
        print(sum(found.result() is not None for found in [threads.submit(encoder) for _ in range(4)]))
"""


def test_the_first_songs_of_many_threads_find_the_encoder_whole(tmp_path: Path) -> None:
    """Threads that ask while another one imports it wait for that import."""
    (tmp_path / "lameenc.py").write_text(textwrap.dedent(HALF_MADE))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MANY_THREADS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "4", done.stderr


@pytest.mark.parametrize("seconds", [0.0, 2.5])
def test_an_m4a_holds_the_frames_of_the_mp3(seconds: float) -> None:
    """A reader of other authors finds stereo MP3 at 48 kHz of the right length; no frame is lost."""
    sound = (np.sin(np.arange(round(48_000 * seconds)) / 20)[:, None] * [0.5, 0.3]).astype(np.float32)
    data = mp3(sound)
    m4a = media_files.to_m4a(data, len(sound))
    info = MP4(io.BytesIO(m4a)).info
    assert (info.codec, info.channels, info.sample_rate) == ("mp4a.6B", 2, 48_000)
    assert seconds <= info.length <= seconds + 0.1
    at = m4a.index(b"stco") + 12
    (offset,) = struct.unpack(">I", m4a[at : at + 4])
    assert m4a[offset - 4 : offset] == b"mdat"
    assert data.endswith(m4a[offset:])
    assert m4a[offset : offset + 2] == b"\xff\xfb"
    assert b"Info" not in m4a[offset : offset + 40]
    assert m4a[4:8] == b"ftyp"
