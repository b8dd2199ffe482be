"""Sonic: songs, personas and what is made of them."""

from __future__ import annotations

from typing import Final

from . import clip_requests as tools
from . import song_requests as songs
from .lyrics import AlignedLyrics, LyricsDrafts
from .operation import Family, Polled, Repeat, calls, submits
from .replies import Bpm, Files, Midi, Persona, Upload, UpsampledTags, Vox, Wav
from .request import GetMusic
from .results import Clips, TaskUpdate
from .stems import Stems, Voice

SONGS: Final = Polled("/sonic/task/{task_id}", "sonic", first=15, interval=15, deadline=900)
STEMS: Final = Polled("/sonic/task/{task_id}", "sonic", first=15, interval=15, deadline=1800)
VOICES: Final = Polled("/sonic/task/{task_id}", "sonic", first=10, interval=15, deadline=900)
"""First look, interval and deadline in seconds (contract, tasks 5)."""

SLOW: Final = 120.0
"""Seconds for calls that do their work before they answer (contract, errors 6)."""
UPLOADING: Final = 180.0
"""Seconds for calls that import audio first and then submit (contract, errors 6)."""


class Sonic(Family):
    """Songs with or without vocals, personas, and what is made of them: `client.sonic`."""

    word = "sonic"

    create_music = submits("/sonic/create", songs.CreateMusic, Clips, polled=SONGS)
    extend_music = submits("/sonic/create", songs.ExtendMusic, Clips, polled=SONGS)
    concat_music = submits("/sonic/create", songs.ConcatMusic, Clips, polled=SONGS)
    cover_music = submits("/sonic/create", songs.CoverMusic, Clips, polled=SONGS)
    persona_music = submits("/sonic/create", songs.PersonaMusic, Clips, polled=SONGS)
    remaster = submits("/sonic/create", songs.Remaster, Clips, polled=SONGS)
    add_vocals = submits("/sonic/create", songs.AddVocals, Clips, polled=SONGS)
    add_instrumental = submits("/sonic/create", songs.AddInstrumental, Clips, polled=SONGS)
    extend_upload_music = submits("/sonic/create", songs.ExtendUploadMusic, Clips, polled=SONGS)
    cover_upload_music = submits("/sonic/create", songs.CoverUploadMusic, Clips, polled=SONGS)

    create_persona = calls("/sonic/persona", tools.CreatePersona, Persona)
    create_persona_older = calls("/sonic/persona", tools.CreatePersonaOlder, Persona)
    create_voice = submits("/sonic/create-voice", tools.CreateVoice, Voice, polled=VOICES)

    upload = calls("/sonic/upload", tools.Upload, Upload, attempt_timeout=SLOW)
    upload_extend = submits(
        "/sonic/upload-extend", tools.UploadExtend, Clips, polled=SONGS, attempt_timeout=UPLOADING
    )
    upload_cover = submits(
        "/sonic/upload-cover", tools.UploadCover, Clips, polled=SONGS, attempt_timeout=UPLOADING
    )
    sample = submits("/sonic/sample", tools.Sample, Clips, polled=SONGS, attempt_timeout=UPLOADING)
    mashup = submits("/sonic/mashup", tools.Mashup, Clips, polled=SONGS)
    replace_section = submits("/sonic/replace-section", tools.ReplaceSection, Clips, polled=SONGS)

    stems_basic = submits("/sonic/stems/basic", tools.StemsBasic, Stems, polled=STEMS)
    stems_full = submits("/sonic/stems/full", tools.StemsFull, Stems, polled=STEMS)

    wav = calls("/sonic/wav", tools.GetWav, Wav)
    midi = calls("/sonic/midi", tools.GetMidi, Midi, repeat=Repeat(every=5, deadline=180))
    bpm = calls("/sonic/bpm", tools.GetBpm, Bpm)
    vox = calls("/sonic/vox", tools.GetVox, Vox)
    aligned_lyrics = calls(
        "/sonic/aligned-lyrics",
        tools.GetAlignedLyrics,
        AlignedLyrics,
        resend=True,
        attempt_timeout=SLOW,
        repeat=Repeat(every=10, deadline=180, on="empty"),
    )
    upsample_tags = calls("/sonic/upsample-tags", tools.UpsampleTags, UpsampledTags)
    lyrics = calls("/sonic/lyrics", tools.WriteLyrics, LyricsDrafts, attempt_timeout=SLOW)
    download = calls("/sonic/download", tools.Download, Files, repeat=Repeat(every=3, deadline=120))

    get_music = calls(
        "/sonic/task/{task_id}", GetMusic, TaskUpdate, method="GET", charges=False, polled=SONGS
    )
