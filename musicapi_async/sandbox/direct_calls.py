"""Sonic's direct calls: what can be known or made of a clip at once."""

from __future__ import annotations

import zlib
from typing import Final

from .backend import Call
from .lyric_writer import upsample_tags, write_lyrics
from .ordered_tasks import OrderedClip, StoredVox
from .recipes import composed, heard, score_of
from .replies import JsonReply, invalid, not_found, not_ready
from .score import Brief
from .validation import LYRICS_DESCRIPTION, Form

FORMATS: Final = ("mp3", "m4a", "wav")
"""The formats that download makes."""

LONGEST_VOX = 30.0


def _found(data: object) -> dict[str, object]:
    return {"code": 200, "message": "success", "data": data}


def wav(call: Call) -> JsonReply:
    """`POST /sonic/wav`: a link; no `code` in the reply."""
    clip = call.service.clip(call.form.clip_id("clip_id"), call.now)
    call.pay("wav")
    return JsonReply({"message": "success", "data": {"wav_url": call.service.media(f"{clip.clip_id}.wav")}})


def midi(call: Call) -> JsonReply:
    """`POST /sonic/midi`: 202 while it is being built, then the notes that are heard."""
    service = call.service
    clip = service.clip(call.form.clip_id("clip_id"), call.now)
    key = f"midi:{clip.clip_id}"
    requested = service.requested.get(key)
    if requested is None or service.choices.midi_repeats == "charged":
        call.pay("midi")
    if requested is None:
        requested = service.requested.put(key, call.now)
    if call.now < requested + service.durations.midi:
        raise not_ready("MIDI is still being built.")
    score = heard(clip.recipe, clip.stem_names if clip.stem else None)
    instruments = [
        {
            "name": part.name,
            "notes": [
                {
                    "pitch": note.pitch,
                    "start": round(note.start, 5),
                    "end": round(note.end, 5),
                    "velocity": round(note.velocity, 3),
                }
                for note in part.notes
            ],
        }
        for part in score.parts
        if part.notes
    ]
    link = service.media(f"{clip.clip_id}.mid")
    return JsonReply(_found({"midi_url": link, "instruments": instruments}))


def bpm(call: Call) -> JsonReply:
    """`POST /sonic/bpm`: the true tempo."""
    clip = call.service.clip(call.form.clip_id("clip_id"), call.now)
    call.pay("bpm")
    tempos = score_of(clip.recipe).tempos
    seconds = sum(end - start for start, end, _ in tempos)
    average = sum((end - start) * rate for start, end, rate in tempos) / max(seconds, 1e-9)
    rates = [rate for _, _, rate in tempos]
    data = {"avg_bpm": round(average, 2), "max_bpm": round(max(rates), 2), "min_bpm": round(min(rates), 2)}
    return JsonReply(_found(data))


def vox(call: Call) -> JsonReply:
    """`POST /sonic/vox`: a segment of the voice, for personas."""
    form, service = call.form, call.service
    start, end = form.number("vocal_start_s"), form.number("vocal_end_s")
    if (start is None) != (end is None):
        raise invalid("The 'vocal_start_s' and 'vocal_end_s' fields should be given together.")
    clip = service.clip(form.clip_id("clip_id"), call.now)
    first = 0.0 if start is None else start
    last = min(LONGEST_VOX, clip.recipe.duration) if end is None else end
    if not first < last or round(last - first, 3) > LONGEST_VOX:  # 32.2 - 2.2 is a little more than 30
        raise invalid("The vocal segment should be at most 30 seconds long, its end after its start.")
    call.pay("vox")
    segment = StoredVox(service.new_id(), clip.clip_id, first, last)
    service.voxes.put(segment.vox_audio_id, segment)
    return JsonReply(
        _found(
            {
                "vox_audio_id": segment.vox_audio_id,
                "status": "ready",
                "source_clip_id": clip.clip_id,
                "vocal_start_s": first,
                "vocal_end_s": last,
                "wave_response": {},
            }
        )
    )


def aligned_lyrics(call: Call) -> JsonReply:
    """`POST /sonic/aligned-lyrics`: the sung words in time; the first call per clip costs."""
    service = call.service
    text = "clip not found or has no lyrics"
    clip = service.clip(call.form.clip_id("clip_id"), call.now, text=text)
    fresh = clip.uploaded and call.now < clip.ends + service.durations.alignment
    words = () if fresh else heard(clip.recipe).words
    if not words and not fresh:
        raise not_found(text)
    key = f"aligned:{clip.clip_id}"
    if key not in service.requested:
        call.pay("aligned_lyrics")
        service.requested.put(key, call.now)
    alignment = [
        {
            "word": word.text,
            "start_s": round(word.start, 5),
            "end_s": round(word.end, 5),
            "p_align": 0.9 + zlib.crc32(word.text.encode()) % 100 / 1000,
            "success": True,
        }
        for word in words
    ]
    return JsonReply(_found({"alignment": alignment}))


def upsample(call: Call) -> JsonReply:
    """`POST /sonic/upsample-tags`: fuller tags."""
    tags = call.form.needed("tags", most=1000)
    call.pay("upsample_tags")
    data = {"upsampled_tags": upsample_tags(tags, call.service.new_seed())}
    return JsonReply(data if call.service.choices.upsampled == "flat" else _found(data))


def lyrics(call: Call) -> JsonReply:
    """`POST /sonic/lyrics`: candidates at once."""
    description = _lyrics_wish(call, "description")
    call.pay("lyrics")
    songs = write_lyrics(description, call.service.new_seed())[: call.service.choices.lyrics]
    results = [{"title": title, "lyrics": text} for title, text in songs]
    body = {"code": 200, "results": results, "message": "success"}
    return JsonReply(body, pause=call.service.durations.lyrics)


def _lyrics_wish(call: Call, name: str) -> str:
    wish = call.form.text(name)
    if wish is None:
        raise invalid(f"{name} is required.")
    if len(wish) > LYRICS_DESCRIPTION:
        raise invalid(f"The {name} character length should be less than 120.")
    Form({"description": wish}).moderate()
    return wish


def make_lyrics(call: Call) -> JsonReply:
    """`POST /suno/make-lyrics`: the legacy task; its id is under `data`."""
    wish = _lyrics_wish(call, "prompt")
    call.pay("lyrics")
    task = call.order("lyrics", "make-lyrics", call.service.durations.lyrics_task, shape="lyrics")
    title, text = write_lyrics(wish, call.service.new_seed())[0]
    task.result = {
        "task_id": task.task_id,
        "status": "complete",
        "title": title,
        "text": text,
        "input": wish,
        "metadata": {},
    }
    return JsonReply({"code": 200, "data": {"task_id": task.task_id}, "message": "success"})


def get_song(call: Call) -> JsonReply:
    """`POST /suno/get-song`: metadata of a share link; the sandbox makes up a song that follows from it."""
    service = call.service
    link = call.form.source_url("share_link")
    call.pay("song_metadata")
    clip_id = link.rpartition("/")[2]
    clip = service.clips.get(clip_id)
    if clip is None:
        seed = zlib.crc32(link.encode())
        title, text = write_lyrics(link.rpartition("/")[2] or "song", seed)[0]
        brief = Brief(seed=seed, title=title, lyrics=text)
        clip = OrderedClip(
            service.new_id(), composed(brief, longest=service.longest), title=title, tags="pop"
        )
        service.clips.put(clip.clip_id, clip)
    return JsonReply(
        {
            "audio_url": service.media(f"{clip.clip_id}.mp3"),
            "video_url": service.media(f"{clip.clip_id}.mp4"),
            "cover_image": service.media(f"image_{clip.clip_id}.png"),
            "song_title": clip.title,
            "song_author": "Sandbox",
            "music_styles": clip.tags,
        }
    )


def download(call: Call) -> JsonReply:
    """`POST /sonic/download`: 202 while files are prepared, then links; one price for all formats."""
    form, service = call.form, call.service
    clip_id, formats = form.clip_id("clip_id"), form.words("formats", 10)
    if not formats:
        raise invalid("The 'formats' field is required.")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise invalid(f"The 'formats' field is invalid. The sandbox makes {', '.join(FORMATS)}.")
    clip = service.clip(clip_id, call.now, text="Source no longer available.")
    key = f"files:{clip.clip_id}:{','.join(sorted(set(formats)))}"
    requested = service.requested.get(key)
    if requested is None or requested < 0:
        call.pay("download")
    if requested is None:
        requested = service.requested.put(key, call.now)
    if requested >= 0 and call.now < requested + service.durations.files:
        raise not_ready("Files are being prepared.")
    service.requested.put(key, -1.0)
    files = [{"format": name, "url": service.media(f"{clip.clip_id}.{name}")} for name in formats]
    return JsonReply(_found({"files": files}))
