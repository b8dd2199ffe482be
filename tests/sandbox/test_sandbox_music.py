"""The songs of the sandbox as a caller gets them: files are fetched over HTTP and decoded."""

from __future__ import annotations

import io
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

LYRICS = "[Verse]\nRain on the window tonight\nLight in the hall\n[Chorus]\nStay for the evening"
CUSTOM = {"custom_mode": True, "mv": "sonic-v6", "prompt": LYRICS, "title": "Rain"}


async def created(api, **fields: object) -> list[dict[str, Any]]:
    """The two clips of a finished song."""
    return await api.finished(await api.submit(body={**CUSTOM, "duration": 12, **fields}))


async def fetched(api, clip: dict[str, Any], ending: str) -> bytes:
    """A file of a clip."""
    status, raw = await api.call("GET", clip["audio_url"].replace(".mp3", f".{ending}"), key=None)
    assert status == 200
    return raw


async def notes(api, clip: dict[str, Any]) -> dict[str, list[tuple[float, int]]]:
    """The notes of the MIDI file by track, as (start in seconds, pitch)."""
    file = mido.MidiFile(file=io.BytesIO(await fetched(api, clip, "mid")), charset="utf-8")
    tempo = next(message.tempo for message in file.tracks[0] if message.type == "set_tempo")
    found: dict[str, list[tuple[float, int]]] = {}
    for track in file.tracks[1:]:
        now = 0
        for message in track:
            now += message.time
            if message.type == "note_on":
                at = mido.tick2second(now, file.ticks_per_beat, tempo)
                found.setdefault(track.name, []).append((at, message.note))
    return found


async def test_a_seed_gives_the_same_files_again(start):
    """Two sandboxes of one seed give equal files; another seed, and the other variant, give other music."""
    files: dict[tuple[int, int], dict[str, bytes]] = {}
    for run, seed in ((0, 5), (1, 5), (2, 6)):
        api = await start(seed=seed, longest=3.0)
        for variant, clip in enumerate(await api.finished(await api.submit(body=CUSTOM))):
            files[run, variant] = {
                end: await fetched(api, clip, end) for end in ("mp3", "m4a", "wav", "mid", "png")
            }
    assert files[0, 0] == files[1, 0]
    assert files[0, 1] == files[1, 1]
    different = [files[0, 0], files[0, 1], files[2, 0], files[2, 1]]
    for ending in ("mp3", "m4a", "wav", "mid", "png"):
        assert len({made[ending] for made in different}) == 4


@pytest.mark.parametrize("ending", ["mp3", "wav"])
async def test_a_file_is_as_long_as_announced(start, ending):
    """The duration that was asked for is shown, and is that of the decoded sound."""
    api = await start()
    for clip in await created(api, duration=11):
        sound, rate = soundfile.read(io.BytesIO(await fetched(api, clip, ending)))
        assert float(clip["duration"]) == 11
        assert len(sound) / rate == pytest.approx(11, abs=0.05)
        assert np.sqrt(np.mean(sound**2)) > 0.03
        assert np.abs(sound).max() <= 1


async def test_the_tempo_in_the_tags_is_heard(start):
    """The drums strike on the eighths of the named tempo, in the MIDI file and in the sound."""
    api = await start()
    (clip, _) = await created(api, tags="rock, 150 bpm", duration=20)
    tracks = await notes(api, clip)
    eighths = [at * 150 / 30 for at, _ in tracks["Drum Kit"] if at < 19]
    on_grid = [abs(at - round(at)) < 0.03 for at in eighths]
    assert sum(on_grid) > 0.8 * len(on_grid)
    sound, rate = soundfile.read(io.BytesIO(await fetched(api, clip, "wav")))
    power = np.square(sound.mean(axis=1)[: len(sound) // 480 * 480]).reshape(-1, 480).sum(axis=1)
    onsets = np.maximum(np.diff(np.log(power + 1e-6)), 0)
    time = np.arange(len(onsets)) * 480 / rate

    def strength(bpm: float) -> float:
        return float(abs((onsets * np.exp(2j * np.pi * time * bpm / 30)).sum()))

    assert strength(150) > 3 * max(strength(bpm) for bpm in (130, 138, 143, 157, 163, 171))


async def test_the_voice_is_that_of_the_request(start):
    """A man sings about an octave lower than a woman; without a singer an instrument has the tune."""
    api = await start()
    heights = {}
    for gender in ("f", "m"):
        (clip, _) = await created(api, vocal_gender=gender)
        sung = (await notes(api, clip))["Synth Voice"]
        heights[gender] = sum(pitch for _, pitch in sung) / len(sung)
    assert 8 < heights["f"] - heights["m"] < 16
    (quiet, _) = await created(api, make_instrumental=True)
    tracks = await notes(api, quiet)
    assert not {"Synth Voice", "Choir"} & set(tracks)
    assert any(name.startswith("Lead ") for name in tracks)


async def test_moods_and_unwanted_instruments_are_obeyed(start):
    """Sad songs are slower and mostly minor; a band without drums has none."""
    api = await start()
    tempo: dict[str, list[float]] = {"sad": [], "happy": []}
    for mood, found in tempo.items():
        for _ in range(4):
            for clip in await created(api, tags=f"{mood} pop", duration=10):
                _, reply = await api.post("/sonic/bpm", {"clip_id": clip["clip_id"]})
                found.append(reply["data"]["avg_bpm"])
    assert sum(tempo["sad"]) / 8 < sum(tempo["happy"]) / 8 - 8
    (clip, _) = await created(api, tags="rock", negative_tags="drums, percussion")
    assert not {"Drum Kit", "Percussion"} & set(await notes(api, clip))


async def test_the_music_is_in_one_key_and_mostly_consonant(start):
    """All pitched notes fit one major or minor scale, and most notes that sound together are consonant."""
    api = await start()
    major, minor = {0, 2, 4, 5, 7, 9, 11}, {0, 2, 3, 5, 7, 8, 10}
    for tags in ("pop", "orchestral", "reggae"):
        (clip, _) = await created(api, tags=tags, duration=20)
        tracks = await notes(api, clip)
        pitched = [
            note
            for name, own in tracks.items()
            if name not in ("Drum Kit", "Percussion", "Impact")
            for note in own
        ]
        fits = [
            sum((p - tonic) % 12 in scale for _, p in pitched)
            for tonic in range(12)
            for scale in (major, minor)
        ]
        assert max(fits) >= 0.95 * len(pitched)
        chords: dict[float, set[int]] = {}
        for at, pitch in pitched:
            chords.setdefault(round(at, 2), set()).add(pitch)
        pairs = [(b - a) % 12 for chord in chords.values() for a in chord for b in chord if a < b]
        assert sum(interval in (0, 3, 4, 5, 7, 8, 9) for interval in pairs) > 0.8 * len(pairs)
