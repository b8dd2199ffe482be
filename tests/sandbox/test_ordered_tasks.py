"""Everything that is made of clips: consistent with the clips, and files that hold what they should."""

from __future__ import annotations

import asyncio
import io
import itertools
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from musicapi_async.sandbox import Choices, Durations, Fault
from musicapi_async.sandbox.recipes import UploadedFile

LYRICS = "[Verse]\nRain on the window\nLight in the hall\n[Chorus]\nStay for the evening"
CUSTOM = {"custom_mode": True, "mv": "sonic-v6", "prompt": LYRICS}
WISH = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "slow jazz"}
UNKNOWN = "aaaaaaaa-0000-4000-8000-000000000001"


async def sound(api, url: str) -> Any:
    status, raw = await api.call("GET", url, key=None)
    assert status == 200
    return soundfile.read(io.BytesIO(raw))[0]


async def direct(api, path: str, body: object) -> Any:
    """The 200 of a call that may answer 202 first."""
    for _ in range(300):
        status, reply = await api.post(path, body)
        if status != 202:
            assert status == 200, reply
            return reply
        assert reply["type"] == "not_ready"
        await asyncio.sleep(0.002)
    raise AssertionError(f"{path} is never ready")


async def test_media_are_files(start):
    """A 48 kHz stereo MP3 as long as the clip says; ranges, ETag and covers work without a key."""
    api = await start()
    clip = await api.song(duration=10)
    status, raw = await api.call("GET", clip["audio_url"], key=None)
    assert status == 200
    assert api.headers["Content-Type"] == "audio/mp3"
    assert int(api.headers["Content-Length"]) == len(raw)
    info = soundfile.info(io.BytesIO(raw))
    assert (info.samplerate, info.channels) == (48000, 2)
    assert len(soundfile.read(io.BytesIO(raw))[0]) / 48000 == pytest.approx(float(clip["duration"]), abs=0.1)
    tag = api.headers["ETag"]
    status, part = await api.call("GET", clip["audio_url"], key=None, headers={"Range": "bytes=1000-1999"})
    assert (status, part) == (206, raw[1000:2000])
    assert api.headers["Content-Range"] == f"bytes 1000-1999/{len(raw)}"
    status, rest = await api.call("GET", clip["audio_url"], key=None, headers={"Range": "bytes=-10"})
    assert (status, rest) == (206, raw[-10:])
    far = {"Range": f"bytes={len(raw)}-"}
    assert (await api.call("GET", clip["audio_url"], key=None, headers=far))[0] == 416
    stale = {"Range": "bytes=5-9", "If-Range": '"other"'}
    assert (await api.call("GET", clip["audio_url"], key=None, headers=stale))[0] == 200
    assert (await api.call("GET", clip["audio_url"], key=None, headers={"If-None-Match": tag}))[0] == 304
    status, picture = await api.call("GET", clip["image_url"], key=None)
    assert (status, picture[:4]) == (200, b"\x89PNG")
    media = api.sandbox.journal.requests(kind="media")
    assert media
    assert not any(entry.key_sent for entry in media)
    await api.call("GET", clip["image_url"])
    assert api.sandbox.journal[-1].key_sent


async def test_stream_link_gives_audio_while_the_clip_runs(start):
    """The early link is a stream without a length."""
    api = await start(speed=200.0, durations=Durations(song=(200.0, 0.0)))
    task_id = await api.submit()
    _, body = await api.until(
        f"/sonic/task/{task_id}", lambda _, b: any(clip["audio_url"] for clip in b.get("data") or [])
    )
    url = next(clip["audio_url"] for clip in body["data"] if clip["audio_url"])
    status, raw = await api.call("GET", url, key=None)
    assert status == 200
    assert "Content-Length" not in api.headers
    assert len(raw) > 1000
    assert (await api.call("GET", url.replace("item_id=", "item_id=x"), key=None))[0] == 404


@pytest.mark.parametrize(("kind", "counts"), [("basic", (2, 4)), ("full", (12, 24))])
async def test_stems_sum_to_the_mix(start, kind, counts):
    """However many stems there are, their WAV files sum to that of the song within 1e-3."""
    for count in counts:
        api = await start(longest=3.0, choices=Choices(**{f"stems_{kind}": count}))
        clip = await api.song()
        mix = await sound(
            api, (await direct(api, "/sonic/wav", {"clip_id": clip["clip_id"]}))["data"]["wav_url"]
        )
        stems = await api.finished(await api.submit(f"/sonic/stems/{kind}", {"clip_id": clip["clip_id"]}))
        assert len(stems) == count
        assert len({stem["stem_type"] for stem in stems}) == count
        assert all(stem["title"].lower().endswith(" - " + stem["stem_type"]) for stem in stems)
        parts = [await sound(api, stem["audio_url"].replace(".mp3", ".wav")) for stem in stems]
        assert np.abs(sum(parts) - mix).max() < 1e-3


@pytest.mark.parametrize(("choice", "named"), [("type", "stem_type"), ("title", "title")])
async def test_stem_names(start, choice, named):
    """A stem's name stands where the choice says; title holds it always."""
    api = await start(choices=Choices(stem_names=choice))
    clip = await api.song()
    stems = await api.finished(await api.submit("/sonic/stems/basic", {"clip_id": clip["clip_id"]}))
    assert ("stem_type" in stems[0]) is (choice == "type")
    assert "vocals" in stems[0][named].lower()


async def test_midi_holds_the_notes_and_bpm_the_tempo(start):
    """202 first, then the notes that the file holds too; asking again is free; bpm is the score's tempo."""
    api = await start(speed=200.0)
    clip = await api.song(tags="pop, 100 bpm")
    body = {"clip_id": clip["clip_id"]}
    status, reply = await api.post("/sonic/midi", body)
    assert (status, reply) == (202, {"type": "not_ready", "error": "MIDI is still being built."})
    paid = api.sandbox.journal.charges
    data = (await direct(api, "/sonic/midi", body))["data"]
    assert api.sandbox.journal.charges == paid
    notes = [note for instrument in data["instruments"] for note in instrument["notes"]]
    assert notes
    for note in notes:
        assert type(note["pitch"]) is int
        assert 0 <= note["pitch"] <= 127
        assert 0 <= note["start"] < note["end"] <= float(clip["duration"]) + 1e-3
        assert 0 <= note["velocity"] <= 1
    _, raw = await api.call("GET", data["midi_url"], key=None)
    file = mido.MidiFile(file=io.BytesIO(raw))
    struck = sum(m.type == "note_on" and m.velocity > 0 for track in file.tracks for m in track)
    assert struck == len(notes)
    tempo = (await direct(api, "/sonic/bpm", body))["data"]
    assert tempo == {"avg_bpm": 100.0, "max_bpm": 100.0, "min_bpm": 100.0}


async def test_midi_of_a_stem_holds_only_its_notes(start):
    """The drums' file has no singer."""
    api = await start()
    clip = await api.song()
    stems = await api.finished(await api.submit("/sonic/stems/full", {"clip_id": clip["clip_id"]}))
    by_name = {stem["stem_type"]: stem["clip_id"] for stem in stems}
    vocals = (await direct(api, "/sonic/midi", {"clip_id": by_name["vocals"]}))["data"]["instruments"]
    whole = (await direct(api, "/sonic/midi", {"clip_id": clip["clip_id"]}))["data"]["instruments"]
    assert len(vocals) == 1
    assert vocals[0] in whole


async def test_aligned_lyrics_follow_the_singer(start):
    """Each word starts with a sung note; the first call costs, the next are free; no lyrics is a 404."""
    api = await start(longest=20.0)
    clip = await api.song()
    body = {"clip_id": clip["clip_id"]}
    words = (await direct(api, "/sonic/aligned-lyrics", body))["data"]["alignment"]
    paid = api.sandbox.journal.charges
    await direct(api, "/sonic/aligned-lyrics", body)
    assert api.sandbox.journal.charges == paid
    assert "".join(word["word"] for word in words).split()[:4] == ["[Verse]", "Rain", "on", "the"]
    singer = (await direct(api, "/sonic/midi", body))["data"]["instruments"][0]
    starts = {round(note["start"], 3) for note in singer["notes"]}
    for word, following in itertools.pairwise(words):
        assert word["start_s"] < word["end_s"] <= following["start_s"] + 1e-3
    assert all(min(abs(word["start_s"] - at) for at in starts) < 2e-3 for word in words)
    quiet = (await api.finished(await api.submit(body={**CUSTOM, "make_instrumental": True})))[0]
    assert quiet["lyrics"] == "[Instrumental]"
    status, reply = await api.post("/sonic/aligned-lyrics", {"clip_id": quiet["clip_id"]})
    assert (status, reply) == (404, {"type": "not_found", "error": "clip not found or has no lyrics"})


async def test_extend_and_concat(start):
    """An extension is only the new part; concat gives the whole: source up to the seam, then the part."""
    api = await start()
    clip = await api.song()
    extend = {**CUSTOM, "task_type": "extend_music", "continue_clip_id": clip["clip_id"], "continue_at": 4}
    parts = await api.finished(await api.submit(body=extend))
    assert len(parts) == 2
    concat = {"task_type": "concat_music", "continue_clip_id": parts[0]["clip_id"]}
    (whole,) = await api.finished(await api.submit(body=concat))
    assert float(whole["duration"]) == pytest.approx(4 + float(parts[0]["duration"]), abs=0.02)
    status, _ = await api.post("/sonic/create", {**concat, "continue_clip_id": clip["clip_id"]})
    assert status == 400
    assert api.sandbox.journal.charges == 20 + 15 + 2


@pytest.mark.parametrize(
    ("kind", "fields", "count"),
    [
        ("cover_music", CUSTOM, 2),
        ("cover_music", WISH, 2),
        ("remaster", {"mv": "sonic-v5", "variation_category": "normal"}, 2),
        ("add_vocals", {"mv": "sonic-v5", "prompt": "oh yeah", "overpainting_end_s": 5}, 2),
        ("add_instrumental", {"mv": "sonic-v5", "tags": "rock"}, 2),
    ],
)
async def test_reworks(start, kind, fields, count):
    """Every rework gives finished clips with a length and a text, and files can be made of them."""
    api = await start(longest=4.0)
    clip = await api.song()
    body = {**fields, "task_type": kind, "continue_clip_id": clip["clip_id"]}
    clips = await api.finished(await api.submit(body=body))
    assert len(clips) == count
    assert all(float(item["duration"]) >= 1 and item["lyrics"] for item in clips)
    assert len(await sound(api, clips[0]["audio_url"])) > 40_000


async def test_personas(start):
    """A persona sings; its source must be young; the older form has its own text."""
    api = await start(speed=1000.0)
    clip = await api.song()
    body = {"name": "Rainy voice", "clip_id": clip["clip_id"]}
    status, reply = await api.post("/sonic/persona", body)
    assert (status, set(reply)) == (200, {"code", "persona_id", "message"})
    song = {**CUSTOM, "task_type": "persona_music"}
    status, refused = await api.post("/sonic/create", song)
    text = "The 'persona_id' field is required when task_type = persona_music."
    assert (status, refused["error"]) == (400, text)
    sung = await api.finished(await api.submit(body={**song, "persona_id": reply["persona_id"]}))
    works = api.sandbox.service
    voices = {works.clips.get(item["clip_id"]).recipe.brief.voice_seed for item in sung}
    assert voices == {works.clips.get(clip["clip_id"]).recipe.brief.seed}
    older = {"name": "x", "description": "warm", "continue_clip_id": clip["clip_id"]}
    assert (await api.post("/sonic/persona", older))[0] == 200
    status, refused = await api.post("/sonic/persona", {"name": "x", "description": "warm"})
    assert (status, refused["error"]) == (400, "name and continue_clip_id are required fields.")
    api.sandbox.forward(86_401)
    assert (await api.post("/sonic/persona", body))[0] == 400


async def test_vox_and_persona_bounds(start):
    """A vox segment is at most 30 seconds; a persona must name the same bounds."""
    api = await start()
    clip = await api.song()
    bounds = {"vocal_start_s": 1.0, "vocal_end_s": 3.0}
    data = (await direct(api, "/sonic/vox", {"clip_id": clip["clip_id"], **bounds}))["data"]
    assert data["source_clip_id"] == clip["clip_id"]
    persona = {"name": "x", "clip_id": clip["clip_id"], "vox_audio_id": data["vox_audio_id"]}
    assert (await api.post("/sonic/persona", {**persona, **bounds}))[0] == 200
    assert (await api.post("/sonic/persona", {**persona, **bounds, "vocal_end_s": 4.0}))[0] == 400
    wide = {"clip_id": clip["clip_id"], "vocal_start_s": 0, "vocal_end_s": 31}
    assert (await api.post("/sonic/vox", wide))[0] == 400


async def test_voices(start):
    """create-voice fetches a voice of more than ten seconds; it sings for a month; 402 without credits."""
    api = await start()
    clip = await api.song(duration=12)
    status, reply = await api.post("/sonic/create-voice", {"audio_url": clip["audio_url"]})
    assert (status, set(reply)) == (200, {"message", "task_id", "warning"})
    _, body = await api.until(f"/sonic/task/{reply['task_id']}", lambda status, _: status == 200)
    assert set(body["data"]) == {"persona_id", "name"}
    song = {**CUSTOM, "task_type": "persona_music", "persona_id": body["data"]["persona_id"]}
    await api.submit(body=song)
    short = await api.song()
    status, reply = await api.post("/sonic/create-voice", {"audio_url": short["audio_url"]})
    assert status == 400
    poor = await start(credits=3)
    status, reply = await poor.post("/sonic/create-voice", {"audio_url": clip["audio_url"]})
    assert (status, reply["type"]) == (402, "insufficient_credits")
    api.sandbox.forward(30 * 86_400)
    assert await api.post("/sonic/create", song) == (404, {"type": "not_found", "error": "persona not found"})


async def test_uploads_are_really_fetched(start):
    """HEAD then GET of a file on this machine; what is heard afterwards is the upload."""
    api = await start()
    clip = await api.song()
    source = await start(longest=4.0)
    other = await source.song()
    status, reply = await api.post("/sonic/upload", {"url": other["audio_url"]})
    assert (status, set(reply)) == (200, {"code", "clip_id", "message"})
    assert [entry.method for entry in source.sandbox.journal.requests(kind="media")] == ["HEAD", "GET"]
    mine = await sound(api, clip["audio_url"].replace(clip["clip_id"], reply["clip_id"]))
    theirs = await sound(source, other["audio_url"])
    assert len(mine) == pytest.approx(len(theirs), abs=2500)
    words = {"clip_id": reply["clip_id"]}
    stems = await api.finished(await api.submit("/sonic/stems/basic", words))
    assert len(stems) == 2


async def test_what_is_told_of_an_upload_is_true(start):
    """Of a song made here notes, words and tempo are its own; of foreign sound none are made up."""
    api = await start(longest=4.0)
    clip = await api.song()
    foreign = await (await start(longest=4.0, seed=5)).song()
    mine, theirs = [
        {"clip_id": (await direct(api, "/sonic/upload", {"url": made["audio_url"]}))["clip_id"]}
        for made in (clip, foreign)
    ]
    await asyncio.sleep(60 / api.sandbox.clock.speed)
    for path in ("/sonic/aligned-lyrics", "/sonic/bpm"):
        told = await direct(api, path, {"clip_id": clip["clip_id"]})
        assert await direct(api, path, mine) == told
    own, known = [
        (await direct(api, "/sonic/midi", body))["data"]["instruments"]
        for body in (mine, {"clip_id": clip["clip_id"]})
    ]
    assert own == known
    assert (await direct(api, "/sonic/midi", theirs))["data"]["instruments"] == []
    assert (await api.post("/sonic/aligned-lyrics", theirs))[0] == 404


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://files.example/source.mp3", "Audio URL is not accessible."),
        ("{media}/nothing.mp3", "Audio URL is not accessible."),
        ("{image}", "Upload request failed (HTTP 400): Invalid audio file"),
        ("ftp://x/y", "The 'url' field should be a valid URL."),
        ("http://[", "The 'url' field should be a valid URL."),
    ],
)
async def test_refused_uploads(start, url, text):
    """What cannot be fetched or is no audio is refused with the documented texts and costs nothing."""
    api = await start()
    clip = await api.song()
    paid = api.sandbox.journal.charges
    url = url.format(media=clip["audio_url"].rpartition("/")[0], image=clip["image_url"])
    status, reply = await api.post("/sonic/upload", {"url": url})
    assert status == 400
    assert reply["error"].startswith(text)
    assert api.sandbox.journal.charges == paid


async def test_too_long_uploads_are_refused(start):
    """More than eight minutes is too much."""
    api = await start(durations=Durations(song=(10.0, 0.0), upload=0.0))
    clip = await api.song()
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(481 * 8000, np.int16), 8000, format="WAV")
    tape = api.sandbox.service.store_upload(UploadedFile(buffer.getvalue()))
    api.sandbox._media._store((clip["clip_id"], "wav"), tape.data)
    url = clip["audio_url"].replace(".mp3", ".wav")
    status, reply = await api.post("/sonic/upload", {"url": url})
    assert (status, "8 minutes" in reply["error"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "step", "fields"),
    [
        ("/sonic/upload-extend", "extend", CUSTOM),
        ("/sonic/upload-cover", "cover", WISH),
        (
            "/sonic/sample",
            "sample",
            {**WISH, "make_instrumental": False, "chop_sample_start_s": 0, "chop_sample_end_s": 2},
        ),
    ],
)
async def test_steps(start, path, step, fields):
    """upload-*, sample: `steps` in full; either step may fail with `failed_step` and no task id."""
    api = await start()
    clip = await api.song()
    status, reply = await api.post(path, {**fields, "url": clip["audio_url"]})
    assert status == 200
    assert reply["steps"]["upload"]["success"] is True
    assert reply["steps"][step] == {"success": True, "task_id": reply["task_id"]}
    assert all(item["state"] == "succeeded" for item in await api.finished(reply["task_id"]))
    status, reply = await api.post(path, {**fields, "url": "https://files.example/x.mp3"})
    assert (status, reply["failed_step"]) == (400, "upload")
    assert reply["steps"]["upload"]["error"].startswith("Audio URL is not accessible.")
    paid = api.sandbox.journal.charges
    api.sandbox.faults.on("POST", path, Fault.fail_step())
    status, reply = await api.post(path, {**fields, "url": clip["audio_url"]})
    assert (status, reply["failed_step"], reply["message"]) == (400, step, f"{step.capitalize()} failed")
    assert "task_id" not in reply
    assert reply["steps"]["upload"]["clip_id"]
    assert api.sandbox.journal.charges == paid


@pytest.mark.parametrize(
    ("path", "word", "fields"),
    [
        ("/sonic/upload-extend", "extended", {**CUSTOM, "continue_at": 3}),
        ("/sonic/replace-section", "replaced", {"mv": "sonic-v5", "infill_start_s": 2, "infill_end_s": 4}),
    ],
)
async def test_pairs(start, path, word, fields):
    """With auto_concat the result is pairs; `full` is null until joined, then it is the whole song."""
    api = await start(speed=400.0)
    clip = await api.song()
    source = {"url": clip["audio_url"]} if "upload" in path else {"clip_id": clip["clip_id"]}
    task_id = await api.submit(path, {**fields, **source, "auto_concat": True})
    joining: list[bool] = []

    def over(status: int, body: Any) -> bool:
        pairs = body.get("data") or []
        joining.extend(pair["full"] is None and pair[word]["state"] == "succeeded" for pair in pairs)
        return bool(pairs) and all(pair["full"] is not None for pair in pairs)

    _, body = await api.until(f"/sonic/task/{task_id}", over)
    assert any(joining)
    for pair in body["data"]:
        assert set(pair) == {word, "full"}
        assert pair["full"]["state"] == "succeeded"
        assert float(pair["full"]["duration"]) > float(pair[word]["duration"])
    api.sandbox.faults.on("POST", path, Fault.partial())
    task_id = await api.submit(path, {**fields, **source, "auto_concat": True, "title": "Second"})
    _, body = await api.until(
        f"/sonic/task/{task_id}",
        lambda _, b: bool(b.get("data")) and b["data"][0]["full"] and b["data"][1][word]["state"] == "failed",
    )
    assert body["data"][1]["full"] is None


async def test_mashup(start):
    """Exactly two known clips become one song."""
    api = await start()
    one, two = await api.song(), await api.song(title="Other")
    ids = [one["clip_id"], two["clip_id"]]
    clips = await api.finished(await api.submit("/sonic/mashup", {**WISH, "mashup_clip_ids": ids}))
    assert len(clips) == 2
    assert (await api.post("/sonic/mashup", {**WISH, "mashup_clip_ids": ids[:1]}))[0] == 400
    assert (await api.post("/sonic/mashup", {**WISH, "mashup_clip_ids": [ids[0], UNKNOWN]}))[0] == 404


async def test_download(start):
    """202 until the files are there; one price for the first round, whatever the formats."""
    api = await start(speed=200.0)
    clip = await api.song()
    body = {"clip_id": clip["clip_id"], "formats": ["mp3", "wav"]}
    paid = api.sandbox.journal.charges
    assert await api.post("/sonic/download", body) == (
        202,
        {"type": "not_ready", "error": "Files are being prepared."},
    )
    files = (await direct(api, "/sonic/download", body))["data"]["files"]
    assert [item["format"] for item in files] == ["mp3", "wav"]
    assert api.sandbox.journal.charges == paid + 2
    status, reply = await api.post("/sonic/download", {"clip_id": UNKNOWN, "formats": ["mp3"]})
    assert (status, reply) == (404, {"type": "not_found", "error": "Source no longer available."})


@pytest.mark.parametrize(
    "path",
    ["/sonic/wav", "/sonic/midi", "/sonic/bpm", "/sonic/vox", "/sonic/stems/basic", "/sonic/stems/full"],
)
async def test_unknown_clips(start, path):
    """A clip that nobody made is a 404 and costs nothing."""
    api = await start()
    assert await api.post(path, {"clip_id": UNKNOWN}) == (
        404,
        {"type": "not_found", "error": "clip not found"},
    )
    assert api.sandbox.journal.charges == 0


async def test_lyrics_and_tags(start):
    """Direct lyrics have their own texts; tags grow; both have their other forms."""
    api = await start(choices=Choices(lyrics=1, upsampled="flat"))
    _, reply = await api.post("/sonic/lyrics", {"description": "a song about sky"})
    assert set(reply) == {"code", "results", "message"}
    assert [set(item) for item in reply["results"]] == [{"title", "lyrics"}]
    assert (await api.post("/sonic/lyrics", {}))[1]["error"] == "description is required."
    status, reply = await api.post("/sonic/lyrics", {"description": "x" * 120})
    assert (status, reply["error"]) == (400, "The description character length should be less than 120.")
    _, reply = await api.post("/sonic/upsample-tags", {"tags": "pop, happy"})
    assert set(reply) == {"upsampled_tags"}
    _, reply = await api.post("/suno/make-lyrics", {"prompt": "sky"})
    task_id = reply["data"]["task_id"]
    _, body = await api.until(f"/suno/get-lyrics/{task_id}", lambda status, _: status == 200)
    assert body["data"]["status"] == "complete"
    assert body["data"]["text"]
    _, flat = await api.post("/suno/get-song", {"share_link": "https://suno.example/song/example"})
    assert all(isinstance(value, str) for value in flat.values())
    assert (await api.call("GET", flat["audio_url"], key=None))[0] == 200


async def test_retired_and_unknown_paths(start):
    """410 for what is retired, HTML for paths and methods that do not exist."""
    api = await start(choices=Choices(nuro="retired", riffusion="retired", studio="retired"))
    gone = {"type": "endpoint_retired", "error": "This endpoint has been retired."}
    for family in ("nuro", "riffusion", "studio"):
        assert await api.post(f"/{family}/create", {}) == (410, gone)
        assert await api.get(f"/{family}/task/x") == (410, gone)
    assert await api.post("/riffusion/upload", {"url": "https://files.example/a.mp3"}) == (410, gone)
    for kind in ("music_variation", "swap_music_vocals", "swap_music_sound"):
        status, reply = await api.post("/producer/create", {"task_type": kind})
        assert (status, reply["error"]) == (410, "This task type is no longer supported.")
    for path in ("/credits", "/sonic/generate", "/sonic/export-midi"):
        status, raw = await api.get(path)
        assert (status, raw[:9]) == (404, b"<!doctype")
    assert (await api.call("DELETE", "/sonic/create"))[0] == 405


async def test_bodies_are_read_from_json_only(start):
    """A form body is no JSON."""
    api = await start()
    status, reply = await api.call("POST", "/sonic/create", data={"mv": "sonic-v6"})
    assert (status, reply["type"]) == (400, "validation_error")
    status, _ = await api.call("POST", "/sonic/create", data=io.BytesIO(b"[" * 2_000_000))
    assert status == 413
    assert api.sandbox.journal.charges == 0
